//! TLS at an entry point: what is offered, which certificate is shown, who is let in, and that HTTP does not notice.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::harness::tls::{Authority, Pair, TlsClient};
use crate::harness::wait::pass;
use crate::harness::{Client, Coreway, DEADLINE, Origin, Start, answer, site};

/// An entry point with TLS and these certificates.
fn tls(options: &str, certificates: &[&Pair]) -> String {
    let mut text = format!("[entryPoints.http.tls]\n{options}\n");
    for pair in certificates {
        text += &format!("[[entryPoints.http.tls.certificates]]\n{}", pair.toml());
    }
    text
}

struct Edge {
    authority: Authority,
    pair: Pair,
    origin: Origin,
    coreway: Coreway,
}

/// A site at `a.test` with TLS.
fn edge(options: &str) -> Edge {
    edge_before(Origin::text("hello"), Start::new(), options)
}

fn edge_before(origin: Origin, start: Start, options: &str) -> Edge {
    let authority = Authority::new("Test CA");
    let pair = authority.issue(&["a.test"]);
    let coreway = start
        .entry_point(&tls(options, &[&pair]))
        .serve(&site(&origin));
    Edge {
        authority,
        pair,
        origin,
        coreway,
    }
}

impl Edge {
    fn client(&self) -> TlsClient {
        TlsClient::connect(
            self.coreway.address(),
            &self.authority.client().build(),
            "a.test",
        )
        .unwrap()
    }
}

/// What `openssl s_client` says to these arguments.
fn s_client(address: SocketAddr, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("openssl is installed");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_request_over_tls_is_forwarded_as_one() {
    let edge = edge("");
    let ca = edge.coreway.folder().join("ca.pem");
    std::fs::write(&ca, edge.authority.pem()).unwrap();
    let address = edge.coreway.address();
    let curl = |url: &str| {
        let output = Command::new("curl")
            .args(["-sS", "--http1.1", "--max-time", "10", "--cacert"])
            .arg(&ca)
            .args(["--connect-to", &format!("::{address}"), url])
            .output()
            .expect("curl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl("https://a.test/x"), "hello");
    let request = edge.origin.last();
    assert_eq!(request.field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.field("X-Forwarded-Port"), Some("443"));
    curl("https://a.test:8443/x");
    assert_eq!(edge.origin.last().field("X-Forwarded-Port"), Some("8443"));
    // A trusted client's word counts as it does without TLS.
    let mut client = edge.client();
    client
        .exchange("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-Proto: http\r\n\r\n")
        .unwrap();
    assert_eq!(edge.origin.last().field("X-Forwarded-Proto"), Some("http"));
    client
        .exchange("GET / HTTP/1.1\r\nHost: a.test\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        .unwrap();
    let request = edge.origin.last();
    assert_eq!(request.field("X-Forwarded-Proto"), Some("https"));
    assert_eq!(request.field("X-Forwarded-Port"), Some("443"));
}

#[test]
fn a_redirect_to_tls_ends_at_tls() {
    let authority = Authority::new("Test CA");
    let pair = authority.issue(&["a.test"]);
    let origin = Origin::text("hello");
    let coreway = Start::new()
        .entry_point(&tls("", &[&pair]))
        .table("[entryPoints.clear]\naddress = \"127.0.0.1:0\"")
        .serve(
            &(site(&origin)
                + "entryPoints = [\"http\", \"clear\"]\n[frontends.f.headers]\nSSLRedirect = true\n"),
        );
    let told = crate::harness::get(coreway.address_of("clear"), "a.test", "/x");
    assert_eq!(told.status, 301);
    assert_eq!(told.field("Location"), Some("https://a.test/x"));
    let config = authority.client().build();
    let mut client = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
    assert_eq!(client.get("/x").unwrap().status, 200);
}

#[test]
fn only_strong_versions_and_suites_are_offered() {
    let edge = edge("");
    let address = edge.coreway.address();
    for version in ["-tls1", "-tls1_1"] {
        let said = s_client(address, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(said.contains("Cipher is (NONE)"), "{version}: {said}");
        assert!(said.contains(" alert "), "{version}: {said}");
    }
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let said = s_client(address, &[version]);
        assert!(said.contains(&format!("New, {name}, Cipher is ")), "{said}");
        assert!(!said.contains("(NONE)"), "{said}");
    }
    // Everything that OpenSSL knows, except what is strong.
    let weak = "ALL:COMPLEMENTOFALL:!ECDHE+AESGCM:!ECDHE+CHACHA20:@SECLEVEL=0";
    let said = s_client(address, &["-tls1_2", "-cipher", weak]);
    assert!(said.contains("Cipher is (NONE)"), "{said}");

    let mut client = edge.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    let connection = &client.stream.conn;
    assert_eq!(
        connection.protocol_version(),
        Some(ProtocolVersion::TLSv1_3)
    );
    assert_eq!(
        connection.negotiated_cipher_suite().unwrap().suite(),
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
    );
    assert_eq!(
        connection.negotiated_key_exchange_group().unwrap().name(),
        NamedGroup::X25519MLKEM768
    );
    assert_eq!(connection.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn versions_and_suites_are_what_the_operator_says() {
    let modern = edge("minVersion = \"VersionTLS13\"");
    let said = s_client(modern.coreway.address(), &["-tls1_2"]);
    assert!(said.contains("alert protocol version"), "{said}");
    assert_eq!(modern.client().get("/").unwrap().status, 200);

    let chosen = edge(
        "cipherSuites = [\"TLS_RSA_WITH_RC4_128_SHA\", \"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\"]",
    );
    chosen
        .coreway
        .await_log("TLS_RSA_WITH_RC4_128_SHA is too weak to be offered");
    let address = chosen.coreway.address();
    let said = s_client(address, &["-tls1_2"]);
    assert!(
        said.contains("Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
        "{said}"
    );
    let said = s_client(
        address,
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    );
    assert!(said.contains("Cipher is (NONE)"), "{said}");
}

#[test]
fn the_certificate_is_that_of_the_name() {
    let authority = Authority::new("Test CA");
    let (wild, exact, rsa) = (
        authority.issue(&["*.tls.test"]),
        authority.issue(&["a.tls.test", "127.0.0.1"]),
        authority.issue_rsa(&["b.tls.test", "c.tls.test"]),
    );
    let origin = Origin::text("hello");
    let coreway = Start::new()
        .entry_point(&tls("", &[&wild, &exact, &rsa]))
        .serve(&site(&origin));
    let config = authority.client().build();
    let check = |name: &str, expected: &Pair| {
        let mut client = TlsClient::connect(coreway.address(), &config, name).unwrap();
        assert_eq!(client.certificate(), expected.der(), "{name}");
        assert_eq!(client.get("/").unwrap().status, 200);
    };
    check("A.TLS.TEST", &exact);
    check("b.tls.test", &rsa);
    check("c.tls.test", &rsa);
    check("z.tls.test", &wild);
    // An address is not told the server, which knows it all the same.
    check("127.0.0.1", &exact);
    // The client of other names refuses what it gets, so another one is asked.
    for name in ["x.y.tls.test", "other.test"] {
        let said = s_client(coreway.address(), &["-servername", name]);
        assert!(said.contains("subject=CN = *.tls.test"), "{name}: {said}");
    }
}

#[test]
fn without_a_certificate_one_is_made() {
    let authority = Authority::new("Test CA");
    let other = authority.issue(&["other.test"]);
    let origin = Origin::text("hello");
    let nope = Pair {
        chain: "/nope".to_owned(),
        key: other.key.clone(),
    };
    let coreway = Start::new()
        .entry_point(&tls("", &[&nope, &other]))
        .serve(&site(&origin));
    coreway.await_log(
        "Unable to append certificate /nope to entrypoint http: failed to find any PEM data in certificate input",
    );
    let said = s_client(coreway.address(), &["-servername", "a.test"]);
    assert!(said.contains("subject=CN = TRAEFIK DEFAULT CERT"), "{said}");
    let config = authority.client().build();
    let client = TlsClient::connect(coreway.address(), &config, "other.test").unwrap();
    assert_eq!(client.certificate(), other.der(), "the rest serves");
}

#[test]
fn a_strict_entry_point_refuses_unknown_names() {
    let edge = edge("sniStrict = true");
    assert_eq!(edge.client().get("/").unwrap().status, 200);
    for name in ["b.test", "10.0.0.1"] {
        let config = edge.authority.client().build();
        let refused = TlsClient::connect(edge.coreway.address(), &config, name)
            .err()
            .expect("there is no certificate for it");
        assert!(
            refused.to_string().contains("InternalError"),
            "{name}: {refused}"
        );
    }
}

#[test]
fn clients_show_certificates_where_they_must() {
    let clients = Authority::new("Client CA");
    let (good, bad) = (
        clients.issue(&["client one"]),
        Authority::new("Client CA").issue(&["client two"]),
    );
    let options = |optional: bool| {
        format!(
            "[entryPoints.http.tls.clientCA]\nfiles = ['''{}''']\noptional = {optional}\n",
            clients.pem()
        )
    };
    let required = edge(&options(false));
    let optional = edge(&options(true));
    let ask = |edge: &Edge, own: Option<&Pair>, version| {
        let mut settings = edge.authority.client().only(version);
        if let Some(own) = own {
            settings = settings.showing(own);
        }
        TlsClient::connect(edge.coreway.address(), &settings.build(), "a.test")
            .and_then(|mut client| client.get("/"))
            .map(|answer| answer.status)
    };
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        assert_eq!(ask(&required, Some(&good), version).unwrap(), 200);
        let refused = ask(&required, None, version).unwrap_err().to_string();
        assert!(refused.contains("received fatal alert"), "{refused}");
        let refused = ask(&required, Some(&bad), version).unwrap_err().to_string();
        assert!(refused.contains("received fatal alert"), "{refused}");
        assert_eq!(ask(&optional, Some(&good), version).unwrap(), 200);
        assert_eq!(ask(&optional, None, version).unwrap(), 200);
        assert!(ask(&optional, Some(&bad), version).is_err());
    }
    assert_eq!(
        required.origin.requests().len(),
        2,
        "nobody else came through"
    );
}

#[test]
fn a_session_is_resumed_on_every_core() {
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let edge = edge_before(Origin::text("hello"), Start::new().cores(2), "");
        let config = edge.authority.client().only(version).build();
        // Held open, so that they are spread over both cores: a crowded core gives new ones away.
        let mut held = Vec::new();
        for round in 0..100 {
            let mut client = TlsClient::connect(edge.coreway.address(), &config, "a.test").unwrap();
            assert_eq!(client.get("/").unwrap().status, 200);
            let expected = if round == 0 {
                HandshakeKind::Full
            } else {
                HandshakeKind::Resumed
            };
            assert_eq!(
                client.stream.conn.handshake_kind(),
                Some(expected),
                "{version:?}, round {round}"
            );
            held.push(client);
        }
    }
}

#[test]
fn a_ticket_of_an_open_entry_point_does_not_open_a_closed_one() {
    let clients = Authority::new("Client CA");
    let authority = Authority::new("Test CA");
    let pair = authority.issue(&["a.test"]);
    let origin = Origin::text("hello");
    let coreway = Start::new()
        .entry_point(&tls("", &[&pair]))
        .table(&format!(
            "[entryPoints.closed]\naddress = \"127.0.0.1:0\"\n[entryPoints.closed.tls]\n\
             [[entryPoints.closed.tls.certificates]]\n{}[entryPoints.closed.tls.clientCA]\nfiles = ['''{}''']\n",
            pair.toml(),
            clients.pem()
        ))
        .serve(&(site(&origin) + "entryPoints = [\"http\", \"closed\"]\n"));
    let config = authority.client().build();
    let mut open = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
    assert_eq!(open.get("/").unwrap().status, 200);
    let refused = TlsClient::connect(coreway.address_of("closed"), &config, "a.test")
        .and_then(|mut client| client.get("/"));
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_connection_carries_many_exchanges_and_quiet_times() {
    let edge = edge("");
    let mut client = edge.client();
    for round in 0..50 {
        assert_eq!(client.get(&format!("/{round}")).unwrap().body, b"hello");
    }
    // Longer than a buffer is held.
    pass(Duration::from_millis(1500));
    assert_eq!(client.get("/later").unwrap().body, b"hello");
    // Two requests in one record, one request in many.
    let request = "GET /p HTTP/1.1\r\nHost: a.test\r\n\r\n";
    assert_eq!(client.exchange(request.repeat(2)).unwrap().status, 200);
    assert_eq!(client.answer().unwrap().status, 200);
    for byte in request.as_bytes() {
        client.stream.write_all(&[*byte]).unwrap();
        client.stream.flush().unwrap();
    }
    assert_eq!(client.answer().unwrap().status, 200);
    assert_eq!(edge.origin.connections(), 1);
    let last = client
        .exchange("GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!(last.head.contains("Connection: close"), "{}", last.head);
    assert!(client.rest().unwrap().is_empty(), "the end is announced");
}

#[test]
fn long_bodies_go_both_ways() {
    let origin = Origin::new(|request| answer(200, &request.text()));
    let edge = edge_before(origin, Start::new(), "");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = edge.authority.client().only(version).build();
        let mut client = TlsClient::connect(edge.coreway.address(), &config, "a.test").unwrap();
        for bytes in [1 << 20, 8 << 20, 16 * 1024, 100] {
            let body: String = ('a'..='z').cycle().take(bytes).collect();
            let answer = client
                .exchange(format!(
                    "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {bytes}\r\n\r\n{body}"
                ))
                .unwrap();
            assert!(answer.body == body.as_bytes(), "{bytes} bytes");
        }
    }
}

#[test]
fn a_body_is_answered_while_it_comes() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        loop {
            let bytes = exchange.take();
            if bytes.is_empty() {
                return exchange.close();
            }
            exchange.send(format!("{:x}\r\n", bytes.len()));
            exchange.send(bytes);
            exchange.send("\r\n");
        }
    });
    let edge = edge_before(origin, Start::new(), "");
    let mut client = edge.client();
    client
        .stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 300\r\n\r\n")
        .unwrap();
    let mut got = String::new();
    for round in 0..3 {
        let piece = round.to_string().repeat(10);
        client.stream.write_all(piece.as_bytes()).unwrap();
        while !got.contains(&piece) {
            let mut some = [0; 1000];
            let count = client.stream.read(&mut some).unwrap();
            assert!(count > 0, "ended after {got}");
            got += &String::from_utf8_lossy(&some[..count]);
        }
    }
}

#[test]
fn a_tunnel_goes_through_and_ends_in_order() {
    let origin = Origin::wire(|exchange| {
        exchange
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        loop {
            let bytes = exchange.take();
            if bytes.is_empty() {
                break;
            }
            exchange.send(bytes);
        }
        exchange.send("goodbye");
        exchange.close();
    });
    let edge = edge_before(origin, Start::new(), "");
    let mut client = edge.client();
    let request =
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly";
    client.stream.write_all(request.as_bytes()).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\nearly") {
        let mut some = [0; 1000];
        let count = client.stream.read(&mut some).unwrap();
        assert!(count > 0);
        got.extend_from_slice(&some[..count]);
    }
    // The client's end is told the server, and the server's the client.
    client.stream.conn.send_close_notify();
    client.stream.flush().unwrap();
    assert_eq!(client.rest().unwrap(), b"goodbye");
}

#[test]
fn a_cut_answer_does_not_look_whole() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        exchange.reset();
    });
    let edge = edge_before(origin, Start::new(), "");
    let mut client = edge.client();
    assert!(client.get("/").is_err());
    let endless = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        exchange.close();
    });
    let edge = edge_before(endless, Start::new(), "");
    // Its answer ends with the connection, so that is how the cut must show.
    let cut = edge
        .client()
        .exchange("GET / HTTP/1.0\r\nHost: a.test\r\n\r\n");
    assert!(cut.is_err(), "{cut:?}");
}

#[test]
fn http_without_tls_is_told_so() {
    let edge = edge("");
    let mut client = Client::connect(edge.coreway.address());
    let told = client.get("/");
    assert_eq!(told.status, 400);
    assert_eq!(
        told.text(),
        "Client sent an HTTP request to an HTTPS server.\n"
    );
    client.assert_closed();
    assert!(edge.origin.requests().is_empty());
}

#[test]
fn garbage_harms_nobody() {
    let edge = edge("");
    let mut bystander = edge.client();
    let hello = [22, 3, 1, 255, 255, 1, 0, 255, 255];
    for garbage in [
        &[0; 100][..],
        &[22, 3, 1, 0, 1, 0],
        &hello,
        &[128, 1, 2],
        &[23; 70_000],
    ] {
        let mut socket = TcpStream::connect(edge.coreway.address()).unwrap();
        socket.set_read_timeout(Some(2 * DEADLINE)).unwrap();
        // It may be refused before all of it is sent.
        let _ = socket.write_all(garbage);
        let _ = socket.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert!(
            said.is_empty() || said[0] == 21,
            "an alert or nothing: {said:?}"
        );
        assert_eq!(bystander.get("/").unwrap().status, 200);
    }
    // In the middle of a connection.
    let mut client = edge.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    client
        .stream
        .sock
        .write_all(b"\x17\x03\x03\x00\x20garbage garbage garbage garbage!")
        .unwrap();
    let refused = client.rest().unwrap_err().to_string();
    assert!(
        refused.contains("received fatal alert: BadRecordMac"),
        "{refused}"
    );
    // An end that is not announced, before a request and in one.
    for begun in [
        "",
        "GET / HT",
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nx",
    ] {
        let mut client = edge.client();
        client.stream.write_all(begun.as_bytes()).unwrap();
        client.stream.sock.shutdown(Shutdown::Write).unwrap();
        assert!(client.rest().unwrap_or_default().is_empty());
    }
    assert_eq!(bystander.get("/").unwrap().status, 200);
}

/// Beginnings of handshakes that the storm sends at once: about half a second of work for one core.
const STORM: usize = 400;

#[test]
fn a_storm_of_handshakes_lets_others_through() {
    let authority = Authority::new("Test CA");
    let pair = authority.issue_rsa(&["a.test"]);
    let origin = Origin::text("hello");
    let coreway = Start::new()
        .cores(1)
        .entry_point(&tls("", &[&pair]))
        .serve(&site(&origin));
    let config = authority.client().build();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::clone(&config), "a.test".try_into().unwrap())
        .unwrap()
        .write_tls(&mut hello)
        .unwrap();
    let mut established = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
    assert_eq!(established.get("/").unwrap().status, 200);
    let mut storm: Vec<TcpStream> = (0..STORM)
        .map(|_| TcpStream::connect(coreway.address()).unwrap())
        .collect();
    for client in &mut storm {
        client.write_all(&hello).unwrap();
    }
    assert_eq!(established.get("/").unwrap().status, 200);
    let mut byte = [0];
    let answered = storm
        .iter()
        .filter(|client| {
            client.set_nonblocking(true).unwrap();
            let answered = client.peek(&mut byte).is_ok();
            client.set_nonblocking(false).unwrap();
            answered
        })
        .count();
    assert!(answered < STORM * 3 / 4, "only after {answered} handshakes");
    for client in &mut storm {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.read_exact(&mut byte).unwrap();
    }
}

#[test]
fn a_slow_handshake_is_cut() {
    let edge = edge("");
    let start = Instant::now();
    let mut silent = TcpStream::connect(edge.coreway.address()).unwrap();
    let mut slow = TcpStream::connect(edge.coreway.address()).unwrap();
    slow.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    for socket in [&mut silent, &mut slow] {
        socket.set_read_timeout(Some(3 * DEADLINE)).unwrap();
        let ended = socket.read_to_end(&mut Vec::new());
        assert!(ended.is_ok(), "{ended:?}");
    }
    let took = start.elapsed();
    assert!(
        took >= Duration::from_secs(9) && took < 2 * DEADLINE,
        "{took:?}"
    );
}

#[test]
fn a_drain_lets_answers_finish_and_ends_in_order() {
    let edge = edge("");
    let mut idle = edge.client();
    assert_eq!(idle.get("/").unwrap().status, 200);
    edge.coreway.signal("TERM");
    assert!(idle.rest().unwrap().is_empty(), "the end is announced");
    assert_eq!(edge.coreway.exit_code(), 0);
    assert!(!edge.pair.key.is_empty());
}

#[test]
fn what_would_let_anybody_in_stops_the_start() {
    let authority = Authority::new("Test CA");
    let pair = authority.issue(&["a.test"]);
    let check = |options: &str, why: &str| {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("coreway.toml");
        let text = format!(
            "[entryPoints.http]\naddress = \"127.0.0.1:0\"\n{}",
            tls(options, &[&pair])
        );
        std::fs::write(&settings, text).unwrap();
        let arguments = [format!("--configFile={}", settings.display())];
        let coreway = Coreway::spawn(folder, &arguments, None);
        assert_eq!(coreway.exit_code(), 1);
        coreway.await_log(why);
    };
    check(
        "[entryPoints.http.tls.clientCA]\nfiles = [\"/nope\"]",
        "invalid certificate(s) content",
    );
    check(
        "cipherSuites = [\"TLS_RSA_WITH_RC4_128_SHA\"]",
        "none of them can be offered",
    );
}

/// A certificate in a rule file.
fn dynamic(chain: &str, key: &str) -> String {
    format!(
        "[[tls]]\nentryPoints = [\"http\"]\n[tls.certificate]\ncertFile = '''{chain}'''\nkeyFile = '''{key}'''\n"
    )
}

#[test]
fn certificates_of_rule_files_come_and_go() {
    let edge = edge("");
    let site = site(&edge.origin);
    let [b, renewed, usurper] =
        ["b.test", "b.test", "a.test"].map(|name| edge.authority.issue(&[name]));
    let of = |pair: &Pair| dynamic(&pair.chain, &pair.key);
    let check = |name: &str, expected: &Pair| {
        // A client of its own each time: a resumed session has no certificate.
        let config = edge.authority.client().build();
        let client = TlsClient::connect(edge.coreway.address(), &config, name).unwrap();
        assert_eq!(client.certificate(), expected.der(), "{name}");
    };
    let mut bystander = edge.client();
    assert_eq!(bystander.get("/").unwrap().status, 200);
    edge.coreway
        .reload(&format!("{site}{}{}", of(&b), of(&usurper)));
    check("b.test", &b);
    check("a.test", &edge.pair);
    edge.coreway.reload(&format!(
        "{site}{}{}",
        of(&renewed),
        dynamic("/nope", &b.key)
    ));
    edge.coreway.await_log(
        "Unable to append certificate /nope to entrypoint http: failed to find any PEM data",
    );
    check("b.test", &renewed);
    edge.coreway.reload(&site);
    let said = s_client(edge.coreway.address(), &["-servername", "b.test"]);
    assert!(said.contains("subject=CN = a.test"), "the default: {said}");
    assert_eq!(bystander.get("/").unwrap().status, 200);
}

#[test]
fn a_renewed_file_is_a_changed_configuration() {
    let edge = edge("");
    let folder = edge.coreway.folder();
    let (chain, key) = (folder.join("b.pem"), folder.join("b.key"));
    let write = |pair: &Pair| {
        std::fs::write(&chain, &pair.chain).unwrap();
        std::fs::write(&key, &pair.key).unwrap();
    };
    let [old, renewed] = ["b.test", "b.test"].map(|name| edge.authority.issue(&[name]));
    write(&old);
    let rules = site(&edge.origin) + &dynamic(chain.to_str().unwrap(), key.to_str().unwrap());
    edge.coreway.reload(&rules);
    let shown = || {
        let config = edge.authority.client().build();
        let client = TlsClient::connect(edge.coreway.address(), &config, "b.test").unwrap();
        client.certificate()
    };
    assert_eq!(shown(), old.der());
    write(&renewed);
    // The rules are written as they were: only what they name has changed.
    edge.coreway.reload(&rules);
    assert_eq!(shown(), renewed.der());
}
