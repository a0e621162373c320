//! Stores that die, freeze and forget, and what a follower makes of it: nothing is missed, and nothing is emptied.

use std::sync::Arc;

use coreway::store::{self, Changed, Follower, Kind, Status, Store};
use tokio::sync::watch;

use super::{program, run, settings, within};
use crate::harness::server::{Guard, Server, is_installed};

/// A server of the test's own, with a follower of one prefix in it.
struct Followed {
    server: Server,
    store: Arc<dyn Store>,
    key: String,
    follower: Follower,
    status: watch::Receiver<Status>,
}

impl Followed {
    /// `None`: it is not installed. The tree has one key, and the follower has read it.
    async fn new(kind: Kind) -> Option<Self> {
        let program = program(kind).expect("a store with a server");
        if !is_installed(program) {
            return None;
        }
        let server = Server::start(program, Guard::Open);
        let settings = settings(kind, &server.endpoint());
        let store = store::open(&settings).unwrap();
        let key = settings.prefix.key("");
        let follower = Follower::new(Arc::clone(&store), settings.prefix, |_| true);
        let status = follower.status();
        let mut followed = Self {
            server,
            store,
            key,
            follower,
            status,
        };
        followed.put("a", "1").await;
        let update = within(followed.follower.next()).await;
        assert_eq!((update.tree.len(), update.changed), (1, Changed::All));
        Some(followed)
    }

    /// Tries until the store takes it.
    async fn put(&self, path: &str, value: &str) {
        let key = format!("{}{path}", self.key);
        let written = async { while self.store.put(&key, value.as_bytes()).await.is_err() {} };
        within(written).await;
    }

    /// Waits for updates until a key has a value.
    async fn sees(&mut self, path: &str, value: &str) {
        let seen = async {
            while self.follower.next().await.tree.get(path).map(|v| &v[..])
                != Some(value.as_bytes())
            {}
        };
        within(seen).await;
    }

    /// Follows until the status is as wanted; no update may come meanwhile.
    async fn shows(&mut self, wanted: fn(&Status) -> bool) {
        let mut status = self.status.clone();
        tokio::select! {
            shown = within(status.wait_for(wanted)) => drop(shown.unwrap()),
            update = self.follower.next() => panic!("told of {:?}", update.tree),
        }
    }
}

fn a_store_that_dies_loses_no_change(kind: Kind) {
    run(async {
        let Some(mut followed) = Followed::new(kind).await else {
            return;
        };
        followed.server.kill();
        followed.shows(|status| status.error.is_some()).await;
        assert_eq!(followed.status.borrow().keys, 1, "what was read stays");
        assert!(followed.status.borrow().heard_at.is_some());
        followed.server.run();
        followed.put("b", "2").await;
        followed.sees("b", "2").await;
        assert_eq!(followed.status.borrow().error, None);
        assert_eq!(followed.status.borrow().keys, 2);
    });
}

fn a_store_that_freezes_loses_no_change(kind: Kind) {
    run(async {
        let Some(mut followed) = Followed::new(kind).await else {
            return;
        };
        followed.server.pause();
        let key = format!("{}b", followed.key);
        // It is asked while it is frozen; whether this one is written is not known.
        let soon = std::time::Duration::from_millis(300);
        assert!(
            tokio::time::timeout(soon, followed.store.put(&key, b"1"))
                .await
                .is_err()
        );
        followed.server.go_on();
        followed.put("c", "3").await;
        followed.sees("c", "3").await;
    });
}

fn a_store_that_forgets_empties_nothing(kind: Kind) {
    run(async {
        let Some(mut followed) = Followed::new(kind).await else {
            return;
        };
        followed.server.kill();
        followed.server.lose();
        followed.server.run();
        followed.shows(|status| status.is_doubted).await;
        followed.put("c", "3").await;
        let update = within(followed.follower.next()).await;
        assert_eq!(update.changed, Changed::All);
        assert_eq!(update.tree.keys().collect::<Vec<_>>(), ["c"]);
        assert!(!followed.status.borrow().is_doubted);
    });
}

/// The same tests for each store that has a server.
macro_rules! each_server {
    ($($test:ident),* $(,)?) => {
        crate::store::each_store!(@ consul, Consul; $($test),*);
        crate::store::each_store!(@ etcd_v2, EtcdV2; $($test),*);
        crate::store::each_store!(@ etcd_v3, EtcdV3; $($test),*);
        crate::store::each_store!(@ zookeeper, ZooKeeper; $($test),*);
    };
}
each_server!(
    a_store_that_dies_loses_no_change,
    a_store_that_freezes_loses_no_change,
    a_store_that_forgets_empties_nothing,
);
