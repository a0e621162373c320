//! TOML text becomes a tree whose nodes know their line and column.
//!
//! Never opens a file and never knows which options exist. Read next: `spelling.rs`.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{Data, Named, Node, Table};
use super::units::{ConfigError, Place};

/// Parses `text`, which came from the file `path`.
///
/// # Errors
/// The text is not TOML, or holds a number that fits no option. Nothing of it can be used.
pub(super) fn parse(path: &str, text: &str) -> Result<Node, ConfigError> {
    let source = Source::new(path, text);
    let document = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(text.len(), |span| span.start);
        ConfigError::new(&source.place(start), error.message())
    })?;
    let table = source.table(document.into_inner())?;
    Ok(Node {
        place: source.place(0),
        data: Data::Table(table),
    })
}

/// A text with its line starts, so that a byte offset becomes a place quickly.
struct Source<'a> {
    path: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Source<'a> {
    fn new(path: &str, text: &'a str) -> Self {
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            path: path.into(),
            text,
            line_starts,
        }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self
            .line_starts
            .partition_point(|&start| start <= offset)
            .max(1);
        let start = self.line_starts[line - 1];
        // An offset inside a character (or past the end) counts as that character's column.
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        let column = before
            .iter()
            .filter(|&&byte| byte & 0b1100_0000 != 0b1000_0000)
            .count()
            + 1;
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Place::File {
            path: Arc::clone(&self.path),
            line: number(line),
            column: number(column),
        }
    }

    fn table(&self, table: DeTable<'_>) -> Result<Table, ConfigError> {
        let entries = table.into_iter().map(|(key, value)| {
            let place = self.place(key.span().start);
            let name = key.into_inner().into_owned();
            let mut node = self.node(value).map_err(|error| error.within(&name))?;
            if matches!(node.data, Data::Table(_)) {
                node.place = place.clone();
            }
            Ok(Named { name, place, node })
        });
        Ok(Table {
            entries: entries.collect::<Result<_, _>>()?,
        })
    }

    fn node(&self, value: Spanned<DeValue<'_>>) -> Result<Node, ConfigError> {
        let place = self.place(value.span().start);
        let data = match value.into_inner() {
            DeValue::String(text) => Data::Text(text.into_owned()),
            DeValue::Boolean(value) => Data::Bool(value),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(value) => Data::Integer(value),
                    Err(_) => {
                        return Err(ConfigError::new(
                            &place,
                            format!("the number {number} is too large"),
                        ));
                    }
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(value) => Data::Float(value),
                Err(_) => {
                    return Err(ConfigError::new(
                        &place,
                        format!("{number} is not a number"),
                    ));
                }
            },
            DeValue::Datetime(_) => Data::Date,
            DeValue::Array(items) => {
                let items = items.into_iter().enumerate();
                let nodes =
                    items.map(|(index, item)| self.node(item).map_err(|error| error.at(index)));
                Data::List(nodes.collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Data::Table(self.table(table)?),
        };
        Ok(Node { place, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists `path = place` for every leaf and table.
    fn places(text: &str) -> String {
        fn walk(node: &Node, path: &str, out: &mut String) {
            match &node.data {
                Data::Table(table) => {
                    for entry in &table.entries {
                        let path = format!("{path}/{}", entry.name);
                        out.push_str(&format!("{path} {} {}\n", entry.place, entry.node.place));
                        walk(&entry.node, &path, out);
                    }
                }
                Data::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        out.push_str(&format!("{path}[{index}] {}\n", item.place));
                        walk(item, &format!("{path}[{index}]"), out);
                    }
                }
                _ => {}
            }
        }
        let mut out = String::new();
        walk(&parse("f", text).expect("valid TOML"), "", &mut out);
        out
    }

    #[test]
    fn every_node_knows_its_place() {
        assert_eq!(
            places("a = 1\n\n[b.c]\n  'é' = { x = 2 } \n[[d]]\nlist = [1, 2]\n"),
            "/a f:1:1 f:1:5\n\
             /b f:3:2 f:3:2\n\
             /b/c f:3:4 f:3:4\n\
             /b/c/é f:4:3 f:4:3\n\
             /b/c/é/x f:4:11 f:4:15\n\
             /d f:5:3 f:5:1\n\
             /d[0] f:5:1\n\
             /d[0]/list f:6:1 f:6:8\n\
             /d[0]/list[0] f:6:9\n\
             /d[0]/list[1] f:6:12\n",
        );
    }

    #[test]
    fn errors_name_line_and_column() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                parse("f.toml", text).expect_err("invalid").to_string(),
                expected
            );
        };
        check(
            "a = \n",
            "f.toml:1:5: string values must be quoted, expected literal string",
        );
        check("a = 1\na = 2\n", "f.toml:2:1: duplicate key");
        check(
            "a = 99999999999999999999\n",
            "f.toml:1:5: a: the number 99999999999999999999 is too large",
        );
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        for text in [
            format!("a = {}", "[".repeat(100_000)),
            format!("a = {}", "{ a = ".repeat(100_000)),
            format!("{}a = 1", "a.".repeat(100_000)),
            format!("[{}a]", "a.".repeat(100_000)),
        ] {
            assert!(parse("f", &text).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse("f", &String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn arbitrary_toml_like_text_never_panics(text in "[\\[\\]{}=\"'.,#a-c0-9 \\n\u{e9}\\\\]{0,80}") {
            let _ = parse("f", &text);
        }
    }
}
