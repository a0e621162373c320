//! Addresses of server host names, looked up away from the cores.
//!
//! Owns what is known of each host name that the configuration uses. Lookups go through the system's resolver on the
//! blocking pool, a bounded number at a time and each within a time limit; every name is asked again each 30 seconds.
//! A name that no longer resolves keeps the addresses it had. Never blocks the control loop.
//! Read next: `publish.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};
use tracing::warn;

/// Lookups under way at once. Each holds a thread of the blocking pool.
const LOOKUPS_MAX: usize = 16;

/// Time for one lookup, waiting for its turn included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A name is asked again this long after its last answer.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(30);

/// Addresses used of one name. Connections try them in order, and more than a few would only make a failure slower.
const ADDRESSES_MAX: usize = 16;

/// How one name is looked up: the system's resolver, or a test's.
pub type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

/// Asks the system's resolver. Blocks.
pub fn system(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0)
        .to_socket_addrs()?
        .map(|address| address.ip())
        .collect())
}

struct Host {
    addresses: Vec<IpAddr>,
    state: State,
    failing: bool,
}

enum State {
    /// Never answered yet: neither with addresses nor with an error.
    New,
    Asking,
    Answered {
        ask_again: Instant,
    },
}

struct Answer {
    host: String,
    result: io::Result<Vec<IpAddr>>,
}

/// What is known of every host name in use.
pub struct Resolver {
    lookup: Lookup,
    hosts: HashMap<String, Host>,
    turns: Arc<Semaphore>,
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

impl Resolver {
    pub fn new(lookup: Lookup) -> Self {
        // Holds at most one answer for each name in use.
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            lookup,
            hosts: HashMap::new(),
            turns: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            sender,
            answers,
        }
    }

    /// From now on these names are in use and no others. New ones are asked at once.
    pub fn want(&mut self, names: &BTreeSet<String>) {
        self.hosts.retain(|name, _| names.contains(name));
        for name in names {
            if !self.hosts.contains_key(name) {
                self.hosts.insert(
                    name.clone(),
                    Host {
                        addresses: Vec::new(),
                        state: State::New,
                        failing: false,
                    },
                );
                self.ask(name.clone());
            }
        }
    }

    /// Whether a name in use has not been answered even once.
    pub fn is_waiting(&self) -> bool {
        self.hosts
            .values()
            .any(|host| matches!(host.state, State::New))
    }

    /// Asks every name again whose answer is old.
    pub fn ask_again(&mut self, now: Instant) {
        let old: Vec<String> = self
            .hosts
            .iter_mut()
            .filter_map(|(name, host)| match host.state {
                State::Answered { ask_again } if ask_again <= now => {
                    host.state = State::Asking;
                    Some(name.clone())
                }
                _ => None,
            })
            .collect();
        for name in old {
            self.ask(name);
        }
    }

    /// Waits for the next answer and takes it in. `true` if it changed the addresses of a name. May be cancelled.
    pub async fn answer(&mut self) -> bool {
        // We hold a sender ourselves, so the channel cannot end.
        let Some(answer) = self.answers.recv().await else {
            return false;
        };
        let Some(host) = self.hosts.get_mut(&answer.host) else {
            return false;
        };
        host.state = State::Answered {
            ask_again: Instant::now() + LOOKUP_INTERVAL,
        };
        match answer.result {
            Ok(mut addresses) => {
                let mut seen = BTreeSet::new();
                addresses.retain(|address| seen.insert(*address));
                addresses.truncate(ADDRESSES_MAX);
                host.failing = false;
                // Name servers rotate their answers: the same addresses in another order are no change.
                if host.addresses.iter().copied().collect::<BTreeSet<_>>()
                    == addresses.iter().copied().collect()
                {
                    return false;
                }
                host.addresses = addresses;
                true
            }
            Err(error) => {
                if !host.failing {
                    host.failing = true;
                    let kept = if host.addresses.is_empty() {
                        ""
                    } else {
                        "; going on with the addresses it had"
                    };
                    warn!(
                        "Cannot resolve server host name {}: {error}{kept}",
                        answer.host
                    );
                }
                false
            }
        }
    }

    /// The addresses of every name that has any.
    pub fn addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        self.hosts
            .iter()
            .filter(|(_, host)| !host.addresses.is_empty())
            .map(|(name, host)| (name.clone(), host.addresses.clone()))
            .collect()
    }

    fn ask(&self, name: String) {
        let (sender, turns, lookup) = (self.sender.clone(), Arc::clone(&self.turns), self.lookup);
        tokio::spawn(async move {
            let asked = name.clone();
            let work = async move {
                let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
                // The turn ends with the lookup itself, even if nobody waits for it any more.
                let looked_up = tokio::task::spawn_blocking(move || {
                    let result = lookup(&asked);
                    drop(turn);
                    result
                });
                looked_up.await.map_err(io::Error::other)?
            };
            let result = timeout(LOOKUP_TIMEOUT, work).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
            });
            let _ = sender.send(Answer { host: name, result });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// `n.n.n.n` style: `one.test` always has one address, `moving.test` another each time, `flaky.test` only at first.
    fn invented(host: &str) -> io::Result<Vec<IpAddr>> {
        static ASKED: AtomicU32 = AtomicU32::new(0);
        static FLAKY: AtomicU32 = AtomicU32::new(0);
        match host {
            "one.test" => Ok(vec!["10.0.0.1".parse().map_err(io::Error::other)?]),
            "moving.test" => {
                let last = ASKED.fetch_add(1, Ordering::Relaxed) % 250;
                Ok(vec![
                    format!("10.0.1.{last}").parse().map_err(io::Error::other)?,
                ])
            }
            "flaky.test" if FLAKY.fetch_add(1, Ordering::Relaxed) == 0 => {
                Ok(vec!["10.0.2.1".parse().map_err(io::Error::other)?])
            }
            _ => Err(io::Error::other("no such host")),
        }
    }

    #[tokio::test]
    async fn names_are_answered_and_asked_again() {
        let mut resolver = Resolver::new(invented);
        resolver.want(&names(&["one.test", "moving.test"]));
        assert!(resolver.is_waiting());
        assert!(resolver.answer().await);
        assert!(resolver.answer().await);
        assert!(!resolver.is_waiting());
        assert_eq!(
            resolver.addresses()["one.test"],
            ["10.0.0.1".parse::<IpAddr>().expect("an address")]
        );

        resolver.ask_again(Instant::now());
        resolver.ask_again(Instant::now() + LOOKUP_INTERVAL + Duration::from_secs(1));
        let changed = [resolver.answer().await, resolver.answer().await];
        assert_eq!(
            changed.iter().filter(|&&changed| changed).count(),
            1,
            "only the moving one changed"
        );
    }

    #[tokio::test]
    async fn a_failing_name_keeps_its_addresses() {
        let mut resolver = Resolver::new(invented);
        resolver.want(&names(&["flaky.test", "never.test"]));
        resolver.answer().await;
        resolver.answer().await;
        assert!(!resolver.is_waiting(), "an error is an answer too");
        resolver.ask_again(Instant::now() + LOOKUP_INTERVAL + Duration::from_secs(1));
        assert!(!resolver.answer().await);
        assert!(!resolver.answer().await);
        assert_eq!(
            resolver.addresses().keys().collect::<Vec<_>>(),
            ["flaky.test"]
        );
        resolver.want(&names(&[]));
        assert!(resolver.addresses().is_empty());
    }
}
