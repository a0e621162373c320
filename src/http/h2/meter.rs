//! Frames of a peer, counted: those that make work and bring nothing forward have a budget.
//!
//! The library bounds what frames can make it hold. What they can make it do it does not bound: a client that sends
//! settings, pings, priorities or tiny window updates for ever, or requests that it resets at once, keeps a core busy for
//! next to nothing of its own. Here each such frame takes from a budget that refills with time, and with requests and
//! data that really pass. Reads the nine bytes before each frame, and behind them only the beginning of trailers. Never reads
//! a clock.
//! Read next: `proxy/streams.rs`, which ends a connection that has used its budget up.

use std::cell::Cell;

use crate::limits::{H2_FRAMES_BURST, H2_FRAMES_PER_SECOND, H2_RESETS_BURST, H2_RESETS_PER_SECOND};

/// Bytes of the preface of a client (RFC 9113, 3.4), and of what is before each frame.
const PREFACE_BYTES: u32 = 24;
const HEADER_BYTES: usize = 9;

/// Kinds of frames that count for what they are (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;

/// The flag of settings that confirm ours.
const ACK: u8 = 1;

/// Flags of fields: what comes before them.
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Data of at least this many bytes is progress, whichever way it goes: less may be a window kept small on purpose.
const PROGRESS_BYTES: usize = 64;

/// What progress is worth, in frames. A receiver may well confirm each piece of data twice, for its stream and for all.
const PROGRESS_WORTH: u32 = 4;

/// The frames of one connection.
#[derive(Debug)]
pub struct Meter {
    /// The beginning of a frame, as much of it as has come.
    header: Cell<[u8; HEADER_BYTES]>,
    header_bytes: Cell<usize>,
    /// What is left of the frame before.
    skip: Cell<u32>,
    is_first: Cell<bool>,
    /// It did not begin with its settings (RFC 9113, 3.4), which the library does not ask for, or goes on breaking rules.
    is_rude: Cell<bool>,
    /// A stream whose trailers have pseudo fields (8.1), which the library leaves out; 0 is none.
    refused: Cell<u32>,
    /// The highest stream that has begun.
    last_stream: Cell<u32>,
    /// Trailers are coming, of which so much is here.
    is_opening: Cell<bool>,
    opening: Cell<Opening>,
    frames: Bucket,
    resets: Bucket,
}

/// As much of a frame of trailers as tells what its first field is.
#[derive(Clone, Copy, Debug, Default)]
struct Opening {
    stream: u32,
    flags: u8,
    bytes: [u8; Self::BYTES],
    have: usize,
    /// How many there will be; 0 where none are awaited.
    want: usize,
}

impl Opening {
    /// Room for padding, a priority, two changes of the table's size, and the beginning of a field.
    const BYTES: usize = 24;

    fn awaited(stream: u32, flags: u8, length: u32) -> Self {
        Self {
            stream,
            flags,
            want: (length as usize).min(Self::BYTES),
            ..Self::default()
        }
    }

    /// Adds what came; true once it begins with a pseudo field. Such fields come first or are refused by the library, so one
    /// look is enough. One that only the dynamic table names is not known here: it is left out, and nobody believes it.
    fn add(&mut self, came: &[u8]) -> bool {
        let count = came.len().min(self.want - self.have);
        self.bytes[self.have..self.have + count].copy_from_slice(&came[..count]);
        self.have += count;
        if self.have < self.want {
            return false;
        }
        self.want = 0;
        let mut block = &self.bytes[..self.have];
        for (flag, bytes) in [(PADDED, 1), (PRIORITY, 5)] {
            if self.flags & flag != 0 {
                block = block.get(bytes..).unwrap_or_default();
            }
        }
        // Changes of the table's size (RFC 7541, 6.3).
        while let [first @ 0x20..=0x3f, rest @ ..] = block {
            let more = rest.iter().take_while(|byte| **byte & 0x80 != 0).count() + 1;
            block = match first {
                0x3f => rest.get(more..).unwrap_or_default(),
                _ => rest,
            };
        }
        match block {
            // A field, or only its name, of the static table, which begins with the pseudo fields (Appendix A).
            [0x81..=0x8e | 0x41..=0x4e | 0x01..=0x0e | 0x11..=0x1e, ..] => true,
            // A name of its own: its length, then `:` as it is or as Huffman codes it.
            [0x40 | 0x00 | 0x10, length, name, ..] => match length & 0x80 {
                0 => *name == b':',
                _ => name >> 1 == 0x5c,
            },
            _ => false,
        }
    }
}

#[derive(Debug)]
struct Bucket {
    left: Cell<u32>,
    max: u32,
    per_second: u32,
    /// Nanoseconds of the clock up to which time was credited.
    credited: Cell<u64>,
    is_empty: Cell<bool>,
}

impl Bucket {
    fn new(max: u32, per_second: u32) -> Self {
        Self {
            left: Cell::new(max),
            max,
            per_second,
            credited: Cell::new(0),
            is_empty: Cell::new(false),
        }
    }

    fn add(&self, count: u32) {
        self.left
            .set(self.left.get().saturating_add(count).min(self.max));
    }

    fn take(&self, at: u64) {
        let left = self.left.get();
        if left > 0 {
            self.left.set(left - 1);
        } else {
            self.refill(at);
        }
    }

    /// Looks at the clock only where the budget would be used up without.
    #[cold]
    fn refill(&self, at: u64) {
        const SECOND: u64 = 1_000_000_000;
        let since = at.saturating_sub(self.credited.replace(at)).min(SECOND);
        let earned = since * u64::from(self.per_second) / SECOND;
        match u32::try_from(earned).unwrap_or(self.max).min(self.max) {
            0 => self.is_empty.set(true),
            earned => self.left.set(earned - 1),
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            header: Cell::default(),
            header_bytes: Cell::new(0),
            skip: Cell::new(PREFACE_BYTES),
            is_first: Cell::new(true),
            is_rude: Cell::new(false),
            refused: Cell::new(0),
            last_stream: Cell::new(0),
            is_opening: Cell::new(false),
            opening: Cell::default(),
            frames: Bucket::new(H2_FRAMES_BURST, H2_FRAMES_PER_SECOND),
            resets: Bucket::new(H2_RESETS_BURST, H2_RESETS_PER_SECOND),
        }
    }
}

impl Meter {
    /// Counts what came, at this nanosecond of the clock.
    pub fn received(&self, mut bytes: &[u8], at: u64) {
        loop {
            let skipped = bytes.len().min(self.skip.get() as usize);
            if self.is_opening.get() {
                self.open(&bytes[..skipped]);
            }
            bytes = bytes.get(skipped..).unwrap_or_default();
            // No more than `skip`, so it fits.
            self.skip
                .set(self.skip.get() - u32::try_from(skipped).unwrap_or(u32::MAX));
            if bytes.is_empty() {
                return;
            }
            let mut header = self.header.get();
            let have = self.header_bytes.get();
            let count = bytes.len().min(HEADER_BYTES - have);
            let (now, later) = bytes.split_at(count);
            header[have..have + count].copy_from_slice(now);
            bytes = later;
            if have + count < HEADER_BYTES {
                self.header.set(header);
                self.header_bytes.set(have + count);
                return;
            }
            self.header_bytes.set(0);
            let [a, b, c, kind, flags, stream @ ..] = header;
            let length = u32::from_be_bytes([0, a, b, c]);
            if self.is_first.replace(false) && (kind != SETTINGS || flags & ACK != 0) {
                self.is_rude.set(true);
            }
            self.skip.set(length);
            if kind == HEADERS {
                let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
                if stream > self.last_stream.get() {
                    self.last_stream.set(stream);
                } else {
                    self.opening.set(Opening::awaited(stream, flags, length));
                    self.is_opening.set(true);
                }
            }
            self.count(kind, length as usize, at);
        }
    }

    /// Looks at the beginning of trailers.
    #[cold]
    fn open(&self, came: &[u8]) {
        let mut opening = self.opening.get();
        if opening.add(came) && self.refused.replace(opening.stream) != 0 {
            // One that nobody asked about: where such things come twice, the connection ends.
            self.is_rude.set(true);
        }
        self.is_opening.set(opening.want > 0);
        self.opening.set(opening);
    }

    fn count(&self, kind: u8, length: usize, at: u64) {
        match kind {
            // What they ask for is bounded elsewhere: streams, windows, and what is in a head.
            HEADERS => {}
            DATA if length >= PROGRESS_BYTES => self.frames.add(PROGRESS_WORTH),
            RST_STREAM => {
                self.frames.take(at);
                self.resets.take(at);
            }
            _ => self.frames.take(at),
        }
    }

    /// Data was sent: its receiver will want to say that it has room again.
    pub fn sent(&self, bytes: usize) {
        if bytes >= PROGRESS_BYTES {
            self.frames.add(PROGRESS_WORTH);
        } else {
            self.frames.add(1);
        }
    }

    /// A request was answered to its end.
    pub fn answered(&self) {
        self.frames.add(PROGRESS_WORTH);
        self.resets.add(1);
    }

    /// A request was refused for a rule that its client broke, or for there being too many.
    pub fn refused(&self, at: u64) {
        self.resets.take(at);
    }

    /// The trailers of this stream are not to be believed. Asked once for each.
    pub fn refuses_trailers(&self, stream: u32) -> bool {
        let is_refused = self.refused.get() == stream;
        if is_refused {
            self.refused.set(0);
        }
        is_refused
    }

    /// The peer did not say first what it speaks, or breaks rules again and again.
    #[must_use]
    pub fn is_rude(&self) -> bool {
        self.is_rude.get()
    }

    /// The peer has asked for more than anybody does who means well.
    #[must_use]
    pub fn is_exceeded(&self) -> bool {
        self.frames.is_empty.get() || self.resets.is_empty.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(length).expect("short").to_be_bytes()[1..].to_vec();
        bytes.extend_from_slice(&[kind, 0, 0, 0, 0, 0]);
        bytes.resize(HEADER_BYTES + length, 0xff);
        bytes
    }

    /// How many times `frames` may come at once before it is too much; `most` if never.
    fn check(frames: &[Vec<u8>], most: u32, allowed: u32) {
        for pieces in [1, 7, 9, 1000] {
            let meter = Meter::default();
            meter.received(&[0; PREFACE_BYTES as usize], 0);
            let mut count = 0;
            while count < most && !meter.is_exceeded() {
                for piece in frames.concat().chunks(pieces) {
                    meter.received(piece, 0);
                }
                count += 1;
            }
            let last = u32::from(meter.is_exceeded());
            assert_eq!(count - last, allowed, "in pieces of {pieces}");
        }
    }

    #[test]
    fn idle_talk_has_a_budget() {
        const PING: u8 = 6;
        check(&[frame(PING, 8)], u32::MAX, H2_FRAMES_BURST);
        check(&[frame(DATA, 0)], u32::MAX, H2_FRAMES_BURST);
        check(&[frame(DATA, 1)], u32::MAX, H2_FRAMES_BURST);
        check(&[frame(0xee, 500)], u32::MAX, H2_FRAMES_BURST);
    }

    #[test]
    fn resets_have_a_smaller_one() {
        check(
            &[frame(HEADERS, 20), frame(RST_STREAM, 4)],
            u32::MAX,
            H2_RESETS_BURST,
        );
    }

    #[test]
    fn what_brings_something_forward_is_free() {
        check(&[frame(HEADERS, 20)], 10_000, 10_000);
        check(
            &[frame(DATA, 16_384), frame(8, 4), frame(8, 4)],
            10_000,
            10_000,
        );
    }

    #[test]
    fn settings_come_first() {
        let rude = |frames: Vec<u8>| {
            let meter = Meter::default();
            meter.received(&[0; PREFACE_BYTES as usize], 0);
            meter.received(&frames, 0);
            meter.is_rude()
        };
        assert!(!rude(frame(SETTINGS, 0)));
        assert!(!rude([frame(SETTINGS, 6), frame(HEADERS, 5)].concat()));
        assert!(rude([frame(HEADERS, 5), frame(SETTINGS, 6)].concat()));
        let mut confirmed = frame(SETTINGS, 0);
        confirmed[4] = ACK;
        assert!(rude(confirmed));
    }

    #[test]
    fn trailers_begin_with_no_pseudo_field() {
        fn check(flags: u8, block: &[u8], is_refused: bool) {
            let headers = |flags: u8, block: &[u8]| {
                let mut bytes = frame(HEADERS, block.len());
                bytes[4] = flags;
                bytes[8] = 1;
                bytes.splice(HEADER_BYTES.., block.iter().copied());
                bytes
            };
            let mut frames = vec![0; PREFACE_BYTES as usize];
            frames.extend(frame(SETTINGS, 0));
            // The request begins as it must.
            frames.extend(headers(4, &[0x82, 0x86, 0x84]));
            frames.extend(headers(flags, block));
            for pieces in [1, 2, 1000] {
                let meter = Meter::default();
                frames
                    .chunks(pieces)
                    .for_each(|piece| meter.received(piece, 0));
                let what = format!("{block:02x?} in pieces of {pieces}");
                assert!(!meter.refuses_trailers(3) && !meter.is_rude(), "{what}");
                assert_eq!(meter.refuses_trailers(1), is_refused, "{what}");
                assert!(!meter.refuses_trailers(1), "{what}");
                for _ in 0..2 {
                    assert!(!meter.is_rude(), "{what}");
                    meter.received(&headers(flags, block), 0);
                }
                assert_eq!(
                    meter.is_rude(),
                    is_refused,
                    "twice, and nobody asked: {what}"
                );
            }
        }
        check(5, b"\x00\x03x-a\x01b", false);
        check(5, b"", false);
        // `accept-charset`, the first that is none; one of the dynamic table.
        check(5, b"\x8f", false);
        check(5, b"\xbe", false);
        check(5, b"\x0f\x00\x01a", false);
        for pseudo in [
            &b"\x82"[..],
            b"\x42\x03200",
            b"\x02\x03GET",
            b"\x14\x01/",
            b"\x00\x07:method\x03GET",
            b"\x40\x01:\x00",
            // `:method` by Huffman.
            b"\x00\x85\xb9\x49\x53\x39\xe4\x00",
            b"\x20\x82",
            b"\x3f\xe1\x1f\x20\x82",
        ] {
            check(5, pseudo, true);
        }
        check(5 | PADDED, b"\x02\x82\0\0", true);
        check(5 | PADDED, b"\x82\x00\x03x-a\x01b", false);
        check(5 | PADDED | PRIORITY, b"\x00\x82\x82\x82\x82\x82\x82", true);
        check(5 | PRIORITY, b"\x82\x82\x82\x82\x82\x0f\x00\x01a", false);
    }

    #[test]
    fn time_and_answers_refill() {
        let meter = Meter::default();
        for _ in 0..H2_RESETS_BURST {
            meter.refused(0);
        }
        meter.answered();
        meter.refused(0);
        for _ in 0..H2_RESETS_PER_SECOND {
            meter.refused(SECOND);
        }
        assert!(!meter.is_exceeded());
        meter.refused(SECOND);
        assert!(meter.is_exceeded());
    }
}
