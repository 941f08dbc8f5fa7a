//! Time zones by their IANA names, and where their clocks are put forward.
//!
//! The machine's own database comes first, since administrators keep it current; the copy inside the program (if it was built in) answers for names that
//! the machine does not have: minimal systems have none, or leave out the older names.

use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};

/// A name that no time zone has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("time zone {name:?} is not known: it is an IANA name such as `Europe/Berlin` or `UTC`")]
pub struct UnknownZone {
    /// The name, shortened.
    pub name: String,
}

/// Longest name looked up; the longest in use has 32 characters.
const NAME_MAX: usize = 64;

/// Finds a time zone. Case does not matter; [`TimeZone::iana_name`] has the name as the database writes it.
///
/// # Errors
/// [`UnknownZone`].
pub fn find(name: &str) -> Result<TimeZone, UnknownZone> {
    let unknown = || UnknownZone {
        name: name.chars().take(NAME_MAX).collect(),
    };
    // The database has files that are no zones of people: they would be found by a name that tells nothing.
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte));
    if name.is_empty() || name.len() > NAME_MAX || !plain || name.starts_with('/') {
        return Err(unknown());
    }
    let zone = jiff::tz::db()
        .get(name)
        .or_else(|_| bundled().get(name))
        .map_err(|_| unknown())?;
    match zone.is_unknown() || zone.iana_name().is_none() {
        true => Err(unknown()),
        false => Ok(zone),
    }
}

fn bundled() -> &'static TimeZoneDatabase {
    // Asked for once: jiff logs each time that there is none.
    static BUNDLED: OnceLock<TimeZoneDatabase> = OnceLock::new();
    BUNDLED.get_or_init(TimeZoneDatabase::bundled)
}

/// The instant that a wall clock means: the first one when it shows the time twice, the first instant after the gap when it never shows it.
///
/// `None` only at the ends of the years that can be counted.
pub(crate) fn first_instant(zone: &TimeZone, wall: DateTime) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok(),
        AmbiguousOffset::Gap { before, after } => gap_end(zone, wall, before, after),
    }
}

/// The instant at which the clock was put forward over `wall`.
fn gap_end(zone: &TimeZone, wall: DateTime, before: Offset, after: Offset) -> Option<Timestamp> {
    // A clock that had stayed would show `wall` here, so the change was at this instant or shortly before it.
    let stayed = before.to_timestamp(wall).ok()?;
    let from = stayed.checked_add(jiff::SignedDuration::from_nanos(1)).ok()?;
    // A zone can change its name without its offset; such a change is passed over.
    let change = zone.preceding(from).find(|change| change.offset() == after)?;
    Some(change.timestamp())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_whatever_the_case_and_know_their_name() {
        assert_eq!(find("europe/berlin").unwrap().iana_name(), Some("Europe/Berlin"));
        assert_eq!(find("UTC").unwrap().iana_name(), Some("UTC"));
    }

    #[test]
    fn an_unknown_zone_is_refused_by_name() {
        for name in [
            "",
            "Europe/Berln",
            "../../etc/passwd",
            "/etc/localtime",
            "Etc/Unknown",
            "+02:00",
            "Europe/Berlin\0",
        ] {
            let error = find(name).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().contains("IANA"), "{error}");
        }
        assert_eq!(find(&"x".repeat(1000)).unwrap_err().name.len(), NAME_MAX);
    }

    #[test]
    fn a_wall_clock_means_its_first_instant_or_the_end_of_its_gap() {
        for (zone, wall, instant) in [
            ("Europe/Berlin", "2026-03-29T01:59", "2026-03-29T00:59:00Z"),
            ("Europe/Berlin", "2026-03-29T02:00", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-03-29T02:59", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-03-29T03:00", "2026-03-29T01:00:00Z"),
            ("Europe/Berlin", "2026-10-25T02:30", "2026-10-25T00:30:00Z"),
            ("Europe/Berlin", "2026-10-25T03:00", "2026-10-25T02:00:00Z"),
            ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30:00Z"),
            // Half an hour of daylight saving.
            ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45:00Z"),
            // The 30th of December 2011 does not exist.
            ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00:00Z"),
            ("Asia/Kathmandu", "2026-06-01T05:45", "2026-06-01T00:00:00Z"),
            // Clocks put forward at midnight: the day begins at one.
            ("Africa/Cairo", "2026-04-24T00:30", "2026-04-23T22:00:00Z"),
        ] {
            let instant: Timestamp = instant.parse().unwrap();
            assert_eq!(
                first_instant(&find(zone).unwrap(), wall.parse().unwrap()),
                Some(instant),
                "{zone} {wall}"
            );
        }
    }
}
