//! Keys: what they are ([`Keyring`]), how they are wrapped (`revision`, `slot`), and how people carry them (`kit`, `file`).

mod keyring;

pub use keyring::{Generation, GenerationKeys, Key, Keyring};

use crate::error::Kind;

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No slot of any valid revision opens with what was given.
    #[error("{what} does not open vault {vault}")]
    Wrong {
        /// "the passphrase", "key file …", "the recovery kit"
        what: String,
        /// The vault.
        vault: String,
    },
    /// There is no key at all.
    #[error("no key for vault {vault}: {why}")]
    None {
        /// The vault.
        vault: String,
        /// What was looked for.
        why: String,
    },
    /// This key ring may not do that.
    #[error("this key does not allow to {what}")]
    NotAllowed {
        /// "read contents", …
        what: &'static str,
    },
    /// The key file or kit cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// Key slots: a name taken or unknown, the last slot.
    #[error("{why}")]
    Slot {
        /// What is wrong.
        why: String,
    },
}

impl KeyError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Wrong { .. } | Self::None { .. } | Self::NotAllowed { .. } => Kind::Denied,
            Self::File { .. } => Kind::Corrupt,
            Self::Slot { .. } => Kind::Invalid,
        }
    }
}
