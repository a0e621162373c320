//! The channel between control and one core, and how it wakes the ring.
//!
//! A message goes into a bounded crossbeam channel and one byte into a socket pair: the core's ring waits for that byte
//! like for any other receive, so no driver needs a wake-up of its own. A byte is sent only if none is pending.
//! Never blocks either side. Read next: `proxy/mod.rs` (the core's side).

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::limits::MAILBOX_MESSAGES_MAX;
use crate::snapshot::{EntryPointId, Snapshot};

/// What a core may be told.
#[derive(Debug)]
pub enum Message {
    /// Serve by this from the next exchange on.
    Snapshot(Box<Snapshot>),
    /// A connection accepted by a more crowded core.
    Connection {
        entry_point: EntryPointId,
        socket: OwnedFd,
        peer: SocketAddr,
    },
    /// What became of a [`Work`] of this core.
    Done { ticket: u64, verdict: bool },
    /// What became of a [`DiskWork`] of this core.
    Disk {
        ticket: u64,
        outcome: io::Result<DiskOutcome>,
    },
    /// The process is about to stop: `/ping` says so from now on.
    Leave,
    /// What became of a [`Report::Host`] of this core.
    Alias {
        host: String,
        name: Option<String>,
        /// How long that may be believed.
        lifetime: Duration,
    },
    /// Close the listening sockets and idle connections; say `Connection: close` on what is under way.
    Drain,
    /// Cut what is left and return.
    Stop,
}

/// Work that would hold a core up, for a thread that has nothing else to do: a question that is answered by yes or no.
pub struct Work {
    pub question: Box<dyn FnOnce() -> bool + Send>,
    pub ticket: u64,
    /// Where the answer goes, as [`Message::Done`].
    pub asker: MailboxSender,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work {}", self.ticket)
    }
}

/// Something to do with a file, for a thread that may wait for a disk.
#[derive(Debug)]
pub struct DiskWork {
    pub job: DiskJob,
    pub ticket: u64,
    /// Where the outcome goes, as [`Message::Disk`].
    pub asker: MailboxSender,
}

#[derive(Debug)]
pub enum DiskJob {
    /// Writes all bytes at an offset, into a new file if there is none.
    Write {
        file: Option<Arc<File>>,
        bytes: Vec<u8>,
        at: u64,
    },
    /// Fills `bytes` with what is at an offset.
    Read {
        file: Arc<File>,
        bytes: Vec<u8>,
        at: u64,
    },
    /// Lets go of a file. Nobody is told.
    Close(Arc<File>),
}

/// A job that was done: its file, and its memory back.
#[derive(Debug)]
pub struct DiskOutcome {
    pub file: Arc<File>,
    pub bytes: Vec<u8>,
}

/// What a core says back.
#[derive(Debug)]
pub enum Report {
    /// The core serves by this generation; the snapshot before it comes back to be freed, once nothing uses it.
    Serving {
        core: usize,
        generation: u64,
    },
    Retired(Box<Snapshot>),
    /// What is another name of this host? Answered by [`Message::Alias`].
    Host {
        host: String,
        asker: MailboxSender,
    },
    /// After `Drain`: no connection is left.
    Drained {
        core: usize,
    },
    /// Somebody asks for a page about ourselves: the far end of a pair of sockets, on which the request comes as to any
    /// server.
    Asked(OwnedFd),
}

/// The sending end, cloned by whoever may speak to the core.
#[derive(Clone, Debug)]
pub struct MailboxSender {
    messages: Sender<Message>,
    bell: Arc<UnixStream>,
    rung: Arc<AtomicBool>,
}

/// The core's end.
#[derive(Debug)]
pub struct Mailbox {
    messages: Receiver<Message>,
    /// Becomes readable when there is something to take. Given to the reactor with `take_bell`.
    bell: Option<UnixStream>,
    rung: Arc<AtomicBool>,
}

/// A mailbox and its sender.
///
/// # Errors
/// The socket pair could not be made: out of file descriptors.
pub fn mailbox() -> io::Result<(MailboxSender, Mailbox)> {
    let (sender, receiver) = bounded(MAILBOX_MESSAGES_MAX);
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    theirs.set_nonblocking(true)?;
    let rung = Arc::new(AtomicBool::new(false));
    Ok((
        MailboxSender {
            messages: sender,
            bell: Arc::new(ours),
            rung: Arc::clone(&rung),
        },
        Mailbox {
            messages: receiver,
            bell: Some(theirs),
            rung,
        },
    ))
}

impl MailboxSender {
    /// Puts a message in and wakes the core.
    ///
    /// # Errors
    /// The message comes back if the mailbox is full or its core is gone.
    pub fn send(&self, message: Message) -> Result<(), Message> {
        self.messages
            .try_send(message)
            .map_err(crossbeam::channel::TrySendError::into_inner)?;
        if !self.rung.swap(true, Ordering::AcqRel) {
            // A full socket buffer means that bytes are pending already, which is all that is wanted.
            let _ = (&*self.bell).write(&[1]);
        }
        Ok(())
    }
}

impl Mailbox {
    /// The socket that becomes readable when messages arrive.
    pub fn take_bell(&mut self) -> Option<UnixStream> {
        self.bell.take()
    }

    /// The next message. Call until `None` after the bell was read, and `silence` before the first call.
    pub fn take(&self) -> Option<Message> {
        self.messages.try_recv().ok()
    }

    /// Lets senders ring again. Must come before taking messages, or one sent in between would not be heard.
    pub fn silence(&self) {
        self.rung.store(false, Ordering::Release);
    }
}
