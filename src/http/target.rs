//! What may stand in a request target, and how odd bytes in it are escaped.
//!
//! The reference percent-encodes raw non-ASCII and a few printable bytes and refuses control bytes (spec frontends 11 and
//! 12). Never decodes an escape: a target is forwarded byte for byte otherwise.
//! Read next: `head.rs`.

/// What a byte of a target asks for; a target's class is the union over its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TargetClass(u8);

impl TargetClass {
    const ESCAPE: u8 = 1;
    const REFUSE: u8 = 2;
    const PERCENT: u8 = 4;

    /// The class of a whole target.
    #[inline]
    pub(super) fn of(target: &[u8]) -> Self {
        Self(
            target
                .iter()
                .fold(0, |class, &byte| class | CLASS[usize::from(byte)]),
        )
    }

    /// The class of the target at the front of `bytes`, and its length: it ends before the first byte that is refused.
    #[inline]
    pub(super) fn of_front(bytes: &[u8]) -> (Self, usize) {
        let mut union = Self::default();
        for (at, &byte) in bytes.iter().enumerate() {
            let class = CLASS[usize::from(byte)];
            if class & Self::REFUSE != 0 {
                return (union, at);
            }
            union.0 |= class;
        }
        (union, bytes.len())
    }

    /// Some byte has to be percent-encoded.
    pub(super) const fn needs_escape(self) -> bool {
        self.0 & Self::ESCAPE != 0
    }

    /// Some byte may not come from a peer at all: a control byte, a space, a fragment.
    pub(super) const fn is_refused(self) -> bool {
        self.0 & Self::REFUSE != 0
    }

    /// There are escapes to check.
    pub(super) const fn has_escapes(self) -> bool {
        self.0 & Self::PERCENT != 0
    }
}

static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte {
            0..=0x20 | 0x23 | 0x7f => TargetClass::REFUSE,
            0x25 => TargetClass::PERCENT,
            0x22 | 0x3c | 0x3e | 0x5c | 0x5e | 0x60 | 0x7b..=0x7d | 0x80.. => TargetClass::ESCAPE,
            _ => 0,
        };
        byte += 1;
    }
    table
};

/// True if every `%` of the path is followed by two hex digits. The query is left alone, as in the reference.
pub(super) fn has_valid_escapes(target: &[u8]) -> bool {
    let path = &target[..memchr::memchr(b'?', target).unwrap_or(target.len())];
    memchr::memchr_iter(b'%', path)
        .all(|at| matches!(path.get(at + 1..at + 3), Some([a, b]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Appends a target with every byte escaped that may not stand in one: so no byte of it can end the request line.
pub(super) fn escape_into(out: &mut Vec<u8>, target: &[u8]) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in target {
        if CLASS[usize::from(byte)] & (TargetClass::ESCAPE | TargetClass::REFUSE) == 0 {
            out.push(byte);
        } else {
            out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let check = |target: &[u8], expected: &str| {
            let mut out = Vec::new();
            escape_into(&mut out, target);
            assert_eq!(out, expected.as_bytes(), "{target:?}");
        };
        check(
            b"/x%2Fy%20z/../q//r?a=1;b=2&c=%zz",
            "/x%2Fy%20z/../q//r?a=1;b=2&c=%zz",
        );
        check(b"/\"<>\\^`{|}", "/%22%3C%3E%5C%5E%60%7B%7C%7D");
        check("/é".as_bytes(), "/%C3%A9");
        check(b"/a b\r\n#\x7f", "/a%20b%0D%0A%23%7F");
    }

    #[test]
    fn escape_checks() {
        let check =
            |target: &[u8], valid| assert_eq!(has_valid_escapes(target), valid, "{target:?}");
        check(b"/%41%fF", true);
        check(b"/%4", false);
        check(b"/%", false);
        check(b"/%zz", false);
        check(b"/a?%zz", true);
        check(b"/%?41", false);
    }
}
