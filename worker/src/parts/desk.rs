//! Room for jobs and for ranges of other workers' jobs: together never more than permits, because each may take the memory of a job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Default)]
struct State {
    permits: u32,
    jobs: u32,
    /// Ranges being read, in the order in which they came.
    parts: BTreeMap<u64, CancellationToken>,
    next: u64,
    is_closed: bool,
}

/// Who works here. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desk {
    state: Arc<Mutex<State>>,
    left: Arc<Notify>,
}

/// A place for one range; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    desk: Desk,
    number: u64,
    /// Cancelled when the place is needed for a job, or the worker stops.
    pub(crate) cancel: CancellationToken,
}

impl Desk {
    /// Room for so many.
    pub(crate) fn new(permits: u32) -> Self {
        let desk = Self::default();
        desk.state().permits = permits;
        desk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a range; none when all are taken.
    pub(crate) fn take(&self) -> Option<Seat> {
        let mut state = self.state();
        let taken = state.jobs as usize + state.parts.len();
        if state.is_closed || taken >= state.permits as usize {
            return None;
        }
        let number = state.next;
        state.next += 1;
        let cancel = CancellationToken::new();
        state.parts.insert(number, cancel.clone());
        Some(Seat {
            desk: self.clone(),
            number,
            cancel,
        })
    }

    /// So many jobs run now. They come first: a lease was promised a place, and a range is read by who ordered it. So the youngest ranges give way.
    pub(crate) fn set_jobs(&self, jobs: u32) {
        let mut state = self.state();
        state.jobs = jobs;
        let over = (state.jobs as usize + state.parts.len()).saturating_sub(state.permits as usize);
        for cancel in state.parts.values().rev().take(over) {
            cancel.cancel();
        }
    }

    /// Ranges being read.
    pub(crate) fn parts(&self) -> u32 {
        u32::try_from(self.state().parts.len()).unwrap_or(u32::MAX)
    }

    /// Waits until a range has left its place.
    pub(crate) async fn left(&self) {
        self.left.notified().await;
    }

    /// No range begins from now on, and those that are read end.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        for cancel in state.parts.values() {
            cancel.cancel();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.desk.state().parts.remove(&self.number);
        self.desk.left.notify_one();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn ranges_take_what_jobs_leave_and_give_way_to_jobs() {
        let desk = Desk::new(3);
        desk.set_jobs(1);
        let (first, second) = (desk.take().unwrap(), desk.take().unwrap());
        assert!(desk.take().is_none(), "three work here");
        desk.set_jobs(2);
        assert!(second.cancel.is_cancelled() && !first.cancel.is_cancelled());
        drop(second);
        assert!(desk.take().is_none(), "its place is a job's now");
        desk.set_jobs(1);
        assert!(desk.take().is_some());
        assert_eq!(desk.parts(), 1);
    }

    #[test]
    fn a_worker_that_stops_reads_no_ranges() {
        let desk = Desk::new(1);
        let seat = desk.take().unwrap();
        desk.close();
        assert!(seat.cancel.is_cancelled());
        drop(seat);
        assert!(desk.take().is_none());
    }
}
