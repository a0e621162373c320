//! The functions a template may call: Go's own, those of Traefik 1.7, and the ones of Sprig that rule files use.
//!
//! Owns the table; `docs/templates.md` lists it. Never changes anything but the map given to `set` and `unset`; reads the
//! environment and the clock where the function says so.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::rc::Rc;

use regex::RegexBuilder;
use time::OffsetDateTime;

use super::text;
use super::value::{Value, fits};

/// Memory of one compiled expression.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

type Answer = Result<Value, String>;

/// One function, and how many arguments it takes.
#[derive(Debug)]
pub(super) struct Function {
    name: &'static str,
    least: usize,
    most: usize,
    /// Steps that a call costs beside the size of its arguments.
    pub(super) steps: usize,
    body: fn(&[Value]) -> Answer,
}

const ANY: usize = usize::MAX;

const fn function(
    name: &'static str,
    least: usize,
    most: usize,
    body: fn(&[Value]) -> Answer,
) -> Function {
    Function {
        name,
        least,
        most,
        steps: 1,
        body,
    }
}

/// Compiling an expression costs about as much as this many other calls.
const fn slow(name: &'static str, arguments: usize, body: fn(&[Value]) -> Answer) -> Function {
    Function {
        name,
        least: arguments,
        most: arguments,
        steps: 1000,
        body,
    }
}

pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

impl Function {
    pub(super) fn call(&self, arguments: &[Value]) -> Answer {
        let given = arguments.len();
        if given < self.least || given > self.most {
            let expected = match (self.least, self.most) {
                (1, 1) => "1 argument".to_owned(),
                (least, most) if least == most => format!("{least} arguments"),
                (least, ANY) => format!("at least {least}"),
                (least, most) => format!("{least} to {most} arguments"),
            };
            return Err(format!(
                "function \"{}\": expected {expected}, got {given}",
                self.name
            ));
        }
        let fail = |why: String| format!("function \"{}\": {why}", self.name);
        let value = (self.body)(arguments).map_err(fail)?;
        fits(value.weight()).map_err(fail)?;
        Ok(value)
    }
}

static FUNCTIONS: &[Function] = &[
    // Go's own.
    function("and", 1, ANY, |a| {
        Ok(a.iter()
            .find(|value| !value.is_true())
            .unwrap_or(&a[a.len() - 1])
            .clone())
    }),
    function("or", 1, ANY, |a| {
        Ok(a.iter()
            .find(|value| value.is_true())
            .unwrap_or(&a[a.len() - 1])
            .clone())
    }),
    function("not", 1, 1, |a| Ok(Value::Bool(!a[0].is_true()))),
    function("eq", 2, ANY, |a| {
        for other in &a[1..] {
            if compare(&a[0], other)? == Ordering::Equal {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    function("ne", 2, 2, |a| {
        Ok(Value::Bool(compare(&a[0], &a[1])?.is_ne()))
    }),
    function("lt", 2, 2, |a| Ok(Value::Bool(order(a)?.is_lt()))),
    function("le", 2, 2, |a| Ok(Value::Bool(order(a)?.is_le()))),
    function("gt", 2, 2, |a| Ok(Value::Bool(order(a)?.is_gt()))),
    function("ge", 2, 2, |a| Ok(Value::Bool(order(a)?.is_ge()))),
    function("index", 1, ANY, |a| {
        a[1..]
            .iter()
            .try_fold(a[0].clone(), |value, key| item(&value, key))
    }),
    function("len", 1, 1, |a| match &a[0] {
        Value::Text(text) => Ok(count(text.len())),
        Value::List(list) => Ok(count(list.items().len())),
        Value::Map(map) => Ok(count(map.borrow().entries().len())),
        other => Err(format!("{} has no length", other.kind())),
    }),
    function("print", 0, ANY, |a| {
        let mut out = String::new();
        for (at, value) in a.iter().enumerate() {
            // A blank stands between two that are no text.
            if at > 0
                && ![&a[at - 1], value]
                    .iter()
                    .any(|value| matches!(value, Value::Text(_)))
            {
                out.push(' ');
            }
            out.push_str(&value.to_string());
        }
        Ok(Value::text(out))
    }),
    function("println", 0, ANY, |a| {
        Ok(Value::text(joined(a, " ") + "\n"))
    }),
    function("printf", 1, ANY, |a| {
        Ok(Value::text(text::printf(&string(&a[0]), &a[1..])?))
    }),
    function("html", 1, ANY, |a| {
        let escape = |out: String, character| {
            out + &match character {
                '&' => "&amp;".to_owned(),
                '<' => "&lt;".to_owned(),
                '>' => "&gt;".to_owned(),
                '"' => "&#34;".to_owned(),
                '\'' => "&#39;".to_owned(),
                plain => plain.to_string(),
            }
        };
        Ok(Value::text(
            joined(a, "").chars().fold(String::new(), escape),
        ))
    }),
    function("js", 1, ANY, |a| {
        let mut out = String::new();
        for character in joined(a, "").chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '\'' => out.push_str("\\'"),
                '"' => out.push_str("\\\""),
                '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", u32::from(character))),
                control if control.is_control() => {
                    out.push_str(&format!("\\u{:04X}", u32::from(control)))
                }
                plain => out.push(plain),
            }
        }
        Ok(Value::text(out))
    }),
    function("urlquery", 1, ANY, |a| {
        let mut out = String::new();
        for byte in joined(a, "").bytes() {
            match byte {
                b' ' => out.push('+'),
                plain if plain.is_ascii_alphanumeric() || b"-_.~".contains(&plain) => {
                    out.push(char::from(plain))
                }
                other => out.push_str(&format!("%{other:02X}")),
            }
        }
        Ok(Value::text(out))
    }),
    function("slice", 1, 3, |a| {
        let bound = |at: usize, otherwise: usize| {
            a.get(at)
                .map_or(Ok(otherwise), |bound| index_of(bound, otherwise + 1))
        };
        match &a[0] {
            Value::Text(text) => {
                let (start, end) = (
                    bound(1, 0).or_else(|_| bound(1, text.len()))?,
                    bound(2, text.len())?,
                );
                text.get(start..end)
                    .map(Value::text)
                    .ok_or_else(|| format!("cannot take {start} to {end} of a text"))
            }
            value => {
                let items = items(value)?;
                let (start, end) = (
                    bound(1, 0).or_else(|_| bound(1, items.len()))?,
                    bound(2, items.len())?,
                );
                let part = items
                    .get(start..end)
                    .ok_or_else(|| format!("cannot take {start} to {end} of a list"))?;
                Value::list(part.iter().cloned())
            }
        }
    }),
    // Traefik's.
    function("tolower", 1, 1, |a| {
        Ok(Value::text(string(&a[0]).to_lowercase()))
    }),
    function("normalize", 1, 1, |a| {
        let text = string(&a[0]);
        let words: Vec<&str> = text
            .split(|next: char| !next.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        Ok(Value::text(words.join("-")))
    }),
    function("split", 2, 2, |a| split(&a[0], &a[1])),
    // Sprig: text.
    function("lower", 1, 1, |a| {
        Ok(Value::text(string(&a[0]).to_lowercase()))
    }),
    function("upper", 1, 1, |a| {
        Ok(Value::text(string(&a[0]).to_uppercase()))
    }),
    function("title", 1, 1, |a| {
        let mut before = ' ';
        let mut out = String::new();
        for character in string(&a[0]).chars() {
            if before.is_alphanumeric() || matches!(before, '_' | '\'') {
                out.push(character);
            } else {
                out.extend(character.to_uppercase());
            }
            before = character;
        }
        Ok(Value::text(out))
    }),
    function("trim", 1, 1, |a| Ok(Value::text(string(&a[0]).trim()))),
    function("trimAll", 2, 2, |a| {
        let (cut, text) = (string(&a[0]), string(&a[1]));
        Ok(Value::text(text.trim_matches(|next| cut.contains(next))))
    }),
    function("trimPrefix", 2, 2, |a| {
        let (prefix, text) = (string(&a[0]), string(&a[1]));
        Ok(Value::text(text.strip_prefix(&*prefix).unwrap_or(&text)))
    }),
    function("trimSuffix", 2, 2, |a| {
        let (suffix, text) = (string(&a[0]), string(&a[1]));
        Ok(Value::text(text.strip_suffix(&*suffix).unwrap_or(&text)))
    }),
    function("replace", 3, 3, |a| {
        let (old, new, text) = (string(&a[0]), string(&a[1]), string(&a[2]));
        fits(
            text.matches(&*old)
                .count()
                .saturating_mul(new.len())
                .saturating_add(text.len()),
        )?;
        Ok(Value::text(text.replace(&*old, &new)))
    }),
    function("contains", 2, 2, |a| {
        Ok(Value::Bool(string(&a[1]).contains(&*string(&a[0]))))
    }),
    function("hasPrefix", 2, 2, |a| {
        Ok(Value::Bool(string(&a[1]).starts_with(&*string(&a[0]))))
    }),
    function("hasSuffix", 2, 2, |a| {
        Ok(Value::Bool(string(&a[1]).ends_with(&*string(&a[0]))))
    }),
    function("repeat", 2, 2, |a| {
        let (times, text) = (
            usize::try_from(int(&a[0]).max(0)).unwrap_or(usize::MAX),
            string(&a[1]),
        );
        fits(times.saturating_mul(text.len()))?;
        Ok(Value::text(if text.is_empty() {
            String::new()
        } else {
            text.repeat(times)
        }))
    }),
    function("substr", 3, 3, |a| {
        let text = string(&a[2]);
        let start = usize::try_from(int(&a[0])).unwrap_or(0);
        let end = usize::try_from(int(&a[1])).map_or(text.len(), |end| end.min(text.len()));
        Ok(Value::text(
            String::from_utf8_lossy(text.as_bytes().get(start..end).unwrap_or_default())
                .into_owned(),
        ))
    }),
    function("trunc", 2, 2, |a| {
        let text = string(&a[1]);
        let kept = usize::try_from(int(&a[0])).map_or(text.len(), |most| most.min(text.len()));
        Ok(Value::text(
            String::from_utf8_lossy(&text.as_bytes()[..kept]).into_owned(),
        ))
    }),
    function("nospace", 1, 1, |a| {
        Ok(Value::text(string(&a[0]).replace(char::is_whitespace, "")))
    }),
    function("indent", 2, 2, |a| indent(a, "")),
    function("nindent", 2, 2, |a| indent(a, "\n")),
    function("quote", 0, ANY, |a| {
        Ok(Value::text(each(a, |value| text::quote(&string(value)))))
    }),
    function("squote", 0, ANY, |a| {
        Ok(Value::text(each(a, |value| format!("'{value}'"))))
    }),
    function("cat", 0, ANY, |a| {
        Ok(Value::text(each(a, |value| value.to_string())))
    }),
    function("join", 2, 2, |a| match &a[1] {
        Value::List(list) => {
            let texts: Vec<Rc<str>> = list.items().iter().map(string).collect();
            fits(texts.len().saturating_mul(string(&a[0]).len()))?;
            Ok(Value::text(texts.join(&*string(&a[0]))))
        }
        other => Ok(Value::Text(string(other))),
    }),
    function("splitList", 2, 2, |a| split(&a[0], &a[1])),
    function("sortAlpha", 1, 1, |a| {
        let mut texts: Vec<Rc<str>> = items(&a[0])?.iter().map(string).collect();
        texts.sort_unstable();
        Value::list(texts.into_iter().map(Value::Text))
    }),
    function("b64enc", 1, 1, |a| {
        Ok(Value::text(base64_encode(string(&a[0]).as_bytes())))
    }),
    function("b64dec", 1, 1, |a| {
        let bytes = base64_decode(&string(&a[0])).ok_or("the text is not base64")?;
        Ok(Value::text(
            String::from_utf8(bytes).map_err(|_| "the decoded text is not UTF-8")?,
        ))
    }),
    slow("regexMatch", 2, |a| {
        Ok(Value::Bool(regex(&a[0])?.is_match(&string(&a[1]))))
    }),
    slow("regexFind", 2, |a| {
        let text = string(&a[1]);
        Ok(Value::text(
            regex(&a[0])?.find(&text).map_or("", |found| found.as_str()),
        ))
    }),
    slow("regexReplaceAll", 3, |a| {
        let (text, with) = (string(&a[1]), string(&a[2]));
        let regex = regex(&a[0])?;
        // A group of the replacement is at most the text itself.
        let longest = with
            .len()
            .saturating_add(with.matches('$').count().saturating_mul(text.len()));
        fits(regex.find_iter(&text).count().saturating_mul(longest))?;
        Ok(Value::text(regex.replace_all(&text, &*with).into_owned()))
    }),
    // Sprig: numbers.
    function("until", 1, 1, |a| {
        let end = int(&a[0]);
        numbers(0, end, if end < 0 { -1 } else { 1 })
    }),
    function("untilStep", 3, 3, |a| {
        numbers(int(&a[0]), int(&a[1]), int(&a[2]))
    }),
    function("add", 0, ANY, |a| {
        Ok(Value::Int(
            a.iter()
                .fold(0_i64, |sum, value| sum.wrapping_add(int(value))),
        ))
    }),
    function("add1", 1, 1, |a| Ok(Value::Int(int(&a[0]).wrapping_add(1)))),
    function("sub", 2, 2, |a| {
        Ok(Value::Int(int(&a[0]).wrapping_sub(int(&a[1]))))
    }),
    function("mul", 1, ANY, |a| {
        Ok(Value::Int(a.iter().fold(1_i64, |product, value| {
            product.wrapping_mul(int(value))
        })))
    }),
    function("div", 2, 2, |a| {
        int(&a[0])
            .checked_div(int(&a[1]))
            .map(Value::Int)
            .ok_or_else(|| "division by zero".to_owned())
    }),
    function("mod", 2, 2, |a| {
        int(&a[0])
            .checked_rem(int(&a[1]))
            .map(Value::Int)
            .ok_or_else(|| "division by zero".to_owned())
    }),
    function("max", 1, ANY, |a| {
        Ok(Value::Int(a.iter().map(int).max().unwrap_or(0)))
    }),
    function("min", 1, ANY, |a| {
        Ok(Value::Int(a.iter().map(int).min().unwrap_or(0)))
    }),
    function("int", 1, 1, |a| Ok(Value::Int(int(&a[0])))),
    function("int64", 1, 1, |a| Ok(Value::Int(int(&a[0])))),
    function("float64", 1, 1, |a| {
        Ok(Value::Float(match &a[0] {
            Value::Float(value) => *value,
            Value::Text(text) => text.parse().unwrap_or(0.0),
            other => int(other) as f64,
        }))
    }),
    function("atoi", 1, 1, |a| {
        Ok(Value::Int(string(&a[0]).parse().unwrap_or(0)))
    }),
    function("toString", 1, 1, |a| Ok(Value::Text(string(&a[0])))),
    // Sprig: lists.
    function("list", 0, ANY, |a| Value::list(a.iter().cloned())),
    function("first", 1, 1, |a| {
        Ok(items(&a[0])?.first().map_or(Value::Nil, Value::copy))
    }),
    function("last", 1, 1, |a| {
        Ok(items(&a[0])?.last().map_or(Value::Nil, Value::copy))
    }),
    function("rest", 1, 1, |a| {
        Value::list(items(&a[0])?.iter().skip(1).cloned())
    }),
    function("initial", 1, 1, |a| {
        let items = items(&a[0])?;
        Value::list(items[..items.len().saturating_sub(1)].iter().cloned())
    }),
    function("append", 2, 2, |a| {
        Value::list(items(&a[0])?.iter().chain([&a[1]]).cloned())
    }),
    function("prepend", 2, 2, |a| {
        Value::list([&a[1]].into_iter().chain(items(&a[0])?).cloned())
    }),
    function("reverse", 1, 1, |a| {
        Value::list(items(&a[0])?.iter().rev().cloned())
    }),
    function("uniq", 1, 1, |a| {
        let mut seen = std::collections::BTreeSet::new();
        Value::list(
            items(&a[0])?
                .iter()
                .filter(|value| seen.insert(identity(value)))
                .cloned(),
        )
    }),
    function("has", 2, 2, |a| {
        let wanted = identity(&a[0]);
        Ok(Value::Bool(
            items(&a[1])?.iter().any(|value| identity(value) == wanted),
        ))
    }),
    function("without", 1, ANY, |a| {
        let unwanted: std::collections::BTreeSet<String> = a[1..].iter().map(identity).collect();
        Value::list(
            items(&a[0])?
                .iter()
                .filter(|value| !unwanted.contains(&identity(value)))
                .cloned(),
        )
    }),
    // Sprig: maps.
    function("dict", 0, ANY, |a| {
        Value::map(a.chunks(2).map(|pair| {
            (
                string(&pair[0]),
                pair.get(1).cloned().unwrap_or_else(|| Value::text("")),
            )
        }))
    }),
    function("get", 2, 2, |a| match &a[0] {
        Value::Map(map) => Ok(map
            .borrow()
            .entries()
            .get(&*string(&a[1]))
            .map_or_else(|| Value::text(""), Value::copy)),
        other => Err(not_a_map(other)),
    }),
    function("set", 3, 3, |a| match &a[0] {
        Value::Map(map) => {
            // Copied first: a map may be put into itself.
            let value = a[2].copy();
            map.borrow_mut().set(string(&a[1]), &value)?;
            Ok(a[0].clone())
        }
        other => Err(not_a_map(other)),
    }),
    function("unset", 2, 2, |a| match &a[0] {
        Value::Map(map) => {
            map.borrow_mut().unset(&string(&a[1]));
            Ok(a[0].clone())
        }
        other => Err(not_a_map(other)),
    }),
    function("hasKey", 2, 2, |a| match &a[0] {
        Value::Map(map) => Ok(Value::Bool(
            map.borrow().entries().contains_key(&*string(&a[1])),
        )),
        other => Err(not_a_map(other)),
    }),
    function("keys", 0, ANY, |a| {
        let mut keys = Vec::new();
        for map in a {
            let Value::Map(map) = map else {
                return Err(not_a_map(map));
            };
            keys.extend(map.borrow().entries().keys().cloned().map(Value::Text));
        }
        Value::list(keys)
    }),
    function("values", 1, 1, |a| match &a[0] {
        Value::Map(map) => Value::list(map.borrow().entries().values().cloned()),
        other => Err(not_a_map(other)),
    }),
    function("pluck", 1, ANY, |a| {
        let key = string(&a[0]);
        let mut found = Vec::new();
        for map in &a[1..] {
            let Value::Map(map) = map else {
                return Err(not_a_map(map));
            };
            found.extend(map.borrow().entries().get(&*key).cloned());
        }
        Value::list(found)
    }),
    // Sprig: choices.
    function("default", 1, 2, |a| {
        Ok(a.get(1)
            .filter(|given| given.is_true())
            .unwrap_or(&a[0])
            .clone())
    }),
    function("empty", 1, 1, |a| Ok(Value::Bool(!a[0].is_true()))),
    function("coalesce", 0, ANY, |a| {
        Ok(a.iter()
            .find(|value| value.is_true())
            .cloned()
            .unwrap_or(Value::Nil))
    }),
    function("ternary", 3, 3, |a| {
        Ok(a[usize::from(!a[2].is_true())].clone())
    }),
    function("fail", 1, 1, |a| Err(string(&a[0]).to_string())),
    function("toJson", 1, 1, |a| Ok(Value::text(json(&a[0]).to_string()))),
    function("typeOf", 1, 1, |a| Ok(Value::text(a[0].kind()))),
    function("kindOf", 1, 1, |a| Ok(Value::text(a[0].kind()))),
    // Sprig: surroundings.
    function("env", 1, 1, |a| Ok(Value::text(variable(&string(&a[0]))))),
    function("expandenv", 1, 1, |a| {
        Ok(Value::text(expand(&string(&a[0]))))
    }),
    function("now", 0, 0, |_| {
        Ok(Value::Time(OffsetDateTime::now_utc().unix_timestamp()))
    }),
    function("date", 2, 2, |a| {
        let seconds = match &a[1] {
            Value::Time(seconds) | Value::Int(seconds) => *seconds,
            other => return Err(format!("{} is no time", other.kind())),
        };
        Ok(Value::text(text::date(&string(&a[0]), seconds)))
    }),
];

fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

fn string(value: &Value) -> Rc<str> {
    match value {
        Value::Text(text) => Rc::clone(text),
        other => Rc::from(other.to_string()),
    }
}

fn joined(values: &[Value], between: &str) -> String {
    values.iter().map(string).collect::<Vec<_>>().join(between)
}

/// Each value but nothing, with a blank between.
fn each(values: &[Value], text: fn(&Value) -> String) -> String {
    values
        .iter()
        .filter(|value| !matches!(value, Value::Nil))
        .map(text)
        .collect::<Vec<_>>()
        .join(" ")
}

/// As Sprig converts: text that is no number is 0.
fn int(value: &Value) -> i64 {
    match value {
        Value::Int(value) | Value::Time(value) => *value,
        #[allow(
            clippy::cast_possible_truncation,
            reason = "a conversion that saturates is meant"
        )]
        Value::Float(value) => *value as i64,
        Value::Bool(value) => i64::from(*value),
        Value::Text(text) => text.parse().unwrap_or(0),
        Value::Nil | Value::List(_) | Value::Map(_) => 0,
    }
}

fn items(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(list) => Ok(list.items()),
        other => Err(format!("{} is no list", other.kind())),
    }
}

fn not_a_map(value: &Value) -> String {
    format!("{} is no map", value.kind())
}

fn index_of(key: &Value, length: usize) -> Result<usize, String> {
    let Value::Int(index) = key else {
        return Err(format!("{} is no index", key.kind()));
    };
    usize::try_from(*index)
        .ok()
        .filter(|&index| index < length)
        .ok_or_else(|| format!("index {index} is out of range"))
}

fn item(value: &Value, key: &Value) -> Answer {
    match value {
        Value::List(list) => Ok(list.items()[index_of(key, list.items().len())?].copy()),
        Value::Text(text) => Ok(Value::Int(i64::from(
            text.as_bytes()[index_of(key, text.len())?],
        ))),
        Value::Map(map) => Ok(map.borrow().get(&string(key))),
        other => Err(format!("{} has no items", other.kind())),
    }
}

/// Equal or not. Values of two kinds cannot be compared, as in Go.
fn compare(one: &Value, other: &Value) -> Result<Ordering, String> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Ok(one.cmp(other)),
        (Value::Int(one), Value::Int(other)) | (Value::Time(one), Value::Time(other)) => {
            Ok(one.cmp(other))
        }
        (Value::Float(one), Value::Float(other)) => {
            Ok(one.partial_cmp(other).unwrap_or(Ordering::Less))
        }
        (Value::Text(one), Value::Text(other)) => Ok(one.cmp(other)),
        _ => Err(format!(
            "{} and {} cannot be compared",
            one.kind(),
            other.kind()
        )),
    }
}

fn order(values: &[Value]) -> Result<Ordering, String> {
    match &values[0] {
        Value::Bool(_) => Err("bool has no order".to_owned()),
        _ => compare(&values[0], &values[1]),
    }
}

/// A text that is the same for equal values only.
fn identity(value: &Value) -> String {
    format!("{}:{}", value.kind(), json(value))
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::Text(text) => (&**text).into(),
        Value::Time(_) => value.to_string().into(),
        Value::List(list) => list.items().iter().map(json).collect::<Vec<_>>().into(),
        Value::Map(map) => {
            let entries = map.borrow();
            let pairs = entries
                .entries()
                .iter()
                .map(|(key, value)| (key.to_string(), json(value)));
            serde_json::to_value(pairs.collect::<BTreeMap<_, _>>()).unwrap_or_default()
        }
    }
}

fn numbers(start: i64, end: i64, step: i64) -> Answer {
    let mut numbers = Vec::new();
    let mut at = start;
    while step != 0 && (if step > 0 { at < end } else { at > end }) {
        numbers.push(Value::Int(at));
        fits(numbers.len())?;
        match at.checked_add(step) {
            Some(next) => at = next,
            None => break,
        }
    }
    Value::list(numbers)
}

fn split(separator: &Value, text: &Value) -> Answer {
    let (separator, text) = (string(separator), string(text));
    if separator.is_empty() {
        return Value::list(
            text.chars()
                .map(|character| Value::text(character.to_string())),
        );
    }
    Value::list(text.split(&*separator).map(Value::text))
}

fn indent(values: &[Value], before: &str) -> Answer {
    let width = usize::try_from(int(&values[0]).max(0)).unwrap_or(usize::MAX);
    let text = string(&values[1]);
    fits(
        text.matches('\n')
            .count()
            .saturating_add(1)
            .saturating_mul(width),
    )?;
    let pad = " ".repeat(width);
    Ok(Value::text(format!(
        "{before}{pad}{}",
        text.replace('\n', &format!("\n{pad}"))
    )))
}

fn regex(pattern: &Value) -> Result<regex::Regex, String> {
    let pattern = string(pattern);
    RegexBuilder::new(&pattern)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|_| {
            format!(
                "{} is no regular expression that can be used",
                text::quote(&pattern)
            )
        })
}

fn variable(name: &str) -> String {
    // A name with these would panic in `std::env`.
    if name.is_empty() || name.contains(['=', '\0']) {
        return String::new();
    }
    std::env::var(name).unwrap_or_default()
}

/// `$NAME` and `${NAME}`, as Go's `os.ExpandEnv`.
fn expand(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(braced) = rest.strip_prefix('{')
            && let Some((name, after)) = braced.split_once('}')
        {
            out.push_str(&variable(name));
            rest = after;
            continue;
        }
        let end = rest
            .find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'))
            .unwrap_or(rest.len());
        if end == 0 {
            out.push('$');
        }
        out.push_str(&variable(&rest[..end]));
        rest = &rest[end..];
    }
    out + rest
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    out
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let text: Vec<u8> = text
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .collect();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text
        .strip_suffix(b"==")
        .or_else(|| text.strip_suffix(b"="))
        .unwrap_or(&text);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut bits = 0_u32;
        for &digit in chunk {
            bits =
                bits << 6 | u32::try_from(BASE64.iter().position(|&known| known == digit)?).ok()?;
        }
        bits <<= 6 * (4 - chunk.len());
        out.extend(bits.to_be_bytes()[1..].iter().take(chunk.len() - 1));
    }
    Some(out)
}
