//! Bytes from one socket to another without passing through memory of ours.
//!
//! Owns [`Pipe`]. The calls are made directly and never wait; readiness is waited for on the ring, because io_uring hands
//! a splice of its own to worker threads. Never leaves bytes in the pipe, except after an error. Read next: `socket.rs`.

use std::io;

use super::driver::Channel;
use super::socket::Socket;
use super::timer::Timer;

/// Bytes asked for a pipe: enough for a long fat network, and what an unprivileged process may have by default.
const PIPE_BYTES: usize = 1024 * 1024;

/// Room in the kernel for bytes under way. For one direction of one exchange at a time.
#[derive(Debug)]
pub struct Pipe {
    channel: Channel,
}

impl Pipe {
    /// # Errors
    /// Out of file descriptors.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            channel: Channel::new(PIPE_BYTES)?,
        })
    }
}

/// Moves what `from` has to give, at most `bytes_max`, to `to`, and returns how much that was; 0 is the end of the
/// stream. `timer` limits both waits.
///
/// # Errors
/// `TimedOut` once `timer` expires, as for [`Socket::recv`] and [`Socket::send`]. After an error the pipe may hold bytes:
/// drop it.
pub async fn splice(
    from: &Socket,
    to: &Socket,
    pipe: &mut Pipe,
    bytes_max: usize,
    timer: &Timer,
) -> io::Result<usize> {
    let channel = &pipe.channel;
    let room = bytes_max.min(channel.capacity());
    let filled = loop {
        match channel.fill(&from.stream, room) {
            Ok(filled) => break filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => from.readable(timer).await?,
            Err(error) => return Err(error),
        }
    };
    let mut left = filled;
    while left > 0 {
        match channel.drain(&to.stream, left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(drained) => left -= drained,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable(timer).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
