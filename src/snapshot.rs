//! The immutable value that control publishes and cores read: the compiled dynamic configuration.
//!
//! One copy per core, built and freed off-core. Owns nothing that a request writes, except each backend's shard, which
//! belongs to the core the copy is for. Never refers to `config`.
//! Read next: `compile/mod.rs` (makes it), `mailbox.rs` (carries it), `proxy/mod.rs` (swaps it in).

pub use crate::backend::PoolKey;
use crate::backend::{Backend, BackendId};
use crate::frontend::trie::Trie;
use crate::frontend::{Frontend, FrontendId};
use crate::tls;

/// Index of an entry point, fixed at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryPointId(pub u16);

/// The compiled configuration, for one core.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every published configuration; 0 is the empty one a core starts with.
    pub generation: u64,
    /// Indexed by `EntryPointId`.
    pub tries: Vec<Trie>,
    /// Indexed by `FrontendId`.
    pub frontends: Vec<Frontend>,
    /// Indexed by `EntryPointId`: TLS with the certificates of this generation. `None`, or no such index: as in `Settings`.
    pub tls: Vec<Option<tls::Server>>,
    /// Indexed by `BackendId`.
    pub backends: Vec<Backend>,
    /// Pools that are emptied before anything is served by this: of addresses that no longer occur, and of keys that
    /// name another address from here on.
    pub pools_retired: Vec<PoolKey>,
}

impl Snapshot {
    pub fn frontend(&self, id: FrontendId) -> &Frontend {
        &self.frontends[id.0 as usize]
    }

    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.0 as usize]
    }

    /// The trie of an entry point, `None` before the first configuration.
    pub fn trie(&self, id: EntryPointId) -> Option<&Trie> {
        self.tries.get(usize::from(id.0))
    }

    /// The TLS of an entry point, where this generation has certificates for it.
    pub fn tls(&self, id: EntryPointId) -> Option<&tls::Server> {
        self.tls.get(usize::from(id.0))?.as_ref()
    }
}
