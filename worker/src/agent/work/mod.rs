//! What each kind of lease becomes: the pipelines that a home drives too, with what the lease says.

mod backup;
mod catalogue;
mod claim;
mod restore;
mod verify;

use std::path::{Path, PathBuf};

use tresor_proto::v1;
use tresor_storage::Doing as _;
use tresor_storage::ids::{ItemId, PointId};
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::manifest::{self, Manifest};
use tresor_storage::vault::{Vault, names};

use super::error::JobError;
use super::job::Job;
use super::port::{Outcome, Work};
use crate::control::Counts;
use crate::source::{DiskFormat, SourceSpec};

pub(super) use claim::withdraw_claim;

/// How an attempt ended well.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "an attempt makes one, which is moved once")]
pub(super) enum Done {
    /// The coordinator took it already, with its point.
    Committed,
    /// It is to be reported.
    Report {
        /// What was made.
        outcome: Outcome,
        /// What it took.
        counts: Counts,
        /// What was made in detail.
        report: Option<v1::Report>,
    },
}

/// Does what the lease says.
pub(super) async fn run(job: &Job) -> Result<Done, JobError> {
    match &job.lease.work {
        Work::Backup(work) => Box::pin(backup::run(job, work)).await,
        Work::Restore(work) => Box::pin(restore::run(job, work)).await,
        Work::Verify(work) => Box::pin(verify::run(job, work)).await,
        Work::Claim { make } => Box::pin(claim::run(job, *make)).await,
        Work::Catalogue { index } => Box::pin(catalogue::run(job, *index)).await,
    }
}

impl Work {
    /// Whether it must end when its lease is over by the worker's own clock: see [`super::lease`].
    pub(super) fn stops_without_lease(&self) -> bool {
        match self {
            Self::Restore(_) | Self::Claim { .. } => true,
            Self::Backup(_) | Self::Verify(_) | Self::Catalogue { .. } => false,
        }
    }
}

/// Reads the manifest of a point, and no other than the one that counts.
///
/// # Errors
/// [`JobError::OtherManifest`]; those of the store; what is wrong with it.
async fn read_manifest(vault: &Vault, item: ItemId, point: PointId, hash: &[u8; 32]) -> Result<Manifest, JobError> {
    let name = names::point(item, point);
    let doing = || format!("read {name}");
    let bytes = vault.backend.read(&name, SMALL_OBJECT_MAX).await.doing(doing)?;
    if manifest::hash(&bytes) != *hash {
        return Err(JobError::OtherManifest {
            point: point.to_string(),
        });
    }
    let manifest = Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, &name, &bytes).doing(doing)?;
    Ok(manifest)
}

/// How a disk of this host is opened.
pub(crate) fn source_spec(
    path: &str,
    format: &str,
    allow_live: bool,
    allow_backing: bool,
) -> Result<SourceSpec, JobError> {
    Ok(SourceSpec {
        path: host_path(path)?,
        format: disk_format(format)?,
        allow_live,
        allow_backing,
    })
}

/// A path of this host. A relative one would mean another place with every way in which the worker is started.
fn host_path(text: &str) -> Result<PathBuf, JobError> {
    let path = Path::new(text);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    Err(JobError::Lease {
        why: format!("{text:?} is not an absolute path"),
    })
}

/// A format by its name; none: by the extension.
fn disk_format(text: &str) -> Result<Option<DiskFormat>, JobError> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|error| JobError::Lease {
        why: format!("{error}"),
    })
}
