//! Values that options share: where an option was written, what is said about it, and durations.
//!
//! Never reads a file and never prints. Read next: `tree.rs`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where an option was written. Every message about an option begins with it.
#[derive(Clone, Debug, Default)]
pub enum Place {
    /// Not written anywhere: a default.
    #[default]
    Default,
    /// Line and column count from 1; columns are characters.
    File {
        path: Arc<str>,
        line: u32,
        column: u32,
    },
    /// A command-line flag as it was typed, without its value, which may be a secret.
    Flag(Arc<str>),
    /// A key of a key-value store.
    Key(Arc<str>),
}

/// Places are about messages, not about meaning: two configurations that differ only in places are the same.
impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Flag(flag) => f.write_str(flag),
            Self::Key(key) => f.write_str(key),
        }
    }
}

/// Something an operator should know that does not stop the configuration. Whoever called decides how it is logged.
#[derive(Clone, Debug, PartialEq)]
pub struct Diagnostic {
    pub place: Place,
    /// Begins with the dotted path of the option, where there is one.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Configuration that cannot be used: where, which option, and what was expected.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigError {
    pub place: Place,
    /// Dotted path of the option; empty where the text as a whole is wrong.
    pub path: String,
    pub message: String,
}

impl ConfigError {
    pub(super) fn new(place: &Place, message: impl Into<String>) -> Self {
        Self {
            place: place.clone(),
            path: String::new(),
            message: message.into(),
        }
    }

    /// The same error as seen from the table that holds the option under `key`.
    pub(super) fn within(mut self, key: &str) -> Self {
        self.path = join(&segment(key), &self.path);
        self
    }

    /// The same error as seen from the list that holds the option at `index`, counted from 0.
    pub(super) fn at(mut self, index: usize) -> Self {
        self.path = join(&format!("[{index}]"), &self.path);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// One step of a dotted path; names with a dot of their own are quoted.
pub(super) fn segment(key: &str) -> String {
    if key.is_empty() || key.contains('.') {
        format!("\"{key}\"")
    } else {
        key.to_owned()
    }
}

fn join(head: &str, rest: &str) -> String {
    match rest.chars().next() {
        None => head.to_owned(),
        Some('[') => format!("{head}{rest}"),
        Some(_) => format!("{head}.{rest}"),
    }
}

/// Reads a duration as a static option takes it: digits are seconds, anything else is Go text such as `1m30s`.
///
/// Spec static-config 1.3.
pub fn duration(text: &str) -> Result<Duration, DurationError> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return text
            .parse()
            .map(Duration::from_secs)
            .ok()
            .and_then(bounded)
            .ok_or(DurationError::TooLong);
    }
    go_duration(text)
}

/// Reads Go's text form of a duration: `300ms`, `1.5h`, `2h45m`. A number without a unit is an error, except `0`.
///
/// Spec static-config 1.3, file-provider 2.
pub fn go_duration(text: &str) -> Result<Duration, DurationError> {
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or(DurationError::NoUnit)?;
        let (number, after) = rest.split_at(number_end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let scale: u64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(DurationError::Syntax),
        };
        let nanoseconds = scaled(number, scale)?;
        total = total
            .checked_add(nanoseconds)
            .ok_or(DurationError::TooLong)?;
        rest = after;
    }
    bounded(Duration::from_nanos(total)).ok_or(DurationError::TooLong)
}

/// `number` (digits with at most one point) times `scale`, digits below a nanosecond cut off.
fn scaled(number: &str, scale: u64) -> Result<u64, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(DurationError::Syntax);
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| DurationError::TooLong)?
    };
    let mut total = whole.checked_mul(scale).ok_or(DurationError::TooLong)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        total = total
            .checked_add(u64::from(digit - b'0') * place)
            .ok_or(DurationError::TooLong)?;
    }
    Ok(total)
}

/// Go holds a duration in 63 bits of nanoseconds, 292 years; what is longer is an error there and here.
fn bounded(duration: Duration) -> Option<Duration> {
    i64::try_from(duration.as_nanos())
        .is_ok()
        .then_some(duration)
}

/// A duration in the text form that reads back equal, for help and documentation.
pub(super) fn duration_text(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    if nanoseconds == 0 {
        "0s".to_owned()
    } else if nanoseconds.is_multiple_of(1_000_000_000) {
        format!("{}s", duration.as_secs())
    } else if nanoseconds.is_multiple_of(1_000_000) {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{nanoseconds}ns")
    }
}

/// Why a text is no duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    Syntax,
    NoUnit,
    Negative,
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "it is not a duration",
            Self::NoUnit => "a unit is missing (ns, us, ms, s, m or h)",
            Self::Negative => "it is negative",
            Self::TooLong => "it is longer than 292 years",
        })
    }
}

impl std::error::Error for DurationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_static_options_take_them() {
        let check = |text: &str, nanoseconds: Result<u64, DurationError>| {
            assert_eq!(
                duration(text),
                nanoseconds.map(Duration::from_nanos),
                "{text}"
            );
        };
        check("9", Ok(9_000_000_000));
        check("0", Ok(0));
        check("500ms", Ok(500_000_000));
        check("1m30s", Ok(90_000_000_000));
        check("1.5h", Ok(5_400_000_000_000));
        check(".5s", Ok(500_000_000));
        check("3us", Ok(3_000));
        check("3µs", Ok(3_000));
        check("3μs", Ok(3_000));
        check("+2s", Ok(2_000_000_000));
        check("2ns", Ok(2));
        check("", Err(DurationError::Syntax));
        check("s", Err(DurationError::Syntax));
        check(".s", Err(DurationError::Syntax));
        check("1.2.3s", Err(DurationError::Syntax));
        check("1.5", Err(DurationError::NoUnit));
        check("1s5", Err(DurationError::NoUnit));
        check("10 s", Err(DurationError::Syntax));
        check("3d", Err(DurationError::Syntax));
        check("-1s", Err(DurationError::Negative));
        check("99999999999999999999", Err(DurationError::TooLong));
        check("9999999999", Err(DurationError::TooLong));
        check("99999999999h", Err(DurationError::TooLong));
    }

    #[test]
    fn go_text_needs_a_unit() {
        assert_eq!(go_duration("10"), Err(DurationError::NoUnit));
        assert_eq!(go_duration("0"), Ok(Duration::ZERO));
        assert_eq!(go_duration("10s"), Ok(Duration::from_secs(10)));
    }

    #[test]
    fn the_text_form_reads_back() {
        for nanoseconds in [0, 7, 1_000_000, 500_000_000, 90_000_000_000] {
            let given = Duration::from_nanos(nanoseconds);
            assert_eq!(duration(&duration_text(given)), Ok(given));
        }
    }
}
