//! Why a home or a vault of it cannot be used as asked.

use tresor_storage::Kind;
use tresor_storage::backend::BackendError;
use tresor_storage::keys::KeyError;
use tresor_storage::vault::VaultError;

use crate::control::ControlError;

/// Why a home or a vault of it cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The home's files, its locks, and who may write.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A vault may not be written from here.
    #[error("could not open vault {vault} for writing")]
    NotWritable {
        /// Its name.
        vault: String,
        /// Why.
        #[source]
        source: Box<ControlError>,
    },
    /// This home has no claim on the vault: it only knows where it is.
    #[error("vault {vault} is not written from this home, but by {holder}")]
    NotClaimed {
        /// Its name.
        vault: String,
        /// Who writes it, as far as that is known.
        holder: String,
    },
    /// The store, the keys, or what is in the vault.
    #[error(transparent)]
    Storage(#[from] tresor_storage::Error),
    /// No vault has the name.
    #[error("no vault {name} in home {home}")]
    NoVault {
        /// As asked for.
        name: String,
        /// The home.
        home: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// A vault has the name.
    #[error("vault {name} is there already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The vault at the place is another.
    #[error("{url} holds vault {found}, and {name} is vault {expected}")]
    OtherVault {
        /// The name in this home.
        name: String,
        /// The store.
        url: String,
        /// The vault of that name.
        expected: String,
        /// The vault that is there.
        found: String,
    },
    /// Nothing opens the vault, and nobody can be asked.
    #[error("no key for vault {vault}: there is no key file {path}")]
    NoKey {
        /// Its name.
        vault: String,
        /// Where the platform's key would be.
        path: String,
    },
}

impl HomeError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Control(e) => e.kind(),
            Self::NotWritable { source, .. } => source.kind(),
            Self::Storage(e) => e.kind(),
            Self::NotClaimed { .. } => Kind::Fenced,
            Self::NoVault { .. } => Kind::Missing,
            Self::NameTaken { .. } => Kind::Invalid,
            Self::OtherVault { .. } => Kind::Corrupt,
            Self::NoKey { .. } => Kind::Denied,
        }
    }

    /// What to do about it, where one thing can be named.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotWritable { vault, source } if matches!(**source, ControlError::Copied { .. }) => Some(format!(
                "if the home at the old place is not used any more: tresor vault take-over {vault}; reading needs nothing"
            )),
            Self::NotWritable { source, .. } if !matches!(**source, ControlError::Fenced { .. }) => None,
            Self::NotWritable { vault, .. } | Self::NotClaimed { vault, .. } => Some(format!(
                "reading needs nothing; to write from here and stop the other: tresor vault take-over {vault}"
            )),
            Self::NoVault { known, .. } if known.is_empty() => Some(String::from("tresor vault create NAME")),
            Self::NoVault { known, .. } => Some(format!("there are: {}", known.join(", "))),
            Self::NoKey { .. } => Some(String::from("give a key file, the recovery kit or the passphrase")),
            Self::Storage(tresor_storage::Error::Vault(VaultError::VaultExists { .. })) => Some(String::from(
                "to use that vault: tresor vault take-over NAME --store URL",
            )),
            _ => None,
        }
    }
}

macro_rules! from_storage {
    ($($kind:ty),*) => {$(
        impl From<$kind> for HomeError {
            fn from(error: $kind) -> Self {
                Self::Storage(error.into())
            }
        }
    )*};
}
from_storage!(
    BackendError,
    KeyError,
    VaultError,
    tresor_storage::FormatError,
    tresor_storage::index::IndexError
);
