//! Backends: server URLs, weights, and what of a backend outlives a reload. Spec backends 2 and 3.
//!
//! Owns the numbers of upstream addresses (`PoolKey`) in [`Memory`], and there what the parts of a backend keep. Never resolves a name: control does, and brings the addresses.
//! Read next: `balance.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::auth::KnownNonces;
use super::auth_server::AuthServers;
use super::balance::{Kept, Written, unknown_method};
use super::health::{self, Check, Question};
use super::reuse::{Last, MadeBackend, MadeFrontend, MadeTrie};
use super::{Rejection, Severity, World, breaker, buffering, certificate};
use crate::backend::availability::Availability;
use crate::backend::breaker::Breaker;
use crate::backend::ejection::{Ejection, Record, Rule};
use crate::backend::key::Source;
use crate::backend::limit::{Limit, Table};
use crate::backend::shard::Shard;
use crate::backend::{Backend, PoolKey, Scheme, Server};
use crate::config::units::{self, DurationError};
use crate::config::{Dynamic, Shared, dynamic};
use crate::frontend::middleware::rate_limit::{Rate, RateLimit};

/// The URL of a server, as far as it is used: path, query and user are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// Lower case.
    pub scheme: String,
    /// Lower case, without brackets. Empty if the URL names none.
    pub host: String,
    /// As written, or the scheme's.
    pub port: u16,
    /// Host and port as written.
    pub authority: String,
}

/// Why a backend cannot be used; the frontends that name it are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendError {
    Url {
        url: String,
        why: &'static str,
    },
    NegativeWeight,
    NegativeMaxConn,
    /// What `maxConn` is to be counted by.
    MaxConnBy(String),
    /// What is wrong with the expression of its circuit breaker.
    Breaker(String),
    /// A sentence about `ejection`.
    Ejection(&'static str),
    /// A sentence about `healthCheck`.
    HealthCheck(String),
    /// What `hash` is to look at.
    HashBy(String),
    /// How much more than its share a server may bear, in percent.
    BalanceFactor(i64),
    /// A sentence about `buffering`.
    Buffering(String),
    FlushInterval {
        written: String,
        why: DurationError,
    },
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, why } => write!(f, "error parsing server URL {url}: {why}"),
            Self::NegativeMaxConn => f.write_str("maxConn: amount should be >= 0"),
            Self::MaxConnBy(text) => write!(f, "maxConn: unsupported limiting variable: '{text}'"),
            Self::Ejection(why) => f.write_str(why),
            Self::HealthCheck(why) | Self::Breaker(why) => f.write_str(why),
            Self::Buffering(why) => f.write_str(why),
            Self::FlushInterval { written, why } => {
                write!(f, "responseForwarding: flushInterval: {written}: {why}")
            }
            Self::HashBy(text) => {
                write!(f, "loadBalancer.hash: unsupported extractorFunc: '{text}'")
            }
            Self::BalanceFactor(factor) => write!(
                f,
                "loadBalancer.hash: balanceFactor should be 0 or above 100, not {factor}"
            ),
            Self::NegativeWeight => f.write_str("Weight should be >= 0"),
        }
    }
}

impl ServerUrl {
    /// Reads a URL the way the reference does: a missing scheme or host is no error here but at the first request.
    ///
    /// # Errors
    /// The text is no URL at all, or its port is no port.
    pub fn parse(url: &str) -> Result<Self, BackendError> {
        let error = |why| BackendError::Url {
            url: url.to_owned(),
            why,
        };
        if url.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(error("invalid control character in URL"));
        }
        let text = url.split('#').next().unwrap_or_default();
        let (scheme, rest) = match text.split_once(':') {
            Some(("", _)) => return Err(error("missing protocol scheme")),
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            Some((segment, _)) if !segment.contains(['/', '?']) => {
                return Err(error("first path segment in URL cannot contain colon"));
            }
            _ => (String::new(), text),
        };
        let authority = rest
            .strip_prefix("//")
            .map_or("", |rest| rest.split(['/', '?']).next().unwrap_or_default());
        let authority = authority
            .rsplit_once('@')
            .map_or(authority, |(_, authority)| authority);
        if authority.contains(|char: char| char.is_whitespace() || "<>\"\\^`{|}".contains(char)) {
            return Err(error("invalid character in host name"));
        }
        let (host, port) = if let Some(bracketed) = authority.strip_prefix('[') {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| error("missing ']' in host"))?;
            (host, after)
        } else {
            authority
                .find(':')
                .map_or((authority, ""), |colon| authority.split_at(colon))
        };
        let port = match port.strip_prefix(':') {
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| error("invalid port after host"))?)
            }
            None if port.is_empty() => None,
            _ => return Err(error("invalid port after host")),
        };
        Ok(Self {
            port: port.unwrap_or(if scheme == "https" { 443 } else { 80 }),
            host: host.to_ascii_lowercase(),
            authority: authority.strip_suffix(':').unwrap_or(authority).to_owned(),
            scheme,
        })
    }

    /// The host of a URL, if it is a name.
    pub(super) fn named_host(url: &str) -> Option<String> {
        // Nearly all are addresses, and seen to be at once.
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        let host = rest.and_then(|rest| rest.split([':', '/', '?', '#']).next());
        if !url.contains('@') && host.is_some_and(|host| host.parse::<Ipv4Addr>().is_ok()) {
            return None;
        }
        let url = Self::parse(url).ok()?;
        (url.address().is_none() && !url.host.is_empty()).then_some(url.host)
    }

    /// The host, if it is an IP address.
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Which server of a backend, and which connections to it, are the same: scheme, host, port.
pub(super) type Identity = (String, String, u16);

/// What outlives a reload: the numbers of upstream addresses, and balancing positions. Owned by control, one for the
/// life of the process.
#[derive(Debug, Default)]
pub struct Memory {
    pub(super) generation: u64,
    pools: HashMap<Identity, PoolKey>,
    pools_made: u32,
    pools_free: Vec<PoolKey>,
    /// Named another address before this generation.
    pools_renamed: Vec<PoolKey>,
    /// With the generation that no longer has them.
    pools_retired: Vec<(u64, PoolKey)>,
    /// Who may be asked, and balancing positions.
    balancing: HashMap<BackendName, Kept>,
    /// What is under way at backends with `maxConn`.
    under_way: HashMap<BackendName, (Source, Arc<Table>)>,
    breakers: HashMap<BackendName, KeptBreaker>,
    ejections: HashMap<BackendName, KeptEjection>,
    /// What is known of digest authentication.
    pub(super) nonces: KnownNonces,
    /// Where backends stand in a snapshot: one keeps its place as long as it is there, so that what names it need not
    /// be made again because of others.
    places: HashMap<BackendName, u32>,
    /// Places below the highest that nobody has, the lowest last.
    places_free: Vec<u32>,
    pub(super) last: Last,
    pub(super) certificates: certificate::Known,
    /// The rate limits of frontends, by what they were made from.
    rate_limits: HashMap<FrontendName, (Source, Vec<Rate>, Arc<RateLimit>)>,
}

/// Provider, then name.
pub(super) type Name<'a> = (&'a str, &'a str);
pub(super) type BackendName = (String, String);
pub(super) type FrontendName = (String, String);

/// What is known of servers that fail goes on as long as their backend has them.
#[derive(Debug)]
struct KeptEjection {
    rule: Rule,
    records: Vec<(Identity, Arc<Record>)>,
    ejection: Arc<Ejection>,
}

/// A circuit breaker goes on as long as it judges the same servers by the same expression.
#[derive(Debug)]
struct KeptBreaker {
    servers: Vec<Identity>,
    breaker: Arc<Breaker>,
}

impl Memory {
    /// That of the last compilation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Every core serves by `generation` or a newer one, and nothing older is in use any more (each core gave its older
    /// snapshots back): pool keys retired by then may name other addresses from now on. Until this is called a retired
    /// key is not used again, since an exchange under way could put a connection back under it.
    pub fn settle(&mut self, generation: u64) {
        let free = &mut self.pools_free;
        self.pools_retired.retain(|(retired, key)| {
            let settled = *retired <= generation;
            if settled {
                free.push(*key);
            }
            !settled
        });
    }

    /// The circuit breakers in use, with their providers and backends. Their states and figures may be read at any time.
    pub fn breakers(&self) -> impl Iterator<Item = (&str, &str, &Breaker)> {
        self.breakers
            .iter()
            .map(|((provider, name), kept)| (provider.as_str(), name.as_str(), &*kept.breaker))
    }

    pub(super) fn pool(&mut self, identity: &Identity) -> PoolKey {
        if let Some(key) = self.pools.get(identity) {
            return *key;
        }
        let key = match self.pools_free.pop() {
            Some(key) => {
                self.pools_renamed.push(key);
                key
            }
            None => {
                self.pools_made += 1;
                PoolKey(self.pools_made - 1)
            }
        };
        self.pools.insert(identity.clone(), key);
        key
    }

    /// Forgets what this generation does not have. Returns the pool keys that no longer occur, and those that name
    /// another address now: an exchange may have put a connection back after its address was gone.
    pub(super) fn retire(&mut self, used: &Backends<'_>, asked: &AuthServers) -> Vec<PoolKey> {
        let generation = self.generation;
        let keys = used
            .made
            .iter()
            .flatten()
            .flat_map(|made| made.copies[0].servers.iter().map(|server| server.pool))
            .chain(asked.pools());
        // Keys are numbers in a row, so a list says which occur.
        let mut occurs = vec![false; self.pools_made as usize];
        for key in keys {
            occurs[key.0 as usize] = true;
        }
        let mut retired = Vec::new();
        self.pools.retain(|_, key| {
            let kept = occurs[key.0 as usize];
            if !kept {
                retired.push(*key);
            }
            kept
        });
        retired.sort_unstable();
        self.pools_retired
            .extend(retired.iter().map(|key| (generation, *key)));
        retired.append(&mut self.pools_renamed);
        // Every backend that was made has a place, a position in the balancing, and nothing else without these: as many of
        // them as there are backends are those of just these.
        let count = used.made.iter().flatten().count();
        if self.places.len() == count && self.balancing.len() == count {
            return retired;
        }
        let is_asked = |name: &BackendName| used.is_usable(name).is_some();
        self.balancing.retain(|name, _| is_asked(name));
        self.under_way.retain(|name, _| is_asked(name));
        self.breakers.retain(|name, _| is_asked(name));
        self.ejections.retain(|name, _| is_asked(name));
        let free = &mut self.places_free;
        self.places.retain(|name, place| {
            let kept = used.is_usable(name) == Some(true);
            if !kept {
                free.push(*place);
            }
            kept
        });
        free.sort_unstable_by_key(|place| std::cmp::Reverse(*place));
        retired
    }

    fn place(&mut self, name: &BackendName) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = self.places_free.pop().unwrap_or_else(|| {
            u32::try_from(self.places.len()).expect("a configuration has fewer than 2^32 backends")
        });
        self.places.insert(name.clone(), place);
        place
    }

    /// The limit of a backend. What is under way goes on counting while the key stays the same.
    fn max_conn(
        &mut self,
        name: &BackendName,
        written: Option<&dynamic::MaxConn>,
    ) -> Result<Option<Limit>, BackendError> {
        let Some(written) = written.filter(|written| written.amount != 0) else {
            self.under_way.remove(name);
            return Ok(None);
        };
        if written.amount < 0 {
            return Err(BackendError::NegativeMaxConn);
        }
        let source = Source::parse(&written.extractor_func)
            .ok_or_else(|| BackendError::MaxConnBy(written.extractor_func.clone()))?;
        let amount = u32::try_from(written.amount).unwrap_or(u32::MAX);
        let table = match self.under_way.get(name) {
            Some((known, table)) if *known == source => Arc::clone(table),
            _ => {
                let table = Arc::new(Table::new(source.clone()));
                self.under_way
                    .insert(name.clone(), (source, Arc::clone(&table)));
                table
            }
        };
        Ok(Some(Limit::new(amount, table)))
    }

    /// The circuit breaker of a backend with these servers; an unchanged one keeps its state and what it has counted.
    fn breaker(
        &mut self,
        name: &BackendName,
        written: Option<&dynamic::CircuitBreaker>,
        servers: Vec<Identity>,
        cores: usize,
    ) -> Result<Option<Arc<Breaker>>, BackendError> {
        let Some(written) = written else {
            self.breakers.remove(name);
            return Ok(None);
        };
        let kept = self.breakers.get(name).filter(|kept| {
            kept.servers == servers && kept.breaker.is_of(&written.expression, cores)
        });
        if let Some(kept) = kept {
            return Ok(Some(Arc::clone(&kept.breaker)));
        }
        let breaker =
            breaker::compile(&written.expression, cores).map_err(BackendError::Breaker)?;
        let breaker = Arc::new(breaker);
        let kept = KeptBreaker {
            servers,
            breaker: Arc::clone(&breaker),
        };
        self.breakers.insert(name.clone(), kept);
        Ok(Some(breaker))
    }

    /// Which of a backend's servers fail too often. Servers that stay are known as before; without the option nobody is
    /// away for this reason.
    fn ejection(
        &mut self,
        name: &BackendName,
        rule: Option<Rule>,
        servers: Vec<(Identity, Arc<Availability>)>,
    ) -> Option<Arc<Ejection>> {
        let known = self.ejections.remove(name);
        let Some(rule) = rule else {
            for (_, record) in known.into_iter().flat_map(|known| known.records) {
                record.readmit();
            }
            return None;
        };
        let (known_rule, mut known, ejection) = match known {
            Some(known) => (Some(known.rule), known.records, Some(known.ejection)),
            None => (None, Vec::new(), None),
        };
        let is_same = known_rule == Some(rule)
            && known
                .iter()
                .map(|(identity, _)| identity)
                .eq(servers.iter().map(|(identity, _)| identity));
        let records = if is_same {
            known
        } else {
            let mut record = |(identity, availability)| {
                let at = known.iter().position(|(known, _)| *known == identity);
                match at {
                    Some(at) => known.swap_remove(at),
                    None => (identity, Arc::new(Record::new(availability))),
                }
            };
            servers.into_iter().map(&mut record).collect()
        };
        let ejection = ejection.filter(|_| is_same).unwrap_or_else(|| {
            let records = records.iter().map(|(_, record)| Arc::clone(record));
            Arc::new(Ejection::new(rule, records.collect()))
        });
        let kept = KeptEjection {
            rule,
            records,
            ejection: Arc::clone(&ejection),
        };
        self.ejections.insert(name.clone(), kept);
        Some(ejection)
    }

    /// The rate limit of a frontend; an unchanged one keeps its buckets.
    pub(super) fn rate_limit(
        &mut self,
        name: FrontendName,
        source: Source,
        rates: Vec<Rate>,
    ) -> Arc<RateLimit> {
        match self.rate_limits.get(&name) {
            Some((known, known_rates, limit)) if *known == source && *known_rates == rates => {
                Arc::clone(limit)
            }
            _ => {
                let limit = Arc::new(RateLimit::new(source.clone(), rates.clone().into()));
                self.rate_limits
                    .insert(name, (source, rates, Arc::clone(&limit)));
                limit
            }
        }
    }

    /// Forgets the rate limits of frontends that have none any more.
    pub(super) fn retire_rate_limits(&mut self, is_used: impl Fn(&FrontendName) -> bool) {
        self.rate_limits.retain(|name, _| is_used(name));
    }

    /// The position of a core in a backend that was compiled before.
    pub(super) fn shard(&self, name: &BackendName, core: usize) -> Arc<Shard> {
        self.balancing[name].shard(core)
    }
}

/// The backends that frontends have asked for so far.
#[derive(Debug, Default)]
pub(super) struct Backends<'a> {
    /// Each at its place, which is its id.
    made: Vec<Option<MadeBackend>>,
    written: HashMap<Name<'a>, Asked<'a>>,
    pub(super) host_names: BTreeSet<String>,
    pub(super) checks: Vec<Check>,
    /// Of options for which something else stands.
    pub(super) rejections: Vec<Rejection>,
    /// What there was before, less what is used again.
    pub(super) last: Last,
}

/// A backend that frontends may ask for.
#[derive(Debug)]
struct Asked<'a> {
    written: &'a Shared<dynamic::Backend>,
    /// `None` before the first one does.
    id: Option<Result<u32, BackendError>>,
}

impl<'a> Backends<'a> {
    /// None yet, in this world.
    pub(super) fn new(
        providers: &'a BTreeMap<String, Arc<Dynamic>>,
        world: &World,
        memory: &mut Memory,
    ) -> Self {
        // One list of all: a look into the sorted ones of the providers for each frontend costs several times as much.
        let count = providers.values().map(|written| written.backends.len());
        let mut written = HashMap::with_capacity(count.sum());
        for (provider, dynamic) in providers {
            written.extend(dynamic.backends.iter().map(|(name, written)| {
                let asked = Asked { written, id: None };
                ((provider.as_str(), name.as_str()), asked)
            }));
        }
        Self {
            written,
            last: std::mem::take(&mut memory.last).in_world(world),
            ..Self::default()
        }
    }

    /// Id of the backend, compiling it if this is the first frontend that names it. `None`: there is no such backend.
    pub(super) fn id(
        &mut self,
        name: Name<'a>,
        world: &World,
        memory: &mut Memory,
    ) -> Option<Result<u32, BackendError>> {
        let asked = self.written.get(&name)?;
        if let Some(known) = &asked.id {
            return Some(known.clone());
        }
        let written = asked.written;
        let made = match self.last.backend(name, written, world) {
            Some(made) => Ok(made),
            None => {
                let name = (name.0.to_owned(), name.1.to_owned());
                self.compile(&name, written, world, memory)
            }
        };
        let id = made.map(|made| self.put(made));
        if let Some(asked) = self.written.get_mut(&name) {
            asked.id = Some(id.clone());
        }
        Some(id)
    }

    /// Whether a backend that was asked for can be used.
    fn is_usable(&self, name: &BackendName) -> Option<bool> {
        let asked = self.written.get(&(name.0.as_str(), name.1.as_str()));
        Some(asked?.id.as_ref()?.is_ok())
    }

    fn put(&mut self, made: MadeBackend) -> u32 {
        self.checks.extend_from_slice(&made.checks);
        self.host_names.extend(made.host_names.iter().cloned());
        let place = made.place;
        let at = place as usize;
        if self.made.len() <= at {
            self.made.resize_with(at + 1, || None);
        }
        self.made[at] = Some(made);
        place
    }

    /// Those of a core, by their ids. Where a backend is gone another one stands, which nothing names there.
    pub(super) fn of_core(&self, core: usize) -> Vec<Arc<Backend>> {
        let any = self.made.iter().flatten().next();
        let places = self.made.iter();
        places
            .filter_map(|made| made.as_ref().or(any))
            .map(|made| Arc::clone(&made.copies[core]))
            .collect()
    }

    /// With the frontends that use them and their tries, what the next compilation may use again.
    pub(super) fn remembered(
        mut self,
        tries: Vec<MadeTrie>,
        frontends: impl Iterator<Item = (Name<'a>, &'a Shared<dynamic::Frontend>, MadeFrontend)>,
    ) -> Last {
        let backends = self.written.into_iter().filter_map(|(name, asked)| {
            let made = self.made[asked.id?.ok()? as usize].take()?;
            Some((name, asked.written, made))
        });
        self.last.replaced(tries, frontends, backends)
    }

    fn compile(
        &mut self,
        name: &BackendName,
        written: &dynamic::Backend,
        world: &World,
        memory: &mut Memory,
    ) -> Result<MadeBackend, BackendError> {
        let said = self.rejections.len();
        let mut host_names = Vec::new();
        // The last server by name wins where several have one identity.
        let mut by_identity: BTreeMap<Identity, &str> = BTreeMap::new();
        let mut parsed = Vec::with_capacity(written.servers.len());
        for (name, server) in &written.servers {
            let url = ServerUrl::parse(&server.url)?;
            let weight = weight(server.weight, world.allow_min_weight_zero)?;
            let identity = (url.scheme.clone(), url.host.clone(), url.port);
            by_identity.insert(identity.clone(), name);
            parsed.push((name, server, url, identity, weight));
        }
        parsed.retain(|(name, _, _, identity, _)| by_identity[identity] == name.as_str());

        if let Some(message) = unknown_method(written.load_balancer.as_ref()) {
            let place = written.load_balancer.as_ref().map(|it| it.place.clone());
            self.rejections.push(Rejection {
                place: place.unwrap_or_else(|| written.place.clone()),
                severity: Severity::Warning,
                message: format!("Backend {}: {message}", name.1),
            });
        }
        let urls: Vec<&str> = parsed.iter().map(|(_, server, ..)| &*server.url).collect();
        let weighted = parsed
            .iter()
            .map(|(.., identity, weight)| (identity.clone(), *weight));
        let balancer = memory.balancing.entry(name.clone()).or_default().balancer(
            Written {
                backend: &name.1,
                load_balancer: written.load_balancer.as_ref(),
                urls: &urls,
            },
            weighted.collect(),
            world.cores.max(1),
        )?;

        let servers = parsed
            .iter()
            .zip(&balancer.availability)
            .map(|((name, server, url, identity, _), availability)| {
                let scheme = match &*url.scheme {
                    _ if url.host.is_empty() => Scheme::Unsupported,
                    "http" => Scheme::Http,
                    "https" => Scheme::Https,
                    "h2c" => Scheme::H2c,
                    _ => Scheme::Unsupported,
                };
                let addresses = match url.address() {
                    Some(address) => vec![SocketAddr::new(address, url.port)],
                    None => {
                        let found = world
                            .addresses
                            .get(&url.host)
                            .map(Vec::as_slice)
                            .unwrap_or_default();
                        found
                            .iter()
                            .map(|address| SocketAddr::new(*address, url.port))
                            .collect()
                    }
                };
                if url.address().is_none() && !url.host.is_empty() {
                    host_names.push(url.host.clone());
                }
                Server {
                    name: (*name).clone(),
                    url: server.url.clone(),
                    scheme,
                    authority: url.authority.as_bytes().into(),
                    host: url.host.as_str().into(),
                    addresses,
                    pool: memory.pool(identity),
                    availability: Arc::clone(availability),
                }
            })
            .collect::<Vec<_>>();
        let question = match &written.health_check {
            Some(check) => {
                let default = world.health_interval;
                health::question(&name.1, check, default, &mut self.rejections)
                    .map_err(BackendError::HealthCheck)?
            }
            None => None,
        };
        let identities = parsed
            .iter()
            .map(|(_, _, _, identity, _)| identity.clone())
            .collect();
        let cores = world.cores.max(1);
        let breaker = memory.breaker(name, written.circuit_breaker.as_ref(), identities, cores)?;
        let rule = written.ejection.as_ref().map(ejection_rule).transpose()?;
        let known = parsed
            .iter()
            .zip(&servers)
            .map(|((_, _, _, identity, _), server)| {
                (identity.clone(), Arc::clone(&server.availability))
            })
            .collect();
        let ejection = memory.ejection(name, rule, known);
        if let Some(forwarding) = &written.response_forwarding {
            check_flush_interval(&forwarding.flush_interval)?;
        }
        let max_conn = memory.max_conn(name, written.max_conn.as_ref())?;
        let buffering = written.buffering.as_ref().map(buffering::compile);
        let buffering = buffering.transpose().map_err(BackendError::Buffering)?;
        let checks = question.map(|question| {
            let checks = servers
                .iter()
                .zip(&balancer.weights)
                .map(|(server, weight)| Check {
                    backend: name.1.clone(),
                    weight: *weight,
                    availability: Arc::clone(&server.availability),
                    addresses: server.addresses.iter().map(SocketAddr::ip).collect(),
                    question: Question {
                        server: server.url.clone(),
                        ..question.clone()
                    },
                });
            checks.collect()
        });

        let first = Backend {
            name: name.1.clone(),
            servers,
            balancer,
            breaker,
            ejection,
            max_conn,
            buffering,
        };
        let others = (1..cores).map(|core| {
            let mut copy = first.clone();
            copy.balancer.shard = memory.shard(name, core);
            Arc::new(copy)
        });
        let others: Vec<_> = others.collect();
        Ok(MadeBackend {
            place: memory.place(name),
            copies: std::iter::once(Arc::new(first)).chain(others).collect(),
            host_names,
            checks: checks.unwrap_or_default(),
            is_reusable: self.rejections.len() == said,
        })
    }
}

fn ejection_rule(written: &dynamic::Ejection) -> Result<Rule, BackendError> {
    let error = |why| move || BackendError::Ejection(why);
    Ok(Rule {
        failures: u32::try_from(written.failures)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(error("ejection: failures should be > 0"))?,
        time: u64::try_from(written.time.as_millis())
            .ok()
            .filter(|time| *time > 0)
            .ok_or_else(error("ejection: time should be > 0"))?,
        share: u32::try_from(written.max_share)
            .ok()
            .filter(|share| *share <= 100)
            .ok_or_else(error("ejection: maxShare should be from 0 to 100"))?,
    })
}

/// Whether a flush interval can be read. Its value changes nothing: what arrives is passed on at once, so that nothing waits
/// as long as any interval allows (spec backends 10). A negative one asks for just that.
fn check_flush_interval(written: &str) -> Result<(), BackendError> {
    if written.is_empty() {
        return Ok(());
    }
    units::duration(written.strip_prefix('-').unwrap_or(written))
        .map(drop)
        .map_err(|why| BackendError::FlushInterval {
            written: written.to_owned(),
            why,
        })
}

/// Spec backends 2.2; what was not written is 1 in either mode.
fn weight(written: Option<i64>, allow_zero: bool) -> Result<u32, BackendError> {
    match written {
        None => Ok(1),
        Some(weight) if weight < 0 => Err(BackendError::NegativeWeight),
        Some(0) if !allow_zero => Ok(1),
        Some(weight) => Ok(u32::try_from(weight).unwrap_or(u32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is `scheme host port authority`, or the reason.
    fn check(url: &str, expected: &str) {
        let said = match ServerUrl::parse(url) {
            Ok(ServerUrl {
                scheme,
                host,
                port,
                authority,
            }) => format!("{scheme} {host} {port} {authority}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(said, expected, "URL {url:?}");
    }

    #[test]
    fn urls() {
        check(
            "http://127.0.0.1:8080",
            "http 127.0.0.1 8080 127.0.0.1:8080",
        );
        check("http://Web.Test", "http web.test 80 Web.Test");
        check("https://web.test/", "https web.test 443 web.test");
        check(
            "http://u:p@web.test:81/a:b?c#d",
            "http web.test 81 web.test:81",
        );
        check("http://[::1]:81/x", "http ::1 81 [::1]:81");
        check("http://[::1]", "http ::1 80 [::1]");
        check("http://web.test:/", "http web.test 80 web.test");
        check("h2c://a:1", "h2c a 1 a:1");
        check("ftp://a", "ftp a 80 a");
        check("//host", " host 80 host");
    }

    #[test]
    fn no_urls() {
        let colon = "first path segment in URL cannot contain colon";
        check(
            "127.0.0.1:80",
            &format!("error parsing server URL 127.0.0.1:80: {colon}"),
        );
        check(
            "http://a:b",
            "error parsing server URL http://a:b: invalid port after host",
        );
        check(
            "http://a:99999",
            "error parsing server URL http://a:99999: invalid port after host",
        );
        check(
            "http://a:1:2",
            "error parsing server URL http://a:1:2: invalid port after host",
        );
        check(
            "http://[::1",
            "error parsing server URL http://[::1: missing ']' in host",
        );
        check(
            ":80",
            "error parsing server URL :80: missing protocol scheme",
        );
        check(
            "http://a b",
            "error parsing server URL http://a b: invalid character in host name",
        );
    }

    #[test]
    fn weights() {
        for (written, off, on) in [
            (None, 1, 1),
            (Some(0), 1, 0),
            (Some(3), 3, 3),
            (Some(i64::MAX), u32::MAX, u32::MAX),
        ] {
            assert_eq!(
                (weight(written, false), weight(written, true)),
                (Ok(off), Ok(on)),
                "{written:?}"
            );
        }
        assert_eq!(weight(Some(-1), true), Err(BackendError::NegativeWeight));
    }

    #[test]
    fn flush_intervals_are_read_and_keep_nothing_back() {
        for fine in ["", "0", "1", "-1", "10ms", "1m30s", "-1s"] {
            assert_eq!(check_flush_interval(fine), Ok(()), "{fine}");
        }
        for wrong in ["zz", "-", "1.5", "--1s"] {
            let error = check_flush_interval(wrong).expect_err("no interval");
            let said = error.to_string();
            assert!(
                said.starts_with("responseForwarding: ") && said.contains(wrong),
                "{said}"
            );
        }
    }
}
