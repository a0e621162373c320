//! How often a frontend may be used, by key: token buckets. Spec frontends 9.
//!
//! Exact over all cores for a key that has its buckets: they are atomic words, and a request takes a token from each or
//! from none. Owns a table of buckets that grows page by page up to its bound and outlives reloads. Never locks.
//!
//! A bucket is the time at which it will be full again, so a full one and one that was never used are the same: a key
//! whose buckets are full is forgotten without loss, and that is the only way an idle key leaves. Where a set holds more
//! keys than words, the key with the fullest buckets makes room: a flood of new keys pushes itself out, and those who
//! have drawn most stay known. Such a key begins with full buckets when it comes back.
//!
//! A word of a key is its hash below and a stamp above that changes whenever tokens are taken. Who gives a word to another
//! key reads it, finds the buckets full, and exchanges it only if it is unchanged; who takes tokens changes the stamp
//! afterwards, and if the word has another key by then, or the key another word, puts the tokens back and begins anew.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Answer;
use crate::backend::key::{Keys, Source};
use crate::http::Head;
use crate::limits::RATE_KEYS_MAX;

/// Words of a set: a cache line.
const SET: usize = 8;
const SETS: usize = RATE_KEYS_MAX / SET;
/// Sets made at once.
const PAGE: usize = 16;
const PAGES: usize = SETS / PAGE;

const TAG_BITS: u32 = 48;
const TAG_MASK: u64 = (1 << TAG_BITS) - 1;
const STAMP_ONE: u64 = 1 << TAG_BITS;

/// How often a request begins anew while other cores get in the way, before it is refused.
const TRIES_MAX: usize = 1000;

const _: () = assert!(SETS.is_power_of_two() && SETS <= 1 << (64 - TAG_BITS));

/// One rate of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Time for one token, in nanoseconds.
    interval: u64,
    /// Time for all tokens but one.
    tolerance: u64,
}

impl Rate {
    /// `average` tokens in each `period`, `burst` at once. `None` unless all are above zero.
    pub fn new(period: Duration, average: u64, burst: u64) -> Option<Self> {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        if period == 0 || burst == 0 {
            return None;
        }
        // More than one token a nanosecond cannot be told from one.
        let interval = period.checked_div(average)?.max(1);
        Some(Self {
            interval,
            tolerance: interval.saturating_mul(burst - 1),
        })
    }

    /// A bucket with this word has no token at `now`.
    fn lacks(self, full_at: u64, now: u64) -> bool {
        full_at > now.saturating_add(self.tolerance)
    }
}

/// The rates of a frontend and their buckets.
#[derive(Debug)]
pub struct RateLimit {
    keys: Keys,
    rates: Box<[Rate]>,
    /// Made when first needed. Cores that need the same one at once wait for the first, for the time of a page of zeros.
    pages: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

/// No token is left: how long one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub wait: Duration,
}

impl RateLimit {
    pub fn new(source: Source, rates: Box<[Rate]>) -> Self {
        Self {
            keys: Keys::new(source),
            rates,
            pages: (0..PAGES).map(|_| OnceLock::new()).collect(),
        }
    }

    /// Takes a token of every rate. `now` is on a clock that all cores share, in nanoseconds.
    ///
    /// # Errors
    /// A rate has none left for the key of the request: nothing was taken.
    pub fn take(&self, head: &Head, peer: IpAddr, now: u64) -> Result<(), Exceeded> {
        self.take_key(self.keys.key(head, peer), now)
    }

    fn take_key(&self, key: u64, now: u64) -> Result<(), Exceeded> {
        // An empty word has the hash 0.
        let tag = (key & TAG_MASK).max(1);
        let set = self.set(key);
        for _ in 0..TRIES_MAX {
            let Some(at) = set.find(tag).or_else(|| set.place(tag, now)) else {
                continue;
            };
            if let Some(exceeded) = self.lacking(set, at, now) {
                if set.tag(at) == tag {
                    return Err(exceeded);
                }
                continue;
            }
            if !self.draw(set, at, now) {
                continue;
            }
            let word = set.words[at].fetch_add(STAMP_ONE, Ordering::SeqCst);
            let twin = (0..SET).find(|other| *other != at && set.tag(*other) == tag);
            if word & TAG_MASK == tag && twin.is_none() {
                return Ok(());
            }
            self.put_back(set, at, self.rates.len());
            if let Some(twin) = twin {
                // Two cores placed a new key at once: one of the words goes, its buckets being full.
                let _ = set.free(at, now) || set.free(twin, now);
            }
            std::hint::spin_loop();
        }
        let wait = self.rates.iter().map(|rate| rate.interval).max();
        Err(Exceeded {
            wait: Duration::from_nanos(wait.unwrap_or_default()),
        })
    }

    /// The longest wait among the rates that have no token.
    fn lacking(&self, set: Set<'_>, at: usize, now: u64) -> Option<Exceeded> {
        let lacking = self
            .rates
            .iter()
            .zip(set.buckets(at))
            .filter(|(rate, bucket)| rate.lacks(bucket.load(Ordering::SeqCst), now));
        lacking
            .map(|(rate, _)| rate.interval)
            .max()
            .map(|wait| Exceeded {
                wait: Duration::from_nanos(wait),
            })
    }

    /// Takes a token from each bucket. False if another core has taken the last one of some: then nothing is taken.
    fn draw(&self, set: Set<'_>, at: usize, now: u64) -> bool {
        for (index, (rate, bucket)) in self.rates.iter().zip(set.buckets(at)).enumerate() {
            let taken = bucket.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |full_at| {
                (!rate.lacks(full_at, now)).then(|| full_at.max(now).saturating_add(rate.interval))
            });
            if taken.is_err() {
                self.put_back(set, at, index);
                return false;
            }
        }
        true
    }

    /// Puts a token back into the first `count` buckets.
    fn put_back(&self, set: Set<'_>, at: usize, count: usize) {
        for (rate, bucket) in self.rates.iter().zip(set.buckets(at)).take(count) {
            let put = |full_at: u64| Some(full_at.saturating_sub(rate.interval));
            let _ = bucket.fetch_update(Ordering::SeqCst, Ordering::SeqCst, put);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked: an index of a set")]
    fn set(&self, key: u64) -> Set<'_> {
        let index = (key >> TAG_BITS) as usize & (SETS - 1);
        let set_words = SET * (1 + self.rates.len());
        let page = self.pages[index / PAGE].get_or_init(|| {
            let words = PAGE * set_words;
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let start = index % PAGE * set_words;
        let (words, buckets) = page[start..start + set_words].split_at(SET);
        Set { words, buckets }
    }
}

/// Eight keys and their buckets.
#[derive(Clone, Copy)]
struct Set<'a> {
    words: &'a [AtomicU64],
    /// Those of the first word, then those of the second, and so on.
    buckets: &'a [AtomicU64],
}

impl<'a> Set<'a> {
    fn tag(self, at: usize) -> u64 {
        self.words[at].load(Ordering::SeqCst) & TAG_MASK
    }

    fn buckets(self, at: usize) -> &'a [AtomicU64] {
        let count = self.buckets.len() / SET;
        &self.buckets[at * count..(at + 1) * count]
    }

    fn find(self, tag: u64) -> Option<usize> {
        (0..SET).find(|at| self.tag(*at) == tag)
    }

    /// When the last of the buckets will be full.
    fn full_at(self, at: usize) -> u64 {
        let buckets = self.buckets(at).iter();
        buckets
            .map(|bucket| bucket.load(Ordering::SeqCst))
            .max()
            .unwrap_or_default()
    }

    /// Gives the key the first word whose buckets are full, else the one whose buckets are fullest. `None` if another
    /// core was faster.
    fn place(self, tag: u64, now: u64) -> Option<usize> {
        let mut chosen: Option<(u64, usize, u64)> = None;
        for (at, word) in self.words.iter().enumerate() {
            let seen = word.load(Ordering::SeqCst);
            let full_at = self.full_at(at);
            if chosen.is_none_or(|(best, ..)| full_at < best) {
                chosen = Some((full_at, at, seen));
            }
            if full_at <= now {
                break;
            }
        }
        let (full_at, at, seen) = chosen?;
        if !self.exchange(at, seen, tag) {
            return None;
        }
        if full_at > now {
            // What the old key had drawn is not the new one's, unless somebody draws already.
            for bucket in self.buckets(at) {
                let drawn = bucket.load(Ordering::SeqCst);
                if drawn <= full_at {
                    let _ = bucket.compare_exchange(drawn, 0, Ordering::SeqCst, Ordering::SeqCst);
                }
            }
        }
        Some(at)
    }

    /// Empties a word whose buckets are full.
    fn free(self, at: usize, now: u64) -> bool {
        let seen = self.words[at].load(Ordering::SeqCst);
        self.full_at(at) <= now && self.exchange(at, seen, 0)
    }

    fn exchange(self, at: usize, seen: u64, tag: u64) -> bool {
        let stamp = (seen & !TAG_MASK).wrapping_add(STAMP_ONE);
        self.words[at]
            .compare_exchange(seen, stamp | tag, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

impl Exceeded {
    /// 429 with the wait in three forms.
    pub fn answer(self) -> Box<Answer> {
        let wait = go_text(self.wait);
        let mut answer = Answer::text(429, format!("max rate reached: retry-in {wait}"));
        let seconds = format!("{:.0}", self.wait.as_secs_f64());
        answer
            .fields
            .push(("Retry-After".into(), seconds.into_bytes()));
        answer.fields.push(("X-Retry-In".into(), wait.into_bytes()));
        answer
    }
}

/// A duration as Go writes it: `1h2m3.5s`, `1.5ms`, `250ns`.
fn go_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let with_fraction = |whole: u128, unit: u128, name: &str| {
        let fraction = format!("{:0width$}", whole % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{name}", whole / unit)
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => with_fraction(nanoseconds, 1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => with_fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let minute = 60_000_000_000;
            let seconds = with_fraction(nanoseconds % minute, 1_000_000_000, "s");
            match (nanoseconds / minute / 60, nanoseconds / minute % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(seconds: u64, average: u64, burst: u64) -> Rate {
        Rate::new(Duration::from_secs(seconds), average, burst).expect("a rate")
    }

    fn limit(rates: &[Rate]) -> RateLimit {
        RateLimit::new(Source::ClientIp, rates.into())
    }

    fn wait(limit: &RateLimit, key: u64, now: u64) -> Option<Duration> {
        limit.take_key(key, now).err().map(|exceeded| exceeded.wait)
    }

    #[test]
    fn a_bucket_starts_full_and_fills_one_by_one() {
        let limit = limit(&[rate(10, 5, 3)]);
        let start = 1000 * SECOND;
        for _ in 0..3 {
            assert_eq!(wait(&limit, 1, start), None);
        }
        let two = Some(Duration::from_secs(2));
        assert_eq!(wait(&limit, 1, start), two);
        assert_eq!(wait(&limit, 2, start), None, "another key");
        assert_eq!(wait(&limit, 1, start + 2 * SECOND - 1), two);
        assert_eq!(wait(&limit, 1, start + 2 * SECOND), None);
        assert_eq!(wait(&limit, 1, start + 2 * SECOND), two);
        let later = start + 1000 * SECOND;
        let passed = (0..10).filter(|_| wait(&limit, 1, later).is_none()).count();
        assert_eq!(passed, 3, "never more than the burst");
    }

    #[test]
    fn a_request_takes_from_all_rates_or_none() {
        let limit = limit(&[rate(1, 1, 10), rate(60, 1, 2)]);
        let now = 1000 * SECOND;
        assert_eq!(wait(&limit, 1, now), None);
        assert_eq!(wait(&limit, 1, now), None);
        for _ in 0..20 {
            assert_eq!(wait(&limit, 1, now), Some(Duration::from_secs(60)));
        }
        // The refused ones took nothing from the other rate: one token of it is enough a minute later.
        assert_eq!(wait(&limit, 1, now + 60 * SECOND), None);
    }

    #[test]
    fn the_longest_wait_is_told() {
        let limit = limit(&[rate(5, 1, 1), rate(3, 1, 1)]);
        let now = 1000 * SECOND;
        assert_eq!(wait(&limit, 1, now), None);
        assert_eq!(wait(&limit, 1, now), Some(Duration::from_secs(5)));
        assert_eq!(
            wait(&limit, 1, now + 3 * SECOND),
            Some(Duration::from_secs(5))
        );
    }

    #[test]
    fn rates_must_be_above_zero() {
        let second = Duration::from_secs(1);
        assert_eq!(Rate::new(Duration::ZERO, 1, 1), None);
        assert_eq!(Rate::new(second, 0, 1), None);
        assert_eq!(Rate::new(second, 1, 0), None);
        assert!(Rate::new(Duration::MAX, 1, u64::MAX).is_some());
    }

    #[test]
    fn a_flood_of_keys_pushes_itself_out() {
        let limit = limit(&[rate(1000, 10, 5)]);
        let now = 1_000_000 * SECOND;
        for _ in 0..5 {
            assert_eq!(wait(&limit, 7, now), None);
        }
        // A thousand further keys of the same set, each once: all pass.
        for key in 100..1100 {
            assert_eq!(wait(&limit, key, now), None, "{key}");
        }
        assert!(
            wait(&limit, 7, now).is_some(),
            "who has drawn all stays known"
        );
    }

    #[test]
    fn every_set_is_within_the_table() {
        let limit = limit(&[rate(1, 1, 1), rate(2, 1, 1)]);
        for set in [0, 1, 4711, 0xffff] {
            assert_eq!(wait(&limit, set << TAG_BITS, SECOND), None);
            assert!(wait(&limit, set << TAG_BITS, SECOND).is_some());
        }
    }

    #[test]
    fn threads_share_a_bucket_exactly() {
        for round in 0..50 {
            let limit = limit(&[rate(1_000_000, 1, 100), rate(1_000_000, 1, 150)]);
            let now = 1_000_000_000 * SECOND;
            let passed: [AtomicUsize; 3] = Default::default();
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for turn in 0..300_u64 {
                            let key = turn % 3;
                            if limit.take_key(key + 1, now).is_ok() {
                                passed[usize::try_from(key).expect("small")]
                                    .fetch_add(1, Ordering::SeqCst);
                            }
                        }
                    });
                }
            });
            let passed = passed.map(AtomicUsize::into_inner);
            assert_eq!(passed, [100, 100, 100], "round {round}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        let check = |nanoseconds: u64, expected: &str| {
            assert_eq!(go_text(Duration::from_nanos(nanoseconds)), expected);
        };
        check(0, "0s");
        check(250, "250ns");
        check(1_500, "1.5\u{b5}s");
        check(100_000_000, "100ms");
        check(333_333_333, "333.333333ms");
        check(2 * SECOND, "2s");
        check(1_500_000_000, "1.5s");
        check(60 * SECOND, "1m0s");
        check(3_723_500_000_000, "1h2m3.5s");
    }

    #[test]
    fn the_answer_has_the_wait_in_three_forms() {
        let check = |milliseconds: u64, seconds: &str, text: &str| {
            let wait = Duration::from_millis(milliseconds);
            let answer = Exceeded { wait }.answer();
            assert_eq!(answer.status, 429);
            let fields = [
                ("Retry-After".into(), seconds.as_bytes().to_vec()),
                ("X-Retry-In".into(), text.as_bytes().to_vec()),
            ];
            assert_eq!(answer.fields, fields);
            assert_eq!(
                *answer.body,
                *format!("max rate reached: retry-in {text}").as_bytes()
            );
        };
        check(2000, "2", "2s");
        check(500, "0", "500ms");
        check(1500, "2", "1.5s");
        check(100, "0", "100ms");
    }
}
