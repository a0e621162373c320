//! Consul, over its HTTP API.
//!
//! Owns the translation of the trait into requests, and the sessions of locks. Keys carry the flags that Traefik 1.7 wrote,
//! so that both read each other's. Spec kv-stores 1.2, 3.1, 5; cluster 3.
//! Read next: `watch.rs` (how a change is found), `http.rs`.

mod watch;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HeaderName;
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::watch::ConsulWatch;
use super::backoff::spread;
use super::connect::{Dialer, Endpoint, TlsSettings};
use super::http::{Http, Question, Reply, TREE_TIMEOUT, encoded};
use super::keep::{self, Keepers, Kept};
use super::{
    Answer, Credentials, Environment, Error, Expected, Fenced, Kind, LOCK_SPREAD, Listing, Lock,
    LockRequest, Pair, Position, Prefix, Settings, Store, Swap, Tls, Version, Watch, bounded,
};

/// Flags of every key that is written, as Traefik 1.7's library marks those that can be locked.
const FLAGS: u64 = 0x2ddc_cbc0_58a5_0c18;

/// How long the server holds a question that waits for a change. It adds up to a sixteenth by chance.
const WAIT: Duration = Duration::from_secs(30);

/// How long after that an answer may come.
const WAIT_SLACK: Duration = Duration::from_secs(15);

/// Among how long the nodes of a fleet spread their readings of a tree that has changed, of which all hear at once.
const READ_SPREAD: Duration = Duration::from_millis(250);

/// Pause before a lock that is free and was not given is asked for again: the last holder's session may just have ended.
const LOCK_DELAY: Duration = Duration::from_millis(50);

const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// One Consul.
#[derive(Clone, Debug)]
pub(super) struct Consul {
    http: Arc<Http>,
    keepers: Keepers,
}

/// A key as Consul shows it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    /// Base64; none where the value is empty.
    value: Option<String>,
    flags: u64,
    modify_index: u64,
    #[serde(default)]
    session: Option<String>,
}

#[derive(Deserialize)]
struct Session {
    #[serde(rename = "ID")]
    id: String,
}

/// The answer to a transaction that was done.
#[derive(Deserialize)]
struct Done {
    #[serde(rename = "Results")]
    results: Vec<DoneKey>,
}

/// The answer to one that was not.
#[derive(Deserialize)]
struct Undone {
    #[serde(rename = "Errors")]
    errors: Vec<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    #[serde(rename = "OpIndex")]
    index: usize,
}

#[derive(Deserialize)]
struct DoneKey {
    #[serde(rename = "KV")]
    kv: DoneEntry,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DoneEntry {
    modify_index: u64,
}

impl Entry {
    fn value(&self, key: &str) -> Result<Bytes, Error> {
        let text = self.value.as_deref().unwrap_or_default();
        STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| Error::Protocol(format!("the value of {key}: {error}")))
    }
}

impl Consul {
    /// Settings go before the `CONSUL_*` environment, which stands in for what they leave open.
    ///
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn new(settings: &Settings, environment: &Environment<'_>) -> Result<Self, Error> {
        let [written] = settings.endpoints.as_slice() else {
            return Err(Error::Settings(
                "consul does not support multiple endpoints".to_owned(),
            ));
        };
        let is_true = |name| {
            environment(name).is_some_and(|value| {
                matches!(value.trim(), "1" | "t" | "T" | "true" | "TRUE" | "True")
            })
        };
        let is_false = |name| {
            environment(name).is_some_and(|value| {
                matches!(value.trim(), "0" | "f" | "F" | "false" | "FALSE" | "False")
            })
        };
        let http = if let Some(path) = written.strip_prefix("unix://") {
            let endpoint = Endpoint::parse(Kind::Consul, "localhost")?;
            Http::new(Dialer::unix(PathBuf::from(path)), &[endpoint], false)?
        } else {
            let endpoint = Endpoint::parse(Kind::Consul, written)?;
            let is_tls = settings.tls.is_some()
                || endpoint.is_tls == Some(true)
                || is_true("CONSUL_HTTP_SSL");
            let tls = settings.tls.clone().map_or_else(
                || tls_of(environment, is_false("CONSUL_HTTP_SSL_VERIFY")),
                Ok,
            )?;
            let name = environment("CONSUL_TLS_SERVER_NAME");
            let tls = is_tls
                .then(|| TlsSettings::new(&tls, name, Some("http/1.1")))
                .transpose()?;
            // A `tls` section means https, as in the reference, even where the endpoint says otherwise.
            let endpoint = Endpoint {
                is_tls: Some(is_tls),
                ..endpoint
            };
            Http::new(Dialer::new(tls), &[endpoint], is_tls)?
        };
        let http = match environment("CONSUL_HTTP_TOKEN").filter(|token| !token.is_empty()) {
            Some(token) => http.with_field(TOKEN, &token)?,
            None => http,
        };
        let credentials = settings.credentials.clone().or_else(|| {
            let text = environment("CONSUL_HTTP_AUTH")?;
            let (user, password) = text.split_once(':').unwrap_or((&text, ""));
            Some(Credentials {
                user: user.to_owned(),
                password: password.to_owned(),
            })
        });
        let http = match credentials {
            Some(credentials) => http.with_credentials(&credentials)?,
            None => http,
        };
        Ok(Self {
            http: Arc::new(http),
            keepers: Keepers::default(),
        })
    }

    async fn tree(&self, below: &Prefix) -> Result<Listing, Error> {
        let (index, entries) = self.entries(below.root()).await?;
        let pairs = entries.iter().filter_map(|entry| {
            let path = below.path(&entry.key)?;
            Some(entry.value(&entry.key).map(|value| Pair {
                key: path.to_owned(),
                value,
                version: Version(entry.modify_index),
            }))
        });
        bounded(pairs, Position(index))
    }

    /// Every key that begins so, and the newest index among them.
    async fn entries(&self, prefix: &str) -> Result<(u64, Vec<Entry>), Error> {
        let target = format!("/v1/kv/{}?recurse=&consistent=", encoded(prefix));
        let reply = self
            .http
            .ask(&Question::get(target).within(TREE_TIMEOUT))
            .await?;
        Ok((index_of(&reply), list_of(&reply)?))
    }

    async fn entry(&self, key: &str) -> Result<Option<Entry>, Error> {
        let target = format!("/v1/kv/{}?consistent=", encoded(key));
        let reply = self.http.ask(&Question::get(target)).await?;
        entry_of(&reply)
    }

    /// The same, once it is different from what it was at an index, or after a while; with its index.
    async fn next_entry(
        &self,
        key: &str,
        index: Option<u64>,
    ) -> Result<(Option<Entry>, u64), Error> {
        let target = format!(
            "/v1/kv/{}?consistent=&index={}&wait={}s",
            encoded(key),
            index.unwrap_or_default(),
            WAIT.as_secs(),
        );
        let question = Question::get(target).within(WAIT + WAIT_SLACK);
        let reply = self.http.ask(&question).await?;
        Ok((entry_of(&reply)?, index_of(&reply)))
    }

    /// Waits until nobody holds a lock. Nothing is asked of the store meanwhile but to say when it changes.
    async fn is_free(&self, key: &str) -> Result<(), Error> {
        let mut index = None;
        loop {
            let (entry, newest) = self.next_entry(key, index).await?;
            if entry.is_some_and(|entry| entry.session.is_some()) {
                index = Some(newest);
                continue;
            }
            if index.is_none() {
                return Ok(());
            }
            // Everybody hears of it at once. Whoever hears during its own pause that another was faster never asks.
            let next = self.next_entry(key, Some(newest));
            tokio::select! {
                () = spread(LOCK_SPREAD) => return Ok(()),
                taken = next => drop(taken?),
            }
        }
    }

    /// The names of the first level of what begins so, folders with their slash, and the newest index among all that is
    /// below them: at once, or when it is not `index` any more, or after a while. So a wait that ends without a change
    /// costs nothing, however big the tree.
    async fn names(&self, prefix: &str, index: Option<u64>) -> Result<(u64, Vec<String>), Error> {
        let mut target = format!("/v1/kv/{}?keys=&separator=%2F&consistent=", encoded(prefix));
        let mut time = TREE_TIMEOUT;
        if let Some(index) = index {
            target += &format!("&index={index}&wait={}s", WAIT.as_secs());
            time = WAIT + WAIT_SLACK;
        }
        let reply = self.http.ask(&Question::get(target).within(time)).await?;
        Ok((index_of(&reply), list_of(&reply)?))
    }

    async fn write(&self, target: String, body: Bytes) -> Result<bool, Error> {
        let reply = self
            .http
            .ask(&Question::new(Method::PUT, target, body))
            .await?;
        parse(&reply)
    }

    async fn remove(&self, target: String) -> Result<(), Error> {
        let reply = self
            .http
            .ask(&Question::new(Method::DELETE, target, Bytes::new()))
            .await?;
        parse::<bool>(&reply).map(drop)
    }

    /// Does all or nothing: the version of what the last operation wrote, or which operation was refused.
    async fn transact(&self, operations: Value) -> Result<Result<Version, usize>, Error> {
        let body = Bytes::from(operations.to_string());
        let question =
            Question::new(Method::PUT, "/v1/txn".to_owned(), body).content_type("application/json");
        let reply = self.http.ask(&question).await?;
        let incomplete = || Error::Protocol("Consul: a transaction without its result".to_owned());
        if reply.status == StatusCode::CONFLICT {
            let undone: Undone = serde_json::from_slice(&reply.body)
                .map_err(|error| Error::Protocol(format!("Consul: {error}")))?;
            let first = undone.errors.iter().map(|refused| refused.index).min();
            return first.map(Err).ok_or_else(incomplete);
        }
        let done: Done = parse(&reply)?;
        let written = done.results.last().ok_or_else(incomplete)?;
        Ok(Ok(Version(written.kv.modify_index)))
    }

    async fn new_session(&self, ttl: Duration) -> Result<String, Error> {
        let body = json!({
            "TTL": format!("{}s", ttl.as_secs()),
            "Behavior": "release",
            "LockDelay": "1ms",
        });
        let body = Bytes::from(body.to_string());
        let question = Question::new(Method::PUT, "/v1/session/create".to_owned(), body);
        let session: Session = parse(&self.http.ask(&question).await?)?;
        Ok(session.id)
    }
}

/// An operation of a transaction: writes a key if it is as expected.
fn cas(key: &str, expected: Expected, value: &[u8]) -> Value {
    let index = match expected {
        Expected::Absent => 0,
        Expected::Version(Version(index)) => index,
    };
    json!({"KV": {
        "Verb": "cas",
        "Key": key,
        "Value": STANDARD.encode(value),
        "Flags": FLAGS,
        "Index": index,
    }})
}

/// TLS as the environment wants it.
fn tls_of(environment: &Environment<'_>, trusts_anybody: bool) -> Result<Tls, Error> {
    let authorities = match (environment("CONSUL_CACERT"), environment("CONSUL_CAPATH")) {
        (Some(file), _) => Some(file),
        (None, Some(folder)) => Some(all_of(&folder)?),
        (None, None) => None,
    };
    let own = environment("CONSUL_CLIENT_CERT").zip(environment("CONSUL_CLIENT_KEY"));
    Ok(Tls {
        authorities,
        own,
        trusts_anybody,
    })
}

/// Every file of a folder as one text.
fn all_of(folder: &str) -> Result<String, Error> {
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        for entry in std::fs::read_dir(folder)? {
            text += &std::fs::read_to_string(entry?.path())?;
            text.push('\n');
        }
        Ok(text)
    };
    read().map_err(|error| Error::Settings(format!("CONSUL_CAPATH {folder}: {error}")))
}

/// How far Consul had come with what was asked for. Zero would not wait at all, the next time.
fn index_of(reply: &Reply) -> u64 {
    reply.number("x-consul-index").unwrap_or_default().max(1)
}

/// What an answer lists; nothing if there is nothing.
fn list_of<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<Vec<T>, Error> {
    match reply.status {
        StatusCode::NOT_FOUND => Ok(Vec::new()),
        _ => parse(reply),
    }
}

/// The key that was asked for, if there is one.
fn entry_of(reply: &Reply) -> Result<Option<Entry>, Error> {
    let mut entries: Vec<Entry> = list_of(reply)?;
    Ok(entries.pop())
}

/// What a successful answer says.
fn parse<T: serde::de::DeserializeOwned>(reply: &Reply) -> Result<T, Error> {
    match reply.status {
        StatusCode::OK => serde_json::from_slice(&reply.body)
            .map_err(|error| Error::Protocol(format!("Consul: {error}"))),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Error::Denied(format!("Consul: {}", reply.says())))
        }
        StatusCode::PAYLOAD_TOO_LARGE => Err(Error::TooBig(format!("Consul: {}", reply.says()))),
        status if status.is_client_error() => {
            Err(Error::Protocol(format!("Consul: {}", reply.says())))
        }
        _ => Err(Error::Unavailable(format!("Consul: {}", reply.says()))),
    }
}

impl Store for Consul {
    fn kind(&self) -> Kind {
        Kind::Consul
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(self.tree(below))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            let Some(entry) = self.entry(key).await? else {
                return Ok(None);
            };
            Ok(Some(Pair {
                value: entry.value(key)?,
                key: entry.key,
                version: Version(entry.modify_index),
            }))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let target = format!("/v1/kv/{}?flags={FLAGS}", encoded(key));
            if self.write(target, Bytes::copy_from_slice(value)).await? {
                Ok(())
            } else {
                Err(Error::Unavailable(format!("Consul did not write {key}")))
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(self.remove(format!("/v1/kv/{}", encoded(key))))
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        Box::pin(self.remove(format!("/v1/kv/{}?recurse=", encoded(below.root()))))
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        Box::pin(async move {
            match self.transact(json!([cas(key, expected, value)])).await? {
                Ok(version) => Ok(Swap::Written(version)),
                Err(_) => Ok(Swap::Conflict),
            }
        })
    }

    fn watch(&self, below: &Prefix, _: Option<Position>) -> Box<dyn Watch> {
        Box::new(ConsulWatch::new(self.clone(), below.clone()))
    }

    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            // Half of what is asked for: Consul ends a session between one and two times this long after its last renewal.
            let ttl = request.ttl / 2;
            loop {
                // Those who only wait have no session, so that however many they are there is none to renew.
                self.is_free(&request.key).await?;
                let began = Instant::now();
                let held = Held {
                    store: self.clone(),
                    session: self.new_session(ttl).await?,
                    request: request.clone(),
                };
                let taken = keep::take(&self.keepers, Arc::new(held), ttl, began).await?;
                if let Some(lock) = taken {
                    return Ok(lock);
                }
                sleep(LOCK_DELAY).await;
            }
        })
    }

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.keepers.settled())
    }
}

/// A lock: a session that owns a key.
struct Held {
    store: Consul,
    session: String,
    request: LockRequest,
}

impl Kept for Held {
    fn acquire(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let key = &self.request.key;
            let entry = self.store.entry(key).await?;
            if entry.is_some_and(|entry| entry.flags != FLAGS) {
                return Err(Error::Unsupported(format!(
                    "Existing key does not match lock use: {key}"
                )));
            }
            let value = Bytes::copy_from_slice(self.request.value.as_bytes());
            self.store.write(self.target("acquire"), value).await
        })
    }

    fn renew(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let target = format!("/v1/session/renew/{}", self.session);
            let question = Question::new(Method::PUT, target, Bytes::new());
            let reply = self.store.http.ask(&question).await?;
            if reply.status == StatusCode::NOT_FOUND {
                return Ok(false);
            }
            parse::<Vec<Session>>(&reply).map(|sessions| !sessions.is_empty())
        })
    }

    fn lost(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut index = None;
            loop {
                let (entry, newest) = self.store.next_entry(&self.request.key, index).await?;
                index = Some(newest);
                if entry.and_then(|entry| entry.session).as_ref() != Some(&self.session) {
                    return Ok(());
                }
            }
        })
    }

    /// First the key, which whoever waits may have at once then; the end of the session alone holds it back for a moment.
    fn release(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let value = Bytes::copy_from_slice(self.request.value.as_bytes());
            let released = self.store.write(self.target("release"), value).await;
            let target = format!("/v1/session/destroy/{}", self.session);
            self.store.write(target, Bytes::new()).await?;
            released.map(drop)
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            let ours = json!({"KV": {
                "Verb": "check-session",
                "Key": self.request.key,
                "Session": self.session,
            }});
            let operations = json!([ours, cas(key, expected, value)]);
            Ok(match self.store.transact(operations).await? {
                Ok(version) => Fenced::Written(version),
                Err(0) => Fenced::Lost,
                Err(_) => Fenced::Conflict,
            })
        })
    }
}

impl Held {
    fn target(&self, verb: &str) -> String {
        let (key, session) = (encoded(&self.request.key), &self.session);
        format!("/v1/kv/{key}?{verb}={session}&flags={FLAGS}")
    }
}
