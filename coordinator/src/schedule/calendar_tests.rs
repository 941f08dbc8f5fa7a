//! What is due: jitter, windows, catching up; and whole histories of an item against the promises of the module.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ITEM: &[u8] = b"an item";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn calendar(schedule: &str, zone: &str, jitter_s: u64, windows: Option<&str>) -> Calendar {
    Calendar {
        schedule: schedule.parse().unwrap(),
        zone: zone.to_owned(),
        jitter: Duration::from_secs(jitter_s),
        windows: windows.map(|windows| windows.parse().unwrap()),
    }
}

fn compiled(schedule: &str, jitter_s: u64, windows: Option<&str>) -> Compiled {
    calendar(schedule, "Europe/Berlin", jitter_s, windows)
        .compile(at("2026-01-01T00:00:00Z"))
        .unwrap()
}

fn due(occurrence: &str, starts: &str) -> Due {
    Due {
        occurrence: at(occurrence),
        at: at(starts),
    }
}

#[test]
fn a_calendar_says_in_words_what_it_does() {
    for (calendar, words) in [
        (
            calendar("daily 02:00", "Europe/Berlin", 0, None),
            "every day at 02:00 Europe/Berlin",
        ),
        (
            calendar("cron 0 2 * * 1", "Europe/Berlin", 0, None),
            "at 02:00, on Monday (Europe/Berlin)",
        ),
        (
            calendar("weekly sun 03:30", "UTC", 1800, None),
            "every Sunday at 03:30 UTC, each item up to 30 minutes later",
        ),
        (
            calendar("every 15m", "Asia/Kathmandu", 60, Some("mon-fri 20:00-06:00")),
            "every 15 minutes, each item up to 1 minute later, starting only Monday to Friday 20:00-06:00 Asia/Kathmandu",
        ),
    ] {
        assert_eq!(calendar.words(), words);
    }
}

#[test]
fn a_calendar_survives_storing() {
    let calendar = calendar(
        "monthly 1,last 04:00",
        "Europe/Berlin",
        600,
        Some("mon-fri 20:00-06:00"),
    );
    let bytes = postcard::to_stdvec(&calendar).unwrap();
    assert_eq!(postcard::from_bytes::<Calendar>(&bytes).unwrap(), calendar);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let wrong = Calendar {
        schedule: Schedule::Daily { times: BTreeSet::new() },
        zone: "Europe/Berln".to_owned(),
        jitter: Duration::from_secs(86_401),
        windows: Some(Windows(BTreeSet::new())),
    };
    let problems = wrong.problems();
    assert!(
        matches!(
            problems.as_slice(),
            [
                CalendarError::Schedule(_),
                CalendarError::Zone(UnknownZone { .. }),
                CalendarError::Jitter { .. },
                CalendarError::Windows(WindowsError::NeverOpen),
            ]
        ),
        "{problems:?}"
    );
    assert!(problems[1].to_string().contains("Europe/Berln"));
    assert!(wrong.compile(at("2026-01-01T00:00:00Z")).is_err());
    let right = calendar("daily 02:00", "Europe/Berlin", 86_400, None);
    assert_eq!(right.problems(), []);
    let fraction = Calendar {
        jitter: Duration::from_millis(1500),
        ..right
    };
    assert!(matches!(fraction.problems().as_slice(), [CalendarError::Jitter { .. }]));
}

#[test]
fn after_downtime_one_run_is_due_for_the_newest_and_then_the_next_regular_one() {
    let calendar = compiled("daily 02:00", 0, None);
    let last = Some(at("2026-11-10T01:00:00Z"));
    let since = at("2026-01-01T00:00:00Z");
    let now = at("2026-11-20T12:00:00Z");
    let missed = calendar.missed(ITEM, last, since, now);
    assert_eq!(missed, Some(due("2026-11-20T01:00:00Z", "2026-11-20T01:00:00Z")));
    assert_eq!(
        calendar.standing(now).decide(ITEM, last, since),
        Decision::Start(missed.unwrap())
    );
    let after = calendar
        .standing(now)
        .decide(ITEM, missed.map(|due| due.occurrence), since);
    assert_eq!(
        after,
        Decision::Wait(due("2026-11-21T01:00:00Z", "2026-11-21T01:00:00Z"))
    );
}

#[test]
fn a_policy_that_was_just_made_catches_up_on_nothing() {
    let calendar = compiled("daily 02:00", 0, None);
    let since = at("2026-11-20T12:00:00Z");
    assert_eq!(calendar.missed(ITEM, None, since, since), None);
    assert_eq!(
        calendar.standing(since).decide(ITEM, None, since),
        Decision::Wait(due("2026-11-21T01:00:00Z", "2026-11-21T01:00:00Z"))
    );
    // Made on the very moment of an occurrence: that one is past.
    let since = at("2026-11-20T01:00:00Z");
    assert_eq!(calendar.missed(ITEM, None, since, since), None);
    // Missed from then on counts, also if it never ran.
    assert_eq!(
        calendar.missed(ITEM, None, since, at("2026-11-25T00:00:00Z")),
        Some(due("2026-11-24T01:00:00Z", "2026-11-24T01:00:00Z"))
    );
    // Given before it holds.
    let later = at("2026-12-24T12:00:00Z");
    assert_eq!(
        calendar.standing(since).decide(ITEM, None, later),
        Decision::Wait(due("2026-12-25T01:00:00Z", "2026-12-25T01:00:00Z"))
    );
}

#[test]
fn jitter_is_an_items_own_for_each_occurrence_and_lies_within_its_bound() {
    let calendar = compiled("daily 02:00", 3600, None);
    let occurrence = at("2026-11-20T01:00:00Z");
    let start = |item: u32, occurrence: Timestamp| {
        let standing = calendar.standing(occurrence - Duration::from_secs(60));
        match standing.decide(
            &item.to_le_bytes(),
            None,
            Timestamp::MIN.max(at("2026-01-01T00:00:00Z")),
        ) {
            // The day before is caught up on.
            Decision::Start(due) => {
                let next = standing.upcoming(&item.to_le_bytes(), Some(due.occurrence), at("2026-01-01T00:00:00Z"));
                next.unwrap()
            }
            Decision::Wait(due) => due,
            Decision::Never => panic!("it is due again"),
        }
    };
    let starts: Vec<Due> = (0..500).map(|item| start(item, occurrence)).collect();
    assert!(starts.iter().all(|due| due.occurrence == occurrence));
    assert!(
        starts
            .iter()
            .all(|due| due.at >= occurrence && due.at < occurrence + Duration::from_secs(3600))
    );
    let minutes: BTreeSet<i64> = starts
        .iter()
        .map(|due| due.at.duration_since(occurrence).as_secs() / 600)
        .collect();
    assert_eq!(minutes, (0..6).collect());
    assert_eq!(start(7, occurrence), start(7, occurrence));
    let next_day = start(7, at("2026-11-21T01:00:00Z"));
    let shift = |due: &Due| due.at.duration_since(due.occurrence);
    assert_ne!(shift(&next_day), shift(&starts[7]));
}

#[test]
fn jitter_never_passes_the_next_occurrence() {
    let calendar = compiled("cron 0,5 * * * *", 3600, None);
    let now = at("2026-11-20T01:59:00Z");
    for item in 0..200u32 {
        let due = calendar
            .standing(now)
            .upcoming(
                &item.to_le_bytes(),
                Some(at("2026-11-20T01:05:00Z")),
                now - Duration::from_secs(7200),
            )
            .unwrap();
        assert_eq!(due.occurrence, at("2026-11-20T02:00:00Z"));
        assert!(due.at < at("2026-11-20T02:05:00Z"), "{due:?}");
    }
}

#[test]
fn what_comes_due_outside_the_windows_waits_for_the_next_opening_as_one_run() {
    // Berlin is an hour ahead of UTC: open from 19:00 to 05:00 UTC.
    let calendar = compiled("every 1h", 0, Some("mon-sun 20:00-06:00"));
    let since = at("2026-01-01T00:00:00Z");
    let last = Some(at("2026-11-20T04:00:00Z"));
    let noon = calendar.standing(at("2026-11-20T12:10:00Z"));
    assert_eq!(
        noon.decide(ITEM, last, since),
        Decision::Wait(due("2026-11-20T12:00:00Z", "2026-11-20T19:00:00Z"))
    );
    // Not before it opens, and then for the newest.
    let early = calendar.standing(at("2026-11-20T18:59:59.999Z"));
    assert!(matches!(early.decide(ITEM, last, since), Decision::Wait(_)));
    let opening = calendar.standing(at("2026-11-20T19:00:00Z"));
    assert_eq!(
        opening.decide(ITEM, last, since),
        Decision::Start(due("2026-11-20T19:00:00Z", "2026-11-20T19:00:00Z"))
    );
    // A regular one that falls outside says when it will start.
    let last = Some(at("2026-11-20T04:00:00Z"));
    let closing = calendar.standing(at("2026-11-20T04:30:00Z"));
    assert_eq!(
        closing.decide(ITEM, last, since),
        Decision::Wait(due("2026-11-20T05:00:00Z", "2026-11-20T19:00:00Z"))
    );
}

#[test]
fn a_run_that_was_missed_inside_a_window_does_not_start_outside_it() {
    let calendar = compiled("daily 02:00", 0, Some("mon-sun 01:00-04:00"));
    let since = at("2026-01-01T00:00:00Z");
    let last = Some(at("2026-11-18T01:00:00Z"));
    // Down from before 02:00 until noon.
    assert_eq!(
        calendar.standing(at("2026-11-20T11:00:00Z")).decide(ITEM, last, since),
        Decision::Wait(due("2026-11-20T01:00:00Z", "2026-11-21T00:00:00Z"))
    );
    assert_eq!(
        calendar.standing(at("2026-11-21T00:00:00Z")).decide(ITEM, last, since),
        Decision::Start(due("2026-11-20T01:00:00Z", "2026-11-20T01:00:00Z"))
    );
}

#[test]
fn a_start_that_is_still_to_come_by_jitter_hides_no_missed_run() {
    let calendar = compiled("daily 02:00", 3600, None);
    let since = at("2026-01-01T00:00:00Z");
    let now = at("2026-11-20T01:00:00Z");
    // An item whose start today is later than now: yesterday's was missed and is caught up on, today's stays.
    let missed = calendar
        .missed(ITEM, Some(at("2026-11-15T01:00:00Z")), since, now)
        .unwrap();
    assert_eq!(missed.occurrence, at("2026-11-19T01:00:00Z"));
    match calendar.standing(now).decide(ITEM, Some(missed.occurrence), since) {
        Decision::Wait(due) => assert_eq!(due.occurrence, now),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Passes at uneven moments, with downtime, over a fortnight with a change of the clock.
    #[test]
    fn an_item_keeps_the_promises_through_any_history_of_passes(
        schedule in prop::sample::select(vec![
            "daily 02:00", "daily 02:30,14:00", "hourly :15", "every 45m", "every 7h", "weekly sun,wed 02:15", "cron */20 1-3 * * *",
        ]),
        jitter_s in prop::sample::select(vec![0u64, 600, 7200, 86_400]),
        windows in prop::sample::select(vec![None, Some("mon-sun 20:00-06:00"), Some("sat,sun 01:00-01:10; wed 12:00-24:00")]),
        item: [u8; 4],
        // Minutes between passes: mostly short ones, some long downtime.
        steps in proptest::collection::vec(prop_oneof![8 => 1i64..20, 1 => 60i64..6000], 1..120),
    ) {
        let calendar = compiled(schedule, jitter_s, windows);
        let since = at("2026-03-20T09:12:13Z");
        let mut now = since;
        let mut last: Option<Timestamp> = None;
        let mut look_again = since;
        for step in steps {
            now += SignedDuration::from_mins(step);
            let standing = calendar.standing(now);
            match standing.decide(&item, last, since) {
                Decision::Start(due) => {
                    // Whoever looks only when told to has not missed it.
                    prop_assert!(look_again <= now);
                    prop_assert_eq!(standing.due(&item, last, since), Some(due));
                    prop_assert!(due.at <= now && calendar.is_open(now) && calendar.is_open(due.at));
                    prop_assert!(due.occurrence > since && last.is_none_or(|last| due.occurrence > last));
                    prop_assert!(due.occurrence <= due.at);
                    // At most the occurrence just now, not yet started by jitter, is newer.
                    let newer = calendar.next_after(due.occurrence).filter(|newer| *newer <= now);
                    prop_assert!(newer.is_none_or(|newer| calendar.next_after(newer).unwrap() > now));
                    last = Some(due.occurrence);
                }
                Decision::Wait(due) => {
                    prop_assert!(due.at > now && standing.due(&item, last, since).is_none());
                    look_again = due.at;
                    // Nothing starts before, and then something does.
                    let before = calendar.standing(due.at - SignedDuration::from_nanos(1));
                    prop_assert!(!matches!(before.decide(&item, last, since), Decision::Start(_)));
                    let then = calendar.standing(due.at).decide(&item, last, since);
                    prop_assert!(matches!(then, Decision::Start(started) if started.at <= due.at && started.occurrence >= due.occurrence), "{:?}", then);
                    continue;
                }
                Decision::Never => prop_assert!(false, "it is due again"),
            }
            // Started once, it is not started again.
            match standing.decide(&item, last, since) {
                Decision::Wait(due) => {
                    prop_assert!(due.at > now);
                    look_again = due.at;
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    /// Without downtime every occurrence is run for, once, in order.
    #[test]
    fn no_occurrence_is_left_out_while_passes_come_in_time(
        schedule in prop::sample::select(vec!["daily 02:00", "hourly :15", "every 45m", "cron */20 1-3 * * *"]),
        jitter_s in prop::sample::select(vec![0u64, 600, 86_400]),
        item: [u8; 4],
    ) {
        let calendar = compiled(schedule, jitter_s, None);
        let since = at("2026-03-27T09:12:13Z");
        let (mut now, mut last, mut ran) = (since, None, Vec::new());
        for _ in 0..120 {
            match calendar.standing(now).decide(&item, last, since) {
                Decision::Start(due) => {
                    prop_assert_eq!(due.at, now);
                    last = Some(due.occurrence);
                    ran.push(due.occurrence);
                }
                Decision::Wait(due) => now = due.at,
                Decision::Never => prop_assert!(false, "it is due again"),
            }
        }
        let mut after = since;
        let expected: Vec<Timestamp> = ran
            .iter()
            .map(|_| {
                after = calendar.next_after(after).unwrap();
                after
            })
            .collect();
        prop_assert_eq!(ran, expected);
    }
}
