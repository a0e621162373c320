//! Who may pass: by a password here, by a proof of one, or by the word of another server. Spec frontends 5.
//!
//! Owns what the three have in common: how `Authorization` is read, the 401, and what a request that passes carries on.
//! Never does I/O and never waits: what a step must wait for is asked for by its caller.
//! Read next: `basic.rs`.

pub mod basic;
pub mod digest;
pub mod forward;
pub mod users;
pub mod verdicts;

use std::borrow::Cow;

use super::Answer;
use crate::http::{FieldId, Head};

/// How a request goes on once its user is known.
#[derive(Clone, Debug, Default)]
pub struct Passing {
    remove_header: bool,
    /// Receives the user's name; empty is none.
    header_field: Box<[u8]>,
}

impl Passing {
    /// `header_field` is a token or empty.
    pub fn new(remove_header: bool, header_field: &str) -> Self {
        Self {
            remove_header,
            header_field: header_field.as_bytes().into(),
        }
    }

    fn apply(&self, head: &mut Head, user: &[u8]) {
        if self.remove_header {
            head.remove(FieldId::Authorization);
        }
        if !self.header_field.is_empty() {
            vouch(head, &self.header_field, Some(user));
        }
    }
}

/// Gives a field the one value that we stand for, or none: whatever the client wrote under that name, in any case, is
/// gone.
pub(crate) fn vouch(head: &mut Head, name: &[u8], value: Option<&[u8]>) {
    head.remove_named(name);
    if let Some(value) = value {
        head.push(name, value);
    }
}

/// What stands behind the name of the scheme in the only `Authorization` field. RFC 9110 11.4.
fn credentials<'a>(head: &'a Head, scheme: &[u8]) -> Option<&'a [u8]> {
    let mut values = head.values(FieldId::Authorization);
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    let (found, rest) = value.split_at_checked(scheme.len())?;
    let rest = rest.strip_prefix(b" ")?;
    found.eq_ignore_ascii_case(scheme).then(|| {
        let blanks = rest.iter().take_while(|byte| **byte == b' ').count();
        &rest[blanks..]
    })
}

/// 401 with a challenge.
fn unauthorized(challenge: Vec<u8>) -> Box<Answer> {
    Box::new(Answer {
        status: 401,
        content_type: "text/plain",
        body: Cow::Borrowed(b"401 Unauthorized\n"),
        fields: vec![("WWW-Authenticate".into(), challenge)],
    })
}
