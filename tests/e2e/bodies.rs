//! Bodies in both directions: every framing, trailers, interim answers, early answers, streams that are long, slow or cut.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::harness::h2::{Http2, request};
use crate::harness::wire::Framing;
use crate::harness::{Coreway, DEADLINE, Gate, Origin, answer, eventually, heavy, site};

const MIB: usize = 1024 * 1024;

fn raw(text: &'static str) -> Origin {
    Origin::new(move |_| text.as_bytes().to_vec())
}

/// An origin that sends this and closes.
fn raw_then_close(text: &'static str) -> Origin {
    Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        exchange.send(text);
        exchange.close();
    })
}

#[test]
fn a_request_with_a_length_keeps_it() {
    let origin = Origin::text("ok");
    Coreway::before(&origin)
        .exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let body = origin.last().body.expect("it came whole");
    assert_eq!(
        (body.framing, body.bytes.as_slice()),
        (Framing::Length, b"hello".as_slice())
    );
}

#[test]
fn an_empty_post_says_that_it_is_empty() {
    let origin = Origin::text("ok");
    Coreway::before(&origin).exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(origin.last().field("Content-Length"), Some("0"));
}

#[test]
fn a_get_without_body_gets_no_framing() {
    let origin = Origin::text("ok");
    Coreway::before(&origin).get("/");
    let head = origin.last().head;
    assert_eq!(
        (
            head.field("Content-Length"),
            head.field("Transfer-Encoding")
        ),
        (None, None)
    );
}

#[test]
fn a_chunked_request_stays_chunked_with_its_trailers() {
    let origin = Origin::text("ok");
    Coreway::before(&origin).exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
    );
    let body = origin.last().body.expect("it came whole");
    assert_eq!(
        (body.framing, body.bytes.as_slice()),
        (Framing::Chunked, b"hello".as_slice())
    );
    assert_eq!(body.trailers, [("X-Sum".to_owned(), "42".to_owned())]);
}

#[test]
fn answers_keep_their_framing() {
    let check = |text: &'static str, framing: Framing| {
        let origin = raw_then_close(text);
        let response = Coreway::before(&origin).get("/");
        assert_eq!(
            (response.text().as_str(), response.framing),
            ("hello", framing),
            "{text}"
        );
    };
    check(
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        Framing::Length,
    );
    check(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        Framing::Chunked,
    );
}

#[test]
fn an_answer_that_ends_with_its_connection_ends_cleanly() {
    let origin = raw_then_close("HTTP/1.1 200 OK\r\n\r\nhello");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(
            (response.text().as_str(), response.framing),
            ("hello", Framing::Chunked),
            "and the client stays"
        );
    }
}

#[test]
fn trailers_of_an_answer_come_through() {
    let origin = raw(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
    );
    let response =
        Coreway::before(&origin).exchange("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n");
    assert_eq!(response.text(), "hi");
    let trailers = [
        ("X-Sum".to_owned(), "7".to_owned()),
        ("X-More".to_owned(), "8".to_owned()),
    ];
    assert_eq!(response.trailers, trailers);
}

#[test]
fn answers_without_body_have_none() {
    let origin = Origin::new(|request| match request.head.target() {
        "/head" => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        "/204" => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/304" => {
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: \"x\"\r\n\r\n".to_vec()
        }
        _ => answer(200, "in step"),
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head_response().field("Content-Length"), Some("1000"));
    assert_eq!(client.get("/").text(), "in step");
    let empty = client.get("/204");
    assert_eq!(
        (
            empty.status,
            empty.field("Content-Length"),
            empty.field("Transfer-Encoding")
        ),
        (204, None, None)
    );
    assert_eq!(client.get("/").text(), "in step");
    assert_eq!(client.get("/304").field("ETag"), Some("\"x\""));
    assert_eq!(client.get("/").text(), "in step");
}

#[test]
fn a_client_that_expects_100_is_told_to_continue() {
    let origin = Origin::wire(|exchange| {
        if exchange.head.field("Expect") == Some("100-continue") {
            exchange.send("HTTP/1.1 100 Continue\r\n\r\n");
        }
        let Ok(request) = exchange.read_body() else {
            return;
        };
        exchange.send(answer(200, &request.text()));
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 100"));
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
    assert_eq!(client.get("/").status, 200, "the connection lives on");
}

#[test]
fn a_server_that_knows_no_100_gets_the_body_all_the_same() {
    let origin = Origin::new(|request| answer(200, &request.text()));
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert!(
        client.head().start.starts_with("HTTP/1.1 100"),
        "after a second the proxy says it itself"
    );
    client.send("hello");
    assert_eq!(client.response().text(), "hello");
}

#[test]
fn a_server_may_refuse_instead_of_100() {
    let origin = Origin::wire(|exchange| {
        exchange.send(
            "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
        );
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (417, "no"));
}

#[test]
fn early_hints_are_passed_on() {
    let origin = raw(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!((response.status, response.interim.len()), (200, 2));
        assert_eq!(response.interim[0].field("Link"), Some("</a.css>"));
    }
    let old = coreway.exchange("GET / HTTP/1.0\r\n\r\n");
    assert!(old.interim.is_empty(), "HTTP/1.0 knows no interim answers");
}

#[test]
fn an_answer_may_come_while_the_body_is_still_being_sent() {
    let origin = Origin::wire(|exchange| {
        exchange.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop",
        );
        exchange.half_close();
        let _ = exchange.rest();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nsome");
    let response = client.response();
    assert_eq!((response.status, response.text().as_str()), (413, "stop"));
}

#[test]
fn both_bodies_may_flow_at_once() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            let bytes = exchange.take();
            if bytes.is_empty() {
                return exchange.close();
            }
            exchange.send("2\r\nhi\r\n");
            seen.extend(bytes);
        }
        exchange.send("0\r\n\r\n");
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert!(
        client.head().start.starts_with("HTTP/1.1 200"),
        "the head comes before any of the body is sent"
    );
    for _ in 0..3 {
        client.send("4\r\nping\r\n");
        assert!(client.chunk().starts_with(b"hi"));
    }
    client.send("0\r\n\r\n");
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        let Ok(request) = exchange.read_body() else {
            return;
        };
        held.wait();
        exchange.send(answer(200, &request.text()));
    });
    let coreway = Coreway::before(&origin);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let asked = origin.requests().len();
        let mut client = coreway.client();
        client.send(request);
        client.half_close();
        eventually("the server is asked", || origin.requests().len() > asked);
        gate.open();
        assert_eq!(client.response().status, 200);
        client.assert_closed();
    }
}

#[test]
fn an_aborted_upload_never_looks_finished() {
    let starts: [&[u8]; 2] = [
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nhello",
    ];
    for start in starts {
        for reset in [false, true] {
            let (report, reported) = mpsc::channel();
            let origin = Origin::wire(move |exchange| {
                let whole = exchange.read_body().is_ok();
                report.send(whole).unwrap();
                exchange.close();
            });
            let coreway = Coreway::before(&origin);
            let mut client = coreway.client();
            client.send(start);
            eventually("the upload has begun", || origin.requests().len() == 1);
            if reset {
                client.reset()
            } else {
                drop(client)
            }
            assert!(
                !reported.recv_timeout(DEADLINE).unwrap(),
                "a cut upload arrived as a whole one"
            );
        }
    }
}

#[test]
fn a_half_closed_upload_never_looks_finished() {
    let origin = Origin::text("took it");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    client.half_close();
    let rest = client.rest();
    assert!(
        !String::from_utf8_lossy(&rest).contains(" 200 "),
        "{rest:?}"
    );
    eventually("the server's side ends", || origin.connections_open() == 0);
    assert!(origin.requests().iter().all(|r| r.body.is_none()));
}

#[test]
fn a_cut_answer_is_visible_to_the_client() {
    let answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ];
    for text in answers {
        let origin = raw_then_close(text);
        let coreway = Coreway::before(&origin);
        let mut client = coreway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let outcome = client.try_response();
        assert!(outcome.is_err(), "{text:?} looked whole: {outcome:?}");
    }
}

#[test]
fn a_body_cut_by_a_reset_is_visible_even_without_framing() {
    let gate = Gate::default();
    let held = gate.clone();
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        exchange.send("HTTP/1.1 200 OK\r\n\r\nhello");
        held.wait();
        exchange.reset();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.head().start.starts_with("HTTP/1.1 200"));
    assert_eq!(client.chunk(), b"hello");
    gate.open();
    let rest = client.rest();
    assert!(rest.is_empty(), "the body looked whole: {rest:?}");
}

#[test]
fn sixty_four_mebibytes_stream_in_bounded_memory() {
    let _alone = heavy();
    const SIZE: usize = 64 * MIB;
    let origin = Origin::wire(|exchange| {
        if exchange.head.method() == "POST" {
            let mut left = SIZE;
            while left > 0 {
                let bytes = exchange.take();
                if bytes.is_empty() {
                    return exchange.close();
                }
                left -= bytes.len();
            }
            return exchange.send(answer(200, "all"));
        }
        exchange.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"));
        let piece = vec![b'x'; MIB];
        for _ in 0..SIZE / MIB {
            exchange.send(&piece);
        }
    });
    let coreway = Coreway::before(&origin);
    assert_eq!(coreway.get("/").body.len(), SIZE);
    let before = coreway.memory_kib();

    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        client.head().field("Content-Length"),
        Some(SIZE.to_string().as_str())
    );
    let (mut left, mut most) = (SIZE, 0);
    while left > 0 {
        left -= client.some().len();
        most = most.max(coreway.memory_kib());
    }
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
    ));
    let piece = vec![b'y'; MIB];
    for _ in 0..SIZE / MIB {
        client.send(&piece);
        most = most.max(coreway.memory_kib());
    }
    assert_eq!(client.response().text(), "all");
    assert!(
        most < before + 8 * 1024,
        "grew from {before} KiB to {most} KiB"
    );
}

#[test]
fn a_slow_reader_stops_the_server() {
    let _alone = heavy();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::wire(move |exchange| {
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            256 * MIB
        ));
        let piece = vec![b'x'; 64 * 1024];
        while exchange.try_send(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    let read = || sent.load(Ordering::SeqCst);
    // It stops by itself, held back by the sockets in between, and long before the end.
    let (mut last, mut since) = (0, Instant::now());
    eventually("the server is held back", || {
        if read() != last {
            (last, since) = (read(), Instant::now());
        }
        last > 0 && since.elapsed() > Duration::from_millis(500)
    });
    assert!(
        read() < 64 * MIB,
        "{} bytes were taken from the server",
        read()
    );
    assert!(
        coreway.memory_kib() < 64 * 1024,
        "{} KiB",
        coreway.memory_kib()
    );
}

#[test]
fn a_slow_server_stops_the_upload() {
    let _alone = heavy();
    let origin = Origin::wire(|exchange| {
        // Takes nothing until the test is over.
        Gate::default().wait();
        exchange.close();
    });
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        256 * MIB
    ));
    let taken = client.send_until_stuck(64 * MIB);
    assert!(taken < 64 * MIB, "{taken} bytes were taken from the client");
    assert!(
        coreway.memory_kib() < 64 * 1024,
        "{} KiB",
        coreway.memory_kib()
    );
}

/// A server of two pieces, the second of which waits for the gate, behind a backend with these lines.
fn two_pieces(head: &str, lines: &str) -> (Coreway, Origin, Gate) {
    let gate = Gate::default();
    let held = gate.clone();
    let is_chunked = head.contains("chunked");
    let head = format!("HTTP/1.1 200 OK\r\n{head}\r\n");
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        exchange.send(&head);
        exchange.send(if is_chunked {
            "5\r\nfirst\r\n"
        } else {
            "first"
        });
        held.wait();
        exchange.send(if is_chunked {
            "6\r\nsecond\r\n0\r\n\r\n"
        } else {
            "second"
        });
        exchange.close();
    });
    let coreway = Coreway::serve(&(site(&origin) + lines));
    (coreway, origin, gate)
}

/// Each piece of an answer is with its client while the server has not sent the next, however long the interval.
#[test]
fn a_piece_reaches_the_client_without_waiting_for_the_next() {
    let hour = "[backends.b.responseForwarding]\nflushInterval = \"1h\"\n";
    let now = "[backends.b.responseForwarding]\nflushInterval = \"-1ms\"\n";
    for (head, lines) in [
        (
            "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
            "",
        ),
        (
            "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n",
            hour,
        ),
        (
            "Content-Type: text/event-stream\r\nContent-Length: 11\r\n",
            hour,
        ),
        (
            "Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n",
            hour,
        ),
        ("Content-Type: text/plain\r\nContent-Length: 11\r\n", hour),
        ("Content-Type: text/plain\r\n", now),
    ] {
        let (coreway, _origin, gate) = two_pieces(head, lines);
        let mut client = coreway.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        if client.head().field("Content-Length").is_some() {
            assert_eq!(client.exactly(5), b"first");
            gate.open();
            assert_eq!(client.exactly(6), b"second");
        } else {
            assert_eq!(client.chunk(), b"first", "{head}");
            gate.open();
            assert_eq!(client.chunk(), b"second");
            assert_eq!(client.chunk(), b"");
        }

        let (coreway, _origin, gate) = two_pieces(head, lines);
        let client = Http2::connect(coreway.address());
        client.run(async {
            let mut requests = client.requests.clone().ready().await.unwrap();
            let (told, _) = requests.send_request(request("GET", "/"), true).unwrap();
            let mut body = told.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "first", "{head}");
            gate.open();
            assert_eq!(body.data().await.unwrap().unwrap(), "second");
        });
    }
}

#[test]
fn a_flush_interval_that_is_none_leaves_the_frontend_out() {
    let origin = Origin::text("ok");
    let coreway = Coreway::serve(
        &(site(&origin) + "[backends.b.responseForwarding]\nflushInterval = \"zz\"\n"),
    );
    assert_eq!(coreway.get("/").status, 404);
    coreway.await_log(
        "responseForwarding: flushInterval: zz: it is not a duration. Skipping frontend f...",
    );
}
