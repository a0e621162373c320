//! Interleaved weighted round robin, to the letter of spec backends 3.1.
//!
//! Owns the weights that are in force on one core, and the position. Never opens a socket, reads a clock, or looks at
//! another core. Written by its core only, with plain relaxed stores.
//! Read next: `rebalance.rs` (changes the weights).

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::ServerId;

/// Weights of servers, with what the algorithm needs of them, and whose turn it is.
#[derive(Debug)]
pub struct RoundRobin {
    weights: Box<[AtomicU32]>,
    /// Greatest common divisor of the weights.
    step: AtomicU32,
    /// The highest weight; 0 is nobody to ask.
    max: AtomicU32,
    /// Index of the server looked at next. One more than the spec's `index`, so that zero is the start.
    next: AtomicU32,
    /// Weight a server needs to be chosen in this round; 0 before the first.
    current: AtomicU32,
}

impl RoundRobin {
    /// So many servers, all with weight 0 until [`restart`](Self::restart).
    pub fn new(servers: usize) -> Self {
        Self {
            weights: (0..servers).map(|_| AtomicU32::new(0)).collect(),
            step: AtomicU32::new(0),
            max: AtomicU32::new(0),
            next: AtomicU32::new(0),
            current: AtomicU32::new(0),
        }
    }

    /// Begins anew with these weights, in the order of the servers. A server of weight 0 is as if it were not there.
    /// Core `k` starts `k` choices in, so that cores which begin together do not all ask the first server; with one
    /// core the sequence is the spec's.
    pub fn restart(&self, weights: impl IntoIterator<Item = u32>, core: usize) {
        let (mut step, mut max) = (0, 0);
        for (place, weight) in self.weights.iter().zip(weights) {
            place.store(weight, Relaxed);
            step = gcd(step, weight);
            max = max.max(weight);
        }
        self.step.store(step, Relaxed);
        self.max.store(max, Relaxed);
        self.next.store(0, Relaxed);
        self.current.store(0, Relaxed);
        for _ in 0..core {
            let _ = self.next();
        }
    }

    /// The server whose turn it is. Looks at each weight at most once. `None` if no server has a weight.
    #[inline]
    pub fn next(&self) -> Option<ServerId> {
        let max = self.max.load(Relaxed);
        if max == 0 {
            return None;
        }
        let step = self.step.load(Relaxed);
        let mut at = self.next.load(Relaxed) as usize;
        let mut current = self.current.load(Relaxed);
        loop {
            if at == 0 {
                current = if current <= step { max } else { current - step };
            }
            let here = at;
            at = if at + 1 == self.weights.len() {
                0
            } else {
                at + 1
            };
            if self.weights[here].load(Relaxed) >= current {
                self.next.store(index(at), Relaxed);
                self.current.store(current, Relaxed);
                return Some(ServerId(index(here)));
            }
        }
    }

    /// The weight in force; 0 is not asked.
    #[inline]
    pub fn weight(&self, id: ServerId) -> u32 {
        self.weights[id.0 as usize].load(Relaxed)
    }

    /// The next server that is not among `tried`, for another try of the same request. Turns of tried servers are used
    /// up, as if another request had taken them. `None` if every server with a weight was tried.
    pub fn next_except(&self, tried: &[ServerId]) -> Option<ServerId> {
        // A heavy server can own thousands of turns in a row, so the turns looked at are bounded by the servers.
        for _ in 0..=self.weights.len() {
            let server = self.next()?;
            if !tried.contains(&server) {
                return Some(server);
            }
        }
        let untried = |at: &usize| {
            self.weights[*at].load(Relaxed) > 0 && !tried.contains(&ServerId(index(*at)))
        };
        (0..self.weights.len())
            .find(untried)
            .map(|at| ServerId(index(at)))
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("compile bounds the servers of a backend")
}

pub(super) fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(weights: &[u32], core: usize) -> RoundRobin {
        let balancer = RoundRobin::new(weights.len());
        balancer.restart(weights.iter().copied(), core);
        balancer
    }

    fn picks(balancer: &RoundRobin, count: usize) -> String {
        (0..count)
            .map(|_| {
                char::from(b'A' + u8::try_from(balancer.next().expect("a server").0).expect("few"))
            })
            .collect()
    }

    #[track_caller]
    fn check(weights: &[u32], core: usize, expected: &str) {
        let picks = picks(&of(weights, core), expected.len());
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
    fn weight_zero_is_as_if_it_were_not_there() {
        check(&[3, 0, 1], 0, "AAACAAAC");
        check(&[0, 4, 0, 2], 0, "BBDBBD");
    }

    #[test]
    fn other_weights_begin_anew() {
        let balancer = of(&[3, 2, 1], 0);
        assert_eq!(picks(&balancer, 2), "AA");
        balancer.restart([1, 1, 1], 0);
        assert_eq!(picks(&balancer, 3), "ABC");
    }

    #[test]
    fn nobody_to_ask() {
        assert_eq!(of(&[], 0).next(), None);
        assert_eq!(of(&[0, 0], 1).next(), None);
        assert_eq!(of(&[0, 0], 0).next_except(&[ServerId(0)]), None);
    }

    #[test]
    fn tried_servers_are_passed_over() {
        let balancer = of(&[1, 1, 1], 0);
        assert_eq!(balancer.next_except(&[ServerId(0)]), Some(ServerId(1)));
        assert_eq!(balancer.next_except(&[ServerId(1)]), Some(ServerId(2)));
        let all = [ServerId(0), ServerId(1), ServerId(2)];
        assert_eq!(balancer.next_except(&all), None);

        let lopsided = of(&[1_000_000, 1, 0], 0);
        assert_eq!(lopsided.next_except(&[ServerId(0)]), Some(ServerId(1)));
        assert_eq!(lopsided.next_except(&[ServerId(0), ServerId(1)]), None);
    }
}
