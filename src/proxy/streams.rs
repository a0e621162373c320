//! A client's connection over HTTP/2: many exchanges at once, each the same story as over HTTP/1.1.
//!
//! Owns the connection's task, which receives, lets the `h2` crate work and sends, and the tasks that serve its streams.
//! Those wait for the next request when one is done, so a busy connection starts none and allocates nothing for them; a
//! quiet one holds none. A request counts as running until its exchange has really ended, also when its client has long
//! reset it: so resets buy nobody more of them. Never looks into a request.
//! Read next: `stream.rs` (one request's way in and out), `pipe.rs` (the bytes), `exchange.rs` (the story).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::Reason;

use super::connection::{self, Client};
use super::core::Core;
use super::exchange;
use super::forward;
use super::own;
use super::pipe::{self, Pipe};
use super::reply;
use super::session::{HEAD_TEXT_KEPT, Session};
use super::stream::{Accepted, Piece, Shared};
use crate::http::body::Framing;
use crate::http::h1::Upgrade;
use crate::http::h2::server::Refused;
use crate::http::websocket;
use crate::limits::{
    BODY_INLINE_BYTES, GOAWAY_WAIT, H2_CONNECTION_WINDOW_BYTES, H2_HEADER_LIST_BYTES_MAX,
    H2_HEADS_BYTES_MAX, H2_LOCAL_RESETS_MAX, H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES,
    H2_STREAMS_MAX, H2_TASK_WAIT, HEAD_READ_TIMEOUT,
};
use crate::reactor::{self, Buffer, Timer, coarse, limit};

/// The streams of one connection.
struct Streams {
    core: Rc<Core>,
    /// The connection's own; each task has one for its streams.
    client: Rc<Client>,
    shared: Rc<Shared>,
    /// Bytes of the heads of the requests that are running.
    heads_bytes: Cell<usize>,
    /// Accepted, and no task has taken them yet.
    accepted: RefCell<VecDeque<Accepted>>,
    /// Tasks without a request. The one that was busy last is the first to be woken, so that the others fall quiet.
    idle: RefCell<Vec<Waker>>,
    is_over: Cell<bool>,
}

/// Serves a connection until one of us closes. `received` is what came already.
pub(crate) async fn serve(core: &Rc<Core>, client: &Rc<Client>, received: Buffer) {
    let streams = Rc::new(Streams {
        core: Rc::clone(core),
        client: Rc::clone(client),
        shared: Rc::default(),
        heads_bytes: Cell::new(0),
        accepted: RefCell::default(),
        idle: RefCell::default(),
        is_over: Cell::new(false),
    });
    let pipe = Pipe::metered(Rc::clone(&streams.shared.meter));
    if !received.is_empty() {
        pipe.begin_with(received);
    }
    // Boxed, as is what it holds: a future that is passed on is stored where it was and where it is.
    let protocol = Box::pin(speak(&streams, pipe.clone()));
    pipe::drive(&pipe, &client.transport, protocol).await;
    // The library has told every stream. A last word of ours (GOAWAY) may still be on its way: it must not be overtaken by
    // a reset, as it would be if the client were still sending when we close.
    streams.is_over.set(true);
    streams.wake_idle();
    connection::linger(client).await;
    poll_fn(|context| {
        client.attend(context);
        if streams.shared.running.get() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// What the connection is allowed, and what it promises.
fn settings() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(H2_STREAMS_MAX)
        .initial_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .max_send_buffer_size(H2_SEND_BYTES_MAX)
        .max_local_error_reset_streams(Some(H2_LOCAL_RESETS_MAX))
        .enable_connect_protocol();
    builder
}

type Connection = h2::server::Connection<Pipe, Piece>;

/// The first words of both sides.
async fn greet(core: &Core, client: &Client, pipe: Pipe) -> Option<Box<Connection>> {
    client.timer.set(coarse() + HEAD_READ_TIMEOUT);
    let handshake = pin!(settings().handshake::<Pipe, Piece>(pipe));
    match limit(&client.timer, handshake).await? {
        Ok(connection) => Some(Box::new(connection)),
        Err(error) => {
            core.counters.failures_client.add(1);
            tracing::debug!("no HTTP/2 with {}: {error}", client.address);
            None
        }
    }
}

/// Speaks the protocol until the connection is over.
async fn speak(streams: &Rc<Streams>, pipe: Pipe) {
    let (core, client) = (&streams.core, &streams.client);
    let Some(mut connection) = Box::pin(greet(core, client, pipe)).await else {
        return;
    };
    let mut is_told = false;
    let mut is_draining = false;
    let mut was_idle = false;
    let mut never = pin!(pending::<()>());
    let mut waiting = limit(&client.timer, never.as_mut());
    poll_fn(|context| {
        client.attend(context);
        loop {
            if core.draining() && !is_draining {
                // Says first that the end is near, and which streams were taken once the client has heard that.
                is_draining = true;
                was_idle = false;
                connection.graceful_shutdown();
            }
            let meter = &streams.shared.meter;
            if (meter.is_exceeded() || meter.is_rude()) && !is_told {
                is_told = true;
                core.counters.failures_client.add(1);
                let (what, reason) = if meter.is_rude() {
                    ("what is forbidden", Reason::PROTOCOL_ERROR)
                } else {
                    ("too many frames", Reason::ENHANCE_YOUR_CALM)
                };
                tracing::debug!("HTTP/2 with {} ended: {what}", client.address);
                connection.abrupt_shutdown(reason);
            }
            loop {
                match connection.poll_accept(context) {
                    Poll::Ready(Some(Ok(accepted))) => Streams::accept(streams, accepted),
                    Poll::Ready(Some(Err(error))) => {
                        if !error.is_io() {
                            core.counters.failures_client.add(1);
                            tracing::debug!("HTTP/2 with {} ended: {error}", client.address);
                        }
                        return Poll::Ready(());
                    }
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            let is_idle = streams.shared.running.get() == 0;
            if is_idle && !was_idle {
                let patience = if is_draining {
                    Some(GOAWAY_WAIT)
                } else {
                    core.settings.timeouts.idle
                };
                match patience {
                    Some(patience) => client.timer.set(coarse() + patience),
                    None => client.timer.clear(),
                }
            } else if !is_idle {
                client.timer.clear();
            }
            was_idle = is_idle;
            if Pin::new(&mut waiting).poll(context).is_pending() {
                return Poll::Pending;
            }
            // Nobody wants anything: the client is told, and that is the end.
            client.timer.clear();
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
    })
    .await;
}

impl Streams {
    /// Gives a request to a task that has none, or to a new one.
    fn accept(streams: &Rc<Self>, mut accepted: Accepted) {
        if streams.shared.running.get() >= H2_STREAMS_MAX as usize {
            // As many as it may have are running, some of them reset by their client and not over yet.
            accepted.1.send_reset(Reason::REFUSED_STREAM);
            streams.shared.meter.refused(coarse().nanoseconds());
            return;
        }
        streams.shared.running.set(streams.shared.running.get() + 1);
        streams.accepted.borrow_mut().push_back(accepted);
        let idle = streams.idle.borrow_mut().pop();
        match idle {
            Some(idle) => idle.wake(),
            None => reactor::spawn(work(Rc::clone(streams))),
        }
    }

    /// The next request, or `None` if there is nothing more to do: the connection is over, or has been quiet for a while.
    async fn next(&self, timer: &Timer) -> Option<Accepted> {
        timer.set(coarse() + H2_TASK_WAIT);
        let mut never = pin!(pending::<()>());
        let mut waiting = limit(timer, never.as_mut());
        poll_fn(|context| {
            if let Some(accepted) = self.accepted.borrow_mut().pop_front() {
                return Poll::Ready(Some(accepted));
            }
            let is_over = self.is_over.get() || Pin::new(&mut waiting).poll(context).is_ready();
            let mut idle = self.idle.borrow_mut();
            let place = idle
                .iter()
                .position(|waker| waker.will_wake(context.waker()));
            match (is_over, place) {
                (true, Some(place)) => drop(idle.remove(place)),
                (false, None) => idle.push(context.waker().clone()),
                (true, None) | (false, Some(_)) => {}
            }
            if is_over {
                // The last one leaves nothing behind: the connection may stay quiet for long.
                if idle.is_empty() {
                    *idle = Vec::new();
                    *self.accepted.borrow_mut() = VecDeque::new();
                }
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn wake_idle(&self) {
        for idle in self.idle.take() {
            idle.wake();
        }
    }
}

/// A request that is running, until dropped, also by a panic.
struct Running<'a> {
    streams: &'a Streams,
    head_bytes: Cell<usize>,
}

impl Running<'_> {
    /// Counts its head. False if all heads together are too much: then this one must not run.
    fn has_room(&self, head_bytes: usize) -> bool {
        self.head_bytes.set(head_bytes);
        let all = self.streams.heads_bytes.get() + head_bytes;
        self.streams.heads_bytes.set(all);
        all <= H2_HEADS_BYTES_MAX
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Streams {
            shared,
            heads_bytes,
            client,
            ..
        } = self.streams;
        let running = &shared.running;
        heads_bytes.set(heads_bytes.get() - self.head_bytes.get());
        running.set(running.get() - 1);
        if running.get() == 0 {
            client.wake();
        }
    }
}

/// Serves one request after another.
async fn work(streams: Rc<Streams>) {
    let core = &streams.core;
    let client = Client::of_stream(&streams.client, &streams.shared);
    let mut session = core.session();
    forward::introduce(core, &client, &mut session.introduction);
    let timer = Timer::new();
    while let Some(accepted) = streams.next(&timer).await {
        let running = Running {
            streams: &streams,
            head_bytes: Cell::new(0),
        };
        answer(&running, &client, &mut session, accepted).await;
    }
    core.put_session(session);
}

/// Serves one request.
async fn answer(running: &Running<'_>, client: &Client, session: &mut Session, accepted: Accepted) {
    let Streams { core, shared, .. } = running.streams;
    let Some(stream) = client.transport.stream() else {
        return;
    };
    session.inbound = None;
    session.body_begun = false;
    session.body_ended = false;
    match stream.begin(accepted, &mut session.request) {
        Ok(_) if !running.has_room(session.request.text_bytes()) => {
            shared.meter.refused(coarse().nanoseconds());
            stream.reset(Reason::REFUSED_STREAM);
        }
        Ok(request) => {
            if let Framing::Length(length @ 1..) = request.framing
                && let Ok(length) = usize::try_from(length)
                && length <= BODY_INLINE_BYTES
            {
                session.inbound = poll_fn(|context: &mut Context<'_>| {
                    Poll::Ready(stream.take_short_body(length, context))
                })
                .await;
            }
            if request.upgrade == Upgrade::WebSocket {
                // Clients send none over HTTP/2, and servers want one over HTTP/1.1 (RFC 8441, 5.1).
                websocket::ask(&mut session.request, core.random.bytes());
            }
            exchange::run(core, client, session, &request).await;
            session.inbound = None;
        }
        Err(Refused::Malformed(malformed)) => {
            core.counters.failures_client.add(1);
            tracing::debug!("reset a request from {}: {malformed:?}", client.address);
            shared.meter.refused(coarse().nanoseconds());
            stream.reset(Reason::PROTOCOL_ERROR);
        }
        Err(Refused::Request(error)) => {
            core.counters.failures_client.add(1);
            tracing::debug!("refused a request from {}: {error:?}", client.address);
            let told = reply::of_request_error(&error);
            own::refuse_stream(core, client, stream, session, told).await;
        }
    }
    stream.end();
    session.request.clear();
    session.request.shrink_if_large(HEAD_TEXT_KEPT);
}
