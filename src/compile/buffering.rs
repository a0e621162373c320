//! `buffering` of a backend: its sizes, and the retry expression. Spec backends 8.
//!
//! Owns what may be written there. Read next: `expression.rs`.

use super::expression::{self, Call, Literal};
use crate::backend::buffering::{Bounds, Buffering, RetryTest};
use crate::backend::condition::Comparison;
use crate::config::dynamic;
use crate::limits::BUFFERING_MEMORY_BYTES;

/// # Errors
/// A size below zero, or an expression that cannot be read: the sentence for the operator.
pub(super) fn compile(written: &dynamic::Buffering) -> Result<Buffering, String> {
    let size = |name: &str, bytes: i64| {
        u64::try_from(bytes).map_err(|_| format!("buffering: {name} should be >= 0"))
    };
    let bounds = |max: u64, memory: u64| {
        let max = (max > 0).then_some(max);
        let memory = if memory > 0 {
            memory
        } else {
            BUFFERING_MEMORY_BYTES
        };
        let memory = memory.min(max.unwrap_or(u64::MAX));
        Bounds {
            max,
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
        }
    };
    let retry = match &*written.retry_expression {
        "" => None,
        text => Some(
            expression::parse(text, retry_test)
                .map_err(|error| format!("buffering: retryExpression {text:?}: {error}"))?,
        ),
    };
    Ok(Buffering {
        request: bounds(
            size("maxRequestBodyBytes", written.max_request_body_bytes)?,
            size("memRequestBodyBytes", written.mem_request_body_bytes)?,
        ),
        answer: bounds(
            size("maxResponseBodyBytes", written.max_response_body_bytes)?,
            size("memResponseBodyBytes", written.mem_response_body_bytes)?,
        ),
        retry,
    })
}

fn retry_test(call: &Call<'_>) -> Result<RetryTest, String> {
    if !call.arguments.is_empty() {
        return Err(format!("{} takes no arguments", call.function));
    }
    match (call.function, &call.compared) {
        ("IsNetworkError", None) => Ok(RetryTest::NetworkError),
        ("IsNetworkError", Some(_)) => Err("IsNetworkError() stands alone".to_owned()),
        ("Attempts", compared) => {
            integer(compared.as_ref()).map(|(by, number)| RetryTest::Attempts(by, number))
        }
        ("ResponseCode", compared) => {
            integer(compared.as_ref()).map(|(by, code)| RetryTest::ResponseCode(by, code))
        }
        ("RequestMethod", Some((by @ (Comparison::Equal | Comparison::NotEqual), method))) => {
            let method = method.text().ok_or("RequestMethod() is a text")?;
            Ok(RetryTest::RequestMethod(*by, method.to_owned()))
        }
        ("RequestMethod", _) => {
            Err("RequestMethod() is compared with a text, by == or !=".to_owned())
        }
        (unknown, _) => Err(format!("unsupported function: {unknown}")),
    }
}

fn integer(compared: Option<&(Comparison, Literal)>) -> Result<(Comparison, i64), String> {
    compared
        .and_then(|(by, literal)| Some((*by, literal.integer()?)))
        .ok_or_else(|| "it is compared with a whole number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::buffering::Attempt;

    fn buffering(toml: &str) -> Result<Buffering, String> {
        let text = format!("[backends.b.buffering]\n{toml}");
        let (dynamic, _) = crate::config::dynamic_from_toml("f", &text).expect("valid");
        compile(dynamic.backends["b"].buffering.as_ref().expect("written"))
    }

    #[test]
    fn sizes() {
        let check = |toml: &str, expected: (Option<u64>, usize)| {
            let found = buffering(toml).expect("valid").request;
            assert_eq!((found.max, found.memory), expected, "{toml}");
        };
        check("", (None, 1 << 20));
        check("memRequestBodyBytes = 5", (None, 5));
        check("maxRequestBodyBytes = 7", (Some(7), 7));
        check(
            "maxRequestBodyBytes = 7\nmemRequestBodyBytes = 5",
            (Some(7), 5),
        );
        check(
            "maxRequestBodyBytes = 5\nmemRequestBodyBytes = 7",
            (Some(5), 5),
        );
        let answer = buffering("maxResponseBodyBytes = 3000000\nmemResponseBodyBytes = 2")
            .expect("valid")
            .answer;
        assert_eq!((answer.max, answer.memory), (Some(3_000_000), 2));
        for name in [
            "maxRequestBodyBytes",
            "memRequestBodyBytes",
            "maxResponseBodyBytes",
            "memResponseBodyBytes",
        ] {
            let error = buffering(&format!("{name} = -1")).expect_err("below zero");
            assert_eq!(error, format!("buffering: {name} should be >= 0"));
        }
    }

    #[test]
    fn retry_expressions_decide() {
        let check = |expression: &str, number: u32, status: u16, expected: bool| {
            let toml = format!("retryExpression = '{expression}'");
            let attempt = Attempt {
                number,
                status,
                method: b"GET",
            };
            let found = buffering(&toml).expect("valid").wants_retry(attempt);
            assert_eq!(found, expected, "{expression}: {number}, {status}");
        };
        check("", 1, 502, false);
        for (status, expected) in [
            (200, false),
            (500, false),
            (502, true),
            (503, false),
            (504, true),
        ] {
            check("IsNetworkError()", 1, status, expected);
        }
        check("Attempts() < 2", 1, 200, true);
        check("Attempts() < 2", 2, 200, false);
        check("ResponseCode() == 503", 10, 503, true);
        check("ResponseCode() == 503", 11, 503, false);
        check("ResponseCode() == 503", 1, 502, false);
        check("IsNetworkError() && Attempts() <= 2", 2, 504, true);
        check("IsNetworkError() && Attempts() <= 2", 3, 504, false);
        check("RequestMethod() == \"GET\"", 1, 200, true);
        check("RequestMethod() == \"POST\"", 1, 200, false);
        check("!(RequestMethod() != \"GET\")", 1, 200, true);
    }

    #[test]
    fn wrong_retry_expressions() {
        let check = |expression: &str, expected: &str| {
            let toml = format!("retryExpression = '{expression}'");
            let error = buffering(&toml).expect_err("no retry expression");
            let why = error.rsplit_once("\": ").map(|(_, why)| why);
            assert_eq!(why, Some(expected), "{error}");
        };
        check("Foo() > 1", "column 1: unsupported function: Foo");
        check(
            "Attempts() < 2 || Attempts()",
            "column 19: it is compared with a whole number",
        );
        check(
            "ResponseCode() > 1.5",
            "column 1: it is compared with a whole number",
        );
        check("Attempts(1) < 2", "column 1: Attempts takes no arguments");
        check(
            "IsNetworkError() == 1",
            "column 1: IsNetworkError() stands alone",
        );
        check(
            "RequestMethod() < \"A\"",
            "column 1: RequestMethod() is compared with a text, by == or !=",
        );
        check(
            "RequestMethod() == 1",
            "column 1: RequestMethod() is a text",
        );
        check(
            "IsNetworkError() &&",
            "column 20: expected a function, found the end",
        );
    }
}
