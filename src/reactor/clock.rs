//! What time it is on a core.
//!
//! Owns [`Instant`], nanoseconds on the clock of the driver: the kernel's monotonic clock, or the virtual one of a
//! simulation. Never tells the date. Read next: `timer.rs`.

use std::ops::{Add, Sub};
use std::time::Duration;

use super::driver;

/// A point on the monotonic clock, in nanoseconds since an origin that differs from boot to boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// The time now, to the nanosecond. For measuring; a deadline is content with [`coarse`].
pub fn now() -> Instant {
    Instant(driver::nanoseconds())
}

/// The time at the last tick of the kernel, at most 10 ms ago (4 ms at 250 Hz); a third of the price of [`now`].
///
/// A deadline made from it may end that much early. Never subtract it from [`now`] to measure a duration.
pub fn coarse() -> Instant {
    Instant(driver::nanoseconds_coarse())
}

impl Instant {
    /// Later than anything that will happen.
    pub const NEVER: Self = Self(u64::MAX);

    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    pub const fn nanoseconds(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long ago this was; zero if it is to come.
    pub fn elapsed(self) -> Duration {
        now().since(self)
    }
}

/// Saturates at [`Instant::NEVER`]: a limit of a thousand years is no limit.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// As [`Instant::since`].
impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let second = Duration::from_secs(1);
        let one = Instant::from_nanoseconds(1_000_000_000);
        assert_eq!(Instant::default() + second, one);
        assert_eq!(one - Instant::default(), second);
        assert_eq!(Instant::default() - one, Duration::ZERO);
        assert_eq!(one + Duration::MAX, Instant::NEVER);
    }
}
