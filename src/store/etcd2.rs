//! etcd's version 2 protocol, over HTTP.
//!
//! Owns the translation of the trait into requests. Values are text here: the protocol carries them in JSON.
//! Spec kv-stores 3.2, 5; cluster 3. Read next: `http.rs`; `etcd3.rs` is what etcd itself advises.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, timeout};

use super::backoff::spread;
use super::connect::{Dialer, Endpoint, TlsSettings};
use super::http::{
    Http, Question, REQUEST_TIMEOUT, Reply, TREE_TIMEOUT, encoded, encoded_value, number,
};
use super::keep::{self, Keepers, Kept};
use super::{
    Answer, Change, Error, Expected, Fenced, Kind, LOCK_MARK, LOCK_SPREAD, Listing, Lock,
    LockRequest, Pair, Position, Prefix, Seen, Settings, Store, Swap, Version, Watch, bounded,
};

/// How long one question waits for a change.
const WAIT: Duration = Duration::from_secs(30);

/// Changes that are fetched one by one, each with a request of its own; more of them, and the tree is read instead.
const BEHIND_MAX: u64 = 50;

const INDEX: &str = "x-etcd-index";
const CLUSTER: &str = "x-etcd-cluster-id";
const FORM: &str = "application/x-www-form-urlencoded";

/// One etcd.
#[derive(Clone, Debug)]
pub(super) struct Etcd2 {
    http: Arc<Http>,
    keepers: Keepers,
    /// Which cluster the last tree was of: another one has another history.
    cluster: Arc<AtomicU64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    action: String,
    node: Node,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default)]
    dir: bool,
    #[serde(default)]
    nodes: Vec<Self>,
    #[serde(default)]
    modified_index: u64,
    /// Stays when the key is written again on condition of what it was.
    #[serde(default)]
    created_index: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Complaint {
    error_code: u32,
    message: String,
    #[serde(default)]
    cause: String,
}

/// Codes of the protocol that we tell apart.
mod code {
    pub(super) const NOT_FOUND: u32 = 100;
    pub(super) const COMPARE_FAILED: u32 = 101;
    pub(super) const NOT_FILE: u32 = 102;
    pub(super) const EXISTS: u32 = 105;
    pub(super) const EMPTIED: u32 = 108;
    pub(super) const UNAUTHORIZED: u32 = 110;
    pub(super) const HISTORY_CLEARED: u32 = 401;
}

/// Why a request was refused: by the protocol's code where a caller may go on, otherwise as it is told.
enum Refused {
    Code(u32),
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Refused {
    /// The caller had no use for this code.
    fn unexpected(self) -> Error {
        match self {
            Self::Error(error) => error,
            Self::Code(code) => Error::Protocol(format!("etcd: error {code}")),
        }
    }
}

/// What a successful answer says.
fn told(reply: &Reply) -> Result<Told, Refused> {
    if reply.status.is_success() {
        return serde_json::from_slice(&reply.body)
            .map_err(|error| Error::Protocol(format!("etcd: {error}")).into());
    }
    let Ok(complaint) = serde_json::from_slice::<Complaint>(&reply.body) else {
        return Err(match reply.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Error::Denied(format!("etcd: {}", reply.says()))
            }
            status if status.is_server_error() => {
                Error::Unavailable(format!("etcd: {}", reply.says()))
            }
            _ => Error::Protocol(format!(
                "etcd: {} (is its version 2 API on, `--enable-v2`?)",
                reply.says()
            )),
        }
        .into());
    };
    let text = format!(
        "etcd: {}: {} ({})",
        complaint.error_code, complaint.message, complaint.cause
    );
    Err(match complaint.error_code {
        code::UNAUTHORIZED => Error::Denied(text).into(),
        code @ (code::NOT_FOUND
        | code::COMPARE_FAILED
        | code::NOT_FILE
        | code::EXISTS
        | code::EMPTIED
        | code::HISTORY_CLEARED) => Refused::Code(code),
        300..=399 => Error::Unavailable(text).into(),
        _ => Error::Protocol(text).into(),
    })
}

impl Etcd2 {
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let endpoints = settings
            .endpoints
            .iter()
            .map(|written| Endpoint::parse(Kind::EtcdV2, written))
            .collect::<Result<Vec<_>, _>>()?;
        let is_tls = settings.tls.is_some();
        let tls = TlsSettings::new(
            &settings.tls.clone().unwrap_or_default(),
            None,
            Some("http/1.1"),
        )?;
        let http = Http::new(Dialer::new(Some(tls)), &endpoints, is_tls)?;
        let http = match &settings.credentials {
            Some(credentials) => http.with_credentials(credentials)?,
            None => http,
        };
        Ok(Self {
            http: Arc::new(http),
            keepers: Keepers::default(),
            cluster: Arc::default(),
        })
    }

    async fn tree(&self, below: &Prefix) -> Result<Listing, Error> {
        let target = format!(
            "/v2/keys{}?recursive=true&quorum=true",
            encoded(below.root())
        );
        let reply = self
            .http
            .ask(&Question::get(target).within(TREE_TIMEOUT))
            .await?;
        let position = Position(reply.number(INDEX).unwrap_or_default());
        let mut pairs = Vec::new();
        match told(&reply) {
            Ok(told) => flatten(told.node, below, &mut pairs),
            Err(Refused::Code(code::NOT_FOUND)) => {}
            Err(refused) => return Err(refused.unexpected()),
        }
        self.cluster
            .store(cluster(&reply.headers), Ordering::Relaxed);
        bounded(pairs.into_iter().map(Ok), position)
    }

    async fn write(
        &self,
        method: Method,
        key: &str,
        query: &str,
        form: String,
    ) -> Result<u64, Refused> {
        let question = Question::new(
            method,
            format!("/v2/keys{}{query}", encoded(&rooted(key))),
            Bytes::from(form),
        )
        .content_type(FORM);
        let told = told(&self.http.ask(&question).await?)?;
        Ok(told.node.modified_index)
    }

    /// Waits for the next change after a position.
    async fn waited(&self, below: &Prefix, since: Position) -> Result<Waited, Error> {
        let target = format!(
            "/v2/keys{}?wait=true&recursive=true&waitIndex={}",
            encoded(below.root()),
            since.0 + 1
        );
        // The head comes at once, the rest when there is something to tell.
        let question = Question::get(target).within(REQUEST_TIMEOUT);
        let response = self.http.ask_head(&question).await?;
        let index = number(response.headers(), INDEX);
        let is_other = cluster(response.headers()) != self.cluster.load(Ordering::Relaxed);
        if is_other || index.is_some_and(|index| index < since.0) {
            // Another history: what the store counts has nothing to do with what we have.
            return Ok(Waited::Lost);
        }
        let reply = match timeout(WAIT, Http::body(response)).await {
            Ok(Err(why)) => return Err(Error::Unreachable(why)),
            // The server ends a wait that it has held for long enough with nothing.
            Ok(Ok(reply)) if !reply.body.is_empty() => reply,
            Err(_) | Ok(Ok(_)) => {
                self.is_one_of_many(below).await?;
                return Ok(Waited::Quiet(index.map_or(since, Position)));
            }
        };
        match told(&reply) {
            Ok(told)
                if index.is_some_and(|index| index > told.node.modified_index + BEHIND_MAX) =>
            {
                Ok(Waited::Lost)
            }
            Ok(told) => Ok(Waited::Told(told)),
            Err(Refused::Code(code::HISTORY_CLEARED | code::EMPTIED)) => Ok(Waited::Lost),
            Err(refused) => Err(refused.unexpected()),
        }
    }
}

impl Etcd2 {
    /// Asks something that a member can only answer together with the others. One that has lost them would go on saying that
    /// nothing happens.
    async fn is_one_of_many(&self, below: &Prefix) -> Result<(), Error> {
        let target = format!("/v2/keys{}?quorum=true", encoded(below.root()));
        match told(&self.http.ask(&Question::get(target)).await?) {
            Ok(_) | Err(Refused::Code(code::NOT_FOUND)) => Ok(()),
            Err(refused) => Err(refused.unexpected()),
        }
    }
}

fn cluster(headers: &http::HeaderMap) -> u64 {
    headers
        .get(CLUSTER)
        .and_then(|value| u64::from_str_radix(value.to_str().ok()?, 16).ok())
        .unwrap_or_default()
}

/// Keys are paths from the root.
fn rooted(key: &str) -> String {
    if key.starts_with('/') {
        key.to_owned()
    } else {
        format!("/{key}")
    }
}

/// The keys of a node and below. The depth is bounded by that of the JSON.
fn flatten(node: Node, below: &Prefix, pairs: &mut Vec<Pair>) {
    if node.dir && !node.nodes.is_empty() {
        for inner in node.nodes {
            flatten(inner, below, pairs);
        }
        return;
    }
    let mark = if node.dir { "/" } else { "" };
    if let Some(path) = below
        .path(&node.key)
        .filter(|path| !path.contains(LOCK_MARK))
    {
        pairs.push(Pair {
            key: format!("{path}{mark}"),
            value: Bytes::from(node.value),
            version: Version(node.modified_index),
        });
    }
}

fn value_form(value: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(value).map_err(|_| {
        Error::Unsupported(
            "etcd's version 2 API holds text only, and this value is none".to_owned(),
        )
    })?;
    Ok(format!("value={}", encoded_value(text)))
}

impl Store for Etcd2 {
    fn kind(&self) -> Kind {
        Kind::EtcdV2
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(self.tree(below))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            let target = format!("/v2/keys{}?quorum=true", encoded(&rooted(key)));
            match told(&self.http.ask(&Question::get(target)).await?) {
                // A directory read as a key has no value of its own.
                Ok(told) if told.node.dir => Ok(None),
                Ok(told) => Ok(Some(Pair {
                    key: told.node.key,
                    value: Bytes::from(told.node.value),
                    version: Version(told.node.modified_index),
                })),
                Err(Refused::Code(code::NOT_FOUND)) => Ok(None),
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let written = match key.strip_suffix('/') {
                Some(folder) => {
                    let form = "dir=true&prevExist=false".to_owned();
                    self.write(Method::PUT, folder, "", form).await
                }
                None => self.write(Method::PUT, key, "", value_form(value)?).await,
            };
            match written {
                Ok(_) => Ok(()),
                Err(Refused::Code(code::EXISTS | code::NOT_FILE)) if key.ends_with('/') => Ok(()),
                Err(Refused::Code(code::NOT_FILE)) => Err(Error::Unsupported(format!(
                    "etcd's version 2 API cannot hold a value at {key}: there are keys below it"
                ))),
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.write(Method::DELETE, key, "", String::new()).await {
                Ok(_) | Err(Refused::Code(code::NOT_FOUND)) => Ok(()),
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        Box::pin(async move {
            let deleted = self
                .write(
                    Method::DELETE,
                    below.name(),
                    "?recursive=true",
                    String::new(),
                )
                .await;
            match deleted {
                Ok(_) | Err(Refused::Code(code::NOT_FOUND)) => Ok(()),
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        Box::pin(async move {
            let query = match expected {
                Expected::Absent => "?prevExist=false".to_owned(),
                Expected::Version(Version(index)) => format!("?prevIndex={index}"),
            };
            match self
                .write(Method::PUT, key, &query, value_form(value)?)
                .await
            {
                Ok(index) => Ok(Swap::Written(Version(index))),
                Err(Refused::Code(code::NOT_FOUND | code::COMPARE_FAILED | code::EXISTS)) => {
                    Ok(Swap::Conflict)
                }
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn watch(&self, below: &Prefix, since: Option<Position>) -> Box<dyn Watch> {
        Box::new(Etcd2Watch {
            store: self.clone(),
            below: below.clone(),
            since,
            waiting: None,
        })
    }

    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            loop {
                let held = Held {
                    store: self.clone(),
                    side: format!("{}{LOCK_MARK}", request.key),
                    request: request.clone(),
                    index: AtomicU64::new(0),
                    created: AtomicU64::new(0),
                };
                held.is_free().await?;
                let began = Instant::now();
                let taken = keep::take(&self.keepers, Arc::new(held), request.ttl, began).await?;
                if let Some(lock) = taken {
                    return Ok(lock);
                }
            }
        })
    }

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.keepers.settled())
    }
}

/// A question at a time, from the position of the last answer.
struct Etcd2Watch {
    store: Etcd2,
    below: Prefix,
    since: Option<Position>,
    /// The question under way, kept when the caller stops waiting for a while.
    waiting: Option<Answer<'static, Waited>>,
}

enum Waited {
    Tree(Listing),
    Told(Told),
    Quiet(Position),
    /// Only the whole tree will do.
    Lost,
}

impl Etcd2Watch {
    /// What a change means for the tree. `None`: more than one key may be different.
    fn change(&self, told: Told) -> Option<Seen> {
        let position = Position(told.node.modified_index);
        if told.node.dir {
            return None;
        }
        let path = self.below.path(&told.node.key)?;
        if path.contains(LOCK_MARK) {
            return Some(Seen::Quiet(position));
        }
        let change = match told.action.as_str() {
            "delete" | "expire" | "compareAndDelete" => Change::Delete(path.to_owned()),
            _ => Change::Put(Pair {
                key: path.to_owned(),
                value: Bytes::from(told.node.value),
                version: Version(told.node.modified_index),
            }),
        };
        Some(Seen::Changes {
            changes: vec![change],
            position,
        })
    }
}

impl Watch for Etcd2Watch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            loop {
                let waiting = self.waiting.get_or_insert_with(|| {
                    let (store, below) = (self.store.clone(), self.below.clone());
                    match self.since {
                        None => Box::pin(async move { store.tree(&below).await.map(Waited::Tree) }),
                        Some(since) => Box::pin(async move { store.waited(&below, since).await }),
                    }
                });
                let waited = waiting.as_mut().await;
                self.waiting = None;
                let seen = match waited? {
                    Waited::Tree(listing) => Some(Seen::Whole(listing)),
                    Waited::Quiet(position) => Some(Seen::Quiet(position)),
                    Waited::Told(told) => self.change(told),
                    Waited::Lost => None,
                };
                self.since = seen.as_ref().map(Seen::position);
                if let Some(seen) = seen {
                    return Ok(seen);
                }
            }
        })
    }
}

/// A lock: a key beside the one that says who holds it, which ends by itself unless it is written again.
struct Held {
    store: Etcd2,
    side: String,
    request: LockRequest,
    /// Of the last time we wrote the key beside. Zero: not yet.
    index: AtomicU64,
    /// Of the first time.
    created: AtomicU64,
}

/// What is known of the key beside.
enum Side {
    There,
    Gone,
    Unknown,
}

impl Held {
    fn form(&self) -> String {
        format!("value=&ttl={}", self.request.ttl.as_secs())
    }

    /// Without a word to those who watch.
    fn quiet_form(&self) -> String {
        format!("refresh=true&ttl={}", self.request.ttl.as_secs())
    }

    fn query(&self) -> String {
        format!("?prevIndex={}", self.index.load(Ordering::Relaxed))
    }

    /// Waits until somebody does something to the key beside, or a while; where the history stands then, and whether the key
    /// is there as far as that tells.
    async fn stirred(&self, since: Position) -> Result<(Position, Side), Error> {
        let key = Prefix::new(Kind::EtcdV2, &self.side);
        Ok(match self.store.waited(&key, since).await? {
            Waited::Told(told) => {
                let side = match told.action.as_str() {
                    "delete" | "expire" | "compareAndDelete" => Side::Gone,
                    _ => Side::There,
                };
                (Position(told.node.modified_index), side)
            }
            Waited::Quiet(position) => (position, Side::There),
            Waited::Tree(_) | Waited::Lost => (since, Side::Unknown),
        })
    }

    /// Waits until nobody holds the lock. A renewal that stirs the key (those of 1.7 do) costs one question, and no write.
    async fn is_free(&self) -> Result<(), Error> {
        let (mut position, created) = self.looked().await?;
        if created.is_none() {
            return Ok(());
        }
        loop {
            let side;
            (position, side) = self.stirred(position).await?;
            match side {
                Side::There => {}
                Side::Unknown => {
                    let (now, created) = self.looked().await?;
                    if created.is_none() {
                        return Ok(());
                    }
                    position = now;
                }
                // Everybody hears of it at once. Whoever hears during its own pause that another was faster never asks.
                Side::Gone => tokio::select! {
                    () = spread(LOCK_SPREAD) => return Ok(()),
                    stirred = self.stirred(position) => (position, _) = stirred?,
                },
            }
        }
    }

    /// Where the store's history stands, and when the key beside was created, if there is one.
    async fn looked(&self) -> Result<(Position, Option<u64>), Error> {
        let target = format!("/v2/keys{}?quorum=true", encoded(&rooted(&self.side)));
        let reply = self.store.http.ask(&Question::get(target)).await?;
        let position = Position(reply.number(INDEX).unwrap_or_default());
        match told(&reply) {
            Ok(told) => Ok((position, Some(told.node.created_index))),
            Err(Refused::Code(code::NOT_FOUND)) => Ok((position, None)),
            Err(refused) => Err(refused.unexpected()),
        }
    }
}

impl Kept for Held {
    fn acquire(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let created = self
                .store
                .write(Method::PUT, &self.side, "?prevExist=false", self.form())
                .await;
            match created {
                Ok(index) => {
                    self.index.store(index, Ordering::Relaxed);
                    self.created.store(index, Ordering::Relaxed);
                    let value = self.request.value.as_bytes();
                    self.store.put(&self.request.key, value).await?;
                    Ok(true)
                }
                Err(Refused::Code(code::EXISTS)) => Ok(false),
                Err(refused) => Err(refused.unexpected()),
            }
        })
    }

    fn renew(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            if self.index.load(Ordering::Relaxed) == 0 {
                return Ok(true);
            }
            let written = self
                .store
                .write(Method::PUT, &self.side, &self.query(), self.quiet_form())
                .await;
            match written {
                Ok(index) => {
                    self.index.store(index, Ordering::Relaxed);
                    Ok(true)
                }
                Err(Refused::Code(_)) => Ok(false),
                Err(Refused::Error(error)) => Err(error),
            }
        })
    }

    fn lost(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            loop {
                let (position, _) = self.looked().await?;
                self.stirred(position).await?;
                // Our own renewals stir it too, and one may be under way; so only that it is gone is certain here, and a
                // key that somebody else took makes the next renewal fail.
                if let (_, None) = self.looked().await? {
                    return Ok(());
                }
            }
        })
    }

    fn release(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.index.load(Ordering::Relaxed) == 0 {
                return Ok(());
            }
            let deleted = self
                .store
                .write(Method::DELETE, &self.side, &self.query(), String::new())
                .await;
            match deleted {
                Ok(_) | Err(Refused::Code(_)) => Ok(()),
                Err(Refused::Error(error)) => Err(error),
            }
        })
    }

    /// The protocol has no transactions over two keys, so the lock is asked for just before. What is written after a pause
    /// in between is still what the caller expects, or not written.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            let (_, created) = self.looked().await?;
            if created != Some(self.created.load(Ordering::Relaxed)) {
                return Ok(Fenced::Lost);
            }
            self.store
                .swap(key, expected, value)
                .await
                .map(Fenced::from)
        })
    }
}
