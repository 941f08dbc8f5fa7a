//! A vault as a whole: names of its objects, its header, who may write, how it is opened, written and read.

mod cache;
pub mod claim;
mod context;
pub mod create;
pub mod header;
pub mod names;
pub mod naming;
mod reader;
pub mod revisions;
#[cfg(test)]
pub(crate) mod test_store;
mod uploads;
mod writer;

pub(crate) use cache::Cache;
pub use context::Vault;
pub use reader::{VaultReader, check_chunk, open_pieces, open_pieces_in};
pub use uploads::Uploads;
pub use writer::{PackWriter, Written};

use crate::error::Kind;

/// Why a vault cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// There is no vault at that place.
    #[error("no vault at {url}")]
    NoVault {
        /// The store.
        url: String,
    },
    /// There is one already.
    #[error("a vault ({vault}) is there already: {url}")]
    VaultExists {
        /// The store.
        url: String,
        /// Its id.
        vault: String,
    },
    /// Another home or cluster may write, we may not.
    #[error("vault is held by {holder} since {since}")]
    Held {
        /// Its host.
        holder: String,
        /// When it claimed.
        since: String,
    },
    /// Our claim was outranked while we worked.
    #[error("vault was taken over by {holder} at {since}")]
    TakenOver {
        /// The new holder's host.
        holder: String,
        /// When it claimed.
        since: String,
    },
    /// Our claim is not there any more, or the store does not list it.
    #[error("our claim {claim} on the vault is not listed any more")]
    ClaimGone {
        /// Its object.
        claim: String,
    },
    /// More objects in a folder than there can be.
    #[error("more than {max} objects in {folder}")]
    TooMany {
        /// The folder.
        folder: &'static str,
        /// The bound.
        max: usize,
    },
    /// The store cannot hold a vault.
    #[error("store {url} cannot hold a vault: {why}")]
    UnfitStore {
        /// The store.
        url: String,
        /// What it did.
        why: String,
    },
    /// A thing of a vault was named that is not there.
    #[error("no {what} {name}")]
    NotThere {
        /// "point", "item", "disk"
        what: &'static str,
        /// As named.
        name: String,
    },
    /// More than one thing answers to a name.
    #[error("{what} {name} is ambiguous: {found}")]
    Ambiguous {
        /// "point", …
        what: &'static str,
        /// As named.
        name: String,
        /// What answers.
        found: String,
    },
    /// A name against the rules.
    #[error("{what} {name:?}: {rule}")]
    Name {
        /// "vault name", "item name", …
        what: &'static str,
        /// As given.
        name: String,
        /// The rule it breaks.
        rule: &'static str,
    },
    /// A put was answered "exists" by an object with other bytes.
    #[error("object {name} exists with other content")]
    Collision {
        /// The object.
        name: String,
    },
    /// A pack was on its way when its backup ended.
    #[error("the backup ended before its last packs were put")]
    Stopped,
}

impl VaultError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoVault { .. } | Self::NotThere { .. } => Kind::Missing,
            Self::VaultExists { .. } | Self::UnfitStore { .. } | Self::Ambiguous { .. } | Self::Name { .. } => {
                Kind::Invalid
            }
            Self::Held { .. } | Self::TakenOver { .. } | Self::ClaimGone { .. } => Kind::Fenced,
            Self::TooMany { .. } => Kind::Corrupt,
            Self::Collision { .. } => Kind::Bug,
            Self::Stopped => Kind::Retry,
        }
    }
}
