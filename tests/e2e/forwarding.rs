//! What a server sees of a request, what a client sees of an answer, and what the proxy says when there is none.

use crate::harness::origin::{Deaf, Request};
use crate::harness::{Coreway, H2Origin, Head, Origin, Response, Start, answer, site};

/// What the server sees of a request with these field lines, entry point lines and frontend lines.
fn seen(entry_point: &str, frontend: &str, fields: &str) -> Request {
    let origin = Origin::text("ok");
    let coreway = Start::new()
        .entry_point(entry_point)
        .serve(&(site(&origin) + frontend));
    let response = coreway.exchange(format!("GET /x HTTP/1.1\r\n{fields}\r\n"));
    assert_eq!(response.status, 200);
    origin.last()
}

const TRUST_LOCAL: &str = "[entryPoints.http.forwardedHeaders]\ntrustedIPs = [\"127.0.0.0/8\"]";
const TRUST_OTHERS: &str = "[entryPoints.http.forwardedHeaders]\ntrustedIPs = [\"10.0.0.0/8\"]";

/// Checks fields of the forwarded head; `-` means absent. Several lines of one name show up joined with ` + `.
#[track_caller]
fn check_fields(head: &Head, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        let all = head.all(name).join(" + ");
        let seen = if head.field(name).is_none() {
            "-"
        } else {
            all.as_str()
        };
        assert_eq!(seen, *value, "{name}");
    }
}

#[test]
fn a_plain_request_gets_all_forwarded_fields() {
    let request = seen("", "", "Host: a.test:8080\r\n");
    check_fields(
        &request.head,
        &[
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Real-Ip", "127.0.0.1"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Host", "a.test:8080"),
            ("X-Forwarded-Port", "8080"),
            ("X-Forwarded-Uri", "-"),
            ("X-Forwarded-Method", "-"),
            ("User-Agent", "-"),
            ("Accept-Encoding", "-"),
            ("Connection", "-"),
        ],
    );
    assert!(
        request
            .field("X-Forwarded-Server")
            .is_some_and(|name| !name.is_empty())
    );
}

#[test]
fn the_port_follows_the_scheme_when_the_host_has_none() {
    check_fields(
        &seen("", "", "Host: a.test\r\n").head,
        &[("X-Forwarded-Port", "80")],
    );
    check_fields(
        &seen("", "", "Host: a.test\r\nX-Forwarded-Proto: https\r\n").head,
        &[("X-Forwarded-Port", "443")],
    );
}

/// What a client claims about itself.
const CLAIMS: &str = "Host: a.test\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.2.2.2\r\nX-Real-Ip: 10.3.3.3\r\n\
    X-Forwarded-Proto: https\r\nX-Forwarded-Host: claimed.test\r\nX-Forwarded-Port: 4444\r\nX-Forwarded-Server: claimed\r\n\
    X-Forwarded-Uri: /claimed\r\nX-Forwarded-Method: PUT\r\nForwarded: for=claimed\r\nVia: 1.0 claimed\r\n";

#[test]
fn the_claims_of_a_trusted_peer_are_kept() {
    for trust in [
        "",
        TRUST_LOCAL,
        "[entryPoints.http.forwardedHeaders]\ninsecure = true",
    ] {
        let request = seen(trust, "", CLAIMS);
        check_fields(
            &request.head,
            &[
                ("X-Forwarded-For", "10.1.1.1, 10.2.2.2, 127.0.0.1"),
                ("X-Real-Ip", "10.3.3.3"),
                ("X-Forwarded-Proto", "https"),
                ("X-Forwarded-Host", "claimed.test"),
                ("X-Forwarded-Port", "4444"),
                ("X-Forwarded-Uri", "/claimed"),
                ("X-Forwarded-Method", "PUT"),
                ("Forwarded", "for=claimed"),
                ("Via", "1.0 claimed"),
            ],
        );
        assert_ne!(
            request.field("X-Forwarded-Server"),
            Some("claimed"),
            "always our own name"
        );
        assert_eq!(request.head.all("X-Forwarded-Server").len(), 1);
    }
}

#[test]
fn the_claims_of_a_stranger_are_not() {
    // The claimed 10.1.1.1 is in the trusted network, and the peer is not: only the peer counts.
    for trust in [TRUST_OTHERS, "[entryPoints.http.forwardedHeaders]"] {
        let request = seen(trust, "", CLAIMS);
        check_fields(
            &request.head,
            &[
                ("X-Forwarded-For", "127.0.0.1"),
                ("X-Real-Ip", "127.0.0.1"),
                ("X-Forwarded-Proto", "http"),
                ("X-Forwarded-Host", "a.test"),
                ("X-Forwarded-Port", "80"),
                ("X-Forwarded-Uri", "-"),
                ("X-Forwarded-Method", "-"),
                ("Forwarded", "for=claimed"),
                ("Via", "1.0 claimed"),
            ],
        );
    }
}

#[test]
fn a_stranger_cannot_claim_a_stripped_prefix() {
    let frontend = "[frontends.f.routes.r]\nrule = \"PathPrefixStrip:/x\"\n";
    let claims = "Host: a\r\nX-Forwarded-Prefix: /claimed\r\n";
    check_fields(
        &seen(TRUST_OTHERS, frontend, claims).head,
        &[("X-Forwarded-Prefix", "/x")],
    );
    check_fields(
        &seen(TRUST_LOCAL, frontend, claims).head,
        &[("X-Forwarded-Prefix", "/claimed + /x")],
    );
}

#[test]
fn hop_by_hop_fields_of_a_request_end_here() {
    let fields = "Host: a\r\nConnection: X-Secret, close\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
        Proxy-Authorization: Basic eA==\r\nProxy-Authenticate: Basic\r\nTE: trailers, deflate\r\nUpgrade: h2c\r\nX-Kept: 1\r\n";
    check_fields(
        &seen("", "", fields).head,
        &[
            ("X-Secret", "-"),
            ("Keep-Alive", "-"),
            ("Proxy-Connection", "-"),
            ("Proxy-Authorization", "-"),
            ("Proxy-Authenticate", "-"),
            ("Upgrade", "-"),
            ("Connection", "-"),
            ("X-Kept", "1"),
        ],
    );
    let request = seen("", "", "Host: a\r\nTE: trailers\r\n");
    check_fields(&request.head, &[("TE", "trailers")]);
}

/// Everything that the proxy can say of a request, taken off by a client that names it in `Connection`. With it the options
/// of a frontend that set the rest of it.
const NAMED: &str = "Connection: X-Real-Ip, X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, X-Forwarded-Port, \
    X-Forwarded-Server, X-Forwarded-Prefix, X-Own, X-User, x-replaced-path, X-Gone, Host, Content-Length, \
    Transfer-Encoding\r\nConnection: Cookie\r\n";
const SETTING: &str = "[frontends.f.routes.r]\nrule = \"PathPrefixStrip:/x\"\n\
    [frontends.f.headers.customRequestHeaders]\nX-Own = \"ours\"\n\
    [frontends.f.auth]\nheaderField = \"X-User\"\nbasic.users = [\"sha:{SHA}qvTGHdzF6KLavt4PO0gs2a6pQ00=\"]\n";

/// A request by the user `sha` that names all that.
fn naming() -> String {
    format!(
        "POST /x/y HTTP/1.1\r\nHost: a.test\r\n{NAMED}Authorization: Basic c2hhOmhlbGxv\r\nX-Own: forged\r\n\
         X-User: forged\r\nX-Gone: 1\r\nCookie: c\r\nContent-Length: 5\r\n\r\nhello"
    )
}

#[test]
fn connection_cannot_name_what_the_proxy_sets() {
    let origin = Origin::text("ok");
    let coreway = Coreway::serve(&(site(&origin) + SETTING));
    assert_eq!(coreway.exchange(naming()).status, 200);
    let request = origin.last();
    check_fields(
        &request.head,
        &[
            ("X-Real-Ip", "127.0.0.1"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Host", "a.test"),
            ("X-Forwarded-Proto", "http"),
            ("X-Forwarded-Port", "80"),
            ("X-Forwarded-Prefix", "/x"),
            ("X-Own", "ours"),
            ("X-User", "sha"),
            ("X-Gone", "-"),
            ("Cookie", "-"),
            ("Connection", "-"),
            ("Host", &origin.address().to_string()),
            ("Content-Length", "5"),
        ],
    );
    assert!(request.field("X-Forwarded-Server").is_some());
    assert_eq!(request.text(), "hello");
}

#[test]
fn connection_cannot_name_what_the_proxy_sets_for_a_server_over_http2() {
    let origin = H2Origin::text("ok");
    let coreway = Coreway::serve(&(origin.site() + SETTING));
    assert_eq!(coreway.exchange(naming()).status, 200);
    let seen = origin.last();
    let field = |name| {
        let values = seen.headers().get_all(name).iter();
        let values: Vec<&str> = values.map(|value| value.to_str().unwrap()).collect();
        values.join(" + ")
    };
    for (name, expected) in [
        ("x-real-ip", "127.0.0.1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a.test"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-port", "80"),
        ("x-forwarded-prefix", "/x"),
        ("x-own", "ours"),
        ("x-user", "sha"),
        ("x-gone", ""),
        ("cookie", ""),
        ("content-length", "5"),
    ] {
        assert_eq!(field(name), expected, "{name}");
    }
}

#[test]
fn a_rule_may_ask_for_connection_but_not_for_what_it_takes_off() {
    let origin = Origin::text("ok");
    let rules = |rule: &str| site(&origin) + &format!("routes.r.rule = '{rule}'\n");
    let ask =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n\r\n";
    let coreway = Coreway::serve(&rules("HeadersRegexp:Connection,keep-alive"));
    assert_eq!(coreway.exchange(ask).status, 200);
    coreway.reload(&rules("Headers:X-Secret,1"));
    assert_eq!(coreway.exchange(ask).status, 404);
    assert_eq!(
        coreway.exchange(ask.replace("X-Secret\r", "x\r")).status,
        200
    );
}

#[test]
fn hop_by_hop_fields_of_an_answer_end_here() {
    let origin = Origin::new(|_| {
        b"HTTP/1.1 200 OK\r\nConnection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
          Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 0\r\n\r\n"
            .to_vec()
    });
    let response = Coreway::before(&origin).client().get("/");
    check_fields(
        &response.head,
        &[
            ("X-Hop", "-"),
            ("Keep-Alive", "-"),
            ("Proxy-Authenticate", "-"),
            ("Upgrade", "-"),
            ("X-Kept", "1"),
            ("Connection", "-"),
        ],
    );
}

#[test]
fn host_is_the_servers_unless_the_clients_is_passed() {
    let origin = Origin::text("ok");
    let coreway = Coreway::serve(&site(&origin));
    assert_eq!(coreway.get("/").status, 200);
    check_fields(
        &origin.last().head,
        &[("Host", &origin.address().to_string())],
    );
    check_fields(
        &seen("", "passHostHeader = true", "Host: a.test:81\r\n").head,
        &[("Host", "a.test:81")],
    );
}

#[test]
fn the_authority_of_an_absolute_target_counts() {
    let origin = Origin::text("ok");
    let coreway = Coreway::serve(&(site(&origin) + "passHostHeader = true"));
    let response =
        coreway.exchange("GET http://real.test:82/p?q HTTP/1.1\r\nHost: other.test\r\n\r\n");
    assert_eq!(response.status, 200);
    let head = origin.last().head;
    assert_eq!(head.target(), "/p?q");
    check_fields(
        &head,
        &[
            ("Host", "real.test:82"),
            ("X-Forwarded-Host", "real.test:82"),
        ],
    );
}

#[test]
fn path_query_and_user_of_a_server_url_are_ignored() {
    let origin = Origin::text("ok");
    let rules = format!(
        "[backends.b.servers.s]\nurl = \"http://user:pw@{}/base?x=1\"\n[frontends.f]\nbackend = \"b\"\n",
        origin.address()
    );
    assert_eq!(Coreway::serve(&rules).get("/x").status, 200);
    assert_eq!(origin.targets(), ["/x"]);
    assert_eq!(origin.last().field("Authorization"), None);
}

#[test]
fn a_server_may_be_named_instead_of_numbered() {
    let origin = Origin::text("found");
    let rules = format!(
        "[backends.b.servers.s]\nurl = \"http://localhost:{}\"\n[frontends.f]\nbackend = \"b\"\n",
        origin.address().port()
    );
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/").text(), "found");
}

#[test]
fn any_method_is_forwarded_with_its_body() {
    let origin = Origin::new(|request| {
        answer(
            200,
            &format!("{} {}", request.head.method(), request.text()),
        )
    });
    let coreway = Coreway::before(&origin);
    for method in ["GET", "FOO", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        let response = coreway.exchange(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(response.text(), format!("{method} hi"));
    }
}

#[test]
fn asking_the_proxy_itself() {
    let origin = Origin::text("never");
    let coreway = Coreway::before(&origin);
    let options = coreway.exchange("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((options.status, options.text().as_str()), (200, ""));
    let connect = coreway.exchange("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
    assert_eq!(connect.status, 405);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn the_status_text_is_the_standard_one_and_fields_are_kept() {
    let origin = Origin::new(|_| {
        b"HTTP/1.1 404 Nobody Home\r\nServer: mine\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
          Content-Length: 2\r\n\r\nno"
            .to_vec()
    });
    let response = Coreway::before(&origin).get("/");
    assert_eq!(
        (
            response.status,
            response.reason.as_str(),
            response.text().as_str()
        ),
        (404, "Not Found", "no")
    );
    check_fields(
        &response.head,
        &[
            ("Server", "mine"),
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Set-Cookie", "a=1 + b=2"),
            ("Content-Length", "2"),
        ],
    );
}

#[test]
fn a_date_is_added_where_the_server_sent_none() {
    let response = Coreway::before(&Origin::text("x")).get("/");
    let date = response.field("Date").expect("a date").to_owned();
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
}

/// Checks an answer the proxy makes itself.
#[track_caller]
fn check_own(response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert_eq!(response.reason, body, "the body is the status text");
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(
        response.field("Content-Length"),
        Some(body.len().to_string().as_str())
    );
}

#[test]
fn a_refused_connection_is_a_502() {
    check_own(
        &Coreway::before(&Origin::refusing()).get("/"),
        502,
        "Bad Gateway",
    );
}

#[test]
fn a_server_that_hangs_up_before_answering_is_a_502() {
    for reset in [false, true] {
        let origin = Origin::wire(move |exchange| {
            if reset {
                exchange.reset()
            } else {
                exchange.close()
            }
        });
        let coreway = Coreway::before(&origin);
        check_own(&coreway.get("/"), 502, "Bad Gateway");
        check_own(
            &coreway.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"),
            502,
            "Bad Gateway",
        );
    }
}

#[test]
fn nonsense_from_a_server_is_a_502() {
    let answers: &[&[u8]] = &[
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nBad Name: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    let origin = Origin::new(move |request| {
        let number: usize = request.head.target()[1..].parse().unwrap();
        answers[number].to_vec()
    });
    let coreway = Coreway::before(&origin);
    for (number, bytes) in answers.iter().enumerate() {
        let response = coreway.get(&format!("/{number}"));
        assert_eq!(response.status, 502, "{:?}", String::from_utf8_lossy(bytes));
        check_own(&response, 502, "Bad Gateway");
    }
}

#[test]
fn a_backend_without_servers_is_a_503() {
    let coreway = Coreway::serve("[backends.b]\n[frontends.f]\nbackend = \"b\"\n");
    check_own(&coreway.get("/"), 503, "Service Unavailable");
}

#[test]
fn only_zero_weights_is_a_500() {
    let origin = Origin::text("never");
    let rules = format!(
        "{}weight = 0\n[frontends.f]\nbackend = \"b\"\n",
        crate::harness::backend("b", &origin)
    );
    let coreway = Start::new()
        .global("allowMinWeightZero = true")
        .serve(&rules);
    check_own(&coreway.get("/"), 500, "Internal Server Error");
}

#[test]
fn a_server_that_does_not_pick_up_in_time_is_a_504() {
    let deaf = Deaf::new();
    let rules = format!(
        "[backends.b.servers.s]\nurl = \"{}\"\n[frontends.f]\nbackend = \"b\"\n",
        deaf.url()
    );
    let coreway = Start::new()
        .table("[forwardingTimeouts]\ndialTimeout = \"300ms\"")
        .serve(&rules);
    check_own(&coreway.get("/"), 504, "Gateway Timeout");
}

#[test]
fn a_server_that_does_not_answer_in_time_is_a_504() {
    let origin = Origin::wire(|exchange| {
        let _ = exchange.rest();
    });
    let coreway = Start::new()
        .table("[forwardingTimeouts]\nresponseHeaderTimeout = \"300ms\"")
        .serve(&site(&origin));
    check_own(&coreway.get("/"), 504, "Gateway Timeout");
}

#[test]
fn an_answer_of_the_proxy_to_head_has_no_body() {
    let origin = Origin::refusing();
    let coreway = Coreway::before(&origin);
    let mut client = coreway.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = client.head_response();
    assert_eq!(
        (response.status, response.field("Content-Length")),
        (502, Some("11"))
    );
    // The connection is still in step: a body would be read as the next answer.
    assert_eq!(client.get("/").status, 502);
}
