//! Three processes that share a store: who leads, and who follows when the leader is stopped, killed, paused or cut off.
//!
//! A store's own time limits are longer than a test may be, so here the store is made to forget a leader. The tests that wait
//! for them, and that count what a large fleet asks of a store, print figures for `docs/clustering.md` and never judge:
//!
//! `cargo test --release --test tests store::fleet -- --ignored --nocapture --test-threads 1`, with
//! `COREWAY_TEST_STORE=EtcdV2` (or another of them) for one store alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use coreway::store::{self, Election, Expected, Fenced, Follower, Kind, Lock, LockRequest, Prefix};

use super::reference::{Node, queue_length, requests, take_away};
use super::{each_store, program, run, settings, shared, shared_endpoint, within};
use crate::harness::server::{Guard, Program, Server, is_installed};
use crate::harness::wait::pass;
use crate::harness::{Coreway, Start, eventually, eventually_within};

each_store!(
    a_leader_that_is_stopped_killed_or_paused_is_followed,
    old_and_new_nodes_have_one_leader,
);

const LEADS: &str = "elected leader ♚";
const WORKS: &str = "elected worker ♝";

/// A process whose configuration is below this prefix.
fn node(kind: Kind, endpoint: &str, prefix: &Prefix, name: &str) -> Coreway {
    let section = match kind {
        Kind::Consul => "consul",
        Kind::EtcdV2 | Kind::EtcdV3 => "etcd",
        Kind::ZooKeeper => "zookeeper",
        Kind::BoltDb => "boltdb",
    };
    let version = match kind {
        Kind::EtcdV3 => "useAPIV3 = true",
        _ => "",
    };
    Start::new()
        .cores(1)
        .table(&format!(
            "[cluster]\nnode = '{name}'\n[{section}]\nendpoint = '{endpoint}'\nprefix = '{}'\n{version}",
            prefix.name(),
        ))
        .begin("")
}

fn count(coreway: &Coreway, text: &str) -> usize {
    coreway.log().matches(text).count()
}

/// Waits until one of them has been elected that was not before, and takes it out.
#[track_caller]
fn next_leader(fleet: &mut Vec<Coreway>) -> Coreway {
    next_leader_within(Duration::from_secs(10), fleet)
}

#[track_caller]
fn next_leader_within(time: Duration, fleet: &mut Vec<Coreway>) -> Coreway {
    let mut at = None;
    eventually_within(time, "one of them leads", || {
        at = fleet.iter().position(|node| count(node, LEADS) > 0);
        at.is_some()
    });
    fleet.swap_remove(at.expect("it was found"))
}

fn a_leader_that_is_stopped_killed_or_paused_is_followed(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    let (endpoint, key) = (shared_endpoint(kind), prefix.key("leader"));
    let names: &[&str] = match kind {
        // A file is for one node.
        Kind::BoltDb => &["n1"],
        _ => &["n1", "n2", "n3", "n4"],
    };
    let mut fleet: Vec<_> = names
        .iter()
        .map(|name| node(kind, &endpoint, &prefix, name))
        .collect();
    let first = next_leader(&mut fleet);
    if kind == Kind::BoltDb {
        return;
    }
    assert!(fleet.iter().all(|node| count(node, LEADS) == 0), "two lead");
    // Stopped: it makes room by itself, long before the store would have forgotten it.
    first.signal("TERM");
    let second = next_leader(&mut fleet);
    assert_eq!(first.exit_code(), 0);
    assert!(fleet.iter().all(|node| count(node, LEADS) == 0), "two lead");
    // Killed.
    drop(second);
    take_away(kind, &endpoint, &key);
    let third = next_leader(&mut fleet);
    assert!(fleet.iter().all(|node| count(node, LEADS) == 0), "two lead");
    // Paused: when it goes on, another one leads, and it knows.
    third.signal("STOP");
    take_away(kind, &endpoint, &key);
    next_leader(&mut fleet);
    assert_eq!(count(&third, WORKS), 1);
    third.signal("CONT");
    eventually("it knows that it leads no longer", || {
        count(&third, WORKS) == 2
    });
    assert_eq!(count(&third, LEADS), 1);
}

/// A fleet on its way from Traefik 1.7.
fn old_and_new_nodes_have_one_leader(kind: Kind) {
    let Some((_, prefix)) = shared(kind) else {
        return;
    };
    if kind == Kind::BoltDb {
        return;
    }
    let (endpoint, key) = (shared_endpoint(kind), prefix.key("leader"));
    let mut old = Node::new(kind, &endpoint, &key, "old");
    assert!(old.leads());
    let coreway = node(kind, &endpoint, &prefix, "new");
    coreway.await_log(WORKS);
    if matches!(kind, Kind::EtcdV3 | Kind::ZooKeeper) {
        eventually("it stands in the queue", || {
            queue_length(kind, &endpoint, &key) == 2
        });
    }
    assert_eq!(count(&coreway, LEADS), 0, "both lead");
    old.expire();
    coreway.await_log(LEADS);
    let mut old = Node::new(kind, &endpoint, &key, "old");
    assert!(!old.leads(), "both lead");
    coreway.signal("TERM");
    eventually("the old node leads", || old.leads());
    assert_eq!(coreway.exit_code(), 0);
    old.expire();
}

/// Shorter than any fleet's, which only etcd grants.
const SHORT: Duration = Duration::from_secs(2);

/// A process that was paused, or cut off, knows by its clock alone that its time is over.
fn a_holder_that_was_away_knows_before_it_writes(kind: Kind) {
    if !is_installed(Program::Etcd) {
        return;
    }
    let server = Server::start(Program::Etcd, Guard::Open);
    let settings = settings(kind, &server.endpoint());
    let request = LockRequest {
        key: settings.prefix.key("leader"),
        value: "n1".to_owned(),
        ttl: SHORT,
    };
    run(async {
        let store = store::open(&settings).unwrap();
        let mut lock = within(store.lock(&request)).await.unwrap();
        let fence = lock.fence();
        // Nothing of ours runs meanwhile.
        pass(SHORT + Duration::from_millis(100));
        assert!(fence.held_until() <= tokio::time::Instant::now());
        let late = within(fence.swap("/object", Expected::Absent, b"x")).await;
        assert_eq!(late, Ok(Fenced::Lost));
        within(lock.lost()).await;
        // The store is cut off: it ends for us when it can end for the others, not later.
        let mut lock: Box<dyn Lock> = within(store.lock(&request)).await.unwrap();
        let fence = lock.fence();
        server.pause();
        let until = fence.held_until();
        within(lock.lost()).await;
        assert!(until <= tokio::time::Instant::now());
        assert!(fence.held_until() <= tokio::time::Instant::now());
        server.go_on();
        within(async { while store.lock(&request).await.is_err() {} }).await;
    });
}

#[test]
fn a_holder_in_etcd_v2_that_was_away_knows_before_it_writes() {
    a_holder_that_was_away_knows_before_it_writes(Kind::EtcdV2);
}

#[test]
fn a_holder_in_etcd_v3_that_was_away_knows_before_it_writes() {
    a_holder_that_was_away_knows_before_it_writes(Kind::EtcdV3);
}

/// Those that are installed and asked for.
fn servers() -> impl Iterator<Item = (Kind, Program)> {
    let all = [Kind::Consul, Kind::EtcdV2, Kind::EtcdV3, Kind::ZooKeeper];
    let wanted = std::env::var("COREWAY_TEST_STORE").ok();
    all.into_iter().filter_map(move |kind| {
        let name = format!("{kind:?}");
        let program = program(kind).filter(|program| is_installed(*program))?;
        let is_wanted = wanted.as_ref().is_none_or(|wanted| *wanted == name);
        is_wanted.then_some((kind, program))
    })
}

#[test]
#[ignore = "minutes; prints figures"]
fn fail_over() {
    for (kind, program) in servers() {
        let server = Server::start(program, Guard::Open);
        let endpoint = server.endpoint();
        let prefix = settings(kind, &endpoint).prefix;
        let begin = Instant::now();
        let mut fleet: Vec<_> = ["n1", "n2", "n3", "n4"]
            .map(|name| node(kind, &endpoint, &prefix, name))
            .into();
        let first = next_leader(&mut fleet);
        let started = begin.elapsed();
        let minute = Duration::from_secs(60);
        let begin = Instant::now();
        first.signal("TERM");
        let second = next_leader_within(minute, &mut fleet);
        let stopped = begin.elapsed();
        // Long enough that all others wait.
        pass(Duration::from_secs(8));
        let begin = Instant::now();
        second.signal("KILL");
        let third = next_leader_within(minute, &mut fleet);
        let killed = begin.elapsed();
        pass(Duration::from_secs(8));
        let begin = Instant::now();
        third.signal("STOP");
        let fourth = next_leader_within(minute, &mut fleet);
        let paused = begin.elapsed();
        let begin = Instant::now();
        third.signal("CONT");
        eventually("it knows", || count(&third, WORKS) == 2);
        let known = begin.elapsed();
        // Cut off from the store for longer than its term.
        let begin = Instant::now();
        server.pause();
        eventually_within(minute, "it knows", || count(&fourth, WORKS) == 2);
        let cut = begin.elapsed();
        let begin = Instant::now();
        server.go_on();
        let again = || count(&fourth, LEADS) + count(&third, LEADS) == 3;
        eventually_within(minute, "one leads again", again);
        let back = begin.elapsed();
        eprintln!(
            "{kind}: start {started:.1?}, SIGTERM {stopped:.2?}, SIGKILL {killed:.1?}, SIGSTOP {paused:.1?} \
             (known after SIGCONT {known:.3?}), store cut off: gave up {cut:.1?}, led again after {back:.1?}"
        );
    }
}

/// Nodes of the large fleet, all in this process.
const NODES: usize = 200;

#[test]
#[ignore = "minutes; prints figures"]
fn a_large_fleet() {
    for (kind, program) in servers() {
        let server = Server::start(program, Guard::Open);
        let endpoint = server.endpoint();
        let settings = settings(kind, &endpoint);
        let (prefix, key) = (settings.prefix.clone(), settings.prefix.key("leader"));
        run(async {
            let writer = store::open(&settings).unwrap();
            for number in 0..200 {
                let key = prefix.key(&format!("frontends/f{number}/backend"));
                writer.put(&key, b"b").await.unwrap();
            }
            let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
            let mut elections = Vec::new();
            for number in 0..NODES {
                let store = store::open(&settings).unwrap();
                let mut follower =
                    Follower::new(Arc::clone(&store), prefix.clone(), |key| key != "leader");
                elections.push(Election::start(store, key.clone(), format!("n{number}")));
                let told = told.clone();
                tokio::spawn(async move {
                    loop {
                        follower.next().await;
                        told.send(()).unwrap();
                    }
                });
            }
            let minute = Duration::from_secs(60);
            for _ in 0..NODES {
                tokio::time::timeout(minute, heard.recv()).await.unwrap();
            }
            // Until the last places in the queue are taken.
            tokio::time::sleep(Duration::from_secs(10)).await;
            let before = requests(kind, &endpoint);
            tokio::time::sleep(minute).await;
            let rest = requests(kind, &endpoint) - before;
            let before = requests(kind, &endpoint);
            let begin = Instant::now();
            let changed = prefix.key("frontends/f0/backend");
            writer.put(&changed, b"c").await.unwrap();
            let mut times = Vec::new();
            for _ in 0..NODES {
                heard.recv().await.unwrap();
                times.push(begin.elapsed());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            let change = requests(kind, &endpoint) - before;
            let leads = |elections: &[Election]| {
                elections
                    .iter()
                    .position(|election| election.leadership().term().is_some())
            };
            let leader = leads(&elections).expect("one leads");
            let before = requests(kind, &endpoint);
            let begin = Instant::now();
            elections.swap_remove(leader).resign().await;
            let resigned = begin.elapsed();
            while leads(&elections).is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let followed = begin.elapsed();
            tokio::time::sleep(Duration::from_secs(2)).await;
            let election = requests(kind, &endpoint) - before;
            eprintln!(
                "{kind}, {NODES} nodes: at rest {:.1} requests/s; a change: {change} requests, seen by half after {:.0?}, \
                 by all after {:.0?}; a new leader: {election} requests, after {followed:.0?} (resigned {resigned:.0?})",
                rest as f64 / minute.as_secs_f64(),
                times[NODES / 2],
                times[NODES - 1],
            );
        });
    }
}
