//! Who may pass by a name and a password, and what is known of each password. Spec frontends 5.1.
//!
//! Owns the hashes and how a password is held against one: bcrypt, MD5 crypt (`$apr1$`, `$1$`) and `{SHA}`.
//! Never tells by its result whether a name is known. Never holds a password. [`Hash::matches`] may take as long as the
//! hash's writer wanted (a tenth of a second for bcrypt with a cost of 10): it is for the hashing threads.
//! Read next: `basic.rs`, then `verdicts.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bcrypt::HashParts;
use md5::{Digest, Md5};
use sha1::Sha1;

use crate::limits::BCRYPT_COST_MAX;

/// Rounds of MD5 crypt.
const ROUNDS: usize = 1000;

/// What is known of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// With its cost: the number of rounds as a power of two.
    Bcrypt {
        text: Arc<str>,
        cost: u32,
    },
    /// With any name between the first two `$`, which is part of what is hashed.
    Md5Crypt(Arc<str>),
    Sha1([u8; 20]),
    /// Not a hash: nothing matches it, least of all the same text.
    Never,
}

/// A hash would keep a thread busy for minutes each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooCostly {
    pub cost: u32,
}

impl Hash {
    /// Reads what stands behind the colon of an entry.
    ///
    /// # Errors
    /// A bcrypt cost above [`BCRYPT_COST_MAX`].
    pub fn parse(text: &str) -> Result<Self, TooCostly> {
        if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = BASE64_STANDARD.decode(digest).ok();
            let digest = digest.and_then(|digest| digest.try_into().ok());
            return Ok(digest.map_or(Self::Never, Self::Sha1));
        }
        if ["$2a$", "$2b$", "$2x$", "$2y$"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
        {
            return match text.parse::<HashParts>().map(|parts| parts.get_cost()) {
                Ok(cost) if cost > BCRYPT_COST_MAX => Err(TooCostly { cost }),
                Ok(cost) if cost >= 4 => Ok(Self::Bcrypt {
                    text: text.into(),
                    cost,
                }),
                _ => Ok(Self::Never),
            };
        }
        Ok(match md5_crypt_parts(text) {
            Some(_) => Self::Md5Crypt(text.into()),
            None => Self::Never,
        })
    }

    /// About how long [`Hash::matches`] takes, in microseconds.
    fn effort(&self) -> u64 {
        match self {
            Self::Bcrypt { cost, .. } => 50 << cost,
            Self::Md5Crypt(_) => 300,
            Self::Sha1(_) | Self::Never => 0,
        }
    }

    /// It can be held against a password where a core serves others meanwhile.
    pub fn is_quick(&self) -> bool {
        self.effort() == 0
    }

    /// What tells this hash from others.
    pub(super) fn identity(&self) -> &[u8] {
        match self {
            Self::Bcrypt { text, .. } | Self::Md5Crypt(text) => text.as_bytes(),
            Self::Sha1(digest) => digest,
            Self::Never => b"",
        }
    }

    /// The password is the one that was hashed. Compares in constant time.
    pub fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt { text, .. } => bcrypt::verify(password, text).unwrap_or(false),
            Self::Md5Crypt(text) => md5_crypt_parts(text).is_some_and(|(magic, salt)| {
                let made = md5_crypt(password, magic.as_bytes(), salt.as_bytes());
                is_same(made.as_bytes(), text.as_bytes())
            }),
            Self::Sha1(digest) => is_same(&Sha1::digest(password), digest),
            Self::Never => false,
        }
    }
}

/// Compares without telling by the time how much is the same; the lengths are no secret.
pub(super) fn is_same(one: &[u8], other: &[u8]) -> bool {
    let different = one
        .iter()
        .zip(other)
        .fold(0, |different, (one, other)| different | (one ^ other));
    one.len() == other.len() && std::hint::black_box(different) == 0
}

/// `$magic$` and salt of `$magic$salt$hash`.
fn md5_crypt_parts(text: &str) -> Option<(&str, &str)> {
    let magic_end = 1 + text.strip_prefix('$')?.find('$')?;
    let (magic, rest) = text.split_at(magic_end + 1);
    let (salt, _) = rest.split_once('$')?;
    Some((magic, salt))
}

/// The MD5-based algorithm of `crypt(3)` and of `htpasswd -m`, which differ in `magic` only: the whole text of a hash.
fn md5_crypt(password: &[u8], magic: &[u8], salt: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut inner = Md5::new();
    inner.update(password);
    inner.update(salt);
    inner.update(password);
    let inner = inner.finalize();

    let mut begin = Md5::new();
    begin.update(password);
    begin.update(magic);
    begin.update(salt);
    for piece in password.chunks(inner.len()) {
        begin.update(&inner[..piece.len()]);
    }
    let mut length = password.len();
    while length > 0 {
        // A bit of the length chooses between a zero and the first byte of the password.
        begin.update(if length & 1 == 1 {
            &[0]
        } else {
            &password[..1]
        });
        length >>= 1;
    }
    let mut digest = begin.finalize();

    for round in 0..ROUNDS {
        let mut next = Md5::new();
        let (first, last): (&[u8], &[u8]) = if round & 1 == 1 {
            (password, &digest)
        } else {
            (&digest, password)
        };
        next.update(first);
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(last);
        digest = next.finalize();
    }

    let mut text: Vec<u8> = [magic, salt, &b"$"[..]].concat();
    let mut write = |mut bits: u32, count: usize| {
        for _ in 0..count {
            text.push(DIGITS[bits as usize & 63]);
            bits >>= 6;
        }
    };
    for (high, middle, low) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        write(
            u32::from_be_bytes([0, digest[high], digest[middle], digest[low]]),
            4,
        );
    }
    write(u32::from(digest[11]), 2);
    String::from_utf8_lossy(&text).into_owned()
}

/// Names and their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    hashes: HashMap<Box<[u8]>, Hash>,
    /// What the password of an unknown name is held against: the costliest hash there is.
    decoy: Option<Hash>,
}

impl Users {
    /// Of entries with the same name the last counts.
    pub fn new(entries: impl IntoIterator<Item = (String, Hash)>) -> Self {
        let hashes: HashMap<Box<[u8]>, Hash> = entries
            .into_iter()
            .map(|(name, hash)| (name.into_bytes().into(), hash))
            .collect();
        let decoy = hashes.values().max_by_key(|hash| hash.effort()).cloned();
        Self { hashes, decoy }
    }

    /// The hash to hold a password against, and whether a match lets anybody in: for a name that is not known, or whose
    /// entry nothing can match, the work is the same and the result does not count. `None`: there are no users at all.
    pub(super) fn hash(&self, name: &[u8]) -> Option<(&Hash, bool)> {
        match self.hashes.get(name) {
            Some(hash) if *hash != Hash::Never => Some((hash, true)),
            _ => self.decoy.as_ref().map(|decoy| (decoy, false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, password: &str, expected: bool) {
        let hash = Hash::parse(text).expect("cheap enough");
        assert_eq!(
            hash.matches(password.as_bytes()),
            expected,
            "{text} {password:?}"
        );
    }

    /// Made by `openssl passwd -apr1`, `openssl passwd -1`, `openssl sha1` and crypt(3).
    #[test]
    fn each_scheme_knows_its_password() {
        for (text, password) in [
            ("$apr1$lZL6V/ci$WCVqhBgt57DKkMw3tmWrk0", "test2"),
            ("$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/", "test"),
            ("$1$dlPL2MqE$oQmn16q49SqdmhenQuNgs1", "hello"),
            ("{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=", "hello"),
            (
                "$2y$05$c4WoMPo3SXsafkva.HHa6ubs.QwVRhnK/TgDjO/PLSgj4uXjg.uLG",
                "bcrypt!",
            ),
        ] {
            check(text, password, true);
            for wrong in ["", "x", &password[1..], &format!("{password} ")] {
                check(text, wrong, false);
            }
        }
        let twin = bcrypt::hash("secret", 4).expect("randomness");
        for version in ["$2a$", "$2b$", "$2x$", "$2y$"] {
            check(&format!("{version}{}", &twin[4..]), "secret", true);
        }
    }

    #[test]
    fn long_and_odd_passwords() {
        let long = "p".repeat(100);
        let made = md5_crypt(long.as_bytes(), b"$1$", b"salt");
        check(&made, &long, true);
        check(&made, &long[1..], false);
        let made = md5_crypt(b"", b"$other$", b"");
        check(&made, "", true);
        check(&made, "x", false);
    }

    #[test]
    fn what_is_no_hash_matches_nothing() {
        for text in [
            "",
            "secret",
            "$",
            "$$",
            "$apr1$",
            "$apr1$salt",
            "a$b$c$d",
            "{SHA}",
            "{SHA}secret",
            "{SHA}c2hvcnQ=",
            "$2y$05$short",
            "$2y$99$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC",
        ] {
            let Ok(hash) = Hash::parse(text) else {
                continue;
            };
            assert_eq!(hash, Hash::Never, "{text}");
            check(text, text, false);
        }
        check("$apr1$salt$", "", false);
        let costly = "$2y$30$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
        assert_eq!(Hash::parse(costly), Err(TooCostly { cost: 30 }));
    }

    #[test]
    fn a_name_that_is_not_known_costs_what_the_costliest_does() {
        let bcrypt = bcrypt::hash("a", 4).expect("randomness");
        let [sha, bcrypt, never] = ["{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=", &bcrypt, "plain"]
            .map(|text| Hash::parse(text).expect("cheap enough"));
        let users = Users::new([
            ("s".to_owned(), never.clone()),
            ("s".to_owned(), sha.clone()),
            ("b".to_owned(), bcrypt.clone()),
            ("n".to_owned(), never),
        ]);
        assert_eq!(users.hash(b"s"), Some((&sha, true)));
        assert_eq!(users.hash(b"b"), Some((&bcrypt, true)));
        assert_eq!(users.hash(b"n"), Some((&bcrypt, false)));
        assert_eq!(users.hash(b"who"), Some((&bcrypt, false)));
        assert_eq!(Users::default().hash(b"who"), None);
    }
}
