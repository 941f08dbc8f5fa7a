//! What workers logged of a job's attempts, as it is shown.

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1;

use super::shown::AttemptShown;
use crate::human;
use crate::verb::shown::some;

/// Logs of all attempts of a job.
#[derive(Debug, Serialize)]
pub(crate) struct LogShown {
    job: u64,
    attempts: Vec<AttemptLogShown>,
}

#[derive(Debug, Serialize)]
struct AttemptLogShown {
    #[serde(flatten)]
    attempt: AttemptShown,
    /// Whether the worker reported what it logged; else `why_none` says why not.
    is_reported: bool,
    why_none: Option<String>,
    trace: Option<String>,
    lines: Vec<LineShown>,
    /// Lines that are left out, after so many of `lines`.
    left_out: u64,
    left_out_after: usize,
    summary: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LineShown {
    time: String,
    level: String,
    text: String,
}

impl From<v1::LogLine> for LineShown {
    fn from(line: v1::LogLine) -> Self {
        let time = Timestamp::from_millisecond(line.time_ms).map(|time| format!("{time:.3}"));
        Self {
            // A clock that is beyond all time says nothing.
            time: time.unwrap_or_default(),
            level: line.level,
            text: line.text,
        }
    }
}

impl From<v1::JobAttemptLog> for AttemptLogShown {
    fn from(message: v1::JobAttemptLog) -> Self {
        let is_reported = message.log.is_some();
        let log = message.log.unwrap_or_default();
        let left_out_after = log.first.len();
        Self {
            attempt: message.attempt.unwrap_or_default().into(),
            is_reported,
            why_none: some(message.why_none),
            trace: some(log.trace),
            lines: log.first.into_iter().chain(log.last).map(LineShown::from).collect(),
            left_out: log.left_out,
            left_out_after,
            summary: log.summary,
        }
    }
}

impl From<v1::JobLog> for LogShown {
    fn from(log: v1::JobLog) -> Self {
        Self {
            job: log.id,
            attempts: log.attempts.into_iter().map(AttemptLogShown::from).collect(),
        }
    }
}

impl AttemptLogShown {
    fn lines(&self, to: &mut Vec<String>) {
        to.push(self.attempt.headline());
        if let Some(trace) = &self.trace {
            to.push(format!("  trace {}", human::plain(trace)));
        }
        for (place, line) in self.lines.iter().enumerate() {
            if place == self.left_out_after && self.left_out > 0 {
                to.push(self.gap());
            }
            let level = human::plain(&line.level).to_uppercase();
            to.push(format!("  {} {level:>5} {}", line.time, human::plain(&line.text)));
        }
        if self.left_out > 0 && self.left_out_after >= self.lines.len() {
            to.push(self.gap());
        }
        to.extend(self.summary.iter().map(|line| format!("  {}", human::plain(line))));
        if let Some(why) = &self.why_none {
            to.push(format!("  {}", human::plain(why)));
        }
    }

    fn gap(&self) -> String {
        format!("  … {} lines are left out …", human::count(self.left_out))
    }
}

impl LogShown {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        if self.attempts.is_empty() {
            return format!("job {} was not attempted yet", self.job);
        }
        let mut lines = Vec::new();
        for (place, attempt) in self.attempts.iter().enumerate() {
            if place > 0 {
                lines.push(String::new());
            }
            attempt.lines(&mut lines);
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: i64, level: &str, text: &str) -> v1::LogLine {
        v1::LogLine {
            time_ms: 1_773_144_000_000 + second * 1000,
            level: level.to_owned(),
            text: text.to_owned(),
        }
    }

    fn log() -> v1::JobLog {
        let attempts = super::super::shown::tests::running().attempts;
        let [first, second] = <[v1::Attempt; 2]>::try_from(attempts).expect("there are two");
        v1::JobLog {
            id: 812,
            attempts: vec![
                v1::JobAttemptLog {
                    attempt: Some(first),
                    log: None,
                    why_none: String::from("worker kvm-1 was not heard of any more, and did not report its log"),
                },
                v1::JobAttemptLog {
                    attempt: Some(second),
                    log: Some(v1::AttemptLog {
                        trace: String::from("4bf92f3577b34da6a3ce929d0e0e4736"),
                        first: vec![line(1, "info", "attempt begins"), line(2, "warn", "disk is slow")],
                        left_out: 1300,
                        last: vec![line(70, "info", "attempt is done")],
                        summary: vec![String::from("ended: done, after 70012 ms")],
                    }),
                    why_none: String::new(),
                },
            ],
        }
    }

    #[test]
    fn every_attempt_is_marked_and_says_what_there_is_of_it() {
        insta::assert_snapshot!(LogShown::from(log()).text(), @"
        attempt 1 on kvm-1, begun 2026-03-10T12:00:01Z, failed 2026-03-10T12:00:31Z: the lease ran out
          worker kvm-1 was not heard of any more, and did not report its log

        attempt 2 on kvm-2, begun 2026-03-10T12:01:00Z, runs
          trace 4bf92f3577b34da6a3ce929d0e0e4736
          2026-03-10T12:00:01.000Z  INFO attempt begins
          2026-03-10T12:00:02.000Z  WARN disk is slow
          … 1 300 lines are left out …
          2026-03-10T12:01:10.000Z  INFO attempt is done
          ended: done, after 70012 ms
        ");
    }

    #[test]
    fn programs_get_lines_with_times_and_levels() {
        let value = serde_json::to_value(LogShown::from(log())).expect("plain data");
        let second = &value["attempts"][1];
        assert_eq!(second["attempt"], 2);
        assert_eq!(second["lines"][1]["level"], "warn");
        assert_eq!(second["lines"][2]["time"], "2026-03-10T12:01:10.000Z");
        assert_eq!(
            (second["left_out"].as_u64(), second["left_out_after"].as_u64()),
            (Some(1300), Some(2))
        );
        assert_eq!(value["attempts"][0]["is_reported"], false);
    }
}
