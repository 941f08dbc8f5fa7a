//! Which disks of a point go where, and what is refused before anything is touched.

use std::path::Path;
use std::sync::Arc;

use tresor_storage::manifest::{Manifest, ManifestDisk};
use tresor_storage::vault::VaultError;
use tresor_storage::{Doing as _, Result};

use super::targets::{Target, There, plan_targets};
use super::{MERGE_GAP_LOCAL, MERGE_GAP_REMOTE};
use crate::error::WorkerError;
use crate::sink::{self, DiskSink, SinkError, SinkSpec};
use crate::source::DiskFormat;

/// What becomes of a target that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It is left, and the restore refused.
    Refuse,
    /// It is replaced.
    Overwrite,
    /// It is compared, and only what differs is written. It must be there.
    InPlace,
}

impl Existing {
    /// From two switches of which one at most is set.
    pub fn of(overwrite: bool, in_place: bool) -> Self {
        match (overwrite, in_place) {
            (_, true) => Self::InPlace,
            (true, false) => Self::Overwrite,
            (false, false) => Self::Refuse,
        }
    }
}

/// A disk and where it goes.
#[derive(Debug)]
pub struct Placed<'a> {
    /// The disk.
    pub disk: &'a ManifestDisk,
    /// Where it goes.
    pub target: Target,
    /// Whether something is there.
    pub exists: bool,
}

/// The disks so named, each once, in the point's order; all when none is named.
///
/// # Errors
/// [`VaultError::NotThere`], with the disks that there are.
pub fn choose_disks<'a>(manifest: &'a Manifest, names: &[String]) -> Result<Vec<&'a ManifestDisk>> {
    for name in names {
        if !manifest.disks.iter().any(|disk| disk.name == *name) {
            let there: Vec<&str> = manifest.disks.iter().map(|disk| disk.name.as_str()).collect();
            let missing = VaultError::NotThere {
                what: "disk",
                name: name.clone(),
            };
            let doing = || format!("point {} has the disks {}", manifest.point, there.join(", "));
            return Err(missing).doing(doing);
        }
    }
    Ok(manifest
        .disks
        .iter()
        .filter(|disk| names.is_empty() || names.contains(&disk.name))
        .collect())
}

/// Decides where each disk goes. Looks at what is there, and changes nothing.
pub fn place_disks<'a>(disks: Vec<&'a ManifestDisk>, to: &Path, format: Option<DiskFormat>) -> Vec<Placed<'a>> {
    let there = if to.is_dir() { There::Folder } else { There::Other };
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    let targets = plan_targets(&names, to, there, format);
    let place = |(disk, target): (&'a ManifestDisk, Target)| Placed {
        disk,
        exists: std::fs::symlink_metadata(&target.path).is_ok(),
        target,
    };
    disks.into_iter().zip(targets).map(place).collect()
}

/// Refuses, before anything is touched, what cannot be.
///
/// # Errors
/// [`SinkError::Exists`] or [`SinkError::Missing`], for the first disk of which that is so.
pub fn refuse_wrong_targets(placed: &[Placed<'_>], existing: Existing) -> Result<(), WorkerError> {
    for Placed { disk, target, exists } in placed {
        let path = target.path.clone();
        let source = match (existing, exists) {
            (Existing::Refuse, true) => SinkError::Exists { path },
            (Existing::InPlace, false) => SinkError::Missing { path },
            _ => continue,
        };
        return Err(WorkerError::Sink {
            disk: disk.name.clone(),
            source,
        });
    }
    Ok(())
}

/// Makes the folder that disks go into; its parent must be there.
///
/// # Errors
/// Those of the file system.
pub fn make_folder(placed: &[Placed<'_>], to: &Path) -> Result<(), SinkError> {
    let goes_inside = placed.iter().any(|placed| placed.target.path != to);
    if !goes_inside || to.is_dir() {
        return Ok(());
    }
    std::fs::create_dir(to).map_err(|source| SinkError::from_io("make folder", to, source))
}

/// Opens a disk's target.
///
/// # Errors
/// Those of [`sink::create`] and [`sink::open_in_place`].
pub async fn open_target(placed: &Placed<'_>, existing: Existing) -> Result<Arc<dyn DiskSink>, WorkerError> {
    let spec = SinkSpec {
        path: placed.target.path.clone(),
        format: Some(placed.target.format),
        size: placed.disk.root.size,
        overwrite: existing == Existing::Overwrite,
        durable: true,
    };
    let opened = match existing {
        Existing::InPlace => sink::open_in_place(&spec).await,
        Existing::Refuse | Existing::Overwrite => sink::create(&spec).await,
    };
    opened.map_err(|source| WorkerError::Sink {
        disk: placed.disk.name.clone(),
        source,
    })
}

/// The gap that is worth fetching from the store at `url`.
pub fn merge_gap(url: &str) -> u64 {
    if url.starts_with("file:") || url.starts_with("memory:") {
        MERGE_GAP_LOCAL
    } else {
        MERGE_GAP_REMOTE
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use tresor_storage::ids::{ChunkId, ClusterId, ItemId, PartId, PointId, SessionId, VaultId, Writer};
    use tresor_storage::manifest::Consistency;
    use tresor_storage::recipe::Root;

    fn manifest(disks: &[&str]) -> Manifest {
        let disk = |name: &&str| ManifestDisk {
            name: (*name).to_owned(),
            root: Root {
                id: ChunkId([0; 32]),
                size: 4096,
                depth: 0,
                child: None,
            },
            source_kind: String::new(),
            source_format: String::new(),
        };
        Manifest {
            vault: VaultId([0; 16]),
            item: ItemId([0; 16]),
            item_name: String::from("web"),
            point: PointId([0; 16]),
            writer: Writer {
                cluster: ClusterId(0),
                session: SessionId(0),
                part: PartId(0),
            },
            parent: None,
            time: String::new(),
            keep_until: None,
            consistency: Consistency::Crash,
            consistency_reason: String::new(),
            live: false,
            disks: disks.iter().map(disk).collect(),
            bytes_read: 0,
            bytes_new: 0,
            bytes_stored: 0,
        }
    }

    #[test]
    fn disks_are_chosen_by_name_and_a_wrong_name_says_which_there_are() {
        let manifest = manifest(&["vda", "vdb"]);
        let names = |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(choose_disks(&manifest, &[]).unwrap().len(), 2);
        let chosen = choose_disks(&manifest, &names(&["vdb", "vdb"])).unwrap();
        assert_eq!(
            chosen.iter().map(|disk| disk.name.as_str()).collect::<Vec<_>>(),
            ["vdb"]
        );
        let error = choose_disks(&manifest, &names(&["vdc"])).unwrap_err();
        assert!(
            error.is_missing() && error.chain().contains("vda, vdb"),
            "{}",
            error.chain()
        );
    }

    #[test]
    fn what_is_there_is_refused_replaced_or_needed() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = manifest(&["vda", "vdb"]);
        let to = folder.path().join("web");
        let placed = |to: &Path| place_disks(choose_disks(&manifest, &[]).unwrap(), to, None);
        let fresh = placed(&to);
        refuse_wrong_targets(&fresh, Existing::Refuse).unwrap();
        assert!(refuse_wrong_targets(&fresh, Existing::InPlace).is_err());
        assert!(!to.exists(), "nothing is touched");
        make_folder(&fresh, &to).unwrap();
        make_folder(&fresh, &to).unwrap();
        std::fs::write(to.join("vdb.raw"), "x").unwrap();
        let second = placed(&to);
        assert_eq!(
            second.iter().map(|placed| placed.exists).collect::<Vec<_>>(),
            [false, true]
        );
        let error = refuse_wrong_targets(&second, Existing::Refuse).unwrap_err();
        assert!(
            matches!(&error, WorkerError::Sink { disk, .. } if disk == "vdb"),
            "{error}"
        );
        refuse_wrong_targets(&second, Existing::Overwrite).unwrap();
        assert!(
            refuse_wrong_targets(&second, Existing::InPlace).is_err(),
            "the other one is missing"
        );
        assert!(make_folder(&placed(&to.join("a/b")), &to.join("a/b")).is_err());
    }

    #[test]
    fn gaps_are_worth_more_over_a_network() {
        assert!(merge_gap("s3://bucket/x") > merge_gap("file:///x"));
    }
}
