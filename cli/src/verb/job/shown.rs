//! A job as it is shown.

use jiff::Timestamp;
use serde::Serialize;
use tresor_proto::v1;

use crate::human::{self, Table};
use crate::verb::shown::some;

/// A job with its attempts.
#[derive(Debug, Serialize)]
pub(crate) struct JobShown {
    pub(crate) job: u64,
    kind: String,
    pub(crate) state: String,
    vault: String,
    item: Option<String>,
    point: Option<String>,
    target: Option<String>,
    priority: i32,
    created: String,
    not_before: Option<String>,
    ended: Option<String>,
    why: Option<String>,
    cancel_requested: bool,
    worker: Option<String>,
    stage: Option<String>,
    bytes_done: u64,
    bytes_total: u64,
    counts: Option<CountsShown>,
    pub(crate) findings: u64,
    attempts: Vec<AttemptShown>,
}

/// What a job that is done has moved.
#[derive(Debug, Serialize)]
pub(crate) struct CountsShown {
    bytes_read: u64,
    bytes_new: u64,
    bytes_stored: u64,
    bytes_logical: u64,
    elapsed_ms: u64,
}

/// One try.
#[derive(Debug, Serialize)]
pub(super) struct AttemptShown {
    attempt: u32,
    worker: String,
    epoch: u64,
    started: String,
    ended: Option<String>,
    failure: Option<String>,
    kind: Option<String>,
    hint: Option<String>,
}

impl From<v1::JobCounts> for CountsShown {
    fn from(counts: v1::JobCounts) -> Self {
        Self {
            bytes_read: counts.bytes_read,
            bytes_new: counts.bytes_new,
            bytes_stored: counts.bytes_stored,
            bytes_logical: counts.bytes_logical,
            elapsed_ms: counts.took_ms,
        }
    }
}

impl From<v1::Attempt> for AttemptShown {
    fn from(attempt: v1::Attempt) -> Self {
        Self {
            attempt: attempt.number,
            worker: attempt.worker,
            epoch: attempt.epoch,
            started: attempt.started,
            ended: some(attempt.ended),
            failure: some(attempt.failure),
            kind: some(attempt.kind),
            hint: some(attempt.hint),
        }
    }
}

impl AttemptShown {
    /// Which it was and how it ended, in a line.
    pub(super) fn headline(&self) -> String {
        let end = match (&self.ended, &self.failure) {
            (None, _) => String::from("runs"),
            (Some(ended), None) => format!("ended {ended}"),
            (Some(ended), Some(failure)) => format!("failed {ended}: {}", human::plain(failure)),
        };
        let worker = human::plain(&self.worker);
        format!("attempt {} on {worker}, begun {}, {end}", self.attempt, self.started)
    }
}

impl From<v1::Job> for JobShown {
    fn from(job: v1::Job) -> Self {
        Self {
            job: job.id,
            kind: job.kind,
            state: job.state,
            vault: job.vault,
            item: some(job.item),
            point: some(job.point),
            target: some(job.target),
            priority: job.priority,
            created: job.created,
            not_before: some(job.not_before),
            ended: some(job.ended),
            why: some(job.why),
            cancel_requested: job.cancel_requested,
            worker: some(job.worker),
            stage: some(job.stage),
            bytes_done: job.bytes_done,
            bytes_total: job.bytes_total,
            // Of a job that has moved nothing yet there is nothing to count.
            counts: job
                .counts
                .filter(|counts| *counts != v1::JobCounts::default())
                .map(CountsShown::from),
            findings: job.findings,
            attempts: job.attempts.into_iter().map(AttemptShown::from).collect(),
        }
    }
}

/// What a job is about, in a few words: `backup of web-03`, `verify of vault main`.
pub(crate) fn about(kind: &str, item: Option<&str>, vault: &str) -> String {
    let what = match item {
        Some(item) => item.to_owned(),
        None if vault.is_empty() => return kind.to_owned(),
        None => format!("vault {vault}"),
    };
    human::plain(&format!("{kind} of {what}"))
}

impl JobShown {
    /// What it is about.
    pub(crate) fn about(&self) -> String {
        about(&self.kind, self.item.as_deref(), &self.vault)
    }

    /// Until when it is not begun, if that is not since it was made.
    fn waits_until(&self) -> Option<&str> {
        let until = self.not_before.as_deref()?;
        (self.state == "queued" && until != self.created).then_some(until)
    }

    /// How it stands, in a few words.
    fn standing(&self) -> String {
        let mut text = match (self.state.as_str(), self.bytes_total) {
            ("running", 0) => self.stage.clone().unwrap_or_else(|| self.state.clone()),
            ("running", total) => format!("{} of {}", human::size(self.bytes_done), human::size(total)),
            ("failed" | "cancelled", _) => self.why.clone().unwrap_or_default(),
            ("done", _) if self.findings > 0 => format!("{} findings", human::count(self.findings)),
            ("done", _) => self
                .counts
                .as_ref()
                .map(|counts| human::elapsed(counts.elapsed_ms))
                .unwrap_or_default(),
            (_, _) => match (self.waits_until(), &self.why) {
                (Some(until), Some(why)) => format!("again at {until}: {why}"),
                (Some(until), None) => format!("not before {until}"),
                (None, why) => why.clone().unwrap_or_default(),
            },
        };
        if self.cancel_requested && self.state == "running" {
            text.push_str(", asked to end");
        }
        text
    }

    /// All of it.
    pub(crate) fn text(&self) -> String {
        let counts = self.counts.as_ref();
        let moved = counts.map(|counts| {
            format!(
                "{} read, {} new, {} stored, in {}",
                human::size(counts.bytes_read),
                human::size(counts.bytes_new),
                human::size(counts.bytes_stored),
                human::elapsed(counts.elapsed_ms)
            )
        });
        let state = if self.cancel_requested && self.state == "running" {
            String::from("running, asked to end")
        } else {
            self.state.clone()
        };
        let progress = match (self.state.as_str(), self.bytes_total) {
            ("running", total) if total > 0 => format!("{} of {}", human::size(self.bytes_done), human::size(total)),
            _ => String::new(),
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let mut shown = human::pairs(&[
            ("job", format!("{}, {}", self.job, self.about())),
            ("state", state),
            ("why", text(&self.why)),
            ("vault", self.vault.clone()),
            ("point", text(&self.point)),
            ("target", text(&self.target)),
            ("created", self.created.clone()),
            ("not before", self.waits_until().unwrap_or_default().to_owned()),
            ("ended", text(&self.ended)),
            ("priority", self.priority.to_string()),
            ("worker", text(&self.worker)),
            ("stage", text(&self.stage)),
            ("progress", progress),
            ("moved", moved.unwrap_or_default()),
            (
                "findings",
                if self.findings > 0 {
                    human::count(self.findings)
                } else {
                    String::new()
                },
            ),
        ]);
        if self.attempts.is_empty() {
            return shown;
        }
        let mut table = Table::new(&[">attempt", "worker", "started", "ended", "failure"]);
        for attempt in &self.attempts {
            let text = |value: &Option<String>| value.clone().unwrap_or_default();
            table.row([
                attempt.attempt.to_string(),
                attempt.worker.clone(),
                attempt.started.clone(),
                text(&attempt.ended),
                text(&attempt.failure),
            ]);
        }
        shown.push_str("\n\n");
        shown.push_str(&table.render());
        if let Some(hint) = self.attempts.last().and_then(|last| last.hint.as_deref()) {
            shown.push_str(&format!("\nhint: {}", human::plain(hint)));
        }
        shown
    }
}

/// Jobs as a table.
pub(crate) fn table(jobs: &[JobShown], now: Timestamp) -> String {
    let mut table = Table::new(&[">job", "what", "state", ">age", "worker", ""]);
    for job in jobs {
        table.row([
            job.job.to_string(),
            job.about(),
            job.state.clone(),
            human::ago(&job.created, now),
            job.worker.clone().unwrap_or_default(),
            job.standing(),
        ]);
    }
    table.render()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A backup that runs, after an attempt that failed.
    pub(crate) fn running() -> v1::Job {
        v1::Job {
            id: 812,
            kind: String::from("backup"),
            vault: String::from("main"),
            item: String::from("web-03"),
            state: String::from("running"),
            created: String::from("2026-03-10T12:00:00Z"),
            priority: 5,
            worker: String::from("kvm-2"),
            stage: String::from("reading"),
            bytes_done: 3 << 30,
            bytes_total: 20 << 30,
            attempts: vec![
                v1::Attempt {
                    number: 1,
                    worker: String::from("kvm-1"),
                    epoch: 815,
                    started: String::from("2026-03-10T12:00:01Z"),
                    ended: String::from("2026-03-10T12:00:31Z"),
                    failure: String::from("the lease ran out"),
                    kind: String::from("retry"),
                    hint: String::new(),
                },
                v1::Attempt {
                    number: 2,
                    worker: String::from("kvm-2"),
                    epoch: 820,
                    started: String::from("2026-03-10T12:01:00Z"),
                    ..Default::default()
                },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn the_text_of_a_job_that_runs_for_the_second_time() {
        insta::assert_snapshot!(JobShown::from(running()).text(), @"
        job       812, backup of web-03
        state     running
        vault     main
        created   2026-03-10T12:00:00Z
        priority  5
        worker    kvm-2
        stage     reading
        progress  3.0 GiB of 20.0 GiB

        ATTEMPT  WORKER  STARTED               ENDED                 FAILURE
              1  kvm-1   2026-03-10T12:00:01Z  2026-03-10T12:00:31Z  the lease ran out
              2  kvm-2   2026-03-10T12:01:00Z
        ");
    }

    #[test]
    fn the_table_of_jobs_says_how_each_stands() {
        let job = |id, state: &str| v1::Job {
            id,
            state: state.to_owned(),
            ..running()
        };
        let failed = v1::Job {
            why: String::from("no worker reaches kvm-7"),
            worker: String::new(),
            ..job(9, "failed")
        };
        let done = v1::Job {
            kind: String::from("verify"),
            item: String::new(),
            findings: 3,
            ..job(7, "done")
        };
        let asked = v1::Job {
            cancel_requested: true,
            ..job(11, "running")
        };
        let again = v1::Job {
            why: String::from("no space in s3://b"),
            not_before: String::from("2026-03-10T12:10:00Z"),
            worker: String::new(),
            ..job(8, "queued")
        };
        let jobs: Vec<JobShown> = [asked, job(10, "queued"), failed, again, done]
            .map(JobShown::from)
            .into();
        let now: Timestamp = "2026-03-10T13:00:00Z".parse().expect("a time");
        insta::assert_snapshot!(table(&jobs, now), @"
        JOB  WHAT                  STATE    AGE  WORKER
         11  backup of web-03      running  1 h  kvm-2   3.0 GiB of 20.0 GiB, asked to end
         10  backup of web-03      queued   1 h  kvm-2
          9  backup of web-03      failed   1 h          no worker reaches kvm-7
          8  backup of web-03      queued   1 h          again at 2026-03-10T12:10:00Z: no space in s3://b
          7  verify of vault main  done     1 h  kvm-2   3 findings
        ");
    }
}
