//! Vaults of the home become the node's: one that was just made under the claim of its making, so that it has one claim and not two; any other by being
//! taken over.
//!
//! What is to be done follows from what the node and the home know, so that it can be cut anywhere and gone on with by any later command: a vault that the
//! node does not know is taken over; one that is being claimed is waited for; of one that the node holds the home takes the claim for its own.

use tresor_proto::v1::{
    self, CreateVaultRequest, GetVaultRequest, ListJobsRequest, ListVaultsRequest, RemoveVaultRequest, RetryJobRequest,
};
use tresor_storage::keys::KeyFile;
use tresor_storage::vault::claim;
use tresor_worker::home::{self, Home, Place, VaultEntry};

use crate::app::App;
use crate::cluster::Cluster;
use crate::config::read_small;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::verb::{has_ended, wait_done};

/// Jobs of one vault that are looked through for the one that claims it.
const JOBS_MAX: usize = 100;

/// Has the node take over every vault of the home that it does not hold yet, with the points that are in it. One that cannot be had now is told of, and
/// stops no other, unless it is the `wanted` one.
///
/// A vault's name in the home and at the node is the same. One that only a passphrase opens stays the home's: nobody is there to type it at night.
///
/// # Errors
/// When the node does not answer, or the person interrupts.
pub(crate) async fn adopt(app: &App, home: &Home, cluster: &Cluster, wanted: Option<&str>) -> Result<(), CliError> {
    let listed = cluster.vaults(ListVaultsRequest::default(), None).await;
    let known = listed
        .doing(|| String::from("could not list the vaults of the node"))?
        .rows;
    for entry in home.vaults()? {
        if !home.has_key(entry.id) {
            tracing::info!(vault = entry.name, "only a passphrase opens it: it stays the home's");
            continue;
        }
        let id = entry.id.to_string();
        let known = known.iter().find(|vault| vault.id == id);
        let adopting = Box::pin(adopt_one(app, home, cluster, &entry, known)).await;
        let name = human::plain(&entry.name);
        match adopting.doing(|| format!("could not make vault {name} the node's")) {
            Err(CliError::Interrupted) => return Err(CliError::Interrupted),
            Err(error) if wanted == Some(entry.name.as_str()) => return Err(error),
            Err(error) => app.screen.say(&format!("warning: {}", error.chain())),
            Ok(()) => {}
        }
    }
    Ok(())
}

async fn adopt_one(
    app: &App,
    home: &Home,
    cluster: &Cluster,
    entry: &VaultEntry,
    known: Option<&v1::Vault>,
) -> Result<(), CliError> {
    if let Some(vault) = known.filter(|vault| vault.state == "ready") {
        return keep(app, home, entry, vault.claim).await;
    }
    if known.is_none() {
        // Whoever has taken it over from this home is not robbed of it by the way: that a person says with tresor vault take-over.
        home::check_writable(home, &entry.name, &app.stores).await?;
    }
    let is_as_made = home::is_as_made(home, entry.id)?;
    let job = match known {
        None => cluster.create_vault(request(home, entry, !is_as_made)?).await?,
        Some(vault) => claiming(cluster, vault).await?,
    };
    Box::pin(wait_done(app, cluster, job)).await?;
    let asked = GetVaultRequest {
        name: entry.name.clone(),
    };
    let vault = cluster.get_vault(asked).await?;
    let kept = home::kept_claim(home, entry.id)?.map_or(0, |kept| kept.number);
    if is_as_made && vault.claim != kept {
        // Somebody took it over in this very moment: what the job found is their claim, under which nothing of ours may be written.
        let request = RemoveVaultRequest {
            name: entry.name.clone(),
            ..Default::default()
        };
        cluster.remove_vault(request).await?;
        return Err(home::check_writable(home, &entry.name, &app.stores)
            .await
            .err()
            .map_or_else(
                || CliError::usage("its claim is another than that of its making"),
                CliError::from,
            ));
    }
    keep(app, home, entry, vault.claim).await?;
    if !is_as_made {
        app.screen
            .note(&format!("vault {} is the node's now", human::plain(&entry.name)));
    }
    Ok(())
}

fn request(home: &Home, entry: &VaultEntry, take_over: bool) -> Result<CreateVaultRequest, CliError> {
    let path = home.key_path(entry.id);
    KeyFile::load(&path, Some(entry.id))?;
    Ok(CreateVaultRequest {
        name: entry.name.clone(),
        url: entry.url.clone(),
        take_over,
        key_file: read_small(&path)?.as_bytes().to_vec().into(),
        ..Default::default()
    })
}

/// The job that claims a vault: the one that waits or runs, or the last one anew.
async fn claiming(cluster: &Cluster, vault: &v1::Vault) -> Result<v1::Job, CliError> {
    let asked = ListJobsRequest {
        vault: vault.name.clone(),
        ..Default::default()
    };
    let jobs = cluster.jobs(asked, Some(JOBS_MAX)).await?.rows;
    let claims = jobs.into_iter().filter(|job| job.kind == "claim");
    let Some(last) = claims.max_by_key(|job| job.id) else {
        return Err(CliError::usage_hint(
            "the node makes it since long ago, and no job of that is left",
            format!(
                "tresor vault remove {} (its data stays), then tresor vault take-over",
                vault.name
            ),
        ));
    };
    if !has_ended(&last) {
        return Ok(last);
    }
    let again = RetryJobRequest {
        id: last.id,
        ..Default::default()
    };
    Ok(cluster.retry_job(again).await?)
}

/// Makes the node's claim the home's own: both are of one user on one machine, and write by the node's state.
async fn keep(app: &App, home: &Home, entry: &VaultEntry, number: u64) -> Result<(), CliError> {
    if home::kept_claim(home, entry.id)?.is_some_and(|kept| kept.number == number) {
        if home::is_as_made(home, entry.id)? {
            // Should this node ever be lost, another one must not take the vault for new.
            home::note_use(home, entry.id)?;
        }
        return Ok(());
    }
    let opening = home::open_for_reading(Some(home), Place::Named(&entry.name), &app.secrets, &app.stores);
    let vault = Box::pin(opening).await?;
    match claim::holder(vault.vault.backend.as_ref(), entry.id).await? {
        Some((listed, _)) if listed.number == number => Ok(home::keep_claim(home, entry.id, listed)?),
        // Somebody has taken it over since: that claim is not ours to write under.
        _ => Ok(()),
    }
}
