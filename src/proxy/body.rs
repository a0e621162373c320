//! The body of a request, relayed to its server while the answer may already come.
//!
//! Owns back-pressure: nothing more is received from the client before what came was sent on. Never ends a body that
//! its client did not end: an aborted upload gets no final chunk.
//! Read next: `answer.rs` (the other direction).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use super::answer;
use super::connection::Client;
use super::core::Core;
use super::failure::{Cause, Failure, Retry, Side, Stage};
use super::held::{Held, NotHeld};
use super::session::Session;
use super::upstream::Outgoing;
use crate::backend::buffering::Bounds;
use crate::http::Head;
use crate::http::body::{BodyReader, Framing};
use crate::http::h1::{Request, encode};
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
    /// What was held of it cannot be read.
    Lost,
}

impl UploadEnd {
    /// What the server has is not the whole body, and never will be.
    pub(crate) fn is_cut(self) -> bool {
        matches!(
            self,
            Self::ClientGone | Self::Malformed | Self::TooSlow | Self::Lost
        )
    }
}

/// What an upload needs of its session.
pub(crate) struct Sending<'a> {
    pub(crate) framing: Framing,
    pub(crate) inbound: &'a mut Option<Buffer>,
    pub(crate) trailers: &'a mut Head,
    pub(crate) timer: &'a Timer,
    /// It is here already, whole.
    pub(crate) held: Option<&'a Held>,
}

/// Relays a request's body. `at` is when its head had come: `readTimeout` counts from there.
pub(crate) async fn upload(
    core: &Core,
    client: &Client,
    server: &Outgoing,
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
    if let Some(held) = sending.held {
        return send_held(server, held, sending.timer).await;
    }
    let chunked = sending.framing == Framing::Chunked;
    let timer = sending.timer;
    let mut out: Vec<Buffer> = Vec::with_capacity(2);
    let mut arriving = Arriving::new(core, client, sending, at);
    arriving.may_rest = matches!(server, Outgoing::Shared(_));
    while !arriving.is_whole() {
        let buffer = match arriving.next().await {
            Ok(buffer) => buffer,
            Err(end) => return end,
        };
        timer.set(coarse() + BODY_STALL_TIMEOUT);
        let transport = match server {
            Outgoing::Own(transport) => transport,
            Outgoing::Shared(stream) => {
                if Box::pin(stream.send(buffer, timer)).await.is_err() {
                    return UploadEnd::ServerGone;
                }
                continue;
            }
        };
        if chunked {
            let mut frame = Buffer::take(Room::Small);
            chunk(&mut out, &mut frame, buffer);
            if arriving.is_whole() {
                encode::trailers(frame.vec_mut(), arriving.trailers);
            }
            out.push(frame);
        } else {
            out.push(buffer);
        }
        if transport.send_all(&mut out, timer).await.is_err() {
            return UploadEnd::ServerGone;
        }
    }
    match server {
        Outgoing::Shared(stream) if stream.finish(arriving.trailers).is_err() => {
            UploadEnd::ServerGone
        }
        Outgoing::Shared(_) | Outgoing::Own(_) => UploadEnd::Done,
    }
}

/// Sends a body that is held.
async fn send_held(server: &Outgoing, held: &Held, timer: &Timer) -> UploadEnd {
    let mut sent = 0;
    while sent < held.len() {
        let Ok(piece) = held.read(sent).await else {
            return UploadEnd::Lost;
        };
        sent += piece.len() as u64;
        timer.set(coarse() + BODY_STALL_TIMEOUT);
        let passed = match server {
            Outgoing::Own(transport) => transport.send(piece, timer).await,
            Outgoing::Shared(stream) => Box::pin(stream.send(piece, timer)).await,
        };
        if passed.is_err() {
            return UploadEnd::ServerGone;
        }
    }
    match server {
        Outgoing::Shared(stream) if stream.finish(&Head::default()).is_err() => {
            UploadEnd::ServerGone
        }
        Outgoing::Shared(_) | Outgoing::Own(_) => UploadEnd::Done,
    }
}

/// Takes a request's body in whole, before anybody is asked.
///
/// # Errors
/// The client did not send it, or it is not held: the client can be told.
pub(crate) async fn hold(
    core: &Core,
    client: &Client,
    session: &mut Session,
    request: &Request,
    bounds: Bounds,
    at: Instant,
) -> Result<Held, Failure> {
    let failed = |cause| Failure {
        side: match cause {
            Cause::NotHeld(_) => Side::Proxy,
            _ => Side::Client,
        },
        stage: Stage::Receive,
        retry: Retry::Never,
        cause,
    };
    if let (Framing::Length(length), Some(max)) = (request.framing, bounds.max)
        && length > max
    {
        return Err(failed(Cause::BodyTooLong));
    }
    if request.expect_continue {
        let told = Upload::new(true, true);
        answer::go_on(client, &told).await?;
    }
    session.body_begun = true;
    let mut held = Held::new(&core.disk, bounds, core.settings.held);
    let sending = Sending {
        framing: request.framing,
        inbound: &mut session.inbound,
        trailers: &mut session.request_trailers,
        timer: &session.upload,
        held: None,
    };
    let mut arriving = Arriving::new(core, client, sending, at);
    while !arriving.is_whole() {
        let piece = arriving.next().await.map_err(|end| {
            failed(match end {
                UploadEnd::Malformed => Cause::ClientBody,
                UploadEnd::TooSlow => Cause::ClientSlow,
                _ => Cause::ClientGone,
            })
        })?;
        held.push(piece.bytes()).await.map_err(|error| {
            failed(match error {
                NotHeld::TooLong => Cause::BodyTooLong,
                NotHeld::NoRoom(error) => Cause::NotHeld(error),
            })
        })?;
    }
    session.body_ended = true;
    Ok(held)
}

/// A request's body as it comes from its client.
pub(crate) struct Arriving<'a> {
    client: &'a Client,
    inbound: &'a mut Option<Buffer>,
    /// There once the body is whole.
    trailers: &'a mut Head,
    timer: &'a Timer,
    /// Of the whole body, if it has one.
    deadline: Option<Instant>,
    /// Over HTTP/2 it may say nothing for as long as it likes: a call of gRPC does, and holds but a stream on either side.
    may_rest: bool,
    reader: BodyReader,
    room: Room,
}

impl<'a> Arriving<'a> {
    /// `at` is when the head had come: `readTimeout` counts from there.
    pub(crate) fn new(core: &Core, client: &'a Client, sending: Sending<'a>, at: Instant) -> Self {
        let Sending {
            framing,
            inbound,
            trailers,
            timer,
            held: _,
        } = sending;
        trailers.clear();
        Self {
            client,
            inbound,
            trailers,
            timer,
            deadline: core.settings.timeouts.read.map(|limit| at + limit),
            may_rest: false,
            reader: BodyReader::new(match framing {
                // No chunks arrive over HTTP/2: its frames say where a body ends.
                Framing::Chunked if client.transport.stream().is_some() => Framing::UntilClose,
                framing => framing,
            }),
            room: Room::Small,
        }
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.reader.finished()
    }

    /// Some of the body, or nothing of it where only its framing came. Not for a body that is whole.
    ///
    /// # Errors
    /// The client has left, is too slow, or sends no body.
    pub(crate) async fn next(&mut self) -> Result<Buffer, UploadEnd> {
        let mut buffer = match self.inbound.take() {
            Some(buffer) if !buffer.is_empty() => buffer,
            _ => self.receive().await?,
        };
        let decoded = self
            .reader
            .decode(buffer.bytes_mut(), self.trailers)
            .map_err(|_| UploadEnd::Malformed)?;
        if decoded.consumed < buffer.len() {
            // The next request is behind the body: it stays, and the body's end goes on as a copy.
            let mut last = Buffer::take(self.room);
            last.extend(&buffer.bytes()[decoded.data.clone()]);
            buffer.advance(decoded.consumed);
            *self.inbound = Some(buffer);
            buffer = last;
        } else {
            buffer.truncate(decoded.data.end);
            buffer.advance(decoded.data.start);
        }
        self.room = Room::Large;
        Ok(buffer)
    }

    async fn receive(&mut self) -> Result<Buffer, UploadEnd> {
        let transport = &self.client.transport;
        let limit = || {
            if self.may_rest && transport.stream().is_some() {
                Instant::NEVER
            } else {
                coarse() + BODY_STALL_TIMEOUT
            }
        };
        self.timer.set(self.deadline.unwrap_or_else(limit));
        match transport.recv(self.room, self.timer).await {
            Ok(buffer) if buffer.is_empty() => {
                let stream = transport.stream().ok_or(UploadEnd::ClientGone)?;
                if self.reader.end_of_stream().is_err()
                    || stream.trailers(self.trailers).await.is_err()
                {
                    return Err(UploadEnd::Malformed);
                }
                Ok(buffer)
            }
            Ok(buffer) => Ok(buffer),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(UploadEnd::TooSlow),
            Err(_) => Err(UploadEnd::ClientGone),
        }
    }
}
