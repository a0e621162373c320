//! Requests that two parsers could read differently: each is refused, the connection ends, and no server sees a byte.
//!
//! RFC 9112 sections 2 to 7 and 11.2. A row is one way to disagree about where a message ends or what it says.

use crate::harness::{Coreway, Origin, Start, answer, eventually};

/// Sends bytes; the answer must have one of these statuses and the connection must end, with nobody behind us asked.
fn check_refused(coreway: &Coreway, origin: &Origin, bytes: &[u8], statuses: &[u16]) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let mut client = coreway.client();
    client.send_what_goes(bytes);
    let response = client
        .try_response()
        .unwrap_or_else(|cut| panic!("{shown:?}: no answer: {cut}"));
    assert!(
        statuses.contains(&response.status),
        "{shown:?}: {} {}",
        response.status,
        response.text()
    );
    assert_eq!(response.field("Connection"), Some("close"), "{shown:?}");
    assert!(
        client.rest().is_empty(),
        "{shown:?}: something followed the refusal"
    );
    assert_eq!(origin.targets(), [""; 0], "{shown:?}: a server was asked");
    assert_eq!(
        origin.connections(),
        0,
        "{shown:?}: a server was connected to"
    );
}

/// Each row is the head after `POST / HTTP/1.1` and a good Host; a body that another parser might take for a request follows.
#[test]
fn doubtful_framing_is_refused() {
    let rows: &[&[u8]] = &[
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\ncontent-length: 0",
        b"Content-Length: 5, 5",
        b"Content-Length: 5,6",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: 5 5",
        b"Content-Length: 5;",
        b"Content-Length: 5.0",
        b"Content-Length: 5e0",
        b"Content-Length: \"5\"",
        b"Content-Length:",
        b"Content-Length: 18446744073709551616",
        b"Content-Length: 99999999999999999999999999",
        b"Content-Length: 5\x0b",
        b"Content-Length: \x0c5",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: identity\r\nContent-Length: 5",
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked;a=b",
        b"Transfer-Encoding: \"chunked\"",
        b"Transfer-Encoding: 'chunked'",
        b"Transfer-Encoding: chun ked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: chunked\x0c",
        b"Transfer-Encoding: chunked\x00",
        b"Transfer-Encoding: ch\xc3\xbcnked",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: ,",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\t: chunked",
        b"Transfer-Encoding\x0b: chunked",
        b" Transfer-Encoding: chunked",
        b"X: a\r\n Transfer-Encoding: chunked",
        b"X: a\r\n\tTransfer-Encoding: chunked",
        b"Transfer-Encoding:\r\n chunked",
        b"Transfer\rEncoding: chunked",
        b"X: a\rTransfer-Encoding: chunked",
        b"X: a\nTransfer-Encoding: chunked",
        b"X: a\r\rTransfer-Encoding: chunked",
        b"Content-Length : 5",
        b"Content Length: 5",
        b"X: a\x00b\r\nContent-Length: 5",
        b"X: a\x01b\r\nContent-Length: 5",
        b"X: a\x7fb\r\nContent-Length: 5",
        b"X\x00: a\r\nContent-Length: 5",
        b"X(Y): a\r\nContent-Length: 5",
        b"\xc3\xa9: a\r\nContent-Length: 5",
        b": a\r\nContent-Length: 5",
        b"nocolon\r\nContent-Length: 5",
    ];
    let origin = Origin::text("never");
    let coreway = Coreway::before(&origin);
    for row in rows {
        let mut bytes = b"POST / HTTP/1.1\r\nHost: a\r\n".to_vec();
        bytes.extend_from_slice(row);
        bytes.extend_from_slice(b"\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        check_refused(&coreway, &origin, &bytes, &[400, 501]);
    }
}

/// Whole heads whose first line, host or line ends are wrong.
#[test]
fn malformed_heads_are_refused() {
    let rows: &[(&[u8], u16)] = &[
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\rX: 1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"G\x00T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x01b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/01.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        (
            b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", 400),
    ];
    let origin = Origin::text("never");
    let coreway = Coreway::before(&origin);
    for (bytes, status) in rows {
        // A line without version could be HTTP/0.9, a version that is not spoken here.
        check_refused(&coreway, &origin, bytes, &[*status, 505]);
    }
}

#[test]
fn refusals_say_so_in_the_known_words() {
    let coreway = Coreway::serve("");
    let bad = coreway.exchange("BAD\r\n\r\n");
    assert_eq!(
        (bad.status, bad.reason.as_str(), bad.text().as_str()),
        (400, "Bad Request", "400 Bad Request")
    );
    let hostless = coreway.exchange("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(
        hostless.text(),
        "400 Bad Request: missing required Host header"
    );
}

#[test]
fn heads_beyond_their_bounds_are_refused() {
    let origin = Origin::text("never");
    let coreway = Coreway::before(&origin);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70 * 1024));
    check_refused(&coreway, &origin, target.as_bytes(), &[414]);
    let fields = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: 1\r\n".repeat(2000)
    );
    check_refused(&coreway, &origin, fields.as_bytes(), &[431]);
    // Not even ended: the bound stops us from reading for ever.
    let value = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX: {}",
        "a".repeat(2 * 1024 * 1024)
    );
    check_refused(&coreway, &origin, value.as_bytes(), &[431]);
}

#[test]
fn a_large_head_within_the_bounds_goes_through() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let value = "v".repeat(200 * 1024);
    let response = coreway.exchange(format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {value}\r\n\r\n"
    ));
    assert_eq!(response.status, 200);
    assert_eq!(origin.last().field("X-Long"), Some(value.as_str()));
}

/// Bodies whose chunks are doubtful. The head was fine, so a server may have seen that; it must never see a whole
/// request, nor what was hidden behind it.
#[test]
fn doubtful_chunks_are_refused() {
    let rows: &[(&str, Vec<u8>)] = &[
        ("not hex", b"g\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("a sign", b"+5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("negative", b"-5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("0x", b"0x5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("blank first", b" 5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("empty size", b"\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("only an extension", b";a=b\r\nhello\r\n0\r\n\r\n".to_vec()),
        (
            "overflow",
            b"10000000000000005\r\nhello\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "more overflow",
            b"FFFFFFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n".to_vec(),
        ),
        ("bare LF after the size", b"5\nhello\r\n0\r\n\r\n".to_vec()),
        ("bare CR after the size", b"5\rhello\r\n0\r\n\r\n".to_vec()),
        (
            "LF in an extension",
            b"5;a\nGET /smuggled HTTP/1.1\r\nhello\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "CR in an extension",
            b"5;a\rb\r\nhello\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "NUL in an extension",
            b"5;a\0b\r\nhello\r\n0\r\n\r\n".to_vec(),
        ),
        ("data without CRLF", b"5\r\nhello0\r\n\r\n".to_vec()),
        ("data with LF", b"5\r\nhello\n0\r\n\r\n".to_vec()),
        ("data too long", b"5\r\nhellooo\r\n0\r\n\r\n".to_vec()),
        (
            "a long extension",
            [b"5;".as_slice(), &[b'a'; 20_000], b"\r\nhello\r\n0\r\n\r\n"].concat(),
        ),
        ("bare LF after the last", b"0\n\n".to_vec()),
        ("trailer without colon", b"0\r\nnocolon\r\n\r\n".to_vec()),
        (
            "trailer with a blank in its name",
            b"0\r\nX Y: 1\r\n\r\n".to_vec(),
        ),
        ("folded trailer", b"0\r\nX: 1\r\n 2\r\n\r\n".to_vec()),
        ("NUL in a trailer", b"0\r\nX: \0\r\n\r\n".to_vec()),
        ("LF in a trailer", b"0\r\nX: 1\nY: 2\r\n\r\n".to_vec()),
        (
            "long trailers",
            [
                b"0\r\n".as_slice(),
                &b"X: 12345678\r\n".repeat(20_000),
                b"\r\n",
            ]
            .concat(),
        ),
    ];
    let origin = Origin::new(|_| answer(200, "took it"));
    let coreway = Coreway::before(&origin);
    for (name, body) in rows {
        let mut client = coreway.client();
        client.send("POST /upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send_what_goes(body);
        client.send_what_goes("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client
            .try_response()
            .unwrap_or_else(|cut| panic!("{name}: {cut}"));
        assert_eq!(response.status, 400, "{name}: {}", response.text());
        assert!(
            client.rest().is_empty(),
            "{name}: something followed the refusal"
        );
        eventually("the server's side of it ends", || {
            origin.connections_open() == 0
        });
        for request in origin.requests() {
            assert_eq!(request.head.target(), "/upload", "{name}");
            assert!(
                request.body.is_none(),
                "{name}: a server took it for a whole request"
            );
        }
    }
}

#[test]
fn honest_chunk_extensions_are_accepted_and_not_passed_on() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    // The origin's own reader refuses extensions, so this shows that they were dropped.
    let body = "5;name=value;q=\"x y\"\r\nhello\r\n000A\r\n0123456789\r\n0;last\r\n\r\n";
    let response = coreway.exchange(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n{body}"
    ));
    assert_eq!(response.status, 200);
    assert_eq!(origin.last().text(), "hello0123456789");
}

#[test]
fn what_follows_a_refused_request_is_never_read() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send(
        "GET /first HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 400);
    assert!(client.rest().is_empty());
    assert_eq!(origin.targets(), ["/first"]);
}

#[test]
fn a_request_inside_a_body_stays_a_body() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = coreway.client();
    client.send(format!(
        "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}",
        inner.len()
    ));
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(client.response().status, 200);
    assert_eq!(origin.targets(), ["/a", "/b"]);
    assert_eq!(origin.requests()[0].text(), inner);
}

#[test]
fn trailers_never_become_fields() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Late: 1\r\nContent-Length: 50\r\n\
         Host: evil\r\nTransfer-Encoding: gzip\r\n\r\n",
    );
    // Trailers that would change the framing are either refused or dropped, never passed on.
    if response.status == 400 {
        return;
    }
    let request = origin.last();
    assert_eq!(request.field("X-Late"), None);
    let trailers = request.body.expect("the request came whole").trailers;
    for name in ["Content-Length", "Host", "Transfer-Encoding"] {
        assert!(
            !trailers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name)),
            "{trailers:?}"
        );
    }
}

#[test]
fn empty_lines_before_a_request_are_skipped() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    assert_eq!(
        coreway
            .exchange("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .status,
        200
    );
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send_byte_by_byte("POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let request = origin.last();
    assert_eq!(
        (request.head.target(), request.text().as_str()),
        ("/slow", "abc")
    );
}

#[test]
fn raw_bytes_beyond_ascii_in_a_target_are_encoded() {
    let origin = Origin::text("ok");
    let coreway = Coreway::before(&origin);
    let response = coreway.exchange(b"GET /caf\xc3\xa9?\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(response.status, 200);
    assert_eq!(origin.targets(), ["/caf%C3%A9?%C3%A9"]);
}

#[test]
fn refusals_do_not_depend_on_a_frontend() {
    let coreway = Start::new().serve("");
    let response = coreway.exchange("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n");
    assert_eq!(response.status, 400);
}
