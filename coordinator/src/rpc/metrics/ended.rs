//! Jobs that ended, counted by who leads while they do: so the numbers of all coordinators together are of each job once, but for those that end
//! while the lead changes.

use std::collections::BTreeSet;

use prometheus::{CounterVec, HistogramOpts, HistogramVec, Opts, Registry};
use tresor_proto::ids::JobId;

use super::page::{float, seconds};
use crate::rpc::convert;
use crate::state::State;
use crate::state::command::{Counts, FailureKind, Work};
use crate::state::entry::Time;
use crate::state::rows::{Job, JobState};

/// Ended jobs that one look counts: it holds the state meanwhile. What is beyond waits for the next look.
const JOBS: usize = 10_000;

/// Seconds that a job takes: an unchanged disk one, a first backup over a slow network half a day.
const TOOK: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];
/// Seconds until a job begins: a moment where a worker is free, a night where backups wait for each other.
const WAITED: [f64; 9] = [0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0, 28_800.0];

/// Kinds of jobs, as they are shown.
const KINDS: [&str; 5] = ["backup", "restore", "verify", "claim", "catalogue"];

/// Counts of ended jobs.
#[derive(Debug)]
pub(super) struct Ended {
    jobs: CounterVec,
    took: HistogramVec,
    waited: HistogramVec,
    attempts_failed: CounterVec,
    bytes: CounterVec,
    findings: CounterVec,
    /// The newest end that was looked at, and the jobs that ended then; none: nothing was looked at.
    seen: Option<(Time, BTreeSet<JobId>)>,
}

/// How a job ended, as a label.
fn outcome(state: JobState) -> Option<&'static str> {
    match state {
        JobState::Done { .. } => Some("done"),
        JobState::Failed => Some("failed"),
        JobState::Cancelled => Some("cancelled"),
        JobState::Queued { .. } | JobState::Leased => None,
    }
}

/// The word of a kind of failure, as a label.
fn reason(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Retry => "retry",
        FailureKind::Invalid => "invalid",
        FailureKind::Missing => "missing",
        FailureKind::Corrupt => "corrupt",
        FailureKind::Fenced => "fenced",
        FailureKind::Full => "full",
        FailureKind::Denied => "denied",
        FailureKind::Bug => "bug",
        FailureKind::Lost => "lost",
        FailureKind::Cancelled => "cancelled",
        FailureKind::Unsupported => "unsupported",
    }
}

impl Ended {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = CounterVec::new(Opts::new(name, help), labels).expect("names are constants");
            let added = registry.register(Box::new(family.clone()));
            added.expect("each name is used once");
            family
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let family = HistogramVec::new(options, &["kind"]).expect("names are constants");
            let added = registry.register(Box::new(family.clone()));
            added.expect("each name is used once");
            family
        };
        let jobs = counter(
            "tresor_coordinator_jobs_ended_total",
            "Jobs that ended while this coordinator led, by kind and by how: done, failed (for good), cancelled.",
            &["kind", "outcome"],
        );
        // Shown before the first of them ends: of a series that begins with 1 nobody sees that it rose.
        for kind in KINDS {
            for outcome in ["done", "failed", "cancelled"] {
                jobs.with_label_values(&[kind, outcome]).inc_by(0.0);
            }
        }
        let findings = counter(
            "tresor_coordinator_verify_findings_total",
            "Things that verifies which were done found wrong.",
            &[],
        );
        findings.with_label_values(&[] as &[&str]).inc_by(0.0);
        let attempts_failed = counter(
            "tresor_coordinator_attempts_failed_total",
            "Attempts that failed, of jobs that ended, by kind of job and kind of failure; lost: the worker was not heard of.",
            &["kind", "reason"],
        );
        for kind in KINDS {
            attempts_failed
                .with_label_values(&[kind, reason(FailureKind::Lost)])
                .inc_by(0.0);
        }
        Self {
            jobs,
            took: histogram(
                "tresor_coordinator_job_seconds",
                "How long the last attempt of jobs that ended took, by kind.",
                &TOOK,
            ),
            waited: histogram(
                "tresor_coordinator_job_wait_seconds",
                "How long jobs that ended had waited until their first attempt, by kind.",
                &WAITED,
            ),
            attempts_failed,
            bytes: counter(
                "tresor_coordinator_job_bytes_total",
                "Bytes of jobs that were done, by kind: logical (the disks' size), read, new (backups: of new chunks; restores: written), stored (put).",
                &["kind", "what"],
            ),
            findings,
            seen: None,
        }
    }

    /// Looks at what has ended since the last look, and counts it where this coordinator `leads`. The first look counts nothing: what ended before
    /// this process began is not its own.
    pub(super) fn look(&mut self, state: &State, leads: bool) {
        let Some((time, seen)) = self.seen.take() else {
            let newest = state.last_ended().unwrap_or(Time(i64::MIN));
            let then = state.ended_since(newest).map(|(_, id)| id).collect();
            self.seen = Some((newest, then));
            return;
        };
        let (mut newest, mut then) = (time, seen.clone());
        // Several may end at one time, and those of the last look are known by their numbers.
        let ended = state
            .ended_since(time)
            .filter(|(at, id)| *at > time || !seen.contains(id));
        for (at, id) in ended.take(JOBS) {
            if at > newest {
                newest = at;
                then.clear();
            }
            then.insert(id);
            if let (true, Some(job)) = (leads, state.jobs().get(&id)) {
                self.count(job);
            }
        }
        self.seen = Some((newest, then));
    }

    fn count(&self, job: &Job) {
        let kind = convert::work_text(&job.spec.work);
        let Some(outcome) = outcome(job.state) else {
            return;
        };
        self.jobs.with_label_values(&[kind, outcome]).inc();
        if let Some(first) = job
            .attempts
            .first()
            .filter(|_| job.attempts_made as usize == job.attempts.len())
        {
            let ready = job.created.max(job.spec.not_before);
            let waited = seconds(first.started.since(ready).max(0));
            self.waited.with_label_values(&[kind]).observe(waited);
        }
        if let Some(last) = job.attempts.last()
            && let Some(ended) = last.ended
        {
            let took = seconds(ended.since(last.started).max(0));
            self.took.with_label_values(&[kind]).observe(took);
        }
        for failure in job.attempts.iter().filter_map(|attempt| attempt.failure.as_ref()) {
            let labels = [kind, reason(failure.kind)];
            self.attempts_failed.with_label_values(&labels).inc();
        }
        if !matches!(job.state, JobState::Done { .. }) {
            return;
        }
        let Counts {
            bytes_logical,
            bytes_read,
            bytes_new,
            bytes_stored,
            ..
        } = job.counts;
        for (what, bytes) in [
            ("logical", bytes_logical),
            ("read", bytes_read),
            ("new", bytes_new),
            ("stored", bytes_stored),
        ] {
            self.bytes.with_label_values(&[kind, what]).inc_by(float(bytes));
        }
        if matches!(job.spec.work, Work::Verify { .. }) {
            self.findings
                .with_label_values(&[] as &[&str])
                .inc_by(float(job.findings));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::rpc::metrics::page::encode;
    use crate::testing::Story;

    struct Watched {
        registry: Registry,
        ended: Ended,
    }

    impl Watched {
        fn new() -> Self {
            let registry = Registry::new();
            let ended = Ended::new(&registry);
            Self { registry, ended }
        }

        fn done(&self) -> u64 {
            let text = encode(&self.registry);
            let line = r#"tresor_coordinator_jobs_ended_total{kind="backup",outcome="done"} "#;
            let found = text.lines().find_map(|found| found.strip_prefix(line));
            found.map_or(0, |count| count.parse().unwrap())
        }
    }

    #[test]
    fn each_job_that_ends_is_counted_once_by_who_leads() {
        let mut story = Story::new();
        let web = story.protect("web", None);
        story.backs_up(web);
        let (mut leader, mut follower) = (Watched::new(), Watched::new());
        leader.ended.look(&story.state, true);
        follower.ended.look(&story.state, false);
        assert_eq!(leader.done(), 0, "it ended before");
        // At the time of the last one, and later.
        story.backs_up(web);
        leader.ended.look(&story.state, true);
        leader.ended.look(&story.state, true);
        assert_eq!(leader.done(), 1);
        story.advance(60_000);
        story.backs_up(web);
        story.backs_up(web);
        leader.ended.look(&story.state, true);
        assert_eq!(leader.done(), 3);
        follower.ended.look(&story.state, false);
        assert_eq!(follower.done(), 0);
        // The lead changes: what the former leader counted is not counted again.
        follower.ended.look(&story.state, true);
        assert_eq!(follower.done(), 0);
        story.backs_up(web);
        follower.ended.look(&story.state, true);
        assert_eq!(follower.done(), 1);
    }

    #[test]
    fn a_failure_is_counted_by_its_kind() {
        let mut story = Story::new();
        let web = story.protect("web", None);
        let mut watched = Watched::new();
        watched.ended.look(&story.state, true);
        story.fails(web);
        watched.ended.look(&story.state, true);
        let text = encode(&watched.registry);
        assert!(
            text.contains(r#"tresor_coordinator_jobs_ended_total{kind="backup",outcome="failed"} 1"#),
            "{text}"
        );
        assert!(
            text.contains("tresor_coordinator_attempts_failed_total{kind=\"backup\",reason="),
            "{text}"
        );
    }
}
