//! What the last compilation made, so that the next one makes only what is different.
//!
//! Owns the frontends, backends and tries of the last compilation, a copy of each for every core. One is used again only if all
//! that it was made of is equal: its definition, the world, the places of its backends, the addresses of its servers. What
//! had a rejection, or hangs on files or on servers that are asked, is made anew each time: so nothing is ever used
//! again that could have been made differently, and the messages are those of the configuration as it stands.
//! Never compiles, and never decides what is served.
//! Read next: `mod.rs`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Name;
use super::health::Check;
use super::{Target, World};
use crate::backend::{Backend, BackendId};
use crate::config::{Shared, dynamic};
use crate::frontend::matcher::Matcher;
use crate::frontend::trie::{Entry, Trie};
use crate::frontend::{Frontend, FrontendId};
use crate::snapshot::EntryPointId;

/// A frontend, ready to be served.
#[derive(Debug)]
pub(super) struct MadeFrontend {
    pub(super) entry_points: Vec<EntryPointId>,
    /// As long as these are the same (and not only equal), it stands in a trie as it did.
    pub(super) matchers: Arc<[Matcher]>,
    /// One for each core.
    pub(super) copies: Box<[Arc<Frontend>]>,
    /// Its own backend, then those of its error pages.
    pub(super) uses: Vec<BackendId>,
    /// It follows from its definition and the places of its backends alone, and nothing was said of it.
    pub(super) is_reusable: bool,
}

/// A backend, ready to be asked.
#[derive(Debug)]
pub(super) struct MadeBackend {
    /// One for each core, with its position in the balancing.
    pub(super) copies: Box<[Arc<Backend>]>,
    /// Where it stands in a snapshot.
    pub(super) place: u32,
    /// Of its servers, where the host is a name.
    pub(super) host_names: Vec<String>,
    pub(super) checks: Vec<Check>,
    /// Nothing was said of it.
    pub(super) is_reusable: bool,
}

/// What stands in a trie: the place of each frontend, and what it asks for.
pub(super) type InTrie = Vec<(FrontendId, Arc<[Matcher]>)>;

/// The trie of an entry point.
#[derive(Debug)]
pub(super) struct MadeTrie {
    pub(super) of: InTrie,
    /// One for each core.
    pub(super) copies: Box<[Arc<Trie>]>,
}

impl MadeTrie {
    /// Whether it would come out so again.
    fn is_of(&self, entries: &InTrie) -> bool {
        let is_same = |one: &(FrontendId, Arc<[Matcher]>), other: &(FrontendId, Arc<[Matcher]>)| {
            one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1)
        };
        self.of.len() == entries.len()
            && self
                .of
                .iter()
                .zip(entries)
                .all(|(one, other)| is_same(one, other))
    }
}

impl MadeBackend {
    /// Whether its servers have the addresses that their names have now.
    fn is_where_it_was(&self, world: &World) -> bool {
        let has_moved = |server: &crate::backend::Server| {
            let is_name = server.host.parse::<IpAddr>().is_err();
            let now = world.addresses.get(&*server.host);
            let now = now.map(Vec::as_slice).unwrap_or_default();
            is_name
                && !server
                    .addresses
                    .iter()
                    .map(|at| at.ip())
                    .eq(now.iter().copied())
        };
        self.host_names.is_empty() || !self.copies[0].servers.iter().any(has_moved)
    }
}

/// What was made of each definition of a provider, by name.
type ByName<W, M> = HashMap<String, (Shared<W>, M)>;

/// The last compilation.
#[derive(Debug, Default)]
pub(super) struct Last {
    world: Fixed,
    /// By provider.
    frontends: HashMap<String, ByName<dynamic::Frontend, MadeFrontend>>,
    backends: HashMap<String, ByName<dynamic::Backend, MadeBackend>>,
    /// In the order of entry points.
    tries: Vec<MadeTrie>,
}

/// What of the world every frontend and backend is made with. It stays as it is while the program runs.
#[derive(Debug, Default, PartialEq)]
struct Fixed {
    entry_points: Vec<String>,
    default_entry_points: Vec<String>,
    targets: BTreeMap<String, Target>,
    keep_trailing_slash: bool,
    allow_min_weight_zero: bool,
    health_interval: Duration,
    cores: usize,
}

impl Fixed {
    fn of(world: &World) -> Self {
        // Every field by name: whoever adds one decides here whether frontends and backends are made with it.
        let World {
            entry_points,
            targets,
            default_entry_points,
            keep_trailing_slash,
            allow_min_weight_zero,
            health_interval,
            cores,
            // Compared for each backend.
            addresses: _,
            // What needs these is made anew each time.
            files: _,
            auth_servers: _,
            // Of the snapshot, and not of its frontends.
            tls: _,
            proofs: _,
            tls_proofs: _,
            missed: _,
        } = world;
        Self {
            entry_points: entry_points.clone(),
            default_entry_points: default_entry_points.clone(),
            targets: targets.clone(),
            keep_trailing_slash: *keep_trailing_slash,
            allow_min_weight_zero: *allow_min_weight_zero,
            health_interval: *health_interval,
            cores: *cores,
        }
    }
}

impl Last {
    /// Beginning a compilation in this world: nothing of another one is used again.
    pub(super) fn in_world(self, world: &World) -> Self {
        let fixed = Fixed::of(world);
        if self.world == fixed {
            return self;
        }
        Self {
            world: fixed,
            ..Self::default()
        }
    }

    /// Takes the frontend of this name if it would come out as it did, as long as what it uses is where it was.
    pub(super) fn frontend(
        &mut self,
        (provider, name): (&str, &str),
        written: &Shared<dynamic::Frontend>,
    ) -> Option<MadeFrontend> {
        let (before, made) = self.frontends.get_mut(provider)?.remove(name)?;
        (before == *written).then_some(made)
    }

    /// Takes the backend of this name if it would come out as it did.
    pub(super) fn backend(
        &mut self,
        (provider, name): (&str, &str),
        written: &Shared<dynamic::Backend>,
        world: &World,
    ) -> Option<MadeBackend> {
        let (before, made) = self.backends.get_mut(provider)?.remove(name)?;
        (before == *written && made.is_where_it_was(world)).then_some(made)
    }

    /// The tries of these frontends, for each entry point; those that are as they were are not made.
    pub(super) fn tries(&mut self, entries: Vec<InTrie>, cores: usize) -> Vec<MadeTrie> {
        let mut last = std::mem::take(&mut self.tries).into_iter();
        let mut trie = |of: InTrie| match last.next() {
            Some(last) if last.is_of(&of) => last,
            _ => {
                let entries = of.iter().map(|(frontend, matchers)| Entry {
                    frontend: *frontend,
                    matchers: matchers.to_vec(),
                });
                let trie = Trie::new(entries.collect());
                let others = (1..cores).map(|_| Arc::new(trie.clone()));
                let mut copies: Vec<_> = others.collect();
                copies.push(Arc::new(trie));
                MadeTrie {
                    of,
                    copies: copies.into(),
                }
            }
        };
        entries.into_iter().map(&mut trie).collect()
    }

    /// What the next compilation may use again: of each provider's frontends and backends what is given, with its name.
    pub(super) fn replaced<'a>(
        self,
        tries: Vec<MadeTrie>,
        frontends: impl Iterator<Item = (Name<'a>, &'a Shared<dynamic::Frontend>, MadeFrontend)>,
        backends: impl Iterator<Item = (Name<'a>, &'a Shared<dynamic::Backend>, MadeBackend)>,
    ) -> Self {
        Self {
            world: self.world,
            frontends: kept(
                self.frontends,
                frontends.filter(|(.., made)| made.is_reusable),
            ),
            backends: kept(
                self.backends,
                backends.filter(|(.., made)| made.is_reusable),
            ),
            tries,
        }
    }
}

/// Everything that is made, and nothing of what was before; in the room of that, since nearly all of it is the same.
fn kept<'a, W: 'a, M>(
    mut before: HashMap<String, ByName<W, M>>,
    made: impl Iterator<Item = (Name<'a>, &'a Shared<W>, M)>,
) -> HashMap<String, ByName<W, M>> {
    for names in before.values_mut() {
        names.clear();
    }
    for ((provider, name), written, made) in made {
        let made = (written.clone(), made);
        match before.get_mut(provider) {
            Some(names) => names.insert(name.to_owned(), made),
            None => {
                let names = HashMap::from([(name.to_owned(), made)]);
                before.insert(provider.to_owned(), names);
                None
            }
        };
    }
    before.retain(|_, names| !names.is_empty());
    before
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Compiled, Memory, compile};
    use super::*;
    use crate::config::{Dynamic, dynamic_from_toml};
    use crate::frontend::middleware::Middleware;
    use crate::snapshot::Snapshot;

    const FRONTENDS: &[&str] = &[
        "backend = 'b0'\nroutes.r.rule = 'Host:a.test'",
        "backend = 'b0'\nroutes.r.rule = 'Host:a.test'\npassHostHeader = true",
        "backend = 'b1'\nroutes.r.rule = 'Host:a.test,b.test;PathPrefixStrip:/x'",
        "backend = 'b1'\nroutes.r.rule = 'HostRegexp:{s:[a-z]+}.test'\npriority = 7",
        "backend = 'b2'\nroutes.a.rule = 'Path:/{n:[0-9]+}'\nroutes.b.rule = 'ReplacePathRegex:^/(.*) /$1'",
        "backend = 'b0'\nroutes.r.rule = 'Path:foo'",
        "backend = 'b0'\nroutes.r.rule = 'Nonsense:/'",
        "backend = 'b2'\nerrors.e = { status = ['500-599'], backend = 'b1', query = '/{status}' }",
        "backend = 'b2'\nerrors.e = { status = ['500-599'], backend = 'b2', query = '/' }",
        "backend = 'none'",
        "backend = 'b1'\nauth.basic.users = ['u:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/']",
        "backend = 'b1'\nauth.basic.usersFile = 'users'",
        "backend = 'b1'\nauth.digest.users = ['u:realm:a2688e031edb4be6a3797f3882655c05']",
        "backend = 'b0'\nauth.forward.address = 'http://name.test/'",
        "backend = 'b0'\nauth.forward = { address = 'https://other.test/', tls.ca = 'users' }",
        "backend = 'b0'\nratelimit = { extractorFunc = 'client.ip', rateSet.a = { period = '1s', average = 5, burst = 9 } }",
        "backend = 'b0'\nheaders.customRequestHeaders.X-A = 'b'\nwhiteList.sourceRange = ['10.0.0.0/8']",
        "backend = 'b0'\nentryPoints = ['http', 'nowhere']",
        "backend = 'b0'\nentryPoints = ['other']\nredirect.entryPoint = 'https'",
        "backend = 'b0'\nredirect = { regex = '(', replacement = 'x' }",
    ];

    const BACKENDS: &[&str] = &[
        "servers.s.url = 'http://127.0.0.1:1'",
        "servers.s.url = 'http://127.0.0.1:2'",
        "servers.s.url = 'http://name.test:1'\nservers.t = { url = 'http://127.0.0.1:2', weight = 3 }",
        "servers.s = { url = 'http://other.test', weight = -1 }",
        "servers.s.url = 'http://other.test'\nloadBalancer.method = 'nonsense'",
        "servers.s.url = 'http://127.0.0.1:1'\ncircuitBreaker.expression = 'NetworkErrorRatio() > 0.5'\nmaxConn = { amount = 3, extractorFunc = 'client.ip' }",
        "servers.s.url = 'http://127.0.0.1:1'\ncircuitBreaker.expression = 'Nonsense'",
        "servers.s.url = 'http://name.test:1'\nhealthCheck.path = '/h'",
        "servers.s.url = 'http://127.0.0.1:1'\nhealthCheck = { path = '/h', interval = 'soon' }",
        "loadBalancer.stickiness = {}",
        "servers.s.url = 'http://127.0.0.1:1'\nloadBalancer.method = 'hash'\nejection.failures = 3",
    ];

    /// What is configured at one moment: which text each name has, if any, and how the world is.
    #[derive(Clone, Debug)]
    struct Moment {
        frontends: [Option<usize>; 4],
        backends: [Option<usize>; 3],
        address: u8,
        file: u8,
    }

    impl Moment {
        fn providers(&self) -> BTreeMap<String, Arc<Dynamic>> {
            let mut text = String::new();
            for (at, body) in self.frontends.iter().enumerate() {
                if let Some(body) = body {
                    text += &format!("[frontends.f{at}]\n{}\n", FRONTENDS[*body]);
                }
            }
            for (at, body) in self.backends.iter().enumerate() {
                if let Some(body) = body {
                    text += &format!("[backends.b{at}]\n{}\n", BACKENDS[*body]);
                }
            }
            let (dynamic, _) = dynamic_from_toml("f", &text).expect("valid");
            // Two providers, so that names occur twice.
            let half = Dynamic {
                frontends: dynamic.frontends.clone().into_iter().take(2).collect(),
                backends: dynamic.backends.clone(),
                ..Dynamic::default()
            };
            BTreeMap::from([
                ("one".to_owned(), Arc::new(dynamic)),
                ("two".to_owned(), Arc::new(half)),
            ])
        }

        fn world(&self) -> World {
            let names = ["http", "other"].map(str::to_owned);
            let address = IpAddr::from([10, 0, 0, self.address]);
            let file = format!("u:{{SHA}}{}\n", self.file);
            World {
                entry_points: names.to_vec(),
                default_entry_points: vec!["http".to_owned()],
                targets: BTreeMap::from([(
                    "https".to_owned(),
                    Target {
                        is_tls: true,
                        port: 443,
                    },
                )]),
                addresses: BTreeMap::from([("name.test".to_owned(), vec![address])]),
                files: BTreeMap::from([("users".to_owned(), Ok(file.into_bytes()))]),
                health_interval: Duration::from_secs(30),
                cores: 2,
                ..World::default()
            }
        }
    }

    /// Everything that one can see of a compilation, without the numbers that differ from history to history.
    fn seen(compiled: &Compiled) -> String {
        let mut text = String::new();
        for snapshot in &compiled.snapshots {
            text += &seen_by_core(snapshot);
        }
        for check in &compiled.checks {
            text += &format!(
                "{} {} {:?} {:?}\n",
                check.backend, check.weight, check.addresses, check.question
            );
        }
        for rejection in &compiled.rejections {
            text += &format!("{:?} {rejection}\n", rejection.severity);
        }
        text + &format!("{:?}", compiled.host_names)
    }

    fn seen_by_core(snapshot: &Snapshot) -> String {
        let mut text = format!("{:#?}\n", snapshot.tries);
        for frontend in &snapshot.frontends {
            text += &format!(
                "{} of {} {} {} {:?} {:?}\n",
                frontend.name,
                frontend.provider,
                frontend.pass_host_header,
                frontend.pass_tls_cert,
                frontend.modifiers,
                frontend.rate_limit.is_some(),
            );
            for step in &frontend.middlewares {
                text += &match step {
                    // Its secrets are its own.
                    Middleware::Digest(_) => "digest\n".to_owned(),
                    Middleware::Forward(forward) => {
                        let server = snapshot.auth_server(forward.server);
                        let server =
                            server.map(|asked| (&asked.server.url, &asked.server.addresses));
                        format!("{} {server:?}\n", forward.scheme)
                    }
                    other => format!("{other:?}\n"),
                };
            }
            text += &seen_backend(snapshot.backend(frontend.backend));
            for page in &frontend.error_pages {
                text += &format!("{} {}\n", page.query, page.covers(503));
                text += &seen_backend(snapshot.backend(page.backend));
            }
        }
        text
    }

    fn seen_backend(backend: &Backend) -> String {
        let servers = backend.servers.iter().map(|server| {
            (
                &server.name,
                &server.url,
                server.scheme,
                &server.authority,
                &server.host,
                &server.addresses,
            )
        });
        let balancer = &backend.balancer;
        format!(
            "{} {:?} {:?} {:?} {} {} {} {}\n",
            backend.name,
            servers.collect::<Vec<_>>(),
            balancer.weights,
            balancer.sticky,
            balancer.shard.core,
            backend.breaker.is_some(),
            backend.ejection.is_some(),
            backend.max_conn.is_some(),
        )
    }

    fn moments() -> impl Strategy<Value = Vec<Moment>> {
        let change = (0..9usize, proptest::option::weighted(0.85, 0..20usize));
        proptest::collection::vec(proptest::collection::vec(change, 1..4), 1..12).prop_map(
            |steps| {
                let mut now = Moment {
                    frontends: [Some(0), Some(2), Some(7), None],
                    backends: [Some(0), Some(2), Some(5)],
                    address: 0,
                    file: 0,
                };
                let apply = |changes: Vec<(usize, Option<usize>)>| {
                    for (at, to) in changes {
                        match at {
                            0..4 => now.frontends[at] = to.map(|to| to % FRONTENDS.len()),
                            4..7 => now.backends[at - 4] = to.map(|to| to % BACKENDS.len()),
                            7 => now.address ^= 1,
                            _ => now.file ^= 1,
                        }
                    }
                    now.clone()
                };
                steps.into_iter().map(apply).collect()
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_used_again_is_what_would_have_been_made(moments in moments()) {
            let mut memory = Memory::default();
            for moment in moments {
                let (providers, world) = (moment.providers(), moment.world());
                let again = compile(&providers, &world, &mut memory);
                let anew = compile(&providers, &world, &mut Memory::default());
                prop_assert_eq!(seen(&again), seen(&anew), "{:?}", moment);
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_made_again() {
        let mut moment = Moment {
            frontends: [Some(0), Some(2), Some(7), Some(10)],
            backends: [Some(0), Some(2), Some(5)],
            address: 0,
            file: 0,
        };
        let mut memory = Memory::default();
        let mut compiled = |moment: &Moment| {
            let mut compiled = compile(&moment.providers(), &moment.world(), &mut memory);
            compiled.snapshots.pop().expect("of the second core")
        };
        let mut before = compiled(&moment);
        // Names of the frontends and backends of the provider `one` that are others than before.
        let mut changed = |moment: &Moment| {
            let now = compiled(moment);
            let mut made: Vec<String> = Vec::new();
            for new in now.frontends.iter().filter(|new| new.provider == "one") {
                if !before.frontends.iter().any(|old| Arc::ptr_eq(old, new)) {
                    made.push(new.name.clone());
                }
                let new = &now.backends[new.backend.0 as usize];
                if !before.backends.iter().any(|old| Arc::ptr_eq(old, new)) {
                    made.push(new.name.clone());
                }
            }
            made.sort();
            made.dedup();
            before = now;
            made
        };
        assert_eq!(changed(&moment), [""; 0], "nothing is different");
        moment.frontends[1] = Some(3);
        assert_eq!(changed(&moment), ["f1"]);
        moment.backends[0] = Some(1);
        assert_eq!(
            changed(&moment),
            ["b0"],
            "its frontend finds it where it was"
        );
        moment.address = 1;
        assert_eq!(changed(&moment), ["b1"], "a name has another address");
        moment.frontends[0] = None;
        assert_eq!(changed(&moment), [""; 0]);
        moment.frontends[0] = Some(0);
        assert_eq!(changed(&moment), ["b0", "f0"]);
        moment.frontends[2] = Some(11);
        assert_eq!(changed(&moment), ["f2"]);
        assert_eq!(
            changed(&moment),
            ["f2"],
            "what is in files is looked at each time"
        );
    }
}
