//! The program with its configuration in a store: `storeconfig`, the start from it, changes, and the switch of an alias.
//!
//! The same story for every store, told by the real program; only the keys that an operator would write by hand are
//! written with the library's clients.

use std::process::Command;

use coreway::store::{self, Kind, Prefix};

use super::{each_store, run, section, settings, shared, shared_endpoint, store_flags};
use crate::harness::coreway::BINARY;
use crate::harness::server::{Guard, Program, Server, is_installed};
use crate::harness::{Coreway, Origin, eventually, get};

each_store!(a_configuration_is_stored_served_changed_and_switched);

/// With a client of its own, whose connection ends with it.
fn put(kind: Kind, prefix: &Prefix, keys: &[(&str, &str)]) {
    run(async {
        let store = store::open(&settings(kind, &shared_endpoint(kind))).unwrap();
        for (key, value) in keys {
            store.put(&prefix.key(key), value.as_bytes()).await.unwrap();
        }
    });
}

#[track_caller]
fn answers(coreway: &Coreway, host: &str, target: &str, expected: &str) {
    let address = coreway.address();
    eventually(&format!("{host}{target} is answered by {expected}"), || {
        get(address, host, target).text() == expected
    });
}

fn a_configuration_is_stored_served_changed_and_switched(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let [first, second, third] = ["first", "second", "third"].map(Origin::text);
    let section = section(kind);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coreway.toml");
    let text = format!(
        "logLevel = 'INFO'\nprovidersThrottleDuration = '20ms'\ndefaultEntryPoints = ['http']\n\
         [entryPoints.http]\naddress = '127.0.0.1:0'\n[reactor]\ncores = '1'\npin = false\n\
         [{section}]\nendpoint = '{}'\nprefix = '{}'\n{}[file]\n\
         [backends.b.servers.s]\nurl = '{}'\n[frontends.f]\nbackend = 'b'\n[frontends.f.routes.r]\nrule = 'Host:stored'\n",
        shared_endpoint(kind),
        prefix.name(),
        if kind == Kind::EtcdV3 {
            "useAPIV3 = true\n"
        } else {
            ""
        },
        first.url(),
    );
    std::fs::write(&file, text).unwrap();
    let storeconfig = |switches: &[&str]| {
        let output = Command::new(BINARY)
            .args(["storeconfig", &format!("--configFile={}", file.display())])
            .args(switches)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(storeconfig(&["--dry-run"]).contains("/loglevel = INFO\n"));
    assert_eq!(storeconfig(&[]), "");
    assert_eq!(storeconfig(&[]), "", "a second time is no error");
    assert_eq!(
        storeconfig(&["--diff"]),
        "",
        "what was written is what there is"
    );

    // Everything but the way to the store comes from it: without its log level not even the address would be known.
    let flags = store_flags(kind, &shared_endpoint(kind), &prefix);
    let coreway = Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None);
    coreway.await_log("(entry point http,");
    answers(&coreway, "stored", "/", "first");

    // The guide's example, with servers that are there. Each key is a write of its own, and what is there is served: a
    // frontend's backend comes last, since without its rule it would take every request, and without its users let anybody in.
    let url = second.url();
    put(
        kind,
        &prefix,
        &[
            (
                "backends/backend1/circuitbreaker/expression",
                "NetworkErrorRatio() > 0.5",
            ),
            ("backends/backend1/servers/server1/url", &url),
            ("backends/backend1/servers/server1/weight", "10"),
            ("backends/backend1/servers/server1/tags", "api,helloworld"),
            ("backends/backend2/maxconn/amount", "10"),
            ("backends/backend2/maxconn/extractorfunc", "request.host"),
            ("backends/backend2/loadbalancer/method", "drr"),
            ("backends/backend2/servers/server1/url", &url),
            ("frontends/frontend2/passhostheader", "true"),
            ("frontends/frontend2/priority", "10"),
            (
                "frontends/frontend2/auth/basic/users/0",
                "test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/",
            ),
            (
                "frontends/frontend2/auth/basic/users/1",
                "test2:$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0",
            ),
            ("frontends/frontend2/entrypoints", "http"),
            ("frontends/frontend2/routes/test_2/rule", "PathPrefix:/test"),
            ("frontends/frontend2/backend", "backend1"),
            (
                "frontends/frontend1/routes/test_1/rule",
                "Host:test.localhost",
            ),
            ("frontends/frontend1/backend", "backend2"),
        ],
    );
    answers(&coreway, "test.localhost", "/", "second");
    assert_eq!(get(coreway.address(), "any", "/test").status, 401);
    let allowed = "GET /test HTTP/1.1\r\nHost: any\r\nAuthorization: Basic dGVzdDp0ZXN0\r\nConnection: close\r\n\r\n";
    assert_eq!(coreway.exchange(allowed).text(), "second");
    answers(&coreway, "stored", "/", "first");

    // One deep key is different.
    put(
        kind,
        &prefix,
        &[("frontends/f/routes/r/rule", "Host:renamed")],
    );
    answers(&coreway, "renamed", "/", "first");
    assert_eq!(get(coreway.address(), "stored", "/").status, 404);

    // Another tree, written beside, and then switched to at once.
    let other = Prefix::new(kind, &format!("{}-other/1", prefix.name()));
    put(
        kind,
        &other,
        &[
            ("backends/b/servers/s/url", &third.url()),
            ("frontends/f/routes/r/rule", "Host:renamed"),
            ("frontends/f/backend", "b"),
        ],
    );
    assert_eq!(get(coreway.address(), "renamed", "/").text(), "first");
    put(kind, &prefix, &[("alias", other.name())]);
    answers(&coreway, "renamed", "/", "third");
    assert_eq!(get(coreway.address(), "test.localhost", "/").status, 404);
    coreway.assert_runs();
}

#[test]
fn a_start_waits_for_its_store_and_says_so() {
    if !is_installed(Program::Etcd) {
        return;
    }
    let mut server = Server::start(Program::Etcd, Guard::Open);
    server.kill();
    let flags = [
        "--entryPoints=Name:http Address:127.0.0.1:0".to_owned(),
        "--logLevel=INFO".to_owned(),
        "--reactor.cores=1".to_owned(),
        "--etcd.useapiv3".to_owned(),
        format!("--etcd.endpoint={}", server.endpoint()),
    ];
    let coreway = Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None);
    coreway.await_log("Load config error: ");
    assert!(
        !coreway.log().contains("Starting server on"),
        "{}",
        coreway.log()
    );
    server.run();
    coreway.await_log("(entry point http,");
}
