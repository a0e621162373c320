//! What runs a core: exactly one of the modules here, chosen when the program is built.
//!
//! Each offers the same few functions and two types: `run`, `spawn`, `nanoseconds`, `nanoseconds_coarse`, `arm`,
//! `splice`, `Stream` and `Acceptor`. The rest of `reactor/` is written against those and is the same on all of them.
//! Read next: `monoio.rs` (the default).

pub(super) mod descriptor;

#[cfg(not(feature = "glommio"))]
mod monoio;
#[cfg(not(feature = "glommio"))]
pub(super) use self::monoio::*;
