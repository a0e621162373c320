//! Time limits: `respondingTimeouts` towards clients (those towards servers are in `forwarding.rs`).

use std::time::{Duration, Instant};

use crate::harness::wait::pass;
use crate::harness::{Coreway, Origin, Start, answer, eventually, site};

fn limited(line: &str, origin: &Origin) -> Coreway {
    Start::new()
        .table(&format!("[respondingTimeouts]\n{line}"))
        .serve(&site(origin))
}

#[test]
fn a_slow_head_is_cut_with_400() {
    let origin = Origin::text("never");
    let coreway = limited("readTimeout = \"400ms\"", &origin);
    for start in ["GET / HTTP/1.1\r\nHost:", "G"] {
        let mut client = coreway.client();
        client.send(start);
        assert_eq!(
            client.response().status,
            400,
            "408 is for bodies (spec static-config 3.3)"
        );
        client.assert_closed();
    }
    assert_eq!(origin.connections(), 0);
}

#[test]
fn a_head_that_trickles_is_cut_all_the_same() {
    let origin = Origin::text("never");
    let coreway = limited("readTimeout = \"500ms\"", &origin);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    let begin = Instant::now();
    // Each byte would restart a limit that counts silence instead of the whole head.
    eventually("the trickle is cut", || {
        client.send_what_goes("x");
        begin.elapsed() > Duration::from_millis(400) && client.is_readable()
    });
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_slow_body_is_cut_with_408() {
    let origin = Origin::text("never");
    let coreway = limited("readTimeout = \"400ms\"", &origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.response().status, 408);
    client.assert_closed();
    eventually("the server's side ends", || origin.connections_open() == 0);
    assert!(
        origin.requests().iter().all(|r| r.body.is_none()),
        "the server got a whole request"
    );
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let origin = Origin::text("ok");
    let coreway = limited("idleTimeout = \"300ms\"", &origin);
    let mut client = coreway.client();
    assert_eq!(client.get("/").status, 200);
    let begin = Instant::now();
    client.assert_closed();
    assert!(
        begin.elapsed() >= Duration::from_millis(250),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn a_busy_connection_is_not_idle() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        pass(Duration::from_millis(600));
        exchange.send(answer(200, "late"));
    });
    let coreway = limited("idleTimeout = \"200ms\"", &origin);
    assert_eq!(coreway.client().get("/").text(), "late");
}

#[test]
fn an_answer_that_takes_too_long_is_cut() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.rest();
    });
    let coreway = limited("writeTimeout = \"400ms\"", &origin);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let begin = Instant::now();
    client.rest();
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "cut at the deadline, not when the server answers"
    );
    eventually("the server's side ends", || origin.connections_open() == 0);
}

#[test]
fn a_body_that_takes_too_long_is_cut() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let _ = exchange.rest();
    });
    let coreway = limited("writeTimeout = \"400ms\"", &origin);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_response().is_err(), "half a body looked whole");
}

#[test]
fn limits_start_anew_with_every_request() {
    let origin = Origin::text("ok");
    let coreway = limited(
        "readTimeout = \"500ms\"\nwriteTimeout = \"500ms\"\nidleTimeout = \"5s\"",
        &origin,
    );
    let mut client = coreway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").status, 200);
        pass(Duration::from_millis(300));
    }
}
