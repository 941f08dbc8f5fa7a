//! The home of an embedded node: a folder that knows its vaults, keeps their keys and their index, and lets one process write.
//!
//! ```text
//! lock                         held while vaults are made, added and renamed
//! stores/main/                 the store of the vault `main`
//! vaults/<name>.toml           which vault a name means, and where it is
//! keys/<vault id>              the platform's key (0600)
//! index/<vault id>/            the chunk index; index/<vault id>.doubtful: rebuild it
//! writers/<vault id>/lock      who writes now
//! writers/<vault id>/session   the last session number used up
//! writers/<vault id>/claim     the claim on the vault, and on which machine it was made
//! ```
//! Only the stores and the keys matter: everything else is made again from them. What a home guards:
//! 1. One process writes to a vault at a time ([`lock`]); another is refused with its name. Reading takes no lock.
//! 2. A home writes only under a claim of its own, made where it is ([`claim`]); everything that is acknowledged or hidden is checked against
//!    the vault's claims after it was put ([`crate::control::home`]).
//! 3. The index is believed only as long as the vault shows what it recorded last ([`index`]).
//! 4. A lost, copied or rolled back home costs time and duplicates, never data ([`counter`]).
//!
//! Read `open` for how a vault is opened, `create` for how one is made and taken over, `points` and `resolve` for what is in it.

pub mod claim;
pub mod counter;
pub mod create;
pub mod entry;
pub mod error;
pub(crate) mod files;
pub mod index;
pub mod lock;
pub mod open;
pub mod points;
pub mod resolve;
pub mod stores;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
pub mod unlock;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tresor_storage::ids::VaultId;
use tresor_storage::vault::claim::Claimant;
use tresor_storage::vault::naming::check_vault_name;

use crate::control::ControlError;
use lock::{Holder, Lock};

pub use create::{
    CreateOptions, CreatedVault, TakenOver, create_vault, ensure_main, enter_claim, is_as_made, keep_claim, kept_claim,
    note_use, take_over,
};
pub use entry::VaultEntry;
pub use error::HomeError;
pub use index::IndexState;
pub use open::{
    HeldVault, OpenVault, Place, WritableVault, check_writable, open_and_rebuild, open_and_rebuild_at, open_for_change,
    open_for_reading, open_for_writing, open_for_writing_at,
};
pub use points::{DamagedObject, KnownPoint, Points, load_points};
pub use resolve::{find_item, newest_of, resolve_point};
pub use stores::{StoreConfigs, Stores};
pub use unlock::{HomeKeys, UnlockSource};

/// The vault that is made at first use.
pub const MAIN: &str = "main";
/// How long to wait for another process that adds a vault: making one settles for two seconds on some stores.
const ADDING_PATIENCE: Duration = Duration::from_secs(30);

/// A home.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
    command: String,
}

impl Home {
    /// Opens the home at `root` and makes what is missing. `command` is the verb that runs, for others who find a vault of it in use.
    ///
    /// # Errors
    /// [`ControlError::Home`] when the folder cannot be made or entered.
    pub fn open(root: &Path, command: &str) -> Result<Self, HomeError> {
        files::make_folder(root)?;
        let root = root
            .canonicalize()
            .map_err(|e| files::trouble("could not find", root, e))?;
        for folder in ["stores", "vaults", "keys", "index", "writers"] {
            files::make_folder(&root.join(folder))?;
        }
        let keys = root.join("keys");
        let mode = std::fs::metadata(&keys)
            .map_err(|e| files::trouble("could not look at", &keys, e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            tracing::warn!(folder = %keys.display(), mode = format!("{:o}", mode & 0o777), "others may enter the folder of keys");
        }
        Ok(Self {
            root,
            command: command.to_owned(),
        })
    }

    /// Its folder, symbolic links resolved.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The vaults that it knows, by name.
    ///
    /// # Errors
    /// [`ControlError::Damaged`] for an entry that cannot be read; others by cause.
    pub fn vaults(&self) -> Result<Vec<VaultEntry>, HomeError> {
        Ok(entry::list(&self.root)?)
    }

    /// The vault of that name.
    ///
    /// # Errors
    /// [`HomeError::NoVault`] with the names that there are; [`tresor_storage::vault::VaultError::Name`] for what no vault can be named.
    pub fn vault(&self, name: &str) -> Result<VaultEntry, HomeError> {
        check_vault_name(name)?;
        if let Some(entry) = entry::load(&self.root, name)? {
            return Ok(entry);
        }
        Err(self.no_vault(name)?)
    }

    pub(crate) fn no_vault(&self, name: &str) -> Result<HomeError, ControlError> {
        let known = entry::list(&self.root)?.into_iter().map(|entry| entry.name).collect();
        Ok(HomeError::NoVault {
            name: name.to_owned(),
            home: self.root.display().to_string(),
            known,
        })
    }

    /// The vault that is meant when none is named: `main`, else the only one there is.
    ///
    /// # Errors
    /// As [`Self::vaults`].
    pub fn default_vault(&self) -> Result<Option<VaultEntry>, HomeError> {
        let mut vaults = self.vaults()?;
        let main = vaults.iter().position(|entry| entry.name == MAIN);
        Ok(match main {
            Some(at) => Some(vaults.swap_remove(at)),
            None if vaults.len() == 1 => vaults.pop(),
            None => None,
        })
    }

    /// Enters a vault under a name that is free.
    ///
    /// # Errors
    /// [`HomeError::NameTaken`]; others by cause.
    pub fn add_vault(&self, entry: &VaultEntry) -> Result<(), HomeError> {
        check_vault_name(&entry.name)?;
        let _lock = self.lock_vaults(ADDING_PATIENCE)?;
        self.add_locked(entry)
    }

    /// As [`Self::add_vault`], by who holds the lock.
    pub(crate) fn add_locked(&self, entry: &VaultEntry) -> Result<(), HomeError> {
        match entry::load(&self.root, &entry.name)? {
            Some(_) => Err(HomeError::NameTaken {
                name: entry.name.clone(),
            }),
            None => Ok(entry::store(&self.root, entry)?),
        }
    }

    /// Gives a vault another name in this home.
    ///
    /// # Errors
    /// [`HomeError::NoVault`], [`HomeError::NameTaken`]; others by cause.
    pub fn rename_vault(&self, from: &str, to: &str) -> Result<(), HomeError> {
        check_vault_name(to)?;
        let _lock = self.lock_vaults(ADDING_PATIENCE)?;
        let entry = self.vault(from)?;
        self.add_locked(&VaultEntry {
            name: to.to_owned(),
            ..entry
        })?;
        Ok(files::remove(&entry::path(&self.root, from))?)
    }

    /// Forgets a vault: its name, its index, and this home's claim. The vault's store and its key stay as they are.
    ///
    /// # Errors
    /// [`HomeError::NoVault`]; [`ControlError::Busy`] while it is being written; others by cause.
    pub fn forget_vault(&self, name: &str) -> Result<VaultEntry, HomeError> {
        let _lock = self.lock_vaults(ADDING_PATIENCE)?;
        let entry = self.vault(name)?;
        let writer = self.writer_folder(entry.id)?;
        let _writer = self.lock_writer(entry.id)?;
        files::remove(&entry::path(&self.root, name))?;
        if !self.vaults()?.iter().any(|other| other.id == entry.id) {
            files::remove(&writer.join("claim"))?;
            let index = self.index_path(entry.id);
            match std::fs::remove_dir_all(&index) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(files::trouble("could not remove", &index, e).into()),
            }
        }
        Ok(entry)
    }

    /// Where the platform's key of a vault is.
    pub fn key_path(&self, vault: VaultId) -> PathBuf {
        self.root.join("keys").join(vault.to_string())
    }

    /// Whether there is one.
    pub fn has_key(&self, vault: VaultId) -> bool {
        self.key_path(vault).exists()
    }

    /// Where the store of a vault in this home is.
    pub fn store_folder(&self, name: &str) -> PathBuf {
        self.root.join("stores").join(name)
    }

    pub(crate) fn index_path(&self, vault: VaultId) -> PathBuf {
        self.root.join("index").join(vault.to_string())
    }

    /// The folder of what only the writer of a vault touches, made if need be.
    pub(crate) fn writer_folder(&self, vault: VaultId) -> Result<PathBuf, ControlError> {
        let folder = self.root.join("writers").join(vault.to_string());
        files::make_folder(&folder)?;
        Ok(folder)
    }

    /// Locks a vault for writing from this home.
    pub(crate) fn lock_writer(&self, vault: VaultId) -> Result<Lock, ControlError> {
        Lock::take(
            &self.writer_folder(vault)?.join("lock"),
            &Holder::this(&self.command),
            Duration::ZERO,
        )
    }

    /// Locks the list of vaults.
    pub(crate) fn lock_vaults(&self, patience: Duration) -> Result<Lock, ControlError> {
        Lock::take(&self.root.join("lock"), &Holder::this(&self.command), patience)
    }
}

/// This host's name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .take(255)
        .collect()
}

/// The program and its version, as it signs what it makes.
pub const PROGRAM: &str = concat!("tresor ", env!("CARGO_PKG_VERSION"));

/// The wall clock, RFC 3339 in UTC to the second: for people, and for the order of points.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

pub(crate) fn claimant(vault: VaultId) -> Claimant {
    Claimant {
        vault,
        holder: host_name(),
        now: now(),
        program: PROGRAM.to_owned(),
    }
}
