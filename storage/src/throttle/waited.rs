//! How long a request waited for its throttles: time that is not the store's, and does not count to its deadline.
//!
//! The body of a request is sent by another task than the one that asked for it. So the counter travels: whoever bounds a request sets it for the task, and
//! a store that paces bodies takes it along.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: Arc<Waited>;
}

#[derive(Debug, Default)]
pub(crate) struct Waited(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    ended: Duration,
    /// How many wait now, and since when there is one.
    now: Option<(usize, Instant)>,
}

impl Waited {
    /// The one of the request that this task works on.
    pub(crate) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Counts the waits of a request.
    pub(crate) async fn scope<T>(self: Arc<Self>, request: impl Future<Output = T>) -> T {
        CURRENT.scope(self, request).await
    }

    /// How long somebody waited, up to now.
    pub(crate) fn total(&self) -> Duration {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waits.ended + waits.now.map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }

    /// Counts from now until the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Waiting {
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waits.now = match waits.now {
            None => Some((1, Instant::now())),
            Some((count, since)) => Some((count + 1, since)),
        };
        Waiting(Arc::clone(self))
    }
}

pub(super) struct Waiting(Arc<Waited>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut waits = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        match waits.now {
            Some((1, since)) => {
                waits.ended += since.elapsed();
                waits.now = None;
            }
            Some((count, since)) => waits.now = Some((count - 1, since)),
            None => {}
        }
    }
}
