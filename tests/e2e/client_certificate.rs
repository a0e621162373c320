//! What servers are told of the certificate of a client, and that nobody else can tell them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::harness::tls::{Authority, Pair, TlsClient};
use crate::harness::{Coreway, Origin, Start, site};

const FIELDS: [&str; 2] = [
    "X-Forwarded-Tls-Client-Cert",
    "X-Forwarded-Tls-Client-Cert-Infos",
];

/// What a client writes who wants to be somebody else.
const FORGED: &str =
    "x-forwarded-tls-client-cert: forged\r\nX-Forwarded-TLS-Client-Cert-Infos: Subject\r\n";

fn options(lines: &str) -> String {
    format!("[frontends.f.passTLSClientCert]\n{lines}\n")
}

fn told(origin: &Origin) -> [Vec<String>; 2] {
    let request = origin.last();
    FIELDS.map(|name| {
        request
            .head
            .all(name)
            .into_iter()
            .map(str::to_owned)
            .collect()
    })
}

#[test]
fn nobody_but_us_speaks_of_a_certificate() {
    let origin = Origin::text("in");
    let coreway = Coreway::serve(&site(&origin));
    let ask = || {
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\n{FORGED}Connection: close\r\n\r\n");
        assert_eq!(coreway.exchange(request).status, 200);
        assert_eq!(told(&origin), [[""; 0]; 2]);
    };
    ask();
    let all = "pem = true\n[frontends.f.passTLSClientCert.infos]\nsans = true\nnotAfter = true";
    coreway.reload(&(site(&origin) + &options(all)));
    ask();
}

#[test]
fn a_server_is_told_of_the_certificate_that_was_shown() {
    let (ours, clients) = (Authority::new("Test CA"), Authority::new("Client CA"));
    let (edge, own): (Pair, Pair) = (
        ours.issue(&["a.test"]),
        clients.issue(&["client one", "c.test"]),
    );
    let origin = Origin::text("in");
    let subject = "[frontends.f.passTLSClientCert.infos]\nsans = true\n\
                   [frontends.f.passTLSClientCert.infos.subject]\ncommonName = true\n\
                   [frontends.f.passTLSClientCert.infos.issuer]\ncommonName = true";
    let coreway = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\n[[entryPoints.http.tls.certificates]]\n{}\
             [entryPoints.http.tls.clientCA]\nfiles = ['''{}''']\noptional = true\n",
            edge.toml(),
            clients.pem()
        ))
        .serve(&(site(&origin) + &options(&format!("pem = true\n{subject}"))));

    let pem = BASE64_STANDARD.encode(own.der());
    let pem = pem
        .replace('+', "%2B")
        .replace('/', "%2F")
        .replace('=', "%3D");
    let infos = "Subject%3D%22CN%3Dclient+one%22%2CIssuer%3D%22CN%3DClient+CA%22%2CSAN%3Dclient+one%2Cc.test";
    let request = format!("GET / HTTP/1.1\r\nHost: a.test\r\n{FORGED}\r\n");
    let taken_off = format!(
        "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: keep-alive, {}, {}\r\n\r\n",
        FIELDS[0], FIELDS[1]
    );
    let config = ours.client().showing(&own).build();
    // The second connection resumes the session of the first.
    for _ in 0..2 {
        let mut client = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
        for request in [&request, &request, &taken_off] {
            assert_eq!(client.exchange(request).unwrap().status, 200);
            assert_eq!(told(&origin), [[pem.as_str()], [infos]]);
        }
    }
    let mut nobody =
        TlsClient::connect(coreway.address(), &ours.client().build(), "a.test").unwrap();
    assert_eq!(nobody.exchange(&request).unwrap().status, 200);
    assert_eq!(told(&origin), [[""; 0]; 2], "who shows none has none");

    // The same connection, and another selection.
    let mut client = TlsClient::connect(coreway.address(), &config, "a.test").unwrap();
    assert_eq!(client.exchange(&request).unwrap().status, 200);
    coreway
        .reload(&(site(&origin) + &options("[frontends.f.passTLSClientCert.infos]\nsans = true")));
    assert_eq!(client.exchange(&request).unwrap().status, 200);
    assert_eq!(
        told(&origin),
        [vec![], vec!["SAN%3Dclient+one%2Cc.test".to_owned()]]
    );
}
