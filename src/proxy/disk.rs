//! Files, from a core's side: work is handed to threads that may wait for a disk, and awaited.
//!
//! Owns who waits for which work. Bounded by the channel to those threads; never touches a file itself.
//! Read next: `control/disk.rs` (who does), `held.rs` (what for).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crossbeam::channel::Sender;

use crate::limits::DISK_WAIT_MAX;
use crate::mailbox::{DiskJob, DiskOutcome, DiskWork, MailboxSender};
use crate::reactor::{Timer, coarse, limit};

/// The work of one core.
pub(crate) struct Disk {
    work: Sender<DiskWork>,
    /// This core's own.
    mailbox: MailboxSender,
    tickets: Cell<u64>,
    waiting: RefCell<BTreeMap<u64, Waiting>>,
}

enum Waiting {
    /// Whom to wake, once it has waited.
    For(Option<Waker>),
    Done(io::Result<DiskOutcome>),
}

/// One who waits, and leaves if it is dropped.
struct Guest<'a> {
    disk: &'a Disk,
    ticket: u64,
}

impl Disk {
    pub(crate) fn new(work: Sender<DiskWork>, mailbox: MailboxSender) -> Self {
        Self {
            work,
            mailbox,
            tickets: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// Has `job` done.
    ///
    /// # Errors
    /// The disk's own; `WouldBlock` if too much waits already, `TimedOut` if it takes too long.
    pub(crate) async fn run(&self, job: DiskJob) -> io::Result<DiskOutcome> {
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        self.hand_over(job, ticket)?;
        self.waiting.borrow_mut().insert(ticket, Waiting::For(None));
        let guest = Guest { disk: self, ticket };
        let timer = Timer::new();
        timer.set(coarse() + DISK_WAIT_MAX);
        let mut done = poll_fn(|context| guest.poll(context));
        match limit(&timer, Pin::new(&mut done)).await {
            Some(outcome) => outcome,
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Lets go of a file. Where nobody takes it now it is closed here, which takes longer for a long one.
    pub(crate) fn close(&self, file: Arc<File>) {
        let _ = self.hand_over(DiskJob::Close(file), 0);
    }

    fn hand_over(&self, job: DiskJob, ticket: u64) -> io::Result<()> {
        let work = DiskWork {
            job,
            ticket,
            asker: self.mailbox.clone(),
        };
        self.work
            .try_send(work)
            .map_err(|_| io::ErrorKind::WouldBlock.into())
    }

    /// Some work is done. Nobody may wait for it any more.
    pub(crate) fn done(&self, ticket: u64, outcome: io::Result<DiskOutcome>) {
        let mut waiting = self.waiting.borrow_mut();
        let Some(one) = waiting.get_mut(&ticket) else {
            return;
        };
        let before = std::mem::replace(one, Waiting::Done(outcome));
        drop(waiting);
        if let Waiting::For(Some(waker)) = before {
            waker.wake();
        }
    }
}

impl Guest<'_> {
    fn poll(&self, context: &mut Context<'_>) -> Poll<io::Result<DiskOutcome>> {
        let mut waiting = self.disk.waiting.borrow_mut();
        match waiting.remove(&self.ticket) {
            Some(Waiting::Done(outcome)) => Poll::Ready(outcome),
            _ => {
                let waker = Some(context.waker().clone());
                waiting.insert(self.ticket, Waiting::For(waker));
                Poll::Pending
            }
        }
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.disk.waiting.borrow_mut().remove(&self.ticket);
    }
}
