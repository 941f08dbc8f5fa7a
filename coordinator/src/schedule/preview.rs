//! What a policy would do, before it does: its next runs, what becomes of the points that are there, and how many points an item comes to hold.

use std::collections::{BTreeMap, VecDeque};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::calendar::Compiled;
use super::retention::{Bucket, PointView, Retention, RuleKind, Verdict, plan};

/// Most runs that a preview lists: a screen of them, or a day of half-hourly ones.
pub const RUNS_MAX: usize = 100;
/// Most runs that are simulated for [`Holds`]: about a tenth of a second. Six runs a day for forty years fit.
const SIMULATED_RUNS_MAX: usize = 100_000;
/// After so many runs a schedule that is too dense to be simulated is known for one.
const DENSITY_RUNS: usize = 1000;
/// Simulated beyond the moment at which every rule is full: weekdays and dates come together anew for 28 years, and then repeat but for centuries.
const SIMULATED_YEARS: i64 = 28;

/// What a policy would do with one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview<Id> {
    /// The next runs, in order.
    pub runs: Vec<Run>,
    /// What becomes of the points, newest first: what [`plan`] says now.
    pub points: Vec<Verdict<Id>>,
    /// How many points an item holds in the long run; `None`: every point stays.
    pub holds: Option<Holds>,
}

/// A run to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The occurrence it is for. Those that wait for one opening are one run, for the newest.
    pub occurrence: Timestamp,
    /// When the first item starts.
    pub starts_from: Timestamp,
    /// Before this the last item starts; the same as `starts_from` without jitter.
    pub starts_until: Timestamp,
}

/// How many points of an item the rules keep at most, if every run succeeds. Holds and `keep_until` come on top, and one more between a run and retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holds {
    /// At most so many.
    pub points_max: u64,
    /// Whether that was found by simulating the runs until every rule was full and 28 years beyond; else it is what no schedule exceeds.
    pub is_simulated: bool,
}

/// Shows what a policy would do: the next `runs` runs after `now` ([`RUNS_MAX`] at most), and what of `points` would stay and why.
pub fn preview<Id: Copy + Ord>(
    calendar: &Compiled,
    retention: Option<&Retention>,
    points: &[PointView<Id>],
    now: Timestamp,
    runs: usize,
) -> Preview<Id> {
    Preview {
        runs: next_runs(calendar, now).take(runs.min(RUNS_MAX)).collect(),
        points: plan(points, retention, calendar.zone(), now),
        holds: retention.map(|retention| holds(calendar, retention, now)),
    }
}

/// The runs whose occurrences are after `after`.
pub fn next_runs(calendar: &Compiled, after: Timestamp) -> impl Iterator<Item = Run> + '_ {
    let mut after = after;
    std::iter::from_fn(move || {
        let first = calendar.next_after(after)?;
        let starts_from = calendar.next_open(first)?;
        // While it waits for the opening, later occurrences join it.
        let occurrence = match starts_from > first {
            true => calendar.newest_at(starts_from).unwrap_or(first).max(first),
            false => first,
        };
        after = occurrence;
        let jitter = calendar.jitter_before(occurrence, calendar.next_after(occurrence));
        let latest = occurrence.checked_add(jitter).unwrap_or(occurrence).max(starts_from);
        Some(Run {
            occurrence,
            starts_from,
            starts_until: calendar.next_open(latest)?,
        })
    })
}

/// How many points the rules keep at most, with this calendar.
pub fn holds(calendar: &Compiled, retention: &Retention, now: Timestamp) -> Holds {
    // The newest point is the newest of its hour, its day and so on: it counts once.
    let never_more: u64 = retention.rules().map(|(_, count)| u64::from(count)).sum::<u64>()
        - (retention.rules().count() as u64).saturating_sub(1);
    simulated(calendar, retention, now).unwrap_or(Holds {
        points_max: never_more,
        is_simulated: false,
    })
}

/// Runs the calendar forward, if that takes few enough runs.
fn simulated(calendar: &Compiled, retention: &Retention, now: Timestamp) -> Option<Holds> {
    let mut kept = Kept::new(retention);
    let mut points_max = 0;
    let beyond = SignedDuration::from_hours(SIMULATED_YEARS * 366 * 24);
    let mut end = None;
    for (number, run) in next_runs(calendar, now).take(SIMULATED_RUNS_MAX).enumerate() {
        let took = run.starts_from.duration_since(now);
        if number == DENSITY_RUNS && took.as_secs() < beyond.as_secs() / (SIMULATED_RUNS_MAX / DENSITY_RUNS) as i64 {
            return None;
        }
        if end.is_some_and(|end| run.starts_from > end) {
            return Some(Holds {
                points_max,
                is_simulated: true,
            });
        }
        kept.add(calendar.zone(), run.starts_from);
        points_max = points_max.max(kept.points.len() as u64);
        if end.is_none() && kept.is_full() {
            end = run.starts_from.checked_add(beyond).ok();
        }
    }
    None
}

/// What [`plan`] would keep, maintained point by point, oldest first: a point is the newest of its bucket until the next of the same bucket comes.
struct Kept {
    rules: Vec<KeptByRule>,
    /// How many rules keep a point; no entry: none.
    points: BTreeMap<Timestamp, u32>,
}

struct KeptByRule {
    rule: RuleKind,
    count: usize,
    /// Oldest first.
    newest: VecDeque<(Option<Bucket>, Timestamp)>,
}

impl Kept {
    fn new(retention: &Retention) -> Self {
        let rule = |(rule, count)| KeptByRule {
            rule,
            count: usize::try_from(count).unwrap_or(usize::MAX),
            newest: VecDeque::new(),
        };
        Self {
            rules: retention.rules().map(rule).collect(),
            points: BTreeMap::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.rules.iter().all(|rule| rule.newest.len() >= rule.count)
    }

    fn add(&mut self, zone: &TimeZone, time: Timestamp) {
        for rule in &mut self.rules {
            let bucket = rule.rule.bucket(zone, time);
            let replaces = bucket.is_some() && rule.newest.back().is_some_and(|(newest, _)| *newest == bucket);
            let gone = match replaces {
                true => rule.newest.pop_back(),
                false if rule.newest.len() >= rule.count => rule.newest.pop_front(),
                false => None,
            };
            rule.newest.push_back((bucket, time));
            *self.points.entry(time).or_insert(0) += 1;
            if let Some((_, gone)) = gone
                && let Some(rules) = self.points.get_mut(&gone)
            {
                *rules -= 1;
                if *rules == 0 {
                    self.points.remove(&gone);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "preview_tests.rs"]
mod tests;
