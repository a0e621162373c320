//! What does a new configuration cost a core? From the message in its mailbox to its report that it serves by it: the
//! wake-up, the swap, and the old snapshot on its way back. It must not grow with the configuration.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use coreway::compile::{Memory, World, compile};
use coreway::config::{Dynamic, dynamic};
use coreway::mailbox::{Message, Report};
use coreway::settings::{Settings, Timeouts};
use coreway::snapshot::Snapshot;
use coreway::{proxy, reactor};
use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};

/// The snapshot of so many host rules before one backend.
fn snapshot(frontends: usize) -> Snapshot {
    let server = dynamic::Server {
        url: "http://127.0.0.1:1".to_owned(),
        ..dynamic::Server::default()
    };
    let backend = dynamic::Backend {
        servers: BTreeMap::from([("s".to_owned(), server)]),
        ..dynamic::Backend::default()
    };
    let frontends = (0..frontends).map(|at| {
        let route = dynamic::Route {
            rule: format!("Host:service-{at}.example.com"),
            ..dynamic::Route::default()
        };
        let frontend = dynamic::Frontend {
            backend: "b".to_owned(),
            routes: BTreeMap::from([("r".to_owned(), route)]),
            ..dynamic::Frontend::default()
        };
        (format!("f{at}"), frontend.into())
    });
    let written = Dynamic {
        frontends: frontends.collect(),
        backends: BTreeMap::from([("b".to_owned(), backend.into())]),
        ..Dynamic::default()
    };
    let world = World {
        entry_points: vec!["http".to_owned()],
        default_entry_points: vec!["http".to_owned()],
        cores: 1,
        ..World::default()
    };
    let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
    let mut compiled = compile(&providers, &world, &mut Memory::default());
    compiled.snapshots.pop().expect("there is one core")
}

fn swap(criterion: &mut Criterion) {
    let settings = Settings {
        entry_points: Vec::new(),
        timeouts: Timeouts {
            read: None,
            write: None,
            idle: None,
            dial: None,
            response_header: None,
        },
        upstream_idle_max: 1,
        retry_attempts: None,
        retry_budget: None,
        held: Default::default(),
        descriptors_max: 1024,
        upstream_tls: Default::default(),
        flattens_hosts: false,
        host_name: "bench".to_owned(),
        recent_errors: None,
    };
    let driver = reactor::probe(reactor::Choice::Auto)
        .expect("a driver")
        .driver;
    let (sender, reports) = crossbeam::channel::unbounded();
    let cpu = reactor::cpus_allowed()[0];
    let launched = proxy::launch(&settings, &[cpu], false, driver, &sender).expect("a core");
    let mailbox = &launched.cores[0].mailbox;
    let mut group = criterion.benchmark_group("snapshot_swap");
    for frontends in [10, 10_000] {
        // The snapshot that comes back is the next one to be sent: nothing is built or freed while time counts.
        let spare = RefCell::new(vec![Box::new(snapshot(frontends))]);
        group.bench_function(BenchmarkId::from_parameter(frontends), |bencher| {
            bencher.iter_batched(
                || {
                    spare
                        .borrow_mut()
                        .pop()
                        .unwrap_or_else(|| Box::new(snapshot(frontends)))
                },
                |next| {
                    mailbox
                        .send(Message::Snapshot(next))
                        .expect("the core takes it");
                    loop {
                        match reports.recv().expect("the core answers") {
                            Report::Retired(old) if old.frontends.len() == frontends => {
                                spare.borrow_mut().push(old);
                            }
                            Report::Serving { .. } => break,
                            _ => {}
                        }
                    }
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
    for core in launched.cores {
        let _ = core.mailbox.send(Message::Stop);
        let _ = core.thread.join();
    }
}

criterion_group!(benches, swap);
criterion_main!(benches);
