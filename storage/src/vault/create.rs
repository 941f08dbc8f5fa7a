//! Making a vault, and opening one.
//!
//! The order of making, so that a crash at any point leaves either no vault or a whole one whose key is safe:
//! 1. `vault.pb` is not there.
//! 2. The store can do what a vault needs.
//! 3. The key file is read back from the disk and synced: [`Prepared::publish`] does that itself, no caller can forget it.
//! 4. Key revision 1 is put, read back and unwrapped with what was read from the key file.
//! 5. The claim is put and ranks first.
//! 6. `vault.pb` is put. What was put before is nothing without it, and is ignored by a later making, which draws another vault id.
//!
//! Of two makings at one place the create-only put of `vault.pb` decides. On a store that overwrites, `vault.pb` is read back after a
//! settling time; who then finds another's has lost. Whoever loses takes back its own objects.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::claim::{Claimant, ListedClaim, SETTLING, claim_above, list_claims, next_number};
use super::header::{Header, Redundancy, StoreEntry, header_hash};
use super::revisions::{blocking, store_revision};
use super::{VaultError, names};
use crate::backend::{Abilities, Backend, BackendError, probe};
use crate::error::{Doing, FormatError, Result};
use crate::ids::{ClusterId, PartId, SessionId, VaultId, Writer};
use crate::keys::{
    Draft, Key, KeyError, KeyFile, Keyring, NewSlot, ObjectHash, Opened, PassphraseCost, Stamp, Unlock, first_revision,
};
use crate::limits::HEADER_MAX;

/// What a new vault shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewVault {
    /// The store's URL, without credentials.
    pub url: String,
    /// Its region label; may be empty.
    pub region: String,
    /// The name of a profile.
    pub profile: String,
    /// How many copies.
    pub redundancy: Redundancy,
    /// This host, for the claim.
    pub holder: String,
    /// RFC 3339, UTC.
    pub now: String,
    /// The program and its version.
    pub program: String,
    /// How long to wait for rivals on a store without create-only puts; [`SETTLING`] outside tests.
    pub settle: Duration,
}

/// A vault with its keys drawn and nothing in a store yet.
#[derive(Debug)]
pub struct Prepared {
    spec: NewVault,
    vault: VaultId,
    keyring: Keyring,
    slots: Vec<(NewSlot, Proof)>,
}

/// Where a slot's secret is when the vault is published.
#[derive(Debug, Clone)]
enum Proof {
    /// In this file.
    File(PathBuf),
    /// In somebody's head, or with a cluster.
    Held,
}

/// A vault just made.
#[derive(Debug)]
pub struct Created {
    /// What it is.
    pub header: Header,
    /// The BLAKE3 of `vault.pb`.
    pub header_hash: ObjectHash,
    /// Its keys, as read back.
    pub keys: Opened,
    /// Our claim.
    pub claim: ListedClaim,
    /// What its store can do; worth a warning where it cannot do all.
    pub abilities: Abilities,
}

impl Prepared {
    /// Draws a vault id and keys.
    pub fn new(spec: NewVault) -> Self {
        Self {
            spec,
            vault: VaultId::random(),
            keyring: Keyring::generate(),
            slots: Vec::new(),
        }
    }

    /// Draws keys for a vault whose id the caller drew. Only so can a making be repeated by another process: of makings under one id the one whose
    /// `vault.pb` is there counts, and [`delete_strays`](super::revisions::delete_strays) takes away what the others left.
    pub fn with_id(spec: NewVault, vault: VaultId) -> Self {
        Self {
            vault,
            ..Self::new(spec)
        }
    }

    /// The vault's id: it names the key file.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// Draws a secret, writes it durably to a new key file at `path`, and adds a slot for it.
    ///
    /// # Errors
    /// As [`KeyFile::create`].
    pub fn add_key_file(&mut self, name: &str, path: &Path) -> Result<(), KeyError> {
        let key = Key::random();
        KeyFile::create(path, self.vault, &key)?;
        self.slots
            .push((NewSlot::full(name, Unlock::File(key)), Proof::File(path.to_owned())));
        Ok(())
    }

    /// Adds a slot for a secret that the caller keeps: it is durable where it is kept before this is called.
    pub fn add_kept_key(&mut self, name: &str, key: Key) {
        self.slots.push((NewSlot::full(name, Unlock::File(key)), Proof::Held));
    }

    /// Adds a slot for a passphrase that a person chose (and typed twice: nothing else can tell a slip).
    pub fn add_passphrase(&mut self, name: &str, passphrase: Zeroizing<String>, cost: PassphraseCost) {
        let slot = NewSlot {
            cost,
            ..NewSlot::full(name, Unlock::Passphrase(passphrase))
        };
        self.slots.push((slot, Proof::Held));
    }

    /// Makes the vault. A large future: it is not on any hot path.
    ///
    /// # Errors
    /// [`VaultError::VaultExists`], [`VaultError::UnfitStore`], [`KeyError::Slot`] without a slot or with a bad one, those of the store and of
    /// the key file. After an error there is no vault unless the error is a store that did not answer to the last put; key files are left.
    pub async fn publish(self, backend: &dyn Backend) -> Result<Created> {
        let Self {
            spec,
            vault,
            keyring,
            slots,
        } = self;
        refuse_existing(backend, &spec.url).await?;
        let abilities = fit(backend, &spec.url).await?;
        let unlocks = proven(vault, &slots)?;

        let cluster = ClusterId::random();
        let header = Header {
            vault,
            profile: spec.profile.clone(),
            stores: vec![StoreEntry {
                url: spec.url.clone(),
                region: spec.region.clone(),
                abilities,
            }],
            redundancy: spec.redundancy,
            created_at: spec.now.clone(),
            created_by: spec.program.clone(),
            first_cluster: cluster,
        };
        let header_bytes = header
            .encode()
            .doing(|| String::from("write down the vault's header"))?;
        let hash = header_hash(&header_bytes);

        let listed = list_claims(backend).await?.listed;
        let claim = next_number(&listed).ok_or(FormatError::TooLarge {
            what: "number of a claim",
            value: u64::MAX,
            max: u64::MAX - 1,
        })?;
        let ours = ListedClaim { number: claim, cluster };
        let stamp = Stamp {
            writer: Writer {
                cluster,
                session: SessionId(0),
                part: PartId::random(),
            },
            claim,
            now: spec.now.clone(),
        };
        let new: Vec<NewSlot> = slots.into_iter().map(|(slot, _)| slot).collect();
        let draft = blocking(move || first_revision(vault, hash, &stamp, keyring, &new)).await?;

        let settle = if abilities.create_only {
            Duration::ZERO
        } else {
            spec.settle
        };
        let claimant = Claimant {
            vault,
            holder: spec.holder,
            now: spec.now,
            program: spec.program,
        };
        let made = async {
            let keys = store_proven(backend, &draft, &unlocks).await?;
            claim_above(backend, &claimant, &listed, cluster, settle).await?;
            put_header(backend, &spec.url, header_bytes, abilities, settle).await?;
            Ok(keys)
        };
        match made.await {
            Ok(keys) => Ok(Created {
                header,
                header_hash: hash,
                keys,
                claim: ours,
                abilities,
            }),
            Err(error) => {
                if matches!(error, crate::Error::Vault(VaultError::VaultExists { .. })) {
                    // Another's header is there for good: ours were never anybody's, and their names hold our random cluster id.
                    let _ = backend.delete(&ours.object_name()).await;
                    let _ = backend.delete(&draft.object.name).await;
                }
                Err(error)
            }
        }
    }
}

/// Reads the header of the vault at a place; its BLAKE3.
///
/// # Errors
/// [`VaultError::NoVault`] when there is none; those of the store and of [`Header::decode`].
pub async fn open_header(backend: &dyn Backend, url: &str) -> Result<(Header, ObjectHash)> {
    let bytes = match backend.read(names::HEADER, HEADER_MAX).await {
        Ok(bytes) => bytes,
        Err(BackendError::NotFound { .. }) => return Err(VaultError::NoVault { url: url.to_owned() }.into()),
        Err(error) => return Err(error).doing(|| format!("read the header of the vault at {url}")),
    };
    let header = Header::decode(&bytes).doing(|| format!("read the header of the vault at {url}"))?;
    Ok((header, header_hash(&bytes)))
}

async fn refuse_existing(backend: &dyn Backend, url: &str) -> Result<()> {
    match backend.length(names::HEADER).await {
        Err(BackendError::NotFound { .. }) => Ok(()),
        Ok(_) => Err(exists(backend, url).await.into()),
        Err(error) => Err(error).doing(|| format!("look for a vault at {url}")),
    }
}

async fn exists(backend: &dyn Backend, url: &str) -> VaultError {
    let vault = match open_header(backend, url).await {
        Ok((header, _)) => header.vault.to_string(),
        Err(_) => String::from("its header cannot be read"),
    };
    VaultError::VaultExists {
        url: url.to_owned(),
        vault,
    }
}

async fn fit(backend: &dyn Backend, url: &str) -> Result<Abilities> {
    let abilities = probe(backend)
        .await
        .doing(|| format!("try what the store {url} can do"))?;
    let lacks = match abilities {
        Abilities { lists_fresh: false, .. } => "it does not list an object that was just stored",
        Abilities {
            ranged_reads: false, ..
        } => "it cannot read a part of an object",
        _ => return Ok(abilities),
    };
    Err(VaultError::UnfitStore {
        url: url.to_owned(),
        why: lacks.to_owned(),
    }
    .into())
}

/// What opens each slot, as it will be had later: key files are read from the disk, which they are on for good.
fn proven(vault: VaultId, slots: &[(NewSlot, Proof)]) -> Result<Vec<Unlock>, KeyError> {
    let unlock = |(slot, proof): &(NewSlot, Proof)| match proof {
        Proof::File(path) => Ok(KeyFile::load_durable(path, Some(vault))?.unlock()),
        Proof::Held => Ok(slot.unlock.clone()),
    };
    slots.iter().map(unlock).collect()
}

/// Stores the revision and opens it with every unlock.
async fn store_proven(backend: &dyn Backend, draft: &Draft, unlocks: &[Unlock]) -> Result<Opened> {
    let mut first = None;
    for unlock in unlocks {
        let opened = store_revision(backend, draft, unlock).await?;
        first.get_or_insert(opened);
    }
    first.ok_or_else(|| {
        KeyError::Slot {
            why: String::from("a vault needs a key slot"),
        }
        .into()
    })
}

async fn put_header(
    backend: &dyn Backend,
    url: &str,
    bytes: Bytes,
    abilities: Abilities,
    settle: Duration,
) -> Result<()> {
    if !abilities.create_only {
        refuse_existing(backend, url).await?;
    }
    match backend.create(names::HEADER, std::slice::from_ref(&bytes)).await {
        Ok(()) => {}
        // Perhaps our own, from a put that was repeated below us.
        Err(BackendError::Exists { .. }) => {}
        Err(error) => return Err(error).doing(|| format!("write the header of the vault at {url}")),
    }
    if !settle.is_zero() {
        tokio::time::sleep(settle).await;
    }
    let there = backend
        .read(names::HEADER, HEADER_MAX)
        .await
        .doing(|| String::from("read back the vault's header"))?;
    if there == bytes {
        Ok(())
    } else {
        Err(exists(backend, url).await.into())
    }
}

/// The settling time of [`NewVault`] outside tests.
pub const SETTLE: Duration = SETTLING;

#[cfg(test)]
#[path = "create_tests.rs"]
mod tests;
