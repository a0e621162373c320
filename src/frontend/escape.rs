//! Percent-encoding of paths, exactly as the reference's URL type does it. Spec rules 4 and 5.
//!
//! Owns which bytes stand for themselves. Never allocates: callers bring the room.
//! Read next: `modifier.rs`, which keeps the escaped form of a path while it can.

/// Whether every `%` begins an escape.
pub fn is_valid(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        if escape_at(&rest[at..]).is_none() {
            return false;
        }
        rest = &rest[at + 3..];
    }
    true
}

/// Appends `text` with its escapes resolved; a `%` that begins no escape stands for itself.
pub fn decode(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = escape_at(&rest[at..]).map_or((b'%', 1), |byte| (byte, 3));
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
}

/// As `decode`, with `+` standing for a blank as in a query.
pub fn decode_query(text: &[u8], out: &mut Vec<u8>) {
    out.extend(query_bytes(text));
}

/// Whether a part of a query, decoded, is `plain`.
pub fn query_equals(text: &[u8], plain: &[u8]) -> bool {
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return text == plain;
    }
    query_bytes(text).eq(plain.iter().copied())
}

fn query_bytes(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (&first, tail) = rest.split_first()?;
        if let Some(byte) = escape_at(rest) {
            rest = &rest[3..];
            return Some(byte);
        }
        rest = tail;
        Some(if first == b'+' { b' ' } else { first })
    })
}

/// Appends a path in the default encoding.
pub fn encode(path: &[u8], out: &mut Vec<u8>) {
    for &byte in path {
        if is_plain(byte) {
            out.push(byte);
        } else {
            push_escape(byte, out);
        }
    }
}

/// Whether `escaped` is what `encode` makes of `path`.
pub fn is_default_encoding(escaped: &[u8], path: &[u8]) -> bool {
    let mut rest = escaped;
    for &byte in path {
        let len = if is_plain(byte) { 1 } else { 3 };
        if rest.len() < len {
            return false;
        }
        let fits = if len == 1 {
            rest[0] == byte
        } else {
            rest[..3] == escape(byte)
        };
        if !fits {
            return false;
        }
        rest = &rest[len..];
    }
    rest.is_empty()
}

/// Whether `escaped` may be sent as it is and means `path`.
pub fn is_encoding_of(escaped: &[u8], path: &[u8]) -> bool {
    let mut rest = escaped;
    let mut bytes = path.iter();
    while let Some((&first, tail)) = rest.split_first() {
        let byte = match escape_at(rest) {
            Some(byte) => {
                rest = &rest[3..];
                byte
            }
            None if is_plain(first) || b"!'()*[]".contains(&first) => {
                rest = tail;
                first
            }
            None => return false,
        };
        if bytes.next() != Some(&byte) {
            return false;
        }
    }
    bytes.next().is_none()
}

/// Appends bytes for a field value: what could end the line or is no text is escaped.
pub fn encode_field_value(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        if byte.is_ascii_control() {
            push_escape(byte, out);
        } else {
            out.push(byte);
        }
    }
}

/// Appends a target for a `Location`: escapes stay, what a URL may not contain is escaped.
pub fn encode_location(target: &[u8], out: &mut Vec<u8>) {
    for &byte in target {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            out.push(byte);
        } else {
            push_escape(byte, out);
        }
    }
}

/// Bytes that the default encoding of a path leaves alone.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte)
}

fn escape(byte: u8) -> [u8; 3] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [
        b'%',
        DIGITS[usize::from(byte >> 4)],
        DIGITS[usize::from(byte & 15)],
    ]
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&escape(byte));
}

/// The byte that an escape at the start of `text` stands for.
fn escape_at(text: &[u8]) -> Option<u8> {
    let &[b'%', high, low, ..] = text else {
        return None;
    };
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    };
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(make: fn(&[u8], &mut Vec<u8>), text: &str) -> String {
        let mut out = Vec::new();
        make(text.as_bytes(), &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn decoding() {
        assert_eq!(made(decode, "/%66oo%2Fb%2fc"), "/foo/b/c");
        assert_eq!(made(decode, "/%zz%4"), "/%zz%4");
        assert_eq!(made(decode, "/a+b"), "/a+b");
        assert_eq!(made(decode_query, "a+b%61%2B%"), "a ba+%");
        assert!(query_equals(b"b%61r", b"bar") && !query_equals(b"b%61r", b"ba"));
        assert!(is_valid(b"%2f%41") && !is_valid(b"%2f%4") && !is_valid(b"%g1"));
    }

    #[test]
    fn encoding() {
        assert_eq!(
            made(encode, "/a b?c#d(é)~;=@"),
            "/a%20b%3Fc%23d%28%C3%A9%29~;=@"
        );
        assert_eq!(made(encode_field_value, "/a\r\nX: é"), "/a%0D%0AX: é");
        assert_eq!(made(encode_location, "/a%2Fb?\"é\\"), "/a%2Fb?%22%C3%A9%5C");
    }

    #[test]
    fn forms_of_one_path() {
        assert!(is_default_encoding(b"/a%20b", b"/a b"));
        assert!(!is_default_encoding(b"/a%2Fb", b"/a/b"));
        assert!(!is_default_encoding(b"/a(b", b"/a(b"));
        assert!(is_encoding_of(b"/a%2fb(", b"/a/b("));
        assert!(!is_encoding_of(b"/a%2fb", b"/a/bc"));
        assert!(!is_encoding_of(b"/a?b", b"/a?b"));
        assert!(!is_encoding_of(b"/a%2", b"/a%2"));
    }
}
