//! Heads rewritten on their way: built anew, never copied through.
//!
//! Owns which fields pass, which are replaced, and what is said of the client (`X-Forwarded-*`; spec frontends 10, 11).
//! Hop-by-hop fields were stripped from the head before: what is set here cannot be removed by a client.
//! Never sends anything.

use std::io;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::Scheme;

use super::connection::Client;
use super::core::Core;
use super::reply;
use super::stream::{AnswerHead, Stream};
use crate::backend::Server;
use crate::frontend::Scratch;
use crate::frontend::middleware::{self, Middleware};
use crate::http::body::Framing;
use crate::http::field::FieldSet;
use crate::http::h1::Request;
use crate::http::h1::encode;
use crate::http::{FieldId, Head, Span, Version};
use crate::http::{h2, syntax};
use crate::reactor::Instant;

/// How a request is forwarded.
pub(crate) struct Forwarding<'a> {
    pub(crate) request: &'a Request,
    pub(crate) pass_host: bool,
    pub(crate) server: &'a Server,
    /// Pass `Expect: 100-continue` on: the body is not here yet.
    pub(crate) expect: bool,
    /// The protocol that the client asks to switch to.
    pub(crate) upgrade: Option<Span>,
    /// It asks for an error page.
    pub(crate) is_page: bool,
    /// Written by [`introduce`].
    pub(crate) introduction: &'a [u8],
}

/// Appends the head of a request, as its server gets it.
pub(crate) fn request_head(
    core: &Core,
    client: &Client,
    head: &Head,
    forwarding: &Forwarding<'_>,
    out: &mut Vec<u8>,
) {
    let request = forwarding.request;
    encode::request_line(out, head.method(), head.target());
    encode::field(out, b"Host", host(head, forwarding));
    request_lines(core, client, head, forwarding, out);
    match request.framing {
        Framing::None => {}
        Framing::Length(length) => encode::content_length(out, length),
        Framing::Chunked | Framing::UntilClose => encode::chunked(out),
    }
    if request.te_trailers {
        encode::field(out, b"Te", b"trailers");
    }
    if let Some(protocol) = forwarding.upgrade {
        // Stripped as a hop-by-hop field, and said again for this hop; its text is still in the head.
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        encode::field(out, b"Upgrade", head.text(protocol));
    }
    encode::end(out);
}

/// The head of a request as its server gets it over HTTP/2; a switch of protocols is not asked for there. `None` if HTTP/2
/// cannot say it.
pub(crate) fn request_frames(
    core: &Core,
    client: &Client,
    head: &Head,
    forwarding: &Forwarding<'_>,
    scheme: Scheme,
) -> Option<http::Request<()>> {
    let request = forwarding.request;
    let mut lines = HeaderMap::with_capacity(16);
    request_lines(core, client, head, forwarding, &mut lines);
    if let Framing::Length(length) = request.framing {
        lines.insert(header::CONTENT_LENGTH, length.into());
    }
    if request.te_trailers {
        lines.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    h2::client::request(head, scheme, host(head, forwarding), lines)
}

/// The authority that a server is asked for.
#[inline]
fn host<'a>(head: &'a Head, forwarding: &Forwarding<'a>) -> &'a [u8] {
    let authority = head.authority();
    if forwarding.pass_host && !forwarding.is_page && !authority.is_empty() {
        authority
    } else {
        &forwarding.server.authority
    }
}

/// Field lines on their way out: the text of HTTP/1.1, or the map of HTTP/2.
trait Lines {
    fn line(&mut self, name: &'static [u8], value: &[u8]);
    /// A line whose value is put together.
    fn line_of(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>));
    /// Those of a head but some.
    fn lines(&mut self, head: &Head, skipped: FieldSet);
    /// Lines that [`introduce`] has written.
    fn written(&mut self, text: &[u8]);
}

impl Lines for Vec<u8> {
    #[inline]
    fn line(&mut self, name: &'static [u8], value: &[u8]) {
        encode::field(self, name, value);
    }

    fn line_of(&mut self, name: &'static [u8], write: impl FnOnce(&mut Self)) {
        self.extend_from_slice(name);
        self.extend_from_slice(b": ");
        write(self);
        self.extend_from_slice(b"\r\n");
    }

    #[inline]
    fn lines(&mut self, head: &Head, skipped: FieldSet) {
        encode::fields(self, head, skipped);
    }

    #[inline]
    fn written(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }
}

impl Lines for HeaderMap {
    fn line(&mut self, name: &'static [u8], value: &[u8]) {
        // A name of ours and a value from a head: neither can fail.
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            self.append(name, value);
        }
    }

    fn line_of(&mut self, name: &'static [u8], write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        self.line(name, &value);
    }

    fn lines(&mut self, head: &Head, skipped: FieldSet) {
        h2::fields::write(head, skipped, self);
    }

    fn written(&mut self, text: &[u8]) {
        for line in text.split(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = memchr::memchr(b':', line) else {
                continue;
            };
            if let (Ok(name), Ok(value)) = (
                HeaderName::from_bytes(&line[..colon]),
                HeaderValue::from_bytes(syntax::trim(&line[colon + 1..])),
            ) {
                self.append(name, value);
            }
        }
    }
}

/// The fields of a request, but those that belong to its wire form.
#[inline]
fn request_lines(
    core: &Core,
    client: &Client,
    head: &Head,
    forwarding: &Forwarding<'_>,
    out: &mut impl Lines,
) {
    let mut skipped = if client.trusted {
        SAID_ANEW
    } else {
        SAID_BY_NOBODY
    };
    if !forwarding.expect {
        skipped.insert(FieldId::Expect);
    }
    out.lines(head, skipped);
    if forwarding.is_page {
        introduce_page(core, head.authority(), out);
    } else if client.trusted && head.has_any(SAID_OF_A_CLIENT) {
        forwarded(core, client, head, out);
    } else {
        out.written(forwarding.introduction);
        let authority = head.authority();
        if !authority.is_empty() {
            out.line(b"X-Forwarded-Host", authority);
        }
        out.line(
            b"X-Forwarded-Port",
            port_of(authority).unwrap_or_else(|| default_port(client)),
        );
    }
}

/// What is never copied from a request: it is written anew.
const SAID_ANEW: FieldSet = SAID_OF_A_CLIENT
    .union(FieldSet::WRITTEN_BY_CALLER)
    .union(FieldSet::of(&[FieldId::XForwardedServer]));

/// What a client that is not trusted does not get through either.
const SAID_BY_NOBODY: FieldSet = SAID_ANEW.union(FieldSet::of(&[
    FieldId::XForwardedMethod,
    FieldId::XForwardedUri,
]));

/// What is never copied from an answer: its framing is ours.
const FRAMING: FieldSet = FieldSet::of(&[FieldId::ContentLength, FieldId::TransferEncoding]);

/// What a trusted client may have said of its own client.
const SAID_OF_A_CLIENT: FieldSet = FieldSet::of(&[
    FieldId::XForwardedFor,
    FieldId::XForwardedHost,
    FieldId::XForwardedPort,
    FieldId::XForwardedProto,
    FieldId::XRealIp,
]);

/// Writes what every server is told of a client that says nothing of its own: the part that is the same for each of its
/// requests.
pub(crate) fn introduce(core: &Core, client: &Client, out: &mut Vec<u8>) {
    out.clear();
    encode::field(out, b"X-Forwarded-For", client.address.as_bytes());
    encode::field(out, b"X-Real-Ip", client.address.as_bytes());
    encode::field(out, b"X-Forwarded-Proto", proto(client));
    encode::field(
        out,
        b"X-Forwarded-Server",
        core.settings.host_name.as_bytes(),
    );
}

/// What a server is told when it is asked for an error page: by nobody in particular (spec frontends 8).
fn introduce_page(core: &Core, authority: &[u8], out: &mut impl Lines) {
    out.line(b"X-Forwarded-Proto", b"http");
    out.line(b"X-Forwarded-Server", core.settings.host_name.as_bytes());
    out.line(b"X-Forwarded-Host", authority);
    out.line(b"X-Forwarded-Port", b"80");
}

/// What we say of a trusted client, which is believed where it says something already.
fn forwarded(core: &Core, client: &Client, head: &Head, out: &mut impl Lines) {
    let said = |id| head.first(id).filter(|value| !value.is_empty());
    out.line_of(b"X-Forwarded-For", |out| {
        for value in head.values(FieldId::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
        out.extend_from_slice(client.address.as_bytes());
    });
    let authority = head.authority();
    let proto = said(FieldId::XForwardedProto).unwrap_or_else(|| proto(client));
    out.line(
        b"X-Real-Ip",
        said(FieldId::XRealIp).unwrap_or(client.address.as_bytes()),
    );
    out.line(b"X-Forwarded-Proto", proto);
    if let Some(host) = said(FieldId::XForwardedHost)
        .or(Some(authority))
        .filter(|host| !host.is_empty())
    {
        out.line(b"X-Forwarded-Host", host);
    }
    let usual: &[u8] = if matches!(proto, b"https" | b"wss") {
        b"443"
    } else {
        default_port(client)
    };
    let port = said(FieldId::XForwardedPort)
        .or_else(|| port_of(authority))
        .unwrap_or(usual);
    out.line(b"X-Forwarded-Port", port);
    out.line(b"X-Forwarded-Server", core.settings.host_name.as_bytes());
}

fn proto(client: &Client) -> &'static [u8] {
    if client.transport.is_tls() {
        b"https"
    } else {
        b"http"
    }
}

fn default_port(client: &Client) -> &'static [u8] {
    if client.transport.is_tls() {
        b"443"
    } else {
        b"80"
    }
}

/// The port of `host:port` or `[host]:port`.
fn port_of(authority: &[u8]) -> Option<&[u8]> {
    let colon = memchr::memrchr(b':', authority)?;
    let port = &authority[colon + 1..];
    (!port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(port)
}

/// How an answer is framed for its client.
pub(crate) struct ToClient {
    pub(crate) version: Version,
    /// The length of the body, or (HEAD, 304) what it would be.
    pub(crate) content_length: Option<u64>,
    pub(crate) chunked: bool,
    /// The end of the connection is the end of the body.
    pub(crate) close_delimited: bool,
    pub(crate) keep: bool,
}

/// Appends the head of a final answer, as the client gets it.
pub(crate) fn answer_head(
    core: &Core,
    answer: &mut Head,
    to_client: &ToClient,
    at: Instant,
    out: &mut Vec<u8>,
) {
    answer.strip_hop_by_hop();
    reply::status_line(out, to_client.version, answer.status);
    encode::fields(out, answer, FRAMING);
    if !answer.has(FieldId::Date) {
        out.extend_from_slice(b"Date: ");
        core.date.write(at, out);
        out.extend_from_slice(b"\r\n");
    }
    if to_client.chunked {
        encode::chunked(out);
    } else if let Some(length) = to_client.content_length
        && answer.status != 204
    {
        encode::content_length(out, length);
    }
    reply::connection(to_client.version, to_client.keep, out);
    encode::end(out);
}

/// As [`answer_head`], over HTTP/2. `ends` if no body follows.
///
/// # Errors
/// The client has left.
pub(crate) fn answer_stream(
    core: &Core,
    stream: &Stream,
    answer: &mut Head,
    to_client: &ToClient,
    at: Instant,
    ends: bool,
) -> io::Result<()> {
    answer.strip_hop_by_hop();
    let date = (!answer.has(FieldId::Date)).then(|| {
        let mut date = Vec::with_capacity(DATE_BYTES);
        core.date.write(at, &mut date);
        date
    });
    let head = AnswerHead {
        head: answer,
        skipped: FRAMING,
        content_length: to_client.content_length.filter(|_| answer.status != 204),
        date,
    };
    stream.answer(head, ends)
}

/// Bytes of a date in a field (RFC 9110, 5.6.7).
const DATE_BYTES: usize = 29;

/// As [`interim_head`], over HTTP/2.
///
/// # Errors
/// The client has left.
pub(crate) fn interim_stream(stream: &Stream, answer: &mut Head) -> io::Result<()> {
    answer.strip_hop_by_hop();
    stream.interim(answer, FRAMING)
}

/// As [`switching_head`], over HTTP/2, which knows no 101: the stream becomes the tunnel (RFC 8441, 5).
///
/// # Errors
/// The client has left.
pub(crate) fn tunnel_stream(
    core: &Core,
    stream: &Stream,
    answer: &mut Head,
    cookie: Option<&[u8]>,
    at: Instant,
) -> io::Result<()> {
    answer.set_status(200);
    answer.strip_hop_by_hop();
    tell_server(answer, cookie);
    let to_client = ToClient {
        version: Version::Http2,
        content_length: None,
        chunked: false,
        close_delimited: false,
        keep: false,
    };
    answer_stream(core, stream, answer, &to_client, at, false)
}

/// Lets the steps of a frontend change an answer. Last, so that no field of the server takes one of theirs away.
pub(crate) fn dress(
    core: &Core,
    client: &Client,
    steps: &[Middleware],
    request: &Head,
    answer: &mut Head,
    scratch: &mut Scratch,
) {
    if !steps.is_empty() {
        let random = &mut || core.random.bytes();
        middleware::on_answer(steps, request, answer, client.context(), scratch, random);
    }
}

/// Tells a client by a cookie which server it was given. Beside the cookies of the server, and after the steps: nobody
/// takes it away.
pub(crate) fn tell_server(answer: &mut Head, cookie: Option<&[u8]>) {
    if let Some(cookie) = cookie {
        answer.push_known(FieldId::SetCookie, cookie);
    }
}

/// Appends the head of an interim answer.
pub(crate) fn interim_head(answer: &mut Head, out: &mut Vec<u8>) {
    answer.strip_hop_by_hop();
    encode::status_line(out, answer.status);
    encode::fields(out, answer, FRAMING);
    encode::end(out);
}

/// Appends the head of a 101: from here on the connection is a tunnel.
pub(crate) fn switching_head(answer: &mut Head, cookie: Option<&[u8]>, out: &mut Vec<u8>) {
    let protocol = answer.first_span(FieldId::Upgrade);
    answer.strip_hop_by_hop();
    tell_server(answer, cookie);
    encode::status_line(out, 101);
    encode::fields(out, answer, FRAMING);
    out.extend_from_slice(b"Connection: Upgrade\r\n");
    if let Some(protocol) = protocol {
        encode::field(out, b"Upgrade", answer.text(protocol));
    }
    encode::end(out);
}
