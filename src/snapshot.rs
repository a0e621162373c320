//! The immutable value that control publishes and cores read: the compiled dynamic configuration.
//!
//! One copy per core, built and freed off-core. Owns nothing that a request writes, except each backend's shard, which
//! belongs to the core the copy is for. Never refers to `config`.
//! Read next: `compile/mod.rs` (makes it), `mailbox.rs` (carries it), `proxy/mod.rs` (swaps it in).

use std::collections::HashMap;
use std::sync::Arc;

pub use crate::backend::PoolKey;
use crate::backend::{Backend, BackendId, Server};
use crate::frontend::middleware::auth::forward::AuthServerId;
pub use crate::frontend::middleware::{Context, Middleware};
pub use crate::frontend::trie::Lookup;
use crate::frontend::trie::Trie;
use crate::frontend::{Frontend, FrontendId};
pub use crate::frontend::{explain, internal};
use crate::tls;

/// Index of an entry point, fixed at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryPointId(pub u16);

/// What is answered to a certificate authority that has names proved over HTTP (RFC 8555 8.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proofs {
    /// Where it asks.
    pub entry_point: EntryPointId,
    /// The answer for each token.
    pub answers: HashMap<String, String>,
}

/// The path of a token, ahead of it.
const PROOF_PATH: &[u8] = b"/.well-known/acme-challenge/";

impl Proofs {
    /// `None` for what is no question of an authority; then the answer, `None` if its token is not known.
    pub fn answer(&self, entry_point: EntryPointId, path: &[u8]) -> Option<Option<&str>> {
        if entry_point != self.entry_point {
            return None;
        }
        let token = path.strip_prefix(PROOF_PATH)?;
        let token = std::str::from_utf8(token).ok();
        Some(
            token
                .and_then(|token| self.answers.get(token))
                .map(String::as_str),
        )
    }
}

/// The compiled configuration, for one core.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every published configuration; 0 is the empty one a core starts with.
    pub generation: u64,
    /// Indexed by `EntryPointId`. Shared with other generations of this core, and with no other core.
    pub tries: Vec<Arc<Trie>>,
    /// Indexed by `FrontendId`, and shared in the same way.
    pub frontends: Vec<Arc<Frontend>>,
    /// Indexed by `EntryPointId`: TLS with the certificates of this generation. `None`, or no such index: as in `Settings`.
    pub tls: Vec<Option<tls::Server>>,
    /// Indexed by `AuthServerId`; one that cannot be spoken to is missing.
    pub auth_servers: Vec<Option<AuthServer>>,
    /// Indexed by `BackendId`, and shared in the same way. A place that no frontend names may hold any backend.
    pub backends: Vec<Arc<Backend>>,
    /// `None` if no names are proved over HTTP. Boxed: nearly always.
    pub proofs: Option<Box<Proofs>>,
    /// Pools that are emptied before anything is served by this: of addresses that no longer occur, and of keys that
    /// name another address from here on.
    pub pools_retired: Vec<PoolKey>,
}

/// A server that decides who may pass.
#[derive(Clone, Debug)]
pub struct AuthServer {
    pub server: Server,
    /// How it is spoken to, where it speaks TLS.
    pub tls: Option<tls::Client>,
}

impl AuthServer {
    /// A copy that shares no reference count with this one: each core has its own.
    #[must_use]
    pub fn for_core(&self) -> Self {
        Self {
            server: self.server.clone(),
            tls: self.tls.as_ref().map(tls::Client::for_core),
        }
    }
}

impl Snapshot {
    /// A server that decides who may pass; `None` if nobody can ask it.
    pub fn auth_server(&self, id: AuthServerId) -> Option<&AuthServer> {
        self.auth_servers.get(id.0 as usize)?.as_ref()
    }

    pub fn frontend(&self, id: FrontendId) -> &Frontend {
        &self.frontends[id.0 as usize]
    }

    pub fn backend(&self, id: BackendId) -> &Backend {
        &self.backends[id.0 as usize]
    }

    /// The trie of an entry point, `None` before the first configuration.
    pub fn trie(&self, id: EntryPointId) -> Option<&Trie> {
        self.tries.get(usize::from(id.0)).map(|trie| &**trie)
    }

    /// The TLS of an entry point, where this generation has certificates for it.
    pub fn tls(&self, id: EntryPointId) -> Option<&tls::Server> {
        self.tls.get(usize::from(id.0))?.as_ref()
    }
}
