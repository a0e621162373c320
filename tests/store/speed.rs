//! How long 10,000 frontends take to load. Prints, never judges: machines differ.
//!
//! `cargo test --release --test tests store::speed -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use bytes::Bytes;
use coreway::store::Kind;
use tokio::task::JoinSet;

use super::{run, shared};

/// Five keys each.
const FRONTENDS: usize = 10_000;

/// Writes under way at once.
const WRITERS: usize = 64;

/// Whole reads; the fastest counts.
const READS: usize = 3;

#[test]
#[ignore = "minutes; prints figures"]
fn ten_thousand_frontends() {
    for kind in [
        Kind::Consul,
        Kind::EtcdV2,
        Kind::EtcdV3,
        Kind::ZooKeeper,
        Kind::BoltDb,
    ] {
        measure(kind);
    }
}

fn keys_of(number: usize) -> [(String, String); 5] {
    let (frontend, backend) = (
        format!("frontends/f{number}"),
        format!("backends/b{number}"),
    );
    [
        (format!("{frontend}/backend"), format!("b{number}")),
        (
            format!("{frontend}/routes/r/rule"),
            format!("Host:h{number}.test"),
        ),
        (format!("{frontend}/passhostheader"), "true".to_owned()),
        (
            format!("{backend}/servers/s/url"),
            "http://127.0.0.1:80".to_owned(),
        ),
        (format!("{backend}/servers/s/weight"), "1".to_owned()),
    ]
}

fn measure(kind: Kind) {
    let Some((store, prefix)) = shared(kind) else {
        return;
    };
    run(async {
        let start = Instant::now();
        let pairs: Vec<_> = (0..FRONTENDS)
            .flat_map(keys_of)
            .map(|(path, value)| (prefix.key(&path), Bytes::from(value)))
            .collect();
        // A file is written whole by each writer.
        let writers = if kind == Kind::BoltDb { 1 } else { WRITERS };
        let mut writing = JoinSet::new();
        for pairs in pairs.chunks(pairs.len().div_ceil(writers)) {
            let (store, pairs) = (store.clone(), pairs.to_vec());
            writing.spawn(async move { store.put_all(&pairs).await.unwrap() });
        }
        writing.join_all().await;
        let written = start.elapsed();
        let mut fastest = Duration::MAX;
        for _ in 0..READS {
            let start = Instant::now();
            let keys = store.list(&prefix).await.unwrap().pairs.len();
            fastest = fastest.min(start.elapsed());
            assert_eq!(keys, 5 * FRONTENDS);
        }
        eprintln!(
            "{kind}: {} keys read in {fastest:?} (written in {written:?})",
            5 * FRONTENDS
        );
    });
}
