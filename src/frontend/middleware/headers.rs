//! Fields set and removed on requests and answers, and what browsers are told for their safety. Spec frontends 3.
//!
//! Owns the checks of host and TLS, and the fields of an answer. Never touches framing or `Connection`: those are
//! written by whoever sends the message. Random numbers for `$NONCE` come from the caller.

use super::redirect::original_target;
use super::{Answer, Context, Verdict};
use crate::frontend::Scratch;
use crate::http::{FieldId, Head, syntax};

/// What `headers` of a frontend asks for.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    pub request: Box<[Change]>,
    pub answer: Box<[Change]>,
    pub security: Option<Box<Security>>,
}

/// A field set, in place of all its lines, or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    name: Box<[u8]>,
    value: Option<Box<[u8]>>,
}

/// What must be true of a request, and what browsers are told.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// Hosts, with their port, that may be asked for; empty is any.
    pub allowed_hosts: Box<[Box<[u8]>]>,
    /// Fields that name the host, from a trusted peer; the first that says something does, before `Host`.
    pub hosts_proxy_headers: Box<[Box<[u8]>]>,
    pub ssl_redirect: bool,
    /// 307 instead of 301.
    pub ssl_temporary_redirect: bool,
    /// Empty is none.
    pub ssl_host: Box<[u8]>,
    pub ssl_force_host: bool,
    /// Field and value that say, from a trusted peer, that the client speaks TLS.
    pub ssl_proxy_headers: Box<[Sign]>,
    /// `Strict-Transport-Security`; empty is none.
    pub sts: Box<[u8]>,
    /// Also without TLS.
    pub sts_always: bool,
    /// `Public-Key-Pins`, with TLS only; empty is none.
    pub public_key: Box<[u8]>,
    /// Fields of every answer.
    pub fixed: Box<[Change]>,
    /// `Content-Security-Policy` where it holds `$NONCE`: the texts around them. Empty is none.
    pub policy: Box<[Box<[u8]>]>,
    pub is_development: bool,
}

/// A field with exactly this value.
#[derive(Clone, Debug)]
pub struct Sign {
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}

impl Change {
    /// `None` if the name is no token or the value holds a control byte: such a field cannot be sent. An empty value
    /// removes the field.
    pub fn new(name: &str, value: &str) -> Option<Self> {
        (syntax::is_token(name.as_bytes()) && syntax::is_value(value.as_bytes())).then(|| Self {
            name: canonical(name),
            value: (!value.is_empty()).then(|| value.as_bytes().into()),
        })
    }

    fn apply(&self, head: &mut Head) {
        match &self.value {
            Some(value) => head.set_named(&self.name, value),
            None => head.remove_named(&self.name),
        }
    }
}

/// The spelling that the reference gives a name: a capital at the start and after each `-`.
fn canonical(name: &str) -> Box<[u8]> {
    let mut is_start = true;
    name.bytes()
        .map(|byte| {
            let spelled = if is_start {
                byte.to_ascii_uppercase()
            } else {
                byte.to_ascii_lowercase()
            };
            is_start = byte == b'-';
            spelled
        })
        .collect()
}

impl Headers {
    pub(super) fn on_request(
        &self,
        head: &mut Head,
        context: Context,
        scratch: &Scratch,
    ) -> Verdict {
        for change in &self.request {
            change.apply(head);
        }
        match &self.security {
            Some(security) => security.on_request(head, context, scratch),
            None => Verdict::Pass,
        }
    }

    pub(super) fn on_answer(
        &self,
        request: &Head,
        answer: &mut Head,
        context: Context,
        scratch: &mut Scratch,
        random: &mut dyn FnMut() -> [u8; 16],
    ) {
        if let Some(security) = &self.security {
            security.on_answer(request, answer, context, scratch, random);
        }
        for change in &self.answer {
            change.apply(answer);
        }
    }
}

impl Security {
    fn host<'a>(&'a self, head: &'a Head, context: Context) -> &'a [u8] {
        let believed: &[_] = if context.is_trusted {
            &self.hosts_proxy_headers
        } else {
            &[]
        };
        believed
            .iter()
            .filter_map(|name| first(head, name))
            .find(|value| !value.is_empty())
            .unwrap_or_else(|| head.authority())
    }

    fn is_ssl(&self, head: &Head, context: Context) -> bool {
        context.is_tls
            || context.is_trusted
                && self
                    .ssl_proxy_headers
                    .iter()
                    .any(|sign| first(head, &sign.name) == Some(&sign.value))
    }

    fn on_request(&self, head: &Head, context: Context, scratch: &Scratch) -> Verdict {
        let host = self.host(head, context);
        let is_allowed = self.allowed_hosts.is_empty()
            || self
                .allowed_hosts
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(host));
        if !is_allowed && !self.is_development {
            let mut answer = Answer::text(500, "Bad Host\n");
            answer
                .fields
                .push(("X-Content-Type-Options".into(), b"nosniff".to_vec()));
            return Verdict::Answer(answer);
        }
        let wanted = if self.ssl_host.is_empty() {
            host
        } else {
            &self.ssl_host
        };
        let wants_ssl = self.ssl_redirect && !self.is_development && !self.is_ssl(head, context);
        if !wants_ssl && (!self.ssl_force_host || wanted == host) {
            return Verdict::Pass;
        }
        if !syntax::is_authority(wanted) {
            return Verdict::Answer(Answer::text(400, "Bad Request"));
        }
        let status = if self.ssl_temporary_redirect {
            307
        } else {
            301
        };
        let location = [b"https://", wanted, original_target(head, scratch)].concat();
        Verdict::Answer(Answer::page_to(status, &location, head.method()))
    }

    fn on_answer(
        &self,
        request: &Head,
        answer: &mut Head,
        context: Context,
        scratch: &mut Scratch,
        random: &mut dyn FnMut() -> [u8; 16],
    ) {
        let is_ssl = self.is_ssl(request, context);
        if !self.is_development {
            if !self.sts.is_empty() && (is_ssl || self.sts_always) {
                answer.set_named(b"Strict-Transport-Security", &self.sts);
            }
            if !self.public_key.is_empty() && is_ssl {
                answer.set_named(b"Public-Key-Pins", &self.public_key);
            }
        }
        for change in &self.fixed {
            change.apply(answer);
        }
        if !self.policy.is_empty() {
            let mut nonce = [0; NONCE_BYTES];
            encode_nonce(random(), &mut nonce);
            let room = &mut scratch.value;
            room.clear();
            for (at, text) in self.policy.iter().enumerate() {
                if at > 0 {
                    room.extend_from_slice(&nonce);
                }
                room.extend_from_slice(text);
            }
            answer.set_named(b"Content-Security-Policy", room);
        }
        if is_ssl
            && !self.ssl_host.is_empty()
            && let Some(location) = answer.first(FieldId::Location)
            && let Some(rest) = location.strip_prefix(b"http://")
            && let Some(path) = rest.strip_prefix(&*self.ssl_host)
            && (path.is_empty() || path[0] == b'/')
        {
            let room = &mut scratch.value;
            room.clear();
            room.extend_from_slice(b"https://");
            room.extend_from_slice(rest);
            answer.set_known(FieldId::Location, room);
        }
    }
}

fn first<'a>(head: &'a Head, name: &'a [u8]) -> Option<&'a [u8]> {
    head.values_named(name).next()
}

/// `'nonce-`, 16 bytes in base64 without padding, `'`.
const NONCE_BYTES: usize = 7 + 22 + 1;

fn encode_nonce(random: [u8; 16], out: &mut [u8; NONCE_BYTES]) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out[..7].copy_from_slice(b"'nonce-");
    out[NONCE_BYTES - 1] = b'\'';
    let number = u128::from_be_bytes(random);
    for (at, digit) in out[7..NONCE_BYTES - 1].iter_mut().enumerate() {
        // 21 digits of six bits, then one of the two that are left, as the high bits of six.
        let value = match 128_usize.checked_sub(6 * (at + 1)) {
            Some(shift) => number >> shift,
            None => number << 4,
        };
        *digit = DIGITS[(value & 63) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(authority: &str, target: &str, fields: &[(&str, &str)]) -> Head {
        let mut head = Head::default();
        head.set_method(b"GET");
        if !authority.is_empty() {
            head.set_authority(authority.as_bytes());
        }
        head.set_target(target.as_bytes());
        for (name, value) in fields {
            head.push(name.as_bytes(), value.as_bytes());
        }
        head
    }

    fn lines(head: &Head) -> String {
        head.fields().fold(String::new(), |text, field| {
            let name = String::from_utf8_lossy(field.name);
            format!("{text}{name}: {}\n", String::from_utf8_lossy(field.value))
        })
    }

    fn changes(pairs: &[(&str, &str)]) -> Box<[Change]> {
        pairs
            .iter()
            .map(|(name, value)| Change::new(name, value).expect("a field"))
            .collect()
    }

    fn bytes(text: &str) -> Box<[u8]> {
        text.as_bytes().into()
    }

    #[test]
    fn fields_are_set_and_removed() {
        let headers = Headers {
            request: changes(&[("x-new", "1"), ("X-OLD", "2"), ("x-gone", "")]),
            answer: changes(&[("server", ""), ("X-Frame-Options", "ALLOW")]),
            security: None,
        };
        let old = [
            ("x-old", "a"),
            ("X-Old", "b"),
            ("X-Gone", "c"),
            ("x-gone", "d"),
            ("Accept", "e"),
        ];
        let mut head = request("h", "/", &old);
        let verdict = headers.on_request(&mut head, Context::of("1.1.1.1"), &Scratch::default());
        assert!(matches!(verdict, Verdict::Pass));
        assert_eq!(lines(&head), "x-old: 2\nAccept: e\nX-New: 1\n");
        let mut answer = request("", "/", &[("Server", "s"), ("X-Frame-Options", "DENY")]);
        headers.on_answer(
            &head,
            &mut answer,
            Context::of("1.1.1.1"),
            &mut Scratch::default(),
            &mut || [0; 16],
        );
        assert_eq!(lines(&answer), "X-Frame-Options: ALLOW\n");
    }

    #[test]
    fn what_cannot_be_sent_is_no_field() {
        assert_eq!(Change::new("", "x"), None);
        assert_eq!(Change::new("a b", "x"), None);
        assert_eq!(Change::new("a\r\nb", "x"), None);
        assert_eq!(Change::new("a", "x\r\ny: z"), None);
        assert!(Change::new("a", "\u{e9}\t;").is_some());
    }

    /// What the security options say of a request: `passes`, or status, place and body.
    #[track_caller]
    fn check(security: Security, context: Context, head: &Head, expected: &str) {
        let found = match security.on_request(head, context, &Scratch::default()) {
            Verdict::Pass => "passes".to_owned(),
            Verdict::Ask(_) => unreachable!("it says so itself"),
            Verdict::Answer(answer) => {
                let value = |name| {
                    let field = answer.fields.iter().find(|(found, _)| *found == name);
                    field.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
                };
                format!(
                    "{} {}{}",
                    answer.status,
                    value("Location").unwrap_or_default(),
                    value("X-Content-Type-Options").unwrap_or_default(),
                )
            }
        };
        assert_eq!(found, expected, "{security:?} {}", lines(head));
    }

    #[test]
    fn hosts() {
        let allowed = |is_development| Security {
            allowed_hosts: [bytes("a.test"), bytes("b.test:81")].into(),
            hosts_proxy_headers: [bytes("X-Host"), bytes("X-Forwarded-Host")].into(),
            is_development,
            ..Security::default()
        };
        let context = Context::of("1.1.1.1");
        for (authority, fields, expected) in [
            ("a.test", &[][..], "passes"),
            ("A.Test", &[], "passes"),
            ("a.test:80", &[], "500 nosniff"),
            ("b.test", &[], "500 nosniff"),
            ("b.test:81", &[], "passes"),
            ("c.test", &[], "500 nosniff"),
            ("c.test", &[("x-host", "a.test")], "passes"),
            (
                "c.test",
                &[("X-Host", ""), ("X-Forwarded-Host", "a.test")],
                "passes",
            ),
            (
                "a.test",
                &[("X-Host", "c.test"), ("X-Forwarded-Host", "a.test")],
                "500 nosniff",
            ),
        ] {
            let head = request(authority, "/", fields);
            check(allowed(false), context, &head, expected);
            check(allowed(true), context, &head, "passes");
        }
        let verdict = allowed(false).on_request(&Head::default(), context, &Scratch::default());
        let Verdict::Answer(answer) = verdict else {
            panic!("no host is not allowed")
        };
        assert_eq!(&*answer.body, b"Bad Host\n");
    }

    #[test]
    fn tls_redirects() {
        let plain = Context::of("1.1.1.1");
        let tls = Context {
            is_tls: true,
            ..plain
        };
        let stranger = Context {
            is_trusted: false,
            ..plain
        };
        let redirect = || Security {
            ssl_redirect: true,
            ssl_proxy_headers: [Sign {
                name: bytes("X-Forwarded-Proto"),
                value: bytes("https"),
            }]
            .into(),
            ..Security::default()
        };
        let head = || request("ssl.test:8080", "/a%2f?b=c", &[]);
        check(
            redirect(),
            plain,
            &head(),
            "301 https://ssl.test:8080/a%2f?b=c",
        );
        check(redirect(), tls, &head(), "passes");
        let said = request("ssl.test", "/", &[("x-forwarded-proto", "https")]);
        check(redirect(), plain, &said, "passes");
        check(redirect(), stranger, &said, "301 https://ssl.test/");
        let other = request(
            "ssl.test",
            "/",
            &[
                ("x-forwarded-proto", "http"),
                ("x-forwarded-proto", "https"),
            ],
        );
        check(redirect(), plain, &other, "301 https://ssl.test/");
        check(
            Security {
                is_development: true,
                ..redirect()
            },
            plain,
            &head(),
            "passes",
        );
        check(
            Security {
                ssl_temporary_redirect: true,
                ssl_host: bytes("to.test"),
                ..redirect()
            },
            plain,
            &head(),
            "307 https://to.test/a%2f?b=c",
        );
        let forged = request("ssl.test", "/", &[("X-Host", "a/../evil@b")]);
        check(
            Security {
                hosts_proxy_headers: [bytes("X-Host")].into(),
                ..redirect()
            },
            plain,
            &forged,
            "400 ",
        );
        let force = |is_development| Security {
            ssl_force_host: true,
            ssl_host: bytes("to.test"),
            is_development,
            ..Security::default()
        };
        for is_development in [false, true] {
            check(
                force(is_development),
                tls,
                &head(),
                "301 https://to.test/a%2f?b=c",
            );
            check(
                force(is_development),
                plain,
                &request("to.test", "/", &[]),
                "passes",
            );
        }
        check(
            Security {
                ssl_host: bytes(""),
                ..force(false)
            },
            plain,
            &head(),
            "passes",
        );
    }

    #[test]
    fn the_redirect_shows_the_path_that_was_asked_for() {
        let mut head = request("h", "/pp/a", &[]);
        let mut scratch = Scratch {
            original_target: Some(head.target),
            ..Scratch::default()
        };
        head.set_target(b"/a");
        let security = Security {
            ssl_redirect: true,
            ..Security::default()
        };
        let location =
            |scratch: &Scratch| match security.on_request(&head, Context::of("1.1.1.1"), scratch) {
                Verdict::Answer(answer) => {
                    String::from_utf8_lossy(&answer.fields[0].1).into_owned()
                }
                Verdict::Pass => "passes".to_owned(),
                Verdict::Ask(_) => unreachable!("it says so itself"),
            };
        assert_eq!(location(&scratch), "https://h/pp/a");
        scratch.original_target = None;
        assert_eq!(location(&scratch), "https://h/a");
    }

    #[track_caller]
    fn check_answer(security: &Security, is_tls: bool, fields: &[(&str, &str)], expected: &str) {
        let mut answer = request("", "/", fields);
        let context = Context {
            is_tls,
            ..Context::of("1.1.1.1")
        };
        let scratch = &mut Scratch::default();
        security.on_answer(&Head::default(), &mut answer, context, scratch, &mut || {
            *b"0123456789abcdef"
        });
        assert_eq!(lines(&answer), expected);
    }

    #[test]
    fn what_browsers_are_told() {
        let mut security = Security {
            sts: bytes("max-age=5"),
            public_key: bytes("pin"),
            fixed: changes(&[("X-Frame-Options", "DENY")]),
            policy: [bytes("script-src "), bytes(" 100% "), bytes("")].into(),
            ssl_host: bytes("s.test"),
            ..Security::default()
        };
        let always = "X-Frame-Options: DENY\nContent-Security-Policy: script-src \
                      'nonce-MDEyMzQ1Njc4OWFiY2RlZg' 100% 'nonce-MDEyMzQ1Njc4OWFiY2RlZg'\n";
        let sts = "Strict-Transport-Security: max-age=5\n";
        let pins = "Public-Key-Pins: pin\n";
        check_answer(&security, false, &[], always);
        check_answer(&security, true, &[], &format!("{sts}{pins}{always}"));
        check_answer(
            &security,
            false,
            &[("x-frame-options", "ALLOW"), ("X-Frame-Options", "B")],
            &always
                .replacen('X', "x", 1)
                .replacen("-Frame-Options", "-frame-options", 1),
        );
        security.sts_always = true;
        check_answer(&security, false, &[], &format!("{sts}{always}"));
        security.is_development = true;
        check_answer(&security, true, &[], always);
    }

    #[test]
    fn places_on_the_tls_host_become_https() {
        let security = Security {
            ssl_host: bytes("s.test"),
            ..Security::default()
        };
        for (location, is_tls, expected) in [
            ("http://s.test", true, "https://s.test"),
            ("http://s.test/a", true, "https://s.test/a"),
            ("http://s.test/a", false, "http://s.test/a"),
            ("http://s.test.evil/a", true, "http://s.test.evil/a"),
            ("http://s.test:80/", true, "http://s.test:80/"),
            ("/a", true, "/a"),
        ] {
            check_answer(
                &security,
                is_tls,
                &[("Location", location)],
                &format!("Location: {expected}\n"),
            );
        }
    }

    #[test]
    fn nonces_are_base64_without_padding() {
        let check = |random: [u8; 16], expected: &str| {
            let mut out = [0; NONCE_BYTES];
            encode_nonce(random, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), format!("'nonce-{expected}'"));
        };
        check([0; 16], "AAAAAAAAAAAAAAAAAAAAAA");
        check([0xff; 16], "/////////////////////w");
        check(*b"0123456789abcdef", "MDEyMzQ1Njc4OWFiY2RlZg");
    }
}
