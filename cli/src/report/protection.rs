//! Is every machine safe?

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1;

use super::page::{Bars, Cell, Days, Grid, Page, Part, Series, Tone};
use super::window::{Window, read};
use super::{Head, percent};
use crate::human;
use crate::verb::shown::some;

/// States of items, as `tresor status` and the metrics have them: what is worst first, with the class of its bar.
const STATES: [(&str, &str, Tone); 6] = [
    ("failing", "bad", Tone::Bad),
    ("never", "four", Tone::Bad),
    ("late", "warn", Tone::Warn),
    ("no schedule", "two", Tone::Warn),
    ("unprotected", "five", Tone::Dim),
    ("ok", "good", Tone::Good),
];
const HOUR: u64 = 3600;
/// Upper ends of the distribution of RPOs, seconds. A daily backup takes its while, so that its points are a little over a day apart.
const RPO_STEPS: [(u64, &str); 7] = [
    (HOUR, "up to 1 h"),
    (4 * HOUR, "up to 4 h"),
    (12 * HOUR, "up to 12 h"),
    (26 * HOUR, "up to 26 h"),
    (50 * HOUR, "up to 50 h"),
    (8 * 24 * HOUR, "up to 8 d"),
    (u64::MAX, "longer"),
];

/// What became of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Outcomes {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) cancelled: u64,
}

impl Outcomes {
    fn note(&mut self, state: &str) {
        match state {
            "done" => self.done += 1,
            "failed" => self.failed += 1,
            "cancelled" => self.cancelled += 1,
            _ => {}
        }
    }

    /// Of those that were not cancelled, how many were done.
    fn success(self) -> Option<f64> {
        percent(self.done, self.done + self.failed)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ItemRow {
    item: String,
    item_id: String,
    vault: String,
    policy: Option<String>,
    state: String,
    newest_time: Option<String>,
    newest_age_seconds: Option<u64>,
    consistency: Option<String>,
    /// Damage was found under its newest point.
    harmed: bool,
    next_due: Option<String>,
    late_since: Option<String>,
    late_by_seconds: Option<u64>,
    last_success: Option<String>,
    /// Of the newest backup job that ended.
    last_job: Option<u64>,
    last_outcome: Option<String>,
    last_error: Option<String>,
    points: u64,
    jobs: Outcomes,
    success_percent: Option<f64>,
    /// The longest time in the window without a newer point.
    rpo_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Totals {
    items: u64,
    protected: u64,
    ok: u64,
    late: u64,
    failing: u64,
    never: u64,
    no_schedule: u64,
    unprotected: u64,
    harmed: u64,
    points: u64,
    jobs: Outcomes,
    success_percent: Option<f64>,
    rpo_worst_seconds: Option<u64>,
}

#[derive(Debug, Serialize)]
struct DayRow {
    day: String,
    #[serde(flatten)]
    jobs: Outcomes,
}

#[derive(Debug, Serialize)]
struct RpoRow {
    /// None: longer than all before.
    up_to_seconds: Option<u64>,
    items: u64,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Protection {
    #[serde(flatten)]
    pub(crate) head: Head,
    totals: Totals,
    days: Vec<DayRow>,
    rpo: Vec<RpoRow>,
    items_without_rpo: u64,
    /// What is worst first, then by name.
    items: Vec<ItemRow>,
}

/// What is known of an item so far.
struct Known {
    item: v1::Item,
    points: u64,
    consistency: Option<String>,
    harmed: bool,
    /// When points in the window were made, seconds.
    made: Vec<i64>,
    /// The newest point from before it.
    before: Option<i64>,
    jobs: Outcomes,
    last: Option<(Timestamp, u64, String, String)>,
}

/// Items, then points and jobs of them in any order.
pub(crate) struct Fold {
    window: Window,
    /// Ages and lateness are as of then.
    now: Timestamp,
    items: BTreeMap<String, Known>,
    days: Vec<Outcomes>,
}

impl Known {
    fn makes(&mut self, at: Timestamp, window: Window) {
        if window.has(at) {
            self.made.push(at.as_second());
        } else if at < window.since {
            self.before = self.before.max(Some(at.as_second()));
        }
    }

    /// The longest time in the window with no newer point: between two of them of which the later is in it, and from the last one to its end. Before the
    /// first point there ever was, nothing was promised.
    fn rpo(&mut self, window: Window) -> Option<u64> {
        self.made.sort_unstable();
        let end = [window.until.as_second()];
        let times = self.made.iter().copied().chain(end);
        let mut last = self.before;
        let mut longest = None;
        for time in times {
            if let Some(last) = last {
                longest = longest.max(u64::try_from(time - last).ok());
            }
            last = Some(time);
        }
        longest
    }
}

impl Fold {
    /// An empty one.
    pub(crate) fn new(window: Window, now: Timestamp) -> Self {
        Self {
            days: vec![Outcomes::default(); window.days().len()],
            window,
            now,
            items: BTreeMap::new(),
        }
    }

    /// An item that the report is about.
    pub(crate) fn item(&mut self, item: v1::Item) {
        let known = Known {
            points: 0,
            consistency: None,
            harmed: false,
            made: Vec::new(),
            before: None,
            jobs: Outcomes::default(),
            last: None,
            item,
        };
        self.items.insert(known.item.id.clone(), known);
    }

    /// A point, also a hidden one: that it was there counts.
    pub(crate) fn point(&mut self, point: &v1::Point) {
        let window = self.window;
        let Some(known) = self.items.get_mut(&point.item) else {
            return;
        };
        known.points += u64::from(point.hidden_at.is_empty());
        if known.item.newest_point == point.id {
            known.consistency = some(point.consistency.clone());
            known.harmed = point.harmed;
        }
        if let Some(at) = read(&point.time) {
            known.makes(at, window);
        }
    }

    /// A job.
    pub(crate) fn job(&mut self, job: v1::Job) {
        let window = self.window;
        let (Some(ended), Some(known)) = (read(&job.ended), self.items.get_mut(&job.item_id)) else {
            return;
        };
        if job.kind != "backup" {
            return;
        }
        // Its point may be gone since: then this is what tells of it.
        if job.state == "done" {
            let started = job.attempts.last().and_then(|attempt| read(&attempt.started));
            known.makes(started.unwrap_or(ended), window);
        }
        if let Some(day) = window.day(ended) {
            known.jobs.note(&job.state);
            self.days[day].note(&job.state);
        }
        if ended < window.until && known.last.as_ref().is_none_or(|(last, ..)| *last < ended) {
            known.last = Some((ended, job.id, job.state, job.why));
        }
    }

    /// All of it.
    pub(crate) fn finish(self, head: Head) -> Protection {
        let window = self.window;
        let days = window.days().into_iter().zip(self.days);
        let mut items: Vec<ItemRow> = self
            .items
            .into_values()
            .map(|known| row(known, window, self.now))
            .collect();
        items.sort_by(|a, b| {
            let key = |row: &ItemRow| (rank(&row.state), std::cmp::Reverse(row.late_by_seconds));
            key(a)
                .cmp(&key(b))
                .then_with(|| (&a.item, &a.vault).cmp(&(&b.item, &b.vault)))
        });
        let mut rpo = RPO_STEPS.map(|(up_to, _)| RpoRow {
            up_to_seconds: Some(up_to).filter(|up_to| *up_to < u64::MAX),
            items: 0,
        });
        for seconds in items.iter().filter_map(|item| item.rpo_seconds) {
            let step = RPO_STEPS.iter().position(|(up_to, _)| seconds <= *up_to);
            rpo[step.unwrap_or(RPO_STEPS.len() - 1)].items += 1;
        }
        Protection {
            totals: totals(&items),
            days: days.map(|(day, jobs)| DayRow { day, jobs }).collect(),
            rpo: rpo.into(),
            items_without_rpo: items.iter().filter(|item| item.rpo_seconds.is_none()).count() as u64,
            items,
            head,
        }
    }
}

fn rank(state: &str) -> usize {
    STATES
        .iter()
        .position(|(name, ..)| *name == state)
        .unwrap_or(STATES.len())
}

fn row(mut known: Known, window: Window, now: Timestamp) -> ItemRow {
    let rpo_seconds = known.rpo(window);
    let seconds_since = |time: &str| u64::try_from(now.duration_since(read(time)?).as_secs()).ok();
    let item = known.item;
    let spec = item.spec.unwrap_or_default();
    let (last_job, last_outcome, why) = match known.last {
        Some((_, job, state, why)) => (Some(job), Some(state), why),
        None => (None, None, String::new()),
    };
    ItemRow {
        item: spec.name,
        item_id: item.id,
        vault: spec.vault,
        policy: some(spec.policy),
        newest_age_seconds: seconds_since(&item.newest_time),
        late_by_seconds: seconds_since(&item.late_since),
        state: item.state,
        newest_time: some(item.newest_time),
        consistency: known.consistency,
        harmed: known.harmed,
        next_due: some(item.next_due),
        late_since: some(item.late_since),
        last_success: some(item.last_success),
        last_job,
        last_outcome,
        last_error: some(why),
        points: known.points,
        jobs: known.jobs,
        success_percent: known.jobs.success(),
        rpo_seconds,
    }
}

fn totals(items: &[ItemRow]) -> Totals {
    let in_state = |state: &str| items.iter().filter(|item| item.state == state).count() as u64;
    let sum = |of: fn(&Outcomes) -> u64| items.iter().map(|item| of(&item.jobs)).sum();
    let jobs = Outcomes {
        done: sum(|jobs| jobs.done),
        failed: sum(|jobs| jobs.failed),
        cancelled: sum(|jobs| jobs.cancelled),
    };
    let unprotected = in_state("unprotected");
    Totals {
        items: items.len() as u64,
        protected: items.len() as u64 - unprotected,
        ok: in_state("ok"),
        late: in_state("late"),
        failing: in_state("failing"),
        never: in_state("never"),
        no_schedule: in_state("no schedule"),
        unprotected,
        harmed: items.iter().filter(|item| item.harmed).count() as u64,
        points: items.iter().map(|item| item.points).sum(),
        jobs,
        success_percent: jobs.success(),
        rpo_worst_seconds: items.iter().filter_map(|item| item.rpo_seconds).max(),
    }
}

/// A span in its largest whole unit, as people say it: `7 h`, `3 d`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => human::age(i64::try_from(seconds).unwrap_or(i64::MAX)),
    }
}

fn share(percent: f64) -> String {
    format!("{percent:.1} %")
}

impl Protection {
    /// Whether every item is as its policy wants, and nothing damaged.
    pub(crate) fn is_well(&self) -> bool {
        self.totals.ok == self.totals.items && self.totals.harmed == 0
    }

    fn answer(&self) -> (String, Tone) {
        let totals = &self.totals;
        if totals.items == 0 {
            return (String::from("There are no items: nothing is protected."), Tone::Warn);
        }
        let mut parts = Vec::new();
        for (count, words) in [
            (totals.failing, "failing"),
            (totals.never, "never backed up"),
            (totals.late, "late"),
            (totals.no_schedule, "without a schedule"),
            (totals.unprotected, "not protected any more"),
            (totals.harmed, "with damage under the newest point"),
        ] {
            if count > 0 {
                parts.push(format!("{} {words}", human::count(count)));
            }
        }
        let ok = human::count(totals.ok);
        let of = format!(
            "{ok} of {} are as their policies want",
            human::many(self.items.len(), "item")
        );
        match parts.is_empty() {
            true => (format!("{of}."), Tone::Good),
            false => {
                let must = totals.failing + totals.never + totals.late + totals.harmed > 0;
                let tone = if must { Tone::Bad } else { Tone::Warn };
                (format!("{of}; {}.", parts.join(", ")), tone)
            }
        }
    }

    /// Lays it out.
    pub(crate) fn page(&self) -> Page {
        let totals = &self.totals;
        let bad = |count: u64, tone| Cell::count(count).meant(if count > 0 { tone } else { Tone::Plain });
        Page {
            title: "Protection report",
            answer: self.answer(),
            about: self.head.about(),
            notes: self.head.notes.clone(),
            facts: vec![
                ("items", Cell::count(totals.items)),
                ("ok", Cell::count(totals.ok)),
                ("late", bad(totals.late, Tone::Warn)),
                ("failing", bad(totals.failing, Tone::Bad)),
                ("never backed up", bad(totals.never, Tone::Bad)),
                ("no schedule", bad(totals.no_schedule, Tone::Warn)),
                ("unprotected", Cell::count(totals.unprotected)),
                ("recovery points", Cell::count(totals.points)),
                ("backups done", Cell::count(totals.jobs.done)),
                ("backups failed", bad(totals.jobs.failed, Tone::Warn)),
                ("success rate", Cell::of(totals.success_percent, share)),
                ("worst RPO", Cell::of(totals.rpo_worst_seconds, span)),
            ],
            parts: self.parts(),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let series = |name: &str, class, of: fn(&Outcomes) -> u64| Series {
            name: name.to_owned(),
            class,
            values: self.days.iter().map(|day| of(&day.jobs)).collect(),
        };
        let count = |state: &str| self.items.iter().filter(|item| item.state == state).count() as u64;
        let states: Vec<_> = STATES
            .iter()
            .map(|(state, class, _)| ((*state).to_owned(), count(state), *class))
            .collect();
        let mut rpo: Vec<_> = RPO_STEPS
            .iter()
            .zip(&self.rpo)
            .map(|((_, name), row)| ((*name).to_owned(), row.items, "one"))
            .collect();
        rpo.push((String::from("unknown"), self.items_without_rpo, "dim"));
        vec![
            Part::Days(Days {
                title: "Backups by day they ended",
                days: self.days.iter().map(|day| day.day.clone()).collect(),
                series: vec![
                    series("done", "good", |jobs| jobs.done),
                    series("failed", "bad", |jobs| jobs.failed),
                    series("cancelled", "five", |jobs| jobs.cancelled),
                ],
                read: human::count,
                binary: false,
            }),
            Part::Numbers(self.days_grid()),
            Part::Bars(Bars {
                title: "Items by state",
                rows: states.clone(),
                read: human::count,
            }),
            Part::Numbers(pairs("states", "Items by state", "state", "items", &states)),
            Part::Bars(Bars {
                title: "Items by longest time without a newer point",
                rows: rpo.clone(),
                read: human::count,
            }),
            Part::Numbers(pairs("rpo", "Items by RPO", "rpo", "items", &rpo)),
            Part::Grid(self.items_grid()),
        ]
    }

    fn days_grid(&self) -> Grid {
        let row = |day: &DayRow| {
            let Outcomes {
                done,
                failed,
                cancelled,
            } = day.jobs;
            let counts = [done, failed, cancelled].map(Cell::count);
            [Cell::text(&day.day)].into_iter().chain(counts).collect()
        };
        Grid {
            name: "days",
            heading: "Backups by day",
            note: None,
            columns: vec!["day", ">done", ">failed", ">cancelled"],
            rows: self.days.iter().map(row).collect(),
            left_out: 0,
        }
    }

    fn items_grid(&self) -> Grid {
        Grid {
            name: "items",
            heading: "Items",
            note: Some(String::from(
                "RPO is the longest time in the window without a newer recovery point, that up to its end among them. Success counts backups that ended in the window and were not cancelled.",
            )),
            columns: vec![
                "item",
                "vault",
                "policy",
                "state",
                ">newest",
                "consistency",
                "next due",
                ">late by",
                "last backup",
                ">points",
                ">success",
                ">rpo",
                "last error",
            ],
            rows: self.items.iter().map(item_cells).collect(),
            left_out: 0,
        }
    }
}

fn item_cells(item: &ItemRow) -> Vec<Cell> {
    let none = |text: &Option<String>, word: &str| match text {
        Some(text) => Cell::text(text),
        None => Cell {
            text: word.to_owned(),
            raw: String::new(),
            tone: Tone::Dim,
        },
    };
    let or_none = |seconds: Option<u64>| match seconds {
        Some(seconds) => Cell::of(Some(seconds), span),
        None => none(&None, "–"),
    };
    let tone = STATES.get(rank(&item.state)).map_or(Tone::Plain, |(.., tone)| *tone);
    let consistency = match &item.consistency {
        Some(word) if item.harmed => Cell::text(format!("{word}, damaged")).meant(Tone::Bad),
        word => none(word, "–"),
    };
    let outcome = match item.last_outcome.as_deref() {
        Some("failed") => Cell::text("failed").meant(Tone::Bad),
        Some(word) => Cell::text(word),
        None => none(&None, "unknown"),
    };
    let newest = match item.newest_age_seconds {
        Some(seconds) => Cell {
            text: span(seconds),
            raw: item.newest_time.clone().unwrap_or_default(),
            tone: Tone::Plain,
        },
        None => none(&None, "none"),
    };
    vec![
        Cell::text(&item.item),
        Cell::text(&item.vault),
        none(&item.policy, "none"),
        Cell::text(&item.state).meant(tone),
        newest,
        consistency,
        match &item.next_due {
            Some(due) => Cell::time(due),
            None => none(&None, "–"),
        },
        or_none(item.late_by_seconds).meant(if item.late_by_seconds.is_some() {
            Tone::Warn
        } else {
            Tone::Dim
        }),
        outcome,
        Cell::count(item.points),
        Cell::of(
            item.success_percent.map(|percent| (percent * 10.0).round() / 10.0),
            share,
        ),
        Cell::of(item.rpo_seconds, span),
        none(&item.last_error, ""),
    ]
}

/// The numbers of a chart by name.
pub(super) fn pairs(
    name: &'static str,
    heading: &'static str,
    of: &'static str,
    what: &'static str,
    rows: &[(String, u64, &'static str)],
) -> Grid {
    let row = |(name, value, _): &(String, u64, &'static str)| vec![Cell::text(name), Cell::count(*value)];
    Grid {
        name,
        heading,
        note: None,
        columns: vec![of, if what == "items" { ">items" } else { ">count" }],
        rows: rows.iter().map(row).collect(),
        left_out: 0,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::testing::{head, item, job, now, point, window};
    use super::*;

    fn web() -> v1::Item {
        v1::Item {
            newest_point: String::from("p2"),
            newest_time: String::from("2026-11-21T02:00:00Z"),
            late_since: String::from("2026-11-22T04:00:00Z"),
            state: String::from("late"),
            ..item("web", "main", "daily")
        }
    }

    fn report(fill: impl FnOnce(&mut Fold)) -> Protection {
        let mut fold = Fold::new(window(), now());
        fill(&mut fold);
        fold.finish(head("protection"))
    }

    #[test]
    fn an_item_is_told_with_its_points_jobs_lateness_and_longest_gap() {
        let report = report(|fold| {
            fold.item(web());
            fold.point(&v1::Point {
                consistency: String::from("filesystem"),
                ..point("p2", "web", "2026-11-21T02:00:00Z")
            });
            fold.point(&point("p1", "web", "2026-11-20T02:00:00Z"));
            fold.job(job(3, "web", "failed", "2026-11-22T02:10:00Z"));
            fold.job(job(2, "web", "done", "2026-11-21T02:00:00Z"));
            // Of an item that is not asked about.
            fold.job(job(1, "db", "failed", "2026-11-21T02:05:00Z"));
        });
        let web = &report.items[0];
        assert_eq!(web.late_by_seconds, Some(6 * 3600));
        assert_eq!(web.newest_age_seconds, Some(32 * 3600));
        assert_eq!(web.consistency.as_deref(), Some("filesystem"));
        assert_eq!((web.points, web.success_percent), (2, Some(50.0)));
        assert_eq!((web.last_job, web.last_outcome.as_deref()), (Some(3), Some("failed")));
        assert_eq!(web.last_error.as_deref(), Some("why 3"));
        assert_eq!(web.rpo_seconds, Some(32 * 3600), "from the newest point until now");
        assert!(!report.is_well());
        assert_eq!(report.days.iter().map(|day| day.jobs.failed).sum::<u64>(), 1);
    }

    #[test]
    fn a_point_that_expired_still_made_its_gap_shorter() {
        let gap = |jobs: &[&str]| {
            report(|fold| {
                fold.item(web());
                for time in ["2026-11-22T09:00:00Z", "2026-11-16T09:00:00Z"] {
                    fold.point(&point("p", "web", time));
                }
                for (at, time) in jobs.iter().enumerate() {
                    fold.job(job(at as u64, "web", "done", time));
                }
            })
            .items[0]
                .rpo_seconds
        };
        assert_eq!(gap(&[]), Some(6 * 86_400));
        assert_eq!(gap(&["2026-11-18T09:00:00Z", "2026-11-20T09:00:00Z"]), Some(2 * 86_400));
    }

    #[test]
    fn the_gap_before_the_first_point_ever_is_nobodys() {
        let of = |times: &[&str]| {
            report(|fold| {
                fold.item(web());
                for time in times {
                    fold.point(&point("p", "web", time));
                }
            })
            .items[0]
                .rpo_seconds
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["2026-11-22T09:00:00Z"]), Some(3600));
        assert_eq!(
            of(&["2026-11-22T09:00:00Z", "2026-11-01T09:00:00Z"]),
            Some(21 * 86_400),
            "one from before the window counts whole"
        );
        assert_eq!(
            of(&["2026-11-01T10:00:00Z"]),
            Some(21 * 86_400),
            "none is in the window"
        );
    }

    #[test]
    fn totals_are_the_sums_of_items_and_of_days() {
        let report = report(|fold| {
            let mut number = 0;
            for (at, (state, ..)) in STATES.iter().enumerate() {
                for copy in 0..=at {
                    let name = format!("{}-{copy}", state.replace(' ', "-"));
                    fold.item(v1::Item {
                        state: (*state).to_owned(),
                        ..item(&name, "main", "")
                    });
                    for (hour, outcome) in ["done", "failed", "cancelled", "done"].iter().enumerate() {
                        number += 1;
                        let time = format!("2026-11-{:02}T{hour:02}:00:00Z", 16 + at);
                        fold.job(job(number, &name, outcome, &time));
                    }
                    fold.point(&point("p", &name, "2026-11-20T00:00:00Z"));
                }
            }
        });
        let totals = &report.totals;
        let states = [
            totals.failing,
            totals.never,
            totals.late,
            totals.no_schedule,
            totals.unprotected,
            totals.ok,
        ];
        assert_eq!(states, [1, 2, 3, 4, 5, 6]);
        assert_eq!(states.iter().sum::<u64>(), totals.items);
        assert_eq!(totals.items - totals.unprotected, totals.protected);
        for (of_days, of_items) in [
            (report.days.iter().map(|d| d.jobs.done).sum::<u64>(), totals.jobs.done),
            (report.days.iter().map(|d| d.jobs.failed).sum(), totals.jobs.failed),
            (
                report.days.iter().map(|d| d.jobs.cancelled).sum(),
                totals.jobs.cancelled,
            ),
        ] {
            assert_eq!(of_days, of_items);
        }
        let with_rpo: u64 = report.rpo.iter().map(|row| row.items).sum();
        assert_eq!(with_rpo + report.items_without_rpo, totals.items);
        assert_eq!(totals.points, totals.items);
        assert_eq!(report.items[0].state, "failing", "what is worst is first");
        let page = report.page();
        for grid in page.grids() {
            for row in &grid.rows {
                assert_eq!(row.len(), grid.columns.len(), "{}", grid.name);
            }
        }
    }

    #[test]
    fn the_text_of_a_small_report() {
        let report = report(|fold| {
            fold.item(web());
            fold.item(v1::Item {
                state: String::from("ok"),
                newest_time: String::from("2026-11-22T09:30:00Z"),
                newest_point: String::from("p9"),
                next_due: String::from("2026-11-23T02:00:00Z"),
                ..item("db", "main", "daily")
            });
            fold.point(&v1::Point {
                consistency: String::from("crash"),
                ..point("p9", "db", "2026-11-22T09:30:00Z")
            });
            fold.job(job(1, "db", "done", "2026-11-22T09:31:00Z"));
            fold.job(job(2, "web", "failed", "2026-11-22T02:31:00Z"));
        });
        insta::assert_snapshot!(super::super::text::draw(&report.page(), 50));
        insta::assert_snapshot!(
            "protection-csv",
            super::super::csv::draw(report.page().grids().last().unwrap())
        );
        insta::assert_snapshot!("protection-json", serde_json::to_string_pretty(&report).unwrap());
    }
}
