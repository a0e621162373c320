//! Which frontend answers a request, and what it does to it on the way.
//!
//! Owns the compiled rules: [`trie`] (the lookup), [`matcher`] (the tests that remain), [`modifier`] (path rewrites).
//! Never does I/O, never sees `config`: `compile` builds these values.
//! Read next: `trie.rs`.

pub mod escape;
pub mod matcher;
pub mod modifier;
pub mod trie;

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
    pub modifiers: modifier::Modifiers,
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
