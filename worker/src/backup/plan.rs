//! What to do with each segment of a disk; pure.

use std::ops::Range;

use tresor_storage::limits::{GRAIN, SEGMENT};

use super::Changes;
use crate::extent::Extent;

/// Unallocated gaps shorter than this are read through: one long read is cheaper than two short ones.
const GAP_READ_THROUGH: u64 = 64 << 10;

/// What to do with one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Todo {
    /// Take over what the parent has.
    Inherit,
    /// Nothing is allocated.
    Hole,
    /// Read these ranges (bytes from the segment's start, ascending, disjoint); the rest reads as zeros.
    Read(Vec<Range<u64>>),
    /// The parent's segment with these ranges of grains changed.
    Recut(Vec<Range<u32>>),
}

/// Ranges of `extents` (ascending, disjoint) inside a segment, from the segment's start.
fn inside(extents: &[Extent], segment: u64, length: u64) -> impl Iterator<Item = Range<u64>> + '_ {
    let start = segment * SEGMENT;
    let first = extents.partition_point(move |e| e.offset + e.length <= start);
    extents[first..]
        .iter()
        .take_while(move |e| e.offset < start + length)
        .map(move |e| e.offset.max(start) - start..(e.offset + e.length).min(start + length) - start)
}

/// Plans a segment of `length` bytes for a read of all that is allocated.
pub(super) fn plan_read(allocated: &[Extent], segment: u64, length: u64) -> Todo {
    let mut reads: Vec<Range<u64>> = Vec::new();
    for range in inside(allocated, segment, length) {
        match reads.last_mut() {
            Some(last) if range.start - last.end < GAP_READ_THROUGH => last.end = range.end,
            _ => reads.push(range),
        }
    }
    if reads.is_empty() {
        Todo::Hole
    } else {
        Todo::Read(reads)
    }
}

/// Plans a segment of `length` bytes of a disk whose changes are known and whose parent was `parent_size` bytes; `None`: read it.
pub(super) fn plan_changed(changed: &[Extent], segment: u64, length: u64, parent_size: u64) -> Option<Todo> {
    // From the old end's segment on a resized disk is another one: the parent's segment must have had this length.
    if parent_size.saturating_sub(segment * SEGMENT).min(SEGMENT) != length {
        return None;
    }
    let grain = u64::from(GRAIN);
    let grains: Vec<_> = inside(changed, segment, length)
        .map(|range| (range.start / grain) as u32..range.end.div_ceil(grain) as u32)
        .collect();
    Some(if grains.is_empty() {
        Todo::Inherit
    } else {
        Todo::Recut(grains)
    })
}

/// Whether a disk can be planned by its changes at all.
pub(super) fn usable_changes(changes: &Changes, has_parent: bool) -> Option<Vec<Extent>> {
    match changes {
        Changes::Only(extents) if has_parent => Some(crate::extent::normalise(extents.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn only_what_is_allocated_is_read_and_short_gaps_are_read_through() {
        let allocated = [
            extent(4096, 4096),
            extent(12288, 4096),
            extent(1 << 20, 4096),
            extent(SEGMENT - 10, 20),
        ];
        assert_eq!(
            plan_read(&allocated, 0, SEGMENT),
            Todo::Read(vec![4096..16384, 1 << 20..(1 << 20) + 4096, SEGMENT - 10..SEGMENT])
        );
        assert_eq!(plan_read(&allocated, 1, SEGMENT), Todo::Read(vec![0..10]));
        assert_eq!(plan_read(&allocated, 2, SEGMENT), Todo::Hole);
    }

    #[test]
    fn changes_become_grains_and_untouched_segments_are_inherited() {
        let size = 3 * SEGMENT;
        let changed = [extent(100, 1), extent(SEGMENT - 1, 2)];
        assert_eq!(
            plan_changed(&changed, 0, SEGMENT, size),
            Some(Todo::Recut(vec![0..1, 1023..1024]))
        );
        assert_eq!(plan_changed(&changed, 1, SEGMENT, size), Some(Todo::Recut(vec![0..1])));
        assert_eq!(plan_changed(&changed, 2, SEGMENT, size), Some(Todo::Inherit));
    }

    #[test]
    fn from_the_old_ends_segment_on_a_resized_disk_is_read() {
        // Grown: the old last segment was shorter.
        assert_eq!(plan_changed(&[], 1, SEGMENT, SEGMENT + 4096), None);
        assert_eq!(plan_changed(&[], 0, SEGMENT, SEGMENT + 4096), Some(Todo::Inherit));
        // Shrunk: the last segment is shorter than the parent's.
        assert_eq!(plan_changed(&[], 1, 4096, 2 * SEGMENT), None);
        // The same size, whole grains or not.
        assert_eq!(plan_changed(&[], 1, 4096, SEGMENT + 4096), Some(Todo::Inherit));
        assert_eq!(plan_changed(&[], 1, 100, SEGMENT + 100), Some(Todo::Inherit));
        assert_eq!(plan_changed(&[], 1, 104, SEGMENT + 100), None);
    }
}
