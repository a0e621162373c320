//! Coreway: an edge reverse proxy and load balancer.
//!
//! The map, in reading order. Two planes meet in two places.
//!
//! Where they meet: [`snapshot`], the compiled configuration that control publishes and cores read, and
//! [`mailbox`], the channel between control and one core.
//!
//! The data plane, one of each per core; it never blocks, never locks and never sees `config`:
//! [`reactor`] (sockets, timers, buffers: the only code that asks the kernel anything for a request), [`http`]
//! (bytes to heads and bodies, and back), [`tls`] (the same bytes, sealed), [`frontend`] (which frontend answers, and what
//! it does on the way), [`backend`] (which server is asked), [`proxy`] (the life of one exchange, joining the others).
//!
//! The control plane, one ordinary thread: [`config`] (what the operator wrote), [`provider`] (where dynamic
//! configuration comes from), [`store`] (the key-value clients), [`acme`] (certificates obtained and renewed), [`compile`] (configuration in, snapshot and rejections out), [`api`] (pages about ourselves), [`control`] (the loop).
//!
//! Beside both: [`limits`] (every bound in the program) and [`telemetry`] (counters and the log).
//!
//! `tests/tidy.rs` holds the table of who may import whom. Read next: `docs/architecture.md`.

pub mod limits;
pub mod telemetry;

pub mod mailbox;
pub mod settings;
pub mod snapshot;

pub mod backend;
pub mod frontend;
pub mod http;
pub mod proxy;
#[allow(
    unsafe_code,
    reason = "the one room for unsafe code; each block carries its proof"
)]
pub mod reactor;
pub mod tls;

pub mod acme;
pub mod api;
pub mod compile;
pub mod config;
pub mod control;
pub mod provider;
pub mod store;
