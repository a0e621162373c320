//! Options that Traefik 1.7 declared deprecated: all are accepted, each is named once with its replacement. Spec
//! static-config 7.
//!
//! Works on the tree, so that a warning names the line. What a deprecated option then does is `effective.rs`'s part
//! for static ones and `compile`'s for dynamic ones.
//! Read next: `effective.rs`.

use super::tree::{Data, Node};
use super::units::{Diagnostic, Place};

/// A deprecated option (`*` stands for any name) and what to write instead.
pub(super) const DEPRECATED: &[(&str, &str)] = &[
    ("graceTimeOut", "lifeCycle.graceTimeOut"),
    ("idleTimeout", "respondingTimeouts.idleTimeout"),
    ("accessLogsFile", "accessLog.filePath"),
    ("traefikLogsFile", "traefikLog.filePath"),
    ("web", "api, ping, metrics and rest"),
    (
        "entryPoints.*.whitelistSourceRange",
        "whiteList.sourceRange",
    ),
    ("entryPoints.*.tls.clientCAFiles", "clientCA.files"),
    ("acme.storageFile", "acme.storage"),
    ("acme.dnsProvider", "acme.dnsChallenge.provider"),
    (
        "acme.delayDontCheckDNS",
        "acme.dnsChallenge.delayBeforeCheck",
    ),
    ("acme.onDemand", "acme.onHostRule or acme.domains"),
    ("frontends.*.basicAuth", "auth.basic.users"),
    ("frontends.*.whitelistSourceRange", "whiteList.sourceRange"),
    ("frontends.*.passTLSCert", "passTLSClientCert"),
    ("backends.*.loadBalancer.sticky", "loadBalancer.stickiness"),
];

/// One diagnostic for each deprecated option that `tree` (spelt as declared) holds, at the first place of it.
pub(super) fn warnings(tree: &Node, diagnostics: &mut Vec<Diagnostic>) {
    for (option, replacement) in DEPRECATED {
        let steps: Vec<&str> = option.split('.').collect();
        let mut places = Vec::new();
        find(tree, &steps, &mut places);
        if let Some((first, others)) = places.split_first() {
            let more = if others.is_empty() {
                String::new()
            } else {
                format!(" (and {} more)", others.len())
            };
            diagnostics.push(Diagnostic {
                place: (*first).clone(),
                message: format!("{option}: deprecated, use {replacement} instead{more}"),
            });
        }
    }
}

fn find<'n>(node: &'n Node, steps: &[&str], places: &mut Vec<&'n Place>) {
    let Some((step, rest)) = steps.split_first() else {
        return;
    };
    let Data::Table(table) = &node.data else {
        return;
    };
    for entry in table
        .entries
        .iter()
        .filter(|entry| *step == "*" || entry.name == *step)
    {
        if rest.is_empty() {
            places.push(&entry.place);
        } else {
            find(&entry.node, rest, places);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option::kind_at;
    use crate::config::{Dynamic, Global};

    #[test]
    fn every_deprecated_option_exists() {
        for (option, _) in DEPRECATED {
            let exists = |options| kind_at(options, option).is_some();
            assert!(
                exists(Global::OPTIONS) || exists(Dynamic::OPTIONS),
                "{option}"
            );
        }
    }
}
