//! Interleaved weighted round robin, to the letter of spec backends 3.1.
//!
//! Owns the weights; the position is in `shard.rs`. Never opens a socket, reads a clock, or looks at another core.

/// Weights of a backend's servers, with what the algorithm needs of them.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    weights: Vec<u32>,
    gcd: u32,
    max: u32,
}
