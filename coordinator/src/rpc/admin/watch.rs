//! A job, watched: as it is now, whenever it changes, and once a second how far it is, until it has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;
use tresor_proto::ids::JobId;
use tresor_proto::v1;

use crate::node::{Leadership, NodeError};
use crate::rpc::context::Services;
use crate::rpc::refused::Refused;

/// Watchers of one coordinator at a time. Each looks at one job ten times a second at most, and costs some kilobytes.
const WATCHES_MAX: usize = 1000;
/// How often progress is looked at: it comes with beats, every few seconds.
const TICK: Duration = Duration::from_secs(1);
/// How long a look follows another at least: entries can come by hundreds in a second, and all watchers look at each.
const GATHER: Duration = Duration::from_millis(100);

/// The stream of a watch.
pub type JobStream = Pin<Box<dyn Stream<Item = Result<v1::Job, Status>> + Send>>;

/// Counts watchers.
#[derive(Debug, Clone)]
pub struct Watches(Arc<Semaphore>);

impl Default for Watches {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WATCHES_MAX)))
    }
}

struct Watching {
    services: Services,
    job: JobId,
    sent: v1::Job,
    applied: watch::Receiver<u64>,
    leadership: watch::Receiver<Leadership>,
    /// When it may look again.
    rested: Instant,
    _permit: OwnedSemaphorePermit,
}

enum Next {
    First(Watching),
    Later(Watching),
    Ended,
}

/// Watches a job. Nothing runs for it but when the caller takes what comes; a caller that is slow misses what was between.
///
/// # Errors
/// [`Refused::Missing`], [`Refused::Busy`], [`Refused::Node`].
pub(super) async fn watch_job(
    services: &Services,
    watches: &Watches,
    message: v1::WatchJobRequest,
) -> Result<JobStream, Refused> {
    let permit = Arc::clone(&watches.0).try_acquire_owned().map_err(|_| Refused::Busy {
        what: "too many jobs are being watched",
    })?;
    services.handle.barrier().await?;
    let job = JobId(message.id);
    // Before the look: whatever is applied after it is noticed.
    let mut applied = services.handle.applied();
    applied.mark_unchanged();
    let watching = Watching {
        sent: services.job_now(job)?,
        services: services.clone(),
        job,
        applied,
        leadership: services.handle.leadership(),
        rested: Instant::now(),
        _permit: permit,
    };
    Ok(Box::pin(stream::unfold(Next::First(watching), step)))
}

async fn step(next: Next) -> Option<(Result<v1::Job, Status>, Next)> {
    let (mut watching, is_first) = match next {
        Next::First(watching) => (watching, true),
        Next::Later(watching) => (watching, false),
        Next::Ended => return None,
    };
    if !is_first && let Err(refused) = watching.change().await {
        let status = watching.services.handle.read(|state| refused.status_in(state));
        return Some((Err(status), Next::Ended));
    }
    let job = watching.sent.clone();
    let next = match is_final(&job) {
        true => Next::Ended,
        false => Next::Later(watching),
    };
    Some((Ok(job), next))
}

fn is_final(job: &v1::Job) -> bool {
    matches!(job.state.as_str(), "done" | "failed" | "cancelled")
}

impl Watching {
    /// Waits until the job is another than was sent.
    async fn change(&mut self) -> Result<(), Refused> {
        loop {
            tokio::select! {
                changed = self.applied.changed() => {
                    changed.map_err(|_| NodeError::Stopping)?;
                    // At once, if the last look is long ago: the end of a job is waited for.
                    tokio::time::sleep_until(self.rested).await;
                    self.rested = Instant::now() + GATHER;
                    self.applied.mark_unchanged();
                }
                () = tokio::time::sleep(TICK) => {}
            }
            // Progress is known to the leader alone: the caller is to watch there.
            let Leadership { leader, is_me, .. } = *self.leadership.borrow();
            if !is_me {
                return Err(NodeError::NotLeader { leader }.into());
            }
            let job = self.services.job_now(self.job)?;
            if job != self.sent {
                self.sent = job;
                return Ok(());
            }
        }
    }
}
