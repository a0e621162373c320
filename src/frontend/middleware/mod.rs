//! What a frontend or an entry point does to a request on its way, beside choosing and rewriting: the closed set of steps.
//!
//! Owns the order in which a list of steps is walked and what a step may say ([`Verdict`]). The values are made by
//! `compile`, once; a list without steps costs a look at its length.
//! Never does I/O, never reads a clock: what a step must know comes in as [`Context`].
//! Read next: `white_list.rs`.

pub mod auth;
pub mod client_certificate;
pub mod compress;
pub mod headers;
pub mod rate_limit;
pub mod redirect;
pub mod white_list;

use std::borrow::Cow;
use std::net::IpAddr;

use self::auth::basic::Basic;
use self::auth::digest::Digest;
use self::auth::forward::Forward;
use self::client_certificate::ClientCertificate;
use self::headers::Headers;
use self::redirect::Redirect;
use self::white_list::WhiteList;
use super::Scratch;
use crate::http::Head;
use crate::http::h1::encode;

/// One step. The order of a list is that of spec frontends 2.1 and 2.2.
#[derive(Clone, Debug)]
pub enum Middleware {
    WhiteList(WhiteList),
    Redirect(Box<Redirect>),
    Headers(Box<Headers>),
    /// Asked by whoever has the memory of verdicts: see [`Verdict::Ask`].
    Basic(Box<Basic>),
    Digest(Box<Digest>),
    /// Asked by whoever has the connections to servers.
    Forward(Box<Forward>),
    /// Asked by whoever has the connection.
    ClientCertificate(Box<ClientCertificate>),
}

/// What a step may know of a request beside its head.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Index of the entry point that the request came in on.
    pub entry_point: u16,
    /// Address of the client's side of the connection, IPv4 also where it came through an IPv6 socket.
    pub peer: IpAddr,
    /// What it says of its own client is believed.
    pub is_trusted: bool,
    /// The client speaks TLS to us.
    pub is_tls: bool,
}

/// What a step says of a request.
#[derive(Debug)]
pub enum Verdict {
    Pass,
    /// Send this; the request goes no further.
    Answer(Box<Answer>),
    /// The step at this index of the list cannot say by itself. Whoever can must be asked, and if it lets the request pass,
    /// the steps behind it are next.
    Ask(usize),
}

/// An answer made by a step.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Empty is none.
    pub content_type: &'static str,
    pub body: Cow<'static, [u8]>,
    /// Further fields; the values hold nothing that could end a line.
    pub fields: Vec<(Cow<'static, str>, Vec<u8>)>,
}

impl Answer {
    /// An answer with a plain text.
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Box<Self> {
        let body = match body.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        Box::new(Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body,
            fields: Vec::new(),
        })
    }

    /// A redirect with the little page that browsers of old want.
    pub fn page_to(status: u16, location: &[u8], method: &[u8]) -> Box<Self> {
        let mut answer = Self::text(status, "").with_location(location);
        let has_page = matches!(method, b"GET" | b"HEAD");
        answer.content_type = if has_page {
            "text/html; charset=utf-8"
        } else {
            ""
        };
        if method == b"GET" {
            let (_, location) = &answer.fields[0];
            let mut body = Vec::with_capacity(location.len() + 64);
            body.extend_from_slice(b"<a href=\"");
            for byte in location {
                match byte {
                    b'&' => body.extend_from_slice(b"&amp;"),
                    b'\'' => body.extend_from_slice(b"&#39;"),
                    // The others that could end the attribute are escaped in the location already.
                    _ => body.push(*byte),
                }
            }
            let phrase = encode::reason(status).unwrap_or_default();
            body.extend_from_slice(b"\">");
            body.extend_from_slice(phrase.as_bytes());
            body.extend_from_slice(b"</a>.\n\n");
            answer.body = Cow::Owned(body);
        }
        answer
    }
}

/// Lets the steps change the answer of a server, or one that stands for it. `random` gives numbers that nobody can foresee.
pub fn on_answer(
    steps: &[Middleware],
    request: &Head,
    answer: &mut Head,
    context: Context,
    scratch: &mut Scratch,
    random: &mut dyn FnMut() -> [u8; 16],
) {
    for step in steps {
        match step {
            Middleware::Headers(headers) => {
                headers.on_answer(request, answer, context, scratch, random)
            }
            Middleware::WhiteList(_)
            | Middleware::Redirect(_)
            | Middleware::Basic(_)
            | Middleware::Digest(_)
            | Middleware::Forward(_)
            | Middleware::ClientCertificate(_) => {}
        }
    }
}

/// Walks the steps in order, until one does not let the request pass.
pub fn on_request(
    steps: &[Middleware],
    head: &mut Head,
    context: Context,
    scratch: &mut Scratch,
) -> Verdict {
    for (at, step) in steps.iter().enumerate() {
        let verdict = match step {
            Middleware::WhiteList(list) => list.on_request(head, context),
            Middleware::Redirect(redirect) => redirect.on_request(head, context, scratch),
            Middleware::Headers(headers) => headers.on_request(head, context, scratch),
            Middleware::Digest(digest) => digest
                .on_request(head, scratch)
                .map_or(Verdict::Pass, Verdict::Answer),
            Middleware::Basic(_) | Middleware::ClientCertificate(_) | Middleware::Forward(_) => {
                Verdict::Ask(at)
            }
        };
        match verdict {
            Verdict::Pass => {}
            Verdict::Answer(_) | Verdict::Ask(_) => return verdict,
        }
    }
    Verdict::Pass
}

#[cfg(test)]
impl Context {
    /// A request from this address, without TLS, on the first entry point.
    fn of(peer: &str) -> Self {
        Self {
            entry_point: 0,
            peer: peer.parse().expect("an address"),
            is_trusted: true,
            is_tls: false,
        }
    }
}
