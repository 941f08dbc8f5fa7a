//! `tresor backup`: by this home, or by a cluster's worker.

mod cluster;
mod home;

pub(crate) use home::first_vault;

use crate::app::App;
use crate::args::BackupArgs;
use crate::error::CliError;
use crate::screen::Answer;

/// Makes a backup.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, args: &BackupArgs) -> Result<Answer, CliError> {
    if let Some(node) = app.node_of_home() {
        Box::pin(home::first_vault_of_node(app, &node)).await?;
    }
    match app.cluster()? {
        Some(cluster) => Box::pin(cluster::run(app, &cluster, args)).await,
        None => Box::pin(home::run(app, args)).await,
    }
}
