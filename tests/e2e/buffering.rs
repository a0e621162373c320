//! `buffering` of a backend: whole bodies, their limits, and requests that are sent again because of their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::h2::{Http2, request};
use crate::harness::wire::Framing;
use crate::harness::{Coreway, Gate, Origin, Start, answer, backend, eventually, site};

fn buffered(origin: &Origin, options: &str) -> String {
    site(origin) + &format!("[backends.b.buffering]\n{options}\n")
}

fn post(body: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn post_chunked(body: &str) -> String {
    let (front, back) = body.split_at(body.len() / 2);
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
        chunk(front),
        chunk(back)
    )
}

/// Answers with what it was sent.
fn echo() -> Origin {
    Origin::new(|request| answer(200, &request.text()))
}

/// Different at every place, so that no part can stand for another.
fn text(length: usize) -> String {
    (0..)
        .map(|number| format!("{number},"))
        .flat_map(String::into_bytes)
        .take(length)
        .map(char::from)
        .collect()
}

/// Files of the process that have no name.
fn files(coreway: &Coreway) -> usize {
    let folder = format!("/proc/{}/fd", coreway.pid());
    std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().ends_with("(deleted)"))
        .count()
}

#[test]
fn a_request_is_here_whole_before_its_server_hears_of_it() {
    let origin = echo();
    let coreway = Coreway::serve(&buffered(&origin, ""));
    let mut client = coreway.client();
    let request = post_chunked("hello");
    let (front, back) = request.split_at(request.len() - 6);
    client.send(front);
    // Another client is served meanwhile, so the first would have been, too.
    assert_eq!(coreway.exchange(post("other")).text(), "other");
    assert_eq!(origin.requests().len(), 1);
    client.send(back);
    let response = client.response();
    assert_eq!(response.text(), "hello");
    assert_eq!(origin.last().field("Content-Length"), Some("5"));
    assert_eq!(origin.last().field("Transfer-Encoding"), None);
    for body in ["", "x", &text(100_000)] {
        assert_eq!(
            client.exchange(post(body)).text(),
            body,
            "the connection goes on"
        );
    }
    assert_eq!(client.get("/").status, 200);
}

#[test]
fn longer_bodies_than_allowed_are_refused() {
    let origin = echo();
    let coreway = Coreway::serve(&buffered(&origin, "maxRequestBodyBytes = 1000"));
    let mut client = coreway.client();
    assert_eq!(client.exchange(post(&text(1000))).status, 200);
    assert_eq!(client.exchange(post_chunked(&text(1000))).status, 200);
    assert_eq!(origin.requests().len(), 2);
    for request in [
        post(&text(1001)),
        post_chunked(&text(1001)),
        post_chunked(&text(500_000)),
    ] {
        let mut client = coreway.client();
        client.send_what_goes(request);
        let response = client.response();
        assert_eq!(
            (response.status, response.text()),
            (413, "Request Entity Too Large".into())
        );
    }
    // Nobody asks for a body that is refused.
    let response = coreway.exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
    );
    assert_eq!((response.status, response.interim.len()), (413, 0));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let origin = echo();
    let coreway = Coreway::serve(&buffered(&origin, "maxRequestBodyBytes = 1000"));
    let mut client = coreway.client();
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        );
        assert!(client.head().start.contains("100"));
        client.send("hello");
        assert_eq!(client.response().text(), "hello");
        assert_eq!(origin.last().field("Expect"), None);
    }
}

#[test]
fn long_bodies_are_in_files_that_vanish() {
    const LONG: usize = 3_000_000;
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::new(move |request| {
        opened.wait();
        answer(200, &request.text())
    });
    let coreway = Coreway::serve(&buffered(
        &origin,
        "memRequestBodyBytes = 10\nmemResponseBodyBytes = 100000",
    ));
    let mut client = coreway.client();
    let body = text(LONG);
    client.send(post(&body));
    eventually("the request is at its server", || {
        !origin.requests().is_empty()
    });
    assert_eq!(files(&coreway), 1, "the request");
    gate.open();
    let response = client.response();
    assert_eq!(response.status, 200);
    assert!(response.text() == body, "to the byte");
    eventually("the files are gone", || files(&coreway) == 0);
    assert!(client.exchange(post_chunked(&body)).text() == body);

    // A client that leaves in the middle leaves no file.
    client.send(&post(&body)[..LONG / 2]);
    eventually("there is a file", || files(&coreway) == 1);
    drop(client);
    eventually("it is gone", || files(&coreway) == 0);
    assert_eq!(origin.requests().len(), 2, "nobody heard of that one");
}

#[test]
fn all_bodies_together_take_what_they_may() {
    const MEMORY: usize = 100_000;
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::new(move |request| {
        if request.head.field("X-Waits").is_some() {
            opened.wait();
        }
        answer(200, &request.text())
    });
    let coreway = Start::new()
        .table(&format!(
            "[buffering]\nmemoryBytes = {MEMORY}\nfileBytes = 1_500_000\n"
        ))
        .serve(&buffered(&origin, "maxResponseBodyBytes = 100_000_000"));
    let held = |length: usize| {
        let before = origin.requests().len();
        let mut client = coreway.client();
        client.send(post(&text(length)).replacen("Host", "X-Waits: 1\r\nHost", 1));
        eventually("the server has all of it", || {
            origin.requests().len() > before
        });
        client
    };
    // The first takes all the memory there is; what comes now is in a file, though its backend would allow it a MiB.
    let first = held(MEMORY);
    assert_eq!(files(&coreway), 0);
    let second = held(600_000);
    assert_eq!(files(&coreway), 1);
    // And the next one has no room there either. Others, which fit into what is being received, are served.
    let mut third = coreway.client();
    third.send_what_goes(post(&text(1_200_000)));
    let third = third.response();
    assert_eq!(
        (third.status, third.text().as_str()),
        (503, "Service Unavailable")
    );
    assert_eq!(coreway.exchange(post("short")).text(), "short");
    gate.open();
    for (mut client, length) in [(first, MEMORY), (second, 600_000)] {
        assert!(client.response().text() == text(length), "{length}");
    }
    eventually("the files are gone", || files(&coreway) == 0);
    eventually("there is room again", || {
        coreway.exchange(post(&text(600_000))).status == 200
    });
}

#[test]
fn answers_are_whole_before_the_client_gets_them() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::wire(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        opened.wait();
        exchange.send("6\r\nsecond\r\n0\r\nX-Trailer: 1\r\n\r\n");
    });
    let coreway = Coreway::serve(&buffered(&origin, ""));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the server answers", || !origin.requests().is_empty());
    assert!(!client.is_readable());
    gate.open();
    let response = client.response();
    assert_eq!(response.text(), "firstsecond");
    assert_eq!(
        (response.framing, response.field("Content-Length")),
        (Framing::Length, Some("11"))
    );
    assert_eq!(client.get("/").text(), "firstsecond");
    assert_eq!(origin.connections(), 1, "both connections go on");
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_eq!(client.head_response().status, 200);
}

#[test]
fn long_and_broken_answers_are_errors() {
    let origin = Origin::wire(|exchange| {
        let body = "x".repeat(1001);
        match exchange.head.target() {
            "/length" => exchange.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n{body}"
            )),
            "/chunked" => exchange.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{body}\r\n0\r\n\r\n"
            )),
            "/exact" => exchange.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{}",
                &body[1..]
            )),
            _ => {
                exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
                exchange.close();
            }
        }
    });
    let coreway = Coreway::serve(&buffered(&origin, "maxResponseBodyBytes = 1000"));
    let mut client = coreway.client();
    for (target, status) in [
        ("/length", 500),
        ("/exact", 200),
        ("/chunked", 500),
        ("/broken", 502),
        ("/exact", 200),
    ] {
        assert_eq!(client.get(target).status, status, "{target}");
    }
}

/// Answers with 503 so many times, then with what it was sent.
fn failing(times: usize) -> (Origin, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::new(move |request| {
        if count.fetch_add(1, Ordering::SeqCst) < times {
            answer(503, "not yet")
        } else {
            answer(200, &request.text())
        }
    });
    (origin, asked)
}

#[test]
fn requests_are_sent_again_while_the_expression_holds() {
    let (origin, asked) = failing(2);
    let coreway = Coreway::serve(&buffered(
        &origin,
        "memRequestBodyBytes = 10\nretryExpression = 'ResponseCode() == 503'",
    ));
    let mut client = coreway.client();
    for body in [text(100_000), text(5)] {
        asked.store(0, Ordering::SeqCst);
        assert!(client.exchange(post(&body)).text() == body);
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        assert!(
            origin
                .requests()
                .iter()
                .rev()
                .take(3)
                .all(|request| request.text() == body)
        );
    }
    assert_eq!(origin.connections(), 1, "short answers are let go of whole");

    let (origin, asked) = failing(100);
    coreway.reload(&buffered(
        &origin,
        "retryExpression = 'ResponseCode() == 503'",
    ));
    let response = client.get("/");
    assert_eq!((response.status, response.text()), (503, "not yet".into()));
    assert_eq!(asked.load(Ordering::SeqCst), 11);

    asked.store(0, Ordering::SeqCst);
    coreway.reload(&buffered(
        &origin,
        "retryExpression = 'Attempts() < 2 && RequestMethod() == \"POST\"'",
    ));
    assert_eq!(client.exchange(post("x")).status, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    assert_eq!(client.get("/").status, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[test]
fn errors_of_the_network_are_tried_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let origin = Origin::wire(move |exchange| {
        let _ = exchange.read_body();
        if count.fetch_add(1, Ordering::SeqCst) == 2 {
            exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        } else {
            exchange.close();
        }
    });
    let coreway = Coreway::serve(&buffered(
        &origin,
        "retryExpression = 'IsNetworkError() && Attempts() <= 2'",
    ));
    assert_eq!(coreway.exchange(post("x")).text(), "done");
    let response = coreway.exchange(post("x"));
    assert_eq!(
        (response.status, response.text()),
        (502, "Bad Gateway".into())
    );
    assert_eq!(asked.load(Ordering::SeqCst), 6);
}

#[test]
fn an_error_page_sees_the_last_attempt_only() {
    let (origin, asked) = failing(100);
    let pages = Origin::text("page");
    let coreway = Coreway::serve(
        &(backend("pages", &pages)
            + &buffered(&origin, "retryExpression = 'Attempts() < 3'")
            + "[frontends.f.errors.e]\nstatus = ['503']\nbackend = 'pages'\n"),
    );
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.exchange(post("body"));
        assert_eq!((response.status, response.text()), (503, "page".into()));
    }
    assert_eq!(
        (asked.load(Ordering::SeqCst), pages.requests().len()),
        (6, 2)
    );
}

#[test]
fn tunnels_pass_through() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let bytes = exchange.take();
        exchange.send(bytes);
        exchange.close();
    });
    let coreway = Coreway::serve(&buffered(
        &origin,
        "maxRequestBodyBytes = 1\nmaxResponseBodyBytes = 1",
    ));
    let mut client = coreway.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert!(client.head().start.contains("101"));
    client.send("ping");
    assert_eq!(client.exactly(4), b"ping");
}

#[test]
fn wrong_options_leave_the_frontend_out() {
    let origin = echo();
    let coreway = Coreway::serve(&buffered(&origin, "memRequestBodyBytes = -1"));
    coreway.await_log("buffering: memRequestBodyBytes should be >= 0. Skipping frontend f...");
    assert_eq!(coreway.get("/").status, 404);
    coreway.reload(&buffered(&origin, "retryExpression = 'Foo() > 1'"));
    coreway.await_log("column 1: unsupported function: Foo. Skipping frontend f...");
    assert_eq!(coreway.get("/").status, 404);
}

#[test]
fn clients_of_http2_are_served_alike() {
    let (origin, asked) = failing(2);
    let coreway = Coreway::serve(&buffered(
        &origin,
        "maxRequestBodyBytes = 200000\nmemRequestBodyBytes = 10\nmemResponseBodyBytes = 10\n\
         retryExpression = 'ResponseCode() == 503'",
    ));
    let client = Http2::connect(coreway.address());
    let body = text(200_000);
    let told = client
        .ask(request("POST", "/"), Some(body.as_bytes()))
        .unwrap();
    assert_eq!(told.status, 200);
    assert!(told.text() == body);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let told = client.ask(request("POST", "/"), Some(text(200_001).as_bytes()));
    // The answer may come while the body is still sent: then the client hears of that first.
    assert!(told.is_err() || told.is_ok_and(|told| told.status == 413));
    assert_eq!(client.get("/").status, 200, "the connection goes on");
}
