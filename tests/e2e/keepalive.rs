//! Connections that live on: pipelining and keep-alive before the proxy, the pool behind it, and trying again when that
//! is safe.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::wire::Framing;
use crate::harness::{Coreway, Gate, Origin, Start, answer, eventually, site};

#[test]
fn many_requests_share_one_connection_on_both_sides() {
    let origin = Origin::text("ok");
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    for number in 0..50 {
        assert_eq!(client.get(&format!("/{number}")).text(), "ok");
    }
    assert_eq!(origin.requests().len(), 50);
    assert_eq!(origin.connections(), 1);
}

#[test]
fn clients_share_the_pool_of_a_core() {
    let origin = Origin::text("ok");
    let coreway = Start::new().cores(1).serve(&site(&origin));
    for _ in 0..10 {
        assert_eq!(coreway.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new(|request| answer(200, request.head.target()));
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    let requests: String = (0..20)
        .map(|n| format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(requests);
    for number in 0..20 {
        assert_eq!(client.response().text(), format!("/{number}"));
    }
}

#[test]
fn pipelined_bodies_end_where_they_should() {
    let origin = Origin::new(|request| {
        answer(
            200,
            &format!("{} {}", request.head.target(), request.text()),
        )
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
         POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n\
         GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for expected in ["/1 one", "/2 two", "/3 "] {
        assert_eq!(client.response().text(), expected);
    }
}

#[test]
fn connection_close_is_honoured() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    let response = client.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n");
    assert_eq!(
        (response.status, response.field("Connection")),
        (200, Some("close"))
    );
    client.assert_closed();
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    let response = client.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    client.assert_closed();
    assert!(
        origin.last().head.start.ends_with("HTTP/1.1"),
        "servers are spoken to in 1.1"
    );

    let mut client = coreway.client();
    let response = client.exchange("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert!(
        response
            .field("Connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("keep-alive"))
    );
    assert_eq!(
        client.exchange("GET / HTTP/1.0\r\nHost: a\r\n\r\n").text(),
        "ok"
    );
    client.assert_closed();
}

#[test]
fn http_1_0_clients_never_see_chunks() {
    let origin = Origin::new(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec()
    });
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(
        (response.framing, response.text().as_str()),
        (Framing::Close, "abc")
    );
}

#[test]
fn http_1_0_without_host_matches_no_host() {
    let origin = Origin::text("x");
    let coreway = Coreway::serve(&(site(&origin) + "[frontends.f.routes.r]\nrule = \"Host:a\"\n"));
    assert_eq!(coreway.exchange("GET / HTTP/1.0\r\n\r\n").status, 404);
}

#[test]
fn http_1_0_servers_work() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.0 200 OK\r\nX: 1\r\n\r\nold");
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(
            (response.head.start.as_str(), response.text().as_str()),
            ("HTTP/1.1 200 OK", "old")
        );
    }
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_server_that_says_close_is_not_asked_again_on_that_connection() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        // Stays open: only the field says that it is over.
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ok");
    }
    assert_eq!(origin.connections(), 3);
    eventually("the proxy closed what is over", || {
        origin.connections_open() == 0
    });
}

#[test]
fn idle_server_connections_are_kept_up_to_the_limit() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        held.wait();
        exchange.send(answer(200, "ok"));
    });
    let coreway = Start::new()
        .cores(1)
        .global("maxIdleConnsPerHost = 3")
        .serve(&site(&origin));
    let mut clients: Vec<_> = (0..10).map(|_| coreway.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("all ten are being asked", || origin.requests().len() == 10);
    assert_eq!(origin.connections(), 10);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "ok");
    }
    eventually("three connections are left", || {
        origin.connections_open() == 3
    });
}

/// An origin that answers the first request of a connection and cuts the connection when the second comes.
fn dies_on_second() -> Origin {
    let served = AtomicUsize::new(usize::MAX);
    Origin::wire(move |exchange| {
        if served.swap(exchange.number, Ordering::SeqCst) == exchange.number {
            return exchange.reset();
        }
        if exchange.read_body().is_ok() {
            exchange.send(answer(200, "ok"));
        }
    })
}

#[test]
fn a_pooled_connection_that_died_is_replaced_unseen() {
    let origin = Origin::text("ok");
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/").status, 200);
    for _ in 0..20 {
        origin.cut();
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn an_idempotent_request_is_tried_again_on_a_fresh_connection() {
    let origin = dies_on_second();
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/1").status, 200);
    assert_eq!(
        client.get("/2").status,
        200,
        "the pool's connection died under the request"
    );
    assert_eq!(origin.targets(), ["/1", "/2", "/2"]);
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_post_that_was_sent_is_never_sent_twice() {
    let origin = dies_on_second();
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/1").status, 200);
    let response = client.exchange("POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(response.status, 502);
    assert_eq!(origin.targets(), ["/1", "/2"]);
}

#[test]
fn a_request_that_failed_on_a_fresh_connection_is_not_repeated() {
    let origin = Origin::wire(|exchange| exchange.close());
    let coreway = Coreway::before(&origin);
    assert_eq!(coreway.get("/").status, 502);
    assert_eq!(origin.targets(), ["/"]);
}

#[test]
fn bytes_after_an_answer_never_reach_the_next_client() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
    });
    let coreway = Start::new().cores(1).serve(&site(&origin));
    for _ in 0..5 {
        let mut client = coreway.client();
        for _ in 0..3 {
            assert_eq!(client.get("/").text(), "ok");
        }
    }
}

#[test]
fn bytes_from_an_idle_server_spoil_its_connection() {
    let gate = Gate::default();
    let (held, sent) = (gate.clone(), Gate::default());
    let done = sent.clone();
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        exchange.send(answer(200, "ok"));
        if exchange.number == 0 {
            held.wait();
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison");
            exchange.delivered();
            done.open();
        }
    });
    let coreway = Start::new().cores(1).serve(&site(&origin));
    let mut client = coreway.client();
    assert_eq!(client.get("/").text(), "ok");
    gate.open();
    sent.wait();
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "ok");
    }
}
