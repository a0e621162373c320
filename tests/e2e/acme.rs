//! Certificates that are ordered, proved, served, kept and renewed, with a real authority.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use coreway::tls::{self, Trust};

use crate::harness::origin;
use crate::harness::pebble::{self, Pebble, Place, REFUSED, believing, names};
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::{Coreway, DEADLINE, Origin, Start, eventually, eventually_within, get, site};

/// A proxy with an entry point for each scheme that orders from `place`; it has no rules yet.
fn proxy(place: &Place, options: &str) -> Coreway {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.keep().join("acme.json");
    with_storage(place, options, &storage)
}

pub(super) fn with_storage(place: &Place, options: &str, storage: &Path) -> Coreway {
    Start::new()
        .variable("LEGO_CA_CERTIFICATES", &place.root().display().to_string())
        .flag("--logLevel=DEBUG")
        .table(&format!(
            "[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
             [acme]\nemail = \"t@example.com\"\nstorage = \"{}\"\nentryPoint = \"https\"\nkeyType = \"EC256\"\n\
             caServer = \"{}\"\nonHostRule = true\n{options}\n",
            storage.display(),
            place.directory(),
        ))
        .begin("")
}

pub(super) const HTTP: &str = "[acme.httpChallenge]\nentryPoint = \"http\"";
pub(super) const TLS: &str = "[acme.tlsChallenge]";

fn open(place: Place, coreway: &Coreway) -> Pebble {
    place.open(coreway.address().port(), coreway.address_of("https").port())
}

pub(super) fn rules(origin: &Origin, hosts: &[&str]) -> String {
    let mut text = format!("[backends.b.servers.s]\nurl = \"{}\"\n", origin.url());
    for (at, host) in hosts.iter().enumerate() {
        text += &format!(
            "[frontends.f{at}]\nbackend = \"b\"\nentryPoints = [\"http\", \"https\"]\n\
             [frontends.f{at}.routes.r]\nrule = \"Host:{host}\"\n"
        );
    }
    text
}

/// What the proxy shows to who asks for `name`, whoever signed it.
pub(super) fn shown(coreway: &Coreway, name: &str) -> Vec<String> {
    let anybody = Arc::new(tls::Client::new(&Trust::Anybody).for_library());
    let client = TlsClient::connect(coreway.address_of("https"), &anybody, name).unwrap();
    names(&client.certificate())
}

#[track_caller]
pub(super) fn await_certificate(coreway: &Coreway, name: &str, expected: &[&str]) {
    eventually_within(
        3 * DEADLINE,
        &format!("there is a certificate for {name}"),
        || shown(coreway, name) == expected,
    );
}

/// Orders for rules are proved and the certificates served and kept.
fn check_proof(options: &str) {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let coreway = proxy(&place, options);
    let pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test,b.test", "c.test"]));
    await_certificate(&coreway, "b.test", &["a.test", "b.test"]);
    await_certificate(&coreway, "c.test", &["c.test"]);
    // With the whole chain: the client believes the root alone.
    let mut client = TlsClient::connect(
        coreway.address_of("https"),
        &believing(&pebble.root()),
        "a.test",
    )
    .unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    assert!(shown(&coreway, "z.test")[0].ends_with(".traefik.default"));
}

#[test]
fn names_of_rules_are_proved_over_http() {
    check_proof(HTTP);
}

#[test]
fn names_of_rules_are_proved_in_handshakes() {
    check_proof(TLS);
}

#[test]
fn what_was_issued_is_kept_and_not_ordered_again() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme.json");
    let coreway = with_storage(&place, HTTP, &storage);
    let root = place.root();
    let root_text = fs::read_to_string(&root).unwrap();
    let directory = place.directory();
    let mut pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let text = fs::read_to_string(&storage).unwrap();
    assert_eq!(
        fs::metadata(&storage).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(text.contains("\"Main\": \"a.test\""), "{text}");
    let log = coreway.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    drop(coreway);
    // The authority is gone: what is kept serves, and what is missing is said and tried again later.
    pebble.stop();
    let root = folder.path().join("root.pem");
    fs::write(&root, root_text).unwrap();
    let coreway = Start::new()
        .variable("LEGO_CA_CERTIFICATES", &root.display().to_string())
        .table(&format!(
            "[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
             [acme]\nstorage = \"{}\"\nentryPoint = \"https\"\ncaServer = \"{directory}\"\nonHostRule = true\n{HTTP}\n",
            storage.display(),
        ))
        .begin(&rules(&origin, &["a.test", "new.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let said = coreway.await_log("unable to obtain a certificate for new.test");
    assert!(said.contains("trying again in 1 min"), "{said}");
    assert!(!coreway.log().contains("ordering a certificate for a.test"));
    assert_eq!(fs::read_to_string(&storage).unwrap(), text);
}

#[test]
fn an_unknown_token_is_not_found_and_goes_to_no_server() {
    let place = Place::new();
    let origin = Origin::text("hello");
    let coreway = proxy(&place, HTTP);
    // Certificates are news for a configuration too, so the one that is meant is recognised by what it serves.
    coreway.replace(&format!(
        "{}[frontends.f]\nbackend = \"b\"\n",
        crate::harness::backend("b", &origin)
    ));
    eventually("other paths below reach a server", || {
        get(coreway.address(), "test", "/.well-known/other").status == 200
    });
    let answer = get(
        coreway.address(),
        "test",
        "/.well-known/acme-challenge/unknown",
    );
    assert_eq!(answer.status, 404);
}

#[test]
fn a_file_that_others_may_read_orders_nothing() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme.json");
    fs::write(&storage, "{}").unwrap();
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o644)).unwrap();
    let coreway = with_storage(&place, HTTP, &storage);
    coreway.await_log("are too open, please use 600; no certificate is ordered");
}

#[test]
fn what_the_authority_refuses_is_said_and_the_rest_is_issued() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let coreway = proxy(&place, HTTP);
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &[REFUSED, "a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let said = coreway.await_log(&format!("unable to obtain a certificate for {REFUSED}"));
    assert!(said.contains("rejectedIdentifier"), "{said}");
    assert!(said.contains("trying again in 1 min"), "{said}");
}

#[test]
fn a_proof_that_the_authority_does_not_find_is_explained() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let coreway = proxy(&place, HTTP);
    // It asks a server that knows nothing of tokens.
    let _pebble = place.open(origin.address().port(), pebble::free_port());
    coreway.replace(&rules(&origin, &["a.test"]));
    let said = coreway.await_log("unable to obtain a certificate for a.test: a.test: ");
    assert!(said.contains("unauthorized"), "{said}");
}

#[test]
fn a_clock_that_is_off_is_suspected() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().expired();
    let coreway = proxy(&place, TLS);
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    let said = coreway.await_log("unable to obtain a certificate for a.test");
    assert!(
        said.contains("is the clock of this machine right?"),
        "{said}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_kept_aside_and_certificates_are_ordered_again() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.path().join("acme.json");
    fs::write(&storage, "{\"Account\": {\"PrivateKey\": \"half of a k").unwrap();
    fs::set_permissions(&storage, fs::Permissions::from_mode(0o600)).unwrap();
    let coreway = with_storage(&place, HTTP, &storage);
    let _pebble = open(place, &coreway);
    let said = coreway.await_log("cannot be read");
    assert!(said.contains("it was put aside as"), "{said}");
    assert!(!coreway.log().contains("half of a k"));
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let aside = fs::read_dir(folder.path()).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name()?.to_str()?;
        name.starts_with("acme.json.unreadable-")
            .then_some(path.clone())
    });
    let aside = fs::read_to_string(aside.unwrap()).unwrap();
    assert!(aside.ends_with("half of a k"));
}

#[test]
fn a_wildcard_without_dns_is_left_out_with_one_line() {
    let place = Place::new();
    let domains = "[[acme.domains]]\nmain = \"*.a.test\"\nsans = [\"a.test\"]";
    let coreway = proxy(&place, &format!("{HTTP}\n{domains}"));
    let said = coreway.await_log("unable to generate a wildcard certificate for domain");
    assert!(said.contains("ACME needs a DNSChallenge"), "{said}");
    let ordered = coreway.await_log("ordering a certificate for");
    assert!(
        ordered.contains("ordering a certificate for a.test"),
        "{ordered}"
    );
}

#[test]
fn requests_to_the_authority_are_logged_if_asked_for() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    // Before the table of the challenge.
    let options = format!("acmeLogging = true\n{HTTP}");
    let coreway = with_storage(&place, &options, &folder.path().join("acme.json"));
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    coreway.await_log("legolog: POST https://localhost");
}

#[test]
fn a_name_that_a_client_asks_for_is_ordered_if_a_rule_takes_it() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let coreway = proxy(&place, &format!("onDemand = true\n{TLS}"));
    let pebble = open(place, &coreway);
    coreway.replace(&format!(
        "[backends.b.servers.s]\nurl = \"{}\"\n[frontends.f]\nbackend = \"b\"\nentryPoints = [\"https\"]\n\
         [frontends.f.routes.r]\nrule = \"HostRegexp:{{name:[a-z]+}}.demand.test\"\n",
        origin.url()
    ));
    // Who asks is not kept waiting: the first ones are shown the certificate for everybody else.
    assert!(shown(&coreway, "b.other.test")[0].ends_with(".traefik.default"));
    await_certificate(&coreway, "a.demand.test", &["a.demand.test"]);
    assert!(shown(&coreway, "b.other.test")[0].ends_with(".traefik.default"));
    assert_eq!(pebble.issued(), 1);
    assert!(!coreway.log().contains("b.other.test"));
}

/// An authority with advice, which pebble has not: it passes everything on to pebble and adds what it advises. What is
/// signed names `https://`, so a proxy stands before it.
struct Advising {
    _front: Origin,
    door: Coreway,
    told: Arc<Mutex<Told>>,
    /// The certificate that its own is signed with.
    root: PathBuf,
}

#[derive(Default)]
struct Told {
    pebble: Option<Pebble>,
    /// The certificates that it was asked about.
    asked: Vec<String>,
    /// What new orders said that they replace.
    replaced: Vec<String>,
}

impl Advising {
    fn new() -> Self {
        let told: Arc<Mutex<Told>> = Arc::default();
        let known = Arc::clone(&told);
        let front = Origin::new(move |request| known.lock().unwrap().answer(request));
        let authority = Authority::new("front");
        let folder = tempfile::tempdir().unwrap().keep();
        fs::write(folder.join("root.pem"), authority.pem()).unwrap();
        let door = Start::new()
            .entry_point(&format!(
                "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}",
                authority.issue(&["127.0.0.1"]).toml()
            ))
            .serve(&format!("{}passHostHeader = true\n", site(&front)));
        Self {
            _front: front,
            door,
            told,
            root: folder.join("root.pem"),
        }
    }
}

impl Told {
    fn answer(&mut self, request: &origin::Request) -> Vec<u8> {
        let mut words = request.head.start.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if let Some(certificate) = path.strip_prefix("/advice/") {
            // The first is to be renewed now, what comes after it in fifty years.
            let is_first = self.asked.iter().all(|asked| asked == certificate);
            self.asked.push(certificate.to_owned());
            let year = if is_first { 1980 } else { 2080 };
            let body = format!(
                "{{\"suggestedWindow\": {{\"start\": \"{year}-01-01T00:00:00Z\", \"end\": \"{year}-01-02T00:00:00Z\"}}}}"
            );
            return format!(
                "HTTP/1.1 200 OK\r\nRetry-After: 21600\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .into_bytes();
        }
        let host = request.field("host").unwrap();
        let kind = request.field("content-type").unwrap_or("text/plain");
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\nContent-Type: {kind}\r\n"
        );
        let asked = request.text();
        let answer = self.pebble.as_ref().unwrap().ask(&head, asked.as_bytes());
        let mut body = answer.body;
        let replaced = payload(&asked)["replaces"].as_str().map(str::to_owned);
        if path == "/dir" || replaced.is_some() {
            let mut document: serde_json::Value = serde_json::from_slice(&body).unwrap();
            match &replaced {
                Some(replaced) => document["replaces"] = replaced.clone().into(),
                None => document["renewalInfo"] = format!("https://{host}/advice").into(),
            }
            body = document.to_string().into_bytes();
        }
        self.replaced.extend(replaced);
        let fields = answer.head.trim_end().lines().skip(1).filter(|line| {
            let line = line.to_ascii_lowercase();
            !line.starts_with("content-length:") && !line.starts_with("connection:")
        });
        let fields: String = fields.map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {} -\r\n{fields}Content-Length: {length}\r\n\r\n",
            answer.status
        );
        if method == "HEAD" {
            return head.into_bytes();
        }
        [head.as_bytes(), &body].concat()
    }
}

/// What a request to an authority says, inside of its signature.
fn payload(request: &str) -> serde_json::Value {
    let request: serde_json::Value = serde_json::from_str(request).unwrap_or_default();
    let text = request["payload"].as_str().unwrap_or_default();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

#[test]
fn a_certificate_is_renewed_when_the_authority_wants_it() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let advising = Advising::new();
    let folder = tempfile::tempdir().unwrap();
    let coreway = Start::new()
        .variable("LEGO_CA_CERTIFICATES", &advising.root.display().to_string())
        .flag("--logLevel=DEBUG")
        .table(&format!(
            "[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
             [acme]\nstorage = \"{}\"\nentryPoint = \"https\"\nkeyType = \"EC256\"\n\
             caServer = \"https://{}/dir\"\nonHostRule = true\n{HTTP}\n",
            folder.path().join("acme.json").display(),
            advising.door.address(),
        ))
        .begin("");
    let pebble = open(Place::new(), &coreway);
    advising.told.lock().unwrap().pebble = Some(pebble);
    coreway.replace(&rules(&origin, &["a.test"]));
    let told = |what: fn(&Told) -> usize| what(&advising.told.lock().unwrap());
    eventually_within(3 * DEADLINE, "it is asked about the second", || {
        told(|told| told.asked.len()) == 2
    });
    await_certificate(&coreway, "a.test", &["a.test"]);
    let told = advising.told.lock().unwrap();
    assert_eq!(told.replaced, told.asked[..1]);
    assert_ne!(told.asked[0], told.asked[1]);
    assert_eq!(told.pebble.as_ref().unwrap().issued(), 2);
}
