//! What concerns all work of a process: the map of the index's slots and limits of use, told whenever they change, and the vaults that slots are kept of.
//!
//! Every coordinator tells it from what it has applied, so that a leader of a thousand workers does not have to. Nothing runs for a watch but when the
//! caller takes what comes, and nothing is held while it waits. A caller that vanished is noticed by the pings of its connection, and a coordinator that
//! vanished by those of the caller.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tonic::Status;
use tresor_proto::ids::WorkerId;
use tresor_proto::v1;

use super::super::refused::Refused;
use super::contents::Pieces;
use super::{AgentService, denied, slot_map, words};
use crate::lead::limits::{LimitPlans, is_host_of, running};
use crate::node::{Leadership, NodeError};
use crate::state::command::Command;
use crate::state::entry::{Actor, IdempotencyKey, Time};
use crate::state::limits::{LimitRates, LimitSubject};
use crate::state::rows::{Marks, VaultState};
use crate::state::{NODES_MAX, State};

/// Watches of one coordinator at a time: every worker that there can be, and again while its earlier connection is not known to be dead. Each costs some
/// kilobytes.
const WATCHES_MAX: usize = 2 * NODES_MAX as usize;
/// How long changes are gathered before a look: entries come by hundreds in a second, and all watchers look. Far less than the second in which a new map is
/// to arrive.
const GATHER: Duration = Duration::from_millis(200);
/// How long a watch goes without a look: whether somebody leads is no entry of the log, and hours of limits begin and end by themselves.
const TICK: Duration = Duration::from_secs(1);
/// How long a coordinator that knows of no leader is believed: two elections. It may be cut off, and others grant what it does not hear of.
const LEADERLESS: Duration = Duration::from_secs(10);

/// What all watches of a coordinator share.
#[derive(Debug, Clone)]
pub(super) struct Watches {
    permits: Arc<Semaphore>,
    /// The map that was told last. An older reading of the same map is as good: it says of fewer sessions that they are over.
    told: Arc<Mutex<Option<Arc<v1::SlotMap>>>>,
    limits: Arc<Mutex<InForce>>,
    /// [`LEADERLESS`]; tests wait less.
    pub(super) leaderless: Duration,
}

impl Default for Watches {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(WATCHES_MAX)),
            told: Arc::default(),
            limits: Arc::default(),
            leaderless: LEADERLESS,
        }
    }
}

impl Watches {
    /// The present map; encoded once for all that watch.
    fn map(&self, state: &State) -> v1::SlotMap {
        let marks = state.marks();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.as_ref().filter(|map| Part::of_map(map) == Part::of_marks(marks));
        let map = known.map_or_else(|| Arc::new(slot_map::message(state)), Arc::clone);
        *told = Some(Arc::clone(&map));
        drop(told);
        v1::SlotMap::clone(&map)
    }
}

/// What limits say at a moment: worked out once for all that watch.
#[derive(Debug, Default)]
struct InForce {
    plans: LimitPlans,
    /// The entry and the second that it is of.
    of: Option<(u64, i64)>,
    rates: Arc<Vec<(LimitSubject, LimitRates)>>,
    jobs: u64,
}

impl Watches {
    /// What limits say now, as far as they bind a worker.
    fn limits(&self, state: &State, worker: WorkerId, now: Time) -> v1::Limits {
        let mut in_force = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let of = (state.marks().applied, now.0.div_euclid(1000));
        if in_force.of != Some(of) {
            in_force.of = Some(of);
            in_force.plans.refresh(state);
            let rates = in_force.plans.all(now.timestamp());
            in_force.rates = Arc::new(rates.map(|(subject, rates)| (subject.clone(), rates)).collect());
            in_force.jobs = jobs_number(state, &in_force.rates);
        }
        let (rates, jobs) = (Arc::clone(&in_force.rates), in_force.jobs);
        drop(in_force);
        let row = state.workers().get(&worker);
        let binds = |subject: &LimitSubject| match subject {
            LimitSubject::Store(_) => true,
            LimitSubject::Worker(id) => *id == worker,
            LimitSubject::Host(_) => row.is_some_and(|row| is_host_of(subject, row)),
            LimitSubject::Job(id) => {
                let attempt = state.jobs().get(id).and_then(|job| job.running());
                attempt.is_some_and(|attempt| attempt.worker == worker)
            }
        };
        let limits = rates.iter().filter(|(subject, _)| binds(subject));
        v1::Limits {
            limits: limits.map(|(subject, rates)| limit_message(subject, *rates)).collect(),
            jobs,
        }
    }
}

fn limit_message(subject: &LimitSubject, rates: LimitRates) -> v1::Limit {
    v1::Limit {
        of: subject.to_string(),
        upload: rates.upload,
        download: rates.download,
        requests: rates.requests,
        concurrency: rates.concurrency.filter(|_| matches!(subject, LimitSubject::Job(_))),
    }
}

/// Another number for other jobs under limits that workers share.
fn jobs_number(state: &State, limits: &[(LimitSubject, LimitRates)]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for (subject, _) in limits {
        if !matches!(subject, LimitSubject::Store(_) | LimitSubject::Host(_)) {
            continue;
        }
        hasher.update(subject.to_string().as_bytes());
        for (worker, jobs) in running(state, subject) {
            hasher.update(&worker.0.to_le_bytes());
            hasher.update(&jobs.to_le_bytes());
        }
    }
    let hash = hasher.finalize();
    u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// What tells one map from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    version: u64,
    sweep_epoch: u64,
}

impl Part {
    fn of_marks(marks: &Marks) -> Self {
        Self {
            version: marks.slot_map,
            sweep_epoch: marks.sweep_epoch,
        }
    }

    fn of_map(map: &v1::SlotMap) -> Self {
        Self {
            version: map.version,
            sweep_epoch: map.sweep_epoch,
        }
    }
}

struct Watching {
    service: AgentService,
    worker: WorkerId,
    life: [u8; 16],
    /// What was told last.
    told: Option<(Part, u64, u64, v1::Limits)>,
    applied: watch::Receiver<u64>,
    leadership: watch::Receiver<Leadership>,
    leaderless_since: Option<Instant>,
    _permit: OwnedSemaphorePermit,
}

impl AgentService {
    /// Watches for the last life of a worker.
    pub(super) async fn watch_all(
        &self,
        worker: WorkerId,
        request: v1::WatchRequest,
    ) -> Result<Pieces<v1::WatchUpdate>, Refused> {
        let life = words::life(&request.life)?;
        let permits = Arc::clone(&self.watches.permits);
        let permit = permits.try_acquire_owned().map_err(|_| Refused::Busy {
            what: "too many workers are watching",
        })?;
        // This coordinator may not have applied the registration yet.
        self.services.handle.barrier().await?;
        self.check_life(worker, life)?;
        let mut applied = self.services.handle.applied();
        applied.mark_unchanged();
        let watching = Watching {
            service: self.clone(),
            worker,
            life,
            told: None,
            applied,
            leadership: self.services.handle.leadership(),
            leaderless_since: None,
            _permit: permit,
        };
        Ok(Box::pin(stream::unfold(Some(watching), step)))
    }

    /// The vaults that are claimed, with their keys, for who keeps slots of the index. That a process got them stands in the audit trail once for its life:
    /// it asks again with every change, and the keys are the same.
    pub(super) async fn vaults_of(
        &self,
        worker: WorkerId,
        request: v1::IndexVaultsRequest,
    ) -> Result<v1::IndexVaultsResponse, Refused> {
        let life = words::life(&request.life)?;
        let handle = &self.services.handle;
        handle.barrier().await?;
        self.check_life(worker, life)?;
        let is_server = |state: &State| {
            let row = state.workers().get(&worker);
            row.is_some_and(|row| !row.facts.serves.is_empty())
        };
        if !handle.read(is_server) {
            return Err(denied(format!("worker {worker} answers for no slots of the index")));
        }
        let note = Command::Note {
            action: String::from("index keys"),
            object: format!("given to worker {worker}"),
        };
        handle
            .change(Actor::Worker(worker), Some(note_key(worker, life)), note)
            .await?;
        let rows: Vec<_> = handle.read(|state| {
            // Who has no slot keeps nothing of any vault; who does not reach a store can make nothing of its key.
            let has_slots = state.slots().values().any(|slot| slot.worker == worker);
            let stores = state.workers().get(&worker).map_or(&[][..], |row| &row.facts.stores);
            let reaches = |url: &str| stores.is_empty() || stores.iter().any(|prefix| url.starts_with(prefix));
            let ready = |(id, row): (&_, &crate::state::rows::Vault)| match row.state {
                VaultState::Ready(claim) if has_slots && reaches(&row.spec.url) => Some((*id, row.spec.clone(), claim)),
                _ => None,
            };
            state.vaults().iter().filter_map(ready).collect()
        });
        let vaults = rows.into_iter().map(|(id, spec, claim)| {
            Ok(v1::LeaseVault {
                id: id.0.to_vec().into(),
                key: self.unwrap(id, &spec.key)?,
                name: spec.name,
                url: spec.url,
                region: spec.region,
                profile: spec.profile,
                claim: claim.n,
                cluster: claim.cluster,
                header: claim.header.to_vec().into(),
            })
        });
        Ok(v1::IndexVaultsResponse {
            vaults: vaults.collect::<Result<_, Refused>>()?,
        })
    }
}

/// Workers that were taken out of the cluster and still have certificates, or may.
fn removed(state: &State) -> v1::RemovedWorkers {
    let removed = state.workers().iter().filter(|(_, row)| row.removed);
    v1::RemovedWorkers {
        workers: removed.map(|(id, _)| id.0).collect(),
    }
}

/// The key under which it is noted that a process got the keys: the same for the same life.
fn note_key(worker: WorkerId, life: [u8; 16]) -> IdempotencyKey {
    let mut hasher = blake3::Hasher::new_derive_key("tresor control v1 keys given for the index");
    hasher.update(&worker.0.to_le_bytes());
    hasher.update(&life);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes")
}

async fn step(watching: Option<Watching>) -> Option<(Result<v1::WatchUpdate, Status>, Option<Watching>)> {
    let mut watching = watching?;
    match watching.next().await {
        Ok(update) => Some((Ok(update), Some(watching))),
        Err(refused) => {
            let status = watching.service.status(&refused);
            Some((Err(status), None))
        }
    }
}

impl Watching {
    /// What is new, as soon as there is something.
    async fn next(&mut self) -> Result<v1::WatchUpdate, Refused> {
        loop {
            if self.told.is_some() {
                self.rest().await?;
            }
            self.service.check_life(self.worker, self.life)?;
            if let Some(update) = self.look() {
                return Ok(update);
            }
        }
    }

    fn look(&mut self) -> Option<v1::WatchUpdate> {
        let told = self.told.clone();
        let watches = &self.service.watches;
        // One look, so that map and sessions are of one moment.
        let (now, update) = self.service.services.handle.read(|state| {
            let now = (
                Part::of_marks(state.marks()),
                state.marks().vaults,
                state.marks().removals,
                watches.limits(state, self.worker, self.service.services.now(state)),
            );
            if told.as_ref() == Some(&now) {
                return (now, None);
            }
            let told = told.as_ref();
            let is_same_map = told.is_some_and(|(part, ..)| *part == now.0);
            let update = v1::WatchUpdate {
                slots: (!is_same_map).then(|| watches.map(state)),
                vaults: now.1,
                removed: (told.map(|told| told.2) != Some(now.2)).then(|| removed(state)),
                limits: (told.map(|told| &told.3) != Some(&now.3)).then(|| now.3.clone()),
            };
            (now, Some(update))
        });
        self.told = Some(now);
        update
    }

    /// Waits until there may be something new.
    async fn rest(&mut self) -> Result<(), Refused> {
        let stopping = &self.service.stopping;
        tokio::select! {
            changed = self.applied.changed() => {
                changed.map_err(|_| NodeError::Stopping)?;
                tokio::time::sleep(GATHER).await;
                self.applied.mark_unchanged();
            }
            () = stopping.cancelled() => return Err(NodeError::Stopping.into()),
            () = tokio::time::sleep(TICK) => {}
        }
        if self.leadership.borrow().leader.is_some() {
            self.leaderless_since = None;
            return Ok(());
        }
        let since = *self.leaderless_since.get_or_insert_with(Instant::now);
        if since.elapsed() < self.service.watches.leaderless {
            return Ok(());
        }
        Err(NodeError::NotLeader { leader: None }.into())
    }
}
