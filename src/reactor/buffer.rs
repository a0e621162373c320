//! The memory that bytes travel in, and the pool it comes back to.
//!
//! Owns [`Buffer`] and one pool per thread with two classes of size. A buffer returns to the pool of the thread that
//! drops it. Never shared between threads while in use, never locked, no atomics; never cleared of old bytes, since
//! only bytes that were written since [`Buffer::take`] can be read. Read next: `operation.rs` (how the kernel borrows it).

use std::cell::RefCell;
use std::fmt;
use std::mem;

use crate::limits::{BUFFER_LARGE_BYTES, BUFFER_SMALL_BYTES, BUFFERS_FREE_MAX};

/// How much room a new buffer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// [`BUFFER_SMALL_BYTES`]: a head, or a body not yet known to be long.
    Small,
    /// [`BUFFER_LARGE_BYTES`]: a long body.
    Large,
}

/// Bytes in memory of their own, which goes back to the pool on drop.
pub struct Buffer {
    memory: Vec<u8>,
    /// Bytes already taken from the front; at most `memory.len()`.
    taken: usize,
}

/// What a core keeps for reuse. Each list is at most [`BUFFERS_FREE_MAX`] long.
struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { small: Vec::new(), large: Vec::new() }) };
}

impl Buffer {
    /// An empty buffer with the room asked for, from the pool if it has one.
    pub fn take(room: Room) -> Self {
        // The pool is gone only while the thread ends.
        let free = POOL.try_with(|pool| match room {
            Room::Small => pool.borrow_mut().small.pop(),
            Room::Large => pool.borrow_mut().large.pop(),
        });
        let memory = match free {
            Ok(Some(memory)) => memory,
            Ok(None) | Err(_) => Vec::with_capacity(match room {
                Room::Small => BUFFER_SMALL_BYTES,
                Room::Large => BUFFER_LARGE_BYTES,
            }),
        };
        Self { memory, taken: 0 }
    }

    /// Frees what this core keeps beyond `keep` buffers of each size.
    pub fn trim_pool(keep: usize) {
        // The pool is gone only while the thread ends.
        let _ = POOL.try_with(|pool| {
            let Pool { small, large } = &mut *pool.borrow_mut();
            for list in [small, large] {
                list.truncate(keep);
                list.shrink_to_fit();
            }
        });
    }

    /// A buffer with no memory at all: the end of a stream.
    pub const fn empty() -> Self {
        Self {
            memory: Vec::new(),
            taken: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        // `taken` is at most the length, which the compiler cannot know; `get` avoids a panic path on the warm path.
        self.memory.get(self.taken..).unwrap_or_default()
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.taken..).unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.memory.len() - self.taken
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops `count` bytes from the front.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, count: usize) {
        assert!(
            count <= self.len(),
            "more bytes were consumed than the buffer holds"
        );
        self.taken += count;
    }

    /// Keeps at most `count` bytes.
    pub fn truncate(&mut self, count: usize) {
        self.memory.truncate(self.taken.saturating_add(count));
    }

    pub fn clear(&mut self) {
        self.memory.clear();
        self.taken = 0;
    }

    /// Appends. The memory grows beyond its class if it must, and is then not pooled: who calls this bounds the growth.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.taken == self.memory.len() {
            self.clear();
        }
        self.memory.extend_from_slice(bytes);
    }

    /// The memory, for an encoder that appends to a `Vec`.
    ///
    /// # Panics
    /// If bytes were taken from the front: the `Vec` would show them again.
    pub fn vec_mut(&mut self) -> &mut Vec<u8> {
        assert!(
            self.taken == 0,
            "a buffer that was partly consumed is not written to"
        );
        &mut self.memory
    }

    /// Takes the first `count` bytes away as a buffer of their own. Copies the shorter part.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_front(&mut self, count: usize) -> Self {
        let mut back = self.split_back(count);
        mem::swap(self, &mut back);
        back
    }

    /// Keeps the first `count` bytes and takes the rest away as a buffer of its own. Copies the shorter part.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_back(&mut self, count: usize) -> Self {
        assert!(count <= self.len(), "a buffer is split where it has bytes");
        if count == self.len() {
            return Self::empty();
        }
        if count == 0 {
            return mem::replace(self, Self::empty());
        }
        let (front, back) = self.bytes().split_at(count);
        if front.len() < back.len() {
            let copy = Self::with(front);
            self.taken += count;
            mem::replace(self, copy)
        } else {
            let copy = Self::with(back);
            self.truncate(count);
            copy
        }
    }

    /// A buffer holding a copy of `bytes`.
    pub fn with(bytes: &[u8]) -> Self {
        let mut buffer = if bytes.len() <= BUFFER_SMALL_BYTES {
            Self::take(Room::Small)
        } else if bytes.len() <= BUFFER_LARGE_BYTES {
            Self::take(Room::Large)
        } else {
            Self {
                memory: Vec::with_capacity(bytes.len()),
                taken: 0,
            }
        };
        buffer.memory.extend_from_slice(bytes);
        buffer
    }

    /// Room behind the last byte, for the kernel to write into.
    #[cfg(any(test, not(feature = "glommio")))]
    pub(super) fn spare(&mut self) -> &mut [mem::MaybeUninit<u8>] {
        self.memory.spare_capacity_mut()
    }

    /// Counts `count` bytes of [`Buffer::spare`] as written.
    ///
    /// # Safety
    /// The first `count` bytes of the spare room have been written.
    #[cfg(not(any(test, feature = "glommio")))]
    pub(super) unsafe fn assume_received(&mut self, count: usize) {
        let len = self.memory.len() + count;
        assert!(
            len <= self.memory.capacity(),
            "the kernel wrote behind the buffer"
        );
        // SAFETY: within the capacity, just checked; written, by this function's contract.
        unsafe { self.memory.set_len(len) };
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(memory: Vec<u8>) -> Self {
        Self { memory, taken: 0 }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let capacity = self.memory.capacity();
        if capacity == 0 {
            return;
        }
        let mut memory = mem::take(&mut self.memory);
        memory.clear();
        // While the thread ends there is no pool any more: the memory is freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            let list = match capacity {
                BUFFER_SMALL_BYTES => &mut pool.small,
                BUFFER_LARGE_BYTES => &mut pool.large,
                _ => return,
            };
            if list.len() < BUFFERS_FREE_MAX {
                list.push(memory);
            }
        });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Buffer({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free() -> (usize, usize) {
        POOL.with(|pool| (pool.borrow().small.len(), pool.borrow().large.len()))
    }

    #[test]
    fn memory_returns_to_the_pool_of_its_class() {
        let (small, large) = (Buffer::take(Room::Small), Buffer::take(Room::Large));
        assert_eq!(free(), (0, 0));
        drop(small);
        drop(large);
        assert_eq!(free(), (1, 1));
        let again = Buffer::take(Room::Small);
        assert_eq!(free(), (0, 1));
        drop(again);

        let mut grown = Buffer::take(Room::Small);
        grown.extend(&[7; BUFFER_SMALL_BYTES + 1]);
        drop(grown);
        assert_eq!(free(), (0, 1), "memory that outgrew its class is freed");
    }

    #[test]
    fn the_pool_is_bounded() {
        drop(
            (0..=BUFFERS_FREE_MAX)
                .map(|_| Buffer::take(Room::Small))
                .collect::<Vec<_>>(),
        );
        assert_eq!(free(), (BUFFERS_FREE_MAX, 0));
    }

    #[test]
    fn old_bytes_are_not_seen_again() {
        let mut buffer = Buffer::take(Room::Small);
        buffer.extend(b"secret");
        buffer.advance(2);
        drop(buffer);
        assert_eq!(Buffer::take(Room::Small).bytes(), b"");
    }

    /// Splits `bytes` behind `skip`, at `at`, both ways.
    fn check(bytes: &[u8], skip: usize, at: usize) {
        let rest = bytes.get(skip..).expect("a test's numbers are right");
        let (front, back) = rest.split_at(at);
        let mut buffer = Buffer::with(bytes);
        buffer.advance(skip);
        let tail = buffer.split_back(at);
        assert_eq!((buffer.bytes(), tail.bytes()), (front, back));

        let mut buffer = Buffer::with(bytes);
        buffer.advance(skip);
        let head = buffer.split_front(at);
        assert_eq!((head.bytes(), buffer.bytes()), (front, back));
        assert_eq!(buffer.len(), back.len());
    }

    #[test]
    fn split_keeps_every_byte() {
        for skip in 0..=3 {
            for at in 0..=7 {
                check(b"0123456789", skip, at);
            }
        }
        check(&[5; BUFFER_LARGE_BYTES * 2], 9, BUFFER_LARGE_BYTES);
    }

    #[test]
    fn extend_after_everything_was_taken_starts_over() {
        let mut buffer = Buffer::with(b"abc");
        buffer.advance(3);
        buffer.extend(b"de");
        assert_eq!(buffer.bytes(), b"de");
        buffer.truncate(1);
        assert_eq!(buffer.bytes(), b"d");
        assert_eq!(buffer.vec_mut(), b"d");
    }
}
