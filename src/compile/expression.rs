//! The expressions of circuit breakers and of `buffering.retryExpression`: calls compared with literals, joined by `&&`,
//! `||`, `!` and parentheses. Spec backends 5.1 and 8.
//!
//! Owns the syntax, a part of Go's, and the column of what is wrong with a text. Never knows a function: the caller makes a
//! test of its own from each [`Call`].
//! Read next: `backend/condition.rs` (what comes out).

use std::fmt;

use crate::backend::condition::{Comparison, Condition};
use crate::limits::EXPRESSION_DEPTH_MAX;

/// One call with what it is compared with: `ResponseCode() == 503`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call<'a> {
    pub(super) function: &'a str,
    pub(super) arguments: Vec<Literal>,
    /// `None`: it stands alone, as `IsNetworkError()` does.
    pub(super) compared: Option<(Comparison, Literal)>,
}

/// A value in an expression. Numbers are never negative: the language has no sign.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Literal {
    Integer(i64),
    Float(f64),
    Text(String),
}

impl Literal {
    pub(super) fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(value) => Some(*value),
            Self::Float(_) | Self::Text(_) => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            Self::Integer(_) | Self::Float(_) => None,
        }
    }
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpressionError {
    /// In characters, from 1.
    pub(super) column: usize,
    /// The rest of a sentence.
    pub(super) why: String,
}

impl fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: {}", self.column, self.why)
    }
}

/// Reads an expression. `test` makes a test from each call, or says why it is none; its error is placed at the call.
///
/// # Errors
/// The text is no expression, is nested deeper than `EXPRESSION_DEPTH_MAX`, or a call of it is no test.
pub(super) fn parse<T>(
    text: &str,
    test: impl FnMut(&Call<'_>) -> Result<T, String>,
) -> Result<Condition<T>, ExpressionError> {
    let mut parser = Parser {
        text,
        at: 0,
        depth: 0,
        test,
    };
    let condition = parser.any()?;
    match parser.peek() {
        None => Ok(condition),
        Some(_) => Err(parser.unexpected("the end or an operator")),
    }
}

struct Parser<'a, F> {
    text: &'a str,
    /// Offset of the next byte.
    at: usize,
    /// Parentheses and `!` around it.
    depth: usize,
    test: F,
}

impl<'a, F> Parser<'a, F> {
    /// Comparisons, the longer of two with the same beginning first.
    const COMPARISONS: [(&'static str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];

    fn any<T>(&mut self) -> Result<Condition<T>, ExpressionError>
    where
        F: FnMut(&Call<'_>) -> Result<T, String>,
    {
        let mut parts = vec![self.all()?];
        while self.eat("||") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Condition::Any))
    }

    fn all<T>(&mut self) -> Result<Condition<T>, ExpressionError>
    where
        F: FnMut(&Call<'_>) -> Result<T, String>,
    {
        let mut parts = vec![self.part()?];
        while self.eat("&&") {
            parts.push(self.part()?);
        }
        Ok(one_or(parts, Condition::All))
    }

    fn part<T>(&mut self) -> Result<Condition<T>, ExpressionError>
    where
        F: FnMut(&Call<'_>) -> Result<T, String>,
    {
        let is_negated = self.eat("!");
        if !is_negated && !self.eat("(") {
            return self.call();
        }
        self.depth += 1;
        if self.depth > EXPRESSION_DEPTH_MAX {
            return Err(self.error(self.at - 1, "nested too deeply"));
        }
        let part = if is_negated {
            Condition::Not(Box::new(self.part()?))
        } else {
            let part = self.any()?;
            self.expect(")")?;
            part
        };
        self.depth -= 1;
        Ok(part)
    }

    fn call<T>(&mut self) -> Result<Condition<T>, ExpressionError>
    where
        F: FnMut(&Call<'_>) -> Result<T, String>,
    {
        self.skip_blanks();
        let start = self.at;
        let function = self.word();
        if function.is_empty() {
            return Err(self.unexpected("a function"));
        }
        self.expect("(")?;
        let mut arguments = Vec::new();
        if !self.eat(")") {
            loop {
                arguments.push(self.literal()?);
                if self.eat(")") {
                    break;
                }
                if !self.eat(",") {
                    return Err(self.unexpected("',' or ')'"));
                }
            }
        }
        let comparison = Self::COMPARISONS
            .into_iter()
            .find(|(operator, _)| self.eat(operator));
        let compared = match comparison {
            Some((_, comparison)) => Some((comparison, self.literal()?)),
            None => None,
        };
        let call = Call {
            function,
            arguments,
            compared,
        };
        (self.test)(&call)
            .map(Condition::Test)
            .map_err(|why| self.error(start, why))
    }

    fn literal(&mut self) -> Result<Literal, ExpressionError> {
        match self.peek() {
            Some('"') => self.quoted(),
            Some('`') => {
                let start = self.at;
                self.at += 1;
                let rest = &self.text[self.at..];
                let end = rest
                    .find('`')
                    .ok_or_else(|| self.error(start, "the text has no end"))?;
                self.at += end + 1;
                Ok(Literal::Text(rest[..end].to_owned()))
            }
            Some(first) if first.is_ascii_digit() || first == '.' => self.number(),
            _ => Err(self.unexpected("a number or a text")),
        }
    }

    fn number(&mut self) -> Result<Literal, ExpressionError> {
        let start = self.at;
        let rest = &self.text[start..];
        let mut after_exponent = false;
        let length = rest
            .find(|next: char| {
                let belongs = next.is_ascii_alphanumeric()
                    || matches!(next, '.' | '_')
                    || after_exponent && matches!(next, '+' | '-');
                after_exponent = matches!(next, 'e' | 'E');
                !belongs
            })
            .unwrap_or(rest.len());
        let text = &rest[..length];
        self.at += length;
        let literal = if text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok().map(Literal::Integer)
        } else if text.bytes().any(|byte| byte.is_ascii_digit()) && !text.contains("in") {
            text.parse().ok().map(Literal::Float)
        } else {
            None
        };
        literal.ok_or_else(|| self.error(start, format!("{text} is not a number")))
    }

    /// A text in double quotes, with the escapes that are of use here.
    fn quoted(&mut self) -> Result<Literal, ExpressionError> {
        let start = self.at;
        let mut value = String::new();
        let mut chars = self.text[start + 1..].char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '"' => {
                    self.at = start + 1 + at + 1;
                    return Ok(Literal::Text(value));
                }
                '\\' => value.push(match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => escaped,
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    _ => return Err(self.error(start + 1 + at, "unknown escape")),
                }),
                _ => value.push(char),
            }
        }
        Err(self.error(start, "the text has no end"))
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest
            .find(|next: char| !(next.is_ascii_alphanumeric() || next == '_'))
            .unwrap_or(rest.len());
        if rest.starts_with(|first: char| first.is_ascii_digit()) {
            return "";
        }
        self.at += length;
        &rest[..length]
    }

    fn skip_blanks(&mut self) {
        let rest = self.text[self.at..].trim_start_matches([' ', '\t', '\r', '\n']);
        self.at = self.text.len() - rest.len();
    }

    /// The next character that is no blank.
    fn peek(&mut self) -> Option<char> {
        self.skip_blanks();
        self.text[self.at..].chars().next()
    }

    fn eat(&mut self, token: &str) -> bool {
        self.skip_blanks();
        let is_next = self.text[self.at..].starts_with(token);
        if is_next {
            self.at += token.len();
        }
        is_next
    }

    fn expect(&mut self, token: &str) -> Result<(), ExpressionError> {
        if self.eat(token) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("'{token}'")))
        }
    }

    fn unexpected(&mut self, expected: &str) -> ExpressionError {
        let found = match self.peek() {
            Some(char) => format!("'{char}'"),
            None => "the end".to_owned(),
        };
        self.error(self.at, format!("expected {expected}, found {found}"))
    }

    fn error(&self, at: usize, why: impl Into<String>) -> ExpressionError {
        ExpressionError {
            column: self.text[..at].chars().count() + 1,
            why: why.into(),
        }
    }
}

/// The only part itself, or all of them joined.
fn one_or<T>(
    mut parts: Vec<Condition<T>>,
    join: fn(Vec<Condition<T>>) -> Condition<T>,
) -> Condition<T> {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            join(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expression with every call as it was understood, fully parenthesised; or what is wrong.
    #[track_caller]
    fn check(text: &str, expected: &str) {
        let found = parse(text, |call| match call.function {
            "Bad" => Err("unsupported function: Bad".to_owned()),
            _ => Ok(show_call(call)),
        });
        let found = match found {
            Ok(condition) => show(&condition),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected, "{text}");
    }

    fn show_call(call: &Call<'_>) -> String {
        let compared = match &call.compared {
            Some((comparison, literal)) => format!(" {comparison:?} {literal:?}"),
            None => String::new(),
        };
        format!("{}{:?}{compared}", call.function, call.arguments)
    }

    fn show(condition: &Condition<String>) -> String {
        let join = |parts: &[Condition<String>], by: &str| {
            let parts: Vec<_> = parts.iter().map(show).collect();
            format!("({})", parts.join(by))
        };
        match condition {
            Condition::Test(test) => test.clone(),
            Condition::Not(part) => format!("!{}", show(part)),
            Condition::All(parts) => join(parts, " && "),
            Condition::Any(parts) => join(parts, " || "),
        }
    }

    #[test]
    fn expressions_of_the_reference() {
        check("IsNetworkError()", "IsNetworkError[]");
        check(
            "IsNetworkError() && Attempts() <= 2",
            "(IsNetworkError[] && Attempts[] LessOrEqual Integer(2))",
        );
        check(
            "NetworkErrorRatio() > .5",
            "NetworkErrorRatio[] Greater Float(0.5)",
        );
        check(
            "LatencyAtQuantileMS(50.0) > 50 || ResponseCodeRatio(500, 600, 0, 600) > 0.5",
            "(LatencyAtQuantileMS[Float(50.0)] Greater Integer(50) || \
             ResponseCodeRatio[Integer(500), Integer(600), Integer(0), Integer(600)] Greater Float(0.5))",
        );
        check(
            r#"RequestMethod() == "GET" || RequestMethod() != `a"b`"#,
            r#"(RequestMethod[] Equal Text("GET") || RequestMethod[] NotEqual Text("a\"b"))"#,
        );
    }

    #[test]
    fn and_binds_more_than_or_and_not_most() {
        check("A() || B() && C()", "(A[] || (B[] && C[]))");
        check("(A() || B()) && C()", "((A[] || B[]) && C[])");
        check("!A() && !(B() || !C())", "(!A[] && !(B[] || !C[]))");
        check(" ( ( A ( ) ) ) ", "A[]");
        check("A()&&B()&&C()", "(A[] && B[] && C[])");
        check("A()\n\t&& B()", "(A[] && B[])");
    }

    #[test]
    fn literals() {
        for (text, found) in [
            ("1", "Integer(1)"),
            ("0600", "Integer(600)"),
            ("1.", "Float(1.0)"),
            ("1e2", "Float(100.0)"),
            ("1.5E-1", "Float(0.15)"),
            (r#""a\"\\\n\t""#, r#"Text("a\"\\\n\t")"#),
            (r#""""#, r#"Text("")"#),
            ("``", r#"Text("")"#),
        ] {
            check(&format!("A() < {text}"), &format!("A[] Less {found}"));
        }
        for text in [
            "1x",
            "1.2.3",
            ".",
            "0x10",
            "1_0",
            "1inf",
            "99999999999999999999",
        ] {
            let why = format!("column 7: {text} is not a number");
            check(&format!("A() > {text}"), &why);
        }
    }

    #[test]
    fn errors_have_a_column() {
        check("", "column 1: expected a function, found the end");
        check("  1 > 2", "column 3: expected a function, found '1'");
        check("A", "column 2: expected '(', found the end");
        check(
            "A() >",
            "column 6: expected a number or a text, found the end",
        );
        check(
            "A() > B()",
            "column 7: expected a number or a text, found 'B'",
        );
        check(
            "A() > -1",
            "column 7: expected a number or a text, found '-'",
        );
        check(
            "A() B()",
            "column 5: expected the end or an operator, found 'B'",
        );
        check(
            "A() AND B()",
            "column 5: expected the end or an operator, found 'A'",
        );
        check(
            "A() & B()",
            "column 5: expected the end or an operator, found '&'",
        );
        check(
            "A() > 1 > 2",
            "column 9: expected the end or an operator, found '>'",
        );
        check("(A()", "column 5: expected ')', found the end");
        check(
            "A())",
            "column 4: expected the end or an operator, found ')'",
        );
        check("A(1", "column 4: expected ',' or ')', found the end");
        check("A(1 2)", "column 5: expected ',' or ')', found '2'");
        check("A(,)", "column 3: expected a number or a text, found ','");
        check("é() > 1", "column 1: expected a function, found 'é'");
        check("A() && Bad() > 1", "column 8: unsupported function: Bad");
        check(
            "A() == \"é\" && Bad()",
            "column 15: unsupported function: Bad",
        );
        check("A() == \"x", "column 8: the text has no end");
        check("A() == `x", "column 8: the text has no end");
        check(r#"A() == "\x""#, "column 9: unknown escape");
        check("A() == \"\\", "column 9: unknown escape");
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |open: &str, close: &str, times: usize| {
            format!("{}A(){}", open.repeat(times), close.repeat(times))
        };
        let is_read = |text: &str| parse(text, |_| Ok(())).is_ok();
        for (open, close) in [("(", ")"), ("!", "")] {
            assert!(is_read(&nested(open, close, EXPRESSION_DEPTH_MAX)));
            assert!(!is_read(&nested(open, close, EXPRESSION_DEPTH_MAX + 1)));
            assert!(!is_read(&nested(open, close, 100_000)));
        }
    }
}
