//! How long 10,000 frontends take to load, and until one changed key among them is served by every core. Prints, never
//! judges: machines differ.
//!
//! `cargo test --release --test tests store::speed -- --ignored --nocapture --test-threads 1`

use std::time::{Duration, Instant};

use bytes::Bytes;
use coreway::store::Kind;
use tokio::task::JoinSet;

use super::{run, shared, shared_endpoint, store_flags};
use crate::harness::{Coreway, Origin, eventually_within, get};

/// Five keys each.
const FRONTENDS: usize = 10_000;

/// Writes under way at once.
const WRITERS: usize = 64;

/// Whole reads; the fastest counts.
const READS: usize = 3;

/// Keys changed one after the other.
const CHANGES: usize = 31;

/// One for each store, so that one can be measured alone.
macro_rules! each_speed {
    ($($test:ident $kind:ident),* $(,)?) => {
        $(
            #[test]
            #[ignore = "minutes; prints figures"]
            fn $test() {
                measure(Kind::$kind);
            }
        )*
    };
}

each_speed!(
    consul Consul,
    etcd_v2 EtcdV2,
    etcd_v3 EtcdV3,
    zookeeper ZooKeeper,
    boltdb BoltDb,
);

/// How much else the machine does: figures mean something beside it only.
fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    load.split(' ').next().unwrap().to_owned()
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
    let origin = Origin::text("served");
    let flags = [
        "--entryPoints=Name:http Address:127.0.0.1:0".to_owned(),
        "--defaultEntryPoints=http".to_owned(),
        "--logLevel=DEBUG".to_owned(),
        "--providersThrottleDuration=1ms".to_owned(),
        "--reactor.pin=false".to_owned(),
    ];
    let flags = [
        &flags[..],
        &store_flags(kind, &shared_endpoint(kind), &prefix),
    ]
    .concat();
    let start = Instant::now();
    let coreway = Coreway::spawn(tempfile::tempdir().unwrap(), &flags, None);
    let patience = Duration::from_secs(60);
    eventually_within(patience, "the first configuration is served", || {
        coreway.reloads() > 0
    });
    eprintln!(
        "{kind}: served {:?} after the start (load {})",
        start.elapsed(),
        load()
    );
    let used = coreway.cpu_time();
    let mut times = Vec::new();
    for change in 0..CHANGES {
        let (frontend, before) = (change * 7, coreway.reloads());
        run(async {
            let store =
                coreway::store::open(&super::settings(kind, &shared_endpoint(kind))).unwrap();
            let key = prefix.key(&format!("backends/b{frontend}/servers/s/url"));
            store.put(&key, origin.url().as_bytes()).await.unwrap();
        });
        let start = Instant::now();
        eventually_within(patience, "the change is served by all cores", || {
            coreway.reloads() > before
        });
        times.push(start.elapsed());
        let host = format!("h{frontend}.test");
        assert_eq!(get(coreway.address(), &host, "/").text(), "served");
    }
    times.sort();
    eprintln!(
        "{kind}: a change was served within {:?} (median), {:?} (longest); {:?} of processor time each (load {})",
        times[CHANGES / 2],
        times[CHANGES - 1],
        (coreway.cpu_time() - used) / u32::try_from(CHANGES).unwrap(),
        load()
    );
    let debug = coreway.log();
    for line in debug
        .lines()
        .filter(|line| line.contains(" in ") && line.contains("debug"))
    {
        eprintln!("  {line}");
    }
}
