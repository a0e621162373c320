//! A tree that is kept up to date: one watch, opened again after every loss, and never emptied by one.
//!
//! Owns the tree as the store has it, the position up to which it is true, and what the API shows of it. Never judges what
//! a key means; the caller says which keys count. Spec kv-stores 5, kv-dynamic 10 (9).
//! Read next: `mod.rs` for what a watch promises, `backoff.rs`.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{error, info, warn};

use super::backoff::Backoff;
use super::{Change, Error, Kind, Listing, Position, Prefix, Seen, Store, Watch};

/// Keys relative to the prefix, and their values.
pub type Tree = BTreeMap<String, Bytes>;

/// A change is handed on once this long nothing followed it, so that keys written one after the other arrive together...
const SETTLE: Duration = Duration::from_millis(10);
/// ...but not later than this, whatever follows.
const SETTLE_MAX: Duration = Duration::from_millis(50);

/// What the API shows of a store.
#[derive(Clone, Debug)]
pub struct Status {
    pub kind: Kind,
    /// Up to where the tree is true. `None`: it was never read.
    pub position: Option<Position>,
    /// When the store last said something of the tree, if only that it is as it was: its age is how old the tree may be.
    pub heard_at: Option<Instant>,
    /// When the tree last became different.
    pub changed_at: Option<Instant>,
    pub keys: usize,
    /// Why it is not followed now.
    pub error: Option<Error>,
    /// Since when not.
    pub failing_since: Option<Instant>,
    /// The store came back without our keys, and what was there before is still used.
    pub is_doubted: bool,
}

/// What is different since the last update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// Everything may be: this is the first tree, or the store had lost the one before.
    All,
    /// These keys, which may be gone; sorted.
    Keys(Vec<String>),
}

/// A tree that is different from the one before.
#[derive(Debug)]
pub struct Update<'a> {
    pub tree: &'a Tree,
    pub changed: Changed,
    pub position: Position,
}

/// Changes that were seen and not handed on yet.
#[derive(Debug)]
enum Pending {
    Nothing,
    Keys(BTreeSet<String>),
    All,
}

/// Follows everything below a prefix for as long as it is asked.
pub struct Follower {
    store: Arc<dyn Store>,
    prefix: Prefix,
    counts: fn(&str) -> bool,
    watch: Option<Box<dyn Watch>>,
    tree: Tree,
    /// Up to where the tree is true.
    position: Option<Position>,
    /// Where the next watch goes on. `None`: it begins with the whole tree.
    resume: Option<Position>,
    pending: Pending,
    /// While changes settle: when they are handed on if nothing follows, and at the latest.
    settling: Option<(Instant, Instant)>,
    /// Whether the store was lost since it last told us something.
    was_lost: bool,
    backoff: Backoff,
    retry_at: Option<Instant>,
    status: watch::Sender<Status>,
}

impl Follower {
    /// `counts` says whether a relative key matters: a change of others is taken in silently, and a tree without any is
    /// empty.
    pub fn new(store: Arc<dyn Store>, prefix: Prefix, counts: fn(&str) -> bool) -> Self {
        let status = Status {
            kind: store.kind(),
            position: None,
            heard_at: None,
            changed_at: None,
            keys: 0,
            error: None,
            failing_since: None,
            is_doubted: false,
        };
        Self {
            store,
            prefix,
            counts,
            watch: None,
            tree: Tree::new(),
            position: None,
            resume: None,
            pending: Pending::Nothing,
            settling: None,
            was_lost: false,
            backoff: Backoff::default(),
            retry_at: None,
            status: watch::Sender::new(status),
        }
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Waits for the first tree, and then for the next one that is different in a key that counts. Tries for ever, and
    /// says so in the log. Changes that follow each other closely arrive together. Dropping the future loses nothing.
    ///
    /// A tree that a store has lost is not handed on: where the first answer after a lost connection, or one with an
    /// earlier position than before, has no key that counts, the store stays doubted until it has one.
    pub async fn next(&mut self) -> Update<'_> {
        while !self.step().await {}
        let changed = match std::mem::replace(&mut self.pending, Pending::Nothing) {
            Pending::Keys(keys) => Changed::Keys(keys.into_iter().collect()),
            Pending::All | Pending::Nothing => Changed::All,
        };
        Update {
            tree: &self.tree,
            changed,
            position: self.position.unwrap_or_default(),
        }
    }

    /// Waits for one thing to happen; whether an update is ready.
    async fn step(&mut self) -> bool {
        if let Some(at) = self.retry_at {
            if self.settling.take().is_some() {
                return true;
            }
            sleep_until(at).await;
            self.retry_at = None;
        }
        let (store, prefix, resume) = (&self.store, &self.prefix, self.resume);
        let watch = self
            .watch
            .get_or_insert_with(|| store.watch(prefix, resume));
        let seen = match self.settling {
            None => watch.next().await,
            Some((quiet, latest)) => match timeout_at(quiet.min(latest), watch.next()).await {
                Ok(seen) => seen,
                Err(_) => {
                    self.settling = None;
                    return true;
                }
            },
        };
        match seen {
            Ok(seen) => self.take(seen),
            Err(error) => self.fail(error),
        }
        false
    }

    fn take(&mut self, seen: Seen) {
        let now = Instant::now();
        if self.status.borrow().error.is_some() {
            info!("{} is followed again", self.store.kind());
        }
        let position = seen.position();
        let is_changed = match seen {
            Seen::Quiet(_) => false,
            Seen::Changes { changes, .. } => {
                // Every one of them is taken in, whether or not one before it counts.
                let counting = changes.into_iter().filter(|change| self.apply(change));
                counting.count() > 0
            }
            Seen::Whole(listing) => self.replace(listing),
        };
        let is_doubted = self.status.borrow().is_doubted && !self.has_content();
        if self.status.borrow().is_doubted && !is_doubted {
            info!("{} has our keys again", self.store.kind());
        }
        self.position = Some(position);
        self.resume = self.position;
        self.was_lost = false;
        self.backoff.reset();
        let keys = self.tree.len();
        self.status.send_modify(|status| {
            status.position = Some(position);
            status.heard_at = Some(now);
            status.keys = keys;
            status.error = None;
            status.failing_since = None;
            status.is_doubted = is_doubted;
            if is_changed {
                status.changed_at = Some(now);
            }
        });
        if is_changed && !is_doubted {
            let latest = self.settling.map_or(now + SETTLE_MAX, |(_, latest)| latest);
            self.settling = Some((now + SETTLE, latest));
        }
    }

    /// Whether a key that counts is different.
    fn apply(&mut self, change: &Change) -> bool {
        let (key, is_different) = match change {
            Change::Put(pair) => {
                let before = self.tree.insert(pair.key.clone(), pair.value.clone());
                (&pair.key, before.as_ref() != Some(&pair.value))
            }
            Change::Delete(key) => (key, self.tree.remove(key).is_some()),
        };
        let counts = is_different && (self.counts)(key);
        if counts {
            self.note(key.clone());
        }
        counts
    }

    /// Takes a whole tree in. Whether a key that counts is different, or this is the first.
    fn replace(&mut self, listing: Listing) -> bool {
        let is_first = self.position.is_none();
        let went_back = self
            .position
            .is_some_and(|before| listing.position < before);
        let had_content = self.has_content();
        let new: Tree = listing
            .pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        let old = std::mem::replace(&mut self.tree, new);
        if went_back {
            warn!(
                "{} has gone back to {}: it has lost what was written last",
                self.store.kind(),
                listing.position
            );
        }
        if (self.was_lost || went_back) && had_content && !self.has_content() {
            warn!(
                "{} has come back without our keys below {}: what was there before is used until there are keys again",
                self.store.kind(),
                self.prefix.name()
            );
            self.status.send_modify(|status| status.is_doubted = true);
            self.pending = Pending::All;
            return false;
        }
        if is_first {
            self.pending = Pending::All;
            return true;
        }
        let mut is_changed = false;
        for key in difference(&old, &self.tree) {
            if (self.counts)(&key) {
                is_changed = true;
                self.note(key);
            }
        }
        is_changed
    }

    fn note(&mut self, key: String) {
        match &mut self.pending {
            Pending::All => {}
            Pending::Keys(keys) => {
                keys.insert(key);
            }
            Pending::Nothing => self.pending = Pending::Keys(BTreeSet::from([key])),
        }
    }

    fn has_content(&self) -> bool {
        self.tree.keys().any(|key| (self.counts)(key))
    }

    fn fail(&mut self, error: Error) {
        self.watch = None;
        let pause = self.backoff.pause();
        let now = Instant::now();
        self.retry_at = Some(now + pause);
        if let Error::Forgotten(_) = error {
            // Not a loss: the store is there and only wants to be read anew.
            info!(
                "{}: {error}; everything is read in {pause:?}",
                self.store.kind()
            );
            self.resume = None;
            return;
        }
        self.was_lost = true;
        error!("KV connection error: {error}, retrying in {pause:?}");
        self.status.send_modify(|status| {
            status.error = Some(error);
            status.failing_since.get_or_insert(now);
        });
    }
}

/// Keys that only one of them has or that have different values, sorted.
fn difference(old: &Tree, new: &Tree) -> Vec<String> {
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    let mut keys = Vec::new();
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return keys,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.0.cmp(new.0),
        };
        let key = match order {
            Ordering::Less => olds.next().map(|(key, _)| key),
            Ordering::Greater => news.next().map(|(key, _)| key),
            Ordering::Equal => {
                let (old, new) = (olds.next(), news.next());
                new.filter(|(_, value)| old.map(|(_, before)| before) != Some(*value))
                    .map(|(key, _)| key)
            }
        };
        keys.extend(key.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::Memory;
    use super::*;

    fn follow(store: &Memory) -> Follower {
        let prefix = Prefix::new(store.kind(), "t");
        Follower::new(Arc::new(store.clone()), prefix, |key| {
            !key.starts_with("leader")
        })
    }

    /// A key, a value, and what happened to it.
    #[track_caller]
    fn check(update: &Update<'_>, tree: &[(&str, &str)], changed: &Changed) {
        let is: Vec<_> = update
            .tree
            .iter()
            .map(|(key, value)| (key.as_str(), std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(is, tree);
        assert_eq!(&update.changed, changed);
    }

    fn keys(keys: &[&str]) -> Changed {
        Changed::Keys(keys.iter().map(|key| (*key).to_owned()).collect())
    }

    fn lost() -> Option<Error> {
        Some(Error::Unreachable("gone".to_owned()))
    }

    /// Whether there is an update within an hour of the paused clock.
    async fn is_told(follower: &mut Follower) -> bool {
        let hour = Instant::now() + Duration::from_secs(3600);
        timeout_at(hour, follower.next()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_tree_and_then_what_changes() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        let mut follower = follow(&store);
        check(&follower.next().await, &[("a", "1")], &Changed::All);
        store.set("t/b", "2");
        store.set("t/a", "3");
        store.set("t/a", "4");
        check(
            &follower.next().await,
            &[("a", "4"), ("b", "2")],
            &keys(&["a", "b"]),
        );
        store.remove("t/b");
        check(&follower.next().await, &[("a", "4")], &keys(&["b"]));
        assert_eq!(store.watches(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_store_is_a_tree_too() {
        let mut follower = follow(&Memory::new(Kind::Consul));
        check(&follower.next().await, &[], &Changed::All);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_do_not_count_and_equal_values_are_not_told() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        let mut follower = follow(&store);
        follower.next().await;
        store.set("t/leader", "n1");
        store.set("t/a", "1");
        assert!(!is_told(&mut follower).await);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happened_while_it_was_lost_is_told() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        let mut follower = follow(&store);
        let status = follower.status();
        follower.next().await;
        store.fail(lost());
        assert!(!is_told(&mut follower).await);
        assert!(status.borrow().failing_since.is_some());
        assert_eq!(status.borrow().keys, 1, "the tree stays");
        store.set("t/b", "2");
        store.fail(None);
        check(
            &follower.next().await,
            &[("a", "1"), ("b", "2")],
            &keys(&["b"]),
        );
        assert_eq!(status.borrow().error, None);
        assert_eq!(status.borrow().position, Some(Position(2)));
        assert_eq!(store.watches(), 1, "never a second watch");
    }

    #[tokio::test(start_paused = true)]
    async fn forgotten_history_is_read_anew_and_compared() {
        let store = Memory::new(Kind::EtcdV3);
        store.set("t/a", "1");
        store.set("t/b", "1");
        let mut follower = follow(&store);
        follower.next().await;
        store.fail(lost());
        assert!(!is_told(&mut follower).await);
        store.set("t/a", "2");
        store.remove("t/b");
        store.compact();
        store.fail(None);
        check(&follower.next().await, &[("a", "2")], &keys(&["a", "b"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_empty_empties_nothing() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        store.set("t/leader", "n1");
        let mut follower = follow(&store);
        let status = follower.status();
        follower.next().await;
        store.fail(lost());
        assert!(!is_told(&mut follower).await);
        store.lose();
        store.set("t/leader", "n2");
        assert!(!is_told(&mut follower).await, "an empty tree is not told");
        assert!(status.borrow().is_doubted);
        store.set("t/c", "3");
        check(
            &follower.next().await,
            &[("c", "3"), ("leader", "n2")],
            &Changed::All,
        );
        assert!(!status.borrow().is_doubted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_position_that_went_back_is_doubted_without_a_lost_connection() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        let mut follower = follow(&store);
        follower.next().await;
        store.lose();
        assert!(!is_told(&mut follower).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tree_deleted_before_our_eyes_is_empty() {
        let store = Memory::new(Kind::Consul);
        store.set("t/a", "1");
        let mut follower = follow(&store);
        follower.next().await;
        store.remove("t/a");
        check(&follower.next().await, &[], &keys(&["a"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_arrives_together() {
        let store = Memory::new(Kind::Consul);
        let mut follower = follow(&store);
        follower.next().await;
        let writer = store.clone();
        let burst = tokio::spawn(async move {
            for number in 0..1000 {
                writer.set("t/a", &number.to_string());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut updates = 0;
        loop {
            let update = follower.next().await;
            updates += 1;
            if update.tree["a"] == "999" {
                break;
            }
        }
        burst.await.unwrap();
        assert!(updates <= 25, "{updates} updates in a second");
    }
}
