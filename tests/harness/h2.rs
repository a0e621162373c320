//! Clients that speak HTTP/2: one that behaves (the `h2` crate's), and one that sends exactly the frames it is given.
//!
//! Every wait has a deadline. The second knows just enough of HPACK to send fields and to read a status.

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::runtime::{Builder, Runtime};

use super::wait::{DEADLINE, until};

/// A client on a connection of its own that does everything right.
pub struct Http2 {
    runtime: Runtime,
    pub requests: SendRequest<Bytes>,
}

/// An answer with all that belongs to it.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }
}

impl Http2 {
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &h2::client::Builder::new())
    }

    pub fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let requests = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (requests, connection) = builder.handshake(stream).await.unwrap();
            tokio::spawn(connection);
            requests
        });
        Self { runtime, requests }
    }

    /// Runs the connection until `future` ends.
    #[track_caller]
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(DEADLINE, future).await })
            .expect("an end within the deadline")
    }

    /// Runs the connection until the condition holds; it stands still otherwise.
    #[track_caller]
    pub fn run_until(&self, condition: impl FnMut() -> bool) {
        self.run(until(condition));
    }

    /// Sends a request, with this body or none.
    #[track_caller]
    pub fn ask(&self, request: Request<()>, body: Option<&[u8]>) -> Result<Whole, h2::Error> {
        self.run(async {
            let mut requests = self.requests.clone().ready().await?;
            let (answer, mut stream) = requests.send_request(request, body.is_none())?;
            if let Some(body) = body {
                send(&mut stream, body).await?;
                stream.send_data(Bytes::new(), true)?;
            }
            whole(answer).await
        })
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Whole {
        self.ask(request("GET", target), None).unwrap()
    }

    /// Begins a request whose body is sent later.
    #[track_caller]
    pub fn begin(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.run(async {
            let mut requests = self.requests.clone().ready().await.unwrap();
            requests.send_request(request, false).unwrap()
        })
    }
}

/// A request to the host `test`.
pub fn request(method: &str, target: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://test{target}"))
        .body(())
        .unwrap()
}

/// Sends data as fast as the other side gives credit.
pub async fn send(stream: &mut SendStream<Bytes>, data: &[u8]) -> Result<(), h2::Error> {
    let mut left = Bytes::copy_from_slice(data);
    while !left.is_empty() {
        stream.reserve_capacity(left.len());
        while stream.capacity() == 0 {
            let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
            if room.transpose()?.is_none() {
                return Err(Reason::CANCEL.into());
            }
        }
        let now = left.split_to(stream.capacity().min(left.len()));
        stream.send_data(now, false)?;
    }
    Ok(())
}

pub async fn whole(answer: ResponseFuture) -> Result<Whole, h2::Error> {
    let answer: Response<RecvStream> = answer.await?;
    let (parts, mut stream) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok(Whole {
        status: parts.status.as_u16(),
        fields: parts.headers,
        body,
        trailers: stream.trailers().await?,
    })
}

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + payload.len());
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as HPACK literals that no table remembers: any bytes may stand in them.
pub fn fields(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An HPACK integer with a prefix of seven bits.
fn length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut left = length - 127;
    while left >= 128 {
        block.push(u8::try_from(left % 128).unwrap() | 128);
        left /= 128;
    }
    block.push(u8::try_from(left).unwrap());
}

/// The fields that every request has.
pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "test"),
    (":path", "/"),
];

pub const POST: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "test"),
    (":path", "/"),
];

/// A client that sends exactly the frames it is given.
pub struct Frames<S> {
    wire: S,
    received: Vec<u8>,
}

impl Frames<TcpStream> {
    pub fn connect(address: SocketAddr) -> Self {
        let wire = TcpStream::connect(address).unwrap();
        wire.set_read_timeout(Some(DEADLINE)).unwrap();
        wire.set_write_timeout(Some(DEADLINE)).unwrap();
        wire.set_nodelay(true).unwrap();
        Self::new(wire)
    }

    /// Connects and says hello, with no settings.
    pub fn greet(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.send(PREFACE);
        client.send(frame(SETTINGS, 0, 0, &[]));
        client
    }
}

impl<S: Read + Write> Frames<S> {
    pub fn new(wire: S) -> Self {
        Self {
            wire,
            received: Vec::new(),
        }
    }

    /// Sends as much as the other side takes: it may close before all has gone. Says whether it went.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.wire.write_all(bytes.as_ref()).is_ok() && self.wire.flush().is_ok()
    }

    /// The next frame; `None` at the end of the connection, in order or not.
    #[track_caller]
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, s0, s1, s2, s3, rest @ ..] = self.received.as_slice() {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                if rest.len() >= length {
                    let frame = Frame {
                        kind: *kind,
                        flags: *flags,
                        stream: u32::from_be_bytes([*s0, *s1, *s2, *s3]),
                        payload: rest[..length].to_vec(),
                    };
                    self.received.drain(..9 + length);
                    return Some(frame);
                }
            }
            let mut some = [0; 16 * 1024];
            match self.wire.read(&mut some) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&some[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("no frame and no end came")
                }
                Err(_) => return None,
            }
        }
    }

    /// The next frame that says something of a stream, or of the end: settings, windows and pings are passed over, and
    /// settings confirmed.
    #[track_caller]
    pub fn event(&mut self) -> Option<Frame> {
        loop {
            let next = self.next()?;
            match next.kind {
                SETTINGS if next.flags & ACK == 0 => drop(self.send(frame(SETTINGS, ACK, 0, &[]))),
                SETTINGS | WINDOW_UPDATE => {}
                PING if next.flags & ACK == 0 => {
                    self.send(frame(PING, ACK, 0, &next.payload));
                }
                PING => {}
                _ => return Some(next),
            }
        }
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, stream: u32, lines: &[(&str, &str)]) -> bool {
        self.send(frame(
            HEADERS,
            END_STREAM | END_HEADERS,
            stream,
            &fields(lines),
        ))
    }

    /// What becomes of a stream: the status of its answer, its reset, or the end of the connection.
    #[track_caller]
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let Some(next) = self.event() else {
                return Outcome::Closed;
            };
            match next.kind {
                GOAWAY => return Outcome::GoAway(next.code()),
                RST_STREAM if next.stream == stream => return Outcome::Reset(next.code()),
                HEADERS if next.stream == stream => return Outcome::Status(status(&next.payload)),
                _ => {}
            }
        }
    }
}

/// How a stream ends for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Status(u16),
    Reset(u32),
    GoAway(u32),
    Closed,
}

impl Outcome {
    /// Refused as RFC 9113 5.4 wants a broken stream to be: it, or the whole connection.
    pub fn is_error(self) -> bool {
        match self {
            Self::Reset(code) | Self::GoAway(code) => code != 0,
            Self::Closed => true,
            Self::Status(_) => false,
        }
    }
}

/// The status in a header block, which comes first: an entry of the static table, or a literal.
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x89, ..] => 204,
        [0x8a, ..] => 206,
        [0x8b, ..] => 304,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // Another one of the name at 8, its three digits coded by Huffman: five bits for 0 to 2, six for the others.
        [_, 0x82 | 0x83, a, b, c, ..] => {
            let bits = u32::from_be_bytes([0, *a, *b, *c]);
            let mut at = 24;
            let mut status = 0;
            for _ in 0..3 {
                let five = bits >> (at - 5) & 31;
                let digit = if five < 3 {
                    at -= 5;
                    five
                } else {
                    at -= 6;
                    (bits >> at & 63) - 0x19 + 3
                };
                status = status * 10 + u16::try_from(digit).unwrap();
            }
            status
        }
        [_, 3, a, b, c, ..] => {
            let digit = |byte: u8| u16::from(byte - b'0');
            digit(*a) * 100 + digit(*b) * 10 + digit(*c)
        }
        other => panic!("no status: {other:02x?}"),
    }
}
