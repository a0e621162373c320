//! ZooKeeper, version 3.6 or later.
//!
//! Owns the translation of the trait into requests. Nodes are a tree of names here: a node with names below it and no data
//! is a directory and not listed, an empty one without is. Spec kv-stores 3.4, 5; cluster 3.
//! Read next: `link.rs` (the session), `wire.rs` (the bytes).

mod acl;
mod link;
mod wire;

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};
use tracing::debug;

use self::acl::Acl;
use self::link::{Address, Answered, Order};
use self::wire::{Reader, Stat, Writer, code, op};
use super::connect::Endpoint;
use super::keep::{self, Keepers, Kept};
use super::{
    Answer, Change, Error, Expected, Fenced, Kind, Listing, Lock, LockRequest, Pair, Position,
    Prefix, Seen, Settings, Store, Swap, Version, Watch, bounded,
};
use crate::limits::STORE_KEYS_MAX;

/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Nodes that are read with one request, at one moment.
const BATCH: usize = 500;

/// How often a tree is read until two readings are the same.
const READS_MAX: usize = 5;

/// How long a quiet watch waits before it asks whether the ensemble is still there.
const QUIET: Duration = Duration::from_secs(15);

/// One ensemble.
#[derive(Clone)]
pub(super) struct ZooKeeper(Arc<Shared>);

struct Shared {
    address: Address,
    /// Of the nodes that are made.
    acl: Acl,
    /// To the task that holds the connection, which begins with the first question.
    orders: OnceLock<mpsc::Sender<Order>>,
    keepers: Keepers,
    /// How long the ensemble remembers us.
    session: watch::Sender<Duration>,
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ZooKeeper").field(&self.0.address).finish()
    }
}

/// A node as it was read.
struct Node {
    data: Bytes,
    stat: Stat,
}

/// A reading of many nodes, one after the other.
struct Walk {
    nodes: Vec<(String, Node)>,
    /// How far the ensemble had come with the last one.
    zxid: i64,
    /// The newest transaction that changed one of them or their number.
    newest: i64,
    /// Every name that was listed was found, and as many of them as their parent said before: else some were removed, which
    /// what is left does not tell.
    is_steady: bool,
}

impl ZooKeeper {
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let endpoints = settings
            .endpoints
            .iter()
            .map(|written| Endpoint::parse(Kind::ZooKeeper, written))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self(Arc::new(Shared {
            address: Address {
                endpoints,
                credentials: settings.credentials.clone(),
            },
            acl: Acl::parse(&settings.acl)?,
            orders: OnceLock::new(),
            keepers: Keepers::default(),
            session: watch::Sender::new(link::SESSION_TIMEOUT),
        })))
    }

    /// Sends a request; the answer, whatever its code.
    async fn send(
        &self,
        kind: i32,
        body: Writer,
        watch: Option<(String, mpsc::Sender<String>)>,
    ) -> Result<Answered, Error> {
        let orders = self.0.orders.get_or_init(|| {
            let (orders, received) = mpsc::channel(link::ORDERS_MAX);
            let (address, session) = (self.0.address.clone(), self.0.session.clone());
            tokio::spawn(link::serve(address, session, received));
            orders
        });
        let (reply, answer) = oneshot::channel();
        let order = Order {
            kind,
            body: body.0,
            reply,
            watch,
        };
        let gone = || Error::Unavailable("the connection to ZooKeeper has ended".to_owned());
        let asked = async {
            orders.send(order).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        timeout(REQUEST_TIMEOUT, asked).await.unwrap_or_else(|_| {
            Err(Error::Unreachable(format!(
                "ZooKeeper did not answer within {REQUEST_TIMEOUT:?}"
            )))
        })
    }

    /// Waits until the member we speak to knows what the ensemble knew at this time; how far that was.
    async fn sync(&self) -> Result<i64, Error> {
        let answered = self
            .send(op::SYNC, Writer::default().text("/"), None)
            .await?;
        expect(answered, "/").map(|answered| answered.zxid)
    }

    async fn node(&self, path: &str) -> Result<Option<Node>, Error> {
        let body = Writer::default().text(path).boolean(false);
        let answered = self.send(op::GET_DATA, body, None).await?;
        if answered.code == code::NO_NODE {
            return Ok(None);
        }
        let answered = expect(answered, path)?;
        node_of(&mut Reader(&answered.body), &answered.body).map(Some)
    }

    /// Reads many nodes, a batch at a time, in their order.
    async fn nodes(&self, paths: &[String], zxid: &mut i64) -> Result<Vec<Option<Node>>, Error> {
        let mut nodes = Vec::with_capacity(paths.len());
        let read = |reader: &mut Reader<'_>, body: &Bytes| node_of(reader, body);
        for answer in self.batches(op::GET_DATA, paths).await? {
            *zxid = (*zxid).max(answer.zxid);
            each(&answer, read, &mut nodes)?;
        }
        same_length(paths, &nodes)?;
        Ok(nodes)
    }

    async fn children(&self, paths: &[String], zxid: &mut i64) -> Result<Vec<Vec<String>>, Error> {
        let mut lists = Vec::with_capacity(paths.len());
        for answer in self.batches(op::GET_CHILDREN, paths).await? {
            *zxid = (*zxid).max(answer.zxid);
            each(&answer, |reader, _| reader.texts(), &mut lists)?;
        }
        same_length(paths, &lists)?;
        // One that is gone by now has none.
        Ok(lists.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The answers to requests of many operations each, all of them on their way at once.
    async fn batches(&self, kind: i32, paths: &[String]) -> Result<Vec<Answered>, Error> {
        let asked: Vec<_> = paths
            .chunks(BATCH)
            .map(|paths| {
                let body = paths
                    .iter()
                    .fold(Writer::default(), |body, path| {
                        body.inner(kind).text(path).boolean(false)
                    })
                    .end();
                let store = self.clone();
                tokio::spawn(async move { store.send(op::MULTI_READ, body, None).await })
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            let answer = answer
                .await
                .map_err(|_| Error::Unavailable("a read was ended".to_owned()))??;
            answers.push(expect(answer, "a tree")?);
        }
        Ok(answers)
    }

    /// Every node at and below a path, level by level.
    async fn walk(&self, root: &str) -> Result<Walk, Error> {
        let (mut zxid, mut newest) = (0, 0);
        let mut is_steady = true;
        let mut all = Vec::new();
        let mut level = vec![root.to_owned()];
        while !level.is_empty() {
            let nodes = self.nodes(&level, &mut zxid).await?;
            let mut parents = Vec::new();
            let mut children = Vec::new();
            for (path, node) in level.into_iter().zip(nodes) {
                let Some(node) = node else {
                    is_steady = false;
                    continue;
                };
                newest = newest.max(node.stat.newest);
                if node.stat.children > 0 {
                    parents.push(path.clone());
                    children.push(node.stat.children);
                }
                all.push((path, node));
            }
            if all.len() > STORE_KEYS_MAX {
                return Err(Error::TooBig(format!(
                    "a tree of more than {STORE_KEYS_MAX} nodes"
                )));
            }
            let lists = self.children(&parents, &mut zxid).await?;
            is_steady &= lists
                .iter()
                .zip(children)
                .all(|(list, count)| usize::try_from(count) == Ok(list.len()));
            level = parents
                .iter()
                .zip(lists)
                .flat_map(|(parent, names)| {
                    let parent = parent.trim_end_matches('/').to_owned();
                    names
                        .into_iter()
                        .map(move |name| format!("{parent}/{name}"))
                })
                .filter(|path| !is_lock(path))
                .collect();
        }
        Ok(Walk {
            nodes: all,
            zxid,
            newest,
            is_steady,
        })
    }

    /// Reads a tree, which cannot be done at one moment, so somebody may write meanwhile. Where nothing in it is newer than the
    /// beginning of a reading, it is what there was at that moment; else it is read until two readings are the same.
    async fn tree(&self, below: &Prefix) -> Result<Listing, Error> {
        let mut before: Option<Listing> = None;
        for _ in 0..READS_MAX {
            let began = self.sync().await?;
            let walk = self.walk(root_of(below)).await?;
            let is_of_one_moment = walk.is_steady && walk.newest <= began;
            let pairs = walk
                .nodes
                .into_iter()
                .filter_map(|(path, node)| pair(below, &path, node).map(Ok));
            let listing = bounded(pairs, position(walk.zxid))?;
            if is_of_one_moment {
                return Ok(Listing {
                    position: position(began),
                    ..listing
                });
            }
            match before.replace(listing) {
                Some(earlier) if Some(&earlier.pairs) == before.as_ref().map(|now| &now.pairs) => {
                    return Ok(earlier);
                }
                _ => {}
            }
        }
        debug!("ZooKeeper's tree changes while it is read; the last reading counts");
        Ok(before.unwrap_or_default())
    }

    /// Makes a node; the path it got. Missing parents are made too.
    async fn create(
        &self,
        path: &str,
        data: &[u8],
        kind: i32,
    ) -> Result<(String, i32, i64), Error> {
        loop {
            let body = Writer::default()
                .text(path)
                .buffer(data)
                .rights(&self.0.acl)
                .int(kind);
            let answered = self.send(op::CREATE_2, body, None).await?;
            match answered.code {
                code::NODE_EXISTS => return Ok((String::new(), code::NODE_EXISTS, 0)),
                code::NO_NODE => {
                    let parent = parent_of(path)
                        .ok_or_else(|| Error::Protocol("ZooKeeper has no root".to_owned()))?;
                    // Somebody else may make it at the same time, which is as good.
                    Box::pin(self.create(parent, b"", wire::PERSISTENT)).await?;
                }
                _ => {
                    let answered = expect(answered, path)?;
                    let mut reader = Reader(&answered.body);
                    let made = reader.text()?.to_owned();
                    let stat = reader.stat()?;
                    return Ok((made, code::OK, stat.modified));
                }
            }
        }
    }

    async fn set(&self, path: &str, data: &[u8], version: i32) -> Result<Answered, Error> {
        let body = Writer::default().text(path).buffer(data).int(version);
        self.send(op::SET_DATA, body, None).await
    }

    async fn remove(&self, path: &str) -> Result<Answered, Error> {
        let body = Writer::default().text(path).int(-1);
        self.send(op::DELETE, body, None).await
    }

    async fn add_watch(&self, path: &str, mode: i32) -> Result<mpsc::Receiver<String>, Error> {
        let (events, received) = link::events();
        let body = Writer::default().text(path).int(mode);
        let watch = Some((path.to_owned(), events));
        let answered = self.send(op::ADD_WATCH, body, watch).await?;
        expect(answered, path)?;
        Ok(received)
    }
}

/// An answer that must be a success.
fn expect(answered: Answered, path: &str) -> Result<Answered, Error> {
    match answered.code {
        code::OK => Ok(answered),
        code::NO_AUTH | code::AUTH_FAILED => {
            Err(Error::Denied(format!("ZooKeeper: no right to {path}")))
        }
        code::INVALID_ACL => Err(Error::Denied(format!(
            "ZooKeeper: {path} cannot be given the rights of the option acl: an unknown scheme, or `auth` without a user"
        ))),
        code::UNIMPLEMENTED => Err(Error::Unsupported(
            "ZooKeeper before version 3.6 cannot be followed".to_owned(),
        )),
        code => Err(Error::Protocol(format!(
            "ZooKeeper: error {code} for {path}"
        ))),
    }
}

fn node_of(reader: &mut Reader<'_>, body: &Bytes) -> Result<Node, Error> {
    // Not a copy: the data stays where the answer is.
    let data = body.slice_ref(reader.buffer()?);
    let stat = reader.stat()?;
    Ok(Node { data, stat })
}

/// Takes the answers of one request of several apart; nothing for a node that is not there.
fn each<T>(
    answered: &Answered,
    read: impl Fn(&mut Reader<'_>, &Bytes) -> Result<T, Error>,
    all: &mut Vec<Option<T>>,
) -> Result<(), Error> {
    let mut reader = Reader(&answered.body);
    loop {
        let (kind, is_end, _) = (reader.int()?, reader.boolean()?, reader.int()?);
        if is_end {
            return Ok(());
        }
        if kind != -1 {
            all.push(Some(read(&mut reader, &answered.body)?));
            continue;
        }
        match reader.int()? {
            code::NO_NODE => all.push(None),
            code::NO_AUTH => {
                return Err(Error::Denied("ZooKeeper: no right to read".to_owned()));
            }
            code => return Err(Error::Protocol(format!("ZooKeeper: error {code}"))),
        }
    }
}

fn same_length<T>(paths: &[String], all: &[T]) -> Result<(), Error> {
    if paths.len() == all.len() {
        Ok(())
    } else {
        Err(Error::Protocol(
            "ZooKeeper: not as many answers as questions".to_owned(),
        ))
    }
}

fn position(zxid: i64) -> Position {
    Position(u64::try_from(zxid).unwrap_or_default())
}

fn version(stat: &Stat) -> Version {
    Version(u64::try_from(stat.modified).unwrap_or_default())
}

/// The node of a prefix.
fn root_of(below: &Prefix) -> &str {
    match below.name() {
        "" => "/",
        name => name,
    }
}

fn parent_of(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

/// Full keys are paths.
fn path_of(key: &str) -> String {
    let name = key.trim_matches('/');
    format!("/{name}")
}

/// A node with which somebody waits for a lock.
fn is_lock(path: &str) -> bool {
    path.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with("_c_") && name.contains("-lock-"))
}

/// Of a node in a listing; none of a directory.
fn pair(below: &Prefix, path: &str, node: Node) -> Option<Pair> {
    let key = below.path(path)?;
    (!node.data.is_empty() || node.stat.children == 0).then(|| Pair {
        key: key.to_owned(),
        version: version(&node.stat),
        value: node.data,
    })
}

impl Store for ZooKeeper {
    fn kind(&self) -> Kind {
        Kind::ZooKeeper
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(self.tree(below))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            self.sync().await?;
            let node = self.node(&path_of(key)).await?;
            Ok(node.map(|node| Pair {
                key: key.to_owned(),
                version: version(&node.stat),
                value: node.data,
            }))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let path = path_of(key);
            loop {
                if !key.ends_with('/') {
                    let answered = self.set(&path, value, -1).await?;
                    if answered.code != code::NO_NODE {
                        return expect(answered, &path).map(drop);
                    }
                }
                let (_, created, _) = self.create(&path, value, wire::PERSISTENT).await?;
                if created == code::OK || key.ends_with('/') {
                    return Ok(());
                }
                // Somebody else made it in between.
            }
        })
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let path = path_of(key);
            let answered = self.remove(&path).await?;
            match answered.code {
                code::NO_NODE => Ok(()),
                // It stays as a directory.
                code::NOT_EMPTY => expect(self.set(&path, b"", -1).await?, &path).map(drop),
                _ => expect(answered, &path).map(drop),
            }
        })
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        Box::pin(async move {
            let root = root_of(below);
            let Walk { nodes, .. } = self.walk(root).await?;
            // Deepest first: the walk went level by level.
            for (path, _) in nodes.iter().rev().filter(|(path, _)| path != "/") {
                let answered = self.remove(path).await?;
                if !matches!(answered.code, code::NO_NODE | code::NOT_EMPTY) {
                    expect(answered, path)?;
                }
            }
            Ok(())
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        Box::pin(async move {
            let path = path_of(key);
            let Expected::Version(expected) = expected else {
                let (_, created, zxid) = self.create(&path, value, wire::PERSISTENT).await?;
                return Ok(if created == code::OK {
                    Swap::Written(Version(u64::try_from(zxid).unwrap_or_default()))
                } else {
                    Swap::Conflict
                });
            };
            let node = self.node(&path).await?;
            let Some(node) = node.filter(|node| version(&node.stat) == expected) else {
                return Ok(Swap::Conflict);
            };
            let answered = self.set(&path, value, node.stat.version).await?;
            if matches!(answered.code, code::BAD_VERSION | code::NO_NODE) {
                return Ok(Swap::Conflict);
            }
            let answered = expect(answered, &path)?;
            Ok(Swap::Written(version(&Reader(&answered.body).stat()?)))
        })
    }

    fn watch(&self, below: &Prefix, _: Option<Position>) -> Box<dyn Watch> {
        Box::new(ZooKeeperWatch {
            store: self.clone(),
            below: below.clone(),
            state: WatchState::New,
            reading: None,
        })
    }

    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            let random = (0..4).try_fold(String::new(), |text, _| {
                getrandom::u32().map(|part| format!("{text}{part:08x}"))
            });
            let random =
                random.map_err(|error| Error::Unavailable(format!("no randomness: {error}")))?;
            let held = Held {
                store: self.clone(),
                path: path_of(&request.key),
                mark: format!("_c_{random}-lock-"),
                request: request.clone(),
            };
            // What the ensemble grants may be shorter than what is asked for.
            self.sync().await?;
            let began = Instant::now();
            let session = *self.0.session.borrow();
            keep::take_in_turn(&self.0.keepers, Arc::new(held), session, began).await
        })
    }

    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.0.keepers.settled())
    }
}

/// Events of everything below, and the values behind them. It begins with the whole tree: events are not kept for those who
/// were away.
struct ZooKeeperWatch {
    store: ZooKeeper,
    below: Prefix,
    state: WatchState,
    /// The question under way, kept when the caller stops waiting for a while.
    reading: Option<Reading>,
}

type Reading = Answer<'static, (Seen, Option<mpsc::Receiver<String>>)>;

enum WatchState {
    New,
    Open {
        events: mpsc::Receiver<String>,
        position: Position,
    },
}

impl ZooKeeperWatch {
    /// What is to be read now, after waiting for a reason to read.
    async fn wanted(&mut self) -> Result<Reading, Error> {
        let (store, below) = (self.store.clone(), self.below.clone());
        let WatchState::Open { events, position } = &mut self.state else {
            return Ok(Box::pin(async move {
                // First the watch, then the tree: what happens in between is seen twice, never missed.
                let events = store.add_watch(root_of(&below), wire::WATCH_BELOW).await?;
                let listing = store.tree(&below).await?;
                Ok((Seen::Whole(listing), Some(events)))
            }));
        };
        let position = *position;
        let mut paths = BTreeSet::new();
        match timeout(QUIET, events.recv()).await {
            Err(_) => {
                return Ok(Box::pin(async move {
                    store.sync().await?;
                    Ok((Seen::Quiet(position), None))
                }));
            }
            Ok(None) => {
                return Err(Error::Unreachable(
                    "the watch has ended with its connection".to_owned(),
                ));
            }
            Ok(Some(path)) => paths.insert(path),
        };
        while let Ok(path) = events.try_recv() {
            paths.insert(path);
        }
        Ok(Box::pin(async move {
            Ok((changes(&store, &below, paths, position).await?, None))
        }))
    }
}

/// The values behind events. A node's parent becomes a directory with its first child, and stops to be one with its last.
async fn changes(
    store: &ZooKeeper,
    below: &Prefix,
    paths: BTreeSet<String>,
    position: Position,
) -> Result<Seen, Error> {
    let parents = paths
        .iter()
        .filter_map(|path| parent_of(path))
        .map(str::to_owned);
    let all: BTreeSet<String> = parents.chain(paths.iter().cloned()).collect();
    let paths: Vec<String> = all
        .into_iter()
        .filter(|path| below.path(path).is_some() && !is_lock(path))
        .collect();
    let mut zxid = 0;
    let nodes = store.nodes(&paths, &mut zxid).await?;
    let changes = paths.iter().zip(nodes).filter_map(|(path, node)| {
        let key = below.path(path)?;
        let pair = node.and_then(|node| pair(below, path, node));
        Some(pair.map_or_else(|| Change::Delete(key.to_owned()), Change::Put))
    });
    Ok(Seen::Changes {
        changes: changes.collect(),
        position: self::position(zxid).max(position),
    })
}

impl Watch for ZooKeeperWatch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            if self.reading.is_none() {
                self.reading = Some(self.wanted().await?);
            }
            let reading = self.reading.as_mut().expect("it was just begun");
            let read = reading.as_mut().await;
            self.reading = None;
            let (seen, events) = read?;
            match (&mut self.state, events) {
                (state, Some(events)) => {
                    *state = WatchState::Open {
                        events,
                        position: seen.position(),
                    };
                }
                (WatchState::Open { position, .. }, None) => *position = seen.position(),
                (WatchState::New, None) => {}
            }
            Ok(seen)
        })
    }
}

/// A lock: the node with the lowest number among those who want it, each of which lives with its session.
struct Held {
    store: ZooKeeper,
    path: String,
    /// What the name of our node begins with.
    mark: String,
    request: LockRequest,
}

/// The number at the end of a name orders those who wait.
fn number(name: &str) -> Option<(&str, &str)> {
    let (_, number) = name.rsplit_once('-')?;
    Some((number, name))
}

impl Held {
    /// Everybody who wants the lock, the holder first.
    async fn queue(&self) -> Result<Vec<String>, Error> {
        let paths = [self.path.clone()];
        let mut names = self
            .store
            .children(&paths, &mut 0)
            .await?
            .pop()
            .unwrap_or_default();
        names.retain(|name| is_lock(name));
        names.sort_by(|one, other| number(one).cmp(&number(other)));
        Ok(names)
    }

    /// Waits until a node is not there.
    async fn gone(&self, path: &str) -> Result<(), Error> {
        let mut events = self.store.add_watch(path, wire::WATCH_NODE).await?;
        while self.store.node(path).await?.is_some() {
            if events.recv().await.is_none() {
                return Err(Error::Unreachable(
                    "the connection to ZooKeeper has ended".to_owned(),
                ));
            }
        }
        Ok(())
    }

    async fn ours(&self) -> Result<Option<String>, Error> {
        let queue = self.queue().await?;
        let ours = queue.into_iter().find(|name| name.starts_with(&self.mark));
        Ok(ours.map(|name| format!("{}/{name}", self.path)))
    }
}

impl Kept for Held {
    fn acquire(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            let place = format!("{}/{}", self.path, self.mark);
            self.store
                .create(&place, b"", wire::EPHEMERAL_SEQUENTIAL)
                .await?;
            loop {
                let queue = self.queue().await?;
                let ours = queue.iter().position(|name| name.starts_with(&self.mark));
                let Some(ours) = ours else {
                    return Err(Error::Unavailable("ZooKeeper ended our session".to_owned()));
                };
                let Some(before) = ours.checked_sub(1).map(|index| &queue[index]) else {
                    let value = self.request.value.as_bytes();
                    self.store.put(&self.request.key, value).await?;
                    return Ok(true);
                };
                self.gone(&format!("{}/{before}", self.path)).await?;
            }
        })
    }

    /// Anything that is answered keeps the session. Until our node exists there is nothing to lose.
    fn renew(&self) -> Answer<'_, bool> {
        Box::pin(async move {
            self.store.sync().await?;
            Ok(true)
        })
    }

    fn lost(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            match self.ours().await? {
                None => Ok(()),
                Some(path) => self.gone(&path).await,
            }
        })
    }

    fn release(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let Some(path) = self.ours().await? else {
                return Ok(());
            };
            let answered = self.store.remove(&path).await?;
            if answered.code == code::NO_NODE {
                return Ok(());
            }
            expect(answered, &path).map(drop)
        })
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            let Some(place) = self.ours().await? else {
                return Ok(Fenced::Lost);
            };
            let path = path_of(key);
            // Any version of our node will do: that it exists is what matters.
            let check = Writer::default().inner(op::CHECK).text(&place).int(-1);
            let body = match expected {
                Expected::Absent => {
                    if let Some(parent) = parent_of(&path) {
                        self.store.create(parent, b"", wire::PERSISTENT).await?;
                    }
                    let body = check.inner(op::CREATE_2).text(&path).buffer(value);
                    body.rights(&self.store.0.acl).int(wire::PERSISTENT)
                }
                Expected::Version(expected) => {
                    let node = self.store.node(&path).await?;
                    let Some(node) = node.filter(|node| version(&node.stat) == expected) else {
                        return Ok(Fenced::Conflict);
                    };
                    let body = check.inner(op::SET_DATA).text(&path).buffer(value);
                    body.int(node.stat.version)
                }
            };
            let answered = self.store.send(op::MULTI, body.end(), None).await?;
            done(answered, &path)
        })
    }
}

/// How a transaction of a check and a write ended. What it wrote has its number.
fn done(answered: Answered, path: &str) -> Result<Fenced, Error> {
    if answered.body.is_empty() {
        expect(answered, path)?;
        return Err(Error::Protocol(
            "ZooKeeper: a transaction without its result".to_owned(),
        ));
    }
    let mut reader = Reader(&answered.body);
    let mut next = || -> Result<Option<i32>, Error> {
        let (kind, _, _) = (reader.int()?, reader.boolean()?, reader.int()?);
        // Where one operation fails none is done, and each tells its part in that.
        (kind == -1).then(|| reader.int()).transpose()
    };
    match next()? {
        None => Ok(Fenced::Written(Version(position(answered.zxid).0))),
        Some(code::OK) => match next()? {
            Some(code::BAD_VERSION | code::NO_NODE | code::NODE_EXISTS) => Ok(Fenced::Conflict),
            code => Err(Error::Protocol(format!("ZooKeeper: error {code:?}"))),
        },
        Some(code::NO_NODE) => Ok(Fenced::Lost),
        Some(code) => Err(Error::Protocol(format!("ZooKeeper: error {code}"))),
    }
}
