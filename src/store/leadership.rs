//! Which of the nodes that share a store leads: the election, and proof of having won it.
//!
//! Owns the term of office of this node. There is at most one leader whom the store believes; a node that was stopped for a
//! while or cut off knows by its own clock that its term is over, and the store refuses what it writes as the leader.
//! Never knows what a leader does. Spec cluster 2, 3. Read next: `keep.rs`, and the `lock` of each store.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::backoff::Backoff;
use super::{Answer, Error, Expected, Fence, Fenced, Lock, LockRequest, Store};

/// How long the store keeps the office of a leader that it does not hear of any more (spec cluster 3).
pub const TERM: Duration = Duration::from_secs(20);

/// Who has led for a shorter time waits before it stands for election again.
const TERM_SHORTEST: Duration = Duration::from_secs(1);

/// How long a node that stops waits for the store to take its office back. Later, the store does so by itself.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether this node leads, as it knows it now. Clones see the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    term: watch::Receiver<Option<Term>>,
}

/// A time during which this node leads. It may be over at any time: what only a leader may write goes through
/// [`Term::swap`].
#[derive(Clone, Debug)]
pub struct Term {
    fence: Arc<dyn Fence>,
    /// Its other end is gone when the term is over. `None`: it never is.
    ended: Option<watch::Receiver<()>>,
}

impl Leadership {
    /// Of a node that shares no store with others: it always leads, and has nowhere to write as the leader.
    pub fn alone() -> Self {
        let term = Term {
            fence: Arc::new(Alone),
            ended: None,
        };
        let (_, term) = watch::channel(Some(term));
        Self { term }
    }

    /// The term that runs now. `None`: another node leads, or nobody.
    pub fn term(&self) -> Option<Term> {
        self.term.borrow().clone().filter(Term::is_current)
    }

    /// Waits until this node leads; at once if it does.
    pub async fn won(&mut self) -> Term {
        loop {
            if let Some(term) = self.term.borrow_and_update().clone()
                && term.is_current()
            {
                return term;
            }
            if self.term.changed().await.is_err() {
                // Nobody stands for election any more.
                return std::future::pending().await;
            }
        }
    }
}

impl Term {
    /// Whether it certainly has not ended, by the clock of this machine.
    pub fn is_current(&self) -> bool {
        let has_ended = self
            .ended
            .as_ref()
            .is_some_and(|ended| ended.has_changed().is_err());
        !has_ended && Instant::now() < self.fence.held_until()
    }

    /// Waits until it is over.
    pub async fn ended(&self) {
        let Some(mut ended) = self.ended.clone() else {
            return std::future::pending().await;
        };
        loop {
            let until = self.fence.held_until();
            if until <= Instant::now() {
                return;
            }
            tokio::select! {
                // Nothing is ever sent: it is over with its other end.
                _ = ended.changed() => return,
                () = sleep_until(until) => {}
            }
        }
    }

    /// Writes a key of the store that the nodes share, if it is as expected and this node leads at that moment.
    pub fn swap<'a>(
        &'a self,
        key: &'a str,
        expected: Expected,
        value: &'a [u8],
    ) -> Answer<'a, Fenced> {
        if !self.is_current() {
            return Box::pin(std::future::ready(Ok(Fenced::Lost)));
        }
        self.fence.swap(key, expected, value)
    }
}

/// The fence of who is alone.
#[derive(Debug)]
struct Alone;

impl Fence for Alone {
    fn held_until(&self) -> Instant {
        Instant::now() + TERM
    }

    fn swap<'a>(&'a self, _: &'a str, _: Expected, _: &'a [u8]) -> Answer<'a, Fenced> {
        let error = Error::Unsupported("there is no store to write to as the leader".to_owned());
        Box::pin(std::future::ready(Err(error)))
    }
}

/// A node that stands for election until it resigns, whatever happens to the store.
#[derive(Debug)]
pub struct Election {
    node: String,
    leadership: Leadership,
    resign: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Election {
    /// Stands for election under this name. `key` is full, such as `traefik/leader`; all nodes that share it have one leader.
    pub fn start(store: Arc<dyn Store>, key: String, node: String) -> Self {
        let (term, leadership) = watch::channel(None);
        let (resign, resigned) = oneshot::channel();
        let request = LockRequest {
            key,
            value: node.clone(),
            ttl: TERM,
        };
        let task = tokio::spawn(run(store, request, term, resigned));
        Self {
            node,
            leadership: Leadership { term: leadership },
            resign,
            task,
        }
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Leads no longer, and makes room for the next one at once, as far as the store can be reached.
    pub async fn resign(self) {
        // A task that has ended needs no word.
        let _ = self.resign.send(());
        if timeout(RESIGN_TIMEOUT, self.task).await.is_err() {
            warn!("The store did not answer to the end of this node's part in the election");
        }
    }
}

async fn run(
    store: Arc<dyn Store>,
    request: LockRequest,
    term: watch::Sender<Option<Term>>,
    mut resigned: oneshot::Receiver<()>,
) {
    let node = &request.value;
    let mut backoff = Backoff::default();
    info!("Node {node} elected worker ♝");
    loop {
        debug!("Node {node} running for election");
        let won = tokio::select! {
            won = store.lock(&request) => won,
            _ = &mut resigned => break,
        };
        match won {
            Ok(mut lock) => {
                let began = Instant::now();
                info!("Node {node} elected leader ♚");
                let has_resigned = tokio::select! {
                    () = lead(&mut *lock, &term) => false,
                    _ = &mut resigned => true,
                };
                term.send_replace(None);
                info!("Node {node} elected worker ♝");
                if has_resigned {
                    if let Err(error) = lock.release().await {
                        warn!("The leadership could not be given up: {error}");
                    }
                    break;
                }
                if began.elapsed() >= TERM_SHORTEST {
                    backoff.reset();
                    continue;
                }
                // Somebody takes it away again and again.
                let pause = backoff.pause();
                warn!("The leadership was lost as soon as it was won, trying again in {pause:?}");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = &mut resigned => break,
                }
            }
            Err(error) => {
                let pause = backoff.pause();
                error!("Leadership election error {error}, retrying in {pause:?}");
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = &mut resigned => break,
                }
            }
        }
    }
    store.settled().await;
}

/// Leads until the lock is lost.
async fn lead(lock: &mut dyn Lock, term: &watch::Sender<Option<Term>>) {
    let (end, ended) = watch::channel(());
    term.send_replace(Some(Term {
        fence: lock.fence(),
        ended: Some(ended),
    }));
    lock.lost().await;
    drop(end);
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::super::memory::Memory;
    use super::*;

    const KEY: &str = "t/leader";

    fn start(store: &Memory, node: &str) -> Election {
        Election::start(Arc::new(store.clone()), KEY.to_owned(), node.to_owned())
    }

    async fn leader_of(store: &Memory) -> String {
        let pair = store.get(KEY).await.expect("answers").expect("is there");
        String::from_utf8(pair.value.to_vec()).expect("text")
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_the_next_one_follows_when_it_resigns() {
        let store = Memory::new(Kind::Consul);
        let one = start(&store, "n1");
        let first = one.leadership().won().await;
        assert_eq!(leader_of(&store).await, "n1");
        let two = start(&store, "n2");
        let mut second = two.leadership();
        let soon = Duration::from_secs(60);
        assert!(timeout(soon, second.won()).await.is_err(), "both lead");
        assert!(second.term().is_none());
        one.resign().await;
        assert!(!first.is_current());
        first.ended().await;
        second.won().await;
        assert_eq!(leader_of(&store).await, "n2");
    }

    #[tokio::test(start_paused = true)]
    async fn who_lost_its_term_writes_nothing_and_stands_again() {
        let store = Memory::new(Kind::EtcdV3);
        let election = start(&store, "n1");
        let mut leadership = election.leadership();
        let first = leadership.won().await;
        let written = first.swap("t/object", Expected::Absent, b"1").await;
        let Ok(Fenced::Written(version)) = written else {
            panic!("{written:?}");
        };
        let again = first.swap("t/object", Expected::Absent, b"x").await;
        assert_eq!(again, Ok(Fenced::Conflict));
        store.expire(KEY);
        // Before anybody had time to say so.
        assert!(!first.is_current());
        let late = first.swap("t/object", Expected::Version(version), b"x");
        assert_eq!(late.await, Ok(Fenced::Lost));
        first.ended().await;
        let second = leadership.won().await;
        let written = second.swap("t/object", Expected::Version(version), b"2");
        assert!(matches!(written.await, Ok(Fenced::Written(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_fails_for_an_hour_is_asked_until_it_answers() {
        let store = Memory::new(Kind::Consul);
        store.fail(Some(Error::Unreachable("gone".to_owned())));
        let election = start(&store, "n1");
        let mut leadership = election.leadership();
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, leadership.won()).await.is_err());
        store.fail(None);
        leadership.won().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_loses_every_term_at_once_does_not_ask_without_end() {
        let store = Memory::new(Kind::Consul);
        let election = start(&store, "n1");
        let mut leadership = election.leadership();
        let taker = tokio::spawn({
            let store = store.clone();
            async move {
                loop {
                    leadership.won().await;
                    store.expire(KEY);
                }
            }
        });
        sleep(Duration::from_secs(60)).await;
        let asked = store.calls().len();
        assert!((5..60).contains(&asked), "asked {asked} times in a minute");
        taker.abort();
        let mut leadership = election.leadership();
        leadership.won().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_alone_leads_for_ever() {
        let mut leadership = Leadership::alone();
        let term = leadership.won().await;
        assert!(
            timeout(Duration::from_secs(3600), term.ended())
                .await
                .is_err()
        );
        assert!(leadership.term().is_some());
        let written = term.swap("a", Expected::Absent, b"").await;
        assert!(matches!(written, Err(Error::Unsupported(_))));
    }
}
