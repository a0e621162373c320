//! What does it cost to choose the server that is asked next?

use std::hint::black_box;

use coreway::backend::balancer::RoundRobin;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick_server");
    for (name, weights) in [
        ("equal/2", vec![1; 2]),
        ("equal/100", vec![1; 100]),
        ("weights/3-2-1", vec![3, 2, 1]),
        ("one_of_100", [vec![0; 99], vec![1]].concat()),
    ] {
        let balancer = RoundRobin::new(weights.len());
        balancer.restart(weights, 0);
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| black_box(black_box(&balancer).next()));
        });
    }
    group.finish();
}

criterion_group!(picks, benches);
criterion_main!(picks);
