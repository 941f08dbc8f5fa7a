//! A lease to seal and put what the coordinator knows of a vault.

use std::collections::BTreeSet;

use bytes::Bytes;
use tresor_storage::backend::BackendError;
use tresor_storage::catalog::{Catalog, CatalogId, PART_STATE_MAX, StatePart, open_part, seal_part};
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::vault::Vault;
use tresor_storage::vault::claim::{ListedClaim, check_standing};
use tresor_storage::{Doing as _, Error};

use super::Done;
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::Outcome;
use crate::agent::progress::Stage;
use crate::control::catalog::{list_with_parts, superseded, unneeded};
use crate::control::{Counts, fenced};

/// Bytes of a state that stay in the catalogue itself: what a vault of some ten thousand points has. With all hidden and held points that fit, a catalogue
/// is a small object still.
const STATE_BESIDE_MAX: usize = 1 << 20;

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
    let (before, parts) = job.unless_stopped(list_with_parts(&vault.vault)).await?;
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
    let mut catalog = Catalog {
        hidden: content.hidden,
        written_at: content.written_at,
        held: content.held,
        ..Catalog::default()
    };
    let mut bytes = 0;
    if content.state.len() <= STATE_BESIDE_MAX {
        catalog.cluster_state = content.state;
    } else {
        // First all parts, then the catalogue that names them: who finds it finds them.
        for number in 0..content.state.len().div_ceil(PART_STATE_MAX) {
            let from = number * PART_STATE_MAX;
            let state = content
                .state
                .slice(from..content.state.len().min(from + PART_STATE_MAX));
            catalog.parts.push(StatePart::of(&state));
            let number = u16::try_from(number).expect("the state has a bound");
            bytes += job.unless_stopped(put_part(&vault.vault, id, number, state)).await?;
        }
    }
    bytes += job.unless_stopped(put(&vault.vault, id, &catalog)).await?;
    // Put first, then listed: as for every acknowledgement.
    if let Err(error) = job.unless_stopped(check_claim(&vault.vault, claim)).await {
        if is_fenced(&error) {
            // The taker's catalogues outrank it in any case; this keeps it from being the newest until there is one.
            let _ = vault.vault.backend.delete(&id.object_name()).await;
        }
        return Err(error);
    }
    delete_old(&vault.vault, &before, &parts, id).await;
    let counts = Counts {
        bytes_stored: bytes,
        ..Counts::default()
    };
    Ok(Done::Report {
        outcome: Outcome::Nothing,
        counts,
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
        Err(error) => Err(while_writing(&name, error)),
    }
}

/// Puts a part. Under its name there can be only what this attempt put without hearing of it: the number of the catalogue was used up for the attempt.
async fn put_part(vault: &Vault, id: CatalogId, number: u16, state: Bytes) -> Result<u64, JobError> {
    let name = id.part_name(number);
    let expected = StatePart::of(&state);
    let sealed = seal_part(&vault.keyring, vault.id, id, number, state).doing(|| format!("seal {name}"))?;
    let length = sealed.len() as u64;
    match vault.backend.create(&name, &[sealed]).await {
        Ok(()) => Ok(length),
        Err(error @ BackendError::Exists { .. }) => {
            let doing = || format!("compare {name}");
            let there = vault.backend.read(&name, SMALL_OBJECT_MAX).await.doing(doing)?;
            let there = open_part(&vault.keyring, vault.id, id, number, &there).doing(doing)?;
            if StatePart::of(&there) != expected {
                return Err(while_writing(&name, error));
            }
            Ok(length)
        }
        Err(error) => Err(while_writing(&name, error)),
    }
}

fn while_writing(name: &str, error: BackendError) -> JobError {
    Error::While {
        doing: format!("write {name}"),
        source: Box::new(error.into()),
    }
    .into()
}

/// Deletes what is older than the newest three, each with its parts, the catalogue first: without it nobody looks for them. What is left is deleted the next
/// time.
async fn delete_old(vault: &Vault, before: &[CatalogId], parts: &[(CatalogId, u16)], ours: CatalogId) {
    let mut stay: BTreeSet<_> = before.iter().chain([&ours]).map(|id| (id.cluster, id.index)).collect();
    let mut names = Vec::new();
    for id in superseded(before, ours) {
        stay.remove(&(id.cluster, id.index));
        names.push(id.object_name());
    }
    let parts = unneeded(parts, &stay, ours);
    names.extend(parts.into_iter().map(|(id, number)| id.part_name(number)));
    for name in names {
        if let Err(error) = vault.backend.delete(&name).await {
            tracing::warn!(object = name, %error, "could not delete an old catalogue");
        }
    }
}
