//! The last answers that told of an error, for `/health`.
//!
//! Written by all cores, and only where `[api.statistics]` asks for it; the oldest gives way. Never locks.

use std::time::SystemTime;

use crossbeam::queue::ArrayQueue;

/// An answer with a status of 400 or more.
#[derive(Clone, Debug)]
pub struct RecentError {
    pub status: u16,
    pub method: String,
    /// As the client sent it.
    pub host: String,
    /// Without the query.
    pub path: String,
    pub at: SystemTime,
}

/// The last of them that nobody has taken.
#[derive(Debug)]
pub struct Recent(ArrayQueue<RecentError>);

impl Recent {
    /// `capacity` is at least 1.
    pub fn new(capacity: usize) -> Self {
        Self(ArrayQueue::new(capacity))
    }

    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub fn note(&self, error: RecentError) {
        self.0.force_push(error);
    }

    /// Takes the oldest.
    pub fn take(&self) -> Option<RecentError> {
        self.0.pop()
    }
}
