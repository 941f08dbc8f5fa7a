//! Catalogues: what is known of a vault and does not stand in its manifests, sealed. The newest few are kept.
//!
//! A catalogue is whole, never a difference: reading the newest is enough.
//!
//! What a cluster knows of a large vault does not fit into one object. Then its state is in parts beside the catalogue, each an object of its own, put
//! before the catalogue that names and hashes them: who finds the catalogue finds all of them, or sees which are missing. Hidden and held points are always in the
//! catalogue itself, so that readers without a cluster read one object.

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

/// Held points of one catalogue: with the longest reasons they take a third of it.
pub const HELD_MAX: usize = 20_000;
/// Longest reason of a hold, bytes.
pub const REASON_MAX: usize = 255;
/// Bytes of the state in one part.
pub const PART_STATE_MAX: usize = 15 << 20;
/// Parts of one catalogue: their names and hashes take some kilobytes.
pub const PARTS_MAX: usize = 64;
/// Bytes of a cluster's state: with some 110 bytes for a point, three million points and what else there is take a third of it.
pub const STATE_MAX: usize = PARTS_MAX * PART_STATE_MAX;

const _: () = assert!(PART_STATE_MAX + 4096 <= CATALOG_PLAIN_MAX);
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

    /// The name of a part of it.
    pub fn part_name(self, number: u16) -> String {
        names::catalog_part(self.cluster, self.index, number)
    }

    fn writer(self) -> Writer {
        Writer {
            cluster: self.cluster,
            session: SessionId(self.index),
            part: PartId::random(),
        }
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

/// A part of a cluster's state, as the catalogue names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatePart {
    /// Bytes of the state.
    pub length: u32,
    /// BLAKE3 of them.
    pub hash: [u8; 32],
}

impl StatePart {
    /// Of some bytes of a state.
    pub fn of(state: &[u8]) -> Self {
        Self {
            length: u32::try_from(state.len()).expect("a part has some megabytes"),
            hash: *blake3::hash(state).as_bytes(),
        }
    }
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
    /// Where it is, when it does not fit here.
    pub parts: Vec<StatePart>,
    /// Points that a person held, with the reasons: for who takes the vault over. A home passes on what a cluster said.
    pub held: BTreeMap<PointId, String>,
}

/// Seals a part of the state of a catalogue.
///
/// # Errors
/// [`FormatError::TooLarge`] with more than [`PART_STATE_MAX`] bytes, or when the key ring may not.
pub fn seal_part(keyring: &Keyring, vault: VaultId, id: CatalogId, number: u16, state: Bytes) -> Result<Bytes> {
    check_size("part of a catalogue (bytes)", state.len(), PART_STATE_MAX)?;
    let message = stored::CatalogPart {
        format_version: VERSION,
        vault_id: vault.0.to_vec().into(),
        cluster: id.cluster.0,
        index: id.index,
        number: number.into(),
        state,
    };
    let name = id.part_name(number);
    seal_object(
        keyring,
        ObjectKind::Catalog,
        vault,
        id.writer(),
        0,
        &name,
        &message.encode_to_vec(),
    )
}

/// Opens a part of the state of a catalogue. Whether it is the one that the catalogue means is for its reader to see ([`StatePart`]).
///
/// # Errors
/// When it is not that part, or damaged, or of a newer version.
pub fn open_part(keyring: &Keyring, vault: VaultId, id: CatalogId, number: u16, bytes: &[u8]) -> Result<Bytes> {
    let malformed = |why| FormatError::Malformed {
        what: "part of a catalogue",
        why,
    };
    let (header, plain) = open_object(keyring, ObjectKind::Catalog, vault, &id.part_name(number), bytes)?;
    let message =
        stored::CatalogPart::decode(plain.as_slice()).map_err(|_| malformed("is not the message it must be"))?;
    check_version(message.format_version)?;
    let is_it = message.cluster == id.cluster.0
        && message.index == id.index
        && message.number == u32::from(number)
        && message.vault_id == vault.0.as_slice()
        && header.writer.cluster == id.cluster;
    if !is_it {
        return Err(malformed("belongs elsewhere than its name says").into());
    }
    check_size("part of a catalogue (bytes)", message.state.len(), PART_STATE_MAX)?;
    Ok(message.state)
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
        check_size("held points in a catalogue", self.held.len(), HELD_MAX)?;
        check_size("parts of a catalogue", self.parts.len(), PARTS_MAX)?;
        let held = self.held.iter().map(|(point, reason)| stored::HeldPoint {
            point_id: point.0.to_vec().into(),
            reason: shortened(reason),
        });
        let parts = self.parts.iter().map(|part| stored::StatePart {
            length: part.length,
            hash: part.hash.to_vec().into(),
        });
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
            parts: parts.collect(),
            held: held.collect(),
        };
        let plain = message.encode_to_vec();
        check_size("catalogue (bytes)", plain.len(), CATALOG_PLAIN_MAX)?;
        seal_object(
            keyring,
            ObjectKind::Catalog,
            vault,
            id.writer(),
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
        check_version(message.format_version)?;
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
        check_size("held points in a catalogue", message.held.len(), HELD_MAX)?;
        let mut held = BTreeMap::new();
        for stored::HeldPoint { point_id, reason } in message.held {
            let point = PointId::from_slice(&point_id).map_err(|_| malformed("a point id is not 16 bytes long"))?;
            held.insert(point, shortened(&reason));
        }
        check_size("parts of a catalogue", message.parts.len(), PARTS_MAX)?;
        let mut parts = Vec::with_capacity(message.parts.len());
        for part in message.parts {
            let hash =
                <[u8; 32]>::try_from(part.hash.as_ref()).map_err(|_| malformed("a hash is not 32 bytes long"))?;
            check_size("part of a catalogue (bytes)", part.length as usize, PART_STATE_MAX)?;
            parts.push(StatePart {
                length: part.length,
                hash,
            });
        }
        if !parts.is_empty() && !message.cluster_state.is_empty() {
            return Err(malformed("has its state twice").into());
        }
        Ok(Self {
            hidden,
            written_at: message.written_at,
            cluster_state: message.cluster_state,
            parts,
            held,
        })
    }

    /// Whether a coordinator said something in it.
    pub fn is_of_cluster(&self) -> bool {
        !self.cluster_state.is_empty() || !self.parts.is_empty()
    }
}

/// The reason of a hold without what is no text, as much of it as a catalogue has room for.
pub fn shortened(reason: &str) -> String {
    let mut text: String = reason.chars().filter(|c| !c.is_control()).collect();
    let end = (0..=REASON_MAX.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

fn check_version(version: u32) -> Result<(), FormatError> {
    if version == VERSION {
        return Ok(());
    }
    Err(FormatError::Unsupported {
        what: "catalogue version",
        value: version.into(),
    })
}

fn check_size(what: &'static str, value: usize, max: usize) -> Result<(), FormatError> {
    if value > max {
        return Err(FormatError::TooLarge {
            what,
            value: value as u64,
            max: max as u64,
        });
    }
    Ok(())
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
            ..Catalog::default()
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
    fn parts_and_holds_come_back_and_a_part_is_only_itself() {
        let keyring = Keyring::generate();
        let state = Bytes::from(vec![7; 1000]);
        let sealed = seal_part(&keyring, VAULT, id(7, 9), 1, state.clone()).unwrap();
        let opened = open_part(&keyring, VAULT, id(7, 9), 1, &sealed).unwrap();
        assert_eq!(StatePart::of(&opened), StatePart::of(&state));
        for wrong in [
            open_part(&keyring, VAULT, id(7, 9), 0, &sealed),
            open_part(&keyring, VAULT, id(7, 10), 1, &sealed),
            open_part(&keyring, VaultId([4; 16]), id(7, 9), 1, &sealed),
            open_part(&keyring, VAULT, id(7, 9), 1, &sealed[..sealed.len() - 1]),
        ] {
            assert_eq!(wrong.unwrap_err().kind(), Kind::Corrupt);
        }
        assert!(Catalog::open(&keyring, VAULT, id(7, 9), &sealed).is_err());
        let too_much = Bytes::from(vec![0; PART_STATE_MAX + 1]);
        assert!(seal_part(&keyring, VAULT, id(7, 9), 0, too_much).is_err());

        let catalog = Catalog {
            parts: vec![StatePart::of(&state); PARTS_MAX],
            held: BTreeMap::from([(PointId([2; 16]), String::from("for the auditors"))]),
            ..catalog()
        };
        let sealed = catalog.seal(&keyring, VAULT, id(7, 9)).unwrap();
        assert_eq!(Catalog::open(&keyring, VAULT, id(7, 9), &sealed).unwrap(), catalog);
        assert!(catalog.is_of_cluster());
        let twice = Catalog {
            cluster_state: state,
            ..catalog.clone()
        };
        let sealed = twice.seal(&keyring, VAULT, id(7, 9)).unwrap();
        assert!(Catalog::open(&keyring, VAULT, id(7, 9), &sealed).is_err());
        let most = Catalog {
            held: (0..HELD_MAX as u64)
                .map(|number| {
                    (
                        PointId([number.to_le_bytes(), [0; 8]].concat().try_into().unwrap()),
                        "ä".repeat(300),
                    )
                })
                .collect(),
            ..catalog
        };
        let sealed = most.seal(&keyring, VAULT, id(7, 9)).unwrap();
        let read = Catalog::open(&keyring, VAULT, id(7, 9), &sealed).unwrap();
        assert!(read.held.values().all(|reason| *reason == "ä".repeat(REASON_MAX / 2)));
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
