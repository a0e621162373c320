//! `coreway explain`: what would become of a request, and why no other frontend has it.
//!
//! Owns the words and their order. What is said of rules is said by the compiled trie that a core would use: of the whole
//! rules for the frontend that answers, and for each of the others of one matcher at a time, compiled by itself. Never
//! sends anything. Read next: `frontend/explain.rs`, `offline.rs`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ::http::Uri;

use super::offline::Offline;
use crate::compile::{self, Memory, World};
use crate::config::dynamic::{Backend, Frontend, Route};
use crate::config::{Dynamic, Question};
use crate::settings::EntryPoint;
use crate::snapshot::explain::Asked;
use crate::snapshot::internal::Found;
use crate::snapshot::{Context, EntryPointId, Lookup, Middleware, Snapshot};

/// Frontends whose reasons are told one by one.
const SHOWN_MAX: usize = 20;

/// A question that was understood.
struct Wanted<'a> {
    question: &'a Question,
    authority: String,
    target: String,
    is_tls: bool,
    port: u16,
}

/// The answer, as lines.
///
/// # Errors
/// The question is none.
pub fn run(offline: &Offline, question: &Question) -> Result<String, String> {
    let wanted = Wanted::new(question)?;
    let mut text = format!("{} {}\n", question.method, question.url);
    for (id, entry_point) in wanted.entry_points(&offline.settings.entry_points) {
        text.push('\n');
        Story {
            offline,
            wanted: &wanted,
            id,
            entry_point,
            text: &mut text,
        }
        .tell()?;
    }
    let left_out = offline.compiled.rejections.len();
    if left_out > 0 {
        let _ = writeln!(
            text,
            "\nWarnings and errors that are not told here: {left_out}, see coreway check"
        );
    }
    Ok(text)
}

impl<'a> Wanted<'a> {
    fn new(question: &'a Question) -> Result<Self, String> {
        let expected = "expected a URL such as http://example.org/path";
        let url: Uri = question
            .url
            .parse()
            .map_err(|error| format!("{}: {error}; {expected}", question.url))?;
        let authority = url
            .authority()
            .ok_or_else(|| format!("{}: {expected}", question.url))?;
        let is_tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("{}: {expected}", question.url)),
        };
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            question,
            authority: authority.to_string(),
            target: target.to_owned(),
            is_tls,
            port: authority
                .port_u16()
                .unwrap_or(if is_tls { 443 } else { 80 }),
        })
    }

    fn asked(&self) -> Result<Asked, String> {
        let Question { method, fields, .. } = self.question;
        Asked::new(method, &self.authority, &self.target, fields)
    }

    /// Those that listen on the port of the URL; if there is none, behind a translation of ports, those that speak its
    /// scheme.
    fn entry_points<'e>(&self, all: &'e [EntryPoint]) -> Vec<(EntryPointId, &'e EntryPoint)> {
        let numbered = || {
            let id = |at: usize| EntryPointId(u16::try_from(at).unwrap_or(u16::MAX));
            all.iter()
                .enumerate()
                .map(move |(at, entry_point)| (id(at), entry_point))
        };
        let fits = |entry_point: &EntryPoint| entry_point.tls.is_some() == self.is_tls;
        let here: Vec<_> = numbered()
            .filter(|(_, one)| fits(one) && one.address.port() == self.port)
            .collect();
        if here.is_empty() {
            numbered().filter(|(_, one)| fits(one)).collect()
        } else {
            here
        }
    }
}

/// What is told of one entry point.
struct Story<'a> {
    offline: &'a Offline,
    wanted: &'a Wanted<'a>,
    id: EntryPointId,
    entry_point: &'a EntryPoint,
    text: &'a mut String,
}

impl Story<'_> {
    fn line(&mut self, head: &str, text: &str) {
        let _ = writeln!(self.text, "{}", format!("{head:<14}{text}").trim_end());
    }

    /// A head, and a line for each item.
    fn lines(&mut self, head: &str, items: impl IntoIterator<Item = String>) {
        let mut head = head;
        for item in items {
            self.line(head, &item);
            head = "";
        }
    }

    fn tell(&mut self) -> Result<(), String> {
        let (offline, entry_point) = (self.offline, self.entry_point);
        self.line(
            "entry point",
            &format!("{} ({})", entry_point.name, entry_point.address),
        );
        let mut asked = self.wanted.asked()?;
        let Some(snapshot) = offline.compiled.snapshots.first() else {
            return Ok(());
        };
        if let Some(internal) = &entry_point.internal {
            let method = asked.method().to_vec();
            match internal.find(&method, asked.target().as_bytes()) {
                Some(Found::Ping) => {
                    self.line("answered by", "Coreway itself: /ping, whoever asks");
                    return Ok(());
                }
                Some(Found::Guarded) => {
                    self.line("answered by", "Coreway itself: a page of api or rest");
                    let context = self.context();
                    let steps = asked.steps(&internal.middlewares, context);
                    self.lines("behind", steps.into_iter().map(|step| step.what));
                    return Ok(());
                }
                Some(Found::Moved) => {
                    self.line(
                        "answered by",
                        "Coreway itself: 301 to the path without its last slash",
                    );
                    return Ok(());
                }
                None => {}
            }
        }
        if self.steps(&mut asked, &entry_point.middlewares) {
            return Ok(());
        }
        let found = snapshot.trie(self.id).map(|trie| asked.lookup(trie));
        let winner = match found {
            Some(Lookup::Frontend(id)) => {
                self.frontend(snapshot, id.0 as usize, &mut asked);
                Some(id.0 as usize)
            }
            Some(Lookup::Redirect) => {
                let location = asked.location();
                self.line(
                    "answered",
                    &format!("301 to {location}: a path differs by its last slash"),
                );
                None
            }
            Some(Lookup::None) | None => {
                self.line("answered", "404: no frontend matches");
                None
            }
        };
        if found != Some(Lookup::Redirect) {
            self.others(snapshot, winner);
        }
        Ok(())
    }

    /// Some client's.
    fn context(&self) -> Context {
        Context {
            entry_point: self.id.0,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            is_trusted: true,
            is_tls: self.wanted.is_tls,
        }
    }

    /// Tells steps, and whether one of them ends it.
    fn steps(&mut self, asked: &mut Asked, steps: &[Middleware]) -> bool {
        let steps = asked.steps(steps, self.context());
        let ends = steps.iter().any(|step| step.ends);
        self.lines("middlewares", steps.into_iter().map(|step| step.what));
        ends
    }

    fn written(&self, provider: &str, name: &str) -> Option<&Frontend> {
        let provider = self.offline.providers.get(provider)?;
        provider.frontends.get(name).map(|frontend| &**frontend)
    }

    fn frontend(&mut self, snapshot: &Snapshot, at: usize, asked: &mut Asked) {
        let (frontend, offline) = (&snapshot.frontends[at], self.offline);
        let written = offline
            .providers
            .get(&frontend.provider)
            .and_then(|provider| provider.frontends.get(&frontend.name));
        let Some(written) = written else {
            return;
        };
        self.line(
            "frontend",
            &format!(
                "{} of provider {}, priority {} ({})",
                frontend.name,
                frontend.provider,
                compile::priority(written),
                written.place
            ),
        );
        let rules = written.routes.iter();
        self.lines(
            "rule",
            rules.map(|(name, route)| format!("{name}: {}", route.rule)),
        );
        if written.routes.is_empty() {
            self.line("rule", "none, so it takes every request");
        }
        let before = asked.target();
        if !asked.modify(&frontend.modifiers) {
            return self.line("answered", "404: there is nothing to strip");
        }
        if asked.target() != before {
            let target = asked.target();
            self.line("path", &format!("{target} from here on"));
        }
        if self.steps(asked, &frontend.middlewares) {
            return;
        }
        let limits = [
            (frontend.rate_limit.is_some(), "rate limit"),
            (!frontend.error_pages.is_empty(), "error pages"),
        ];
        let limits = limits.iter().filter(|(is_there, _)| *is_there);
        self.lines("and", limits.map(|(_, what)| (*what).to_owned()));
        let backend = snapshot.backend(frontend.backend);
        let provider = offline.providers.get(&frontend.provider);
        let written = provider.and_then(|provider| provider.backends.get(&backend.name));
        let method = written
            .and_then(|backend| backend.load_balancer.as_ref())
            .map(|balancer| balancer.method.to_lowercase())
            .filter(|method| !method.is_empty())
            .unwrap_or_else(|| "wrr".to_owned());
        let traits = [
            (backend.balancer.sticky.is_some(), "sticky"),
            (backend.breaker.is_some(), "circuit breaker"),
            (backend.max_conn.is_some(), "maxConn"),
            (backend.buffering.is_some(), "buffering"),
            (backend.ejection.is_some(), "ejection"),
        ];
        let traits = traits.iter().filter(|(is_there, _)| *is_there);
        let traits: String = traits.map(|(_, what)| format!(", {what}")).collect();
        self.line("backend", &format!("{}, {method}{traits}", backend.name));
        let servers = backend.servers.iter().zip(&backend.balancer.weights);
        let told = servers
            .map(|(server, weight)| format!("{} {}, weight {weight}", server.name, server.url));
        self.lines("candidates", told.collect::<Vec<_>>());
        if backend.servers.is_empty() {
            self.line("candidates", "none: 503");
        }
    }

    /// Why those that are asked before the winner, or all if there is none, do not have it.
    fn others(&mut self, snapshot: &Snapshot, winner: Option<usize>) {
        let before = &snapshot.frontends[..winner.unwrap_or(snapshot.frontends.len())];
        let mut told: Vec<Reason> = Vec::new();
        for frontend in before {
            let Some(written) = self.written(&frontend.provider, &frontend.name) else {
                continue;
            };
            if self.is_here(written) {
                told.extend(self.reason(&frontend.name, written));
            }
        }
        // Those that nearly had it first; the sort keeps the order of priority among equals.
        told.sort_by_key(|reason| std::cmp::Reverse(reason.matched));
        let more = told.len().saturating_sub(SHOWN_MAX);
        let head = match winner {
            Some(_) => "not before it",
            None => "not matched",
        };
        let lines = told
            .iter()
            .take(SHOWN_MAX)
            .map(|reason| reason.text.clone());
        self.lines(head, lines.collect::<Vec<_>>());
        if more > 0 {
            self.line("", &format!("and {more} more"));
        }
    }

    fn is_here(&self, written: &Frontend) -> bool {
        let names = match &*written.entry_points {
            [] => &self.offline.world.default_entry_points,
            names => names,
        };
        names.contains(&self.entry_point.name)
    }

    fn reason(&self, name: &str, written: &Frontend) -> Option<Reason> {
        let mut matched = 0;
        let mut failed = Vec::new();
        for route in written.routes.values() {
            for matcher in route.rule.split(';').filter(|piece| !piece.is_empty()) {
                match self.matches(matcher) {
                    true => matched += 1,
                    false => failed.push(matcher.trim().to_owned()),
                }
            }
        }
        let why = match &*failed {
            [] => "each of its matchers does, but not all with the same last slash".to_owned(),
            failed => format!("does not match {}", failed.join(" and ")),
        };
        let priority = compile::priority(written);
        Some(Reason {
            matched,
            text: format!("{name} (priority {priority}): {why}"),
        })
    }

    /// Whether a matcher by itself matches, by a trie that holds nothing else.
    fn matches(&self, matcher: &str) -> bool {
        let route = Route {
            rule: matcher.to_owned(),
            ..Route::default()
        };
        let frontend = Frontend {
            backend: "b".to_owned(),
            routes: BTreeMap::from([("r".to_owned(), route)]),
            ..Frontend::default()
        };
        let dynamic = Dynamic {
            backends: BTreeMap::from([("b".to_owned(), Backend::default().into())]),
            frontends: BTreeMap::from([("f".to_owned(), frontend.into())]),
            ..Dynamic::default()
        };
        let world = World {
            entry_points: vec![self.entry_point.name.clone()],
            default_entry_points: vec![self.entry_point.name.clone()],
            keep_trailing_slash: self.offline.world.keep_trailing_slash,
            cores: 1,
            ..World::default()
        };
        let providers = BTreeMap::from([("p".to_owned(), Arc::new(dynamic))]);
        let compiled = compile::compile(&providers, &world, &mut Memory::default());
        let trie = compiled
            .snapshots
            .first()
            .and_then(|one| one.trie(EntryPointId(0)));
        match (trie, self.wanted.asked()) {
            (Some(trie), Ok(mut asked)) => asked.lookup(trie) != Lookup::None,
            _ => false,
        }
    }
}

struct Reason {
    /// How many of its matchers do match.
    matched: usize,
    text: String,
}
