//! `tresor restore`: by this home, or by a cluster's worker.

mod cluster;
mod home;

use crate::app::App;
use crate::args::RestoreArgs;
use crate::error::CliError;
use crate::screen::Answer;

/// Restores, or says what a restore would do.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, args: &RestoreArgs) -> Result<Answer, CliError> {
    // Reading a vault needs no log: what the node's worker has no word for, this process does itself.
    if app.node_of_home().is_some() && (args.dry_run || args.allow_damage || args.disks.len() > 1) {
        return Box::pin(home::run(app, args)).await;
    }
    match app.cluster()? {
        Some(cluster) => Box::pin(cluster::run(app, &cluster, args)).await,
        None => Box::pin(home::run(app, args)).await,
    }
}
