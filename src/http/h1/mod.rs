//! The HTTP/1.1 wire form: [`parse`] reads heads strictly, [`encode`] writes them anew.
//!
//! Never repairs a message: what two parsers could read differently is an error (RFC 9112 section 11.2).
//! Read next: `parse.rs`.

pub mod encode;
pub mod parse;
