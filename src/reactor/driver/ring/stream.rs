//! Connected sockets on our ring.
//!
//! Owns a descriptor and the place of its receive. A receive that was armed stays armed when nobody waits for it: what
//! comes is kept with the socket, so a receiving future may be dropped at any time and no byte is lost.
//! Never holds memory for a receive that waits. Read next: `../../socket.rs`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use io_uring::{opcode, types};
use socket2::{Domain, Protocol, SockAddr, Type};

use super::executor::Sleeper;
use super::operations::{Memory, Operations, Place, Receive};
use super::{Operation, Ring, current};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::driver::descriptor;
use crate::reactor::operation::Gather;
use crate::reactor::timer::Timer;

/// A connected stream socket, or anything else that can become readable.
pub(in crate::reactor) struct Stream {
    ring: Rc<Ring>,
    /// `None` only while it is taken away for good.
    fd: Option<OwnedFd>,
    /// Where what it receives is kept; made for the first receive.
    receive: Cell<Option<Place>>,
    /// Operations fail with `WouldBlock` instead of waiting, since system calls on the descriptor must.
    nonblocking: Cell<bool>,
}

impl Stream {
    pub(in crate::reactor) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let ring = current().ok_or(io::ErrorKind::NotConnected)?;
        descriptor::set_nonblocking(fd.as_fd(), false)?;
        Ok(Self::new(ring, fd))
    }

    /// `fd` is blocking.
    pub(super) fn new(ring: Rc<Ring>, fd: OwnedFd) -> Self {
        Self {
            ring,
            fd: Some(fd),
            receive: Cell::new(None),
            nonblocking: Cell::new(false),
        }
    }

    /// Gives the descriptor away. Nothing that has come may be waiting here, or it would be lost.
    pub(in crate::reactor) fn into_fd(mut self) -> io::Result<OwnedFd> {
        self.disarm()?;
        self.fd
            .take()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// May be dropped before it ends: the attempt is cancelled and its socket closed.
    pub(in crate::reactor) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let ring = current().ok_or(io::ErrorKind::NotConnected)?;
        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::STREAM.cloexec(),
            Some(Protocol::TCP),
        )?;
        let stream = Self::new(ring, socket.into());
        let fd = types::Fd(stream.fd().as_raw_fd());
        let memory = Memory::Address(Box::new(SockAddr::from(address)));
        // SAFETY: points to the address, which is in a box.
        let connecting = unsafe {
            stream.ring.start(memory, |memory| match memory {
                Memory::Address(address) => {
                    opcode::Connect::new(fd, address.as_ptr().cast(), address.len()).build()
                }
                _ => unreachable!("it was just made"),
            })
        };
        let (connected, _) = connecting.await;
        connected?;
        descriptor::set_upstream_options(stream.fd())?;
        Ok(stream)
    }

    /// For system calls that are made directly.
    pub(in crate::reactor) fn forbid_blocking(&self) -> io::Result<()> {
        if !self.nonblocking.get() {
            descriptor::set_nonblocking(self.fd(), true)?;
            self.nonblocking.set(true);
        }
        Ok(())
    }

    pub(in crate::reactor) fn fd(&self) -> BorrowedFd<'_> {
        self.fd
            .as_ref()
            .expect("it is taken only where the stream ends")
            .as_fd()
    }

    #[inline]
    fn place(&self, operations: &mut Operations) -> Place {
        match self.receive.get() {
            Some(place) => place,
            None => self.new_place(operations),
        }
    }

    #[cold]
    fn new_place(&self, operations: &mut Operations) -> Place {
        let place = operations.new_receive(self.fd().as_raw_fd());
        self.receive.set(Some(place));
        place
    }

    /// What came, or the end of the stream, or an error. While there is nothing, a receive with that room is armed.
    #[inline]
    pub(in crate::reactor) fn poll_recv(
        &self,
        room: Room,
        context: &Context<'_>,
    ) -> Poll<io::Result<Buffer>> {
        let operations = &mut *self.ring.operations.borrow_mut();
        let place = self.place(operations);
        let (receive, sleeper) = operations.receive_and_sleeper(place);
        if let Some(buffer) = receive.arrived.pop_front() {
            return Poll::Ready(Ok(buffer));
        }
        if let Some(ended) = take_end(receive) {
            return Poll::Ready(ended);
        }
        *sleeper = Some(Sleeper::of(context));
        match receive.armed {
            Some(armed) if !armed.multishot || room == Room::Small => {}
            _ => self.arm(operations, place, room),
        }
        Poll::Pending
    }

    /// Arms a receive, or ends the one that fills small buffers where large ones are wanted.
    #[inline(never)]
    fn arm(&self, operations: &mut Operations, place: Place, room: Room) {
        if operations.receive(place).armed.is_none() {
            self.ring.arm_receive(operations, place, room);
        } else if let Some(name) = operations.cancel_receive(place) {
            // Its last completion wakes the task, which comes back here.
            self.ring.cancel(name);
        }
    }

    /// As [`Stream::poll_recv`], but leaves what came where it is.
    fn poll_arrived(&self, context: &Context<'_>) -> Poll<()> {
        let operations = &mut *self.ring.operations.borrow_mut();
        let place = self.place(operations);
        let (receive, sleeper) = operations.receive_and_sleeper(place);
        if !receive.arrived.is_empty() || receive.end.is_some() {
            return Poll::Ready(());
        }
        *sleeper = Some(Sleeper::of(context));
        if receive.armed.is_none() {
            self.ring.arm_receive(operations, place, Room::Small);
        }
        Poll::Pending
    }

    /// Receives what comes next: at least a byte, or an empty buffer at the end of the stream. May be dropped.
    #[inline]
    pub(in crate::reactor) fn recv(
        &self,
        room: Room,
    ) -> impl Future<Output = io::Result<Buffer>> + Unpin {
        poll_fn(move |context| self.poll_recv(room, context))
    }

    /// As [`Stream::recv`]; `None` once `timer` expires with nothing received.
    #[inline]
    pub(in crate::reactor) fn recv_until(
        &self,
        room: Room,
        timer: &Timer,
    ) -> impl Future<Output = io::Result<Option<Buffer>>> + Unpin {
        poll_fn(move |context| match self.poll_recv(room, context) {
            Poll::Ready(received) => Poll::Ready(received.map(Some)),
            Poll::Pending => timer.poll_expired(context).map(|()| Ok(None)),
        })
    }

    /// All of it in one operation, except where the kernel may not wait in the middle.
    fn send_flags(&self) -> libc::c_int {
        if self.nonblocking.get() {
            libc::MSG_NOSIGNAL
        } else {
            libc::MSG_NOSIGNAL | libc::MSG_WAITALL
        }
    }

    /// Sends the first bytes of `buffer`: how many is in the result. Begins at once, not when it is first polled.
    #[inline]
    pub(in crate::reactor) fn send(&self, buffer: Buffer) -> Sending<'_> {
        let fd = types::Fd(self.fd().as_raw_fd());
        // SAFETY: points to the bytes of the buffer, which are on the heap.
        let operation = unsafe {
            self.ring
                .start(Memory::Buffer(buffer), |memory| match memory {
                    Memory::Buffer(buffer) => {
                        let bytes = buffer.bytes();
                        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                        opcode::Send::new(fd, bytes.as_ptr(), length)
                            .flags(self.send_flags())
                            .build()
                    }
                    _ => unreachable!("it was just made"),
                })
        };
        Sending { operation }
    }

    pub(in crate::reactor) async fn send_gathered(
        &self,
        gather: Gather,
    ) -> (io::Result<usize>, Gather) {
        let fd = types::Fd(self.fd().as_raw_fd());
        // SAFETY: points to the header, which is on the heap, as are the list and the buffers that it points to.
        let sending = unsafe {
            self.ring
                .start(Memory::Gather(gather), |memory| match memory {
                    Memory::Gather(gather) => opcode::SendMsg::new(fd, gather.header())
                        .flags(self.send_flags().cast_unsigned())
                        .build(),
                    _ => unreachable!("it was just made"),
                })
        };
        match sending.await {
            (result, Memory::Gather(gather)) => (result.map(|count| count as usize), gather),
            _ => unreachable!("an operation keeps what it was given"),
        }
    }

    /// Waits until something has come, or the stream has ended. May be dropped before it ends.
    pub(in crate::reactor) async fn readable(&self) -> io::Result<()> {
        if self.nonblocking.get() {
            // The kernel would refuse to wait in a receive.
            return self.poll(libc::POLLIN | libc::POLLRDHUP).await;
        }
        poll_fn(|context| self.poll_arrived(context)).await;
        Ok(())
    }

    /// May be dropped before it ends.
    pub(in crate::reactor) async fn writable(&self) -> io::Result<()> {
        self.poll(libc::POLLOUT).await
    }

    async fn poll(&self, events: libc::c_short) -> io::Result<()> {
        let fd = types::Fd(self.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, u32::from(events.cast_unsigned())).build();
        // SAFETY: points to nothing.
        let (ready, _) = unsafe { self.ring.start(Memory::None, |_| entry) }.await;
        ready.map(drop)
    }

    /// Sees to it that the kernel receives nothing more for us.
    ///
    /// # Errors
    /// Something has come already.
    pub(in crate::reactor) fn disarm(&self) -> io::Result<()> {
        let Some(place) = self.receive.get() else {
            return Ok(());
        };
        let cancel = self.ring.operations.borrow_mut().cancel_receive(place);
        if let Some(name) = cancel {
            self.ring.cancel(name);
            // Cancelling takes effect when it is submitted, and its completion is there when that returns.
            for _ in 0..DISARM_TURNS {
                self.ring.queues.turn(0, None)?;
                self.ring.take_completions();
                if self
                    .ring
                    .operations
                    .borrow_mut()
                    .receive(place)
                    .armed
                    .is_none()
                {
                    break;
                }
            }
        }
        let mut operations = self.ring.operations.borrow_mut();
        let receive = operations.receive(place);
        if receive.armed.is_none() && receive.arrived.is_empty() && receive.end.is_none() {
            Ok(())
        } else {
            Err(io::ErrorKind::ResourceBusy.into())
        }
    }

    /// Takes what has come already, without waiting.
    pub(in crate::reactor) fn take_arrived(&self) -> Option<io::Result<Buffer>> {
        let operations = &mut *self.ring.operations.borrow_mut();
        let receive = operations.receive(self.receive.get()?);
        match receive.arrived.pop_front() {
            Some(buffer) => Some(Ok(buffer)),
            None => take_end(receive),
        }
    }

    /// Puts back what was taken last.
    pub(in crate::reactor) fn put_back(&self, buffer: Buffer) {
        let operations = &mut *self.ring.operations.borrow_mut();
        let place = self.place(operations);
        operations.receive(place).arrived.push_front(buffer);
    }
}

/// The end of the stream, which stays, or an error, which is told once.
#[inline]
fn take_end(receive: &mut Receive) -> Option<io::Result<Buffer>> {
    match receive.end? {
        0 => Some(Ok(Buffer::empty())),
        error => {
            receive.end = None;
            Some(Err(io::Error::from_raw_os_error(-error)))
        }
    }
}

/// A send that is under way.
pub(in crate::reactor) struct Sending<'s> {
    operation: Operation<'s>,
}

impl Future for Sending<'_> {
    type Output = (io::Result<usize>, Buffer);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match ready!(Pin::new(&mut self.operation).poll(context)) {
            (result, Memory::Buffer(buffer)) => {
                Poll::Ready((result.map(|count| count as usize), buffer))
            }
            _ => unreachable!("an operation keeps what it was given"),
        }
    }
}

/// One is enough, unless the receive was just being worked on.
const DISARM_TURNS: u32 = 16;

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(place) = self.receive.get() {
            let (cancel, arrived) = self.ring.operations.borrow_mut().abandon_receive(place);
            if let Some(name) = cancel {
                self.ring.cancel(name);
            }
            drop(arrived);
        }
        if let Some(fd) = self.fd.take() {
            self.ring.close(fd);
        }
    }
}
