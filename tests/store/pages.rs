//! What is shown of a store: `/api/stores`, and the commands that only look.

use std::process::Command;

use coreway::store::{self, Kind, Prefix};
use serde_json::Value;

use super::{each_store, run, settings, shared, shared_endpoint};
use crate::harness::coreway::BINARY;
use crate::harness::server::{Guard, Program, Server, is_installed};
use crate::harness::{Coreway, eventually, get};

each_store!(what_is_known_of_a_store_is_shown);

/// The section of a store, and what its provider is called.
fn names(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Consul => ("consul", "consul"),
        Kind::EtcdV2 => ("etcd", "etcd"),
        Kind::EtcdV3 => ("etcd", "etcdv3"),
        Kind::ZooKeeper => ("zookeeper", "zk"),
        Kind::BoltDb => ("boltdb", "boltdb"),
    }
}

/// Flags that name a store.
fn flags(kind: Kind, endpoint: &str, prefix: &Prefix) -> Vec<String> {
    let (section, _) = names(kind);
    let mut flags = vec![
        format!("--{section}.endpoint={endpoint}"),
        format!("--{section}.prefix={}", prefix.name()),
        "--entryPoints=Name:http Address:127.0.0.1:0".to_owned(),
        "--entryPoints=Name:traefik Address:127.0.0.1:0".to_owned(),
        "--defaultEntryPoints=http".to_owned(),
        "--logLevel=INFO".to_owned(),
        "--api".to_owned(),
        "--providersThrottleDuration=20ms".to_owned(),
        "--reactor.cores=1".to_owned(),
        "--reactor.pin=false".to_owned(),
    ];
    if kind == Kind::EtcdV3 {
        flags.push("--etcd.useapiv3".to_owned());
    }
    flags
}

fn put(kind: Kind, endpoint: &str, prefix: &Prefix, keys: &[(&str, &str)]) {
    run(async {
        let store = store::open(&settings(kind, endpoint)).unwrap();
        for (key, value) in keys {
            store.put(&prefix.key(key), value.as_bytes()).await.unwrap();
        }
    });
}

const KEYS: [(&str, &str); 4] = [
    ("backends/b/servers/s/url", "http://127.0.0.1:1"),
    ("frontends/f/backend", "b"),
    ("frontends/f/routes/r/rule", "Host:a.example"),
    ("frontends/f/priority", "many"),
];

#[track_caller]
fn page(coreway: &Coreway, target: &str) -> Value {
    let text = get(coreway.address_of("traefik"), "test", target).text();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{target}: {text}"))
}

fn what_is_known_of_a_store_is_shown(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let endpoint = shared_endpoint(kind);
    put(kind, &endpoint, &prefix, &KEYS);
    let flags = flags(kind, &endpoint, &prefix);
    let coreway = Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None);
    coreway.await_log("(entry point traefik,");
    let (section, provider) = names(kind);
    eventually("its configuration is shown", || {
        page(&coreway, "/api")[provider]["frontends"]["f"]["backend"] == "b"
    });
    let shown = page(&coreway, "/api/stores");
    let store = &shown[0];
    assert_eq!(store["provider"], provider);
    assert_eq!(store["prefix"], prefix.name());
    // The name of the leader may be among them.
    assert!(
        store["keys"].as_u64().unwrap() >= KEYS.len() as u64,
        "{store}"
    );
    assert_eq!(store["is_doubted"], false);
    assert!(store["index"].is_string(), "{store}");
    assert!(store["age_sec"].is_number(), "{store}");
    assert_eq!(store.get("error"), None, "{store}");

    let wrong = prefix.key("frontends/f/priority");
    let wrong = wrong.trim_start_matches('/');
    let told = page(&coreway, "/api/rejections");
    let is_it = |told: &Value| {
        let place = told["place"].as_str().unwrap();
        place.trim_start_matches('/').ends_with(wrong) && told["severity"] == "error"
    };
    assert!(told.as_array().unwrap().iter().any(is_it), "{told}");

    // The commands read the same tree, and the key that is wrong is named.
    let look = |command: &[&str]| {
        let output = Command::new(BINARY)
            .args(command)
            .args(&flags)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, said) = look(&["check"]);
    assert_eq!(code, Some(1), "{said}");
    let found = said.lines().find(|line| line.contains(wrong));
    assert!(
        found.is_some_and(|line| line.starts_with("error: ")),
        "{said}"
    );
    let (code, said) = look(&["explain", "GET", "http://a.example/"]);
    assert_eq!(code, Some(0));
    let expected = format!("frontend      f of provider {provider}, priority 14");
    assert!(said.contains(&expected), "{section}: {said}");
}

#[test]
fn a_store_that_is_lost_is_shown_with_its_error_and_what_it_said_stays() {
    if !is_installed(Program::Etcd) {
        return;
    }
    let mut server = Server::start(Program::Etcd, Guard::Open);
    let prefix = Prefix::new(Kind::EtcdV3, "traefik");
    put(Kind::EtcdV3, &server.endpoint(), &prefix, &KEYS);
    let mut flags = flags(Kind::EtcdV3, &server.endpoint(), &prefix);
    flags.push("--cluster.node=me".to_owned());
    let coreway = Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None);
    coreway.await_log("(entry point traefik,");
    let frontends = || page(&coreway, "/api")["etcdv3"]["frontends"].clone();
    eventually("its configuration is shown", || {
        frontends()["f"]["backend"] == "b"
    });
    eventually("the only node leads", || {
        let answer = get(coreway.address_of("traefik"), "test", "/api/cluster/leader");
        answer.status == 200 && answer.text() == r#"{"leader":true,"leader_node":"me"}"#
    });
    server.kill();
    eventually("the loss is shown", || {
        page(&coreway, "/api/stores")[0]["error"].is_string()
    });
    let store = page(&coreway, "/api/stores")[0].clone();
    assert!(store["index"].is_string(), "{store}");
    assert!(store["failing_since"].is_string(), "{store}");
    assert_eq!(frontends()["f"]["backend"], "b");
    server.run();
    eventually("it is followed again", || {
        page(&coreway, "/api/stores")[0].get("error").is_none()
    });
}
