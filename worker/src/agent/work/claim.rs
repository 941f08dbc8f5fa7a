//! A lease to make a vault, or to claim one that is there.
//!
//! **Made** under the id and with the secret that the lease gives, so that an attempt that broke off is repeated: a vault of that id is there, our key opens
//! it, it holds no point, and its claim is the one that an attempt put. **Taken over**: our claim goes above all others, under a cluster id drawn for it, and only then
//! is the vault looked at. Whoever wrote before puts first and looks at the claims then, so one of both sees the other.
//!
//! A claim that the log does not come to know must not stay: it would fence whoever holds the vault, for nobody. So an attempt that fails takes its own
//! claim back. Like a restore it stops when its lease is over by its own clock ([`crate::agent::lease`]).

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use tresor_storage::backend::{Backend, BackendError, OpenStore};
use tresor_storage::catalog::Catalog;
use tresor_storage::chunk::Profile;
use tresor_storage::ids::ClusterId;
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::manifest::{self, Manifest};
use tresor_storage::vault::claim::{self, Claimant, ListedClaim, SETTLING, check_standing};
use tresor_storage::vault::create::{NewVault, Prepared, open_header};
use tresor_storage::vault::header::Redundancy;
use tresor_storage::vault::revisions::delete_strays;
use tresor_storage::vault::{Vault, VaultError, names};
use tresor_storage::{Doing as _, Error, FormatError};

use super::Done;
use crate::agent::error::JobError;
use crate::agent::job::Job;
use crate::agent::port::{AdoptedPoint, Claimed, Outcome};
use crate::agent::progress::Stage;
use crate::agent::vaults::JobVault;
use crate::control::Counts;
use crate::control::catalog::{is_damage, read_newest};
use crate::home::{PROGRAM, now};

/// The name of the key slot whose secret a cluster keeps.
const CLUSTER_SLOT: &str = "cluster";
/// Points of one call: some hundred kilobytes, one entry of the log.
const BATCH: usize = 500;
/// Manifests read at once: they are small, and the store bounds what is in flight.
const READS: usize = 24;
/// How long taking a claim back may take: an attempt that failed is to be reported.
const WITHDRAWING: Duration = Duration::from_secs(60);

/// Makes or claims the vault.
pub(super) async fn run(job: &Job, make: bool) -> Result<Done, JobError> {
    job.enter(Stage::Claiming);
    let store = job.vaults.store_for(job.lease.id.job, &job.lease.vault, make)?;
    let is_there = match job
        .unless_stopped(open_header(store.backend.as_ref(), &store.url))
        .await
    {
        Ok(_) => true,
        Err(error) if make && is_no_vault(&error) => false,
        Err(error) => return Err(error),
    };
    if !is_there {
        // Whoever was faster was an earlier attempt, or has another id.
        match Box::pin(job.unless_stopped(make_vault(job, &store))).await {
            Err(error) if !is_vault_there(&error) => return Err(error),
            _ => {}
        }
    }
    let vault = job.open_vault().await?;
    // Who may only read may not write from here on.
    vault.vault.cutter()?;
    job.enter(Stage::Claiming);
    if make {
        delete_strays(vault.vault.backend.as_ref(), &vault.keys).await;
        let claim = job.unless_stopped(claim_of_making(&vault)).await?;
        return Ok(done(claim, vault.header_hash, 0));
    }
    take_over(job, &vault).await
}

fn vault_error(error: &JobError) -> Option<&VaultError> {
    fn of(error: &Error) -> Option<&VaultError> {
        match error {
            Error::While { source, .. } => of(source),
            Error::Vault(error) => Some(error),
            _ => None,
        }
    }
    match error {
        JobError::Worker(crate::WorkerError::Storage(error)) => of(error),
        _ => None,
    }
}

fn is_no_vault(error: &JobError) -> bool {
    matches!(vault_error(error), Some(VaultError::NoVault { .. }))
}

fn is_vault_there(error: &JobError) -> bool {
    matches!(vault_error(error), Some(VaultError::VaultExists { .. }))
}

fn done(claim: ListedClaim, header: [u8; 32], points_unreadable: u64) -> Done {
    Done::Report {
        outcome: Outcome::Claimed(Claimed {
            claim,
            header,
            points_unreadable,
        }),
        counts: Counts::default(),
        report: None,
    }
}

async fn make_vault(job: &Job, store: &OpenStore) -> Result<(), JobError> {
    let lease = &job.lease.vault;
    let profile: Profile = match lease.profile.as_str() {
        "" => Profile::default(),
        name => name.parse()?,
    };
    let mut prepared = Prepared::with_id(
        NewVault {
            url: store.url.clone(),
            region: lease.region.clone(),
            profile: profile.name().to_owned(),
            redundancy: Redundancy::Local,
            holder: job.host.clone(),
            now: now(),
            program: PROGRAM.to_owned(),
            settle: SETTLING,
        },
        lease.id,
    );
    prepared.add_kept_key(CLUSTER_SLOT, lease.key.clone());
    Box::pin(prepared.publish(store.backend.as_ref())).await?;
    Ok(())
}

/// The claim with which the vault was made, by this attempt or an earlier one. Nobody can write under it before the log knows it: a vault that holds a point
/// by now was written by somebody else, and a person decides.
async fn claim_of_making(vault: &JobVault) -> Result<ListedClaim, JobError> {
    let backend = vault.vault.backend.as_ref();
    if is_any_in(backend, names::POINTS).await? {
        return Err(JobError::NotAsMade {
            url: vault.url.clone(),
            what: String::from("somebody has written points to it"),
        });
    }
    match claim::holder(backend, vault.vault.id).await? {
        // What was made names the cluster that made it.
        Some((listed, Some(_))) if listed.cluster == vault.header.first_cluster => Ok(listed),
        // Not that of any attempt at making it.
        Some((listed, Some(_))) => Err(JobError::NotAsMade {
            url: vault.url.clone(),
            what: format!("has been taken over since: claim {} is another one's", listed.number),
        }),
        Some((listed, None)) => Err(FormatError::Malformed {
            what: "claim of the vault",
            why: "cannot be read",
        })
        .doing(|| format!("read {}", listed.object_name()))
        .map_err(JobError::from),
        None => Err(VaultError::ClaimGone {
            claim: String::from("of the making"),
        }
        .into()),
    }
}

async fn is_any_in(backend: &dyn Backend, folder: &'static str) -> Result<bool, Error> {
    let first = backend.list(folder).try_next().await;
    Ok(first.doing(|| format!("list {folder}"))?.is_some())
}

async fn take_over(job: &Job, vault: &JobVault) -> Result<Done, JobError> {
    let backend = vault.vault.backend.as_ref();
    let create_only = vault.header.stores.iter().all(|store| store.abilities.create_only);
    let settle = if create_only { Duration::ZERO } else { SETTLING };
    let claimant = Claimant {
        vault: vault.vault.id,
        holder: job.host.clone(),
        now: now(),
        program: PROGRAM.to_owned(),
    };
    // Remembered before it is put: also a put that nobody heard of is taken back.
    let cluster = *job.own_claim.get_or_init(ClusterId::random);
    let claim = job
        .unless_stopped(claim::take_over_as(backend, &claimant, cluster, settle))
        .await?;
    // Packs that are listed as dead may go at any moment, and this program would rely on them.
    if job.unless_stopped(is_any_in(backend, names::DEAD)).await? {
        return Err(JobError::Newer {
            what: String::from("lists of dead packs"),
        });
    }
    let catalog = job.unless_stopped(read_newest(&vault.vault)).await?.catalog;
    let points_unreadable = adopt(job, &vault.vault, &catalog).await?;
    job.unless_stopped(check_standing(backend, vault.vault.id, claim))
        .await?;
    Ok(done(claim, vault.header_hash, points_unreadable))
}

/// Gives the points of the vault to the coordinator; how many could not be read.
async fn adopt(job: &Job, vault: &Vault, catalog: &Catalog) -> Result<u64, JobError> {
    let mut unreadable = 0;
    let reads = vault
        .backend
        .list(names::POINTS)
        .map_err(Error::from)
        .map(|object| async move {
            match object {
                Ok(object) => read_point(vault, catalog, object.name).await,
                Err(error) => Err(error).doing(|| String::from("list the points")),
            }
        });
    let mut batches = Box::pin(reads.buffer_unordered(READS).chunks(BATCH));
    while let Some(batch) = job
        .unless_stopped(async { Ok::<_, JobError>(batches.next().await) })
        .await?
    {
        let mut points = Vec::with_capacity(batch.len());
        for read in batch {
            match read? {
                Read::Point(point) => points.push(*point),
                Read::Unreadable => unreadable += 1,
                Read::Gone => {}
            }
        }
        let adopted = job
            .ask("hand over the points of the vault", || {
                job.coordinator.adopt_points(job.lease.id, &points)
            })
            .await?;
        tracing::debug!(adopted, read = points.len(), "points of the vault are handed over");
    }
    Ok(unreadable)
}

enum Read {
    Point(Box<AdoptedPoint>),
    Unreadable,
    Gone,
}

/// Reads one manifest. Damage is told and stops nobody: the other points are the cluster's all the same.
async fn read_point(vault: &Vault, catalog: &Catalog, name: String) -> Result<Read, Error> {
    let read = match vault.backend.read(&name, SMALL_OBJECT_MAX).await {
        Err(BackendError::NotFound { .. }) => return Ok(Read::Gone),
        Err(error) => Err(error.into()),
        Ok(bytes) => Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, &name, &bytes)
            .map(|manifest| (manifest, manifest::hash(&bytes))),
    };
    let (manifest, hash) = match read.doing(|| format!("read {name}")) {
        Ok((manifest, hash)) if has_times(&manifest) => (manifest, hash),
        Ok(_) => {
            tracing::warn!(object = name, "times of a point cannot be read, it is not handed over");
            return Ok(Read::Unreadable);
        }
        Err(error) if is_damage(&error) => {
            tracing::warn!(
                object = name,
                error = error.chain(),
                "point cannot be read, it is not handed over"
            );
            return Ok(Read::Unreadable);
        }
        Err(error) => return Err(error),
    };
    Ok(Read::Point(Box::new(AdoptedPoint {
        point: manifest.point,
        item: manifest.item,
        hidden_at: catalog
            .hidden
            .get(&manifest.point)
            .map(|hidden| hidden.removed_at.clone()),
        item_name: manifest.item_name,
        time: manifest.time,
        keep_until: manifest.keep_until,
        manifest: hash,
        consistency: manifest.consistency,
        held: catalog.held.get(&manifest.point).cloned(),
    })))
}

/// Whether retention can tell how old a point is. A guess might remove it.
fn has_times(manifest: &Manifest) -> bool {
    let is_time = |text: &str| text.parse::<Timestamp>().is_ok();
    is_time(&manifest.time) && manifest.keep_until.as_deref().is_none_or(is_time)
}

/// Takes back the claim that this attempt put, if it did. A late end of an attempt must not fence who holds the vault now.
pub(crate) async fn withdraw_claim(job: &Job) {
    let Some(&cluster) = job.own_claim.get() else { return };
    let withdrawing = async {
        let store = job.vaults.store(&job.lease.vault, false)?;
        claim::withdraw(store.backend.as_ref(), cluster).await?;
        Ok::<_, JobError>(())
    };
    match tokio::time::timeout(WITHDRAWING, withdrawing).await {
        Ok(Ok(())) => tracing::info!(%cluster, "claim of an attempt that failed is taken back"),
        Ok(Err(error)) => tracing::error!(
            %cluster,
            error = crate::agent::failure::chain(&error),
            "claim of an attempt that failed could not be taken back: it fences whoever holds the vault"
        ),
        Err(_) => tracing::error!(
            %cluster,
            "claim of an attempt that failed was not taken back in time: it fences whoever holds the vault"
        ),
    }
}
