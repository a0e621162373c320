//! The server's log, in the two formats of Traefik 1.7.
//!
//! Whoever logs formats one line and puts it into a bounded queue; one thread writes. So a core that logs never touches a
//! file and never waits: when the queue is full the line is dropped, counted, and the count is logged later.
//! Owns the level, the format and the file. Never loses lines silently; [`Log::flush`] waits until all are written.
//! Source: spec api-metrics-logs 7.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span;
use tracing::{Event, Metadata, Subscriber};

/// Lines waiting for the writer. At a long line of 1 KiB this is 4 MiB; a disk that is slower than that loses lines.
const LINES_MAX: usize = 4096;

/// Longest line kept. Longer ones are cut: what a peer sends may be part of a message.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How long [`Log::flush`] waits for a disk that hangs.
const FLUSH_WAIT: Duration = Duration::from_secs(2);

/// Least important kind of line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Panic,
    Fatal,
    Error,
    Warning,
    Info,
    Debug,
}

impl Level {
    /// Reads `logLevel`, in any case. `None` for an unknown word.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "panic" => Self::Panic,
            "fatal" => Self::Fatal,
            "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Fatal => "fatal",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    fn of(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG | tracing::Level::TRACE => Self::Debug,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `time="…" level=info msg="…"`, then the other fields.
    Common,
    /// One JSON object a line, keys sorted.
    Json,
}

/// What to log, and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub level: Level,
    pub format: Format,
    /// `None` is standard output.
    pub file: Option<PathBuf>,
}

enum Order {
    Line(String),
    Reopen,
    Flush(Sender<()>),
}

/// The end of the log that can be reopened and flushed. Clones speak to the same writer.
#[derive(Clone)]
pub struct Log {
    orders: Sender<Order>,
    dropped: Arc<AtomicU64>,
    format: Format,
    level: Level,
    offset: UtcOffset,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("format", &self.format)
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

/// Starts the writer and makes this the log of the whole process. Call before any other thread is started: only then can
/// the time zone be read.
///
/// # Errors
/// The file or its directory cannot be made, or a log was installed before.
pub fn install(options: &Options) -> io::Result<Log> {
    let log = open(options)?;
    tracing::subscriber::set_global_default(log.clone()).map_err(io::Error::other)?;
    Ok(log)
}

/// Starts the writer of a log that nobody writes to yet.
///
/// # Errors
/// The file or its directory cannot be made.
pub fn open(options: &Options) -> io::Result<Log> {
    let offset = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
    let output = Output::open(options.file.as_deref())?;
    let (sender, receiver) = bounded(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let log = Log {
        orders: sender,
        dropped,
        format: options.format,
        level: options.level,
        offset,
    };
    let writer = Writer {
        output,
        path: options.file.clone(),
        dropped: Arc::clone(&log.dropped),
        format: options.format,
        offset,
    };
    thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || writer.run(&receiver))?;
    Ok(log)
}

impl Log {
    /// Closes the file and opens it again by name, for log rotation. Standard output stays as it is.
    pub fn reopen(&self) {
        // A blocking send: this is the control plane, and the order must not be lost.
        let _ = self.orders.send(Order::Reopen);
    }

    /// Waits until every line so far is written, or the writer has not answered for two seconds.
    pub fn flush(&self) {
        let (done, wait) = bounded(1);
        if self
            .orders
            .send_timeout(Order::Flush(done), FLUSH_WAIT)
            .is_ok()
        {
            let _ = wait.recv_timeout(FLUSH_WAIT);
        }
    }

    /// Writes one line that ends the process, whatever the queue holds, and waits for it.
    pub fn fatal(&self, message: &str) {
        if self.level >= Level::Fatal {
            let line = line(self.format, now(self.offset), Level::Fatal, message, &[]);
            let _ = self.orders.send_timeout(Order::Line(line), FLUSH_WAIT);
        }
        self.flush();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Level::of(*metadata.level()) <= self.level
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.level {
            Level::Panic | Level::Fatal => LevelFilter::OFF,
            Level::Error => LevelFilter::ERROR,
            Level::Warning => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
        })
    }

    fn event(&self, event: &Event<'_>) {
        // Libraries of the control plane log through the same door; only their trouble is of interest.
        let level = *event.metadata().level();
        if !event.metadata().target().starts_with("coreway") && level > tracing::Level::WARN {
            return;
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields.others.sort_unstable_by_key(|(name, _)| *name);
        let line = line(
            self.format,
            now(self.offset),
            Level::of(level),
            &fields.message,
            &fields.others,
        );
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Spans are not used: one number serves them all.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_str(field, &value.to_string());
    }
}

fn now(offset: UtcOffset) -> OffsetDateTime {
    let now = OffsetDateTime::now_utc().to_offset(offset);
    now.replace_nanosecond(0).unwrap_or(now)
}

fn line(
    format: Format,
    time: OffsetDateTime,
    level: Level,
    message: &str,
    others: &[(&'static str, String)],
) -> String {
    let time = time.format(&Rfc3339).unwrap_or_default();
    let mut line = String::with_capacity(64 + message.len());
    match format {
        Format::Common => {
            let _ = write!(line, "time=\"{time}\" level={}", level.name());
            pair(&mut line, "msg", message);
            for (name, value) in others {
                pair(&mut line, name, value);
            }
        }
        Format::Json => {
            let mut fields: Vec<(&str, &str)> = others
                .iter()
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            fields.extend([("level", level.name()), ("msg", message), ("time", &time)]);
            fields.sort_unstable();
            line.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                if at > 0 {
                    line.push(',');
                }
                json_text(&mut line, name);
                line.push(':');
                json_text(&mut line, value);
            }
            line.push('}');
        }
    }
    line.push('\n');
    line
}

/// ` name=value`, quoted as logrus does: bare if every character is a letter, a digit or one of `-._/@^+`.
fn pair(line: &mut String, name: &str, value: &str) {
    let value = cut(value);
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte);
    if value.bytes().all(bare) {
        let _ = write!(line, " {name}={value}");
        return;
    }
    let _ = write!(line, " {name}=\"");
    for character in value.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if u32::from(control) < 0x80 && control.is_control() => {
                let _ = write!(line, "\\x{:02x}", u32::from(control));
            }
            control if control.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(control));
            }
            plain => line.push(plain),
        }
    }
    line.push('"');
}

fn json_text(line: &mut String, text: &str) {
    line.push_str(&serde_json::Value::from(cut(text)).to_string());
}

fn cut(text: &str) -> &str {
    if text.len() <= LINE_BYTES_MAX {
        return text;
    }
    let end = (0..=LINE_BYTES_MAX)
        .rev()
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(0);
    &text[..end]
}

enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Output {
    fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stdout(io::stdout()));
        };
        if let Some(directory) = path
            .parent()
            .filter(|directory| !directory.as_os_str().is_empty())
        {
            std::fs::create_dir_all(directory)?;
        }
        Ok(Self::File(
            OpenOptions::new().create(true).append(true).open(path)?,
        ))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                let mut stdout = stdout.lock();
                stdout.write_all(bytes)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}

struct Writer {
    output: Output,
    path: Option<PathBuf>,
    dropped: Arc<AtomicU64>,
    format: Format,
    offset: UtcOffset,
}

impl Writer {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                // A full disk or a closed pipe must not end the server: the line is lost.
                Order::Line(line) => drop(self.output.write(line.as_bytes())),
                Order::Reopen => self.reopen(),
                Order::Flush(done) => drop(done.send(())),
            }
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                let message = format!(
                    "{dropped} log lines were dropped: the log cannot be written fast enough"
                );
                let _ = self.output.write(
                    line(self.format, now(self.offset), Level::Warning, &message, &[]).as_bytes(),
                );
            }
        }
    }

    fn reopen(&mut self) {
        match Output::open(self.path.as_deref()) {
            Ok(output) => self.output = output,
            Err(error) => {
                let message = format!("Cannot reopen the log, going on with the old file: {error}");
                let _ = self.output.write(
                    line(self.format, now(self.offset), Level::Error, &message, &[]).as_bytes(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: Format, message: &str, others: &[(&'static str, &str)], expected: &str) {
        let time = OffsetDateTime::from_unix_timestamp(1_795_171_737).expect("a time in range");
        let others: Vec<_> = others
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        assert_eq!(
            line(format, time, Level::Info, message, &others),
            format!("{expected}\n")
        );
    }

    #[test]
    fn common_lines() {
        let at = r#"time="2026-11-20T10:48:57Z" level=info"#;
        check(
            Format::Common,
            "I have to go...",
            &[],
            &format!(r#"{at} msg="I have to go...""#),
        );
        check(Format::Common, "hello", &[], &format!("{at} msg=hello"));
        check(
            Format::Common,
            "a/b@c^d+e-f_g.h",
            &[],
            &format!("{at} msg=a/b@c^d+e-f_g.h"),
        );
        check(Format::Common, "", &[], &format!("{at} msg="));
        check(
            Format::Common,
            "say \"x\" \\ \n\t\x07é",
            &[],
            &format!(r#"{at} msg="say \"x\" \\ \n\t\x07é""#),
        );
        check(
            Format::Common,
            "m",
            &[("core", "3"), ("provider", "a b")],
            &format!(r#"{at} msg=m core=3 provider="a b""#),
        );
    }

    #[test]
    fn json_lines_have_sorted_keys() {
        check(
            Format::Json,
            "say \"x\"\n",
            &[("core", "3"), ("provider", "file")],
            r#"{"core":"3","level":"info","msg":"say \"x\"\n","provider":"file","time":"2026-11-20T10:48:57Z"}"#,
        );
    }

    #[test]
    fn a_line_has_a_bound() {
        let time = OffsetDateTime::UNIX_EPOCH;
        let long = "é".repeat(LINE_BYTES_MAX);
        assert!(line(Format::Common, time, Level::Info, &long, &[]).len() < LINE_BYTES_MAX + 100);
    }

    #[test]
    fn levels_are_read_in_any_case() {
        for (text, expected) in [
            ("DEBUG", Level::Debug),
            ("warn", Level::Warning),
            ("Warning", Level::Warning),
        ] {
            assert_eq!(Level::parse(text), Some(expected));
        }
        assert_eq!(Level::parse("loud"), None);
    }

    #[test]
    fn lines_go_to_the_file_that_has_the_name_at_the_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/traefik.log");
        let log = open(&Options {
            level: Level::Warning,
            format: Format::Common,
            file: Some(path.clone()),
        })
        .expect("opens");
        tracing::subscriber::with_default(log.clone(), || {
            tracing::warn!(target: "coreway::test", core = 3, "first one");
            tracing::info!(target: "coreway::test", "not important enough");
            log.flush();
            let moved = path.with_extension("1");
            std::fs::rename(&path, &moved).expect("moves");
            tracing::warn!(target: "coreway::test", "second one");
            log.reopen();
            tracing::error!(target: "coreway::test", "third one");
            log.flush();
            let old = std::fs::read_to_string(moved).expect("reads");
            assert_eq!(old.lines().count(), 2, "{old}");
            assert!(
                old.contains(r#"level=warning msg="first one" core=3"#),
                "{old}"
            );
            let new = std::fs::read_to_string(&path).expect("reads");
            assert!(new.ends_with("level=error msg=\"third one\"\n"), "{new}");
        });
    }
}
