//! Text in Go's ways: `printf`, quoting, and layouts of dates.

use std::fmt::Write;

use time::OffsetDateTime;

use super::value::{Value, fits};

/// Go's `fmt.Sprintf`, with the verbs that make sense for template values.
pub(super) fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let flags_end = rest
            .find(|next| !"+-# 0".contains(next))
            .unwrap_or(rest.len());
        let flags = &rest[..flags_end];
        let (width, after) = digits(&rest[flags_end..]);
        let (precision, after) = match after.strip_prefix('.') {
            Some(after) => {
                let (precision, after) = digits(after);
                (Some(precision.unwrap_or(0)), after)
            }
            None => (None, after),
        };
        let Some(verb) = after.chars().next() else {
            out.push_str("%!(NOVERB)");
            return Ok(out);
        };
        rest = &after[verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            let _ = write!(out, "%!{verb}(MISSING)");
            continue;
        };
        let body = verb_text(verb, flags, precision, value);
        pad(&mut out, &body, width.unwrap_or(0), flags, value);
        fits(out.len())?;
    }
    out.push_str(rest);
    let extra: Vec<String> = values
        .map(|value| format!("{}={value}", value.kind()))
        .collect();
    if !extra.is_empty() {
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    Ok(out)
}

/// A width or precision, at most 9999.
fn digits(text: &str) -> (Option<usize>, &str) {
    let end = text
        .find(|next: char| !next.is_ascii_digit())
        .unwrap_or(text.len());
    let number = (end > 0).then(|| {
        text[..end]
            .parse()
            .map_or(9999, |number: usize| number.min(9999))
    });
    (number, &text[end..])
}

fn verb_text(verb: char, flags: &str, precision: Option<usize>, value: &Value) -> String {
    let sign = |text: String, is_positive: bool| {
        if flags.contains('+') && is_positive {
            format!("+{text}")
        } else {
            text
        }
    };
    let cut = |text: &str| {
        precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
    };
    let hash = flags.contains('#');
    match (verb, value) {
        ('v', Value::Text(text)) if hash => quote(text),
        ('v', value) => value.to_string(),
        ('T', value) => value.kind().to_owned(),
        ('s', Value::Text(text)) => cut(text),
        ('s', value @ (Value::List(_) | Value::Map(_))) => value.to_string(),
        ('q', Value::Text(text)) => quote(text),
        ('t', Value::Bool(value)) => value.to_string(),
        ('d', Value::Int(value)) => sign(value.to_string(), *value >= 0),
        ('x', Value::Int(value)) => radix(*value, |size| {
            if hash {
                format!("{size:#x}")
            } else {
                format!("{size:x}")
            }
        }),
        ('X', Value::Int(value)) => radix(*value, |size| format!("{size:X}")),
        ('o', Value::Int(value)) => radix(*value, |size| format!("{size:o}")),
        ('b', Value::Int(value)) => radix(*value, |size| format!("{size:b}")),
        ('c', Value::Int(value)) => u32::try_from(*value)
            .ok()
            .and_then(char::from_u32)
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .to_string(),
        ('x', Value::Text(text)) => text
            .bytes()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}")),
        ('f' | 'F', Value::Float(value)) => {
            sign(format!("{value:.*}", precision.unwrap_or(6)), *value >= 0.0)
        }
        ('g', Value::Float(_)) => value.to_string(),
        (verb, value) => format!("%!{verb}({}={value})", value.kind()),
    }
}

fn radix(value: i64, format: impl Fn(u64) -> String) -> String {
    format!(
        "{}{}",
        if value < 0 { "-" } else { "" },
        format(value.unsigned_abs())
    )
}

fn pad(out: &mut String, body: &str, width: usize, flags: &str, value: &Value) {
    let missing = width.saturating_sub(body.chars().count());
    let is_number = matches!(value, Value::Int(_) | Value::Float(_));
    if flags.contains('-') {
        out.push_str(body);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.contains('0') && is_number {
        let (sign, digits) = body.split_at(usize::from(body.starts_with(['+', '-'])));
        out.push_str(sign);
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(digits);
    } else {
        out.extend(std::iter::repeat_n(' ', missing));
        out.push_str(body);
    }
}

/// Go's `%q`.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
    out
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// A moment in a Go layout (`2006-01-02 15:04:05`), in UTC.
pub(super) fn date(layout: &str, seconds: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp(seconds) else {
        return String::new();
    };
    let month = MONTHS[usize::from(u8::from(time.month())) - 1];
    let day = DAYS[usize::from(time.weekday().number_days_from_monday())];
    let hour12 = (time.hour() + 11) % 12 + 1;
    // Longer words before their own beginnings.
    let words: [(&str, String); 25] = [
        ("January", month.to_owned()),
        ("Jan", month[..3].to_owned()),
        ("Monday", day.to_owned()),
        ("Mon", day[..3].to_owned()),
        ("MST", "UTC".to_owned()),
        ("2006", format!("{:04}", time.year())),
        ("-07:00", "+00:00".to_owned()),
        ("-0700", "+0000".to_owned()),
        ("Z07:00", "Z".to_owned()),
        ("Z0700", "Z".to_owned()),
        ("01", format!("{:02}", u8::from(time.month()))),
        ("02", format!("{:02}", time.day())),
        ("03", format!("{hour12:02}")),
        ("04", format!("{:02}", time.minute())),
        ("05", format!("{:02}", time.second())),
        ("06", format!("{:02}", time.year().rem_euclid(100))),
        ("15", format!("{:02}", time.hour())),
        ("_2", format!("{:>2}", time.day())),
        ("PM", if time.hour() < 12 { "AM" } else { "PM" }.to_owned()),
        ("pm", if time.hour() < 12 { "am" } else { "pm" }.to_owned()),
        ("1", u8::from(time.month()).to_string()),
        ("2", time.day().to_string()),
        ("3", hour12.to_string()),
        ("4", time.minute().to_string()),
        ("5", time.second().to_string()),
    ];
    let mut out = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some((word, text)) = words.iter().find(|(word, _)| rest.starts_with(word)) {
            out.push_str(text);
            rest = &rest[word.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}
