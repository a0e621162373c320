//! The body of a request, relayed to its server while the answer may already come.
//!
//! Owns back-pressure: nothing more is received from the client before what came was sent on. Never ends a body that
//! its client did not end: an aborted upload gets no final chunk.
//! Read next: `answer.rs` (the other direction).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::connection::Client;
use super::core::Core;
use super::transport::Transport;
use crate::http::Head;
use crate::http::body::{BodyReader, Framing};
use crate::http::h1::encode;
use crate::limits::BODY_STALL_TIMEOUT;
use crate::reactor::{Buffer, Room, Timer};
use crate::reactor::{Instant, coarse};

/// A piece of a body this short is copied behind what is sent before it: one buffer is sent, and the copy costs less than
/// another buffer in the operation.
pub(crate) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Writes `data` as one chunk behind what is in `frame`: either all of it, or the first part goes to `sends` with the data
/// and `frame` is left with the end. No data is no chunk: an empty one would end the body.
pub(crate) fn chunk(sends: &mut Vec<Buffer>, frame: &mut Buffer, data: Buffer) {
    if data.is_empty() {
        return;
    }
    encode::chunk_size(frame.vec_mut(), data.len());
    if frame.len() + data.len() <= COPY_BYTES_MAX {
        frame.extend(data.bytes());
    } else {
        let before = std::mem::replace(frame, Buffer::take(Room::Small));
        sends.extend([before, data]);
    }
    encode::end(frame.vec_mut());
}

/// What the two directions of an exchange know of each other.
pub(crate) struct Upload {
    /// The client waits for a `100 Continue`, and may still be sent one.
    expected: Cell<bool>,
    started: Cell<bool>,
    running: Cell<bool>,
}

impl Upload {
    pub(crate) fn new(streamed: bool, expected: bool) -> Self {
        Self {
            expected: Cell::new(expected),
            started: Cell::new(!expected),
            running: Cell::new(streamed),
        }
    }

    /// The client still waits to be told to go on.
    pub(crate) fn awaits_continue(&self) -> bool {
        self.running.get() && self.expected.get() && !self.started.get()
    }

    /// The client was told.
    pub(crate) fn start(&self) {
        self.started.set(true);
    }

    /// The final answer has begun: a `100 Continue` from now on would stand in the middle of it.
    pub(crate) fn answered(&self) {
        self.expected.set(false);
    }

    /// The body is on its way, or was.
    pub(crate) fn started(&self) -> bool {
        self.started.get()
    }

    /// Still relaying: what the client sends is body.
    pub(crate) fn running(&self) -> bool {
        self.running.get()
    }

    pub(crate) fn ended(&self) {
        self.running.set(false);
    }
}

/// How an upload ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadEnd {
    /// Whole, trailers included.
    Done,
    /// The server takes no more; it may have answered all the same.
    ServerGone,
    ClientGone,
    Malformed,
    TooSlow,
}

impl UploadEnd {
    pub(crate) fn client_failed(self) -> bool {
        matches!(self, Self::ClientGone | Self::Malformed | Self::TooSlow)
    }
}

/// What an upload needs of its session.
pub(crate) struct Sending<'a> {
    pub(crate) framing: Framing,
    pub(crate) inbound: &'a mut Option<Buffer>,
    pub(crate) trailers: &'a mut Head,
    pub(crate) timer: &'a Timer,
}

/// Relays a request's body. `at` is when its head had come: `readTimeout` counts from there.
pub(crate) async fn upload(
    core: &Core,
    client: &Client,
    server: &Transport,
    sending: Sending<'_>,
    upload: &Upload,
    at: Instant,
) -> UploadEnd {
    // Polled again whenever the answer's side makes progress, and only that side starts it.
    poll_fn(|_| {
        if upload.started.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let Sending {
        framing,
        inbound,
        trailers,
        timer,
    } = sending;
    let deadline = core.settings.timeouts.read.map(|limit| at + limit);
    let chunked = framing == Framing::Chunked;
    let stream = client.transport.stream();
    let mut reader = BodyReader::new(match framing {
        // No chunks arrive over HTTP/2: its frames say where a body ends.
        Framing::Chunked if stream.is_some() => Framing::UntilClose,
        framing => framing,
    });
    let mut out: Vec<Buffer> = Vec::with_capacity(2);
    let mut room = Room::Small;
    trailers.clear();
    while !reader.finished() {
        let mut buffer = match inbound.take() {
            Some(buffer) if !buffer.is_empty() => buffer,
            _ => {
                timer.set(deadline.unwrap_or_else(|| coarse() + BODY_STALL_TIMEOUT));
                match client.transport.recv(room, timer).await {
                    Ok(buffer) if buffer.is_empty() => {
                        let Some(stream) = stream else {
                            return UploadEnd::ClientGone;
                        };
                        if reader.end_of_stream().is_err()
                            || stream.trailers(trailers).await.is_err()
                        {
                            return UploadEnd::Malformed;
                        }
                        buffer
                    }
                    Ok(buffer) => buffer,
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return UploadEnd::TooSlow;
                    }
                    Err(_) => return UploadEnd::ClientGone,
                }
            }
        };
        let Ok(decoded) = reader.decode(buffer.bytes_mut(), trailers) else {
            return UploadEnd::Malformed;
        };
        if decoded.consumed < buffer.len() {
            // The next request is behind the body: it stays, and the body's end goes on as a copy.
            let mut last = Buffer::take(room);
            last.extend(&buffer.bytes()[decoded.data.clone()]);
            buffer.advance(decoded.consumed);
            *inbound = Some(buffer);
            buffer = last;
        } else {
            buffer.truncate(decoded.data.end);
            buffer.advance(decoded.data.start);
        }
        room = Room::Large;
        if chunked {
            let mut frame = Buffer::take(Room::Small);
            chunk(&mut out, &mut frame, buffer);
            if decoded.finished {
                encode::trailers(frame.vec_mut(), trailers);
            }
            out.push(frame);
        } else {
            out.push(buffer);
        }
        timer.set(coarse() + BODY_STALL_TIMEOUT);
        if server.send_all(&mut out, timer).await.is_err() {
            return UploadEnd::ServerGone;
        }
    }
    UploadEnd::Done
}
