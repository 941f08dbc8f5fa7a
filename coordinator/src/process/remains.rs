//! What is left of a cluster whose coordinators are lost: a backup of its state, the folder of one of them, or the catalogues of its vaults. And in any case
//! the cluster key, which opens what is secret in them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tresor_proto::ids::{MemberId, VaultId, hex};
use zeroize::Zeroizing;

use super::folder::{Folder, FolderError};
use crate::rpc::catalogue::{self, CatalogueError};
use crate::security::{ClusterKey, Purpose, WrapError};
use crate::state::State;
use crate::state::archive::{self, ArchiveError};
use crate::state::entry::{Entry, Time};
use crate::state::error::{EntryError, LoadError};
use crate::store::rocks::Rocks;
use crate::store::{EntryKind, Stamp, Store, StoreError};

/// What one read of the log brings, bytes.
const READ_BYTES: usize = 4 << 20;

/// Why what is left cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    /// The backup's file.
    #[error("read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The backup.
    #[error("use {}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ArchiveError,
    },
    /// A catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// There is nothing to begin from.
    #[error("no catalogue of a cluster was found")]
    NoCatalogue,
    /// Catalogues of several clusters.
    #[error(
        "the catalogues are of clusters {} and {}: restore one of them, and take the vaults of the other over",
        .one.escape_debug(), .other.escape_debug()
    )]
    Several {
        /// One.
        one: String,
        /// Another one.
        other: String,
    },
    /// The folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The folder's store.
    #[error("open the coordinator's store")]
    Store(#[from] StoreError),
    /// A row.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// An entry of the log.
    #[error("entry {index} of the log")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong.
        #[source]
        source: EntryError,
    },
    /// It has joined and has heard nothing yet.
    #[error("the coordinator in {} knows nothing of its cluster yet", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// The cluster key.
    #[error(transparent)]
    Key(#[from] WrapError),
    /// The cluster key does not open a vault's key.
    #[error("open the key of vault {vault} with the cluster key")]
    VaultKey {
        /// The vault.
        vault: String,
        /// Why not.
        #[source]
        source: WrapError,
    },
}

/// What is left of a cluster.
#[derive(Debug)]
pub struct Remains {
    /// All that is known.
    pub(super) state: State,
    /// What was numbered up to here is in it.
    pub(super) applied: u64,
    /// The cluster's key.
    pub(super) key: ClusterKey,
    /// What it is, for people and for the audit trail.
    pub(super) from: String,
    /// Whether it is all that there was when it was written.
    pub(super) is_whole: bool,
}

/// What a person is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The lost cluster's name, if it is known.
    pub name: String,
    /// What it is.
    pub from: String,
    /// The lost cluster's clock at its end.
    pub time: Time,
    /// Vaults, by name.
    pub vaults: Vec<String>,
    /// Policies.
    pub policies: u64,
    /// Items, those included of which only points are left.
    pub items: u64,
    /// Points, hidden ones too.
    pub points: u64,
    /// Whether it is all that there was when it was written: a catalogue of a vault has bounds.
    pub is_whole: bool,
}

impl Remains {
    /// Of a file that `tresor cluster backup` wrote, and the lost cluster's key. Waits for the disk.
    ///
    /// # Errors
    /// [`RemainsError`].
    pub fn of_backup(file: &Path, key: &Path) -> Result<Self, RemainsError> {
        let key = ClusterKey::load(key)?;
        let bytes = fs::read(file).map_err(|source| RemainsError::File {
            path: file.to_owned(),
            source,
        })?;
        let (header, rows) = archive::read(&bytes).map_err(|source| RemainsError::Backup {
            path: file.to_owned(),
            source,
        })?;
        drop(bytes);
        let from = format!(
            "a backup of cluster {} ({}) up to entry {} of {}",
            header.name,
            hex(&header.cluster),
            header.index,
            header.time
        );
        Self::new(State::load(rows)?, header.index, key, from)
    }

    /// Of a coordinator's folder, in which nothing is changed. All of its log counts, also what is not known to be committed: it may have been acknowledged
    /// through others. What others have beyond it is lost. Waits for the disk.
    ///
    /// # Errors
    /// [`RemainsError`]; [`StoreError::Locked`] while the coordinator runs.
    pub fn of_folder(folder: &Folder) -> Result<Self, RemainsError> {
        let name = folder.identity()?.name();
        let key = folder.key()?;
        let stamp = Stamp {
            node: MemberId(name.id),
            cluster: name.cluster,
        };
        let store = Store::open(Rocks::open(&folder.raft_path())?, stamp)?;
        let mut state = store.read_rows(|rows| State::load(rows.map(|row| (row.table, row.key, row.value))))??;
        let mut next = store.applied().index + 1;
        let end = store.last_index() + 1;
        while next < end {
            for entry in store.entries(next, end, READ_BYTES)? {
                next = entry.index + 1;
                // A leader's first entry is empty; changes of members end with the cluster.
                if entry.kind == EntryKind::Command && !entry.data.is_empty() {
                    let index = entry.index;
                    let entry = Entry::decode(&entry.data).map_err(|source| RemainsError::Entry { index, source })?;
                    state.apply(index, &entry);
                }
            }
        }
        let Some(cluster) = state.cluster() else {
            return Err(RemainsError::Empty {
                path: folder.path().to_owned(),
            });
        };
        let from = format!(
            "what coordinator {} of cluster {} ({}) has, up to entry {} of {}",
            name.id,
            cluster.name,
            hex(&cluster.id),
            end - 1,
            state.now()
        );
        Self::new(state, end - 1, key, from)
    }

    /// Of what catalogues of vaults say, in any order, and the lost cluster's key. Of two that tell of the same policy the newer one counts.
    ///
    /// # Errors
    /// [`RemainsError`].
    pub fn of_catalogues(catalogues: &[Vec<u8>], key: ClusterKey) -> Result<Self, RemainsError> {
        let mut decoded = Vec::with_capacity(catalogues.len());
        for bytes in catalogues {
            decoded.push(catalogue::decode(bytes)?);
        }
        decoded.sort_by_key(|catalogue| catalogue.header.index);
        let newest = decoded.last().ok_or(RemainsError::NoCatalogue)?.header.clone();
        if let Some(other) = decoded.iter().find(|other| other.header.cluster != newest.cluster) {
            return Err(RemainsError::Several {
                one: newest.cluster_name,
                other: other.header.cluster_name.clone(),
            });
        }
        let from = format!(
            "catalogues of {} vaults of cluster {} ({}), the newest of {}",
            decoded.len(),
            newest.cluster_name,
            hex(&newest.cluster),
            newest.time
        );
        let is_whole = decoded.iter().all(|catalogue| catalogue.header.is_whole);
        // Loaded in their order: a later row takes the place of an earlier one.
        let rows = decoded.into_iter().flat_map(|catalogue| catalogue.rows);
        let mut remains = Self::new(State::load(rows)?, newest.index, key, from)?;
        remains.is_whole = is_whole;
        remains.state.call(newest.cluster, &newest.cluster_name);
        Ok(remains)
    }

    fn new(state: State, applied: u64, key: ClusterKey, from: String) -> Result<Self, RemainsError> {
        // Another key would open nothing, and no worker could do anything: that is to be known now.
        for (id, vault) in state.vaults().iter() {
            let opened = postcard::from_bytes(&vault.spec.key)
                .map_err(|_| WrapError::Sealed {
                    purpose: Purpose::VaultKey(*id),
                })
                .and_then(|wrapped| key.unwrap(Purpose::VaultKey(*id), &wrapped));
            if let Err(source) = opened {
                return Err(RemainsError::VaultKey {
                    vault: vault.spec.name.clone(),
                    source,
                });
            }
        }
        Ok(Self {
            state,
            applied,
            key,
            from,
            is_whole: true,
        })
    }

    /// What is in it.
    pub fn inventory(&self) -> Inventory {
        let state = &self.state;
        Inventory {
            name: state.cluster().map(|cluster| cluster.name.clone()).unwrap_or_default(),
            from: self.from.clone(),
            time: state.now(),
            vaults: state.vaults_by_name().map(|(name, _)| name.to_owned()).collect(),
            policies: state.policies().len() as u64,
            items: state.items().len() as u64,
            points: state.points().len() as u64,
            is_whole: self.is_whole,
        }
    }
}

/// Reads a copy of a cluster key.
///
/// # Errors
/// [`WrapError`].
pub fn load_cluster_key(path: &Path) -> Result<ClusterKey, WrapError> {
    ClusterKey::load(path)
}

/// The key that a cluster with that cluster key gave to a vault that it made: whoever has a copy of the cluster key can open the vault without any
/// coordinator.
///
/// # Errors
/// [`WrapError`] when the file has no cluster key.
pub fn key_of_vault(cluster_key: &Path, vault: VaultId) -> Result<Zeroizing<[u8; 32]>, WrapError> {
    Ok(ClusterKey::load(cluster_key)?.vault_key(vault))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::super::{Founding, Refounding, found, refound};
    use super::*;
    use crate::state::command::Command;
    use crate::state::entry::Actor;
    use crate::store::Entry as LogEntry;
    use crate::store::tables::Durability;

    struct Lost {
        _root: tempfile::TempDir,
        folder: Folder,
        next: Folder,
    }

    async fn founded() -> Lost {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path().join("lost"));
        let founding = Founding {
            cluster: String::from("test"),
            name: String::from("c1"),
            address: String::from("localhost:7420"),
            wants_admin: true,
        };
        Box::pin(found(&folder, founding)).await.unwrap();
        let next = Folder::new(root.path().join("next"));
        Lost {
            _root: root,
            folder,
            next,
        }
    }

    fn open(folder: &Folder) -> Result<Store<Rocks>, StoreError> {
        let name = folder.identity().unwrap().name();
        let stamp = Stamp {
            node: MemberId(name.id),
            cluster: name.cluster,
        };
        Store::open(Rocks::open(&folder.raft_path())?, stamp)
    }

    fn refounding() -> Refounding {
        Refounding {
            cluster: None,
            name: String::from("c1"),
            address: String::from("localhost:7420"),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_a_minority_has_in_its_log_is_not_lost_though_nobody_says_that_it_is_committed() {
        let lost = founded().await;
        let mut store = open(&lost.folder).unwrap();
        let entry = Entry {
            now: Time(0),
            actor: Actor::Founder,
            key: None,
            command: Command::Note {
                action: String::from("look"),
                object: String::from("at it"),
            },
        };
        let index = store.last_index() + 1;
        let logged = LogEntry {
            index,
            term: store.hard().term,
            kind: EntryKind::Command,
            data: entry.encode().into(),
        };
        store.append(vec![logged], None, Durability::Synced).unwrap();
        assert!(store.hard().commit < index);
        // Somebody has it open: it is not read.
        let refused = Remains::of_folder(&lost.folder).unwrap_err();
        assert!(matches!(refused, RemainsError::Store(StoreError::Locked)), "{refused}");
        drop(store);

        let remains = Remains::of_folder(&lost.folder).unwrap();
        assert_eq!(remains.applied, index);
        let (_, last) = remains.state.audit().last().unwrap();
        assert_eq!(last.object, "look: at it");
        assert_eq!(remains.inventory().name, "test");
        // And the folder is as it was.
        assert_eq!(open(&lost.folder).unwrap().last_index(), index);

        let before = lost.folder.identity().unwrap();
        let again = refound(&lost.next, remains, refounding()).unwrap();
        let after = lost.next.identity().unwrap();
        assert_eq!(again.name, "test");
        assert_ne!(before.name().cluster, after.name().cluster);
        assert_ne!(before.ca().fingerprint(), after.ca().fingerprint());
        assert_eq!(after.ca().fingerprint(), again.fingerprint);
        let state = Remains::of_folder(&lost.next).unwrap().state;
        assert_eq!(state.cluster().unwrap().id, again.cluster);
        state.check_invariants(state.marks().applied).unwrap();
        let secret = state.cluster().unwrap().ca_key.clone();
        let wrapped = postcard::from_bytes(&secret).unwrap();
        lost.next.key().unwrap().unwrap(Purpose::Authority, &wrapped).unwrap();
        // What is there is never founded over.
        let remains = Remains::of_folder(&lost.folder).unwrap();
        assert!(refound(&lost.next, remains, refounding()).is_err());
    }

    #[test]
    fn names_that_others_gave_are_told_escaped() {
        let error = RemainsError::Several {
            one: String::from("te\u{1b}[2Jst"),
            other: String::from("a\nb"),
        };
        let text = error.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.contains("a\\nb"), "{text}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn another_clusters_key_is_known_before_anything_is_made() {
        use crate::state::archive::Archive;
        use crate::testing::{MAIN, Story};

        let root = tempfile::tempdir().unwrap();
        let (right, wrong) = (ClusterKey::random().unwrap(), ClusterKey::random().unwrap());
        let paths = [root.path().join("right"), root.path().join("wrong")];
        right.create(&paths[0]).unwrap();
        wrong.create(&paths[1]).unwrap();
        let mut story = Story::new();
        let item = story.protect("web", None);
        story.backs_up(item);
        let wrapped = right
            .wrap(Purpose::VaultKey(MAIN), right.vault_key(MAIN).as_ref())
            .unwrap();
        story.state.give_key(MAIN, postcard::to_stdvec(&wrapped).unwrap());
        let file = root.path().join("backup");
        let bytes: Vec<u8> = Archive::new(&story.state, 42).collect::<Vec<_>>().concat();
        fs::write(&file, &bytes).unwrap();
        let refused = Remains::of_backup(&file, &paths[1]).unwrap_err();
        assert!(
            matches!(&refused, RemainsError::VaultKey { vault, source: WrapError::OtherKey { .. } } if vault == "main"),
            "{refused}"
        );
        let inventory = Remains::of_backup(&file, &paths[0]).unwrap().inventory();
        assert_eq!((inventory.items, inventory.points), (1, 1));
        assert_eq!(inventory.vaults, ["main"]);
        assert_eq!(key_of_vault(&paths[0], MAIN).unwrap(), right.vault_key(MAIN));
        assert_ne!(right.vault_key(MAIN), right.vault_key(VaultId([3; 16])));
        fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(matches!(
            Remains::of_backup(&file, &paths[0]),
            Err(RemainsError::Backup { .. })
        ));
    }
}
