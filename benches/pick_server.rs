//! What does it cost to choose the server that is asked next?
//!
//! Every method with 2, 10, 100 and 1,000 servers of different weights, and the cookie that has chosen already; then the
//! worst case of round robin: one heavy server among many light ones, and one server with a weight among many without.

use std::hint::black_box;
use std::sync::Arc;

use coreway::backend::availability::{Availability, Changes};
use coreway::backend::balancer::{Ask, Balancer, Bound, Hash, Method};
use coreway::backend::load::{Load, Loads};
use coreway::backend::rebalance::{Meter, Rebalancer};
use coreway::backend::ring::{HashBy, Ring};
use coreway::backend::shard::Shard;
use coreway::backend::sticky::Sticky;
use coreway::http::Head;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// As on a machine of some size: others' counts are summed once in 100 ms.
const CORES: usize = 8;

fn loads(servers: usize) -> Loads {
    (0..servers).map(|_| Arc::new(Load::new(CORES))).collect()
}

fn balancer(weights: &[u32], method: Method) -> Balancer {
    let changes = Arc::<Changes>::default();
    Balancer {
        method,
        weights: weights.into(),
        availability: weights
            .iter()
            .map(|_| Arc::new(Availability::new(Arc::clone(&changes))))
            .collect(),
        changes,
        slow_start: None,
        sticky: None,
        shard: Arc::new(Shard::new(0, weights.len(), true, false)),
    }
}

fn url(server: usize) -> String {
    format!("http://10.1.{}.{}:8080", server / 250, server % 250)
}

fn hash(weights: &[u32], bound: Option<u32>) -> Method {
    let servers = weights.iter().enumerate();
    let servers: Vec<_> = servers.map(|(at, weight)| (url(at), *weight)).collect();
    Method::Hash(Box::new(Hash {
        by: HashBy::parse("request.header.X-Session").expect("a header"),
        ring: Arc::new(Ring::new(&servers)),
        bound: bound.map(|percent| Bound {
            percent,
            loads: loads(weights.len()),
        }),
    }))
}

fn drr(weights: &[u32]) -> Method {
    let meters = weights.iter().map(|_| Arc::new(Meter::new(CORES)));
    Method::Rebalanced(Arc::new(Rebalancer::new(weights.into(), meters.collect())))
}

fn sticky(weights: &[u32]) -> Balancer {
    let urls: Vec<_> = (0..weights.len()).map(url).collect();
    let mut balancer = balancer(weights, Method::RoundRobin);
    balancer.sticky = Some(Sticky::new("_8a7bc", &urls, "; Path=/"));
    balancer
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick_server");
    let mut head = Head::default();
    head.push(b"X-Session", b"5a1f0c3e-77d2-4f10-9d0e-1b7b6c9ab9d4");
    let mut bench = |name: &str, servers: usize, head: &Head, balancer: &Balancer| {
        group.bench_function(BenchmarkId::new(name, servers), |bencher| {
            let mut now = 1;
            bencher.iter(|| {
                // A request every 10 us.
                now += 10_000;
                let ask = Ask {
                    request: black_box(head),
                    client: [10, 0, 0, 1].into(),
                    now,
                };
                let choice = black_box(balancer).choose(&ask, &[]).expect("a server");
                balancer.answered(black_box(choice.id), 200, || now);
            });
        });
    };
    for servers in [2, 10, 100, 1000] {
        let weights: Vec<u32> = [3, 1, 2, 1].into_iter().cycle().take(servers).collect();
        let of = |method| balancer(&weights, method);
        bench("wrr", servers, &head, &of(Method::RoundRobin));
        bench("drr", servers, &head, &of(drr(&weights)));
        let least = Method::LeastConnections(loads(servers));
        bench("leastconn", servers, &head, &of(least));
        bench(
            "p2c",
            servers,
            &head,
            &of(Method::TwoChoices(loads(servers))),
        );
        bench("hash", servers, &head, &of(hash(&weights, None)));
        bench(
            "hash_bounded",
            servers,
            &head,
            &of(hash(&weights, Some(150))),
        );
        let mut pinned = Head::default();
        let cookie = format!("theme=dark; _8a7bc={}", url(servers - 1));
        pinned.push(b"Cookie", cookie.as_bytes());
        bench("sticky", servers, &pinned, &sticky(&weights));
        let heavy = [vec![1_000_000], vec![1; servers - 1]].concat();
        bench(
            "wrr_one_heavy",
            servers,
            &head,
            &balancer(&heavy, Method::RoundRobin),
        );
        let alone = [vec![0; servers - 1], vec![1]].concat();
        bench(
            "wrr_one_of_all",
            servers,
            &head,
            &balancer(&alone, Method::RoundRobin),
        );
    }
    group.finish();
}

criterion_group!(picks, benches);
criterion_main!(picks);
