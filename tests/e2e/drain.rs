//! Stopping: what is under way finishes, nothing new begins, and the exit code says that all went well.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Coreway, Gate, Origin, Start, answer, eventually, site};

/// Well below the ten seconds that are waited if nothing else is said, and enough for a process to end on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(8);

/// Answers once the gate is open.
fn held() -> (Origin, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        held.wait();
        exchange.send(answer(200, "finished"));
    });
    (origin, gate)
}

fn refused(coreway: &Coreway) -> bool {
    TcpStream::connect(coreway.address()).is_err()
}

#[test]
fn what_is_under_way_finishes() {
    for signal in ["TERM", "INT"] {
        let (origin, gate) = held();
        let coreway = Coreway::before(&origin);
        let mut client = coreway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the server is asked", || origin.requests().len() == 1);
        coreway.signal(signal);
        eventually("nobody new is let in", || refused(&coreway));
        assert!(coreway.ended().is_none(), "it left a request behind");
        gate.open();
        let response = client.response();
        assert_eq!(
            (response.text().as_str(), response.field("Connection")),
            ("finished", Some("close"))
        );
        client.assert_closed();
        assert_eq!(coreway.exit_code(), 0);
    }
}

#[test]
fn an_idle_process_ends_at_once() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let begin = Instant::now();
    coreway.signal("TERM");
    assert_eq!(coreway.exit_code(), 0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert!(coreway.log().contains("I have to go"));
}

#[test]
fn idle_connections_are_closed() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut used = coreway.client();
    assert_eq!(used.get("/").status, 200);
    let mut fresh = coreway.client();
    // Accepted for certain once a later connection has been served.
    assert_eq!(coreway.get("/").status, 200);
    coreway.signal("TERM");
    used.assert_closed();
    fresh.assert_closed();
    assert_eq!(coreway.exit_code(), 0);
}

#[test]
fn it_keeps_serving_for_the_grace_time() {
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .table("[lifeCycle]\nrequestAcceptGraceTimeout = \"2s\"")
        .serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/").status, 200);
    let begin = Instant::now();
    coreway.signal("TERM");
    coreway.await_log("I have to go");
    assert_eq!(coreway.get("/").status, 200, "a new client");
    assert_eq!(client.get("/").status, 200, "an old client");
    eventually("nobody new is let in", || refused(&coreway));
    assert!(
        begin.elapsed() > Duration::from_millis(1900),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(coreway.exit_code(), 0);
}

#[test]
fn what_takes_too_long_is_cut() {
    let (origin, _gate) = held();
    let coreway = Start::new()
        .table("[lifeCycle]\ngraceTimeOut = \"500ms\"")
        .serve(&site(&origin));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server is asked", || origin.requests().len() == 1);
    let begin = Instant::now();
    coreway.signal("TERM");
    assert_eq!(coreway.exit_code(), 0);
    assert!(
        begin.elapsed() > Duration::from_millis(400) && begin.elapsed() < AT_ONCE,
        "{:?}",
        begin.elapsed()
    );
    assert!(client.try_response().is_err());
}

#[test]
fn no_grace_at_all_cuts_at_once() {
    let (origin, _gate) = held();
    let coreway = Start::new()
        .table("[lifeCycle]\ngraceTimeOut = 0")
        .serve(&site(&origin));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server is asked", || origin.requests().len() == 1);
    let begin = Instant::now();
    coreway.signal("TERM");
    assert_eq!(coreway.exit_code(), 0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_tunnel_is_waited_for_and_then_cut() {
    let origin = Origin::wire(|exchange| {
        exchange
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        let _ = exchange.take();
        exchange.send("pong");
        let _ = exchange.rest();
    });
    let coreway = Start::new()
        .table("[lifeCycle]\ngraceTimeOut = \"3s\"")
        .serve(&site(&origin));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    client.head();
    coreway.signal("TERM");
    eventually("nobody new is let in", || refused(&coreway));
    client.send("ping");
    assert_eq!(client.exactly(4), b"pong");
    client.rest();
    assert_eq!(coreway.exit_code(), 0);
}
