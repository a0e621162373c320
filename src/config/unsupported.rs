//! Options that parse but whose feature is not there yet, in one table: what an operator sees instead.
//!
//! A feature that arrives loses its row here and nowhere else; `docs/configuration.md` follows.
//! Never for an option that keeps somebody out: leaving that out would serve whom it was to refuse.
//! Read next: `docs/configuration.md`.

use super::dynamic::Dynamic;
use super::global::Global;
use super::option::Value;
use super::units::{Diagnostic, Place};

/// One option, or a section with all that is in it.
pub(super) struct Row {
    /// Dotted path; `*` stands for any name.
    pub(super) option: &'static str,
    /// What happens instead: the rest of a sentence that begins with the option.
    pub(super) instead: &'static str,
}

const fn ignored(option: &'static str, instead: &'static str) -> Row {
    Row { option, instead }
}

const NOT_PROVIDED: &str = "is a provider that Coreway does not have; the section has no effect";
const NO_DNS: &str = "is not supported yet: use acme.httpChallenge or acme.tlsChallenge";
const NO_METRICS: &str = "is not supported yet; there are no metrics";

/// Every option whose feature is not there yet.
pub(super) const ROWS: &[Row] = &[
    // Entry points.
    // Static sections.
    ignored("sendAnonymousUsage", "has no effect: Coreway sends nothing"),
    ignored(
        "hostResolver",
        "is not supported yet; rules match the host that was asked for",
    ),
    ignored("accessLog", "is not supported yet; requests are not logged"),
    ignored("metrics.prometheus", NO_METRICS),
    ignored("metrics.datadog", NO_METRICS),
    ignored("metrics.statsd", NO_METRICS),
    ignored("metrics.influxdb", NO_METRICS),
    ignored("tracing", "is not supported yet; there are no traces"),
    ignored(
        "acme.onDemand",
        "is not supported; no certificate is ordered during a handshake: use acme.onHostRule",
    ),
    ignored("acme.dnsChallenge", NO_DNS),
    ignored("acme.dnsProvider", NO_DNS),
    ignored(
        "acme.acmeLogging",
        "has no effect: what matters is always logged",
    ),
    ignored("docker", NOT_PROVIDED),
    ignored("marathon", NOT_PROVIDED),
    ignored("mesos", NOT_PROVIDED),
    ignored("kubernetes", NOT_PROVIDED),
    ignored("consulCatalog", NOT_PROVIDED),
    ignored("ecs", NOT_PROVIDED),
    ignored("rancher", NOT_PROVIDED),
    ignored("dynamodb", NOT_PROVIDED),
    ignored("eureka", NOT_PROVIDED),
    ignored("serviceFabric", NOT_PROVIDED),
    // Frontends.
    ignored(
        "frontends.*.passTLSCert",
        "is not supported; servers are shown no certificate",
    ),
    // Backends and certificates.
    ignored(
        "backends.*.responseForwarding",
        "is not supported yet; what arrives is passed on at once",
    ),
];

/// One warning for each static option of the table that `global` sets, at the first place of it.
pub fn unsupported(global: &Global) -> Vec<Diagnostic> {
    warnings(global)
}

/// One warning for each dynamic option of the table that `dynamic` sets, at the first place of it.
pub fn unsupported_dynamic(dynamic: &Dynamic) -> Vec<Diagnostic> {
    warnings(dynamic)
}

fn warnings(section: &impl Value) -> Vec<Diagnostic> {
    // For each row that something in the section sets: the first place, and how many there are.
    let mut found: Vec<(&'static Row, Diagnostic, usize)> = Vec::new();
    section.visit(&mut Vec::new(), &Place::Default, &mut |path, place, _| {
        for row in rows(path) {
            match found
                .iter_mut()
                .find(|(other, ..)| other.option == row.option)
            {
                Some((.., times)) => *times += 1,
                None => {
                    let path = path
                        .iter()
                        .map(|name| super::units::segment(name))
                        .collect::<Vec<_>>()
                        .join(".");
                    let message = format!("{path}: {}", row.instead);
                    found.push((
                        row,
                        Diagnostic {
                            place: place.clone(),
                            message,
                        },
                        1,
                    ));
                }
            }
        }
    });
    let mut warnings = Vec::with_capacity(found.len());
    for (_, mut warning, times) in found {
        if times > 1 {
            warning
                .message
                .push_str(&format!(" (and {} more)", times - 1));
        }
        warnings.push(warning);
    }
    warnings
}

fn rows(path: &[&str]) -> impl Iterator<Item = &'static Row> {
    ROWS.iter().filter(move |row| {
        let mut steps = row.option.split('.');
        path.iter().all(|name| {
            steps
                .next()
                .is_some_and(|step| step == "*" || step == *name)
        }) && steps.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::dynamic_from_toml;
    use crate::config::option::kind_at;

    #[test]
    fn every_row_is_an_option_that_exists() {
        for Row { option, .. } in ROWS {
            let exists = |options| kind_at(options, option).is_some();
            assert!(
                exists(Global::OPTIONS) || exists(Dynamic::OPTIONS),
                "{option}"
            );
        }
    }

    fn check(toml: &str, expected: &[&str]) {
        let (dynamic, _) = dynamic_from_toml("f", toml).expect("valid");
        let warnings: Vec<String> = unsupported_dynamic(&dynamic)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(warnings, expected);
    }

    #[test]
    fn each_option_without_a_feature_is_named_once() {
        check(
            "[backends.b.servers.s]\nurl = 'http://a'\n[backends.b.loadBalancer]\nmethod = 'wrr'\n",
            &[],
        );
        check(
            "[frontends.f]\nbackend = 'b'\npriority = 3\npassHostHeader = true\nentryPoints = ['x']\n",
            &[],
        );
        check(
            "[backends.b.servers.s]\nurl = 'H2C://a'\n[backends.b.loadBalancer]\nmethod = 'DRR'\n",
            &[],
        );
        check(
            "[frontends.f]\npassTLSCert = true\n[frontends.'g.h']\npassTLSCert = true\n[frontends.i]\npassTLSCert = true\n",
            &[
                "f:1:12: frontends.f.passTLSCert: is not supported; servers are shown no certificate (and 2 more)",
            ],
        );
        check("[[tls]]\n[tls.certificate]\ncertFile = 'a'\n", &[]);
    }
}
