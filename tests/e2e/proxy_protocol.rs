//! The PROXY protocol: who the client is when a balancer stands before us.

use std::time::Duration;

use crate::harness::{Client, Coreway, Origin, Start, site, wait::holds_for};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// An entry point whose trusted balancers are `trusted`, and which believes no `X-Forwarded-*`.
fn start(origin: &Origin, trusted: &str) -> Coreway {
    Start::new()
        .entry_point(&format!(
            "[entryPoints.http.proxyProtocol]\n{trusted}\n[entryPoints.http.forwardedHeaders]\n"
        ))
        .serve(&site(origin))
}

/// The client that the server is told of.
#[track_caller]
fn client_seen(coreway: &Coreway, origin: &Origin, before: &[u8]) -> String {
    let mut client = coreway.client();
    client.send([before, GET.as_bytes()].concat());
    assert_eq!(client.response().status, 200);
    let seen = origin.last().field("X-Forwarded-For").map(str::to_owned);
    assert_eq!(client.get("/").status, 200, "the connection goes on");
    assert_eq!(origin.last().field("X-Forwarded-For"), seen.as_deref());
    seen.expect("told")
}

fn version_2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &[command, family][..],
        &length,
        addresses,
    ]
    .concat()
}

const V4: [u8; 12] = [9, 8, 7, 6, 127, 0, 0, 1, 1, 1, 0, 80];

#[test]
fn a_trusted_balancer_is_believed() {
    let origin = Origin::text("in");
    for trusted in ["insecure = true", "trustedIPs = [\"127.0.0.0/8\"]"] {
        let coreway = start(&origin, trusted);
        let check = |before: &[u8], expected: &str| {
            assert_eq!(
                client_seen(&coreway, &origin, before),
                expected,
                "{}",
                before.escape_ascii()
            );
        };
        check(b"PROXY TCP4 9.8.7.6 127.0.0.1 257 80\r\n", "9.8.7.6");
        check(b"PROXY TCP6 2001:db8::1 ::1 257 80\r\n", "2001:db8::1");
        check(b"PROXY TCP6 ::ffff:9.8.7.6 ::1 257 80\r\n", "9.8.7.6");
        check(b"PROXY UNKNOWN\r\n", "127.0.0.1");
        check(&version_2(0x21, 0x11, &V4), "9.8.7.6");
        check(&version_2(0x20, 0x00, &[]), "127.0.0.1");
        check(b"", "127.0.0.1");
    }
}

#[test]
fn the_header_of_a_stranger_is_left_aside() {
    let origin = Origin::text("in");
    for trusted in ["trustedIPs = [\"10.0.0.0/8\"]", ""] {
        let coreway = start(&origin, trusted);
        for before in [
            b"PROXY TCP4 9.8.7.6 127.0.0.1 257 80\r\n".to_vec(),
            version_2(0x21, 0x11, &V4),
        ] {
            assert_eq!(client_seen(&coreway, &origin, &before), "127.0.0.1");
        }
    }
}

#[test]
fn white_lists_look_at_the_client_and_not_at_the_balancer() {
    let origin = Origin::text("in");
    let coreway = Start::new()
        .entry_point("[entryPoints.http.proxyProtocol]\ninsecure = true\n[entryPoints.http.whiteList]\nsourceRange = [\"9.0.0.0/8\"]")
        .serve(&site(&origin));
    assert_eq!(coreway.get("/").status, 403);
    let mut client = coreway.client();
    client.send("PROXY TCP4 9.8.7.6 127.0.0.1 257 80\r\n");
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_header_may_come_in_pieces() {
    let origin = Origin::text("in");
    let coreway = start(&origin, "insecure = true");
    for before in [
        b"PROXY TCP4 9.8.7.6 127.0.0.1 257 80\r\n".to_vec(),
        version_2(0x21, 0x11, &V4),
    ] {
        let mut client = coreway.client();
        client.send_byte_by_byte([&before, GET.as_bytes()].concat());
        assert_eq!(client.response().status, 200);
        assert_eq!(origin.last().field("X-Forwarded-For"), Some("9.8.7.6"));
    }
}

#[test]
fn a_malformed_header_closes_without_a_word() {
    let origin = Origin::text("in");
    let coreway = start(&origin, "insecure = true");
    let long = format!("PROXY TCP4 {}", "1".repeat(200));
    for before in [
        &b"PROXY TCP4 9.8.7.6 127.0.0.1 257\r\n"[..],
        b"PROXY SCTP 9.8.7.6 127.0.0.1 257 80\r\n",
        long.as_bytes(),
        &version_2(0x31, 0x11, &V4),
        &version_2(0x21, 0x11, &V4[..4]),
    ] {
        let mut client = coreway.client();
        client.send_what_goes([before, GET.as_bytes()].concat());
        client.assert_closed();
    }
    assert!(origin.requests().is_empty());
    assert_eq!(coreway.get("/").status, 200);
}

#[test]
fn without_the_option_a_header_is_no_request() {
    let origin = Origin::text("in");
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange(format!("PROXY TCP4 9.8.7.6 127.0.0.1 257 80\r\n{GET}"));
    assert_eq!(response.status, 400);
}

#[test]
fn a_balancer_that_says_nothing_holds_up_nobody_and_is_given_up() {
    let origin = Origin::text("in");
    let coreway = start(&origin, "insecure = true");
    let mut silent: Vec<Client> = (0..20).map(|_| coreway.client()).collect();
    silent[0].send("PROXY TC");
    assert_eq!(coreway.get("/").status, 200);
    holds_for(
        Duration::from_secs(1),
        "the silent ones are waited for",
        || silent.iter().all(|client| !client.is_readable()),
    );
    // The wait of `assert_closed` is longer than the 10 s of the program.
    silent[0].assert_closed();
}
