//! Our own driver: io_uring with multishot receives into provided buffers, and tasks whose wakers are numbers.
//!
//! Owns the ring of a core and everything the kernel may use through it. The one invariant, which every unsafe block here
//! rests on: **an operation owns its memory, and its name is not given to another, until its last completion has been
//! taken.** It is upheld in `operations.rs`; at the end of a core the drop of [`Ring`] waits for the kernel, and keeps the
//! memory for ever if the kernel does not let go of it.
//! A descriptor is closed by an operation too, behind all that name it: so none that is queued can hit a successor.
//! Never allocates for an operation or a wake once a core is warm. Measured in `docs/decisions/0003-own-ring-driver.md`.
//! Read next: `queues.rs`, `operations.rs`, `stream.rs`, `executor.rs`.

mod acceptor;
mod executor;
mod operations;
mod provided;
mod queues;
mod stream;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};

pub(super) use self::acceptor::Acceptor;
use self::executor::Sleeper;
use self::operations::{Arming, Memory, Operations, Place, Then};
use self::provided::Provided;
use self::queues::{Queues, Turned};
pub(super) use self::stream::Stream;
use super::descriptor::{self, nanoseconds};
use crate::limits::{PROVIDED_LARGE, PROVIDED_SMALL};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::timer;

/// The name of operations whose completion nobody needs.
const IGNORED: u64 = u64::MAX;

/// How long the end of a core waits for the kernel to let go of operations.
const END_WAIT_NANOSECONDS: u64 = 2_000_000_000;
const END_TURN_NANOSECONDS: u64 = 10_000_000;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Ring>>> = const { RefCell::new(None) };
    /// When the wheel is to be turned next, in nanoseconds; `u64::MAX` for never.
    static ALARM: Cell<u64> = const { Cell::new(u64::MAX) };
    /// The coarse time when this turn began, in nanoseconds; 0 outside of a turn.
    static TIME: Cell<u64> = const { Cell::new(0) };
}

/// The ring of a core, shared by its sockets.
pub(super) struct Ring {
    queues: Queues,
    operations: RefCell<Operations>,
    small: RefCell<Provided>,
    large: RefCell<Provided>,
}

/// The ring of this thread, if it is a core of this driver.
pub(super) fn current() -> Option<Rc<Ring>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Whether this thread is a core of this driver.
pub(super) fn is_current() -> bool {
    CURRENT.with_borrow(Option::is_some)
}

pub(super) fn spawn<F: Future<Output = ()> + 'static>(future: F) {
    executor::spawn(Box::pin(future));
}

/// Sees to it that the wheel turns at `at` nanoseconds. Only ever earlier than what it was told last.
pub(super) fn arm(at: u64) {
    ALARM.set(at);
}

/// The coarse time, read once a turn on a core of this driver.
#[inline]
pub(super) fn nanoseconds_coarse() -> u64 {
    match TIME.get() {
        0 => descriptor::nanoseconds_coarse(),
        time => time,
    }
}

/// Drives `main` and what it spawns on this thread until `main` ends. Tasks that still wait then are dropped.
pub(super) fn run<F: Future>(main: F) -> io::Result<F::Output> {
    let ring = Rc::new(Ring::new()?);
    CURRENT.set(Some(Rc::clone(&ring)));
    timer::reset(nanoseconds());
    let ended = End;
    let output = ring.drive(pin!(main));
    drop(ended);
    output
}

/// The end of a core, also when its main future panics.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        executor::end();
        timer::reset(0);
        ALARM.set(u64::MAX);
        TIME.set(0);
        drop(CURRENT.take());
    }
}

impl Ring {
    fn new() -> io::Result<Self> {
        let queues = Queues::new()?;
        let small = Provided::new(
            queues.ring(),
            group(Room::Small),
            Room::Small,
            PROVIDED_SMALL,
        )?;
        let large = Provided::new(
            queues.ring(),
            group(Room::Large),
            Room::Large,
            PROVIDED_LARGE,
        )?;
        Ok(Self {
            queues,
            operations: RefCell::new(Operations::new()),
            small: RefCell::new(small),
            large: RefCell::new(large),
        })
    }

    fn drive<F: Future>(&self, mut main: Pin<&mut F>) -> io::Result<F::Output> {
        let waker = executor::begin();
        let mut turned = Turned::Normally;
        loop {
            self.take_completions();
            // The coarse clock is behind the time that a wait is measured by.
            let now = if turned == Turned::TimedOut {
                nanoseconds()
            } else {
                descriptor::nanoseconds_coarse()
            };
            // Never backwards, also where a coarse time follows a fine one.
            TIME.set(now.max(TIME.get()));
            if now >= ALARM.get() {
                let next = timer::turn(now);
                ALARM.set(next.unwrap_or(u64::MAX));
            }
            if executor::take_main()
                && let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker))
            {
                return Ok(output);
            }
            executor::poll_woken();
            turned = if executor::has_woken() {
                self.queues.turn(0, None)?
            } else {
                let alarm = ALARM.get();
                let timeout = (alarm != u64::MAX).then(|| alarm.saturating_sub(now).max(1));
                self.queues.turn(1, timeout)?
            };
        }
    }

    /// Takes the completions that are there, wakes who waits for them, and lends new buffers for those that were filled.
    fn take_completions(&self) {
        let (mut small, mut large) = (false, false);
        // Waking writes into a queue, and memory that is dropped goes to a pool: neither comes back here.
        let operations = &mut *self.operations.borrow_mut();
        self.queues.take_completions(|user_data, result, flags| {
            if user_data == IGNORED {
                return;
            }
            let then = operations.complete(user_data, result, flags, |number, room, count| {
                let (provided, dirty) = match room {
                    Room::Small => (&self.small, &mut small),
                    Room::Large => (&self.large, &mut large),
                };
                *dirty = true;
                // SAFETY: this is what the completion says, and each is taken once.
                unsafe { provided.borrow_mut().take(number, count) }
            });
            match then {
                Then::Nothing => {}
                Then::Cancel(name) => self.cancel(name),
                Then::Rearm(place, room) => self.arm_receive(operations, place, room),
            }
        });
        if small {
            self.small.borrow_mut().publish();
        }
        if large {
            self.large.borrow_mut().publish();
        }
    }

    /// Starts an operation that ends once. `entry` makes it from the memory, which it may point to.
    ///
    /// # Safety
    /// What `entry` makes points to nothing but what is on the heap in `memory`.
    #[inline]
    unsafe fn start(&self, memory: Memory, entry: impl FnOnce(&Memory) -> Entry) -> Operation<'_> {
        let entry = entry(&memory);
        let (place, name) = self.operations.borrow_mut().begin(memory);
        // SAFETY: the memory is in the operation's place now, where it stays until the last completion is taken.
        unsafe { self.queues.push(entry.user_data(name)) };
        Operation {
            ring: self,
            place: Some(place),
        }
    }

    fn cancel(&self, name: u64) {
        let entry = opcode::AsyncCancel::new(name)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(IGNORED);
        // SAFETY: points to nothing.
        unsafe { self.queues.push(entry) };
    }

    /// Closes a descriptor behind everything that was queued for it.
    fn close(&self, fd: OwnedFd) {
        let fd = types::Fd(fd.into_raw_fd());
        let entry = opcode::Close::new(fd)
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(IGNORED);
        // SAFETY: points to nothing.
        unsafe { self.queues.push(entry) };
    }

    /// Lets the kernel receive into a buffer of the group that `room` asks for: short messages one after another, long
    /// bodies one at a time, so that a sender is held back by what is asked for.
    fn arm_receive(&self, operations: &mut Operations, place: Place, room: Room) {
        let Arming {
            name,
            descriptor,
            multishot,
            cap,
        } = operations.arm_receive(place, room);
        let fd = types::Fd(descriptor);
        let entry = if multishot {
            queues::capped(opcode::RecvMulti::new(fd, group(room)).build(), cap)
        } else {
            let receive = opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(group(room));
            receive.build().flags(Flags::BUFFER_SELECT)
        };
        // SAFETY: points to nothing: the kernel picks one of the buffers that are lent to it, which stay what they are
        // until a completion names them.
        unsafe { self.queues.push(entry.user_data(name)) };
    }
}

/// The number of the group of buffers.
fn group(room: Room) -> u16 {
    match room {
        Room::Small => 0,
        Room::Large => 1,
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any())
            .build()
            .user_data(IGNORED);
        // SAFETY: points to nothing.
        unsafe { self.queues.push(entry) };
        let deadline = nanoseconds() + END_WAIT_NANOSECONDS;
        // Once at least: the descriptors of the last sockets are closed by operations.
        loop {
            let turned = self.queues.turn(0, None);
            self.take_completions();
            if self.operations.borrow().in_flight() == 0 {
                return;
            }
            if turned.is_err() || nanoseconds() > deadline {
                break;
            }
            if self.queues.turn(1, Some(END_TURN_NANOSECONDS)).is_err() {
                break;
            }
        }
        // The kernel may write to it for as long as it likes.
        tracing::error!(
            "The kernel does not let go of operations of a core that has ended; their memory is lost"
        );
        std::mem::forget(self.operations.replace(Operations::new()));
        self.small.get_mut().leak();
        self.large.get_mut().leak();
    }
}

/// A future of an operation that ends once: its result, as the kernel says it, and its memory.
struct Operation<'r> {
    ring: &'r Ring,
    /// `None` once it has ended.
    place: Option<Place>,
}

impl Future for Operation<'_> {
    type Output = (io::Result<u32>, Memory);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let place = self
            .place
            .expect("a future is not polled after it has ended");
        let finished = self
            .ring
            .operations
            .borrow_mut()
            .finish(place, Sleeper::of(context));
        let Some((result, memory)) = finished else {
            return Poll::Pending;
        };
        self.place = None;
        let result = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((result, memory))
    }
}

impl Drop for Operation<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.abandon(place);
        }
    }
}

impl Operation<'_> {
    #[cold]
    fn abandon(&self, place: Place) {
        let (cancel, memory) = self.ring.operations.borrow_mut().abandon(place);
        if let Some(name) = cancel {
            self.ring.cancel(name);
        }
        drop(memory);
    }
}

/// Whether this kernel has what the driver needs, found out by sending a few bytes through it.
///
/// # Errors
/// What it lacks, or what went wrong.
pub(in crate::reactor) fn probe() -> io::Result<()> {
    let probing = std::thread::Builder::new()
        .name("probe".to_owned())
        .spawn(|| run(probe_here()).and_then(|result| result))?;
    probing
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the probe panicked")))
}

async fn probe_here() -> io::Result<()> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let timer = timer::Timer::new();
    timer.set(crate::reactor::now() + PATIENCE);
    let (near, far) = std::os::unix::net::UnixStream::pair()?;
    let (near, far) = (Stream::from_fd(near.into())?, Stream::from_fd(far.into())?);
    for room in [Room::Small, Room::Small, Room::Large] {
        let exchange = async {
            let (sent, _) = near.send(Buffer::with(b"ring")).await;
            sent?;
            far.recv(room).await
        };
        match timer::limit(&timer, pin!(exchange)).await {
            Some(received) => {
                if received?.bytes() != b"ring" {
                    return Err(io::Error::other(
                        "the ring received something else than was sent",
                    ));
                }
            }
            None => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Ok(())
}
