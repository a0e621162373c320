//! Which bytes may stand where: token, field value, host.
//!
//! Owns the character classes of RFC 9110 section 5.6 and RFC 3986. Never looks at more than one element of a message.
//! Read next: `target.rs`.

/// `tchar` of RFC 9110 5.6.2, by byte.
static TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "the loop stops at 256")]
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        byte += 1;
    }
    table
};

/// True for a byte that may stand in a method or a field name.
#[must_use]
#[inline]
pub fn is_token_byte(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// True for a non-empty token.
#[must_use]
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}

/// True if a field value could be written as it is: no control byte but the tab. Bytes above 0x7f are allowed
/// (`obs-text`, RFC 9110 5.5).
#[must_use]
#[inline]
pub fn is_value(bytes: &[u8]) -> bool {
    value_bytes(bytes) == bytes.len()
}

/// How many bytes at the front may stand in a field value: all up to the first control byte that is no tab.
#[must_use]
#[inline]
pub fn value_bytes(bytes: &[u8]) -> usize {
    let mut length = 0;
    loop {
        let rest = &bytes[length..];
        match position(rest, controls, is_control) {
            Some(at) if rest[at] == b'\t' => length += at + 1,
            Some(at) => return length + at,
            None => return bytes.len(),
        }
    }
}

/// Where the first colon is.
#[must_use]
#[inline]
pub(super) fn colon(bytes: &[u8]) -> Option<usize> {
    position(bytes, |word| zeros(word ^ each(b':')), |byte| byte == b':')
}

/// Where the first byte is that `is_wanted`, sought by words of eight bytes.
///
/// `marks` finds the same bytes in a word: the lowest bit it returns is the top bit of the first such byte. Bits above
/// that one mean nothing.
#[inline]
fn position(
    bytes: &[u8],
    marks: impl Fn(u64) -> u64,
    is_wanted: impl Fn(u8) -> bool,
) -> Option<usize> {
    let mut rest = bytes;
    while let Some((word, after)) = rest.split_first_chunk::<8>() {
        let marks = marks(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(bytes.len() - rest.len() + marks.trailing_zeros() as usize / 8);
        }
        rest = after;
    }
    let searched = bytes.len() - rest.len();
    let at = rest.iter().position(|&byte| is_wanted(byte))?;
    Some(searched + at)
}

/// A word of eight times this byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Marks the zero bytes of a word. Taking one from each byte sets the top bit of those that were zero, and of those that
/// had it before; a borrow only disturbs bytes above a zero.
#[inline]
const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(each(1)) & !word & each(0x80)
}

/// Marks the control bytes of a word, the tab included: those below 0x20 in the same way, and 0x7f.
#[inline]
const fn controls(word: u64) -> u64 {
    let below = word.wrapping_sub(each(0x20)) & !word & each(0x80);
    below | zeros(word ^ each(0x7f))
}

#[inline]
const fn is_control(byte: u8) -> bool {
    byte < 0x20 || byte == 0x7f
}

/// The value without the spaces and tabs around it.
#[must_use]
#[inline]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The members of a comma-separated list, trimmed, without the empty ones (RFC 9110 5.6.1).
pub fn list(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|&byte| byte == b',')
        .map(trim)
        .filter(|member| !member.is_empty())
}

/// True for `host` or `host:port` with nothing beside them: what may stand in `Host`, once.
///
/// A registered name has the bytes of RFC 3986 3.2.2 but no comma (a list would be two hosts to someone), an address in
/// brackets those of an IPv6 literal; a port is up to five digits and may be empty.
#[must_use]
pub fn is_authority(bytes: &[u8]) -> bool {
    let (host_fits, port) = if let [b'[', inner @ ..] = bytes {
        let Some(end) = memchr::memchr(b']', inner) else {
            return false;
        };
        let address = &inner[..end];
        let fits = address.contains(&b':') && address.iter().all(|&byte| is_address_byte(byte));
        (fits, &inner[end + 1..])
    } else {
        let name_bytes = bytes
            .iter()
            .position(|&byte| !HOST_NAME[usize::from(byte)])
            .unwrap_or(bytes.len());
        (name_bytes > 0, &bytes[name_bytes..])
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_fits && port_fits
}

/// Bytes of an IPv6 literal, its zone id included.
const fn is_address_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'.' | b'%' | b'-' | b'_' | b'~')
}

/// Bytes of a registered name or an IPv4 address.
static HOST_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation, reason = "the loop stops at 256")]
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b'%'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b';'
                    | b'='
            );
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_refuse_every_control_byte_at_every_place() {
        for length in 1..20 {
            for at in 0..length {
                for byte in 0..=255u8 {
                    let mut value = vec![b'a'; length];
                    value[at] = byte;
                    let allowed = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
                    assert_eq!(
                        is_value(&value),
                        allowed,
                        "byte {byte:#x} at {at} of {length}"
                    );
                }
            }
        }
        assert!(is_value(b""));
    }

    #[test]
    fn authorities() {
        let check =
            |text: &str, expected| assert_eq!(is_authority(text.as_bytes()), expected, "{text:?}");
        for good in [
            "a",
            "a.b-c_d:80",
            "127.0.0.1:8080",
            "[::1]",
            "[::1]:443",
            "[fe80::1%25eth0]",
            "h:",
            "xn--a",
            "a%41",
        ] {
            check(good, true);
        }
        for bad in [
            "", ":80", "a b", " a", "a,b", "u@a", "a/b", "a?b", "a#b", "a:b", "a:1:2", "a:123456",
            "[::1", "[::1]x", "[]", "[a]", "::1", "a\\b", "é", "a\u{0}", "a\tb", "<a>", "a]",
            "[::1]:8x",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn lists_drop_blanks() {
        assert_eq!(list(b" a ,, \tb,").collect::<Vec<_>>(), [b"a", b"b"]);
    }
}
