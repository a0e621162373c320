//! `[retry]`: which failures are tried again, how often, and what the client sees of it.

use crate::harness::{Coreway, Origin, Start, answer, eventually};

/// A backend with these servers, in their order.
fn rules(origins: &[&Origin]) -> String {
    let servers = origins.iter().zip(["A", "B", "C", "D"]);
    let servers: String = servers
        .map(|(origin, name)| format!("[backends.b.servers.{name}]\nurl = \"{}\"\n", origin.url()))
        .collect();
    servers + "[frontends.f]\nbackend = \"b\"\n"
}

fn start(retry: &str) -> Start {
    Start::new().cores(1).flag("--logLevel=DEBUG").table(retry)
}

/// How often something was tried again.
fn retries(coreway: &Coreway) -> usize {
    coreway.log().matches("trying again").count()
}

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn attempts_are_tries() {
    let dead = [Origin::refusing(), Origin::refusing(), Origin::refusing()];
    let all: Vec<&Origin> = dead.iter().collect();
    for (retry, servers, tries) in [
        ("[retry]", 3, 3),
        ("[retry]", 1, 1),
        ("[retry]\nattempts = 1", 3, 1),
        ("[retry]\nattempts = 2", 3, 2),
        ("[retry]\nattempts = 5", 3, 5),
        ("[retry]\nattempts = 4", 1, 4),
        ("", 3, 1),
    ] {
        let coreway = start(retry).serve(&rules(&all[..servers]));
        let response = coreway.exchange(POST);
        assert_eq!(
            (response.status, response.text().as_str()),
            (502, "Bad Gateway"),
            "{retry}: never a 200 for what failed"
        );
        // Lines are written in order, and this is the last one.
        coreway.await_log("frontend f: server, connecting");
        assert_eq!(
            retries(&coreway),
            tries - 1,
            "{retry} with {servers} servers"
        );
    }
}

#[test]
fn the_answer_of_another_try_is_whole() {
    let (dead, alive) = (
        Origin::refusing(),
        Origin::new(|request| answer(200, &request.text())),
    );
    let coreway = start("[retry]").serve(&rules(&[&dead, &alive]));
    let mut client = coreway.client();
    for _ in 0..4 {
        let response = client.exchange(POST);
        assert_eq!(response.text(), "hi");
        assert_eq!(response.field("Content-Length"), Some("2"));
    }
    let body = "x".repeat(100_000);
    let long = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{body}");
    for _ in 0..2 {
        assert!(
            client.exchange(&long).text() == body,
            "a body that is streamed"
        );
    }
    let asked = alive.requests().len();
    assert_eq!(asked, 6);
}

#[test]
fn what_a_server_has_taken_is_not_sent_again() {
    let taken = Origin::wire(|exchange| {
        let _ = exchange.read_body();
        exchange.close();
    });
    let other = Origin::text("other");
    let coreway = start("[retry]\nattempts = 4").serve(&rules(&[&taken, &other]));
    for request in [POST, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut statuses: Vec<u16> = (0..2).map(|_| coreway.exchange(request).status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 502]);
    }
    assert_eq!((taken.requests().len(), other.requests().len()), (2, 2));
    assert_eq!(retries(&coreway), 0);
}

#[test]
fn a_budget_bounds_further_tries() {
    let dead = Origin::refusing();
    let check = |retry: &str, requests: usize, tries: std::ops::RangeInclusive<usize>| {
        let coreway = start(retry).serve(&rules(&[&dead]));
        let mut client = coreway.client();
        for _ in 0..requests {
            assert_eq!(client.get("/").status, 502);
        }
        eventually("the log is complete", || {
            coreway
                .log()
                .matches("frontend f: server, connecting")
                .count()
                == requests
        });
        assert!(tries.contains(&retries(&coreway)), "{}", retries(&coreway));
    };
    // Ten at once, then one for each two requests.
    check("[retry]\nattempts = 3\nbudget = 50", 40, 29..=30);
    check("[retry]\nattempts = 3", 40, 80..=80);
}
