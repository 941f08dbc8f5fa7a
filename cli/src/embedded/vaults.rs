//! Vaults of the home become the node's: one that was just made under the claim of its making, so that it has one claim and not two; any other by being
//! taken over.
//!
//! What is to be done follows from what the node and the home know, so that it can be cut anywhere and gone on with by any later command: a vault that the
//! node does not know is taken over; one that is being claimed is waited for; of one that the node holds the home takes the claim for its own.
//!
//! Several commands may do that at once, the host of the node and its guests: each goes on with what another has begun, and where one is refused because
//! another was faster it looks again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tresor_proto::v1::{
    self, CreateVaultRequest, GetJobRequest, GetVaultRequest, ListJobsRequest, ListVaultsRequest, RemoveVaultRequest,
    RetryJobRequest,
};
use tresor_storage::keys::KeyFile;
use tresor_storage::vault::claim;
use tresor_worker::control::ControlError;
use tresor_worker::home::{self, Home, Place, VaultEntry};

use crate::app::App;
use crate::cluster::{Cluster, ClusterError};
use crate::config::read_small;
use crate::error::{CliError, Doing as _};
use crate::human;
use crate::verb::{has_ended, wait_done};

/// Jobs of one vault that are looked through for the one that claims it.
const JOBS_MAX: usize = 100;
/// How long another command of this home is waited for that enters the same claim: that is two files.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(30);
/// After how long a node that is served tries again to have the vaults that it could not have at its start.
const AGAIN_FIRST: Duration = Duration::from_secs(15);
/// The longest that this grows to: a store may be away for days, and each try is told in the audit trail.
const AGAIN_LONGEST: Duration = Duration::from_secs(15 * 60);

/// Has the node take over a vault of the home that it does not hold yet, with the points that are in it. One that only a passphrase opens stays the
/// home's: nobody is there to type it at night.
///
/// A vault's name in the home and at the node is the same.
///
/// # Errors
/// By cause.
pub(crate) async fn adopt(app: &App, home: &Home, cluster: &Cluster, name: &str) -> Result<(), CliError> {
    let entry = home.vault(name)?;
    if !home.has_key(entry.id) {
        tracing::info!(vault = entry.name, "only a passphrase opens it: it stays the home's");
        return Ok(());
    }
    let adopting = Box::pin(adopt_one(app, home, cluster, &entry)).await;
    adopting.doing(|| format!("could not make vault {} the node's", human::plain(name)))
}

/// As [`adopt`], of all vaults of the home. One that cannot be had now is told of, and stops no other. Returns those, with the reasons.
///
/// # Errors
/// When the home cannot be read, or the person interrupts.
pub(crate) async fn adopt_all(app: &App, home: &Home, cluster: &Cluster) -> Result<Vec<(String, String)>, CliError> {
    let left = adopt_each(app, home, cluster).await?;
    for (_, why) in &left {
        app.screen.say(&format!("warning: {why}"));
    }
    Ok(left)
}

async fn adopt_each(app: &App, home: &Home, cluster: &Cluster) -> Result<Vec<(String, String)>, CliError> {
    let mut left = Vec::new();
    for entry in home.vaults()? {
        match Box::pin(adopt(app, home, cluster, &entry.name)).await {
            Err(CliError::Interrupted) => return Err(CliError::Interrupted),
            Err(error) => left.push((entry.name, error.chain())),
            Ok(()) => {}
        }
    }
    Ok(left)
}

/// Tries again, for as long as this is awaited, to have the vaults that could not be had: a store that was away comes back, a vault's holder lets go.
pub(crate) async fn keep_adopting(app: &App, home: &Home, cluster: &Cluster, mut left: Vec<(String, String)>) {
    let mut pause = AGAIN_FIRST;
    while !left.is_empty() {
        sleep(pause).await;
        pause = (pause * 2).min(AGAIN_LONGEST);
        let now = match adopt_each(app, home, cluster).await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(error = error.chain(), "could not look at the vaults of this home");
                continue;
            }
        };
        // What was said before is not said again.
        for (_, why) in now.iter().filter(|vault| !left.contains(vault)) {
            app.screen.say(&format!("warning: {why}"));
        }
        left = now;
    }
    std::future::pending::<()>().await;
}

/// Whether a question about the `meant` vault is the node's to answer. What a vault holds that is not the node's yet, or not wholly, only its manifests say.
///
/// # Errors
/// When the node does not answer, or the home cannot be read.
pub(super) async fn is_to_be_asked(
    app: &App,
    home: &Home,
    cluster: &Cluster,
    meant: Option<String>,
) -> Result<bool, CliError> {
    let Some(meant) = meant else { return Ok(true) };
    let known = list(cluster).await?;
    let is_ready = |entry: &VaultEntry| {
        let id = entry.id.to_string();
        known.iter().any(|vault| vault.id == id && vault.state == READY)
    };
    let mut is_asked = true;
    for entry in home.vaults()?.iter().filter(|entry| !is_ready(entry)) {
        let name = human::plain(&entry.name);
        if entry.name == meant {
            is_asked = false;
            if home.has_key(entry.id) {
                app.screen.note(&format!(
                    "vault {name} is not the node's yet: it is read without the node"
                ));
            }
        } else if home.has_key(entry.id) {
            app.screen.note(&format!(
                "vault {name} is not the node's yet: --vault {name} reads what is in it"
            ));
        }
    }
    Ok(is_asked)
}

/// How a vault stands at the node that may be worked with.
const READY: &str = "ready";

async fn list(cluster: &Cluster) -> Result<Vec<v1::Vault>, CliError> {
    let listed = cluster.vaults(ListVaultsRequest::default(), None).await;
    Ok(listed
        .doing(|| String::from("could not list the vaults of the node"))?
        .rows)
}

async fn known(cluster: &Cluster, entry: &VaultEntry) -> Result<Option<v1::Vault>, CliError> {
    let id = entry.id.to_string();
    Ok(list(cluster).await?.into_iter().find(|vault| vault.id == id))
}

async fn adopt_one(app: &App, home: &Home, cluster: &Cluster, entry: &VaultEntry) -> Result<(), CliError> {
    // Before the node is asked: another command that has made it the node's since has noted that it is used.
    let is_as_made = home::is_as_made(home, entry.id)?;
    let known_before = known(cluster, entry).await?;
    if let Some(vault) = known_before.as_ref().filter(|vault| vault.state == READY) {
        return keep(app, home, entry, vault.claim).await;
    }
    if let Some(seat) = app.seat() {
        seat.work().await?;
    }
    let job = match known_before {
        Some(vault) => claiming(cluster, &vault).await?,
        None => match begin(app, home, cluster, entry, is_as_made).await {
            Ok(job) => job,
            // Another command of this home may have begun it in this very moment: its claim would be ours.
            Err(error) => match known(cluster, entry).await? {
                Some(vault) => claiming(cluster, &vault).await?,
                None => return Err(error),
            },
        },
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

async fn begin(
    app: &App,
    home: &Home,
    cluster: &Cluster,
    entry: &VaultEntry,
    is_as_made: bool,
) -> Result<v1::Job, CliError> {
    // Whoever has taken it over from this home is not robbed of it by the way: that a person says with tresor vault take-over.
    home::check_writable(home, &entry.name, &app.stores).await?;
    Ok(cluster.create_vault(request(home, entry, !is_as_made)?).await?)
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
    // Done, it was while we looked.
    if !has_ended(&last) || last.state == "done" {
        return Ok(last);
    }
    let again = RetryJobRequest {
        id: last.id,
        ..Default::default()
    };
    match cluster.retry_job(again).await {
        // Somebody else has.
        Err(ClusterError::Refused(_)) => Ok(cluster.get_job(GetJobRequest { id: last.id }).await?),
        retried => Ok(retried?),
    }
}

/// Makes the node's claim the home's own: both are of one user on one machine, and write by the node's state.
async fn keep(app: &App, home: &Home, entry: &VaultEntry, number: u64) -> Result<(), CliError> {
    if home::kept_claim(home, entry.id)?.is_some_and(|kept| kept.number == number) {
        if home::is_as_made(home, entry.id)? {
            // Should this node ever be lost, another one must not take the vault for new.
            when_free(|| home::note_use(home, entry.id)).await?;
        }
        return Ok(());
    }
    let opening = home::open_for_reading(Some(home), Place::Named(&entry.name), &app.secrets, &app.stores);
    let vault = Box::pin(opening).await?;
    match claim::holder(vault.vault.backend.as_ref(), entry.id).await? {
        Some((listed, _)) if listed.number == number => {
            Ok(when_free(|| home::enter_claim(home, entry.id, listed)).await?)
        }
        // Somebody has taken it over since: that claim is not ours to write under.
        _ => Ok(()),
    }
}

/// Does what needs the vault's lock in this home, once another command of it that does the same has let go.
async fn when_free(mut act: impl FnMut() -> Result<(), ControlError>) -> Result<(), ControlError> {
    let began = Instant::now();
    loop {
        match act() {
            Err(ControlError::Busy { .. }) if began.elapsed() < BUSY_PATIENCE => sleep(PAUSE).await,
            done => return done,
        }
    }
}
