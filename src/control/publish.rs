//! Snapshots, each copy into the mailbox of its core.
//!
//! Owns what could not be delivered yet, which generation each core serves, and how many snapshots of each generation
//! are still in use.
//! Never waits: a full mailbox is tried again at the next turn of the loop, and a newer snapshot takes the place of one
//! that still waits. Read next: `proxy/mod.rs` (the receiving side).

use std::collections::{BTreeMap, VecDeque};

use crate::mailbox::{MailboxSender, Message};
use crate::snapshot::Snapshot;

/// Delivers to all cores.
#[derive(Debug)]
pub struct Publisher {
    cores: Vec<Outbox>,
    /// Snapshots in use by a core or on their way, by generation.
    in_use: BTreeMap<u64, usize>,
    /// The newest generation known to be served by every core.
    agreed: u64,
}

#[derive(Debug)]
struct Outbox {
    mailbox: MailboxSender,
    /// In order. At most one snapshot and the orders of a stop.
    waiting: VecDeque<Message>,
    serving: u64,
}

impl Publisher {
    pub fn new(mailboxes: impl IntoIterator<Item = MailboxSender>) -> Self {
        let cores = mailboxes
            .into_iter()
            .map(|mailbox| Outbox {
                mailbox,
                waiting: VecDeque::new(),
                serving: 0,
            })
            .collect();
        Self {
            cores,
            in_use: BTreeMap::new(),
            agreed: 0,
        }
    }

    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Sends the snapshots of one generation, one to each core.
    pub fn publish(&mut self, snapshots: impl IntoIterator<Item = Snapshot>) {
        let mut overtaken = Vec::new();
        for (core, snapshot) in self.cores.iter_mut().zip(snapshots) {
            *self.in_use.entry(snapshot.generation).or_default() += 1;
            overtaken.extend(core.put_snapshot(Box::new(snapshot)));
            core.deliver();
        }
        for generation in overtaken {
            self.retired(generation);
        }
    }

    /// A snapshot of this generation is not used any more. The oldest generation that still is, `None` if none.
    pub fn retired(&mut self, generation: u64) -> Option<u64> {
        if let Some(count) = self.in_use.get_mut(&generation) {
            *count -= 1;
            if *count == 0 {
                self.in_use.remove(&generation);
            }
        }
        self.in_use.keys().next().copied()
    }

    /// Tells every core that the process is about to stop.
    pub fn leave(&mut self) {
        self.tell(|| Message::Leave);
    }

    /// Tells every core to drain: close listening sockets, end what is idle, finish what is under way.
    pub fn drain(&mut self) {
        self.tell(|| Message::Drain);
    }

    /// Tells every core to cut what is left and return.
    pub fn stop(&mut self) {
        self.tell(|| Message::Stop);
    }

    fn tell(&mut self, message: fn() -> Message) {
        for core in &mut self.cores {
            core.waiting.push_back(message());
            core.deliver();
        }
    }

    /// Tries again what a full mailbox refused.
    pub fn deliver(&mut self) {
        for core in &mut self.cores {
            core.deliver();
        }
    }

    /// A core has said what it serves. The generation, if every core serves it now and did not before.
    pub fn serving(&mut self, core: usize, generation: u64) -> Option<u64> {
        let outbox = self.cores.get_mut(core)?;
        debug_assert!(generation >= outbox.serving, "a generation never goes back");
        outbox.serving = generation;
        let agreed = self.cores.iter().map(|core| core.serving).min()?;
        (agreed > self.agreed).then(|| {
            self.agreed = agreed;
            agreed
        })
    }
}

impl Outbox {
    /// The generation of a snapshot that the core will never see, because this one takes its place.
    fn put_snapshot(&mut self, mut newest: Box<Snapshot>) -> Option<u64> {
        if let Some(Message::Snapshot(older)) = self.waiting.back_mut() {
            // What the older one retired is retired by this one.
            newest.pools_retired.append(&mut older.pools_retired);
            let generation = older.generation;
            *older = newest;
            return Some(generation);
        }
        self.waiting.push_back(Message::Snapshot(newest));
        None
    }

    fn deliver(&mut self) {
        while let Some(message) = self.waiting.pop_front() {
            if let Err(message) = self.mailbox.send(message) {
                self.waiting.push_front(message);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAILBOX_MESSAGES_MAX;
    use crate::mailbox::mailbox;
    use crate::snapshot::PoolKey;

    fn snapshot(generation: u64) -> Snapshot {
        let retired = u32::try_from(generation).expect("small");
        Snapshot {
            generation,
            pools_retired: vec![PoolKey(retired)],
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_generation_is_agreed_when_the_last_core_serves_it() {
        let (first, _first) = mailbox().expect("a mailbox");
        let (second, second_end) = mailbox().expect("a mailbox");
        let mut publisher = Publisher::new([first, second]);
        publisher.publish([snapshot(1), snapshot(1)]);
        publisher.publish([snapshot(2), snapshot(2)]);
        assert!(
            matches!(second_end.take(), Some(Message::Snapshot(snapshot)) if snapshot.generation == 1)
        );
        assert_eq!(publisher.serving(0, 1), None);
        assert_eq!(publisher.serving(0, 2), None);
        assert_eq!(publisher.serving(1, 1), Some(1));
        assert_eq!(publisher.serving(1, 2), Some(2));
        assert_eq!(publisher.serving(1, 2), None);
        assert_eq!(publisher.serving(7, 2), None);
        assert_eq!(publisher.retired(0), Some(1));
        assert_eq!(publisher.retired(1), Some(1));
        assert_eq!(publisher.retired(1), Some(2));
    }

    #[test]
    fn a_full_mailbox_gets_the_newest_later_and_nothing_retired_is_lost() {
        let (sender, end) = mailbox().expect("a mailbox");
        for _ in 0..MAILBOX_MESSAGES_MAX {
            sender.send(Message::Drain).expect("there is room");
        }
        let mut publisher = Publisher::new([sender]);
        publisher.publish([snapshot(1)]);
        publisher.publish([snapshot(2)]);
        assert_eq!(
            publisher.retired(0),
            Some(2),
            "the first was never sent, so it is not in use"
        );
        publisher.stop();
        publisher.deliver();
        for _ in 0..MAILBOX_MESSAGES_MAX {
            assert!(matches!(end.take(), Some(Message::Drain)));
        }
        assert!(end.take().is_none());
        publisher.deliver();
        let Some(Message::Snapshot(snapshot)) = end.take() else {
            panic!("a snapshot was to come")
        };
        assert_eq!(snapshot.generation, 2);
        assert_eq!(snapshot.pools_retired, [PoolKey(2), PoolKey(1)]);
        assert!(matches!(end.take(), Some(Message::Stop)));
        assert!(end.take().is_none());
    }
}
