//! Whether a backend may be asked at all: its circuit breaker. Spec backends 5.
//!
//! Owns three states over all cores in one word, and what each core has seen, in counters that only that core writes. So
//! a passing request costs a load and a few plain stores; whoever is the first to end an exchange 100 ms after the last
//! evaluation sums all cores. A trip is exact up to that tick, and seen by every core at its next request.
//! Never reads a clock and never speaks to a client.
//! Read next: `condition.rs`, `compile/breaker.rs` (reads the expression), `proxy/guard.rs` (asks it).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::condition::{Comparison, Condition};

/// How long a tripped backend is left alone, in milliseconds.
const TRIPPED: u64 = 10_000;

/// How long it is then asked a growing part of the requests.
const RECOVERY: u64 = 10_000;

/// Part of the requests that it is asked at the end of that time.
const RECOVERY_PART: f64 = 0.5;

/// Least time between two evaluations of the condition.
const EVALUATION_INTERVAL: u64 = 100;

/// Answers are counted over the last ten seconds, latencies over the last minute.
const WINDOWS: [Window; 2] = [
    Window {
        buckets: 10,
        width: 1_000,
    },
    Window {
        buckets: 6,
        width: 10_000,
    },
];

/// The newest milliseconds in a ring of buckets.
#[derive(Clone, Copy)]
struct Window {
    buckets: u64,
    /// Milliseconds that one bucket is written.
    width: u64,
}

/// What a circuit breaker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meter {
    /// Answers with a status of at least `from` and below `to`.
    Codes { from: u64, to: u64 },
    /// Answers that say that the server could not be reached or did not answer: 502 and 504.
    NetworkErrors,
    /// Answers that were through in less than so many milliseconds.
    Within(u64),
    /// Answers whose time was taken.
    Timed,
}

impl Meter {
    /// Index into [`WINDOWS`].
    fn window(self) -> usize {
        match self {
            Self::Codes { .. } | Self::NetworkErrors => 0,
            Self::Within(_) | Self::Timed => 1,
        }
    }

    fn counts(self, seen: Seen) -> bool {
        match self {
            Self::Codes { from, to } => (from..to).contains(&u64::from(seen.status)),
            Self::NetworkErrors => matches!(seen.status, 502 | 504),
            Self::Within(bound) => seen.milliseconds.is_some_and(|taken| taken < bound),
            Self::Timed => seen.milliseconds.is_some(),
        }
    }
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What the client was told.
    pub status: u16,
    /// From the request's head to the end of the answer, cut to whole milliseconds. `None` where that says nothing of the
    /// server: a tunnel.
    pub milliseconds: Option<u64>,
}

/// One comparison of a condition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Test {
    value: Measure,
    comparison: Comparison,
    /// Milliseconds, or a ratio.
    bound: f64,
}

/// A function of the language, with the meters it reads (indices).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Measure {
    Ratio {
        part: usize,
        whole: usize,
    },
    /// The quantile itself is never known, only where it lies: as many as `below` took less than the bound, as many as
    /// `within` took at most the bound.
    Latency {
        /// Between 0 and 1.
        quantile: f64,
        below: usize,
        within: usize,
        all: usize,
    },
}

/// The meters of a condition, collected while it is read.
#[derive(Clone, Debug, Default)]
pub struct Meters {
    meters: Vec<Meter>,
    tests: Vec<Test>,
}

impl Meters {
    /// `part / whole` compared with `bound`; the ratio of nothing is 0.
    pub fn ratio(&mut self, part: Meter, whole: Meter, comparison: Comparison, bound: f64) -> Test {
        let value = Measure::Ratio {
            part: self.meter(part),
            whole: self.meter(whole),
        };
        self.test(value, comparison, bound)
    }

    /// The latency that `percent` of the answers did not exceed, compared with `bound` milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds beyond 2^53 are no bound"
    )]
    pub fn latency(&mut self, percent: f64, comparison: Comparison, bound: u64) -> Test {
        let value = Measure::Latency {
            quantile: percent.clamp(0.0, 100.0) / 100.0,
            below: self.meter(Meter::Within(bound)),
            within: self.meter(Meter::Within(bound.saturating_add(1))),
            all: self.meter(Meter::Timed),
        };
        self.test(value, comparison, bound as f64)
    }

    fn meter(&mut self, wanted: Meter) -> usize {
        let known = self.meters.iter().position(|meter| *meter == wanted);
        known.unwrap_or_else(|| {
            self.meters.push(wanted);
            self.meters.len() - 1
        })
    }

    fn test(&mut self, value: Measure, comparison: Comparison, bound: f64) -> Test {
        let test = Test {
            value,
            comparison,
            bound,
        };
        self.tests.push(test);
        test
    }
}

impl Test {
    /// Whether it holds for these sums of the meters.
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of a minute are far below 2^53"
    )]
    fn holds(&self, sums: &[u64]) -> bool {
        match self.value {
            Measure::Ratio { part, whole } => {
                let ratio = match sums[whole] {
                    0 => 0.0,
                    whole => sums[part] as f64 / whole as f64,
                };
                self.comparison.holds(&ratio, &self.bound)
            }
            Measure::Latency {
                quantile,
                below,
                within,
                all,
            } => {
                if sums[all] == 0 {
                    return self.comparison.holds(&0.0, &self.bound);
                }
                // The rank of the quantile among the latencies in order, from 1.
                let rank = (quantile * sums[all] as f64).round().max(1.0);
                // Where it lies: -1 below the bound, 0 at it, 1 above.
                let side = if sums[below] as f64 >= rank {
                    -1
                } else {
                    i32::from((sums[within] as f64) < rank)
                };
                self.comparison.holds(&side, &0)
            }
        }
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The backend is asked.
    Standby,
    /// Nobody is let through.
    Tripped,
    /// A growing part is let through.
    Recovering,
}

/// All of the shared state in one word, so that a transition is one step for all cores.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    const STATE_BITS: u32 = 2;
    const TRIP_BITS: u32 = 14;
    const UNTIL_SHIFT: u32 = Self::STATE_BITS + Self::TRIP_BITS;

    /// `until` is a time in milliseconds.
    fn new(state: State, trip: u64, until: u64) -> Self {
        let trip = trip & ((1 << Self::TRIP_BITS) - 1);
        Self(state as u64 | trip << Self::STATE_BITS | until << Self::UNTIL_SHIFT)
    }

    fn state(self) -> State {
        match self.0 & ((1 << Self::STATE_BITS) - 1) {
            0 => State::Standby,
            1 => State::Tripped,
            _ => State::Recovering,
        }
    }

    /// How often it has tripped, modulo a small number: what was counted before the last trip is void.
    fn trip(self) -> u64 {
        self.0 >> Self::STATE_BITS & ((1 << Self::TRIP_BITS) - 1)
    }

    fn until(self) -> u64 {
        self.0 >> Self::UNTIL_SHIFT
    }
}

/// How many requests the recovery has let through and denied, in one word with the trip they belong to.
#[derive(Clone, Copy)]
struct Ramp(u64);

impl Ramp {
    const COUNT_BITS: u32 = 24;
    const COUNT_MAX: u64 = (1 << Self::COUNT_BITS) - 1;

    /// The counts of this trip: those of another one are none.
    fn of(word: u64, trip: u64) -> Self {
        if word >> (2 * Self::COUNT_BITS) == trip {
            Self(word)
        } else {
            Self(trip << (2 * Self::COUNT_BITS))
        }
    }

    fn allowed(self) -> u64 {
        self.0 >> Self::COUNT_BITS & Self::COUNT_MAX
    }

    fn denied(self) -> u64 {
        self.0 & Self::COUNT_MAX
    }

    /// Whether one more may pass where `target` is the part that should, and the counts with this request.
    #[expect(clippy::cast_precision_loss, reason = "counts have 24 bits")]
    fn next(self, target: f64) -> (bool, Self) {
        let (allowed, denied) = (self.allowed() + 1, self.denied());
        let passes = (allowed as f64 / (allowed + denied) as f64) < target;
        let step = match passes {
            true if allowed <= Self::COUNT_MAX => 1 << Self::COUNT_BITS,
            false if denied < Self::COUNT_MAX => 1,
            _ => 0,
        };
        (passes, Self(self.0 + step))
    }
}

/// A circuit breaker, shared by all cores.
pub struct Breaker {
    expression: String,
    condition: Condition<Test>,
    tests: Box<[Test]>,
    meters: Box<[Meter]>,
    state: AtomicU64,
    ramp: AtomicU64,
    /// Not before this time, in milliseconds, is the condition looked at again.
    evaluate_at: AtomicU64,
    /// The sums of the meters at the last evaluation.
    sums: Box<[AtomicU64]>,
    /// Indexed by core.
    shards: Box<[Shard]>,
}

/// Whether a request may pass, and what that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    pub passes: bool,
    /// The state that was entered by this request, if one was.
    pub entered: Option<State>,
}

impl Breaker {
    /// `expression` is what `condition` was read from, `meters` what it reads.
    pub fn new(expression: &str, condition: Condition<Test>, meters: Meters, cores: usize) -> Self {
        let Meters { meters, tests } = meters;
        Self {
            expression: expression.to_owned(),
            condition,
            tests: tests.into(),
            state: AtomicU64::new(Word::new(State::Standby, 0, 0).0),
            ramp: AtomicU64::new(0),
            evaluate_at: AtomicU64::new(0),
            sums: meters.iter().map(|_| AtomicU64::new(0)).collect(),
            shards: (0..cores).map(|_| Shard::new(&meters)).collect(),
            meters: meters.into(),
        }
    }

    /// What the condition was read from.
    pub fn expression(&self) -> &str {
        &self.expression
    }

    /// It was made from this expression, for as many cores.
    pub fn is_of(&self, expression: &str, cores: usize) -> bool {
        self.expression == expression && self.shards.len() == cores
    }

    /// The condition asks how long answers take, so [`Seen::milliseconds`] is wanted.
    pub fn times(&self) -> bool {
        self.meters.contains(&Meter::Timed)
    }

    /// Where it stands. A state that is over is left by the next request only.
    pub fn state(&self) -> State {
        Word(self.state.load(Ordering::Acquire)).state()
    }

    /// What the last evaluation of the condition saw, one for each comparison in the order of the expression.
    pub fn figures(&self) -> Vec<Figure> {
        let sums: Vec<u64> = self
            .sums
            .iter()
            .map(|sum| sum.load(Ordering::Relaxed))
            .collect();
        let figure = |test: &Test| match test.value {
            Measure::Ratio { part, whole } => Figure {
                part: self.meters[part],
                counted: sums[part],
                of: sums[whole],
            },
            Measure::Latency { within, all, .. } => Figure {
                part: self.meters[within],
                counted: sums[within],
                of: sums[all],
            },
        };
        self.tests.iter().map(figure).collect()
    }

    /// Whether a request that came at `now` (nanoseconds) may pass.
    #[inline]
    pub fn admit(&self, now: u64) -> Admission {
        let word = Word(self.state.load(Ordering::Relaxed));
        if word.state() == State::Standby {
            return Admission {
                passes: true,
                entered: None,
            };
        }
        self.decide(now / 1_000_000)
    }

    fn decide(&self, now: u64) -> Admission {
        let mut entered = None;
        loop {
            let word = Word(self.state.load(Ordering::Acquire));
            let next = match word.state() {
                State::Standby => {
                    let passes = true;
                    return Admission { passes, entered };
                }
                State::Tripped if now < word.until() => {
                    let passes = false;
                    return Admission { passes, entered };
                }
                State::Tripped => Word::new(State::Recovering, word.trip(), now + RECOVERY),
                State::Recovering if now <= word.until() => {
                    let passes = self.ramp(word, now);
                    return Admission { passes, entered };
                }
                State::Recovering => Word::new(State::Standby, word.trip(), 0),
            };
            if self.enter(word, next) {
                entered = Some(next.state());
            }
        }
    }

    /// Goes from one state to another, unless somebody else was faster.
    fn enter(&self, from: Word, to: Word) -> bool {
        self.state
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Whether one more may pass at this time of the recovery.
    #[expect(clippy::cast_precision_loss, reason = "at most ten thousand")]
    fn ramp(&self, word: Word, now: u64) -> bool {
        let elapsed = RECOVERY.saturating_sub(word.until().saturating_sub(now));
        let target = RECOVERY_PART * elapsed as f64 / RECOVERY as f64;
        let mut seen = self.ramp.load(Ordering::Relaxed);
        loop {
            let (passes, next) = Ramp::of(seen, word.trip()).next(target);
            match self.ramp.compare_exchange_weak(
                seen,
                next.0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return passes,
                Err(newer) => seen = newer,
            }
        }
    }

    /// Counts how an exchange that was let through has ended at `now` (nanoseconds), on this core. True if that has
    /// tripped the breaker.
    pub fn record(&self, core: usize, seen: Seen, now: u64) -> bool {
        let Some(shard) = self.shards.get(core) else {
            return false;
        };
        let now = now / 1_000_000;
        let trip = Word(self.state.load(Ordering::Relaxed)).trip();
        shard.count(&self.meters, seen, trip, now);
        let due = self.evaluate_at.load(Ordering::Relaxed);
        now >= due && self.evaluate(due, now)
    }

    /// Looks at the condition, unless another core does.
    fn evaluate(&self, due: u64, now: u64) -> bool {
        let next = now + EVALUATION_INTERVAL;
        let claimed =
            self.evaluate_at
                .compare_exchange(due, next, Ordering::AcqRel, Ordering::Relaxed);
        let word = Word(self.state.load(Ordering::Acquire));
        if claimed.is_err() || word.state() == State::Tripped {
            return false;
        }
        // On the stack, but for expressions that nobody writes: a core does this for a request.
        let (mut few, mut many) = ([0; METERS_USUAL], Vec::new());
        let sums = match few.get_mut(..self.meters.len()) {
            Some(sums) => sums,
            None => {
                many.resize(self.meters.len(), 0);
                &mut many
            }
        };
        for shard in &self.shards {
            shard.sum(&self.meters, word.trip(), now, sums);
        }
        for (kept, sum) in self.sums.iter().zip(&*sums) {
            kept.store(*sum, Ordering::Relaxed);
        }
        let tripped = Word::new(State::Tripped, word.trip() + 1, now + TRIPPED);
        self.condition.holds(&mut |test| test.holds(sums)) && self.enter(word, tripped)
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Breaker({}, {:?})", self.expression, self.state())
    }
}

/// What a comparison of the condition was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What was counted.
    pub part: Meter,
    pub counted: u64,
    /// How many there were in all.
    pub of: u64,
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { part, counted, of } = self;
        match part {
            Meter::NetworkErrors => write!(f, "{counted} network errors in {of} answers"),
            Meter::Codes { from, to } => {
                write!(f, "{counted} answers from {from} to below {to}, to {of}")
            }
            Meter::Within(bound) => {
                write!(f, "{counted} of {of} answers in less than {bound} ms")
            }
            Meter::Timed => write!(f, "{counted} of {of} answers timed"),
        }
    }
}

/// Meters of most conditions: each comparison has two at most.
const METERS_USUAL: usize = 16;

/// What one core has counted: written by that core alone, with plain stores.
///
/// Words in order: the trip it belongs to; then, for each window and bucket of it, when that was written and its counts.
struct Shard(Box<[Line]>);

/// Two cache lines, which prefetchers take together: cores do not meet in one.
#[derive(Default)]
#[repr(align(128))]
struct Line([AtomicU64; Self::WORDS]);

impl Line {
    const WORDS: usize = 16;
}

impl Shard {
    fn new(meters: &[Meter]) -> Self {
        let mut words = 1;
        for (index, window) in WINDOWS.iter().enumerate() {
            let own = meters
                .iter()
                .filter(|meter| meter.window() == index)
                .count();
            if own > 0 {
                words += bucket(window.buckets) * (1 + own);
            }
        }
        Self(
            (0..words.div_ceil(Line::WORDS))
                .map(|_| Line::default())
                .collect(),
        )
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0[index / Line::WORDS].0[index % Line::WORDS]
    }

    /// Only the shard's core may call this.
    fn count(&self, meters: &[Meter], seen: Seen, trip: u64, now: u64) {
        if self.word(0).load(Ordering::Relaxed) != trip {
            for index in 1..self.0.len() * Line::WORDS {
                self.word(index).store(0, Ordering::Relaxed);
            }
            self.word(0).store(trip, Ordering::Release);
        }
        let mut first = 1;
        for (index, window) in WINDOWS.iter().enumerate() {
            let own = || meters.iter().filter(|meter| meter.window() == index);
            let stride = 1 + own().count();
            if stride == 1 {
                continue;
            }
            let turn = now / window.width;
            let at = first + bucket(turn % window.buckets) * stride;
            // One more than the turn, so that zero is never.
            if self.word(at).load(Ordering::Relaxed) != turn + 1 {
                for index in 1..stride {
                    self.word(at + index).store(0, Ordering::Relaxed);
                }
                self.word(at).store(turn + 1, Ordering::Release);
            }
            for (index, meter) in own().enumerate() {
                if meter.counts(seen) {
                    let word = self.word(at + 1 + index);
                    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            }
            first += bucket(window.buckets) * stride;
        }
    }

    /// Adds what this core has counted since the trip, within each meter's window.
    fn sum(&self, meters: &[Meter], trip: u64, now: u64, sums: &mut [u64]) {
        if self.word(0).load(Ordering::Acquire) != trip {
            return;
        }
        let mut first = 1;
        for (index, window) in WINDOWS.iter().enumerate() {
            let own = || (0..meters.len()).filter(|meter| meters[*meter].window() == index);
            let stride = 1 + own().count();
            if stride == 1 {
                continue;
            }
            let turn = now / window.width;
            for at in 0..bucket(window.buckets) {
                let at = first + at * stride;
                let written = self.word(at).load(Ordering::Acquire);
                if written + window.buckets > turn + 1 {
                    for (index, meter) in own().enumerate() {
                        sums[meter] += self.word(at + 1 + index).load(Ordering::Relaxed);
                    }
                }
            }
            first += bucket(window.buckets) * stride;
        }
    }
}

fn bucket(index: u64) -> usize {
    usize::try_from(index).expect("a window has few buckets")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Comparison::{Greater, GreaterOrEqual, Less};

    const ALL: Meter = Meter::Codes {
        from: 0,
        to: u64::MAX,
    };
    const ERRORS: Meter = Meter::Codes { from: 500, to: 600 };

    fn breaker(cores: usize, test: impl Fn(&mut Meters) -> Condition<Test>) -> Breaker {
        let mut meters = Meters::default();
        let condition = test(&mut meters);
        Breaker::new("test", condition, meters, cores)
    }

    /// Trips when more than half of the answers are errors.
    fn half(cores: usize) -> Breaker {
        breaker(cores, |meters| {
            Condition::Test(meters.ratio(ERRORS, ALL, Greater, 0.5))
        })
    }

    fn seen(status: u16) -> Seen {
        Seen {
            status,
            milliseconds: Some(0),
        }
    }

    /// A time of the simulated clock, from milliseconds, as the breaker is told it.
    fn at(milliseconds: u64) -> u64 {
        (milliseconds + 5_000_000) * 1_000_000
    }

    #[test]
    fn the_first_bad_answer_trips() {
        let breaker = half(1);
        assert!(breaker.admit(at(0)).passes);
        assert!(breaker.record(0, seen(500), at(0)));
        assert_eq!(breaker.state(), State::Tripped);
        let denied = Admission {
            passes: false,
            entered: None,
        };
        assert_eq!(breaker.admit(at(0)), denied);
        assert_eq!(breaker.admit(at(9_999)), denied);
        assert_eq!(
            breaker.figures()[0].to_string(),
            "1 answers from 500 to below 600, to 1"
        );
    }

    #[test]
    fn the_condition_is_looked_at_ten_times_a_second() {
        let breaker = half(1);
        assert!(!breaker.record(0, seen(200), at(0)));
        for _ in 0..5 {
            assert!(!breaker.record(0, seen(500), at(99)), "not yet");
        }
        assert!(breaker.record(0, seen(500), at(100)));
    }

    #[test]
    fn answers_of_the_last_ten_seconds_count() {
        let breaker = half(1);
        breaker.record(0, seen(200), at(0));
        breaker.record(0, seen(200), at(0));
        // Two good ones are in the window still, then they are not.
        assert!(!breaker.record(0, seen(500), at(9_500)));
        assert!(!breaker.record(0, seen(500), at(9_800)), "half is not more");
        assert!(breaker.record(0, seen(500), at(10_000)), "two of two");
        // Also after a gap in which nothing was written.
        let breaker = half(1);
        for _ in 0..100 {
            breaker.record(0, seen(200), at(0));
        }
        assert!(breaker.record(0, seen(500), at(12_345)));
    }

    #[test]
    fn cores_are_summed() {
        let breaker = half(3);
        for _ in 0..4 {
            assert!(!breaker.record(0, seen(200), at(0)));
        }
        for _ in 0..4 {
            assert!(!breaker.record(1, seen(502), at(50)));
        }
        assert!(!breaker.record(7, seen(502), at(100)), "no such core");
        assert!(breaker.record(2, seen(502), at(100)), "five of nine");
        assert!(!breaker.admit(at(100)).passes);
    }

    /// `requests` a second from the trip on, all answered well once they pass: how many of each second passed.
    fn recovery(breaker: &Breaker, requests: u64) -> Vec<u64> {
        assert!(breaker.record(0, seen(500), at(0)));
        (0..22)
            .map(|second| {
                let passed = (0..requests).filter(|request| {
                    let now = at(second * 1_000 + request * 1_000 / requests + 1);
                    let passes = breaker.admit(now).passes;
                    if passes {
                        breaker.record(0, seen(200), now);
                    }
                    passes
                });
                passed.count() as u64
            })
            .collect()
    }

    #[test]
    fn a_growing_part_is_let_through_again() {
        let passed = recovery(&half(1), 100);
        assert_eq!(passed[..10], [0; 10], "left alone");
        assert_eq!(passed[20..], [100, 100], "all as before");
        let ramp = &passed[10..20];
        assert!(ramp.is_sorted(), "{ramp:?}");
        // The part over the whole recovery is kept below a line from 0 to one half.
        let whole: u64 = ramp.iter().sum();
        assert!((450..=500).contains(&whole), "{ramp:?}");
        // As observed at four a second: 503 up to about 12 s.
        let slow = recovery(&half(1), 4);
        assert_eq!(slow[..12], [0; 12]);
        assert!(slow[12..20].iter().sum::<u64>() > 5, "{slow:?}");
    }

    #[test]
    fn a_bad_answer_within_the_recovery_trips_again() {
        let breaker = half(1);
        assert!(breaker.record(0, seen(500), at(0)));
        let first = breaker.admit(at(10_000));
        assert_eq!(first.entered, Some(State::Recovering));
        assert!(!first.passes);
        let passes = |from: u64| (from..).find(|now| breaker.admit(at(*now)).passes);
        let now = passes(10_001).expect("some pass");
        assert!(
            breaker.record(0, seen(500), at(now)),
            "what was before the trip is forgotten"
        );
        assert!(!breaker.admit(at(now + 9_999)).passes);
        assert_eq!(
            breaker.admit(at(now + 10_000)).entered,
            Some(State::Recovering)
        );
        // Nobody came until long after.
        let end = breaker.admit(at(now + 20_001));
        assert_eq!(
            end,
            Admission {
                passes: true,
                entered: Some(State::Standby)
            }
        );
    }

    #[test]
    fn exchanges_that_end_while_it_is_tripped_change_nothing() {
        let breaker = half(1);
        assert!(breaker.record(0, seen(500), at(0)));
        assert!(!breaker.record(0, seen(500), at(5_000)));
        assert_eq!(breaker.state(), State::Tripped);
        assert!(!breaker.admit(at(9_999)).passes);
        assert_eq!(
            breaker.admit(at(10_000)).entered,
            Some(State::Recovering),
            "ten seconds after the trip, not after the last bad answer"
        );
    }

    /// Latencies in milliseconds, one answer each; whether `quantile` compared with `bound` trips.
    #[track_caller]
    fn check_latency(
        latencies: &[u64],
        quantile: f64,
        comparison: Comparison,
        bound: u64,
        expected: bool,
    ) {
        let breaker = breaker(1, |meters| {
            // Nothing is judged before the last one.
            let enough = meters.latency(100.0, GreaterOrEqual, 9_000);
            let test = meters.latency(quantile, comparison, bound);
            Condition::All(vec![Condition::Test(enough), Condition::Test(test)])
        });
        assert!(breaker.times());
        let mut tripped = false;
        for (index, milliseconds) in latencies.iter().chain(&[9_000]).enumerate() {
            let seen = Seen {
                status: 200,
                milliseconds: Some(*milliseconds),
            };
            tripped |= breaker.record(0, seen, at(index as u64 * 100));
        }
        assert_eq!(
            tripped, expected,
            "{latencies:?} {quantile} {comparison:?} {bound}"
        );
    }

    #[test]
    fn quantiles_of_latencies() {
        // With the last one: 10, 20, 30, 40, 9000.
        let latencies = [40, 10, 30, 20];
        for (quantile, value) in [(0.0, 10), (20.0, 10), (40.0, 20), (50.0, 30), (80.0, 40)] {
            check_latency(&latencies, quantile, Greater, value - 1, true);
            check_latency(&latencies, quantile, Greater, value, false);
            check_latency(&latencies, quantile, Less, value, false);
            check_latency(&latencies, quantile, Less, value + 1, true);
            check_latency(&latencies, quantile, Comparison::Equal, value, true);
            check_latency(&latencies, quantile, Comparison::NotEqual, value, false);
            check_latency(&latencies, quantile, Comparison::Equal, value + 1, false);
            check_latency(&latencies, quantile, GreaterOrEqual, value, true);
        }
        check_latency(&[], 50.0, Greater, 9_000, false);
        check_latency(&[], 50.0, GreaterOrEqual, 9_000, true);
    }

    #[test]
    fn latencies_of_the_last_minute_count() {
        let breaker = breaker(1, |meters| {
            Condition::Test(meters.latency(50.0, Greater, 100))
        });
        let answer = |milliseconds, now| {
            let seen = Seen {
                status: 200,
                milliseconds,
            };
            breaker.record(0, seen, at(now))
        };
        assert!(!answer(Some(5), 0));
        assert!(!answer(Some(5), 0));
        assert!(!answer(None, 55_000), "a tunnel says nothing");
        assert!(!answer(Some(500), 55_000));
        assert!(answer(Some(500), 60_000), "the first two are too old");
    }

    #[test]
    fn nothing_seen_is_zero() {
        let breaker = breaker(1, |meters| {
            let ratio = meters.ratio(Meter::NetworkErrors, ERRORS, Less, 0.1);
            let latency = meters.latency(50.0, Less, 1);
            Condition::All(vec![Condition::Test(ratio), Condition::Test(latency)])
        });
        let tunnel = Seen {
            status: 101,
            milliseconds: None,
        };
        assert!(breaker.record(0, tunnel, at(0)));
    }

    #[test]
    fn threads_trip_it_once_and_the_ramp_counts_every_request() {
        let breaker = half(4);
        let trips: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|core| {
                    let breaker = &breaker;
                    scope.spawn(move || {
                        (0..10_000)
                            .filter(|_| breaker.record(core, seen(500), at(0)))
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(trips, 1);
        breaker.admit(at(10_000));
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    let breaker = &breaker;
                    scope.spawn(move || {
                        (0..1_000)
                            .filter(|_| breaker.admit(at(20_000)).passes)
                            .count()
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .sum()
        });
        assert_eq!(passed, 2_000, "half of them, to the request");
    }
}
