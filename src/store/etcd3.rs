//! etcd's version 3 protocol, over gRPC.
//!
//! Owns one channel for each endpoint, and the token of a user. Keys are names without meaning here: `/a` and `a` differ.
//! Spec kv-stores 3.3, 5; cluster 3. Read next: `etcd3/message.rs`, the words of the protocol.

mod message;

use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::client::Grpc;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tracing::warn;

use super::connect::{Dialer, Endpoint, TlsSettings};
use super::http::causes;
use super::keep::{self, Keepers, Kept};
use super::{
    Answer, Change, Credentials, Error, Expected, Fenced, Kind, LOCK_MARK, Listing, Lock,
    LockRequest, Pair, Position, Prefix, Seen, Settings, Store, Swap, Version, Watch, bounded,
};
use crate::limits::STORE_ANSWER_BYTES_MAX;
use message::{
    AuthenticateRequest, AuthenticateResponse, Codec, Compare, DeleteRangeRequest,
    DeleteRangeResponse, KeepAliveRequest, KeepAliveResponse, KeyValue, LeaseGrantRequest,
    LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchRequest, WatchResponse,
};

/// Time for a request at one endpoint.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for one page of a tree.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Keys of one page.
const PAGE_KEYS: i64 = 10_000;

/// A connection with a question under way that says nothing for this long is asked whether it is alive...
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// ...and has this long to say so.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a quiet watch asks the store to say that nothing happened.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(15);

mod path {
    pub(super) const RANGE: &str = "/etcdserverpb.KV/Range";
    pub(super) const PUT: &str = "/etcdserverpb.KV/Put";
    pub(super) const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
    pub(super) const TXN: &str = "/etcdserverpb.KV/Txn";
    pub(super) const WATCH: &str = "/etcdserverpb.Watch/Watch";
    pub(super) const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
    pub(super) const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";
    pub(super) const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
    pub(super) const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
}

/// One etcd.
#[derive(Clone)]
pub(super) struct Etcd3(Arc<Shared>);

struct Shared {
    endpoints: Vec<Remote>,
    /// The one that answered last: it is asked first.
    preferred: AtomicUsize,
    credentials: Option<Credentials>,
    token: watch::Sender<Option<MetadataValue<Ascii>>>,
    /// Which cluster the last tree was of: another one has another history.
    cluster: AtomicU64,
    keepers: Keepers,
}

/// One endpoint.
struct Remote {
    /// Its URL, also for messages.
    name: String,
    target: tonic::transport::Endpoint,
    dialer: Dialer,
    /// Made with the first question: making it wants a runtime, and settings are checked before there is one.
    channel: OnceLock<Channel>,
}

impl Remote {
    fn channel(&self) -> Channel {
        self.channel
            .get_or_init(|| self.target.connect_with_connector_lazy(self.dialer.clone()))
            .clone()
    }
}

impl fmt::Debug for Etcd3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.endpoints.iter().map(|remote| &remote.name);
        f.debug_list().entries(names).finish()
    }
}

/// Whether a request may be sent to a second endpoint after the first one may have executed it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

impl Etcd3 {
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let is_tls = settings.tls.is_some();
        let tls = TlsSettings::new(&settings.tls.clone().unwrap_or_default(), None, Some("h2"))?;
        let dialer = Dialer::new(Some(tls));
        let endpoints = settings
            .endpoints
            .iter()
            .map(|written| {
                let endpoint = Endpoint::parse(Kind::EtcdV3, written)?;
                let scheme = if endpoint.is_tls.unwrap_or(is_tls) {
                    "https"
                } else {
                    "http"
                };
                let name = format!("{scheme}://{endpoint}");
                let target = Channel::from_shared(name.clone())
                    .map_err(|error| Error::Settings(format!("endpoint {written}: {error}")))?
                    .http2_keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT);
                Ok(Remote {
                    name,
                    target,
                    dialer: dialer.clone(),
                    channel: OnceLock::new(),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        Ok(Self(Arc::new(Shared {
            endpoints,
            preferred: AtomicUsize::new(0),
            credentials: settings.credentials.clone(),
            token: watch::Sender::new(None),
            cluster: AtomicU64::new(0),
            keepers: Keepers::default(),
        })))
    }

    /// Asks the endpoints in turn, the one that answered last first.
    async fn ask<Q, A>(
        &self,
        path: &'static str,
        question: Q,
        effect: Effect,
        limit: Duration,
    ) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.turn(effect, limit, |grpc| {
            unary(grpc, path, self.request(question.clone()))
        })
        .await
    }

    /// Opens a stream of answers; questions go into the sender.
    async fn open<Q, A>(
        &self,
        path: &'static str,
        first: Q,
    ) -> Result<(mpsc::Sender<Q>, Streaming<A>), Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.turn(Effect::Reads, REQUEST_TIMEOUT, |mut grpc| {
            let (questions, receiver) = mpsc::channel(2);
            questions
                .try_send(first.clone())
                .expect("the channel is new and has room");
            let mut request = self.request(ReceiverStream::new(receiver));
            // A member that has lost the others would otherwise go on saying that nothing happens.
            let yes = MetadataValue::from_static("true");
            request.metadata_mut().insert("hasleader", yes);
            async move {
                let response = grpc
                    .streaming(request, PathAndQuery::from_static(path), Codec::default())
                    .await?;
                Ok((questions, response.into_inner()))
            }
        })
        .await
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = &*self.0.token.borrow() {
            request.metadata_mut().insert("token", token.clone());
        }
        request
    }

    async fn turn<T, F>(
        &self,
        effect: Effect,
        limit: Duration,
        attempt: impl Fn(Grpc<Channel>) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        if self.0.credentials.is_some() && self.0.token.borrow().is_none() {
            self.authenticate().await?;
        }
        let mut is_authenticated_anew = false;
        let first = self.0.preferred.load(Ordering::Relaxed);
        let (mut said, mut offset) = (String::new(), 0);
        while let Some(index) = self.index(first, offset) {
            let remote = &self.0.endpoints[index];
            let status = match timeout(limit, ready(remote, &attempt)).await {
                Ok(Ok(answer)) => {
                    self.0.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("did not answer within {limit:?}")),
            };
            if status.code() == Code::Unauthenticated
                && self.0.credentials.is_some()
                && !is_authenticated_anew
            {
                // The token has had its time, or the store was started again.
                is_authenticated_anew = true;
                self.authenticate().await?;
                continue;
            }
            if let Some(error) = refusal(&status) {
                return Err(error);
            }
            let separator = if said.is_empty() { "" } else { "; " };
            write!(said, "{separator}{} {}", remote.name, words(&status))
                .expect("a string takes everything");
            if effect == Effect::Writes && !was_never_sent(&status) {
                break;
            }
            offset += 1;
        }
        Err(Error::Unreachable(said))
    }

    fn index(&self, first: usize, offset: usize) -> Option<usize> {
        let count = self.0.endpoints.len();
        (offset < count).then(|| (first + offset) % count)
    }

    /// Asks for a token, of the endpoints in turn.
    async fn authenticate(&self) -> Result<(), Error> {
        let Some(credentials) = &self.0.credentials else {
            return Ok(());
        };
        let question = AuthenticateRequest {
            name: credentials.user.clone(),
            password: credentials.password.clone(),
        };
        let mut said = String::new();
        for remote in &self.0.endpoints {
            let ask = |grpc| unary(grpc, path::AUTHENTICATE, Request::new(question.clone()));
            let attempt = ready::<AuthenticateResponse, _>(remote, &ask);
            let status = match timeout(REQUEST_TIMEOUT, attempt).await {
                Ok(Ok(answer)) => {
                    let token = answer.token.parse().map_err(|_| {
                        Error::Protocol("etcd: a token that no field can hold".to_owned())
                    })?;
                    self.0.token.send_replace(Some(token));
                    return Ok(());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("did not answer in time"),
            };
            if status.code() == Code::FailedPrecondition {
                warn!("etcd asks for no user; the one that is configured has no effect");
                return Ok(());
            }
            if let Some(error) = refusal(&status) {
                return Err(error);
            }
            let separator = if said.is_empty() { "" } else { "; " };
            write!(said, "{separator}{} {}", remote.name, words(&status))
                .expect("a string takes everything");
        }
        Err(Error::Unreachable(said))
    }

    async fn range(&self, question: RangeRequest) -> Result<RangeResponse, Error> {
        self.ask(path::RANGE, question, Effect::Reads, PAGE_TIMEOUT)
            .await
    }

    /// Page by page, all at the revision of the first.
    async fn tree(&self, below: &Prefix) -> Result<Listing, Error> {
        let end = end_of(below.root());
        let mut start = below.root().as_bytes().to_vec();
        let mut revision = 0;
        let mut pairs = Vec::new();
        let mut bytes = 0;
        loop {
            let page = self
                .range(RangeRequest {
                    key: start,
                    range_end: end.clone(),
                    limit: PAGE_KEYS,
                    revision,
                    ..RangeRequest::default()
                })
                .await?;
            let header = page.header.unwrap_or_default();
            if revision == 0 {
                revision = header.revision;
                self.0.cluster.store(header.cluster_id, Ordering::Relaxed);
            }
            let next = page.kvs.last().map(|last| [&last.key[..], b"\0"].concat());
            let sizes = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len());
            bytes += sizes.sum::<usize>();
            pairs.extend(page.kvs.into_iter().filter_map(|kv| pair(below, kv)));
            match next.filter(|_| page.more && bytes <= STORE_ANSWER_BYTES_MAX) {
                Some(next) => start = next,
                None => break,
            }
        }
        bounded(pairs.into_iter().map(Ok), position(revision))
    }

    async fn transact(&self, question: TxnRequest) -> Result<TxnResponse, Error> {
        self.ask(path::TXN, question, Effect::Writes, REQUEST_TIMEOUT)
            .await
    }

    /// Writes a key if all comparisons hold.
    async fn put_if(
        &self,
        compare: Vec<Compare>,
        key: &str,
        value: &[u8],
    ) -> Result<Option<Version>, Error> {
        let put = PutRequest {
            key: key.as_bytes().to_vec(),
            value: value.to_vec(),
            lease: 0,
        };
        let done = self
            .transact(TxnRequest {
                compare,
                success: vec![RequestOp::put(put)],
                failure: Vec::new(),
            })
            .await?;
        let revision = done.header.unwrap_or_default().revision;
        Ok(done.succeeded.then(|| version(revision)))
    }

    /// The key with a prefix that was the last one created before a revision.
    async fn last_before(&self, prefix: &str, created: i64) -> Result<Option<KeyValue>, Error> {
        let question = RangeRequest {
            key: prefix.as_bytes().to_vec(),
            range_end: end_of(prefix),
            limit: 1,
            sort_order: RangeRequest::DESCENDING,
            sort_target: RangeRequest::BY_CREATION,
            max_create_revision: created - 1,
            ..RangeRequest::default()
        };
        Ok(self.range(question).await?.kvs.pop())
    }

    /// A key as it is now.
    async fn key(&self, key: &str) -> Result<Option<KeyValue>, Error> {
        let question = RangeRequest {
            key: key.as_bytes().to_vec(),
            ..RangeRequest::default()
        };
        Ok(self.range(question).await?.kvs.pop())
    }

    /// Waits until a key is deleted, or was since a revision.
    async fn deleted(&self, key: &[u8], since: i64) -> Result<(), Error> {
        let question = WatchRequest::create(key.to_vec(), Vec::new(), since + 1);
        let (questions, mut answers) = self.open::<_, WatchResponse>(path::WATCH, question).await?;
        loop {
            let answer = heard(&mut answers).await?;
            if answer.events.iter().any(message::Event::is_delete) {
                drop(questions);
                return Ok(());
            }
            if answer.canceled {
                return Err(Error::Forgotten(answer.cancel_reason));
            }
        }
    }
}

/// Does something on a channel once it has a connection.
async fn ready<T, F>(remote: &Remote, attempt: &impl Fn(Grpc<Channel>) -> F) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut grpc = Grpc::new(remote.channel()).max_decoding_message_size(STORE_ANSWER_BYTES_MAX);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    attempt(grpc).await
}

async fn unary<Q, A>(
    mut grpc: Grpc<Channel>,
    path: &'static str,
    question: Request<Q>,
) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    grpc.unary(question, PathAndQuery::from_static(path), Codec::default())
        .await
        .map(tonic::Response::into_inner)
}

/// Of a pair in a tree; none of what is not in listings.
fn pair(below: &Prefix, kv: KeyValue) -> Option<Pair> {
    // A key that is no text cannot be one of ours.
    let key = std::str::from_utf8(&kv.key).ok()?;
    let path = below.path(key).filter(|path| !path.contains(LOCK_MARK))?;
    Some(Pair {
        key: path.to_owned(),
        value: Bytes::from(kv.value),
        version: version(kv.mod_revision),
    })
}

fn position(revision: i64) -> Position {
    Position(u64::try_from(revision).unwrap_or_default())
}

fn version(revision: i64) -> Version {
    Version(u64::try_from(revision).unwrap_or_default())
}

fn is_as(key: &str, expected: Expected) -> Compare {
    let key = key.as_bytes().to_vec();
    match expected {
        Expected::Absent => Compare::created(key, 0),
        Expected::Version(Version(revision)) => {
            Compare::modified(key, i64::try_from(revision).unwrap_or(i64::MAX))
        }
    }
}

/// The first key after every key that begins so.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    // Text never ends in 0xff, so one more is always there. All keys, if there is no prefix.
    match end.last_mut() {
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}

/// The next message of a stream; its end is an error.
async fn heard<A>(answers: &mut Streaming<A>) -> Result<A, Error> {
    match answers.message().await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Error::Unreachable("etcd ended the stream".to_owned())),
        Err(status) => Err(refusal(&status).unwrap_or_else(|| Error::Unreachable(words(&status)))),
    }
}

/// An answer that another endpoint would give too.
fn refusal(status: &Status) -> Option<Error> {
    let text = format!("etcd: {}", status.message());
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Some(Error::Denied(text)),
        // Wrong passwords, and no user where one is needed, are invalid arguments to etcd.
        Code::InvalidArgument
            if text.contains("authentication failed") || text.contains("user name is empty") =>
        {
            Some(Error::Denied(text))
        }
        Code::OutOfRange if text.contains("compacted") => Some(Error::Forgotten(text)),
        Code::OutOfRange if text.contains("too large") => Some(Error::TooBig(text)),
        // Too many requests, or no space left: answered, and not for what we asked.
        Code::ResourceExhausted => Some(Error::Unavailable(text)),
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Internal => None,
        _ => Some(Error::Protocol(text)),
    }
}

fn words(status: &Status) -> String {
    let cause = std::error::Error::source(status).map(causes);
    match cause {
        Some(cause) if !cause.contains(status.message()) => {
            format!("{}: {cause}", status.message())
        }
        Some(cause) => cause,
        None => status.message().to_owned(),
    }
}

/// Whether there was no connection to send it on.
fn was_never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause {
        if inner.is::<tonic::ConnectError>() {
            return true;
        }
        cause = inner.source();
    }
    false
}

impl Store for Etcd3 {
    fn kind(&self) -> Kind {
        Kind::EtcdV3
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(self.tree(below))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            Ok(self.key(key).await?.map(|kv| Pair {
                key: key.to_owned(),
                value: Bytes::from(kv.value),
                version: version(kv.mod_revision),
            }))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let question = PutRequest {
                key: key.as_bytes().to_vec(),
                value: value.to_vec(),
                lease: 0,
            };
            self.ask::<_, PutResponse>(path::PUT, question, Effect::Writes, REQUEST_TIMEOUT)
                .await
                .map(drop)
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(self.delete_range(key.as_bytes().to_vec(), Vec::new()))
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        Box::pin(self.delete_range(below.root().as_bytes().to_vec(), end_of(below.root())))
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        Box::pin(async move {
            let written = self.put_if(vec![is_as(key, expected)], key, value).await?;
            Ok(written.map_or(Swap::Conflict, Swap::Written))
        })
    }

    fn watch(&self, below: &Prefix, since: Option<Position>) -> Box<dyn Watch> {
        Box::new(Etcd3Watch {
            store: self.clone(),
            below: below.clone(),
            since,
            stream: None,
        })
    }

    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            let began = Instant::now();
            let question = LeaseGrantRequest {
                ttl: i64::try_from(request.ttl.as_secs()).unwrap_or(i64::MAX),
                id: 0,
            };
            let lease = self
                .ask::<_, LeaseGrantResponse>(
                    path::GRANT,
                    question,
                    Effect::Writes,
                    REQUEST_TIMEOUT,
                )
                .await?
                .id;
            let queue = format!("{}{LOCK_MARK}/", request.key);
            let held = Held {
                store: self.clone(),
                place: format!("{queue}{lease:x}"),
                queue,
                created: AtomicI64::new(0),
                lease,
                request: request.clone(),
            };
            keep::take_in_turn(&self.0.keepers, Arc::new(held), request.ttl, began).await
        })
    }

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.keepers.settled())
    }
}

impl Etcd3 {
    async fn delete_range(&self, key: Vec<u8>, range_end: Vec<u8>) -> Result<(), Error> {
        let question = DeleteRangeRequest { key, range_end };
        self.ask::<_, DeleteRangeResponse>(path::DELETE, question, Effect::Writes, PAGE_TIMEOUT)
            .await
            .map(drop)
    }
}

/// One stream of changes, from the revision after the tree's.
struct Etcd3Watch {
    store: Etcd3,
    below: Prefix,
    since: Option<Position>,
    stream: Option<Stream>,
}

struct Stream {
    questions: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    progress: tokio::time::Interval,
    is_answered: bool,
}

impl Etcd3Watch {
    async fn opened(&self, since: Position) -> Result<Stream, Error> {
        let root = self.below.root();
        let start = i64::try_from(since.0 + 1).unwrap_or(i64::MAX);
        let question = WatchRequest::create(root.as_bytes().to_vec(), end_of(root), start);
        let (questions, answers) = self.store.open(path::WATCH, question).await?;
        let mut progress = interval(PROGRESS_INTERVAL);
        progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
        progress.reset();
        Ok(Stream {
            questions,
            answers,
            progress,
            is_answered: true,
        })
    }

    /// What an answer says; nothing of one that only opens the stream.
    fn seen(&self, answer: WatchResponse, since: Position) -> Result<Option<Seen>, Error> {
        let header = answer.header.unwrap_or_default();
        if answer.compact_revision > 0 || answer.canceled {
            return Err(Error::Forgotten(format!(
                "etcd: the watch at revision {since} was ended: {}",
                answer.cancel_reason
            )));
        }
        if answer.created {
            // A revision that is yet to come is waited for in silence, so a store that has lost its data would never say
            // anything again.
            let cluster = self.store.0.cluster.load(Ordering::Relaxed);
            if position(header.revision) < since || header.cluster_id != cluster {
                return Err(Error::Forgotten(format!(
                    "etcd: its revision is {}, we had {since}",
                    header.revision
                )));
            }
            return Ok(None);
        }
        if answer.events.is_empty() {
            // The revision of a progress report may run ahead of events that are not sent yet (etcd before 3.5.8), so it is
            // no place to go on from.
            return Ok(Some(Seen::Quiet(since)));
        }
        let mut newest = since;
        let mut changes = Vec::new();
        for event in answer.events {
            let is_delete = event.is_delete();
            let Some(kv) = event.kv else { continue };
            newest = newest.max(position(kv.mod_revision));
            changes.extend(pair(&self.below, kv).map(|pair| {
                if is_delete {
                    Change::Delete(pair.key)
                } else {
                    Change::Put(pair)
                }
            }));
        }
        Ok(Some(Seen::Changes {
            changes,
            position: newest,
        }))
    }
}

impl Watch for Etcd3Watch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            let Some(since) = self.since else {
                let listing = self.store.tree(&self.below).await?;
                self.since = Some(listing.position);
                return Ok(Seen::Whole(listing));
            };
            loop {
                if self.stream.is_none() {
                    self.stream = Some(self.opened(since).await?);
                }
                let stream = self.stream.as_mut().expect("it was just opened");
                let answer = tokio::select! {
                    answer = heard(&mut stream.answers) => answer?,
                    _ = stream.progress.tick() => {
                        if !stream.is_answered {
                            return Err(Error::Unreachable(format!(
                                "etcd said nothing for {PROGRESS_INTERVAL:?}"
                            )));
                        }
                        stream.is_answered = false;
                        // A full channel means that the stream is stuck, and is found so at the next tick.
                        let _ = stream.questions.try_send(WatchRequest::progress());
                        continue;
                    }
                };
                stream.is_answered = true;
                stream.progress.reset();
                if let Some(seen) = self.seen(answer, since)? {
                    self.since = Some(seen.position());
                    return Ok(seen);
                }
            }
        })
    }
}

/// A lock: a place in a queue of keys with a lease each; the oldest holds it.
struct Held {
    store: Etcd3,
    /// What the keys of all who want it begin with.
    queue: String,
    /// Our key.
    place: String,
    /// The revision with which it was made. Zero: not yet.
    created: AtomicI64,
    lease: i64,
    request: LockRequest,
}

impl Kept for Held {
    fn acquire(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let place = PutRequest {
                key: self.place.clone().into_bytes(),
                value: Vec::new(),
                lease: self.lease,
            };
            let made = self
                .store
                .transact(TxnRequest {
                    compare: vec![Compare::created(place.key.clone(), 0)],
                    success: vec![RequestOp::put(place)],
                    failure: Vec::new(),
                })
                .await?;
            let revision = made.header.unwrap_or_default().revision;
            self.created.store(revision, Ordering::Relaxed);
            loop {
                let Some(before) = self.store.last_before(&self.queue, revision).await? else {
                    // Nobody is before us. Whether we are still there is looked at last, and by the write itself.
                    let ours = vec![Compare::created(self.place.clone().into_bytes(), revision)];
                    let value = self.request.value.as_bytes();
                    let written = self.store.put_if(ours, &self.request.key, value).await?;
                    return match written {
                        Some(_) => Ok(true),
                        None => Err(Error::Unavailable("etcd ended our lease".to_owned())),
                    };
                };
                match self
                    .store
                    .deleted(&before.key, before.create_revision)
                    .await
                {
                    Ok(()) | Err(Error::Forgotten(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        })
    }

    fn renew(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let question = KeepAliveRequest { id: self.lease };
            let (questions, mut answers) = self
                .store
                .open::<_, KeepAliveResponse>(path::KEEP_ALIVE, question)
                .await?;
            let answer = heard(&mut answers).await?;
            drop(questions);
            Ok(answer.ttl > 0)
        })
    }

    fn lost(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.store.key(&self.place).await? {
                None => Ok(()),
                Some(kv) => self.store.deleted(&kv.key, kv.create_revision).await,
            }
        })
    }

    fn release(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let question = LeaseRevokeRequest { id: self.lease };
            let revoked = self
                .store
                .ask::<_, LeaseRevokeResponse>(
                    path::REVOKE,
                    question,
                    Effect::Writes,
                    REQUEST_TIMEOUT,
                )
                .await;
            match revoked {
                // It had ended by itself.
                Err(Error::Protocol(text)) if text.contains("lease not found") => Ok(()),
                revoked => revoked.map(drop),
            }
        })
    }

    /// Our place can never be the oldest again once it is gone, so its being there is enough.
    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            let created = self.created.load(Ordering::Relaxed);
            let place = self.place.clone().into_bytes();
            let compare = vec![Compare::created(place, created), is_as(key, expected)];
            if let Some(version) = self.store.put_if(compare, key, value).await? {
                return Ok(Fenced::Written(version));
            }
            Ok(match self.store.key(&self.place).await? {
                Some(kv) if kv.create_revision == created => Fenced::Conflict,
                _ => Fenced::Lost,
            })
        })
    }
}
