//! Why a store did not do what it was asked: whose fault, and whether to try again.
//!
//! Never decides when to try again: `backoff.rs` does.

use std::fmt;

/// Who has to do something about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store or the network between: it may be well again at any time.
    Store,
    /// Whoever wrote our configuration or granted our rights.
    Operator,
    /// This program asked for what cannot be.
    Ours,
}

/// A request to a store that failed. The texts name the store's endpoint and what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No endpoint answered in time, or the connection broke.
    Unreachable(String),
    /// The store answers, but cannot serve now: no leader, starting, overloaded.
    Unavailable(String),
    /// Wrong user, password, token or certificate, or a right that is missing.
    Denied(String),
    /// The settings can never work.
    Settings(String),
    /// An answer that is not of the store's protocol.
    Protocol(String),
    /// The tree is bigger than `limits::STORE_TREE_BYTES_MAX` or `limits::STORE_KEYS_MAX`.
    TooBig(String),
    /// What happened since the position is forgotten: read the whole tree.
    Forgotten(String),
    /// The store has no such thing, or not for this key.
    Unsupported(String),
}

impl Error {
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable(_)
            | Self::Unavailable(_)
            | Self::Protocol(_)
            | Self::Forgotten(_) => Fault::Store,
            Self::Denied(_) | Self::Settings(_) | Self::TooBig(_) => Fault::Operator,
            Self::Unsupported(_) => Fault::Ours,
        }
    }

    /// Whether the same request may succeed later without a change of ours. Rights and sizes are changed in the store, so
    /// a refusal counts too.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Self::Settings(_) | Self::Unsupported(_))
    }

    /// Whether the store itself has answered.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::Unreachable(_) | Self::Settings(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what)
            | Self::Unavailable(what)
            | Self::Settings(what)
            | Self::Unsupported(what)
            | Self::Forgotten(what) => f.write_str(what),
            Self::Denied(what) => write!(f, "access denied: {what}"),
            Self::Protocol(what) => write!(f, "an answer that is not understood: {what}"),
            Self::TooBig(what) => write!(f, "too big: {what}"),
        }
    }
}

impl std::error::Error for Error {}
