//! An opened vault: its store, its keys, its numbers.

use std::sync::Arc;

use crate::backend::Backend;
use crate::chunk::{Cutter, Fingerprinter, IdKeys, Profile};
use crate::ids::VaultId;
use crate::keys::{Key, KeyError, Keyring};

/// An opened vault, shared by all that read and write it.
pub struct Vault {
    /// Its id.
    pub id: VaultId,
    /// How its disks are cut.
    pub profile: Profile,
    /// Its store.
    pub backend: Arc<dyn Backend>,
    /// Its keys, as far as they were given.
    pub keyring: Keyring,
    /// The keys under which content is named.
    pub ids: IdKeys,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault")
            .field("id", &self.id)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Puts one together.
    pub fn new(id: VaultId, profile: Profile, backend: Arc<dyn Backend>, keyring: Keyring) -> Self {
        let ids = IdKeys::new(&keyring);
        Self {
            id,
            profile,
            backend,
            keyring,
            ids,
        }
    }

    /// The cutter for its disks.
    ///
    /// # Errors
    /// When the key ring may only read.
    pub fn cutter(&self) -> Result<Cutter, KeyError> {
        Ok(Cutter::new(self.profile, self.cut_key()?))
    }

    /// Takes fingerprints of segments.
    ///
    /// # Errors
    /// When the key ring may only read.
    pub fn fingerprinter(&self) -> Result<Fingerprinter, KeyError> {
        Ok(Fingerprinter::new(self.cut_key()?))
    }

    fn cut_key(&self) -> Result<&Key, KeyError> {
        let cut = self.keyring.cut.as_ref();
        cut.ok_or(KeyError::NotAllowed { what: "write backups" })
    }
}
