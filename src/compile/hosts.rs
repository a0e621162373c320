//! The hosts that rules of an entry point ask for: a certificate for another one would be of no use.
//!
//! Never looks at paths or methods: a name in a handshake comes without them. Read next: `certificate.rs`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::frontend::host;
use super::names::rules_on;
use super::template::Expressions;
use super::{World, rule};
use crate::config::Dynamic;
use crate::frontend::matcher::HostPattern;

/// The arguments of every `Host` and `HostRegexp`.
#[derive(Debug, Default)]
pub struct Hosts {
    names: HashSet<String>,
    patterns: Vec<HostPattern>,
}

impl Hosts {
    /// Those of frontends on an entry point.
    pub fn new(
        providers: &BTreeMap<String, Arc<Dynamic>>,
        world: &World,
        entry_point: &str,
    ) -> Self {
        let mut expressions = Expressions::default();
        let mut hosts = Self::default();
        let rules = rules_on(providers, world, entry_point);
        let matchers = rules.flat_map(|rule| rule::parse(rule).unwrap_or_default().matchers);
        for matcher in matchers {
            match matcher {
                rule::Matcher::Host(names) => hosts.names.extend(names),
                rule::Matcher::HostRegexp(texts) => {
                    // One that cannot be compiled matches nothing, and was told of with its frontend.
                    let patterns = texts
                        .iter()
                        .filter_map(|text| host(&mut expressions, text).ok());
                    hosts.patterns.extend(patterns);
                }
                _ => {}
            }
        }
        hosts
    }

    /// Whether a rule takes this host, which is in lower case.
    pub fn has(&self, host: &str) -> bool {
        self.names.contains(host)
            || self
                .patterns
                .iter()
                .any(|pattern| pattern.test(host.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::dynamic;
    use super::*;

    #[test]
    fn only_hosts_of_rules_are_taken() {
        let written = dynamic(&[
            ("a", "Host:a.test,B.test;Path:/x", 0),
            ("b", "HostRegexp:{name:[a-z]+}.sub.test", 0),
            ("c", "PathPrefix:/", 0),
        ]);
        let world = World {
            default_entry_points: vec!["https".to_owned()],
            ..World::default()
        };
        let providers = BTreeMap::from([("file".to_owned(), Arc::new(written))]);
        let hosts = Hosts::new(&providers, &world, "https");
        for (host, expected) in [
            ("a.test", true),
            ("b.test", true),
            ("c.sub.test", true),
            ("1.sub.test", false),
            ("c.c.sub.test", false),
            ("c.test", false),
        ] {
            assert_eq!(hosts.has(host), expected, "{host}");
        }
        assert!(!Hosts::new(&providers, &world, "http").has("a.test"));
    }
}
