//! A queue before a bucket: who came first is served first, and the first wakes when the rate changes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::bucket::{Bucket, NotYet};
use super::{SLICE_MAX, SLICE_MIN, SLICES_A_SECOND};

#[derive(Debug)]
pub(super) struct Lane {
    origin: Instant,
    bucket: Mutex<Bucket>,
    /// Held by the first of the queue; tokio's mutex is fair.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the first: nobody else waits for it, so that one permit is enough.
    changed: Notify,
    passed: AtomicU64,
}

impl Lane {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            origin: Instant::now(),
            bucket: Mutex::new(Bucket::new(rate)),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            passed: AtomicU64::new(0),
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub(super) fn set(&self, rate: Option<u64>) {
        let now = self.now();
        let mut bucket = self.bucket();
        if bucket.rate() != rate {
            bucket.set(rate, now);
            drop(bucket);
            self.changed.notify_one();
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.bucket().rate().is_none()
    }

    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Counts what passes without a limit.
    pub(super) fn count(&self, units: u64) {
        self.passed.fetch_add(units, Relaxed);
    }

    /// Bytes to take at once.
    pub(super) fn slice(&self) -> usize {
        let rate = self.bucket().rate();
        rate.map_or(SLICE_MAX, |rate| {
            usize::try_from(rate / SLICES_A_SECOND)
                .unwrap_or(SLICE_MAX)
                .clamp(SLICE_MIN, SLICE_MAX)
        })
    }

    /// Waits in turn for so many units. They were cut by the rate of before: where it is much lower now they are taken in smaller parts.
    pub(super) async fn take(&self, units: u64) {
        if self.is_open() {
            self.count(units);
            return;
        }
        let _turn = self.turn.lock().await;
        let mut left = units;
        while left > 0 {
            let part = left.min(self.slice() as u64);
            let taken = self.bucket().take(part, self.now());
            match taken {
                Ok(()) => {
                    self.count(part);
                    left -= part;
                }
                Err(NotYet::Stopped) => self.changed.notified().await,
                Err(NotYet::Until(at)) => tokio::select! {
                    () = tokio::time::sleep_until(self.origin + at) => {}
                    () = self.changed.notified() => {}
                },
            }
        }
    }
}
