//! What can go wrong in a comparison.

use std::path::{Path, PathBuf};

/// Why the benchmark, or one tool's part of it, could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The operating system refused something.
    #[error("{doing} {}", path.display())]
    Io {
        /// The verb: read, write, start …
        doing: &'static str,
        /// What it was done to.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A tool ended with an error.
    #[error("`{command}` ended with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it said.
        stderr: String,
    },
    /// A tool restored something else than it was given.
    #[error("restored {} differs from {} at byte {offset}", restored.display(), original.display())]
    Different {
        /// What the tool wrote.
        restored: PathBuf,
        /// What it had backed up.
        original: PathBuf,
        /// The first differing byte.
        offset: u64,
    },
    /// The folder of disks is not what it should be.
    #[error("no disks in {}: build them with scripts/disks.sh", .0.display())]
    NoDisks(PathBuf),
    /// A tool asked for by `--tools` is not known.
    #[error("no tool is called {0}; there are tresor, restic, borg, rustic")]
    UnknownTool(String),
    /// A tool's own report was not as documented.
    #[error("understand the output of {tool}")]
    Output {
        /// Which tool.
        tool: String,
        /// What was wrong with its JSON.
        source: serde_json::Error,
    },
    /// The compressor failed.
    #[error("compress a frame")]
    Compress(#[source] std::io::Error),
}

/// Names what was being done to which file, for `map_err`.
pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BenchError {
    let path = path.to_owned();
    move |source| BenchError::Io { doing, path, source }
}

/// An error and everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
