//! How many exchanges of one key may be under way at a backend. Spec backends 6.
//!
//! Exact over all cores: a count is one atomic word with its key in it, and never exceeds the limit. Owns a table of
//! such words that grows page by page up to its bound and outlives reloads. Never locks.
//!
//! A key lives in one set of eight words, the cache line its hash names. A word of count 0 is free. Two cores could give
//! a new key two words of its set at once; so whoever has counted itself looks over the set again, and if the key has
//! another word in use it takes itself back and begins anew. Of two that stay, the later one would have seen the earlier.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::key::{Keys, Source};
use crate::http::Head;
use crate::limits::CONNECTION_KEYS_MAX;

/// Words of a set: a cache line.
const SET: usize = 8;
const SETS: usize = CONNECTION_KEYS_MAX / SET;
/// Sets made at once: 4 KiB.
const PAGE: usize = 64;
const PAGES: usize = SETS / PAGE;

/// A word is a count above and the rest of the key's hash below.
const COUNT_ONE: u64 = 1 << TAG_BITS;
const TAG_BITS: u32 = 40;
const TAG_MASK: u64 = COUNT_ONE - 1;

/// The highest limit; higher ones cannot be told from none.
pub const AMOUNT_MAX: u32 = (1 << (64 - TAG_BITS)) - 1;

/// How often a place is looked for while other cores get in the way, before the exchange is refused.
const TRIES_MAX: usize = 1000;

const _: () = assert!(SETS.is_power_of_two() && SETS <= 1 << (64 - TAG_BITS));

/// A limit and what is under way.
#[derive(Clone, Debug)]
pub struct Limit {
    amount: u32,
    table: Arc<Table>,
}

/// What is under way, by key. Outlives a change of the limit.
#[derive(Debug)]
pub struct Table {
    keys: Keys,
    /// Made when first needed. Cores that need the same one at once wait for the first, for the time of a page of zeros.
    pages: Box<[OnceLock<Box<[Set; PAGE]>>]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([AtomicU64; SET]);

/// An exchange that counts, until this is dropped.
#[derive(Debug)]
#[must_use = "dropped at once it counts for nothing"]
pub struct Place<'a>(&'a AtomicU64);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(COUNT_ONE, Ordering::SeqCst);
    }
}

/// As many as allowed are under way already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    pub amount: u32,
}

impl Table {
    pub fn new(source: Source) -> Self {
        Self {
            keys: Keys::new(source),
            pages: (0..PAGES).map(|_| OnceLock::new()).collect(),
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked: an index of a set")]
    fn set(&self, key: u64) -> &[AtomicU64; SET] {
        let index = (key >> TAG_BITS) as usize & (SETS - 1);
        let page = self.pages[index / PAGE]
            .get_or_init(|| Box::new(std::array::from_fn(|_| Set::default())));
        &page[index % PAGE].0
    }
}

impl Limit {
    /// `amount` is at most [`AMOUNT_MAX`]; the counts of `table` go on.
    pub fn new(amount: u32, table: Arc<Table>) -> Self {
        Self {
            amount: amount.min(AMOUNT_MAX),
            table,
        }
    }

    /// How many exchanges of one key may be under way.
    pub fn amount(&self) -> u32 {
        self.amount
    }

    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// Counts an exchange in.
    ///
    /// # Errors
    /// The limit is reached for its key, or more keys than the table holds are under way.
    pub fn enter(&self, head: &Head, peer: IpAddr) -> Result<Place<'_>, Full> {
        self.enter_key(self.table.keys.key(head, peer))
    }

    fn enter_key(&self, key: u64) -> Result<Place<'_>, Full> {
        let full = Full {
            amount: self.amount,
        };
        let tag = key & TAG_MASK;
        let set = self.table.set(key);
        for _ in 0..TRIES_MAX {
            let (at, seen) = find(set, tag).ok_or(full)?;
            let count = seen >> TAG_BITS;
            if count >= u64::from(self.amount) {
                return Err(full);
            }
            let counted = tag | (count + 1) << TAG_BITS;
            let word = &set[at];
            if word
                .compare_exchange(seen, counted, Ordering::SeqCst, Ordering::SeqCst)
                .is_err()
            {
                continue;
            }
            let place = Place(word);
            let is_alone = set.iter().enumerate().all(|(other, word)| {
                let seen = word.load(Ordering::SeqCst);
                other == at || seen & TAG_MASK != tag || seen >> TAG_BITS == 0
            });
            if is_alone {
                return Ok(place);
            }
            drop(place);
            std::hint::spin_loop();
        }
        Err(full)
    }
}

/// The word of the key, or a free one; its value is the one to go on from.
fn find(set: &[AtomicU64; SET], tag: u64) -> Option<(usize, u64)> {
    let mut free = None;
    for (at, word) in set.iter().enumerate() {
        let seen = word.load(Ordering::SeqCst);
        if seen >> TAG_BITS == 0 {
            free = free.or(Some((at, seen)));
        } else if seen & TAG_MASK == tag {
            return Some((at, seen));
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    fn limit(amount: u32) -> Limit {
        Limit::new(amount, Arc::new(Table::new(Source::ClientIp)))
    }

    #[test]
    fn each_key_has_its_own_limit_and_places_come_back() {
        let limit = limit(2);
        let first = limit.enter_key(1).expect("one");
        let _second = limit.enter_key(1).expect("two");
        assert_eq!(limit.enter_key(1).map(drop), Err(Full { amount: 2 }));
        // Another key of the same set.
        let _other = limit.enter_key(2).expect("its own count");
        drop(first);
        let _third = limit.enter_key(1).expect("a place came back");
        assert!(limit.enter_key(1).is_err());
    }

    #[test]
    fn counts_go_on_when_the_amount_changes() {
        let before = limit(2);
        let _first = before.enter_key(1).expect("one");
        let after = Limit::new(1, Arc::clone(before.table()));
        assert!(after.enter_key(1).is_err());
        let higher = Limit::new(3, Arc::clone(before.table()));
        assert!(higher.enter_key(1).is_ok());
    }

    #[test]
    fn a_set_that_is_full_refuses_further_keys_only() {
        let limit = limit(5);
        let places: Vec<_> = (0..8)
            .map(|key| limit.enter_key(key).expect("a place"))
            .collect();
        assert!(limit.enter_key(8).is_err(), "a ninth key of the set");
        assert!(limit.enter_key(7).is_ok());
        assert!(limit.enter_key(8 | COUNT_ONE).is_ok(), "another set");
        drop(places);
        assert!(limit.enter_key(8).is_ok());
    }

    #[test]
    fn a_request_finds_its_key() {
        let limit = Limit::new(1, Arc::new(Table::new(Source::Host)));
        let head = |authority: &[u8]| {
            let mut head = Head::default();
            head.set_authority(authority);
            head
        };
        let peer = "1.1.1.1".parse().expect("an address");
        let _first = limit.enter(&head(b"a"), peer).expect("one");
        assert!(limit.enter(&head(b"a"), peer).is_err());
        assert!(limit.enter(&head(b"b"), peer).is_ok());
    }

    #[test]
    fn threads_never_exceed_it_and_leave_nothing_behind() {
        let limit = limit(3);
        // Few words and many keys, so that new keys are placed all the time.
        let under_way: [AtomicUsize; 12] = Default::default();
        thread::scope(|scope| {
            for seed in 0..4_u64 {
                let (limit, under_way) = (&limit, &under_way);
                scope.spawn(move || {
                    let mut state = seed + 1;
                    for _ in 0..20_000 {
                        state = state
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1);
                        let key = (state >> 33) % 12;
                        if let Ok(place) = limit.enter_key(key) {
                            let counter = &under_way[usize::try_from(key).expect("small")];
                            assert!(counter.fetch_add(1, Ordering::SeqCst) < 3);
                            if state & 4 == 0 {
                                thread::yield_now();
                            }
                            counter.fetch_sub(1, Ordering::SeqCst);
                            drop(place);
                        }
                    }
                });
            }
        });
        assert!(
            limit
                .table
                .set(0)
                .iter()
                .all(|word| word.load(Ordering::SeqCst) >> TAG_BITS == 0)
        );
    }
}
