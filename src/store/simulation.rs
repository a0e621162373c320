//! A thousand nodes and one store, in an hour that takes no time: what they ask of it, and when.
//!
//! Owns nothing but tests. The followers and elections are the real ones; only the store is in memory, where a watch is told of
//! a change without asking again. What each real store adds to that is measured in `tests/store/fleet.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::memory::Memory;
use super::{Election, Error, Follower, Kind, Prefix};

const NODES: usize = 1000;

const HOUR: Duration = Duration::from_secs(3600);

/// How many of them were in the busiest tenth of a second.
fn busiest(calls: &[Instant]) -> usize {
    let mut first = 0;
    let lengths = (0..calls.len()).map(|last| {
        while calls[last] - calls[first] > Duration::from_millis(100) {
            first += 1;
        }
        last + 1 - first
    });
    lengths.max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_are_silent_at_rest_and_spread_what_they_ask_after_a_loss() {
    let store = Memory::new(Kind::EtcdV3);
    store.set("t/a", "1");
    let updates = Arc::new(AtomicUsize::new(0));
    let mut elections = Vec::new();
    for number in 0..NODES {
        let prefix = Prefix::new(Kind::EtcdV3, "t");
        let mut follower = Follower::new(Arc::new(store.clone()), prefix, |key| key != "leader");
        let updates = Arc::clone(&updates);
        tokio::spawn(async move {
            loop {
                follower.next().await;
                updates.fetch_add(1, Ordering::Relaxed);
            }
        });
        let key = "t/leader".to_owned();
        let node = format!("n{number}");
        elections.push(Election::start(Arc::new(store.clone()), key, node));
    }
    sleep(Duration::from_secs(60)).await;
    let leaders = || {
        let leads = |election: &&Election| election.leadership().term().is_some();
        elections.iter().filter(leads).count()
    };
    assert_eq!(leaders(), 1);
    assert_eq!(updates.swap(0, Ordering::Relaxed), NODES);

    store.calls();
    sleep(HOUR).await;
    assert_eq!(store.calls().len(), 0, "nothing is polled");

    store.set("t/a", "2");
    sleep(HOUR).await;
    assert_eq!(store.calls().len(), NODES, "each is told, and asks nothing");
    assert_eq!(updates.swap(0, Ordering::Relaxed), NODES);

    store.expire("t/leader");
    sleep(HOUR).await;
    assert_eq!(leaders(), 1, "another one leads, or the same again");
    // The one that stands again, and each is told of the name.
    assert!(store.calls().len() <= NODES + 1);

    store.fail(Some(Error::Unreachable("gone".to_owned())));
    sleep(HOUR).await;
    store.calls();
    sleep(HOUR).await;
    let calls = store.calls();
    // Each asks for its tree and for its lock, every ten seconds.
    let a_second = calls.len() / 3600;
    assert!(
        a_second <= 2 * NODES / 10 + NODES / 100,
        "{a_second} a second"
    );
    let most = busiest(&calls);
    assert!(most <= NODES / 10, "{most} in a tenth of a second");

    store.set("t/a", "3");
    store.fail(None);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(updates.load(Ordering::Relaxed), NODES, "all have it");
    assert_eq!(leaders(), 1);
    let calls = store.calls();
    let most = busiest(&calls);
    eprintln!(
        "{NODES} nodes: {a_second} questions a second during a loss; {} after it, at most {most} in a tenth of a second",
        calls.len()
    );
    assert!(most <= NODES / 10, "{most} in a tenth of a second");
}
