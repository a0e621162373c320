//! Requests as a server gets them over HTTP/2, and answers as it sends them.
//!
//! Owns what an answer's head says of its body where frames, and not lines, end it. What HTTP/1.1 would not take from a
//! server is not taken here either. Never looks at a frame.
//! Read next: `proxy/shared.rs`.

use http::header::HeaderMap;
use http::{Method, Request, Response, Uri, Version, uri};

use super::fields::{self, Malformed};
use crate::http::body::{self, Framing};
use crate::http::field::FieldSet;
use crate::http::h1::{self, Defect, ResponseError, framing};
use crate::http::head::Head;

impl From<Malformed> for ResponseError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::FieldsTooMany => Self::HeadTooLarge,
            Malformed::ConnectionField => Self::Bad(Defect::ConnectionOptions),
            Malformed::Field => Self::Bad(Defect::FieldValue),
            Malformed::Authority => Self::Bad(Defect::Host),
            Malformed::Length => Self::Bad(Defect::Length),
        }
    }
}

/// A request's head. `None` if HTTP/2 as the library has it cannot say it: a method or an authority that it does not
/// take, or a target longer than it takes (64 KiB less two).
pub fn request(
    head: &Head,
    scheme: uri::Scheme,
    authority: &[u8],
    lines: HeaderMap,
) -> Option<Request<()>> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(uri::Authority::try_from(authority).ok()?);
    parts.path_and_query = Some(path_and_query(head.target())?);
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method()).ok()?;
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = lines;
    Some(request)
}

/// The target, with bytes escaped that HTTP/1.1 passes and the library refuses: `<`, `>` and the backtick.
fn path_and_query(target: &[u8]) -> Option<uri::PathAndQuery> {
    if let Ok(taken) = uri::PathAndQuery::try_from(target) {
        return Some(taken);
    }
    let mut escaped = Vec::with_capacity(target.len() + 16);
    for &byte in target {
        match byte {
            b'<' => escaped.extend_from_slice(b"%3C"),
            b'>' => escaped.extend_from_slice(b"%3E"),
            b'`' => escaped.extend_from_slice(b"%60"),
            _ => escaped.push(byte),
        }
    }
    uri::PathAndQuery::try_from(escaped.as_slice()).ok()
}

/// Reads the head of an answer, interim or final, into `head`, which is cleared before. `ends` if nothing follows it;
/// `to_head` if HEAD was asked.
///
/// A body that follows ends with its stream, whatever length was declared: the library compares the two.
///
/// # Errors
/// The server is broken, as over HTTP/1.1.
pub fn response(
    response: &Response<impl Sized>,
    ends: bool,
    to_head: bool,
    head: &mut Head,
) -> Result<h1::Response, ResponseError> {
    head.clear();
    head.set_status(response.status().as_u16());
    fields::read(response.headers(), head)?;
    let mut content_length = framing::content_length(head, true)?;
    let bodiless = to_head || matches!(head.status, 100..=199 | 204 | 304);
    let framing = if bodiless {
        Framing::None
    } else if ends {
        content_length = Some(0);
        Framing::None
    } else {
        Framing::UntilClose
    };
    if head.status == 101 {
        return Err(Defect::SwitchUnasked.into());
    }
    Ok(h1::Response {
        head_bytes: 0,
        framing,
        content_length,
        persistent: false,
    })
}

/// Reads trailers into `head`, which is cleared before, without those that may not stand there.
///
/// # Errors
/// The server is broken, as over HTTP/1.1.
pub fn read_trailers(lines: &HeaderMap, head: &mut Head) -> Result<(), ResponseError> {
    head.clear();
    fields::read(lines, head)?;
    body::drop_forbidden(head);
    Ok(())
}

/// Trailers of a request, or `None` if there are none.
pub fn trailers(head: &Head) -> Option<HeaderMap> {
    let mut lines = HeaderMap::new();
    fields::write(head, FieldSet::HOP_BY_HOP, &mut lines);
    (!lines.is_empty()).then_some(lines)
}
