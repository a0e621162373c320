//! Error pages: what a client sees instead of an error, of a server's or of our own.

use crate::harness::h2::{Http2, request};
use crate::harness::{Coreway, Gate, Origin, Start, answer, backend, site};

/// A frontend before `origin` whose errors are shown by `pages`.
fn with(origin: &Origin, pages: &Origin, statuses: &str, query: &str) -> String {
    backend("pages", pages)
        + &site(origin)
        + &format!(
            "[frontends.f.errors.e]\nstatus = {statuses}\nbackend = \"pages\"\nquery = \"{query}\"\n"
        )
}

/// Shows what it was asked for.
fn pages() -> Origin {
    Origin::new(|request| {
        let body = format!("page {}", request.head.target());
        format!(
            "HTTP/1.1 203 Whatever\r\nX-Page: yes\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    })
}

/// Answers with the status that the path names.
fn echoing() -> Origin {
    Origin::new(|request| {
        let status = request.head.target()[1..4].parse().unwrap_or(200);
        answer(status, "its own")
    })
}

#[test]
fn a_page_stands_for_the_answers_it_covers() {
    let (origin, pages) = (echoing(), pages());
    let rules = with(&origin, &pages, "[\"500-502\", \"404\"]", "/x?{status}");
    let coreway = Coreway::serve(&rules);
    let mut client = coreway.client();
    for (path, expected) in [
        ("/404", "page /x?404"),
        ("/500", "page /x?500"),
        ("/502", "page /x?502"),
        ("/200", "its own"),
        ("/503", "its own"),
        ("/403", "its own"),
    ] {
        let response = client.get(path);
        assert_eq!(response.text(), expected, "{path}");
        assert_eq!(response.status.to_string(), path[1..], "not the page's own");
        let is_page = expected.starts_with("page");
        assert_eq!(response.field("X-Page").is_some(), is_page, "{path}");
    }
    assert_eq!(
        origin.connections(),
        1,
        "what was here whole leaves its connection usable"
    );
}

#[test]
fn the_page_is_asked_for_with_the_fields_of_the_request() {
    let (origin, pages) = (echoing(), pages());
    let coreway =
        Coreway::serve(&(with(&origin, &pages, "[\"500\"]", "") + "passHostHeader = true\n"));
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.exchange(
            "POST /500 HTTP/1.1\r\nHost: site.test\r\nX-Own: 1\r\nX-Forwarded-For: 9.9.9.9\r\nIf-None-Match: *\r\n\
             Range: bytes=0-1\r\nTE: trailers\r\nContent-Length: 4\r\n\r\nbody",
        );
        assert_eq!((response.status, response.text()), (500, "page /".into()));
    }
    assert_eq!(
        client.get("/200").text(),
        "its own",
        "the connection goes on"
    );
    let asked = pages.last();
    assert_eq!((asked.head.method(), asked.head.target()), ("GET", "/"));
    assert_eq!(asked.text(), "");
    for (name, expected) in [
        ("X-Own", Some("1")),
        ("X-Forwarded-Host", Some("0.0.0.0")),
        ("X-Forwarded-Port", Some("80")),
        ("X-Forwarded-Proto", Some("http")),
        ("X-Forwarded-For", None),
        ("X-Real-Ip", None),
        ("Content-Length", None),
        ("Transfer-Encoding", None),
        ("Te", None),
        ("If-None-Match", None),
        ("Range", None),
        ("Host", Some(&*pages.address().to_string())),
    ] {
        assert_eq!(asked.field(name), expected, "{name}");
    }
}

#[test]
fn answers_of_ours_are_shown_as_pages_too() {
    let (refusing, pages) = (Origin::refusing(), pages());
    let rules = with(&refusing, &pages, "[\"400-599\"]", "{status}");
    let coreway = Coreway::serve(&rules);
    let mut client = coreway.client();
    let check = |client: &mut crate::harness::Client, status: u16| {
        let response = client.get("/");
        let expected = (status, format!("page /{status}"));
        assert_eq!((response.status, response.text()), expected);
    };
    check(&mut client, 502);

    coreway.reload(&(rules.clone() + "[frontends.f.whiteList]\nsourceRange = [\"10.0.0.0/8\"]\n"));
    check(&mut client, 403);

    let rate = "[frontends.f.ratelimit]\nextractorfunc = \"client.ip\"\n[frontends.f.ratelimit.rateset.a]\n\
                period = \"1000s\"\naverage = 1\nburst = 1\n";
    coreway.reload(&(rules.clone() + rate));
    check(&mut client, 502);
    check(&mut client, 429);

    let none = rules.replace(
        &format!("url = \"{}\"", refusing.url()),
        "url = \"http://a:1\"\nweight = 0",
    );
    coreway.reload(&none.replace(
        "[backends.b.servers.s]\nurl = \"http://a:1\"\nweight = 0\n",
        "[backends.b]\n",
    ));
    check(&mut client, 503);
    assert_eq!(pages.requests().len(), 5);
}

#[test]
fn a_head_request_gets_the_head_of_the_page() {
    let (origin, pages) = (echoing(), pages());
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"500\"]", ""));
    let mut client = coreway.client();
    for _ in 0..2 {
        client.send("HEAD /500 HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.head_response();
        assert_eq!(response.status, 500);
        assert_eq!(response.field("Content-Length"), Some("6"));
    }
    assert_eq!(client.get("/200").text(), "its own");
    assert_eq!(pages.last().head.method(), "GET");
}

#[test]
fn a_status_without_a_body_stays_without_one() {
    let (origin, pages) = (echoing(), pages());
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"204\", \"304\"]", ""));
    let mut client = coreway.client();
    for status in [304, 204, 304] {
        let response = client.get(&format!("/{status}"));
        assert_eq!((response.status, response.text()), (status, String::new()));
        assert_eq!(response.field("X-Page"), Some("yes"));
    }
}

#[test]
fn a_page_without_a_body_has_an_end() {
    let origin = echoing();
    for status in [204, 304] {
        let pages = Origin::wire(move |exchange| {
            exchange.send(format!("HTTP/1.1 {status} X\r\n\r\n"));
        });
        let coreway = Coreway::serve(&with(&origin, &pages, "[\"500\"]", ""));
        let mut client = coreway.client();
        for _ in 0..2 {
            let response = client.get("/500");
            assert_eq!((response.status, response.text()), (500, String::new()));
            assert_eq!(response.field("Content-Length"), Some("0"));
        }
    }
}

#[test]
fn what_is_said_of_a_failing_page_stands_in_its_place() {
    let origin = echoing();
    let coreway = Coreway::serve(&with(
        &origin,
        &Origin::refusing(),
        "[\"404\", \"502\"]",
        "",
    ));
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.get("/404");
        assert_eq!(
            (response.status, response.text()),
            (404, "Bad Gateway".into()),
            "and no loop"
        );
        client.send("HEAD /404 HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.head_response();
        assert_eq!(response.status, 404);
    }
    assert_eq!(client.get("/200").text(), "its own");
    assert_eq!(origin.targets().len(), 5);
}

#[test]
fn a_page_that_is_cut_is_cut_for_the_client() {
    let origin = echoing();
    let pages = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        exchange.close();
    });
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"404\"]", ""));
    let mut client = coreway.client();
    client.send("GET /404 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_response().is_err());
}

#[test]
fn long_pages_and_long_discarded_answers() {
    const LONG: usize = 3_000_000;
    let long = |byte: u8| {
        Origin::wire(move |exchange| {
            exchange.send(format!("HTTP/1.1 404 X\r\nContent-Length: {LONG}\r\n\r\n"));
            exchange.send(vec![byte; LONG]);
        })
    };
    let (origin, pages) = (long(b'a'), long(b'p'));
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"404\"]", ""));
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.get("/");
        assert_eq!(response.status, 404);
        assert!(response.body.len() == LONG && response.body.iter().all(|byte| *byte == b'p'));
    }
}

#[test]
fn an_upload_that_was_answered_early_gets_its_page() {
    let gate = Gate::default();
    let opened = gate.clone();
    let origin = Origin::wire(move |exchange| {
        exchange.send("HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n");
        opened.wait();
    });
    let pages = pages();
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"413\"]", "{status}"));
    let mut client = coreway.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nonly this");
    let response = client.response();
    assert_eq!(
        (response.status, response.text()),
        (413, "page /413".into())
    );
    assert_eq!(
        response.field("Connection"),
        Some("close"),
        "where the body ends is not known"
    );
    gate.open();
}

#[test]
fn the_fields_of_the_frontend_are_set_on_pages() {
    let (origin, pages) = (echoing(), pages());
    let coreway = Coreway::serve(
        &(with(&origin, &pages, "[\"500\"]", "")
            + "[frontends.f.headers]\nframeDeny = true\n[frontends.f.headers.customResponseHeaders]\nX-Ours = \"1\"\n"),
    );
    let response = coreway.get("/500");
    assert_eq!(response.field("X-Frame-Options"), Some("DENY"));
    assert_eq!(response.field("X-Ours"), Some("1"));
    assert_eq!(response.field("X-Page"), Some("yes"));
}

#[test]
fn the_first_page_by_name_is_shown() {
    let (origin, first, second) = (echoing(), Origin::text("first"), Origin::text("second"));
    let coreway = Coreway::serve(
        &(backend("one", &first)
            + &backend("two", &second)
            + &site(&origin)
            + "[frontends.f.errors.b]\nstatus = [\"404\", \"500\"]\nbackend = \"two\"\n\
               [frontends.f.errors.a]\nstatus = [\"500-599\"]\nbackend = \"one\"\n"),
    );
    assert_eq!(coreway.get("/500").text(), "first");
    assert_eq!(coreway.get("/404").text(), "second");
}

#[test]
fn a_page_of_no_use_is_left_out_alone() {
    let origin = echoing();
    let coreway = Start::new().serve(
        &(site(&origin)
            + "[frontends.f.errors.a]\nstatus = [\"500\"]\nbackend = \"none\"\n\
               [frontends.f.errors.b]\nstatus = [\"500\"]\nbackend = \"b\"\n"),
    );
    coreway.await_log("errors: a of frontend f is left out: backend 'none' is not defined");
    coreway.await_log("errors: b of frontend f is left out: backend 'b' is the frontend's own");
    assert_eq!(coreway.get("/500").text(), "its own");

    coreway
        .reload(&(site(&origin) + "[frontends.f.errors.a]\nstatus = [\"5xx\"]\nbackend = \"b\"\n"));
    coreway.await_log("is neither a status nor a range such as 500-599. Skipping frontend f...");
    assert_eq!(coreway.get("/500").status, 404);
}

#[test]
fn clients_of_http2_see_pages_too() {
    let (origin, pages) = (echoing(), pages());
    let coreway = Coreway::serve(&with(&origin, &pages, "[\"500\"]", "{status}"));
    let client = Http2::connect(coreway.address());
    for _ in 0..2 {
        let told = client.ask(request("POST", "/500"), Some(b"body")).unwrap();
        assert_eq!((told.status, told.text().as_str()), (500, "page /500"));
    }
    let told = client.ask(request("HEAD", "/500"), None).unwrap();
    assert_eq!((told.status, told.text().as_str()), (500, ""));
    assert_eq!(client.get("/200").text(), "its own");
}
