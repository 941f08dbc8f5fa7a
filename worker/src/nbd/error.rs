//! Why an NBD server did not do what was asked.

use std::io;
use std::time::Duration;

use tresor_storage::Kind;

/// Why an NBD server did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NbdError {
    /// No connection could be made.
    #[error("could not connect to the NBD server: {why}")]
    Connect {
        /// What the system said.
        why: String,
    },
    /// The connection broke, or the server closed it.
    #[error("the NBD server closed the connection: {why}")]
    Disconnected {
        /// What the system said.
        why: String,
    },
    /// Nothing came for too long.
    #[error("the NBD server did not answer {what} within {} s", after.as_secs())]
    TimedOut {
        /// `read`, `handshake`, …
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The server does not speak the protocol as written.
    #[error("the NBD server broke the protocol: {why}")]
    Protocol {
        /// What it did.
        why: &'static str,
    },
    /// The server has no such export, or does not give it.
    #[error("the NBD server refused export {export:?}: {why}")]
    Refused {
        /// The export.
        export: String,
        /// What the server said.
        why: String,
    },
    /// A request failed on the server.
    #[error("the NBD server could not {what}: {}", errno.phrase())]
    Failed {
        /// `read`, `write`, …
        what: &'static str,
        /// What the server said.
        errno: NbdErrno,
    },
    /// The request cannot be made of this export.
    #[error("the NBD export cannot {what}: {why}")]
    Unsupported {
        /// `write`, …
        what: &'static str,
        /// Why.
        why: &'static str,
    },
}

/// Errors that the protocol has numbers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NbdErrno {
    /// Not permitted (1).
    Permission,
    /// Input or output failed (5).
    Io,
    /// No memory (12).
    Memory,
    /// Bad argument (22).
    Invalid,
    /// No space (28).
    NoSpace,
    /// A field too large (75).
    Overflow,
    /// Not supported (95).
    NotSupported,
    /// The server is going down (108).
    ShuttingDown,
    /// Any other number.
    Other(u32),
}

impl NbdErrno {
    /// By its number on the wire.
    pub const fn from_wire(number: u32) -> Self {
        match number {
            1 => Self::Permission,
            5 => Self::Io,
            12 => Self::Memory,
            22 => Self::Invalid,
            28 => Self::NoSpace,
            75 => Self::Overflow,
            95 => Self::NotSupported,
            108 => Self::ShuttingDown,
            other => Self::Other(other),
        }
    }

    /// In words.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Permission => "operation not permitted",
            Self::Io => "input/output error",
            Self::Memory => "out of memory",
            Self::Invalid => "invalid argument",
            Self::NoSpace => "no space left",
            Self::Overflow => "value too large",
            Self::NotSupported => "not supported",
            Self::ShuttingDown => "server is shutting down",
            Self::Other(_) => "unknown error",
        }
    }
}

impl NbdError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Connect { .. } | Self::Disconnected { .. } | Self::TimedOut { .. } => Kind::Retry,
            Self::Protocol { .. } => Kind::Corrupt,
            Self::Refused { .. } | Self::Unsupported { .. } => Kind::Invalid,
            Self::Failed { errno, .. } => match errno {
                NbdErrno::Permission => Kind::Denied,
                NbdErrno::NoSpace => Kind::Full,
                NbdErrno::Invalid | NbdErrno::Overflow | NbdErrno::NotSupported => Kind::Invalid,
                _ => Kind::Retry,
            },
        }
    }

    /// The connection broke with an error of the system.
    pub(crate) fn disconnected(error: &io::Error) -> Self {
        Self::Disconnected { why: error.to_string() }
    }
}
