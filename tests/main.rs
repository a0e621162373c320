//! Every test that needs more than one module: one binary, so it is linked once.
//!
//! `harness/` starts the real program, a scriptable origin and a client that speaks raw bytes; `e2e/` has a file per thing
//! an operator knows; `store/` asks real key-value stores; `tidy` keeps the shape of the source. Nothing here but
//! `allocations` and `store/` imports the library: what is tested is what ships.
//! Read next: `harness/mod.rs`, then any file of `e2e/`. How to run: `docs/testing.md`.

#![allow(clippy::unwrap_used, reason = "a test ends with its first surprise")]
#![allow(
    unreachable_pub,
    reason = "one binary: `pub` means visible to the other test files"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "locks and clocks are banned from the data plane, not from the threads of a test"
)]

mod e2e;
mod harness;
mod store;
mod tidy;
