//! A coordinator in this process with the rules of the real one's log, agents that work for it on real stores, and a gate in front of the stores.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod coordinator;
pub(crate) mod gate;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tresor_storage::backend::{Backend, StoreConfig, open};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{ItemId, PointId};
use tresor_storage::keys::{Key, Unlock};
use tresor_storage::vault::Vault;
use tresor_storage::vault::create::open_header;
use tresor_storage::vault::revisions::open_keys;
use tresor_worker::agent::port::{BackupWork, RestoreWork, VerifyWork, Work, WorkDisk};
use tresor_worker::agent::{self, AgentConfig, AgentError};
use tresor_worker::backup::Effort;
use tresor_worker::home::{Points, load_points};

use coordinator::{Fake, Terms};
use gate::{Gate, GatedStores};

/// Longest that anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with one vault, in folders of its own.
pub(crate) struct Cluster {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) fake: Fake,
    pub(crate) gate: Gate,
}

/// An agent that runs.
pub(crate) struct Running {
    task: JoinHandle<Result<(), AgentError>>,
    shutdown: CancellationToken,
}

impl Running {
    /// Tells it to stop, and waits for that.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Kills it, as a power cut would.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with_terms(Terms::default())
    }

    pub(crate) fn with_terms(terms: Terms) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store", folder.path().display());
        Self {
            fake: Fake::new(terms, url, Key::random()),
            gate: Gate::default(),
            folder,
        }
    }

    /// With its vault made by a worker, and a worker that runs.
    pub(crate) async fn with_vault(terms: Terms) -> (Self, Running) {
        let cluster = Self::with_terms(terms);
        let worker = cluster.start("worker");
        let job = cluster.fake.enqueue(Work::Claim { make: true });
        cluster.fake.done(job).await;
        (cluster, worker)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts an agent with a folder of its own.
    pub(crate) fn start(&self, name: &str) -> Running {
        self.start_with(name, |_| {})
    }

    pub(crate) fn start_with(&self, name: &str, change: impl FnOnce(&mut AgentConfig)) -> Running {
        let mut config = AgentConfig::new(self.path(name));
        config.host = name.to_owned();
        config.permits = 2;
        config.effort = Effort {
            cores: 2,
            compression_level: 1,
        };
        change(&mut config);
        let shutdown = CancellationToken::new();
        let stores = Arc::new(GatedStores {
            gate: self.gate.clone(),
        });
        let running = agent::run(config, self.fake.as_worker(name), stores, shutdown.clone());
        Running {
            task: tokio::spawn(running),
            shutdown,
        }
    }

    /// A raw disk of noise that is the same for one seed; its path.
    pub(crate) fn disk(&self, name: &str, seed: u64, length: usize) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, noise(seed, length)).unwrap();
        path
    }

    /// A backup of one disk, against the item's newest point.
    pub(crate) fn backup(&self, item: ItemId, disk: &Path) -> Work {
        Work::Backup(BackupWork {
            item,
            item_name: String::from("web"),
            disks: vec![WorkDisk {
                name: String::from("vda"),
                path: disk.display().to_string(),
                format: String::new(),
            }],
            parent: self.fake.newest(item).map(|logged| (logged.point, logged.manifest)),
            parent_harmed: false,
            keep_until: None,
            allow_live: false,
            allow_backing: false,
            helpers: Vec::new(),
        })
    }

    pub(crate) fn restore(&self, point: PointId, to: &Path) -> Work {
        let logged = self.fake.point(point).unwrap();
        Work::Restore(RestoreWork {
            point,
            item: logged.item,
            manifest: logged.manifest,
            disk: String::new(),
            path: to.display().to_string(),
            format: String::new(),
            overwrite: false,
            in_place: false,
        })
    }

    pub(crate) fn verify(level: &str) -> Work {
        Work::Verify(VerifyWork {
            point: None,
            expected: None,
            level: level.to_owned(),
        })
    }

    /// Runs a job to its good end; the point that it made, if it made one.
    pub(crate) async fn run(&self, work: Work) -> Option<PointId> {
        let job = self.fake.enqueue(work);
        self.fake.done(job).await;
        self.fake.point_of(job)
    }

    /// The vault's store, past the gate.
    pub(crate) fn store(&self) -> Arc<dyn Backend> {
        open(&self.fake.vault().url, &StoreConfig::default()).unwrap().backend
    }

    /// The vault, as its key alone opens it.
    pub(crate) async fn open(&self) -> Vault {
        let spec = self.fake.vault();
        let backend = self.store();
        let (header, hash) = open_header(backend.as_ref(), &spec.url).await.unwrap();
        let unlock = Unlock::File(spec.key.clone());
        let keys = open_keys(backend.as_ref(), spec.id, &hash, &unlock).await.unwrap();
        let profile: Profile = header.profile.parse().unwrap();
        Vault::new(spec.id, profile, backend, keys.keyring)
    }

    /// What a reader without the cluster sees.
    pub(crate) async fn points(&self) -> Points {
        load_points(&self.open().await).await.unwrap()
    }

    /// Files below a folder of the store.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        fn walk(path: &Path, names: &mut Vec<String>) {
            let Ok(entries) = std::fs::read_dir(path) else { return };
            for entry in entries {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, names);
                } else {
                    names.push(path.display().to_string());
                }
            }
        }
        let mut names = Vec::new();
        walk(&self.path("store").join(folder), &mut names);
        names.sort();
        names
    }
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
