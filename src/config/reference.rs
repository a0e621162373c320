//! The tables of `docs/configuration.md`, and the test that keeps the page equal to them: no option without a row, no row
//! without type, default, meaning, an example that the program reads, and what is different from Traefik 1.7.
//!
//! Made from the option tables and from `reference/*.toml`, which has the examples and the differences: a new option needs
//! a line there. `UPDATE_GOLDEN=1 cargo test --lib config::reference` writes the page again; what is outside the marks is kept.
//! Read next: `docs/configuration.md`.

use super::compact::{self, Shape};
use super::deprecated::DEPRECATED;
use super::flags::SHORT;
use super::option::{Entry, Kind, Value};
use super::tree::{Data, Node};
use super::units::Place;
use super::unsupported::{ROWS, Row};
use super::{Dynamic, Global, spelling, toml};

/// An example of every option, and what is different from Traefik 1.7, written as configuration.
const STATIC: &str = include_str!("reference/static.toml");
const DYNAMIC: &str = include_str!("reference/dynamic.toml");

/// A file of examples, as the program reads it.
struct Examples {
    tree: Node,
    lines: Vec<&'static str>,
    /// Lines that stand in a row.
    used: usize,
}

impl Examples {
    /// # Panics
    /// The program would not take all of it without a word.
    fn of<T: Value>(options: &'static [Entry], text: &'static str) -> Self {
        let mut tree = toml::parse("reference", text).unwrap_or_else(|error| panic!("{error}"));
        let mut diagnostics = Vec::new();
        spelling::correct(&mut tree, options, &|_| false, &mut diagnostics);
        assert_eq!(diagnostics, []);
        if let Err(error) = T::read(&tree) {
            panic!("{error}");
        }
        Self {
            tree,
            lines: text.lines().collect(),
            used: 0,
        }
    }

    /// The line at `place`, in two parts: the example, and what is different from 1.7.
    fn line(&mut self, place: &Place) -> (&'static str, &'static str) {
        let Place::File { line, .. } = place else {
            unreachable!("it was read from a file");
        };
        self.used += 1;
        let line = self.lines[*line as usize - 1];
        line.split_once(" # ").unwrap_or_else(|| {
            panic!(
                "{line}: what is different from 1.7? (`# as 1.7`, `# not in 1.7`, or a sentence)"
            )
        })
    }

    /// Lines that somebody has written for a row.
    fn written(&self) -> usize {
        let rows = self.lines.iter();
        rows.filter(|line| !line.starts_with('#') && line.contains(" # "))
            .count()
    }
}

/// Writes a table for each section, each kind of section once.
struct Tables {
    text: String,
    /// Whether options have flags.
    flags: bool,
    /// Sections that have their table, with their header.
    seen: Vec<(&'static [Entry], String)>,
    examples: Examples,
}

impl Tables {
    fn of<T: Value>(options: &'static [Entry], examples: &'static str, flags: bool) -> String {
        let mut tables = Self {
            text: String::new(),
            flags,
            seen: Vec::new(),
            examples: Examples::of::<T>(options, examples),
        };
        let tree = tables.examples.tree.clone();
        tables.section("", options, &tree);
        assert_eq!(
            tables.examples.used,
            tables.examples.written(),
            "examples that stand in no row: they belong to a section that looks like another one"
        );
        tables.text
    }

    /// `example` is the section in the examples.
    fn section(&mut self, path: &str, options: &'static [Entry], example: &Node) {
        if options.is_empty() {
            return;
        }
        self.seen.push((options, path.to_owned()));
        if !path.is_empty() {
            self.text.push_str(&format!("\n### `{path}`\n\n"));
        }
        let bare = path.trim_matches(['[', ']']);
        let flags = self.flags && !path.contains('<') && !path.contains("[[");
        if flags && !bare.is_empty() {
            let (dotted, first) = (bare.to_ascii_lowercase(), options[0].name);
            let first = first.to_ascii_lowercase();
            self.text.push_str(&format!(
                "Flags: `--{dotted}.` and the key, as in `--{dotted}.{first}=...`.\n\n"
            ));
        }
        self.text
            .push_str("| Key | Type | Default | Example | Meaning | Against 1.7 |\n|---|---|---|---|---|---|\n");
        let mut below = Vec::new();
        for option in options {
            let full = if bare.is_empty() {
                option.name.to_owned()
            } else {
                format!("{bare}.{}", option.name)
            };
            let Data::Table(table) = &example.data else {
                unreachable!("a section was read");
            };
            let found = table.entries.iter().find(|entry| entry.name == option.name);
            let Some(found) = found else {
                panic!("{full}: no example in src/config/reference/");
            };
            let (shown, against) = self.examples.line(&found.place);
            self.row(&full, option, flags, shown, against);
            match ((option.kind)(), &found.node.data) {
                (Kind::Section(options), _) => {
                    below.push((format!("[{full}]"), options, found.node.clone()));
                }
                (Kind::Map(inner), Data::Table(names)) => {
                    if let Kind::Section(options) = *inner {
                        let first = names.entries[0].node.clone();
                        below.push((format!("[{full}.<name>]"), options, first));
                    }
                }
                (Kind::List(inner, _), Data::List(items)) => {
                    if let Kind::Section(options) = *inner {
                        below.push((format!("[[{full}]]"), options, items[0].clone()));
                    }
                }
                _ => {}
            }
        }
        for (path, options, example) in below {
            match self.seen.iter().find(|(seen, _)| same(seen, options)) {
                Some((_, first)) => self
                    .text
                    .push_str(&format!("\n### `{path}`\n\nThe options of `{first}`.\n")),
                None => self.section(&path, options, &example),
            }
        }
    }

    fn row(&mut self, full: &str, option: &Entry, flags: bool, shown: &str, against: &str) {
        let kind = (option.kind)();
        let default = (option.default)();
        let default = match kind {
            Kind::Section(_) | Kind::Foreign if default.is_empty() => "off".to_owned(),
            Kind::Section(_) => "on".to_owned(),
            Kind::Text if default.is_empty() => "`\"\"`".to_owned(),
            Kind::List(..) if default.is_empty() => "`[]`".to_owned(),
            _ if default.is_empty() => "none".to_owned(),
            _ => format!("`{default}`"),
        };
        let letter = SHORT
            .iter()
            .find(|(_, long)| flags && long.eq_ignore_ascii_case(full))
            .map_or_else(String::new, |(letter, _)| format!(", `-{letter}`"));
        let instead = ROWS.iter().find(|row| {
            let rest = full.strip_prefix(row.option);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let against = match instead {
            Some(Row { instead, .. }) if !instead.contains("has no effect") => {
                "no effect yet: see [below](#not-there-yet)".to_owned()
            }
            Some(_) => "no effect".to_owned(),
            None => against.to_owned(),
        };
        let cells = [
            format!("`{}`{letter}", option.name),
            type_name(&kind).to_owned(),
            default,
            format!("`{shown}`"),
            option.about.trim().to_owned(),
            against,
        ];
        for cell in &cells {
            assert!(!cell.is_empty(), "{full}: an empty cell");
            self.text.push_str("| ");
            self.text.push_str(&cell.replace('|', "\\|"));
            self.text.push(' ');
        }
        self.text.push_str("|\n");
    }
}

/// Whether two tables would look the same.
fn same(a: &[Entry], b: &[Entry]) -> bool {
    let row = |entry: &Entry| (entry.name, entry.about, (entry.default)());
    a.iter().map(row).eq(b.iter().map(row))
}

fn type_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "boolean",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Text => "string",
        Kind::Duration => "duration",
        Kind::List(inner, _) => match **inner {
            Kind::Section(_) => "list of tables",
            Kind::Number => "list of numbers",
            _ => "list of strings",
        },
        Kind::Map(inner) => match **inner {
            Kind::Section(_) => "named tables",
            _ => "table of strings",
        },
        Kind::Section(_) => "table",
        Kind::Foreign => "table of anything",
    }
}

fn compact_table() -> String {
    let mut text = "| Key | Option | Value |\n|---|---|---|\n".to_owned();
    for (key, option, shape) in compact::KEYS {
        let option = if option.is_empty() {
            "the entry point's name, required"
        } else {
            &format!("`{option}`")
        };
        let shape = match shape {
            Shape::Text => "text",
            Shape::Switch => "`true`, `on` or `enable`; anything else is false",
            Shape::Items => "items separated by `,`",
            Shape::Pairs => "nothing, or `cert,key` pairs separated by `;`",
        };
        text.push_str(&format!("| `{key}` | {option} | {shape} |\n"));
    }
    text
}

fn deprecated_table() -> String {
    let mut text = "| Deprecated | Use |\n|---|---|\n".to_owned();
    for (option, replacement) in DEPRECATED {
        text.push_str(&format!("| `{option}` | `{replacement}` |\n"));
    }
    text
}

fn unsupported_table() -> String {
    let mut text = "| Option | What happens |\n|---|---|\n".to_owned();
    for row in ROWS {
        text.push_str(&format!("| `{}` | {} |\n", row.option, row.instead));
    }
    text
}

#[test]
fn the_page_has_every_option() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = std::fs::read_to_string(path).expect("docs/configuration.md");
    let mut expected = page.clone();
    for (mark, table) in [
        (
            "static",
            Tables::of::<Global>(Global::OPTIONS, STATIC, true),
        ),
        (
            "dynamic",
            Tables::of::<Dynamic>(Dynamic::OPTIONS, DYNAMIC, false),
        ),
        ("compact", compact_table()),
        ("deprecated", deprecated_table()),
        ("unsupported", unsupported_table()),
    ] {
        let (begin, end) = (
            format!("<!-- {mark}: made by src/config/reference.rs -->\n"),
            format!("<!-- {mark} ends -->"),
        );
        let (before, rest) = expected.split_once(&begin).expect(mark);
        let (_, after) = rest.split_once(&end).expect(mark);
        expected = format!("{before}{begin}{table}{end}{after}");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, expected).expect("written");
    } else if let Some((at, (found, wanted))) = page
        .lines()
        .zip(expected.lines())
        .enumerate()
        .find(|(_, (found, wanted))| found != wanted)
    {
        panic!(
            "docs/configuration.md:{}: has\n{found}\nbut the options say\n{wanted}\n(UPDATE_GOLDEN=1 writes it)",
            at + 1
        );
    } else {
        assert_eq!(
            page, expected,
            "docs/configuration.md (UPDATE_GOLDEN=1 writes it)"
        );
    }
}
