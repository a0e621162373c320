//! The control loop: gather, throttle, merge, resolve, compile, publish; then the end.
//!
//! Owns the newest configuration of every provider and the one tokio runtime, on the main thread. Never touches a client's
//! bytes, and no core ever waits for it.
//! Read next: `throttle.rs`, then `docs/update.md` for the whole path of a change.

pub mod acme_object;
pub mod aliases;
pub mod disk;
pub mod explain;
pub mod files;
pub mod hashing;
pub mod health;
pub mod healthcheck;
pub mod leader;
pub mod lifecycle;
pub mod merge;
pub mod offline;
pub mod prove;
pub mod publish;
pub mod resolve;
pub mod storeconfig;
pub mod stores;
pub mod throttle;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::Receiver;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until};
use tracing::{debug, error, info, warn};

use crate::acme::{self, Fleet, Publication};
use crate::api::{self, View};
use crate::compile::{self, Memory, Rejection, Severity, World};
use crate::config::global::HealthCheckDefaults;
use crate::config::{Dynamic, Global, Problems};
use crate::mailbox::{MailboxSender, Report};
use crate::provider::{Board, Update, file};
use crate::settings::Settings;
use crate::telemetry::counter::Shard;
use crate::telemetry::log::Log;

use aliases::Aliases;
use files::Files;
use health::Health;
use leader::Leader;
use lifecycle::{Asked, Signals};
use merge::Merged;
use prove::{Prover, Said};
use publish::Publisher;
use resolve::Resolver;
use stores::Followed;
use throttle::{Offer, Throttle};

/// Updates of providers that may wait; a provider whose update does not fit waits itself.
const UPDATES_MAX: usize = 16;

/// How long a configuration waits for the first answer about its host names. Longer, and it is served without them.
const NAMES_WAIT: Duration = Duration::from_secs(2);

/// A core as control sees it.
#[derive(Debug)]
pub struct CoreLink {
    pub mailbox: MailboxSender,
    pub counters: Arc<Shard>,
    pub thread: JoinHandle<()>,
}

/// Everything the loop begins with.
#[derive(Debug)]
pub struct Start {
    pub global: Global,
    pub settings: Arc<Settings>,
    /// Where the static configuration was read from, if it was a file: rules may be in it too.
    pub static_file: Option<PathBuf>,
    pub cores: Vec<CoreLink>,
    pub reports: Receiver<Report>,
    pub log: Log,
}

/// How the process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked, by a signal.
    Asked,
    /// The thread of a core died: what it served is lost, so the process must be started again.
    CoreLost,
}

/// What a core said, once its snapshots are freed.
#[derive(Clone, Debug)]
pub enum Heard {
    Serving { core: usize, generation: u64 },
    Retired { generation: u64 },
    Drained { core: usize },
    Host { host: String, asker: MailboxSender },
}

/// Runs until the process is asked to stop or a core dies.
///
/// # Errors
/// The runtime, the signal handlers or a thread cannot be made.
pub fn run(start: Start) -> io::Result<Ended> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(start));
    // A name server that does not answer must not hold the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(start: Start) -> io::Result<Ended> {
    let Start {
        global,
        settings,
        static_file,
        cores,
        reports,
        log,
    } = start;
    let mut signals = Signals::new()?;
    let (asked_sender, asked) = mpsc::unbounded_channel();
    let mut heard = listen(reports, asked_sender)?;
    let (updates, mut updated) = mpsc::channel(UPDATES_MAX);
    let board = Board::default();
    let file = start_file(&global, static_file, updates.clone(), board.clone())?;
    let (followed, shared) = stores::start(&global, &updates, &board)?;
    let fleet_store = shared.as_ref().map(|opened| Arc::clone(&opened.store));
    let leader = Leader::start(&global, shared)?;
    let fleet = fleet_store.map(|store| Fleet {
        store,
        leadership: leader.leadership(),
    });
    let mut control = Control::new(&global, &settings, &cores, fleet);
    let (put_sender, mut put) = mpsc::channel(1);
    if settings.has_pages() {
        let sources = api::Sources {
            view: control.view.subscribe(),
            unread: Box::new(move || unread(&board)),
            stores: Box::new(move || followed.iter().map(Followed::shown).collect()),
            leader: leader.office().map(ask_leader),
            put: put_sender,
            prefix: compile::internal::prefix(&global),
            default_entry_points: global.default_entry_points.clone().into(),
            shards: cores
                .iter()
                .map(|core| Arc::clone(&core.counters))
                .collect(),
            recent: settings.recent_errors.clone(),
            host_name: settings.host_name.clone(),
        };
        tokio::spawn(api::run(sources, asked));
    }

    let mut turn = tokio::time::interval(lifecycle::TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watchdog = lifecycle::watchdog_interval();
    let mut watchdog_at = Instant::now();
    lifecycle::notify("READY=1");

    let ended = loop {
        let due = control.due();
        tokio::select! {
            Some(update) = updated.recv() => control.gather(update),
            Some(dynamic) = put.recv() => control.gather(Update { provider: api::REST, dynamic }),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => control.take_due(),
            is_changed = control.resolver.answer() => control.names_answered(is_changed),
            () = control.health.answer() => {}
            () = control.aliases.answer() => {}
            Some(said) = heard.recv() => control.hear(said),
            said = Prover::next(&mut control.prover) => match said {
                Said::Issued(update) => control.gather(update),
                Said::Prove(publication) => control.prove(publication),
            },
            asked = signals.next() => match asked {
                Asked::Stop => break Ended::Asked,
                Asked::ReopenLogs => log.reopen(),
                Asked::Look => file.iter().for_each(file::Handle::look),
            },
            _ = turn.tick() => {
                control.publisher.deliver();
                control.resolver.ask_again(Instant::now());
                control.look_at_files(Instant::now());
                control.health.ask_due(Instant::now());
                if let Some(dead) = cores.iter().position(|core| core.thread.is_finished()) {
                    error!("Core {dead} has died; stopping, so that the service manager starts a whole server again");
                    break Ended::CoreLost;
                }
                if let Some(interval) = watchdog && Instant::now() >= watchdog_at {
                    lifecycle::notify("WATCHDOG=1");
                    watchdog_at = Instant::now() + interval;
                }
            }
        }
    };
    // Nothing that is put from now on would be served.
    drop(put);
    // Another node may lead before the last client here is served.
    let stop = lifecycle::stop(
        cores,
        &mut control.publisher,
        &mut heard,
        &mut signals,
        &global.life_cycle,
    );
    tokio::join!(stop, leader.resign());
    info!("Shutting down");
    Ok(ended)
}

fn start_file(
    global: &Global,
    static_file: Option<PathBuf>,
    updates: mpsc::Sender<Update>,
    board: Board,
) -> io::Result<Option<file::Handle>> {
    let Some(options) = &global.file else {
        return Ok(None);
    };
    let Some(source) = file::Source::select(options, static_file.as_deref()) else {
        error!("Error using file configuration backend, no filename defined");
        return Ok(None);
    };
    info!("Starting provider file: {}", source.path().display());
    file::start(source, options, updates, board).map(Some)
}

/// Hears all cores on a thread of its own, which also frees the snapshots they give back: freeing a large one takes long
/// enough to matter to nobody here. Who asks for a page about ourselves is passed on to `asked`.
fn listen(
    reports: Receiver<Report>,
    asked: mpsc::UnboundedSender<OwnedFd>,
) -> io::Result<mpsc::UnboundedReceiver<Heard>> {
    // Holds a few words for each published snapshot.
    let (sender, heard) = mpsc::unbounded_channel();
    thread::Builder::new()
        .name("reports".to_owned())
        .spawn(move || {
            for report in reports {
                let said = match report {
                    Report::Serving { core, generation } => Heard::Serving { core, generation },
                    Report::Drained { core } => Heard::Drained { core },
                    Report::Asked(socket) => {
                        // Without a desk the socket is closed, which is seen as a server that closed.
                        let _ = asked.send(socket);
                        continue;
                    }
                    Report::Host { host, asker } => Heard::Host { host, asker },
                    Report::Retired(snapshot) => {
                        let generation = snapshot.generation;
                        drop(snapshot);
                        Heard::Retired { generation }
                    }
                };
                if sender.send(said).is_err() {
                    return;
                }
            }
        })?;
    Ok(heard)
}

/// What the loop holds between two turns.
struct Control {
    world: World,
    memory: Memory,
    /// The address of each entry point as it was written, for the log.
    addresses: Vec<String>,
    pause: Duration,
    throttles: BTreeMap<&'static str, Throttle<Arc<Dynamic>>>,
    merged: Merged,
    resolver: Resolver,
    aliases: Aliases,
    files: Files,
    health: Health,
    /// A configuration waits until this time for the addresses of its host names.
    names_until: Option<Instant>,
    publisher: Publisher,
    /// The generation with which all cores serve a new configuration, until that is logged.
    untold: Option<u64>,
    /// `None` if no certificates are ordered.
    prover: Option<Prover>,
    /// What the API shows.
    view: watch::Sender<Arc<View>>,
}

impl Control {
    fn new(
        global: &Global,
        settings: &Arc<Settings>,
        cores: &[CoreLink],
        fleet: Option<Fleet>,
    ) -> Self {
        let written = |name: &String| {
            global
                .entry_points
                .get(name)
                .map(|written| written.address.clone())
        };
        let mut world = world(global, settings, cores.len());
        let prover = global.acme.as_ref().map(|options| {
            let prover = Prover::start(options, fleet, &mut world);
            prover.prove(acme::Challenges::default(), &mut world);
            prover
        });
        Self {
            world,
            memory: Memory::default(),
            addresses: settings
                .entry_points
                .iter()
                .filter_map(|entry_point| written(&entry_point.name))
                .collect(),
            pause: global.providers_throttle_duration,
            throttles: BTreeMap::new(),
            merged: Merged::default(),
            resolver: Resolver::new(resolve::system),
            aliases: Aliases::new(&global.host_resolver.clone().unwrap_or_default()),
            files: Files::default(),
            health: Health::over_the_network(settings),
            names_until: None,
            publisher: Publisher::new(cores.iter().map(|core| core.mailbox.clone())),
            untold: None,
            prover,
            view: watch::Sender::default(),
        }
    }

    fn gather(&mut self, update: Update) {
        let pause = self.pause;
        let throttle = self
            .throttles
            .entry(update.provider)
            .or_insert_with(|| Throttle::new(pause));
        if throttle.offer(Arc::new(update.dynamic)) == Offer::Same {
            debug!(
                "Skipping same configuration for provider {}",
                update.provider
            );
        }
    }

    /// When something is to be done that no message announces.
    fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.throttles
            .values()
            .filter_map(|throttle| throttle.due(now))
            .chain(self.names_until)
            .min()
    }

    fn take_due(&mut self) {
        let now = Instant::now();
        let mut is_new = false;
        for (provider, throttle) in &mut self.throttles {
            if let Some(newest) = throttle.take(now) {
                self.merged.replace(provider, newest);
                is_new = true;
            }
        }
        if is_new {
            self.resolver.want(&compile::host_names(
                self.merged.providers(),
                &self.world.auth_servers,
            ));
            self.files.want(compile::files(
                self.merged.providers(),
                &self.world.auth_servers,
            ));
            if self.resolver.is_waiting() {
                // Without its addresses a new server would fail the first requests.
                self.names_until = Some(now + NAMES_WAIT);
                return;
            }
            self.publish(Rejections::New);
        } else if self.names_until.is_some_and(|until| until <= now) {
            warn!("Not all server host names are resolved yet, going on without them");
            self.publish(Rejections::New);
        }
    }

    fn names_answered(&mut self, is_changed: bool) {
        if self.names_until.is_some() {
            if !self.resolver.is_waiting() {
                self.publish(Rejections::New);
            }
        } else if is_changed {
            debug!("Addresses of server host names have changed");
            self.publish(Rejections::Known);
        }
    }

    fn look_at_files(&mut self, now: Instant) {
        if self.names_until.is_none() && self.files.have_changed(now) {
            info!("A file that a frontend names has changed");
            self.publish(Rejections::New);
        }
    }

    fn publish(&mut self, rejections: Rejections) {
        self.names_until = None;
        self.world.addresses = self.resolver.addresses();
        self.world.files = self.files.contents();
        let began = Instant::now();
        let compiled = compile::compile(self.merged.providers(), &self.world, &mut self.memory);
        debug!("Configuration compiled in {:?}", began.elapsed());
        if rejections == Rejections::New {
            log_rejections(&compiled.rejections);
            self.untold = Some(self.memory.generation());
        }
        self.view.send_replace(Arc::new(View {
            providers: self.merged.providers().clone(),
            rejections: compiled.rejections.iter().map(shown).collect(),
            generation: self.memory.generation(),
        }));
        self.publisher.publish(compiled.snapshots);
        self.health.want(compiled.checks, Instant::now());
        if let Some(prover) = &mut self.prover
            && rejections == Rejections::New
        {
            prover.tell_names(self.merged.providers(), &self.world);
        }
    }

    /// Serves what proves names, and says when every core does.
    fn prove(&mut self, publication: Publication) {
        let Some(prover) = &mut self.prover else {
            return;
        };
        prover.prove(publication.challenges, &mut self.world);
        self.publish(Rejections::Known);
        if let Some(prover) = &mut self.prover {
            prover.wait(self.memory.generation(), publication.served);
        }
    }

    fn hear(&mut self, said: Heard) {
        match said {
            Heard::Serving { core, generation } => {
                if let Some(generation) = self.publisher.serving(core, generation) {
                    if let Some(prover) = &mut self.prover {
                        prover.serving(generation);
                    }
                    debug!(
                        "All {} cores serve generation {generation}",
                        self.publisher.cores()
                    );
                    if self.untold.is_some_and(|untold| untold <= generation) {
                        self.untold = None;
                        for address in &self.addresses {
                            info!("Server configuration reloaded on {address}");
                        }
                    }
                }
            }
            Heard::Retired { generation } => {
                if let Some(oldest) = self.publisher.retired(generation) {
                    self.memory.settle(oldest);
                }
            }
            Heard::Host { host, asker } => self.aliases.ask(host, asker),
            Heard::Drained { .. } => {}
        }
    }
}

/// Whether what cannot be served has been told for this configuration already.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rejections {
    New,
    Known,
}

/// What compiling needs to know beside what providers say.
fn world(global: &Global, settings: &Settings, cores: usize) -> World {
    World {
        entry_points: settings
            .entry_points
            .iter()
            .map(|entry_point| entry_point.name.clone())
            .collect(),
        targets: compile::settings::targets(global),
        tls: settings
            .entry_points
            .iter()
            .map(|entry_point| entry_point.tls.clone())
            .collect(),
        default_entry_points: global.default_entry_points.clone(),
        keep_trailing_slash: global.keep_trailing_slash,
        allow_min_weight_zero: global.allow_min_weight_zero,
        auth_servers: compile::of_entry_points(global),
        addresses: BTreeMap::new(),
        files: BTreeMap::new(),
        health_interval: Some(global.health_check.interval)
            .filter(|interval| !interval.is_zero())
            .unwrap_or_else(|| HealthCheckDefaults::default().interval),
        proofs: None,
        tls_proofs: Vec::new(),
        missed: None,
        cores,
    }
}

/// As the API shows it.
fn shown(rejection: &Rejection) -> api::Rejection {
    api::Rejection {
        is_error: rejection.severity == Severity::Error,
        place: rejection.place.to_string(),
        message: rejection.message.clone(),
    }
}

/// Who leads, for the API.
fn ask_leader(office: leader::Office) -> api::AskLeader {
    Box::new(move || {
        let office = office.clone();
        Box::pin(async move {
            let leader::Standing { leads, leader } = office.standing().await;
            api::Standing { leads, leader }
        })
    })
}

/// What providers cannot use of their sources, as the API shows it.
fn unread(board: &Board) -> Vec<api::Rejection> {
    let mut all = Vec::new();
    for problems in board.told().into_values() {
        let Problems { errors, warnings } = problems;
        let errors = errors.into_iter().map(|error| (true, error));
        let warnings = warnings.into_iter().map(|warning| (false, warning));
        all.extend(
            errors
                .chain(warnings)
                .map(|(is_error, told)| api::Rejection {
                    is_error,
                    place: told.place.to_string(),
                    message: told.message,
                }),
        );
    }
    all
}

/// Logs what was left out.
pub fn log_rejections(rejections: &[Rejection]) {
    for rejection in rejections {
        match rejection.severity {
            Severity::Warning => warn!("{rejection}"),
            Severity::Error => error!("{rejection}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, SocketAddr};

    use crossbeam::channel::{Sender, unbounded};

    use super::*;
    use crate::config::entrypoint::EntryPoint;
    use crate::config::global::{FileProvider, LifeCycle};
    use crate::mailbox::{Mailbox, Message, mailbox};
    use crate::settings::{self, Timeouts, Trust};
    use crate::telemetry::log;

    /// A core that serves nobody: it answers its messages, and tells what they were.
    fn core(
        number: usize,
        reports: Sender<Report>,
        told: Sender<String>,
        ends_at: fn(&Message) -> bool,
    ) -> CoreLink {
        let (sender, mut mailbox) = mailbox().expect("a mailbox");
        let mut bell = mailbox.take_bell().expect("a bell");
        bell.set_nonblocking(false).expect("blocks");
        let thread = thread::spawn(move || {
            let mut serving: Option<Box<crate::snapshot::Snapshot>> = None;
            loop {
                bell.read_exact(&mut [0]).expect("rings");
                Mailbox::silence(&mailbox);
                while let Some(message) = mailbox.take() {
                    if ends_at(&message) {
                        return;
                    }
                    match message {
                        Message::Snapshot(snapshot) => {
                            let generation = snapshot.generation;
                            told.send(format!("{number} serves {generation}"))
                                .expect("heard");
                            reports
                                .send(Report::Serving {
                                    core: number,
                                    generation,
                                })
                                .expect("heard");
                            if let Some(older) = serving.replace(snapshot) {
                                reports.send(Report::Retired(older)).expect("heard");
                            }
                        }
                        Message::Drain => {
                            told.send(format!("{number} drains")).expect("heard");
                            reports
                                .send(Report::Drained { core: number })
                                .expect("heard");
                        }
                        Message::Leave
                        | Message::Connection { .. }
                        | Message::Alias { .. }
                        | Message::Disk { .. }
                        | Message::Done { .. } => {}
                        Message::Stop => {
                            told.send(format!("{number} stops")).expect("heard");
                            return;
                        }
                    }
                }
            }
        });
        CoreLink {
            mailbox: sender,
            counters: Arc::default(),
            thread,
        }
    }

    /// Runs control with one core over a rule file until that core ends at a message. Returns how it ended and what the
    /// core was told.
    fn run_with(ends_at: fn(&Message) -> bool) -> (Ended, Vec<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rules.toml");
        std::fs::write(
            &path,
            "[backends.b.servers.s]\nurl = \"http://127.0.0.1:1\"\n",
        )
        .expect("writes");
        let mut global = Global::default();
        global.entry_points.insert(
            "http".to_owned(),
            EntryPoint {
                address: ":80".to_owned(),
                ..Default::default()
            },
        );
        global.file = Some(FileProvider {
            filename: path.display().to_string(),
            watch: true,
            ..FileProvider::default()
        });
        global.life_cycle.request_accept_grace_timeout = Duration::ZERO;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = Settings {
            descriptors_max: 1024,
            entry_points: vec![settings::EntryPoint {
                name: "http".to_owned(),
                address,
                forwarded_headers: Trust::Everybody,
                proxy_protocol: None,
                middlewares: Box::default(),
                compress: false,
                tls: None,
                internal: None,
                towards_servers: None,
            }],
            timeouts: Timeouts {
                read: None,
                write: None,
                idle: None,
                dial: None,
                response_header: None,
            },
            upstream_idle_max: 2,
            retry_attempts: None,
            retry_budget: None,
            held: Default::default(),
            upstream_tls: Default::default(),
            flattens_hosts: false,
            host_name: "edge".to_owned(),
            recent_errors: None,
        };
        let options = log::Options {
            level: log::Level::Panic,
            format: log::Format::Common,
            file: None,
        };
        let (reports, heard) = unbounded();
        let (told, was_told) = unbounded();
        let cores = vec![core(0, reports, told, ends_at)];
        let ended = run(Start {
            global,
            settings: Arc::new(settings),
            static_file: None,
            cores,
            reports: heard,
            log: log::open(&options).expect("opens"),
        });
        (ended.expect("runs"), was_told.iter().collect())
    }

    #[test]
    fn a_core_that_dies_ends_the_process() {
        let (ended, told) =
            run_with(|message| matches!(message, Message::Drain | Message::Snapshot(_)));
        assert_eq!((ended, told), (Ended::CoreLost, vec![]));
    }

    /// Two fake cores stopped as `life_cycle` says. Returns what they were told.
    async fn stopped(life_cycle: LifeCycle, ends_at: fn(&Message) -> bool) -> Vec<String> {
        let (reports, heard) = unbounded();
        let (told, was_told) = unbounded();
        let (asked, _) = mpsc::unbounded_channel();
        let mut heard = listen(heard, asked).expect("listens");
        let cores: Vec<CoreLink> = (0..2)
            .map(|number| core(number, reports.clone(), told.clone(), ends_at))
            .collect();
        drop((reports, told));
        let mut publisher = Publisher::new(cores.iter().map(|core| core.mailbox.clone()));
        let mut signals = Signals::new().expect("installs");
        lifecycle::stop(cores, &mut publisher, &mut heard, &mut signals, &life_cycle).await;
        let mut told: Vec<String> = was_told.iter().collect();
        told.sort();
        told
    }

    #[tokio::test]
    async fn cores_drain_before_they_stop_unless_there_is_no_grace() {
        let grace = |seconds| LifeCycle {
            request_accept_grace_timeout: Duration::from_millis(10),
            grace_time_out: Duration::from_secs(seconds),
        };
        let told = stopped(grace(60), |_| false).await;
        assert_eq!(told, ["0 drains", "0 stops", "1 drains", "1 stops"]);
        let told = stopped(grace(0), |_| false).await;
        assert_eq!(told, ["0 stops", "1 stops"]);
        // A core that is gone is not waited for.
        let told = stopped(grace(60), |message| matches!(message, Message::Drain)).await;
        assert_eq!(told, Vec::<String>::new());
    }
}
