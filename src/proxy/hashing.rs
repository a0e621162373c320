//! Passwords that wait to be held against hashes, on behalf of one core.
//!
//! Owns what this core remembers of them ([`Verdicts`]) and who waits for which: requests with the same name and password
//! wait for one hash. Bounded twice: by the channel to the hashing threads, and for each client's address, so that one
//! client cannot fill it. Never computes a hash.
//! Read next: `control/hashing.rs` (who does).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crossbeam::channel::Sender;

use crate::frontend::middleware::auth::basic::Question;
use crate::frontend::middleware::auth::verdicts::{Key, Verdicts};
use crate::limits::{HASH_WAIT_MAX, HASHES_PER_CLIENT_MAX};
use crate::mailbox::{MailboxSender, Work};
use crate::reactor::{Instant, Timer, coarse, limit};

/// Why a password is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The client has too many others under way.
    Client,
    /// Everybody has.
    Everybody,
}

/// The passwords of one core.
pub(crate) struct Hashing {
    pub(crate) verdicts: RefCell<Verdicts>,
    /// Under way. As many as the channel holds and the threads have taken, so a walk is short.
    waiting: RefCell<Vec<Waiting>>,
    tickets: Cell<u64>,
    work: Sender<Work>,
    /// This core's own.
    mailbox: MailboxSender,
}

struct Waiting {
    ticket: u64,
    key: Key,
    client: IpAddr,
    asked: Instant,
    verdict: Option<bool>,
    /// Those who wait for it; the entry goes with the last.
    guests: usize,
    wakers: Vec<Waker>,
}

/// Somebody who waits, and leaves if it is dropped.
struct Guest<'a> {
    hashing: &'a Hashing,
    ticket: u64,
}

impl Hashing {
    pub(crate) fn new(salt: [u8; 16], work: Sender<Work>, mailbox: MailboxSender) -> Self {
        Self {
            verdicts: RefCell::new(Verdicts::new(salt)),
            waiting: RefCell::default(),
            tickets: Cell::new(0),
            work,
            mailbox,
        }
    }

    /// Has the question of a client answered.
    ///
    /// # Errors
    /// Too much waits already, or the answer has not come in time.
    pub(crate) async fn ask(&self, question: Question, client: IpAddr) -> Result<bool, Busy> {
        let ticket = self.enter(question, client)?;
        let guest = Guest {
            hashing: self,
            ticket,
        };
        let timer = Timer::new();
        timer.set(coarse() + HASH_WAIT_MAX);
        let mut answer = poll_fn(|context| guest.poll(context));
        limit(&timer, Pin::new(&mut answer))
            .await
            .ok_or(Busy::Everybody)
    }

    /// Joins who waits for the same, or puts the question into the channel.
    fn enter(&self, question: Question, client: IpAddr) -> Result<u64, Busy> {
        let mut waiting = self.waiting.borrow_mut();
        if let Some(twin) = waiting.iter_mut().find(|one| one.key == question.key) {
            twin.guests += 1;
            return Ok(twin.ticket);
        }
        // An answer that does not come at all must not count for ever.
        let at = coarse();
        waiting.retain(|one| one.guests > 0 || at.since(one.asked) < 2 * HASH_WAIT_MAX);
        let of_client = waiting.iter().filter(|one| one.client == client).count();
        if of_client >= HASHES_PER_CLIENT_MAX {
            return Err(Busy::Client);
        }
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        let key = question.key;
        let work = Work {
            question: Box::new(move || question.answer()),
            ticket,
            asker: self.mailbox.clone(),
        };
        self.work.try_send(work).map_err(|_| Busy::Everybody)?;
        waiting.push(Waiting {
            ticket,
            key,
            client,
            asked: at,
            verdict: None,
            guests: 1,
            wakers: Vec::new(),
        });
        Ok(ticket)
    }

    /// An answer has come. It is remembered also if nobody waits for it any more.
    pub(crate) fn done(&self, ticket: u64, verdict: bool) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(one) = waiting.iter_mut().find(|one| one.ticket == ticket) else {
            return;
        };
        self.verdicts.borrow_mut().remember(one.key, verdict);
        one.verdict = Some(verdict);
        let wakers = std::mem::take(&mut one.wakers);
        waiting.retain(|one| one.guests > 0 || one.verdict.is_none());
        drop(waiting);
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Guest<'_> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<bool> {
        let mut waiting = self.hashing.waiting.borrow_mut();
        let one = waiting
            .iter_mut()
            .find(|one| one.ticket == self.ticket)
            .expect("an entry stays while it has guests");
        match one.verdict {
            Some(verdict) => Poll::Ready(verdict),
            None => {
                if !one
                    .wakers
                    .iter()
                    .any(|waker| waker.will_wake(context.waker()))
                {
                    one.wakers.push(context.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut waiting = self.hashing.waiting.borrow_mut();
        let Some(one) = waiting.iter_mut().find(|one| one.ticket == self.ticket) else {
            return;
        };
        one.guests -= 1;
        // Without an answer it still counts for its client, whose work is not done.
        if one.guests == 0 && one.verdict.is_some() {
            waiting.retain(|one| one.ticket != self.ticket);
        }
    }
}
