//! Heads as the HTTP/2 library has them: its maps become our heads, and our heads become its maps.
//!
//! The `h2` crate does the frames, HPACK and flow control; `proxy` does the I/O. What lies between is here, so that
//! another codec would be another folder beside this one. Never does I/O, never lets a field through that could be read
//! in two ways, also where the crate would have refused it before.
//! Read next: [`fields`] (both directions), [`server`] (requests that came, answers that leave), [`meter`] (what a client
//! may make us do).

pub mod client;
pub mod fields;
pub mod meter;
pub mod server;

pub use fields::Malformed;
