//! Servers that fail again and again are left alone for a while, without anybody asking them: passive ejection.
//!
//! Exact over all cores: one record for each server, which a working server never writes. Never takes more servers out
//! than the operator allows, and never the last one. What it decides goes into the availability of a server.
//! Never reads a clock. Read next: `availability.rs`, `proxy/guard.rs` (tells it how tries end).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ServerId;
use super::availability::{Availability, Why};

/// No server is away, so none is to come back.
const NEVER: u64 = u64::MAX;

/// When a server is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// After so many failures in a row, at least 1.
    pub failures: u32,
    /// In milliseconds.
    pub time: u64,
    /// At most so many of a hundred servers.
    pub share: u32,
}

/// What is known of one server. Outlives a reload that keeps the server.
#[derive(Debug)]
pub struct Record {
    /// Failures since the last success.
    streak: AtomicU32,
    /// When it comes back, in milliseconds; 0: it is not away.
    until: AtomicU64,
    availability: Arc<Availability>,
}

impl Record {
    pub fn new(availability: Arc<Availability>) -> Self {
        Self {
            streak: AtomicU32::new(0),
            until: AtomicU64::new(0),
            availability,
        }
    }

    /// It is not away any more, as far as ejection goes. True if it was.
    pub fn readmit(&self) -> bool {
        let was_away = self.until.swap(0, Ordering::AcqRel) != 0;
        if was_away {
            self.availability.readmit(Why::Ejected);
        }
        was_away
    }
}

/// The servers of a backend, as they fail and come back.
#[derive(Debug)]
pub struct Ejection {
    rule: Rule,
    /// In the order of the servers.
    records: Box<[Arc<Record>]>,
    /// Not before this time, in milliseconds, is anybody to come back.
    next: AtomicU64,
}

impl Ejection {
    /// For servers with these records, in their order. Where more of them are away than may be, since others are gone or
    /// the rule is another, some come back.
    pub fn new(rule: Rule, records: Box<[Arc<Record>]>) -> Self {
        let ejection = Self {
            rule,
            records,
            // Some may be away already.
            next: AtomicU64::new(0),
        };
        for record in &ejection.records {
            if ejection.away() > ejection.most() {
                record.readmit();
            }
        }
        ejection
    }

    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// Somebody may be due to come back at `now` (nanoseconds): ask [`Ejection::back`].
    #[inline]
    pub fn is_due(&self, now: u64) -> bool {
        now / 1_000_000 >= self.next.load(Ordering::Relaxed)
    }

    /// Lets everybody back whose time is over at `now` (nanoseconds), and tells who.
    pub fn back(&self, now: u64, mut tell: impl FnMut(ServerId)) {
        let now = now / 1_000_000;
        // First, so that who is put out meanwhile is not forgotten.
        self.next.store(NEVER, Ordering::SeqCst);
        for (at, record) in self.records.iter().enumerate() {
            let until = record.until.load(Ordering::SeqCst);
            if until == 0 {
                continue;
            }
            if until > now {
                self.next.fetch_min(until, Ordering::SeqCst);
                continue;
            }
            let taken = record
                .until
                .compare_exchange(until, 0, Ordering::SeqCst, Ordering::SeqCst);
            if taken.is_ok() {
                record.availability.readmit(Why::Ejected);
                tell(id(at));
            }
        }
    }

    /// A try at a server has ended at `now` (nanoseconds). True if the server is left alone from now on.
    #[inline]
    pub fn tried(&self, server: ServerId, has_failed: bool, now: u64) -> bool {
        let Some(record) = self.records.get(server.0 as usize) else {
            return false;
        };
        if has_failed {
            return self.failed(record, now / 1_000_000);
        }
        // A server that works is only looked at.
        if record.streak.load(Ordering::Relaxed) != 0 {
            record.streak.store(0, Ordering::Relaxed);
        }
        false
    }

    #[cold]
    fn failed(&self, record: &Record, now: u64) -> bool {
        let streak = record.streak.fetch_add(1, Ordering::Relaxed) + 1;
        if streak < self.rule.failures {
            return false;
        }
        let until = now + self.rule.time;
        let put_out = record
            .until
            .compare_exchange(0, until, Ordering::SeqCst, Ordering::SeqCst);
        if put_out.is_err() {
            return false;
        }
        // Two cores may have put two servers out where one was allowed: then each sees both, and neither goes.
        if self.away() > self.most() {
            record.until.store(0, Ordering::SeqCst);
            return false;
        }
        record.streak.store(0, Ordering::Relaxed);
        record.availability.rule_out(Why::Ejected);
        self.next.fetch_min(until, Ordering::SeqCst);
        true
    }

    /// How many servers are away at present, for whatever reason.
    fn away(&self) -> usize {
        let is_away = |record: &&Arc<Record>| {
            record.until.load(Ordering::SeqCst) != 0 || !record.availability.is_available()
        };
        self.records.iter().filter(is_away).count()
    }

    /// How many servers may be away at once: one at least, and never all.
    fn most(&self) -> usize {
        let all = self.records.len();
        let share = all * self.rule.share as usize / 100;
        share.max(1).min(all.saturating_sub(1))
    }
}

fn id(at: usize) -> ServerId {
    ServerId(u32::try_from(at).expect("compile bounds the servers of a backend"))
}

#[cfg(test)]
mod tests {
    use super::super::availability::Changes;
    use super::*;

    /// So many servers; three failures in a row are too many, for ten seconds.
    fn ejection(servers: usize, share: u32) -> Ejection {
        let changes = Arc::<Changes>::default();
        let record = |_| {
            Arc::new(Record::new(Arc::new(Availability::new(Arc::clone(
                &changes,
            )))))
        };
        let rule = Rule {
            failures: 3,
            time: 10_000,
            share,
        };
        Ejection::new(rule, (0..servers).map(record).collect())
    }

    fn at(milliseconds: u64) -> u64 {
        (milliseconds + 5_000_000) * 1_000_000
    }

    /// Who is there: letters in the order of the servers, `.` for who is away.
    fn there(ejection: &Ejection) -> String {
        let letter = |at: usize| char::from(b'A' + u8::try_from(at).expect("few"));
        ejection
            .records
            .iter()
            .enumerate()
            .map(|(at, record)| {
                if record.availability.is_available() {
                    letter(at)
                } else {
                    '.'
                }
            })
            .collect()
    }

    /// Tries at servers: an upper case letter worked, a lower case one failed. Returns those that were put out by one.
    fn play(ejection: &Ejection, tries: &str, now: u64) -> String {
        tries
            .chars()
            .filter(|one| {
                let server = u32::from(one.to_ascii_uppercase()) - u32::from('A');
                ejection.tried(ServerId(server), one.is_lowercase(), at(now))
            })
            .collect()
    }

    fn back(ejection: &Ejection, now: u64) -> String {
        let mut back = String::new();
        if ejection.is_due(at(now)) {
            ejection.back(at(now), |server| {
                back.push(char::from(b'A' + u8::try_from(server.0).expect("few")));
            });
        }
        back
    }

    #[test]
    fn failures_in_a_row_put_a_server_out_for_a_while() {
        let ejection = ejection(3, 50);
        assert_eq!(play(&ejection, "aaAaabBcC", 0), "");
        assert_eq!(there(&ejection), "ABC");
        assert_eq!(play(&ejection, "a", 1_000), "a", "the third in a row");
        assert_eq!(there(&ejection), ".BC");
        assert_eq!(play(&ejection, "aaaa", 2_000), "", "tries of before");
        assert_eq!(back(&ejection, 10_999), "");
        assert_eq!(back(&ejection, 11_000), "A");
        assert_eq!(there(&ejection), "ABC");
        assert_eq!(back(&ejection, 11_000), "");
        assert!(!ejection.is_due(at(1_000_000)), "nobody is away");
    }

    #[test]
    fn no_more_go_than_are_allowed_and_never_the_last() {
        let check = |servers, share, tries: &str, expected: &str| {
            let ejection = ejection(servers, share);
            play(&ejection, tries, 0);
            assert_eq!(there(&ejection), expected, "{servers} {share}");
        };
        check(1, 100, "aaaaaa", "A");
        check(2, 100, "aaabbb", ".B");
        check(4, 50, "aaabbbcccddd", "..CD");
        check(4, 10, "aaabbb", ".BCD");
        check(4, 0, "aaabbb", ".BCD");
    }

    #[test]
    fn servers_that_are_away_for_another_reason_count() {
        let ejection = ejection(3, 50);
        ejection.records[1].availability.rule_out(Why::Unhealthy);
        assert_eq!(
            play(&ejection, "aaa", 0),
            "",
            "one of three is away already"
        );
        ejection.records[1].availability.readmit(Why::Unhealthy);
        assert_eq!(play(&ejection, "a", 0), "a", "the next failure tells");
    }

    #[test]
    fn each_comes_back_in_its_time() {
        let ejection = ejection(4, 50);
        play(&ejection, "aaa", 0);
        play(&ejection, "bbb", 5_000);
        assert_eq!(back(&ejection, 10_000), "A");
        assert_eq!(back(&ejection, 14_999), "");
        play(&ejection, "aaa", 14_999);
        assert_eq!(back(&ejection, 15_000), "B");
        assert_eq!(there(&ejection), ".BCD");
        assert_eq!(back(&ejection, 60_000), "A");
    }

    #[test]
    fn another_rule_finds_who_is_away() {
        let before = ejection(3, 50);
        play(&before, "aaa", 0);
        let after = Ejection::new(before.rule(), before.records.clone());
        assert_eq!(back(&after, 9_999), "");
        assert_eq!(back(&after, 10_000), "A");
        play(&after, "bbb", 20_000);
        assert!(before.records[1].readmit());
        assert!(!before.records[1].readmit());
        assert_eq!(there(&after), "ABC");
    }

    #[test]
    fn who_is_left_by_a_reload_is_asked() {
        let before = ejection(4, 50);
        play(&before, "aaaccc", 0);
        assert_eq!(there(&before), ".B.D");
        let only = |names: &[usize]| {
            let records = names.iter().map(|at| Arc::clone(&before.records[*at]));
            Ejection::new(before.rule(), records.collect())
        };
        assert_eq!(there(&only(&[0, 1, 2])), "AB.", "one of three may be away");
        assert_eq!(there(&only(&[2])), "A");
    }

    #[test]
    fn threads_never_put_out_more_than_allowed() {
        for _ in 0..200 {
            let ejection = ejection(4, 50);
            std::thread::scope(|scope| {
                for server in 0..4 {
                    let ejection = &ejection;
                    scope.spawn(move || {
                        for _ in 0..3 {
                            ejection.tried(ServerId(server), true, at(0));
                        }
                    });
                }
            });
            let away = there(&ejection).matches('.').count();
            assert!(away <= 2, "{away}");
        }
    }
}
