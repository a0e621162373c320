//! What runs a core: chosen when the program is built, and between our own ring and monoio when it starts.
//!
//! Each offers the same few functions and types: `run`, `spawn`, `nanoseconds`, `nanoseconds_coarse`, `arm`, and
//! `Stream`, `Acceptor` and `Channel`. The rest of `reactor/` is written against those and is the same on all of them.
//! Read next: `either.rs` (the choice), `ring/mod.rs` (the default).

#[cfg(not(test))]
#[cfg_attr(
    feature = "glommio",
    allow(dead_code, reason = "glommio has calls of its own for some of these")
)]
mod descriptor;

#[cfg(all(not(test), not(feature = "glommio")))]
mod either;
#[cfg(all(not(test), feature = "glommio"))]
mod glommio;
#[cfg(all(not(test), not(feature = "glommio")))]
mod monoio;
#[cfg(all(not(test), not(feature = "glommio")))]
mod ring;
#[cfg(test)]
pub(crate) mod simulated;

#[cfg(all(not(test), not(feature = "glommio")))]
pub(super) use self::either::{
    Acceptor, Channel, Stream, arm, nanoseconds, nanoseconds_coarse, probe_ring, run, spawn,
};
#[cfg(all(not(test), feature = "glommio"))]
pub(super) use self::glommio::{
    Acceptor, Channel, Stream, arm, nanoseconds, nanoseconds_coarse, run, spawn,
};
#[cfg(test)]
pub(super) use self::simulated::{
    Acceptor, Channel, Stream, arm, nanoseconds, nanoseconds_coarse, run_driver as run, spawn,
};
