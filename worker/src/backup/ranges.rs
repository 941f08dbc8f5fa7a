//! A disk in ranges of segments, of which other workers may read some.
//!
//! This worker takes them from the front, in order, and others from the back, so that what they made waits here as little as it can: a range of theirs
//! comes into the recipe when everything before it has.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::Notify;
use tresor_storage::recipe::RangeLeaf;

/// Segments of the smallest range that is worth a question: 1 GiB, a node of the recipe.
const RANGE_MIN: u64 = 256;
/// And of the largest: 8 GiB, whose leaves are half a megabyte.
const RANGE_MAX: u64 = 2048;
/// How many ranges each who reads gets of a disk, about: the last one waits for a range of somebody else for as long as a fourth of its share takes.
const RANGES_EACH: u64 = 4;

#[derive(Debug)]
enum Standing {
    Free,
    /// Here, or done with.
    Taken,
    /// Another worker reads it.
    Away,
    Made(Vec<RangeLeaf>),
}

#[derive(Debug)]
struct State {
    ranges: Vec<(Range<u64>, Standing)>,
    /// The first that has not come into the recipe.
    next: usize,
}

/// What comes next of the disk.
#[derive(Debug)]
pub(super) enum Next {
    /// To be read here.
    Read(Range<u64>),
    /// Others have.
    Made(Vec<RangeLeaf>),
    End,
}

/// The ranges of one disk.
#[derive(Debug)]
pub(super) struct Ranges {
    state: Mutex<State>,
    news: Notify,
}

impl Ranges {
    /// One for a part of a disk.
    pub(super) fn only(segments: Range<u64>) -> Self {
        Self::of(vec![segments])
    }

    /// Those of a disk of so many segments, which so many others may help to read.
    pub(super) fn of_disk(segments: u64, helpers: usize) -> Self {
        let readers = helpers as u64 + 1;
        let each = (segments / (readers * RANGES_EACH)).clamp(RANGE_MIN, RANGE_MAX) / RANGE_MIN * RANGE_MIN;
        if helpers == 0 || segments < 2 * each {
            return Self::only(0..segments);
        }
        let ranges = (0..segments.div_ceil(each)).map(|range| range * each..((range + 1) * each).min(segments));
        Self::of(ranges.collect())
    }

    fn of(ranges: Vec<Range<u64>>) -> Self {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty());
        Self {
            state: Mutex::new(State {
                ranges: ranges.map(|range| (range, Standing::Free)).collect(),
                next: 0,
            }),
            news: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }

    /// What comes next here; waits for a range that another worker reads. For one caller.
    pub(super) async fn next(&self) -> Next {
        loop {
            {
                let mut state = self.state();
                let at = state.next;
                let Some((range, standing)) = state.ranges.get_mut(at) else {
                    return Next::End;
                };
                match std::mem::replace(standing, Standing::Taken) {
                    Standing::Away => *standing = Standing::Away,
                    Standing::Made(leaves) => {
                        state.next += 1;
                        return Next::Made(leaves);
                    }
                    Standing::Free | Standing::Taken => {
                        let range = range.clone();
                        state.next += 1;
                        return Next::Read(range);
                    }
                }
            }
            // A permit is kept for who waits a moment later.
            self.news.notified().await;
        }
    }

    /// How many ranges nobody reads yet, but the next one.
    pub(super) fn spare(&self) -> usize {
        let state = self.state();
        let free = |(_, standing): &&(Range<u64>, Standing)| matches!(standing, Standing::Free);
        state.ranges[state.next..].iter().skip(1).filter(free).count()
    }

    /// The last range that nobody reads yet, for another worker; none when only the next one is left.
    pub(super) fn take_last(&self) -> Option<(usize, Range<u64>)> {
        let mut state = self.state();
        let first = state.next + 1;
        let free = |(_, standing): &(Range<u64>, Standing)| matches!(standing, Standing::Free);
        let at = state.ranges.iter().rposition(free).filter(|at| *at >= first)?;
        let (range, standing) = &mut state.ranges[at];
        *standing = Standing::Away;
        Some((at, range.clone()))
    }

    /// The other worker has not read it: it is read here.
    pub(super) fn give_back(&self, at: usize) {
        self.state().ranges[at].1 = Standing::Free;
        self.news.notify_one();
    }

    /// The other worker has.
    pub(super) fn made(&self, at: usize, leaves: Vec<RangeLeaf>) {
        self.state().ranges[at].1 = Standing::Made(leaves);
        self.news.notify_one();
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    async fn read(ranges: &Ranges) -> Range<u64> {
        match ranges.next().await {
            Next::Read(range) => range,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_disk_is_cut_at_nodes_of_its_recipe_and_a_small_one_is_not_cut() {
        let count = |segments, helpers| Ranges::of_disk(segments, helpers).state().ranges.len();
        assert_eq!(count(10_000, 0), 1);
        assert_eq!(count(511, 3), 1);
        assert_eq!(count(512, 3), 2);
        assert_eq!(count(0, 3), 0);
        // 4 TiB for four readers: the largest ranges.
        assert_eq!(count(1 << 20, 3), 512);
        for (range, _) in &Ranges::of_disk(5000, 1).state().ranges {
            assert_eq!(range.start % RANGE_MIN, 0);
        }
    }

    #[tokio::test]
    async fn the_ranges_come_in_order_whoever_read_them() {
        let ranges = Ranges::of_disk(1024, 1);
        assert_eq!(read(&ranges).await, 0..256);
        let (last, range) = ranges.take_last().unwrap();
        assert_eq!(range, 768..1024);
        let (third, range) = ranges.take_last().unwrap();
        assert_eq!(range, 512..768);
        assert_eq!(ranges.take_last(), None, "the next one is this worker's");
        ranges.made(last, vec![RangeLeaf::Hole; 256]);
        assert_eq!(read(&ranges).await, 256..512);
        // The third range is away: the last one waits for it.
        let waited = tokio::time::timeout(std::time::Duration::from_millis(20), ranges.next()).await;
        assert!(waited.is_err());
        ranges.made(third, vec![RangeLeaf::Hole; 256]);
        assert!(matches!(ranges.next().await, Next::Made(_)));
        assert!(matches!(ranges.next().await, Next::Made(_)));
        assert!(matches!(ranges.next().await, Next::End));
    }

    #[tokio::test]
    async fn a_range_that_another_worker_gave_back_is_read_here() {
        let ranges = Ranges::of_disk(512, 1);
        let (at, range) = ranges.take_last().unwrap();
        assert_eq!(read(&ranges).await, 0..256);
        ranges.give_back(at);
        assert_eq!(read(&ranges).await, range);
        assert!(matches!(ranges.next().await, Next::End));
    }
}
