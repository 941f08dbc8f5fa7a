//! A lease to restore disks of a point to this host.
//!
//! It stops as soon as its lease is over by this worker's own clock ([`crate::agent::lease`] says why), and it reports only what is on the disk for good.

use std::sync::Arc;

use tresor_proto::v1;
use tresor_storage::manifest::Manifest;

use super::{Done, disk_format, host_path, read_manifest};
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::{Outcome, RestoreWork};
use crate::agent::progress::Stage;
use crate::control::Counts;
use crate::error::WorkerError;
use crate::limits::paced_sink;
use crate::restore::{
    self, Existing, RestoreOutcome, RestoreRequest, choose_disks, make_folder, merge_gap, open_target, place_disks,
    refuse_wrong_targets,
};

/// Damaged ranges that a failure names.
const DAMAGE_NAMED: usize = 3;

/// Restores to the last disk.
pub(super) async fn run(job: &Job, work: &RestoreWork) -> Result<Done, JobError> {
    let to = host_path(&work.path)?;
    let format = disk_format(&work.format)?;
    let existing = Existing::of(work.overwrite, work.in_place);
    let vault = job.open_vault().await?;
    let manifest = job
        .unless_stopped(read_manifest(&vault.vault, work.item, work.point, &work.manifest))
        .await?;
    let names: Vec<String> = Some(work.disk.clone())
        .filter(|name| !name.is_empty())
        .into_iter()
        .collect();
    let disks = choose_disks(&manifest, &names)?;
    let placed = place_disks(disks, &to, format);
    refuse_wrong_targets(&placed, existing)?;
    make_folder(&placed, &to).map_err(|source| WorkerError::Sink {
        disk: placed
            .first()
            .map_or_else(String::new, |placed| placed.disk.name.clone()),
        source,
    })?;
    // Hints lead to everything in the common case; where packs were healed elsewhere the index knows.
    let reader = vault.reader(Box::pin(job.index_for_reading(&vault)).await);

    job.enter(Stage::Writing);
    job.activity
        .set_total(placed.iter().map(|placed| placed.disk.root.size).sum());
    let disks_pace = job.vaults.limits().disks();
    let mut counts = Counts::default();
    let mut disks = Vec::with_capacity(placed.len());
    for placed in &placed {
        let sink = job.unless_stopped(open_target(placed, existing)).await?;
        let sink = paced_sink(sink, disks_pace.clone());
        let request = RestoreRequest {
            disk: placed.disk.name.clone(),
            root: placed.disk.root,
            sink: Arc::clone(&sink),
            in_place: existing == Existing::InPlace,
            allow_damage: false,
            merge_gap: merge_gap(&vault.url),
            cores: job.effort.cores,
            progress: job.activity.count(),
            cancel: job.stop.token(),
        };
        let restored = Box::pin(restore::run(&reader, request)).await.map_err(JobError::from);
        let outcome = match restored.and_then(|outcome| undamaged(&manifest, &placed.disk.name, outcome)) {
            Ok(outcome) => outcome,
            Err(error) => {
                // Before anybody hears of it: the next attempt, here or elsewhere, must not meet a late write of this one.
                sink.abandon().await;
                return Err(error);
            }
        };
        counts.bytes_read += outcome.bytes_fetched;
        counts.bytes_new += outcome.bytes_written;
        counts.bytes_logical += placed.disk.root.size;
        disks.push(v1::DiskReport {
            name: placed.disk.name.clone(),
            size: placed.disk.root.size,
            root: placed.disk.root.id.0.to_vec().into(),
            path: placed.target.path.display().to_string(),
            format: placed.target.format.name().to_owned(),
            bytes_written: outcome.bytes_written,
            bytes_equal: outcome.bytes_equal,
            bytes_fetched: outcome.bytes_fetched,
        });
    }
    counts.requests = vault.meter().requests();
    Ok(Done::Report {
        outcome: Outcome::Nothing,
        counts,
        report: Some(v1::Report {
            disks,
            ..v1::Report::default()
        }),
    })
}

/// What a restore did, if it could restore everything.
fn undamaged(manifest: &Manifest, disk: &str, outcome: RestoreOutcome) -> Result<RestoreOutcome, JobError> {
    let damage = &outcome.damage;
    if damage.is_empty() {
        return Ok(outcome);
    }
    let named: Vec<String> = damage
        .iter()
        .take(DAMAGE_NAMED)
        .map(|damage| format!("{}+{}: {}", damage.offset, damage.length, damage.why))
        .collect();
    let bytes: u64 = damage.iter().map(|damage| damage.length).sum();
    let more = match damage.len() - named.len() {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    Err(JobError::Damaged {
        point: manifest.point.to_string(),
        what: format!(
            "{bytes} bytes of disk {disk} cannot be restored ({}{more})",
            named.join("; ")
        ),
    })
}
