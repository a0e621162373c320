//! The clients of the stores against real servers, one suite for all of them.
//!
//! Most of these tests use the library: what a store promises cannot be seen through the program. What a user sees of one
//! is in `configuration.rs` and `under_load.rs`. Each server is started once and shared; tests have prefixes of their own.
//! Read next: `suite.rs` (what all stores do), `loss.rs` (servers that die, freeze and forget), `access.rs` (TLS, users).

mod access;
mod bolt;
mod configuration;
mod fleet;
mod locks;
mod loss;
mod pages;
mod reference;
mod speed;
mod suite;
mod under_load;
mod wrk;

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use coreway::store::{self, Kind, Prefix, Settings, Store};

pub(crate) use reference::take_away;

use crate::harness::server::{Guard, Program, Server, is_installed};

/// How long a test waits for one thing that a store should do.
const PATIENCE: Duration = Duration::from_secs(30);

fn program(kind: Kind) -> Option<Program> {
    match kind {
        Kind::Consul => Some(Program::Consul),
        Kind::EtcdV2 | Kind::EtcdV3 => Some(Program::Etcd),
        Kind::ZooKeeper => Some(Program::ZooKeeper),
        Kind::BoltDb => None,
    }
}

/// Settings for an endpoint, with a prefix that no other test has.
fn settings(kind: Kind, endpoint: &str) -> Settings {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Settings {
        kind,
        endpoints: vec![endpoint.to_owned()],
        prefix: Prefix::new(kind, &format!("/test/{number}")),
        watches: true,
        credentials: None,
        tls: None,
        acl: String::new(),
    }
}

/// A client of the shared server, and a prefix of its own. `None`: it is not installed.
fn shared(kind: Kind) -> Option<(Arc<dyn Store>, Prefix)> {
    if program(kind).is_some_and(|program| !is_installed(program)) {
        return None;
    }
    let settings = settings(kind, &shared_endpoint(kind));
    let store = store::open(&settings).unwrap();
    Some((store, settings.prefix))
}

/// The shared server's, which is started if need be.
pub fn shared_endpoint(kind: Kind) -> String {
    static CONSUL: LazyLock<Server> = LazyLock::new(|| Server::start(Program::Consul, Guard::Open));
    static ETCD: LazyLock<Server> = LazyLock::new(|| Server::start(Program::Etcd, Guard::Open));
    static ZOOKEEPER: LazyLock<Server> =
        LazyLock::new(|| Server::start(Program::ZooKeeper, Guard::Open));
    let server = match program(kind) {
        Some(Program::Consul) => &CONSUL,
        Some(Program::Etcd) => &ETCD,
        Some(Program::ZooKeeper) => &ZOOKEEPER,
        None => {
            let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
            let name = format!("stores-{}/shared.db", std::process::id());
            return folder.join(name).display().to_string();
        }
    };
    server.endpoint()
}

/// The section of a store, which is what its flags begin with.
fn section(kind: Kind) -> &'static str {
    match kind {
        Kind::Consul => "consul",
        Kind::EtcdV2 | Kind::EtcdV3 => "etcd",
        Kind::ZooKeeper => "zookeeper",
        Kind::BoltDb => "boltdb",
    }
}

/// Flags that bring the program to a tree.
fn store_flags(kind: Kind, endpoint: &str, prefix: &Prefix) -> Vec<String> {
    let section = section(kind);
    let mut flags = vec![
        format!("--{section}.endpoint={endpoint}"),
        format!("--{section}.prefix={}", prefix.name()),
    ];
    if kind == Kind::EtcdV3 {
        flags.push("--etcd.useapiv3".to_owned());
    }
    flags
}

/// A runtime as control has it.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// Waits for one thing.
#[track_caller]
fn within<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        tokio::time::timeout(PATIENCE, future)
            .await
            .unwrap_or_else(|_| panic!("nothing within {PATIENCE:?} at {place}"))
    }
}

/// The same tests for each store, in a module named after it.
macro_rules! each_store {
    ($($test:ident),* $(,)?) => {
        crate::store::each_store!(@ consul, Consul; $($test),*);
        crate::store::each_store!(@ etcd_v2, EtcdV2; $($test),*);
        crate::store::each_store!(@ etcd_v3, EtcdV3; $($test),*);
        crate::store::each_store!(@ zookeeper, ZooKeeper; $($test),*);
        crate::store::each_store!(@ boltdb, BoltDb; $($test),*);
    };
    (@ $module:ident, $kind:ident; $($test:ident),*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    super::$test(coreway::store::Kind::$kind);
                }
            )*
        }
    };
}
use each_store;
