//! Backup and restore from end to end, on raw files and a store in memory.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tresor_storage::backend::{Backend, Memory};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{ClusterId, ItemId, PointId, SessionId, VaultId};
use tresor_storage::index::MemoryIndex;
use tresor_storage::keys::Keyring;
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::vault::{Vault, VaultReader};
use tresor_worker::backup::{self, BackupDisk, BackupOutcome, BackupRequest, Changes, Effort, Engine, Steering};
use tresor_worker::control::{Commit, Control, ControlError, OpenSession, PointRecord, Session};
use tresor_worker::extent::Extent;
use tresor_worker::restore::{self, RestoreOutcome, RestoreRequest};
use tresor_worker::sink::{self, SinkSpec};
use tresor_worker::source::{self, SourceSpec};

/// Says yes to everything.
#[derive(Default)]
struct Yes(AtomicU64);

#[async_trait]
impl Control for Yes {
    async fn open_session(&self, _: OpenSession) -> Result<Session, ControlError> {
        let session = SessionId(self.0.fetch_add(1, Ordering::Relaxed));
        Ok(Session {
            cluster: ClusterId(1),
            session,
            start_epoch: 0,
        })
    }

    async fn commit(&self, _: Commit) -> Result<(), ControlError> {
        Ok(())
    }

    async fn points(&self) -> Result<Vec<PointRecord>, ControlError> {
        Ok(Vec::new())
    }

    async fn pins(&self) -> Vec<PointId> {
        Vec::new()
    }

    async fn close_session(&self, _: SessionId) {}
}

struct Bench {
    engine: Engine,
    store: Arc<Memory>,
    folder: tempfile::TempDir,
    item: ItemId,
}

impl Bench {
    fn new() -> Self {
        Self::with_keys(Keyring::generate())
    }

    fn with_keys(keyring: Keyring) -> Self {
        let store = Arc::new(Memory::new());
        let backend: Arc<dyn Backend> = Arc::clone(&store) as _;
        let vault = Arc::new(Vault::new(VaultId::random(), Profile::default(), backend, keyring));
        let index = Arc::new(MemoryIndex::new());
        let reader = Arc::new(VaultReader::new(Arc::clone(&vault), Some(Arc::clone(&index) as _)));
        let engine = Engine {
            vault,
            reader,
            index,
            control: Arc::new(Yes::default()),
            shares: None,
            helpers: Vec::new(),
        };
        Self {
            engine,
            store,
            folder: tempfile::tempdir().unwrap(),
            item: ItemId::random(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn back_up(&self, disks: &[(&str, &Path)], parent: Option<&Manifest>, changes: Changes) -> BackupOutcome {
        let mut list = Vec::new();
        for (name, path) in disks {
            let source = source::open(&SourceSpec::new(*path)).await.unwrap();
            list.push(BackupDisk {
                name: (*name).to_owned(),
                source,
                changes: changes.clone(),
            });
        }
        let request = BackupRequest {
            item: self.item,
            item_name: String::from("vm"),
            disks: list,
            parent: parent.cloned(),
            time: String::from("2026-01-01T00:00:00Z"),
            keep_until: None,
            consistency: Consistency::Crash,
            consistency_reason: String::new(),
            allow_live: false,
            effort: Effort::default(),
        };
        backup::run(&self.engine, request, Steering::default()).await.unwrap()
    }

    async fn restore(&self, manifest: &Manifest, disk: usize, to: &Path, in_place: bool) -> RestoreOutcome {
        let root = manifest.disks[disk].root;
        let spec = SinkSpec::new(to, root.size);
        let sink = if in_place {
            sink::open_in_place(&spec).await
        } else {
            sink::create(&spec).await
        };
        let request = RestoreRequest {
            disk: manifest.disks[disk].name.clone(),
            root,
            sink: sink.unwrap(),
            in_place,
            allow_damage: false,
            merge_gap: restore::MERGE_GAP_LOCAL,
            cores: 2,
            progress: Arc::default(),
            cancel: Default::default(),
        };
        restore::run(&self.engine.reader, request).await.unwrap()
    }
}

/// Writes runs of pseudo-random and repeated grains, leaving holes between.
fn write_disk(path: &Path, size: u64, seed: u64) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut at = 0;
    while at < size {
        let length = (next() % 700_000 + 1).min(size - at);
        match next() % 3 {
            0 => {}
            1 => {
                let value = (next() % 250) as u8;
                file.write_all_at(&vec![value; length as usize], at).unwrap();
            }
            _ => {
                let bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
                file.write_all_at(&bytes[..length as usize], at).unwrap();
            }
        }
        at += length;
    }
}

fn assert_equal(a: &Path, b: &Path) {
    assert!(
        std::fs::read(a).unwrap() == std::fs::read(b).unwrap(),
        "{} differs from {}",
        a.display(),
        b.display()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_of_any_size_come_back_byte_for_byte() {
    let bench = Bench::new();
    for (i, size) in [
        1,
        512,
        4096,
        4097,
        SEGMENT - 1,
        SEGMENT,
        SEGMENT + 512,
        5 * SEGMENT + 12_345,
        70 * SEGMENT,
    ]
    .into_iter()
    .enumerate()
    {
        let path = bench.path(&format!("disk{i}"));
        write_disk(&path, size, i as u64 + 99);
        let outcome = bench.back_up(&[("vda", &path)], None, Changes::Unknown).await;
        let target = bench.path(&format!("back{i}"));
        let restored = bench.restore(&outcome.manifest, 0, &target, false).await;
        assert_eq!(restored.damage, []);
        assert_equal(&path, &target);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_disk_costs_its_reading_one_manifest_and_no_lookup() {
    let bench = Bench::new();
    let path = bench.path("disk");
    write_disk(&path, 40 * SEGMENT + 777, 5);
    let first = bench.back_up(&[("vda", &path)], None, Changes::Unknown).await;
    let objects = bench.store.objects().len();
    let second = bench
        .back_up(&[("vda", &path)], Some(&first.manifest), Changes::Unknown)
        .await;
    assert_eq!(second.manifest.disks[0].root, first.manifest.disks[0].root);
    assert_eq!(second.counts.lookups, 0);
    assert_eq!(second.counts.bytes_read, first.counts.bytes_read);
    assert_eq!(bench.store.objects().len(), objects + 1, "only a manifest");
    let third = bench
        .back_up(&[("vda", &path)], Some(&first.manifest), Changes::Only(Vec::new()))
        .await;
    assert_eq!(third.manifest.disks[0].root, first.manifest.disks[0].root);
    assert_eq!(third.counts.bytes_read, 0, "nothing changed, nothing is read");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_changes_read_little_and_give_the_recipe_of_a_full_read() {
    let bench = Bench::new();
    let path = bench.path("disk");
    write_disk(&path, 30 * SEGMENT + 4096, 7);
    let first = bench.back_up(&[("vda", &path)], None, Changes::Unknown).await;
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut changes = Vec::new();
    for i in 0..20_u64 {
        let (offset, length) = (i * 5_555_555 + 1234, i * 1000 + 1);
        let value = if i % 3 == 0 { 0 } else { i as u8 };
        file.write_all_at(&vec![value; length as usize], offset).unwrap();
        changes.push(Extent { offset, length });
    }
    let read_all = bench
        .back_up(&[("vda", &path)], Some(&first.manifest), Changes::Unknown)
        .await;
    let read_changed = bench
        .back_up(&[("vda", &path)], Some(&first.manifest), Changes::Only(changes))
        .await;
    assert_eq!(
        read_changed.manifest.disks[0].root.id,
        read_all.manifest.disks[0].root.id
    );
    assert!(
        read_changed.counts.bytes_read < 20 * 400_000,
        "read {}",
        read_changed.counts.bytes_read
    );
    let target = bench.path("back");
    bench.restore(&read_changed.manifest, 0, &target, false).await;
    assert_equal(&path, &target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_disks_are_stored_once_even_within_one_session() {
    let bench = Bench::new();
    let path = bench.path("disk");
    write_disk(&path, 20 * SEGMENT, 11);
    let one = bench.back_up(&[("a", &path)], None, Changes::Unknown).await;
    // The same keys: other keys would cut elsewhere.
    let clones = Bench::with_keys(bench.engine.vault.keyring.clone());
    let two = clones
        .back_up(&[("a", &path), ("b", &path)], None, Changes::Unknown)
        .await;
    assert_eq!(two.counts.bytes_new, one.counts.bytes_new);
    let target = clones.path("back");
    clones.restore(&two.manifest, 1, &target, false).await;
    assert_equal(&path, &target);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_in_place_writes_only_what_differs() {
    let bench = Bench::new();
    let path = bench.path("disk");
    write_disk(&path, 20 * SEGMENT, 13);
    let outcome = bench.back_up(&[("vda", &path)], None, Changes::Unknown).await;
    let target = bench.path("target");
    std::fs::copy(&path, &target).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&target).unwrap();
    file.write_all_at(&[1; 5000], 3 * SEGMENT + 100).unwrap();
    file.write_all_at(&[2; 100], 9 * SEGMENT).unwrap();
    let restored = bench.restore(&outcome.manifest, 0, &target, true).await;
    assert_equal(&path, &target);
    assert!(restored.bytes_written <= 1 << 20, "wrote {}", restored.bytes_written);
}
