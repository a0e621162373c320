//! Which server of a backend is asked next, and whether any may be asked at all.
//!
//! Owns the compiled form of backends and the counters they balance by. Never opens a socket or reads a clock.
//! Read next: `balancer.rs`.

pub mod balancer;
pub mod buffering;
pub mod condition;
pub mod key;
pub mod limit;
pub mod shard;

use std::net::SocketAddr;
use std::sync::Arc;

/// Index of a backend in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(pub u32);

/// Index of a server in its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ServerId(pub u32);

/// Names one upstream address (scheme, host, port) for as long as any snapshot uses it: small, dense, and stable over
/// reloads, so a core finds the connection pool of a server by index. Given out by `control`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey(pub u32);

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    /// HTTP/1.1 over TLS.
    Https,
    /// Accepted at load and answered per request as spec backends 2.1 says.
    Unsupported,
}

/// One server: an address to connect to, as configured and as resolved.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    /// As configured, for logs and cookies.
    pub url: String,
    pub scheme: Scheme,
    /// Host and port as configured (no port if none was), ready to be sent as the Host field when `passHostHeader` is off.
    pub authority: Box<[u8]>,
    /// The host alone, lower case and without brackets: the name that a certificate must be for.
    pub host: Box<str>,
    /// Where to connect, tried in order. Empty while the name cannot be resolved.
    pub addresses: Vec<SocketAddr>,
    pub pool: PoolKey,
}

/// A set of servers with a policy.
#[derive(Clone, Debug)]
pub struct Backend {
    pub name: String,
    /// In the order of their names (spec backends 2.1).
    pub servers: Vec<Server>,
    pub balancer: balancer::RoundRobin,
    /// How many exchanges may be under way.
    pub max_conn: Option<limit::Limit>,
    /// Bodies are held whole, with these limits.
    pub buffering: Option<buffering::Buffering>,
    /// This core's part of the state that outlives a reload.
    pub shard: Arc<shard::Shard>,
}

impl Backend {
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize]
    }

    /// The server whose turn it is on this core.
    ///
    /// # Errors
    /// There is nobody to ask: see [`balancer::NoServer`].
    #[inline]
    pub fn next(&self) -> Result<ServerId, balancer::NoServer> {
        self.balancer.next(&self.shard)
    }

    /// The next server that is not among `tried`, for another try of the same request.
    ///
    /// # Errors
    /// There is nobody left to ask: see [`balancer::NoServer`].
    pub fn next_except(&self, tried: &[ServerId]) -> Result<ServerId, balancer::NoServer> {
        self.balancer.next_except(&self.shard, tried)
    }
}
