//! Errors as the program tells them: a chain that names what was being done, and what they are for the caller.

use std::path::PathBuf;

use tresor_storage::backend::BackendError;
use tresor_storage::keys::KeyError;
use tresor_storage::vault::VaultError;
use tresor_storage::{FormatError, Kind};
use tresor_worker::WorkerError;
use tresor_worker::control::ControlError;
use tresor_worker::home::HomeError;

use crate::cluster::ClusterError;
use crate::exit::Failure;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The command line asks for something that cannot be.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to type instead.
        hint: Option<String>,
    },
    /// Settings that cannot be.
    #[error("{}", problems.join("; "))]
    Settings {
        /// All that is wrong.
        problems: Vec<String>,
    },
    /// A vault or what is in it.
    #[error(transparent)]
    Storage(tresor_storage::Error),
    /// A job.
    #[error(transparent)]
    Worker(WorkerError),
    /// The home.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Who decides.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// A file that the command line names.
    #[error("could not {doing} {}", path.display())]
    File {
        /// `read`, `create`, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A process of a cluster.
    #[error("{doing}")]
    Process {
        /// `could not found the cluster`
        doing: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This coordinator is none of its cluster's any more.
    #[error("this coordinator was removed from its cluster and has ended")]
    Removed,
    /// A recovery point cannot be had whole.
    #[error("part of {what} is missing or damaged")]
    Damage {
        /// `point …`
        what: String,
        /// The first thing found.
        #[source]
        source: Box<CliError>,
    },
    /// What was being done.
    #[error("{doing}")]
    While {
        /// `could not back up web-03`
        doing: String,
        /// What happened.
        #[source]
        source: Box<CliError>,
    },
    /// Told to stop.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// A wrong command line.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: None,
        }
    }

    /// A wrong command line, and what to type instead.
    pub(crate) fn usage_hint(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage {
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    /// What it is for the caller.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Usage { .. } | Self::Settings { .. } => Failure::Usage,
            Self::Interrupted | Self::Worker(WorkerError::Interrupted) => Failure::Interrupted,
            Self::Damage { .. } => Failure::Damage,
            Self::Process { .. } => Failure::Machine(Kind::Invalid),
            Self::Removed => Failure::Machine(Kind::Denied),
            Self::While { source, .. } => source.failure(),
            Self::Storage(error) => failure_of_storage(error),
            Self::Worker(WorkerError::Storage(error)) => failure_of_storage(error),
            Self::Worker(error @ (WorkerError::Source { .. } | WorkerError::Sink { .. })) => {
                Failure::Machine(error.kind())
            }
            Self::Worker(error) => Failure::Vault(error.kind()),
            Self::Home(error) => Failure::Vault(error.kind()),
            Self::Control(error) => Failure::Vault(error.kind()),
            Self::Cluster(error) => error.failure(),
            Self::File { source, .. } => Failure::Machine(match source.kind() {
                std::io::ErrorKind::NotFound => Kind::Missing,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
                _ => Kind::Invalid,
            }),
        }
    }

    /// The chain as one line, outermost first.
    pub(crate) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            let more = error.to_string();
            // An error that repeats its source's words says them once.
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            next = error.source();
        }
        // Text of stores and tools may have several lines and control characters of a terminal.
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

fn failure_of_storage(error: &tresor_storage::Error) -> Failure {
    match error {
        // The index's own database is a file of this machine.
        tresor_storage::Error::Index(error) => Failure::Machine(error.kind()),
        tresor_storage::Error::While { source, .. } => failure_of_storage(source),
        error => Failure::Vault(error.kind()),
    }
}

impl From<tresor_storage::Error> for CliError {
    fn from(error: tresor_storage::Error) -> Self {
        Self::Storage(error)
    }
}

impl From<WorkerError> for CliError {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Interrupted => Self::Interrupted,
            error => Self::Worker(error),
        }
    }
}

macro_rules! from_storage {
    ($($error:ty),*) => {
        $(impl From<$error> for CliError {
            fn from(error: $error) -> Self {
                Self::Storage(error.into())
            }
        })*
    };
}
from_storage!(KeyError, VaultError, BackendError, FormatError);

/// Adds what was being done.
pub(crate) trait Doing<T> {
    /// Wraps the error in [`CliError::While`], but not an interruption: nobody asks what it interrupted.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CliError>;
}

impl<T, E: Into<CliError>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, CliError> {
        self.map_err(|error| match error.into() {
            CliError::Interrupted => CliError::Interrupted,
            error => CliError::While {
                doing: what(),
                source: Box::new(error),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_one_line_and_keeps_what_kind_it_is() {
        let error = CliError::from(VaultError::NotThere {
            what: "point",
            name: String::from("web\n\u{1b}[31m"),
        });
        let error = Err::<(), _>(error)
            .doing(|| String::from("could not restore"))
            .expect_err("an error stays one");
        assert_eq!(error.chain(), "could not restore: no point web  [31m");
        assert_eq!(error.failure(), Failure::Vault(Kind::Missing));
    }

    #[test]
    fn an_interruption_stays_one_whatever_it_interrupted() {
        let error = CliError::from(WorkerError::Interrupted);
        let error = Err::<(), _>(error)
            .doing(|| String::from("could not back up"))
            .expect_err("an error stays one");
        assert_eq!(error.chain(), "interrupted");
        assert_eq!(error.failure(), Failure::Interrupted);
    }

    #[test]
    fn a_locked_index_is_held_and_a_failing_one_no_unreachable_store() {
        let locked = CliError::from(tresor_storage::Error::from(tresor_storage::index::IndexError::Locked));
        assert_eq!(locked.failure().code().number(), 6);
        let source = "corrupted block".into();
        let failing = tresor_storage::index::IndexError::Database {
            what: "get",
            kind: Kind::Retry,
            source,
        };
        assert_eq!(
            CliError::from(tresor_storage::Error::from(failing))
                .failure()
                .code()
                .number(),
            1
        );
    }
}
