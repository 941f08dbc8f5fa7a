//! Numbers and tables for people, and what people type for times.

use std::fmt::Write as _;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp};

/// A size: `0 B`, `512 B`, `1.0 KiB`, `31.4 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with groups of three digits: `12 345`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A count of things: `1 worker`, `12 workers`.
pub(crate) fn many(number: usize, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", count(number as u64))
}

/// How long something took: `0.4 s`, `12.0 s`, `3 min 05 s`, `2 h 07 min`.
pub(crate) fn elapsed(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// How long ago something was, in its largest unit: `just now`, `5 min`, `3 h`, `12 d`.
pub(crate) fn age(seconds: i64) -> String {
    match seconds {
        ..0 => String::from("in the future"),
        0..60 => String::from("just now"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A time as all output has it: RFC 3339, UTC, whole seconds.
pub(crate) fn time(at: Timestamp) -> String {
    let whole = Timestamp::from_second(at.as_second()).unwrap_or(at);
    whole.to_string()
}

/// A date or time that a person typed; a bare date means the end of that day in UTC.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_keep_until(text: &str, now: Timestamp) -> Result<String, String> {
    let until = match text.parse::<Timestamp>() {
        Ok(time) => time,
        Err(_) => {
            let wrong = || format!("{text:?} is neither a date (YYYY-MM-DD) nor an RFC 3339 time with its zone");
            // A civil date also parses from a date and a time without a zone, whose time would be lost.
            if text.len() != 10 {
                return Err(wrong());
            }
            let date: Date = text.parse().map_err(|_| wrong())?;
            let midnight = date
                .tomorrow()
                .and_then(|next| next.in_tz("UTC"))
                .map_err(|_| wrong())?
                .timestamp();
            midnight
                .checked_sub(SignedDuration::from_secs(1))
                .map_err(|_| wrong())?
        }
    };
    if until <= now {
        return Err(format!("{text} is in the past"));
    }
    Ok(time(until))
}

/// How long ago a time of the wire was, as [`age`]; the text itself when it is no time.
pub(crate) fn ago(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => age(now.duration_since(then).as_secs()),
        Err(_) => time.to_owned(),
    }
}

/// Names and values, a pair a line; pairs without a value are left out.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let shown = || pairs.iter().filter(|(_, value)| !value.is_empty());
    let width = shown().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
    let lines: Vec<String> = shown()
        .map(|(name, value)| format!("{name:<width$}{}", plain(value)))
        .collect();
    lines.join("\n")
}

/// A table: two spaces between columns, numbers to the right where the heading starts with `>`.
pub(crate) struct Table {
    columns: Vec<(String, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One with these headings.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let column = |heading: &&str| match heading.strip_prefix('>') {
            Some(heading) => (heading.to_owned(), true),
            None => ((*heading).to_owned(), false),
        };
        Self {
            columns: headings.iter().map(column).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row. Control characters of a terminal are taken out: names come from others.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "rows are made for this, and a borrow would only be written at each call"
    )]
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.line(&cells);
    }

    /// As [`Self::row`], of a table whose columns are only known when it is made.
    pub(crate) fn line(&mut self, cells: &[String]) {
        assert_eq!(cells.len(), self.columns.len(), "a row has the columns of its table");
        self.rows.push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// The text, without a line break at its end.
    pub(crate) fn render(&self) -> String {
        let width = |at: usize| {
            let cells = self.rows.iter().map(|row| row[at].chars().count());
            cells.chain([self.columns[at].0.chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for (at, cell) in row.iter().enumerate() {
                let width = widths[at];
                let gap = if at == 0 { "" } else { "  " };
                let _ = if self.columns[at].1 {
                    write!(line, "{gap}{cell:>width$}")
                } else {
                    write!(line, "{gap}{cell:<width$}")
                };
            }
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(line.trim_end());
        }
        text
    }
}

/// A store's URL without what stands before an `@` in its host part: somebody may have put a password there.
pub(crate) fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return plain(url);
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    plain(&format!("{scheme}://{host}{path}"))
}

/// A text without what a terminal could take as a command.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn sizes_have_one_digit_behind_the_point_and_never_1024_of_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (33_715_493_273, "31.4 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1 000"), (12_345_678, "12 345 678")] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn durations_have_at_most_two_units() {
        for (ms, text) in [
            (0, "0.0 s"),
            (450, "0.4 s"),
            (59_999, "59.9 s"),
            (185_000, "3 min 05 s"),
            (7_620_000, "2 h 07 min"),
        ] {
            assert_eq!(elapsed(ms), text);
        }
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, text) in [
            (-1, "in the future"),
            (30, "just now"),
            (3599, "59 min"),
            (129_600, "36 h"),
            (777_600, "9 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn a_date_is_kept_to_its_end_and_a_time_as_it_is() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().unwrap();
        assert_eq!(parse_keep_until("2026-03-10", now).unwrap(), "2026-03-10T23:59:59Z");
        assert_eq!(
            parse_keep_until("2026-03-11T01:00:00.5+02:00", now).unwrap(),
            "2026-03-10T23:00:00Z"
        );
        for wrong in [
            "2026-03-09",
            "2026-02-30",
            "tomorrow",
            "2026-04-01T00:00:00",
            "",
            "2026-3-11",
        ] {
            assert!(parse_keep_until(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pairs_line_up_and_leave_out_what_is_empty() {
        let shown = [
            ("id", String::from("7")),
            ("worker", String::new()),
            ("state", String::from("a\nb")),
        ];
        insta::assert_snapshot!(pairs(&shown), @"
        id     7
        state  a\u{fffd}b
        ");
    }

    #[test]
    fn tables_line_up_and_pass_no_terminal_commands() {
        let mut table = Table::new(&["name", ">size"]);
        table.row([String::from("vda"), size(1 << 30)]);
        table.row([String::from("\u{1b}[31mdata"), size(5)]);
        insta::assert_snapshot!(table.render(), @"
        NAME          SIZE
        vda        1.0 GiB
        \u{fffd}[31mdata      5 B
        ");
    }
}
