//! Answers we make ourselves, and which failure gets which: the whole mapping is one `match`.
//!
//! Owns statuses and bodies to the byte of spec frontends 11 and 12. Never decides whether something failed.

use super::compress;
use super::core::Core;
use super::failure::{Cause, Failure};
use crate::frontend::middleware;
use crate::http::h1::RequestError;
use crate::http::h1::encode;
use crate::http::{FieldId, FieldSet, Head, Version};
use crate::reactor::Instant;

/// An answer without a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    /// `X-Content-Type-Options: nosniff`, which the reference sends with the answers of its own router.
    nosniff: bool,
}

const fn text(status: u16, body: &'static str) -> Answer {
    Answer {
        status,
        body,
        nosniff: false,
    }
}

pub(crate) const NOT_FOUND: Answer = Answer {
    status: 404,
    body: "404 page not found\n",
    nosniff: true,
};
pub(crate) const METHOD_NOT_ALLOWED: Answer = text(405, "Method Not Allowed");
pub(crate) const BAD_REQUEST: Answer = text(400, "400 Bad Request");
pub(crate) const NOT_TLS: Answer = text(400, "Client sent an HTTP request to an HTTPS server.\n");
pub(crate) const REQUEST_TIMEOUT: Answer = text(408, "Request Timeout");
pub(crate) const UNAVAILABLE: Answer = text(503, "Service Unavailable");
pub(crate) const INTERNAL: Answer = text(500, "Internal Server Error");

/// What the client is told; `None` if there is nobody to tell.
pub(crate) fn of_failure(failure: &Failure) -> Option<Answer> {
    Some(match &failure.cause {
        Cause::NoServer | Cause::NotHeld(_) => UNAVAILABLE,
        Cause::NoWeight | Cause::Scheme | Cause::AnswerTooLong => INTERNAL,
        Cause::BodyTooLong => text(413, "Request Entity Too Large"),
        Cause::TimedOut => text(504, "Gateway Timeout"),
        Cause::Unresolved
        | Cause::Io(_)
        | Cause::Tls(_)
        | Cause::Closed
        | Cause::Malformed(_)
        | Cause::Unproven => text(502, "Bad Gateway"),
        // No page covers it any more: the status alone is left of it.
        Cause::Discarded { status, .. } => {
            text(*status, encode::reason(*status).unwrap_or_default())
        }
        Cause::ClientBody | Cause::Unspeakable => BAD_REQUEST,
        Cause::ClientSlow => REQUEST_TIMEOUT,
        Cause::ClientGone => return None,
    })
}

/// What a request that cannot be read is told. The connection is closed after each of them.
pub(crate) fn of_request_error(error: &RequestError) -> Answer {
    match error {
        RequestError::HostMissing => text(400, "400 Bad Request: missing required Host header"),
        RequestError::TargetTooLong => text(414, "414 URI Too Long"),
        RequestError::HeadTooLarge => text(431, "431 Request Header Fields Too Large"),
        RequestError::NotImplemented => text(501, "501 Not Implemented"),
        RequestError::VersionNotSupported => text(505, "505 HTTP Version Not Supported"),
        RequestError::ConnectRefused => METHOD_NOT_ALLOWED,
        RequestError::Bad(_) => BAD_REQUEST,
    }
}

/// How an answer of ours is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    pub(crate) version: Version,
    pub(crate) head_only: bool,
    pub(crate) keep: bool,
    /// Another client might get it in another coding.
    pub(crate) varies: bool,
}

/// Appends an answer to `out`.
pub(crate) fn write(core: &Core, answer: Answer, manner: Manner, at: Instant, out: &mut Vec<u8>) {
    status_line(out, manner.version, answer.status);
    encode::field(out, b"Content-Type", b"text/plain; charset=utf-8");
    if answer.nosniff {
        encode::field(out, b"X-Content-Type-Options", b"nosniff");
    }
    finish(core, manner, at, answer.body.len(), out);
    if !manner.head_only {
        out.extend_from_slice(answer.body.as_bytes());
    }
}

/// Appends an answer that a middleware made.
pub(crate) fn write_made(
    core: &Core,
    answer: &middleware::Answer,
    manner: Manner,
    at: Instant,
    out: &mut Vec<u8>,
) {
    status_line(out, manner.version, answer.status);
    if !answer.content_type.is_empty() {
        encode::field(out, b"Content-Type", answer.content_type.as_bytes());
    }
    for (name, value) in &answer.fields {
        encode::field(out, name.as_bytes(), value);
    }
    finish(core, manner, at, answer.body.len(), out);
    if !manner.head_only {
        out.extend_from_slice(&answer.body);
    }
}

/// Makes `head` the head of an answer, for others to change.
pub(crate) fn begin(answer: Answer, head: &mut Head) {
    head.clear();
    head.set_status(answer.status);
    head.push_known(FieldId::ContentType, b"text/plain; charset=utf-8");
    if answer.nosniff {
        head.push(b"X-Content-Type-Options", b"nosniff");
    }
}

/// As [`begin`], for an answer that a middleware made.
pub(crate) fn begin_made(answer: &middleware::Answer, head: &mut Head) {
    head.clear();
    head.set_status(answer.status);
    if !answer.content_type.is_empty() {
        head.push_known(FieldId::ContentType, answer.content_type.as_bytes());
    }
    for (name, value) in &answer.fields {
        head.push(name.as_bytes(), value);
    }
}

/// Appends an answer whose head is as `begin` and others have left it.
pub(crate) fn write_begun(
    core: &Core,
    answer: Answer,
    head: &Head,
    manner: Manner,
    at: Instant,
    out: &mut Vec<u8>,
) {
    const WRITTEN_HERE: FieldSet = FieldSet::WRITTEN_BY_CALLER
        .union(FieldSet::HOP_BY_HOP)
        .union(FieldSet::of(&[FieldId::Date]));
    status_line(out, manner.version, head.status);
    encode::fields(out, head, WRITTEN_HERE);
    finish(core, manner, at, answer.body.len(), out);
    if !manner.head_only {
        out.extend_from_slice(answer.body.as_bytes());
    }
}

/// Appends an empty 200, the answer to `OPTIONS *`.
pub(crate) fn write_empty(core: &Core, manner: Manner, at: Instant, out: &mut Vec<u8>) {
    status_line(out, manner.version, 200);
    finish(core, manner, at, 0, out);
}

fn finish(core: &Core, manner: Manner, at: Instant, body_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"Date: ");
    core.date.write(at, out);
    out.extend_from_slice(b"\r\n");
    if manner.varies {
        let (name, value) = compress::VARY;
        encode::field(out, name, value);
    }
    encode::content_length(out, body_bytes as u64);
    connection(manner.version, manner.keep, out);
    encode::end(out);
}

/// Appends a status line in the client's version.
pub(crate) fn status_line(out: &mut Vec<u8>, version: Version, status: u16) {
    let start = out.len();
    encode::status_line(out, status);
    if version == Version::Http10 {
        out[start + b"HTTP/1.".len()] = b'0';
    }
}

/// Says what becomes of the connection, where it is not what the version implies.
pub(crate) fn connection(version: Version, keep: bool, out: &mut Vec<u8>) {
    match (version, keep) {
        (Version::Http10, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (Version::Http11, false) => out.extend_from_slice(b"Connection: close\r\n"),
        _ => {}
    }
}

/// The manner in which a request whose head was read is answered.
pub(crate) fn manner(request: &Head, keep: bool) -> Manner {
    Manner {
        version: request.version,
        head_only: request.method() == b"HEAD",
        keep,
        varies: false,
    }
}
