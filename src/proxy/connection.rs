//! A client's connection: one exchange after another, and the waits between them.
//!
//! Owns the client's transport and when it is closed. While it has nothing to do a connection holds no buffer and no heads:
//! the future of its active part is boxed, and freed when the client has been quiet for about a second.
//! Never looks into a request. Read next: `exchange.rs`.

use std::cell::{Cell, OnceCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context as TaskContext, Waker};

use super::core::Core;
use super::exchange::{self, After};
use super::forward;
use super::handshake;
use super::reply::{self, Answer, Manner};
use super::session::Session;
use super::stream::{Shared, Stream};
use super::streams;
use super::transport::{Sealed, Transport};
use crate::frontend::middleware::Context;
use crate::frontend::middleware::client_certificate::Shown;
use crate::http::Version;
use crate::http::h1::{self, Request};
use crate::limits::{HEAD_READ_TIMEOUT, LINGER_BYTES_MAX, LINGER_TIMEOUT};
use crate::reactor::coarse;
use crate::reactor::{Buffer, Room, Timer};
use crate::snapshot::EntryPointId;
use std::net::Shutdown;

/// The client's side of a connection.
pub(crate) struct Client {
    pub(crate) transport: Transport,
    pub(crate) entry_point: EntryPointId,
    /// Its `X-Forwarded-*` fields are believed.
    pub(crate) trusted: bool,
    /// The peer's address, IPv4 also where it came through an IPv6 socket.
    pub(crate) ip: IpAddr,
    /// The same as text.
    pub(crate) address: String,
    /// The limit of what is received from it or sent to it at present.
    pub(crate) timer: Timer,
    /// The certificate that it has shown, if it has one: of its connection, so streams share it.
    pub(crate) certificate: OnceCell<Rc<Shown>>,
    waiting: Cell<bool>,
    /// The task of a connection over HTTP/2, which waits for more than what is received.
    task: Cell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(
        core: &Core,
        transport: Transport,
        peer: SocketAddr,
        entry_point: EntryPointId,
    ) -> Self {
        let ip = peer.ip().to_canonical();
        let trusted = core.settings.entry_points[usize::from(entry_point.0)]
            .forwarded_headers
            .covers(ip);
        let address = match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => ip.to_string(),
        };
        Self {
            transport,
            entry_point,
            trusted,
            ip,
            address,
            timer: Timer::new(),
            certificate: OnceCell::new(),
            waiting: Cell::new(false),
            task: Cell::new(None),
        }
    }

    /// The same client on a stream of its connection.
    pub(crate) fn of_stream(connection: &Self, shared: &Rc<Shared>) -> Self {
        let stream = Stream::new(connection.transport.is_tls(), Rc::clone(shared));
        Self {
            transport: Transport::Stream(Box::new(stream)),
            entry_point: connection.entry_point,
            trusted: connection.trusted,
            ip: connection.ip,
            address: connection.address.clone(),
            timer: Timer::new(),
            certificate: connection.certificate.clone(),
            waiting: Cell::new(false),
            task: Cell::new(None),
        }
    }

    /// Its handshake is over, and it has shown these certificates.
    pub(crate) fn shows(&self, chain: Vec<Vec<u8>>) {
        if !chain.is_empty() {
            let _ = self.certificate.set(Rc::new(Shown::new(chain)));
        }
    }

    /// The task of `context` serves it, and wants to know what `wake` tells.
    pub(crate) fn attend(&self, context: &TaskContext<'_>) {
        let task = self.task.take();
        let is_same = task
            .as_ref()
            .is_some_and(|task| task.will_wake(context.waker()));
        self.task.set(if is_same {
            task
        } else {
            Some(context.waker().clone())
        });
    }

    /// Something that concerns the whole connection has changed.
    pub(crate) fn wake(&self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// What middlewares may know of it.
    pub(crate) fn context(&self) -> Context {
        Context {
            entry_point: self.entry_point.0,
            peer: self.ip,
            is_trusted: self.trusted,
            is_tls: self.transport.is_tls(),
        }
    }

    /// It waits for a request: closing it now loses none.
    pub(crate) fn waiting(&self) -> bool {
        self.waiting.get()
    }
}

/// Leaves the core's list when the connection's task ends, also when it ends by a panic.
struct Membership {
    core: Rc<Core>,
    place: usize,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.core.leave(self.place);
    }
}

/// Serves a client until one of us closes. `received` is what it has sent already.
pub(crate) async fn serve(core: Rc<Core>, client: Rc<Client>, place: usize, received: Buffer) {
    let membership = Membership { core, place };
    let core = &membership.core;
    match &client.transport {
        Transport::Plain(_) => converse(core, &client, received).await,
        // No connection of its own: `streams.rs` serves it.
        Transport::Stream(_) => {}
        Transport::Tls(sealed) => {
            // Boxed, as what is active: an idle connection does not carry the room for its beginning and its end.
            if Box::pin(handshake::run(core, &client, sealed, received)).await {
                if sealed.speaks_h2() {
                    Box::pin(streams::serve(core, &client, Buffer::empty())).await;
                } else {
                    converse(core, &client, Buffer::empty()).await;
                }
                Box::pin(sealed.close()).await;
            }
        }
    }
}

/// Exchanges and quiet times until the connection is of no more use. `received` is what came before.
async fn converse(core: &Rc<Core>, client: &Rc<Client>, received: Buffer) {
    let mut activity = Box::pin(active(core, client, true, received)).await;
    while let Activity::Quiet = activity {
        client.waiting.set(true);
        // The time limit of the idle wait is still set from the hot one.
        let readable = client.transport.readable(&client.timer).await;
        client.waiting.set(false);
        if readable.is_err() {
            return;
        }
        activity = Box::pin(active(core, client, false, Buffer::empty())).await;
    }
    if let Activity::Http2(received) = activity {
        Box::pin(streams::serve(core, client, received)).await;
    }
}

/// How the active part of a connection ended.
enum Activity {
    /// Nothing was asked for a while: wait without holding anything.
    Quiet,
    Ended,
    /// The client speaks HTTP/2; this is what it has sent.
    Http2(Buffer),
}

async fn active(core: &Rc<Core>, client: &Client, first: bool, received: Buffer) -> Activity {
    let mut session = core.session();
    session.inbound = (!received.is_empty()).then_some(received);
    forward::introduce(core, client, &mut session.introduction);
    let activity = exchanges(core, client, &mut session, first).await;
    core.put_session(session);
    activity
}

async fn exchanges(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    mut first: bool,
) -> Activity {
    loop {
        let request = match next_request(core, client, session, first).await {
            Next::Request(request) => request,
            Next::Quiet => return Activity::Quiet,
            Next::Closed => return Activity::Ended,
            Next::Http2(received) => return Activity::Http2(received),
            Next::Refused(answer) => {
                refuse(core, client, session, answer).await;
                return Activity::Ended;
            }
        };
        first = false;
        match exchange::run(core, client, session, &request).await {
            After::Keep => {}
            After::Close => return Activity::Ended,
            After::Linger => {
                linger(client).await;
                return Activity::Ended;
            }
        }
    }
}

enum Next {
    Request(Request),
    Quiet,
    Closed,
    /// The request cannot be read: say why, and close.
    Refused(Answer),
    /// It is the preface of HTTP/2.
    Http2(Buffer),
}

/// How far the first bytes of a connection are the preface of HTTP/2 (RFC 9113, 3.4).
#[derive(PartialEq)]
enum Preface {
    No,
    /// More bytes will tell.
    Perhaps,
    Yes,
}

impl Preface {
    const BYTES: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(Self::BYTES) {
            Self::Yes
        } else if Self::BYTES.starts_with(bytes) {
            Self::Perhaps
        } else {
            Self::No
        }
    }
}

async fn next_request(
    core: &Rc<Core>,
    client: &Client,
    session: &mut Session,
    first: bool,
) -> Next {
    let timeouts = &core.settings.timeouts;
    if session.inbound.as_ref().is_none_or(Buffer::is_empty) {
        session.inbound = None;
        if core.draining() && !first {
            // What the client has sent by now is answered, and nothing is waited for.
            client.transport.shutdown(Shutdown::Read);
        }
        match if first {
            Some(HEAD_READ_TIMEOUT)
        } else {
            timeouts.idle
        } {
            Some(limit) => client.timer.set(coarse() + limit),
            None => client.timer.clear(),
        }
        client.waiting.set(true);
        let received = client.transport.recv_hot(Room::Small, &client.timer).await;
        client.waiting.set(false);
        match received {
            Ok(None) if core.draining() => return Next::Closed,
            Ok(None) => return Next::Quiet,
            Ok(Some(buffer)) if !buffer.is_empty() => session.inbound = Some(buffer),
            Ok(Some(_)) | Err(_) => return Next::Closed,
        }
    }
    let mut limited = false;
    loop {
        // Where TLS is spoken, its handshake says which protocol it is.
        let preface = match &session.inbound {
            Some(inbound) if first && !client.transport.is_tls() => Preface::of(inbound.bytes()),
            _ => Preface::No,
        };
        if preface == Preface::Yes {
            return Next::Http2(session.inbound.take().unwrap_or_else(Buffer::empty));
        }
        if let Some(inbound) = &mut session.inbound
            && preface == Preface::No
        {
            match h1::request(inbound.bytes(), &mut session.scan, &mut session.request) {
                Ok(Some(request)) => {
                    inbound.advance(request.head_bytes);
                    session.body_begun = false;
                    session.body_ended = false;
                    return Next::Request(request);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!("refused a request from {}: {error:?}", client.address);
                    core.counters.failures_client.add(1);
                    return Next::Refused(reply::of_request_error(&error));
                }
            }
        }
        if !limited {
            limited = true;
            client
                .timer
                .set(coarse() + timeouts.read.unwrap_or(HEAD_READ_TIMEOUT));
        }
        match client.transport.recv(Room::Small, &client.timer).await {
            Ok(more) if more.is_empty() => return Next::Closed,
            Ok(more) => match &mut session.inbound {
                Some(inbound) if !inbound.is_empty() => inbound.extend(more.bytes()),
                _ => session.inbound = Some(more),
            },
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Next::Refused(reply::BAD_REQUEST);
            }
            Err(_) => return Next::Closed,
        }
    }
}

/// Answers a request that could not be read, and closes: where it ends is not known.
async fn refuse(core: &Rc<Core>, client: &Client, session: &mut Session, answer: Answer) {
    session.inbound = None;
    let out = refusal(core, answer);
    client.timer.set(coarse() + LINGER_TIMEOUT);
    if client.transport.send(out, &client.timer).await.is_ok() {
        linger(client).await;
    }
}

fn refusal(core: &Core, answer: Answer) -> Buffer {
    let mut out = Buffer::take(Room::Small);
    let manner = Manner {
        version: Version::Http11,
        head_only: false,
        keep: false,
        varies: false,
    };
    reply::write(core, answer, manner, coarse(), out.vec_mut());
    out
}

/// Answers a client that speaks HTTP where TLS is spoken, in the language it understands.
pub(super) async fn refuse_plain(core: &Core, client: &Client, sealed: &Sealed, answer: Answer) {
    client.timer.set(coarse() + LINGER_TIMEOUT);
    let sent = sealed
        .send_plain(refusal(core, answer), &client.timer)
        .await;
    if sent.is_ok() {
        linger(client).await;
    }
}

/// Closes in a way that lets the client read the answer: while it still sends, closing at once would reset the
/// connection and take the answer with it. Bounded in time and bytes.
pub(super) async fn linger(client: &Client) {
    client.transport.finish().await;
    client.timer.set(coarse() + LINGER_TIMEOUT);
    let mut left = LINGER_BYTES_MAX;
    while let Ok(count) = client.transport.discard(&client.timer).await {
        left = left.saturating_sub(count);
        if count == 0 || left == 0 {
            return;
        }
    }
}
