//! Configuration in, snapshot and rejections out.
//!
//! Pure: no clock, no files, no sockets; the same input gives the same snapshot. Bad parts never stop good ones.
//! Read next: `rule.rs`.

pub mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Dynamic, Place};
use crate::snapshot::Snapshot;

/// Something the operator wrote that is not served, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub place: Place,
    pub severity: Severity,
    /// A whole sentence, without the place.
    pub message: String,
}

/// How much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The part works, though not all of it, or not as its writer may think.
    Warning,
    /// A frontend, backend or certificate is left out.
    Error,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// What compiling needs to know beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// In the order of `EntryPointId`.
    pub entry_points: Vec<String>,
    /// Entry points of a frontend that names none.
    pub default_entry_points: Vec<String>,
    /// `keepTrailingSlash`: a path that differs by its last slash is another path, instead of a 301.
    pub keep_trailing_slash: bool,
    /// `allowMinWeightZero`: a written weight of 0 means never, instead of 1.
    pub allow_min_weight_zero: bool,
    /// Addresses of server host names (lower case), from `host_names`. A missing name has no address.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// Snapshots to make, at least 1.
    pub cores: usize,
}

/// What outlives a reload: the numbers of upstream addresses, and balancing positions. Owned by control, one for the
/// life of the process.
#[derive(Debug, Default)]
pub struct Memory {
    generation: u64,
}

impl Memory {
    /// Every core serves by `generation` or a newer one, and nothing older is in use any more (each core gave its
    /// older snapshots back): pool keys retired by then may name other addresses from now on. Until this is called a
    /// retired key is not used again, since an exchange under way could put a connection back under it.
    pub fn settle(&mut self, generation: u64) {
        self.generation = self.generation.max(generation);
    }
}

/// The outcome of compiling.
#[derive(Debug, Default)]
pub struct Compiled {
    /// One for each core, in order. Their `generation` is one more than that of the call before.
    pub snapshots: Vec<Snapshot>,
    pub rejections: Vec<Rejection>,
    /// Host names of servers that are served, lower case: those to resolve again from time to time.
    pub host_names: BTreeSet<String>,
}

/// Compiles what all providers say, keyed by provider name.
pub fn compile(
    _providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    memory: &mut Memory,
) -> Compiled {
    memory.generation += 1;
    Compiled {
        snapshots: (0..world.cores.max(1))
            .map(|_| Snapshot::default())
            .collect(),
        ..Compiled::default()
    }
}

/// Host names of all servers that are not IP addresses, lower case: what `World::addresses` should answer.
pub fn host_names(_providers: &BTreeMap<String, Arc<Dynamic>>) -> BTreeSet<String> {
    BTreeSet::new()
}
