//! Why a job waits, runs on, failed.

use tresor_proto::ids::JobId;

use super::Explanation;
use crate::lead::placement::{Unfit, Waiting, explain};
use crate::rpc::admin::status::Seen;
use crate::rpc::convert;
use crate::rpc::policy::span_in_words;
use crate::rpc::refused::{Refused, kind_text, shown};
use crate::state::State;
use crate::state::command::{FailureKind, Work};
use crate::state::rows::{Attempt, Job, JobState};

/// Workers that are named with their reasons; of more their number is told by reason.
const WORKERS_NAMED: usize = 10;

/// What a job does, in words.
fn what(state: &State, id: JobId, job: &Job) -> String {
    let vault = convert::vault_name(state, job.spec.vault);
    let item =
        || convert::item_of(state, job).map_or_else(|| String::from("?"), |item| convert::item_name(state, item));
    let does = match &job.spec.work {
        Work::Backup { .. } => format!("backs up {} into vault {vault}", item()),
        Work::Restore { point, host, target } => {
            format!("restores point {point} of {} to {host}:{}", item(), target.path)
        }
        Work::Verify {
            point: Some(point),
            level,
        } => format!("verifies the {level} of point {point} of {}", item()),
        Work::Verify { point: None, level } => format!("verifies the {level} of vault {vault}"),
        Work::Claim => format!("makes or claims vault {vault}"),
        Work::Catalogue => format!("puts the catalogue of vault {vault}"),
    };
    format!("job {id} {does}; it is {}", convert::job_state_text(job.state))
}

/// Why a job is where it is.
///
/// # Errors
/// [`Refused::Missing`].
pub fn explain_job(seen: Seen<'_>, id: JobId) -> Result<Explanation, Refused> {
    let state = seen.state;
    let job = state.jobs().get(&id).ok_or_else(|| Refused::missing("job", id))?;
    let mut because = match job.state {
        JobState::Queued { .. } => waits(seen, id, job),
        JobState::Leased => runs(seen, id, job),
        JobState::Done { point } => match point {
            Some(point) => vec![format!("It made point {point}.")],
            None if job.findings > 0 => vec![format!("It found {} points harmed.", job.findings)],
            None => vec![String::from("It did what it was to do.")],
        },
        JobState::Failed => failed(job),
        JobState::Cancelled => vec![String::from("It was cancelled.")],
    };
    because.extend(attempts(state, job));
    because.push(match job.spec.occurrence {
        Some(occurrence) => format!("It was queued at {} by the schedule, for {occurrence}.", job.created),
        None => format!("It was queued at {} by {}.", job.created, job.by),
    });
    Ok(Explanation {
        what: what(state, id, job),
        because,
    })
}

fn waits(seen: Seen<'_>, id: JobId, job: &Job) -> Vec<String> {
    let mut because = Vec::new();
    let waiting = explain(seen.state, seen.presence, seen.plans, id, seen.now, seen.now_ms);
    match &waiting {
        Some(Waiting::Next) => because.push(String::from("It is about to begin.")),
        Some(waiting) => because.push(format!("It waits: {waiting}.")),
        None => {}
    }
    match waiting {
        Some(Waiting::NoWorker { workers }) => because.extend(unfit(&workers)),
        Some(Waiting::Next) => {
            because.extend(match before(seen, id, job) {
                0 => None,
                1 => Some(String::from("One more job of the same or a higher priority waits.")),
                more => Some(format!("{more} more jobs of the same or a higher priority wait.")),
            });
        }
        _ => {}
    }
    because
}

/// Jobs that could be chosen before this one.
fn before(seen: Seen<'_>, id: JobId, job: &Job) -> usize {
    let others = seen.state.open_jobs().filter(|other| *other != id);
    others
        .filter_map(|other| seen.state.jobs().get(&other))
        .filter(|other| match other.state {
            JobState::Queued { not_before } => not_before <= seen.now && other.spec.priority >= job.spec.priority,
            _ => false,
        })
        .count()
}

/// Each worker's reason; of many workers how many have which kind of reason.
fn unfit(workers: &[(String, Unfit)]) -> Vec<String> {
    if workers.len() <= WORKERS_NAMED {
        return workers
            .iter()
            .map(|(name, why)| format!("Worker {name} {why}."))
            .collect();
    }
    // Whoever could do it but for now is told of first: that can be waited for.
    let kind = |unfit: &Unfit| match unfit {
        Unfit::Busy => (0, String::from("run as many jobs as they may")),
        Unfit::FailedThere => (1, String::from("failed at it just now")),
        Unfit::Silent => (2, String::from("are not heard of")),
        Unfit::Limited { limit, max } => (0, format!("wait: {limit} is limited to {max} jobs at a time")),
        Unfit::Drained => (3, String::from("drain")),
        Unfit::NoJobs => (7, String::from("run no jobs")),
        Unfit::Store { url } => (4, format!("do not reach {url}")),
        Unfit::Label { wanted } => (5, format!("have no label {wanted}")),
        Unfit::Host { wanted } => (6, format!("are not {wanted}, where the disks are")),
    };
    let mut counts = std::collections::BTreeMap::new();
    for (_, unfit) in workers {
        *counts.entry(kind(unfit)).or_insert(0_usize) += 1;
    }
    let told = counts
        .into_iter()
        .map(|((_, why), count)| format!("{count} workers {why}."));
    told.collect()
}

fn runs(seen: Seen<'_>, id: JobId, job: &Job) -> Vec<String> {
    let Some(attempt) = job.running() else {
        return Vec::new();
    };
    let worker = convert::worker_name(seen.state, attempt.worker);
    let mut because = vec![format!("It runs on worker {worker} since {}.", attempt.started)];
    if let Some(progress) = seen.presence.progress(id).filter(|progress| !progress.stage.is_empty()) {
        because.push(format!(
            "The worker says: {}, {} of {} bytes.",
            shown(&progress.stage),
            progress.bytes_done,
            progress.bytes_total
        ));
    }
    if !seen.presence.is_present(seen.state, attempt.worker, seen.now_ms) {
        because.push(format!(
            "Worker {worker} is not heard of: when its lease ends, the job is tried again elsewhere."
        ));
    }
    if job.cancel_requested {
        because.push(String::from(
            "It is to end: its worker hears of that with its next beat, or its lease ends.",
        ));
    }
    because
}

fn failed(job: &Job) -> Vec<String> {
    let Some(failure) = job.attempts.last().and_then(|attempt| attempt.failure.as_ref()) else {
        return vec![String::from("It failed.")];
    };
    let mut because = vec![format!("It failed: {}.", shown(&failure.message).trim_end_matches('.'))];
    if !failure.hint.is_empty() {
        because.push(format!("What to do: {}.", shown(&failure.hint).trim_end_matches('.')));
    }
    because.push(match failure.kind {
        FailureKind::Invalid => String::from("Trying again does not help before it is asked for otherwise."),
        kind => format!(
            "It was tried {}; of a failure of kind {} that is enough.",
            times(job.attempts_made),
            kind_text(kind)
        ),
    });
    because
}

fn times(count: u32) -> String {
    match count {
        1 => String::from("once"),
        count => format!("{count} times"),
    }
}

/// Attempts that failed, the newest first; the last of a failed job was told already.
fn attempts(state: &State, job: &Job) -> Vec<String> {
    let told = usize::from(job.state == JobState::Failed);
    let failed = |attempt: &Attempt| {
        let failure = attempt.failure.as_ref()?;
        let ended = attempt.ended?;
        Some(format!(
            "An attempt on worker {} failed at {ended} after {}: {}.",
            convert::worker_name(state, attempt.worker),
            span_in_words(ended.since(attempt.started)),
            shown(&failure.message).trim_end_matches('.')
        ))
    };
    job.attempts.iter().rev().skip(told).filter_map(failed).collect()
}
