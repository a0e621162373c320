//! The names that certificates are for, in rules and in certificates that are there.
//!
//! Owns nothing. Never orders a certificate: `acme/` does. Read next: `hosts.rs` (whether a name may have one).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{World, certificate, rule};
use crate::config::{Dynamic, dynamic};

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
pub(super) fn rules_on<'a>(
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
