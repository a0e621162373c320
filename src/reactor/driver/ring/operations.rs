//! What is under way on a core: an operation owns its memory until its last completion has been taken.
//!
//! Owns the slab of operations. Each place holds the memory that the kernel may read or write for it, so a future that is
//! dropped leaves both behind: the operation is cancelled, and its place is freed by its last completion and by nothing
//! else. So a place, and what it owns, is never given to another while the kernel still knows its number; the
//! generation in that number keeps a late cancellation from hitting a successor.
//! Never calls the kernel. Read next: `mod.rs` (who does), `stream.rs`.

use std::collections::VecDeque;
use std::os::fd::{FromRawFd, OwnedFd};
use std::task::Waker;

use io_uring::cqueue;
use socket2::SockAddr;

use crate::limits::{BUFFER_SMALL_BYTES, RECEIVES_AHEAD_MAX};
use crate::reactor::buffer::{Buffer, Room};
use crate::reactor::operation::Gather;

/// What an operation lets the kernel use. The kernel's part is on the heap, so moving this moves nothing of it.
pub(super) enum Memory {
    None,
    Buffer(Buffer),
    Gather(Gather),
    Address(Box<SockAddr>),
}

/// Where an operation is in the slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

/// What a completion asks of the driver, once nothing is borrowed any more.
#[derive(Default)]
pub(super) struct Consequence {
    pub(super) woken: Option<Waker>,
    pub(super) then: Then,
    /// What is not wanted any more, kept apart so that it is dropped late.
    pub(super) dropped: Option<Memory>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    #[default]
    Nothing,
    Cancel(u64),
    /// The group was empty for a moment: the receive is to be armed again.
    Rearm(Place, Room),
}

#[derive(Default)]
pub(super) struct Operations {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Operations whose last completion has not been taken.
    in_flight: usize,
}

struct Slot {
    generation: u32,
    waker: Option<Waker>,
    state: State,
}

enum State {
    Free,
    /// With the kernel. Nobody waits for it any more if it is abandoned.
    Single {
        memory: Memory,
        abandoned: bool,
    },
    Done {
        result: i32,
        memory: Memory,
    },
    Receive(Receive),
    Accept(Accept),
}

/// What a socket receives. Lives as long as the socket; armed again and again.
#[derive(Default)]
pub(super) struct Receive {
    /// Arrived and not asked for yet. Bounded by [`RECEIVES_AHEAD_MAX`] and what the kernel does in one turn.
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
    /// It yields buffer after buffer, until it is cancelled.
    pub(super) multishot: bool,
    pub(super) cancelled: bool,
}

/// What a listening socket yields.
#[derive(Default)]
pub(super) struct Accept {
    pub(super) arrived: VecDeque<OwnedFd>,
    pub(super) error: Option<i32>,
    pub(super) armed: bool,
    abandoned: bool,
}

impl Operations {
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn insert(&mut self, state: State) -> Place {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                waker: None,
                state: State::Free,
            });
            u32::try_from(self.slots.len() - 1).expect("fewer than 2^32 operations fit one core")
        });
        self.slot(Place(index)).state = state;
        Place(index)
    }

    fn slot(&mut self, place: Place) -> &mut Slot {
        self.slots
            .get_mut(place.0 as usize)
            .expect("a place is given out by this slab, which never shrinks")
    }

    fn free(&mut self, place: Place) -> State {
        self.free.push(place.0);
        std::mem::replace(&mut self.slot(place).state, State::Free)
    }

    /// The user data under which the kernel gets the operation from now on.
    fn next_name(&mut self, place: Place) -> u64 {
        self.in_flight += 1;
        let slot = self.slot(place);
        slot.generation = slot.generation.wrapping_add(1);
        name(place, slot.generation)
    }

    /// Remembers who waits. What is returned must be dropped once nothing is borrowed.
    #[must_use]
    pub(super) fn wait(&mut self, place: Place, waker: &Waker) -> Option<Waker> {
        let slot = self.slot(place);
        match &slot.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => slot.waker.replace(waker.clone()),
        }
    }

    /// A place for an operation that ends once, and its name.
    pub(super) fn begin(&mut self, memory: Memory) -> (Place, u64) {
        let place = self.insert(State::Single {
            memory,
            abandoned: false,
        });
        (place, self.next_name(place))
    }

    /// The result, if it is there: then the place is free again.
    pub(super) fn finish(&mut self, place: Place) -> Option<(i32, Memory)> {
        if !matches!(self.slot(place).state, State::Done { .. }) {
            return None;
        }
        match self.free(place) {
            State::Done { result, memory } => Some((result, memory)),
            _ => None,
        }
    }

    /// Nobody waits any more. Returns what to cancel, or what is to be dropped.
    pub(super) fn abandon(&mut self, place: Place) -> (Option<u64>, Option<Memory>, Option<Waker>) {
        let slot = self.slot(place);
        let waker = slot.waker.take();
        if let State::Single { abandoned, .. } = &mut slot.state {
            *abandoned = true;
            return (Some(name(place, slot.generation)), None, waker);
        }
        (None, self.finish(place).map(|(_, memory)| memory), waker)
    }

    pub(super) fn new_receive(&mut self, descriptor: i32) -> Place {
        self.insert(State::Receive(Receive {
            descriptor,
            ..Receive::default()
        }))
    }

    pub(super) fn receive(&mut self, place: Place) -> &mut Receive {
        match &mut self.slot(place).state {
            State::Receive(receive) => receive,
            _ => unreachable!("the place of a socket's receive is freed with the socket"),
        }
    }

    /// Arms a receive: its name, its descriptor, and whether it is to be multishot.
    pub(super) fn arm_receive(&mut self, place: Place, room: Room) -> (u64, i32, bool) {
        let receive = self.receive(place);
        let multishot = room == Room::Small && !receive.long;
        receive.armed = Some(Armed {
            room,
            multishot,
            cancelled: false,
        });
        let descriptor = receive.descriptor;
        (self.next_name(place), descriptor, multishot)
    }

    /// Takes note that an armed receive is to be cancelled: its name, if that is not under way already.
    pub(super) fn cancel_receive(&mut self, place: Place) -> Option<u64> {
        let armed = self.receive(place).armed.as_mut()?;
        if std::mem::replace(&mut armed.cancelled, true) {
            return None;
        }
        Some(name(place, self.slot(place).generation))
    }

    /// The socket is gone. Returns what to cancel, and what is to be dropped.
    pub(super) fn abandon_receive(
        &mut self,
        place: Place,
    ) -> (Option<u64>, VecDeque<Buffer>, Option<Waker>) {
        let cancel = self.cancel_receive(place);
        let waker = self.slot(place).waker.take();
        let receive = self.receive(place);
        receive.abandoned = true;
        let arrived = std::mem::take(&mut receive.arrived);
        if receive.armed.is_none() {
            self.free(place);
        }
        (cancel, arrived, waker)
    }

    pub(super) fn new_accept(&mut self) -> Place {
        self.insert(State::Accept(Accept::default()))
    }

    pub(super) fn accept(&mut self, place: Place) -> &mut Accept {
        match &mut self.slot(place).state {
            State::Accept(accept) => accept,
            _ => unreachable!("the place of a listener's accept is freed with the listener"),
        }
    }

    pub(super) fn arm_accept(&mut self, place: Place) -> u64 {
        self.accept(place).armed = true;
        self.next_name(place)
    }

    /// The name of what is armed.
    pub(super) fn cancel_accept(&mut self, place: Place) -> Option<u64> {
        if !self.accept(place).armed {
            return None;
        }
        Some(name(place, self.slot(place).generation))
    }

    pub(super) fn abandon_accept(
        &mut self,
        place: Place,
    ) -> (Option<u64>, VecDeque<OwnedFd>, Option<Waker>) {
        let cancel = self.cancel_accept(place);
        let waker = self.slot(place).waker.take();
        let accept = self.accept(place);
        accept.abandoned = true;
        let arrived = std::mem::take(&mut accept.arrived);
        if cancel.is_none() {
            self.free(place);
        }
        (cancel, arrived, waker)
    }

    /// Takes one completion. `filled` turns the number of a provided buffer, its group and a count into the buffer.
    pub(super) fn complete(
        &mut self,
        user_data: u64,
        result: i32,
        flags: u32,
        filled: impl FnOnce(u16, Room, usize) -> Buffer,
    ) -> Consequence {
        let place = Place(u32::try_from(user_data & 0xffff_ffff).expect("masked"));
        let last = !cqueue::more(flags);
        if last {
            self.in_flight -= 1;
        }
        let slot = self.slot(place);
        assert!(
            name(place, slot.generation) == user_data,
            "a completion is that of an operation that has not ended"
        );
        let mut consequence = Consequence::default();
        match &mut slot.state {
            State::Single { memory, abandoned } => {
                let memory = std::mem::replace(memory, Memory::None);
                if *abandoned {
                    consequence.dropped = Some(memory);
                    self.free(place);
                } else {
                    slot.state = State::Done { result, memory };
                    consequence.woken = slot.waker.take();
                }
            }
            State::Receive(receive) => {
                let room = receive.armed.map_or(Room::Small, |armed| armed.room);
                let heard = receive.complete(result, flags, filled);
                if receive.abandoned {
                    if last {
                        self.free(place);
                    }
                    return consequence;
                }
                if heard == Heard::Starved {
                    consequence.then = Then::Rearm(place, room);
                    return consequence;
                }
                consequence.woken = slot.waker.take();
                if heard == Heard::TooMuch {
                    consequence.then = self
                        .cancel_receive(place)
                        .map_or(Then::Nothing, Then::Cancel);
                }
            }
            State::Accept(accept) => {
                accept.complete(result, last);
                consequence.woken = slot.waker.take();
                if last && accept.abandoned {
                    self.free(place);
                }
            }
            State::Free | State::Done { .. } => {
                unreachable!("its last completion was taken already")
            }
        }
        consequence
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
}

impl Receive {
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

fn name(place: Place, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(place.0)
}
