//! The object of a fleet in its store: followed by every node, changed by the one that leads.
//!
//! Owns how a change is made, under the lock of Traefik 1.7 and only over what was read (spec cluster 4), and what every
//! node does with one that it sees: certificates go to the control loop, so do the proofs of names, whichever node ordered.
//! An object that cannot be read is never written over. A store that is lost takes nothing back.
//! Never orders anything. Read next: `object.rs` (the format), `mod.rs` (who orders).

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{debug, error, info};

use super::object::Object;
use super::storage::Stored;
use super::{Challenges, Proof, Publish, tls_of};
use crate::config::Dynamic;
use crate::limits::{ACME_LOCK_TTL, ACME_LOCK_WAIT, ACME_SEEN_WAIT};
use crate::store::{
    Expected, Fenced, Follower, Kind, Leadership, LockRequest, Prefix, Store, Term,
};

/// What a fleet shares.
#[derive(Debug)]
pub struct Fleet {
    pub store: Arc<dyn Store>,
    /// Which node orders.
    pub leadership: Leadership,
}

/// The object, as the node that leads changes it.
pub(super) struct Shared {
    store: Arc<dyn Store>,
    leadership: Leadership,
    /// Of office, the last one of this node. `None`: it had none.
    term: Option<Term>,
    /// As the operator wrote it.
    name: String,
    object_key: String,
    lock_key: String,
    /// As it was read last.
    pub(super) object: Object,
    /// The proofs that every core of this node serves.
    served: watch::Receiver<Vec<Proof>>,
}

impl Shared {
    /// Follows the object below `storage` from now on. What is issued goes to `issued`, proofs through `publish`.
    pub(super) fn start(
        fleet: Fleet,
        storage: &str,
        entry_point: &str,
        issued: mpsc::Sender<Dynamic>,
        publish: Publish,
    ) -> Self {
        let below = Prefix::new(fleet.store.kind(), storage);
        let (served_sender, served) = watch::channel(Vec::new());
        let seeing = Seeing {
            name: storage.to_owned(),
            entry_point: entry_point.to_owned(),
            certificates: None,
            proofs: Vec::new(),
            issued,
            publish,
            served: served_sender,
        };
        let follower = Follower::new(Arc::clone(&fleet.store), below.clone(), is_object);
        tokio::spawn(follow(follower, seeing));
        Self {
            store: fleet.store,
            leadership: fleet.leadership,
            term: None,
            name: storage.to_owned(),
            object_key: below.key(OBJECT),
            lock_key: below.key("lock"),
            object: Object::default(),
            served,
        }
    }

    pub(super) fn leads(&self) -> bool {
        self.term.as_ref().is_some_and(Term::is_current)
    }

    /// Returns when this node leads.
    pub(super) async fn until_leading(&mut self) {
        self.term = Some(self.leadership.won().await);
    }

    /// Of office; it may be over.
    pub(super) fn term(&self) -> Option<&Term> {
        self.term.as_ref()
    }

    /// Reads the object as it is now.
    ///
    /// # Errors
    /// A sentence: the store does not answer, or what is there cannot be read.
    pub(super) async fn read(&mut self) -> Result<(), String> {
        self.read_version().await.map(|_| ())
    }

    async fn read_version(&mut self) -> Result<Expected, String> {
        let key = &self.object_key;
        let found = self.store.get(key).await.map_err(|e| e.to_string())?;
        let (object, expected) = match found {
            None => (Object::default(), Expected::Absent),
            Some(pair) => {
                let object = Object::read(&pair.value).map_err(|why| unreadable(&self.name, &why));
                (object?, Expected::Version(pair.version))
            }
        };
        self.object = object;
        Ok(expected)
    }

    /// Reads the object, changes it, and writes it if this node leads and nobody else has written meanwhile.
    ///
    /// # Errors
    /// A sentence; nothing was written, unless the store did not say.
    pub(super) async fn change(&mut self, change: impl FnOnce(&mut Object)) -> Result<(), String> {
        let request = LockRequest {
            key: self.lock_key.clone(),
            value: transaction(),
            ttl: ACME_LOCK_TTL,
        };
        let store = Arc::clone(&self.store);
        let lock = timeout(ACME_LOCK_WAIT, store.lock(&request))
            .await
            .map_err(|_| format!("{} stays locked by another node", self.name))?
            .map_err(|error| error.to_string())?;
        let changed = self.change_locked(change).await;
        if changed.is_ok()
            && let Err(error) = store.put(&self.lock_key, request.value.as_bytes()).await
        {
            // It wakes nodes with Traefik 1.7, which read again then.
            debug!("ACME: {}: {error}", self.lock_key);
        }
        if let Err(error) = lock.release().await {
            debug!("ACME: {}: {error}", self.lock_key);
        }
        changed
    }

    async fn change_locked(&mut self, change: impl FnOnce(&mut Object)) -> Result<(), String> {
        let expected = self.read_version().await?;
        let mut object = self.object.clone();
        change(&mut object);
        let mut bytes = object.bytes().map_err(|error| error.to_string())?;
        let kind = self.store.kind();
        if kind == Kind::EtcdV2 {
            // Its protocol carries text. 1.7 reads this form, too.
            bytes = BASE64_STANDARD.encode(bytes).into_bytes();
        }
        if let Some(max) = value_bytes_max(kind)
            && bytes.len() > max
        {
            return Err(format!(
                "the account at {} would have {} KiB, and {kind} takes {} KiB: fewer certificates, or shorter keys (acme.keyType = \"EC256\"), are needed",
                self.name,
                bytes.len() >> 10,
                max >> 10
            ));
        }
        let lost = || "this node does not lead any more".to_owned();
        let term = self.term.as_ref().ok_or_else(lost)?;
        let written = term.swap(&self.object_key, expected, &bytes);
        match written.await.map_err(|error| error.to_string())? {
            Fenced::Written(_) => {
                self.object = object;
                Ok(())
            }
            Fenced::Conflict => Err(format!(
                "another node has written to {} meanwhile",
                self.name
            )),
            Fenced::Lost => Err(lost()),
        }
    }

    /// Whether these proofs are what the nodes are shown.
    ///
    /// # Errors
    /// A sentence: they are not, or the store does not answer.
    pub(super) async fn still_shows(&mut self, proofs: &[Proof]) -> Result<(), String> {
        self.read().await?;
        let shown = self.object.proofs();
        if proofs.iter().all(|proof| shown.contains(proof)) {
            return Ok(());
        }
        Err(format!(
            "another node has written over what proves the names at {}",
            self.name
        ))
    }

    /// Returns when every core of this node serves these proofs.
    ///
    /// # Errors
    /// A sentence: they are not to be seen, because somebody has written over them, or the store tells nothing.
    pub(super) async fn serves(&mut self, proofs: &[Proof]) -> Result<(), String> {
        let all = |served: &Vec<Proof>| proofs.iter().all(|proof| served.contains(proof));
        match timeout(ACME_SEEN_WAIT, self.served.wait_for(all)).await {
            // It ends with the process.
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "what was written to {} is not seen by this node itself within {ACME_SEEN_WAIT:?}",
                self.name
            )),
        }
    }
}

/// Below the storage key; besides it there is only the lock.
const OBJECT: &str = "object";

fn is_object(key: &str) -> bool {
    key == OBJECT
}

/// What a node does with the object that it sees.
struct Seeing {
    name: String,
    entry_point: String,
    /// `None`: nothing was told yet.
    certificates: Option<Vec<Stored>>,
    proofs: Vec<Proof>,
    issued: mpsc::Sender<Dynamic>,
    publish: Publish,
    served: watch::Sender<Vec<Proof>>,
}

async fn follow(mut follower: Follower, mut seeing: Seeing) {
    while !seeing.issued.is_closed() {
        let update = follower.next().await;
        let found = update.tree.get(OBJECT).map_or(&b""[..], |value| value);
        match Object::read(found) {
            Ok(object) => seeing.see(&object).await,
            Err(why) => error!("{}", unreadable(&seeing.name, &why)),
        }
    }
}

impl Seeing {
    async fn see(&mut self, object: &Object) {
        let certificates = object.certificates();
        if self.certificates.as_ref() != Some(&certificates) {
            if self.certificates.is_some() {
                info!("ACME: {} certificates at {}", certificates.len(), self.name);
            }
            let dynamic = tls_of(&certificates, &self.entry_point);
            if self.issued.send(dynamic).await.is_err() {
                return;
            }
            self.certificates = Some(certificates);
        }
        let proofs = object.proofs();
        if self.proofs != proofs {
            self.publish.challenges(Challenges::new(&proofs)).await;
            self.served.send_replace(proofs.clone());
            self.proofs = proofs;
        }
    }
}

fn unreadable(name: &str, why: &str) -> String {
    format!(
        "the ACME account at {name} cannot be read ({why}): it is left as it is, and nothing is ordered until it is put right or removed"
    )
}

/// How much one key may hold, where the store has a limit as it is set up by itself.
fn value_bytes_max(kind: Kind) -> Option<usize> {
    match kind {
        Kind::Consul => Some(512 << 10),
        // With room for the rest of the request.
        Kind::EtcdV2 | Kind::EtcdV3 => Some(1500 << 10),
        Kind::ZooKeeper => Some(1020 << 10),
        Kind::BoltDb => None,
    }
}

/// The name of a change: nobody has it twice.
fn transaction() -> String {
    let mut random = [0; 16];
    // Without randomness changes share a name, which only a log would show.
    let _ = getrandom::fill(&mut random);
    format!("{:032x}", u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests {
    use super::super::Unsaved;
    use super::super::kept::Kept;
    use super::super::storage::Account;
    use super::*;
    use crate::store::Election;
    use crate::store::memory::Memory;

    struct Node {
        shared: Shared,
        issued: mpsc::Receiver<Dynamic>,
        challenges: mpsc::Receiver<super::super::Publication>,
        election: Election,
    }

    fn node(store: &Memory, name: &str) -> Node {
        let store: Arc<dyn Store> = Arc::new(store.clone());
        let key = "traefik/leader".to_owned();
        let election = Election::start(Arc::clone(&store), key, name.to_owned());
        let fleet = Fleet {
            store,
            leadership: election.leadership(),
        };
        let (issued_sender, issued) = mpsc::channel(8);
        let (challenges_sender, challenges) = mpsc::channel(8);
        let publish = Publish {
            challenges: challenges_sender,
        };
        Node {
            shared: Shared::start(
                fleet,
                "traefik/acme/account",
                "https",
                issued_sender,
                publish,
            ),
            issued,
            challenges,
            election,
        }
    }

    fn certificate(name: &str) -> Stored {
        Stored {
            names: vec![name.to_owned()],
            chain: "chain".to_owned(),
            key: "key".to_owned(),
        }
    }

    fn proof() -> Proof {
        Proof {
            name: "a.test".to_owned(),
            proved: super::super::Proved::Http {
                token: "token".to_owned(),
                answer: "answer".to_owned(),
            },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_node_writes_all_nodes_serve() {
        let store = Memory::new(Kind::EtcdV3);
        let mut one = node(&store, "n1");
        one.shared.until_leading().await;
        let mut two = node(&store, "n2");
        for node in [&mut one, &mut two] {
            assert_eq!(node.issued.recv().await.expect("told").tls.len(), 0);
        }
        let changed = one.shared.change(|object| {
            object.put(&certificate("a.test"));
            object.set_proofs(&[proof()]);
        });
        changed.await.expect("written");
        for node in [&mut one, &mut two] {
            assert_eq!(node.issued.recv().await.expect("told").tls.len(), 1);
            let publication = node.challenges.recv().await.expect("published");
            assert_eq!(publication.challenges.http["token"], "answer");
            assert!(node.shared.served.borrow().is_empty(), "not yet");
            publication.served.send(()).expect("waited for");
            node.shared.serves(&[proof()]).await.expect("served");
        }
        let lock = store.get("traefik/acme/account/lock").await;
        let lock = lock.expect("readable").expect("written").value;
        assert_eq!(lock.len(), 32, "{lock:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn proofs_that_somebody_writes_over_are_not_waited_for_without_end() {
        let store = Memory::new(Kind::Consul);
        let mut one = node(&store, "n1");
        one.shared.until_leading().await;
        let written = one.shared.change(|object| object.set_proofs(&[proof()]));
        written.await.expect("written");
        // As Traefik 1.7 does, before this node has seen them.
        store.set("traefik/acme/account/object", "");
        let why = one.shared.still_shows(&[proof()]).await;
        let why = why.expect_err("gone");
        assert!(why.contains("has written over what proves"), "{why}");
        let why = one.shared.serves(&[proof()]).await.expect_err("gone");
        assert!(why.contains("is not seen by this node"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_lead_any_more_writes_nothing() {
        let store = Memory::new(Kind::Consul);
        let mut one = node(&store, "n1");
        one.shared.until_leading().await;
        one.election.resign().await;
        let changed = one
            .shared
            .change(|object| object.put(&certificate("a.test")));
        assert_eq!(
            changed.await,
            Err("this node does not lead any more".to_owned())
        );
        let object = store.get("traefik/acme/account/object").await;
        assert_eq!(object.expect("readable"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_read_is_left_alone() {
        let store = Memory::new(Kind::Consul);
        store.set("traefik/acme/account/object", "{\"PrivateKey\": \"sec");
        let mut one = node(&store, "n1");
        one.shared.until_leading().await;
        let why = one
            .shared
            .change(|object| object.put(&certificate("a.test")));
        let why = why.await.expect_err("unreadable");
        assert!(
            why.contains("cannot be read") && !why.contains("sec\""),
            "{why}"
        );
        let object = store.get("traefik/acme/account/object").await;
        let object = object.expect("readable").expect("there");
        assert_eq!(object.value, "{\"PrivateKey\": \"sec");
    }

    /// A certificate that is good until the beginning of this year.
    fn until(year: i32) -> Stored {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["a.test".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        Stored {
            chain: params.self_signed(&key).expect("signed").pem(),
            ..certificate("a.test")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_stored_for_long_takes_no_newer_ones_place() {
        let store = Memory::new(Kind::EtcdV3);
        // What is not named would be dropped, and with it the node's candidacy.
        let Node {
            shared: mut one,
            issued: _issued,
            challenges: _challenges,
            election: _election,
        } = node(&store, "n1");
        one.until_leading().await;
        let (old, new, newer) = (until(2030), until(2031), until(2032));
        one.change(|object| object.put(&old))
            .await
            .expect("written");
        let mut one = Kept::Store(Box::new(one));
        for unsaved in [&newer, &new] {
            let account = Account {
                uri: "https://ca/1".to_owned(),
                directory: "https://ca/directory".to_owned(),
                key: vec![1, 2, 3],
            };
            let unsaved = Unsaved {
                account: Some(account.clone()),
                certificates: vec![unsaved.clone(), certificate("b.test")],
            };
            one.ready(&unsaved).await.expect("written");
            let kept = one.certificates();
            assert!(kept[0] == newer, "the newest stays");
            assert_eq!(kept[1], certificate("b.test"));
            assert!(one.account() == Some(account));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_the_store_would_refuse_is_explained() {
        let store = Memory::new(Kind::Consul);
        let mut one = node(&store, "n1");
        one.shared.until_leading().await;
        // Base64 of noise: gzip makes three quarters of it.
        let mut noise = vec![0; 1 << 20];
        getrandom::fill(&mut noise).expect("random");
        let noise: String = noise
            .into_iter()
            .map(|byte| char::from(b'0' + byte % 64))
            .collect();
        let changed = one.shared.change(|object| {
            object.put(&Stored {
                chain: noise,
                ..certificate("a.test")
            });
        });
        let why = changed.await.expect_err("too big");
        assert!(why.contains("and Consul takes 512 KiB"), "{why}");
    }
}
