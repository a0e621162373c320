//! What the end-to-end tests stand on: the real program, a scriptable origin, a client of raw bytes, and waiting.
//!
//! Owns every deadline. Never sleeps for a fixed time: it waits for a condition, and says which one did not come true.
//! Read next: `coreway.rs` (the program), `origin.rs` (the servers behind it), `client.rs` (the clients before it).

pub mod acme;
pub mod client;
pub mod coreway;
pub mod grpc_origin;
pub mod h2;
pub mod h2_origin;
pub mod load;
pub mod origin;
pub mod pebble;
pub mod server;
pub mod tls;
pub mod wait;
pub mod websocket;
pub mod wire;

mod itself;

pub use client::{Client, get};
pub use coreway::{Coreway, Start, backend, site};
pub use h2_origin::H2Origin;
pub use origin::{Origin, answer};
pub use wait::{DEADLINE, Gate, eventually, eventually_within, heavy, holds_for};
pub use wire::{Head, Response};
