//! Ways to servers: connections of HTTP/1.1 that are opened, kept and used again, and which exchange gets what.
//!
//! Owns the pools of one core, a stack per server address. A connection always has a receive under way ([`Incoming`]):
//! the answer's first bytes arrive without another operation, and a kept connection that its server closes, or on which
//! it speaks unasked, is known to be unusable before anybody is given it.
//! Never shares a connection with another core. Limits are exact per core, give or take a second: a connection that
//! was used within the last second does not count as idle (the burst that comes next would only open it again).
//! Read next: `exchange.rs`, `link.rs` (HTTP/2).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crossbeam::channel::Sender;

use super::core::Load;
use super::failure::{Cause, Failure, Retry, Side, Stage};
use super::incoming::Incoming;
use super::link::{Links, Place};
use super::shared::{self, Shared};
use super::transport::{Refused, Transport};
use crate::backend::{PoolKey, Scheme, Server};
use crate::http::Head;
use crate::limits::{HANDSHAKE_TIMEOUT, UPSTREAM_IDLE_TIMEOUT};
use crate::mailbox::Report;
use crate::reactor::{self, Instant, coarse};
use crate::reactor::{Buffer, Room, Socket, Timer, limit, sleep};
use crate::settings::Settings;
use crate::tls::{self, Offer};
use std::net::Shutdown;

/// A kept connection this fresh does not count against the limit of idle ones.
const FRESH: Duration = Duration::from_secs(1);

/// A connection to a server.
pub(crate) struct Upstream {
    pub(crate) transport: Rc<Transport>,
    pub(crate) incoming: Incoming,
    pool: PoolKey,
    /// It has carried an exchange before, so its server may be about to close it.
    pub(crate) reused: bool,
    kept_since: Instant,
    _open: Open,
}

/// Counts a connection to a server for as long as it lives.
pub(crate) struct Open(Arc<Load>);

impl Open {
    pub(crate) fn new(load: &Arc<Load>) -> Self {
        load.set_servers(load.servers() + 1);
        Self(Arc::clone(load))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set_servers(self.0.servers() - 1);
    }
}

/// The kept connections of one core.
pub(crate) struct Pools {
    /// Indexed by `PoolKey`; the last one kept is the first one used.
    #[expect(
        clippy::vec_box,
        reason = "a connection goes in and out as a pointer, not copied"
    )]
    kept: RefCell<Vec<Vec<Box<Upstream>>>>,
    count: Cell<usize>,
    idle_max: usize,
    sweeping: Cell<bool>,
    load: Arc<Load>,
    /// How `https://` servers are spoken to.
    tls: tls::Client,
    links: Rc<Links>,
    /// To control, which makes pages about ourselves.
    reports: Sender<Report>,
}

impl Pools {
    /// `idle_max` is per server address, on this core.
    pub(crate) fn new(
        idle_max: usize,
        load: Arc<Load>,
        tls: tls::Client,
        reports: Sender<Report>,
    ) -> Self {
        Self {
            kept: RefCell::default(),
            count: Cell::new(0),
            idle_max,
            sweeping: Cell::new(false),
            links: Rc::new(Links::new(Arc::clone(&load), tls.clone())),
            load,
            reports,
            tls,
        }
    }

    fn pop(&self, pool: PoolKey) -> Option<Box<Upstream>> {
        let upstream = self.kept.borrow_mut().get_mut(pool.0 as usize)?.pop()?;
        self.count.set(self.count.get() - 1);
        Some(upstream)
    }

    /// A kept connection on which nothing has happened since, or none.
    async fn take(&self, pool: PoolKey) -> Option<Box<Upstream>> {
        poll_fn(|cx| {
            while let Some(mut upstream) = self.pop(pool) {
                if upstream.incoming.poll_next(cx).is_pending() {
                    return Poll::Ready(Some(upstream));
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    /// [`Pools::put`], and sees to it that kept connections are looked after while there are any.
    pub(crate) async fn keep(self: &Rc<Self>, upstream: Box<Upstream>) {
        self.put(upstream, coarse()).await;
        if self.wants_sweep() {
            let pools = Rc::clone(self);
            reactor::spawn(async move { pools.sweep().await });
        }
    }

    /// Keeps a connection whose last answer has ended cleanly. One that has something to say already is closed.
    async fn put(&self, mut upstream: Box<Upstream>, at: Instant) {
        upstream.incoming.set_room(Room::Small);
        let quiet = poll_fn(|cx| Poll::Ready(upstream.incoming.poll_next(cx).is_pending())).await;
        if !quiet {
            return;
        }
        upstream.reused = true;
        upstream.kept_since = at;
        let mut kept = self.kept.borrow_mut();
        let index = upstream.pool.0 as usize;
        if kept.len() <= index {
            if upstream.pool == PoolKey::NEVER {
                return;
            }
            kept.resize_with(index + 1, Vec::new);
        }
        kept[index].push(upstream);
        self.count.set(self.count.get() + 1);
    }

    /// Closes the kept connections of addresses that are no longer configured.
    pub(crate) fn retire(&self, pools: &[PoolKey]) {
        for pool in pools {
            while let Some(upstream) = self.pop(*pool) {
                drop(upstream);
            }
        }
        self.links.retire(pools);
    }

    /// Closes every kept connection: descriptors have run out, or the process ends.
    pub(crate) fn close_all(&self) {
        let kept = std::mem::take(&mut *self.kept.borrow_mut());
        self.count.set(0);
        drop(kept);
        self.links.close_idle();
    }

    /// True once, until `sweep` ends: whoever gets it starts the sweep.
    fn wants_sweep(&self) -> bool {
        self.count.get() > 0 && !self.sweeping.replace(true)
    }

    /// Once a second while anything is kept: closes what its server closed, what is too old, and what is too many.
    async fn sweep(&self) {
        while self.count.get() > 0 {
            sleep(FRESH).await;
            let at = coarse();
            poll_fn(|cx| {
                let mut closed = 0;
                for kept in &mut *self.kept.borrow_mut() {
                    let before = kept.len();
                    let mut idle = 0;
                    // The oldest lie at the bottom and the last one used on top: count from the top.
                    let excess = before.saturating_sub(self.idle_max);
                    kept.retain_mut(|upstream| {
                        idle += 1;
                        let age = at.since(upstream.kept_since);
                        let surplus = idle <= excess && age >= FRESH;
                        age < UPSTREAM_IDLE_TIMEOUT
                            && !surplus
                            && upstream.incoming.poll_next(cx).is_pending()
                    });
                    closed += before - kept.len();
                }
                self.count.set(self.count.get() - closed);
                Poll::Ready(())
            })
            .await;
        }
        self.sweeping.set(false);
    }

    /// A connection to a server: a kept one unless `fresh` is asked for, else a new one within the dial time limit.
    ///
    /// # Errors
    /// Nothing was sent: the request may go to another server.
    pub(crate) async fn open(
        &self,
        server: &Server,
        fresh: bool,
        settings: &Settings,
    ) -> Result<Box<Upstream>, Failure> {
        self.open_with(server, fresh, settings, None).await
    }

    /// The same, speaking TLS in this way instead of the one of all servers.
    ///
    /// # Errors
    /// As [`Pools::open`].
    pub(crate) async fn open_with(
        &self,
        server: &Server,
        fresh: bool,
        settings: &Settings,
        tls: Option<&tls::Client>,
    ) -> Result<Box<Upstream>, Failure> {
        if !fresh && let Some(upstream) = self.take(server.pool).await {
            return Ok(upstream);
        }
        // Built in one place and moved by its box: a connection is opened once and used for thousands of exchanges.
        let tls = tls.unwrap_or(&self.tls);
        let transport = Box::pin(reach(server, settings, tls, Offer::Http1)).await?;
        Ok(Upstream::new(transport, server.pool, &self.load))
    }

    /// The way to a server for one exchange. A server that speaks HTTP/2 gives a stream, but not for an exchange that is
    /// to leave HTTP (`switches`): over TLS it is asked for HTTP/1.1 then.
    ///
    /// # Errors
    /// Nothing was sent: the request may go to another server.
    pub(crate) async fn lane(
        &self,
        server: &Server,
        fresh: bool,
        switches: bool,
        settings: &Settings,
    ) -> Result<Lane, Failure> {
        match server.scheme {
            Scheme::Http | Scheme::Unsupported => {
                return self.open(server, fresh, settings).await.map(Lane::Own);
            }
            Scheme::Https if switches => {
                return self.open(server, fresh, settings).await.map(Lane::Own);
            }
            Scheme::Https => {
                if !fresh && let Some(upstream) = self.take(server.pool).await {
                    return Ok(Lane::Own(upstream));
                }
            }
            Scheme::H2c => {}
            Scheme::Control => {
                let transport = self
                    .call_control()
                    .map_err(|error| Failure::io(Stage::Connect, Retry::Safe, error))?;
                return Ok(Lane::Own(Upstream::new(transport, server.pool, &self.load)));
            }
        }
        if let Some(place) = self.links.place(server.pool) {
            return Ok(Lane::shared(place));
        }
        Box::pin(self.links.lane(server, settings)).await
    }
}

impl Pools {
    /// A connection to the control plane of this process: one end of a pair of sockets, whose other end it gets.
    fn call_control(&self) -> io::Result<Transport> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        // Without control the far end is closed here, which is seen as a server that closed.
        let _ = self.reports.send(Report::Asked(theirs.into()));
        Socket::from_fd(ours.into()).map(Transport::Plain)
    }
}

/// A connection to a server, with the handshake done where it speaks TLS.
///
/// # Errors
/// Nothing was sent: the request may go to another server.
pub(crate) async fn reach(
    server: &Server,
    settings: &Settings,
    tls: &tls::Client,
    offer: Offer,
) -> Result<Transport, Failure> {
    let failed = |cause| Failure {
        side: Side::Server,
        stage: Stage::Connect,
        retry: Retry::Safe,
        cause,
    };
    let mut failure = failed(Cause::Unresolved);
    let timer = Timer::new();
    if let Some(dial) = settings.timeouts.dial {
        timer.set(coarse() + dial);
    }
    for address in &server.addresses {
        let socket = match Socket::connect(*address, &timer).await {
            Ok(socket) => socket,
            Err(error) => {
                failure = Failure::io(Stage::Connect, Retry::Safe, error);
                continue;
            }
        };
        return Ok(match server.scheme {
            Scheme::Http | Scheme::H2c | Scheme::Control | Scheme::Unsupported => {
                Transport::Plain(socket)
            }
            Scheme::Https => {
                let limit = Timer::new();
                limit.set(coarse() + HANDSHAKE_TIMEOUT);
                let connection = tls
                    .connect(&server.host, offer)
                    .map_err(|error| failed(Cause::Tls(error)))?;
                match Transport::to_server(socket, connection, &limit).await {
                    Ok(transport) => transport,
                    Err(Refused::Io(error)) => {
                        return Err(Failure::io(Stage::Connect, Retry::Safe, error));
                    }
                    Err(Refused::Tls(error)) => return Err(failed(Cause::Tls(error))),
                    Err(Refused::PlainHttp) => return Err(failed(Cause::Closed)),
                }
            }
        });
    }
    Err(failure)
}

/// The way to a server for one exchange.
pub(crate) enum Lane {
    /// A connection of HTTP/1.1 that carries nothing else meanwhile.
    Own(Box<Upstream>),
    /// A stream of HTTP/2 beside others.
    Shared(Box<Shared>),
}

/// Where the body of a request goes.
pub(crate) enum Outgoing {
    Own(Rc<Transport>),
    Shared(Rc<shared::Outgoing>),
}

impl Lane {
    pub(crate) fn shared(place: Place) -> Self {
        Self::Shared(Box::new(Shared::new(place)))
    }

    pub(crate) fn outgoing(&self) -> Outgoing {
        match self {
            Self::Own(upstream) => Outgoing::Own(Rc::clone(&upstream.transport)),
            Self::Shared(stream) => Outgoing::Shared(stream.outgoing()),
        }
    }

    /// What the server sends next; empty when it has closed, or ended its answer in frames. `None` if `timer` expired
    /// first: nothing is lost, and the receive goes on.
    #[inline]
    pub(crate) async fn next(&mut self, timer: &Timer) -> Option<io::Result<Buffer>> {
        let mut next = poll_fn(|cx| match self {
            Self::Own(upstream) => upstream.incoming.poll_next(cx),
            Self::Shared(stream) => stream.poll_piece(cx),
        });
        limit(timer, Pin::new(&mut next)).await
    }

    /// Whether the request may be sent again if the server ends the connection before it has said anything.
    #[inline]
    pub(crate) fn retry(&self) -> Retry {
        match self {
            Self::Own(upstream) if upstream.reused => Retry::Stale,
            // A stream says by itself what its end means.
            Self::Own(_) | Self::Shared(_) => Retry::Never,
        }
    }

    /// The trailers that came beside the answer's body, once that has ended.
    ///
    /// # Errors
    /// They may not be passed on.
    #[inline]
    pub(crate) fn trailers(&mut self, into: &mut Head) -> io::Result<()> {
        match self {
            Self::Own(_) => Ok(()),
            Self::Shared(stream) => stream.trailers(into),
        }
    }

    /// How large the pieces are from here on.
    #[inline]
    pub(crate) fn set_room(&mut self, room: Room) {
        match self {
            Self::Own(upstream) => upstream.incoming.set_room(room),
            Self::Shared(stream) => stream.set_room(room),
        }
    }

    /// Ends the exchange at once, in both directions.
    pub(crate) fn sever(&self) {
        match self {
            Self::Own(upstream) => upstream.transport.shutdown(Shutdown::Both),
            Self::Shared(stream) => stream.sever(),
        }
    }
}

impl Outgoing {
    /// Ends the exchange at once, in both directions.
    pub(crate) fn sever(&self) {
        match self {
            Self::Own(transport) => transport.shutdown(Shutdown::Both),
            Self::Shared(outgoing) => outgoing.sever(),
        }
    }
}

impl Upstream {
    /// A new connection, for the pool of this key.
    pub(crate) fn new(transport: Transport, pool: PoolKey, load: &Arc<Load>) -> Box<Self> {
        let transport = Rc::new(transport);
        Box::new(Self {
            incoming: Incoming::new(Rc::clone(&transport)),
            transport,
            pool,
            reused: false,
            kept_since: coarse(),
            _open: Open::new(load),
        })
    }

    /// What the server sends next; empty when it has closed. `None` if `timer` expired first: nothing is lost, and the
    /// receive goes on.
    pub(crate) async fn next(&mut self, timer: &Timer) -> Option<io::Result<Buffer>> {
        let mut next = poll_fn(|cx| self.incoming.poll_next(cx));
        limit(timer, Pin::new(&mut next)).await
    }

    /// Waits for what comes next, however long it takes.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        Poll::Ready(ready!(self.incoming.poll_next(cx)))
    }
}
