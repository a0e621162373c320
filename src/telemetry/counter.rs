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
    /// Answers, where somebody may ask for them.
    pub answers: Answers,
}

/// The first status of HTTP, and the first behind the last one.
const STATUSES: std::ops::Range<u16> = 100..600;

/// The answers of one core.
#[derive(Debug)]
pub struct Answers {
    by_status: Box<[Counter]>,
    /// From the end of the request's head to the end of its answer, in nanoseconds, all together.
    pub time: Counter,
    /// Bytes of their bodies.
    pub bytes: Counter,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            by_status: STATUSES.map(|_| Counter::default()).collect(),
            time: Counter::default(),
            bytes: Counter::default(),
        }
    }
}

impl Answers {
    /// Only the owning core may call this. What is no status of HTTP is not counted.
    pub fn add(&self, status: u16, time: u64, bytes: u64) {
        let at = usize::from(status.wrapping_sub(STATUSES.start));
        if let Some(count) = self.by_status.get(at) {
            count.add(1);
            self.time.add(time);
            self.bytes.add(bytes);
        }
    }

    /// Each status that there was, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (u16, u64)> {
        let counts = STATUSES.zip(self.by_status.iter().map(Counter::value));
        counts.filter(|(_, count)| *count > 0)
    }
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

    #[test]
    fn answers_are_counted_by_status() {
        let answers = Answers::default();
        for status in [200, 404, 200, 599, 600, 0] {
            answers.add(status, 5, 2);
        }
        let counts: Vec<_> = answers.counts().collect();
        assert_eq!(counts, [(200, 2), (404, 1), (599, 1)]);
        assert_eq!((answers.time.value(), answers.bytes.value()), (20, 8));
    }
}
