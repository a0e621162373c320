//! The program serves from a store while that changes, fails, freezes and forgets: no request is lost in any of it.
//!
//! Each test has clients that ask for one frontend without end ([`Load`]), and does to the store what an operator, or bad
//! luck, does. What stands on a server of its own is in one test for each store: starting them takes longest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coreway::store::{self, Credentials, Kind, Prefix, Settings, Store, Tls};
use tokio::task::JoinSet;

use super::{
    each_store, program, run, section, settings, shared, shared_endpoint, store_flags, within,
};
use crate::harness::load::Load;
use crate::harness::server::{Guard, Program, Server, TOKEN, is_installed};
use crate::harness::{Coreway, Origin, Start, eventually, eventually_within, get, heavy};

each_store!(
    a_thousand_changes_at_once_lose_no_request,
    an_alias_is_switched_without_losing_a_request,
    garbage_costs_only_what_it_is_in,
    a_quiet_store_costs_nothing,
);

/// Every store may take this long to write, or to come back.
const PATIENCE: Duration = Duration::from_secs(60);

/// A frontend `name` for a host with one server, its backend's name last.
pub(super) fn site(name: &str, host: &str, url: &str) -> Vec<(String, String)> {
    [
        (format!("backends/{name}/servers/s/url"), url.to_owned()),
        (
            format!("frontends/{name}/routes/r/rule"),
            format!("Host:{host}"),
        ),
        (format!("frontends/{name}/priority"), "10".to_owned()),
        (format!("frontends/{name}/backend"), name.to_owned()),
    ]
    .into()
}

/// One after the other, each until the store takes it: right after a start or a pause it may not yet.
async fn write(store: &Arc<dyn Store>, prefix: &Prefix, keys: &[(String, String)]) {
    for (key, value) in keys {
        let key = prefix.key(key);
        let written = async { while store.put(&key, value.as_bytes()).await.is_err() {} };
        within(written).await;
    }
}

/// With a client of its own, whose connection ends with it.
pub(super) fn put(settings: &Settings, prefix: &Prefix, keys: &[(String, String)]) {
    run(async { write(&store::open(settings).unwrap(), prefix, keys).await });
}

/// The program with its rules below a prefix, and nothing else there.
pub(super) fn follow(kind: Kind, endpoint: &str, prefix: &Prefix, further: &str) -> Coreway {
    let section = section(kind);
    let version = if kind == Kind::EtcdV3 {
        "useAPIV3 = true\n"
    } else {
        ""
    };
    let settings = format!(
        "defaultEntryPoints = ['http']\n[entryPoints.http]\naddress = '127.0.0.1:0'\n\
         [{section}]\nendpoint = '{endpoint}'\nprefix = '{}'\n{version}{further}",
        prefix.name(),
    );
    Start::new()
        .variable("CONSUL_HTTP_TOKEN", TOKEN)
        .with_settings(&settings, |_| ())
}

/// 250 frontends `n<number>` for `n<number>.test`, a thousand keys, written at once.
pub(super) fn put_a_thousand(settings: &Settings, prefix: &Prefix, url: &str) {
    let changes: Vec<_> = (0..250)
        .flat_map(|number| {
            let name = format!("n{number}");
            site(&name, &format!("{name}.test"), url)
        })
        .map(|(key, value)| (prefix.key(&key), Bytes::from(value)))
        .collect();
    assert_eq!(changes.len(), 1000);
    run(async {
        let store = store::open(settings).unwrap();
        // Each write of a file is of the whole file: there it is a few transactions, elsewhere each key for itself. Whole
        // frontends for each writer: one without its rule takes every request.
        let mut writers = JoinSet::new();
        for some in changes.chunks(100) {
            let (store, some) = (Arc::clone(&store), some.to_vec());
            writers.spawn(async move { store.put_all(&some).await.unwrap() });
        }
        writers.join_all().await;
    });
}

#[track_caller]
pub(super) fn answers(coreway: &Coreway, host: &str, expected: &str) {
    eventually_within(
        PATIENCE,
        &format!("{host} is answered by {expected}"),
        || get(coreway.address(), host, "/").text() == expected,
    );
}

fn a_thousand_changes_at_once_lose_no_request(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let _alone = heavy();
    let (origin, endpoint) = (Origin::text("one"), shared_endpoint(kind));
    let settings = settings(kind, &endpoint);
    put(&settings, &prefix, &site("steady", "steady", &origin.url()));
    let coreway = follow(kind, &endpoint, &prefix, "");
    answers(&coreway, "steady", "one");
    let load = Load::begin(coreway.address(), "steady", &["one"]);
    let before = coreway.reloads();
    put_a_thousand(&settings, &prefix, &origin.url());
    for number in [0, 100, 249] {
        answers(&coreway, &format!("n{number}.test"), "one");
    }
    load.goes_on(50);
    let reloads = coreway.reloads() - before;
    assert!(
        reloads < 500,
        "1,000 changes are not 1,000 configurations: {reloads}"
    );
    load.end();
}

fn an_alias_is_switched_without_losing_a_request(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let origins = [Origin::text("one"), Origin::text("two")];
    let endpoint = shared_endpoint(kind);
    let settings = settings(kind, &endpoint);
    let trees = [1, 2].map(|number| Prefix::new(kind, &format!("{}-tree/{number}", prefix.name())));
    for (tree, origin) in trees.iter().zip(&origins) {
        put(&settings, tree, &site("f", "host", &origin.url()));
    }
    let switch = |to: usize| {
        let alias = ("alias".to_owned(), trees[to].name().to_owned());
        put(&settings, &prefix, &[alias]);
    };
    switch(0);
    let coreway = follow(kind, &endpoint, &prefix, "");
    answers(&coreway, "host", "one");
    let load = Load::begin(coreway.address(), "host", &["one", "two"]);
    for round in 1..=6 {
        switch(round % 2);
        answers(&coreway, "host", ["one", "two"][round % 2]);
        load.goes_on(20);
    }
    // A tree that is not there changes nothing.
    put(
        &settings,
        &prefix,
        &[("alias".to_owned(), format!("{}-none", prefix.name()))],
    );
    coreway.await_log("which the alias names");
    load.goes_on(20);
    switch(1);
    answers(&coreway, "host", "two");
    load.end();
}

fn garbage_costs_only_what_it_is_in(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let (origin, endpoint) = (Origin::text("one"), shared_endpoint(kind));
    let settings = settings(kind, &endpoint);
    put(&settings, &prefix, &site("good", "good", &origin.url()));
    let coreway = follow(kind, &endpoint, &prefix, "");
    answers(&coreway, "good", "one");
    let load = Load::begin(coreway.address(), "good", &["one"]);
    let long = "x".repeat(200_000);
    let mut garbage: Vec<(&str, &[u8])> = vec![
        ("frontends/bad/routes/r/rule", b"Nonsense:/"),
        ("frontends/bad/backend", b"good"),
        ("frontends/odd/priority", b"high"),
        ("frontends/odd/routes/r/rule", b"Host:odd"),
        ("frontends/odd/backend", b"good"),
        ("frontends/long/routes/r/rule", long.as_bytes()),
        ("frontends/long/backend", b"good"),
        ("backends/lost/servers/s/weight", b"many"),
        ("backends/lost/servers/s/url", b"::::"),
        ("frontends/lost/backend", b"lost"),
        (
            "frontends/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x/x",
            b"deep",
        ),
        ("tls/1/certificate/certfile", b"no certificate"),
        ("tls/1/certificate/keyfile", b"no key"),
    ];
    // One that only holds text says so when it is written.
    if kind != Kind::EtcdV2 {
        garbage.push(("frontends/bytes/routes/r/rule", b"\xff\xfe\0"));
        garbage.push(("frontends/bytes/backend", b"good"));
    }
    run(async {
        let store = store::open(&settings).unwrap();
        for (key, value) in &garbage {
            within(store.put(&prefix.key(key), value)).await.unwrap();
        }
    });
    put(&settings, &prefix, &site("last", "last", &origin.url()));
    answers(&coreway, "last", "one");
    answers(&coreway, "odd", "one");
    for place in ["frontends/bad", "frontends/odd/priority", "backends/lost"] {
        coreway.await_log(place);
    }
    load.goes_on(20);
    load.end();
    coreway.assert_runs();
}

fn a_quiet_store_costs_nothing(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let (origin, endpoint) = (Origin::text("one"), shared_endpoint(kind));
    let settings = settings(kind, &endpoint);
    let keys: Vec<_> = (0..50)
        .flat_map(|number| site(&format!("f{number}"), &format!("h{number}"), &origin.url()))
        .map(|(key, value)| (prefix.key(&key), Bytes::from(value)))
        .collect();
    run(async {
        let store = store::open(&settings).unwrap();
        within(store.put_all(&keys)).await.unwrap();
    });
    let coreway = follow(kind, &endpoint, &prefix, "");
    answers(&coreway, "h49", "one");
    // Counted is what this process used, not how long it took: others may be busy. A poll without a pause would be all of it.
    let used = coreway.cpu_time_during(Duration::from_secs(2));
    assert!(used < Duration::from_millis(200), "{used:?} in two seconds");
}

/// The same tests for each store that has a server.
macro_rules! each_server {
    ($($test:ident),* $(,)?) => {
        mod own {
            mod consul { $( #[test] fn $test() { super::super::$test(coreway::store::Kind::Consul); } )* }
            mod etcd_v2 { $( #[test] fn $test() { super::super::$test(coreway::store::Kind::EtcdV2); } )* }
            mod etcd_v3 { $( #[test] fn $test() { super::super::$test(coreway::store::Kind::EtcdV3); } )* }
            mod zookeeper { $( #[test] fn $test() { super::super::$test(coreway::store::Kind::ZooKeeper); } )* }
        }
    };
}
each_server!(a_store_that_dies_freezes_and_forgets_loses_no_request);

fn a_store_that_dies_freezes_and_forgets_loses_no_request(kind: Kind) {
    let program = program(kind).expect("it has a server");
    if !is_installed(program) {
        return;
    }
    let mut server = Server::start(program, Guard::Open);
    let settings = settings(kind, &server.endpoint());
    let (origin, prefix) = (Origin::text("one"), settings.prefix.clone());
    put(&settings, &prefix, &site("steady", "steady", &origin.url()));
    let coreway = follow(kind, &server.endpoint(), &prefix, "");
    answers(&coreway, "steady", "one");
    let load = Load::begin(coreway.address(), "steady", &["one"]);

    server.kill();
    coreway.await_log("KV connection error: ");
    load.goes_on(50);
    server.run();
    put(&settings, &prefix, &site("killed", "killed", &origin.url()));
    answers(&coreway, "killed", "one");

    server.pause();
    load.goes_on(200);
    server.go_on();
    put(&settings, &prefix, &site("frozen", "frozen", &origin.url()));
    answers(&coreway, "frozen", "one");

    server.kill();
    server.lose();
    server.run();
    eventually_within(PATIENCE, "what is lost is doubted", || {
        coreway.log().contains("has come back without our keys")
    });
    load.goes_on(50);
    assert_eq!(get(coreway.address(), "killed", "/").text(), "one");
    // With keys again it is believed. Written one by one a tree would be believed in pieces, so it is written elsewhere.
    let restored = Prefix::new(kind, &format!("{}-restored", prefix.name()));
    let mut keys = site("steady", "steady", &origin.url());
    keys.extend(site("forgot", "forgot", &origin.url()));
    put(&settings, &restored, &keys);
    put(
        &settings,
        &prefix,
        &[("alias".to_owned(), restored.name().to_owned())],
    );
    answers(&coreway, "forgot", "one");
    assert_eq!(get(coreway.address(), "killed", "/").status, 404);
    load.end();
}

#[test]
fn who_is_not_let_in_waits_and_says_so() {
    if !is_installed(Program::Etcd) {
        return;
    }
    let server = Server::start(Program::Etcd, Guard::Open);
    let settings = settings(Kind::EtcdV3, &server.endpoint());
    let origin = Origin::text("one");
    put(
        &settings,
        &settings.prefix,
        &site("f", "host", &origin.url()),
    );
    for words in [
        &["user", "add", "root:secret"][..],
        &["user", "grant-role", "root", "root"],
        &["auth", "enable"],
    ] {
        server.etcdctl("3", words);
    }
    let mut flags = vec![
        "--entryPoints=Name:http Address:127.0.0.1:0".to_owned(),
        "--defaultEntryPoints=http".to_owned(),
        "--logLevel=INFO".to_owned(),
        "--reactor.cores=1".to_owned(),
        "--reactor.pin=false".to_owned(),
        "--etcd.username=root".to_owned(),
    ];
    flags.extend(store_flags(
        Kind::EtcdV3,
        &server.endpoint(),
        &settings.prefix,
    ));
    let start = |password: &str| {
        let flags = [&flags[..], &[format!("--etcd.password={password}")]].concat();
        Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None)
    };
    let stranger = start("wrong");
    let line = stranger.await_log("Load config error: ");
    assert!(line.contains("retrying in"), "{line}");
    assert!(!line.contains("wrong"), "{line}");
    stranger.assert_runs();
    assert!(!stranger.log().contains("Starting server on"));
    drop(stranger);
    let coreway = start("secret");
    coreway.await_log("(entry point http,");
    answers(&coreway, "host", "one");
    // What is guarded stays so for our own writes.
    let with = Settings {
        credentials: Some(Credentials {
            user: "root".to_owned(),
            password: "secret".to_owned(),
        }),
        ..settings.clone()
    };
    put(&with, &settings.prefix, &site("g", "other", &origin.url()));
    answers(&coreway, "other", "one");
}

fn check_tls(kind: Kind, program: Program) {
    if !is_installed(program) {
        return;
    }
    let server = Server::start(program, Guard::Tls);
    let papers = &server.papers;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, cert, key) = (
        file("ca", papers.authority.pem()),
        file("cert", &papers.client.chain),
        file("key", &papers.client.key),
    );
    let settings = Settings {
        tls: Some(Tls {
            authorities: Some(ca.clone()),
            own: Some((cert.clone(), key.clone())),
            trusts_anybody: false,
        }),
        ..settings(kind, &server.endpoint())
    };
    let origin = Origin::text("one");
    put(
        &settings,
        &settings.prefix,
        &site("f", "host", &origin.url()),
    );
    let tls = format!(
        "[{}.tls]\nca = '{ca}'\ncert = '{cert}'\nkey = '{key}'\n",
        section(kind)
    );
    let coreway = follow(kind, &server.endpoint(), &settings.prefix, &tls);
    answers(&coreway, "host", "one");
    let load = Load::begin(coreway.address(), "host", &["one"]);
    put(
        &settings,
        &settings.prefix,
        &site("g", "other", &origin.url()),
    );
    answers(&coreway, "other", "one");
    load.goes_on(20);
    load.end();
}

#[test]
fn consul_over_tls_with_a_client_certificate() {
    check_tls(Kind::Consul, Program::Consul);
}

#[test]
fn etcd_over_tls_with_a_client_certificate() {
    check_tls(Kind::EtcdV3, Program::Etcd);
}

#[test]
fn consul_with_a_token_of_the_environment() {
    if !is_installed(Program::Consul) {
        return;
    }
    let server = Server::start(Program::Consul, Guard::Token);
    let settings = settings(Kind::Consul, &server.endpoint());
    let origin = Origin::text("one");
    run(async {
        let environment = |name: &str| (name == "CONSUL_HTTP_TOKEN").then(|| TOKEN.to_owned());
        let store = store::open_in(&settings, &environment).unwrap();
        write(&store, &settings.prefix, &site("f", "host", &origin.url())).await;
    });
    let coreway = follow(Kind::Consul, &server.endpoint(), &settings.prefix, "");
    answers(&coreway, "host", "one");
    eventually("it goes on", || {
        get(coreway.address(), "host", "/").status == 200
    });
}
