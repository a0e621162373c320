//! The real program, started for one test on a port of its own, with its configuration in a temporary folder.
//!
//! Owns the process and what it printed. `COREWAY_TEST_DRIVER` (`io_uring` or `epoll`) and `COREWAY_TEST_CORES` (a count)
//! change every start, so one suite covers both drivers. A test that fails shows the program's log.
//! Never leaves a process behind: it is killed when the test ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::client::Client;
use super::origin::Origin;
use super::wait::{DEADLINE, eventually, eventually_within};

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_coreway");

/// Logged once per entry point each time all cores serve a new configuration (spec file-provider 4.1).
const RELOADED: &str = "Server configuration reloaded on";

/// One server as a backend: `backend("b", &origin)`.
pub fn backend(name: &str, origin: &Origin) -> String {
    format!("[backends.{name}.servers.s]\nurl = \"{}\"\n", origin.url())
}

/// A frontend without rule, which takes every request, before one server.
pub fn site(origin: &Origin) -> String {
    format!("{}[frontends.f]\nbackend = \"b\"\n", backend("b", origin))
}

/// How a process is to be started. `Start::new().entry_point(..).serve(&rules)`.
pub struct Start {
    /// Keys before the first table of the static configuration.
    globals: String,
    tables: String,
    entry_point: String,
    flags: Vec<String>,
    cores: Option<usize>,
    files_max: Option<usize>,
    environment: Vec<(String, String)>,
    within: Vec<String>,
}

impl Start {
    pub fn new() -> Self {
        Self {
            globals: String::new(),
            tables: String::new(),
            entry_point: String::new(),
            flags: Vec::new(),
            cores: None,
            files_max: None,
            environment: Vec::new(),
            within: Vec::new(),
        }
    }

    /// Another program with its arguments, which is given ours behind them and becomes it.
    pub fn within(mut self, words: &[&str]) -> Self {
        self.within = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// A variable of its environment.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A key of the static configuration, such as `maxIdleConnsPerHost = 1`.
    pub fn global(mut self, line: &str) -> Self {
        self.globals += &format!("{line}\n");
        self
    }

    /// A table of the static configuration, header included.
    pub fn table(mut self, text: &str) -> Self {
        self.tables += &format!("{text}\n");
        self
    }

    /// Lines for the entry point `http`.
    pub fn entry_point(mut self, lines: &str) -> Self {
        self.entry_point += &format!("{lines}\n");
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    /// Exactly this many cores, whatever the environment says.
    pub fn cores(mut self, count: usize) -> Self {
        self.cores = Some(count);
        self
    }

    /// Limits the file descriptors of the process.
    pub fn files_max(mut self, count: usize) -> Self {
        self.files_max = Some(count);
        self
    }

    /// Starts with these rules in `rules.toml` and waits until they are served.
    #[track_caller]
    pub fn serve(self, rules: &str) -> Coreway {
        let coreway = self.begin(rules);
        coreway.await_reloads(1);
        coreway
    }

    /// Starts with these rules and waits only until the entry points listen.
    #[track_caller]
    pub fn begin(self, rules: &str) -> Coreway {
        let folder = tempfile::tempdir().unwrap();
        let rules_path = folder.path().join("rules.toml");
        fs::write(&rules_path, rules).unwrap();
        let settings = format!(
            "defaultEntryPoints = [\"http\"]\n{}\n[file]\nfilename = \"{}\"\n{}\n\
             [entryPoints.http]\naddress = \"127.0.0.1:0\"\n{}",
            self.globals,
            rules_path.display(),
            self.tables,
            self.entry_point,
        );
        self.launch(folder, &settings)
    }

    /// Starts with a whole static configuration of the test's own; `$DIR` in it is the temporary folder.
    #[track_caller]
    pub fn with_settings(self, settings: &str, prepare: impl FnOnce(&Path)) -> Coreway {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let settings = settings.replace("$DIR", &folder.path().display().to_string());
        self.launch(folder, &settings)
    }

    #[track_caller]
    fn launch(self, folder: TempDir, settings: &str) -> Coreway {
        let path = folder.path().join("coreway.toml");
        fs::write(&path, settings).unwrap();
        let mut arguments = vec![
            format!("--configFile={}", path.display()),
            "--logLevel=INFO".to_owned(),
            "--providersThrottleDuration=20ms".to_owned(),
            // Many processes run side by side: pinned, they would all share the first processor.
            "--reactor.pin=false".to_owned(),
            format!("--reactor.cores={}", self.cores.unwrap_or_else(cores)),
        ];
        arguments.extend(self.flags);
        let within = match self.files_max {
            None => self.within,
            limit => limited(limit),
        };
        let coreway = Coreway::spawn_in(folder, &arguments, &within, &self.environment);
        eventually("the entry points listen", || {
            coreway.assert_runs();
            coreway.listening("http").is_some()
        });
        coreway
    }
}

/// Cores each test gives the program: two if there are as many.
pub fn cores() -> usize {
    match std::env::var("COREWAY_TEST_CORES") {
        Ok(text) => text.parse().expect("COREWAY_TEST_CORES is a count"),
        Err(_) => thread::available_parallelism().map_or(1, |n| n.get().min(2)),
    }
}

/// The driver flag the environment asks for.
pub fn driver_flag() -> Option<String> {
    std::env::var("COREWAY_TEST_DRIVER")
        .ok()
        .filter(|d| !d.is_empty())
        .map(|d| format!("--reactor.driver={d}"))
}

/// A running process.
pub struct Coreway {
    child: Mutex<Child>,
    pid: u32,
    folder: TempDir,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Coreway {
    /// With defaults, these rules.
    #[track_caller]
    pub fn serve(rules: &str) -> Self {
        Start::new().serve(rules)
    }

    /// With defaults, everything goes to this server.
    #[track_caller]
    pub fn before(origin: &Origin) -> Self {
        Self::serve(&site(origin))
    }

    /// Runs the program with these arguments, and those the environment asks for.
    pub fn spawn(folder: TempDir, arguments: &[String], files_max: Option<usize>) -> Self {
        Self::spawn_in(folder, arguments, &limited(files_max), &[])
    }

    /// The same within another program, and with variables in its environment.
    fn spawn_in(
        folder: TempDir,
        arguments: &[String],
        within: &[String],
        environment: &[(String, String)],
    ) -> Self {
        let mut command = match within {
            [] => Command::new(BINARY),
            [program, words @ ..] => {
                let mut command = Command::new(program);
                command.args(words).arg(BINARY);
                command
            }
        };
        // A flag of the environment comes first: what a test says itself wins.
        command
            .args(arguments.first().filter(|a| !a.starts_with('-')))
            .args(driver_flag())
            .args(arguments.iter().skip(usize::from(
                arguments.first().is_some_and(|a| !a.starts_with('-')),
            )))
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("cannot start {BINARY}: {e}"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        gather(child.stdout.take().unwrap(), &lines);
        gather(child.stderr.take().unwrap(), &lines);
        Self {
            pid: child.id(),
            child: Mutex::new(child),
            folder,
            lines,
        }
    }

    /// The folder of its configuration.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn rules_path(&self) -> PathBuf {
        self.folder().join("rules.toml")
    }

    /// Where the entry point `http` listens.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.address_of("http")
    }

    /// Where an entry point listens, once it does: they begin one after the other.
    #[track_caller]
    pub fn address_of(&self, entry_point: &str) -> SocketAddr {
        let mut address = None;
        eventually(&format!("entry point {entry_point} listens"), || {
            address = self.listening(entry_point);
            address.is_some()
        });
        address.expect("it was waited for")
    }

    /// From the line `Starting server on <address> (entry point <name>, ...)`.
    fn listening(&self, entry_point: &str) -> Option<SocketAddr> {
        let after = format!(" (entry point {entry_point},");
        let lines = self.lines.lock().unwrap();
        let line = lines.iter().find_map(|line| line.split_once(&after))?.0;
        line.rsplit_once("Starting server on ")?.1.parse().ok()
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// One GET on a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str) -> super::Response {
        super::get(self.address(), "test", target)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn exchange(&self, request: impl AsRef<[u8]>) -> super::Response {
        self.client().exchange(request)
    }

    /// Replaces `rules.toml` by rename and waits until the new rules are served.
    #[track_caller]
    pub fn reload(&self, rules: &str) {
        let before = self.reloads();
        self.replace(rules);
        self.await_reloads(before + 1);
    }

    /// Replaces `rules.toml` by rename.
    pub fn replace(&self, rules: &str) {
        let fresh = self.folder().join("rules.fresh");
        fs::write(&fresh, rules).unwrap();
        fs::rename(&fresh, self.rules_path()).unwrap();
    }

    /// How often a configuration was taken into service.
    pub fn reloads(&self) -> usize {
        self.lines
            .lock()
            .unwrap()
            .iter()
            .filter(|l| l.contains(RELOADED))
            .count()
    }

    #[track_caller]
    pub fn await_reloads(&self, count: usize) {
        eventually(&format!("configuration {count} is served"), || {
            self.assert_runs();
            self.reloads() >= count
        });
    }

    /// Everything printed so far.
    pub fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits for a line with this text, and returns it.
    #[track_caller]
    pub fn await_log(&self, text: &str) -> String {
        let find = || {
            self.lines
                .lock()
                .unwrap()
                .iter()
                .find(|l| l.contains(text))
                .cloned()
        };
        eventually(&format!("it logs {text:?}"), || find().is_some());
        find().expect("it was there")
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid)])
            .status()
            .unwrap();
        assert!(status.success(), "could not signal the process: it is gone");
    }

    /// Waits for the end and returns the exit code.
    #[track_caller]
    pub fn exit_code(&self) -> i32 {
        let mut status = None;
        eventually_within(2 * DEADLINE, "the process ends", || {
            status = self.ended();
            status.is_some()
        });
        status
            .and_then(|s| s.code())
            .expect("it exited, and was not killed")
    }

    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    #[track_caller]
    pub fn assert_runs(&self) {
        if let Some(status) = self.ended() {
            panic!("the process ended: {status}");
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find(|l| l.starts_with("VmRSS:"))
            .expect("the kernel tells the resident set");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time used so far, user and system; the kernel counts in steps of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        // The name in parentheses may hold blanks: fields are counted from its end, where the third begins.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .unwrap()
            .1
            .split_whitespace()
            .collect();
        let ticks = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    /// Processor time used during some time of waiting.
    pub fn cpu_time_during(&self, time: Duration) -> Duration {
        let before = self.cpu_time();
        let end = Instant::now() + time;
        eventually_within(time + DEADLINE, "the time is over", || {
            Instant::now() >= end
        });
        self.cpu_time() - before
    }
}

impl Drop for Coreway {
    fn drop(&mut self) {
        let mut child = self
            .child
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        let lines = self
            .lines
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if thread::panicking() {
            eprintln!(
                "--- what coreway said ---\n{}\n--- end ---",
                lines.join("\n")
            );
        } else {
            // A panic fails one connection and is only logged: no test may overlook it.
            assert!(
                !lines.iter().any(|l| l.contains("panicked at")),
                "a panic inside: {}",
                lines.join("\n")
            );
        }
    }
}

/// A shell that limits the file descriptors of the program which it becomes, if they are to be limited.
fn limited(files_max: Option<usize>) -> Vec<String> {
    files_max.map_or_else(Vec::new, |count| {
        let limit = format!("ulimit -n {count} && exec \"$0\" \"$@\"");
        ["sh", "-c", &limit].map(str::to_owned).to_vec()
    })
}

/// Collects lines of output until its end.
fn gather(output: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let lines = Arc::clone(lines);
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.lock().unwrap().push(line);
        }
    });
}
