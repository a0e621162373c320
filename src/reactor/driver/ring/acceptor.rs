//! Listening sockets on our ring.
//!
//! Owns a listening descriptor and the place of its accept.
//! Never loses a connection that the kernel gave us, except with the acceptor itself. Read next: `../../listener.rs`.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, types};
use socket2::SockRef;

use super::executor::Sleeper;
use super::operations::Place;
use super::{Ring, Stream, current};
use crate::reactor::driver::descriptor;

/// A listening socket.
pub(in crate::reactor) struct Acceptor {
    ring: Rc<Ring>,
    /// `None` only while it is dropped.
    fd: Option<OwnedFd>,
    place: Place,
    /// One operation yields connection after connection, also those that nobody has asked for yet.
    ahead: bool,
    cancelled: Cell<bool>,
}

impl Acceptor {
    pub(in crate::reactor) fn from_std(
        listener: std::net::TcpListener,
        ahead: bool,
    ) -> io::Result<Self> {
        let ring = current().ok_or(io::ErrorKind::NotConnected)?;
        listener.set_nonblocking(false)?;
        let place = ring.operations.borrow_mut().new_accept();
        Ok(Self {
            ring,
            fd: Some(listener.into()),
            place,
            ahead,
            cancelled: Cell::new(false),
        })
    }

    fn descriptor(&self) -> &OwnedFd {
        self.fd.as_ref().expect("it is taken only by drop")
    }

    /// Waits for a connection.
    pub(in crate::reactor) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        loop {
            let fd = poll_fn(|context| self.poll_accept(context)).await?;
            // A connection that was reset meanwhile has no peer any more: there is nobody to serve.
            if let Some(peer) = SockRef::from(&fd)
                .peer_addr()
                .ok()
                .and_then(|peer| peer.as_socket())
            {
                return Ok((Stream::new(Rc::clone(&self.ring), fd), peer));
            }
        }
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<io::Result<OwnedFd>> {
        let mut operations = self.ring.operations.borrow_mut();
        let accept = operations.accept(self.place);
        if let Some(fd) = accept.arrived.pop_front() {
            return Poll::Ready(Ok(fd));
        }
        if let Some(error) = accept.error.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(error)));
        }
        if !accept.armed {
            if self.cancelled.get() {
                return Poll::Ready(Err(io::Error::from_raw_os_error(libc::ECANCELED)));
            }
            let name = operations.arm_accept(self.place);
            let fd = types::Fd(self.descriptor().as_raw_fd());
            let entry = if self.ahead {
                opcode::AcceptMulti::new(fd)
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            } else {
                opcode::Accept::new(fd, ptr::null_mut(), ptr::null_mut())
                    .flags(libc::SOCK_CLOEXEC)
                    .build()
            };
            // SAFETY: points to nothing: where the peer's address would be written is null.
            unsafe { self.ring.queues.push(entry.user_data(name)) };
        }
        operations.wait_accept(self.place, Sleeper::of(context));
        Poll::Pending
    }

    /// Takes a connection that is already queued, here or by the kernel, or `WouldBlock`. Only after
    /// [`Acceptor::cancel`], whose effect it awaits.
    pub(in crate::reactor) async fn accept_queued(&self) -> io::Result<(Stream, SocketAddr)> {
        match self.accept().await {
            Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => {}
            accepted => return accepted,
        }
        let (fd, peer) = descriptor::accept_queued(self.descriptor().as_fd())?;
        Ok((Stream::from_fd(fd)?, peer))
    }

    /// Lets a waiting accept end with an error, or with the connections that came first.
    pub(in crate::reactor) fn cancel(&self) {
        self.cancelled.set(true);
        let cancel = self.ring.operations.borrow_mut().cancel_accept(self.place);
        if let Some(name) = cancel {
            self.ring.cancel(name);
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        let (cancel, arrived) = self.ring.operations.borrow_mut().abandon_accept(self.place);
        if let Some(name) = cancel {
            self.ring.cancel(name);
        }
        drop(arrived);
        if let Some(fd) = self.fd.take() {
            self.ring.close(fd);
        }
    }
}
