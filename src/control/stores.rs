//! The key-value stores of a configuration: which they are, what they are asked at the start, and who follows them.
//!
//! Owns the order in which one is chosen for static options, and the wait for it: without its answer nothing can be
//! served, so it is asked for ever, and says so each time. Spec kv-static 1, kv-stores 4.
//! Never knows what a key means. Read next: `provider/kv.rs`, `storeconfig.rs`.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info};

use crate::config::option::Constraint;
use crate::config::{Global, Loaded, Pair};
use crate::provider::{Update, kv};
use crate::store::backoff::Backoff;
use crate::store::{self, Prefix, Settings, Store};

/// One section of a store.
#[derive(Clone, Debug)]
pub(super) struct Configured {
    pub(super) settings: Settings,
    constraints: Vec<Constraint>,
}

/// The stores that are configured. The first one holds the static options.
pub(super) fn configured(global: &Global) -> Vec<Configured> {
    let of = |settings, own: &[Constraint]| Configured {
        settings,
        constraints: [&global.constraints, own].concat(),
    };
    let consul = global.consul.as_ref();
    let etcd = global.etcd.as_ref();
    let zookeeper = global.zookeeper.as_ref();
    let boltdb = global.boltdb.as_ref();
    [
        consul.map(|section| of(Settings::consul(section), &section.constraints)),
        etcd.map(|section| of(Settings::etcd(section), &section.constraints)),
        zookeeper.map(|section| of(Settings::zookeeper(section), &section.constraints)),
        boltdb.map(|section| of(Settings::boltdb(section), &section.constraints)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Lays what the first store holds over file and flags. Waits until the store answers with options that can be used.
/// Without a store nothing is asked.
///
/// # Errors
/// The settings of the store can never work, or there is no runtime to ask it in.
pub fn load_static(loaded: Loaded) -> io::Result<Loaded> {
    let Some(Configured { settings, .. }) = configured(&loaded.global).into_iter().next() else {
        return Ok(loaded);
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let found = runtime.block_on(async {
        let store = open(&settings)?;
        let mut backoff = Backoff::default();
        loop {
            let failure = match store.list(&settings.prefix).await {
                Ok(listing) => {
                    let pairs = listing.pairs.iter();
                    let pairs = pairs.map(|pair| Pair::new(&pair.key, &pair.value));
                    match loaded.with_keys(settings.prefix.name(), pairs.collect()) {
                        Ok(loaded) => return Ok(loaded),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => error.to_string(),
            };
            let pause = backoff.pause();
            error!("Load config error: {failure}, retrying in {pause:?}");
            sleep(pause).await;
        }
    });
    runtime.shutdown_background();
    found
}

/// A store that is in use, and where our keys are in it.
#[derive(Clone, Debug)]
pub struct Opened {
    pub store: Arc<dyn Store>,
    pub prefix: Prefix,
}

/// A client for a store.
///
/// # Errors
/// Its settings can never work.
pub(super) fn open(settings: &Settings) -> io::Result<Arc<dyn Store>> {
    store::open(settings)
        .map_err(|error| io::Error::other(format!("Error creating kv store: {error}")))
}

/// Follows every store that is configured. The first one is also what a fleet shares.
///
/// # Errors
/// The settings of one of them can never work.
pub(super) fn start(global: &Global, updates: &mpsc::Sender<Update>) -> io::Result<Option<Opened>> {
    let mut first = None;
    for Configured {
        settings,
        constraints,
    } in configured(global)
    {
        let provider = settings.kind.provider();
        info!("Starting provider {provider}: {}", settings.prefix.name());
        let options = kv::Options {
            prefix: settings.prefix.clone(),
            watches: settings.watches,
            constraints,
        };
        let store = open(&settings)?;
        tokio::spawn(kv::run(Arc::clone(&store), options, updates.clone()));
        first.get_or_insert(Opened {
            store,
            prefix: settings.prefix,
        });
    }
    Ok(first)
}
