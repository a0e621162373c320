//! One stream of an HTTP/2 connection, as an exchange uses it: a head and pieces of a body, each way.
//!
//! Owns the library's handles of one request and what is owed to its client: credit for what was taken, and a reset for
//! what was not finished. Data waits here until its client has room for it; credit for data that came is given when the
//! next is asked for, that is when it was sent on. Never holds a borrow across an `.await`; never sends a byte itself: the
//! connection's task does (`streams.rs`).
//! Read next: `transport.rs`, of which this is one kind.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};

use crate::http::h2::meter::Meter;
use crate::http::h2::{Malformed, fields, server};
use crate::http::{FieldSet, Head, body, h1};
use crate::limits::H2_LARGE_STREAMS_MAX;
use crate::reactor::{Buffer, Peer, Timer, limit};

/// Data on its way to a client, in the memory that it was received in.
pub(crate) enum Piece {
    Whole(Buffer),
    /// As much of it as the client had room for.
    Part(Rc<Buffer>, Range<usize>),
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Whole(buffer) => buffer.len(),
            Self::Part(_, range) => range.len(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Whole(buffer) => buffer.bytes(),
            Self::Part(buffer, range) => buffer.bytes().get(range.clone()).unwrap_or_default(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Whole(buffer) => buffer.advance(count),
            Self::Part(_, range) => range.start += count,
        }
    }
}

/// What the streams of one connection have in common.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) meter: Rc<Meter>,
    /// Requests that were accepted and whose exchanges have not ended.
    pub(crate) running: Cell<usize>,
}

/// A request that came, and the way back to its client.
pub(crate) type Accepted = (Request<RecvStream>, SendResponse<Piece>);

/// See the file's header. Serves one request after another; between them it is empty.
pub(crate) struct Stream {
    is_tls: bool,
    shared: Rc<Shared>,
    handles: RefCell<Option<Handles>>,
    /// The client has reset it, or the connection is gone.
    gone: Cell<bool>,
    /// Data that was handed out and not given credit for yet.
    owed: Cell<usize>,
}

struct Handles {
    body: RecvStream,
    answer: SendResponse<Piece>,
    /// There once the answer's head is sent.
    data: Option<SendStream<Piece>>,
    /// The answer is whole.
    is_ended: bool,
    /// The memory of the request's fields, for those of the answer.
    fields: HeaderMap,
}

/// What an answer's head is made of, beside its fields.
pub(crate) struct AnswerHead<'a> {
    pub(crate) head: &'a Head,
    /// Fields of the head that are left out.
    pub(crate) skipped: FieldSet,
    pub(crate) content_length: Option<u64>,
    /// Where the head has none.
    pub(crate) date: Option<Vec<u8>>,
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Stream {
    pub(crate) fn new(is_tls: bool, shared: Rc<Shared>) -> Self {
        Self {
            is_tls,
            shared,
            handles: RefCell::new(None),
            gone: Cell::new(false),
            owed: Cell::new(0),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// One of few on its connection: it may have large buffers, which a hundred that stall may not.
    pub(crate) fn is_one_of_few(&self) -> bool {
        self.shared.running.get() <= H2_LARGE_STREAMS_MAX
    }

    /// Takes a request: its head goes into `head`, its body will be asked for.
    ///
    /// # Errors
    /// See [`server::Refused`].
    pub(crate) fn begin(
        &self,
        (request, answer): Accepted,
        head: &mut Head,
    ) -> Result<h1::Request, server::Refused> {
        let (parts, body) = request.into_parts();
        let read = server::request(&parts, body.is_end_stream(), head);
        let mut fields = parts.headers;
        fields.clear();
        self.gone.set(false);
        self.owed.set(0);
        self.handles.replace(Some(Handles {
            body,
            answer,
            data: None,
            is_ended: false,
            fields,
        }));
        read
    }

    /// Lets go of the request. An answer that is not whole is reset, so that nobody takes it for whole; a body that is not
    /// is not wanted any more.
    pub(crate) fn end(&self) {
        match self.handles.take() {
            Some(handles) if handles.is_ended => self.shared.meter.answered(),
            Some(mut handles) => handles.reset(Reason::INTERNAL_ERROR),
            None => {}
        }
    }

    /// Resets the stream, whatever was sent, and lets go of it.
    pub(crate) fn reset(&self, reason: Reason) {
        if let Some(mut handles) = self.handles.take() {
            handles.reset(reason);
        }
        // Nobody waits for anything any more: whoever looks for the client must see that.
        self.gone.set(true);
    }

    /// Sends the head of the final answer. `ends` if nothing follows.
    pub(crate) fn answer(&self, answer: AnswerHead<'_>, ends: bool) -> io::Result<()> {
        self.with(|handles| {
            let mut lines = std::mem::take(&mut handles.fields);
            if let Some(length) = answer.content_length {
                lines.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            if let Some(date) = answer.date
                && let Ok(date) = HeaderValue::from_maybe_shared(Bytes::from(date))
            {
                lines.insert(header::DATE, date);
            }
            let head = server::answer(answer.head, answer.skipped, lines).ok_or_else(broken)?;
            let data = handles
                .answer
                .send_response(head, ends)
                .map_err(|_| broken())?;
            handles.data = Some(data);
            handles.is_ended = ends;
            Ok(())
        })
    }

    /// Sends the head of an interim answer.
    pub(crate) fn interim(&self, head: &Head, skipped: FieldSet) -> io::Result<()> {
        self.with(|handles| {
            let head = server::answer(head, skipped, HeaderMap::new()).ok_or_else(broken)?;
            handles
                .answer
                .send_informational(head)
                .map_err(|_| broken())
        })
    }

    /// Tells a client that waits for it to send its body.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        self.with(|handles| {
            let mut head = Response::new(());
            *head.status_mut() = StatusCode::CONTINUE;
            handles
                .answer
                .send_informational(head)
                .map_err(|_| broken())
        })
    }

    /// Sends data once the client has room for it. `ends` if nothing follows.
    ///
    /// # Errors
    /// `TimedOut` once `timer` expires; else the client has left, or does not want it.
    pub(crate) async fn send(&self, piece: Buffer, ends: bool, timer: &Timer) -> io::Result<()> {
        if piece.is_empty() {
            return if ends {
                self.send_data(Piece::Whole(piece), true)
            } else {
                Ok(())
            };
        }
        let whole = piece.len();
        let room = match self.room_now(whole)? {
            0 => self.room(whole, timer).await?,
            room => room,
        };
        if room >= whole {
            return self.send_data(Piece::Whole(piece), ends);
        }
        let piece = Rc::new(piece);
        self.send_data(Piece::Part(Rc::clone(&piece), 0..room), false)?;
        let mut sent = room;
        while sent < whole {
            let room = self.room(whole - sent, timer).await?;
            let part = sent..whole.min(sent + room);
            sent = part.end;
            self.send_data(Piece::Part(Rc::clone(&piece), part), ends && sent == whole)?;
        }
        Ok(())
    }

    /// How much the client has room for, of so much: at least a byte.
    async fn room(&self, wanted: usize, timer: &Timer) -> io::Result<usize> {
        match limit(
            timer,
            pin!(poll_fn(|context| self.poll_room(wanted, context))),
        )
        .await
        {
            Some(room) => room,
            None => {
                self.reset(Reason::CANCEL);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// How much of it the client has room for already.
    fn room_now(&self, wanted: usize) -> io::Result<usize> {
        let mut handles = self.handles.borrow_mut();
        let data = handles.as_mut().and_then(|handles| handles.data.as_mut());
        let data = data.ok_or_else(broken)?;
        data.reserve_capacity(wanted);
        Ok(data.capacity())
    }

    fn poll_room(&self, wanted: usize, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = self.room_now(wanted)?;
        if room > 0 {
            return Poll::Ready(Ok(room));
        }
        let mut handles = self.handles.borrow_mut();
        let Some(data) = handles.as_mut().and_then(|handles| handles.data.as_mut()) else {
            return Poll::Ready(Err(broken()));
        };
        loop {
            return match ready!(data.poll_capacity(context)) {
                Some(Ok(0)) => continue,
                Some(Ok(room)) => Poll::Ready(Ok(room)),
                Some(Err(_)) | None => {
                    self.gone.set(true);
                    Poll::Ready(Err(broken()))
                }
            };
        }
    }

    fn send_data(&self, piece: Piece, ends: bool) -> io::Result<()> {
        self.with(|handles| {
            let data = handles.data.as_mut().ok_or_else(broken)?;
            self.shared.meter.sent(piece.remaining());
            data.send_data(piece, ends).map_err(|_| broken())?;
            handles.is_ended = ends;
            Ok(())
        })
    }

    /// Ends the answer with trailers, or without if there are none.
    pub(crate) fn finish_with(&self, trailers: &Head) -> io::Result<()> {
        let mut lines = HeaderMap::new();
        fields::write(trailers, h1::encode::NEVER_TRAILERS, &mut lines);
        if lines.is_empty() {
            return self.send_data(Piece::Whole(Buffer::empty()), true);
        }
        self.with(|handles| {
            let data = handles.data.as_mut().ok_or_else(broken)?;
            data.send_trailers(lines).map_err(|_| broken())?;
            handles.is_ended = true;
            Ok(())
        })
    }

    /// Ends what is sent, in order.
    pub(crate) fn finish(&self) {
        let is_open = self
            .handles
            .borrow()
            .as_ref()
            .is_some_and(|handles| !handles.is_ended);
        if is_open {
            let _ = self.send_data(Piece::Whole(Buffer::empty()), true);
        }
    }

    /// What the client sends next; empty at the end of its body. What was handed out before is now known to be sent on.
    ///
    /// # Errors
    /// `TimedOut` once `timer` expires; else the client has left, or broke the protocol.
    pub(crate) async fn recv(&self, timer: &Timer) -> io::Result<Buffer> {
        match limit(timer, pin!(poll_fn(|context| self.poll_recv(context)))).await {
            Some(received) => received,
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn poll_recv(&self, context: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        let mut handles = self.handles.borrow_mut();
        let Some(Handles { body, .. }) = &mut *handles else {
            return Poll::Ready(Err(broken()));
        };
        let owed = self.owed.take();
        if owed > 0 {
            let _ = body.flow_control().release_capacity(owed);
        }
        loop {
            return match ready!(body.poll_data(context)) {
                Some(Ok(data)) if data.is_empty() => continue,
                Some(Ok(data)) => {
                    self.owed.set(data.len());
                    Poll::Ready(Ok(Buffer::with(&data)))
                }
                Some(Err(_)) => {
                    self.gone.set(true);
                    Poll::Ready(Err(broken()))
                }
                None => Poll::Ready(Ok(Buffer::empty())),
            };
        }
    }

    /// A short body that came with its head. `None` if not all of it is here: then what is stays where it is.
    pub(crate) fn take_short_body(
        &self,
        bytes: usize,
        context: &mut Context<'_>,
    ) -> Option<Buffer> {
        let mut handles = self.handles.borrow_mut();
        let Handles { body, .. } = handles.as_mut()?;
        if body.flow_control().used_capacity() < bytes {
            return None;
        }
        let mut whole = Buffer::empty();
        while whole.len() < bytes {
            let Poll::Ready(Some(Ok(data))) = body.poll_data(context) else {
                break;
            };
            if whole.is_empty() {
                whole = Buffer::with(&data);
            } else {
                whole.extend(&data);
            }
        }
        let _ = body.flow_control().release_capacity(whole.len());
        Some(whole)
    }

    /// The trailers of a body that has ended.
    ///
    /// # Errors
    /// They are malformed.
    pub(crate) async fn trailers(&self, trailers: &mut Head) -> Result<(), Malformed> {
        let lines = poll_fn(|context| {
            let mut handles = self.handles.borrow_mut();
            match &mut *handles {
                Some(Handles { body, .. }) => body.poll_trailers(context),
                None => Poll::Ready(Ok(None)),
            }
        })
        .await;
        match lines {
            Ok(None) => Ok(()),
            Ok(Some(lines)) => {
                let id = self
                    .handles
                    .borrow()
                    .as_ref()
                    .map(|own| own.answer.stream_id());
                let read = match id {
                    Some(id) if self.shared.meter.refuses_trailers(id.into()) => {
                        Err(Malformed::Field)
                    }
                    _ => fields::read(&lines, trailers),
                };
                if read.is_err() {
                    self.reset(Reason::PROTOCOL_ERROR);
                }
                body::drop_forbidden(trailers);
                read
            }
            Err(_) => Err(Malformed::Field),
        }
    }

    /// Ready once the client has left: it reset the stream, or the connection is lost.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.gone.get() {
            return Poll::Ready(());
        }
        let mut handles = self.handles.borrow_mut();
        let Some(handles) = &mut *handles else {
            return Poll::Ready(());
        };
        let reset = match &mut handles.data {
            Some(data) => data.poll_reset(context),
            None => handles.answer.poll_reset(context),
        };
        let _ = ready!(reset);
        self.gone.set(true);
        Poll::Ready(())
    }

    pub(crate) fn peer(&self) -> Peer {
        if self.gone.get() {
            Peer::Gone
        } else {
            Peer::Present
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Handles) -> io::Result<T>) -> io::Result<T> {
        let mut handles = self.handles.borrow_mut();
        let done = handles.as_mut().ok_or_else(broken).and_then(act);
        if done.is_err() {
            self.gone.set(true);
        }
        done
    }
}

impl Handles {
    fn reset(&mut self, reason: Reason) {
        match &mut self.data {
            Some(data) => data.send_reset(reason),
            None => self.answer.send_reset(reason),
        }
    }
}
