//! What workers ask of the leader: work, its renewal, its end.
//!
//! Nothing here decides what counts. A lease is an entry of the log, and so is its end; what a worker says is passed on in its name, and the log
//! refuses what is not its own or not the present one. Two things are kept beside the log, by the leader alone: when a worker was heard of, and how
//! far its jobs are.
//!
//! - `work`: a process registers, waits for work, and renews what it has;
//! - `lease`: what a worker is told with a lease;
//! - `reports`: the end of an attempt, and what was found;
//! - `contents`: what workers read of the log: points, and what a catalogue seals;
//! - `watch`: what concerns all work of a process: the map of the index's slots and its vaults;
//! - `slot_map`: that map as a message;
//! - `words`: from messages to commands.

mod contents;
mod lease;
mod reports;
mod slot_map;
mod watch;
mod words;
mod work;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tresor_proto::ids::{Epoch, JobId, VaultId, WorkerId};
use tresor_proto::tls::{PeerInfo, Role};
use tresor_proto::v1;
use tresor_proto::v1::agent_server::Agent;
use zeroize::Zeroizing;

use super::context::{Services, opened};
use super::refused::Refused;
use crate::lead::placement;
use crate::lead::plans::Plans;
use crate::node::presence::Presence;
use crate::security::ClusterKey;
use crate::state::State;
use crate::state::entry::{Actor, Time};
use crate::state::reply::Refusal;
use crate::state::rows::{Attempt, Job};

/// Chooses work for a worker.
pub trait Placement: Send + Sync + 'static {
    /// The job that `worker` gets now, if there is one for it. Everything else about it is the log's to check.
    fn choose(&self, state: &State, presence: &Presence, worker: WorkerId, now: Time, now_ms: u64) -> Option<JobId>;
}

impl<F> Placement for F
where
    F: Fn(&State, &Presence, WorkerId, Time, u64) -> Option<JobId> + Send + Sync + 'static,
{
    fn choose(&self, state: &State, presence: &Presence, worker: WorkerId, now: Time, now_ms: u64) -> Option<JobId> {
        self(state, presence, worker, now, now_ms)
    }
}

/// Chooses as the leader's placement says, by the policies' windows.
#[derive(Debug, Default)]
pub struct ByPlacement {
    plans: Mutex<Plans>,
}

impl Placement for ByPlacement {
    fn choose(&self, state: &State, presence: &Presence, worker: WorkerId, now: Time, now_ms: u64) -> Option<JobId> {
        // A plan is made as a whole or not at all.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.refresh(state);
        placement::choose(state, presence, &plans, worker, now, now_ms)
    }
}

/// Keys of vaults beside the log: those of the home whose node this is. There they are changed, and what the log has is of when a vault was taken over.
pub trait KeysHere: Send + Sync + 'static {
    /// The platform's key of a vault, if it is here.
    fn vault_key(&self, vault: VaultId) -> Option<Zeroizing<[u8; 32]>>;
}

/// Serves workers.
#[derive(Clone)]
pub struct AgentService {
    services: Services,
    key: ClusterKey,
    keys_here: Option<Arc<dyn KeysHere>>,
    placement: Arc<dyn Placement>,
    /// One choice at a time, until the log has it: or a thousand workers that wake at once would all be given the same job.
    turn: Arc<tokio::sync::Mutex<()>>,
    watches: watch::Watches,
    stopping: CancellationToken,
}

impl std::fmt::Debug for AgentService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentService")
            .field("services", &self.services)
            .finish_non_exhaustive()
    }
}

/// The running attempt of a lease, if it is this worker's.
fn own_attempt(state: &State, worker: WorkerId, job: JobId, epoch: Epoch) -> Result<(&Job, &Attempt), Refused> {
    let row = state.jobs().get(&job).ok_or_else(|| Refused::missing("job", job))?;
    match row.running() {
        Some(attempt) if attempt.epoch == epoch && attempt.worker == worker => Ok((row, attempt)),
        Some(attempt) if attempt.epoch == epoch => Err(denied(format!("worker {worker} does not have this lease"))),
        _ => Err(fenced(format!("job {job} does not run under this lease any more"))),
    }
}

fn fenced(why: String) -> Refused {
    Refusal::Fenced { why }.into()
}

fn denied(why: String) -> Refused {
    Refusal::Denied { why }.into()
}

/// Who calls.
fn worker_of<T>(request: Request<T>) -> Result<(WorkerId, T), Status> {
    let (caller, message) = opened(request)?;
    match caller.actor {
        Actor::Worker(id) => Ok((id, message)),
        other => Err(denied(format!("{other} is no worker")).status("")),
    }
}

impl AgentService {
    /// Serves with `placement` choosing. `key` opens the keys of vaults; calls that wait end when `stopping` does.
    pub fn new(
        services: Services,
        key: ClusterKey,
        placement: Arc<dyn Placement>,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            services,
            key,
            keys_here: None,
            placement,
            turn: Arc::default(),
            watches: watch::Watches::default(),
            stopping,
        }
    }

    /// Asks `keys` for the key of a vault before the log.
    pub fn set_keys_here(&mut self, keys: Option<Arc<dyn KeysHere>>) {
        self.keys_here = keys;
    }

    fn status(&self, refused: &Refused) -> Status {
        self.services.handle.read(|state| refused.status_in(state))
    }

    /// Notes that a worker is there. `clock_ms`: its wall clock minus ours, if it said.
    fn hear(&self, worker: WorkerId, life: [u8; 16], clock_ms: Option<i64>) {
        let now = self.services.clock.monotonic_ms();
        let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
        let clock_ms = clock_ms.or_else(|| presence.heard(worker).map(|heard| heard.clock_ms));
        presence.hear(worker, life, clock_ms.unwrap_or(0), now);
    }

    fn note_catalogue(&self, vault: VaultId, is_whole: bool) {
        let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
        presence.note_catalogue(vault, is_whole);
    }

    /// Notes the certificate of a worker that calls by itself: a call that another coordinator hands on has that one's.
    fn note_certificate<T>(&self, request: &Request<T>) {
        let certificate = PeerInfo::of(request).and_then(PeerInfo::certificate);
        if let Some(certificate) = certificate.filter(|shown| shown.name.role == Role::Worker) {
            let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
            presence.note_certificate(WorkerId(certificate.name.id), certificate.validity.not_after);
        }
    }

    /// Refuses all lives of a worker but the one that registered last.
    fn check_life(&self, worker: WorkerId, life: [u8; 16]) -> Result<(), Refused> {
        self.services.handle.read(|state| {
            let row = state.workers().get(&worker).filter(|row| !row.removed);
            let row = row.ok_or_else(|| Refused::missing("worker", worker))?;
            if row.life == Some(life) {
                return Ok(());
            }
            Err(fenced(format!(
                "another process of worker {} has registered since, or this one has not",
                row.name
            )))
        })
    }
}

impl AgentService {
    fn answer<T>(&self, answer: Result<T, Refused>) -> Result<Response<T>, Status> {
        answer.map(Response::new).map_err(|refused| self.status(&refused))
    }
}

#[tonic::async_trait]
impl Agent for AgentService {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::RegisterResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.enter(worker, message).await)
    }

    async fn next_lease(
        &self,
        request: Request<v1::NextLeaseRequest>,
    ) -> Result<Response<v1::NextLeaseResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        let lease = self.next(worker, message).await;
        self.answer(lease.map(|lease| v1::NextLeaseResponse { lease }))
    }

    async fn beat(&self, request: Request<v1::BeatRequest>) -> Result<Response<v1::BeatResponse>, Status> {
        self.note_certificate(&request);
        let (worker, message) = worker_of(request)?;
        self.answer(self.renew(worker, message).await)
    }

    async fn complete(&self, request: Request<v1::CompleteRequest>) -> Result<Response<v1::CompleteResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        let done = self.done(worker, message).await;
        self.answer(done.map(|()| v1::CompleteResponse {}))
    }

    async fn fail(&self, request: Request<v1::FailRequest>) -> Result<Response<v1::FailResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        let done = self.failed(worker, &message).await;
        self.answer(done.map(|()| v1::FailResponse {}))
    }

    async fn report_log(
        &self,
        request: Request<v1::ReportLogRequest>,
    ) -> Result<Response<v1::ReportLogResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        let done = self.logged(worker, message).await;
        self.answer(done.map(|()| v1::ReportLogResponse {}))
    }

    type CatalogueStream = contents::Pieces<v1::CataloguePiece>;

    async fn catalogue(
        &self,
        request: Request<v1::CatalogueRequest>,
    ) -> Result<Response<Self::CatalogueStream>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.catalogue_of(worker, message).await)
    }

    type PointsStream = contents::Pieces<v1::AgentPoints>;

    async fn points(&self, request: Request<v1::AgentPointsRequest>) -> Result<Response<Self::PointsStream>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.points_of(worker, message).await)
    }

    async fn adopt_points(
        &self,
        request: Request<v1::AdoptPointsRequest>,
    ) -> Result<Response<v1::AdoptPointsResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        let adopted = self.adopt(worker, message).await;
        self.answer(adopted.map(|adopted| v1::AdoptPointsResponse { adopted }))
    }

    type WatchStream = contents::Pieces<v1::WatchUpdate>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.watch_all(worker, message).await)
    }

    async fn index_vaults(
        &self,
        request: Request<v1::IndexVaultsRequest>,
    ) -> Result<Response<v1::IndexVaultsResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.vaults_of(worker, message).await)
    }

    async fn lease_of(&self, request: Request<v1::LeaseOfRequest>) -> Result<Response<v1::LeaseOfResponse>, Status> {
        let (worker, message) = worker_of(request)?;
        self.answer(self.lease_of_another(worker, message).await)
    }
}
