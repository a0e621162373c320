//! Basic authentication: a name and a password in every request. RFC 7617, spec frontends 5.1.
//!
//! Owns how `Authorization` is read and what who may not pass is told. Never computes a hash that takes long, and never
//! lets a request with two `Authorization` lines pass: the server behind might read the other one.
//! Read next: `users.rs`.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::Answer;
use super::users::{Hash, Users};
use super::verdicts::{Key, Verdicts};
use super::{Passing, credentials, unauthorized};
use crate::http::Head;
use crate::limits::CREDENTIALS_BYTES_MAX;

/// What is asked of a request.
#[derive(Clone, Debug)]
pub struct Basic {
    /// Shared by the cores: read by all, written by nobody.
    users: Arc<Users>,
    passing: Passing,
}

/// What `Authorization` says of a request.
#[derive(Debug)]
pub enum Judgement {
    /// The request was changed as it goes on.
    Pass,
    Answer(Box<Answer>),
    /// Nobody here can say yet.
    Hash(Question),
}

/// Whether a password belongs to a hash: for somebody who has the time.
#[derive(Clone, Debug)]
pub struct Question {
    pub key: Key,
    hash: Hash,
    counts: bool,
    password: Vec<u8>,
}

impl Question {
    /// The answer. Takes as long as the hash takes; also where the answer is no whatever the password.
    pub fn answer(&self) -> bool {
        self.hash.matches(&self.password) & self.counts
    }
}

impl Basic {
    pub fn new(users: Arc<Users>, passing: Passing) -> Self {
        Self { users, passing }
    }

    /// Judges a request by what is known, and changes one that passes.
    pub fn on_request(&self, head: &mut Head, verdicts: &mut Verdicts) -> Judgement {
        let mut buffer = [0; CREDENTIALS_BYTES_MAX];
        let Some((name, password)) = name_and_password(head, &mut buffer) else {
            return Judgement::Answer(challenge());
        };
        let Some((hash, counts)) = self.users.hash(name) else {
            return Judgement::Answer(challenge());
        };
        let verdict = if hash.is_quick() {
            hash.matches(password) & counts
        } else {
            let key = verdicts.key(hash, counts, name, password);
            match verdicts.recall(key) {
                Some(verdict) => verdict,
                None => {
                    return Judgement::Hash(Question {
                        key,
                        hash: hash.clone(),
                        counts,
                        password: password.to_vec(),
                    });
                }
            }
        };
        if verdict {
            self.passing.apply(head, name);
            Judgement::Pass
        } else {
            Judgement::Answer(challenge())
        }
    }
}

/// What who may not pass is told.
pub fn challenge() -> Box<Answer> {
    unauthorized(b"Basic realm=\"traefik\"".to_vec())
}

fn name_and_password<'a>(head: &Head, buffer: &'a mut [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let encoded = credentials(head, b"Basic")?;
    let length = BASE64_STANDARD.decode_slice(encoded, buffer).ok()?;
    let decoded = &buffer[..length];
    let colon = memchr::memchr(b':', decoded)?;
    Some((&decoded[..colon], &decoded[colon + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a request with these fields, for the users `quick` (with `{SHA}`) and `slow` (with `$apr1$`).
    fn judge(basic: &Basic, verdicts: &mut Verdicts, fields: &[(&str, &str)]) -> String {
        let mut head = Head::default();
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        match basic.on_request(&mut head, verdicts) {
            Judgement::Pass => head.fields().fold(String::from("pass"), |text, field| {
                let [name, value] = [field.name, field.value].map(String::from_utf8_lossy);
                format!("{text}|{name}: {value}")
            }),
            Judgement::Answer(answer) => format!(
                "{} {:?} {}",
                answer.status,
                answer.fields,
                String::from_utf8_lossy(&answer.body)
            ),
            Judgement::Hash(question) => {
                let verdict = question.answer();
                verdicts.remember(question.key, verdict);
                format!("hash, {verdict}")
            }
        }
    }

    fn basic(remove_header: bool, header_field: &str) -> Basic {
        let [quick, slow] = [
            "{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=",
            "$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/",
        ]
        .map(|text| Hash::parse(text).expect("cheap enough"));
        let users = Users::new([("quick".to_owned(), quick), ("slow".to_owned(), slow)]);
        Basic::new(Arc::new(users), Passing::new(remove_header, header_field))
    }

    fn encoded(scheme: &str, pair: &str) -> String {
        format!("{scheme} {}", BASE64_STANDARD.encode(pair))
    }

    const REFUSED: &str =
        "401 [(\"WWW-Authenticate\", \"Basic realm=\\\"traefik\\\"\")] 401 Unauthorized\n";

    #[track_caller]
    fn check(authorization: &[&str], expected: &str) {
        let mut verdicts = Verdicts::new([0; 16]);
        let fields: Vec<(&str, &str)> = authorization
            .iter()
            .map(|value| ("Authorization", *value))
            .collect();
        let said = judge(&basic(true, ""), &mut verdicts, &fields);
        // Fields of an answer print as bytes.
        let bytes = format!("{:?}", b"Basic realm=\"traefik\"".to_vec());
        let said = said.replace(&bytes, "\"Basic realm=\\\"traefik\\\"\"");
        assert_eq!(said, expected, "{authorization:?}");
    }

    #[test]
    fn a_request_without_good_credentials_is_refused() {
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic  ",
            "Basic ===",
            "Basic cXVpY2s",
            "Basic cXVpY2s=",
            "Basicx cXVpY2s6aGVsbG8=",
            "BasiccXVpY2s6aGVsbG8=",
            "Bearer cXVpY2s6aGVsbG8=",
            "Basic cXVpY2s6aGVsbG8= x",
            "Basic\tcXVpY2s6aGVsbG8=",
            "Basic cXVpY2s6aGVsbG8=, Basic cXVpY2s6aGVsbG8=",
        ] {
            check(&[bad], REFUSED);
        }
        check(&[], REFUSED);
        check(&[&encoded("Basic", &"x".repeat(100_000))], REFUSED);
        let good = encoded("Basic", "quick:hello");
        check(&[&good], "pass");
        check(&[&good, &good], REFUSED);
        check(&[&encoded("bAsIc", "quick:hello")], "pass");
        check(&[&encoded("Basic", "quick:hellO")], REFUSED);
        check(&[&encoded("Basic", "Quick:hello")], "hash, false");
    }

    #[test]
    fn a_verdict_is_asked_for_once() {
        let basic = basic(false, "");
        let mut verdicts = Verdicts::new([0; 16]);
        let mut ask = |pair: &str| {
            let field = encoded("Basic", pair);
            let said = judge(&basic, &mut verdicts, &[("Authorization", &field)]);
            said.chars().take(11).collect::<String>()
        };
        assert_eq!(ask("slow:test"), "hash, true");
        assert_eq!(ask("slow:test"), "pass|Author");
        for wrong in ["slow:tesT", "nobody:test", ":test", "slow:"] {
            assert_eq!(ask(wrong), "hash, false");
            assert_eq!(ask(wrong), "401 [(\"WWW-");
        }
        assert_eq!(ask("slow:test"), "pass|Author");
    }

    #[test]
    fn the_name_takes_the_place_of_every_copy_a_client_sent() {
        let field = encoded("Basic", "quick:hello");
        let said = judge(
            &basic(true, "x-user"),
            &mut Verdicts::new([0; 16]),
            &[
                ("X-User", "admin"),
                ("Authorization", &field),
                ("X-USER", "root"),
                ("B", "2"),
            ],
        );
        assert_eq!(said, "pass|B: 2|x-user: quick");
    }
}
