//! What the leader knows of workers and does not log: when each was heard of, how far its jobs are, and until when their leases last.
//!
//! Times are milliseconds of the leader's monotonic clock. A new leader has heard of nobody; it gives every lease it finds a full term, so that a
//! change of leaders alone never ends one. Only what follows from it is logged: that a lease has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use prost::Message as _;
use tresor_proto::ids::{Epoch, JobId, VaultId, WorkerId};
use tresor_proto::v1;

use crate::lead::limits::{is_host_of, running};
use crate::lead::shares::{Given, Shared, Shares};
use crate::state::State;
use crate::state::limits::LimitSubject;

/// How long a lease lasts after it was granted or renewed, milliseconds. Long enough for a new leader (5 s) and a few lost beats.
pub const LEASE_MS: u64 = 30_000;
/// How often a worker is to beat, milliseconds: twice in a lease may be lost.
pub const BEAT_MS: u64 = 10_000;
/// A worker that was not heard of for so long gets no new leases, milliseconds.
pub const SILENT_MS: u64 = 25_000;
/// Jobs whose reports are remembered: who waits for a job asks within moments of its end.
pub const REPORTS_MAX: usize = 256;
/// Largest report that is remembered, bytes: some thousand findings. A backup of 128 disks has less than 20 KB.
pub const REPORT_BYTES_MAX: usize = 1 << 20;

/// Attempts that have ended of which it is remembered how far they were said to be: for the logs of those that nobody reported.
pub const LAST_HEARD_MAX: usize = 1024;

/// How far a job is, as its worker said last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// What it does.
    pub stage: String,
    /// Bytes done.
    pub bytes_done: u64,
    /// Of so many.
    pub bytes_total: u64,
    /// Bytes put.
    pub bytes_stored: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    epoch: Epoch,
    until: u64,
    progress: JobProgress,
}

/// What was heard of an attempt last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastHeard {
    /// When.
    pub at: u64,
    /// How far it was.
    pub progress: JobProgress,
}

/// When a worker was heard of, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Its life.
    pub life: [u8; 16],
    /// When.
    pub at: u64,
    /// Its wall clock minus ours, milliseconds.
    pub clock_ms: i64,
}

/// A lease that a worker says it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidLease {
    /// The job.
    pub job: JobId,
    /// The fence.
    pub epoch: Epoch,
    /// How far it is.
    pub progress: JobProgress,
}

/// What a beat is answered with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BeatAnswer {
    /// Leases that go on.
    pub held: Vec<(JobId, Epoch)>,
    /// Those of them that are to end.
    pub cancelled: Vec<(JobId, Epoch)>,
}

/// The leader's knowledge of workers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Presence {
    workers: BTreeMap<WorkerId, Heard>,
    leases: BTreeMap<JobId, Held>,
    /// What was heard last of attempts that have ended; the oldest are forgotten.
    ended: BTreeMap<Epoch, LastHeard>,
    /// When the certificates end that workers showed last, Unix seconds.
    certificates: BTreeMap<WorkerId, i64>,
    /// Vaults whose newest catalogue had no room for all of their rows.
    cut: BTreeSet<VaultId>,
    /// Its one worker is in this process, and begins when there is work: it is not missed before.
    begins_when_needed: bool,
    /// What attempts made, in detail.
    reports: BTreeMap<JobId, (Epoch, Arc<v1::Report>)>,
    /// How limits are divided among workers.
    shares: Shares,
}

impl Presence {
    /// Notes when the certificate ends that a worker showed, Unix seconds.
    pub fn note_certificate(&mut self, worker: WorkerId, ends: i64) {
        self.certificates.insert(worker, ends);
    }

    /// When the certificate of a worker ends, Unix seconds, if it has shown one.
    pub fn certificate_ends(&self, worker: WorkerId) -> Option<i64> {
        self.certificates.get(&worker).copied()
    }

    /// Notes whether all of a vault's rows fitted into the catalogue that was just encoded.
    pub fn note_catalogue(&mut self, vault: VaultId, is_whole: bool) {
        if is_whole {
            self.cut.remove(&vault);
        } else {
            self.cut.insert(vault);
        }
    }

    /// Whether the newest catalogue of a vault had no room for all of its rows, as far as this coordinator knows.
    pub fn is_cut(&self, vault: VaultId) -> bool {
        self.cut.contains(&vault)
    }

    /// Of a coordinator that stands for one command of a person: its one worker is there whenever there is work.
    pub fn of_one_command() -> Self {
        Self {
            begins_when_needed: true,
            shares: Shares::of_one_process(),
            ..Self::default()
        }
    }

    /// Of a leader that began now, after that entry of the log: what leaders before it knew of workers is not known to it.
    pub fn of_new_leader(now: u64, entry: u64) -> Self {
        Self {
            shares: Shares::of_new_leader(now, LEASE_MS, entry),
            ..Self::default()
        }
    }

    /// Answers what a worker says of its shares of limits: of every limit that it shares with others, what it acts on from now.
    pub fn share(
        &mut self,
        state: &State,
        worker: WorkerId,
        life: [u8; 16],
        said: &BTreeMap<LimitSubject, u32>,
        now: u64,
    ) -> BTreeMap<LimitSubject, Given> {
        let Some(row) = state.workers().get(&worker) else {
            return BTreeMap::new();
        };
        let shared = state.limits().iter().filter(|(subject, _)| match subject {
            LimitSubject::Store(_) => true,
            LimitSubject::Host(_) => is_host_of(subject, row),
            LimitSubject::Worker(_) | LimitSubject::Job(_) => false,
        });
        shared
            .map(|(subject, limit)| {
                let jobs = running(state, subject);
                let shared = Shared {
                    subject,
                    since: limit.since,
                    jobs: &jobs,
                };
                let acts_on = said.get(subject).copied().unwrap_or(0);
                let given = self.shares.exchange(shared, (worker, life), acts_on, now, LEASE_MS);
                (subject.clone(), given)
            })
            .collect()
    }

    /// Remembers what an attempt made, for those who wait for its job. One that is too large is forgotten at once, and so is that of the oldest job when
    /// there are too many.
    pub fn note_report(&mut self, job: JobId, epoch: Epoch, report: v1::Report) {
        if report.encoded_len() > REPORT_BYTES_MAX {
            return;
        }
        self.reports.insert(job, (epoch, Arc::new(report)));
        while self.reports.len() > REPORTS_MAX {
            self.reports.pop_first();
        }
    }

    /// What an attempt made, if it is remembered.
    pub fn report(&self, job: JobId, epoch: Epoch) -> Option<Arc<v1::Report>> {
        let (of, report) = self.reports.get(&job)?;
        (*of == epoch).then(|| Arc::clone(report))
    }

    /// Notes that a worker lives.
    pub fn hear(&mut self, worker: WorkerId, life: [u8; 16], clock_ms: i64, now: u64) {
        let heard = Heard {
            life,
            at: now,
            clock_ms,
        };
        self.workers.insert(worker, heard);
    }

    /// Renews the leases that a worker says it has, as far as the log agrees.
    pub fn beat(
        &mut self,
        state: &State,
        worker: WorkerId,
        life: [u8; 16],
        said: &[SaidLease],
        now: u64,
    ) -> BeatAnswer {
        let mut answer = BeatAnswer::default();
        for lease in said {
            let Some(job) = state.jobs().get(&lease.job) else {
                continue;
            };
            let holds = job.running().is_some_and(|attempt| {
                attempt.worker == worker && attempt.epoch == lease.epoch && attempt.life == life
            });
            if !holds {
                continue;
            }
            let before = self.leases.insert(
                lease.job,
                Held {
                    epoch: lease.epoch,
                    until: now + LEASE_MS,
                    progress: lease.progress.clone(),
                },
            );
            if let Some(before) = before.filter(|before| before.epoch != lease.epoch) {
                self.note_ended(before);
            }
            answer.held.push((lease.job, lease.epoch));
            if job.cancel_requested {
                answer.cancelled.push((lease.job, lease.epoch));
            }
        }
        answer
    }

    /// Leases that have ended: whose worker was not heard of in time, is removed, or has another life. Leases that were not known yet get a full
    /// term; what is known of ended jobs is dropped.
    pub fn expired(&mut self, state: &State, now: u64) -> Vec<(JobId, Epoch)> {
        let mut expired = Vec::new();
        let mut known = BTreeMap::new();
        for id in state.leases() {
            let Some(attempt) = state.jobs().get(&id).and_then(|job| job.running()) else {
                continue;
            };
            let held = match self.leases.remove(&id) {
                Some(held) if held.epoch == attempt.epoch => held,
                other => {
                    other.into_iter().for_each(|held| self.note_ended(held));
                    Held {
                        epoch: attempt.epoch,
                        until: now + LEASE_MS,
                        progress: JobProgress::default(),
                    }
                }
            };
            // Another life of the worker cannot go on with what its earlier one had.
            let alive = state
                .workers()
                .get(&attempt.worker)
                .is_some_and(|worker| !worker.removed && worker.life == Some(attempt.life));
            if !alive || held.until <= now {
                expired.push((id, attempt.epoch));
            }
            known.insert(id, held);
        }
        for held in std::mem::replace(&mut self.leases, known).into_values() {
            self.note_ended(held);
        }
        expired
    }

    fn note_ended(&mut self, held: Held) {
        // Of one that was never said to be somewhere there is nothing to tell.
        if held.progress.stage.is_empty() {
            return;
        }
        let last = LastHeard {
            at: held.until.saturating_sub(LEASE_MS),
            progress: held.progress,
        };
        self.ended.insert(held.epoch, last);
        while self.ended.len() > LAST_HEARD_MAX {
            self.ended.pop_first();
        }
    }

    /// What was heard of an attempt last, whether it still runs or not.
    pub fn last_heard(&self, job: JobId, epoch: Epoch) -> Option<LastHeard> {
        let running = self.leases.get(&job).filter(|held| held.epoch == epoch);
        let running = running
            .filter(|held| !held.progress.stage.is_empty())
            .map(|held| LastHeard {
                at: held.until.saturating_sub(LEASE_MS),
                progress: held.progress.clone(),
            });
        running.or_else(|| self.ended.get(&epoch).cloned())
    }

    /// What was heard of a worker last.
    pub fn heard(&self, worker: WorkerId) -> Option<Heard> {
        self.workers.get(&worker).copied()
    }

    /// Whether a worker may get new leases: heard of lately, in the life that is registered.
    pub fn is_present(&self, state: &State, worker: WorkerId, now: u64) -> bool {
        let life = state.workers().get(&worker).and_then(|row| row.life);
        if self.begins_when_needed && life.is_some() {
            return true;
        }
        self.workers
            .get(&worker)
            .is_some_and(|heard| Some(heard.life) == life && now.saturating_sub(heard.at) < SILENT_MS)
    }

    /// How far a job is.
    pub fn progress(&self, job: JobId) -> Option<&JobProgress> {
        self.leases.get(&job).map(|held| &held.progress)
    }
}
