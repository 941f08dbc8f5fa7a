//! Policies as messages: checked, in one form, and in plain words.

use std::time::Duration;

use tresor_proto::v1;

use super::fields::{span, span_text};
use super::refused::Refused;
use super::standing::LATE_GRACE_MS;
use crate::lead::plans::{Plan, PlanError, calendar};
use crate::schedule::words::span_words;
use crate::schedule::{Retention, Schedule, Windows, zone};
use crate::state::command::PolicySpec;
use crate::state::entry::Time;

/// The name of the policy that is built in: asked for by name alone, its texts need not be written.
pub const BUILT_IN: &str = "daily";
/// Longest text of a schedule, a window or a retention that is read, bytes: far beyond what any of them needs.
const TEXT_MAX: usize = 1024;
/// Most windows that are read. The schedule's own bound is lower, and says so.
const WINDOWS_READ_MAX: usize = 100;

/// The built-in policy: every night, kept for a year, by the clock of `zone`.
pub fn built_in(zone: &str) -> PolicySpec {
    const HOUR: i64 = 3600 * 1000;
    PolicySpec {
        name: String::from(BUILT_IN),
        schedule: String::from("daily 02:00"),
        zone: zone.to_owned(),
        windows: Vec::new(),
        jitter: HOUR,
        retention: String::from("last 3, daily 7, weekly 4, monthly 12"),
        priority: 0,
        // A day, the jitter, and an hour to do it; or the hour by which a day can be longer.
        late_after: 26 * HOUR,
    }
}

/// What a message says, checked, its texts in the form in which they are shown. An empty zone is `home`.
///
/// A message that says nothing but the name of the built-in policy, and perhaps a zone, means that policy.
///
/// # Errors
/// [`Refused::Invalid`] for the first field that means nothing; the name is checked by the state.
pub fn read(message: Option<&v1::PolicySpec>, home: &str) -> Result<PolicySpec, Refused> {
    let message = message.ok_or_else(|| Refused::invalid("spec", "is needed"))?;
    let zone = zone::find(match message.zone.trim() {
        "" => home,
        zone => zone,
    })
    .map_err(|e| Refused::invalid("spec.zone", e.to_string()))?;
    let zone = zone.iana_name().unwrap_or("UTC").to_owned();
    let says_nothing = v1::PolicySpec {
        name: String::from(BUILT_IN),
        zone: message.zone.clone(),
        ..v1::PolicySpec::default()
    };
    if *message == says_nothing {
        return Ok(built_in(&zone));
    }
    check_lengths(message)?;
    let spec = PolicySpec {
        name: message.name.clone(),
        schedule: one_form::<Schedule>("spec.schedule", &message.schedule)?,
        zone,
        windows: windows(&message.windows)?,
        jitter: span("spec.jitter", &message.jitter)?.unwrap_or(0),
        retention: one_form::<Retention>("spec.retention", &message.retention)?,
        priority: message.priority,
        late_after: span("spec.late_after", &message.late_after)?.unwrap_or(0),
    };
    if spec.schedule.is_empty() {
        let rule = "means nothing without a schedule";
        if !spec.windows.is_empty() {
            return Err(Refused::invalid("spec.windows", rule));
        }
        if spec.jitter != 0 {
            return Err(Refused::invalid("spec.jitter", rule));
        }
    }
    // All of it together, as the scheduler will read it.
    Plan::of(&spec, Time(0)).map_err(|e| wrong(&e))?;
    Ok(spec)
}

fn wrong(error: &PlanError) -> Refused {
    Refused::invalid(format!("spec.{}", error.field()), error.to_string())
}

fn check_lengths(message: &v1::PolicySpec) -> Result<(), Refused> {
    let texts = [
        ("spec.schedule", &message.schedule),
        ("spec.retention", &message.retention),
        ("spec.jitter", &message.jitter),
        ("spec.late_after", &message.late_after),
    ];
    let windows = message.windows.iter().map(|window| ("spec.windows", window));
    for (field, text) in texts.into_iter().chain(windows) {
        if text.len() > TEXT_MAX {
            return Err(Refused::invalid(field, format!("must have at most {TEXT_MAX} bytes")));
        }
    }
    if message.windows.len() > WINDOWS_READ_MAX {
        return Err(Refused::invalid(
            "spec.windows",
            format!("at most {WINDOWS_READ_MAX} are read"),
        ));
    }
    Ok(())
}

/// A text in the form in which what it means is shown; empty stays empty.
fn one_form<T>(field: &str, text: &str) -> Result<String, Refused>
where
    T: std::str::FromStr + std::fmt::Display,
    T::Err: std::fmt::Display,
{
    match text.trim() {
        "" => Ok(String::new()),
        text => match text.parse::<T>() {
            Ok(value) => Ok(value.to_string()),
            Err(e) => Err(Refused::invalid(field, e.to_string())),
        },
    }
}

fn windows(texts: &[String]) -> Result<Vec<String>, Refused> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let windows: Windows = texts
        .join("; ")
        .parse()
        .map_err(|e: crate::schedule::WindowsError| Refused::invalid("spec.windows", e.to_string()))?;
    Ok(windows.0.iter().map(ToString::to_string).collect())
}

/// What a policy says, as a message.
pub fn spec_message(spec: &PolicySpec) -> v1::PolicySpec {
    v1::PolicySpec {
        name: spec.name.clone(),
        schedule: spec.schedule.clone(),
        zone: spec.zone.clone(),
        windows: spec.windows.clone(),
        jitter: span_text(spec.jitter),
        retention: spec.retention.clone(),
        priority: spec.priority,
        late_after: span_text(spec.late_after),
    }
}

/// In plain words, a sentence each.
pub fn words(spec: &PolicySpec) -> Vec<String> {
    let mut words = Vec::new();
    words.push(match calendar(spec) {
        Ok(Some(calendar)) => format!("Each item is backed up {}.", calendar.words()),
        Ok(None) => String::from("It has no schedule: items are backed up when somebody asks for it."),
        Err(e) => format!("Its schedule cannot be followed: {e}."),
    });
    words.push(match spec.retention.trim() {
        "" => String::from("It has no retention: every point stays until somebody removes it."),
        text => match text.parse::<Retention>() {
            Ok(retention) => format!("Of each item stay {}.", retention.words()),
            Err(e) => format!("Its retention cannot be followed, so every point stays: {e}."),
        },
    });
    match (spec.late_after, spec.schedule.is_empty()) {
        (0, true) => {}
        (0, false) => words.push(format!(
            "An item is late {} after a backup was due.",
            span_in_words(LATE_GRACE_MS)
        )),
        (late, _) => words.push(format!(
            "An item is late {} after its last good backup.",
            span_in_words(late)
        )),
    }
    match spec.priority {
        0 => {}
        priority if priority > 0 => words.push(format!("Its jobs go before others (priority {priority}).")),
        priority => words.push(format!("Its jobs let others go first (priority {priority}).")),
    }
    words
}

/// A span in words: `26 hours`.
pub(crate) fn span_in_words(milliseconds: i64) -> String {
    const DAY: u64 = 24 * 3600;
    let seconds = u64::try_from(milliseconds / 1000).unwrap_or(0);
    if seconds >= 2 * DAY {
        // Beyond two days hours tell nobody anything.
        let days = seconds / DAY;
        return format!("{days} days");
    }
    let coarse = match seconds {
        0..120 => seconds,
        120..7200 => seconds - seconds % 60,
        _ => seconds - seconds % 3600,
    };
    span_words(Duration::from_secs(coarse))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn message(schedule: &str, retention: &str) -> v1::PolicySpec {
        v1::PolicySpec {
            name: String::from("gold"),
            schedule: schedule.to_owned(),
            retention: retention.to_owned(),
            ..v1::PolicySpec::default()
        }
    }

    #[test]
    fn a_policy_is_kept_in_the_form_in_which_it_is_shown() {
        let mut asked = message("Weekly MON-fri 2:00", "daily 7,last  3");
        asked.zone = String::from("europe/berlin");
        asked.windows = vec![String::from("sat,sun 00:00-24:00"), String::from("mon-fri 20:00-6:00")];
        asked.jitter = String::from("90m");
        asked.late_after = String::from("8d");
        let spec = read(Some(&asked), "UTC").unwrap();
        assert_eq!(spec.schedule, "weekly mon-fri 02:00");
        assert_eq!(spec.zone, "Europe/Berlin");
        assert_eq!(spec.windows, ["mon-fri 20:00-06:00", "sat,sun 00:00-24:00"]);
        assert_eq!(spec.retention, "last 3, daily 7");
        let shown = spec_message(&spec);
        assert_eq!((shown.jitter.as_str(), shown.late_after.as_str()), ("1h30m", "8d"));
        assert_eq!(read(Some(&shown), "UTC").unwrap(), spec, "what is shown means the same");
    }

    #[test]
    fn the_built_in_policy_is_asked_for_by_its_name_alone() {
        let asked = v1::PolicySpec {
            name: String::from("daily"),
            ..v1::PolicySpec::default()
        };
        let spec = read(Some(&asked), "Europe/Berlin").unwrap();
        assert_eq!(spec, built_in("Europe/Berlin"));
        assert!(Plan::of(&spec, Time(0)).is_ok());
        let shown = spec_message(&spec);
        assert_eq!(
            read(Some(&shown), "UTC").unwrap(),
            spec,
            "its texts are in the form that is shown"
        );
        let mut other = asked.clone();
        other.retention = String::from("last 1");
        assert_eq!(
            read(Some(&other), "UTC").unwrap().schedule,
            "",
            "who says something says all"
        );
    }

    #[test]
    fn each_wrong_text_is_named_with_its_rule() {
        let wrong = |field: &str, change: &dyn Fn(&mut v1::PolicySpec)| {
            let mut asked = message("daily 02:00", "last 3");
            change(&mut asked);
            let error = read(Some(&asked), "UTC").unwrap_err();
            let Refused::Invalid { field: found, .. } = &error else {
                panic!("{error:?}")
            };
            assert_eq!(found, &format!("spec.{field}"), "{error}");
        };
        wrong("schedule", &|asked| asked.schedule = String::from("sometimes"));
        wrong("schedule", &|asked| asked.schedule = String::from("cron 0 0 30 2 *"));
        wrong("schedule", &|asked| asked.schedule = "x".repeat(5000));
        wrong("zone", &|asked| asked.zone = String::from("Berlin"));
        wrong("windows", &|asked| asked.windows = vec![String::from("always")]);
        wrong("windows", &|asked| asked.windows = vec![String::new()]);
        wrong("windows", &|asked| {
            asked.windows = vec![String::from("mon 01:00-02:00"); 1000];
        });
        wrong("jitter", &|asked| asked.jitter = String::from("25h"));
        wrong("jitter", &|asked| asked.jitter = String::from("soon"));
        wrong("retention", &|asked| asked.retention = String::from("last 0"));
        wrong("late_after", &|asked| asked.late_after = String::from("26"));
        wrong("windows", &|asked| {
            asked.schedule.clear();
            asked.windows = vec![String::from("mon 01:00-02:00")];
        });
        wrong("jitter", &|asked| {
            asked.schedule.clear();
            asked.jitter = String::from("1h");
        });
        assert!(read(None, "UTC").is_err());
    }

    #[test]
    fn a_policy_says_in_words_what_it_does() {
        assert_eq!(
            words(&built_in("Europe/Berlin")),
            [
                "Each item is backed up every day at 02:00 Europe/Berlin, each item up to 1 hour later.",
                "Of each item stay the last 3 points, and the newest of each of the last 7 days, 4 weeks and 12 months with a point.",
                "An item is late 26 hours after its last good backup.",
            ]
        );
        let empty = PolicySpec {
            zone: String::from("UTC"),
            priority: -1,
            ..PolicySpec::default()
        };
        assert_eq!(words(&empty).len(), 3);
        assert!(words(&empty)[1].contains("every point stays"));
    }

    #[test]
    fn spans_in_words_are_as_coarse_as_they_are_long() {
        for (milliseconds, text) in [
            (59_000, "59 seconds"),
            (61_000, "1 minute and 1 second"),
            (3_599_000, "59 minutes"),
            (26 * 3_600_000, "26 hours"),
            (49 * 3_600_000, "2 days"),
            (-5, "0 seconds"),
        ] {
            assert_eq!(span_in_words(milliseconds), text);
        }
    }
}
