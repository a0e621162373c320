//! This node's part in the fleet that shares a store: its name, and whether it leads.
//!
//! Owns what it stands for election with: the first store that is configured, its key `leader`, the name of `[cluster]`. A
//! node without a store, or with one that no other can share, leads by itself. Leadership decides one thing: who orders
//! certificates. Traffic and configuration never wait for it. Spec cluster 1, 2.
//! Read next: `store/leadership.rs`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::config::Global;
use crate::store::{Election, Leadership, Store};

use super::stores::Opened;

/// How long the store may take to tell who leads.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// The first store, and this node's candidacy in it.
#[derive(Debug)]
pub struct Leader {
    leadership: Leadership,
    /// `None` without a store.
    candidacy: Option<Candidacy>,
}

#[derive(Debug)]
struct Candidacy {
    election: Election,
    shared: Opened,
    office: Office,
}

/// Where it is written who leads.
#[derive(Clone, Debug)]
pub struct Office {
    store: Arc<dyn Store>,
    key: String,
    leadership: Leadership,
}

/// Who leads, as this node can tell now (spec cluster 2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is this node.
    pub leads: bool,
    /// What the store says: the name of the last one that was elected. Empty if it cannot be asked.
    pub leader: String,
}

/// Whether cluster mode can be as it is configured.
///
/// # Errors
/// `[cluster]` without a store.
pub fn check(global: &Global) -> io::Result<()> {
    match &global.cluster {
        Some(cluster) if !global.has_store() => Err(io::Error::other(format!(
            "{}: cluster: nodes share a key-value store, and none is configured: consul, etcd, zookeeper or boltdb",
            cluster.place
        ))),
        _ => Ok(()),
    }
}

impl Leader {
    /// Stands for election in this store, on the runtime of this thread.
    ///
    /// # Errors
    /// There is no randomness for a name.
    pub(super) fn start(global: &Global, shared: Option<Opened>) -> io::Result<Self> {
        let Some(shared) = shared else {
            return Ok(Self {
                leadership: Leadership::alone(),
                candidacy: None,
            });
        };
        let written = global.cluster.as_ref().map(|cluster| &*cluster.node);
        let node = match written.filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => random_name()?,
        };
        let key = shared.prefix.key("leader");
        let election = Election::start(Arc::clone(&shared.store), key.clone(), node);
        let leadership = election.leadership();
        let office = Office {
            store: Arc::clone(&shared.store),
            key,
            leadership: leadership.clone(),
        };
        Ok(Self {
            leadership,
            candidacy: Some(Candidacy {
                election,
                shared,
                office,
            }),
        })
    }

    /// Whether this node leads, to be followed.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// The store that the fleet shares.
    pub fn shared(&self) -> Option<&Opened> {
        self.candidacy.as_ref().map(|candidacy| &candidacy.shared)
    }

    /// Where to ask who leads. `None` without a store.
    pub fn office(&self) -> Option<Office> {
        let candidacy = self.candidacy.as_ref()?;
        Some(candidacy.office.clone())
    }

    /// Makes room for the next leader, as a node does that stops.
    pub(super) async fn resign(self) {
        if let Some(candidacy) = self.candidacy {
            candidacy.election.resign().await;
        }
    }
}

impl Office {
    /// Asks the store. It takes 2 s at most.
    pub async fn standing(&self) -> Standing {
        let told = timeout(TELL_TIMEOUT, self.store.get(&self.key)).await;
        let pair = told.ok().and_then(Result::ok).flatten();
        Standing {
            leads: self.leadership.term().is_some(),
            leader: pair.map_or_else(String::new, |pair| {
                String::from_utf8_lossy(&pair.value).into_owned()
            }),
        }
    }
}

/// A name that no other node has: a random UUID (RFC 9562, 5.4), as in the reference.
fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let text = format!("{number:032x}");
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_name_is_a_uuid() {
        let name = random_name().expect("random");
        let lengths: Vec<usize> = name.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12], "{name}");
        assert_eq!(&name[14..15], "4");
        assert_ne!(name, random_name().expect("random"));
    }
}
