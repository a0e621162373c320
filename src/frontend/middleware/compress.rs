//! Which answers are compressed where an entry point asks for it. Spec static-config 4.2.
//!
//! Owns the decision, from two heads. Never compresses. Read next: `proxy/compress.rs` (who does).

use crate::http::body::Framing;
use crate::http::{FieldId, Head};
use crate::limits::COMPRESS_BYTES_MIN;

/// The client takes gzip: `Accept-Encoding` lists it, and not with a weight of zero; `*` does not count. Calls of gRPC are
/// never compressed.
#[must_use]
pub fn is_accepted(request: &Head) -> bool {
    let is_grpc = request.first(FieldId::ContentType).is_some_and(|value| {
        value
            .get(..b"application/grpc".len())
            .is_some_and(|front| front.eq_ignore_ascii_case(b"application/grpc"))
    });
    !is_grpc
        && request
            .values(FieldId::AcceptEncoding)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(is_gzip)
}

/// One element of `Accept-Encoding` (RFC 9110, 12.5.3).
fn is_gzip(element: &[u8]) -> bool {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_named = parts
        .next()
        .is_some_and(|coding| coding.eq_ignore_ascii_case(b"gzip"));
    is_named
        && parts.all(|parameter| match parameter {
            [b'q' | b'Q', rest @ ..] => {
                let weight = rest.trim_ascii_start().strip_prefix(b"=");
                let weight = weight.and_then(|text| std::str::from_utf8(text).ok());
                weight
                    .and_then(|text| text.trim().parse().ok())
                    .is_some_and(|weight: f32| weight > 0.0)
            }
            _ => true,
        })
}

/// The body of an answer is compressed: it is long enough, or its end is not known, and nothing forbids it. `piece` is what
/// of it is here.
#[must_use]
pub fn is_worth_it(answer: &Head, framing: Framing, piece: &[u8]) -> bool {
    let is_long = match framing {
        Framing::None => false,
        Framing::Length(length) => length >= COMPRESS_BYTES_MIN,
        // A short one is here whole, with its last chunk.
        Framing::Chunked => {
            piece.len() as u64 >= COMPRESS_BYTES_MIN || !piece.ends_with(b"\r\n0\r\n\r\n")
        }
        Framing::UntilClose => true,
    };
    is_long
        // A part of something else than what is compressed.
        && answer.status != 206
        && answer.first(FieldId::ContentEncoding).is_none_or(<[u8]>::is_empty)
        && !forbids_changes(answer)
}

/// RFC 9111, 5.2.2.6.
fn forbids_changes(answer: &Head) -> bool {
    answer
        .values(FieldId::CacheControl)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_gzip() {
        let check = |fields: &[(&str, &str)], expected: bool| {
            let mut head = Head::default();
            for (name, value) in fields {
                head.push(name.as_bytes(), value.as_bytes());
            }
            assert_eq!(is_accepted(&head), expected, "{fields:?}");
        };
        check(&[], false);
        for (value, expected) in [
            ("gzip", true),
            ("GZip", true),
            ("br, gzip", true),
            ("deflate,gzip;q=0.1", true),
            ("gzip; q=1", true),
            ("gzip;Q = 1.0", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip; q=x", false),
            ("gzip;q", false),
            ("*", false),
            ("x-gzip", false),
            ("gzipped", false),
            ("identity", false),
            ("", false),
            (",;,", false),
        ] {
            check(&[("accept-encoding", value)], expected);
        }
        check(
            &[("Accept-Encoding", "br"), ("Accept-Encoding", "gzip")],
            true,
        );
        check(
            &[
                ("Accept-Encoding", "gzip"),
                ("Content-Type", "application/grpc+proto"),
            ],
            false,
        );
        check(
            &[
                ("Accept-Encoding", "gzip"),
                ("Content-Type", "Application/GRPC"),
            ],
            false,
        );
        check(
            &[
                ("Accept-Encoding", "gzip"),
                ("Content-Type", "application/json"),
            ],
            true,
        );
    }

    #[test]
    fn what_is_compressed() {
        let check = |framing: Framing, piece: &str, field: (&str, &str), expected: bool| {
            let mut head = Head::default();
            head.set_status(200);
            head.push(field.0.as_bytes(), field.1.as_bytes());
            let found = is_worth_it(&head, framing, piece.as_bytes());
            assert_eq!(found, expected, "{framing:?} {piece} {field:?}");
        };
        let none = ("X", "y");
        check(Framing::None, "", none, false);
        check(Framing::Length(511), "", none, false);
        check(Framing::Length(512), "", none, true);
        check(Framing::Chunked, "", none, true);
        check(Framing::Chunked, "2\r\nab\r\n", none, true);
        check(Framing::Chunked, "2\r\nab\r\n0\r\n\r\n", none, false);
        check(Framing::UntilClose, "ab", none, true);
        for (field, expected) in [
            (("Content-Encoding", "br"), false),
            (("Content-Encoding", ""), true),
            (("Cache-Control", "private, No-Transform"), false),
            (("Cache-Control", "no-transforms"), true),
            (("Content-Type", "image/png"), true),
        ] {
            check(Framing::Length(512), "", field, expected);
        }
        let mut head = Head::default();
        head.set_status(206);
        assert!(!is_worth_it(&head, Framing::Length(512), b""));
    }
}
