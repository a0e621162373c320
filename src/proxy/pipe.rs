//! The connection that an HTTP/2 state machine believes it has: two buffers in memory, moved to and from a transport.
//!
//! Owns [`Pipe`], which the `h2` crate reads and writes as if it were a socket, and [`drive`], which moves its bytes. One
//! task does all of it: it receives, lets the protocol work, and sends; so no end ever has to wake the other. One send is
//! under way while later frames gather behind it. Never looks at a byte; never holds a borrow across an `.await`.
//! Read next: `transport.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::transport::Transport;
use crate::http::h2::meter::Meter;
use crate::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES, PIPE_BYTES_MAX, SEND_STALL_TIMEOUT};
use crate::reactor::{Buffer, Room, Timer, coarse};

/// Received buffers that are worked through in one turn of the task: then the others of the core have theirs.
const ROUNDS_MAX: usize = 4;

/// Both ends of a connection in memory. A clone is the same connection.
#[derive(Clone)]
pub(crate) struct Pipe(Rc<Ends>);

struct Ends {
    /// Counts what is received, where that has a budget.
    meter: Option<Rc<Meter>>,
    /// Received and not read yet.
    arrived: RefCell<Buffer>,
    /// Something arrived, or the stream ended, since the protocol was polled last.
    fresh: Cell<bool>,
    /// No more will arrive: in order, or because of this.
    ended: Cell<Option<Result<(), io::ErrorKind>>>,
    /// Written and not sent yet.
    leaving: RefCell<Vec<Buffer>>,
    leaving_bytes: Cell<usize>,
    /// A write found no room.
    full: Cell<bool>,
    sending: Cell<bool>,
    /// Nothing can be sent any more.
    broken: Cell<Option<io::ErrorKind>>,
}

/// Wakes the task of a connection, and remembers that the protocol asked for it: most other wakes only say that a send is
/// through, and need not go to the library. The standard library wants what a waker holds to be for any thread.
struct Ask {
    task: Waker,
    is_due: AtomicBool,
}

impl Wake for Ask {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl Ask {
    /// Whether the protocol was woken since this was asked last.
    fn take(&self) -> bool {
        let is_due = self.is_due.load(Ordering::Relaxed);
        self.is_due.store(false, Ordering::Relaxed);
        is_due
    }
}

/// Moves bytes between `pipe` and `transport` until `protocol` ends and everything that it wrote has been sent. Called once
/// for a connection: with this future ends what was being received.
///
/// `protocol` is polled when something arrived, when there is room again for what it could not write, and when its own
/// waker is woken. It learns of a broken transport by its reads and writes; it must not wait for a socket of its own.
pub(crate) async fn drive<T>(
    pipe: &Pipe,
    transport: &Transport,
    protocol: impl Future<Output = T>,
) -> T {
    let ends = &*pipe.0;
    let mut protocol = pin!(protocol);
    let mut receiving = pin!(receive(ends, transport));
    let mut sending = pin!(send(ends, transport));
    let mut outcome = None;
    let ask = poll_fn(|context| {
        Poll::Ready(Arc::new(Ask {
            task: context.waker().clone(),
            is_due: AtomicBool::new(true),
        }))
    })
    .await;
    let waker = Waker::from(Arc::clone(&ask));
    poll_fn(|context| {
        for round in 0..ROUNDS_MAX {
            if outcome.is_none() {
                if ends.ended.get().is_none() {
                    let _ = receiving.as_mut().poll(context);
                }
                let has_news = ends.fresh.take() || ends.full.get() && ends.has_room();
                if ask.take() || has_news {
                    ends.full.set(false);
                    let mut context = Context::from_waker(&waker);
                    if let Poll::Ready(output) = protocol.as_mut().poll(&mut context) {
                        outcome = Some(output);
                    }
                } else if round > 0 {
                    return Poll::Pending;
                }
            }
            if ends.broken.get().is_none() {
                let _ = sending.as_mut().poll(context);
            }
            if ends.is_sent()
                && let Some(output) = outcome.take()
            {
                return Poll::Ready(output);
            }
            if outcome.is_some() {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Fills the pipe whenever it has been read empty, until the stream ends.
async fn receive(ends: &Ends, transport: &Transport) {
    loop {
        ends.emptied().await;
        let received = poll_fn(|context| match transport.poll_recv(Room::Small, context) {
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(received)) => Poll::Ready(Some(received)),
            None => Poll::Ready(None),
        })
        .await;
        match received {
            Some(received) => {
                if ends.take_in(received) {
                    return;
                }
            }
            // Boxed: most connections never come here, and do not carry the room for it.
            None => return Box::pin(receive_quietly(ends, transport)).await,
        }
    }
}

/// As [`receive`], where a receive cannot be left to itself: in a way that holds no memory once nothing has come for a while.
async fn receive_quietly(ends: &Ends, transport: &Transport) {
    let timer = Timer::new();
    loop {
        ends.emptied().await;
        let received = match transport.recv_hot(Room::Small, &timer).await {
            Ok(Some(buffer)) => Ok(buffer),
            Ok(None) => match transport.readable(&timer).await {
                Ok(()) => continue,
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        if ends.take_in(received) {
            return;
        }
    }
}

/// Sends what gathers in the pipe, until that fails.
async fn send(ends: &Ends, transport: &Transport) {
    let timer = Timer::new();
    let mut sends = Vec::new();
    loop {
        poll_fn(|_| {
            if ends.leaving_bytes.get() == 0 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        })
        .await;
        mem::swap(&mut sends, &mut *ends.leaving.borrow_mut());
        ends.leaving_bytes.set(0);
        ends.sending.set(true);
        timer.set(coarse() + SEND_STALL_TIMEOUT);
        let sent = transport.send_all(&mut sends, &timer).await;
        ends.sending.set(false);
        if let Err(error) = sent {
            ends.broken.set(Some(error.kind()));
            ends.leaving.borrow_mut().clear();
            // The protocol has to see that, whatever it waits for.
            ends.fresh.set(true);
            return;
        }
    }
}

impl Pipe {
    pub(crate) fn new() -> Self {
        Self::with(None)
    }

    /// A connection on which what is received is counted.
    pub(crate) fn metered(meter: Rc<Meter>) -> Self {
        Self::with(Some(meter))
    }

    fn with(meter: Option<Rc<Meter>>) -> Self {
        Self(Rc::new(Ends {
            meter,
            arrived: RefCell::new(Buffer::empty()),
            fresh: Cell::new(false),
            ended: Cell::new(None),
            leaving: RefCell::default(),
            leaving_bytes: Cell::new(0),
            full: Cell::new(false),
            sending: Cell::new(false),
            broken: Cell::new(None),
        }))
    }

    /// Puts what was received before in front of what will be.
    pub(crate) fn begin_with(&self, received: Buffer) {
        self.0.fresh.set(true);
        self.0.arrive(received);
    }
}

impl Ends {
    /// Waits until what arrived has been read.
    async fn emptied(&self) {
        poll_fn(|_| {
            if self.arrived.borrow().is_empty() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Takes the outcome of a receive. True if it was the last.
    fn take_in(&self, received: io::Result<Buffer>) -> bool {
        self.fresh.set(true);
        match received {
            Ok(buffer) if buffer.is_empty() => self.ended.set(Some(Ok(()))),
            Ok(buffer) => {
                self.arrive(buffer);
                return false;
            }
            Err(error) => self.ended.set(Some(Err(error.kind()))),
        }
        true
    }

    fn arrive(&self, buffer: Buffer) {
        if let Some(meter) = &self.meter {
            meter.received(buffer.bytes(), coarse().nanoseconds());
        }
        drop(self.arrived.replace(buffer));
    }

    fn has_room(&self) -> bool {
        self.leaving_bytes.get() < PIPE_BYTES_MAX
    }

    /// Nothing is left that could still be sent.
    fn is_sent(&self) -> bool {
        self.broken.get().is_some() || self.leaving_bytes.get() == 0 && !self.sending.get()
    }

    fn write(&self, mut bytes: &[u8]) {
        let mut leaving = self.leaving.borrow_mut();
        self.leaving_bytes
            .set(self.leaving_bytes.get() + bytes.len());
        while !bytes.is_empty() {
            // The first buffer is small, since most of what is sent is; what does not fit is a long body.
            let room = match leaving.as_slice() {
                [] => 0,
                [first] => BUFFER_SMALL_BYTES - first.len(),
                [.., last] => BUFFER_LARGE_BYTES - last.len(),
            };
            match leaving.last_mut() {
                Some(last) if room > 0 => {
                    let (now, later) = bytes.split_at(room.min(bytes.len()));
                    last.extend(now);
                    bytes = later;
                }
                Some(_) => leaving.push(Buffer::take(Room::Large)),
                None => leaving.push(Buffer::take(Room::Small)),
            }
        }
    }

    /// Whether a write may go on.
    fn admit(&self) -> Poll<io::Result<()>> {
        if let Some(kind) = self.broken.get() {
            return Poll::Ready(Err(kind.into()));
        }
        if self.has_room() {
            Poll::Ready(Ok(()))
        } else {
            self.full.set(true);
            Poll::Pending
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ends = &*self.0;
        let mut arrived = ends.arrived.borrow_mut();
        if arrived.is_empty() {
            return match (ends.ended.get(), ends.broken.get()) {
                (Some(Err(kind)), _) | (None, Some(kind)) => Poll::Ready(Err(kind.into())),
                (Some(Ok(())), _) => Poll::Ready(Ok(())),
                (None, None) => Poll::Pending,
            };
        }
        let count = into.remaining().min(arrived.len());
        into.put_slice(&arrived.bytes()[..count]);
        arrived.advance(count);
        if arrived.is_empty() {
            *arrived = Buffer::empty();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.admit().map_ok(|()| {
            self.0.write(bytes);
            bytes.len()
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.admit().map_ok(|()| {
            for part in parts {
                self.0.write(part);
            }
            parts.iter().map(|part| part.len()).sum()
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is sent before `drive` returns; the transport is closed by its owner.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::reactor::simulated::{self, Faults};
    use crate::reactor::{Listener, Socket, sleep, spawn};

    const BODY_BYTES: usize = 300_000;

    /// Answers every request with the body that it came with.
    async fn echo(listener: Listener) {
        let (socket, _) = listener.accept().await.expect("the client connects");
        let (pipe, transport) = (Pipe::new(), Transport::Plain(socket));
        let handshake = h2::server::handshake(pipe.clone());
        let serving = async {
            let mut connection: h2::server::Connection<Pipe, Bytes> =
                handshake.await.expect("a preface");
            while let Some(Ok((request, answer))) = connection.accept().await {
                spawn(answer_with_body(request, answer));
            }
        };
        drive(&pipe, &transport, serving).await;
    }

    async fn answer_with_body(
        request: http::Request<h2::RecvStream>,
        mut answer: h2::server::SendResponse<Bytes>,
    ) {
        let mut body = request.into_body();
        let mut stream = answer
            .send_response(http::Response::new(()), false)
            .expect("an answer");
        while let Some(piece) = body.data().await {
            let mut piece = piece.expect("a piece");
            let _ = body.flow_control().release_capacity(piece.len());
            while !piece.is_empty() {
                stream.reserve_capacity(piece.len());
                let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
                let room = room.expect("open").expect("a window");
                let now = piece.split_to(room.min(piece.len()));
                stream.send_data(now, false).expect("sent");
            }
        }
        stream.send_data(Bytes::new(), true).expect("sent");
    }

    /// Sends a body and gets it back, whole and in order.
    async fn ask(mut requests: h2::client::SendRequest<Bytes>) {
        let body: Vec<u8> = (0..BODY_BYTES)
            .map(|at| (at / 7).to_le_bytes()[0])
            .collect();
        let request = http::Request::post("http://h/")
            .body(())
            .expect("a request");
        let (answer, mut stream) = requests.send_request(request, false).expect("a stream");
        stream
            .send_data(Bytes::from(body.clone()), true)
            .expect("sent");
        let mut answer = answer.await.expect("an answer").into_body();
        let mut echoed = Vec::new();
        while let Some(piece) = answer.data().await {
            let piece = piece.expect("a piece");
            let _ = answer.flow_control().release_capacity(piece.len());
            echoed.extend_from_slice(&piece);
        }
        assert!(echoed == body, "the body came back whole");
    }

    /// Takes a question and answers it a second later.
    async fn answer_late(listener: Listener) {
        let (socket, _) = listener.accept().await.expect("the client connects");
        let timer = Timer::new();
        let question = socket.recv(Room::Small, &timer).await;
        assert!(question.is_ok_and(|question| !question.is_empty()));
        sleep(Duration::from_secs(1)).await;
        let answered = socket.send(Buffer::with(b"answer"), &timer).await;
        assert!(answered.is_ok(), "{answered:?}");
    }

    #[test]
    fn the_end_of_a_send_does_not_wake_the_protocol() {
        for seed in 0..20 {
            simulated::run(seed, Faults::SLOW, async {
                let address = SocketAddr::from(([10, 0, 0, 1], 80));
                spawn(answer_late(simulated::listen(address).expect("free")));
                let socket = Socket::connect(address, &Timer::new())
                    .await
                    .expect("listens");
                let (pipe, transport) = (Pipe::new(), Transport::Plain(socket));
                let mut end = pipe.clone();
                let mut polls = 0;
                let protocol = poll_fn(|context| {
                    polls += 1;
                    if polls == 1 {
                        let written = Pin::new(&mut end).poll_write(context, b"question");
                        assert!(written.is_ready());
                    }
                    let mut space = [0; 16];
                    Pin::new(&mut end).poll_read(context, &mut ReadBuf::new(&mut space))
                });
                let answered = drive(&pipe, &transport, protocol).await;
                assert!(answered.is_ok(), "{answered:?}");
                assert_eq!(polls, 2, "to ask, and for the answer");
            });
        }
    }

    #[test]
    fn both_ends_of_the_library_talk_through_it() {
        for seed in 0..20 {
            let faults = if seed % 2 == 0 {
                Faults::NONE
            } else {
                Faults::SLOW
            };
            simulated::run(seed, faults, async {
                let address = SocketAddr::from(([10, 0, 0, 1], 80));
                spawn(echo(simulated::listen(address).expect("free")));
                let socket = Socket::connect(address, &Timer::new())
                    .await
                    .expect("listens");
                let (pipe, transport) = (Pipe::new(), Transport::Plain(socket));
                let asked = Rc::new(Cell::new(0));
                let asking = async {
                    let (requests, connection) =
                        h2::client::handshake(pipe.clone()).await.expect("no wait");
                    for _ in 0..3 {
                        let (requests, asked) = (requests.clone(), Rc::clone(&asked));
                        spawn(async move {
                            ask(requests).await;
                            asked.set(asked.get() + 1);
                        });
                    }
                    drop(requests);
                    // Ends when the last stream has, and says so to the server.
                    connection.await
                };
                let ended = drive(&pipe, &transport, asking).await;
                assert!(ended.is_ok(), "{ended:?}");
                assert_eq!(asked.get(), 3);
            });
        }
    }
}
