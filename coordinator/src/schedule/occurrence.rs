//! The instants that a schedule means in a time zone.
//!
//! What a clock shows is not a line: put forward, it skips times (a gap); put back, it shows times twice (a fold). The rules, for all schedules alike:
//!
//! 1. **Times of day** (`daily`, `weekly`, `monthly`, cron lines that name some hours) happen once, at the first instant at which the clock shows them or a
//!    later time. So one in a gap happens at the first instant after the gap, several in one gap happen there together, once; and one in a fold happens
//!    when the clock shows it first.
//! 2. **Hours** (`hourly`, cron lines that name all 24 hours) happen in every hour that passes: in a fold each time, in a gap not at all, since the hour
//!    did not pass. Where clocks move by half an hour, an hour can be shown in part: if its minute was skipped, it happens at the first instant after the gap.
//! 3. **`every`** counts time that passes and knows no clock.
//!
//! The first two are those of Vixie's cron (cron(8), "Daylight Saving Time") and of RFC 5545, section 3.3.5, save that RFC 5545 moves a time in a gap by the
//! gap's length: 02:30 to 03:30, after a run at 03:00. Ours keeps the order of times.
//!
//! A day without anything of it (Pacific/Apia, 30 December 2011) is a gap like any other: its run is at the first instant of the next day.

use std::collections::BTreeSet;

use croner::CronPattern;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::cron::CronRule;
use super::recurrence::{MonthDay, Schedule};
use super::words::{BadField, TimeOfDay};
use super::zone::first_instant;

/// How far ahead a day is looked for: the 29th of February on one weekday comes every 28 years, and after 40 around a century without a leap day.
const SEARCH_YEARS: i16 = 40;
/// Where the newest occurrence is looked for first: for the densest schedules that is enough.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(64);
/// How much further each look goes.
const LOOK_BACK_FACTOR: i32 = 8;
/// The longest look back; see [`SEARCH_YEARS`].
const LOOK_BACK_MAX: SignedDuration = SignedDuration::from_hours(24 * 366 * SEARCH_YEARS as i64);

/// A schedule ready to be asked: made once for a policy, asked in about a microsecond.
#[derive(Debug, Clone)]
pub struct Occurrences {
    zone: TimeZone,
    rule: Rule,
}

#[derive(Debug, Clone)]
enum Rule {
    Every {
        anchor_ns: i128,
        period_ns: i128,
    },
    Clock {
        days: Days,
        /// Ascending, at least one.
        times: Vec<Time>,
        /// The second rule of this file, else the first.
        hours_that_pass: bool,
    },
}

#[derive(Debug, Clone)]
enum Days {
    All,
    /// By days since Monday.
    OfWeek([bool; 7]),
    OfMonth {
        /// By number; 0 is not used.
        days: [bool; 32],
        last: bool,
    },
    Cron(Box<CronPattern>),
}

impl Days {
    fn has(&self, date: Date) -> bool {
        match self {
            Self::All => true,
            Self::OfWeek(days) => days[usize::from(date.weekday().to_monday_zero_offset().unsigned_abs())],
            Self::OfMonth { days, last } => {
                let day = usize::from(date.day().unsigned_abs());
                // The last day stands for all that the month does not have.
                let is_last = date.day() == date.days_in_month();
                days[day] || (is_last && (*last || days[day..].contains(&true)))
            }
            Self::Cron(pattern) => {
                let weekday = u32::from(date.weekday().to_sunday_zero_offset().unsigned_abs());
                has_month(pattern, date)
                    && pattern
                        .day_match(
                            i32::from(date.year()),
                            u32::from(date.month().unsigned_abs()),
                            u32::from(date.day().unsigned_abs()),
                            croner::Weekday::from_days_from_sunday(weekday),
                        )
                        .unwrap_or(false)
            }
        }
    }

    /// The first of its days that is `date` or later.
    fn first_from(&self, mut date: Date) -> Option<Date> {
        let end = date.year().saturating_add(SEARCH_YEARS);
        while date.year() <= end {
            date = match self {
                Self::Cron(pattern) if !has_month(pattern, date) => date.last_of_month(),
                _ if self.has(date) => return Some(date),
                _ => date,
            }
            .tomorrow()
            .ok()?;
        }
        None
    }
}

fn has_month(pattern: &CronPattern, date: Date) -> bool {
    pattern
        .month_match(u32::from(date.month().unsigned_abs()))
        .unwrap_or(false)
}

fn clock_times(times: &BTreeSet<TimeOfDay>) -> Vec<Time> {
    times.iter().map(|time| clock_time(time.minutes())).collect()
}

fn clock_time(minutes: u16) -> Time {
    Time::midnight()
        .checked_add(SignedDuration::from_mins(i64::from(minutes)))
        .expect("a time of day has fewer than 1440 minutes")
}

impl Occurrences {
    /// Makes a schedule ready. `anchor` is where `every` counts from, to the second; only its phase matters: it counts backwards as well.
    ///
    /// # Errors
    /// For a cron line that cannot be read: one that came out of storage and was never checked.
    pub fn new(schedule: &Schedule, zone: TimeZone, anchor: Timestamp) -> Result<Self, BadField> {
        let rule = match schedule {
            Schedule::Every { period } => Rule::Every {
                anchor_ns: i128::from(anchor.as_second()) * 1_000_000_000,
                period_ns: i128::try_from(period.as_nanos())
                    .expect("a period is at most a month")
                    .max(1),
            },
            Schedule::Daily { times } => Rule::Clock {
                days: Days::All,
                times: clock_times(times),
                hours_that_pass: false,
            },
            Schedule::Weekly { days, times } => {
                let mut named = [false; 7];
                for day in days {
                    named[usize::from(day.index())] = true;
                }
                Rule::Clock {
                    days: Days::OfWeek(named),
                    times: clock_times(times),
                    hours_that_pass: false,
                }
            }
            Schedule::Monthly { days, times } => {
                let mut named = [false; 32];
                for day in days {
                    if let MonthDay::Day(day) = day {
                        named[usize::from(*day).min(31)] = true;
                    }
                }
                Rule::Clock {
                    days: Days::OfMonth {
                        days: named,
                        last: days.contains(&MonthDay::Last),
                    },
                    times: clock_times(times),
                    hours_that_pass: false,
                }
            }
            Schedule::Hourly { minutes } => Rule::Clock {
                days: Days::All,
                times: (0..24)
                    .flat_map(|hour| {
                        minutes
                            .iter()
                            .map(move |minute| hour * 60 + u16::from((*minute).min(59)))
                    })
                    .map(clock_time)
                    .collect(),
                hours_that_pass: true,
            },
            Schedule::Cron { line } => {
                let CronRule {
                    every_hour,
                    times,
                    pattern,
                } = line.rule()?;
                Rule::Clock {
                    days: Days::Cron(Box::new(pattern)),
                    times: times.into_iter().map(clock_time).collect(),
                    hours_that_pass: every_hour,
                }
            }
        };
        Ok(Self { zone, rule })
    }

    /// The zone whose clock is followed.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Whether a cron line names any day at all.
    pub(crate) fn has_days(rule: &CronRule) -> bool {
        // From any year the same answer: the search covers every pairing of days and weekdays.
        let days = Days::Cron(Box::new(rule.pattern.clone()));
        days.first_from(Date::constant(2000, 1, 1)).is_some()
    }

    /// The first occurrence after `after`, itself excluded. `None` at the end of the years that can be counted.
    ///
    /// Cost: about a microsecond; no text is read, no zone looked up, nothing allocated.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.rule {
            Rule::Every { anchor_ns, period_ns } => {
                let periods = (after.as_nanosecond() - anchor_ns).div_euclid(*period_ns) + 1;
                Timestamp::from_nanosecond(anchor_ns + periods * period_ns).ok()
            }
            Rule::Clock {
                hours_that_pass: false, ..
            } => {
                let mut wall = self.zone.to_datetime(after);
                loop {
                    wall = self.next_on_clock(wall, false)?;
                    // In the second half of a fold, what the clock shows next may have happened in the first half.
                    match first_instant(&self.zone, wall)? {
                        at if at > after => return Some(at),
                        _ => {}
                    }
                }
            }
            Rule::Clock {
                hours_that_pass: true, ..
            } => self.next_hour_that_passes(after),
        }
    }

    /// The newest occurrence that is `at` or earlier. `None` if there is none in forty years.
    ///
    /// Cost: some ten calls of [`Self::next_after`], whatever the schedule.
    pub fn newest_at(&self, at: Timestamp) -> Option<Timestamp> {
        if let Rule::Every { anchor_ns, period_ns } = &self.rule {
            let periods = (at.as_nanosecond() - anchor_ns).div_euclid(*period_ns);
            return Timestamp::from_nanosecond(anchor_ns + periods * period_ns).ok();
        }
        // `next_after` never falls when its argument grows: some occurrence is found by looking back further and further, the newest by halving from there.
        let mut look_back = LOOK_BACK;
        let mut newest = loop {
            let from = at.checked_sub(look_back).unwrap_or(Timestamp::MIN);
            match self.next_after(from) {
                Some(found) if found <= at => break found,
                _ if look_back >= LOOK_BACK_MAX => return None,
                _ => look_back = (look_back * LOOK_BACK_FACTOR).min(LOOK_BACK_MAX),
            }
        };
        let mut none_after = at;
        loop {
            match self.next_after(newest) {
                Some(next) if next <= at => newest = next,
                _ => return Some(newest),
            }
            let middle = newest + none_after.duration_since(newest) / 2;
            match self.next_after(middle) {
                Some(next) if next <= at => newest = next,
                _ => none_after = middle,
            }
        }
    }

    /// What the schedule names on a clock that never changes.
    fn next_on_clock(&self, wall: DateTime, inclusive: bool) -> Option<DateTime> {
        let Rule::Clock { days, times, .. } = &self.rule else {
            return None;
        };
        let (date, time) = (wall.date(), wall.time());
        let at = times.partition_point(|named| *named < time || (!inclusive && *named == time));
        if let Some(time) = times.get(at)
            && days.has(date)
        {
            return Some(date.to_datetime(*time));
        }
        Some(days.first_from(date.tomorrow().ok()?)?.to_datetime(*times.first()?))
    }

    /// Goes from one change of the clock to the next: between two changes the clock is a line.
    fn next_hour_that_passes(&self, after: Timestamp) -> Option<Timestamp> {
        let mut offset = self.zone.to_offset(after);
        let mut wall = self.next_on_clock(offset.to_datetime(after), false)?;
        let mut changes = self.zone.following(after);
        loop {
            let at = offset.to_timestamp(wall).ok()?;
            let Some(change) = changes.next().filter(|change| change.timestamp() <= at) else {
                return Some(at);
            };
            let (stopped, resumed) = (
                offset.to_datetime(change.timestamp()),
                change.offset().to_datetime(change.timestamp()),
            );
            if self.skips_part_of_an_hour(stopped, resumed) {
                return Some(change.timestamp());
            }
            offset = change.offset();
            wall = self.next_on_clock(resumed, true)?;
        }
    }

    /// Whether an hour that is shown in part, before or after the gap, has its minute in the gap.
    fn skips_part_of_an_hour(&self, stopped: DateTime, resumed: DateTime) -> bool {
        if resumed <= stopped {
            return false;
        }
        let hour_of = |wall: DateTime| wall.date().at(wall.hour(), 0, 0, 0);
        let names_one_in =
            |from: DateTime, to: DateTime| self.next_on_clock(from, true).is_some_and(|named| named < to);
        let first_hour_shown = stopped > hour_of(stopped);
        let first_hour_end = hour_of(stopped)
            .checked_add(SignedDuration::from_hours(1))
            .unwrap_or(DateTime::MAX);
        (first_hour_shown && names_one_in(stopped, resumed.min(first_hour_end)))
            || names_one_in(stopped.max(hour_of(resumed)), resumed)
    }
}

#[cfg(test)]
#[path = "occurrence_tests.rs"]
mod tests;
