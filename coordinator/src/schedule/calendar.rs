//! What is due for an item, what was missed, and when to look again.
//!
//! A calendar has occurrences (the same for all its items), a jitter (each item starts its own span later) and windows (what comes due outside waits for the
//! next opening). For one item that gives a row of starts, one per occurrence, in the order of the occurrences. Of it hold:
//!
//! 1. An occurrence counts for an item if it is after the moment from which the calendar holds for it (`since`: the policy was assigned, enabled or given
//!    another schedule), so a policy that was just made catches up on nothing; and after the occurrence that it last ran for.
//! 2. However many starts were missed, one run is due: for the newest occurrence whose start has passed. The next one is the next regular one.
//! 3. A start never passes the next occurrence, so none is put off again and again. Waiting for a window gathers what waits into one run.
//! 4. Nothing starts while the windows are closed, caught up or not.
//!
//! A pass makes one [`Standing`] per calendar and asks it for each item: an item that ran for the newest occurrence costs a comparison, another one a hash.
//! Whoever keeps the instant of [`Decision::Wait`] need not ask before it.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::draw;
use super::occurrence::Occurrences;
use super::recurrence::{Schedule, ScheduleError};
use super::window::{OpenHours, Windows, WindowsError};
use super::words::{span_text, span_words};
use super::zone::{self, UnknownZone};

/// Longest jitter: beyond a day, it is another schedule.
pub const JITTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// When a policy wants something done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calendar {
    /// When.
    pub schedule: Schedule,
    /// The time zone whose clock schedule and windows follow, by its IANA name.
    pub zone: String,
    /// Each item starts a span below this later, in whole seconds; zero: all at once.
    pub jitter: Duration,
    /// When work may start; `None`: always.
    pub windows: Option<Windows>,
}

/// Why a calendar is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CalendarError {
    /// Its schedule.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// Its time zone.
    #[error(transparent)]
    Zone(#[from] UnknownZone),
    /// Its windows.
    #[error(transparent)]
    Windows(#[from] WindowsError),
    /// Its jitter.
    #[error("jitter {}: at most 24 hours, in whole seconds, for example `30m`", span_text(*found))]
    Jitter {
        /// What was asked for.
        found: Duration,
    },
}

impl Calendar {
    /// Everything that is wrong with it; the leader asks before it proposes a policy.
    pub fn problems(&self) -> Vec<CalendarError> {
        let mut problems = Vec::new();
        problems.extend(self.schedule.validate().err().map(CalendarError::from));
        problems.extend(zone::find(&self.zone).err().map(CalendarError::from));
        problems.extend(self.check_jitter().err());
        if let Some(windows) = &self.windows {
            problems.extend(windows.validate().err().map(CalendarError::from));
        }
        problems
    }

    fn check_jitter(&self) -> Result<(), CalendarError> {
        match self.jitter <= JITTER_MAX && self.jitter.subsec_nanos() == 0 {
            true => Ok(()),
            false => Err(CalendarError::Jitter { found: self.jitter }),
        }
    }

    /// Makes it ready to be asked, once for a policy. `anchor` is where `every` counts from: the policy's making.
    ///
    /// # Errors
    /// The first of [`Self::problems`].
    pub fn compile(&self, anchor: Timestamp) -> Result<Compiled, CalendarError> {
        self.schedule.validate()?;
        let zone = zone::find(&self.zone)?;
        self.check_jitter()?;
        Ok(Compiled {
            occurrences: Occurrences::new(&self.schedule, zone, anchor).map_err(ScheduleError::from)?,
            jitter: SignedDuration::try_from(self.jitter).map_err(|_| CalendarError::Jitter { found: self.jitter })?,
            open_hours: self.windows.as_ref().map(OpenHours::new).transpose()?,
        })
    }

    /// In words: `every day at 02:00 Europe/Berlin, each item up to 30 minutes later`.
    pub fn words(&self) -> String {
        let mut words = self.schedule.words();
        words = match self.schedule {
            Schedule::Every { .. } => words,
            Schedule::Cron { .. } => format!("{words} ({})", self.zone),
            _ => format!("{words} {}", self.zone),
        };
        if !self.jitter.is_zero() {
            words = format!("{words}, each item up to {} later", span_words(self.jitter));
        }
        if let Some(windows) = &self.windows {
            words = format!("{words}, starting only {} {}", windows.words(), self.zone);
        }
        words
    }
}

/// A run of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The occurrence it is for: what the item last ran for, once it has been started.
    pub occurrence: Timestamp,
    /// When it starts: after the item's jitter, within the windows.
    pub at: Timestamp,
}

/// What to do with an item now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Start it, and remember the occurrence as the one it last ran for. Look again afterwards.
    Start(Due),
    /// Nothing before [`Due::at`]; look again then. The run that starts then may be for a newer occurrence.
    Wait(Due),
    /// Nothing any more: the years that can be counted end.
    Never,
}

/// A calendar ready to be asked. Shared by all items of a policy.
#[derive(Debug, Clone)]
pub struct Compiled {
    occurrences: Occurrences,
    jitter: SignedDuration,
    open_hours: Option<OpenHours>,
}

impl Compiled {
    /// The zone whose clock is followed.
    pub fn zone(&self) -> &TimeZone {
        self.occurrences.zone()
    }

    /// The first occurrence after `after`, itself excluded: without jitter and windows. See [`Occurrences::next_after`].
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.occurrences.next_after(after)
    }

    /// The newest occurrence that is `at` or earlier. See [`Occurrences::newest_at`].
    pub fn newest_at(&self, at: Timestamp) -> Option<Timestamp> {
        self.occurrences.newest_at(at)
    }

    /// Whether work may start at `at`.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.open_hours
            .as_ref()
            .is_none_or(|hours| hours.is_open(self.zone(), at))
    }

    /// The first instant from `at` on at which work may start.
    pub fn next_open(&self, at: Timestamp) -> Option<Timestamp> {
        match &self.open_hours {
            Some(hours) => hours.next_open(self.zone(), at),
            None => Some(at),
        }
    }

    /// The span below which an item's start lies after an occurrence, if `next` is the next one.
    pub(crate) fn jitter_before(&self, occurrence: Timestamp, next: Option<Timestamp>) -> SignedDuration {
        next.map_or(self.jitter, |next| self.jitter.min(next.duration_since(occurrence)))
    }

    /// When an item starts for an occurrence, whatever the windows: a function of the two, evenly spread over the jitter and before `next`.
    fn start(&self, item: &[u8], occurrence: Timestamp, next: Option<Timestamp>) -> Timestamp {
        let below = self.jitter_before(occurrence, next).unsigned_abs();
        if below.is_zero() {
            return occurrence;
        }
        let later = draw::span("tresor jitter", occurrence.as_nanosecond(), item, below);
        occurrence.saturating_add(later).unwrap_or(occurrence)
    }

    /// Where the calendar stands at `now`, for all its items.
    ///
    /// Cost: some twenty calls of [`Self::next_after`]; once per calendar and pass.
    pub fn standing(&self, now: Timestamp) -> Standing<'_> {
        let just_before = |at: Timestamp| at.checked_sub(SignedDuration::from_nanos(1)).ok();
        let newest = self.newest_at(now);
        let next = self.next_after(now);
        Standing {
            calendar: self,
            now,
            opens: self.next_open(now),
            before: newest.and_then(just_before).and_then(|at| self.newest_at(at)),
            newest,
            next,
            after_next: next.and_then(|next| self.next_after(next)),
        }
    }

    /// The one run of an item that is overdue at `now`, however many were missed: see [`Standing::missed`].
    pub fn missed(&self, item: &[u8], last_run: Option<Timestamp>, since: Timestamp, now: Timestamp) -> Option<Due> {
        self.standing(now).missed(item, last_run, since)
    }
}

/// A calendar at one moment: what all its items share, worked out once.
#[derive(Debug, Clone)]
pub struct Standing<'c> {
    calendar: &'c Compiled,
    now: Timestamp,
    /// When work may start, from now on.
    opens: Option<Timestamp>,
    /// The occurrence before `newest`.
    before: Option<Timestamp>,
    /// The newest occurrence that is not in the future.
    newest: Option<Timestamp>,
    next: Option<Timestamp>,
    after_next: Option<Timestamp>,
}

impl Standing<'_> {
    /// What to do with an item now: `last_run` is the occurrence that it last ran for, `since` the moment from which the calendar holds for it.
    pub fn decide(&self, item: &[u8], last_run: Option<Timestamp>, since: Timestamp) -> Decision {
        match self.missed(item, last_run, since) {
            Some(due) if due.at <= self.now => Decision::Start(due),
            Some(due) => Decision::Wait(due),
            None => self
                .upcoming(item, last_run, since)
                .map_or(Decision::Never, Decision::Wait),
        }
    }

    /// The run that starts now, if one does: [`Self::decide`] without the look ahead, for passes over many items.
    pub fn due(&self, item: &[u8], last_run: Option<Timestamp>, since: Timestamp) -> Option<Due> {
        self.missed(item, last_run, since).filter(|due| due.at <= self.now)
    }

    /// The run that is overdue, if one is: for the newest occurrence whose start has passed, unless the item ran for it or the calendar did not hold then.
    ///
    /// Its `at` is in the future only while the windows are closed: then it waits for the opening.
    pub fn missed(&self, item: &[u8], last_run: Option<Timestamp>, since: Timestamp) -> Option<Due> {
        let newest = self.newest?;
        // Most items of most passes have run for the newest occurrence: for them this is all.
        if newest <= counted_after(last_run, since) {
            return None;
        }
        let start = self.calendar.start(item, newest, self.next);
        let (occurrence, start) = match start <= self.now {
            true => (newest, start),
            // The start of the one before lies before the newest occurrence, so it has passed.
            false => (self.before?, self.calendar.start(item, self.before?, self.newest)),
        };
        if occurrence <= counted_after(last_run, since) {
            return None;
        }
        let at = match self.opens? {
            opens if opens <= self.now => self.calendar.next_open(start)?,
            opens => opens,
        };
        Some(Due { occurrence, at })
    }

    /// The next regular run: for the first occurrence whose start is in the future.
    pub fn upcoming(&self, item: &[u8], last_run: Option<Timestamp>, since: Timestamp) -> Option<Due> {
        let counted_after = counted_after(last_run, since);
        let counts = |occurrence: &Timestamp| *occurrence > counted_after;
        let due = |occurrence: Timestamp, next: Option<Timestamp>| {
            let start = self.calendar.start(item, occurrence, next);
            (start > self.now).then_some((occurrence, start))
        };
        let (occurrence, start) = self
            .newest
            .filter(counts)
            .and_then(|newest| due(newest, self.next))
            .or_else(|| due(self.next.filter(counts)?, self.after_next))
            .or_else(|| {
                let later = self.calendar.next_after(counted_after)?;
                due(later, self.calendar.next_after(later))
            })?;
        let at = self.calendar.next_open(start)?;
        Some(Due { occurrence, at })
    }
}

/// Occurrences count after this one.
fn counted_after(last_run: Option<Timestamp>, since: Timestamp) -> Timestamp {
    last_run.map_or(since, |last| last.max(since))
}

#[cfg(test)]
#[path = "calendar_tests.rs"]
mod tests;
