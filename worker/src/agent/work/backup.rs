//! A lease to back up an item.

use std::sync::Arc;

use tresor_storage::Kind;
use tresor_storage::ids::PointId;
use tresor_storage::index::ChunkIndex;
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::throttle::Pace;
use tresor_storage::vault::naming::{check_disk_name, check_item_name};

use super::{Done, read_manifest, source_spec};
use crate::WorkerError;
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::BackupWork;
use crate::agent::progress::Stage;
use crate::agent::vaults::JobVault;
use crate::backup::{self, BackupDisk, BackupRequest, Changes, Engine, Helper, Shares, Steering, UNAIDED};
use crate::limits::paced_source;
use crate::parts::{Ask, RemoteHelper};
use crate::slots::Routed;
use crate::source::{self, SourceSpec};

/// Backs up, up to the coordinator's answer.
pub(super) async fn run(job: &Job, work: &BackupWork) -> Result<Done, JobError> {
    let specs = specs(work)?;
    let claim = job.claim()?;
    let vault = job.open_vault().await?;
    // Who may only read learns it now, not after the first disk.
    vault.vault.cutter()?;
    let (parent, harmed) = job.unless_stopped(parent(work, &vault)).await?;
    let pins = work.parent.iter().map(|(point, _)| *point).collect();
    let routed = job.routed(&vault, claim).await?;
    let control = job.control(&vault, claim, pins, harmed, routed.clone());
    // Before the index, which takes long to build the first time: a catalogue that is put meanwhile has a later number than this lease, too.
    job.unless_stopped(control.check_log()).await?;
    job.enter(Stage::Indexing);
    let index: Arc<dyn ChunkIndex> = match &routed {
        Some(routed) => Arc::new(routed.clone()),
        None => job.unless_stopped(job.vaults.index(&vault, claim)).await?,
    };
    let disks = job
        .unless_stopped(open_disks(specs, &job.vaults.limits().disks()))
        .await?;
    let helpers = helpers(job, work, routed.as_ref());
    let engine = Engine {
        vault: Arc::clone(&vault.vault),
        reader: vault.reader(Some(Arc::clone(&index))),
        index,
        control,
        shares: routed.map(|routed| Arc::new(routed) as Arc<dyn Shares>),
        helpers,
    };
    let request = BackupRequest {
        item: work.item,
        item_name: work.item_name.clone(),
        disks,
        parent,
        time: crate::home::now(),
        keep_until: work.keep_until.clone(),
        consistency: Consistency::Crash,
        consistency_reason: String::from(UNAIDED),
        allow_live: work.allow_live,
        effort: job.effort,
    };
    job.enter(Stage::Reading);
    let steering = Steering {
        progress: job.activity.count(),
        cancel: job.stop.token(),
    };
    let outcome = Box::pin(backup::run(&engine, request, steering)).await?;
    tracing::info!(
        point = %outcome.manifest.point,
        bytes_read = outcome.counts.bytes_read,
        bytes_new = outcome.counts.bytes_new,
        bytes_stored = outcome.counts.bytes_stored,
        "point counts"
    );
    Ok(Done::Committed)
}

/// Other workers that can read the disks: those that the lease names, where the index is shared. Without that what they store could not be found here.
fn helpers(job: &Job, work: &BackupWork, routed: Option<&Routed>) -> Vec<Arc<dyn Helper>> {
    let (Some(routed), Some(slots)) = (routed, &job.slots) else {
        return Vec::new();
    };
    let ask = Arc::new(Ask {
        lease: job.lease.id,
        routed: routed.clone(),
    });
    let helpers = work.helpers.iter().filter_map(|helper| {
        let channel = slots.channel(helper.worker, &helper.serves)?;
        let helper = RemoteHelper::new(helper.name.clone(), channel, Arc::clone(&ask));
        Some(Arc::new(helper) as Arc<dyn Helper>)
    });
    helpers.collect()
}

/// Which disks to read, by name.
fn specs(work: &BackupWork) -> Result<Vec<(String, SourceSpec)>, JobError> {
    let refuse = |why: String| Err(JobError::Lease { why });
    if let Err(error) = check_item_name(&work.item_name) {
        return refuse(error.to_string());
    }
    if work.disks.is_empty() {
        return refuse(format!("item {} has no disks", work.item_name));
    }
    let mut specs: Vec<(String, SourceSpec)> = Vec::with_capacity(work.disks.len());
    for disk in &work.disks {
        if let Err(error) = check_disk_name(&disk.name) {
            return refuse(error.to_string());
        }
        if specs.iter().any(|(name, _)| *name == disk.name) {
            return refuse(format!("two disks are named {:?}", disk.name));
        }
        let spec = source_spec(&disk.path, &disk.format, work.allow_live, work.allow_backing)?;
        specs.push((disk.name.clone(), spec));
    }
    Ok(specs)
}

async fn open_disks(specs: Vec<(String, SourceSpec)>, pace: &Pace) -> Result<Vec<BackupDisk>, WorkerError> {
    let mut disks = Vec::with_capacity(specs.len());
    for (name, spec) in specs {
        let source = match source::open(&spec).await {
            Ok(source) => source,
            Err(source) => return Err(WorkerError::Source { disk: name, source }),
        };
        disks.push(BackupDisk {
            name,
            source: paced_source(source, pace.clone()),
            changes: Changes::Unknown,
        });
    }
    Ok(disks)
}

/// The point to compare with, and the points found harmed. A parent that is gone or another than the log names is damage, and is reported with the
/// point; the machine is backed up all the same, by reading everything and asking the index for everything.
async fn parent(work: &BackupWork, vault: &JobVault) -> Result<(Option<Manifest>, Vec<PointId>), JobError> {
    let Some((point, hash)) = work.parent else {
        return Ok((None, Vec::new()));
    };
    if work.parent_harmed {
        return Ok((None, Vec::new()));
    }
    match read_manifest(&vault.vault, work.item, point, &hash).await {
        Ok(manifest) => Ok((Some(manifest), Vec::new())),
        Err(error) if matches!(error.kind(), Kind::Missing | Kind::Corrupt) => {
            tracing::error!(
                %point,
                error = crate::agent::failure::chain(&error),
                "manifest of the item's newest point cannot be used: everything is read, and the point is reported as harmed"
            );
            Ok((None, vec![point]))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::agent::port::WorkDisk;
    use crate::source::DiskFormat;
    use tresor_storage::ids::ItemId;

    fn work(disks: &[(&str, &str, &str)]) -> BackupWork {
        let disk = |(name, path, format): &(&str, &str, &str)| WorkDisk {
            name: (*name).to_owned(),
            path: (*path).to_owned(),
            format: (*format).to_owned(),
        };
        BackupWork {
            item: ItemId([1; 16]),
            item_name: String::from("web"),
            disks: disks.iter().map(disk).collect(),
            parent: None,
            parent_harmed: false,
            keep_until: None,
            allow_live: false,
            allow_backing: false,
            helpers: Vec::new(),
        }
    }

    #[test]
    fn disks_have_names_of_their_own_and_absolute_paths() {
        let specs = specs(&work(&[("vda", "/vm/a.img", "qcow2"), ("vdb", "/vm/b.vhdx", "")])).unwrap();
        assert_eq!(specs[0].1.format(), DiskFormat::Qcow2);
        assert_eq!(specs[1].1.format(), DiskFormat::Vhdx);
        for wrong in [
            work(&[]),
            work(&[("vda", "vm/a.img", "")]),
            work(&[("vda", "", "")]),
            work(&[("vda", "/a", ""), ("vda", "/b", "")]),
            work(&[("", "/a", "")]),
            work(&[("vda", "/a", "iso")]),
            BackupWork {
                item_name: String::from("a\nb"),
                ..work(&[("vda", "/a", "")])
            },
        ] {
            let error = super::specs(&wrong).map(drop).unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{wrong:?}");
        }
    }
}
