//! `tresor vault …`.

mod cluster;
mod create;
mod key;
mod kit;
mod list;
mod node;
mod rebuild;
mod remove;
mod show;
mod take_over;
mod verify;

use crate::app::App;
use crate::args::VaultVerb;
use crate::error::CliError;
use crate::screen::Answer;

pub(crate) use cluster::VaultShown;

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: VaultVerb) -> Result<Answer, CliError> {
    if let Some(node) = app.node_of_home() {
        return Box::pin(node::run(app, &node, verb)).await;
    }
    let cluster = match verb {
        // These hand the store to the cluster.
        VaultVerb::Create(_) | VaultVerb::TakeOver(_) => app.cluster_with_store()?,
        _ => app.cluster()?,
    };
    if let Some(cluster) = cluster {
        return Box::pin(cluster::run(app, &cluster, verb)).await;
    }
    match verb {
        VaultVerb::Create(args) => Box::pin(create::run(app, &args)).await,
        VaultVerb::List => list::run(app),
        VaultVerb::Show(args) => Box::pin(show::run(app, args.name.as_deref())).await,
        VaultVerb::Verify(args) => Box::pin(verify::run(app, &args)).await,
        VaultVerb::Rebuild(args) => Box::pin(rebuild::run(app, args.name.as_deref())).await,
        VaultVerb::TakeOver(args) => Box::pin(take_over::run(app, args.name.as_deref())).await,
        VaultVerb::RecoveryKit(args) => Box::pin(kit::run(app, &args)).await,
        VaultVerb::Remove(args) => Box::pin(remove::run(app, &args)).await,
        VaultVerb::Key(verb) => Box::pin(key::run(app, verb)).await,
    }
}

/// What everybody must be told who has no recovery kit yet.
pub(crate) fn kit_advice(vault: &str) -> String {
    format!("print its recovery kit now and keep it elsewhere: tresor vault recovery-kit {vault}")
}
