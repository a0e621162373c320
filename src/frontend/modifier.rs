//! Path rewrites.
use super::Scratch;
use crate::http::Head;

#[derive(Clone, Debug, Default)]
pub struct Modifiers {}

/// No strip entry is a prefix of the path: answer 404.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFound;

impl Modifiers {
    /// Rewrites the target of `head` and adds `X-Forwarded-Prefix` and `X-Replaced-Path`.
    ///
    /// # Errors
    /// A strip list of which no entry fits: answer 404.
    pub fn apply(&self, _head: &mut Head, _scratch: &mut Scratch) -> Result<(), NotFound> {
        Ok(())
    }
}
