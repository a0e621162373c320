//! Which driver this machine lets us use, and with which flags of the ring.
//!
//! Owns the flags found by the first probe. io_uring can be missing (old kernel), switched off (sysctl) or forbidden
//! (seccomp, as in many containers), and each of its flags came with another kernel: so nothing is read off a version,
//! everything is tried. Never leaves a ring open. Read next: `driver/monoio.rs`.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use io_uring::{Builder, IoUring, opcode, types};

#[cfg(not(any(test, feature = "glommio")))]
use super::driver;

/// What a core runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// io_uring as we drive it ourselves.
    Ring,
    /// io_uring as monoio drives it: for kernels older than 6.1, at a higher price.
    IoUring,
    Epoll,
}

/// As `reactor.driver` spells it.
impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ring | Self::IoUring => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// What the operator asked for (`--reactor.driver`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// io_uring, and epoll where it cannot be used.
    #[default]
    Auto,
    /// io_uring or nothing.
    IoUring,
    Epoll,
}

/// What a core will run on, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub driver: Driver,
    /// The ring's flags in the kernel's words; empty on epoll.
    pub ring_flags: String,
    /// Why a cheaper driver was wanted and is not used. Say it loudly: every request costs more.
    pub fallback_reason: Option<String>,
}

/// What was insisted on cannot be used. Nothing can be done about it here: the operator must choose.
#[derive(Debug)]
pub struct ProbeError {
    pub cause: io::Error,
}

/// Operations that can be queued between two turns of a core.
#[cfg_attr(
    any(test, feature = "glommio"),
    allow(dead_code, reason = "this driver builds its own ring, or none")
)]
pub(super) const RING_ENTRIES: u32 = 1024;

/// Completions that can wait for one turn of a core: two operations for each of 8,000 connections at the same instant.
/// More are kept by the kernel, at a price. 16 bytes each.
const COMPLETIONS: u32 = 16 * 1024;

/// glommio runs on io_uring only.
const HAS_EPOLL: bool = cfg!(any(test, not(feature = "glommio")));

/// Whether this build has our own driver: glommio and the simulation come instead of it.
const HAS_RING: bool = cfg!(not(any(test, feature = "glommio")));

static FLAGS: OnceLock<Flags> = OnceLock::new();
/// Why our own driver cannot be used, if so.
static LACKING: OnceLock<Option<String>> = OnceLock::new();

/// What a ring is built with, as far as the kernel knows it.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// 6.0: only the core's thread submits.
    single_issuer: bool,
    /// 6.1: completions are worked off when the core waits, not by interrupting it.
    defer_taskrun: bool,
    /// 5.19: the next best, without interrupts to a running core.
    coop_taskrun: bool,
    /// 5.18: one bad submission does not hold up those behind it.
    submit_all: bool,
    /// 5.5: room for completions.
    completions: bool,
}

impl Flags {
    fn builder(self) -> Builder {
        let mut builder = IoUring::builder();
        builder.dontfork();
        if self.single_issuer {
            builder.setup_single_issuer();
        }
        if self.defer_taskrun {
            builder.setup_defer_taskrun();
        }
        if self.coop_taskrun {
            builder.setup_coop_taskrun();
        }
        if self.submit_all {
            builder.setup_submit_all();
        }
        if self.completions {
            builder.setup_cqsize(COMPLETIONS);
        }
        builder
    }

    /// Adds one flag at a time and keeps what the kernel takes.
    fn probe() -> Self {
        let mut flags = Self::default();
        let mut keep = |add: fn(&mut Self)| {
            let mut more = flags;
            add(&mut more);
            if more.builder().build(8).is_ok() {
                flags = more;
            }
        };
        keep(|flags| flags.completions = true);
        keep(|flags| flags.submit_all = true);
        keep(|flags| flags.single_issuer = true);
        // Only taken together with the one before.
        keep(|flags| flags.defer_taskrun = true);
        if !flags.defer_taskrun {
            let with = Self {
                coop_taskrun: true,
                ..flags
            };
            if with.builder().build(8).is_ok() {
                flags = with;
            }
        }
        flags
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (self.single_issuer, "SINGLE_ISSUER"),
            (self.defer_taskrun, "DEFER_TASKRUN"),
            (self.coop_taskrun, "COOP_TASKRUN"),
            (self.submit_all, "SUBMIT_ALL"),
            (self.completions, "CQSIZE"),
        ];
        let set: Vec<&str> = names
            .iter()
            .filter(|(set, _)| *set)
            .map(|(_, name)| *name)
            .collect();
        formatter.write_str(&set.join(" | "))
    }
}

/// Finds out what the cores of this process can run on, by building a ring and using it.
///
/// # Errors
/// [`Choice::IoUring`] was asked for and cannot be had, or the build has no epoll and needs it.
pub fn probe(choice: Choice) -> Result<Probe, ProbeError> {
    let epoll = |fallback_reason| Probe {
        driver: Driver::Epoll,
        ring_flags: String::new(),
        fallback_reason,
    };
    match choice {
        Choice::Epoll if HAS_EPOLL => return Ok(epoll(None)),
        Choice::Epoll => {
            return Err(ProbeError {
                cause: io::ErrorKind::Unsupported.into(),
            });
        }
        Choice::Auto | Choice::IoUring => {}
    }
    let flags = *FLAGS.get_or_init(Flags::probe);
    match (try_ring(flags), choice) {
        (Ok(()), _) => {
            let lacking = LACKING.get_or_init(|| lacking(flags)).clone();
            Ok(Probe {
                driver: if lacking.is_none() && HAS_RING {
                    Driver::Ring
                } else {
                    Driver::IoUring
                },
                ring_flags: flags.to_string(),
                fallback_reason: lacking,
            })
        }
        (Err(cause), Choice::Auto) if HAS_EPOLL => Ok(epoll(Some(explain(&cause)))),
        (Err(cause), _) => Err(ProbeError { cause }),
    }
}

/// How a core's ring is built.
#[cfg_attr(
    any(test, feature = "glommio"),
    allow(dead_code, reason = "this driver builds its own ring, or none")
)]
pub(super) fn ring_builder() -> Builder {
    FLAGS.get_or_init(Flags::probe).builder()
}

/// What keeps our own driver from running on a ring with these flags.
#[cfg(any(test, feature = "glommio"))]
fn lacking(_flags: Flags) -> Option<String> {
    None
}

/// What keeps our own driver from running on a ring with these flags.
#[cfg(not(any(test, feature = "glommio")))]
fn lacking(flags: Flags) -> Option<String> {
    if !(flags.single_issuer && flags.defer_taskrun && flags.submit_all && flags.completions) {
        return Some(format!(
            "io_uring is used in a way that costs more: this kernel has only {flags}"
        ));
    }
    let cause = driver::probe_ring().err()?;
    Some(format!(
        "io_uring is used in a way that costs more: multishot receives cannot be used ({cause})"
    ))
}

/// Builds a ring as a core would, and takes a completion of nothing and of a receive.
fn try_ring(flags: Flags) -> io::Result<()> {
    const NOTHING: u64 = 1;
    const RECEIVE: u64 = 2;
    let (mut near, far) = UnixStream::pair()?;
    let mut received = [0_u8; 4];
    let mut ring = flags.builder().build(RING_ENTRIES)?;
    let nothing = opcode::Nop::new().build().user_data(NOTHING);
    let receive = opcode::Recv::new(types::Fd(far.as_raw_fd()), received.as_mut_ptr(), 4)
        .build()
        .user_data(RECEIVE);
    for entry in [&nothing, &receive] {
        let mut queue = ring.submission();
        // SAFETY: `received` and `far` live until the loop below has taken both completions, or until the ring is
        // closed, which is before them.
        unsafe { queue.push(entry) }.map_err(|_| io::Error::other("the ring has no room"))?;
    }
    // Submitted before there is anything to receive, so the kernel must wait for the socket and come back.
    ring.submit()?;
    near.write_all(b"ring")?;
    let mut missing = NOTHING | RECEIVE;
    while missing != 0 {
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            missing &= !completion.user_data();
        }
    }
    if &received == b"ring" {
        Ok(())
    } else {
        Err(io::Error::other(
            "the ring received something else than was sent",
        ))
    }
}

fn explain(cause: &io::Error) -> String {
    if cause.kind() == io::ErrorKind::Unsupported {
        return "this build of the program runs on glommio, which has no epoll driver".to_owned();
    }
    match cause.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring".to_owned(),
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is forbidden here (kernel.io_uring_disabled, or the seccomp profile of the container)".to_owned()
        }
        Some(libc::ENOMEM) => "io_uring has too little locked memory (see ulimit -l)".to_owned(),
        _ => format!("io_uring cannot be used: {cause}"),
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", explain(&self.cause), self.cause)
    }
}

impl std::error::Error for ProbeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoll_is_given_when_asked_for() {
        let probe = probe(Choice::Epoll).expect("epoll is always there");
        assert_eq!(
            probe,
            Probe {
                driver: Driver::Epoll,
                ring_flags: String::new(),
                fallback_reason: None
            }
        );
    }

    #[test]
    fn auto_says_which_it_found() {
        let probe = probe(Choice::Auto).expect("auto falls back");
        assert_eq!(
            probe.driver == Driver::Epoll,
            probe.fallback_reason.is_some()
        );
        assert_eq!(
            probe.driver == Driver::IoUring,
            super::probe(Choice::IoUring).is_ok()
        );
        if probe.ring_flags.contains("DEFER_TASKRUN") {
            assert!(
                probe.ring_flags.contains("SINGLE_ISSUER"),
                "{}",
                probe.ring_flags
            );
        }
    }
}
