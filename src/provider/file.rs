//! Dynamic configuration from TOML files: one file, a tree of files, or the static file itself.
//!
//! Owns the watch: directories are watched, never files, because editors and orchestrators replace files by rename and
//! by swapping symbolic links. Every trigger reads everything again; what did not change is not reported again, and
//! neither is a failure that was reported already. A failure keeps the last good configuration, also at start.
//! Runs on a thread of its own. Never waits for the control loop longer than it takes to hand an update over.
//! Source: spec file-provider. Read next: `watch.rs`, `template/mod.rs`.

#![allow(
    clippy::disallowed_methods,
    reason = "a thread of the control plane waits by the clock of the machine"
)]

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

use super::{Board, Update, template};
use crate::config::global::FileProvider;
use crate::config::{self, Diagnostic, Dynamic, Place, Problems};

/// Name of this provider in logs, metrics and cross references.
pub const NAME: &str = "file";

/// A change is read once nothing has happened for this long: editors write in several steps.
const QUIET: Duration = Duration::from_millis(50);

/// A change is read at the latest this long after its first event, even if events never cease.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(500);

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
pub fn start(
    source: Source,
    options: &FileProvider,
    updates: mpsc::Sender<Update>,
    board: Board,
) -> io::Result<Handle> {
    let (wakes, receiver) = bounded(EVENTS_MAX);
    let watch = options.watch.then(|| wakes.clone());
    let mut provider = Provider::new(
        source,
        options.debug_log_generated_template,
        LOOK_INTERVAL,
        updates,
    );
    provider.board = board;
    thread::Builder::new()
        .name("file provider".to_owned())
        .spawn(move || provider.run(watch, &receiver))?;
    Ok(Handle { wakes })
}

/// The rules of a source as they are now, with the paths of certificates as they are written.
///
/// # Errors
/// Something cannot be read or used; the text says what and where.
pub fn read_once(source: Source) -> Result<Dynamic, String> {
    let (updates, _) = mpsc::channel(1);
    let provider = Provider::new(source, false, LOOK_INTERVAL, updates);
    let mut problems = Problems::default();
    let read = provider.read();
    let read = read.and_then(|texts| provider.decode(&texts, &mut problems));
    read.map_err(|error| error.to_string())
}

/// The rules of a source as they are now, with the certificates that they name.
///
/// # Errors
/// As [`read_once`].
pub fn read_whole(source: Source) -> Result<Dynamic, String> {
    let mut dynamic = read_once(source)?;
    inline(&mut dynamic);
    Ok(dynamic)
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
        Self {
            gone: error.kind() == io::ErrorKind::NotFound,
            message: format!("{}: {error}", path.display()),
        }
    }
}

struct Provider {
    source: Source,
    log_template: bool,
    /// `LOOK_INTERVAL`, except in tests.
    look_interval: Duration,
    updates: mpsc::Sender<Update>,
    /// What was read last, good or bad.
    read: Option<Vec<Text>>,
    /// What certificates named when it was read.
    named: Vec<Named>,
    /// The failure that was logged last, until something loads.
    failure: Option<LoadError>,
    has_served: bool,
    /// Where what cannot be used is told.
    board: Board,
}

/// The control loop has gone: there is nobody to report to.
struct Ended;

impl Provider {
    fn new(
        source: Source,
        log_template: bool,
        look_interval: Duration,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            source,
            log_template,
            look_interval,
            updates,
            read: None,
            named: Vec::new(),
            failure: None,
            has_served: false,
            board: Board::default(),
        }
    }

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
            if !self.wait(watch.as_mut(), wakes) {
                return;
            }
            if self.has_become_empty() {
                debug!("The file configuration has just become empty, waiting for its new content");
                pause(wakes, EMPTY_WAIT);
            }
        }
    }

    /// Waits until something has changed and is quiet again. `false` if there is nobody left to tell.
    fn wait(&self, mut watch: Option<&mut watch::Watch>, wakes: &Receiver<Wake>) -> bool {
        loop {
            match wakes.recv_timeout(self.look_interval) {
                Ok(Wake::Look) => return true,
                Ok(Wake::Event(event)) => {
                    if watch.as_mut().is_some_and(|watch| watch.concerns(&event)) {
                        break;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    if self.updates.is_closed() {
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
        let is_as_named = |(path, text): &Named| text_at(path) == *text;
        if self.read.as_ref() == Some(&texts) && self.named.iter().all(is_as_named) {
            return Ok(());
        }
        let mut problems = Problems::default();
        let decoded = self.decode(&texts, &mut problems);
        self.read = Some(texts);
        match decoded {
            Ok(mut dynamic) => {
                self.board.tell(NAME, problems);
                self.named = inline(&mut dynamic);
                if self.failure.take().is_some() {
                    info!(
                        "The file configuration {} can be loaded again",
                        self.source.path().display()
                    );
                }
                self.has_served = true;
                self.updates
                    .blocking_send(Update {
                        provider: NAME,
                        dynamic,
                    })
                    .map_err(|_| Ended)
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
            (true, false) => {
                error!("Error loading file configuration, keeping the last good one: {error}")
            }
            (false, _) => {
                error!("Error loading file configuration, waiting for it to become valid: {error}")
            }
        }
        // What was read before goes on, so this stands beside whatever was wrong with that.
        let (place, message) = error
            .message
            .split_once(": ")
            .unwrap_or(("", &error.message));
        let mut problems = self.board.told().remove(NAME).unwrap_or_default();
        problems
            .errors
            .retain(|told| !matches!(told.place, Place::Key(_)));
        problems.errors.push(Diagnostic {
            place: Place::Key(place.into()),
            message: message.to_owned(),
        });
        self.board.tell(NAME, problems);
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
        let Some(before) = &self.read else {
            return false;
        };
        let had_content = |path: &Path| {
            before
                .iter()
                .any(|text| text.path == path && !text.text.is_empty())
        };
        match self.read() {
            Ok(texts) => texts
                .iter()
                .any(|text| text.text.is_empty() && had_content(&text.path)),
            Err(_) => false,
        }
    }

    /// Expands, parses and merges. The first definition of a name wins.
    fn decode(&self, texts: &[Text], problems: &mut Problems) -> Result<Dynamic, LoadError> {
        let mut merged = Dynamic::default();
        for Text { path, text } in texts {
            let failed = |message: String| LoadError {
                gone: false,
                message,
            };
            let name = path.display().to_string();
            let dynamic = match &self.source {
                Source::Inline(_) => decode_text(&name, text, problems).map_err(failed)?,
                Source::Directory(_) | Source::File(_) => {
                    let expanded = template::render(text)
                        .map_err(|error| failed(format!("{name}:{error}")))?;
                    if self.log_template {
                        debug!("Template content: {text}");
                        debug!("Rendering results: {expanded}");
                    }
                    decode_text(&name, &expanded, problems).map_err(|error| {
                        let note = if expanded == *text {
                            ""
                        } else {
                            " (line of the expanded template)"
                        };
                        failed(format!("{error}{note}"))
                    })?
                }
            };
            merge(&mut merged, dynamic, problems);
        }
        for diagnostic in &problems.warnings {
            warn!("{diagnostic}");
        }
        Ok(merged)
    }
}

fn decode_text(name: &str, text: &str, problems: &mut Problems) -> Result<Dynamic, String> {
    let (dynamic, diagnostics) =
        config::dynamic_from_toml(name, text).map_err(|error| error.to_string())?;
    problems.warnings.extend(diagnostics);
    Ok(dynamic)
}

/// A file that a certificate names, and its text; `None` if there is no such file.
pub(super) type Named = (String, Option<String>);

/// Puts the text of certificates in the place of their paths: a configuration holds them as they were when it was read,
/// so that a renewed certificate is a changed configuration. Returns what was read.
pub(super) fn inline(dynamic: &mut Dynamic) -> Vec<Named> {
    let mut named = Vec::new();
    for entry in &mut dynamic.tls {
        let pair = &mut entry.certificate;
        for written in [&mut pair.cert_file, &mut pair.key_file] {
            if written.contains('\n') {
                continue;
            }
            let text = text_at(written);
            let path = match &text {
                Some(text) => std::mem::replace(written, text.clone()),
                None => written.clone(),
            };
            named.push((path, text));
        }
    }
    named
}

fn text_at(path: &str) -> Option<String> {
    match std::fs::read(path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                error!("{path}: {error}");
            }
            None
        }
    }
}

fn merge(merged: &mut Dynamic, next: Dynamic, problems: &mut Problems) {
    use std::collections::btree_map::Entry;
    for (name, backend) in next.backends {
        match merged.backends.entry(name) {
            Entry::Vacant(place) => drop(place.insert(backend)),
            Entry::Occupied(first) => problems.warnings.push(Diagnostic {
                message: format!("Backend {} already configured, skipping", first.key()),
                place: backend.place.clone(),
            }),
        }
    }
    for (name, frontend) in next.frontends {
        match merged.frontends.entry(name) {
            Entry::Vacant(place) => drop(place.insert(frontend)),
            Entry::Occupied(first) => problems.warnings.push(Diagnostic {
                message: format!("Frontend {} already configured, skipping", first.key()),
                place: frontend.place.clone(),
            }),
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
    found.sort_unstable_by(|(one, _), (other, _)| {
        one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes())
    });
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
    file.take(FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| failed(&error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failed(&io::Error::other(format!(
            "larger than {FILE_BYTES_MAX} bytes"
        ))));
    }
    Ok(Text { path, text })
}

/// Lets time pass. Events of this time stay unread no longer than it lasts: everything is read after it.
fn pause(wakes: &Receiver<Wake>, duration: Duration) {
    let end = Instant::now() + duration;
    while wakes.recv_deadline(end).is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A provider that watches a real folder.
    struct Watched {
        folder: tempfile::TempDir,
        runtime: tokio::runtime::Runtime,
        updates: mpsc::Receiver<Update>,
        handle: Handle,
    }

    fn rules(names: &[&str]) -> String {
        names
            .iter()
            .map(|name| format!("[backends.{name}.servers.s]\nurl = \"http://127.0.0.1:1\"\n"))
            .collect()
    }

    /// So long that only events can tell of a change.
    const NEVER: Duration = Duration::from_secs(3600);

    impl Watched {
        /// Prepares a folder and watches `source` in it, by events alone.
        fn new(prepare: impl FnOnce(&Path), source: impl FnOnce(&Path) -> Source) -> Self {
            Self::looking(NEVER, prepare, source)
        }

        fn looking(
            look_interval: Duration,
            prepare: impl FnOnce(&Path),
            source: impl FnOnce(&Path) -> Source,
        ) -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            prepare(folder.path());
            let (sender, updates) = mpsc::channel(16);
            let (wakes, receiver) = bounded(EVENTS_MAX);
            let provider = Provider::new(source(folder.path()), false, look_interval, sender);
            // Without events the watch only compares.
            let (deaf, _) = bounded(0);
            let watch = Some(if look_interval == NEVER {
                wakes.clone()
            } else {
                deaf
            });
            thread::spawn(move || provider.run(watch, &receiver));
            let handle = Handle { wakes };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime");
            Self {
                folder,
                runtime,
                updates,
                handle,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).expect("writes");
        }

        /// Waits until the names of the backends are these. What comes before is passed over: a change in several steps
        /// may be seen in several.
        fn expect(&mut self, names: &[&str]) {
            let mut seen = Vec::new();
            let wait = async {
                loop {
                    let update = self.updates.recv().await.expect("the provider lives");
                    let found: Vec<String> = update.dynamic.backends.into_keys().collect();
                    if found == names {
                        return;
                    }
                    seen.push(found);
                }
            };
            let outcome = self
                .runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(20), wait).await });
            assert!(outcome.is_ok(), "{names:?} never came, but {seen:?}");
        }
    }

    fn file(folder: &Path) -> Source {
        Source::File(folder.join("rules.toml"))
    }

    fn directory(folder: &Path) -> Source {
        Source::Directory(folder.join("rules"))
    }

    #[test]
    fn a_file_replaced_in_every_way_is_seen() {
        let mut watched = Watched::new(
            |folder| fs::write(folder.join("rules.toml"), rules(&["a"])).expect("writes"),
            file,
        );
        watched.expect(&["a"]);
        // In place.
        watched.write("rules.toml", &rules(&["b"]));
        watched.expect(&["b"]);
        // By rename, as editors and configuration management do.
        watched.write("new", &rules(&["c"]));
        fs::rename(watched.path("new"), watched.path("rules.toml")).expect("renames");
        watched.expect(&["c"]);
        // Deleted, then made again.
        fs::remove_file(watched.path("rules.toml")).expect("removes");
        watched.write("rules.toml", &rules(&["d"]));
        watched.expect(&["d"]);
        // Broken, then whole.
        watched.write("rules.toml", "[backends");
        watched.write("rules.toml", &rules(&["e"]));
        watched.expect(&["e"]);
        // By a link to a folder far away.
        fs::create_dir_all(watched.path("some/where/else")).expect("makes");
        watched.write("some/where/else/real.toml", &rules(&["f"]));
        symlink("some/where/else/real.toml", watched.path("link")).expect("links");
        fs::rename(watched.path("link"), watched.path("rules.toml")).expect("renames");
        watched.expect(&["f"]);
        // What the link leads to is replaced.
        watched.write("some/where/else/next", &rules(&["g"]));
        fs::rename(
            watched.path("some/where/else/next"),
            watched.path("some/where/else/real.toml"),
        )
        .expect("renames");
        watched.expect(&["g"]);
        // The link is replaced.
        watched.write("some/where/else/other.toml", &rules(&["h"]));
        symlink("some/where/else/other.toml", watched.path("link")).expect("links");
        fs::rename(watched.path("link"), watched.path("rules.toml")).expect("renames");
        watched.expect(&["h"]);
        // Emptied: no rules.
        watched.write("rules.toml", "");
        watched.expect(&[]);
    }

    #[test]
    fn a_volume_of_kubernetes_is_seen_changing() {
        let version = |folder: &Path, name: &str, backend: &str| {
            fs::create_dir(folder.join(name)).expect("makes");
            fs::write(folder.join(name).join("rules.toml"), rules(&[backend])).expect("writes");
        };
        let swap = |folder: &Path, name: &str| {
            symlink(name, folder.join("..data_tmp")).expect("links");
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("renames");
        };
        let prepare = |folder: &Path| {
            let volume = folder.join("rules");
            fs::create_dir(&volume).expect("makes");
            version(&volume, "..2026_1", "a");
            swap(&volume, "..2026_1");
            symlink("..data/rules.toml", volume.join("rules.toml")).expect("links");
        };
        for source in [directory as fn(&Path) -> Source, |folder| {
            Source::File(folder.join("rules/rules.toml"))
        }] {
            let mut watched = Watched::new(prepare, source);
            watched.expect(&["a"]);
            let volume = watched.path("rules");
            version(&volume, "..2026_2", "b");
            swap(&volume, "..2026_2");
            fs::remove_dir_all(volume.join("..2026_1")).expect("removes");
            watched.expect(&["b"]);
            version(&volume, "..2026_3", "c");
            swap(&volume, "..2026_3");
            watched.expect(&["c"]);
        }
    }

    #[test]
    fn a_tree_is_seen_changing_in_its_depth() {
        let prepare = |folder: &Path| {
            fs::create_dir_all(folder.join("rules/b/deep")).expect("makes");
            fs::write(folder.join("rules/a.toml"), rules(&["a"])).expect("writes");
            fs::write(folder.join("rules/b/deep/.hidden.tmpl"), rules(&["b"])).expect("writes");
            fs::write(folder.join("rules/x.TOML"), rules(&["x"])).expect("writes");
        };
        let mut watched = Watched::new(prepare, directory);
        watched.expect(&["a", "b"]);
        watched.write("rules/b/deep/.hidden.tmpl", &rules(&["bb"]));
        watched.expect(&["a", "bb"]);
        fs::create_dir(watched.path("rules/c")).expect("makes");
        watched.write("rules/c/c.toml", &rules(&["c"]));
        watched.expect(&["a", "bb", "c"]);
        fs::remove_dir_all(watched.path("rules/b")).expect("removes");
        watched.expect(&["a", "c"]);
        // The whole directory replaced by another one.
        fs::create_dir(watched.path("next")).expect("makes");
        watched.write("next/n.toml", &rules(&["n"]));
        fs::rename(watched.path("rules"), watched.path("old")).expect("renames");
        fs::rename(watched.path("next"), watched.path("rules")).expect("renames");
        watched.expect(&["n"]);
        watched.write("rules/n.toml", &rules(&["nn"]));
        watched.expect(&["nn"]);
        // Removed, made again, filled.
        fs::remove_dir_all(watched.path("rules")).expect("removes");
        fs::create_dir(watched.path("rules")).expect("makes");
        watched.write("rules/z.toml", &rules(&["z"]));
        watched.expect(&["z"]);
        // One broken file keeps everything as it was; mended, everything comes.
        watched.write("rules/y.toml", "{{ nofunc }}");
        watched.write("rules/z.toml", &rules(&["zz"]));
        watched.write("rules/y.toml", &rules(&["y"]));
        watched.expect(&["y", "zz"]);
        for name in ["rules/y.toml", "rules/z.toml"] {
            fs::remove_file(watched.path(name)).expect("removes");
        }
        watched.expect(&[]);
    }

    #[test]
    fn without_events_a_change_is_seen_by_looking() {
        let prepare = |folder: &Path| {
            fs::create_dir_all(folder.join("rules/b")).expect("makes");
            fs::write(folder.join("rules/a.toml"), rules(&["a"])).expect("writes");
        };
        let mut watched = Watched::looking(Duration::from_millis(20), prepare, directory);
        watched.expect(&["a"]);
        watched.write("rules/b/b.toml", &rules(&["b"]));
        watched.expect(&["a", "b"]);
        watched.write("rules/a.toml", &rules(&["c"]));
        watched.expect(&["b", "c"]);
    }

    #[test]
    fn a_bad_start_heals() {
        let mut watched = Watched::new(
            |_| {},
            |folder| Source::File(folder.join("not/there/yet/rules.toml")),
        );
        fs::create_dir_all(watched.path("not/there/yet")).expect("makes");
        watched.write("not/there/yet/rules.toml", "broken [");
        watched.write("not/there/yet/rules.toml", &rules(&["a"]));
        watched.expect(&["a"]);
        watched.handle.look();
        watched.write("not/there/yet/rules.toml", &rules(&["b"]));
        watched.expect(&["b"]);
    }

    fn provider(source: Source) -> (Provider, mpsc::Receiver<Update>) {
        let (updates, receiver) = mpsc::channel(16);
        (Provider::new(source, false, NEVER, updates), receiver)
    }

    #[test]
    fn the_first_definition_of_a_name_wins() {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = |url: &str| format!("[backends.b.servers.s]\nurl = \"{url}\"\n");
        fs::write(folder.path().join("a.toml"), backend("http://first")).expect("writes");
        fs::write(folder.path().join("b.toml"), backend("http://second")).expect("writes");
        let (mut provider, mut updates) = provider(Source::Directory(folder.path().to_owned()));
        assert!(provider.load().is_ok());
        let update = updates.try_recv().expect("an update");
        assert_eq!(
            update.dynamic.backends["b"].servers["s"].url,
            "http://first"
        );
        assert!(provider.load().is_ok());
        assert!(updates.try_recv().is_err(), "nothing has changed");
    }

    #[test]
    fn a_failure_names_file_and_line_and_keeps_what_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rules.toml");
        let (mut provider, mut updates) = provider(Source::File(path.clone()));
        let mut check = |text: Option<&str>, expected: &str| {
            match text {
                Some(text) => fs::write(&path, text).expect("writes"),
                None => fs::remove_file(&path).expect("removes"),
            }
            assert!(provider.load().is_ok());
            let failure = provider
                .failure
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default();
            let expected = expected.replace("PATH", &path.display().to_string());
            assert!(
                failure.starts_with(&expected),
                "{failure} does not begin with {expected}"
            );
        };
        check(Some("a = 1\n[backends"), "PATH:2:");
        check(
            Some("\n\n{{ nofunc }}"),
            "PATH:3: template: function \"nofunc\" not defined",
        );
        check(Some("{{ range until 3 }}\n{{ end }}\n[backends"), "PATH:");
        check(Some("[backends.b.servers.s]\nurl = \"http://a\"\n"), "");
        check(None, "PATH: No such file or directory");
        assert!(updates.try_recv().is_ok());
        assert!(updates.try_recv().is_err(), "a failure sends nothing");
    }

    #[test]
    fn rules_in_the_static_file_are_no_template() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("traefik.toml");
        let text = format!(
            "# {{{{ nofunc }}}}\nlogLevel = \"INFO\"\n[entryPoints.http]\naddress = \":80\"\n{}",
            rules(&["a"])
        );
        fs::write(&path, text).expect("writes");
        let (mut provider, mut updates) = provider(Source::Inline(path));
        assert!(provider.load().is_ok());
        assert_eq!(
            updates
                .try_recv()
                .expect("an update")
                .dynamic
                .backends
                .len(),
            1
        );
    }

    #[test]
    fn the_source_is_the_first_that_is_named() {
        let select = |directory: &str, filename: &str, static_file: Option<&str>| {
            let options = FileProvider {
                directory: directory.to_owned(),
                filename: filename.to_owned(),
                ..FileProvider::default()
            };
            Source::select(&options, static_file.map(Path::new))
        };
        assert_eq!(
            select("d", "f", Some("s")),
            Some(Source::Directory("d".into()))
        );
        assert_eq!(select("", "f", Some("s")), Some(Source::File("f".into())));
        assert_eq!(select("", "", Some("s")), Some(Source::Inline("s".into())));
        assert_eq!(select("", "", None), None);
    }
}
