//! What every store does, whatever it is.

use std::sync::Arc;

use coreway::store::{Change, Expected, Kind, Pair, Position, Prefix, Seen, Store, Swap, Watch};

use super::{each_store, run, shared, within};

each_store!(
    what_was_written_is_read,
    a_tree_is_sorted_and_whole_segments_only,
    names_and_values_are_kept_as_they_are,
    a_tree_that_does_not_exist_is_empty,
    a_conditional_write_sees_others,
    deleting_takes_what_is_below,
    directory_markers_are_no_error,
    a_watch_tells_every_change,
    a_watch_goes_on_where_another_ended,
    a_watch_that_is_not_asked_for_a_while_loses_nothing,
    a_big_tree_is_read_whole,
    changes_of_a_big_tree_are_told_as_they_are,
);

/// Keys and values of a tree.
async fn tree(store: &Arc<dyn Store>, prefix: &Prefix) -> Vec<(String, String)> {
    shown(&within(store.list(prefix)).await.unwrap().pairs)
}

fn shown(pairs: &[Pair]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|pair| {
            (
                pair.key.clone(),
                String::from_utf8_lossy(&pair.value).into_owned(),
            )
        })
        .collect()
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn put(store: &Arc<dyn Store>, prefix: &Prefix, path: &str, value: &str) {
    within(store.put(&prefix.key(path), value.as_bytes()))
        .await
        .unwrap();
}

fn what_was_written_is_read(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let key = prefix.key("backends/b/servers/s/url");
        assert_eq!(within(store.get(&key)).await, Ok(None));
        put(&store, &prefix, "backends/b/servers/s/url", "http://1").await;
        let first = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!(&first.value[..], b"http://1");
        put(&store, &prefix, "backends/b/servers/s/url", "http://2").await;
        let second = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!(&second.value[..], b"http://2");
        assert_ne!(first.version, second.version);
        within(store.delete(&key)).await.unwrap();
        assert_eq!(within(store.get(&key)).await, Ok(None));
        within(store.delete(&key)).await.unwrap();
    });
}

fn a_tree_is_sorted_and_whole_segments_only(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let sibling = Prefix::new(kind, &format!("{}2", prefix.name()));
        put(&store, &sibling, "a", "not ours").await;
        for path in ["b/c", "a", "b/a", "b-x", "c/10", "c/9"] {
            put(&store, &prefix, path, path).await;
        }
        let expected = ["a", "b-x", "b/a", "b/c", "c/10", "c/9"].map(|path| (path, path));
        assert_eq!(tree(&store, &prefix).await, texts(&expected));
        let listing = within(store.list(&prefix)).await.unwrap();
        let one = within(store.get(&prefix.key("a"))).await.unwrap().unwrap();
        assert_eq!(listing.pairs[0].version, one.version);
    });
}

fn names_and_values_are_kept_as_they_are(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let pairs = [
            ("Case/X-Foo", "Host:a.b;Path:/x,{id:\\d+}"),
            ("dots.and spaces/é+%?#&=", "\"quoted\" \n\t and é ☃"),
            ("empty", ""),
        ];
        for (path, value) in pairs {
            put(&store, &prefix, path, value).await;
        }
        assert_eq!(tree(&store, &prefix).await, texts(&pairs));
        for (path, value) in pairs {
            let pair = within(store.get(&prefix.key(path))).await.unwrap().unwrap();
            assert_eq!(&pair.value[..], value.as_bytes(), "{path}");
        }
        if kind != Kind::EtcdV2 {
            let bytes: Vec<u8> = (0..=255).collect();
            let key = prefix.key("bytes");
            within(store.put(&key, &bytes)).await.unwrap();
            let pair = within(store.get(&key)).await.unwrap().unwrap();
            assert_eq!(&pair.value[..], bytes);
        }
    });
}

fn a_tree_that_does_not_exist_is_empty(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        assert_eq!(tree(&store, &prefix).await, []);
        let seen = within(store.watch(&prefix, None).next()).await.unwrap();
        assert!(matches!(seen, Seen::Whole(listing) if listing.pairs.is_empty()));
        within(store.delete_below(&prefix)).await.unwrap();
    });
}

fn a_conditional_write_sees_others(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let key = prefix.key("object");
        let swap = async |expected, value: &str| {
            within(store.swap(&key, expected, value.as_bytes()))
                .await
                .unwrap()
        };
        let Swap::Written(first) = swap(Expected::Absent, "1").await else {
            panic!("nobody else writes");
        };
        assert_eq!(swap(Expected::Absent, "x").await, Swap::Conflict);
        let read = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!(read.version, first, "the version is that of a read");
        let Swap::Written(second) = swap(Expected::Version(first), "2").await else {
            panic!("nobody else writes");
        };
        assert_ne!(first, second);
        assert_eq!(swap(Expected::Version(first), "x").await, Swap::Conflict);
        put(&store, &prefix, "object", "3").await;
        assert_eq!(swap(Expected::Version(second), "x").await, Swap::Conflict);
        let read = within(store.get(&key)).await.unwrap().unwrap();
        assert_eq!(&read.value[..], b"3");
        within(store.delete(&key)).await.unwrap();
        assert_eq!(
            swap(Expected::Version(read.version), "x").await,
            Swap::Conflict
        );
    });
}

fn deleting_takes_what_is_below(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let sibling = Prefix::new(kind, &format!("{}2", prefix.name()));
        put(&store, &sibling, "a", "stays").await;
        for path in ["a", "b/c/d", "b/e"] {
            put(&store, &prefix, path, path).await;
        }
        within(store.delete_below(&prefix)).await.unwrap();
        assert_eq!(tree(&store, &prefix).await, []);
        assert_eq!(tree(&store, &sibling).await, texts(&[("a", "stays")]));
    });
}

fn directory_markers_are_no_error(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        put(&store, &prefix, "api/", "").await;
        put(&store, &prefix, "api/", "").await;
        put(&store, &prefix, "api/dashboard", "true").await;
        put(&store, &prefix, "api/", "").await;
        let values: Vec<_> = tree(&store, &prefix)
            .await
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect();
        assert_eq!(values, texts(&[("api/dashboard", "true")]));
    });
}

/// A tree that follows what a watch says, without a [`Follower`](coreway::store::Follower) between.
struct Mirror {
    watch: Box<dyn Watch>,
    pairs: Vec<(String, String)>,
    position: Position,
    /// How often it was told the whole tree.
    wholes: usize,
}

impl Mirror {
    async fn new(store: &Arc<dyn Store>, prefix: &Prefix, since: Option<Position>) -> Self {
        let mut mirror = Self {
            watch: store.watch(prefix, since),
            pairs: Vec::new(),
            position: since.unwrap_or_default(),
            wholes: 0,
        };
        if since.is_none() {
            mirror.step().await;
        }
        mirror
    }

    async fn step(&mut self) {
        let seen = within(self.watch.next()).await.unwrap();
        assert!(seen.position() >= self.position, "a position went back");
        self.position = seen.position();
        match seen {
            Seen::Quiet(_) => {}
            Seen::Whole(listing) => {
                self.wholes += 1;
                self.pairs = shown(&listing.pairs);
            }
            Seen::Changes { changes, .. } => {
                for change in changes {
                    let key = match &change {
                        Change::Put(pair) => &pair.key,
                        Change::Delete(key) => key,
                    };
                    self.pairs.retain(|(known, _)| known != key);
                    if let Change::Put(pair) = change {
                        self.pairs.extend(shown(&[pair]));
                    }
                }
                self.pairs.sort();
            }
        }
    }

    /// Waits until the tree is this.
    async fn becomes(&mut self, expected: &[(&str, &str)]) {
        let expected = texts(expected);
        let reached = async {
            while self.pairs != expected {
                self.step().await;
            }
        };
        let reached = tokio::time::timeout(super::PATIENCE, reached).await;
        assert!(reached.is_ok(), "{:?} is not {expected:?}", self.pairs);
    }
}

fn a_watch_tells_every_change(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        put(&store, &prefix, "frontends/f/backend", "b").await;
        let mut mirror = Mirror::new(&store, &prefix, None).await;
        assert_eq!(mirror.pairs, texts(&[("frontends/f/backend", "b")]));
        // Deep below, which Traefik 1.7 never noticed in ZooKeeper.
        put(&store, &prefix, "frontends/f/routes/r/rule", "Host:a").await;
        let one = [
            ("frontends/f/backend", "b"),
            ("frontends/f/routes/r/rule", "Host:a"),
        ];
        mirror.becomes(&one).await;
        put(&store, &prefix, "frontends/f/backend", "c").await;
        let two = [
            ("frontends/f/backend", "c"),
            ("frontends/f/routes/r/rule", "Host:a"),
        ];
        mirror.becomes(&two).await;
        let key = prefix.key("frontends/f/routes/r/rule");
        within(store.delete(&key)).await.unwrap();
        let gone = async {
            while mirror.pairs.iter().any(|(_, value)| value == "Host:a") {
                mirror.step().await;
            }
        };
        within(gone).await;
        within(store.delete_below(&prefix)).await.unwrap();
        mirror.becomes(&[]).await;
    });
}

fn a_watch_goes_on_where_another_ended(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        put(&store, &prefix, "a", "1").await;
        let mut mirror = Mirror::new(&store, &prefix, None).await;
        put(&store, &prefix, "b", "2").await;
        mirror.becomes(&[("a", "1"), ("b", "2")]).await;
        let (position, pairs) = (mirror.position, mirror.pairs.clone());
        drop(mirror);
        put(&store, &prefix, "c", "3").await;
        within(store.delete(&prefix.key("a"))).await.unwrap();
        let mut mirror = Mirror::new(&store, &prefix, Some(position)).await;
        mirror.pairs = pairs;
        mirror.becomes(&[("b", "2"), ("c", "3")]).await;
    });
}

fn a_watch_that_is_not_asked_for_a_while_loses_nothing(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        put(&store, &prefix, "a", "1").await;
        let mut mirror = Mirror::new(&store, &prefix, None).await;
        for value in 0..20 {
            // Given up again and again in the middle of a wait.
            let soon = std::time::Duration::from_millis(5);
            drop(tokio::time::timeout(soon, mirror.watch.next()).await);
            put(&store, &prefix, "b", &value.to_string()).await;
        }
        put(&store, &prefix, "c", "end").await;
        // What the given-up calls returned is lost to this test only, never the end state.
        let mut mirror = Mirror {
            pairs: texts(&[("a", "1"), ("b", "19")]),
            ..mirror
        };
        mirror
            .becomes(&[("a", "1"), ("b", "19"), ("c", "end")])
            .await;
    });
}

fn a_big_tree_is_read_whole(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let value = "x".repeat(2000);
        let mut expected = Vec::new();
        for number in 0..300 {
            let path = format!("frontends/f{number:03}/routes/r/rule");
            put(&store, &prefix, &path, &value).await;
            expected.push((path, value.clone()));
        }
        assert_eq!(tree(&store, &prefix).await, expected);
    });
}

/// Names that begin alike, that others go on after, and that are not ASCII.
fn name_of(number: usize) -> String {
    match number % 5 {
        0 => format!("backends/b{number}/servers/s/url"),
        1 => format!("backends/b{number}/servers/s/weight"),
        2 => format!("frontends/{number}é.example/backend"),
        3 => format!("frontends/ü{number}/routes/r/rule"),
        _ => format!("top{number}"),
    }
}

fn changes_of_a_big_tree_are_told_as_they_are(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let pairs: Vec<_> = (0..1500)
            .map(|number| (prefix.key(&name_of(number)), "0".into()))
            .collect();
        within(store.put_all(&pairs)).await.unwrap();
        let mut mirror = Mirror::new(&store, &prefix, None).await;
        // Some change, some are new, some go; what they are is the same each time.
        let mut random = 7usize;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        for round in 0..20 {
            let mut writing = tokio::task::JoinSet::new();
            for _ in 0..=next(5) {
                let (store, mut path) = (Arc::clone(&store), name_of(next(1800)));
                // What is left of a folder without a key is told by a listing of etcd v2, and not by its watch.
                let is_gone = next(3) == 0 && (kind != Kind::EtcdV2 || path.starts_with("top"));
                if kind == Kind::Consul && next(4) == 0 {
                    // A value, and others below it; or only a folder's mark.
                    path = ["backends/b20", "backends/b20/", "top4/x", ""][next(4)].to_owned();
                }
                let key = prefix.key(&path);
                // All at once, so that some are written while others are being read.
                writing.spawn(async move {
                    if is_gone {
                        within(store.delete(&key)).await.unwrap();
                    } else {
                        within(store.put(&key, format!("{round}").as_bytes()))
                            .await
                            .unwrap();
                    }
                });
            }
            if round % 2 == 0 {
                writing.join_all().await;
            } else {
                let _ = tokio::join!(
                    writing.join_all(),
                    tokio::time::timeout(std::time::Duration::from_millis(5), mirror.step())
                );
            }
            let expected = tree(&store, &prefix).await;
            let expected: Vec<_> = expected
                .iter()
                .map(|(key, value)| (&**key, &**value))
                .collect();
            mirror.becomes(&expected).await;
        }
        if kind == Kind::Consul {
            assert_eq!(mirror.wholes, 1, "what did not change is not read again");
        }
    });
}
