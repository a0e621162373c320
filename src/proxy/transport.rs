//! A connection as the proxy uses it: a socket, a socket with TLS around what it carries, or a stream of HTTP/2 within one.
//!
//! Owns the order of sealed records on the wire, and the buffers they pass through. While nothing is under way no buffer
//! is held, sealed or open. Receiving and sending may be under way at once, one of each, polled by one task; what is
//! inside is never borrowed across an `.await`. Never decides how long anything may take.
//! Read next: `tls/connection.rs` (what is sealed how), `handshake.rs` (how it begins).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::task::{Context, Poll};

use super::handshake::Turnstile;
use super::stream::Stream;
use crate::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES, LINGER_TIMEOUT};
use crate::reactor::{Buffer, Peer, Room, Socket, Timer, next_turn, now};
use crate::tls::{self, Connection};

/// Plaintext that is at most this long is sealed into one small buffer: records add 22 bytes each, and a ticket that
/// waits to go out adds a few hundred.
const SEALED_SMALL_MAX: usize = BUFFER_SMALL_BYTES - 1024;

/// Buffers that are sealed as one run of bytes: a frame, a piece, an end.
const SEALED_TOGETHER: usize = 4;

/// What bytes travel over. The methods are those of [`Socket`], with its errors; those of TLS are `InvalidData`, and an end
/// that the peer did not announce is `UnexpectedEof`.
pub(crate) enum Transport {
    Plain(Socket),
    /// Boxed: a connection without TLS pays nothing for it.
    Tls(Box<Sealed>),
    /// Carries bodies and tunnels; heads are not bytes here, and go by [`Transport::stream`].
    Stream(Box<Stream>),
}

/// A socket that carries TLS.
pub(crate) struct Sealed {
    socket: Socket,
    connection: RefCell<Connection>,
    /// Received and not opened yet.
    arrived: RefCell<Buffer>,
    /// Sealed buffers on their way in one operation; empty in between.
    sends: RefCell<Vec<Buffer>>,
    sending: Cell<bool>,
    /// The peer is to see that something broke.
    broken: Cell<bool>,
}

/// How long a receive holds its buffer.
#[derive(Clone, Copy)]
enum Wait {
    Steady,
    Hot,
    Patient,
}

/// Why a handshake was not finished.
pub(crate) enum Refused {
    Io(io::Error),
    Tls(tls::Error),
    /// It speaks HTTP, without TLS.
    PlainHttp,
}

impl Transport {
    pub(crate) fn tls(socket: Socket, connection: Connection) -> Self {
        Self::Tls(Box::new(Sealed {
            socket,
            connection: RefCell::new(connection),
            arrived: RefCell::new(Buffer::empty()),
            sends: RefCell::default(),
            sending: Cell::new(false),
            broken: Cell::new(false),
        }))
    }

    /// A connection to a server, with the handshake done.
    pub(crate) async fn to_server(
        socket: Socket,
        connection: Connection,
        timer: &Timer,
    ) -> Result<Self, Refused> {
        let transport = Self::tls(socket, connection);
        if let Self::Tls(sealed) = &transport {
            sealed.handshake_first(timer).await?;
        }
        Ok(transport)
    }

    /// What carries it: a socket, or a stream, which has none of its own.
    fn carrier(&self) -> Result<&Socket, &Stream> {
        match self {
            Self::Plain(socket) => Ok(socket),
            Self::Tls(sealed) => Ok(&sealed.socket),
            Self::Stream(stream) => Err(stream),
        }
    }

    /// The stream, where heads do not go as bytes.
    #[inline]
    pub(crate) fn stream(&self) -> Option<&Stream> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Plain(_) | Self::Tls(_) => None,
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(_) => true,
            Self::Stream(stream) => stream.is_tls(),
        }
    }

    /// Both ends agreed on HTTP/2.
    pub(crate) fn speaks_http2(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Stream(_) => false,
            Self::Tls(sealed) => sealed.speaks_h2(),
        }
    }

    pub(crate) async fn recv(&self, room: Room, timer: &Timer) -> io::Result<Buffer> {
        match self {
            Self::Plain(socket) => socket.recv(room, timer).await,
            Self::Tls(sealed) => sealed
                .receive(Wait::Steady, room, timer)
                .await
                .map(|plain| plain.unwrap_or_else(Buffer::empty)),
            Self::Stream(stream) => stream.recv(timer).await,
        }
    }

    /// As [`Socket::poll_recv`]; with TLS `None` also where an error is to be found by a future, which tells the peer.
    #[inline]
    pub(crate) fn poll_recv(
        &self,
        room: Room,
        context: &mut Context<'_>,
    ) -> Option<Poll<io::Result<Buffer>>> {
        match self {
            Self::Plain(socket) => socket.poll_recv(room, context),
            Self::Tls(sealed) => sealed.poll_recv(room, context),
            Self::Stream(_) => None,
        }
    }

    pub(crate) async fn recv_hot(&self, room: Room, timer: &Timer) -> io::Result<Option<Buffer>> {
        match self {
            Self::Plain(socket) => socket.recv_hot(room, timer).await,
            Self::Tls(sealed) => sealed.receive(Wait::Hot, room, timer).await,
            Self::Stream(stream) => stream.recv(timer).await.map(Some),
        }
    }

    pub(crate) async fn recv_patient(&self, room: Room, timer: &Timer) -> io::Result<Buffer> {
        match self {
            Self::Plain(socket) => socket.recv_patient(room, timer).await,
            Self::Tls(sealed) => sealed
                .receive(Wait::Patient, room, timer)
                .await
                .map(|plain| plain.unwrap_or_else(Buffer::empty)),
            Self::Stream(stream) => stream.recv(timer).await,
        }
    }

    /// Waits until the next receive has something to look at. Call it only after [`Transport::recv_hot`] found nothing.
    pub(crate) async fn readable(&self, timer: &Timer) -> io::Result<()> {
        if let Self::Tls(sealed) = self {
            sealed.connection.borrow_mut().shrink();
        }
        match self.carrier() {
            Ok(socket) => socket.readable(timer).await,
            // Its receives hold nothing, however long they wait.
            Err(_) => Ok(()),
        }
    }

    pub(crate) async fn send(&self, buffer: Buffer, timer: &Timer) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.send(buffer, timer).await,
            Self::Tls(sealed) => {
                let room = sealed.seal(&[IoSlice::new(buffer.bytes())])?;
                drop(buffer);
                sealed.flush(room, timer).await
            }
            Self::Stream(stream) => stream.send(buffer, false, timer).await,
        }
    }

    pub(crate) async fn send_all(
        &self,
        buffers: &mut Vec<Buffer>,
        timer: &Timer,
    ) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.send_all(buffers, timer).await,
            Self::Tls(sealed) => {
                let room = sealed.seal_all(buffers);
                buffers.clear();
                sealed.flush(room?, timer).await
            }
            Self::Stream(stream) => {
                for buffer in buffers.drain(..) {
                    stream.send(buffer, false, timer).await?;
                }
                Ok(())
            }
        }
    }

    pub(crate) fn peer(&self) -> Peer {
        self.carrier().map_or_else(Stream::peer, Socket::peer)
    }

    pub(crate) fn probe_peer(&self) {
        if let Ok(socket) = self.carrier() {
            socket.probe_peer();
        }
    }

    pub(crate) fn reset_on_close(&self) {
        if let Self::Tls(sealed) = self {
            sealed.broken.set(true);
        }
        match self.carrier() {
            Ok(socket) => socket.reset_on_close(),
            Err(stream) => stream.reset(h2::Reason::INTERNAL_ERROR),
        }
    }

    /// Ends a direction of the socket at once. Of the sending one the peer learns as of something broken: see `finish`.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        match self.carrier() {
            Ok(socket) => socket.shutdown(how),
            Err(stream) => stream.reset(h2::Reason::CANCEL),
        }
    }

    /// Ends the sending direction in order; receiving goes on.
    pub(crate) async fn finish(&self) {
        if let Self::Tls(sealed) = self {
            sealed.close().await;
        }
        match self.carrier() {
            Ok(socket) => socket.shutdown(Shutdown::Write),
            Err(stream) => stream.finish(),
        }
    }

    /// Receives bytes that nobody wants, as they are on the wire.
    pub(crate) async fn discard(&self, timer: &Timer) -> io::Result<usize> {
        let buffer = match self.carrier() {
            Ok(socket) => socket.recv(Room::Small, timer).await?,
            Err(stream) => stream.recv(timer).await?,
        };
        Ok(buffer.len())
    }
}

impl Sealed {
    /// The certificates that the peer has shown, as DER and its own first.
    pub(crate) fn peer_chain(&self) -> Vec<Vec<u8>> {
        self.connection.borrow().peer_chain()
    }

    /// Shakes hands, as the client.
    async fn handshake_first(&self, timer: &Timer) -> Result<(), Refused> {
        self.flush(Room::Small, timer).await.map_err(Refused::Io)?;
        self.handshake_on(None, Buffer::empty(), timer).await
    }

    /// Shakes hands, as the server, computing only when it is its turn.
    pub(super) async fn handshake(
        &self,
        received: Buffer,
        turns: &Turnstile,
        timer: &Timer,
    ) -> Result<(), Refused> {
        self.handshake_on(Some(turns), received, timer).await
    }

    /// The rest of a handshake: of the server's, if there are `turns`. Then the first bytes may be those of plain HTTP.
    async fn handshake_on(
        &self,
        turns: Option<&Turnstile>,
        mut received: Buffer,
        timer: &Timer,
    ) -> Result<(), Refused> {
        let mut doubtful = turns.is_some();
        loop {
            if received.is_empty() {
                // No buffer is held while the client thinks.
                self.socket.readable(timer).await.map_err(Refused::Io)?;
                received = self
                    .socket
                    .recv(Room::Small, timer)
                    .await
                    .map_err(Refused::Io)?;
            }
            let buffer = mem::replace(&mut received, Buffer::empty());
            match buffer.bytes().first() {
                None => return Err(Refused::Io(io::ErrorKind::UnexpectedEof.into())),
                // No record of TLS begins with a letter, and every request does.
                Some(byte) if doubtful && byte.is_ascii_uppercase() => {
                    return Err(Refused::PlainHttp);
                }
                Some(_) => {}
            }
            doubtful = false;
            let turn = match turns {
                Some(turns) => Some(turns.pass().await),
                None => None,
            };
            let shaken = self.shake(buffer);
            if let Some(turn) = turn {
                next_turn().await;
                drop(turn);
            }
            let (flush, going_on) = {
                let connection = self.connection.borrow();
                (connection.must_flush(), connection.is_handshaking())
            };
            if flush {
                let told = self.flush(Room::Small, timer).await;
                if shaken.is_ok() {
                    told.map_err(Refused::Io)?;
                }
            }
            shaken.map_err(Refused::Tls)?;
            if !going_on {
                return Ok(());
            }
        }
    }

    /// See [`Connection::was_proof`].
    pub(super) fn was_proof(&self) -> bool {
        self.connection.borrow().was_proof()
    }

    /// Sends as it is, to a peer that does not speak TLS.
    pub(crate) async fn send_plain(&self, buffer: Buffer, timer: &Timer) -> io::Result<()> {
        self.socket.send(buffer, timer).await
    }

    /// Passes what arrived to a handshake. What is behind its end is kept.
    fn shake(&self, mut buffer: Buffer) -> Result<(), tls::Error> {
        let consumed = self.connection.borrow_mut().shake(buffer.bytes())?;
        buffer.advance(consumed);
        if !buffer.is_empty() {
            self.arrived.replace(buffer);
        }
        Ok(())
    }

    /// Plaintext, or an empty buffer at its end. `None` only of a hot wait, if nothing came.
    async fn receive(&self, wait: Wait, room: Room, timer: &Timer) -> io::Result<Option<Buffer>> {
        loop {
            match self.opened(room) {
                Ok(Some(plain)) => return Ok(Some(plain)),
                // TLS 1.2: the peer waits to hear that it cannot begin another handshake.
                Ok(None) if self.connection.borrow().must_flush() && !self.sending.get() => {
                    self.flush(Room::Small, timer).await?;
                }
                Ok(None) => {}
                Err(error) => {
                    if !self.sending.get() {
                        // The peer is told why, if it still listens.
                        let soon = Timer::new();
                        soon.set(now() + LINGER_TIMEOUT);
                        let _ = self.flush(Room::Small, &soon).await;
                    }
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
            let arrived = match wait {
                Wait::Steady => self.socket.recv(room, timer).await?,
                Wait::Patient => self.socket.recv_patient(room, timer).await?,
                Wait::Hot => match self.socket.recv_hot(room, timer).await? {
                    Some(arrived) => arrived,
                    None => return Ok(None),
                },
            };
            if arrived.is_empty() {
                // It may have been cut by somebody else: what a message lacks will never come.
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.arrived.replace(arrived);
        }
    }

    /// See [`Transport::poll_recv`]. Not inlined: where there is no TLS, that is to stay small.
    #[inline(never)]
    fn poll_recv(&self, room: Room, context: &Context<'_>) -> Option<Poll<io::Result<Buffer>>> {
        loop {
            if let Some(plain) = self.opened(room).ok()? {
                return Some(Poll::Ready(Ok(plain)));
            }
            match self.socket.poll_recv(room, context)? {
                Poll::Ready(Ok(arrived)) if arrived.is_empty() => {
                    return Some(Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())));
                }
                Poll::Ready(Ok(arrived)) => drop(self.arrived.replace(arrived)),
                Poll::Ready(Err(error)) => return Some(Poll::Ready(Err(error))),
                Poll::Pending => {
                    // This may be the wait of a connection that stays quiet for long.
                    self.connection.borrow_mut().shrink();
                    return Some(Poll::Pending);
                }
            }
        }
    }

    /// The plaintext of what has arrived, as much as there is room for, or the announced end. `None`: receive more.
    fn opened(&self, room: Room) -> Result<Option<Buffer>, tls::Error> {
        let mut arrived = self.arrived.borrow_mut();
        let mut connection = self.connection.borrow_mut();
        if !arrived.is_empty() || connection.has_plaintext() {
            let mut plain = Buffer::take(room);
            let opened = connection.open(arrived.bytes(), plain.vec_mut(), bytes(room));
            match opened {
                Ok(consumed) => arrived.advance(consumed),
                Err(error) if plain.is_empty() => return Err(error),
                // Said again when the plaintext before it is used up.
                Err(_) => {}
            }
            if arrived.is_empty() {
                *arrived = Buffer::empty();
            }
            if !plain.is_empty() {
                return Ok(Some(plain));
            }
        }
        Ok(connection.is_ended().then(Buffer::empty))
    }

    /// Seals `parts`, for `flush`. Returns the room that what is sealed will take.
    fn seal(&self, parts: &[IoSlice<'_>]) -> io::Result<Room> {
        self.connection.borrow_mut().seal(parts)?;
        let plain: usize = parts.iter().map(|part| part.len()).sum();
        Ok(if plain <= SEALED_SMALL_MAX {
            Room::Small
        } else {
            Room::Large
        })
    }

    fn seal_all(&self, buffers: &[Buffer]) -> io::Result<Room> {
        if let [one] = buffers {
            return self.seal(&[IoSlice::new(one.bytes())]);
        }
        let mut room = Room::Small;
        // More than a few at once are rare, and only cost a record that is not full.
        for group in buffers.chunks(SEALED_TOGETHER) {
            let mut parts = [IoSlice::new(&[]); SEALED_TOGETHER];
            for (part, buffer) in parts.iter_mut().zip(group) {
                *part = IoSlice::new(buffer.bytes());
            }
            if self.seal(parts.get(..group.len()).unwrap_or_default())? == Room::Large {
                room = Room::Large;
            }
        }
        Ok(room)
    }

    /// Sends everything that is sealed, in one operation.
    async fn flush(&self, room: Room, timer: &Timer) -> io::Result<()> {
        let mut first = Buffer::take(room);
        let more = self
            .connection
            .borrow_mut()
            .take(first.vec_mut(), bytes(room));
        self.sending.set(true);
        let sent = if more {
            let mut sends = mem::take(&mut *self.sends.borrow_mut());
            sends.push(first);
            loop {
                let mut next = Buffer::take(Room::Small);
                let more = self
                    .connection
                    .borrow_mut()
                    .take(next.vec_mut(), BUFFER_SMALL_BYTES);
                sends.push(next);
                if !more {
                    break;
                }
            }
            let sent = self.socket.send_all(&mut sends, timer).await;
            self.sends.replace(sends);
            sent
        } else {
            self.socket.send(first, timer).await
        };
        self.sending.set(false);
        sent
    }

    /// The handshake has settled on HTTP/2.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.connection.borrow().alpn() == Some(b"h2")
    }

    /// Says that nothing more will come, unless the peer is to see that something broke, or the handshake was not over.
    pub(crate) async fn close(&self) {
        if self.broken.get() {
            return;
        }
        self.connection.borrow_mut().close();
        let soon = Timer::new();
        soon.set(now() + LINGER_TIMEOUT);
        let _ = self.flush(Room::Small, &soon).await;
    }
}

fn bytes(room: Room) -> usize {
    match room {
        Room::Small => BUFFER_SMALL_BYTES,
        Room::Large => BUFFER_LARGE_BYTES,
    }
}
