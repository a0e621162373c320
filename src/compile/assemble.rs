//! Snapshots from what was made: each core's own copies, side by side.
//!
//! Owns which frontend has which id: its place in the order of all. Nothing that is read for a request is shared by two
//! cores; copies of one core are shared by its snapshots. Never makes a frontend or a backend.
//! Read next: `../snapshot.rs`.

use std::iter;
use std::sync::Arc;

use super::World;
use super::backend::Backends;
use super::reuse::{InTrie, MadeFrontend, MadeTrie};
use crate::config::{Shared, dynamic};
use crate::frontend::FrontendId;
use crate::snapshot::{AuthServer, Snapshot};
use crate::tls;

/// A frontend that will be served.
pub(super) struct Accepted<'a> {
    pub(super) provider: &'a str,
    pub(super) name: &'a str,
    pub(super) frontend: &'a Shared<dynamic::Frontend>,
    pub(super) made: MadeFrontend,
}

/// What stands in the trie of each entry point.
pub(super) fn in_tries(accepted: &[Accepted<'_>], world: &World) -> Vec<InTrie> {
    let mut entries: Vec<InTrie> = world.entry_points.iter().map(|_| InTrie::new()).collect();
    for (at, one) in accepted.iter().enumerate() {
        let id =
            FrontendId(u32::try_from(at).expect("a configuration has fewer than 2^32 frontends"));
        for entry_point in &one.made.entry_points {
            let matchers = Arc::clone(&one.made.matchers);
            entries[usize::from(entry_point.0)].push((id, matchers));
        }
    }
    entries
}

/// What a core has for itself: its copies of everything that is read for a request, and its own positions.
pub(super) fn of_core(
    core: usize,
    tries: &[MadeTrie],
    accepted: &[Accepted<'_>],
    backends: &Backends<'_>,
) -> Snapshot {
    let frontends = accepted.iter().map(|one| &one.made.copies[core]);
    let tries = tries.iter().map(|trie| &trie.copies[core]);
    Snapshot {
        tries: tries.map(Arc::clone).collect(),
        frontends: frontends.map(Arc::clone).collect(),
        backends: backends.of_core(core),
        ..Snapshot::default()
    }
}

/// One snapshot for each core. What little there is of the rest is copied from the first.
pub(super) fn spread(
    first: Snapshot,
    cores: usize,
    own: impl Fn(usize) -> Snapshot,
) -> Vec<Snapshot> {
    let tls = |tls: &Option<tls::Server>| tls.as_ref().map(tls::Server::for_core);
    let asked = |one: &Option<AuthServer>| one.as_ref().map(AuthServer::for_core);
    let others = (1..cores).map(|core| Snapshot {
        generation: first.generation,
        tls: first.tls.iter().map(tls).collect(),
        auth_servers: first.auth_servers.iter().map(asked).collect(),
        proofs: first.proofs.clone(),
        pools_retired: first.pools_retired.clone(),
        ..own(core)
    });
    let others: Vec<_> = others.collect();
    iter::once(first).chain(others).collect()
}
