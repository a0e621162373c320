//! Field lines: the part that heads and trailers share.
//!
//! Owns what a field line may look like (RFC 9112 section 5). Never knows what a field means, beyond its id.
//! Read next: `framing.rs` (what the fields say together).

use memchr::memchr;

use crate::http::field::FieldId;
use crate::http::head::{Field, Head, Span};
use crate::http::syntax;
use crate::limits::HEAD_FIELDS_MAX;

/// What two parsers could read differently, or nobody should send. The sender is told 400, or is a broken server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// The request or status line is not of the form RFC 9112 gives it.
    StartLine,
    /// The target is no origin-form, absolute-form or `*`, or has bytes or escapes that may not stand there.
    Target,
    /// A line does not end with CRLF, or CR or LF stands elsewhere.
    LineEnd,
    /// A line begins with white space (obs-fold).
    Folding,
    /// A field name is empty, no token, or followed by white space; or the colon is missing.
    FieldName,
    /// A field value has a control byte.
    FieldValue,
    /// More field lines than `HEAD_FIELDS_MAX`.
    FieldsTooMany,
    /// More options in `Connection` than `CONNECTION_OPTIONS_MAX`.
    ConnectionOptions,
    /// `Content-Length` is not a plain number up to `LENGTH_MAX`.
    Length,
    /// `Content-Length` is there twice.
    LengthRepeated,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` is anything but one `chunked`, or is used in HTTP/1.0.
    Coding,
    /// `Host` is there twice.
    HostRepeated,
    /// `Host`, or the authority of an absolute-form target, is empty or has bytes that may not stand there.
    Host,
    /// The server switches protocols though nobody asked.
    SwitchUnasked,
}

/// Adds the field lines of `message[start..]`, up to and including the empty line, to `head`, whose text gets a copy of
/// the whole of `message` up to there: so spans are offsets in both. The bytes consumed of `message`.
///
/// `head` is cleared already and has no text yet.
///
/// # Errors
/// The first defect. The head is then half filled: clear it.
#[inline]
pub(in crate::http) fn fields(
    message: &[u8],
    start: usize,
    head: &mut Head,
) -> Result<usize, Defect> {
    debug_assert!(
        head.text.is_empty(),
        "spans count from the start of the text"
    );
    let mut at = start;
    loop {
        let rest = &message[at..];
        if let [b'\r', b'\n', ..] = rest {
            break;
        }
        let (colon, id) = name(rest)?;
        let (value_start, is_spaced) = match &rest[colon + 1..] {
            // `name: value`, as nearly everybody writes it, and as we would.
            [b' ', first, ..] if !is_blank(*first) => (colon + 2, true),
            _ => (colon + 1, false),
        };
        let after_name = &rest[value_start..];
        let (value, line_end) = after_name.split_at(syntax::value_bytes(after_name));
        if !line_end.starts_with(b"\r\n") {
            return Err(value_defect(after_name));
        }
        let is_tight = is_spaced && matches!(value, [.., last] if !is_blank(*last));
        let line_bytes = value_start + value.len() + 2;
        let (value_start, value) = if is_tight {
            (value_start, value)
        } else {
            trimmed(value_start, value)
        };
        if head.fields.len() == HEAD_FIELDS_MAX {
            return Err(Defect::FieldsTooMany);
        }
        head.fields.push(Field {
            name: Span::new(at, at + colon),
            value: Span::new(at + value_start, at + value_start + value.len()),
            id,
            removed: false,
            written: is_tight,
        });
        head.present.insert(id);
        at += line_bytes;
    }
    head.text.extend_from_slice(&message[..at]);
    Ok(at + 2)
}

#[inline]
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Where a value starts, and what it is, without the spaces and tabs around it.
#[cold]
fn trimmed(start: usize, value: &[u8]) -> (usize, &[u8]) {
    let blanks = value.iter().take_while(|&&byte| is_blank(byte)).count();
    (start + blanks, syntax::trim(value))
}

/// The length of the field name at the front of `rest`, which a colon follows, and its id.
#[inline]
fn name(rest: &[u8]) -> Result<(usize, FieldId), Defect> {
    if let Some(colon) = syntax::colon(rest) {
        let name = &rest[..colon];
        let id = FieldId::of(name);
        // A known name is a token as it is.
        if id != FieldId::Other || syntax::is_token(name) {
            return Ok((colon, id));
        }
    }
    Err(name_defect(rest))
}

/// Why no field name and colon are at the front of `rest`.
#[cold]
fn name_defect(rest: &[u8]) -> Defect {
    let token_bytes = rest
        .iter()
        .take_while(|&&byte| syntax::is_token_byte(byte))
        .count();
    match &rest[token_bytes..] {
        [] => Defect::LineEnd,
        [b' ' | b'\t', ..] if token_bytes == 0 => Defect::Folding,
        // A whole line without a colon.
        [b'\r', b'\n', ..] => Defect::FieldName,
        [b'\r' | b'\n', ..] => Defect::LineEnd,
        _ => Defect::FieldName,
    }
}

/// Why a line does not end behind the bytes of its value.
#[cold]
fn value_defect(rest: &[u8]) -> Defect {
    let Some(line) = memchr(b'\n', rest).map(|at| &rest[..at]) else {
        return Defect::LineEnd;
    };
    match line.split_last() {
        Some((b'\r', value)) if memchr(b'\r', value).is_none() => Defect::FieldValue,
        _ => Defect::LineEnd,
    }
}
