//! When a failed attempt is tried again.

use tresor_proto::ids::JobId;

use crate::schedule;
use crate::state::State;
use crate::state::command::FailureKind;
use crate::state::entry::Time;

/// When the job is tried again if its running attempt fails now; none: it has failed for good.
///
/// The job's number is the seed, so that a new leader says the same.
pub fn retry_at(state: &State, job: JobId, kind: FailureKind, now: Time) -> Option<Time> {
    let made = state.jobs().get(&job)?.attempts_made;
    schedule::retry_at(made, now.timestamp(), kind, &job.0.to_be_bytes()).map(|retry| retry.at.into())
}
