//! Counters of one core.
//!
//! Each shard is written by its core alone, with plain relaxed stores; anyone may read, and sums the shards of all
//! cores. Never locks, never uses a read-modify-write instruction.

use std::sync::atomic::{AtomicU64, Ordering};

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Only the owning core may call this: the load and the store are not one step.
    pub fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Only the owning core may call this.
    pub fn sub(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(amount),
            Ordering::Relaxed,
        );
    }

    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one core counts. Aligned so that no two cores write the same cache line (prefetchers take lines in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Shard {
    /// Exchanges begun.
    pub requests: Counter,
    /// Exchanges that ended with an answer of our own, because the client, we, or the server failed.
    pub failures_client: Counter,
    pub failures_own: Counter,
    pub failures_server: Counter,
    /// Requests sent again, to another connection or server.
    pub retries: Counter,
    pub connections_accepted: Counter,
    pub connections_open: Counter,
    pub tunnels_open: Counter,
    pub upstream_connects: Counter,
    /// Bytes of bodies and heads, as read from and written to clients.
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    /// Connections ended by a caught panic.
    pub panics: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let shard = Shard::default();
        shard.connections_open.add(3);
        shard.connections_open.sub(1);
        assert_eq!(shard.connections_open.value(), 2);
        assert_eq!(shard.requests.value(), 0);
    }
}
