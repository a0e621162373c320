//! The tables of `docs/configuration.md`, made from the option tables, and the test that keeps the page equal to them.
//!
//! `UPDATE_GOLDEN=1 cargo test --lib config::reference` writes the page again; what is outside the marks is kept.
//! Read next: `docs/configuration.md`.

use super::compact::{self, Shape};
use super::deprecated::DEPRECATED;
use super::flags::SHORT;
use super::option::{Entry, Kind};
use super::unsupported::ROWS;
use super::{Dynamic, Global};

/// Writes a table for each section, each kind of section once.
struct Tables {
    text: String,
    /// Whether options have flags.
    flags: bool,
    /// Sections that have their table, with their header.
    seen: Vec<(&'static [Entry], String)>,
}

impl Tables {
    fn of(options: &'static [Entry], flags: bool) -> String {
        let mut tables = Self {
            text: String::new(),
            flags,
            seen: Vec::new(),
        };
        tables.section("", options);
        tables.text
    }

    fn section(&mut self, path: &str, options: &'static [Entry]) {
        if options.is_empty() {
            return;
        }
        self.seen.push((options, path.to_owned()));
        if !path.is_empty() {
            self.text.push_str(&format!("\n### `{path}`\n\n"));
        }
        let flags = self.flags && !path.contains('<') && !path.contains("[[");
        let (flag_head, flag_line) = if flags { (" Flag |", "---|") } else { ("", "") };
        self.text.push_str(&format!(
            "| Key | Type | Default |{flag_head} Meaning |\n|---|---|---|{flag_line}---|\n"
        ));
        let bare = path.trim_matches(['[', ']']);
        let mut below = Vec::new();
        for option in options {
            let full = if bare.is_empty() {
                option.name.to_owned()
            } else {
                format!("{bare}.{}", option.name)
            };
            let kind = (option.kind)();
            let default = (option.default)();
            let default = match kind {
                Kind::Section(_) | Kind::Foreign if default.is_empty() => "off".to_owned(),
                Kind::Section(_) => "on".to_owned(),
                _ if default.is_empty() => String::new(),
                _ => format!("`{default}`"),
            };
            let flag = match flags {
                true => format!(" {} |", flag(&full)),
                false => String::new(),
            };
            let about = option.about.trim().replace('|', "\\|");
            self.text.push_str(&format!(
                "| `{}` | {} | {default} |{flag} {about} |\n",
                option.name,
                type_name(&kind)
            ));
            match kind {
                Kind::Section(options) => below.push((format!("[{full}]"), options)),
                Kind::Map(inner) => {
                    if let Kind::Section(options) = *inner {
                        below.push((format!("[{full}.<name>]"), options));
                    }
                }
                Kind::List(inner, _) => {
                    if let Kind::Section(options) = *inner {
                        below.push((format!("[[{full}]]"), options));
                    }
                }
                _ => {}
            }
        }
        for (path, options) in below {
            match self.seen.iter().find(|(seen, _)| same(seen, options)) {
                Some((_, first)) => self
                    .text
                    .push_str(&format!("\n### `{path}`\n\nThe options of `{first}`.\n")),
                None => self.section(&path, options),
            }
        }
    }
}

/// Whether two tables would look the same.
fn same(a: &[Entry], b: &[Entry]) -> bool {
    let row = |entry: &Entry| (entry.name, entry.about, (entry.default)());
    a.iter().map(row).eq(b.iter().map(row))
}

fn flag(path: &str) -> String {
    let name = path.to_ascii_lowercase();
    let short = SHORT.iter().find(|(_, long)| *long == name);
    let short = short.map_or_else(String::new, |(letter, _)| format!(", `-{letter}`"));
    format!("`--{name}`{short}")
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
        ("static", Tables::of(Global::OPTIONS, true)),
        ("dynamic", Tables::of(Dynamic::OPTIONS, false)),
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
