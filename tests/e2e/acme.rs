//! Certificates that are ordered, proved, served, kept and renewed, with a real authority.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::acme::{self, HTTP, TLS, await_certificate, rules, shown};
use crate::harness::origin;
use crate::harness::pebble::{self, Pebble, Place, REFUSED, believing};
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::{
    Coreway, DEADLINE, Origin, Start, answer, eventually, eventually_within, get, holds_for, site,
};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

/// A proxy with an entry point for each scheme that orders from `place`; it has no rules yet.
fn proxy(place: &Place, options: &str) -> Coreway {
    with_storage(place, options, &acme::storage())
}

fn with_storage(place: &Place, options: &str, storage: &Path) -> Coreway {
    let storage = storage.display().to_string();
    acme::start(place)
        .table(&acme::table(&place.directory(), &storage, options))
        .begin("")
}

fn open(place: Place, coreway: &Coreway) -> Pebble {
    place.open(coreway.address().port(), coreway.address_of("https").port())
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
    let mut before = acme::connected(&coreway, "a.test");
    coreway.replace(&rules(&origin, &["a.test,b.test", "c.test"]));
    await_certificate(&coreway, "b.test", &["a.test", "b.test"]);
    await_certificate(&coreway, "c.test", &["c.test"]);
    // A connection that was there before is not touched.
    assert_eq!(before.get("/").unwrap().status, 200);
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
        .table(&acme::table(
            &directory,
            &storage.display().to_string(),
            HTTP,
        ))
        .begin(&rules(&origin, &["a.test", "new.test", "other.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let said = coreway.await_log("unable to obtain a certificate for new.test");
    assert!(said.contains("trying again in 1 min"), "{said}");
    // What would fail like it is not tried, so there is one line, whatever is missing.
    coreway.reload(&rules(&origin, &["a.test", "new.test", "newer.test"]));
    assert_eq!(shown(&coreway, "a.test"), ["a.test"]);
    holds_for(Duration::from_secs(1), "there is one line", || {
        coreway.log().matches("unable to obtain").count() == 1
    });
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

/// What 1.7 has on a disk: an account with an RSA key of 4,096 bits, a certificate that is good for a century.
const OF_1_7: &str = include_str!("../data/acme-1.7.json");

fn write_private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn what_1_7_has_in_a_file_is_served_and_stays_as_1_7_wrote_it() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let storage = acme::storage();
    write_private(&storage, OF_1_7);
    let coreway = with_storage(&place, HTTP, &storage);
    let pebble = open(place, &coreway);
    await_certificate(&coreway, "www.old.test", &["old.test", "www.old.test"]);
    coreway.replace(&rules(&origin, &["www.old.test", "new.test,b.new.test"]));
    await_certificate(&coreway, "new.test", &["b.new.test", "new.test"]);
    assert_eq!(pebble.issued(), 1);
    coreway.await_log("the account of Traefik 1.7 stays in it");
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let before = read(OF_1_7);
    let text = fs::read_to_string(&storage).unwrap();
    let after = read(&text);
    for field in ["Account", "HTTPChallenges", "TLSChallenges"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["Certificates"][0], before["Certificates"][0]);
    // As 1.7 writes it: two blanks deep, these fields, the chain and the key of OpenSSL's older form in base64.
    assert!(
        text.starts_with("{\n  \"Account\": {\n    \"Email\""),
        "{text}"
    );
    let new = &after["Certificates"][1];
    assert_eq!(
        new["Domain"],
        serde_json::json!({"Main": "new.test", "SANs": ["b.new.test"]})
    );
    let pem = |field: &str| {
        let bytes = BASE64_STANDARD.decode(new[field].as_str().unwrap());
        String::from_utf8(bytes.unwrap()).unwrap()
    };
    assert!(pem("Key").starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    assert_eq!(pem("Certificate").matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(new.as_object().unwrap().len(), 3);
    // The only thing that 1.7 does not know, and leaves out when it writes.
    let mut fields: Vec<&String> = after.as_object().unwrap().keys().collect();
    fields.retain(|field| before.get(field).is_none());
    assert_eq!(fields, ["CorewayAccount"]);
}

#[test]
fn a_certificate_whose_key_is_damaged_is_ordered_again() {
    if !pebble::is_here() {
        return;
    }
    // It is there before who asks it, whose ports it therefore does not know: it believes what it is told.
    let place = Place::new().chaos("PEBBLE_VA_ALWAYS_VALID", "1");
    let pebble = place.open(pebble::free_port(), pebble::free_port());
    let storage = acme::storage();
    let mut file: serde_json::Value = serde_json::from_str(OF_1_7).unwrap();
    let damaged = BASE64_STANDARD.encode("half a key");
    file["Certificates"][0]["Key"] = damaged.clone().into();
    write_private(&storage, &file.to_string());
    let coreway = with_storage(pebble.place(), HTTP, &storage);
    await_certificate(&coreway, "www.old.test", &["old.test", "www.old.test"]);
    let said = coreway.await_log("that is kept cannot be used");
    assert!(!said.contains("half"), "{said}");
    assert_eq!(pebble.issued(), 1);
    assert!(!fs::read_to_string(&storage).unwrap().contains(&damaged));
}

#[test]
fn what_was_issued_serves_though_nothing_can_be_ordered() {
    for (options, variables, why) in [
        (
            "[acme.dnsChallenge]\nprovider = \"alidns\"",
            None,
            "is not supported: run its client from",
        ),
        (
            "[acme.dnsChallenge]\nprovider = \"exec\"",
            None,
            "needs the variable EXEC_PATH",
        ),
        ("onHostRule = true", None, "ACME challenge not specified"),
        (
            HTTP,
            Some(("LEGO_CA_CERTIFICATES", "/nowhere.pem")),
            "LEGO_CA_CERTIFICATES: /nowhere.pem",
        ),
    ] {
        let place = Place::new();
        let storage = acme::storage();
        write_private(&storage, OF_1_7);
        let mut start = acme::start(&place);
        if let Some((name, value)) = variables {
            start = start.variable(name, value);
        }
        let storage = storage.display().to_string();
        let coreway = start
            .table(&acme::table(&place.directory(), &storage, options))
            .begin("");
        let said = coreway.await_log("no certificate is ordered");
        assert!(said.contains(why), "{said}");
        await_certificate(&coreway, "old.test", &["old.test", "www.old.test"]);
        assert_eq!(coreway.log().matches(why).count(), 1);
    }
}

/// As a container has a file that is mounted into it: another one cannot take its place.
#[test]
fn a_file_that_is_mounted_by_itself_is_written_in_place() {
    if !pebble::is_here() {
        return;
    }
    let mount = |program: &str, from: &Path, to: &Path| {
        let (from, to) = (from.display(), to.display());
        format!("mount --bind {from} {to} && exec {program}")
    };
    let apart = ["unshare", "--map-root-user", "--mount", "sh", "-c"];
    let (outside, inside) = (acme::storage(), acme::storage());
    write_private(&outside, OF_1_7);
    write_private(&inside, "");
    let allowed = Command::new(apart[0])
        .args(&apart[1..])
        .arg(mount("true", &outside, &inside))
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: nothing can be mounted here");
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let coreway = acme::start(&place)
        .within(&[&apart[..], &[&mount("\"$0\" \"$@\"", &outside, &inside)]].concat())
        // There the memory of a ring counts against the limit of a user.
        .flag("--reactor.driver=epoll")
        .table(&acme::table(
            &place.directory(),
            &inside.display().to_string(),
            HTTP,
        ))
        .begin("");
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    eventually("it is in the file", || {
        fs::read_to_string(&outside).unwrap().contains("\"a.test\"")
    });
    assert!(fs::read_to_string(&outside).unwrap().contains("old.test"));
    let mode = fs::metadata(&outside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!coreway.log().contains("cannot be written"));
}

#[test]
fn a_file_that_cannot_be_written_is_written_later_and_nothing_is_ordered_until_then() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let storage = acme::storage();
    let coreway = with_storage(&place, HTTP, &storage);
    let pebble = open(place, &coreway);
    coreway.await_log("entry point https");
    eventually("the file is there", || storage.exists());
    // Without its folder nothing can be written, whoever we are.
    let (folder, away) = (
        storage.parent().unwrap(),
        storage.parent().unwrap().with_extension("away"),
    );
    fs::rename(folder, &away).unwrap();
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    let said = coreway.await_log("cannot be written");
    assert!(said.contains("serves from memory"), "{said}");
    coreway.reload(&rules(&origin, &["a.test", "b.test"]));
    coreway.await_log("trying again in");
    assert!(!coreway.log().contains("ordering a certificate for b.test"));
    fs::rename(&away, folder).unwrap();
    await_certificate(&coreway, "b.test", &["b.test"]);
    let text = fs::read_to_string(&storage).unwrap();
    assert!(text.contains("\"a.test\"") && text.contains("\"b.test\""));
    assert_eq!(pebble.issued(), 2);
}

#[test]
fn an_account_that_the_authority_has_forgotten_is_registered_again() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new();
    let storage = acme::storage();
    let key = rcgen::KeyPair::generate().unwrap().serialize_der();
    let account = serde_json::json!({"CorewayAccount": {
        "Uri": place.directory().replace("/dir", "/my-account/4711"),
        "Directory": place.directory(),
        "PrivateKey": BASE64_STANDARD.encode(key),
    }});
    write_private(&storage, &account.to_string());
    let coreway = with_storage(&place, HTTP, &storage);
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    coreway.await_log("does not know our account any more");
    assert!(!fs::read_to_string(&storage).unwrap().contains("4711"));
}

#[test]
fn an_authority_that_gives_nobody_an_account_is_asked_once_and_not_for_each_name() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().closed();
    let coreway = proxy(&place, HTTP);
    let _pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test", "b.test", "c.test"]));
    let said = coreway.await_log("unable to obtain a certificate for");
    assert!(said.contains("externalAccountRequired"), "{said}");
    assert!(said.contains("trying again in 1 min"), "{said}");
    coreway.reload(&rules(&origin, &["a.test", "b.test", "d.test"]));
    holds_for(Duration::from_secs(1), "there is one line", || {
        coreway.log().matches("unable to obtain").count() == 1
    });
}

#[test]
fn an_authority_that_is_overloaded_is_left_alone_for_as_long_as_it_says() {
    let origin = Origin::text("hello");
    let front = Origin::new(|_| {
        let body = "<h1>Service Unavailable</h1>";
        format!(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/html\r\nRetry-After: 10800\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let (door, root) = door(&front);
    let coreway = Start::new()
        .variable("LEGO_CA_CERTIFICATES", &root.display().to_string())
        .table(&acme::table(
            &format!("https://{}/dir", door.address()),
            &acme::storage().display().to_string(),
            HTTP,
        ))
        .begin(&rules(&origin, &["a.test", "b.test"]));
    let said = coreway.await_log("unable to obtain a certificate for a.test");
    assert!(
        said.contains("it answers 503 Service Unavailable"),
        "{said}"
    );
    assert!(said.contains("trying again in 3 h"), "{said}");
    assert_eq!(coreway.log().matches("unable to obtain").count(), 1);
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

/// With a clock that is ahead every certificate is due when it is issued, and so is one of an authority that gives it a second.
#[test]
fn certificates_that_are_over_at_once_are_not_ordered_without_end() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().issuing_for(1);
    let coreway = proxy(&place, HTTP);
    let pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    let told = || {
        coreway
            .log()
            .matches("is the clock of this machine right?")
            .count()
    };
    eventually_within(3 * DEADLINE, "it is said twice", || told() == 2);
    // It goes on with what else there is to do.
    coreway.replace(&rules(&origin, &["a.test", "b.test"]));
    await_certificate(&coreway, "b.test", &["b.test"]);
    eventually_within(3 * DEADLINE, "it is said for both", || told() == 4);
    assert_eq!(pebble.issued(), 4);
    assert_eq!(shown(&coreway, "a.test"), ["a.test"]);
}

/// Far more of them than the library tries again by itself.
#[test]
fn nonces_that_are_refused_cost_no_certificate() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().chaos("PEBBLE_WFE_NONCEREJECT", "20");
    let coreway = proxy(&place, &format!("acmeLogging = true\n{HTTP}"));
    let pebble = open(place, &coreway);
    let names = ["a.test", "b.test", "c.test", "d.test"];
    coreway.replace(&rules(&origin, &names));
    for name in names {
        await_certificate(&coreway, name, &[name]);
    }
    let log = coreway.log();
    assert!(log.contains(": 400 Bad Request"), "none was refused");
    assert_eq!(pebble.issued(), 4);
}

#[test]
fn a_proof_that_the_authority_remembers_is_not_asked_for_again() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().chaos("PEBBLE_AUTHZREUSE", "100");
    let coreway = proxy(&place, TLS);
    let pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test"]));
    await_certificate(&coreway, "a.test", &["a.test"]);
    // One proof is old, one is new; then both are old.
    coreway.replace(&rules(
        &origin,
        &["a.test,b.test", "a.test", "b.test,a.test"],
    ));
    await_certificate(&coreway, "b.test", &["a.test", "b.test"]);
    assert_eq!(pebble.issued(), 2);
}

#[test]
fn an_authority_that_takes_its_time_is_waited_for() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let place = Place::new().slow(10);
    let coreway = proxy(&place, HTTP);
    let pebble = open(place, &coreway);
    coreway.replace(&rules(&origin, &["a.test,b.test"]));
    await_certificate(&coreway, "b.test", &["a.test", "b.test"]);
    assert_eq!(pebble.issued(), 1);
    assert!(!coreway.log().contains("unable to obtain"));
}

#[test]
fn proofs_over_an_entry_point_that_is_not_there_are_said_at_once() {
    let place = Place::new();
    let options = HTTP.replace("\"http\"", "\"nowhere\"");
    let coreway = proxy(&place, &options);
    let said = coreway.await_log("acme.httpChallenge.entryPoint");
    assert!(
        said.contains("there is no entry point") && said.contains("nowhere"),
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
    write_private(&storage, "{\"Account\": {\"PrivateKey\": \"half of a k");
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
    // Before the table of the challenge.
    let coreway = proxy(&place, &format!("acmeLogging = true\n{HTTP}"));
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
    /// It has no time for advice.
    is_overloaded: bool,
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
        let (door, root) = door(&front);
        Self {
            _front: front,
            door,
            told,
            root,
        }
    }

    /// A proxy that orders from it.
    fn proxy(&self, storage: &Path) -> Coreway {
        Start::new()
            .variable("LEGO_CA_CERTIFICATES", &self.root.display().to_string())
            .flag("--logLevel=DEBUG")
            .table(&acme::table(
                &format!("https://{}/dir", self.door.address()),
                &storage.display().to_string(),
                HTTP,
            ))
            .begin("")
    }
}

#[test]
fn an_authority_without_time_for_advice_is_not_asked_about_every_certificate() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let advising = Advising::new();
    let storage = acme::storage();
    let coreway = advising.proxy(&storage);
    let pebble = open(Place::new(), &coreway);
    {
        let mut told = advising.told.lock().unwrap();
        told.is_overloaded = true;
        told.pebble = Some(pebble);
    }
    let names = ["a.test", "b.test", "c.test"];
    coreway.replace(&rules(&origin, &names));
    for name in names {
        await_certificate(&coreway, name, &[name]);
    }
    let asked = || advising.told.lock().unwrap().asked.len();
    eventually("it was asked about each when it was new", || asked() == 3);
    drop(coreway);
    let coreway = advising.proxy(&storage);
    coreway.replace(&rules(&origin, &names));
    eventually("it is asked again", || asked() > 3);
    holds_for(Duration::from_secs(1), "about one of them", || asked() == 4);
    assert_eq!(shown(&coreway, "a.test"), ["a.test"]);
}

/// A proxy with TLS before an authority that speaks without, and the file with what its certificate comes from.
fn door(front: &Origin) -> (Coreway, PathBuf) {
    let authority = Authority::new("front");
    let root = tempfile::tempdir().unwrap().keep().join("root.pem");
    fs::write(&root, authority.pem()).unwrap();
    let door = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}",
            authority.issue(&["127.0.0.1"]).toml()
        ))
        .serve(&format!("{}passHostHeader = true\n", site(front)));
    (door, root)
}

impl Told {
    fn answer(&mut self, request: &origin::Request) -> Vec<u8> {
        let mut words = request.head.start.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if let Some(certificate) = path.strip_prefix("/advice/") {
            // The first is to be renewed now, what comes after it in fifty years.
            let is_first = self.asked.iter().all(|asked| asked == certificate);
            self.asked.push(certificate.to_owned());
            if self.is_overloaded {
                return answer(503, "later");
            }
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
    let coreway = advising.proxy(&acme::storage());
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
