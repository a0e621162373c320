//! Configuration in, snapshot and rejections out.
//!
//! Pure: no clock, no files, no sockets; the same input gives the same snapshot. Bad parts never stop good ones.
//! Read next: `job.rs` (one frontend), `rule.rs` (its rule), `reuse.rs` (what is not made again), `assemble.rs`.

mod assemble;
mod auth;
mod auth_server;
pub mod backend;
mod balance;
mod breaker;
mod buffering;
mod certificate;
mod error_page;
mod expression;
mod frontend;
mod headers;
pub mod health;
mod hosts;
pub mod internal;
mod job;
mod middleware;
mod names;
mod redirect;
mod rejection;
mod reuse;
pub mod rule;
pub mod settings;
mod sticky;
pub mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::assemble::Accepted;
use self::auth_server::AuthServers;
use self::backend::Backends;
use self::health::Check;
use self::job::Job;
use self::template::Expressions;
use crate::config::Dynamic;
use crate::snapshot::Snapshot;

pub use self::auth_server::{OfEntryPoint, of_entry_points};
pub use self::backend::Memory;
pub use self::frontend::priority;
pub use self::hosts::Hosts;
pub use self::names::{names_of_certificates, names_of_rules};
pub use self::redirect::Target;
pub use self::rejection::{Rejection, Severity};
pub use self::world::{World, files, host_names};
pub use crate::tls::Missed;

/// The outcome of compiling.
#[derive(Debug, Default)]
pub struct Compiled {
    /// One for each core, in order. Their `generation` is one more than that of the call before.
    pub snapshots: Vec<Snapshot>,
    pub rejections: Vec<Rejection>,
    /// Servers to ask whether they work.
    pub checks: Vec<Check>,
    /// Host names of servers that are served, lower case: those to resolve again from time to time.
    pub host_names: BTreeSet<String>,
}

/// Compiles what all providers say, keyed by provider name.
///
/// Each call is a generation: what `memory` gave to backends that are gone is taken back, so publish the outcome, and
/// say with [`Memory::settle`] when no older snapshot is in use. What is as it was in the call before is not made again:
/// snapshots share it, each core its own copy, and the outcome is the same as if it had been made.
pub fn compile(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    memory: &mut Memory,
) -> Compiled {
    memory.generation += 1;
    let mut rejections = Vec::new();
    let mut expressions = Expressions::default();
    let mut backends = Backends::new(providers, world, memory);
    let mut accepted = Vec::new();
    let mut auth_servers = AuthServers::new(world, memory, &mut rejections);

    for (provider, written) in providers {
        for (name, frontend) in &written.frontends {
            let job = Job {
                provider,
                name,
                frontend,
                world,
            };
            let outcome = match job.again(&mut backends, memory) {
                Some(made) => Ok(made),
                None => job.make(
                    &mut backends,
                    &mut expressions,
                    &mut auth_servers,
                    memory,
                    &mut rejections,
                ),
            };
            match outcome {
                Ok(made) => accepted.push(Accepted {
                    provider,
                    name,
                    frontend,
                    made,
                }),
                Err((place, message)) => rejections.push(Rejection {
                    place,
                    severity: Severity::Error,
                    message,
                }),
            }
        }
    }

    // Names are in order already, and the sort is stable: what is equal stays ordered by provider, then name. So the
    // id of a frontend is its place in the order of all, and of each entry point.
    accepted.sort_by_cached_key(|one| std::cmp::Reverse(priority(one.frontend)));
    let pools_retired = memory.retire(&backends, &auth_servers);
    let limited: BTreeSet<(&str, &str)> = accepted
        .iter()
        .filter(|one| one.made.copies[0].rate_limit.is_some())
        .map(|one| (one.provider, one.name))
        .collect();
    let with_digest: BTreeSet<(&str, &str)> = accepted
        .iter()
        .filter(|one| {
            one.frontend
                .auth
                .as_ref()
                .is_some_and(|auth| auth.digest.is_some())
        })
        .map(|one| (one.provider, one.name))
        .collect();
    memory
        .nonces
        .retain(|(provider, name)| with_digest.contains(&(provider, name)));
    memory.retire_rate_limits(|(provider, name)| limited.contains(&(provider, name)));
    let cores = world.cores.max(1);
    let tries = backends
        .last
        .tries(assemble::in_tries(&accepted, world), cores);
    let mut first = Snapshot {
        generation: memory.generation,
        pools_retired,
        ..assemble::of_core(0, &tries, &accepted, &backends)
    };
    backends.host_names.append(&mut auth_servers.host_names);
    first.auth_servers = auth_servers.made;
    first.tls = certificate::dynamic(providers, world, &mut memory.certificates, &mut rejections);
    first.proofs = world.proofs.clone().map(Box::new);
    let snapshots = assemble::spread(first, cores, |core| {
        assemble::of_core(core, &tries, &accepted, &backends)
    });
    rejections.append(&mut backends.rejections);
    let compiled = Compiled {
        snapshots,
        rejections,
        checks: std::mem::take(&mut backends.checks),
        host_names: std::mem::take(&mut backends.host_names),
    };
    let frontends = accepted
        .into_iter()
        .map(|one| ((one.provider, one.name), one.frontend, one.made));
    memory.last = backends.remembered(tries, frontends);
    compiled
}
