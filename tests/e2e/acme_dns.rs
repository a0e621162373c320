//! Names proved over DNS, wildcards among them: by a program, by a service, and by updates of a real name server.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use tempfile::TempDir;

use crate::harness::acme::{self, await_certificate};
use crate::harness::pebble::{self, Place, free_port};
use crate::harness::{Coreway, Origin, answer, eventually};

/// A wildcard and its domain: two records of one name.
const NAMES: &[&str] = &["*.a.test", "a.test"];

/// A proxy that orders one certificate for [`NAMES`].
fn proxy(place: &Place, provider: &str, more: &str, variables: &[(&str, &str)]) -> Coreway {
    let mut start = acme::start(place);
    for (name, value) in variables {
        start = start.variable(name, value);
    }
    let storage = acme::storage().display().to_string();
    let more = format!(
        "[[acme.domains]]\nmain = \"*.a.test\"\nsans = [\"a.test\"]\n\
         [acme.dnsChallenge]\nprovider = \"{provider}\"\n{more}"
    );
    start
        .table(&acme::table(&place.directory(), &storage, &more))
        .begin("")
}

const UNCHECKED: &str = "disablePropagationCheck = true";

/// Tells the name server of pebble.
fn told(control: u16, action: &str, body: &str) -> bool {
    let mut stream = TcpStream::connect(("127.0.0.1", control)).unwrap();
    let request = format!(
        "POST /{action} HTTP/1.1\r\nHost: names\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.starts_with("HTTP/1.1 200")
}

#[test]
fn a_program_makes_the_records_of_a_wildcard() {
    if !pebble::is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (program, control, calls) = (
        folder.path().join("records"),
        folder.path().join("control"),
        folder.path().join("calls"),
    );
    let script = format!(
        "#!/bin/bash\nset -eu\necho \"$@\" >> {calls}\n\
         case $1 in present) action=set-txt ;; cleanup) action=clear-txt ;; esac\n\
         body=\"{{\\\"host\\\":\\\"$2\\\",\\\"value\\\":\\\"$3\\\"}}\"\n\
         exec 3<>/dev/tcp/127.0.0.1/$(cat {control})\n\
         printf 'POST /%s HTTP/1.1\\r\\nHost: n\\r\\nContent-Length: %d\\r\\nConnection: close\\r\\n\\r\\n%s' $action ${{#body}} \"$body\" >&3\n\
         read -r line <&3\n[[ $line == *200* ]]\n",
        calls = calls.display(),
        control = control.display(),
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let place = Place::new();
    let path = program.display().to_string();
    let port = free_port();
    let pebble = place.open(port, port);
    fs::write(&control, pebble.control().to_string()).unwrap();
    let coreway = proxy(pebble.place(), "exec", UNCHECKED, &[("EXEC_PATH", &path)]);
    await_certificate(&coreway, "b.a.test", NAMES);
    await_certificate(&coreway, "a.test", NAMES);
    let calls = || fs::read_to_string(&calls).unwrap();
    eventually("the records are removed", || {
        calls().matches("cleanup _acme-challenge.a.test. ").count() == 2
    });
    assert_eq!(
        calls().matches("present _acme-challenge.a.test. ").count(),
        2
    );
}

#[test]
fn a_service_makes_the_records_of_a_wildcard() {
    if !pebble::is_here() {
        return;
    }
    let control: Arc<OnceLock<u16>> = Arc::default();
    let known = Arc::clone(&control);
    let service = Origin::new(move |request| {
        let asked: serde_json::Value = serde_json::from_str(&request.text()).unwrap();
        let body = serde_json::json!({"host": asked["fqdn"], "value": asked["value"]});
        let action = match request.head.start.as_str() {
            "POST /records/present HTTP/1.1" => "set-txt",
            "POST /records/cleanup HTTP/1.1" => "clear-txt",
            other => panic!("{other}"),
        };
        let is_told = told(*known.get().unwrap(), action, &body.to_string());
        answer(if is_told { 200 } else { 500 }, "")
    });
    let place = Place::new();
    let port = free_port();
    let pebble = place.open(port, port);
    control.set(pebble.control()).unwrap();
    let endpoint = format!("{}/records/", service.url());
    let variables = [
        ("HTTPREQ_ENDPOINT", &*endpoint),
        ("HTTPREQ_USERNAME", "u"),
        ("HTTPREQ_PASSWORD", "p"),
    ];
    let coreway = proxy(
        pebble.place(),
        "httpreq",
        "delayBeforeCheck = 1",
        &variables,
    );
    await_certificate(&coreway, "b.a.test", NAMES);
    let requests = service.requests();
    assert!(
        requests
            .iter()
            .all(|request| request.field("authorization") == Some("Basic dTpw")),
        "{requests:?}"
    );
    assert!(!coreway.log().contains("dTpw"));
}

/// A real name server for the zone `test`, which takes updates that are signed.
struct NameServer {
    port: u16,
    child: Child,
    folder: TempDir,
}

const NAMED: &str = "/usr/sbin/named";
const SECRET: &str = "c2l4dGVlbiBieXRlcyBsb25nLCBvciBtb3JlISEhISE=";

impl NameServer {
    /// `None`: it is not installed.
    fn start() -> Option<Self> {
        if !Path::new(NAMED).exists() {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "{NAMED} is missing: tests/install-servers installs it"
            );
            eprintln!("SKIPPED: bind9 is not installed (tests/install-servers, as root)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let place = folder.path().display();
        let config = format!(
            "options {{ directory \"{place}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n\
             pid-file \"named.pid\"; session-keyfile \"session.key\"; recursion no; dnssec-validation no; }};\n\
             controls {{ }};\n\
             key \"update.\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
             zone \"test\" {{ type primary; file \"zone\"; allow-update {{ key \"update.\"; }}; }};\n"
        );
        fs::write(folder.path().join("named.conf"), config).unwrap();
        let zone = "$TTL 60\n@ SOA ns.test. root.test. 1 60 60 60 60\n@ NS ns.test.\nns A 127.0.0.1\n* A 127.0.0.1\n";
        fs::write(folder.path().join("zone"), zone).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new(NAMED)
            .args(["-g", "-n", "1", "-c"])
            .arg(folder.path().join("named.conf"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let server = Self {
            port,
            child,
            folder,
        };
        eventually("the name server runs", || server.log().contains("running"));
        Some(server)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- named\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_name_server_is_updated_with_the_records_of_a_wildcard() {
    if !pebble::is_here() {
        return;
    }
    let Some(server) = NameServer::start() else {
        return;
    };
    let place = Place::new();
    let port = free_port();
    let pebble = place.open_with_names(port, port, server.port);
    let address = format!("127.0.0.1:{}", server.port);
    let variables = [
        ("RFC2136_NAMESERVER", &*address),
        ("RFC2136_TSIG_KEY", "update."),
        ("RFC2136_TSIG_SECRET", SECRET),
        ("RFC2136_TSIG_ALGORITHM", "hmac-sha256."),
    ];
    let coreway = proxy(pebble.place(), "rfc2136", UNCHECKED, &variables);
    await_certificate(&coreway, "b.a.test", NAMES);
    eventually("both records were removed again", || {
        server.log().matches("deleting an RR").count() == 2
    });
    assert!(!coreway.log().contains(SECRET));
}

#[test]
fn an_update_that_is_refused_is_explained() {
    if !pebble::is_here() {
        return;
    }
    let Some(server) = NameServer::start() else {
        return;
    };
    let place = Place::new();
    let port = free_port();
    let pebble = place.open_with_names(port, port, server.port);
    let address = format!("127.0.0.1:{}", server.port);
    let variables = [("RFC2136_NAMESERVER", &*address)];
    let coreway = proxy(pebble.place(), "rfc2136", UNCHECKED, &variables);
    let said = coreway.await_log("unable to obtain a certificate for *.a.test,a.test");
    assert!(
        said.contains("the record _acme-challenge.a.test. could not be made")
            && said.contains("the key, its algorithm or the time"),
        "{said}"
    );
}

#[test]
fn a_provider_that_is_not_there_orders_nothing_and_names_what_is() {
    let place = Place::new();
    let coreway = proxy(&place, "route53", "", &[]);
    let said = coreway.await_log("is not supported: run its client from");
    assert!(
        ["route53", "EXEC_PATH", "no certificate is ordered"]
            .iter()
            .all(|text| said.contains(text)),
        "{said}"
    );
}
