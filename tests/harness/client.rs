//! A client that sends exactly the bytes it is given and reads answers strictly.
//!
//! Every wait has a deadline, and a panic says what was waited for and what came instead. Never retries, never follows.

use std::net::{SocketAddr, TcpStream};

use super::wire::{Cut, Head, Response, Wire};

pub struct Client(Wire);

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|e| panic!("cannot connect to {address}: {e}"));
        Self(Wire::new(stream))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0
            .send(bytes.as_ref())
            .unwrap_or_else(|e| panic!("could not send: {e}"));
    }

    /// Sends as much as the other side takes: it may answer and close before all has gone.
    pub fn send_what_goes(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.0.send(bytes.as_ref());
    }

    /// Sends until the other side takes no more for half a second, or this many bytes have gone; says how many.
    pub fn send_until_stuck(&mut self, bytes_max: usize) -> usize {
        self.0.send_until_stuck(bytes_max)
    }

    /// One byte per segment.
    #[track_caller]
    pub fn send_byte_by_byte(&mut self, bytes: impl AsRef<[u8]>) {
        for byte in bytes.as_ref() {
            self.send([*byte]);
        }
    }

    /// The answer to a request of any method but HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response()
            .unwrap_or_else(|cut| panic!("no whole response: {cut}"))
    }

    /// The answer to a HEAD.
    #[track_caller]
    pub fn head_response(&mut self) -> Response {
        self.0
            .response("HEAD")
            .unwrap_or_else(|cut| panic!("no whole response: {cut}"))
    }

    pub fn try_response(&mut self) -> Result<Response, Cut> {
        self.0.response("GET")
    }

    /// Only a head, final or interim; what follows is for the caller.
    #[track_caller]
    pub fn head(&mut self) -> Head {
        self.0
            .head()
            .unwrap_or_else(|cut| panic!("no head: {cut}"))
            .expect("a head before the end")
    }

    #[track_caller]
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        self.0
            .exactly(count)
            .unwrap_or_else(|cut| panic!("not {count} bytes: {cut}"))
    }

    /// The data of the next chunk of a body; empty for the last.
    #[track_caller]
    pub fn chunk(&mut self) -> Vec<u8> {
        self.0
            .chunk()
            .unwrap_or_else(|cut| panic!("no chunk: {cut}"))
    }

    /// Some bytes, as they come; empty at the end of the stream.
    #[track_caller]
    pub fn some(&mut self) -> Vec<u8> {
        self.0
            .some()
            .unwrap_or_else(|cut| panic!("no bytes and no end: {cut}"))
    }

    /// Whether an answer, or the end, has come.
    pub fn is_readable(&self) -> bool {
        self.0.is_readable()
    }

    /// Everything until the connection ends, whether by close or reset.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        match self.0.rest() {
            Ok(bytes) => bytes,
            Err(cut) if cut.why.starts_with("the connection broke") => cut.got,
            Err(cut) => panic!("the connection should end: {cut}"),
        }
    }

    /// The connection ends with nothing more said.
    #[track_caller]
    pub fn assert_closed(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "closed, but first: {:?}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request);
        self.response()
    }

    #[track_caller]
    pub fn get(&mut self, target: &str) -> Response {
        self.exchange(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"))
    }

    pub fn half_close(&self) {
        self.0.half_close();
    }

    pub fn reset(self) {
        self.0.reset();
    }
}

/// A GET on a connection of its own.
#[track_caller]
pub fn get(address: SocketAddr, host: &str, target: &str) -> Response {
    Client::connect(address).exchange(format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    ))
}
