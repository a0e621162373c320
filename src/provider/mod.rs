//! Where dynamic configuration comes from.
//!
//! Owns the watching and reading of sources; each says what it found as an [`Update`]. Never decides when an update is
//! served, nor whether its parts make sense.
//! Read next: `file.rs`.

pub mod file;
pub mod kv;
pub mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::{Dynamic, Problems};

/// What a provider found: everything it has to say, not a difference.
#[derive(Debug)]
pub struct Update {
    pub provider: &'static str,
    pub dynamic: Dynamic,
}

/// What each provider cannot use of its source at present. Providers write it, the API shows it.
#[derive(Clone, Debug)]
pub struct Board(Arc<watch::Sender<BTreeMap<&'static str, Problems>>>);

impl Default for Board {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }
}

impl Board {
    /// In place of what the provider has told before.
    pub fn tell(&self, provider: &'static str, problems: Problems) {
        self.0
            .send_modify(|told| drop(told.insert(provider, problems)));
    }

    /// What all have told.
    pub fn told(&self) -> BTreeMap<&'static str, Problems> {
        self.0.borrow().clone()
    }
}
