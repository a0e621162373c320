//! The files of `examples/` load without a complaint and serve what they say.

use crate::harness::grpc_origin::GrpcOrigin;
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::{Coreway, Origin, Start, answer};

/// A file as it is, but for its addresses: of ours from the kernel's free ones, of servers those that were started.
fn start(file: &str, addresses: &[(&str, String)]) -> Coreway {
    let path = format!("{}/examples/{file}", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).unwrap();
    for (written, used) in addresses {
        assert!(text.contains(written), "{written}");
        text = text.replace(written, used);
    }
    let edge = Start::new().with_settings(&text, |_| ());
    edge.await_reloads(1);
    edge
}

/// The edge, before these servers.
pub(super) fn edge(web: &str, calls: &str) -> Coreway {
    start(
        "edge.toml",
        &[
            ("127.0.0.1:8080", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:8443", "127.0.0.1:0".to_owned()),
            ("http://127.0.0.1:9000", web.to_owned()),
            ("h2c://127.0.0.1:9001", calls.to_owned()),
        ],
    )
}

#[test]
fn the_edge_serves_every_protocol() {
    let web = Origin::wire(|exchange| {
        if exchange.head.field("upgrade").is_none() {
            exchange.send(answer(200, "hello"));
            return exchange.close();
        }
        exchange.send("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let bytes = exchange.take();
        exchange.send(bytes);
        exchange.close();
    });
    let calls = GrpcOrigin::new();
    let edge = edge(&web.url(), &calls.url());
    assert!(!edge.log().contains("level=warning"), "{}", edge.log());
    assert!(!edge.log().contains("level=error"), "{}", edge.log());
    assert_eq!(edge.get("/").text(), "hello");

    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 101"));
    client.send("echo");
    assert_eq!(client.exactly(4), b"echo");

    let call = "POST /test.Echo/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\nTE: trailers\r\n\
                Content-Length: 10\r\n\r\n\0\0\0\0\x05hello";
    let told = edge.client().exchange(call);
    assert_eq!(told.body, b"\0\0\0\0\x05hello");
    assert_eq!(told.trailers, [("grpc-status".to_owned(), "0".to_owned())]);

    // The certificate is nobody's, so a client that believes somebody refuses it: but it is shown.
    let config = Authority::new("somebody").client().build();
    let refused = TlsClient::connect(edge.address_of("https"), &config, "a.test")
        .map(drop)
        .unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}
