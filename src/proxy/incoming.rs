//! A connection that receives before it is asked to. Why: `docs/decisions/0006-receive-ahead.md`.
//!
//! Owns [`Incoming`]. Never receives more than one buffer ahead by itself; what the driver holds comes on top of that.
//! Read next: `upstream.rs`, whose connections all do this.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::transport::Transport;
use crate::reactor::{Buffer, Room, Timer};

/// Receives ahead on one connection: a receive is under way, or a result waits to be taken. May be left alone at any time.
pub(crate) struct Incoming {
    transport: Rc<Transport>,
    room: Room,
    /// Only where receives cannot be left to themselves: on other drivers than the ring, and with TLS.
    pump: Option<Box<Pump>>,
    /// The stream has ended, or failed.
    ended: bool,
}

/// A receive that is under way while nobody waits for it.
struct Pump {
    slot: Rc<Slot>,
    /// Receives, fills the slot, waits until it is empty, and again. Ends with the stream.
    future: Pin<Box<dyn Future<Output = ()>>>,
}

struct Slot {
    arrived: RefCell<Option<io::Result<Buffer>>>,
    room: Cell<Room>,
}

impl Incoming {
    /// Nothing else may receive from `transport`.
    pub(crate) fn new(transport: Rc<Transport>) -> Self {
        Self {
            transport,
            room: Room::Small,
            pump: None,
            ended: false,
        }
    }

    /// What arrived next; empty at the end of the stream, and after an error. Pending leaves a receive under way.
    #[inline]
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        if self.pump.is_none()
            && !self.ended
            && let Some(polled) = self.transport.poll_recv(self.room, context)
        {
            if let Poll::Ready(result) = &polled {
                self.ended = result.as_ref().map_or(true, Buffer::is_empty);
            }
            return polled;
        }
        self.poll_pump(context)
    }

    #[inline(never)]
    fn poll_pump(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Buffer>> {
        if !self.ended && self.pump.is_none() {
            self.pump = Some(Box::new(Pump::new(Rc::clone(&self.transport), self.room)));
        }
        let Some(pump) = &mut self.pump else {
            return Poll::Ready(Ok(Buffer::empty()));
        };
        if let Some(result) = pump.slot.arrived.take() {
            return Poll::Ready(result);
        }
        if self.ended {
            return Poll::Ready(Ok(Buffer::empty()));
        }
        pump.slot.room.set(self.room);
        self.ended = pump.future.as_mut().poll(context).is_ready();
        match pump.slot.arrived.take() {
            Some(result) => Poll::Ready(result),
            None => Poll::Pending,
        }
    }

    /// The size of the receives to come: large once a body has shown itself to be long.
    #[inline]
    pub(crate) fn set_room(&mut self, room: Room) {
        self.room = room;
    }
}

impl Pump {
    fn new(transport: Rc<Transport>, room: Room) -> Self {
        let slot = Rc::new(Slot {
            arrived: RefCell::new(None),
            room: Cell::new(room),
        });
        let filled = Rc::clone(&slot);
        let future = Box::pin(async move {
            let unlimited = Timer::new();
            loop {
                let result = transport.recv(filled.room.get(), &unlimited).await;
                let last = result.as_ref().map_or(true, Buffer::is_empty);
                filled.arrived.replace(Some(result));
                if last {
                    return;
                }
                poll_fn(|_| {
                    if filled.arrived.borrow().is_some() {
                        Poll::Pending
                    } else {
                        Poll::Ready(())
                    }
                })
                .await;
            }
        });
        Self { slot, future }
    }
}
