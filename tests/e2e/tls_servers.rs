//! Servers that speak TLS: which are believed, under which name, and that HTTP does not notice.
//!
//! The server with TLS is a second process of the program, whose own TLS has tests of its own.

use crate::harness::tls::{Authority, Pair, TlsClient};
use crate::harness::{Client, Coreway, Origin, Start, answer, site};

/// Serves `origin` with TLS, for clients that ask for the name of the certificate or for none.
fn server(origin: &Origin, pair: &Pair) -> Coreway {
    Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}",
            pair.toml()
        ))
        .serve(&site(origin))
}

/// Forwards everything to `host` on the port of `server`.
fn before(server: &Coreway, host: &str, globals: &str) -> Coreway {
    let port = server.address().port();
    Start::new().global(globals).serve(&format!(
        "[backends.b.servers.s]\nurl = \"https://{host}:{port}\"\n[frontends.f]\nbackend = \"b\"\npassHostHeader = true\n"
    ))
}

fn believing(authority: &Authority) -> String {
    format!("rootCAs = ['''{}''']", authority.pem())
}

#[test]
fn a_server_is_spoken_to_over_tls() {
    let authority = Authority::new("Server CA");
    let origin = Origin::new(|request| answer(200, &request.text()));
    // Strict: it has to be told the name.
    let server = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\nsniStrict = true\n[[entryPoints.http.tls.certificates]]\n{}",
            authority.issue(&["localhost"]).toml()
        ))
        .serve(&site(&origin));
    let globals = format!("rootCAs = [\"/nope\", '''{}''']", authority.pem());
    let edge = before(&server, "localhost", &globals);
    edge.await_log("rootCAs: /nope: failed to find any PEM data in certificate input");
    let mut client = edge.client();
    assert_eq!(client.get("/a").status, 200);
    for bytes in [10, 100_000, 1 << 20] {
        let body: String = ('a'..='z').cycle().take(bytes).collect();
        let answer = client.exchange(format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n{body}"
        ));
        assert!(answer.text() == body, "{bytes} bytes");
    }
    assert_eq!(
        origin.last().field("X-Forwarded-Proto"),
        Some("http"),
        "said by the first, believed by the second"
    );
    assert_eq!(origin.connections(), 1, "one connection all the way");
}

#[test]
fn an_address_is_a_name_too() {
    let authority = Authority::new("Server CA");
    let origin = Origin::text("hello");
    let server = server(&origin, &authority.issue(&["127.0.0.1"]));
    let edge = before(&server, "127.0.0.1", &believing(&authority));
    assert_eq!(edge.get("/").text(), "hello");
}

#[test]
fn a_server_that_is_not_believed_is_not_asked() {
    let authority = Authority::new("Server CA");
    let origin = Origin::text("hello");
    let server = server(&origin, &authority.issue(&["localhost"]));
    let check = |host: &str, globals: &str, status: u16| {
        let edge = before(&server, host, globals);
        let told = edge.get("/");
        assert_eq!(told.status, status, "{host}, {globals}: {}", told.text());
        if status == 502 {
            assert_eq!(told.text(), "Bad Gateway");
            edge.await_log("TLS: invalid peer certificate");
        }
    };
    // Nobody knows this authority, or this name is not in the certificate.
    check("localhost", "", 502);
    check("localhost", &believing(&Authority::new("Server CA")), 502);
    check("127.0.0.1", &believing(&authority), 502);
    assert!(origin.requests().is_empty());
    check("localhost", &believing(&authority), 200);
    check("127.0.0.1", "insecureSkipVerify = true", 200);
}

#[test]
fn a_server_without_tls_is_a_bad_gateway() {
    let origin = Origin::text("hello");
    let edge = Coreway::serve(&format!(
        "[backends.b.servers.s]\nurl = \"https://{}\"\n[frontends.f]\nbackend = \"b\"\n",
        origin.address()
    ));
    assert_eq!(edge.get("/").status, 502);
    assert!(origin.requests().is_empty());
}

#[test]
fn a_tunnel_to_a_server_with_tls_ends_in_order() {
    let authority = Authority::new("Server CA");
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
    let server = server(&origin, &authority.issue(&["localhost"]));
    let edge = before(&server, "localhost", &believing(&authority));
    let mut client: Client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly");
    assert!(client.head().start.starts_with("HTTP/1.1 101"));
    assert_eq!(client.exactly(5), b"early");
    client.half_close();
    assert_eq!(client.rest(), b"goodbye");
}

#[test]
fn a_cut_answer_of_a_server_does_not_look_whole() {
    let authority = Authority::new("Server CA");
    let origin = Origin::wire(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        exchange.reset();
    });
    let server = server(&origin, &authority.issue(&["localhost"]));
    let edge = before(&server, "localhost", &believing(&authority));
    let mut client = edge.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    // Over HTTP/2 the end may overtake what came before it: then nothing was answered.
    if let Ok(told) = client.try_response() {
        assert_eq!(told.status, 502);
    }
}

/// A server that lets in who has a certificate of `clients`, and tells its origin which one.
fn picky(origin: &Origin, pair: &Pair, clients: &Authority) -> Coreway {
    let tell = "[frontends.f.passTLSClientCert]\n[frontends.f.passTLSClientCert.infos.subject]\ncommonName = true\n";
    Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}[entryPoints.http.tls.clientCA]\n\
             files = ['''{}''']\n",
            pair.toml(),
            clients.pem()
        ))
        .serve(&(site(origin) + tell))
}

#[test]
fn a_server_is_shown_the_certificate_of_the_entry_point() {
    let (servers, ours) = (Authority::new("Server CA"), Authority::new("Our CA"));
    let origin = Origin::text("in");
    let server = picky(&origin, &servers.issue(&["localhost"]), &ours);
    let own = ours.issue_rsa(&["a.test"]);
    let rules = |names: &str| {
        format!(
            "[backends.b.servers.s]\nurl = \"https://localhost:{}\"\n\
             [frontends.shown]\nbackend = \"b\"\npassTLSCert = true\nentryPoints = [{names}]\n\
             [frontends.shown.routes.r]\nrule = \"Path:/shown\"\n\
             [frontends.plain]\nbackend = \"b\"\nentryPoints = [\"http\", \"clear\"]\n",
            server.address().port()
        )
    };
    // The entry point's clientCA says which servers are believed; `rootCAs` says so for the others.
    let edge = Start::new()
        .global(&believing(&servers))
        .table("[entryPoints.clear]\naddress = \"127.0.0.1:0\"")
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}[entryPoints.http.tls.clientCA]\n\
             files = ['''{}''']\noptional = true\n",
            own.toml(),
            servers.pem()
        ))
        .serve(&rules("\"http\", \"clear\""));
    edge.await_log(
        "passTLSCert: no TLS provided by entry point clear. Skipping frontend shown there...",
    );
    let config = ours.client().build();
    let mut client = TlsClient::connect(edge.address(), &config, "a.test").unwrap();
    for _ in 0..3 {
        let answer = client.get("/shown").unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"in"[..]));
        assert_eq!(
            origin.last().field("X-Forwarded-Tls-Client-Cert-Infos"),
            Some("Subject%3D%22CN%3Da.test%22")
        );
        // A connection that has shown one is not used for anybody else.
        assert_eq!(client.get("/").unwrap().status, 502);
    }
    assert_eq!(origin.connections(), 1, "it is kept");
    assert_eq!(origin.requests().len(), 3);
    // Where there is no TLS there is nothing to show: another frontend has the request.
    let told = crate::harness::get(edge.address_of("clear"), "a.test", "/shown");
    assert_eq!(told.status, 502);

    edge.reload(&rules("\"clear\""));
    edge.await_log("passTLSCert: no TLS provided. Skipping frontend shown...");
    assert_eq!(client.get("/shown").unwrap().status, 502);
}
