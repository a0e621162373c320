//! What the operator wrote, in Traefik 1.7's names.
//!
//! Owns the options: [`global`] and [`entrypoint`] (static, read once), [`dynamic`] (frontends and backends), and how
//! they are read: every source becomes one case-insensitive tree with a place on every node.
//! Never opens a socket, never decides what an option does.
//! Read next: `dynamic.rs`.

pub mod acme;
pub mod bug;
pub mod cores;
pub mod dynamic;
pub mod entrypoint;
pub mod global;
pub mod observe;
pub mod option;
pub mod store;
pub mod units;
pub mod version;

mod compact;
pub mod completion;
mod deprecated;
mod dynamic_keys;
mod effective;
mod export;
mod flags;
mod help;
mod json;
mod keys;
mod load;
pub mod man;
#[cfg(test)]
mod reference;
mod search;
mod shared;
mod spelling;
mod toml;
mod tree;
mod unsupported;
mod words;

pub use dynamic::Dynamic;
pub use dynamic_keys::DynamicKeys;
pub use export::{KeyValue, dynamic_keys};
pub use global::Global;
pub use json::dynamic_from_json;
pub use keys::{Pair, Problems};
pub use load::{Command, LoadError, Loaded, StoreConfig, dynamic_from_toml, load};
pub use shared::Shared;
pub use units::{ConfigError, Diagnostic, Place};
pub use unsupported::unsupported;
pub use words::{Question, Shell};
