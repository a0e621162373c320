//! Interleaved weighted round robin, to the letter of spec backends 3.1.
//!
//! Owns the weights; the position is in `shard.rs`. Never opens a socket, reads a clock, or looks at another core.
//! Read next: `shard.rs`.

use std::sync::atomic::Ordering::Relaxed;

use super::ServerId;
use super::shard::Shard;

/// Weights of a backend's servers, with what the algorithm needs of them.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    weights: Vec<u32>,
    /// Greatest common divisor of the weights.
    step: u32,
    max: u32,
}

/// Why no server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoServer {
    /// The backend has no servers: answer 503.
    Empty,
    /// Every server has weight 0: answer 500.
    AllZero,
    /// Every server that may be chosen was tried already: answer with the last failure.
    AllTried,
}

impl RoundRobin {
    /// Balances over servers with these weights, in this order.
    pub fn new(weights: Vec<u32>) -> Self {
        let step = weights.iter().copied().fold(0, gcd);
        let max = weights.iter().copied().max().unwrap_or(0);
        Self { weights, step, max }
    }

    /// A position for a core. Core `k` starts `k` choices in, so that cores which begin together do not all ask the
    /// first server; with one core the sequence is the spec's.
    pub fn start(&self, core: usize) -> Shard {
        let shard = Shard::default();
        for _ in 0..core {
            if self.next(&shard).is_err() {
                break;
            }
        }
        shard
    }

    /// The server whose turn it is. Looks at each weight at most once.
    ///
    /// # Errors
    /// There is no server, or none with a weight.
    #[inline]
    pub fn next(&self, shard: &Shard) -> Result<ServerId, NoServer> {
        if self.max == 0 {
            return Err(if self.weights.is_empty() {
                NoServer::Empty
            } else {
                NoServer::AllZero
            });
        }
        let mut at = shard.next.load(Relaxed) as usize;
        let mut current = shard.current.load(Relaxed);
        if at >= self.weights.len() {
            // A shard of other weights would only be off by one round, but it must not be out of bounds.
            at = 0;
        }
        loop {
            if at == 0 {
                current = if current <= self.step {
                    self.max
                } else {
                    current - self.step
                };
            }
            let here = at;
            at = if at + 1 == self.weights.len() {
                0
            } else {
                at + 1
            };
            if self.weights[here] >= current {
                shard.next.store(index(at), Relaxed);
                shard.current.store(current, Relaxed);
                return Ok(ServerId(index(here)));
            }
        }
    }

    /// The next server that is not among `tried`, for another try of the same request. Turns of tried servers are used
    /// up, as if another request had taken them.
    ///
    /// # Errors
    /// As `next`, or every server with a weight was tried.
    pub fn next_except(&self, shard: &Shard, tried: &[ServerId]) -> Result<ServerId, NoServer> {
        // A heavy server can own thousands of turns in a row, so the turns looked at are bounded by the servers.
        for _ in 0..=self.weights.len() {
            let server = self.next(shard)?;
            if !tried.contains(&server) {
                return Ok(server);
            }
        }
        let untried = |at: &usize| self.weights[*at] > 0 && !tried.contains(&ServerId(index(*at)));
        (0..self.weights.len())
            .find(untried)
            .map(|at| ServerId(index(at)))
            .ok_or(NoServer::AllTried)
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("compile bounds the servers of a backend")
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &[u32], core: usize, expected: &str) {
        let balancer = RoundRobin::new(weights.to_vec());
        let shard = balancer.start(core);
        let picks: String = (0..expected.len())
            .map(|_| {
                char::from(
                    b'A' + u8::try_from(balancer.next(&shard).expect("a server").0).expect("few"),
                )
            })
            .collect();
        assert_eq!(picks, expected, "weights {weights:?} core {core}");
    }

    #[test]
    fn sequences_of_the_reference() {
        check(&[10, 1], 0, "AAAAAAAAAABAAAAAAAAAAB");
        check(&[3, 2, 1], 0, "AABABCAABABC");
        check(&[4, 2], 0, "AABAAB");
        check(&[1, 1, 1], 0, "ABCABC");
        check(&[1, 2], 0, "BABBAB");
        check(&[0, 2], 0, "BBB");
        check(&[7], 0, "AAA");
    }

    #[test]
    fn cores_start_staggered() {
        check(&[1, 1, 1], 1, "BCABCA");
        check(&[3, 2, 1], 2, "BABCAABABC");
        check(&[1, 1], 3, "BABA");
    }

    #[test]
    fn nobody_to_ask() {
        let shard = Shard::default();
        assert_eq!(
            RoundRobin::new(Vec::new()).next(&shard),
            Err(NoServer::Empty)
        );
        assert_eq!(
            RoundRobin::new(vec![0, 0]).next(&shard),
            Err(NoServer::AllZero)
        );
    }

    #[test]
    fn a_shard_of_a_larger_backend_is_harmless() {
        let shard = RoundRobin::new(vec![1; 9]).start(8);
        assert_eq!(RoundRobin::new(vec![1, 1]).next(&shard), Ok(ServerId(0)));
    }

    #[test]
    fn tried_servers_are_passed_over() {
        let balancer = RoundRobin::new(vec![1, 1, 1]);
        let shard = balancer.start(0);
        assert_eq!(
            balancer.next_except(&shard, &[ServerId(0)]),
            Ok(ServerId(1))
        );
        assert_eq!(
            balancer.next_except(&shard, &[ServerId(1)]),
            Ok(ServerId(2))
        );
        assert_eq!(
            balancer.next_except(&shard, &[ServerId(0), ServerId(1), ServerId(2)]),
            Err(NoServer::AllTried)
        );

        let lopsided = RoundRobin::new(vec![1_000_000, 1, 0]);
        let shard = lopsided.start(0);
        assert_eq!(
            lopsided.next_except(&shard, &[ServerId(0)]),
            Ok(ServerId(1))
        );
        assert_eq!(
            lopsided.next_except(&shard, &[ServerId(0), ServerId(1)]),
            Err(NoServer::AllTried)
        );
    }
}
