//! Whether a failed attempt is tried again, when, and whether elsewhere.
//!
//! The kind of the failure decides, never its text. Delays double up to a cap; each is drawn from the upper half of its span, as a function of the job and the
//! attempt, so that what failed together does not come back together ("equal jitter": M. Brooker, Exponential Backoff And Jitter, 2015) and a new leader
//! waits as long as the old one would have.

use std::time::Duration;

use jiff::Timestamp;

use super::draw;
use crate::state::command::FailureKind;

impl FailureKind {
    /// How it is tried again; `None`: not at all.
    fn rule(self) -> Option<Rule> {
        let rule = |attempts_max, first_s, cap_s, elsewhere_after| Rule {
            attempts_max,
            first: Duration::from_secs(first_s),
            cap: Duration::from_secs(cap_s),
            elsewhere_after,
        };
        match self {
            // Half an hour to an hour in all: longer than most outages of a store. A second failure may be the worker's own.
            Self::Retry => Some(rule(8, 30, 30 * 60, 2)),
            // The worker's machine may be down for long; five workers lost by one job are the job's doing.
            Self::Lost => Some(rule(5, 5, 5 * 60, 1)),
            // A machine moved to another host, an object not listed yet, a mount that is not there.
            Self::Missing => Some(rule(3, 60, 10 * 60, 1)),
            // Credentials, keys and paths are each worker's own.
            Self::Denied => Some(rule(3, 60, 10 * 60, 1)),
            // The damage is on record by now: the next attempt reads and stores around it. Elsewhere, since memory can be what is bad.
            Self::Corrupt => Some(rule(2, 30, 30, 1)),
            // In the midst of an upgrade, another worker is of the newer version.
            Self::Unsupported => Some(rule(3, 60, 10 * 60, 1)),
            // Whoever holds it finishes, or their lease runs out (30 s).
            Self::Fenced => Some(rule(6, 30, 10 * 60, u32::MAX)),
            // Space is made by people and by sweeps, both slow; a worker's own disk may be the full one.
            Self::Full => Some(rule(4, 10 * 60, 60 * 60, 1)),
            // Once: what an assertion found may have been one worker's state.
            Self::Bug => Some(rule(2, 60, 60, 1)),
            Self::Invalid | Self::Cancelled => None,
        }
    }
}

struct Rule {
    /// Attempts in all, the first included.
    attempts_max: u32,
    /// The span after the first attempt.
    first: Duration,
    /// The longest span.
    cap: Duration,
    /// From this failure on another worker is preferred.
    elsewhere_after: u32,
}

/// The next attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Not before this.
    pub at: Timestamp,
    /// Whether on another worker than the last one, if any other can.
    pub elsewhere: bool,
}

/// When a job is tried again, after `attempts` attempts (the failed one included) of which the last failed at `failed_at`. `None`: it has failed for good.
///
/// `seed` is the job's id. Attempts count whatever their kinds were, so that a job that fails in many ways ends too.
pub fn retry_at(attempts: u32, failed_at: Timestamp, kind: FailureKind, seed: &[u8]) -> Option<Retry> {
    let rule = kind.rule()?;
    if attempts >= rule.attempts_max {
        return None;
    }
    let doublings = attempts.saturating_sub(1).min(31);
    let span = rule.first.saturating_mul(1 << doublings).min(rule.cap);
    let half = span / 2;
    let delay = half + draw::span("tresor backoff", i128::from(attempts), seed, half);
    Some(Retry {
        at: failed_at.saturating_add(delay).unwrap_or(failed_at),
        elsewhere: attempts >= rule.elsewhere_after,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const ALL_KINDS: [FailureKind; 11] = [
        FailureKind::Retry,
        FailureKind::Invalid,
        FailureKind::Missing,
        FailureKind::Corrupt,
        FailureKind::Unsupported,
        FailureKind::Fenced,
        FailureKind::Full,
        FailureKind::Denied,
        FailureKind::Bug,
        FailureKind::Lost,
        FailureKind::Cancelled,
    ];
    use proptest::prelude::*;

    fn failed_at() -> Timestamp {
        "2026-11-20T02:00:00Z".parse().unwrap()
    }

    fn delays(kind: FailureKind) -> Vec<f64> {
        (1..)
            .map_while(|attempts| retry_at(attempts, failed_at(), kind, b"job"))
            .map(|retry| retry.at.duration_since(failed_at()).as_secs_f64())
            .collect()
    }

    #[test]
    fn delays_double_up_to_a_cap_and_stay_in_the_upper_half_of_their_span() {
        let spans = [30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1800.0];
        let delays = delays(FailureKind::Retry);
        assert_eq!(delays.len(), spans.len());
        for (delay, span) in delays.iter().zip(spans) {
            assert!((span / 2.0..span).contains(delay), "{delays:?}");
        }
    }

    #[test]
    fn each_kind_has_its_number_of_attempts_and_says_where_the_next_one_runs() {
        let table: Vec<(FailureKind, usize, Option<bool>, Option<bool>)> = ALL_KINDS
            .into_iter()
            .map(|kind| {
                let elsewhere = |attempts| retry_at(attempts, failed_at(), kind, b"job").map(|retry| retry.elsewhere);
                (kind, delays(kind).len(), elsewhere(1), elsewhere(2))
            })
            .collect();
        use FailureKind::*;
        assert_eq!(
            table,
            [
                (Retry, 7, Some(false), Some(true)),
                (Invalid, 0, None, None),
                (Missing, 2, Some(true), Some(true)),
                (Corrupt, 1, Some(true), None),
                (Unsupported, 2, Some(true), Some(true)),
                (Fenced, 5, Some(false), Some(false)),
                (Full, 3, Some(true), Some(true)),
                (Denied, 2, Some(true), Some(true)),
                (Bug, 1, Some(true), None),
                (Lost, 4, Some(true), Some(true)),
                (Cancelled, 0, None, None),
            ]
        );
    }

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        let at = |job: u32| {
            let retry = retry_at(5, failed_at(), FailureKind::Retry, &job.to_le_bytes()).unwrap();
            retry.at.duration_since(failed_at()).as_secs() / 48
        };
        // A span of 480 s: the upper half has five parts of 48 s.
        let parts: std::collections::BTreeSet<i64> = (0..100).map(at).collect();
        assert_eq!(parts, (5..10).collect());
    }

    proptest! {
        #[test]
        fn a_retry_is_later_than_its_failure_and_the_same_each_time(attempts in 0u32.., kind in 0usize..11, seed: [u8; 16]) {
            let kind = ALL_KINDS[kind];
            let retry = retry_at(attempts, failed_at(), kind, &seed);
            prop_assert_eq!(retry, retry_at(attempts, failed_at(), kind, &seed));
            if let Some(retry) = retry {
                prop_assert!(retry.at > failed_at() && attempts < 8);
                prop_assert!(retry.at.duration_since(failed_at()).as_secs() <= 3600);
            }
        }
    }
}
