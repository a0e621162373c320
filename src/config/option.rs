//! What an option is: its name, type, default and meaning, declared once, in the `options!` macro.
//!
//! From one declaration come the struct that the program uses, its defaults, how it is read from a tree, its flag, its
//! line of `--help` and its row in `docs/configuration.md`.
//! Never holds an option itself: those are in `global.rs`, `entrypoint.rs`, `dynamic.rs` and their neighbours.
//! Read next: `global.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tree::{Data, Node, Table};
use super::units::{self, ConfigError, Place};

/// One option of a section, as documentation, flags and the search for a misspelt key see it.
pub(super) struct Entry {
    /// As TOML spells it.
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) kind: fn() -> Kind,
    pub(super) default: fn() -> String,
}

/// The shape of an option's value.
pub(super) enum Kind {
    Bool,
    Integer,
    Number,
    Text,
    Duration,
    /// A list; the characters separate items where the whole list is one text.
    List(Box<Self>, &'static [char]),
    /// Named values; the names are the operator's.
    Map(Box<Self>),
    Section(&'static [Entry]),
    /// Anything at all: options of a provider that Coreway does not have.
    Foreign,
}

/// A value without its type, for those who write configuration down: as keys of a store, as JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Written {
    /// A section or a value that is not there.
    Absent,
    Bool(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Duration(Duration),
    List(Vec<Self>),
    Map(Vec<(String, Self)>),
    Section(Vec<(&'static str, Self)>),
    /// A section of a provider that Coreway does not have: what is in it was not kept.
    Foreign,
}

/// How a value looks to a person.
pub(super) trait Show {
    fn show(&self) -> String;
}

/// Called for each option that was set to something else than its default: its path, the place of the nearest section,
/// and its value.
pub(super) type Visitor<'v> = &'v mut dyn FnMut(&[&str], &Place, &dyn Show);

/// A type that an option can have.
pub(super) trait Value: Show + Sized {
    /// What separates items of a list of this type in a flag.
    const SEPARATORS: &'static [char] = &[','];

    fn kind() -> Kind;

    /// # Errors
    /// The node holds something else, or a value that is out of range.
    fn read(node: &Node) -> Result<Self, ConfigError>;

    /// The value with all that is in it, defaults included.
    fn written(&self) -> Written;

    /// Where it was written, for types that remember.
    fn place(&self) -> Option<&Place> {
        None
    }

    /// Reports itself and what is set below it.
    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, place: &Place, visitor: Visitor<'_>) {
        visitor(path, place, self);
    }
}

/// Declares sections: `"name" field: Type = default,` with its meaning above it. Without a default it is the type's own.
/// A section that begins with `place;` remembers where it was written.
macro_rules! options {
    ($(
        $(#[doc = $about:literal])*
        pub struct $name:ident { $($place:ident;)?
            $( $(#[doc = $doc:literal])* $key:literal $field:ident: $type:ty $(= $default:expr)?, )*
        }
    )*) => {$(
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                /// Where the section was written.
                pub $place: $crate::config::units::Place,
            )?
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($place: $crate::config::units::Place::Default,)?
                    $($field: $crate::config::option::options!(@default $($default)?),)*
                }
            }
        }

        impl $name {
            /// Every option of this section, in the order of its documentation.
            pub(in crate::config) const OPTIONS: &'static [$crate::config::option::Entry] = &[$(
                $crate::config::option::Entry {
                    name: $key,
                    about: concat!($($doc),*),
                    kind: <$type as $crate::config::option::Value>::kind,
                    default: || $crate::config::option::Show::show(&Self::default().$field),
                },
            )*];
        }

        impl $crate::config::option::Show for $name {
            fn show(&self) -> String {
                "on".to_owned()
            }
        }

        impl $crate::config::option::Value for $name {
            fn kind() -> $crate::config::option::Kind {
                $crate::config::option::Kind::Section(Self::OPTIONS)
            }

            #[allow(unused_variables, reason = "a section may have no options")]
            fn read(
                node: &$crate::config::tree::Node,
            ) -> Result<Self, $crate::config::units::ConfigError> {
                let table = $crate::config::option::table(node)?;
                let default = Self::default();
                Ok(Self {
                    $($place: node.place.clone(),)?
                    $($field: $crate::config::option::read(table, $key, default.$field)?,)*
                })
            }

            fn written(&self) -> $crate::config::option::Written {
                $crate::config::option::Written::Section(vec![
                    $(($key, $crate::config::option::Value::written(&self.$field)),)*
                ])
            }

            $(
                fn place(&self) -> Option<&$crate::config::units::Place> {
                    Some(&self.$place)
                }
            )?

            #[allow(unused_variables, reason = "a section may have no options")]
            fn visit<'a>(
                &'a self,
                path: &mut Vec<&'a str>,
                place: &$crate::config::units::Place,
                visitor: $crate::config::option::Visitor<'_>,
            ) {
                $(let place = { let _ = place; &self.$place };)?
                visitor(path, place, self);
                let default = Self::default();
                $(
                    if self.$field != default.$field {
                        path.push($key);
                        $crate::config::option::Value::visit(&self.$field, path, place, visitor);
                        path.pop();
                    }
                )*
            }
        }
    )*};
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}

pub(super) use options;

/// The shape of the option at the dotted `path`, where `*` stands for any name, if there is one.
#[cfg(test)]
pub(super) fn kind_at(options: &'static [Entry], path: &str) -> Option<Kind> {
    path.split('.')
        .try_fold(Kind::Section(options), |kind, step| match kind {
            Kind::Section(options) => options
                .iter()
                .find(|option| option.name == step)
                .map(|option| (option.kind)()),
            Kind::Map(inner) if step == "*" => Some(*inner),
            _ => None,
        })
}

/// The option called `name`, or `default` where it is not written.
pub(super) fn read<T: Value>(table: &Table, name: &str, default: T) -> Result<T, ConfigError> {
    match table.get(name) {
        Some(node) => T::read(node).map_err(|error| error.within(name)),
        None => Ok(default),
    }
}

/// The table a section is read from.
pub(super) fn table(node: &Node) -> Result<&Table, ConfigError> {
    match &node.data {
        Data::Table(table) => Ok(table),
        _ => Err(expected("a table", node)),
    }
}

fn expected(what: &str, node: &Node) -> ConfigError {
    let message = match &node.data {
        Data::Word(word) => format!("expected {what}, found `{}`", excerpt(word)),
        _ => format!("expected {what}, found {}", node.kind()),
    };
    ConfigError::new(&node.place, message)
}

/// The beginning of a value, for a message: values can be as long as a certificate.
fn excerpt(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    if short.len() == text.len() {
        short
    } else {
        format!("{short}...")
    }
}

impl Value for bool {
    fn written(&self) -> Written {
        Written::Bool(*self)
    }

    fn kind() -> Kind {
        Kind::Bool
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        match &node.data {
            Data::Bool(value) => Ok(*value),
            Data::Word(word) => match word.as_str() {
                "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
                _ => Err(expected("a boolean (true, false, 1, 0, t or f)", node)),
            },
            _ => Err(expected("a boolean", node)),
        }
    }
}

impl Show for bool {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for i64 {
    fn written(&self) -> Written {
        Written::Integer(*self)
    }

    fn kind() -> Kind {
        Kind::Integer
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        match &node.data {
            Data::Integer(value) => Ok(*value),
            Data::Word(word) => go_integer(word).ok_or_else(|| expected("an integer", node)),
            _ => Err(expected("an integer", node)),
        }
    }
}

/// Go's integer syntax: a sign, then decimal, `0x` hexadecimal, or octal after `0`.
pub(super) fn go_integer(word: &str) -> Option<i64> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let lower = digits.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (lower.as_str(), 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
        return None;
    }
    let value = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -value } else { value }).ok()
}

impl Show for i64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for f64 {
    const SEPARATORS: &'static [char] = &[',', ';'];

    fn written(&self) -> Written {
        Written::Number(*self)
    }

    fn kind() -> Kind {
        Kind::Number
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        match &node.data {
            Data::Float(value) => Ok(*value),
            #[allow(
                clippy::cast_precision_loss,
                reason = "a number of seconds, far below 2^53"
            )]
            Data::Integer(value) => Ok(*value as Self),
            Data::Word(word) => word.trim().parse().map_err(|_| expected("a number", node)),
            _ => Err(expected("a number", node)),
        }
    }
}

impl Show for f64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn written(&self) -> Written {
        Written::Text(self.clone())
    }

    fn kind() -> Kind {
        Kind::Text
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        match &node.data {
            Data::Text(text) | Data::Word(text) => Ok(text.clone()),
            _ => Err(expected("a string", node)),
        }
    }
}

impl Show for String {
    fn show(&self) -> String {
        self.clone()
    }
}

impl Value for Duration {
    fn written(&self) -> Written {
        Written::Duration(*self)
    }

    fn kind() -> Kind {
        Kind::Duration
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        let text = match &node.data {
            Data::Integer(seconds) => &seconds.to_string(),
            Data::Text(text) | Data::Word(text) => text,
            _ => {
                return Err(expected(
                    "a duration (seconds, or text such as \"500ms\" or \"1m30s\")",
                    node,
                ));
            }
        };
        units::duration(text).map_err(|error| {
            let message = format!(
                "expected a duration (seconds, or text such as \"500ms\" or \"1m30s\"), found `{}`: {error}",
                excerpt(text)
            );
            ConfigError::new(&node.place, message)
        })
    }
}

impl Show for Duration {
    fn show(&self) -> String {
        units::duration_text(*self)
    }
}

/// What is not written is `None`.
impl<T: Value> Value for Option<T> {
    fn written(&self) -> Written {
        self.as_ref().map_or(Written::Absent, Value::written)
    }

    fn kind() -> Kind {
        T::kind()
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        T::read(node).map(Some)
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, place: &Place, visitor: Visitor<'_>) {
        if let Some(value) = self {
            value.visit(path, place, visitor);
        }
    }
}

impl<T: Value> Show for Option<T> {
    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, Show::show)
    }
}

impl<T: Value> Value for Vec<T> {
    fn written(&self) -> Written {
        Written::List(self.iter().map(Value::written).collect())
    }

    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()), T::SEPARATORS)
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        let Data::List(items) = &node.data else {
            return Err(expected("a list", node));
        };
        let items = items.iter().enumerate();
        items
            .map(|(index, item)| T::read(item).map_err(|error| error.at(index)))
            .collect()
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, place: &Place, visitor: Visitor<'_>) {
        visitor(path, self.first().and_then(T::place).unwrap_or(place), self);
    }
}

impl<T: Value> Show for Vec<T> {
    fn show(&self) -> String {
        self.iter().map(Show::show).collect::<Vec<_>>().join(",")
    }
}

impl<T: Value> Value for BTreeMap<String, T> {
    fn written(&self) -> Written {
        let entries = self.iter();
        Written::Map(
            entries
                .map(|(name, value)| (name.clone(), value.written()))
                .collect(),
        )
    }

    fn kind() -> Kind {
        Kind::Map(Box::new(T::kind()))
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        let entries = table(node)?.entries.iter();
        let read = entries.map(|entry| match T::read(&entry.node) {
            Ok(value) => Ok((entry.name.clone(), value)),
            Err(error) => Err(error.within(&entry.name)),
        });
        read.collect()
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, place: &Place, visitor: Visitor<'_>) {
        visitor(path, place, self);
        for (name, value) in self {
            path.push(name);
            value.visit(path, place, visitor);
            path.pop();
        }
    }
}

impl<T: Value> Show for BTreeMap<String, T> {
    fn show(&self) -> String {
        self.iter()
            .map(|(name, value)| format!("{name}={}", value.show()))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A section that Coreway knows by name only: whatever it holds is accepted and has no effect.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Foreign {
    /// Where the section was written.
    pub place: Place,
}

impl Value for Foreign {
    fn written(&self) -> Written {
        Written::Foreign
    }

    fn kind() -> Kind {
        Kind::Foreign
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        Ok(Self {
            place: node.place.clone(),
        })
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, _: &Place, visitor: Visitor<'_>) {
        visitor(path, &self.place, self);
    }
}

impl Show for Foreign {
    fn show(&self) -> String {
        "on".to_owned()
    }
}

/// A filter on the tags of what a provider finds: `tag==glob` or `tag!=glob`. Spec static-config 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constraint {
    /// `==` asks for at least one tag that matches, `!=` for none.
    pub must_match: bool,
    pub glob: String,
}

impl Constraint {
    /// Whether what has these tags is to be used. Spec kv-dynamic 3.2.
    pub fn holds<'t>(&self, mut tags: impl Iterator<Item = &'t str>) -> bool {
        tags.any(|tag| matches(&self.glob, tag)) == self.must_match
    }
}

/// Whether `text` is what `glob` says, in which `*` stands for anything.
fn matches(glob: &str, text: &str) -> bool {
    let Some((first, rest)) = glob.split_once('*') else {
        return glob == text;
    };
    let Some(mut text) = text.strip_prefix(first) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let last = pieces.pop().unwrap_or_default();
    for piece in pieces {
        match text.find(piece) {
            Some(at) => text = &text[at + piece.len()..],
            None => return false,
        }
    }
    text.ends_with(last)
}

impl Value for Constraint {
    fn written(&self) -> Written {
        Written::Text(self.show())
    }

    fn kind() -> Kind {
        Kind::Text
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        let text = String::read(node)?;
        let error = |message| Err(ConfigError::new(&node.place, message));
        let (key, must_match, glob) = if let Some((key, glob)) = text.split_once("==") {
            (key, true, glob)
        } else if let Some((key, glob)) = text.split_once("!=") {
            (key, false, glob)
        } else {
            return error("constraint expression missing valid operator: '==' or '!='");
        };
        if key != "tag" {
            return error("constraint must be tag-based. Syntax: tag==us-*");
        }
        Ok(Self {
            must_match,
            glob: glob.to_owned(),
        })
    }
}

impl Show for Constraint {
    fn show(&self) -> String {
        format!(
            "tag{}{}",
            if self.must_match { "==" } else { "!=" },
            self.glob
        )
    }
}

/// A status code or a range of them, as written: `404`, `500-599`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusCodes(pub String);

impl Value for StatusCodes {
    const SEPARATORS: &'static [char] = &[',', ';'];

    fn written(&self) -> Written {
        Written::Text(self.0.clone())
    }

    fn kind() -> Kind {
        Kind::Text
    }

    fn read(node: &Node) -> Result<Self, ConfigError> {
        String::read(node).map(Self)
    }
}

impl Show for StatusCodes {
    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word<T: Value + std::fmt::Debug>(text: &str) -> Result<T, String> {
        let place = Place::Flag("--x".into());
        T::read(&Node::word(&place, text)).map_err(|error| error.to_string())
    }

    #[test]
    fn integers_of_flags_are_go_integers() {
        let check = |text: &str, expected: Option<i64>| {
            assert_eq!(word::<i64>(text).ok(), expected, "{text}")
        };
        check("200", Some(200));
        check("0x10", Some(16));
        check("0X1f", Some(31));
        check("010", Some(8));
        check("-3", Some(-3));
        check("+3", Some(3));
        check("0", Some(0));
        check("-9223372036854775808", Some(i64::MIN));
        check("9223372036854775808", None);
        check("", None);
        check("--3", None);
        check("0x", None);
        check("0x-1", None);
        check("1.5", None);
        check("abc", None);
    }

    #[test]
    fn booleans_of_flags_are_go_booleans() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(word::<bool>(text), Ok(true));
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(word::<bool>(text), Ok(false));
        }
        assert_eq!(
            word::<bool>("yes"),
            Err("--x: expected a boolean (true, false, 1, 0, t or f), found `yes`".to_owned())
        );
    }

    #[test]
    fn constraints_ask_for_a_tag_or_for_none() {
        let check = |text: &str, tags: &[&str], expected: bool| {
            let constraint = word::<Constraint>(text).expect("valid");
            assert_eq!(
                constraint.holds(tags.iter().copied()),
                expected,
                "{text} of {tags:?}"
            );
        };
        check("tag==api", &["api", "helloworld"], true);
        check("tag==api", &["web"], false);
        check("tag==api", &[], false);
        check("tag!=api", &["api", "helloworld"], false);
        check("tag!=api", &["web"], true);
        check("tag!=api", &[], true);
        check("tag==w*", &["web"], true);
        check("tag==*", &["web"], true);
        check("tag==*", &[], false);
        check("tag==us-*-1", &["us-east-1"], true);
        check("tag==us-*-1", &["us-1"], false);
        check("tag==*a*b*", &["xxaxxbxx"], true);
        check("tag==*a*b", &["xxbxxa"], false);
        check("tag==a*a", &["a"], false);
    }

    #[test]
    fn constraints_name_what_is_missing() {
        assert_eq!(
            word::<Constraint>("tag==us-*"),
            Ok(Constraint {
                must_match: true,
                glob: "us-*".to_owned()
            })
        );
        assert_eq!(
            word::<Constraint>("tag!=a"),
            Ok(Constraint {
                must_match: false,
                glob: "a".to_owned()
            })
        );
        assert_eq!(
            word::<Constraint>("tag=a"),
            Err("--x: constraint expression missing valid operator: '==' or '!='".to_owned())
        );
        assert_eq!(
            word::<Constraint>("name==a"),
            Err("--x: constraint must be tag-based. Syntax: tag==us-*".to_owned())
        );
    }
}
