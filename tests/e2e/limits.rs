//! How often a frontend may be used, and how many exchanges may be under way at a backend.

use std::thread;

use crate::harness::{Coreway, Gate, Origin, Response, answer, backend, eventually, site};

fn rate_limited(origin: &Origin, by: &str, rates: &str) -> String {
    let limit = format!("[frontends.f.ratelimit]\nextractorfunc = \"{by}\"\n{rates}");
    site(origin) + &limit
}

const THREE_IN_A_ROW: &str =
    "[frontends.f.ratelimit.rateset.a]\nperiod = \"1000s\"\naverage = 5\nburst = 3\n";

fn ask(coreway: &Coreway, key: &str) -> Response {
    coreway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: {key}\r\nX-Key: {key}\r\nConnection: close\r\n\r\n"
    ))
}

#[test]
fn more_than_the_burst_is_told_to_wait() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(&origin, "client.ip", THREE_IN_A_ROW));
    for _ in 0..3 {
        assert_eq!(ask(&coreway, "a").status, 200);
    }
    let response = ask(&coreway, "b");
    assert_eq!(response.status, 429);
    assert_eq!(response.reason, "Too Many Requests");
    assert_eq!(response.field("Retry-After"), Some("200"));
    assert_eq!(response.field("X-Retry-In"), Some("3m20s"));
    assert_eq!(response.text(), "max rate reached: retry-in 3m20s");
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(origin.requests().len(), 3);

    // What did not change goes on, also where something else did.
    coreway.reload(
        &(rate_limited(&origin, "client.ip", THREE_IN_A_ROW)
            + "[frontends.f.routes.r]\nrule = \"Path:/\"\n"),
    );
    assert_eq!(ask(&coreway, "a").status, 429);
    coreway.reload(&rate_limited(
        &origin,
        "client.ip",
        &THREE_IN_A_ROW.replace("burst = 3", "burst = 4"),
    ));
    assert_eq!(ask(&coreway, "a").status, 200);
}

#[test]
fn hosts_and_fields_have_their_own_limits() {
    let origin = Origin::text("in");
    for by in ["request.host", "request.header.X-Key"] {
        let coreway = Coreway::serve(&rate_limited(&origin, by, THREE_IN_A_ROW));
        for key in ["one.test", "two.test"] {
            for status in [200, 200, 200, 429] {
                assert_eq!(ask(&coreway, key).status, status, "{by} {key}");
            }
        }
    }
}

#[test]
fn clients_on_all_cores_share_one_limit() {
    let origin = Origin::text("in");
    let rate = "[frontends.f.ratelimit.rateset.a]\nperiod = \"100000s\"\naverage = 1\nburst = 50\n";
    let coreway = Coreway::serve(&rate_limited(&origin, "client.ip", rate));
    let passed: usize = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = coreway.client();
                    (0..20).filter(|_| client.get("/").status == 200).count()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 50);
}

#[test]
fn a_flood_of_keys_takes_no_memory_and_pushes_nobody_out() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(
        &origin,
        "request.header.X-Key",
        THREE_IN_A_ROW,
    ));
    for status in [200, 200, 200, 429] {
        assert_eq!(ask(&coreway, "heavy").status, status);
    }
    let mut client = coreway.client();
    let batch = |from: usize| {
        (from..from + 100)
            .map(|key| format!("GET / HTTP/1.1\r\nHost: h\r\nX-Key: {key}\r\n\r\n"))
            .collect::<String>()
    };
    let before = coreway.memory_kib();
    for from in (0..5_000).step_by(100) {
        client.send(batch(from));
        for _ in 0..100 {
            assert_eq!(client.response().status, 200);
        }
    }
    let grown = coreway.memory_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 5000 keys");
    assert_eq!(ask(&coreway, "heavy").status, 429);
}

#[test]
fn limits_that_cannot_be_read_leave_the_frontend_out() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&rate_limited(&origin, "client.port", THREE_IN_A_ROW));
    assert_eq!(ask(&coreway, "a").status, 404);
    coreway.await_log(
        "ratelimit: unsupported limiting variable: 'client.port'. Skipping frontend f...",
    );
    coreway.reload(
        &(site(&origin) + "[backends.b.maxconn]\namount = -1\nextractorfunc = \"client.ip\"\n"),
    );
    assert_eq!(ask(&coreway, "a").status, 404);
    coreway.await_log("maxConn: amount should be >= 0. Skipping frontend f...");
    coreway.reload(&(site(&origin) + "[backends.b.maxconn]\namount = 0\n"));
    assert_eq!(ask(&coreway, "a").status, 200, "no limit needs no key");
}

/// A server that answers `/slow` once the gate is open.
fn slow(gate: &Gate) -> Origin {
    let gate = gate.clone();
    Origin::new(move |request| {
        if request.head.target() == "/slow" {
            gate.wait();
        }
        answer(200, "in")
    })
}

#[test]
fn exchanges_under_way_are_limited_and_places_come_back() {
    let gate = Gate::default();
    let origin = slow(&gate);
    let limit = "[backends.b.maxconn]\namount = 2\nextractorfunc = \"client.ip\"\n";
    let rules = backend("b", &origin)
        + limit
        + "[frontends.f]\nbackend = \"b\"\n[frontends.g]\nbackend = \"b\"\n[frontends.g.routes.r]\nrule = \"Path:/g\"\n";
    let coreway = Coreway::serve(&rules);
    let mut one = coreway.client();
    let mut two = coreway.client();
    one.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    two.send("GET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
    eventually("both are under way", || origin.requests().len() == 2);
    let response = coreway.get("/g");
    assert_eq!(
        (response.status, response.text().as_str()),
        (429, "max connections reached: 2"),
        "another frontend of the same backend"
    );
    assert_eq!(response.field("Retry-After"), None);
    // A client that leaves gives its place back, and a reload changes nothing of that.
    coreway.reload(
        &(rules + "[frontends.h]\nbackend = \"b\"\n[frontends.h.routes.r]\nrule = \"Path:/h\"\n"),
    );
    assert_eq!(coreway.get("/h").status, 429);
    two.reset();
    eventually("the place is free", || coreway.get("/h").status == 200);
    gate.open();
    assert_eq!(one.response().status, 200);
    for _ in 0..5 {
        assert_eq!(coreway.get("/").status, 200);
    }
}
