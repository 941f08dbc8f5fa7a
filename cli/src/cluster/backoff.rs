//! How long to wait before a call is repeated. Pure: the caller brings the randomness.

use std::time::Duration;

/// The first wait is at most this: a leader is elected within a second or two.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer: a person looks on.
const LONGEST: Duration = Duration::from_secs(3);

/// Waits that double up to a bound; each is drawn between half of it and all of it, so that many callers do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) const fn new() -> Self {
        Self { next: FIRST }
    }

    /// The next wait; `random` decides within its bounds.
    pub(crate) fn next(&mut self, random: u8) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(LONGEST);
        let half = bound / 2;
        half + half * u32::from(random) / u32::from(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_are_never_short_for_all() {
        let (mut low, mut high) = (Backoff::new(), Backoff::new());
        let lows: Vec<u128> = (0..6).map(|_| low.next(0).as_millis()).collect();
        let highs: Vec<u128> = (0..6).map(|_| high.next(255).as_millis()).collect();
        assert_eq!(lows, [100, 200, 400, 800, 1500, 1500]);
        assert_eq!(highs, [200, 400, 800, 1600, 3000, 3000]);
    }
}
