//! What workers logged of a job's attempts. Logs are on the disk alone; where there is none, what is known instead is said.

use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::{attempt_log, v1};

use crate::node::presence::LastHeard;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::convert;
use crate::rpc::refused::Refused;
use crate::state::State;
use crate::state::command::FailureKind;
use crate::state::entry::Time;
use crate::state::logs;
use crate::state::rows::Attempt;

/// For how long after its end a log is on its way, milliseconds: workers give up sooner.
const ON_ITS_WAY_MS: i64 = 15_000;

/// An attempt as it is in the state, with what is needed to say why it has no log.
struct Found {
    epoch: Epoch,
    message: v1::Attempt,
    has_log: bool,
    why_none: String,
}

impl Services {
    /// Logs of all attempts of a job that are remembered.
    pub(crate) async fn get_job_log(&self, _: &Caller, message: v1::GetJobLogRequest) -> Result<v1::JobLog, Refused> {
        let id = JobId(message.id);
        self.handle.barrier().await?;
        let presence = self.presence();
        let now_ms = self.clock.monotonic_ms();
        let found = self.handle.read(|state| {
            let job = state.jobs().get(&id).ok_or_else(|| Refused::missing("job", id))?;
            let now = self.now(state);
            let first = usize::try_from(job.attempts_made)
                .unwrap_or(usize::MAX)
                .saturating_sub(job.attempts.len());
            let attempts = job.attempts.iter().enumerate().map(|(place, attempt)| {
                let heard = presence.last_heard(id, attempt.epoch);
                let heard = heard.map(|heard| (now.plus(-ago(now_ms, &heard)), heard));
                Found {
                    epoch: attempt.epoch,
                    message: convert::attempt_message(state, first + place + 1, attempt),
                    has_log: state.has_log(attempt.epoch),
                    why_none: why_none(state, attempt, heard, now),
                }
            });
            Ok::<_, Refused>(attempts.collect::<Vec<_>>())
        })?;
        let with_log = found.iter().filter(|attempt| attempt.has_log);
        let places = with_log.map(|attempt| logs::place(attempt.epoch)).collect::<Vec<_>>();
        // They may be gone by now, as the oldest.
        let mut rows = self.handle.rows(places).await?.into_iter();
        let attempts = found.into_iter().map(|found| {
            let row = if found.has_log { rows.next().flatten() } else { None };
            let read = row.map(|row| {
                let packed = logs::log_of(found.epoch, &row).map_err(|error| error.to_string())?;
                attempt_log::decode(&packed).map_err(|error| format!("what is kept {error}"))
            });
            let (log, why_none) = match read {
                Some(Ok(log)) => (Some(log), String::new()),
                Some(Err(why)) => (None, format!("the log cannot be read: {why}")),
                None => (None, found.why_none),
            };
            v1::JobAttemptLog {
                attempt: Some(found.message),
                log,
                why_none,
            }
        });
        Ok(v1::JobLog {
            id: id.0,
            attempts: attempts.collect(),
        })
    }
}

/// How long ago something was heard, milliseconds.
fn ago(now_ms: u64, heard: &LastHeard) -> i64 {
    i64::try_from(now_ms.saturating_sub(heard.at)).unwrap_or(i64::MAX)
}

/// Why there is no log of an attempt, and what is known of it beside.
fn why_none(state: &State, attempt: &Attempt, heard: Option<(Time, LastHeard)>, now: Time) -> String {
    let last = match heard {
        Some((at, heard)) => {
            let progress = &heard.progress;
            let done = match progress.bytes_total {
                0 => String::new(),
                total => format!(", {} of {total} bytes done", progress.bytes_done),
            };
            format!("; it was last heard of at {at}: {}{done}", progress.stage)
        }
        None => String::new(),
    };
    let worker = convert::worker_name(state, attempt.worker);
    let Some(ended) = attempt.ended else {
        return format!("it runs, and worker {worker} reports its log when it has ended{last}");
    };
    // A log that came goes only with those that are older, once all of them take too much.
    let is_old = state.oldest_log().is_some_and(|oldest| attempt.epoch < oldest);
    let (count, bytes) = state.logs_count();
    let is_full = bytes + logs::LOG_BYTES_MAX as u64 > logs::LOGS_BYTES_MAX || count >= logs::LOGS_MAX;
    if is_old && is_full {
        return format!(
            "its log is gone: all logs take at most {} MiB, and the oldest go first",
            logs::LOGS_BYTES_MAX >> 20
        );
    }
    let was_lost = attempt
        .failure
        .as_ref()
        .is_some_and(|failure| failure.kind == FailureKind::Lost);
    if was_lost {
        return format!("worker {worker} was not heard of any more, and did not report its log{last}");
    }
    if now.since(ended) < ON_ITS_WAY_MS {
        return format!("worker {worker} has not reported its log yet");
    }
    format!("worker {worker} did not report its log{last}")
}
