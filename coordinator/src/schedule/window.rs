//! Backup windows: the hours of the week in which work may start.
//!
//! ```text
//! mon-fri 20:00-06:00; sat,sun 00:00-24:00
//! ```
//! A window that closes at or before its opening closes on the next day, so Friday's above ends on Saturday at 06:00. Windows follow the wall clock as it is
//! shown: in a fold 02:30 may be open twice, and a time in a gap is neither open nor closed. They bound the start of work; what has started goes on.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::words::{BadField, DAY_MINUTES, TimeOfDay, Weekday, read_weekdays, weekdays_text, weekdays_words};

/// Most windows of one calendar: two for each day of the week, and some to spare.
pub const WINDOWS_MAX: usize = 21;
const WEEK_MINUTES: u16 = 7 * DAY_MINUTES;
const EXAMPLE: &str = "mon-fri 20:00-06:00";

/// One range of hours, on some days of every week.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// The days on which it opens; at least one.
    pub days: BTreeSet<Weekday>,
    /// When it opens.
    pub opens: TimeOfDay,
    /// When it closes, this time excluded; at or before `opens` it is of the next day. Midnight to midnight is the whole day; other equal times are refused.
    pub closes: TimeOfDay,
}

/// All windows of a calendar; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows(pub BTreeSet<Window>);

/// Why windows are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowsError {
    /// A piece breaks a rule.
    #[error(transparent)]
    Field(#[from] BadField),
    /// Nothing could ever start.
    #[error(
        "there is no backup window, so nothing could ever start: name one, such as `{EXAMPLE}`, or leave windows out"
    )]
    NeverOpen,
    /// More than anybody can read.
    #[error("{found} backup windows: at most {WINDOWS_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
}

impl Window {
    fn validate(&self) -> Result<(), BadField> {
        if self.days.is_empty() {
            return Err(BadField::new("days of the window", "", DAYS_RULE, EXAMPLE));
        }
        if self.opens == self.closes && self.opens != TimeOfDay::MIDNIGHT {
            return Err(BadField::new("hours of the window", &self.hours(), HOURS_RULE, EXAMPLE));
        }
        Ok(())
    }

    fn hours(&self) -> String {
        match self.closes {
            TimeOfDay::MIDNIGHT => format!("{}-24:00", self.opens),
            closes => format!("{}-{closes}", self.opens),
        }
    }

    fn minutes(&self) -> u16 {
        let (opens, closes) = (self.opens.minutes(), self.closes.minutes());
        match closes > opens {
            true => closes - opens,
            false => closes + DAY_MINUTES - opens,
        }
    }

    /// In words: `Monday to Friday 20:00-06:00`.
    pub fn words(&self) -> String {
        match weekdays_words(&self.days).as_str() {
            "day" => format!("every day {}", self.hours()),
            days => format!("{days} {}", self.hours()),
        }
    }
}

const DAYS_RULE: &str = "mon, tue, wed, thu, fri, sat or sun, several with commas, a range with a hyphen";
const HOURS_RULE: &str = "when it opens, a hyphen, and when it closes, at another time; a whole day is 00:00-24:00";

impl FromStr for Window {
    type Err = BadField;

    fn from_str(text: &str) -> Result<Self, BadField> {
        let wrong = |field, found, rule| BadField::new(field, found, rule, EXAMPLE);
        let mut pieces = text.split_whitespace();
        let (Some(days), Some(hours), None) = (pieces.next(), pieces.next(), pieces.next()) else {
            return Err(wrong("backup window", text, "the days of the week, then the hours"));
        };
        let (opens, closes) = hours
            .split_once('-')
            .ok_or_else(|| wrong("hours of the window", hours, HOURS_RULE))?;
        let time = |text| TimeOfDay::read(text).ok_or_else(|| wrong("hours of the window", hours, HOURS_RULE));
        let window = Self {
            days: read_weekdays(days).ok_or_else(|| wrong("days of the window", days, DAYS_RULE))?,
            opens: time(opens)?,
            closes: match closes {
                "24:00" => TimeOfDay::MIDNIGHT,
                _ => time(closes)?,
            },
        };
        // `00:00-00:00` as a text could mean nothing as well as everything.
        if opens == closes {
            return Err(wrong("hours of the window", hours, HOURS_RULE));
        }
        window.validate()?;
        Ok(window)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", weekdays_text(&self.days), self.hours())
    }
}

impl Windows {
    /// Checks what the text form guarantees, for values that came another way.
    ///
    /// # Errors
    /// [`WindowsError`].
    pub fn validate(&self) -> Result<(), WindowsError> {
        if self.0.is_empty() {
            return Err(WindowsError::NeverOpen);
        }
        if self.0.len() > WINDOWS_MAX {
            return Err(WindowsError::TooMany { found: self.0.len() });
        }
        self.0.iter().try_for_each(Window::validate)?;
        Ok(())
    }

    /// In words: `Monday to Friday 20:00-06:00; Saturday and Sunday 00:00-24:00`.
    pub fn words(&self) -> String {
        let pieces: Vec<String> = self.0.iter().map(Window::words).collect();
        pieces.join("; ")
    }
}

impl FromStr for Windows {
    type Err = WindowsError;

    fn from_str(text: &str) -> Result<Self, WindowsError> {
        if text.trim().is_empty() {
            return Err(WindowsError::NeverOpen);
        }
        let windows = Self(text.split(';').map(str::parse).collect::<Result<_, _>>()?);
        windows.validate()?;
        Ok(windows)
    }
}

impl fmt::Display for Windows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, window) in self.0.iter().enumerate() {
            let between = if at == 0 { "" } else { "; " };
            write!(f, "{between}{window}")?;
        }
        Ok(())
    }
}

/// Windows ready to be asked: made once for a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHours {
    /// Minutes of the week, ends excluded, ascending, apart from each other; at least one.
    ranges: Vec<(u16, u16)>,
}

impl OpenHours {
    /// Makes windows ready.
    ///
    /// # Errors
    /// As [`Windows::validate`].
    pub fn new(windows: &Windows) -> Result<Self, WindowsError> {
        windows.validate()?;
        let mut open = [false; WEEK_MINUTES as usize];
        for window in &windows.0 {
            for day in &window.days {
                let start = u16::from(day.index()) * DAY_MINUTES + window.opens.minutes();
                for minute in start..start + window.minutes() {
                    open[usize::from(minute % WEEK_MINUTES)] = true;
                }
            }
        }
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for minute in (0..WEEK_MINUTES).filter(|minute| open[usize::from(*minute)]) {
            match ranges.last_mut() {
                Some((_, end)) if *end == minute => *end += 1,
                _ => ranges.push((minute, minute + 1)),
            }
        }
        Ok(Self { ranges })
    }

    /// Whether work may start at `at`, by the clock of `zone`.
    pub fn is_open(&self, zone: &TimeZone, at: Timestamp) -> bool {
        self.until_open(zone.to_offset(at), at).is_zero()
    }

    /// The first instant from `at` on at which work may start: `at` itself if it may now. `None` only at the end of the years that can be counted.
    pub fn next_open(&self, zone: &TimeZone, at: Timestamp) -> Option<Timestamp> {
        let mut at = at;
        let mut offset = zone.to_offset(at);
        loop {
            let wait = self.until_open(offset, at);
            if wait.is_zero() {
                return Some(at);
            }
            let opens = at.checked_add(wait).ok()?;
            match zone.following(at).next() {
                // The clock is changed before it shows the opening: it is read anew then. Changes are months apart, an opening at most a week.
                Some(change) if change.timestamp() <= opens => (at, offset) = (change.timestamp(), change.offset()),
                _ => return Some(opens),
            }
        }
    }

    /// How long a clock that is not changed takes to the next opening; nothing if it is open.
    fn until_open(&self, offset: jiff::tz::Offset, at: Timestamp) -> SignedDuration {
        let wall = offset.to_datetime(at);
        let day = i64::from(wall.weekday().to_monday_zero_offset());
        let midnight = wall.date().to_datetime(jiff::civil::Time::midnight());
        let of_week = SignedDuration::from_hours(day * 24) + wall.duration_since(midnight);
        let minutes = |minutes: u16| SignedDuration::from_mins(i64::from(minutes));
        let next = self.ranges.iter().find(|(_, end)| of_week < minutes(*end));
        let opens = match (next, self.ranges.first()) {
            (Some((start, _)), _) => minutes(*start),
            (None, Some((start, _))) => minutes(*start) + minutes(WEEK_MINUTES),
            // `new` makes none without a range.
            (None, None) => of_week,
        };
        (opens - of_week).max(SignedDuration::ZERO)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::schedule::zone;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn hours(text: &str) -> OpenHours {
        OpenHours::new(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn windows_survive_their_text_form_and_say_what_they_mean() {
        for (text, shown, words) in [
            (
                "mon-fri 20:00-06:00",
                "mon-fri 20:00-06:00",
                "Monday to Friday 20:00-06:00",
            ),
            (
                "sat,SUN 0:00-24:00 ; mon-fri 20:00-6:00",
                "mon-fri 20:00-06:00; sat,sun 00:00-24:00",
                "Monday to Friday 20:00-06:00; Saturday and Sunday 00:00-24:00",
            ),
            ("mon-sun 20:00-00:00", "mon-sun 20:00-24:00", "every day 20:00-24:00"),
        ] {
            let windows: Windows = text.parse().unwrap();
            assert_eq!(windows.to_string(), shown);
            assert_eq!(windows.words(), words);
            assert_eq!(shown.parse::<Windows>().unwrap(), windows);
            let bytes = postcard::to_stdvec(&windows).unwrap();
            assert_eq!(postcard::from_bytes::<Windows>(&bytes).unwrap(), windows);
        }
    }

    #[test]
    fn windows_that_are_never_open_or_say_nothing_are_refused() {
        assert_eq!("".parse::<Windows>().unwrap_err(), WindowsError::NeverOpen);
        assert_eq!(
            Windows(BTreeSet::new()).validate().unwrap_err(),
            WindowsError::NeverOpen
        );
        for text in [
            "mon 06:00-06:00",
            "mon 00:00-00:00",
            "mon",
            "20:00-06:00",
            "mon 20:00",
            "mon 24:00-06:00",
            "mon 20:00-25:00",
            "foo 20:00-06:00",
            "mon 20:00-06:00;",
            "mon 20:00-06:00 tue",
            "mon -06:00",
        ] {
            let error = text.parse::<Windows>().unwrap_err();
            assert!(matches!(error, WindowsError::Field(_)), "{text}: {error}");
            assert!(error.to_string().contains(EXAMPLE), "{text}: {error}");
        }
        let six = TimeOfDay::new(6, 0).unwrap();
        let nothing = Window {
            days: BTreeSet::from([Weekday::Monday]),
            opens: six,
            closes: six,
        };
        assert!(Windows(BTreeSet::from([nothing])).validate().is_err());
        let nowhere = Window {
            days: BTreeSet::new(),
            opens: TimeOfDay::MIDNIGHT,
            closes: six,
        };
        assert!(Windows(BTreeSet::from([nowhere])).validate().is_err());
        let many: Vec<String> = (0..22).map(|minute| format!("mon 20:{minute:02}-21:00")).collect();
        assert_eq!(
            many.join(";").parse::<Windows>().unwrap_err(),
            WindowsError::TooMany { found: 22 }
        );
    }

    #[test]
    fn a_window_is_open_from_its_opening_until_just_before_its_closing() {
        let berlin = zone::find("Europe/Berlin").unwrap();
        let hours = hours("mon-fri 20:00-06:00; sun 22:00-24:00");
        // November: one hour ahead of UTC. The 20th is a Friday.
        for (instant, open, next) in [
            ("2026-11-20T18:59:59.999999999Z", false, "2026-11-20T19:00:00Z"),
            ("2026-11-20T19:00:00Z", true, "2026-11-20T19:00:00Z"),
            ("2026-11-21T04:59:59.999999999Z", true, "2026-11-21T04:59:59.999999999Z"),
            ("2026-11-21T05:00:00Z", false, "2026-11-22T21:00:00Z"),
            ("2026-11-22T22:59:59Z", true, "2026-11-22T22:59:59Z"),
            ("2026-11-22T23:00:00Z", false, "2026-11-23T19:00:00Z"),
        ] {
            assert_eq!(hours.is_open(&berlin, at(instant)), open, "{instant}");
            assert_eq!(hours.next_open(&berlin, at(instant)), Some(at(next)), "{instant}");
        }
    }

    #[test]
    fn a_window_across_the_end_of_the_week_goes_on_on_monday() {
        let utc = TimeZone::UTC;
        let hours = hours("sun 20:00-06:00");
        assert!(hours.is_open(&utc, at("2026-11-22T23:59:59Z")));
        assert!(hours.is_open(&utc, at("2026-11-23T00:00:00Z")));
        assert!(hours.is_open(&utc, at("2026-11-23T05:59:59Z")));
        assert_eq!(
            hours.next_open(&utc, at("2026-11-23T06:00:00Z")),
            Some(at("2026-11-29T20:00:00Z"))
        );
    }

    #[test]
    fn windows_follow_the_clock_as_it_is_shown() {
        let berlin = zone::find("Europe/Berlin").unwrap();
        let narrow = hours("sun 02:15-02:45");
        // Put forward on the 29th of March 2026: 02:15 is not shown, nothing opens until the next Sunday.
        assert_eq!(
            narrow.next_open(&berlin, at("2026-03-29T00:00:00Z")),
            Some(at("2026-04-05T00:15:00Z"))
        );
        // An opening in the gap of a window that outlasts it: open from the first instant after it.
        assert_eq!(
            hours("sun 02:15-04:00").next_open(&berlin, at("2026-03-29T00:00:00Z")),
            Some(at("2026-03-29T01:00:00Z"))
        );
        // Put back on the 25th of October 2026: 02:15 is shown twice.
        assert_eq!(
            narrow.next_open(&berlin, at("2026-10-24T23:00:00Z")),
            Some(at("2026-10-25T00:15:00Z"))
        );
        assert!(!narrow.is_open(&berlin, at("2026-10-25T00:45:00Z")));
        assert_eq!(
            narrow.next_open(&berlin, at("2026-10-25T00:45:00Z")),
            Some(at("2026-10-25T01:15:00Z"))
        );
    }

    fn any_windows() -> impl Strategy<Value = Windows> {
        let window = (0u8..7, 0u16..1440, 0u16..1440)
            .prop_filter("opens and closes at different times", |(_, opens, closes)| {
                opens != closes || *opens == 0
            })
            .prop_map(|(day, opens, closes)| Window {
                days: BTreeSet::from([Weekday::ALL[usize::from(day)]]),
                opens: opens.try_into().unwrap(),
                closes: closes.try_into().unwrap(),
            });
        proptest::collection::btree_set(window, 1..5).prop_map(Windows)
    }

    proptest! {
        #[test]
        fn the_next_opening_is_open_and_nothing_before_it_is(
            windows in any_windows(),
            second in 1_767_225_600i64..1_830_297_600,
            zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"]),
            part in 0.0f64..1.0,
        ) {
            let zone = zone::find(zone).unwrap();
            let hours = OpenHours::new(&windows).unwrap();
            let from = Timestamp::from_second(second).unwrap();
            let next = hours.next_open(&zone, from).unwrap();
            prop_assert!(next >= from && hours.is_open(&zone, next));
            prop_assert!(next.duration_since(from) <= SignedDuration::from_hours(14 * 24));
            prop_assert_eq!(hours.is_open(&zone, from), next == from);
            let between = from + next.duration_since(from).mul_f64(part);
            prop_assert!(between == next || !hours.is_open(&zone, between));
        }

        #[test]
        fn windows_of_any_shape_survive_their_text_form(windows in any_windows()) {
            prop_assert_eq!(windows.to_string().parse::<Windows>().unwrap(), windows);
        }
    }
}
