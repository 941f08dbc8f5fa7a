//! What each verb does: it opens what it needs, calls the other crates, and words the answer.

mod audit;
mod backup;
mod cluster;
mod completion;
mod config;
mod coordinator;
mod disks;
mod explain;
mod hosts;
mod item;
mod job;
mod left;
mod limit;
mod login;
mod man;
mod notify;
mod places;
mod point;
mod policy;
mod process;
mod reference;
mod report;
mod restore;
pub(crate) mod shown;
mod status;
mod support;
mod vault;
mod worker;

use crate::app::App;
use crate::args::{ConfigVerb, NodeVerb, Verb};
use crate::embedded;
use crate::error::CliError;
use crate::screen::Answer;

pub(crate) use backup::first_vault;
pub(crate) use job::{has_ended, wait_done};

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: Verb) -> Result<Answer, CliError> {
    match (Box::pin(embedded::enter(app, &verb)).await, &verb) {
        // What is wrong with the node may be why it is made.
        (Err(error), Verb::SupportBundle(_)) if !matches!(error, CliError::Interrupted) => {
            app.screen.say(&format!("warning: {}", error.chain()));
        }
        (entered, _) => entered?,
    }
    let result = Box::pin(dispatch(app, verb)).await;
    let Some(seat) = app.leave_node() else { return result };
    // Only who interrupts does not wait for what others asked this process for.
    let is_interrupted = matches!(result, Err(CliError::Interrupted));
    let left = seat.leave(is_interrupted).await;
    let answer = result?;
    if let Err(error) = left {
        // What was asked for is done, and whoever asked must hear that.
        app.screen.say(&format!(
            "warning: the node of this home did not end well: {}",
            error.chain()
        ));
    }
    Ok(answer)
}

/// Refuses what cannot be done whatever the home has, before anything is made for it.
///
/// # Errors
/// By cause.
pub(crate) fn check(app: &App, verb: &Verb) -> Result<(), CliError> {
    match verb {
        Verb::Backup(args) => backup::check(app, args),
        _ => Ok(()),
    }
}

async fn dispatch(app: &App, verb: Verb) -> Result<Answer, CliError> {
    match verb {
        Verb::Backup(args) => Box::pin(backup::run(app, &args)).await,
        Verb::Restore(args) => Box::pin(restore::run(app, &args)).await,
        Verb::Status(_) => Box::pin(status::run(app)).await,
        Verb::Vault(verb) => Box::pin(vault::run(app, verb)).await,
        Verb::Item(verb) => Box::pin(item::run(app, verb)).await,
        Verb::Policy(verb) => Box::pin(policy::run(app, verb)).await,
        Verb::Point(verb) => Box::pin(point::run(app, verb)).await,
        Verb::Job(verb) => Box::pin(job::run(app, verb)).await,
        Verb::Explain(args) => Box::pin(explain::run(app, args)).await,
        Verb::Login(args) => Box::pin(login::login(app, args)).await,
        Verb::Logout(args) => login::logout(app, args),
        Verb::Cluster(verb) => Box::pin(cluster::run(app, verb)).await,
        Verb::Coordinator(verb) => Box::pin(coordinator::run(app, verb)).await,
        Verb::Worker(verb) => Box::pin(worker::run(app, verb)).await,
        Verb::Limit(verb) => Box::pin(limit::run(app, verb)).await,
        Verb::Notify(verb) => Box::pin(notify::run(app, verb)).await,
        Verb::Node(NodeVerb::Start(args)) => Box::pin(process::node::run(app, args)).await,
        Verb::Audit(verb) => Box::pin(audit::run(app, verb)).await,
        Verb::Report(verb) => Box::pin(report::run(app, verb)).await,
        Verb::SupportBundle(args) => Box::pin(support::run(app, args)).await,
        Verb::Config(ConfigVerb::Show) => config::show(app),
        Verb::Completion(args) => Ok(completion::run(args.shell)),
        Verb::Man(args) => man::run(&args.folder),
        Verb::Reference(_) => Ok(reference::run()),
    }
}
