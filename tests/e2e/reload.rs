//! A changed file takes effect without losing a request; a broken one does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::wait::{at_a_pace, holds_for};
use crate::harness::{
    Client, Coreway, Gate, Origin, Start, answer, backend, eventually, heavy, site,
};

fn ruled(origin: &Origin, rule: &str) -> String {
    format!(
        "{}[frontends.f.routes.r]\nrule = \"{rule}\"\n",
        site(origin)
    )
}

#[test]
fn a_file_replaced_by_rename_is_seen() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Coreway::before(&one);
    let mut client = coreway.client();
    assert_eq!(client.get("/").text(), "one");
    coreway.reload(&site(&two));
    assert_eq!(client.get("/").text(), "two", "on the same connection");
    coreway.reload(&ruled(&two, "Path:/only"));
    assert_eq!(client.get("/").status, 404);
}

#[test]
fn a_file_written_in_place_is_seen() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Coreway::before(&one);
    std::fs::write(coreway.rules_path(), site(&two)).unwrap();
    eventually("the new rules are served", || {
        coreway.get("/").text() == "two"
    });
}

#[test]
fn a_file_written_slowly_is_seen_whole() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Coreway::before(&one);
    let text = site(&two);
    for end in (0..=text.len()).step_by(7).chain([text.len()]) {
        std::fs::write(coreway.rules_path(), &text[..end]).unwrap();
    }
    eventually("the new rules are served", || {
        coreway.get("/").text() == "two"
    });
}

#[test]
fn a_swapped_symlink_is_seen() {
    // As an orchestrator mounts it: the file is a link into a folder that is itself a link to a version.
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let link = |folder: &std::path::Path, version: &str| {
        let fresh = folder.join("fresh");
        std::os::unix::fs::symlink(version, &fresh).unwrap();
        std::fs::rename(&fresh, folder.join("current")).unwrap();
    };
    let settings = "defaultEntryPoints = [\"http\"]\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n[file]\nfilename = \"$DIR/mount/rules.toml\"\n";
    let coreway = Start::new().with_settings(settings, |folder| {
        let mount = folder.join("mount");
        for (version, origin) in [("v1", &one), ("v2", &two)] {
            std::fs::create_dir_all(mount.join(version)).unwrap();
            std::fs::write(mount.join(version).join("rules.toml"), site(origin)).unwrap();
        }
        link(&mount, "v1");
        std::os::unix::fs::symlink("current/rules.toml", mount.join("rules.toml")).unwrap();
    });
    coreway.await_reloads(1);
    assert_eq!(coreway.get("/").text(), "one");
    link(&coreway.folder().join("mount"), "v2");
    eventually("the new version is served", || {
        coreway.get("/").text() == "two"
    });
}

#[test]
fn files_come_and_go_in_a_folder() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let settings = "defaultEntryPoints = [\"http\"]\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n[file]\ndirectory = \"$DIR/rules\"\n";
    let coreway = Start::new().with_settings(settings, |folder| {
        std::fs::create_dir_all(folder.join("rules/deep")).unwrap();
        std::fs::write(folder.join("rules/one.toml"), site(&one)).unwrap();
    });
    coreway.await_reloads(1);
    assert_eq!(coreway.get("/").text(), "one");
    let second = coreway.folder().join("rules/deep/two.toml");
    let rules = backend("b2", &two)
        + "[frontends.g]\nbackend = \"b2\"\n[frontends.g.routes.r]\nrule = \"Path:/two\"\n";
    std::fs::write(&second, rules).unwrap();
    eventually("a file in a nested folder is seen", || {
        coreway.get("/two").text() == "two"
    });
    std::fs::remove_file(&second).unwrap();
    eventually("its removal is seen", || {
        coreway.get("/two").text() == "one"
    });
}

#[test]
fn a_broken_file_keeps_the_last_good_one_and_says_where() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Coreway::before(&one);
    coreway.replace("[backends.b]\n\n[frontends.f\nbackend = \"b\"\n");
    let line = coreway.await_log("rules.toml:3:");
    assert!(
        line.contains("level=error") || line.contains("error"),
        "{line}"
    );
    assert_eq!(coreway.get("/").text(), "one");
    coreway.reload(&site(&two));
    assert_eq!(coreway.get("/").text(), "two", "it heals with the file");
}

#[test]
fn a_wrong_type_names_its_place() {
    let one = Origin::text("one");
    let coreway = Coreway::before(&one);
    coreway.replace("[frontends.f]\nbackend = \"b\"\npassHostHeader = \"perhaps\"\n");
    coreway.await_log("rules.toml:3:");
    assert_eq!(coreway.get("/").text(), "one");
}

#[test]
fn a_broken_template_keeps_the_last_good_one() {
    let one = Origin::text("one");
    let coreway = Coreway::before(&one);
    coreway.replace("# first\n{{ nofunc 1 }}\n");
    coreway.await_log("rules.toml:2");
    assert_eq!(coreway.get("/").text(), "one");
}

#[test]
fn a_file_broken_at_the_start_heals() {
    let one = Origin::text("one");
    let coreway = Start::new().begin("[frontends");
    coreway.await_log("rules.toml:1:");
    assert_eq!(coreway.get("/").status, 404);
    coreway.replace(&site(&one));
    eventually("the mended file is served", || {
        coreway.get("/").text() == "one"
    });
}

#[test]
fn a_file_missing_at_the_start_may_come_later() {
    let one = Origin::text("one");
    let settings = "defaultEntryPoints = [\"http\"]\n[entryPoints.http]\naddress = \"127.0.0.1:0\"\n[file]\nfilename = \"$DIR/rules.toml\"\n";
    let coreway = Start::new().with_settings(settings, |_| ());
    assert_eq!(coreway.get("/").status, 404);
    coreway.replace(&site(&one));
    eventually("the late file is served", || {
        coreway.get("/").text() == "one"
    });
}

#[test]
fn a_removed_file_keeps_the_last_good_one() {
    let (one, two) = (Origin::text("one"), Origin::text("two"));
    let coreway = Coreway::before(&one);
    std::fs::remove_file(coreway.rules_path()).unwrap();
    holds_for(
        Duration::from_millis(400),
        "the last rules are served",
        || coreway.get("/").text() == "one",
    );
    coreway.replace(&site(&two));
    eventually("the file's return is seen", || {
        coreway.get("/").text() == "two"
    });
}

#[test]
fn an_emptied_file_is_an_empty_configuration() {
    let origin = Origin::text("one");
    let coreway = Coreway::before(&origin);
    std::fs::write(coreway.rules_path(), "").unwrap();
    eventually("nothing is served", || coreway.get("/").status == 404);
}

#[test]
fn an_exchange_under_way_finishes_as_it_began() {
    let gate = Gate::default();
    let held = gate.clone();
    let old = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        held.wait();
        exchange.send("later");
    });
    let new = Origin::text("new");
    let coreway = Coreway::before(&old);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    assert_eq!(client.exactly(5), b"first");
    coreway.reload(&site(&new));
    assert_eq!(coreway.get("/").text(), "new");
    gate.open();
    assert_eq!(client.exactly(5), b"later");
    assert_eq!(
        client.get("/").text(),
        "new",
        "the next request of the same client is served by the new rules"
    );
}

#[test]
fn the_balancer_goes_on_where_it_was() {
    let origins = [Origin::text("A"), Origin::text("B"), Origin::text("C")];
    let servers: String = origins
        .iter()
        .zip(["A", "B", "C"])
        .map(|(origin, name)| format!("[backends.b.servers.{name}]\nurl = \"{}\"\n", origin.url()))
        .collect();
    let rules = |path: &str| {
        format!(
            "{servers}[frontends.f]\nbackend = \"b\"\n[frontends.f.routes.r]\nrule = \"PathPrefix:/,{path}\"\n"
        )
    };
    let coreway = Start::new().cores(1).serve(&rules("/0"));
    let mut client = coreway.client();
    let mut answers = String::new();
    for round in 1..=6 {
        answers += &client.get("/").text();
        coreway.reload(&rules(&format!("/{round}")));
    }
    assert_eq!(answers, "ABCABC");
}

#[test]
fn pooled_connections_outlive_a_reload() {
    let origin = Origin::text("ok");
    let coreway = Start::new().cores(1).serve(&ruled(&origin, "PathPrefix:/"));
    assert_eq!(coreway.get("/").status, 200);
    for round in 0..5 {
        coreway.reload(&ruled(&origin, &format!("PathPrefix:/,/{round}")));
        assert_eq!(coreway.get("/").status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn connections_to_a_server_that_is_gone_are_closed() {
    let (old, new) = (Origin::text("old"), Origin::text("new"));
    let coreway = Coreway::before(&old);
    assert_eq!(coreway.get("/").text(), "old");
    coreway.reload(&site(&new));
    assert_eq!(coreway.get("/").text(), "new");
    eventually("the old connections are closed", || {
        old.connections_open() == 0
    });
}

#[test]
fn the_same_again_changes_nothing() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    coreway.replace(&format!("# only a comment\n{}", site(&origin)));
    holds_for(Duration::from_millis(500), "no reload for nothing", || {
        coreway.reloads() == 1
    });
}

#[test]
fn only_the_last_of_a_burst_counts() {
    let origins: Vec<_> = (0..6)
        .map(|_| Origin::new(|request| answer(200, request.field("Host").unwrap())))
        .collect();
    let coreway = Start::new()
        .flag("--providersThrottleDuration=1s")
        .serve(&site(&origins[0]));
    for origin in &origins {
        coreway.replace(&site(origin));
    }
    let last = origins[5].address().to_string();
    eventually("the last one is served", || coreway.get("/").text() == last);
    assert!(
        coreway.reloads() <= 4,
        "{} reloads for a burst",
        coreway.reloads()
    );
}

/// The promise of the whole program: a change every 100 ms for 30 s, under load, and not one request fails.
#[test]
fn a_reload_storm_loses_no_request() {
    let _alone = heavy();
    let origins = [Origin::text("one"), Origin::text("two")];
    let rules = |round: usize| {
        let mut text = ruled(&origins[round % 2], &format!("PathPrefix:/,/{round}"));
        // Some neighbours that come and go, so that tables really change.
        for number in 0..round % 17 {
            text += &format!(
                "[frontends.n{number}]\nbackend = \"b\"\n[frontends.n{number}.routes.r]\nrule = \"Host:n{number}.test\"\n"
            );
        }
        text
    };
    let coreway = Coreway::serve(&rules(0));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|number| {
            let (over, address) = (Arc::clone(&over), coreway.address());
            thread::spawn(move || {
                let mut client = Client::connect(address);
                let (mut count, mut slowest) = (0_u64, Duration::ZERO);
                while !over.load(Ordering::SeqCst) {
                    let begin = Instant::now();
                    let response = if count % 3 == 2 {
                        client.exchange(
                            "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
                        )
                    } else {
                        client.get("/g")
                    };
                    assert!(
                        response.status == 200 && matches!(response.text().as_str(), "one" | "two"),
                        "client {number}, request {count}: {} {}",
                        response.status,
                        response.text()
                    );
                    slowest = slowest.max(begin.elapsed());
                    count += 1;
                    // A fresh connection now and then: accepting goes on too.
                    if count % 500 == 0 {
                        client = Client::connect(address);
                    }
                }
                (count, slowest)
            })
        })
        .collect();
    at_a_pace(
        Duration::from_millis(100),
        Duration::from_secs(30),
        |round| {
            coreway.replace(&rules(round + 1));
            assert!(
                clients.iter().all(|client| !client.is_finished()),
                "a client met a failed request"
            );
        },
    );
    over.store(true, Ordering::SeqCst);
    let mut requests = 0;
    for client in clients {
        let (count, slowest) = client.join().expect("no client met a failed request");
        requests += count;
        assert!(
            slowest < Duration::from_secs(2),
            "a request took {slowest:?}"
        );
    }
    let reloads = coreway.reloads();
    // A file that changes without pause is read about once a second: it could be half written at any moment.
    assert!(reloads >= 20, "only {reloads} of 300 changes were served");
    assert!(requests > 1000, "only {requests} requests were made");
}
