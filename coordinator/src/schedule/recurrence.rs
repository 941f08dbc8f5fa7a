//! A schedule as a person writes it, as a value, and in words.
//!
//! ```text
//! daily 02:00                   daily 02:00,14:30
//! weekly sun 03:30              weekly mon-fri,sun 03:30
//! monthly 1 04:00               monthly 1,15,last 04:00
//! hourly :15                    hourly :00,:30
//! every 15m                     every 1h30m             counted from an anchor, such as the policy's making
//! cron 0 2 * * 1-5              minute, hour, day of the month, month, weekday
//! ```
//! Times are times on the wall clock of the calendar's zone, except `every`, which counts time that passes. A month without a day that is named
//! (`monthly 31`) runs on its last day: a policy that says "monthly" must not leave a month out.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cron::CronLine;
use super::occurrence::Occurrences;
use super::words::{
    BadField, TimeOfDay, Weekday, joined, listed, parse_span, read_weekdays, small_number, span_text, span_words,
    weekdays_text, weekdays_words,
};

/// Shortest `every`: promised in the product's words, and thrice the time in which a lease is renewed.
pub const EVERY_MIN: Duration = Duration::from_secs(30);
/// Longest `every`: what is rarer is said by weeks and months.
pub const EVERY_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
/// Most times of day in one schedule: who wants more wants `hourly` or `every`.
pub const TIMES_MAX: usize = 48;

/// When something happens again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schedule {
    /// Every day at these times.
    Daily {
        /// At least one.
        times: BTreeSet<TimeOfDay>,
    },
    /// On these days of every week.
    Weekly {
        /// At least one.
        days: BTreeSet<Weekday>,
        /// At least one.
        times: BTreeSet<TimeOfDay>,
    },
    /// On these days of every month.
    Monthly {
        /// At least one.
        days: BTreeSet<MonthDay>,
        /// At least one.
        times: BTreeSet<TimeOfDay>,
    },
    /// In every hour, at these minutes of it.
    Hourly {
        /// At least one, below 60.
        minutes: BTreeSet<u8>,
    },
    /// Each time this much time has passed, counted from the anchor.
    Every {
        /// Whole seconds, from [`EVERY_MIN`] to [`EVERY_MAX`].
        period: Duration,
    },
    /// When a cron line says.
    Cron {
        /// The line.
        line: CronLine,
    },
}

/// A day of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MonthDay {
    /// From 1 to 31; in a shorter month, its last day.
    Day(u8),
    /// The last day.
    Last,
}

/// Why a schedule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// A piece of it breaks a rule.
    #[error(transparent)]
    Field(#[from] BadField),
    /// There is no day that it names.
    #[error("schedule `cron {line}` never fires: no day of the calendar matches its day, month and weekday")]
    NeverFires {
        /// The cron line.
        line: String,
    },
}

impl Schedule {
    /// Checks what the text form guarantees, for values that came another way.
    ///
    /// # Errors
    /// The first rule that is broken, or that it never fires.
    pub fn validate(&self) -> Result<(), ScheduleError> {
        let times_of = match self {
            Self::Daily { times } => Some((times, "daily 02:00")),
            Self::Weekly { days, times } => {
                let example = "weekly sun 03:30";
                check(!days.is_empty(), "day of the week", "", WEEKDAY_RULE, example)?;
                Some((times, example))
            }
            Self::Monthly { days, times } => {
                let example = "monthly 1 04:00";
                check(!days.is_empty(), "day of the month", "", MONTH_DAY_RULE, example)?;
                for day in days {
                    let real = !matches!(day, MonthDay::Day(day) if !(1..=31).contains(day));
                    check(real, "day of the month", &day.to_string(), MONTH_DAY_RULE, example)?;
                }
                Some((times, example))
            }
            Self::Hourly { minutes } => {
                let wrong = minutes.iter().find(|minute| **minute > 59);
                let found = wrong.map_or_else(String::new, u8::to_string);
                check(
                    !minutes.is_empty() && wrong.is_none(),
                    "minute",
                    &found,
                    MINUTE_RULE,
                    "hourly :15",
                )?;
                None
            }
            Self::Every { period } => {
                let fits = (EVERY_MIN..=EVERY_MAX).contains(period) && period.subsec_nanos() == 0;
                check(fits, "period", &span_text(*period), PERIOD_RULE, "every 15m")?;
                None
            }
            Self::Cron { line } => {
                if !Occurrences::has_days(&line.rule()?) {
                    return Err(ScheduleError::NeverFires { line: line.to_string() });
                }
                None
            }
        };
        if let Some((times, example)) = times_of {
            let found = times.len().to_string();
            check(
                (1..=TIMES_MAX).contains(&times.len()),
                "number of times",
                &found,
                "there are 1 to 48 of them",
                example,
            )?;
        }
        Ok(())
    }

    /// The schedule in words, without the zone: `every Monday to Friday at 03:30`.
    pub fn words(&self) -> String {
        let at = |times: &BTreeSet<TimeOfDay>| listed(&times.iter().collect::<Vec<_>>());
        match self {
            Self::Daily { times } => format!("every day at {}", at(times)),
            Self::Weekly { days, times } => format!("every {} at {}", weekdays_words(days), at(times)),
            Self::Monthly { days, times } => {
                let named: Vec<String> = days.iter().map(|day| day.words()).collect();
                let short = days.iter().any(|day| matches!(day, MonthDay::Day(29..)));
                let instead = if short {
                    " (in shorter months on the last day)"
                } else {
                    ""
                };
                format!("on the {} of every month{instead} at {}", listed(&named), at(times))
            }
            Self::Hourly { minutes } => {
                let minutes: Vec<String> = minutes.iter().map(|minute| format!(":{minute:02}")).collect();
                format!("every hour at {}", listed(&minutes))
            }
            Self::Every { period } => {
                let words = span_words(*period);
                // "every hour", "every 15 minutes"; "every 1 hour and 30 minutes" keeps its one.
                match words.strip_prefix("1 ").filter(|rest| !rest.contains(' ')) {
                    Some(unit) => format!("every {unit}"),
                    None => format!("every {words}"),
                }
            }
            Self::Cron { line } => line.words(),
        }
    }
}

impl MonthDay {
    fn words(self) -> String {
        match self {
            Self::Last => "last day".to_owned(),
            Self::Day(day) => {
                let ending = match (day % 10, day) {
                    (_, 11..=13) => "th",
                    (1, _) => "st",
                    (2, _) => "nd",
                    (3, _) => "rd",
                    _ => "th",
                };
                format!("{day}{ending}")
            }
        }
    }
}

impl fmt::Display for MonthDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Day(day) => day.fmt(f),
            Self::Last => f.write_str("last"),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daily { times } => write!(f, "daily {}", joined(times)),
            Self::Weekly { days, times } => write!(f, "weekly {} {}", weekdays_text(days), joined(times)),
            Self::Monthly { days, times } => write!(f, "monthly {} {}", joined(days), joined(times)),
            Self::Hourly { minutes } => {
                write!(
                    f,
                    "hourly {}",
                    joined(minutes.iter().map(|minute| format!(":{minute:02}")))
                )
            }
            Self::Every { period } => write!(f, "every {}", span_text(*period)),
            Self::Cron { line } => write!(f, "cron {line}"),
        }
    }
}

const KIND_RULE: &str = "it begins with daily, weekly, monthly, hourly, every or cron";
const TIME_RULE: &str = "hour and minute from 00:00 to 23:59, several with commas";
const WEEKDAY_RULE: &str = "mon, tue, wed, thu, fri, sat or sun, several with commas, a range with a hyphen";
const MONTH_DAY_RULE: &str = "1 to 31 or `last`, several with commas";
const MINUTE_RULE: &str = "a colon and 00 to 59, several with commas";
const PERIOD_RULE: &str = "30 seconds to 31 days (744h), in whole seconds";

fn check(
    holds: bool,
    field: &'static str,
    found: &str,
    rule: &'static str,
    example: &'static str,
) -> Result<(), BadField> {
    match holds {
        true => Ok(()),
        false => Err(BadField::new(field, found, rule, example)),
    }
}

fn read_times(text: &str, example: &'static str) -> Result<BTreeSet<TimeOfDay>, BadField> {
    text.split(',')
        .map(|time| TimeOfDay::read(time).ok_or_else(|| BadField::new("time of day", time, TIME_RULE, example)))
        .collect()
}

fn read_month_day(text: &str) -> Result<MonthDay, BadField> {
    if text.eq_ignore_ascii_case("last") {
        return Ok(MonthDay::Last);
    }
    small_number(text, 1..=2)
        .filter(|day| (1..=31).contains(day))
        .map(MonthDay::Day)
        .ok_or_else(|| BadField::new("day of the month", text, MONTH_DAY_RULE, "monthly 1 04:00"))
}

fn read_minute(text: &str) -> Result<u8, BadField> {
    text.strip_prefix(':')
        .and_then(|digits| small_number(digits, 2..=2))
        .filter(|minute| *minute < 60)
        .ok_or_else(|| BadField::new("minute", text, MINUTE_RULE, "hourly :15"))
}

/// The words after the kind: exactly as many as the kind has.
fn pieces<'t, const N: usize>(
    text: &str,
    rest: &'t str,
    rule: &'static str,
    example: &'static str,
) -> Result<[&'t str; N], BadField> {
    let pieces: Vec<&str> = rest.split_whitespace().collect();
    pieces
        .try_into()
        .map_err(|_| BadField::new("schedule", text, rule, example))
}

impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let (kind, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let schedule = match kind.to_ascii_lowercase().as_str() {
            "daily" => {
                let example = "daily 02:00";
                let [times] = pieces(text, rest, "after `daily` come the times of day", example)?;
                Self::Daily {
                    times: read_times(times, example)?,
                }
            }
            "weekly" => {
                let example = "weekly sun 03:30";
                let rule = "after `weekly` come the days of the week and the times of day";
                let [days, times] = pieces(text, rest, rule, example)?;
                Self::Weekly {
                    days: read_weekdays(days)
                        .ok_or_else(|| BadField::new("day of the week", days, WEEKDAY_RULE, example))?,
                    times: read_times(times, example)?,
                }
            }
            "monthly" => {
                let example = "monthly 1 04:00";
                let rule = "after `monthly` come the days of the month and the times of day";
                let [days, times] = pieces(text, rest, rule, example)?;
                Self::Monthly {
                    days: days.split(',').map(read_month_day).collect::<Result<_, _>>()?,
                    times: read_times(times, example)?,
                }
            }
            "hourly" => {
                let rule = "after `hourly` come the minutes of the hour";
                let [minutes] = pieces(text, rest, rule, "hourly :15")?;
                Self::Hourly {
                    minutes: minutes.split(',').map(read_minute).collect::<Result<_, _>>()?,
                }
            }
            "every" => {
                let [period] = pieces(text, rest, "after `every` comes the period", "every 15m")?;
                Self::Every {
                    period: parse_span("period", period, "every 15m")?,
                }
            }
            "cron" => Self::Cron { line: rest.parse()? },
            _ => return Err(BadField::new("schedule", text, KIND_RULE, "daily 02:00").into()),
        };
        schedule.validate()?;
        Ok(schedule)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn schedules_survive_their_text_form_and_say_what_they_mean() {
        for (text, shown, words) in [
            ("daily 02:00", "daily 02:00", "every day at 02:00"),
            ("Daily 14:30,2:00", "daily 02:00,14:30", "every day at 02:00 and 14:30"),
            ("weekly sun 03:30", "weekly sun 03:30", "every Sunday at 03:30"),
            (
                "weekly mon,WED,friday 03:30,04:30,05:30",
                "weekly mon,wed,fri 03:30,04:30,05:30",
                "every Monday, Wednesday and Friday at 03:30, 04:30 and 05:30",
            ),
            (
                "weekly mon-fri 03:30",
                "weekly mon-fri 03:30",
                "every Monday to Friday at 03:30",
            ),
            ("weekly mon-sun 03:30", "weekly mon-sun 03:30", "every day at 03:30"),
            (
                "monthly 1 04:00",
                "monthly 1 04:00",
                "on the 1st of every month at 04:00",
            ),
            (
                "monthly last,15,2,3,11 04:00",
                "monthly 2,3,11,15,last 04:00",
                "on the 2nd, 3rd, 11th, 15th and last day of every month at 04:00",
            ),
            (
                "monthly 31 04:00",
                "monthly 31 04:00",
                "on the 31st of every month (in shorter months on the last day) at 04:00",
            ),
            ("hourly :15", "hourly :15", "every hour at :15"),
            ("hourly :45,:00", "hourly :00,:45", "every hour at :00 and :45"),
            ("every 30s", "every 30s", "every 30 seconds"),
            ("every 60m", "every 1h", "every hour"),
            ("every 90m", "every 1h30m", "every 1 hour and 30 minutes"),
            (" every   6h ", "every 6h", "every 6 hours"),
            (
                "cron  0 2 * *  1-5",
                "cron 0 2 * * 1-5",
                "at 02:00, on Monday, Tuesday, Wednesday, Thursday, and Friday",
            ),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), shown);
            assert_eq!(schedule.words(), words);
            assert_eq!(shown.parse::<Schedule>().unwrap(), schedule);
            let bytes = postcard::to_stdvec(&schedule).unwrap();
            assert_eq!(postcard::from_bytes::<Schedule>(&bytes).unwrap(), schedule);
        }
    }

    #[test]
    fn a_refused_schedule_names_the_field_and_the_rule_and_shows_a_right_one() {
        for (text, field, found, example) in [
            ("", "schedule", "", "daily 02:00"),
            ("dayly 02:00", "schedule", "dayly 02:00", "daily 02:00"),
            ("daily", "schedule", "daily", "daily 02:00"),
            ("daily 25:00", "time of day", "25:00", "daily 02:00"),
            ("daily 24:00", "time of day", "24:00", "daily 02:00"),
            ("daily 02:00,", "time of day", "", "daily 02:00"),
            ("daily 02:00 14:00", "schedule", "daily 02:00 14:00", "daily 02:00"),
            ("weekly 03:30", "schedule", "weekly 03:30", "weekly sun 03:30"),
            ("weekly son 03:30", "day of the week", "son", "weekly sun 03:30"),
            ("weekly sun 3", "time of day", "3", "weekly sun 03:30"),
            ("monthly 0 04:00", "day of the month", "0", "monthly 1 04:00"),
            ("monthly 32 04:00", "day of the month", "32", "monthly 1 04:00"),
            ("monthly first 04:00", "day of the month", "first", "monthly 1 04:00"),
            ("hourly", "schedule", "hourly", "hourly :15"),
            ("hourly 15", "minute", "15", "hourly :15"),
            ("hourly :60", "minute", ":60", "hourly :15"),
            ("every", "schedule", "every", "every 15m"),
            ("every 15", "period", "15", "every 15m"),
            ("every 29s", "period", "29s", "every 15m"),
            ("every 745h", "period", "745h", "every 15m"),
            ("every 0s", "period", "0s", "every 15m"),
            ("cron 0 25 * * *", "hour of the cron line", "25", "cron 0 2 * * 1-5"),
        ] {
            match text.parse::<Schedule>().unwrap_err() {
                ScheduleError::Field(bad) => {
                    assert_eq!(
                        (bad.field, bad.found.as_str(), bad.example),
                        (field, found, example),
                        "{text}"
                    );
                    assert!(bad.example.parse::<Schedule>().is_ok());
                }
                other => panic!("{text}: {other}"),
            }
        }
        assert_eq!(
            "daily 25:00".parse::<Schedule>().unwrap_err().to_string(),
            "time of day \"25:00\": hour and minute from 00:00 to 23:59, several with commas, for example `daily 02:00`"
        );
    }

    #[test]
    fn a_schedule_that_never_fires_is_refused_and_one_that_rarely_does_is_not() {
        for never in ["cron 0 0 30 2 *", "cron 0 0 31 2,4,6,9,11 *"] {
            let error = never.parse::<Schedule>().unwrap_err();
            assert!(matches!(error, ScheduleError::NeverFires { .. }), "{never}: {error}");
            assert!(error.to_string().contains("never fires"), "{error}");
        }
        for rare in ["cron 0 0 29 2 *", "cron 0 0 31 12 *", "cron 0 0 30 2 mon"] {
            assert!(rare.parse::<Schedule>().is_ok(), "{rare}");
        }
    }

    #[test]
    fn values_that_no_text_makes_are_refused_too() {
        let time = BTreeSet::from([TimeOfDay::MIDNIGHT]);
        let many = (0..49).map(|minute| TimeOfDay::new(0, minute).unwrap()).collect();
        for wrong in [
            Schedule::Daily { times: BTreeSet::new() },
            Schedule::Daily { times: many },
            Schedule::Weekly {
                days: BTreeSet::new(),
                times: time.clone(),
            },
            Schedule::Monthly {
                days: BTreeSet::new(),
                times: time.clone(),
            },
            Schedule::Monthly {
                days: BTreeSet::from([MonthDay::Day(0)]),
                times: time,
            },
            Schedule::Hourly {
                minutes: BTreeSet::new(),
            },
            Schedule::Hourly {
                minutes: BTreeSet::from([60]),
            },
            Schedule::Every {
                period: Duration::from_millis(30_500),
            },
        ] {
            assert!(wrong.validate().is_err(), "{wrong}");
        }
    }
}
