//! Heads from bytes, strictly.
//!
//! A head is accepted only if every parser reads it the same way; what it means for the body, the connection and beyond
//! is decided here and returned beside the head, so nobody asks its framing fields again.
//! Never allocates once the head's text has its usual size. Never waits: `Ok(None)` asks for more bytes.
//! Read next: `lines.rs`, `framing.rs`.

use memchr::memchr;

use super::framing::{self, Coding, Connection};
use super::lines::{self, Defect};
use super::scan::{Found, Scan};
use crate::http::body::Framing;
use crate::http::field::{FieldId, FieldSet};
use crate::http::head::{Head, Span, Version};
use crate::http::syntax;
use crate::http::target::{self, TargetClass};
use crate::limits::{HEAD_BYTES_MAX, TARGET_BYTES_MAX};

/// What a request head says beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the input that the head took.
    pub head_bytes: usize,
    pub framing: Framing,
    /// The client wants the connection kept, and its version allows it.
    pub persistent: bool,
    /// The client waits for `100 Continue` before it sends its body.
    pub expect_continue: bool,
    /// The protocol it asks to switch to; the value is `first_span(FieldId::Upgrade)`, taken before stripping.
    pub upgrade: Upgrade,
    /// `TE: trailers` was sent.
    pub te_trailers: bool,
}

/// A protocol switch that was asked for: only if `Connection` names it and `Upgrade` does not speak of HTTP itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    #[default]
    None,
    WebSocket,
    Other,
}

/// Why a request head is refused. Whatever it is, the connection is of no more use after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Malformed or ambiguous: 400.
    Bad(Defect),
    /// HTTP/1.1 without `Host`: 400 with a text of its own.
    HostMissing,
    /// A transfer coding we do not implement: 501.
    NotImplemented,
    /// HTTP/0.9, HTTP/2 and later as text: 505.
    VersionNotSupported,
    /// `CONNECT`: 405, there is no tunnel to anywhere.
    ConnectRefused,
    /// The target is longer than `TARGET_BYTES_MAX`: 414.
    TargetTooLong,
    /// The head is longer than `HEAD_BYTES_MAX` or has too many lines: 431.
    HeadTooLarge,
}

impl From<Defect> for RequestError {
    fn from(defect: Defect) -> Self {
        match defect {
            Defect::FieldsTooMany => Self::HeadTooLarge,
            defect => Self::Bad(defect),
        }
    }
}

/// What was asked of the server, as far as it decides how its answer is framed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The method was HEAD: no body, whatever the fields say.
    pub head: bool,
    /// A protocol switch was asked for: 101 is a fitting answer.
    pub upgrade: bool,
}

/// What a response head says beside its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// Bytes of the input that the head took.
    pub head_bytes: usize,
    /// How the body is framed. `None` for 1xx (101 too: what follows is the other protocol).
    pub framing: Framing,
    /// The declared length, also where there is no body (HEAD, 304).
    pub content_length: Option<u64>,
    /// The connection may carry another exchange once this answer is whole.
    pub persistent: bool,
}

/// Why a response head is refused: the server is broken, 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseError {
    Bad(Defect),
    /// Longer than `HEAD_BYTES_MAX` or too many lines.
    HeadTooLarge,
}

impl From<Defect> for ResponseError {
    fn from(defect: Defect) -> Self {
        match defect {
            Defect::FieldsTooMany => Self::HeadTooLarge,
            defect => Self::Bad(defect),
        }
    }
}

/// Reads the request head at the front of `bytes` into `head`; `None` if it is not all there.
///
/// `scan` belongs to the connection: pass the same one while the same head is coming.
///
/// # Errors
/// See [`RequestError`]. Some are found before the head is whole.
pub fn request(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
) -> Result<Option<Request>, RequestError> {
    head.clear();
    let result = whole_request(bytes, scan, head);
    if !matches!(result, Ok(None)) {
        *scan = Scan::default();
    }
    result
}

#[inline]
fn whole_request(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
) -> Result<Option<Request>, RequestError> {
    match scan.search(bytes)? {
        Found::Head => {}
        Found::Part { first_line_ended } => {
            unfinished_request(bytes, first_line_ended, scan, head)?;
            return Ok(None);
        }
        Found::TooLarge => return Err(RequestError::HeadTooLarge),
    }
    let skipped = leading_line(bytes);
    let message = &bytes[skipped..];
    let line = RequestLine::read(message, head)?;
    let message_bytes = lines::fields(message, line.bytes, head)?;
    let head_bytes = skipped + message_bytes;
    if head_bytes > HEAD_BYTES_MAX {
        return Err(RequestError::HeadTooLarge);
    }
    line.resolve(head)?;
    let mut request = Request {
        head_bytes,
        framing: framing::of_request(head)?.ok_or(RequestError::NotImplemented)?,
        persistent: head.version > Version::Http10,
        expect_continue: false,
        upgrade: Upgrade::None,
        te_trailers: false,
    };
    if head.has_any(TELLING) {
        let connection = Connection::of(head)?;
        request.persistent = connection.persistent(head.version);
        request.upgrade = framing::upgrade(head, connection);
        request.te_trailers = framing::te_trailers(head);
        request.expect_continue = !matches!(request.framing, Framing::None | Framing::Length(0))
            && framing::expects_continue(head);
    }
    Ok(Some(request))
}

/// Fields that say something about the connection; most requests have none.
const TELLING: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::Expect,
    FieldId::Te,
    FieldId::Upgrade,
]);

/// Refuses early what can be seen before the head is whole: nobody should wait for the rest of a wrong request.
#[cold]
fn unfinished_request(
    bytes: &[u8],
    first_line_ended: bool,
    scan: &mut Scan,
    head: &mut Head,
) -> Result<(), RequestError> {
    let message = &bytes[leading_line(bytes)..];
    if first_line_ended && !scan.start_line_seen {
        scan.start_line_seen = true;
        RequestLine::read(message, head)?;
        head.clear();
    } else if !first_line_ended {
        match message.first() {
            Some(b'\r') if bytes.len() == 1 => {}
            Some(&byte) if !syntax::is_token_byte(byte) => return Err(Defect::StartLine.into()),
            _ => {}
        }
        if message.len() > START_LINE_BYTES_MAX {
            return Err(RequestError::TargetTooLong);
        }
    }
    Ok(())
}

/// A request line with the longest target, and room for a method and the version.
const START_LINE_BYTES_MAX: usize = TARGET_BYTES_MAX + METHOD_BYTES_MAX + 16;

/// Bytes of a method. The longest registered has 17.
const METHOD_BYTES_MAX: usize = 256;

/// The length of the one empty line that may come before a request line (RFC 9112 2.2).
#[inline]
fn leading_line(bytes: &[u8]) -> usize {
    if bytes.starts_with(b"\r\n") { 2 } else { 0 }
}

/// A request line: the parts whose meaning waits for the fields.
struct RequestLine {
    /// Bytes of the line, its end included.
    bytes: usize,
    target: Span,
    class: TargetClass,
}

impl RequestLine {
    /// Reads the line at the front of `message`: method and version go into `head`.
    #[inline]
    fn read(message: &[u8], head: &mut Head) -> Result<Self, RequestError> {
        let line_end = memchr(b'\n', message).ok_or(Defect::LineEnd)?;
        let Some((b'\r', line)) = message[..line_end].split_last() else {
            return Err(Defect::LineEnd.into());
        };
        let method_end = line
            .iter()
            .position(|&byte| !syntax::is_token_byte(byte))
            .unwrap_or(line.len());
        if method_end == 0 || method_end > METHOD_BYTES_MAX || line.get(method_end) != Some(&b' ') {
            return Err(if memchr(b'\r', line).is_some() {
                Defect::LineEnd
            } else {
                Defect::StartLine
            }
            .into());
        }
        // The version is known by its length, so the target needs no search for its end.
        let version = match line {
            [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor]
                if minor.is_ascii_digit() =>
            {
                if *minor == b'0' {
                    Version::Http10
                } else {
                    Version::Http11
                }
            }
            _ => return Err(version_error(line, method_end)),
        };
        let target_start = method_end + 1;
        let target_end = line.len() - b" HTTP/1.1".len();
        if target_end <= target_start {
            return Err(Defect::StartLine.into());
        }
        if target_end - target_start > TARGET_BYTES_MAX {
            return Err(RequestError::TargetTooLong);
        }
        if &line[..method_end] == b"CONNECT" {
            return Err(RequestError::ConnectRefused);
        }
        let target = &line[target_start..target_end];
        let class = TargetClass::of(target);
        if class.is_refused() {
            return Err(if memchr(b'\r', target).is_some() {
                Defect::LineEnd
            } else {
                Defect::Target
            }
            .into());
        }
        head.method = Span::new(0, method_end);
        head.version = version;
        Ok(Self {
            bytes: line_end + 1,
            target: Span::new(target_start, target_end),
            class,
        })
    }

    /// Sets target and authority, now that the text and the fields are there.
    #[inline]
    fn resolve(self, head: &mut Head) -> Result<(), RequestError> {
        set_host(head)?;
        head.target = self.target;
        let target = head.text(self.target);
        if target[0] != b'/' {
            if target == b"*" {
                return if head.method() == b"OPTIONS" {
                    Ok(())
                } else {
                    Err(Defect::Target.into())
                };
            }
            split_absolute(head, self.target)?;
        }
        if self.class.has_escapes() && !target::has_valid_escapes(head.target()) {
            return Err(Defect::Target.into());
        }
        if self.class.needs_escape() {
            let start = head.text.len();
            let mut escaped = std::mem::take(&mut head.text);
            let raw = escaped[head.target.start as usize..head.target.end() as usize].to_vec();
            target::escape_into(&mut escaped, &raw);
            head.text = escaped;
            head.target = Span::new(start, head.text.len());
        }
        Ok(())
    }
}

/// What is wrong with a line that does not end with ` HTTP/1.x`.
#[cold]
fn version_error(line: &[u8], method_end: usize) -> RequestError {
    if memchr(b'\r', line).is_some() {
        return Defect::LineEnd.into();
    }
    let mut words = line[method_end + 1..].split(|&byte| byte == b' ');
    match (words.next(), words.next(), words.next()) {
        // HTTP/0.9: a method, a target and nothing.
        (Some([b'/', ..]), None, None) => RequestError::VersionNotSupported,
        (Some([_, ..]), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            RequestError::VersionNotSupported
        }
        _ => Defect::StartLine.into(),
    }
}

/// The authority from the Host field: there once in HTTP/1.1, at most once in HTTP/1.0, and valid.
#[inline]
fn set_host(head: &mut Head) -> Result<(), RequestError> {
    if !head.has(FieldId::Host) {
        return if head.version == Version::Http10 {
            Ok(())
        } else {
            Err(RequestError::HostMissing)
        };
    }
    let mut hosts = head.fields.iter().filter(|field| field.id == FieldId::Host);
    let host = hosts.next().map(|field| field.value).unwrap_or_default();
    if hosts.next().is_some() {
        return Err(Defect::HostRepeated.into());
    }
    if !syntax::is_authority(head.text(host)) {
        return Err(Defect::Host.into());
    }
    head.authority = host;
    Ok(())
}

/// Takes an absolute-form target apart: its authority wins over Host, its rest becomes the target (RFC 9112 3.2.2).
#[cold]
fn split_absolute(head: &mut Head, span: Span) -> Result<(), RequestError> {
    let target = head.text(span);
    let scheme_bytes = [&b"http://"[..], b"https://"]
        .iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(Defect::Target)?
        .len();
    let rest = &target[scheme_bytes..];
    let authority_bytes = rest
        .iter()
        .position(|&byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    if !syntax::is_authority(&rest[..authority_bytes]) {
        return Err(Defect::Host.into());
    }
    let start = span.start as usize + scheme_bytes;
    let path = start + authority_bytes..span.end() as usize;
    head.authority = Span::new(start, path.start);
    if head.has(FieldId::Host) {
        let authority = head.authority;
        for field in head
            .fields
            .iter_mut()
            .filter(|field| field.id == FieldId::Host)
        {
            field.value = authority;
            field.written = false;
        }
    }
    head.target = Span::new(path.start, path.end);
    if head.text.get(path.start) != Some(&b'/') || path.is_empty() {
        // No path: the root, or for OPTIONS the server itself.
        let root = if path.is_empty() && head.method() == b"OPTIONS" {
            b'*'
        } else {
            b'/'
        };
        let at = head.text.len();
        head.text.push(root);
        head.text.extend_from_within(path);
        head.target = Span::new(at, head.text.len());
    }
    Ok(())
}

/// Reads the response head at the front of `bytes` into `head`; `None` if it is not all there.
///
/// `scan` belongs to the connection: pass the same one while the same head is coming. Interim answers (1xx) are heads
/// of their own: call again with what follows them.
///
/// # Errors
/// See [`ResponseError`].
pub fn response(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
    asked: Asked,
) -> Result<Option<Response>, ResponseError> {
    head.clear();
    let result = whole_response(bytes, scan, head, asked);
    if !matches!(result, Ok(None)) {
        *scan = Scan::default();
    }
    result
}

#[inline]
fn whole_response(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
    asked: Asked,
) -> Result<Option<Response>, ResponseError> {
    match scan.search(bytes)? {
        Found::Head => {}
        Found::Part { .. } => {
            let is_possible = bytes
                .iter()
                .zip(b"HTTP/1.")
                .all(|(byte, expected)| byte == expected);
            return if is_possible {
                Ok(None)
            } else {
                Err(Defect::StartLine.into())
            };
        }
        Found::TooLarge => return Err(ResponseError::HeadTooLarge),
    }
    let line_bytes = status_line(bytes, head)?;
    let head_bytes = lines::fields(bytes, line_bytes, head)?;
    if head_bytes > HEAD_BYTES_MAX {
        return Err(ResponseError::HeadTooLarge);
    }
    let connection = if head.has(FieldId::Connection) {
        Connection::of(head)?
    } else {
        Connection::default()
    };
    let mut response = Response {
        head_bytes,
        framing: Framing::None,
        content_length: framing::content_length(head, true)?,
        persistent: connection.persistent(head.version),
    };
    let is_chunked = head.has(FieldId::TransferEncoding);
    if is_chunked {
        if response.content_length.is_some() {
            return Err(Defect::LengthAndCoding.into());
        }
        match framing::coding(head)? {
            Coding::Chunked => {}
            Coding::Unsupported => return Err(Defect::Coding.into()),
        }
    }
    if head.status == 101 && !asked.upgrade {
        return Err(Defect::SwitchUnasked.into());
    }
    if matches!(head.status, 100..=199 | 204) {
        // There is no body; a server that declares one will send bytes that belong to nothing.
        response.persistent &= !is_chunked && response.content_length.unwrap_or(0) == 0;
    } else if !asked.head && head.status != 304 {
        response.framing = match response.content_length {
            _ if is_chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        };
        response.persistent &= response.framing != Framing::UntilClose;
    }
    Ok(Some(response))
}

/// Reads the status line at the front of `message` into `head`; its bytes. The reason phrase is checked and forgotten.
#[inline]
fn status_line(message: &[u8], head: &mut Head) -> Result<usize, Defect> {
    let line_end = memchr(b'\n', message).ok_or(Defect::LineEnd)?;
    let Some((b'\r', line)) = message[..line_end].split_last() else {
        return Err(Defect::LineEnd);
    };
    let [
        b'H',
        b'T',
        b'T',
        b'P',
        b'/',
        b'1',
        b'.',
        minor,
        b' ',
        hundreds,
        tens,
        ones,
        reason @ ..,
    ] = line
    else {
        return Err(Defect::StartLine);
    };
    let is_well_formed = minor.is_ascii_digit()
        && matches!(hundreds, b'1'..=b'9')
        && tens.is_ascii_digit()
        && ones.is_ascii_digit()
        && matches!(reason, [] | [b' ', ..])
        && syntax::is_value(reason);
    if !is_well_formed {
        return Err(Defect::StartLine);
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    head.status = digit(hundreds) * 100 + digit(tens) * 10 + digit(ones);
    head.version = if *minor == b'0' {
        Version::Http10
    } else {
        Version::Http11
    };
    Ok(line_end + 1)
}
