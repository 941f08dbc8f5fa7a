//! Follows the map: takes what it grants to this worker, makes the entries of new slots from the store, and lets go of what is another's.
//!
//! The order, in which each step is needed by the next:
//! 1. Slots whose lineage is broken are released: no call about them is under way after that.
//! 2. ◆ Their former entries are dropped, durably, and the database says that they are incomplete.
//! 3. The new grants are held: from here on ids are answered, `new` where the rebuild has not come to them yet.
//! 4. The rebuild begins: the list of packs is made (or fetched from the owner who makes it) after the grant. So a pack is in the list, or it was put
//!    after it, and then its entries are inserted here, because its session learns of the grant or is refused at its commit.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tresor_proto::ids::WorkerId;
use tresor_storage::ids::VaultId;
use tresor_storage::index::rebuild::PackList;
use tresor_storage::index::rebuild::slots::{SlotReport, rebuild_slots};
use tresor_storage::index::slot::SlotSet;
use tresor_storage::index::{ChunkIndex as _, Stamp};
use tresor_storage::vault::Vault;

use super::checkpoints::{self, Checkpoints};
use super::kept::Kept;
use super::lists::Lists;
use super::map::{Grant, SlotMap};
use super::owner::{OwnedVault, Owner};
use super::peers::Peers;
use super::view::{View, Views};
use crate::agent::error::JobError;
use crate::agent::port::{CallError, Coordinator, LeaseVault, Life};
use crate::agent::vaults::Vaults;
use crate::blocking::blocking;
use crate::home::index;

/// How long to wait before what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// How often slots that are another's are dropped.
const UPKEEP: Duration = Duration::from_secs(60);
/// How long a database that was made anew stays, also when it is found to be damaged again: a bad disk is not to be filled in a loop.
const REMADE: Duration = UPKEEP;

/// What the keeper works with.
pub(crate) struct KeeperParts {
    pub(crate) me: WorkerId,
    /// Where the databases are: one folder for each vault.
    pub(crate) folder: PathBuf,
    pub(crate) owner: Owner,
    pub(crate) peers: Arc<Peers>,
    pub(crate) lists: Arc<Lists>,
    pub(crate) kept: Arc<Kept>,
    pub(crate) vaults: Arc<dyn VaultSource>,
}

/// Where the vaults come from whose chunks are answered for.
#[async_trait]
pub(crate) trait VaultSource: Send + Sync + 'static {
    /// All that are claimed.
    async fn claimed(&self, life: Life) -> Result<Vec<LeaseVault>, CallError>;

    /// One of them, opened.
    async fn open(&self, vault: &LeaseVault) -> Result<Arc<Vault>, JobError>;
}

/// Those that the coordinator names, in their stores.
pub(crate) struct OfCluster {
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) vaults: Arc<Vaults>,
}

#[async_trait]
impl VaultSource for OfCluster {
    async fn claimed(&self, life: Life) -> Result<Vec<LeaseVault>, CallError> {
        self.coordinator.index_vaults(life).await
    }

    async fn open(&self, vault: &LeaseVault) -> Result<Arc<Vault>, JobError> {
        Ok(Box::pin(self.vaults.open(vault)).await?.vault)
    }
}

/// Why the map could not be followed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeeperError {
    #[error("ask for the vaults whose chunks are answered for")]
    Vaults(#[source] CallError),
    #[error("open the index of vault {vault}")]
    Open {
        vault: VaultId,
        #[source]
        source: JobError,
    },
    #[error("change the index of vault {vault}")]
    Index {
        vault: VaultId,
        #[source]
        source: tresor_storage::index::IndexError,
    },
    #[error(transparent)]
    Kept(#[from] crate::control::ControlError),
}

/// A vault of which entries are kept.
struct Open {
    owned: Arc<OwnedVault>,
    vault: Arc<Vault>,
    stamp: Stamp,
    rebuild: Option<Rebuild>,
    /// Lent to the task that writes checkpoints while one does.
    checkpoints: Arc<tokio::sync::Mutex<Checkpoints>>,
    writing: Option<AbortOnDropHandle<()>>,
}

struct Rebuild {
    slots: SlotSet,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// One task owns the databases.
pub(crate) struct Keeper {
    parts: KeeperParts,
    life: Option<Life>,
    vaults_seen: Option<u64>,
    open: BTreeMap<VaultId, Open>,
    /// Vaults whose databases were found to be damaged while they were open, and when last.
    damaged: BTreeMap<VaultId, Instant>,
    /// A rebuild has ended: there may be slots that came meanwhile.
    rebuilt: Arc<Notify>,
}

fn lineage(mine: &[(u16, Grant)]) -> BTreeMap<u16, u64> {
    mine.iter().map(|(slot, grant)| (*slot, grant.since)).collect()
}

impl Keeper {
    pub(crate) fn new(parts: KeeperParts) -> Self {
        Self {
            parts,
            life: None,
            vaults_seen: None,
            open: BTreeMap::new(),
            damaged: BTreeMap::new(),
            rebuilt: Arc::default(),
        }
    }

    /// Follows until `stop`.
    pub(crate) async fn run(mut self, mut views: Views, stop: CancellationToken) {
        let mut again: Option<Instant> = None;
        let mut upkeep = Instant::now() + UPKEEP;
        let mut checkpoints = Instant::now() + checkpoints::EVERY;
        loop {
            let wake = again.unwrap_or(upkeep).min(upkeep).min(checkpoints);
            tokio::select! {
                () = views.changed() => {}
                () = self.rebuilt.notified() => {}
                () = self.parts.owner.damaged() => {}
                () = sleep_until(wake) => {}
                () = stop.cancelled() => break,
            }
            let view = views.latest();
            again = None;
            self.close_damaged().await;
            if let Err(error) = self.follow(&view).await {
                tracing::warn!(
                    error = crate::agent::failure::chain(&error),
                    "slots of the index cannot be kept as granted yet"
                );
                again = Some(Instant::now() + AGAIN);
            }
            let now = Instant::now();
            if now >= upkeep {
                upkeep = now + UPKEEP;
                if let Err(error) = self.upkeep(&view).await {
                    tracing::warn!(
                        error = crate::agent::failure::chain(&error),
                        "slots that are another's could not be dropped yet"
                    );
                }
            }
            if now >= checkpoints {
                checkpoints = now + checkpoints::EVERY;
                self.write_checkpoints(&view);
            }
        }
        self.parts.owner.release_all().await;
        for (id, open) in std::mem::take(&mut self.open) {
            self.close(id, open).await;
        }
    }

    async fn follow(&mut self, view: &View) -> Result<(), KeeperError> {
        let Some(life) = view.life else { return Ok(()) };
        if self.life != Some(life) {
            // What an earlier life held is granted anew, or to somebody else.
            self.parts.owner.release_all().await;
            self.vaults_seen = None;
        }
        let mine: Vec<(u16, Grant)> = view.map.of(self.parts.me, life).collect();
        self.parts.peers.keep(&view.map.owners);
        if mine.is_empty() && self.open.is_empty() {
            self.parts.owner.install(&view.map, &mine).await;
            return Ok(());
        }
        // A vault that cannot be opened keeps nobody from the others.
        let mut not_open = Ok(());
        if self.vaults_seen != Some(view.vaults) || self.life != Some(life) {
            not_open = self.open_vaults(life).await?;
            self.adopt(life).await?;
            self.vaults_seen = not_open.is_ok().then_some(view.vaults);
        }
        let lineage = lineage(&mine);
        let mut fresh: BTreeMap<VaultId, BTreeMap<u64, SlotSet>> = BTreeMap::new();
        let mut released = SlotSet::default();
        for (id, open) in &self.open {
            let has: BTreeMap<u16, u64> = open
                .owned
                .index()
                .rocks()
                .slots()
                .into_iter()
                .map(|(slot, row)| (slot, row.since))
                .collect();
            for (slot, since) in &lineage {
                if has.get(slot) != Some(since) {
                    released.insert(*slot);
                    fresh.entry(*id).or_default().entry(*since).or_default().insert(*slot);
                }
            }
        }
        if !released.is_empty() {
            self.parts.owner.release(&released).await;
        }
        for (id, begun) in fresh {
            let open = self.open.get_mut(&id).expect("it was just there");
            for (since, slots) in begun {
                let began = open.owned.index().rocks().begin_slots(&slots, since).await;
                began.map_err(|source| {
                    open.owned.note(&source);
                    KeeperError::Index { vault: id, source }
                })?;
            }
        }
        // ◆ Only now: what was inserted before its slots were begun would have gone with that, and with it that it was touched.
        for (id, open) in &self.open {
            self.parts.owner.open(*id, Arc::clone(&open.owned));
        }
        self.parts.owner.install(&view.map, &mine).await;
        self.rebuild(&view.map, &lineage).await;
        not_open
    }

    /// Opens what is claimed, and closes what is not any more. Answers what could not be opened.
    async fn open_vaults(&mut self, life: Life) -> Result<Result<(), KeeperError>, KeeperError> {
        let listed = self.parts.vaults.claimed(life).await.map_err(KeeperError::Vaults)?;
        let claimed: BTreeMap<VaultId, LeaseVault> = listed.into_iter().map(|vault| (vault.id, vault)).collect();
        let is_gone = |id: &VaultId, open: &Open| {
            let claim = claimed.get(id).and_then(|vault| vault.claim);
            claim.is_none_or(|claim| claim.cluster != open.stamp.cluster || claim.number != open.stamp.claim)
        };
        let gone: Vec<VaultId> = self
            .open
            .iter()
            .filter(|(id, open)| is_gone(id, open))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(open) = self.open.remove(&id) {
                self.close(id, open).await;
            }
        }
        let mut failed = None;
        for (id, vault) in claimed {
            if self.open.contains_key(&id) {
                continue;
            }
            if let Err(source) = self.open_vault(id, &vault).await {
                failed = Some(KeeperError::Open { vault: id, source });
            }
        }
        Ok(failed.map_or(Ok(()), Err))
    }

    /// Closes databases that were found to be damaged: they are made anew when they are opened again, and their slots after that. Who asks meanwhile is
    /// told that nothing is held here.
    async fn close_damaged(&mut self) {
        let now = Instant::now();
        let is_due = |id: &VaultId| {
            let last = self.damaged.get(id);
            last.is_none_or(|last| now.duration_since(*last) >= REMADE)
        };
        let damaged = self
            .open
            .iter()
            .filter(|(id, open)| open.owned.is_damaged() && is_due(id));
        let damaged: Vec<VaultId> = damaged.map(|(id, _)| *id).collect();
        for id in damaged {
            tracing::warn!(vault = %id, "index of slots is damaged: it is made anew");
            self.damaged.insert(id, now);
            let marker = self.path(id).with_extension("doubtful");
            let doubted = blocking(move || index::doubt(&marker, "it was damaged when it was used"));
            if let Err(error) = doubted.await {
                tracing::warn!(vault = %id, %error, "could not write down that the index of slots is to be made anew");
                continue;
            }
            if let Some(open) = self.open.remove(&id) {
                self.close(id, open).await;
            }
            self.vaults_seen = None;
        }
    }

    async fn open_vault(&mut self, id: VaultId, lease: &LeaseVault) -> Result<(), JobError> {
        let Some(claim) = lease.claim else { return Ok(()) };
        let vault = self.parts.vaults.open(lease).await?;
        let stamp = Stamp {
            vault: id,
            cluster: claim.cluster,
            claim: claim.number,
        };
        let path = self.path(id);
        // What the last life left is believed; what an earlier one left is an older copy.
        let used_by = self.life.or_else(|| self.parts.kept.life());
        let index = Box::pin(index::open_slots(&path, stamp, &vault, used_by.map(|life| life.0))).await?;
        if let Some(life) = self.life {
            index
                .rocks()
                .set_life(life.0)
                .await
                .map_err(tresor_storage::Error::from)?;
        }
        let owned = Arc::new(OwnedVault::new(index, claim.cluster));
        self.open.insert(
            id,
            Open {
                owned,
                vault,
                stamp,
                rebuild: None,
                checkpoints: Arc::new(tokio::sync::Mutex::new(Checkpoints::new(claim.cluster))),
                writing: None,
            },
        );
        Ok(())
    }

    fn path(&self, id: VaultId) -> PathBuf {
        self.parts.folder.join(id.to_string())
    }

    /// Writes down that this life uses the databases: in each, and then beside them.
    async fn adopt(&mut self, life: Life) -> Result<(), KeeperError> {
        if self.life == Some(life) {
            return Ok(());
        }
        for (id, open) in &self.open {
            let set = open.owned.index().rocks().set_life(life.0).await;
            set.map_err(|source| KeeperError::Index { vault: *id, source })?;
        }
        let kept = Arc::clone(&self.parts.kept);
        blocking(move || kept.set(life)).await?;
        self.life = Some(life);
        Ok(())
    }

    async fn close(&self, id: VaultId, open: Open) {
        self.parts.owner.close(id);
        self.parts.lists.forget(id);
        if let Some(rebuild) = open.rebuild {
            rebuild.end().await;
        }
        if let Some(writing) = open.writing {
            writing.abort();
            let _ = writing.await;
        }
        // Closing a database writes to the disk. A call that is under way has it until its end.
        blocking(move || drop(open.owned)).await;
    }

    /// Sees to it that every slot that is incomplete is being made.
    async fn rebuild(&mut self, map: &SlotMap, lineage: &BTreeMap<u16, u64>) {
        for (id, open) in &mut self.open {
            let incomplete: SlotSet = open
                .owned
                .index()
                .rocks()
                .slots()
                .into_iter()
                .filter(|(slot, row)| !row.complete && lineage.get(slot) == Some(&row.since))
                .map(|(slot, _)| slot)
                .collect();
            if let Some(rebuild) = &open.rebuild {
                // One that is under way and still wanted goes on: what came since then is made after it.
                if !rebuild.task.is_finished() && rebuild.slots.is_subset(&incomplete) {
                    continue;
                }
                open.rebuild.take().expect("there is one").end().await;
            }
            if incomplete.is_empty() {
                continue;
            }
            let work = Work {
                vault_id: *id,
                vault: Arc::clone(&open.vault),
                owned: Arc::clone(&open.owned),
                slots: incomplete.clone(),
                since: lineage.clone(),
                map: map.clone(),
                is_remade: self.damaged.contains_key(id),
                me: self.parts.me,
                peers: Arc::clone(&self.parts.peers),
                lists: Arc::clone(&self.parts.lists),
            };
            let cancel = CancellationToken::new();
            let stopped = cancel.clone();
            let rebuilt = Arc::clone(&self.rebuilt);
            let task = tokio::spawn(async move {
                tokio::select! {
                    () = work.run() => rebuilt.notify_one(),
                    () = stopped.cancelled() => {}
                }
            });
            open.rebuild = Some(Rebuild {
                slots: incomplete,
                cancel,
                task,
            });
        }
    }

    /// Begins to write the checkpoints that are due, beside everything else.
    fn write_checkpoints(&mut self, view: &View) {
        let Some(life) = view.life.filter(|life| self.life == Some(*life)) else {
            return;
        };
        let mine: Vec<(u16, Grant)> = view.map.of(self.parts.me, life).collect();
        let epoch = mine.iter().map(|(_, grant)| grant.epoch).max().unwrap_or(0);
        let slots: SlotSet = mine.into_iter().map(|(slot, _)| slot).collect();
        for (id, open) in &mut self.open {
            if open.writing.as_ref().is_some_and(|writing| !writing.is_finished()) {
                continue;
            }
            let (id, vault, owned) = (*id, Arc::clone(&open.vault), Arc::clone(&open.owned));
            let (checkpoints, slots) = (Arc::clone(&open.checkpoints), slots.clone());
            open.writing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
                let mut checkpoints = checkpoints.lock().await;
                match Box::pin(checkpoints.write_due(&vault, &owned, &slots, epoch)).await {
                    Ok(0) => {}
                    Ok(written) => tracing::info!(vault = %id, written, "checkpoints of slots are put"),
                    Err(error) => {
                        tracing::warn!(vault = %id, error = error.chain(), "checkpoints of slots could not be put yet");
                    }
                }
            })));
        }
    }

    /// Drops what is another's since a while.
    async fn upkeep(&mut self, view: &View) -> Result<(), KeeperError> {
        let Some(life) = view.life.filter(|life| self.life == Some(*life)) else {
            return Ok(());
        };
        let mine: SlotSet = view.map.of(self.parts.me, life).map(|(slot, _)| slot).collect();
        for (id, open) in &self.open {
            let rocks = open.owned.index().rocks();
            let has: SlotSet = rocks.slots().into_iter().map(|(slot, _)| slot).collect();
            let others = has.difference(&mine);
            if !others.is_empty() {
                let dropped = rocks.drop_slots(&others).await;
                dropped.map_err(|source| {
                    open.owned.note(&source);
                    KeeperError::Index { vault: *id, source }
                })?;
            }
        }
        Ok(())
    }
}

impl Rebuild {
    async fn end(self) {
        self.cancel.cancel();
        // It may have panicked: what it left is begun anew.
        let _ = self.task.await;
    }
}

/// One rebuild: slots of a vault.
struct Work {
    vault_id: VaultId,
    vault: Arc<Vault>,
    owned: Arc<OwnedVault>,
    slots: SlotSet,
    since: BTreeMap<u16, u64>,
    map: SlotMap,
    /// What was there was damaged under this very grant: a list that was made for the grant may be older than what was lost.
    is_remade: bool,
    me: WorkerId,
    peers: Arc<Peers>,
    lists: Arc<Lists>,
}

impl Work {
    async fn run(self) {
        let began = Instant::now();
        let mut wait = AGAIN;
        loop {
            match Box::pin(self.once()).await {
                Ok(report) => {
                    tracing::info!(
                        vault = %self.vault_id,
                        slots = self.slots.len(),
                        entries = report.checkpoint_entries + report.read.entries,
                        checkpoints = report.checkpoints_read,
                        footers = report.read.footers_read,
                        took_ms = began.elapsed().as_millis(),
                        "slots of the index are whole"
                    );
                    return;
                }
                Err(error) => {
                    tracing::warn!(
                        vault = %self.vault_id,
                        error = crate::agent::failure::chain(&error),
                        "slots of the index cannot be made from the store yet: what is not in them is answered as new"
                    );
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN * 12);
                }
            }
        }
    }

    async fn once(&self) -> Result<SlotReport, tresor_storage::Error> {
        let list = self.list().await?;
        // Named before anything of them comes in, as with inserts: those of the latest sessions, which an older state of the store would not have.
        // Sessions of different clusters are in no order, and this one's came last.
        let cluster = self.owned.cluster();
        let (mut ours, mut others) = (VecDeque::new(), VecDeque::new());
        for (pack, _) in list.iter() {
            let latest = if pack.writer.cluster == cluster {
                &mut ours
            } else {
                &mut others
            };
            latest.push_back(pack);
            if latest.len() > index::WITNESSES {
                latest.pop_front();
            }
        }
        let latest = if ours.is_empty() { others } else { ours };
        self.owned.index().witness(latest).await?;
        self.learn_damage().await?;
        let rocks = self.owned.index().rocks();
        // Nothing is dead before there is sweeping.
        let report = rebuild_slots(&self.vault, rocks, &self.slots, &list, &|_| false, &mut |_| {}).await?;
        let mut by_since: BTreeMap<u64, SlotSet> = BTreeMap::new();
        for slot in self.slots.iter() {
            if let Some(since) = self.since.get(&slot) {
                by_since.entry(*since).or_default().insert(slot);
            }
        }
        for (since, slots) in by_since {
            rocks.complete_slots(&slots, since).await?;
        }
        Ok(report)
    }

    /// Damage that was noted at other owners: notes are in no checkpoint, and an owner that goes takes its own along.
    async fn learn_damage(&self) -> Result<(), tresor_storage::Error> {
        let cluster = self.owned.cluster();
        for owner in self.map.owners.iter().filter(|owner| owner.worker != self.me) {
            let Some(peer) = self.peers.of(owner) else { continue };
            match peer.damage(self.vault_id, cluster).await {
                Ok(noted) => {
                    for (pack, frame) in noted {
                        self.owned.index().add_damage(pack, frame).await?;
                    }
                }
                Err(error) => {
                    tracing::info!(worker = owner.name, %error, "damage that another worker noted is not known here");
                }
            }
        }
        Ok(())
    }

    /// The list of the vault's packs, made after the newest grant: by one owner of those that were granted something with it.
    async fn list(&self) -> Result<PackList, tresor_storage::Error> {
        let wave = self.map.version;
        let lister = self.map.lister(wave).filter(|_| !self.is_remade);
        if let Some(lister) = lister.filter(|lister| lister.worker != self.me)
            && let Some(peer) = self.peers.of(lister)
        {
            match peer.packs(self.vault_id, wave).await {
                Ok(bytes) => match PackList::decode(&bytes) {
                    Ok(list) => return Ok(list),
                    Err(error) => {
                        tracing::warn!(worker = lister.name, %error, "a list of packs cannot be read: this worker lists them too");
                    }
                },
                Err(error) => {
                    tracing::info!(worker = lister.name, %error, "no list of packs from another worker: this one lists them");
                }
            }
        }
        let making = self.lists.begin(self.vault_id, wave);
        let list = PackList::list(&self.vault).await?;
        making.made(list.encode().into());
        Ok(list)
    }
}

/// Where a worker's databases of slots are.
pub(crate) fn folder(worker: &Path) -> PathBuf {
    worker.join("slots")
}
