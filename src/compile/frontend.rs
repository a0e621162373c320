//! The routes of a frontend become matchers, modifiers and a priority. Spec rules 1, 3, 5 and 6.
//!
//! Owns what a bad template or expression costs: the frontend, one alternative, or nothing but a warning. Never knows
//! entry points or backends.
//! Read next: `mod.rs`.

use super::rule::{self, Rule};
use super::template::{Expressions, Kind, Template, TemplateError};
use super::{Rejection, Severity};
use crate::config::{Place, dynamic};
use crate::frontend::matcher::{
    HostPattern, Matcher, PathPattern, PrefixPattern, Slash, ValuePattern,
};
use crate::frontend::modifier::{Modifiers, Steps};

/// The routes of a frontend, compiled.
#[derive(Debug)]
pub(super) struct Routes {
    pub(super) matchers: Vec<Matcher>,
    pub(super) modifiers: Modifiers,
}

/// Priority of a frontend: as written if above zero, else the bytes of all its rules.
pub fn priority(frontend: &dynamic::Frontend) -> u64 {
    match u64::try_from(frontend.priority) {
        Ok(priority) if priority > 0 => priority,
        _ => frontend
            .routes
            .values()
            .map(|route| route.rule.len() as u64)
            .sum(),
    }
}

/// What compiling the routes of one frontend needs.
#[derive(Debug)]
pub(super) struct Compiler<'a> {
    pub(super) expressions: &'a mut Expressions,
    pub(super) keep_trailing_slash: bool,
    pub(super) rejections: &'a mut Vec<Rejection>,
    /// Of the frontend or its route, for messages.
    pub(super) name: &'a str,
    pub(super) place: &'a Place,
}

impl<'a> Compiler<'a> {
    /// All routes, in the order of their names.
    ///
    /// # Errors
    /// Where and why the frontend cannot be used.
    pub(super) fn routes(
        mut self,
        frontend: &'a dynamic::Frontend,
    ) -> Result<Routes, (Place, String)> {
        let mut matchers = Vec::new();
        let mut modifiers = rule::Modifiers::default();
        for route in frontend.routes.values() {
            self.place = &route.place;
            let bad = |why: String| (route.place.clone(), why);
            let parsed: Rule = rule::parse(&route.rule).map_err(|error| bad(error.to_string()))?;
            for matcher in parsed.matchers {
                self.matcher(matcher, &mut matchers)
                    .map_err(|error| bad(error.to_string()))?;
            }
            modifiers.overlay(parsed.modifiers);
        }
        Ok(Routes {
            matchers,
            modifiers: self.modifiers(modifiers),
        })
    }

    fn matcher(
        &mut self,
        matcher: rule::Matcher,
        out: &mut Vec<Matcher>,
    ) -> Result<(), TemplateError> {
        match matcher {
            rule::Matcher::Host(names) => {
                out.push(Matcher::Host(names.into_iter().map(bytes).collect()))
            }
            rule::Matcher::HostRegexp(texts) => {
                let host = |this: &mut Self, text: &str| host(this.expressions, text);
                out.push(Matcher::HostRegexp(self.usable(texts, host)));
            }
            rule::Matcher::Path(texts) => out.push(Matcher::Path(self.usable(texts, Self::path))),
            rule::Matcher::PathPrefix(texts) => {
                let prefix = |this: &mut Self, text: &str| match text.contains('{') {
                    true => this.prefix_template(text),
                    false => literal_prefix(text),
                };
                out.push(Matcher::PathPrefix(self.usable(texts, prefix)));
            }
            rule::Matcher::PathPrefixTemplate(texts) => {
                out.push(Matcher::PathPrefix(
                    self.usable(texts, Self::prefix_template),
                ));
            }
            rule::Matcher::Method(methods) => {
                out.push(Matcher::Method(methods.into_iter().map(bytes).collect()));
            }
            rule::Matcher::Headers(pairs) => {
                for (name, value) in pairs {
                    let value = if value.is_empty() {
                        None
                    } else {
                        Some(bytes(value))
                    };
                    out.push(self.seen(&name).unwrap_or(Matcher::Header {
                        name: bytes(name),
                        value,
                    }));
                }
            }
            rule::Matcher::HeadersRegexp(pairs) => {
                for (name, value) in pairs {
                    let regex = self.expressions.expression(&value)?;
                    out.push(self.seen(&name).unwrap_or(Matcher::HeaderRegexp {
                        name: bytes(name),
                        regex,
                    }));
                }
            }
            rule::Matcher::Query(pairs) => {
                for (key, value) in pairs {
                    let template = Template::parse(&value)?;
                    let value = match template.literal() {
                        Some("") => ValuePattern::Any,
                        Some(text) => ValuePattern::Exactly(text.as_bytes().into()),
                        None => {
                            ValuePattern::Regex(self.expressions.template(&template, Kind::Query)?)
                        }
                    };
                    out.push(Matcher::Query {
                        key: bytes(key),
                        value,
                    });
                }
            }
        }
        Ok(())
    }

    /// `Never`, for the fields that the reference takes out of the head before rules look at it.
    fn seen(&mut self, name: &str) -> Option<Matcher> {
        let hidden =
            name.eq_ignore_ascii_case("Host") || name.eq_ignore_ascii_case("Transfer-Encoding");
        hidden.then(|| {
            self.warn(format!(
                "frontend {} never matches: rules do not see the field {name}",
                self.name
            ));
            Matcher::Never
        })
    }

    /// The alternatives that can match; the others are left out with a warning.
    fn usable<T>(
        &mut self,
        texts: Vec<String>,
        compile: impl Fn(&mut Self, &str) -> Result<T, TemplateError>,
    ) -> Box<[T]> {
        let mut usable = Vec::with_capacity(texts.len());
        for text in texts {
            match compile(self, &text) {
                Ok(pattern) => usable.push(pattern),
                Err(error) => {
                    self.warn(format!(
                        "'{text}' of frontend {} never matches: {error}",
                        self.name
                    ));
                }
            }
        }
        usable.into()
    }

    fn path(&mut self, text: &str) -> Result<PathPattern, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::NoLeadingSlash);
        }
        let (text, slash) = match text.strip_suffix('/') {
            _ if self.keep_trailing_slash => (text, Slash::Exact),
            Some(text) => (text, Slash::Wanted),
            None => (text, Slash::Unwanted),
        };
        let template = Template::parse(text)?;
        let regex = if template.literal().is_some() {
            None
        } else {
            let kind = if slash == Slash::Exact {
                Kind::Path
            } else {
                Kind::PathAndSlash
            };
            Some(self.expressions.template(&template, kind)?)
        };
        Ok(PathPattern {
            prefix: template.prefix().as_bytes().into(),
            regex,
            slash,
        })
    }

    fn prefix_template(&mut self, text: &str) -> Result<PrefixPattern, TemplateError> {
        if !text.starts_with('/') {
            return Err(TemplateError::NoLeadingSlash);
        }
        let template = Template::parse(text)?;
        if template.literal().is_some() {
            return literal_prefix(text);
        }
        let regex = Some(self.expressions.template(&template, Kind::PathPrefix)?);
        Ok(PrefixPattern {
            prefix: template.prefix().as_bytes().into(),
            regex,
        })
    }

    fn modifiers(&mut self, written: rule::Modifiers) -> Modifiers {
        let rule::Modifiers {
            strip_regex,
            strip,
            add_prefix,
            replace_path_regex,
            replace_path,
        } = written;
        // A bad entry of the list has had its warning as a matcher.
        let strip_regex = strip_regex.map(|texts| {
            texts
                .iter()
                .filter_map(|text| {
                    let template = Template::parse(text)
                        .ok()
                        .filter(|_| text.starts_with('/'))?;
                    self.expressions.template(&template, Kind::PathPrefix).ok()
                })
                .collect()
        });
        Modifiers::from(Steps {
            strip_regex,
            strip: strip.map(|entries| entries.into_iter().map(bytes).collect()),
            add_prefix: add_prefix.map(absolute),
            replace_regex: replace_path_regex.and_then(|text| self.replace_regex(&text)),
            replace: replace_path.map(absolute),
        })
    }

    fn replace_regex(&mut self, text: &str) -> Option<(regex::bytes::Regex, Box<[u8]>)> {
        let pieces = text
            .split_once(' ')
            .filter(|(_, replacement)| !replacement.contains(' '));
        let Some((expression, replacement)) = pieces else {
            self.warn(format!(
                "Invalid syntax for ReplacePathRegex: {text}. Separate the regular expression and the replacement by \
                 a space."
            ));
            return None;
        };
        match self.expressions.expression(expression) {
            Ok(regex) => Some((regex, replacement.as_bytes().into())),
            Err(error) => {
                self.warn(format!(
                    "Error compiling regular expression {expression}: {error}"
                ));
                None
            }
        }
    }

    fn warn(&mut self, message: String) {
        let place = self.place.clone();
        self.rejections.push(Rejection {
            place,
            severity: Severity::Warning,
            message,
        });
    }
}

/// An alternative of `HostRegexp`.
pub(super) fn host(
    expressions: &mut Expressions,
    text: &str,
) -> Result<HostPattern, TemplateError> {
    let (front, tail) = Template::parse(text)?.split_tail();
    let front = front
        .map(|front| expressions.template(&front, Kind::Host))
        .transpose()?;
    Ok(HostPattern {
        tail: bytes(tail.to_lowercase()),
        front,
    })
}

fn literal_prefix(text: &str) -> Result<PrefixPattern, TemplateError> {
    if !text.starts_with('/') {
        return Err(TemplateError::NoLeadingSlash);
    }
    Ok(PrefixPattern {
        prefix: text.as_bytes().into(),
        regex: None,
    })
}

fn bytes(text: String) -> Box<[u8]> {
    text.into_bytes().into()
}

/// A path of the configuration, with the slash that makes it one.
fn absolute(text: String) -> Box<[u8]> {
    if text.starts_with('/') {
        bytes(text)
    } else {
        bytes(format!("/{text}"))
    }
}
