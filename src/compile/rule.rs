//! The rule language of Traefik 1.7: text in, matchers and modifiers out. Spec rules 2 to 5.
//!
//! Owns the grammar and nothing else: templates and regular expressions stay text here. There is no quoting and no
//! escaping; text is split at `;`, then `:`, then `,`, and that is all.
//! Read next: `template.rs` (what `{name:regex}` means), `frontend.rs` (rules become a compiled frontend).

use std::fmt;

/// A parsed rule. All matchers must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    pub matchers: Vec<Matcher>,
    pub modifiers: Modifiers,
}

/// A matcher as written, blanks trimmed. Lists are alternatives, pairs must all hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// Lower-cased.
    Host(Vec<String>),
    HostRegexp(Vec<String>),
    Path(Vec<String>),
    /// Plain text unless it contains `{`.
    PathPrefix(Vec<String>),
    /// From `PathPrefixStripRegex`: a template even without `{`.
    PathPrefixTemplate(Vec<String>),
    /// Upper-cased.
    Method(Vec<String>),
    Headers(Vec<(String, String)>),
    HeadersRegexp(Vec<(String, String)>),
    Query(Vec<(String, String)>),
}

/// One slot for each kind of modifier; a later one of the same kind takes the place of an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modifiers {
    /// Longest first.
    pub strip_regex: Option<Vec<String>>,
    /// Longest first.
    pub strip: Option<Vec<String>>,
    pub add_prefix: Option<String>,
    pub replace_path_regex: Option<String>,
    pub replace_path: Option<String>,
}

impl Modifiers {
    /// Takes over every slot that `later` fills.
    pub fn overlay(&mut self, later: Self) {
        let Self {
            strip_regex,
            strip,
            add_prefix,
            replace_path_regex,
            replace_path,
        } = later;
        self.strip_regex = strip_regex.or_else(|| self.strip_regex.take());
        self.strip = strip.or_else(|| self.strip.take());
        self.add_prefix = add_prefix.or_else(|| self.add_prefix.take());
        self.replace_path_regex = replace_path_regex.or_else(|| self.replace_path_regex.take());
        self.replace_path = replace_path.or_else(|| self.replace_path.take());
    }
}

/// Why a rule cannot be used. The frontend is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleError {
    Empty,
    /// A piece made of colons only.
    NoName(String),
    UnknownName(String),
    NoArguments(String),
    OddPairs(Vec<String>),
    OddQuery(Vec<String>),
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty rule"),
            Self::NoName(piece) => write!(f, "no matcher or modifier in '{piece}'"),
            Self::UnknownName(name) => write!(f, "Unknown function: '{name}'"),
            Self::NoArguments(piece) => write!(f, "no arguments in '{piece}'"),
            Self::OddPairs(arguments) => {
                write!(
                    f,
                    "mux: number of parameters must be multiple of 2, got [{}]",
                    arguments.join(" ")
                )
            }
            Self::OddQuery(items) => write!(f, "invalid expression: {}", items.join(",")),
        }
    }
}

/// Reads a rule.
///
/// # Errors
/// The rule cannot be used; the text of the error says why in the reference's words where those are known.
pub fn parse(rule: &str) -> Result<Rule, RuleError> {
    let mut parsed = Rule::default();
    let mut pieces = rule.split(';').filter(|piece| !piece.is_empty()).peekable();
    if pieces.peek().is_none() {
        return Err(RuleError::Empty);
    }
    for piece in pieces {
        let mut words = piece.split(':').filter(|word| !word.is_empty());
        let name = words
            .next()
            .ok_or_else(|| RuleError::NoName(piece.to_owned()))?
            .trim();
        // Joined again with single colons: `a::c` becomes `a:c`, and a last colon is lost.
        let text = words.collect::<Vec<_>>().join(":");
        let arguments: Vec<String> = text
            .split(',')
            .filter(|argument| !argument.is_empty())
            .map(|argument| argument.trim().to_owned())
            .collect();
        parsed.add(name, piece, arguments)?;
    }
    Ok(parsed)
}

impl Rule {
    fn add(&mut self, name: &str, piece: &str, arguments: Vec<String>) -> Result<(), RuleError> {
        // An unknown name is said before missing arguments are.
        let add: fn(&mut Self, Vec<String>) -> Result<(), RuleError> = match name {
            "Host" => |rule, arguments| {
                let hosts = arguments.iter().map(|host| host.to_lowercase()).collect();
                rule.matcher(Matcher::Host(hosts))
            },
            "HostRegexp" => |rule, arguments| rule.matcher(Matcher::HostRegexp(arguments)),
            "Path" => |rule, arguments| rule.matcher(Matcher::Path(arguments)),
            "PathStrip" => |rule, arguments| {
                rule.modifiers.strip = Some(longest_first(&arguments));
                rule.matcher(Matcher::Path(arguments))
            },
            "PathStripRegex" => |rule, arguments| {
                rule.modifiers.strip_regex = Some(longest_first(&arguments));
                rule.matcher(Matcher::Path(arguments))
            },
            "PathPrefix" => |rule, arguments| rule.matcher(Matcher::PathPrefix(arguments)),
            "PathPrefixStrip" => |rule, arguments| {
                rule.modifiers.strip = Some(longest_first(&arguments));
                rule.matcher(Matcher::PathPrefix(arguments))
            },
            "PathPrefixStripRegex" => |rule, arguments| {
                rule.modifiers.strip_regex = Some(longest_first(&arguments));
                rule.matcher(Matcher::PathPrefixTemplate(arguments))
            },
            "Method" => |rule, arguments| {
                let methods = arguments
                    .iter()
                    .map(|method| method.to_uppercase())
                    .collect();
                rule.matcher(Matcher::Method(methods))
            },
            "Headers" => |rule, arguments| rule.matcher(Matcher::Headers(pairs(arguments)?)),
            "HeadersRegexp" => {
                |rule, arguments| rule.matcher(Matcher::HeadersRegexp(pairs(arguments)?))
            }
            "Query" => |rule, arguments| rule.matcher(Matcher::Query(query(arguments)?)),
            "AddPrefix" => |rule, mut arguments| {
                rule.modifiers.add_prefix = arguments.pop();
                Ok(())
            },
            "ReplacePath" => |rule, mut arguments| {
                rule.modifiers.replace_path = arguments.pop();
                Ok(())
            },
            "ReplacePathRegex" => |rule, mut arguments| {
                rule.modifiers.replace_path_regex = arguments.pop();
                Ok(())
            },
            _ => return Err(RuleError::UnknownName(name.to_owned())),
        };
        if arguments.is_empty() {
            return Err(RuleError::NoArguments(piece.to_owned()));
        }
        add(self, arguments)
    }

    fn matcher(&mut self, matcher: Matcher) -> Result<(), RuleError> {
        self.matchers.push(matcher);
        Ok(())
    }
}

/// The order in which strip entries are tried.
fn longest_first(arguments: &[String]) -> Vec<String> {
    let mut sorted = arguments.to_vec();
    sorted.sort_by_key(|argument| std::cmp::Reverse(argument.len()));
    sorted
}

fn pairs(arguments: Vec<String>) -> Result<Vec<(String, String)>, RuleError> {
    if !arguments.len().is_multiple_of(2) {
        return Err(RuleError::OddPairs(arguments));
    }
    let mut pairs = Vec::with_capacity(arguments.len() / 2);
    let mut arguments = arguments.into_iter();
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// Items are split at every `=`, and what comes out is taken two by two, so `foo,bar` is `foo=bar`.
fn query(items: Vec<String>) -> Result<Vec<(String, String)>, RuleError> {
    let words: Vec<String> = items
        .iter()
        .flat_map(|item| item.split('='))
        .map(str::to_owned)
        .collect();
    pairs(words).map_err(|_| RuleError::OddQuery(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `expected` is the debug form of the matchers, or the error, without quotes.
    fn check(rule: &str, expected: &str) {
        let said = match parse(rule) {
            Ok(rule) => {
                let mut said: Vec<String> = rule
                    .matchers
                    .iter()
                    .map(|matcher| format!("{matcher:?}"))
                    .collect();
                let Modifiers {
                    strip_regex,
                    strip,
                    add_prefix,
                    replace_path_regex,
                    replace_path,
                } = rule.modifiers;
                said.extend(strip_regex.map(|list| format!("strip_regex{list:?}")));
                said.extend(strip.map(|list| format!("strip{list:?}")));
                said.extend(add_prefix.map(|text| format!("add {text:?}")));
                said.extend(replace_path_regex.map(|text| format!("replace_regex {text:?}")));
                said.extend(replace_path.map(|text| format!("replace {text:?}")));
                said.join(" ")
            }
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(said.replace('"', ""), expected, "rule {rule:?}");
    }

    #[test]
    fn splitting() {
        check(
            "Host:a.com,b.com;Path:/x",
            "Host([a.com, b.com]) Path([/x])",
        );
        check(";;Path:/x;", "Path([/x])");
        check("Path:/x,,/y,", "Path([/x, /y])");
        check("Headers:X-A,a::c", "Headers([(X-A, a:c)])");
        check("Host:[::1]", "Host([[:1]])");
        check("Path:/a:", "Path([/a])");
        check("Path:/{n:[0-9]{1,3}}", "Path([/{n:[0-9]{1, 3}}])");
        check("Host(`a.b`)", "error: Unknown function: 'Host(`a.b`)'");
    }

    #[test]
    fn blanks() {
        check(" Path : /sp , /sp2 ", "Path([/sp, /sp2])");
        check("Path:/it is", "Path([/it is])");
        check("Headers:X-A, ", "Headers([(X-A, )])");
        check("Path:/café", "Path([/café])");
    }

    #[test]
    fn names_and_cases() {
        check("Host:Foo.Test", "Host([foo.test])");
        check("Method: get, POST", "Method([GET, POST])");
        check("method:GET", "error: Unknown function: 'method'");
        check("Host:a.test;Bogus:x", "error: Unknown function: 'Bogus'");
        check("HeadersRegexp:X-A,b.d", "HeadersRegexp([(X-A, b.d)])");
    }

    #[test]
    fn errors() {
        check("", "error: empty rule");
        check(";", "error: empty rule");
        check(":", "error: no matcher or modifier in ':'");
        check("Path:", "error: no arguments in 'Path:'");
        check("Path:,", "error: no arguments in 'Path:,'");
        check("Path", "error: no arguments in 'Path'");
        check(
            "Headers:X-A",
            "error: mux: number of parameters must be multiple of 2, got [X-A]",
        );
        check("Query:foo", "error: invalid expression: foo");
        check("Query:a=b=c", "error: invalid expression: a=b=c");
    }

    #[test]
    fn query_items() {
        check("Query:foo=bar", "Query([(foo, bar)])");
        check("Query:foo=", "Query([(foo, )])");
        check("Query:foo,bar", "Query([(foo, bar)])");
        check(
            "Query: foo=bar, id={id:[0-9]+}",
            "Query([(foo, bar), (id, {id:[0-9]+})])",
        );
    }

    #[test]
    fn modifiers_share_slots_and_the_last_argument_wins() {
        check(
            "PathPrefixStrip:/a,/abc,/ab",
            "PathPrefix([/a, /abc, /ab]) strip[/abc, /ab, /a]",
        );
        check(
            "PathStrip:/a;PathPrefixStrip:/b",
            "Path([/a]) PathPrefix([/b]) strip[/b]",
        );
        check(
            "PathStripRegex:/a;PathPrefixStripRegex:/{b}",
            "Path([/a]) PathPrefixTemplate([/{b}]) strip_regex[/{b}]",
        );
        check("AddPrefix:/a,/b", "add /b");
        check("AddPrefix:/a;AddPrefix:/b", "add /b");
        check(
            "ReplacePath:/a,/b;ReplacePathRegex:^/x /y",
            "replace_regex ^/x /y replace /b",
        );
    }

    #[test]
    fn routes_of_a_frontend_share_slots() {
        let mut modifiers = parse("AddPrefix:/a;ReplacePath:/r")
            .expect("a rule")
            .modifiers;
        modifiers.overlay(
            parse("AddPrefix:/b;PathStrip:/s")
                .expect("a rule")
                .modifiers,
        );
        assert_eq!(modifiers.add_prefix.as_deref(), Some("/b"));
        assert_eq!(modifiers.replace_path.as_deref(), Some("/r"));
        assert_eq!(modifiers.strip, Some(vec!["/s".to_owned()]));
    }
}
