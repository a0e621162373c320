//! Heads and chunk framing as bytes.
//!
//! Owns the spelling of what we send: one space, CRLF, the standard reason phrase. Never decides what is sent: the caller
//! writes framing, `Connection` and `Host` from what it knows, once.
//! Read next: `proxy/forward.rs`, which puts a message together.

use std::ops::Range;

use crate::http::field::{FieldId, FieldSet};
use crate::http::head::Head;

/// The chunk that ends a body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes `GET /path HTTP/1.1` and its line end. Both parts come from a [`Head`], which holds only what may stand here.
#[inline]
pub fn request_line(out: &mut Vec<u8>, method: &[u8], target: &[u8]) {
    out.reserve(method.len() + target.len() + b"  HTTP/1.1\r\n".len());
    out.extend_from_slice(method);
    out.push(b' ');
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes `HTTP/1.1 200 OK` and its line end. A code without a standard phrase reads `status code 499`, as in the
/// reference.
#[inline]
pub fn status_line(out: &mut Vec<u8>, status: u16) {
    if status == 200 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    decimal(out, u64::from(status));
    out.push(b' ');
    if let Some(phrase) = reason(status) {
        out.extend_from_slice(phrase.as_bytes());
    } else {
        out.extend_from_slice(b"status code ");
        decimal(out, u64::from(status));
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes one field line. Name and value come from a [`Head`] or are our own constants.
#[inline]
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the lines of a head but those in `skipped`: usually [`FieldSet::WRITTEN_BY_CALLER`].
///
/// Lines whose text is already as we would write it, and that follow each other, are copied at once.
pub fn fields(out: &mut Vec<u8>, head: &Head, skipped: FieldSet) {
    let mut run = 0..0;
    for line in &head.fields {
        if line.removed || skipped.contains(line.id) {
            continue;
        }
        if line.written {
            let start = line.name.start as usize;
            if start != run.end {
                copy_run(out, head, run);
                run = start..start;
            }
            run.end = line.value.end() as usize + 2;
        } else {
            copy_run(out, head, run);
            run = 0..0;
            field(out, head.name_of(line), head.text(line.value));
        }
    }
    copy_run(out, head, run);
}

/// Copies lines that are as they will be written, if there are any.
#[inline]
fn copy_run(out: &mut Vec<u8>, head: &Head, run: Range<usize>) {
    if !run.is_empty() {
        out.extend_from_slice(&head.text[run]);
    }
}

/// Writes `Content-Length`.
#[inline]
pub fn content_length(out: &mut Vec<u8>, length: u64) {
    out.extend_from_slice(b"Content-Length: ");
    decimal(out, length);
    out.extend_from_slice(b"\r\n");
}

/// Writes `Transfer-Encoding: chunked`.
#[inline]
pub fn chunked(out: &mut Vec<u8>) {
    out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
}

/// Writes the empty line that ends a head or a trailer section.
#[inline]
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Writes the size line of a chunk of `bytes` data bytes, which must not be zero: that would end the body. The data
/// follows, then [`end`].
#[inline]
pub fn chunk_size(out: &mut Vec<u8>, bytes: usize) {
    debug_assert!(bytes > 0, "an empty chunk ends the body");
    let mut digits = [0; 16];
    let mut at = digits.len();
    let mut left = bytes;
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// What is never sent as a trailer.
pub const NEVER_TRAILERS: FieldSet =
    FieldSet::HOP_BY_HOP.union(FieldSet::of(&[FieldId::ContentLength, FieldId::Host]));

/// Writes the last chunk, the trailer lines, and the end of the message.
pub fn trailers(out: &mut Vec<u8>, trailers: &Head) {
    out.extend_from_slice(b"0\r\n");
    fields(out, trailers, NEVER_TRAILERS);
    end(out);
}

/// Writes a number in decimal.
#[inline]
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b"0123456789"[(left % 10) as usize];
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The standard reason phrase of a status, spelled as the reference does; `None` for a code without one.
#[must_use]
pub const fn reason(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Request Entity Too Large",
        414 => "Request URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Requested Range Not Satisfiable",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        422 => "Unprocessable Entity",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::{Scan, request};

    fn check(write: impl FnOnce(&mut Vec<u8>), expected: &str) {
        let mut out = Vec::new();
        write(&mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn start_lines() {
        check(
            |out| request_line(out, b"GET", b"/a?b"),
            "GET /a?b HTTP/1.1\r\n",
        );
        check(|out| status_line(out, 200), "HTTP/1.1 200 OK\r\n");
        check(|out| status_line(out, 418), "HTTP/1.1 418 I'm a teapot\r\n");
        check(
            |out| status_line(out, 499),
            "HTTP/1.1 499 status code 499\r\n",
        );
    }

    #[test]
    fn numbers() {
        check(|out| content_length(out, 0), "Content-Length: 0\r\n");
        check(
            |out| content_length(out, u64::MAX),
            "Content-Length: 18446744073709551615\r\n",
        );
        check(|out| chunk_size(out, 1), "1\r\n");
        check(|out| chunk_size(out, 0x1_0abf), "10abf\r\n");
        check(|out| chunk_size(out, usize::MAX), "ffffffffffffffff\r\n");
    }

    #[test]
    fn fields_are_written_in_order_with_one_space_and_without_the_skipped() {
        let mut head = Head::default();
        let text = b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\nb:2\r\nC: \t3 \r\nD: 4\r\nContent-Length: 0\r\nE: 5\r\nF: 6\r\nG:\r\nVia: v\r\n\r\n";
        request(text, &mut Scan::default(), &mut head).expect("a good request");
        let skipped = FieldSet::WRITTEN_BY_CALLER;
        check(
            |out| fields(out, &head, skipped),
            "A: 1\r\nb: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: \r\nVia: v\r\n",
        );
        head.remove_named(b"e");
        head.set_named(b"d", b"four");
        head.set_known(FieldId::Via, b"w");
        head.push_known(FieldId::XRealIp, b"1.2.3.4");
        check(
            |out| fields(out, &head, skipped),
            "A: 1\r\nb: 2\r\nC: 3\r\nD: four\r\nF: 6\r\nG: \r\nVia: w\r\nX-Real-Ip: 1.2.3.4\r\n",
        );
        check(|out| fields(out, &Head::default(), FieldSet::EMPTY), "");
    }

    #[test]
    fn trailers_end_the_body() {
        let mut head = Head::default();
        check(|out| trailers(out, &head), "0\r\n\r\n");
        head.push(b"Grpc-Status", b"0");
        head.push(b"Content-Length", b"5");
        check(|out| trailers(out, &head), "0\r\nGrpc-Status: 0\r\n\r\n");
    }
}
