//! Certificates obtained and renewed by themselves (RFC 8555; spec acme).
//!
//! Owns the account, the orders and the renewals, one order at a time, and the file they are kept in. What is issued goes
//! to the control loop as the configuration of a provider, what proves a name as [`Challenges`], which every core serves
//! before the authority is told. Never touches a client's bytes, never logs a key.
//! Read next: `plan.rs` (what is ordered), `order.rs` (how), `storage.rs` (what is kept).

mod http;
mod key;
mod order;
mod plan;
mod storage;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, SystemTime};

use instant_acme::NewAccount;
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use self::http::Http;
use self::key::KeyType;
use self::order::Proof;
use self::storage::{Account, Storage, Stored};
use crate::config::acme::Acme;
use crate::config::dynamic::{Certificate, TlsEntry};
use crate::config::{Dynamic, Place};
use crate::tls;

/// What proves names while they are being ordered.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    /// The answer for each token of `/.well-known/acme-challenge/` (RFC 8555 8.3).
    pub http: BTreeMap<String, String>,
    /// What is shown to who asks for `acme-tls/1` (RFC 8737).
    pub tls: Vec<tls::Certificate>,
}

impl Challenges {
    pub fn is_empty(&self) -> bool {
        self.http.is_empty() && self.tls.is_empty()
    }
}

/// Challenges to be served from now on, instead of those before. `served` is told when every core does.
#[derive(Debug)]
pub struct Publication {
    pub challenges: Challenges,
    pub served: oneshot::Sender<()>,
}

/// Which names the configuration has, and for which there are certificates already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Of each rule of a frontend on the entry point, lower case.
    pub rules: Vec<Vec<String>>,
    /// Of the certificates of others: those in files.
    pub covered: Vec<String>,
}

/// The ways to the control loop.
#[derive(Debug)]
pub struct Links {
    /// Everything that is issued, whenever that changes.
    pub issued: mpsc::Sender<Dynamic>,
    pub challenges: mpsc::Sender<Publication>,
    /// `None` until there is a configuration.
    pub names: watch::Receiver<Option<Names>>,
}

struct Publish {
    challenges: mpsc::Sender<Publication>,
}

impl Publish {
    /// Returns when every core serves them.
    async fn challenges(&self, challenges: Challenges) {
        let (served, is_served) = oneshot::channel();
        let publication = Publication { challenges, served };
        // Neither fails while the control loop runs.
        if self.challenges.send(publication).await.is_ok() {
            let _ = is_served.await;
        }
    }
}

/// Runs as long as the control loop does.
pub async fn run(options: Acme, links: Links) {
    match Worker::new(options, links) {
        Ok(worker) => worker.run().await,
        Err(why) => error!("{why}; no certificate is ordered"),
    }
}

struct Worker {
    options: Acme,
    links: Links,
    publish: Publish,
    storage: Storage,
    domains: Vec<Vec<String>>,
    key_type: KeyType,
    proof: Proof,
    http: Http,
    account: Option<instant_acme::Account>,
    /// Orders that failed: how often in a row, and when they are tried again.
    failed: BTreeMap<Vec<String>, (u32, Instant)>,
}

impl Worker {
    fn new(options: Acme, links: Links) -> Result<Self, String> {
        if options.storage.is_empty() {
            return Err(
                "unable to initialize ACME provider with no storage location for the certificates"
                    .to_owned(),
            );
        }
        let proof = proof(&options)?;
        let (storage, told) = Storage::open(Path::new(&options.storage), wall_clock())?;
        if let Some(told) = told {
            error!("{told}");
        }
        let (domains, said) = plan::domains(&options.domains, false);
        for said in said {
            warn!("acme.domains: {said}");
        }
        let wanted = storage.key_type().unwrap_or(&options.key_type);
        let key_type = KeyType::named(wanted).unwrap_or_else(|| {
            info!("acme.keyType: {wanted:?} cannot be made, RSA4096 is taken instead");
            KeyType::Rsa4096
        });
        let publish = Publish {
            challenges: links.challenges.clone(),
        };
        Ok(Self {
            http: Http::new()?,
            options,
            links,
            publish,
            storage,
            domains,
            key_type,
            proof,
            account: None,
            failed: BTreeMap::new(),
        })
    }

    async fn run(mut self) {
        self.tell_issued().await;
        // Orders are made when it is known which certificates the configuration has itself.
        while self.links.names.borrow_and_update().is_none() {
            if self.links.names.changed().await.is_err() {
                return;
            }
        }
        loop {
            for names in self.due() {
                self.obtain(names).await;
            }
            let next = self.next_look();
            tokio::select! {
                changed = self.links.names.changed() => if changed.is_err() {
                    return;
                },
                () = sleep_until(next) => {}
            }
        }
    }

    /// What is to be ordered now: what is missing, then what is to be renewed.
    fn due(&mut self) -> Vec<Vec<String>> {
        let names = self
            .links
            .names
            .borrow_and_update()
            .clone()
            .unwrap_or_default();
        let stored = self.storage.certificates();
        let mut known: Vec<String> = names.covered;
        let mut orders: Vec<Vec<String>> = Vec::new();
        let (now, at) = (wall_clock(), Instant::now());
        for certificate in &stored {
            if renewal(certificate).is_none_or(|due| due <= now) {
                orders.push(certificate.names.clone());
            }
            known.extend(certificate.names.iter().cloned());
        }
        let domains = plan::missing(&self.domains, &known);
        orders.extend(domains.into_iter().map(<[String]>::to_vec));
        known.extend(self.domains.iter().flatten().cloned());
        if self.options.on_host_rule {
            let rules = plan::missing(&names.rules, &known);
            orders.extend(rules.into_iter().map(<[String]>::to_vec));
        }
        self.failed.retain(|names, _| orders.contains(names));
        orders.retain(|names| self.failed.get(names).is_none_or(|(_, again)| *again <= at));
        orders
    }

    /// When to look again though the configuration has not changed.
    fn next_look(&self) -> Instant {
        let (now, at) = (wall_clock(), Instant::now());
        let stored = self.storage.certificates();
        let renewals = stored
            .iter()
            .filter(|certificate| !self.failed.contains_key(&certificate.names))
            .filter_map(renewal)
            .map(|due| at + due.duration_since(now).unwrap_or_default());
        let again = self.failed.values().map(|(_, again)| *again);
        renewals
            .chain(again)
            .fold(at + plan::LOOK_INTERVAL, Instant::min)
    }

    /// Orders one certificate, stores it and has it served; or takes note of when to try again.
    async fn obtain(&mut self, names: Vec<String>) {
        let list = names.join(",");
        info!("ACME: ordering a certificate for {list}");
        match self.ordered(&names).await {
            Ok(certificate) => {
                self.failed.remove(&names);
                info!("ACME: there is a certificate for {list}");
                self.storage.put(&certificate);
                self.save();
                self.tell_issued().await;
            }
            Err(why) => {
                let failures = self.failed.get(&names).map_or(0, |(failures, _)| *failures) + 1;
                let again = plan::again_after(failures);
                error!(
                    "ACME: unable to obtain a certificate for {list}: {why}; trying again in {}",
                    humantime(again)
                );
                self.failed
                    .insert(names, (failures, Instant::now() + again));
            }
        }
    }

    async fn ordered(&mut self, names: &[String]) -> Result<Stored, String> {
        let account = self.account().await?;
        let old = self
            .storage
            .certificates()
            .into_iter()
            .find(|old| old.names == names);
        let key = match old {
            // As 1.7 does: a renewed certificate keeps its key.
            Some(old) => key::from_pem(&old.key)?,
            None => {
                let kind = self.key_type;
                blocking(move || kind.generate().map_err(said)).await?
            }
        };
        let chain = order::order(&account, names, &key, self.proof, &self.publish)
            .await
            .map_err(said)?;
        stored(names, chain, &key)
    }

    /// The account with the authority, registered the first time that it is needed.
    async fn account(&mut self) -> Result<instant_acme::Account, String> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let directory = directory(&self.options.ca_server);
        let builder = instant_acme::Account::builder_with_http(Box::new(self.http.clone()));
        let account = match self.storage.account() {
            Some(known) if known.directory == directory => builder
                .from_parts(known.uri, PrivatePkcs8KeyDer::from(known.key), directory)
                .await
                .map_err(said)?,
            known => {
                if known.is_some() {
                    info!(
                        "Account URI does not match the current CAServer. The account will be reset"
                    );
                }
                let contact = format!("mailto:{}", self.options.email);
                let contacts = [contact.as_str()];
                let new = NewAccount {
                    contact: if self.options.email.is_empty() {
                        &[]
                    } else {
                        &contacts
                    },
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let (account, credentials) = builder
                    .create(&new, directory.clone(), None)
                    .await
                    .map_err(said)?;
                info!("ACME: registered an account with {directory}");
                self.storage.set_account(&Account {
                    uri: account.id().to_owned(),
                    directory,
                    key: credentials.private_key().secret_pkcs8_der().to_vec(),
                });
                self.save();
                account
            }
        };
        self.account = Some(account.clone());
        Ok(account)
    }

    /// A file that cannot be written now is written whole the next time.
    fn save(&self) {
        if let Err(error) = self.storage.save() {
            error!(
                "ACME: {} cannot be written: {error}; what was issued serves from memory",
                self.options.storage
            );
        }
    }

    async fn tell_issued(&self) {
        let certificates = self.storage.certificates();
        let tls = certificates.into_iter().map(|stored| TlsEntry {
            place: Place::Default,
            entry_points: vec![self.options.entry_point.clone()],
            certificate: Certificate {
                cert_file: stored.chain,
                key_file: stored.key,
            },
        });
        let dynamic = Dynamic {
            tls: tls.collect(),
            ..Dynamic::default()
        };
        if self.links.issued.send(dynamic).await.is_err() {
            debug!("ACME: nobody takes certificates any more");
        }
    }
}

/// Which way of proving names was chosen, if several were: TLS goes before HTTP.
fn proof(options: &Acme) -> Result<Proof, String> {
    if options.dns_challenge.is_some() || !options.dns_provider.is_empty() {
        return Err(
            "acme.dnsChallenge is not supported yet: use acme.httpChallenge or acme.tlsChallenge"
                .to_owned(),
        );
    }
    match (&options.tls_challenge, &options.http_challenge) {
        (Some(_), http) => {
            if http.is_some() {
                warn!(
                    "Unable to use HTTP challenge and TLS challenge at the same time. Fallback to TLS challenge."
                );
            }
            Ok(Proof::Tls)
        }
        (None, Some(_)) => Ok(Proof::Http),
        (None, None) => Err(
            "ACME challenge not specified, please select TLS or HTTP or DNS Challenge".to_owned(),
        ),
    }
}

/// The directory of the first version of the protocol is gone: its name stands for that of the second.
fn directory(written: &str) -> String {
    let is_old = |name: &str| written.contains(name);
    if is_old("acme-v01.api.letsencrypt.org") {
        warn!("acme.caServer: {written} is gone, its successor is taken");
        return "https://acme-v02.api.letsencrypt.org/directory".to_owned();
    }
    if is_old("acme-staging.api.letsencrypt.org") {
        warn!("acme.caServer: {written} is gone, its successor is taken");
        return "https://acme-staging-v02.api.letsencrypt.org/directory".to_owned();
    }
    written.to_owned()
}

/// `None` if it cannot be read, which is as good as over.
fn renewal(certificate: &Stored) -> Option<SystemTime> {
    let (not_before, not_after) = tls::lifetime(certificate.chain.as_bytes())?;
    Some(plan::renewal(not_before, not_after))
}

fn stored(names: &[String], chain: String, key: &KeyPair) -> Result<Stored, String> {
    let key = key::to_pem(key);
    // What the authority sent is not served unless it is a certificate of this key.
    tls::Certificate::from_pem(chain.as_bytes(), key.as_bytes()).map_err(said)?;
    Ok(Stored {
        names: names.to_vec(),
        chain,
        key,
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    spawn_blocking(work).await.map_err(said)?
}

#[allow(
    clippy::disallowed_methods,
    reason = "certificates end by the calendar; nothing here is replayed"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

fn said(error: impl Display) -> String {
    error.to_string()
}

fn humantime(duration: Duration) -> String {
    match duration.as_secs() / 60 {
        minutes @ ..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::acme::{DnsChallenge, HttpChallenge, TlsChallenge};

    #[test]
    fn one_way_of_proving_is_chosen() {
        let none = Acme::default();
        let http = Acme {
            http_challenge: Some(HttpChallenge::default()),
            ..Acme::default()
        };
        let both = Acme {
            tls_challenge: Some(TlsChallenge::default()),
            ..http.clone()
        };
        let dns = Acme {
            dns_challenge: Some(DnsChallenge::default()),
            ..both.clone()
        };
        assert_eq!(proof(&http), Ok(Proof::Http));
        assert_eq!(proof(&both), Ok(Proof::Tls));
        assert!(proof(&none).is_err());
        assert!(proof(&dns).is_err());
    }

    #[test]
    fn old_directories_have_successors() {
        let old = "https://acme-v01.api.letsencrypt.org/directory";
        assert_eq!(
            directory(old),
            "https://acme-v02.api.letsencrypt.org/directory"
        );
        assert_eq!(directory("https://ca.test/dir"), "https://ca.test/dir");
    }
}
