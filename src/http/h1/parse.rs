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
    // Nearly every head comes in one piece and is good: then reading it finds its end as well.
    if scan.is_new()
        && let Ok(request) = read_request(bytes, head)
    {
        return Ok(Some(request));
    }
    searched_request(bytes, scan, head)
}

/// Tells the unfinished head from the wrong one, and a wrong one by its first defect.
#[cold]
fn searched_request(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
) -> Result<Option<Request>, RequestError> {
    head.clear();
    match scan.search(bytes)? {
        Found::Head => read_request(bytes, head).map(Some),
        Found::Part { first_line_ended } => {
            unfinished_request(bytes, first_line_ended, scan, head)?;
            Ok(None)
        }
        Found::TooLarge => Err(RequestError::HeadTooLarge),
    }
}

/// Reads a head that is whole; one that is not has some defect.
#[inline]
fn read_request(bytes: &[u8], head: &mut Head) -> Result<Request, RequestError> {
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
    Ok(request)
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
        match Self::read_get(message, head) {
            Some(line) => Ok(line),
            None => Self::read_any(message, head),
        }
    }

    /// Reads `GET <target> HTTP/1.1`, the usual line; `None` for any other, good or not.
    #[inline]
    fn read_get(message: &[u8], head: &mut Head) -> Option<Self> {
        let rest = message.strip_prefix(b"GET ")?;
        let (class, target_bytes) = TargetClass::of_front(rest);
        if target_bytes == 0 || target_bytes > TARGET_BYTES_MAX {
            return None;
        }
        if !rest[target_bytes..].starts_with(b" HTTP/1.1\r\n") {
            return None;
        }
        let target_end = b"GET ".len() + target_bytes;
        head.method = Span::new(0, b"GET".len());
        head.version = Version::Http11;
        Some(Self {
            bytes: target_end + b" HTTP/1.1\r\n".len(),
            target: Span::new(b"GET ".len(), target_end),
            class,
        })
    }

    fn read_any(message: &[u8], head: &mut Head) -> Result<Self, RequestError> {
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
            let raw = head.target().to_vec();
            head.set_target(&raw);
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
    if scan.is_new()
        && let Ok(response) = read_response(bytes, head, asked)
    {
        return Ok(Some(response));
    }
    searched_response(bytes, scan, head, asked)
}

/// Tells the unfinished head from the wrong one, and a wrong one by its first defect.
#[cold]
fn searched_response(
    bytes: &[u8],
    scan: &mut Scan,
    head: &mut Head,
    asked: Asked,
) -> Result<Option<Response>, ResponseError> {
    head.clear();
    match scan.search(bytes)? {
        Found::Head => read_response(bytes, head, asked).map(Some),
        Found::Part { .. } => {
            let is_possible = bytes
                .iter()
                .zip(b"HTTP/1.")
                .all(|(byte, expected)| byte == expected);
            if is_possible {
                Ok(None)
            } else {
                Err(Defect::StartLine.into())
            }
        }
        Found::TooLarge => Err(ResponseError::HeadTooLarge),
    }
}

/// Reads a head that is whole; one that is not has some defect.
#[inline]
fn read_response(bytes: &[u8], head: &mut Head, asked: Asked) -> Result<Response, ResponseError> {
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
    Ok(response)
}

/// Reads the status line at the front of `message` into `head`; its bytes. The reason phrase is checked and forgotten.
#[inline]
fn status_line(message: &[u8], head: &mut Head) -> Result<usize, Defect> {
    const USUAL: &[u8] = b"HTTP/1.1 200 OK\r\n";
    if message.starts_with(USUAL) {
        head.status = 200;
        head.version = Version::Http11;
        return Ok(USUAL.len());
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{CONNECTION_OPTIONS_MAX, HEAD_FIELDS_MAX};

    /// What a request reads as, in one line, whether it comes at once or byte by byte.
    fn read_request(bytes: &[u8]) -> Result<Option<String>, RequestError> {
        let mut head = Head::default();
        let at_once = request(bytes, &mut Scan::default(), &mut head);
        let result = at_once.map(|found| found.map(|found| describe_request(&found, &head)));
        let mut scan = Scan::default();
        let mut stepwise = Ok(None);
        for length in 1..=bytes.len() {
            let step = request(&bytes[..length], &mut scan, &mut head);
            stepwise = step.map(|found| found.map(|found| describe_request(&found, &head)));
            if !matches!(stepwise, Ok(None)) {
                break;
            }
        }
        // Byte by byte, a defect may show before another that comes first at once; never a different success.
        assert_eq!(
            stepwise.is_err(),
            result.is_err(),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
        if result.is_ok() {
            assert_eq!(stepwise, result);
        }
        result
    }

    fn describe_request(request: &Request, head: &Head) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut line = format!(
            "{} {} {} {:?}",
            text(head.method()),
            text(head.target()),
            text(head.authority()),
            request.framing
        );
        if !request.persistent {
            line += " close";
        }
        if request.expect_continue {
            line += " expects";
        }
        if request.upgrade != Upgrade::None {
            line += &format!(" {:?}", request.upgrade);
        }
        if request.te_trailers {
            line += " trailers";
        }
        line
    }

    fn accept(text: impl AsRef<[u8]>, expected: &str) {
        let text = text.as_ref();
        assert_eq!(
            read_request(text),
            Ok(Some(expected.to_owned())),
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }

    fn refuse(text: impl AsRef<[u8]>, error: impl Into<RequestError>) {
        let text = text.as_ref();
        assert_eq!(
            read_request(text),
            Err(error.into()),
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }

    /// A GET with these lines behind a good Host.
    fn with(lines: impl AsRef<[u8]>) -> Vec<u8> {
        [
            b"GET / HTTP/1.1\r\nHost: h\r\n",
            lines.as_ref(),
            b"\r\n\r\n",
        ]
        .concat()
    }

    /// A GET of this target.
    fn of(target: impl AsRef<[u8]>) -> Vec<u8> {
        [b"GET ", target.as_ref(), b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat()
    }

    #[test]
    fn plain_requests() {
        accept("GET / HTTP/1.1\r\nHost: h:80\r\n\r\n", "GET / h:80 None");
        accept("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "GET / h None");
        accept(
            "FOO /a?b HTTP/1.1\r\nhost:\t h \t\r\n\r\n",
            "FOO /a?b h None",
        );
        accept("GET / HTTP/1.9\r\nHost: h\r\n\r\n", "GET / h None");
        accept("GET / HTTP/1.0\r\n\r\n", "GET /  None close");
        accept(
            "GET / HTTP/1.0\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n",
            "GET / h None",
        );
        accept("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * h None");
        accept("GET / HTTP/1.1\r\nHost: h\r\n\r\nnext", "GET / h None");
        for part in [
            "",
            "\r",
            "\r\n",
            "G",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r",
        ] {
            assert_eq!(read_request(part.as_bytes()), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn a_head_takes_its_bytes_and_no_more() {
        let check = |text: &str, expected| {
            let found = request(text.as_bytes(), &mut Scan::default(), &mut Head::default());
            assert_eq!(
                found.map(|found| found.map(|found| found.head_bytes)),
                Ok(Some(expected)),
                "{text:?}"
            );
        };
        check("GET / HTTP/1.1\r\nHost: h\r\n\r\n", 27);
        check("\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 29);
        check(
            "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            27,
        );
        check("GET / HTTP/1.1\r\nHost: h\r\n\r\n\r\n", 27);
    }

    #[test]
    fn start_lines() {
        for line in [
            " GET / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET\t/ HTTP/1.1",
            "GET / http/1.1",
            "GET / HTTP/1.10",
            "GET / HTTP/11",
            "GET / HTTP/1.x",
            "GET HTTP/1.1",
            "GET  HTTP/1.1",
            "GET / FTP/1.1",
            "/ HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET",
            "\u{16}\u{3}\u{1}",
            "\r\n",
        ] {
            refuse(format!("{line}\r\nHost: h\r\n\r\n"), Defect::StartLine);
        }
        for line in [
            "GET /",
            "GET / HTTP/0.9",
            "GET / HTTP/2.0",
            "PRI * HTTP/2.0",
            "GET / HTTP/3.1",
        ] {
            refuse(
                format!("{line}\r\nHost: h\r\n\r\n"),
                RequestError::VersionNotSupported,
            );
        }
        for line in ["CONNECT h:443 HTTP/1.1", "CONNECT / HTTP/1.1"] {
            refuse(
                format!("{line}\r\nHost: h\r\n\r\n"),
                RequestError::ConnectRefused,
            );
        }
        refuse(
            format!(
                "{} / HTTP/1.1\r\nHost: h\r\n\r\n",
                "M".repeat(METHOD_BYTES_MAX + 1)
            ),
            Defect::StartLine,
        );
    }

    #[test]
    fn targets() {
        accept(
            of("/x%2Fy%20z/../q//r?a=1;b=2&c=%zz"),
            "GET /x%2Fy%20z/../q//r?a=1;b=2&c=%zz h None",
        );
        accept(of("//other/x"), "GET //other/x h None");
        accept(
            of("/\"<>\\^`{|}?\""),
            "GET /%22%3C%3E%5C%5E%60%7B%7C%7D?%22 h None",
        );
        accept(of("/é"), "GET /%C3%A9 h None");
        accept(of(b"/\xff"), "GET /%FF h None");
        accept(of("http://a:81/b?c"), "GET /b?c a:81 None");
        accept(of("HTTPS://a"), "GET / a None");
        accept(of("http://a?b"), "GET /?b a None");
        accept(of("http://[::1]/é"), "GET /%C3%A9 [::1] None");
        accept(
            "OPTIONS http://a HTTP/1.1\r\nHost: h\r\n\r\n",
            "OPTIONS * a None",
        );
        accept(
            "OPTIONS http://a? HTTP/1.1\r\nHost: h\r\n\r\n",
            "OPTIONS /? a None",
        );
        for target in [
            "*",
            "a",
            "h:80",
            "?a",
            "ftp://a/",
            "http:/a",
            "http:a",
            "/a#b",
            "/a b",
            " /",
            "/ ",
            "/\t",
            "/\u{0}",
            "/\u{7f}",
            "/%",
            "/%4",
            "/%zz",
            "/%4?",
            "http://a/%zz",
        ] {
            refuse(of(target), Defect::Target);
        }
        for target in [
            "http://",
            "http:///a",
            "http://u@a/",
            "http://u:p@a/",
            "http://a,b/",
            "http://a:b/",
            "http://é/",
        ] {
            refuse(of(target), Defect::Host);
        }
        refuse(
            of(format!("/{}", "a".repeat(TARGET_BYTES_MAX))),
            RequestError::TargetTooLong,
        );
    }

    #[test]
    fn an_endless_target_is_refused_before_its_end() {
        let bytes = format!("GET /{}", "a".repeat(START_LINE_BYTES_MAX));
        let found = request(bytes.as_bytes(), &mut Scan::default(), &mut Head::default());
        assert_eq!(found, Err(RequestError::TargetTooLong));
    }

    #[test]
    fn absolute_targets_replace_the_host_field() {
        let mut head = Head::default();
        request(&of("http://a/b"), &mut Scan::default(), &mut head).expect("a good request");
        assert_eq!(head.values(FieldId::Host).collect::<Vec<_>>(), [b"a"]);
    }

    #[test]
    fn hosts() {
        refuse("GET / HTTP/1.1\r\n\r\n", RequestError::HostMissing);
        refuse("GET http://a/ HTTP/1.1\r\n\r\n", RequestError::HostMissing);
        refuse(with("Host: h"), Defect::HostRepeated);
        refuse(
            "GET / HTTP/1.0\r\nHost: h\r\nhost: h\r\n\r\n",
            Defect::HostRepeated,
        );
        for host in [
            "", "a b", "a,b", "u@a", "a/b", "a:b", "http://a", "a?", "a#", "<a>", "\u{80}", "[::1",
            "a:1:2",
        ] {
            refuse(
                format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                Defect::Host,
            );
            refuse(
                format!("GET http://a/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
                Defect::Host,
            );
        }
    }

    #[test]
    fn lines_end_with_crlf_only() {
        for text in [
            "GET / HTTP/1.1\nHost: h\n\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\nC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\rC: d\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA: b\r\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\nA\r: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\rA: b\r\n\r\n",
            "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n",
            "GET /\r HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET\r / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ] {
            refuse(text, Defect::LineEnd);
        }
        refuse(
            "\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            Defect::StartLine,
        );
    }

    #[test]
    fn field_lines() {
        accept(with("A:"), "GET / h None");
        accept(with("A: \t "), "GET / h None");
        accept(with("!#$%&'*+-.^_`|~09: \u{e9}\tb"), "GET / h None");
        for line in [
            "A : b",
            "A\t: b",
            "A",
            ": b",
            "A b: c",
            "A(: b",
            "Ä: b",
            "A\u{0}: b",
            "\u{b}A: b",
            "A;b",
        ] {
            refuse(with(line), Defect::FieldName);
        }
        for line in [
            "A: b\u{0}c",
            "A: \u{1}",
            "A: b\u{7f}",
            "A: \u{1b}[31m",
            "A: \u{c}",
            "A: b\u{b}",
        ] {
            refuse(with(line), Defect::FieldValue);
        }
        for line in [
            "A: b\r\n c",
            "A: b\r\n\tc",
            " A: b",
            "A:\r\n b",
            "Content-Length: 1\r\n 0",
        ] {
            refuse(with(line), Defect::Folding);
        }
        refuse("GET / HTTP/1.1\r\n Host: h\r\n\r\n", Defect::Folding);
    }

    #[test]
    fn values_are_trimmed() {
        let mut head = Head::default();
        request(&with("A: \t b c \t\r\nB:"), &mut Scan::default(), &mut head)
            .expect("a good request");
        assert_eq!(head.values_named(b"a").collect::<Vec<_>>(), [b"b c"]);
        assert_eq!(head.values_named(b"b").collect::<Vec<_>>(), [b""]);
    }

    #[test]
    fn sizes_are_bounded() {
        accept(
            with(vec!["A: b"; HEAD_FIELDS_MAX - 1].join("\r\n")),
            "GET / h None",
        );
        let mut scan = Scan::default();
        let many = with(vec!["A: b"; HEAD_FIELDS_MAX].join("\r\n"));
        assert_eq!(
            request(&many, &mut scan, &mut Head::default()),
            Err(RequestError::HeadTooLarge)
        );
        let large = with(format!("A: {}", "b".repeat(HEAD_BYTES_MAX)));
        assert_eq!(
            request(&large, &mut scan, &mut Head::default()),
            Err(RequestError::HeadTooLarge)
        );
        assert_eq!(
            request(&large[..large.len() - 1], &mut scan, &mut Head::default()),
            Err(RequestError::HeadTooLarge)
        );
        accept(
            with(format!(
                "Connection: {}",
                "a,".repeat(CONNECTION_OPTIONS_MAX)
            )),
            "GET / h None",
        );
        refuse(
            with(format!(
                "Connection: {}",
                "a,".repeat(CONNECTION_OPTIONS_MAX + 1)
            )),
            Defect::ConnectionOptions,
        );
    }

    #[test]
    fn request_framing() {
        accept(with("Content-Length: 0"), "GET / h Length(0)");
        accept(with("content-length: 0042"), "GET / h Length(42)");
        accept(
            with("Content-Length: 9223372036854775807"),
            "GET / h Length(9223372036854775807)",
        );
        for value in [
            "+5",
            "-1",
            "5x",
            "0x5",
            "",
            "5 5",
            "5,5",
            "5, 5",
            "5;",
            "9223372036854775808",
            "18446744073709551617",
            "99999999999999999999",
            "00000000000000000005",
            "\u{b2}",
            "5.0",
            "1e3",
        ] {
            refuse(with(format!("Content-Length: {value}")), Defect::Length);
        }
        refuse(
            with("Content-Length: 5\r\nContent-Length: 5"),
            Defect::LengthRepeated,
        );
        refuse(
            with("Content-Length: 5\r\ncontent-length: 6"),
            Defect::LengthRepeated,
        );
        accept(with("Transfer-Encoding: chunked"), "GET / h Chunked");
        accept(with("transfer-encoding:Chunked "), "GET / h Chunked");
        refuse(
            with("Transfer-Encoding: chunked\r\nContent-Length: 5"),
            Defect::LengthAndCoding,
        );
        refuse(
            with("Content-Length: 0\r\nTransfer-Encoding: gzip"),
            Defect::LengthAndCoding,
        );
        refuse(
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Defect::Coding,
        );
        for value in [
            "chunked, chunked",
            "identity",
            "xchunked",
            "chunked;q=1",
            "",
            ",",
            "chunked,",
            ",chunked",
            "\"chunked\"",
            "chunked, gzip",
            "chunked, identity",
            "identity, chunked",
            "gzip, xchunked",
            "gzip chunked",
            "gzip,,chunked",
            "\u{b}chunked",
        ] {
            let defect = if value.contains('\u{b}') {
                Defect::FieldValue
            } else {
                Defect::Coding
            };
            refuse(with(format!("Transfer-Encoding: {value}")), defect);
        }
        refuse(
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            Defect::Coding,
        );
        refuse(
            with("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
            Defect::Coding,
        );
        for value in [
            "gzip",
            "gzip, chunked",
            "Deflate,x-gzip , Chunked",
            "compress",
        ] {
            refuse(
                with(format!("Transfer-Encoding: {value}")),
                RequestError::NotImplemented,
            );
        }
        // Names that only look like framing are none.
        accept(
            with("Transfer_Encoding: chunked\r\nContent-Length: 5"),
            "GET / h Length(5)",
        );
    }

    #[test]
    fn connections() {
        accept(with("Connection: close"), "GET / h None close");
        accept(with("Connection: keep-alive, CLOSE"), "GET / h None close");
        accept(
            with("Connection: keep-alive\r\nConnection: close"),
            "GET / h None close",
        );
        accept(with("Connection: closed"), "GET / h None");
        accept(
            "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
            "GET /  None close",
        );
        accept(
            "GET / HTTP/1.0\r\nConnection: x\r\n\r\n",
            "GET /  None close",
        );
        accept(with("TE: gzip, Trailers"), "GET / h None trailers");
        accept(with("TE: trailer"), "GET / h None");
        accept(
            with("Expect: 100-continue\r\nContent-Length: 1"),
            "GET / h Length(1) expects",
        );
        accept(
            with("Expect: 100-Continue\r\nTransfer-Encoding: chunked"),
            "GET / h Chunked expects",
        );
        accept(with("Expect: 100-continue"), "GET / h None");
        accept(
            "PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            "PUT /  Length(1) close",
        );
    }

    #[test]
    fn upgrades() {
        let check =
            |lines: &str, expected: &str| accept(with(lines), &format!("GET / h None{expected}"));
        check("Connection: Upgrade\r\nUpgrade: WebSocket", " WebSocket");
        check(
            "Connection: keep-alive, upgrade\r\nUpgrade: websocket",
            " WebSocket",
        );
        check(
            "Connection: upgrade\r\nUpgrade: foo, websocket",
            " WebSocket",
        );
        check("Connection: upgrade\r\nUpgrade: foo/2", " Other");
        check("Connection: upgrade", "");
        check("Upgrade: websocket", "");
        check(
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x",
            "",
        );
        check("Connection: upgrade\r\nUpgrade: websocket, h2c", "");
        check("Connection: upgrade\r\nUpgrade: HTTP/2.0", "");
        accept(
            "GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            "GET /  None close",
        );
    }

    #[test]
    fn wrong_requests_are_refused_before_their_end() {
        let check = |bytes: &str, error: RequestError| {
            let found = request(bytes.as_bytes(), &mut Scan::default(), &mut Head::default());
            assert_eq!(found, Err(error), "{bytes:?}");
        };
        check("\u{16}\u{3}\u{1}", Defect::StartLine.into());
        check("GET /\r\n", RequestError::VersionNotSupported);
        check("GET / HTTP/1.1\r\nA: b\n", Defect::LineEnd.into());
        check("CONNECT h:1 HTTP/1.1\r\n", RequestError::ConnectRefused);
    }

    fn read_response(text: &str, asked: Asked) -> Result<Option<String>, ResponseError> {
        let mut head = Head::default();
        let found = response(text.as_bytes(), &mut Scan::default(), &mut head, asked)?;
        Ok(found.map(|found| {
            let mut line = format!("{} {:?}", head.status, found.framing);
            if let Some(length) = found
                .content_length
                .filter(|_| found.framing == Framing::None)
            {
                line += &format!(" ({length})");
            }
            if !found.persistent {
                line += " close";
            }
            line
        }))
    }

    fn accept_response(text: &str, asked: Asked, expected: &str) {
        assert_eq!(
            read_response(text, asked),
            Ok(Some(expected.to_owned())),
            "{text:?} {asked:?}"
        );
    }

    fn refuse_response(text: &str, error: impl Into<ResponseError>) {
        assert_eq!(
            read_response(text, Asked::default()),
            Err(error.into()),
            "{text:?}"
        );
    }

    const GET: Asked = Asked {
        head: false,
        upgrade: false,
    };
    const HEAD: Asked = Asked {
        head: true,
        upgrade: false,
    };
    const SWITCH: Asked = Asked {
        head: false,
        upgrade: true,
    };

    #[test]
    fn response_framing() {
        let check = |asked, status: &str, lines: &str, expected: &str| {
            accept_response(
                &format!("HTTP/1.1 {status}\r\n{lines}\r\n"),
                asked,
                expected,
            );
        };
        check(GET, "200 OK", "Content-Length: 5\r\n", "200 Length(5)");
        check(
            GET,
            "200 OK",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "200 Length(5)",
        );
        check(
            GET,
            "200 OK",
            "Transfer-Encoding: chunked\r\n",
            "200 Chunked",
        );
        check(GET, "200 OK", "", "200 UntilClose close");
        check(
            GET,
            "200 OK",
            "Connection: keep-alive\r\n",
            "200 UntilClose close",
        );
        check(
            GET,
            "200 OK",
            "Content-Length: 0\r\nConnection: close\r\n",
            "200 Length(0) close",
        );
        check(HEAD, "200 OK", "Content-Length: 5\r\n", "200 None (5)");
        check(HEAD, "200 OK", "Transfer-Encoding: chunked\r\n", "200 None");
        check(GET, "204 No Content", "", "204 None");
        check(
            GET,
            "204 No Content",
            "Content-Length: 0\r\n",
            "204 None (0)",
        );
        check(
            GET,
            "204 No Content",
            "Content-Length: 5\r\n",
            "204 None (5) close",
        );
        check(
            GET,
            "204 No Content",
            "Transfer-Encoding: chunked\r\n",
            "204 None close",
        );
        check(
            GET,
            "304 Not Modified",
            "Content-Length: 5\r\n",
            "304 None (5)",
        );
        check(GET, "100 Continue", "", "100 None");
        check(GET, "103 Early Hints", "Link: x\r\n", "103 None");
        check(
            SWITCH,
            "101 Switching Protocols",
            "Upgrade: websocket\r\n",
            "101 None",
        );
        check(SWITCH, "200 OK", "Content-Length: 1\r\n", "200 Length(1)");
        check(GET, "200", "Content-Length: 1\r\n", "200 Length(1)");
        check(GET, "200 ", "Content-Length: 1\r\n", "200 Length(1)");
        check(
            GET,
            "999 Any \u{e9}\t",
            "Content-Length: 1\r\n",
            "999 Length(1)",
        );
        accept_response(
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
            GET,
            "200 Length(5) close",
        );
        accept_response(
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
            GET,
            "200 Length(5)",
        );
        accept_response("HTTP/1.0 200 OK\r\n\r\n", GET, "200 UntilClose close");
        for part in [
            "",
            "HTT",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r",
        ] {
            assert_eq!(read_response(part, GET), Ok(None), "{part:?}");
        }
    }

    #[test]
    fn broken_responses() {
        let check = |lines: &str, defect: Defect| {
            refuse_response(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n"), defect)
        };
        check(
            "Content-Length: 5\r\nContent-Length: 6",
            Defect::LengthRepeated,
        );
        check(
            "Content-Length: 5\r\nContent-Length: 05",
            Defect::LengthRepeated,
        );
        check("Content-Length: 5, 5", Defect::Length);
        check("Content-Length: -1", Defect::Length);
        check("Content-Length:", Defect::Length);
        check(
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            Defect::LengthAndCoding,
        );
        check("Transfer-Encoding: gzip, chunked", Defect::Coding);
        check("Transfer-Encoding: identity", Defect::Coding);
        check(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Defect::Coding,
        );
        check("A: b\r\n c", Defect::Folding);
        check("A : b", Defect::FieldName);
        check("A: b\u{0}", Defect::FieldValue);
        check("A: b\nC: d", Defect::LineEnd);
        refuse_response(
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Defect::Coding,
        );
        refuse_response(
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            Defect::SwitchUnasked,
        );
        refuse_response("HTTP/1.1 200 OK\n\n", Defect::LineEnd);
        refuse_response(
            &format!(
                "HTTP/1.1 200 OK\r\n{}\r\n",
                "A: b\r\n".repeat(HEAD_FIELDS_MAX + 1)
            ),
            ResponseError::HeadTooLarge,
        );
        for line in [
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 099 OK",
            "HTTP/1.1 2x0 OK",
            "HTTP/1.1  200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.x 200 OK",
            "http/1.1 200 OK",
            "ICY 200 OK",
            "HTTP/1.1 200OK",
            "HTTP/1.1 200 O\u{0}K",
            "HTTP/1.1 200 \u{1b}",
            "",
            "SSH-2.0",
        ] {
            refuse_response(&format!("{line}\r\n\r\n"), Defect::StartLine);
        }
        refuse_response("SSH-2.0-OpenSSH\r\n", Defect::StartLine);
    }
}
