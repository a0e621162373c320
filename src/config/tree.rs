//! The tree that every source of configuration becomes: a TOML file, flags, a key-value store.
//!
//! Owns the shape: every node knows where it was written. Never knows which options exist.
//! Read next: `option.rs` (what a tree is read into), `spelling.rs` (how its keys find their options).

use super::units::Place;

/// A value and where it was written. A table's place is that of its name.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    /// Text from a source without types (a flag): whoever reads it decides what it is.
    Word(String),
    /// TOML has dates; no option takes one.
    Date,
    List(Vec<Node>),
    Table(Table),
}

/// Named nodes. Names keep their spelling.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    pub(super) entries: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

impl Node {
    pub(super) fn new(place: &Place, data: Data) -> Self {
        Self {
            place: place.clone(),
            data,
        }
    }

    pub(super) fn table(place: &Place) -> Self {
        Self::new(place, Data::Table(Table::default()))
    }

    pub(super) fn word(place: &Place, text: &str) -> Self {
        Self::new(place, Data::Word(text.to_owned()))
    }

    pub(super) fn list(place: &Place, items: Vec<Self>) -> Self {
        Self::new(place, Data::List(items))
    }

    /// The node at `path`, if every table on the way exists.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| match &node.data {
            Data::Table(table) => table.get(name),
            _ => None,
        })
    }

    /// Puts `node` at `path`, replacing what was there. Tables on the way are made where they are missing.
    pub(super) fn set(&mut self, path: &[&str], node: Self) {
        let Some((first, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.data, Data::Table(_)) {
            self.data = Data::Table(Table::default());
        }
        let Data::Table(table) = &mut self.data else {
            unreachable!("made a table just above")
        };
        let index = match table.entries.iter().position(|entry| entry.name == *first) {
            Some(index) => index,
            None => {
                table.insert(first, &node.place, Self::table(&node.place));
                table.entries.len() - 1
            }
        };
        table.entries[index].node.set(rest, node);
    }

    /// Takes what is at `path` out.
    pub(super) fn remove(&mut self, path: &[&str]) {
        let (Some((first, rest)), Data::Table(table)) = (path.split_first(), &mut self.data) else {
            return;
        };
        if rest.is_empty() {
            table.entries.retain(|entry| entry.name != *first);
        } else if let Some(entry) = table.entries.iter_mut().find(|entry| entry.name == *first) {
            entry.node.remove(rest);
        }
    }

    /// What a message calls this kind of value.
    pub(super) fn kind(&self) -> &'static str {
        match self.data {
            Data::Bool(_) => "a boolean",
            Data::Integer(_) => "an integer",
            Data::Float(_) => "a float",
            Data::Text(_) | Data::Word(_) => "a string",
            Data::Date => "a date",
            Data::List(_) => "a list",
            Data::Table(_) => "a table",
        }
    }
}

impl Table {
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        self.entries
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| &entry.node)
    }

    pub(super) fn insert(&mut self, name: &str, place: &Place, node: Node) {
        self.entries.push(Named {
            name: name.to_owned(),
            place: place.clone(),
            node,
        });
    }
}
