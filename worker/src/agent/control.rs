//! The port of the pipelines over one lease: its session is open already, its commit is the report of the attempt.
//!
//! Two things fence a backup: the vault's claims, which say whether this cluster may write at all, and the epoch of the lease, which says whether this
//! attempt may. The manifest is put, then the claims are listed, then the coordinator is asked. It shows the point in the same log entry that ends
//! the lease, so of all attempts that ever ran at most one is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tresor_proto::v1;
use tresor_storage::Kind;
use tresor_storage::ids::{PointId, SessionId};
use tresor_storage::vault::Vault;
use tresor_storage::vault::claim::{ListedClaim, check_standing};

use super::calls::{Patience, repeat};
use super::port::{CallError, Completion, Coordinator, Lease, LeaseId, Outcome, PointMade};
use super::progress::{Activity, Stage, Stop};
use super::vaults::Meter;
use crate::control::catalog::list;
use crate::control::{Commit, CommitDisk, Control, ControlError, Counts, OpenSession, PointRecord, Session, fenced};
use crate::slots::{IndexUse, Routed};

/// Decides by a lease.
pub(crate) struct LeaseControl {
    coordinator: Arc<dyn Coordinator>,
    vault: Arc<Vault>,
    claim: ListedClaim,
    lease: LeaseId,
    session: Session,
    pins: Vec<PointId>,
    findings: u64,
    /// Points that were found harmed before the attempt began to read.
    harmed: Vec<PointId>,
    /// The index that workers share, if they do.
    routed: Option<Routed>,
    meter: Meter,
    begun: Instant,
    activity: Arc<Activity>,
    stop: Stop,
    give_up: CancellationToken,
    is_open: AtomicBool,
}

/// What a lease's control is made of.
pub(crate) struct LeaseControlParts {
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) vault: Arc<Vault>,
    /// The cluster's claim.
    pub(crate) claim: ListedClaim,
    /// What the lease's session pins.
    pub(crate) pins: Vec<PointId>,
    pub(crate) harmed: Vec<PointId>,
    pub(crate) routed: Option<Routed>,
    /// Counts what the vault's store is asked.
    pub(crate) meter: Meter,
    pub(crate) begun: Instant,
    pub(crate) activity: Arc<Activity>,
    pub(crate) stop: Stop,
    /// Nobody waits for the answer of the coordinator any more.
    pub(crate) give_up: CancellationToken,
}

impl LeaseControl {
    /// The control of a lease that writes.
    pub(crate) fn new(lease: &Lease, parts: LeaseControlParts) -> Self {
        let LeaseControlParts {
            coordinator,
            vault,
            claim,
            pins,
            harmed,
            routed,
            meter,
            begun,
            activity,
            stop,
            give_up,
        } = parts;
        Self {
            coordinator,
            vault,
            claim,
            lease: lease.id,
            session: Session {
                cluster: claim.cluster,
                session: lease.session,
                start_epoch: lease.start_epoch,
            },
            pins,
            findings: lease.findings,
            harmed,
            routed,
            meter,
            begun,
            activity,
            stop,
            give_up,
            is_open: AtomicBool::new(false),
        }
    }

    async fn check_claim(&self) -> Result<(), ControlError> {
        check_standing(self.vault.backend.as_ref(), self.vault.id, self.claim)
            .await
            .map_err(fenced)
    }

    /// ◆ A log that was put back to an older state of itself gives leases with numbers that it gave before. Then a catalogue of ours is later than this
    /// lease, and nothing is written. One that another lease has put since this one was given looks the same: the next attempt has a later number.
    ///
    /// Once, and at the beginning of the attempt: what is put later comes of a later lease as a matter of course.
    pub(crate) async fn check_log(&self) -> Result<(), ControlError> {
        let listed = list(&self.vault).await?;
        let ours = listed.iter().filter(|id| id.cluster == self.claim.cluster);
        match ours.map(|id| id.index).max() {
            Some(there) if there > self.session.session.0 => Err(ControlError::OldLog {
                there,
                ours: self.session.session.0,
            }),
            _ => Ok(()),
        }
    }

    async fn complete(&self, completion: &Completion, point: PointId) -> Result<(), ControlError> {
        let answer = repeat("complete", Patience::ENDLESS, &self.give_up, || {
            self.coordinator.complete(completion)
        })
        .await;
        let error = match answer.result {
            Ok(()) => return Ok(()),
            Err(error) if answer.was_unclear => match error {
                // An earlier try may have been taken. It is answered the same again for as long as that is remembered; but an acknowledged point must not
                // hang on how long that is, so the log is asked. What it does not have now it will never have: the epoch is over.
                CallError::Refused { kind: Kind::Fenced, .. } => match self.is_logged(point).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => error,
                    Err(unclear) => return Err(unclear),
                },
                // An earlier try of the same report would be answered as done if it was taken, and slots never move back: it never will be.
                error @ CallError::Moved { .. } => error,
                // Says nothing of the earlier try, which may be taken even after this: the manifest stays.
                error => {
                    return Err(ControlError::Unanswered { why: error.to_string() });
                }
            },
            Err(error) => error,
        };
        // A point that is refused is deleted; but not one that a taker may have found and counted since it was put. A taker whose claim comes between this
        // look and the deletion may count it, and finds its manifest gone later. That loses nothing that anybody was promised: the log of the holder
        // refused the point, so it never was one, and the taker's next backup of the item finds its parent gone, reports that, and makes a whole point
        // (which refers to nothing of it). To delete nothing instead would leave a point that the log refused where every later taker counts it.
        self.check_claim().await.map_err(left)?;
        Err(match error {
            CallError::Refused { kind, why, hint } => ControlError::Refused { kind, why, hint },
            CallError::Moved { why } => ControlError::Moved { why },
            CallError::Unanswered { why } | CallError::Unreadable { why } => ControlError::Unanswered { why },
        })
    }

    async fn is_logged(&self, point: PointId) -> Result<bool, ControlError> {
        let answer = repeat("look for a point", Patience::WORKING, &self.give_up, || {
            self.coordinator.points(self.lease, Some(point))
        })
        .await;
        match answer.result {
            Ok(found) => Ok(found.iter().any(|logged| logged.point == point)),
            Err(error) => Err(ControlError::Unanswered { why: error.to_string() }),
        }
    }
}

/// Of a commit under a claim that was outranked: nobody here may delete what the taker may count on.
fn left(error: ControlError) -> ControlError {
    match error {
        ControlError::Fenced { holder, since } => ControlError::Left { holder, since },
        error => error,
    }
}

/// What was made, for whoever waits for it.
fn report(commit: &Commit) -> v1::Report {
    let disk = |disk: &CommitDisk| v1::DiskReport {
        name: disk.name.clone(),
        size: disk.root.size,
        root: disk.root.id.0.to_vec().into(),
        ..v1::DiskReport::default()
    };
    v1::Report {
        disks: commit.disks.iter().map(disk).collect(),
        live: commit.live,
        ..v1::Report::default()
    }
}

#[async_trait]
impl Control for LeaseControl {
    /// The lease's session, once. It was opened, with its pins, in the entry of the log that gave the lease.
    async fn open_session(&self, request: OpenSession) -> Result<Session, ControlError> {
        if let Some(point) = request.pins.iter().find(|point| !self.pins.contains(point)) {
            return Err(ControlError::NotLeased {
                why: format!("it does not pin point {point}"),
            });
        }
        if self.is_open.swap(true, Ordering::Relaxed) {
            return Err(ControlError::NotLeased {
                why: String::from("its session was opened before"),
            });
        }
        // A disk is not read for a vault that another cluster has taken over.
        if request.writes {
            self.check_claim().await?;
        }
        Ok(self.session)
    }

    async fn commit(&self, commit: Commit) -> Result<(), ControlError> {
        if commit.session != self.session.session {
            return Err(ControlError::Closed {
                session: commit.session,
            });
        }
        // The manifest is put: if a taker's listing missed it, this listing sees the taker.
        self.check_claim().await.map_err(left)?;
        let index = match &self.routed {
            None => IndexUse::default(),
            // ◆ What moved is asked again before the log is asked at all.
            Some(routed) => routed.index_use().ok_or_else(|| ControlError::Moved {
                why: String::from("the newest map says so"),
            })?,
        };
        let completion = Completion {
            id: self.lease,
            session: commit.session,
            counts: Counts {
                requests: self.meter.requests(),
                ..commit.counts
            },
            report: Some(report(&commit)),
            took: self.begun.elapsed(),
            outcome: Outcome::Point(Box::new(PointMade {
                point: commit.point,
                time: commit.time,
                manifest: commit.manifest_hash,
                consistency: commit.consistency,
                findings_seen: self.findings,
                harmed: self.harmed.clone(),
                slots: index.slots,
                slot_map: index.version,
                slots_missing: index.missing,
            })),
        };
        self.activity.enter(Stage::Reporting);
        self.stop.begin_deciding();
        let answer = self.complete(&completion, commit.point).await;
        self.stop.end_deciding();
        answer
    }

    async fn points(&self) -> Result<Vec<PointRecord>, ControlError> {
        let answer = repeat("list the points", Patience::WORKING, &self.give_up, || {
            self.coordinator.points(self.lease, None)
        })
        .await;
        let points = answer.result.map_err(|error| match error {
            CallError::Refused { kind, why, hint } => ControlError::Refused { kind, why, hint },
            error => ControlError::Unanswered { why: error.to_string() },
        })?;
        Ok(points
            .into_iter()
            .map(|logged| PointRecord {
                item: logged.item,
                point: logged.point,
                removed_at: logged.hidden_at,
            })
            .collect())
    }

    async fn pins(&self) -> Vec<PointId> {
        self.pins.clone()
    }

    /// The log closes it with the end of the lease.
    async fn close_session(&self, _: SessionId) {}
}
