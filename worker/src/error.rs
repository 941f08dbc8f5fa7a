//! Errors of a job.

use tresor_storage::Kind;

use crate::control::ControlError;
use crate::home::HomeError;
use crate::sink::SinkError;
use crate::source::SourceError;

/// Why a job failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The store or what is in it.
    #[error(transparent)]
    Storage(#[from] tresor_storage::Error),
    /// The disk that is read.
    #[error("could not read disk {disk}")]
    Source {
        /// Its name.
        disk: String,
        /// What happened.
        #[source]
        source: SourceError,
    },
    /// The disk that is written.
    #[error("could not write disk {disk}")]
    Sink {
        /// Its name.
        disk: String,
        /// What happened.
        #[source]
        source: SinkError,
    },
    /// Who decides.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The home and its vaults.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The disk was written to while it was read.
    #[error("disk {disk} changed while it was read: {why}")]
    Changed {
        /// Its name.
        disk: String,
        /// How that is known.
        why: String,
    },
    /// The system gives no more threads.
    #[error("could not start threads: {0}")]
    Threads(String),
    /// Told to stop.
    #[error("interrupted")]
    Interrupted,
}

impl WorkerError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Storage(e) => e.kind(),
            Self::Source { source, .. } => source.kind(),
            Self::Sink { source, .. } => source.kind(),
            Self::Control(e) => e.kind(),
            Self::Home(e) => e.kind(),
            Self::Changed { .. } => Kind::Invalid,
            Self::Threads(_) | Self::Interrupted => Kind::Retry,
        }
    }
}

impl From<tresor_storage::FormatError> for WorkerError {
    fn from(error: tresor_storage::FormatError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<tresor_storage::keys::KeyError> for WorkerError {
    fn from(error: tresor_storage::keys::KeyError) -> Self {
        Self::Storage(error.into())
    }
}
