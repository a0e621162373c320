//! Which directories are watched for one source, and which events matter.
//!
//! Owns the watches. Follows symbolic links step by step: the directory of every link on the way is watched, so that
//! swapping any of them is seen. Directories that were replaced are watched anew. Never reads a rule file.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crossbeam::channel::Sender;
use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tracing::{debug, warn};

use super::{Source, Wake, entries, is_rule_file};

/// Symbolic links followed on one path, as in Linux.
const LINKS_MAX: usize = 40;

/// What a file or directory looked like: if it is the same again, nothing was written.
#[derive(Debug, PartialEq, Eq)]
struct Print {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What there is to watch at the moment.
#[derive(Debug, Default, PartialEq, Eq)]
struct Scope {
    /// Directories that need a watch.
    directories: BTreeSet<PathBuf>,
    /// Every path passed through on the way to a file: an event for one of them matters.
    steps: BTreeSet<PathBuf>,
    /// Directories in which every event matters.
    trees: BTreeSet<PathBuf>,
    /// The files themselves.
    files: BTreeSet<PathBuf>,
}

/// The watches of one source.
pub(super) struct Watch {
    source: Source,
    watcher: Option<RecommendedWatcher>,
    /// The directory each watch was set on: another inode of the same name needs a new watch.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    scope: Scope,
    prints: BTreeMap<PathBuf, Print>,
    has_warned: bool,
}

impl Watch {
    pub(super) fn new(source: &Source, wakes: Sender<Wake>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if let Ok(event) = event {
                // Our own reading makes such events, and they change nothing.
                let is_reading = matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write));
                if !is_reading {
                    // When the queue is full, a read is about to come anyway.
                    let _ = wakes.try_send(Wake::Event(event));
                }
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                warn!(
                    "Cannot watch the file configuration, looking at it regularly instead: {error}"
                )
            })
            .ok();
        Self {
            source: source.clone(),
            watcher,
            armed: BTreeMap::new(),
            scope: Scope::default(),
            prints: BTreeMap::new(),
            has_warned: false,
        }
    }

    /// Brings the watches in line with what is there now. To be called before reading.
    pub(super) fn arm(&mut self) {
        // A directory made between listing and watching would be missed: list again until nothing is new.
        loop {
            let scope = scope(&self.source);
            let is_settled = !self.watch_all(&scope.directories);
            self.scope = scope;
            if is_settled {
                break;
            }
        }
        self.prints = prints(&self.scope);
    }

    /// Whether an event is about something we read.
    pub(super) fn concerns(&mut self, event: &notify::Event) -> bool {
        // The kernel could not keep up: anything may have happened.
        if event.need_rescan() {
            return true;
        }
        if matches!(
            event.kind,
            EventKind::Remove(_) | EventKind::Modify(notify::event::ModifyKind::Name(_))
        ) {
            // A watch on a directory that went away is dead, even if a new one has its name and inode.
            for path in &event.paths {
                self.armed.remove(path);
            }
        }
        event.paths.iter().any(|path| {
            self.scope.steps.contains(path)
                || self.scope.trees.iter().any(|tree| path.starts_with(tree))
        })
    }

    /// Whether something looks different from when it was last armed. For file systems that report no events.
    pub(super) fn has_changed(&self) -> bool {
        let scope = scope(&self.source);
        scope != self.scope || prints(&scope) != self.prints
    }

    /// Whether any watch was added.
    fn watch_all(&mut self, directories: &BTreeSet<PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        let gone: Vec<PathBuf> = self
            .armed
            .keys()
            .filter(|path| !directories.contains(*path))
            .cloned()
            .collect();
        for path in gone {
            self.armed.remove(&path);
            let _ = watcher.unwatch(&path);
        }
        let mut is_new = false;
        for path in directories {
            let Ok(metadata) = std::fs::metadata(path) else {
                continue;
            };
            let identity = (metadata.dev(), metadata.ino());
            if self.armed.get(path) == Some(&identity) {
                continue;
            }
            // The old watch may be on a directory that had this name before.
            let _ = watcher.unwatch(path);
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.armed.insert(path.clone(), identity);
                    is_new = true;
                }
                Err(error) if self.has_warned => {
                    debug!("Unable to watch {}: {error}", path.display())
                }
                Err(error) => {
                    self.has_warned = true;
                    warn!(
                        "Unable to watch {}, looking at it regularly instead: {error}",
                        path.display()
                    );
                }
            }
        }
        is_new
    }
}

fn scope(source: &Source) -> Scope {
    let mut scope = Scope::default();
    let path = std::path::absolute(source.path()).unwrap_or_else(|_| source.path().to_owned());
    match source {
        Source::File(_) | Source::Inline(_) => {
            if let Some(file) = follow(&path, &mut scope) {
                scope.files.insert(file);
            }
        }
        Source::Directory(_) => {
            if let Some(directory) = follow(&path, &mut scope) {
                tree(&directory, &mut scope);
            }
        }
    }
    scope
}

/// A directory whose every entry matters, and those below it.
fn tree(directory: &Path, scope: &mut Scope) {
    scope.trees.insert(directory.to_owned());
    scope.directories.insert(directory.to_owned());
    for (path, is_directory) in entries(directory).unwrap_or_default() {
        if is_directory {
            tree(&path, scope);
        } else if is_rule_file(&path)
            && let Some(file) = follow(&path, scope)
        {
            scope.files.insert(file);
        }
    }
}

/// Walks a path as the kernel does. Notes every step, and the directories in which a step could be replaced: that of the
/// file, the one above it, and that of every link. Returns where it ends, `None` if something on the way is not there
/// (then what is there is watched, to see the rest appear).
fn follow(path: &Path, scope: &mut Scope) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    let mut rest: VecDeque<OsString> = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        scope.steps.insert(next.clone());
        let Ok(metadata) = std::fs::symlink_metadata(&next) else {
            scope.directories.insert(at);
            return None;
        };
        if metadata.is_symlink() {
            links += 1;
            scope.directories.insert(at.clone());
            let target = std::fs::read_link(&next)
                .ok()
                .filter(|_| links <= LINKS_MAX)?;
            if target.is_absolute() {
                at = PathBuf::new();
            }
            for name in components(&target).into_iter().rev() {
                rest.push_front(name);
            }
        } else {
            at = next;
        }
    }
    scope
        .directories
        .extend(at.ancestors().skip(1).take(2).map(Path::to_owned));
    Some(at)
}

/// Names of a path, the root being one of them.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

fn prints(scope: &Scope) -> BTreeMap<PathBuf, Print> {
    // Directories too: their inode changes when they are replaced, their time when an entry comes or goes.
    let print = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        let print = Print {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        Some((path.clone(), print))
    };
    scope
        .files
        .iter()
        .chain(&scope.trees)
        .filter_map(print)
        .collect()
}
