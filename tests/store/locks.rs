//! One holder at a time, in the layout of Traefik 1.7 (spec cluster 3).

use std::sync::Arc;
use std::time::Duration;

use coreway::store::{Kind, Lock, LockRequest, Prefix, Store};
use tokio::time::Instant;

use super::{each_store, run, shared, within};

each_store!(
    one_holds_and_the_next_one_follows_at_once,
    a_holder_that_is_gone_leaves_nothing_behind,
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
        assert!(one.held_until() > Instant::now());
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
