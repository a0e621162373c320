//! The yes-or-no tests of a rule.
//!
//! Owns what each matcher compares, on the request as it came (spec rules 4). `trie.rs` answers hosts, path prefixes
//! and fields from its index where it can, and asks here for the rest.
//! Never changes the request, never decides between frontends.
//! Read next: `trie.rs`.

use regex::bytes::Regex;

use super::escape;
use crate::http::Head;

/// A matcher of a rule. Lists are alternatives; an empty list never matches.
#[derive(Clone, Debug)]
pub enum Matcher {
    /// Lower-case names.
    Host(Box<[Box<[u8]>]>),
    HostRegexp(Box<[HostPattern]>),
    /// The first alternative that fits, with or without its last slash, decides.
    Path(Box<[PathPattern]>),
    PathPrefix(Box<[PrefixPattern]>),
    Method(Box<[Box<[u8]>]>),
    /// One field line has exactly this value; `None` asks only that there is a line.
    Header {
        name: Box<[u8]>,
        value: Option<Box<[u8]>>,
    },
    HeaderRegexp {
        name: Box<[u8]>,
        regex: Regex,
    },
    /// The first pair of this key has such a value.
    Query {
        key: Box<[u8]>,
        value: ValuePattern,
    },
    /// A field that is never among those a rule can see.
    Never,
}

/// A host template, split where its last variable ends: many rules differ in the literal end only and share the rest.
#[derive(Clone, Debug)]
pub struct HostPattern {
    /// Lower-case text that every matching host ends with. May be empty.
    pub tail: Box<[u8]>,
    /// What stands before the tail, anchored on both sides, any case. `None`: nothing does.
    pub front: Option<Regex>,
}

/// What a whole path is compared with.
#[derive(Clone, Debug)]
pub struct PathPattern {
    /// What the path begins with; all of it but a slash, if there is no expression.
    pub prefix: Box<[u8]>,
    /// Anchored on both sides; allows one more slash unless `slash` is `Exact`.
    pub regex: Option<Regex>,
    pub slash: Slash,
}

/// What a last slash of the path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slash {
    /// Part of the path like any other (`keepTrailingSlash`).
    Exact,
    /// The rule ends with one that is not in the pattern; a path without it is redirected.
    Wanted,
    /// The rule ends without one; a path with it is redirected.
    Unwanted,
}

/// What the start of a path is compared with.
#[derive(Clone, Debug)]
pub struct PrefixPattern {
    pub prefix: Box<[u8]>,
    /// Anchored at the start.
    pub regex: Option<Regex>,
}

/// What a query value is compared with.
#[derive(Clone, Debug)]
pub enum ValuePattern {
    Any,
    Exactly(Box<[u8]>),
    /// Anchored on both sides.
    Regex(Regex),
}

/// What a matcher says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    No,
    Yes,
    /// Yes, by a path that is right as it stands.
    YesPath,
    /// Yes, if the path had one slash more or less at its end.
    Redirect,
}

impl Answer {
    fn from_bool(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// A request as matchers see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) head: &'a Head,
    /// What `Host` compares.
    pub(super) host: &'a [u8],
    /// What `HostRegexp` compares, lower case.
    pub(super) host_cut: &'a [u8],
    /// Decoded.
    pub(super) path: &'a [u8],
}

impl Matcher {
    /// `room` is for a decoded query value.
    pub(super) fn test(&self, request: Request<'_>, room: &mut Vec<u8>) -> Answer {
        match self {
            Self::Host(names) => Answer::from_bool(
                !request.host.is_empty() && names.iter().any(|name| **name == *request.host),
            ),
            Self::HostRegexp(patterns) => Answer::from_bool(
                patterns
                    .iter()
                    .any(|pattern| pattern.test(request.host_cut)),
            ),
            Self::Path(patterns) => patterns
                .iter()
                .map(|pattern| pattern.test(request.path))
                .find(|answer| *answer != Answer::No)
                .unwrap_or(Answer::No),
            Self::PathPrefix(patterns) => {
                Answer::from_bool(patterns.iter().any(|pattern| pattern.test(request.path)))
            }
            Self::Never => Answer::No,
            Self::Method(methods) => {
                let method = request.head.method();
                Answer::from_bool(methods.iter().any(|wanted| **wanted == *method))
            }
            Self::Header { name, value } => Answer::from_bool(
                request
                    .head
                    .values_named(name)
                    .any(|found| value.as_ref().is_none_or(|wanted| **wanted == *found)),
            ),
            Self::HeaderRegexp { name, regex } => Answer::from_bool(
                request
                    .head
                    .values_named(name)
                    .any(|found| regex.is_match(found)),
            ),
            Self::Query { key, value } => {
                let query = request.head.query().unwrap_or_default();
                Answer::from_bool(
                    first_value(query, key).is_some_and(|found| value.test(found, room)),
                )
            }
        }
    }

    /// Whether no request can pass.
    pub(super) fn is_never(&self) -> bool {
        match self {
            Self::Host(names) => names.iter().all(|name| name.is_empty()),
            Self::HostRegexp(patterns) => patterns.is_empty(),
            Self::Path(patterns) => patterns.is_empty(),
            Self::PathPrefix(patterns) => patterns.is_empty(),
            Self::Method(methods) => methods.is_empty(),
            Self::Never => true,
            Self::Header { .. } | Self::HeaderRegexp { .. } | Self::Query { .. } => false,
        }
    }
}

impl HostPattern {
    /// `host` is lower case.
    pub fn test(&self, host: &[u8]) -> bool {
        host.strip_suffix(&*self.tail)
            .is_some_and(|front| match &self.front {
                None => front.is_empty(),
                Some(regex) => regex.is_match(front),
            })
    }

    /// Text that a matching host is, or ends with from a dot on. Empty if there is none.
    pub(super) fn key(&self) -> &[u8] {
        match &self.front {
            None => &self.tail,
            Some(_) => memchr::memchr(b'.', &self.tail).map_or(&[], |dot| &self.tail[dot..]),
        }
    }
}

impl PathPattern {
    pub(super) fn test(&self, path: &[u8]) -> Answer {
        match &self.regex {
            None => path
                .strip_prefix(&*self.prefix)
                .map_or(Answer::No, |rest| self.slash.test_rest(rest)),
            Some(regex) if regex.is_match(path) => self.slash.test_end(path),
            Some(_) => Answer::No,
        }
    }
}

impl Slash {
    /// Says what `rest` after a literal path means.
    pub(super) fn test_rest(self, rest: &[u8]) -> Answer {
        match (self, rest) {
            (Self::Exact | Self::Unwanted, b"") | (Self::Wanted, b"/") => Answer::YesPath,
            (Self::Unwanted, b"/") | (Self::Wanted, b"") => Answer::Redirect,
            _ => Answer::No,
        }
    }

    /// Says what the end of a path means that fits the pattern.
    pub(super) fn test_end(self, path: &[u8]) -> Answer {
        let ends_with_slash = path.ends_with(b"/");
        match self {
            Self::Wanted if !ends_with_slash => Answer::Redirect,
            // The path of `/` cannot lose its slash: a client would come back with the same.
            Self::Unwanted if ends_with_slash && path != b"/" => Answer::Redirect,
            _ => Answer::YesPath,
        }
    }
}

impl PrefixPattern {
    pub(super) fn test(&self, path: &[u8]) -> bool {
        match &self.regex {
            None => path.starts_with(&self.prefix),
            Some(regex) => regex.is_match(path),
        }
    }
}

impl ValuePattern {
    /// `value` as it stands in the query; `room` is for its decoded form.
    fn test(&self, value: &[u8], room: &mut Vec<u8>) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(wanted) => escape::query_equals(value, wanted),
            Self::Regex(regex) => {
                if memchr::memchr2(b'%', b'+', value).is_none() {
                    return regex.is_match(value);
                }
                room.clear();
                escape::decode_query(value, room);
                regex.is_match(room)
            }
        }
    }
}

/// The value, not decoded, of the first pair with this key. Pairs with bad escapes do not count.
fn first_value<'a>(query: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty() && escape::is_valid(pair))
        .find_map(|pair| {
            let (found, value) = match memchr::memchr(b'=', pair) {
                Some(at) => (&pair[..at], &pair[at + 1..]),
                None => (pair, &[][..]),
            };
            escape::query_equals(found, key).then_some(value)
        })
}
