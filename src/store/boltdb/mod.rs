//! A BoltDB file: the store that needs no server.
//!
//! Owns how the file is opened, for each operation anew as Traefik 1.7 does, so that another process can write in between;
//! and the looking that stands in for a watch. Spec kv-stores 3.5. Read next: `file.rs`, the format.

mod file;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tracing::warn;

use self::file::{Item, Items};
use super::{
    Answer, Error, Expected, Fence, Fenced, Kind, Listing, Lock, LockRequest, Pair, Position,
    Prefix, Seen, Settings, Store, Swap, Version, Watch, bounded,
};
use crate::limits::STORE_ANSWER_BYTES_MAX;

const BUCKET: &[u8] = b"traefik";

/// Bytes before each value: a number that the reference uses for conditional writes.
const INDEX_BYTES: usize = 8;

/// How long somebody else may hold the file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether they still do.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// How often a watch looks at the file that it has heard nothing of: not every file system tells of a write.
const WATCH_POLL: Duration = Duration::from_millis(500);
/// How many looks without news are reported as one.
const QUIET_POLLS: u32 = 30;

/// One file.
#[derive(Clone, Debug)]
pub(super) struct BoltDb {
    path: Arc<PathBuf>,
}

impl BoltDb {
    /// # Errors
    /// `Error::Settings`.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let path = settings
            .endpoints
            .first()
            .filter(|path| !path.is_empty())
            .ok_or_else(|| Error::Settings("BoltDB: endpoint: expected a path".to_owned()))?;
        // A list, as other stores take it: a file of that name was certainly not meant.
        if path.contains(',') {
            return Err(Error::Settings(
                "boltdb supports one endpoint and should be a file path".to_owned(),
            ));
        }
        Ok(Self {
            path: Arc::new(PathBuf::from(path)),
        })
    }

    /// Does something with the file off the thread of control, once nobody else has it. `None`: there is no file.
    async fn with<T: Send + 'static>(
        &self,
        access: Access,
        work: impl FnOnce(&mut File) -> Result<T, Error> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let until = Instant::now() + LOCK_TIMEOUT;
        let mut work = Some(work);
        loop {
            let path = Arc::clone(&self.path);
            let taken = work.take().expect("it comes back unless it was done");
            let tried = tokio::task::spawn_blocking(move || attempt(&path, access, taken))
                .await
                .map_err(|_| Error::Unavailable("the file was not read to its end".to_owned()))?;
            match tried {
                Attempt::Done(done) => return done.map(Some),
                Attempt::Missing => return Ok(None),
                Attempt::Taken(back) if Instant::now() < until => work = Some(back),
                Attempt::Taken(_) => {
                    return Err(Error::Unavailable(format!(
                        "{}: somebody else has held the file for {LOCK_TIMEOUT:?}",
                        self.path.display()
                    )));
                }
            }
            sleep(LOCK_POLL).await;
        }
    }

    /// All keys and the transaction that wrote last.
    async fn items(&self) -> Result<(Items, u64), Error> {
        let read = self.with(Access::Read, |file| {
            let bytes = contents(file)?;
            let file = file::File::new(&bytes)?;
            let transaction = file.meta.transaction;
            Ok((file.read(BUCKET)?, transaction))
        });
        Ok(read.await?.unwrap_or_default())
    }

    async fn tree(&self, below: &Prefix) -> Result<Listing, Error> {
        let (items, transaction) = self.items().await?;
        let pairs = items.iter().filter_map(|(key, item)| {
            let key = below.path(std::str::from_utf8(key).ok()?)?;
            pair(key, item).map(Ok)
        });
        bounded(pairs, Position(transaction))
    }

    /// One transaction. The change is given the number that goes before new values.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Items, u64) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let changed = self.with(Access::Write, |file| {
            let bytes = contents(file)?;
            let old = file::File::new(&bytes)?;
            let index = old.meta.transaction + 1;
            let mut result = None;
            let transaction = old.write(BUCKET, |items| result = Some(change(items, index)))?;
            write(file, &transaction).map_err(|error| failed(&error))?;
            Ok(result.expect("the change was made"))
        });
        changed
            .await?
            .ok_or_else(|| Error::Unavailable(format!("{}: the file is gone", self.path.display())))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// How one attempt to use the file ended.
enum Attempt<T, W> {
    Done(Result<T, Error>),
    Missing,
    /// Somebody else has it; the work comes back.
    Taken(W),
}

fn attempt<T, W: FnOnce(&mut File) -> Result<T, Error>>(
    path: &Path,
    access: Access,
    work: W,
) -> Attempt<T, W> {
    let named = |error: &io::Error| {
        let text = format!("{}: {error}", path.display());
        Err(match error.kind() {
            io::ErrorKind::PermissionDenied => Error::Denied(text),
            _ => Error::Unreachable(text),
        })
    };
    let mut file = match opened(path, access) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && access == Access::Read => {
            return Attempt::Missing;
        }
        Err(error) => return Attempt::Done(named(&error)),
    };
    let locked = match access {
        Access::Read => file.try_lock_shared(),
        Access::Write => file.try_lock(),
    };
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Attempt::Taken(work),
        Err(TryLockError::Error(error)) => return Attempt::Done(named(&error)),
    }
    // Closing the file gives the lock up.
    Attempt::Done(work(&mut file))
}

fn opened(path: &Path, access: Access) -> io::Result<File> {
    if access == Access::Read {
        return File::open(path);
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(folder)?;
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(path)
}

fn failed(error: &io::Error) -> Error {
    Error::Unavailable(format!("the BoltDB file: {error}"))
}

/// The bytes of the file; those of an empty one, if it has none yet.
fn contents(file: &mut File) -> Result<Vec<u8>, Error> {
    let length = file.metadata().map_err(|error| failed(&error))?.len();
    if length > STORE_ANSWER_BYTES_MAX as u64 {
        return Err(Error::TooBig(format!("a BoltDB file of {length} bytes")));
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))
        .and_then(|_| file.read_to_end(&mut bytes))
        .map_err(|error| failed(&error))?;
    if bytes.is_empty() {
        bytes = file::empty();
    }
    Ok(bytes)
}

/// First the pages, then the meta that makes them count.
fn write(file: &mut File, transaction: &file::Transaction) -> io::Result<()> {
    let page_bytes = transaction.page_bytes as u64;
    if file.metadata()?.len() == 0 {
        file.write_all(&file::empty())?;
    }
    let length = file.metadata()?.len().max(transaction.file_bytes as u64);
    file.set_len(length)?;
    for (id, page) in &transaction.pages {
        file.write_all_at(page, *id as u64 * page_bytes)?;
    }
    file.sync_data()?;
    let (id, page) = &transaction.meta;
    file.write_all_at(page, id * page_bytes)?;
    file.sync_data()
}

/// A value that is too short to have a number before it is as if it were not there.
fn pair(key: &str, item: &Item) -> Option<Pair> {
    let value = item.value.get(INDEX_BYTES..)?;
    (!item.is_bucket()).then(|| Pair {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        version: Version(file::fingerprint(&item.value)),
    })
}

fn item(index: u64, value: &[u8]) -> Item {
    Item::new([&index.to_le_bytes(), value].concat())
}

impl Store for BoltDb {
    fn kind(&self) -> Kind {
        Kind::BoltDb
    }

    fn list<'a>(&'a self, below: &'a Prefix) -> Answer<'a, Listing> {
        Box::pin(self.tree(below))
    }

    fn get<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Pair>> {
        Box::pin(async move {
            let (items, _) = self.items().await?;
            Ok(items.get(key.as_bytes()).and_then(|item| pair(key, item)))
        })
    }

    fn put<'a>(&'a self, key: &'a str, value: &'a [u8]) -> Answer<'a, ()> {
        let pairs = vec![(key.to_owned(), Bytes::copy_from_slice(value))];
        Box::pin(async move { self.put_all(&pairs).await })
    }

    /// In one transaction: each of them writes the whole tree anew.
    fn put_all<'a>(&'a self, pairs: &'a [(String, Bytes)]) -> Answer<'a, ()> {
        let pairs = pairs.to_vec();
        Box::pin(self.change(move |items, index| {
            for (key, value) in pairs {
                items.insert(key.into_bytes(), item(index, &value));
            }
        }))
    }

    fn delete<'a>(&'a self, key: &'a str) -> Answer<'a, ()> {
        let key = key.as_bytes().to_vec();
        Box::pin(self.change(move |items, _| {
            items.remove(&key);
        }))
    }

    fn delete_below<'a>(&'a self, below: &'a Prefix) -> Answer<'a, ()> {
        let root = below.root().as_bytes().to_vec();
        Box::pin(self.change(move |items, _| items.retain(|key, _| !key.starts_with(&root))))
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Swap> {
        let (key, value) = (key.to_owned(), value.to_vec());
        Box::pin(self.change(move |items, index| {
            let is = items
                .get(key.as_bytes())
                .and_then(|item| pair(&key, item))
                .map_or(Expected::Absent, |pair| Expected::Version(pair.version));
            if is != expected {
                return Swap::Conflict;
            }
            let item = item(index, &value);
            let version = Version(file::fingerprint(&item.value));
            items.insert(key.into_bytes(), item);
            Swap::Written(version)
        }))
    }

    fn watch(&self, below: &Prefix, _: Option<Position>) -> Box<dyn Watch> {
        let rung = Arc::default();
        Box::new(BoltWatch {
            store: self.clone(),
            below: below.clone(),
            _watcher: watcher(&self.path, &rung),
            rung,
            look: None,
            position: Position::default(),
            reading: None,
        })
    }

    /// A file is for one node, which is its own leader.
    fn lock<'a>(&'a self, request: &'a LockRequest) -> Answer<'a, Box<dyn Lock>> {
        Box::pin(async move {
            // For whoever looks into the file. Nothing depends on it.
            if let Err(error) = self.put(&request.key, request.value.as_bytes()).await {
                warn!("{} is not written: {error}", request.key);
            }
            Ok(Box::new(Alone(Arc::new(self.clone()))) as Box<dyn Lock>)
        })
    }
}

/// A lock that nobody else can want.
struct Alone(Arc<BoltDb>);

impl Fence for BoltDb {
    fn held_until(&self) -> Instant {
        Instant::now() + LOCK_TIMEOUT
    }

    fn swap<'a>(&'a self, key: &'a str, expected: Expected, value: &'a [u8]) -> Answer<'a, Fenced> {
        Box::pin(async move {
            Store::swap(self, key, expected, value)
                .await
                .map(Fenced::from)
        })
    }
}

impl Lock for Alone {
    fn fence(&self) -> Arc<dyn Fence> {
        Arc::<BoltDb>::clone(&self.0)
    }

    fn lost(&mut self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn release(self: Box<Self>) -> Answer<'static, ()> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Looks at the number of the last transaction, and reads the tree when it is another one.
struct BoltWatch {
    store: BoltDb,
    below: Prefix,
    /// Told when the file is written.
    rung: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
    /// What was there when the tree was last read.
    look: Option<Look>,
    position: Position,
    /// The wait under way, kept when the caller stops waiting for a while.
    reading: Option<Reading>,
}

type Reading = Answer<'static, (Look, Option<Listing>)>;

/// Which file, and its last transaction. `None`: there is none, or it is being written.
type Look = Option<(u64, u64)>;

/// What tells of writes to the file. `None`: the kernel cannot, or there is no folder yet.
fn watcher(path: &Path, rung: &Arc<Notify>) -> Option<RecommendedWatcher> {
    let name = path.file_name()?.to_owned();
    let folder = match path.parent()? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let rung = Arc::clone(rung);
    let ring = move |event: notify::Result<notify::Event>| {
        let is_written = event.is_ok_and(|event| {
            let is_ours = |path: &PathBuf| path.file_name() == Some(&name);
            // Our own looks make events too, and they change nothing.
            !event.kind.is_access() && event.paths.iter().any(is_ours)
        });
        if is_written {
            rung.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(ring).ok()?;
    watcher.watch(folder, RecursiveMode::NonRecursive).ok()?;
    Some(watcher)
}

fn look(path: &Path) -> Look {
    let file = File::open(path).ok()?;
    let mut bytes = vec![0; file::METAS_BYTES];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let meta = file::meta(&bytes[..length]).ok()?;
    Some((file.metadata().ok()?.ino(), meta.transaction))
}

impl Watch for BoltWatch {
    fn next(&mut self) -> Answer<'_, Seen> {
        Box::pin(async move {
            let (store, below, before) = (&self.store, &self.below, self.look);
            let reading = self.reading.get_or_insert_with(|| {
                let (store, below) = (store.clone(), below.clone());
                let rung = Arc::clone(&self.rung);
                Box::pin(async move {
                    let mut polls = 0;
                    loop {
                        let path = Arc::clone(&store.path);
                        let now = tokio::task::spawn_blocking(move || look(&path))
                            .await
                            .unwrap_or_default();
                        if before != Some(now) {
                            // First the look, then the tree: what happens in between is seen twice, never missed.
                            return Ok((now, Some(store.tree(&below).await?)));
                        }
                        polls += 1;
                        if polls >= QUIET_POLLS {
                            return Ok((now, None));
                        }
                        tokio::select! {
                            () = rung.notified() => {}
                            () = sleep(WATCH_POLL) => {}
                        }
                    }
                })
            });
            let read = reading.as_mut().await;
            self.reading = None;
            let (look, listing) = read?;
            self.look = Some(look);
            Ok(match listing {
                None => Seen::Quiet(self.position),
                Some(listing) => {
                    self.position = listing.position;
                    Seen::Whole(listing)
                }
            })
        })
    }
}
