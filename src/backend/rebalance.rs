//! Dynamic round robin: servers that answer worse than the others get fewer turns. Spec backends 3.2.
//!
//! Owns what was seen of each server's answers, and the weights made from it. Each core counts for itself; who answers
//! at the right moment, at most once in [`REBALANCE_INTERVAL`], sums all cores and decides for all of them. Then every
//! core takes the weights into its round robin.
//! Never looks at how long an answer took. Never locks: of two that would decide at once, one leaves it to the other.
//! Unlike the reference it forgets what is older than its window, also where few requests come.
//! Read next: `balancer.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::time::Duration;

use super::ServerId;
use crate::limits::{REBALANCE_INTERVAL, REBALANCE_SERVERS_MAX};

/// How far back answers count: so many buckets of a second each.
const WINDOW: usize = 10;
/// In so many seconds answers must have been seen before a server is judged.
const READY_SECONDS: u32 = 10;
/// Between two changes of the weights.
const BACK_OFF: Duration = Duration::from_secs(10);
/// A good server's weight grows by this at a time, and shrinks by it.
const FACTOR: u32 = 4;
/// The highest weight that growing leads to.
const WEIGHT_MAX: u32 = 4096;
/// A server is bad if it fails more often than most, by this.
const THRESHOLD: f64 = 1.5;

/// The answers of one server in the last seconds, as each core has seen them. Outlives reloads.
#[derive(Debug)]
pub struct Meter {
    cores: Box<[Window]>,
    /// In so many seconds there were failures, or answers that are none, each counted for itself; and the last such seconds,
    /// one later so that 0 is none. For who decides.
    seconds: AtomicU32,
    failed_last: AtomicU64,
    answered_last: AtomicU64,
}

/// What one core has seen, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Window([Bucket; WINDOW]);

/// One second.
#[derive(Debug, Default)]
struct Bucket {
    /// Which one, and one more.
    second: AtomicU64,
    failed: AtomicU32,
    answered: AtomicU32,
}

/// What was seen of one server.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    failed: u64,
    answered: u64,
    is_ready: bool,
}

impl Meter {
    pub fn new(cores: usize) -> Self {
        Self {
            cores: (0..cores).map(|_| Window::default()).collect(),
            seconds: AtomicU32::new(0),
            failed_last: AtomicU64::new(0),
            answered_last: AtomicU64::new(0),
        }
    }

    /// A core has seen an answer.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "below the number of buckets"
    )]
    fn record(&self, core: usize, failed: bool, now: u64) {
        let second = second(now);
        let bucket = &self.cores[core].0[(second % WINDOW as u64) as usize];
        if bucket.second.load(Relaxed) != second {
            bucket.failed.store(0, Relaxed);
            bucket.answered.store(0, Relaxed);
            bucket.second.store(second, Release);
        }
        let count = if failed {
            &bucket.failed
        } else {
            &bucket.answered
        };
        count.store(count.load(Relaxed).saturating_add(1), Relaxed);
    }

    /// What all cores have seen. For one caller at a time.
    fn sum(&self, now: u64) -> Seen {
        let now = second(now);
        let mut seen = Seen::default();
        let seconds = &mut self.seconds.load(Relaxed);
        for second in (now + 1).saturating_sub(WINDOW as u64)..=now {
            let (failed, answered) = self.sum_of(second);
            seen.failed += failed;
            seen.answered += answered;
            let mut count_second = |happened: bool, last: &AtomicU64| {
                if happened && last.load(Relaxed) < second {
                    last.store(second, Relaxed);
                    *seconds = seconds.saturating_add(1);
                }
            };
            count_second(failed > 0, &self.failed_last);
            count_second(answered > 0, &self.answered_last);
        }
        self.seconds.store(*seconds, Relaxed);
        seen.is_ready = *seconds >= READY_SECONDS;
        seen
    }

    /// Failures, and answers that are none, in one second.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "below the number of buckets"
    )]
    fn sum_of(&self, second: u64) -> (u64, u64) {
        let slot = (second % WINDOW as u64) as usize;
        let buckets = self.cores.iter().map(|window| &window.0[slot]);
        buckets
            .filter(|bucket| bucket.second.load(Acquire) == second)
            .fold((0, 0), |(failed, answered), bucket| {
                (
                    failed + u64::from(bucket.failed.load(Relaxed)),
                    answered + u64::from(bucket.answered.load(Relaxed)),
                )
            })
    }
}

/// The second of a time, and one more: 0 is none.
fn second(now: u64) -> u64 {
    now / 1_000_000_000 + 1
}

impl Seen {
    #[allow(clippy::cast_precision_loss, reason = "a ratio of counts")]
    fn failure_ratio(self) -> f64 {
        match self.failed + self.answered {
            0 => 0.0,
            all => self.failed as f64 / all as f64,
        }
    }
}

/// Decides over the weights of a backend.
#[derive(Debug)]
pub struct Rebalancer {
    configured: Box<[u32]>,
    /// In force, before anything else changes them.
    weights: Box<[AtomicU32]>,
    meters: Box<[Arc<Meter>]>,
    /// For which servers the weights are: their signature.
    members: AtomicU64,
    /// When somebody may decide again, in nanoseconds.
    due: AtomicU64,
    /// Until when the weights stay, in nanoseconds.
    settled_until: AtomicU64,
    is_deciding: AtomicBool,
    /// Nanoseconds between decisions.
    interval: u64,
}

impl Rebalancer {
    /// Servers with these weights, and what was seen of each already.
    pub fn new(configured: Box<[u32]>, meters: Box<[Arc<Meter>]>) -> Self {
        // Summing costs some nanoseconds for each server and core: a large backend is looked at less often, so that the
        // share of a core's time stays the same.
        let cells = meters.iter().map(|meter| meter.cores.len()).sum::<usize>();
        let interval = REBALANCE_INTERVAL
            * (1 + u32::try_from(cells / REBALANCE_SERVERS_MAX).unwrap_or(u32::MAX));
        Self {
            weights: configured.iter().copied().map(AtomicU32::new).collect(),
            configured,
            meters,
            members: AtomicU64::new(0),
            due: AtomicU64::new(0),
            settled_until: AtomicU64::new(0),
            is_deciding: AtomicBool::new(false),
            interval: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The weight in force of the server at this place.
    pub fn weight(&self, at: usize) -> u32 {
        self.weights[at].load(Relaxed)
    }

    /// A core has seen an answer. True if it is time to decide, and this caller is the one to do it.
    pub fn record(&self, core: usize, id: ServerId, status: u16, now: u64) -> bool {
        self.meters[id.0 as usize].record(core, matches!(status, 500..=504), now);
        let due = self.due.load(Relaxed);
        now >= due
            && self
                .due
                .compare_exchange(due, now.saturating_add(self.interval), Relaxed, Relaxed)
                .is_ok()
    }

    /// Judges the servers that are there, and changes their weights. True if there are others now.
    pub fn rebalance(&self, is_available: impl Fn(usize) -> bool, now: u64) -> bool {
        if self.is_deciding.swap(true, AcqRel) {
            return false;
        }
        let changed = self.decide(is_available, now);
        self.is_deciding.store(false, Release);
        changed
    }

    fn decide(&self, is_available: impl Fn(usize) -> bool, now: u64) -> bool {
        // A server of weight 0 gets no turns however well it answers, and is no measure for the others.
        let members: Vec<usize> = (0..self.configured.len())
            .filter(|at| self.configured[*at] > 0 && is_available(*at))
            .collect();
        let signature = signature(&members);
        if self.members.swap(signature, Relaxed) != signature {
            self.settled_until.store(0, Relaxed);
            return self.apply(&members, |at| self.configured[at]);
        }
        let seen: Vec<Seen> = members.iter().map(|at| self.meters[*at].sum(now)).collect();
        if members.len() < 2
            || now < self.settled_until.load(Relaxed)
            || !seen.iter().all(|seen| seen.is_ready)
        {
            return false;
        }
        let ratings: Vec<f64> = seen.iter().map(|seen| seen.failure_ratio()).collect();
        let limit = limit(&ratings);
        let is_bad = |at: usize| {
            let place = members.binary_search(&at);
            place.is_ok_and(|place| ratings[place] > limit)
        };
        let bad = members.iter().filter(|at| is_bad(**at)).count();
        let changed = if bad > 0 && bad < members.len() {
            let grown = |at: usize| {
                let grown = self.weight(at).saturating_mul(FACTOR);
                if is_bad(at) || grown > WEIGHT_MAX {
                    self.weight(at)
                } else {
                    grown
                }
            };
            self.apply(&members, grown)
        } else {
            self.apply(&members, |at| match self.weight(at) {
                weight if weight == self.configured[at] => weight,
                weight => (weight / FACTOR).max(self.configured[at]),
            })
        };
        if changed {
            let back_off = u64::try_from(BACK_OFF.as_nanos()).unwrap_or(u64::MAX);
            self.settled_until
                .store(now.saturating_add(back_off), Relaxed);
        }
        changed
    }

    /// Gives the members these weights, divided by what they have in common. False if they all have them already.
    fn apply(&self, members: &[usize], weight: impl Fn(usize) -> u32) -> bool {
        let weights: Vec<u32> = members.iter().map(|at| weight(*at)).collect();
        let now = members.iter().map(|at| self.weight(*at));
        if now.eq(weights.iter().copied()) {
            return false;
        }
        let common = weights.iter().copied().fold(0, super::round_robin::gcd);
        for (at, weight) in members.iter().zip(&weights) {
            self.weights[*at].store(weight / common.max(1), Relaxed);
        }
        true
    }
}

/// Names a set of places.
fn signature(places: &[usize]) -> u64 {
    places.iter().fold(0xcbf2_9ce4_8422_2325, |hash, at| {
        (hash ^ (*at as u64 + 1)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Above which failure ratio a server is bad: of these of all servers, the median and the median distance from it,
/// together and half as much again. Of an even number one more server is thought that never fails.
fn limit(ratings: &[f64]) -> f64 {
    let mut values = ratings.to_vec();
    if values.len().is_multiple_of(2) {
        values.push(0.0);
    }
    let median = median(&mut values);
    for value in &mut values {
        *value = (*value - median).abs();
    }
    (median + self::median(&mut values)) * THRESHOLD
}

/// The one in the middle, of an odd number.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
