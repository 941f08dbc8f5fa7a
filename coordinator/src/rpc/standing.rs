//! How items stand: whether each is backed up as its policy wants. Pure.
//!
//! An item is **late** when the first backup that was due after its last good one (or after its policy was given to it) has not ended well in time: a while
//! after the due time, and not before the policy's `late_after` has passed since the last good one. So a policy for every week is not late by its
//! second day, and one for every 15 minutes may well be late only after a day, if a person said so.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use tresor_proto::ids::{ItemId, PointId, PolicyId};

use super::policy::span_in_words;
use crate::lead::plans::Plans;
use crate::schedule::{Compiled, Decision, Standing};
use crate::state::State;
use crate::state::entry::Time;
use crate::state::rows::{Item, Policy};

/// How long after a backup was due its item is late at the earliest, milliseconds: an hour for it to be started, run and, maybe, be tried again. Less where
/// the policy's own bound is less.
pub const LATE_GRACE_MS: i64 = 3600 * 1000;

/// How an item stands, in one word; the first that is true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemState {
    /// It is not backed up any more; only its points are left.
    Unprotected,
    /// Its newest job failed.
    Failing,
    /// It has no point yet.
    Never,
    /// It is late.
    Late,
    /// Nothing says when it is backed up.
    NoSchedule,
    /// As its policy wants.
    Ok,
}

impl ItemState {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unprotected,
        Self::Failing,
        Self::Never,
        Self::Late,
        Self::NoSchedule,
        Self::Ok,
    ];

    /// As it travels.
    pub fn text(self) -> &'static str {
        match self {
            Self::Unprotected => "unprotected",
            Self::Failing => "failing",
            Self::Never => "never",
            Self::Late => "late",
            Self::NoSchedule => "no schedule",
            Self::Ok => "ok",
        }
    }

    /// The state of that name; `no-schedule` is read, too.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.replace('-', " ");
        Self::ALL.into_iter().find(|state| state.text() == text)
    }
}

/// How an item stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemStanding {
    /// In one word.
    pub state: ItemState,
    /// Its newest visible point.
    pub newest: Option<(PointId, Time)>,
    /// When it is backed up next by itself.
    pub next_due: Option<Time>,
    /// Since when it is late.
    pub late_since: Option<Time>,
    /// Nothing says when it is backed up, although it is protected.
    pub unscheduled: bool,
    /// Its newest job failed, although it is protected.
    pub failing: bool,
}

impl ItemStanding {
    /// Whether that is true of it, whatever else is.
    pub fn is(&self, state: ItemState) -> bool {
        let protected = self.state != ItemState::Unprotected;
        match state {
            ItemState::Unprotected => !protected,
            ItemState::Failing => self.failing,
            ItemState::Never => protected && self.newest.is_none(),
            ItemState::Late => self.late_since.is_some(),
            ItemState::NoSchedule => self.unscheduled,
            ItemState::Ok => self.state == ItemState::Ok,
        }
    }
}

/// All policies at one moment: what their items share is worked out once.
#[derive(Debug)]
pub struct Board<'p> {
    plans: &'p Plans,
    standings: BTreeMap<PolicyId, Standing<'p>>,
    now: Time,
}

impl<'p> Board<'p> {
    /// Of the policies of a state, at `now`.
    pub fn new(state: &State, plans: &'p Plans, now: Time) -> Self {
        let ids = state.policies().iter().map(|(id, _)| *id);
        Self {
            plans,
            standings: ids
                .filter_map(|id| Some((id, calendar(plans, id)?.standing(now.timestamp()))))
                .collect(),
            now,
        }
    }

    /// How an item stands.
    pub fn item(&self, state: &State, id: ItemId, item: &Item) -> ItemStanding {
        let newest = state.newest_point(id);
        let newest = newest.and_then(|point| Some((point, state.points().get(&point)?.time)));
        let mut standing = ItemStanding {
            state: ItemState::Unprotected,
            newest,
            next_due: None,
            late_since: None,
            unscheduled: false,
            failing: false,
        };
        if !item.protected {
            return standing;
        }
        let calendar_of = item.spec.policy.and_then(|policy| self.standings.get(&policy));
        standing.unscheduled = calendar_of.is_none();
        let last = item.last_occurrence.map(Time::timestamp);
        let since = state.due_since(id).unwrap_or(item.since).timestamp();
        standing.next_due = calendar_of.and_then(|calendar| match calendar.decide(&id.0, last, since) {
            Decision::Start(due) | Decision::Wait(due) => Some(due.at.into()),
            Decision::Never => None,
        });
        standing.late_since = self.late_at(state, item).filter(|at| *at <= self.now);
        standing.failing = item.failures > 0;
        standing.state = match () {
            () if standing.failing => ItemState::Failing,
            // Why it has no point, and what to do.
            () if newest.is_none() && standing.unscheduled => ItemState::NoSchedule,
            () if newest.is_none() => ItemState::Never,
            () if standing.late_since.is_some() => ItemState::Late,
            () if standing.unscheduled => ItemState::NoSchedule,
            () => ItemState::Ok,
        };
        standing
    }

    /// From when on an item is late, if nothing is done; none: it cannot be.
    pub fn late_at(&self, state: &State, item: &Item) -> Option<Time> {
        let id = item.spec.policy?;
        let policy = state.policies().get(&id)?;
        let base = counted_from(item, policy);
        let allowed = policy.spec.late_after;
        let aged = (allowed > 0).then(|| base.plus(allowed));
        let Some(calendar) = calendar(self.plans, id) else {
            return aged;
        };
        // The usual case, and the cheap one.
        if let Some(aged) = aged.filter(|aged| *aged > self.now) {
            return Some(aged);
        }
        let grace = match allowed {
            0 => LATE_GRACE_MS,
            allowed => allowed.min(LATE_GRACE_MS),
        };
        let overdue = first_due(calendar, policy, base)?.plus(grace);
        Some(aged.map_or(overdue, |aged| aged.max(overdue)))
    }

    /// Why an item is late, in a sentence.
    pub fn late_because(&self, state: &State, item: &Item, since: Time) -> String {
        let policy = item.spec.policy.and_then(|id| Some((id, state.policies().get(&id)?)));
        let Some((id, policy)) = policy else {
            return format!("late since {since}");
        };
        let base = counted_from(item, policy);
        let before = match item.last_success {
            Some(last) => format!("the last good backup ended at {last}"),
            None => format!("no backup ended well since it is protected ({})", item.since),
        };
        let due = calendar(self.plans, id).and_then(|calendar| first_due(calendar, policy, base));
        let due = due
            .map(|due| format!(", the next one was due by {due}"))
            .unwrap_or_default();
        let allowed = match policy.spec.late_after {
            0 => String::new(),
            allowed => format!(
                "; policy {} allows {} without one",
                policy.spec.name,
                span_in_words(allowed)
            ),
        };
        format!("{before}{due}{allowed}")
    }
}

/// From when on an item is waited for: its last good backup, or the moment from which the policy as it is holds for it.
fn counted_from(item: &Item, policy: &Policy) -> Time {
    let since = item.since.max(policy.since);
    item.last_success.map_or(since, |last| last.max(since))
}

fn calendar(plans: &Plans, policy: PolicyId) -> Option<&Compiled> {
    plans.get(policy)?.ok()?.calendar.as_ref()
}

/// By when the first backup after `base` has to have started, whatever an item's jitter is.
fn first_due(calendar: &Compiled, policy: &Policy, base: Time) -> Option<Time> {
    let occurrence = calendar.next_after(base.timestamp())?;
    let latest = occurrence
        .checked_add(SignedDuration::from_millis(policy.spec.jitter))
        .ok()?;
    calendar.next_open(latest).map(Time::from)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::state::command::{Command, PolicySpec};
    use crate::testing::{Story, at};

    fn policy(schedule: &str, jitter: i64, late_after: i64) -> PolicySpec {
        PolicySpec {
            name: String::from("gold"),
            schedule: schedule.to_owned(),
            zone: String::from("UTC"),
            jitter,
            late_after,
            ..PolicySpec::default()
        }
    }

    /// Item `web` under a policy since 12:00 on Friday the 20th; when it is late without any backup.
    fn late_at(spec: PolicySpec) -> Option<Time> {
        let mut story = Story::new();
        story.does(Command::CreatePolicy {
            policy: PolicyId([1; 16]),
            spec,
        });
        let item = story.protect("web", Some(PolicyId([1; 16])));
        let mut plans = Plans::default();
        plans.refresh(&story.state);
        // So late that the quick answer is never enough.
        let board = Board::new(&story.state, &plans, at("2028-01-01T00:00:00Z"));
        board.late_at(&story.state, story.state.items().get(&item).unwrap())
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn an_item_is_late_after_what_its_policy_allows_but_never_before_a_backup_was_due() {
        for (schedule, jitter, allowed, expected) in [
            // 26 hours after 12:00; the backup of 02:00 was due long before.
            ("daily 02:00", HOUR, 26 * HOUR, "2026-11-21T14:00:00Z"),
            // Allowed is less than the schedule's own gap: an hour after it was due with its jitter.
            ("weekly sun 03:00", HOUR, 26 * HOUR, "2026-11-22T05:00:00Z"),
            ("every 15m", 0, 300_000, "2026-11-20T12:20:00Z"),
            // Nothing is said: an hour after it was due.
            ("daily 02:00", 0, 0, "2026-11-21T03:00:00Z"),
        ] {
            assert_eq!(
                late_at(policy(schedule, jitter, allowed)),
                Some(at(expected)),
                "{schedule}"
            );
        }
        assert_eq!(
            late_at(policy("", 0, HOUR)),
            Some(at("2026-11-20T13:00:00Z")),
            "without a schedule the age alone counts"
        );
        assert_eq!(late_at(policy("", 0, 0)), None);
        let mut windowed = policy("daily 02:00", 0, 0);
        windowed.windows = vec![String::from("sat 20:00-22:00")];
        assert_eq!(
            late_at(windowed),
            Some(at("2026-11-21T21:00:00Z")),
            "it waits for the window"
        );
    }

    #[test]
    fn an_item_stands_by_what_went_wrong_first() {
        let mut story = Story::new();
        let gold = PolicyId([1; 16]);
        story.does(Command::CreatePolicy {
            policy: gold,
            spec: policy("daily 02:00", 0, 26 * HOUR),
        });
        let scheduled = story.protect("web", Some(gold));
        let unscheduled = story.protect("db", None);
        let stands = |story: &Story, id: ItemId| {
            let mut plans = Plans::default();
            plans.refresh(&story.state);
            let board = Board::new(&story.state, &plans, story.now);
            board.item(&story.state, id, story.state.items().get(&id).unwrap())
        };
        let standing = stands(&story, scheduled);
        assert_eq!(standing.state, ItemState::Never);
        assert_eq!(standing.next_due, Some(at("2026-11-21T02:00:00Z")));
        let manual = stands(&story, unscheduled);
        assert_eq!(manual.state, ItemState::NoSchedule);
        assert!(manual.is(ItemState::Never) && manual.is(ItemState::NoSchedule) && !manual.is(ItemState::Ok));

        let point = story.backs_up(scheduled);
        story.backs_up(unscheduled);
        let standing = stands(&story, scheduled);
        assert_eq!(standing.state, ItemState::Ok);
        assert_eq!(standing.newest.unwrap().0, point);
        assert_eq!(stands(&story, unscheduled).state, ItemState::NoSchedule);

        story.advance(40 * HOUR);
        let standing = stands(&story, scheduled);
        assert_eq!(standing.state, ItemState::Late);
        assert_eq!(standing.late_since, Some(at("2026-11-21T14:00:00Z")));
        assert_eq!(stands(&story, unscheduled).state, ItemState::NoSchedule);

        story.fails(scheduled);
        let failing = stands(&story, scheduled);
        assert_eq!(failing.state, ItemState::Failing);
        assert!(failing.is(ItemState::Failing) && failing.is(ItemState::Late) && !failing.is(ItemState::Never));
        story.backs_up(scheduled);
        assert_eq!(stands(&story, scheduled).state, ItemState::Ok);
        story.does(Command::Unprotect { item: scheduled });
        let ended = stands(&story, scheduled);
        assert_eq!(ended.state, ItemState::Unprotected);
        let true_of_it = ItemState::ALL.into_iter().filter(|state| ended.is(*state));
        assert_eq!(true_of_it.count(), 1);
    }

    #[test]
    fn states_are_read_as_they_are_shown() {
        for state in ItemState::ALL {
            assert_eq!(ItemState::read(state.text()), Some(state));
        }
        assert_eq!(ItemState::read("no-schedule"), Some(ItemState::NoSchedule));
        assert_eq!(ItemState::read("fine"), None);
    }
}
