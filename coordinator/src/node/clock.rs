//! The stamps of entries: the cluster's clock, kept by whoever leads.
//!
//! A stamp is the one before plus the monotonic time that has passed, drawn slowly towards the leader's wall clock. So a wall clock that jumps does not
//! make the cluster's jump; it raises an alarm instead, and nothing expires until a person has looked. Pure: both clocks are arguments.
//!
//! Two cases cannot be told apart by a program: all coordinators were off for a while, or the wall clock of the one that starts is wrong. Backups have to
//! go on in the first, so after a start the stamps follow the wall clock at once, and the alarm is raised only beyond [`ABSENCE_MS`]. What a wrong
//! jump below that can do is undone: points that it hides can be shown again for as long ([`crate::state::UNDO_MS`]).

use crate::state::UNDO_MS;
use crate::state::entry::Time;

/// A step of the wall clock that raises the alarm while this process leads, milliseconds.
pub const STEP_MS: i64 = 3600 * 1000;
/// A step over a time without a leader that raises it, milliseconds.
pub const ABSENCE_MS: i64 = UNDO_MS;
/// A leader whose wall clock differs by more from the median of the members' does not look at it, milliseconds.
pub const DIFFERENCE_MS: i64 = 60 * 1000;
/// The wall clock is followed by an eighth of the time that passes: stamps run 12.5 % faster or slower until they meet it.
const DRAW: i64 = 8;

/// What to stamp with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The time of the entry.
    pub now: Time,
    /// The alarm to raise first: by how much the wall clock is off, milliseconds.
    pub alarm: Option<i64>,
}

/// Keeps the stamps of one leadership.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Time,
    last_ms: u64,
    /// No wall clock was believed since the leadership began.
    fresh: bool,
    /// A difference that a person has seen and accepted, or that has raised the alarm already.
    known_off: i64,
    was_stopped: bool,
}

impl Clock {
    /// Begins a leadership: `last` is the newest stamp in the log, `now_ms` the monotonic clock.
    pub fn new(last: Time, now_ms: u64) -> Self {
        Self {
            last,
            last_ms: now_ms,
            fresh: true,
            known_off: 0,
            was_stopped: false,
        }
    }

    /// The next stamp. `wall` is this machine's wall clock, `off_median` the median of the other members' wall clocks minus it, `stopped` whether the
    /// alarm is on.
    pub fn stamp(&mut self, now_ms: u64, wall: Time, off_median: i64, stopped: bool) -> Stamp {
        let passed = i64::try_from(now_ms.saturating_sub(self.last_ms)).unwrap_or(i64::MAX);
        self.last_ms = now_ms;
        let expected = self.last.plus(passed);
        let off = wall.0.saturating_sub(expected.0);
        let confirmed = self.was_stopped && !stopped;
        self.was_stopped = stopped;
        // Where nothing was ever stamped there is nothing else to go by.
        let trusted = off_median.saturating_abs() <= DIFFERENCE_MS || self.last == Time(0);
        let fresh = trusted && std::mem::take(&mut self.fresh);
        let mut alarm = None;
        let now = if !trusted {
            expected
        } else if confirmed {
            // A person has looked: the wall clock is right, or is what they want. Backwards the stamps do not go; they run slower.
            self.known_off = off.min(0);
            expected.max(wall)
        } else if fresh && off >= 0 && !stopped {
            // The first stamp of all comes after nothing: no time without a leader.
            if off > ABSENCE_MS && self.last != Time(0) {
                alarm = Some(off);
            }
            wall
        } else {
            let strange = off.saturating_sub(self.known_off).saturating_abs() > STEP_MS;
            if strange && !stopped {
                alarm = Some(off);
                // Until the alarm is in the log it is not raised again; and only what was seen stopped can be seen confirmed.
                self.known_off = off;
            }
            if strange || stopped || off.saturating_abs() > STEP_MS {
                expected
            } else {
                expected.plus(off.clamp(-passed / DRAW, passed / DRAW))
            }
        };
        self.last = self.last.max(now);
        Stamp { now: self.last, alarm }
    }
}

/// The median of the members' wall clocks minus ours: our own difference, 0, counts too. Of an even number the one farther from ours: where two clocks
/// disagree and nobody else was heard of, neither is believed.
pub fn median(mut others: Vec<i64>) -> i64 {
    others.push(0);
    others.sort_unstable();
    let middle = others.len() / 2;
    let farther = |a: i64, b: i64| if a.saturating_abs() > b.saturating_abs() { a } else { b };
    match others.len() % 2 {
        1 => others[middle],
        _ => farther(others[middle], others[middle - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: i64 = 1_800_000_000_000;
    const HOUR: i64 = 3_600_000;

    fn started() -> Clock {
        let mut clock = Clock::new(Time(T), 0);
        assert_eq!(
            clock.stamp(0, Time(T), 0, false),
            Stamp {
                now: Time(T),
                alarm: None
            }
        );
        clock
    }

    #[test]
    fn the_first_stamp_of_a_log_is_the_wall_clocks_and_no_alarm() {
        let mut clock = Clock::new(Time(0), 5);
        let first = Stamp {
            now: Time(T),
            alarm: None,
        };
        assert_eq!(clock.stamp(7, Time(T), 0, false), first);
    }

    #[test]
    fn stamps_follow_no_jump_that_nobody_has_confirmed() {
        let mut clock = started();
        let mut last = Time(T);
        for (ms, wall) in [
            (10, T - 10 * HOUR),
            (20, T + 10 * HOUR),
            (20, 0),
            (5, i64::MAX),
            (30, i64::MIN),
        ] {
            let stamp = clock.stamp(ms, Time(wall), 0, false);
            assert!(stamp.now >= last, "{stamp:?}");
            assert!(stamp.now.0 < T + 1000, "{stamp:?}");
            last = stamp.now;
        }
    }

    #[test]
    fn a_small_difference_is_made_up_slowly() {
        let mut clock = started();
        let stamp = clock.stamp(8000, Time(T + 8000 + 30_000), 0, false);
        assert_eq!(stamp.now, Time(T + 9000));
        assert_eq!(stamp.alarm, None);
        let behind = started().stamp(8000, Time(T - 30_000), 0, false);
        assert_eq!(behind.now, Time(T + 7000));
    }

    #[test]
    fn a_step_over_an_hour_raises_the_alarm_once_and_is_not_followed_until_confirmed() {
        for step in [10 * 365 * 24 * HOUR, -10 * 365 * 24 * HOUR] {
            let mut clock = started();
            let stamp = clock.stamp(1000, Time(T + 1000 + step), 0, false);
            assert_eq!(stamp.alarm, Some(step));
            assert_eq!(stamp.now, Time(T + 1000));
            let stamp = clock.stamp(2000, Time(T + 2000 + step), 0, true);
            assert_eq!((stamp.now, stamp.alarm), (Time(T + 2000), None));
            let stamp = clock.stamp(3000, Time(T + 3000 + step), 0, false);
            assert_eq!((stamp.now, stamp.alarm), (Time(T + 3000 + step.max(0)), None));
            let stamp = clock.stamp(4000, Time(T + 4000 + step), 0, false);
            assert_eq!(stamp.alarm, None, "a person has seen it");
        }
    }

    #[test]
    fn a_night_without_a_leader_is_followed_at_once_and_years_raise_the_alarm() {
        let stamp = Clock::new(Time(T), 5).stamp(5, Time(T + 10 * HOUR), 0, false);
        assert_eq!((stamp.now, stamp.alarm), (Time(T + 10 * HOUR), None));
        let years = 10 * 365 * 24 * HOUR;
        let stamp = Clock::new(Time(T), 5).stamp(5, Time(T + years), 0, false);
        assert_eq!((stamp.now, stamp.alarm), (Time(T + years), Some(years)));
        let stamp = Clock::new(Time(T), 5).stamp(5, Time(T - years), 0, false);
        assert_eq!((stamp.now, stamp.alarm), (Time(T), Some(-years)));
    }

    #[test]
    fn a_leader_whose_clock_differs_from_the_others_does_not_look_at_it() {
        let mut clock = Clock::new(Time(T), 0);
        let stamp = clock.stamp(1000, Time(T + 20 * HOUR), -20 * HOUR, false);
        assert_eq!((stamp.now, stamp.alarm), (Time(T + 1000), None));
        // Set right by its owner, it is followed as after a start.
        let stamp = clock.stamp(2000, Time(T + 2 * HOUR), 5, false);
        assert_eq!((stamp.now, stamp.alarm), (Time(T + 2 * HOUR), None));
    }

    #[test]
    fn the_median_counts_our_own_clock() {
        assert_eq!(median(vec![]), 0);
        assert_eq!(median(vec![500]), 500);
        assert_eq!(median(vec![100_000, 100_020]), 100_000);
        assert_eq!(median(vec![100_000, -3]), 0);
        assert_eq!(median(vec![-5, -7, -90_000, -91_000]), -7);
        assert_eq!(median(vec![-5, -7, -90_000]), -7);
        assert_eq!(median(vec![90_000]), 90_000);
    }
}
