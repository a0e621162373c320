//! Dynamic configuration from a key-value store.
//!
//! Owns which tree is read: the one below the prefix, or the one that `<prefix>/alias` names. An alias is switched at
//! once: its whole tree is read at one moment, and only then anything changes. While there is one, nothing but the alias is
//! followed. A tree that cannot be read, or an alias that names nothing, keeps what was there before.
//! Never decides when to read again after a loss: `store::Follower` does. Source: spec kv-dynamic 1, 7, 10.
//! Read next: `config/dynamic_keys.rs` (what a tree says).

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use super::{Board, Update, file};
use crate::config::option::Constraint;
use crate::config::{Dynamic, DynamicKeys, Pair, Problems};
use crate::store::backoff::Backoff;
use crate::store::{self, Changed, Follower, Listing, Prefix, Store};

/// The key whose value names another tree.
const ALIAS: &str = "alias";

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub prefix: Prefix,
    /// Follows changes; otherwise one tree is read.
    pub watches: bool,
    /// What the tags of every server must fulfil.
    pub constraints: Vec<Constraint>,
    /// Where what cannot be used is told.
    pub board: Board,
}

/// Whether a key below the prefix has a say in the dynamic configuration. Static options, the leader's name and
/// certificates are below the same prefix, and change for themselves.
fn counts(key: &str) -> bool {
    let first = key.split('/').find(|step| !step.is_empty());
    first.is_some_and(|first| {
        first == ALIAS
            || ["backends", "frontends", "tls"]
                .iter()
                .any(|folder| folder.eq_ignore_ascii_case(first))
    })
}

/// Follows what `options` name of a store.
pub fn follower(store: Arc<dyn Store>, options: &Options) -> Follower {
    Follower::new(store, options.prefix.clone(), counts)
}

/// Follows a store until nobody takes its updates any more. Makes one update of each tree that is different.
pub async fn run(mut follower: Follower, options: Options, updates: mpsc::Sender<Update>) {
    let mut provider = Provider {
        store: follower.store().clone(),
        keys: DynamicKeys::new(options.constraints),
        prefix: options.prefix,
        is_current: false,
        alias: None,
        retry: None,
        backoff: Backoff::default(),
        last: None,
        board: options.board,
        updates,
    };
    loop {
        let retry = provider.retry;
        let step = tokio::select! {
            update = follower.next() => provider.take(update).await,
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => provider.read_alias().await,
            () = provider.updates.closed() => Err(Ended),
        };
        let is_read = provider.last.is_some() && provider.retry.is_none();
        if step.is_err() || !options.watches && is_read {
            return;
        }
    }
}

/// The control loop has gone: there is nobody to report to.
struct Ended;

struct Provider {
    store: Arc<dyn Store>,
    keys: DynamicKeys,
    prefix: Prefix,
    /// What was read last is the tree below the prefix, as it was with the last update.
    is_current: bool,
    /// The tree that is read instead of the one below the prefix.
    alias: Option<String>,
    /// The tree of the alias is still to be read, at this time.
    retry: Option<Instant>,
    backoff: Backoff,
    /// How much the last update held.
    last: Option<usize>,
    board: Board,
    updates: mpsc::Sender<Update>,
}

impl Provider {
    /// Takes a tree that is different from the one before.
    async fn take(&mut self, update: store::Update<'_>) -> Result<(), Ended> {
        let store::Update { tree, changed, .. } = update;
        let alias = tree.get(ALIAS).and_then(|value| alias(value));
        let is_current = std::mem::replace(&mut self.is_current, alias.is_none());
        match alias {
            None => {
                if self.alias.take().is_some() {
                    info!("There is no alias any more, reading {}", self.prefix.name());
                }
                self.retry = None;
                let began = Instant::now();
                let prefix = self.prefix.name();
                let read = match changed {
                    Changed::Keys(changed) if is_current => {
                        self.keys.read_changed(prefix, tree, &changed)
                    }
                    _ => {
                        let pairs = tree.iter().map(|(key, value)| Pair::new(key, value));
                        self.keys.read(prefix, pairs.collect())
                    }
                };
                self.send(read, began).await
            }
            // Below the prefix something else is different, which does not count now.
            Some(alias) if self.alias.as_ref() == Some(&alias) => Ok(()),
            Some(alias) => {
                info!("The alias is {alias} now");
                self.alias = Some(alias);
                self.backoff.reset();
                self.read_alias().await
            }
        }
    }

    /// Reads the tree that the alias names, and tries again later if there is none.
    async fn read_alias(&mut self) -> Result<(), Ended> {
        self.retry = None;
        let Some(alias) = &self.alias else {
            return Ok(());
        };
        let mut failure = format!("there is nothing below {alias}, which the alias names");
        for prefix in Prefix::spellings(self.store.kind(), alias) {
            match self.store.list(&prefix).await {
                Ok(Listing { pairs, .. }) if pairs.iter().any(|pair| counts(&pair.key)) => {
                    let began = Instant::now();
                    let pairs = pairs.iter().map(|pair| Pair::new(&pair.key, &pair.value));
                    let read = self.keys.read(prefix.name(), pairs.collect());
                    return self.send(read, began).await;
                }
                Ok(_) => {}
                Err(error) => {
                    failure = error.to_string();
                    break;
                }
            }
        }
        let pause = self.backoff.pause();
        error!(
            "KV connection error: {failure}, keeping what was there before, retrying in {pause:?}"
        );
        self.retry = Some(Instant::now() + pause);
        Ok(())
    }

    /// Hands on what was read since `began`.
    async fn send(&mut self, read: (Dynamic, Problems), began: Instant) -> Result<(), Ended> {
        let provider = self.store.kind().provider();
        let (mut dynamic, problems) = read;
        for problem in &problems.errors {
            error!("{problem}");
        }
        for problem in &problems.warnings {
            warn!("{problem}");
        }
        self.board.tell(provider, self.keys.problems());
        file::inline(&mut dynamic);
        let size = size(&dynamic);
        if size == 0 && self.last.is_some_and(|last| last > 0) {
            warn!("Every frontend, backend and certificate of {provider} has been deleted");
        }
        self.last = Some(size);
        debug!("Configuration of {provider} read in {:?}", began.elapsed());
        self.updates
            .send(Update { provider, dynamic })
            .await
            .map_err(|_| Ended)
    }
}

/// The prefix that the key says. An empty value is as if there were none.
fn alias(value: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    let text = text.trim_end_matches(['\r', '\n']);
    let text = text.strip_suffix('/').unwrap_or(text);
    (!text.is_empty()).then(|| text.to_owned())
}

fn size(dynamic: &Dynamic) -> usize {
    dynamic.backends.len() + dynamic.frontends.len() + dynamic.tls.len()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::store::memory::Memory;
    use crate::store::{Error, Kind};

    const HOUR: Duration = Duration::from_secs(3600);

    struct Followed {
        store: Memory,
        updates: mpsc::Receiver<Update>,
    }

    impl Followed {
        fn new(kind: Kind, watches: bool, prepare: impl FnOnce(&Memory)) -> Self {
            let store = Memory::new(kind);
            prepare(&store);
            let (sender, updates) = mpsc::channel(16);
            let options = Options {
                prefix: Prefix::new(kind, "traefik"),
                watches,
                constraints: Vec::new(),
                board: Board::default(),
            };
            let follower = follower(Arc::new(store.clone()), &options);
            tokio::spawn(run(follower, options, sender));
            Self { store, updates }
        }

        fn set(&self, name: &str, url: &str) {
            self.store.set(&format!("{name}/servers/s/url"), url);
        }

        /// Waits for an update whose backends are these, `name=url` each. In between there must be no other.
        #[track_caller]
        fn expect<'a>(&'a mut self, expected: &'a [&'a str]) -> impl Future<Output = ()> + use<'a> {
            let place = std::panic::Location::caller();
            async move {
                let update = timeout(HOUR, self.updates.recv()).await;
                let update = update.ok().flatten().expect("an update");
                let backends: Vec<String> = update
                    .dynamic
                    .backends
                    .iter()
                    .map(|(name, backend)| format!("{name}={}", backend.servers["s"].url))
                    .collect();
                assert_eq!(backends, expected, "{place}");
            }
        }

        async fn expect_nothing(&mut self) {
            assert!(timeout(HOUR, self.updates.recv()).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changes_are_followed() {
        let mut followed = Followed::new(Kind::Consul, true, |store| {
            store.set("traefik/backends/a/servers/s/url", "http://a");
        });
        followed.expect(&["a=http://a"]).await;
        followed.set("traefik/backends/b", "http://b");
        followed.expect(&["a=http://a", "b=http://b"]).await;
        followed.store.set("traefik/leader", "me");
        followed.store.set("traefik/loglevel", "DEBUG");
        followed
            .store
            .set("traefik2/backends/x/servers/s/url", "http://x");
        followed.expect_nothing().await;
        // Deleted by somebody while we looked on: meant so.
        for name in ["a", "b"] {
            followed
                .store
                .remove(&format!("traefik/backends/{name}/servers/s/url"));
        }
        followed.expect(&[]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_not_watched_is_read_once() {
        let mut followed = Followed::new(Kind::Consul, false, |store| {
            store.fail(Some(Error::Unreachable("gone".to_owned())));
            store.set("traefik/backends/a/servers/s/url", "http://a");
        });
        followed.store.fail(None);
        followed.expect(&["a=http://a"]).await;
        followed.set("traefik/backends/b", "http://b");
        let ended = timeout(HOUR, followed.updates.recv()).await;
        assert!(ended.expect("it has ended").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_alias_is_switched_at_once_and_its_tree_is_not_followed() {
        for (kind, one, two) in [
            (Kind::Consul, "/conf/1", "conf/2/"),
            (Kind::EtcdV3, "conf/1", "/conf/2"),
            (Kind::ZooKeeper, "conf/1", "/conf/2"),
        ] {
            let root = |name: &str| Prefix::spellings(kind, name)[0].root().to_owned();
            let prefix = Prefix::new(kind, "traefik");
            // Written as the store spells it, whatever the alias says.
            let literal = |name: &str| match kind {
                Kind::EtcdV3 => format!("conf/{name}/"),
                _ => root(&format!("conf/{name}")),
            };
            let mut followed = Followed::new(kind, true, |store| {
                store.set(&prefix.key("backends/old/servers/s/url"), "http://old");
            });
            followed.expect(&["old=http://old"]).await;
            followed.set(&format!("{}backends/a", literal("1")), "http://a");
            followed.set(&format!("{}backends/b", literal("2")), "http://b");
            followed.store.set(&prefix.key("alias"), one);
            followed.expect(&["a=http://a"]).await;
            // Neither the tree of the alias nor the one below the prefix.
            followed.set(&format!("{}backends/a", literal("1")), "http://changed");
            followed.set(&prefix.key("backends/old"), "http://changed");
            followed.expect_nothing().await;
            followed.store.set(&prefix.key("alias"), two);
            followed.expect(&["b=http://b"]).await;
            followed.store.set(&prefix.key("alias"), "");
            followed.expect(&["old=http://changed"]).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alias_that_names_nothing_changes_nothing() {
        let mut followed = Followed::new(Kind::Consul, true, |store| {
            store.set("conf/1/backends/a/servers/s/url", "http://a");
            store.set("traefik/alias", "conf/1");
        });
        followed.expect(&["a=http://a"]).await;
        followed.store.set("traefik/alias", "conf/2");
        followed.expect_nothing().await;
        // It is looked for again until it is there.
        followed.set("conf/2/backends/b", "http://b");
        followed.expect(&["b=http://b"]).await;
        followed.store.set("traefik/alias", "conf/none");
        followed.expect_nothing().await;
        followed.store.set("traefik/alias", "conf/1");
        followed.expect(&["a=http://a"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_empty_changes_nothing() {
        let mut followed = Followed::new(Kind::Consul, true, |store| {
            store.set("traefik/backends/a/servers/s/url", "http://a");
        });
        followed.expect(&["a=http://a"]).await;
        followed
            .store
            .fail(Some(Error::Unreachable("gone".to_owned())));
        followed.expect_nothing().await;
        followed.store.lose();
        followed.store.fail(None);
        followed.expect_nothing().await;
        followed.set("traefik/backends/b", "http://b");
        followed.expect(&["b=http://b"]).await;
    }
}
