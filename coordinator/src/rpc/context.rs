//! What handlers stand on: the node, what is known of workers, clocks, secrets.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tonic::{Request, Status};
use tresor_proto::ids::{Epoch, JobId, VaultId};
use tresor_proto::v1;
use zeroize::Zeroizing;

use super::caller::Caller;
use super::kinds::Kind;
use super::refused::Refused;
use super::traces::Traces;
use crate::lead::plans::Plans;
use crate::node::Handle;
use crate::node::presence::{JobProgress, Presence};
use crate::security::{ClusterKey, Purpose};
use crate::state::command::Command;
use crate::state::entry::{IdempotencyKey, Time};
use crate::state::{State, Subject};

/// The clocks of this process.
pub trait Clock: Send + Sync {
    /// Milliseconds since some moment before the first call: what [`Presence`] counts in.
    fn monotonic_ms(&self) -> u64;
    /// The wall clock, for what is shown and for how long a token is good; entries of the log are stamped by the node.
    fn wall(&self) -> Time;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    /// Counts from now on.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall(&self) -> Time {
        jiff::Timestamp::now().into()
    }
}

/// Why a secret was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct SecretError {
    /// What the provider said.
    pub why: String,
}

/// The cluster key, as far as handlers need it. Every coordinator has the same.
pub trait SecretBox: Send + Sync {
    /// Wraps the platform's key of a vault for the log.
    ///
    /// # Errors
    /// [`SecretError`].
    fn wrap_vault_key(&self, vault: VaultId, secret: &[u8]) -> Result<Vec<u8>, SecretError>;

    /// Wraps where a channel of notifications leads.
    ///
    /// # Errors
    /// [`SecretError`].
    fn wrap_channel(&self, secret: &[u8]) -> Result<Vec<u8>, SecretError>;

    /// What [`Self::wrap_channel`] wrapped.
    ///
    /// # Errors
    /// [`SecretError`]: another key wrapped it, or it is damaged.
    fn unwrap_channel(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError>;

    /// The platform's key of a vault that is made, see [`ClusterKey::vault_key`].
    fn vault_key(&self, vault: VaultId) -> Zeroizing<[u8; 32]>;

    /// 32 bytes that nobody without the cluster key can know; the same for the same context and input on every coordinator.
    fn derive(&self, context: &'static str, input: &[u8]) -> Zeroizing<[u8; 32]>;
}

impl SecretBox for ClusterKey {
    fn wrap_vault_key(&self, vault: VaultId, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let wrapped = self
            .wrap(Purpose::VaultKey(vault), secret)
            .map_err(|e| SecretError { why: e.to_string() })?;
        Ok(postcard::to_stdvec(&wrapped).expect("plain data, and memory can be had"))
    }

    fn wrap_channel(&self, secret: &[u8]) -> Result<Vec<u8>, SecretError> {
        let wrapped = self
            .wrap(Purpose::Channel, secret)
            .map_err(|e| SecretError { why: e.to_string() })?;
        Ok(postcard::to_stdvec(&wrapped).expect("plain data, and memory can be had"))
    }

    fn unwrap_channel(&self, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let wrapped = postcard::from_bytes(wrapped).map_err(|e| SecretError { why: e.to_string() })?;
        self.unwrap(Purpose::Channel, &wrapped)
            .map_err(|e| SecretError { why: e.to_string() })
    }

    fn vault_key(&self, vault: VaultId) -> Zeroizing<[u8; 32]> {
        Self::vault_key(self, vault)
    }

    fn derive(&self, context: &'static str, input: &[u8]) -> Zeroizing<[u8; 32]> {
        // A key of its own for each context, so that nothing derived for one means anything in another, or for wrapping.
        let key = Zeroizing::new(blake3::derive_key(context, self.expose()));
        Zeroizing::new(*blake3::keyed_hash(&key, input).as_bytes())
    }
}

/// What handlers stand on. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The node.
    pub handle: Handle,
    /// What the leader knows of workers. Never locked while the state is being read: another task may do it the other way round.
    pub presence: Arc<Mutex<Presence>>,
    /// Clocks.
    pub clock: Arc<dyn Clock>,
    /// The cluster key.
    pub keys: Arc<dyn SecretBox>,
    /// The time zone of policies that name none, by its IANA name.
    pub zone: Arc<str>,
    plans: Arc<Mutex<Plans>>,
    /// Of jobs that were asked for here.
    pub(crate) traces: Arc<Traces>,
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services")
            .field("handle", &self.handle)
            .field("zone", &self.zone)
            .finish_non_exhaustive()
    }
}

/// A change that was made, now or when it was sent first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// What it was about.
    pub(crate) about: Subject,
}

impl Services {
    /// All of it.
    pub fn new(
        handle: Handle,
        presence: Arc<Mutex<Presence>>,
        clock: Arc<dyn Clock>,
        keys: Arc<dyn SecretBox>,
        zone: &str,
    ) -> Self {
        Self {
            handle,
            presence,
            clock,
            keys,
            zone: zone.into(),
            plans: Arc::default(),
            traces: Arc::default(),
        }
    }

    /// The cluster's clock as it is about now: the stamp of the newest entry, or the wall clock where that is later, since there need not have been an
    /// entry lately. While a person is asked about the clock only stamps are believed.
    pub(crate) fn now(&self, state: &State) -> Time {
        if state.marks().clock_is_doubted() {
            state.now()
        } else {
            state.now().max(self.clock.wall())
        }
    }

    /// A copy of what is known of workers: small, since it is of workers and running jobs only.
    pub(crate) fn presence(&self) -> Presence {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How far a job is, as its worker said last.
    pub(crate) fn progress(&self, job: JobId) -> Option<JobProgress> {
        let presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        presence.progress(job).cloned()
    }

    /// What the good attempt of a job made, in detail, if it is remembered.
    pub(crate) fn report(&self, job: JobId, epoch: Epoch) -> Option<v1::Report> {
        let presence = self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        presence.report(job, epoch).map(|report| (*report).clone())
    }

    /// All policies, ready to be asked.
    pub(crate) fn plans(&self) -> Plans {
        let mut plans: MutexGuard<'_, Plans> = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.read(|state| plans.refresh(state));
        plans.clone()
    }

    /// Looks at the state, once it is as new as the question.
    pub(crate) async fn look<T>(&self, look: impl FnOnce(&State) -> Result<T, Refused>) -> Result<T, Refused> {
        self.handle.barrier().await?;
        self.handle.read(look)
    }

    /// Looks at all of the state, once it is as new as the question, on a thread that may take its time.
    pub(crate) async fn look_long<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Self, &State) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        self.handle.barrier().await?;
        let services = self.clone();
        tokio::task::spawn_blocking(move || services.handle.read(|state| look(&services, state)))
            .await
            .map_err(|_| Refused::Bug {
                why: "a look at the state panicked",
            })
    }

    /// Makes a change of a kind once for its key. `build` finds what is meant and says the command; it is not asked again for a change that was made
    /// already, since names may mean something else by now.
    pub(crate) async fn change(
        &self,
        caller: &Caller,
        kind: Kind,
        key: IdempotencyKey,
        build: impl FnOnce(&State) -> Result<Command, Refused>,
    ) -> Result<Made, Refused> {
        self.handle.barrier().await?;
        let command = self.handle.read(|state| match made_before(state, kind, &key) {
            Some(made) => Ok::<_, Refused>(Err(made)),
            None => build(state).map(Ok),
        })?;
        let command = match command {
            Ok(command) => command,
            Err(made) => return Ok(made),
        };
        if command.kind() != kind.number() {
            return Err(Refused::Bug {
                why: "a change is of another kind than its answer is looked for under",
            });
        }
        self.handle.change(caller.actor.clone(), Some(key), command).await?;
        // Of two changes under one key that came at once, the second is answered with what the first was about.
        let made = self.handle.read(|state| {
            made_before(state, kind, &key).ok_or(Refused::Bug {
                why: "an answer that was just given is not remembered",
            })
        })?;
        if let (Kind::Enqueue, Subject::Job(job)) = (kind, made.about) {
            // Its first lease takes an entry of the log, and comes after this.
            self.traces.note(job);
        }
        Ok(made)
    }
}

/// What a change was about that was made under this key already. Only changes that were made are remembered: what was refused is looked at again.
pub(crate) fn made_before(state: &State, kind: Kind, key: &IdempotencyKey) -> Option<Made> {
    let answered = state.answer(key, kind.number())?;
    Some(Made { about: answered.about })
}

/// The caller and the message of a request.
///
/// # Errors
/// When nobody found out who calls: then nobody checked whether they may.
pub(crate) fn opened<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let (_, extensions, message) = request.into_parts();
    match extensions.get::<Caller>() {
        Some(caller) => Ok((caller.clone(), message)),
        None => Err(Refused::Bug {
            why: "a request came without its caller",
        }
        .status("")),
    }
}
