//! A worker's process registers, waits for work, and renews what it has.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;
use tresor_proto::ids::{Epoch, JobId, VaultId, WorkerId};
use tresor_proto::v1;

use super::super::convert;
use super::super::refused::Refused;
use super::{AgentService, denied, fenced, lease, words};
use crate::lead::placement;
use crate::node::NodeError;
use crate::node::presence::{BEAT_MS, LEASE_MS, SaidLease};
use crate::security::Purpose;
use crate::state::command::Command;
use crate::state::entry::Actor;
use crate::state::reply::Reply;

/// How long a call waits for work at most: less than what stands between the two may take a silent connection for dead.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long a waiting call rests between two looks: nearly every entry of the log wakes it, and a thousand workers wait; a look costs some microseconds.
const REST: Duration = Duration::from_millis(100);
/// How long it rests first, and then twice as long each time: work that comes right after the call, as that of a command which is a node for a moment, is
/// not to wait.
const REST_FIRST: Duration = Duration::from_millis(2);
/// How long a waiting call goes without a look: time alone makes jobs due and opens windows.
const TICK: Duration = Duration::from_secs(2);

impl AgentService {
    pub(super) async fn enter(
        &self,
        worker: WorkerId,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, Refused> {
        let life = words::life(&request.life)?;
        let kept_life = words::kept_life(&request.kept_life)?;
        let facts = words::facts(request)?;
        let command = Command::Register {
            worker,
            life,
            facts,
            kept_life,
        };
        self.services
            .handle
            .change(Actor::Worker(worker), None, command)
            .await?;
        self.hear(worker, life, None);
        let (name, coordinators) = self.services.handle.read(|state| {
            let name = state.workers().get(&worker).map(|row| row.name.clone());
            (name, convert::coordinators(state))
        });
        Ok(v1::RegisterResponse {
            name: name.unwrap_or_default(),
            lease_ms: u32::try_from(LEASE_MS).expect("half a minute"),
            beat_ms: u32::try_from(BEAT_MS).expect("less than a lease"),
            coordinators,
        })
    }

    /// A lease for a worker, as soon as there is work for it; none when `wait` is over.
    pub(super) async fn next(
        &self,
        worker: WorkerId,
        request: v1::NextLeaseRequest,
    ) -> Result<Option<v1::Lease>, Refused> {
        let life = words::life(&request.life)?;
        let until = Instant::now() + Duration::from_millis(request.wait_ms.into()).min(WAIT_MAX);
        // A leader that has just begun may not have applied the registration yet.
        self.services.handle.barrier().await?;
        let mut applied = self.services.handle.applied();
        let mut rest = REST_FIRST;
        loop {
            applied.mark_unchanged();
            self.check_lead()?;
            self.check_life(worker, life)?;
            self.hear(worker, life, None);
            if request.free > 0
                && let Some(lease) = self.lease(worker, life).await?
            {
                return Ok(Some(lease));
            }
            let rested = Instant::now() + rest;
            rest = (rest * 2).min(REST);
            let change = async {
                let _ = tokio::time::timeout(TICK, applied.changed()).await;
                tokio::time::sleep_until(rested).await;
            };
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(None),
                () = self.stopping.cancelled() => return Err(NodeError::Stopping.into()),
                () = change => {}
            }
        }
    }

    fn check_lead(&self) -> Result<(), Refused> {
        let lead = *self.services.handle.leadership().borrow();
        if lead.is_me {
            Ok(())
        } else {
            Err(NodeError::NotLeader { leader: lead.leader }.into())
        }
    }

    /// Gives the worker a job, if there is one for it now.
    async fn lease(&self, worker: WorkerId, life: [u8; 16]) -> Result<Option<v1::Lease>, Refused> {
        let services = &self.services;
        let turn = self.turn.lock().await;
        let presence = services.presence();
        let now_ms = services.clock.monotonic_ms();
        let chosen = services.handle.read(|state| {
            let now = services.now(state);
            self.placement.choose(state, &presence, worker, now, now_ms)
        });
        let Some(job) = chosen else {
            return Ok(None);
        };
        let command = Command::Lease { job, worker, life };
        let leased = services.handle.change(Actor::Worker(worker), None, command).await;
        drop(turn);
        match leased {
            Ok(applied) => match applied.reply {
                Reply::Leased { epoch, .. } => self.tell(worker, job, epoch),
                _ => Err(Refused::Bug {
                    why: "a lease was answered with something else",
                }),
            },
            Err(NodeError::Refused(refusal)) => {
                tracing::debug!(%job, %worker, %refusal, "a lease was refused");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What the worker is told of its new lease.
    fn tell(&self, worker: WorkerId, job: JobId, epoch: Epoch) -> Result<Option<v1::Lease>, Refused> {
        let presence = self.services.presence();
        let now_ms = self.services.clock.monotonic_ms();
        let found = self.services.handle.read(|state| {
            let mut message = lease::message(state, job, epoch)?;
            if let Some(v1::lease::Work::Backup(work)) = &mut message.work {
                let helpers = placement::helpers(state, &presence, worker, job, now_ms);
                let told = |id: WorkerId| {
                    let row = state.workers().get(&id)?;
                    Some(v1::Helper {
                        worker: id.0,
                        name: row.name.clone(),
                        serves: row.facts.serves.clone(),
                    })
                };
                work.helpers = helpers.into_iter().filter_map(told).collect();
            }
            let vault = state.jobs().get(&job).map(|job| job.spec.vault);
            let vault = vault.ok_or(lease::LeaseError::Ended)?;
            let wrapped = state.vaults().get(&vault).map(|row| row.spec.key.clone());
            Ok((message, vault, wrapped.unwrap_or_default()))
        });
        let (mut message, vault, wrapped) = match found {
            Ok(found) => found,
            Err(lease::LeaseError::Ended) => return Ok(None),
            Err(error @ lease::LeaseError::Missing(_)) => {
                tracing::error!(%job, %epoch, %error, "a lease cannot be told");
                return Err(Refused::Bug {
                    why: "what a lease is about is not in the state",
                });
            }
        };
        let (cluster, name) = self.services.handle.read(|state| {
            let cluster = state.cluster().map(|cluster| cluster.id).unwrap_or_default();
            (cluster, convert::worker_name(state, worker))
        });
        let (span, here) = self.services.traces.leased(&cluster, job, epoch, &name);
        let _entered = span.entered();
        message.traceparent = here.to_string();
        tracing::debug!(attempt = message.attempt, "a lease is given");
        let secret = self.unwrap(vault, &wrapped)?;
        if let Some(vault) = &mut message.vault {
            vault.key = secret;
        }
        Ok(Some(message))
    }

    /// What a backup is about that another worker has the lease of.
    pub(super) async fn lease_of_another(
        &self,
        worker: WorkerId,
        request: v1::LeaseOfRequest,
    ) -> Result<v1::LeaseOfResponse, Refused> {
        let life = words::life(&request.life)?;
        let (job_id, epoch) = words::lease_id(request.lease.as_ref())?;
        let holder = WorkerId(request.worker);
        self.services.handle.barrier().await?;
        self.check_life(worker, life)?;
        self.services.handle.read(|state| {
            let over = || fenced(format!("job {job_id} does not run under this lease of worker {holder}"));
            let Some(job) = state.jobs().get(&job_id) else {
                return Err(over());
            };
            if job
                .running()
                .is_none_or(|attempt| attempt.epoch != epoch || attempt.worker != holder)
            {
                return Err(over());
            }
            let reaches = state
                .workers()
                .get(&worker)
                .is_some_and(|row| !row.facts.serves.is_empty() && placement::reaches(state, row, job));
            if !reaches {
                return Err(denied(format!(
                    "worker {worker} does not reach what job {job_id} is about"
                )));
            }
            let message = lease::message(state, job_id, epoch).map_err(|_| over())?;
            let (Some(vault), Some(v1::lease::Work::Backup(work))) = (message.vault, message.work) else {
                return Err(denied(format!("job {job_id} is no backup")));
            };
            Ok(v1::LeaseOfResponse {
                session: message.session,
                start_epoch: message.start_epoch,
                vault: vault.id,
                claim: vault.claim,
                cluster: vault.cluster,
                work: Some(work),
            })
        })
    }

    /// The platform's key of a vault. The copy in the message is dropped with it, and not wiped: the wire's buffers are not ours.
    pub(super) fn unwrap(&self, vault: VaultId, wrapped: &[u8]) -> Result<bytes::Bytes, Refused> {
        if let Some(secret) = self.keys_here.as_ref().and_then(|keys| keys.vault_key(vault)) {
            return Ok(bytes::Bytes::copy_from_slice(secret.as_ref()));
        }
        let trouble = |why: String| Refused::Secrets {
            doing: format!("open the key of vault {vault}"),
            why,
        };
        let wrapped = postcard::from_bytes(wrapped).map_err(|_| trouble(String::from("it is damaged")))?;
        let secret = self
            .key
            .unwrap(Purpose::VaultKey(vault), &wrapped)
            .map_err(|error| trouble(error.to_string()))?;
        Ok(bytes::Bytes::copy_from_slice(&secret))
    }

    pub(super) async fn renew(&self, worker: WorkerId, request: v1::BeatRequest) -> Result<v1::BeatResponse, Refused> {
        let life = words::life(&request.life)?;
        let said: Vec<SaidLease> = words::said(request.leases)?;
        // Who does not lead any more must not renew, and who leads since a moment must have applied what was granted before.
        self.services.handle.barrier().await?;
        self.check_life(worker, life)?;
        let wall = self.services.clock.wall();
        self.hear(worker, life, Some(request.wall_ms.saturating_sub(wall.0)));
        let now = self.services.clock.monotonic_ms();
        // In the order of the node's task: the state first.
        let (answer, shares, drained, coordinators) = self.services.handle.read(|state| {
            let drained = state.workers().get(&worker).is_some_and(|row| row.drained);
            let mut presence = self.services.presence.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = presence.beat(state, worker, life, &said, now);
            let shares = presence.share(state, worker, life, &words::shares(state, &request.shares), now);
            (answer, shares, drained, convert::coordinators(state))
        });
        let ids = |leases: Vec<(JobId, Epoch)>| {
            let id = |(job, epoch): (JobId, Epoch)| v1::LeaseId {
                job: job.0,
                epoch: epoch.0,
            };
            leases.into_iter().map(id).collect()
        };
        Ok(v1::BeatResponse {
            held: ids(answer.held),
            cancelled: ids(answer.cancelled),
            drained,
            coordinators,
            shares_pending: shares.values().any(|given| given.is_pending),
            shares: shares.iter().map(words::share).collect(),
        })
    }
}
