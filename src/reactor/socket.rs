//! Connected sockets: receive, send, connect, each with a deadline.
//!
//! Owns [`Socket`]. A deadline never drops an operation that carries bytes: it shuts the socket down, which ends the
//! operation, and awaits that. Never reads what it carries; never retries. Read next: `listener.rs`, `splice.rs`.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::{Context, Poll};

use super::buffer::{Buffer, Room};
use super::clock;
use super::driver::Stream;
use super::operation::Gather;
use super::timer::{Timer, limit};
use crate::limits::HOT_WAIT;

/// A connected stream socket. Receiving and sending may be under way at once, one of each.
///
/// The futures of its methods must run to their end: a receive that is dropped takes the bytes with it that it was
/// given. Dropping the socket closes it.
pub struct Socket {
    pub(super) stream: Stream,
    /// A deadline shut the receiving side: from then on the end of the stream is our doing, not the peer's.
    cut: Cell<bool>,
}

/// What can be told of the other side without reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Present,
    /// It will send no more, but may still read.
    HalfClosed,
    /// Reset, or closed in both directions: nobody will read what is sent.
    Gone,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            cut: Cell::new(false),
        }
    }

    /// Connects with `TCP_NODELAY` and keep-alive probes every 30 s.
    ///
    /// # Errors
    /// `TimedOut` once `timer` expires: the attempt is called off and its socket closed. Else what the kernel says.
    pub async fn connect(address: SocketAddr, timer: &Timer) -> io::Result<Self> {
        let connecting = pin!(Stream::connect(address));
        // A connection attempt carries no bytes, so it may be dropped; the driver cancels it and closes the socket.
        match limit(timer, connecting).await {
            Some(stream) => stream.map(Self::new),
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// A socket from outside: one that another core accepted, or one end of a socket pair.
    ///
    /// # Errors
    /// The driver cannot watch one more socket.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        Stream::from_fd(fd).map(Self::new)
    }

    /// Gives the socket away, to another core. No operation may be under way.
    ///
    /// # Errors
    /// Out of file descriptors.
    pub fn into_fd(self) -> io::Result<OwnedFd> {
        self.stream.into_fd()
    }

    /// What the peer sent: at least one byte, at most the room. An empty buffer is the end of the stream.
    ///
    /// # Errors
    /// `TimedOut` once `timer` expires with nothing received: the receiving side is shut then, but an answer can still
    /// be sent. Else what the kernel says; the connection is of no use any more.
    pub async fn recv(&self, room: Room, timer: &Timer) -> io::Result<Buffer> {
        loop {
            let mut receiving = pin!(self.stream.recv(room));
            let received = match limit(timer, receiving.as_mut()).await {
                Some(received) => received,
                None => {
                    self.cut();
                    receiving.await
                }
            };
            if let Some(outcome) = self.received(received) {
                return outcome;
            }
            self.readable(timer).await?;
        }
    }

    /// As [`Socket::recv`] without an end, for who comes back: while it is pending the receive goes on, and the task is
    /// woken. `None` if a future must be made for it, as on drivers whose receives cannot be left to themselves.
    #[inline]
    pub fn poll_recv(&self, room: Room, context: &Context<'_>) -> Option<Poll<io::Result<Buffer>>> {
        match self.stream.poll_recv(room, context)? {
            Poll::Ready(received) => self.received(received).map(Poll::Ready),
            Poll::Pending => Some(Poll::Pending),
        }
    }

    /// As [`Socket::recv`] for as long as [`HOT_WAIT`]; `None` if nothing came by then, and the buffer is free again.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub async fn recv_hot(&self, room: Room, timer: &Timer) -> io::Result<Option<Buffer>> {
        let deadline = timer.deadline();
        let hot = clock::coarse() + HOT_WAIT;
        if hot >= deadline {
            return self.recv(room, timer).await.map(Some);
        }
        timer.set(hot);
        let received = self.stream.recv_until(room, timer).await;
        timer.set(deadline);
        match received.transpose() {
            Some(received) => self.received(received).transpose(),
            None => Ok(None),
        }
    }

    /// As [`Socket::recv`], for waits that may be long: a buffer is held for [`HOT_WAIT`] only, after that none.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub async fn recv_patient(&self, room: Room, timer: &Timer) -> io::Result<Buffer> {
        if let Some(buffer) = self.recv_hot(room, timer).await? {
            return Ok(buffer);
        }
        self.readable(timer).await?;
        self.recv(room, timer).await
    }

    /// Sends all of `buffer`.
    ///
    /// # Errors
    /// `TimedOut` once `timer` expires: the socket is shut in both directions, how much was sent is unknown. Else what
    /// the kernel says.
    pub async fn send(&self, mut buffer: Buffer, timer: &Timer) -> io::Result<()> {
        while !buffer.is_empty() {
            let mut sending = pin!(self.stream.send(buffer));
            let Some((result, rest)) = limit(timer, sending.as_mut()).await else {
                self.stream.shutdown(Shutdown::Both);
                let _ = sending.await;
                return Err(io::ErrorKind::TimedOut.into());
            };
            buffer = rest;
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => buffer.advance(count),
                Err(error) => self.retry_send(error, timer).await?,
            }
        }
        Ok(())
    }

    /// Sends all of `buffers`, several with one operation. Leaves the `Vec` empty, with its capacity.
    ///
    /// # Errors
    /// As [`Socket::send`].
    pub async fn send_all(&self, buffers: &mut Vec<Buffer>, timer: &Timer) -> io::Result<()> {
        buffers.retain(|buffer| !buffer.is_empty());
        while buffers.len() > 1 {
            let mut sending = pin!(self.stream.send_gathered(Gather::new(mem::take(buffers))));
            let Some((result, gather)) = limit(timer, sending.as_mut()).await else {
                self.stream.shutdown(Shutdown::Both);
                let (_, gather) = sending.await;
                *buffers = gather.into_buffers();
                buffers.clear();
                return Err(io::ErrorKind::TimedOut.into());
            };
            *buffers = gather.into_buffers();
            let sent = match result {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    drop_sent(buffers, count);
                    Ok(())
                }
                Err(error) => self.retry_send(error, timer).await,
            };
            if sent.is_err() {
                buffers.clear();
                return sent;
            }
        }
        match buffers.pop() {
            Some(last) => self.send(last, timer).await,
            None => Ok(()),
        }
    }

    /// Whether the other side is still there. Costs a system call; takes no byte.
    pub fn peer(&self) -> Peer {
        self.stream.peer()
    }

    /// Makes the kernel ask whether a half-closed peer is still there. One that left does not answer; about two seconds
    /// later `peer` says `Gone`. Nothing that the peer's program could see is sent.
    pub fn probe_peer(&self) {
        self.stream.probe_peer();
    }

    /// Lets the close be a reset: the peer sees that something broke, not the end of the stream.
    pub fn reset_on_close(&self) {
        self.stream.reset_on_close();
    }

    /// Ends one direction or both, at once. What was sent before still arrives.
    pub fn shutdown(&self, how: Shutdown) {
        self.stream.shutdown(how);
    }

    /// # Errors
    /// Not an internet socket.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_address()
    }

    /// Waits until something can be received, or the stream has ended, holding no buffer.
    ///
    /// # Errors
    /// As [`Socket::recv`].
    pub async fn readable(&self, timer: &Timer) -> io::Result<()> {
        match limit(timer, pin!(self.stream.readable())).await {
            Some(result) => result,
            None => {
                self.cut();
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    /// Waits until something can be sent.
    pub(super) async fn writable(&self, timer: &Timer) -> io::Result<()> {
        match limit(timer, pin!(self.stream.writable())).await {
            Some(result) => result,
            None => {
                self.stream.shutdown(Shutdown::Both);
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    fn cut(&self) {
        self.cut.set(true);
        self.stream.shutdown(Shutdown::Read);
    }

    /// What a receive that has ended means, or `None` if it must be tried again once the socket is readable.
    #[inline]
    fn received(&self, received: io::Result<Buffer>) -> Option<io::Result<Buffer>> {
        match received {
            Ok(buffer) if !buffer.is_empty() => Some(Ok(buffer)),
            Ok(_) if self.cut.get() => Some(Err(io::ErrorKind::TimedOut.into())),
            Err(error)
                if error.raw_os_error() == Some(libc::ECANCELED)
                    || error.kind() == io::ErrorKind::WouldBlock =>
            {
                None
            }
            received => Some(received),
        }
    }

    /// Waits for room if that is all that `error` says. A socket that was spliced refuses instead of waiting.
    #[cold]
    async fn retry_send(&self, error: io::Error, timer: &Timer) -> io::Result<()> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        self.writable(timer).await
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_addr() {
            Ok(address) => write!(formatter, "Socket({address})"),
            Err(_) => formatter.write_str("Socket"),
        }
    }
}

/// Takes `count` bytes off the front of `buffers`.
fn drop_sent(buffers: &mut Vec<Buffer>, mut count: usize) {
    let mut whole = 0;
    for buffer in buffers.iter_mut() {
        if count < buffer.len() {
            buffer.advance(count);
            break;
        }
        count -= buffer.len();
        whole += 1;
    }
    buffers.drain(..whole);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of `parts` after `count` bytes went out.
    fn check(parts: &[&str], count: usize, left: &[&str]) {
        let mut buffers: Vec<Buffer> = parts
            .iter()
            .map(|part| Buffer::with(part.as_bytes()))
            .collect();
        drop_sent(&mut buffers, count);
        let rest: Vec<&[u8]> = buffers.iter().map(Buffer::bytes).collect();
        assert_eq!(
            rest,
            left.iter().map(|part| part.as_bytes()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn sent_bytes_are_dropped_across_buffers() {
        check(&["ab", "cd", "ef"], 0, &["ab", "cd", "ef"]);
        check(&["ab", "cd", "ef"], 1, &["b", "cd", "ef"]);
        check(&["ab", "cd", "ef"], 2, &["cd", "ef"]);
        check(&["ab", "cd", "ef"], 5, &["f"]);
        check(&["ab", "cd", "ef"], 6, &[]);
    }
}
