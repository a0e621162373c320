//! Three nodes that share a store: certificates are ordered once, proved by whichever node is asked, and served by all.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use coreway::store::{Kind, Prefix, Settings, Store};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::harness::acme::{self, HTTP, TLS, await_certificate, rules, shown};
use crate::harness::pebble::{self, Pebble, Place};
use crate::harness::server::{Guard, Program, Server, is_installed};
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::{Coreway, DEADLINE, Origin, eventually, eventually_within, get};
use crate::store::{shared_endpoint, take_away};

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

/// A node with an entry point for each scheme and these rules, which shows its API beside them.
fn node(place: &Place, section: &str, name: &str, challenge: &str, rules: &str) -> Coreway {
    acme::start(place)
        .table(section)
        .table(&format!(
            "[cluster]\nnode = \"{name}\"\n[api]\nentryPoint = \"http\""
        ))
        .table(&acme::table(
            &place.directory(),
            &storage(section),
            challenge,
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
        Self::start_with(Place::new(), section, challenge)
    }

    fn start_with(place: Place, section: &str, challenge: &str) -> Self {
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

    /// How many nodes say that they lead.
    fn leaders(&self) -> usize {
        let leads = |node: &&Coreway| {
            let answer = get(node.address(), "x", "/api/cluster/leader");
            assert!([200, 429].contains(&answer.status));
            answer.status == 200
        };
        self.nodes.iter().filter(leads).count()
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

/// How soon every node has a certificate that was issued.
const LIVE: Duration = Duration::from_secs(5);

/// One order; the authority asks a node that has not ordered; all cores of all nodes serve what is issued, and soon.
fn one_order_serves_every_node(kind: Kind, challenge: &str) {
    if !is_here(kind) {
        return;
    }
    let origin = Origin::text("hello");
    let section = section(kind, &shared_endpoint(kind));
    let fleet = Fleet::start(&section, challenge);
    let mut before: Vec<TlsClient> = fleet
        .nodes
        .iter()
        .map(|node| acme::connected(node, "b.test"))
        .collect();
    let text = rules(&origin, &["a.test,b.test"]);
    fleet.replace(&text);
    let names = ["a.test", "b.test"];
    eventually_within(3 * DEADLINE, "it is issued", || fleet.pebble.issued() == 1);
    let issued = Instant::now();
    fleet.await_certificate("b.test", &names);
    let live = issued.elapsed();
    assert!(live < LIVE, "every node has it after {live:?}");
    for node in &fleet.nodes {
        // Whichever core takes the connection.
        for _ in 0..8 {
            assert_eq!(shown(node, "a.test"), names);
        }
    }
    // Connections from before are not touched.
    for client in &mut before {
        assert!(pebble::names(&client.certificate())[0].ends_with(".traefik.default"));
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
    assert_eq!(fleet.leaders(), 1);
    // A node that comes later has them, too, and so do all when another one leads.
    let late = node(fleet.pebble.place(), &section, "n4", challenge, &text);
    await_certificate(&late, "a.test", &names);
    fleet.nodes[0].signal("TERM");
    eventually_within(2 * DEADLINE, "another node leads", || {
        let leads = |node: &Coreway| node.log().contains("elected leader");
        fleet.nodes[1..].iter().chain([&late]).any(leads)
    });
    assert_eq!(shown(&late, "b.test"), names);
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
    for node in fleet.nodes.iter().chain([&late]) {
        assert!(!node.log().contains("PRIVATE KEY"));
    }
    // Nor does the API show a key, whole or in base64.
    let shown = get(late.address(), "x", "/api/providers").text();
    assert!(shown.contains("\"ACME\""), "{shown}");
    assert!(!shown.contains("BEGIN") && !shown.contains("LS0tLS1CRUdJ"));
}

/// The leader is killed between its order and the proof: the next one orders, all that are left serve.
fn an_order_of_a_leader_that_is_killed_is_taken_over(kind: Kind) {
    let Some((fleet, section, _origin)) = in_an_order(kind) else {
        return;
    };
    fleet.nodes[0].signal("KILL");
    take_away(kind, &shared_endpoint(kind), &leader_key(kind, &section));
    for node in &fleet.nodes[1..] {
        await_certificate(node, "a.test", &["a.test"]);
    }
    assert_eq!(fleet.pebble.issued(), 1);
}

/// The leader is paused there: another one orders, and when it goes on it writes nothing, and serves what the other has.
fn a_leader_that_was_paused_in_an_order_writes_nothing_of_it(kind: Kind) {
    let Some((fleet, section, _origin)) = in_an_order(kind) else {
        return;
    };
    fleet.nodes[0].signal("STOP");
    // As when its term ends in the store while it sleeps: it cannot know that from its own clock.
    take_away(kind, &shared_endpoint(kind), &leader_key(kind, &section));
    for node in &fleet.nodes[1..] {
        await_certificate(node, "a.test", &["a.test"]);
    }
    fleet.nodes[0].signal("CONT");
    fleet.nodes[0].await_log("this node does not lead any more");
    await_certificate(&fleet.nodes[0], "a.test", &["a.test"]);
    assert_eq!(fleet.pebble.issued(), 1);
    eventually("one leads", || fleet.leaders() == 1);
}

/// A fleet whose leader has shown its proof, and waits for the others to show it before the authority is told.
fn in_an_order(kind: Kind) -> Option<(Fleet, String, Origin)> {
    if !is_here(kind) {
        return None;
    }
    let origin = Origin::text("hello");
    let section = section(kind, &shared_endpoint(kind));
    let fleet = Fleet::start(&section, HTTP);
    fleet.replace(&rules(&origin, &["a.test"]));
    fleet.nodes[0].await_log("ACME: every core here answers");
    Some((fleet, section, origin))
}

/// Where it is written who leads.
fn leader_key(kind: Kind, section: &str) -> String {
    let prefix = storage(section).replace("/acme/account", "");
    Prefix::new(kind, &prefix).key("leader")
}

/// The same tests with each store, in a module named after it.
macro_rules! each_fleet {
    ($($module:ident, $kind:ident, $challenge:ident;)*) => {
        $(mod $module {
            use super::*;

            #[test]
            fn one_order_serves_every_node() {
                super::one_order_serves_every_node(Kind::$kind, $challenge);
            }

            #[test]
            fn an_order_of_a_leader_that_is_killed_is_taken_over() {
                super::an_order_of_a_leader_that_is_killed_is_taken_over(Kind::$kind);
            }

            #[test]
            fn a_leader_that_was_paused_in_an_order_writes_nothing_of_it() {
                super::a_leader_that_was_paused_in_an_order_writes_nothing_of_it(Kind::$kind);
            }
        })*
    };
}
each_fleet! {
    consul, Consul, TLS;
    etcd_v2, EtcdV2, HTTP;
    etcd_v3, EtcdV3, HTTP;
    zookeeper, ZooKeeper, TLS;
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
    let Some((fleet, ..)) = in_an_order(Kind::EtcdV3) else {
        return;
    };
    fleet.nodes[0].signal("TERM");
    for node in &fleet.nodes[1..] {
        await_certificate(node, "a.test", &["a.test"]);
    }
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

#[test]
fn what_is_issued_while_the_store_is_away_is_stored_when_it_is_back() {
    if !is_here(Kind::EtcdV3) {
        return;
    }
    let origin = Origin::text("hello");
    let mut server = Server::start(Program::Etcd, Guard::Open);
    let section = section(Kind::EtcdV3, &server.endpoint());
    // It takes its time between being told and looking.
    let fleet = Fleet::start_with(Place::new().slow(3), &section, HTTP);
    fleet.replace(&rules(&origin, &["a.test"]));
    eventually("the authority is told to look", || {
        fleet.pebble.log().contains("POST /chalZ/")
    });
    server.kill();
    let said = fleet.nodes[0].await_log("the certificate for a.test cannot be stored");
    assert!(
        said.contains("it is kept in memory until it can be"),
        "{said}"
    );
    server.run();
    fleet.await_certificate("a.test", &["a.test"]);
    fleet.nodes[0].await_log("what was issued is stored now");
    assert_eq!((fleet.orders(), fleet.pebble.issued()), (1, 1));
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
        acl: String::new(),
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
