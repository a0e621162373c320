//! Servers of a backend, and what of them outlives a reload.

use std::net::IpAddr;

use super::*;
use crate::backend::availability::Why;
use crate::backend::breaker::Seen;
use crate::backend::{PoolKey, Scheme};

/// Servers (name, URL, weight) of backend `b`.
fn with_servers(servers: &[(&str, &str, Option<i64>)]) -> Dynamic {
    let mut dynamic = dynamic(&[("f", "Path:/", 0)]);
    let written = servers.iter().map(|(name, url, weight)| {
        let server = dynamic::Server {
            url: (*url).to_owned(),
            weight: *weight,
            ..dynamic::Server::default()
        };
        ((*name).to_owned(), server)
    });
    dynamic.backends.get_mut("b").expect("there").servers = written.collect();
    dynamic
}

#[test]
fn servers() {
    let written = with_servers(&[
        ("a", "http://one.test:81/ignored", None),
        ("b", "http://ONE.test:81", Some(3)),
        ("c", "http://10.0.0.1", Some(0)),
        ("d", "ftp://two.test", None),
    ]);
    let one = vec![IpAddr::from([10, 0, 0, 9])];
    let world = World {
        addresses: BTreeMap::from([("one.test".to_owned(), one)]),
        ..world()
    };
    let compiled = compiled(&world, written.clone());
    let backend = &compiled.snapshots[0].backends[0];
    let said: Vec<String> = backend
        .servers
        .iter()
        .map(|server| {
            let authority = String::from_utf8_lossy(&server.authority);
            format!(
                "{} {:?} {authority} {:?} {:?}",
                server.name, server.scheme, server.addresses, server.pool
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "b Http ONE.test:81 [10.0.0.9:81] PoolKey(0)",
            "c Http 10.0.0.1 [10.0.0.1:80] PoolKey(1)",
            "d Unsupported two.test [] PoolKey(2)",
        ]
    );
    let picks: Vec<u32> = (0..5)
        .filter_map(|_| next(backend).ok())
        .map(|id| id.0)
        .collect();
    assert_eq!(picks, [0, 0, 0, 1, 2], "weights 3, 1, 1");
    assert!(compiled.host_names.iter().eq(["one.test", "two.test"]));
    let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
    assert_eq!(host_names(&providers, &[]), compiled.host_names);
    assert_eq!(backend.server(ServerId(2)).scheme, Scheme::Unsupported);
}

#[test]
fn weight_zero() {
    let zero = World {
        allow_min_weight_zero: true,
        ..world()
    };
    let written = with_servers(&[("a", "http://a", Some(0)), ("b", "http://b", None)]);
    let backend = &compiled(&zero, written).snapshots[0].backends[0];
    assert_eq!(
        (next(backend), next(backend)),
        (Ok(ServerId(1)), Ok(ServerId(1)))
    );
    let written = with_servers(&[("a", "http://a", Some(0))]);
    assert_eq!(
        next(&compiled(&zero, written).snapshots[0].backends[0]),
        Err(NoServer::AllZero)
    );
    let written = with_servers(&[]);
    assert_eq!(
        next(&compiled(&zero, written).snapshots[0].backends[0]),
        Err(NoServer::Empty)
    );
}

#[test]
fn what_a_reload_keeps() {
    let world = World {
        cores: 2,
        ..world()
    };
    let mut memory = Memory::default();
    let reload = |servers: &[(&str, &str, Option<i64>)], memory: &mut Memory| {
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(with_servers(servers)))]);
        compile(&providers, &world, memory).snapshots
    };
    let pools = |snapshot: &Snapshot| -> Vec<u32> {
        snapshot.backends[0]
            .servers
            .iter()
            .map(|server| server.pool.0)
            .collect()
    };

    let (a, b, c) = (
        ("a", "http://a", None),
        ("b", "http://b", None),
        ("c", "http://c", None),
    );
    let first = reload(&[a, b], &mut memory);
    assert_eq!((first[0].generation, pools(&first[0])), (1, vec![0, 1]));
    assert_eq!(
        next(&first[0].backends[0]),
        Ok(ServerId(0)),
        "core 0 begins with the first server"
    );
    assert_eq!(
        next(&first[1].backends[0]),
        Ok(ServerId(1)),
        "core 1 begins with the second"
    );

    let same = reload(&[a, b], &mut memory);
    assert_eq!(
        next(&same[0].backends[0]),
        Ok(ServerId(1)),
        "an unchanged backend goes on where it was"
    );
    assert!(Arc::ptr_eq(
        &first[1].backends[0].balancer.shard,
        &same[1].backends[0].balancer.shard
    ));

    let changed = reload(&[a, c], &mut memory);
    assert_eq!(
        next(&changed[0].backends[0]),
        Ok(ServerId(0)),
        "a changed one starts again"
    );
    assert_eq!(
        (pools(&changed[1]), &*changed[1].pools_retired),
        (vec![0, 2], &[PoolKey(1)][..])
    );

    let unsettled = reload(&[a, b, c], &mut memory);
    assert_eq!(
        pools(&unsettled[0]),
        [0, 3, 2],
        "a retired key is not used while it may be in use"
    );
    reload(&[a], &mut memory);
    memory.settle(3);
    let settled = reload(
        &[a, ("x", "http://x", None), ("y", "http://y", None)],
        &mut memory,
    );
    assert_eq!(
        pools(&settled[0]),
        [0, 1, 4],
        "only what was retired by then is used again"
    );
    assert_eq!(
        settled[0].pools_retired,
        [PoolKey(1)],
        "what was put back under the key meanwhile goes"
    );
}

#[test]
fn a_server_that_is_away_stays_away_over_a_reload() {
    let world = World {
        cores: 2,
        ..world()
    };
    let mut memory = Memory::default();
    let mut reload = |servers: &[(&str, &str, Option<i64>)]| {
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(with_servers(servers)))]);
        compile(&providers, &world, &mut memory).snapshots
    };
    let (a, b, c) = (
        ("a", "http://a", None),
        ("b", "http://b", None),
        ("c", "http://c", None),
    );
    let first = reload(&[a, b]);
    let away = Arc::clone(&first[1].backends[0].servers[0].availability);
    assert!(away.rule_out(Why::Unhealthy));
    for snapshot in &first {
        assert_eq!(next(&snapshot.backends[0]), Ok(ServerId(1)), "on each core");
    }
    let renamed = reload(&[("z", "http://a", Some(7)), b, c]);
    let three: Vec<_> = (0..3).map(|_| next(&renamed[0].backends[0])).collect();
    assert_eq!(three, [Ok(ServerId(0)), Ok(ServerId(1)), Ok(ServerId(0))]);
    assert!(away.readmit(Why::Unhealthy), "the check goes on");
    assert_eq!(next(&renamed[0].backends[0]), Ok(ServerId(2)), "weight 7");

    away.rule_out(Why::Unhealthy);
    reload(&[b]);
    let back = reload(&[a, b]);
    assert_eq!(next(&back[0].backends[0]), Ok(ServerId(0)), "a new server");
}

#[test]
fn what_is_known_of_bad_servers_outlives_a_reload_that_keeps_them() {
    let mut memory = Memory::default();
    let mut reload = |servers: &[(&str, &str, Option<i64>)], expression, failures| {
        let mut written = with_servers(servers);
        let backend = written.backends.get_mut("b").expect("there");
        backend.circuit_breaker = Some(dynamic::CircuitBreaker {
            expression: format!("NetworkErrorRatio() > {expression}"),
            ..dynamic::CircuitBreaker::default()
        });
        backend.ejection = (failures > 0).then(|| dynamic::Ejection {
            failures,
            ..dynamic::Ejection::default()
        });
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
        let compiled = compile(&providers, &world(), &mut memory);
        let states: Vec<String> = memory
            .breakers()
            .map(|(provider, name, breaker)| format!("{provider} {name} {:?}", breaker.state()))
            .collect();
        let backend = compiled.snapshots[0].backends[0].clone();
        let there = backend
            .servers
            .iter()
            .map(|server| server.availability.is_available());
        (states.join(", "), there.collect::<Vec<_>>(), backend)
    };
    let (a, b, c) = (
        ("a", "http://a", None),
        ("b", "http://b", None),
        ("c", "http://c", None),
    );
    let (state, _, backend) = reload(&[a, b], "0.5", 2);
    assert_eq!(state, "file b Standby");
    let breaker = backend.breaker.as_ref().expect("there");
    let seen = Seen {
        status: 502,
        milliseconds: None,
    };
    assert!(breaker.record(0, seen, 0));
    let ejection = backend.ejection.as_ref().expect("there");
    assert!(!ejection.tried(ServerId(0), true, 0) && ejection.tried(ServerId(0), true, 0));

    let (state, there, _) = reload(&[a, b], "0.5", 2);
    assert_eq!(state, "file b Tripped");
    assert_eq!(there, [false, true]);
    let (state, ..) = reload(&[a, b], "0.6", 2);
    assert_eq!(state, "file b Standby", "another expression");
    let (_, there, backend) = reload(&[a, b, c], "0.6", 3);
    assert_eq!(there, [false, true, true], "among other servers");
    let ejection = backend.ejection.as_ref().expect("there");
    ejection.back(u64::MAX, |id| assert_eq!(id, ServerId(0)));
    assert!(backend.servers[0].availability.is_available());
    for _ in 0..3 {
        ejection.tried(ServerId(1), true, 0);
    }
    let (_, there, _) = reload(&[a, b, c], "0.6", 0);
    assert_eq!(there, [true; 3], "without the option");
}
