//! HTTP as values: bytes become heads and bodies, and back.
//!
//! Owns the meaning of messages: heads ([`head`]) and the names in them ([`field`]), framing of bodies ([`body`]), what may
//! stand where ([`syntax`], `target`), the HTTP/1.1 wire form ([`h1`]), heads as the HTTP/2 library has
//! them ([`h2`]), what may come before any of it ([`proxy_protocol`]), and what opens a tunnel ([`websocket`]).
//! Never does I/O, never looks at configuration, never decides where a request goes.
//! Read next: `head.rs`.

pub mod body;
pub mod field;
pub mod h1;
pub mod h2;
pub mod head;
pub mod proxy_protocol;
pub mod syntax;
mod target;
pub mod websocket;

#[cfg(test)]
mod properties;

pub use body::{BodyError, BodyReader, Decoded, Framing};
pub use field::{FieldId, FieldSet};
pub use head::{Field, FieldView, Head, Span, Version};
