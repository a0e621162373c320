//! Static options of the key-value stores and of cluster mode. Spec kv-stores 1, cluster 1.
//!
//! Never connects to a store. Read next: `flags.rs`.

use super::dynamic::ClientTls;
use super::option::{Constraint, options};

/// The four stores differ in their defaults and one option; declaring them once keeps them alike.
macro_rules! store {
    ($(#[doc = $about:literal])* $name:ident, $endpoint:literal, $prefix:literal, { $($more:tt)* }) => {
        options! {
            $(#[doc = $about])*
            pub struct $name {
                place;
                /// Addresses, comma separated; for BoltDB a path.
                "endpoint" endpoint: String = $endpoint.to_owned(),
                /// Where our keys begin.
                "prefix" prefix: String = $prefix.to_owned(),
                /// Follows changes.
                "watch" watch: bool = true,
                /// User name.
                "username" username: String,
                /// Password.
                "password" password: String,
                /// How it is spoken to over TLS.
                "tls" tls: Option<ClientTls>,
                /// What the tags of servers must fulfil, besides the global ones: `tag==glob` or `tag!=glob`.
                "constraints" constraints: Vec<Constraint>,
                /// Not supported: a template that makes configuration from the keys is an error.
                "filename" filename: String,
                /// Has no effect: no text is made of the keys.
                "debugLogGeneratedTemplate" debug_log_generated_template: bool,
                /// Has no effect.
                "trace" trace: bool,
                /// Has no effect.
                "templateVersion" template_version: i64,
                $($more)*
            }
        }
    };
}

store!(
    /// Configuration in Consul.
    Consul, "127.0.0.1:8500", "traefik", {}
);
store!(
    /// Configuration in etcd.
    Etcd, "127.0.0.1:2379", "/traefik", {
        /// Speaks etcd's version 3 protocol.
        "useAPIV3" use_api_v3: bool,
    }
);
store!(
    /// Configuration in ZooKeeper.
    ZooKeeper, "127.0.0.1:2181", "traefik", {
        /// New: who may do what with the nodes that Coreway makes, `scheme:id:rights` with commas between. Without it
        /// everybody may do everything.
        "acl" acl: String,
    }
);
store!(
    /// Configuration in a BoltDB file.
    BoltDb, "127.0.0.1:4001", "/traefik", {}
);

options! {
    /// Several nodes with one store.
    pub struct Cluster {
        place;
        /// Name of this node. Empty: a random one.
        "node" node: String,
    }
}
