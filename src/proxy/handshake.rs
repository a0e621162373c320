//! The beginning of a connection with TLS: the handshake, its time limit, and how many may be under way.
//!
//! Owns the places for handshakes on one core. Who finds them taken waits in line, holding nothing but its socket.
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

/// Handshakes under way on one core, and who waits to begin one.
#[derive(Default)]
pub(crate) struct Handshakes {
    under_way: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// One handshake under way.
struct Place<'a>(&'a Handshakes);

impl Handshakes {
    async fn begin(&self) -> Place<'_> {
        poll_fn(|cx| {
            if self.under_way.get() < HANDSHAKES_MAX {
                self.under_way.set(self.under_way.get() + 1);
                Poll::Ready(Place(self))
            } else {
                self.waiting.borrow_mut().push_back(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        let next = self.0.waiting.borrow_mut().pop_front();
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
    let place = core.handshakes.begin().await;
    client.timer.set(coarse() + HANDSHAKE_TIMEOUT);
    let shaken = sealed.handshake(received, &client.timer).await;
    drop(place);
    let refused = match shaken {
        Ok(()) => return true,
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
