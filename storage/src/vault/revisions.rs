//! Key revisions in a store: reading all, opening, changing.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::claim::{ListedClaim, check_standing, put_whole};
use super::{VaultError, names};
use crate::backend::{Backend, BackendError};
use crate::error::{Doing, FormatError, Result};
use crate::ids::VaultId;
use crate::keys::{
    Change, Draft, Ignored, KeyError, ObjectHash, Opened, RevisionObject, Stamp, Unlock, open_revisions,
};
use crate::limits::{KEY_REVISION_MAX, KEY_REVISIONS_MAX};

/// Names of `keys/` that are listed at all.
const NAMES_MAX: usize = 4096;
/// How often a listing is repeated when a listed revision is gone at reading.
const LISTINGS_MAX: u32 = 3;

/// The objects of `keys/`, newest number first, and what there is that is none of them.
#[derive(Debug, Clone, Default)]
pub struct Revisions {
    /// What may be revisions.
    pub objects: Vec<RevisionObject>,
    /// What is not.
    pub ignored: Vec<Ignored>,
}

/// Reads the objects of `keys/`: normally one.
///
/// # Errors
/// Those of the store; [`VaultError::TooMany`].
pub async fn read_revisions(backend: &dyn Backend) -> Result<Revisions> {
    let mut listings = 0;
    'list: loop {
        listings += 1;
        let mut found = Revisions::default();
        let mut numbered = Vec::new();
        let mut listing = backend.list(names::KEYS);
        while let Some(object) = listing
            .try_next()
            .await
            .doing(|| String::from("list the key revisions"))?
        {
            if numbered.len() + found.ignored.len() >= NAMES_MAX {
                return Err(VaultError::TooMany {
                    folder: names::KEYS,
                    max: NAMES_MAX,
                }
                .into());
            }
            match names::parse_key_revision(&object.name) {
                Some((number, _)) => numbered.push((number, object.name)),
                None => found.ignored.push(Ignored {
                    name: object.name,
                    why: FormatError::Malformed {
                        what: "object in keys/",
                        why: "its name is not that of a revision",
                    },
                }),
            }
        }
        numbered.sort_by(|a, b| b.cmp(a));
        for (_, name) in numbered.split_off(numbered.len().min(KEY_REVISIONS_MAX)) {
            let why = FormatError::TooLarge {
                what: "number of objects in keys/",
                value: KEY_REVISIONS_MAX as u64 + 1,
                max: KEY_REVISIONS_MAX as u64,
            };
            found.ignored.push(Ignored { name, why });
        }
        for (_, name) in numbered {
            match backend.read(&name, KEY_REVISION_MAX).await {
                Ok(bytes) => found.objects.push(RevisionObject { name, bytes }),
                // Superseded and deleted since it was listed: what superseded it may not have been listed.
                Err(BackendError::NotFound { .. }) if listings < LISTINGS_MAX => continue 'list,
                Err(BackendError::TooLarge { length, max, .. }) => {
                    let why = FormatError::TooLarge {
                        what: "key revision (bytes)",
                        value: length,
                        max,
                    };
                    found.ignored.push(Ignored { name, why });
                }
                Err(error) => return Err(error).doing(|| format!("read {name}")),
            }
        }
        return Ok(found);
    }
}

/// Opens the keys of a vault. A passphrase is hashed on a thread for blocking work.
///
/// # Errors
/// Those of the store and of [`open_revisions`].
pub async fn open_keys(
    backend: &dyn Backend,
    vault: VaultId,
    header_hash: &ObjectHash,
    unlock: &Unlock,
) -> Result<Opened> {
    let revisions = read_revisions(backend).await?;
    let (unlock, header_hash) = (unlock.clone(), *header_hash);
    let Revisions { objects, mut ignored } = revisions;
    let opened = blocking(move || open_revisions(vault, Some(&header_hash), &objects, &unlock)).await;
    let mut opened = opened.doing(|| format!("open the keys of vault {vault}"))?;
    opened.ignored.append(&mut ignored);
    Ok(opened)
}

/// Changes who can open a vault: writes the next revision, proves it, then deletes those that it contains.
///
/// `unlock` opens the vault now, `proof` a slot of the new revision: the new secret when a slot is added or replaced, else `unlock` again.
///
/// # Errors
/// Those of the store, of [`Opened::change`], and [`VaultError::TakenOver`]: then the revision may be there, and no pack must use its keys.
pub async fn change_keys(
    backend: &dyn Backend,
    vault: VaultId,
    header_hash: &ObjectHash,
    ours: ListedClaim,
    stamp: &Stamp,
    (unlock, proof): (&Unlock, &Unlock),
    change: &Change,
) -> Result<Opened> {
    check_standing(backend, vault, ours).await?;
    let opened = open_keys(backend, vault, header_hash, unlock).await?;
    let (stamp, change) = (stamp.clone(), change.clone());
    let draft = blocking(move || opened.change(&stamp, &change))
        .await
        .doing(|| String::from("change the keys"))?;
    store_revision(backend, &draft, proof).await?;
    check_standing(backend, vault, ours).await?;
    // What counts is what all revisions say, ours among them.
    let opened = open_keys(backend, vault, header_hash, proof).await?;
    delete_superseded(backend, &opened).await?;
    Ok(opened)
}

/// Puts a revision, reads it back and unwraps it: only then may anything use its keys.
///
/// # Errors
/// Those of the store; [`KeyError`] when what reads back does not open.
pub async fn store_revision(backend: &dyn Backend, draft: &Draft, proof: &Unlock) -> Result<Opened> {
    let name = &draft.object.name;
    put_whole(backend, name, draft.object.bytes.clone(), KEY_REVISION_MAX).await?;
    let bytes: Bytes = backend
        .read(name, KEY_REVISION_MAX)
        .await
        .doing(|| format!("read back {name}"))?;
    let (draft, proof) = (draft.clone(), proof.clone());
    let checked = blocking(move || draft.check_read_back(&bytes, &proof)).await;
    checked.doing(|| format!("check {name} after it was written"))
}

/// Deletes the revisions that the one that counts contains; their names. The former secrets open nothing any more then.
///
/// # Errors
/// Those of the store; what is left is deleted the next time.
pub async fn delete_superseded(backend: &dyn Backend, opened: &Opened) -> Result<Vec<String>> {
    let revisions = read_revisions(backend).await?;
    let names = opened.superseded(&revisions.objects);
    for name in &names {
        backend.delete(name).await.doing(|| format!("delete {name}"))?;
    }
    Ok(names)
}

/// Deletes the revisions of makings under the vault's id that lost ([`Opened::strays`]). They count nowhere, so what is left stays without harm.
pub async fn delete_strays(backend: &dyn Backend, opened: &Opened) {
    for name in &opened.strays {
        if let Err(error) = backend.delete(name).await {
            tracing::warn!(object = name, %error, "could not delete the key revision of a making that lost");
        }
    }
}

/// Runs what may hash a passphrase where it holds up nobody.
pub(super) async fn blocking<T: Send + 'static>(
    act: impl FnOnce() -> Result<T, KeyError> + Send + 'static,
) -> Result<T, KeyError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(result) => result,
        Err(stopped) if stopped.is_panic() => std::panic::resume_unwind(stopped.into_panic()),
        Err(_) => Err(KeyError::Slot {
            why: String::from("the program is stopping"),
        }),
    }
}
