//! The end of an attempt, and what was found on the way.
//!
//! A worker repeats what it reports until it hears an answer. It goes under a key made of the worker, the lease and all that is said, so that the log
//! answers a repetition as it answered the first; who says something else after a refusal (because it looked again) is decided anew.

use std::sync::PoisonError;

use prost::Message;
use tresor_proto::ids::{Epoch, JobId, PointId, VaultId, WorkerId};
use tresor_proto::{attempt_log, v1};

use super::super::refused::Refused;
use super::{AgentService, own_attempt, words};
use crate::lead::retries;
use crate::node::NodeError;
use crate::state::command::{Command, FailureKind, VaultOrigin, Work};
use crate::state::entry::{Actor, IdempotencyKey};
use crate::state::reply::Reply;

/// Points that one entry of the log adopts.
const ADOPT_AN_ENTRY: usize = 500;

/// The key of a report: the same for the same worker, lease and content.
fn report_key(what: &str, worker: WorkerId, (job, epoch): (JobId, Epoch), content: &[u8]) -> IdempotencyKey {
    let mut hasher = blake3::Hasher::new_derive_key("tresor control v1 report of an attempt");
    hasher.update(&(what.len() as u64).to_le_bytes());
    hasher.update(what.as_bytes());
    for number in [worker.0, job.0, epoch.0] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(content);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

impl AgentService {
    pub(super) async fn done(&self, worker: WorkerId, request: v1::CompleteRequest) -> Result<(), Refused> {
        let content = request.encode_to_vec();
        if let Some(v1::complete_request::Outcome::Findings(findings)) = &request.outcome
            && findings.count > 0
        {
            let (job, what) = (request.id.map(|id| id.job), findings.what.join("; "));
            tracing::warn!(job, count = findings.count, what, "a verify found something wrong");
        }
        if let Some(v1::complete_request::Outcome::Claimed(claimed)) = &request.outcome
            && claimed.points_unreadable > 0
        {
            let job = request.id.map(|id| id.job);
            tracing::warn!(
                job,
                points = claimed.points_unreadable,
                "points of a vault that was taken over cannot be read"
            );
        }
        let report = request.report.clone();
        let (completion, harmed) = words::completion(request)?;
        let lease = (completion.job, completion.epoch);
        if let Some(report) = report {
            // Before the log says that the job is done: who waits for it asks right then. Of an attempt that is refused nobody ever asks.
            let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
            presence.note_report(lease.0, lease.1, report);
        }
        let key = report_key("complete", worker, lease, &content);
        let handle = &self.services.handle;
        handle
            .change(Actor::Worker(worker), Some(key), Command::Complete(completion))
            .await?;
        if harmed.is_empty() {
            return Ok(());
        }
        // After the commit: reported before it, they would be findings that the commit has not looked at.
        let vault = handle.read(|state| state.jobs().get(&lease.0).map(|job| job.spec.vault));
        let Some(vault) = vault else {
            return Ok(());
        };
        for (number, some) in harmed.chunks(words::HARMED_AN_ENTRY).enumerate() {
            let key = report_key(&format!("harmed {number}"), worker, lease, &content);
            let command = Command::ReportFindings {
                vault,
                harmed: some.to_vec(),
            };
            handle.change(Actor::Worker(worker), Some(key), command).await?;
        }
        Ok(())
    }

    pub(super) async fn failed(&self, worker: WorkerId, request: &v1::FailRequest) -> Result<(), Refused> {
        let (job, epoch) = words::lease_id(request.id.as_ref())?;
        let failure = words::failure(request);
        let retry_at = match failure.kind {
            FailureKind::Cancelled => None,
            kind => self
                .services
                .handle
                .read(|state| retries::retry_at(state, job, kind, self.services.now(state))),
        };
        if let Some(report) = &request.report {
            // As of a good end: who waits for the job asks right after the log has it.
            let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
            presence.note_report(job, epoch, report.clone());
        }
        let key = report_key("fail", worker, (job, epoch), &request.encode_to_vec());
        let command = Command::Fail {
            job,
            epoch,
            failure,
            retry_at,
        };
        self.services
            .handle
            .change(Actor::Worker(worker), Some(key), command)
            .await?;
        Ok(())
    }

    /// Keeps what a worker logged of an attempt.
    pub(super) async fn logged(&self, worker: WorkerId, request: v1::ReportLogRequest) -> Result<(), Refused> {
        let (job, epoch) = words::lease_id(request.id.as_ref())?;
        // Whoever asks for it later is to be able to read it.
        attempt_log::decode(&request.log).map_err(|error| Refused::invalid("log", error.to_string()))?;
        let command = Command::KeepLog {
            job,
            epoch,
            log: request.log.to_vec(),
        };
        // Without a key: what is said twice is the same row twice.
        self.services
            .handle
            .change(Actor::Worker(worker), None, command)
            .await?;
        Ok(())
    }

    pub(super) async fn adopt(&self, worker: WorkerId, request: v1::AdoptPointsRequest) -> Result<u64, Refused> {
        let content = request.encode_to_vec();
        let lease = words::lease_id(request.id.as_ref())?;
        let held = words::held(&request.points)?;
        let points = words::adopted(request.points)?;
        let handle = &self.services.handle;
        handle.barrier().await?;
        let vault = handle.read(|state| {
            let (row, _) = own_attempt(state, worker, lease.0, lease.1)?;
            let vault = state.vaults().get(&row.spec.vault);
            let takes_over = vault.is_some_and(|vault| vault.spec.origin == VaultOrigin::TakeOver);
            if takes_over && matches!(row.spec.work, Work::Claim) {
                Ok(row.spec.vault)
            } else {
                Err(Refused::invalid("id", "is not the lease of a vault that is taken over"))
            }
        })?;
        let mut adopted = 0;
        for (number, some) in points.chunks(ADOPT_AN_ENTRY).enumerate() {
            let key = report_key(&format!("adopt {number}"), worker, lease, &content);
            let command = Command::AdoptPoints {
                vault,
                points: some.to_vec(),
            };
            let applied = handle.change(Actor::Worker(worker), Some(key), command).await?;
            if let Reply::Changed(count) = applied.reply {
                adopted += count;
            }
        }
        self.hold(vault, held).await?;
        Ok(adopted)
    }

    /// Holds what the vault's newest catalogue says is held and the log does not know of: it was held after what the log begins from was written down. Each
    /// in an entry of its own, in the audit trail. One that was released by then is held again, and a person can release it again: the other way round
    /// something would be lost.
    async fn hold(&self, vault: VaultId, held: Vec<(PointId, String)>) -> Result<(), Refused> {
        let handle = &self.services.handle;
        // In the name of this coordinator, so that the trail has it: what the cluster does by itself is not in there.
        let by = Actor::Member(handle.me());
        let unknown = |(point, _): &(PointId, String)| {
            handle.read(|state| {
                let row = state.points().get(point).filter(|row| row.held.is_none());
                let item = row.and_then(|row| state.items().get(&row.item));
                item.is_some_and(|item| item.spec.vault == vault)
            })
        };
        for (point, reason) in held.into_iter().filter(unknown) {
            match handle.change(by.clone(), None, Command::Hold { point, reason }).await {
                Ok(_) => tracing::info!(%point, "a point is held that the vault's catalogue says is held"),
                Err(NodeError::Refused(refusal)) => tracing::warn!(%point, %refusal, "a point could not be held again"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
