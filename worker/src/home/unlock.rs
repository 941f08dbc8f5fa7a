//! What opens a vault, and in which order it is looked for.

use tresor_storage::Error;
use tresor_storage::backend::Backend;
use tresor_storage::ids::VaultId;
use tresor_storage::keys::{KeyError, KeyFile, ObjectHash, Opened, SlotKind, Unlock, names_slot_kind};
use tresor_storage::vault::revisions::{open_keys, read_revisions};
use zeroize::Zeroizing;

use super::{Home, HomeError};
use crate::blocking::blocking;

/// Where secrets come from besides the home.
pub trait UnlockSource: Send + Sync {
    /// What the caller named on the command line or in the environment: a key file, a recovery kit, a passphrase file. Then nothing else is tried.
    ///
    /// # Errors
    /// When it cannot be read.
    fn explicit(&self, vault: VaultId) -> Result<Option<Unlock>, KeyError>;

    /// Asks a person for the passphrase of the vault so named, which has a slot for one; `None` when nobody can be asked. May wait as long as people do.
    ///
    /// # Errors
    /// When asking failed.
    fn passphrase(&self, vault: &str) -> Result<Option<Zeroizing<String>>, KeyError>;
}

/// Nothing but the keys in the home.
#[derive(Debug, Clone, Copy, Default)]
pub struct HomeKeys;

impl UnlockSource for HomeKeys {
    fn explicit(&self, _: VaultId) -> Result<Option<Unlock>, KeyError> {
        Ok(None)
    }

    fn passphrase(&self, _: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
        Ok(None)
    }
}

/// Opens the keys of a vault by what was named, else by the home's key file, else by the passphrase.
///
/// A key file of the home that is damaged or does not open the vault any more is an error, not a reason to ask: whoever answers a prompt would
/// never learn of it.
pub(super) async fn unlock(
    home: Option<&Home>,
    backend: &dyn Backend,
    (vault, name): (VaultId, &str),
    header_hash: &ObjectHash,
    source: &dyn UnlockSource,
) -> Result<(Opened, Unlock), HomeError> {
    let unlock = find(home, backend, (vault, name), source).await?;
    let keys = open_keys(backend, vault, header_hash, &unlock).await?;
    for ignored in &keys.ignored {
        tracing::warn!(object = ignored.name, why = %ignored.why, "a key revision does not count");
    }
    if !keys.conflicts.is_empty() {
        tracing::warn!(generations = ?keys.conflicts, "two key revisions hold different keys of one generation");
    }
    Ok((keys, unlock))
}

async fn find(
    home: Option<&Home>,
    backend: &dyn Backend,
    (vault, name): (VaultId, &str),
    source: &dyn UnlockSource,
) -> Result<Unlock, HomeError> {
    if let Some(unlock) = source.explicit(vault)? {
        return Ok(unlock);
    }
    let path = home.map(|home| home.key_path(vault));
    if let Some(path) = path.clone().filter(|path| path.exists()) {
        let file = blocking(move || {
            let file = KeyFile::load(&path, Some(vault)).map_err(Error::from)?;
            if file.open_to_others {
                tracing::warn!(path = %path.display(), "others may read the key file");
            }
            Ok::<_, Error>(file)
        });
        return Ok(file.await?.unlock());
    }
    // A prompt that no answer satisfies is worse than none.
    let revisions = read_revisions(backend).await?;
    let given = match names_slot_kind(vault, &revisions.objects, SlotKind::Passphrase) {
        true => source.passphrase(name)?,
        false => None,
    };
    given.map(Unlock::Passphrase).ok_or_else(|| HomeError::NoKey {
        vault: name.to_owned(),
        path: path.map_or_else(|| String::from("(no home is used)"), |path| path.display().to_string()),
    })
}
