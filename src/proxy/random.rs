//! Random bytes that nobody can foresee, for one core.
//!
//! Owns a pool of bytes from the kernel's generator, fetched many at a time: a number costs a copy, and one system call
//! serves 256 of them. Never gives a byte out twice.

use std::cell::RefCell;

const POOL_BYTES: usize = 4096;

#[derive(Default)]
pub(crate) struct Random(RefCell<Pool>);

#[derive(Default)]
struct Pool {
    /// Empty until the first use: most cores are never asked.
    bytes: Vec<u8>,
}

impl Random {
    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        const { assert!(N <= POOL_BYTES, "one filling of the pool is enough") };
        let pool = &mut self.0.borrow_mut().bytes;
        if pool.len() < N {
            pool.resize(POOL_BYTES, 0);
            getrandom::fill(pool)
                .expect("every kernel that has io_uring or epoll here has getrandom");
        }
        let (rest, taken) = pool.split_last_chunk().expect("filled above");
        let taken = *taken;
        let left = rest.len();
        pool.truncate(left);
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let random = Random::default();
        let numbers: HashSet<[u8; 16]> = (0..1000).map(|_| random.bytes()).collect();
        assert_eq!(numbers.len(), 1000);
    }
}
