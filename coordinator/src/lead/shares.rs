//! How the limit of a store or a host is divided among the workers that use it. Pure; the leader keeps it in memory.
//!
//! Each worker with running jobs gets a share in proportion to them, in millionths. What always holds: **the shares that workers act on never come to
//! more than the whole**, whatever messages are lost and however workers come and go. The argument:
//!
//! 1. A worker acts on a share only while a beat was answered within the length of a lease before, counted by its own clock from when it sent the beat.
//!    After that it acts on none, until it is answered again.
//! 2. With each beat it says the share that it acts on. The answer gives the share from then on. Until the worker says the new one, it may act on
//!    either: so the greater of both is counted as held (`Holding`).
//! 3. A share is made greater only out of what nobody holds. One that is to shrink does so at the worker's next beat, and is free when a beat after that
//!    says so; or when the worker was not heard of for longer than a lease, by (1).
//! 4. A new leader does not know what was given. For the length of a lease it makes no share greater than what its worker says it has, but of limits that
//!    were made since it leads, and after that all that it was not told of is over, by (1). An old leader that does not know yet that it is one gives nothing: a beat is answered after a barrier, which it
//!    does not pass.
//!
//! One case is left out: of a limit that is removed and made again across a change of leaders, a worker that heard of neither acts on its old share for as long
//! as its lease lasts.
//!
//! Clocks run at the same speed as far as leases need it; [`MARGIN_MS`] covers the rest. Shares change hands within a beat of each of the workers, which
//! come at once where something changed.

use std::collections::BTreeMap;

use tresor_proto::ids::WorkerId;

use crate::state::limits::LimitSubject;

/// All of a limit.
pub const WHOLE: u32 = 1_000_000;
/// What clocks may differ by over a lease, milliseconds, and rounding.
pub const MARGIN_MS: u64 = 1000;

/// A life of a worker: an earlier one may go on for a while beside it.
pub type Holder = (WorkerId, [u8; 16]);

/// What a worker may act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holding {
    share: u32,
    /// Of the leader's clock.
    until: u64,
}

/// A limit that workers share.
#[derive(Debug, Clone, Copy)]
pub struct Shared<'a> {
    /// Which.
    pub subject: &'a LimitSubject,
    /// The log index that made it.
    pub since: u64,
    /// How many jobs each worker runs that it binds.
    pub jobs: &'a BTreeMap<WorkerId, u64>,
}

/// An answer to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// What it acts on from now.
    pub share: u32,
    /// Whether more is meant for it, and others hold it still: it is to ask again soon.
    pub is_pending: bool,
}

/// Shares of all limits that workers share, as the leader knows them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shares {
    /// From when on nothing is held that this leader did not give; none: a lease after the first beat.
    known_from: Option<u64>,
    /// The newest entry of the log when the leader began: nobody gave shares of limits that were made after it.
    began: Option<u64>,
    held: BTreeMap<LimitSubject, BTreeMap<Holder, Holding>>,
}

impl Shares {
    /// Answers the beat of a worker that acts on `reported`. `lease`: its length, milliseconds.
    pub fn exchange(&mut self, shared: Shared<'_>, holder: Holder, reported: u32, now: u64, lease: u64) -> Given {
        let known_from = *self.known_from.get_or_insert(now + lease + MARGIN_MS);
        let Shared { subject, since, jobs } = shared;
        let is_known = now >= known_from || self.began.is_some_and(|began| since > began);
        let held = self.held.entry(subject.clone()).or_default();
        held.retain(|_, holding| holding.until > now && holding.share > 0);
        let all: u64 = jobs.values().sum();
        let its = jobs.get(&holder.0).copied().unwrap_or(0);
        let wanted = match all {
            0 => 0,
            all => u32::try_from(u64::from(WHOLE) * its / all).unwrap_or(WHOLE),
        };
        let others: u64 = held
            .iter()
            .filter(|(other, _)| **other != holder)
            .map(|(_, holding)| u64::from(holding.share))
            .sum();
        let free = u32::try_from(u64::from(WHOLE).saturating_sub(others)).unwrap_or(0);
        let most = if is_known { free } else { free.min(reported) };
        let share = wanted.min(most);
        let holding = Holding {
            share: share.max(reported),
            until: now + lease + MARGIN_MS,
        };
        held.insert(holder, holding);
        Given {
            share,
            is_pending: share < wanted,
        }
    }

    /// Of a leader that is the only one there ever was: nothing was given before.
    pub fn of_one_process() -> Self {
        Self {
            known_from: Some(0),
            began: None,
            held: BTreeMap::new(),
        }
    }

    /// Of a leader that began now, after that entry of the log.
    pub fn of_new_leader(now: u64, lease: u64, entry: u64) -> Self {
        Self {
            known_from: Some(now + lease + MARGIN_MS),
            began: Some(entry),
            held: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: u64 = 30_000;

    fn store() -> LimitSubject {
        LimitSubject::Store(String::from("s3://b"))
    }

    fn ask(shares: &mut Shares, holder: Holder, has: u32, jobs: &BTreeMap<WorkerId, u64>, now: u64) -> Given {
        let subject = store();
        let shared = Shared {
            subject: &subject,
            since: 5,
            jobs,
        };
        shares.exchange(shared, holder, has, now, LEASE)
    }

    /// A worker as it behaves: it acts on what it was answered last, for a lease from when it asked.
    #[derive(Debug, Clone, Copy, Default)]
    struct Acting {
        share: u32,
        until: u64,
    }

    impl Acting {
        fn share(&self, now: u64) -> u32 {
            if now < self.until { self.share } else { 0 }
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Jobs {
            worker: usize,
            jobs: u64,
        },
        /// A beat is sent, heard `late` after, and the answer comes or not.
        Beat {
            worker: usize,
            late: u64,
            is_answered: bool,
        },
        Wait(u64),
        Leader,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..3_usize, 0..5_u64).prop_map(|(worker, jobs)| Step::Jobs { worker, jobs }),
            (0..3_usize, prop_oneof![Just(0), 0..5000_u64], prop::bool::weighted(0.8)).prop_map(
                |(worker, late, is_answered)| Step::Beat {
                    worker,
                    late,
                    is_answered
                }
            ),
            (0..12_000_u64).prop_map(Step::Wait),
            Just(Step::Leader),
        ];
        prop::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
        #[test]
        fn shares_of_three_workers_never_come_to_more_than_the_whole(steps in steps()) {
            let mut shares = Shares::default();
            let mut jobs = BTreeMap::new();
            let mut acting = [Acting::default(); 3];
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Jobs { worker, jobs: count } => {
                        jobs.insert(WorkerId(worker as u64), count);
                    }
                    Step::Beat { worker, late, is_answered } => {
                        let (sent, reported) = (now, acting[worker].share(now));
                        now += late;
                        let id = (WorkerId(worker as u64), [0; 16]);
                        let given = ask(&mut shares, id, reported, &jobs, now);
                        if is_answered {
                            acting[worker] = Acting { share: given.share, until: sent + LEASE };
                        }
                    }
                    Step::Wait(ms) => now += ms,
                    Step::Leader => shares = Shares::default(),
                }
                let sum: u32 = acting.iter().map(|worker| worker.share(now)).sum();
                prop_assert!(sum <= WHOLE, "{sum}");
            }
        }
    }

    #[test]
    fn a_second_worker_gets_its_half_as_soon_as_the_first_has_let_go_of_it() {
        let mut shares = Shares::of_one_process();
        let (one, two) = (WorkerId(1), WorkerId(2));
        let mut jobs = BTreeMap::from([(one, 4)]);
        let now = 100_000;
        let ask = |shares: &mut Shares, worker, has, jobs: &BTreeMap<_, _>| {
            let given = super::tests::ask(shares, (worker, [0; 16]), has, jobs, now);
            (given.share, given.is_pending)
        };
        assert_eq!(ask(&mut shares, one, 0, &jobs), (WHOLE, false));
        jobs.insert(two, 4);
        assert_eq!(ask(&mut shares, two, 0, &jobs), (0, true));
        assert_eq!(ask(&mut shares, one, WHOLE, &jobs), (WHOLE / 2, false));
        assert_eq!(
            ask(&mut shares, two, 0, &jobs),
            (0, true),
            "the first may not have heard"
        );
        assert_eq!(ask(&mut shares, one, WHOLE / 2, &jobs), (WHOLE / 2, false));
        assert_eq!(ask(&mut shares, two, 0, &jobs), (WHOLE / 2, false));
    }

    #[test]
    fn what_a_silent_worker_held_is_free_after_a_lease() {
        let mut shares = Shares::of_one_process();
        let (one, two) = (WorkerId(1), WorkerId(2));
        let jobs = BTreeMap::from([(one, 1)]);
        ask(&mut shares, (one, [0; 16]), 0, &jobs, 100_000);
        let jobs = BTreeMap::from([(two, 1)]);
        let ask = |shares: &mut Shares, now| super::tests::ask(shares, (two, [0; 16]), 0, &jobs, now).share;
        assert_eq!(ask(&mut shares, 100_000 + LEASE), 0);
        assert_eq!(ask(&mut shares, 100_000 + LEASE + MARGIN_MS), WHOLE);
    }

    #[test]
    fn a_new_leader_takes_nothing_from_who_has_something() {
        let mut shares = Shares::default();
        let jobs = BTreeMap::from([(WorkerId(1), 1), (WorkerId(2), 1)]);
        let given = ask(&mut shares, (WorkerId(1), [0; 16]), WHOLE / 2, &jobs, 0);
        assert_eq!(given.share, WHOLE / 2);
        let given = ask(&mut shares, (WorkerId(2), [0; 16]), 0, &jobs, 0);
        assert_eq!((given.share, given.is_pending), (0, true));
        let given = ask(&mut shares, (WorkerId(2), [0; 16]), 0, &jobs, LEASE + MARGIN_MS);
        assert_eq!(given.share, WHOLE / 2, "the first was not heard of since");
    }

    #[test]
    fn a_limit_that_a_leader_saw_being_made_is_divided_at_once() {
        let jobs = BTreeMap::from([(WorkerId(1), 1)]);
        for (began, share) in [(4, WHOLE), (5, 0)] {
            let mut shares = Shares::of_new_leader(0, LEASE, began);
            assert_eq!(
                ask(&mut shares, (WorkerId(1), [0; 16]), 0, &jobs, 0).share,
                share,
                "{began}"
            );
        }
    }
}
