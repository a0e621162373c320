//! The HTTP/1.1 wire form: [`parse`] reads heads strictly, [`encode`] writes them anew.
//!
//! Never repairs a message: what two parsers could read differently is an error (RFC 9112 section 11.2).
//! Read next: `parse.rs` (whole heads), which calls `scan.rs` (is the head all there?), [`lines`] (field lines) and
//! `framing.rs` (what the fields say together).

pub mod encode;
pub(super) mod framing;
pub mod lines;
pub mod parse;
mod scan;

pub use lines::Defect;
pub use parse::{
    Asked, Request, RequestError, Response, ResponseError, Upgrade, request, response,
};
pub use scan::Scan;
