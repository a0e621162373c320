//! A core on our own ring or on monoio, decided when it starts.
//!
//! Owns the choice, one branch per call, and what both share. Read next: `ring/mod.rs`, `monoio.rs`.

use std::future::Future;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

pub(in crate::reactor) use super::descriptor::nanoseconds;
pub(in crate::reactor) use super::ring::probe as probe_ring;
use super::{descriptor, monoio, ring};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::operation::Gather;
use crate::reactor::probe::Driver;
use crate::reactor::socket::Peer;
use crate::reactor::timer::Timer;

/// Drives `main` and what it spawns on this thread until `main` ends.
///
/// Tasks that still wait then are dropped or forgotten with their sockets: end them first, or end the process.
pub(in crate::reactor) fn run<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    match driver {
        Driver::Ring => ring::run(main),
        Driver::IoUring | Driver::Epoll => monoio::run(driver, main),
    }
}

pub(in crate::reactor) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    if ring::is_current() {
        ring::spawn(future)
    } else {
        monoio::spawn(future)
    }
}

#[inline]
pub(in crate::reactor) fn nanoseconds_coarse() -> u64 {
    ring::nanoseconds_coarse()
}

/// Sees to it that the wheel turns at `at` nanoseconds. Only ever earlier than what it was told last.
pub(in crate::reactor) fn arm(at: u64) {
    if ring::is_current() {
        ring::arm(at)
    } else {
        monoio::arm(at)
    }
}

/// A connected stream socket, or anything else that can become readable.
pub(in crate::reactor) enum Stream {
    Ring(ring::Stream),
    Monoio(monoio::Stream),
}

impl Stream {
    pub(in crate::reactor) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        if ring::is_current() {
            ring::Stream::from_fd(fd).map(Self::Ring)
        } else {
            monoio::Stream::from_fd(fd).map(Self::Monoio)
        }
    }

    pub(in crate::reactor) fn into_fd(self) -> io::Result<OwnedFd> {
        match self {
            Self::Ring(stream) => stream.into_fd(),
            Self::Monoio(stream) => stream.into_fd(),
        }
    }

    /// May be dropped before it ends: the attempt is cancelled and its socket closed.
    pub(in crate::reactor) async fn connect(address: SocketAddr) -> io::Result<Self> {
        if ring::is_current() {
            ring::Stream::connect(address).await.map(Self::Ring)
        } else {
            monoio::Stream::connect(address).await.map(Self::Monoio)
        }
    }

    /// Receives what comes next: at least a byte, or an empty buffer at the end of the stream. Must not be dropped before
    /// it ends: bytes may be lost.
    #[inline]
    pub(in crate::reactor) fn recv(&self, room: Room) -> impl Future<Output = io::Result<Buffer>> {
        match self {
            Self::Ring(stream) => Either::Ring(stream.recv(room)),
            Self::Monoio(stream) => Either::Monoio(stream.recv(room)),
        }
    }

    /// As [`Stream::recv`], without a future: while it is pending the receive goes on, and the task is woken. `None` where
    /// a receive cannot be left to itself.
    #[inline]
    pub(in crate::reactor) fn poll_recv(
        &self,
        room: Room,
        context: &Context<'_>,
    ) -> Option<Poll<io::Result<Buffer>>> {
        match self {
            Self::Ring(stream) => Some(stream.poll_recv(room, context)),
            Self::Monoio(_) => None,
        }
    }

    /// As [`Stream::recv`]; `None` once `timer` expires with nothing received.
    #[inline]
    pub(in crate::reactor) fn recv_until(
        &self,
        room: Room,
        timer: &Timer,
    ) -> impl Future<Output = io::Result<Option<Buffer>>> {
        match self {
            Self::Ring(stream) => Either::Ring(stream.recv_until(room, timer)),
            Self::Monoio(stream) => Either::Monoio(stream.recv_until(room, timer)),
        }
    }

    /// Sends the first bytes of `buffer`: how many is in the result.
    #[inline]
    pub(in crate::reactor) fn send(
        &self,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        match self {
            Self::Ring(stream) => Either::Ring(stream.send(buffer)),
            Self::Monoio(stream) => Either::Monoio(stream.send(buffer)),
        }
    }

    pub(in crate::reactor) async fn send_gathered(
        &self,
        gather: Gather,
    ) -> (io::Result<usize>, Gather) {
        match self {
            Self::Ring(stream) => stream.send_gathered(gather).await,
            Self::Monoio(stream) => stream.send_gathered(gather).await,
        }
    }

    /// May be dropped before it ends.
    pub(in crate::reactor) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Ring(stream) => stream.readable().await,
            Self::Monoio(stream) => stream.readable().await,
        }
    }

    /// May be dropped before it ends.
    pub(in crate::reactor) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Ring(stream) => stream.writable().await,
            Self::Monoio(stream) => stream.writable().await,
        }
    }

    fn forbid_blocking(&self) -> io::Result<()> {
        match self {
            Self::Ring(stream) => stream.forbid_blocking(),
            Self::Monoio(stream) => stream.forbid_blocking(),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Ring(stream) => stream.fd(),
            Self::Monoio(stream) => stream.fd(),
        }
    }

    pub(in crate::reactor) fn shutdown(&self, how: Shutdown) {
        descriptor::shutdown(self.fd(), how);
    }

    pub(in crate::reactor) fn peer(&self) -> Peer {
        descriptor::peer(self.fd())
    }

    pub(in crate::reactor) fn probe_peer(&self) {
        descriptor::probe_peer(self.fd());
    }

    pub(in crate::reactor) fn reset_on_close(&self) {
        descriptor::reset_on_close(self.fd());
    }

    pub(in crate::reactor) fn local_address(&self) -> io::Result<SocketAddr> {
        descriptor::local_address(self.fd())
    }
}

/// A future of either driver.
enum Either<R, M> {
    Ring(R),
    Monoio(M),
}

impl<R: Future + Unpin, M: Future<Output = R::Output>> Future for Either<R, M> {
    type Output = R::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // SAFETY: what is pinned is not moved out of it below.
        match unsafe { self.get_unchecked_mut() } {
            Self::Ring(future) => Pin::new(future).poll(context),
            // SAFETY: it is pinned with this, and dropped in place.
            Self::Monoio(future) => unsafe { Pin::new_unchecked(future) }.poll(context),
        }
    }
}

/// A listening socket.
pub(in crate::reactor) enum Acceptor {
    Ring(ring::Acceptor),
    Monoio(monoio::Acceptor),
}

impl Acceptor {
    /// `ahead`: the driver may accept connections that nobody has asked for yet.
    pub(in crate::reactor) fn from_std(
        listener: std::net::TcpListener,
        ahead: bool,
    ) -> io::Result<Self> {
        if ring::is_current() {
            ring::Acceptor::from_std(listener, ahead).map(Self::Ring)
        } else {
            monoio::Acceptor::from_std(listener).map(Self::Monoio)
        }
    }

    /// Waits for a connection. Must not be dropped before it ends: a connection would be lost.
    pub(in crate::reactor) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Ring(acceptor) => acceptor
                .accept()
                .await
                .map(|(stream, peer)| (Stream::Ring(stream), peer)),
            Self::Monoio(acceptor) => acceptor
                .accept()
                .await
                .map(|(stream, peer)| (Stream::Monoio(stream), peer)),
        }
    }

    /// Takes a connection that is already queued, or `WouldBlock`. Only after [`Acceptor::cancel`].
    pub(in crate::reactor) async fn accept_queued(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Ring(acceptor) => acceptor
                .accept_queued()
                .await
                .map(|(stream, peer)| (Stream::Ring(stream), peer)),
            Self::Monoio(acceptor) => acceptor
                .accept_queued()
                .map(|(stream, peer)| (Stream::Monoio(stream), peer)),
        }
    }

    /// Lets a waiting accept end with an error, or with the connection that came first.
    pub(in crate::reactor) fn cancel(&self) {
        match self {
            Self::Ring(acceptor) => acceptor.cancel(),
            Self::Monoio(acceptor) => acceptor.cancel(),
        }
    }
}

/// A pipe that bytes pass through between two sockets without being copied.
#[derive(Debug)]
pub(in crate::reactor) struct Channel {
    reader: OwnedFd,
    writer: OwnedFd,
    capacity: usize,
}

impl Channel {
    /// As wide as this process may make it, and at most `bytes`.
    pub(in crate::reactor) fn new(bytes: usize) -> io::Result<Self> {
        let (reader, writer, capacity) = descriptor::pipe(bytes)?;
        Ok(Self {
            reader,
            writer,
            capacity,
        })
    }

    pub(in crate::reactor) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Moves what `from` holds into the pipe, at most `count` bytes; 0 is the end of the stream.
    pub(in crate::reactor) fn fill(&self, from: &Stream, count: usize) -> io::Result<usize> {
        if let Stream::Ring(stream) = from
            && let Err(error) = stream.disarm()
        {
            let Some(arrived) = stream.take_arrived() else {
                return Err(error);
            };
            return self.pass_on(stream, arrived?, count);
        }
        from.forbid_blocking()?;
        descriptor::splice(from.fd(), self.writer.as_fd(), count)
    }

    /// Moves at most `count` bytes out of the pipe into `to`.
    pub(in crate::reactor) fn drain(&self, to: &Stream, count: usize) -> io::Result<usize> {
        to.forbid_blocking()?;
        descriptor::splice(self.reader.as_fd(), to.fd(), count)
    }

    /// Moves what had come before splicing began.
    fn pass_on(&self, from: &ring::Stream, mut buffer: Buffer, count: usize) -> io::Result<usize> {
        let bytes = buffer.bytes();
        let written = descriptor::write(self.writer.as_fd(), bytes.get(..count).unwrap_or(bytes))?;
        buffer.advance(written);
        if !buffer.is_empty() {
            from.put_back(buffer);
        }
        Ok(written)
    }
}
