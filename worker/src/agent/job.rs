//! One attempt, from its lease to its report.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};

use futures::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tresor_storage::Kind;
use tresor_storage::ids::{ClusterId, PointId};
use tresor_storage::index::ChunkIndex;
use tresor_storage::vault::claim::ListedClaim;

use super::calls::{Patience, repeat};
use super::control::{LeaseControl, LeaseControlParts};
use super::error::JobError;
use super::failure::Failure;
use super::port::{CallError, Completion, Coordinator, Lease};
use super::progress::{Activity, Stage, Stop, StopCause};
use super::vaults::{JobVault, Meter, Vaults};
use super::work::{self, Done};
use crate::WorkerError;
use crate::backup::Effort;
use crate::metrics::{DONE, LOST, Metrics, STOPPED};
use crate::progress::Stage as Times;
use crate::slots::{Routed, Slots};

/// An attempt, with what it works with.
pub(crate) struct Job {
    pub(crate) lease: Lease,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) slots: Option<Arc<Slots>>,
    /// Where it is counted.
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) effort: Effort,
    /// This host, for claims.
    pub(crate) host: String,
    pub(crate) begun: Instant,
    pub(crate) activity: Arc<Activity>,
    pub(crate) stop: Stop,
    /// Nobody waits for its report any more.
    pub(crate) give_up: CancellationToken,
    /// The cluster id of a claim that this attempt put, or was about to put, by itself.
    pub(crate) own_claim: OnceLock<ClusterId>,
    /// Counts what the vault's store is asked, from before it is opened.
    pub(crate) meter: OnceLock<Meter>,
}

impl Job {
    /// Enters a stage.
    pub(crate) fn enter(&self, stage: Stage) {
        self.activity.enter(stage);
    }

    /// The cluster's claim, without which nothing of the vault is written.
    pub(crate) fn claim(&self) -> Result<ListedClaim, JobError> {
        self.lease.vault.claim.ok_or_else(|| JobError::Lease {
            why: format!("vault {} is not claimed yet", self.lease.vault.name),
        })
    }

    /// Waits for `work` unless the job is stopped before; for what no pipeline steers.
    pub(crate) async fn unless_stopped<T, E: Into<JobError>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, JobError> {
        let token = self.stop.token();
        tokio::select! {
            biased;
            () = token.cancelled() => Err(WorkerError::Interrupted.into()),
            done = work => done.map_err(Into::into),
        }
    }

    /// The vault of the lease.
    pub(crate) async fn open_vault(&self) -> Result<JobVault, JobError> {
        self.enter(Stage::Opening);
        if let Ok(meter) = self.vaults.meter(&self.lease.vault) {
            // A job that opens it again counts from the first time on.
            let _ = self.meter.set(meter);
        }
        Box::pin(self.unless_stopped(self.vaults.open_for(self.lease.id.job, &self.lease.vault))).await
    }

    /// The index of the lease's vault for this session: that which workers share, if they do.
    pub(crate) async fn routed(&self, vault: &JobVault, claim: ListedClaim) -> Result<Option<Routed>, JobError> {
        match &self.slots {
            None => Ok(None),
            Some(slots) => self.unless_stopped(slots.routed(vault.vault.id, claim.cluster)).await,
        }
    }

    /// What knows besides hints where things lie: for readers, who do without if there is nothing.
    pub(crate) async fn index_for_reading(&self, vault: &JobVault) -> Option<Arc<dyn ChunkIndex>> {
        let claim = self.lease.vault.claim?;
        match self.routed(vault, claim).await {
            Ok(Some(routed)) => Some(Arc::new(routed)),
            Ok(None) => {
                let kept = Box::pin(self.vaults.index_if_kept(vault, claim)).await?;
                Some(kept)
            }
            Err(error) => {
                tracing::warn!(%error, "the index is not asked");
                None
            }
        }
    }

    /// The index that is told what is lost.
    pub(crate) async fn index_for_marks(
        &self,
        vault: &JobVault,
        claim: ListedClaim,
    ) -> Result<Arc<dyn ChunkIndex>, JobError> {
        match self.routed(vault, claim).await? {
            Some(routed) => Ok(Arc::new(routed)),
            None => Ok(self.vaults.index(vault, claim).await?),
        }
    }

    /// Asks the coordinator what the job needs.
    pub(crate) async fn ask<T, F>(&self, doing: &'static str, call: impl Fn() -> F) -> Result<T, JobError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let answer = repeat(doing, Patience::WORKING, &self.stop.token(), call).await;
        answer.result.map_err(|error| match self.stop.cause() {
            Some(_) => WorkerError::Interrupted.into(),
            None => JobError::of_call(doing, error),
        })
    }

    /// How it went, in a few lines.
    fn summary(&self, ended: &str) -> Vec<String> {
        let mut lines = vec![format!("ended: {ended}, after {} ms", self.begun.elapsed().as_millis())];
        let totals = self.activity.totals();
        let moved = &totals.pipeline;
        if moved.bytes_total > 0 {
            lines.push(format!(
                "bytes: {} of {} done, {} read or written, {} new, {} stored or fetched",
                moved.bytes_done, moved.bytes_total, moved.bytes_read, moved.bytes_new, moved.bytes_stored
            ));
            let times = Times::ALL
                .iter()
                .zip(moved.stage_micros)
                .filter(|(_, micros)| *micros > 0);
            let times = times.map(|(stage, micros)| format!("{} {} ms", stage.word(), micros / 1000));
            lines.push(format!(
                "work, of all segments: {}",
                times.collect::<Vec<_>>().join(", ")
            ));
        }
        let asked = &moved.lookups;
        if *asked != crate::progress::Lookups::default() {
            lines.push(format!(
                "chunks asked for: {} known, {} new, {} claimed by others, {} not answered",
                asked.known, asked.new, asked.claimed, asked.unanswered
            ));
        }
        if totals.bytes_verified > 0 {
            let (bytes, findings) = (totals.bytes_verified, totals.findings);
            lines.push(format!("verified: {bytes} bytes, {findings} findings"));
        }
        if let Some(meter) = self.meter.get() {
            let asked = meter.requests();
            lines.push(format!(
                "requests: {} puts, {} gets, {} heads, {} lists, {} deletes",
                asked.puts, asked.gets, asked.heads, asked.lists, asked.deletes
            ));
        }
        lines
    }

    /// Who decides for a pipeline that writes.
    pub(crate) fn control(
        &self,
        vault: &JobVault,
        claim: ListedClaim,
        pins: Vec<PointId>,
        harmed: Vec<PointId>,
        routed: Option<Routed>,
    ) -> Arc<LeaseControl> {
        let parts = LeaseControlParts {
            coordinator: Arc::clone(&self.coordinator),
            vault: Arc::clone(&vault.vault),
            claim,
            pins,
            harmed,
            routed,
            meter: vault.meter(),
            begun: self.begun,
            activity: Arc::clone(&self.activity),
            stop: self.stop.clone(),
            give_up: self.give_up.clone(),
        };
        Arc::new(LeaseControl::new(&self.lease, parts))
    }
}

/// Works on a lease until the coordinator knows how it ended, or does not want to. Returns what was logged, to be reported.
///
/// `before` is the end of an earlier attempt at the same job in this process: both never work at once, whatever the clocks said.
pub(super) async fn run(job: Job, before: Option<CancellationToken>) -> Option<Vec<u8>> {
    if let Some(before) = before {
        job.enter(Stage::Waiting);
        // The earlier one was stopped, and its end is near; when this one is stopped meanwhile, its work notices at once.
        before.cancelled().await;
    }
    let counted = job.metrics.begin(job.lease.work.name(), &job.activity);
    // A panic is a defect of one job, and the others go on.
    let result = AssertUnwindSafe(Box::pin(work::run(&job))).catch_unwind().await;
    let result = result.unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        Err(JobError::Panicked {
            what: what.unwrap_or_else(|| String::from("without a message")),
        })
    });
    let ended = match result {
        Ok(Done::Committed) => {
            tracing::info!("attempt is done");
            DONE
        }
        Ok(Done::Report {
            outcome,
            counts,
            report,
        }) => {
            let completion = Completion {
                id: job.lease.id,
                session: job.lease.session,
                counts,
                report,
                took: job.begun.elapsed(),
                outcome,
            };
            complete(&job, completion).await
        }
        Err(error) => fail(&job, &error).await,
    };
    counted.end(ended);
    job.activity.log().pack(&job.lease.trace_id(), job.summary(ended))
}

/// Reports that an attempt is done; answers how it ended, as a word.
async fn complete(job: &Job, completion: Completion) -> &'static str {
    job.enter(Stage::Reporting);
    job.stop.begin_deciding();
    let answer = repeat("complete", Patience::ENDLESS, &job.give_up, || {
        job.coordinator.complete(&completion)
    })
    .await;
    match answer.result {
        Ok(()) => {
            tracing::info!("attempt is done");
            DONE
        }
        Err(error) => {
            // Only what was surely not taken: a claim that the log knows is the cluster's.
            if matches!(error, CallError::Refused { .. }) && !answer.was_unclear {
                work::withdraw_claim(job).await;
            }
            if error.kind() == Kind::Fenced {
                tracing::warn!(%error, "attempt was done, and its lease was over");
                return LOST;
            }
            let failure = Failure::of(&JobError::of_call("report the end of the job", error), "");
            report(job, &failure).await;
            failure.kind.word()
        }
    }
}

/// Reports that an attempt failed; answers how it ended, as a word.
async fn fail(job: &Job, error: &JobError) -> &'static str {
    work::withdraw_claim(job).await;
    let failure = match job.stop.cause() {
        // What a stopped job met on its way out is no news.
        Some(StopCause::Cancelled) => Failure::cancelled(),
        Some(StopCause::Stopping) => Failure::stopping(),
        Some(StopCause::Expired) => Failure::new(
            Kind::Retry,
            "no coordinator was heard of for as long as a lease lasts, and this job must not go on without one",
            "",
        ),
        Some(cause @ (StopCause::NotHeld | StopCause::Superseded)) => {
            tracing::warn!(?cause, "attempt is stopped: its lease is over");
            return LOST;
        }
        None => {
            tracing::warn!(
                kind = ?error.kind(),
                error = super::failure::chain(error),
                interrupted = error.is_interruption(),
                "attempt failed"
            );
            Failure::of(error, &job.lease.vault.name)
        }
    };
    report(job, &failure).await;
    match job.stop.cause() {
        Some(StopCause::Stopping) => STOPPED,
        Some(StopCause::Expired) => LOST,
        _ => failure.kind.word(),
    }
}

/// Says that an attempt failed, until that is heard.
async fn report(job: &Job, failure: &Failure) {
    job.enter(Stage::Reporting);
    let failure = Failure {
        requests: job.meter.get().map(Meter::requests).unwrap_or_default(),
        ..failure.clone()
    };
    report_failure(job.coordinator.as_ref(), &job.lease.id, &failure, &job.give_up).await;
}

/// As [`report`], also of a lease that was not begun.
pub(super) async fn report_failure(
    coordinator: &dyn Coordinator,
    lease: &super::port::LeaseId,
    failure: &Failure,
    give_up: &CancellationToken,
) {
    let answer = repeat("report a failure", Patience::ENDLESS, give_up, || {
        coordinator.fail(*lease, failure)
    })
    .await;
    match answer.result {
        Ok(()) => tracing::info!(kind = failure.kind.word(), why = %failure, "failure of the attempt is reported"),
        Err(error) => {
            tracing::warn!(%error, why = %failure, "failure of the attempt is not heard: the lease will run out");
        }
    }
}
