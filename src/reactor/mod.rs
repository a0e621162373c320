//! One core: its sockets, timers, buffers and tasks, behind one seam.
//!
//! Owns everything a core asks of the kernel for a request, and all unsafe code of the program. Nothing outside this
//! folder names a runtime crate. Never decides what is sent to whom, never parses a byte, never shares with another core.
//! Why it is cut this way, and what was measured: `docs/decisions/0002-reactor-seam.md`.
//! Read next: `socket.rs` (what a caller does all day), `operation.rs` (who owns memory), `driver/mod.rs` (what runs it).

mod affinity;
mod buffer;
mod clock;
mod driver;
mod listener;
mod operation;
mod probe;
mod process;
mod socket;
mod splice;
mod task;
mod timer;

use std::future::Future;
use std::io;

#[cfg(test)]
pub(crate) use driver::simulated;

pub use affinity::cpus_allowed;
pub use buffer::{Buffer, Room};
pub use clock::{Instant, coarse, now};
pub use listener::{ACCEPT_BACKLOG, Listener, bind};
pub use probe::{Choice, Driver, Probe, ProbeError, probe};
pub use process::{raise_file_limit, release_memory, yield_to_others};
pub use socket::{Peer, Socket};
pub use splice::{Pipe, splice};
pub use task::{panics, spawn};
pub use timer::{Timer, limit, next_turn, sleep};

/// Makes this thread a core and runs what `main` returns on it until that ends. Blocks meanwhile.
///
/// `cpu` ties the thread to a processor; without it the scheduler may move it. All signals are blocked for the thread.
/// Tasks that still wait at the end are forgotten together with their sockets, so end them first or end the process.
///
/// # Errors
/// The processor is not one of [`cpus_allowed`], or the driver cannot be built.
pub fn run<F: Future>(
    driver: Driver,
    cpu: Option<usize>,
    main: impl FnOnce() -> F,
) -> io::Result<F::Output> {
    if let Some(cpu) = cpu {
        affinity::pin(cpu)?;
    }
    affinity::block_signals()?;
    task::install_hook();
    driver::run(driver, main())
}
