//! The command line: one flag for every static option, in the style of Go's flags. Spec static-config 1.4.
//!
//! Arguments become edits of the tree that the file became. Never reads a file and never prints.
//! Read next: `compact.rs` (the text form of an entry point), `load.rs`.

use std::fmt;

use super::compact;
use super::global::Global;
use super::option::{Entry, Kind};
use super::spelling::nearest;
use super::tree::{Data, Node};
use super::units::{Diagnostic, Place};

/// Flags with a letter of their own, and the one that is no option of the configuration.
pub(super) const SHORT: &[(char, &str)] = &[
    ('c', CONFIG_FILE),
    ('d', "debug"),
    ('g', "gracetimeout"),
    ('h', "help"),
    ('l', "loglevel"),
];

const CONFIG_FILE: &str = "configfile";

/// A flag that sets an option.
pub(super) struct Flag {
    /// Dotted path of the option in lower case, without the dashes.
    pub(super) name: String,
    path: Vec<&'static str>,
    pub(super) kind: Kind,
    pub(super) about: &'static str,
    pub(super) default: String,
}

/// One flag for every static option, ascending by name.
pub(super) fn all() -> Vec<Flag> {
    fn walk(options: &'static [Entry], path: &mut Vec<&'static str>, flags: &mut Vec<Flag>) {
        for option in options {
            path.push(option.name);
            let kind = (option.kind)();
            if let Kind::Section(options) = &kind {
                walk(options, path, flags);
            }
            flags.push(Flag {
                name: path.join(".").to_ascii_lowercase(),
                path: path.clone(),
                kind,
                about: option.about,
                default: (option.default)(),
            });
            path.pop();
        }
    }
    let mut flags = Vec::new();
    walk(Global::OPTIONS, &mut Vec::new(), &mut flags);
    flags.sort_by(|a, b| a.name.cmp(&b.name));
    flags
}

/// What a command line asks for.
#[derive(Debug, Default)]
pub(super) struct Flags {
    pub(super) help: bool,
    pub(super) config_file: Option<String>,
    pub(super) diagnostics: Vec<Diagnostic>,
    edits: Vec<Edit>,
}

#[derive(Debug)]
struct Edit {
    path: Vec<String>,
    place: Place,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// The whole section is put back to its defaults.
    Section,
    Set(Node),
    /// Items of a list; those of all flags of one list together replace it.
    Items(Vec<Node>),
}

/// A command line that cannot be understood. The message names the flag and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FlagError(pub(super) String);

impl fmt::Display for FlagError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads the arguments after the command word. Those that are no flags are ignored with a diagnostic, as Traefik
/// ignores them silently. After `--help` nothing more is read.
pub(super) fn parse(arguments: &[String]) -> Result<Flags, FlagError> {
    let known = all();
    let mut flags = Flags::default();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--" {
            break;
        } else if let Some(long) = argument.strip_prefix("--") {
            flags.long(long, &known)?;
        } else if let Some(letters) = argument
            .strip_prefix('-')
            .filter(|letters| !letters.is_empty())
        {
            flags.short(letters, &mut arguments, &known)?;
        } else {
            flags.diagnostics.push(Diagnostic {
                place: Place::Flag(argument.as_str().into()),
                message: "is not a flag, ignored (a flag's value follows `=`: --name=value)"
                    .to_owned(),
            });
        }
        if flags.help {
            break;
        }
    }
    Ok(flags)
}

impl Flags {
    fn long(&mut self, text: &str, known: &[Flag]) -> Result<(), FlagError> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        self.set(name, value, &format!("--{name}"), known)
    }

    /// `-cPATH`, `-c=PATH`, `-c PATH`, and letters without a value together: `-dlINFO`.
    fn short(
        &mut self,
        letters: &str,
        following: &mut std::slice::Iter<'_, String>,
        known: &[Flag],
    ) -> Result<(), FlagError> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            let typed = format!("-{letter}");
            let Some((_, name)) = SHORT.iter().find(|(short, _)| *short == letter) else {
                return Err(FlagError(format!(
                    "unknown shorthand flag: {letter:?} in -{letters}"
                )));
            };
            let attached = rest.as_str();
            let given = attached.strip_prefix('=');
            if matches!(*name, "debug" | "help") && given.is_none() {
                self.set(name, None, &typed, known)?;
                continue;
            }
            let value = match given {
                Some(value) => Some(value),
                None if attached.is_empty() => following.next().map(String::as_str),
                None => Some(attached),
            };
            return self.set(name, value, &typed, known);
        }
        Ok(())
    }

    fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        typed: &str,
        known: &[Flag],
    ) -> Result<(), FlagError> {
        let missing = || FlagError(format!("flag needs an argument: {typed}"));
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "help" => {
                self.help = true;
                return Ok(());
            }
            CONFIG_FILE => {
                self.config_file = Some(value.ok_or_else(missing)?.to_owned());
                return Ok(());
            }
            _ => {}
        }
        let place = Place::Flag(typed.into());
        let Ok(index) = known.binary_search_by(|flag| flag.name.as_str().cmp(&lower)) else {
            if let Some(flag) = foreign(&lower, known) {
                self.edit(flag, &place, Change::Section);
                return Ok(());
            }
            return Err(unknown(name, known));
        };
        let flag = &known[index];
        match &flag.kind {
            Kind::Section(_) | Kind::Foreign => match value.map(truth) {
                None | Some(Some(true)) => self.edit(flag, &place, Change::Section),
                Some(Some(false)) => self.diagnostics.push(Diagnostic {
                    place,
                    message: "has no effect: a flag cannot switch a section off, leave it out of the file".to_owned(),
                }),
                Some(None) => {
                    return Err(FlagError(format!(
                        "invalid argument {:?} for {typed}: expected a boolean (true, false, 1, 0, t or f)",
                        value.unwrap_or_default()
                    )));
                }
            },
            Kind::Bool => {
                let node = Node::word(&place, value.unwrap_or("true"));
                self.edit(flag, &place, Change::Set(node));
            }
            Kind::List(item, separators) => {
                let value = value.ok_or_else(missing)?;
                let nodes = match **item {
                    // The one list of tables that has a flag is acme.domains, whose entries are separated by `;`.
                    Kind::Section(_) => items(value, &[';']).map(|item| domain(item, &place)).collect(),
                    _ => items(value, separators).map(|item| Node::word(&place, item)).collect(),
                };
                self.edit(flag, &place, Change::Items(nodes));
            }
            Kind::Map(entry) => {
                let value = value.ok_or_else(missing)?;
                match **entry {
                    // The one map of sections is entryPoints.
                    Kind::Section(_) => {
                        let entry_point = compact::parse(value, typed, &mut self.diagnostics)
                            .map_err(|error| FlagError(format!("invalid argument for {typed}: {error}")))?;
                        let path = flag.path.iter().copied().chain([entry_point.name.as_str()]);
                        let path = path.map(str::to_owned).collect();
                        let place = entry_point.node.place.clone();
                        self.edits.push(Edit { path, place, change: Change::Set(entry_point.node) });
                    }
                    _ => {
                        let node = names(value, &place)
                            .map_err(|error| FlagError(format!("invalid argument for {typed}: {error}")))?;
                        self.edit(flag, &place, Change::Set(node));
                    }
                }
            }
            Kind::Integer | Kind::Number | Kind::Text | Kind::Duration => {
                let node = Node::word(&place, value.ok_or_else(missing)?);
                self.edit(flag, &place, Change::Set(node));
            }
        }
        Ok(())
    }

    fn edit(&mut self, flag: &Flag, place: &Place, change: Change) {
        let path = flag.path.iter().map(|&name| name.to_owned()).collect();
        self.edits.push(Edit {
            path,
            place: place.clone(),
            change,
        });
    }

    /// Lays the flags over `tree`, whose options are spelt as declared. Section flags go first, outer ones before
    /// inner ones, so that `--api.dashboard=false --api` means the same in either order.
    pub(super) fn apply(&self, tree: &mut Node) {
        let mut sections: Vec<&Edit> = self
            .edits
            .iter()
            .filter(|edit| matches!(edit.change, Change::Section))
            .collect();
        sections.sort_by_key(|edit| edit.path.len());
        for edit in sections {
            tree.set(&path(edit), Node::table(&edit.place));
        }
        for (index, edit) in self.edits.iter().enumerate() {
            match &edit.change {
                Change::Section => {}
                Change::Set(node) => tree.set(&path(edit), node.clone()),
                Change::Items(items) => {
                    let begun = self.edits[..index]
                        .iter()
                        .any(|earlier| earlier.path == edit.path);
                    let mut all = match tree.get(&path(edit)) {
                        Some(Node {
                            data: Data::List(earlier),
                            ..
                        }) if begun => earlier.clone(),
                        _ => Vec::new(),
                    };
                    all.extend(items.iter().cloned());
                    tree.set(&path(edit), Node::list(&edit.place, all));
                }
            }
        }
    }
}

fn path(edit: &Edit) -> Vec<&str> {
    edit.path.iter().map(String::as_str).collect()
}

/// The provider that `name` is an option of, if it is one that Coreway knows by name only.
fn foreign<'f>(name: &str, known: &'f [Flag]) -> Option<&'f Flag> {
    let provider = name.split('.').next()?;
    known
        .iter()
        .find(|flag| flag.name == provider && matches!(flag.kind, Kind::Foreign))
}

fn unknown(name: &str, known: &[Flag]) -> FlagError {
    let hint = if name.to_ascii_lowercase().starts_with("entrypoints.") {
        "; entry points are written --entryPoints='Name:http Address::80'".to_owned()
    } else {
        let names = known
            .iter()
            .map(|flag| flag.name.as_str())
            .chain(["configFile", "help"]);
        nearest(name, names).map_or_else(String::new, |name| format!("; did you mean --{name}?"))
    };
    FlagError(format!("unknown flag: --{name}{hint}"))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn items<'t>(text: &'t str, separators: &'static [char]) -> impl Iterator<Item = &'t str> {
    text.split(move |c| separators.contains(&c))
        .filter(|item| !item.is_empty())
}

/// `main.org,other.org`: a certificate's first name and its others.
fn domain(text: &str, place: &Place) -> Node {
    let mut names = items(text, &[',']);
    let mut domain = Node::table(place);
    domain.set(
        &["main"],
        Node::word(place, names.next().unwrap_or_default()),
    );
    domain.set(
        &["sans"],
        Node::list(place, names.map(|name| Node::word(place, name)).collect()),
    );
    domain
}

/// `A=drop B=keep`: names and their values, separated by blanks.
fn names(text: &str, place: &Place) -> Result<Node, FlagError> {
    let mut table = Node::table(place);
    for item in text.split_whitespace() {
        let Some((name, value)) = item.split_once('=') else {
            return Err(FlagError(format!(
                "expected name=value, separated by blanks, found {item:?}"
            )));
        };
        table.set(&[name], Node::word(place, value));
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::option::Value;
    use crate::config::{spelling, toml};

    fn try_load(file: &str, arguments: &[&str]) -> Result<(Global, Vec<String>), String> {
        let arguments: Vec<String> = arguments
            .iter()
            .map(|&argument| argument.to_owned())
            .collect();
        let flags = parse(&arguments).map_err(|error| error.to_string())?;
        let mut tree = toml::parse("f", file).expect("valid TOML");
        spelling::correct(&mut tree, Global::OPTIONS, &|_| false, &mut Vec::new());
        flags.apply(&mut tree);
        let global = Global::read(&tree).map_err(|error| error.to_string())?;
        Ok((
            global,
            flags.diagnostics.iter().map(ToString::to_string).collect(),
        ))
    }

    fn load(file: &str, arguments: &[&str]) -> Global {
        let (global, diagnostics) = try_load(file, arguments).expect("a usable command line");
        assert_eq!(diagnostics, [""; 0]);
        global
    }

    fn fails(arguments: &[&str], message: &str) {
        assert_eq!(try_load("", arguments).map(|_| ()), Err(message.to_owned()));
    }

    #[test]
    fn booleans_take_no_value_or_one_of_go() {
        assert!(load("", &["--debug"]).debug);
        assert!(load("", &["--DEBUG=1"]).debug);
        assert!(!load("debug = true", &["--debug=f"]).debug);
        assert!(load("", &["-d"]).debug);
        fails(
            &["--debug=maybe"],
            "--debug: debug: expected a boolean (true, false, 1, 0, t or f), found `maybe`",
        );
    }

    #[test]
    fn a_value_in_the_next_argument_is_not_taken() {
        fails(
            &["--maxidleconnsperhost", "3"],
            "flag needs an argument: --maxidleconnsperhost",
        );
        let (global, diagnostics) = try_load("", &["--debug", "false"]).expect("usable");
        assert!(global.debug);
        assert_eq!(
            diagnostics,
            ["false: is not a flag, ignored (a flag's value follows `=`: --name=value)"]
        );
    }

    #[test]
    fn short_flags() {
        let parsed = |arguments: &[&str]| {
            parse(&arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>()).expect("usable")
        };
        assert_eq!(parsed(&["-c/a/b"]).config_file.as_deref(), Some("/a/b"));
        assert_eq!(parsed(&["-c", "/a/b"]).config_file.as_deref(), Some("/a/b"));
        assert_eq!(parsed(&["-c=/a/b"]).config_file.as_deref(), Some("/a/b"));
        assert_eq!(
            parsed(&["--CONFIGfile=/A"]).config_file.as_deref(),
            Some("/A")
        );
        assert!(parsed(&["-h"]).help);
        assert_eq!(load("", &["-lINFO"]).log_level, "INFO");
        assert_eq!(load("", &["-g10s"]).grace_time_out.as_secs(), 10);
        let global = load("", &["-dlINFO"]);
        assert!(global.debug && global.log_level == "INFO");
        fails(&["-x"], "unknown shorthand flag: 'x' in -x");
        fails(&["-l"], "flag needs an argument: -l");
    }

    #[test]
    fn names_are_case_insensitive_and_values_untouched() {
        let global = load(
            "",
            &[
                "--ForwardingTimeouts.DIALTIMEOUT=7",
                "--entryPoints=Name:Abc Address::80",
            ],
        );
        assert_eq!(global.forwarding_timeouts.dial_timeout.as_secs(), 7);
        assert_eq!(global.entry_points["Abc"].address, ":80");
        assert_eq!(
            load("", &["--maxIdleConnsPerHost=0x10"]).max_idle_conns_per_host,
            16
        );
    }

    #[test]
    fn unknown_flags_are_refused_with_a_suggestion() {
        fails(&["--deubg"], "unknown flag: --deubg; did you mean --debug?");
        fails(&["--Transport.X=1"], "unknown flag: --Transport.X");
        fails(
            &["--entrypoints.http.address=:80"],
            "unknown flag: --entrypoints.http.address; entry points are written --entryPoints='Name:http Address::80'",
        );
    }

    #[test]
    fn a_section_flag_resets_the_whole_section() {
        let file = "[api]\nentryPoint = 'x'\ndashboard = false\n[retry]\nattempts = 5\n";
        let api = load(file, &["--api"]).api.expect("on");
        assert_eq!((api.entry_point.as_str(), api.dashboard), ("traefik", true));
        assert_eq!(load(file, &["--retry=true"]).retry.expect("on").attempts, 0);
        // A key of the section changes only itself, and makes the section with its defaults where there is none.
        let api = load(file, &["--api.dashboard=true"]).api.expect("on");
        assert_eq!((api.entry_point.as_str(), api.dashboard), ("x", true));
        let api = load("", &["--api.dashboard=false"]).api.expect("on");
        assert_eq!(
            (api.entry_point.as_str(), api.dashboard),
            ("traefik", false)
        );
        // In either order.
        let api = load(file, &["--api.dashboard=false", "--api"])
            .api
            .expect("on");
        assert_eq!(
            (api.entry_point.as_str(), api.dashboard),
            ("traefik", false)
        );
        assert_eq!(
            load("", &["--metrics.prometheus"])
                .metrics
                .expect("on")
                .prometheus
                .expect("on")
                .buckets
                .len(),
            4
        );
    }

    #[test]
    fn a_section_cannot_be_switched_off() {
        let (global, diagnostics) =
            try_load("[api]\nentryPoint = 'x'\n", &["--api=false"]).expect("usable");
        assert_eq!(global.api.expect("still on").entry_point, "x");
        assert_eq!(
            diagnostics,
            ["--api: has no effect: a flag cannot switch a section off, leave it out of the file"]
        );
        fails(
            &["--api=x"],
            "invalid argument \"x\" for --api: expected a boolean (true, false, 1, 0, t or f)",
        );
    }

    #[test]
    fn list_flags_split_append_and_replace_the_file() {
        let file = "defaultEntryPoints = ['a', 'b']\n";
        assert_eq!(load(file, &[]).default_entry_points, ["a", "b"]);
        assert_eq!(
            load(
                file,
                &["--defaultentrypoints=x,y", "--defaultEntryPoints=z"]
            )
            .default_entry_points,
            ["x", "y", "z"]
        );
        assert_eq!(load("", &["--rootcas=/a,/b"]).root_cas, ["/a", "/b"]);
        let filters = load("", &["--accesslog.filters.statuscodes=200,300-302;404"]);
        let codes = filters
            .access_log
            .and_then(|log| log.filters)
            .expect("on")
            .status_codes;
        assert_eq!(
            codes.iter().map(|code| code.0.as_str()).collect::<Vec<_>>(),
            ["200", "300-302", "404"]
        );
        let buckets = load("", &["--metrics.prometheus.buckets=0.1;0.3,2"]);
        assert_eq!(
            buckets
                .metrics
                .and_then(|m| m.prometheus)
                .expect("on")
                .buckets,
            [0.1, 0.3, 2.0]
        );
        let domains = load(
            "",
            &[
                "--acme.domains=main.com,san1.com;b.com",
                "--acme.domains=c.com",
            ],
        );
        let domains = domains.acme.expect("on").domains;
        assert_eq!(domains.len(), 3);
        assert_eq!(
            (domains[0].main.as_str(), &domains[0].sans[..]),
            ("main.com", &["san1.com".to_owned()][..])
        );
    }

    #[test]
    fn map_flags_are_separated_by_blanks() {
        let global = load("", &["--accesslog.fields.names=A=drop B=keep"]);
        let names = global
            .access_log
            .and_then(|log| log.fields)
            .expect("on")
            .names;
        assert_eq!((names["A"].as_str(), names["B"].as_str()), ("drop", "keep"));
        fails(
            &["--accesslog.fields.names=A"],
            "invalid argument for --accesslog.fields.names: expected name=value, separated by blanks, found \"A\"",
        );
    }

    #[test]
    fn the_last_of_repeated_scalars_wins() {
        assert_eq!(
            load(
                "logLevel = 'WARN'",
                &["--loglevel=INFO", "--logLevel=DEBUG"]
            )
            .log_level,
            "DEBUG"
        );
    }

    #[test]
    fn entry_points_are_merged_by_name() {
        let file =
            "[entryPoints.a]\naddress = ':1'\ncompress = true\n[entryPoints.b]\naddress = ':2'\n";
        let global = load(
            file,
            &[
                "--entrypoints=Name:a Address::3",
                "--entrypoints=Name:c Address::4",
            ],
        );
        let addresses: Vec<_> = global
            .entry_points
            .iter()
            .map(|(name, e)| (name.as_str(), e.address.as_str()))
            .collect();
        assert_eq!(addresses, [("a", ":3"), ("b", ":2"), ("c", ":4")]);
        assert!(
            !global.entry_points["a"].compress,
            "the same name is replaced, not merged"
        );
    }

    #[test]
    fn options_of_providers_we_do_not_have_are_accepted() {
        assert!(
            load("", &["--docker", "--docker.endpoint=x", "--docker.watch"])
                .docker
                .is_some()
        );
        assert!(
            load("", &["--consulcatalog.endpoint=x"])
                .consul_catalog
                .is_some()
        );
    }

    #[test]
    fn values_are_not_part_of_the_place() {
        let global = load(
            "",
            &[
                "--etcd.password=secret",
                "--entryPoints=Name:a Address::1 Auth.Basic.Users:a:b",
            ],
        );
        assert!(
            !format!("{global:?}")
                .replace("password: \"secret\"", "")
                .contains("secret")
        );
        assert_eq!(
            global.entry_points["a"].place.to_string(),
            "--entryPoints=Name:a"
        );
    }
}
