//! Circuit breakers: a backend that fails is left alone for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use crate::harness::{Coreway, Origin, answer, eventually, eventually_within, site};

const HALF: &str = "ResponseCodeRatio(500, 600, 0, 600) > 0.5";

fn guarded(origin: &Origin, expression: &str) -> String {
    site(origin) + &format!("[backends.b.circuitbreaker]\nexpression = \"{expression}\"\n")
}

/// A server whose status can be changed, and the means for it.
fn moody(status: u16) -> (Origin, Arc<AtomicU16>) {
    let mood = Arc::new(AtomicU16::new(status));
    let told = Arc::clone(&mood);
    let origin = Origin::new(move |_| answer(told.load(Ordering::SeqCst), "from the server"));
    (origin, mood)
}

/// Waits until the breaker has tripped so many times: an answer may be with its client before it is counted.
#[track_caller]
fn await_trips(coreway: &Coreway, count: usize) {
    eventually("it has tripped", || {
        coreway
            .log()
            .matches("Circuit breaker of backend b tripped")
            .count()
            >= count
    });
}

#[test]
fn after_the_first_bad_answer_nobody_is_let_through() {
    let (origin, _) = moody(500);
    let coreway = Coreway::serve(&guarded(&origin, HALF));
    assert_eq!(coreway.get("/").status, 500);
    await_trips(&coreway, 1);
    // Connections that come to all cores.
    for _ in 0..8 {
        let response = coreway.get("/");
        assert_eq!(
            (response.status, response.text().as_str()),
            (503, "Service Unavailable")
        );
        assert_eq!(
            response.field("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
    }
    assert_eq!(origin.requests().len(), 1);
    coreway.await_log(
        "Circuit breaker of backend b tripped, answering 503 for 10 s: \
         ResponseCodeRatio(500, 600, 0, 600) > 0.5 (1 answers from 500 to below 600, to 1)",
    );
}

#[test]
fn a_kept_connection_goes_on_after_a_refusal() {
    let (origin, _) = moody(500);
    let coreway = Coreway::serve(&guarded(&origin, HALF));
    let mut client = coreway.client();
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let statuses: Vec<u16> = (0..3).map(|_| client.exchange(post).status).collect();
    assert_eq!(statuses, [500, 503, 503]);
}

#[test]
fn a_backend_that_recovers_is_asked_again_step_by_step() {
    let (origin, mood) = moody(500);
    let coreway = Coreway::serve(&guarded(&origin, HALF));
    assert_eq!(coreway.get("/").status, 500);
    await_trips(&coreway, 1);
    let tripped = Instant::now();
    mood.store(200, Ordering::SeqCst);
    let mut client = coreway.client();
    let mut refused = 0;
    eventually_within(Duration::from_secs(40), "a request passes", || {
        let passed = client.get("/").status == 200;
        refused += usize::from(!passed);
        passed
    });
    assert!(
        tripped.elapsed() > Duration::from_secs(9),
        "it was left alone for only {:?}",
        tripped.elapsed()
    );
    assert!(refused > 10);
    eventually_within(Duration::from_secs(40), "it has recovered", || {
        client.get("/");
        coreway
            .log()
            .contains("Circuit breaker of backend b has recovered")
    });
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    coreway.await_log("Circuit breaker of backend b is recovering");
}

#[test]
fn servers_that_cannot_be_reached_count_as_network_errors() {
    let origin = Origin::refusing();
    let coreway = Coreway::serve(&guarded(&origin, "NetworkErrorRatio() > 0.5"));
    assert_eq!(coreway.get("/").status, 502);
    await_trips(&coreway, 1);
    assert_eq!(coreway.get("/").status, 503);
    // Bad answers of a server that is there do not.
    let (origin, _) = moody(500);
    coreway.reload(&guarded(&origin, "NetworkErrorRatio() > 0.5"));
    for _ in 0..3 {
        assert_eq!(coreway.get("/").status, 500);
    }
}

#[test]
fn limits_within_a_backend_count_as_its_answers() {
    let (origin, _) = moody(200);
    let rules = guarded(&origin, "ResponseCodeRatio(429, 430, 0, 600) > 0")
        + "[frontends.f.ratelimit]\nextractorfunc = \"client.ip\"\n\
           [frontends.f.ratelimit.rateset.a]\nperiod = \"1000s\"\naverage = 1\nburst = 1\n";
    let coreway = Coreway::serve(&rules);
    let mut client = coreway.client();
    let mut statuses = Vec::new();
    // The refusal is counted at once, and looked at with the first answer of the next tenth of a second.
    eventually_within(Duration::from_secs(20), "it trips", || {
        statuses.push(client.get("/").status);
        statuses.last() == Some(&503)
    });
    assert_eq!(statuses[..2], [200, 429]);
}

#[test]
fn latencies_are_judged() {
    let (origin, _) = moody(200);
    let coreway = Coreway::serve(&guarded(&origin, "LatencyAtQuantileMS(50.0) > 60000"));
    for _ in 0..3 {
        assert_eq!(coreway.get("/").status, 200, "no answer takes a minute");
    }
    coreway.reload(&guarded(&origin, "LatencyAtQuantileMS(50.0) < 60000"));
    assert_eq!(coreway.get("/").status, 200);
    await_trips(&coreway, 1);
    coreway.await_log("(1 of 1 answers in less than 60001 ms)");
    // Should this come so late that the ten seconds are over, it trips anew.
    eventually("nobody is let through", || coreway.get("/").status == 503);
}

#[test]
fn a_reload_changes_nothing_of_an_unchanged_backend() {
    let (origin, _) = moody(500);
    let rules = guarded(&origin, HALF);
    let coreway = Coreway::serve(&rules);
    assert_eq!(coreway.get("/").status, 500);
    await_trips(&coreway, 1);
    coreway.reload(&(rules.clone() + "[frontends.g]\nbackend = \"b\"\n"));
    assert_eq!(coreway.get("/").status, 503, "still tripped");
    coreway.reload(&rules.replace("0.5", "0.6"));
    assert_eq!(coreway.get("/").status, 500, "another breaker begins anew");
    await_trips(&coreway, 2);
    assert_eq!(coreway.get("/").status, 503);
    let (other, _) = moody(200);
    coreway.reload(&guarded(&other, HALF.replace("0.5", "0.6").as_str()));
    assert_eq!(
        coreway.get("/").status,
        200,
        "other servers are judged anew"
    );
}

#[test]
fn an_expression_that_cannot_be_read_leaves_the_frontend_out() {
    let (origin, _) = moody(200);
    let coreway = Coreway::serve(&guarded(&origin, "NetworkErrorRatio() > 0.5 && Foo() > 1"));
    assert_eq!(coreway.get("/").status, 404);
    coreway.await_log(
        "circuitBreaker.expression: column 30: unsupported function: Foo. Skipping frontend f...",
    );
}
