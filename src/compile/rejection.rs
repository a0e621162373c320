//! What the operator wrote that is not served, and why.
//!
//! Owns the words for it. Never decides what is left out. Read next: `frontend.rs`, `backend.rs` (who do).

use std::fmt;

use crate::config::Place;

/// Something the operator wrote that is not served, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub place: Place,
    pub severity: Severity,
    /// A whole sentence, without the place.
    pub message: String,
}

/// How much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The part works, though not all of it, or not as its writer may think.
    Warning,
    /// A frontend, backend or certificate is left out.
    Error,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
