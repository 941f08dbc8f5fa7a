//! The vaults that a worker's jobs work on: each is opened by what its lease says, and checked against it.
//!
//! What guards the vault: its header has the BLAKE3 that the log names, its keys open with the secret of the lease, and who writes looks at the claims
//! before anything else. Keys live in memory, in the jobs that were given them.
//!
//! What jobs of one vault share is its store (with its limits of what may be in flight) and its index: that which workers answer for together
//! ([`crate::slots`]), or, where nobody does, a chunk index of this worker's own, in `index/<vault id>` of its folder, under the cluster's claim. Several workers then write to the vault under that claim, each with its own index. An index
//! that lacks what others stored costs duplicates, never data; and nobody's objects look wrong to another: the index believes itself as long as
//! the packs that *it* took are there ([`crate::home::index`]), numbers and parts of names are each session's own, and whatever others put is found when
//! an index is made anew. It closes when no job used it for a while.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument as _;
use tresor_proto::ids::JobId;
use tresor_storage::backend::{Counters, OpenStore, Traffic};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{VaultId, hex};
use tresor_storage::index::{ChunkIndex, IndexError, Stamp};
use tresor_storage::keys::{Opened, Unlock};
use tresor_storage::vault::claim::ListedClaim;
use tresor_storage::vault::create::open_header;
use tresor_storage::vault::header::Header;
use tresor_storage::vault::revisions::open_keys;
use tresor_storage::vault::{Vault, VaultReader};

use super::error::JobError;
use super::port::LeaseVault;
use crate::blocking::blocking;
use crate::control::{ControlError, Requests};
use crate::home::index::{self, HomeIndex};
use crate::home::{HomeError, Stores, files};
use crate::limits::Limits;
use crate::metrics::{IndexNumbers, Metrics};

/// How long an index that no job uses stays open: opening one costs some requests and tens of milliseconds, keeping one some hundred megabytes.
const IDLE: Duration = Duration::from_secs(300);
/// How often and how long apart to try to open an index that the last job of an earlier claim has just let go of.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(100);

/// What the jobs of a worker share of their vaults.
pub(crate) struct Vaults {
    stores: Arc<dyn Stores>,
    folder: PathBuf,
    limits: Arc<Limits>,
    slots: Mutex<BTreeMap<VaultId, Arc<Slot>>>,
    metrics: Arc<Metrics>,
}

/// One vault.
#[derive(Default)]
struct Slot {
    store: Mutex<Option<(String, OpenStore)>>,
    /// Locked while the index is opened: who comes meanwhile waits for that one.
    index: Arc<tokio::sync::Mutex<SharedIndex>>,
}

#[derive(Default)]
struct SharedIndex {
    open: Option<(Stamp, Arc<HomeIndex>)>,
    idle_since: Option<Instant>,
}

/// A vault open for one job.
pub(crate) struct JobVault {
    /// Its store's URL, in one spelling.
    pub(crate) url: String,
    /// What it is.
    pub(crate) header: Header,
    /// The BLAKE3 of `vault.pb`.
    pub(crate) header_hash: [u8; 32],
    /// Its keys.
    pub(crate) keys: Opened,
    /// The vault.
    pub(crate) vault: Arc<Vault>,
    /// What its store was asked so far, by all jobs that share it.
    traffic: Arc<Counters>,
    /// And what before this job.
    traffic_before: Traffic,
    slot: Arc<Slot>,
}

/// Counts the requests of one job to a store.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    traffic: Arc<Counters>,
    before: Traffic,
}

impl Meter {
    /// So many.
    pub(crate) fn requests(&self) -> Requests {
        Requests::between(&self.before, &self.traffic.snapshot())
    }
}

impl JobVault {
    /// Counts what its store is asked from here on, those requests among it that opening it took.
    pub(crate) fn meter(&self) -> Meter {
        Meter {
            traffic: Arc::clone(&self.traffic),
            before: self.traffic_before,
        }
    }

    /// Reads its chunks, by hints and what the index knows besides.
    pub(crate) fn reader(&self, index: Option<Arc<dyn ChunkIndex>>) -> Arc<VaultReader> {
        Arc::new(VaultReader::new(Arc::clone(&self.vault), index))
    }
}

impl Vaults {
    /// Opens stores with `stores`, and keeps indexes below `folder`.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(
        folder: &Path,
        stores: Arc<dyn Stores>,
        limits: Arc<Limits>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ControlError> {
        let folder = folder.join("index");
        files::make_folder(&folder)?;
        Ok(Self {
            stores,
            folder,
            limits,
            slots: Mutex::default(),
            metrics,
        })
    }

    /// What the indexes of this worker's own take that are open. One that is being opened is left out.
    pub(crate) fn index_numbers(&self) -> IndexNumbers {
        let mut numbers = IndexNumbers::default();
        for slot in self.slots().values() {
            let Ok(shared) = slot.index.try_lock() else { continue };
            if let Some((_, index)) = &shared.open {
                numbers.count(index.rocks());
            }
        }
        numbers
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<VaultId, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`Self::store`], within the limits of a job.
    pub(crate) fn store_for(&self, job: JobId, lease: &LeaseVault, create: bool) -> Result<OpenStore, JobError> {
        let store = self.store(lease, create)?;
        Ok(store.throttled(self.limits.pace(job, &lease.url)))
    }

    /// The limits that jobs keep to.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The store of a lease's vault. With `create`, a local folder is made if need be.
    pub(crate) fn store(&self, lease: &LeaseVault, create: bool) -> Result<OpenStore, JobError> {
        let store = self.stores.open(&lease.url, create)?;
        self.metrics.add_store(&store.url, &store.counters);
        Ok(store)
    }

    /// As [`Self::open`], within the limits of a job: whatever it asks of the store, from here on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_for(&self, job: JobId, lease: &LeaseVault) -> Result<JobVault, JobError> {
        let slot = Arc::clone(self.slots().entry(lease.id).or_default());
        let store = self.shared_store(&slot, lease)?;
        let store = store.throttled(self.limits.pace(job, &lease.url));
        self.open_at(lease, store, slot).await
    }

    /// Opens the vault of a lease, and checks that it is the one that the log names.
    ///
    /// # Errors
    /// [`JobError::OtherVault`], [`JobError::Header`]; those of the store and of the keys.
    pub(crate) async fn open(&self, lease: &LeaseVault) -> Result<JobVault, JobError> {
        let slot = Arc::clone(self.slots().entry(lease.id).or_default());
        let store = self.shared_store(&slot, lease)?;
        self.open_at(lease, store, slot).await
    }

    /// Counts what the store of a lease's vault is asked from now on.
    ///
    /// # Errors
    /// Those of the configuration of the store.
    pub(crate) fn meter(&self, lease: &LeaseVault) -> Result<Meter, JobError> {
        let slot = Arc::clone(self.slots().entry(lease.id).or_default());
        let traffic = self.shared_store(&slot, lease)?.counters;
        let before = traffic.snapshot();
        Ok(Meter { traffic, before })
    }

    fn shared_store(&self, slot: &Slot, lease: &LeaseVault) -> Result<OpenStore, JobError> {
        let mut shared = slot.store.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((url, store)) = shared.as_ref()
            && *url == lease.url
        {
            return Ok(store.clone());
        }
        let store = self.store(lease, false)?;
        *shared = Some((lease.url.clone(), store.clone()));
        Ok(store)
    }

    async fn open_at(&self, lease: &LeaseVault, store: OpenStore, slot: Arc<Slot>) -> Result<JobVault, JobError> {
        let OpenStore {
            backend, url, counters, ..
        } = store;
        let traffic_before = counters.snapshot();
        let (header, header_hash) = open_header(backend.as_ref(), &url).await?;
        if header.vault != lease.id {
            return Err(JobError::OtherVault {
                url,
                expected: lease.id.to_string(),
                found: header.vault.to_string(),
            });
        }
        if let Some(expected) = lease.header.filter(|expected| *expected != header_hash) {
            // Under the same id: replaced, or rolled back to another making.
            tracing::error!(vault = %lease.id, url, "the vault's header is not the one that the cluster knows");
            return Err(JobError::Header {
                url,
                expected: hex(&expected),
                found: hex(&header_hash),
            });
        }
        let unlock = Unlock::File(lease.key.clone());
        let keys = open_keys(backend.as_ref(), lease.id, &header_hash, &unlock).await?;
        for ignored in &keys.ignored {
            tracing::warn!(vault = %lease.id, object = ignored.name, why = %ignored.why, "a key revision does not count");
        }
        let profile: Profile = header.profile.parse()?;
        let vault = Arc::new(Vault::new(lease.id, profile, backend, keys.keyring.clone()));
        Ok(JobVault {
            url,
            header,
            header_hash,
            keys,
            vault,
            traffic: counters,
            traffic_before,
            slot,
        })
    }

    fn index_path(&self, vault: VaultId) -> PathBuf {
        self.folder.join(vault.to_string())
    }

    /// The index of a vault under the cluster's claim: the one that is open, or the one on the disk, made anew from the store if it cannot be believed.
    ///
    /// Goes on also when the job that asked ends meanwhile: what was read for it is not lost to the next.
    ///
    /// # Errors
    /// [`JobError::IndexBusy`] while jobs of an earlier claim have it; those of the store and of the database.
    pub(crate) async fn index(&self, vault: &JobVault, claim: ListedClaim) -> Result<Arc<HomeIndex>, JobError> {
        let shared = Arc::clone(&vault.slot.index).lock_owned().await;
        let (stamp, path) = (stamp(vault, claim), self.index_path(vault.vault.id));
        let vault = Arc::clone(&vault.vault);
        let opening =
            tokio::spawn(async move { Box::pin(open_index(shared, &path, stamp, &vault)).await }.in_current_span());
        match opening.await {
            Ok(opened) => opened,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(JobError::Worker(crate::WorkerError::Interrupted)),
            },
        }
    }

    /// The index of a vault if it is open or can be believed as it is: for readers, to whom making it anew is not worth it.
    pub(crate) async fn index_if_kept(&self, vault: &JobVault, claim: ListedClaim) -> Option<Arc<HomeIndex>> {
        // One that is being made is not waited for.
        let mut shared = Arc::clone(&vault.slot.index).try_lock_owned().ok()?;
        let stamp = stamp(vault, claim);
        if let Some((_, index)) = shared.open.as_ref().filter(|(of, _)| *of == stamp) {
            return Some(Arc::clone(index));
        }
        if shared.open.is_some() {
            return None;
        }
        match index::open_if_kept(&self.index_path(vault.vault.id), stamp, &vault.vault).await {
            Ok(kept) => {
                let index = Arc::new(kept?);
                shared.open = Some((stamp, Arc::clone(&index)));
                shared.idle_since = None;
                Some(index)
            }
            Err(error) => {
                tracing::warn!(vault = %vault.vault.id, %error, "index is not used: it could not be opened");
                None
            }
        }
    }

    /// Closes what no job used for a while. Called every now and then.
    pub(crate) fn close_idle(&self, now: Instant) {
        let mut closed = Vec::new();
        self.slots().retain(|_, slot| {
            // Being opened: in use.
            let Ok(mut shared) = slot.index.try_lock() else {
                return true;
            };
            // Jobs have clones of the slot, or of the index: besides those counted here.
            let is_used = Arc::strong_count(slot) > 1
                || shared
                    .open
                    .as_ref()
                    .is_some_and(|(_, index)| Arc::strong_count(index) > 1);
            if is_used {
                shared.idle_since = None;
                return true;
            }
            let since = *shared.idle_since.get_or_insert(now);
            if now.duration_since(since) < IDLE {
                return true;
            }
            closed.extend(shared.open.take());
            false
        });
        if !closed.is_empty() {
            tracing::debug!(count = closed.len(), "indexes that no job uses are closed");
            // Closing a database writes to the disk.
            drop(tokio::task::spawn_blocking(move || drop(closed)));
        }
    }
}

fn stamp(vault: &JobVault, claim: ListedClaim) -> Stamp {
    Stamp {
        vault: vault.vault.id,
        cluster: claim.cluster,
        claim: claim.number,
    }
}

async fn open_index(
    mut shared: tokio::sync::OwnedMutexGuard<SharedIndex>,
    path: &Path,
    stamp: Stamp,
    vault: &Arc<Vault>,
) -> Result<Arc<HomeIndex>, JobError> {
    shared.idle_since = None;
    if let Some((of, index)) = &shared.open {
        if *of == stamp {
            return Ok(Arc::clone(index));
        }
        if Arc::strong_count(index) > 1 {
            return Err(JobError::IndexBusy);
        }
    }
    let former = shared.open.take();
    blocking(move || drop(former)).await;
    let mut tries = 0;
    loop {
        tries += 1;
        match index::open(path, stamp, vault, None, &mut |_| {}).await {
            Ok((index, state)) => {
                tracing::debug!(vault = %vault.id, ?state, "index is open");
                let index = Arc::new(index);
                shared.open = Some((stamp, Arc::clone(&index)));
                return Ok(index);
            }
            // A call of a job that was dropped has it for a moment more.
            Err(error) if is_locked(&error) && tries < LOCK_TRIES => tokio::time::sleep(LOCK_PAUSE).await,
            Err(error) if is_locked(&error) => return Err(JobError::IndexBusy),
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_locked(error: &HomeError) -> bool {
    fn of_storage(error: &tresor_storage::Error) -> bool {
        match error {
            tresor_storage::Error::While { source, .. } => of_storage(source),
            tresor_storage::Error::Index(error) => matches!(error, IndexError::Locked),
            _ => false,
        }
    }
    matches!(error, HomeError::Storage(error) if of_storage(error))
}
