//! `tresor man`: manual pages, one for each command.

use std::path::Path;

use clap::CommandFactory as _;

use crate::args::Cli;
use crate::error::CliError;
use crate::screen::Answer;

/// Writes all pages into a folder.
pub(crate) fn run(folder: &Path) -> Result<Answer, CliError> {
    let failed = |source| CliError::File {
        doing: "write manual pages into",
        path: folder.to_owned(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
    Ok(Answer::text(String::new()))
}
