//! What a point costs, since there are millions.

use super::*;
use crate::state::rows::{GivenUp, Point};
use crate::state::{GIVEN_UP_MAX, POINTS_MAX};
use std::mem::size_of;

/// Bytes of an entry of a B-tree of the standard library: nodes have room for 11, and are two thirds full where keys come in no order.
fn in_a_tree(key: usize, value: usize) -> usize {
    ((key + value) * 11 + 16) * 3 / (11 * 2)
}

#[test]
fn a_point_takes_a_quarter_of_a_kilobyte_with_all_that_finds_it() {
    assert_eq!(size_of::<Point>(), 112);
    let row = in_a_tree(size_of::<PointId>(), size_of::<Point>());
    let by_item = in_a_tree(size_of::<(ItemId, Time, PointId)>(), 0);
    assert_eq!((row, by_item), (194, 62));
    // Measured: 278 bytes of resident memory per point, at a million points of 10,000 items.
    let all = (row + by_item) as u64 * POINTS_MAX;
    assert!(all < 800_000_000, "{all}");
    assert!((row + by_item) * 1_000_000 < 1_000_000_000);
}

#[test]
fn a_point_that_is_given_up_takes_less() {
    assert_eq!(size_of::<GivenUp>(), 40);
    assert!(in_a_tree(size_of::<PointId>(), size_of::<GivenUp>()) * GIVEN_UP_MAX < 100_000_000);
}

/// What is stored of a point: without the key 67 bytes where nothing is special about it.
#[test]
fn a_stored_point_is_small() {
    let (bench, _) = Bench::with_points(1);
    let row = bench.state.all_rows().into_iter().find(|row| row.table == 6).unwrap();
    let stored = row.key.len() + row.value.unwrap().len();
    assert_eq!(stored, 76);
    assert!(stored <= 160);
}
