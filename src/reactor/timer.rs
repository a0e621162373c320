//! Deadlines: one coarse hierarchical wheel per core.
//!
//! Owns the wheel of its thread: 10 ms slots, six levels of 64, a slab of entries linked through the slots. Adding,
//! moving and removing an entry takes constant time, and so does finding the next slot that holds one. There is one
//! kernel timer per core, set to that slot, so a core whose deadlines are far away sleeps until then.
//! Never reads the clock for a [`Timer`]: time is what it was when the wheel last turned.
//! Read next: `socket.rs`, where deadlines end waits.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::clock::{self, Instant};
use super::driver;

/// Nanoseconds of one slot of the lowest level.
const SLOT_NANOSECONDS: u64 = 10_000_000;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// Slots until the wheel comes round: 21 years. What is later waits there and is put in again.
const ROUND: u64 = 1 << (SLOT_BITS as usize * LEVELS);
const NONE: u32 = u32::MAX;
/// The list of entries whose slot has come, until they are woken.
const DUE: u16 = 384;
const _: () = assert!(DUE as usize == LEVELS * SLOTS);
const UNLINKED: u16 = u16::MAX;

/// A deadline that may be moved at any time for next to nothing.
///
/// Moving it stores a number. What is in the wheel may be earlier than that: when its slot comes it is put in again.
/// One task waits for a timer at a time; the last one that polled it is woken.
pub struct Timer {
    /// Nanoseconds of the clock; `u64::MAX` for none.
    deadline: Cell<u64>,
    /// When the wheel will look at the entry, if that is still to come.
    fires: Cell<u64>,
    /// Where the entry is in the slab; `NONE` before the first wait.
    index: Cell<u32>,
    /// Which slab that is: a timer may outlive the run that it was made in.
    epoch: Cell<u32>,
    /// The waker in the entry, as numbers to compare with, while `fires` is still to come: 0 for none.
    waits: Cell<(usize, usize)>,
}

struct Entry {
    waker: Option<Waker>,
    tick: u64,
    previous: u32,
    next: u32,
    list: u16,
}

struct Wheel {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// The first entry of each slot of each level, then of `DUE`.
    heads: [u32; LEVELS * SLOTS + 1],
    /// Which slots of a level hold an entry.
    occupied: [u64; LEVELS],
    /// The last tick that has been looked at.
    tick: u64,
    /// What the kernel timer is set to; `u64::MAX` for none.
    armed: u64,
}

thread_local! {
    static WHEEL: RefCell<Wheel> = const { RefCell::new(Wheel::new()) };
    /// When the wheel last turned, in nanoseconds. Apart from the wheel, so that reading it borrows nothing.
    static TURNED: Cell<u64> = const { Cell::new(0) };
    /// Who waits for the wheel to turn, whatever the time is.
    static NEXT: RefCell<Vec<Waker>> = const { RefCell::new(Vec::new()) };
    /// Which slab of entries the wheel has.
    static EPOCH: Cell<u32> = const { Cell::new(1) };
}

impl Timer {
    /// A timer with no deadline.
    pub const fn new() -> Self {
        Self {
            deadline: Cell::new(u64::MAX),
            fires: Cell::new(0),
            index: Cell::new(NONE),
            epoch: Cell::new(0),
            waits: Cell::new((0, 0)),
        }
    }

    /// Moves the deadline. Takes effect for waits from now on and for the wait of the task that calls this.
    pub fn set(&self, at: Instant) {
        self.deadline.set(at.nanoseconds());
    }

    /// Takes the deadline away.
    pub fn clear(&self) {
        self.deadline.set(u64::MAX);
    }

    /// The deadline, or [`Instant::NEVER`].
    pub fn deadline(&self) -> Instant {
        Instant::from_nanoseconds(self.deadline.get())
    }

    /// Whether the wheel has turned past the deadline. A deadline in the past counts from the wheel's next turn on.
    pub fn expired(&self) -> bool {
        self.deadline.get() <= TURNED.get()
    }

    /// Ready once expired; until then the task of `context` will be woken at the deadline.
    #[inline]
    pub(super) fn poll_expired(&self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline.get();
        let turned = TURNED.get();
        if deadline <= turned {
            return Poll::Ready(());
        }
        if deadline == u64::MAX {
            return Poll::Pending;
        }
        let fires = self.fires.get();
        if fires > turned
            && deadline > fires - SLOT_NANOSECONDS
            && self.waits.get() == identity(context.waker())
            && self.epoch.get() == EPOCH.get()
        {
            // The entry waits in the wheel already, early enough and with this waker.
            return Poll::Pending;
        }
        self.wait(deadline, turned, context.waker());
        Poll::Pending
    }

    #[cold]
    fn wait(&self, deadline: u64, turned: u64, waker: &Waker) {
        // A waker may run anything when it is dropped, also a timer's own drop: never while the wheel is borrowed.
        let replaced = WHEEL.with_borrow_mut(|wheel| {
            let fires = self.fires.get();
            if fires <= turned
                || deadline <= fires - SLOT_NANOSECONDS
                || self.epoch.get() != EPOCH.get()
            {
                wheel.place(self, deadline);
            }
            self.waits.set(identity(waker));
            wheel.entry(self.index.get()).waker.replace(waker.clone())
        });
        drop(replaced);
    }
}

/// What [`Waker::will_wake`] compares. It names a waker for as long as that, or a clone of it, is kept.
#[inline]
fn identity(waker: &Waker) -> (usize, usize) {
    (
        waker.data().addr(),
        std::ptr::from_ref(waker.vtable()).addr(),
    )
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.index.get() == NONE {
            return;
        }
        // While the thread ends there is no wheel any more.
        let waker = WHEEL.try_with(|wheel| wheel.borrow_mut().release(self));
        drop(waker);
    }
}

impl fmt::Debug for Timer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.deadline.get() {
            u64::MAX => formatter.write_str("Timer(none)"),
            deadline => write!(formatter, "Timer({deadline} ns)"),
        }
    }
}

/// Runs `future` until it ends or `timer` expires: then `None`, and the caller, who still owns the future, must see to
/// its end. A result that is there at the deadline wins.
pub fn limit<F: Future>(
    timer: &Timer,
    mut future: Pin<&mut F>,
) -> impl Future<Output = Option<F::Output>> + Unpin {
    poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll_expired(context).map(|()| None),
    })
}

/// Waits for `duration`, up to a slot (10 ms) longer.
pub async fn sleep(duration: Duration) {
    let timer = Timer::new();
    timer.set(clock::now() + duration);
    poll_fn(|context| timer.poll_expired(context)).await;
}

/// Lets everything else go first that is ready, also in the kernel: for whoever has much to compute.
pub async fn next_turn() {
    let mut waited = false;
    poll_fn(|context| {
        if mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        NEXT.with_borrow_mut(|next| next.push(context.waker().clone()));
        // The wheel turns when the driver has asked its kernel: a task that woke itself could be polled before that.
        driver::arm(1);
        Poll::Pending
    })
    .await;
}

/// Turns the wheel to `now` and wakes the tasks whose deadlines may have come. Returns when to come back, if ever.
///
/// The driver calls this when the time it was given last, or through [`driver::arm`], has come.
pub(super) fn turn(now: u64) -> Option<u64> {
    loop {
        // One at a time: the wheel is not borrowed while a task is woken.
        let (waker, turned) = WHEEL.with_borrow_mut(|wheel| {
            let waker = wheel.next_due(now / SLOT_NANOSECONDS);
            (waker, wheel.tick * SLOT_NANOSECONDS)
        });
        TURNED.set(turned);
        match waker {
            Some(waker) => waker.wake(),
            None => break,
        }
    }
    for waker in NEXT.take() {
        waker.wake();
    }
    WHEEL.with_borrow_mut(|wheel| {
        let next = wheel
            .next_occupied()
            .map(|(tick, ..)| tick * SLOT_NANOSECONDS);
        wheel.armed = next.unwrap_or(u64::MAX);
        next
    })
}

/// Forgets every entry and starts at `now`: a run begins or has ended.
pub(super) fn reset(now: u64) {
    let old = WHEEL.with_borrow_mut(|wheel| {
        let mut new = Wheel::new();
        EPOCH.set(EPOCH.get().wrapping_add(1));
        new.tick = now / SLOT_NANOSECONDS;
        mem::replace(wheel, new)
    });
    TURNED.set(now / SLOT_NANOSECONDS * SLOT_NANOSECONDS);
    let nobody = NEXT.take();
    drop(nobody);
    // Dropping the wakers may drop tasks and their timers, which find another epoch and leave the wheel alone.
    drop(old);
}

/// Which slot of a level `tick` is in: the six bits above `shift`.
fn slot_of(tick: u64, shift: usize) -> usize {
    let [low, ..] = (tick >> shift).to_le_bytes();
    usize::from(low) % SLOTS
}

impl Wheel {
    const fn new() -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            heads: [NONE; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            tick: 0,
            armed: u64::MAX,
        }
    }

    fn entry(&mut self, index: u32) -> &mut Entry {
        self.entries
            .get_mut(index as usize)
            .expect("a timer's index is given out by this wheel and epoch")
    }

    /// Links the timer's entry where its deadline is, making one if it has none; sets the kernel timer if it is sooner.
    #[cold]
    fn place(&mut self, timer: &Timer, deadline: u64) {
        if timer.index.get() == NONE || timer.epoch.get() != EPOCH.get() {
            timer.index.set(self.insert());
            timer.epoch.set(EPOCH.get());
        }
        let index = timer.index.get();
        self.unlink(index);
        // Rounded up, so that a timer never fires early. What is past fires at the next turn.
        let tick = deadline
            .div_ceil(SLOT_NANOSECONDS)
            .clamp(self.tick + 1, self.tick + ROUND - 1);
        self.link(index, tick);
        let fires = tick * SLOT_NANOSECONDS;
        timer.fires.set(fires);
        if fires < self.armed {
            self.armed = fires;
            driver::arm(fires);
        }
    }

    fn insert(&mut self) -> u32 {
        if let Some(index) = self.free.pop() {
            return index;
        }
        let index =
            u32::try_from(self.entries.len()).expect("fewer than 2^32 connections fit one core");
        self.entries.push(Entry {
            waker: None,
            tick: 0,
            previous: NONE,
            next: NONE,
            list: UNLINKED,
        });
        index
    }

    /// Gives the timer's entry back. The waker is the caller's to drop, once the wheel is free again.
    fn release(&mut self, timer: &Timer) -> Option<Waker> {
        if timer.epoch.get() != EPOCH.get() {
            return None;
        }
        let index = timer.index.get();
        self.unlink(index);
        self.free.push(index);
        self.entry(index).waker.take()
    }

    fn link(&mut self, index: u32, tick: u64) {
        // The level is that of the highest bit in which now and then differ.
        let differing = (self.tick ^ tick) | (SLOTS as u64 - 1);
        let level = (((63 - differing.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = slot_of(tick, SLOT_BITS as usize * level);
        let list = level * SLOTS + slot;
        let head = mem::replace(self.head(list), index);
        if let Some(occupied) = self.occupied.get_mut(level) {
            *occupied |= 1 << slot;
        }
        if head != NONE {
            self.entry(head).previous = index;
        }
        let entry = self.entry(index);
        entry.tick = tick;
        entry.previous = NONE;
        entry.next = head;
        entry.list = u16::try_from(list).expect("there are fewer than 2^16 slots");
    }

    fn unlink(&mut self, index: u32) {
        let Entry {
            previous,
            next,
            list,
            ..
        } = *self.entry(index);
        if list == UNLINKED {
            return;
        }
        self.entry(index).list = UNLINKED;
        if next != NONE {
            self.entry(next).previous = previous;
        }
        if previous != NONE {
            self.entry(previous).next = next;
            return;
        }
        *self.head(list.into()) = next;
        if next == NONE && list != DUE {
            let level = usize::from(list) / SLOTS;
            if let Some(occupied) = self.occupied.get_mut(level) {
                *occupied &= !(1 << (usize::from(list) % SLOTS));
            }
        }
    }

    fn head(&mut self, list: usize) -> &mut u32 {
        self.heads
            .get_mut(list)
            .expect("a list is a slot of a level, or the one of due entries")
    }

    /// The tick, level and slot of the first slot that holds an entry.
    fn next_occupied(&self) -> Option<(u64, usize, usize)> {
        // A lower level always comes before a higher one: the higher one begins where the lower one ends.
        let (level, occupied) = self
            .occupied
            .iter()
            .enumerate()
            .find(|(_, occupied)| **occupied != 0)?;
        let shift = SLOT_BITS as usize * level;
        let slot_now = slot_of(self.tick, shift);
        // Slots are counted from the one that now is in: turning a copy of the bits by so much makes it the first.
        let turned = (occupied >> slot_now) | (occupied << ((SLOTS - slot_now) % SLOTS));
        let slot = (slot_now + turned.trailing_zeros() as usize) % SLOTS;
        let round = (SLOTS as u64) << shift;
        let mut tick = (self.tick & !(round - 1)) + ((slot as u64) << shift);
        if tick <= self.tick {
            // Only the highest level wraps.
            tick += round;
        }
        Some((tick, level, slot))
    }

    /// Turns up to `tick` and returns the waker of one entry that has come, until there are none.
    fn next_due(&mut self, tick: u64) -> Option<Waker> {
        loop {
            let due = *self.head(DUE.into());
            if due != NONE {
                self.unlink(due);
                let at = self.entry(due).tick;
                if at > self.tick {
                    // It came down a level and waits on.
                    self.link(due, at);
                } else if let Some(waker) = self.entry(due).waker.take() {
                    return Some(waker);
                }
                continue;
            }
            match self.next_occupied() {
                Some((next, level, slot)) if next <= tick => {
                    self.tick = next;
                    let list = level * SLOTS + slot;
                    let first = mem::replace(self.head(list), NONE);
                    *self.head(DUE.into()) = first;
                    if let Some(occupied) = self.occupied.get_mut(level) {
                        *occupied &= !(1 << slot);
                    }
                    let mut index = first;
                    while index != NONE {
                        let entry = self.entry(index);
                        entry.list = DUE;
                        index = entry.next;
                    }
                }
                _ => {
                    self.tick = self.tick.max(tick);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;
    use crate::reactor::simulated::{self, Faults};

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A timer, the task that waits for it, and what a list of deadlines would know of it.
    struct Watched {
        timer: Timer,
        woken: Arc<Flag>,
        /// The deadline when it was last waited for; `None` while nobody waits.
        waits: Option<u64>,
    }

    impl Watched {
        fn new() -> Self {
            Self {
                timer: Timer::new(),
                woken: Arc::default(),
                waits: None,
            }
        }

        fn poll(&mut self) -> bool {
            let waker = Waker::from(Arc::clone(&self.woken));
            let ready = self
                .timer
                .poll_expired(&mut Context::from_waker(&waker))
                .is_ready();
            self.waits = (!ready)
                .then(|| self.timer.deadline().nanoseconds())
                .filter(|deadline| *deadline != u64::MAX);
            ready
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Move a deadline to so long after now, and wait.
        Set(usize, u64),
        /// Move it, but let the wait that is under way go on.
        SetLater(usize, u64),
        Clear(usize),
        Replace(usize),
        /// Let time pass, up to so much after the next time the wheel asks for if it does.
        Turn(u64),
        Sleep,
    }

    /// Milliseconds to many hours, dense at the small end.
    fn duration() -> impl Strategy<Value = u64> {
        (0_u32..46, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
    }

    fn step() -> impl Strategy<Value = Step> {
        let timer = || 0_usize..8;
        prop_oneof![
            4 => (timer(), duration()).prop_map(|(timer, after)| Step::Set(timer, after)),
            2 => (timer(), duration()).prop_map(|(timer, after)| Step::SetLater(timer, after)),
            1 => timer().prop_map(Step::Clear),
            1 => timer().prop_map(Step::Replace),
            2 => duration().prop_map(Step::Turn),
            2 => Just(Step::Sleep),
        ]
    }

    proptest! {
        #[test]
        fn the_wheel_is_a_list_of_deadlines(begin in duration(), steps in prop::collection::vec(step(), 1..120)) {
            let mut now = begin;
            reset(now);
            let mut timers: Vec<Watched> = (0..8).map(|_| Watched::new()).collect();
            let mut next = None;
            for step in steps {
                match step {
                    Step::Set(index, after) => {
                        timers[index].timer.set(Instant::from_nanoseconds(now + after));
                        timers[index].poll();
                        next = armed();
                    }
                    Step::SetLater(index, after) => {
                        let later = timers[index].waits.unwrap_or(now).saturating_add(after);
                        timers[index].timer.set(Instant::from_nanoseconds(later));
                    }
                    Step::Clear(index) => timers[index].timer.clear(),
                    Step::Replace(index) => timers[index] = Watched::new(),
                    Step::Turn(_) | Step::Sleep => {
                        now = match step {
                            Step::Turn(passes) => now + passes,
                            _ => next.unwrap_or(now).max(now),
                        };
                        next = turn(now);
                        let turned = now / SLOT_NANOSECONDS * SLOT_NANOSECONDS;
                        for watched in &mut timers {
                            let woken = watched.woken.0.swap(false, Ordering::Relaxed);
                            if watched.waits.is_some_and(|deadline| deadline <= turned) {
                                prop_assert!(woken, "a waiting task was not woken at its deadline");
                            }
                            if woken {
                                // As a task would: it looks, and waits on if its deadline has moved.
                                let past = watched.timer.deadline().nanoseconds() <= turned;
                                prop_assert_eq!(watched.poll(), past);
                            }
                            prop_assert_eq!(watched.timer.expired(), watched.timer.deadline().nanoseconds() <= turned);
                        }
                        next = armed().or(next);
                        let due = timers.iter().filter_map(|watched| watched.waits).min();
                        if let Some(due) = due {
                            let asked = next.expect("somebody waits");
                            prop_assert!(asked <= due.div_ceil(SLOT_NANOSECONDS).max(now / SLOT_NANOSECONDS + 1) * SLOT_NANOSECONDS);
                            prop_assert!(asked > turned, "the wheel asks for a time that has been");
                        }
                    }
                }
            }
        }
    }

    fn armed() -> Option<u64> {
        WHEEL.with_borrow(|wheel| Some(wheel.armed).filter(|at| *at != u64::MAX))
    }

    #[test]
    fn a_far_deadline_costs_few_turns() {
        reset(0);
        let mut watched = Watched::new();
        watched
            .timer
            .set(Instant::from_nanoseconds(180_000_000_000));
        watched.poll();
        let (mut turns, mut next) = (0, armed());
        while let Some(at) = next {
            turns += 1;
            next = turn(at);
        }
        assert!(watched.timer.expired());
        assert!(turns <= LEVELS, "{turns} turns");
    }

    #[test]
    fn moving_a_deadline_does_not_touch_the_wheel() {
        reset(0);
        let mut watched = Watched::new();
        for second in 1..1000 {
            watched
                .timer
                .set(Instant::from_nanoseconds(second * 1_000_000_000));
            watched.poll();
        }
        assert_eq!(
            armed(),
            Some(1_000_000_000),
            "the first one stays; the others are seen when it fires"
        );
        assert_eq!(WHEEL.with_borrow(|wheel| wheel.entries.len()), 1);
        drop(watched);
        assert_eq!(WHEEL.with_borrow(|wheel| wheel.free.len()), 1);
    }

    #[test]
    fn a_timer_that_outlives_its_run_leaves_the_next_one_alone() {
        let mut old = Watched::new();
        reset(0);
        old.timer.set(Instant::from_nanoseconds(1));
        old.poll();
        reset(0);
        let mut new = Watched::new();
        new.timer.set(Instant::from_nanoseconds(1));
        new.poll();
        drop(old);
        turn(SLOT_NANOSECONDS);
        assert!(new.woken.0.load(Ordering::Relaxed));
    }

    #[test]
    fn sleep_takes_its_time_and_at_most_a_slot_more() {
        simulated::run(0, Faults::NONE, async {
            for milliseconds in [0, 1, 9, 10, 11, 640, 41_000, 86_400_000] {
                let (begin, wanted) = (clock::now(), Duration::from_millis(milliseconds));
                sleep(wanted).await;
                let took = clock::now() - begin;
                assert!(
                    took >= wanted && took <= wanted + Duration::from_millis(10),
                    "{wanted:?}: {took:?}"
                );
            }
        });
    }
}
