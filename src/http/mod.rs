//! HTTP as values: bytes become heads and bodies, and back.
//!
//! Owns the meaning of messages: heads ([`head`]), framing of bodies ([`body`]), and the HTTP/1.1 wire form ([`h1`]).
//! Never does I/O, never looks at configuration, never decides where a request goes.
//! Read next: `head.rs`.

pub mod body;
pub mod h1;
pub mod head;

pub use head::{Field, FieldId, Head, Span, Version};
