//! An operation owns its memory until its completion is taken, even if its task is gone.
//!
//! The kernel writes and reads memory behind the back of the language, from the moment an operation is submitted until
//! its completion is taken. So nothing is ever lent to it: a [`Buffer`] or a [`Gather`] moves into the operation and
//! comes out with the completion. If the task that waits is dropped, the driver keeps what moved in until the kernel is
//! done. This file says which memory of ours the kernel may use; never what for. Read next: `driver/monoio.rs`.

use std::cell::RefCell;
use std::mem;

use super::buffer::Buffer;

/// Most buffers that one vectored send takes along; the kernel takes 1024.
pub(super) const GATHERED_MAX: usize = 64;

/// Free lists of [`Gather`] that a core keeps.
const LISTS_FREE_MAX: usize = 256;

thread_local! {
    #[allow(clippy::vec_box, reason = "the kernel reads them where they are")]
    static LISTS: RefCell<Vec<Box<List>>> = const { RefCell::new(Vec::new()) };
}

/// What the kernel reads of a vectored send besides the bytes.
struct List {
    /// Points to the addresses.
    header: libc::msghdr,
    addresses: Vec<libc::iovec>,
}

impl List {
    fn new() -> Self {
        // SAFETY: a message header is numbers and pointers, for which all zeroes is nothing at all.
        let header = unsafe { mem::zeroed() };
        Self {
            header,
            addresses: Vec::new(),
        }
    }
}

/// Buffers on their way out in one operation, with the list of their addresses that the kernel reads.
pub(super) struct Gather {
    /// Never touched while the list is in use: their memory must stay where it is.
    buffers: Vec<Buffer>,
    /// `None` only while it is dropped.
    list: Option<Box<List>>,
}

impl Gather {
    /// Takes `buffers`. The first [`GATHERED_MAX`] of them go out with the operation.
    pub(super) fn new(buffers: Vec<Buffer>) -> Self {
        let mut list = LISTS
            .try_with(|lists| lists.borrow_mut().pop())
            .ok()
            .flatten()
            .unwrap_or_else(|| Box::new(List::new()));
        // A buffer's bytes are on the heap: they stay where they are when the `Vec` of buffers moves.
        list.addresses
            .extend(buffers.iter().take(GATHERED_MAX).map(|buffer| libc::iovec {
                iov_base: buffer.bytes().as_ptr().cast_mut().cast(),
                iov_len: buffer.len(),
            }));
        list.header.msg_iov = list.addresses.as_mut_ptr();
        list.header.msg_iovlen = list.addresses.len();
        Self {
            buffers,
            list: Some(list),
        }
    }

    /// The addresses, valid for as long as this lives.
    #[cfg(not(any(test, feature = "glommio")))]
    pub(super) fn addresses(&self) -> &[libc::iovec] {
        self.list.as_ref().map_or(&[], |list| &list.addresses)
    }

    /// The header of a message of these buffers, valid for as long as this lives.
    #[cfg(not(any(test, feature = "glommio")))]
    pub(super) fn header(&self) -> *const libc::msghdr {
        self.list
            .as_ref()
            .map_or(std::ptr::null(), |list| &raw const list.header)
    }

    /// The first of the buffers, for a driver that sends one after the other.
    #[cfg(all(not(test), feature = "glommio"))]
    pub(super) fn first(&self) -> &[u8] {
        self.buffers.first().map(Buffer::bytes).unwrap_or_default()
    }

    /// What would go out, copied.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.buffers
            .iter()
            .take(GATHERED_MAX)
            .flat_map(|buffer| buffer.bytes().iter().copied())
            .collect()
    }

    /// The buffers back, once the completion was taken.
    pub(super) fn into_buffers(mut self) -> Vec<Buffer> {
        mem::take(&mut self.buffers)
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        let Some(mut list) = self.list.take() else {
            return;
        };
        list.addresses.clear();
        // While the thread ends there is no pool any more.
        let _ = LISTS.try_with(|lists| {
            let mut lists = lists.borrow_mut();
            if lists.len() < LISTS_FREE_MAX {
                lists.push(list);
            }
        });
    }
}

#[cfg(not(any(test, feature = "glommio")))]
mod monoio_memory {
    use monoio::buf::{IoBuf, IoBufMut, IoVecBuf};

    use super::{Buffer, Gather};

    // SAFETY: the bytes of a `Buffer` are on the heap and stay there while the `Buffer` itself moves; it is owned by the
    // operation meanwhile, so nobody else changes them.
    unsafe impl IoBuf for Buffer {
        fn read_ptr(&self) -> *const u8 {
            self.bytes().as_ptr()
        }

        fn bytes_init(&self) -> usize {
            self.len()
        }
    }

    // SAFETY: as above for the spare room; `bytes_total` is its exact length.
    unsafe impl IoBufMut for Buffer {
        fn write_ptr(&mut self) -> *mut u8 {
            self.spare().as_mut_ptr().cast()
        }

        fn bytes_total(&mut self) -> usize {
            self.spare().len()
        }

        unsafe fn set_init(&mut self, count: usize) {
            // SAFETY: monoio calls this with the number of bytes the kernel wrote at `write_ptr`.
            unsafe { self.assume_received(count) };
        }
    }

    // SAFETY: the list of addresses is on the heap and not changed until the `Gather` comes back; each address is that
    // of a buffer the `Gather` owns.
    unsafe impl IoVecBuf for Gather {
        fn read_iovec_ptr(&self) -> *const libc::iovec {
            self.addresses().as_ptr()
        }

        fn read_iovec_len(&self) -> usize {
            self.addresses().len()
        }
    }
}
