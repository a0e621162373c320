//! The beginning of a connection with TLS: the handshake, its time limit, and how many may be under way.
//!
//! Owns the places for handshakes on one core, and the turns at computing them: a key exchange and a signature take as long
//! as a dozen requests, so one of them is computed in each turn of the core, however many clients come at once. Who finds
//! the places taken waits in line, holding nothing but its socket.
//! Never looks at what is said after the handshake. Read next: `transport.rs`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::connection::{self, Client};
use super::core::Core;
use super::reply;
use super::transport::{Refused, Sealed};
use crate::limits::{HANDSHAKE_TIMEOUT, HANDSHAKES_MAX};
use crate::reactor::{Buffer, coarse};

/// Handshakes under way on one core, and who waits to go on with one.
pub(crate) struct Handshakes {
    places: Turnstile,
    turns: Turnstile,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self {
            places: Turnstile::new(HANDSHAKES_MAX),
            turns: Turnstile::new(1),
        }
    }
}

/// Lets so many through at a time; the others follow in the order in which they came.
pub(super) struct Turnstile {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
    /// Passages that were given to those that waited longest, and that they have not taken note of.
    given: Cell<usize>,
}

/// Somebody who is through, until dropped.
pub(super) struct Passage<'a>(&'a Turnstile);

impl Turnstile {
    fn new(free: usize) -> Self {
        Self {
            free: Cell::new(free),
            waiting: RefCell::default(),
            given: Cell::new(0),
        }
    }

    pub(super) async fn pass(&self) -> Passage<'_> {
        let mut in_line = false;
        poll_fn(|cx| {
            let from = if in_line { &self.given } else { &self.free };
            if let Some(left) = from.get().checked_sub(1) {
                from.set(left);
                return Poll::Ready(Passage(self));
            }
            if !in_line {
                in_line = true;
                self.waiting.borrow_mut().push_back(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let next = self.0.waiting.borrow_mut().pop_front();
        let to = if next.is_some() {
            &self.0.given
        } else {
            &self.0.free
        };
        to.set(to.get() + 1);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Shakes hands with a new client, of whom `received` came already. False if the connection is of no use.
pub(crate) async fn run(
    core: &Rc<Core>,
    client: &Client,
    sealed: &Sealed,
    received: Buffer,
) -> bool {
    let place = core.handshakes.places.pass().await;
    client.timer.set(coarse() + HANDSHAKE_TIMEOUT);
    let shaken = sealed
        .handshake(received, &core.handshakes.turns, &client.timer)
        .await;
    drop(place);
    let refused = match shaken {
        Ok(()) if sealed.was_proof() => {
            sealed.close().await;
            return false;
        }
        Ok(()) => {
            client.shows(sealed.peer_chain());
            return true;
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::Io(error) => {
            tracing::debug!("no TLS handshake with {}: {error}", client.address);
        }
        Refused::Tls(error) => {
            core.counters.failures_client.add(1);
            tracing::debug!("TLS handshake with {} failed: {error}", client.address);
            connection::linger(client).await;
        }
        Refused::PlainHttp => {
            core.counters.failures_client.add(1);
            tracing::debug!("{} speaks HTTP without TLS", client.address);
            connection::refuse_plain(core, client, sealed, reply::NOT_TLS).await;
        }
    }
    false
}
