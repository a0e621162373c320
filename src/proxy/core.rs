//! What one core owns besides its ring: its snapshot, its upstream connections, its clients, its spare memory.
//!
//! Everything here is reached through `Rc` from the tasks of one core. Never shared with another core, except the
//! [`Load`] that each core writes and all may read. Never holds a borrow across an `.await`.
//! Read next: `connection.rs`.

use std::cell::{Cell, RefCell};
use std::iter;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::channel::Sender;

use super::aliases::Aliases;
use super::budget::Budget;
use super::compress::Compressors;
use super::connection::Client;
use super::date::Date;
use super::disk::Disk;
use super::handshake::Handshakes;
use super::hashing::Hashing;
use super::ourselves::Ourselves;
use super::random::Random;
use super::session::Session;
use super::upstream::Pools;
use crate::frontend::Frontend;
use crate::limits::{DESCRIPTORS_BASE, DESCRIPTORS_PER_CORE, DESCRIPTORS_RESERVED_PART, HOT_WAIT};
use crate::mailbox::{DiskWork, MailboxSender, Report, Work};
use crate::reactor::{self, ACCEPT_BACKLOG, Buffer};
use crate::settings::{EntryPoint, Settings};
use crate::snapshot::{EntryPointId, Snapshot};
use crate::telemetry::counter::Shard;
use crate::tls;
use std::net::Shutdown;

/// Spare sessions kept for reuse by a core; more are freed.
const SESSIONS_SPARE_MAX: usize = 256;

/// A burst of fewer active connections than this is not worth settling after.
const SETTLE_PEAK_MIN: usize = 32;

/// Spare sessions and buffers a core keeps after a burst.
const SPARE_WHEN_QUIET: usize = 16;

/// How many connections a core has. Written by that core only, but for those that are on their way to it; the others look
/// when they accept.
#[derive(Debug, Default)]
pub(crate) struct Load {
    clients: AtomicUsize,
    /// Accepted, and not served yet: handed over by another core, or silent so far about who they come from.
    arriving: AtomicUsize,
    servers: AtomicUsize,
}

impl Load {
    /// Connections of clients, also those that are arriving.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed) + self.arriving.load(Ordering::Relaxed)
    }

    /// One more is arriving.
    pub(crate) fn expect(&self) {
        self.arriving.fetch_add(1, Ordering::Relaxed);
    }

    /// One has arrived, or never will.
    pub(crate) fn arrived(&self) {
        self.arriving.fetch_sub(1, Ordering::Relaxed);
    }

    fn add_client(&self, change: isize) {
        let count = self.clients.load(Ordering::Relaxed);
        let count = count.saturating_add_signed(change);
        self.clients.store(count, Ordering::Relaxed);
    }

    pub(crate) fn servers(&self) -> usize {
        self.servers.load(Ordering::Relaxed)
    }

    pub(crate) fn set_servers(&self, count: usize) {
        self.servers.store(count, Ordering::Relaxed);
    }
}

/// Another core, as a place to hand a connection to.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) mailbox: MailboxSender,
    pub(crate) load: Arc<Load>,
}

/// A snapshot in use. When the last exchange lets go of it, it goes back to control to be freed there.
pub(crate) struct Held {
    snapshot: Option<Box<Snapshot>>,
    reports: Sender<Report>,
}

impl Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        self.snapshot.as_deref().expect("taken only by drop")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(snapshot) = self.snapshot.take() {
            // Control may be gone at the very end of the process: then the snapshot is freed here.
            let _ = self.reports.send(Report::Retired(snapshot));
        }
    }
}

/// One core's possessions.
pub(crate) struct Core {
    pub(crate) index: usize,
    pub(crate) settings: Settings,
    /// The way to pages about ourselves.
    pub(crate) ourselves: Ourselves,
    pub(crate) pools: Rc<Pools>,
    /// Indexed by `EntryPointId`: connections to servers that have seen the certificates of the entry point.
    pools_shown: Vec<Option<Rc<Pools>>>,
    /// What further tries are paid from.
    pub(crate) retries: Budget,
    pub(crate) date: Date,
    pub(crate) random: Random,
    pub(crate) compressors: Compressors,
    pub(crate) handshakes: Handshakes,
    pub(crate) hashing: Hashing,
    pub(crate) disk: Rc<Disk>,
    pub(crate) aliases: Aliases,
    pub(crate) counters: Arc<Shard>,
    /// Somebody may ask what was answered.
    pub(crate) counts_answers: bool,
    pub(crate) load: Arc<Load>,
    /// Indexed by core; this core is among them.
    pub(crate) neighbours: Vec<Neighbour>,
    reports: Sender<Report>,
    snapshot: RefCell<Rc<Held>>,
    leaving: Cell<bool>,
    draining: Cell<bool>,
    /// Accept loops that have not ended.
    accepting: Cell<usize>,
    clients: RefCell<Clients>,
    activity: Activity,
    #[expect(
        clippy::vec_box,
        reason = "a session is lent and given back as a pointer, not copied"
    )]
    sessions: RefCell<Vec<Box<Session>>>,
}

/// How many connections are active, and how many were: memory of a burst is worth giving back when it is over.
#[derive(Default)]
struct Activity {
    now: Cell<usize>,
    peak: Cell<usize>,
    settling: Cell<bool>,
}

/// The open connections, each in a place it knows, so that joining and leaving cost the same however many there are.
#[derive(Default)]
struct Clients {
    places: Vec<Option<Rc<Client>>>,
    free: Vec<usize>,
}

impl Core {
    pub(crate) fn new(
        index: usize,
        mut settings: Settings,
        counters: Arc<Shard>,
        neighbours: Vec<Neighbour>,
        reports: Sender<Report>,
        work: Sender<Work>,
        disk: Sender<DiskWork>,
    ) -> Self {
        // What is counted by reference is this core's own.
        for entry_point in &mut settings.entry_points {
            entry_point.tls = entry_point.tls.as_ref().map(tls::Server::for_core);
        }
        let idle_max = settings.upstream_idle_max.div_ceil(neighbours.len().max(1));
        let load = neighbours
            .get(index)
            .map_or_else(Arc::default, |own| Arc::clone(&own.load));
        let empty = Held {
            snapshot: Some(Box::default()),
            reports: reports.clone(),
        };
        let pools = |tls: &tls::Client| {
            let (load, tls) = (Arc::clone(&load), tls.for_core());
            Rc::new(Pools::new(idle_max, load, tls, reports.clone()))
        };
        let pools_shown = settings
            .entry_points
            .iter()
            .map(|entry_point| entry_point.towards_servers.as_ref().map(pools))
            .collect();
        let random = Random::default();
        let retries = Budget::new(settings.retry_budget);
        Self {
            index,
            retries,
            counts_answers: settings.counts_answers(),
            pools: pools(&settings.upstream_tls),
            pools_shown,
            settings,
            ourselves: Ourselves::default(),
            date: Date::default(),
            compressors: Compressors::default(),
            handshakes: Handshakes::default(),
            disk: Rc::new(Disk::new(disk, neighbours[index].mailbox.clone())),
            aliases: Aliases::new(reports.clone(), neighbours[index].mailbox.clone()),
            hashing: Hashing::new(random.bytes(), work, neighbours[index].mailbox.clone()),
            random,
            counters,
            load,
            neighbours,
            reports,
            snapshot: RefCell::new(Rc::new(empty)),
            leaving: Cell::new(false),
            draining: Cell::new(false),
            accepting: Cell::new(0),
            clients: RefCell::default(),
            activity: Activity::default(),
            sessions: RefCell::default(),
        }
    }

    pub(crate) fn entry_point(&self, id: EntryPointId) -> &EntryPoint {
        &self.settings.entry_points[usize::from(id.0)]
    }

    /// The snapshot to serve by from here on. An exchange takes it once and keeps it, even across a reload.
    pub(crate) fn snapshot(&self) -> Rc<Held> {
        Rc::clone(&self.snapshot.borrow())
    }

    /// Serves by another snapshot from the next exchange on. A pointer is swapped; nothing is built or freed here.
    pub(crate) fn swap(&self, mut snapshot: Box<Snapshot>) {
        let generation = snapshot.generation;
        let retired = std::mem::take(&mut snapshot.pools_retired);
        let held = Rc::new(Held {
            snapshot: Some(snapshot),
            reports: self.reports.clone(),
        });
        drop(self.snapshot.replace(held));
        for pools in self.all_pools() {
            pools.retire(&retired);
        }
        let _ = self.reports.send(Report::Serving {
            core: self.index,
            generation,
        });
    }

    /// The process is about to stop, though everybody is still served.
    pub(crate) fn leaving(&self) -> bool {
        self.leaving.get()
    }

    pub(crate) fn leave_soon(&self) {
        self.leaving.set(true);
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.get()
    }

    /// From now on every answer says `Connection: close`, and connections that wait for a request are closed.
    pub(crate) fn drain(&self) {
        self.draining.set(true);
        for client in self.clients.borrow().places.iter().flatten() {
            if client.waiting() {
                // The pending receive ends with what has arrived, or with the end of the stream.
                client.transport.shutdown(Shutdown::Read);
            }
            client.wake();
        }
        self.report_if_drained();
    }

    /// The kernel may accept all that it holds before a core looks how many there are.
    pub(crate) fn accepts_ahead(&self) -> bool {
        let sockets = self.neighbours.len() * self.settings.entry_points.len();
        let reserve = self.settings.descriptors_max / DESCRIPTORS_RESERVED_PART;
        // No more than half of what is set aside for servers, should it come to that.
        sockets * usize::from(ACCEPT_BACKLOG) <= reserve / 2
    }

    /// Another client may be let in: enough file descriptors are left for the servers of those who are in.
    pub(crate) fn has_room(&self) -> bool {
        let max = self.settings.descriptors_max;
        let cores = self.neighbours.len();
        let own =
            DESCRIPTORS_BASE + cores * (DESCRIPTORS_PER_CORE + self.settings.entry_points.len());
        let used: usize = self
            .neighbours
            .iter()
            .map(|core| core.load.clients() + core.load.servers())
            .sum();
        used + own < max - max / DESCRIPTORS_RESERVED_PART
    }

    /// An accept loop begins.
    pub(crate) fn accepts(&self) {
        self.accepting.set(self.accepting.get() + 1);
    }

    /// An accept loop has ended: its listener is stopped and its queue is empty.
    pub(crate) fn accepts_no_more(&self) {
        self.accepting.set(self.accepting.get() - 1);
        self.report_if_drained();
    }

    /// Counts a connection in and remembers it, for `drain`.
    pub(crate) fn join(&self, client: &Rc<Client>) -> usize {
        let mut clients = self.clients.borrow_mut();
        let place = clients.free.pop().unwrap_or_else(|| {
            clients.places.push(None);
            clients.places.len() - 1
        });
        clients.places[place] = Some(Rc::clone(client));
        self.load.add_client(1);
        place
    }

    /// A connection that was on its way to this core is served, or lost.
    pub(crate) fn has_arrived(&self) {
        self.load.arrived();
        self.report_if_drained();
    }

    pub(crate) fn leave(&self, place: usize) {
        let client = {
            let mut clients = self.clients.borrow_mut();
            clients.free.push(place);
            clients.places[place].take()
        };
        drop(client);
        self.load.add_client(-1);
        self.report_if_drained();
    }

    /// Once far fewer connections are active than were: waits a moment, and gives the memory of the others back.
    fn settle_later(self: &Rc<Self>) {
        let Activity {
            now,
            peak,
            settling,
        } = &self.activity;
        if peak.get() < SETTLE_PEAK_MIN || now.get() > peak.get() / 4 || settling.replace(true) {
            return;
        }
        let core = Rc::clone(self);
        reactor::spawn(async move {
            // Long enough for the connections of the burst to have fallen quiet, and their futures to be freed.
            reactor::sleep(HOT_WAIT).await;
            let Activity {
                now,
                peak,
                settling,
            } = &core.activity;
            settling.set(false);
            if now.get() <= peak.get() / 4 {
                peak.set(now.get());
                core.sessions.borrow_mut().truncate(SPARE_WHEN_QUIET);
                Buffer::trim_pool(SPARE_WHEN_QUIET);
                reactor::release_memory();
            }
        });
    }

    /// The connections to servers that a request of this frontend may use, which came by this entry point.
    #[inline]
    pub(crate) fn pools_for(&self, frontend: &Frontend, entry_point: EntryPointId) -> &Rc<Pools> {
        if frontend.pass_tls_cert
            && let Some(Some(shown)) = self.pools_shown.get(usize::from(entry_point.0))
        {
            return shown;
        }
        &self.pools
    }

    /// Closes every kept connection: descriptors have run out, or the process ends.
    pub(crate) fn close_kept(&self) {
        self.all_pools().for_each(|pools| pools.close_all());
    }

    fn all_pools(&self) -> impl Iterator<Item = &Rc<Pools>> {
        iter::once(&self.pools).chain(self.pools_shown.iter().flatten())
    }

    fn report_if_drained(&self) {
        if self.draining() && self.accepting.get() == 0 && self.load.clients() == 0 {
            let _ = self.reports.send(Report::Drained { core: self.index });
        }
    }

    /// Memory for a connection that has something to do.
    pub(crate) fn session(&self) -> Box<Session> {
        let active = self.activity.now.get() + 1;
        self.activity.now.set(active);
        self.activity.peak.set(self.activity.peak.get().max(active));
        self.sessions.borrow_mut().pop().unwrap_or_default()
    }

    pub(crate) fn put_session(self: &Rc<Self>, mut session: Box<Session>) {
        self.activity.now.set(self.activity.now.get() - 1);
        self.settle_later();
        let mut sessions = self.sessions.borrow_mut();
        if sessions.len() < SESSIONS_SPARE_MAX {
            session.clear();
            sessions.push(session);
        }
    }
}
