//! Frames of a peer, counted: those that make work and bring nothing forward have a budget.
//!
//! The library bounds what frames can make it hold. What they can make it do it does not bound: a client that sends
//! settings, pings, priorities or tiny window updates for ever, or requests that it resets at once, keeps a core busy for
//! next to nothing of its own. Here each such frame takes from a budget that refills with time, and with requests and
//! data that really pass. Reads the nine bytes before each frame and nothing behind them. Never reads a clock.
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
    /// It did not begin with its settings (RFC 9113, 3.4), which the library does not ask for.
    is_rude: Cell<bool>,
    frames: Bucket,
    resets: Bucket,
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
            let [a, b, c, kind, flags, ..] = header;
            let length = u32::from_be_bytes([0, a, b, c]);
            if self.is_first.replace(false) && (kind != SETTINGS || flags & ACK != 0) {
                self.is_rude.set(true);
            }
            self.skip.set(length);
            self.count(kind, length as usize, at);
        }
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

    /// The peer did not say first what it speaks.
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
