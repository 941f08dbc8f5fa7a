//! Finding the catalogue that counts, for readers and for the writer.

use std::collections::BTreeSet;

use futures::TryStreamExt as _;
use tresor_storage::backend::BackendError;
use tresor_storage::catalog::{CATALOGS_KEPT, Catalog, CatalogId, StatePart, newest_first, open_part};
use tresor_storage::ids::ClusterId;
use tresor_storage::limits::SMALL_OBJECT_MAX;
use tresor_storage::vault::claim::list_claims;
use tresor_storage::vault::{Vault, VaultError, names};
use tresor_storage::{Doing as _, Error, FormatError, Kind, Result};

/// Names of `catalog/` that are listed at all: three catalogues are kept for each cluster at most, each with 64 parts at most.
const NAMES_MAX: usize = 16_384;
/// How often a listing is repeated when a listed catalogue is gone at reading: a newer one is there then.
const LISTINGS_MAX: u32 = 3;

/// The catalogue that counts, and what else is there.
#[derive(Debug, Default)]
pub struct Found {
    /// Its name; none when no catalogue was ever written, or none can be read.
    pub id: Option<CatalogId>,
    /// What it says.
    pub catalog: Catalog,
    /// All that are listed, newest first, readable or not.
    pub listed: Vec<CatalogId>,
    /// Newer ones that cannot be read: what they said is not known.
    pub damaged: Vec<(String, Error)>,
}

/// Reads the newest catalogue; when that is damaged, the next. An older catalogue can only show a point that was removed since, or hide one
/// that was taken back since: both are there either way.
///
/// # Errors
/// Those of the store; [`Kind::Unsupported`] for a catalogue of a newer program.
pub async fn read_newest(vault: &Vault) -> Result<Found> {
    let mut listings = 0;
    'list: loop {
        listings += 1;
        let mut found = Found {
            listed: list(vault).await?,
            ..Found::default()
        };
        for &id in &found.listed {
            let name = id.object_name();
            let read = match vault.backend.read(&name, SMALL_OBJECT_MAX).await {
                Ok(bytes) => Catalog::open(&vault.keyring, vault.id, id, &bytes).doing(|| format!("read {name}")),
                Err(BackendError::NotFound { .. }) if listings < LISTINGS_MAX => continue 'list,
                Err(error) => Err(error).doing(|| format!("read {name}")),
            };
            match read {
                Ok(catalog) => {
                    found.id = Some(id);
                    found.catalog = catalog;
                    break;
                }
                Err(error) if is_damage(&error) => {
                    tracing::warn!(
                        object = name,
                        error = error.chain(),
                        "catalogue cannot be read, the one before it is used"
                    );
                    found.damaged.push((name, error));
                }
                Err(error) => return Err(error),
            }
        }
        return Ok(found);
    }
}

/// What a coordinator said in a catalogue: all of its parts.
///
/// # Errors
/// Those of the store; [`Kind::Corrupt`] when one is missing or is not the one that the catalogue names.
pub async fn read_state(vault: &Vault, id: CatalogId, catalog: &Catalog) -> Result<Vec<u8>> {
    let mut state = catalog.cluster_state.to_vec();
    for (number, part) in (0..).zip(&catalog.parts) {
        let name = id.part_name(number);
        let read = async {
            let bytes = vault.backend.read(&name, SMALL_OBJECT_MAX).await?;
            let read = open_part(&vault.keyring, vault.id, id, number, &bytes)?;
            if StatePart::of(&read) != *part {
                return Err(Error::from(FormatError::Malformed {
                    what: "part of a catalogue",
                    why: "is not the one that the catalogue names",
                }));
            }
            Ok(read)
        };
        state.extend_from_slice(&read.await.doing(|| format!("read {name}"))?);
    }
    Ok(state)
}

/// What coordinators said of the vault, in the newest catalogue that has such words and can be read; a home that held the vault since has none to add.
/// With its name, and its state.
///
/// # Errors
/// Those of the store; [`Kind::Unsupported`] for a catalogue of a newer program.
pub async fn read_newest_of_coordinators(vault: &Vault) -> Result<Option<(CatalogId, Vec<u8>)>> {
    for id in list(vault).await? {
        let name = id.object_name();
        let read = match vault.backend.read(&name, SMALL_OBJECT_MAX).await {
            Ok(bytes) => Catalog::open(&vault.keyring, vault.id, id, &bytes).doing(|| format!("read {name}")),
            Err(error) => Err(error).doing(|| format!("read {name}")),
        };
        let read = match read {
            Ok(catalog) if catalog.is_of_cluster() => read_state(vault, id, &catalog).await,
            Ok(_) => continue,
            Err(error) => Err(error),
        };
        match read {
            Ok(state) => return Ok(Some((id, state))),
            Err(error) if is_damage(&error) => tracing::warn!(
                object = name,
                error = error.chain(),
                "catalogue cannot be read, the one before it is used"
            ),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Which of the catalogues that were there before (newest first) are not needed beside `ours`: the newest three stay, ours among them, and the newest of
/// every cluster before ours, which says what nobody else knows (its policies, its holds). All of them rank below the new one, but for what a late writer
/// does not know of: later ones of its own cluster.
pub(crate) fn superseded(before: &[CatalogId], ours: CatalogId) -> impl Iterator<Item = CatalogId> {
    let mut clusters = BTreeSet::from([ours.cluster]);
    let older = before
        .iter()
        .filter(move |id| id.cluster != ours.cluster || id.index < ours.index);
    older
        .enumerate()
        .filter(move |(place, id)| !clusters.insert(id.cluster) && *place >= CATALOGS_KEPT - 1)
        .map(|(_, id)| *id)
}

/// Whether an error tells of one object, and not of the store, the keys or the program.
pub(crate) fn is_damage(error: &Error) -> bool {
    match error {
        Error::While { source, .. } => is_damage(source),
        Error::Format(error) => error.kind() != Kind::Unsupported,
        Error::Backend(error) => matches!(error.kind(), Kind::Corrupt | Kind::Missing),
        // A generation of keys that no revision has: as likely a damaged header.
        Error::Key(_) => true,
        Error::Index(_) | Error::Vault(_) => false,
    }
}

/// All that are listed, newest first.
///
/// # Errors
/// Those of the store; [`VaultError::TooMany`].
pub(crate) async fn list(vault: &Vault) -> Result<Vec<CatalogId>> {
    Ok(list_with_parts(vault).await?.0)
}

/// Which parts are not needed when these catalogues are all that stay: of catalogues that go, and of attempts that broke off before they put theirs. Ours of
/// later numbers are what a later attempt puts just now.
pub(crate) fn unneeded(
    parts: &[(CatalogId, u16)],
    stay: &BTreeSet<(ClusterId, u64)>,
    ours: CatalogId,
) -> Vec<(CatalogId, u16)> {
    let is_unneeded = |(id, _): &&(CatalogId, u16)| {
        let is_later = id.cluster == ours.cluster && id.index >= ours.index;
        !is_later && !stay.contains(&(id.cluster, id.index))
    };
    parts.iter().filter(is_unneeded).copied().collect()
}

/// As [`list`], and all parts that are listed.
///
/// # Errors
/// As [`list`].
pub(crate) async fn list_with_parts(vault: &Vault) -> Result<(Vec<CatalogId>, Vec<(CatalogId, u16)>)> {
    let mut catalogs = Vec::new();
    let mut parts = Vec::new();
    let mut listing = vault.backend.list(names::CATALOG);
    while let Some(object) = listing.try_next().await.doing(|| String::from("list the catalogues"))? {
        if catalogs.len() + parts.len() >= NAMES_MAX {
            return Err(VaultError::TooMany {
                folder: names::CATALOG,
                max: NAMES_MAX,
            }
            .into());
        }
        let parsed = names::parse_catalog(&object.name);
        catalogs.extend(parsed.map(|(cluster, index)| CatalogId { cluster, index }));
        let parsed = names::parse_catalog_part(&object.name);
        parts.extend(parsed.map(|(cluster, index, number)| (CatalogId { cluster, index }, number)));
    }
    if catalogs.len() < 2 {
        return Ok((catalogs, parts));
    }
    // Claims are listed after the catalogues, so the claim of every writer listed is there.
    let claims: Vec<_> = list_claims(vault.backend.as_ref())
        .await?
        .listed
        .iter()
        .map(|c| (c.number, c.cluster))
        .collect();
    Ok((newest_first(catalogs, &claims), parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(cluster: u64, index: u64) -> CatalogId {
        CatalogId {
            cluster: ClusterId(cluster),
            index,
        }
    }

    #[test]
    fn parts_stay_with_their_catalogues_and_those_of_a_later_attempt_are_left() {
        let ours = id(7, 50);
        let stay = BTreeSet::from([(ClusterId(7), 50), (ClusterId(7), 40), (ClusterId(3), 90)]);
        let parts = [
            (id(7, 50), 0),
            (id(7, 40), 0),
            (id(3, 90), 1),
            // Of one that went, of an attempt that broke off, of a cluster that was fenced, and of a later attempt.
            (id(7, 30), 0),
            (id(7, 45), 0),
            (id(3, 91), 0),
            (id(7, 51), 0),
        ];
        assert_eq!(
            unneeded(&parts, &stay, ours),
            [(id(7, 30), 0), (id(7, 45), 0), (id(3, 91), 0)]
        );
    }

    #[test]
    fn the_newest_three_stay_and_a_later_one_is_never_deleted() {
        let superseded = |before: &[CatalogId]| superseded(before, id(7, 50)).collect::<Vec<_>>();
        assert_eq!(superseded(&[]), []);
        assert_eq!(superseded(&[id(7, 40), id(3, 9)]), []);
        assert_eq!(
            superseded(&[id(7, 40), id(7, 30), id(7, 20), id(3, 9), id(3, 8)]),
            [id(7, 20), id(3, 8)],
            "the newest of another cluster stays: nobody else knows what it says"
        );
        // Repeated, or late: what has its own number or a later one stays.
        assert_eq!(superseded(&[id(7, 60), id(7, 50), id(7, 40), id(7, 30)]), []);
    }
}
