//! Whether a server may be asked at present.
//!
//! Exact over all cores: one word for each server of a backend, shared by all snapshots and kept over reloads for as long
//! as the backend has the server. Who finds out that a server is down says so here ([`Availability::rule_out`]); every
//! balancer leaves it out from its next choice on, as if it were not in the list, and takes it back with its weight.
//! Never says why in words, never counts: health checks and ejection keep what they know elsewhere.
//! Read next: `shard.rs` (what a core makes of it).

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

/// Counts what has changed in a backend while its snapshots stayed the same. Whoever has seen the present number knows
/// everything; a core looks at it before each choice. Shared by the servers of a backend and by its snapshots.
#[derive(Debug, Default)]
pub struct Changes(AtomicU32);

impl Changes {
    /// Makes every core look again.
    pub fn add(&self) {
        self.0.fetch_add(1, AcqRel);
    }

    /// How many there were. What was written before any of them can be seen by whoever asks.
    #[inline]
    pub fn count(&self) -> u32 {
        self.0.load(Acquire)
    }
}

/// Who says that a server is not to be asked. It is asked again when nobody says so any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its health check fails.
    Unhealthy = 1,
    /// Its answers were too bad.
    Ejected = 2,
}

/// Whether one server of one backend is asked.
#[derive(Debug)]
pub struct Availability {
    /// Bits of [`Why`].
    reasons: AtomicU32,
    changes: Arc<Changes>,
}

impl Availability {
    /// A server that is asked, of the backend that has these changes.
    pub fn new(changes: Arc<Changes>) -> Self {
        Self {
            reasons: AtomicU32::new(0),
            changes,
        }
    }

    #[inline]
    pub fn is_available(&self) -> bool {
        self.reasons.load(Relaxed) == 0
    }

    /// It is not asked from now on. True if it was until now.
    pub fn rule_out(&self, why: Why) -> bool {
        let was_available = self.reasons.fetch_or(why as u32, AcqRel) == 0;
        if was_available {
            self.changes.add();
        }
        was_available
    }

    /// This is no reason any more. True if it was the only one.
    pub fn readmit(&self, why: Why) -> bool {
        let is_available = self.reasons.fetch_and(!(why as u32), AcqRel) == why as u32;
        if is_available {
            self.changes.add();
        }
        is_available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_comes_back_when_nobody_is_against_it() {
        let changes = Arc::<Changes>::default();
        let server = Availability::new(Arc::clone(&changes));
        assert!(server.is_available());
        assert!(!server.readmit(Why::Ejected), "it is there");
        assert_eq!(changes.count(), 0);

        assert!(server.rule_out(Why::Unhealthy));
        assert!(!server.rule_out(Why::Unhealthy), "it is known");
        assert!(!server.rule_out(Why::Ejected), "it was out already");
        assert_eq!((server.is_available(), changes.count()), (false, 1));

        assert!(!server.readmit(Why::Unhealthy), "one reason is left");
        assert!(server.readmit(Why::Ejected));
        assert_eq!((server.is_available(), changes.count()), (true, 2));
    }
}
