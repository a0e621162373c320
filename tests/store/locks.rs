//! One holder at a time, in the layout of Traefik 1.7 (spec cluster 3).

use std::sync::Arc;
use std::time::Duration;

use coreway::store::{Expected, Fenced, Kind, Lock, LockRequest, Prefix, Store, Version};
use tokio::time::Instant;

use super::reference::{Node, assert_layout, take_away};
use super::{each_store, run, shared, shared_endpoint, within};

each_store!(
    one_holds_and_the_next_one_follows_at_once,
    a_holder_that_is_gone_leaves_nothing_behind,
    who_holds_it_writes_and_who_lost_it_does_not,
    the_end_of_all_locks_can_be_awaited,
    a_node_of_1_7_and_ours_have_one_leader,
);

fn request(prefix: &Prefix, value: &str) -> LockRequest {
    LockRequest {
        key: prefix.key("leader"),
        value: value.to_owned(),
        ttl: Duration::from_secs(20),
    }
}

async fn value(store: &Arc<dyn Store>, prefix: &Prefix) -> String {
    let pair = within(store.get(&prefix.key("leader"))).await.unwrap();
    String::from_utf8(pair.unwrap().value.to_vec()).unwrap()
}

async fn take(store: &Arc<dyn Store>, prefix: &Prefix, name: &str) -> Box<dyn Lock> {
    within(store.lock(&request(prefix, name))).await.unwrap()
}

fn one_holds_and_the_next_one_follows_at_once(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let one = take(&store, &prefix, "n1").await;
        assert_eq!(value(&store, &prefix).await, "n1");
        assert!(one.fence().held_until() > Instant::now());
        if kind == Kind::BoltDb {
            // A file is for one node: it is its own leader.
            return;
        }
        let next = request(&prefix, "n2");
        let mut waiting = store.lock(&next);
        let soon = Duration::from_millis(300);
        assert!(
            tokio::time::timeout(soon, &mut waiting).await.is_err(),
            "both hold it"
        );
        within(one.release()).await.unwrap();
        let two = within(waiting).await.unwrap();
        assert_eq!(value(&store, &prefix).await, "n2");
        within(two.release()).await.unwrap();
        assert_eq!(
            value(&store, &prefix).await,
            "n2",
            "the last holder stays readable"
        );
        let listed = within(store.list(&prefix)).await.unwrap();
        let names: Vec<_> = listed.pairs.iter().map(|pair| &pair.key).collect();
        assert_eq!(names, ["leader"], "what locks is not listed");
    });
}

fn a_holder_that_is_gone_leaves_nothing_behind(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    if kind == Kind::BoltDb {
        return;
    }
    run(async {
        let one = take(&store, &prefix, "n1").await;
        // Somebody who stops waiting must not be in the way of the next.
        let impatient = request(&prefix, "n2");
        let soon = Duration::from_millis(300);
        assert!(
            tokio::time::timeout(soon, store.lock(&impatient))
                .await
                .is_err()
        );
        drop(one);
        let three = take(&store, &prefix, "n3").await;
        assert_eq!(value(&store, &prefix).await, "n3");
        within(three.release()).await.unwrap();
    });
}

fn who_holds_it_writes_and_who_lost_it_does_not(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let one = take(&store, &prefix, "n1").await;
        let fence = one.fence();
        let key = prefix.key("account/object");
        let write = async |expected, value: &str| {
            within(fence.swap(&key, expected, value.as_bytes()))
                .await
                .unwrap()
        };
        let Fenced::Written(first) = write(Expected::Absent, "1").await else {
            panic!("it is held, and there is no such key");
        };
        let read = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!((read.version, &read.value[..]), (first, &b"1"[..]));
        assert_eq!(write(Expected::Absent, "x").await, Fenced::Conflict);
        let other = Version(first.0 + 1);
        let wrong = write(Expected::Version(other), "x").await;
        assert_eq!(wrong, Fenced::Conflict);
        let Fenced::Written(second) = write(Expected::Version(first), "2").await else {
            panic!("it is held, and nobody else writes");
        };
        if kind == Kind::BoltDb {
            return;
        }
        // The store has forgotten the holder, who cannot know it yet.
        take_away(kind, &shared_endpoint(kind), &prefix.key("leader"));
        let late = write(Expected::Version(second), "x").await;
        assert_eq!(late, Fenced::Lost);
        let read = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!(&read.value[..], b"2");
        // Now it does.
        let mut one = one;
        within(one.lost()).await;
        assert!(fence.held_until() <= Instant::now());
    });
}

fn the_end_of_all_locks_can_be_awaited(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        within(store.settled()).await;
        drop(take(&store, &prefix, "n1").await);
        within(store.settled()).await;
        if kind != Kind::BoltDb {
            // Nobody is in its way.
            let mut node = Node::new(
                kind,
                &shared_endpoint(kind),
                &prefix.key("leader"),
                "theirs",
            );
            assert!(node.leads());
            node.expire();
        }
    });
}

fn a_node_of_1_7_and_ours_have_one_leader(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    if kind == Kind::BoltDb {
        return;
    }
    let (endpoint, key) = (shared_endpoint(kind), prefix.key("leader"));
    run(async {
        // Theirs leads, ours waits.
        let mut theirs = Node::new(kind, &endpoint, &key, "theirs");
        assert!(theirs.leads());
        let request = request(&prefix, "ours");
        let mut waiting = store.lock(&request);
        let soon = Duration::from_millis(300);
        let early = tokio::time::timeout(soon, &mut waiting).await;
        assert!(early.is_err(), "both lead");
        theirs.expire();
        let ours = within(waiting).await.unwrap();
        assert_layout(kind, &endpoint, &key, "ours");
        // Ours leads, theirs waits.
        let mut theirs = Node::new(kind, &endpoint, &key, "theirs");
        assert!(!theirs.leads(), "both lead");
        within(ours.release()).await.unwrap();
        let turn = async {
            while !theirs.leads() {
                tokio::task::yield_now().await;
            }
        };
        within(turn).await;
        assert_eq!(value(&store, &prefix).await, "theirs");
        theirs.expire();
    });
}
