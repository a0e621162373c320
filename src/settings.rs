//! What never changes while the process runs: entry points, time limits and the name we go by. The static counterpart
//! of `snapshot.rs`; every core holds one copy.
//!
//! Made once from the static configuration by `compile/settings.rs`. Never refers to `config`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::frontend::internal::Internal;
use crate::frontend::middleware::Middleware;
use crate::limits::{HELD_FILES_BYTES_MAX, HELD_MEMORY_BYTES_MAX};
use crate::telemetry::recent::Recent;
use crate::tls;

/// Everything a core is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Indexed by `EntryPointId`, in the order of their names.
    pub entry_points: Vec<EntryPoint>,
    pub timeouts: Timeouts,
    /// Idle connections kept for one server address, over all cores together. At least 1 a core.
    pub upstream_idle_max: usize,
    /// `[retry]`: tries for one request, `Some(0)` meaning as many as the backend has servers. `None` is off.
    pub retry_attempts: Option<u32>,
    /// Further tries for each hundred requests, on each core; `None`: no limit.
    pub retry_budget: Option<u32>,
    /// File descriptors this process may have open at once.
    pub descriptors_max: usize,
    /// What the bodies that `buffering` holds may take.
    pub held: HeldBounds,
    /// How `https://` servers are spoken to.
    pub upstream_tls: tls::Client,
    /// A rule for a host also means hosts whose chain of CNAMEs ends at it.
    pub flattens_hosts: bool,
    /// Value of `X-Forwarded-Server`.
    pub host_name: String,
    /// Where answers of 400 and more are remembered, if they are.
    pub recent_errors: Option<Arc<Recent>>,
}

impl Settings {
    /// Some entry point has pages that control makes.
    pub fn has_pages(&self) -> bool {
        let pages = self.entry_points.iter();
        let mut pages = pages.filter_map(|entry_point| entry_point.internal.as_ref());
        pages.any(|internal| internal.serves.api || internal.serves.rest)
    }

    /// Somebody may ask what was answered.
    pub fn counts_answers(&self) -> bool {
        let pages = self.entry_points.iter();
        let mut pages = pages.filter_map(|entry_point| entry_point.internal.as_ref());
        pages.any(|internal| internal.serves.api)
    }
}

/// Bytes of all bodies of the process that are held whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBounds {
    /// Over it they go to files early.
    pub memory: u64,
    /// Over it they are refused.
    pub files: u64,
}

impl Default for HeldBounds {
    fn default() -> Self {
        Self {
            memory: HELD_MEMORY_BYTES_MAX,
            files: HELD_FILES_BYTES_MAX,
        }
    }
}

/// An address we listen on.
#[derive(Clone, Debug)]
pub struct EntryPoint {
    pub name: String,
    pub address: SocketAddr,
    pub forwarded_headers: Trust,
    /// Whose PROXY header is believed; `None`: none is read.
    pub proxy_protocol: Option<Trust>,
    /// Steps for every request, before a frontend is looked for, in their order.
    pub middlewares: Box<[Middleware]>,
    /// Answers are compressed for clients that can read it.
    pub compress: bool,
    /// Speaks TLS, in this way.
    pub tls: Option<tls::Server>,
    /// Pages about ourselves, where some are on it.
    pub internal: Option<Box<Internal>>,
    /// With TLS: how `https://` servers are spoken to that are to see its certificates.
    pub towards_servers: Option<tls::Client>,
}

/// Whose word is taken. Decided on the peer's address only (spec frontends 10).
#[derive(Clone, Debug)]
pub enum Trust {
    Everybody,
    /// An empty list trusts nobody.
    Networks(Vec<IpNet>),
}

impl Trust {
    /// The word of this peer is taken.
    pub fn covers(&self, peer: IpAddr) -> bool {
        match self {
            Self::Everybody => true,
            Self::Networks(networks) => {
                let peer = peer.to_canonical();
                networks.iter().any(|network| network.contains(&peer))
            }
        }
    }
}

/// Time limits. `None` is no limit of the operator's; the data plane then falls back to `limits.rs` where a peer could
/// otherwise hold a connection for ever.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// Reading a whole request, head and body, from its first byte.
    pub read: Option<Duration>,
    /// From the end of the request head to the end of the answer.
    pub write: Option<Duration>,
    /// Between requests on a kept connection.
    pub idle: Option<Duration>,
    pub dial: Option<Duration>,
    /// From the end of the request sent to the first byte of the answer's head.
    pub response_header: Option<Duration>,
}
