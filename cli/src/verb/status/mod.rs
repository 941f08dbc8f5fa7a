//! `tresor status`: is everything protected, and what needs a person? Of this home, or of a cluster.

mod cluster;
mod home;

use crate::app::App;
use crate::error::CliError;
use crate::screen::Answer;

/// Looks at everything.
///
/// # Errors
/// When the question cannot be answered.
pub(crate) async fn run(app: &App) -> Result<Answer, CliError> {
    match app.cluster()? {
        Some(cluster) => Box::pin(cluster::run(app, &cluster)).await,
        None => Box::pin(home::run(app)).await,
    }
}
