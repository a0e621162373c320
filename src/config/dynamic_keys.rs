//! Frontends, backends and certificates from the keys of a store.
//!
//! Owns what differs from a TOML file: other defaults, options that count only together, deprecated spellings, tags
//! (spec kv-dynamic 3 to 5, 10). Remembers what it read last: a frontend whose keys did not change is not read again.
//! Never asks a store; never leaves anything out because of something else.
//! Read next: `keys.rs`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use super::ConfigError;
use super::dynamic::{Auth, AuthUsers, Backend, Dynamic, Frontend, Headers, TlsEntry};
use super::keys::{self, Branch, Manner, Pair, Problems, Shaper};
use super::option::{Constraint, Value};
use super::shared::Shared;
use super::tree::{Data, Node, Table};
use super::units::Place;

/// Where the names of frontends, backends and certificates stand in a key.
const NAME_DEPTH: usize = 2;

/// Reads trees of one provider, one after the other.
#[derive(Debug)]
pub struct DynamicKeys {
    constraints: Vec<Constraint>,
    prefix: Arc<str>,
    backends: BTreeMap<String, Known<Backend>>,
    frontends: BTreeMap<String, Known<Frontend>>,
    tls: BTreeMap<String, Known<TlsEntry>>,
    /// Those of the last tree that belong to no name.
    others: Problems,
    /// What the last tree said.
    dynamic: Dynamic,
    /// Every key of the last tree that counts is spelt in the one usual way, so all keys of a name stand together in it.
    is_plain: bool,
}

/// What was made of the keys of one name.
#[derive(Debug)]
struct Known<T> {
    pairs: Vec<(String, Vec<u8>)>,
    problems: Problems,
    /// `None`: nothing can be made of them.
    item: Option<Shared<T>>,
}

impl<T> Known<T> {
    fn is_of(&self, pairs: &[Pair<'_>]) -> bool {
        self.pairs.len() == pairs.len()
            && self
                .pairs
                .iter()
                .zip(pairs)
                .all(|((key, value), pair)| key == pair.key && value == pair.value)
    }
}

impl DynamicKeys {
    /// A server must fulfil every one of `constraints` by its tags.
    pub fn new(constraints: Vec<Constraint>) -> Self {
        Self {
            constraints,
            prefix: "".into(),
            backends: BTreeMap::new(),
            frontends: BTreeMap::new(),
            tls: BTreeMap::new(),
            others: Problems::default(),
            dynamic: Dynamic::default(),
            is_plain: false,
        }
    }

    /// All problems of the tree that was read last, whenever they were first met.
    pub fn problems(&self) -> Problems {
        let mut all = self.others.clone();
        let backends = self.backends.values().map(|known| &known.problems);
        let frontends = self.frontends.values().map(|known| &known.problems);
        let tls = self.tls.values().map(|known| &known.problems);
        for problems in backends.chain(frontends).chain(tls) {
            all.append(problems.clone());
        }
        all
    }

    /// What `pairs` say, whose keys are relative to `prefix`. The problems are those of keys that were not there, or not
    /// so, the last time.
    pub fn read(&mut self, prefix: &str, mut pairs: Vec<Pair<'_>>) -> (Dynamic, Problems) {
        if *self.prefix != *prefix {
            *self = Self::new(std::mem::take(&mut self.constraints));
            self.prefix = prefix.into();
        }
        keys::sort(&mut pairs);
        self.is_plain = pairs.iter().all(|pair| is_plain(pair.key));
        let mut reader = Reader::new(prefix, &self.constraints);
        let (mut backends, mut frontends, mut tls) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for group in
            pairs.chunk_by(|a, b| a.steps().take(NAME_DEPTH).eq(b.steps().take(NAME_DEPTH)))
        {
            let mut steps = group[0].steps();
            let (Some(folder), Some(name)) = (steps.next(), steps.next()) else {
                continue;
            };
            match Folder::of(folder) {
                Some(Folder::Backends) => {
                    let before = &mut self.backends;
                    reader.item(name, group, before, &mut backends, Reader::backend);
                }
                Some(Folder::Frontends) => {
                    let before = &mut self.frontends;
                    reader.item(name, group, before, &mut frontends, Reader::frontend);
                }
                Some(Folder::Tls) => {
                    reader.item(name, group, &mut self.tls, &mut tls, Reader::tls);
                }
                None => {}
            }
        }
        (self.backends, self.frontends, self.tls) = (backends, frontends, tls);
        if reader.others != self.others {
            reader.problems.append(reader.others.clone());
        }
        self.others = reader.others;
        self.dynamic = Dynamic {
            backends: items(&self.backends).collect(),
            frontends: items(&self.frontends).collect(),
            tls: entries(&self.tls),
        };
        (self.dynamic.clone(), reader.problems)
    }

    /// [`DynamicKeys::read`] of a tree that differs from the last one that was read in these keys only. Nothing else of it is
    /// looked at.
    pub fn read_changed<V: AsRef<[u8]>>(
        &mut self,
        prefix: &str,
        tree: &BTreeMap<String, V>,
        changed: &[String],
    ) -> (Dynamic, Problems) {
        let is_usual = self.is_plain && changed.iter().all(|key| is_plain(key));
        if !is_usual || *self.prefix != *prefix {
            let pairs = tree.iter().map(|(key, value)| Pair::new(key, value));
            return self.read(prefix, pairs.collect());
        }
        let mut reader = Reader::new(prefix, &self.constraints);
        let names: BTreeSet<(&str, &str)> = changed
            .iter()
            .filter_map(|key| {
                let mut steps = key.split('/');
                Some((steps.next()?, steps.next().filter(|name| !name.is_empty())?))
            })
            .collect();
        for (folder, name) in names {
            let Some(kind) = Folder::of(folder) else {
                continue;
            };
            let group = group(tree, &format!("{folder}/{name}"));
            match kind {
                Folder::Backends => {
                    let known = &mut self.backends;
                    let item = reader.again(name, &group, known, Reader::backend);
                    replace(&mut self.dynamic.backends, name, item);
                }
                Folder::Frontends => {
                    let known = &mut self.frontends;
                    let item = reader.again(name, &group, known, Reader::frontend);
                    replace(&mut self.dynamic.frontends, name, item);
                }
                Folder::Tls => {
                    reader.again(name, &group, &mut self.tls, Reader::tls);
                    self.dynamic.tls = entries(&self.tls);
                }
            }
        }
        (self.dynamic.clone(), reader.problems)
    }
}

/// What is below the prefix and counts.
#[derive(Clone, Copy)]
enum Folder {
    Backends,
    Frontends,
    Tls,
}

impl Folder {
    /// In any case.
    fn of(step: &str) -> Option<Self> {
        let is = |name: &str| step.eq_ignore_ascii_case(name);
        match step {
            _ if is("backends") => Some(Self::Backends),
            _ if is("frontends") => Some(Self::Frontends),
            _ if is("tls") => Some(Self::Tls),
            _ => None,
        }
    }
}

/// Whether a key is spelt as nearly all are: nothing else can then be meant by the same folder and name. One that does not
/// count is.
fn is_plain(key: &str) -> bool {
    let mut steps = key.split('/').filter(|step| !step.is_empty());
    let Some(folder) = steps.next() else {
        return true;
    };
    let is_lower = !folder.bytes().any(|byte| byte.is_ascii_uppercase());
    Folder::of(folder).is_none()
        || is_lower
            && !key.starts_with('/')
            && !key.contains("//")
            && steps.next().is_none_or(|name| !name.contains(['\\', '\n']))
}

/// The pairs of one name of a tree whose keys are plain.
fn group<'t, V: AsRef<[u8]>>(tree: &'t BTreeMap<String, V>, name: &str) -> Vec<Pair<'t>> {
    let below = format!("{name}/");
    let own = tree.get_key_value(name).into_iter();
    let others = tree.range::<str, _>((Bound::Included(&*below), Bound::Unbounded));
    let others = others.take_while(|(key, _)| key.starts_with(&below));
    let mut pairs: Vec<_> = own
        .chain(others)
        .map(|(key, value)| Pair::new(key, value))
        .collect();
    keys::sort(&mut pairs);
    pairs
}

fn replace<T>(items: &mut BTreeMap<String, Shared<T>>, name: &str, item: Option<Shared<T>>) {
    match item {
        Some(item) => items.insert(name.to_owned(), item),
        None => items.remove(name),
    };
}

fn entries(known: &BTreeMap<String, Known<TlsEntry>>) -> Vec<TlsEntry> {
    items(known)
        .map(|(_, entry)| TlsEntry::clone(&entry))
        .collect()
}

fn items<T>(known: &BTreeMap<String, Known<T>>) -> impl Iterator<Item = (String, Shared<T>)> {
    let made = known.iter();
    made.filter_map(|(name, known)| Some((name.clone(), known.item.clone()?)))
}

struct Reader<'r> {
    prefix: &'r str,
    constraints: &'r [Constraint],
    problems: Problems,
    /// Those that belong to no name.
    others: Problems,
}

type Made<T> = Result<Option<T>, ConfigError>;

impl<'r> Reader<'r> {
    fn new(prefix: &'r str, constraints: &'r [Constraint]) -> Self {
        Self {
            prefix,
            constraints,
            problems: Problems::default(),
            others: Problems::default(),
        }
    }

    /// Makes the item of one name again, whose keys are these now.
    fn again<T>(
        &mut self,
        name: &str,
        group: &[Pair<'_>],
        known: &mut BTreeMap<String, Known<T>>,
        make: fn(&mut Self, Branch<'_>) -> Made<T>,
    ) -> Option<Shared<T>> {
        let mut before = BTreeMap::from_iter(known.remove_entry(name));
        if !group.is_empty() {
            self.item(name, group, &mut before, known, make);
        }
        known.get(name)?.item.clone()
    }

    /// Makes an item of the keys of one name, or takes what was made of them before.
    fn item<T>(
        &mut self,
        name: &str,
        group: &[Pair<'_>],
        before: &mut BTreeMap<String, Known<T>>,
        now: &mut BTreeMap<String, Known<T>>,
        make: fn(&mut Self, Branch<'_>) -> Made<T>,
    ) {
        let name = keys::unescape(name);
        let vacant = match now.entry(name) {
            Entry::Vacant(vacant) => vacant,
            Entry::Occupied(first) => {
                let place = Shaper::new(self.prefix, Manner::Lenient).place_of(group[0].key);
                let message = format!("ignored, since {} is defined before it", first.key());
                self.others.warn(place, message);
                return;
            }
        };
        let known = before
            .remove(vacant.key())
            .filter(|known| known.is_of(group));
        let known = known.unwrap_or_else(|| {
            let told = std::mem::take(&mut self.problems);
            let item = make(self, Branch::grow(group, NAME_DEPTH)).unwrap_or_else(|error| {
                let message = format!("left out: {}", error.message);
                self.problems.error(error.place, message);
                None
            });
            let pairs = group.iter();
            let pairs = pairs.map(|pair| (pair.key.to_owned(), pair.value.to_owned()));
            let problems = std::mem::replace(&mut self.problems, told);
            self.problems.append(problems.clone());
            Known {
                pairs: pairs.collect(),
                problems,
                item: item.map(Shared::from),
            }
        });
        vacant.insert(known);
    }

    /// The node of a section, and its problems.
    fn shape<T: Value>(&mut self, branch: &Branch<'_>) -> Result<Node, ConfigError> {
        let mut shaper = Shaper::new(self.prefix, Manner::Lenient);
        let shaped = shaper.shape(branch, &T::kind());
        let place = shaper.place(branch);
        self.problems.append(shaper.problems);
        Ok(shaped?.unwrap_or_else(|| Node::table(&place)))
    }

    fn place(&self, branch: &Branch<'_>) -> Place {
        Shaper::new(self.prefix, Manner::Lenient).place(branch)
    }

    fn backend(&mut self, mut branch: Branch<'_>) -> Made<Backend> {
        self.servers(&mut branch);
        if let Some(balancer) = branch.child_mut("loadbalancer") {
            self.stickiness(balancer);
        }
        let mut node = self.shape::<Backend>(&branch)?;
        let place = node.place.clone();
        let has_amount = node.get(&["maxConn", "amount"]).is_some();
        if has_amount && node.get(&["maxConn", "extractorFunc"]).is_none() {
            node.set(
                &["maxConn", "extractorFunc"],
                Node::word(&place, "request.host"),
            );
        }
        if node.get(&["healthCheck"]).is_some() && node.get(&["healthCheck", "interval"]).is_none()
        {
            node.set(&["healthCheck", "interval"], Node::word(&place, "30s"));
        }
        let mut backend = Backend::read(&node)?;
        let max_conn = backend.max_conn.take();
        backend.max_conn = max_conn.filter(|max| has_amount && !max.extractor_func.is_empty());
        let health_check = backend.health_check.take();
        backend.health_check = health_check.filter(|check| !check.path.is_empty());
        let breaker = backend.circuit_breaker.take();
        backend.circuit_breaker = breaker.filter(|breaker| !breaker.expression.is_empty());
        let forwarding = backend.response_forwarding.take();
        backend.response_forwarding =
            forwarding.filter(|forwarding| !forwarding.flush_interval.is_empty());
        Ok(Some(backend))
    }

    /// Takes out the servers without a URL and those whose tags do not fit.
    fn servers(&mut self, backend: &mut Branch<'_>) {
        let Some(servers) = backend.child_mut("servers") else {
            return;
        };
        for mut server in std::mem::take(&mut servers.children) {
            let tags = server.take("tags").and_then(|tags| tags.value);
            let tags = String::from_utf8_lossy(tags.unwrap_or_default()).into_owned();
            let tags = tags.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            let fits = |constraint: &Constraint| constraint.holds(tags.clone());
            match server.child_mut("url").map(|url| url.value) {
                None | Some(None) => {
                    let mut place = self.place(&server).to_string();
                    place.push_str("/url");
                    let message =
                        format!("Failed to retrieve value for key {place}, the server is left out");
                    self.problems.error(Place::Key(place.into()), message);
                }
                Some(Some([])) => {}
                Some(Some(_)) if self.constraints.iter().all(fits) => servers.children.push(server),
                Some(Some(_)) => {}
            }
        }
    }

    /// `loadbalancer/stickiness` is a boolean, a folder, or both. It is on if it says so, or says nothing and has options.
    fn stickiness(&mut self, balancer: &mut Branch<'_>) {
        let Some(stickiness) = balancer.child_mut("stickiness") else {
            return;
        };
        let on = match stickiness.value.take().unwrap_or_default() {
            [] => None,
            b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Some(true),
            b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Some(false),
            other => {
                let message = format!(
                    "Invalid value {:?}, ignored: expected a boolean (true, false, 1, 0, t or f)",
                    String::from_utf8_lossy(other)
                );
                let place = Shaper::new(self.prefix, Manner::Lenient).place(stickiness);
                self.problems.error(place, message);
                None
            }
        };
        if !on.unwrap_or(!stickiness.children.is_empty()) {
            balancer.take("stickiness");
        }
    }

    fn frontend(&mut self, mut branch: Branch<'_>) -> Made<Frontend> {
        if let Some(sets) = branch
            .child_mut("ratelimit")
            .and_then(|limit| limit.child_mut("rateset"))
        {
            for rate in std::mem::take(&mut sets.children) {
                let has_period = rate.children.iter().any(|child| {
                    child.name.eq_ignore_ascii_case("period")
                        && child.value.is_some_and(|value| {
                            std::str::from_utf8(value).is_ok_and(|text| keys::period(text).is_ok())
                        })
                });
                if has_period {
                    sets.children.push(rate);
                } else {
                    let place = self.place(&rate);
                    self.problems.error(place, "Invalid \"period\" value, the rate is left out: expected a duration (seconds, or text such as \"500ms\" or \"1m30s\")");
                }
            }
        }
        let mut node = self.shape::<Frontend>(&branch)?;
        let place = node.place.clone();
        if node.get(&["passHostHeader"]).is_none() {
            node.set(&["passHostHeader"], Node::new(&place, Data::Bool(true)));
        }
        // An empty section is none: only what is below it counts.
        if let Some(Node {
            data: Data::Table(Table { entries }),
            ..
        }) = node.get(&["auth", "forward", "tls"])
            && entries
                .iter()
                .all(|entry| matches!(&entry.node.data, Data::Text(text) if text.is_empty()))
        {
            node.remove(&["auth", "forward", "tls"]);
        }
        let mut frontend = Frontend::read(&node)?;
        frontend.routes.retain(|_, route| !route.rule.is_empty());
        if frontend.routes.is_empty() {
            self.problems.warn(
                place.clone(),
                "has no rule, so it takes every request of its entry points",
            );
        }
        if !frontend.basic_auth.is_empty() {
            self.problems.warn(
                place.clone(),
                "basicauth: deprecated, use auth/basic/users instead",
            );
            let users = std::mem::take(&mut frontend.basic_auth);
            let auth = frontend.auth.get_or_insert_with(|| Auth {
                place: place.clone(),
                ..Auth::default()
            });
            auth.basic.get_or_insert_with(AuthUsers::default).users = users;
        }
        if let Some(auth) = &frontend.auth
            && auth.basic.is_none()
            && auth.digest.is_none()
            && auth.forward.is_none()
        {
            self.problems.warn(
                auth.place.clone(),
                "has neither basic nor digest nor forward, so it protects nothing",
            );
        }
        let white_list = frontend.white_list.take();
        frontend.white_list = white_list.filter(|list| !list.source_range.is_empty());
        let headers = frontend.headers.take();
        frontend.headers = headers.filter(|headers| *headers != Headers::default());
        let limit = frontend.ratelimit.take();
        frontend.ratelimit = limit.filter(|limit| !limit.extractor_func.is_empty());
        let redirect = frontend.redirect.take();
        frontend.redirect = redirect.filter(|redirect| {
            !redirect.entry_point.is_empty()
                || !redirect.regex.is_empty() && !redirect.replacement.is_empty()
        });
        if let Some(redirect) = &mut frontend.redirect
            && !redirect.entry_point.is_empty()
        {
            redirect.regex.clear();
            redirect.replacement.clear();
        }
        Ok(Some(frontend))
    }

    fn tls(&mut self, branch: Branch<'_>) -> Made<TlsEntry> {
        let entry = TlsEntry::read(&self.shape::<TlsEntry>(&branch)?)?;
        let pair = &entry.certificate;
        if pair.cert_file.is_empty() && pair.key_file.is_empty() {
            let place = self.place(&branch);
            self.problems.warn(
                place,
                "Invalid TLS configuration (no cert and no key), left out",
            );
            return Ok(None);
        }
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::dynamic_from_toml;

    /// One key a line, `key = value`; the value may hold `=`.
    fn pairs(text: &str) -> Vec<Pair<'_>> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .map(|line| match line.split_once(" = ") {
                Some((key, value)) => Pair::new(key, value),
                None => Pair::new(line.trim_end_matches(" ="), ""),
            })
            .collect()
    }

    fn read(text: &str) -> (Dynamic, Vec<String>) {
        let (dynamic, problems) = DynamicKeys::new(Vec::new()).read("traefik", pairs(text));
        let problems = problems.errors.iter().chain(&problems.warnings);
        (dynamic, problems.map(ToString::to_string).collect())
    }

    /// The keys say the same as this TOML, and nothing is wrong with them.
    #[track_caller]
    fn check(keys: &str, toml: &str) {
        check_with(keys, toml, &[]);
    }

    #[track_caller]
    fn check_with(keys: &str, toml: &str, problems: &[&str]) {
        let (found, found_problems) = read(keys);
        let (expected, _) = dynamic_from_toml("f", toml).expect("valid");
        assert_eq!(found, expected);
        assert_eq!(found_problems, problems);
    }

    /// Keys of a frontend `f` with a rule say the same as this TOML of its table.
    #[track_caller]
    fn check_frontend(keys: &str, toml: &str, problems: &[&str]) {
        let keys: String = keys
            .lines()
            .map(|line| format!("frontends/f/{}\n", line.trim()))
            .collect();
        check_with(
            &format!("frontends/f/backend = b\nfrontends/f/routes/r/rule = Path:/\n{keys}"),
            &format!("[frontends.f]\nbackend = 'b'\nroutes.r.rule = 'Path:/'\n{toml}"),
            problems,
        );
    }

    #[track_caller]
    fn check_backend(keys: &str, toml: &str, problems: &[&str]) {
        let keys: String = keys
            .lines()
            .map(|line| format!("backends/b/{}\n", line.trim()))
            .collect();
        check_with(&keys, &format!("[backends.b]\n{toml}"), problems);
    }

    #[test]
    fn the_guides_example_is_read() {
        check(
            "backends/backend1/circuitbreaker/expression = NetworkErrorRatio() > 0.5
             backends/backend1/servers/server1/url = http://172.17.0.2:80
             backends/backend1/servers/server1/weight = 10
             backends/backend1/servers/server2/url = http://172.17.0.3:80
             backends/backend1/servers/server2/weight = 1
             backends/backend1/servers/server2/tags = api,helloworld
             backends/backend2/maxconn/amount = 10
             backends/backend2/maxconn/extractorfunc = request.host
             backends/backend2/loadbalancer/method = drr
             backends/backend2/servers/server1/url = http://172.17.0.4:80
             backends/backend2/servers/server1/weight = 1
             backends/backend2/servers/server2/url = http://172.17.0.5:80
             backends/backend2/servers/server2/weight = 2
             backends/backend2/servers/server2/tags = web
             frontends/frontend1/backend = backend2
             frontends/frontend1/routes/test_1/rule = Host:test.localhost
             frontends/frontend2/backend = backend1
             frontends/frontend2/passhostheader = true
             frontends/frontend2/priority = 10
             frontends/frontend2/auth/basic/users/0 = test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/
             frontends/frontend2/auth/basic/users/1 = test2:$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0
             frontends/frontend2/entrypoints = http,https
             frontends/frontend2/routes/test_2/rule = PathPrefix:/test
             tls/1/certificate/certfile = path/to/your.cert
             tls/1/certificate/keyfile = path/to/your.key
             tls/2/entrypoints = https,other-https
             tls/2/certificate/certfile = <cert file content>
             tls/2/certificate/keyfile = <key file content>",
            "[backends.backend1]
             circuitbreaker.expression = 'NetworkErrorRatio() > 0.5'
             servers.server1 = { url = 'http://172.17.0.2:80', weight = 10 }
             servers.server2 = { url = 'http://172.17.0.3:80', weight = 1 }
             [backends.backend2]
             maxconn = { amount = 10, extractorfunc = 'request.host' }
             loadbalancer.method = 'drr'
             servers.server1 = { url = 'http://172.17.0.4:80', weight = 1 }
             servers.server2 = { url = 'http://172.17.0.5:80', weight = 2 }
             [frontends.frontend1]
             backend = 'backend2'
             passHostHeader = true
             routes.test_1.rule = 'Host:test.localhost'
             [frontends.frontend2]
             backend = 'backend1'
             passHostHeader = true
             priority = 10
             entryPoints = ['http', 'https']
             auth.basic.users = ['test:$apr1$H6uskkkW$IgXLP6ewTrSuBkTrqE8wj/', 'test2:$apr1$d9hr9HBB$4HxwgUir3HP4EsggP/QNo0']
             routes.test_2.rule = 'PathPrefix:/test'
             [[tls]]
             certificate = { certFile = 'path/to/your.cert', keyFile = 'path/to/your.key' }
             [[tls]]
             entryPoints = ['https', 'other-https']
             certificate = { certFile = '<cert file content>', keyFile = '<key file content>' }",
        );
    }

    #[test]
    fn lists_are_one_text_or_a_folder_of_items() {
        let frontend = |keys: &str, expected: &[&str]| {
            let keys = format!("frontends/f/routes/r/rule = Path:/\n{keys}");
            let (dynamic, problems) = read(&keys);
            assert_eq!(dynamic.frontends["f"].entry_points, expected, "{keys}");
            assert_eq!(problems, [""; 0]);
        };
        frontend(
            "frontends/f/entrypoints = http, https ,",
            &["http", "https"],
        );
        frontend(
            "frontends/f/entrypoints/0 = http\nfrontends/f/entrypoints/1 = traefik",
            &["http", "traefik"],
        );
        frontend(
            "frontends/f/entrypoints = traefik\nfrontends/f/entrypoints/0 = http",
            &["traefik"],
        );
        frontend(
            "frontends/f/entrypoints =\nfrontends/f/entrypoints/0 = http\nfrontends/f/entrypoints/7 =",
            &["http"],
        );
        let many: String = (0..12)
            .map(|n| format!("frontends/f/entrypoints/{n} = e{n}\n"))
            .collect();
        let names: Vec<String> = (0..12).map(|n| format!("e{n}")).collect();
        frontend(&many, &names.iter().map(String::as_str).collect::<Vec<_>>());
        frontend(
            "frontends/f/entrypoints/b = x\nfrontends/f/entrypoints/a = y\nfrontends/f/entrypoints/10 = z",
            &["z", "y", "x"],
        );
    }

    #[test]
    fn small_cases_of_frontends() {
        let check =
            |keys, toml| check_frontend(keys, &format!("passHostHeader = true\n{toml}"), &[]);
        check("", "");
        check(
            "errors/foo/status = 500-599,404\nerrors/bar/status/0 = 400\nerrors/bar/status/1 = 401",
            "errors.foo.status = ['500-599', '404']\nerrors.bar.status = ['400', '401']",
        );
        check(
            "ratelimit/extractorfunc = client.ip\nratelimit/rateset/p/period = 3s
             ratelimit/rateset/p/average = 6\nratelimit/rateset/p/burst = 12",
            "ratelimit.extractorFunc = 'client.ip'\nratelimit.rateSet.p = { period = 3, average = 6, burst = 12 }",
        );
        check(
            "ratelimit/extractorfunc = client.ip\nratelimit/rateset/p/period = 6\nratelimit/rateset/q/period = 6000000000",
            "ratelimit.extractorFunc = 'client.ip'\nratelimit.rateSet.p.period = 6\nratelimit.rateSet.q.period = 6",
        );
        check("ratelimit/rateset/p/period = 6", "");
        check("redirect/regex = ^a", "");
        check("redirect/permanent = true", "");
        check(
            "redirect/regex = ^a\nredirect/replacement = b\nredirect/permanent = 1",
            "redirect = { regex = '^a', replacement = 'b', permanent = true }",
        );
        check(
            "redirect/regex = ^a\nredirect/replacement = b\nredirect/entrypoint = https",
            "redirect.entryPoint = 'https'",
        );
        check(
            "headers/customrequestheaders/access-control-allow-methods = POST,GET
             headers/customresponseheaders/X-Gone =
             headers/allowedhosts = a, b\nheaders/stsseconds = 10\nheaders/framedeny = true",
            "headers = { customRequestHeaders.Access-Control-Allow-Methods = 'POST,GET', customResponseHeaders.X-Gone = '', \
             allowedHosts = ['a', 'b'], STSSeconds = 10, frameDeny = true }",
        );
        check("headers/sslredirect = false", "");
        check("whitelist/usexforwardedfor = true", "");
        check(
            "whitelist/sourcerange = 10.0.0.0/8, ::1\nwhitelist/usexforwardedfor = true",
            "whiteList = { sourceRange = ['10.0.0.0/8', '::1'], useXForwardedFor = true }",
        );
        check(
            "passtlsclientcert/pem = false",
            "passTLSClientCert.pem = false",
        );
        check(
            "passtlsclientcert/infos/issuer/country = true",
            "passTLSClientCert.infos.issuer.country = true",
        );
        check(
            "auth/headerfield = X-User\nauth/digest/usersfile = /f\nauth/digest/removeheader = true",
            "auth = { headerField = 'X-User', digest.usersFile = '/f', digest.removeHeader = true }",
        );
        check(
            "auth/forward/address = http://a\nauth/forward/.authresponseheaders = X-A,X-B\nauth/forward/tls/ca =",
            "auth.forward = { address = 'http://a', authResponseHeaders = ['X-A', 'X-B'] }",
        );
        check(
            "auth/forward/.authresponseheaders = X-A\nauth/forward/tls/insecureskipverify = true",
            "auth.forward = { authResponseHeaders = ['X-A'], tls.insecureSkipVerify = true }",
        );
        check("auth/basic/users =", "auth.basic = {}");
    }

    #[test]
    fn the_host_header_is_passed_on_unless_a_key_says_no() {
        check_frontend("passhostheader = false", "passHostHeader = false", &[]);
        check_frontend("passHostHeader = false", "passHostHeader = false", &[]);
        check_frontend(
            "passhostheader =\npassHostHeader = false",
            "passHostHeader = false",
            &[],
        );
        check_frontend(
            "passhostheader = true\npassHostHeader = false",
            "passHostHeader = true",
            &[
                "traefik/frontends/f/passHostHeader: ignored, since it is also written at traefik/frontends/f/passhostheader",
            ],
        );
        check_frontend(
            "passhostheader = yes",
            "passHostHeader = true",
            &[
                "traefik/frontends/f/passhostheader: Invalid value \"yes\", ignored: expected a boolean (true, false, 1, 0, t or f)",
            ],
        );
    }

    #[test]
    fn what_cannot_be_read_costs_nothing_else() {
        check_frontend(
            "priority = 0x10\nratelimit/extractorfunc = client.ip\nratelimit/rateset/a/period = soon
             ratelimit/rateset/b/period = 1s\nwhitlist/sourcerange = 1.2.3.4",
            "passHostHeader = true\nratelimit = { extractorFunc = 'client.ip', rateSet.b.period = 1 }",
            &[
                "traefik/frontends/f/ratelimit/rateset/a: Invalid \"period\" value, the rate is left out: expected a duration (seconds, or text such as \"500ms\" or \"1m30s\")",
                "traefik/frontends/f/priority: Invalid value \"0x10\", ignored: expected a decimal integer",
                "traefik/frontends/f/whitlist: unknown option, ignored, did you mean `whitelist`?",
            ],
        );
        // A value that nobody can read may have kept somebody out: the frontend is left out, and no other.
        let pairs = vec![
            Pair::new("frontends/a/whitelist/sourcerange", b"\xff"),
            Pair::new("frontends/b/routes/r/rule", "Path:/"),
        ];
        let (dynamic, problems) = DynamicKeys::new(Vec::new()).read("p", pairs);
        assert_eq!(dynamic.frontends.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            problems
                .errors
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["p/frontends/a/whitelist/sourcerange: left out: the value is not UTF-8"]
        );
    }

    #[test]
    fn what_is_probably_not_meant_is_said() {
        let (dynamic, problems) = read(
            "frontends/f/backend = b\nfrontends/f/auth/headerfield = X\nfrontends/f/basicauth/",
        );
        assert!(dynamic.frontends["f"].routes.is_empty());
        assert_eq!(
            problems,
            [
                "traefik/frontends/f: has no rule, so it takes every request of its entry points",
                "traefik/frontends/f/auth: has neither basic nor digest nor forward, so it protects nothing",
            ]
        );
        check_frontend(
            "basicauth = a:b,c:d\nauth/basic/users = e:f\nauth/basic/removeheader = true",
            "passHostHeader = true\nauth.basic = { users = ['a:b', 'c:d'], removeHeader = true }",
            &["traefik/frontends/f: basicauth: deprecated, use auth/basic/users instead"],
        );
    }

    #[test]
    fn small_cases_of_backends() {
        let check = |keys, toml| check_backend(keys, toml, &[]);
        check("servers/", "");
        check(
            "maxconn/amount = 10",
            "maxConn = { amount = 10, extractorFunc = 'request.host' }",
        );
        check("maxconn/extractorfunc = client.ip", "");
        check("maxconn/amount = 3\nmaxconn/extractorfunc =", "");
        check(
            "healthcheck/path = /h\nhealthcheck/headers/x-foo = Bar\nhealthcheck/port = 80",
            "healthCheck = { path = '/h', interval = '30s', port = 80, headers.X-Foo = 'Bar' }",
        );
        check(
            "healthcheck/path = /h\nhealthcheck/interval =",
            "healthCheck.path = '/h'",
        );
        check("healthcheck/port = 80", "");
        check(
            "buffering/retryexpression = a",
            "buffering.retryExpression = 'a'",
        );
        check("buffering/", "buffering = {}");
        check("circuitbreaker/expression =", "");
        check(
            "responseforwarding/flushinterval = 10ms",
            "responseForwarding.flushInterval = '10ms'",
        );
        check("loadbalancer/sticky = true", "loadBalancer.sticky = true");
        check(
            "servers/s/url = http://a\nservers/s/weight = 010",
            "servers.s = { url = 'http://a', weight = 10 }",
        );
        check("servers/s/url =", "servers = {}");
        check_backend(
            "servers/s/weight = 1\nservers/t/url = http://t\nservers/t/weight = x",
            "servers.t.url = 'http://t'",
            &[
                "traefik/backends/b/servers/s/url: Failed to retrieve value for key traefik/backends/b/servers/s/url, the server is left out",
                "traefik/backends/b/servers/t/weight: Invalid value \"x\", ignored: expected a decimal integer",
            ],
        );
    }

    #[test]
    fn stickiness_is_a_value_and_a_folder() {
        let check = |keys, toml| check_backend(keys, toml, &[]);
        check(
            "loadbalancer/stickiness = true",
            "loadBalancer.stickiness = {}",
        );
        check(
            "loadbalancer/stickiness = false\nloadbalancer/stickiness/cookiename = c",
            "loadBalancer = {}",
        );
        check(
            "loadbalancer/stickiness/\nloadbalancer/stickiness/cookiename = ck\nloadbalancer/stickiness/secure = true
             loadbalancer/stickiness/httponly = 1\nloadbalancer/stickiness/samesite = lax",
            "loadBalancer.stickiness = { cookieName = 'ck', secure = true, httpOnly = true, sameSite = 'lax' }",
        );
        check("loadbalancer/stickiness/", "loadBalancer = {}");
        check_backend(
            "loadbalancer/stickiness = yes",
            "loadBalancer = {}",
            &[
                "traefik/backends/b/loadbalancer/stickiness: Invalid value \"yes\", ignored: expected a boolean (true, false, 1, 0, t or f)",
            ],
        );
    }

    #[test]
    fn tags_choose_servers() {
        let keys = "backends/backend1/servers/server1/url = http://a
                    backends/backend1/servers/server2/url = http://b
                    backends/backend1/servers/server2/tags = api,helloworld
                    backends/backend2/servers/server1/url = http://c
                    backends/backend2/servers/server2/url = http://d
                    backends/backend2/servers/server2/tags = web";
        let check = |constraint: &str, expected: [&[&str]; 2]| {
            let (kind, glob) = constraint.split_at("tag==".len());
            let constraint = Constraint {
                must_match: kind == "tag==",
                glob: glob.to_owned(),
            };
            let (dynamic, problems) = DynamicKeys::new(vec![constraint]).read("t", pairs(keys));
            assert_eq!(problems, Problems::default());
            let servers = ["backend1", "backend2"]
                .map(|name| dynamic.backends[name].servers.keys().collect::<Vec<_>>());
            assert_eq!(servers, expected);
        };
        check("tag==api", [&["server2"], &[]]);
        check("tag!=api", [&["server1"], &["server1", "server2"]]);
        check("tag==w*", [&[], &["server2"]]);
    }

    #[test]
    fn markers_make_names_and_nothing_else() {
        check_with(
            "backends/\nbackends/b2/\nfrontends/\ntls/\ntls/1/\nalias = x\nleader = me\nacme/account/object = y",
            "[backends.b2]",
            &["traefik/tls/1: Invalid TLS configuration (no cert and no key), left out"],
        );
        check("", "");
    }

    #[test]
    fn names_and_values_are_read_as_they_always_were() {
        check(
            r#"backends/B é.1/servers/s x/url = http://a
              frontends/F/backend = B \u00e9.1
              frontends/F/routes/r/rule = Path:/a/{id:\\d+}
              frontends/G/routes/r/rule = Path:/a/{id:\d+}
              frontends/G/headers/contentsecuritypolicy = a 'b' "c""#,
            r#"[backends."B é.1".servers."s x"]
               url = "http://a"
               [frontends.F]
               backend = "B é.1"
               passHostHeader = true
               routes.r.rule = 'Path:/a/{id:\d+}'
               [frontends.G]
               passHostHeader = true
               routes.r.rule = 'Path:/a/{id:\d+}'
               headers.contentSecurityPolicy = "a 'b' \"c\"""#,
        );
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let mut keys = DynamicKeys::new(Vec::new());
        let first = "frontends/a/priority = x\nfrontends/a/routes/r/rule = Path:/a\nfrontends/b/routes/r/rule = Path:/b";
        let (dynamic, problems) = keys.read("p", pairs(first));
        assert_eq!((dynamic.frontends.len(), problems.errors.len()), (2, 1));
        let changed = first.replace("Path:/b", "Path:/c");
        let (dynamic, problems) = keys.read("p", pairs(&changed));
        assert_eq!(dynamic.frontends["b"].routes["r"].rule, "Path:/c");
        assert_eq!(dynamic.frontends["a"].routes["r"].rule, "Path:/a");
        assert_eq!(problems, Problems::default(), "it was said before");
        let (dynamic, _) = keys.read("p", pairs("frontends/b/routes/r/rule = Path:/c"));
        assert_eq!(dynamic.frontends.keys().collect::<Vec<_>>(), ["b"]);
        // Another tree, such as that of another alias: places must be its own.
        let (dynamic, problems) = keys.read("q", pairs(first));
        assert_eq!(problems.errors.len(), 1);
        assert_eq!(dynamic.frontends["b"].place.to_string(), "q/frontends/b");
        // What belongs to no name is said once as well.
        let twice = "/frontends/a/backend = c\nbackends/b/servers/s/url = http://b\nfrontends/a/backend = b";
        let (_, problems) = keys.read("r", pairs(twice));
        let said = problems.warnings.last().map(ToString::to_string);
        assert_eq!(
            said.as_deref(),
            Some("r/frontends/a/backend: ignored, since a is defined before it")
        );
        let (_, problems) = keys.read("r", pairs(twice));
        assert_eq!(problems, Problems::default());
    }

    /// Keys that say something, and some that only look like it.
    const KEYS: &[&str] = &[
        "backends/a/servers/s/url",
        "backends/a/servers/s/weight",
        "backends/a",
        "backends/a-b/servers/s/url",
        "backends/b/",
        "backends/b/maxconn/amount",
        "backends/",
        "frontends/a/routes/r/rule",
        "frontends/a/priority",
        "frontends/A/routes/r/rule",
        "frontends/ab/backend",
        "tls/1/certificate/certfile",
        "tls/1/certificate/keyfile",
        "tls/2/certificate/certfile",
        "alias",
        "leader/x",
        // Keys of a name that do not stand together, and names that are one.
        "Frontends/a/backend",
        "frontends//a/backend",
        "/backends/a/servers/t/url",
        "frontends/\\u0061/priority",
    ];

    proptest::proptest! {
        #[test]
        fn what_changed_is_read_as_if_all_were(
            steps in proptest::collection::vec(
                proptest::collection::vec((0..KEYS.len() + 12, proptest::option::of(0..3usize)), 1..4), 1..16),
        ) {
            let mut keys = DynamicKeys::new(Vec::new());
            let mut tree: BTreeMap<String, Vec<u8>> = BTreeMap::new();
            for step in steps {
                let mut changed = BTreeSet::new();
                for (at, value) in step {
                    // The odd ones seldom: with one of them everything is read.
                    let key = KEYS[if at < KEYS.len() { at } else { at % 12 }].to_owned();
                    match value {
                        Some(value) => tree.insert(key.clone(), ["1", "x", "http://a"][value].into()),
                        None => tree.remove(&key),
                    };
                    changed.insert(key);
                }
                let changed: Vec<String> = changed.into_iter().collect();
                let (dynamic, _) = keys.read_changed("p", &tree, &changed);
                let mut anew = DynamicKeys::new(Vec::new());
                let pairs = tree.iter().map(|(key, value)| Pair::new(key, value)).collect();
                let (expected, problems) = anew.read("p", pairs);
                proptest::prop_assert_eq!(dynamic, expected);
                proptest::prop_assert_eq!(keys.problems(), anew.problems());
                proptest::prop_assert_eq!(problems.errors.len(), anew.problems().errors.len());
            }
        }

        #[test]
        fn arbitrary_trees_never_panic(keys in proptest::collection::vec((
            proptest::sample::select(vec![
                "frontends/f/auth/basic", "frontends/f/ratelimit/rateset/r", "frontends/f/headers", "backends/b/loadbalancer",
                "backends/b/servers/s", "tls/1", "frontends/f", "backends",
            ]),
            proptest::sample::select(vec![
                "", "/", "/users", "/users/0", "/period", "/stickiness", "/stickiness/secure", "/url", "/tags", "/certificate/certfile",
                "/customrequestheaders/a b", "/priority", "//x//",
            ]),
            proptest::collection::vec(proptest::num::u8::ANY, 0..6),
        ), 0..12)) {
            let keys: Vec<(String, Vec<u8>)> = keys.into_iter().map(|(a, b, value)| (format!("{a}{b}"), value)).collect();
            let pairs = keys.iter().map(|(key, value)| Pair::new(key, value)).collect();
            let _ = DynamicKeys::new(Vec::new()).read("p", pairs);
        }
    }
}
