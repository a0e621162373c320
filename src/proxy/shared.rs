//! One exchange on a connection of HTTP/2 that carries others too: the server's side of it.
//!
//! Owns the stream: what is sent on it, what is received, and that it is reset when it is dropped before its end. Flow
//! control goes through: nothing more is taken from the server than was passed on, nothing more is sent than it has room
//! for. Never touches another stream; what went wrong with this one is told apart from what went wrong with all.
//! Read next: `link.rs` (the connection), `answer.rs` (who asks).

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::uri::Scheme;
use http::{HeaderMap, Request};

use super::failure::{Cause, Failure, Retry, Stage};
use super::link::Place;
use crate::http::h2::client;
use crate::http::{Head, h1};
use crate::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES};
use crate::reactor::{Buffer, Room, Timer, limit};

/// A stream, from the place that was taken for it to the end of its answer.
pub(crate) struct Shared {
    outgoing: Rc<Outgoing>,
    incoming: Incoming,
    /// Received, and too long for the piece that was given out.
    rest: Bytes,
    trailers: Option<HeaderMap>,
    room: Room,
    /// Declared last: its end lets the next one in.
    place: Place,
}

enum Incoming {
    /// Nothing was asked yet.
    Idle,
    Head(ResponseFuture),
    Body(RecvStream),
    Ended,
}

/// What is sent on a stream. The request's body is sent beside the wait for the answer, so this is apart from it.
pub(crate) struct Outgoing {
    stream: RefCell<Option<SendStream<Bytes>>>,
}

/// A head that came.
pub(crate) enum Arrived {
    Interim,
    Final(h1::Response),
}

impl Shared {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            outgoing: Rc::new(Outgoing {
                stream: RefCell::new(None),
            }),
            incoming: Incoming::Idle,
            rest: Bytes::new(),
            trailers: None,
            room: Room::Small,
            place,
        }
    }

    /// What the server is asked for: it is reached as it is.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.place.is_secure() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// Sends the head, and `body` if it is short and here. With `ends` nothing follows.
    ///
    /// # Errors
    /// Nothing was sent: the connection takes no more streams, or HTTP/2 cannot say this request.
    pub(crate) fn begin(
        &mut self,
        request: Request<()>,
        body: &[u8],
        ends: bool,
    ) -> Result<(), Failure> {
        let sent = self
            .place
            .request(request, ends && body.is_empty())
            .and_then(|(answer, mut stream)| {
                if !body.is_empty() {
                    stream.send_data(Bytes::copy_from_slice(body), ends)?;
                }
                Ok((answer, stream))
            });
        let (answer, stream) = sent.map_err(|error| {
            Failure::io(Stage::Connect, Retry::Unprocessed, io::Error::other(error))
        })?;
        self.incoming = Incoming::Head(answer);
        self.outgoing.stream.replace(Some(stream));
        Ok(())
    }

    /// Where the body of the request goes.
    pub(crate) fn outgoing(&self) -> Rc<Outgoing> {
        Rc::clone(&self.outgoing)
    }

    /// Ends the stream at once: nobody wants the rest of either direction.
    pub(crate) fn sever(&self) {
        self.outgoing.sever();
    }

    /// How large the pieces are from here on.
    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }

    /// The next head of the answer, in `answer`.
    pub(crate) fn poll_head(
        &mut self,
        to_head: bool,
        answer: &mut Head,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arrived, Failure>> {
        let Incoming::Head(head) = &mut self.incoming else {
            return Poll::Ready(Err(closed()));
        };
        let malformed =
            |error| Failure::server(Stage::Answer, Retry::Never, Cause::Malformed(error));
        // An error is found again, and told, by the wait for the final head.
        if let Poll::Ready(Some(Ok(interim))) = head.poll_informational(context) {
            let read = client::response(&interim, false, to_head, answer);
            return Poll::Ready(read.map(|_| Arrived::Interim).map_err(malformed));
        }
        let response = match ready!(Pin::new(head).poll(context)) {
            Ok(response) => response,
            Err(error) => return Poll::Ready(Err(self.failure(error))),
        };
        let ends = response.body().is_end_stream();
        let read = client::response(&response, ends, to_head, answer).map_err(malformed);
        self.incoming = Incoming::Body(response.into_body());
        self.place.answered();
        Poll::Ready(read.map(Arrived::Final))
    }

    /// What of the body has come by now, up to a buffer full; empty at its end. The server may send as much again.
    ///
    /// # Errors
    /// The server, or the connection, ended the stream before its end; or the trailers are malformed.
    pub(crate) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        let mut piece = Buffer::empty();
        while let Incoming::Body(body) = &mut self.incoming {
            if self.rest.is_empty() {
                match body.poll_data(context) {
                    Poll::Ready(Some(Ok(data))) => {
                        // Fails only if more is given back than was taken.
                        let _ = body.flow_control().release_capacity(data.len());
                        self.rest = data;
                    }
                    Poll::Ready(None) => match body.poll_trailers(context) {
                        Poll::Ready(Ok(trailers)) => {
                            self.trailers = trailers;
                            self.incoming = Incoming::Ended;
                        }
                        Poll::Ready(Err(error)) if piece.is_empty() => {
                            return Poll::Ready(Err(io::Error::other(error)));
                        }
                        Poll::Ready(Err(_)) => return Poll::Ready(Ok(piece)),
                        Poll::Pending if piece.is_empty() => return Poll::Pending,
                        Poll::Pending => return Poll::Ready(Ok(piece)),
                    },
                    Poll::Ready(Some(Err(error))) if piece.is_empty() => {
                        return Poll::Ready(Err(io::Error::other(error)));
                    }
                    // The library says it again next time.
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Ok(piece)),
                    Poll::Pending if piece.is_empty() => return Poll::Pending,
                    Poll::Pending => return Poll::Ready(Ok(piece)),
                }
            }
            if !self.rest.is_empty() {
                if piece.is_empty() {
                    piece = Buffer::take(self.room);
                }
                let room = bytes(self.room) - piece.len();
                let taken = self.rest.split_to(room.min(self.rest.len()));
                piece.extend(&taken);
                if taken.len() == room {
                    break;
                }
            }
        }
        Poll::Ready(Ok(piece))
    }

    /// What of the body is here already; an error is said again by the next piece.
    pub(crate) async fn take_arrived(&mut self) -> Buffer {
        poll_fn(|context| {
            Poll::Ready(match self.poll_piece(context) {
                Poll::Ready(Ok(piece)) => piece,
                Poll::Ready(Err(_)) | Poll::Pending => Buffer::empty(),
            })
        })
        .await
    }

    /// The trailers that came, once the body has ended.
    ///
    /// # Errors
    /// They may not be passed on.
    pub(crate) fn trailers(&mut self, into: &mut Head) -> io::Result<()> {
        match self.trailers.take() {
            None => Ok(()),
            Some(trailers) => client::read_trailers(&trailers, into)
                .map_err(|error| io::Error::other(format!("malformed trailers: {error:?}"))),
        }
    }

    /// Everything of the answer has come.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.incoming, Incoming::Ended) && self.trailers.is_none()
    }

    /// Why there is no answer, and whether the server has looked at the request.
    fn failure(&self, error: h2::Error) -> Failure {
        let retry = if error.is_remote()
            && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM))
        {
            Retry::Unprocessed
        } else if error.is_io() && self.place.is_reused() {
            Retry::Stale
        } else {
            Retry::Never
        };
        let error = match error.get_io().map(io::Error::kind) {
            Some(kind) => io::Error::new(kind, error),
            None => io::Error::other(error),
        };
        Failure::io(Stage::Answer, retry, error)
    }
}

fn closed() -> Failure {
    Failure::server(Stage::Answer, Retry::Never, Cause::Closed)
}

fn bytes(room: Room) -> usize {
    match room {
        Room::Small => BUFFER_SMALL_BYTES,
        Room::Large => BUFFER_LARGE_BYTES,
    }
}

impl Outgoing {
    /// Sends a piece of the body, as the server gives room for it.
    ///
    /// # Errors
    /// The stream is over, or `timer` expired: the stream is reset then.
    pub(crate) async fn send(&self, piece: Buffer, timer: &Timer) -> io::Result<()> {
        let mut left = Bytes::from_owner(piece);
        while !left.is_empty() {
            let mut room = poll_fn(|context| {
                let mut stream = self.stream.borrow_mut();
                let stream = stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                stream.reserve_capacity(left.len());
                loop {
                    match ready!(stream.poll_capacity(context)) {
                        Some(Ok(0)) => {}
                        Some(Ok(room)) => return Poll::Ready(Ok(room)),
                        Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                        None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                    }
                }
            });
            let Some(room) = limit(timer, Pin::new(&mut room)).await else {
                self.sever();
                return Err(io::ErrorKind::TimedOut.into());
            };
            let now = left.split_to(room?.min(left.len()));
            self.with(|stream| stream.send_data(now, false))?;
        }
        Ok(())
    }

    /// Ends the body, in order.
    ///
    /// # Errors
    /// The stream is over.
    pub(crate) fn finish(&self, trailers: &Head) -> io::Result<()> {
        self.with(|stream| match client::trailers(trailers) {
            Some(trailers) => stream.send_trailers(trailers),
            None => stream.send_data(Bytes::new(), true),
        })
    }

    pub(crate) fn sever(&self) {
        let _ = self.with(|stream| {
            stream.send_reset(Reason::CANCEL);
            Ok(())
        });
    }

    fn with(
        &self,
        act: impl FnOnce(&mut SendStream<Bytes>) -> Result<(), h2::Error>,
    ) -> io::Result<()> {
        match self.stream.borrow_mut().as_mut() {
            Some(stream) => act(stream).map_err(io::Error::other),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
