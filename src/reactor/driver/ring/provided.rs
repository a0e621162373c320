//! Buffers lent to the kernel, which fills one when something has come and not before.
//!
//! Owns a group of empty buffers and the ring of their addresses that the kernel takes them from. A buffer that was filled
//! is given out, and another one is lent in its place at once: so a group is always full, and who waits for a peer holds no
//! memory. Never touches a buffer that is lent. Read next: `operations.rs` (whose completions name the buffers).

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

use crate::reactor::buffer::{Buffer, Room};

const PAGE: usize = 4096;

pub(super) struct Provided {
    /// The addresses of the buffers: as many as there are buffers, a power of two.
    ring: NonNull<BufRingEntry>,
    layout: Layout,
    /// Indexed by the buffer's number. Each is empty, and its spare room is the kernel's.
    lent: Vec<Buffer>,
    room: Room,
    /// How many were ever lent, of which the kernel knows as many as it was told last.
    tail: u16,
    leaked: bool,
}

impl Provided {
    /// Lends `count` buffers, a power of two, as the group `group`.
    pub(super) fn new(ring: &IoUring, group: u16, room: Room, count: u16) -> io::Result<Self> {
        let layout = Layout::array::<BufRingEntry>(count.into())
            .and_then(|layout| layout.align_to(PAGE))
            .map_err(io::Error::other)?;
        // SAFETY: `count` is not zero, so neither is the size.
        let memory = unsafe { alloc::alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(memory.cast::<BufRingEntry>()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let mut provided = Self {
            ring: entries,
            layout,
            lent: Vec::with_capacity(count.into()),
            room,
            tail: 0,
            leaked: false,
        };
        let address = entries.as_ptr().expose_provenance() as u64;
        // SAFETY: the memory is aligned to a page, holds `count` entries, and lives as long as `provided`, which outlives
        // every operation that could use the group (`Ring`'s drop sees to that).
        unsafe { ring.submitter().register_buf_ring(address, count, group) }?;
        for number in 0..count {
            provided.lent.push(Buffer::take(room));
            provided.lend(number);
        }
        provided.publish();
        Ok(provided)
    }

    /// The buffer that the kernel took from the group and wrote `count` bytes to. Lends another one.
    ///
    /// # Safety
    /// A completion named buffer `number` of this group, with `count` as its result, and was taken just now.
    pub(super) unsafe fn take(&mut self, number: u16, count: usize) -> Buffer {
        let lent = self
            .lent
            .get_mut(usize::from(number))
            .expect("the kernel names buffers that it was lent");
        let mut buffer = std::mem::replace(lent, Buffer::take(self.room));
        // SAFETY: by this function's contract the kernel wrote as many.
        unsafe { buffer.assume_received(count) };
        self.lend(number);
        buffer
    }

    /// Puts the address of a buffer where the kernel will look after the next [`Provided::publish`].
    fn lend(&mut self, number: u16) {
        let spare = self
            .lent
            .get_mut(usize::from(number))
            .expect("a buffer of this group")
            .spare();
        let (address, length) = (spare.as_mut_ptr().expose_provenance() as u64, spare.len());
        let place = usize::from(self.tail) & (self.layout.size() / size_of::<BufRingEntry>() - 1);
        // SAFETY: the place is below the number of entries that the memory was made for.
        let entry = unsafe { self.ring.add(place) };
        // SAFETY: the entry is ours until the tail says that it is filled: the kernel has consumed what was there, since
        // there are never more entries than buffers. It was zeroed, so it is a valid entry.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(address);
        entry.set_len(u32::try_from(length).unwrap_or(u32::MAX));
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Tells the kernel of the buffers lent since. Must come before the next turn.
    pub(super) fn publish(&mut self) {
        // SAFETY: the pointer is that of the first entry, which was zeroed and is valid.
        let tail = unsafe { BufRingEntry::tail(self.ring.as_ptr()) };
        // SAFETY: the tail lies in the memory of the ring, is aligned for a u16, and is only ever written here, the
        // kernel reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Leaves everything to the kernel for ever.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
        std::mem::forget(std::mem::take(&mut self.lent));
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: allocated in `new` with this layout. No operation that uses the group is under way, or `Ring`'s drop
        // would have kept this from happening; the kernel has pinned the pages for itself.
        unsafe { alloc::dealloc(self.ring.as_ptr().cast(), self.layout) };
    }
}
