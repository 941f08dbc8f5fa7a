//! Why an attempt ends badly, and why an agent does not start.

use std::path::PathBuf;

use tresor_storage::Kind;

use super::port::CallError;
use crate::control::ControlError;
use crate::error::WorkerError;

/// Why an agent does not start. Once it runs it ends only when it is told to: a coordinator that is away is waited for.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder cannot be used, or another process of this machine has it.
    #[error("could not use folder {} for the worker", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ControlError,
    },
    /// It may run no jobs.
    #[error("a worker runs at least 1 and at most {max} jobs at a time, not {permits}")]
    Permits {
        /// As configured.
        permits: u32,
        /// The bound.
        max: u32,
    },
    /// It cannot answer other workers.
    #[error("could not answer other workers")]
    Slots(#[source] crate::slots::ServeError),
}

impl AgentError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Folder { source, .. } => source.kind(),
            Self::Permits { .. } | Self::Slots(_) => Kind::Invalid,
        }
    }
}

/// Why an attempt ends badly.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// What the job does.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// The lease does not say what it must.
    #[error("lease cannot be worked on: {why}")]
    Lease {
        /// What is wrong.
        why: String,
    },
    /// The coordinator would not do what the job needs.
    #[error("could not {doing}: the cluster refused it: {why}")]
    Refused {
        /// What was asked.
        doing: &'static str,
        /// What helps.
        kind: Kind,
        /// Why.
        why: String,
        /// What to do; may be empty.
        hint: String,
    },
    /// Who answers for the index is not known.
    #[error(transparent)]
    NoMap(#[from] crate::slots::NoMap),
    /// The coordinator did not answer what the job needs, or nothing that can be read.
    #[error("could not {doing}")]
    Call {
        /// What was asked.
        doing: &'static str,
        /// What was heard.
        #[source]
        source: CallError,
    },
    /// The header in the store is another than the log names.
    #[error("vault header at {url} has the BLAKE3 {found}, and the cluster knows {expected}")]
    Header {
        /// The store.
        url: String,
        /// As the log has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// The vault that was to be made is there, and not as it was made.
    #[error("the vault at {url} was made before, and {what}")]
    NotAsMade {
        /// Its store.
        url: String,
        /// What became of it.
        what: String,
    },
    /// Another vault is at the place.
    #[error("{url} holds vault {found}, not {expected}")]
    OtherVault {
        /// The store.
        url: String,
        /// The vault of the lease.
        expected: String,
        /// The vault that is there.
        found: String,
    },
    /// A manifest is another than the log names.
    #[error("manifest of point {point} is not the one that counts: its BLAKE3 is another")]
    OtherManifest {
        /// The point.
        point: String,
    },
    /// Parts of a point cannot be had.
    #[error("point {point} is damaged: {what}")]
    Damaged {
        /// The point.
        point: String,
        /// Where and how.
        what: String,
    },
    /// Something in the vault is of a later version.
    #[error("vault has {what} of a newer version")]
    Newer {
        /// What.
        what: String,
    },
    /// The vault has a catalogue of this cluster that is later than the one to be put.
    #[error("vault has a catalogue of this cluster with the number {there}, later than {ours}")]
    LaterCatalogue {
        /// The number there.
        there: u64,
        /// The number to be put.
        ours: u64,
    },
    /// The index is still in use under an earlier claim.
    #[error("index of the vault is in use under an earlier claim")]
    IndexBusy,
    /// The job ran into a defect.
    #[error("job panicked: {what}")]
    Panicked {
        /// What it said.
        what: String,
    },
}

impl JobError {
    /// What helps.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Worker(e) => e.kind(),
            Self::Lease { .. } | Self::NotAsMade { .. } => Kind::Invalid,
            Self::Refused { kind, .. } => *kind,
            Self::Call { source, .. } => source.kind(),
            Self::Header { .. } | Self::OtherVault { .. } | Self::OtherManifest { .. } | Self::Damaged { .. } => {
                Kind::Corrupt
            }
            Self::Newer { .. } => Kind::Unsupported,
            Self::LaterCatalogue { .. } => Kind::Fenced,
            Self::IndexBusy | Self::NoMap(_) => Kind::Retry,
            Self::Panicked { .. } => Kind::Bug,
        }
    }

    /// What a call of the coordinator ended with.
    pub(crate) fn of_call(doing: &'static str, error: CallError) -> Self {
        match error {
            CallError::Refused { kind, why, hint } => Self::Refused { doing, kind, why, hint },
            source => Self::Call { doing, source },
        }
    }

    /// Whether the job was stopped from outside.
    pub(crate) fn is_interruption(&self) -> bool {
        matches!(self, Self::Worker(WorkerError::Interrupted))
    }
}

macro_rules! from_storage {
    ($($kind:ty),*) => {$(
        impl From<$kind> for JobError {
            fn from(error: $kind) -> Self {
                Self::Worker(tresor_storage::Error::from(error).into())
            }
        }
    )*};
}
from_storage!(
    tresor_storage::backend::BackendError,
    tresor_storage::vault::VaultError,
    tresor_storage::index::IndexError
);

macro_rules! from_worker {
    ($($kind:ty),*) => {$(
        impl From<$kind> for JobError {
            fn from(error: $kind) -> Self {
                Self::Worker(error.into())
            }
        }
    )*};
}
from_worker!(
    tresor_storage::Error,
    tresor_storage::FormatError,
    tresor_storage::keys::KeyError,
    ControlError,
    crate::home::HomeError
);
