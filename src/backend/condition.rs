//! A condition over what has been seen of a backend: tests joined by and, or, not.
//!
//! Owns how a whole is decided from its tests. Never knows what a test asks: its owner answers each.
//! Read next: `compile/expression.rs` (reads one from text).

/// `T` is one test.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition<T> {
    Test(T),
    Not(Box<Self>),
    /// Every part holds.
    All(Vec<Self>),
    /// At least one part holds.
    Any(Vec<Self>),
}

impl<T> Condition<T> {
    /// Whether it holds, by what `test` says of each test. From left to right, and no further than needed.
    pub fn holds(&self, test: &mut dyn FnMut(&T) -> bool) -> bool {
        match self {
            Self::Test(one) => test(one),
            Self::Not(part) => !part.holds(test),
            Self::All(parts) => parts.iter().all(|part| part.holds(test)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(test)),
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    /// `left` compared with `right`. What has no order (no number) is unequal and nothing else.
    pub fn holds<V: PartialOrd + ?Sized>(self, left: &V, right: &V) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::Less => left < right,
            Self::LessOrEqual => left <= right,
            Self::Greater => left > right,
            Self::GreaterOrEqual => left >= right,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_is_decided_from_its_tests() {
        use Condition::{All, Any, Not, Test};
        // (a && !b) || c
        let condition = Any(vec![
            All(vec![Test('a'), Not(Box::new(Test('b')))]),
            Test('c'),
        ]);
        let check = |true_ones: &str, expected: bool, asked_for: &str| {
            let mut asked = String::new();
            let held = condition.holds(&mut |one| {
                asked.push(*one);
                true_ones.contains(*one)
            });
            assert_eq!((held, &*asked), (expected, asked_for), "{true_ones}");
        };
        check("", false, "ac");
        check("a", true, "ab");
        check("ab", false, "abc");
        check("abc", true, "abc");
        check("c", true, "ac");
    }

    #[test]
    fn comparisons() {
        use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
        let check = |comparison: Comparison, held: [bool; 3]| {
            let found =
                [(1, 2), (2, 2), (3, 2)].map(|(left, right)| comparison.holds(&left, &right));
            assert_eq!(found, held, "{comparison:?}");
        };
        check(Equal, [false, true, false]);
        check(NotEqual, [true, false, true]);
        check(Less, [true, false, false]);
        check(LessOrEqual, [true, true, false]);
        check(Greater, [false, false, true]);
        check(GreaterOrEqual, [false, true, true]);
        assert!(!Equal.holds(&f64::NAN, &0.0) && NotEqual.holds(&f64::NAN, &0.0));
    }
}
