//! Limits of what is used: bytes and requests a second, and requests at a time, changed while work goes on.
//!
//! A [`Throttle`] is one limit, shared by all that it binds; a [`Pace`] is what the transfers of one job pass: the job's own throttle and those it shares.
//! What is transferred is cut into slices, a fortieth of a second each or less, and each slice is taken before it is sent (of what is received: before
//! more is). So use stays by the limit in any ten seconds, whatever the size of objects, and a change counts from the next slice on.
//!
//! Slices of one job wait in a queue of their own, and only its first waits with those of other jobs: a limit is shared by jobs, not by requests.

mod bucket;
mod lane;
mod pace;
mod slots;
mod waited;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use std::sync::{Mutex, PoisonError};

pub use bucket::{BURST, Bucket, NotYet};
pub use pace::{Pace, Permit};
pub(crate) use waited::Waited;

use lane::Lane;
use slots::Slots;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into a store, or from a disk.
    Upload,
    /// From a store, or onto a disk.
    Download,
}

/// What a throttle lets through. Absent: as much as anybody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rates {
    /// Bytes a second, up; 0 stops.
    pub upload: Option<u64>,
    /// Bytes a second, down; 0 stops.
    pub download: Option<u64>,
    /// Thousandths of requests a second; 0 stops. Thousandths, because a limit is divided among workers.
    pub requests: Option<u64>,
    /// Requests at a time; 0 stops.
    pub concurrency: Option<u32>,
}

impl Rates {
    /// Nothing is limited.
    pub const NONE: Self = Self {
        upload: None,
        download: None,
        requests: None,
        concurrency: None,
    };

    /// The lower of both, one by one.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        fn lower<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        }
        Self {
            upload: lower(self.upload, other.upload),
            download: lower(self.download, other.download),
            requests: lower(self.requests, other.requests),
            concurrency: lower(self.concurrency, other.concurrency),
        }
    }
}

/// What passed a throttle so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Bytes up.
    pub upload: u64,
    /// Bytes down.
    pub download: u64,
    /// Requests.
    pub requests: u64,
}

/// One limit: of a store, a worker, a host or a job.
#[derive(Debug)]
pub struct Throttle {
    rates: Mutex<Rates>,
    upload: Lane,
    download: Lane,
    requests: Lane,
    slots: Slots,
}

impl Throttle {
    /// With these rates.
    pub fn new(rates: Rates) -> Self {
        Self {
            rates: Mutex::new(rates),
            upload: Lane::new(rates.upload),
            download: Lane::new(rates.download),
            requests: Lane::new(rates.requests),
            slots: Slots::new(rates.concurrency),
        }
    }

    /// Limits from now on. Whoever waits is woken, and waits on only if the new rates say so.
    pub fn set(&self, rates: Rates) {
        let mut before = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == rates {
            return;
        }
        *before = rates;
        self.upload.set(rates.upload);
        self.download.set(rates.download);
        self.requests.set(rates.requests);
        self.slots.set(rates.concurrency);
    }

    /// What it lets through now.
    pub fn rates(&self) -> Rates {
        *self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What passed so far.
    pub fn passed(&self) -> Passed {
        Passed {
            upload: self.upload.passed(),
            download: self.download.passed(),
            requests: self.requests.passed() / REQUEST,
        }
    }

    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::Upload => &self.upload,
            Direction::Download => &self.download,
        }
    }
}

impl Default for Throttle {
    /// Limits nothing.
    fn default() -> Self {
        Self::new(Rates::NONE)
    }
}

/// Units of a request.
const REQUEST: u64 = 1000;
/// Largest slice: a fast limit loses nothing by it, and a change is seen soon.
const SLICE_MAX: usize = 256 << 10;
/// Smallest slice.
const SLICE_MIN: usize = 4 << 10;
/// Slices a second at the least, while they are larger than the smallest.
const SLICES_A_SECOND: u64 = 40;
