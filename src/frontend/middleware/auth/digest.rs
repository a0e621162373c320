//! Digest authentication: a proof that the client knows the password, once for every request. RFC 7616 with MD5 and
//! `qop=auth`, spec frontends 5.2.
//!
//! Owns the numbers that a proof is made for (nonces) and which of them were used. Exact over all cores: a number with a
//! count is accepted once, whichever cores it comes to. A nonce is a serial number and a keyed hash of it, so one that was
//! only given out takes no memory; a table of one word for each place of the serial number remembers the last use, and a
//! later nonce that comes to the same place makes the earlier one stale. So memory is fixed, and whoever asks for
//! thousands of nonces takes nobody's away: only a good proof is written down. Never locks.
//! The reference's nonces are as many at once; they have no time limit either.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use md5::{Digest as _, Md5};

use super::super::Answer;
use super::users::is_same;
use super::{Passing, credentials, unauthorized};
use crate::frontend::Scratch;
use crate::http::Head;
use crate::limits::{DIGEST_NONCES_MAX, DIGEST_PARAMETERS_MAX};

/// The only realm there is.
pub const REALM: &str = "traefik";

/// Bits of a serial number: enough for a century of 100,000 a second.
const SERIAL_BITS: u32 = 48;
/// Bits of a word for the count; the others say which nonce of its place.
const COUNT_BITS: u32 = 28;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

const _: () = assert!(
    DIGEST_NONCES_MAX.is_power_of_two()
        && SERIAL_BITS - DIGEST_NONCES_MAX.trailing_zeros() + COUNT_BITS <= 64,
    "what is left of a serial number fits a word beside the count"
);

/// A user's name, and the MD5 of name, realm and password in hexadecimal.
pub type Proofs = HashMap<Box<[u8]>, Box<[u8]>>;

/// What is asked of a request.
#[derive(Clone, Debug)]
pub struct Digest {
    /// Shared by the cores: read by all, written by nobody.
    users: Arc<Proofs>,
    nonces: Arc<Nonces>,
    passing: Passing,
}

/// The numbers that were given out, and used.
#[derive(Debug)]
pub struct Nonces {
    keys: RandomState,
    /// The same in every challenge.
    opaque: [u8; 16],
    given: AtomicU64,
    used: Box<[AtomicU64]>,
}

/// What a proof is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    Good,
    /// It was good once, or its number is none of ours: the client should make another one.
    Stale,
}

impl Default for Nonces {
    fn default() -> Self {
        let keys = RandomState::new();
        let opaque = encode(keys.hash_one(0_u64).to_be_bytes(), [0; 4]);
        Self {
            keys,
            opaque,
            given: AtomicU64::new(0),
            used: (0..DIGEST_NONCES_MAX).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

/// Twelve bytes as sixteen characters.
fn encode(first: [u8; 8], last: [u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&first);
    bytes[8..].copy_from_slice(&last);
    let mut text = [0; 16];
    BASE64_STANDARD
        .encode_slice(bytes, &mut text)
        .expect("three bytes make four characters");
    text
}

impl Nonces {
    fn nonce(&self, serial: u64) -> [u8; 16] {
        let mut hasher = self.keys.build_hasher();
        hasher.write_u64(serial);
        hasher.write_u8(1);
        let seal = hasher.finish();
        let word = serial << 16 | seal >> 48;
        let rest = u32::try_from(seal & 0xffff_ffff).expect("masked");
        encode(word.to_be_bytes(), rest.to_be_bytes())
    }

    fn next(&self) -> [u8; 16] {
        let serial = self.given.fetch_add(1, Ordering::Relaxed) & ((1 << SERIAL_BITS) - 1);
        self.nonce(serial)
    }

    /// Writes down that a nonce was used with this count.
    fn draw(&self, nonce: &[u8], count: u64) -> Worth {
        let mut bytes = [0; 12];
        let decoded = BASE64_STANDARD.decode_slice(nonce, &mut bytes);
        let Some(word) = decoded.ok().and_then(|_| bytes.first_chunk::<8>()) else {
            return Worth::Stale;
        };
        let serial = u64::from_be_bytes(*word) >> 16;
        if !is_same(&self.nonce(serial), nonce) || count == 0 || count > COUNT_MAX {
            return Worth::Stale;
        }
        let places = DIGEST_NONCES_MAX as u64;
        // One more, so that no use is the word of a place that was never used.
        let turn = serial / places + 1;
        let next = turn << COUNT_BITS | count;
        let place = usize::try_from(serial % places).expect("below the number of places");
        // A later turn, or a higher count of the same: both are larger numbers.
        let before = self.used[place].fetch_max(next, Ordering::SeqCst);
        if before < next {
            Worth::Good
        } else {
            Worth::Stale
        }
    }
}

impl Digest {
    pub fn new(users: Arc<Proofs>, nonces: Arc<Nonces>, passing: Passing) -> Self {
        Self {
            users,
            nonces,
            passing,
        }
    }

    /// Judges a request, and changes one that passes. `None`: it passes.
    pub fn on_request(&self, head: &mut Head, scratch: &Scratch) -> Option<Box<Answer>> {
        let worth = credentials(head, b"Digest")
            .and_then(Parameters::parse)
            .and_then(|parameters| {
                let target = scratch
                    .original_target()
                    .map_or_else(|| head.target(), |original| head.text(original));
                self.worth(head.method(), target, &parameters)
            });
        match worth {
            Some((Worth::Good, user)) => {
                self.passing.apply(head, user);
                None
            }
            Some((Worth::Stale, _)) => Some(self.challenge(", stale=true")),
            None => Some(self.challenge("")),
        }
    }

    /// With the user's name. `None` if it is no proof at all: somebody does not know the password, or speaks another
    /// language.
    fn worth(&self, method: &[u8], target: &[u8], said: &Parameters<'_>) -> Option<(Worth, &[u8])> {
        // An unknown name takes as long as a known one.
        const NOBODY: &[u8] = b"00000000000000000000000000000000";
        let user = self.users.get_key_value(&*said.username);
        let proof = user.map_or(NOBODY, |(_, proof)| proof);
        let request = md5_hex(&[method, &said.uri]);
        let parts = [
            proof,
            &said.nonce,
            &said.nc,
            &said.cnonce,
            b"auth",
            &request,
        ];
        let is_proof = is_same(&md5_hex(&parts), &said.response) & user.is_some();
        let is_ours = said.qop.eq_ignore_ascii_case(b"auth")
            && said
                .algorithm
                .as_ref()
                .is_none_or(|algorithm| algorithm.eq_ignore_ascii_case(b"MD5"))
            && *said.uri == *target;
        if !is_proof || !is_ours {
            return None;
        }
        let (name, _) = user?;
        let count = std::str::from_utf8(&said.nc)
            .ok()
            .filter(|count| count.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|count| u64::from_str_radix(count, 16).ok())?;
        if !is_same(&said.opaque, &self.nonces.opaque) {
            return Some((Worth::Stale, name));
        }
        Some((self.nonces.draw(&said.nonce, count), name))
    }

    fn challenge(&self, stale: &str) -> Box<Answer> {
        let [nonce, opaque] = [self.nonces.next(), self.nonces.opaque];
        let [nonce, opaque] = [&nonce, &opaque].map(|text| String::from_utf8_lossy(text));
        let challenge = format!(
            "Digest realm=\"{REALM}\", nonce=\"{nonce}\", opaque=\"{opaque}\", algorithm=\"MD5\", qop=\"auth\"{stale}"
        );
        unauthorized(challenge.into_bytes())
    }
}

/// The MD5 of the parts with colons between them, in hexadecimal.
fn md5_hex(parts: &[&[u8]]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut md5 = Md5::new();
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            md5.update(b":");
        }
        md5.update(part);
    }
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(md5.finalize()) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// The names of parameters that have a meaning.
const PARAMETERS: [&[u8]; 10] = [
    b"username",
    b"nonce",
    b"uri",
    b"response",
    b"opaque",
    b"qop",
    b"nc",
    b"cnonce",
    b"algorithm",
    b"realm",
];

/// What a client says of its proof. Borrowed from its request, but for texts with escapes.
#[derive(Debug, PartialEq, Eq)]
struct Parameters<'a> {
    username: Cow<'a, [u8]>,
    nonce: Cow<'a, [u8]>,
    uri: Cow<'a, [u8]>,
    response: Cow<'a, [u8]>,
    opaque: Cow<'a, [u8]>,
    qop: Cow<'a, [u8]>,
    nc: Cow<'a, [u8]>,
    cnonce: Cow<'a, [u8]>,
    algorithm: Option<Cow<'a, [u8]>>,
}

impl<'a> Parameters<'a> {
    /// Reads `name=token` and `name="text"`, separated by commas. `None` if it is anything else, or if something that has a
    /// meaning is missing or comes twice; what has none is passed over.
    fn parse(mut text: &'a [u8]) -> Option<Self> {
        let mut found: [Option<Cow<'a, [u8]>>; PARAMETERS.len()] = Default::default();
        for _ in 0..DIGEST_PARAMETERS_MAX {
            text = text.trim_ascii_start();
            let equals = memchr::memchr(b'=', text)?;
            let name = text[..equals].trim_ascii();
            let (value, rest) = value(text[equals + 1..].trim_ascii_start())?;
            if name.is_empty() {
                return None;
            }
            let known = PARAMETERS
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name));
            if let Some(at) = known
                && found[at].replace(value).is_some()
            {
                return None;
            }
            text = rest.trim_ascii_start();
            match text.split_first() {
                None => return Self::of(found),
                Some((b',', rest)) => text = rest,
                Some(_) => return None,
            }
        }
        None
    }

    fn of(found: [Option<Cow<'a, [u8]>>; PARAMETERS.len()]) -> Option<Self> {
        let [
            username,
            nonce,
            uri,
            response,
            opaque,
            qop,
            nc,
            cnonce,
            algorithm,
            realm,
        ] = found;
        if realm.is_some_and(|realm| *realm != *REALM.as_bytes()) {
            return None;
        }
        Some(Self {
            username: username?,
            nonce: nonce?,
            uri: uri?,
            response: response?,
            opaque: opaque?,
            qop: qop?,
            nc: nc?,
            cnonce: cnonce?,
            algorithm,
        })
    }
}

/// A token, or a text in quotes with its escapes undone, and what follows it.
fn value(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = memchr::memchr2(b',', b' ', text).unwrap_or(text.len());
        let (token, rest) = text.split_at(end);
        let is_token = !token.is_empty() && !token.contains(&b'"');
        return is_token.then_some((Cow::Borrowed(token), rest));
    };
    let plain = memchr::memchr2(b'"', b'\\', quoted)?;
    if quoted[plain] == b'"' {
        return Some((Cow::Borrowed(&quoted[..plain]), &quoted[plain + 1..]));
    }
    let mut value = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    loop {
        match bytes.next()? {
            (at, b'"') => return Some((Cow::Owned(value), &quoted[at + 1..])),
            (_, b'\\') => value.push(*bytes.next()?.1),
            (_, byte) => value.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::FieldId;

    fn digest() -> Digest {
        let proof = md5_hex(&[b"test", REALM.as_bytes(), b"secret"]);
        let users = HashMap::from([(b"test".as_slice().into(), proof.as_slice().into())]);
        Digest::new(
            Arc::new(users),
            Arc::default(),
            Passing::new(false, "X-User"),
        )
    }

    /// What is said to a request with this `Authorization`: `passes`, `refused` or `stale`, and the next challenge.
    fn ask(digest: &Digest, authorization: &str) -> (&'static str, String) {
        let mut head = Head::default();
        head.set_method(b"GET");
        head.set_target(b"/a?b");
        head.push_known(FieldId::Authorization, authorization.as_bytes());
        match digest.on_request(&mut head, &Scratch::default()) {
            None => {
                assert_eq!(head.values_named(b"x-user").next(), Some(&b"test"[..]));
                ("passes", String::new())
            }
            Some(answer) => {
                assert_eq!(
                    (answer.status, &*answer.body),
                    (401, &b"401 Unauthorized\n"[..])
                );
                let challenge = String::from_utf8_lossy(&answer.fields[0].1).into_owned();
                let said = if challenge.ends_with(", stale=true") {
                    "stale"
                } else {
                    "refused"
                };
                (said, challenge)
            }
        }
    }

    fn part<'a>(challenge: &'a str, name: &str) -> &'a str {
        let rest = challenge.split_once(&format!("{name}=\"")).expect(name).1;
        rest.split_once('"').expect("quotes").0
    }

    /// A proof for a challenge, by somebody who knows this password.
    fn proof(challenge: &str, password: &str, count: &str) -> String {
        let [nonce, opaque] = ["nonce", "opaque"].map(|name| part(challenge, name));
        let user = md5_hex(&[b"test", REALM.as_bytes(), password.as_bytes()]);
        let request = md5_hex(&[b"GET", b"/a?b"]);
        let response = md5_hex(&[
            &user,
            nonce.as_bytes(),
            count.as_bytes(),
            b"c",
            b"auth",
            &request,
        ]);
        let response = String::from_utf8_lossy(&response).into_owned();
        format!(
            "Digest username=\"test\", realm=\"traefik\", nonce=\"{nonce}\", uri=\"/a?b\", response=\"{response}\", \
             opaque=\"{opaque}\", algorithm=MD5, qop=auth, nc={count}, cnonce=\"c\""
        )
    }

    #[test]
    fn a_proof_is_good_once() {
        let digest = digest();
        let (said, challenge) = ask(&digest, "");
        assert_eq!(said, "refused");
        let (nonce, opaque) = (part(&challenge, "nonce"), part(&challenge, "opaque"));
        assert_eq!((nonce.len(), opaque.len()), (16, 16));
        assert_eq!(
            challenge,
            format!(
                "Digest realm=\"traefik\", nonce=\"{nonce}\", opaque=\"{opaque}\", algorithm=\"MD5\", qop=\"auth\""
            )
        );
        let say = |count: &str| ask(&digest, &proof(&challenge, "secret", count)).0;
        assert_eq!(say("00000001"), "passes");
        assert_eq!(say("00000001"), "stale", "a replay");
        assert_eq!(say("0000000a"), "passes");
        assert_eq!(say("00000009"), "stale");
        assert_eq!(say("0000000A"), "stale");
        assert_eq!(say("ffffffff"), "stale", "more than can be counted");
        assert_eq!(say("00000000"), "stale");
        assert_eq!(say("x"), "refused");
        assert_eq!(
            ask(&digest, &proof(&challenge, "wrong", "0000000b")).0,
            "refused"
        );
        let other = ask(&digest, "").1;
        assert_ne!(part(&other, "nonce"), nonce);
        assert_eq!(part(&other, "opaque"), opaque);
        // One that is made for another instance, or by nobody.
        let stranger = ask(&self::digest(), "").1;
        assert_eq!(ask(&digest, &proof(&stranger, "secret", "1")).0, "stale");
        let forged = challenge.replace(nonce, "AAAAAAAAAAAAAAAA");
        assert_eq!(ask(&digest, &proof(&forged, "secret", "1")).0, "stale");
    }

    #[test]
    fn numbers_that_are_only_asked_for_take_nobodys_away() {
        let digest = digest();
        let first = ask(&digest, "").1;
        assert_eq!(ask(&digest, &proof(&first, "secret", "1")).0, "passes");
        let mut last = String::new();
        for _ in 0..DIGEST_NONCES_MAX {
            last = ask(&digest, "").1;
        }
        assert_eq!(ask(&digest, &proof(&first, "secret", "2")).0, "passes");
        // The last one has the place of the first: once it is used, the first is not good any more.
        assert_eq!(ask(&digest, &proof(&last, "secret", "1")).0, "passes");
        assert_eq!(ask(&digest, &proof(&first, "secret", "3")).0, "stale");
        assert_eq!(ask(&digest, &proof(&last, "secret", "2")).0, "passes");
    }

    #[test]
    fn of_all_cores_one_may_use_a_count() {
        let digest = digest();
        let proof = proof(&ask(&digest, "").1, "secret", "7");
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let (digest, proof) = (digest.clone(), &proof);
                    scope.spawn(move || usize::from(ask(&digest, proof).0 == "passes"))
                })
                .collect();
            let results = threads.into_iter();
            results.map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 1);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let digest = digest();
        let challenge = ask(&digest, "").1;
        let good = proof(&challenge, "secret", "1");
        for (from, to) in [
            ("Digest ", "Digest"),
            ("Digest ", "Basic "),
            ("nc=1", "nc="),
            ("nc=1", "nc"),
            ("nc=1", "nc=1, nc=1"),
            ("nc=1", "nc=\""),
            ("nc=1, ", ""),
            ("nc=1", "nc=+1"),
            ("nc=1", "=1"),
            ("qop=auth", "qop=auth-int"),
            ("qop=auth, ", ""),
            ("algorithm=MD5", "algorithm=SHA-256"),
            ("algorithm=MD5", "algorithm=MD5-sess"),
            ("realm=\"traefik\"", "realm=\"other\""),
            ("uri=\"/a?b\"", "uri=\"/a\""),
            ("uri=\"/a?b\"", "uri=\"/a?b\\\""),
            ("username=\"test\"", "username=\"nobody\""),
            ("username=\"test\", ", ""),
            ("username=\"test\", ", "username=\"test\" "),
            ("username=\"test\"", "username=\"test"),
            (", cnonce", ",, cnonce"),
            ("cnonce=\"c\"", "cnonce=\"c\","),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert_eq!(ask(&digest, &bad).0, "refused", "{bad}");
        }
        for length in 0..good.len() {
            assert_eq!(ask(&digest, &good[..length]).0, "refused");
        }
        // Other ways to say the same.
        let good = good
            .replace("algorithm=MD5, ", "")
            .replace("qop=auth", "QOP = \"auth\"")
            .replace(
                "username=\"test\"",
                "username=\"te\\st\", unknown=\"a, b=c\"",
            );
        assert_eq!(ask(&digest, &good).0, "passes", "{good}");
    }
}
