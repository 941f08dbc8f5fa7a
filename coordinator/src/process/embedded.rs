//! A coordinator and a worker in one process, on one machine: no network, no certificate between the two, one user.

use std::time::Duration;

use tresor_proto::ids::WorkerId;

use crate::node::{Handle, NodeError};
use crate::state::command::{Command, WorkerSpec};
use crate::state::entry::Actor;
use crate::state::reply::Reply;

/// How long a member that is alone may take to lead and to apply what it has.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of the worker beside this coordinator, which has the host's name; made when there is none. Waits until the coordinator leads.
///
/// # Errors
/// [`NodeError`]: it did not lead in time, or there are too many workers.
pub async fn enlist(handle: &Handle, name: &str) -> Result<WorkerId, NodeError> {
    let mut leadership = handle.leadership();
    let leads = tokio::time::timeout(PATIENCE, leadership.wait_for(|leadership| leadership.is_me));
    if !matches!(leads.await, Ok(Ok(_))) {
        return Err(NodeError::NoMajority);
    }
    // What earlier processes left is applied when this returns.
    handle.barrier().await?;
    let known = handle.read(|state| {
        let mut workers = state.workers().iter();
        workers
            .find(|(_, worker)| worker.name == name && !worker.removed)
            .map(|(id, _)| *id)
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let spec = WorkerSpec {
        name: name.to_owned(),
        token: None,
    };
    let applied = handle.change(Actor::Founder, None, Command::AddWorker(spec)).await?;
    match applied.reply {
        Reply::Made(number) => Ok(WorkerId(number)),
        reply => unreachable!("a worker that was added is {reply:?}"),
    }
}

/// Whether jobs wait or run that a worker may still do: who stops now leaves them for the next process.
pub fn has_open_jobs(handle: &Handle) -> bool {
    handle.read(|state| state.open_jobs().next().is_some())
}
