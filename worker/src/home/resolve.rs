//! From what people write to the point or item that they mean. Pure.
//!
//! `POINT` is, in this order: an item's name (its newest point), a point's id, an item's id (its newest), `ITEM@TIME` (the newest at that time or
//! before), or a prefix of at least four digits of one point's id. A name that is there goes before what only looks like an id, so an
//! item called `beef` can be restored whatever ids there are. Removed points answer to their ids only.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};
use tresor_storage::ids::{ItemId, PointId};
use tresor_storage::vault::VaultError;

use super::points::KnownPoint;

/// Fewest digits of an id that are taken for one.
const PREFIX_MIN: usize = 4;
/// Answers that an ambiguity names.
const NAMED_MAX: usize = 8;

/// The newest visible point of an item: the parent of its next. `points` are newest first.
pub fn newest_of(points: &[KnownPoint], item: ItemId) -> Option<&KnownPoint> {
    of_item(points, item).next()
}

fn of_item(points: &[KnownPoint], item: ItemId) -> impl Iterator<Item = &KnownPoint> {
    points
        .iter()
        .filter(move |point| point.manifest.item == item && point.removed_at.is_none())
}

/// The item of that name or id; none when there is none. An item whose points were all removed is none.
///
/// # Errors
/// [`VaultError::Ambiguous`] when two items have the name.
pub fn find_item(points: &[KnownPoint], text: &str) -> Result<Option<ItemId>, VaultError> {
    // An item is named as its newest visible point says.
    let mut seen = HashSet::new();
    let newest = points
        .iter()
        .filter(|point| point.removed_at.is_none() && seen.insert(point.manifest.item));
    let named: Vec<&KnownPoint> = newest.filter(|point| point.manifest.item_name == text).collect();
    match named.as_slice() {
        [] => {}
        [only] => return Ok(Some(only.manifest.item)),
        several => {
            let shown = several
                .iter()
                .map(|p| format!("item {} (newest {})", p.manifest.item, p.manifest.time));
            return Err(ambiguous("item", text, shown));
        }
    }
    let id = text.parse().ok();
    Ok(id.filter(|id| newest_of(points, *id).is_some()))
}

/// The point that is meant. `points` are newest first; `zone` is that of times written without one.
///
/// # Errors
/// [`VaultError::NotThere`], or [`VaultError::Ambiguous`] with what answers.
pub fn resolve_point<'a>(points: &'a [KnownPoint], text: &str, zone: &TimeZone) -> Result<&'a KnownPoint, VaultError> {
    let missing = || VaultError::NotThere {
        what: "point",
        name: text.chars().take(300).collect(),
    };
    // An item's id is never a point's: both are 128 random bits.
    if let Some(item) = find_item(points, text)? {
        return newest_of(points, item).ok_or_else(missing);
    }
    if let Ok(id) = text.parse::<PointId>() {
        return points
            .iter()
            .find(|point| point.manifest.point == id)
            .ok_or_else(missing);
    }
    // The last @, since names may have one, too.
    if let Some((name, time)) = text.rsplit_once('@') {
        let Some(latest) = parse_time(time, zone) else {
            return Err(VaultError::Name {
                what: "time",
                name: time.chars().take(80).collect(),
                rule: "RFC 3339, or a date with or without a time: 2026-11-22, 2026-11-22 03:00",
            });
        };
        let item = find_item(points, name)?.ok_or_else(|| VaultError::NotThere {
            what: "item",
            name: name.chars().take(300).collect(),
        })?;
        return of_item(points, item)
            .find(|point| point.time() <= latest)
            .ok_or_else(missing);
    }
    if text.len() < PREFIX_MIN || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(missing());
    }
    let found: Vec<&KnownPoint> = points
        .iter()
        .filter(|point| point.manifest.point.to_string().starts_with(text))
        .collect();
    match found.as_slice() {
        [] => Err(missing()),
        [only] => Ok(only),
        several => {
            let shown = several
                .iter()
                .map(|p| format!("{} ({} at {})", p.manifest.point, p.manifest.item_name, p.manifest.time));
            Err(ambiguous("point", text, shown))
        }
    }
}

fn ambiguous(what: &'static str, name: &str, shown: impl ExactSizeIterator<Item = String>) -> VaultError {
    let count = shown.len();
    let mut found: Vec<String> = shown.take(NAMED_MAX).collect();
    if count > NAMED_MAX {
        found.push(format!("and {} more", count - NAMED_MAX));
    }
    VaultError::Ambiguous {
        what,
        name: name.chars().take(300).collect(),
        found: found.join(", "),
    }
}

/// The last moment that a time means: a date is meant whole, a minute too.
///
/// Where clocks were set back, the later of both moments is meant; a moment that was left out is the one after the gap.
pub fn parse_time(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    // With a zone's name: 2026-11-22T03:00[Europe/Berlin].
    if let Ok(moment) = text.parse::<jiff::Zoned>() {
        return Some(moment.timestamp());
    }
    let end = if let Ok(date) = civil::Date::strptime("%Y-%m-%d", text) {
        date.at(23, 59, 59, 999_999_999)
    } else {
        let spaced = text.replacen('T', " ", 1);
        match civil::DateTime::strptime("%Y-%m-%d %H:%M", &spaced) {
            Ok(minute) => minute.date().at(minute.hour(), minute.minute(), 59, 999_999_999),
            Err(_) => {
                let second = civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", &spaced).ok()?;
                second
                    .date()
                    .at(second.hour(), second.minute(), second.second(), 999_999_999)
            }
        }
    };
    zone.to_ambiguous_timestamp(end).later().ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use tresor_storage::ids::{ClusterId, PartId, SessionId, VaultId, Writer};
    use tresor_storage::manifest::{Consistency, Manifest};

    fn point(item: u8, name: &str, id: &str, time: &str) -> KnownPoint {
        let id = format!("{id:0<32}");
        let manifest = Manifest {
            vault: VaultId([0; 16]),
            item: ItemId([item; 16]),
            item_name: name.into(),
            point: id.parse().unwrap(),
            writer: Writer {
                cluster: ClusterId(1),
                session: SessionId(1),
                part: PartId(1),
            },
            parent: None,
            time: time.into(),
            keep_until: None,
            consistency: Consistency::Crash,
            consistency_reason: String::new(),
            live: false,
            disks: Vec::new(),
            bytes_read: 0,
            bytes_new: 0,
            bytes_stored: 0,
        };
        KnownPoint {
            manifest,
            removed_at: None,
            held: None,
        }
    }

    /// Newest first, as they are loaded.
    fn points() -> Vec<KnownPoint> {
        vec![
            point(1, "web", "aaaa1", "2026-11-23T02:00:00Z"),
            point(2, "db", "aaaa2", "2026-11-22T23:30:00Z"),
            point(1, "web", "bbbb", "2026-11-22T02:00:00Z"),
            point(3, "a@b", "cccc", "2026-11-21T02:00:00Z"),
            point(1, "old-web", "dddd", "2026-11-20T02:00:00Z"),
            point(4, "bbbb", "eeee", "2026-11-19T02:00:00Z"),
        ]
    }

    fn resolved(points: &[KnownPoint], text: &str) -> Result<String, VaultError> {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        resolve_point(points, text, &zone).map(|p| p.manifest.point.to_string().trim_end_matches('0').to_owned())
    }

    #[test]
    fn a_name_means_the_newest_point_of_its_item() {
        let points = points();
        assert_eq!(resolved(&points, "web").unwrap(), "aaaa1");
        assert_eq!(resolved(&points, "a@b").unwrap(), "cccc");
        assert_eq!(resolved(&points, &ItemId([2; 16]).to_string()).unwrap(), "aaaa2");
        assert!(
            matches!(resolved(&points, "old-web"), Err(VaultError::NotThere { .. })),
            "a name that the item has no more"
        );
        assert!(matches!(resolved(&points, ""), Err(VaultError::NotThere { .. })));
    }

    #[test]
    fn a_name_goes_before_a_prefix() {
        assert_eq!(resolved(&points(), "bbbb").unwrap(), "eeee");
    }

    #[test]
    fn a_prefix_of_four_digits_is_enough_if_one_point_has_it() {
        let points = points();
        assert_eq!(resolved(&points, "cccc").unwrap(), "cccc");
        assert_eq!(resolved(&points, "aaaa2").unwrap(), "aaaa2");
        assert!(
            matches!(resolved(&points, "ccc"), Err(VaultError::NotThere { .. })),
            "too short"
        );
        assert!(matches!(resolved(&points, "ffff"), Err(VaultError::NotThere { .. })));
        let Err(VaultError::Ambiguous { found, .. }) = resolved(&points, "aaaa") else {
            panic!("two answer")
        };
        assert!(
            found.contains("web at 2026-11-23") && found.contains("db at 2026-11-22"),
            "{found}"
        );
    }

    #[test]
    fn a_time_means_the_newest_point_at_it_or_before() {
        let points = points();
        for (text, expected) in [
            ("web@2026-11-22T02:00:00Z", "bbbb"),
            ("web@2026-11-23T03:00:00+01:00", "aaaa1"),
            ("web@2026-11-22 03:00", "bbbb"),
            ("web@2026-11-22T03:00", "bbbb"),
            ("web@2026-11-23 02:59:59", "bbbb"),
            ("web@2026-11-22", "bbbb"),
            ("web@2026-11-21", "dddd"),
            ("web@2030-01-01", "aaaa1"),
            ("a@b@2026-11-21", "cccc"),
        ] {
            assert_eq!(resolved(&points, text).unwrap(), expected, "{text}");
        }
        // In the zone of the caller this was on the 23rd.
        assert!(matches!(
            resolved(&points, "db@2026-11-22"),
            Err(VaultError::NotThere { .. })
        ));
        assert!(matches!(
            resolved(&points, "web@2026-11-19"),
            Err(VaultError::NotThere { .. })
        ));
        assert!(matches!(
            resolved(&points, "mail@2026-11-22"),
            Err(VaultError::NotThere { what: "item", .. })
        ));
        for bad in ["web@", "web@yesterday", "web@2026-13-01", "web@2026-11-22 25:00"] {
            assert!(matches!(resolved(&points, bad), Err(VaultError::Name { .. })), "{bad}");
        }
    }

    #[test]
    fn where_clocks_are_set_back_the_later_moment_is_meant() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let moment = parse_time("2026-10-25 02:30:00", &zone).unwrap();
        assert_eq!(
            moment.round(jiff::Unit::Second).unwrap().to_string(),
            "2026-10-25T01:30:01Z"
        );
    }

    #[test]
    fn removed_points_answer_to_their_ids_only() {
        let mut points = points();
        points[0].removed_at = Some("2026-11-23T05:00:00Z".into());
        assert_eq!(resolved(&points, "web").unwrap(), "bbbb");
        assert_eq!(resolved(&points, "web@2030-01-01").unwrap(), "bbbb");
        assert_eq!(resolved(&points, "aaaa1").unwrap(), "aaaa1");
        assert_eq!(
            resolved(&points, &points[0].manifest.point.to_string()).unwrap(),
            "aaaa1"
        );
        points[1].removed_at = Some("2026-11-23T05:00:00Z".into());
        assert_eq!(find_item(&points, "db").unwrap(), None);
    }

    #[test]
    fn two_items_of_one_name_are_told_apart_by_their_ids() {
        let mut points = points();
        points[1].manifest.item_name = "web".into();
        let Err(VaultError::Ambiguous { found, .. }) = resolved(&points, "web") else {
            panic!("two answer")
        };
        assert!(
            found.contains(&ItemId([1; 16]).to_string()) && found.contains(&ItemId([2; 16]).to_string()),
            "{found}"
        );
        assert_eq!(
            find_item(&points, &ItemId([2; 16]).to_string()).unwrap(),
            Some(ItemId([2; 16]))
        );
        assert_eq!(
            resolved(&points, &format!("{}@2026-11-23", ItemId([2; 16]))).unwrap(),
            "aaaa2"
        );
    }

    #[test]
    fn ambiguity_names_a_bounded_number_of_answers() {
        let many: Vec<KnownPoint> = (0..20)
            .map(|n| point(n, "web", &format!("abcd{n:x}f"), "2026-11-22T02:00:00Z"))
            .collect();
        let Err(VaultError::Ambiguous { found, .. }) = resolved(&many, "abcd") else {
            panic!("twenty answer")
        };
        assert!(found.ends_with("and 12 more"), "{found}");
    }
}
