//! A client that leaves ends the work done for it within three seconds.

use std::time::{Duration, Instant};

use crate::harness::{Client, Coreway, Origin, eventually};

/// A request that the server never answers; then the client leaves in this way.
fn check(request: &str, leave: impl FnOnce(Client)) {
    let origin = Origin::wire(|exchange| {
        // Ends when the proxy gives up.
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(request);
    eventually("the server is asked", || origin.requests().len() == 1);
    let left = Instant::now();
    leave(client);
    eventually("the server's connection ends", || {
        origin.connections_open() == 0
    });
    assert!(
        left.elapsed() < Duration::from_secs(3),
        "noticed only after {:?}",
        left.elapsed()
    );
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
const HALF: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nhi";

#[test]
fn a_reset_while_waiting_is_noticed() {
    check(GET, Client::reset);
    check(POST, Client::reset);
}

#[test]
fn a_departure_in_the_middle_of_an_upload_is_noticed() {
    check(HALF, drop);
    check(HALF, Client::reset);
}

#[test]
fn a_departure_in_the_middle_of_an_answer_is_noticed() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(GET);
    assert!(client.head().start.contains(" 200 "));
    assert_eq!(client.chunk(), b"hello");
    let left = Instant::now();
    client.reset();
    eventually("the server's connection ends", || {
        origin.connections_open() == 0
    });
    assert!(
        left.elapsed() < Duration::from_secs(3),
        "noticed only after {:?}",
        left.elapsed()
    );
}

#[test]
fn pipelined_requests_of_a_client_that_left_are_dropped() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(format!("{GET}{GET}{GET}"));
    eventually("the server is asked", || origin.requests().len() == 1);
    client.reset();
    eventually("the server's connection ends", || {
        origin.connections_open() == 0
    });
    assert_eq!(origin.requests().len(), 1);
}
