//! Real key-value stores, started on free ports of loopback with their data in a temporary folder.
//!
//! Owns the processes. They end with the tests, however those end. `tests/install-servers` installs what is needed; without
//! it a test says that it was skipped, and fails where `CI=true`.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::tls::{Authority, Pair};
use super::wait::eventually_within;

/// How long a store may take until it answers. A Java machine on a busy machine is slow.
const START: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Consul,
    Etcd,
    ZooKeeper,
}

/// How a store is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    Open,
    /// Speaks TLS only, and only with clients that have a certificate of the authority.
    Tls,
    /// Consul: a token is needed for everything.
    Token,
}

/// The token that may do everything, where one is needed.
pub const TOKEN: &str = "6b1a3bd5-2c0d-4d3c-8c4e-6d5a5d1c1f00";

/// What a TLS store and its clients show each other.
pub struct Papers {
    pub authority: Authority,
    pub client: Pair,
    server: Pair,
}

/// A store that runs, or could.
pub struct Server {
    program: Program,
    guard: Guard,
    /// For clients first, then what it needs besides.
    ports: Vec<u16>,
    folder: TempDir,
    pub papers: Papers,
    child: Option<Child>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.program, self.endpoint())
    }
}

/// Whether a program is installed. Says so if not.
///
/// # Panics
/// It is not, and `CI=true`.
pub fn is_installed(program: Program) -> bool {
    let (path, package) = match program {
        Program::Consul => ("/usr/bin/consul", "consul"),
        Program::Etcd => ("/usr/bin/etcd", "etcd-server"),
        Program::ZooKeeper => ("/usr/share/java/zookeeper.jar", "zookeeper"),
    };
    if Path::new(path).exists() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{path} is missing: tests/install-servers installs it"
    );
    eprintln!("SKIPPED: {package} is not installed (tests/install-servers, as root)");
    false
}

impl Server {
    /// Starts a store and waits until it answers.
    pub fn start(program: Program, guard: Guard) -> Self {
        let authority = Authority::new("store");
        let mut server = Self {
            program,
            guard,
            ports: free_ports(4),
            folder: tempfile::tempdir().unwrap(),
            papers: Papers {
                server: authority.issue(&["localhost", "127.0.0.1"]),
                client: authority.issue(&["coreway"]),
                authority,
            },
            child: None,
        };
        server.run();
        server
    }

    /// `host:port` for clients.
    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.ports[0])
    }

    /// Starts it again after [`Server::kill`], on the same port and with what it had.
    pub fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = fs::File::create(self.path("log")).unwrap();
        let mut command = self.command();
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(launch(command));
        let mut ended = None;
        eventually_within(START, "the store answers", || {
            ended = self.child.as_mut().unwrap().try_wait().unwrap();
            ended.is_some() || self.answers()
        });
        assert!(ended.is_none(), "{self:?} ended:\n{}", self.log());
    }

    /// Runs a command of etcd's own client, which must succeed. `version` is that of the API, `2` or `3`.
    pub fn etcdctl(&self, version: &str, words: &[&str]) {
        let patience: &[&str] = match version {
            "2" => &["--timeout=30s", "--total-timeout=30s"],
            _ => &["--command-timeout=30s"],
        };
        let done = Command::new("etcdctl")
            .env("ETCDCTL_API", version)
            .arg(format!("--endpoints=http://{}", self.endpoint()))
            .args(patience)
            .args(words)
            .output()
            .unwrap();
        assert!(done.status.success(), "{words:?}: {done:?}");
    }

    /// A file among its data.
    pub fn data(&self, name: &str) -> PathBuf {
        self.path("data").join(name)
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Ends it at once, as a loss of power would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Loses everything it has stored. It must not run.
    pub fn lose(&self) {
        assert!(self.child.is_none(), "it runs");
        fs::remove_dir_all(self.path("data")).unwrap();
    }

    /// Stops it without ending it, as a network that is cut would: connections stay, nothing is answered.
    pub fn pause(&self) {
        self.signal("STOP");
        // The signal is on its way when `kill` returns.
        let id = self.child.as_ref().expect("it runs").id();
        eventually_within(START, "the store is stopped", || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
            stat.rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" T"))
        });
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id();
        let done = Command::new("kill")
            .args([&format!("-{name}"), &id.to_string()])
            .status()
            .unwrap();
        assert!(done.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn written(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn command(&self) -> Command {
        // The process ends with the thread that starts it: see `launch`.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        let data = self.path("data");
        fs::create_dir_all(&data).unwrap();
        match self.program {
            Program::Consul => command
                .args(["consul", "agent", "-config-file"])
                .arg(self.written("config.json", &self.consul())),
            Program::Etcd => command.arg("etcd").args(self.etcd()),
            Program::ZooKeeper => command
                .args([
                    "java",
                    "-Xmx256m",
                    "-XX:+UseSerialGC",
                    "-Dzookeeper.admin.enableServer=false",
                ])
                .args([
                    "-cp",
                    "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-nop.jar",
                ])
                .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
                .arg(self.written("zoo.cfg", &self.zookeeper())),
        };
        command
    }

    fn consul(&self) -> String {
        let [http, server, lan, wan] = self.ports[..] else {
            unreachable!("four ports")
        };
        let (plain, https) = match self.guard {
            Guard::Tls => (-1, i32::from(http)),
            Guard::Open | Guard::Token => (i32::from(http), -1),
        };
        let tls = match self.guard {
            Guard::Tls => {
                let (ca, cert, key) = self.papers_written();
                format!(
                    r#""ca_file": {ca:?}, "cert_file": {cert:?}, "key_file": {key:?}, "verify_incoming_https": true,"#
                )
            }
            Guard::Open | Guard::Token => String::new(),
        };
        let acl = match self.guard {
            Guard::Token => format!(
                r#""acl": {{"enabled": true, "default_policy": "deny", "tokens": {{"master": "{TOKEN}"}}}},"#
            ),
            Guard::Open | Guard::Tls => String::new(),
        };
        format!(
            r#"{{
                "server": true, "bootstrap_expect": 1, "data_dir": {data:?}, {tls} {acl}
                "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "node_name": "n", "disable_host_node_id": true,
                "ports": {{"http": {plain}, "https": {https}, "dns": -1, "grpc": -1,
                           "server": {server}, "serf_lan": {lan}, "serf_wan": {wan}}},
                "performance": {{"raft_multiplier": 1}}, "disable_update_check": true, "leave_on_terminate": false,
                "limits": {{"http_max_conns_per_client": 10000}}, "log_level": "WARN",
                "telemetry": {{"prometheus_retention_time": "10m", "disable_hostname": true}}
            }}"#,
            data = self.path("data"),
        )
    }

    fn etcd(&self) -> Vec<String> {
        let scheme = match self.guard {
            Guard::Tls => "https",
            Guard::Open | Guard::Token => "http",
        };
        let (client, peer) = (self.ports[0], self.ports[1]);
        let mut arguments: Vec<String> = [
            "--name=n",
            "--enable-v2=true",
            "--logger=zap",
            "--log-level=warn",
            "--snapshot-count=10000",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend([
            format!("--data-dir={}", self.path("data").display()),
            format!("--listen-client-urls={scheme}://127.0.0.1:{client}"),
            format!("--advertise-client-urls={scheme}://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=n=http://127.0.0.1:{peer}"),
        ]);
        if self.guard == Guard::Tls {
            let (ca, cert, key) = self.papers_written();
            arguments.extend([
                format!("--trusted-ca-file={}", ca.display()),
                format!("--cert-file={}", cert.display()),
                format!("--key-file={}", key.display()),
                "--client-cert-auth".to_owned(),
            ]);
        }
        arguments
    }

    fn zookeeper(&self) -> String {
        format!(
            "tickTime=500\ndataDir={}\nclientPort={}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
             4lw.commands.whitelist=*\nmaxSessionTimeout=60000\n",
            self.path("data").display(),
            self.ports[0],
        )
    }

    /// Authority, certificate and key as files.
    fn papers_written(&self) -> (PathBuf, PathBuf, PathBuf) {
        (
            self.written("ca.pem", self.papers.authority.pem()),
            self.written("cert.pem", &self.papers.server.chain),
            self.written("key.pem", &self.papers.server.key),
        )
    }

    /// Whether it serves. A guarded one is only asked whether it listens and has a leader, as far as it tells strangers.
    fn answers(&self) -> bool {
        match (self.program, self.guard) {
            (Program::Consul | Program::Etcd, Guard::Tls) => {
                TcpStream::connect(self.endpoint()).is_ok()
            }
            // An address, once there is a leader. What tokens protect is not told to strangers.
            (Program::Consul, Guard::Token) => self
                .said("GET /v1/status/leader HTTP/1.0\r\n\r\n")
                .contains(':'),
            // Sessions need the node's own check, which comes a while after the leader.
            (Program::Consul, _) => self
                .said("GET /v1/health/node/n HTTP/1.0\r\n\r\n")
                .contains("serfHealth"),
            (Program::Etcd, _) => self
                .said("GET /health HTTP/1.0\r\n\r\n")
                .contains("\"true\""),
            (Program::ZooKeeper, _) => self.said("srvr").contains("Mode:"),
        }
    }

    /// What it answers to a few bytes, or nothing.
    fn said(&self, words: &str) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.endpoint())?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(words.as_bytes())?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            // Only what is behind a head, where there is one.
            Ok(match text.split_once("\r\n\r\n") {
                Some((head, body)) if head.contains(" 200 ") => body.to_owned(),
                Some(_) => String::new(),
                None => text,
            })
        };
        ask().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- {self:?} ---\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ports that were free a moment ago, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}

/// Starts a process on a thread that lives as long as the tests: the kernel ends the process when that thread is gone, so a
/// store that is shared by all tests ends with them, although nobody is left to end it.
fn launch(command: Command) -> Child {
    use std::sync::{LazyLock, Mutex};
    type Order = (Command, mpsc::Sender<Child>);
    static LAUNCHER: LazyLock<Mutex<mpsc::Sender<Order>>> = LazyLock::new(|| {
        let (orders, received) = mpsc::channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in received {
                reply.send(command.spawn().unwrap()).unwrap();
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = mpsc::channel();
    LAUNCHER.lock().unwrap().send((command, reply)).unwrap();
    child.recv().unwrap()
}
