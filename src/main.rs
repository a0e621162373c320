//! Start: read the configuration, choose the cores and what drives them, launch them, and hand over to control.
//!
//! Owns the order of the start and the exit code: 0 after a stop that was asked for, 1 for anything else.
//! Read next: `control/mod.rs` (what runs from then on), `proxy/mod.rs` (what the cores do).

mod demo;

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use coreway::compile::settings::{self, Machine};
use coreway::config::{self, Command, Global, LoadError, Loaded, Question, StoreConfig};
use coreway::control::{self, CoreLink, Ended, Start, offline};
use coreway::proxy;
use coreway::reactor::{self, Choice, Driver};
use coreway::telemetry::collect::collect;
use coreway::telemetry::log::{self, Log};
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::{error, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let loaded = match load(&arguments) {
        Ok(loaded) => loaded,
        Err(LoadError::Effective(error))
            if error.path == "ping.entryPoint" && is_healthcheck(&arguments) =>
        {
            print(&format!("{}\n", control::healthcheck::NO_ENTRY_POINT));
            return ExitCode::FAILURE;
        }
        Err(error) => {
            print(&error.standard_output().unwrap_or_default());
            return complain(&error);
        }
    };
    match &loaded.command {
        Command::Run => match with_store(loaded) {
            Ok(loaded) => serve(loaded, |_| ()),
            Err(error) => complain(&error),
        },
        Command::Help(text) => print(text),
        Command::Version => print(&config::version::text()),
        Command::Demo => demo::run(&arguments[1..]),
        Command::HealthCheck => match control::healthcheck::run(&loaded.global, &machine()) {
            Ok(line) => print(&format!("{line}\n")),
            Err(line) => {
                print(&format!("{line}\n"));
                ExitCode::FAILURE
            }
        },
        Command::Check => check(loaded.clone()),
        Command::Explain(question) => explain(loaded.clone(), question),
        Command::Completion(shell) => print(&config::completion::script(*shell)),
        Command::Man => print(&config::man::page()),
        Command::StoreConfig(mode) => store_config(&loaded, *mode),
        Command::Bug => print(&config::bug::text(&loaded)),
    }
}

fn load(arguments: &[OsString]) -> Result<Loaded, LoadError> {
    config::load(arguments, &|name| std::env::var(name).ok())
}

fn is_healthcheck(arguments: &[OsString]) -> bool {
    let word = arguments.first().and_then(|word| word.to_str());
    word.is_some_and(|word| word.eq_ignore_ascii_case("healthcheck"))
}

/// Says everything that a server would warn of. Exit code 1 if something is left out.
fn check(loaded: Loaded) -> ExitCode {
    let (offline, lines) = collect(|| offline::load(loaded, &machine()));
    let mut text = String::new();
    for line in &lines {
        let severity = if line.is_error { "error" } else { "warning" };
        text += &format!("{severity}: {}\n", line.text);
    }
    let errors = lines.iter().filter(|line| line.is_error).count();
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    let found = format!(
        "{}, {}",
        counted(errors, "error"),
        counted(lines.len() - errors, "warning")
    );
    let is_served = offline.is_some();
    text += &match offline {
        Some(offline) => {
            let providers = offline.providers.values();
            let written: usize = providers.map(|one| one.frontends.len()).sum();
            let served = offline.compiled.snapshots.first();
            let served = served.map_or(0, |snapshot| snapshot.frontends.len());
            format!(
                "{served} of {} would be served: {found}\n",
                counted(written, "frontend")
            )
        }
        None => format!("No server could be started: {found}\n"),
    };
    print(&text);
    if is_served && errors == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Says what would become of a request.
fn explain(loaded: Loaded, question: &Question) -> ExitCode {
    let (offline, lines) = collect(|| offline::load(loaded, &machine()));
    let Some(offline) = offline else {
        for line in lines.iter().filter(|line| line.is_error) {
            complain(&line.text);
        }
        return ExitCode::FAILURE;
    };
    match control::explain::run(&offline, question) {
        Ok(text) => print(&text),
        Err(problem) => complain(&format!("Error using command explain: {problem}")),
    }
}

fn store_config(loaded: &Loaded, mode: StoreConfig) -> ExitCode {
    struct Terminal;
    impl control::storeconfig::Voice for Terminal {
        fn say(&mut self, line: &str) {
            complain(&line);
        }

        fn print(&mut self, line: &str) {
            print(&format!("{line}\n"));
        }
    }
    for diagnostic in &loaded.diagnostics {
        complain(diagnostic);
    }
    match control::storeconfig::run(loaded, mode, &mut Terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => complain(&failure),
    }
}

/// Static options of a store go over those of file and flags. What is said meanwhile goes to a log of its own, since the
/// store may hold the options of the log, too.
fn with_store(loaded: Loaded) -> io::Result<Loaded> {
    control::leader::check(&loaded.global)?;
    if !loaded.global.has_store() {
        return Ok(loaded);
    }
    let log = log::open(&log_options(&loaded.global))?;
    let found =
        tracing::subscriber::with_default(log.clone(), || control::stores::load_static(loaded));
    log.flush();
    found
}

/// The whole life of a server. `is_listening` is called with the addresses of the entry points once they are open.
fn serve(loaded: Loaded, is_listening: impl FnOnce(&[SocketAddr])) -> ExitCode {
    let Loaded {
        global,
        file,
        diagnostics,
        ..
    } = loaded;
    let log = match start_log(&global) {
        Ok(log) => log,
        Err(error) => {
            return complain(&format!(
                "Error preparing server: cannot start the log: {error}"
            ));
        }
    };
    if let Some(file) = &file {
        info!("Using TOML configuration file {}", file.display());
    }
    info!("Coreway version {} starting", config::version::VERSION);
    for diagnostic in diagnostics.into_iter().chain(config::unsupported(&global)) {
        // The level that takes the place of an unknown one would hide this as a warning.
        if diagnostic.message.starts_with("logLevel") {
            error!("Error getting level: {diagnostic}");
        } else {
            warn!("{diagnostic}");
        }
    }
    let ended = run(global, file, log.clone(), is_listening);
    let code = match ended {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::CoreLost) => ExitCode::FAILURE,
        Err(error) => {
            log.fatal(&format!("Error preparing server: {error}"));
            ExitCode::FAILURE
        }
    };
    log.flush();
    code
}

fn run(
    global: Global,
    static_file: Option<PathBuf>,
    log: Log,
    is_listening: impl FnOnce(&[SocketAddr]),
) -> Result<Ended, Failed> {
    let machine = machine();
    let (settings, closed) = settings::settings(&global, &machine).map_err(|rejections| {
        let lines: Vec<String> = rejections.iter().map(ToString::to_string).collect();
        Failed(lines.join("; "))
    })?;
    control::log_rejections(&closed);
    let settings = Arc::new(settings);

    let driver = choose_driver(&global)?;
    let cpus = config::cores::select(&global.reactor.cores, &reactor::cpus_allowed())
        .map_err(|error| Failed(format!("{}: reactor.cores: {error}", global.reactor.place)))?;

    let (sender, reports) = crossbeam::channel::unbounded();
    let launched = proxy::launch(&settings, &cpus, global.reactor.pin, driver, &sender)
        .map_err(Failed::from)?;
    drop(sender);
    for (entry_point, address) in settings.entry_points.iter().zip(&launched.addresses) {
        info!(
            "Starting server on {address} (entry point {}, {} cores)",
            entry_point.name,
            cpus.len()
        );
    }
    control::hashing::start(
        &launched.work,
        reactor::cpus_allowed().len(),
        reactor::yield_to_others,
    )?;
    control::disk::start(&launched.disk)?;
    is_listening(&launched.addresses);

    let cores = launched
        .cores
        .into_iter()
        .map(|core| CoreLink {
            mailbox: core.mailbox,
            counters: core.counters,
            thread: core.thread,
        })
        .collect();
    control::run(Start {
        global,
        settings,
        static_file,
        cores,
        reports,
        log,
    })
    .map_err(Failed::from)
}

fn machine() -> Machine {
    Machine {
        descriptors_max: raise_descriptors(),
        host_name: host_name(),
        ipv6: UdpSocket::bind("[::]:0").is_ok(),
        now: OffsetDateTime::now_utc().into(),
        read: |path| fs::exists(path).unwrap_or(false).then(|| fs::read(path)),
    }
}

/// Raises the number of connections that can be open to what the system allows.
fn raise_descriptors() -> usize {
    match reactor::raise_file_limit() {
        Ok(limit) => {
            info!("At most {limit} files and connections can be open");
            usize::try_from(limit).unwrap_or(usize::MAX)
        }
        Err(error) => {
            warn!(
                "Cannot raise the limit of open files: {error}; taking it for {DESCRIPTORS_USUAL}"
            );
            DESCRIPTORS_USUAL
        }
    }
}

/// The limit of open files that systems start processes with.
const DESCRIPTORS_USUAL: usize = 1024;

/// Why the server cannot run: one line for the log.
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn log_options(global: &Global) -> log::Options {
    let written = if global.log_level.is_empty() && global.debug {
        "DEBUG"
    } else {
        &*global.log_level
    };
    // What is unknown was reported and replaced when the configuration was read.
    let level = log::Level::parse(written).unwrap_or(log::Level::Error);
    let written_format = global.traefik_log.format.as_str();
    let format = if written_format == "json" {
        log::Format::Json
    } else {
        log::Format::Common
    };
    let file = Some(&global.traefik_log.file_path)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    log::Options {
        level,
        format,
        file,
    }
}

fn start_log(global: &Global) -> io::Result<Log> {
    let mut options = log_options(global);
    match log::install(&options) {
        Err(problem) if options.file.is_some() => {
            let path = options.file.take().unwrap_or_default();
            let log = log::install(&options)?;
            error!(
                "Error while opening log file {}, logging to standard output: {problem}",
                path.display()
            );
            Ok(log)
        }
        other => other,
    }
}

fn choose_driver(global: &Global) -> Result<Driver, Failed> {
    let written = global.reactor.driver.as_str();
    let choice = match written {
        "" | "auto" => Choice::Auto,
        "io_uring" => Choice::IoUring,
        "epoll" => Choice::Epoll,
        _ => {
            let place = &global.reactor.place;
            return Err(Failed(format!(
                "{place}: reactor.driver: {written:?} is not one of auto, io_uring, epoll"
            )));
        }
    };
    let probe = reactor::probe(choice).map_err(|error| Failed(error.to_string()))?;
    if let Some(reason) = &probe.fallback_reason {
        // An error, so that it is seen with every log level that an operator is likely to choose.
        error!(
            "io_uring cannot be used here, falling back to epoll, which costs more for every request: {reason}"
        );
    }
    info!("Cores run on {} {}", probe.driver, probe.ring_flags);
    Ok(probe.driver)
}

/// The name of this machine, for `X-Forwarded-Server`.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() {
        "localhost".to_owned()
    } else {
        name.to_owned()
    }
}

/// Writes to standard output. Nobody may be reading any more, which is no reason to fail.
fn print(text: &str) -> ExitCode {
    let mut output = io::stdout().lock();
    let _ = output.write_all(text.as_bytes());
    let _ = output.flush();
    ExitCode::SUCCESS
}

/// What goes wrong before there is a log goes to standard error, in the way of Traefik.
fn complain(message: &dyn fmt::Display) -> ExitCode {
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    let format = format_description!("[year]/[month]/[day] [hour]:[minute]:[second]");
    let _ = writeln!(
        io::stderr(),
        "{} {message}",
        now.format(format).unwrap_or_default()
    );
    ExitCode::FAILURE
}
