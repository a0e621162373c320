//! Is the head all there? Remembers how far it was searched, so a head that comes byte by byte costs each byte once.
//!
//! Owns the bound of an unfinished head. Never looks at what the lines say.
//! Read next: `parse.rs`.

use super::lines::Defect;
use crate::limits::HEAD_BYTES_MAX;

/// How far the head at the front of a connection's bytes was searched for its end. One per connection and direction.
///
/// The parser starts it anew when it returns a head or an error; start it anew yourself if the bytes are replaced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    /// Bytes searched: every line end before here was seen.
    searched: usize,
    /// Where the first line begins: behind the one empty line that may come first.
    start: usize,
    /// Where the line begins that is being searched.
    line: usize,
    /// The first line was there and was looked at.
    pub(super) start_line_seen: bool,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The empty line that ends the head is among the bytes.
    Head,
    /// It is not; the first line is, if its end is known.
    Part { first_line_ended: bool },
    /// It is not, and the head is already longer than it may be.
    TooLarge,
}

impl Scan {
    /// True if nothing was searched yet.
    #[inline]
    pub(super) const fn is_new(&self) -> bool {
        self.searched == 0
    }

    /// Looks for the empty line in the bytes that came since the last call with the same front.
    pub(super) fn search(&mut self, bytes: &[u8]) -> Result<Found, Defect> {
        let fresh = bytes.get(self.searched..).unwrap_or_default();
        for at in memchr::memchr_iter(b'\n', fresh) {
            let at = self.searched + at;
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(Defect::LineEnd);
            }
            let is_empty = at == self.line + 1;
            let is_first = self.line == self.start;
            self.line = at + 1;
            if is_empty && at == 1 {
                self.start = self.line;
            } else if is_empty && is_first {
                return Err(Defect::StartLine);
            } else if is_empty {
                return Ok(Found::Head);
            }
        }
        self.searched = bytes.len();
        if bytes.len() > HEAD_BYTES_MAX {
            return Ok(Found::TooLarge);
        }
        Ok(Found::Part {
            first_line_ended: self.line > self.start,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a search finds at the end, given everything at once and given byte by byte.
    fn check(text: &str, expected: Result<Found, Defect>) {
        let bytes = text.as_bytes();
        let mut scan = Scan::default();
        let mut last = Ok(Found::Part {
            first_line_ended: false,
        });
        for length in 0..=bytes.len() {
            last = scan.search(&bytes[..length]);
            if last.is_err() || last == Ok(Found::Head) {
                break;
            }
        }
        assert_eq!(last, expected, "{text:?} byte by byte");
        assert_eq!(Scan::default().search(bytes), expected, "{text:?} at once");
    }

    #[test]
    fn heads_end_with_an_empty_line() {
        check(
            "",
            Ok(Found::Part {
                first_line_ended: false,
            }),
        );
        check(
            "GET / HTTP/1.1\r",
            Ok(Found::Part {
                first_line_ended: false,
            }),
        );
        check(
            "GET / HTTP/1.1\r\nA: b\r\n\r",
            Ok(Found::Part {
                first_line_ended: true,
            }),
        );
        check("GET / HTTP/1.1\r\n\r\n", Ok(Found::Head));
        check("GET / HTTP/1.1\r\nA: b\r\n\r\nbody", Ok(Found::Head));
        check(
            "\r\n",
            Ok(Found::Part {
                first_line_ended: false,
            }),
        );
        check("\r\nGET / HTTP/1.1\r\n\r\n", Ok(Found::Head));
        check("\r\n\r\n", Err(Defect::StartLine));
        check("\n", Err(Defect::LineEnd));
        check("GET / HTTP/1.1\n", Err(Defect::LineEnd));
        check("GET / HTTP/1.1\r\nA: b\n", Err(Defect::LineEnd));
    }

    #[test]
    fn an_endless_head_is_too_large() {
        let mut scan = Scan::default();
        let bytes = vec![b'a'; HEAD_BYTES_MAX + 1];
        assert_eq!(
            scan.search(&bytes[..HEAD_BYTES_MAX]),
            Ok(Found::Part {
                first_line_ended: false
            })
        );
        assert_eq!(scan.search(&bytes), Ok(Found::TooLarge));
    }
}
