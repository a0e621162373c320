//! Requests as a client sends them over HTTP/2, and answers as it gets them.
//!
//! Owns what a request's pseudo-header fields mean and which of them contradict each other. What HTTP/1.1 refuses with an
//! answer is refused with the same one here; what only HTTP/2 forbids is [`Malformed`].
//! Read next: `proxy/streams.rs`.

use h2::ext::Protocol;
use http::header::HeaderMap;
use http::{Method, Response, StatusCode, request};

use super::fields::{self, Malformed};
use crate::http::body::Framing;
use crate::http::field::{FieldId, FieldSet};
use crate::http::h1::{Defect, Request, RequestError, Upgrade, framing};
use crate::http::head::{Head, Span, Version};
use crate::http::syntax;
use crate::http::target::{self, TargetClass};
use crate::limits::TARGET_BYTES_MAX;

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Reset the stream with `PROTOCOL_ERROR`.
    Malformed(Malformed),
    /// Answer as over HTTP/1.1. The connection goes on all the same.
    Request(RequestError),
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<RequestError> for Refused {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// Reads the head of a request into `head`, which is cleared before. `ends` if no body follows it.
///
/// # Errors
/// See [`Refused`].
pub fn request(parts: &request::Parts, ends: bool, head: &mut Head) -> Result<Request, Refused> {
    head.clear();
    head.version = Version::Http2;
    let upgrade = match (&parts.method, parts.extensions.get::<Protocol>()) {
        (&Method::CONNECT, None) => return Err(RequestError::ConnectRefused.into()),
        (&Method::CONNECT, Some(protocol)) if protocol.as_str() == "websocket" => {
            Upgrade::WebSocket
        }
        (_, Some(_)) => return Err(RequestError::NotImplemented.into()),
        (_, None) => Upgrade::None,
    };
    let method = match upgrade {
        Upgrade::None => parts.method.as_str(),
        Upgrade::WebSocket | Upgrade::Other => "GET",
    };
    head.method = append(head, method.as_bytes());
    read_target(parts, head)?;
    read_authority(parts, head)?;
    fields::read(&parts.headers, head)?;
    if upgrade == Upgrade::WebSocket {
        // As HTTP/1.1 asks for it: for the server, and for whoever looks at the request on its way.
        head.push_known(FieldId::Upgrade, b"websocket");
    }
    let length =
        framing::content_length(head, false).map_err(|_| Refused::Malformed(Malformed::Length))?;
    let framing = match length {
        _ if upgrade != Upgrade::None => Framing::None,
        Some(length) => Framing::Length(length),
        None if ends => Framing::None,
        None => Framing::Chunked,
    };
    Ok(Request {
        head_bytes: 0,
        framing,
        persistent: true,
        expect_continue: !ends
            && head.has(FieldId::Expect)
            && !matches!(framing, Framing::None | Framing::Length(0))
            && framing::expects_continue(head),
        upgrade,
        // `fields::read` lets no other value pass.
        te_trailers: head.has(FieldId::Te),
    })
}

fn append(head: &mut Head, bytes: &[u8]) -> Span {
    let start = head.text.len();
    head.text.extend_from_slice(bytes);
    Span::new(start, head.text.len())
}

fn read_target(parts: &request::Parts, head: &mut Head) -> Result<(), RequestError> {
    let target = parts
        .uri
        .path_and_query()
        .map_or(&b""[..], |path| path.as_str().as_bytes());
    if target.len() > TARGET_BYTES_MAX {
        return Err(RequestError::TargetTooLong);
    }
    let class = TargetClass::of(target);
    let is_origin = target.first() == Some(&b'/');
    let is_server = target == b"*" && parts.method == Method::OPTIONS;
    if class.is_refused()
        || !(is_origin || is_server)
        || class.has_escapes() && !target::has_valid_escapes(target)
    {
        return Err(Defect::Target.into());
    }
    if class.needs_escape() {
        head.set_target(target);
    } else {
        head.target = append(head, target);
    }
    Ok(())
}

/// Sets the authority and a Host field that says the same, as HTTP/1.1 has it.
fn read_authority(parts: &request::Parts, head: &mut Head) -> Result<(), Refused> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(|host| syntax::trim(host.as_bytes()));
    if hosts.next().is_some() {
        return Err(RequestError::Bad(Defect::HostRepeated).into());
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(authority), None) => authority.as_str().as_bytes(),
        (Some(authority), Some(host)) => {
            let authority = authority.as_str().as_bytes();
            if !authority.eq_ignore_ascii_case(host) {
                return Err(Malformed::Authority.into());
            }
            authority
        }
        (None, Some(host)) => host,
        (None, None) => return Err(RequestError::HostMissing.into()),
    };
    if !syntax::is_authority(authority) {
        return Err(RequestError::Bad(Defect::Host).into());
    }
    head.authority = append(head, authority);
    if host.is_none() {
        head.push_known_span(FieldId::Host, head.authority);
    }
    Ok(())
}

/// An answer's head. The lines of `head` go into `lines` but those in `skipped`; what is in there already stays. `None` if
/// the status is none.
pub fn answer(head: &Head, skipped: FieldSet, mut lines: HeaderMap) -> Option<Response<()>> {
    fields::write(head, skipped, &mut lines);
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    *response.headers_mut() = lines;
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::h1::encode;

    /// A request as the library has it: method, target, authority, other fields.
    fn parts(
        method: &str,
        target: &str,
        authority: Option<&str>,
        lines: &[(&str, &str)],
    ) -> request::Parts {
        let mut uri = http::uri::Parts::default();
        uri.path_and_query = Some(target.parse().expect("the library takes it"));
        if let Some(authority) = authority {
            uri.authority = Some(authority.parse().expect("the library takes it"));
            uri.scheme = Some(http::uri::Scheme::HTTPS);
        }
        let mut request = http::Request::builder()
            .method(method)
            .uri(http::Uri::from_parts(uri).expect("the library takes it"));
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request
            .body(())
            .expect("the library takes it")
            .into_parts()
            .0
    }

    fn check(parts: &request::Parts, ends: bool, expected: Result<&str, Refused>) {
        let mut head = Head::default();
        let read = request(parts, ends, &mut head).map(|request| {
            let mut out = Vec::new();
            encode::request_line(&mut out, head.method(), head.target());
            encode::fields(&mut out, &head, FieldSet::EMPTY);
            let text = String::from_utf8(out).expect("text").replace("\r\n", "|");
            format!("{text}{:?}", request.framing)
        });
        assert_eq!(
            read.as_deref().map_err(|error| *error),
            expected,
            "{parts:?}"
        );
    }

    fn bad(defect: Defect) -> Result<&'static str, Refused> {
        Err(Refused::Request(RequestError::Bad(defect)))
    }

    #[test]
    fn a_request_is_what_it_would_be_over_http1() {
        check(
            &parts("GET", "/a?b", Some("h:1"), &[("accept", "*/*")]),
            true,
            Ok("GET /a?b HTTP/1.1|Host: h:1|accept: */*|None"),
        );
        check(
            &parts("POST", "/", Some("h"), &[("content-length", "3")]),
            false,
            Ok("POST / HTTP/1.1|Host: h|content-length: 3|Length(3)"),
        );
        check(
            &parts("POST", "/", Some("h"), &[]),
            false,
            Ok("POST / HTTP/1.1|Host: h|Chunked"),
        );
        check(
            &parts("OPTIONS", "*", Some("h"), &[]),
            true,
            Ok("OPTIONS * HTTP/1.1|Host: h|None"),
        );
        check(
            &parts("GET", "/{a}", Some("h"), &[]),
            true,
            Ok("GET /%7Ba%7D HTTP/1.1|Host: h|None"),
        );
    }

    #[test]
    fn targets_that_http1_refuses_are_refused() {
        check(
            &parts("GET", "*", Some("h"), &[]),
            true,
            bad(Defect::Target),
        );
        check(
            &parts("GET", "/%zz", Some("h"), &[]),
            true,
            bad(Defect::Target),
        );
        check(
            &parts("GET", "/?%zz", Some("h"), &[]),
            true,
            Ok("GET /?%zz HTTP/1.1|Host: h|None"),
        );
    }

    #[test]
    fn one_host_is_named_once() {
        let get = |authority, lines| parts("GET", "/", authority, lines);
        check(
            &get(Some("h"), &[("host", "H")]),
            true,
            Ok("GET / HTTP/1.1|host: H|None"),
        );
        check(
            &get(None, &[("host", "h")]),
            true,
            Ok("GET / HTTP/1.1|host: h|None"),
        );
        check(
            &get(Some("h"), &[("host", "other")]),
            true,
            Err(Refused::Malformed(Malformed::Authority)),
        );
        check(
            &get(None, &[]),
            true,
            Err(Refused::Request(RequestError::HostMissing)),
        );
        check(
            &get(None, &[("host", "a"), ("host", "a")]),
            true,
            bad(Defect::HostRepeated),
        );
        check(&get(Some("user@h"), &[]), true, bad(Defect::Host));
        check(&get(None, &[("host", "a,b")]), true, bad(Defect::Host));
    }

    #[test]
    fn lengths_are_one_number() {
        for lines in [
            &[("content-length", "x")][..],
            &[("content-length", "1"), ("content-length", "1")],
            &[("content-length", "-1")],
        ] {
            check(
                &parts("POST", "/", Some("h"), lines),
                false,
                Err(Refused::Malformed(Malformed::Length)),
            );
        }
    }

    #[test]
    fn connect_opens_a_websocket_and_nothing_else() {
        let mut websocket = parts("CONNECT", "/chat", Some("h"), &[]);
        check(
            &websocket,
            false,
            Err(Refused::Request(RequestError::ConnectRefused)),
        );
        websocket
            .extensions
            .insert(Protocol::from_static("websocket"));
        check(
            &websocket,
            false,
            Ok("GET /chat HTTP/1.1|Host: h|Upgrade: websocket|None"),
        );
        let mut other = parts("CONNECT", "/", Some("h"), &[]);
        other
            .extensions
            .insert(Protocol::from_static("connect-udp"));
        check(
            &other,
            false,
            Err(Refused::Request(RequestError::NotImplemented)),
        );
    }
}
