//! The driver where ours cannot run: monoio, on io_uring or on epoll.
//!
//! Owns monoio's streams, listeners and cancellers, and the one kernel timer of a core. Which of the two drivers a core
//! runs on is decided in [`run`]; monoio looks it up for each operation.
//! Never drops an operation that could lose a peer's bytes: a receive ends by its completion or by a cancellation that
//! is waited for. Operations that move no bytes (connect, readiness) may be dropped; monoio cancels them.
//! Read next: `../socket.rs`.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::pin::pin;

use monoio::io::{AsyncReadRent, AsyncWriteRent, CancelableAsyncReadRent, Canceller};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use super::descriptor;
use super::descriptor::nanoseconds;
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::operation::Gather;
use crate::reactor::probe::{self, Driver};
use crate::reactor::timer::{self, Timer, limit};

thread_local! {
    /// What drives this core. Sockets of epoll must not block; those of a ring may.
    static DRIVER: Cell<Option<Driver>> = const { Cell::new(None) };
    /// The kernel timer of this core.
    static ALARM: Cell<Option<RawFd>> = const { Cell::new(None) };
}

/// Drives `main` and what it spawns on this thread until `main` ends.
///
/// Tasks that still wait then are forgotten with their sockets: end them first, or end the process.
pub(in crate::reactor) fn run<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    DRIVER.set(Some(driver));
    timer::reset(nanoseconds());
    let output = match driver {
        Driver::Ring | Driver::IoUring => {
            let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
                .uring_builder(probe::ring_builder())
                .with_entries(probe::RING_ENTRIES)
                .build()?;
            runtime.block_on(with_alarm(main))?
        }
        Driver::Epoll => RuntimeBuilder::<LegacyDriver>::new()
            .build()?
            .block_on(with_alarm(main))?,
    };
    timer::reset(0);
    Ok(output)
}

async fn with_alarm<F: Future>(main: F) -> io::Result<F::Output> {
    let fd = descriptor::alarm()?;
    ALARM.set(Some(fd.as_raw_fd()));
    let stream = Stream::from_fd(fd)?;
    spawn(async move {
        // Ends only if the kernel refuses to wait for a timer, which leaves the core without deadlines.
        while let Ok(()) = stream.readable().await {
            descriptor::set_alarm(stream.fd(), timer::turn(nanoseconds()));
        }
        tracing::error!(
            "The kernel timer of this core cannot be waited for; no deadline will end any more"
        );
    });
    let output = main.await;
    ALARM.set(None);
    Ok(output)
}

pub(in crate::reactor) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    drop(monoio::spawn(future));
}

/// Sees to it that the wheel turns at `at` nanoseconds. Only ever earlier than what it was told last.
pub(in crate::reactor) fn arm(at: u64) {
    let Some(fd) = ALARM.get() else { return };
    // SAFETY: the descriptor is owned by the task that `with_alarm` spawned, which outlives the value in `ALARM`.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    descriptor::set_alarm(fd, Some(at));
}

/// A connected stream socket, or anything else that can become readable.
pub(in crate::reactor) struct Stream {
    /// monoio's methods want it exclusively, though all they do with it is to clone the descriptor out; and one task
    /// receives while another sends.
    stream: UnsafeCell<TcpStream>,
    /// Cancels receives; made for the first one that may have to be.
    canceller: RefCell<Option<Canceller>>,
    /// Whether system calls on the descriptor return `WouldBlock` instead of waiting. Operations of the ring wait anyway.
    nonblocking: Cell<bool>,
}

impl Stream {
    pub(in crate::reactor) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let epoll = DRIVER.get() == Some(Driver::Epoll);
        // A timer has no socket options.
        let stream = std::net::TcpStream::from(fd);
        stream.set_nonblocking(epoll)?;
        Ok(Self::new(TcpStream::from_std(stream)?))
    }

    pub(in crate::reactor) fn into_fd(self) -> io::Result<OwnedFd> {
        self.fd().try_clone_to_owned()
    }

    /// May be dropped before it ends: the attempt is cancelled and its socket closed.
    pub(in crate::reactor) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = Self::new(TcpStream::connect_addr(address).await?);
        descriptor::set_upstream_options(stream.fd())?;
        Ok(stream)
    }

    fn new(stream: TcpStream) -> Self {
        Self {
            stream: UnsafeCell::new(stream),
            canceller: RefCell::new(None),
            nonblocking: Cell::new(DRIVER.get() == Some(Driver::Epoll)),
        }
    }

    /// For system calls that are made directly.
    pub(in crate::reactor) fn forbid_blocking(&self) -> io::Result<()> {
        if !self.nonblocking.get() {
            descriptor::set_nonblocking(self.fd(), true)?;
            self.nonblocking.set(true);
        }
        Ok(())
    }

    #[allow(
        clippy::mut_from_ref,
        reason = "the one place where monoio's exclusive methods are reached"
    )]
    fn stream(&self) -> &mut TcpStream {
        // SAFETY: this thread alone uses the stream, and monoio 0.2's receives, sends and readiness waits touch it only
        // to clone its descriptor, before they first wait; so no two uses are ever under way at once.
        unsafe { &mut *self.stream.get() }
    }

    pub(in crate::reactor) fn fd(&self) -> BorrowedFd<'_> {
        let fd = self.stream().as_raw_fd();
        // SAFETY: the stream keeps its descriptor open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Receives what comes next: at least a byte, or an empty buffer at the end of the stream. Must not be dropped before
    /// it ends: bytes would be lost.
    pub(in crate::reactor) async fn recv(&self, room: Room) -> io::Result<Buffer> {
        let (result, buffer) = self.stream().read(Buffer::take(room)).await;
        result.map(|_| buffer)
    }

    /// As [`Stream::recv`]; `None` once `timer` expires with nothing received.
    pub(in crate::reactor) async fn recv_until(
        &self,
        room: Room,
        timer: &Timer,
    ) -> io::Result<Option<Buffer>> {
        let handle = self.canceller.borrow_mut().get_or_insert_default().handle();
        let mut receiving = pin!(self.stream().cancelable_read(Buffer::take(room), handle));
        let (result, buffer) = match limit(timer, receiving.as_mut()).await {
            Some(done) => done,
            None => {
                // It ends cancelled, or with what had come first.
                let canceller = self.canceller.take();
                *self.canceller.borrow_mut() = canceller.map(Canceller::cancel);
                receiving.await
            }
        };
        match result {
            Ok(_) => Ok(Some(buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the first bytes of `buffer`: how many is in the result.
    pub(in crate::reactor) fn send(
        &self,
        buffer: Buffer,
    ) -> impl Future<Output = (io::Result<usize>, Buffer)> {
        self.stream().write(buffer)
    }

    pub(in crate::reactor) fn send_gathered(
        &self,
        gather: Gather,
    ) -> impl Future<Output = (io::Result<usize>, Gather)> {
        self.stream().writev(gather)
    }

    /// May be dropped before it ends.
    pub(in crate::reactor) async fn readable(&self) -> io::Result<()> {
        self.stream().readable(false).await
    }

    /// May be dropped before it ends.
    pub(in crate::reactor) async fn writable(&self) -> io::Result<()> {
        self.stream().writable(false).await
    }
}

/// A listening socket.
pub(in crate::reactor) struct Acceptor {
    listener: TcpListener,
    canceller: RefCell<Canceller>,
}

impl Acceptor {
    /// Never accepts ahead.
    pub(in crate::reactor) fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(DRIVER.get() == Some(Driver::Epoll))?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            canceller: RefCell::new(Canceller::new()),
        })
    }

    /// Waits for a connection. Must not be dropped before it ends: a connection would be lost.
    pub(in crate::reactor) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let handle = self.canceller.borrow().handle();
        let (stream, address) = self.listener.cancelable_accept(handle).await?;
        Ok((Stream::new(stream), address))
    }

    /// Takes a connection that is already queued, or `WouldBlock`.
    pub(in crate::reactor) fn accept_queued(&self) -> io::Result<(Stream, SocketAddr)> {
        let fd = self.listener.as_raw_fd();
        // SAFETY: the listener keeps its descriptor open for as long as `self` is borrowed.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let (fd, address) = descriptor::accept_queued(fd)?;
        Ok((Stream::from_fd(fd)?, address))
    }

    /// Lets a waiting accept end with an error, or with the connection that came first.
    pub(in crate::reactor) fn cancel(&self) {
        let canceller = self.canceller.take();
        *self.canceller.borrow_mut() = canceller.cancel();
    }
}
