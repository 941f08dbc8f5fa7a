//! Which bytes of which packs to fetch for what is wanted; pure.

use std::collections::BTreeMap;
use std::ops::Range;

use tresor_storage::ids::{ChunkId, Location, PackId};
use tresor_storage::limits::READ_REQUEST_MAX;

/// A chunk wanted at a place of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) offset: u64,
    pub(super) grains: u8,
    pub(super) id: ChunkId,
    pub(super) hint: Location,
}

/// A frame with what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameRead {
    pub(super) at: Location,
    /// Ascending by disk offset.
    pub(super) wants: Vec<Want>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackRead {
    pub(super) pack: PackId,
    pub(super) range: Range<u64>,
    /// Ascending, inside the range.
    pub(super) frames: Vec<FrameRead>,
}

/// Groups wants by pack and frame, and merges frames whose gap is at most `merge_gap` into requests of bounded length. Requests come in the order in
/// which the disk first needs their packs, so that a target is written roughly from its start to its end.
pub(super) fn plan_reads(wants: &[Want], merge_gap: u64) -> Vec<PackRead> {
    let mut packs: BTreeMap<PackId, (usize, BTreeMap<u32, FrameRead>)> = BTreeMap::new();
    for (position, want) in wants.iter().enumerate() {
        let (_, frames) = packs
            .entry(want.hint.pack)
            .or_insert_with(|| (position, BTreeMap::new()));
        let frame = frames.entry(want.hint.frame_offset).or_insert_with(|| FrameRead {
            at: want.hint,
            wants: Vec::new(),
        });
        frame.wants.push(*want);
    }
    let mut ordered: Vec<_> = packs
        .into_iter()
        .map(|(pack, (first, frames))| (first, pack, frames))
        .collect();
    ordered.sort_by_key(|(first, ..)| *first);
    let mut reads: Vec<PackRead> = Vec::new();
    for (_, pack, frames) in ordered {
        let mut open: Option<PackRead> = None;
        for frame in frames.into_values() {
            let start = u64::from(frame.at.frame_offset);
            let end = start + u64::from(frame.at.frame_length);
            match &mut open {
                Some(read)
                    if start <= read.range.end.saturating_add(merge_gap)
                        && end.max(read.range.end) - read.range.start <= READ_REQUEST_MAX =>
                {
                    read.range.end = read.range.end.max(end);
                    read.frames.push(frame);
                }
                _ => reads.extend(open.replace(PackRead {
                    pack,
                    range: start..end,
                    frames: vec![frame],
                })),
            }
        }
        reads.extend(open);
    }
    reads
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tresor_storage::ids::{ClusterId, PartId, SessionId, Writer};

    use super::*;

    fn want(seq: u32, frame: u32, offset: u64) -> Want {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(1),
            part: PartId(1),
        };
        let hint = Location {
            pack: PackId { writer, seq },
            frame_offset: frame,
            frame_length: 100_000,
            place: 0,
        };
        Want {
            offset,
            grains: 4,
            id: ChunkId([0; 32]),
            hint,
        }
    }

    proptest! {
        #[test]
        fn every_want_is_in_exactly_one_request_that_covers_it(
            wanted in prop::collection::vec((0..4_u32, 0..300_u32, 0..1_000_000_u64), 0..200),
            gap in 0..3_000_000_u64,
        ) {
            let wants: Vec<_> = wanted.iter().map(|(seq, frame, offset)| want(*seq, frame * 100_000, *offset)).collect();
            let reads = plan_reads(&wants, gap);
            let mut found: Vec<Want> = Vec::new();
            for read in &reads {
                prop_assert!(read.range.end - read.range.start <= READ_REQUEST_MAX);
                for frame in &read.frames {
                    let (start, end) = (u64::from(frame.at.frame_offset), u64::from(frame.at.frame_offset + frame.at.frame_length));
                    prop_assert!(read.range.start <= start && end <= read.range.end);
                    prop_assert!(frame.wants.iter().all(|w| w.hint.pack == read.pack && w.hint.frame_offset == frame.at.frame_offset));
                    found.extend(&frame.wants);
                }
            }
            let key = |w: &Want| (w.hint, w.offset);
            let mut expected = wants.clone();
            expected.sort_by_key(key);
            found.sort_by_key(key);
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn neighbours_are_fetched_together_and_far_ones_apart() {
        let wants = [want(0, 0, 0), want(0, 100_000, 1), want(0, 5_000_000, 2), want(1, 0, 3)];
        let reads = plan_reads(&wants, 1000);
        let ranges: Vec<_> = reads.iter().map(|r| (r.pack.seq, r.range.clone())).collect();
        assert_eq!(ranges, [(0, 0..200_000), (0, 5_000_000..5_100_000), (1, 0..100_000)]);
    }
}
