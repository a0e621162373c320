//! Keys of a key-value store become the tree that every source of configuration becomes.
//!
//! Owns how a key finds its option and how a value without a type becomes one: leniently for frontends and backends (what
//! cannot be read is reported and left out), strictly for static options (it is an error, with the key).
//! Never asks a store and never knows what an option means. Source: spec kv-dynamic 1, kv-static 2.
//! Read next: `dynamic_keys.rs`.

use std::cmp::Ordering;

use super::option::{Entry, Kind, go_integer};
use super::spelling::nearest;
use super::tree::{Data, Node, Table};
use super::units::{self, ConfigError, Diagnostic, Place};
use crate::limits::STORE_KEY_STEPS_MAX;

/// A key below the prefix (`backends/b1/servers/s1/url`), and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair<'k> {
    pub key: &'k str,
    pub value: &'k [u8],
}

impl<'k> Pair<'k> {
    pub fn new(key: &'k str, value: &'k (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            key,
            value: value.as_ref(),
        }
    }

    /// The steps of the key. Slashes at the ends and doubled ones make no step.
    pub(super) fn steps(&self) -> impl Iterator<Item = &'k str> + use<'k> {
        self.key.split('/').filter(|step| !step.is_empty())
    }
}

/// Sorts so that everything below one step stands together: `a`, `a/x`, `a-b`.
pub(super) fn sort(pairs: &mut [Pair<'_>]) {
    pairs.sort_unstable_by(|a, b| compare(a.key, b.key));
}

fn compare(a: &str, b: &str) -> Ordering {
    let weight = |byte| if byte == b'/' { 0 } else { byte };
    a.bytes().map(weight).cmp(b.bytes().map(weight))
}

/// One step of the keys, with the value that is stored under it and the steps below it, in byte order of their names.
#[derive(Debug)]
pub(super) struct Branch<'k> {
    pub(super) name: &'k str,
    /// The key up to this step.
    key: &'k str,
    /// `None`: there is no such key, or it is only the marker of a folder.
    pub(super) value: Option<&'k [u8]>,
    pub(super) children: Vec<Self>,
}

impl<'k> Branch<'k> {
    /// The branch at `depth` steps of `pairs`, which are sorted and have their first `depth` steps in common. Keys that
    /// are longer than any option can be are passed over.
    pub(super) fn grow(pairs: &[Pair<'k>], depth: usize) -> Self {
        let mut root = Self {
            name: "",
            key: "",
            value: None,
            children: Vec::new(),
        };
        for pair in pairs {
            if pair.steps().count() > STORE_KEY_STEPS_MAX {
                continue;
            }
            let mut at = &mut root;
            let mut index = 0;
            let mut next = 0;
            for step in pair.key.split('/') {
                let end = next + step.len();
                next = end + 1;
                if step.is_empty() {
                    continue;
                }
                index += 1;
                if index <= depth {
                    at.name = step;
                    at.key = &pair.key[..end];
                    continue;
                }
                if at.children.last().is_none_or(|last| last.name != step) {
                    at.children.push(Self {
                        name: step,
                        key: &pair.key[..end],
                        value: None,
                        children: Vec::new(),
                    });
                }
                at = at.children.last_mut().expect("pushed if it was not there");
            }
            if !(pair.key.ends_with('/') && pair.value.is_empty()) {
                at.value = Some(pair.value);
            }
        }
        root
    }

    /// The child called `name` in any case.
    pub(super) fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.children
            .iter_mut()
            .find(|child| child.name.eq_ignore_ascii_case(name))
    }

    /// Takes the children called `name`, in any case, out.
    pub(super) fn take(&mut self, name: &str) -> Option<Self> {
        let at = self
            .children
            .iter()
            .position(|child| child.name.eq_ignore_ascii_case(name))?;
        Some(self.children.remove(at))
    }

    fn has_value(&self) -> bool {
        self.value.is_some_and(|value| !value.is_empty())
    }

    /// A value is stored here or below.
    fn is_filled(&self) -> bool {
        self.has_value() || self.children.iter().any(Self::is_filled)
    }

    fn text(&self) -> Option<Result<&'k str, std::str::Utf8Error>> {
        self.value.map(std::str::from_utf8)
    }
}

/// What is wrong with keys, without keeping the others from being used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Problems {
    /// Something was written that has no effect.
    pub errors: Vec<Diagnostic>,
    /// Something was probably not meant.
    pub warnings: Vec<Diagnostic>,
}

impl Problems {
    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.errors.push(Diagnostic { place, message });
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.warnings.push(Diagnostic { place, message });
    }

    pub(super) fn append(&mut self, mut more: Self) {
        self.errors.append(&mut more.errors);
        self.warnings.append(&mut more.warnings);
    }
}

/// How values are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Frontends, backends and certificates: a value that cannot be read is reported and left out.
    Lenient,
    /// Static options: a value that cannot be read is an error; empty ones are not there at all.
    Strict,
}

/// Gives branches the shape of options.
pub(super) struct Shaper<'s> {
    /// Where the keys begin, for messages.
    pub(super) prefix: &'s str,
    pub(super) manner: Manner,
    pub(super) problems: Problems,
}

impl<'s> Shaper<'s> {
    pub(super) fn new(prefix: &'s str, manner: Manner) -> Self {
        Self {
            prefix,
            manner,
            problems: Problems::default(),
        }
    }

    pub(super) fn place(&self, branch: &Branch<'_>) -> Place {
        self.place_of(branch.key)
    }

    /// Where a key below the prefix is.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let separator = if self.prefix.is_empty() { "" } else { "/" };
        Place::Key(format!("{}{separator}{key}", self.prefix).into())
    }

    /// The node of an option of this kind. `None`: nothing that counts is written there.
    ///
    /// # Errors
    /// A value is not UTF-8; with `Manner::Strict` also a value or a name that the kind cannot have.
    pub(super) fn shape(
        &mut self,
        branch: &Branch<'_>,
        kind: &Kind,
    ) -> Result<Option<Node>, ConfigError> {
        match kind {
            Kind::Section(options) => self.section(branch, options),
            Kind::Map(inner) => self.map(branch, inner),
            Kind::List(inner, separators) => self.list(branch, inner, separators),
            Kind::Foreign => Ok(branch.is_filled().then(|| Node::table(&self.place(branch)))),
            Kind::Bool | Kind::Integer | Kind::Number | Kind::Text | Kind::Duration => {
                self.value(branch, kind)
            }
        }
    }

    fn section(
        &mut self,
        branch: &Branch<'_>,
        options: &'static [Entry],
    ) -> Result<Option<Node>, ConfigError> {
        let place = self.place(branch);
        let mut table = Table::default();
        // Lower case is how keys are spelt; any other spelling comes after it, and one that begins with a dot last.
        let mut children: Vec<&Branch<'_>> = branch.children.iter().collect();
        children.sort_by_key(|child| {
            (
                child.name.starts_with('.'),
                child.name.chars().any(|c| c.is_ascii_uppercase()),
            )
        });
        for child in children {
            let name = child.name.strip_prefix('.').unwrap_or(child.name);
            let Some(option) = options
                .iter()
                .find(|option| option.name.eq_ignore_ascii_case(name))
            else {
                self.unknown(child, branch, options);
                continue;
            };
            let Some(node) = self
                .shape(child, &(option.kind)())
                .map_err(|error| error.within(option.name))?
            else {
                continue;
            };
            match table.get(option.name) {
                None => table.insert(option.name, &self.place(child), node),
                // An empty value gives way to another spelling that has one.
                Some(Node {
                    data: Data::Text(text),
                    ..
                }) if text.is_empty() => {
                    table.entries.retain(|entry| entry.name != option.name);
                    table.insert(option.name, &self.place(child), node);
                }
                Some(first) => {
                    let message = format!("ignored, since it is also written at {}", first.place);
                    let place = self.place(child);
                    self.problems.warn(place, message);
                }
            }
        }
        let exists = match self.manner {
            Manner::Lenient => true,
            Manner::Strict => !table.entries.is_empty() || options.is_empty(),
        };
        if self.manner == Manner::Strict && !exists && branch.has_value() {
            return Err(ConfigError::new(
                &place,
                "expected keys below it, found a value",
            ));
        }
        Ok(exists.then(|| Node::new(&place, Data::Table(table))))
    }

    fn unknown(&mut self, child: &Branch<'_>, parent: &Branch<'_>, options: &'static [Entry]) {
        // Directly below the prefix there are other readers' keys, and other programs'.
        if !child.is_filled() || parent.key.is_empty() {
            return;
        }
        let known = options.iter().map(|option| option.name);
        let hint = nearest(child.name, known).map_or_else(String::new, |name| {
            format!(", did you mean `{}`?", name.to_ascii_lowercase())
        });
        let place = self.place(child);
        self.problems
            .warn(place, format!("unknown option, ignored{hint}"));
    }

    fn map(&mut self, branch: &Branch<'_>, inner: &Kind) -> Result<Option<Node>, ConfigError> {
        let mut table = Table::default();
        for child in &branch.children {
            let node = self
                .shape(child, inner)
                .map_err(|error| error.within(child.name))?;
            let Some(node) = node else {
                continue;
            };
            let name = match (self.manner, inner) {
                // Every such map of a frontend or a backend is one of header fields.
                (Manner::Lenient, Kind::Text) => header_name(child.name),
                (Manner::Lenient, _) => unescape(child.name),
                (Manner::Strict, _) => child.name.to_owned(),
            };
            if table.get(&name).is_none() {
                table.insert(&name, &self.place(child), node);
            }
        }
        let node = Node::new(&self.place(branch), Data::Table(table));
        let is_empty = matches!(&node.data, Data::Table(table) if table.entries.is_empty());
        Ok((!is_empty).then_some(node))
    }

    /// The items of the key's own value; where it has none, the keys below it.
    fn list(
        &mut self,
        branch: &Branch<'_>,
        inner: &Kind,
        separators: &[char],
    ) -> Result<Option<Node>, ConfigError> {
        let place = self.place(branch);
        let mut items = Vec::new();
        if !matches!(inner, Kind::Section(_))
            && let Some(text) = self.text(branch)?
        {
            let written = text.split(separators).map(str::trim);
            for item in written.filter(|item| !item.is_empty()) {
                let item = match self.manner {
                    Manner::Lenient => unescape(item),
                    Manner::Strict => item.to_owned(),
                };
                items.push(Node::word(&place, &item));
            }
        }
        if items.is_empty() {
            let mut children: Vec<&Branch<'_>> = branch.children.iter().collect();
            let numbers = children
                .iter()
                .map(|child| child.name.parse::<u64>().map_err(|_| *child))
                .collect::<Result<Vec<u64>, _>>();
            match numbers {
                Ok(_) => children.sort_by_key(|child| child.name.parse::<u64>().unwrap_or(0)),
                Err(child) if self.manner == Manner::Strict && child.is_filled() => {
                    return Err(ConfigError::new(
                        &self.place(child),
                        "expected a number, since it is an item of a list",
                    ));
                }
                // In byte order, as they are.
                Err(_) => {}
            }
            for (index, child) in children.into_iter().enumerate() {
                let node = self.shape(child, inner).map_err(|error| error.at(index))?;
                items.extend(node.filter(
                    |node| !matches!(&node.data, Data::Text(text) | Data::Word(text) if text.is_empty()),
                ));
            }
        }
        Ok((!items.is_empty()).then(|| Node::list(&place, items)))
    }

    fn value(&mut self, branch: &Branch<'_>, kind: &Kind) -> Result<Option<Node>, ConfigError> {
        let Some(text) = self.text(branch)? else {
            if branch.is_filled() {
                let place = self.place(branch);
                let message = "expected a value, found keys below it";
                if self.manner == Manner::Strict {
                    return Err(ConfigError::new(&place, message));
                }
                self.problems.error(place, message);
            }
            return Ok(None);
        };
        let place = self.place(branch);
        let data = match self.manner {
            Manner::Strict if matches!(kind, Kind::Duration) => match nanoseconds(&text) {
                Ok(nanoseconds) => Data::Word(format!("{nanoseconds}ns")),
                Err(message) => return Err(ConfigError::new(&place, message)),
            },
            Manner::Strict => Data::Word(text),
            Manner::Lenient => match lenient(&text, kind) {
                Ok(Some(data)) => data,
                Ok(None) => return Ok(None),
                Err(expected) => {
                    self.problems.error(
                        place,
                        format!("Invalid value {text:?}, ignored: expected {expected}"),
                    );
                    return Ok(None);
                }
            },
        };
        Ok(Some(Node::new(&place, data)))
    }

    /// The value of this key as text. `None`: there is none; for static options also an empty one.
    fn text(&mut self, branch: &Branch<'_>) -> Result<Option<String>, ConfigError> {
        let text = match branch.text() {
            None => return Ok(None),
            Some(Ok(text)) => text,
            // It may have been a list of those who may pass, so it must not pass for nothing.
            Some(Err(_)) => {
                return Err(ConfigError::new(
                    &self.place(branch),
                    "the value is not UTF-8",
                ));
            }
        };
        Ok(match self.manner {
            Manner::Strict => Some(text.to_owned()).filter(|text| !text.is_empty()),
            Manner::Lenient => Some(text.to_owned()),
        })
    }
}

/// A value of a frontend or a backend. `Ok(None)`: as if it were not there.
fn lenient(text: &str, kind: &Kind) -> Result<Option<Data>, &'static str> {
    match kind {
        Kind::Bool => match text {
            "" => Ok(None),
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(Data::Bool(true))),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(Data::Bool(false))),
            _ => Err("a boolean (true, false, 1, 0, t or f)"),
        },
        Kind::Integer => match text {
            "" => Ok(None),
            _ => text
                .parse()
                .map(|number| Some(Data::Integer(number)))
                .map_err(|_| "a decimal integer"),
        },
        Kind::Duration => period(text).map(|text| Some(Data::Word(text))),
        _ => Ok(Some(Data::Text(unescape(text)))),
    }
}

/// Digits are seconds, unless there are so many of them that `storeconfig` must have written them, in nanoseconds.
pub(super) fn period(text: &str) -> Result<String, &'static str> {
    const NANOSECONDS_FROM: u64 = 1_000_000_000;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = match text.parse::<u64>() {
        Ok(number) if number >= NANOSECONDS_FROM => format!("{number}ns"),
        _ => text.to_owned(),
    };
    match units::duration(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("a duration (seconds, or text such as \"500ms\" or \"1m30s\")"),
    }
}

/// A static duration: an integer is nanoseconds, anything else Go text.
fn nanoseconds(text: &str) -> Result<u128, String> {
    let found = match go_integer(text) {
        Some(number) => u64::try_from(number)
            .map(u128::from)
            .map_err(|_| units::DurationError::Negative),
        None => units::go_duration(text).map(|duration| duration.as_nanos()),
    };
    found.map_err(|error| {
        format!(
            "expected a duration (nanoseconds, or text such as \"500ms\" or \"1m30s\"), found `{text}`: {error}"
        )
    })
}

/// Values are taken as the inside of a TOML string where they can be one, since Traefik made TOML of them: if every
/// backslash begins an escape, they are all applied. Otherwise the text is what it is. One line end at the end of the
/// text, which editors and `echo` add, is cut off.
pub(super) fn unescape(text: &str) -> String {
    let text = text
        .strip_suffix("\r\n")
        .or_else(|| text.strip_suffix('\n'))
        .unwrap_or(text);
    unescaped(text).unwrap_or_else(|| text.to_owned())
}

/// `None`: there is a backslash that begins no escape of TOML.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest[at + 1..].chars().next()?;
        rest = &rest[at + 1 + escape.len_utf8()..];
        let digits = match escape {
            'u' => 4,
            'U' => 8,
            _ => {
                out.push(match escape {
                    'b' => '\u{8}',
                    't' => '\t',
                    'n' => '\n',
                    'f' => '\u{c}',
                    'r' => '\r',
                    '"' => '"',
                    '\\' => '\\',
                    _ => return None,
                });
                continue;
            }
        };
        let code = rest.get(..digits)?;
        if !code.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        out.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?);
        rest = &rest[digits..];
    }
    out.push_str(rest);
    Some(out)
}

/// The usual spelling of a field name: `x-foo` becomes `X-Foo`. What is no field name is left as it is.
fn header_name(name: &str) -> String {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.bytes().all(is_token) {
        return name.to_owned();
    }
    let mut begins = true;
    let spell = |letter: char| {
        let spelt = if begins {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        };
        begins = letter == '-';
        spelt
    };
    name.chars().map(spell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_applied_if_all_of_them_are_escapes() {
        let check = |text: &str, expected: &str| assert_eq!(unescape(text), expected, "{text}");
        check("plain", "plain");
        check(r"Path:/a/{id:\d+}", r"Path:/a/{id:\d+}");
        check(r"Path:/a/{id:\\d+}", r"Path:/a/{id:\d+}");
        check(r"\u0041\t\\", "A\t\\");
        check(r"\U0001F600", "\u{1F600}");
        check(r#"\"a\""#, r#""a""#);
        check(r#"say "a""#, r#"say "a""#);
        check(r"\u00g1", r"\u00g1");
        check(r"\uD800", r"\uD800");
        check(r"a\", r"a\");
        check(r"\\d and \d", r"\\d and \d");
        check("http://a\n", "http://a");
        check("a\nb\n\n", "a\nb\n");
    }

    #[test]
    fn names_of_header_fields_are_spelt_as_usual() {
        let check = |name: &str, expected: &str| assert_eq!(header_name(name), expected);
        check("x-foo", "X-Foo");
        check(
            "ACCESS-control-Allow-methods",
            "Access-Control-Allow-Methods",
        );
        check("x foo", "x foo");
        check("etag", "Etag");
    }

    #[test]
    fn everything_below_a_step_stands_together() {
        let mut pairs = ["a-b/x", "a/x", "a", "a.b", "a/x/y"].map(|key| Pair::new(key, ""));
        sort(&mut pairs);
        let keys: Vec<&str> = pairs.iter().map(|pair| pair.key).collect();
        assert_eq!(keys, ["a", "a/x", "a/x/y", "a-b/x", "a.b"]);
    }

    #[test]
    fn periods_are_seconds_or_what_storeconfig_wrote() {
        assert_eq!(period("6").as_deref(), Ok("6"));
        assert_eq!(period("10000000000").as_deref(), Ok("10000000000ns"));
        assert_eq!(period("300ms").as_deref(), Ok("300ms"));
        assert!(period("x").is_err());
        assert!(period("").is_err());
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_keys_never_panic(keys in proptest::collection::vec("[a-c./]{0,12}", 0..8)) {
            let mut pairs: Vec<Pair<'_>> = keys.iter().map(|key| Pair::new(key, "x")).collect();
            sort(&mut pairs);
            let _ = Branch::grow(&pairs, 0);
        }

        #[test]
        fn unescaping_never_panics(text in "[\\\\uUabn0-9\u{e9}\"]{0,20}") {
            let _ = unescape(&text);
        }
    }
}
