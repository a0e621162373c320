//! Values that options share: where an option was written.
//!
//! Never reads a file. Read next: `dynamic.rs`.

use std::fmt;
use std::sync::Arc;

/// Where an option was written. Every message about an option begins with it.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Not written anywhere: a default.
    #[default]
    Default,
    /// Line and column count from 1; columns are characters.
    File {
        path: Arc<str>,
        line: u32,
        column: u32,
    },
    /// A command-line flag as it was typed.
    Flag(Arc<str>),
    /// A key of a key-value store.
    Key(Arc<str>),
}

/// Places are about messages, not about meaning: two configurations that differ only in places are the same.
impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Key(key) => f.write_str(key),
        }
    }
}
