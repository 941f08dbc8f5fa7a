//! Verbs that found a cluster and run its processes.

pub(super) mod coordinator;
pub(super) mod init;
pub(super) mod node;
pub(super) mod worker;

use std::path::Path;

use tresor_proto::token::JoinToken;
use zeroize::Zeroizing;

use crate::error::CliError;

/// A failure of a process of a cluster.
fn failed(doing: &str, error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::Process {
        doing: doing.to_owned(),
        source: Box::new(error),
    }
}

/// Reads a join token from a file's first line.
fn read_token(path: &Path) -> Result<JoinToken, CliError> {
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|source| CliError::File {
            doing: "read",
            path: path.to_owned(),
            source,
        })?;
    let line = text.lines().next().unwrap_or_default().trim();
    line.parse()
        .map_err(|error| failed("could not read the join token", error))
}
