//! Authentication by the word of another server: it is shown each request, and what it answers decides.
//! Spec frontends 5.3.
//!
//! Owns what that server is told, what of its answer a request takes along, and what of it a client sees.
//! Never sends anything: see `proxy/auth_server.rs`. What the server is to vouch for is taken off a request first, so a
//! client's own copy never gets through.

use super::vouch;
use crate::frontend::middleware::Context;
use crate::http::field::FieldSet;
use crate::http::h1::encode;
use crate::http::{FieldId, Head};

/// Index of an authentication server in a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthServerId(pub u32);

/// What is asked of whom.
#[derive(Clone, Debug)]
pub struct Forward {
    pub server: AuthServerId,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and port, as they were written.
    pub authority: Box<[u8]>,
    /// Path and query to ask for.
    pub target: Box<[u8]>,
    /// What a client says of itself in `X-Forwarded-*` is passed on.
    pub trust_forward_header: bool,
    /// Fields of its answer that a request takes along.
    pub answer_fields: Box<[Box<[u8]>]>,
    /// A field that other kinds of authentication write, and this one does not; empty is none.
    pub header_field: Box<[u8]>,
}

/// What is never copied to the server: this connection's own, what belongs to a body, and what is said anew.
const SAID_ANEW: FieldSet = FieldSet::HOP_BY_HOP
    .union(FieldSet::WRITTEN_BY_CALLER)
    .union(FieldSet::of(&[
        FieldId::Expect,
        FieldId::XForwardedFor,
        FieldId::XForwardedMethod,
        FieldId::XForwardedProto,
        FieldId::XForwardedHost,
        FieldId::XForwardedUri,
    ]));

/// What a client says of itself beside that, which only counts where it is trusted.
const SAID_OF_A_CLIENT: FieldSet = FieldSet::of(&[
    FieldId::XForwardedPort,
    FieldId::XForwardedServer,
    FieldId::XRealIp,
]);

/// What of a refusal is not for the client: its connection is another one, and so is its framing.
const NOT_FOR_THE_CLIENT: FieldSet = FieldSet::HOP_BY_HOP
    .union(FieldSet::WRITTEN_BY_CALLER)
    .union(FieldSet::of(&[FieldId::Date]));

impl Forward {
    /// The field of this name can be taken along: it speaks of the request, and not of one connection or its framing.
    pub fn can_take(name: &str) -> bool {
        const NEVER: FieldSet = FieldSet::HOP_BY_HOP.union(FieldSet::WRITTEN_BY_CALLER);
        !NEVER.contains(FieldId::of(name.as_bytes()))
    }

    /// Appends the head of what the server is asked. `peer` is the client's address as text.
    pub fn question(&self, head: &Head, context: Context, peer: &str, out: &mut Vec<u8>) {
        encode::request_line(out, b"GET", &self.target);
        encode::field(out, b"Host", &self.authority);
        let trust = self.trust_forward_header;
        let skipped = if trust {
            SAID_ANEW
        } else {
            SAID_ANEW.union(SAID_OF_A_CLIENT)
        };
        encode::fields(out, head, skipped);
        let said = |id| {
            let value = head.first(id).filter(|_| trust);
            value.filter(|value| !value.is_empty())
        };
        out.extend_from_slice(b"X-Forwarded-For: ");
        for value in head.values(FieldId::XForwardedFor).filter(|_| trust) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(peer.as_bytes());
        out.extend_from_slice(b"\r\n");
        let proto: &[u8] = if context.is_tls { b"https" } else { b"http" };
        for (id, ours) in [
            (FieldId::XForwardedMethod, head.method()),
            (FieldId::XForwardedProto, proto),
            (FieldId::XForwardedHost, head.authority()),
            (FieldId::XForwardedUri, head.target()),
        ] {
            let value = said(id).unwrap_or(ours);
            if !value.is_empty() {
                encode::field(out, id.name().as_bytes(), value);
            }
        }
        encode::end(out);
    }

    /// The server lets the request pass: it takes along what the server says of it.
    pub fn accept(&self, head: &mut Head, answer: &Head) {
        if !self.header_field.is_empty() {
            vouch(head, &self.header_field, None);
        }
        for name in &self.answer_fields {
            vouch(head, name, None);
            for value in answer.values_named(name) {
                head.push(name, value);
            }
        }
    }

    /// Fields of a refusal as the client gets them.
    pub fn refusal<'a>(&'a self, answer: &'a Head) -> impl Iterator<Item = (&'a [u8], Vec<u8>)> {
        let fields = answer.fields();
        fields
            .filter(|field| !NOT_FOR_THE_CLIENT.contains(field.id))
            .map(|field| {
                let value = match field.id {
                    FieldId::Location => self.absolute(field.value),
                    _ => field.value.to_vec(),
                };
                (field.name, value)
            })
    }

    /// A place as the client can follow it: what is relative is relative to the address of the server. RFC 3986 5.2.
    fn absolute(&self, reference: &[u8]) -> Vec<u8> {
        let own_path = self.target.split(|byte| *byte == b'?').next();
        let own_path = own_path.unwrap_or_default();
        let origin = [self.scheme.as_bytes(), b"://", &self.authority];
        match reference {
            [] => Vec::new(),
            _ if has_scheme(reference) => reference.to_vec(),
            [b'/', b'/', ..] => [self.scheme.as_bytes(), b":", reference].concat(),
            [b'/', ..] => [&origin.concat(), &*without_dots(reference)].concat(),
            [b'?', ..] => [&origin.concat(), own_path, reference].concat(),
            [b'#', ..] => [&origin.concat(), &*self.target, reference].concat(),
            _ => {
                let slash = memchr::memrchr(b'/', own_path).map_or(0, |at| at + 1);
                let path = [&own_path[..slash], reference].concat();
                [&origin.concat(), &*without_dots(&path)].concat()
            }
        }
    }
}

/// RFC 3986 3.1.
fn has_scheme(reference: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', reference) else {
        return false;
    };
    let scheme = &reference[..colon];
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Goes the ways up and down of a path, which begins with a slash; what follows it stays. RFC 3986 5.2.4.
fn without_dots(path: &[u8]) -> Vec<u8> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let (path, rest) = path.split_at(end.unwrap_or(path.len()));
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => {
                kept.push(segment);
                continue;
            }
        }
        if is_last {
            kept.push(b"");
        }
    }
    let mut made = Vec::with_capacity(path.len() + rest.len());
    for segment in kept {
        made.push(b'/');
        made.extend_from_slice(segment);
    }
    made.extend_from_slice(rest);
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::example::Request;

    fn forward(trust_forward_header: bool) -> Forward {
        Forward {
            server: AuthServerId(0),
            scheme: "http",
            authority: b"auth.test:81".as_slice().into(),
            target: b"/a/check?x".as_slice().into(),
            trust_forward_header,
            answer_fields: Box::new([b"X-User".as_slice().into(), b"x-group".as_slice().into()]),
            header_field: b"X-Name".as_slice().into(),
        }
    }

    #[track_caller]
    fn check_question(request: &str, trust: bool, expected: &[&str]) {
        let head = Request::parse(request).head();
        let mut out = Vec::new();
        forward(trust).question(&head, Context::of("9.9.9.9"), "9.9.9.9", &mut out);
        let text = String::from_utf8(out).expect("text");
        let text = text.strip_suffix("\r\n\r\n").expect("the end");
        let lines: Vec<&str> = text.split("\r\n").collect();
        assert_eq!(
            lines[..2],
            ["GET /a/check?x HTTP/1.1", "Host: auth.test:81"]
        );
        assert_eq!(lines[2..], *expected, "{request}");
    }

    #[test]
    fn the_server_is_told_of_the_request() {
        let ours = [
            "X-Forwarded-For: 9.9.9.9",
            "X-Forwarded-Method: POST",
            "X-Forwarded-Proto: http",
            "X-Forwarded-Host: h:8080",
            "X-Forwarded-Uri: /p?q",
        ];
        let check = |fields: &str, trust, before: &[&str], ours: &[&str]| {
            let expected: Vec<&str> = before.iter().chain(ours).copied().collect();
            check_question(&format!("POST h:8080/p?q{fields}"), trust, &expected);
        };
        check("", false, &[], &ours);
        check("", true, &[], &ours);
        check(
            "|Authorization: a|Cookie: b|Content-Length: 5|Connection: close|Te: trailers|Upgrade: z|Expect: 100-continue",
            false,
            &["Authorization: a", "Cookie: b"],
            &ours,
        );
        let forged = "|X-Forwarded-For: 1.1.1.1|X-Forwarded-Method: GET|X-Forwarded-Proto: https|X-Forwarded-Host: x|\
                      X-Forwarded-Uri: /u|X-Forwarded-Port: 1|X-Real-Ip: 2|X-Forwarded-Server: 3|X-Forwarded-Prefix: /4";
        check(forged, false, &["X-Forwarded-Prefix: /4"], &ours);
        check(
            forged,
            true,
            &[
                "X-Forwarded-Port: 1",
                "X-Real-Ip: 2",
                "X-Forwarded-Server: 3",
                "X-Forwarded-Prefix: /4",
            ],
            &[
                "X-Forwarded-For: 1.1.1.1, 9.9.9.9",
                "X-Forwarded-Method: GET",
                "X-Forwarded-Proto: https",
                "X-Forwarded-Host: x",
                "X-Forwarded-Uri: /u",
            ],
        );
    }

    #[test]
    fn a_request_takes_along_what_the_server_says_and_nothing_else_of_that_name() {
        let mut head =
            Request::parse("h/|X-USER: admin|X-Group: a|x-group: b|X-Name: root|X-Other: kept")
                .head();
        let mut answer = Head::default();
        for (name, value) in [("x-user", "one"), ("X-User", "two"), ("Server", "s")] {
            answer.push(name.as_bytes(), value.as_bytes());
        }
        forward(false).accept(&mut head, &answer);
        let fields: Vec<String> = head
            .fields()
            .filter(|field| field.id != FieldId::Host)
            .map(|field| {
                let [name, value] = [field.name, field.value].map(String::from_utf8_lossy);
                format!("{name}: {value}")
            })
            .collect();
        assert_eq!(fields, ["X-Other: kept", "X-User: one", "X-User: two"]);
    }

    #[test]
    fn a_refusal_is_passed_on_without_what_belongs_to_its_connection() {
        let mut answer = Head::default();
        for (name, value) in [
            ("Connection", "close, X-Kept"),
            ("X-Kept", "1"),
            ("Content-Length", "5"),
            ("Date", "today"),
            ("Set-Cookie", "a"),
            ("Set-Cookie", "b"),
            ("Location", "/login"),
        ] {
            answer.push(name.as_bytes(), value.as_bytes());
        }
        let forward = forward(false);
        let fields: Vec<String> = forward
            .refusal(&answer)
            .map(|(name, value)| {
                let [name, value] = [name, &value].map(String::from_utf8_lossy);
                format!("{name}: {value}")
            })
            .collect();
        assert_eq!(
            fields,
            [
                "X-Kept: 1",
                "Set-Cookie: a",
                "Set-Cookie: b",
                "Location: http://auth.test:81/login"
            ]
        );
    }

    #[test]
    fn places_become_absolute() {
        let check = |reference: &str, expected: &str| {
            let made = forward(false).absolute(reference.as_bytes());
            assert_eq!(String::from_utf8_lossy(&made), expected, "{reference}");
        };
        check("", "");
        check("https://other.test/x", "https://other.test/x");
        check("mailto:a", "mailto:a");
        check("//other.test/x", "http://other.test/x");
        check("/login", "http://auth.test:81/login");
        check(
            "/x/../login/./a/..?u=/../",
            "http://auth.test:81/login/?u=/../",
        );
        check("../../login#f", "http://auth.test:81/login#f");
        check("login:1", "login:1");
        check("./login", "http://auth.test:81/a/login");
        check("?again", "http://auth.test:81/a/check?again");
        check("#f", "http://auth.test:81/a/check?x#f");
        check("/..", "http://auth.test:81/");
    }
}
