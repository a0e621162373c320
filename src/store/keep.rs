//! Keeps a lock alive: renews it in time, notices its loss, and knows until when it certainly is ours.
//!
//! Owns the task that does so, from the request for a lock to its end. Never takes part in how a store grants one.
//! Spec cluster 3, 3.2, 5. Read next: the `lock` of each store.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout, timeout_at};
use tracing::debug;

use super::{Answer, Error, Expected, Fence, Fenced, Lock};

/// Time to give a lock up. Later, the store ends it by itself.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often in its life a lock is renewed.
const RENEWALS: u32 = 3;

/// Pause before a store that did not tell is asked again whether a lock is still ours.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What a lock stands on, a session or a lease, in one store.
pub(super) trait Kept: Send + Sync + 'static {
    /// Takes the lock. Where there is a queue it waits for its turn; where there is none, `false` says that somebody else was
    /// faster.
    fn acquire(&self) -> Answer<'_, bool>;

    /// Asks the store to keep what the lock stands on; `false` if it is gone.
    fn renew(&self) -> Answer<'_, bool>;

    /// Waits until the store says that the lock is not ours any more.
    fn lost(&self) -> Answer<'_, ()>;

    /// Gives it up.
    fn release(&self) -> Answer<'_, ()>;

    /// Writes a key if it is as expected and the lock is ours.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced>;
}

/// The locks of one store, held or waited for.
#[derive(Clone, Debug, Default)]
pub(super) struct Keepers(watch::Sender<()>);

impl Keepers {
    /// Waits until there are none.
    pub(super) async fn settled(&self) {
        self.0.closed().await;
    }
}

type Released = oneshot::Sender<Result<(), Error>>;

/// [`take`] where there is a queue, in which nobody is faster.
pub(super) async fn take_in_turn(
    keepers: &Keepers,
    kept: Arc<dyn Kept>,
    ttl: Duration,
    began: Instant,
) -> Result<Box<dyn Lock>, Error> {
    let taken = take(keepers, kept, ttl, began).await?;
    taken.ok_or_else(|| Error::Unavailable("the place in the queue was lost".to_owned()))
}

/// A lock that is held.
struct Keeper {
    kept: Arc<dyn Kept>,
    state: watch::Receiver<State>,
    /// Asks the task to give the lock up, and to say how that went. Dropped, it gives it up without saying anything.
    release: oneshot::Sender<Released>,
}

#[derive(Clone, Copy)]
struct State {
    held_until: Instant,
    is_lost: bool,
}

/// Waits for a lock, and keeps what it stands on alive meanwhile and then. `began` is a time before the store made it. Where
/// the caller stops waiting, it fails, or somebody else was faster (`None`), what it stands on is given up again.
pub(super) async fn take(
    keepers: &Keepers,
    kept: Arc<dyn Kept>,
    ttl: Duration,
    began: Instant,
) -> Result<Option<Box<dyn Lock>>, Error> {
    let state = State {
        held_until: began + ttl,
        is_lost: false,
    };
    let (state_sender, state) = watch::channel(state);
    let (release, asked) = oneshot::channel();
    let (granted, grant) = oneshot::channel();
    let (task, under_way) = (Arc::clone(&kept), keepers.0.subscribe());
    tokio::spawn(async move {
        let kept = task;
        let asked = keep(&*kept, ttl, &state_sender, granted, asked).await;
        state_sender.send_modify(|state| state.is_lost = true);
        give_up(&*kept, ttl, asked).await;
        drop(under_way);
    });
    let is_ours = grant
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable("the lock ended".to_owned())))?;
    Ok(is_ours.then(|| {
        Box::new(Keeper {
            kept,
            state,
            release,
        }) as Box<dyn Lock>
    }))
}

/// Gives a lock up, and tells whoever asked for that how the first attempt went. A store that does not answer is asked again
/// for as long as the lock may last: when it comes back, the next one need not wait for the end of ours.
async fn give_up(kept: &dyn Kept, ttl: Duration, mut asked: Option<Released>) {
    let until = Instant::now() + ttl;
    loop {
        let done = timeout(RELEASE_TIMEOUT, kept.release())
            .await
            .unwrap_or_else(|_| {
                Err(Error::Unreachable(format!(
                    "a lock was not given up within {RELEASE_TIMEOUT:?}"
                )))
            });
        let is_done = done.is_ok();
        if let Some(released) = asked.take() {
            // Whoever asked may be gone by now.
            let _ = released.send(done);
        } else if let Err(error) = done {
            debug!("A lock is not given up yet: {error}");
        }
        if is_done || Instant::now() >= until {
            return;
        }
        sleep(ASK_AGAIN).await;
    }
}

/// Until the lock is to be given up; whom to tell.
async fn keep(
    kept: &dyn Kept,
    ttl: Duration,
    state: &watch::Sender<State>,
    granted: oneshot::Sender<Result<bool, Error>>,
    mut asked: oneshot::Receiver<Released>,
) -> Option<Released> {
    let mut granted = Some(granted);
    let mut tick = interval(ttl / RENEWALS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    // First the wait for the lock, then the wait for its end.
    let mut waiting = kept.acquire();
    loop {
        let held_until = state.borrow().held_until;
        tokio::select! {
            released = &mut asked => return released.ok(),
            () = given_up(granted.as_mut()) => return None,
            () = sleep_until(held_until) => return None,
            result = &mut waiting => match (granted.take(), result) {
                (Some(grant), Ok(true)) => {
                    grant.send(Ok(true)).ok()?;
                    waiting = until_lost(kept, Duration::ZERO);
                }
                (Some(grant), other) => {
                    // Whoever waited may have gone.
                    let _ = grant.send(other);
                    return None;
                }
                (None, Ok(_)) => return None,
                // The store is lost, the lock is not: it lasts as long as it was promised.
                (None, Err(_)) => waiting = until_lost(kept, ASK_AGAIN),
            },
            _ = tick.tick() => {
                let now = Instant::now();
                let until = held_until.min(now + ttl / RENEWALS);
                match timeout_at(until, kept.renew()).await {
                    Ok(Ok(true)) => state.send_modify(|state| state.held_until = now + ttl),
                    Ok(Ok(false)) => return None,
                    // Tried again with the next tick, while it lasts.
                    Ok(Err(_)) | Err(_) => {}
                }
            }
        }
    }
}

/// Waits until the store says that the lock is not ours any more.
fn until_lost(kept: &dyn Kept, pause: Duration) -> Answer<'_, bool> {
    Box::pin(async move {
        sleep(pause).await;
        kept.lost().await.map(|()| false)
    })
}

/// Waits until nobody waits for the lock any more; for ever, once it was granted.
async fn given_up(granted: Option<&mut oneshot::Sender<Result<bool, Error>>>) {
    match granted {
        Some(granted) => granted.closed().await,
        None => std::future::pending().await,
    }
}

impl Lock for Keeper {
    fn fence(&self) -> Arc<dyn Fence> {
        Arc::new(KeptFence {
            kept: Arc::clone(&self.kept),
            state: self.state.clone(),
            begins: Instant::now(),
        })
    }

    fn lost(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            // A task that is gone holds no lock either.
            let _ = self.state.wait_for(|state| state.is_lost).await;
        })
    }

    fn release(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(async move {
            let (released, done) = oneshot::channel();
            if self.release.send(released).is_err() {
                // It was lost before.
                return Ok(());
            }
            done.await.unwrap_or(Ok(()))
        })
    }
}

struct KeptFence {
    kept: Arc<dyn Kept>,
    state: watch::Receiver<State>,
    /// A time before now.
    begins: Instant,
}

impl fmt::Debug for KeptFence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fence").field(&self.held_until()).finish()
    }
}

impl Fence for KeptFence {
    fn held_until(&self) -> Instant {
        let state = *self.state.borrow();
        if state.is_lost {
            self.begins
        } else {
            state.held_until
        }
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            if self.held_until() <= Instant::now() {
                return Ok(Fenced::Lost);
            }
            self.kept.swap(key, expected, value).await
        })
    }
}
