//! Fields set and removed on the way, checks of host and TLS, and what browsers are told.

use crate::harness::{Coreway, Origin, Response, Start, answer, site};

fn with(origin: &Origin, lines: &str) -> String {
    format!("{}[frontends.f.headers]\n{lines}\n", site(origin))
}

/// Answers with these fields.
fn origin(fields: &'static str) -> Origin {
    Origin::new(move |_| {
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok").into_bytes()
    })
}

fn ask(coreway: &Coreway, fields: &str) -> Response {
    coreway.exchange(format!(
        "GET /a?b HTTP/1.1\r\nHost: h.test:81\r\n{fields}Connection: close\r\n\r\n"
    ))
}

#[test]
fn custom_fields_are_set_and_removed() {
    let origin = origin("Server: secret\r\nX-Old: a\r\nX-Old: b\r\n");
    let coreway = Coreway::serve(&with(
        &origin,
        "[frontends.f.headers.customRequestHeaders]\nX-New = \"1\"\nX-Gone = \"\"\nHost = \"evil\"\n\
         Content-Length = \"7\"\nX-Forwarded-For = \"7.7.7.7\"\n\
         [frontends.f.headers.customResponseHeaders]\nServer = \"\"\nX-Old = \"c\"\nx-added = \"d\"\n\
         Content-Length = \"9\"\nConnection = \"X-Added\"\n",
    ));
    let response = ask(&coreway, "x-gone: 1\r\nX-GONE: 2\r\nx-new: 3\r\n");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.field("Server"), None);
    assert_eq!(response.field("X-Old"), Some("c"));
    assert_eq!(response.field("X-Added"), Some("d"));
    assert_eq!(response.field("Content-Length"), Some("2"));
    let request = origin.last();
    assert_eq!(request.field("X-New"), Some("1"));
    assert_eq!(request.field("X-Gone"), None);
    assert_eq!(request.field("Content-Length"), None);
    assert_eq!(request.field("X-Forwarded-For"), Some("7.7.7.7, 127.0.0.1"));
    assert_eq!(request.field("Host"), Some(&*origin.address().to_string()));
}

#[test]
fn a_server_cannot_take_our_fields_away() {
    let origin = origin("Connection: X-Frame-Options, X-Own\r\nX-Own: 1\r\n");
    let coreway = Coreway::serve(&with(&origin, "frameDeny = true"));
    let response = ask(&coreway, "");
    assert_eq!(response.field("X-Frame-Options"), Some("DENY"));
    assert_eq!(response.field("X-Own"), None);
}

#[test]
fn browsers_are_told_on_every_answer_of_a_server_and_in_place_of_one() {
    let origin = origin("X-Frame-Options: ALLOW\r\n");
    let lines = "STSSeconds = 31\nSTSIncludeSubdomains = true\nSTSPreload = true\nforceSTSHeader = true\n\
                 customFrameOptionsValue = \"SAMEORIGIN\"\nframeDeny = true\ncontentTypeNosniff = true\n\
                 browserXssFilter = true\nreferrerPolicy = \"no-referrer\"\npublicKey = \"pin\"\n\
                 contentSecurityPolicy = \"script-src $NONCE\"\n\
                 [frontends.f.headers.customResponseHeaders]\nX-Custom = \"1\"\n\
                 [frontends.f.headers.SSLProxyHeaders]\nX-Forwarded-Proto = \"https\"\n";
    let coreway = Coreway::serve(&with(&origin, lines));
    let check = |response: &Response, pins: Option<&str>| {
        for (name, value) in [
            (
                "Strict-Transport-Security",
                "max-age=31; includeSubDomains; preload",
            ),
            ("X-Frame-Options", "SAMEORIGIN"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Xss-Protection", "1; mode=block"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Custom", "1"),
        ] {
            assert_eq!(response.field(name), Some(value), "{name}");
        }
        assert_eq!(response.field("Public-Key-Pins"), pins);
        let policy = response.field("Content-Security-Policy").expect("a policy");
        let nonce = policy.strip_prefix("script-src 'nonce-").expect("a nonce");
        assert_eq!(nonce.len(), 23, "{policy}");
        nonce.to_owned()
    };
    let mut client = coreway.client();
    let nonces: Vec<String> = (0..3).map(|_| check(&client.get("/"), None)).collect();
    assert!(
        nonces[0] != nonces[1] && nonces[1] != nonces[2],
        "{nonces:?}"
    );
    check(&ask(&coreway, "X-Forwarded-Proto: https\r\n"), Some("pin"));

    coreway.reload(&with(&Origin::refusing(), lines));
    let response = ask(&coreway, "");
    assert_eq!(
        (response.status, response.text().as_str()),
        (502, "Bad Gateway")
    );
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    check(&response, None);

    // What we answer before a server is asked has none of them.
    let rules =
        "[backends.b]\n[frontends.f]\nbackend = \"b\"\n[frontends.f.headers]\n".to_owned() + lines;
    coreway.reload(&rules);
    let response = ask(&coreway, "");
    assert_eq!((response.status, response.field("X-Custom")), (503, None));
    assert_eq!(response.field("X-Frame-Options"), None);
}

#[test]
fn hosts_that_are_not_allowed_are_refused() {
    let origin = Origin::new(|_| answer(200, "in"));
    let coreway = Coreway::serve(&with(&origin, "allowedHosts = [\"H.Test:81\"]"));
    assert_eq!(ask(&coreway, "").status, 200);
    let response = coreway.get("/");
    assert_eq!(
        (response.status, response.text().as_str()),
        (500, "Bad Host\n")
    );
    assert_eq!(response.field("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(
        response.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_stranger_cannot_say_which_host_it_asks_for() {
    let origin = origin("");
    let lines = "allowedHosts = [\"in.test\"]\nhostsProxyHeaders = [\"X-Forwarded-Host\"]\n";
    let claim = "X-Forwarded-Host: in.test\r\n";
    for (trusted, expected) in [("127.0.0.0/8", 200), ("10.0.0.0/8", 500)] {
        let coreway = Start::new()
            .entry_point(&format!(
                "[entryPoints.http.forwardedHeaders]\ntrustedIPs = [\"{trusted}\"]"
            ))
            .serve(&with(&origin, lines));
        assert_eq!(ask(&coreway, claim).status, expected, "{trusted}");
        assert_eq!(ask(&coreway, "").status, 500);
    }
}

#[test]
fn clients_without_tls_are_sent_to_https() {
    let origin = origin("Location: http://s.test/x\r\n");
    let lines = "SSLRedirect = true\n[frontends.f.headers.SSLProxyHeaders]\nX-Forwarded-Proto = \"https\"\n";
    let coreway = Coreway::serve(&with(&origin, lines));
    let response = ask(&coreway, "");
    assert_eq!(
        (
            response.status,
            response.field("Location"),
            response.text().as_str()
        ),
        (
            301,
            Some("https://h.test:81/a?b"),
            "<a href=\"https://h.test:81/a?b\">Moved Permanently</a>.\n\n"
        )
    );
    assert_eq!(
        response.field("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    let response = coreway.exchange("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((response.status, response.text().as_str()), (301, ""));
    assert_eq!(ask(&coreway, "X-Forwarded-Proto: https\r\n").status, 200);

    coreway.reload(&with(
        &origin,
        &format!("SSLTemporaryRedirect = true\nSSLHost = \"s.test\"\n{lines}"),
    ));
    let response = ask(&coreway, "");
    assert_eq!(
        (response.status, response.field("Location")),
        (307, Some("https://s.test/a?b"))
    );
    let response = ask(&coreway, "X-Forwarded-Proto: https\r\n");
    assert_eq!(
        response.field("Location"),
        Some("https://s.test/x"),
        "the server's own place"
    );
}

#[test]
fn other_hosts_are_sent_to_the_one_that_is_forced_and_nothing_is_in_development() {
    let origin = origin("");
    let forced = "SSLHost = \"h.test\"\nSSLForceHost = true\n";
    let coreway = Coreway::serve(&with(&origin, forced));
    let response = ask(&coreway, "");
    assert_eq!(
        (response.status, response.field("Location")),
        (301, Some("https://h.test/a?b")),
        "another port is another host"
    );
    let all = "allowedHosts = [\"other\"]\nSSLRedirect = true\nSTSSeconds = 5\nforceSTSHeader = true\n\
               frameDeny = true\nisDevelopment = true\n";
    coreway.reload(&with(&origin, all));
    let response = ask(&coreway, "");
    assert_eq!(response.status, 200);
    assert_eq!(response.field("Strict-Transport-Security"), None);
    assert_eq!(response.field("X-Frame-Options"), Some("DENY"), "no check");
    coreway.reload(&with(&origin, &format!("{forced}isDevelopment = true")));
    assert_eq!(ask(&coreway, "").status, 301, "the host even so");
}

#[test]
fn a_stranger_cannot_say_that_it_uses_tls() {
    let origin = origin("");
    let lines = "SSLRedirect = true\n[frontends.f.headers.SSLProxyHeaders]\nX-Forwarded-Proto = \"https\"\n";
    let coreway = Start::new()
        .entry_point("[entryPoints.http.forwardedHeaders]\ntrustedIPs = [\"10.0.0.0/8\"]")
        .serve(&with(&origin, lines));
    assert_eq!(ask(&coreway, "X-Forwarded-Proto: https\r\n").status, 301);
}
