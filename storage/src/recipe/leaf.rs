//! Leaves: what one segment consists of.
//!
//! ```text
//! 'L' u8 · entries u16 · lengths × u16 (bit 15: hole; grains below) · ids of the chunks, 32 B each · hints of the chunks
//! ```
//! The name covers everything before the hints.

use crate::chunk::IdKeys;
use crate::error::FormatError;
use crate::ids::{ChunkId, Location};
use crate::limits::{CHUNK_GRAINS_MAX, RECIPE_NODE_MAX, SEGMENT_GRAINS};

use super::hints::{self, Cursor};

const TAG: u8 = b'L';
const HOLE: u16 = 1 << 15;

/// A run of grains of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Reads as zeros.
    Hole {
        /// Length in grains.
        grains: u16,
    },
    /// A chunk.
    Chunk {
        /// Length in grains.
        grains: u8,
        /// Its name.
        id: ChunkId,
        /// Where it was when this was written.
        hint: Location,
    },
}

impl Entry {
    /// Length in grains.
    pub fn grains(&self) -> u32 {
        match self {
            Self::Hole { grains } => u32::from(*grains),
            Self::Chunk { grains, .. } => u32::from(*grains),
        }
    }
}

/// The entries of one segment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leaf {
    /// They tile the segment; holes never meet.
    pub entries: Vec<Entry>,
}

/// The name of a leaf from the lengths of its pieces in grains and the ids of those that are chunks.
pub fn leaf_id(keys: &IdKeys, pieces: impl Iterator<Item = (u16, Option<ChunkId>)> + Clone) -> ChunkId {
    keys.leaf(&named_part(pieces))
}

/// The part of a leaf that is named, from lengths and ids.
fn named_part(pieces: impl Iterator<Item = (u16, Option<ChunkId>)> + Clone) -> Vec<u8> {
    let count = pieces.clone().count();
    let mut bytes = Vec::with_capacity(3 + count * 34);
    bytes.push(TAG);
    bytes.extend_from_slice(&(count as u16).to_le_bytes());
    for (grains, id) in pieces.clone() {
        let length = if id.is_some() { grains } else { grains | HOLE };
        bytes.extend_from_slice(&length.to_le_bytes());
    }
    for (_, id) in pieces {
        if let Some(id) = id {
            bytes.extend_from_slice(&id.0);
        }
    }
    bytes
}

impl Leaf {
    fn named_part(&self) -> Vec<u8> {
        named_part(self.entries.iter().map(|entry| match entry {
            Entry::Hole { grains } => (*grains, None),
            Entry::Chunk { grains, id, .. } => (u16::from(*grains), Some(*id)),
        }))
    }

    /// Whether it has no chunk.
    pub fn is_hole(&self) -> bool {
        self.entries.iter().all(|e| matches!(e, Entry::Hole { .. }))
    }

    /// Its name.
    pub fn id(&self, keys: &IdKeys) -> ChunkId {
        keys.leaf(&self.named_part())
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.named_part();
        let locations: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Hole { .. } => None,
                Entry::Chunk { hint, .. } => Some(*hint),
            })
            .collect();
        hints::encode(&locations, &mut bytes);
        bytes
    }

    /// Reads the leaf `id` of a segment of `grains` grains.
    ///
    /// # Errors
    /// When the bytes are no leaf, another leaf, or do not tile the segment.
    pub fn decode(bytes: &[u8], keys: &IdKeys, id: ChunkId, grains: u32) -> Result<Self, FormatError> {
        let what = "recipe leaf";
        if bytes.len() > RECIPE_NODE_MAX {
            return Err(FormatError::TooLarge {
                what,
                value: bytes.len() as u64,
                max: RECIPE_NODE_MAX as u64,
            });
        }
        let mut cursor = Cursor::new(what, bytes);
        if cursor.u8()? != TAG {
            return Err(FormatError::Magic { what });
        }
        let count = usize::from(cursor.u16()?);
        if count > SEGMENT_GRAINS as usize {
            return Err(cursor.malformed("has more entries than a segment has grains"));
        }
        let lengths = cursor.take(count * 2)?.as_chunks::<2>().0;
        let chunks = lengths.iter().filter(|b| u16::from_le_bytes(**b) & HOLE == 0).count();
        let ids = cursor.take(chunks * 32)?;
        let named = &bytes[..bytes.len() - cursor.remaining()];
        let found = keys.leaf(named);
        if found != id {
            return Err(FormatError::Mismatch {
                what: "name of leaf",
                expected: id.to_string(),
                found: found.to_string(),
            });
        }
        let mut locations = hints::decode(&mut cursor, chunks)?.into_iter();
        let mut ids = ids.as_chunks::<32>().0.iter();
        let mut entries = Vec::with_capacity(count);
        let mut total = 0;
        let mut after_hole = false;
        for length in lengths {
            let length = u16::from_le_bytes(*length);
            let is_hole = length & HOLE != 0;
            let run = length & !HOLE;
            let max = if is_hole { SEGMENT_GRAINS } else { CHUNK_GRAINS_MAX };
            if run == 0 || u32::from(run) > max || (is_hole && after_hole) {
                return Err(cursor.malformed("has an entry of an impossible length"));
            }
            total += u32::from(run);
            after_hole = is_hole;
            entries.push(if is_hole {
                Entry::Hole { grains: run }
            } else {
                let id = ChunkId(*ids.next().expect("one id for each chunk was taken"));
                Entry::Chunk {
                    grains: run as u8,
                    id,
                    hint: locations.next().expect("one hint for each chunk"),
                }
            });
        }
        if total != grains {
            return Err(cursor.malformed("does not tile its segment"));
        }
        cursor.finish()?;
        Ok(Self { entries })
    }
}
