//! Occurrences at the edges of daylight saving, and against a clock that is read minute by minute.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::schedule::zone;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn occurrences(schedule: &str, zone: &str) -> Occurrences {
    let anchor = at("2026-01-01T00:00:07.5Z");
    Occurrences::new(&schedule.parse().unwrap(), zone::find(zone).unwrap(), anchor).unwrap()
}

/// The first `count` occurrences after an instant, as the clock of the zone shows them, with its offset.
fn shown(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let occurrences = occurrences(schedule, zone);
    let mut after = at(after);
    (0..count)
        .map(|_| {
            after = occurrences.next_after(after).unwrap();
            let zoned = after.to_zoned(occurrences.zone().clone());
            zoned.strftime("%m-%d %H:%M%:z").to_string()
        })
        .collect()
}

#[test]
fn a_time_of_day_in_a_gap_runs_at_the_first_instant_after_it() {
    // Berlin goes from 02:00 to 03:00 on the 29th of March 2026.
    for schedule in [
        "daily 02:30",
        "cron 30 2 * * *",
        "daily 02:00,02:30,02:59",
        "cron */10 2 * * *",
    ] {
        let first = shown(schedule, "Europe/Berlin", "2026-03-28T22:00:00Z", 2);
        assert_eq!(first[0], "03-29 03:00+02:00", "{schedule}");
        assert!(first[1].starts_with("03-30 02:"), "{schedule}: {first:?}");
    }
    assert_eq!(
        shown("daily 01:30,02:30,03:30", "Europe/Berlin", "2026-03-28T22:00:00Z", 4),
        [
            "03-29 01:30+01:00",
            "03-29 03:00+02:00",
            "03-29 03:30+02:00",
            "03-30 01:30+02:00"
        ]
    );
    // Named itself, the first instant after the gap is one run, not two.
    assert_eq!(
        shown("daily 02:30,03:00", "Europe/Berlin", "2026-03-28T22:00:00Z", 2),
        ["03-29 03:00+02:00", "03-30 02:30+02:00"]
    );
    assert_eq!(
        shown("weekly sun 02:15", "America/New_York", "2026-03-08T05:00:00Z", 2),
        ["03-08 03:00-04:00", "03-15 02:15-04:00"]
    );
    assert_eq!(
        shown("cron 15 2 8 * *", "America/New_York", "2026-03-08T05:00:00Z", 2),
        ["03-08 03:00-04:00", "04-08 02:15-04:00"]
    );
}

#[test]
fn a_time_of_day_in_a_fold_runs_once_when_it_is_shown_first() {
    // Berlin goes back from 03:00 to 02:00 on the 25th of October 2026.
    for schedule in ["daily 02:30", "cron 30 2 * * *", "weekly mon-sun 02:30"] {
        assert_eq!(
            shown(schedule, "Europe/Berlin", "2026-10-24T12:00:00Z", 2),
            ["10-25 02:30+02:00", "10-26 02:30+01:00"],
            "{schedule}"
        );
    }
    // Times of one day keep their order, and none comes twice: the hour that is shown again is passed over.
    assert_eq!(
        shown("cron 0,30 1-3 * * *", "Europe/Berlin", "2026-10-24T22:30:00Z", 7),
        [
            "10-25 01:00+02:00",
            "10-25 01:30+02:00",
            "10-25 02:00+02:00",
            "10-25 02:30+02:00",
            "10-25 03:00+01:00",
            "10-25 03:30+01:00",
            "10-26 01:00+01:00",
        ]
    );
    assert_eq!(
        shown("daily 01:30", "America/New_York", "2026-11-01T00:00:00Z", 2),
        ["11-01 01:30-04:00", "11-02 01:30-05:00"]
    );
    // Asked in the midst of the second showing.
    assert_eq!(
        shown("daily 01:30,01:45", "America/New_York", "2026-11-01T06:15:00Z", 1),
        ["11-02 01:30-05:00"]
    );
}

#[test]
fn hours_run_once_in_each_hour_that_passes() {
    for schedule in ["hourly :15", "cron 15 * * * *", "cron 15 0-23 * * *"] {
        assert_eq!(
            shown(schedule, "Europe/Berlin", "2026-03-28T23:30:00Z", 3),
            ["03-29 01:15+01:00", "03-29 03:15+02:00", "03-29 04:15+02:00"],
            "{schedule}"
        );
        assert_eq!(
            shown(schedule, "Europe/Berlin", "2026-10-24T23:30:00Z", 3),
            ["10-25 02:15+02:00", "10-25 02:15+01:00", "10-25 03:15+01:00"],
            "{schedule}"
        );
    }
    // On the change itself.
    assert_eq!(
        shown("hourly :00", "America/New_York", "2026-03-08T06:30:00Z", 2),
        ["03-08 03:00-04:00", "03-08 04:00-04:00"]
    );
    assert_eq!(
        shown("hourly :00", "America/New_York", "2026-11-01T04:30:00Z", 3),
        ["11-01 01:00-04:00", "11-01 01:00-05:00", "11-01 02:00-05:00"]
    );
}

#[test]
fn a_cron_line_of_some_hours_neither_skips_nor_doubles_at_the_edges() {
    assert_eq!(
        shown("cron 0 */2 * * *", "Europe/Berlin", "2026-03-28T22:30:00Z", 3),
        ["03-29 00:00+01:00", "03-29 03:00+02:00", "03-29 04:00+02:00"]
    );
    assert_eq!(
        shown("cron 0 */2 * * *", "Europe/Berlin", "2026-10-24T21:30:00Z", 3),
        ["10-25 00:00+02:00", "10-25 02:00+02:00", "10-25 04:00+01:00"]
    );
}

#[test]
fn clocks_that_move_by_half_an_hour_keep_every_hour_that_they_show() {
    // Lord Howe goes from 02:00 to 02:30 on the 4th of October 2026: of the hour two, half is shown.
    assert_eq!(
        shown("hourly :15", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 3),
        ["10-04 01:15+10:30", "10-04 02:30+11:00", "10-04 03:15+11:00"]
    );
    assert_eq!(
        shown("hourly :45", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 3),
        ["10-04 00:45+10:30", "10-04 01:45+10:30", "10-04 02:45+11:00"]
    );
    assert_eq!(
        shown("cron */15 * * * *", "Australia/Lord_Howe", "2026-10-03T15:00:00Z", 4),
        [
            "10-04 01:45+10:30",
            "10-04 02:30+11:00",
            "10-04 02:45+11:00",
            "10-04 03:00+11:00"
        ]
    );
    assert_eq!(
        shown("daily 02:15", "Australia/Lord_Howe", "2026-10-03T14:00:00Z", 2),
        ["10-04 02:30+11:00", "10-05 02:15+11:00"]
    );
    // And back from 02:00 to 01:30 on the 5th of April 2026.
    assert_eq!(
        shown("hourly :45", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", 3),
        ["04-05 01:45+11:00", "04-05 01:45+10:30", "04-05 02:45+10:30"]
    );
    assert_eq!(
        shown("hourly :15", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", 3),
        ["04-05 01:15+11:00", "04-05 02:15+10:30", "04-05 03:15+10:30"]
    );
    assert_eq!(
        shown("daily 01:45", "Australia/Lord_Howe", "2026-04-04T14:00:00Z", 2),
        ["04-05 01:45+11:00", "04-06 01:45+10:30"]
    );
}

#[test]
fn an_hour_that_stops_in_its_midst_runs_after_the_gap() {
    // Pyongyang went from 23:30 to 24:00 on the 4th of May 2018.
    assert_eq!(
        shown("hourly :45", "Asia/Pyongyang", "2018-05-04T13:30:00Z", 3),
        ["05-04 22:45+08:30", "05-05 00:00+09:00", "05-05 00:45+09:00"]
    );
    assert_eq!(
        shown("hourly :15", "Asia/Pyongyang", "2018-05-04T14:00:00Z", 3),
        ["05-04 23:15+08:30", "05-05 00:15+09:00", "05-05 01:15+09:00"]
    );
}

#[test]
fn a_day_that_a_zone_leaves_out_runs_at_the_start_of_the_next() {
    // Apia had no 30th of December 2011, a Friday.
    for schedule in ["daily 12:00", "cron 0 12 * * *"] {
        assert_eq!(
            shown(schedule, "Pacific/Apia", "2011-12-29T00:00:00Z", 4),
            [
                "12-29 12:00-10:00",
                "12-31 00:00+14:00",
                "12-31 12:00+14:00",
                "01-01 12:00+14:00"
            ],
            "{schedule}"
        );
    }
    for schedule in ["weekly fri 12:00", "cron 0 12 * * fri"] {
        assert_eq!(
            shown(schedule, "Pacific/Apia", "2011-12-28T00:00:00Z", 2),
            ["12-31 00:00+14:00", "01-06 12:00+14:00"],
            "{schedule}"
        );
    }
    assert_eq!(
        shown("hourly :30", "Pacific/Apia", "2011-12-30T09:00:00Z", 2),
        ["12-29 23:30-10:00", "12-31 00:30+14:00"]
    );
}

#[test]
fn offsets_of_quarter_hours_are_followed() {
    assert_eq!(
        shown("daily 02:00", "Asia/Kathmandu", "2026-06-01T00:00:00Z", 1),
        ["06-02 02:00+05:45"]
    );
    assert_eq!(
        occurrences("hourly :15", "Asia/Kathmandu").next_after(at("2026-06-01T00:00:00Z")),
        Some(at("2026-06-01T00:30:00Z"))
    );
}

#[test]
fn midnight_that_does_not_exist_is_one_oclock() {
    // Cairo goes from 00:00 to 01:00 on the 24th of April 2026.
    assert_eq!(
        shown("daily 00:00", "Africa/Cairo", "2026-04-23T00:00:00Z", 2),
        ["04-24 01:00+03:00", "04-25 00:00+03:00"]
    );
}

#[test]
fn hours_of_a_day_begin_when_the_clock_stays_in_it() {
    // Sao Paulo went from the end of Saturday the 17th of February 2018 back to 23:00: Sunday had not begun.
    assert_eq!(
        shown("cron 0 * * * sun", "America/Sao_Paulo", "2018-02-17T12:00:00Z", 2),
        ["02-18 00:00-03:00", "02-18 01:00-03:00"]
    );
}

#[test]
fn every_counts_time_that_passes_from_its_anchor_whatever_the_clock_shows() {
    // The anchor is at seven and a half seconds past: phases are whole seconds.
    let occurrences = occurrences("every 6h", "Europe/Berlin");
    let mut after = at("2026-03-28T20:00:00Z");
    for expected in ["2026-03-29T00:00:07Z", "2026-03-29T06:00:07Z", "2026-03-29T12:00:07Z"] {
        after = occurrences.next_after(after).unwrap();
        assert_eq!(after, at(expected));
    }
    // Before the anchor too.
    assert_eq!(
        occurrences.next_after(at("2025-12-31T12:00:00Z")),
        Some(at("2025-12-31T12:00:07Z"))
    );
    assert_eq!(
        occurrences.newest_at(at("2025-12-31T12:00:06.999Z")),
        Some(at("2025-12-31T06:00:07Z"))
    );
    assert_eq!(
        occurrences.newest_at(at("2026-03-29T00:00:07Z")),
        Some(at("2026-03-29T00:00:07Z"))
    );
}

#[test]
fn months_run_on_their_last_day_for_days_that_they_do_not_have() {
    let days = |schedule: &str| -> Vec<String> {
        shown(schedule, "UTC", "2027-12-31T23:00:00Z", 6)
            .into_iter()
            .map(|shown| shown[..5].to_owned())
            .collect()
    };
    assert_eq!(
        days("monthly last 04:00"),
        ["01-31", "02-29", "03-31", "04-30", "05-31", "06-30"]
    );
    assert_eq!(days("monthly 31 04:00"), days("monthly last 04:00"));
    assert_eq!(
        days("monthly 30,31,last 04:00"),
        ["01-30", "01-31", "02-29", "03-30", "03-31", "04-30"]
    );
    assert_eq!(
        days("monthly 1,15 04:00"),
        ["01-01", "01-15", "02-01", "02-15", "03-01", "03-15"]
    );
    // A cron line means what it says.
    assert_eq!(
        days("cron 0 4 31 * *"),
        ["01-31", "03-31", "05-31", "07-31", "08-31", "10-31"]
    );
    assert_eq!(days("cron 0 4 29 2 *")[..2], ["02-29", "02-29"]);
}

#[test]
fn cron_days_of_month_and_weekdays_both_count() {
    // The first of the month or a Monday, as in every cron: the 2nd and 9th of November 2026 are Mondays.
    assert_eq!(
        shown("cron 0 4 1 * mon", "UTC", "2026-10-27T00:00:00Z", 3),
        ["11-01 04:00+00:00", "11-02 04:00+00:00", "11-09 04:00+00:00"]
    );
    assert_eq!(
        shown("cron 0 4 * * mon#1", "UTC", "2026-10-27T00:00:00Z", 2),
        ["11-02 04:00+00:00", "12-07 04:00+00:00"]
    );
    assert_eq!(
        shown("cron 0 4 l * *", "UTC", "2026-10-27T00:00:00Z", 2),
        ["10-31 04:00+00:00", "11-30 04:00+00:00"]
    );
}

#[test]
fn the_next_occurrence_excludes_the_moment_and_the_newest_includes_it() {
    let occurrences = occurrences("daily 02:00", "UTC");
    let two = at("2026-11-20T02:00:00Z");
    assert_eq!(occurrences.next_after(two), Some(at("2026-11-21T02:00:00Z")));
    assert_eq!(occurrences.next_after(at("2026-11-20T01:59:59.999999999Z")), Some(two));
    assert_eq!(
        occurrences.next_after(at("2026-11-20T02:00:00.000000001Z")),
        Some(at("2026-11-21T02:00:00Z"))
    );
    assert_eq!(occurrences.newest_at(two), Some(two));
    assert_eq!(
        occurrences.newest_at(at("2026-11-20T01:59:59.999999999Z")),
        Some(at("2026-11-19T02:00:00Z"))
    );
}

#[test]
fn rare_occurrences_are_found_in_both_directions() {
    let occurrences = occurrences("cron 0 0 29 2 *", "Europe/Berlin");
    assert_eq!(
        occurrences.next_after(at("2028-03-01T00:00:00Z")),
        Some(at("2032-02-28T23:00:00Z"))
    );
    assert_eq!(
        occurrences.newest_at(at("2032-02-01T00:00:00Z")),
        Some(at("2028-02-28T23:00:00Z"))
    );
    // 2100 has no leap day.
    assert_eq!(
        occurrences.next_after(at("2096-03-01T00:00:00Z")),
        Some(at("2104-02-28T23:00:00Z"))
    );
}

#[test]
fn the_ends_of_the_years_that_can_be_counted_are_no_panic() {
    for schedule in [
        "daily 02:00",
        "hourly :15",
        "every 744h",
        "cron 0 0 29 2 *",
        "monthly last 04:00",
    ] {
        for zone in ["UTC", "Europe/Berlin", "Pacific/Apia"] {
            let occurrences = occurrences(schedule, zone);
            assert!(occurrences.next_after(Timestamp::MIN).is_some(), "{schedule} {zone}");
            assert_eq!(occurrences.next_after(Timestamp::MAX), None, "{schedule} {zone}");
            assert!(occurrences.newest_at(Timestamp::MAX).is_some(), "{schedule} {zone}");
            assert_eq!(occurrences.newest_at(Timestamp::MIN), None, "{schedule} {zone}");
        }
    }
}

// ---- Against a clock that is read minute by minute ----

/// Zones and moments around which their clocks change, or not.
const EDGES: [(&str, &str); 14] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("America/New_York", "2026-03-08T07:00:00Z"),
    ("America/New_York", "2026-11-01T06:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("Asia/Pyongyang", "2018-05-04T15:00:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00:00Z"),
    // The clock went back at one minute past midnight, into the day before.
    ("America/St_Johns", "2010-11-07T02:31:00Z"),
    ("Africa/Casablanca", "2026-02-15T02:00:00Z"),
    ("Asia/Kathmandu", "2026-06-01T00:00:00Z"),
    ("UTC", "2026-06-01T00:00:00Z"),
];

fn any_schedule() -> impl Strategy<Value = String> {
    let time = || (0u8..24, 0u8..60).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    // Small hours, where clocks change.
    let early = || (0u8..4, 0u8..60).prop_map(|(hour, minute)| format!("{hour:02}:{minute:02}"));
    let times =
        || proptest::collection::vec(prop_oneof![time(), early(), early()], 1..4).prop_map(|times| times.join(","));
    prop_oneof![
        times().prop_map(|times| format!("daily {times}")),
        (
            prop::sample::select(vec!["sun", "mon-fri", "sat,sun", "fri,sat,sun"]),
            times()
        )
            .prop_map(|(days, times)| format!("weekly {days} {times}")),
        (
            prop::sample::select(vec!["1", "last", "29", "8,30,31", "4,25"]),
            times()
        )
            .prop_map(|(days, times)| format!("monthly {days} {times}")),
        (0u8..60, 0u8..60).prop_map(|(first, second)| format!("hourly :{first:02},:{second:02}")),
        (30u32..100_000).prop_map(|period| format!("every {period}s")),
        (0u8..60, 0u8..4).prop_map(|(minute, hour)| format!("cron {minute} {hour} * * *")),
        (1u8..60, 1u8..24).prop_map(|(minutes, hours)| format!("cron */{minutes} */{hours} * * *")),
        (0u8..60, prop::sample::select(vec!["sun", "1-5", "*"]))
            .prop_map(|(minute, days)| format!("cron {minute} * * * {days}")),
    ]
}

/// What [`Occurrences`] should say of a stretch of minutes, from the rules alone.
fn read_off_the_clock(occurrences: &Occurrences, from: Timestamp, minutes: i64) -> Vec<Timestamp> {
    let Rule::Clock {
        days,
        times,
        hours_that_pass,
    } = &occurrences.rule
    else {
        panic!("it follows no clock");
    };
    let minute = Duration::from_secs(60);
    let names = |wall: DateTime| days.has(wall.date()) && times.contains(&wall.time());
    let show = |at: Timestamp| occurrences.zone.to_datetime(at);
    let mut found = Vec::new();
    // What the clock has shown so far: half a day before is enough, since clocks go back by an hour or two.
    let mut at = from - Duration::from_secs(12 * 3600);
    let mut shown_until = show(at);
    while at < from + minute * u32::try_from(minutes).unwrap() {
        let before = show(at);
        at += minute;
        let wall = show(at);
        let skipped = || {
            let mut skipped = Vec::new();
            let mut passed = before + minute;
            while passed < wall {
                skipped.push(passed);
                passed += minute;
            }
            skipped
        };
        let is_named = match hours_that_pass {
            false => {
                let mut newly_shown = skipped();
                newly_shown.push(wall);
                newly_shown.retain(|wall| *wall > shown_until);
                newly_shown.into_iter().any(names)
            }
            true => {
                let hour = |wall: DateTime| (wall.date(), wall.hour());
                let in_part = |skipped: &DateTime| hour(*skipped) == hour(before) || hour(*skipped) == hour(wall);
                names(wall) || skipped().into_iter().filter(in_part).any(names)
            }
        };
        shown_until = shown_until.max(wall);
        if is_named && at > from {
            found.push(at);
        }
    }
    found
}

proptest! {
    #[test]
    fn occurrences_are_what_the_clock_shows(
        schedule in any_schedule().prop_filter("follows a clock", |schedule| !schedule.starts_with("every")),
        edge in prop::sample::select(EDGES.to_vec()),
        before in 0i64..2000,
    ) {
        let (zone, change) = edge;
        let occurrences = occurrences(&schedule, zone);
        let from = at(change) - Duration::from_secs(60) * u32::try_from(before).unwrap();
        let expected = read_off_the_clock(&occurrences, from, 3000);
        let end = from + Duration::from_secs(3000 * 60);
        let mut found = Vec::new();
        let mut after = from;
        while let Some(next) = occurrences.next_after(after).filter(|next| *next <= end) {
            found.push(next);
            after = next;
        }
        prop_assert_eq!(found, expected, "{} {}", schedule, zone);
    }

    #[test]
    fn the_next_is_later_and_nothing_lies_between_and_the_newest_agrees(
        schedule in any_schedule(),
        edge in prop::sample::select(EDGES.to_vec()),
        second in -200_000i64..200_000,
        nanosecond in prop_oneof![Just(0i64), 0i64..1_000_000_000],
        part in 0.0f64..1.0,
    ) {
        let (zone, change) = edge;
        let occurrences = occurrences(&schedule, zone);
        let after = at(change) + SignedDuration::from_secs(second) + SignedDuration::from_nanos(nanosecond);
        let next = occurrences.next_after(after).unwrap();
        prop_assert!(next > after);
        // From anywhere before the next, it is the next.
        let between = after + next.duration_since(after).mul_f64(part);
        if between < next {
            prop_assert_eq!(occurrences.next_after(between), Some(next));
            let newest = occurrences.newest_at(between).unwrap();
            prop_assert!(newest <= after);
            prop_assert_eq!(occurrences.next_after(newest), Some(next));
        }
        prop_assert_eq!(occurrences.newest_at(next), Some(next));
    }
}
