//! How the keys of a tree find their options: in any case, with a hint for those that find none.
//!
//! Turns a tree as written into one whose option names are spelt as declared, so that nothing after this needs to think
//! about case, and layers of configuration can be laid over each other by name. Names that are the operator's own
//! (entry points, frontends) are never touched.
//! Read next: `flags.rs`.

use super::option::{Entry, Kind};
use super::tree::{Data, Named, Node};
use super::units::{Diagnostic, Place, segment};

/// Spells the options of `node` as `options` declares them and drops what is none, with a diagnostic each, in the
/// order of the text. Keys for which `elsewhere` is true are dropped silently: they belong to another reader of the same text.
pub(super) fn correct(
    node: &mut Node,
    options: &'static [Entry],
    elsewhere: &dyn Fn(&str) -> bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let mut found = Vec::new();
    section(node, options, "", elsewhere, &mut found);
    found.sort_by_key(|diagnostic| match diagnostic.place {
        Place::File { line, column, .. } => (line, column),
        _ => (0, 0),
    });
    diagnostics.append(&mut found);
}

fn section(
    node: &mut Node,
    options: &'static [Entry],
    path: &str,
    elsewhere: &dyn Fn(&str) -> bool,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let Data::Table(table) = &mut node.data else {
        return;
    };
    let mut found: Vec<Named> = Vec::with_capacity(table.entries.len());
    // Exact spellings first: where several match one option, the exact one is preferred.
    let (exact, others): (Vec<_>, Vec<_>) = std::mem::take(&mut table.entries)
        .into_iter()
        .partition(|entry| options.iter().any(|option| option.name == entry.name));
    for mut entry in exact.into_iter().chain(others) {
        let Some(option) = options
            .iter()
            .find(|option| option.name.eq_ignore_ascii_case(&entry.name))
        else {
            if !elsewhere(&entry.name) {
                let known = options.iter().map(|option| option.name);
                let hint = nearest(&entry.name, known);
                let hint =
                    hint.map_or_else(String::new, |name| format!(", did you mean `{name}`?"));
                let message = format!(
                    "{}: unknown option, ignored{hint}",
                    below(path, &entry.name)
                );
                diagnostics.push(Diagnostic {
                    place: entry.place,
                    message,
                });
            }
            continue;
        };
        if let Some(first) = found.iter_mut().find(|other| other.name == option.name) {
            join(first, entry, path, diagnostics);
            continue;
        }
        entry.name = option.name.to_owned();
        found.push(entry);
    }
    for entry in &mut found {
        let option = options.iter().find(|option| option.name == entry.name);
        let kind = option.expect("found is spelt as declared").kind;
        value(
            &mut entry.node,
            &kind(),
            &below(path, &entry.name),
            diagnostics,
        );
    }
    table.entries = found;
}

/// Adds a second spelling of one option to the first: tables are joined, as they would be in one spelling; of two other
/// values the first holds.
fn join(first: &mut Named, second: Named, path: &str, diagnostics: &mut Vec<Diagnostic>) {
    match (&mut first.node.data, second.node.data) {
        (Data::Table(table), Data::Table(more)) => {
            let path = below(path, &second.name);
            for entry in more.entries {
                match table
                    .entries
                    .iter_mut()
                    .find(|other| other.name == entry.name)
                {
                    Some(other) => join(other, entry, &path, diagnostics),
                    None => table.entries.push(entry),
                }
            }
        }
        _ => diagnostics.push(Diagnostic {
            place: second.place,
            message: format!(
                "{}: ignored, since it is also written at {}",
                below(path, &second.name),
                first.place
            ),
        }),
    }
}

fn value(node: &mut Node, kind: &Kind, path: &str, diagnostics: &mut Vec<Diagnostic>) {
    match (kind, &mut node.data) {
        (Kind::Section(options), _) => section(node, options, path, &|_| false, diagnostics),
        (Kind::Map(inner), Data::Table(table)) => {
            for entry in &mut table.entries {
                value(
                    &mut entry.node,
                    inner,
                    &below(path, &entry.name),
                    diagnostics,
                );
            }
        }
        (Kind::List(inner, _), Data::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                value(item, inner, &format!("{path}[{index}]"), diagnostics);
            }
        }
        _ => {}
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        segment(name)
    } else {
        format!("{path}.{}", segment(name))
    }
}

/// The known name that `written` is most likely a misspelling of: at most a third of its letters are wrong.
pub(super) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    // A key of this length is no typing error, and the search takes time that grows with its square.
    const LENGTH_MAX: usize = 80;
    let written: Vec<char> = written
        .to_lowercase()
        .chars()
        .take(LENGTH_MAX + 1)
        .collect();
    if written.len() > LENGTH_MAX {
        return None;
    }
    let allowed = (written.len() / 3).max(1);
    known
        .map(|name| {
            (
                distance(&written, &name.to_lowercase().chars().collect::<Vec<_>>()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters to add, remove, replace or swap with their neighbour until `a` is `b`.
fn distance(a: &[char], b: &[char]) -> usize {
    // rows[i][j] is the distance of the first i letters of `a` and the first j of `b`.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested() {
        let known = ["entryPoint", "entryPoints", "retry", "rest", "web"];
        let check = |written: &str, expected: Option<&str>| {
            assert_eq!(nearest(written, known.into_iter()), expected, "{written}");
        };
        check("entrypiont", Some("entryPoint"));
        check("enrtyPoints", Some("entryPoints"));
        check("retyr", Some("retry"));
        check("wbe", Some("web"));
        check("transport", None);
        check("x", None);
        check("", None);
        check(&"é".repeat(10_000), None);
    }
}
