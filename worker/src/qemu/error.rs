//! Why a QEMU tool did not do what was asked.

use std::io;
use std::time::Duration;

use tresor_storage::Kind;

use crate::nbd::NbdError;

/// Why a QEMU tool did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The program is not installed.
    #[error("{program} is not installed")]
    NotInstalled {
        /// `qemu-nbd` or `qemu-img`.
        program: &'static str,
    },
    /// It could not be started.
    #[error("could not start {program}")]
    Start {
        /// The program.
        program: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// The end of what it said, without line breaks.
        message: String,
    },
    /// It did not end.
    #[error("{program} did not {what} within {} s", after.as_secs())]
    TimedOut {
        /// The program.
        program: &'static str,
        /// What it should have done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A path that QEMU cannot be told.
    #[error("the path is not UTF-8, which QEMU needs")]
    Name,
    /// Talking with the server failed, though it runs.
    #[error("the image's server failed")]
    Nbd {
        /// What went wrong.
        #[source]
        source: NbdError,
    },
}

impl QemuError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotInstalled { .. } => Kind::Missing,
            Self::Start { source, .. } => crate::source::io_kind(source),
            Self::Failed { message, .. } => kind_of_message(message),
            Self::TimedOut { .. } => Kind::Retry,
            Self::Name => Kind::Invalid,
            Self::Nbd { source } => source.kind(),
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotInstalled { .. } => Some("install qemu-utils"),
            Self::Failed { message, .. } if message.contains("lock") => Some("stop the VM that uses the image"),
            Self::Name => Some("rename the file, or reach it by a symbolic link"),
            _ => None,
        }
    }
}

/// QEMU tells causes as text only; the parts looked for are the C library's.
fn kind_of_message(message: &str) -> Kind {
    let has = |part: &str| message.contains(part);
    if has("No space left") || has("Disk quota exceeded") {
        Kind::Full
    } else if has("Permission denied") || has("Operation not permitted") || has("Read-only file system") {
        Kind::Denied
    } else if has("No such file") {
        Kind::Missing
    } else if has("lock") {
        Kind::Fenced
    } else {
        Kind::Invalid
    }
}
