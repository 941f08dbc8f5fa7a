//! Which recovery points of an item stay, and why.
//!
//! A point stays if anything keeps it:
//! 1. **Buckets.** Each of `hourly`, `daily`, `weekly`, `monthly` and `yearly` keeps the newest point of each of its last N hours, days, ISO weeks, months and
//!    years that have a point at all, by the clock of the policy's zone; `last` keeps the newest N. Empty buckets do not count: after a month of downtime the
//!    last seven days are seven days with points, not seven empty ones. A point can be kept by several rules, and all are named.
//! 2. **Damage.** A point with findings is kept like any other but uses up no allowance: its bucket keeps the next one too, down to the first sound one, and
//!    counts only once it has one; `last` counts sound ones. So a finding, right or wrong, never makes anything expire.
//! 3. **A person's word.** A hold, and a `keep_until` that is not over.
//! 4. **The newest** point, and the newest sound one, whatever the rules.
//! 5. **The future.** A point later than `now` comes from a clock that was wrong, now or then. It stays, and takes no place in a bucket until its time comes.
//!
//! Without a policy everything stays. Of this hold, and are tested: the order of the input does not matter; what a plan leaves, the same plan leaves again;
//! a greater allowance never expires more; an item that had a point keeps one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, ISOWeekDate};
use jiff::tz::{Offset, TimeZone};
use serde::{Deserialize, Serialize};

use super::words::{BadField, listed};

/// Most points that one rule may keep: a year of hours, and more than anybody looks through.
pub const COUNT_MAX: u32 = 10_000;
const EXAMPLE: &str = "last 3, daily 7, weekly 4, monthly 12, yearly 2";

/// How many points of each kind stay; 0: the rule keeps none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// The newest ones, whenever they were made.
    pub last: u32,
    /// Hours with a point.
    pub hourly: u32,
    /// Days with a point.
    pub daily: u32,
    /// ISO weeks, Monday to Sunday, with a point.
    pub weekly: u32,
    /// Months with a point.
    pub monthly: u32,
    /// Years with a point.
    pub yearly: u32,
}

/// Why a retention is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetentionError {
    /// A piece breaks a rule.
    #[error(transparent)]
    Field(#[from] BadField),
    /// A rule is named twice.
    #[error("retention names `{rule}` twice: once is enough, for example `{EXAMPLE}`")]
    Twice {
        /// The rule.
        rule: &'static str,
    },
    /// A rule keeps too many.
    #[error("retention `{rule} {count}`: at most {COUNT_MAX}; a policy without retention keeps every point")]
    TooMany {
        /// The rule.
        rule: &'static str,
        /// What was asked for.
        count: u32,
    },
    /// It would keep nothing.
    #[error(
        "retention keeps nothing: name at least one rule above 0, for example `{EXAMPLE}`; a policy without retention keeps every point"
    )]
    KeepsNothing,
}

/// One of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are the fields of `Retention`")]
pub enum RuleKind {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

impl RuleKind {
    /// All of them, the finest first.
    pub const ALL: [Self; 6] = [
        Self::Last,
        Self::Hourly,
        Self::Daily,
        Self::Weekly,
        Self::Monthly,
        Self::Yearly,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The bucket that a time lies in; `None` for `last`, which has none.
    pub(crate) fn bucket(self, zone: &TimeZone, time: Timestamp) -> Option<Bucket> {
        let offset = zone.to_offset(time);
        let wall = offset.to_datetime(time);
        match self {
            Self::Last => None,
            // With the offset, an hour that the clock shows twice is two buckets: both hours passed.
            Self::Hourly => Some(Bucket::Hour(wall.date().at(wall.hour(), 0, 0, 0), offset)),
            Self::Daily => Some(Bucket::Day(wall.date())),
            Self::Weekly => Some(Bucket::Week(week_of(wall.date()))),
            Self::Monthly => Some(Bucket::Month(wall.year(), wall.month())),
            Self::Yearly => Some(Bucket::Year(wall.year())),
        }
    }
}

/// ISO 8601 year and week.
fn week_of(date: Date) -> (i16, i8) {
    let week: ISOWeekDate = date.iso_week_date();
    (week.year(), week.week())
}

/// A span of the calendar of which one point stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bucket {
    /// An hour, by its beginning; with the offset, since the clock can show it twice.
    Hour(DateTime, Offset),
    /// A day.
    Day(Date),
    /// An ISO week: year and number.
    Week((i16, i8)),
    /// Year and month.
    Month(i16, i8),
    /// A year.
    Year(i16),
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hour(start, _) => write!(f, "hourly {} {:02}:00", start.date(), start.hour()),
            Self::Day(date) => write!(f, "daily {date}"),
            Self::Week((year, week)) => write!(f, "weekly {year}-W{week:02}"),
            Self::Month(year, month) => write!(f, "monthly {year}-{month:02}"),
            Self::Year(year) => write!(f, "yearly {year}"),
        }
    }
}

/// What retention looks at of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointView<Id> {
    /// Its id: breaks ties between points of one time.
    pub id: Id,
    /// The moment that it shows.
    pub time: Timestamp,
    /// Kept at least until then.
    pub keep_until: Option<Timestamp>,
    /// A person holds it.
    pub held: bool,
    /// It has findings.
    pub damaged: bool,
}

/// What keeps a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The `nth` newest, from 1, of the `of` that `last` keeps.
    Last {
        /// From 1; damaged ones are not counted.
        nth: u32,
        /// As many are kept.
        of: u32,
        /// A newer one in this place is damaged.
        instead: bool,
    },
    /// The newest of its hour, day, week, month or year.
    Newest {
        /// Which.
        bucket: Bucket,
        /// A newer one in it is damaged.
        instead: bool,
    },
    /// The newest point of the item.
    NewestOfItem,
    /// The newest of the item without findings.
    NewestSound,
    /// A person holds it.
    Held,
    /// A person wants it until then.
    KeepUntil(Timestamp),
    /// Its time has not come.
    InTheFuture,
    /// There is no retention.
    NoRetention,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last { nth, of, instead } => write!(f, "last {nth} of {of}{}", instead_of(*instead)),
            Self::Newest { bucket, instead } => write!(f, "{bucket}{}", instead_of(*instead)),
            Self::NewestOfItem => f.write_str("the newest point"),
            Self::NewestSound => f.write_str("the newest point without damage"),
            Self::Held => f.write_str("held"),
            Self::KeepUntil(until) => write!(f, "kept until {until}"),
            Self::InTheFuture => f.write_str("made in the future: a clock was wrong"),
            Self::NoRetention => f.write_str("no retention"),
        }
    }
}

fn instead_of(instead: bool) -> &'static str {
    if instead { " (a newer one is damaged)" } else { "" }
}

/// What becomes of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<Id> {
    /// The point.
    pub id: Id,
    /// Its time.
    pub time: Timestamp,
    /// Why it stays; nothing: it expires.
    pub reasons: Vec<Reason>,
}

impl<Id> Verdict<Id> {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Decides on all points of one item, newest first in the answer. `zone` is the zone whose days and weeks the rules mean.
///
/// Cost: sorting, and a few set entries per point.
pub fn plan<Id: Copy + Ord>(
    points: &[PointView<Id>],
    retention: Option<&Retention>,
    zone: &TimeZone,
    now: Timestamp,
) -> Vec<Verdict<Id>> {
    let mut points = points.to_vec();
    points.sort_by_key(|point| std::cmp::Reverse((point.time, point.id)));
    let mut reasons: Vec<Vec<Reason>> = points.iter().map(|point| own_reasons(point, now)).collect();
    if let Some(retention) = retention {
        // Sorted by time, so those of the future come first.
        let future = points.partition_point(|point| point.time > now);
        let counted = &points[future..];
        for (rule, count) in retention.rules() {
            for (place, reason) in kept_by(rule, count, zone, counted) {
                reasons[future + place].push(reason);
            }
        }
        let sound = counted.iter().position(|point| !point.damaged);
        for (newest, reason) in [
            (counted.first().map(|_| 0), Reason::NewestOfItem),
            (sound, Reason::NewestSound),
        ] {
            if let Some(newest) = newest
                && reasons[future + newest].is_empty()
            {
                reasons[future + newest].push(reason);
            }
        }
    } else {
        for reasons in &mut reasons {
            reasons.push(Reason::NoRetention);
        }
    }
    points
        .iter()
        .zip(reasons)
        .map(|(point, reasons)| Verdict {
            id: point.id,
            time: point.time,
            reasons,
        })
        .collect()
}

/// What keeps a point whatever the others are.
fn own_reasons<Id>(point: &PointView<Id>, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if point.held {
        reasons.push(Reason::Held);
    }
    reasons.extend(point.keep_until.filter(|until| *until > now).map(Reason::KeepUntil));
    if point.time > now {
        reasons.push(Reason::InTheFuture);
    }
    reasons
}

/// Which points one rule keeps: place and reason. They come newest first.
fn kept_by<Id>(rule: RuleKind, count: u32, zone: &TimeZone, points: &[PointView<Id>]) -> Vec<(usize, Reason)> {
    let count_reached = |counted: usize| u32::try_from(counted).unwrap_or(u32::MAX) >= count;
    let mut kept = Vec::new();
    // What has its sound point, and so is counted; and what has damaged ones only, up to now.
    let (mut counted, mut damaged) = (BTreeSet::new(), BTreeSet::new());
    let mut nth = 0;
    for (place, point) in points.iter().enumerate() {
        if count_reached(counted.len()) {
            break;
        }
        // The places of `last` are buckets too: each is filled by the next sound point.
        let bucket = rule.bucket(zone, point.time);
        let key = (nth, bucket);
        if counted.contains(&key) {
            continue;
        }
        let instead = damaged.contains(&key);
        kept.push((
            place,
            match bucket {
                Some(bucket) => Reason::Newest { bucket, instead },
                None => Reason::Last {
                    nth: nth + 1,
                    of: count,
                    instead,
                },
            },
        ));
        match point.damaged {
            true => damaged.insert(key),
            false => counted.insert(key),
        };
        if bucket.is_none() && !point.damaged {
            nth += 1;
        }
    }
    kept
}

impl Retention {
    /// How many a rule keeps.
    pub fn count(&self, rule: RuleKind) -> u32 {
        match rule {
            RuleKind::Last => self.last,
            RuleKind::Hourly => self.hourly,
            RuleKind::Daily => self.daily,
            RuleKind::Weekly => self.weekly,
            RuleKind::Monthly => self.monthly,
            RuleKind::Yearly => self.yearly,
        }
    }

    fn count_mut(&mut self, rule: RuleKind) -> &mut u32 {
        match rule {
            RuleKind::Last => &mut self.last,
            RuleKind::Hourly => &mut self.hourly,
            RuleKind::Daily => &mut self.daily,
            RuleKind::Weekly => &mut self.weekly,
            RuleKind::Monthly => &mut self.monthly,
            RuleKind::Yearly => &mut self.yearly,
        }
    }

    /// The rules that keep something, with how many.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (RuleKind, u32)> + '_ {
        RuleKind::ALL
            .into_iter()
            .map(|rule| (rule, self.count(rule)))
            .filter(|(_, count)| *count > 0)
    }

    /// Checks what the text form guarantees, for values that came another way.
    ///
    /// # Errors
    /// [`RetentionError::KeepsNothing`], [`RetentionError::TooMany`].
    pub fn validate(&self) -> Result<(), RetentionError> {
        if let Some((rule, count)) = self.rules().find(|(_, count)| *count > COUNT_MAX) {
            return Err(RetentionError::TooMany {
                rule: rule.name(),
                count,
            });
        }
        match self.rules().next() {
            Some(_) => Ok(()),
            None => Err(RetentionError::KeepsNothing),
        }
    }

    /// In words: `the last 3 points, and the newest of each of the last 7 days and 4 weeks`.
    pub fn words(&self) -> String {
        let plural = |count: u32| if count == 1 { "" } else { "s" };
        let units: Vec<String> = self
            .rules()
            .filter_map(|(rule, count)| {
                let unit = match rule {
                    RuleKind::Last => return None,
                    RuleKind::Hourly => "hour",
                    RuleKind::Daily => "day",
                    RuleKind::Weekly => "week",
                    RuleKind::Monthly => "month",
                    RuleKind::Yearly => "year",
                };
                Some(format!("{count} {unit}{}", plural(count)))
            })
            .collect();
        let last = match self.last {
            0 => None,
            1 => Some("the last point".to_owned()),
            last => Some(format!("the last {last} points")),
        };
        let newest =
            (!units.is_empty()).then(|| format!("the newest of each of the last {} with a point", listed(&units)));
        let pieces: Vec<String> = [last, newest].into_iter().flatten().collect();
        match pieces.is_empty() {
            true => "nothing".to_owned(),
            false => pieces.join(", and "),
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (rule, count)) in self.rules().enumerate() {
            let between = if at == 0 { "" } else { ", " };
            write!(f, "{between}{} {count}", rule.name())?;
        }
        Ok(())
    }
}

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, RetentionError> {
        let mut retention = Self::default();
        let mut named = BTreeSet::new();
        for piece in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
            let wrong = |rule| BadField::new("retention", piece, rule, EXAMPLE);
            let mut words = piece.split_whitespace();
            let (Some(name), Some(count), None) = (words.next(), words.next(), words.next()) else {
                return Err(wrong("a rule and how many points it keeps, several with commas").into());
            };
            let rule = RuleKind::ALL
                .into_iter()
                .find(|rule| name.eq_ignore_ascii_case(rule.name()))
                .ok_or_else(|| wrong("the rules are last, hourly, daily, weekly, monthly and yearly"))?;
            let plain = count.bytes().all(|byte| byte.is_ascii_digit());
            let count = count
                .parse()
                .ok()
                .filter(|_| plain)
                .ok_or_else(|| wrong("a rule keeps a whole number of points"))?;
            if !named.insert(rule) {
                return Err(RetentionError::Twice { rule: rule.name() });
            }
            *retention.count_mut(rule) = count;
        }
        retention.validate()?;
        Ok(retention)
    }
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
