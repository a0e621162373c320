//! HTTP/1.1 as a strict reader sees it, on one socket.
//!
//! Owns the reading of heads and bodies for both the client and the origin of the tests. Written apart from the program's
//! own parser on purpose: a mistake there must not be repeated here. Never repairs anything: what a strict reader would
//! refuse is a [`Cut`].

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::wait::{DEADLINE, eventually};

/// Field lines in order, names spelled as they came.
pub type Fields = Vec<(String, String)>;

/// A start line and its field lines, in order and spelling as on the wire.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub fields: Fields,
}

impl Head {
    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The values of all fields of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.as_str())
            .collect()
    }

    /// Second word of the start line: the target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }
}

/// How the end of a body was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There can be none.
    Empty,
    Length,
    Chunked,
    Close,
}

#[derive(Clone, Debug)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub framing: Framing,
    pub trailers: Fields,
}

/// A whole response, with the interim ones before it.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Text after the status.
    pub reason: String,
    pub head: Head,
    pub body: Vec<u8>,
    pub framing: Framing,
    pub trailers: Fields,
    pub interim: Vec<Head>,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reading stopped before the message was whole, or the message was not one.
#[derive(Debug)]
pub struct Cut {
    pub why: String,
    /// What had come and was not consumed.
    pub got: Vec<u8>,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.got[..self.got.len().min(400)];
        write!(
            f,
            "{} (unread: {:?})",
            self.why,
            String::from_utf8_lossy(shown)
        )
    }
}

/// A socket and what was read from it ahead.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Reads more. False at the end of the stream.
    fn fill(&mut self, until: Instant) -> Result<bool, Cut> {
        let mut piece = [0; 64 * 1024];
        let left = until
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left)).unwrap();
        loop {
            match self.stream.read(&mut piece) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    self.buffer.extend_from_slice(&piece[..n]);
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Err(self.cut("nothing came before the deadline"));
                }
                Err(e) => return Err(self.cut(&format!("the connection broke: {e}"))),
            }
        }
    }

    fn need(&mut self, until: Instant) -> Result<(), Cut> {
        if self.fill(until)? {
            Ok(())
        } else {
            Err(self.cut("the connection ended"))
        }
    }

    fn cut(&self, why: &str) -> Cut {
        Cut {
            why: why.to_owned(),
            got: self.buffer.clone(),
        }
    }

    /// Exactly this many bytes.
    pub fn exactly(&mut self, count: usize) -> Result<Vec<u8>, Cut> {
        let until = Instant::now() + DEADLINE;
        while self.buffer.len() < count {
            self.need(until)?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    /// Whatever has come, at least one byte; empty at the end of the stream.
    pub fn some(&mut self) -> Result<Vec<u8>, Cut> {
        if self.buffer.is_empty() {
            self.fill(Instant::now() + DEADLINE)?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Result<Vec<u8>, Cut> {
        let until = Instant::now() + DEADLINE;
        while self.fill(until)? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// A line without its CRLF. A bare CR or LF is refused.
    fn line(&mut self, until: Instant) -> Result<String, Cut> {
        let mut looked = 0;
        let end = loop {
            if let Some(at) = self.buffer[looked..].iter().position(|&b| b == b'\n') {
                break looked + at;
            }
            looked = self.buffer.len();
            self.need(until)?;
        };
        let line = self.buffer[..end]
            .strip_suffix(b"\r")
            .ok_or_else(|| self.cut("a line ends without CR"))?;
        if line.contains(&b'\r') || line.contains(&0) {
            return Err(self.cut("a bare CR or a NUL inside a line"));
        }
        let line = String::from_utf8_lossy(line).into_owned();
        self.buffer.drain(..=end);
        Ok(line)
    }

    fn fields(&mut self, until: Instant) -> Result<Fields, Cut> {
        let mut fields = Vec::new();
        loop {
            let line = self.line(until)?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(self.cut(&format!("a field line without colon: {line:?}")));
            };
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(token) {
                return Err(self.cut(&format!("not a field name: {name:?}")));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// A head. `Ok(None)` if the stream ended cleanly before its first byte.
    pub fn head(&mut self) -> Result<Option<Head>, Cut> {
        self.head_before(Instant::now() + DEADLINE)
    }

    /// [`Wire::head`] that waits longer, for a connection that may stay idle.
    pub fn head_before(&mut self, until: Instant) -> Result<Option<Head>, Cut> {
        if self.buffer.is_empty() && !self.fill(until)? {
            return Ok(None);
        }
        let start = self.line(until)?;
        let fields = self.fields(until)?;
        Ok(Some(Head { start, fields }))
    }

    /// The body of a request.
    pub fn request_body(&mut self, head: &Head) -> Result<Body, Cut> {
        self.body(head, Framing::Empty)
    }

    fn body(&mut self, head: &Head, unframed: Framing) -> Result<Body, Cut> {
        let lengths = head.all("Content-Length");
        let codings = head.all("Transfer-Encoding");
        let (bytes, framing, trailers) = match (lengths.as_slice(), codings.as_slice()) {
            ([], ["chunked"]) => {
                let (bytes, trailers) = self.chunked()?;
                (bytes, Framing::Chunked, trailers)
            }
            ([length], []) => {
                if length.is_empty() || !length.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(self.cut(&format!("not a length: {length:?}")));
                }
                (
                    self.exactly(length.parse().unwrap())?,
                    Framing::Length,
                    Vec::new(),
                )
            }
            ([], []) if unframed == Framing::Close => (self.rest()?, Framing::Close, Vec::new()),
            ([], []) => (Vec::new(), Framing::Empty, Vec::new()),
            _ => return Err(self.cut(&format!("framing is in doubt: {lengths:?} {codings:?}"))),
        };
        Ok(Body {
            bytes,
            framing,
            trailers,
        })
    }

    fn chunked(&mut self) -> Result<(Vec<u8>, Fields), Cut> {
        let mut bytes = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok((bytes, self.fields(Instant::now() + DEADLINE)?));
            }
            bytes.extend(chunk);
        }
    }

    /// The data of the next chunk; empty for the last one, whose trailers then follow.
    pub fn chunk(&mut self) -> Result<Vec<u8>, Cut> {
        let line = self.line(Instant::now() + DEADLINE)?;
        let size = usize::from_str_radix(&line, 16)
            .ok()
            .filter(|_| !line.starts_with('+'));
        let Some(size) = size else {
            return Err(self.cut(&format!("not a plain chunk size: {line:?}")));
        };
        if size == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.exactly(size)?;
        if self.exactly(2)? != b"\r\n" {
            return Err(self.cut("a chunk does not end with CRLF"));
        }
        Ok(bytes)
    }

    /// A whole response to a request of this method, and the 1xx before it.
    pub fn response(&mut self, method: &str) -> Result<Response, Cut> {
        let mut interim = Vec::new();
        loop {
            let head = self
                .head()?
                .ok_or_else(|| self.cut("the connection ended where a response was due"))?;
            let (status, reason) = self.status(&head)?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
                continue;
            }
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let body = if bodiless {
                Body {
                    bytes: Vec::new(),
                    framing: Framing::Empty,
                    trailers: Vec::new(),
                }
            } else {
                self.body(&head, Framing::Close)?
            };
            let Body {
                bytes: body,
                framing,
                trailers,
            } = body;
            return Ok(Response {
                status,
                reason,
                head,
                body,
                framing,
                trailers,
                interim,
            });
        }
    }

    fn status(&self, head: &Head) -> Result<(u16, String), Cut> {
        let mut words = head.start.splitn(3, ' ');
        let version = words.next().unwrap_or_default();
        let status = words
            .next()
            .filter(|s| s.len() == 3)
            .and_then(|s| s.parse().ok());
        let (Some(status), Some(reason), "HTTP/1.1" | "HTTP/1.0") = (status, words.next(), version)
        else {
            return Err(self.cut(&format!("not a status line: {:?}", head.start)));
        };
        Ok((status, reason.to_owned()))
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.set_write_timeout(Some(DEADLINE)).unwrap();
        self.stream.write_all(bytes)
    }

    /// Waits until the peer's kernel has all that was sent, read or not: on a busy machine that is later than the send.
    pub fn delivered(&self) {
        let port = |address: io::Result<SocketAddr>| format!(":{:04X}", address.unwrap().port());
        let ends = (
            port(self.stream.local_addr()),
            port(self.stream.peer_addr()),
        );
        eventually("the peer has what was sent", || {
            let table = fs::read_to_string("/proc/net/tcp").unwrap();
            // Local and remote address, state, and what is sent and not acknowledged.
            !table.lines().any(|line| {
                let columns: Vec<&str> = line.split_whitespace().collect();
                columns[1].ends_with(&ends.0)
                    && columns[2].ends_with(&ends.1)
                    && !columns[4].starts_with("00000000:")
            })
        });
    }

    pub fn send_until_stuck(&mut self, bytes_max: usize) -> usize {
        self.stream
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let piece = vec![b'x'; 64 * 1024];
        let mut sent = 0;
        while sent < bytes_max {
            match self.stream.write(&piece) {
                Ok(count) => sent += count,
                Err(_) => break,
            }
        }
        sent
    }

    /// Whether bytes, or the end, wait to be read.
    pub fn is_readable(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        !self.buffer.is_empty()
            || !matches!(looked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// No more will be sent; reading goes on.
    pub fn half_close(&self) {
        // The peer may have gone first, which is as good.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends the connection with a reset instead of a close.
    pub fn reset(self) {
        SockRef::from(&self.stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
}
