//! Asking a coordinator again: how long to wait, and what is known when it ends.
//!
//! What only asks is repeated a bounded number of times. The report of an attempt is repeated until it is answered or nobody waits for it any more,
//! because it is the same change however often it arrives.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tresor_storage::ids::random_bytes;

use super::port::CallError;

/// How long and how often to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Tries in all.
    tries: u32,
    /// Upper bound of the first wait; it doubles with every try.
    first: Duration,
    /// Upper bound of any wait.
    longest: Duration,
}

impl Patience {
    /// For what a job asks while it works: some three minutes, longer than a coordinator takes to restart. The first wait is that of an election.
    pub(crate) const WORKING: Self = Self {
        tries: 10,
        first: Duration::from_millis(500),
        longest: Duration::from_secs(30),
    };
    /// For what must be heard. A cluster that comes back hears of every worker within half a minute.
    pub(crate) const ENDLESS: Self = Self {
        tries: u32::MAX,
        ..Self::WORKING
    };
}

/// Waits that double up to a bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    patience: Patience,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// The wait after one more failure, drawn between a half of its bound and all of it: nobody comes back at once, and not all together.
    pub(crate) fn next(&mut self, random: u64) -> Duration {
        let Patience { first, longest, .. } = self.patience;
        let doubled = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let half = first.saturating_mul(doubled).min(longest) / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        // The upper 64 bits of the product are below `nanos`, and spread as evenly as `random` is.
        let drawn = (u128::from(random) * u128::from(nanos)) >> 64;
        half + Duration::from_nanos(u64::try_from(drawn).unwrap_or(nanos))
    }

    /// It worked.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

pub(crate) fn random() -> u64 {
    u64::from_le_bytes(random_bytes())
}

/// How a repeated call ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer<T> {
    /// The last answer.
    pub(crate) result: Result<T, CallError>,
    /// An earlier try was not answered: it may have been heard all the same.
    pub(crate) was_unclear: bool,
}

/// Asks until there is an answer, the tries are used up, or `give_up`.
pub(crate) async fn repeat<T, F>(
    what: &'static str,
    patience: Patience,
    give_up: &CancellationToken,
    call: impl Fn() -> F,
) -> Answer<T>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut backoff = Backoff::new(patience);
    let mut unclear = None;
    let mut tried = 0;
    loop {
        tried += 1;
        let result = tokio::select! {
            result = call() => result,
            () = give_up.cancelled() => {
                // The call that was dropped may have been heard.
                let why = unclear.unwrap_or_else(|| String::from("nobody waits for the answer any more"));
                return Answer { result: Err(CallError::Unanswered { why }), was_unclear: true };
            }
        };
        match result {
            Err(CallError::Unanswered { why }) if tried < patience.tries => {
                let wait = backoff.next(random());
                tracing::debug!(
                    what,
                    why,
                    wait_ms = wait.as_millis(),
                    "coordinator did not answer, asked again later"
                );
                unclear = Some(why);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    // The next try is dropped at once, and says why.
                    () = give_up.cancelled() => {}
                }
            }
            result => {
                return Answer {
                    result,
                    was_unclear: unclear.is_some(),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tresor_storage::Kind;

    fn unanswered() -> CallError {
        CallError::Unanswered {
            why: String::from("away"),
        }
    }

    const QUICK: Patience = Patience {
        tries: 10,
        first: Duration::from_millis(2),
        longest: Duration::from_millis(4),
    };

    #[test]
    fn waits_double_up_to_a_bound_and_are_spread() {
        let [mut low, mut high] = [Backoff::new(Patience::ENDLESS); 2];
        let lows: Vec<u128> = (0..9).map(|_| low.next(0).as_millis()).collect();
        let highs: Vec<u128> = (0..9).map(|_| high.next(u64::MAX).as_millis()).collect();
        assert_eq!(lows, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
        assert_eq!(highs, [499, 999, 1999, 3999, 7999, 15999, 29999, 29999, 29999]);
        low.reset();
        assert_eq!(low.next(0).as_millis(), 250);
        let mut worn = Backoff {
            failures: u32::MAX,
            ..low
        };
        assert_eq!(worn.next(0), Duration::from_secs(15));
    }

    #[tokio::test]
    async fn what_was_not_answered_is_asked_again_and_that_is_known_afterwards() {
        let asked = AtomicU32::new(0);
        let answer = repeat("test", QUICK, &CancellationToken::new(), || async {
            match asked.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(unanswered()),
                count => Ok(count),
            }
        })
        .await;
        let known = Answer {
            result: Ok(3),
            was_unclear: true,
        };
        assert_eq!(answer, known);
    }

    #[tokio::test]
    async fn tries_end_and_a_refusal_is_not_repeated() {
        let asked = AtomicU32::new(0);
        let answer = repeat("test", QUICK, &CancellationToken::new(), || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(unanswered())
        })
        .await;
        assert_eq!((answer.result, asked.load(Ordering::Relaxed)), (Err(unanswered()), 10));

        let refused = CallError::Refused {
            kind: Kind::Fenced,
            why: String::from("over"),
            hint: String::new(),
        };
        let answer = repeat("test", QUICK, &CancellationToken::new(), || async {
            asked.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(refused.clone())
        })
        .await;
        assert_eq!(asked.load(Ordering::Relaxed), 11);
        assert!(!answer.was_unclear, "the only try was answered");
    }

    #[tokio::test]
    async fn who_gives_up_does_not_know_what_became_of_it() {
        let give_up = CancellationToken::new();
        let endless = Patience {
            tries: u32::MAX,
            ..QUICK
        };
        let asked = AtomicU32::new(0);
        let answer = repeat("test", endless, &give_up, || async {
            if asked.fetch_add(1, Ordering::Relaxed) == 20 {
                give_up.cancel();
            }
            Err::<(), _>(unanswered())
        })
        .await;
        assert!(answer.was_unclear);
        assert!(matches!(answer.result, Err(CallError::Unanswered { .. })));
    }
}
