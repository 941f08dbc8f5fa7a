//! Retention by example and by property.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use super::*;
use crate::schedule::zone;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn berlin() -> TimeZone {
    zone::find("Europe/Berlin").unwrap()
}

const NOW: &str = "2026-11-20T12:00:00Z";

fn view(id: u32, time: &str) -> PointView<u32> {
    PointView {
        id,
        time: at(time),
        keep_until: None,
        held: false,
        damaged: false,
    }
}

/// `id: reasons`, newest first, as a person reads them.
fn planned(points: &[PointView<u32>], retention: &str) -> Vec<String> {
    let retention: Retention = retention.parse().unwrap();
    plan(points, Some(&retention), &berlin(), at(NOW))
        .iter()
        .map(|verdict| {
            let reasons: Vec<String> = verdict.reasons.iter().map(Reason::to_string).collect();
            match verdict.is_kept() {
                true => format!("{}: {}", verdict.id, reasons.join(", ")),
                false => format!("{}: expires", verdict.id),
            }
        })
        .collect()
}

#[test]
fn retention_survives_its_text_form_and_says_what_it_means() {
    for (text, shown, words) in [
        (
            "last 3, daily 7, weekly 4, monthly 12, yearly 2",
            "last 3, daily 7, weekly 4, monthly 12, yearly 2",
            "the last 3 points, and the newest of each of the last 7 days, 4 weeks, 12 months and 2 years with a point",
        ),
        (
            "DAILY 1,last 0",
            "daily 1",
            "the newest of each of the last 1 day with a point",
        ),
        ("last 1", "last 1", "the last point"),
        (
            " hourly  24 ,last 2",
            "last 2, hourly 24",
            "the last 2 points, and the newest of each of the last 24 hours with a point",
        ),
    ] {
        let retention: Retention = text.parse().unwrap();
        assert_eq!(retention.to_string(), shown);
        assert_eq!(retention.words(), words);
        assert_eq!(shown.parse::<Retention>().unwrap(), retention);
        let bytes = postcard::to_stdvec(&retention).unwrap();
        assert_eq!(postcard::from_bytes::<Retention>(&bytes).unwrap(), retention);
    }
}

#[test]
fn retention_that_keeps_nothing_or_too_much_or_is_unclear_is_refused() {
    for text in ["", "  ", "last 0", "daily 0, weekly 0"] {
        assert_eq!(
            text.parse::<Retention>().unwrap_err(),
            RetentionError::KeepsNothing,
            "{text}"
        );
    }
    assert_eq!(
        "daily 7, daily 8".parse::<Retention>().unwrap_err(),
        RetentionError::Twice { rule: "daily" }
    );
    assert_eq!(
        "hourly 10001".parse::<Retention>().unwrap_err(),
        RetentionError::TooMany {
            rule: "hourly",
            count: 10_001
        }
    );
    for text in [
        "daily",
        "daily 7 8",
        "dayly 7",
        "daily -1",
        "daily +1",
        "daily 7,",
        "daily 99999999999",
        "7 daily",
    ] {
        let error = text.parse::<Retention>().unwrap_err();
        assert!(matches!(error, RetentionError::Field(_)), "{text}: {error}");
        assert!(error.to_string().contains(EXAMPLE), "{text}: {error}");
    }
}

#[test]
fn each_rule_keeps_the_newest_point_of_each_of_its_buckets_and_all_reasons_are_said() {
    // 23:30 UTC on the 18th is already the 19th in Berlin. The 16th is a Monday; the 15th is of the week before.
    let points = [
        view(1, "2026-11-20T01:00:00Z"),
        view(2, "2026-11-19T13:00:00Z"),
        view(3, "2026-11-18T23:30:00Z"),
        view(4, "2026-11-18T22:30:00Z"),
        view(5, "2026-11-16T01:00:00Z"),
        view(6, "2026-11-15T01:00:00Z"),
        view(7, "2026-10-31T01:00:00Z"),
        view(8, "2025-12-31T22:59:59Z"),
        view(9, "2025-12-31T01:00:00Z"),
    ];
    assert_eq!(
        planned(&points, "last 2, daily 3, weekly 2, monthly 3, yearly 2"),
        [
            "1: last 1 of 2, daily 2026-11-20, weekly 2026-W47, monthly 2026-11, yearly 2026",
            "2: last 2 of 2, daily 2026-11-19",
            "3: expires",
            "4: daily 2026-11-18",
            "5: expires",
            "6: weekly 2026-W46",
            "7: monthly 2026-10",
            "8: monthly 2025-12, yearly 2025",
            "9: expires",
        ]
    );
}

#[test]
fn empty_buckets_do_not_count() {
    let points = [
        view(1, "2026-11-01T01:00:00Z"),
        view(2, "2026-08-01T01:00:00Z"),
        view(3, "2024-01-01T01:00:00Z"),
        view(4, "2023-01-01T01:00:00Z"),
    ];
    assert_eq!(
        planned(&points, "daily 3"),
        [
            "1: daily 2026-11-01",
            "2: daily 2026-08-01",
            "3: daily 2024-01-01",
            "4: expires"
        ]
    );
}

#[test]
fn an_hour_that_the_clock_shows_twice_is_two_hours() {
    // Berlin showed 02:00 to 03:00 twice on the 25th of October 2026.
    let points = [
        view(1, "2026-10-25T01:30:00Z"),
        view(2, "2026-10-25T00:30:00Z"),
        view(3, "2026-10-25T00:10:00Z"),
    ];
    assert_eq!(
        planned(&points, "hourly 5"),
        ["1: hourly 2026-10-25 02:00", "2: hourly 2026-10-25 02:00", "3: expires"]
    );
    assert_eq!(
        planned(&points, "daily 5"),
        ["1: daily 2026-10-25", "2: expires", "3: expires"]
    );
}

#[test]
fn weeks_are_iso_weeks_across_the_end_of_a_year() {
    // Thursday the 31st of December 2026 and Friday the 1st of January 2027 are both of week 53 of 2026.
    let points = [view(1, "2027-01-01T12:00:00Z"), view(2, "2026-12-31T12:00:00Z")];
    let retention: Retention = "weekly 9, yearly 9".parse().unwrap();
    let verdicts = plan(&points, Some(&retention), &berlin(), at("2027-02-01T00:00:00Z"));
    let shown: Vec<Vec<String>> = verdicts
        .iter()
        .map(|verdict| verdict.reasons.iter().map(Reason::to_string).collect())
        .collect();
    assert_eq!(shown, [vec!["weekly 2026-W53", "yearly 2027"], vec!["yearly 2026"]]);
}

#[test]
fn holds_and_dates_keep_points_that_no_rule_keeps() {
    let mut points = [
        view(1, "2026-11-20T01:00:00Z"),
        view(2, "2026-11-19T01:00:00Z"),
        view(3, "2026-11-18T01:00:00Z"),
        view(4, "2026-11-17T01:00:00Z"),
        view(5, "2026-11-16T01:00:00Z"),
    ];
    points[1].held = true;
    points[2].keep_until = Some(at("2027-01-01T00:00:00Z"));
    // Over at this very moment.
    points[3].keep_until = Some(at(NOW));
    assert_eq!(
        planned(&points, "last 1"),
        [
            "1: last 1 of 1",
            "2: held",
            "3: kept until 2027-01-01T00:00:00Z",
            "4: expires",
            "5: expires",
        ]
    );
}

#[test]
fn a_point_of_the_future_stays_and_takes_no_place() {
    let points = [
        view(1, "2099-01-01T00:00:00Z"),
        view(2, "2026-11-20T11:00:00Z"),
        view(3, "2026-11-19T01:00:00Z"),
        view(4, "2026-11-18T01:00:00Z"),
    ];
    assert_eq!(
        planned(&points, "last 2"),
        [
            "1: made in the future: a clock was wrong",
            "2: last 1 of 2",
            "3: last 2 of 2",
            "4: expires",
        ]
    );
}

#[test]
fn a_damaged_point_uses_up_no_allowance() {
    let mut points = [
        view(1, "2026-11-20T11:00:00Z"),
        view(2, "2026-11-20T01:00:00Z"),
        view(3, "2026-11-19T11:00:00Z"),
        view(4, "2026-11-18T01:00:00Z"),
    ];
    points[0].damaged = true;
    assert_eq!(
        planned(&points, "daily 1"),
        [
            "1: daily 2026-11-20",
            "2: daily 2026-11-20 (a newer one is damaged)",
            "3: expires",
            "4: expires"
        ]
    );
    assert_eq!(
        planned(&points, "last 2"),
        [
            "1: last 1 of 2",
            "2: last 1 of 2 (a newer one is damaged)",
            "3: last 2 of 2",
            "4: expires",
        ]
    );
    // A day of damaged ones only is kept whole, and is not one of the two days.
    points[1].damaged = true;
    assert_eq!(
        planned(&points, "daily 2"),
        [
            "1: daily 2026-11-20",
            "2: daily 2026-11-20 (a newer one is damaged)",
            "3: daily 2026-11-19",
            "4: daily 2026-11-18",
        ]
    );
}

#[test]
fn the_newest_point_stays_whatever_is_asked() {
    // A retention of nothing is refused, but should one come all the same:
    let points = [view(1, "2020-01-02T00:00:00Z"), view(2, "2020-01-01T00:00:00Z")];
    let verdicts = plan(&points, Some(&Retention::default()), &berlin(), at(NOW));
    assert_eq!(verdicts[0].reasons, [Reason::NewestOfItem]);
    assert!(!verdicts[1].is_kept());
    let mut points = points;
    points[0].damaged = true;
    let verdicts = plan(&points, Some(&Retention::default()), &berlin(), at(NOW));
    assert_eq!(verdicts[0].reasons, [Reason::NewestOfItem]);
    assert_eq!(verdicts[1].reasons, [Reason::NewestSound]);
}

#[test]
fn without_a_policy_everything_stays() {
    let points = [view(1, "2020-01-02T00:00:00Z"), view(2, "1990-01-01T00:00:00Z")];
    let verdicts = plan(&points, None, &berlin(), at(NOW));
    assert!(verdicts.iter().all(|verdict| verdict.reasons == [Reason::NoRetention]));
}

#[test]
fn points_of_one_moment_are_told_apart_by_their_ids() {
    let points = [view(1, "2026-11-20T01:00:00Z"), view(2, "2026-11-20T01:00:00Z")];
    assert_eq!(planned(&points, "last 1"), ["2: last 1 of 1", "1: expires"]);
}

// ---- Properties ----

fn any_points() -> impl Strategy<Value = Vec<PointView<u32>>> {
    // Two years around now, in steps that make points share hours and days; some at the same moment.
    let now = at(NOW).as_second();
    let time = prop_oneof![
        (-400i64..40).prop_map(move |days| now + days * 86_400),
        (-200i64..20).prop_map(move |steps| now + steps * 1700),
    ];
    let point = (
        time,
        prop_oneof![4 => Just(None), 1 => (-50i64..50).prop_map(Some)],
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.2),
    );
    proptest::collection::vec(point, 0..60).prop_map(move |points| {
        (0..)
            .zip(points)
            .map(|(id, (time, keep_days, held, damaged))| PointView {
                id,
                time: Timestamp::from_second(time).unwrap(),
                keep_until: keep_days.map(|days| Timestamp::from_second(now + days * 86_400).unwrap()),
                held,
                damaged,
            })
            .collect()
    })
}

fn any_retention() -> impl Strategy<Value = Retention> {
    (0u32..5, 0u32..6, 0u32..8, 0u32..6, 0u32..6, 0u32..3)
        .prop_map(|(last, hourly, daily, weekly, monthly, yearly)| Retention {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
        })
        .prop_filter("keeps something", |retention| retention.validate().is_ok())
}

fn kept(points: &[PointView<u32>], retention: &Retention) -> BTreeSet<u32> {
    plan(points, Some(retention), &berlin(), at(NOW))
        .iter()
        .filter(|verdict| verdict.is_kept())
        .map(|verdict| verdict.id)
        .collect()
}

proptest! {
    #[test]
    fn what_a_plan_leaves_the_same_plan_leaves_again(points in any_points(), retention in any_retention()) {
        let first = kept(&points, &retention);
        let left: Vec<PointView<u32>> = points.into_iter().filter(|point| first.contains(&point.id)).collect();
        prop_assert_eq!(kept(&left, &retention), first);
    }

    #[test]
    fn expiring_only_some_of_what_expires_changes_nothing(
        points in any_points(), retention in any_retention(), spared: u64,
    ) {
        // Retention that was interrupted, and goes on later.
        let first = kept(&points, &retention);
        let left: Vec<PointView<u32>> = points
            .into_iter()
            .filter(|point| first.contains(&point.id) || spared >> (point.id % 64) & 1 == 1)
            .collect();
        prop_assert_eq!(kept(&left, &retention), first);
    }

    #[test]
    fn a_greater_allowance_never_expires_more(
        points in any_points(), retention in any_retention(), rule in 0usize..6, more in 1u32..5,
    ) {
        let before = kept(&points, &retention);
        let mut greater = retention;
        *greater.count_mut(RuleKind::ALL[rule]) += more;
        let after = kept(&points, &greater);
        prop_assert!(before.is_subset(&after), "{:?} {:?}", before, after);
    }

    #[test]
    fn a_finding_never_makes_a_point_expire(points in any_points(), retention in any_retention(), found: prop::sample::Index) {
        let before = kept(&points, &retention);
        let mut points = points;
        prop_assume!(!points.is_empty());
        let found = found.index(points.len());
        points[found].damaged = true;
        prop_assert!(before.is_subset(&kept(&points, &retention)));
    }

    #[test]
    fn the_newest_point_and_what_people_keep_never_expire(points in any_points(), retention in any_retention()) {
        let kept = kept(&points, &retention);
        let now = at(NOW);
        let newest = |damage: bool| {
            points
                .iter()
                .filter(|point| point.time <= now && (damage || !point.damaged))
                .max_by_key(|point| (point.time, point.id))
        };
        for point in newest(true).into_iter().chain(newest(false)) {
            prop_assert!(kept.contains(&point.id));
        }
        for point in &points {
            if point.held || point.time > now || point.keep_until.is_some_and(|until| until > now) {
                prop_assert!(kept.contains(&point.id));
            }
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        (points, shuffled) in any_points().prop_flat_map(|points| (Just(points.clone()), Just(points).prop_shuffle())),
        retention in any_retention(),
    ) {
        let verdicts = plan(&points, Some(&retention), &berlin(), at(NOW));
        prop_assert_eq!(&verdicts, &plan(&shuffled, Some(&retention), &berlin(), at(NOW)));
        prop_assert!(verdicts.is_sorted_by_key(|verdict| std::cmp::Reverse((verdict.time, verdict.id))));
        prop_assert_eq!(verdicts.len(), points.len());
    }

    #[test]
    fn each_rule_keeps_as_many_as_it_may(points in any_points(), retention in any_retention()) {
        // Sound points only: then a rule's points are as many as its buckets, up to its count.
        let points: Vec<PointView<u32>> = points.into_iter().filter(|point| !point.damaged).collect();
        let counted: Vec<Timestamp> = points.iter().map(|point| point.time).filter(|time| *time <= at(NOW)).collect();
        let verdicts = plan(&points, Some(&retention), &berlin(), at(NOW));
        for (rule, count) in retention.rules() {
            let buckets: BTreeSet<Option<Bucket>> = counted.iter().map(|time| rule.bucket(&berlin(), *time)).collect();
            let there = if rule == RuleKind::Last { counted.len() } else { buckets.len() };
            let named = verdicts
                .iter()
                .flat_map(|verdict| &verdict.reasons)
                .filter(|reason| match reason {
                    Reason::Last { .. } => rule == RuleKind::Last,
                    Reason::Newest { bucket, .. } => buckets.contains(&Some(*bucket)),
                    _ => false,
                })
                .count();
            prop_assert_eq!(named, there.min(count as usize));
        }
    }
}
