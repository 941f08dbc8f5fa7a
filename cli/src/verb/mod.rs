//! What each verb does: it opens what it needs, calls the other crates, and words the answer.

mod backup;
mod completion;
mod config;
mod disks;
mod man;
mod point;
mod reference;
mod restore;
mod status;
mod vault;

use crate::app::App;
use crate::args::{ConfigVerb, Verb};
use crate::error::CliError;
use crate::screen::Answer;

/// Does what a verb says.
///
/// # Errors
/// By cause.
pub(crate) async fn run(app: &App, verb: Verb) -> Result<Answer, CliError> {
    match verb {
        Verb::Backup(args) => Box::pin(backup::run(app, &args)).await,
        Verb::Restore(args) => Box::pin(restore::run(app, &args)).await,
        Verb::Status(_) => Box::pin(status::run(app)).await,
        Verb::Vault(verb) => Box::pin(vault::run(app, verb)).await,
        Verb::Point(verb) => Box::pin(point::run(app, verb)).await,
        Verb::Config(ConfigVerb::Show) => Ok(config::show(app)),
        Verb::Completion(args) => Ok(completion::run(args.shell)),
        Verb::Man(args) => man::run(&args.folder),
        Verb::Reference(_) => Ok(reference::run()),
    }
}
