//! How much of requests and answers of a backend is held, and when a request is sent again because of its answer. Spec
//! backends 8.
//!
//! Owns the limits as values and the decision to try again. Never holds a body: see `proxy/held.rs`.
//! Read next: `compile/expression.rs` (the language).

use super::condition::{Comparison, Condition};
use crate::limits::BUFFERING_ATTEMPTS_MAX;

/// What `buffering` of a backend asks for. Sizes are bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Buffering {
    pub request: Bounds,
    pub answer: Bounds,
    /// When a request is sent again.
    pub retry: Option<Condition<RetryTest>>,
}

/// How much of one body is held, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// A longer body is refused; `None` is no limit.
    pub max: Option<u64>,
    /// This much of it is held in memory, the rest in a file.
    pub memory: usize,
}

/// One test of a retry expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetryTest {
    /// The answer was 502 or 504.
    NetworkError,
    Attempts(Comparison, i64),
    ResponseCode(Comparison, i64),
    RequestMethod(Comparison, String),
}

/// An attempt that has ended with an answer.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Which one it was, from 1.
    pub number: u32,
    pub status: u16,
    pub method: &'a [u8],
}

impl Buffering {
    /// The request is to be sent again instead of passing this answer on.
    pub fn wants_retry(&self, attempt: Attempt<'_>) -> bool {
        let Some(condition) = &self.retry else {
            return false;
        };
        attempt.number < BUFFERING_ATTEMPTS_MAX
            && condition.holds(&mut |test| match test {
                RetryTest::NetworkError => matches!(attempt.status, 502 | 504),
                RetryTest::Attempts(comparison, number) => {
                    comparison.holds(&i64::from(attempt.number), number)
                }
                RetryTest::ResponseCode(comparison, code) => {
                    comparison.holds(&i64::from(attempt.status), code)
                }
                RetryTest::RequestMethod(comparison, method) => {
                    comparison.holds(attempt.method, method.as_bytes())
                }
            })
    }
}
