//! What the transfers of one job pass.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::Mutex;

use super::slots::Slot;
use super::waited::Waited;
use super::{Direction, REQUEST, Rates, SLICE_MAX, Throttle};

/// The throttles of one job. Clones are the same job's.
#[derive(Clone, Default)]
pub struct Pace {
    /// The job's own first, then those that it shares: what has passed a shared one is sent at once.
    throttles: Arc<[Arc<Throttle>]>,
    /// Held by the one slice of the job, of each direction, and the one request, that waits with those of others.
    /// With it what the job has taken of each throttle and not used yet.
    turns: Arc<[Mutex<Vec<u64>>; 3]>,
    /// Of the request that it was taken for.
    waited: Option<Arc<Waited>>,
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace")
            .field("throttles", &self.throttles.len())
            .finish_non_exhaustive()
    }
}

/// A request under way, as far as its number at a time is limited.
#[must_use]
#[derive(Debug)]
pub struct Permit {
    _slots: Vec<Slot>,
}

impl Pace {
    /// Of a job: its own throttle, and those that it shares with others.
    pub fn new(own: Arc<Throttle>, shared: impl IntoIterator<Item = Arc<Throttle>>) -> Self {
        Self {
            throttles: std::iter::once(own).chain(shared).collect(),
            turns: Arc::default(),
            waited: None,
        }
    }

    /// For the request that this task works on: what is waited for does not count to its deadline, whichever task waits.
    pub(crate) fn of_request(&self) -> Self {
        Self {
            waited: Waited::current(),
            ..self.clone()
        }
    }

    /// Whether there are no throttles at all: nothing of it can ever be limited.
    pub(crate) fn is_none(&self) -> bool {
        self.throttles.is_empty()
    }

    /// Whether the job has limits of its own: then it must not hold what other jobs wait for.
    pub(crate) fn is_own(&self) -> bool {
        self.throttles.first().is_some_and(|own| own.rates() != Rates::NONE)
    }

    #[cfg(test)]
    pub(super) fn own_passed(&self) -> super::Passed {
        self.throttles.first().map(|own| own.passed()).unwrap_or_default()
    }

    /// Whether nothing limits a direction now.
    pub fn is_open(&self, direction: Direction) -> bool {
        self.throttles.iter().all(|throttle| throttle.lane(direction).is_open())
    }

    /// Bytes to take at once.
    pub fn slice(&self, direction: Direction) -> usize {
        let slices = self.throttles.iter().map(|throttle| throttle.lane(direction).slice());
        slices.min().unwrap_or(SLICE_MAX)
    }

    /// Takes a slice if nothing limits it: for who is on a thread where it cannot wait.
    pub fn try_take(&self, direction: Direction, bytes: usize) -> bool {
        let is_open = self.is_open(direction);
        if is_open {
            for throttle in self.throttles.iter() {
                throttle.lane(direction).count(bytes as u64);
            }
        }
        is_open
    }

    /// Waits in turn until so many bytes may pass, slice by slice.
    pub async fn take(&self, direction: Direction, bytes: usize) {
        let mut left = bytes;
        while left > 0 {
            let slice = left.min(self.slice(direction));
            if !self.try_take(direction, slice) {
                self.wait(direction, slice).await;
            }
            left -= slice;
        }
    }

    async fn wait(&self, direction: Direction, slice: usize) {
        let _waiting = self.waited.as_ref().map(Waited::begin);
        let mut left = self.turns[direction as usize].lock().await;
        left.resize(self.throttles.len(), 0);
        for (at, (throttle, left)) in self.throttles.iter().zip(left.iter_mut()).enumerate() {
            let (lane, wanted) = (throttle.lane(direction), slice as u64);
            if at == 0 || lane.is_open() {
                lane.take(wanted).await;
                continue;
            }
            // Of what is shared a whole slice each time it is this job's turn: one whose own limit makes its slices small gets as many bytes in a turn as
            // the others. Of another rate's slices no more is kept than one of the present one.
            let whole = lane.slice() as u64;
            *left = (*left).min(whole);
            if *left < wanted {
                let taken = whole.max(wanted - *left);
                lane.take(taken).await;
                *left += taken;
            }
            *left -= wanted;
        }
    }

    /// Waits until a request may begin; it has ended when the permit is dropped.
    pub async fn request(&self) -> Permit {
        let mut slots = Vec::with_capacity(self.throttles.len());
        for throttle in self.throttles.iter() {
            slots.push(Slot::take(throttle).await);
        }
        let is_open = self.throttles.iter().all(|throttle| throttle.requests.is_open());
        let _turn = match is_open {
            true => None,
            false => Some(self.turns[2].lock().await),
        };
        for throttle in self.throttles.iter() {
            throttle.requests.take(REQUEST).await;
        }
        Permit { _slots: slots }
    }

    /// The pieces in slices, each when it may pass.
    pub(crate) fn stream(self, pieces: Vec<Bytes>) -> impl Stream<Item = Bytes> + Send {
        let mut pieces = pieces;
        pieces.reverse();
        futures::stream::unfold((self, pieces), |(pace, mut pieces)| async move {
            let mut piece = pieces.pop()?;
            let slice = piece.len().min(pace.slice(Direction::Upload));
            let rest = piece.split_off(slice);
            if !rest.is_empty() {
                pieces.push(rest);
            }
            pace.take(Direction::Upload, piece.len()).await;
            Some((piece, (pace, pieces)))
        })
    }
}
