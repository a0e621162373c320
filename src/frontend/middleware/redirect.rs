//! Clients sent elsewhere: to another entry point, or where a regular expression says. Spec frontends 7.
//!
//! Owns the `Location` and its status. What a client sent is plain text in it: only the configured replacement has
//! fields to fill in. The path is the one that the client asked for, whatever the modifiers made of it.
//! Never allocates for a request that goes on.

use regex::bytes::Regex;

use super::{Answer, Context, Verdict};
use crate::frontend::{Scratch, escape};
use crate::http::{FieldId, Head, syntax};

/// Where clients are sent.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub target: Target,
    /// 301 or 308 instead of 302 or 307.
    pub is_permanent: bool,
    pub restoration: Restoration,
}

#[derive(Clone, Debug)]
pub enum Target {
    /// The same URL on another entry point.
    EntryPoint {
        /// Its index, if it is open in this process: requests that came in there pass.
        index: Option<u16>,
        is_tls: bool,
        port: u16,
    },
    /// Every match of `regex` in the URL is replaced by the pieces in a row.
    Expression {
        regex: Regex,
        replacement: Box<[Piece]>,
    },
}

/// A part of a replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text in which `$1`, `${1}` and `${name}` stand for groups of the match.
    Text(Box<[u8]>),
    Host,
    Method,
    Path,
    Query,
    /// Path and query.
    Uri,
    /// The first value of the field of this name.
    Field(Box<[u8]>),
}

/// How the path of the URL becomes again what the client asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Restoration {
    /// No modifier has changed it.
    #[default]
    Untouched,
    /// It was stripped or replaced: the path as sent.
    Original,
    /// It was lengthened: without the first occurrence of what was added.
    Without(Box<[u8]>),
}

impl Redirect {
    pub(super) fn on_request(
        &self,
        head: &Head,
        context: Context,
        scratch: &mut Scratch,
    ) -> Verdict {
        let scheme: &[u8] =
            if context.is_tls || head.first(FieldId::XForwardedProto) == Some(b"https") {
                b"https"
            } else {
                b"http"
            };
        let location = match &self.target {
            Target::EntryPoint { index, .. } if *index == Some(context.entry_point) => {
                return Verdict::Pass;
            }
            Target::EntryPoint { is_tls, port, .. } => {
                let target = original_target(head, scratch);
                on_entry_point(head.authority(), target, scheme, *is_tls, *port)
            }
            Target::Expression { regex, replacement } => {
                let url = &mut scratch.value;
                url.clear();
                for part in [scheme, b"://", head.authority(), head.target()] {
                    url.extend_from_slice(part);
                }
                if !regex.is_match(url) {
                    return Verdict::Pass;
                }
                let mut found = replace(regex, replacement, url, head);
                if found == *url {
                    return Verdict::Pass;
                }
                if head.authority().is_empty() {
                    Err(NoAuthority)
                } else {
                    self.restoration
                        .apply(&mut found, original_target(head, scratch));
                    Ok(Some(found))
                }
            }
        };
        match location {
            Ok(None) => Verdict::Pass,
            Ok(Some(url)) => Verdict::Answer(self.answer(head, &url)),
            Err(NoAuthority) => Verdict::Answer(Answer::text(400, "Bad Request")),
        }
    }

    fn answer(&self, head: &Head, url: &[u8]) -> Box<Answer> {
        let (status, text) = match (head.method() == b"GET", self.is_permanent) {
            (true, false) => (302, "Found"),
            (true, true) => (301, "Moved Permanently"),
            (false, false) => (307, "Temporary Redirect"),
            (false, true) => (308, "Permanent Redirect"),
        };
        Answer::text(status, text).with_location(url)
    }
}

/// The target as the client sent it.
pub(super) fn original_target<'a>(head: &'a Head, scratch: &Scratch) -> &'a [u8] {
    scratch
        .original_target
        .map_or_else(|| head.target(), |span| head.text(span))
}

/// The request names no host, or none that could stand in a URL.
struct NoAuthority;

/// `None` if the client is there already.
fn on_entry_point(
    authority: &[u8],
    target: &[u8],
    scheme: &[u8],
    is_tls: bool,
    port: u16,
) -> Result<Option<Vec<u8>>, NoAuthority> {
    if !syntax::is_authority(authority) {
        return Err(NoAuthority);
    }
    let host = match memchr::memchr(b']', authority) {
        Some(end) => &authority[..=end],
        None => authority
            .split(|&byte| byte == b':')
            .next()
            .unwrap_or(authority),
    };
    let their_scheme: &[u8] = if is_tls { b"https" } else { b"http" };
    let has_port = authority
        .strip_prefix(host)
        .and_then(|rest| std::str::from_utf8(rest.strip_prefix(b":")?).ok())
        .and_then(|port| port.parse::<u16>().ok());
    if scheme == their_scheme && has_port == Some(port) {
        return Ok(None);
    }
    let port = port.to_string();
    Ok(Some(
        [their_scheme, b"://", host, b":", port.as_bytes(), target].concat(),
    ))
}

fn replace(regex: &Regex, replacement: &[Piece], url: &[u8], head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * url.len());
    let mut copied = 0;
    for groups in regex.captures_iter(url) {
        let whole = groups.get_match();
        out.extend_from_slice(&url[copied..whole.start()]);
        copied = whole.end();
        for piece in replacement {
            let said = match piece {
                Piece::Text(text) => {
                    groups.expand(text, &mut out);
                    continue;
                }
                Piece::Host => head.authority(),
                Piece::Method => head.method(),
                Piece::Path => head.path(),
                Piece::Query => head.query().unwrap_or_default(),
                Piece::Uri => head.target(),
                Piece::Field(name) => head.values_named(name).next().unwrap_or_default(),
            };
            out.extend_from_slice(said);
        }
    }
    out.extend_from_slice(&url[copied..]);
    out
}

impl Restoration {
    fn apply(&self, url: &mut Vec<u8>, original: &[u8]) {
        let is_path = |bytes: &[u8]| bytes.iter().any(|byte| b"/?#".contains(byte));
        let start = match memchr::memmem::find(url, b"://") {
            Some(at) if !is_path(&url[..at]) => {
                let authority = at + b"://".len();
                let len = url[authority..]
                    .iter()
                    .position(|byte| b"/?#".contains(byte))
                    .unwrap_or(url.len() - authority);
                authority + len
            }
            _ => 0,
        };
        let end = url[start..]
            .iter()
            .position(|byte| b"?#".contains(byte))
            .map_or(url.len(), |at| start + at);
        match self {
            Self::Untouched => {}
            Self::Original => {
                let path = original.split(|&byte| byte == b'?').next();
                url.splice(start..end, path.unwrap_or(original).iter().copied());
            }
            Self::Without(prefix) => {
                if let Some(at) = memchr::memmem::find(&url[start..end], prefix) {
                    url.drain(start + at..start + at + prefix.len());
                }
            }
        }
    }
}

impl Answer {
    /// With a `Location`, in which what a URL may not contain is escaped.
    pub(super) fn with_location(mut self: Box<Self>, url: &[u8]) -> Box<Self> {
        let mut location = Vec::with_capacity(url.len());
        escape::encode_location(url, &mut location);
        self.fields.push(("Location".into(), location));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `METHOD authority target`, then what happens: a status with the place, `400`, or `passes`.
    #[track_caller]
    fn check_from(
        redirect: &Redirect,
        proto: &str,
        entry_point: u16,
        request: &str,
        expected: &str,
    ) {
        let [method, authority, target] = request
            .splitn(3, ' ')
            .collect::<Vec<_>>()
            .try_into()
            .expect("three parts");
        let mut head = Head::default();
        head.set_method(method.as_bytes());
        if !authority.is_empty() {
            head.set_authority(authority.as_bytes());
        }
        head.set_target(target.as_bytes());
        head.push(b"X-Name", b"{{.Request.Host}} $1");
        if !proto.is_empty() {
            head.push_known(FieldId::XForwardedProto, proto.as_bytes());
        }
        let context = Context {
            entry_point,
            ..Context::of("1.2.3.4")
        };
        let found = match redirect.on_request(&head, context, &mut Scratch::default()) {
            Verdict::Pass => "passes".to_owned(),
            Verdict::Ask(_) => unreachable!("it says so itself"),
            Verdict::Answer(answer) => {
                let location = answer.fields.first().map(|(_, value)| &**value);
                let location = String::from_utf8_lossy(location.unwrap_or_default()).into_owned();
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                let phrase = crate::http::h1::encode::reason(answer.status);
                assert_eq!(Some(&*body), phrase, "the body is the status text");
                format!("{} {location}", answer.status)
            }
        };
        assert_eq!(found.trim(), expected, "{request}");
    }

    fn to_entry_point(is_tls: bool, port: u16, is_permanent: bool) -> Redirect {
        Redirect {
            target: Target::EntryPoint {
                index: Some(7),
                is_tls,
                port,
            },
            is_permanent,
            restoration: Restoration::Untouched,
        }
    }

    fn by_expression(regex: &str, replacement: &[Piece]) -> Redirect {
        Redirect {
            target: Target::Expression {
                regex: Regex::new(regex).expect("an expression"),
                replacement: replacement.into(),
            },
            is_permanent: false,
            restoration: Restoration::Untouched,
        }
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.as_bytes().into())
    }

    #[test]
    fn statuses_depend_on_the_method() {
        for (method, temporary, permanent) in [
            ("GET", 302, 301),
            ("HEAD", 307, 308),
            ("POST", 307, 308),
            ("FOO", 307, 308),
        ] {
            let request = format!("{method} h.test /a");
            for (is_permanent, status) in [(false, temporary), (true, permanent)] {
                check_from(
                    &to_entry_point(true, 443, is_permanent),
                    "",
                    0,
                    &request,
                    &format!("{status} https://h.test:443/a"),
                );
            }
        }
    }

    #[test]
    fn to_an_entry_point() {
        let check = |request: &str, expected: &str| {
            check_from(&to_entry_point(true, 8443, false), "", 0, request, expected);
        };
        check("GET h.test /a?b=c", "302 https://h.test:8443/a?b=c");
        check("GET h.test:8080 /", "302 https://h.test:8443/");
        check("GET h.test: /", "302 https://h.test:8443/");
        check("GET [::1] /", "302 https://[::1]:8443/");
        check("GET [::1]:80 /", "302 https://[::1]:8443/");
        check("GET h~x.test /", "302 https://h~x.test:8443/");
        check(
            "GET h /%41%2f{{.Bad}}",
            "302 https://h:8443/%41%2f%7B%7B.Bad%7D%7D",
        );
        check("GET  /", "400");
        check_from(
            &to_entry_point(true, 8443, false),
            "",
            7,
            "GET h /",
            "passes",
        );
        let to_clear = to_entry_point(false, 80, false);
        check_from(&to_clear, "", 0, "GET h /a", "302 http://h:80/a");
        check_from(&to_clear, "", 0, "GET h:80 /a", "passes");
        check_from(&to_clear, "https", 0, "GET h:80 /a", "302 http://h:80/a");
        let to_tls = to_entry_point(true, 443, false);
        check_from(&to_tls, "https", 0, "GET h:443 /a", "passes");
        check_from(&to_tls, "https", 0, "GET h /a", "302 https://h:443/a");
    }

    #[test]
    fn by_a_regular_expression() {
        let check = |regex: &str, replacement: &[Piece], request: &str, expected: &str| {
            check_from(&by_expression(regex, replacement), "", 0, request, expected);
        };
        check(
            "^http://(.*)$",
            &[text("https://$1")],
            "GET h /a?b",
            "302 https://h/a?b",
        );
        check(
            "^http://(?P<all>.*)$",
            &[text("https://${all}")],
            "GET h /",
            "302 https://h/",
        );
        check("^https://", &[text("x")], "GET h /", "passes");
        check("a", &[text("b")], "GET h /aXa", "302 http://h/bXb");
        check("a", &[text("a")], "GET h /a", "passes");
        check("/(x)$", &[text("/$1y")], "GET h /x", "302 http://h/");
        check("/(x)$", &[text("/${1}y")], "GET h /x", "302 http://h/xy");
        check(
            "^http://h/(.*)$",
            &[text("/new/$1")],
            "GET h /a",
            "302 /new/a",
        );
        check("/a$", &[text("/$1")], "GET  /a", "400");
        check_from(
            &by_expression("^https://", &[text("http://")]),
            "https",
            0,
            "GET h /a",
            "302 http://h/a",
        );
    }

    #[test]
    fn fields_of_the_request_are_plain_text() {
        let check = |replacement: &[Piece], request: &str, expected: &str| {
            let redirect = by_expression("^http://[^/]*/a/(.*)$", replacement);
            check_from(&redirect, "", 0, request, expected);
        };
        let to_host = [text("https://"), Piece::Host, text("/b/$1")];
        check(&to_host, "GET h.test:81 /a/x", "302 https://h.test:81/b/x");
        check(
            &to_host,
            "GET h /a/{{.Request.Host}}$1",
            "302 https://h/b/%7B%7B.Request.Host%7D%7D$1",
        );
        check(
            &[
                text("/"),
                Piece::Method,
                Piece::Uri,
                text("!"),
                Piece::Path,
                text("!"),
                Piece::Query,
            ],
            "POST h /a/x?y=$1",
            "307 /POST/a/x?y=$1!/a/x!y=$1",
        );
        check(
            &[
                text("/"),
                Piece::Field(b"x-name".as_slice().into()),
                Piece::Field(b"None".as_slice().into()),
            ],
            "GET h /a/",
            "302 /%7B%7B.Request.Host%7D%7D%20$1",
        );
    }

    #[test]
    fn the_path_is_the_one_that_was_asked_for() {
        let check = |restoration: Restoration, url: &str, original: &str, expected: &str| {
            let mut url = url.as_bytes().to_vec();
            restoration.apply(&mut url, original.as_bytes());
            assert_eq!(String::from_utf8_lossy(&url), expected);
        };
        let without = |prefix: &str| Restoration::Without(prefix.as_bytes().into());
        check(
            Restoration::Untouched,
            "https://h/a?b",
            "/x/a?b",
            "https://h/a?b",
        );
        check(
            Restoration::Original,
            "https://h/a?b",
            "/x/a?b",
            "https://h/x/a?b",
        );
        check(
            Restoration::Original,
            "https://h?b",
            "/x?b",
            "https://h/x?b",
        );
        check(Restoration::Original, "/a?b=://", "/x", "/x?b=://");
        check(without("/x"), "https://h/x/a?/x", "/a", "https://h/a?/x");
        check(without("/x"), "https://h/y/x/x", "/a", "https://h/y/x");
        check(without("/x"), "https://h/y?/x", "/a", "https://h/y?/x");
    }
}
