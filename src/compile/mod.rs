//! Configuration in, snapshot and rejections out.
//!
//! Pure: no clock, no files, no sockets; the same input gives the same snapshot. Bad parts never stop good ones.
//! Read next: `rule.rs`.

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
mod middleware;
mod redirect;
mod reuse;
pub mod rule;
pub mod settings;
mod sticky;
pub mod template;
#[cfg(test)]
mod twin;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use self::auth::Surroundings;
use self::auth_server::{Address, AuthServers};
use self::backend::{Backends, ServerUrl};
use self::frontend::{Compiler, Routes};
use self::health::Check;
use self::reuse::{InTrie, MadeFrontend, MadeTrie};
use self::template::Expressions;
use crate::backend::BackendId;
use crate::config::dynamic::AuthForward;
use crate::config::{Dynamic, Place, Shared, dynamic};
use crate::frontend::error_page::ErrorPage;
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::auth::digest::Nonces;
use crate::frontend::middleware::auth::forward::AuthServerId;
use crate::frontend::middleware::rate_limit::RateLimit;
use crate::frontend::modifier::Modifiers;
use crate::frontend::{Frontend, FrontendId};
use crate::snapshot::{AuthServer, EntryPointId, Proofs, Snapshot};
use crate::tls;

pub use self::auth_server::{OfEntryPoint, of_entry_points};
pub use self::backend::Memory;
pub use self::frontend::priority;
pub use self::hosts::Hosts;
pub use self::redirect::Target;
pub use crate::tls::Missed;

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
    /// Where each entry point of the configuration is, opened or not: what redirects may name.
    pub targets: BTreeMap<String, Target>,
    /// In the same order: the TLS of each, with its fixed certificates.
    pub tls: Vec<Option<tls::Server>>,
    /// Entry points of a frontend or certificate that names none.
    pub default_entry_points: Vec<String>,
    /// `keepTrailingSlash`: a path that differs by its last slash is another path, instead of a 301.
    pub keep_trailing_slash: bool,
    /// `allowMinWeightZero`: a written weight of 0 means never, instead of 1.
    pub allow_min_weight_zero: bool,
    /// The authentication servers of entry points, from [`of_entry_points`].
    pub auth_servers: Vec<OfEntryPoint>,
    /// Addresses of server host names (lower case), from [`host_names`]. A missing name has no address.
    pub addresses: BTreeMap<String, Vec<IpAddr>>,
    /// What is in the files that frontends name, from [`files`]. One that is not there has no entry.
    pub files: BTreeMap<String, Result<Vec<u8>, String>>,
    /// Time between two health checks where a backend sets none.
    pub health_interval: Duration,
    /// What proves names over HTTP, if that is configured.
    pub proofs: Option<Proofs>,
    /// What proves names in handshakes, on every entry point with TLS.
    pub tls_proofs: Vec<tls::Certificate>,
    /// Who is told of names without a certificate, of which entry point.
    pub missed: Option<(String, Missed)>,
    /// Snapshots to make, at least 1.
    pub cores: usize,
}

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
    let tries = backends.last.tries(in_tries(&accepted, world), cores);
    let mut first = Snapshot {
        generation: memory.generation,
        pools_retired,
        ..of_core(0, &tries, &accepted, &backends)
    };
    backends.host_names.append(&mut auth_servers.host_names);
    first.auth_servers = auth_servers.made;
    first.tls = certificate::dynamic(providers, world, &mut rejections);
    first.proofs = world.proofs.clone().map(Box::new);
    let snapshots = spread(first, cores, |core| {
        of_core(core, &tries, &accepted, &backends)
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

/// The names in `Host` matchers of each rule on an entry point, lower case: what certificates can be ordered for.
pub fn names_of_rules(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    entry_point: &str,
) -> Vec<Vec<String>> {
    let names = |rule: &str| -> Vec<String> {
        let parsed = rule::parse(rule).unwrap_or_default();
        let hosts = parsed
            .matchers
            .into_iter()
            .filter_map(|matcher| match matcher {
                rule::Matcher::Host(names) => Some(names),
                _ => None,
            });
        hosts
            .flatten()
            .filter(|name| !name.is_empty() && !name.contains('{'))
            .collect()
    };
    rules_on(providers, world, entry_point)
        .map(names)
        .filter(|names| !names.is_empty())
        .collect()
}

/// The rules of frontends on an entry point.
fn rules_on<'a>(
    providers: &'a BTreeMap<String, Arc<Dynamic>>,
    world: &'a World,
    entry_point: &'a str,
) -> impl Iterator<Item = &'a str> {
    let is_on = move |frontend: &dynamic::Frontend| match &*frontend.entry_points {
        [] => world
            .default_entry_points
            .iter()
            .any(|name| name == entry_point),
        names => names.iter().any(|name| name == entry_point),
    };
    providers
        .values()
        .flat_map(|written| written.frontends.values())
        .filter(move |frontend| is_on(frontend))
        .flat_map(|frontend| frontend.routes.values())
        .map(|route| &*route.rule)
}

/// What the certificates of an entry point are for: those of its own, and those of providers other than `but`.
pub fn names_of_certificates(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    world: &World,
    entry_point: &str,
    but: &str,
) -> Vec<String> {
    certificate::names(providers, world, entry_point, but)
}

/// Host names of all servers that are not IP addresses, lower case: what [`World::addresses`] should answer. Those that
/// decide who may pass are among them.
pub fn host_names(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    of_entry_points: &[OfEntryPoint],
) -> BTreeSet<String> {
    let servers = providers
        .values()
        .flat_map(|written| written.backends.values())
        .flat_map(|backend| backend.servers.values())
        .filter_map(|server| ServerUrl::named_host(&server.url));
    let asked = sections(providers).filter_map(auth_server::asked);
    let asked = asked.chain(of_entry_points.iter().map(|one| &one.written));
    servers
        .chain(asked.filter_map(auth_server::host_name))
        .collect()
}

/// Files that options of frontends name, and those that authentication servers of entry points need: what
/// [`World::files`] should hold.
pub fn files(
    providers: &BTreeMap<String, Arc<Dynamic>>,
    of_entry_points: &[OfEntryPoint],
) -> BTreeSet<String> {
    let of_entry_points = of_entry_points.iter().map(|one| &one.written);
    sections(providers)
        .flat_map(auth::files)
        .chain(of_entry_points.flat_map(auth_server::files))
        .collect()
}

/// The section `auth` of every frontend that has one.
fn sections(providers: &BTreeMap<String, Arc<Dynamic>>) -> impl Iterator<Item = &dynamic::Auth> {
    providers
        .values()
        .flat_map(|written| written.frontends.values())
        .filter_map(|frontend| frontend.auth.as_ref())
}

/// A frontend under compilation.
#[derive(Clone, Copy)]
struct Job<'a> {
    provider: &'a str,
    name: &'a str,
    frontend: &'a Shared<dynamic::Frontend>,
    world: &'a World,
}

/// A frontend that will be served.
struct Accepted<'a> {
    provider: &'a str,
    name: &'a str,
    frontend: &'a Shared<dynamic::Frontend>,
    made: MadeFrontend,
}

/// Where and why a frontend is left out.
type Refusal = (Place, String);

impl<'a> Job<'a> {
    fn refuse(&self, why: impl fmt::Display) -> Refusal {
        (
            self.frontend.place.clone(),
            format!("{why}. Skipping frontend {}...", self.name),
        )
    }

    /// What the last compilation made of it, if it would come out so again.
    fn again(&self, backends: &mut Backends<'a>, memory: &mut Memory) -> Option<MadeFrontend> {
        let name = (self.provider, self.name);
        let made = backends.last.frontend(name, self.frontend)?;
        let pages = self.frontend.errors.values().map(|page| &page.backend);
        let mut used = iter::once(&self.frontend.backend).chain(pages);
        let mut is_there = |backend: &'a String| {
            let id = backends.id((self.provider, backend), self.world, memory);
            id.and_then(Result::ok).map(BackendId)
        };
        let is_same = made
            .uses
            .iter()
            .all(|before| used.next().and_then(&mut is_there) == Some(*before));
        (is_same && used.next().is_none()).then_some(made)
    }

    fn make(
        &self,
        backends: &mut Backends<'a>,
        expressions: &mut Expressions,
        auth_servers: &mut AuthServers,
        memory: &mut Memory,
        rejections: &mut Vec<Rejection>,
    ) -> Result<MadeFrontend, Refusal> {
        let said = rejections.len();
        let entry_points = self.entry_points(rejections)?;
        let backend = self.backend(backends, memory)?;
        let Routes {
            matchers,
            modifiers,
        } = self.routes(expressions, rejections)?;
        let middlewares = self.middlewares(&modifiers, expressions, auth_servers, memory)?;
        let rate_limit = self.rate_limit(memory)?;
        let error_pages = self.error_pages(backends, memory, rejections)?;
        let uses = error_pages.iter().map(|page| page.backend);
        let uses = iter::once(backend).chain(uses).collect();
        let auth = self.frontend.auth.as_ref();
        let hangs_on_others =
            auth.is_some_and(|auth| auth.forward.is_some() || auth::files(auth).next().is_some());
        let frontend = Frontend {
            name: self.name.to_owned(),
            provider: self.provider.to_owned(),
            backend,
            pass_host_header: self.frontend.pass_host_header,
            pass_tls_cert: self.frontend.pass_tls_cert,
            modifiers,
            middlewares,
            rate_limit,
            error_pages,
        };
        Ok(MadeFrontend {
            entry_points,
            matchers: matchers.into(),
            copies: self.copies(frontend),
            uses,
            is_reusable: !hangs_on_others && rejections.len() == said,
        })
    }

    /// One for each core, which is all that reads it.
    ///
    /// A copied `Regex` shares the compiled program, which nobody writes (nor its reference count, but here and where the
    /// copy is dropped), and makes a pool of search caches of its own: the first thread to use a pool, the core, takes
    /// its cache without a lock. So copies cost no second compilation and cores do not meet.
    fn copies(&self, frontend: Frontend) -> Box<[Arc<Frontend>]> {
        let others = (1..self.world.cores.max(1)).map(|_| Arc::new(frontend.clone()));
        let others: Vec<_> = others.collect();
        iter::once(Arc::new(frontend)).chain(others).collect()
    }

    fn entry_points(&self, rejections: &mut Vec<Rejection>) -> Result<Vec<EntryPointId>, Refusal> {
        let Self {
            name,
            frontend,
            world,
            ..
        } = *self;
        let names = match &*frontend.entry_points {
            [] => &world.default_entry_points,
            _ => &frontend.entry_points,
        };
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for name in names {
            match world.entry_points.iter().position(|known| known == name) {
                Some(at) => known.push(EntryPointId(
                    u16::try_from(at).expect("entry points are few"),
                )),
                None => unknown.push(name.as_str()),
            }
        }
        if !unknown.is_empty() {
            rejections.push(Rejection {
                place: frontend.place.clone(),
                severity: Severity::Error,
                message: format!(
                    "Undefined entry point(s) '{}' for frontend {name}",
                    unknown.join(",")
                ),
            });
        }
        if known.is_empty() {
            return Err((
                frontend.place.clone(),
                format!("no entrypoint defined for frontend {name}"),
            ));
        }
        // A name given twice counts once.
        known.sort_unstable();
        known.dedup();
        if frontend.pass_tls_cert {
            let has_tls =
                |at: &EntryPointId| matches!(world.tls.get(usize::from(at.0)), Some(Some(_)));
            let (with_tls, without): (Vec<_>, Vec<_>) = known.into_iter().partition(has_tls);
            for at in without {
                rejections.push(Rejection {
                    place: frontend.place.clone(),
                    severity: Severity::Error,
                    message: format!(
                        "passTLSCert: no TLS provided by entry point {}. Skipping frontend {name} there...",
                        world.entry_points[usize::from(at.0)]
                    ),
                });
            }
            if with_tls.is_empty() {
                return Err(self.refuse("passTLSCert: no TLS provided"));
            }
            known = with_tls;
        }
        Ok(known)
    }

    fn backend(
        &self,
        backends: &mut Backends<'a>,
        memory: &mut Memory,
    ) -> Result<BackendId, Refusal> {
        let Self {
            provider,
            name,
            frontend,
            world,
        } = *self;
        let Some(id) = backends.id((provider, &frontend.backend), world, memory) else {
            let message = format!(
                "undefined backend '{}' for frontend {name}",
                frontend.backend
            );
            return Err((frontend.place.clone(), message));
        };
        id.map(BackendId).map_err(|error| self.refuse(error))
    }

    /// The error pages, without those whose backend is of no use.
    fn error_pages(
        &self,
        backends: &mut Backends<'a>,
        memory: &mut Memory,
        rejections: &mut Vec<Rejection>,
    ) -> Result<Box<[ErrorPage]>, Refusal> {
        let mut pages = Vec::with_capacity(self.frontend.errors.len());
        for (name, page) in &self.frontend.errors {
            let statuses = error_page::statuses(page).map_err(|why| {
                let why = format!("{why}. Skipping frontend {}...", self.name);
                (page.place.clone(), why)
            })?;
            let backend = if page.backend == self.frontend.backend {
                Err("is the frontend's own".to_owned())
            } else {
                match backends.id((self.provider, &page.backend), self.world, memory) {
                    None => Err("is not defined".to_owned()),
                    Some(id) => id.map_err(|error| format!("cannot be used: {error}")),
                }
            };
            match backend {
                Ok(backend) => pages.push(ErrorPage {
                    statuses,
                    backend: BackendId(backend),
                    query: page.query.strip_prefix('/').unwrap_or(&page.query).into(),
                }),
                Err(why) => rejections.push(Rejection {
                    place: page.place.clone(),
                    severity: Severity::Warning,
                    message: format!(
                        "errors: {name} of frontend {} is left out: backend '{}' {why}",
                        self.name, page.backend
                    ),
                }),
            }
        }
        Ok(pages.into())
    }

    fn routes(
        &self,
        expressions: &mut Expressions,
        rejections: &mut Vec<Rejection>,
    ) -> Result<Routes, Refusal> {
        let Self {
            name,
            frontend,
            world,
            ..
        } = *self;
        let compiler = Compiler {
            expressions,
            keep_trailing_slash: world.keep_trailing_slash,
            rejections,
            name,
            place: &frontend.place,
        };
        compiler.routes(frontend).map_err(|(place, why)| {
            let message =
                format!("error creating route for frontend {name}: error parsing rule: {why}. Skipping frontend {name}...");
            (place, message)
        })
    }

    fn rate_limit(&self, memory: &mut Memory) -> Result<Option<Arc<RateLimit>>, Refusal> {
        let Some(written) = &self.frontend.ratelimit else {
            return Ok(None);
        };
        let (source, rates) = middleware::rates(written).map_err(|(place, why)| {
            (place, format!("{why}. Skipping frontend {}...", self.name))
        })?;
        let name = (self.provider.to_owned(), self.name.to_owned());
        Ok((!rates.is_empty()).then(|| memory.rate_limit(name, source, rates)))
    }

    fn middlewares(
        &self,
        modifiers: &Modifiers,
        expressions: &mut Expressions,
        auth_servers: &mut AuthServers,
        memory: &mut Memory,
    ) -> Result<Box<[Middleware]>, Refusal> {
        let restoration = modifiers.restoration();
        let mut surroundings = OfFrontend {
            world: self.world,
            name: (self.provider, self.name),
            auth_servers,
            memory,
        };
        let (frontend, world) = (self.frontend, self.world);
        middleware::of_frontend(frontend, world, restoration, expressions, &mut surroundings)
            .map_err(|(place, why)| (place, format!("{why}. Skipping frontend {}...", self.name)))
    }
}

/// What a section `auth` of a frontend finds.
struct OfFrontend<'a> {
    world: &'a World,
    /// Provider, then name.
    name: (&'a str, &'a str),
    auth_servers: &'a mut AuthServers,
    memory: &'a mut Memory,
}

impl Surroundings for OfFrontend<'_> {
    fn read(&self, path: &str) -> Option<Result<Vec<u8>, String>> {
        self.world.files.get(path).cloned()
    }

    fn nonces(&mut self) -> Arc<Nonces> {
        let (provider, name) = self.name;
        self.memory
            .nonces
            .of((provider.to_owned(), name.to_owned()))
    }

    fn server(&mut self, written: &AuthForward, address: &Address) -> Result<AuthServerId, String> {
        self.auth_servers
            .add(written, address, self.world, self.memory)
    }
}

/// What stands in the trie of each entry point.
fn in_tries(accepted: &[Accepted<'_>], world: &World) -> Vec<InTrie> {
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
fn of_core(
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
fn spread(first: Snapshot, cores: usize, own: impl Fn(usize) -> Snapshot) -> Vec<Snapshot> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::availability::Why;
    use crate::backend::balancer::{Ask, NoServer};
    use crate::backend::breaker::Seen;
    use crate::backend::{Backend, PoolKey, Scheme, ServerId};
    use crate::frontend::Scratch;
    use crate::frontend::example::Request;
    use crate::frontend::trie::Lookup;

    /// Frontends (name, rule, priority) with one backend `b`.
    pub(super) fn dynamic(frontends: &[(&str, &str, i64)]) -> Dynamic {
        let server = dynamic::Server {
            url: "http://127.0.0.1:81".to_owned(),
            ..dynamic::Server::default()
        };
        let backend = dynamic::Backend {
            servers: BTreeMap::from([("s".to_owned(), server)]),
            ..dynamic::Backend::default()
        };
        let frontends = frontends.iter().map(|(name, rule, priority)| {
            let route = dynamic::Route {
                rule: (*rule).to_owned(),
                ..dynamic::Route::default()
            };
            let frontend = dynamic::Frontend {
                backend: "b".to_owned(),
                priority: *priority,
                routes: BTreeMap::from([("r".to_owned(), route)]),
                ..dynamic::Frontend::default()
            };
            ((*name).to_owned(), frontend.into())
        });
        Dynamic {
            frontends: frontends.collect(),
            backends: BTreeMap::from([("b".to_owned(), backend.into())]),
            ..Dynamic::default()
        }
    }

    /// The next choice of a backend.
    fn next(backend: &Backend) -> Result<ServerId, NoServer> {
        let ask = Ask {
            request: &Request::parse("/").head(),
            client: [127, 0, 0, 1].into(),
            now: 0,
        };
        backend.balancer.choose(&ask, &[]).map(|choice| choice.id)
    }

    fn world() -> World {
        World {
            entry_points: vec!["http".to_owned()],
            default_entry_points: vec!["http".to_owned()],
            ..World::default()
        }
    }

    fn compiled(world: &World, dynamic: Dynamic) -> Compiled {
        compile(
            &BTreeMap::from([("file".to_owned(), Arc::new(dynamic))]),
            world,
            &mut Memory::default(),
        )
    }

    /// Name of the frontend, `301 <location>` or `404`.
    pub(super) fn answer(snapshot: &Snapshot, request: &Request, scratch: &mut Scratch) -> String {
        let trie = snapshot.trie(EntryPointId(0)).expect("an entry point");
        match trie.lookup(&request.head(), scratch) {
            Lookup::Frontend(id) => snapshot.frontend(id).name.clone(),
            Lookup::Redirect => format!("301 {}", String::from_utf8_lossy(scratch.location())),
            Lookup::None => "404".to_owned(),
        }
    }

    /// What `request` comes to where this rule is the only one: the target sent to the server and the fields added,
    /// `301 <location>`, or `404`.
    fn check_in(world: &World, rule: &str, request: &str, expected: &str) {
        let snapshot = &compiled(world, dynamic(&[("f", rule, 0)])).snapshots[0];
        let (parsed, mut scratch) = (Request::parse(request), Scratch::default());
        let mut said = answer(snapshot, &parsed, &mut scratch);
        let mut head = parsed.head();
        if said == "f" {
            let sent = head.target().to_vec();
            said = match snapshot.frontends[0]
                .modifiers
                .apply(&mut head, &mut scratch)
            {
                Err(_) => "404".to_owned(),
                Ok(()) => {
                    let original = scratch.original_target().unwrap_or(head.target);
                    assert_eq!(
                        head.text(original),
                        sent,
                        "the original target is still there"
                    );
                    let mut said = String::from_utf8_lossy(head.target()).into_owned();
                    for name in ["X-Forwarded-Prefix", "X-Replaced-Path"] {
                        for value in head.values_named(name.as_bytes()) {
                            said.push_str(&format!(" {name}: {}", String::from_utf8_lossy(value)));
                        }
                    }
                    said
                }
            };
        }
        assert_eq!(said, expected, "rule {rule} request {request}");
    }

    fn check(rule: &str, request: &str, expected: &str) {
        check_in(&world(), rule, request, expected);
    }

    fn yes(rule: &str, request: &str) {
        let target = &request[request.find('/').expect("a path")..];
        check(
            rule,
            request,
            target.split('|').next().expect("a target").trim(),
        );
    }

    fn no(rule: &str, request: &str) {
        check(rule, request, "404");
    }

    /// Which of several frontends answers.
    fn check_order(frontends: &[(&str, &str, i64)], request: &str, expected: &str) {
        let snapshot = &compiled(&world(), dynamic(frontends)).snapshots[0];
        let parsed = Request::parse(request);
        assert_eq!(
            answer(snapshot, &parsed, &mut Scratch::default()),
            expected,
            "{frontends:?} request {request}"
        );
    }

    fn messages(world: &World, dynamic: Dynamic) -> Vec<String> {
        compiled(world, dynamic)
            .rejections
            .into_iter()
            .map(|rejection| rejection.message)
            .collect()
    }

    #[test]
    fn grammar() {
        yes(";;Path:/x;", "/x");
        yes("Headers:X-A,a::c", "/|X-A: a:c");
        no("Headers:X-A,a::c", "/|X-A: a::c");
        no("Host:[::1]", "[::1]:80/");
        no("Path:/{n:[0-9]{1,3}}", "/12");
        check(
            "PathPrefix:/x;ReplacePathRegex:^/x/([0-9]{1,3}) /y/$1",
            "/x/1",
            "/x/1",
        );
        yes(" Path : /sp , /sp2 ", "/sp2");
        yes("Path:/it is", "/it%20is");
        yes("Path:/café", "/caf%C3%A9");
        no("Path:/caf%C3%A9", "/caf%C3%A9");
        no("Path:/a;Path:/b", "/a");
        yes("PathPrefix:/a;PathPrefix:/a/b", "/a/b");
    }

    #[test]
    fn templates_that_never_match_leave_the_others_alone() {
        for bad in [
            "Path:foo",
            "Path:/a/{x",
            "HostRegexp:{x:[}",
            "PathPrefix:foo",
            "PathPrefixStripRegex:a",
        ] {
            no(bad, "foo/foo");
        }
        yes("Path:/{x,/good", "/good");
        yes("Query:id={x};Path:/p/{x}", "/p/1?id=2");
        yes("HostRegexp:{x}.t;Path:/{x}/{x}", "a.t/b/c");
    }

    #[test]
    fn host() {
        for host in ["FOO.TEST:1234", "foo.test", "bar.test:1"] {
            yes("Host:Foo.Test,bar.test", &format!("{host}/"));
        }
        no("Host:Foo.Test,bar.test", "foo.test./");
        yes("Host:127.0.0.1", "127.0.0.1:99/");
        no("Host:foo.test:80", "foo.test:80/");
        no("Host:a", "/");
        no("Host: ,", "/");
    }

    #[test]
    fn host_regexp() {
        let rule = "HostRegexp:{sub:[a-z]+}.foo.test,lit.test";
        for host in ["A.FOO.test", "a.foo.test:88", "lit.test"] {
            yes(rule, &format!("{host}/"));
        }
        for host in ["a1.foo.test", "a.foo.test.", "litxtest"] {
            no(rule, &format!("{host}/"));
        }
        no("HostRegexp:{sub}.foo.test", "a.b.foo.test/");
        no("HostRegexp:{sub}.foo.test", ".foo.test/");
        for host in ["anything", "[::1]:80", ""] {
            yes("HostRegexp:{any:.*}", &format!("{host}/"));
        }
        yes("HostRegexp:{x}.abs.test", "q.abs.test:88/x");
    }

    #[test]
    fn what_paths_are_compared_with() {
        yes("PathPrefix:/a/../b", "/a/../b");
        no("PathPrefix:/a/../b", "/b");
        no("Path:/a/{x}", "/a/b%2Fc");
        yes("PathPrefix:/foo", "/%66oo");
    }

    #[test]
    fn last_slashes() {
        let keep = World {
            keep_trailing_slash: true,
            ..world()
        };
        check("Path:/path", "/path", "/path");
        check("Path:/path", "/path/", "301 /path");
        check("Path:/path", "/path//", "404");
        check("Path:/path/", "/path", "301 /path/");
        check("Path:/path/", "/path/", "/path/");
        check("Path:/path/", "/path//", "404");
        check_in(&keep, "Path:/path", "/path", "/path");
        check_in(&keep, "Path:/path", "/path/", "404");
        check_in(&keep, "Path:/path", "/path//", "404");
        check_in(&keep, "Path:/path/", "/path", "404");
        check_in(&keep, "Path:/path/", "/path/", "/path/");
        check_in(&keep, "Path:/path/", "/path//", "404");

        check("Path:/path/", "POST /path?q=1", "301 /path/?q=1");
        check("Path:/a/{x:.*}", "/a/", "301 /a");
        check("Path:/a/{x:.*}", "/a", "404");
        check_in(&keep, "Path:/a/{x:.*}", "/a/", "/a/");
        check("Path:/", "/", "/");
        check("Path:/{x:.*}", "/", "/");
        check("Path:/a/b", "/a%2Fb/", "301 /a%2Fb");
        check("Path:/a/b", "/a/b%2F", "301 /a/b");
        check("Path:/{x:.*}", "//evil.test/", "301 /.//evil.test");
        check("Path:/a;Path:/a/", "/a", "404");
    }

    #[test]
    fn a_redirect_needs_the_whole_frontend() {
        let frontends = [("a", "Path:/foo;Host:a.test", 0), ("b", "Host:b.test", 0)];
        check_order(&frontends, "b.test/foo/", "b");
        check_order(&frontends, "a.test/foo/", "301 /foo");
        check_order(
            &[("a", "Method:POST;Path:/foo", 0), ("b", "PathPrefix:/", 0)],
            "GET /foo/",
            "b",
        );
    }

    #[test]
    fn path_prefix() {
        for path in ["/foo", "/foo/", "/foobar"] {
            yes("PathPrefix:/foo", path);
        }
        no("PathPrefix:/foo", "/Foo");
        no("PathPrefix:/foo/", "/foo");
        yes("PathPrefix:/a/{x}y", "/a/by");
        yes("PathPrefix:/a/{x}y", "/a/byz");
        no("PathPrefix:/a/{x}y", "/a/bz");
    }

    #[test]
    fn method() {
        yes("Method: get, POST", "GET /");
        yes("Method: get, POST", "POST /");
        no("Method: get, POST", "get /");
        no("Method: get, POST", "PUT /");
    }

    #[test]
    fn headers() {
        yes("Headers:x-a,1", "/|X-A: 0|X-A: 1");
        no("Headers:X-A,1", "/|X-A: 1, 2");
        no("Headers:X-A,a", "/|X-A: A");
        yes("Headers:X-A, ", "/|X-A: anything");
        no("Headers:X-A, ", "/");
        no("Headers:Host,a.test", "a.test/");
        no(
            "Headers:Transfer-Encoding,chunked",
            "/|Transfer-Encoding: chunked",
        );
        yes("HeadersRegexp:X-A,b.d", "/|X-A: abcde");
        no("HeadersRegexp:X-A,b.d", "/|X-A: aBcde");
        no("Headers:X-A,1,X-B,2", "/|X-A: 1");
        yes("Headers:X-A,1,X-B,2", "/|X-A: 1|X-B: 2");
    }

    #[test]
    fn query() {
        yes("Query:foo=bar", "/?foo=bar");
        yes("Query:foo=", "/?foo");
        yes("Query:foo=", "/?foo=x");
        yes("Query:foo,bar", "/?foo=bar");
        yes("Query:id={id}", "/?id=");
        no("Query:id={id}", "/?");
        no("Query:foo=bar", "/?foo=baz&foo=bar");
        yes("Query:foo=bar", "/?foo=b%61r");
        yes("Query:foo={x:b.r}", "/?f%6Fo=b%61r");
        no("Query:foo=bar", "/?Foo=bar");
        no("Query:foo=bar", "/?x=1;foo=bar");
        yes("Query:foo=bar", "/?foo=%zz&foo=bar");
        yes("Query: foo=bar, id={id:[0-9]+}", "/?id=12&foo=bar");
        no("Query: foo=bar, id={id:[0-9]+}", "/?id=x&foo=bar");
    }

    #[test]
    fn literal_strip() {
        check("PathPrefixStrip:/foo", "/foo", "/ X-Forwarded-Prefix: /foo");
        check(
            "PathPrefixStrip:/foo",
            "/foo/",
            "/ X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foobar",
            "/bar X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foo//bar",
            "//bar X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foo/a%2Fb?x=%20",
            "/a%2Fb?x=%20 X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foo?",
            "/? X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo/",
            "/foo/bar",
            "/bar X-Forwarded-Prefix: /foo/",
        );
        check(
            "PathPrefixStrip:/a,/ab,/abc",
            "/abcd",
            "/d X-Forwarded-Prefix: /abc",
        );
        check(
            "PathPrefixStrip:/a,/ab,/abc",
            "/abx",
            "/x X-Forwarded-Prefix: /ab",
        );
        check("PathStrip:/foo", "/foo", "/ X-Forwarded-Prefix: /foo");
        check("PathPrefixStrip:/p/{id:[0-9]+}", "/p/12/x", "404");
        check(
            "PathPrefixStrip:/s p",
            "/s%20p/a%2Fb",
            "/a/b X-Forwarded-Prefix: /s p",
        );
        check(
            "PathPrefixStrip:/foo",
            "/%66oo/a(b",
            "/a%28b X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foo/a(b",
            "/a(b X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/a;PathPrefixStrip:/a/b",
            "/a/b/c",
            "/c X-Forwarded-Prefix: /a/b",
        );
        check(
            "PathPrefixStrip:/foo",
            "/foo/x|X-Forwarded-Prefix: /client",
            "/x X-Forwarded-Prefix: /client X-Forwarded-Prefix: /foo",
        );
    }

    #[test]
    fn regex_strip() {
        check(
            "PathStripRegex:/a/{n:[0-9]+}",
            "/a/1",
            "/ X-Forwarded-Prefix: /a/1",
        );
        check(
            "PathPrefixStripRegex:/p/{id:[0-9]+}",
            "/p/12x",
            "/x X-Forwarded-Prefix: /p/12",
        );
        check(
            "PathPrefixStripRegex:/p/{id}/",
            "/p/12/x",
            "/x X-Forwarded-Prefix: /p/12/",
        );
        check(
            "PathPrefixStripRegex:/p/{id}/;AddPrefix:/z",
            "/p/12/x",
            "/zx X-Forwarded-Prefix: /p/12/",
        );
        check(
            "PathPrefixStripRegex:/p/{id};AddPrefix:/z",
            "/p/12",
            "/z X-Forwarded-Prefix: /p/12",
        );
        check(
            "PathPrefixStripRegex:/foo",
            "/foo/a%2Fb",
            "/a%2Fb X-Forwarded-Prefix: /foo",
        );
        check(
            "PathPrefixStrip:/a;PathPrefixStripRegex:/{x}",
            "/a/b/c",
            "404",
        );
        check(
            "PathPrefixStripRegex:/{a:[a-z]+}/{a:[0-9]+}",
            "/x/1/y",
            "/y X-Forwarded-Prefix: /x/1",
        );
        // A decoded line end must not begin a field line.
        check(
            "PathPrefixStripRegex:/{a}",
            "/x%0d%0aE:1/y",
            "/y X-Forwarded-Prefix: /x%0D%0AE:1",
        );
    }

    #[test]
    fn add_prefix() {
        check("AddPrefix:/pre", "/x?q", "/pre/x?q");
        check("AddPrefix:/pre?z=1", "/x", "/pre%3Fz=1/x");
        check("AddPrefix:pre", "/x?q=1", "/pre/x?q=1");
        check("AddPrefix:/pre", "/a%2Fb", "/pre/a%2Fb");
        check(
            "PathPrefixStrip:/a;AddPrefix:/b",
            "/a",
            "/b/ X-Forwarded-Prefix: /a",
        );
    }

    #[test]
    fn replace_path() {
        check(
            "PathPrefixStrip:/a;AddPrefix:/b;ReplacePath:/c",
            "/a/x",
            "/c X-Forwarded-Prefix: /a X-Replaced-Path: /b/x",
        );
        check(
            "ReplacePath:/a?b #c",
            "/x?q=1",
            "/a%3Fb%20%23c?q=1 X-Replaced-Path: /x",
        );
    }

    #[test]
    fn replace_path_regex() {
        let api = "PathPrefix:/api;ReplacePathRegex:^/api/v2/(.*) ";
        check(
            &format!("{api}/v3/$1"),
            "/api/v2/x/y?q=1",
            "/v3/x/y?q=1 X-Replaced-Path: /api/v2/x/y",
        );
        check(
            &format!("{api}/v3/$1x"),
            "/api/v2/x",
            "/v3/ X-Replaced-Path: /api/v2/x",
        );
        check(
            &format!("{api}/v3/${{1}}x"),
            "/api/v2/x",
            "/v3/xx X-Replaced-Path: /api/v2/x",
        );
        check(
            &format!("{api}/v3/$$1"),
            "/api/v2/x",
            "/v3/$1 X-Replaced-Path: /api/v2/x",
        );
        check(&format!("{api}/v3/$1"), "/api/v1/x", "/api/v1/x");
        check(
            "ReplacePathRegex:(?P<n>a+) <${n}>",
            "/xaaya",
            "/x%3Caa%3Ey%3Ca%3E X-Replaced-Path: /xaaya",
        );
        check(
            "ReplacePathRegex:^/(.*) /api/$1",
            "/x%2Fy",
            "/api/x/y X-Replaced-Path: /x/y",
        );
        check("ReplacePathRegex:^/a /b /c", "/a", "/a");
        check("ReplacePathRegex:^/(a /b", "/a", "/a");
        check(
            "ReplacePathRegex:^/a/ b",
            "/a/c",
            "/bc X-Replaced-Path: /a/c",
        );
    }

    #[test]
    fn priority() {
        let frontends = [
            ("a", "PathPrefix:/foo;Host:foo.com", 0),
            ("b", "PathPrefixStrip:/foobar", 0),
            ("c", "PathPrefix:/foo,/bar", 0),
        ];
        check_order(&frontends, "foo.com/foobar", "a");
        check_order(&frontends, "x/foobar", "b");
        check_order(&frontends, "x/foo", "c");
        check_order(
            &[
                ("a", "PathPrefix: /foo   ", 0),
                ("b", "PathPrefix:/foobar", 0),
            ],
            "/foobar",
            "a",
        );
        check_order(
            &[("a", "PathPrefix:/", 100), ("b", "PathPrefix:/foobar", 99)],
            "/foobar",
            "a",
        );
        check_order(
            &[("a", "PathPrefix:/", -5), ("b", "PathPrefix:/f", -9)],
            "/foo",
            "b",
        );
        check_order(
            &[("b", "PathPrefix:/a", 0), ("a", "PathPrefix:/a", 0)],
            "/a",
            "a",
        );
    }

    #[test]
    fn a_frontend_without_routes_takes_what_is_left() {
        let mut dynamic = dynamic(&[("a", "Host:a.test", 0), ("z", "", 0)]);
        dynamic
            .frontends
            .get_mut("z")
            .expect("there")
            .routes
            .clear();
        let snapshot = &compiled(&world(), dynamic).snapshots[0];
        for (request, expected) in [("a.test/", "a"), ("b.test/", "z")] {
            let parsed = Request::parse(request);
            assert_eq!(answer(snapshot, &parsed, &mut Scratch::default()), expected);
        }
    }

    #[test]
    fn routes_are_joined_in_the_order_of_their_names() {
        let mut dynamic = dynamic(&[("f", "PathPrefixStrip:/a", 0)]);
        let route = dynamic::Route {
            rule: "PathPrefixStrip:/a/b".to_owned(),
            ..dynamic::Route::default()
        };
        dynamic
            .frontends
            .get_mut("f")
            .expect("there")
            .routes
            .insert("a".to_owned(), route);
        let snapshot = &compiled(&world(), dynamic).snapshots[0];
        let parsed = Request::parse("/a/b");
        let mut scratch = Scratch::default();
        assert_eq!(answer(snapshot, &parsed, &mut scratch), "f");
        let mut head = parsed.head();
        snapshot.frontends[0]
            .modifiers
            .apply(&mut head, &mut scratch)
            .expect("the last strip list fits");
        assert_eq!(head.target(), b"/b");
    }

    #[test]
    fn providers_are_ordered_by_name() {
        let providers = ["rest", "file"].map(|name| {
            (
                name.to_owned(),
                Arc::new(dynamic(&[(name, "PathPrefix:/", 0)])),
            )
        });
        let compiled = compile(&BTreeMap::from(providers), &world(), &mut Memory::default());
        let parsed = Request::parse("/");
        assert_eq!(
            answer(&compiled.snapshots[0], &parsed, &mut Scratch::default()),
            "file"
        );
    }

    #[test]
    fn a_bad_frontend_is_left_out_completely() {
        let mut dynamic = dynamic(&[("bad", "Host:a.test;Bogus:x", 0), ("all", "", 0)]);
        dynamic
            .frontends
            .get_mut("all")
            .expect("there")
            .routes
            .clear();
        let compiled = compiled(&world(), dynamic);
        let parsed = Request::parse("a.test/");
        assert_eq!(
            answer(&compiled.snapshots[0], &parsed, &mut Scratch::default()),
            "all"
        );
        assert_eq!(
            compiled.rejections[0].message,
            "error creating route for frontend bad: error parsing rule: Unknown function: 'Bogus'. Skipping frontend \
             bad..."
        );
    }

    #[test]
    fn rejections_in_the_words_of_the_reference() {
        let check = |rule: &str, expected: &str| {
            let said = messages(&world(), dynamic(&[("f", rule, 0)]));
            assert!(
                said.len() == 1 && said[0].contains(expected),
                "{rule}: {said:?}"
            );
        };
        check(
            "Headers:X-A",
            "mux: number of parameters must be multiple of 2, got [X-A]. Skipping frontend f...",
        );
        check(
            "Query:foo",
            "invalid expression: foo. Skipping frontend f...",
        );
        check(
            "Query:a={x:[}",
            "error parsing rule: bad regular expression: unclosed character class. Skipping",
        );
        check(
            "HeadersRegexp:A,(",
            "error parsing rule: bad regular expression: unclosed group. Skipping",
        );
        check(
            "Path:foo,/a",
            "'foo' of frontend f never matches: a path must start with a slash",
        );
        check(
            "ReplacePathRegex:/a",
            "Invalid syntax for ReplacePathRegex: /a. Separate the regular expression and",
        );
        check(
            "ReplacePathRegex:( /a",
            "Error compiling regular expression (: ",
        );
    }

    #[test]
    fn rejections_of_frontends() {
        let mut broken = dynamic(&[("f", "Path:/", 0)]);
        broken.frontends.get_mut("f").expect("there").backend = "x".to_owned();
        assert_eq!(
            messages(&world(), broken),
            ["undefined backend 'x' for frontend f"]
        );

        let mut broken = dynamic(&[("f", "Path:/", 0)]);
        broken.frontends.get_mut("f").expect("there").entry_points =
            ["x", "y"].map(str::to_owned).to_vec();
        let expected = [
            "Undefined entry point(s) 'x,y' for frontend f",
            "no entrypoint defined for frontend f",
        ];
        assert_eq!(messages(&world(), broken), expected);

        let mut broken = dynamic(&[("f", "Path:/", 0)]);
        let server = |broken: &mut Dynamic, url: &str, weight| {
            let backend = broken.backends.get_mut("b").expect("there");
            let server = backend.servers.get_mut("s").expect("there");
            (server.url, server.weight) = (url.to_owned(), weight);
        };
        server(&mut broken, "127.0.0.1:80", None);
        let expected = "error parsing server URL 127.0.0.1:80: first path segment in URL cannot contain colon. Skipping \
                        frontend f...";
        assert_eq!(messages(&world(), broken.clone()), [expected]);
        server(&mut broken, "http://a", Some(-1));
        assert_eq!(
            messages(&world(), broken),
            ["Weight should be >= 0. Skipping frontend f..."]
        );

        let mut guarded = dynamic(&[("f", "Path:/", 0)]);
        guarded
            .frontends
            .get_mut("f")
            .expect("there")
            .basic_auth
            .push("a".to_owned());
        let compiled = compiled(&world(), guarded);
        assert_eq!(
            (
                compiled.snapshots[0].frontends.len(),
                compiled.rejections.len()
            ),
            (0, 1)
        );
    }

    /// Servers (name, URL, weight) of backend `b`.
    fn with_servers(servers: &[(&str, &str, Option<i64>)]) -> Dynamic {
        let mut dynamic = dynamic(&[("f", "Path:/", 0)]);
        let written = servers.iter().map(|(name, url, weight)| {
            let server = dynamic::Server {
                url: (*url).to_owned(),
                weight: *weight,
                ..dynamic::Server::default()
            };
            ((*name).to_owned(), server)
        });
        dynamic.backends.get_mut("b").expect("there").servers = written.collect();
        dynamic
    }

    #[test]
    fn servers() {
        let written = with_servers(&[
            ("a", "http://one.test:81/ignored", None),
            ("b", "http://ONE.test:81", Some(3)),
            ("c", "http://10.0.0.1", Some(0)),
            ("d", "ftp://two.test", None),
        ]);
        let one = vec![IpAddr::from([10, 0, 0, 9])];
        let world = World {
            addresses: BTreeMap::from([("one.test".to_owned(), one)]),
            ..world()
        };
        let compiled = compiled(&world, written.clone());
        let backend = &compiled.snapshots[0].backends[0];
        let said: Vec<String> = backend
            .servers
            .iter()
            .map(|server| {
                let authority = String::from_utf8_lossy(&server.authority);
                format!(
                    "{} {:?} {authority} {:?} {:?}",
                    server.name, server.scheme, server.addresses, server.pool
                )
            })
            .collect();
        assert_eq!(
            said,
            [
                "b Http ONE.test:81 [10.0.0.9:81] PoolKey(0)",
                "c Http 10.0.0.1 [10.0.0.1:80] PoolKey(1)",
                "d Unsupported two.test [] PoolKey(2)",
            ]
        );
        let picks: Vec<u32> = (0..5)
            .filter_map(|_| next(backend).ok())
            .map(|id| id.0)
            .collect();
        assert_eq!(picks, [0, 0, 0, 1, 2], "weights 3, 1, 1");
        assert!(compiled.host_names.iter().eq(["one.test", "two.test"]));
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
        assert_eq!(host_names(&providers, &[]), compiled.host_names);
        assert_eq!(backend.server(ServerId(2)).scheme, Scheme::Unsupported);
    }

    #[test]
    fn weight_zero() {
        let zero = World {
            allow_min_weight_zero: true,
            ..world()
        };
        let written = with_servers(&[("a", "http://a", Some(0)), ("b", "http://b", None)]);
        let backend = &compiled(&zero, written).snapshots[0].backends[0];
        assert_eq!(
            (next(backend), next(backend)),
            (Ok(ServerId(1)), Ok(ServerId(1)))
        );
        let written = with_servers(&[("a", "http://a", Some(0))]);
        assert_eq!(
            next(&compiled(&zero, written).snapshots[0].backends[0]),
            Err(NoServer::AllZero)
        );
        let written = with_servers(&[]);
        assert_eq!(
            next(&compiled(&zero, written).snapshots[0].backends[0]),
            Err(NoServer::Empty)
        );
    }

    #[test]
    fn what_a_reload_keeps() {
        let world = World {
            cores: 2,
            ..world()
        };
        let mut memory = Memory::default();
        let reload = |servers: &[(&str, &str, Option<i64>)], memory: &mut Memory| {
            let providers = BTreeMap::from([("file".to_owned(), Arc::new(with_servers(servers)))]);
            compile(&providers, &world, memory).snapshots
        };
        let pools = |snapshot: &Snapshot| -> Vec<u32> {
            snapshot.backends[0]
                .servers
                .iter()
                .map(|server| server.pool.0)
                .collect()
        };

        let (a, b, c) = (
            ("a", "http://a", None),
            ("b", "http://b", None),
            ("c", "http://c", None),
        );
        let first = reload(&[a, b], &mut memory);
        assert_eq!((first[0].generation, pools(&first[0])), (1, vec![0, 1]));
        assert_eq!(
            next(&first[0].backends[0]),
            Ok(ServerId(0)),
            "core 0 begins with the first server"
        );
        assert_eq!(
            next(&first[1].backends[0]),
            Ok(ServerId(1)),
            "core 1 begins with the second"
        );

        let same = reload(&[a, b], &mut memory);
        assert_eq!(
            next(&same[0].backends[0]),
            Ok(ServerId(1)),
            "an unchanged backend goes on where it was"
        );
        assert!(Arc::ptr_eq(
            &first[1].backends[0].balancer.shard,
            &same[1].backends[0].balancer.shard
        ));

        let changed = reload(&[a, c], &mut memory);
        assert_eq!(
            next(&changed[0].backends[0]),
            Ok(ServerId(0)),
            "a changed one starts again"
        );
        assert_eq!(
            (pools(&changed[1]), &*changed[1].pools_retired),
            (vec![0, 2], &[PoolKey(1)][..])
        );

        let unsettled = reload(&[a, b, c], &mut memory);
        assert_eq!(
            pools(&unsettled[0]),
            [0, 3, 2],
            "a retired key is not used while it may be in use"
        );
        reload(&[a], &mut memory);
        memory.settle(3);
        let settled = reload(
            &[a, ("x", "http://x", None), ("y", "http://y", None)],
            &mut memory,
        );
        assert_eq!(
            pools(&settled[0]),
            [0, 1, 4],
            "only what was retired by then is used again"
        );
        assert_eq!(
            settled[0].pools_retired,
            [PoolKey(1)],
            "what was put back under the key meanwhile goes"
        );
    }

    #[test]
    fn a_server_that_is_away_stays_away_over_a_reload() {
        let world = World {
            cores: 2,
            ..world()
        };
        let mut memory = Memory::default();
        let mut reload = |servers: &[(&str, &str, Option<i64>)]| {
            let providers = BTreeMap::from([("file".to_owned(), Arc::new(with_servers(servers)))]);
            compile(&providers, &world, &mut memory).snapshots
        };
        let (a, b, c) = (
            ("a", "http://a", None),
            ("b", "http://b", None),
            ("c", "http://c", None),
        );
        let first = reload(&[a, b]);
        let away = Arc::clone(&first[1].backends[0].servers[0].availability);
        assert!(away.rule_out(Why::Unhealthy));
        for snapshot in &first {
            assert_eq!(next(&snapshot.backends[0]), Ok(ServerId(1)), "on each core");
        }
        let renamed = reload(&[("z", "http://a", Some(7)), b, c]);
        let three: Vec<_> = (0..3).map(|_| next(&renamed[0].backends[0])).collect();
        assert_eq!(three, [Ok(ServerId(0)), Ok(ServerId(1)), Ok(ServerId(0))]);
        assert!(away.readmit(Why::Unhealthy), "the check goes on");
        assert_eq!(next(&renamed[0].backends[0]), Ok(ServerId(2)), "weight 7");

        away.rule_out(Why::Unhealthy);
        reload(&[b]);
        let back = reload(&[a, b]);
        assert_eq!(next(&back[0].backends[0]), Ok(ServerId(0)), "a new server");
    }

    #[test]
    fn what_is_known_of_bad_servers_outlives_a_reload_that_keeps_them() {
        let mut memory = Memory::default();
        let mut reload = |servers: &[(&str, &str, Option<i64>)], expression, failures| {
            let mut written = with_servers(servers);
            let backend = written.backends.get_mut("b").expect("there");
            backend.circuit_breaker = Some(dynamic::CircuitBreaker {
                expression: format!("NetworkErrorRatio() > {expression}"),
                ..dynamic::CircuitBreaker::default()
            });
            backend.ejection = (failures > 0).then(|| dynamic::Ejection {
                failures,
                ..dynamic::Ejection::default()
            });
            let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
            let compiled = compile(&providers, &world(), &mut memory);
            let states: Vec<String> = memory
                .breakers()
                .map(|(provider, name, breaker)| format!("{provider} {name} {:?}", breaker.state()))
                .collect();
            let backend = compiled.snapshots[0].backends[0].clone();
            let there = backend
                .servers
                .iter()
                .map(|server| server.availability.is_available());
            (states.join(", "), there.collect::<Vec<_>>(), backend)
        };
        let (a, b, c) = (
            ("a", "http://a", None),
            ("b", "http://b", None),
            ("c", "http://c", None),
        );
        let (state, _, backend) = reload(&[a, b], "0.5", 2);
        assert_eq!(state, "file b Standby");
        let breaker = backend.breaker.as_ref().expect("there");
        let seen = Seen {
            status: 502,
            milliseconds: None,
        };
        assert!(breaker.record(0, seen, 0));
        let ejection = backend.ejection.as_ref().expect("there");
        assert!(!ejection.tried(ServerId(0), true, 0) && ejection.tried(ServerId(0), true, 0));

        let (state, there, _) = reload(&[a, b], "0.5", 2);
        assert_eq!(state, "file b Tripped");
        assert_eq!(there, [false, true]);
        let (state, ..) = reload(&[a, b], "0.6", 2);
        assert_eq!(state, "file b Standby", "another expression");
        let (_, there, backend) = reload(&[a, b, c], "0.6", 3);
        assert_eq!(there, [false, true, true], "among other servers");
        let ejection = backend.ejection.as_ref().expect("there");
        ejection.back(u64::MAX, |id| assert_eq!(id, ServerId(0)));
        assert!(backend.servers[0].availability.is_available());
        for _ in 0..3 {
            ejection.tried(ServerId(1), true, 0);
        }
        let (_, there, _) = reload(&[a, b, c], "0.6", 0);
        assert_eq!(there, [true; 3], "without the option");
    }

    #[test]
    fn a_rule_with_more_places_than_a_trie_gives_it() {
        let hosts: Vec<String> = (0..80).map(|at| format!("h{at}.test")).collect();
        let paths: Vec<String> = (0..80).map(|at| format!("/p{at}")).collect();
        assert!(hosts.len() * paths.len() > crate::limits::FRONTEND_PLACES_MAX);
        let rule = format!("Host:{};Path:{}", hosts.join(","), paths.join(","));
        yes(&rule, "h79.test/p79");
        check(&rule, "h0.test/p7/", "301 /p7");
        no(&rule, "h80.test/p0");
        no(&rule, "h0.test/p80");
    }

    #[test]
    fn more_field_names_than_are_indexed() {
        let names: Vec<(String, String)> = (0..40)
            .map(|at| (format!("f{at:02}"), format!("Headers:X-{at},v")))
            .collect();
        let frontends: Vec<(&str, &str, i64)> = names
            .iter()
            .map(|(name, rule)| (&**name, &**rule, 0))
            .collect();
        for (line, expected) in [
            ("X-3: v", "f03"),
            ("x-39: v", "f39"),
            ("X-39: w", "404"),
            ("X-39: v|X-2: v", "f39"),
        ] {
            check_order(&frontends, &format!("/|{line}"), expected);
        }
    }

    #[test]
    fn entry_points_have_their_own_frontends() {
        let mut written = dynamic(&[("a", "PathPrefix:/a", 0), ("b", "PathPrefix:/", 0)]);
        written.frontends.get_mut("a").expect("there").entry_points =
            vec!["two".to_owned(), "one".to_owned()];
        let world = World {
            entry_points: ["one", "two"].map(str::to_owned).to_vec(),
            default_entry_points: vec!["two".to_owned()],
            ..World::default()
        };
        let snapshot = &compiled(&world, written).snapshots[0];
        let said: Vec<Lookup> = [0, 1]
            .iter()
            .flat_map(|at| ["/a", "/b"].map(|path| (*at, Request::parse(path).head())))
            .map(|(at, head)| snapshot.tries[at].lookup(&head, &mut Scratch::default()))
            .collect();
        let (a, b) = (
            Lookup::Frontend(FrontendId(0)),
            Lookup::Frontend(FrontendId(1)),
        );
        assert_eq!(said, [a, Lookup::None, a, b]);
    }
}
