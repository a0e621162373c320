//! The newest configuration of every provider, side by side.
//!
//! Owns them until they are compiled. Providers stay apart: a frontend finds only the backends of its own provider, so
//! nothing is joined here but the list. Read next: `compile/mod.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Dynamic;

/// The newest of each provider, in the order of their names.
#[derive(Debug, Default)]
pub struct Merged {
    providers: BTreeMap<String, Arc<Dynamic>>,
}

impl Merged {
    pub fn replace(&mut self, provider: &str, newest: Arc<Dynamic>) {
        self.providers.insert(provider.to_owned(), newest);
    }

    pub fn providers(&self) -> &BTreeMap<String, Arc<Dynamic>> {
        &self.providers
    }
}
