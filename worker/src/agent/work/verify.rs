//! A lease to verify a vault or a point of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tresor_proto::v1;
use tresor_storage::Error;
use tresor_storage::ids::PointId;
use tresor_storage::verify::{self, Finding, Level, Options, Report, Scope, Target};

use super::Done;
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::{Findings, LoggedPoint, Outcome, VerifyWork};
use crate::agent::progress::Stage;
use crate::agent::vaults::JobVault;
use crate::control::Counts;
use crate::error::WorkerError;

/// Findings that are reported in words.
const FINDINGS_NAMED: usize = 20;
/// Findings that are told in detail to whoever waits: some hundred bytes each.
const FINDINGS_DETAILED: usize = 1000;
/// Longest line of one, characters.
const LINE_MAX: usize = 500;
/// Harmed points that are reported: what one entry of the log takes.
const HARMED_MAX: usize = 10_000;

/// Verifies, and tells the index what is lost.
pub(super) async fn run(job: &Job, work: &VerifyWork) -> Result<Done, JobError> {
    let level: Level = work.level.parse().map_err(|error| JobError::Lease {
        why: format!("{error}"),
    })?;
    let vault = job.open_vault().await?;
    let options = options(job, work).await?;
    let index = Box::pin(job.index_for_reading(&vault)).await;
    job.enter(Stage::Verifying);
    let target = Target::opened(Arc::clone(&vault.vault), index);
    let progress = job.activity.count_verify();
    let report = job
        .unless_stopped(Box::pin(verify::run(&target, level, &options, &progress)))
        .await?;
    if !report.is_complete {
        return Err(WorkerError::Interrupted.into());
    }
    if report.has_unsupported() && !report.has_damage() {
        let what = report
            .findings
            .first()
            .map_or_else(String::new, |finding| finding.object.clone());
        return Err(JobError::Newer { what });
    }
    mark(job, &vault, &report).await;
    let counts = Counts {
        bytes_read: report.checked.bytes,
        requests: vault.meter().requests(),
        ..Counts::default()
    };
    Ok(Done::Report {
        outcome: Outcome::Findings(findings(&report)),
        counts,
        report: Some(v1::Report {
            verify: Some(in_detail(&report)),
            ..v1::Report::default()
        }),
    })
}

/// What must be there, as the log knows it. It is asked before anything is listed: a point made meanwhile is not expected.
async fn options(job: &Job, work: &VerifyWork) -> Result<Options, JobError> {
    let Some(point) = work.point else {
        let logged = job
            .ask("list the points", || job.coordinator.points(job.lease.id, None))
            .await?;
        return Ok(expect(Scope::Vault, &logged));
    };
    let logged = match work.expected {
        Some((item, manifest)) => vec![LoggedPoint {
            point,
            item,
            manifest,
            hidden_at: None,
        }],
        None => {
            job.ask("look for the point", || {
                job.coordinator.points(job.lease.id, Some(point))
            })
            .await?
        }
    };
    Ok(expect(Scope::Point(point), &logged))
}

/// Hidden points are expected too: they can be shown again until they are swept.
fn expect(scope: Scope, logged: &[LoggedPoint]) -> Options {
    Options {
        scope,
        expected: logged.iter().map(|logged| (logged.item, logged.point)).collect(),
        manifests: logged
            .iter()
            .map(|logged| (logged.point, logged.manifest))
            .collect::<BTreeMap<_, _>>(),
    }
}

/// Tells the index what is lost, so that the next backup stores it again. What was found is reported in any case.
async fn mark(job: &Job, vault: &JobVault, report: &Report) {
    let Some(claim) = job.lease.vault.claim.filter(|_| !report.marks.is_empty()) else {
        return;
    };
    let marked = async {
        let index = job.index_for_marks(vault, claim).await?;
        report.marks.apply(index.as_ref()).await.map_err(Error::from)?;
        Ok::<_, JobError>(())
    };
    if let Err(error) = job.unless_stopped(marked).await {
        tracing::warn!(
            error = crate::agent::failure::chain(&error),
            "index could not be told what is lost"
        );
    }
}

/// All of it that whoever waits can have.
fn in_detail(report: &Report) -> v1::VerifyReport {
    let id = |point: &PointId| point.0.to_vec().into();
    let checked = report.checked;
    let finding = |finding: &Finding| v1::FindingReport {
        kind: finding.kind.word().to_owned(),
        object: finding.object.clone(),
        what: finding.what.clone(),
        points: finding.harms.iter().map(id).collect(),
    };
    let named = report.findings.len().min(FINDINGS_DETAILED);
    let harmed = report.harmed();
    v1::VerifyReport {
        level: report.level.name().to_owned(),
        objects: checked.packs + checked.small,
        bytes: checked.bytes,
        frames: checked.frames,
        pieces: checked.pieces,
        disks: checked.disks,
        chunks: checked.chunks,
        findings: report.findings[..named].iter().map(finding).collect(),
        findings_more: report.findings_more + (report.findings.len() - named) as u64,
        points_harmed: harmed.iter().take(HARMED_MAX).map(id).collect(),
        points_known: report.harms_known,
        notes: report.notes.clone(),
    }
}

fn findings(report: &Report) -> Findings {
    let named = report.findings.iter().filter(|finding| finding.kind.is_damage());
    let mut harmed: Vec<_> = report.harmed().into_iter().collect();
    let mut what: Vec<String> = named
        .clone()
        .take(FINDINGS_NAMED)
        .map(|finding| format!("{}: {}: {}", finding.kind.word(), finding.object, finding.what))
        .map(|line| line.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect())
        .collect();
    if harmed.len() > HARMED_MAX {
        what.push(format!("{} more points are harmed", harmed.len() - HARMED_MAX));
        harmed.truncate(HARMED_MAX);
    }
    Findings {
        harmed,
        count: named.count() as u64 + report.findings_more,
        what,
    }
}
