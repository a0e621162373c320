//! How long does a configuration take to become snapshots?

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use coreway::compile::{Memory, World, compile};
use coreway::config::{Dynamic, dynamic};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

/// Frontends as they are found in the wild: most ask for a host and a prefix, some strip, a few have an expression.
fn written(size: usize) -> Dynamic {
    let mut written = Dynamic::default();
    for at in 0..size {
        let rule = match at % 10 {
            0 => format!("Host:api-{at}.example.com;PathPrefixStrip:/v1"),
            1 => format!("Host:www-{at}.example.com,{at}.example.org;PathPrefix:/a,/b"),
            2 => format!("HostRegexp:{{sub:[a-z]+}}.zone-{at}.example.com"),
            3 => format!("Host:old-{at}.example.com;ReplacePathRegex:^/old/(.*) /{at}/$1"),
            _ => format!("Host:service-{at}.example.com;PathPrefix:/"),
        };
        let route = dynamic::Route {
            rule,
            ..dynamic::Route::default()
        };
        let frontend = dynamic::Frontend {
            backend: format!("b{at}"),
            routes: BTreeMap::from([("r".to_owned(), route)]),
            ..dynamic::Frontend::default()
        };
        written.frontends.insert(format!("f{at}"), frontend.into());
        let servers = (0..2).map(|server| {
            let url = format!("http://10.{}.{}.{server}:8080", at / 256 % 256, at % 256);
            (
                format!("s{server}"),
                dynamic::Server {
                    url,
                    ..dynamic::Server::default()
                },
            )
        });
        let backend = dynamic::Backend {
            servers: servers.collect(),
            ..dynamic::Backend::default()
        };
        written.backends.insert(format!("b{at}"), backend.into());
    }
    written
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for size in [10, 1_000, 10_000] {
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written(size)))]);
        let world = World {
            entry_points: vec!["http".to_owned()],
            default_entry_points: vec!["http".to_owned()],
            cores: 2,
            ..World::default()
        };
        let mut memory = Memory::default();
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            // What comes out is freed elsewhere, as in the program.
            bencher.iter_with_large_drop(|| black_box(compile(&providers, &world, &mut memory)));
        });
    }
    group.finish();
}

criterion_group!(compilations, benches);
criterion_main!(compilations);
