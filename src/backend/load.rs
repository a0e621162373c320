//! How busy each server is, for the methods that ask: exchanges under way.
//!
//! Each core counts its own exchanges at each server in a word that only it writes. It knows its own to the one, those of
//! the other cores as they were when it last looked, at most [`LOAD_LOOK_INTERVAL`] ago. Counts outlive reloads, and an
//! exchange counts where it began however it ends. Never locks.
//! Read next: `balancer.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

use super::ServerId;
use crate::limits::LOAD_LOOK_INTERVAL;

/// Exchanges under way at one server, by core.
#[derive(Debug)]
pub struct Load(Box<[Own]>);

/// What one core counts, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Own(AtomicU32);

/// The servers of a backend, in their order.
pub type Loads = Box<[Arc<Load>]>;

impl Load {
    pub fn new(cores: usize) -> Self {
        Self((0..cores).map(|_| Own::default()).collect())
    }

    /// On all cores.
    pub fn count(&self) -> u32 {
        self.0
            .iter()
            .fold(0, |sum, own| sum.saturating_add(own.0.load(Relaxed)))
    }

    fn add(&self, core: usize, by: i32) {
        let own = &self.0[core].0;
        own.store(own.load(Relaxed).saturating_add_signed(by), Relaxed);
    }
}

/// An exchange that counts as under way until this is dropped, on the core it began on.
#[derive(Debug)]
#[must_use = "dropped at once it counts for nothing"]
pub struct UnderWay<'a> {
    load: &'a Load,
    tally: &'a Tally,
    core: usize,
    id: ServerId,
}

impl<'a> UnderWay<'a> {
    pub fn new(loads: &'a [Arc<Load>], tally: &'a Tally, core: usize, id: ServerId) -> Self {
        let load = &*loads[id.0 as usize];
        load.add(core, 1);
        tally.add(id, 1);
        Self {
            load,
            tally,
            core,
            id,
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.load.add(self.core, -1);
        self.tally.add(self.id, -1);
    }
}

/// What one core knows of all servers of a backend, laid out for searching. Written by that core only.
#[derive(Debug)]
pub struct Tally {
    /// Exchanges under way at each server.
    counts: Box<[AtomicU32]>,
    total: AtomicU32,
    /// What one exchange weighs at each server: the inverse of its weight, at least 1; 0 is not asked.
    costs: Box<[AtomicU64]>,
    /// What each server would bear with one more exchange; `u64::MAX` is not asked.
    scores: Box<[AtomicU64]>,
    /// Those that are asked, as many as `asked_count`.
    asked: Box<[AtomicU32]>,
    asked_count: AtomicU32,
    weights_total: AtomicU64,
    /// Where the next search begins, so that servers that are equally busy take turns.
    cursor: AtomicU32,
    random: AtomicU64,
    /// When to look at the other cores again, in nanoseconds.
    due: AtomicU64,
}

/// The cost of an exchange at a server of weight 1.
const COST_ONE: u64 = 1 << 32;
const NOT_ASKED: u64 = u64::MAX;

impl Tally {
    /// So many servers, none of which is asked until [`restart`](Self::restart).
    pub fn new(servers: usize, core: usize) -> Self {
        Self {
            counts: (0..servers).map(|_| AtomicU32::new(0)).collect(),
            total: AtomicU32::new(0),
            costs: (0..servers).map(|_| AtomicU64::new(0)).collect(),
            scores: (0..servers).map(|_| AtomicU64::new(NOT_ASKED)).collect(),
            asked: (0..servers).map(|_| AtomicU32::new(0)).collect(),
            asked_count: AtomicU32::new(0),
            weights_total: AtomicU64::new(0),
            cursor: AtomicU32::new(index(core)),
            // Cores differ, and a run is the same each time: nobody gains by foreseeing this.
            random: AtomicU64::new((core as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            due: AtomicU64::new(0),
        }
    }

    /// From now on these weights, in the order of the servers.
    pub fn restart(&self, weights: impl IntoIterator<Item = u32>) {
        let (mut asked, mut total) = (0, 0);
        for (at, weight) in weights.into_iter().take(self.costs.len()).enumerate() {
            let cost = COST_ONE.checked_div(u64::from(weight)).unwrap_or(0);
            self.costs[at].store(cost, Relaxed);
            self.score(at);
            total += u64::from(weight);
            if weight > 0 {
                self.asked[asked].store(index(at), Relaxed);
                asked += 1;
            }
        }
        self.asked_count.store(index(asked), Relaxed);
        self.weights_total.store(total, Relaxed);
    }

    /// Looks at what the other cores do, if that was long ago.
    #[inline]
    pub fn look(&self, loads: &[Arc<Load>], now: u64) {
        if now >= self.due.load(Relaxed) {
            self.look_now(loads, now);
        }
    }

    #[cold]
    fn look_now(&self, loads: &[Arc<Load>], now: u64) {
        let mut total = 0_u32;
        for (at, load) in loads.iter().enumerate() {
            let count = load.count();
            self.counts[at].store(count, Relaxed);
            self.score(at);
            total = total.saturating_add(count);
        }
        self.total.store(total, Relaxed);
        let interval = u64::try_from(LOAD_LOOK_INTERVAL.as_nanos()).unwrap_or(u64::MAX);
        self.due.store(now.saturating_add(interval), Relaxed);
    }

    fn add(&self, id: ServerId, by: i32) {
        let at = id.0 as usize;
        let count = &self.counts[at];
        count.store(count.load(Relaxed).saturating_add_signed(by), Relaxed);
        let total = self.total.load(Relaxed).saturating_add_signed(by);
        self.total.store(total, Relaxed);
        self.score(at);
    }

    fn score(&self, at: usize) {
        let score = match self.costs[at].load(Relaxed) {
            0 => NOT_ASKED,
            cost => (u64::from(self.counts[at].load(Relaxed)) + 1).saturating_mul(cost),
        };
        self.scores[at].store(score, Relaxed);
    }

    /// The server that bears least for its weight; of several the next after the last choice. `None`: nobody is asked.
    pub fn least(&self) -> Option<ServerId> {
        let least = least_of(&self.scores);
        if least == NOT_ASKED {
            return None;
        }
        let cursor = (self.cursor.load(Relaxed) as usize).min(self.scores.len());
        let (before, after) = self.scores.split_at(cursor);
        let is_least = |score: &AtomicU64| score.load(Relaxed) == least;
        let at = match after.iter().position(is_least) {
            Some(at) => cursor + at,
            None => before.iter().position(is_least)?,
        };
        self.cursor.store(index(at + 1), Relaxed);
        Some(ServerId(index(at)))
    }

    /// As [`least`](Self::least), among those that were not tried.
    pub fn least_except(&self, tried: &[ServerId]) -> Option<ServerId> {
        (0..self.scores.len())
            .map(|at| (self.scores[at].load(Relaxed), ServerId(index(at))))
            .filter(|(score, id)| *score != NOT_ASKED && !tried.contains(id))
            .min_by_key(|(score, _)| *score)
            .map(|(_, id)| id)
    }

    /// Of two servers chosen at random the one that bears less. `None`: nobody is asked.
    pub fn less_of_two(&self) -> Option<ServerId> {
        let count = self.asked_count.load(Relaxed);
        let mut random = self.random.load(Relaxed);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.store(random, Relaxed);
        // A number below the bound from half a random word, by a multiplication.
        let below =
            |word: u64, bound: u32| index_of(((word & 0xffff_ffff) * u64::from(bound)) >> 32);
        let first = match count {
            0 => return None,
            1 => 0,
            _ => below(random, count),
        };
        let first_id = self.asked[first].load(Relaxed);
        if count == 1 {
            return Some(ServerId(first_id));
        }
        let other = below(random >> 32, count - 1);
        let second_id = self.asked[other + usize::from(other >= first)].load(Relaxed);
        let score = |id: u32| self.scores[id as usize].load(Relaxed);
        Some(ServerId(if score(second_id) < score(first_id) {
            second_id
        } else {
            first_id
        }))
    }

    /// Whether a server may take one more, where none may bear more than so many percent of its share.
    #[allow(clippy::cast_precision_loss, reason = "a share of counts")]
    pub fn has_room(&self, id: ServerId, weight: u32, percent: u32) -> bool {
        let total = f64::from(self.total.load(Relaxed)) + 1.0;
        let weights = self.weights_total.load(Relaxed).max(1) as f64;
        let share = total * f64::from(weight) / weights;
        let bound = (share * f64::from(percent) / 100.0).ceil();
        f64::from(self.counts[id.0 as usize].load(Relaxed)) < bound
    }
}

/// The lowest of all, four at a time: that is what makes a search through a hundred servers cheap.
fn least_of(scores: &[AtomicU64]) -> u64 {
    let mut lowest = [NOT_ASKED; 4];
    let (fours, rest) = scores.as_chunks::<4>();
    for four in fours {
        for (lowest, score) in lowest.iter_mut().zip(four) {
            *lowest = (*lowest).min(score.load(Relaxed));
        }
    }
    let rest = rest.iter().map(|score| score.load(Relaxed));
    rest.chain(lowest).min().unwrap_or(NOT_ASKED)
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("compile bounds the servers of a backend")
}

#[allow(clippy::cast_possible_truncation, reason = "below a number of servers")]
fn index_of(number: u64) -> usize {
    number as usize
}
