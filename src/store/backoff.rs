//! How long to wait before a store is asked again.
//!
//! Owns the length of the next pause, and the spreading of what many nodes would do at once. Spec kv-stores 4: first half a second, half as long again each
//! time, half of it either way by chance, so that many nodes do not come back at once.

use std::time::Duration;

/// The first pause, before chance.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause, before chance. The reference names 60 s, but starts anew every 30 s and so never passes this.
const LONGEST: Duration = Duration::from_secs(10);

/// The pauses of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The pause after one more failure: between half and one and a half of a length that grows.
    pub fn pause(&mut self) -> Duration {
        let length = self.next;
        self.next = (length * 3 / 2).min(LONGEST);
        length / 2 + length.mul_f64(chance())
    }

    /// After a success the next failure begins with a short pause again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Waits up to so long by chance, so that many nodes that hear of the same thing at once do not all act at once.
pub(super) async fn spread(longest: Duration) {
    tokio::time::sleep(longest.mul_f64(chance())).await;
}

/// From 0 to 1. Without randomness every node waits equally long, which is a pity and no error.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX / 2)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut length = FIRST;
        for _ in 0..40 {
            let pause = backoff.pause();
            assert!(
                pause >= length / 2 && pause <= length * 3 / 2,
                "{pause:?} around {length:?}"
            );
            length = (length * 3 / 2).min(LONGEST);
        }
        assert!(backoff.pause() <= LONGEST * 3 / 2);
        backoff.reset();
        assert!(backoff.pause() <= FIRST * 3 / 2);
    }
}
