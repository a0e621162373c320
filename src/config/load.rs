//! How configuration is read: the static one from file and flags, a dynamic one from a text.
//!
//! Precedence is default, then file, then flags, then the keys of a store (spec static-config 1), which the caller reads:
//! here only the static file is.
//! Never prints and never exits: it returns what to say. Read next: `search.rs`, `flags.rs`, `effective.rs`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::dynamic::Dynamic;
use super::export::{self, KeyValue};
use super::flags::{self, Flags};
use super::global::Global;
use super::keys::{self, Branch, Manner, Pair, Shaper};
use super::option::{Entry, Kind, Value};
use super::tree::{Data, Node};
use super::units::{ConfigError, Diagnostic, Place};
use super::words::{self, Question, Shell};
use super::{deprecated, effective, help, search, spelling, toml};

/// What a command line asks for, and the static configuration that goes with it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub command: Command,
    /// Effective values; only defaults where the command is `Help` or `Version`.
    pub global: Global,
    /// The file that was read. Rules are in it where `[file]` names neither a file nor a directory.
    pub file: Option<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
    layers: Layers,
}

/// File and flags laid over each other, before anything is settled: what a store holds can be laid over them.
#[derive(Clone, Debug)]
struct Layers {
    tree: Node,
    /// What was found on the way, which does not depend on what comes over it.
    diagnostics: Vec<Diagnostic>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// No command: run the server.
    Run,
    /// Print this text to standard output; exit code 0.
    Help(String),
    /// Print `version::text()`.
    Version,
    HealthCheck,
    StoreConfig(StoreConfig),
    Bug,
    /// Say what is wrong with the configuration.
    Check,
    /// Say what becomes of a request.
    Explain(Question),
    /// Print `completion::script`.
    Completion(Shell),
    /// Print `man::page()`.
    Man,
    Demo,
}

impl Command {
    /// The word of the command line.
    fn name(&self) -> &'static str {
        let same = |other: &Self| std::mem::discriminant(self) == std::mem::discriminant(other);
        let known = help::COMMANDS.iter().find(|(_, known, _)| same(known));
        known.map_or("coreway", |(name, ..)| name)
    }

    /// It is told by the configuration what to do.
    fn has_configuration(&self) -> bool {
        !matches!(
            self,
            Self::Help(_) | Self::Version | Self::Completion(_) | Self::Man
        )
    }
}

/// What `storeconfig` does with the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    Write,
    /// Prints them and asks no store.
    DryRun,
    /// Prints what is different in the store.
    Diff,
}

/// Why there is no usable configuration. Shown on standard error; the exit code is 1.
#[derive(Clone, Debug, PartialEq)]
pub enum LoadError {
    CommandNotFound(String),
    /// The command line cannot be understood; `help` goes to standard output with the message before it.
    Usage {
        message: String,
        help: String,
    },
    /// The file cannot be read, or says something that cannot be used.
    File {
        path: PathBuf,
        detail: String,
    },
    /// File and flags together say something that cannot be meant.
    Effective(ConfigError),
}

impl LoadError {
    /// What goes to standard output besides the message on standard error.
    pub fn standard_output(&self) -> Option<String> {
        match self {
            Self::Usage { message, help } => Some(format!("Error here : {message}\n{help}")),
            _ => None,
        }
    }
}

/// One line; the caller puts the time before it.
impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandNotFound(word) => write!(f, "command {word} not found"),
            Self::Usage { message, .. } => write!(f, "Error parsing command: {message}"),
            Self::File { path, detail } => write!(
                f,
                "Error reading TOML config file {} : {detail}",
                path.display()
            ),
            Self::Effective(error) => write!(f, "Error preparing server: {error}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Reads what `arguments` (without the program's name) and the environment ask for.
///
/// # Errors
/// See [`LoadError`]. Nothing can be started.
pub fn load(
    arguments: &[OsString],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, LoadError> {
    let usage = |message: String, help: String| LoadError::Usage { message, help };
    let text = |argument: &OsString| {
        argument
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("argument {argument:?} is not UTF-8"))
    };
    let arguments: Result<Vec<String>, String> = arguments.iter().map(text).collect();
    let arguments = arguments.map_err(|message| usage(message, help::program()))?;

    let (command, help, arguments) = match arguments.split_first() {
        Some((word, rest)) if !word.starts_with('-') => {
            let known = help::COMMANDS
                .iter()
                .find(|(name, ..)| name.eq_ignore_ascii_case(word));
            let (name, command, about) =
                known.ok_or_else(|| LoadError::CommandNotFound(word.clone()))?;
            (command.clone(), help::command(name, command, about), rest)
        }
        _ => (Command::Run, help::program(), &arguments[..]),
    };
    let mut command = command;
    let arguments = words::take(&mut command, arguments)
        .map_err(|message| usage(format!("{}: {message}", command.name()), help.clone()))?;
    let arguments: Vec<String> = arguments
        .iter()
        .filter(|argument| match help::switched(&command, argument) {
            Some(other) => {
                command = other;
                false
            }
            None => true,
        })
        .cloned()
        .collect();
    let flags = flags::parse(&arguments).map_err(|error| usage(error.to_string(), help.clone()))?;
    let mut loaded = Loaded {
        command,
        global: Global::default(),
        file: None,
        diagnostics: Vec::new(),
        layers: Layers {
            tree: Node::table(&Place::Default),
            diagnostics: Vec::new(),
        },
    };
    if flags.help {
        loaded.command = Command::Help(help);
    } else if loaded.command.has_configuration() {
        if loaded.command != Command::Demo {
            loaded.file = find_file(&flags, env, &mut loaded.diagnostics);
        }
        read(&mut loaded, flags, help)?;
    }
    Ok(loaded)
}

fn find_file(
    flags: &Flags,
    env: &dyn Fn(&str) -> Option<String>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Option<PathBuf> {
    let found = search::find(flags.config_file.as_deref(), env);
    if let Some(given) = flags
        .config_file
        .as_deref()
        .filter(|given| !given.is_empty())
        && search::file_at(&search::expand(given, env)).is_none()
    {
        let instead = found.as_ref().map_or_else(
            || "no other was found, so defaults and flags are used".to_owned(),
            |path| format!("{} is used instead", path.display()),
        );
        diagnostics.push(Diagnostic {
            place: Place::Flag("--configFile".into()),
            message: format!("there is no configuration file {given}; {instead}"),
        });
    }
    found
}

/// Lays defaults, file and flags over each other.
fn read(loaded: &mut Loaded, flags: Flags, help: String) -> Result<(), LoadError> {
    let diagnostics = &mut loaded.diagnostics;
    let mut tree = Node::table(&Place::Flag("command line".into()));
    let mut rules = None;
    if let Some(path) = &loaded.file {
        let failed = |detail: String| LoadError::File {
            path: path.clone(),
            detail,
        };
        let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
        tree = toml::parse(&path.to_string_lossy(), &text)
            .map_err(|error| failed(error.to_string()))?;
        rules = first_of(&tree, Dynamic::OPTIONS);
        spelling::correct(
            &mut tree,
            Global::OPTIONS,
            &|key| is_option(Dynamic::OPTIONS, key),
            diagnostics,
        );
        count_to_text(&mut tree);
        // Read once by itself, so that a mistake in the file is reported as one even if a flag covers it.
        Global::read(&tree).map_err(|error| failed(error.to_string()))?;
    }
    flags.apply(&mut tree);
    deprecated::warnings(&tree, diagnostics);
    let global = Global::read(&tree).map_err(|error| LoadError::Usage {
        message: error.to_string(),
        help,
    })?;
    diagnostics.extend(flags.diagnostics);
    if let Some((name, place)) = rules {
        let unread = match &global.file {
            None => Some("there is no [file] section"),
            Some(file) if !file.directory.is_empty() || !file.filename.is_empty() => {
                Some("[file] names another source")
            }
            Some(_) => None,
        };
        if let Some(reason) = unread {
            let message =
                format!("{name}: frontends and backends in this file are not read, since {reason}");
            diagnostics.push(Diagnostic { place, message });
        }
    }
    loaded.layers = Layers {
        tree,
        diagnostics: std::mem::take(diagnostics),
    };
    let is_incomplete = match loaded.command {
        Command::Run | Command::Check | Command::Explain(_) => global.has_store(),
        // Nothing is validated before it is stored.
        Command::StoreConfig(_) => true,
        _ => false,
    };
    match settle(global.clone(), &loaded.layers.tree, &loaded.layers) {
        Ok((global, diagnostics)) => {
            loaded.global = global;
            loaded.diagnostics = diagnostics;
        }
        // The store may hold what is missing, such as an entry point that a flag names.
        Err(error) if is_incomplete => {
            loaded.global = global;
            loaded.diagnostics.clone_from(&loaded.layers.diagnostics);
            let message = format!("{}: {}", error.path, error.message);
            loaded.diagnostics.push(Diagnostic {
                place: error.place,
                message,
            });
        }
        Err(error) => return Err(LoadError::Effective(error)),
    }
    Ok(())
}

fn settle(
    mut global: Global,
    tree: &Node,
    layers: &Layers,
) -> Result<(Global, Vec<Diagnostic>), ConfigError> {
    let place_of = |path: &[&str]| {
        tree.get(path)
            .map_or_else(Place::default, |node| node.place.clone())
    };
    let mut diagnostics = layers.diagnostics.clone();
    effective::settle(&mut global, &place_of, &mut diagnostics)?;
    Ok((global, diagnostics))
}

impl Loaded {
    /// The same with the static options that the keys of a store hold over file and flags. `pairs` are relative to
    /// `prefix`; those of other readers are passed over.
    ///
    /// # Errors
    /// An option that cannot be read, or that cannot be meant together with the others. The store can be put right.
    pub fn with_keys(&self, prefix: &str, pairs: Vec<Pair<'_>>) -> Result<Self, ConfigError> {
        let mut tree = self.layers.tree.clone();
        let mut layers = self.layers.clone();
        layers
            .diagnostics
            .extend(overlay(&mut tree, prefix, pairs)?);
        let global = Global::read(&tree)?;
        let (global, diagnostics) = settle(global, &tree, &layers)?;
        Ok(Self {
            global,
            diagnostics,
            ..self.clone()
        })
    }

    /// The static configuration as JSON, without its secrets.
    pub fn shown(&self) -> String {
        export::json(&self.global).to_string()
    }

    /// The keys of the static configuration as `storeconfig` writes them, in byte order.
    ///
    /// # Errors
    /// None that reading the configuration did not have.
    pub fn static_keys(&self) -> Result<Vec<KeyValue>, ConfigError> {
        let is_there = |name: &str| self.layers.tree.get(&[name]).is_some();
        Ok(export::static_keys(
            &Global::read(&self.layers.tree)?,
            &is_there,
        ))
    }
}

/// Lays the static options among `pairs` over `tree`: sections option by option, named entries whole, lists item by item.
/// Spec kv-static 2.2.
pub(super) fn overlay(
    tree: &mut Node,
    prefix: &str,
    mut pairs: Vec<Pair<'_>>,
) -> Result<Vec<Diagnostic>, ConfigError> {
    keys::sort(&mut pairs);
    let mut shaper = Shaper::new(prefix, Manner::Strict);
    let kind = Kind::Section(Global::OPTIONS);
    if let Some(over) = shaper.shape(&Branch::grow(&pairs, 0), &kind)? {
        lay(tree, over, &kind);
    }
    Ok(shaper.problems.warnings)
}

fn lay(tree: &mut Node, over: Node, kind: &Kind) {
    match (kind, over.data) {
        (Kind::Section(options), Data::Table(over)) => {
            let Data::Table(table) = &mut tree.data else {
                unreachable!("what is below was read as a section before");
            };
            for entry in over.entries {
                let option = options.iter().find(|option| option.name == entry.name);
                let kind = option.expect("shaped as declared").kind;
                match table
                    .entries
                    .iter_mut()
                    .find(|below| below.name == entry.name)
                {
                    Some(below) => lay(&mut below.node, entry.node, &kind()),
                    None => table.entries.push(entry),
                }
            }
        }
        (Kind::Map(_), Data::Table(over)) => {
            for entry in over.entries {
                tree.set(&[&entry.name], entry.node);
            }
        }
        (Kind::List(..), Data::List(over)) => {
            let Data::List(items) = &mut tree.data else {
                unreachable!("what is below was read as a list before");
            };
            for (index, item) in over.into_iter().enumerate() {
                match items.get_mut(index) {
                    Some(below) => *below = item,
                    None => items.push(item),
                }
            }
        }
        (_, data) => *tree = Node::new(&over.place, data),
    }
}

/// `reactor.cores` is the one text that may also be written as a number.
fn count_to_text(tree: &mut Node) {
    if let Some(Node {
        data: Data::Integer(count),
        place,
    }) = tree.get(&["reactor", "cores"])
    {
        let text = Node::new(place, Data::Text(count.to_string()));
        tree.set(&["reactor", "cores"], text);
    }
}

/// Reads the frontends, backends and certificates that `text` holds; it came from the file `path`. Static options in it
/// are another reader's and are passed over.
///
/// # Errors
/// The text is not TOML or gives an option a value of the wrong type: nothing of it can be used.
pub fn dynamic_from_toml(
    path: &str,
    text: &str,
) -> Result<(Dynamic, Vec<Diagnostic>), ConfigError> {
    let mut diagnostics = Vec::new();
    let mut tree = toml::parse(path, text)?;
    spelling::correct(
        &mut tree,
        Dynamic::OPTIONS,
        &|key| is_option(Global::OPTIONS, key),
        &mut diagnostics,
    );
    deprecated::warnings(&tree, &mut diagnostics);
    Ok((Dynamic::read(&tree)?, diagnostics))
}

fn is_option(options: &[Entry], key: &str) -> bool {
    options
        .iter()
        .any(|option| option.name.eq_ignore_ascii_case(key))
}

fn first_of(tree: &Node, options: &[Entry]) -> Option<(String, Place)> {
    let Data::Table(table) = &tree.data else {
        return None;
    };
    let entry = table
        .entries
        .iter()
        .find(|entry| is_option(options, &entry.name))?;
    Some((entry.name.clone(), entry.place.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_load(file: &str, flags: &[&str]) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("f.toml");
        std::fs::write(&path, file).expect("written");
        let arguments = [format!("--configFile={}", path.display())].into_iter();
        let arguments: Vec<OsString> = arguments
            .chain(flags.iter().map(|&flag| flag.to_owned()))
            .map(OsString::from)
            .collect();
        let short = |text: String| text.replace(&path.display().to_string(), "f.toml");
        let mut loaded = load(&arguments, &|_| None).map_err(|error| short(error.to_string()))?;
        assert_eq!(loaded.file.take(), Some(path.clone()));
        for diagnostic in &mut loaded.diagnostics {
            *diagnostic = Diagnostic {
                place: Place::Default,
                message: short(diagnostic.to_string()),
            };
        }
        Ok(loaded)
    }

    /// The configuration of a file and flags that raise no diagnostic.
    fn effective_of(file: &str, flags: &[&str]) -> Global {
        let loaded = try_load(file, flags).expect("usable");
        assert_eq!(messages(&loaded), [""; 0], "{file}");
        loaded.global
    }

    fn messages(loaded: &Loaded) -> Vec<&str> {
        loaded
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.message.as_str())
            .collect()
    }

    fn warns(file: &str, flags: &[&str], expected: &[&str]) -> Global {
        let loaded = try_load(file, flags).expect("usable");
        assert_eq!(messages(&loaded), expected, "{file}");
        loaded.global
    }

    fn fails(file: &str, flags: &[&str], expected: &str) {
        assert_eq!(
            try_load(file, flags).map(|_| ()),
            Err(expected.to_owned()),
            "{file}"
        );
    }

    fn seconds(value: std::time::Duration) -> f64 {
        value.as_secs_f64()
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        assert_eq!(effective_of("", &[]).max_idle_conns_per_host, 200);
        assert_eq!(
            effective_of("maxIdleConnsPerHost = 3", &[]).max_idle_conns_per_host,
            3
        );
        assert_eq!(
            effective_of("maxIdleConnsPerHost = 3", &["--maxidleconnsperhost=4"])
                .max_idle_conns_per_host,
            4
        );
    }

    #[test]
    fn option_keys_are_case_insensitive_and_names_are_not() {
        let global = effective_of(
            "[ENTRYpoints.Abc]\nADDRESS = ':1'\n[entryPoints.Abc.FORWARDEDheaders]\nTRUSTEDips = ['1.2.3.4']\n",
            &["--defaultentrypoints=Abc"],
        );
        let abc = &global.entry_points["Abc"];
        assert_eq!(abc.address, ":1");
        let trust = abc.forwarded_headers.as_ref().expect("written");
        assert_eq!(trust.trusted_ips, ["1.2.3.4"]);
        assert_eq!(
            seconds(effective_of("providerSthrottleDuration = 7", &[]).providers_throttle_duration),
            7.0
        );
        // The exact spelling is preferred where several match; tables are joined.
        let global = warns(
            "[API]\nentryPoint = 'http'\ndashboard = true\n[api]\ndashboard = false\n",
            &[],
            &["f.toml:3:1: API.dashboard: ignored, since it is also written at f.toml:5:1"],
        );
        let api = global.api.expect("on");
        assert_eq!((api.entry_point.as_str(), api.dashboard), ("http", false));
        let global = warns(
            "DEBUG = false\ndebug = true\nDebug = false\n",
            &[],
            &[
                "f.toml:1:1: DEBUG: ignored, since it is also written at f.toml:2:1",
                "f.toml:3:1: Debug: ignored, since it is also written at f.toml:2:1",
            ],
        );
        assert!(global.debug);
        warns(
            "defaultEntryPoints = ['HTTP']\n[entryPoints.http]\naddress = ':80'\n",
            &[],
            &[
                "f.toml:1:22: defaultEntryPoints: unknown entry point \"HTTP\" (names are case-sensitive)",
            ],
        );
    }

    #[test]
    fn a_section_switches_a_feature_on_with_its_defaults() {
        let global = effective_of(
            "[ping]\n[metrics]\n[respondingTimeouts]\nreadTimeout = '3s'\n",
            &[],
        );
        assert_eq!(global.ping.expect("on").entry_point, "traefik");
        assert_eq!(seconds(global.responding_timeouts.idle_timeout), 180.0);
        assert_eq!(seconds(global.responding_timeouts.read_timeout), 3.0);
        let metrics = global.metrics.expect("on");
        assert!(metrics.prometheus.is_none() && metrics.statsd.is_none());
        assert!(global.api.is_none());
        let file = effective_of("[file]\n", &[]).file.expect("on");
        assert!(file.watch && file.filename.is_empty());
        assert_eq!(
            effective_of("[etcd]\n", &[]).etcd.expect("on").prefix,
            "/traefik"
        );
    }

    #[test]
    fn durations_are_seconds_or_go_text() {
        let check = |value: &str, expected: f64| {
            let global = effective_of(&format!("providersThrottleDuration = {value}"), &[]);
            assert_eq!(
                seconds(global.providers_throttle_duration),
                expected,
                "{value}"
            );
        };
        check("7", 7.0);
        check("'9'", 9.0);
        check("'500ms'", 0.5);
        check("'1m30s'", 90.0);
        fails(
            "providersThrottleDuration = '5 parsecs'",
            &[],
            "Error reading TOML config file f.toml : f.toml:1:29: providersThrottleDuration: expected a duration \
             (seconds, or text such as \"500ms\" or \"1m30s\"), found `5 parsecs`: it is not a duration",
        );
    }

    #[test]
    fn errors_name_place_option_and_what_was_expected() {
        let check = |file: &str, detail: &str| {
            fails(
                file,
                &[],
                &format!("Error reading TOML config file f.toml : {detail}"),
            );
        };
        check(
            "\ndebug = 'yes'\n",
            "f.toml:2:9: debug: expected a boolean, found a string",
        );
        check(
            "maxIdleConnsPerHost = '3'",
            "f.toml:1:23: maxIdleConnsPerHost: expected an integer, found a string",
        );
        check(
            "logLevel = 3",
            "f.toml:1:12: logLevel: expected a string, found an integer",
        );
        check(
            "rootCAs = ['a', 3]",
            "f.toml:1:17: rootCAs[1]: expected a string, found an integer",
        );
        check(
            "defaultEntryPoints = 'http'",
            "f.toml:1:22: defaultEntryPoints: expected a list, found a string",
        );
        check(
            "api = true",
            "f.toml:1:7: api: expected a table, found a boolean",
        );
        check(
            "[entryPoints.'a.b']\naddress = 1979-05-27\n",
            "f.toml:2:11: entryPoints.\"a.b\".address: expected a string, found a date",
        );
        check(
            "constraints = ['tag==a', 'x']",
            "f.toml:1:26: constraints[1]: constraint expression missing valid operator: '==' or '!='",
        );
        check(
            "[entryPoints\n",
            "f.toml:1:13: unclosed table, expected `]`",
        );
        fails(
            "debug = 'yes'",
            &["--debug"],
            "Error reading TOML config file f.toml : f.toml:1:9: debug: expected a boolean, found a string",
        );
        fails(
            "",
            &["--maxidleconnsperhost=x"],
            "Error parsing command: --maxidleconnsperhost: maxIdleConnsPerHost: expected an integer, found `x`",
        );
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_known_one() {
        warns(
            "transport = 1\nmaxIdleConsPerHost = 3\n[entryPoints.http]\nadress = ':80'\naddress = ':80'\n\
             [[entryPoints.http.tls.certificates]]\ncertfile = 'a'\nkeyFiel = 'b'\n",
            &[],
            &[
                "f.toml:1:1: transport: unknown option, ignored",
                "f.toml:2:1: maxIdleConsPerHost: unknown option, ignored, did you mean `maxIdleConnsPerHost`?",
                "f.toml:4:1: entryPoints.http.adress: unknown option, ignored, did you mean `address`?",
                "f.toml:8:1: entryPoints.http.tls.certificates[0].keyFiel: unknown option, ignored, did you mean `keyFile`?",
            ],
        );
        // Anything below a provider we do not have is accepted.
        effective_of("[docker]\nendpoint = 'x'\nwhat.ever = 1\n", &[]);
    }

    #[test]
    fn static_and_dynamic_parts_share_a_file() {
        let text = "[file]\n[entryPoints.http]\naddress = ':80'\n[BACKENDS.b.servers.s]\nurl = 'http://a'\n\
                    [frontends.f]\nbackend = 'b'\n[[tls]]\nentryPoints = ['http']\n";
        effective_of(text, &[]);
        let (dynamic, diagnostics) = dynamic_from_toml("f.toml", text).expect("usable");
        assert_eq!(diagnostics, []);
        assert_eq!(
            (
                dynamic.backends.len(),
                dynamic.frontends.len(),
                dynamic.tls.len()
            ),
            (1, 1, 1)
        );
        let unread =
            "f.toml:4:2: BACKENDS: frontends and backends in this file are not read, since ";
        warns(
            &text.replace("[file]", ""),
            &[],
            &[&format!("{unread}there is no [file] section")],
        );
        warns(
            text,
            &["--file.filename=/x"],
            &[&format!("{unread}[file] names another source")],
        );
    }

    #[test]
    fn deprecated_options_take_their_new_places() {
        let deprecated = |option: &str, replacement: &str| {
            format!("f.toml:1:1: {option}: deprecated, use {replacement} instead")
        };
        let global = warns(
            "graceTimeOut = '7s'\n[lifeCycle]\ngraceTimeOut = 3\n",
            &[],
            &[&deprecated("graceTimeOut", "lifeCycle.graceTimeOut")],
        );
        assert_eq!(seconds(global.life_cycle.grace_time_out), 7.0);
        let global = warns(
            "idleTimeout = '9s'\n[respondingTimeouts]\nidleTimeout = 4\n",
            &[],
            &[&deprecated("idleTimeout", "respondingTimeouts.idleTimeout")],
        );
        assert_eq!(seconds(global.responding_timeouts.idle_timeout), 9.0);
        let global = warns(
            "accessLogsFile = '/a'\n[accessLog]\nformat = 'json'\n",
            &[],
            &[&deprecated("accessLogsFile", "accessLog.filePath")],
        );
        let log = global.access_log.expect("on");
        assert_eq!(
            (log.file_path.as_str(), log.format.as_str()),
            ("/a", "common")
        );
        let old = deprecated("traefikLogsFile", "traefikLog.filePath");
        assert_eq!(
            warns("traefikLogsFile = '/a'", &[], &[&old])
                .traefik_log
                .file_path,
            "/a"
        );
        let file = "traefikLogsFile = '/a'\n[traefikLog]\nfilePath = '/b'\n";
        assert_eq!(warns(file, &[], &[&old]).traefik_log.file_path, "/b");
        let global = warns(
            "[entryPoints.http]\nwhitelistSourceRange = ['1.2.3.4']\n[entryPoints.http.tls]\nclientCAFiles = ['/ca']\n",
            &[],
            &[
                "f.toml:2:1: entryPoints.*.whitelistSourceRange: deprecated, use whiteList.sourceRange instead",
                "f.toml:4:1: entryPoints.*.tls.clientCAFiles: deprecated, use clientCA.files instead",
            ],
        );
        let http = &global.entry_points["http"];
        assert_eq!(
            http.white_list.as_ref().expect("moved").source_range,
            ["1.2.3.4"]
        );
        let client_ca = http
            .tls
            .as_ref()
            .and_then(|tls| tls.client_ca.as_ref())
            .expect("moved");
        assert_eq!(
            (&client_ca.files[..], client_ca.optional),
            (&["/ca".to_owned()][..], false)
        );
        warns(
            "",
            &["-g10s"],
            &["-g: graceTimeOut: deprecated, use lifeCycle.graceTimeOut instead"],
        );
    }

    #[test]
    fn web_becomes_api_ping_and_metrics() {
        let old = "f.toml:1:2: web: deprecated, use api, ping, metrics and rest instead";
        let global = warns(
            "[web]\naddress = ':8888'\n[web.metrics.prometheus]\n",
            &[],
            &[old],
        );
        assert_eq!(global.entry_points["traefik"].address, ":8888");
        assert_eq!(global.entry_points["http"].address, ":80");
        assert!(global.api.expect("on").dashboard);
        assert!(global.ping.is_some() && global.rest.is_none());
        assert!(global.metrics.expect("on").prometheus.is_some());
        let ignored = "f.toml:1:2: web: ignored, since api, ping, metrics or rest is configured";
        let global = warns("[web]\naddress = ':8888'\n[ping]\n", &[], &[old, ignored]);
        assert_eq!(global.entry_points["traefik"].address, ":8080");
        assert!(global.api.is_none());
    }

    #[test]
    fn missing_entry_points_appear() {
        let addresses = |file: &str, flags: &[&str]| {
            let global = effective_of(file, flags);
            let entry_points = global.entry_points.iter();
            let list: Vec<String> = entry_points
                .map(|(name, e)| format!("{name} {}", e.address))
                .collect();
            (list.join(", "), global.default_entry_points)
        };
        let http = || vec!["http".to_owned()];
        assert_eq!(addresses("", &[]), ("http :80".to_owned(), http()));
        // Without any entry point the default names that one, whatever was written.
        assert_eq!(
            addresses("defaultEntryPoints = ['x']", &[]),
            ("http :80".to_owned(), http())
        );
        for section in ["api", "ping", "rest", "metrics.prometheus"] {
            assert_eq!(
                addresses(&format!("[{section}]\n"), &[]),
                ("http :80, traefik :8080".to_owned(), http())
            );
        }
        assert_eq!(
            addresses("[metrics]\n", &[]),
            ("http :80".to_owned(), http())
        );
        let own =
            "[ping]\n[entryPoints.traefik]\naddress = ':1'\n[entryPoints.http]\naddress = ':2'\n";
        assert_eq!(
            addresses(own, &[]),
            ("http :2, traefik :1".to_owned(), http())
        );
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let check = |file: &str, detail: &str| {
            fails(file, &[], &format!("Error preparing server: {detail}"))
        };
        check(
            "[ping]\nentryPoint = 'nope'\n",
            "f.toml:1:2: ping.entryPoint: unknown entry point \"nope\", there are: http",
        );
        check(
            "[entryPoints.a.redirect]\nentryPoint = 'b'\n",
            "f.toml:1:16: entryPoints.a.redirect.entryPoint: unknown target entrypoint \"b\", there are: a",
        );
        check(
            "[entryPoints.a.redirect]\nentryPoint = 'a'\n",
            "f.toml:1:16: entryPoints.a.redirect.entryPoint: entry point \"a\" redirects to itself",
        );
        check(
            "[entryPoints.a.tls]\ncipherSuites = ['TLS_AES_128_GCM_SHA256', 'FOO']\n",
            "f.toml:1:16: entryPoints.a.tls.cipherSuites: invalid CipherSuite: FOO",
        );
        check(
            "[acme]\nentryPoint = 'x'\n",
            "f.toml:1:2: acme.entryPoint: Unknown entrypoint \"x\" for ACME configuration",
        );
        check(
            "[acme]\nentryPoint = 'http'\n",
            "f.toml:1:2: acme.entryPoint: Entrypoint \"http\" has no TLS configuration for ACME configuration",
        );
        check(
            "[reactor]\ndriver = 'kqueue'\n",
            "f.toml:1:2: reactor.driver: expected `auto`, `io_uring` or `epoll`, found `kqueue`",
        );
    }

    #[test]
    fn values_that_nobody_knows_fall_back() {
        let global = warns(
            "logLevel = 'LOUD'\n[traefikLog]\nformat = 'xml'\n[entryPoints.http.tls]\nminVersion = 'SSL3'\n",
            &[],
            &[
                "f.toml:4:19: entryPoints.http.tls.minVersion: unknown version `SSL3`, ignored; expected VersionTLS10 to VersionTLS13",
                "f.toml:1:12: logLevel: unknown level `LOUD`, ERROR is used",
                "f.toml:3:10: traefikLog.format: unknown format `xml`, common is used",
            ],
        );
        assert_eq!(
            (
                global.log_level.as_str(),
                global.traefik_log.format.as_str()
            ),
            ("ERROR", "common")
        );
        assert_eq!(effective_of("", &["--loglevel=Info"]).log_level, "Info");
    }

    #[test]
    fn the_reactor_takes_text_or_a_number() {
        let cores = |file: &str, flags: &[&str]| effective_of(file, flags).reactor.cores;
        assert_eq!(cores("", &[]), "all");
        assert_eq!(cores("[reactor]\ncores = 2\n", &[]), "2");
        assert_eq!(cores("[reactor]\ncores = '0-3,8'\n", &[]), "0-3,8");
        assert_eq!(
            cores("[reactor]\ncores = 2\n", &["--reactor.cores=1-2"]),
            "1-2"
        );
        let reactor = effective_of("[reactor]\ndriver = 'IO_uring'\npin = false\n", &[]).reactor;
        assert_eq!((reactor.driver.as_str(), reactor.pin), ("io_uring", false));
    }

    #[test]
    fn a_missing_file_is_searched_elsewhere_with_a_warning() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join(".traefik").join("traefik.toml");
        std::fs::create_dir(home.path().join(".traefik")).expect("made");
        std::fs::write(&path, "debug = true\n").expect("written");
        let home_text = home.path().display().to_string();
        let env = |name: &str| (name == "HOME").then(|| home_text.clone());
        let loaded = load(&["-c$HOME/nope.toml".into()], &env).expect("usable");
        assert_eq!(loaded.file.as_ref(), Some(&path));
        assert!(loaded.global.debug);
        let expected = format!(
            "there is no configuration file $HOME/nope.toml; {} is used instead",
            path.display()
        );
        assert_eq!(messages(&loaded), [expected]);
        let loaded = load(&["-c".into(), "$HOME/.traefik".into()], &env).expect("usable");
        assert_eq!((messages(&loaded).len(), loaded.file), (0, Some(path)));
    }

    #[test]
    fn the_first_word_is_the_command() {
        let command = |arguments: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            load(&arguments, &|_| None)
                .map(|loaded| loaded.command)
                .map_err(|error| error.to_string())
        };
        assert_eq!(command(&[]), Ok(Command::Run));
        assert_eq!(command(&["--debug", "version"]), Ok(Command::Run));
        assert_eq!(command(&["VERsion"]), Ok(Command::Version));
        assert_eq!(
            command(&["healthcheck", "--ping"]),
            Ok(Command::HealthCheck)
        );
        assert_eq!(
            command(&["storeconfig", "--consul"]),
            Ok(Command::StoreConfig(StoreConfig::Write))
        );
        assert_eq!(
            command(&["storeconfig", "--consul", "--diff"]),
            Ok(Command::StoreConfig(StoreConfig::Diff))
        );
        assert!(command(&["--diff"]).is_err(), "it is no flag of the server");
        assert_eq!(command(&["bug"]), Ok(Command::Bug));
        assert_eq!(command(&["demo", "--reactor.cores=1"]), Ok(Command::Demo));
        assert_eq!(command(&["foo"]), Err("command foo not found".to_owned()));
        assert_eq!(command(&["--help"]), Ok(Command::Help(help::program())));
        assert!(
            matches!(command(&["bug", "-h"]), Ok(Command::Help(text)) if text.contains("coreway bug"))
        );
        assert_eq!(
            command(&["--nope"]),
            Err("Error parsing command: unknown flag: --nope".to_owned())
        );
    }

    #[test]
    fn a_bad_command_line_shows_the_help() {
        let error = load(&["--nope".into()], &|_| None).expect_err("unknown");
        let output = error.standard_output().expect("help");
        assert!(
            output.starts_with("Error here : unknown flag: --nope\ncoreway is"),
            "{output}"
        );
        assert_eq!(
            LoadError::CommandNotFound("x".to_owned()).standard_output(),
            None
        );
    }

    /// The configuration of a file, flags and the keys of a store below `p`, one `key = value` a line.
    fn stored(file: &str, flags: &[&str], lines: &str) -> Result<Loaded, String> {
        let flags: Vec<&str> = flags.iter().copied().chain(["--consul"]).collect();
        let loaded = try_load(file, &flags)?;
        let pairs = lines.lines().map(|line| {
            let (key, value) = line
                .trim()
                .split_once(" =")
                .unwrap_or_else(|| (line.trim(), ""));
            Pair::new(key, value.trim())
        });
        loaded
            .with_keys("p", pairs.collect())
            .map_err(|error| error.to_string())
    }

    fn stored_global(file: &str, flags: &[&str], lines: &str) -> Global {
        let loaded = stored(file, flags, lines).expect("usable");
        assert_eq!(messages(&loaded), [""; 0], "{lines}");
        loaded.global
    }

    fn stored_fails(lines: &str, expected: &str) {
        assert_eq!(
            stored("", &[], lines).map(|_| ()),
            Err(expected.to_owned()),
            "{lines}"
        );
    }

    #[test]
    fn a_store_wins_over_flags_and_flags_over_the_file() {
        let key = "maxidleconnsperhost = 5";
        let file = "maxIdleConnsPerHost = 3";
        let flags = ["--maxidleconnsperhost=4"];
        assert_eq!(stored_global(file, &flags, key).max_idle_conns_per_host, 5);
        assert_eq!(stored_global(file, &flags, "").max_idle_conns_per_host, 4);
        // What is empty is not there, and cannot put anything back.
        assert_eq!(
            stored_global(file, &[], "maxidleconnsperhost =").max_idle_conns_per_host,
            3
        );
        assert_eq!(
            stored_global("", &["--loglevel=INFO"], "LogLevel =").log_level,
            "INFO"
        );
        assert_eq!(
            stored_global("", &[], "MaxIdleConnsPerHost = 0x10").max_idle_conns_per_host,
            16
        );
    }

    #[test]
    fn sections_of_a_store_are_laid_over_option_by_option() {
        let api = |flags: &[&str], lines: &str| {
            let lines =
                format!("entrypoints/foo/address = :1\nentrypoints/http/address = :2\n{lines}");
            let api = stored_global("", flags, &lines).api.expect("on");
            (api.entry_point, api.dashboard)
        };
        assert_eq!(
            api(&["--api"], "api/entrypoint = foo"),
            ("foo".to_owned(), true)
        );
        // Defaults first, also where only the store has the section.
        assert_eq!(api(&[], "api/entrypoint = foo"), ("foo".to_owned(), true));
        assert_eq!(
            api(&[], "api/dashboard = false"),
            ("traefik".to_owned(), false)
        );
        // Markers and empty values make no section.
        let global = stored_global("", &[], "api/ =\nping/entrypoint =");
        assert!(global.api.is_none() && global.ping.is_none());
    }

    #[test]
    fn names_of_a_store_replace_and_lists_are_laid_over_item_by_item() {
        let file = "defaultEntryPoints = ['a', 'b', 'c']\n[entryPoints.http]\naddress = ':80'\nredirect.regex = 'x'\n\
                    [entryPoints.a]\naddress = ':1'\n[entryPoints.b]\naddress = ':2'\n[entryPoints.c]\naddress = ':3'\n\
                    [entryPoints.x]\naddress = ':4'\n";
        let global = stored_global(
            file,
            &[],
            "entrypoints/http/compress = true\ndefaultentrypoints/0 = x\nentrypoints/New/address = :9",
        );
        let http = &global.entry_points["http"];
        assert_eq!(
            (
                http.address.as_str(),
                http.compress,
                http.redirect.is_none()
            ),
            ("", true, true)
        );
        assert_eq!(global.default_entry_points, ["x", "b", "c"]);
        assert_eq!(global.entry_points["New"].address, ":9");
        let list = |lines: &str| stored_global("", &[], lines).root_cas;
        assert_eq!(
            list("rootcas/0 = a\nrootcas/5 = b\nrootcas/10 = c"),
            ["a", "b", "c"]
        );
        assert_eq!(list("rootcas = a, b"), ["a", "b"]);
        stored_fails(
            "rootcas/x = a",
            "p/rootcas/x: rootCAs: expected a number, since it is an item of a list",
        );
    }

    #[test]
    fn durations_of_a_store_are_nanoseconds_or_go_text() {
        let throttle = |value: &str| {
            stored_global("", &[], &format!("providersthrottleduration = {value}"))
                .providers_throttle_duration
                .as_nanos()
        };
        assert_eq!(throttle("5"), 5);
        assert_eq!(throttle("5000000000"), 5_000_000_000);
        assert_eq!(throttle("0x10"), 16);
        assert_eq!(throttle("10s"), 10_000_000_000);
        stored_fails(
            "providersthrottleduration = soon",
            "p/providersthrottleduration: providersThrottleDuration: expected a duration (nanoseconds, or text such as \
             \"500ms\" or \"1m30s\"), found `soon`: it is not a duration",
        );
    }

    #[test]
    fn a_store_with_mistakes_is_an_error_that_names_the_key() {
        stored_fails(
            "debug = yes",
            "p/debug: debug: expected a boolean (true, false, 1, 0, t or f), found `yes`",
        );
        stored_fails(
            "constraints/0 = tag",
            "p/constraints/0: constraints[0]: constraint expression missing valid operator: '==' or '!='",
        );
        stored_fails(
            "api = true",
            "p/api: api: expected keys below it, found a value",
        );
        stored_fails(
            "ping/entrypoint = nowhere",
            "p/ping: ping.entryPoint: unknown entry point \"nowhere\", there are: http",
        );
    }

    #[test]
    fn keys_of_others_below_the_prefix_do_no_harm() {
        let loaded = stored(
            "",
            &[],
            "backends/b/loadbalancer/stickiness = true\nbackends/b/loadbalancer/stickiness/cookiename = c\n\
             frontends/f/backend = b\ntls/1/entrypoints = x\nalias = y\nleader = z\nleader/lock = w\nunknown = 1\n\
             acme/account/object = x\ndebug = true\ndebug/x = 1\napi/dashbord = true",
        )
        .expect("usable");
        // Where a name is a value and a folder, the one that the option can have is taken.
        assert!(loaded.global.debug);
        assert!(loaded.global.acme.is_none() && loaded.global.api.is_none());
        assert_eq!(
            messages(&loaded),
            [
                "unknown option, ignored",
                "unknown option, ignored, did you mean `dashboard`?"
            ]
        );
    }

    #[test]
    fn what_a_flag_lacks_may_come_from_the_store() {
        let global = stored_global(
            "",
            &["--api.entrypoint=foo"],
            "entrypoints/foo/address = :1\nentrypoints/http/address = :2\nentrypoints/other/tls/snistrict = false",
        );
        assert_eq!(global.api.expect("on").entry_point, "foo");
        assert!(global.entry_points["other"].tls.is_some());
        assert_eq!(
            try_load("", &["--api.entrypoint=foo"]).map(|_| ()),
            Err("Error preparing server: --api.entrypoint: api.entryPoint: unknown entry point \"foo\", there are: http".to_owned())
        );
        // A prefix that the store names is the provider's; the store was read below the other one.
        assert_eq!(
            stored_global("", &[], "consul/prefix = other")
                .consul
                .expect("on")
                .prefix,
            "other"
        );
    }

    #[test]
    fn dynamic_configuration_is_read_as_written() {
        let (dynamic, diagnostics) = dynamic_from_toml(
            "r.toml",
            "[backends.b]\n[backends.b.servers.s]\nurl = 'http://a'\n[backends.b.servers.t]\nweight = 0\n\
             [backends.b.loadbalancer.stickiness]\n\
             [frontends.F]\nbackend = 'b'\nentrypoints = ['http']\npriority = 7\npasshostheader = true\n\
             [frontends.F.routes.r]\nrule = 'Host:a'\n\
             [frontends.F.rateLimit]\nextractorfunc = 'client.ip'\n\
             [frontends.F.ratelimit2]\n\
             [frontends.F.headers.customrequestheaders]\nX-Y = 'z'\n",
        )
        .expect("usable");
        let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            diagnostics,
            [
                "r.toml:16:14: frontends.F.ratelimit2: unknown option, ignored, did you mean `ratelimit`?"
            ]
        );
        let servers = &dynamic.backends["b"].servers;
        assert_eq!(
            (
                servers["s"].url.as_str(),
                servers["s"].weight,
                servers["t"].weight
            ),
            ("http://a", None, Some(0))
        );
        assert_eq!(servers["s"].place.to_string(), "r.toml:2:21");
        assert!(
            dynamic.backends["b"]
                .load_balancer
                .as_ref()
                .is_some_and(|lb| lb.stickiness.is_some())
        );
        let frontend = &dynamic.frontends["F"];
        assert_eq!(
            (
                frontend.backend.as_str(),
                frontend.priority,
                frontend.pass_host_header
            ),
            ("b", 7, true)
        );
        assert_eq!(frontend.place.to_string(), "r.toml:7:12");
        assert_eq!(frontend.routes["r"].rule, "Host:a");
        assert_eq!(frontend.routes["r"].place.to_string(), "r.toml:12:21");
        assert_eq!(
            frontend.ratelimit.as_ref().expect("written").extractor_func,
            "client.ip"
        );
        assert_eq!(
            frontend
                .headers
                .as_ref()
                .expect("written")
                .custom_request_headers["X-Y"],
            "z"
        );
    }

    #[test]
    fn the_period_of_a_rate_is_seconds_or_go_text() {
        let period = |value: &str| {
            let text = format!("[frontends.f.ratelimit.rateset.r]\nperiod = {value}\n");
            let (dynamic, _) = dynamic_from_toml("r", &text).map_err(|error| error.to_string())?;
            let ratelimit = dynamic.frontends["f"]
                .ratelimit
                .as_ref()
                .ok_or("no section")?;
            Ok::<f64, String>(seconds(ratelimit.rate_set["r"].period))
        };
        assert_eq!(period("10"), Ok(10.0));
        assert_eq!(period("'10'"), Ok(10.0));
        assert_eq!(period("'100ms'"), Ok(0.1));
        assert_eq!(
            period("'x'").expect_err("no duration"),
            "r:2:10: frontends.f.ratelimit.rateSet.r.period: expected a duration (seconds, or text such as \"500ms\" or \"1m30s\"), found `x`: it is not a duration"
        );
    }

    #[test]
    fn a_wrong_type_makes_the_whole_file_invalid() {
        let error = dynamic_from_toml("r", "[frontends.f]\nbackend = 'b'\npriority = '1'\n")
            .expect_err("invalid");
        assert_eq!(
            error.to_string(),
            "r:3:12: frontends.f.priority: expected an integer, found a string"
        );
        assert!(dynamic_from_toml("r", "[frontends.f").is_err());
    }

    #[test]
    fn deprecated_dynamic_options_are_named_once() {
        let (dynamic, diagnostics) = dynamic_from_toml(
            "r",
            "[frontends.f]\nbasicAuth = ['a:b']\n[frontends.g]\nbasicauth = ['a:b']\npassTLSCert = true\n\
             [backends.b.loadBalancer]\nsticky = true\n",
        )
        .expect("usable");
        let diagnostics: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(
            diagnostics,
            [
                "r:2:1: frontends.*.basicAuth: deprecated, use auth.basic.users instead (and 1 more)",
                "r:5:1: frontends.*.passTLSCert: deprecated, use passTLSClientCert instead",
                "r:7:1: backends.*.loadBalancer.sticky: deprecated, use loadBalancer.stickiness instead",
            ]
        );
        assert!(
            dynamic.backends["b"]
                .load_balancer
                .as_ref()
                .is_some_and(|lb| lb.sticky)
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = dynamic_from_toml("f", &String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn arbitrary_values_of_known_options_never_panic(
            section in proptest::sample::select(vec!["frontends.f", "backends.b", "tls", "frontends", "frontends.f.ratelimit.rateset.r"]),
            key in proptest::sample::select(vec!["backend", "auth", "priority", "servers", "period", "certificate", "headers", "x"]),
            value in "[\\[\\]{}=\"'.,a-c0-9-]{0,12}",
        ) {
            let _ = dynamic_from_toml("f", &format!("[{section}]\n{key} = {value}\n"));
        }

        #[test]
        fn arbitrary_arguments_never_panic(arguments in proptest::collection::vec("[-=a-z.,;: ]{0,20}|--entrypoints=.{0,30}|-[a-z=]{0,4}", 0..4)) {
            let _ = flags::parse(&arguments);
        }
    }
}
