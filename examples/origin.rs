//! The upstream of every measurement: a responder that costs far less than any proxy in front of it.
//!
//! `origin [ADDRESS]` listens (default `127.0.0.1:0`), prints `listening on ADDRESS`, and answers a request by its path
//! with a fixed body: `/10k` 10,240 bytes, `/1m` 1,048,576 bytes, everything else 2 bytes; `/ws` is a WebSocket, on which
//! each frame comes back. One thread, keep-alive, pipelining; `Connection: close` is honoured. It ends when it is killed.
//! It does not check what it is sent, and it ignores request bodies: only the load tests may be its clients.
//! Never use it as an example of a server. Read next: `loadtest/common.py`, which starts it.

use std::io::{self, Write};
use std::rc::Rc;

use base64::Engine;
use memchr::memmem::Finder;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use sha1::{Digest, Sha1};

/// Bytes of request heads a connection may have waiting. A client that pipelines more is cut.
const REQUESTS_BYTES_MAX: usize = 64 * 1024;

/// The answers, head and body in one piece each, alive as long as the process, and what is searched for in requests.
struct Answers {
    head_end: Finder<'static>,
    close: Finder<'static>,
    small: &'static [u8],
    ten_kilobytes: &'static [u8],
    one_megabyte: &'static [u8],
}

impl Answers {
    fn new() -> Self {
        Self {
            head_end: Finder::new(b"\r\n\r\n"),
            close: Finder::new(b"onnection: close"),
            small: answer(b"ok"),
            ten_kilobytes: answer(&body(10 * 1024)),
            one_megabyte: answer(&body(1024 * 1024)),
        }
    }

    /// The answer to a request head.
    fn to(&self, head: &[u8]) -> &'static [u8] {
        if head.starts_with(b"GET /10k ") {
            self.ten_kilobytes
        } else if head.starts_with(b"GET /1m ") {
            self.one_megabyte
        } else {
            self.small
        }
    }
}

fn main() -> io::Result<()> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let mut ring = io_uring::IoUring::builder();
    ring.setup_single_issuer().setup_defer_taskrun();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(4096)
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&address)?;
        let mut stdout = io::stdout();
        writeln!(stdout, "listening on {}", listener.local_addr()?)?;
        stdout.flush()?;
        let answers = Rc::new(Answers::new());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            monoio::spawn(serve(stream, Rc::clone(&answers)));
        }
    })
}

/// One connection, until either side closes it. Its errors concern nobody else, so they end it in silence.
async fn serve(mut stream: TcpStream, answers: Rc<Answers>) {
    let mut pending = Vec::with_capacity(8 * 1024);
    let mut chunk = Vec::with_capacity(8 * 1024);
    loop {
        let (received, buffer) = stream.read(chunk).await;
        chunk = buffer;
        let Ok(1..) = received else { return };
        pending.extend_from_slice(&chunk);
        chunk.clear();

        let mut used = 0;
        while let Some(length) = answers.head_end.find(&pending[used..]) {
            let head = &pending[used..used + length];
            used += length + 4;
            if head.starts_with(b"GET /ws ") {
                let accepted = accept(head);
                pending.drain(..used);
                if stream.write_all(accepted).await.0.is_ok() {
                    echo(stream, pending).await;
                }
                return;
            }
            let (sent, _) = stream.write_all(answers.to(head)).await;
            if sent.is_err() || answers.close.find(head).is_some() {
                return;
            }
        }
        pending.drain(..used);
        if pending.len() > REQUESTS_BYTES_MAX {
            return;
        }
    }
}

/// The answer that opens a WebSocket (RFC 6455, 4.2.2).
fn accept(head: &[u8]) -> Vec<u8> {
    // Proxies write names in the case they like.
    const NAME: &[u8] = b"sec-websocket-key: ";
    let key = head
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split_at_checked(NAME.len()))
        .find(|(name, _)| name.eq_ignore_ascii_case(NAME))
        .map_or(&b""[..], |(_, key)| key.trim_ascii());
    let mut hash = Sha1::new();
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let proof = base64::engine::general_purpose::STANDARD.encode(hash.finalize());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {proof}\r\n\r\n"
    )
    .into_bytes()
}

/// Sends each frame of a client back, without its mask. Frames are short ones (RFC 6455, 5.2: up to 125 bytes); another
/// ends the connection.
async fn echo(mut stream: TcpStream, mut pending: Vec<u8>) {
    let mut chunk = Vec::with_capacity(8 * 1024);
    loop {
        let mut out = Vec::new();
        let mut used = 0;
        while let [kind, length, masked @ ..] = &pending[used..] {
            let length = usize::from(length & 0x7f);
            let Some((mask, data)) = masked.split_at_checked(4) else {
                break;
            };
            let Some(data) = data.get(..length) else {
                break;
            };
            if length > 125 {
                return;
            }
            out.extend([*kind, length.to_le_bytes()[0]]);
            out.extend(data.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
            used += 6 + length;
        }
        pending.drain(..used);
        if !out.is_empty() && stream.write_all(out).await.0.is_err() {
            return;
        }
        let (received, buffer) = stream.read(chunk).await;
        chunk = buffer;
        let Ok(1..) = received else { return };
        pending.extend_from_slice(&chunk);
        chunk.clear();
    }
}

/// Printable bytes that differ from place to place, so a body with a hole in it is not mistaken for a whole one.
fn body(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| b"0123456789abcdefghijklmnopqrstuvwxyz!"[at % 37])
        .collect()
}

/// The date is as false as it is cheap: a proxy adds one where it is missing, which servers seldom make it do.
fn answer(body: &[u8]) -> &'static [u8] {
    let mut whole = format!(
        "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    whole.extend_from_slice(body);
    whole.leak()
}
