//! Which server is asked next: the sequences of weighted round robin, exact on one core.

use crate::harness::{Coreway, Origin, Start};

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
