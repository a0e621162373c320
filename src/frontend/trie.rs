//! The lookup.
use super::{FrontendId, Scratch};
use crate::http::Head;

#[derive(Clone, Debug, Default)]
pub struct Trie {}

/// What a request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    Frontend(FrontendId),
    /// 301 to [`Scratch::location`]: the path differs from the rule's by its last slash only.
    Redirect,
    /// No frontend: 404.
    None,
}

impl Trie {
    /// The frontend that answers `head`.
    pub fn lookup(&self, _head: &Head, _scratch: &mut Scratch) -> Lookup {
        Lookup::None
    }
}
