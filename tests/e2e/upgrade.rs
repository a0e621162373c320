//! Protocols that take a connection over: WebSocket and any other, once the server has really said 101.

use std::time::Duration;

use crate::harness::wait::pass;
use crate::harness::{Client, Coreway, DEADLINE, Gate, Origin, Start, answer, eventually, site};

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
    Origin: http://a\r\nCookie: c=1\r\n\r\n";

/// Switches to the protocol asked for and sends every byte back, until the client's side ends.
fn echo() -> Origin {
    Origin::wire(|exchange| {
        let Some(protocol) = exchange.head.field("Upgrade").map(str::to_owned) else {
            exchange.send(answer(400, "no upgrade"));
            return exchange.close();
        };
        exchange.send(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Accept: x\r\n\r\n"
        ));
        loop {
            let bytes = exchange.take();
            if bytes.is_empty() {
                break;
            }
            exchange.send(bytes);
        }
        exchange.send("goodbye");
        exchange.close();
    })
}

#[track_caller]
fn upgraded(coreway: &Coreway, request: &str) -> Client {
    let mut client = coreway.client();
    client.send(request);
    let head = client.head();
    assert!(head.start.starts_with("HTTP/1.1 101"), "{}", head.start);
    assert!(
        head.field("Connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("upgrade"))
    );
    client
}

#[test]
fn a_websocket_is_a_tunnel() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(&coreway, WEBSOCKET);
    for text in ["\u{1}\u{2}frame", "second", "third"] {
        client.send(text);
        assert_eq!(client.exactly(text.len()), text.as_bytes());
    }
    let head = origin.last().head;
    assert!(
        head.field("Connection")
            .is_some_and(|v| v.eq_ignore_ascii_case("upgrade")),
        "{head:?}"
    );
    for (name, value) in [
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ("Cookie", "c=1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
    ] {
        assert_eq!(head.field(name), Some(value), "{name}");
    }
}

#[test]
fn any_other_protocol_is_tunnelled_too() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(
        &coreway,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: my-protocol\r\n\r\n",
    );
    let bytes: Vec<u8> = (0..=255).collect();
    client.send(&bytes);
    assert_eq!(client.exactly(256), bytes);
}

#[test]
fn bytes_sent_right_behind_the_heads_are_not_lost() {
    let origin = Origin::wire(|exchange| {
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nwelcome",
        );
        let bytes = exchange.take();
        exchange.send(bytes);
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(
        &coreway,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly",
    );
    assert_eq!(client.exactly(12), b"welcomeearly");
    client.assert_closed();
}

#[test]
fn each_side_may_finish_first() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(&coreway, WEBSOCKET);
    client.send("last words");
    client.half_close();
    assert_eq!(
        client.rest(),
        b"last wordsgoodbye",
        "what the server says after the client's end still arrives"
    );

    let gate = Gate::default();
    let held = gate.clone();
    let (report, reported) = std::sync::mpsc::channel();
    let origin = Origin::wire(move |exchange| {
        exchange.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nover",
        );
        exchange.half_close();
        held.wait();
        report.send(exchange.rest().unwrap_or_default()).unwrap();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(&coreway, WEBSOCKET);
    assert_eq!(client.exactly(4), b"over");
    assert_eq!(client.some(), b"", "the server's end is passed on");
    client.send("still talking");
    client.half_close();
    gate.open();
    assert_eq!(reported.recv_timeout(DEADLINE).unwrap(), b"still talking");
}

#[test]
fn a_tunnel_is_held_back_by_its_slow_end() {
    let origin = Origin::wire(|exchange| {
        exchange
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        Gate::default().wait();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = upgraded(&coreway, WEBSOCKET);
    let most = 64 * 1024 * 1024;
    let taken = client.send_until_stuck(most);
    assert!(taken < most, "{taken} bytes were taken from the client");
}

#[test]
fn a_tunnel_ends_when_either_side_is_gone() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    upgraded(&coreway, WEBSOCKET).reset();
    eventually("the server's side ends", || origin.connections_open() == 0);
    let mut client = upgraded(&coreway, WEBSOCKET);
    origin.cut();
    client.rest();
}

#[test]
fn a_refusal_is_relayed() {
    let origin = Origin::new(|_| answer(403, "not you"));
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange(WEBSOCKET);
    assert_eq!(
        (response.status, response.text().as_str()),
        (403, "not you")
    );
}

#[test]
fn a_server_that_is_not_there_is_a_502() {
    assert_eq!(
        Coreway::before(&Origin::refusing())
            .exchange(WEBSOCKET)
            .status,
        502
    );
}

#[test]
fn no_tunnel_without_a_101() {
    // A client that believes in a tunnel sends what looks like a request; the proxy must read it as one, or not at all.
    let origin = Origin::new(|_| answer(200, "plain"));
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(format!("{WEBSOCKET}GET /hidden HTTP/1.1\r\nHost: a\r\nX-Real-Ip: 10.0.0.1\r\nConnection: close\r\n\r\n"));
    assert_eq!(client.response().text(), "plain");
    client.rest();
    for request in origin
        .requests()
        .iter()
        .filter(|r| r.head.target() == "/hidden")
    {
        assert!(
            request.field("X-Forwarded-For").is_some(),
            "it went through a tunnel"
        );
    }
}

#[test]
fn h2c_is_never_passed_on() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
    );
    assert_eq!(response.status, 200);
    let head = origin.last().head;
    assert_eq!(
        (
            head.field("Upgrade"),
            head.field("HTTP2-Settings"),
            head.field("Connection")
        ),
        (None, None, None)
    );
}

#[test]
fn a_quiet_tunnel_outlives_the_idle_timeout() {
    let origin = echo();
    let coreway = Start::new()
        .table("[respondingTimeouts]\nidleTimeout = \"200ms\"")
        .serve(&site(&origin));
    let mut client = upgraded(&coreway, WEBSOCKET);
    pass(Duration::from_millis(700));
    client.send("still here");
    assert_eq!(client.exactly(10), b"still here");
}
