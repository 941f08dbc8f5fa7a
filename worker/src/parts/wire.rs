//! Between our words and the messages of `parts.proto`. What arrives is checked here, once.

use tresor_proto::ids::{Epoch, JobId};
use tresor_proto::v1;
use tresor_storage::chunk::{Fingerprint, IdKeys, Profile};
use tresor_storage::ids::{ChunkId, Location};
use tresor_storage::index::slot::{SLOTS, SlotSet};
use tresor_storage::limits::{DISK_SIZE_MAX, SEGMENT};
use tresor_storage::recipe::{Child, RangeLeaf, Root};

use crate::agent::port::LeaseId;
use crate::backup::BackupCounts;
use crate::slots::StandsOn;
use crate::slots::wire::{self as slots, Malformed};

/// Segments of one message.
pub(super) const LEAVES: usize = 4096;
/// Segments of one range: more than anybody asks for.
pub(super) const SEGMENTS_MAX: u64 = 1 << 16;
const PRINT: usize = 16;

pub(super) fn parent(root: Root) -> v1::PartParent {
    v1::PartParent {
        size: root.size,
        id: root.child.map(|child| child.id.0.to_vec()).unwrap_or_default().into(),
        at: Some(slots::locations(root.child.iter().map(|child| &child.hint))),
    }
}

pub(super) fn parent_of(message: v1::PartParent, keys: &IdKeys, profile: Profile) -> Result<Root, Malformed> {
    if message.size > DISK_SIZE_MAX {
        return Err(Malformed("a disk that is too large"));
    }
    let at = slots::locations_of(message.at)?;
    let child = match (message.id.is_empty(), at.as_slice()) {
        (true, []) => None,
        (false, [hint]) => Some(Child {
            id: ChunkId(id(&message.id)?),
            hint: *hint,
            print: None,
        }),
        _ => return Err(Malformed("a location for the root")),
    };
    Ok(Root::new(keys, profile, message.size, child))
}

fn id(bytes: &[u8]) -> Result<[u8; 32], Malformed> {
    bytes.try_into().map_err(|_| Malformed("an id has 32 bytes"))
}

/// The lease that a request names.
pub(super) fn lease_of(message: Option<v1::LeaseId>) -> Result<LeaseId, Malformed> {
    let message = message.ok_or(Malformed("it names no lease"))?;
    Ok(LeaseId {
        job: JobId(message.job),
        epoch: Epoch(message.epoch),
    })
}

/// The segments of a range that a request names, within a disk of that size.
pub(super) fn segments_of(message: &v1::PartReadRequest) -> Result<std::ops::Range<u64>, Malformed> {
    let end = message.first.checked_add(message.count).ok_or(Malformed("a range"))?;
    if message.size > DISK_SIZE_MAX || message.count == 0 || message.count > SEGMENTS_MAX {
        return Err(Malformed("a range"));
    }
    if end > message.size.div_ceil(SEGMENT) {
        return Err(Malformed("a range beyond the end of its disk"));
    }
    Ok(message.first..end)
}

pub(super) fn leaves(leaves: &[RangeLeaf]) -> v1::PartLeaves {
    let child = |leaf: &RangeLeaf| match *leaf {
        RangeLeaf::Hole => None,
        RangeLeaf::Stored(child) | RangeLeaf::New(child) => Some(child),
    };
    let kind = |leaf: &RangeLeaf| match leaf {
        RangeLeaf::Hole => 0,
        RangeLeaf::Stored(_) => 1,
        RangeLeaf::New(_) => 2,
    };
    let children: Vec<Child> = leaves.iter().filter_map(child).collect();
    let print = |child: &Child| child.print.map_or([0; PRINT], |print| print.0);
    v1::PartLeaves {
        kinds: leaves.iter().map(kind).collect::<Vec<u8>>().into(),
        ids: children.iter().flat_map(|child| child.id.0).collect::<Vec<u8>>().into(),
        at: Some(slots::locations(children.iter().map(|child| &child.hint))),
        prints: children.iter().flat_map(print).collect::<Vec<u8>>().into(),
    }
}

pub(super) fn leaves_of(message: v1::PartLeaves) -> Result<Vec<RangeLeaf>, Malformed> {
    if message.kinds.len() > LEAVES {
        return Err(Malformed("too many segments"));
    }
    let (ids, []) = message.ids.as_chunks::<32>() else {
        return Err(Malformed("ids have 32 bytes each"));
    };
    let (prints, []) = message.prints.as_chunks::<PRINT>() else {
        return Err(Malformed("fingerprints have 16 bytes each"));
    };
    let at: Vec<Location> = slots::locations_of(message.at)?;
    if ids.len() != at.len() || ids.len() != prints.len() {
        return Err(Malformed("a location and a fingerprint for each id"));
    }
    let mut children = ids.iter().zip(at).zip(prints).map(|((id, hint), print)| Child {
        id: ChunkId(*id),
        hint,
        print: (*print != [0; PRINT]).then_some(Fingerprint(*print)),
    });
    let mut next = || children.next().ok_or(Malformed("an id for each segment"));
    let leaves = message
        .kinds
        .iter()
        .map(|kind| match kind {
            0 => Ok(RangeLeaf::Hole),
            1 => Ok(RangeLeaf::Stored(next()?)),
            2 => Ok(RangeLeaf::New(next()?)),
            _ => Err(Malformed("a segment of no meaning")),
        })
        .collect::<Result<_, _>>()?;
    match children.next() {
        None => Ok(leaves),
        Some(_) => Err(Malformed("an id of no segment")),
    }
}

pub(super) fn end(counts: &BackupCounts, live: bool, stands: &StandsOn) -> v1::PartEnd {
    v1::PartEnd {
        counts: Some(v1::Counts {
            bytes_read: counts.bytes_read,
            bytes_new: counts.bytes_new,
            bytes_stored: counts.bytes_stored,
            chunks_new: counts.chunks_new,
            chunks_known: counts.chunks_known,
            segments_inherited: counts.segments_inherited,
            lookups: counts.lookups,
            packs: counts.packs,
            ..v1::Counts::default()
        }),
        live,
        slots: stands.epochs.keys().map(|slot| u32::from(*slot)).collect(),
        epochs: stands.epochs.values().copied().collect(),
        slots_missing: match stands.missing.is_empty() {
            true => bytes::Bytes::new(),
            false => stands.missing.to_bytes().to_vec().into(),
        },
    }
}

pub(super) fn end_of(message: &v1::PartEnd) -> Result<(BackupCounts, bool, StandsOn), Malformed> {
    if message.slots.len() != message.epochs.len() || message.slots.len() > usize::from(SLOTS) {
        return Err(Malformed("a grant for each slot"));
    }
    let epochs = message
        .slots
        .iter()
        .zip(&message.epochs)
        .map(|(slot, epoch)| {
            let slot = u16::try_from(*slot).ok().filter(|slot| *slot < SLOTS);
            Ok((slot.ok_or(Malformed("a slot"))?, *epoch))
        })
        .collect::<Result<_, _>>()?;
    let missing = match message.slots_missing.is_empty() {
        true => SlotSet::default(),
        false => SlotSet::from_bytes(&message.slots_missing).ok_or(Malformed("a set of slots"))?,
    };
    let counts = message.counts.unwrap_or_default();
    let counts = BackupCounts {
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
        chunks_new: counts.chunks_new,
        chunks_known: counts.chunks_known,
        lookups: counts.lookups,
        segments_inherited: counts.segments_inherited,
        packs: counts.packs,
    };
    Ok((counts, message.live, StandsOn { epochs, missing }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;
    use tresor_storage::ids::{ClusterId, PackId, PartId, SessionId, Writer};

    use super::*;

    fn child() -> impl Strategy<Value = Child> {
        (any::<[u8; 32]>(), any::<[u32; 4]>(), proptest::option::of(1..u8::MAX)).prop_map(|(id, numbers, print)| {
            Child {
                id: ChunkId(id),
                hint: Location {
                    pack: PackId {
                        writer: Writer {
                            cluster: ClusterId(7),
                            session: SessionId(8),
                            part: PartId(u64::from(numbers[0] % 3)),
                        },
                        seq: numbers[1],
                    },
                    frame_offset: numbers[2],
                    frame_length: numbers[3],
                    place: numbers[0],
                },
                print: print.map(|print| Fingerprint([print; PRINT])),
            }
        })
    }

    fn leaf() -> impl Strategy<Value = RangeLeaf> {
        prop_oneof![
            Just(RangeLeaf::Hole),
            child().prop_map(RangeLeaf::Stored),
            child().prop_map(RangeLeaf::New),
        ]
    }

    proptest! {
        #[test]
        fn leaves_survive_the_wire(all in proptest::collection::vec(leaf(), 0..60)) {
            prop_assert_eq!(leaves_of(leaves(&all)).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_read_or_refused(kinds: Vec<u8>, ids: Vec<u8>, prints: Vec<u8>, rows: Vec<u8>, writers: Vec<u8>) {
            let at = Some(v1::Locations { writers: writers.into(), rows: rows.into() });
            let _ = leaves_of(v1::PartLeaves { kinds: kinds.into(), ids: ids.into(), at, prints: prints.into() });
        }

        #[test]
        fn what_a_range_stands_on_survives_the_wire(
            epochs in proptest::collection::btree_map(0..SLOTS, any::<u64>(), 0..50),
            missing in proptest::collection::btree_set(0..SLOTS, 0..5),
        ) {
            let stands = StandsOn { epochs, missing: missing.into_iter().collect() };
            let counts = BackupCounts { bytes_read: 1, packs: 2, ..BackupCounts::default() };
            prop_assert_eq!(end_of(&end(&counts, true, &stands)).unwrap(), (counts, true, stands));
        }
    }

    #[test]
    fn a_range_beyond_its_disk_is_refused() {
        let request = |first, count| v1::PartReadRequest {
            size: 10 * SEGMENT + 1,
            first,
            count,
            ..Default::default()
        };
        assert_eq!(segments_of(&request(3, 8)), Ok(3..11));
        assert!(segments_of(&request(3, 9)).is_err());
        assert!(segments_of(&request(3, 0)).is_err());
        assert!(segments_of(&request(u64::MAX, 2)).is_err());
    }
}
