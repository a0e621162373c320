//! Circuit breakers: the expression and its functions. Spec backends 5.1.
//!
//! Owns which functions there are and what they may be compared with. Never knows the syntax.
//! Read next: `expression.rs` (the syntax), `backend/breaker.rs` (what comes out).

use super::expression::{self, Call, Literal};
use crate::backend::breaker::{Breaker, Meter, Meters, Test};
use crate::backend::condition::Comparison;

/// Reads the expression of a circuit breaker for this many cores.
///
/// # Errors
/// The expression is none, with the column of what is wrong: the frontends of its backend are left out.
pub(super) fn compile(expression: &str, cores: usize) -> Result<Breaker, String> {
    let mut meters = Meters::default();
    let condition = expression::parse(expression, |call| test(call, &mut meters))
        .map_err(|error| format!("circuitBreaker.expression: {error}"))?;
    Ok(Breaker::new(expression, condition, meters, cores))
}

fn test(call: &Call<'_>, meters: &mut Meters) -> Result<Test, String> {
    let function = call.function;
    match function {
        "NetworkErrorRatio" => {
            let [] = arguments(call)?;
            let (comparison, bound) = ratio(call)?;
            let all = Meter::Codes {
                from: 0,
                to: u64::MAX,
            };
            Ok(meters.ratio(Meter::NetworkErrors, all, comparison, bound))
        }
        "ResponseCodeRatio" => {
            let [from_part, to_part, from_whole, to_whole] = arguments(call)?;
            let code = |literal: &Literal| {
                literal
                    .integer()
                    .and_then(|code| u64::try_from(code).ok())
                    .ok_or_else(|| format!("{function} takes four whole numbers"))
            };
            let (part, whole) = (
                Meter::Codes {
                    from: code(from_part)?,
                    to: code(to_part)?,
                },
                Meter::Codes {
                    from: code(from_whole)?,
                    to: code(to_whole)?,
                },
            );
            let (comparison, bound) = ratio(call)?;
            Ok(meters.ratio(part, whole, comparison, bound))
        }
        "LatencyAtQuantileMS" => {
            let [quantile] = arguments(call)?;
            let quantile = number(quantile)
                .filter(|quantile| (0.0..=100.0).contains(quantile))
                .ok_or_else(|| format!("{function} takes a number from 0 to 100"))?;
            let (comparison, bound) = compared(call)?;
            let bound = bound
                .integer()
                .and_then(|bound| u64::try_from(bound).ok())
                .ok_or_else(|| format!("{function} is compared with whole milliseconds"))?;
            Ok(meters.latency(quantile, comparison, bound))
        }
        _ => Err(format!("unsupported function: {function}")),
    }
}

fn arguments<'a, const COUNT: usize>(call: &'a Call<'_>) -> Result<&'a [Literal; COUNT], String> {
    let function = call.function;
    call.arguments
        .as_slice()
        .try_into()
        .map_err(|_| match COUNT {
            0 => format!("{function} takes no arguments"),
            1 => format!("{function} takes one argument"),
            _ => format!("{function} takes {COUNT} arguments"),
        })
}

fn compared<'a>(call: &'a Call<'_>) -> Result<(Comparison, &'a Literal), String> {
    let (comparison, literal) = call
        .compared
        .as_ref()
        .ok_or_else(|| format!("{} is to be compared with a number", call.function))?;
    Ok((*comparison, literal))
}

fn ratio(call: &Call<'_>) -> Result<(Comparison, f64), String> {
    let (comparison, literal) = compared(call)?;
    number(literal)
        .map(|bound| (comparison, bound))
        .ok_or_else(|| format!("{} is compared with a number", call.function))
}

/// A number of either kind: 1.7 wants `1.0` where a ratio is meant and refuses `1`.
#[expect(
    clippy::cast_precision_loss,
    reason = "nobody writes a ratio or a percentage beyond 2^53"
)]
fn number(literal: &Literal) -> Option<f64> {
    match literal {
        Literal::Integer(value) => Some(*value as f64),
        Literal::Float(value) => Some(*value),
        Literal::Text(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Ok`, or what is wrong.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let said = match compile(text, 1) {
            Ok(breaker) => {
                assert_eq!(breaker.expression(), text);
                "Ok".to_owned()
            }
            Err(why) => why
                .strip_prefix("circuitBreaker.expression: ")
                .expect("names the option")
                .to_owned(),
        };
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn functions_of_the_reference() {
        check("NetworkErrorRatio() > 0.5", "Ok");
        check("LatencyAtQuantileMS(50.0) > 50", "Ok");
        check("ResponseCodeRatio(500, 600, 0, 600) > 0.5", "Ok");
        check(
            "NetworkErrorRatio() > .5 && (LatencyAtQuantileMS(99.9) >= 1000 || ResponseCodeRatio(500, 600, 200, 300) != 0.0)",
            "Ok",
        );
    }

    #[test]
    fn whole_numbers_stand_for_ratios_and_percentages() {
        check("NetworkErrorRatio() > 1", "Ok");
        check("LatencyAtQuantileMS(50) > 50", "Ok");
    }

    #[test]
    fn what_is_wrong_has_a_column() {
        check("Foo() > 0.5", "column 1: unsupported function: Foo");
        check(
            "NetworkErrorRatio() > 0.5 || Foo() > 1",
            "column 30: unsupported function: Foo",
        );
        check(
            "NetworkErrorRatio(1) > 0.5",
            "column 1: NetworkErrorRatio takes no arguments",
        );
        check(
            "NetworkErrorRatio()",
            "column 1: NetworkErrorRatio is to be compared with a number",
        );
        check(
            "NetworkErrorRatio() > \"a\"",
            "column 1: NetworkErrorRatio is compared with a number",
        );
        check(
            "ResponseCodeRatio(500, 600) > 0.5",
            "column 1: ResponseCodeRatio takes 4 arguments",
        );
        check(
            "ResponseCodeRatio(500, 600, 0, 600.5) > 0.5",
            "column 1: ResponseCodeRatio takes four whole numbers",
        );
        check(
            "LatencyAtQuantileMS() > 50",
            "column 1: LatencyAtQuantileMS takes one argument",
        );
        check(
            "LatencyAtQuantileMS(101) > 50",
            "column 1: LatencyAtQuantileMS takes a number from 0 to 100",
        );
        check(
            "LatencyAtQuantileMS(50.0) > 50.5",
            "column 1: LatencyAtQuantileMS is compared with whole milliseconds",
        );
        check("", "column 1: expected a function, found the end");
    }
}
