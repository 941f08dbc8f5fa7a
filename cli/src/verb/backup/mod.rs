//! `tresor backup`: by this home, or by a cluster's worker.

mod cluster;
mod home;

pub(crate) use home::first_vault;

use crate::app::App;
use crate::args::BackupArgs;
use crate::error::CliError;
use crate::screen::Answer;

/// Refuses what no home can back up.
///
/// # Errors
/// By cause.
pub(super) fn check(app: &App, args: &BackupArgs) -> Result<(), CliError> {
    home::check(app, args)
}

/// Refuses a key that the caller names and that may not write: the node has its own, but who names one means it.
async fn check_key(app: &App) -> Result<(), CliError> {
    if app.has_explicit_key() {
        let vault = app.open_for_reading("backup", None).await?;
        vault.vault.cutter()?;
    }
    Ok(())
}

/// Makes a backup.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, args: &BackupArgs) -> Result<Answer, CliError> {
    if let Some(node) = app.node_of_home() {
        home::check_disks(app, args)?;
        app.refuse_store(&app.settings.vault.value)?;
        Box::pin(home::vault_of_node(app, &node)).await?;
        check_key(app).await?;
    }
    match app.cluster()? {
        Some(cluster) => Box::pin(cluster::run(app, &cluster, args)).await,
        None => Box::pin(home::run(app, args)).await,
    }
}
