//! Catalogues: what is known of a vault and does not stand in its manifests, sealed. The newest few are kept.
//!
//! A catalogue is whole, never a difference: reading the newest is enough.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::error::{FormatError, Result};
use crate::ids::{ClusterId, ItemId, PartId, PointId, SessionId, VaultId, Writer};
use crate::keys::Keyring;
use crate::limits::{FRAME_PLAIN_MAX, SMALL_OBJECT_MAX};
use crate::seal::{ObjectKind, open_object, seal_object};
use crate::stored;
use crate::vault::names;

const VERSION: u32 = 1;
/// How many catalogues stay: the newest may be damaged, and the one before it may be what a reader holds.
pub const CATALOGS_KEPT: usize = 3;
/// Hidden points of one catalogue: at some 80 bytes each it stays well under [`SMALL_OBJECT_MAX`].
pub const HIDDEN_MAX: usize = 150_000;
/// Longest time of a removal, bytes.
const TIME_MAX: usize = 64;
/// Bytes of a catalogue before it is sealed, hidden points and a cluster's state together: with header and tag it is a small object still.
pub const CATALOG_PLAIN_MAX: usize = SMALL_OBJECT_MAX - (64 << 10);

const _: () = assert!(HIDDEN_MAX * (2 * 18 + TIME_MAX + 8) < CATALOG_PLAIN_MAX);
const _: () = assert!(CATALOG_PLAIN_MAX <= FRAME_PLAIN_MAX);

/// A catalogue's name: who wrote it, and its number among those.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CatalogId {
    /// The cluster or home.
    pub cluster: ClusterId,
    /// A number that this cluster used up for it: a log index, or a home's session.
    pub index: u64,
}

impl CatalogId {
    /// The object's name.
    pub fn object_name(self) -> String {
        names::catalog(self.cluster, self.index)
    }
}

/// A point that was removed and not swept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// Its item.
    pub item: ItemId,
    /// When it was removed, RFC 3339.
    pub removed_at: String,
}

/// What is known of a vault and does not stand in its manifests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Removed points.
    pub hidden: BTreeMap<PointId, Hidden>,
    /// When this was written, RFC 3339; for people.
    pub written_at: String,
    /// What a cluster knows of the vault, as its coordinator encodes it: for a coordinator that lost its log, and nobody else reads it. Empty in a
    /// catalogue of a home. Only the catalogue that a coordinator gave it for has it: copied under another name it would be older than it says.
    pub cluster_state: Bytes,
}

/// Sorts catalogues, the one that counts first. `claims` are the numbers of the claims on the vault.
///
/// A later claim outranks an earlier one, of two with one number the lower cluster id does (as claims do), and within a cluster the higher index.
/// So a catalogue that a fenced writer still put while its fence went up never hides what the taker decided, and who takes over goes on
/// from the last catalogue of the former holder. A cluster without a claim counts last: no honest history has one.
pub fn newest_first(mut catalogs: Vec<CatalogId>, claims: &[(u64, ClusterId)]) -> Vec<CatalogId> {
    let claim = |cluster| {
        claims
            .iter()
            .filter(|(_, of)| *of == cluster)
            .map(|(number, _)| *number)
            .max()
    };
    catalogs.sort_by_cached_key(|c| Reverse((claim(c.cluster), Reverse(c.cluster), c.index)));
    catalogs
}

impl Catalog {
    /// Seals it for the store, under the name of `id`.
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] with more than [`HIDDEN_MAX`] points or [`CATALOG_PLAIN_MAX`] bytes, or when the key ring may not.
    pub fn seal(&self, keyring: &Keyring, vault: VaultId, id: CatalogId) -> Result<Bytes> {
        check_count(self.hidden.len())?;
        let hidden = self.hidden.iter().map(|(point, hidden)| stored::HiddenPoint {
            item_id: hidden.item.0.to_vec().into(),
            point_id: point.0.to_vec().into(),
            removed_at: hidden
                .removed_at
                .chars()
                .filter(char::is_ascii)
                .take(TIME_MAX)
                .collect(),
        });
        let message = stored::Catalog {
            format_version: VERSION,
            vault_id: vault.0.to_vec().into(),
            cluster: id.cluster.0,
            index: id.index,
            hidden: hidden.collect(),
            written_at: self.written_at.clone(),
            cluster_state: self.cluster_state.clone(),
        };
        let plain = message.encode_to_vec();
        if plain.len() > CATALOG_PLAIN_MAX {
            return Err(FormatError::TooLarge {
                what: "catalogue (bytes)",
                value: plain.len() as u64,
                max: CATALOG_PLAIN_MAX as u64,
            }
            .into());
        }
        let writer = Writer {
            cluster: id.cluster,
            session: SessionId(id.index),
            part: PartId::random(),
        };
        seal_object(
            keyring,
            ObjectKind::Catalog,
            vault,
            writer,
            0,
            &id.object_name(),
            &plain,
        )
    }

    /// Opens the object of `id`.
    ///
    /// # Errors
    /// When it is not a catalogue of this vault under that name, or damaged, or of a newer version.
    pub fn open(keyring: &Keyring, vault: VaultId, id: CatalogId, bytes: &[u8]) -> Result<Self> {
        let malformed = |why| FormatError::Malformed { what: "catalogue", why };
        let (header, plain) = open_object(keyring, ObjectKind::Catalog, vault, &id.object_name(), bytes)?;
        let message =
            stored::Catalog::decode(plain.as_slice()).map_err(|_| malformed("is not the message it must be"))?;
        if message.format_version != VERSION {
            return Err(FormatError::Unsupported {
                what: "catalogue version",
                value: message.format_version.into(),
            }
            .into());
        }
        let said = CatalogId {
            cluster: ClusterId(message.cluster),
            index: message.index,
        };
        if said != id || message.vault_id != vault.0.as_slice() || header.writer.cluster != id.cluster {
            return Err(malformed("belongs elsewhere than its name says").into());
        }
        check_count(message.hidden.len())?;
        let mut hidden = BTreeMap::new();
        for stored::HiddenPoint {
            item_id,
            point_id,
            removed_at,
        } in message.hidden
        {
            let item = ItemId::from_slice(&item_id).map_err(|_| malformed("an item id is not 16 bytes long"))?;
            let point = PointId::from_slice(&point_id).map_err(|_| malformed("a point id is not 16 bytes long"))?;
            let removed_at = removed_at.chars().filter(|c| !c.is_control()).take(TIME_MAX).collect();
            hidden.insert(point, Hidden { item, removed_at });
        }
        Ok(Self {
            hidden,
            written_at: message.written_at,
            cluster_state: message.cluster_state,
        })
    }
}

fn check_count(count: usize) -> Result<(), FormatError> {
    if count > HIDDEN_MAX {
        return Err(FormatError::TooLarge {
            what: "removed points in a catalogue",
            value: count as u64,
            max: HIDDEN_MAX as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::Kind;

    const VAULT: VaultId = VaultId([3; 16]);

    fn id(cluster: u64, index: u64) -> CatalogId {
        CatalogId {
            cluster: ClusterId(cluster),
            index,
        }
    }

    fn catalog() -> Catalog {
        let hidden = Hidden {
            item: ItemId([1; 16]),
            removed_at: "2026-11-22T03:00:00Z".into(),
        };
        Catalog {
            hidden: BTreeMap::from([(PointId([2; 16]), hidden)]),
            written_at: "2026-11-22T03:00:00Z".into(),
            cluster_state: Bytes::new(),
        }
    }

    #[test]
    fn a_catalogue_comes_back_as_it_was() {
        let keyring = Keyring::generate();
        let sealed = catalog().seal(&keyring, VAULT, id(7, 9)).unwrap();
        assert_eq!(Catalog::open(&keyring, VAULT, id(7, 9), &sealed).unwrap(), catalog());
    }

    #[test]
    fn what_a_cluster_knows_comes_back_and_hides_nothing_from_who_does_not_know_it() {
        let keyring = Keyring::generate();
        let of_cluster = Catalog {
            cluster_state: Bytes::from_static(b"\x01rows"),
            ..catalog()
        };
        let sealed = of_cluster.seal(&keyring, VAULT, id(7, 9)).unwrap();
        let opened = Catalog::open(&keyring, VAULT, id(7, 9), &sealed).unwrap();
        assert_eq!(opened, of_cluster);
        assert_eq!(opened.hidden, catalog().hidden);
        let too_much = Catalog {
            cluster_state: Bytes::from(vec![0; CATALOG_PLAIN_MAX]),
            ..catalog()
        };
        assert!(too_much.seal(&keyring, VAULT, id(7, 9)).is_err());
        let most = Catalog {
            cluster_state: Bytes::from(vec![0; CATALOG_PLAIN_MAX - 4096]),
            ..catalog()
        };
        let sealed = most.seal(&keyring, VAULT, id(7, 9)).unwrap();
        assert_eq!(Catalog::open(&keyring, VAULT, id(7, 9), &sealed).unwrap(), most);
    }

    #[test]
    fn a_catalogue_under_another_name_or_of_another_vault_or_damaged_is_refused() {
        let keyring = Keyring::generate();
        let sealed = catalog().seal(&keyring, VAULT, id(7, 9)).unwrap();
        assert_eq!(
            Catalog::open(&keyring, VAULT, id(7, 10), &sealed).unwrap_err().kind(),
            Kind::Corrupt
        );
        assert_eq!(
            Catalog::open(&keyring, VAULT, id(8, 9), &sealed).unwrap_err().kind(),
            Kind::Corrupt
        );
        assert_eq!(
            Catalog::open(&keyring, VaultId([4; 16]), id(7, 9), &sealed)
                .unwrap_err()
                .kind(),
            Kind::Corrupt
        );
        for end in [0, 1, 95, 96, sealed.len() - 1] {
            assert_eq!(
                Catalog::open(&keyring, VAULT, id(7, 9), &sealed[..end])
                    .unwrap_err()
                    .kind(),
                Kind::Corrupt,
                "cut at {end}"
            );
        }
        let mut flipped = sealed.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        assert_eq!(
            Catalog::open(&keyring, VAULT, id(7, 9), &flipped).unwrap_err().kind(),
            Kind::Corrupt
        );
    }

    #[test]
    fn more_points_than_a_catalogue_holds_are_refused_before_they_are_sealed() {
        let keyring = Keyring::generate();
        let hidden = Hidden {
            item: ItemId([1; 16]),
            removed_at: String::new(),
        };
        let many = (0..=HIDDEN_MAX as u128).map(|n| (PointId(n.to_be_bytes()), hidden.clone()));
        let full = Catalog {
            hidden: many.collect(),
            ..Catalog::default()
        };
        assert_eq!(full.seal(&keyring, VAULT, id(7, 9)).unwrap_err().kind(), Kind::Corrupt);
    }

    #[test]
    fn the_highest_claim_counts_first_whatever_the_indexes() {
        let claims = [(1, ClusterId(5)), (2, ClusterId(9)), (2, ClusterId(7))];
        let found = vec![id(5, 1000), id(9, 3), id(8, 5000), id(7, 1), id(7, 2), id(5, 2)];
        assert_eq!(
            newest_first(found, &claims),
            [id(7, 2), id(7, 1), id(9, 3), id(5, 1000), id(5, 2), id(8, 5000)]
        );
    }
}
