//! How far a job is: numbers that its tasks raise and anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one job.
#[derive(Debug, Default)]
pub struct Progress {
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_read: AtomicU64,
    bytes_new: AtomicU64,
    bytes_stored: AtomicU64,
}

/// What [`Progress`] says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// Bytes of all disks, holes counted; 0 while not known.
    pub bytes_total: u64,
    /// Bytes dealt with, holes counted.
    pub bytes_done: u64,
    /// Bytes read (backup) or written (restore).
    pub bytes_read: u64,
    /// Plaintext of new chunks.
    pub bytes_new: u64,
    /// Bytes put to the store (backup) or fetched from it (restore).
    pub bytes_stored: u64,
}

impl Progress {
    /// Sets the sum.
    pub fn set_total(&self, bytes: u64) {
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// More is dealt with.
    pub fn add_done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was read or written.
    pub fn add_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was new.
    pub fn add_new(&self, bytes: u64) {
        self.bytes_new.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was put or fetched.
    pub fn add_stored(&self, bytes: u64) {
        self.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        ProgressSnapshot {
            bytes_total: get(&self.bytes_total),
            bytes_done: get(&self.bytes_done),
            bytes_read: get(&self.bytes_read),
            bytes_new: get(&self.bytes_new),
            bytes_stored: get(&self.bytes_stored),
        }
    }
}
