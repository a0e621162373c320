//! glommio as a driver, behind `--features glommio`: for comparison, and as insurance against an abandoned dependency.
//!
//! Owns glommio's streams, and the wake-up of the wheel. Correct before fast: glommio waits for readiness and moves bytes
//! with a system call, a vectored send goes out one buffer at a time, and a spliced socket is looked at in turns of the
//! wheel. It always runs on io_uring; there is no epoll here.
//! Because bytes move in a system call made while a future is polled, dropping a future loses none.
//! Read next: `monoio.rs`, the default, which this must behave like.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncWrite};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};
use socket2::SockRef;

use super::descriptor;
pub(in crate::reactor) use super::descriptor::{nanoseconds, nanoseconds_coarse};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::clock;
use crate::reactor::operation::Gather;
use crate::reactor::probe::Driver;
use crate::reactor::socket::Peer;
use crate::reactor::timer::{self, Timer, limit};

thread_local! {
    /// When the wheel wants to be turned, and who does it.
    static ALARM: Cell<Option<u64>> = const { Cell::new(None) };
    static TURNER: Cell<Option<Waker>> = const { Cell::new(None) };
}

/// Drives `main` and what it spawns on this thread until `main` ends.
///
/// # Errors
/// `Unsupported` for epoll; else the ring cannot be built.
pub(in crate::reactor) fn run<F: Future>(driver: Driver, main: F) -> io::Result<F::Output> {
    if driver == Driver::Epoll {
        return Err(io::ErrorKind::Unsupported.into());
    }
    timer::reset(nanoseconds());
    ALARM.set(None);
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make()?;
    let output = executor.run(async {
        spawn(turn_wheel());
        main.await
    });
    timer::reset(0);
    Ok(output)
}

async fn turn_wheel() {
    loop {
        let at = ALARM.get();
        let mut sleeping = at.map(|at| {
            glommio::timer::Timer::new(Duration::from_nanos(at.saturating_sub(nanoseconds())))
        });
        poll_fn(|context| {
            TURNER.set(Some(context.waker().clone()));
            if ALARM.get() != at {
                return Poll::Ready(());
            }
            match &mut sleeping {
                Some(sleeping) => Pin::new(sleeping).poll(context).map(|_| ()),
                None => Poll::Pending,
            }
        })
        .await;
        if ALARM.get() == at {
            let next = timer::turn(nanoseconds());
            ALARM.set(next);
        }
    }
}

pub(in crate::reactor) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    glommio::spawn_local(future).detach();
}

/// Sees to it that the wheel turns at `at` nanoseconds. Only ever earlier than what it was told last.
pub(in crate::reactor) fn arm(at: u64) {
    ALARM.set(Some(at));
    if let Some(waker) = TURNER.take() {
        waker.wake();
    }
}

/// A connected stream socket.
pub(in crate::reactor) struct Stream {
    /// Borrowed for the time of one poll only: one task receives while another sends.
    stream: RefCell<TcpStream>,
    /// A byte that was received to find out whether there is one.
    first: Cell<Option<u8>>,
    cancelled: Cell<bool>,
}

impl Stream {
    #[allow(
        clippy::unnecessary_wraps,
        reason = "the same signature as that of the other drivers"
    )]
    pub(in crate::reactor) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is given away here and owned by the stream from now on.
        let stream = unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) };
        Ok(Self::new(stream))
    }

    /// # Errors
    /// A byte was already taken off the socket, which cannot be put back; or out of descriptors.
    pub(in crate::reactor) fn into_fd(self) -> io::Result<OwnedFd> {
        if self.first.get().is_some() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.with_fd(|fd| fd.try_clone_to_owned())
    }

    pub(in crate::reactor) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = Self::new(TcpStream::connect(address).await?);
        stream.with_fd(descriptor::set_upstream_options)?;
        Ok(stream)
    }

    fn new(stream: TcpStream) -> Self {
        Self {
            stream: RefCell::new(stream),
            first: Cell::new(None),
            cancelled: Cell::new(false),
        }
    }

    fn with_fd<T>(&self, use_it: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        let stream = self.stream.borrow();
        // SAFETY: the stream keeps its descriptor open for as long as it is borrowed.
        use_it(unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) })
    }

    fn poll_fill(&self, context: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<usize>> {
        let first = self.first.take();
        buffer.extend(first.as_slice());
        // glommio wants memory that holds bytes already.
        let filled = buffer.len();
        let memory = buffer.vec_mut();
        memory.resize(memory.capacity(), 0);
        let room = memory.get_mut(filled..).unwrap_or_default();
        let polled = Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, room);
        let received = match &polled {
            Poll::Ready(Ok(count)) => *count,
            _ => 0,
        };
        memory.truncate(filled + received);
        match first {
            // Whatever else the socket says it will say again.
            Some(_) => Poll::Ready(Ok(1 + received)),
            None => polled,
        }
    }

    pub(in crate::reactor) async fn recv(&self, room: Room) -> io::Result<Buffer> {
        let mut buffer = Buffer::take(room);
        poll_fn(|context| self.poll_fill(context, &mut buffer)).await?;
        Ok(buffer)
    }

    /// Receives of this driver cannot be left to themselves.
    pub(in crate::reactor) fn poll_recv(
        &self,
        _room: Room,
        _context: &Context<'_>,
    ) -> Option<Poll<io::Result<Buffer>>> {
        None
    }

    /// As [`Stream::recv`]; `None` once `timer` expires with nothing received.
    pub(in crate::reactor) async fn recv_until(
        &self,
        room: Room,
        timer: &Timer,
    ) -> io::Result<Option<Buffer>> {
        let mut receiving = pin!(self.recv_cancelable(Buffer::take(room)));
        let (result, buffer) = match limit(timer, receiving.as_mut()).await {
            Some(done) => done,
            None => {
                self.cancel();
                receiving.await
            }
        };
        match result {
            Ok(_) => Ok(Some(buffer)),
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn recv_cancelable(&self, mut buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let result = poll_fn(|context| {
            if self.cancelled.take() {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
            self.poll_fill(context, &mut buffer)
        })
        .await;
        (result, buffer)
    }

    /// Lets a cancelable receive end when it is polled next, which its caller does at once.
    fn cancel(&self) {
        self.cancelled.set(true);
    }

    fn poll_send(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream.borrow_mut()).poll_write(context, bytes)
    }

    pub(in crate::reactor) async fn send(&self, buffer: Buffer) -> (io::Result<usize>, Buffer) {
        let result = poll_fn(|context| self.poll_send(context, buffer.bytes())).await;
        (result, buffer)
    }

    pub(in crate::reactor) async fn send_gathered(
        &self,
        gather: Gather,
    ) -> (io::Result<usize>, Gather) {
        let result = poll_fn(|context| self.poll_send(context, gather.first())).await;
        (result, gather)
    }

    pub(in crate::reactor) async fn readable(&self) -> io::Result<()> {
        if self.first.get().is_some() {
            return Ok(());
        }
        // There is no wait without a receive; so one byte is received, and kept.
        let mut byte = [0];
        let count = poll_fn(|context| {
            Pin::new(&mut *self.stream.borrow_mut()).poll_read(context, &mut byte)
        })
        .await?;
        if count == 1 {
            self.first.set(byte.first().copied());
        }
        Ok(())
    }

    pub(in crate::reactor) async fn writable(&self) -> io::Result<()> {
        // There is no wait without a send; so it looks at every turn of the wheel.
        while !self.with_fd(descriptor::writable_now) {
            timer::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub(in crate::reactor) fn shutdown(&self, how: Shutdown) {
        // It fails only if the connection is gone already, which is what is wanted.
        let _ = self.with_fd(|fd| SockRef::from(&fd).shutdown(how));
    }

    pub(in crate::reactor) fn peer(&self) -> Peer {
        self.with_fd(descriptor::peer)
    }

    pub(in crate::reactor) fn probe_peer(&self) {
        self.with_fd(descriptor::probe_peer);
    }

    pub(in crate::reactor) fn reset_on_close(&self) {
        // It fails only if the connection is gone already.
        let _ = self.with_fd(|fd| SockRef::from(&fd).set_linger(Some(Duration::ZERO)));
    }

    pub(in crate::reactor) fn local_address(&self) -> io::Result<SocketAddr> {
        self.with_fd(descriptor::local_address)
    }
}

/// A listening socket.
pub(in crate::reactor) struct Acceptor {
    listener: TcpListener,
    fd: OwnedFd,
    cancelled: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Acceptor {
    /// Never accepts ahead.
    pub(in crate::reactor) fn from_std(
        listener: std::net::TcpListener,
        _ahead: bool,
    ) -> io::Result<Self> {
        let fd = listener.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is given away here and owned by glommio's listener from now on.
        let listener = unsafe { TcpListener::from_raw_fd(listener.into_raw_fd()) };
        Ok(Self {
            listener,
            fd,
            cancelled: Cell::new(false),
            waiting: Cell::new(None),
        })
    }

    pub(in crate::reactor) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        let mut accepting = pin!(self.listener.shared_accept());
        let accepted = poll_fn(|context| {
            if let Poll::Ready(result) = accepting.as_mut().poll(context) {
                return Poll::Ready(Some(result));
            }
            self.waiting.set(Some(context.waker().clone()));
            if self.cancelled.get() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        })
        .await;
        let accepted = match accepted {
            Some(result) => Some(result),
            // What the kernel has accepted already is still on its way to us.
            None => {
                let moment = Timer::new();
                moment.set(clock::now() + Duration::from_millis(10));
                limit(&moment, accepting).await
            }
        };
        let accepted = accepted.ok_or_else(|| io::Error::from_raw_os_error(libc::ECANCELED))??;
        let stream = Stream::new(accepted.bind_to_executor());
        let peer = stream.with_fd(descriptor::peer_address)?;
        Ok((stream, peer))
    }

    #[allow(
        clippy::unused_async,
        reason = "the same signature as that of the driver that must wait"
    )]
    pub(in crate::reactor) async fn accept_queued(&self) -> io::Result<(Stream, SocketAddr)> {
        let (fd, address) = descriptor::accept_queued(self.fd.as_fd())?;
        Ok((Stream::from_fd(fd)?, address))
    }

    pub(in crate::reactor) fn cancel(&self) {
        self.cancelled.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// A pipe that bytes pass through between two sockets.
#[derive(Debug)]
pub(in crate::reactor) struct Channel {
    reader: OwnedFd,
    writer: File,
    capacity: usize,
}

impl Channel {
    pub(in crate::reactor) fn new(bytes: usize) -> io::Result<Self> {
        let (reader, writer, capacity) = descriptor::pipe(bytes)?;
        Ok(Self {
            reader,
            writer: File::from(writer),
            capacity,
        })
    }

    pub(in crate::reactor) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(in crate::reactor) fn fill(&self, from: &Stream, count: usize) -> io::Result<usize> {
        if let Some(first) = from.first.take() {
            (&self.writer).write_all(&[first])?;
            return Ok(1);
        }
        from.with_fd(|from| {
            descriptor::set_nonblocking(from, true)?;
            descriptor::splice(from, self.writer.as_fd(), count)
        })
    }

    pub(in crate::reactor) fn drain(&self, to: &Stream, count: usize) -> io::Result<usize> {
        to.with_fd(|to| {
            descriptor::set_nonblocking(to, true)?;
            descriptor::splice(self.reader.as_fd(), to, count)
        })
    }
}
