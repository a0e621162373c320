//! Redirects: which entry point, or which expression and what it becomes. Spec frontends 7.
//!
//! Owns the fields that a replacement may name. They are found here, once, in what the operator wrote: text that a client
//! sent is never searched for them.
//! Read next: `frontend/middleware/redirect.rs`.

use std::collections::BTreeMap;

use super::World;
use super::middleware::Refusal;
use super::template::Expressions;
use crate::config::dynamic;
use crate::frontend::middleware::Middleware;
use crate::frontend::middleware::redirect::{self, Piece, Redirect, Restoration};

/// Where an entry point is, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub is_tls: bool,
    pub port: u16,
}

/// `None` if the section names neither an entry point nor an expression.
pub(super) fn of_frontend(
    written: &dynamic::Redirect,
    world: &World,
    restoration: Restoration,
    expressions: &mut Expressions,
) -> Result<Option<Middleware>, Refusal> {
    let open = world
        .entry_points
        .iter()
        .position(|name| *name == written.entry_point);
    redirect(written, &world.targets, open, restoration, expressions)
}

/// As `of_frontend`, for an entry point: the modifiers of no frontend have been at work. That it does not redirect to
/// itself was checked with the static configuration.
pub(super) fn of_entry_point(
    written: &dynamic::Redirect,
    targets: &BTreeMap<String, Target>,
) -> Result<Option<Middleware>, Refusal> {
    let mut expressions = Expressions::default();
    redirect(
        written,
        targets,
        None,
        Restoration::Untouched,
        &mut expressions,
    )
}

fn redirect(
    written: &dynamic::Redirect,
    targets: &BTreeMap<String, Target>,
    open: Option<usize>,
    restoration: Restoration,
    expressions: &mut Expressions,
) -> Result<Option<Middleware>, Refusal> {
    let refuse = |why: String| (written.place.clone(), format!("redirect: {why}"));
    let target = if !written.entry_point.is_empty() {
        let target = targets
            .get(&written.entry_point)
            .ok_or_else(|| refuse(format!("there is no entry point '{}'", written.entry_point)))?;
        redirect::Target::EntryPoint {
            index: open.and_then(|index| u16::try_from(index).ok()),
            is_tls: target.is_tls,
            port: target.port,
        }
    } else if !written.regex.is_empty() {
        redirect::Target::Expression {
            regex: expressions
                .expression(&written.regex)
                .map_err(|error| refuse(format!("'{}': {error}", written.regex)))?,
            replacement: pieces(&written.replacement).map_err(refuse)?,
        }
    } else {
        return Ok(None);
    };
    Ok(Some(Middleware::Redirect(Box::new(Redirect {
        target,
        is_permanent: written.permanent,
        restoration,
    }))))
}

/// The replacement, taken apart at its `{{ }}`.
fn pieces(text: &str) -> Result<Box<[Piece]>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (action, after) = after
            .split_once("}}")
            .ok_or_else(|| format!("'{text}': a '{{{{' is not closed"))?;
        if !before.is_empty() {
            pieces.push(Piece::Text(before.as_bytes().into()));
        }
        pieces.push(field(action).ok_or_else(|| {
            format!(
                "'{{{{{action}}}}}' is not one of {{{{.Request.Host}}}}, {{{{.Request.Method}}}}, \
                 {{{{.Request.URL.Path}}}}, {{{{.Request.URL.RawQuery}}}}, {{{{.Request.RequestURI}}}}, \
                 {{{{.Request.Header.Get \"X\"}}}}"
            )
        })?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.as_bytes().into()));
    }
    Ok(pieces.into())
}

fn field(action: &str) -> Option<Piece> {
    // `{{-` and `-}}` would trim text, of which a URL has none.
    let action = action.trim_matches('-').trim();
    if let Some(name) = action.strip_prefix(".Request.Header.Get ") {
        let name = name.trim();
        let quoted = ['"', '`']
            .iter()
            .find_map(|quote| name.strip_prefix(*quote)?.strip_suffix(*quote))?;
        return (!quoted.is_empty()).then(|| Piece::Field(quoted.as_bytes().into()));
    }
    match action {
        ".Request.Host" => Some(Piece::Host),
        ".Request.Method" => Some(Piece::Method),
        ".Request.URL.Path" => Some(Piece::Path),
        ".Request.URL.RawQuery" => Some(Piece::Query),
        ".Request.RequestURI" => Some(Piece::Uri),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = pieces(text).map_or_else(
            |why| format!("error: {why}"),
            |pieces| {
                let words: Vec<String> = pieces
                    .iter()
                    .map(|piece| match piece {
                        Piece::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
                        Piece::Field(name) => format!("field {}", String::from_utf8_lossy(name)),
                        other => format!("{other:?}"),
                    })
                    .collect();
                words.join(" + ")
            },
        );
        assert!(found.starts_with(expected), "{text}: {found}");
    }

    #[test]
    fn replacements() {
        check("", "");
        check("https://$1", "'https://$1'");
        check(
            "https://{{.Request.Host}}/b/$1",
            "'https://' + Host + '/b/$1'",
        );
        check(
            "{{ .Request.Method }}{{.Request.URL.Path}}",
            "Method + Path",
        );
        check(
            "{{.Request.RequestURI}}?{{.Request.URL.RawQuery}}",
            "Uri + '?' + Query",
        );
        check("{{.Request.Header.Get \"X-A\"}}", "field X-A");
        check("{{ .Request.Header.Get `X-A` }}", "field X-A");
        check(
            "{{.Request.Header.Get X}}",
            "error: '{{.Request.Header.Get X}}' is not one of",
        );
        check("{{.Request.Header.Get \"\"}}", "error: ");
        check("{{if true}}", "error: '{{if true}}' is not one of");
        check("a{{b", "error: 'a{{b': a '{{' is not closed");
        check("a}}b", "'a}}b'");
    }
}
