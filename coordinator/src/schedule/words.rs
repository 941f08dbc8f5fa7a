//! The pieces that schedules, windows and retention are written with: times of day, weekdays, spans, counts.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Minutes of a day.
pub(crate) const DAY_MINUTES: u16 = 24 * 60;
/// Longest text of a person that an error repeats, characters.
const FOUND_MAX: usize = 80;

/// A piece of text that breaks a rule: which piece, which rule, and how it is written right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {found:?}: {rule}, for example `{example}`")]
pub struct BadField {
    /// The piece, in words of the one who wrote it: `time of day`.
    pub field: &'static str,
    /// What was there, shortened.
    pub found: String,
    /// What it must be.
    pub rule: &'static str,
    /// A whole text that is right.
    pub example: &'static str,
}

impl BadField {
    pub(crate) fn new(field: &'static str, found: &str, rule: &'static str, example: &'static str) -> Self {
        Self {
            field,
            found: found.chars().take(FOUND_MAX).collect(),
            rule,
            example,
        }
    }
}

/// A time of day on the wall clock, to the minute: `02:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// The start of the day.
    pub const MIDNIGHT: Self = Self(0);

    /// `hour:minute`, if there is such a time.
    pub fn new(hour: u8, minute: u8) -> Option<Self> {
        (hour < 24 && minute < 60).then(|| Self(u16::from(hour) * 60 + u16::from(minute)))
    }

    /// Minutes since midnight, below 1440.
    pub fn minutes(self) -> u16 {
        self.0
    }

    /// Reads `2:00` and `02:00`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        Self::new(small_number(hour, 1..=2)?, small_number(minute, 2..=2)?)
    }
}

impl From<TimeOfDay> for u16 {
    fn from(time: TimeOfDay) -> Self {
        time.0
    }
}

impl TryFrom<u16> for TimeOfDay {
    type Error = &'static str;
    fn try_from(minutes: u16) -> Result<Self, Self::Error> {
        (minutes < DAY_MINUTES)
            .then_some(Self(minutes))
            .ok_or("a time of day has fewer than 1440 minutes")
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "they are the days of the week")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    /// All of them, Monday first.
    pub const ALL: [Self; 7] = [
        Self::Monday,
        Self::Tuesday,
        Self::Wednesday,
        Self::Thursday,
        Self::Friday,
        Self::Saturday,
        Self::Sunday,
    ];

    /// Days since Monday.
    pub fn index(self) -> u8 {
        match self {
            Self::Monday => 0,
            Self::Tuesday => 1,
            Self::Wednesday => 2,
            Self::Thursday => 3,
            Self::Friday => 4,
            Self::Saturday => 5,
            Self::Sunday => 6,
        }
    }

    /// `Monday`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Monday => "Monday",
            Self::Tuesday => "Tuesday",
            Self::Wednesday => "Wednesday",
            Self::Thursday => "Thursday",
            Self::Friday => "Friday",
            Self::Saturday => "Saturday",
            Self::Sunday => "Sunday",
        }
    }

    /// `mon`.
    pub fn short(self) -> &'static str {
        match self {
            Self::Monday => "mon",
            Self::Tuesday => "tue",
            Self::Wednesday => "wed",
            Self::Thursday => "thu",
            Self::Friday => "fri",
            Self::Saturday => "sat",
            Self::Sunday => "sun",
        }
    }
}

impl FromStr for Weekday {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL
            .into_iter()
            .find(|day| text.eq_ignore_ascii_case(day.short()) || text.eq_ignore_ascii_case(day.name()))
            .ok_or(())
    }
}

/// Reads `mon,wed,fri`, `mon-fri` and `fri-mon,wed`.
pub(crate) fn read_weekdays(text: &str) -> Option<BTreeSet<Weekday>> {
    let mut days = BTreeSet::new();
    for piece in text.split(',') {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        let (first, last): (Weekday, Weekday) = (first.parse().ok()?, last.parse().ok()?);
        // A range may pass the end of the week: fri-mon.
        let length = (last.index() + 7 - first.index()) % 7;
        for step in 0..=length {
            days.insert(Weekday::ALL[usize::from((first.index() + step) % 7)]);
        }
    }
    Some(days)
}

/// Days as stretches: `mon-fri,sun` is (Monday, Friday), (Sunday, Sunday). Two days are two stretches: `sat,sun` reads better than `sat-sun`.
fn stretches(days: &BTreeSet<Weekday>) -> Vec<(Weekday, Weekday)> {
    let mut stretches: Vec<(Weekday, Weekday)> = Vec::new();
    for &day in days {
        match stretches.last_mut() {
            Some((_, last)) if last.index() + 1 == day.index() => *last = day,
            _ => stretches.push((day, day)),
        }
    }
    stretches
        .into_iter()
        .flat_map(|(first, last)| match last.index() - first.index() {
            1 => vec![(first, first), (last, last)],
            _ => vec![(first, last)],
        })
        .collect()
}

/// Days as [`read_weekdays`] reads them.
pub(crate) fn weekdays_text(days: &BTreeSet<Weekday>) -> String {
    let pieces: Vec<String> = stretches(days)
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.short().to_owned(),
            false => format!("{}-{}", first.short(), last.short()),
        })
        .collect();
    pieces.join(",")
}

/// Days in words: `Monday to Friday and Sunday`, `day` for all.
pub(crate) fn weekdays_words(days: &BTreeSet<Weekday>) -> String {
    if days.len() == Weekday::ALL.len() {
        return "day".to_owned();
    }
    let pieces: Vec<String> = stretches(days)
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.name().to_owned(),
            false => format!("{} to {}", first.name(), last.name()),
        })
        .collect();
    listed(&pieces)
}

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn listed<T: fmt::Display>(pieces: &[T]) -> String {
    let mut text = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        match at {
            0 => {}
            _ if at + 1 == pieces.len() => text.push_str(" and "),
            _ => text.push_str(", "),
        }
        text.push_str(&piece.to_string());
    }
    text
}

/// `a,b,c`.
pub(crate) fn joined<T: fmt::Display>(pieces: impl IntoIterator<Item = T>) -> String {
    let pieces: Vec<String> = pieces.into_iter().map(|piece| piece.to_string()).collect();
    pieces.join(",")
}

/// Reads a number of so many digits that fits into a byte; no sign, no space.
pub(crate) fn small_number(text: &str, digits: std::ops::RangeInclusive<usize>) -> Option<u8> {
    let plain = digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

const SPAN_UNITS: [(char, u64, &str); 3] = [('h', 3600, "hour"), ('m', 60, "minute"), ('s', 1, "second")];

/// Reads `30s`, `15m`, `6h` and `1h30m`: whole numbers with units, greater units first.
///
/// # Errors
/// [`BadField`] for anything else; `field` and `example` are the caller's.
pub fn parse_span(field: &'static str, text: &str, example: &'static str) -> Result<Duration, BadField> {
    read_span(text).ok_or_else(|| {
        BadField::new(
            field,
            text,
            "a whole number with a unit, s, m or h, greater units first",
            example,
        )
    })
}

fn read_span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = SPAN_UNITS.iter();
    let mut seconds: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].chars().next()?.to_ascii_lowercase();
        // The iterator goes on after the last unit used, so each comes once and in order.
        let (_, scale, _) = units.find(|(name, ..)| *name == unit)?;
        seconds = seconds.checked_add(number.checked_mul(*scale)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

fn span_pieces(span: Duration) -> Vec<(u64, char, &'static str)> {
    let mut seconds = span.as_secs();
    let mut pieces = Vec::new();
    for (unit, scale, name) in SPAN_UNITS {
        if seconds >= scale {
            pieces.push((seconds / scale, unit, name));
            seconds %= scale;
        }
    }
    pieces
}

/// A span of whole seconds as [`parse_span`] reads it: `1h30m`.
pub fn span_text(span: Duration) -> String {
    let pieces: Vec<String> = span_pieces(span)
        .iter()
        .map(|(n, unit, _)| format!("{n}{unit}"))
        .collect();
    match pieces.is_empty() {
        true => "0s".to_owned(),
        false => pieces.concat(),
    }
}

/// A span in words: `1 hour and 30 minutes`.
pub fn span_words(span: Duration) -> String {
    let pieces: Vec<String> = span_pieces(span)
        .iter()
        .map(|(n, _, name)| format!("{n} {name}{}", if *n == 1 { "" } else { "s" }))
        .collect();
    match pieces.is_empty() {
        true => "0 seconds".to_owned(),
        false => listed(&pieces),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_read_with_one_or_two_digits_of_the_hour() {
        assert_eq!(TimeOfDay::read("2:05"), TimeOfDay::new(2, 5));
        assert_eq!(TimeOfDay::read("02:05").unwrap().to_string(), "02:05");
        for text in [
            "", ":", "2", "2:5", "24:00", "12:60", "+2:00", "002:00", "12:00:00", " 2:00", "2:00 ", "１2:00",
        ] {
            assert_eq!(TimeOfDay::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_stored_time_of_day_that_does_not_exist_is_refused() {
        let bytes = postcard::to_stdvec(&1440u16).unwrap();
        assert!(postcard::from_bytes::<TimeOfDay>(&bytes).is_err());
        let bytes = postcard::to_stdvec(&TimeOfDay::new(23, 59).unwrap()).unwrap();
        assert_eq!(postcard::from_bytes::<TimeOfDay>(&bytes).unwrap().minutes(), 1439);
    }

    #[test]
    fn days_of_the_week_are_read_as_lists_and_ranges() {
        for (text, shown, words) in [
            ("sun", "sun", "Sunday"),
            ("Monday,FRI", "mon,fri", "Monday and Friday"),
            ("mon-fri", "mon-fri", "Monday to Friday"),
            ("sat,sun", "sat,sun", "Saturday and Sunday"),
            (
                "fri-mon,wed",
                "mon,wed,fri-sun",
                "Monday, Wednesday and Friday to Sunday",
            ),
            ("mon-sun", "mon-sun", "day"),
            ("sun-sat", "mon-sun", "day"),
        ] {
            let days = read_weekdays(text).unwrap();
            assert_eq!(weekdays_text(&days), shown);
            assert_eq!(weekdays_words(&days), words);
            assert_eq!(read_weekdays(shown), Some(days));
        }
        for text in ["", "mon,", "mon-", "-mon", "mon-tue-wed", "1", "mo"] {
            assert_eq!(read_weekdays(text), None, "{text}");
        }
    }

    #[test]
    fn spans_are_read_with_greater_units_first() {
        for (text, seconds, shown, words) in [
            ("30s", 30, "30s", "30 seconds"),
            ("90m", 5400, "1h30m", "1 hour and 30 minutes"),
            ("1H1m1s", 3661, "1h1m1s", "1 hour, 1 minute and 1 second"),
            ("0s", 0, "0s", "0 seconds"),
        ] {
            let span = parse_span("period", text, "every 15m").unwrap();
            assert_eq!(span, Duration::from_secs(seconds));
            assert_eq!(span_text(span), shown);
            assert_eq!(span_words(span), words);
            assert_eq!(parse_span("period", shown, "every 15m").unwrap(), span);
        }
        for text in [
            "",
            "5",
            "m",
            "5m5h",
            "5m5m",
            "-5m",
            "1.5h",
            "1d",
            "5 m",
            "99999999999999999999h",
            "9999999999999999999h",
            "5ä",
        ] {
            let error = parse_span("period", text, "every 15m").unwrap_err();
            assert!(error.to_string().contains("every 15m"), "{error}");
        }
    }
}
