//! What the fields of a head say together: how the body is framed, whether the connection stays, what is asked beside.
//!
//! Owns the decisions of RFC 9112 sections 6.3 and 9.3, taken strictly. Never looks at the start line's bytes.
//! Read next: `parse.rs`.

use super::lines::Defect;
use super::parse::Upgrade;
use crate::http::body::{Framing, LENGTH_MAX};
use crate::http::field::FieldId;
use crate::http::head::{Head, Version};
use crate::http::syntax;
use crate::limits::CONNECTION_OPTIONS_MAX;

/// What `Transfer-Encoding` asks for.
pub(super) enum Coding {
    Chunked,
    /// A registered coding that we do not implement.
    Unsupported,
}

/// Reads `Transfer-Encoding`, which must be there.
///
/// # Errors
/// [`Defect::Coding`] for HTTP/1.0, for several lines, and for anything but registered codings with one final `chunked`.
pub(super) fn coding(head: &Head) -> Result<Coding, Defect> {
    const REGISTERED: [&[u8]; 5] = [b"gzip", b"x-gzip", b"compress", b"x-compress", b"deflate"];
    let mut values = head.values(FieldId::TransferEncoding);
    let value = values.next().unwrap_or_default();
    if values.next().is_some() || head.version == Version::Http10 {
        return Err(Defect::Coding);
    }
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Coding::Chunked);
    }
    let is_registered = |coding: &[u8]| {
        REGISTERED
            .iter()
            .any(|known| coding.eq_ignore_ascii_case(known))
    };
    let codings_before = match value.iter().rposition(|&byte| byte == b',') {
        Some(at) if syntax::trim(&value[at + 1..]).eq_ignore_ascii_case(b"chunked") => &value[..at],
        _ => value,
    };
    let mut codings = codings_before.split(|&byte| byte == b',').map(syntax::trim);
    if codings.all(is_registered) {
        Ok(Coding::Unsupported)
    } else {
        Err(Defect::Coding)
    }
}

/// The value of `Content-Length`, if it is there. Several lines are refused, or for an answer accepted if they are
/// equal byte for byte: we write one anew, and servers behind other proxies do send two.
pub(in crate::http) fn content_length(
    head: &Head,
    equal_lines_allowed: bool,
) -> Result<Option<u64>, Defect> {
    if !head.has(FieldId::ContentLength) {
        return Ok(None);
    }
    let mut first = None;
    for line in &head.fields {
        if line.id != FieldId::ContentLength {
            continue;
        }
        let value = head.text(line.value);
        match first {
            None => first = Some(value),
            Some(first) if equal_lines_allowed && value == first => {}
            Some(_) => return Err(Defect::LengthRepeated),
        }
    }
    first.map(parse_length).transpose()
}

/// Plain decimal digits, nothing else.
fn parse_length(value: &[u8]) -> Result<u64, Defect> {
    // 19 digits cannot overflow; leading zeros count, since nobody honest sends twenty.
    if value.is_empty() || value.len() > 19 {
        return Err(Defect::Length);
    }
    let mut length = 0u64;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return Err(Defect::Length);
        }
        length = length * 10 + u64::from(byte - b'0');
    }
    if length > LENGTH_MAX {
        Err(Defect::Length)
    } else {
        Ok(length)
    }
}

/// The framing a request declares; `None` if its coding is one we do not implement.
#[inline]
pub(super) fn of_request(head: &Head) -> Result<Option<Framing>, Defect> {
    if head.has(FieldId::TransferEncoding) {
        if head.has(FieldId::ContentLength) {
            return Err(Defect::LengthAndCoding);
        }
        return Ok(match coding(head)? {
            Coding::Chunked => Some(Framing::Chunked),
            Coding::Unsupported => None,
        });
    }
    if !head.has(FieldId::ContentLength) {
        return Ok(Some(Framing::None));
    }
    Ok(Some(
        content_length(head, false)?.map_or(Framing::None, Framing::Length),
    ))
}

/// What the `Connection` fields say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
}

impl Connection {
    pub(super) fn of(head: &Head) -> Result<Self, Defect> {
        let mut options = Self::default();
        let mut count = 0;
        for value in head.values(FieldId::Connection) {
            // What nearly everybody sends, if anything, is one option in its usual spelling.
            match value {
                b"keep-alive" => options.keep_alive = true,
                b"close" => options.close = true,
                _ => count += options.add(value),
            }
        }
        if count > CONNECTION_OPTIONS_MAX {
            return Err(Defect::ConnectionOptions);
        }
        Ok(options)
    }

    /// Adds the options of one line; how many they are.
    fn add(&mut self, value: &[u8]) -> usize {
        let mut count = 0;
        for option in syntax::list(value) {
            count += 1;
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
        count
    }

    /// Whether the connection outlives the message: RFC 9112 9.3, `close` wins.
    pub(super) fn persistent(self, version: Version) -> bool {
        !self.close && (self.keep_alive || version > Version::Http10)
    }
}

/// The protocol a request asks to switch to. HTTP/2 is none: it is never passed on, and we do not switch to it.
pub(super) fn upgrade(head: &Head, connection: Connection) -> Upgrade {
    if !connection.upgrade || head.version == Version::Http10 {
        return Upgrade::None;
    }
    let mut upgrade = Upgrade::None;
    for protocol in head.values(FieldId::Upgrade).flat_map(syntax::list) {
        let name = protocol
            .split(|&byte| byte == b'/')
            .next()
            .unwrap_or_default();
        if [&b"h2c"[..], b"h2", b"http"]
            .iter()
            .any(|http| name.eq_ignore_ascii_case(http))
        {
            return Upgrade::None;
        }
        if name.eq_ignore_ascii_case(b"websocket") {
            upgrade = Upgrade::WebSocket;
        } else if upgrade == Upgrade::None {
            upgrade = Upgrade::Other;
        }
    }
    upgrade
}

/// True if `TE` has the option `trailers`.
pub(super) fn te_trailers(head: &Head) -> bool {
    head.values(FieldId::Te)
        .flat_map(syntax::list)
        .any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// True if the client waits for `100 Continue` before it sends its body.
pub(in crate::http) fn expects_continue(head: &Head) -> bool {
    head.version > Version::Http10
        && head
            .values(FieldId::Expect)
            .flat_map(syntax::list)
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}
