//! An attempt that runs, as the agent's loop sees it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::lease::LeaseClock;
use super::progress::{Activity, Stop};

/// An attempt that runs.
pub(super) struct Running {
    pub(super) clock: LeaseClock,
    /// Whether it must end when its lease is over by our clock.
    pub(super) needs_lease: bool,
    pub(super) activity: Arc<Activity>,
    pub(super) stop: Stop,
    pub(super) give_up: CancellationToken,
    /// Cancelled when its task has ended, however it did.
    pub(super) ended: CancellationToken,
}

impl Running {
    pub(super) fn new(clock: LeaseClock, needs_lease: bool) -> Self {
        Self {
            clock,
            needs_lease,
            activity: Arc::default(),
            stop: Stop::default(),
            give_up: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Whether the end of its lease is watched: it must not go on without one, and was not stopped yet.
    pub(super) fn is_bound(&self) -> bool {
        self.needs_lease && self.stop.cause().is_none() && !self.stop.is_deciding()
    }
}
