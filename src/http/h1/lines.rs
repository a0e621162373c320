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
        let colon = rest
            .iter()
            .position(|&byte| !syntax::is_token_byte(byte))
            .ok_or(Defect::LineEnd)?;
        if rest[colon] != b':' || colon == 0 {
            return Err(name_defect(rest, colon));
        }
        let line_end = memchr(b'\n', &rest[colon..]).ok_or(Defect::LineEnd)? + colon - 1;
        if rest[line_end] != b'\r' {
            return Err(Defect::LineEnd);
        }
        let (value_start, value_end) = trimmed(rest, colon + 1, line_end);
        let value = &rest[value_start..value_end];
        if !syntax::is_value(value) {
            return Err(if memchr(b'\r', value).is_some() {
                Defect::LineEnd
            } else {
                Defect::FieldValue
            });
        }
        if head.fields.len() == HEAD_FIELDS_MAX {
            return Err(Defect::FieldsTooMany);
        }
        let id = FieldId::of(&rest[..colon]);
        let is_tight = value_start == colon + 2 && rest[colon + 1] == b' ' && value_end == line_end;
        head.fields.push(Field {
            name: Span::new(at, at + colon),
            value: Span::new(at + value_start, at + value_end),
            id,
            removed: false,
            written: is_tight,
        });
        head.present.insert(id);
        at += line_end + 2;
    }
    head.text.extend_from_slice(&message[..at]);
    Ok(at + 2)
}

/// The range `start..end` of a line without the spaces and tabs at its ends.
#[inline]
fn trimmed(line: &[u8], mut start: usize, mut end: usize) -> (usize, usize) {
    let is_blank = |at: usize| matches!(line[at], b' ' | b'\t');
    while start < end && is_blank(start) {
        start += 1;
    }
    while start < end && is_blank(end - 1) {
        end -= 1;
    }
    (start, end)
}

/// Why a line whose name ends at `end` is none.
#[cold]
fn name_defect(line: &[u8], end: usize) -> Defect {
    match line[end] {
        b' ' | b'\t' if end == 0 => Defect::Folding,
        b'\r' | b'\n' => Defect::LineEnd,
        _ => Defect::FieldName,
    }
}
