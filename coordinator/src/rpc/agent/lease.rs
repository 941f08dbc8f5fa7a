//! What a worker is told with a lease: what its job needs, and no more.

use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::v1;
use tresor_proto::v1::lease::Work as WorkMessage;

use crate::node::presence::LEASE_MS;
use crate::state::State;
use crate::state::command::{VaultOrigin, Work};
use crate::state::rows::VaultState;

/// Why a lease that was just given cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseError {
    /// It has ended by now.
    #[error("the lease has ended")]
    Ended,
    /// What it is about is not there, which the log excludes.
    #[error("{0} of the lease is not there")]
    Missing(&'static str),
}

/// The lease of a running attempt, still without the vault's key.
pub(crate) fn message(state: &State, job_id: JobId, epoch: Epoch) -> Result<v1::Lease, LeaseError> {
    let job = state.jobs().get(&job_id).ok_or(LeaseError::Ended)?;
    let attempt = job
        .running()
        .filter(|attempt| attempt.epoch == epoch)
        .ok_or(LeaseError::Ended)?;
    let session = state
        .sessions()
        .get(&attempt.session)
        .ok_or(LeaseError::Missing("the session"))?;
    let vault = state
        .vaults()
        .get(&job.spec.vault)
        .ok_or(LeaseError::Missing("the vault"))?;
    let (claim, cluster, header) = match vault.state {
        VaultState::Ready(claim) => (claim.n, claim.cluster, claim.header.to_vec()),
        VaultState::Claiming | VaultState::Removing => (0, 0, Vec::new()),
    };
    let work = match &job.spec.work {
        Work::Backup { item: id, keep_until } => {
            let item = state.items().get(id).ok_or(LeaseError::Missing("the item"))?;
            // The session's one pin is the parent: no other point may be inherited from, whatever is the newest by now.
            let parent = session.pins.first().map(|parent| (parent, state.points().get(parent)));
            let (parent, point) = match parent {
                Some((parent, Some(point))) => (parent.0.to_vec(), Some(point)),
                Some((_, None)) => return Err(LeaseError::Missing("the pinned parent")),
                None => (Vec::new(), None),
            };
            WorkMessage::Backup(v1::BackupWork {
                item: id.0.to_vec().into(),
                item_name: item.spec.name.clone(),
                disks: item.spec.disks.iter().map(disk).collect(),
                parent: parent.into(),
                parent_manifest: point.map(|point| point.manifest.to_vec()).unwrap_or_default().into(),
                parent_harmed: point.is_some_and(|point| point.harmed),
                keep_until: keep_until.map(|until| until.to_string()).unwrap_or_default(),
                allow_live: item.spec.allow_live,
                allow_backing: item.spec.allow_backing,
                helpers: Vec::new(),
            })
        }
        Work::Restore { point: id, target, .. } => {
            let point = state.points().get(id).ok_or(LeaseError::Missing("the pinned point"))?;
            WorkMessage::Restore(v1::RestoreWork {
                point: id.0.to_vec().into(),
                item: point.item.0.to_vec().into(),
                manifest: point.manifest.to_vec().into(),
                disk: target.disk.clone(),
                path: target.path.clone(),
                format: target.format.clone(),
                overwrite: target.overwrite,
                in_place: target.in_place,
            })
        }
        Work::Verify { point, level } => {
            let row = match point {
                Some(id) => Some(state.points().get(id).ok_or(LeaseError::Missing("the pinned point"))?),
                None => None,
            };
            WorkMessage::Verify(v1::VerifyWork {
                point: point.map(|point| point.0.to_vec()).unwrap_or_default().into(),
                level: level.clone(),
                item: row.map(|row| row.item.0.to_vec()).unwrap_or_default().into(),
                manifest: row.map(|row| row.manifest.to_vec()).unwrap_or_default().into(),
            })
        }
        Work::Claim => WorkMessage::Claim(v1::ClaimWork {
            make: vault.spec.origin == VaultOrigin::Make,
        }),
        // A number that the log used up for this attempt, and greater than that of every catalogue before.
        Work::Catalogue => WorkMessage::Catalogue(v1::CatalogueWork {
            index: attempt.session.0,
        }),
    };
    Ok(v1::Lease {
        id: Some(v1::LeaseId {
            job: job_id.0,
            epoch: epoch.0,
        }),
        session: attempt.session.0,
        start_epoch: session.start_epoch,
        attempt: job.attempts_made,
        lease_ms: u32::try_from(LEASE_MS).expect("half a minute"),
        vault: Some(v1::LeaseVault {
            id: job.spec.vault.0.to_vec().into(),
            name: vault.spec.name.clone(),
            url: vault.spec.url.clone(),
            region: vault.spec.region.clone(),
            profile: vault.spec.profile.clone(),
            key: bytes::Bytes::new(),
            claim,
            cluster,
            header: header.into(),
        }),
        findings: vault.findings,
        // Who tells it knows.
        traceparent: String::new(),
        work: Some(work),
    })
}

fn disk(disk: &crate::state::command::DiskSpec) -> v1::Disk {
    v1::Disk {
        name: disk.name.clone(),
        path: disk.path.clone(),
        format: disk.format.clone(),
    }
}
