//! `tresor status`: is everything protected, and what needs a person? Of this home with its node, or of a cluster.

mod cluster;
mod home;

use crate::app::App;
use crate::cluster::Cluster;
use crate::error::CliError;
use crate::screen::Answer;

/// What a cluster says of itself, to be shown.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn of_cluster(cluster: &Cluster) -> Result<impl serde::Serialize + use<>, CliError> {
    cluster::ask(cluster).await
}

/// Looks at everything.
///
/// # Errors
/// When the question cannot be answered.
pub(crate) async fn run(app: &App) -> Result<Answer, CliError> {
    match app.cluster()? {
        Some(node) if node.is_of_home() => Box::pin(home::run(app, Some(&node))).await,
        Some(cluster) => Box::pin(cluster::run(app, &cluster)).await,
        None => Box::pin(home::run(app, None)).await,
    }
}
