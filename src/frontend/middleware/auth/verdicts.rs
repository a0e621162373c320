//! What a core remembers of passwords that were held against hashes: so a known user costs one keyed hash a request.
//!
//! A verdict says that a password does or does not belong to a hash. That never changes, so nothing here is ever out of
//! date: who is removed, or gets another password, is looked up under another key. Owns two tables of fixed size, one
//! for either verdict, so that wrong passwords never push out right ones. Never holds a password: a key is made of it
//! by a keyed hash of 128 bits, with keys that only this core has. Never shared with another core.
//! Read next: `basic.rs`.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::users::Hash;
use crate::limits::{VERDICTS_RIGHT_MAX, VERDICTS_WRONG_MAX};

/// Places for one key: a cache line.
const WAYS: usize = 4;

/// A password, a name and a hash, as a number that nobody outside can foresee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

/// The memory of one core.
pub struct Verdicts {
    hashers: [RandomState; 2],
    salt: [u8; 16],
    right: Table,
    wrong: Table,
}

impl Verdicts {
    /// `salt` is random.
    pub fn new(salt: [u8; 16]) -> Self {
        Self {
            hashers: [RandomState::new(), RandomState::new()],
            salt,
            right: Table::new(VERDICTS_RIGHT_MAX),
            wrong: Table::new(VERDICTS_WRONG_MAX),
        }
    }

    /// The key of a question. `counts`: a match would let somebody in.
    pub fn key(&self, hash: &Hash, counts: bool, name: &[u8], password: &[u8]) -> Key {
        let half = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write(&self.salt);
            hasher.write_u8(u8::from(counts));
            // With their lengths, so that no two questions are one text.
            for part in [hash.identity(), name, password] {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
            u128::from(hasher.finish())
        };
        let [first, second] = &self.hashers;
        // Zero marks an empty place.
        Key((half(first) << 64 | half(second)).max(1))
    }

    /// What is remembered of a question.
    pub fn recall(&mut self, key: Key) -> Option<bool> {
        if self.right.find(key) {
            Some(true)
        } else if self.wrong.find(key) {
            Some(false)
        } else {
            None
        }
    }

    pub fn remember(&mut self, key: Key, verdict: bool) {
        let table = if verdict {
            &mut self.right
        } else {
            &mut self.wrong
        };
        table.insert(key);
    }
}

impl fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verdicts")
    }
}

/// Keys in sets of a few places; within a set the one used last comes first, and the last one makes room.
struct Table {
    /// Empty until the first key.
    sets: Vec<[u128; WAYS]>,
    count: usize,
}

impl Table {
    fn new(keys: usize) -> Self {
        Self {
            sets: Vec::new(),
            count: keys / WAYS,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of a key will do")]
    fn set(&mut self, key: Key) -> Option<&mut [u128; WAYS]> {
        let at = key.0 as usize % self.count;
        self.sets.get_mut(at)
    }

    fn find(&mut self, key: Key) -> bool {
        let Some(set) = self.set(key) else {
            return false;
        };
        let Some(at) = set.iter().position(|known| *known == key.0) else {
            return false;
        };
        set[..=at].rotate_right(1);
        true
    }

    fn insert(&mut self, key: Key) {
        if self.find(key) {
            return;
        }
        if self.sets.is_empty() {
            self.sets.resize(self.count, [0; WAYS]);
        }
        if let Some(set) = self.set(key) {
            set.rotate_right(1);
            set[0] = key.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_remembered_for_exactly_its_question() {
        let mut verdicts = Verdicts::new([7; 16]);
        let [hash, other] =
            ["$apr1$a$b", "$apr1$a$c"].map(|text| Hash::parse(text).expect("cheap enough"));
        let key = verdicts.key(&hash, true, b"name", b"password");
        assert_eq!(verdicts.recall(key), None);
        verdicts.remember(key, true);
        assert_eq!(verdicts.recall(key), Some(true));
        for different in [
            verdicts.key(&hash, true, b"name", b"passwort"),
            verdicts.key(&hash, true, b"namepass", b"word"),
            verdicts.key(&hash, true, b"nam", b"epassword"),
            verdicts.key(&hash, false, b"name", b"password"),
            verdicts.key(&other, true, b"name", b"password"),
            Verdicts::new([7; 16]).key(&hash, true, b"name", b"password"),
        ] {
            assert_eq!(verdicts.recall(different), None);
        }
        let wrong = verdicts.key(&hash, true, b"name", b"wrong");
        verdicts.remember(wrong, false);
        assert_eq!(verdicts.recall(wrong), Some(false));
    }

    #[test]
    fn wrong_passwords_never_push_out_right_ones_and_memory_is_bounded() {
        let mut verdicts = Verdicts::new([0; 16]);
        let hash = Hash::parse("$apr1$a$b").expect("cheap enough");
        let right = verdicts.key(&hash, true, b"name", b"password");
        verdicts.remember(right, true);
        for number in 0..10 * VERDICTS_WRONG_MAX {
            let key = verdicts.key(&hash, true, b"name", &number.to_le_bytes());
            verdicts.remember(key, false);
        }
        assert_eq!(verdicts.recall(right), Some(true));
        assert_eq!(verdicts.wrong.sets.len() * WAYS, VERDICTS_WRONG_MAX);
    }

    #[test]
    fn the_key_used_last_stays() {
        let mut table = Table::new(WAYS);
        for number in 1..=4 {
            table.insert(Key(number));
        }
        assert!(table.find(Key(1)), "and is now the last one used");
        table.insert(Key(5));
        let known: Vec<bool> = (1..=5).map(|number| table.find(Key(number))).collect();
        assert_eq!(known, [true, false, true, true, true]);
    }
}
