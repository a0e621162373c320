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
        let line = &rest[..line_end];
        let (value_start, is_tight) = match &line[colon + 1..] {
            // `name: value`, as nearly everybody writes it, and as we would.
            [b' ', first, .., last] if !is_blank(*first) && !is_blank(*last) => (colon + 2, true),
            [b' ', only] if !is_blank(*only) => (colon + 2, true),
            _ => (trimmed_start(line, colon + 1), false),
        };
        let value = if is_tight {
            &line[value_start..]
        } else {
            syntax::trim(&line[value_start..])
        };
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
        let id = FieldId::of(&line[..colon]);
        head.fields.push(Field {
            name: Span::new(at, at + colon),
            value: Span::new(at + value_start, at + value_start + value.len()),
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

#[inline]
const fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Where a line goes on after the spaces and tabs at `start`.
fn trimmed_start(line: &[u8], start: usize) -> usize {
    line[start..]
        .iter()
        .position(|&byte| !is_blank(byte))
        .map_or(line.len(), |blanks| start + blanks)
}

/// Why a line whose name ends at `end` is none.
#[cold]
fn name_defect(line: &[u8], end: usize) -> Defect {
    match &line[end..] {
        [b' ' | b'\t', ..] if end == 0 => Defect::Folding,
        // A whole line without a colon.
        [b'\r', b'\n', ..] => Defect::FieldName,
        [b'\r' | b'\n', ..] => Defect::LineEnd,
        _ => Defect::FieldName,
    }
}
