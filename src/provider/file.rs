//! Dynamic configuration from TOML files: one file, a tree of files, or the static file itself.
//!
//! Owns the watch: directories are watched, never files, because editors and orchestrators replace files by rename and
//! by swapping symbolic links. Every trigger reads everything again; what did not change is not reported again, and
//! neither is a failure that was reported already. A failure keeps the last good configuration, also at start.
//! Runs on a thread of its own. Never waits for the control loop longer than it takes to hand an update over.
//! Source: spec file-provider. Read next: `watch.rs`, `template/mod.rs`.

mod watch;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use super::{Update, template};
use crate::config::{self, Dynamic};
use crate::config::global::FileProvider;

/// Name of this provider in logs, metrics and cross references.
pub const NAME: &str = "file";

/// A change is read once nothing has happened for this long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// A change is read at the latest this long after its first event, even if events never cease.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(1);

/// A file that has just become empty is believed after this long: more likely it is about to be written.
const EMPTY_WAIT: Duration = Duration::from_millis(500);

/// Beyond events, files are looked at this often: not every file system reports what happens on it.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes of one rule file. More is a mistake: a log file with the wrong name, a device.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Events that may wait. While that many wait we are about to read everything anyway.
const EVENTS_MAX: usize = 1024;

/// Where the rules are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Directory(PathBuf),
    File(PathBuf),
    /// The static configuration file. Not a template.
    Inline(PathBuf),
}

impl Source {
    /// `directory`, else `filename`, else the static file. `None` if there is none of them.
    pub fn select(options: &FileProvider, static_file: Option<&Path>) -> Option<Self> {
        if !options.directory.is_empty() {
            Some(Self::Directory(PathBuf::from(&options.directory)))
        } else if !options.filename.is_empty() {
            Some(Self::File(PathBuf::from(&options.filename)))
        } else {
            static_file.map(|path| Self::Inline(path.to_owned()))
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::File(path) | Self::Inline(path) => path,
        }
    }
}

/// What wakes the provider.
#[derive(Debug)]
enum Wake {
    Event(notify::Event),
    /// Read everything now, whether or not it seems to have changed.
    Look,
}

/// The running provider. It ends when this is dropped.
#[derive(Debug)]
pub struct Handle {
    wakes: Sender<Wake>,
}

impl Handle {
    /// Reads everything again now.
    pub fn look(&self) {
        // A full queue means that it is about to look.
        let _ = self.wakes.try_send(Wake::Look);
    }
}

/// Starts the provider: the first update follows as soon as the source can be read.
///
/// # Errors
/// The thread cannot be started.
pub fn start(source: Source, options: &FileProvider, updates: mpsc::Sender<Update>) -> io::Result<Handle> {
    let (wakes, receiver) = bounded(EVENTS_MAX);
    let watch = options.watch.then(|| wakes.clone());
    let provider = Provider {
        source,
        log_template: options.debug_log_generated_template,
        updates,
        read: None,
        failure: None,
        has_served: false,
    };
    thread::Builder::new().name("file provider".to_owned()).spawn(move || provider.run(watch, &receiver))?;
    Ok(Handle { wakes })
}

/// A file as it was read.
#[derive(Debug, PartialEq, Eq)]
struct Text {
    path: PathBuf,
    text: String,
}

/// Why the source cannot be loaded. The text names the file, and the line where it can.
#[derive(Debug, PartialEq, Eq)]
struct LoadError {
    gone: bool,
    message: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl LoadError {
    fn io(path: &Path, error: &io::Error) -> Self {
        Self { gone: error.kind() == io::ErrorKind::NotFound, message: format!("{}: {error}", path.display()) }
    }
}

struct Provider {
    source: Source,
    log_template: bool,
    updates: mpsc::Sender<Update>,
    /// What was read last, good or bad.
    read: Option<Vec<Text>>,
    /// The failure that was logged last, until something loads.
    failure: Option<LoadError>,
    has_served: bool,
}

/// The control loop has gone: there is nobody to report to.
struct Ended;

impl Provider {
    fn run(mut self, watch: Option<Sender<Wake>>, wakes: &Receiver<Wake>) {
        let mut watch = watch.map(|wakes| watch::Watch::new(&self.source, wakes));
        loop {
            // Watched before it is read, so that no change falls in between.
            if let Some(watch) = &mut watch {
                watch.arm();
            }
            if self.load().is_err() {
                return;
            }
            if !wait(watch.as_mut(), wakes, &self.updates) {
                return;
            }
            if self.has_become_empty() {
                debug!("The file configuration has just become empty, waiting for its new content");
                pause(wakes, EMPTY_WAIT);
            }
        }
    }

    /// Reads everything, and reports it if it is new.
    fn load(&mut self) -> Result<(), Ended> {
        let texts = match self.read() {
            Ok(texts) => texts,
            Err(error) => {
                self.read = None;
                self.fail(error);
                return Ok(());
            }
        };
        if self.read.as_ref() == Some(&texts) {
            return Ok(());
        }
        let decoded = self.decode(&texts);
        self.read = Some(texts);
        match decoded {
            Ok(dynamic) => {
                if self.failure.take().is_some() {
                    info!("The file configuration {} can be loaded again", self.source.path().display());
                }
                self.has_served = true;
                self.updates.blocking_send(Update { provider: NAME, dynamic }).map_err(|_| Ended)
            }
            Err(error) => {
                self.fail(error);
                Ok(())
            }
        }
    }

    /// One message for one failure, however often it is met.
    fn fail(&mut self, error: LoadError) {
        if self.failure.as_ref() == Some(&error) {
            return;
        }
        match (self.has_served, error.gone) {
            (true, true) => warn!("File configuration is gone, keeping the last one: {error}"),
            (true, false) => error!("Error loading file configuration, keeping the last good one: {error}"),
            (false, _) => error!("Error loading file configuration, waiting for it to become valid: {error}"),
        }
        self.failure = Some(error);
    }

    fn read(&self) -> Result<Vec<Text>, LoadError> {
        let mut texts = Vec::new();
        match &self.source {
            Source::Directory(path) => {
                for file in files(path)? {
                    texts.push(read_file(file)?);
                }
            }
            Source::File(path) | Source::Inline(path) => texts.push(read_file(path.clone())?),
        }
        Ok(texts)
    }

    /// Whether a file that had content has none now: more likely it is being rewritten.
    fn has_become_empty(&self) -> bool {
        let Some(before) = &self.read else { return false };
        let had_content = |path: &Path| before.iter().any(|text| text.path == path && !text.text.is_empty());
        match self.read() {
            Ok(texts) => texts.iter().any(|text| text.text.is_empty() && had_content(&text.path)),
            Err(_) => false,
        }
    }

    /// Expands, parses and merges. The first definition of a name wins.
    fn decode(&self, texts: &[Text]) -> Result<Dynamic, LoadError> {
        let mut merged = Dynamic::default();
        for Text { path, text } in texts {
            let failed = |message: String| LoadError { gone: false, message };
            let name = path.display().to_string();
            let dynamic = match &self.source {
                Source::Inline(_) => decode_text(&name, text).map_err(failed)?,
                Source::Directory(_) | Source::File(_) => {
                    let expanded = template::render(text).map_err(|error| failed(format!("{name}:{error}")))?;
                    if self.log_template {
                        debug!("Template content: {text}");
                        debug!("Rendering results: {expanded}");
                    }
                    decode_text(&name, &expanded).map_err(|error| {
                        let note = if expanded == *text { "" } else { " (line of the expanded template)" };
                        failed(format!("{error}{note}"))
                    })?
                }
            };
            merge(&mut merged, dynamic);
        }
        Ok(merged)
    }
}

fn decode_text(name: &str, text: &str) -> Result<Dynamic, String> {
    let (dynamic, diagnostics) = config::dynamic_from_toml(name, text).map_err(|error| error.to_string())?;
    for diagnostic in diagnostics {
        warn!("{diagnostic}");
    }
    Ok(dynamic)
}

fn merge(merged: &mut Dynamic, next: Dynamic) {
    use std::collections::btree_map::Entry;
    for (name, backend) in next.backends {
        match merged.backends.entry(name) {
            Entry::Vacant(place) => drop(place.insert(backend)),
            Entry::Occupied(first) => warn!("Backend {} already configured, skipping: {}", first.key(), backend.place),
        }
    }
    for (name, frontend) in next.frontends {
        match merged.frontends.entry(name) {
            Entry::Vacant(place) => drop(place.insert(frontend)),
            Entry::Occupied(first) => warn!("Frontend {} already configured, skipping: {}", first.key(), frontend.place),
        }
    }
    merged.tls.extend(next.tls);
}

/// The rule files of a tree, depth first, each directory in byte-wise order of names.
fn files(directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let mut found = Vec::new();
    for (path, is_directory) in entries(directory)? {
        if is_directory {
            found.extend(files(&path)?);
        } else if is_rule_file(&path) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Entries of a directory and whether each is a directory itself (a link to one is not), in byte-wise order. Directories
/// whose name begins with two dots are left out: Kubernetes keeps the versions of a mounted volume in them, and every file
/// in there is also linked from where it belongs.
fn entries(directory: &Path) -> Result<Vec<(PathBuf, bool)>, LoadError> {
    let failed = |error: io::Error| LoadError::io(directory, &error);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_directory = entry.file_type().map_err(failed)?.is_dir();
        if !(is_directory && entry.file_name().as_bytes().starts_with(b"..")) {
            found.push((entry.path(), is_directory));
        }
    }
    found.sort_unstable_by(|(one, _), (other, _)| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    Ok(found)
}

fn is_rule_file(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::as_bytes).unwrap_or_default();
    name.ends_with(b".toml") || name.ends_with(b".tmpl")
}

fn read_file(path: PathBuf) -> Result<Text, LoadError> {
    let failed = |error: &io::Error| LoadError::io(&path, error);
    let file = std::fs::File::open(&path).map_err(|error| failed(&error))?;
    if !file.metadata().map_err(|error| failed(&error))?.is_file() {
        return Err(failed(&io::Error::other("not a regular file")));
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| failed(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes"))));
    }
    Ok(Text { path, text })
}

/// Waits until something has changed and is quiet again. `false` if there is nobody left to tell.
fn wait(mut watch: Option<&mut watch::Watch>, wakes: &Receiver<Wake>, updates: &mpsc::Sender<Update>) -> bool {
    loop {
        match wakes.recv_timeout(LOOK_INTERVAL) {
            Ok(Wake::Look) => return true,
            Ok(Wake::Event(event)) => {
                if watch.as_mut().is_some_and(|watch| watch.concerns(&event)) {
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                if updates.is_closed() {
                    return false;
                }
                if watch.as_mut().is_some_and(|watch| watch.has_changed()) {
                    break;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    let latest = Instant::now() + QUIET_WAIT_MAX;
    let mut quiet_at = Instant::now() + QUIET;
    loop {
        match wakes.recv_deadline(quiet_at.min(latest)) {
            Ok(Wake::Look) => return true,
            Ok(Wake::Event(event)) => {
                if watch.as_mut().is_some_and(|watch| watch.concerns(&event)) {
                    quiet_at = Instant::now() + QUIET;
                }
            }
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// Lets time pass. Events of this time stay unread no longer than it lasts: everything is read after it.
fn pause(wakes: &Receiver<Wake>, duration: Duration) {
    let end = Instant::now() + duration;
    while wakes.recv_deadline(end).is_ok() {}
}
