//! The harness, tested without the program: a client that talks straight to an origin. A tool that cannot tell a cut body
//! from a whole one would let every other test pass.

use std::net::TcpStream;
use std::time::Duration;

use super::origin::Deaf;
use super::wire::Framing;
use super::{Client, Origin, answer, eventually};

fn raw(bytes: &'static str) -> Origin {
    Origin::wire(move |exchange| {
        exchange.send(bytes);
        exchange.close();
    })
}

#[test]
fn whole_answers_are_read() {
    let check = |bytes: &'static str, body: &str, framing: Framing| {
        let origin = raw(bytes);
        let response = Client::connect(origin.address()).get("/");
        assert_eq!(
            (response.text().as_str(), response.framing),
            (body, framing),
            "{bytes}"
        );
    };
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        "hi",
        Framing::Length,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n",
        "hi",
        Framing::Chunked,
    );
    check(
        "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\n\r\nhi",
        "hi",
        Framing::Close,
    );
    check("HTTP/1.1 204 No Content\r\n\r\n", "", Framing::Empty);
}

#[test]
fn cut_or_doubtful_answers_are_not() {
    for bytes in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA B: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        let origin = raw(bytes);
        let mut client = Client::connect(origin.address());
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.try_response().is_err(), "{bytes:?}");
    }
}

#[test]
fn an_origin_records_what_it_saw() {
    let origin = Origin::new(|request| answer(200, &request.text()));
    let mut client = Client::connect(origin.address());
    let response = client.exchange("POST /a HTTP/1.1\r\nX-Y: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n");
    assert_eq!(response.text(), "hi");
    assert_eq!(client.get("/b").status, 200);
    assert_eq!(origin.targets(), ["/a", "/b"]);
    assert_eq!(origin.requests()[0].field("x-y"), Some("1"));
    assert_eq!(
        origin.requests()[0].body.as_ref().map(|b| b.trailers.len()),
        Some(1)
    );
    assert_eq!((origin.connections(), origin.connections_open()), (1, 1));
    drop(client);
    eventually("the origin notices", || origin.connections_open() == 0);
}

#[test]
fn an_origin_resets_stops_and_starts_again() {
    let mut origin = Origin::wire(|exchange| exchange.reset());
    let mut client = Client::connect(origin.address());
    client.send("GET / HTTP/1.1\r\n\r\n");
    let cut = client.try_response().expect_err("no answer can come");
    assert!(cut.why.contains("broke"), "a reset, not an end: {cut}");
    origin.stop();
    assert!(TcpStream::connect(origin.address()).is_err());
    origin.start();
    drop(Client::connect(origin.address()));
}

#[test]
fn a_deaf_server_does_not_pick_up() {
    let deaf = Deaf::new();
    let address = deaf.url().trim_start_matches("http://").parse().unwrap();
    assert!(TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err());
}
