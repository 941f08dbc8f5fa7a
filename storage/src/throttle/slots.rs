//! So many at a time, where the number may change while they are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Throttle;

#[derive(Debug)]
pub(super) struct Slots {
    state: Mutex<State>,
    /// Held by the first of the queue.
    turn: tokio::sync::Mutex<()>,
    /// Wakes the first.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    used: u32,
    max: Option<u32>,
}

impl State {
    fn take(&mut self) -> bool {
        let fits = self.max.is_none_or(|max| self.used < max);
        if fits {
            self.used += 1;
        }
        fits
    }
}

impl Slots {
    pub(super) fn new(max: Option<u32>) -> Self {
        Self {
            state: Mutex::new(State { used: 0, max }),
            turn: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, max: Option<u32>) {
        self.state().max = max;
        self.changed.notify_one();
    }

    async fn take(&self) {
        {
            let mut state = self.state();
            if state.max.is_none() && state.take() {
                return;
            }
        }
        let _turn = self.turn.lock().await;
        while !self.state().take() {
            self.changed.notified().await;
        }
    }
}

/// One of those at a time; given back when it is dropped. Those taken before the number was lowered stay until they end.
#[derive(Debug)]
pub(super) struct Slot(Arc<Throttle>);

impl Slot {
    pub(super) async fn take(throttle: &Arc<Throttle>) -> Self {
        throttle.slots.take().await;
        Self(Arc::clone(throttle))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.state().used -= 1;
        self.0.slots.changed.notify_one();
    }
}
