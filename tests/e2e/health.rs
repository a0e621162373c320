//! Health checks: servers that fail are left alone, and come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::harness::tls::Authority;
use crate::harness::{
    Coreway, Gate, Origin, Start, answer, eventually, eventually_within, holds_for, site,
};

/// A server that says who it is, and answers `/health` with the status in the other hand.
fn server(name: &'static str) -> (Origin, Arc<AtomicU16>) {
    let health = Arc::new(AtomicU16::new(200));
    let told = Arc::clone(&health);
    let origin = Origin::new(move |request| {
        if request.head.target().starts_with("/health") {
            answer(told.load(Ordering::SeqCst), "")
        } else {
            answer(200, name)
        }
    });
    (origin, health)
}

/// One backend with servers A, B, ... of these weights, and a health check with these options.
fn rules(servers: &[(&Origin, u32)], check: &str) -> String {
    let mut rules = format!("[backends.b.healthcheck]\npath = \"/health\"\n{check}\n");
    for ((origin, weight), name) in servers.iter().zip(["A", "B", "C"]) {
        rules += &format!(
            "[backends.b.servers.{name}]\nurl = \"{}\"\nweight = {weight}\n",
            origin.url()
        );
    }
    rules + "[frontends.f]\nbackend = \"b\"\n"
}

const OFTEN: &str = "interval = \"100ms\"";
const ONCE: &str = "interval = \"1h\"";

/// How often a server was asked whether it works.
fn checks(origin: &Origin) -> usize {
    let targets = origin.targets();
    targets
        .iter()
        .filter(|target| target.starts_with("/health"))
        .count()
}

/// Who answers the next requests on one connection.
fn answers(coreway: &Coreway, count: usize) -> String {
    let mut client = coreway.client();
    (0..count).map(|_| client.get("/").text()).collect()
}

#[test]
fn a_failing_server_is_left_alone_and_returns_with_its_weight() {
    let ((a, health), (b, _)) = (server("A"), server("B"));
    let coreway = Start::new()
        .cores(1)
        .serve(&rules(&[(&a, 3), (&b, 1)], OFTEN));
    eventually("both were checked", || checks(&a) > 0 && checks(&b) > 0);
    assert_eq!(answers(&coreway, 8), "AAABAAAB");
    health.store(500, Ordering::SeqCst);
    eventually("A is not asked any more", || {
        answers(&coreway, 8) == "BBBBBBBB"
    });
    coreway.await_log(&format!(
        "Health check failed: Remove from server list. Backend: \\\"b\\\" URL: \\\"{}\\\" Weight: 3 Reason: received error status code: 500",
        a.url()
    ));
    coreway.await_log(&format!(
        "Health check still failing. Backend: \\\"b\\\" URL: \\\"{}\\\" Reason: received error status code: 500",
        a.url()
    ));
    health.store(399, Ordering::SeqCst);
    eventually("A is asked again", || answers(&coreway, 4).contains('A'));
    assert_eq!(
        answers(&coreway, 8).matches('A').count(),
        6,
        "three of four"
    );
    coreway.await_log(&format!(
        "Health check up: Returning to server list. Backend: \\\"b\\\" URL: \\\"{}\\\" Weight: 3",
        a.url()
    ));
}

#[test]
fn a_server_that_dies_costs_nobody_a_request_once_it_is_noticed() {
    let ((mut a, _), (b, _)) = (server("A"), server("B"));
    let coreway = Coreway::serve(&rules(&[(&a, 1), (&b, 1)], OFTEN));
    a.stop();
    coreway.await_log("Reason: HTTP request failed: Get ");
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    for _ in 0..4 {
        let mut client = coreway.client();
        for _ in 0..4 {
            assert_eq!(client.exchange(post).text(), "B", "on every core");
        }
    }
    a.start();
    eventually("A is asked again", || answers(&coreway, 4).contains('A'));
}

#[test]
fn a_server_that_stalls_is_left_alone() {
    let gate = Gate::default();
    let held = gate.clone();
    let a = Origin::new(move |request| {
        if request.head.target() == "/health" {
            held.wait();
        }
        answer(200, "A")
    });
    let (b, _) = server("B");
    let coreway = Coreway::serve(&rules(&[(&a, 1), (&b, 1)], OFTEN));
    eventually_within(Duration::from_secs(30), "A is not asked any more", || {
        answers(&coreway, 8) == "BBBBBBBB"
    });
    coreway.await_log("/health: no answer within 5s");
    gate.open();
    eventually("A is asked again", || answers(&coreway, 4).contains('A'));
}

#[test]
fn nobody_is_left() {
    let ((a, one), (b, other)) = (server("A"), server("B"));
    let coreway = Coreway::serve(&rules(&[(&a, 1), (&b, 1)], OFTEN));
    one.store(404, Ordering::SeqCst);
    other.store(400, Ordering::SeqCst);
    eventually("nobody is asked", || coreway.get("/").status == 503);
    assert_eq!(coreway.get("/").text(), "Service Unavailable");
    one.store(204, Ordering::SeqCst);
    eventually("A is asked again", || coreway.get("/").status == 200);
    assert_eq!(answers(&coreway, 4), "AAAA");
}

#[test]
fn the_question_is_as_configured() {
    let ((a, _), (other, _)) = (server("A"), server("other"));
    let check = format!(
        "interval = \"1h\"\npath = \"/health?x=1\"\nport = {}\nhostname = \"check.test\"\n\
         [backends.b.healthcheck.headers]\nX-Own = \"yes\"\nHost = \"no\"\n",
        other.address().port()
    );
    let rules = rules(&[(&a, 1)], &check).replacen("path = \"/health\"\n", "", 1);
    let coreway = Coreway::serve(&rules);
    eventually("the other port is asked", || checks(&other) == 1);
    let asked = other.last();
    assert_eq!(asked.head.start, "GET /health?x=1 HTTP/1.1");
    assert_eq!(asked.field("Host"), Some("check.test"));
    assert_eq!(asked.field("X-Own"), Some("yes"));
    assert_eq!(asked.field("User-Agent"), Some("Coreway"));
    assert_eq!(coreway.get("/").text(), "A");
    assert_eq!(checks(&a), 0);
}

#[test]
fn a_server_is_asked_once_for_all_cores_entry_points_and_backends() {
    let (a, _) = server("A");
    let check = "[backends.N.healthcheck]\npath = \"/health\"\ninterval = \"1h\"\n[backends.N.servers.s]\nurl = \"URL\"\n";
    let backends: String = ["b", "c"]
        .map(|name| check.replace('N', name).replace("URL", &a.url()))
        .concat();
    let rules = backends
        + "[frontends.f]\nbackend = \"b\"\nentrypoints = [\"http\", \"second\"]\n\
           [frontends.g]\nbackend = \"c\"\n[frontends.g.routes.r]\nrule = \"Path:/c\"\n";
    let coreway = Start::new()
        .table("[entryPoints.second]\naddress = \"127.0.0.1:0\"")
        .serve(&rules);
    eventually("it is asked", || checks(&a) == 1);
    // A reload changes nothing of that.
    coreway.reload(
        &(rules + "[frontends.h]\nbackend = \"b\"\n[frontends.h.routes.r]\nrule = \"Path:/h\"\n"),
    );
    assert_eq!(coreway.get("/h").status, 200);
    holds_for(Duration::from_millis(300), "asked once", || checks(&a) == 1);
}

#[test]
fn a_reload_leaves_no_gap() {
    let ((a, health), (b, _)) = (server("A"), server("B"));
    health.store(500, Ordering::SeqCst);
    let before = rules(&[(&a, 1), (&b, 1)], ONCE);
    let coreway = Coreway::serve(&before);
    coreway.await_log("Health check failed");
    let with_another = before.clone() + "[frontends.g]\nbackend = \"b\"\n";
    coreway.reload(&with_another);
    assert_eq!(answers(&coreway, 4), "BBBB", "what is known stays known");
    assert_eq!(checks(&a), 1);
    // Another question: it stays away until it has answered that.
    coreway.reload(&before.replace("/health", "/health?new"));
    assert_eq!(answers(&coreway, 4), "BBBB");
    eventually("the new question is asked", || checks(&a) == 2);
    // Without a check it is a server like the others.
    let check = "[backends.b.healthcheck]\npath = \"/health\"\ninterval = \"1h\"\n";
    coreway.reload(&before.replace(check, ""));
    assert!(answers(&coreway, 4).contains('A'));
}

#[test]
fn checks_of_a_backend_that_is_gone_end() {
    let ((a, _), (b, _)) = (server("A"), server("B"));
    let coreway = Coreway::serve(&rules(&[(&a, 1)], OFTEN));
    eventually("A is checked again and again", || checks(&a) > 2);
    coreway.reload(&site(&b));
    // One may have been on its way.
    let (then, _) = (checks(&a), coreway.get("/"));
    holds_for(Duration::from_millis(500), "A is left alone", || {
        checks(&a) <= then + 1
    });
}

#[test]
fn redirects_are_followed() {
    let origin = Origin::new(|request| match request.head.target() {
        "/health" => redirect("/a/b?c"),
        "/a/b?c" => redirect("../ok"),
        "/loop" => redirect("/loop"),
        "/ok" => answer(204, ""),
        _ => answer(200, "in"),
    });
    fn redirect(to: &str) -> Vec<u8> {
        format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    }
    let coreway = Coreway::serve(&rules(&[(&origin, 1)], OFTEN));
    eventually("the last redirect is followed", || {
        origin.targets().contains(&"/ok".to_owned())
    });
    assert_eq!(coreway.get("/").status, 200);
    coreway.reload(&rules(&[(&origin, 1)], OFTEN).replace("/health", "/loop"));
    coreway.await_log("/loop: stopped after 10 redirects");
    eventually("nobody is asked", || coreway.get("/").status == 503);
}

#[test]
fn a_server_with_tls_is_believed_as_by_requests() {
    let authority = Authority::new("Server CA");
    let (origin, _) = server("A");
    let secure = Start::new()
        .entry_point(&format!(
            "[entryPoints.http.tls]\nsniStrict = true\n[[entryPoints.http.tls.certificates]]\n{}",
            authority.issue(&["localhost"]).toml()
        ))
        .serve(&site(&origin));
    let check = |scheme: &str, more: &str, globals: &str| {
        let port = secure.address().port();
        let rules = format!(
            "[backends.b.servers.s]\nurl = \"{scheme}://localhost:{port}\"\n\
             [backends.b.healthcheck]\npath = \"/health\"\n{OFTEN}\n{more}\n[frontends.f]\nbackend = \"b\"\n"
        );
        let before = checks(&origin);
        let coreway = Start::new().global(globals).serve(&rules);
        let mut healthy = false;
        eventually("it is judged", || {
            healthy = checks(&origin) > before;
            healthy || coreway.log().contains("Health check failed")
        });
        if !healthy {
            coreway.await_log("invalid peer certificate");
        }
        healthy
    };
    let believing = format!("rootCAs = ['''{}''']", authority.pem());
    assert!(check("https", "", &believing));
    assert!(check("http", "scheme = \"https\"", &believing));
    assert!(check("https", "", "insecureSkipVerify = true"));
    assert!(!check("https", "", ""));
}

#[test]
fn an_interval_that_cannot_be_read_is_the_default() {
    let (a, _) = server("A");
    let coreway = Start::new()
        .table("[healthCheck]\ninterval = \"100ms\"")
        .serve(&rules(&[(&a, 1)], "interval = \"10\""));
    coreway
        .await_log("Illegal health check interval for backend 'b': time: missing unit in duration");
    eventually("it is checked as often as the default says", || {
        checks(&a) > 3
    });
    coreway.reload(&rules(&[(&a, 1)], "port = 99999"));
    assert_eq!(coreway.get("/").status, 404);
    coreway.await_log("healthCheck: port should be from 1 to 65535, not 99999");
}
