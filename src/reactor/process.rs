//! Limits of the process as a whole.
//!
//! Never changes what belongs to a core. Read next: `affinity.rs`.

use std::io;

/// Raises the number of file descriptors this process may open to the highest it may give itself, and returns it.
///
/// # Errors
/// The kernel refuses; the limit stays as it was.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit(2) writes one `rlimit` through the pointer, which is to a live one of ours, and keeps nothing.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: setrlimit(2) reads one `rlimit` through the pointer, which is to a live one of ours, and keeps nothing.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Gives the calling thread the lowest priority: it runs where others leave time, and next to them gets 1.5 % of it.
///
/// # Errors
/// The kernel refuses; the priority stays as it was.
pub fn yield_to_others() -> io::Result<()> {
    /// The lowest there is.
    const NICE: libc::c_int = 19;
    // SAFETY: setpriority(2) takes numbers only. Of Linux's processes 0 is the calling thread.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Gives free memory of this thread back to the system. The allocator would keep it for ever on a thread that has gone
/// quiet: it looks at what it could return only while it is used.
///
/// Costs up to some milliseconds: for a core that has less to do than before.
pub fn release_memory() {
    // SAFETY: mi_collect(3) has no preconditions; it works on the calling thread's heap and returns unused pages. Where
    // another allocator is the global one (the tests), that heap is empty.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_limit_is_the_highest_allowed() {
        let limit = super::raise_file_limit().expect("raising to what is allowed is allowed");
        assert!(limit >= 64, "{limit}");
        assert_eq!(super::raise_file_limit().ok(), Some(limit));
    }
}
