//! Templates (`/a/{name:regex}`) and the step from Go's regular expressions to Rust's. Spec rules 3.
//!
//! Owns what braces mean and every difference between the two dialects. Compiled expressions run on bytes, since a
//! decoded path may hold any. The size of a compiled expression is bounded, so no configuration can blow memory.
//! Read next: `frontend.rs`, which decides what an error costs.

use std::collections::HashMap;
use std::fmt::{self, Write};

use regex::bytes::{Regex, RegexBuilder};

use crate::limits::{REGEX_BYTES_MAX, REGEX_CACHE_BYTES_MAX};

/// What a template is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Whole host, any case.
    Host,
    /// Whole decoded path.
    Path,
    /// Whole decoded path, or the path and one more slash.
    PathAndSlash,
    /// Start of the decoded path.
    PathPrefix,
    /// Whole decoded value.
    Query,
}

impl Kind {
    /// What a variable without an expression stands for. Byte-wise, so that text that is not UTF-8 matches as well.
    fn default_expression(self) -> &'static str {
        match self {
            Self::Host => r"(?-u:[^.])+",
            Self::Path | Self::PathAndSlash | Self::PathPrefix => r"(?-u:[^/])+",
            Self::Query => r"(?-u:.)*",
        }
    }
}

/// Literal text and variables, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template<'a> {
    pieces: Vec<Piece<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece<'a> {
    Literal(&'a str),
    /// The expression, `None` being the default of the kind.
    Variable(Option<&'a str>),
}

/// Why a template or an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    UnbalancedBraces,
    /// `{}`, `{:x}` or `{x:}`.
    MissingNameOrPattern,
    NoLeadingSlash,
    Expression(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnbalancedBraces => f.write_str("unbalanced braces"),
            Self::MissingNameOrPattern => {
                f.write_str("a variable lacks its name or its expression")
            }
            Self::NoLeadingSlash => f.write_str("a path must start with a slash"),
            Self::Expression(why) => write!(f, "bad regular expression: {why}"),
        }
    }
}

impl<'a> Template<'a> {
    /// Splits text at its braces. Braces inside a variable nest.
    ///
    /// # Errors
    /// The braces do not fit, or a variable lacks its name or expression.
    pub fn parse(text: &'a str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let (mut depth, mut from) = (0_usize, 0);
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                b'{' => {
                    depth += 1;
                    if depth == 1 {
                        pieces.push(Piece::Literal(&text[from..at]));
                        from = at + 1;
                    }
                }
                b'}' => {
                    depth = depth
                        .checked_sub(1)
                        .ok_or(TemplateError::UnbalancedBraces)?;
                    if depth == 0 {
                        pieces.push(variable(&text[from..at])?);
                        from = at + 1;
                    }
                }
                _ => {}
            }
        }
        if depth != 0 {
            return Err(TemplateError::UnbalancedBraces);
        }
        pieces.push(Piece::Literal(&text[from..]));
        pieces.retain(|piece| *piece != Piece::Literal(""));
        Ok(Self { pieces })
    }

    /// The whole text, if there are no variables.
    pub fn literal(&self) -> Option<&'a str> {
        match *self.pieces {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Literal text that everything matched begins with.
    pub fn prefix(&self) -> &'a str {
        if let Some(Piece::Literal(text)) = self.pieces.first() {
            text
        } else {
            ""
        }
    }

    /// What stands before the literal end, if anything does, and the end. The two match apart what they match together:
    /// where an expression looks at what follows it, the end is left empty.
    pub fn split_tail(mut self) -> (Option<Self>, &'a str) {
        let looks_ahead = |piece: &Piece<'_>| matches!(piece, Piece::Variable(Some(text)) if ["$", r"\b", r"\B", r"\z"].iter().any(|sign| text.contains(sign)));
        let tail = match self.pieces.last() {
            Some(&Piece::Literal(text)) if !self.pieces.iter().any(looks_ahead) => text,
            _ => return (Some(self), ""),
        };
        self.pieces.pop();
        let front = if self.pieces.is_empty() {
            None
        } else {
            Some(self)
        };
        (front, tail)
    }

    fn pattern(&self, kind: Kind) -> Result<String, TemplateError> {
        let mut pattern = String::from(if kind == Kind::Host { "^(?i)" } else { "^" });
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => pattern.push_str(&regex::escape(text)),
                Piece::Variable(None) => pattern.push_str(kind.default_expression()),
                Piece::Variable(Some(expression)) => {
                    let translated = translate(expression);
                    // `{x:a)(b}` must not pass because of the group around it.
                    if expression.contains([')', '(', '\\']) {
                        build(&translated)?;
                    }
                    write!(pattern, "(?:{translated})").expect("writing to a string cannot fail");
                }
            }
        }
        pattern.push_str(match kind {
            Kind::Host | Kind::Path | Kind::Query => "$",
            Kind::PathAndSlash => "/?$",
            Kind::PathPrefix => "",
        });
        Ok(pattern)
    }
}

fn variable(text: &str) -> Result<Piece<'_>, TemplateError> {
    match text.split_once(':') {
        None if text.is_empty() => Err(TemplateError::MissingNameOrPattern),
        None => Ok(Piece::Variable(None)),
        Some((name, expression)) if name.is_empty() || expression.is_empty() => {
            Err(TemplateError::MissingNameOrPattern)
        }
        Some((_, expression)) => Ok(Piece::Variable(Some(expression))),
    }
}

/// Compiled expressions by pattern: big configurations repeat themselves.
#[derive(Debug, Default)]
pub struct Expressions {
    compiled: HashMap<String, Regex>,
}

impl Expressions {
    /// # Errors
    /// An expression of the template is wrong or too big.
    pub fn template(
        &mut self,
        template: &Template<'_>,
        kind: Kind,
    ) -> Result<Regex, TemplateError> {
        self.compiled(template.pattern(kind)?)
    }

    /// An unanchored expression in Go's dialect.
    ///
    /// # Errors
    /// It is wrong or too big.
    pub fn expression(&mut self, go: &str) -> Result<Regex, TemplateError> {
        self.compiled(translate(go))
    }

    fn compiled(&mut self, pattern: String) -> Result<Regex, TemplateError> {
        if let Some(regex) = self.compiled.get(&pattern) {
            return Ok(regex.clone());
        }
        let regex = build(&pattern)?;
        self.compiled.insert(pattern, regex.clone());
        Ok(regex)
    }
}

fn build(pattern: &str) -> Result<Regex, TemplateError> {
    RegexBuilder::new(pattern)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .build()
        .map_err(|error| {
            // The crate draws a picture over several lines; its last line says what is wrong.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default();
            TemplateError::Expression(last.trim_start_matches("error: ").to_owned())
        })
}

/// Writes a Go (RE2) expression in the dialect of the `regex` crate: what is ASCII-only or literal there stays so.
/// Wrong expressions stay wrong.
fn translate(go: &str) -> String {
    let mut translation = Translation {
        rest: go,
        out: String::with_capacity(go.len() + 16),
    };
    while let Some(char) = translation.take() {
        match char {
            '\\' => translation.escape(),
            '[' => translation.class(),
            '{' => translation.brace(),
            '}' => translation.out.push_str(r"\}"),
            _ => translation.out.push(char),
        }
    }
    translation.out
}

struct Translation<'a> {
    rest: &'a str,
    out: String,
}

impl Translation<'_> {
    fn take(&mut self) -> Option<char> {
        let char = self.rest.chars().next()?;
        self.rest = &self.rest[char.len_utf8()..];
        Some(char)
    }

    fn take_if(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// After `{`. Go takes a brace that is not `{n}`, `{n,}` or `{n,m}` as text.
    fn brace(&mut self) {
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let repetition =
            self.rest
                .split_once('}')
                .filter(|(inside, _)| match inside.split_once(',') {
                    None => number(inside),
                    Some((low, high)) => number(low) && (high.is_empty() || number(high)),
                });
        match repetition {
            Some((inside, rest)) => {
                write!(self.out, "{{{inside}}}").expect("writing to a string cannot fail");
                self.rest = rest;
            }
            None => self.out.push_str(r"\{"),
        }
    }

    /// After a backslash, outside a class.
    fn escape(&mut self) {
        let Some(char) = self.take() else {
            self.out.push('\\');
            return;
        };
        match char {
            'd' => self.out.push_str("[0-9]"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("[0-9A-Za-z_]"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"[\t\n\x0C\r ]"),
            'S' => self.out.push_str(r"[^\t\n\x0C\r ]"),
            'b' => self.out.push_str(r"(?-u:\b)"),
            'B' => self.out.push_str(r"(?-u:\B)"),
            'Q' => {
                let end = self.rest.find(r"\E");
                self.out
                    .push_str(&regex::escape(&self.rest[..end.unwrap_or(self.rest.len())]));
                self.rest = end.map_or("", |end| &self.rest[end + 2..]);
            }
            _ => self.escaped_char(char),
        }
    }

    /// After a backslash and `char`: an escape that means one character, or a Unicode class.
    fn escaped_char(&mut self, char: char) {
        match char {
            '0'..='7' => {
                let more = self
                    .rest
                    .bytes()
                    .take(2)
                    .take_while(|byte| matches!(byte, b'0'..=b'7'))
                    .count();
                if char != '0' && more == 0 {
                    // A back reference: neither dialect has them.
                    self.out.push('\\');
                    self.out.push(char);
                    return;
                }
                let mut value = char.to_digit(8).unwrap_or(0);
                for _ in 0..more {
                    value =
                        value * 8 + self.take().and_then(|digit| digit.to_digit(8)).unwrap_or(0);
                }
                write!(self.out, "\\x{{{value:X}}}").expect("writing to a string cannot fail");
            }
            // `\<` and `\>` are word boundaries in Rust and plain signs in Go, like all other signs.
            _ if char.is_ascii_punctuation() => self.literal(char),
            'x' if self.rest.starts_with('{') => {
                let end = self.rest.find('}').map_or(self.rest.len(), |end| end + 1);
                self.out.push_str("\\x");
                self.out.push_str(&self.rest[..end]);
                self.rest = &self.rest[end..];
            }
            'p' | 'P' if self.rest.starts_with('{') => {
                let end = self.rest.find('}').map_or(self.rest.len(), |end| end + 1);
                self.out.push('\\');
                self.out.push(char);
                self.out.push_str(&self.rest[..end]);
                self.rest = &self.rest[end..];
            }
            _ => {
                self.out.push('\\');
                self.out.push(char);
            }
        }
    }

    /// One character that means itself, inside or outside a class.
    fn literal(&mut self, char: char) {
        if char.is_ascii() && !char.is_ascii_alphanumeric() {
            write!(self.out, "\\x{:02X}", u32::from(char))
                .expect("writing to a string cannot fail");
        } else {
            self.out.push(char);
        }
    }

    /// After `[`. In Rust `[`, `&&`, `--` and `~~` mean something inside a class; in Go they are text.
    fn class(&mut self) {
        self.out.push('[');
        if self.take_if("^") {
            self.out.push('^');
        }
        let mut first = true;
        while let Some(char) = self.take() {
            if char == ']' && !first {
                self.out.push(']');
                return;
            }
            first = false;
            if char == '['
                && self.rest.starts_with(':')
                && let Some(end) = self.rest.find(":]")
            {
                self.out.push('[');
                self.out.push_str(&self.rest[..end + 2]);
                self.rest = &self.rest[end + 2..];
                continue;
            }
            let single = self.class_item(char);
            let range = single
                && self.rest.starts_with('-')
                && !self.rest[1..].starts_with(']')
                && self.rest.len() > 1;
            if range {
                self.take();
                self.out.push('-');
                if let Some(char) = self.take() {
                    self.class_item(char);
                }
            }
        }
        // Never closed: the expression is wrong in both dialects.
    }

    /// One item of a class; whether it is a single character.
    fn class_item(&mut self, char: char) -> bool {
        if char != '\\' {
            self.literal(char);
            return true;
        }
        let Some(char) = self.take() else {
            self.out.push('\\');
            return true;
        };
        match char {
            'd' => self.out.push_str("0-9"),
            'D' => self.out.push_str("[^0-9]"),
            'w' => self.out.push_str("0-9A-Za-z_"),
            'W' => self.out.push_str("[^0-9A-Za-z_]"),
            's' => self.out.push_str(r"\t\n\x0C\r\x20"),
            'S' => self.out.push_str(r"[^\t\n\x0C\r\x20]"),
            'p' | 'P' => self.escaped_char(char),
            _ => {
                self.escaped_char(char);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is what happens to `text`: `yes`, `no`, or `error: ...`.
    fn check(template: &str, kind: Kind, text: &str, expected: &str) {
        let said = Template::parse(template)
            .and_then(|template| Expressions::default().template(&template, kind))
            .map(|regex| {
                if regex.is_match(text.as_bytes()) {
                    "yes"
                } else {
                    "no"
                }
                .to_owned()
            })
            .unwrap_or_else(|error| format!("error: {error}"));
        assert_eq!(said, expected, "template {template} text {text}");
    }

    /// Whether the Go expression matches somewhere in `text`.
    fn check_go(go: &str, text: &[u8], expected: bool) {
        let regex = Expressions::default()
            .expression(go)
            .expect("a good expression");
        assert_eq!(
            regex.is_match(text),
            expected,
            "expression {go} as {regex} text {text:?}"
        );
    }

    #[test]
    fn variables() {
        check("/a/{x}", Kind::Path, "/a/b", "yes");
        check("/a/{x}", Kind::Path, "/a/", "no");
        check("/a/{x}", Kind::Path, "/a/b/c", "no");
        check("/a/{x}y", Kind::PathPrefix, "/a/byz", "yes");
        check("/a/{x}y", Kind::PathPrefix, "/a/bz", "no");
        check("/{v:v1|v2}/x", Kind::Path, "/v2/x", "yes");
        check("/{v:v1|v2}/x", Kind::Path, "/v1", "no");
        check("/{x:a{2}}", Kind::Path, "/aa", "yes");
        check("/{x:a{2}}", Kind::Path, "/a", "no");
        check("/a.b", Kind::Path, "/axb", "no");
        check("{sub}.Foo.test", Kind::Host, "A.fOO.test", "yes");
        check("{sub}.foo.test", Kind::Host, "a.b.foo.test", "no");
        check("{id}", Kind::Query, "", "yes");
        check("/{a:[a-z]+}/{a:[0-9]+}", Kind::Path, "/x/1", "yes");
    }

    #[test]
    fn errors() {
        for template in ["/{x", "/x}", "/{x}}", "{{x}"] {
            check(template, Kind::Path, "", "error: unbalanced braces");
        }
        for template in ["{}", "{:x}", "{x:}"] {
            check(
                template,
                Kind::Path,
                "",
                "error: a variable lacks its name or its expression",
            );
        }
        check(
            "{x:[}",
            Kind::Host,
            "",
            "error: bad regular expression: unclosed character class",
        );
        check(
            "{x:a)(b}",
            Kind::Path,
            "",
            "error: bad regular expression: unopened group",
        );
        let huge = Expressions::default().expression("((a{1000}){1000}){1000}");
        assert!(matches!(huge, Err(TemplateError::Expression(_))));
    }

    #[test]
    fn parts() {
        let check = |text: &str, literal: Option<&str>, prefix: &str, tail: &str| {
            let template = Template::parse(text).expect("a template");
            assert_eq!(
                (template.literal(), template.prefix()),
                (literal, prefix),
                "{text}"
            );
            assert_eq!(template.split_tail().1, tail, "{text}");
        };
        check("/a/{x}.foo", None, "/a/", ".foo");
        check("/a", Some("/a"), "/a", "/a");
        check("{a}{b}", None, "", "");
        check(r"{a:x\b}.c", None, "", "");
        check("{a:x$}.c", None, "", "");
    }

    #[test]
    fn perl_classes_are_ascii() {
        check_go(r"^\d$", "٣".as_bytes(), false);
        check_go(r"^\d$", b"3", true);
        check_go(r"^\D$", "٣".as_bytes(), true);
        check_go(r"^\w+$", "é".as_bytes(), false);
        check_go(r"^[\w.-]+$", b"a_1.-", true);
        check_go(r"^[^\d]$", b"1", false);
        check_go(r"^[^\D]$", b"1", true);
        check_go(r"^\s$", b"\x0b", false);
        check_go(r"a\b", "aé".as_bytes(), true);
    }

    #[test]
    fn what_is_special_in_rust_only() {
        check_go(r"^[a&&b]+$", b"a&b", true);
        check_go(r"^[a~~b]+$", b"a~b", true);
        check_go(r"^[[a]$", b"[", true);
        check_go(r"^[+--]$", b",", true);
        check_go(r"^[--a]$", b"_", true);
        check_go(r"^[a-]$", b"-", true);
        check_go(r"^[]a]$", b"]", true);
        check_go(r"^[^]a]$", b"]", false);
        check_go(r"^[[:alpha:]]$", b"q", true);
        check_go(r"^[[:^alpha:]1]$", b"q", false);
        check_go(r"^[\]\[]$", b"[", true);
        check_go(r"^[a-\x63]$", b"c", true);
        check_go(r"^\<a\>$", b"<a>", true);
        check_go(r"^a{b}$", b"a{b}", true);
        check_go(r"^a{,2}$", b"a{,2}", true);
        check_go(r"^a{1,2}$", b"aa", true);
        check_go(r"^\Qa.b\E+$", b"a.bb", true);
        check_go(r"^\Qa.b\E$", b"axb", false);
        check_go(r"^\101$", b"A", true);
        check_go(r"^\x{41}\x42$", b"AB", true);
        check_go(r"^\pL\p{Greek}$", "xα".as_bytes(), true);
        check_go(r"^(?P<n>a)(?i)B$", b"ab", true);
    }
}
