//! Cron lines of five fields: minute, hour, day of the month, month, weekday.
//!
//! croner reads the line and knows which days it names, with the usual additions: names (`mon`, `jan`), `L` for the last day, `15W` for the working day
//! nearest to the 15th, `mon#1` for the first Monday. As in every cron since Vixie's, a line that names days of the month and weekdays runs on either.
//! Clocks that change are not left to croner: it passes over a time in a gap unless the line has exactly one time, runs others twice in a fold, and gives
//! up at a gap of more than two hours. [`crate::schedule::occurrence`] has one rule for all schedules.

use std::fmt;
use std::str::FromStr;

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, CronPattern};
use serde::{Deserialize, Serialize};

use super::words::{BadField, DAY_MINUTES, listed};

/// Longest line kept, bytes: every minute written out has 170.
const LINE_BYTES_MAX: usize = 256;
/// Most times of a line that are listed when it is said in words.
const TIMES_LISTED_MAX: usize = 6;
/// Shown with every refused cron line.
const EXAMPLE: &str = "cron 0 2 * * 1-5";

/// The five fields: name, what may stand in it.
const FIELDS: [(&str, &str); 5] = [
    (
        "minute of the cron line",
        "0 to 59, or lists, ranges and steps of them (`0,30`, `*/15`)",
    ),
    (
        "hour of the cron line",
        "0 to 23, or lists, ranges and steps of them (`8-18/2`)",
    ),
    (
        "day of the month of the cron line",
        "1 to 31, lists, ranges and steps of them, `L` for the last, `15W` for a working day",
    ),
    (
        "month of the cron line",
        "1 to 12 or jan to dec, or lists, ranges and steps of them",
    ),
    (
        "weekday of the cron line",
        "0 to 7 or sun to sat (0 and 7 are Sunday), lists, ranges and steps of them, `mon#1` for the first, `5L` for the last",
    ),
];

/// A line of five fields that croner reads. What comes out of storage is read again before it is used.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CronLine(String);

impl CronLine {
    /// The line, one space between fields.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the fields into times and days.
    pub(crate) fn rule(&self) -> Result<CronRule, BadField> {
        let pattern = read(&self.0)?.pattern;
        let hours: Vec<u16> = (0..24)
            .filter(|hour| pattern.hour_match(u32::from(*hour)).unwrap_or(false))
            .collect();
        let times = hours
            .iter()
            .flat_map(|hour| (0..60).map(move |minute| (*hour, minute)))
            .filter(|(_, minute)| pattern.minute_match(u32::from(*minute)).unwrap_or(false))
            .map(|(hour, minute)| hour * 60 + minute)
            .filter(|time| *time < DAY_MINUTES)
            .collect();
        Ok(CronRule {
            every_hour: hours.len() == 24,
            times,
            pattern,
        })
    }

    /// The line in words: `at 02:00 and 14:00, on Monday`. The days are said by croner.
    pub(crate) fn words(&self) -> String {
        let by_line = || format!("by the cron line `{}`", self.0);
        let Ok(rule) = self.rule() else {
            return by_line();
        };
        // What croner says of the same days at midnight, after the time.
        let days = self.0.split(' ').skip(2).collect::<Vec<_>>().join(" ");
        let days = parse(&format!("0 0 {days}")).map(|cron| cron.describe());
        match days.as_deref().map(|days| days.strip_prefix("At 00:00")) {
            Ok(Some(days)) => format!("{}{}", rule.times_words(), days.trim_end_matches('.')),
            _ => by_line(),
        }
    }
}

/// What a line means.
pub(crate) struct CronRule {
    /// Whether all 24 hours are named: such a line means hours that pass, not times of day.
    pub(crate) every_hour: bool,
    /// Minutes of the day, ascending.
    pub(crate) times: Vec<u16>,
    /// Which days: asked with [`CronPattern::day_match`].
    pub(crate) pattern: CronPattern,
}

impl CronRule {
    fn times_words(&self) -> String {
        let minutes = self.times.iter().take_while(|time| **time < 60);
        match (self.times.as_slice(), self.every_hour) {
            (times, _) if times.len() == usize::from(DAY_MINUTES) => "every minute".to_owned(),
            (times, true) if times.len() <= TIMES_LISTED_MAX * 24 => {
                format!(
                    "every hour at {}",
                    listed(&minutes.map(|minute| format!(":{minute:02}")).collect::<Vec<_>>())
                )
            }
            (times, true) => format!("{} times an hour", times.len() / 24),
            (times, false) if times.len() <= TIMES_LISTED_MAX => {
                format!(
                    "at {}",
                    listed(&times.iter().map(|time| clock(*time)).collect::<Vec<_>>())
                )
            }
            ([first, .., last], false) => format!(
                "{} times a day from {} to {}",
                self.times.len(),
                clock(*first),
                clock(*last)
            ),
            (_, false) => "never".to_owned(),
        }
    }
}

fn clock(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn parse(line: &str) -> Result<Cron, croner::errors::CronError> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(line)
}

fn read(line: &str) -> Result<Cron, BadField> {
    if line.len() > LINE_BYTES_MAX {
        return Err(BadField::new(
            "cron line",
            line,
            "it has at most 256 characters",
            EXAMPLE,
        ));
    }
    let fields: Vec<&str> = line.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(BadField::new(
            "cron line",
            line,
            "it has five fields: minute, hour, day of the month, month, weekday",
            EXAMPLE,
        ));
    }
    for (at, (name, rule)) in FIELDS.into_iter().enumerate() {
        // croner takes `+` before the weekday and nicknames after `@`, which no other cron does; and it does not say which field it dislikes, so each is
        // tried with stars for the others.
        let plain = fields[at]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"*,-/#".contains(&byte));
        let mut alone = ["*"; 5];
        alone[at] = fields[at];
        if !plain || parse(&alone.join(" ")).is_err() {
            return Err(BadField::new(name, fields[at], rule, EXAMPLE));
        }
    }
    parse(line).map_err(|_| BadField::new("cron line", line, "its fields do not go together", EXAMPLE))
}

impl FromStr for CronLine {
    type Err = BadField;
    fn from_str(text: &str) -> Result<Self, BadField> {
        read(text)?;
        let fields: Vec<&str> = text.split_whitespace().collect();
        Ok(Self(fields.join(" ").to_ascii_lowercase()))
    }
}

impl fmt::Display for CronLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_kept_with_single_spaces_and_in_lower_case() {
        let line: CronLine = "  0  2 * *   MON-FRI ".parse().unwrap();
        assert_eq!(line.as_str(), "0 2 * * mon-fri");
        assert_eq!(line.to_string().parse::<CronLine>().unwrap(), line);
    }

    #[test]
    fn a_refused_line_names_the_field() {
        for (line, field) in [
            ("60 2 * * *", "minute"),
            ("0 24 * * *", "hour"),
            ("0 2 32 * *", "day of the month"),
            ("0 2 * 13 *", "month of"),
            ("0 2 * * 8", "weekday"),
            ("0 2 * * +1", "weekday"),
            ("0 2 * * foo", "weekday"),
            ("0 2-x * * *", "hour"),
            ("*/0 2 * * *", "minute"),
            ("5-1 2 * * *", "minute"),
            ("0 2 * *", "five fields"),
            ("0 0 2 * * *", "five fields"),
            ("@daily", "five fields"),
            ("@ a b c d", "minute"),
            ("", "five fields"),
        ] {
            let error = line.parse::<CronLine>().unwrap_err().to_string();
            assert!(error.contains(field), "{line}: {error}");
            assert!(error.contains(EXAMPLE), "{line}: {error}");
        }
        assert!("0 ".repeat(200).parse::<CronLine>().is_err());
    }

    #[test]
    fn times_are_all_minutes_of_all_hours_named() {
        let rule = |line: &str| line.parse::<CronLine>().unwrap().rule().unwrap();
        assert_eq!(rule("0,30 2,14 * * *").times, [120, 150, 840, 870]);
        assert!(!rule("0 */2 * * *").every_hour);
        assert!(rule("15 * * * *").every_hour);
        assert!(rule("15 0-23 * * *").every_hour);
        assert_eq!(rule("* * * * *").times.len(), 1440);
    }

    #[test]
    fn a_line_is_said_in_words() {
        let words = |line: &str| line.parse::<CronLine>().unwrap().words();
        for (line, said) in [
            (
                "0 2 * * 1-5",
                "at 02:00, on Monday, Tuesday, Wednesday, Thursday, and Friday",
            ),
            ("0 2,14 * * *", "at 02:00 and 14:00"),
            ("*/15 8-18 * * *", "44 times a day from 08:00 to 18:45"),
            ("15,45 * * * *", "every hour at :15 and :45"),
            ("*/5 * * * *", "12 times an hour"),
            ("* * * * *", "every minute"),
            ("30 4 1,15 * 5", "at 04:30, on day 1 and 15 or Friday"),
            ("0 4 * * mon#1", "at 04:00, on the 1st Monday of the month"),
            (
                "0 4 l jan,jul *",
                "at 04:00, on the last day of the month, in January and July",
            ),
        ] {
            assert_eq!(words(line), said);
        }
    }
}
