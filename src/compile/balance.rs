//! Balancing: the method of a backend, and what of it outlives a reload. Spec backends 3 and 4.
//!
//! Owns, in [`Kept`], who may be asked, what was seen of the servers, and each core's position. A server is the same over
//! reloads if its scheme, host and port are. Never chooses: `backend/balancer.rs` does.
//! Read next: `backend/balancer.rs`.

use std::collections::HashMap;
use std::sync::Arc;

use super::backend::{BackendError, Identity};
use super::sticky;
use crate::backend::availability::{Availability, Changes};
use crate::backend::balancer::{Balancer, Bound, Hash, Method};
use crate::backend::load::{Load, Loads};
use crate::backend::rebalance::{Meter, Rebalancer};
use crate::backend::ring::{HashBy, Ring};
use crate::backend::shard::Shard;
use crate::config::dynamic::{self, LoadBalancer};

/// What of a backend's balancing outlives a reload. Owned by control, one for each backend.
#[derive(Debug, Default)]
pub(super) struct Kept {
    changes: Arc<Changes>,
    servers: HashMap<Identity, Known>,
    /// What the rest was made for.
    made_for: Option<MadeFor>,
    /// One for each core.
    shards: Vec<Arc<Shard>>,
    rebalancer: Option<Arc<Rebalancer>>,
    ring: Option<Arc<Ring>>,
}

/// What is known of a server.
#[derive(Clone, Debug)]
struct Known {
    availability: Arc<Availability>,
    load: Arc<Load>,
    /// Only `drr` looks at answers.
    meter: Option<Arc<Meter>>,
}

#[derive(Debug, PartialEq)]
struct MadeFor {
    servers: Vec<(Identity, u32)>,
    method: Name,
    is_bounded: bool,
    slow_start: Option<u64>,
    cores: usize,
}

/// A method, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    RoundRobin,
    Rebalanced,
    LeastConnections,
    TwoChoices,
    Hash,
}

impl Name {
    /// In any case; `None` is no method.
    fn parse(text: &str) -> Option<Self> {
        Some(match &*text.to_ascii_lowercase() {
            "wrr" | "" => Self::RoundRobin,
            "drr" => Self::Rebalanced,
            "leastconn" => Self::LeastConnections,
            "p2c" => Self::TwoChoices,
            "hash" => Self::Hash,
            _ => return None,
        })
    }
}

/// What is written of a backend's balancing.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) backend: &'a str,
    pub(super) load_balancer: Option<&'a LoadBalancer>,
    /// In their order, with their URLs.
    pub(super) urls: &'a [&'a str],
}

/// What to say of a method that is none. Such a backend has `wrr`, as in the reference.
pub(super) fn unknown_method(load_balancer: Option<&LoadBalancer>) -> Option<String> {
    let written = load_balancer?;
    Name::parse(&written.method).is_none().then(|| {
        format!(
            "invalid load-balancing method '{}', using wrr",
            written.method
        )
    })
}

/// What `hash` was told.
struct HashOptions {
    by: HashBy,
    /// Percent.
    bound: Option<u32>,
}

fn hash_options(written: Option<&dynamic::Hash>) -> Result<HashOptions, BackendError> {
    let Some(written) = written else {
        return Ok(HashOptions {
            by: HashBy::Source(crate::backend::key::Source::ClientIp),
            bound: None,
        });
    };
    let by = match &*written.extractor_func {
        "" => "client.ip",
        text => text,
    };
    let bound = match written.balance_factor {
        0 => None,
        factor => Some(
            u32::try_from(factor)
                .ok()
                .filter(|factor| *factor > 100)
                .ok_or(BackendError::BalanceFactor(factor))?,
        ),
    };
    Ok(HashOptions {
        by: HashBy::parse(by).ok_or_else(|| BackendError::HashBy(by.to_owned()))?,
        bound,
    })
}

impl Kept {
    /// The balancer of these servers (who each is, and its weight), on core 0.
    ///
    /// # Errors
    /// What `hash` is to do cannot be done.
    pub(super) fn balancer(
        &mut self,
        written: Written<'_>,
        servers: Vec<(Identity, u32)>,
        cores: usize,
    ) -> Result<Balancer, BackendError> {
        let load_balancer = written.load_balancer;
        let name = load_balancer
            .and_then(|written| Name::parse(&written.method))
            .unwrap_or(Name::RoundRobin);
        let hash = (name == Name::Hash)
            .then(|| hash_options(load_balancer.and_then(|written| written.hash.as_ref())))
            .transpose()?;
        let slow_start = load_balancer
            .and_then(|written| written.slow_start)
            .filter(|length| !length.is_zero())
            .map(|length| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX));

        let known = self.know(&servers, name, cores);
        let weights: Box<[u32]> = servers.iter().map(|(_, weight)| *weight).collect();
        let made_for = MadeFor {
            servers,
            method: name,
            is_bounded: hash.as_ref().is_some_and(|hash| hash.bound.is_some()),
            slow_start,
            cores,
        };
        if self.made_for.as_ref() != Some(&made_for) {
            self.remake(made_for, &known, &weights);
        }
        let loads = || -> Loads { known.iter().map(|one| Arc::clone(&one.load)).collect() };
        let method = match (name, hash, &self.rebalancer, &self.ring) {
            (Name::LeastConnections, ..) => Method::LeastConnections(loads()),
            (Name::TwoChoices, ..) => Method::TwoChoices(loads()),
            (_, _, Some(rebalancer), _) => Method::Rebalanced(Arc::clone(rebalancer)),
            (_, Some(hash), _, Some(ring)) => Method::Hash(Box::new(Hash {
                by: hash.by,
                ring: Arc::clone(ring),
                bound: hash.bound.map(|percent| Bound {
                    percent,
                    loads: loads(),
                }),
            })),
            _ => Method::RoundRobin,
        };
        Ok(Balancer {
            method,
            weights,
            availability: known
                .iter()
                .map(|one| Arc::clone(&one.availability))
                .collect(),
            changes: Arc::clone(&self.changes),
            slow_start,
            sticky: sticky::compile(written.backend, load_balancer, written.urls),
            shard: self.shard(0),
        })
    }

    /// What one core knows of the backend as it was compiled last.
    pub(super) fn shard(&self, core: usize) -> Arc<Shard> {
        Arc::clone(&self.shards[core])
    }

    /// What is known of these servers, in their order; of those that are gone nothing is.
    fn know(&mut self, servers: &[(Identity, u32)], name: Name, cores: usize) -> Vec<Known> {
        let mut before = std::mem::take(&mut self.servers);
        let mut all = Vec::with_capacity(servers.len());
        for (identity, _) in servers {
            let mut one = before.remove(identity).unwrap_or_else(|| Known {
                availability: Arc::new(Availability::new(Arc::clone(&self.changes))),
                load: Arc::new(Load::new(cores)),
                meter: None,
            });
            if name == Name::Rebalanced {
                one.meter.get_or_insert_with(|| Arc::new(Meter::new(cores)));
            } else {
                one.meter = None;
            }
            self.servers.insert(identity.clone(), one.clone());
            all.push(one);
        }
        all
    }

    fn remake(&mut self, made_for: MadeFor, known: &[Known], weights: &[u32]) {
        let needs_tally = match made_for.method {
            Name::RoundRobin | Name::Rebalanced => false,
            Name::LeastConnections | Name::TwoChoices => true,
            Name::Hash => made_for.is_bounded,
        };
        let needs_ramp = made_for.slow_start.is_some();
        self.shards = (0..made_for.cores)
            .map(|core| Arc::new(Shard::new(core, weights.len(), needs_tally, needs_ramp)))
            .collect();
        self.rebalancer = (made_for.method == Name::Rebalanced).then(|| {
            let meters = known.iter().filter_map(|one| one.meter.clone());
            Arc::new(Rebalancer::new(weights.into(), meters.collect()))
        });
        self.ring = (made_for.method == Name::Hash).then(|| {
            let named = |((scheme, host, port), weight): &(Identity, u32)| {
                (format!("{scheme}://{host}:{port}"), *weight)
            };
            let servers: Vec<(String, u32)> = made_for.servers.iter().map(named).collect();
            Arc::new(Ring::new(&servers))
        });
        self.made_for = Some(made_for);
    }
}
