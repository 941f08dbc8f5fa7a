//! The name of a leaf or node, from its bytes alone: for who finds one without knowing what it is.

use super::hints::Cursor;
use crate::chunk::IdKeys;
use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::limits::{NODE_CHILDREN, RECIPE_NODE_MAX, SEGMENT_GRAINS};

/// Names a stored leaf or node. Its hints, which are no part of a name, are not looked at.
///
/// # Errors
/// When the bytes are neither.
pub(crate) fn name_of(bytes: &[u8], keys: &IdKeys) -> Result<ChunkId, FormatError> {
    let what = "recipe piece";
    if bytes.len() > RECIPE_NODE_MAX {
        return Err(FormatError::TooLarge {
            what,
            value: bytes.len() as u64,
            max: RECIPE_NODE_MAX as u64,
        });
    }
    let mut cursor = Cursor::new(what, bytes);
    let tag = cursor.u8()?;
    let children = match tag {
        b'L' => {
            let count = usize::from(cursor.u16()?);
            if count > SEGMENT_GRAINS as usize {
                return Err(cursor.malformed("has more entries than a segment has grains"));
            }
            let lengths = cursor.take(count * 2)?.as_chunks::<2>().0;
            lengths
                .iter()
                .filter(|length| u16::from_le_bytes(**length) >> 15 == 0)
                .count()
        }
        b'N' => {
            let _level = cursor.u8()?;
            let count = usize::from(cursor.u16()?);
            if count > NODE_CHILDREN {
                return Err(cursor.malformed("has more children than a node may have"));
            }
            let presence = cursor.take(count.div_ceil(8))?;
            (0..count).filter(|i| presence[i / 8] & 1 << (i % 8) != 0).count()
        }
        _ => return Err(FormatError::Magic { what }),
    };
    cursor.take(children * 32)?;
    let named = &bytes[..bytes.len() - cursor.remaining()];
    Ok(if tag == b'L' {
        keys.leaf(named)
    } else {
        keys.node(named)
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Child, Entry, Leaf, Node};
    use super::*;
    use crate::chunk::Fingerprint;
    use crate::ids::{ClusterId, Location, PackId, PartId, SessionId, Writer};
    use crate::keys::Keyring;

    #[test]
    fn leaves_and_nodes_are_named_by_their_bytes_as_by_their_content() {
        let keys = IdKeys::new(&Keyring::generate());
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(3),
        };
        let hint = Location {
            pack: PackId { writer, seq: 4 },
            frame_offset: 96,
            frame_length: 500,
            place: 3,
        };
        let chunk = |n| Entry::Chunk {
            grains: 5,
            id: ChunkId([n; 32]),
            hint,
        };
        let leaf = Leaf {
            entries: vec![chunk(1), Entry::Hole { grains: 9 }, chunk(2), chunk(3)],
        };
        assert_eq!(name_of(&leaf.encode(), &keys), Ok(leaf.id(&keys)));
        let child = |n| {
            Some(Child {
                print: Some(Fingerprint([9; 16])),
                id: ChunkId([n; 32]),
                hint,
            })
        };
        let node = Node {
            level: 1,
            children: vec![child(1), None, child(2), None, None, child(3), None, None, child(4)],
        };
        assert_eq!(name_of(&node.encode(), &keys), Ok(node.id(&keys)));
        assert_ne!(name_of(&node.encode(), &keys), name_of(&leaf.encode(), &keys));
        assert!(name_of(b"chunk", &keys).is_err());
        for bytes in [leaf.encode(), node.encode()] {
            assert!(name_of(&bytes[..40], &keys).is_err());
        }
    }
}
