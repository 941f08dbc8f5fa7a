//! Keys: what they are ([`Keyring`]), how they are wrapped (`revision`, `slot`), and how people carry them (`kit`, `file`).
//!
//! From the bottom: `wrap` (one key under another), `recipient` (a key that only one can make again), `unlock` (what people hold), `slot` (all
//! keys for one holder), `revision` (all slots, signed), `opening` (which of several revisions counts, and the next one).

mod file;
mod keyring;
mod kit;
mod opening;
mod recipient;
mod revision;
mod slot;
mod unlock;
mod wrap;

pub use file::{KeyFile, create_secret};
pub use keyring::{Generation, GenerationKeys, Key, Keyring};
pub use kit::RecoveryKit;
pub use opening::{
    Change, Draft, Ignored, Opened, RevisionObject, Stamp, first_revision, names_slot_kind, open_revisions,
};
pub use revision::{ObjectHash, Revision};
pub use slot::{Grant, NewSlot, SLOT_NAME_MAX, SlotInfo, SlotKind};
pub use unlock::{PASSPHRASE_MAX, PASSPHRASE_MIN, PassphraseCost, Unlock};

use crate::error::{FormatError, Kind};

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
    /// What was given opens only a slot that the newest revision does not have any more.
    #[error("{what} opened vault {vault} once: its key slot {slot:?} is not in revision {revision}")]
    Removed {
        /// "the passphrase", "the key file", "the recovery kit"
        what: &'static str,
        /// The vault.
        vault: String,
        /// The slot as it was named.
        slot: String,
        /// The revision that counts.
        revision: u32,
    },
    /// No key revision can be read, or one that must not be passed over cannot.
    #[error("{object} of vault {vault} cannot be used")]
    Revisions {
        /// The vault.
        vault: String,
        /// The object.
        object: String,
        /// What is wrong with it.
        #[source]
        source: FormatError,
    },
    /// The header in the store is not the one that the keys were made for.
    #[error("the header of vault {vault} was replaced or damaged: its keys were made for another")]
    Header {
        /// The vault.
        vault: String,
    },
    /// A key file is never overwritten.
    #[error("{path} exists, and a key file is not overwritten")]
    Exists {
        /// The file.
        path: String,
    },
    /// The file system, for a key file.
    #[error("could not {doing} {path}")]
    Io {
        /// "read", "create", …
        doing: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
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
            Self::Wrong { .. } | Self::None { .. } | Self::NotAllowed { .. } | Self::Removed { .. } => Kind::Denied,
            Self::File { .. } | Self::Header { .. } => Kind::Corrupt,
            Self::Revisions { source, .. } => source.kind(),
            Self::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Kind::Missing,
                std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
                std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
                _ => Kind::Retry,
            },
            Self::Slot { .. } | Self::Exists { .. } => Kind::Invalid,
        }
    }
}
