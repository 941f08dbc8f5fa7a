//! Which job a worker gets.
//!
//! Of the jobs that a worker may have, the first by: priority; the vault that has the fewest running jobs; the item's policy that has the fewest; the
//! longest wait; the number. So one vault with ten thousand waiting items does not keep others from their turn.

use std::cmp::Reverse;
use std::fmt;

use tresor_proto::ids::{JobId, PolicyId, VaultId, WorkerId};

use super::limits::full;
use super::plans::Plans;
use crate::node::presence::Presence;
use crate::schedule::retry_at;
use crate::state::State;
use crate::state::command::{FailureKind, ItemSpec, Work};
use crate::state::entry::Time;
use crate::state::queue::Place;
use crate::state::rows::{Job, JobState, Worker};

/// How many jobs run in one vault at a time: its store gets no more at once, whatever the number of workers.
pub const VAULT_JOBS_MAX: u64 = 256;
/// How long a job that failed on one worker waits for another one that may have it, milliseconds.
pub const ELSEWHERE_MS: i64 = 120_000;

/// Workers that read for one backup besides the one that has it. With more, what they read waits for the store.
pub const HELPERS_MAX: usize = 7;

/// Why a worker does not get a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// It was not heard of lately, or never registered.
    Silent,
    /// It gets no new leases.
    Drained,
    /// It runs as many as it may.
    Busy,
    /// It answers for slots of the index only.
    NoJobs,
    /// It does not reach the store.
    Store {
        /// The store.
        url: String,
    },
    /// The disks are on another host.
    Host {
        /// On which.
        wanted: String,
    },
    /// It lacks a label.
    Label {
        /// `key=value`.
        wanted: String,
    },
    /// The job failed there just now, and another worker may have it.
    FailedThere,
    /// A limit of jobs at a time.
    Limited {
        /// Of what: `host hv1`.
        limit: String,
        /// How many.
        max: u32,
    },
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent => f.write_str("is not heard of"),
            Self::Drained => f.write_str("drains"),
            Self::Busy => f.write_str("runs as many jobs as it may"),
            Self::NoJobs => f.write_str("runs no jobs"),
            Self::Store { url } => write!(f, "does not reach {url}"),
            Self::Host { wanted } => write!(f, "is not {wanted}, where the disks are"),
            Self::Label { wanted } => write!(f, "has no label {wanted}"),
            Self::Limited { limit, max } => write!(f, "waits: {limit} is limited to {max} jobs at a time"),
            Self::FailedThere => f.write_str("failed at it, and another worker may have it first"),
        }
    }
}

/// Why nobody gets a job yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// Its time has not come.
    Until {
        /// When it comes.
        time: Time,
        /// Whether after a failure.
        after_failure: bool,
    },
    /// The policy's windows are closed.
    Window,
    /// So many run in the vault.
    VaultBusy,
    /// No worker is fit.
    NoWorker {
        /// Each worker's name and why not it.
        workers: Vec<(String, Unfit)>,
    },
    /// Nothing keeps it: it is next.
    Next,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until {
                time,
                after_failure: true,
            } => write!(f, "it failed, and is tried again at {time}"),
            Self::Until { time, .. } => write!(f, "it is not to begin before {time}"),
            Self::Window => f.write_str("the backup windows of its policy are closed"),
            Self::VaultBusy => write!(f, "{VAULT_JOBS_MAX} jobs run in its vault, and no more may"),
            Self::NoWorker { workers } if workers.is_empty() => f.write_str("no worker has joined yet"),
            Self::NoWorker { .. } => f.write_str("no worker can do it now"),
            Self::Next => f.write_str("it is about to begin"),
        }
    }
}

fn policy_of(state: &State, job: &Job) -> Option<PolicyId> {
    match &job.spec.work {
        Work::Backup { item, .. } => state.items().get(item)?.spec.policy,
        _ => None,
    }
}

/// Whether the windows of a scheduled backup's policy are open. What a person starts runs at once.
fn window_is_open(state: &State, plans: &Plans, job: &Job, now: Time) -> bool {
    if job.spec.occurrence.is_none() {
        return true;
    }
    let plan = policy_of(state, job).and_then(|policy| plans.get(policy)?.ok());
    plan.and_then(|plan| plan.calendar.as_ref())
        .is_none_or(|calendar| calendar.is_open(now.timestamp()))
}

fn unfit_for_store(state: &State, worker: &Worker, vault: VaultId) -> Option<Unfit> {
    let url = &state.vaults().get(&vault)?.spec.url;
    let stores = &worker.facts.stores;
    let is_reached = stores.is_empty() || stores.iter().any(|prefix| url.starts_with(prefix));
    (!is_reached).then(|| Unfit::Store { url: url.clone() })
}

fn unfit_for_disks(worker: &Worker, item: &ItemSpec) -> Option<Unfit> {
    let wanted = item.host.as_str();
    let here = wanted.is_empty() || wanted == worker.name || wanted == worker.facts.host;
    if !here {
        return Some(Unfit::Host {
            wanted: wanted.to_owned(),
        });
    }
    let lacks = |(key, value): &(&String, &String)| worker.facts.labels.get(*key) != Some(*value);
    item.worker_labels.iter().find(lacks).map(|(key, value)| Unfit::Label {
        wanted: format!("{key}={value}"),
    })
}

/// Why a worker cannot back an item up, whatever it does now; none: it reaches its disks and its vault's store.
pub fn unreached(state: &State, worker: &Worker, item: &ItemSpec) -> Option<Unfit> {
    unfit_for_store(state, worker, item.vault).or_else(|| unfit_for_disks(worker, item))
}

/// Why this job is not for this worker, whatever others do; none: it may have it.
fn unfit_for_work(state: &State, worker: &Worker, job: &Job) -> Option<Unfit> {
    if let Some(unfit) = unfit_for_store(state, worker, job.spec.vault) {
        return Some(unfit);
    }
    match &job.spec.work {
        Work::Backup { item, .. } => unfit_for_disks(worker, &state.items().get(item)?.spec),
        // Its name alone: files of a restore belong on the one machine that was named.
        Work::Restore { host, .. } if *host != worker.name => Some(Unfit::Host { wanted: host.clone() }),
        _ => None,
    }
}

fn unfit_now(state: &State, presence: &Presence, id: WorkerId, worker: &Worker, now_ms: u64) -> Option<Unfit> {
    if !presence.is_present(state, id, now_ms) {
        return Some(Unfit::Silent);
    }
    if worker.drained {
        return Some(Unfit::Drained);
    }
    if !worker.facts.jobs {
        return Some(Unfit::NoJobs);
    }
    if state.leases_of(id).count() as u64 >= u64::from(worker.facts.permits) {
        return Some(Unfit::Busy);
    }
    None
}

/// The limit of jobs at a time that keeps a worker from this one: of its store, of the worker, of the host.
fn limited(state: &State, plans: &Plans, id: WorkerId, worker: &Worker, job: &Job, now: Time) -> Option<Unfit> {
    if plans.limits().is_empty() {
        return None;
    }
    let (limit, max) = full(state, plans.limits(), id, worker, job.spec.vault, now.timestamp())?;
    Some(Unfit::Limited {
        limit: limit.to_string(),
        max,
    })
}

/// Whether a job failed on this worker and should be tried elsewhere first.
fn should_go_elsewhere(
    state: &State,
    presence: &Presence,
    id: WorkerId,
    job_id: JobId,
    job: &Job,
    now: Time,
    now_ms: u64,
) -> bool {
    let Some(last) = job.attempts.last().filter(|last| last.worker == id) else {
        return false;
    };
    let (Some(ended), Some(failure)) = (last.ended, &last.failure) else {
        return false;
    };
    let wants = failure.kind == FailureKind::Lost
        || retry_at(
            job.attempts_made,
            ended.timestamp(),
            failure.kind,
            &job_id.0.to_be_bytes(),
        )
        .is_some_and(|retry| retry.elsewhere);
    let JobState::Queued { not_before } = job.state else {
        return false;
    };
    wants
        && now.since(not_before) < ELSEWHERE_MS
        && state.workers().iter().any(|(other, worker)| {
            *other != id
                && !worker.removed
                && unfit_for_work(state, worker, job).is_none()
                && unfit_now(state, presence, *other, worker, now_ms).is_none()
        })
}

/// What decides between two jobs: the urgency of their kinds, since when they wait, their numbers.
type Rank = ((Reverse<i32>, u64, u64), Time, JobId);

/// The job that a worker gets now, if there is one for it.
///
/// Cost: a look at the first job of every place that the worker is, and of every kind; and at those after it that failed on this worker just now.
pub fn choose(
    state: &State,
    presence: &Presence,
    plans: &Plans,
    id: WorkerId,
    now: Time,
    now_ms: u64,
) -> Option<JobId> {
    let worker = state.workers().get(&id).filter(|worker| !worker.removed)?;
    if unfit_now(state, presence, id, worker, now_ms).is_some() {
        return None;
    }
    let places = [
        Place::Anywhere,
        Place::Host(worker.name.clone()),
        Place::Host(worker.facts.host.clone()),
        Place::Worker(worker.name.clone()),
    ];
    let mut best: Option<Rank> = None;
    for place in &places {
        for (kind, line) in state.waiting_at(place) {
            let in_vault = state.running_in(kind.vault);
            let urgency = (kind.priority, in_vault, state.running_under(kind.policy));
            if in_vault >= VAULT_JOBS_MAX || best.is_some_and(|(found, ..)| urgency > found) {
                continue;
            }
            let mut is_first = true;
            for (not_before, job_id) in line.take_while(|(not_before, _)| *not_before <= now) {
                let rank = (urgency, not_before, job_id);
                let Some(job) = state
                    .jobs()
                    .get(&job_id)
                    .filter(|_| best.is_none_or(|best| rank < best))
                else {
                    break;
                };
                // What is so of the first is so of all of its kind.
                if is_first
                    && (unfit_for_work(state, worker, job).is_some()
                        || !window_is_open(state, plans, job, now)
                        || limited(state, plans, id, worker, job, now).is_some())
                {
                    break;
                }
                is_first = false;
                if !should_go_elsewhere(state, presence, id, job_id, job, now, now_ms) {
                    best = Some(rank);
                    break;
                }
            }
        }
    }
    best.map(|(.., job)| job)
}

/// Whether a worker reaches what a job is about, whatever it does now.
pub fn reaches(state: &State, worker: &Worker, job: &Job) -> bool {
    !worker.removed && unfit_for_work(state, worker, job).is_none()
}

/// Other workers that could read the disks of a job that one has: those that reach them and the store, answer other workers, and have room now. The idlest
/// first.
pub fn helpers(state: &State, presence: &Presence, of: WorkerId, job: JobId, now_ms: u64) -> Vec<WorkerId> {
    let Some(job) = state.jobs().get(&job) else {
        return Vec::new();
    };
    let mut fit: Vec<(usize, WorkerId)> = state
        .workers()
        .iter()
        .filter(|(id, worker)| **id != of && !worker.removed && !worker.facts.serves.is_empty())
        .filter(|(id, worker)| {
            unfit_now(state, presence, **id, worker, now_ms).is_none() && unfit_for_work(state, worker, job).is_none()
        })
        .map(|(id, _)| (state.leases_of(*id).count(), *id))
        .collect();
    fit.sort_unstable();
    fit.truncate(HELPERS_MAX);
    fit.into_iter().map(|(_, id)| id).collect()
}

/// Why a queued job waits; none if it does not wait.
pub fn explain(
    state: &State,
    presence: &Presence,
    plans: &Plans,
    id: JobId,
    now: Time,
    now_ms: u64,
) -> Option<Waiting> {
    let job = state.jobs().get(&id)?;
    let JobState::Queued { not_before } = job.state else {
        return None;
    };
    if not_before > now {
        return Some(Waiting::Until {
            time: not_before,
            after_failure: !job.attempts.is_empty(),
        });
    }
    if !window_is_open(state, plans, job, now) {
        return Some(Waiting::Window);
    }
    if state.running_in(job.spec.vault) >= VAULT_JOBS_MAX {
        return Some(Waiting::VaultBusy);
    }
    let mut workers = Vec::new();
    for (worker_id, worker) in state.workers().iter().filter(|(_, worker)| !worker.removed) {
        let unfit = unfit_for_work(state, worker, job)
            .or_else(|| unfit_now(state, presence, *worker_id, worker, now_ms))
            .or_else(|| limited(state, plans, *worker_id, worker, job, now))
            .or_else(|| {
                should_go_elsewhere(state, presence, *worker_id, id, job, now, now_ms).then_some(Unfit::FailedThere)
            });
        match unfit {
            Some(unfit) => workers.push((worker.name.clone(), unfit)),
            None => return Some(Waiting::Next),
        }
    }
    Some(Waiting::NoWorker { workers })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
