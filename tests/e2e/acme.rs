//! Certificates that are ordered, proved, served, kept and renewed, with a real authority.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use coreway::tls::{self, Trust};

use crate::harness::pebble::{self, Pebble, Place, believing, names};
use crate::harness::tls::TlsClient;
use crate::harness::{Coreway, Origin, Start, eventually, get};

/// A proxy with an entry point for each scheme that orders from `place`; it has no rules yet.
fn proxy(place: &Place, options: &str) -> Coreway {
    let folder = tempfile::tempdir().unwrap();
    let storage = folder.keep().join("acme.json");
    with_storage(place, options, &storage)
}

fn with_storage(place: &Place, options: &str, storage: &Path) -> Coreway {
    Start::new()
        .variable("LEGO_CA_CERTIFICATES", &place.root().display().to_string())
        .global("logLevel = \"DEBUG\"")
        .table(&format!(
            "[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
             [acme]\nemail = \"t@example.com\"\nstorage = \"{}\"\nentryPoint = \"https\"\nkeyType = \"EC256\"\n\
             caServer = \"{}\"\nonHostRule = true\n{options}\n",
            storage.display(),
            place.directory(),
        ))
        .begin("")
}

const HTTP: &str = "[acme.httpChallenge]\nentryPoint = \"http\"";
const TLS: &str = "[acme.tlsChallenge]";

fn open(place: Place, coreway: &Coreway) -> Pebble {
    place.open(coreway.address().port(), coreway.address_of("https").port())
}

fn rules(origin: &Origin, hosts: &[&str]) -> String {
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
fn shown(coreway: &Coreway, name: &str) -> Vec<String> {
    let anybody = Arc::new(tls::Client::new(&Trust::Anybody).for_library());
    let client = TlsClient::connect(coreway.address_of("https"), &anybody, name).unwrap();
    names(&client.certificate())
}

#[track_caller]
fn await_certificate(coreway: &Coreway, name: &str, expected: &[&str]) {
    eventually(&format!("there is a certificate for {name}"), || {
        shown(coreway, name) == expected
    });
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
    coreway.reload(&format!(
        "{}[frontends.f]\nbackend = \"b\"\n",
        crate::harness::backend("b", &origin)
    ));
    let answer = get(
        coreway.address(),
        "test",
        "/.well-known/acme-challenge/unknown",
    );
    assert_eq!(answer.status, 404);
    assert_eq!(
        get(coreway.address(), "test", "/.well-known/other").status,
        200
    );
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
