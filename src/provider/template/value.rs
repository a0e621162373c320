//! Values of a template.
//!
//! Owns their sizes and how they print. A map is shared only between variables: what goes into a list or map, or comes out
//! of one, is a copy. So values are trees: never a cycle, never deeper than `DEPTH_MAX`, never heavier than
//! `VALUE_SIZE_MAX`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::rc::Rc;

use super::{DEPTH_MAX, VALUE_SIZE_MAX};

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// Nothing: a key that a map does not have.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(Rc<List>),
    Map(Rc<RefCell<Map>>),
    /// A moment, in seconds since 1970.
    Time(i64),
}

#[derive(Debug, Default)]
pub(super) struct List {
    items: Vec<Value>,
    size: Size,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    entries: BTreeMap<Rc<str>, Value>,
    size: Size,
}

/// How deep a value is, and about how many bytes it prints.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    depth: usize,
    weight: usize,
}

impl Size {
    fn with(self, part: &Value) -> Result<Self, String> {
        let part = part.size();
        let whole = Self {
            depth: self.depth.max(part.depth + 1),
            weight: self.weight + part.weight,
        };
        if whole.depth > DEPTH_MAX {
            return Err(format!("would nest values deeper than {DEPTH_MAX}"));
        }
        fits(whole.weight)?;
        Ok(whole)
    }
}

/// # Errors
/// More than a function may make.
pub(super) fn fits(weight: usize) -> Result<(), String> {
    if weight > VALUE_SIZE_MAX {
        return Err(format!(
            "would make more than {VALUE_SIZE_MAX} elements or bytes"
        ));
    }
    Ok(())
}

impl Value {
    pub(super) fn text(text: impl Into<Rc<str>>) -> Self {
        Self::Text(text.into())
    }

    pub(super) fn list(items: impl IntoIterator<Item = Self>) -> Result<Self, String> {
        let mut list = List::default();
        for item in items {
            list.size = list.size.with(&item)?;
            list.items.push(item.copy());
        }
        Ok(Self::List(Rc::new(list)))
    }

    pub(super) fn map(entries: impl IntoIterator<Item = (Rc<str>, Self)>) -> Result<Self, String> {
        let mut map = Map::default();
        for (key, value) in entries {
            map.set(key, &value)?;
        }
        Ok(Self::Map(Rc::new(RefCell::new(map))))
    }

    /// The value as it goes into or comes out of a container: changing a map there must not change it here.
    pub(super) fn copy(&self) -> Self {
        match self {
            Self::Map(map) => Self::Map(Rc::new(RefCell::clone(map))),
            other => other.clone(),
        }
    }

    pub(super) fn weight(&self) -> usize {
        self.size().weight
    }

    fn size(&self) -> Size {
        match self {
            Self::Text(text) => Size {
                depth: 0,
                weight: 1 + text.len(),
            },
            Self::List(list) => Size {
                depth: list.size.depth,
                weight: 1 + list.size.weight,
            },
            Self::Map(map) => {
                let size = map.borrow().size;
                Size {
                    depth: size.depth,
                    weight: 1 + size.weight,
                }
            }
            Self::Nil | Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Time(_) => Size {
                depth: 0,
                weight: 1,
            },
        }
    }

    /// Truth as in Go templates: not false, zero, nothing or empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.items.is_empty(),
            Self::Map(map) => !map.borrow().entries.is_empty(),
            Self::Time(_) => true,
        }
    }

    /// The name of the type, as Go prints it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Time(_) => "time",
        }
    }
}

impl List {
    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }
}

impl Map {
    pub(super) fn entries(&self) -> &BTreeMap<Rc<str>, Value> {
        &self.entries
    }

    pub(super) fn get(&self, key: &str) -> Value {
        self.entries.get(key).map_or(Value::Nil, Value::copy)
    }

    pub(super) fn set(&mut self, key: Rc<str>, value: &Value) -> Result<(), String> {
        // What a key held before still counts: an upper bound is all that is needed.
        let mut size = self.size.with(value)?;
        size.weight += key.len() + 1;
        fits(size.weight)?;
        self.size = size;
        self.entries.insert(key, value.copy());
        Ok(())
    }

    pub(super) fn unset(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

/// As Go's `%v`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("<nil>"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => f.write_str(&float(*value)),
            Self::Text(text) => f.write_str(text),
            Self::Time(seconds) => f.write_str(&super::text::date(
                "2006-01-02 15:04:05 -0700 MST",
                *seconds,
            )),
            Self::List(list) => {
                f.write_char('[')?;
                for (at, item) in list.items.iter().enumerate() {
                    if at > 0 {
                        f.write_char(' ')?;
                    }
                    write!(f, "{item}")?;
                }
                f.write_char(']')
            }
            Self::Map(map) => {
                f.write_str("map[")?;
                for (at, (key, value)) in map.borrow().entries.iter().enumerate() {
                    if at > 0 {
                        f.write_char(' ')?;
                    }
                    write!(f, "{key}:{value}")?;
                }
                f.write_char(']')
            }
        }
    }
}

/// Shortest form, with an exponent below 1e-4 and from 1e21 on, as Go prints it.
fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = value.abs();
    if size != 0.0 && !(1e-4..1e21).contains(&size) {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}
