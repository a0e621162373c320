//! A body that is held whole, for `buffering` of its backend. Spec backends 8.
//!
//! Owns where its bytes are: the first of them in memory, as many as the backend says, the rest in a file without a name.
//! All such bodies of the process share two bounds: over the one in memory the rest goes to the file early, over the one on
//! disk the body is refused. Never reads from a peer and never sends.
//! Read next: `disk.rs`.

use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::disk::Disk;
use crate::backend::buffering::Bounds;
use crate::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES};
use crate::mailbox::DiskJob;
use crate::reactor::{Buffer, Room};
use crate::settings::HeldBounds;

/// Bytes of held bodies in memory and in files, of all cores. Exact, and written only where a backend has `buffering`.
static IN_MEMORY: AtomicU64 = AtomicU64::new(0);
static IN_FILES: AtomicU64 = AtomicU64::new(0);

/// See the file's header.
pub(crate) struct Held {
    disk: Rc<Disk>,
    bounds: Bounds,
    /// Of all of them together.
    all: HeldBounds,
    /// Full small buffers, but for the last.
    front: Vec<Buffer>,
    front_bytes: u64,
    /// Follows the front. There from the first byte that the front has no room for.
    file: Option<Arc<File>>,
    file_bytes: u64,
    /// What is to be written next; follows the file.
    tail: Buffer,
}

/// Why a body is not held.
#[derive(Debug)]
pub(crate) enum NotHeld {
    /// It is longer than the backend allows.
    TooLong,
    /// There is no room for it, or the disk failed.
    NoRoom(io::Error),
}

impl Held {
    pub(crate) fn new(disk: &Rc<Disk>, bounds: Bounds, all: HeldBounds) -> Self {
        Self {
            disk: Rc::clone(disk),
            bounds,
            all,
            front: Vec::new(),
            front_bytes: 0,
            file: None,
            file_bytes: 0,
            tail: Buffer::empty(),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.front_bytes + self.file_bytes + self.tail.len() as u64
    }

    /// Adds what comes next. After an error the body is of no use.
    pub(crate) async fn push(&mut self, piece: &[u8]) -> Result<(), NotHeld> {
        let length = self.len() + piece.len() as u64;
        if self.bounds.max.is_some_and(|max| length > max) {
            return Err(NotHeld::TooLong);
        }
        let mut rest = self.push_front(piece);
        while !rest.is_empty() {
            if self.tail.is_empty() {
                self.tail = Buffer::take(Room::Large);
            }
            let room = BUFFER_LARGE_BYTES - self.tail.len();
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.tail.extend(now);
            rest = later;
            if self.tail.len() == BUFFER_LARGE_BYTES {
                self.write_tail().await.map_err(NotHeld::NoRoom)?;
            }
        }
        Ok(())
    }

    /// Puts as much into memory as may be there. Returns the rest.
    fn push_front<'a>(&mut self, mut piece: &'a [u8]) -> &'a [u8] {
        while !piece.is_empty() && self.file.is_none() && self.tail.is_empty() {
            let allowed = (self.bounds.memory as u64).saturating_sub(self.front_bytes);
            let filled = match self.front.last() {
                Some(last) if last.len() < BUFFER_SMALL_BYTES => last.len(),
                _ => 0,
            };
            let room = BUFFER_SMALL_BYTES - filled;
            let count = room
                .min(piece.len())
                .min(usize::try_from(allowed).unwrap_or(usize::MAX));
            if count == 0 || !claim(&IN_MEMORY, count as u64, self.all.memory) {
                break;
            }
            if filled == 0 {
                self.front.push(Buffer::take(Room::Small));
            }
            let (now, later) = piece.split_at(count);
            if let Some(last) = self.front.last_mut() {
                last.extend(now);
            }
            self.front_bytes += count as u64;
            piece = later;
        }
        piece
    }

    async fn write_tail(&mut self) -> io::Result<()> {
        let mut tail = std::mem::replace(&mut self.tail, Buffer::empty());
        let count = tail.len() as u64;
        if !claim(&IN_FILES, count, self.all.files) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let job = DiskJob::Write {
            file: self.file.clone(),
            bytes: std::mem::take(tail.vec_mut()),
            at: self.file_bytes,
        };
        self.file_bytes += count;
        let outcome = self.disk.run(job).await?;
        self.file = Some(outcome.file);
        // The memory comes back to this core's pool.
        drop(Buffer::from(outcome.bytes));
        Ok(())
    }

    /// What stands at `at`, at least one byte of it; nothing at the end.
    pub(crate) async fn read(&self, at: u64) -> io::Result<Buffer> {
        if at < self.front_bytes {
            // Both below the length of the front, which is in memory.
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let piece = &self.front[at / BUFFER_SMALL_BYTES].bytes()[at % BUFFER_SMALL_BYTES..];
            return Ok(Buffer::with(piece));
        }
        let at = at - self.front_bytes;
        if at < self.file_bytes {
            let file = self.file.clone().ok_or(io::ErrorKind::NotFound)?;
            let count = (self.file_bytes - at).min(BUFFER_LARGE_BYTES as u64);
            let mut buffer = Buffer::take(Room::Large);
            buffer
                .vec_mut()
                .resize(usize::try_from(count).unwrap_or(BUFFER_LARGE_BYTES), 0);
            let job = DiskJob::Read {
                file,
                bytes: std::mem::take(buffer.vec_mut()),
                at,
            };
            return Ok(Buffer::from(self.disk.run(job).await?.bytes));
        }
        let at = usize::try_from(at - self.file_bytes).unwrap_or(usize::MAX);
        Ok(match self.tail.bytes().get(at..) {
            Some(piece) if !piece.is_empty() => Buffer::with(piece),
            _ => Buffer::empty(),
        })
    }
}

/// Counts `count` bytes in, unless that would be more than `max`.
fn claim(total: &AtomicU64, count: u64, max: u64) -> bool {
    let before = total.fetch_add(count, Ordering::Relaxed);
    let fits = before + count <= max;
    if !fits {
        total.fetch_sub(count, Ordering::Relaxed);
    }
    fits
}

impl Drop for Held {
    fn drop(&mut self) {
        IN_MEMORY.fetch_sub(self.front_bytes, Ordering::Relaxed);
        IN_FILES.fetch_sub(self.file_bytes, Ordering::Relaxed);
        if let Some(file) = self.file.take() {
            self.disk.close(file);
        }
    }
}
