//! How often a provider may change what is served: the first configuration at once, then at most one each
//! `providersThrottleDuration`, always the newest.
//!
//! Owns the newest configuration of one provider until it is due, and the last one received, to drop repetitions.
//! Never reads a clock: the caller says what time it is. Source: spec file-provider 4.1. Read next: `merge.rs`.

use std::time::Duration;

use tokio::time::Instant;

/// What became of an offered configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Kept. It is due at [`Throttle::due`], unless a newer one takes its place.
    Kept,
    /// The same as the one received before it: dropped.
    Same,
}

/// The throttle of one provider.
#[derive(Debug)]
pub struct Throttle<T> {
    pause: Duration,
    received: Option<T>,
    /// Whether `received` has not been taken yet.
    waiting: bool,
    /// Not before this: the last one was taken a pause earlier.
    free_at: Option<Instant>,
}

impl<T: Clone + PartialEq> Throttle<T> {
    pub fn new(pause: Duration) -> Self {
        Self {
            pause,
            received: None,
            waiting: false,
            free_at: None,
        }
    }

    pub fn offer(&mut self, newest: T) -> Offer {
        if self.received.as_ref() == Some(&newest) {
            return Offer::Same;
        }
        self.received = Some(newest);
        self.waiting = true;
        Offer::Kept
    }

    /// When something is to be taken: `None` while nothing waits, and a time that may have passed already.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        self.waiting.then(|| self.free_at.unwrap_or(now))
    }

    /// The newest configuration, if it is due. The pause begins now.
    pub fn take(&mut self, now: Instant) -> Option<T> {
        if self.due(now)? > now {
            return None;
        }
        self.waiting = false;
        self.free_at = Some(now + self.pause);
        self.received.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offers `(at, configuration)` and takes whenever something is due, as the loop of `mod.rs` does. Times are in
    /// milliseconds, the pause is 2,000. Returns what was taken, and when.
    async fn run(offers: &[(u64, &'static str)]) -> Vec<(u64, &'static str)> {
        let start = Instant::now();
        let mut throttle = Throttle::new(Duration::from_secs(2));
        let mut taken = Vec::new();
        let mut offers = offers.iter();
        let mut next = offers.next();
        loop {
            let offer_at = next.map(|(at, _)| start + Duration::from_millis(*at));
            let due = throttle.due(Instant::now());
            let Some(wake) = offer_at.into_iter().chain(due).min() else {
                return taken;
            };
            tokio::time::sleep_until(wake).await;
            let now = Instant::now();
            if let Some(configuration) = throttle.take(now) {
                let at = u64::try_from((now - start).as_millis()).expect("short");
                taken.push((at, configuration));
            }
            if offer_at.is_some_and(|at| at <= now) {
                throttle.offer(next.expect("an offer was due").1);
                next = offers.next();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_at_once_then_the_newest_each_pause() {
        assert_eq!(run(&[(0, "a")]).await, [(0, "a")]);
        // Six rewrites within a second: the first at once, then only the last.
        let burst = [
            (0, "a"),
            (100, "b"),
            (200, "c"),
            (300, "d"),
            (400, "e"),
            (500, "f"),
        ];
        assert_eq!(run(&burst).await, [(0, "a"), (2000, "f")]);
        // After a quiet time the next one is at once again.
        assert_eq!(
            run(&[(0, "a"), (5000, "b"), (5100, "c")]).await,
            [(0, "a"), (5000, "b"), (7000, "c")]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_same_again_is_dropped() {
        assert_eq!(run(&[(0, "a"), (100, "a"), (3000, "a")]).await, [(0, "a")]);
        // Compared with the one received before, not with the one applied: there and back again applies again.
        assert_eq!(
            run(&[(0, "a"), (100, "b"), (200, "a")]).await,
            [(0, "a"), (2000, "a")]
        );
    }
}
