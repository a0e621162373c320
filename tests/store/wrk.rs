//! What clients notice while a store changes, fails, freezes and forgets, seen by wrk: a client that is not ours, that keeps
//! the program as busy as it can be, and that counts every failure.
//!
//! Prints how many requests there were and how long they took, and fails if one of them failed. `under_load.rs` shows the same
//! with clients that also look at each answer.
//!
//! `cargo test --release --test tests store::wrk -- --ignored --nocapture --test-threads 1`

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use coreway::store::{Kind, Prefix};
use serde_json::Value;

use super::under_load::{answers, follow, put, put_a_thousand, site};
use super::{program, settings, shared_endpoint};
use crate::harness::server::{Guard, Server, is_installed};
use crate::harness::wait::pass;
use crate::harness::{Origin, heavy};

/// How long each thing that happens is looked at.
const WHILE: Duration = Duration::from_secs(2);

/// More than all of it takes; wrk is ended when it is over.
const PATIENCE: &str = "600s";

/// Asks for one frontend without end, over kept connections.
struct Wrk(Child);

impl Wrk {
    fn begin(address: SocketAddr) -> Self {
        let report = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/report.lua");
        let child = Command::new("wrk")
            .args(["-t1", "-c32", "-d", PATIENCE, "-H", "Host: steady", "-s"])
            .arg(report)
            .arg(format!("http://{address}/"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// What it measured.
    fn end(mut self) -> Value {
        let id = self.0.id().to_string();
        let asked = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(asked.success());
        let mut said = String::new();
        let mut output = self.0.stdout.take().unwrap();
        output.read_to_string(&mut said).unwrap();
        assert!(self.0.wait().unwrap().success());
        let report = said.lines().find_map(|line| line.strip_prefix("REPORT "));
        serde_json::from_str(report.unwrap()).unwrap()
    }
}

fn no_request_fails(kind: Kind) {
    if program(kind).is_some_and(|program| !is_installed(program)) {
        return;
    }
    let _alone = heavy();
    let mut server = program(kind).map(|program| Server::start(program, Guard::Open));
    let endpoint = match &server {
        Some(server) => server.endpoint(),
        None => shared_endpoint(kind),
    };
    let settings = settings(kind, &endpoint);
    let (origin, prefix) = (Origin::text("one"), settings.prefix.clone());
    put(&settings, &prefix, &site("steady", "steady", &origin.url()));
    let coreway = follow(kind, &endpoint, &prefix, "");
    answers(&coreway, "steady", "one");
    let wrk = Wrk::begin(coreway.address());
    let start = Instant::now();
    let told = |what: &str| eprintln!("{kind}: {:?} {what}", start.elapsed());
    pass(WHILE);

    put_a_thousand(&settings, &prefix, &origin.url());
    answers(&coreway, "n249.test", "one");
    told("1,000 changes are served");

    let trees = [1, 2].map(|number| Prefix::new(kind, &format!("{}-tree/{number}", prefix.name())));
    for (number, tree) in trees.iter().enumerate() {
        let mut keys = site("steady", "steady", &origin.url());
        keys.extend(site("other", &format!("tree{number}"), &origin.url()));
        put(&settings, tree, &keys);
    }
    for round in 0..6 {
        let tree = &trees[round % 2];
        put(
            &settings,
            &prefix,
            &[("alias".to_owned(), tree.name().to_owned())],
        );
        answers(&coreway, &format!("tree{}", round % 2), "one");
    }
    told("the alias was switched six times");

    if let Some(server) = &mut server {
        server.kill();
        coreway.await_log("KV connection error: ");
        pass(WHILE);
        server.run();
        put(
            &settings,
            &prefix,
            &[("alias".to_owned(), trees[0].name().to_owned())],
        );
        answers(&coreway, "tree0", "one");
        told("the store was killed, and is followed again");
        server.pause();
        pass(WHILE);
        server.go_on();
        put(
            &settings,
            &prefix,
            &[("alias".to_owned(), trees[1].name().to_owned())],
        );
        answers(&coreway, "tree1", "one");
        told("the store was frozen, and is followed again");
    }
    pass(WHILE);
    let report = wrk.end();
    eprintln!(
        "{kind}: {} requests in {:.1} s, p99 {} us, longest {} us, {} configurations, failures {}",
        report["requests"],
        report["seconds"].as_f64().unwrap(),
        report["p99_us"],
        report["max_us"],
        coreway.reloads(),
        report["errors"],
    );
    let errors = report["errors"].as_object().unwrap();
    assert!(errors.values().all(|count| count == 0), "{errors:?}");
}

/// One for each store.
macro_rules! each {
    ($($test:ident $kind:ident),* $(,)?) => {
        $(
            #[test]
            #[ignore = "half a minute; wants wrk, and prints figures"]
            fn $test() {
                no_request_fails(Kind::$kind);
            }
        )*
    };
}

each!(
    consul Consul,
    etcd_v2 EtcdV2,
    etcd_v3 EtcdV3,
    zookeeper ZooKeeper,
    boltdb BoltDb,
);
