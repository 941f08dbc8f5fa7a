//! A token bucket as a pure value: whoever asks says what time it is.

use std::time::Duration;

/// What is saved up while nobody takes: a hundredth of the ten seconds over which use is counted. Enough for a timer that fires late on a busy machine.
pub const BURST: Duration = Duration::from_millis(100);

/// So many units a second. Time is counted from any origin, the same for all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// None: as many as anybody wants. 0: none at all.
    rate: Option<u64>,
    /// When what was taken so far is paid.
    paid_at: Duration,
}

/// Why nothing can be taken yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotYet {
    /// At this time it can, if the rate stays as it is.
    Until(Duration),
    /// Not before the rate is another.
    Stopped,
}

impl Bucket {
    /// Nothing was taken from it.
    pub fn new(rate: Option<u64>) -> Self {
        Self {
            rate,
            paid_at: Duration::ZERO,
        }
    }

    /// Units a second; none: unlimited.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Changes the rate. What was taken and is not paid yet is paid at the new one, but for what that takes longer than [`BURST`]: it passed while more was
    /// allowed, and would stop all that comes after a far lower limit. Nothing is saved up by the change.
    pub fn set(&mut self, rate: Option<u64>, now: Duration) {
        let debt = self.paid_at.saturating_sub(now).as_nanos();
        let debt = match (self.rate, rate) {
            (Some(before), Some(after)) if after > 0 => {
                (debt.saturating_mul(u128::from(before)) / u128::from(after)).min(BURST.as_nanos())
            }
            // A stopped one keeps no debt: whoever opens it wants it to go on.
            _ => 0,
        };
        self.rate = rate;
        self.paid_at = now.saturating_add(nanos(debt));
    }

    /// Takes so many units, however many: who comes next waits until they are paid.
    ///
    /// # Errors
    /// [`NotYet`], while what was taken before is not paid.
    pub fn take(&mut self, units: u64, now: Duration) -> Result<(), NotYet> {
        let rate = match self.rate {
            None => return Ok(()),
            Some(0) => return Err(NotYet::Stopped),
            Some(rate) => rate,
        };
        if self.paid_at > now {
            return Err(NotYet::Until(self.paid_at));
        }
        let cost = (u128::from(units) * 1_000_000_000).div_ceil(u128::from(rate));
        self.paid_at = self.paid_at.max(now.saturating_sub(BURST)).saturating_add(nanos(cost));
        Ok(())
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Takes slices as soon as they can be had from `from` to `to`; how much that was.
    fn drain(bucket: &mut Bucket, slice: u64, from: Duration, to: Duration) -> u64 {
        let (mut now, mut sum) = (from, 0);
        while now < to {
            match bucket.take(slice, now) {
                Ok(()) => sum += slice,
                Err(NotYet::Until(at)) => now = at,
                Err(NotYet::Stopped) => break,
            }
        }
        sum
    }

    proptest! {
        #[test]
        fn any_ten_seconds_have_what_the_rate_allows(rate in 100_000_u64..10_000_000_000, idle in 0_u64..100, slices in 20_u64..2000) {
            let mut bucket = Bucket::new(Some(rate));
            let slice = (rate / slices).max(1);
            let from = SECOND * u32::try_from(idle).unwrap();
            let sum = drain(&mut bucket, slice, from, from + SECOND * 10) as f64;
            let allowed = rate as f64 * 10.0;
            prop_assert!(sum >= allowed * 0.99, "{sum} of {allowed}");
            prop_assert!(sum <= allowed * 1.02, "{sum} of {allowed}");
        }
    }

    #[test]
    fn without_a_rate_nothing_waits_and_with_none_left_everything_does() {
        let mut bucket = Bucket::new(None);
        assert_eq!(bucket.take(u64::MAX, SECOND), Ok(()));
        bucket.set(Some(0), SECOND);
        assert_eq!(bucket.take(1, SECOND * 1000), Err(NotYet::Stopped));
        bucket.set(Some(10), SECOND * 1000);
        assert_eq!(bucket.take(1, SECOND * 1000), Ok(()));
    }

    #[test]
    fn a_debt_is_paid_at_the_new_rate_and_for_no_longer_than_is_saved_up() {
        let mut bucket = Bucket::new(Some(10));
        bucket.take(100, SECOND).unwrap();
        assert_eq!(bucket.take(1, SECOND * 2), Err(NotYet::Until(SECOND * 11 - BURST)));
        bucket.set(Some(1000), SECOND);
        assert_eq!(bucket.take(1, SECOND * 2), Ok(()));
        let mut bucket = Bucket::new(Some(1000));
        bucket.take(1000, SECOND).unwrap();
        bucket.set(Some(10), SECOND);
        assert_eq!(bucket.take(1, SECOND), Err(NotYet::Until(SECOND + BURST)));
        assert_eq!(bucket.take(1, SECOND + BURST), Ok(()));
    }

    #[test]
    fn little_is_saved_up() {
        let mut bucket = Bucket::new(Some(1000));
        let sum = drain(&mut bucket, 1, SECOND * 1000, SECOND * 1000 + Duration::from_nanos(1));
        assert_eq!(sum, 101, "a tenth of a second, and what begins the next");
    }
}
