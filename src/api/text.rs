//! JSON and durations as Go writes them, so that what reads the API of 1.7 reads ours.
//!
//! Owns the order and the spelling: fields in the order they are asked for, empty ones left out where Go does so, maps by
//! name, `<`, `>` and `&` escaped. Never knows what it writes.
//! Read next: `shape.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

/// An object that is being written.
pub(super) struct Object<'o> {
    out: &'o mut Vec<u8>,
    is_empty: bool,
}

impl<'o> Object<'o> {
    /// Writes an object whose fields `fill` gives.
    pub(super) fn write(out: &'o mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object {
            out,
            is_empty: true,
        };
        fill(&mut object);
        object.out.push(b'}');
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.is_empty {
            self.out.push(b',');
        }
        self.is_empty = false;
        string(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// A field whose value is written by `value`.
    pub(super) fn field(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        value(self.name(name));
    }

    /// A text, unless it is empty.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            string(self.name(name), value);
        }
    }

    /// A boolean, unless it is false.
    pub(super) fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.any(name, value);
        }
    }

    /// A number, unless it is 0.
    pub(super) fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            self.any(name, value);
        }
    }

    /// What is JSON as it is displayed: a number, a boolean, `null`.
    pub(super) fn any(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name)
            .extend_from_slice(value.to_string().as_bytes());
    }

    /// A list of texts, unless it is empty.
    pub(super) fn texts(&mut self, name: &str, values: &[String]) {
        if values.is_empty() {
            return;
        }
        let out = self.name(name);
        for (at, value) in values.iter().enumerate() {
            out.push(if at == 0 { b'[' } else { b',' });
            string(out, value);
        }
        out.push(b']');
    }

    /// A section, if it is there.
    pub(super) fn section<T>(
        &mut self,
        name: &str,
        section: Option<&T>,
        fill: impl FnOnce(&mut Object<'_>, &T),
    ) {
        if let Some(section) = section {
            Object::write(self.name(name), |object| fill(object, section));
        }
    }

    /// Named sections, unless there are none.
    pub(super) fn map<T>(
        &mut self,
        name: &str,
        map: &BTreeMap<String, T>,
        fill: impl Fn(&mut Object<'_>, &T),
    ) {
        if !map.is_empty() {
            Object::write(self.name(name), |object| {
                for (name, value) in map {
                    Object::write(object.name(name), |object| fill(object, value));
                }
            });
        }
    }

    /// Named texts, unless there are none.
    pub(super) fn pairs(&mut self, name: &str, pairs: &BTreeMap<String, String>) {
        if !pairs.is_empty() {
            Object::write(self.name(name), |object| {
                for (name, value) in pairs {
                    string(object.name(name), value);
                }
            });
        }
    }
}

/// Appends a JSON string as Go's `encoding/json` does.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for character in text.chars() {
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// A duration as Go displays it: `1h2m3.5s`, `305.848µs`, `0s`.
pub(super) fn duration(duration: Duration) -> String {
    let fraction = |value: u64, scale: u64, unit: &str| {
        let rest = value % scale;
        let digits = scale.ilog10() as usize;
        let fraction = format!("{rest:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}{unit}", value / scale)
    };
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (
                nanoseconds / 3_600_000_000_000,
                nanoseconds / 60_000_000_000 % 60,
            );
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        let check = |text: &str, expected: &str| {
            let mut out = Vec::new();
            string(&mut out, text);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check("Host:a;Path:/é", "\"Host:a;Path:/é\"");
        check("<a href=\"x\">&\\", r#""\u003ca href=\"x\"\u003e\u0026\\""#);
        check(
            "\n\r\t\x08\x0c\0\x7f",
            "\"\\n\\r\\t\\u0008\\u000c\\u0000\x7f\"",
        );
        check("\u{2028}", r#""\u2028""#);
    }

    #[test]
    fn durations_are_displayed_as_go_does() {
        let check = |nanoseconds, expected: &str| {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), expected);
        };
        check(0, "0s");
        check(999, "999ns");
        check(305_848, "305.848µs");
        check(2_140_941, "2.140941ms");
        check(2_299_859_282, "2.299859282s");
        check(60_000_000_000, "1m0s");
        check(3_723_500_000_000, "1h2m3.5s");
    }
}
