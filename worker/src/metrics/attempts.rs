//! What attempts did: those that run are looked at, those that ended are kept as sums.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use prometheus::{HistogramOpts, HistogramVec};

use super::Metrics;
use super::page::{Page, float, seconds};
use crate::agent::Activity;
use crate::agent::Totals;
use crate::progress::Stage;

/// Ends of attempts that no failure names.
pub(crate) const DONE: &str = "done";
/// Its lease was over.
pub(crate) const LOST: &str = "lost";
/// The worker stopped.
pub(crate) const STOPPED: &str = "stopped";

/// Seconds: an unchanged disk takes one, a first backup over a slow network half a day.
const BUCKETS: [f64; 9] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

#[derive(Debug, Default)]
struct Inner {
    running: Vec<(&'static str, Arc<Activity>)>,
    ended: BTreeMap<&'static str, Totals>,
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
}

/// Numbers of all attempts.
#[derive(Debug)]
pub(super) struct Attempts {
    inner: Mutex<Inner>,
    took: HistogramVec,
}

impl Default for Attempts {
    fn default() -> Self {
        let options = HistogramOpts::new(
            "tresor_worker_attempt_seconds",
            "How long attempts took, however they ended, by their work.",
        );
        Self {
            inner: Mutex::default(),
            took: HistogramVec::new(options.buckets(BUCKETS.to_vec()), &["work"]).expect("names are constants"),
        }
    }
}

/// An attempt that is counted. One that is dropped before its end is known was aborted.
pub(crate) struct Counted {
    metrics: Arc<Metrics>,
    work: &'static str,
    activity: Arc<Activity>,
    began: Instant,
    outcome: &'static str,
}

impl Counted {
    pub(super) fn begin(metrics: Arc<Metrics>, work: &'static str, activity: Arc<Activity>) -> Self {
        metrics.attempts.inner().running.push((work, Arc::clone(&activity)));
        Self {
            metrics,
            work,
            activity,
            began: Instant::now(),
            outcome: "aborted",
        }
    }

    /// How it ended.
    pub(crate) fn end(mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let attempts = &self.metrics.attempts;
        let took = self.began.elapsed().as_secs_f64();
        attempts.took.with_label_values(&[self.work]).observe(took);
        let mut inner = attempts.inner();
        inner
            .running
            .retain(|(_, running)| !Arc::ptr_eq(running, &self.activity));
        inner.ended.entry(self.work).or_default().add(&self.activity.totals());
        *inner.outcomes.entry((self.work, self.outcome)).or_default() += 1;
    }
}

impl Attempts {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums of all attempts, by their work.
    fn sums(inner: &Inner) -> BTreeMap<&'static str, Totals> {
        let mut sums = inner.ended.clone();
        for (work, activity) in &inner.running {
            sums.entry(work).or_default().add(&activity.totals());
        }
        sums
    }

    pub(super) fn show(&self, page: &Page) {
        let inner = self.inner();
        let sums = Self::sums(&inner);
        let mut running: BTreeMap<[&str; 2], f64> = BTreeMap::new();
        let mut frames = 0;
        for (work, activity) in &inner.running {
            *running.entry([work, activity.stage_word()]).or_default() += 1.0;
            frames += activity.totals().pipeline.frames_waiting;
        }
        page.gauges(
            "tresor_worker_attempts_running",
            "Attempts that run, by their work and by what they do now.",
            ["work", "stage"],
            running,
        );
        page.counts(
            "tresor_worker_attempts_total",
            "Attempts that ended: done, lost (its lease was over), stopped (the worker stops), aborted (a defect), or the kind of their failure.",
            ["work", "outcome"],
            inner
                .outcomes
                .iter()
                .map(|((work, outcome), count)| ([*work, *outcome], float(*count))),
        );
        page.add(self.took.clone());
        drop(inner);
        let of = |work: &str| sums.get(work).copied().unwrap_or_default();
        let backup = of("backup").pipeline;
        page.counts(
            "tresor_worker_backup_bytes_total",
            "Bytes of disks that were backed up: read; hole (zeros, read or not); known (the parent or the index had them); new (of new chunks, before compression); and stored (put into packs).",
            ["what"],
            [
                ("read", backup.bytes_read),
                ("hole", backup.bytes_hole),
                ("known", backup.bytes_known),
                ("new", backup.bytes_new),
                ("stored", backup.bytes_stored),
            ]
            .map(|(what, bytes)| ([what], float(bytes))),
        );
        let restore = of("restore").pipeline;
        page.counts(
            "tresor_worker_restore_bytes_total",
            "Bytes of restores: written to disks, and fetched from stores.",
            ["what"],
            [("written", restore.bytes_read), ("fetched", restore.bytes_stored)]
                .map(|(what, bytes)| ([what], float(bytes))),
        );
        let verify = of("verify");
        page.count(
            "tresor_worker_verify_bytes_total",
            "Bytes of objects and disks that verifies went through.",
            float(verify.bytes_verified),
        );
        page.count(
            "tresor_worker_verify_findings_total",
            "Places where verifies found something wrong; one that is found again counts again.",
            float(verify.findings),
        );
        page.counts(
            "tresor_worker_pipeline_stage_seconds_total",
            "Seconds that segments and frames spent in a stage, those side by side added up: the rate is how many were in it on average.",
            ["work", "stage"],
            [("backup", &Stage::ALL[..5], backup), ("restore", &Stage::ALL[5..], restore)]
                .into_iter()
                .flat_map(|(work, stages, pipeline)| {
                    let of = move |stage: &Stage| pipeline.stage_micros[*stage as usize];
                    stages.iter().map(move |stage| ([work, stage.word()], seconds(of(stage))))
                }),
        );
        page.gauge(
            "tresor_worker_pipeline_frames",
            "Frames of backups that are being compressed or wait for the packer.",
            float(frames),
        );
        let lookups = backup.lookups;
        page.counts(
            "tresor_worker_index_ids_total",
            "Ids that backups asked the index for, by its answer: known; new; claimed (another session is storing it); unanswered (counted as new, and stored again).",
            ["answer"],
            [
                ("known", lookups.known),
                ("new", lookups.new),
                ("claimed", lookups.claimed),
                ("unanswered", lookups.unanswered),
            ]
            .map(|(answer, ids)| ([answer], float(ids))),
        );
        page.count(
            "tresor_worker_index_inserted_ids_total",
            "Ids of chunks and recipe nodes that the index took from backups.",
            float(backup.ids_inserted),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        let page = Page::default();
        metrics.attempts.show(&page);
        page.text()
    }

    #[test]
    fn what_an_attempt_did_is_counted_while_it_runs_and_stays_when_it_has_ended() {
        let metrics = Arc::new(Metrics::default());
        let activity = Arc::new(Activity::default());
        let counted = Counted::begin(Arc::clone(&metrics), "backup", Arc::clone(&activity));
        let disk = activity.count();
        disk.add_read(10);
        disk.frame_begins();
        let line = r#"tresor_worker_backup_bytes_total{what="read"} 10"#;
        let running = text(&metrics);
        assert!(running.contains(line), "{running}");
        assert!(running.contains("tresor_worker_pipeline_frames 1"), "{running}");
        assert!(running.contains(r#"tresor_worker_attempts_running{stage="waiting",work="backup"} 1"#));
        counted.end(DONE);
        let ended = text(&metrics);
        assert!(ended.contains(line), "{ended}");
        assert!(ended.contains("tresor_worker_pipeline_frames 0"), "{ended}");
        assert!(!ended.contains("tresor_worker_attempts_running{"), "{ended}");
        assert!(ended.contains(r#"tresor_worker_attempts_total{outcome="done",work="backup"} 1"#));
        assert!(ended.contains(r#"tresor_worker_attempt_seconds_count{work="backup"} 1"#));
        // A second one of the same kind adds to it.
        let activity = Arc::new(Activity::default());
        activity.count().add_read(5);
        drop(Counted::begin(Arc::clone(&metrics), "backup", activity));
        let both = text(&metrics);
        assert!(
            both.contains(r#"tresor_worker_backup_bytes_total{what="read"} 15"#),
            "{both}"
        );
        assert!(both.contains(r#"tresor_worker_attempts_total{outcome="aborted",work="backup"} 1"#));
    }
}
