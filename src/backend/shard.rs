//! One core's part of a backend's state. It outlives a reload that leaves the backend as it was.
//!
//! Written by its core only, with plain relaxed stores; anyone may read. Never locks.

use std::sync::atomic::AtomicU32;

/// Round-robin position of one backend on one core.
#[derive(Debug, Default)]
pub struct Shard {
    pub index: AtomicU32,
    pub current: AtomicU32,
}
