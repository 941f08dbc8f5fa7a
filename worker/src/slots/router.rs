//! The index of a vault as a session sees it: each id is asked for where the map says.
//!
//! What it guards:
//! 1. Nothing here fails a backup: an owner that is away, or does not hold a slot any more, makes its ids new.
//! 2. What it remembers of a slot is the *oldest* grant that answered `known` or took an insert. ◆ A commit names these slots, and counts only if none
//!    of them was granted anew since; those that were are asked again first ([`Routed::moved`], [`Routed::asked_again`]).
//! 3. ◆ An insert is sent until it is acknowledged. One that its owner does not take within a few seconds goes on beside the backup, and the commit waits
//!    for it, a bounded time; a slot that never took one is named.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;
use tresor_proto::ids::WorkerId;
use tresor_storage::Kind;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, VaultId};
use tresor_storage::index::slot::{SlotSet, slot_of};
use tresor_storage::index::{Answer, ChunkIndex, IndexError, IndexSession};
use tresor_storage::limits::INDEX_BATCH;

use super::batch::Batcher;
use super::map::{SlotMap, SlotOwner};
use super::peer::{PeerError, SlotPeer};
use super::peers::Peers;
use super::view::Views;
use super::wire::{Asked, Changed, EPOCHS_MAX, IDS_MAX};
use crate::backup::Shares;

/// How long an answer may take, and a change, whoever is asked: this process has no wire that would tell, and its disk may stand still.
const LOOKUP: Duration = Duration::from_secs(3);
const CHANGE: Duration = Duration::from_secs(10);
/// How long an insert holds up its pack: an owner that lost its connection is there again by then.
const INSERT_PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries of an insert.
const INSERT_PAUSE: Duration = Duration::from_millis(250);
/// How long an insert is tried in all: longer than a dead owner's lease and the grant of its slots to somebody else.
const INSERT_TIME: Duration = Duration::from_secs(120);
/// How long to wait for a map that the log has and this worker has not: it comes within a second, unless no coordinator is there.
const NEWS: Duration = Duration::from_secs(15);
/// Inserts that go on beside the backup. More wait: each holds the entries of a pack, some 100 KB.
const INSERTS_BESIDE: usize = 256;

/// Slots that answers stand on.
#[derive(Debug, Default)]
struct Used {
    /// By slot, the oldest grant that answered `known` or took an insert.
    epochs: BTreeMap<u16, u64>,
    /// Slots that did not take an insert.
    missing: SlotSet,
}

impl Used {
    fn note(&mut self, asked: &Asked) {
        self.epochs.entry(slot_of(&asked.id)).or_insert(asked.epoch);
    }
}

struct Shared {
    vault: VaultId,
    cluster: ClusterId,
    peers: Arc<Peers>,
    views: Views,
    /// Under which number what is new is claimed: of two who read for one session each is one.
    claimant: u64,
    used: Mutex<Used>,
}

/// Who gathers for an owner: for which session, and where the owner is.
type Gathering = (IndexSession, SlotOwner, Batcher);
/// What one owner is asked or told: with each id its place in the question, and what goes along.
type ForOwner<T> = (usize, Vec<(usize, Asked, T)>);

/// The index of a vault, for one session. Clones share what it remembers.
#[derive(Clone)]
pub(crate) struct Routed {
    shared: Arc<Shared>,
    batchers: Arc<Mutex<HashMap<WorkerId, Gathering>>>,
    inserts: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl std::fmt::Debug for Routed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routed")
            .field("vault", &self.shared.vault)
            .finish_non_exhaustive()
    }
}

/// What answers to one reader of a session stand on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StandsOn {
    /// By slot, the oldest grant that answered `known` or took an insert.
    pub(crate) epochs: BTreeMap<u16, u64>,
    /// Slots that did not take an insert.
    pub(crate) missing: SlotSet,
}

/// A number that nobody else claims under: 63 random bits, and not zero.
fn rand_claimant() -> u64 {
    u64::from_be_bytes(tresor_storage::ids::random_bytes()) | 1
}

/// What a commit says of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct IndexUse {
    /// Slots whose answers it stands on.
    pub(crate) slots: SlotSet,
    /// The map under which they all stand.
    pub(crate) version: u64,
    /// Slots that did not take an insert: they lack entries of this session.
    pub(crate) missing: SlotSet,
}

impl Routed {
    pub(crate) fn new(vault: VaultId, cluster: ClusterId, peers: Arc<Peers>, views: Views) -> Self {
        Self {
            shared: Arc::new(Shared {
                vault,
                cluster,
                peers,
                views,
                claimant: rand_claimant(),
                used: Mutex::default(),
            }),
            batchers: Arc::default(),
            inserts: Arc::default(),
        }
    }

    /// Slots that were granted anew since they answered: their ids are to be asked for again.
    fn moved_slots(&self) -> SlotSet {
        let map = self.shared.views.map();
        let used = self.shared.used();
        let mut moved = SlotSet::default();
        for (slot, epoch) in &used.epochs {
            if map.grant(*slot).is_none_or(|grant| grant.epoch != *epoch) {
                moved.insert(*slot);
            }
        }
        moved
    }

    /// What a commit says now; none while slots have moved.
    pub(crate) fn index_use(&self) -> Option<IndexUse> {
        let map = self.shared.views.map();
        let used = self.shared.used();
        let mut slots = SlotSet::default();
        for (slot, epoch) in &used.epochs {
            if map.grant(*slot).is_none_or(|grant| grant.epoch != *epoch) {
                return None;
            }
            slots.insert(*slot);
        }
        Some(IndexUse {
            slots,
            version: map.version,
            missing: used.missing.clone(),
        })
    }

    /// What it stands on so far, for who commits instead: the slots, each with the oldest grant that answered, and those that did not take an insert.
    pub(crate) fn stands_on(&self) -> StandsOn {
        let used = self.shared.used();
        StandsOn {
            epochs: used.epochs.clone(),
            missing: used.missing.clone(),
        }
    }

    /// ◆ Stands on what another reader of the session was answered, too. Returns when this worker's map is as new as the answers, or after a while:
    /// else a newer grant would look like one that is gone.
    pub(crate) async fn take_over(&self, other: &StandsOn) {
        if let Some(newest) = other.epochs.values().max() {
            let mut views = self.shared.views.clone();
            let _ = tokio::time::timeout(NEWS, views.newer_than(newest.saturating_sub(1))).await;
        }
        let mut used = self.shared.used();
        for (slot, epoch) in &other.epochs {
            let oldest = used.epochs.entry(*slot).or_insert(*epoch);
            *oldest = (*oldest).min(*epoch);
        }
        used.missing = used.missing.union(&other.missing);
    }

    fn batcher(&self, owner: &SlotOwner, session: IndexSession) -> Batcher {
        let mut batchers = self.batchers.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker that was started again may be reached elsewhere.
        if let Some((of, at, batcher)) = batchers.get(&owner.worker)
            && *of == session
            && at == owner
        {
            return batcher.clone();
        }
        let (shared, to) = (Arc::clone(&self.shared), owner.clone());
        let batcher = Batcher::new(move |asked| {
            let (shared, to) = (Arc::clone(&shared), to.clone());
            async move { shared.look_up(&to, session, asked).await }
        });
        batchers.insert(owner.worker, (session, owner.clone(), batcher.clone()));
        batcher
    }

    /// Returns when the owners have taken it, or after a few seconds in which some did not: then it is sent on beside.
    async fn insert_at_owners(&self, session: IndexSession, entries: Vec<(ChunkId, Location)>, are_whole: bool) {
        let shared = Arc::clone(&self.shared);
        let mut work = tokio::spawn(async move { shared.insert(session, entries, are_whole).await }.in_current_span());
        if tokio::time::timeout(INSERT_PATIENCE, &mut work).await.is_ok() {
            return;
        }
        tracing::warn!(vault = %self.shared.vault, "owners of slots have not taken a pack yet: it is sent again while the backup goes on");
        let mut inserts = self.inserts.lock().await;
        while inserts.len() >= INSERTS_BESIDE {
            inserts.join_next().await;
        }
        inserts.spawn(async move {
            let _ = work.await;
        });
    }
}

impl Shared {
    fn used(&self) -> MutexGuard<'_, Used> {
        // A panic under it is a panic of its session.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One question to one owner; whatever is wrong makes its ids new.
    async fn look_up(&self, owner: &SlotOwner, session: IndexSession, asked: Vec<Asked>) -> Vec<Option<Answer>> {
        let count = asked.len();
        let Some(peer) = self.peers.of(owner) else {
            return vec![None; count];
        };
        match within(LOOKUP, peer.lookup(self.vault, session, asked.clone(), self.claimant)).await {
            Ok(answers) => {
                self.peers.resume(owner.worker);
                let mut used = self.used();
                for (asked, answer) in asked.iter().zip(&answers) {
                    if let Some(Answer::Known(_)) = answer {
                        used.note(asked);
                    }
                }
                answers
            }
            Err(error) => {
                self.note_failure(owner, &error);
                vec![None; count]
            }
        }
    }

    fn note_failure(&self, owner: &SlotOwner, error: &PeerError) {
        let is_news = match error {
            PeerError::Unreachable { .. } => self.peers.suspend(owner.worker),
            _ => true,
        };
        if is_news {
            tracing::warn!(worker = owner.name, vault = %self.vault, %error, "slots of the index do not answer: their chunks count as new");
        }
    }

    /// Groups what each owner is to be asked or told. Ids of nobody's slots are left out.
    fn by_owner<T: Copy>(map: &SlotMap, of: impl Iterator<Item = (usize, ChunkId, T)>) -> Vec<ForOwner<T>> {
        let mut groups: BTreeMap<usize, Vec<(usize, Asked, T)>> = BTreeMap::new();
        for (at, id, what) in of {
            if let Some(grant) = map.grant_of(&id) {
                let asked = Asked { id, epoch: grant.epoch };
                groups.entry(grant.owner).or_default().push((at, asked, what));
            }
        }
        groups.into_iter().collect()
    }

    /// Sends entries until each is acknowledged under the grant that is then in force; what is not, in the end, is noted.
    async fn insert(&self, session: IndexSession, entries: Vec<(ChunkId, Location)>, are_whole: bool) {
        let began = Instant::now();
        let mut left = entries;
        let mut is_first = are_whole;
        loop {
            let map = self.views.map();
            let whole_at = if is_first { map.version } else { 0 };
            left = self.insert_once(&map, session, left, whole_at).await;
            if left.is_empty() {
                return;
            }
            if began.elapsed() >= INSERT_TIME {
                break;
            }
            is_first = false;
            // A grant that is newer is why it was not held, or will be.
            let mut views = self.views.clone();
            tokio::select! {
                () = views.newer_than(map.version) => {}
                () = sleep(INSERT_PAUSE) => {}
            }
        }
        tracing::warn!(vault = %self.vault, count = left.len(), "entries were not taken by the owners of their slots: those are made anew before space is freed");
        let mut used = self.used();
        for (id, _) in &left {
            used.missing.insert(slot_of(id));
        }
    }

    /// One try; returns what was not taken.
    async fn insert_once(
        &self,
        map: &SlotMap,
        session: IndexSession,
        entries: Vec<(ChunkId, Location)>,
        whole_at: u64,
    ) -> Vec<(ChunkId, Location)> {
        let mut left = Vec::new();
        let mut sends = Vec::new();
        for (id, at) in &entries {
            if map.grant_of(id).is_none() {
                left.push((*id, *at));
            }
        }
        let entries = entries.into_iter().enumerate().map(|(place, (id, at))| (place, id, at));
        for (owner, group) in Self::by_owner(map, entries) {
            let owner = &map.owners[owner];
            let parts = parts(group.into_iter().map(|(_, asked, at)| (asked, at)).collect(), IDS_MAX);
            // A pack in several messages is in no single one whole.
            let whole_at = if parts.len() == 1 { whole_at } else { 0 };
            for part in parts {
                sends.push(async move {
                    let done = match self.peers.of(owner) {
                        Some(peer) => within(CHANGE, peer.insert(self.vault, session, part.clone(), whole_at)).await,
                        None => Err(PeerError::Unreachable {
                            why: String::from("it did not answer a moment ago"),
                        }),
                    };
                    (owner, part, done)
                });
            }
        }
        for (owner, part, done) in futures::future::join_all(sends).await {
            match done {
                Ok(changed) => {
                    self.peers.resume(owner.worker);
                    let mut used = self.used();
                    for ((asked, at), changed) in part.into_iter().zip(changed) {
                        match changed {
                            Changed::Taken => used.note(&asked),
                            Changed::Otherwise | Changed::NotHeld => left.push((asked.id, at)),
                        }
                    }
                }
                Err(error) => {
                    self.note_failure(owner, &error);
                    left.extend(part.into_iter().map(|(asked, at)| (asked.id, at)));
                }
            }
        }
        left
    }

    async fn at_all<T, F, R>(&self, what: &'static str, call: F) -> Vec<T>
    where
        F: Fn(Arc<dyn SlotPeer>) -> R,
        R: Future<Output = Result<T, PeerError>>,
    {
        let map = self.views.map();
        let calls = map.owners.iter().filter_map(|owner| {
            let call = call(self.peers.of(owner)?);
            Some(async move { (owner, within(CHANGE, call).await) })
        });
        let mut all = Vec::new();
        for (owner, done) in futures::future::join_all(calls).await {
            match done {
                Ok(done) => all.push(done),
                Err(error) => {
                    self.note_failure(owner, &error);
                    tracing::warn!(worker = owner.name, vault = %self.vault, %error, what, "an owner of slots did not do it");
                }
            }
        }
        all
    }
}

/// A call that ends.
async fn within<T>(time: Duration, call: impl Future<Output = Result<T, PeerError>>) -> Result<T, PeerError> {
    tokio::time::timeout(time, call).await.unwrap_or_else(|_| {
        Err(PeerError::Unreachable {
            why: format!("nothing within {} s", time.as_secs()),
        })
    })
}

/// Splits into messages: so many ids, and so many different grants.
fn parts<T: Copy>(all: Vec<(Asked, T)>, ids_max: usize) -> Vec<Vec<(Asked, T)>> {
    let mut parts: Vec<Vec<(Asked, T)>> = Vec::new();
    let mut epochs: Vec<u64> = Vec::new();
    for one in all {
        let is_new = !epochs.contains(&one.0.epoch);
        let is_full = parts
            .last()
            .is_none_or(|part| part.len() >= ids_max || (is_new && epochs.len() >= EPOCHS_MAX));
        if is_full {
            parts.push(Vec::new());
            epochs.clear();
        }
        if !epochs.contains(&one.0.epoch) {
            epochs.push(one.0.epoch);
        }
        parts.last_mut().expect("there is one").push(one);
    }
    parts
}

#[async_trait]
impl Shares for Routed {
    fn moved(&self) -> SlotSet {
        self.moved_slots()
    }

    async fn news(&self) {
        let wait = async {
            let mut views = self.shared.views.clone();
            while self.moved_slots().is_empty() {
                views.newer_than(self.shared.views.map().version).await;
            }
        };
        let _ = tokio::time::timeout(NEWS, wait).await;
    }

    fn ask_again(&self, slots: &SlotSet) {
        let mut used = self.shared.used();
        for slot in slots.iter() {
            used.epochs.remove(&slot);
        }
    }

    async fn insert_some(&self, session: IndexSession, entries: &[(ChunkId, Location)]) {
        self.insert_at_owners(session, entries.to_vec(), false).await;
    }

    async fn settle(&self) {
        let mut inserts = self.inserts.lock().await;
        while inserts.join_next().await.is_some() {}
    }
}

fn unreachable(why: &str) -> IndexError {
    IndexError::Database {
        what: "ask the owners of its slots",
        kind: Kind::Retry,
        source: why.into(),
    }
}

#[async_trait]
impl ChunkIndex for Routed {
    async fn lookup(&self, session: IndexSession, ids: &[ChunkId]) -> Result<Vec<Answer>, IndexError> {
        let map = self.shared.views.map();
        let mut answers = vec![Answer::New; ids.len()];
        let all = ids.iter().enumerate().map(|(at, id)| (at, *id, at));
        let asks = Shared::by_owner(&map, all).into_iter().flat_map(|(owner, group)| {
            let batcher = self.batcher(&map.owners[owner], session);
            let group = group.into_iter().map(|(_, asked, at)| (asked, at)).collect();
            parts(group, INDEX_BATCH).into_iter().map(move |part| {
                let batcher = batcher.clone();
                async move {
                    let asked = part.iter().map(|(asked, _)| *asked).collect();
                    (batcher.ask(asked).await, part)
                }
            })
        });
        for (found, part) in futures::future::join_all(asks.collect::<Vec<_>>()).await {
            for ((_, at), answer) in part.into_iter().zip(found) {
                answers[at] = answer.unwrap_or(Answer::New);
            }
        }
        Ok(answers)
    }

    /// All entries of the packs that they name.
    async fn insert(&self, session: IndexSession, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        self.insert_at_owners(session, entries.to_vec(), true).await;
        Ok(())
    }

    async fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let shared = &self.shared;
        let map = shared.views.map();
        let mut is_whole = entries.iter().all(|(id, _)| map.grant_of(id).is_some());
        let all = entries.iter().map(|(id, at)| (0, *id, *at));
        for (owner, group) in Shared::by_owner(&map, all) {
            let owner = &map.owners[owner];
            for part in parts(group.into_iter().map(|(_, asked, at)| (asked, at)).collect(), IDS_MAX) {
                let marked = match shared.peers.of(owner) {
                    Some(peer) => within(CHANGE, peer.mark_lost(shared.vault, shared.cluster, part)).await,
                    None => Err(PeerError::Unreachable { why: String::new() }),
                };
                is_whole &= marked.is_ok_and(|all| !all.contains(&Changed::NotHeld));
            }
        }
        if is_whole {
            Ok(())
        } else {
            Err(unreachable("not all of them took what is lost"))
        }
    }

    async fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, IndexError> {
        let shared = &self.shared;
        let map = shared.views.map();
        let mut found = vec![None; ids.len()];
        let all = ids.iter().enumerate().map(|(at, id)| (at, *id, at));
        for (owner, group) in Shared::by_owner(&map, all) {
            let owner = &map.owners[owner];
            let Some(peer) = shared.peers.of(owner) else { continue };
            for part in parts(
                group.into_iter().map(|(_, asked, at)| (asked, at)).collect(),
                INDEX_BATCH,
            ) {
                let asked = part.iter().map(|(asked, _)| *asked).collect();
                // Readers have hints, and footers besides: an owner that is away costs them time.
                match within(LOOKUP, peer.locate(shared.vault, shared.cluster, asked)).await {
                    Ok(answers) => {
                        for ((_, at), answer) in part.into_iter().zip(answers) {
                            if let Some(Answer::Known(location)) = answer {
                                found[at] = Some(location);
                            }
                        }
                    }
                    Err(error) => shared.note_failure(owner, &error),
                }
            }
        }
        Ok(found)
    }

    /// Noted at every owner that answers, because every session asks all of them for it.
    async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        let shared = &self.shared;
        let noted = shared.at_all("note damage", |peer| {
            let (vault, cluster) = (shared.vault, shared.cluster);
            async move { peer.add_damage(vault, cluster, vec![(pack, frame_offset)]).await }
        });
        if noted.await.is_empty() {
            return Err(unreachable("none of them noted damage"));
        }
        Ok(())
    }

    async fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError> {
        let shared = &self.shared;
        let noted = shared.at_all("tell known damage", |peer| {
            let (vault, cluster) = (shared.vault, shared.cluster);
            async move { peer.damage(vault, cluster).await }
        });
        let mut all: Vec<_> = noted.await.into_iter().flatten().collect();
        all.sort_unstable();
        all.dedup();
        Ok(all)
    }

    async fn count(&self) -> Result<u64, IndexError> {
        let shared = &self.shared;
        let counted = shared.at_all("count entries", |peer| {
            let (vault, cluster) = (shared.vault, shared.cluster);
            async move { peer.count(vault, cluster).await }
        });
        Ok(counted.await.into_iter().sum())
    }
}
