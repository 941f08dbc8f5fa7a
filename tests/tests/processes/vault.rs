//! What the store of a cluster's vault has, and what an owner of slots has of it, read by the real code.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tresor_storage::backend::FileBackend;
use tresor_storage::ids::{ChunkId, PackId, PartId, SessionId, Writer};
use tresor_storage::index::rebuild::PackList;
use tresor_storage::index::slot::{GROUPS, SlotSet};
use tresor_storage::index::{RocksIndex, Stamp, checkpoint};
use tresor_storage::keys::KeyFile;
use tresor_storage::pack::read_footer;
use tresor_storage::vault::create::open_header;
use tresor_storage::vault::revisions::open_keys;
use tresor_storage::vault::{Vault, names};

use super::cluster::Cluster;
use super::watch::files;

/// The vault `main`, opened beside the cluster.
pub(crate) struct Stored<'a> {
    cluster: &'a Cluster,
    vault: Arc<Vault>,
    stamp: Stamp,
}

/// What a pack has: its bytes, and how many bytes each piece takes in it.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackContents {
    pub(crate) bytes: u64,
    pub(crate) ids: BTreeSet<ChunkId>,
}

impl Cluster {
    /// Opens the vault with the cluster's key; the first coordinator must be `c1`.
    pub(crate) fn stored(&self) -> Stored<'_> {
        let (url, key) = (format!("file://{}", self.text("store")), self.text("main.key"));
        if !Path::new(&key).exists() {
            let cluster_key = self.path("c1").join("cluster.key");
            let cluster_key = cluster_key.to_str().unwrap();
            self.alone(&[
                "cluster",
                "vault-key",
                "--store",
                &url,
                "--cluster-key",
                cluster_key,
                &key,
            ]);
        }
        let unlock = KeyFile::load(Path::new(&key), None).unwrap().unlock();
        let backend = Arc::new(FileBackend::open(&self.path("store"), false).unwrap());
        let (header, keys) = self.runtime().block_on(async {
            let (header, hash) = open_header(backend.as_ref(), &url).await.unwrap();
            let keys = open_keys(backend.as_ref(), header.vault, &hash, &unlock).await.unwrap();
            (header, keys)
        });
        let claims = files(&self.path("store").join(names::CLUSTER));
        let claims = claims.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
        let (claim, cluster) = claims
            .filter_map(|name| names::parse_claim(&format!("{}{name}", names::CLUSTER)))
            .max()
            .unwrap();
        let profile = header.profile.parse().unwrap();
        Stored {
            cluster: self,
            stamp: Stamp {
                vault: header.vault,
                cluster,
                claim,
            },
            vault: Arc::new(Vault::new(header.vault, profile, backend, keys.keyring)),
        }
    }

    /// The folder of a worker's databases of slots.
    pub(crate) fn slots_folder(&self, worker: &str) -> PathBuf {
        self.path(worker).join("slots")
    }
}

impl Stored<'_> {
    fn run<T>(&self, work: impl Future<Output = T>) -> T {
        self.cluster.runtime().block_on(work)
    }

    /// The database of the vault's slots at a worker.
    pub(crate) fn slots_path(&self, worker: &str) -> PathBuf {
        self.cluster.slots_folder(worker).join(self.vault.id.to_string())
    }

    /// All packs that are put, by their footers.
    pub(crate) fn packs(&self) -> BTreeMap<PackId, PackContents> {
        self.run(async {
            let list = PackList::list(&self.vault).await.unwrap();
            let mut packs = BTreeMap::new();
            for (id, length) in list.iter() {
                let (backend, keyring) = (self.vault.backend.as_ref(), &self.vault.keyring);
                let length = Some(u64::from(length));
                let (bytes, footer, _) = read_footer(backend, keyring, self.vault.id, id, length).await.unwrap();
                let ids = footer.entries(id).map(|(id, _)| id).collect();
                packs.insert(id, PackContents { bytes, ids });
            }
            packs
        })
    }

    /// What a worker that has stopped has in its slots: by pack the ids that it knows to be there.
    pub(crate) fn known_by(&self, worker: &str) -> BTreeMap<PackId, BTreeSet<ChunkId>> {
        let known: Arc<Mutex<BTreeMap<PackId, BTreeSet<ChunkId>>>> = Arc::default();
        let taking = Arc::clone(&known);
        self.run(async {
            let index = RocksIndex::open(&self.slots_path(worker), self.stamp).await.unwrap();
            let each = move |id, entry: tresor_storage::index::Entry| {
                let mut taking = taking.lock().unwrap();
                taking.entry(entry.location.pack).or_default().insert(id);
                ControlFlow::Continue(())
            };
            index.for_each(each).await.unwrap();
        });
        std::mem::take(&mut *known.lock().unwrap())
    }

    /// Puts checkpoints of all complete slots of a worker that has stopped, as it does itself once there are some gigabytes. Returns how many.
    pub(crate) fn put_checkpoints(&self, worker: &str, number: u32) -> usize {
        self.run(async {
            let index = RocksIndex::open(&self.slots_path(worker), self.stamp).await.unwrap();
            let slots: SlotSet = index.complete();
            let epoch = index.slots().iter().map(|(_, row)| row.since).max().unwrap();
            let writer = Writer {
                cluster: self.stamp.cluster,
                session: SessionId(epoch),
                part: PartId(u64::from(number)),
            };
            let mut written = 0;
            for group in 0..GROUPS {
                let put = checkpoint::write(&self.vault, &index, group, &slots, writer, number).await;
                written += usize::from(put.unwrap().is_some());
            }
            written
        })
    }

    /// The objects of each group's newest checkpoint.
    pub(crate) fn newest_checkpoints(&self) -> Vec<Vec<PathBuf>> {
        let mut newest = Vec::new();
        for group in 0..GROUPS {
            let listed = self.run(checkpoint::list(&self.vault, group)).unwrap();
            let Some(id) = listed.whole.first() else { continue };
            let pieces = listed.pieces[id].iter();
            let path = |piece: &u32| self.cluster.path("store").join(names::checkpoint(*id, *piece));
            newest.push(pieces.map(path).collect());
        }
        newest
    }
}
