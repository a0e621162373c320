//! One core's part of a backend's state. It outlives a reload that leaves the backend as it was.
//!
//! Written by its core only, with plain relaxed stores; anyone may read. Never locks.
//! Read next: `round_robin.rs` (whose turn it is), `load.rs` (who is busy).

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::load::Tally;
use super::round_robin::RoundRobin;

/// No number of changes.
const NEVER: u64 = u64::MAX;

/// What one core knows of a backend beside its snapshot.
#[derive(Debug)]
pub struct Shard {
    /// Index of the core.
    pub core: usize,
    /// The number of changes that the rest was made from; [`NEVER`] before the first choice.
    seen: AtomicU64,
    pub turns: RoundRobin,
    /// How busy the servers are; without servers where nobody asks.
    pub tally: Tally,
    pub ramp: Ramp,
}

impl Shard {
    /// For a backend of so many servers, some of whose state only some methods need.
    pub fn new(core: usize, servers: usize, needs_tally: bool, needs_ramp: bool) -> Self {
        let only = |is_needed| if is_needed { servers } else { 0 };
        Self {
            core,
            seen: AtomicU64::new(NEVER),
            turns: RoundRobin::new(servers),
            tally: Tally::new(only(needs_tally), core),
            ramp: Ramp::new(only(needs_ramp)),
        }
    }

    /// Whether this is from before the last of so many changes, or a server's weight should have grown meanwhile.
    #[inline]
    pub fn is_older_than(&self, changes: u32, now: u64) -> bool {
        self.seen.load(Relaxed) != u64::from(changes) || now >= self.ramp.due.load(Relaxed)
    }

    /// Begins anew with these weights.
    pub fn restart(&self, changes: u32, weights: impl Iterator<Item = u32> + Clone) {
        self.turns.restart(weights.clone(), self.core);
        self.tally.restart(weights);
        self.seen.store(u64::from(changes), Relaxed);
    }
}

/// Servers that have come back and get their whole weight by and by, as this core has seen them.
#[derive(Debug)]
pub struct Ramp {
    /// When each came back, in nanoseconds; 0 is long ago.
    since: Box<[AtomicU64]>,
    /// When a weight grows next.
    due: AtomicU64,
}

/// In so many steps a weight grows.
pub const RAMP_STEPS: u32 = 10;
/// Instead of a time: it is not there.
const AWAY: u64 = u64::MAX;

impl Ramp {
    fn new(servers: usize) -> Self {
        Self {
            since: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            due: AtomicU64::new(u64::MAX),
        }
    }

    /// Notes who is there. True if somebody has not its whole weight yet.
    pub fn note(&self, is_available: impl Fn(usize) -> bool, length: u64, now: u64) -> bool {
        let step = (length / u64::from(RAMP_STEPS)).max(1);
        let mut due = u64::MAX;
        for (at, since) in self.since.iter().enumerate() {
            let before = since.load(Relaxed);
            let after = match (is_available(at), before) {
                (false, _) => AWAY,
                (true, AWAY) => now.max(1),
                (true, 0) => 0,
                (true, came) if now.saturating_sub(came) >= length => 0,
                (true, came) => came,
            };
            since.store(after, Relaxed);
            if after != 0 && after != AWAY {
                let steps = now.saturating_sub(after) / step + 1;
                due = due.min(after.saturating_add(steps.saturating_mul(step)));
            }
        }
        self.due.store(due, Relaxed);
        due != u64::MAX
    }

    /// So many of [`RAMP_STEPS`] parts of its weight a server has.
    pub fn parts(&self, at: usize, length: u64, now: u64) -> u32 {
        let step = (length / u64::from(RAMP_STEPS)).max(1);
        match self.since.get(at).map(|since| since.load(Relaxed)) {
            None | Some(0 | AWAY) => RAMP_STEPS,
            Some(came) => {
                let steps = now.saturating_sub(came) / step + 1;
                u32::try_from(steps).map_or(RAMP_STEPS, |steps| steps.min(RAMP_STEPS))
            }
        }
    }
}
