//! What does it cost to find the frontend of a request, and does it depend on how many frontends there are?
//!
//! Requests are drawn from all frontends in a fixed disorder, so a big trie is read where the caches do not help.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use coreway::compile::{Memory, World, compile};
use coreway::config::{Dynamic, dynamic};
use coreway::frontend::Scratch;
use coreway::frontend::trie::Lookup;
use coreway::http::Head;
use coreway::snapshot::Snapshot;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const REQUESTS: usize = 4096;

fn snapshot(rules: impl Iterator<Item = String>) -> Snapshot {
    let mut written = Dynamic::default();
    written
        .backends
        .insert("b".to_owned(), dynamic::Backend::default().into());
    for (at, rule) in rules.enumerate() {
        let route = dynamic::Route {
            rule,
            ..dynamic::Route::default()
        };
        let routes = BTreeMap::from([("r".to_owned(), route)]);
        let frontend = dynamic::Frontend {
            backend: "b".to_owned(),
            routes,
            ..dynamic::Frontend::default()
        };
        written.frontends.insert(format!("f{at}"), frontend.into());
    }
    let world = World {
        entry_points: vec!["http".to_owned()],
        default_entry_points: vec!["http".to_owned()],
        ..World::default()
    };
    let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
    compile(&providers, &world, &mut Memory::default())
        .snapshots
        .remove(0)
}

fn head(authority: &str, target: &str, tenant: &str) -> Head {
    let mut head = Head::default();
    head.set_method(b"GET");
    head.set_authority(authority.as_bytes());
    head.set_target(target.as_bytes());
    for (name, value) in [
        ("Host", authority),
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Cookie", "session=0123456789abcdef"),
        ("X-Tenant", tenant),
    ] {
        head.push(name.as_bytes(), value.as_bytes());
    }
    head
}

fn lookup(
    criterion: &mut Criterion,
    name: &str,
    sizes: &[usize],
    rule: impl Fn(usize) -> String,
    request: impl Fn(usize) -> Head,
) {
    let mut group = criterion.benchmark_group(name);
    for &size in sizes {
        let snapshot = snapshot((0..size).map(&rule));
        let requests: Vec<Head> = (0..REQUESTS).map(|at| request(at * 7919 % size)).collect();
        let mut scratch = Scratch::default();
        for head in &requests {
            assert!(matches!(
                snapshot.tries[0].lookup(head, &mut scratch),
                Lookup::Frontend(_)
            ));
        }
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % REQUESTS;
                black_box(snapshot.tries[0].lookup(&requests[at], &mut scratch))
            });
        });
    }
    group.finish();
}

fn benches(criterion: &mut Criterion) {
    lookup(
        criterion,
        "frontend_lookup/host",
        &[10, 1_000, 100_000],
        |at| format!("Host:service-{at}.example.com"),
        |at| head(&format!("service-{at}.example.com"), "/index.html?q=1", "t"),
    );
    lookup(
        criterion,
        "frontend_lookup/host_tail",
        &[10, 1_000],
        |at| format!("HostRegexp:{{sub:[a-z]+}}.zone-{at}.example.com"),
        |at| head(&format!("www.zone-{at}.example.com"), "/", "t"),
    );
    lookup(
        criterion,
        "frontend_lookup/path_prefix",
        &[10, 1_000, 100_000],
        |at| format!("Host:example.com;PathPrefix:/service-{at}/"),
        |at| head("example.com", &format!("/service-{at}/index.html"), "t"),
    );
    lookup(
        criterion,
        "frontend_lookup/headers",
        &[10, 10_000],
        |at| format!("Headers:X-Tenant,tenant-{at}"),
        |at| head("example.com", "/", &format!("tenant-{at}")),
    );
}

criterion_group!(lookups, benches);
criterion_main!(lookups);
