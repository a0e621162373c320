//! What every driver of real sockets asks of the kernel directly, without waiting.
//!
//! Owns nothing. Never blocks: each call returns at once with an answer or `WouldBlock`. Read next: `monoio.rs`.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use socket2::{SockAddr, SockRef, TcpKeepalive};

use crate::reactor::socket::Peer;

/// A quiet connection to a server is probed after this long, so that a dead one does not stay in a pool.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Small writes leave at once, and a dead peer is found out.
pub(super) fn set_upstream_options(fd: BorrowedFd<'_>) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    socket.set_nodelay(true)?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE),
    )
}

pub(super) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    SockRef::from(&fd).set_nonblocking(nonblocking)
}

pub(super) fn shutdown(fd: BorrowedFd<'_>, how: Shutdown) {
    // It fails only if the connection is gone already, which is what is wanted.
    let _ = SockRef::from(&fd).shutdown(how);
}

/// A close is a reset from now on.
pub(super) fn reset_on_close(fd: BorrowedFd<'_>) {
    // It fails only if the connection is gone already.
    let _ = SockRef::from(&fd).set_linger(Some(Duration::ZERO));
}

pub(super) fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address: SockAddr = SockRef::from(&fd).local_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "not an internet socket"))
}

#[cfg(feature = "glommio")]
pub(super) fn peer_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let address: SockAddr = SockRef::from(&fd).peer_addr()?;
    address
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "not an internet socket"))
}

/// Whether a send would not have to wait.
#[cfg(feature = "glommio")]
pub(super) fn writable_now(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: `poll` reads and writes the one structure it is given, which is ours; with no timeout it returns at once.
    unsafe { libc::poll(&raw mut poll, 1, 0) != 0 }
}

/// Whether the other side is still there, without taking a byte.
pub(super) fn peer(fd: BorrowedFd<'_>) -> Peer {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN | libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: `poll` reads and writes the one structure it is given, which is ours; with no timeout it returns at once.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    if ready < 0 || poll.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 {
        Peer::Gone
    } else if poll.revents & libc::POLLRDHUP != 0 {
        Peer::HalfClosed
    } else {
        Peer::Present
    }
}

/// Takes one connection off a listening socket's queue, if there is one.
pub(super) fn accept_queued(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = SockRef::from(&listener);
    // On a blocking descriptor the call below would wait.
    socket.set_nonblocking(true)?;
    let (accepted, address) = socket.accept()?;
    let address = address
        .as_socket()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    Ok((accepted.into(), address))
}

/// Moves up to `count` bytes between a socket and a pipe, without waiting for either.
pub(super) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, count: usize) -> io::Result<usize> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    // SAFETY: both descriptors are open, being borrowed; no offsets are given, so no memory of ours is touched.
    let moved = unsafe {
        libc::splice(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            count,
            flags,
        )
    };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Writes to a pipe without waiting.
pub(super) fn write(pipe: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: the kernel reads the bytes that it is given the length of, until the call returns.
    let written = unsafe { libc::write(pipe.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// A pipe, as wide as this process may make it and at most `bytes`. Returns the reading end first.
pub(super) fn pipe(bytes: usize) -> io::Result<(OwnedFd, OwnedFd, usize)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: `pipe2` writes two descriptors to the address it is given, which is ours and big enough.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    let reader = unsafe { OwnedFd::from_raw_fd(ends[0]) };
    // SAFETY: as above.
    let writer = unsafe { OwnedFd::from_raw_fd(ends[1]) };
    let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: takes and returns numbers only. Fails if an unprivileged process asks for more than the system allows.
    let mut got = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
    if got < 0 {
        // SAFETY: as above.
        got = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) };
    }
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    Ok((reader, writer, got))
}

fn clock(which: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `clock_gettime` writes one `timespec` to the address it is given, which is ours.
    let code = unsafe { libc::clock_gettime(which, &raw mut time) };
    assert_eq!(code, 0, "the kernel has a monotonic clock");
    // Seconds and nanoseconds of a monotonic clock are never negative.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

pub(in crate::reactor) fn nanoseconds() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

pub(in crate::reactor) fn nanoseconds_coarse() -> u64 {
    clock(libc::CLOCK_MONOTONIC_COARSE)
}

/// A kernel timer, which becomes readable when its time comes and stays so until it is set anew.
#[cfg(not(feature = "glommio"))]
pub(super) fn alarm() -> io::Result<OwnedFd> {
    // SAFETY: takes and returns numbers only.
    let fd = unsafe {
        libc::timerfd_create(
            libc::CLOCK_MONOTONIC,
            libc::TFD_CLOEXEC | libc::TFD_NONBLOCK,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets a kernel timer ring at `at`, in nanoseconds of the clock, or never.
#[cfg(not(feature = "glommio"))]
pub(super) fn set_alarm(fd: BorrowedFd<'_>, at: Option<u64>) {
    // A time of zero would switch it off.
    let nanoseconds = at.map_or(0, |at| at.max(1));
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(nanoseconds / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(nanoseconds % 1_000_000_000).unwrap_or_default(),
    };
    let spec = libc::itimerspec {
        it_interval: libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        it_value: time,
    };
    let flags = libc::TFD_TIMER_ABSTIME;
    // SAFETY: `timerfd_settime` reads the one structure it is given, and is told to write no old one.
    let code = unsafe {
        libc::timerfd_settime(fd.as_raw_fd(), flags, &raw const spec, std::ptr::null_mut())
    };
    assert_eq!(code, 0, "a timer descriptor takes any time");
}

/// Keep-alive probes as fast as the kernel sends them: the first after a second of silence, given up after one more.
pub(super) fn probe_peer(fd: BorrowedFd<'_>) {
    let second = Duration::from_secs(1);
    let probes = TcpKeepalive::new()
        .with_time(second)
        .with_interval(second)
        .with_retries(1);
    // It fails only if the connection is gone already.
    let _ = SockRef::from(&fd).set_tcp_keepalive(&probes);
}
