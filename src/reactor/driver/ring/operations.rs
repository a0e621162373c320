//! What is under way on a core: an operation owns its memory until its last completion has been taken.
//!
//! Owns the slab of operations. Each place holds the memory that the kernel may read or write for it, so a future that is
//! dropped leaves both behind: the operation is cancelled, and its place is freed by its last completion and by nothing
//! else. So a place, and what it owns, is never given to another while the kernel still knows its number; the
//! generation in that number keeps a late cancellation from hitting a successor.
//! Never calls the kernel. Read next: `mod.rs` (who does), `stream.rs`.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;
use socket2::SockAddr;

use super::executor::Sleeper;
use crate::limits::{BUFFER_SMALL_BYTES, RECEIVES_AHEAD_MAX};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::operation::Gather;

/// What an operation lets the kernel use. The kernel's part is on the heap, so moving this moves nothing of it.
#[derive(Default)]
pub(super) enum Memory {
    #[default]
    None,
    Buffer(Buffer),
    Gather(Gather),
    Address(Box<SockAddr>),
}

/// Where something is in its slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// What a completion asks of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Nothing,
    Cancel(u64),
    /// The group was empty for a moment, or the kernel knows no cap: the receive is to be armed again.
    Rearm(Place, Room),
}

/// Which slab a name is of: two bits of it, so that a completion finds its place without asking what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Single,
    Receive,
    Accept,
}

const KIND_SHIFT: u32 = 30;
const PLACE_MASK: u64 = (1 << KIND_SHIFT) - 1;

/// The user data under which the kernel knows an operation.
#[inline]
fn name(kind: Kind, place: Place, generation: u32) -> u64 {
    u64::from(generation) << 32 | (kind as u64) << KIND_SHIFT | u64::from(place.0)
}

/// Things of one kind that the kernel has names for.
struct Slab<T> {
    kind: Kind,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

struct Slot<T> {
    /// Counts what the kernel was given under this place: the last one is the only one it may still know.
    generation: u32,
    /// Who waits.
    sleeper: Option<Sleeper>,
    state: T,
}

impl<T: Default> Slab<T> {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    #[inline]
    fn take_place(&mut self) -> Place {
        match self.free.pop() {
            Some(index) => Place(index),
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> Place {
        self.slots.push(Slot {
            generation: 0,
            sleeper: None,
            state: T::default(),
        });
        let index = self.slots.len() - 1;
        assert!(
            index < (1 << KIND_SHIFT) - 1,
            "fewer than 2^30 operations fit one core"
        );
        Place(u32::try_from(index).expect("just checked"))
    }

    #[inline]
    fn slot(&mut self, place: Place) -> &mut Slot<T> {
        self.slots
            .get_mut(place.0 as usize)
            .expect("a place is given out by this slab, which never shrinks")
    }

    /// The slot of an operation that a completion names.
    #[inline]
    fn named(&mut self, user_data: u64) -> (Place, &mut Slot<T>) {
        let place = Place(u32::try_from(user_data & PLACE_MASK).expect("masked"));
        let kind = self.kind;
        let slot = self.slot(place);
        assert!(
            name(kind, place, slot.generation) == user_data,
            "a completion is that of an operation that has not ended"
        );
        (place, slot)
    }

    /// The name under which the kernel gets an operation from now on.
    #[inline]
    fn next_name(&mut self, place: Place) -> u64 {
        let kind = self.kind;
        let slot = self.slot(place);
        slot.generation = slot.generation.wrapping_add(1);
        name(kind, place, slot.generation)
    }

    fn last_name(&mut self, place: Place) -> u64 {
        let generation = self.slot(place).generation;
        name(self.kind, place, generation)
    }
}

pub(super) struct Operations {
    singles: Slab<Single>,
    receives: Slab<Receive>,
    accepts: Slab<Accept>,
    /// Operations whose last completion has not been taken.
    in_flight: usize,
    /// The kernel knows [`MULTISHOT_BYTES_MAX`], as far as is known.
    caps: bool,
}

/// An operation that ends once.
#[derive(Default)]
struct Single {
    phase: Phase,
    /// Valid once it is done.
    result: i32,
    /// Nothing while the place is free.
    memory: Memory,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Free,
    Flying,
    /// With the kernel still, but nobody waits for it any more.
    Abandoned,
    Done,
}

/// What a socket receives. Lives as long as the socket; armed again and again.
#[derive(Default)]
pub(super) struct Receive {
    /// Arrived and not asked for yet. Bounded by [`RECEIVES_AHEAD_MAX`] and [`MULTISHOT_BYTES_MAX`].
    pub(super) arrived: VecDeque<Buffer>,
    /// What came behind that: 0 for the end of the stream, which stays, or an error, which is told once.
    pub(super) end: Option<i32>,
    pub(super) armed: Option<Armed>,
    /// What came last filled its buffer: more is to be expected, and large buffers asked for. A multishot receive would
    /// go on in small ones, and each would cost a send as well.
    long: bool,
    /// The socket is gone.
    abandoned: bool,
    descriptor: i32,
}

/// A receive that the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Armed {
    pub(super) room: Room,
    /// It yields buffer after buffer, until it is cancelled or has yielded what it may.
    pub(super) multishot: bool,
    /// It may yield [`MULTISHOT_BYTES_MAX`].
    capped: bool,
    pub(super) cancelled: bool,
}

/// What the driver tells the kernel of a receive.
pub(super) struct Arming {
    pub(super) name: u64,
    pub(super) descriptor: i32,
    pub(super) multishot: bool,
    /// How many bytes a multishot receive may yield before it is armed again; 0 for no cap.
    pub(super) cap: u32,
}

/// What a multishot receive yields before it ends. With one buffer that has come before, that fills four: a peer that
/// floods us gets no further, where the kernel would go on for 32. Not in kernels before 6.17.
const MULTISHOT_BYTES_MAX: usize = 3 * BUFFER_SMALL_BYTES;

/// What a listening socket yields.
#[derive(Default)]
pub(super) struct Accept {
    pub(super) arrived: VecDeque<OwnedFd>,
    pub(super) error: Option<i32>,
    pub(super) armed: bool,
    abandoned: bool,
}

impl Operations {
    pub(super) fn new() -> Self {
        Self {
            singles: Slab::new(Kind::Single),
            receives: Slab::new(Kind::Receive),
            accepts: Slab::new(Kind::Accept),
            in_flight: 0,
            caps: true,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A place for an operation that ends once, and its name.
    #[inline]
    pub(super) fn begin(&mut self, memory: Memory) -> (Place, u64) {
        self.in_flight += 1;
        let place = self.singles.take_place();
        let slot = self.singles.slot(place);
        slot.state.phase = Phase::Flying;
        slot.sleeper = None;
        // What was there is nothing, so there is nothing to drop.
        mem::forget(mem::replace(&mut slot.state.memory, memory));
        (place, self.singles.next_name(place))
    }

    /// The result, if it is there: then the place is free again. Else `sleeper` will be woken.
    #[inline]
    pub(super) fn finish(&mut self, place: Place, sleeper: Sleeper) -> Option<(i32, Memory)> {
        let slot = self.singles.slot(place);
        if slot.state.phase != Phase::Done {
            slot.sleeper = Some(sleeper);
            return None;
        }
        slot.state.phase = Phase::Free;
        let ended = (slot.state.result, mem::take(&mut slot.state.memory));
        self.singles.free.push(place.0);
        Some(ended)
    }

    /// Nobody waits any more. Returns what to cancel, or what is to be dropped.
    pub(super) fn abandon(&mut self, place: Place) -> (Option<u64>, Memory) {
        let slot = self.singles.slot(place);
        slot.sleeper = None;
        if slot.state.phase == Phase::Flying {
            slot.state.phase = Phase::Abandoned;
            return (Some(self.singles.last_name(place)), Memory::None);
        }
        slot.state.phase = Phase::Free;
        let memory = mem::take(&mut slot.state.memory);
        self.singles.free.push(place.0);
        (None, memory)
    }

    pub(super) fn new_receive(&mut self, descriptor: i32) -> Place {
        let place = self.receives.take_place();
        let slot = self.receives.slot(place);
        slot.sleeper = None;
        slot.state = Receive {
            descriptor,
            ..Receive::default()
        };
        place
    }

    #[inline]
    pub(super) fn receive(&mut self, place: Place) -> &mut Receive {
        &mut self.receives.slot(place).state
    }

    /// As [`Operations::receive`], with the place of who waits.
    #[inline]
    pub(super) fn receive_and_sleeper(
        &mut self,
        place: Place,
    ) -> (&mut Receive, &mut Option<Sleeper>) {
        let slot = self.receives.slot(place);
        (&mut slot.state, &mut slot.sleeper)
    }

    pub(super) fn arm_receive(&mut self, place: Place, room: Room) -> Arming {
        self.in_flight += 1;
        let name = self.receives.next_name(place);
        let capped = self.caps;
        let receive = self.receive(place);
        let multishot = room == Room::Small && !receive.long;
        let capped = capped && multishot;
        receive.armed = Some(Armed {
            room,
            multishot,
            capped,
            cancelled: false,
        });
        Arming {
            name,
            descriptor: receive.descriptor,
            multishot,
            cap: if capped {
                u32::try_from(MULTISHOT_BYTES_MAX).expect("a few buffers")
            } else {
                0
            },
        }
    }

    /// Takes note that an armed receive is to be cancelled: its name, if that is not under way already.
    pub(super) fn cancel_receive(&mut self, place: Place) -> Option<u64> {
        let armed = self.receive(place).armed.as_mut()?;
        if mem::replace(&mut armed.cancelled, true) {
            return None;
        }
        Some(self.receives.last_name(place))
    }

    /// The socket is gone. Returns what to cancel, and what is to be dropped.
    pub(super) fn abandon_receive(&mut self, place: Place) -> (Option<u64>, VecDeque<Buffer>) {
        let cancel = self.cancel_receive(place);
        let slot = self.receives.slot(place);
        slot.sleeper = None;
        slot.state.abandoned = true;
        let arrived = mem::take(&mut slot.state.arrived);
        if slot.state.armed.is_none() {
            self.receives.free.push(place.0);
        }
        (cancel, arrived)
    }

    pub(super) fn new_accept(&mut self) -> Place {
        let place = self.accepts.take_place();
        let slot = self.accepts.slot(place);
        slot.sleeper = None;
        slot.state = Accept::default();
        place
    }

    pub(super) fn accept(&mut self, place: Place) -> &mut Accept {
        &mut self.accepts.slot(place).state
    }

    /// Remembers who waits for a connection.
    pub(super) fn wait_accept(&mut self, place: Place, sleeper: Sleeper) {
        self.accepts.slot(place).sleeper = Some(sleeper);
    }

    pub(super) fn arm_accept(&mut self, place: Place) -> u64 {
        self.in_flight += 1;
        self.accept(place).armed = true;
        self.accepts.next_name(place)
    }

    /// The name of what is armed.
    pub(super) fn cancel_accept(&mut self, place: Place) -> Option<u64> {
        if !self.accept(place).armed {
            return None;
        }
        Some(self.accepts.last_name(place))
    }

    pub(super) fn abandon_accept(&mut self, place: Place) -> (Option<u64>, VecDeque<OwnedFd>) {
        let cancel = self.cancel_accept(place);
        let slot = self.accepts.slot(place);
        slot.sleeper = None;
        slot.state.abandoned = true;
        let arrived = mem::take(&mut slot.state.arrived);
        if cancel.is_none() {
            self.accepts.free.push(place.0);
        }
        (cancel, arrived)
    }

    /// Takes one completion, and wakes who waits for it. `filled` turns the number of a provided buffer, its group and a
    /// count into the buffer.
    #[inline]
    pub(super) fn complete(
        &mut self,
        user_data: u64,
        result: i32,
        flags: u32,
        filled: impl FnOnce(u16, Room, usize) -> Buffer,
    ) -> Then {
        let last = !cqueue::more(flags);
        if last {
            self.in_flight -= 1;
        }
        match user_data >> KIND_SHIFT & 3 {
            SINGLE => {
                assert!(last, "an operation that ends once has one completion");
                let (place, slot) = self.singles.named(user_data);
                match slot.state.phase {
                    Phase::Flying => {
                        slot.state.phase = Phase::Done;
                        slot.state.result = result;
                        wake(&mut slot.sleeper);
                    }
                    Phase::Abandoned => {
                        slot.state.phase = Phase::Free;
                        drop(mem::take(&mut slot.state.memory));
                        self.singles.free.push(place.0);
                    }
                    Phase::Free | Phase::Done => {
                        unreachable!("its last completion was taken already")
                    }
                }
                Then::Nothing
            }
            RECEIVE => {
                let (place, slot) = self.receives.named(user_data);
                let room = slot.state.armed.map_or(Room::Small, |armed| armed.room);
                let heard = slot.state.complete(result, flags, filled);
                if slot.state.abandoned {
                    if last {
                        self.receives.free.push(place.0);
                    }
                    return Then::Nothing;
                }
                match heard {
                    Heard::Something => {
                        wake(&mut slot.sleeper);
                        Then::Nothing
                    }
                    Heard::TooMuch => {
                        wake(&mut slot.sleeper);
                        self.cancel_receive(place)
                            .map_or(Then::Nothing, Then::Cancel)
                    }
                    Heard::Starved => Then::Rearm(place, room),
                    Heard::Uncapped => {
                        self.caps = false;
                        Then::Rearm(place, room)
                    }
                }
            }
            _ => {
                let (place, slot) = self.accepts.named(user_data);
                slot.state.complete(result, last);
                wake(&mut slot.sleeper);
                if last && slot.state.abandoned {
                    self.accepts.free.push(place.0);
                }
                Then::Nothing
            }
        }
    }
}

const SINGLE: u64 = Kind::Single as u64;
const RECEIVE: u64 = Kind::Receive as u64;

#[inline]
fn wake(sleeper: &mut Option<Sleeper>) {
    if let Some(sleeper) = sleeper.take() {
        sleeper.wake();
    }
}

/// What a completion says of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    Something,
    /// It brought more than is wanted ahead.
    TooMuch,
    /// There was no buffer for it.
    Starved,
    /// The kernel knows no cap.
    Uncapped,
}

impl Receive {
    #[inline]
    fn complete(
        &mut self,
        result: i32,
        flags: u32,
        filled: impl FnOnce(u16, Room, usize) -> Buffer,
    ) -> Heard {
        let armed = self
            .armed
            .expect("a receive that has a completion is armed");
        let last = !cqueue::more(flags);
        if last {
            self.armed = None;
        }
        let count = usize::try_from(result).unwrap_or_default();
        if let Some(number) = cqueue::buffer_select(flags) {
            self.long = count >= BUFFER_SMALL_BYTES;
            let buffer = filled(number, armed.room, count);
            if count > 0 && !self.abandoned {
                self.arrived.push_back(buffer);
            }
        }
        match result {
            1.. if !last && (self.long || self.arrived.len() >= RECEIVES_AHEAD_MAX) => {
                Heard::TooMuch
            }
            1.. => Heard::Something,
            _ if !last => Heard::Something,
            NO_BUFFERS if !armed.cancelled => Heard::Starved,
            INVALID if armed.capped => Heard::Uncapped,
            // Our own doing, or of no consequence: who waits arms it again.
            CANCELLED | NO_BUFFERS | INTERRUPTED => Heard::Something,
            end => {
                self.end = Some(end);
                Heard::Something
            }
        }
    }
}

const NO_BUFFERS: i32 = -libc::ENOBUFS;
const INVALID: i32 = -libc::EINVAL;
const CANCELLED: i32 = -libc::ECANCELED;
const INTERRUPTED: i32 = -libc::EINTR;

impl Accept {
    fn complete(&mut self, result: i32, last: bool) {
        self.armed = !last;
        if result >= 0 {
            // SAFETY: the kernel has just given us this descriptor as the result of an accept, and nobody else has it.
            let accepted = unsafe { OwnedFd::from_raw_fd(result) };
            if !self.abandoned {
                self.arrived.push_back(accepted);
            }
        } else if result != CANCELLED && result != INTERRUPTED {
            self.error = Some(-result);
        }
    }
}
