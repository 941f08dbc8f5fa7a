//! Nodes: up to 256 leaves or nodes of the level below.
//!
//! ```text
//! 'N' u8 · level u8 (1: its children are leaves) · children u16 · presence, one bit each, padded to bytes · ids of those present · their hints
//!     · on level 1: their fingerprints, 16 bytes each, zeros where none is known
//! ```
//! The name covers everything before the hints. A child that is not present is a hole.

use crate::chunk::{Fingerprint, IdKeys};
use crate::error::FormatError;
use crate::ids::{ChunkId, Location};
use crate::limits::{DEPTH_MAX, NODE_CHILDREN, RECIPE_NODE_MAX};

use super::hints::{self, Cursor};

const TAG: u8 = b'N';
/// Stands for a fingerprint that is not known.
const UNKNOWN: [u8; 16] = [0; 16];

/// A leaf or node, seen from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its name.
    pub id: ChunkId,
    /// Where it was when this was written.
    pub hint: Location,
    /// Of a leaf: the fingerprint of its segment, if the segment was read whole when it was named.
    pub print: Option<Fingerprint>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 1 for a node above leaves.
    pub level: u8,
    /// In disk order; `None` is a hole. Only the last node of a level may have fewer than 256.
    pub children: Vec<Option<Child>>,
}

impl Node {
    fn named_part(&self) -> Vec<u8> {
        let mut bytes = vec![TAG, self.level];
        bytes.extend_from_slice(&(self.children.len() as u16).to_le_bytes());
        let at = bytes.len();
        bytes.resize(at + self.children.len().div_ceil(8), 0);
        for (i, child) in self.children.iter().enumerate() {
            if child.is_some() {
                bytes[at + i / 8] |= 1 << (i % 8);
            }
        }
        for child in self.children.iter().flatten() {
            bytes.extend_from_slice(&child.id.0);
        }
        bytes
    }

    /// Whether all children are holes.
    pub fn is_hole(&self) -> bool {
        self.children.iter().all(Option::is_none)
    }

    /// Its name.
    pub fn id(&self, keys: &IdKeys) -> ChunkId {
        keys.node(&self.named_part())
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.named_part();
        let locations: Vec<_> = self.children.iter().flatten().map(|child| child.hint).collect();
        hints::encode(&locations, &mut bytes);
        if self.level == 1 {
            for child in self.children.iter().flatten() {
                bytes.extend_from_slice(&child.print.map_or(UNKNOWN, |print| print.0));
            }
        }
        bytes
    }

    /// Reads the node `id` of a level with that many children.
    ///
    /// # Errors
    /// When the bytes are no node, another node, or of another shape.
    pub fn decode(bytes: &[u8], keys: &IdKeys, id: ChunkId, level: u8, children: usize) -> Result<Self, FormatError> {
        let what = "recipe node";
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
        let (found_level, count) = (cursor.u8()?, usize::from(cursor.u16()?));
        if found_level != level || u32::from(level) > DEPTH_MAX || count != children || count > NODE_CHILDREN {
            return Err(cursor.malformed("is of another level or width than its place in the tree"));
        }
        let presence = cursor.take(count.div_ceil(8))?;
        let present = |i: usize| presence[i / 8] & 1 << (i % 8) != 0;
        let number = (0..count).filter(|i| present(*i)).count();
        let ids = cursor.take(number * 32)?;
        let found = keys.node(&bytes[..bytes.len() - cursor.remaining()]);
        if found != id {
            return Err(FormatError::Mismatch {
                what: "name of node",
                expected: id.to_string(),
                found: found.to_string(),
            });
        }
        let locations = hints::decode(&mut cursor, number)?;
        let prints = cursor.take(if level == 1 { number * 16 } else { 0 })?;
        cursor.finish()?;
        let prints = prints
            .as_chunks::<16>()
            .0
            .iter()
            .map(|print| (*print != UNKNOWN).then_some(Fingerprint(*print)))
            .chain(std::iter::repeat(None));
        let mut rows = ids.as_chunks::<32>().0.iter().zip(locations).zip(prints);
        let children = (0..count)
            .map(|i| present(i).then(|| rows.next().expect("one for each present")))
            .map(|row| {
                row.map(|((id, hint), print)| Child {
                    id: ChunkId(*id),
                    hint,
                    print,
                })
            })
            .collect();
        Ok(Self { level, children })
    }
}
