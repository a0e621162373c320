//! `compress` of an entry point: which answers are compressed, and that nothing of them waits.

use std::io::Read;

use flate2::read::GzDecoder;

use crate::harness::h2::Http2;
use crate::harness::wire::Framing;
use crate::harness::{Coreway, Gate, Origin, Response, Start, answer, site};

fn serve(origin: &Origin) -> Coreway {
    serve_rules(&site(origin))
}

fn serve_rules(rules: &str) -> Coreway {
    Start::new().entry_point("compress = true").serve(rules)
}

fn get(target: &str, fields: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

const GZIP: &str = "Accept-Encoding: br, gzip;q=0.5\r\n";

fn unzipped(bytes: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(bytes)
        .read_to_string(&mut text)
        .expect("whole gzip");
    text
}

#[track_caller]
fn assert_plain(response: &Response, body: &str) {
    assert_eq!(response.field("Content-Encoding"), None);
    assert_eq!(response.text(), body);
    assert_eq!(response.head.all("Vary"), ["Accept-Encoding"]);
}

#[track_caller]
fn assert_gzip(response: &Response, body: &str) {
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    assert_eq!(response.field("Content-Length"), None);
    assert_eq!(response.head.all("Vary"), ["Accept-Encoding"]);
    assert!(response.body.len() < body.len());
    assert_eq!(unzipped(&response.body), body);
}

/// As many bytes as the path says.
fn sized() -> Origin {
    Origin::new(|request| {
        let size = request.head.target()[1..].parse().unwrap_or(0);
        answer(200, &"x".repeat(size))
    })
}

#[test]
fn long_answers_are_compressed_for_those_who_can_read_it() {
    let origin = sized();
    let coreway = serve(&origin);
    let mut client = coreway.client();
    for (size, fields, compressed) in [
        (844, GZIP, true),
        (512, GZIP, true),
        (511, GZIP, false),
        (0, GZIP, false),
        (844, "", false),
        (844, "Accept-Encoding: gzip;q=0\r\n", false),
        (844, "Accept-Encoding: *\r\n", false),
        (
            844,
            "Accept-Encoding: gzip\r\nContent-Type: application/grpc\r\n",
            false,
        ),
        (3_000_000, GZIP, true),
        (300, GZIP, false),
    ] {
        let response = client.exchange(get(&format!("/{size}"), fields));
        let body = "x".repeat(size);
        if compressed {
            assert_gzip(&response, &body);
            assert_eq!(response.framing, Framing::Chunked);
        } else {
            assert_plain(&response, &body);
            assert_eq!(response.field("Content-Length"), Some(&*size.to_string()));
        }
    }
    assert_eq!(origin.connections(), 1, "both connections go on");

    client.send(format!("HEAD /844 HTTP/1.1\r\nHost: a\r\n{GZIP}\r\n"));
    let response = client.head_response();
    assert_eq!(response.field("Content-Length"), Some("844"));
    assert_eq!(response.field("Content-Encoding"), None);
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));

    let old = coreway.exchange(format!("GET /844 HTTP/1.0\r\nHost: a\r\n{GZIP}\r\n"));
    assert_gzip(&old, &"x".repeat(844));
    assert_eq!(old.framing, Framing::Close);
}

/// Answers with this head and 1000 bytes.
fn with_head(head: &'static str) -> Origin {
    Origin::wire(move |exchange| {
        exchange.send(format!(
            "HTTP/1.1 {head}Content-Length: 1000\r\n\r\n{}",
            "x".repeat(1000)
        ));
    })
}

#[test]
fn some_answers_are_left_as_they_are() {
    let body = "x".repeat(1000);
    for head in [
        "206 P\r\nContent-Range: bytes 0-999/2000\r\n",
        "200 OK\r\nCache-Control: no-transform\r\n",
    ] {
        let origin = with_head(head);
        assert_plain(&serve(&origin).exchange(get("/", GZIP)), &body);
    }
    let origin = with_head("200 OK\r\nContent-Encoding: br\r\n");
    let response = serve(&origin).exchange(get("/", GZIP));
    assert_eq!(response.field("Content-Encoding"), Some("br"));
    assert_eq!(response.text(), body);
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
    for head in ["304 N\r\nETag: \"a\"\r\n", "204 N\r\n"] {
        let origin = Origin::wire(move |exchange| exchange.send(format!("HTTP/1.1 {head}\r\n")));
        let response = serve(&origin).exchange(get("/", GZIP));
        assert_plain(&response, "");
        assert!(response.field("ETag").is_none_or(|tag| tag == "\"a\""));
    }
}

#[test]
fn errors_and_images_are_compressed_and_tags_become_weak() {
    for head in [
        "404 N\r\nContent-Type: text/html\r\n",
        "200 OK\r\nContent-Type: image/png\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\n",
    ] {
        let origin = with_head(head);
        let response = serve(&origin).exchange(get("/", GZIP));
        assert_gzip(&response, &"x".repeat(1000));
        assert!(response.field("ETag").is_none_or(|tag| tag == "W/\"a\""));
        assert_eq!(response.field("Accept-Ranges"), None);
    }
}

#[test]
fn chunked_answers_keep_their_trailers_and_short_ones_their_form() {
    let body = "y".repeat(2000);
    let long = format!("7d0\r\n{body}\r\n0\r\nX-Trailer: 1\r\n\r\n");
    let origin = Origin::wire(move |exchange| {
        let body = match exchange.head.target() {
            "/long" => long.clone(),
            _ => "2\r\nhi\r\n0\r\n\r\n".to_owned(),
        };
        exchange.send(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
    });
    let coreway = serve(&origin);
    let mut client = coreway.client();
    for _ in 0..2 {
        let response = client.exchange(get("/long", GZIP));
        assert_gzip(&response, &body);
        assert_eq!(response.trailers.len(), 1);
        assert_plain(&client.exchange(get("/short", GZIP)), "hi");
    }
}

#[test]
fn every_event_of_a_stream_arrives_at_once() {
    let gates = [Gate::default(), Gate::default(), Gate::default()];
    let opened = gates.clone();
    let origin = Origin::wire(move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
        for (number, gate) in opened.iter().enumerate() {
            gate.wait();
            exchange.send(format!("data: {number}\n\n"));
        }
        exchange.close();
    });
    let coreway = serve(&origin);
    let mut client = coreway.client();
    client.send(get("/", GZIP));
    let head = client.head();
    assert_eq!(
        head.field("Content-Encoding"),
        Some("gzip"),
        "before any event"
    );
    let mut sent = Vec::new();
    let mut read = String::new();
    for (number, gate) in gates.iter().enumerate() {
        gate.open();
        sent.extend(client.chunk());
        read.push_str(&format!("data: {number}\n\n"));
        let mut text = vec![0; read.len()];
        GzDecoder::new(&*sent)
            .read_exact(&mut text)
            .expect("all of the event is here");
        assert_eq!(String::from_utf8(text).unwrap(), read);
    }
    sent.extend(client.chunk());
    assert_eq!(unzipped(&sent), read);
    assert!(client.chunk().is_empty(), "the last chunk");
}

#[test]
fn an_answer_that_breaks_is_broken_for_the_client() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf");
        exchange.close();
    });
    let coreway = serve(&origin);
    let mut client = coreway.client();
    client.send(get("/", GZIP));
    assert!(client.try_response().is_err());
}

#[test]
fn a_websocket_passes_untouched() {
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let bytes = exchange.take();
        exchange.send(bytes);
        exchange.close();
    });
    let coreway = serve(&origin);
    let mut client = coreway.client();
    client.send(get(
        "/",
        &format!("{GZIP}Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    ));
    let head = client.head();
    assert!(head.start.contains("101") && head.field("Content-Encoding").is_none());
    let sent = "z".repeat(1000);
    client.send(&sent);
    assert_eq!(client.exactly(1000), sent.as_bytes());
}

#[test]
fn answers_of_ours_say_that_they_vary() {
    let origin = Origin::refusing();
    let coreway = serve(&origin);
    let mut client = coreway.client();
    let response = client.exchange(get("/", GZIP));
    assert_eq!(
        (response.status, response.text()),
        (502, "Bad Gateway".into())
    );
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
    coreway.reload(&(site(&origin) + "routes.r.rule = \"Host:other\"\n"));
    let response = client.exchange(get("/", GZIP));
    assert_eq!(response.status, 404);
    assert_eq!(response.field("Vary"), Some("Accept-Encoding"));
}

#[test]
fn without_the_option_nothing_is_compressed() {
    let origin = sized();
    let response = Coreway::before(&origin).exchange(get("/1000", GZIP));
    assert_eq!(response.field("Vary"), None);
    assert_eq!(response.text().len(), 1000);
}

#[test]
fn the_fields_of_a_frontend_do_not_take_the_coding_away() {
    let origin = sized();
    let coreway = serve_rules(
        &(site(&origin)
            + "[frontends.f.headers.customRequestHeaders]\nAccept-Encoding = \"\"\n\
               [frontends.f.headers.customResponseHeaders]\nContent-Encoding = \"\"\nVary = \"Origin\"\n"),
    );
    let response = coreway.exchange(get("/1000", GZIP));
    assert_eq!(unzipped(&response.body), "x".repeat(1000));
    assert_eq!(response.field("Content-Encoding"), Some("gzip"));
    assert_eq!(response.head.all("Vary"), ["Origin", "Accept-Encoding"]);
    assert_eq!(origin.last().field("Accept-Encoding"), None);
}

#[test]
fn clients_of_http2_get_it_too() {
    let origin = sized();
    let coreway = serve(&origin);
    let client = Http2::connect(coreway.address());
    for size in [100, 844, 500_000] {
        let request =
            http::Request::get(format!("http://test/{size}")).header("accept-encoding", "gzip");
        let told = client.ask(request.body(()).unwrap(), None).unwrap();
        assert_eq!(told.field("vary"), Some("Accept-Encoding"));
        let is_long = size >= 512;
        assert_eq!(told.field("content-encoding").is_some(), is_long);
        assert_eq!(told.field("content-length").is_none(), is_long);
        let text = if is_long {
            unzipped(&told.body)
        } else {
            told.text()
        };
        assert!(text == "x".repeat(size));
    }
}
