//! The life of an exchange: joins `reactor`, `http`, `frontend` and `backend`.
//!
//! Owns the cores: [`launch`] starts one thread per core, which owns its ring, its sockets and its snapshot.
//! Never sees `config`, never locks, never touches a file.
//! Read next: `exchange.rs`, the story of one request.

mod account;
mod aliases;
mod answer;
mod asking;
mod attempt;
mod auth_server;
mod body;
mod budget;
mod compress;
mod connection;
mod core;
mod date;
mod disk;
mod exchange;
mod failure;
mod forward;
mod guard;
mod handshake;
mod hashing;
mod held;
mod incoming;
mod link;
mod listen;
mod ourselves;
mod own;
mod page;
mod pipe;
mod proxied;
mod random;
mod reply;
mod session;
mod shared;
#[cfg(test)]
mod simulation;
mod stream;
mod streams;
mod transport;
mod tunnel;
mod upstream;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use self::core::{Core as CoreState, Neighbour};
use crate::limits::{DISK_JOBS_MAX, HASHES_WAITING_MAX};
use crate::mailbox::{DiskWork, Mailbox, MailboxSender, Message, Report, Work, mailbox};
use crate::reactor::{self, Driver, Listener, Room, Socket, Timer};
use crate::settings::Settings;
use crate::snapshot::EntryPointId;
use crate::telemetry::counter::Shard;

/// A core that runs.
#[derive(Debug)]
pub struct Core {
    pub mailbox: MailboxSender,
    pub counters: Arc<Shard>,
    pub thread: JoinHandle<()>,
}

/// The cores of the process and the addresses they listen on.
#[derive(Debug)]
pub struct Launched {
    pub cores: Vec<Core>,
    /// Indexed by `EntryPointId`: the real address, also where port 0 was asked for.
    pub addresses: Vec<SocketAddr>,
    /// What cores want done elsewhere. Without anybody to take it they answer as if there were too much of it.
    pub work: Receiver<Work>,
    /// What cores want done with files; without anybody to take it, as above.
    pub disk: Receiver<DiskWork>,
}

/// Why the cores could not be started.
#[derive(Debug)]
pub enum LaunchError {
    /// An entry point's address cannot be listened on.
    Bind {
        entry_point: String,
        address: SocketAddr,
        error: io::Error,
    },
    /// A core has no ring, no mailbox or no thread.
    Core { core: usize, error: io::Error },
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind {
                entry_point,
                address,
                error,
            } => {
                write!(
                    f,
                    "error opening listener: entry point {entry_point}: {address}: {error}"
                )
            }
            Self::Core { core, error } => write!(f, "core {core} cannot start: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// What one core's thread is started with.
struct Start {
    index: usize,
    settings: Settings,
    listeners: Vec<TcpListener>,
    mailbox: Mailbox,
    neighbours: Vec<Neighbour>,
    counters: Arc<Shard>,
    reports: Sender<Report>,
    work: Sender<Work>,
    disk: Sender<DiskWork>,
}

/// Binds every entry point on every core, then starts the cores. Each begins with the empty snapshot: 404 for all.
///
/// `cpus` names the processor of each core; `pin` ties its thread to it.
///
/// # Errors
/// An address that cannot be bound, or a ring that cannot be made. Cores that had started are stopped.
pub fn launch(
    settings: &Settings,
    cpus: &[usize],
    pin: bool,
    driver: Driver,
    reports: &Sender<Report>,
) -> Result<Launched, LaunchError> {
    let mut listeners: Vec<Vec<TcpListener>> = cpus.iter().map(|_| Vec::new()).collect();
    let mut addresses = Vec::new();
    for entry_point in &settings.entry_points {
        let address = entry_point.address;
        let failed = |error| LaunchError::Bind {
            entry_point: entry_point.name.clone(),
            address,
            error,
        };
        let bound = reactor::bind(address, cpus).map_err(failed)?;
        addresses.push(
            bound
                .first()
                .map_or(Ok(address), TcpListener::local_addr)
                .map_err(failed)?,
        );
        for (own, listener) in listeners.iter_mut().zip(bound) {
            own.push(listener);
        }
    }
    let mut mailboxes = Vec::new();
    let mut neighbours = Vec::new();
    for core in 0..cpus.len() {
        let (sender, receiver) = mailbox().map_err(|error| LaunchError::Core { core, error })?;
        neighbours.push(Neighbour {
            mailbox: sender,
            load: Arc::default(),
        });
        mailboxes.push(receiver);
    }
    let (work, queue) = bounded(HASHES_WAITING_MAX);
    let (disk, disk_queue) = bounded(DISK_JOBS_MAX);
    let mut cores: Vec<Core> = Vec::new();
    for (index, (mailbox, listeners)) in mailboxes.into_iter().zip(listeners).enumerate() {
        let counters = Arc::<Shard>::default();
        let start = Start {
            index,
            settings: settings.clone(),
            listeners,
            mailbox,
            neighbours: neighbours.clone(),
            counters: Arc::clone(&counters),
            reports: reports.clone(),
            work: work.clone(),
            disk: disk.clone(),
        };
        let cpu = if pin { cpus.get(index).copied() } else { None };
        match start_thread(start, driver, cpu) {
            Ok(thread) => cores.push(Core {
                mailbox: neighbours[index].mailbox.clone(),
                counters,
                thread,
            }),
            Err(error) => {
                for core in cores {
                    let _ = core.mailbox.send(Message::Stop);
                    let _ = core.thread.join();
                }
                return Err(LaunchError::Core { core: index, error });
            }
        }
    }
    Ok(Launched {
        cores,
        addresses,
        work: queue,
        disk: disk_queue,
    })
}

/// Starts the thread and waits until its ring is there, or is not.
fn start_thread(start: Start, driver: Driver, cpu: Option<usize>) -> io::Result<JoinHandle<()>> {
    let (ready, wait) = bounded::<io::Result<()>>(1);
    let index = start.index;
    let thread = std::thread::Builder::new()
        .name(format!("core-{index}"))
        .spawn(move || {
            let told = ready.clone();
            let ran = reactor::run(driver, cpu, move || async move {
                match begin(start) {
                    Ok((core, mailbox, bell, listeners)) => {
                        let _ = ready.send(Ok(()));
                        attend(&core, &mailbox, &bell, listeners).await;
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            });
            if let Err(error) = ran {
                let _ = told.send(Err(error));
            }
        })?;
    match wait.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("its thread ended at once")),
    }
}

type Begun = (Rc<CoreState>, Mailbox, Socket, Vec<Rc<Listener>>);

/// Takes possession, on the core's own thread: its state, its listening sockets.
fn begin(start: Start) -> io::Result<Begun> {
    let Start {
        index,
        settings,
        listeners,
        mut mailbox,
        neighbours,
        counters,
        reports,
        work,
        disk,
    } = start;
    let bell = mailbox
        .take_bell()
        .ok_or_else(|| io::Error::other("its mailbox has no bell"))?;
    let bell = Socket::from_fd(bell.into())?;
    let core = Rc::new(CoreState::new(
        index, settings, counters, neighbours, reports, work, disk,
    ));
    let mut accepting = Vec::new();
    for (id, listener) in listeners.into_iter().enumerate() {
        let listener = Rc::new(Listener::from_std(listener, core.accepts_ahead())?);
        let id = EntryPointId(u16::try_from(id).map_err(io::Error::other)?);
        reactor::spawn(listen::accept(Rc::clone(&core), Rc::clone(&listener), id));
        accepting.push(listener);
    }
    Ok((core, mailbox, bell, accepting))
}

/// Does what the mailbox says until it says stop.
async fn attend(
    core: &Rc<CoreState>,
    mailbox: &Mailbox,
    bell: &Socket,
    mut listeners: Vec<Rc<Listener>>,
) {
    let unlimited = Timer::new();
    loop {
        mailbox.silence();
        while let Some(message) = mailbox.take() {
            match message {
                Message::Snapshot(snapshot) => core.swap(snapshot),
                Message::Connection {
                    entry_point,
                    socket,
                    peer,
                } => match Socket::from_fd(socket) {
                    Ok(socket) => {
                        listen::begin(core, socket, peer, entry_point);
                        core.has_arrived();
                    }
                    Err(error) => {
                        core.has_arrived();
                        tracing::debug!(
                            "core {}: a connection handed over was lost: {error}",
                            core.index
                        );
                    }
                },
                Message::Disk { ticket, outcome } => core.disk.done(ticket, outcome),
                Message::Done { ticket, verdict } => core.hashing.done(ticket, verdict),
                Message::Leave => core.leave_soon(),
                Message::Alias {
                    host,
                    name,
                    lifetime,
                } => core.aliases.told(host, name, lifetime),
                Message::Drain => {
                    // Closed when its accept loop has emptied the queue and lets go of it too.
                    for listener in listeners.drain(..) {
                        listener.stop();
                    }
                    core.drain();
                }
                Message::Stop => return,
            }
        }
        match bell.recv(Room::Small, &unlimited).await {
            Ok(bytes) if !bytes.is_empty() => {}
            // Every sender is gone: so is the process.
            Ok(_) | Err(_) => return,
        }
    }
}
