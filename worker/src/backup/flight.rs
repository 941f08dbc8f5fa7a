//! Which segments were started and have not passed yet.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
struct State {
    /// The number of the next segment that is started.
    next: u64,
    flying: BTreeSet<u64>,
}

/// The segments of a backup on their way from their start to the line where they are put in order. Numbers are given in the order of starts.
#[derive(Debug, Default)]
pub(super) struct Flight(Mutex<State>);

impl Flight {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic while held")
    }

    /// A segment is started: nothing of it was looked up before this.
    pub(super) fn start(&self) -> u64 {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.flying.insert(number);
        number
    }

    /// It has passed.
    pub(super) fn pass(&self, number: u64) {
        self.state().flying.remove(&number);
    }

    /// Every number below this was started.
    pub(super) fn started(&self) -> u64 {
        self.state().next
    }

    /// Every segment with a number below this has passed.
    pub(super) fn passed(&self) -> u64 {
        let state = self.state();
        state.flying.first().copied().unwrap_or(state.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_segment_keeps_all_that_were_started_after_it_from_counting_as_passed() {
        let flight = Flight::default();
        let (slow, fast, last) = (flight.start(), flight.start(), flight.start());
        assert_eq!(flight.passed(), slow);
        flight.pass(fast);
        flight.pass(last);
        assert_eq!(flight.passed(), slow, "two have passed, but not the first");
        flight.pass(slow);
        assert_eq!(flight.passed(), flight.started());
        let next = flight.start();
        assert_eq!(flight.passed(), next);
    }
}
