//! The time that a report looks at: whole days of UTC, and moments in it. Pure.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Serialize, Serializer};

/// Days that a report looks at if nobody says more.
pub(crate) const DAYS_DEFAULT: u32 = 30;
/// Most days: a year and a day, so that a chart's bars can be told apart.
pub(crate) const DAYS_MAX: i64 = 366;
/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// From when to when, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// The first moment in it.
    pub(crate) since: Timestamp,
    /// The first moment after it.
    pub(crate) until: Timestamp,
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut shown = to.serialize_struct("Window", 2)?;
        shown.serialize_field("since", &self.since.to_string())?;
        shown.serialize_field("until", &self.until.to_string())?;
        shown.end()
    }
}

fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// A date, which is its first moment in UTC, or a time with its zone.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(whole(time));
    }
    let wrong = || format!("{text:?} is neither a date (YYYY-MM-DD) nor an RFC 3339 time with its zone");
    if text.len() != 10 {
        return Err(wrong());
    }
    let date: Date = text.parse().map_err(|_| wrong())?;
    Ok(date.to_zoned(TimeZone::UTC).map_err(|_| wrong())?.timestamp())
}

impl Window {
    /// What was asked for: `since` wins over `days`, which count back from the end; the end is now if nobody says another.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(
        since: Option<&str>,
        until: Option<&str>,
        days: Option<u32>,
        now: Timestamp,
    ) -> Result<Self, String> {
        // Up to the end of this second: what has just ended is in it.
        let now = whole(now.checked_add(SignedDuration::from_nanos(999_999_999)).unwrap_or(now));
        let until = until.map_or(Ok(now), moment)?.min(now);
        let since = match since {
            Some(since) => moment(since)?,
            None => until
                .checked_sub(SignedDuration::from_secs(i64::from(days.unwrap_or(DAYS_DEFAULT)) * DAY))
                .map_err(|_| String::from("it began before there was time"))?,
        };
        if since >= until {
            return Err(format!("nothing is between {since} and {until}"));
        }
        let window = Self { since, until };
        if window.seconds() > DAYS_MAX * DAY {
            return Err(format!("a report looks at {DAYS_MAX} days at most"));
        }
        Ok(window)
    }

    /// How long it is.
    pub(crate) fn seconds(self) -> i64 {
        self.until.duration_since(self.since).as_secs()
    }

    /// Whether a moment is in it.
    pub(crate) fn has(self, at: Timestamp) -> bool {
        self.since <= at && at < self.until
    }

    /// The number of its day, from 0; none for a moment outside.
    pub(crate) fn day(self, at: Timestamp) -> Option<usize> {
        let first = self.since.as_second().div_euclid(DAY);
        self.has(at)
            .then(|| usize::try_from(at.as_second().div_euclid(DAY) - first).unwrap_or_default())
    }

    /// Its days, the first and the last of them maybe not whole: `2026-11-22`.
    pub(crate) fn days(self) -> Vec<String> {
        let first = self.since.as_second().div_euclid(DAY);
        let last = (self.until.as_second() - 1).div_euclid(DAY);
        let name = |day: i64| {
            let at = Timestamp::from_second(day * DAY).unwrap_or(self.since);
            at.to_zoned(TimeZone::UTC).date().to_string()
        };
        (first..=last).map(name).collect()
    }
}

/// A time of the wire; none where there is none.
pub(crate) fn read(time: &str) -> Option<Timestamp> {
    time.parse().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_ends_now_and_begins_days_before_unless_somebody_says_else() {
        let now = at("2026-11-22T10:30:00.5Z");
        let window = |since, until, days| Window::new(since, until, days, now);
        let last = window(None, None, Some(2)).unwrap();
        assert_eq!(
            (last.since, last.until),
            (at("2026-11-20T10:30:01Z"), at("2026-11-22T10:30:01Z"))
        );
        let named = window(Some("2026-11-01"), Some("2026-11-08T12:00:00+01:00"), None).unwrap();
        assert_eq!(
            (named.since, named.until),
            (at("2026-11-01T00:00:00Z"), at("2026-11-08T11:00:00Z"))
        );
        assert_eq!(
            window(None, None, None).unwrap().seconds(),
            i64::from(DAYS_DEFAULT) * DAY
        );
        for (since, until) in [
            (Some("2026-11-23"), None),
            (Some("yesterday"), None),
            (Some("2020-01-01"), None),
            (Some("2026-11-02"), Some("2026-11-01")),
        ] {
            assert!(window(since, until, None).is_err(), "{since:?} {until:?}");
        }
    }

    #[test]
    fn every_moment_of_a_window_is_in_one_of_its_days() {
        let window = Window::new(
            Some("2026-02-27T23:00:00Z"),
            Some("2026-03-02"),
            None,
            at("2027-01-01T00:00:00Z"),
        );
        let window = window.unwrap();
        assert_eq!(window.days(), ["2026-02-27", "2026-02-28", "2026-03-01"]);
        for (time, day) in [
            ("2026-02-27T22:59:59Z", None),
            ("2026-02-27T23:00:00Z", Some(0)),
            ("2026-02-28T00:00:00Z", Some(1)),
            ("2026-03-01T23:59:59Z", Some(2)),
            ("2026-03-02T00:00:00Z", None),
        ] {
            assert_eq!(window.day(at(time)), day, "{time}");
        }
    }
}
