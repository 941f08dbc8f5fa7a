//! Roots: one for a disk, kept in the manifest.

use crate::chunk::{IdKeys, Profile};
use crate::error::FormatError;
use crate::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, Writer};
use crate::limits::{DEPTH_MAX, DISK_SIZE_MAX, GRAIN, NODE_CHILDREN, PACK_MAX, SEGMENT, SEGMENT_GRAINS};
use crate::stored;

use super::node::Child;

/// The whole of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Its name: equal names mean equal disks.
    pub id: ChunkId,
    /// The disk's size, bytes.
    pub size: u64,
    /// Levels of nodes above the leaves.
    pub depth: u8,
    /// The top node (or leaf); `None`: the disk is one hole.
    pub child: Option<Child>,
}

/// Segments of a disk.
pub(crate) fn segments_of(size: u64) -> u64 {
    size.div_ceil(SEGMENT)
}

/// Grains of one segment of a disk: fewer in the last.
pub(crate) fn grains_of(size: u64, segment: u64) -> u32 {
    let rest = size - (segment * SEGMENT).min(size);
    (rest.min(SEGMENT)).div_ceil(u64::from(GRAIN)) as u32
}

/// Levels of nodes that a disk needs.
pub(crate) fn depth_of(size: u64) -> u8 {
    let mut depth = 0;
    let mut width = segments_of(size);
    while width > 1 {
        width = width.div_ceil(NODE_CHILDREN as u64);
        depth += 1;
    }
    depth
}

impl Root {
    /// Makes the root of a disk.
    pub fn new(keys: &IdKeys, profile: Profile, size: u64, child: Option<Child>) -> Self {
        let depth = depth_of(size);
        Self {
            id: Self::name(keys, profile, size, depth, child.map(|c| c.id)),
            size,
            depth,
            child,
        }
    }

    fn name(keys: &IdKeys, profile: Profile, size: u64, depth: u8, child: Option<ChunkId>) -> ChunkId {
        let mut bytes = vec![b'R', 1, profile.code(), depth, u8::from(child.is_some())];
        bytes.extend_from_slice(&size.to_le_bytes());
        if let Some(id) = child {
            bytes.extend_from_slice(&id.0);
        }
        keys.root(&bytes)
    }

    /// Number of segments.
    pub fn segments(&self) -> u64 {
        segments_of(self.size)
    }

    /// Grains of one segment.
    pub fn grains(&self, segment: u64) -> u32 {
        grains_of(self.size, segment)
    }

    /// As a manifest stores it.
    pub fn to_stored(&self) -> stored::RecipeRoot {
        stored::RecipeRoot {
            root_id: self.id.0.to_vec().into(),
            depth: u32::from(self.depth),
            child_id: self.child.map(|c| c.id.0.to_vec().into()).unwrap_or_default(),
            child_hint: self.child.map(|c| location_to_stored(c.hint)),
        }
    }

    /// Reads one of a disk of `size` bytes and checks its name.
    ///
    /// # Errors
    /// When it is not the root of such a disk.
    pub fn from_stored(
        stored: &stored::RecipeRoot,
        keys: &IdKeys,
        profile: Profile,
        size: u64,
    ) -> Result<Self, FormatError> {
        let what = "recipe root";
        if size > DISK_SIZE_MAX {
            return Err(FormatError::TooLarge {
                what: "disk size",
                value: size,
                max: DISK_SIZE_MAX,
            });
        }
        let depth = depth_of(size);
        if stored.depth != u32::from(depth) || stored.depth > DEPTH_MAX {
            return Err(FormatError::Malformed {
                what,
                why: "its depth does not fit the disk's size",
            });
        }
        let wrong = |_| FormatError::Malformed {
            what,
            why: "an id is not 32 bytes long",
        };
        let child = match (&stored.child_id, &stored.child_hint) {
            (id, None) if id.is_empty() => None,
            (id, Some(hint)) => Some(Child {
                id: ChunkId::from_slice(id).map_err(wrong)?,
                hint: location_from_stored(hint)?,
                print: None,
            }),
            _ => {
                return Err(FormatError::Malformed {
                    what,
                    why: "has a child without a hint",
                });
            }
        };
        let id = ChunkId::from_slice(&stored.root_id).map_err(wrong)?;
        let found = Self::name(keys, profile, size, depth, child.map(|c| c.id));
        if found != id {
            return Err(FormatError::Mismatch {
                what: "name of root",
                expected: id.to_string(),
                found: found.to_string(),
            });
        }
        Ok(Self { id, size, depth, child })
    }
}

/// A location as messages store it.
pub fn location_to_stored(location: Location) -> stored::StoredLocation {
    stored::StoredLocation {
        writer: Some(writer_to_stored(location.pack.writer)),
        seq: location.pack.seq,
        frame_offset: location.frame_offset,
        frame_length: location.frame_length,
        place: location.place,
    }
}

/// Reads a location.
///
/// # Errors
/// When it is outside of any pack.
pub fn location_from_stored(stored: &stored::StoredLocation) -> Result<Location, FormatError> {
    let malformed = |why| FormatError::Malformed { what: "location", why };
    if u64::from(stored.frame_offset) + u64::from(stored.frame_length) > PACK_MAX as u64 {
        return Err(malformed("is outside of any pack"));
    }
    let writer = stored.writer.as_ref().ok_or_else(|| malformed("has no writer"))?;
    Ok(Location {
        pack: PackId {
            writer: writer_from_stored(writer),
            seq: stored.seq,
        },
        frame_offset: stored.frame_offset,
        frame_length: stored.frame_length,
        place: stored.place,
    })
}

/// A writer as messages store it.
pub fn writer_to_stored(writer: Writer) -> stored::WriterId {
    stored::WriterId {
        cluster: writer.cluster.0,
        session: writer.session.0,
        part: writer.part.0,
    }
}

/// Reads a writer.
pub fn writer_from_stored(stored: &stored::WriterId) -> Writer {
    Writer {
        cluster: ClusterId(stored.cluster),
        session: SessionId(stored.session),
        part: PartId(stored.part),
    }
}

const _: () = assert!(SEGMENT_GRAINS as u64 * GRAIN as u64 == SEGMENT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_follow_sizes() {
        let gib = 1 << 30;
        for (size, depth, last) in [
            (0, 0, 0),
            (1, 0, 1),
            (SEGMENT, 0, 1024),
            (SEGMENT + 1, 1, 1),
            (gib, 1, 1024),
            (gib + 5000, 2, 2),
            (DISK_SIZE_MAX, 3, 1024),
        ] {
            assert_eq!(depth_of(size), depth, "{size}");
            if size > 0 {
                assert_eq!(grains_of(size, segments_of(size) - 1), last, "{size}");
            }
        }
    }
}
