//! The tasks of a core and whose turn it is.
//!
//! Owns every spawned future, stored once, and the queue of those that were woken. A waker is three numbers in the
//! space of a pointer: cloning and dropping one does nothing, and waking writes into the queue of its thread.
//! Never follows a waker to memory: one that outlives its task finds another generation and does nothing, and at worst,
//! after 65,536 tasks in the same place, polls a task that did not ask. A waker used on another thread ends the process:
//! the core that it belongs to would sleep on. Read next: `mod.rs` (who polls).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

/// The place of the future that `run` was given, which is not in the slab.
pub(super) const MAIN: u32 = u32::MAX;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Numbers threads, so that a waker knows its own. 0 is no thread.
static THREADS: AtomicU16 = AtomicU16::new(1);

thread_local! {
    static EXECUTOR: Executor = const { Executor::new() };
}

struct Executor {
    thread: Cell<u16>,
    tasks: RefCell<Tasks>,
    main_woken: Cell<bool>,
}

struct Tasks {
    slots: Vec<Slot>,
    free: Vec<u32>,
    woken: VecDeque<u32>,
}

struct Slot {
    /// `None` while it is polled, and in a free slot.
    task: Option<Task>,
    generation: u16,
    /// In the queue already.
    woken: bool,
}

impl Executor {
    const fn new() -> Self {
        Self {
            thread: Cell::new(0),
            tasks: RefCell::new(Tasks {
                slots: Vec::new(),
                free: Vec::new(),
                woken: VecDeque::new(),
            }),
            main_woken: Cell::new(false),
        }
    }
}

/// What a waker is instead of a pointer.
#[derive(Clone, Copy)]
struct Address {
    thread: u16,
    generation: u16,
    place: u32,
}

const _: () = assert!(
    size_of::<*const ()>() == 8,
    "an address of a task takes the space of a pointer"
);

impl Address {
    fn pack(self) -> *const () {
        let word =
            u64::from(self.thread) << 48 | u64::from(self.generation) << 32 | u64::from(self.place);
        std::ptr::without_provenance(usize::try_from(word).expect("pointers have 64 bits"))
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        let part = |shift: u32| u16::try_from(word >> shift & 0xffff).expect("masked");
        Self {
            thread: part(48),
            generation: part(32),
            place: u32::try_from(word & 0xffff_ffff).expect("masked"),
        }
    }

    fn waker(self) -> Waker {
        // SAFETY: the functions of `WAKER` take the data for a number and follow it nowhere, so they are sound for any
        // data, on any thread, however often they are called.
        unsafe { Waker::from_raw(RawWaker::new(self.pack(), &WAKER)) }
    }
}

static WAKER: RawWakerVTable =
    RawWakerVTable::new(|data| RawWaker::new(data, &WAKER), wake, wake, |_| ());

fn wake(data: *const ()) {
    wake_word(data.addr() as u64);
}

#[inline]
fn wake_word(word: u64) {
    let address = Address::unpack(word);
    EXECUTOR.with(|executor| {
        if executor.thread.get() != address.thread {
            foreign();
        }
        if address.place == MAIN {
            executor.main_woken.set(true);
            return;
        }
        let tasks = &mut *executor.tasks.borrow_mut();
        if let Some(slot) = tasks.slots.get_mut(address.place as usize)
            && slot.generation == address.generation
            && !slot.woken
        {
            slot.woken = true;
            tasks.woken.push_back(address.place);
        }
    });
}

/// Nothing can be put right here: the task would wait for ever, and its core would not know.
#[cold]
fn foreign() -> ! {
    tracing::error!(
        "A task of a core was woken by another thread; only its own may. The process ends."
    );
    std::process::abort();
}

/// Who waits for an operation of this driver: a waker's number without the waker, so there is nothing to clone or drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sleeper(NonZeroU64);

impl Sleeper {
    /// # Panics
    /// If the waker is not one of this driver's. Whoever wraps wakers may not wait for its sockets.
    #[inline]
    pub(super) fn of(context: &Context<'_>) -> Self {
        let waker = context.waker();
        assert!(
            std::ptr::eq(waker.vtable(), &raw const WAKER),
            "the operations of a core are waited for by its tasks"
        );
        let word = waker.data().addr() as u64;
        Self(NonZeroU64::new(word).expect("a thread's number is not 0, so neither is the word"))
    }

    #[inline]
    pub(super) fn wake(self) {
        wake_word(self.0.get());
    }
}

/// Takes possession of this thread and returns the waker of the main future, which is woken at once.
pub(super) fn begin() -> Waker {
    EXECUTOR.with(|executor| {
        if executor.thread.get() == 0 {
            let number = THREADS.fetch_add(1, Ordering::Relaxed);
            executor.thread.set(if number == 0 {
                THREADS.fetch_add(1, Ordering::Relaxed)
            } else {
                number
            });
        }
        executor.main_woken.set(true);
        Address {
            thread: executor.thread.get(),
            generation: 0,
            place: MAIN,
        }
        .waker()
    })
}

pub(super) fn spawn(task: Task) {
    EXECUTOR.with(|executor| {
        let tasks = &mut *executor.tasks.borrow_mut();
        let place = tasks.free.pop().unwrap_or_else(|| {
            tasks.slots.push(Slot {
                task: None,
                generation: 0,
                woken: false,
            });
            u32::try_from(tasks.slots.len() - 1).expect("fewer than 2^32 tasks fit one core")
        });
        let slot = slot(tasks, place);
        slot.task = Some(task);
        slot.woken = true;
        tasks.woken.push_back(place);
    });
}

fn slot(tasks: &mut Tasks, place: u32) -> &mut Slot {
    tasks
        .slots
        .get_mut(place as usize)
        .expect("a place is given out by this slab, which never shrinks")
}

/// Whether a task, or the main future, is to be polled.
pub(super) fn has_woken() -> bool {
    EXECUTOR.with(|executor| executor.main_woken.get() || !executor.tasks.borrow().woken.is_empty())
}

/// Whether the main future is to be polled; takes note that it is.
pub(super) fn take_main() -> bool {
    EXECUTOR.with(|executor| executor.main_woken.replace(false))
}

/// Polls each task that is in the queue now, once. Those woken meanwhile come next time, so that nobody starves the ring.
pub(super) fn poll_woken() {
    EXECUTOR.with(|executor| {
        let count = executor.tasks.borrow().woken.len();
        for _ in 0..count {
            let (mut task, address) = {
                let tasks = &mut *executor.tasks.borrow_mut();
                let Some(place) = tasks.woken.pop_front() else {
                    return;
                };
                let slot = slot(tasks, place);
                slot.woken = false;
                let generation = slot.generation;
                // It may have ended since it was woken.
                let Some(task) = slot.task.take() else {
                    continue;
                };
                (
                    task,
                    Address {
                        thread: executor.thread.get(),
                        generation,
                        place,
                    },
                )
            };
            let polled = task
                .as_mut()
                .poll(&mut Context::from_waker(&address.waker()));
            if polled.is_pending() {
                slot(&mut executor.tasks.borrow_mut(), address.place).task = Some(task);
            } else {
                // Dropped while nothing is borrowed: what it owns may wake and spawn.
                drop(task);
                let tasks = &mut *executor.tasks.borrow_mut();
                retire(slot(tasks, address.place));
                tasks.free.push(address.place);
            }
        }
    });
}

fn retire(slot: &mut Slot) {
    slot.generation = slot.generation.wrapping_add(1);
}

/// Drops every task, and those that they spawn while they are dropped.
pub(super) fn end() {
    EXECUTOR.with(|executor| {
        let mut place = 0;
        loop {
            let task = match executor.tasks.borrow_mut().slots.get_mut(place) {
                Some(slot) => {
                    retire(slot);
                    slot.task.take()
                }
                None => break,
            };
            drop(task);
            place += 1;
        }
        let left = {
            let tasks = &mut *executor.tasks.borrow_mut();
            tasks.woken.clear();
            tasks.free.clear();
            std::mem::take(&mut tasks.slots)
        };
        drop(left);
    });
}
