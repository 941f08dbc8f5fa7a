//! Making a vault, and taking one over.
//!
//! Order: the key file, the vault in its store (whose claim is ours then), the home's claim, and last the vault's name. Cut anywhere, nothing
//! that has a name is half made. A vault `main` that was made and not yet named is found by its key and taken over, so the first use can
//! be repeated after any cut; of any other place a person says so.

use tresor_storage::Error;
use tresor_storage::backend::{Abilities, OpenStore};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::VaultId;
use tresor_storage::keys::{KeyFile, Opened, PassphraseCost, Unlock};
use tresor_storage::vault::VaultError;
use tresor_storage::vault::claim::{self, ListedClaim, SETTLING};
use tresor_storage::vault::create::{Created, NewVault, Prepared, open_header};
use tresor_storage::vault::header::{Header, Redundancy};
use tresor_storage::vault::naming::check_vault_name;
use zeroize::Zeroizing;

use super::claim::{HomeClaim, Identity};
use super::counter::SessionCounter;
use super::entry::{VaultEntry, folder_url};
use super::open::open_at;
use super::stores::Stores;
use super::unlock::UnlockSource;
use super::{ADDING_PATIENCE, Home, HomeError, MAIN, PROGRAM, host_name, now};
use crate::blocking::blocking;
use crate::control::ControlError;

/// The name of the key slot whose secret is in the home.
pub const HOME_SLOT: &str = "home";
/// The name of the key slot of a passphrase given when a vault is made.
pub const PASSPHRASE_SLOT: &str = "passphrase";

/// The number of the claim with which a vault is made.
const FIRST_CLAIM: u64 = 1;

/// What a new vault shall be.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// How disks are cut.
    pub profile: Profile,
    /// The store's region label; may be empty.
    pub region: String,
    /// Makes a key and keeps it in the home.
    pub key_file: bool,
    /// Makes a slot for a passphrase.
    pub passphrase: Option<Zeroizing<String>>,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            region: String::new(),
            key_file: true,
            passphrase: None,
        }
    }
}

/// A vault just made.
#[derive(Debug)]
pub struct CreatedVault {
    /// As the home knows it.
    pub entry: VaultEntry,
    /// What it is.
    pub header: Header,
    /// Its keys.
    pub keys: Opened,
    /// What its store can do.
    pub abilities: Abilities,
}

/// A vault taken over.
#[derive(Debug)]
pub struct TakenOver {
    /// As the home knows it.
    pub entry: VaultEntry,
    /// Our claim.
    pub claim: ListedClaim,
    /// The former holder's host and since when it held the vault, where that can be read.
    pub from: Option<(String, String)>,
}

/// Makes a vault, in the home (`stores/<name>`) or at `url`.
///
/// # Errors
/// [`HomeError::NameTaken`], [`VaultError::VaultExists`], [`VaultError::UnfitStore`]; others by cause.
pub async fn create_vault(
    home: &Home,
    name: &str,
    url: Option<&str>,
    options: CreateOptions,
    stores: &dyn Stores,
) -> Result<CreatedVault, HomeError> {
    check_vault_name(name)?;
    let _lock = lock_vaults(home).await?;
    Box::pin(create_locked(home, name, url, options, stores)).await
}

async fn lock_vaults(home: &Home) -> Result<super::lock::Lock, ControlError> {
    let home = home.clone();
    blocking(move || home.lock_vaults(ADDING_PATIENCE)).await
}

async fn create_locked(
    home: &Home,
    name: &str,
    url: Option<&str>,
    options: CreateOptions,
    stores: &dyn Stores,
) -> Result<CreatedVault, HomeError> {
    if super::entry::load(home.root(), name)?.is_some() {
        return Err(HomeError::NameTaken { name: name.to_owned() });
    }
    let own = folder_url(&home.store_folder(name))?;
    let OpenStore { backend, url, .. } = stores.open(url.unwrap_or(&own), true)?;
    let mut prepared = Prepared::new(NewVault {
        url: url.clone(),
        region: options.region,
        profile: options.profile.name().to_owned(),
        redundancy: Redundancy::Local,
        holder: host_name(),
        now: now(),
        program: PROGRAM.to_owned(),
        settle: SETTLING,
    });
    let id = prepared.vault();
    // A store that holds a vault must not cost a key file at every try; who makes one meanwhile is found by publishing.
    match open_header(backend.as_ref(), &url).await {
        Err(Error::Vault(VaultError::NoVault { .. })) => {}
        Ok((header, _)) => {
            return Err(VaultError::VaultExists {
                url,
                vault: header.vault.to_string(),
            }
            .into());
        }
        Err(error) => return Err(error.into()),
    }
    if options.key_file {
        prepared.add_key_file(HOME_SLOT, &home.key_path(id))?;
    }
    if let Some(passphrase) = options.passphrase {
        prepared.add_passphrase(PASSPHRASE_SLOT, passphrase, PassphraseCost::default());
    }
    let Created {
        header,
        keys,
        claim,
        abilities,
        ..
    } = Box::pin(prepared.publish(backend.as_ref())).await?;
    keep_claim(home, id, claim)?;
    let entry = VaultEntry {
        name: name.to_owned(),
        id,
        url,
        added_at: now(),
    };
    home.add_locked(&entry)?;
    Ok(CreatedVault {
        entry,
        header,
        keys,
        abilities,
    })
}

/// The claim under which this home writes, if it has one.
///
/// # Errors
/// By cause.
pub fn kept_claim(home: &Home, vault: VaultId) -> Result<Option<ListedClaim>, ControlError> {
    let claim = HomeClaim::load(&home.writer_folder(vault)?.join("claim"), vault)?;
    Ok(claim.map(|claim| claim.listed))
}

/// Whether a vault was made by this home, under the claim that it still has, and never written to since: whoever takes that claim can go on under it as if
/// the vault were made for them.
///
/// # Errors
/// By cause.
pub fn is_as_made(home: &Home, vault: VaultId) -> Result<bool, ControlError> {
    let Some(claim) = kept_claim(home, vault)? else {
        return Ok(false);
    };
    // A writer's first act is to use up a number.
    Ok(claim.number == FIRST_CLAIM && !home.writer_folder(vault)?.join("session").exists())
}

/// Notes that a vault is not as it was made any more: see [`is_as_made`]. Durable when this returns.
///
/// # Errors
/// [`ControlError::Busy`] while a process of this home writes; others by cause.
pub fn note_use(home: &Home, vault: VaultId) -> Result<(), ControlError> {
    let _lock = home.lock_writer(vault)?;
    SessionCounter::open(&home.writer_folder(vault)?.join("session"))?.use_up()?;
    Ok(())
}

/// Makes a claim this home's own: it writes under it from here on. The claim stands in the vault already.
///
/// # Errors
/// By cause.
pub fn keep_claim(home: &Home, vault: VaultId, listed: ListedClaim) -> Result<(), ControlError> {
    let claim = HomeClaim {
        vault,
        listed,
        identity: Identity::here(home.root())?,
        since: now(),
    };
    claim.store(&home.writer_folder(vault)?.join("claim"))
}

/// As [`keep_claim`], by a process that does not write to the vault: of several at once each leaves the claim whole.
///
/// # Errors
/// [`ControlError::Busy`] while a process of this home writes; others by cause.
pub fn enter_claim(home: &Home, vault: VaultId, listed: ListedClaim) -> Result<(), ControlError> {
    let _lock = home.lock_writer(vault)?;
    keep_claim(home, vault, listed)
}

/// The vault that is meant when none is named, made if the home has none. Returns whether it was made now.
///
/// # Errors
/// [`HomeError::NoVault`] where there are several and none is called `main`; those of [`create_vault`].
pub async fn ensure_main(home: &Home, stores: &dyn Stores) -> Result<(VaultEntry, bool), HomeError> {
    if let Some(entry) = home.default_vault()? {
        return Ok((entry, false));
    }
    let _lock = lock_vaults(home).await?;
    // Another process may have been faster.
    if let Some(entry) = home.default_vault()? {
        return Ok((entry, false));
    }
    if !home.vaults()?.is_empty() {
        home.vault(MAIN)?;
    }
    let url = folder_url(&home.store_folder(MAIN))?;
    let store = stores.open(&url, true)?;
    match open_header(store.backend.as_ref(), &url).await {
        // Made, and cut before it had a name: its key is here, so nobody else's it can be.
        Ok((header, _)) if home.has_key(header.vault) => {
            let entry = VaultEntry {
                name: MAIN.to_owned(),
                id: header.vault,
                url: store.url.clone(),
                added_at: now(),
            };
            claim_vault(home, &store, &header).await?;
            home.add_locked(&entry)?;
            Ok((entry, true))
        }
        Ok((header, _)) => {
            let why = format!(
                "there is a vault ({}) without a name and without a key in the home",
                header.vault
            );
            Err(super::files::damaged(&home.store_folder(MAIN), why).into())
        }
        Err(Error::Vault(VaultError::NoVault { .. })) => {
            let made = Box::pin(create_locked(home, MAIN, None, CreateOptions::default(), stores)).await?;
            Ok((made.entry, true))
        }
        Err(error) => Err(error.into()),
    }
}

/// Claims a vault for this home, whoever held it: the former holder cannot acknowledge or hide anything from then on.
///
/// `url` is needed for a vault that this home does not know yet. Whatever opens the vault shows that it may be taken; a key file that did is
/// copied into the home.
///
/// # Errors
/// [`ControlError::Busy`] while a process of this home writes; [`VaultError::TakenOver`] when somebody else took over at the same time; others
/// by cause.
pub async fn take_over(
    home: &Home,
    name: &str,
    url: Option<&str>,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
) -> Result<TakenOver, HomeError> {
    check_vault_name(name)?;
    let _vaults = lock_vaults(home).await?;
    let known = super::entry::load(home.root(), name)?;
    let store = match (&known, url) {
        (None, None) => return Err(home.no_vault(name)?),
        (Some(known), None) => stores.open(&known.url, false)?,
        (_, Some(url)) => stores.open(url, false)?,
    };
    if known.as_ref().is_some_and(|known| known.url != store.url) {
        return Err(HomeError::NameTaken { name: name.to_owned() });
    }
    let open = Box::pin(open_at(Some(home), known.as_ref(), store.clone(), source)).await?;
    let id = open.vault.id;
    let _writer = {
        let home = home.clone();
        blocking(move || home.lock_writer(id)).await?
    };
    let from = claim::holder(store.backend.as_ref(), id).await?;
    let listed = claim_vault(home, &store, &open.header).await?;
    if let (Unlock::File(key), false) = (&open.unlock, home.has_key(id)) {
        KeyFile::create(&home.key_path(id), id, key)?;
    }
    let entry = match known {
        Some(entry) => entry,
        None => {
            let entry = VaultEntry {
                name: name.to_owned(),
                id,
                url: store.url,
                added_at: now(),
            };
            home.add_locked(&entry)?;
            entry
        }
    };
    let from = from
        .and_then(|(_, claim)| claim)
        .map(|claim| (claim.holder, claim.claimed_at));
    Ok(TakenOver {
        entry,
        claim: listed,
        from,
    })
}

/// What the former holder did until now is listed at the next opening for writing, after this claim: it reads all points and makes the index anew.
async fn claim_vault(home: &Home, store: &OpenStore, header: &Header) -> Result<ListedClaim, HomeError> {
    let create_only = header.stores.iter().all(|store| store.abilities.create_only);
    let settle = if create_only {
        std::time::Duration::ZERO
    } else {
        SETTLING
    };
    let listed = claim::take_over(store.backend.as_ref(), &super::claimant(header.vault), settle).await?;
    keep_claim(home, header.vault, listed)?;
    Ok(listed)
}
