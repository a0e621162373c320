//! A store that tests hold in their hands: it can be changed, broken, emptied and forgetful.
//!
//! Owns everything it stores. Exists in tests only.
#![allow(
    clippy::disallowed_types,
    reason = "tests only; nothing is held across an await"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch as signal;
use tokio::time::Instant;

use super::{
    Answer, Change, Error, Expected, Fence, Fenced, Kind, Listing, Lock, LockRequest, Pair,
    Position, Prefix, Seen, Store, Swap, Version, Watch,
};

/// A handle to a store; clones are handles to the same one.
#[derive(Clone, Debug)]
pub struct Memory {
    kind: Kind,
    state: Arc<Mutex<State>>,
    changed: signal::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    keys: BTreeMap<String, (Bytes, u64)>,
    position: u64,
    /// The keys written by each position after `forgotten`.
    history: Vec<(u64, String)>,
    forgotten: u64,
    error: Option<Error>,
    watches: usize,
    /// The keys that are locks now, and which of all locks each is.
    held: BTreeMap<String, u64>,
    locks: u64,
    /// When something was asked or told.
    calls: Vec<Instant>,
}

impl Memory {
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            state: Arc::default(),
            changed: signal::Sender::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while it holds it")
    }

    /// Sets a full key.
    pub fn set(&self, key: &str, value: &str) {
        self.state().write(key, Some(value.as_bytes()));
        self.changed.send_replace(());
    }

    /// Removes a full key.
    pub fn remove(&self, key: &str) {
        self.state().write(key, None);
        self.changed.send_replace(());
    }

    /// Makes every request fail, those under way too, until `None`.
    pub fn fail(&self, error: Option<Error>) {
        self.state().error = error;
        self.changed.send_replace(());
    }

    /// As after a restart that lost its data.
    pub fn lose(&self) {
        let watches = self.state().watches;
        *self.state() = State {
            watches,
            ..State::default()
        };
        self.changed.send_replace(());
    }

    /// Forgets what happened, but not the values.
    pub fn compact(&self) {
        let mut state = self.state();
        state.history.clear();
        state.forgotten = state.position;
    }

    /// Full keys in the order in which they were written.
    pub fn written(&self) -> Vec<String> {
        let state = self.state();
        state.history.iter().map(|(_, key)| key.clone()).collect()
    }

    /// When something was asked or told since this was asked last.
    pub fn calls(&self) -> Vec<Instant> {
        std::mem::take(&mut self.state().calls)
    }

    /// Ends a lock, as a store does whose holder was not heard of.
    pub fn expire(&self, key: &str) {
        self.state().held.remove(key);
        self.changed.send_replace(());
    }

    /// Watches that are open now.
    pub fn watches(&self) -> usize {
        self.state().watches
    }
}

impl State {
    fn write(&mut self, key: &str, value: Option<&[u8]>) -> u64 {
        self.position += 1;
        match value {
            Some(value) => {
                let value = Bytes::copy_from_slice(value);
                self.keys.insert(key.to_owned(), (value, self.position));
            }
            None => {
                self.keys.remove(key);
            }
        }
        self.history.push((self.position, key.to_owned()));
        self.position
    }

    /// Takes a question.
    fn asked(&mut self) -> Result<(), Error> {
        self.calls.push(Instant::now());
        self.works()
    }

    fn works(&self) -> Result<(), Error> {
        self.error.clone().map_or(Ok(()), Err)
    }

    fn pair(&self, full: &str, shown: &str) -> Option<Pair> {
        self.keys.get(full).map(|(value, version)| Pair {
            key: shown.to_owned(),
            value: value.clone(),
            version: Version(*version),
        })
    }

    fn list(&self, below: &Prefix) -> Listing {
        let pairs = self.keys.keys().filter_map(|key| {
            let path = below.path(key)?;
            self.pair(key, path)
        });
        Listing {
            pairs: pairs.collect(),
            position: Position(self.position),
        }
    }

    /// What a watch has to say now.
    fn seen(&self, below: &Prefix, since: Option<Position>) -> Result<Option<Seen>, Error> {
        self.works()?;
        let Some(since) = since.filter(|since| since.0 <= self.position) else {
            return Ok(Some(Seen::Whole(self.list(below))));
        };
        if since.0 < self.forgotten {
            return Err(Error::Forgotten("compacted".to_owned()));
        }
        let changes: Vec<_> = self
            .history
            .iter()
            .filter(|(position, _)| *position > since.0)
            .filter_map(|(_, key)| {
                let path = below.path(key)?;
                Some(
                    self.pair(key, path)
                        .map_or_else(|| Change::Delete(path.to_owned()), Change::Put),
                )
            })
            .collect();
        Ok((!changes.is_empty()).then_some(Seen::Changes {
            changes,
            position: Position(self.position),
        }))
    }
}

impl Store for Memory {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(async move {
            let mut state = self.state();
            state.asked()?;
            Ok(state.list(below))
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            let mut state = self.state();
            state.asked()?;
            Ok(state.pair(key, key))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            self.state().asked()?;
            self.state().write(key, Some(value));
            self.changed.send_replace(());
            Ok(())
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.state().asked()?;
            self.state().write(key, None);
            self.changed.send_replace(());
            Ok(())
        })
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        Box::pin(async move {
            let pairs = self.list(below).await?.pairs;
            for pair in pairs {
                self.state().write(&below.key(&pair.key), None);
            }
            self.changed.send_replace(());
            Ok(())
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        Box::pin(async move {
            let mut state = self.state();
            state.asked()?;
            let is = state
                .keys
                .get(key)
                .map_or(Expected::Absent, |(_, version)| {
                    Expected::Version(Version(*version))
                });
            if is != expected {
                return Ok(Swap::Conflict);
            }
            let version = state.write(key, Some(value));
            drop(state);
            self.changed.send_replace(());
            Ok(Swap::Written(Version(version)))
        })
    }

    fn watch(&self, below: &Prefix, since: Option<Position>) -> Box<dyn Watch> {
        self.state().watches += 1;
        Box::new(MemoryWatch {
            store: self.clone(),
            below: below.clone(),
            since,
            changed: self.changed.subscribe(),
        })
    }

    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            let number;
            self.state().asked()?;
            loop {
                {
                    let mut state = self.state();
                    state.works()?;
                    if !state.held.contains_key(&request.key) {
                        state.locks += 1;
                        number = state.locks;
                        state.held.insert(request.key.clone(), number);
                        state.write(&request.key, Some(request.value.as_bytes()));
                        break;
                    }
                }
                changed.changed().await.expect("we hold a sender");
            }
            self.changed.send_replace(());
            Ok(Box::new(MemoryLock {
                store: self.clone(),
                changed: self.changed.subscribe(),
                key: request.key.clone(),
                number,
            }) as Box<dyn Lock>)
        })
    }
}

struct MemoryWatch {
    store: Memory,
    below: Prefix,
    since: Option<Position>,
    changed: signal::Receiver<()>,
}

impl Watch for MemoryWatch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            loop {
                self.changed.mark_unchanged();
                let seen = self.store.state().seen(&self.below, self.since);
                if !matches!(seen, Ok(None)) {
                    self.store.state().calls.push(Instant::now());
                }
                if let Some(seen) = seen? {
                    self.since = Some(seen.position());
                    return Ok(seen);
                }
                self.changed.changed().await.expect("we hold a sender");
            }
        })
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        self.store.state().watches -= 1;
    }
}

struct MemoryLock {
    store: Memory,
    changed: signal::Receiver<()>,
    key: String,
    number: u64,
}

#[derive(Debug)]
struct MemoryFence {
    store: Memory,
    key: String,
    number: u64,
}

impl MemoryFence {
    fn is_held(&self) -> bool {
        self.store.state().held.get(&self.key) == Some(&self.number)
    }
}

impl Fence for MemoryFence {
    fn held_until(&self) -> Instant {
        let now = Instant::now();
        if self.is_held() {
            now + Duration::from_secs(20)
        } else {
            now
        }
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            if !self.is_held() {
                return Ok(Fenced::Lost);
            }
            self.store
                .swap(key, expected, value)
                .await
                .map(Fenced::from)
        })
    }
}

impl Lock for MemoryLock {
    fn fence(&self) -> Arc<dyn Fence> {
        Arc::new(MemoryFence {
            store: self.store.clone(),
            key: self.key.clone(),
            number: self.number,
        })
    }

    fn lost(&mut self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            let is_held = |state: &State| state.held.get(&self.key) == Some(&self.number);
            while is_held(&self.store.state()) {
                self.changed.changed().await.expect("we hold a sender");
            }
        })
    }

    fn release(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(async move { Ok(()) })
    }
}

impl Drop for MemoryLock {
    fn drop(&mut self) {
        let mut state = self.store.state();
        if state.held.get(&self.key) == Some(&self.number) {
            state.held.remove(&self.key);
        }
        drop(state);
        self.store.changed.send_replace(());
    }
}
