//! The upstream of every measurement: a responder that costs far less than any proxy in front of it.
//!
//! `origin [ADDRESS]` listens (default `127.0.0.1:0`), prints `listening on ADDRESS`, and answers a request by its path
//! with a fixed body: `/10k` 10,240 bytes, `/1m` 1,048,576 bytes, everything else 2 bytes. One thread, keep-alive,
//! pipelining; `Connection: close` is honoured. It ends when it is killed.
//! It does not check what it is sent, and it ignores request bodies: only the load tests may be its clients.
//! Never use it as an example of a server. Read next: `loadtest/common.py`, which starts it.

use std::io::{self, Write};
use std::rc::Rc;

use memchr::memmem::Finder;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};

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
