//! Field lines between our heads and the maps of the HTTP/2 library.
//!
//! Owns which names HTTP/2 knows nothing of, and their spelling in lower case. Values are copied once, in each direction:
//! a map that shared our text would keep all of it alive for as long as one value stays in a table of the codec.
//! Read next: `server.rs`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::http::field::{FieldId, FieldSet};
use crate::http::head::{Field, Head, Span};
use crate::http::syntax;
use crate::limits::HEAD_FIELDS_MAX;

/// A message that breaks HTTP/2's own rules: its stream is reset with `PROTOCOL_ERROR` (RFC 9113, 8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A field that speaks of the connection (RFC 9113, 8.2.2).
    ConnectionField,
    /// A value with a byte that could end a line somewhere, or a name that is no token.
    Field,
    /// More lines than `HEAD_FIELDS_MAX`.
    FieldsTooMany,
    /// `:authority` and `Host` name different hosts, or one of them is none.
    Authority,
    /// `Content-Length` is no number, or there are several.
    Length,
}

/// What HTTP/2 says in frames, and what has no meaning in it. Nobody may send these (RFC 9113, 8.2.2).
pub const CONNECTION_FIELDS: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::ProxyConnection,
    FieldId::TransferEncoding,
    FieldId::Upgrade,
]);

/// Adds the lines of `fields` to `head`, in their order; those of one name are together. Cookies become one line
/// (RFC 9113, 8.2.3).
///
/// # Errors
/// See [`Malformed`]: nothing of the message may be used.
pub fn read(fields: &HeaderMap, head: &mut Head) -> Result<(), Malformed> {
    if head.fields.len() + fields.len() > HEAD_FIELDS_MAX {
        return Err(Malformed::FieldsTooMany);
    }
    let mut has_cookie = false;
    for (name, value) in fields {
        let id = FieldId::of(name.as_str().as_bytes());
        if CONNECTION_FIELDS.contains(id) {
            return Err(Malformed::ConnectionField);
        }
        if id == FieldId::Cookie {
            if !has_cookie {
                has_cookie = true;
                read_cookies(fields, head)?;
            }
            continue;
        }
        read_line(name.as_str().as_bytes(), id, value.as_bytes(), head)?;
    }
    Ok(())
}

/// Adds one line, as an encoder for HTTP/1.1 would write it: copied from there in one piece with its neighbours.
fn read_line(name: &[u8], id: FieldId, value: &[u8], head: &mut Head) -> Result<(), Malformed> {
    if id == FieldId::Te && value != b"trailers" {
        return Err(Malformed::ConnectionField);
    }
    // Spaces around a value are not part of it (RFC 9113, 8.2.1 forbids them; some send them all the same).
    let value = syntax::trim(value);
    if !syntax::is_value(value) || !syntax::is_token(name) {
        return Err(Malformed::Field);
    }
    let text = &mut head.text;
    text.reserve(name.len() + value.len() + 4);
    let name_start = text.len();
    text.extend_from_slice(name);
    let name_end = text.len();
    text.extend_from_slice(b": ");
    let value_start = text.len();
    text.extend_from_slice(value);
    let value_end = text.len();
    text.extend_from_slice(b"\r\n");
    add(
        head,
        id,
        Span::new(name_start, name_end),
        Span::new(value_start, value_end),
    );
    Ok(())
}

fn add(head: &mut Head, id: FieldId, name: Span, value: Span) {
    head.fields.push(Field {
        name,
        value,
        id,
        removed: false,
        written: true,
    });
    head.present.insert(id);
}

/// Adds the crumbs of a cookie as one line.
fn read_cookies(fields: &HeaderMap, head: &mut Head) -> Result<(), Malformed> {
    let name_start = head.text.len();
    head.text.extend_from_slice(b"cookie");
    let name_end = head.text.len();
    head.text.extend_from_slice(b": ");
    let value_start = head.text.len();
    for crumb in fields.get_all(header::COOKIE) {
        let crumb = syntax::trim(crumb.as_bytes());
        if !syntax::is_value(crumb) {
            return Err(Malformed::Field);
        }
        if head.text.len() > value_start {
            head.text.extend_from_slice(b"; ");
        }
        head.text.extend_from_slice(crumb);
    }
    let value_end = head.text.len();
    head.text.extend_from_slice(b"\r\n");
    add(
        head,
        FieldId::Cookie,
        Span::new(name_start, name_end),
        Span::new(value_start, value_end),
    );
    Ok(())
}

/// Adds the lines of `head` to `fields`, but those in `skipped` and those that HTTP/2 forbids.
pub fn write(head: &Head, skipped: FieldSet, fields: &mut HeaderMap) {
    let skipped = skipped.union(CONNECTION_FIELDS);
    for field in head.fields() {
        if skipped.contains(field.id) {
            continue;
        }
        // A head holds tokens and values only, so neither fails; a map that is full loses what is too much.
        if let (Some(name), Ok(value)) = (
            name(field.id, field.name),
            HeaderValue::from_bytes(field.value),
        ) {
            let _ = fields.try_append(name, value);
        }
    }
}

/// The library's own name of a field: without memory of its own for those we know.
fn name(id: FieldId, text: &[u8]) -> Option<HeaderName> {
    Some(match id {
        FieldId::Other => return HeaderName::from_bytes(text).ok(),
        FieldId::Accept => header::ACCEPT,
        FieldId::AcceptEncoding => header::ACCEPT_ENCODING,
        FieldId::Authorization => header::AUTHORIZATION,
        FieldId::CacheControl => header::CACHE_CONTROL,
        FieldId::Connection => header::CONNECTION,
        FieldId::ContentEncoding => header::CONTENT_ENCODING,
        FieldId::ContentLength => header::CONTENT_LENGTH,
        FieldId::ContentType => header::CONTENT_TYPE,
        FieldId::Cookie => header::COOKIE,
        FieldId::Date => header::DATE,
        FieldId::Expect => header::EXPECT,
        FieldId::Host => header::HOST,
        FieldId::KeepAlive => HeaderName::from_static("keep-alive"),
        FieldId::Location => header::LOCATION,
        FieldId::ProxyAuthenticate => header::PROXY_AUTHENTICATE,
        FieldId::ProxyAuthorization => header::PROXY_AUTHORIZATION,
        FieldId::ProxyConnection => HeaderName::from_static("proxy-connection"),
        FieldId::Server => header::SERVER,
        FieldId::SetCookie => header::SET_COOKIE,
        FieldId::Te => header::TE,
        FieldId::Trailer => header::TRAILER,
        FieldId::TransferEncoding => header::TRANSFER_ENCODING,
        FieldId::Upgrade => header::UPGRADE,
        FieldId::UserAgent => header::USER_AGENT,
        FieldId::Via => header::VIA,
        FieldId::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        FieldId::XForwardedHost => HeaderName::from_static("x-forwarded-host"),
        FieldId::XForwardedMethod => HeaderName::from_static("x-forwarded-method"),
        FieldId::XForwardedPort => HeaderName::from_static("x-forwarded-port"),
        FieldId::XForwardedPrefix => HeaderName::from_static("x-forwarded-prefix"),
        FieldId::XForwardedProto => HeaderName::from_static("x-forwarded-proto"),
        FieldId::XForwardedServer => HeaderName::from_static("x-forwarded-server"),
        FieldId::XForwardedTlsClientCert => HeaderName::from_static("x-forwarded-tls-client-cert"),
        FieldId::XForwardedTlsClientCertInfos => {
            HeaderName::from_static("x-forwarded-tls-client-cert-infos")
        }
        FieldId::XForwardedUri => HeaderName::from_static("x-forwarded-uri"),
        FieldId::XRealIp => HeaderName::from_static("x-real-ip"),
        FieldId::XReplacedPath => HeaderName::from_static("x-replaced-path"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::encode;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
            );
        }
        map
    }

    /// The lines of a head as HTTP/1.1 would write them.
    fn text(head: &Head) -> String {
        let mut out = Vec::new();
        encode::fields(&mut out, head, FieldSet::EMPTY);
        String::from_utf8(out).expect("text")
    }

    fn check(lines: &[(&str, &str)], expected: Result<&str, Malformed>) {
        let mut head = Head::default();
        let read = read(&map(lines), &mut head).map(|()| text(&head));
        assert_eq!(
            read.as_deref().map_err(|error| *error),
            expected,
            "{lines:?}"
        );
    }

    #[test]
    fn lines_come_through_in_order() {
        check(&[], Ok(""));
        check(
            &[("accept", "*/*"), ("x-a", "1"), ("x-b", ""), ("x-a", "2")],
            Ok("accept: */*\r\nx-a: 1\r\nx-a: 2\r\nx-b: \r\n"),
        );
        check(&[("x-a", " spaces\t")], Ok("x-a: spaces\r\n"));
        check(&[("te", "trailers")], Ok("te: trailers\r\n"));
    }

    #[test]
    fn crumbs_become_one_cookie() {
        check(
            &[
                ("cookie", "a=1"),
                ("x-a", "1"),
                ("cookie", "b=2"),
                ("cookie", "c=3"),
            ],
            Ok("cookie: a=1; b=2; c=3\r\nx-a: 1\r\n"),
        );
    }

    #[test]
    fn what_speaks_of_a_connection_is_malformed() {
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        ] {
            check(&[("a", "1"), (name, "x")], Err(Malformed::ConnectionField));
        }
        check(&[("te", "gzip")], Err(Malformed::ConnectionField));
    }

    #[test]
    fn too_many_lines_are_malformed() {
        let lines = vec![("a", "1"); HEAD_FIELDS_MAX];
        assert!(read(&map(&lines), &mut Head::default()).is_ok());
        let lines = vec![("a", "1"); HEAD_FIELDS_MAX + 1];
        check(&lines, Err(Malformed::FieldsTooMany));
    }

    #[test]
    fn a_head_is_written_without_what_http2_forbids() {
        let mut head = Head::default();
        for (name, value) in [
            ("Content-Type", "text/plain"),
            ("Connection", "close"),
            ("Transfer-Encoding", "chunked"),
            ("X-Mixed-Case", "Value"),
            ("Set-Cookie", "a=1"),
            ("Set-Cookie", "b=2"),
            ("Content-Length", "3"),
        ] {
            head.push(name.as_bytes(), value.as_bytes());
        }
        let mut written = HeaderMap::new();
        write(&head, FieldSet::of(&[FieldId::ContentLength]), &mut written);
        let expected = [
            ("content-type", "text/plain"),
            ("x-mixed-case", "Value"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
        ];
        assert_eq!(written, map(&expected));
    }

    #[test]
    fn every_known_name_is_the_same_in_both_forms() {
        for &id in FieldId::KNOWN {
            let name = name(id, id.name().as_bytes()).expect("a name");
            assert_eq!(name.as_str(), id.name().to_ascii_lowercase());
        }
    }
}
