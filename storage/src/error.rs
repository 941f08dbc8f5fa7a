//! Errors of the crate: a kind named for its remedy, a chain that names the things involved, and one hint.

use crate::backend::BackendError;
use crate::index::IndexError;
use crate::keys::KeyError;
use crate::vault::VaultError;

/// What helps against an error. Retries, status codes and exit codes read this, never the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// It may work later: time-outs, throttling, 5xx.
    Retry,
    /// The request cannot work as it is.
    Invalid,
    /// A thing asked for is not there.
    Missing,
    /// Bytes are not what was written.
    Corrupt,
    /// Written by a newer version: upgrade. Never damage.
    Unsupported,
    /// Somebody else holds it.
    Fenced,
    /// No space.
    Full,
    /// No permission, or the wrong key.
    Denied,
    /// Ours to mend.
    Bug,
}

/// Bytes that are not what the format says. Names of objects are added by the caller ([`Doing::doing`]).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than needed.
    #[error("{what} is cut short: {have} bytes, need {need}")]
    Truncated {
        /// The piece.
        what: &'static str,
        /// Bytes needed.
        need: u64,
        /// Bytes there.
        have: u64,
    },
    /// Does not start as it must.
    #[error("{what} does not start as one: foreign or overwritten bytes")]
    Magic {
        /// The piece.
        what: &'static str,
    },
    /// A version, kind, codec or profile that this program does not know.
    #[error("{what} {value} is not known to this version")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A checksum differs.
    #[error("checksum of {what} differs")]
    Checksum {
        /// The piece.
        what: &'static str,
    },
    /// The piece belongs elsewhere.
    #[error("{what} is {found}, expected {expected}")]
    Mismatch {
        /// The field.
        what: &'static str,
        /// As asked for.
        expected: String,
        /// As found.
        found: String,
    },
    /// Over a bound of the format.
    #[error("{what} is {value}, at most {max} is allowed")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The bound.
        max: u64,
    },
    /// The authenticated encryption's tag is wrong: other bytes, another place or another key.
    #[error("{what} fails authentication")]
    Authentication {
        /// The piece.
        what: &'static str,
    },
    /// Contradicts itself.
    #[error("{what}: {why}")]
    Malformed {
        /// The piece.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

impl FormatError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Unsupported { .. } => Kind::Unsupported,
            _ => Kind::Corrupt,
        }
    }
}

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A store.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Bytes.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The vault as a whole.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// What was being done when it happened.
    #[error("{doing}")]
    While {
        /// `read footer of pack …`
        doing: String,
        /// What happened.
        #[source]
        source: Box<Error>,
    },
}

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Backend(e) => e.kind(),
            Self::Format(e) => e.kind(),
            Self::Key(e) => e.kind(),
            Self::Index(e) => e.kind(),
            Self::Vault(e) => e.kind(),
            Self::While { source, .. } => source.kind(),
        }
    }

    /// Whether nothing was there.
    pub fn is_missing(&self) -> bool {
        self.kind() == Kind::Missing
    }

    /// The chain as one line, outermost first.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            text.push_str(": ");
            text.push_str(&error.to_string());
            next = error.source();
        }
        text
    }
}

/// Adds what was being done to an error.
pub trait Doing<T> {
    /// Wraps the error in [`Error::While`].
    ///
    /// # Errors
    /// Those that were there.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::While {
            doing: what(),
            source: Box::new(e.into()),
        })
    }
}
