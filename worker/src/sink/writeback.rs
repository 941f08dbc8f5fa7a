//! Keeping dirty pages few.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Advice;

/// Written bytes between two kicks. Each walks through the pages of the file that are cached: at 32 MiB that took a twelfth of a restore.
const STEP: u64 = 128 << 20;

/// Starts writing to the disk while the restore goes on, and drops from the page cache what is written. So the sync at the end is short, and neither dirty
/// pages nor the restored disk push out what others have cached.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    written: AtomicU64,
}

impl Writeback {
    /// Counts bytes that were written; now and then starts the writing back. May block while the disk's queue is full, which is what slows writers down.
    pub(super) fn wrote(&self, file: &File, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / STEP != (before + bytes) / STEP {
            // Linux starts writing dirty pages of the range and drops clean ones. As advice it may be passed over.
            let _ = rustix::fs::fadvise(file, 0, None, Advice::DontNeed);
        }
    }
}
