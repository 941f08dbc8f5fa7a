//! Cutting again only what changed.
//!
//! Given the parent's pieces of a segment and the grains that may have changed, asks for the fewest bytes from which the same pieces come as
//! from cutting the whole segment. It starts at the last cut before a changed grain (strictly before, because the chunk that ended there may
//! now go on) and stops where a new cut meets an old one behind the change: from there on the rule sees the same bytes in the same state.
//! Inside a hole every grain is such a meeting place, because nothing before a zero grain reaches past it.
//!
//! No reading here: [`Recut::step`] says what it needs, [`Recut::supply`] takes it.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use super::cut::{Cutter, Piece};
use crate::limits::GRAIN;

/// How far beyond a change the first read goes, and how much each further one adds: a mean chunk, so that most changes need one read.
const READ_AHEAD: u32 = 8;

/// A piece of the segment as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recutted {
    /// A hole.
    Hole {
        /// Length in grains.
        grains: u32,
    },
    /// The parent's piece of that index, a chunk, unchanged.
    Kept {
        /// Index into the parent's pieces.
        index: usize,
        /// Length in grains.
        grains: u32,
    },
    /// A chunk read anew.
    Fresh {
        /// Its bytes.
        data: Bytes,
    },
}

/// What [`Recut`] wants next.
#[derive(Debug, PartialEq, Eq)]
pub enum Need {
    /// The bytes of these grains of the segment; give them to [`Recut::supply`].
    Read(Range<u32>),
    /// Nothing: the pieces are complete.
    Done,
}

/// One segment being cut again.
#[derive(Debug)]
pub struct Recut<'a> {
    cutter: &'a Cutter,
    parent: &'a [Piece],
    /// Where each piece of the parent starts, and where the last ends.
    starts: Vec<u32>,
    /// Ascending, disjoint, not empty.
    changed: Vec<Range<u32>>,
    /// Everything before this grain is decided.
    done: u32,
    out: Vec<Recutted>,
    /// The run being cut: its first undecided grain is `done`.
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    /// Where changes that the run must cover end.
    changed_end: u32,
    /// Bytes of grains from `done` on.
    data: BytesMut,
}

impl<'a> Recut<'a> {
    /// Begins. `changed` are ranges of grains in any order; what lies outside the segment is ignored.
    pub fn new(cutter: &'a Cutter, parent: &'a [Piece], changed: &[Range<u32>]) -> Self {
        let mut starts = Vec::with_capacity(parent.len() + 1);
        let mut at = 0;
        starts.push(0);
        for piece in parent {
            at += piece.grains();
            starts.push(at);
        }
        let mut sorted: Vec<_> = changed
            .iter()
            .map(|r| r.start.min(at)..r.end.min(at))
            .filter(|r| r.start < r.end)
            .collect();
        sorted.sort_by_key(|r| r.start);
        let mut merged: Vec<Range<u32>> = Vec::with_capacity(sorted.len());
        for range in sorted {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        Self {
            cutter,
            parent,
            starts,
            changed: merged,
            done: 0,
            out: Vec::new(),
            run: None,
        }
    }

    /// Says what is needed next.
    pub fn step(&mut self) -> Need {
        let total = *self.starts.last().expect("there is a first start");
        if self.run.is_none() {
            let Some(next) = self.changed.iter().find(|r| r.end > self.done).cloned() else {
                self.keep_until(total);
                return Need::Done;
            };
            let start = self.cut_before(next.start).max(self.done);
            self.keep_until(start);
            self.run = Some(Run {
                changed_end: next.end,
                data: BytesMut::new(),
            });
        }
        let run = self.run.as_ref().expect("a run was just begun");
        let have = self.done + run.data.len() as u32 / GRAIN;
        let want = (run.changed_end.max(have) + READ_AHEAD).min(total);
        Need::Read(have..want)
    }

    /// Takes the bytes last asked for (whole grains; the last one of a disk padded with zeros).
    ///
    /// # Panics
    /// When nothing was asked for, or the length is another.
    pub fn supply(&mut self, bytes: &[u8]) {
        let total = *self.starts.last().expect("there is a first start");
        let mut run = self.run.take().expect("bytes were asked for");
        run.data.extend_from_slice(bytes);
        let end = self.done + run.data.len() as u32 / GRAIN;
        let mut pieces = Vec::new();
        self.cutter.cut(&run.data, end == total, &mut pieces);
        for piece in pieces {
            if self.meets(&mut run) {
                return;
            }
            let bytes = run.data.split_to(piece.grains() as usize * GRAIN as usize);
            self.done += piece.grains();
            match piece {
                Piece::Hole { grains } => self.push_hole(u32::from(grains)),
                Piece::Chunk { .. } => self.out.push(Recutted::Fresh { data: bytes.freeze() }),
            }
        }
        if self.done < total && !self.meets(&mut run) {
            self.run = Some(run);
        }
    }

    /// The pieces, which tile the segment.
    ///
    /// # Panics
    /// When [`Recut::step`] did not say `Done`.
    pub fn finish(self) -> Vec<Recutted> {
        assert_eq!(Some(&self.done), self.starts.last(), "asked before it was done");
        self.out
    }

    /// Whether the cut at `done` is behind all changes of the run and is a cut of the parent too.
    fn meets(&self, run: &mut Run) -> bool {
        while let Some(more) = self
            .changed
            .iter()
            .find(|r| r.start < self.done && r.end > run.changed_end)
        {
            run.changed_end = more.end;
        }
        self.done >= run.changed_end && self.is_parents_cut(self.done)
    }

    fn piece_at(&self, grain: u32) -> usize {
        self.starts.partition_point(|start| *start <= grain) - 1
    }

    fn is_parents_cut(&self, grain: u32) -> bool {
        let index = self.piece_at(grain);
        self.starts[index] == grain || matches!(self.parent.get(index), Some(Piece::Hole { .. }))
    }

    /// The last cut from which cutting must begin when `grain` changed.
    fn cut_before(&self, grain: u32) -> u32 {
        if grain == 0 {
            return 0;
        }
        let index = self.piece_at(grain - 1);
        match self.parent[index] {
            Piece::Hole { .. } => grain,
            Piece::Chunk { .. } => self.starts[index],
        }
    }

    fn keep_until(&mut self, end: u32) {
        while self.done < end {
            let index = self.piece_at(self.done);
            let upto = self.starts[index + 1].min(end);
            let grains = upto - self.done;
            match self.parent[index] {
                Piece::Hole { .. } => self.push_hole(grains),
                Piece::Chunk { .. } => self.out.push(Recutted::Kept { index, grains }),
            }
            self.done = upto;
        }
    }

    fn push_hole(&mut self, more: u32) {
        match self.out.last_mut() {
            Some(Recutted::Hole { grains }) => *grains += more,
            _ => self.out.push(Recutted::Hole { grains: more }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cut::tests::{cutter, segment};
    use super::*;
    use crate::chunk::Profile;

    fn whole(cutter: &Cutter, values: &[u8]) -> Vec<Piece> {
        let mut pieces = Vec::new();
        cutter.cut(&segment(values), true, &mut pieces);
        pieces
    }

    /// Runs a recut to its end; returns the pieces and the grains read.
    fn recut(cutter: &Cutter, old: &[u8], new: &[u8], changed: &[Range<u32>]) -> (Vec<Piece>, u32) {
        let parent = whole(cutter, old);
        let mut recut = Recut::new(cutter, &parent, changed);
        let mut read = 0;
        while let Need::Read(range) = recut.step() {
            assert!(!range.is_empty(), "asks for nothing");
            read += range.len() as u32;
            recut.supply(&segment(&new[range.start as usize..range.end as usize]));
        }
        let mut at = 0;
        let pieces = recut
            .finish()
            .into_iter()
            .map(|piece| {
                let piece = match piece {
                    Recutted::Hole { grains } => Piece::Hole { grains: grains as u16 },
                    Recutted::Kept { index, grains } => {
                        assert_eq!(parent[index].grains(), grains, "chunks are kept whole");
                        parent[index]
                    }
                    Recutted::Fresh { data } => {
                        let grains = data.len() / GRAIN as usize;
                        assert_eq!(data, segment(&new[at..at + grains]));
                        Piece::Chunk { grains: grains as u8 }
                    }
                };
                at += piece.grains() as usize;
                piece
            })
            .collect();
        (pieces, read)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn cutting_what_changed_equals_cutting_all(
            old in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>(), any::<u8>()], 1..300),
            writes in prop::collection::vec((0..300_u32, 1..20_u32, prop_oneof![Just(None), any::<u8>().prop_map(Some)]), 0..6),
            which in 0..3_usize,
        ) {
            let mut new = old.clone();
            let mut changed = Vec::new();
            for (start, length, value) in writes {
                let start = start.min(old.len() as u32);
                let end = (start + length).min(old.len() as u32);
                for (i, grain) in new[start as usize..end as usize].iter_mut().enumerate() {
                    // `None`: called changed, but was written with what was there.
                    *grain = value.map_or(*grain, |v| if v == 0 { 0 } else { v.wrapping_add(i as u8) });
                }
                changed.push(start..end);
            }
            let cutter = cutter(Profile::ALL[which]);
            let (pieces, _) = recut(&cutter, &old, &new, &changed);
            prop_assert_eq!(pieces, whole(&cutter, &new));
        }
    }

    #[test]
    fn one_changed_grain_reads_a_few_chunks_and_not_the_segment() {
        let old: Vec<u8> = (0..1000_u32).map(|v| (v % 251) as u8 | 1).collect();
        let mut new = old.clone();
        new[500] = 2;
        let cutter = cutter(Profile::Grain32k);
        let (pieces, read) = recut(&cutter, &old, &new, &[500..501]);
        assert_eq!(pieces, whole(&cutter, &new));
        assert!(read <= 80, "read {read} grains");
    }

    #[test]
    fn nothing_changed_reads_nothing() {
        let old: Vec<u8> = (0..100).collect();
        let cutter = cutter(Profile::Grain32k);
        assert_eq!(recut(&cutter, &old, &old, &[]), (whole(&cutter, &old), 0));
    }
}
