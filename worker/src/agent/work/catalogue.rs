//! A lease to seal and put what the coordinator knows of a vault.

use tresor_storage::backend::BackendError;
use tresor_storage::catalog::{Catalog, CatalogId};
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::vault::Vault;
use tresor_storage::vault::claim::{ListedClaim, check_standing};
use tresor_storage::{Doing as _, Error};

use super::Done;
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::Outcome;
use crate::agent::progress::Stage;
use crate::control::catalog::{list, superseded};
use crate::control::{Counts, fenced};

/// Puts the catalogue of that number.
pub(super) async fn run(job: &Job, index: u64) -> Result<Done, JobError> {
    let claim = job.claim()?;
    let vault = job.open_vault().await?;
    let id = CatalogId {
        cluster: claim.cluster,
        index,
    };
    job.enter(Stage::Cataloguing);
    job.unless_stopped(check_claim(&vault.vault, claim)).await?;
    let before = job.unless_stopped(list(&vault.vault)).await?;
    // Numbers are indexes of the log. A later one of ours is either what a later job put, and then this attempt is late; or the log is an older state
    // of itself, and then it must not write at all.
    let there = before
        .iter()
        .filter(|other| other.cluster == id.cluster)
        .map(|other| other.index);
    if let Some(there) = there.max().filter(|there| *there > index) {
        return Err(JobError::LaterCatalogue { there, ours: index });
    }
    let content = job
        .ask("read what the catalogue is to say", || {
            job.coordinator.catalogue(job.lease.id)
        })
        .await?;
    let catalog = Catalog {
        hidden: content.hidden,
        written_at: content.written_at,
        cluster_state: content.state,
    };
    let bytes = job.unless_stopped(put(&vault.vault, id, &catalog)).await?;
    // Put first, then listed: as for every acknowledgement.
    if let Err(error) = job.unless_stopped(check_claim(&vault.vault, claim)).await {
        if is_fenced(&error) {
            // The taker's catalogues outrank it in any case; this keeps it from being the newest until there is one.
            let _ = vault.vault.backend.delete(&id.object_name()).await;
        }
        return Err(error);
    }
    delete_old(&vault.vault, &before, id).await;
    let counts = Counts {
        bytes_stored: bytes,
        ..Counts::default()
    };
    Ok(Done::Report {
        outcome: Outcome::Nothing,
        counts,
        report: None,
    })
}

async fn check_claim(vault: &Vault, claim: ListedClaim) -> Result<(), JobError> {
    let standing = check_standing(vault.backend.as_ref(), vault.id, claim).await;
    Ok(standing.map_err(fenced)?)
}

fn is_fenced(error: &JobError) -> bool {
    matches!(
        error,
        JobError::Worker(crate::WorkerError::Control(crate::control::ControlError::Fenced { .. }))
    )
}

/// Puts it; what an earlier attempt of the job put under the name is as good, if it can be read: it was encoded after the number was given.
async fn put(vault: &Vault, id: CatalogId, catalog: &Catalog) -> Result<u64, JobError> {
    let name = id.object_name();
    let sealed = catalog
        .seal(&vault.keyring, vault.id, id)
        .doing(|| format!("seal {name}"))?;
    let length = sealed.len() as u64;
    match vault.backend.create(&name, &[sealed]).await {
        Ok(()) => Ok(length),
        Err(BackendError::Exists { .. }) => {
            let doing = || format!("compare {name}");
            let there = vault.backend.read(&name, SMALL_OBJECT_MAX).await.doing(doing)?;
            Catalog::open(&vault.keyring, vault.id, id, &there).doing(doing)?;
            Ok(there.len() as u64)
        }
        Err(error) => Err(Error::While {
            doing: format!("write {name}"),
            source: Box::new(error.into()),
        }
        .into()),
    }
}

/// Deletes what is older than the newest three. What is left is deleted the next time.
async fn delete_old(vault: &Vault, before: &[CatalogId], ours: CatalogId) {
    for id in superseded(before, ours) {
        let name = id.object_name();
        if let Err(error) = vault.backend.delete(&name).await {
            tracing::warn!(object = name, %error, "could not delete an old catalogue");
        }
    }
}
