//! A request that nobody sent, for the operator who asks what would become of it.
//!
//! Owns the way from its parts to a head, which is the parser's, and words for steps. Finds frontends by the same trie as a
//! core. Never does I/O. Read next: `trie.rs`, `control/explain.rs` (who asks).

use std::slice;

use super::Scratch;
use super::middleware::{self, Answer, Context, Middleware, Verdict};
use super::modifier::Modifiers;
use super::trie::{Lookup, Trie};
use crate::http::Head;
use crate::http::h1::{self, Scan};

/// A request, as a core would have read it.
#[derive(Debug, Default)]
pub struct Asked {
    head: Head,
    scratch: Scratch,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub what: String,
    /// The request goes no further.
    pub ends: bool,
}

impl Asked {
    /// # Errors
    /// A server would refuse it: why.
    pub fn new(
        method: &str,
        authority: &str,
        target: &str,
        fields: &[(String, String)],
    ) -> Result<Self, String> {
        let is_host = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("Host");
        let host = fields.iter().find(is_host);
        let host = host.map_or(authority, |(_, value)| value);
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in fields.iter().filter(|field| !is_host(field)) {
            if value.contains(['\r', '\n']) || name.contains(['\r', '\n']) {
                return Err(format!("the field {name} has more than one line"));
            }
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut asked = Self::default();
        match h1::request(text.as_bytes(), &mut Scan::default(), &mut asked.head) {
            Ok(Some(_)) => Ok(asked),
            Ok(None) => Err("it does not end".to_owned()),
            Err(error) => Err(format!("it would be refused: {error:?}")),
        }
    }

    pub fn method(&self) -> &[u8] {
        self.head.method()
    }

    /// As it is now: modifiers change it.
    pub fn target(&self) -> String {
        String::from_utf8_lossy(self.head.target()).into_owned()
    }

    /// Which frontend of an entry point answers it.
    pub fn lookup(&mut self, trie: &Trie) -> Lookup {
        trie.lookup(&self.head, &mut self.scratch)
    }

    /// Where a lookup that said [`Lookup::Redirect`] sends it.
    pub fn location(&self) -> String {
        String::from_utf8_lossy(self.scratch.location()).into_owned()
    }

    /// Rewrites its path. `false`: there is nothing to strip, so it is answered 404.
    pub fn modify(&mut self, modifiers: &Modifiers) -> bool {
        modifiers.apply(&mut self.head, &mut self.scratch).is_ok()
    }

    /// What these steps do, in their order. What depends on who asks is only named.
    pub fn steps(&mut self, steps: &[Middleware], context: Context) -> Vec<Step> {
        steps.iter().map(|step| self.step(step, context)).collect()
    }

    fn step(&mut self, step: &Middleware, context: Context) -> Step {
        let what = match step {
            Middleware::WhiteList(_) => "white list",
            Middleware::Headers(_) => "headers",
            Middleware::Basic(_) => "basic authentication",
            Middleware::Digest(_) => "digest authentication",
            Middleware::Forward(_) => "authentication by another server",
            Middleware::ClientCertificate(_) => "fields of the client's certificate",
            Middleware::Redirect(_) => "redirect",
        };
        // Those that look at nothing but the request can say what they do.
        let verdict = match step {
            Middleware::Headers(_) | Middleware::Redirect(_) => {
                let steps = slice::from_ref(step);
                middleware::on_request(steps, &mut self.head, context, &mut self.scratch)
            }
            _ => Verdict::Pass,
        };
        match verdict {
            Verdict::Answer(answer) => Step {
                what: format!("{what}: answers {}", said(&answer)),
                ends: true,
            },
            Verdict::Pass | Verdict::Ask(_) => Step {
                what: what.to_owned(),
                ends: false,
            },
        }
    }
}

/// Its status, and where it leads.
fn said(answer: &Answer) -> String {
    let location = answer.fields.iter().find(|(name, _)| name == "Location");
    let location = location.map(|(_, value)| format!(" to {}", String::from_utf8_lossy(value)));
    format!("{}{}", answer.status, location.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_by_a_core() {
        let asked = |target: &str, fields: &[(String, String)]| {
            Asked::new("GET", "a.example", target, fields)
        };
        let host = [("host".to_owned(), "b.example".to_owned())];
        let found = asked("/x?y", &host).expect("a request");
        assert_eq!(found.head.authority(), b"b.example");
        assert_eq!(found.target(), "/x?y");
        for bad in ["/a b", "x", "/\u{1}"] {
            assert!(asked(bad, &[]).is_err(), "{bad}");
        }
        let split = [("A".to_owned(), "b\r\nC: d".to_owned())];
        assert!(asked("/", &split).is_err());
    }
}
