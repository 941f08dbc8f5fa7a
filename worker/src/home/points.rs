//! What a vault holds, by its manifests: the reader that needs nothing but the store and the key.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use tresor_storage::backend::BackendError;
use tresor_storage::ids::{ClusterId, PointId, SessionId};
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::manifest::Manifest;
use tresor_storage::vault::{Vault, VaultError, names};
use tresor_storage::{Doing as _, Error, Result};

use crate::control::catalog::{Found, is_damage, read_newest, read_state};
use crate::control::home::POINTS_MAX;

/// Manifests read at once: they are small, and the store bounds what is in flight.
const READS: usize = 24;
/// Damaged objects that are kept with their errors; of more only the number is.
const DAMAGED_MAX: usize = 1000;

/// A point that has a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPoint {
    /// What its manifest says.
    pub manifest: Manifest,
    /// When it was removed, RFC 3339, if it was: restorable until it is swept.
    pub removed_at: Option<String>,
    /// Why it is held, if it is: nobody removes it then.
    pub held: Option<String>,
}

impl KnownPoint {
    /// When it was made; one whose time cannot be read is older than all others.
    pub fn time(&self) -> Timestamp {
        self.manifest.time.parse().unwrap_or(Timestamp::MIN)
    }

    /// Times are of whole seconds: of points of one second the later session's is the newer.
    fn age(&self) -> (Timestamp, SessionId, PointId) {
        (self.time(), self.manifest.writer.session, self.manifest.point)
    }
}

/// An object that cannot be read, and why.
#[derive(Debug)]
pub struct DamagedObject {
    /// Its name.
    pub name: String,
    /// What is wrong.
    pub error: Error,
}

/// What a vault holds.
#[derive(Debug, Default)]
pub struct Points {
    /// The points, newest first; removed ones are marked.
    pub points: Vec<KnownPoint>,
    /// What cannot be read: manifests, newer catalogues, and names that are nobody's. The first 1000.
    pub damaged: Vec<DamagedObject>,
    /// How many cannot be read.
    pub damaged_total: usize,
    /// The highest session of each cluster that a manifest or a readable catalogue names.
    pub sessions: HashMap<ClusterId, u64>,
    /// What a cluster's coordinators said of the vault in the catalogue; empty where it is a home's. Only they read it.
    pub cluster_state: Bytes,
}

impl Points {
    fn note_damage(&mut self, name: String, error: Error) {
        tracing::warn!(object = name, error = error.chain(), "object cannot be read");
        self.damaged_total += 1;
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push(DamagedObject { name, error });
        }
    }

    fn note_session(&mut self, cluster: ClusterId, number: u64) {
        let highest = self.sessions.entry(cluster).or_default();
        *highest = number.max(*highest);
    }

    /// Those that were not removed.
    pub fn visible(&self) -> impl Iterator<Item = &KnownPoint> {
        self.points.iter().filter(|point| point.removed_at.is_none())
    }
}

/// Reads all manifests and the catalogue. A damaged object is told and hides no other.
///
/// # Errors
/// Those of the store; objects of a newer program.
pub async fn load_points(vault: &Vault) -> Result<Points> {
    let mut found = Points::default();
    let mut manifests = Vec::new();
    let mut listing = vault.backend.list(names::POINTS);
    while let Some(object) = listing.try_next().await.doing(|| String::from("list the points"))? {
        if manifests.len() >= POINTS_MAX {
            return Err(VaultError::TooMany {
                folder: names::POINTS,
                max: POINTS_MAX,
            }
            .into());
        }
        manifests.push(object.name);
    }
    let reads = manifests.into_iter().map(|name| async move {
        let read = read_manifest(vault, &name).await;
        (name, read)
    });
    let mut reads = stream::iter(reads).buffer_unordered(READS);
    let mut points = Vec::new();
    while let Some((name, read)) = reads.next().await {
        match read {
            Ok(Some(manifest)) => points.push(manifest),
            // Deleted since it was listed.
            Ok(None) => {}
            Err(error) if is_damage(&error) => found.note_damage(name, error),
            Err(error) => return Err(error),
        }
    }
    // After the manifests: a point removed meanwhile is marked.
    let Found {
        id, catalog, damaged, ..
    } = read_newest(vault).await?;
    for (name, error) in damaged {
        found.note_damage(name, error);
    }
    if let Some(id) = id {
        match read_state(vault, id, &catalog).await {
            Ok(state) => found.cluster_state = state.into(),
            // Which points are hidden is known all the same.
            Err(error) if is_damage(&error) => found.note_damage(id.object_name(), error),
            Err(error) => return Err(error),
        }
    }
    if let Some(id) = id {
        found.note_session(id.cluster, id.index);
    }
    for manifest in points {
        found.note_session(manifest.writer.cluster, manifest.writer.session.0);
        let removed_at = catalog
            .hidden
            .get(&manifest.point)
            .map(|hidden| hidden.removed_at.clone());
        let held = catalog.held.get(&manifest.point).cloned();
        found.points.push(KnownPoint {
            manifest,
            removed_at,
            held,
        });
    }
    found.points.sort_by_cached_key(|point| std::cmp::Reverse(point.age()));
    Ok(found)
}

async fn read_manifest(vault: &Vault, name: &str) -> Result<Option<Manifest>> {
    let bytes = match vault.backend.read(name, SMALL_OBJECT_MAX).await {
        Ok(bytes) => bytes,
        Err(BackendError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error).doing(|| format!("read {name}")),
    };
    let manifest = Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, name, &bytes);
    manifest.map(Some).doing(|| format!("read {name}"))
}
