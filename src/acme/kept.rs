//! Where the account and the certificates are: a file of this node, or an object in the store of its fleet.
//!
//! Owns the difference between the two, which nobody else sees: who may order, how proofs reach the cores, what is done with
//! a certificate. Never orders anything. Read next: `storage.rs` (the file), `shared.rs` (the fleet).

use std::path::Path;
use std::time::SystemTime;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::shared::{Fleet, Shared};
use super::storage::{Account, Storage, Stored};
use super::{Challenges, Proof, Publication, Publish, Unsaved, tls_of, wall_clock};
use crate::config::Dynamic;
use crate::config::acme::Acme;
use crate::limits::ACME_SPREAD;
use crate::tls;

/// One of both.
pub(super) enum Kept {
    File(Box<Alone>),
    Store(Box<Shared>),
}

/// A node without a fleet.
pub(super) struct Alone {
    storage: Storage,
    name: String,
    entry_point: String,
    issued: mpsc::Sender<Dynamic>,
    publish: Publish,
    /// The file is older than what is in memory.
    is_unsaved: bool,
}

impl Kept {
    /// # Errors
    /// A sentence: the file cannot be used.
    pub(super) fn open(
        options: &Acme,
        fleet: Option<Fleet>,
        issued: mpsc::Sender<Dynamic>,
        challenges: mpsc::Sender<Publication>,
    ) -> Result<Self, String> {
        let publish = Publish { challenges };
        let name = &options.storage;
        let Some(fleet) = fleet else {
            let (storage, told) = Storage::open(Path::new(name), wall_clock())?;
            if let Some(told) = told {
                error!("{told}");
            }
            return Ok(Self::File(Box::new(Alone {
                storage,
                name: name.clone(),
                entry_point: options.entry_point.clone(),
                issued,
                publish,
                is_unsaved: false,
            })));
        };
        if name.ends_with(".json") || Path::new(name).is_file() {
            warn!(
                "acme.storage: with a key-value store {name:?} is a key in {}, and no file of that name is used",
                fleet.store.kind()
            );
        }
        let entry_point = &options.entry_point;
        let shared = Shared::start(fleet, name, entry_point, issued, publish);
        Ok(Self::Store(Box::new(shared)))
    }

    /// Whether this node may order.
    pub(super) fn leads(&self) -> bool {
        match self {
            Self::File(_) => true,
            Self::Store(shared) => shared.leads(),
        }
    }

    /// Returns when this node may order.
    pub(super) async fn until_leading(&mut self) {
        if let Self::Store(shared) = self {
            shared.until_leading().await;
        }
    }

    /// Returns when this node, which may order, may not any more.
    pub(super) fn until_lost(&self) -> impl Future<Output = ()> + Send + use<> {
        let term = match self {
            Self::File(_) => None,
            Self::Store(shared) => shared.term().cloned(),
        };
        async move {
            match term {
                Some(term) => term.ended().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Takes note of what others have done, stores what could not be stored, and takes back proofs that an order left behind
    /// which nobody finished. No order is under way.
    ///
    /// # Errors
    /// A sentence: why no order can be made now.
    pub(super) async fn ready(&mut self, unsaved: &Unsaved) -> Result<(), String> {
        let shared = match self {
            Self::Store(shared) => shared,
            Self::File(alone) => return alone.saved(),
        };
        shared.read().await?;
        if unsaved.is_empty() && shared.object.proofs().is_empty() {
            return Ok(());
        }
        let change = shared.change(|object| {
            for certificate in &unsaved.certificates {
                // Another node may have led meanwhile, and ordered a newer one.
                let all = object.certificates();
                let there = all.iter().find(|there| there.names == certificate.names);
                if there.is_none_or(|there| ends(there) < ends(certificate)) {
                    object.put(certificate);
                }
            }
            if let Some(account) = &unsaved.account {
                object.set_account(account);
            }
            object.set_proofs(&[]);
        });
        change.await
    }

    pub(super) fn certificates(&self) -> Vec<Stored> {
        match self {
            Self::File(alone) => alone.storage.certificates(),
            Self::Store(shared) => shared.object.certificates(),
        }
    }

    /// The kind of key that certificates of an existing account have; `None` if the options decide.
    pub(super) fn key_type(&self) -> Option<&str> {
        match self {
            Self::File(alone) => alone.storage.key_type(),
            Self::Store(shared) => shared.object.key_type(),
        }
    }

    /// Whether there is an account of Traefik 1.7, whose key is of a kind that our client library has not.
    pub(super) fn has_account_of_1_7(&self) -> bool {
        match self {
            Self::File(alone) => alone.storage.has_account_of_1_7(),
            Self::Store(shared) => shared.object.has_account_of_1_7(),
        }
    }

    pub(super) fn account(&self) -> Option<Account> {
        match self {
            Self::File(alone) => alone.storage.account(),
            Self::Store(shared) => shared.object.account(),
        }
    }

    /// # Errors
    /// A sentence. A file that cannot be written now is written later.
    pub(super) async fn set_account(&mut self, account: &Account) -> Result<(), String> {
        match self {
            Self::File(alone) => {
                alone.storage.set_account(account);
                alone.save();
                Ok(())
            }
            Self::Store(shared) => shared.change(|object| object.set_account(account)).await,
        }
    }

    /// Returns when the cores of this node answer with these proofs, and those of other nodes had the time to.
    ///
    /// # Errors
    /// A sentence: the store did not take them.
    pub(super) async fn show(&mut self, proofs: &[Proof]) -> Result<(), String> {
        match self {
            Self::File(alone) => alone.publish.challenges(Challenges::new(proofs)).await,
            Self::Store(shared) => {
                shared.change(|object| object.set_proofs(proofs)).await?;
                shared.serves(proofs).await?;
                debug!("ACME: every core here answers, the other nodes follow");
                sleep(ACME_SPREAD).await;
                // A proof that the authority does not find counts in its limits.
                shared.still_shows(proofs).await?;
            }
        }
        Ok(())
    }

    /// Takes the proofs back.
    pub(super) async fn hide(&mut self) {
        match self {
            Self::File(alone) => alone.publish.challenges(Challenges::default()).await,
            Self::Store(shared) => {
                if let Err(why) = shared.change(|object| object.set_proofs(&[])).await {
                    // They prove nothing any more, and go with the next order.
                    debug!("ACME: {why}");
                }
            }
        }
    }

    /// Keeps a certificate, has it served, and takes the proofs for it back.
    ///
    /// # Errors
    /// A sentence: the store did not take it. A file that cannot be written now is written later.
    pub(super) async fn put(
        &mut self,
        certificate: &Stored,
        account: Option<&Account>,
    ) -> Result<(), String> {
        match self {
            Self::File(alone) => {
                alone.storage.put(certificate);
                alone.save();
                alone.publish.challenges(Challenges::default()).await;
                alone.tell_issued().await;
                Ok(())
            }
            Self::Store(shared) => {
                let change = shared.change(|object| {
                    object.put(certificate);
                    object.set_proofs(&[]);
                    // A node with Traefik 1.7 leaves our account out of what it writes.
                    if let (None, Some(account)) = (object.account(), account) {
                        object.set_account(account);
                    }
                });
                change.await
            }
        }
    }

    /// What is in the file is served from the start. A fleet's is served by who follows it.
    pub(super) async fn tell_issued(&self) {
        if let Self::File(alone) = self {
            alone.tell_issued().await;
        }
    }
}

/// When a certificate is no good any more; `None` if it never was.
fn ends(certificate: &Stored) -> Option<SystemTime> {
    let (_, not_after) = tls::lifetime(certificate.chain.as_bytes())?;
    Some(not_after)
}

impl Alone {
    fn save(&mut self) {
        let saved = self.storage.save();
        self.is_unsaved = saved.is_err();
        if let Err(error) = saved {
            error!(
                "ACME: {} cannot be written: {error}; what was issued serves from memory until it can be",
                self.name
            );
        }
    }

    /// Writes what could not be written before. Until it is, nothing is ordered: after a restart it would be ordered again.
    fn saved(&mut self) -> Result<(), String> {
        if !self.is_unsaved {
            return Ok(());
        }
        let saved = self.storage.save();
        saved.map_err(|error| format!("{} cannot be written: {error}", self.name))?;
        self.is_unsaved = false;
        info!("ACME: {} is written now", self.name);
        Ok(())
    }

    async fn tell_issued(&self) {
        let dynamic = tls_of(&self.storage.certificates(), &self.entry_point);
        if self.issued.send(dynamic).await.is_err() {
            debug!("ACME: nobody takes certificates any more");
        }
    }
}
