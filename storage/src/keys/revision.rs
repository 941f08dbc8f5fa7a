//! A key revision: the set of slots of a vault at one time, as one object of `keys/`.
//!
//! Invariants:
//! 1. The body is under two MACs: one under a key from `K_id`, which every holder has, and one under a key from `K_cut`, which only holders of
//!    all keys have. So who may only sweep or read cannot write a revision that a writer would follow.
//! 2. Of several valid revisions the highest number counts; of one number the highest claim, then the lowest writer. That is the order in which
//!    claims rank, and a new generation is used only after its writer has listed the claims again and was not outranked:
//!    so a generation in use is never the one that loses.
//! 3. Opening unites the generations of all valid revisions: no key that a pack may name is lost by a race. A revision says which older ones
//!    it contains; only those may be deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::keyring::{Generation, Key, Keyring};
use super::slot::{SealedSlot, SlotInfo};
use crate::error::FormatError;
use crate::ids::{ClusterId, PartId, SessionId, VaultId, Writer};
use crate::limits::{KEY_GENERATIONS_MAX, KEY_REVISION_MAX, KEY_REVISIONS_MAX, KEY_SLOTS_MAX, SHORT_TEXT_MAX};
use crate::stored;

/// The version of the format that is written and read.
const FORMAT_VERSION: u32 = 1;
/// Highest number of a generation: far above how many there can be, far below where adding overflows.
const GENERATION_MAX: u32 = 1 << 20;
const WHAT: &str = "key revision";

/// A BLAKE3 hash of a whole stored object.
pub type ObjectHash = [u8; 32];

/// One revision, checked for shape; whether it counts is known only to who opened a slot of it or of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    pub(super) vault: VaultId,
    pub(super) number: u32,
    pub(super) writer: Writer,
    pub(super) claim: u64,
    pub(super) header_hash: ObjectHash,
    pub(super) generations: Vec<Generation>,
    pub(super) slots: Vec<SealedSlot>,
    pub(super) contains: BTreeSet<ObjectHash>,
    pub(super) created_at: String,
}

/// A decoded object, with what is needed to check its MACs.
#[derive(Debug, Clone)]
pub(super) struct Decoded {
    pub(super) revision: Revision,
    pub(super) hash: ObjectHash,
    body: Bytes,
    mac: [u8; 32],
    full_mac: [u8; 32],
}

impl Revision {
    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Who wrote it.
    pub fn writer(&self) -> Writer {
        self.writer
    }

    /// The BLAKE3 of the vault's header.
    pub fn header_hash(&self) -> &ObjectHash {
        &self.header_hash
    }

    /// When it was written, RFC 3339, as its writer's clock had it.
    pub fn created_at(&self) -> &str {
        &self.created_at
    }

    /// Its slots, in the order in which they were added.
    pub fn slots(&self) -> impl Iterator<Item = SlotInfo> {
        self.slots.iter().map(|s| s.slot.info())
    }

    /// The name of its object.
    pub fn object_name(&self) -> String {
        crate::vault::names::key_revision(self.number, self.writer)
    }

    /// Older revisions all of whose keys are in this one, by the BLAKE3 of their objects.
    pub fn contains(&self) -> &BTreeSet<ObjectHash> {
        &self.contains
    }

    /// Greater for the one that counts (invariant 2).
    pub(super) fn rank(&self) -> (u32, u64, std::cmp::Reverse<Writer>) {
        (self.number, self.claim, std::cmp::Reverse(self.writer))
    }

    /// The object's bytes. `ring` is whole and what the slots were sealed from.
    ///
    /// # Panics
    /// When `ring` has no `K_cut`: whoever sealed the slots has it.
    pub(super) fn encode(&self, ring: &Keyring) -> Bytes {
        let body: Bytes = stored::KeyRevisionBody {
            format_version: FORMAT_VERSION,
            vault_id: self.vault.0.to_vec().into(),
            revision: self.number,
            writer: Some(stored::WriterId {
                cluster: self.writer.cluster.0,
                session: self.writer.session.0,
                part: self.writer.part.0,
            }),
            claim: self.claim,
            header_hash: self.header_hash.to_vec().into(),
            generations: self.generations.iter().map(|g| g.0).collect(),
            slots: self.slots.iter().map(SealedSlot::to_stored).collect(),
            contains: self.contains.iter().map(|hash| hash.to_vec().into()).collect(),
            created_at: self.created_at.clone(),
        }
        .encode_to_vec()
        .into();
        let cut = ring.cut.as_ref().expect("who seals slots has all keys");
        let mac = mac(&ring.id, "tresor v1 key revision", self.vault, &body);
        let full_mac = mac_full(cut, self.vault, &body);
        let checksum = checksum(&body, mac.as_bytes(), full_mac.as_bytes());
        stored::KeyRevision {
            body,
            mac: mac.as_bytes().to_vec().into(),
            full_mac: full_mac.as_bytes().to_vec().into(),
            checksum: checksum.to_vec().into(),
        }
        .encode_to_vec()
        .into()
    }
}

impl Decoded {
    /// Reads an object's bytes and checks what needs no key.
    ///
    /// # Errors
    /// [`FormatError::Checksum`] and others for damage, [`FormatError::Mismatch`] for a revision of another vault or under another's name.
    pub(super) fn read(vault: VaultId, name: &str, bytes: &Bytes) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what: WHAT, why };
        if bytes.len() > KEY_REVISION_MAX {
            return Err(FormatError::TooLarge {
                what: "key revision (bytes)",
                value: bytes.len() as u64,
                max: KEY_REVISION_MAX as u64,
            });
        }
        let outer = stored::KeyRevision::decode(bytes.clone()).map_err(|_| malformed("it cannot be decoded"))?;
        let bytes32 = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).map_err(|_| malformed("a hash is not 32 bytes"));
        let (mac, full_mac) = (bytes32(&outer.mac)?, bytes32(&outer.full_mac)?);
        if checksum(&outer.body, &mac, &full_mac) != bytes32(&outer.checksum)? {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let revision = Revision::read(vault, &outer.body)?;
        if revision.object_name() != name {
            return Err(FormatError::Mismatch {
                what: "name of the key revision",
                expected: revision.object_name(),
                found: name.chars().take(120).collect(),
            });
        }
        Ok(Self {
            revision,
            hash: *blake3::hash(bytes).as_bytes(),
            body: outer.body,
            mac,
            full_mac,
        })
    }

    /// Whether the holders of these keys wrote it.
    ///
    /// # Errors
    /// [`FormatError::Authentication`] when a MAC that `ring` can check is wrong.
    pub(super) fn check(&self, ring: &Keyring) -> Result<(), FormatError> {
        let vault = self.revision.vault;
        // Compared as hashes, in a time that does not tell how far they agree.
        let right = mac(&ring.id, "tresor v1 key revision", vault, &self.body) == blake3::Hash::from(self.mac);
        let full = ring
            .cut
            .as_ref()
            .is_none_or(|cut| mac_full(cut, vault, &self.body) == blake3::Hash::from(self.full_mac));
        if right && full {
            Ok(())
        } else {
            Err(FormatError::Authentication { what: WHAT })
        }
    }
}

impl Revision {
    fn read(vault: VaultId, body: &Bytes) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what: WHAT, why };
        // A message of millions of empty slots would take a hundred times its bytes in memory.
        let fields_max = 16 + KEY_GENERATIONS_MAX + KEY_SLOTS_MAX + KEY_REVISIONS_MAX;
        if !has_fields_at_most(body, fields_max) {
            return Err(malformed("it cannot be decoded"));
        }
        let body = stored::KeyRevisionBody::decode(body.clone()).map_err(|_| malformed("it cannot be decoded"))?;
        if body.format_version != FORMAT_VERSION {
            return Err(FormatError::Unsupported {
                what: "format version of the key revision",
                value: body.format_version.into(),
            });
        }
        let found = VaultId::from_slice(&body.vault_id).map_err(|_| malformed("vault id is not 16 bytes"))?;
        if found != vault {
            return Err(FormatError::Mismatch {
                what: "vault of the key revision",
                expected: vault.to_string(),
                found: found.to_string(),
            });
        }
        let bounded = |what, value: usize, max: usize| {
            if value > max {
                return Err(FormatError::TooLarge {
                    what,
                    value: value as u64,
                    max: max as u64,
                });
            }
            Ok(())
        };
        bounded("number of key slots", body.slots.len(), KEY_SLOTS_MAX)?;
        bounded("number of key generations", body.generations.len(), KEY_GENERATIONS_MAX)?;
        bounded(
            "number of contained key revisions",
            body.contains.len(),
            KEY_REVISIONS_MAX,
        )?;
        bounded(
            "time of the key revision (bytes)",
            body.created_at.len(),
            SHORT_TEXT_MAX,
        )?;
        if body.revision == 0 {
            return Err(malformed("revisions are numbered from 1"));
        }
        let generations: Vec<Generation> = body.generations.iter().copied().map(Generation).collect();
        let counted = generations.iter().all(|g| (1..=GENERATION_MAX).contains(&g.0));
        if generations.is_empty() || !counted || !generations.is_sorted_by(|a, b| a < b) {
            return Err(malformed("its generations are not ascending from 1"));
        }
        let slots = body
            .slots
            .iter()
            .map(|slot| SealedSlot::from_stored(slot, &generations))
            .collect::<Result<Vec<_>, _>>()?;
        let names: BTreeSet<&str> = slots.iter().map(|s| s.slot.name.as_str()).collect();
        if slots.is_empty() || names.len() != slots.len() {
            return Err(malformed("slots are missing or share a name"));
        }
        let writer = body.writer.ok_or(malformed("it names no writer"))?;
        let hash =
            |bytes: &Bytes| ObjectHash::try_from(bytes.as_ref()).map_err(|_| malformed("a hash is not 32 bytes"));
        Ok(Self {
            vault,
            number: body.revision,
            writer: Writer {
                cluster: ClusterId(writer.cluster),
                session: SessionId(writer.session),
                part: PartId(writer.part),
            },
            claim: body.claim,
            header_hash: hash(&body.header_hash)?,
            generations,
            slots,
            contains: body.contains.iter().map(hash).collect::<Result<_, _>>()?,
            created_at: body.created_at,
        })
    }
}

fn mac(key: &Key, label: &'static str, vault: VaultId, body: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(key.derive(label, &vault.0).expose(), body)
}

fn mac_full(cut: &Key, vault: VaultId, body: &[u8]) -> blake3::Hash {
    mac(cut, "tresor v1 key revision of a full holder", vault, body)
}

fn checksum(body: &[u8], mac: &[u8; 32], full_mac: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new()
        .update(body)
        .update(mac)
        .update(full_mac)
        .finalize()
        .as_bytes()
}

/// Whether bytes are protocol buffer fields of the outermost level, and not more than `max`.
fn has_fields_at_most(mut bytes: &[u8], max: usize) -> bool {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    for _ in 0..=max {
        if bytes.is_empty() {
            return true;
        }
        let Ok((tag, wire)) = decode_key(&mut bytes) else {
            return false;
        };
        if skip_field(wire, tag, &mut bytes, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}
