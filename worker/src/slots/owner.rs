//! What this process answers for: the grants that it holds, and an index of their entries for each vault.
//!
//! What it guards:
//! 1. An id is answered under the grant that the asker named, or not at all. Grants change only while no call is under way: each call holds the read
//!    side of one lock from before it looks at the grants until its database call has ended, also when whoever asked has gone.
//! 2. ◆ A session that was over when the newest map was read is refused: what it might still send is of no point that counts.
//! 3. ◆ What a session inserts lies in its own packs. So of a pack whose session was over nothing is inserted from the next map on.
//! 4. What is acknowledged is synced: that is the database's.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock as SyncRwLock};

use async_trait::async_trait;
use tokio::sync::{Notify, RwLock, Semaphore};
use tokio::time::Instant;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, SessionId, VaultId};
use tresor_storage::index::slot::{SLOTS, SlotSet, slot_of};
use tresor_storage::index::{Answer, ChunkIndex as _, IndexError, IndexSession};

use super::claims::Claims;
use super::map::{Grant, SlotMap};
use super::numbers::{Counts, Numbers};
use super::peer::{PeerError, SlotPeer};
use super::wire::{Asked, Changed};
use crate::home::index::HomeIndex;
use crate::metrics::IndexNumbers;

/// Calls under way at once, with those whose callers have gone: 64 inserts of a pack are some megabytes.
const CALLS_MAX: usize = 64;

/// A vault whose chunks are answered for.
pub(crate) struct OwnedVault {
    index: HomeIndex,
    cluster: ClusterId,
    claims: Mutex<Claims>,
    is_damaged: AtomicBool,
}

impl OwnedVault {
    pub(crate) fn new(index: HomeIndex, cluster: ClusterId) -> Self {
        Self {
            index,
            cluster,
            claims: Mutex::default(),
            is_damaged: AtomicBool::new(false),
        }
    }

    /// Whether it was found to be damaged since it was opened: what it has cannot be had, and it is to be made anew.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Acquire)
    }

    /// Takes note of what an error says of the database.
    pub(crate) fn note(&self, error: &IndexError) {
        if matches!(error, IndexError::Stale { .. } | IndexError::Malformed) {
            self.is_damaged.store(true, Ordering::Release);
        }
    }

    fn failed(&self, error: IndexError) -> PeerError {
        self.note(&error);
        match error {
            IndexError::Foreign { .. } => PeerError::Fenced { why: error.to_string() },
            error => PeerError::Failed { why: error.to_string() },
        }
    }

    /// The cluster that has claimed it.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its entries.
    pub(crate) fn index(&self) -> &HomeIndex {
        &self.index
    }

    fn claims(&self) -> std::sync::MutexGuard<'_, Claims> {
        // Advice: whatever a panic left is as good.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is held, as the newest map says.
struct Held {
    version: u64,
    grants: Vec<Option<Grant>>,
    applied: u64,
    open: BTreeSet<SessionId>,
    sweep_epoch: u64,
}

impl Held {
    fn admits(&self, session: SessionId) -> bool {
        session.0 > self.applied || self.open.contains(&session)
    }

    /// The groups of slots of which this database has none that is not held.
    fn groups_within(&self, index: &HomeIndex) -> u64 {
        let rows = index.rocks().slots();
        let others = rows.into_iter().filter(|(slot, row)| {
            let grant = self.grants.get(usize::from(*slot)).copied().flatten();
            grant.is_none_or(|grant| grant.since != row.since)
        });
        let others: SlotSet = others.map(|(slot, _)| slot).collect();
        !others.groups()
    }

    /// Whether the slot of an id is held under the grant that was named.
    fn holds(&self, asked: &Asked) -> bool {
        self.grants[usize::from(slot_of(&asked.id))].is_some_and(|grant| grant.epoch == asked.epoch)
    }
}

/// Answers for the slots of this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Owner {
    held: Arc<RwLock<Held>>,
    vaults: Arc<SyncRwLock<HashMap<VaultId, Arc<OwnedVault>>>>,
    lists: Arc<super::lists::Lists>,
    calls: Arc<Semaphore>,
    damage: Arc<Notify>,
    counts: Arc<Counts>,
}

impl Owner {
    /// Holds nothing yet.
    pub(crate) fn new(lists: Arc<super::lists::Lists>) -> Self {
        Self {
            held: Arc::new(RwLock::new(Held {
                version: 0,
                grants: vec![None; usize::from(SLOTS)],
                applied: 0,
                open: BTreeSet::new(),
                sweep_epoch: 0,
            })),
            vaults: Arc::default(),
            lists,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            damage: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Returns when a database was found to be damaged since this was called last.
    pub(crate) async fn damaged(&self) {
        self.damage.notified().await;
    }

    /// Takes what a map gives this worker; returns when no call under an earlier one is under way any more.
    pub(crate) async fn install(&self, map: &SlotMap, mine: &[(u16, Grant)]) {
        let mut grants = vec![None; usize::from(SLOTS)];
        for (slot, grant) in mine {
            grants[usize::from(*slot)] = Some(*grant);
        }
        self.counts.set_held(mine.len());
        let mut held = self.held.write().await;
        *held = Held {
            version: map.version,
            grants,
            applied: map.applied.max(held.applied),
            open: map.open.clone(),
            sweep_epoch: map.sweep_epoch.max(held.sweep_epoch),
        };
    }

    /// Holds these no more, and returns when no call about them is under way.
    pub(crate) async fn release(&self, slots: &SlotSet) {
        let mut held = self.held.write().await;
        for slot in slots.iter() {
            held.grants[usize::from(slot)] = None;
        }
        self.counts.set_held(held.grants.iter().flatten().count());
    }

    /// What it answered, and what it has. Waits for no call.
    pub(crate) fn numbers(&self) -> Numbers {
        let vaults: Vec<Arc<OwnedVault>> = {
            let vaults = self.vaults.read().unwrap_or_else(PoisonError::into_inner);
            vaults.values().cloned().collect()
        };
        let (mut filling, mut index) = (0, IndexNumbers::default());
        for vault in vaults {
            let rocks = vault.index.rocks();
            filling += rocks.slots().iter().filter(|(_, row)| !row.complete).count() as u64;
            index.count(rocks);
        }
        self.counts.numbers(filling, index)
    }

    /// The version of the map whose grants are held.
    #[cfg(test)]
    pub(crate) async fn version(&self) -> u64 {
        self.held.read().await.version
    }

    /// Holds nothing any more: the life that held it is over.
    pub(crate) async fn release_all(&self) {
        self.held.write().await.grants.fill(None);
        self.counts.set_held(0);
    }

    pub(crate) fn open(&self, id: VaultId, vault: Arc<OwnedVault>) {
        self.vaults_mut().insert(id, vault);
    }

    pub(crate) fn close(&self, id: VaultId) -> Option<Arc<OwnedVault>> {
        self.vaults_mut().remove(&id)
    }

    pub(crate) fn vault(&self, id: VaultId) -> Option<Arc<OwnedVault>> {
        let vaults = self.vaults.read().unwrap_or_else(PoisonError::into_inner);
        vaults.get(&id).cloned()
    }

    fn vaults_mut(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<VaultId, Arc<OwnedVault>>> {
        self.vaults.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `call` with what is held, to its end, whatever becomes of who asked.
    async fn run<T, F, R>(&self, vault: VaultId, call: F) -> Result<Option<T>, PeerError>
    where
        T: Send + 'static,
        F: FnOnce(Arc<OwnedVault>, tokio::sync::OwnedRwLockReadGuard<Held>) -> R + Send + 'static,
        R: Future<Output = Result<T, PeerError>> + Send,
    {
        let this = self.clone();
        // Kept until the call has ended, whoever waits for it.
        let permit = Arc::clone(&self.calls).acquire_owned().await.expect("never closed");
        let call = tokio::spawn(async move {
            let _permit = permit;
            let held = Arc::clone(&this.held).read_owned().await;
            match this.vault(vault) {
                // It is not open yet, or not any more: nothing is held of it.
                None => Ok(None),
                Some(vault) => {
                    let done = call(Arc::clone(&vault), held).await;
                    if done.is_err() && vault.is_damaged() {
                        this.damage.notify_one();
                    }
                    done.map(Some)
                }
            }
        });
        match call.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(PeerError::Unreachable {
                    why: String::from("this process ends"),
                }),
            },
        }
    }
}

fn check_cluster(vault: &OwnedVault, cluster: ClusterId) -> Result<(), PeerError> {
    if vault.cluster == cluster {
        return Ok(());
    }
    // Numbers of another cluster mean nothing here.
    Err(PeerError::Fenced {
        why: format!("the vault is claimed by {}, not by {cluster}", vault.cluster),
    })
}

fn check_session(vault: &OwnedVault, held: &Held, session: IndexSession) -> Result<IndexSession, PeerError> {
    check_cluster(vault, session.cluster)?;
    if !held.admits(session.session) {
        return Err(PeerError::Fenced {
            why: format!("session {} is over", session.session),
        });
    }
    Ok(IndexSession {
        // ◆ Touched in the newest sweep that this owner knows of, also for a session that began before.
        start_epoch: session.start_epoch.max(held.sweep_epoch),
        ..session
    })
}

/// Applies `change` to what is held of `entries`, and says of the rest that it is not.
async fn change<F, R>(
    vault: &OwnedVault,
    held: &Held,
    entries: &[(Asked, Location)],
    change: F,
) -> Result<Vec<Changed>, PeerError>
where
    F: FnOnce(Vec<(ChunkId, Location)>) -> R,
    R: Future<Output = Result<(), IndexError>>,
{
    let taken: Vec<bool> = entries.iter().map(|(asked, _)| held.holds(asked)).collect();
    let ours: Vec<(ChunkId, Location)> = entries
        .iter()
        .zip(&taken)
        .filter(|(_, taken)| **taken)
        .map(|((asked, at), _)| (asked.id, *at))
        .collect();
    if !ours.is_empty() {
        change(ours).await.map_err(|error| vault.failed(error))?;
    }
    let of = |taken: bool| if taken { Changed::Taken } else { Changed::NotHeld };
    Ok(taken.into_iter().map(of).collect())
}

#[async_trait]
impl SlotPeer for Owner {
    async fn lookup(
        &self,
        vault: VaultId,
        session: IndexSession,
        asked: Vec<Asked>,
        claimant: u64,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        let count = asked.len();
        let answers = self.run(vault, move |vault, held| async move {
            let session = check_session(&vault, &held, session)?;
            let places: Vec<usize> = (0..asked.len()).filter(|at| held.holds(&asked[*at])).collect();
            let ids: Vec<ChunkId> = places.iter().map(|at| asked[*at].id).collect();
            let found = vault
                .index
                .lookup(session, &ids)
                .await
                .map_err(|error| vault.failed(error))?;
            let mut answers = vec![None; asked.len()];
            let mut claims = vault.claims();
            let now = Instant::now();
            for (place, mut answer) in places.into_iter().zip(found) {
                if claimant != 0 && answer == Answer::New && claims.claim(asked[place].id, claimant, now) {
                    answer = Answer::Claimed;
                }
                answers[place] = Some(answer);
            }
            Ok(answers)
        });
        let answers = answers
            .await
            .map(|answers| answers.unwrap_or_else(|| vec![None; count]));
        self.counts.note_answers(&answers);
        answers
    }

    async fn insert(
        &self,
        vault: VaultId,
        session: IndexSession,
        entries: Vec<(Asked, Location)>,
        whole_at: u64,
    ) -> Result<Vec<Changed>, PeerError> {
        let count = entries.len();
        let changed = self.run(vault, move |vault, held| async move {
            let session = check_session(&vault, &held, session)?;
            let is_own =
                |at: &Location| at.pack.writer.cluster == session.cluster && at.pack.writer.session == session.session;
            if let Some((_, at)) = entries.iter().find(|(_, at)| !is_own(at)) {
                return Err(PeerError::Refused {
                    why: format!("pack {} is not of session {}", at.pack, session.session),
                });
            }
            let index = &vault.index;
            // Who asked under another map may have sent pieces of slots that are held here elsewhere, and of slots that are here and not held nobody sent any.
            let is_whole =
                whole_at != 0 && whole_at == held.version && entries.iter().all(|(asked, _)| held.holds(asked));
            let groups = if is_whole { held.groups_within(index) } else { 0 };
            let changed = change(&vault, &held, &entries, async |ours| {
                index.insert_packs(session, &ours, groups).await
            })
            .await?;
            let mut claims = vault.claims();
            for (asked, _) in &entries {
                claims.settle(&asked.id);
            }
            Ok(changed)
        });
        let changed = changed
            .await
            .map(|changed| changed.unwrap_or_else(|| vec![Changed::NotHeld; count]));
        self.counts.note_inserts(&changed);
        changed
    }

    async fn locate(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        asked: Vec<Asked>,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        let count = asked.len();
        let answers = self.run(vault, move |vault, held| async move {
            check_cluster(&vault, cluster)?;
            let places: Vec<usize> = (0..asked.len()).filter(|at| held.holds(&asked[*at])).collect();
            let ids: Vec<ChunkId> = places.iter().map(|at| asked[*at].id).collect();
            let found = vault.index.locate(&ids).await.map_err(|error| vault.failed(error))?;
            let mut answers = vec![None; asked.len()];
            for (place, at) in places.into_iter().zip(found) {
                answers[place] = Some(at.map_or(Answer::New, Answer::Known));
            }
            Ok(answers)
        });
        Ok(answers.await?.unwrap_or_else(|| vec![None; count]))
    }

    async fn replace(
        &self,
        vault: VaultId,
        session: IndexSession,
        moves: Vec<(Asked, Location, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        let count = moves.len();
        let changed = self.run(vault, move |vault, held| async move {
            let session = check_session(&vault, &held, session)?;
            let is_own =
                |to: &Location| to.pack.writer.cluster == session.cluster && to.pack.writer.session == session.session;
            if let Some((_, _, to)) = moves.iter().find(|(_, _, to)| !is_own(to)) {
                return Err(PeerError::Refused {
                    why: format!("pack {} is not of session {}", to.pack, session.session),
                });
            }
            let places: Vec<usize> = (0..moves.len()).filter(|at| held.holds(&moves[*at].0)).collect();
            let ours: Vec<(ChunkId, Location, Location)> = places
                .iter()
                .map(|at| (moves[*at].0.id, moves[*at].1, moves[*at].2))
                .collect();
            let replaced = vault
                .index
                .rocks()
                .replace(session, &ours)
                .await
                .map_err(|error| vault.failed(error))?;
            let mut changed = vec![Changed::NotHeld; moves.len()];
            for (place, replaced) in places.into_iter().zip(replaced) {
                changed[place] = if replaced { Changed::Taken } else { Changed::Otherwise };
            }
            Ok(changed)
        });
        Ok(changed.await?.unwrap_or_else(|| vec![Changed::NotHeld; count]))
    }

    async fn mark_lost(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        entries: Vec<(Asked, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        let count = entries.len();
        let changed = self.run(vault, move |vault, held| async move {
            check_cluster(&vault, cluster)?;
            let index = &vault.index;
            change(&vault, &held, &entries, async |ours| index.mark_lost(&ours).await).await
        });
        Ok(changed.await?.unwrap_or_else(|| vec![Changed::NotHeld; count]))
    }

    async fn add_damage(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        damage: Vec<(PackId, Option<u32>)>,
    ) -> Result<(), PeerError> {
        let done = self.run(vault, move |vault, _held| async move {
            check_cluster(&vault, cluster)?;
            for (pack, frame) in damage {
                vault
                    .index
                    .add_damage(pack, frame)
                    .await
                    .map_err(|error| vault.failed(error))?;
            }
            Ok(())
        });
        done.await?.ok_or_else(|| PeerError::Failed {
            why: format!("vault {vault} is not open here"),
        })
    }

    async fn damage(&self, vault: VaultId, cluster: ClusterId) -> Result<Vec<(PackId, Option<u32>)>, PeerError> {
        let noted = self.run(vault, move |vault, _held| async move {
            check_cluster(&vault, cluster)?;
            vault.index.damage().await.map_err(|error| vault.failed(error))
        });
        Ok(noted.await?.unwrap_or_default())
    }

    async fn count(&self, vault: VaultId, cluster: ClusterId) -> Result<u64, PeerError> {
        let counted = self.run(vault, move |vault, _held| async move {
            check_cluster(&vault, cluster)?;
            vault.index.count().await.map_err(|error| vault.failed(error))
        });
        Ok(counted.await?.unwrap_or(0))
    }

    async fn packs(&self, vault: VaultId, wave: u64) -> Result<bytes::Bytes, PeerError> {
        self.lists.wait(vault, wave).await.ok_or_else(|| PeerError::Failed {
            why: format!("no list of the packs of vault {vault} was made here"),
        })
    }
}
