//! One core's part of a backend's state. It outlives a reload that leaves the backend as it was.
//!
//! Written by its core only, with plain relaxed stores; anyone may read. Never locks.
//! Read next: `balancer.rs` (moves it).

use std::sync::atomic::AtomicU32;

/// Round-robin position of one backend on one core.
#[derive(Debug, Default)]
pub struct Shard {
    /// Index of the server looked at next. One more than the spec's `index`, so that zero is the start.
    pub next: AtomicU32,
    /// Weight a server needs to be chosen in this round; 0 before the first.
    pub current: AtomicU32,
}
