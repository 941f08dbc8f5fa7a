//! Jobs: queued, cancelled, tried again by a person, remembered for a while after they ended. Their attempts stand in `leases`.

use tresor_proto::ids::{ItemId, JobId, PointId};

use super::command::{Failure, FailureKind, JobSpec, RestoreTarget, Work};
use super::entry::{Actor, Time};
use super::limits::LimitSubject;
use super::reply::{Refusal, Reply};
use super::rows::{Job, JobState, VaultState};
use super::texts::{check_line, check_path};
use super::{ENDED_JOBS_MAX, OPEN_JOBS_MAX, State};
#[cfg(test)]
use crate::mutation::{Mutation, mutated};

/// The level of a verify that finds everything that any level finds.
pub(super) const FULL: &str = "all";

impl State {
    pub(super) fn job(&self, id: JobId) -> Result<&Job, Refusal> {
        self.jobs.get(&id).ok_or_else(|| Refusal::missing("job", id))
    }

    /// Changes a job and keeps the views in step.
    pub(super) fn change_job(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(mut job) = self.jobs.remove(&id) {
            self.views.remove_job(id, &job, &self.items);
            change(&mut job);
            self.views.add_job(id, &job, &self.items);
            self.jobs.insert(id, job);
        }
    }

    fn check_work(&self, spec: &JobSpec) -> Result<(), Refusal> {
        let Some(vault) = self.vaults.get(&spec.vault) else {
            return Err(Refusal::missing("vault", spec.vault));
        };
        match vault.state {
            VaultState::Claiming if !matches!(spec.work, Work::Claim) => {
                return Err(Refusal::held(format!("vault {} is still being made", vault.spec.name)));
            }
            VaultState::Removing => {
                return Err(Refusal::held(format!("vault {} is being removed", vault.spec.name)));
            }
            VaultState::Claiming | VaultState::Ready(_) => {}
        }
        match &spec.work {
            Work::Backup { item, .. } => self.check_backup(*item, spec),
            Work::Restore { point, host, target } => self.check_restore(*point, host, target, spec),
            Work::Verify { point, level } => {
                if !["names", "checks", "contents", "recipes", FULL].contains(&level.as_str()) {
                    return Err(Refusal::invalid(
                        "level",
                        "is one of names, checks, contents, recipes, all",
                    ));
                }
                point.map_or(Ok(()), |point| self.check_point_in(point, spec))
            }
            Work::Claim | Work::Catalogue => {
                let claims = matches!(spec.work, Work::Claim);
                match self.open_upkeep(spec.vault, claims) {
                    Some(job) => Err(Refusal::exists("job", job)),
                    None => Ok(()),
                }
            }
        }
    }

    fn check_backup(&self, id: ItemId, spec: &JobSpec) -> Result<(), Refusal> {
        let Some(item) = self.items.get(&id) else {
            return Err(Refusal::missing("item", id));
        };
        if item.spec.vault != spec.vault {
            return Err(Refusal::invalid(
                "vault",
                format!("item {} is in another vault", item.spec.name),
            ));
        }
        if !item.protected {
            return Err(Refusal::held(format!("item {} is not protected", item.spec.name)));
        }
        if let Some(job) = self.open_backup(id) {
            return Err(Refusal::Exists {
                what: String::from("job"),
                name: job.to_string(),
                beside: format!(": it backs up {}", item.spec.name),
            });
        }
        // ◆ An occurrence becomes a job once, whichever leader saw that it was due.
        let is_old = matches!((spec.occurrence, item.last_occurrence), (Some(due), Some(last)) if due <= last);
        #[cfg(test)]
        let is_old = is_old && !mutated(Mutation::OccurrenceTwice);
        if is_old {
            return Err(Refusal::fenced(
                "this occurrence of the schedule has become a job already",
            ));
        }
        Ok(())
    }

    fn check_point_in(&self, id: PointId, spec: &JobSpec) -> Result<(), Refusal> {
        let Some(point) = self.points.get(&id) else {
            return Err(Refusal::missing("point", id));
        };
        if self.items.get(&point.item).map(|item| item.spec.vault) != Some(spec.vault) {
            return Err(Refusal::invalid("vault", format!("point {id} is in another vault")));
        }
        Ok(())
    }

    fn check_restore(&self, point: PointId, host: &str, target: &RestoreTarget, spec: &JobSpec) -> Result<(), Refusal> {
        self.check_point_in(point, spec)?;
        if self.worker_named(host).is_none() {
            return Err(Refusal::missing("worker", host));
        }
        check_path("path", &target.path)?;
        check_line("disk", &target.disk)?;
        check_line("format", &target.format)?;
        if target.overwrite && target.in_place {
            return Err(Refusal::invalid(
                "overwrite",
                "is one way, in_place another: choose one",
            ));
        }
        // Two restores into one place would write over each other.
        match self.open_restore(host, &target.path) {
            Some(job) => Err(Refusal::Exists {
                what: String::from("job"),
                name: job.to_string(),
                beside: format!(": it restores to {host}:{}", target.path),
            }),
            None => Ok(()),
        }
    }

    pub(super) fn enqueue(&mut self, index: u64, actor: &Actor, spec: &JobSpec) -> Result<Reply, Refusal> {
        self.check_work(spec)?;
        self.check_room_for_job()?;
        Ok(self.queue(index, actor, spec))
    }

    pub(super) fn check_room_for_job(&self) -> Result<(), Refusal> {
        if self.views.open.len() as u64 >= OPEN_JOBS_MAX {
            return Err(Refusal::Full {
                what: String::from("jobs that wait or run"),
                max: OPEN_JOBS_MAX,
            });
        }
        Ok(())
    }

    /// Queues a job that was checked.
    pub(super) fn queue(&mut self, index: u64, actor: &Actor, spec: &JobSpec) -> Reply {
        let id = JobId(index);
        let job = Job {
            spec: spec.clone(),
            by: actor.clone(),
            created: self.clock.now,
            state: JobState::Queued {
                not_before: spec.not_before,
            },
            attempts: Vec::new(),
            attempts_made: 0,
            cancel_requested: false,
            failure: None,
            ended: None,
            counts: super::command::Counts::default(),
            findings: 0,
        };
        self.views.add_job(id, &job, &self.items);
        self.jobs.insert(id, job);
        if let (Work::Backup { item, .. }, Some(due)) = (&spec.work, spec.occurrence)
            && let Some(item) = self.items.get_mut(item)
        {
            let last = Some(due);
            #[cfg(test)]
            let last = last.filter(|_| !mutated(Mutation::OccurrenceTwice));
            item.last_occurrence = last;
        }
        Reply::Made(index)
    }

    pub(super) fn cancel(&mut self, id: JobId) -> Result<Reply, Refusal> {
        match self.job(id)?.state {
            JobState::Queued { .. } => {
                self.end_job(id, JobState::Cancelled);
                Ok(Reply::Done)
            }
            // The worker hears of it with its next beat and ends the attempt, or its lease runs out.
            JobState::Leased => {
                self.change_job(id, |job| job.cancel_requested = true);
                Ok(Reply::Done)
            }
            _ => Err(Refusal::held(format!("job {id} has ended"))),
        }
    }

    pub(super) fn retry(&mut self, id: JobId) -> Result<Reply, Refusal> {
        let job = self.job(id)?;
        if !matches!(job.state, JobState::Failed | JobState::Cancelled) {
            return Err(Refusal::held(format!("job {id} has neither failed nor been cancelled")));
        }
        // Nothing else may have come between: the checks of a new job, but for the occurrence, which is this job's own.
        let mut spec = job.spec.clone();
        spec.occurrence = None;
        self.check_work(&spec)?;
        self.check_room_for_job()?;
        let now = self.clock.now;
        self.change_job(id, |job| {
            job.state = JobState::Queued { not_before: now };
            job.cancel_requested = false;
            job.failure = None;
            job.ended = None;
            // A person asked: the tries are counted anew.
            job.attempts_made = 0;
        });
        Ok(Reply::Made(id.0))
    }

    /// Ends jobs that wait to read a point that is gone: they can never run.
    pub(super) fn end_readers_of(&mut self, point: PointId) {
        let readers = self.views.readers_of.get(&point).into_iter().flatten().copied();
        for id in readers.collect::<Vec<JobId>>() {
            self.change_job(id, |job| {
                job.failure = Some(Failure {
                    kind: FailureKind::Missing,
                    message: format!("point {point} is gone"),
                    hint: String::from("tresor point list"),
                });
            });
            self.end_job(id, JobState::Failed);
        }
    }

    /// Ends a job, and forgets the oldest that ended where there are too many.
    pub(super) fn end_job(&mut self, id: JobId, state: JobState) {
        let now = self.clock.now;
        self.change_job(id, |job| {
            job.state = state;
            job.ended = Some(now);
        });
        self.drop_limit(&LimitSubject::Job(id));
        for _ in 0..2 {
            if self.views.ended.len() <= ENDED_JOBS_MAX {
                break;
            }
            let Some(&(_, oldest)) = self.views.ended.first() else {
                break;
            };
            if let Some(job) = self.jobs.remove(&oldest) {
                self.views.remove_job(oldest, &job, &self.items);
                for attempt in &job.attempts {
                    self.drop_log(attempt.epoch);
                }
            }
        }
    }
}

/// When a queued job may begin.
pub(super) fn waits_until(state: JobState) -> Option<Time> {
    match state {
        JobState::Queued { not_before } => Some(not_before),
        _ => None,
    }
}
