//! Certificates obtained and renewed by themselves (RFC 8555; spec acme).
//!
//! Owns the account, the orders and the renewals, one order at a time, and where they are kept: a file of one node, or an
//! object in the store of a fleet, of which one node orders. What is issued goes to the control loop as the configuration of
//! a provider, what proves a name as [`Challenges`], which every core serves before the authority is told.
//! Never touches a client's bytes, never logs a key.
//! Read next: `plan.rs` (what is ordered), `order.rs` (how), `kept.rs` (where everything is kept).

mod advice;
mod dns;
mod http;
mod kept;
mod key;
mod object;
mod on_demand;
mod order;
mod plan;
mod shared;
mod storage;

use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use instant_acme::NewAccount;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, error, info, warn};

use self::advice::Advice;
use self::dns::{Dns, Environment};
use self::http::Http;
use self::kept::Kept;
use self::key::KeyType;
use self::on_demand::OnDemand;
use self::order::Way;
use self::storage::{Account, Stored};
use crate::config::acme::Acme;
use crate::config::dynamic::{Certificate, TlsEntry};
use crate::config::{Dynamic, Place};
use crate::limits::ACME_ASKED_AGAIN;
use crate::store::backoff::Backoff;
use crate::tls;

pub use self::shared::Fleet;

/// What an authority says that has forgotten a number it gave out (RFC 8555 6.5); the library asks for a new one twice.
const BAD_NONCE: &str = "urn:ietf:params:acme:error:badNonce";
/// What it says that has forgotten an account (RFC 8555 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";
const ORDER_TRIES: u32 = 3;

/// What proves names while they are being ordered.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    /// The answer for each token of `/.well-known/acme-challenge/` (RFC 8555 8.3).
    pub http: BTreeMap<String, String>,
    /// What is shown to who asks for `acme-tls/1` (RFC 8737).
    pub tls: Vec<tls::Certificate>,
}

impl Challenges {
    /// One that cannot be used is left out: another node may have written it.
    fn new(proofs: &[Proof]) -> Self {
        let mut challenges = Self::default();
        for Proof { name, proved } in proofs {
            match proved {
                Proved::Http { token, answer } => {
                    challenges.http.insert(token.clone(), answer.clone());
                }
                Proved::Tls { chain, key } => {
                    match tls::Certificate::proving(name, chain.as_bytes(), key.as_bytes()) {
                        Ok(certificate) => challenges.tls.push(certificate),
                        Err(why) => warn!("ACME: what is to prove {name} cannot be used: {why}"),
                    }
                }
            }
        }
        challenges
    }
}

/// What proves one name, in a form that nodes can tell each other.
#[derive(Clone, PartialEq, Eq)]
struct Proof {
    name: String,
    proved: Proved,
}

/// How.
#[derive(Clone, PartialEq, Eq)]
enum Proved {
    Http {
        token: String,
        answer: String,
    },
    /// PEM, as `tls::Certificate::proof` makes it.
    Tls {
        chain: String,
        key: String,
    },
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proof({})", self.name)
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
    /// `None`: this node is alone, and `acme.storage` a file.
    pub fleet: Option<Fleet>,
    /// Names that rules take and clients ask for, which have no certificate. Lower case.
    pub asked: mpsc::Receiver<String>,
}

#[derive(Clone)]
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
    if let Err(why) = serve(options, links).await {
        error!("{why}; no certificate is ordered");
    }
}

/// # Errors
/// A sentence: nothing can be ordered as it is configured. What was issued before serves nevertheless, if it can be read.
async fn serve(options: Acme, links: Links) -> Result<(), String> {
    if options.storage.is_empty() {
        return Err(
            "unable to initialize ACME provider with no storage location for the certificates"
                .to_owned(),
        );
    }
    let kept = Kept::open(&options, links.fleet, links.issued, links.challenges)?;
    kept.tell_issued().await;
    Worker::new(options, kept, links.names, links.asked)?
        .run()
        .await;
    Ok(())
}

/// What could not be stored yet. It was paid for in the authority's limits, so it is not lost.
#[derive(Default)]
struct Unsaved {
    account: Option<Account>,
    certificates: Vec<Stored>,
}

impl Unsaved {
    fn is_empty(&self) -> bool {
        self.account.is_none() && self.certificates.is_empty()
    }
}

struct Worker {
    options: Acme,
    names: watch::Receiver<Option<Names>>,
    asked: mpsc::Receiver<String>,
    on_demand: OnDemand,
    kept: Kept,
    unsaved: Unsaved,
    /// What is kept cannot be read or written now: when it is tried again.
    stuck_until: Option<Instant>,
    backoff: Backoff,
    domains: Vec<Vec<String>>,
    /// Of new keys, unless the account says otherwise.
    key_type: KeyType,
    way: Way,
    /// In the zones of names that are being ordered.
    records: Vec<dns::Record>,
    http: Http,
    account: Option<(Account, instant_acme::Account)>,
    /// The authority does not know the account that is kept.
    is_forgotten: bool,
    advice: Advice,
    /// Orders that failed: how often in a row, and when they are tried again.
    failed: BTreeMap<Vec<String>, (u32, Instant)>,
    /// The authority could not be asked: how often in a row, and until when nothing is ordered.
    away: (u32, Option<Instant>),
    /// What was issued: how often within a day, and when last.
    issued: BTreeMap<Vec<String>, (u32, Instant)>,
    /// By chain, which certificates can be served.
    usable: BTreeMap<String, bool>,
}

impl Worker {
    fn new(
        options: Acme,
        kept: Kept,
        names: watch::Receiver<Option<Names>>,
        asked: mpsc::Receiver<String>,
    ) -> Result<Self, String> {
        let http = Http::new(options.acme_logging)?;
        let way = way(&options, &http)?;
        let (domains, said) = plan::domains(&options.domains, matches!(way, Way::Dns(_)));
        for said in said {
            warn!("acme.domains: {said}");
        }
        let key_type = KeyType::named(&options.key_type).unwrap_or_else(|| {
            let wanted = &options.key_type;
            info!("acme.keyType: {wanted:?} cannot be made, RSA4096 is taken instead");
            KeyType::Rsa4096
        });
        Ok(Self {
            http,
            options,
            names,
            asked,
            on_demand: OnDemand::default(),
            kept,
            unsaved: Unsaved::default(),
            stuck_until: None,
            backoff: Backoff::default(),
            domains,
            key_type,
            way,
            records: Vec::new(),
            account: None,
            is_forgotten: false,
            advice: Advice::default(),
            failed: BTreeMap::new(),
            away: (0, None),
            issued: BTreeMap::new(),
            usable: BTreeMap::new(),
        })
    }

    async fn run(mut self) {
        // Orders are made when it is known which certificates the configuration has itself.
        while self.names.borrow_and_update().is_none() {
            if self.names.changed().await.is_err() {
                return;
            }
        }
        loop {
            self.kept.until_leading().await;
            while let Some(names) = self.next_order().await {
                self.obtain(names).await;
            }
            let next = self.next_look();
            tokio::select! {
                changed = self.names.changed() => if changed.is_err() {
                    return;
                },
                Some(name) = self.asked.recv() => if plan::is_orderable(&name) {
                    self.on_demand.ask(name, Instant::now());
                },
                () = sleep_until(next) => {}
            }
        }
    }

    /// What is to be ordered now, of all that is missing or to be renewed. `None` if nothing is, or nothing can be.
    async fn next_order(&mut self) -> Option<Vec<String>> {
        if !self.kept.leads() {
            return None;
        }
        let ready = self.kept.ready(&self.unsaved).await;
        if let Err(why) = ready {
            let pause = self.backoff.pause();
            error!("ACME: {why}; trying again in {pause:?}");
            self.stuck_until = Some(Instant::now() + pause);
            return None;
        }
        if !self.unsaved.is_empty() {
            info!("ACME: what was issued is stored now");
            self.unsaved = Unsaved::default();
        }
        self.stuck_until = None;
        self.backoff.reset();
        if self.away.1.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        self.ask_advice().await;
        self.due().into_iter().next()
    }

    /// Asks the authority when it wants certificates renewed, once there is an account with it.
    async fn ask_advice(&mut self) {
        let certificates = self.kept.certificates();
        if self.kept.account().is_none() || !self.advice.is_due(&certificates) {
            return;
        }
        match self.account().await {
            Ok(account) => {
                let is_away = || self.http.is_away();
                self.advice.ask(&account, &certificates, is_away).await;
            }
            // The next order says so.
            Err(why) => debug!("ACME: no advice: {why}"),
        }
    }

    /// When a certificate is to be renewed, as the authority wants it, else by its lifetime. `None` if it cannot be read,
    /// which is as good as over.
    fn renewal(&self, certificate: &Stored) -> Option<SystemTime> {
        let (not_before, not_after) = tls::lifetime(certificate.chain.as_bytes())?;
        let advised = self.advice.renewal(certificate);
        Some(match advised.filter(|advised| *advised < not_after) {
            Some(advised) => advised,
            None => plan::renewal(not_before, not_after),
        })
    }

    /// What is missing, after what is to be renewed.
    fn due(&mut self) -> Vec<Vec<String>> {
        let names = self.names.borrow_and_update().clone().unwrap_or_default();
        let stored = self.kept.certificates();
        let mut known: Vec<String> = names.covered;
        let mut orders: Vec<Vec<String>> = Vec::new();
        let (now, at) = (wall_clock(), Instant::now());
        for certificate in &stored {
            let is_due = !self.is_usable(certificate)
                || self.renewal(certificate).is_none_or(|due| due <= now);
            if is_due
                && self
                    .rests_until(certificate)
                    .is_none_or(|until| until <= at)
            {
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
        let is_covered = |name: &str| known.iter().any(|known| plan::covers(known, name));
        self.on_demand.forget(is_covered);
        orders.extend(self.on_demand.wanted().map(|name| vec![name.clone()]));
        self.usable
            .retain(|chain, _| stored.iter().any(|stored| stored.chain == *chain));
        self.failed.retain(|names, _| orders.contains(names));
        self.issued
            .retain(|names, (_, last)| is_stored(&stored, names) && *last + plan::DAY > at);
        orders.retain(|names| self.failed.get(names).is_none_or(|(_, again)| *again <= at));
        // One that always fails does not keep the others waiting.
        orders.sort_by_key(|names| self.failed.get(names).map_or(0, |(failures, _)| *failures));
        orders
    }

    /// Whether a certificate can be served: what is kept may be damaged. Said once.
    fn is_usable(&mut self, certificate: &Stored) -> bool {
        let Stored { names, chain, key } = certificate;
        if let Some(is_usable) = self.usable.get(chain) {
            return *is_usable;
        }
        let parsed = tls::Certificate::from_pem(chain.as_bytes(), key.as_bytes());
        if let Err(why) = &parsed {
            warn!(
                "ACME: the certificate for {} that is kept cannot be used ({why}), so it is ordered again",
                names.join(",")
            );
        }
        self.usable.insert(chain.clone(), parsed.is_ok());
        parsed.is_ok()
    }

    /// Until when a certificate is not renewed because it was issued just now, whatever the calendar or the authority says:
    /// with a clock that is wrong every certificate is due as soon as it is there.
    fn rests_until(&self, certificate: &Stored) -> Option<Instant> {
        let (times, last) = self.issued.get(&certificate.names)?;
        let lifetime = tls::lifetime(certificate.chain.as_bytes());
        Some(*last + plan::rest(*times, lifetime))
    }

    /// When to look again though the configuration has not changed.
    fn next_look(&self) -> Instant {
        if let Some(until) = self.stuck_until {
            return until;
        }
        let (now, at) = (wall_clock(), Instant::now());
        let stored = self.kept.certificates();
        if let Some(until) = self.away.1.filter(|until| *until > at) {
            return until;
        }
        let renewals = stored
            .iter()
            .filter(|certificate| !self.failed.contains_key(&certificate.names))
            .filter_map(|certificate| {
                let due = self.renewal(certificate)?;
                let due = at + due.duration_since(now).unwrap_or_default();
                Some(
                    self.rests_until(certificate)
                        .map_or(due, |until| until.max(due)),
                )
            });
        let again = self.failed.values().map(|(_, again)| *again);
        renewals
            .chain(again)
            .chain(self.advice.next())
            .fold(at + plan::LOOK_INTERVAL, Instant::min)
    }

    /// Orders one certificate, stores it and has it served; or takes note of when to try again.
    async fn obtain(&mut self, names: Vec<String>) {
        let list = names.join(",");
        info!("ACME: ordering a certificate for {list}");
        // What the authority said to earlier requests is over.
        self.http.take_pause();
        let lost = self.kept.until_lost();
        let ordered = tokio::select! {
            biased;
            () = lost => None,
            ordered = self.ordered_at_last(&names) => Some(ordered),
        };
        if let Way::Dns(dns) = &self.way {
            for record in self.records.drain(..) {
                dns.clean_up(&record).await;
            }
        }
        match ordered {
            None => info!(
                "ACME: this node does not lead any more; the order for {list} is left to the one that does"
            ),
            Some(Ok(certificate)) => {
                self.failed.remove(&names);
                self.away = (0, None);
                info!("ACME: there is a certificate for {list}");
                self.take_note(&certificate);
                let account = self.account.as_ref().map(|(account, _)| account);
                if let Err(why) = self.kept.put(&certificate, account).await {
                    error!(
                        "ACME: the certificate for {list} cannot be stored: {why}; it is kept in memory until it can be"
                    );
                    self.unsaved.certificates.push(certificate);
                }
            }
            Some(Err(why)) if self.on_demand.fail(&names, Instant::now()) => {
                self.judge();
                error!(
                    "ACME: unable to obtain a certificate for {list}, which a client asked for: {why}; not tried again within {}",
                    humantime(ACME_ASKED_AGAIN)
                );
                self.kept.hide().await;
            }
            Some(Err(why)) => {
                self.judge();
                let failures = self.failed.get(&names).map_or(0, |(failures, _)| *failures) + 1;
                // An authority that says when is believed.
                let again = plan::again_after(failures).max(self.http.take_pause());
                error!(
                    "ACME: unable to obtain a certificate for {list}: {why}; trying again in {}",
                    humantime(again)
                );
                self.failed
                    .insert(names, (failures, Instant::now() + again));
                self.kept.hide().await;
            }
        }
    }

    /// An order has failed. Where that is about the authority, or our account with it, and not about names, all others
    /// would fail like it: nothing is ordered for a while.
    fn judge(&mut self) {
        if !self.http.is_away() && self.account.is_some() {
            self.away = (0, None);
            return;
        }
        let failures = self.away.0 + 1;
        self.away = (failures, Some(Instant::now() + plan::again_after(failures)));
    }

    /// A certificate was issued.
    fn take_note(&mut self, certificate: &Stored) {
        let now = Instant::now();
        let known = self.issued.get(&certificate.names);
        let times = known.map_or(0, |(times, _)| *times) + 1;
        self.issued.insert(certificate.names.clone(), (times, now));
        if self
            .renewal(certificate)
            .is_none_or(|due| due <= wall_clock())
        {
            error!(
                "ACME: the certificate for {} that was issued just now is to be renewed already: it is ordered again, ever later (is the clock of this machine right?)",
                certificate.names.join(",")
            );
        }
    }

    /// Begins again where nothing is wrong but the authority's memory.
    async fn ordered_at_last(&mut self, names: &[String]) -> Result<Stored, String> {
        let mut tries = 1;
        loop {
            match self.ordered(names).await {
                Err(why) if why.contains(BAD_NONCE) && tries < ORDER_TRIES => tries += 1,
                Err(why) if why.contains(NO_ACCOUNT) && !self.is_forgotten => {
                    warn!(
                        "ACME: {} does not know our account any more; another one is registered",
                        self.options.ca_server
                    );
                    self.is_forgotten = true;
                    self.account = None;
                }
                ended => return ended,
            }
        }
    }

    async fn ordered(&mut self, names: &[String]) -> Result<Stored, String> {
        let account = self.account().await?;
        let old = self
            .kept
            .certificates()
            .into_iter()
            .find(|old| old.names == names);
        // One that was refused is ordered as a new one: the authority may know nothing of the old one.
        let replaces = old
            .as_ref()
            .filter(|_| !self.failed.contains_key(names))
            .and_then(|old| self.advice.replaces(old));
        // As 1.7 does: a renewed certificate keeps its key, as it was written. One that cannot be read is no reason to have
        // none.
        let old = old.and_then(|old| Some((key::from_pem(&old.key).ok()?, old.key)));
        let (key, key_pem) = match old {
            Some(old) => old,
            None => {
                let kept = self.kept.key_type().and_then(KeyType::named);
                let kind = kept.unwrap_or(self.key_type);
                let key = blocking(move || kind.generate().map_err(said)).await?;
                let key_pem = key::to_pem(&key);
                (key, key_pem)
            }
        };
        let (kept, records) = (&mut self.kept, &mut self.records);
        let chain = order::order(&account, names, replaces, &key, &self.way, kept, records)
            .await
            .map_err(said)?;
        stored(names, chain, key_pem)
    }

    /// The account with the authority, registered the first time that it is needed.
    async fn account(&mut self) -> Result<instant_acme::Account, String> {
        if let Some((_, account)) = &self.account {
            return Ok(account.clone());
        }
        let directory = directory(&self.options.ca_server);
        let builder = instant_acme::Account::builder_with_http(Box::new(self.http.clone()));
        let (known, account) = match self.kept.account() {
            Some(known) if known.directory == directory && !self.is_forgotten => {
                let key = PrivatePkcs8KeyDer::from(known.key.clone());
                let account = builder.from_parts(known.uri.clone(), key, directory).await;
                (known, account.map_err(said)?)
            }
            known => {
                if known.is_some() && !self.is_forgotten {
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
                if self.kept.has_account_of_1_7() {
                    info!(
                        "ACME: {} has an account with an RSA key, which only Traefik 1.7 can use: the account of Traefik 1.7 stays in it",
                        self.options.storage
                    );
                }
                let registered = Account {
                    uri: account.id().to_owned(),
                    directory,
                    key: credentials.private_key().secret_pkcs8_der().to_vec(),
                };
                self.is_forgotten = false;
                self.account = Some((registered.clone(), account.clone()));
                if let Err(why) = self.kept.set_account(&registered).await {
                    self.unsaved.account = Some(registered);
                    return Err(format!("the account cannot be stored: {why}"));
                }
                return Ok(account);
            }
        };
        self.account = Some((known, account.clone()));
        Ok(account)
    }
}

/// The configuration that serves certificates on an entry point.
fn tls_of(certificates: &[Stored], entry_point: &str) -> Dynamic {
    let tls = certificates.iter().map(|stored| TlsEntry {
        place: Place::Default,
        entry_points: vec![entry_point.to_owned()],
        certificate: Certificate {
            cert_file: stored.chain.clone(),
            key_file: stored.key.clone(),
        },
    });
    Dynamic {
        tls: tls.collect(),
        ..Dynamic::default()
    }
}

/// Which way of proving names was chosen; if several were, DNS goes before the others, and TLS before HTTP.
fn way(options: &Acme, http: &Http) -> Result<Way, String> {
    let has_dns = options.dns_challenge.is_some() || !options.dns_provider.is_empty();
    let two = |one: &str, other: &str| {
        warn!(
            "Unable to use {one} challenge and {other} challenge at the same time. Fallback to {other} challenge."
        );
    };
    let (has_tls, has_http) = (
        options.tls_challenge.is_some(),
        options.http_challenge.is_some(),
    );
    if has_dns {
        if has_http {
            two("HTTP", "DNS");
        }
        if has_tls {
            two("TLS", "DNS");
        }
        let variable = |name: &str| env::var(name).ok();
        return Dns::new(options, http, &Environment(&variable)).map(|dns| Way::Dns(Box::new(dns)));
    }
    if has_tls {
        if has_http {
            two("HTTP", "TLS");
        }
        return Ok(Way::Tls);
    }
    if has_http {
        return Ok(Way::Http);
    }
    Err("ACME challenge not specified, please select TLS or HTTP or DNS Challenge".to_owned())
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

fn is_stored(certificates: &[Stored], names: &[String]) -> bool {
    certificates.iter().any(|stored| stored.names == names)
}

fn stored(names: &[String], chain: String, key: String) -> Result<Stored, String> {
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

/// What is wrong, and what an operator might not think of.
fn said(error: impl Display) -> String {
    let text = error.to_string();
    let is_clock = ["certificate expired", "certificate not valid yet"]
        .iter()
        .any(|hint| text.contains(hint));
    if is_clock {
        return format!("{text} (is the clock of this machine right?)");
    }
    text
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
        let client = Http::new(false).expect("the system has authorities");
        let chosen = |options: &Acme| match way(options, &client) {
            Ok(Way::Http) => "http".to_owned(),
            Ok(Way::Tls) => "tls".to_owned(),
            Ok(Way::Dns(_)) => "dns".to_owned(),
            Err(why) => why,
        };
        assert_eq!(chosen(&http), "http");
        assert_eq!(chosen(&both), "tls");
        assert!(chosen(&none).starts_with("ACME challenge not specified"));
        assert!(chosen(&dns).starts_with("acme.dnsChallenge.provider is missing"));
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
