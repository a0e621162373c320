//! Threads that hold passwords against hashes, so that no core does.
//!
//! Owns a few threads that take work of all cores in its order and answer by mailbox. They run at the lowest priority:
//! whoever sends wrong passwords slows others' first logins down, and nothing else. Never holds more work than its channel:
//! a core whose work does not fit tells its client so.
//! Read next: `proxy/hashing.rs` (the cores' side).

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crossbeam::channel::Receiver;
use tracing::{error, warn};

use crate::limits::HASHING_THREADS_MAX;
use crate::mailbox::{Message, Work};

/// One thread for so many processors: at the lowest priority they take what the cores leave.
const PROCESSORS_PER_THREAD: usize = 4;

/// Starts the threads, for a machine with so many processors. `yield_to_others` gives the thread that calls it the lowest
/// priority. They end when the last core is gone.
///
/// # Errors
/// A thread cannot be started.
pub fn start(
    work: &Receiver<Work>,
    processors: usize,
    yield_to_others: fn() -> io::Result<()>,
) -> io::Result<()> {
    let count = (processors / PROCESSORS_PER_THREAD).clamp(1, HASHING_THREADS_MAX);
    for number in 0..count {
        let work = work.clone();
        thread::Builder::new()
            .name(format!("hashing-{number}"))
            .spawn(move || {
                if let Err(error) = yield_to_others() {
                    warn!("A hashing thread has the priority of the cores: {error}");
                }
                work.iter().for_each(run);
            })?;
    }
    Ok(())
}

fn run(work: Work) {
    let Work {
        question,
        ticket,
        asker,
    } = work;
    let verdict = catch_unwind(AssertUnwindSafe(question)).unwrap_or_else(|_| {
        error!("A password could not be checked: the hashing panicked");
        false
    });
    // A full mailbox, or a core that is gone: nobody waits longer than its time limit.
    let _ = asker.send(Message::Done { ticket, verdict });
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use crossbeam::channel::bounded;

    use super::*;
    use crate::mailbox::mailbox;

    #[test]
    fn every_question_is_answered_also_after_a_panic() {
        let (sender, receiver) = bounded(4);
        start(&receiver, 1, || Ok(())).expect("a thread");
        let (asker, mut mailbox) = mailbox().expect("a mailbox");
        let questions: [(u64, fn() -> bool); 3] =
            [(1, || true), (2, || panic!("on purpose")), (3, || true)];
        for (ticket, question) in questions {
            let work = Work {
                question: Box::new(question),
                ticket,
                asker: asker.clone(),
            };
            sender.send(work).expect("somebody takes it");
        }
        let mut bell = mailbox.take_bell().expect("a bell");
        bell.set_nonblocking(false).expect("blocks");
        let mut answers = Vec::new();
        while answers.len() < 3 {
            bell.read_exact(&mut [0]).expect("rings");
            mailbox.silence();
            while let Some(message) = mailbox.take() {
                match message {
                    Message::Done { ticket, verdict } => answers.push((ticket, verdict)),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(answers, [(1, true), (2, false), (3, true)]);
    }
}
