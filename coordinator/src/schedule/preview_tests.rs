//! Previews against what would then happen.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::schedule::Calendar;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(schedule: &str, jitter: &str, windows: Option<&str>) -> Compiled {
    Calendar {
        schedule: schedule.parse().unwrap(),
        zone: "Europe/Berlin".to_owned(),
        jitter: crate::schedule::words::parse_span("jitter", jitter, "30m").unwrap(),
        windows: windows.map(|windows| windows.parse().unwrap()),
    }
    .compile(at("2026-01-01T00:00:00Z"))
    .unwrap()
}

fn view(id: u32, time: Timestamp) -> PointView<u32> {
    PointView {
        id,
        time,
        keep_until: None,
        held: false,
        damaged: false,
    }
}

#[test]
fn a_preview_shows_the_next_runs_and_what_becomes_of_the_points() {
    let calendar = calendar("daily 02:00", "30m", None);
    let now = at("2026-11-20T12:00:00Z");
    let points: Vec<PointView<u32>> = (0..4)
        .map(|days| view(days, at("2026-11-20T01:00:00Z") - Duration::from_secs(86_400) * days))
        .collect();
    let retention: Retention = "daily 2".parse().unwrap();
    let preview = preview(&calendar, Some(&retention), &points, now, 2);
    let run = |occurrence: &str, until: &str| Run {
        occurrence: at(occurrence),
        starts_from: at(occurrence),
        starts_until: at(until),
    };
    assert_eq!(
        preview.runs,
        [
            run("2026-11-21T01:00:00Z", "2026-11-21T01:30:00Z"),
            run("2026-11-22T01:00:00Z", "2026-11-22T01:30:00Z"),
        ]
    );
    let kept: Vec<(u32, bool)> = preview
        .points
        .iter()
        .map(|verdict| (verdict.id, verdict.is_kept()))
        .collect();
    assert_eq!(kept, [(0, true), (1, true), (2, false), (3, false)]);
    assert_eq!(
        preview.holds,
        Some(Holds {
            points_max: 2,
            is_simulated: true
        })
    );
}

#[test]
fn without_retention_there_is_no_bound_and_runs_are_bounded_all_the_same() {
    let calendar = calendar("every 30s", "0s", None);
    let preview = preview::<u32>(&calendar, None, &[], at("2026-11-20T12:00:00Z"), usize::MAX);
    assert_eq!(preview.runs.len(), RUNS_MAX);
    assert_eq!(preview.holds, None);
}

#[test]
fn runs_that_wait_for_one_opening_are_one_run() {
    let calendar = calendar("hourly :30", "0s", Some("mon-sun 20:00-22:00"));
    // 20:00 in Berlin is 19:00 UTC: what waited, then 20:30 and 21:30, then the next day's opening.
    let runs: Vec<(Timestamp, Timestamp)> = next_runs(&calendar, at("2026-11-20T10:00:00Z"))
        .take(4)
        .map(|run| (run.occurrence, run.starts_from))
        .collect();
    let expected = [
        ("2026-11-20T18:30:00Z", "2026-11-20T19:00:00Z"),
        ("2026-11-20T19:30:00Z", "2026-11-20T19:30:00Z"),
        ("2026-11-20T20:30:00Z", "2026-11-20T20:30:00Z"),
        ("2026-11-21T18:30:00Z", "2026-11-21T19:00:00Z"),
    ]
    .map(|(occurrence, starts)| (at(occurrence), at(starts)));
    assert_eq!(runs, expected);
}

#[test]
fn a_dense_schedule_has_the_bound_that_no_schedule_exceeds() {
    let calendar = calendar("every 15m", "0s", None);
    let retention: Retention = "last 3, hourly 24, daily 7, weekly 4, monthly 12, yearly 2"
        .parse()
        .unwrap();
    assert_eq!(
        holds(&calendar, &retention, at("2026-11-20T12:00:00Z")),
        Holds {
            points_max: 52 - 5,
            is_simulated: false
        }
    );
}

#[test]
fn a_sparse_schedule_is_simulated_and_holds_fewer_than_the_sum_of_its_rules() {
    let now = at("2026-11-20T12:00:00Z");
    let daily = calendar("daily 02:00", "0s", None);
    // The last three are among the seven days.
    let retention: Retention = "last 3, daily 7".parse().unwrap();
    let seven = Holds {
        points_max: 7,
        is_simulated: true,
    };
    assert_eq!(holds(&daily, &retention, now), seven);
    // Hours of a daily schedule are its days.
    let retention: Retention = "hourly 5, daily 7".parse().unwrap();
    assert_eq!(holds(&daily, &retention, now), seven);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_item_holds_more_than_was_shown(
        schedule in prop::sample::select(vec![
            "daily 02:00", "weekly sun,wed 03:30", "monthly 1,last 04:00", "every 7h", "cron 0 2,14 * * 1-5", "every 50m",
        ]),
        last in 0u32..4, hourly in 0u32..4, daily in 0u32..5, weekly in 0u32..4, monthly in 0u32..4, yearly in 0u32..3,
        start in 1_767_225_600i64..1_830_297_600,
    ) {
        let retention = Retention { last, hourly, daily, weekly, monthly, yearly };
        prop_assume!(retention.validate().is_ok());
        let calendar = calendar(schedule, "0s", None);
        let now = Timestamp::from_second(start).unwrap();
        let holds = holds(&calendar, &retention, now);
        let mut simulated = Kept::new(&retention);
        let mut points: Vec<PointView<u32>> = Vec::new();
        let mut most = 0;
        for (id, run) in (0..).zip(next_runs(&calendar, now).take(500)) {
            // What the simulation keeps is what the plan keeps, run for run.
            points.push(view(id, run.starts_from));
            let verdicts = plan(&points, Some(&retention), calendar.zone(), run.starts_from);
            let kept: Vec<Timestamp> = verdicts.iter().filter(|verdict| verdict.is_kept()).map(|verdict| verdict.time).collect();
            points.retain(|point| kept.contains(&point.time));
            simulated.add(calendar.zone(), run.starts_from);
            prop_assert!(simulated.points.keys().rev().eq(kept.iter()));
            most = most.max(points.len() as u64);
        }
        prop_assert!(most <= holds.points_max, "{} held, {:?}", most, holds);
    }
}
