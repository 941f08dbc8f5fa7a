//! Leases: a worker's right to run an attempt, from the grant to its end.
//!
//! A lease has the log index of its grant as its epoch, and the same entry opens the attempt's session under the same number. What a worker reports
//! names both, and counts only while the job's newest attempt has that epoch and the session is open: so of all workers that believe in a
//! lease of one job, at most one can complete it, and only once.

use tresor_proto::ids::{Epoch, JobId, PointId, SessionId, VaultId, WorkerId};

use super::command::{CommittedPoint, Completion, Counts, Failure, FailureKind, Outcome, VaultClaim, Work};
use super::entry::{Actor, Time};
use super::jobs::{FULL, waits_until};
use super::reply::{Refusal, Reply};
use super::rows::{Attempt, FailedAt, Job, JobState, Point, Session, VaultState, Verified};
use super::slots::SLOTS;
use super::texts::{check_batch, shortened};
use super::{ATTEMPTS_KEPT, POINTS_MAX, State};
#[cfg(test)]
use crate::mutation::{Mutation, mutated};

/// Longest text of a failure that is kept, bytes: eight attempts of every remembered job may have one.
const FAILURE_TEXT_MAX: usize = 1024;

impl State {
    pub(super) fn lease(&mut self, index: u64, id: JobId, worker: WorkerId, life: [u8; 16]) -> Result<Reply, Refusal> {
        let job = self.job(id)?;
        let now = self.clock.now;
        match waits_until(job.state) {
            Some(not_before) if not_before <= now => {}
            Some(_) => return Err(Refusal::held(format!("job {id} waits"))),
            None => return Err(Refusal::fenced(format!("job {id} does not wait for a worker"))),
        }
        let Some(row) = self.workers.get(&worker).filter(|row| !row.removed) else {
            return Err(Refusal::missing("worker", worker));
        };
        if row.life != Some(life) {
            return Err(Refusal::fenced(format!("worker {} has another life", row.name)));
        }
        if row.drained {
            return Err(Refusal::held(format!("worker {} drains", row.name)));
        }
        if !row.facts.jobs {
            return Err(Refusal::held(format!("worker {} runs no jobs", row.name)));
        }
        if self.leases_of(worker).count() as u64 >= u64::from(row.facts.permits) {
            return Err(Refusal::held(format!(
                "worker {} runs as many jobs as it may",
                row.name
            )));
        }
        if let Work::Restore { host, .. } = &job.spec.work
            && *host != row.name
        {
            return Err(Refusal::held(format!("job {id} writes on {host}, not on {}", row.name)));
        }
        let pins = self.pins_of(&job.spec.work)?;
        let (epoch, session) = (Epoch(index), SessionId(index));
        #[cfg(test)]
        let session = match job.attempts.last() {
            Some(before) if mutated(Mutation::SessionReused) => before.session,
            _ => session,
        };
        let writes = matches!(job.spec.work, Work::Backup { .. });
        self.sessions.insert(
            session,
            Session {
                vault: job.spec.vault,
                job: id,
                epoch,
                start_epoch: self.clock.sweep_epoch,
                pins: pins.clone(),
                writes,
            },
        );
        for point in pins {
            self.views.pin(point);
        }
        let mut forgotten = Vec::new();
        self.change_job(id, |job| {
            job.state = JobState::Leased;
            job.attempts_made += 1;
            job.attempts.push(Attempt {
                worker,
                life,
                epoch,
                session,
                started: now,
                ended: None,
                failure: None,
            });
            let surplus = job.attempts.len().saturating_sub(ATTEMPTS_KEPT);
            forgotten.extend(job.attempts.drain(..surplus).map(|attempt| attempt.epoch));
        });
        for epoch in forgotten {
            self.drop_log(epoch);
        }
        Ok(Reply::Leased { epoch, session })
    }

    /// What a session of this work holds: the parent of a backup, what a reader reads.
    ///
    /// ◆ Refused when that is gone. A hidden point may still be read, but no point is made against it: [`State::newest_point`] is a visible one.
    fn pins_of(&self, work: &Work) -> Result<Vec<PointId>, Refusal> {
        match work {
            Work::Backup { item, .. } => {
                if !self.items.get(item).is_some_and(|item| item.protected) {
                    return Err(Refusal::held("the item is not protected any more"));
                }
                Ok(self.newest_point(*item).into_iter().collect())
            }
            Work::Restore { point, .. } | Work::Verify { point: Some(point), .. } => {
                if !self.points.contains(point) {
                    return Err(Refusal::missing("point", point));
                }
                Ok(vec![*point])
            }
            Work::Verify { point: None, .. } | Work::Claim | Work::Catalogue => Ok(Vec::new()),
        }
    }

    /// The running attempt, if `epoch` is its fence.
    fn attempt(&self, id: JobId, epoch: Epoch) -> Result<(&Job, &Attempt), Refusal> {
        let job = self.job(id)?;
        match job.running() {
            Some(attempt) if attempt.epoch == epoch => Ok((job, attempt)),
            #[cfg(test)]
            running if mutated(running.map_or(Mutation::AbortedCommits, |_| Mutation::StaleEpoch)) => {
                let newest = running.or(job.attempts.last());
                newest
                    .map(|attempt| (job, attempt))
                    .ok_or_else(|| Refusal::missing("attempt", epoch))
            }
            Some(_) => Err(Refusal::fenced(format!("job {id} was leased anew"))),
            None => Err(Refusal::fenced(format!(
                "job {id} does not run under this lease any more"
            ))),
        }
    }

    /// Whether `actor` may speak for an attempt: its worker, or the cluster.
    pub(super) fn check_speaker(actor: &Actor, attempt: &Attempt) -> Result<(), Refusal> {
        match actor {
            Actor::Cluster => Ok(()),
            #[cfg(test)]
            Actor::Worker(_) if mutated(Mutation::StaleEpoch) => Ok(()),
            Actor::Worker(worker) if *worker == attempt.worker => Ok(()),
            other => Err(Refusal::denied(format!("{other} does not have this lease"))),
        }
    }

    pub(super) fn expire_lease(
        &mut self,
        actor: &Actor,
        id: JobId,
        epoch: Epoch,
        retry_at: Option<Time>,
    ) -> Result<Reply, Refusal> {
        let (_, attempt) = self.attempt(id, epoch)?;
        Self::check_speaker(actor, attempt)?;
        let failure = Failure {
            kind: FailureKind::Lost,
            message: String::from("the worker was not heard of in time"),
            hint: String::new(),
        };
        self.end_attempt(id, Some(failure), retry_at);
        Ok(Reply::Done)
    }

    pub(super) fn fail(
        &mut self,
        actor: &Actor,
        id: JobId,
        epoch: Epoch,
        failure: &Failure,
        retry_at: Option<Time>,
    ) -> Result<Reply, Refusal> {
        let (_, attempt) = self.attempt(id, epoch)?;
        Self::check_speaker(actor, attempt)?;
        // Cut, not refused: the attempt has failed, however long the story.
        let failure = Failure {
            kind: failure.kind,
            message: shortened(&failure.message, FAILURE_TEXT_MAX),
            hint: shortened(&failure.hint, FAILURE_TEXT_MAX),
        };
        self.end_attempt(id, Some(failure), retry_at);
        Ok(Reply::Done)
    }

    /// Ends the running attempt without a result: the session is aborted, and the job waits again, has failed or is cancelled.
    fn end_attempt(&mut self, id: JobId, failure: Option<Failure>, retry_at: Option<Time>) {
        let now = self.clock.now;
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let cancelled = job.cancel_requested
            || failure
                .as_ref()
                .is_some_and(|failure| failure.kind == FailureKind::Cancelled);
        let work = job.spec.work.clone();
        if let Some(attempt) = job.running() {
            self.close_session(attempt.session);
        }
        let failed = failure.clone();
        self.change_job(id, |job| {
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.ended = Some(now);
                attempt.failure = failed;
            }
            // Out of the leases, whatever comes next.
            job.state = JobState::Queued {
                not_before: retry_at.unwrap_or(now),
            };
        });
        if cancelled {
            self.end_job(id, JobState::Cancelled);
        } else if retry_at.is_none() {
            self.end_job(id, JobState::Failed);
            if let (Work::Backup { item, .. }, Some(failure)) = (&work, failure)
                && let Some(item) = self.items.get_mut(item)
            {
                item.failures += 1;
                item.last_failure = Some(FailedAt {
                    time: now,
                    failure,
                    job: id,
                });
            }
        }
        if let Work::Backup { item, .. } = work {
            self.drop_item_if_empty(item);
        }
    }

    /// ◆ A closed session has no row, and its number is never given again: nothing that it still sends counts.
    pub(super) fn close_session(&mut self, session: SessionId) {
        if let Some(row) = self.sessions.remove(&session) {
            for point in row.pins {
                self.views.unpin(point);
            }
        }
    }

    /// Whether exactly this was reported and taken before. A worker that lost the answer (the leader changed) has to hear it when it asks again: told
    /// that it is fenced, it would throw its bitmap away and read whole disks next time.
    fn is_taken(&self, actor: &Actor, completion: &Completion) -> bool {
        let Some(job) = self.jobs.get(&completion.job) else {
            return false;
        };
        let (JobState::Done { point }, Some(attempt)) = (job.state, job.attempts.last()) else {
            return false;
        };
        let made = match &completion.outcome {
            Outcome::Backup(made) => Some(made.point),
            _ => None,
        };
        attempt.epoch == completion.epoch
            && attempt.session == completion.session
            && made == point
            && Self::check_speaker(actor, attempt).is_ok()
    }

    /// ◆ One entry completes the attempt, commits the session and shows the point.
    pub(super) fn complete(&mut self, index: u64, actor: &Actor, completion: &Completion) -> Result<Reply, Refusal> {
        let id = completion.job;
        if self.is_taken(actor, completion) {
            return Ok(Reply::Done);
        }
        let (job, attempt) = self.attempt(id, completion.epoch)?;
        Self::check_speaker(actor, attempt)?;
        let is_open = attempt.session == completion.session && self.sessions.contains(&completion.session);
        #[cfg(test)]
        let is_open = is_open || mutated(Mutation::StaleEpoch) || mutated(Mutation::AbortedCommits);
        if !is_open {
            return Err(Refusal::fenced(format!("session {} is not open", completion.session)));
        }
        let vault = job.spec.vault;
        let work = job.spec.work.clone();
        let started = attempt.started;
        let (counts, point) = match (&completion.outcome, &work) {
            (Outcome::Backup(point), Work::Backup { item, keep_until }) => {
                self.check_commit(index, vault, completion.session, point)?;
                let now = self.clock.now;
                let row = Point {
                    item: *item,
                    // The worker's clock is another one. Within the attempt, times of an item's points are in the order in which they came to count,
                    // so that a clock that is ahead does not keep its point the newest, and the parent of all that follow.
                    time: point.time.max(started).min(now),
                    keep_until: *keep_until,
                    manifest: point.manifest,
                    consistency: point.consistency,
                    hidden: None,
                    held: None,
                    harmed: false,
                };
                self.enter_point(point.point, row);
                self.note_lacking(&point.slots_missing);
                if let Some(item) = self.items.get_mut(item) {
                    item.last_success = Some(now);
                    item.failures = 0;
                    item.last_failure = None;
                }
                self.catalogue_falls_behind(vault);
                (point.counts, Some(point.point))
            }
            (
                Outcome::Verified {
                    counts,
                    harmed,
                    findings,
                    is_all,
                },
                Work::Verify { point, level },
            ) => {
                check_batch("harmed", harmed)?;
                // ◆ Only who looked at everything can say that nothing is wrong, and not of what was found since it began.
                let found_since = self
                    .vaults
                    .get(&vault)
                    .is_none_or(|row| row.findings > completion.session.0);
                if *is_all && level == FULL && !found_since {
                    self.clear_harm(vault, *point, harmed);
                }
                if !harmed.is_empty() {
                    self.note_findings(index, vault, harmed);
                }
                let findings = *findings;
                self.change_job(id, |job| job.findings = findings);
                let verified = Verified {
                    at: self.clock.now,
                    job: id,
                    findings,
                };
                if let (None, Some(row)) = (point, self.vaults.get_mut(&vault)) {
                    row.verified = Some(verified);
                }
                (*counts, None)
            }
            (Outcome::Claimed(claim), Work::Claim) => {
                self.set_claim(vault, *claim)?;
                (Counts::default(), None)
            }
            (Outcome::Done { counts }, Work::Restore { .. }) => (*counts, None),
            (Outcome::Done { counts }, Work::Catalogue) => {
                let now = self.clock.now;
                if let Some(vault) = self.vaults.get_mut(&vault) {
                    vault.catalogue = Some((now, completion.session));
                }
                (*counts, None)
            }
            _ => return Err(Refusal::invalid("outcome", "is not what this job makes")),
        };
        self.close_session(completion.session);
        let now = self.clock.now;
        self.change_job(id, |job| {
            if let Some(attempt) = job.attempts.last_mut() {
                attempt.ended = Some(now);
            }
            job.counts = counts;
        });
        self.end_job(id, JobState::Done { point });
        if counts.bytes_stored > 0
            && let Some(vault) = self.vaults.get_mut(&vault)
        {
            vault.bytes_stored = vault.bytes_stored.saturating_add(counts.bytes_stored);
        }
        Ok(Reply::Done)
    }

    fn check_commit(
        &self,
        index: u64,
        vault: VaultId,
        session: SessionId,
        point: &CommittedPoint,
    ) -> Result<(), Refusal> {
        if self.points.contains(&point.point) || self.given_up.contains(&point.point) {
            return Err(Refusal::exists("point", point.point));
        }
        if self.points.len() as u64 >= POINTS_MAX {
            return Err(Refusal::Full {
                what: String::from("points"),
                max: POINTS_MAX,
            });
        }
        // A look at what no entry has said yet is none, and would pass every check below.
        if point.slot_map >= index || point.findings_seen >= index {
            return Err(Refusal::invalid("slot_map", "is of a later log than this"));
        }
        self.check_slots(session, &point.slots, point.slot_map)?;
        if point.slots_missing.len() > usize::from(SLOTS) / 8 {
            return Err(Refusal::invalid(
                "slots_missing",
                format!("has a bit for each of {SLOTS} slots"),
            ));
        }
        let Some(vault) = self.vaults.get(&vault) else {
            return Err(Refusal::missing("vault", vault));
        };
        // ◆ Damage that was found since the session looked may lie under what it inherited.
        if point.findings_seen < vault.findings {
            return Err(Refusal::fenced(format!(
                "damage was found in vault {} while this ran: what it inherited is to be checked",
                vault.spec.name
            )));
        }
        Ok(())
    }

    fn set_claim(&mut self, id: VaultId, claim: VaultClaim) -> Result<(), Refusal> {
        let Some(vault) = self.vaults.get(&id) else {
            return Err(Refusal::missing("vault", id));
        };
        // The same claim may be found again by a second attempt; a lower one, or another of its rank, is not ours any more.
        if let VaultState::Ready(before) = vault.state
            && claim != before
            && claim.n <= before.n
        {
            return Err(Refusal::fenced(format!(
                "vault {} has claim {} already",
                vault.spec.name, before.n
            )));
        }
        if let Some(vault) = self.vaults.get_mut(&id) {
            vault.state = VaultState::Ready(claim);
        }
        self.clock.vaults = self.clock.applied;
        self.catalogue_falls_behind(id);
        Ok(())
    }
}
