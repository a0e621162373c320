//! Connections of HTTP/2 to servers: opened, shared by many exchanges, given up.
//!
//! Owns the links of one core, a few for each server address, and who waits for a place on one. A link's task receives,
//! lets the protocol work and sends, so what its server closes is known at once. A link takes exchanges while its server
//! lets it; after a GOAWAY, or when it breaks, it takes no more, and ends with its last stream.
//! Never looks into a stream; never shares a link with another core.
//! Read next: `shared.rs`, `pipe.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::core::Load;
use super::failure::{Cause, Failure, Retry, Stage};
use super::pipe::{self, Pipe};
use super::transport::Transport;
use super::upstream::{self, Lane, Open, Upstream};
use crate::backend::{PoolKey, Scheme, Server};
use crate::limits::{
    BUFFER_LARGE_BYTES, HANDSHAKE_TIMEOUT, LINK_HEADERS_BYTES_MAX, LINK_PING_INTERVAL,
    LINK_PING_WAIT, LINK_QUIET, LINK_STREAMS_MAX, LINK_WINDOW_BYTES, LINKS_MAX,
    STREAM_WINDOW_BYTES, UPSTREAM_IDLE_TIMEOUT,
};
use crate::reactor::{self, Instant, Timer, coarse, limit, sleep};
use crate::settings::Settings;
use crate::tls::{self, Offer};

/// The links of one core.
pub(crate) struct Links {
    /// Indexed by `PoolKey`.
    slots: RefCell<Vec<Slot>>,
    load: Arc<Load>,
    /// How `https://` servers are spoken to.
    tls: tls::Client,
}

/// The links to one server address.
#[derive(Default)]
struct Slot {
    links: Vec<Rc<Link>>,
    /// One is being opened.
    opening: bool,
    /// How many openings have ended, and how the last one did, if it failed.
    openings: u64,
    failed: Option<(io::ErrorKind, String)>,
    /// The server, asked over TLS, chose HTTP/1.1 the last time.
    speaks_http1: bool,
    waiting: Rc<Line>,
}

/// Who waits for a place, in order.
#[derive(Default)]
struct Line(RefCell<VecDeque<Rc<Ticket>>>);

#[derive(Default)]
struct Ticket {
    waker: RefCell<Option<Waker>>,
    is_called: Cell<bool>,
    /// Its holder went away.
    is_void: Cell<bool>,
}

/// One who waits. If it goes away after it was called, it calls the next.
struct Waiting<'a> {
    line: &'a Line,
    ticket: Rc<Ticket>,
}

/// A connection that carries many exchanges.
pub(crate) struct Link {
    requests: SendRequest<Bytes>,
    pool: PoolKey,
    is_secure: bool,
    state: Cell<State>,
    /// Places given out.
    streams: Cell<usize>,
    /// It has carried an answer before, so its server may be about to close it.
    is_reused: Cell<bool>,
    /// Since when nobody has a place.
    idle_since: Cell<Instant>,
    unheard: Unheard,
    /// Who opens it, until it is open or over.
    opener: RefCell<Option<Waker>>,
    /// Why it is over.
    error: RefCell<Option<io::Error>>,
    line: Rc<Line>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The server has not told its settings yet.
    Opening,
    Open,
    /// It takes no more streams; those that it has go on if they can.
    Over,
}

/// Since when something was asked of a server from which nothing at all has come.
type Unheard = Rc<Cell<Option<Instant>>>;

/// The right to one stream on a link, until it is dropped.
pub(crate) struct Place {
    link: Rc<Link>,
    is_reused: bool,
}

impl Links {
    pub(crate) fn new(load: Arc<Load>, tls: tls::Client) -> Self {
        Self {
            slots: RefCell::default(),
            load,
            tls,
        }
    }

    /// A place on a link that is open, if there is one and nobody has waited for it longer.
    pub(crate) fn place(&self, pool: PoolKey) -> Option<Place> {
        let slots = self.slots.borrow();
        let slot = slots.get(pool.0 as usize)?;
        if !slot.waiting.is_empty() {
            return None;
        }
        slot.place()
    }

    /// A stream to `server`, or, where that is agreed on over TLS, a connection of its own: on a link that is open, on
    /// one that is opened for it, or when a place becomes free.
    ///
    /// # Errors
    /// Nothing was sent: the request may go to another server.
    pub(crate) async fn lane(
        self: &Rc<Self>,
        server: &Server,
        settings: &Settings,
    ) -> Result<Lane, Failure> {
        let timer = Timer::new();
        if let Some(dial) = settings.timeouts.dial {
            timer.set(coarse() + dial);
        }
        let mut is_called = false;
        loop {
            match self.turn(server, is_called) {
                Turn::Place(place) => return Ok(Lane::shared(place)),
                Turn::Alone => return self.open(server, settings, None).await,
                Turn::Open(opening) => return self.open(server, settings, Some(opening)).await,
                Turn::Wait { line, openings } => {
                    let waiting = Waiting::new(&line);
                    let mut called = poll_fn(|context| waiting.poll(context));
                    if limit(&timer, Pin::new(&mut called)).await.is_none() {
                        return Err(timed_out());
                    }
                    waiting.take();
                    is_called = true;
                    if let Some(failure) = self.failed_since(server.pool, openings) {
                        return Err(failure);
                    }
                }
            }
        }
    }

    fn turn(self: &Rc<Self>, server: &Server, is_called: bool) -> Turn {
        let mut slots = self.slots.borrow_mut();
        let index = server.pool.0 as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, Slot::default);
        }
        let slot = &mut slots[index];
        if (is_called || slot.waiting.is_empty())
            && let Some(place) = slot.place()
        {
            return Turn::Place(place);
        }
        if slot.speaks_http1 && server.scheme == Scheme::Https {
            return Turn::Alone;
        }
        if !slot.opening && slot.links.len() < LINKS_MAX {
            slot.opening = true;
            return Turn::Open(Opening {
                links: Rc::clone(self),
                pool: server.pool,
                failed: None,
            });
        }
        Turn::Wait {
            line: Rc::clone(&slot.waiting),
            openings: slot.openings,
        }
    }

    /// How the opening that was waited for has failed, if it has.
    fn failed_since(&self, pool: PoolKey, openings: u64) -> Option<Failure> {
        let slots = self.slots.borrow();
        let slot = slots.get(pool.0 as usize)?;
        let (kind, why) = slot.failed.as_ref().filter(|_| slot.openings != openings)?;
        let error = io::Error::new(*kind, why.clone());
        Some(Failure::io(Stage::Connect, Retry::Safe, error))
    }

    async fn open(
        self: &Rc<Self>,
        server: &Server,
        settings: &Settings,
        mut opening: Option<Opening>,
    ) -> Result<Lane, Failure> {
        let opened = self.connect(server, settings).await;
        if let (Err(failure), Some(opening)) = (&opened, &mut opening) {
            let kind = match failure.cause {
                Cause::TimedOut => io::ErrorKind::TimedOut,
                _ => io::ErrorKind::Other,
            };
            opening.failed = Some((kind, failure.cause.to_string()));
        }
        opened
    }

    async fn connect(
        self: &Rc<Self>,
        server: &Server,
        settings: &Settings,
    ) -> Result<Lane, Failure> {
        let transport =
            { upstream::reach(server, settings, &self.tls, Offer::Http2OrHttp1).await? };
        let is_http1 = server.scheme == Scheme::Https && !transport.speaks_http2();
        self.with(server.pool, |slot| slot.speaks_http1 = is_http1);
        if is_http1 {
            return Ok(Lane::Own(Upstream::new(transport, server.pool, &self.load)));
        }
        let link = self.begin(transport, server.pool).await?;
        let timer = Timer::new();
        timer.set(coarse() + HANDSHAKE_TIMEOUT);
        let mut opened = poll_fn(|context| link.poll_open(context));
        match limit(&timer, Pin::new(&mut opened)).await {
            None => return Err(timed_out()),
            Some(Err(error)) => return Err(Failure::io(Stage::Connect, Retry::Safe, error)),
            Some(Ok(())) => {}
        }
        let Some(place) = Link::place(&link) else {
            return Err(Failure::server(Stage::Connect, Retry::Safe, Cause::Closed));
        };
        self.with(server.pool, |slot| slot.links.push(link));
        Ok(Lane::shared(place))
    }

    /// Starts the task of a link over `transport`.
    async fn begin(
        self: &Rc<Self>,
        transport: Transport,
        pool: PoolKey,
    ) -> Result<Rc<Link>, Failure> {
        let pipe = Pipe::new();
        let unheard = Rc::new(Cell::new(None));
        let heard = Heard {
            pipe: pipe.clone(),
            unheard: Rc::clone(&unheard),
        };
        // What the server has to say first decides how many streams there may be.
        let (requests, mut connection) = Builder::new()
            .initial_max_send_streams(0)
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(LINK_WINDOW_BYTES)
            .max_header_list_size(LINK_HEADERS_BYTES_MAX)
            .max_send_buffer_size(BUFFER_LARGE_BYTES)
            .handshake(heard)
            .await
            .map_err(|error| Failure::io(Stage::Connect, Retry::Safe, io::Error::other(error)))?;
        let line = self
            .with(pool, |slot| Rc::clone(&slot.waiting))
            .unwrap_or_default();
        let link = Rc::new(Link {
            requests,
            pool,
            is_secure: transport.is_tls(),
            streams: Cell::new(0),
            state: Cell::new(State::Opening),
            is_reused: Cell::new(false),
            idle_since: Cell::new(coarse()),
            unheard,
            opener: RefCell::default(),
            error: RefCell::default(),
            line,
        });
        let pings = connection.ping_pong();
        let task = Task {
            transport,
            pipe,
            connection,
            pings,
            link: Rc::downgrade(&link),
            links: Rc::downgrade(self),
            _open: Open::new(&self.load),
        };
        reactor::spawn(task.run());
        Ok(link)
    }

    fn with<T>(&self, pool: PoolKey, act: impl FnOnce(&mut Slot) -> T) -> Option<T> {
        self.slots.borrow_mut().get_mut(pool.0 as usize).map(act)
    }

    /// Gives nobody a place on `link` any more: it ends with its last stream.
    fn forget(&self, link: &Rc<Link>) {
        let line = self.with(link.pool, |slot| {
            slot.links.retain(|other| !Rc::ptr_eq(other, link));
            Rc::clone(&slot.waiting)
        });
        if let Some(line) = line {
            line.call_all();
        }
    }

    /// Closes the links to addresses that are no longer configured, each with its last stream.
    pub(crate) fn retire(&self, pools: &[PoolKey]) {
        for pool in pools {
            let links = self.with(*pool, |slot| {
                slot.speaks_http1 = false;
                mem::take(&mut slot.links)
            });
            drop(links);
        }
    }

    /// Closes the links on which no stream is.
    pub(crate) fn close_idle(&self) {
        let mut idle = Vec::new();
        for slot in &mut *self.slots.borrow_mut() {
            idle.extend(slot.links.extract_if(.., |link| link.streams.get() == 0));
        }
        drop(idle);
    }
}

/// What one who wants a lane does next.
enum Turn {
    Place(Place),
    /// Open a connection for itself, as everybody does towards this server.
    Alone,
    Open(Opening),
    Wait {
        line: Rc<Line>,
        openings: u64,
    },
}

/// A link being opened. When it ends, in whatever way, those who wait are told.
struct Opening {
    links: Rc<Links>,
    pool: PoolKey,
    failed: Option<(io::ErrorKind, String)>,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let failed = self.failed.take();
        let line = self.links.with(self.pool, |slot| {
            slot.opening = false;
            slot.openings += 1;
            slot.failed = failed;
            Rc::clone(&slot.waiting)
        });
        if let Some(line) = line {
            line.call_all();
        }
    }
}

impl Slot {
    fn place(&self) -> Option<Place> {
        self.links.iter().find_map(Link::place)
    }
}

impl Line {
    fn is_empty(&self) -> bool {
        let mut waiting = self.0.borrow_mut();
        while waiting.front().is_some_and(|ticket| ticket.is_void.get()) {
            waiting.pop_front();
        }
        waiting.is_empty()
    }

    fn call_one(&self) {
        while let Some(ticket) = self.pop() {
            if ticket.call() {
                return;
            }
        }
    }

    fn call_all(&self) {
        let all = mem::take(&mut *self.0.borrow_mut());
        for ticket in all {
            ticket.call();
        }
    }

    fn pop(&self) -> Option<Rc<Ticket>> {
        self.0.borrow_mut().pop_front()
    }
}

impl Ticket {
    /// False if nobody holds it any more.
    fn call(&self) -> bool {
        self.is_called.set(true);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
        !self.is_void.get()
    }
}

impl<'a> Waiting<'a> {
    fn new(line: &'a Line) -> Self {
        let ticket = Rc::<Ticket>::default();
        line.0.borrow_mut().push_back(Rc::clone(&ticket));
        Self { line, ticket }
    }

    fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.ticket.is_called.get() {
            return Poll::Ready(());
        }
        self.ticket.waker.replace(Some(context.waker().clone()));
        Poll::Pending
    }

    /// Takes the turn: nobody else is called for it.
    fn take(self) {
        self.ticket.is_called.set(false);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.ticket.is_void.set(true);
        if self.ticket.is_called.get() {
            self.line.call_one();
        }
    }
}

impl Link {
    fn place(self: &Rc<Self>) -> Option<Place> {
        let streams = self.streams.get();
        let max = self
            .requests
            .current_max_send_streams()
            .min(LINK_STREAMS_MAX);
        if self.state.get() != State::Open || streams >= max {
            return None;
        }
        self.streams.set(streams + 1);
        Some(Place {
            link: Rc::clone(self),
            is_reused: self.is_reused.get(),
        })
    }

    /// Ready when streams may be opened, or never will be.
    fn poll_open(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        match self.state.get() {
            State::Open => Poll::Ready(Ok(())),
            State::Over => Poll::Ready(Err(self
                .error
                .take()
                .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))),
            State::Opening => {
                self.opener.replace(Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// Looks what the server has said since the last time. True if the link is over from now on.
    fn look(&self) -> bool {
        let state = self.state.get();
        if state == State::Over {
            return false;
        }
        // Fails once the server has said that it goes, and when stream numbers are used up. Nothing waits here.
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(error)) = self.requests.clone().poll_ready(&mut nobody) {
            self.end(io::Error::other(error));
            return true;
        }
        if state == State::Opening && self.requests.current_max_send_streams() > 0 {
            self.turn(State::Open);
        }
        false
    }

    fn end(&self, error: io::Error) {
        self.error.replace(Some(error));
        self.turn(State::Over);
    }

    fn turn(&self, state: State) {
        self.state.set(state);
        let opener = self.opener.take();
        if let Some(opener) = opener {
            opener.wake();
        }
    }
}

impl Place {
    /// The link had carried an answer before this place was given out.
    pub(crate) fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.link.is_secure
    }

    /// Opens the stream. It waits in the library if the server's count of them lags behind ours.
    ///
    /// # Errors
    /// The link is over.
    pub(crate) fn request(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        let link = &self.link;
        if link.unheard.get().is_none() {
            link.unheard.set(Some(coarse()));
        }
        // A clone of its own: the library lets each of them open one stream ahead of the count.
        link.requests.clone().send_request(request, ends)
    }

    /// An answer has come on the link.
    pub(crate) fn answered(&self) {
        self.link.is_reused.set(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let link = &self.link;
        link.streams.set(link.streams.get() - 1);
        if link.streams.get() == 0 {
            link.idle_since.set(coarse());
        }
        link.line.call_one();
    }
}

fn timed_out() -> Failure {
    Failure::server(Stage::Connect, Retry::Safe, Cause::TimedOut)
}

/// What runs while a link lives.
struct Task {
    transport: Transport,
    pipe: Pipe,
    connection: Connection<Heard, Bytes>,
    pings: Option<PingPong>,
    link: Weak<Link>,
    links: Weak<Links>,
    _open: Open,
}

impl Task {
    async fn run(self) {
        let Self {
            transport,
            pipe,
            mut connection,
            pings,
            link,
            links,
            _open,
        } = self;
        let mut watching = pin!(watch(&link, &links, pings));
        let protocol = poll_fn(|context| {
            let polled = Pin::new(&mut connection).poll(context);
            if let Some(link) = link.upgrade()
                && link.look()
                && let Some(links) = links.upgrade()
            {
                links.forget(&link);
            }
            if polled.is_pending() && watching.as_mut().poll(context).is_ready() {
                // Whoever is there does not answer: what is written would wait for ever.
                transport.shutdown(Shutdown::Both);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            polled.map_err(io::Error::other)
        });
        let ended = pipe::drive(&pipe, &transport, protocol).await;
        if let Err(error) = &ended {
            tracing::debug!("connection to a server: {error}");
        }
        if let Some(link) = link.upgrade()
            && link.state.get() != State::Over
        {
            link.end(
                ended
                    .err()
                    .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()),
            );
            if let Some(links) = links.upgrade() {
                links.forget(&link);
            }
        }
        // Its streams learn of it by this.
        drop(connection);
        transport.finish().await;
    }
}

/// Gives an idle link up, and asks a server that says nothing whether it is there. Ends if it is not.
async fn watch(link: &Weak<Link>, links: &Weak<Links>, mut pings: Option<PingPong>) {
    let timer = Timer::new();
    let mut next_ping = coarse();
    loop {
        sleep(LINK_QUIET).await;
        let at = coarse();
        let unheard = {
            let Some(link) = link.upgrade() else { continue };
            if link.streams.get() == 0 && at.since(link.idle_since.get()) >= UPSTREAM_IDLE_TIMEOUT {
                if let Some(links) = links.upgrade() {
                    links.forget(&link);
                }
                continue;
            }
            link.unheard.get()
        };
        let is_quiet = unheard.is_some_and(|since| at.since(since) >= LINK_QUIET);
        let Some(pings) = pings.as_mut().filter(|_| is_quiet && at >= next_ping) else {
            continue;
        };
        next_ping = at + LINK_PING_INTERVAL;
        timer.set(at + LINK_PING_WAIT);
        if pings.send_ping(Ping::opaque()).is_err() {
            return;
        }
        let mut answered = poll_fn(|context| pings.poll_pong(context));
        if limit(&timer, Pin::new(&mut answered)).await.is_none() {
            return;
        }
    }
}

/// A pipe that knows when something was read from it.
struct Heard {
    pipe: Pipe,
    unheard: Unheard,
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let polled = Pin::new(&mut this.pipe).poll_read(context, into);
        if into.filled().len() > before {
            this.unheard.set(None);
        }
        polled
    }
}

impl AsyncWrite for Heard {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().pipe).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().pipe).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.pipe.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().pipe).poll_shutdown(context)
    }
}
