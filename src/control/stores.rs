//! The key-value stores of a configuration: which they are, what they are asked at the start, and who follows them.
//!
//! Owns the order in which one is chosen for static options, and the wait for it: without its answer nothing can be
//! served, so it is asked for ever, and says so each time. Spec kv-static 1, kv-stores 4.
//! Never knows what a key means. Read next: `provider/kv.rs`, `storeconfig.rs`.

#![allow(
    clippy::disallowed_methods,
    reason = "control plane: it has no clock of a core"
)]

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info};

use crate::api;
use crate::config::option::Constraint;
use crate::config::{Global, Loaded, Pair};
use crate::limits::STORE_WAIT_MAX;
use crate::provider::{Board, Update, kv};
use crate::store::backoff::Backoff;
use crate::store::{self, Follower, Prefix, Settings, Status, Store};

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
    load(loaded, Patience::Endless)
}

/// As [`load_static`], for somebody who does not wait.
///
/// # Errors
/// Those of [`load_static`]; the store does not answer, or holds options that cannot be used.
pub(super) fn load_static_once(loaded: Loaded) -> io::Result<Loaded> {
    load(loaded, Patience::Once)
}

/// How long a store is asked for options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Endless,
    Once,
}

fn load(loaded: Loaded, patience: Patience) -> io::Result<Loaded> {
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
            let laid = lay_over(&loaded, &*store, &settings);
            let laid = match patience {
                Patience::Endless => laid.await,
                Patience::Once => timeout(STORE_WAIT_MAX, laid)
                    .await
                    .unwrap_or_else(|_| Err(format!("no answer within {STORE_WAIT_MAX:?}"))),
            };
            let failure = match laid {
                Ok(loaded) => return Ok(loaded),
                Err(failure) => format!("Load config error: {failure}"),
            };
            if patience == Patience::Once {
                return Err(io::Error::other(failure));
            }
            let pause = backoff.pause();
            error!("{failure}, retrying in {pause:?}");
            sleep(pause).await;
        }
    });
    runtime.shutdown_background();
    found
}

async fn lay_over(
    loaded: &Loaded,
    store: &dyn Store,
    settings: &Settings,
) -> Result<Loaded, String> {
    let listing = store.list(&settings.prefix).await;
    let listing = listing.map_err(|error| error.to_string())?;
    let pairs = listing.pairs.iter();
    let pairs = pairs.map(|pair| Pair::new(&pair.key, &pair.value));
    loaded
        .with_keys(settings.prefix.name(), pairs.collect())
        .map_err(|error| error.to_string())
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

/// A store that is followed, and where to see how it is.
#[derive(Clone, Debug)]
pub(super) struct Followed {
    prefix: String,
    status: watch::Receiver<Status>,
}

impl Followed {
    /// As the API shows it.
    pub(super) fn shown(&self) -> api::Store {
        let status = self.status.borrow();
        let now = (Instant::now(), SystemTime::now());
        let time = |at: Option<Instant>| at.and_then(|at| now.1.checked_sub(now.0 - at));
        api::Store {
            provider: status.kind.provider(),
            prefix: self.prefix.clone(),
            index: status.position.map(|position| position.to_string()),
            keys: status.keys,
            read_at: time(status.heard_at),
            changed_at: time(status.changed_at),
            error: status.error.as_ref().map(ToString::to_string),
            failing_since: time(status.failing_since),
            is_doubted: status.is_doubted,
        }
    }
}

/// Follows every store that is configured. The first one is also what a fleet shares.
///
/// # Errors
/// The settings of one of them can never work.
pub(super) fn start(
    global: &Global,
    updates: &mpsc::Sender<Update>,
    board: &Board,
) -> io::Result<(Vec<Followed>, Option<Opened>)> {
    let (mut followed, mut first) = (Vec::new(), None);
    for source in sources(global, Wants::Changes, board)? {
        let Source {
            provider,
            follower,
            options,
        } = source;
        first.get_or_insert_with(|| Opened {
            store: Arc::clone(follower.store()),
            prefix: options.prefix.clone(),
        });
        info!("Starting provider {provider}: {}", options.prefix.name());
        followed.push(Followed {
            prefix: options.prefix.name().to_owned(),
            status: follower.status(),
        });
        tokio::spawn(kv::run(follower, options, updates.clone()));
    }
    Ok((followed, first))
}

/// What is wanted of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    /// One tree.
    Once,
    /// Also what becomes of it, unless the configuration says otherwise.
    Changes,
}

/// A store that can be read.
pub(super) struct Source {
    pub(super) provider: &'static str,
    pub(super) follower: Follower,
    pub(super) options: kv::Options,
}

/// Every store that is configured. Nothing is asked yet.
///
/// # Errors
/// The settings of one of them can never work.
pub(super) fn sources(global: &Global, wants: Wants, board: &Board) -> io::Result<Vec<Source>> {
    let sources = configured(global).into_iter().map(|configured| {
        let Configured {
            settings,
            constraints,
        } = configured;
        let options = kv::Options {
            prefix: settings.prefix.clone(),
            watches: settings.watches && wants == Wants::Changes,
            constraints,
            board: board.clone(),
        };
        Ok(Source {
            provider: settings.kind.provider(),
            follower: kv::follower(open(&settings)?, &options),
            options,
        })
    });
    sources.collect()
}
