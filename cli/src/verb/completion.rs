//! `tresor completion`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::screen::Answer;

/// The script of a shell.
pub(crate) fn run(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tresor", &mut script);
    Answer::text(String::from_utf8_lossy(&script).into_owned())
}
