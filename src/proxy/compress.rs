//! Answers compressed on their way to a client: `compress` of an entry point. Spec static-config 4.2.
//!
//! Owns the compressors of one core: few, kept for the next answer. When all are in use an
//! answer passes as it is. A body is compressed piece by piece as it comes, and every piece is passed on whole, so nothing
//! waits in here; between pieces the core's other tasks have their turn. Never sends a byte.
//! Read next: `answer.rs` (who asks), `frontend/middleware/compress.rs` (which answers are compressed).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::Poll;

use flate2::{Compress, Compression, FlushCompress, Status};

use crate::frontend::middleware::compress;
use crate::http::body::Framing;
use crate::http::h1::Response;
use crate::http::{FieldId, Head};
use crate::limits::{COMPRESSORS_MAX, COMPRESSORS_SPARE_MAX};
use crate::reactor::{Buffer, Room};

/// What every answer says where some are compressed.
pub(crate) const VARY: (&[u8], &[u8]) = (b"Vary", b"Accept-Encoding");

/// The compressors of one core.
#[derive(Default)]
pub(crate) struct Compressors {
    spare: RefCell<Vec<Compress>>,
    used: Cell<usize>,
}

/// A body that is being compressed.
pub(crate) struct Compressing<'a> {
    pool: &'a Compressors,
    /// There until it is dropped.
    state: Option<Compress>,
}

impl Compressors {
    /// A compressor for this answer, if it is one to compress and one is free. The head then says so, and the framing that
    /// its length is not known. `piece` is what came behind its head.
    pub(crate) fn begin(
        &self,
        answer: &mut Head,
        response: &mut Response,
        piece: &[u8],
    ) -> Option<Compressing<'_>> {
        if !compress::is_worth_it(answer, response.framing, piece)
            || self.used.get() == COMPRESSORS_MAX
        {
            return None;
        }
        self.used.set(self.used.get() + 1);
        let state = self.spare.borrow_mut().pop();
        let state =
            state.unwrap_or_else(|| Compress::new_gzip(Compression::default(), WINDOW_BITS));
        response.framing = Framing::UntilClose;
        response.content_length = None;
        answer.push_known(FieldId::ContentEncoding, b"gzip");
        // What is true of other bytes only.
        answer.remove_named(b"Accept-Ranges");
        answer.remove_named(b"Content-MD5");
        weaken_tag(answer);
        Some(Compressing {
            pool: self,
            state: Some(state),
        })
    }
}

/// The window that every receiver has room for: 32 KiB (RFC 1951).
const WINDOW_BITS: u8 = 15;

/// The same tag may not stand for other bytes, but for the same content (RFC 9110, 8.8.1).
fn weaken_tag(answer: &mut Head) {
    let tag = answer.values_named(b"ETag").next();
    if let Some(tag) = tag.filter(|tag| tag.starts_with(b"\"")) {
        let weak = [b"W/", tag].concat();
        answer.set_named(b"ETag", &weak);
    }
}

/// Says that the answer would be another one for another `Accept-Encoding`, unless it says so already.
pub(crate) fn vary(answer: &mut Head) {
    let (name, value) = VARY;
    let is_said = answer
        .values_named(name)
        .flat_map(|line| line.split(|byte| *byte == b','))
        .any(|one| one.trim_ascii().eq_ignore_ascii_case(value));
    if !is_said {
        answer.push(name, value);
    }
}

impl Compressing<'_> {
    /// Compresses the next piece of the body, so that the client can read all of it.
    pub(crate) async fn next(&mut self, piece: Buffer, finished: bool) -> Buffer {
        if piece.is_empty() && !finished {
            return piece;
        }
        let mut out = Buffer::take(Room::Large);
        let mut parts = piece.bytes().chunks(PART_BYTES).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let is_last = parts.peek().is_none();
            let flush = match (is_last, finished) {
                (false, _) => FlushCompress::None,
                (true, false) => FlushCompress::Sync,
                (true, true) => FlushCompress::Finish,
            };
            self.compress(part, flush, out.vec_mut());
            if is_last {
                return out;
            }
            let mut had_turn = false;
            poll_fn(|context| {
                if had_turn {
                    return Poll::Ready(());
                }
                had_turn = true;
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    fn compress(&mut self, mut part: &[u8], flush: FlushCompress, out: &mut Vec<u8>) {
        let state = self.state.as_mut().expect("taken only by drop");
        loop {
            // Never full: then all that there is has come out.
            out.reserve(OUT_BYTES_MIN.max(part.len() / 2));
            let before = state.total_in();
            let status = state
                .compress_vec(part, out, flush)
                .expect("a compressor takes any bytes until it is finished");
            let taken = usize::try_from(state.total_in() - before).unwrap_or(part.len());
            part = &part[taken..];
            let has_room = out.len() < out.capacity();
            if status == Status::StreamEnd || part.is_empty() && has_room {
                return;
            }
        }
    }
}

/// Compressed at a time: a fraction of a millisecond.
const PART_BYTES: usize = 16 * 1024;

/// Room for what has come out of a compressor at once.
const OUT_BYTES_MIN: usize = 1024;

impl Drop for Compressing<'_> {
    fn drop(&mut self) {
        self.pool.used.set(self.pool.used.get() - 1);
        let mut spare = self.pool.spare.borrow_mut();
        if let Some(mut state) = self.state.take()
            && spare.len() < COMPRESSORS_SPARE_MAX
        {
            state.reset();
            spare.push(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use flate2::read::GzDecoder;

    use super::*;

    fn response(framing: Framing) -> Response {
        Response {
            head_bytes: 0,
            framing,
            content_length: None,
            persistent: true,
        }
    }

    #[test]
    fn heads_say_what_became_of_the_body() {
        let pool = Compressors::default();
        let mut head = Head::default();
        head.set_status(200);
        for (name, value) in [
            ("ETag", "\"a\""),
            ("Accept-Ranges", "bytes"),
            ("Vary", "Origin"),
        ] {
            head.push(name.as_bytes(), value.as_bytes());
        }
        let mut response = response(Framing::Length(5000));
        let begun = pool.begin(&mut head, &mut response, b"");
        assert!(begun.is_some());
        vary(&mut head);
        vary(&mut head);
        let fields: Vec<_> = head
            .fields()
            .map(|field| {
                String::from_utf8_lossy(&[field.name, b"=", field.value].concat()).into_owned()
            })
            .collect();
        let expected = [
            "ETag=W/\"a\"",
            "Vary=Origin",
            "Content-Encoding=gzip",
            "Vary=Accept-Encoding",
        ];
        assert_eq!(fields, expected);
        assert_eq!(
            (response.framing, response.content_length),
            (Framing::UntilClose, None)
        );
    }

    /// What a client reads of pieces, and how many turns a compressor took.
    fn compressed(
        compressing: &mut Compressing<'_>,
        piece: &[u8],
        finished: bool,
    ) -> (Vec<u8>, u32) {
        let mut context = Context::from_waker(Waker::noop());
        let mut next = pin!(compressing.next(Buffer::from(piece.to_vec()), finished));
        for turns in 1.. {
            if let Poll::Ready(out) = next.as_mut().poll(&mut context) {
                return (out.bytes().to_vec(), turns);
            }
        }
        unreachable!("it ends")
    }

    #[test]
    fn every_piece_can_be_read_at_once_and_all_together() {
        let pool = Compressors::default();
        let mut state = 1_u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33).to_le_bytes()[0]
        };
        // Once over, the same compressor is used again.
        for _ in 0..3 {
            let mut head = Head::default();
            head.set_status(200);
            let mut compressing = pool
                .begin(&mut head, &mut response(Framing::UntilClose), b"")
                .expect("one is free");
            let (mut sent, mut whole) = (Vec::<u8>::new(), Vec::<u8>::new());
            let noisy: Vec<u8> = (0..100_000).map(|_| noise()).collect();
            for piece in [
                &b"data: one\n\n"[..],
                b"x",
                &noisy,
                &[b'a'; 70_000],
                b"last",
            ] {
                let finished = piece == b"last";
                let (out, turns) = compressed(&mut compressing, piece, finished);
                assert_eq!(
                    turns as usize,
                    piece.len().div_ceil(PART_BYTES),
                    "a turn for each part"
                );
                sent.extend(out);
                whole.extend(piece);
                let mut read = vec![0; whole.len()];
                GzDecoder::new(&*sent)
                    .read_exact(&mut read)
                    .expect("what was sent is enough");
                assert!(read == whole);
            }
            let mut read = Vec::new();
            GzDecoder::new(&*sent)
                .read_to_end(&mut read)
                .expect("it has an end");
            assert!(read == whole && sent.len() < 105_000);
            assert!(compressed_nothing(&pool));
        }
        assert_eq!(pool.spare.borrow().len(), 2);
    }

    /// A body that turns out to be empty has an end too.
    fn compressed_nothing(pool: &Compressors) -> bool {
        let mut head = Head::default();
        head.set_status(200);
        let mut compressing = pool
            .begin(&mut head, &mut response(Framing::UntilClose), b"")
            .expect("one is free");
        let (out, _) = compressed(&mut compressing, b"", false);
        assert!(out.is_empty(), "nothing is no piece");
        let (out, _) = compressed(&mut compressing, b"", true);
        let mut read = Vec::new();
        GzDecoder::new(&*out)
            .read_to_end(&mut read)
            .is_ok_and(|bytes| bytes == 0)
    }

    #[test]
    fn compressors_are_few() {
        let pool = Compressors::default();
        let begin = || {
            let mut head = Head::default();
            head.set_status(200);
            pool.begin(&mut head, &mut response(Framing::UntilClose), b"")
        };
        let all: Vec<_> = (0..COMPRESSORS_MAX).map(|_| begin()).collect();
        assert!(all.iter().all(Option::is_some) && begin().is_none());
        drop(all);
        assert_eq!(pool.spare.borrow().len(), COMPRESSORS_SPARE_MAX);
        assert!(begin().is_some());
    }
}
