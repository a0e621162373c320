//! The rewrites of a rule: what the server is asked for instead of what the client asked for. Spec rules 5.
//!
//! Owns the fixed order (strip by expression, strip, add, replace by expression, replace) and what becomes of the
//! escaped form of a path on the way. Never takes part in choosing a frontend.
//! Read next: `escape.rs`.

use regex::bytes::Regex;

use super::middleware::redirect::Restoration;
use super::{Scratch, escape};
use crate::http::{FieldId, Head};

/// The modifiers of a frontend.
#[derive(Clone, Debug, Default)]
pub struct Modifiers(Option<Box<Steps>>);

/// One slot for each kind.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    /// Anchored at the start, in the order they are tried.
    pub strip_regex: Option<Box<[Regex]>>,
    /// In the order they are tried.
    pub strip: Option<Box<[Box<[u8]>]>>,
    pub add_prefix: Option<Box<[u8]>>,
    pub replace_regex: Option<(Regex, Box<[u8]>)>,
    pub replace: Option<Box<[u8]>>,
}

/// No strip entry is at the start of the path: answer 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound;

impl From<Steps> for Modifiers {
    fn from(steps: Steps) -> Self {
        let Steps {
            strip_regex: None,
            strip: None,
            add_prefix: None,
            replace_regex: None,
            replace: None,
        } = steps
        else {
            return Self(Some(Box::new(steps)));
        };
        Self(None)
    }
}

impl Modifiers {
    /// What a redirect does to show the path that was asked for.
    pub fn restoration(&self) -> Restoration {
        match self.0.as_deref() {
            None => Restoration::Untouched,
            Some(Steps {
                strip_regex: None,
                strip: None,
                add_prefix: Some(prefix),
                replace_regex: None,
                replace: None,
            }) => Restoration::Without(prefix.clone()),
            Some(_) => Restoration::Original,
        }
    }

    /// Rewrites the target of `head` and appends `X-Forwarded-Prefix` and `X-Replaced-Path`. Values that a client sent
    /// stay in front of ours; whether they are believed is the caller's business. The target as it was stays in the
    /// text of the head, at [`Scratch::original_target`].
    ///
    /// # Errors
    /// A strip list of which no entry fits: answer 404. The target is as it was.
    #[inline]
    pub fn apply(&self, head: &mut Head, scratch: &mut Scratch) -> Result<(), NotFound> {
        match &self.0 {
            None => Ok(()),
            Some(steps) => steps.apply(head, scratch),
        }
    }
}

impl Steps {
    fn apply(&self, head: &mut Head, scratch: &mut Scratch) -> Result<(), NotFound> {
        let original = head.target;
        let Scratch {
            path,
            raw,
            value: room,
            ..
        } = scratch;
        path.clear();
        escape::decode(head.path(), path);
        raw.clear();
        // An escaped form is kept only while it says more than the default encoding of the path would.
        let mut keeps_raw = !escape::is_default_encoding(head.path(), path);
        if keeps_raw {
            raw.extend_from_slice(head.path());
        }

        if let Some(expressions) = &self.strip_regex {
            let len = expressions
                .iter()
                .find_map(|regex| regex.find(path))
                .ok_or(NotFound)?
                .end();
            push_field(head, FieldId::XForwardedPrefix, &path[..len], room);
            if raw.starts_with(&path[..len]) {
                raw.drain(..len);
            }
            path.drain(..len);
        }
        if let Some(entries) = &self.strip {
            let entry = entries
                .iter()
                .find(|entry| path.starts_with(entry))
                .ok_or(NotFound)?;
            push_field(head, FieldId::XForwardedPrefix, entry, room);
            path.drain(..entry.len());
            begin_with_slash(path);
            if keeps_raw {
                if raw.starts_with(entry) {
                    raw.drain(..entry.len());
                }
                begin_with_slash(raw);
            }
        }
        if let Some(prefix) = &self.add_prefix {
            path.splice(..0, prefix.iter().copied());
            raw.splice(..0, prefix.iter().copied());
        }
        if let Some((regex, replacement)) = &self.replace_regex {
            // The one modifier that allocates: the regex crate keeps the groups of a match on the heap.
            let mut matches = regex.captures_iter(path).peekable();
            if matches.peek().is_some() {
                room.clear();
                let mut copied = 0;
                for groups in matches {
                    let whole = groups.get_match();
                    room.extend_from_slice(&path[copied..whole.start()]);
                    groups.expand(replacement, room);
                    copied = whole.end();
                }
                room.extend_from_slice(&path[copied..]);
                // From here on the escaped form is of no use, so its room serves.
                push_field(head, FieldId::XReplacedPath, path, raw);
                std::mem::swap(path, room);
                keeps_raw = false;
            }
        }
        if let Some(replacement) = &self.replace {
            push_field(head, FieldId::XReplacedPath, path, room);
            path.clear();
            path.extend_from_slice(replacement);
            keeps_raw = false;
        }

        room.clear();
        if keeps_raw && escape::is_encoding_of(raw, path) {
            room.extend_from_slice(raw);
        } else {
            escape::encode(path, room);
        }
        begin_with_slash(room);
        if let Some(query) = head.query() {
            room.push(b'?');
            room.extend_from_slice(query);
        }
        head.set_target(room);
        scratch.original_target = Some(original);
        Ok(())
    }
}

fn begin_with_slash(path: &mut Vec<u8>) {
    if path.first() != Some(&b'/') {
        path.insert(0, b'/');
    }
}

/// A decoded path may hold line ends; a field value must not.
fn push_field(head: &mut Head, id: FieldId, value: &[u8], room: &mut Vec<u8>) {
    room.clear();
    escape::encode_field_value(value, room);
    head.push_known(id, room);
}
