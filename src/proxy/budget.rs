//! How many tries of one core may be second ones: the budget of `[retry]`.
//!
//! Owns a credit that requests earn and further tries spend, so that servers in trouble do not get a multiple of the
//! requests. Per core, without a clock. Read next: `exchange.rs`.

use std::cell::Cell;

use crate::limits::RETRY_CREDIT_MAX;

/// Hundredths of a try.
const TRY: u32 = 100;

/// The credit of one core.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Further tries for each hundred requests; `None`: as many as they like.
    percent: Option<u32>,
    credit: Cell<u32>,
}

impl Budget {
    pub(crate) fn new(percent: Option<u32>) -> Self {
        Self {
            percent,
            credit: Cell::new(RETRY_CREDIT_MAX * TRY),
        }
    }

    /// A request has come.
    #[inline]
    pub(crate) fn earn(&self) {
        if let Some(percent) = self.percent {
            let credit = self.credit.get() + percent;
            self.credit.set(credit.min(RETRY_CREDIT_MAX * TRY));
        }
    }

    /// Whether there may be another try, which is paid for.
    pub(crate) fn spend(&self) -> bool {
        if self.percent.is_none() {
            return true;
        }
        let left = self.credit.get().checked_sub(TRY);
        if let Some(left) = left {
            self.credit.set(left);
        }
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests that all want another try: how many get one.
    fn check(percent: Option<u32>, requests: usize, expected: usize) {
        let budget = Budget::new(percent);
        let tries = (0..requests).filter(|_| {
            budget.earn();
            budget.spend()
        });
        assert_eq!(tries.count(), expected, "{percent:?}");
    }

    #[test]
    fn a_part_of_the_requests_and_a_few_more() {
        let few = RETRY_CREDIT_MAX as usize;
        check(None, 1_000, 1_000);
        check(Some(0), 1_000, few);
        check(Some(20), 1_000, few + 199);
        check(Some(100), 1_000, 1_000);
        check(Some(u32::MAX / 2), 1_000, 1_000);
    }

    #[test]
    fn quiet_times_earn_a_few_only() {
        let budget = Budget::new(Some(50));
        for _ in 0..1_000 {
            budget.earn();
        }
        let tries = (0..1_000).filter(|_| budget.spend()).count();
        assert_eq!(tries, RETRY_CREDIT_MAX as usize);
    }
}
