//! Which frontend answers a request, and what it does to it on the way.
//!
//! Owns the compiled rules: [`trie`] (the lookup), [`matcher`] (the tests that remain), [`modifier`] (path rewrites).
//! Never does I/O, never sees `config`: `compile` builds these values.
//! Read next: `trie.rs`.

pub mod matcher;
pub mod modifier;
pub mod trie;

use crate::backend::BackendId;

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
