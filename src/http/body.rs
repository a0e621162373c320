//! How a body is framed, and the bytes of a framed body told apart from its framing.
//!
//! Owns the state of one incoming body. Chunk data is moved together in place, so a body passes without being copied
//! elsewhere. Never buffers data: only trailer lines are kept until their section is whole.
//! Never guesses: a byte that does not fit is an error, after which nothing of the connection may be used.
//! Read next: `h1/encode.rs` (the other direction).

use std::ops::Range;

use super::field::{FieldId, FieldSet};
use super::h1::lines::{self, Defect};
use super::head::Head;
use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Where the body of a message ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    #[default]
    None,
    /// Exactly this many bytes, at most [`LENGTH_MAX`].
    Length(u64),
    /// Chunks, then perhaps trailers.
    Chunked,
    /// Until the server closes. Only in answers.
    UntilClose,
}

/// The longest body or chunk that may be announced: sums of two cannot overflow.
pub const LENGTH_MAX: u64 = u64::MAX / 2;

/// Digits of a chunk size, leading zeros included.
const CHUNK_SIZE_DIGITS_MAX: u32 = 16;

/// What is wrong with a body. The message ends here: nothing after it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk size without digits, with other bytes, or too large.
    ChunkSize,
    /// A size line or all extensions together are longer than their bounds, or hold control bytes.
    ChunkExtension,
    /// Chunk data is not followed by CRLF, or a size line ends otherwise.
    ChunkEnd,
    /// A trailer line is malformed.
    Trailer(Defect),
    /// The trailer section is longer than `TRAILER_BYTES_MAX`, or has too many lines.
    TrailerTooLarge,
    /// The peer closed before the body was whole.
    Truncated,
}

/// What one call of [`BodyReader::decode`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that belong to this body: those after them are the next message.
    pub consumed: usize,
    /// Where in the input the data is now. Chunks are moved together, so it is one range.
    pub data: Range<usize>,
    /// The body is whole; trailers, if any, are in their head.
    pub finished: bool,
}

/// Reads one body.
#[derive(Debug)]
pub struct BodyReader {
    state: State,
    /// Bytes of the size line that is being read.
    line_bytes: usize,
    /// Bytes of all chunk extensions so far.
    extension_bytes: usize,
    /// The trailer section so far. Allocated by the first trailer byte only.
    trailer_bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    /// In the digits of a chunk size.
    Size {
        value: u64,
        digits: u32,
    },
    /// In white space after the digits: then an extension or the line end.
    SizeEnd {
        value: u64,
    },
    Extension {
        value: u64,
    },
    SizeLineFeed {
        value: u64,
    },
    Data(u64),
    DataReturn,
    DataLineFeed,
    Trailers,
    Finished,
}

const SIZE_START: State = State::Size {
    value: 0,
    digits: 0,
};

impl BodyReader {
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Finished,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => SIZE_START,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            line_bytes: 0,
            extension_bytes: 0,
            trailer_bytes: Vec::new(),
        }
    }

    /// True once the body is whole. A body that ends with the connection is whole after [`Self::end_of_stream`].
    #[must_use]
    pub fn finished(&self) -> bool {
        self.state == State::Finished
    }

    /// Bytes that are still to come, where the framing says so.
    #[must_use]
    pub const fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Finished => Some(0),
            _ => None,
        }
    }

    /// Tells that `count` bytes of the body passed without being shown, as splicing does.
    ///
    /// # Panics
    /// If the framing does not say how much is left, or less is left: the caller asks [`Self::remaining`] first.
    pub fn passed(&mut self, count: u64) {
        let left = self
            .remaining()
            .expect("only a body of known length may pass unseen");
        let left = left
            .checked_sub(count)
            .expect("no more may pass than remains");
        self.state = if left == 0 {
            State::Finished
        } else {
            State::Length(left)
        };
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// [`BodyError::Truncated`] unless the body was whole, or ends with the connection.
    pub fn end_of_stream(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::Finished => {
                self.state = State::Finished;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Takes what belongs to this body from the front of `bytes`.
    ///
    /// Trailer fields go into `trailers`, those that may not stand there (framing, routing, authorization, `Content-*`)
    /// silently dropped: RFC 9110 section 6.5.1.
    ///
    /// # Errors
    /// A framing error: no data of this call is returned, the connection is of no more use in either direction of reuse.
    pub fn decode(&mut self, bytes: &mut [u8], trailers: &mut Head) -> Result<Decoded, BodyError> {
        match self.state {
            State::Finished => Ok(Decoded {
                consumed: 0,
                data: 0..0,
                finished: true,
            }),
            State::UntilClose => Ok(Decoded {
                consumed: bytes.len(),
                data: 0..bytes.len(),
                finished: false,
            }),
            State::Length(left) => {
                let take = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.passed(take as u64);
                Ok(Decoded {
                    consumed: take,
                    data: 0..take,
                    finished: self.finished(),
                })
            }
            _ => self.decode_chunks(bytes, trailers),
        }
    }

    fn decode_chunks(
        &mut self,
        bytes: &mut [u8],
        trailers: &mut Head,
    ) -> Result<Decoded, BodyError> {
        let mut data = 0..0;
        let mut at = 0;
        while at < bytes.len() {
            match self.state {
                State::Data(left) => {
                    let take = usize::try_from(left)
                        .map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                    data = joined(bytes, data, at..at + take);
                    at += take;
                    let left = left - take as u64;
                    self.state = if left == 0 {
                        State::DataReturn
                    } else {
                        State::Data(left)
                    };
                }
                State::Trailers => {
                    at += self.trailers(&bytes[at..], trailers)?;
                }
                State::Length(_) | State::UntilClose | State::Finished => break,
                _ => {
                    self.framing_byte(bytes[at])?;
                    at += 1;
                }
            }
        }
        Ok(Decoded {
            consumed: at,
            data,
            finished: self.finished(),
        })
    }

    /// One byte between chunk data.
    fn framing_byte(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                self.line_bytes += 1;
                size_digit(value, digits, byte)?
            }
            (State::Size { digits: 0, .. }, _) => return Err(BodyError::ChunkSize),
            (
                State::Size { value, .. } | State::SizeEnd { value } | State::Extension { value },
                b'\r',
            ) => State::SizeLineFeed { value },
            (State::Size { value, .. } | State::SizeEnd { value }, b' ' | b'\t') => {
                self.extension_byte()?;
                State::SizeEnd { value }
            }
            (State::Size { value, .. } | State::SizeEnd { value }, b';') => {
                self.extension_byte()?;
                State::Extension { value }
            }
            (State::Size { .. } | State::SizeEnd { .. }, _) => return Err(BodyError::ChunkSize),
            (State::Extension { value }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_byte()?;
                State::Extension { value }
            }
            (State::Extension { .. }, _) => return Err(BodyError::ChunkExtension),
            (State::SizeLineFeed { value: 0 }, b'\n') => State::Trailers,
            (State::SizeLineFeed { value }, b'\n') => State::Data(value),
            (State::DataReturn, b'\r') => State::DataLineFeed,
            (State::DataLineFeed, b'\n') => {
                self.line_bytes = 0;
                SIZE_START
            }
            (
                State::SizeLineFeed { .. }
                | State::DataReturn
                | State::DataLineFeed
                | State::Length(_)
                | State::UntilClose
                | State::Data(_)
                | State::Trailers
                | State::Finished,
                _,
            ) => return Err(BodyError::ChunkEnd),
        };
        Ok(())
    }

    /// Counts a byte of a size line that is not a digit.
    fn extension_byte(&mut self) -> Result<(), BodyError> {
        self.line_bytes += 1;
        self.extension_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX
            || self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX
        {
            return Err(BodyError::ChunkExtension);
        }
        Ok(())
    }

    /// Takes trailer bytes up to the end of the section; how many they were.
    fn trailers(&mut self, bytes: &[u8], trailers: &mut Head) -> Result<usize, BodyError> {
        if self.trailer_bytes.is_empty() && bytes.starts_with(b"\r\n") {
            self.state = State::Finished;
            return Ok(2);
        }
        let before = self.trailer_bytes.len();
        let Some(end) = self.trailers_end(bytes)? else {
            if before + bytes.len() > TRAILER_BYTES_MAX {
                return Err(BodyError::TrailerTooLarge);
            }
            self.trailer_bytes.extend_from_slice(bytes);
            return Ok(bytes.len());
        };
        if before + end > TRAILER_BYTES_MAX {
            return Err(BodyError::TrailerTooLarge);
        }
        self.trailer_bytes.extend_from_slice(&bytes[..end]);
        self.state = State::Finished;
        trailers.clear();
        lines::fields(&self.trailer_bytes, 0, trailers).map_err(|defect| match defect {
            Defect::FieldsTooMany => BodyError::TrailerTooLarge,
            defect => BodyError::Trailer(defect),
        })?;
        self.trailer_bytes = Vec::new();
        drop_forbidden(trailers);
        Ok(end)
    }

    /// How many of these bytes belong to the trailer section, if it ends within them.
    fn trailers_end(&self, bytes: &[u8]) -> Result<Option<usize>, BodyError> {
        let kept = &self.trailer_bytes;
        // The byte before and the two before that, whichever side of the seam they are on.
        let back = |at: usize, by: usize| {
            if at >= by {
                bytes.get(at - by)
            } else {
                (kept.len() + at)
                    .checked_sub(by)
                    .and_then(|at| kept.get(at))
            }
        };
        for at in memchr::memchr_iter(b'\n', bytes) {
            if back(at, 1) != Some(&b'\r') {
                return Err(BodyError::Trailer(Defect::LineEnd));
            }
            // An empty line: it follows a line end, or is the first.
            if matches!(back(at, 2), Some(b'\n') | None) {
                return Ok(Some(at + 1));
            }
        }
        Ok(None)
    }
}

/// The state after one more digit of a chunk size.
fn size_digit(value: u64, digits: u32, byte: u8) -> Result<State, BodyError> {
    let digit = (byte as char).to_digit(16).ok_or(BodyError::ChunkSize)?;
    let value = value.checked_mul(16).ok_or(BodyError::ChunkSize)? + u64::from(digit);
    if value > LENGTH_MAX || digits == CHUNK_SIZE_DIGITS_MAX {
        return Err(BodyError::ChunkSize);
    }
    Ok(State::Size {
        value,
        digits: digits + 1,
    })
}

/// Moves `next` behind `data`; where both are now.
fn joined(bytes: &mut [u8], data: Range<usize>, next: Range<usize>) -> Range<usize> {
    if data.is_empty() {
        return next;
    }
    let end = data.end + next.len();
    bytes.copy_within(next, data.end);
    data.start..end
}

/// Removes the trailer fields that would say something about framing, routing or rights after they were decided.
pub fn drop_forbidden(trailers: &mut Head) {
    const FORBIDDEN: FieldSet = FieldSet::of(&[
        FieldId::Authorization,
        FieldId::CacheControl,
        FieldId::Cookie,
        FieldId::Date,
        FieldId::Expect,
        FieldId::Host,
        FieldId::Location,
        FieldId::SetCookie,
        FieldId::Via,
        FieldId::XRealIp,
        FieldId::XReplacedPath,
    ])
    .union(FieldSet::HOP_BY_HOP);
    const FORBIDDEN_NAMES: [&[u8]; 7] = [
        b"age",
        b"expires",
        b"forwarded",
        b"max-forwards",
        b"range",
        b"vary",
        b"www-authenticate",
    ];
    const FORBIDDEN_STARTS: [&[u8]; 3] = [b"content-", b"if-", b"x-forwarded-"];
    for at in 0..trailers.fields.len() {
        let field = trailers.fields[at];
        let name = trailers.name_of(&field);
        let starts_with = |start: &&[u8]| {
            name.get(..start.len())
                .is_some_and(|front| front.eq_ignore_ascii_case(start))
        };
        let is_forbidden = FORBIDDEN.contains(field.id)
            || FORBIDDEN_NAMES
                .iter()
                .any(|forbidden| name.eq_ignore_ascii_case(forbidden))
            || FORBIDDEN_STARTS.iter().any(starts_with);
        if is_forbidden {
            trailers.fields[at].removed = true;
            if field.id != FieldId::Other {
                trailers.present.remove(field.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything a reader made of a body: data, trailer lines, bytes consumed. `None` if it was not whole at the end.
    type Outcome = Result<Option<(Vec<u8>, String, usize)>, BodyError>;

    /// Reads a body whose bytes come in the given pieces.
    fn read(framing: Framing, pieces: &[&[u8]]) -> Outcome {
        let mut reader = BodyReader::new(framing);
        let mut trailers = Head::default();
        let mut data = Vec::new();
        let mut consumed = 0;
        for piece in pieces {
            let mut piece = piece.to_vec();
            let decoded = reader.decode(&mut piece, &mut trailers)?;
            data.extend_from_slice(&piece[decoded.data]);
            consumed += decoded.consumed;
            assert_eq!(decoded.finished, reader.finished());
            assert!(
                decoded.finished || decoded.consumed == piece.len(),
                "an unfinished body takes all there is"
            );
        }
        let lines = trailers.fields().fold(String::new(), |text, field| {
            let name = String::from_utf8_lossy(field.name);
            format!("{text}{name}: {}\n", String::from_utf8_lossy(field.value))
        });
        Ok(reader.finished().then_some((data, lines, consumed)))
    }

    /// Reads chunks at once, split in two at every place, and byte by byte: all must agree.
    fn read_chunks(text: &[u8]) -> Outcome {
        let at_once = read(Framing::Chunked, &[text]);
        for at in 0..=text.len() {
            assert_eq!(
                read(Framing::Chunked, &[&text[..at], &text[at..]]),
                at_once,
                "split at {at}"
            );
        }
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(Framing::Chunked, &bytes), at_once, "byte by byte");
        at_once
    }

    fn accept(text: &str, data: &str, trailers: &str) {
        let expected = Ok(Some((
            data.as_bytes().to_vec(),
            trailers.to_owned(),
            text.len(),
        )));
        assert_eq!(read_chunks(text.as_bytes()), expected, "{text:?}");
        // What follows is not ours.
        let mut longer = text.as_bytes().to_vec();
        longer.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(read_chunks(&longer), expected, "{text:?} and more");
    }

    fn refuse(text: impl AsRef<[u8]>, error: BodyError) {
        let text = text.as_ref();
        assert_eq!(
            read_chunks(text),
            Err(error),
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }

    #[test]
    fn chunks() {
        accept("0\r\n\r\n", "", "");
        accept("5\r\nhello\r\n0\r\n\r\n", "hello", "");
        accept(
            "1\r\na\r\n2\r\nbc\r\n00A\r\n0123456789\r\n000\r\n\r\n",
            "abc0123456789",
            "",
        );
        accept("1 \t\r\na\r\n0  \r\n\r\n", "a", "");
        accept("1;a=b\r\na\r\n0;c=\"d e\u{e9}\"\r\n\r\n", "a", "");
        accept("1 ; a\r\na\r\n0\r\n\r\n", "a", "");
        accept("0000000000000001\r\na\r\n0\r\n\r\n", "a", "");
        accept("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "");
    }

    #[test]
    fn broken_chunks() {
        for text in [
            "\r\n",
            "g\r\n",
            " 5\r\n",
            "+5\r\n",
            "-5\r\n",
            "0x5\r\n",
            "5_0\r\n",
            ";a\r\n",
            "5 5\r\n",
            "\n",
            "5\u{b}\r\n",
            "5,\r\n",
            "5\n",
            "00000000000000001\r\n",
            "ffffffffffffffff\r\n",
            "8000000000000000\r\n",
            "10000000000000000\r\n",
        ] {
            refuse(text, BodyError::ChunkSize);
        }
        for text in ["5;a\nb\r\n", "5;a\u{0}\r\n", "5;\u{7f}\r\n", "0;\n\r\n"] {
            refuse(text, BodyError::ChunkExtension);
        }
        for text in [
            "5\ra",
            "5;a\rb\r\n",
            "5\r\r\n",
            "1\r\nab\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na0\r\n\r\n",
            "1\r\na\r0\r\n",
            "1\r\na\r\r\n",
        ] {
            refuse(text, BodyError::ChunkEnd);
        }
    }

    #[test]
    fn chunk_lines_are_bounded() {
        let fits = format!(
            "1;{}\r\na\r\n0\r\n\r\n",
            "x".repeat(CHUNK_LINE_BYTES_MAX - 2)
        );
        let pieces =
            |text: &str| read(Framing::Chunked, &[text.as_bytes()]).map(|body| body.is_some());
        assert_eq!(pieces(&fits), Ok(true));
        let one_more = format!(
            "1;{}\r\na\r\n0\r\n\r\n",
            "x".repeat(CHUNK_LINE_BYTES_MAX - 1)
        );
        assert_eq!(pieces(&one_more), Err(BodyError::ChunkExtension));
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(1023));
        let all = CHUNK_EXTENSION_BYTES_MAX / 1024;
        assert_eq!(pieces(&(chunk.repeat(all) + "0\r\n\r\n")), Ok(true));
        assert_eq!(
            pieces(&(chunk.repeat(all) + "0;\r\n\r\n")),
            Err(BodyError::ChunkExtension)
        );
    }

    #[test]
    fn trailer_sections() {
        accept(
            "0\r\nA: b\r\nGrpc-Status: 0\r\n\r\n",
            "",
            "A: b\nGrpc-Status: 0\n",
        );
        accept("1\r\na\r\n0\r\nA: b\r\n\r\n", "a", "A: b\n");
        accept(
            "0\r\nHost: x\r\nA: b\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\nContent-Foo: 1\r\nAuthorization: x\r\nX-Forwarded-Any: x\r\n\
             Connection: close\r\nSet-Cookie: x\r\nTrailer: A\r\nIf-Match: x\r\nRange: x\r\n\r\n",
            "",
            "A: b\n",
        );
        refuse("0\r\nA: b\n\r\n", BodyError::Trailer(Defect::LineEnd));
        refuse("0\r\n\n", BodyError::Trailer(Defect::LineEnd));
        refuse("0\r\nA : b\r\n\r\n", BodyError::Trailer(Defect::FieldName));
        refuse("0\r\n A: b\r\n\r\n", BodyError::Trailer(Defect::Folding));
        refuse(
            "0\r\nA: b\r\n c\r\n\r\n",
            BodyError::Trailer(Defect::Folding),
        );
        refuse(
            "0\r\nA: \u{0}\r\n\r\n",
            BodyError::Trailer(Defect::FieldValue),
        );
        refuse("0\r\nA\r\n\r\n", BodyError::Trailer(Defect::FieldName));
    }

    #[test]
    fn trailers_beside_forbidden_ones_are_still_found_by_name() {
        let mut trailers = Head::default();
        let mut bytes = b"0\r\nA: b\r\nIf-Match: x\r\nHost: x\r\n\r\n".to_vec();
        let decoded = BodyReader::new(Framing::Chunked).decode(&mut bytes, &mut trailers);
        assert!(decoded.is_ok_and(|decoded| decoded.finished));
        assert_eq!(trailers.values_named(b"a").collect::<Vec<_>>(), [b"b"]);
        assert_eq!(trailers.values_named(b"if-match").count(), 0);
        assert!(!trailers.has(FieldId::Host));
    }

    #[test]
    fn trailers_are_bounded() {
        let check = |section: &str, expected| {
            let text = format!("0\r\n{section}\r\n");
            let outcome = read(Framing::Chunked, &[text.as_bytes()]).map(|body| body.is_some());
            assert_eq!(outcome, expected);
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(1000).collect();
            assert_eq!(
                read(Framing::Chunked, &pieces).map(|body| body.is_some()),
                expected
            );
        };
        let value = "b".repeat(TRAILER_BYTES_MAX - "A: \r\n\r\n".len());
        check(&format!("A: {value}\r\n"), Ok(true));
        check(&format!("A: {value}b\r\n"), Err(BodyError::TrailerTooLarge));
        check(&"A: b\r\n".repeat(1000), Err(BodyError::TrailerTooLarge));
    }

    #[test]
    fn lengths() {
        let body = |data: &[u8], consumed| Ok(Some((data.to_vec(), String::new(), consumed)));
        assert_eq!(
            read(Framing::Length(5), &[b"he", b"llo!"]),
            body(b"hello", 5)
        );
        assert_eq!(read(Framing::Length(5), &[b"hell"]), Ok(None));
        assert_eq!(read(Framing::Length(0), &[b"x"]), body(b"", 0));
        assert_eq!(read(Framing::None, &[b"x"]), body(b"", 0));
        assert_eq!(read(Framing::UntilClose, &[b"x"]), Ok(None));
    }

    #[test]
    fn a_closed_connection_ends_only_bodies_that_wait_for_it() {
        let check = |framing, bytes: &[u8], expected| {
            let mut reader = BodyReader::new(framing);
            reader
                .decode(&mut bytes.to_vec(), &mut Head::default())
                .expect("good bytes");
            assert_eq!(reader.end_of_stream(), expected, "{framing:?} {bytes:?}");
        };
        check(Framing::None, b"", Ok(()));
        check(Framing::UntilClose, b"abc", Ok(()));
        check(Framing::Length(3), b"abc", Ok(()));
        check(Framing::Length(3), b"ab", Err(BodyError::Truncated));
        check(Framing::Chunked, b"0\r\n\r\n", Ok(()));
        for part in [
            "",
            "5",
            "5\r\nhello",
            "5\r\nhello\r\n",
            "0\r\n",
            "0\r\nA: b\r\n",
        ] {
            check(Framing::Chunked, part.as_bytes(), Err(BodyError::Truncated));
        }
    }

    #[test]
    fn bytes_may_pass_unseen() {
        let mut reader = BodyReader::new(Framing::Length(10));
        assert_eq!(reader.remaining(), Some(10));
        reader.passed(4);
        assert_eq!(reader.remaining(), Some(6));
        reader.passed(6);
        assert!(reader.finished());
        assert_eq!(BodyReader::new(Framing::Chunked).remaining(), None);
    }
}
