//! Certificates for names that clients ask for in handshakes (`acme.onDemand`).
//!
//! Owns the limits: whoever can reach an entry point can ask for any name, and each order counts in the limits of the
//! authority. Only names that a rule's `Host` or `HostRegexp` takes come here. Never holds a handshake: who asks first is
//! shown another certificate. Read next: `plan.rs`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;
use tracing::warn;

use crate::limits::{ACME_ASKED_AGAIN, ACME_ASKED_PER_HOUR, ACME_ASKED_WINDOW};

/// What clients have asked for.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    /// To be ordered.
    wanted: BTreeSet<String>,
    /// When the last ones were taken, the newest last.
    taken: VecDeque<Instant>,
    /// Names that could not be had, and until when nobody tries again.
    refused: BTreeMap<String, Instant>,
    /// The limit was told of, in the time that is counted.
    is_told: bool,
}

impl OnDemand {
    /// Takes note of a name that has no certificate, if it may be ordered now.
    pub(super) fn ask(&mut self, name: String, now: Instant) {
        self.refused.retain(|_, until| *until > now);
        while let Some(oldest) = self.taken.front()
            && *oldest + ACME_ASKED_WINDOW <= now
        {
            self.taken.pop_front();
            self.is_told = false;
        }
        if self.wanted.contains(&name) || self.refused.contains_key(&name) {
            return;
        }
        if self.taken.len() >= ACME_ASKED_PER_HOUR {
            if !self.is_told {
                warn!(
                    "ACME: clients have asked for more than {ACME_ASKED_PER_HOUR} new names within an hour; the next ones get no certificate until it is over"
                );
                self.is_told = true;
            }
            return;
        }
        self.taken.push_back(now);
        self.wanted.insert(name);
    }

    /// What is to be ordered.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &String> {
        self.wanted.iter()
    }

    /// There is a certificate for these.
    pub(super) fn forget(&mut self, is_covered: impl Fn(&str) -> bool) {
        self.wanted.retain(|name| !is_covered(name));
    }

    /// An order has failed; whether it was for a name of ours, which is not tried again by itself.
    pub(super) fn fail(&mut self, names: &[String], now: Instant) -> bool {
        let [name] = names else {
            return false;
        };
        let is_ours = self.wanted.remove(name);
        if is_ours {
            self.refused.insert(name.clone(), now + ACME_ASKED_AGAIN);
        }
        is_ours
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn wanted(on_demand: &OnDemand) -> Vec<&String> {
        on_demand.wanted().collect()
    }

    #[test]
    fn names_are_taken_once_and_not_again_after_a_failure() {
        let (mut on_demand, now) = (OnDemand::default(), Instant::now());
        on_demand.ask("a.test".to_owned(), now);
        on_demand.ask("a.test".to_owned(), now);
        assert_eq!(wanted(&on_demand), ["a.test"]);
        assert!(!on_demand.fail(&["a.test".to_owned(), "b.test".to_owned()], now));
        assert!(on_demand.fail(&["a.test".to_owned()], now));
        assert!(!on_demand.fail(&["a.test".to_owned()], now));
        on_demand.ask("a.test".to_owned(), now);
        assert_eq!(wanted(&on_demand).len(), 0);
        on_demand.ask("a.test".to_owned(), now + ACME_ASKED_AGAIN);
        assert_eq!(wanted(&on_demand), ["a.test"]);
        on_demand.forget(|name| name == "a.test");
        assert_eq!(wanted(&on_demand).len(), 0);
    }

    #[test]
    fn so_many_names_are_taken_in_an_hour() {
        let (mut on_demand, now) = (OnDemand::default(), Instant::now());
        for number in 0..2 * ACME_ASKED_PER_HOUR {
            on_demand.ask(format!("{number}.test"), now);
        }
        assert_eq!(wanted(&on_demand).len(), ACME_ASKED_PER_HOUR);
        let later = now + ACME_ASKED_WINDOW - Duration::from_secs(1);
        on_demand.ask("late.test".to_owned(), later);
        assert_eq!(wanted(&on_demand).len(), ACME_ASKED_PER_HOUR);
        on_demand.ask("late.test".to_owned(), now + ACME_ASKED_WINDOW);
        assert_eq!(wanted(&on_demand).len(), ACME_ASKED_PER_HOUR + 1);
    }
}
