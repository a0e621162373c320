//! Three nodes that share a store: certificates are ordered once, proved by whichever node is asked, and served by all.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coreway::store::{Kind, Prefix, Settings, Store};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::acme::{HTTP, TLS, await_certificate, rules, shown};
use crate::harness::pebble::{self, Pebble, Place};
use crate::harness::server::{Guard, Program, Server, is_installed};
use crate::harness::tls::Authority;
use crate::harness::{Coreway, DEADLINE, Origin, Start, eventually, eventually_within};
use crate::store::shared_endpoint;

/// The section of a store, with a prefix that no other test has.
fn section(kind: Kind, endpoint: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let (name, more) = match kind {
        Kind::Consul => ("consul", ""),
        Kind::EtcdV2 => ("etcd", ""),
        Kind::EtcdV3 => ("etcd", "useAPIV3 = true\n"),
        Kind::ZooKeeper => ("zookeeper", ""),
        Kind::BoltDb => ("boltdb", ""),
    };
    format!("[{name}]\nendpoint = \"{endpoint}\"\nprefix = \"fleet/{number}\"\n{more}")
}

/// The key of the account below the prefix of a section.
fn storage(section: &str) -> String {
    let prefix = section.split("prefix = \"").nth(1).unwrap();
    format!("{}/acme/account", prefix.split('"').next().unwrap())
}

/// A node with an entry point for each scheme and these rules.
fn node(place: &Place, section: &str, name: &str, challenge: &str, rules: &str) -> Coreway {
    Start::new()
        .variable("LEGO_CA_CERTIFICATES", &place.root().display().to_string())
        .flag("--logLevel=DEBUG")
        .table(section)
        .table(&format!(
            "[cluster]\nnode = \"{name}\"\n[entryPoints.https]\naddress = \"127.0.0.1:0\"\n[entryPoints.https.tls]\n\
             [acme]\nemail = \"t@example.com\"\nstorage = \"{}\"\nentryPoint = \"https\"\nkeyType = \"EC256\"\n\
             caServer = \"{}\"\nonHostRule = true\n{challenge}\n",
            storage(section),
            place.directory(),
        ))
        .begin(rules)
}

/// Three nodes, of which the first leads, and an authority that asks the third.
struct Fleet {
    nodes: Vec<Coreway>,
    pebble: Pebble,
}

impl Fleet {
    fn start(section: &str, challenge: &str) -> Self {
        let place = Place::new();
        let first = node(&place, section, "n1", challenge, "");
        first.await_log("Node n1 elected leader");
        let second = node(&place, section, "n2", challenge, "");
        let third = node(&place, section, "n3", challenge, "");
        let (http, tls) = (third.address().port(), third.address_of("https").port());
        Self {
            nodes: vec![first, second, third],
            pebble: place.open(http, tls),
        }
    }

    fn replace(&self, rules: &str) {
        for node in &self.nodes {
            node.replace(rules);
        }
    }

    #[track_caller]
    fn await_certificate(&self, name: &str, names: &[&str]) {
        for node in &self.nodes {
            await_certificate(node, name, names);
        }
    }

    /// Orders that were begun, by any node.
    fn orders(&self) -> usize {
        let of = |node: &Coreway| node.log().matches("ACME: ordering a certificate").count();
        self.nodes.iter().map(of).sum()
    }
}

fn is_here(kind: Kind) -> bool {
    let program = match kind {
        Kind::Consul => Some(Program::Consul),
        Kind::EtcdV2 | Kind::EtcdV3 => Some(Program::Etcd),
        Kind::ZooKeeper => Some(Program::ZooKeeper),
        Kind::BoltDb => None,
    };
    pebble::is_here() && program.is_none_or(is_installed)
}

/// One order; the authority asks a node that has not ordered; all nodes serve what is issued.
fn check_fleet(kind: Kind, challenge: &str) {
    if !is_here(kind) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(kind, &shared_endpoint(kind));
    let fleet = Fleet::start(&section, challenge);
    let text = rules(&origin, &["a.test,b.test"]);
    fleet.replace(&text);
    fleet.await_certificate("b.test", &["a.test", "b.test"]);
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
    // A node that comes later has them, too, and so do all when another one leads.
    let late = node(fleet.pebble.place(), &section, "n4", challenge, &text);
    await_certificate(&late, "a.test", &["a.test", "b.test"]);
    fleet.nodes[0].signal("TERM");
    eventually_within(2 * DEADLINE, "another node leads", || {
        let leads = |node: &Coreway| node.log().contains("elected leader");
        fleet.nodes[1..].iter().chain([&late]).any(leads)
    });
    assert_eq!(shown(&late, "b.test"), ["a.test", "b.test"]);
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
    for node in fleet.nodes.iter().chain([&late]) {
        assert!(!node.log().contains("PRIVATE KEY"));
    }
}

#[test]
fn etcd_carries_what_any_node_proves_over_http() {
    check_fleet(Kind::EtcdV3, HTTP);
}

#[test]
fn etcd_carries_what_any_node_proves_in_handshakes() {
    check_fleet(Kind::EtcdV3, TLS);
}

#[test]
fn consul_carries_what_any_node_proves() {
    check_fleet(Kind::Consul, TLS);
}

#[test]
fn zookeeper_carries_what_any_node_proves() {
    check_fleet(Kind::ZooKeeper, HTTP);
}

#[test]
fn a_file_of_boltdb_keeps_what_one_node_orders() {
    if !pebble::is_here() {
        return;
    }
    let origin = Origin::text("hello");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kv.db").display().to_string();
    let section = section(Kind::BoltDb, &path);
    let place = Place::new();
    let text = rules(&origin, &["a.test"]);
    let coreway = node(&place, &section, "n1", HTTP, "");
    let (http, tls) = (coreway.address().port(), coreway.address_of("https").port());
    let pebble = place.open(http, tls);
    coreway.replace(&text);
    await_certificate(&coreway, "a.test", &["a.test"]);
    drop(coreway);
    let again = node(pebble.place(), &section, "n1", HTTP, &text);
    await_certificate(&again, "a.test", &["a.test"]);
    assert_eq!(pebble.issued(), 1);
}

#[test]
fn an_order_of_a_leader_that_stops_is_taken_over() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(Kind::EtcdV3, &shared_endpoint(Kind::EtcdV3));
    let fleet = Fleet::start(&section, HTTP);
    fleet.replace(&rules(&origin, &["a.test"]));
    fleet.nodes[0].await_log("ACME: every core here answers");
    fleet.nodes[0].signal("TERM");
    for node in &fleet.nodes[1..] {
        await_certificate(node, "a.test", &["a.test"]);
    }
}

#[test]
fn a_leader_that_was_paused_in_an_order_writes_nothing_of_it() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(Kind::EtcdV3, &shared_endpoint(Kind::EtcdV3));
    let fleet = Fleet::start(&section, HTTP);
    fleet.replace(&rules(&origin, &["a.test"]));
    fleet.nodes[0].await_log("ACME: every core here answers");
    fleet.nodes[0].signal("STOP");
    // As when its term ends in the store while it sleeps: it cannot know that from its own clock.
    let lock = Prefix::new(
        Kind::EtcdV3,
        &storage(&section).replace("acme/account", "leader___lock"),
    );
    with_store(Kind::EtcdV3, async |store| {
        store.delete_below(&lock).await.unwrap();
    });
    for node in &fleet.nodes[1..] {
        await_certificate(node, "a.test", &["a.test"]);
    }
    fleet.nodes[0].signal("CONT");
    fleet.nodes[0].await_log("this node does not lead any more");
    await_certificate(&fleet.nodes[0], "a.test", &["a.test"]);
    assert_eq!(fleet.pebble.issued(), 1);
}

#[test]
fn a_store_that_is_lost_in_an_order_takes_nothing_away() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let mut server = Server::start(Program::Etcd, Guard::Open);
    let section = section(Kind::EtcdV3, &server.endpoint());
    let fleet = Fleet::start(&section, HTTP);
    fleet.replace(&rules(&origin, &["a.test"]));
    fleet.await_certificate("a.test", &["a.test"]);
    fleet.replace(&rules(&origin, &["a.test", "b.test"]));
    fleet.nodes[0].await_log("ACME: ordering a certificate for b.test");
    server.kill();
    eventually(
        "it says that the order failed, or could not be stored",
        || {
            let log = fleet.nodes[0].log();
            log.contains("unable to obtain a certificate for b.test")
                || log.contains("the certificate for b.test cannot be stored")
        },
    );
    for node in &fleet.nodes {
        assert_eq!(shown(node, "a.test"), ["a.test"]);
    }
}

/// Does something with the store itself, as another node would.
fn with_store<T>(kind: Kind, work: impl AsyncFnOnce(Arc<dyn Store>) -> T) -> T {
    let settings = Settings {
        kind,
        endpoints: vec![shared_endpoint(kind)],
        prefix: Prefix::new(kind, "unused"),
        watches: true,
        credentials: None,
        tls: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(work(coreway::store::open(&settings).unwrap()))
}

#[test]
fn what_1_7_has_in_the_store_is_served_and_stays() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(Kind::EtcdV3, &shared_endpoint(Kind::EtcdV3));
    let pair = Authority::new("old").issue(&["old.test"]);
    let object = serde_json::json!({
        "Email": "old@example.com", "Registration": {"uri": "https://ca/1"}, "PrivateKey": "AAEC", "KeyType": "P256",
        "DomainsCertificate": {"Certs": [{
            "Domains": {"Main": "old.test", "SANs": null},
            "Certificate": {
                "Domain": "old.test", "CertURL": "https://ca/2", "CertStableURL": "https://ca/2",
                "PrivateKey": BASE64_STANDARD.encode(&pair.key), "Certificate": BASE64_STANDARD.encode(&pair.chain),
            },
        }]},
        "ChallengeCerts": {}, "HTTPChallenge": {},
    });
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(object.to_string().as_bytes()).unwrap();
    let key = format!("{}/object", storage(&section));
    let packed = gzip.finish().unwrap();
    with_store(Kind::EtcdV3, async |store| {
        store.put(&key, &packed).await.unwrap()
    });
    let fleet = Fleet::start(&section, HTTP);
    fleet.replace(&rules(&origin, &["old.test", "new.test"]));
    fleet.await_certificate("old.test", &["old.test"]);
    fleet.await_certificate("new.test", &["new.test"]);
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
    let packed = with_store(Kind::EtcdV3, async |store| {
        store.get(&key).await.unwrap().unwrap().value
    });
    let mut text = String::new();
    GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
    let after: serde_json::Value = serde_json::from_str(&text).unwrap();
    for field in ["Email", "Registration", "PrivateKey", "KeyType"] {
        assert_eq!(after[field], object[field], "{field}");
    }
    let certificates = &after["DomainsCertificate"]["Certs"];
    assert_eq!(certificates[0], object["DomainsCertificate"]["Certs"][0]);
    assert_eq!(certificates[1]["Domains"]["Main"], "new.test");
}

#[test]
fn an_account_in_the_store_that_cannot_be_read_is_left_alone() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(Kind::EtcdV3, &shared_endpoint(Kind::EtcdV3));
    let key = format!("{}/object", storage(&section));
    let broken = b"{\"PrivateKey\": \"half of a k";
    with_store(Kind::EtcdV3, async |store| {
        store.put(&key, broken).await.unwrap()
    });
    let place = Place::new();
    let coreway = node(&place, &section, "n1", HTTP, &rules(&origin, &["a.test"]));
    let said = coreway.await_log("cannot be read");
    assert!(
        said.contains("nothing is ordered until it is put right"),
        "{said}"
    );
    coreway.await_log("trying again in");
    assert!(!coreway.log().contains("half of a k"));
    let left = with_store(Kind::EtcdV3, async |store| store.get(&key).await.unwrap());
    assert_eq!(&*left.unwrap().value, broken);
}
