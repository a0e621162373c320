//! HTTP/2 from clients: the same answers as over HTTP/1.1, many at once, and none that hinders another.

use std::future::poll_fn;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::ResponseFuture;

use crate::harness::h2::{
    Frames, GET, GOAWAY, Http2, Outcome, PREFACE, SETTINGS, frame, request, send, whole,
};
use crate::harness::tls::{Authority, TlsClient};
use crate::harness::wait::pass;
use crate::harness::{
    Coreway, Gate, Origin, Start, answer, backend, eventually, heavy, site, websocket,
};

const SERVER_FIELDS: &str = "HTTP/1.1 200 OK\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\nConnection: X-Gone\r\nX-Gone: 1\r\n\
    Keep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_is_forwarded_as_one_over_http1() {
    let origin = Origin::new(|_| SERVER_FIELDS.into());
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    let asked = http::Request::builder()
        .uri("http://Test:80/a%20b?c=d")
        .header("cookie", "a=1")
        .header("x-some", "thing")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let told = client.ask(asked, None).unwrap();
    assert_eq!((told.status, told.text().as_str()), (200, "ok"));
    assert_eq!(told.field("x-one"), Some("1"));
    assert_eq!(told.field("content-length"), Some("2"));
    assert!(told.field("date").is_some());
    let twos: Vec<_> = told.fields.get_all("x-two").iter().collect();
    assert_eq!(twos, ["a", "b"]);
    for gone in ["connection", "keep-alive", "x-gone", "transfer-encoding"] {
        assert_eq!(told.field(gone), None, "{gone}");
    }
    let seen = origin.last();
    assert_eq!(
        (seen.head.method(), seen.head.target()),
        ("GET", "/a%20b?c=d")
    );
    assert_eq!(seen.head.all("cookie"), ["a=1; b=2"]);
    assert_eq!(seen.field("x-some"), Some("thing"));
    assert_eq!(seen.field("te"), Some("trailers"));
    assert_eq!(seen.field("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.field("x-forwarded-host"), Some("Test:80"));
    assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.head.all("host").len(), 1);
    assert_eq!(seen.field("content-length"), None);
    assert_eq!(seen.field("transfer-encoding"), None);
}

#[test]
fn the_preface_is_recognised_however_it_comes() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    for pieces in [1, 3, 10, 24] {
        let mut client = Frames::connect(coreway.address());
        for piece in PREFACE.chunks(pieces) {
            assert!(client.send(piece));
        }
        client.send(frame(SETTINGS, 0, 0, &[]));
        client.ask(1, &GET);
        assert_eq!(
            client.outcome(1),
            Outcome::Status(200),
            "in pieces of {pieces}"
        );
    }
    let mut other = coreway.client();
    other.send_byte_by_byte("PRI / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(
        other.response().text(),
        "ok",
        "a method that begins the same"
    );
}

#[test]
fn tls_settles_on_the_protocol_that_the_client_wants() {
    let authority = Authority::new("Test CA");
    let pair = authority.issue(&["test"]);
    let origin = Origin::text("ok");
    let lines = format!(
        "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}",
        pair.toml()
    );
    let coreway = Start::new().entry_point(&lines).serve(&site(&origin));
    let connect = |protocols: &[&str]| {
        let config = authority.client().speaking(protocols).build();
        TlsClient::connect(coreway.address(), &config, "test").unwrap()
    };
    for (offered, settled) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        let client = connect(offered);
        assert_eq!(
            client.stream.conn.alpn_protocol(),
            settled.map(str::as_bytes),
            "{offered:?}"
        );
    }
    assert!(
        connect(&[]).get("/").is_ok(),
        "HTTP/1.1 where nothing was said"
    );
    let mut client = Frames::new(connect(&["h2"]).stream);
    client.send(PREFACE);
    client.send(frame(SETTINGS, 0, 0, &[]));
    client.ask(1, &GET);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(origin.last().field("x-forwarded-proto"), Some("https"));
}

/// Sends back what it gets.
fn echo() -> Origin {
    Origin::wire(|exchange| {
        let Ok(request) = exchange.read_body() else {
            return exchange.close();
        };
        let body = request.body.unwrap().bytes;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        exchange.send(head);
        exchange.send(body);
    })
}

fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|at| (at / 251).to_le_bytes()[0]).collect()
}

#[test]
fn bodies_of_any_length_go_both_ways_at_once() {
    let origin = echo();
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    for length in [0, 1, 100, 4096, 4097, 16_384, 70_000, 2_000_000] {
        let body = bytes(length);
        let told = client.ask(request("POST", "/"), Some(&body)).unwrap();
        assert!(told.body == body, "{length} bytes without a length");
        let mut with_length = request("PUT", "/");
        with_length
            .headers_mut()
            .insert("content-length", length.into());
        let told = client.ask(with_length, Some(&body)).unwrap();
        assert!(told.body == body, "{length} bytes of that length");
        assert_eq!(
            origin.last().field("content-length"),
            Some(length.to_string().as_str())
        );
    }
    let body = bytes(300_000);
    client.run(async {
        let asked: Vec<_> = (0..20)
            .map(|_| {
                let (mut requests, body) = (client.requests.clone(), body.clone());
                tokio::spawn(async move {
                    let (told, mut stream) =
                        requests.send_request(request("POST", "/"), false).unwrap();
                    send(&mut stream, &body).await.unwrap();
                    stream.send_data(Bytes::new(), true).unwrap();
                    assert!(whole(told).await.unwrap().body == body);
                })
            })
            .collect();
        for one in asked {
            one.await.unwrap();
        }
    });
}

#[test]
fn trailers_go_both_ways() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\
             Content-Length: 9\r\n\r\n",
        );
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    let (told, mut stream) = client.begin(request("POST", "/"));
    let told = client.run(async {
        send(&mut stream, b"body").await.unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-mine", "1".parse().unwrap());
        trailers.insert("host", "evil".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        whole(told).await.unwrap()
    });
    assert_eq!(told.text(), "ok");
    let trailers = told.trailers.unwrap();
    assert_eq!(trailers.get("x-sum").unwrap(), "7");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    let body = origin.last().body.unwrap();
    assert_eq!(body.bytes, b"body");
    assert_eq!(body.trailers, [("x-mine".to_owned(), "1".to_owned())]);
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    let origin = Origin::new(|request| match request.head.target() {
        "/204" => "HTTP/1.1 204 X\r\n\r\n".into(),
        "/304" => "HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n".into(),
        _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into(),
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    for (method, target, status, length) in [
        ("GET", "/204", 204, None),
        ("GET", "/304", 304, Some("5")),
        ("HEAD", "/", 200, Some("5")),
    ] {
        let told = client.ask(request(method, target), None).unwrap();
        assert_eq!(
            (told.status, told.field("content-length")),
            (status, length),
            "{target}"
        );
        assert!(told.body.is_empty());
    }
}

#[test]
fn interim_answers_come_first() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 103 X\r\nLink: </a>\r\n\r\nHTTP/1.1 100 X\r\n\r\n");
        let _ = exchange.read_body();
        exchange.send(answer(200, "done"));
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    let mut expecting = request("POST", "/");
    expecting
        .headers_mut()
        .insert("expect", "100-continue".parse().unwrap());
    let (mut told, mut stream) = client.begin(expecting);
    client.run(async {
        let hints = poll_fn(|cx| told.poll_informational(cx))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (hints.status().as_u16(), hints.headers()["link"].as_bytes()),
            (103, &b"</a>"[..])
        );
        let go_on = poll_fn(|cx| told.poll_informational(cx))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(go_on.status().as_u16(), 100);
        send(&mut stream, b"body").await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(whole(told).await.unwrap().text(), "done");
    });
    assert_eq!(origin.last().text(), "body");
}

#[test]
fn what_we_answer_ourselves_is_the_same() {
    let origin = Origin::refusing();
    let rules = format!(
        "{}[frontends.f]\nbackend = \"b\"\n[frontends.f.routes.r]\nrule = \"Path:/refused\"\n",
        backend("b", &origin)
    );
    let coreway = Coreway::serve(&rules);
    let client = Http2::connect(coreway.address());
    let told = client.get("/nowhere");
    assert_eq!(
        (told.status, told.text().as_str()),
        (404, "404 page not found\n")
    );
    assert_eq!(told.field("x-content-type-options"), Some("nosniff"));
    assert_eq!(told.field("content-length"), Some("19"));
    let told = client
        .ask(request("POST", "/refused"), Some(b"body"))
        .unwrap();
    assert_eq!((told.status, told.text().as_str()), (502, "Bad Gateway"));
    let told = client.ask(request("HEAD", "/nowhere"), None).unwrap();
    assert_eq!((told.status, told.body.len()), (404, 0));
    let mut raw = Frames::greet(coreway.address());
    raw.ask(1, &[(":method", "CONNECT"), (":authority", "test:443")]);
    assert_eq!(raw.outcome(1), Outcome::Status(405));
    raw.ask(
        3,
        &[
            (":method", "OPTIONS"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", "*"),
        ],
    );
    assert_eq!(raw.outcome(3), Outcome::Status(200));
}

#[test]
fn an_answer_that_is_cut_is_reset() {
    let origin = Origin::wire(|exchange| {
        let framing = match exchange.head.target() {
            "/length" => "Content-Length: 100\r\n\r\npart",
            _ => "Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n",
        };
        exchange.send(format!("HTTP/1.1 200 OK\r\n{framing}"));
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    for target in ["/length", "/chunked"] {
        let error = client.ask(request("GET", target), None).unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR), "{target}");
        assert!(error.is_reset(), "the connection goes on");
    }
}

/// Asks for a WebSocket, on a connection of its own.
fn open_websocket(coreway: &Coreway) -> (Http2, ResponseFuture, SendStream<Bytes>) {
    let client = Http2::connect(coreway.address());
    client.run_until(|| client.requests.is_extended_connect_protocol_enabled());
    let mut opening = request("CONNECT", "/chat");
    opening
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    opening
        .headers_mut()
        .insert("sec-websocket-version", "13".parse().unwrap());
    let (told, stream) = client.begin(opening);
    (client, told, stream)
}

#[test]
fn a_server_that_has_not_understood_a_websocket_gets_none() {
    for proof in ["", "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"] {
        let origin = Origin::wire(move |exchange| {
            exchange.send(format!(
                "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{proof}\r\n"
            ));
            assert!(exchange.take().is_empty(), "nothing of the client's");
            exchange.close();
        });
        let coreway = Coreway::before(&origin);
        let (client, told, mut stream) = open_websocket(&coreway);
        let told = client.run(async {
            let _ = send(&mut stream, b"for a WebSocket only").await;
            told.await.unwrap()
        });
        assert_eq!(told.status(), 502, "{proof:?}");
        eventually("the server's connection is closed", || {
            origin.connections_open() == 0
        });
        // Over HTTP/1.1 the client has the key, and it is the client's to check.
        let mut client = coreway.client();
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert!(client.head().start.starts_with("HTTP/1.1 101"), "{proof:?}");
    }
}

#[test]
fn a_websocket_is_a_stream() {
    let origin = Origin::wire(|exchange| {
        assert_eq!(exchange.head.method(), "GET");
        assert_eq!(exchange.head.field("Upgrade"), Some("websocket"));
        let accepted = websocket::accepted(exchange.head.field("Sec-WebSocket-Key").unwrap());
        exchange.send(accepted + "Sec-WebSocket-Protocol: chat\r\n\r\nhello");
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
    let coreway = Coreway::before(&origin);
    let (client, told, mut stream) = open_websocket(&coreway);
    client.run(async {
        let told = told.await.unwrap();
        assert_eq!(told.status(), 200);
        assert_eq!(told.headers()["sec-websocket-protocol"], "chat");
        assert!(!told.headers().contains_key("sec-websocket-accept"));
        let mut body = told.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        for text in ["one", "two"] {
            send(&mut stream, text.as_bytes()).await.unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), text);
        }
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "goodbye");
        let end = body.data().await.transpose().unwrap();
        assert!(end.is_none_or(|data| data.is_empty()), "ended in order");
        assert!(body.is_end_stream());
    });
}

#[test]
fn a_stalled_stream_holds_nobody_up() {
    let origin = Origin::new(|request| match request.head.target() {
        "/long" => answer(200, &"x".repeat(1_000_000)),
        _ => answer(200, "short"),
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect_with(
        coreway.address(),
        h2::client::Builder::new().initial_connection_window_size(1_000_000),
    );
    client.run(async {
        let mut requests = client.requests.clone().ready().await.unwrap();
        let (stalled, _) = requests
            .send_request(request("GET", "/long"), true)
            .unwrap();
        let stalled = stalled.await.unwrap();
        // Nothing of it is taken; its stream's window is used up, and not that of the connection.
        for _ in 0..50 {
            requests = requests.ready().await.unwrap();
            let (told, _) = requests.send_request(request("GET", "/"), true).unwrap();
            assert_eq!(whole(told).await.unwrap().text(), "short");
        }
        let mut body = stalled.into_body();
        let mut count = 0;
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            count += data.len();
            body.flow_control().release_capacity(data.len()).unwrap();
        }
        assert_eq!(count, 1_000_000);
    });
}

#[test]
fn a_client_that_leaves_ends_its_exchanges() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let client = Http2::connect(coreway.address());
    let (told, mut stream) = client.begin(request("GET", "/"));
    stream.send_data(Bytes::new(), true).unwrap();
    client.run(async { tokio::task::yield_now().await });
    client.run_until(|| origin.connections_open() > 0);
    stream.send_reset(h2::Reason::CANCEL);
    client.run_until(|| origin.connections_open() == 0);
    drop(told);
    let mut raw = Frames::greet(coreway.address());
    raw.ask(1, &GET);
    raw.ask(3, &GET);
    eventually("both are asked for", || origin.connections_open() == 2);
    drop(raw);
    eventually("both are given up", || origin.connections_open() == 0);
}

#[test]
fn a_drain_says_goodbye_and_lets_streams_finish() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        held.wait();
        exchange.send(answer(200, "finished"));
    });
    let coreway = Coreway::before(&origin);
    let mut client = Frames::greet(coreway.address());
    client.ask(1, &GET);
    eventually("the server is asked", || origin.requests().len() == 1);
    coreway.signal("TERM");
    let first = client.event().unwrap();
    assert_eq!((first.kind, first.code()), (GOAWAY, 0));
    assert_eq!(
        first.payload[..4],
        [0x7f, 0xff, 0xff, 0xff],
        "new streams may still be on their way"
    );
    let second = client.event().unwrap();
    assert_eq!((second.kind, second.code()), (GOAWAY, 0));
    assert_eq!(second.payload[..4], [0, 0, 0, 1], "this one was taken");
    assert!(coreway.ended().is_none(), "it left a request behind");
    gate.open();
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(client.event().unwrap().payload, b"finished");
    assert_eq!(client.event(), None);
    assert_eq!(coreway.exit_code(), 0);
}

#[test]
fn a_drain_does_not_wait_for_a_client_without_streams() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut client = Frames::greet(coreway.address());
    client.ask(1, &GET);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    coreway.signal("TERM");
    // It never confirms that it heard of it.
    assert_eq!(coreway.exit_code(), 0);
    let rest: Vec<_> = std::iter::from_fn(|| client.next()).collect();
    let goodbyes: Vec<_> = rest.iter().filter(|frame| frame.kind == GOAWAY).collect();
    assert_eq!(goodbyes.len(), 2, "{rest:?}");
    assert_eq!(goodbyes[1].payload[..4], [0, 0, 0, 1]);
}

#[test]
fn an_idle_connection_is_closed_with_a_goodbye() {
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .table("[respondingTimeouts]\nidleTimeout = \"500ms\"")
        .serve(&site(&origin));
    let mut client = Frames::greet(coreway.address());
    client.ask(1, &GET);
    assert_eq!(client.outcome(1), Outcome::Status(200));
    assert_eq!(client.event().unwrap().payload, b"ok");
    let goodbye = client.event().unwrap();
    assert_eq!((goodbye.kind, goodbye.code()), (GOAWAY, 0));
    assert_eq!(client.event(), None);
}

#[test]
fn curl_speaks_it() {
    let version = Command::new("curl").arg("--version").output();
    if !version.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains("HTTP2")) {
        assert!(
            std::env::var("CI").is_err(),
            "cannot be skipped in CI: curl without HTTP/2"
        );
        eprintln!("skipped: no curl that speaks HTTP/2");
        return;
    }
    let origin = echo();
    let curl = |coreway: &Coreway, scheme: &str, arguments: &[&str]| {
        let told = Command::new("curl")
            .args(["--silent", "--show-error", "--insecure", "--max-time", "10"])
            .args([
                "--data",
                "body",
                "--write-out",
                " %{http_version} %{http_code}",
            ])
            .args(arguments)
            .arg(format!("{scheme}://{}/", coreway.address()))
            .output()
            .unwrap();
        String::from_utf8_lossy(&told.stdout).into_owned()
    };
    let clear = Coreway::before(&origin);
    assert_eq!(
        curl(&clear, "http", &["--http2-prior-knowledge"]),
        "body 2 200"
    );
    assert_eq!(
        curl(&clear, "http", &["--http2"]),
        "body 1.1 200",
        "an upgrade is not taken"
    );
    assert_eq!(curl(&clear, "http", &["--http1.1"]), "body 1.1 200");
    let sealed = Start::new()
        .entry_point("[entryPoints.http.tls]")
        .serve(&site(&origin));
    assert_eq!(curl(&sealed, "https", &["--http2"]), "body 2 200");
    assert_eq!(curl(&sealed, "https", &["--http1.1"]), "body 1.1 200");
}

/// Of it the library's buffers and tables are about 40 KiB. On epoll, where a wait can only be called off through an object
/// of its own, more.
fn idle_bytes_max() -> usize {
    match std::env::var("COREWAY_TEST_DRIVER").as_deref() {
        Ok("epoll") => 88 * 1024,
        _ => 72 * 1024,
    }
}

#[test]
fn idle_connections_hold_little() {
    const CONNECTIONS: usize = 400;
    let _alone = heavy();
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let connected = || {
        let mut client = Frames::greet(coreway.address());
        for stream in [1, 3, 5, 7] {
            client.ask(stream, &GET);
            assert_eq!(client.outcome(stream), Outcome::Status(200));
        }
        client
    };
    let warm: Vec<_> = (0..32).map(|_| connected()).collect();
    // What was busy gives its memory back once it has been quiet for a second.
    pass(Duration::from_secs(3));
    let before = coreway.memory_kib();
    let mut crowd: Vec<_> = (0..CONNECTIONS).map(|_| connected()).collect();
    pass(Duration::from_secs(3));
    let each = coreway.memory_kib().saturating_sub(before) * 1024 / CONNECTIONS;
    eprintln!("{each} bytes for each of {CONNECTIONS} idle connections");
    assert!(
        each <= idle_bytes_max(),
        "{each} bytes for each idle connection"
    );
    let used = coreway.cpu_time_during(Duration::from_secs(2));
    assert!(
        used <= Duration::from_millis(50),
        "{used:?} of processor time for doing nothing"
    );
    for client in crowd.iter_mut().step_by(20) {
        client.ask(9, &GET);
        assert_eq!(
            client.outcome(9),
            Outcome::Status(200),
            "they are all still there"
        );
    }
    drop(warm);
}
