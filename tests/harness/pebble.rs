//! A real certificate authority for one test: pebble, with the name server that it asks, or with one that is given.
//!
//! Owns the processes and their ports. It asks for its proofs as a real one does. It refuses one in twenty of the nonces it
//! gave out and uses every second proof again, unless a test wants it worse ([`Place::chaos`]), and [`REFUSED`] always.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use coreway::tls::{self, Authorities, Trust};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::tls::{Answer, Authority, TlsClient};
use super::wait::eventually;

/// Both programs, which `tests/run` installs.
const PROGRAMS: [&str; 2] = ["pebble", "pebble-challtestsrv"];

/// Whether a test can have one; says so if not. Under `CI=true` it must.
pub fn is_here() -> bool {
    let missing = PROGRAMS.iter().find(|program| {
        let mut command = Command::new(program);
        command
            .arg("-help")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_err()
    });
    if let Some(program) = missing {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{program} is not installed"
        );
        eprintln!("skipped: {program} is not installed");
    }
    missing.is_none()
}

/// A name that it issues nothing for.
pub const REFUSED: &str = "refused.test";

/// A port that nobody has now.
pub fn free_port() -> u16 {
    let probe = TcpListener::bind("127.0.0.1:0").unwrap();
    probe.local_addr().unwrap().port()
}

/// Where it will be, decided before it runs: who is to ask it has to know.
pub struct Place {
    port: u16,
    authority: Authority,
    folder: TempDir,
    is_expired: bool,
    /// More of its own configuration: members of JSON.
    members: String,
    environment: Vec<(&'static str, String)>,
}

impl Place {
    pub fn new() -> Self {
        let place = Self {
            port: free_port(),
            authority: Authority::new("The authority's own"),
            folder: tempfile::tempdir().unwrap(),
            is_expired: false,
            members: String::new(),
            environment: vec![("PEBBLE_VA_NOSLEEP", "1".to_owned())],
        };
        fs::write(place.root(), place.authority.pem()).unwrap();
        place
    }

    /// The file with what its own certificate comes from.
    pub fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("root.pem")
    }

    pub fn directory(&self) -> String {
        format!("https://localhost:{}/dir", self.port)
    }

    /// Starts it. It looks for proofs at these ports of 127.0.0.1, whatever the name.
    #[track_caller]
    pub fn open(self, http: u16, tls: u16) -> Pebble {
        let (names, control) = (free_port(), free_port());
        let resolver = self.resolver(names, control);
        self.open_asking(http, tls, names, Some((resolver, control)))
    }

    /// The same, and it asks the name server at this port of 127.0.0.1.
    #[track_caller]
    pub fn open_with_names(self, http: u16, tls: u16, names: u16) -> Pebble {
        self.open_asking(http, tls, names, None)
    }

    /// A certificate of its own that is good no more, as for who has a clock that is wrong.
    pub fn expired(mut self) -> Self {
        self.is_expired = true;
        self
    }

    /// One of its own ways of making trouble, `PEBBLE_...`.
    pub fn chaos(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    /// It looks for proofs some time after it was told to, up to so many seconds.
    pub fn slow(mut self, seconds: u32) -> Self {
        self.environment.clear();
        self.chaos("PEBBLE_VA_SLEEPTIME", &seconds.to_string())
    }

    /// What it issues is good for so many seconds.
    pub fn issuing_for(mut self, seconds: u32) -> Self {
        self.members += &format!(r#", "certificateValidityPeriod": {seconds}"#);
        self
    }

    /// Nobody gets an account without a word from outside.
    pub fn closed(mut self) -> Self {
        self.members += r#", "externalAccountBindingRequired": true"#;
        self
    }

    fn resolver(&self, names: u16, control: u16) -> Child {
        started(
            Command::new(PROGRAMS[1])
                .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
                .args(["-dns01", &format!("127.0.0.1:{names}")])
                .args(["-management", &format!("127.0.0.1:{control}")]),
            self.folder.path(),
            "resolver.log",
        )
    }

    #[track_caller]
    fn open_asking(
        self,
        http: u16,
        tls: u16,
        names: u16,
        resolver: Option<(Child, u16)>,
    ) -> Pebble {
        let path = |name: &str| self.folder.path().join(name);
        let own = if self.is_expired {
            self.authority.issue_expired(&["localhost"])
        } else {
            self.authority.issue(&["localhost"])
        };
        fs::write(path("own.pem"), &own.chain).unwrap();
        fs::write(path("own.key"), &own.key).unwrap();
        let management = free_port();
        let config = format!(
            r#"{{"pebble": {{"listenAddress": "127.0.0.1:{}", "managementListenAddress": "127.0.0.1:{management}",
            "certificate": "{}", "privateKey": "{}", "httpPort": {http}, "tlsPort": {tls}, "ocspResponderURL": "",
            "domainBlocklist": ["{REFUSED}"]{}}}}}"#,
            self.port,
            path("own.pem").display(),
            path("own.key").display(),
            self.members,
        );
        fs::write(path("config.json"), config).unwrap();
        let server = started(
            Command::new(PROGRAMS[0])
                .args(["-config", &path("config.json").display().to_string()])
                .args(["-dnsserver", &format!("127.0.0.1:{names}")])
                .envs(self.environment.iter().map(|(name, value)| (name, value))),
            self.folder.path(),
            "pebble.log",
        );
        let (resolver, control) = resolver.unzip();
        let pebble = Pebble {
            place: self,
            management,
            control,
            processes: resolver.into_iter().chain([server]).collect(),
        };
        eventually("pebble listens", || {
            [Some(pebble.place.port), Some(management), control]
                .into_iter()
                .flatten()
                .all(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        });
        pebble
    }
}

fn started(command: &mut Command, folder: &Path, log: &str) -> Child {
    let log = fs::File::create(folder.join(log)).unwrap();
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

pub struct Pebble {
    place: Place,
    management: u16,
    /// Where the name server is told its records.
    control: Option<u16>,
    processes: Vec<Child>,
}

impl Pebble {
    /// Stops for good, as an authority that cannot be reached.
    pub fn stop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Asks it over HTTP/1.0, so that its answer ends with the connection.
    pub fn ask(&self, head: &str, body: &[u8]) -> Answer {
        let config = believing(self.place.authority.pem());
        let address = SocketAddr::from(([127, 0, 0, 1], self.place.port));
        let mut client = TlsClient::connect(address, &config, "localhost").unwrap();
        let length = body.len();
        let mut request = format!("{head}Content-Length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(body);
        client.exchange(request).unwrap()
    }

    /// What its certificates come from, made anew with each start.
    pub fn root(&self) -> String {
        let address = SocketAddr::from(([127, 0, 0, 1], self.management));
        let config = believing(self.place.authority.pem());
        let mut client = TlsClient::connect(address, &config, "localhost").unwrap();
        let request = "GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        String::from_utf8(client.exchange(request).unwrap().body).unwrap()
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where its name server is told its records: `/set-txt` and `/clear-txt`, with JSON.
    pub fn control(&self) -> u16 {
        self.control.expect("it has a name server of its own")
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    pub fn log(&self) -> String {
        let mut text = String::new();
        let file = fs::File::open(self.place.folder.path().join("pebble.log"));
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- pebble\n{}", self.log());
        }
        self.stop();
    }
}

/// A client that speaks HTTP/1.1 with who has a certificate of this authority.
pub fn believing(authority: &str) -> Arc<ClientConfig> {
    let mut authorities = Authorities::default();
    authorities.add(authority.as_bytes()).unwrap();
    Arc::new(tls::Client::new(&Trust::Authorities(authorities)).for_library())
}

/// What a certificate is for.
pub fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    let alternatives = parsed.subject_alternative_name().unwrap().unwrap();
    let mut names: Vec<String> = alternatives
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            x509_parser::prelude::GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect();
    names.sort();
    names
}
