//! Which frontend answers a request, and what it does to it on the way.
//!
//! Owns the compiled rules: [`trie`] (the lookup), [`matcher`] (the tests that remain), [`modifier`] (path rewrites),
//! [`middleware`] (the steps after them), and before all of them [`internal`] (pages about ourselves).
//! Never does I/O, never sees `config`: `compile` builds these values.
//! Read next: `trie.rs`.

pub mod error_page;
pub mod escape;
pub mod explain;
pub mod internal;
pub mod matcher;
pub mod middleware;
pub mod modifier;
pub mod trie;

use std::sync::Arc;

use self::error_page::ErrorPage;
use self::middleware::Middleware;
use self::middleware::rate_limit::RateLimit;
use crate::backend::BackendId;
use crate::http::Span;

/// Index of a frontend in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrontendId(pub u32);

/// A compiled frontend.
#[derive(Clone, Debug)]
pub struct Frontend {
    pub name: String,
    pub provider: String,
    pub backend: BackendId,
    pub pass_host_header: bool,
    /// Servers are shown the certificates of the entry point that a request came by.
    pub pass_tls_cert: bool,
    pub modifiers: modifier::Modifiers,
    /// Steps after the modifiers, in their order.
    pub middlewares: Box<[Middleware]>,
    /// How often it may be used: asked last, when a server is about to be.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// In the order of their names: the first that covers a status stands for the answer.
    pub error_pages: Box<[ErrorPage]>,
}

impl Frontend {
    /// The page that stands for an answer with this status.
    #[inline]
    pub fn page_for(&self, status: u16) -> Option<&ErrorPage> {
        self.error_pages.iter().find(|page| page.covers(status))
    }
}

/// Room for the bytes that a lookup and the modifiers make, owned by the caller so that a warm request allocates
/// nothing. What it holds belongs to the last request; bounded by the longest target and authority seen.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Request host, lower case.
    host: Vec<u8>,
    /// Decoded path.
    path: Vec<u8>,
    /// Path as escaped on the wire, while modifiers keep it.
    raw: Vec<u8>,
    /// A decoded query value, or a path under construction.
    value: Vec<u8>,
    location: Vec<u8>,
    /// Another name of the request's host that `Host` compares too, lower case. Empty: there is none.
    pub alias: Vec<u8>,
    original_target: Option<Span>,
}

impl Scratch {
    /// Value of `Location`, after a lookup that said [`trie::Lookup::Redirect`].
    pub fn location(&self) -> &[u8] {
        &self.location
    }

    /// Where the target as the client sent it stands in the head, if modifiers replaced it.
    pub fn original_target(&self) -> Option<Span> {
        self.original_target
    }
}

/// Requests for tests, here and in `compile`.
#[cfg(test)]
pub(crate) mod example {
    use crate::http::{FieldId, Head};

    /// A request as text.
    #[derive(Clone, Debug)]
    pub(crate) struct Request {
        pub(crate) method: String,
        pub(crate) authority: String,
        pub(crate) target: String,
        pub(crate) fields: Vec<(String, String)>,
    }

    impl Request {
        /// `[METHOD] [authority]/path`, then field lines after `|`.
        pub(crate) fn parse(text: &str) -> Self {
            let mut parts = text.split('|');
            let start = parts.next().unwrap_or_default().trim();
            let (method, rest) = start.rsplit_once(' ').unwrap_or(("GET", start));
            let slash = rest.find('/').expect("a path");
            Self {
                method: method.to_owned(),
                authority: rest[..slash].to_owned(),
                target: rest[slash..].to_owned(),
                fields: parts
                    .map(|line| line.split_once(':').expect("a field line"))
                    .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                    .collect(),
            }
        }

        pub(crate) fn head(&self) -> Head {
            let mut head = Head::default();
            head.set_method(self.method.as_bytes());
            if !self.authority.is_empty() {
                head.set_authority(self.authority.as_bytes());
                head.push_known(FieldId::Host, self.authority.as_bytes());
            }
            head.set_target(self.target.as_bytes());
            for (name, value) in &self.fields {
                head.push(name.as_bytes(), value.as_bytes());
            }
            head
        }
    }
}
