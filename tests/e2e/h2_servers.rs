//! Servers that speak HTTP/2: one connection for many exchanges, and clients that do not notice.
//!
//! What HTTP/2 adds is tested here (streams, resets, GOAWAY, flow control, what hostile frames do); that bodies and heads
//! mean the same as over HTTP/1.1 is tested with one example of each.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Response};
use tokio::sync::Notify;

use crate::harness::h2_origin::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, STATUS_200,
    Setup, literal, response, send, site_of,
};
use crate::harness::tls::Authority;
use crate::harness::wait::holds_for;
use crate::harness::{Coreway, Gate, H2Origin, Start, eventually};

/// One core: then all exchanges share its connections.
fn before(origin: &H2Origin) -> Coreway {
    Start::new().cores(1).serve(&origin.site())
}

fn before_frames(address: std::net::SocketAddr) -> Coreway {
    Start::new()
        .cores(1)
        .serve(&site_of(&format!("h2c://{address}")))
}

fn post(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_server_is_spoken_to_over_http2() {
    let origin = H2Origin::new(|asked| asked.echo());
    let edge = before(&origin);
    let mut client = edge.client();
    let told = client.get("/a?b=c<d>`");
    assert_eq!((told.status, told.text()), (200, String::new()));
    assert_eq!(origin.last().uri().path(), "/a");
    assert_eq!(origin.last().uri().query(), Some("b=c%3Cd%3E%60"));
    for bytes in [10, 5_000, 100_000, 3 << 20] {
        let body: String = ('a'..='z').cycle().take(bytes).collect();
        let told = client.exchange(post(&body));
        assert!(told.text() == body, "{bytes} bytes");
    }
    let asked = origin.last();
    assert_eq!(
        asked.uri().authority().unwrap(),
        &origin.address().to_string()
    );
    assert_eq!(asked.uri().scheme_str(), Some("http"));
    let field = |name| asked.headers()[name].to_str().unwrap();
    assert_eq!(field("x-forwarded-host"), "a.test");
    assert_eq!(field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(field("x-forwarded-proto"), "http");
    assert_eq!(field("content-length"), (3 << 20).to_string());
    assert_eq!(origin.connections(), 1, "one connection for all");
}

#[test]
fn hop_by_hop_fields_end_here_and_te_trailers_goes_on() {
    let origin = H2Origin::text("hello");
    let edge = Start::new()
        .cores(1)
        .serve(&(origin.site() + "passHostHeader = true\n"));
    let told = edge.client().exchange(
        "GET / HTTP/1.1\r\nHost: Other.test:81\r\nConnection: Keep-Alive, x-named, te, upgrade\r\nX-Named: 1\r\n\
         Keep-Alive: 5\r\nTE: trailers, gzip\r\nUpgrade: websocket\r\nX-Kept: 1\r\nCookie: a=1\r\nCookie: b=2\r\n\r\n",
    );
    assert_eq!(told.text(), "hello");
    assert_eq!(told.field("content-length"), Some("5"));
    let asked = origin.last();
    assert_eq!(asked.uri().authority().unwrap(), "Other.test:81");
    for gone in ["connection", "x-named", "keep-alive", "upgrade", "host"] {
        assert!(!asked.headers().contains_key(gone), "{gone}");
    }
    assert_eq!(asked.headers()["te"], "trailers");
    assert_eq!(asked.headers()["x-kept"], "1");
    assert_eq!(asked.headers().get_all("cookie").iter().count(), 2);
}

#[test]
fn answers_without_a_body_have_none() {
    let origin = H2Origin::new(|mut asked| async move {
        let mut answer = Response::new(());
        match asked.path() {
            "/204" => *answer.status_mut() = http::StatusCode::NO_CONTENT,
            "/304" => *answer.status_mut() = http::StatusCode::NOT_MODIFIED,
            "/head" => drop(
                answer
                    .headers_mut()
                    .insert("content-length", "5".parse().unwrap()),
            ),
            _ => {}
        }
        let _ = asked.respond.send_response(answer, true);
    });
    let edge = before(&origin);
    let mut client = edge.client();
    assert_eq!(client.get("/204").status, 204);
    assert_eq!(client.get("/304").status, 304);
    let empty = client.get("/empty");
    assert_eq!(
        (empty.status, empty.field("content-length")),
        (200, Some("0"))
    );
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.head_response();
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("5"))
    );
    assert_eq!(client.get("/204").status, 204, "the connection goes on");
}

#[test]
fn trailers_pass_both_ways() {
    let origin = H2Origin::new(|asked| asked.echo());
    let edge = before(&origin);
    let told = edge.client().exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\
         Content-Length: 9\r\n\r\n",
    );
    assert_eq!(told.text(), "abc");
    assert_eq!(told.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn a_body_passes_as_it_comes_both_ways() {
    let origin = H2Origin::new(|mut asked| async move {
        let Some(mut stream) = asked.head(response(200)) else {
            return;
        };
        // Each piece goes back before the next one comes.
        let body = asked.request.body_mut();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            send(&mut stream, data, false).await;
        }
        let _ = stream.send_data(Bytes::new(), true);
    });
    let edge = before(&origin);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 200"));
    for piece in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(client.chunk(), piece.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.chunk(), b"");
}

#[test]
fn interim_answers_pass() {
    let address = Frames::origin(&[], |_, frames| {
        while let Some(stream) = frames.request() {
            let mut early = literal(":status", "103");
            early.extend(literal("link", "</a>"));
            frames.send(HEADERS, END_HEADERS, stream, &early);
            frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200]);
        }
    });
    let edge = before_frames(address);
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let early = client.head();
    assert!(early.start.starts_with("HTTP/1.1 103"), "{}", early.start);
    assert_eq!(early.field("link"), Some("</a>"));
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_client_that_waits_for_100_gets_it() {
    let origin = H2Origin::new(|asked| asked.echo());
    let edge = before(&origin);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 100"));
    client.send("abc");
    assert_eq!(client.response().text(), "abc");
}

#[test]
fn streams_share_a_connection_up_to_what_the_server_allows() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let mut builder = Builder::new();
    builder.max_concurrent_streams(4);
    let origin = H2Origin::with(Setup { builder, tls: None }, move |asked| {
        let gate = waiting.clone();
        async move {
            let _ = tokio::task::spawn_blocking(move || gate.wait()).await;
            asked.answer(200, "hello").await;
        }
    });
    let edge = before(&origin);
    let mut clients: Vec<_> = (0..10).map(|_| edge.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("all are asked at once", || origin.under_way() == 10);
    assert_eq!(origin.connections(), 3, "ten exchanges, four on each");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
    }
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "hello");
    }
    assert_eq!(origin.connections(), 3, "they were kept");
}

#[test]
fn a_slow_client_stalls_only_its_own_stream() {
    let origin = H2Origin::new(|mut asked| async move {
        if asked.path() != "/long" {
            return asked.answer(200, "short").await;
        }
        if let Some(mut stream) = asked.head(response(200)) {
            send(&mut stream, vec![b'x'; 64 << 20].into(), true).await;
        }
    });
    let edge = before(&origin);
    // None of these reads: each would fill a connection that was shared without a window of its own.
    let mut slow: Vec<_> = (0..8).map(|_| edge.client()).collect();
    for client in &mut slow {
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("the long ones are under way", || origin.under_way() == 8);
    let mut quick = edge.client();
    for _ in 0..50 {
        assert_eq!(quick.get("/short").text(), "short");
    }
    assert_eq!(origin.under_way(), 8, "nobody has taken 64 MiB");
    assert_eq!(origin.connections(), 1);
    assert!(edge.memory_kib() < 150 << 10, "{} KiB", edge.memory_kib());
}

#[test]
fn a_slow_server_holds_its_client_back() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = H2Origin::new(move |asked| {
        let gate = waiting.clone();
        async move {
            let _ = tokio::task::spawn_blocking(move || gate.wait()).await;
            asked.echo().await;
        }
    });
    let edge = before(&origin);
    let mut client = edge.client();
    let length: usize = 64 << 20;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    let sent = client.send_until_stuck(length);
    assert!(sent < length / 2, "{sent} bytes went into nothing");
    gate.open();
}

#[test]
fn an_answer_that_is_cut_is_cut_for_the_client() {
    let has_half = Arc::new(Notify::new());
    let told = Arc::clone(&has_half);
    let origin = H2Origin::new(move |mut asked| {
        let told = Arc::clone(&told);
        async move {
            let mut answer = Response::new(());
            if asked.path() == "/length" {
                answer
                    .headers_mut()
                    .insert("content-length", "100".parse().unwrap());
            }
            if let Some(mut stream) = asked.head(answer) {
                let _ = stream.send_data(Bytes::from_static(b"half"), false);
                told.notified().await;
                stream.send_reset(Reason::INTERNAL_ERROR);
            }
        }
    });
    let edge = before(&origin);
    for target in ["/length", "/chunks"] {
        let mut client = edge.client();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.head();
        let half = match target {
            "/length" => client.exactly(4),
            _ => client.chunk(),
        };
        assert_eq!(half, b"half");
        has_half.notify_one();
        assert_eq!(client.rest(), b"", "{target}: no last chunk");
    }
    assert_eq!(origin.connections(), 1, "only the streams were over");
}

#[test]
fn a_reset_behind_a_whole_answer_is_no_failure() {
    let origin = Frames::origin(&[], |_, frames| {
        while let Some(stream) = frames.request() {
            frames.send(HEADERS, END_HEADERS, stream, &[STATUS_200]);
            frames.send(DATA, END_STREAM, stream, b"enough");
            // Nothing of the request's body is wanted any more.
            frames.send(RST_STREAM, 0, stream, &[0; 4]);
        }
    });
    let edge = before_frames(origin);
    let mut client = edge.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nbeginning");
    assert_eq!(client.response().text(), "enough");
    assert_eq!(edge.get("/").text(), "enough");
}

#[test]
fn a_length_that_is_not_kept_is_no_answer() {
    let origin = Frames::origin(&[], |_, frames| {
        while let Some(stream) = frames.request() {
            let mut head = vec![STATUS_200];
            head.extend(literal("content-length", "10"));
            frames.send(HEADERS, END_HEADERS, stream, &head);
            frames.send(DATA, END_STREAM, stream, b"short");
        }
    });
    let edge = before_frames(origin);
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_response().is_err());
}

#[test]
fn heads_that_http1_would_refuse_are_refused() {
    // Some of them end the connection, and the next one goes on where it was.
    let next = AtomicUsize::new(0);
    let origin = Frames::origin(&[], move |_, frames| {
        let heads: [Vec<u8>; 7] = [
            [vec![STATUS_200], literal("connection", "close")].concat(),
            [vec![STATUS_200], literal("transfer-encoding", "chunked")].concat(),
            [vec![STATUS_200], literal("x-a", "1\r\nx-b: 2")].concat(),
            [vec![STATUS_200], literal("x a", "1")].concat(),
            [vec![STATUS_200], literal("X-Upper", "1")].concat(),
            literal("x-a", "no status"),
            literal(":status", "101"),
        ];
        while let Some(stream) = frames.request() {
            let good = vec![STATUS_200];
            let head = heads
                .get(next.fetch_add(1, Ordering::SeqCst))
                .unwrap_or(&good);
            frames.send(HEADERS, END_HEADERS | END_STREAM, stream, head);
        }
    });
    let edge = before_frames(origin);
    let mut client = edge.client();
    for number in 0..7 {
        let told = client.get("/");
        assert_eq!(
            (told.status, told.text()),
            (502, "Bad Gateway".to_owned()),
            "head {number}"
        );
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn a_refused_stream_is_asked_again_whatever_its_method() {
    let origin = H2Origin::new(|mut asked| async move {
        if asked.number % 2 == 0 {
            asked.respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            asked.echo().await;
        }
    });
    let edge = before(&origin);
    let mut client = edge.client();
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.exchange(post("abc")).text(), "abc");
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn a_stream_that_failed_after_it_was_looked_at_is_not_asked_again() {
    let origin = H2Origin::new(|mut asked| async move {
        asked.respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let edge = before(&origin);
    let told = edge.client().exchange(post("abc"));
    assert_eq!((told.status, told.text()), (502, "Bad Gateway".to_owned()));
    assert_eq!(edge.get("/").status, 502);
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn what_a_server_that_leaves_did_not_look_at_goes_to_a_new_connection() {
    let origin = Frames::origin(&[], |connection, frames| {
        let Some(first) = frames.request() else {
            return;
        };
        if connection > 0 {
            frames.send(HEADERS, END_HEADERS | END_STREAM, first, &[STATUS_200]);
            while let Some(stream) = frames.request() {
                frames.send(HEADERS, END_HEADERS | END_STREAM, stream, &[STATUS_200]);
            }
            return;
        }
        let Some(second) = frames.request() else {
            return;
        };
        assert!(second > first);
        // Leaves: the first stream still gets its answer, the second was not looked at.
        let mut last = first.to_be_bytes().to_vec();
        last.extend([0; 4]);
        frames.send(GOAWAY, 0, 0, &last);
        let mut head = vec![STATUS_200];
        head.extend(literal("x-late", "1"));
        frames.send(HEADERS, END_HEADERS | END_STREAM, first, &head);
        while frames.next().is_some() {}
    });
    let edge = before_frames(origin);
    let mut first = edge.client();
    first.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut second = edge.client();
    second.send(post("abc"));
    let (first, second) = (first.response(), second.response());
    assert_eq!((first.status, second.status), (200, 200));
    let late = [first, second]
        .iter()
        .filter(|answer| answer.field("x-late").is_some())
        .count();
    assert_eq!(late, 1, "one on each connection");
}

#[test]
fn a_server_that_leaves_loses_no_request() {
    let origin = H2Origin::new(|asked| async move {
        tokio::task::yield_now().await;
        asked.answer(200, "hello").await;
    });
    let edge = before(&origin);
    let mut clients: Vec<_> = (0..4).map(|_| edge.client()).collect();
    for round in 0..40 {
        for client in &mut clients {
            client.send(post("abc"));
        }
        if round % 4 == 0 {
            origin.leave();
        }
        for client in &mut clients {
            assert_eq!(client.response().status, 200, "round {round}");
        }
    }
    assert!(origin.connections() > 1);
    eventually("connections that were left are closed", || {
        origin.connections_open() <= 1
    });
}

#[test]
fn a_connection_that_breaks_fails_only_its_streams() {
    let origin = H2Origin::new(|asked| async move {
        match asked.path() {
            "/wait" => std::future::pending().await,
            _ => asked.answer(200, "hello").await,
        }
    });
    let edge = before(&origin);
    assert_eq!(edge.get("/").text(), "hello");
    let mut waiting = edge.client();
    // Not idempotent, so never sent twice.
    waiting.send("POST /wait HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    eventually("it is asked", || origin.under_way() == 1);
    origin.cut();
    assert_eq!(waiting.response().status, 502);
    assert_eq!(edge.get("/").text(), "hello", "on a new connection");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_client_that_leaves_ends_its_stream() {
    let origin = H2Origin::new(|mut asked| async move {
        match asked.path() {
            "/wait" => {
                let _ = std::future::poll_fn(|context| asked.respond.poll_reset(context)).await;
            }
            "/upload" => {
                // Must not look like a whole body.
                assert!(asked.body().await.is_none(), "cut, not ended");
            }
            _ => asked.answer(200, "hello").await,
        }
    });
    let edge = before(&origin);
    let mut waiting = edge.client();
    waiting.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut uploading = edge.client();
    uploading
        .send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    eventually("both are asked", || origin.under_way() == 2);
    waiting.reset();
    drop(uploading);
    eventually("both streams are over", || origin.under_way() == 0);
    assert_eq!(edge.get("/").text(), "hello");
    assert_eq!(origin.connections(), 1, "the connection goes on");
}

#[test]
fn a_server_that_says_nothing_is_a_504() {
    let origin = H2Origin::new(|mut asked| async move {
        let _ = std::future::poll_fn(|context| asked.respond.poll_reset(context)).await;
    });
    let edge = Start::new()
        .table("[forwardingTimeouts]\nresponseHeaderTimeout = \"1s\"")
        .serve(&origin.site());
    let told = edge.get("/");
    assert_eq!(
        (told.status, told.text()),
        (504, "Gateway Timeout".to_owned())
    );
    eventually("its stream is reset", || origin.under_way() == 0);
}

#[test]
fn a_server_of_http1_behind_h2c_is_a_502() {
    let origin = crate::harness::Origin::text("hello");
    let edge = Coreway::serve(&site_of(&format!("h2c://{}", origin.address())));
    assert_eq!(edge.get("/").status, 502);
    assert_eq!(edge.client().exchange(post("abc")).status, 502);
    let nobody = crate::harness::Origin::refusing();
    let edge = Coreway::serve(&site_of(&format!("h2c://{}", nobody.address())));
    assert_eq!(edge.get("/").status, 502);
}

#[test]
fn a_reload_that_leaves_the_server_keeps_its_connection() {
    let origin = H2Origin::text("hello");
    let other = H2Origin::text("other");
    let edge = before(&origin);
    let mut client = edge.client();
    assert_eq!(client.get("/").text(), "hello");
    edge.reload(&(origin.site() + "priority = 7\n"));
    assert_eq!(client.get("/").text(), "hello");
    assert_eq!((origin.connections(), origin.connections_open()), (1, 1));
    edge.reload(&other.site());
    assert_eq!(client.get("/").text(), "other");
    eventually("the server that is gone is left", || {
        origin.connections_open() == 0
    });
}

#[test]
fn an_exchange_outlives_the_reload_that_removes_its_server() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let origin = H2Origin::new(move |asked| {
        let gate = waiting.clone();
        async move {
            let _ = tokio::task::spawn_blocking(move || gate.wait()).await;
            asked.answer(200, "hello").await;
        }
    });
    let edge = before(&origin);
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is asked", || origin.under_way() == 1);
    edge.reload("");
    gate.open();
    assert_eq!(client.response().text(), "hello");
    eventually("its connection is closed", || {
        origin.connections_open() == 0
    });
}

#[test]
fn nothing_a_server_floods_us_with_grows_our_memory() {
    // Pings, empty settings, empty data on a stream nobody reads to its end, a head without end.
    let origin = Frames::origin(&[], |connection, frames| {
        let Some(stream) = frames.request() else {
            return;
        };
        match connection % 4 {
            0 => while frames.send(6, 0, 0, &[0; 8]) {},
            1 => while frames.send(4, 0, 0, &[]) {},
            2 => {
                frames.send(HEADERS, END_HEADERS, stream, &[STATUS_200]);
                while frames.send(DATA, 0, stream, &[]) {}
            }
            _ => {
                frames.send(HEADERS, 0, stream, &[STATUS_200]);
                let field = literal("x-a", &"y".repeat(100)).repeat(100);
                while frames.send(CONTINUATION, 0, stream, &field) {}
            }
        }
    });
    let edge = Start::new()
        .cores(1)
        .table("[forwardingTimeouts]\nresponseHeaderTimeout = \"2s\"")
        .serve(&site_of(&format!("h2c://{origin}")));
    edge.get("/");
    let before = edge.memory_kib();
    for _ in 0..8 {
        let mut client = edge.client();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        match client.try_response() {
            Ok(told) => assert!(matches!(told.status, 200 | 502 | 504), "{}", told.status),
            Err(_cut) => {}
        }
    }
    let grown = edge.memory_kib().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB");
}

#[test]
fn a_head_that_is_too_large_is_a_502() {
    let origin = H2Origin::new(|mut asked| async move {
        let mut answer = Response::new(());
        let (count, length) = match asked.path() {
            "/lines" => (300, 1),
            _ => (40, 10_000),
        };
        for number in 0..count {
            let name: http::HeaderName = format!("x-{number}").parse().unwrap();
            answer
                .headers_mut()
                .insert(name, "y".repeat(length).parse().unwrap());
        }
        let _ = asked.respond.send_response(answer, true);
    });
    let edge = before(&origin);
    assert_eq!(edge.get("/lines").status, 502);
    assert_eq!(edge.get("/bytes").status, 502);
}

#[test]
fn servers_without_a_place_make_their_clients_wait_in_line() {
    let gate = Gate::default();
    let waiting = gate.clone();
    let mut builder = Builder::new();
    builder.max_concurrent_streams(1);
    let origin = H2Origin::with(Setup { builder, tls: None }, move |asked| {
        let gate = waiting.clone();
        async move {
            let _ = tokio::task::spawn_blocking(move || gate.wait()).await;
            asked.answer(200, "hello").await;
        }
    });
    let edge = before(&origin);
    let mut clients: Vec<_> = (0..80).map(|_| edge.client()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("as many are asked as connections are allowed", || {
        origin.under_way() == 64
    });
    holds_for(Duration::from_millis(300), "no more are asked", || {
        origin.under_way() == 64
    });
    gate.open();
    for client in &mut clients {
        assert_eq!(client.response().text(), "hello");
    }
    assert_eq!(origin.connections(), 64);
}

#[test]
fn a_large_body_is_whole_in_both_directions_at_once() {
    let origin = H2Origin::new(|mut asked| async move {
        let Some(mut stream) = asked.head(response(200)) else {
            return;
        };
        let body: &mut RecvStream = asked.request.body_mut();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            if !send(&mut stream, data, false).await {
                return;
            }
        }
        let _ = stream.send_trailers(HeaderMap::new());
    });
    let edge = before(&origin);
    let body: String = ('a'..='z').cycle().take(5 << 20).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = edge.client();
                assert!(client.exchange(post(&body)).text() == body);
            });
        }
    });
}

/// A server of HTTP/2, and of HTTP/1.1 for who asks for that, with a certificate for `localhost`.
fn tls_origin(authority: &Authority, protocols: &[&'static str]) -> H2Origin {
    let setup = Setup {
        tls: Some((authority.issue(&["localhost"]), protocols.to_vec())),
        ..Setup::default()
    };
    H2Origin::with(setup, |asked| asked.answer(200, "over HTTP/2"))
}

fn before_tls(origin: &H2Origin, host: &str, globals: &str) -> Coreway {
    let port = origin.address().port();
    Start::new()
        .cores(1)
        .global(globals)
        .serve(&site_of(&format!("https://{host}:{port}")))
}

fn believing(authority: &Authority) -> String {
    format!("rootCAs = ['''{}''']", authority.pem())
}

#[test]
fn a_server_with_tls_chooses_what_is_spoken() {
    let authority = Authority::new("Server CA");
    let check = |protocols: &[&'static str], expected: &str| {
        let origin = tls_origin(&authority, protocols);
        let edge = before_tls(&origin, "localhost", &believing(&authority));
        let mut clients: Vec<_> = (0..3).map(|_| edge.client()).collect();
        for _ in 0..3 {
            for client in &mut clients {
                assert_eq!(client.get("/").text(), expected, "{protocols:?}");
            }
        }
        assert_eq!(origin.connections(), 1, "{protocols:?}: one after another");
        if let Some(asked) = origin.requests().pop() {
            assert_eq!(asked.uri().scheme_str(), Some("https"));
        }
    };
    check(&["h2", "http/1.1"], "over HTTP/2");
    check(&["http/1.1", "h2"], "over HTTP/1.1");
    check(&["http/1.1"], "over HTTP/1.1");
    check(&[], "over HTTP/1.1");
}

#[test]
fn a_tunnel_is_asked_for_in_http1_even_where_http2_is_spoken() {
    let authority = Authority::new("Server CA");
    let origin = tls_origin(&authority, &["h2", "http/1.1"]);
    let edge = before_tls(&origin, "localhost", &believing(&authority));
    let mut client = edge.client();
    assert_eq!(client.get("/").text(), "over HTTP/2");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 101"));
    client.send("echo");
    assert_eq!(client.exactly(4), b"echo");
    assert_eq!(edge.get("/").text(), "over HTTP/2");
    assert_eq!(origin.connections(), 2);
}

#[test]
fn a_server_of_http2_is_believed_by_the_same_rules() {
    let authority = Authority::new("Server CA");
    let origin = tls_origin(&authority, &["h2"]);
    let check = |host: &str, globals: &str, status: u16| {
        let edge = before_tls(&origin, host, globals);
        assert_eq!(edge.get("/").status, status, "{host}, {globals}");
        assert_eq!(edge.client().exchange(post("a")).status, status);
    };
    check("localhost", "", 502);
    check("localhost", &believing(&Authority::new("Server CA")), 502);
    check("127.0.0.1", &believing(&authority), 502);
    assert!(origin.requests().is_empty());
    check("localhost", &believing(&authority), 200);
    check("127.0.0.1", "insecureSkipVerify = true", 200);
    let mut names = origin.names();
    names.dedup();
    assert_eq!(
        names,
        ["localhost", "", "localhost", ""],
        "where it is reached by its address it is asked for no name"
    );
}

#[test]
fn sessions_with_a_server_are_resumed() {
    let authority = Authority::new("Server CA");
    let origin = tls_origin(&authority, &["h2"]);
    let edge = before_tls(&origin, "localhost", &believing(&authority));
    for connections in 1..=3 {
        assert_eq!(edge.get("/").text(), "over HTTP/2");
        assert_eq!(origin.connections(), connections);
        origin.cut();
        eventually("the connection is gone", || origin.connections_open() == 0);
    }
    assert_eq!(origin.resumed(), 2, "all but the first");
}
