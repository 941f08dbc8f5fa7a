//! A vault in memory, worked on by the real pipelines.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tresor_storage::Result;
use tresor_storage::backend::{Backend, Memory};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{ItemId, Location, PackId, PointId, VaultId};
use tresor_storage::index::{ChunkIndex, MemoryIndex};
use tresor_storage::keys::PassphraseCost;
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::pack::{PackKeys, PackShape};
use tresor_storage::recipe::{NodeSource, Tree};
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::create::{NewVault, Prepared};
use tresor_storage::vault::header::Redundancy;
use tresor_storage::vault::{Vault, VaultReader, names};
use tresor_storage::verify::{self, Level, Report, Target};
use tresor_worker::WorkerError;
use tresor_worker::backup::{self, BackupDisk, BackupOutcome, BackupRequest, Changes, Effort, Engine, Steering};
use tresor_worker::restore::{self, MERGE_GAP_LOCAL, RestoreOutcome, RestoreRequest};

use crate::control::MemoryControl;
use crate::disk::{Disk, MemorySink};

/// A vault in memory with everything that works on it.
pub struct Stage {
    /// The objects, behind every wrapper.
    pub memory: Memory,
    /// The vault; its backend may be a wrapper of `memory`.
    pub vault: Arc<Vault>,
    /// Its index.
    pub index: Arc<MemoryIndex>,
    /// Who decides.
    pub control: Arc<MemoryControl>,
    /// The one item.
    pub item: ItemId,
    minute: AtomicU64,
}

impl Stage {
    /// Makes a vault with the real code, on a store in memory that may be wrapped afterwards.
    pub async fn new() -> Self {
        Self::wrapped(|memory| Arc::new(memory)).await
    }

    /// As [`Stage::new`]; what works on the vault afterwards sees its store through a wrapper.
    pub async fn wrapped(wrap: impl FnOnce(Memory) -> Arc<dyn Backend>) -> Self {
        let memory = Memory::new();
        let spec = NewVault {
            url: String::from("memory://stage"),
            region: String::new(),
            profile: Profile::default().name().to_owned(),
            redundancy: Redundancy::Local,
            holder: String::from("test"),
            now: String::from("2026-01-01T00:00:00Z"),
            program: String::from("tests"),
            settle: Duration::ZERO,
        };
        let mut prepared = Prepared::new(spec);
        let cost = PassphraseCost {
            memory_kib: 64,
            passes: 1,
            lanes: 1,
        };
        prepared.add_passphrase("test", zeroize::Zeroizing::new(String::from("a passphrase")), cost);
        let created = Box::pin(prepared.publish(&memory)).await.unwrap();
        let keyring = created.keys.keyring.clone();
        let vault = Arc::new(Vault::new(
            created.header.vault,
            Profile::default(),
            wrap(memory.clone()),
            keyring,
        ));
        Self {
            memory,
            vault,
            index: Arc::new(MemoryIndex::new()),
            control: Arc::new(MemoryControl::new()),
            item: ItemId::random(),
            minute: AtomicU64::new(0),
        }
    }

    /// The same objects through another wrapper; a new process, so to say, that has kept its index.
    pub fn rewrapped(&self, backend: Arc<dyn Backend>) -> Self {
        let vault = Vault::new(self.vault.id, self.vault.profile, backend, self.vault.keyring.clone());
        Self {
            memory: self.memory.clone(),
            vault: Arc::new(vault),
            index: Arc::clone(&self.index),
            control: Arc::clone(&self.control),
            item: self.item,
            minute: AtomicU64::new(self.minute.load(Ordering::Relaxed)),
        }
    }

    /// The vault's id.
    pub fn id(&self) -> VaultId {
        self.vault.id
    }

    /// A reader with nothing in its caches.
    pub fn reader(&self) -> Arc<VaultReader> {
        let index: Arc<dyn ChunkIndex> = self.index.clone();
        Arc::new(VaultReader::new(Arc::clone(&self.vault), Some(index)))
    }

    /// A reader that has only the store and the key.
    pub fn reader_without_index(&self) -> Arc<VaultReader> {
        Arc::new(VaultReader::new(Arc::clone(&self.vault), None))
    }

    /// What backups work with; its caches are empty.
    pub fn engine(&self) -> Engine {
        Engine {
            vault: Arc::clone(&self.vault),
            reader: self.reader(),
            index: self.index.clone(),
            control: self.control.clone(),
            shares: None,
            helpers: Vec::new(),
        }
    }

    /// Backs disks up.
    ///
    /// # Errors
    /// Those of the backup.
    pub async fn back_up(
        &self,
        disks: &[(&str, &Disk)],
        parent: Option<&Manifest>,
    ) -> Result<BackupOutcome, WorkerError> {
        let disks = disks
            .iter()
            .map(|(name, disk)| (*name, *disk, Changes::Unknown))
            .collect();
        self.back_up_changes(disks, parent).await
    }

    /// Backs disks up with what is known of their changes.
    ///
    /// # Errors
    /// Those of the backup.
    pub async fn back_up_changes(
        &self,
        disks: Vec<(&str, &Disk, Changes)>,
        parent: Option<&Manifest>,
    ) -> Result<BackupOutcome, WorkerError> {
        let disks = disks.into_iter().map(|(name, disk, changes)| BackupDisk {
            name: name.to_owned(),
            source: disk.source(),
            changes,
        });
        self.back_up_sources(disks.collect(), parent).await
    }

    /// Backs up what sources give.
    ///
    /// # Errors
    /// Those of the backup.
    pub async fn back_up_sources(
        &self,
        disks: Vec<BackupDisk>,
        parent: Option<&Manifest>,
    ) -> Result<BackupOutcome, WorkerError> {
        let minute = self.minute.fetch_add(1, Ordering::Relaxed);
        let request = BackupRequest {
            item: self.item,
            item_name: String::from("machine"),
            disks,
            parent: parent.cloned(),
            time: format!("2026-01-01T{:02}:{:02}:00Z", minute / 60, minute % 60),
            keep_until: None,
            consistency: Consistency::Crash,
            consistency_reason: String::new(),
            allow_live: false,
            effort: Effort {
                cores: 2,
                compression_level: 1,
            },
        };
        Box::pin(backup::run(&self.engine(), request, Steering::default())).await
    }

    /// Restores one disk of a point to a new target; returns it with the outcome.
    ///
    /// # Errors
    /// Those of the restore.
    pub async fn restore(
        &self,
        reader: &Arc<VaultReader>,
        point: &Manifest,
        disk: &str,
    ) -> Result<(Arc<MemorySink>, RestoreOutcome), WorkerError> {
        let disk = point.disks.iter().find(|d| d.name == disk).unwrap();
        let sink = MemorySink::new(disk.root.size);
        let request = RestoreRequest {
            disk: disk.name.clone(),
            root: disk.root,
            sink: sink.clone(),
            in_place: false,
            allow_damage: false,
            merge_gap: MERGE_GAP_LOCAL,
            cores: 2,
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        };
        let outcome = Box::pin(restore::run(reader, request)).await?;
        Ok((sink, outcome))
    }

    /// Restores a point with the store and the key alone, and compares.
    ///
    /// # Panics
    /// When anything differs.
    pub async fn expect_restores(&self, point: &Manifest, disks: &[(&str, &[u8])], why: &str) {
        for reader in [self.reader(), self.reader_without_index()] {
            self.expect_restores_with(&reader, point, disks, why).await;
        }
    }

    /// As [`Stage::expect_restores`], with one reader.
    ///
    /// # Panics
    /// When anything differs.
    pub async fn expect_restores_with(
        &self,
        reader: &Arc<VaultReader>,
        point: &Manifest,
        disks: &[(&str, &[u8])],
        why: &str,
    ) {
        for (name, bytes) in disks {
            let (sink, outcome) = self
                .restore(reader, point, name)
                .await
                .unwrap_or_else(|error| panic!("{why}: restore of {name}: {error:?}"));
            assert_eq!(outcome.damage, [], "{why}: damage in {name}");
            assert!(sink.is_finished(), "{why}: {name} is not finished");
            assert_same(&sink.bytes(), bytes, &format!("{why}: {name}"));
        }
    }

    /// Opens a manifest as it is in the store.
    ///
    /// # Errors
    /// Those of the store, and damage.
    pub async fn manifest(&self, point: PointId) -> Result<Manifest> {
        let name = names::point(self.item, point);
        let vault = &self.vault;
        let bytes = vault.backend.read(&name, 16 << 20).await?;
        Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, &name, &bytes)
    }

    /// Verifies with keys and index.
    pub async fn verify(&self, level: Level) -> Report {
        let index: Arc<dyn ChunkIndex> = self.index.clone();
        let target = Target::opened(Arc::clone(&self.vault), Some(index));
        Box::pin(verify::run(
            &target,
            level,
            &verify::Options::default(),
            &verify::Progress::default(),
        ))
        .await
        .unwrap()
    }

    /// Verifies with nothing but the store.
    pub async fn verify_without_keys(&self, level: Level) -> Report {
        let target = Target::keyless(Arc::clone(&self.vault.backend), self.vault.id);
        Box::pin(verify::run(
            &target,
            level,
            &verify::Options::default(),
            &verify::Progress::default(),
        ))
        .await
        .unwrap()
    }

    /// Names of objects in a folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        self.memory
            .objects()
            .into_keys()
            .filter(|name| name.starts_with(folder))
            .collect()
    }

    /// Packs in the store.
    pub fn packs(&self) -> BTreeMap<PackId, Bytes> {
        let objects = self.memory.objects().into_iter();
        objects
            .filter_map(|(name, bytes)| names::parse_pack(&name).map(|id| (id, bytes)))
            .collect()
    }

    /// Where the frames of a pack are, by kind.
    pub fn frames(&self, pack: PackId, kind: FrameKind) -> Vec<Range<usize>> {
        let bytes = &self.memory.objects()[&names::pack(pack)];
        let shape = PackShape::check(self.vault.id, pack, bytes).unwrap();
        let of_kind = shape.frames.iter().filter(|(_, frame)| frame.kind == kind);
        of_kind
            .map(|(offset, frame)| *offset as usize..*offset as usize + frame.length())
            .collect()
    }

    /// The keys of a pack, to seal other frames into it.
    pub fn pack_keys(&self, pack: PackId) -> PackKeys {
        let bytes = &self.memory.objects()[&names::pack(pack)];
        PackKeys::from_header(&self.vault.keyring, self.vault.id, pack, bytes).unwrap()
    }

    /// The tree of a disk, read without an index.
    pub fn tree(&self, point: &Manifest, disk: &str) -> Tree {
        let root = point.disks.iter().find(|d| d.name == disk).unwrap().root;
        let source: Arc<dyn NodeSource> = self.reader_without_index();
        Tree::new(root, self.vault.ids.clone(), source)
    }

    /// Where the chunks of a disk's first segment that has any are.
    pub async fn first_hints(&self, point: &Manifest, disk: &str) -> Vec<Location> {
        let tree = self.tree(point, disk);
        let present = tree.present(0..tree.root().segments()).await.unwrap();
        let (segment, child) = present[0];
        let leaf = tree.read_leaf(segment, child).await.unwrap();
        let hints = leaf.entries.iter().filter_map(|entry| match entry {
            tresor_storage::recipe::Entry::Chunk { hint, .. } => Some(*hint),
            tresor_storage::recipe::Entry::Hole { .. } => None,
        });
        hints.collect()
    }
}

/// Compares disks without printing them.
///
/// # Panics
/// When they differ.
pub fn assert_same(found: &[u8], expected: &[u8], why: &str) {
    assert_eq!(found.len(), expected.len(), "{why}: length");
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        panic!(
            "{why}: differs from byte {at} on ({:#x} instead of {:#x})",
            found[at], expected[at]
        );
    }
}
