//! Fields of messages, checked: times, spans, ids, paths, URLs. Each refusal names the field and the rule.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil;
use jiff::tz::TimeZone;

use super::refused::{Refused, shown};
use crate::schedule::words::{parse_span, span_text as short_span_text};
use crate::state::entry::{IdempotencyKey, Time};

/// Longest span of a validity, an age or a jitter: a hundred years is no limit to anybody, and cannot overflow.
const SPAN_MAX_MS: i64 = 100 * 366 * DAY_MS;
const DAY_MS: i64 = 24 * 3600 * 1000;
/// Formats of images that can be named.
pub const FORMATS: [&str; 5] = ["raw", "qcow2", "vhdx", "vhd", "vmdk"];
/// Longest path, bytes: what Linux takes.
const PATH_MAX: usize = 4096;

/// The key of a change.
///
/// # Errors
/// When there are not 16 bytes.
pub fn key(bytes: &[u8]) -> Result<IdempotencyKey, Refused> {
    bytes
        .try_into()
        .map_err(|_| Refused::invalid("idempotency_key", "must have 16 bytes, drawn at random for each change"))
}

/// The last moment that a text means: RFC 3339, or a date with or without a time, which are meant whole and in `zone`.
///
/// Where clocks were set back, the later of both moments is meant; a moment that was left out is the one after the gap.
pub fn parse_moment(text: &str, zone: &TimeZone) -> Option<Time> {
    let text = text.trim();
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment.into());
    }
    // With a zone's name: 2026-11-22T03:00[Europe/Berlin].
    if let Ok(moment) = text.parse::<jiff::Zoned>() {
        return Some(moment.timestamp().into());
    }
    let end = if let Ok(date) = civil::Date::strptime("%Y-%m-%d", text) {
        date.at(23, 59, 59, 999_000_000)
    } else {
        let spaced = text.replacen('T', " ", 1);
        match civil::DateTime::strptime("%Y-%m-%d %H:%M", &spaced) {
            Ok(minute) => minute.date().at(minute.hour(), minute.minute(), 59, 999_000_000),
            Err(_) => {
                let second = civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", &spaced).ok()?;
                let date = second.date();
                date.at(second.hour(), second.minute(), second.second(), 999_000_000)
            }
        }
    };
    zone.to_ambiguous_timestamp(end).later().ok().map(Time::from)
}

/// How a moment is written.
pub(crate) const MOMENT_RULE: &str = "must be RFC 3339, or a date with or without a time: 2026-11-22, 2026-11-22 03:00";

/// A moment in the future: until when something is kept. Empty: none. Dates are meant whole, in UTC.
///
/// # Errors
/// For what is no moment, and for one that has passed.
pub fn future(field: &str, text: &str, now: Time) -> Result<Option<Time>, Refused> {
    if text.is_empty() {
        return Ok(None);
    }
    let moment = parse_moment(text, &TimeZone::UTC).ok_or_else(|| Refused::invalid(field, MOMENT_RULE))?;
    if moment <= now {
        let rule = format!("has passed: it is {now}");
        return Err(Refused::invalid(field, rule));
    }
    Ok(Some(moment))
}

/// A span in milliseconds: `5d`, `26h`, `1h30m`, `30s`. Empty: none.
///
/// # Errors
/// For what is no span, or a longer one than a hundred years.
pub fn span(field: &'static str, text: &str) -> Result<Option<i64>, Refused> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let rule = || {
        Refused::invalid(
            field,
            "must be a whole number with a unit, d, h, m or s, greater units first: 26h",
        )
    };
    let (days, rest) = match text.split_once(['d', 'D']) {
        Some((days, rest)) if days.len() <= 6 && days.bytes().all(|byte| byte.is_ascii_digit()) => {
            (days.parse::<i64>().map_err(|_| rule())?, rest)
        }
        Some(_) => return Err(rule()),
        None => (0, text),
    };
    let rest = match rest {
        "" => Duration::ZERO,
        rest => parse_span(field, rest, "26h").map_err(|_| rule())?,
    };
    let rest = i64::try_from(rest.as_millis()).unwrap_or(i64::MAX);
    let span = rest.saturating_add(days * DAY_MS);
    if span > SPAN_MAX_MS {
        return Err(Refused::invalid(field, "must be a hundred years at most"));
    }
    Ok(Some(span))
}

/// A span as [`span`] reads it; empty for 0.
pub fn span_text(milliseconds: i64) -> String {
    match u64::try_from(milliseconds) {
        Err(_) | Ok(0) => String::new(),
        Ok(span) if milliseconds % DAY_MS == 0 => format!("{}d", span / DAY_MS.unsigned_abs()),
        Ok(span) => short_span_text(Duration::from_millis(span)),
    }
}

/// A time as it travels; empty: none.
pub fn time_text(time: Option<Time>) -> String {
    time.map(|time| time.to_string()).unwrap_or_default()
}

/// A format of an image; empty: by the extension.
///
/// # Errors
/// For others than [`FORMATS`].
pub fn format(field: &str, text: &str) -> Result<String, Refused> {
    if text.is_empty() || FORMATS.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(Refused::invalid(
        field,
        format!("must be one of {}, or empty: by the extension", FORMATS.join(", ")),
    ))
}

/// An absolute path on some host. It means nothing relative to whatever folder a worker was started in.
///
/// # Errors
/// For others.
pub fn path(field: &str, text: &str) -> Result<String, Refused> {
    if !text.starts_with('/') || text.len() > PATH_MAX || text.contains('\0') {
        let rule = format!("must be a path from the root of at most {PATH_MAX} bytes");
        return Err(Refused::invalid(field, rule));
    }
    Ok(text.to_owned())
}

/// Where a disk is read: an absolute path, or the URL of an export such as `nbd://host/export`.
///
/// # Errors
/// For others.
pub fn disk_path(field: &str, text: &str) -> Result<String, Refused> {
    let is_url = text.starts_with("nbd://") || text.starts_with("nbd+unix://");
    match is_url && text.len() <= PATH_MAX && !text.chars().any(char::is_control) {
        true => Ok(text.to_owned()),
        false => path(field, text).map_err(|_| {
            let rule = format!("must be a path from the root, or nbd://…, of at most {PATH_MAX} bytes");
            Refused::invalid(field, rule)
        }),
    }
}

/// Schemes of stores. `memory` is shared inside one process, for tests.
const SCHEMES: [&str; 5] = ["file", "s3", "az", "gs", "memory"];
/// Longest URL of a store, bytes.
const URL_MAX: usize = 2048;

/// The URL of a store without what has no meaning: `s3://bucket/prefix`. Two texts of one place become one.
///
/// # Errors
/// For what is none, and for one with credentials in it, which would lie in the log.
pub fn store_url(field: &str, text: &str) -> Result<String, Refused> {
    let wrong = |rule: &str| Refused::invalid(field, rule);
    if text.len() > URL_MAX || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(wrong("must be a URL of at most 2048 bytes without spaces"));
    }
    let (scheme, rest) = text
        .split_once("://")
        .filter(|(scheme, _)| SCHEMES.contains(scheme))
        .ok_or_else(|| {
            wrong("must be file:///FOLDER, s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or gs://BUCKET/PREFIX")
        })?;
    if rest.contains(['?', '#']) {
        return Err(wrong(
            "ends with the path: parameters belong into the workers' configuration",
        ));
    }
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.contains('@') {
        return Err(wrong("must have no credentials: those are each worker's own"));
    }
    if host.contains(':') {
        return Err(wrong(
            "must have no port: that belongs to the endpoint in the workers' configuration",
        ));
    }
    let path = path.trim_end_matches('/');
    match (scheme, host, path) {
        ("file", "", "") => Err(wrong("must name a folder: file:///FOLDER")),
        ("file", "", path) => Ok(format!("file://{path}")),
        ("file", ..) => Err(wrong("must name a folder from the root: file:///FOLDER")),
        (_, "", _) => Err(wrong("must name a bucket")),
        (scheme, host, path) => Ok(format!("{scheme}://{host}{path}")),
    }
}

/// One of a few words.
///
/// # Errors
/// For others.
pub fn one_of(field: &str, text: &str, words: &[&str]) -> Result<String, Refused> {
    match words.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Refused::invalid(
            field,
            format!("{:?} is not one of {}", shown(text), words.join(", ")),
        )),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse::<Timestamp>().unwrap().into()
    }

    #[test]
    fn a_key_has_16_bytes() {
        assert_eq!(key(&[3; 16]).unwrap(), [3; 16]);
        for wrong in [vec![], vec![1; 15], vec![1; 17]] {
            assert!(key(&wrong).unwrap_err().to_string().starts_with("idempotency_key"));
        }
    }

    #[test]
    fn dates_and_minutes_are_meant_whole() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (text, moment) in [
            ("2026-11-22T03:00:00Z", "2026-11-22T03:00:00Z"),
            ("2026-11-22T03:00:00+01:00", "2026-11-22T02:00:00Z"),
            ("2026-11-22", "2026-11-22T22:59:59.999Z"),
            ("2026-11-22 03:00", "2026-11-22T02:00:59.999Z"),
            ("2026-11-22T03:00", "2026-11-22T02:00:59.999Z"),
            ("2026-11-22 03:00:07", "2026-11-22T02:00:07.999Z"),
            // Twice on that day: the later one.
            ("2026-10-25 02:30", "2026-10-25T01:30:59.999Z"),
        ] {
            assert_eq!(parse_moment(text, &berlin), Some(at(moment)), "{text}");
        }
        for wrong in ["", "tomorrow", "2026-13-01", "2026-11-22 25:00", "22.11.2026"] {
            assert_eq!(parse_moment(wrong, &berlin), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_kept_is_kept_until_a_moment_to_come() {
        let now = at("2026-11-22T12:00:00Z");
        assert_eq!(future("keep_until", "", now).unwrap(), None);
        let today = future("keep_until", "2026-11-22", now).unwrap();
        assert_eq!(today, Some(at("2026-11-22T23:59:59.999Z")), "today is not over");
        for wrong in ["2026-11-21", "2026-11-22T12:00:00Z", "soon"] {
            assert!(
                future("keep_until", wrong, now)
                    .unwrap_err()
                    .to_string()
                    .starts_with("keep_until: ")
            );
        }
    }

    #[test]
    fn spans_are_read_as_they_are_written() {
        for (text, milliseconds, shown) in [
            ("5d", 5 * DAY_MS, "5d"),
            ("26h", 26 * 3_600_000, "26h"),
            ("1d12h", 36 * 3_600_000, "36h"),
            ("48h", 48 * 3_600_000, "2d"),
            (" 90m ", 5_400_000, "1h30m"),
            ("30s", 30_000, "30s"),
        ] {
            assert_eq!(span("valid", text).unwrap(), Some(milliseconds), "{text}");
            assert_eq!(span_text(milliseconds), shown);
            assert_eq!(span("valid", shown).unwrap(), Some(milliseconds));
        }
        assert_eq!(span("valid", "").unwrap(), None);
        assert_eq!(span_text(0), "");
        for wrong in [
            "5",
            "d",
            "-1d",
            "1.5d",
            "5d3",
            "1h1d",
            "9999999d",
            "99999999999999999999h",
            "40000d",
            "5 d",
        ] {
            assert!(span("valid", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_place_has_one_url_and_no_secrets() {
        for (text, url) in [
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
            ("file:///srv/store/", "file:///srv/store"),
            ("gs://b/p", "gs://b/p"),
        ] {
            assert_eq!(store_url("url", text).unwrap(), url);
        }
        for wrong in [
            "",
            "bucket",
            "ftp://x",
            "S3://bucket",
            "s3://",
            "s3:///x",
            "file://",
            "file:///",
            "file://host/x",
            "s3://key:secret@bucket",
            "s3://bucket:9000/x",
            "s3://bucket?key=1",
            "s3://a b",
            &format!("s3://{}", "b".repeat(3000)),
        ] {
            let error = store_url("url", wrong).unwrap_err().to_string();
            assert!(
                error.starts_with("url: ") && !error.contains("secret"),
                "{wrong}: {error}"
            );
        }
    }

    #[test]
    fn paths_are_from_the_root() {
        assert!(path("path", "/srv/web.qcow2").is_ok());
        assert!(disk_path("path", "nbd://host:10809/disk").is_ok());
        for wrong in ["", "web.qcow2", "./x", "/a\0b", "nbd://a\nb", "http://x/y"] {
            assert!(disk_path("path", wrong).is_err(), "{wrong:?}");
        }
        assert!(path("path", "nbd://host/x").is_err(), "a restore writes files");
    }
}
