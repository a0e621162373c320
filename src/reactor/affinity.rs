//! Where a core's thread runs, and what may interrupt it.
//!
//! Owns no state. Never moves a thread other than the one that calls. Read next: `mod.rs`, `run`.

use std::io;
use std::mem::MaybeUninit;

use core_affinity::CoreId;

/// The processors this process may use, in ascending order: its affinity mask, as a container or `taskset` left it.
///
/// Empty if the kernel does not say.
pub fn cpus_allowed() -> Vec<usize> {
    core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect()
}

/// Ties the current thread to one processor.
pub(super) fn pin(cpu: usize) -> io::Result<()> {
    // The mask that is used below has 1024 bits; asking for more would write beyond it.
    if cpu < 1024 && core_affinity::set_for_current(CoreId { id: cpu }) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("this process may not run on processor {cpu}"),
    ))
}

/// Blocks every signal for the current thread: signals are the control plane's, and one that arrived here would end a
/// wait for completions early.
pub(super) fn block_signals() -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigfillset` writes a whole set to the address it is given, which is ours and big enough.
    if unsafe { libc::sigfillset(all.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `pthread_sigmask` reads the set that was just filled, and is told to write no old mask.
    let code =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), std::ptr::null_mut()) };
    if code == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(code))
    }
}
