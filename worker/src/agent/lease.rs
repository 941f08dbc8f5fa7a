//! The clock of a lease, as its holder reads it. Pure: moments of the monotonic clock are passed in.
//!
//! The coordinator lets a lease end a term after it *received* its last renewal; the holder counts the term from the moment it *sent* the renewal. Sending
//! comes before receiving, so the holder's end is the earlier one, however long the answer took. It keeps back a tenth of the term besides: clocks
//! that run apart by a hundredth are broken, and the rest covers what is on its way to a disk when the end is noticed.
//!
//! What an attempt does when its clock says that the lease is over depends on where it leaves traces:
//! - **A backup, a verify, a catalogue go on.** All they change is the store, where names hold a number that nobody else draws, and what they made
//!   counts only when the log takes the epoch of the lease. An attempt that lost its lease is refused there, whatever any clock says; stopping it would
//!   only lose work when a coordinator was away for a minute. That epoch, and not the clock, protects.
//! - **A restore and a claim stop.** A restore writes to a disk outside of the store, and no log can refuse a write to a disk. When the lease is over
//!   for the coordinator, the next attempt may write the same disk, finish, and the machine on it may start; a byte that the first attempt writes after
//!   that harms the machine. (While both still restore, they write the same bytes to the same places: one job restores one point. So only the late
//!   byte is dangerous, not the overlap.) Neither can the store refuse a claim: it fences whoever wrote before, and a late one would fence the cluster
//!   that the next attempt claimed the vault for.
//!
//! What this does not cover: a machine that stands still (suspended, or a paused VM) does not count the time, and goes on where it stopped. It hears from
//! its first beat that the lease is gone, and a disk that a paused machine had a write on its way to is that machine's disk in almost any case: a restore
//! is bound to its host. Two attempts on one host are kept apart by the process (the older is ended and waited for) and by the lock on its folder.

use std::time::Duration;

use tokio::time::Instant;

/// Part of a term that the holder does not use.
const KEPT_BACK: u32 = 10;
/// After this part of a term without a renewal it is time to worry.
const FRESH: u32 = 2;

/// How a lease stands by its holder's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody else can have the job.
    Held,
    /// As before, and it should be renewed at once.
    Expiring,
    /// Somebody else may have it.
    Lost,
}

/// When a lease ends, as far as its holder knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseClock {
    /// When the request was sent whose answer gave or renewed the lease.
    since: Instant,
    term: Duration,
}

impl LeaseClock {
    /// A lease that was given in answer to a request sent at `asked`. The coordinator gave it some time after that: this counts the wait for work as part of
    /// the term, so a lease is to be renewed as soon as it arrives.
    pub fn granted(asked: Instant, term: Duration) -> Self {
        Self { since: asked, term }
    }

    /// The coordinator said that the lease goes on, in answer to a beat sent at `sent`. Answers may come in any order.
    pub fn renewed(&mut self, sent: Instant) {
        self.since = self.since.max(sent);
    }

    /// When the lease is over.
    pub fn end(&self) -> Instant {
        self.since + self.term - self.term / KEPT_BACK
    }

    /// How it stands.
    pub fn standing(&self, now: Instant) -> Standing {
        if now >= self.end() {
            Standing::Lost
        } else if now >= self.since + self.term / FRESH {
            Standing::Expiring
        } else {
            Standing::Held
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Duration = Duration::from_secs(30);

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_counts_from_the_request_and_ends_before_its_term() {
        let start = Instant::now();
        let clock = LeaseClock::granted(start, TERM);
        assert_eq!(clock.end(), after(start, 27));
        for (seconds, standing) in [
            (0, Standing::Held),
            (14, Standing::Held),
            (15, Standing::Expiring),
            (26, Standing::Expiring),
            (27, Standing::Lost),
            (3600, Standing::Lost),
        ] {
            assert_eq!(clock.standing(after(start, seconds)), standing, "{seconds}");
        }
    }

    #[test]
    fn a_renewal_counts_from_when_it_was_sent_however_late_it_is_answered() {
        let start = Instant::now();
        let mut clock = LeaseClock::granted(start, TERM);
        // Sent after 10 s, answered after 26: the answer gives 11 s more, not 27.
        clock.renewed(after(start, 10));
        assert_eq!(clock.standing(after(start, 26)), Standing::Expiring);
        assert_eq!(clock.end(), after(start, 37));
    }

    #[test]
    fn an_answer_that_comes_late_takes_nothing_back() {
        let start = Instant::now();
        let mut clock = LeaseClock::granted(start, TERM);
        clock.renewed(after(start, 20));
        clock.renewed(after(start, 10));
        assert_eq!(clock.end(), after(start, 47));
    }

    #[test]
    fn a_lease_that_was_lost_by_the_clock_is_held_again_when_the_coordinator_says_so() {
        // A new leader gives every lease a full term: what went on is not lost by that.
        let start = Instant::now();
        let mut clock = LeaseClock::granted(start, TERM);
        assert_eq!(clock.standing(after(start, 40)), Standing::Lost);
        clock.renewed(after(start, 41));
        assert_eq!(clock.standing(after(start, 42)), Standing::Held);
    }

    #[test]
    fn the_holders_end_comes_before_the_coordinators_for_any_delay() {
        let start = Instant::now();
        for sent in [0, 7, 13] {
            for delay in [0, 1, 5, 12] {
                let mut clock = LeaseClock::granted(start, TERM);
                clock.renewed(after(start, sent));
                // The coordinator counts from when the beat reached it.
                let theirs = after(start, sent + delay) + TERM;
                assert!(clock.end() + TERM / KEPT_BACK <= theirs, "sent {sent}, delay {delay}");
            }
        }
    }
}
