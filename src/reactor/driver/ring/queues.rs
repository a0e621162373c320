//! The two queues shared with the kernel: operations in, completions out.
//!
//! Owns the ring of a core. One system call per turn submits what is queued, waits, and lets the kernel do its part of the
//! work (`DEFER_TASKRUN`), on this thread only. Never loses an operation: what the queue cannot hold, and what the kernel
//! cannot take yet, stays and is submitted at the next turn, in order. Never looks at what an operation does.
//! Read next: `operations.rs`.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::{IoUring, squeue};

use crate::reactor::probe;

const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// How long the kernel is left alone when it has no memory for our operations, or wants completions taken first.
const PRESSED_NANOSECONDS: u64 = 1_000_000;

/// What `io_uring_enter` is told besides its numbers; the kernel's `io_uring_getevents_arg`.
#[repr(C)]
struct Wait {
    signals: u64,
    signals_size: u32,
    padding: u32,
    time: u64,
}

/// The kernel's `__kernel_timespec`.
#[repr(C)]
struct Time {
    seconds: i64,
    nanoseconds: i64,
}

/// The kernel's `io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// A multishot receive that ends once it has yielded `cap` bytes; 0 for no cap. A kernel before 6.17 refuses a cap.
pub(super) fn capped(mut entry: squeue::Entry, cap: u32) -> squeue::Entry {
    const _: () = assert!(size_of::<squeue::Entry>() == 64);
    // SAFETY: an entry is the kernel's `io_uring_sqe`, 64 bytes that are all numbers, of which these are the `optlen`.
    let optlen = unsafe { (&raw mut entry).cast::<u32>().add(11) };
    // SAFETY: it lies in the entry, which is ours, and is aligned: the entry is for numbers of 64 bits.
    unsafe { optlen.write(cap) };
    entry
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turned {
    /// There may be completions.
    Normally,
    TimedOut,
}

pub(super) struct Queues {
    ring: IoUring,
    /// What the ring is called in `io_uring_enter`: its descriptor, or its place among the registered ones, which saves
    /// the kernel a look into the table of descriptors.
    name: RawFd,
    flags: u32,
    /// What the submission queue has no room for; empty but for bursts.
    backlog: RefCell<VecDeque<squeue::Entry>>,
}

impl Queues {
    /// Must be called on the thread that will use it: the kernel takes operations from no other.
    pub(super) fn new() -> io::Result<Self> {
        let ring = probe::ring_builder().build(probe::RING_ENTRIES)?;
        let parameters = ring.params();
        if !parameters.is_feature_nodrop()
            || !parameters.is_feature_ext_arg()
            || !parameters.is_feature_skip_cqe_on_success()
        {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (name, flags) = match register(ring.as_raw_fd()) {
            Some(place) => (place, ENTER_REGISTERED_RING),
            None => (ring.as_raw_fd(), 0),
        };
        Ok(Self {
            ring,
            name,
            flags,
            backlog: RefCell::default(),
        })
    }

    pub(super) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Queues an operation; the next turn submits it.
    ///
    /// # Safety
    /// The memory that `entry` points to stays as it is until its last completion has been taken.
    #[inline]
    pub(super) unsafe fn push(&self, entry: squeue::Entry) {
        // SAFETY: the only other one is made in `enter`, which does not call this.
        let mut queue = unsafe { self.ring.submission_shared() };
        // SAFETY: by this function's contract.
        let pushed = unsafe { queue.push(&entry) };
        if pushed.is_err() {
            self.backlog.borrow_mut().push_back(entry);
        }
    }

    /// Submits everything and waits for `want` completions, at most `timeout` nanoseconds.
    ///
    /// # Errors
    /// The ring cannot be used any more.
    pub(super) fn turn(&self, want: u32, timeout: Option<u64>) -> io::Result<Turned> {
        loop {
            let (count, all) = self.fill();
            let (want, timeout) = if all { (want, timeout) } else { (0, None) };
            match self.enter(count, want, timeout) {
                Ok(()) if all => return Ok(Turned::Normally),
                Ok(()) => {}
                Err(libc::ETIME) => return Ok(Turned::TimedOut),
                Err(libc::EINTR) => return Ok(Turned::Normally),
                Err(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                    // Nothing was taken. Completions come first, and a pause if there are none.
                    return match self.enter(0, 1, Some(PRESSED_NANOSECONDS)) {
                        Ok(()) | Err(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {
                            Ok(Turned::Normally)
                        }
                        Err(code) => Err(io::Error::from_raw_os_error(code)),
                    };
                }
                Err(code) => return Err(io::Error::from_raw_os_error(code)),
            }
        }
    }

    /// Moves what waits into the queue. Returns how much is in the queue, and whether that is everything.
    fn fill(&self) -> (u32, bool) {
        // SAFETY: the only other one is made in `push`, which is not called before this one is gone.
        let mut queue = unsafe { self.ring.submission_shared() };
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front() {
            // SAFETY: by the contract of `Queues::push`, through which every entry of the backlog came.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            backlog.pop_front();
        }
        (
            u32::try_from(queue.len()).expect("the queue's length is a u32"),
            backlog.is_empty(),
        )
    }

    /// One system call; the error is the kernel's number.
    fn enter(&self, count: u32, want: u32, timeout: Option<u64>) -> Result<(), i32> {
        let time = Time {
            seconds: i64::try_from(timeout.unwrap_or_default() / 1_000_000_000).unwrap_or(i64::MAX),
            nanoseconds: i64::try_from(timeout.unwrap_or_default() % 1_000_000_000)
                .unwrap_or_default(),
        };
        let wait = Wait {
            signals: 0,
            signals_size: 0,
            padding: 0,
            time: (&raw const time).expose_provenance() as u64,
        };
        let (flags, argument, size) = match timeout {
            Some(_) => (
                self.flags | ENTER_GETEVENTS | ENTER_EXT_ARG,
                (&raw const wait),
                size_of::<Wait>(),
            ),
            None => (self.flags | ENTER_GETEVENTS, std::ptr::null(), 0),
        };
        // SAFETY: the kernel reads `wait` and, through it, `time`, only until the call returns. What the submitted
        // operations point to is kept as `Queues::push` demands.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.name,
                count,
                want,
                flags,
                argument,
                size,
            )
        };
        if result >= 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error()
                .raw_os_error()
                .unwrap_or_default())
        }
    }

    /// Calls `taken` with each completion that is there: user data, result, flags.
    #[inline]
    pub(super) fn take_completions(&self, mut taken: impl FnMut(u64, i32, u32)) {
        // SAFETY: this is the only place that makes one, and `taken` is a function of the driver that does not come here.
        let queue = unsafe { self.ring.completion_shared() };
        for entry in queue {
            taken(entry.user_data(), entry.result(), entry.flags());
        }
    }
}

impl Drop for Queues {
    fn drop(&mut self) {
        if self.flags & ENTER_REGISTERED_RING == 0 {
            return;
        }
        let Ok(offset) = u32::try_from(self.name) else {
            return;
        };
        let mut update = Update {
            offset,
            reserved: 0,
            data: 0,
        };
        let fd = self.ring.as_raw_fd();
        // SAFETY: the kernel reads the one structure it is given, which is ours, until the call returns. If it fails the
        // ring lives until the thread ends.
        unsafe {
            libc::syscall(
                libc::SYS_io_uring_register,
                fd,
                UNREGISTER_RING_FDS,
                &raw mut update,
                1,
            )
        };
    }
}

/// Registers the ring's own descriptor for this thread, if the kernel (5.18) can.
fn register(fd: RawFd) -> Option<RawFd> {
    let mut update = Update {
        offset: u32::MAX,
        reserved: 0,
        data: u64::try_from(fd).ok()?,
    };
    // SAFETY: the kernel reads and writes the one structure it is given, which is ours, until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            REGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
    if result == 1 {
        RawFd::try_from(update.offset).ok()
    } else {
        None
    }
}
