//! Where dynamic configuration comes from.
//!
//! Owns the watching and reading of sources; each says what it found as an [`Update`]. Never decides when an update is
//! served, nor whether its parts make sense.
//! Read next: `file.rs`.

pub mod file;
pub mod kv;
pub mod template;

use crate::config::Dynamic;

/// What a provider found: everything it has to say, not a difference.
#[derive(Debug)]
pub struct Update {
    pub provider: &'static str,
    pub dynamic: Dynamic,
}
