//! What compiling makes of a configuration, seen from outside: who answers which request, what is said, what stays.
//!
//! Owns how a test writes a configuration and asks the outcome. Never looks inside a part: those have tests of their own.

mod rejections;
mod reload;
mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::backend::balancer::{Ask, NoServer};
use crate::backend::{Backend, ServerId};
use crate::config::dynamic;
use crate::frontend::Scratch;
use crate::frontend::example::Request;
use crate::frontend::trie::Lookup;
use crate::snapshot::EntryPointId;

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
pub(super) fn next(backend: &Backend) -> Result<ServerId, NoServer> {
    let ask = Ask {
        request: &Request::parse("/").head(),
        client: [127, 0, 0, 1].into(),
        now: 0,
    };
    backend.balancer.choose(&ask, &[]).map(|choice| choice.id)
}

pub(super) fn world() -> World {
    World {
        entry_points: vec!["http".to_owned()],
        default_entry_points: vec!["http".to_owned()],
        ..World::default()
    }
}

pub(super) fn compiled(world: &World, dynamic: Dynamic) -> Compiled {
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
pub(super) fn check_in(world: &World, rule: &str, request: &str, expected: &str) {
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

pub(super) fn check(rule: &str, request: &str, expected: &str) {
    check_in(&world(), rule, request, expected);
}

pub(super) fn yes(rule: &str, request: &str) {
    let target = &request[request.find('/').expect("a path")..];
    check(
        rule,
        request,
        target.split('|').next().expect("a target").trim(),
    );
}

pub(super) fn no(rule: &str, request: &str) {
    check(rule, request, "404");
}

/// Which of several frontends answers.
pub(super) fn check_order(frontends: &[(&str, &str, i64)], request: &str, expected: &str) {
    let snapshot = &compiled(&world(), dynamic(frontends)).snapshots[0];
    let parsed = Request::parse(request);
    assert_eq!(
        answer(snapshot, &parsed, &mut Scratch::default()),
        expected,
        "{frontends:?} request {request}"
    );
}

pub(super) fn messages(world: &World, dynamic: Dynamic) -> Vec<String> {
    compiled(world, dynamic)
        .rejections
        .into_iter()
        .map(|rejection| rejection.message)
        .collect()
}
