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
    match app.cluster()? {
        Some(cluster) => Box::pin(cluster::run(app, &cluster, args)).await,
        None => Box::pin(home::run(app, args)).await,
    }
}
