//! Which server is asked next: the sequences of weighted round robin, exact on one core, and the other methods.

use crate::harness::{Coreway, Gate, Origin, Start, answer, eventually};

const NAMES: [&str; 3] = ["A", "B", "C"];

/// Serves one backend with servers of these weights (`None`: not written) and returns who answered, in order.
fn sequence(start: Start, weights: &[Option<i32>], requests: usize) -> String {
    let origins: Vec<_> = NAMES[..weights.len()]
        .iter()
        .map(|name| Origin::text(name))
        .collect();
    let coreway = start.cores(1).serve(&rules(&origins, weights));
    let mut client = coreway.client();
    (0..requests).map(|_| client.get("/").text()).collect()
}

fn rules(origins: &[Origin], weights: &[Option<i32>]) -> String {
    let mut rules = String::new();
    for ((origin, name), weight) in origins.iter().zip(NAMES).zip(weights) {
        rules += &format!("[backends.b.servers.{name}]\nurl = \"{}\"\n", origin.url());
        if let Some(weight) = weight {
            rules += &format!("weight = {weight}\n");
        }
    }
    rules + "[frontends.f]\nbackend = \"b\"\n"
}

#[test]
fn weights_interleave_as_documented() {
    let check = |weights: &[i32], expected: &str| {
        let weights: Vec<_> = weights.iter().map(|w| Some(*w)).collect();
        assert_eq!(
            sequence(Start::new(), &weights, expected.len()),
            expected,
            "{weights:?}"
        );
    };
    check(&[10, 1], "AAAAAAAAAABAAAAAAAAAAB");
    check(&[3, 2, 1], "AABABCAABABC");
    check(&[4, 2], "AABAAB");
    check(&[1, 1, 1], "ABCABC");
    check(&[0, 2], "BABBAB");
}

#[test]
fn no_weight_is_one() {
    assert_eq!(sequence(Start::new(), &[None, None], 4), "ABAB");
    assert_eq!(sequence(Start::new(), &[None, Some(2)], 6), "BABBAB");
}

#[test]
fn zero_is_zero_where_it_is_allowed() {
    let allowed = || Start::new().global("allowMinWeightZero = true");
    assert_eq!(sequence(allowed(), &[Some(0), Some(2)], 4), "BBBB");
    assert_eq!(
        sequence(allowed(), &[None, Some(1)], 4),
        "ABAB",
        "not written is not zero"
    );
}

#[test]
fn a_server_that_is_drained_finishes_what_it_has_and_gets_nothing_new() {
    for method in ["wrr", "drr", "leastconn", "p2c", "hash"] {
        let gate = Gate::default();
        let held = gate.clone();
        let slow = Origin::new(move |request| {
            if request.head.target() == "/slow" {
                held.wait();
            }
            answer(200, "A")
        });
        let origins = [slow, Origin::text("B")];
        let with = |weight| {
            rules(&origins, &[Some(weight), Some(1)])
                + &format!("[backends.b.loadBalancer]\nmethod = \"{method}\"\n")
        };
        // All weight is on the first, so that it gets the request that stays.
        let only = rules(&origins[..1], &[Some(1)]);
        let coreway = Start::new()
            .global("allowMinWeightZero = true")
            .serve(&only);
        let mut client = coreway.client();
        client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it is under way", || !origins[0].requests().is_empty());
        coreway.reload(&with(1));
        coreway.reload(&with(0));
        for _ in 0..8 {
            assert_eq!(coreway.get("/").text(), "B", "{method}");
        }
        gate.open();
        assert_eq!(client.response().text(), "A", "{method}");
    }
}

#[test]
fn a_negative_weight_takes_the_frontend_out() {
    let origins = [Origin::text("A")];
    let coreway = Coreway::serve(&rules(&origins, &[Some(-1)]));
    assert_eq!(coreway.get("/").status, 404);
    coreway.await_log("Weight should be >= 0");
}

#[test]
fn every_core_together_keeps_the_proportions() {
    let origins: Vec<_> = NAMES[..2].iter().map(|name| Origin::text(name)).collect();
    let coreway = Coreway::serve(&rules(&origins, &[Some(3), Some(1)]));
    for _ in 0..10 {
        let mut client = coreway.client();
        for _ in 0..40 {
            assert_eq!(client.get("/").status, 200);
        }
    }
    let (a, b) = (origins[0].requests().len(), origins[1].requests().len());
    assert!((290..=310).contains(&a) && a + b == 400, "A {a}, B {b}");
}

#[test]
fn without_retry_only_what_is_idempotent_is_tried_again() {
    let origins = [Origin::text("A"), Origin::refusing()];
    let coreway = Start::new().cores(1).serve(&rules(&origins, &[None, None]));
    let mut client = coreway.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "A", "the next server is asked once");
    }
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let mut statuses: Vec<_> = (0..4).map(|_| client.exchange(post).status).collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 200, 502, 502],
        "the dead server costs its share"
    );
}

#[test]
fn with_retry_the_next_server_is_asked() {
    let origins = [Origin::text("A"), Origin::refusing()];
    let coreway = Start::new()
        .cores(1)
        .table("[retry]")
        .serve(&rules(&origins, &[None, None]));
    let mut client = coreway.client();
    for _ in 0..6 {
        assert_eq!(client.get("/").text(), "A");
        let post = client.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(
            post.text(),
            "A",
            "nothing was sent, so even a POST may be tried again"
        );
    }
    assert_eq!(origins[0].last().text(), "hi");
}

/// A backend with these servers, and these lines of its load balancer.
fn with_method(origins: &[Origin], lines: &str) -> String {
    rules(origins, &vec![None; origins.len()]) + "[backends.b.loadBalancer]\n" + lines + "\n"
}

#[test]
fn the_least_busy_server_is_asked() {
    let gate = Gate::default();
    let slow = {
        let gate = gate.clone();
        Origin::new(move |request| {
            if request.head.target() == "/slow" {
                gate.wait();
            }
            answer(200, "A")
        })
    };
    let origins = [slow, Origin::text("B")];
    let coreway = Start::new()
        .cores(1)
        .serve(&with_method(&origins, "method = \"LeastConn\""));
    let mut client = coreway.client();
    let turns: String = (0..4).map(|_| client.get("/").text()).collect();
    assert_eq!(turns, "ABAB", "as long as nobody is busy");
    let mut busy = coreway.client();
    busy.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the slow one is busy", || {
        origins[0].targets().iter().any(|target| target == "/slow")
    });
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "B");
    }
    gate.open();
    assert_eq!(busy.response().text(), "A");
    let turns: String = (0..4).map(|_| client.get("/").text()).collect();
    assert_eq!(turns.matches('A').count(), 2, "{turns}");
}

#[test]
fn of_two_the_less_busy_one() {
    let origins: Vec<_> = NAMES.iter().map(|name| Origin::text(name)).collect();
    let coreway = Coreway::serve(&with_method(&origins, "method = \"p2c\""));
    let mut client = coreway.client();
    for _ in 0..300 {
        assert_eq!(client.get("/").status, 200);
    }
    for origin in &origins {
        let count = origin.requests().len();
        assert!((50..150).contains(&count), "{count}");
    }
}

#[test]
fn what_has_one_hash_has_one_server() {
    let origins: Vec<_> = NAMES.iter().map(|name| Origin::text(name)).collect();
    let ask = |coreway: &Coreway, field: &str, key: usize| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{field}{key}\r\n\r\n");
        coreway.exchange(request).text()
    };
    let homes = |coreway: &Coreway, field: &str| -> String {
        (0..12).map(|key| ask(coreway, field, key)).collect()
    };
    let hash = |extractor: &str| {
        format!(
            "method = \"hash\"\n[backends.b.loadBalancer.hash]\nextractorFunc = \"{extractor}\""
        )
    };
    let by_field = with_method(&origins, &hash("request.header.X-Key"));
    let coreway = Coreway::serve(&by_field);
    let before = homes(&coreway, "X-Key: ");
    assert_eq!(homes(&coreway, "x-key: "), before, "on every core");
    assert!(NAMES.iter().all(|name| before.contains(name)), "{before}");
    let again = Coreway::serve(&by_field);
    assert_eq!(homes(&again, "X-Key: "), before, "and by every process");

    let two = with_method(&origins[..2], &hash("request.header.X-Key"));
    coreway.reload(&two);
    for (before, after) in before.chars().zip(homes(&coreway, "X-Key: ").chars()) {
        assert!(before == 'C' || before == after, "only the keys of C move");
    }

    coreway.reload(&with_method(&origins, &hash("request.cookie.id")));
    assert_eq!(homes(&coreway, "Cookie: a=b; id="), before, "the same text");
    coreway.reload(&with_method(&origins, &hash("client.ip")));
    let home = ask(&coreway, "X-Key: ", 0);
    assert!((0..5).all(|key| ask(&coreway, "X-Key: ", key) == home));
}

#[test]
fn a_hash_of_nothing_takes_the_frontend_out() {
    let origins = [Origin::text("A")];
    let check = |lines: &str, message: &str| {
        let lines = format!("method = \"hash\"\n[backends.b.loadBalancer.hash]\n{lines}");
        let coreway = Coreway::serve(&with_method(&origins, &lines));
        assert_eq!(coreway.get("/").status, 404);
        coreway.await_log(message);
    };
    check(
        "extractorFunc = \"request.cookie.\"",
        "loadBalancer.hash: unsupported extractorFunc: 'request.cookie.'",
    );
    check(
        "balanceFactor = 100",
        "loadBalancer.hash: balanceFactor should be 0 or above 100, not 100",
    );
}

#[test]
fn a_method_that_is_none_is_wrr() {
    let origins: Vec<_> = NAMES.iter().map(|name| Origin::text(name)).collect();
    let rules = with_method(&origins, "method = \"zzz\"");
    let coreway = Start::new().cores(1).serve(&rules);
    let mut client = coreway.client();
    let order: String = (0..6).map(|_| client.get("/").text()).collect();
    assert_eq!(order, "ABCABC");
    coreway.await_log("invalid load-balancing method 'zzz', using wrr");
}

#[test]
fn every_method_serves_before_it_knows_anything() {
    let origins: Vec<_> = NAMES.iter().map(|name| Origin::text(name)).collect();
    for method in ["WRR", "DRR", "LEASTCONN", "P2C", "HASH"] {
        let lines = format!("method = \"{method}\"\nslowStart = \"10s\"");
        let coreway = Coreway::serve(&with_method(&origins, &lines));
        for _ in 0..6 {
            assert_eq!(coreway.get("/").status, 200, "{method}");
        }
    }
}
