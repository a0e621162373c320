//! Listening sockets: one per core for each address, and connections steered to the core that received them.
//!
//! Owns [`bind`] and [`Listener`]. Never spreads connections itself: the kernel picks the socket, by the processor that
//! handles the packet. Read next: `socket.rs`.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Type};

use super::driver::Acceptor;
use super::socket::Socket;

/// Connections the kernel may hold for us, for each listening socket of a core; the system's `net.core.somaxconn` may make
/// it fewer.
pub const ACCEPT_BACKLOG: u16 = 4096;

/// One listening socket per core for `address`, in the order of `cpus`. A connection goes to the core whose processor
/// received it; one from another processor, to any. Port 0 is replaced by a free one, the same for all.
///
/// # Errors
/// `AddrInUse` also if another process of this user listens there with `SO_REUSEPORT`, which would share the
/// connections out between the two. Else what the kernel says.
pub fn bind(address: SocketAddr, cpus: &[usize]) -> io::Result<Vec<TcpListener>> {
    // Without SO_REUSEPORT the kernel refuses an address that somebody listens on, and picks a port that is free.
    let alone = socket(address)?;
    alone.bind(&address.into())?;
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);

    let mut listeners = Vec::with_capacity(cpus.len());
    for _ in cpus {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        // Accepted sockets inherit it.
        socket.set_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(ACCEPT_BACKLOG.into())?;
        listeners.push(TcpListener::from(socket));
    }
    if let Some(first) = listeners.first()
        && cpus.len() > 1
        && let Err(error) = steer(first, cpus)
    {
        tracing::warn!(
            "Connections to {address} cannot be steered to the core that received them: {error}"
        );
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // As in Go: all addresses means those of IPv4 too.
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Gives the group that `listener` belongs to its steering program.
fn steer(listener: &TcpListener, cpus: &[usize]) -> io::Result<()> {
    let mut steps = steering(cpus);
    let len = libc::c_ushort::try_from(steps.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = libc::sock_fprog {
        len,
        filter: steps.as_mut_ptr(),
    };
    let size = libc::socklen_t::try_from(size_of_val(&program))
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: `setsockopt` copies `size` bytes of `program` and the `len` steps it points to; both live until it returns.
    let code = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size,
        )
    };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A program for the kernel: the processor's number in, the index of its core's socket out.
fn steering(cpus: &[usize]) -> Vec<libc::sock_filter> {
    /// Where the kernel keeps the processor's number for such programs (`SKF_AD_OFF + SKF_AD_CPU`).
    const PROCESSOR: u32 = 0xffff_f000 + 36;
    let step = |code: u32, jump_false: u8, value: u32| libc::sock_filter {
        code: u16::try_from(code).expect("instructions have 16 bits"),
        jt: 0,
        jf: jump_false,
        k: value,
    };
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let mut program = vec![step(
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        0,
        PROCESSOR,
    )];
    for (index, &cpu) in cpus.iter().enumerate() {
        // If it is this processor the next instruction answers, else it is skipped.
        program.push(step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            1,
            number(cpu),
        ));
        program.push(step(libc::BPF_RET | libc::BPF_K, 0, number(index)));
    }
    program.push(step(
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        0,
        number(cpus.len().max(1)),
    ));
    // What an instruction returns is in the two bits above its class: 0x10 is the accumulator.
    program.push(step(libc::BPF_RET | 0x10, 0, 0));
    program
}

/// A listening socket on this core.
pub struct Listener {
    acceptor: Acceptor,
    stopped: Cell<bool>,
}

impl Listener {
    /// `ahead`: connections may be accepted before [`Listener::accept`] asks for them, as many as the kernel holds
    /// ([`ACCEPT_BACKLOG`]). That saves an operation for each, and takes descriptors that nobody has counted.
    ///
    /// # Errors
    /// The driver cannot watch one more socket.
    pub fn from_std(listener: TcpListener, ahead: bool) -> io::Result<Self> {
        Acceptor::from_std(listener, ahead).map(Self::new)
    }

    pub(super) fn new(acceptor: Acceptor) -> Self {
        Self {
            acceptor,
            stopped: Cell::new(false),
        }
    }

    /// The next connection and where it comes from. Must run to its end, or a connection may be lost.
    ///
    /// # Errors
    /// `NotConnected` after [`Listener::stop`], once the queue is empty: drop the listener then. Else what the kernel
    /// says: out of descriptors (`EMFILE`, `ENFILE`), where the caller should wait a moment before it asks again, or
    /// the connection died in the queue.
    pub async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        if !self.stopped.get() {
            match self.acceptor.accept().await {
                Ok((stream, peer)) => return Ok((Socket::new(stream), peer)),
                // The error is that of the cancellation.
                Err(_) if self.stopped.get() => {}
                Err(error) => return Err(error),
            }
        }
        match self.acceptor.accept_queued().await {
            Ok((stream, peer)) => Ok((Socket::new(stream), peer)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::NotConnected.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Ends waiting for new connections; those that are queued are still given out.
    ///
    /// The kernel queues more until the listener is dropped: those that come in between are reset.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.acceptor.cancel();
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Listener")
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}
