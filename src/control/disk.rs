//! Threads that read and write the files of bodies that are too long for memory, so that no core does.
//!
//! Owns where those files are and that nobody finds them: they have no name, so they are gone with the process, however it
//! ends. Never decides how much may be written: see `proxy/held.rs`, whose work this is.
//! Read next: `proxy/disk.rs` (the cores' side).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;

use crossbeam::channel::Receiver;

use crate::limits::DISK_THREADS;
use crate::mailbox::{DiskJob, DiskOutcome, DiskWork, Message};

/// Starts the threads. They end when the last core is gone.
///
/// # Errors
/// A thread cannot be started.
pub fn start(work: &Receiver<DiskWork>) -> io::Result<()> {
    for number in 0..DISK_THREADS {
        let work = work.clone();
        thread::Builder::new()
            .name(format!("disk-{number}"))
            .spawn(move || work.iter().for_each(run))?;
    }
    Ok(())
}

fn run(work: DiskWork) {
    let DiskWork { job, ticket, asker } = work;
    let outcome = match job {
        DiskJob::Write { file, bytes, at } => write(file, bytes, at),
        DiskJob::Read { file, bytes, at } => read(file, bytes, at),
        // The last to let go of it gives its room back, which takes a while for a long one.
        DiskJob::Close(file) => return drop(file),
    };
    // A full mailbox, or a core that is gone: nobody waits longer than its time limit.
    let _ = asker.send(Message::Disk { ticket, outcome });
}

fn write(file: Option<Arc<File>>, bytes: Vec<u8>, at: u64) -> io::Result<DiskOutcome> {
    let file = match file {
        Some(file) => file,
        None => Arc::new(tempfile::tempfile()?),
    };
    file.write_all_at(&bytes, at)?;
    Ok(DiskOutcome { file, bytes })
}

fn read(file: Arc<File>, mut bytes: Vec<u8>, at: u64) -> io::Result<DiskOutcome> {
    file.read_exact_at(&mut bytes, at)?;
    Ok(DiskOutcome { file, bytes })
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use crossbeam::channel::bounded;

    use super::*;
    use crate::mailbox::mailbox;

    #[test]
    fn what_was_written_is_read_and_has_no_name() {
        let (sender, receiver) = bounded(4);
        start(&receiver).expect("threads");
        let (asker, mut mailbox) = mailbox().expect("a mailbox");
        let mut bell = mailbox.take_bell().expect("a bell");
        bell.set_nonblocking(false).expect("blocks");
        let mut ask = |job: DiskJob| {
            let asker = asker.clone();
            let work = DiskWork {
                job,
                ticket: 7,
                asker,
            };
            sender.send(work).expect("somebody takes it");
            bell.read_exact(&mut [0]).expect("rings");
            mailbox.silence();
            match mailbox.take() {
                Some(Message::Disk { ticket: 7, outcome }) => outcome,
                other => panic!("{other:?}"),
            }
        };
        let write = |file, bytes: &[u8], at| DiskJob::Write {
            file,
            bytes: bytes.to_vec(),
            at,
        };
        let file = ask(write(None, b"one", 0)).expect("written").file;
        ask(write(Some(Arc::clone(&file)), b"two", 3)).expect("written");
        let read = |at, count| DiskJob::Read {
            file: Arc::clone(&file),
            bytes: vec![0; count],
            at,
        };
        assert_eq!(ask(read(1, 4)).expect("read").bytes, b"netw");
        assert!(ask(read(5, 2)).is_err(), "more than there is");
        let links = file.metadata().expect("open");
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&links), 0);
    }
}
