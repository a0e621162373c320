//! The key-value stores behind one trait: read a tree at one moment, follow its changes, write, lock.
//!
//! Owns the words that all stores share: [`Prefix`], [`Pair`], [`Position`], [`Version`], [`Seen`]. What a key means
//! is not known here. A store never empties what somebody holds because it was lost: an error is an error, and
//! [`Follower`] keeps the tree it had. Nothing here runs on a core.
//! Read next: `follow.rs` (what a provider uses), `settings.rs`, then one store; `docs/stores.md` for what each promises.

pub mod backoff;
pub mod error;
pub mod follow;
pub mod leadership;
#[cfg(test)]
pub mod memory;
pub mod settings;
#[cfg(test)]
mod simulation;

mod boltdb;
mod connect;
mod consul;
mod etcd2;
mod etcd3;
mod http;
mod keep;
mod zookeeper;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::warn;

use crate::limits::{STORE_KEYS_MAX, STORE_TREE_BYTES_MAX};

pub use error::{Error, Fault};
pub use follow::{Changed, Follower, Status, Tree, Update};
pub use leadership::{Election, Leadership, Term};
pub use settings::{Credentials, Kind, Prefix, Settings, Tls};

/// What a store will say. It may be dropped at any time; a write may then have happened or not.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// How far a store's history had come: Consul's index, etcd's revision (v3) or index (v2), ZooKeeper's zxid, BoltDB's
/// transaction. It only grows; one that is lower than before means that the store lost data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which write a value came from; any later write of the same key has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Version(pub u64);

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// In a [`Listing`] or a [`Change`] relative to the prefix that was asked for, as `backends/b/servers/s/url`; a name
    /// that ends in `/` marks a directory. As the store spells it where one key was asked for.
    pub key: String,
    /// Any bytes.
    pub value: Bytes,
    pub version: Version,
}

/// A tree as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Sorted by key, each key once.
    pub pairs: Vec<Pair>,
    pub position: Position,
}

/// One key that is different now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Put(Pair),
    /// The relative key.
    Delete(String),
}

/// What a watch has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The whole tree: what is not in it does not exist.
    Whole(Listing),
    /// What became different after the position before, in the order in which it did.
    Changes {
        changes: Vec<Change>,
        position: Position,
    },
    /// The store was heard, and nothing below the prefix is different up to this position.
    Quiet(Position),
}

impl Seen {
    /// Up to where the tree is true with it.
    pub fn position(&self) -> Position {
        match self {
            Self::Whole(listing) => listing.position,
            Self::Changes { position, .. } | Self::Quiet(position) => *position,
        }
    }
}

/// What must be true of a key for it to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Version(Version),
}

/// How a conditional write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    Written(Version),
    /// Somebody else wrote first; nothing was changed.
    Conflict,
}

/// A connection to one store. Keys are full: [`Prefix::key`] makes them.
///
/// Every method asks the endpoints in turn until one answers, and fails with [`Error::Unreachable`] when none did in
/// time. Nothing is tried again behind the caller's back once an endpoint may have executed a write.
pub trait Store: fmt::Debug + Send + Sync {
    fn kind(&self) -> Kind;

    /// Everything below a prefix, at one position: never half of somebody's transaction, as far as the store can tell.
    /// Keys of locks are left out. A prefix that does not exist is an empty listing.
    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing>;

    /// The newest value of one key.
    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>>;

    /// Writes one key, whatever was there. A key that ends in `/` is a directory's marker; stores with real directories
    /// make one, and one that exists already is no error.
    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()>;

    /// Writes many keys, in one transaction where that is what the store does with a file; otherwise one after the other, and
    /// those before an error stay written.
    fn put_all<'a>(&'a self, pairs: &'a [(String, Bytes)]) -> Answer<'a, ()> {
        Box::pin(async move {
            for (key, value) in pairs {
                self.put(key, value).await?;
            }
            Ok(())
        })
    }

    /// Removes one key. One that is not there is no error.
    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()>;

    /// Removes everything below a prefix.
    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()>;

    /// Writes one key if it still is what the caller believes it to be.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap>;

    /// Follows everything below a prefix. Without a position it begins with [`Seen::Whole`]; with one it goes on from
    /// there, or begins with [`Seen::Whole`] if the store cannot tell any more what happened since.
    fn watch(&self, below: &Prefix, since: Option<Position>) -> Box<dyn Watch>;

    /// Waits until this process holds the lock of that name, in the layout of Traefik 1.7 (spec cluster 3), and writes
    /// `value` into the key. Dropping the future gives the place in the queue up.
    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>>;

    /// Waits until every lock and place in a queue that was given up is given up in the store, too. Who ends the process
    /// earlier leaves them behind for as long as they last, in the way of the next one.
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

/// A watch that is under way. Opened again from the last position after an error; there is never a second one beside it.
pub trait Watch: Send {
    /// Waits for the next news. Dropping the future loses nothing: the next call goes on waiting.
    ///
    /// # Errors
    /// The watch is over. Every change that was seen has been returned before.
    fn next(&mut self) -> Answer<'_, Seen>;
}

/// A lock to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The full key, such as `traefik/leader`.
    pub key: String,
    /// What the key says while and after it is held.
    pub value: String,
    /// How long the store keeps a lock whose holder is not heard of any more.
    pub ttl: Duration,
}

/// A lock that is held, and kept alive until it is released or dropped.
pub trait Lock: Send {
    /// What makes holding it a condition of writes.
    fn fence(&self) -> Arc<dyn Fence>;

    /// Waits until the lock is lost.
    fn lost(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Gives it up, so that the next one need not wait for its end.
    fn release(self: Box<Self>) -> Answer<'static, ()>;
}

/// A lock as a condition of writes. It outlives the lock, and then refuses them.
pub trait Fence: fmt::Debug + Send + Sync {
    /// Until when nobody else can hold the lock, even if the store is never reached again. It moves on with every renewal,
    /// and is in the past once the lock is lost or given up. By the clock of this machine, so a process that was
    /// stopped for a while knows it before it does anything else.
    fn held_until(&self) -> Instant;

    /// [`Store::swap`] in the same store, if the lock is ours at the moment of the write. The store itself says whether it
    /// is, in the transaction of the write; etcd v2 has none, so there it is asked just before.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced>;
}

/// How a conditional write of who holds a lock ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fenced {
    Written(Version),
    /// Somebody else wrote first; nothing was changed.
    Conflict,
    /// The lock is not ours any more; nothing was changed.
    Lost,
}

impl From<Swap> for Fenced {
    fn from(swap: Swap) -> Self {
        match swap {
            Swap::Written(version) => Self::Written(version),
            Swap::Conflict => Self::Conflict,
        }
    }
}

/// A client for the store of these settings. It connects when it is first asked something.
///
/// # Errors
/// Settings that can never work: an endpoint that is no address, a certificate that cannot be read.
pub fn open(settings: &Settings) -> Result<Arc<dyn Store>, Error> {
    open_in(settings, &|name| std::env::var(name).ok())
}

/// Environment variables: a name's value, if it is set.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// [`open`] in an environment that is not the process's own.
///
/// # Errors
/// As [`open`].
pub fn open_in(
    settings: &Settings,
    environment: &Environment<'_>,
) -> Result<Arc<dyn Store>, Error> {
    let kind = settings.kind;
    if settings.endpoints.is_empty() {
        return Err(Error::Settings(format!("{kind}: no endpoint is given")));
    }
    if settings.tls.is_some() && matches!(kind, Kind::ZooKeeper | Kind::BoltDb) {
        warn!("{kind}: the section tls has no effect");
    }
    if settings.credentials.is_some() && kind == Kind::BoltDb {
        warn!("{kind}: username and password have no effect");
    }
    Ok(match kind {
        Kind::Consul => Arc::new(consul::Consul::new(settings, environment)?),
        Kind::EtcdV2 => Arc::new(etcd2::Etcd2::new(settings)?),
        Kind::EtcdV3 => Arc::new(etcd3::Etcd3::new(settings)?),
        Kind::ZooKeeper => Arc::new(zookeeper::ZooKeeper::new(settings)?),
        Kind::BoltDb => Arc::new(boltdb::BoltDb::new(settings)?),
    })
}

/// Among how long those who want a lock that has become free spread their attempts, where the store keeps no queue.
const LOCK_SPREAD: Duration = Duration::from_millis(500);

/// Part of the names of keys with which etcd's clients lock; they are in no listing.
const LOCK_MARK: &str = "___lock";

/// A listing from pairs in any order, or the error that one of them is, or that they are too many.
fn bounded(
    pairs: impl Iterator<Item = Result<Pair, Error>>,
    position: Position,
) -> Result<Listing, Error> {
    let mut listing = Listing {
        pairs: Vec::new(),
        position,
    };
    let mut bytes = 0;
    for pair in pairs {
        let pair = pair?;
        bytes += pair.key.len() + pair.value.len();
        if bytes > STORE_TREE_BYTES_MAX || listing.pairs.len() >= STORE_KEYS_MAX {
            return Err(Error::TooBig(format!(
                "a tree of more than {} MiB or {STORE_KEYS_MAX} keys",
                STORE_TREE_BYTES_MAX >> 20
            )));
        }
        listing.pairs.push(pair);
    }
    if !listing.pairs.is_sorted_by(|one, next| one.key < next.key) {
        listing
            .pairs
            .sort_unstable_by(|one, other| one.key.cmp(&other.key));
    }
    Ok(listing)
}
