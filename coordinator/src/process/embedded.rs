//! A coordinator and a worker in one process, on one machine: no network, no certificate between the two, one user.

use std::collections::BTreeSet;
use std::time::Duration;

use tresor_proto::ids::{JobId, WorkerId};

use crate::lead::pass;
use crate::node::{Handle, NodeError};
use crate::state::command::{Command, Work, WorkerSpec};
use crate::state::entry::Actor;
use crate::state::reply::Reply;
use crate::state::rows::JobState;

/// How long a member that is alone may take to lead and to apply what it has.
const PATIENCE: Duration = Duration::from_secs(60);

/// The number of the worker beside this coordinator; made, under `name`, when there is none. A host that is renamed, as a container is at each start,
/// keeps the worker that it had: items name it. Waits until the coordinator leads.
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
        workers.find(|(_, worker)| !worker.removed).map(|(id, _)| *id)
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

/// Ends restores and verifies that an earlier process left: what a person wanted then is not what they want now, and a restore writes over disks.
/// Backups are left: who asks for one finds it. So are the `awaited` ones, which this process has asked for itself while another was the node.
///
/// # Errors
/// [`NodeError`].
pub async fn end_leftovers(handle: &Handle, awaited: &BTreeSet<JobId>) -> Result<(), NodeError> {
    let left: Vec<JobId> = handle.read(|state| {
        let is_left = |id: &JobId| {
            let work = state.jobs().get(id).map(|job| &job.spec.work);
            !awaited.contains(id) && matches!(work, Some(Work::Restore { .. } | Work::Verify { .. }))
        };
        state.open_jobs().filter(is_left).collect()
    });
    for job in left {
        match handle.change(Actor::Cluster, None, Command::Cancel { job }).await {
            // It has just ended by itself.
            Ok(_) | Err(NodeError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Begins the catalogues that are due: a coordinator that stands for one command has mostly ended before it looks for them by itself.
///
/// # Errors
/// [`NodeError`].
pub async fn begin_catalogues(handle: &Handle) -> Result<(), NodeError> {
    for command in handle.read(|state| pass::catalogues_due(state, state.now())) {
        match handle.change(Actor::Cluster, None, command).await {
            // Its own look was faster.
            Ok(_) | Err(NodeError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Jobs that run, or could at once.
pub fn jobs_under_way(handle: &Handle) -> UnderWay {
    handle.read(|state| {
        let mut under_way = UnderWay::default();
        for job in state.open_jobs().filter_map(|id| state.jobs().get(&id)) {
            if matches!(job.spec.work, Work::Catalogue) {
                under_way.catalogues += 1;
            }
            match job.state {
                JobState::Queued { not_before } if not_before <= state.now() => under_way.due += 1,
                JobState::Queued { .. } => {}
                _ => under_way.running += 1,
            }
        }
        under_way
    })
}

/// See [`jobs_under_way`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnderWay {
    /// Jobs that a worker has.
    pub running: usize,
    /// Jobs that wait for nothing but a worker.
    pub due: usize,
    /// How many of both put a catalogue, which nobody asked for.
    pub catalogues: usize,
}
