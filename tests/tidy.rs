//! The shape of the source: who may import whom, where unsafe code lives, what every file begins with.
//!
//! Owns the import table; a new arrow is the largest kind of change and needs a line here and in `docs/architecture.md`.
//! Reads text, not syntax: a path in a comment or a string is left out, anything else that looks like `crate::x` counts.

use std::fs;
use std::path::{Path, PathBuf};

/// For each unit of `src/`, the units it may import. Everybody may import `limits` and `telemetry`.
const IMPORTS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("telemetry", &[]),
    ("config", &[]),
    ("reactor", &[]),
    ("http", &[]),
    ("tls", &[]),
    ("settings", &["frontend", "tls"]),
    ("backend", &["http"]),
    ("frontend", &["http", "backend"]),
    ("snapshot", &["frontend", "backend", "tls"]),
    ("mailbox", &["snapshot", "http"]),
    ("store", &["config", "tls"]),
    ("provider", &["config", "store"]),
    ("acme", &["config", "store", "tls"]),
    ("api", &["config", "snapshot"]),
    (
        "compile",
        &[
            "config", "settings", "snapshot", "frontend", "backend", "tls",
        ],
    ),
    (
        "control",
        &[
            "provider", "store", "compile", "acme", "api", "config", "settings", "snapshot",
            "mailbox",
        ],
    ),
    (
        "proxy",
        &[
            "reactor", "http", "frontend", "backend", "snapshot", "mailbox", "settings", "tls",
        ],
    ),
    ("demo", &["config", "main"]),
    (
        "main",
        &["config", "control", "compile", "proxy", "reactor", "demo"],
    ),
    // The map: it declares every unit and uses none.
    ("lib", &[]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below `src/`, with its unit: the folder or file directly below.
fn files() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let first = path.strip_prefix(source()).unwrap().iter().next().unwrap();
                let unit = Path::new(first)
                    .file_stem()
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                files.push((path, unit));
            }
        }
    }
    files.sort();
    assert!(files.len() > 10, "the source is where it should be");
    files
}

/// Lines with code, numbered from 1: comments and what stands in plain strings are taken out.
fn code(text: &str) -> Vec<(usize, String)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            // Every second piece between quotes is inside a string.
            let outside: Vec<_> = line.split('"').step_by(2).collect();
            let line = outside.join("\"");
            (
                number + 1,
                line.split("//").next().unwrap_or_default().to_owned(),
            )
        })
        .collect()
}

/// The names behind `crate::` (`coreway::` in the binary), also in `crate::{a, b::c}`.
fn imports(line: &str, root: &str) -> Vec<String> {
    let name = |text: &str| {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect::<String>()
    };
    let mut found = Vec::new();
    for rest in line.split(root).skip(1) {
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            for piece in list.split_inclusive([',', '{', '}']) {
                if depth == 0 {
                    found.push(name(piece.trim()));
                }
                depth += piece.matches('{').count();
                depth = depth.saturating_sub(piece.matches('}').count());
            }
        } else {
            found.push(name(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn check_imports(line: &str, expected: &[&str]) {
    assert_eq!(imports(line, "crate::"), expected, "{line}");
}

#[test]
fn the_scanner_sees_every_form_of_import() {
    check_imports("use crate::http::Head;", &["http"]);
    check_imports(
        "let x = crate::limits::A + crate::backend::b();",
        &["limits", "backend"],
    );
    check_imports(
        "use crate::{http::{Head, Span}, backend};",
        &["http", "backend"],
    );
    check_imports("pub(crate) fn x() {}", &[]);
    assert_eq!(
        code("a // crate::x\n\"crate::y\" b"),
        [(1, "a ".to_owned()), (2, "\" b".to_owned())]
    );
}

#[test]
fn imports_follow_the_table() {
    let mut wrong = Vec::new();
    for (path, unit) in files() {
        let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == unit) else {
            wrong.push(format!(
                "{}: the unit {unit} is not in the table",
                path.display()
            ));
            continue;
        };
        let text = fs::read_to_string(&path).unwrap();
        let root = if unit == "main" {
            "coreway::"
        } else {
            "crate::"
        };
        for (number, line) in code(&text) {
            for import in imports(&line, root) {
                let known = IMPORTS.iter().any(|(name, _)| *name == import);
                let free = import == unit || matches!(import.as_str(), "limits" | "telemetry");
                if known && !free && !allowed.contains(&import.as_str()) {
                    wrong.push(format!(
                        "{}:{number}: {unit} imports {import}",
                        path.display()
                    ));
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that are not in the table:\n{}",
        wrong.join("\n")
    );
}

/// Fails with every line of code that `finds` something in.
#[track_caller]
fn check_nowhere(what: &str, finds: impl Fn(&str, &str) -> bool) {
    let mut wrong = Vec::new();
    for (path, unit) in files() {
        for (number, line) in code(&fs::read_to_string(&path).unwrap()) {
            if finds(&unit, &line) {
                wrong.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_the_reactor() {
    check_nowhere("unsafe code outside src/reactor", |unit, line| {
        unit != "reactor"
            && ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
                .iter()
                .any(|form| line.contains(form))
    });
}

#[test]
fn nothing_is_left_to_do() {
    check_nowhere("work that is not done", |_, line| {
        line.contains("todo!(") || line.contains("unimplemented!(")
    });
}

#[test]
fn runtimes_are_named_only_in_the_reactor() {
    check_nowhere("a runtime crate outside src/reactor", |unit, line| {
        unit != "reactor"
            && (line.contains("monoio::")
                || line.contains("glommio::")
                || line.contains("io_uring::"))
    });
}

#[test]
fn the_data_plane_never_names_tokio() {
    check_nowhere("tokio in the data plane", |unit, line| {
        matches!(
            unit,
            "reactor" | "http" | "frontend" | "backend" | "proxy" | "snapshot" | "mailbox"
        ) && line.contains("tokio::")
            // The shape of a socket, in which the `h2` crate wants its bytes: two traits, and no runtime.
            && line.trim() != "use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};"
    });
}

#[test]
fn every_file_says_what_it_is_for() {
    for (path, _) in files() {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//! "), "{} has no header", path.display());
        assert!(
            !text.starts_with("//! stub"),
            "{} is a stub",
            path.display()
        );
    }
}

#[test]
fn every_unit_is_in_the_architecture_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(page).unwrap();
    for (unit, _) in IMPORTS.iter().filter(|(unit, _)| *unit != "lib") {
        assert!(
            text.contains(unit),
            "docs/architecture.md does not mention {unit}"
        );
    }
}
