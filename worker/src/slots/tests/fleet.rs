//! Workers of one cluster in one process, each with its own databases, over one store in memory. The log is a value: who holds which slot, which sessions
//! are open, which commits counted.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tresor_proto::ids::WorkerId;
use tresor_proto::v1;
use tresor_storage::backend::Backend;
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{ClusterId, ItemId, Location, PackId, PointId, SessionId, VaultId};
use tresor_storage::index::slot::SLOTS;
use tresor_storage::index::{Answer, ChunkIndex, IndexSession};
use tresor_storage::keys::{Key, Keyring};
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::vault::claim::ListedClaim;
use tresor_storage::vault::{Vault, VaultReader};

use super::store::Counted;
use crate::agent::error::JobError;
use crate::agent::port::{CallError, LeaseVault, Life};
use crate::backup::{self, BackupDisk, BackupOutcome, BackupRequest, Changes, Effort, Engine, Shares, Steering};
use crate::control::{Commit, Control, ControlError, OpenSession, PointRecord, Session};
use crate::error::WorkerError;
use crate::restore::{self, RestoreRequest};
use crate::sink::{self, SinkSpec};
use crate::slots::keeper::{Keeper, KeeperParts, VaultSource};
use crate::slots::kept::Kept;
use crate::slots::lists::Lists;
use crate::slots::map::{SlotMap, SlotOwner};
use crate::slots::owner::Owner;
use crate::slots::peer::{PeerError, SlotPeer};
use crate::slots::peers::{Dial, Peers};
use crate::slots::router::Routed;
use crate::slots::view::{View, Views};
use crate::slots::wire::{Asked, Changed};
use crate::source::{self, SourceSpec};

pub(super) const CLUSTER: ClusterId = ClusterId(7);

/// A slot in the log.
#[derive(Debug, Clone, Copy)]
struct Granted {
    worker: u64,
    epoch: u64,
    since: u64,
}

/// What the coordinators know.
#[derive(Debug, Default)]
struct LogState {
    index: u64,
    grants: BTreeMap<u16, Granted>,
    lives: BTreeMap<u64, Life>,
    open: BTreeSet<u64>,
    points: BTreeMap<PointId, [u8; 32]>,
    refused: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<LogState>>);

impl Log {
    fn state(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap()
    }

    fn map(&self) -> SlotMap {
        let state = self.state();
        let lives: Vec<(u64, Life)> = state.lives.iter().map(|(worker, life)| (*worker, *life)).collect();
        let runs = state.grants.iter().map(|(slot, granted)| v1::SlotRun {
            first: u32::from(*slot),
            count: 1,
            owner: u32::try_from(lives.iter().position(|(worker, _)| *worker == granted.worker).unwrap()).unwrap(),
            owner_epoch: granted.epoch,
            floor_epoch: 0,
            since: granted.since,
        });
        SlotMap::read(v1::SlotMap {
            version: state.grants.values().map(|granted| granted.epoch).max().unwrap_or(0),
            applied: state.index,
            open_sessions: state.open.iter().copied().collect(),
            sweep_epoch: 0,
            runs: runs.collect(),
            owners: lives
                .iter()
                .map(|(worker, life)| v1::SlotOwner {
                    worker: *worker,
                    name: format!("w{worker}"),
                    serves: format!("w{worker}:1"),
                    life: life.0.to_vec().into(),
                })
                .collect(),
        })
        .unwrap()
    }

    fn deal(&self, workers: &[u64]) {
        let mut state = self.state();
        state.index += 1;
        let epoch = state.index;
        for slot in 0..SLOTS {
            let worker = workers[usize::from(slot) % workers.len()];
            if state.grants.get(&slot).is_some_and(|granted| granted.worker == worker) {
                continue;
            }
            let granted = Granted {
                worker,
                epoch,
                since: epoch,
            };
            state.grants.insert(slot, granted);
        }
    }

    /// Points that count.
    pub(super) fn points(&self) -> usize {
        self.state().points.len()
    }

    /// Commits that were refused because slots had moved.
    pub(super) fn refused(&self) -> u64 {
        self.state().refused
    }
}

/// Decides by the log, for one session.
struct LogControl {
    log: Log,
    routed: Routed,
    /// Called once, before the first commit.
    before_commit: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[async_trait]
impl Control for LogControl {
    async fn open_session(&self, _: OpenSession) -> Result<Session, ControlError> {
        let mut state = self.log.state();
        state.index += 1;
        let session = state.index;
        state.open.insert(session);
        Ok(Session {
            cluster: CLUSTER,
            session: SessionId(session),
            start_epoch: 0,
        })
    }

    async fn commit(&self, commit: Commit) -> Result<(), ControlError> {
        let first = self.before_commit.lock().unwrap().take();
        if let Some(first) = first {
            first();
        }
        let moved = || ControlError::Moved {
            why: String::from("moved"),
        };
        let used = self.routed.index_use();
        let mut state = self.log.state();
        state.index += 1;
        let stands = used.is_some_and(|used| {
            used.slots.iter().all(|slot| {
                state
                    .grants
                    .get(&slot)
                    .is_some_and(|granted| granted.epoch <= used.version)
            })
        });
        if !stands {
            state.refused += 1;
            return Err(moved());
        }
        assert!(state.open.contains(&commit.session.0));
        state.points.insert(commit.point, commit.manifest_hash);
        Ok(())
    }

    async fn points(&self) -> Result<Vec<PointRecord>, ControlError> {
        Ok(Vec::new())
    }

    async fn pins(&self) -> Vec<PointId> {
        Vec::new()
    }

    async fn close_session(&self, session: SessionId) {
        self.log.state().open.remove(&session.0);
    }
}

/// Another worker as seen over a network that can be cut.
struct Via {
    net: Net,
    worker: u64,
}

impl Via {
    /// The process that is that worker now.
    fn reach(&self) -> Result<Owner, PeerError> {
        self.net.calls.fetch_add(1, Ordering::Relaxed);
        match self.net.members.lock().unwrap().get(&self.worker) {
            Some((owner, is_up)) if is_up.load(Ordering::Relaxed) => Ok(owner.clone()),
            _ => Err(PeerError::Unreachable {
                why: String::from("cut off"),
            }),
        }
    }
}

#[async_trait]
impl SlotPeer for Via {
    async fn lookup(
        &self,
        vault: VaultId,
        session: IndexSession,
        asked: Vec<Asked>,
        claimant: u64,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        self.reach()?.lookup(vault, session, asked, claimant).await
    }

    async fn insert(
        &self,
        vault: VaultId,
        session: IndexSession,
        entries: Vec<(Asked, Location)>,
        whole_at: u64,
    ) -> Result<Vec<Changed>, PeerError> {
        self.reach()?.insert(vault, session, entries, whole_at).await
    }

    async fn locate(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        asked: Vec<Asked>,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        self.reach()?.locate(vault, cluster, asked).await
    }

    async fn replace(
        &self,
        vault: VaultId,
        session: IndexSession,
        moves: Vec<(Asked, Location, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        self.reach()?.replace(vault, session, moves).await
    }

    async fn mark_lost(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        entries: Vec<(Asked, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        self.reach()?.mark_lost(vault, cluster, entries).await
    }

    async fn add_damage(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        damage: Vec<(PackId, Option<u32>)>,
    ) -> Result<(), PeerError> {
        self.reach()?.add_damage(vault, cluster, damage).await
    }

    async fn damage(&self, vault: VaultId, cluster: ClusterId) -> Result<Vec<(PackId, Option<u32>)>, PeerError> {
        self.reach()?.damage(vault, cluster).await
    }

    async fn count(&self, vault: VaultId, cluster: ClusterId) -> Result<u64, PeerError> {
        self.reach()?.count(vault, cluster).await
    }

    async fn packs(&self, vault: VaultId, wave: u64) -> Result<Bytes, PeerError> {
        self.reach()?.packs(vault, wave).await
    }
}

/// The owner that each worker is, and whether others reach it.
type Reached = HashMap<u64, (Owner, Arc<AtomicBool>)>;

/// Who can be reached, and how often somebody was.
#[derive(Clone, Default)]
pub(super) struct Net {
    members: Arc<Mutex<Reached>>,
    pub(super) calls: Arc<AtomicU64>,
}

impl Dial for Net {
    fn dial(&self, owner: &SlotOwner) -> Option<Arc<dyn SlotPeer>> {
        Some(Arc::new(Via {
            net: self.clone(),
            worker: owner.worker.0,
        }))
    }
}

/// One vault, in memory, once it is claimed; and another one beside it that cannot be opened.
struct OneVault {
    vault: Arc<Vault>,
    is_claimed: Arc<AtomicBool>,
}

/// Sorts before any other.
const SHUT: VaultId = VaultId([0; 16]);

fn lease_vault(id: VaultId) -> LeaseVault {
    LeaseVault {
        id,
        name: String::from("main"),
        url: String::from("memory:"),
        region: String::new(),
        profile: String::new(),
        key: Key::from_bytes([0; 32]),
        claim: Some(ListedClaim {
            number: 1,
            cluster: CLUSTER,
        }),
        header: None,
    }
}

#[async_trait]
impl VaultSource for OneVault {
    async fn claimed(&self, _: Life) -> Result<Vec<LeaseVault>, CallError> {
        let mut claimed = vec![lease_vault(SHUT)];
        if self.is_claimed.load(Ordering::Relaxed) {
            claimed.push(lease_vault(self.vault.id));
        }
        Ok(claimed)
    }

    async fn open(&self, vault: &LeaseVault) -> Result<Arc<Vault>, JobError> {
        if vault.id == SHUT {
            return Err(JobError::Lease {
                why: String::from("its store is not there"),
            });
        }
        Ok(Arc::clone(&self.vault))
    }
}

pub(super) struct Member {
    pub(super) owner: Owner,
    pub(super) peers: Arc<Peers>,
    views: watch::Sender<View>,
    kept: Arc<Kept>,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
}

pub(super) struct Fleet {
    pub(super) store: Arc<Counted>,
    pub(super) vault: Arc<Vault>,
    pub(super) log: Log,
    pub(super) net: Net,
    pub(super) members: BTreeMap<u64, Member>,
    is_claimed: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl Fleet {
    /// Workers 1 to `count`, with slots dealt in turn.
    pub(super) async fn new(count: u64) -> Self {
        let fleet = Self::prepared(count, true);
        fleet.whole().await;
        fleet
    }

    /// The same; the vault is claimed only by [`Self::claim`].
    pub(super) fn without_vault(count: u64) -> Self {
        Self::prepared(count, false)
    }

    /// The vault is claimed, and everybody is told.
    pub(super) fn claim(&self) {
        self.is_claimed.store(true, Ordering::Relaxed);
        self.publish();
    }

    fn prepared(count: u64, is_claimed: bool) -> Self {
        let store = Arc::new(Counted::default());
        let backend: Arc<dyn Backend> = Arc::clone(&store) as _;
        let vault = Arc::new(Vault::new(
            VaultId::random(),
            Profile::default(),
            backend,
            Keyring::generate(),
        ));
        let mut fleet = Self {
            store,
            vault,
            log: Log::default(),
            net: Net::default(),
            members: BTreeMap::new(),
            is_claimed: Arc::new(AtomicBool::new(true)),
            folder: tempfile::tempdir().unwrap(),
        };
        fleet.is_claimed.store(is_claimed, Ordering::Relaxed);
        for worker in 1..=count {
            fleet.start(worker);
        }
        fleet.deal(&(1..=count).collect::<Vec<_>>());
        fleet.publish();
        fleet
    }

    /// Where a worker's databases are.
    pub(super) fn folder_of(&self, worker: u64) -> PathBuf {
        self.folder.path().join(format!("w{worker}"))
    }

    /// A new process of a worker, on what its folder has. It is registered; its slots are not granted to it yet.
    pub(super) fn start(&mut self, worker: u64) {
        let folder = self.folder_of(worker);
        std::fs::create_dir_all(&folder).unwrap();
        let lists = Arc::new(Lists::default());
        let owner = Owner::new(Arc::clone(&lists));
        let is_up = Arc::new(AtomicBool::new(true));
        self.net.members.lock().unwrap().insert(worker, (owner.clone(), is_up));
        let peers = Arc::new(Peers::new(WorkerId(worker), owner.clone(), Box::new(self.net.clone())));
        let (views, receiver) = watch::channel(View::default());
        let kept = Arc::new(Kept::open(&folder));
        let keeper = Keeper::new(KeeperParts {
            me: WorkerId(worker),
            folder,
            owner: owner.clone(),
            peers: Arc::clone(&peers),
            lists,
            kept: Arc::clone(&kept),
            vaults: Arc::new(OneVault {
                vault: Arc::clone(&self.vault),
                is_claimed: Arc::clone(&self.is_claimed),
            }),
        });
        let stop = CancellationToken::new();
        let keeper = tokio::spawn(keeper.run(Views::new(receiver), stop.clone()));
        self.log.state().lives.insert(worker, Life::random());
        let member = Member {
            owner,
            peers,
            views,
            kept,
            stop,
            keeper,
        };
        self.members.insert(worker, member);
    }

    /// Ends a worker's process; others see it gone.
    pub(super) async fn stop(&mut self, worker: u64) {
        self.cut(worker);
        let member = self.members.remove(&worker).unwrap();
        member.stop.cancel();
        member.keeper.await.unwrap();
        self.net.members.lock().unwrap().remove(&worker);
    }

    /// Nobody reaches a worker.
    pub(super) fn cut(&self, worker: u64) {
        self.net.members.lock().unwrap()[&worker]
            .1
            .store(false, Ordering::Relaxed);
    }

    /// It is reached again.
    pub(super) fn mend(&self, worker: u64) {
        self.net.members.lock().unwrap()[&worker]
            .1
            .store(true, Ordering::Relaxed);
    }

    /// Grants all slots, dealt to `workers` in turn; those that a worker has already stay as they are.
    pub(super) fn deal(&self, workers: &[u64]) {
        self.log.deal(workers);
    }

    /// The same as [`Self::deal`], later.
    pub(super) fn dealer(&self, workers: Vec<u64>) -> impl FnOnce() + Send + use<> {
        let log = self.log.clone();
        move || log.deal(&workers)
    }

    /// Copies a stopped worker's databases.
    pub(super) fn copy_out(&self, worker: u64, to: &Path) {
        copy_folder(&self.folder_of(worker), to);
    }

    /// Puts copied databases in place of a stopped worker's; what it says of itself stays.
    pub(super) fn copy_in(&self, worker: u64, from: &Path) {
        let folder = self.folder_of(worker);
        let life = std::fs::read(folder.join("life")).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        copy_folder(from, &folder);
        std::fs::write(folder.join("life"), life).unwrap();
    }

    /// Grants a restarted worker its slots again; `keeps`: what it said it was, it is.
    pub(super) fn regrant(&self, worker: u64, keeps: bool) {
        let mut state = self.log.state();
        state.index += 1;
        let epoch = state.index;
        for granted in state.grants.values_mut().filter(|granted| granted.worker == worker) {
            granted.epoch = epoch;
            if !keeps {
                granted.since = epoch;
            }
        }
    }

    /// What a worker says it was before.
    pub(super) fn kept_life(&self, worker: u64) -> Option<Life> {
        self.members[&worker].kept.life()
    }

    pub(super) fn life(&self, worker: u64) -> Life {
        self.log.state().lives[&worker]
    }

    /// Tells everybody the newest map.
    pub(super) fn publish(&self) {
        for worker in self.members.keys() {
            self.tell(*worker);
        }
    }

    /// Tells one worker.
    pub(super) fn tell(&self, worker: u64) {
        let life = self.life(worker);
        let map = Arc::new(self.log.map());
        self.members[&worker].views.send_replace(View {
            life: Some(life),
            map,
            vaults: 1 + u64::from(self.is_claimed.load(Ordering::Relaxed)),
        });
    }

    /// Waits until every worker that is reached holds what it was granted, whole.
    pub(super) async fn whole(&self) {
        let all = async {
            loop {
                let map = self.log.map();
                let mut holds = true;
                for (worker, member) in &self.members {
                    let is_up = self.net.members.lock().unwrap()[worker].1.load(Ordering::Relaxed);
                    holds &= !is_up || member.owner.version().await == map.version;
                }
                let is_whole = holds
                    && self.members.iter().all(|(worker, member)| {
                        let mine = map.of(WorkerId(*worker), self.life(*worker));
                        let mut mine: BTreeMap<u16, u64> = mine.map(|(slot, grant)| (slot, grant.since)).collect();
                        let Some(vault) = member.owner.vault(self.vault.id) else {
                            return mine.is_empty();
                        };
                        for (slot, row) in vault.index().rocks().slots() {
                            if row.complete && mine.get(&slot) == Some(&row.since) {
                                mine.remove(&slot);
                            }
                        }
                        mine.is_empty()
                    });
                if is_whole {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .expect("slots became whole");
    }

    /// The index as a session on `worker` sees it.
    pub(super) fn routed(&self, worker: u64) -> Routed {
        let member = &self.members[&worker];
        let views = Views::new(member.views.subscribe());
        Routed::new(self.vault.id, CLUSTER, Arc::clone(&member.peers), views)
    }

    /// Backs up a disk on a worker.
    pub(super) async fn back_up(
        &self,
        worker: u64,
        disk: &Path,
        parent: Option<&Manifest>,
    ) -> Result<BackupOutcome, WorkerError> {
        self.back_up_and(worker, disk, parent, None).await
    }

    /// The same; something happens right before the first commit.
    pub(super) async fn back_up_and(
        &self,
        worker: u64,
        disk: &Path,
        parent: Option<&Manifest>,
        before_commit: Option<Box<dyn FnOnce() + Send>>,
    ) -> Result<BackupOutcome, WorkerError> {
        let routed = self.routed(worker);
        let index: Arc<dyn ChunkIndex> = Arc::new(routed.clone());
        let engine = Engine {
            vault: Arc::clone(&self.vault),
            reader: Arc::new(VaultReader::new(Arc::clone(&self.vault), Some(Arc::clone(&index)))),
            index,
            control: Arc::new(LogControl {
                log: self.log.clone(),
                routed: routed.clone(),
                before_commit: Mutex::new(before_commit),
            }),
            shares: Some(Arc::new(routed) as Arc<dyn Shares>),
            helpers: Vec::new(),
        };
        let source = source::open(&SourceSpec::new(disk)).await.unwrap();
        let request = BackupRequest {
            item: ItemId::random(),
            item_name: String::from("vm"),
            disks: vec![BackupDisk {
                name: String::from("vda"),
                source,
                changes: Changes::Unknown,
            }],
            parent: parent.cloned(),
            time: String::from("2026-01-01T00:00:00Z"),
            keep_until: None,
            consistency: Consistency::Crash,
            consistency_reason: String::new(),
            allow_live: false,
            effort: Effort {
                cores: 1,
                compression_level: 1,
            },
        };
        Box::pin(backup::run(&engine, request, Steering::default())).await
    }

    /// Restores a point with nothing but the store, and compares.
    pub(super) async fn check(&self, outcome: &BackupOutcome, disk: &Path) {
        let to = self.folder.path().join("restored.img");
        let root = outcome.manifest.disks[0].root;
        let request = RestoreRequest {
            disk: String::from("vda"),
            root,
            sink: sink::create(&SinkSpec::new(&to, root.size)).await.unwrap(),
            in_place: false,
            allow_damage: false,
            merge_gap: restore::MERGE_GAP_LOCAL,
            cores: 1,
            progress: Arc::default(),
            cancel: CancellationToken::default(),
        };
        let reader = Arc::new(VaultReader::new(Arc::clone(&self.vault), None));
        Box::pin(restore::run(&reader, request)).await.unwrap();
        assert!(
            std::fs::read(&to).unwrap() == std::fs::read(disk).unwrap(),
            "restored as it was"
        );
        std::fs::remove_file(&to).unwrap();
    }

    /// A disk of this process's folder: so many MiB that do not compress, the same for the same seed.
    pub(super) fn disk(&self, name: &str, mib: usize, seed: u64) -> PathBuf {
        let path = self.folder.path().join(name);
        let mut bytes = vec![0; mib << 20];
        let mut state = seed | 1;
        for word in bytes.chunks_exact_mut(8) {
            // xorshift64: cheap, and nothing in it repeats.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
