//! Which server of a backend is asked next, and whether any may be asked at all.
//!
//! Owns the compiled form of backends and the counters they balance by. Never opens a socket or reads a clock.
//! Read next: `balancer.rs`.

pub mod availability;
pub mod balancer;
pub mod breaker;
pub mod buffering;
pub mod condition;
pub mod ejection;
pub mod key;
pub mod limit;
pub mod load;
pub mod rebalance;
pub mod ring;
pub mod round_robin;
pub mod shard;
pub mod sticky;

use std::net::SocketAddr;
use std::sync::Arc;

use self::availability::Availability;
use self::balancer::Balancer;

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

impl PoolKey {
    /// Of connections that are never kept.
    pub const NEVER: Self = Self(u32::MAX);
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    /// HTTP/2 or HTTP/1.1 over TLS, as its server chooses.
    Https,
    /// HTTP/2 without TLS, begun without asking.
    H2c,
    /// The control plane of this process, over a pair of sockets. Nobody can configure it.
    Control,
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
    /// Whether it may be asked at present; of this server in this backend, on all cores and over reloads.
    pub availability: Arc<Availability>,
}

/// A set of servers with a policy.
#[derive(Clone, Debug)]
pub struct Backend {
    pub name: String,
    /// In the order of their names (spec backends 2.1).
    pub servers: Vec<Server>,
    pub balancer: Balancer,
    /// Whether it may be asked at all, over all cores.
    pub breaker: Option<Arc<breaker::Breaker>>,
    /// Which servers fail too often to be asked, over all cores.
    pub ejection: Option<Arc<ejection::Ejection>>,
    /// How many exchanges may be under way.
    pub max_conn: Option<limit::Limit>,
    /// Bodies are held whole, with these limits.
    pub buffering: Option<buffering::Buffering>,
}

impl Backend {
    pub fn server(&self, id: ServerId) -> &Server {
        &self.servers[id.0 as usize]
    }
}
