//! Opening a vault: for reading, which needs nothing but its store and a key; for writing, which one process of one home may.

use std::path::Path;
use std::sync::Arc;

use tresor_storage::backend::{Counters, OpenStore};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{PartId, VaultId, Writer};
use tresor_storage::index::rebuild::Report;
use tresor_storage::index::{ChunkIndex, Stamp};
use tresor_storage::keys::{self, ObjectHash, Opened, Unlock};
use tresor_storage::vault::claim::{ListedClaim, check_standing, holder};
use tresor_storage::vault::create::open_header;
use tresor_storage::vault::header::Header;
use tresor_storage::vault::{Vault, VaultReader};

use super::claim::{HomeClaim, Identity};
use super::counter::SessionCounter;
use super::index::{self, HomeIndex, IndexState};
use super::lock::Lock;
use super::points::{Points, load_points};
use super::stores::Stores;
use super::unlock::{UnlockSource, unlock};
use super::{Home, HomeError, VaultEntry};
use crate::backup::Engine;
use crate::blocking::blocking;
use crate::control::home::HomeControl;
use crate::control::{Control, ControlError, fenced};

/// Which vault is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// By its name in the home.
    Named(&'a str),
    /// By its store: the way in when nothing is left but the store and a key.
    Url(&'a str),
}

/// A vault open for reading.
pub struct OpenVault {
    /// Its name in the home; its id where it has none.
    pub name: String,
    /// Its store.
    pub url: String,
    /// What it is.
    pub header: Header,
    /// The BLAKE3 of `vault.pb`.
    pub header_hash: ObjectHash,
    /// Its keys, and which slot gave them.
    pub keys: Opened,
    /// What opened them.
    pub unlock: Unlock,
    /// The vault.
    pub vault: Arc<Vault>,
    /// Reads its chunks: by hints alone for readers, with the index for the writer.
    pub reader: Arc<VaultReader>,
    /// What its store was asked so far.
    pub counters: Arc<Counters>,
}

impl std::fmt::Debug for OpenVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, url, vault, .. } = self;
        f.debug_struct("OpenVault")
            .field("name", name)
            .field("url", url)
            .field("vault", vault)
            .finish_non_exhaustive()
    }
}

impl OpenVault {
    /// Who decides, for a reader.
    pub fn control(&self) -> Arc<dyn Control> {
        Arc::new(HomeControl::reading(self.vault.clone()))
    }
}

/// A vault that this home may change and nobody else of it meanwhile, until this is dropped; without its index, which keys do not need.
pub struct HeldVault {
    /// As for reading.
    pub open: OpenVault,
    /// Who decides.
    pub control: Arc<HomeControl>,
    /// What the vault held at opening.
    pub points: Points,
    /// Our claim.
    pub claim: ListedClaim,
    /// Why its index is not to be believed, as far as the home's session counter tells.
    doubt: Option<String>,
    _lock: Lock,
}

impl std::fmt::Debug for HeldVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldVault")
            .field("open", &self.open)
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

/// A vault open for writing, until this is dropped.
pub struct WritableVault {
    /// As for reading, with the index.
    pub open: OpenVault,
    /// What jobs work with.
    pub engine: Engine,
    /// Who decides, also over removed points.
    pub control: Arc<HomeControl>,
    /// The index.
    pub index: Arc<HomeIndex>,
    /// What became of the index at opening.
    pub index_state: IndexState,
    /// What the vault held at opening.
    pub points: Points,
    /// Our claim.
    pub claim: ListedClaim,
    /// Last, so that the index is closed when the next process may go.
    _lock: Lock,
}

impl std::fmt::Debug for WritableVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WritableVault")
            .field("open", &self.open)
            .field("claim", &self.claim)
            .finish_non_exhaustive()
    }
}

impl HeldVault {
    /// The signature of a key revision, with a session number used up for it.
    ///
    /// # Errors
    /// When no number can be used up.
    pub async fn key_stamp(&self) -> Result<keys::Stamp, ControlError> {
        let session = self.control.use_number().await?;
        let writer = Writer {
            cluster: self.claim.cluster,
            session,
            part: PartId::random(),
        };
        Ok(keys::Stamp {
            writer,
            claim: self.claim.number,
            now: super::now(),
        })
    }
}

/// Opens a vault for reading. Takes no lock and no claim, and changes nothing.
///
/// # Errors
/// By cause; [`HomeError::OtherVault`] when the store holds another vault than the name means.
pub async fn open_for_reading(
    home: Option<&Home>,
    place: Place<'_>,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
) -> Result<OpenVault, HomeError> {
    let (entry, url) = match (place, home) {
        (Place::Url(url), _) => (None, url.to_owned()),
        (Place::Named(name), Some(home)) => {
            let entry = home.vault(name)?;
            let url = entry.url.clone();
            (Some(entry), url)
        }
        (Place::Named(name), None) => {
            return Err(HomeError::NoVault {
                name: name.to_owned(),
                home: String::from("(none is used)"),
                known: Vec::new(),
            });
        }
    };
    let store = stores.open(&url, false)?;
    open_at(home, entry.as_ref(), store, source).await
}

/// Opens the vault in a store. `entry` is what the home knows of it, if it was asked for by its name.
pub(super) async fn open_at(
    home: Option<&Home>,
    entry: Option<&VaultEntry>,
    store: OpenStore,
    source: &dyn UnlockSource,
) -> Result<OpenVault, HomeError> {
    let OpenStore {
        backend, counters, url, ..
    } = store;
    let (header, header_hash) = open_header(backend.as_ref(), &url).await?;
    check_vault(entry, &header, &url)?;
    let name = match (entry, home) {
        (Some(entry), _) => entry.name.clone(),
        (None, Some(home)) => name_of(home, header.vault),
        (None, None) => header.vault.to_string(),
    };
    let profile: Profile = header.profile.parse()?;
    let (keys, unlock) = unlock(home, backend.as_ref(), (header.vault, &name), &header_hash, source).await?;
    let vault = Arc::new(Vault::new(header.vault, profile, backend, keys.keyring.clone()));
    let reader = Arc::new(VaultReader::new(vault.clone(), None));
    Ok(OpenVault {
        name,
        url,
        header,
        header_hash,
        keys,
        unlock,
        vault,
        reader,
        counters,
    })
}

fn check_vault(entry: Option<&VaultEntry>, header: &Header, url: &str) -> Result<(), HomeError> {
    match entry {
        Some(entry) if entry.id != header.vault => Err(HomeError::OtherVault {
            name: entry.name.clone(),
            url: url.to_owned(),
            expected: entry.id.to_string(),
            found: header.vault.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Its name in a home; its id where it has none. Only for messages, so an entry that cannot be read stops nobody.
fn name_of(home: &Home, vault: VaultId) -> String {
    let entries = home.vaults().unwrap_or_default();
    entries
        .into_iter()
        .find(|entry| entry.id == vault)
        .map_or_else(|| vault.to_string(), |entry| entry.name)
}

/// Opens a vault for writing: alone in its home, under the home's claim, with its index, made anew if it cannot be believed.
///
/// # Errors
/// [`ControlError::Busy`] with the process that writes; [`HomeError::NotWritable`] and [`HomeError::NotClaimed`] where another home may write;
/// others by cause.
pub async fn open_for_writing(
    home: &Home,
    name: &str,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
) -> Result<WritableVault, HomeError> {
    Box::pin(open_writable(home, name, source, stores, None, &mut |_| {})).await
}

/// As [`open_for_writing`], and makes the index anew whatever it says. `progress` is called as that goes on.
///
/// # Errors
/// As [`open_for_writing`].
pub async fn open_and_rebuild(
    home: &Home,
    name: &str,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<WritableVault, HomeError> {
    let why = Some(String::from("as asked"));
    Box::pin(open_writable(home, name, source, stores, why, progress)).await
}

/// As [`open_and_rebuild`], of the index at `path`: that of a worker which works under this home's claim, and does not run now.
///
/// # Errors
/// As [`open_for_writing`].
pub async fn open_and_rebuild_at(
    home: &Home,
    name: &str,
    path: &Path,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<WritableVault, HomeError> {
    let held = Box::pin(open_for_change(home, name, source, stores)).await?;
    let why = Some(String::from("as asked"));
    let path = path.join(held.open.vault.id.to_string());
    Box::pin(with_index(held, &path, why, progress)).await
}

/// As [`open_for_writing`], with the index at `path`: that of a worker which works under this home's claim, and does not run now. Its log and not this home
/// numbers its sessions, so what the home knows of them is no reason to doubt the index.
///
/// # Errors
/// As [`open_for_writing`].
pub async fn open_for_writing_at(
    home: &Home,
    name: &str,
    path: &Path,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
) -> Result<WritableVault, HomeError> {
    let held = Box::pin(open_for_change(home, name, source, stores)).await?;
    let path = path.join(held.open.vault.id.to_string());
    Box::pin(with_index(HeldVault { doubt: None, ..held }, &path, None, &mut |_| {})).await
}

async fn open_writable(
    home: &Home,
    name: &str,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
    rebuild: Option<String>,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<WritableVault, HomeError> {
    let held = Box::pin(open_for_change(home, name, source, stores)).await?;
    let path = home.index_path(held.open.vault.id);
    Box::pin(with_index(held, &path, rebuild, progress)).await
}

async fn with_index(
    held: HeldVault,
    path: &Path,
    rebuild: Option<String>,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<WritableVault, HomeError> {
    let HeldVault {
        mut open,
        control,
        points,
        claim,
        doubt,
        _lock,
    } = held;
    let stamp = Stamp {
        vault: open.vault.id,
        cluster: claim.cluster,
        claim: claim.number,
    };
    let (index, index_state) = index::open(path, stamp, &open.vault, rebuild.or(doubt), progress).await?;
    let index = Arc::new(index);
    open.reader = Arc::new(VaultReader::new(
        open.vault.clone(),
        Some(index.clone() as Arc<dyn ChunkIndex>),
    ));
    let engine = Engine {
        vault: open.vault.clone(),
        reader: open.reader.clone(),
        index: index.clone(),
        control: control.clone(),
        shares: None,
        helpers: Vec::new(),
    };
    Ok(WritableVault {
        open,
        engine,
        control,
        index,
        index_state,
        points,
        claim,
        _lock,
    })
}

/// Checks that this home may write to a vault: that its claim ranks first, and was made where the home is.
///
/// # Errors
/// [`HomeError::NotWritable`], [`HomeError::NotClaimed`]; those of the store.
pub async fn check_writable(home: &Home, name: &str, stores: &dyn Stores) -> Result<(), HomeError> {
    let entry = home.vault(name)?;
    let not_writable = |source| HomeError::NotWritable {
        vault: name.to_owned(),
        source: Box::new(source),
    };
    let claim = HomeClaim::load(&home.writer_folder(entry.id)?.join("claim"), entry.id)?;
    if let Some(claim) = &claim {
        claim.check_place(&Identity::here(home.root())?).map_err(not_writable)?;
    }
    let store = stores.open(&entry.url, false)?;
    let Some(claim) = claim else {
        return Err(not_claimed(name, entry.id, &store).await?);
    };
    let standing = check_standing(store.backend.as_ref(), entry.id, claim.listed).await;
    standing.map_err(fenced).map_err(not_writable)
}

async fn not_claimed(name: &str, vault: VaultId, store: &OpenStore) -> Result<HomeError, HomeError> {
    let holder = match holder(store.backend.as_ref(), vault).await? {
        Some((_, Some(claim))) => format!("{} since {}", claim.holder, claim.claimed_at),
        Some((listed, None)) => format!("the holder of {}", listed.object_name()),
        None => String::from("nobody yet"),
    };
    Ok(HomeError::NotClaimed {
        vault: name.to_owned(),
        holder,
    })
}

/// Opens a vault to change what needs no index: its keys. Alone in its home, under the home's claim.
///
/// # Errors
/// As [`open_for_writing`].
pub async fn open_for_change(
    home: &Home,
    name: &str,
    source: &dyn UnlockSource,
    stores: &dyn Stores,
) -> Result<HeldVault, HomeError> {
    let entry = home.vault(name)?;
    let not_writable = |source| HomeError::NotWritable {
        vault: name.to_owned(),
        source: Box::new(source),
    };
    let (lock, folder) = {
        let (home, id) = (home.clone(), entry.id);
        blocking(move || Ok::<_, ControlError>((home.lock_writer(id)?, home.writer_folder(id)?))).await?
    };
    let claim = HomeClaim::load(&folder.join("claim"), entry.id)?;
    if let Some(claim) = &claim {
        claim.check_place(&Identity::here(home.root())?).map_err(not_writable)?;
    }
    let store = stores.open(&entry.url, false)?;
    let Some(HomeClaim { listed: claim, .. }) = claim else {
        return Err(not_claimed(name, entry.id, &store).await?);
    };
    let open = open_at(Some(home), Some(&entry), store, source).await?;
    // Who may only read learns it now, not after the first disk.
    open.vault.cutter()?;

    let mut counter = SessionCounter::open(&folder.join("session"))?;
    let points = load_points(&open.vault).await?;
    let shown = points.sessions.get(&claim.cluster).copied().unwrap_or(0);
    let was = counter.last();
    let mut doubt = None;
    if counter.raise(shown) {
        // A home that lost its counter only, one rolled back to a snapshot, or one of which a copy writes. None of them can harm the vault; but
        // what the index of an older home knows may be gone.
        tracing::warn!(
            was,
            shown,
            "the vault shows later sessions of this home than the home knows: an older copy of the home?"
        );
        doubt = Some(String::from(
            "the vault shows later sessions of this home than the home knows",
        ));
    }
    let control = Arc::new(HomeControl::writing(open.vault.clone(), claim, counter));
    control.check_claim().await.map_err(not_writable)?;

    Ok(HeldVault {
        open,
        control,
        points,
        claim,
        doubt,
        _lock: lock,
    })
}
