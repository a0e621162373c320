//! One core's part of a backend's state. It outlives a reload that leaves the backend as it was.
//!
//! Written by its core only, with plain relaxed stores; anyone may read. Never locks.
//! Read next: `balancer.rs` (moves it).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::Server;
use super::balancer::RoundRobin;

/// What one core knows of a backend beside its snapshot.
#[derive(Debug)]
pub struct Shard {
    /// Index of the core.
    core: usize,
    /// The number of changes that the rest was made from; [`NEVER`] before the first choice.
    seen: AtomicU64,
    pub turns: RoundRobin,
}

/// No number of changes.
const NEVER: u64 = u64::MAX;

impl Shard {
    /// For a backend of so many servers.
    pub fn new(core: usize, servers: usize) -> Self {
        Self {
            core,
            seen: AtomicU64::new(NEVER),
            turns: RoundRobin::new(servers),
        }
    }

    /// Whether this is from before the last of so many changes.
    #[inline]
    pub fn is_older_than(&self, changes: u32) -> bool {
        self.seen.load(Relaxed) != u64::from(changes)
    }

    /// Begins anew with the servers that may be asked now: the others are as if they were not there.
    #[cold]
    pub fn renew(&self, changes: u32, servers: &[Server], weights: &[u32]) {
        let weights = servers.iter().zip(weights).map(|(server, weight)| {
            if server.availability.is_available() {
                *weight
            } else {
                0
            }
        });
        self.turns.restart(weights, self.core);
        self.seen.store(u64::from(changes), Relaxed);
    }
}
