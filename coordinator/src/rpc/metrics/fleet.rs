//! How all items, points and waiting jobs stand: counted by the leader in small steps, since there may be millions, and kept until the next count.
//!
//! A step looks at a bounded number of rows while it holds the state, as every pass of the leader does; between two steps others have it. So a scrape
//! costs nothing that grows with items or points: it shows the newest whole count, with its age.

use std::collections::BTreeMap;
use std::ops::Bound;

use tresor_proto::ids::{ItemId, JobId, PolicyId};

use super::page::{LeftOut, Page, fact, float, seconds};
use crate::rpc::convert;
use crate::rpc::standing::{Board, ItemState};
use crate::state::State;
use crate::state::entry::Time;
use crate::state::rows::JobState;

/// Items that one step looks at.
const ITEMS: usize = 1000;
/// Points that one step looks at, but for the rest of its last item: a few milliseconds.
const POINTS: usize = 10_000;
/// Waiting jobs that one step looks at.
const JOBS: usize = 10_000;
/// Policies that have series of their own: seven each.
const POLICIES_MAX: usize = 300;
/// Items that have series of their own, where that was asked for: eight each, and Prometheus takes some kilobytes of memory for each series.
pub const ITEM_SERIES_MAX: usize = 10_000;

/// Consistencies of points, in order.
const CONSISTENCIES: [&str; 3] = ["crash", "filesystem", "application"];

/// Items by how they stand, in the order of [`ItemState::ALL`].
type ByState = [u64; ItemState::ALL.len()];

/// The word of a state as a label.
fn label(state: ItemState) -> &'static str {
    match state {
        ItemState::NoSchedule => "no_schedule",
        state => state.text(),
    }
}

/// Items of one policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct OfPolicy {
    items: ByState,
    /// The newest point of the protected item whose newest point is the oldest.
    oldest: Option<Time>,
}

/// An item that has series of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct OneItem {
    name: String,
    vault: String,
    state: ItemState,
    newest: Option<Time>,
    failures: u32,
}

/// Jobs of a kind that wait.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Waiting {
    count: u64,
    /// Since when the one waits that waits the longest and could have begun.
    since: Option<Time>,
}

/// A whole count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    /// When it began, by the cluster's clock.
    pub at: Time,
    items: ByState,
    late: u64,
    harmed: u64,
    points: [u64; CONSISTENCIES.len()],
    hidden: u64,
    held: u64,
    points_harmed: u64,
    policies: BTreeMap<PolicyId, OfPolicy>,
    policies_left_out: usize,
    names: BTreeMap<PolicyId, String>,
    waiting: BTreeMap<&'static str, Waiting>,
    of_items: Vec<OneItem>,
    items_left_out: usize,
}

/// Where a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Items(Option<ItemId>),
    Jobs(Option<JobId>),
    End,
}

/// A count under way.
#[derive(Debug)]
pub struct Counting<'p> {
    board: Board<'p>,
    place: Place,
    shows_items: bool,
    fleet: Fleet,
}

impl<'p> Counting<'p> {
    /// Begins to count at `now`; `shows_items`: each item by itself, too.
    pub fn begin(state: &State, plans: &'p crate::lead::plans::Plans, now: Time, shows_items: bool) -> Self {
        let all = state.policies_by_name();
        let names: BTreeMap<PolicyId, String> =
            all.take(POLICIES_MAX).map(|(name, id)| (id, name.to_owned())).collect();
        let fleet = Fleet {
            at: now,
            policies: names.keys().map(|id| (*id, OfPolicy::default())).collect(),
            policies_left_out: state.policies().len() - names.len(),
            names,
            ..Fleet::default()
        };
        Self {
            board: Board::new(state, plans, now),
            place: Place::Items(None),
            shows_items,
            fleet,
        }
    }

    /// Goes on for a bounded while. Returns the count once it is whole.
    ///
    /// What changes between two steps is counted as it is when its turn comes.
    pub fn step(&mut self, state: &State) -> Option<Fleet> {
        self.place = match self.place {
            Place::Items(after) => self.items(state, after),
            Place::Jobs(after) => self.jobs(state, after),
            Place::End => Place::End,
        };
        (self.place == Place::End).then(|| std::mem::take(&mut self.fleet))
    }

    fn items(&mut self, state: &State, after: Option<ItemId>) -> Place {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = after;
        let (mut items, mut points) = (0, 0);
        for (id, item) in state.items().range((from, Bound::Unbounded)) {
            if items >= ITEMS || points >= POINTS {
                return Place::Items(last);
            }
            items += 1;
            last = Some(*id);
            points += self.points(state, *id);
            let standing = self.board.item(state, *id, item);
            let fleet = &mut self.fleet;
            fleet.items[standing.state as usize] += 1;
            fleet.late += u64::from(standing.late_since.is_some());
            let newest = standing.newest.and_then(|(point, _)| state.points().get(&point));
            fleet.harmed += u64::from(newest.is_some_and(|point| point.harmed));
            let newest = standing.newest.map(|(_, time)| time);
            if let Some(policy) = item.spec.policy.and_then(|id| fleet.policies.get_mut(&id)) {
                policy.items[standing.state as usize] += 1;
                if item.protected
                    && let Some(newest) = newest
                {
                    policy.oldest = Some(policy.oldest.map_or(newest, |oldest| oldest.min(newest)));
                }
            }
            if !self.shows_items || (!item.protected && newest.is_none()) {
                continue;
            }
            if fleet.of_items.len() >= ITEM_SERIES_MAX {
                fleet.items_left_out += 1;
                continue;
            }
            fleet.of_items.push(OneItem {
                name: item.spec.name.clone(),
                vault: convert::vault_name(state, item.spec.vault),
                state: standing.state,
                newest,
                failures: item.failures,
            });
        }
        Place::Jobs(None)
    }

    /// Counts the points of an item; answers how many.
    fn points(&mut self, state: &State, item: ItemId) -> usize {
        let mut count = 0;
        for id in state.points_of(item) {
            count += 1;
            let Some(point) = state.points().get(&id) else {
                continue;
            };
            let fleet = &mut self.fleet;
            if point.hidden.is_some() {
                fleet.hidden += 1;
            } else {
                fleet.points[point.consistency as usize] += 1;
            }
            fleet.held += u64::from(point.held.is_some());
            fleet.points_harmed += u64::from(point.harmed);
        }
        count
    }

    fn jobs(&mut self, state: &State, after: Option<JobId>) -> Place {
        let mut last = after;
        for (looked, id) in state.open_jobs_after(after).enumerate() {
            if looked >= JOBS {
                return Place::Jobs(last);
            }
            last = Some(id);
            let Some(job) = state.jobs().get(&id) else {
                continue;
            };
            let JobState::Queued { not_before } = job.state else {
                continue;
            };
            let waiting = self
                .fleet
                .waiting
                .entry(convert::work_text(&job.spec.work))
                .or_default();
            waiting.count += 1;
            if not_before <= self.fleet.at {
                waiting.since = Some(waiting.since.map_or(not_before, |since| since.min(not_before)));
            }
        }
        Place::End
    }
}

impl Fleet {
    /// Shows it; `now` is the cluster's clock.
    pub(super) fn show(&self, page: &Page, now: Time) {
        page.gauge(
            "tresor_coordinator_fleet_age_seconds",
            "How old the numbers are that are counted of all items, points and waiting jobs.",
            seconds(now.since(self.at).max(0)),
        );
        page.gauges(
            "tresor_coordinator_items_by_state",
            "Items by how tresor status sees them: ok; late; failing (its newest job failed); never (it has no point yet); no_schedule; unprotected. The first that is true, in the order failing, never, late, no_schedule.",
            ["state"],
            ItemState::ALL.map(|state| ([label(state)], float(self.items[state as usize]))),
        );
        page.gauge(
            "tresor_coordinator_items_late",
            "Items that are late, those among them that are failing or have no point.",
            float(self.late),
        );
        page.gauge(
            "tresor_coordinator_items_harmed",
            "Items whose newest point damage was found under.",
            float(self.harmed),
        );
        page.gauges(
            "tresor_coordinator_points_by_consistency",
            "Visible points by their consistency.",
            ["consistency"],
            CONSISTENCIES
                .into_iter()
                .zip(self.points)
                .map(|(word, count)| ([word], float(count))),
        );
        page.gauges(
            "tresor_coordinator_points_by_mark",
            "Points that are hidden, held, or harmed by damage; one point may be several.",
            ["mark"],
            [
                ("hidden", self.hidden),
                ("held", self.held),
                ("harmed", self.points_harmed),
            ]
            .map(|(mark, count)| ([mark], float(count))),
        );
        page.gauges(
            "tresor_coordinator_jobs_waiting",
            "Jobs that wait, by kind.",
            ["kind"],
            self.waiting.iter().map(|(kind, of)| ([*kind], float(of.count))),
        );
        let longest = self.waiting.values().filter_map(|of| of.since).min();
        page.gauge(
            "tresor_coordinator_jobs_longest_wait_seconds",
            "How long the job waits that could have begun and waits the longest.",
            longest.map_or(0.0, |since| seconds(now.since(since).max(0))),
        );
        self.show_policies(page);
        self.show_items(page);
    }

    fn show_policies(&self, page: &Page) {
        page.leave_out(LeftOut::Policies, self.policies_left_out);
        let of = || {
            let all = self.policies.iter();
            all.filter_map(|(id, of)| Some((self.names.get(id)?.as_str(), of)))
        };
        page.gauges(
            "tresor_coordinator_policy_items",
            "Items of a policy by state, as in tresor_coordinator_items_by_state.",
            ["policy", "state"],
            of().flat_map(|(name, of)| {
                let by_state = ItemState::ALL.into_iter();
                by_state.map(move |state| ([name, label(state)], float(of.items[state as usize])))
            }),
        );
        page.gauges(
            "tresor_coordinator_policy_point_timestamp_seconds",
            "Of the protected items of a policy that have points, the newest point of the one that is furthest behind: when its disks were read.",
            ["policy"],
            of().filter_map(|(name, of)| Some(([name], seconds(of.oldest?.0)))),
        );
    }

    fn show_items(&self, page: &Page) {
        page.leave_out(LeftOut::Items, self.items_left_out);
        let all = || self.of_items.iter();
        page.gauges(
            "tresor_item_state",
            "1 for the state that an item is in, 0 for the others; with --item-metrics.",
            ["item", "vault", "state"],
            all().flat_map(|item| {
                let of = move |state: ItemState| {
                    let labels = [item.name.as_str(), item.vault.as_str(), label(state)];
                    (labels, fact(item.state == state))
                };
                ItemState::ALL.into_iter().map(of)
            }),
        );
        page.gauges(
            "tresor_item_point_timestamp_seconds",
            "When the disks of an item's newest visible point were read; with --item-metrics.",
            ["item", "vault"],
            all().filter_map(|item| Some(([item.name.as_str(), item.vault.as_str()], seconds(item.newest?.0)))),
        );
        page.gauges(
            "tresor_item_failures",
            "Jobs of an item that failed in a row; with --item-metrics.",
            ["item", "vault"],
            all().map(|item| ([item.name.as_str(), item.vault.as_str()], f64::from(item.failures))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lead::plans::Plans;
    use crate::state::command::{Command, PolicySpec};
    use crate::testing::Story;

    const HOUR: i64 = 3_600_000;
    const GOLD: PolicyId = PolicyId([1; 16]);

    fn story() -> Story {
        let mut story = Story::new();
        story.does(Command::CreatePolicy {
            policy: GOLD,
            spec: PolicySpec {
                name: String::from("gold"),
                schedule: String::from("daily 02:00"),
                zone: String::from("UTC"),
                late_after: 26 * HOUR,
                ..PolicySpec::default()
            },
        });
        story
    }

    fn count(story: &Story, shows_items: bool) -> (Fleet, usize) {
        let mut plans = Plans::default();
        plans.refresh(&story.state);
        let mut counting = Counting::begin(&story.state, &plans, story.now, shows_items);
        let mut steps = 0;
        loop {
            steps += 1;
            if let Some(fleet) = counting.step(&story.state) {
                return (fleet, steps);
            }
        }
    }

    fn text(fleet: &Fleet, now: Time) -> String {
        let page = Page::default();
        fleet.show(&page, now);
        page.text()
    }

    #[test]
    fn items_are_counted_as_status_sees_them() {
        let mut story = story();
        let web = story.protect("web", Some(GOLD));
        let db = story.protect("db", None);
        story.protect("new", Some(GOLD));
        story.backs_up(web);
        story.backs_up(db);
        let shown = text(&count(&story, false).0, story.now);
        for line in [
            r#"tresor_coordinator_items_by_state{state="ok"} 1"#,
            r#"tresor_coordinator_items_by_state{state="never"} 1"#,
            r#"tresor_coordinator_items_by_state{state="no_schedule"} 1"#,
            r#"tresor_coordinator_items_by_state{state="late"} 0"#,
            r#"tresor_coordinator_policy_items{policy="gold",state="ok"} 1"#,
            r#"tresor_coordinator_points_by_consistency{consistency="crash"} 2"#,
        ] {
            assert!(shown.contains(line), "{line}\nis not in\n{shown}");
        }
        assert!(!shown.contains("tresor_item_"), "{shown}");
        story.advance(40 * HOUR);
        story.fails(web);
        let shown = text(&count(&story, true).0, story.now);
        for line in [
            r#"tresor_coordinator_items_by_state{state="failing"} 1"#,
            "tresor_coordinator_items_late 2",
            r#"tresor_item_state{item="web",state="failing",vault="main"} 1"#,
            r#"tresor_item_state{item="web",state="ok",vault="main"} 0"#,
            r#"tresor_item_failures{item="web",vault="main"} 1"#,
        ] {
            assert!(shown.contains(line), "{line}\nis not in\n{shown}");
        }
    }

    #[test]
    fn a_step_looks_at_a_bounded_number_of_items_and_all_steps_at_all() {
        let mut story = story();
        for n in 0..2 * ITEMS + 10 {
            story.protect(&format!("vm-{n}"), Some(GOLD));
        }
        let (fleet, steps) = count(&story, false);
        assert_eq!(fleet.items.iter().sum::<u64>(), 2 * ITEMS as u64 + 10);
        // Three for the items, one for the jobs.
        assert_eq!(steps, 4);
    }

    #[test]
    fn items_beyond_the_bound_have_no_series_and_are_counted() {
        let fleet = Fleet {
            items_left_out: 7,
            ..Fleet::default()
        };
        let shown = text(&fleet, Time(0));
        assert!(
            shown.contains(r#"tresor_coordinator_series_left_out{what="items"} 7"#),
            "{shown}"
        );
    }
}
