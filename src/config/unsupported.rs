//! Options that parse but whose feature is not there yet, in one table: what an operator sees instead.
//!
//! A feature that arrives loses its row here and nowhere else; `docs/configuration.md` follows.
//! Never for an option that keeps somebody out: leaving that out would serve whom it was to refuse.
//! Read next: `docs/configuration.md`.

use super::global::Global;
use super::option::Value;
use super::units::{Diagnostic, Place};

/// One option, or a section with all that is in it.
pub(super) struct Row {
    /// Dotted path of a static option.
    pub(super) option: &'static str,
    /// What happens instead: the rest of a sentence that begins with the option.
    pub(super) instead: &'static str,
}

const fn ignored(option: &'static str, instead: &'static str) -> Row {
    Row { option, instead }
}

const NOT_PROVIDED: &str = "is a provider that Coreway does not have; the section has no effect";
const NO_METRICS: &str = "is not supported yet; there are no metrics";

/// Every option whose feature is not there yet.
pub(super) const ROWS: &[Row] = &[
    ignored("sendAnonymousUsage", "has no effect: Coreway sends nothing"),
    ignored("accessLog", "is not supported yet; requests are not logged"),
    ignored("metrics.prometheus", NO_METRICS),
    ignored("metrics.datadog", NO_METRICS),
    ignored("metrics.statsd", NO_METRICS),
    ignored("metrics.influxdb", NO_METRICS),
    ignored("tracing", "is not supported yet; there are no traces"),
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
];

/// One warning for each option of the table that `global` sets.
pub fn unsupported(global: &Global) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    global.visit(&mut Vec::new(), &Place::Default, &mut |path, place, _| {
        let option = path.join(".");
        for row in ROWS.iter().filter(|row| row.option == option) {
            warnings.push(Diagnostic {
                place: place.clone(),
                message: format!("{option}: {}", row.instead),
            });
        }
    });
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option::kind_at;

    #[test]
    fn every_row_is_an_option_that_exists() {
        for Row { option, .. } in ROWS {
            assert!(kind_at(Global::OPTIONS, option).is_some(), "{option}");
        }
    }
}
