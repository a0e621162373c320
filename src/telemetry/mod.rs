//! What the program says about itself: the log, and the counters of each core.
//!
//! Imports nothing of ours; anyone may import it. Never blocks a core: a counter is a plain store, a log line goes into
//! a bounded queue.
//! Read next: `log.rs`.

pub mod collect;
pub mod counter;
pub mod log;
pub mod recent;
