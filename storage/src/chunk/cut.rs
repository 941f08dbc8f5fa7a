//! Where chunks end.
//!
//! On grain boundaries only: a chunk of at least `min` grains ends after a grain whose 64-bit keyed MAC is 0 modulo the profile's divisor; at
//! `max` grains; before a zero grain; at the end of the segment. The rule looks at nothing before the chunk's start, so cutting may begin at
//! any cut. The MAC covers the whole grain under a key of the vault: boundaries cannot be solved for from outside by someone who chooses
//! content and watches lengths (the attacks on gear and polynomial hashes published in 2025), and one-bit changes move them only here.

use aegis::aegis128l::Aegis128LMac;

use super::hole::is_zero;
use super::profile::{Lengths, Profile};
use crate::keys::Key;
use crate::limits::GRAIN;

/// A run of grains of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// Reads as zeros.
    Hole {
        /// Length in grains.
        grains: u16,
    },
    /// A chunk.
    Chunk {
        /// Length in grains.
        grains: u8,
    },
}

impl Piece {
    /// Length in grains.
    pub fn grains(self) -> u32 {
        match self {
            Self::Hole { grains } => u32::from(grains),
            Self::Chunk { grains } => u32::from(grains),
        }
    }
}

/// Cuts segments of one vault. Cheap to clone; holds the cut key.
#[derive(Clone)]
pub struct Cutter {
    lengths: Lengths,
    mac: Aegis128LMac<16>,
}

impl std::fmt::Debug for Cutter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cutter")
            .field("lengths", &self.lengths)
            .finish_non_exhaustive()
    }
}

impl Cutter {
    /// Makes one for a vault's profile and its `K_cut`.
    pub fn new(profile: Profile, cut: &Key) -> Self {
        let derived = cut.derive("tresor v1 cut mac", &[]);
        let mut key = [0; 16];
        key.copy_from_slice(&derived.expose()[..16]);
        Self {
            lengths: profile.lengths(),
            mac: Aegis128LMac::new(&key),
        }
    }

    fn ends_after(&self, grain: &[u8]) -> bool {
        let mut mac = self.mac.clone();
        mac.update(grain);
        let tag: [u8; 16] = mac.finalize();
        let (head, _) = tag.split_first_chunk::<8>().expect("a tag has 16 bytes");
        u64::from_le_bytes(*head).is_multiple_of(self.lengths.divisor)
    }

    /// Cuts `data`, which starts at a cut, into pieces that tile it, appending them to `pieces`.
    ///
    /// With `at_end`, `data` reaches to the end of its segment and is consumed whole. Without, the last run may go on beyond what is here: it is
    /// left out. Returns the grains consumed.
    ///
    /// # Panics
    /// When `data` is not whole grains or longer than a segment.
    pub fn cut(&self, data: &[u8], at_end: bool, pieces: &mut Vec<Piece>) -> u32 {
        let (grains, rest) = data.as_chunks::<{ GRAIN as usize }>();
        assert!(
            rest.is_empty() && grains.len() <= crate::limits::SEGMENT_GRAINS as usize,
            "whole grains of one segment"
        );
        let Lengths { min, divisor, max } = self.lengths;
        let mut consumed = 0;
        let mut chunk = 0_u32;
        let mut hole = 0_u32;
        for grain in grains {
            if is_zero(grain) {
                if chunk > 0 {
                    pieces.push(Piece::Chunk { grains: chunk as u8 });
                    consumed += chunk;
                    chunk = 0;
                }
                hole += 1;
                continue;
            }
            if hole > 0 {
                pieces.push(Piece::Hole { grains: hole as u16 });
                consumed += hole;
                hole = 0;
            }
            chunk += 1;
            if chunk == max || (chunk >= min && divisor != 0 && self.ends_after(grain)) {
                pieces.push(Piece::Chunk { grains: chunk as u8 });
                consumed += chunk;
                chunk = 0;
            }
        }
        if at_end && chunk > 0 {
            pieces.push(Piece::Chunk { grains: chunk as u8 });
            consumed += chunk;
        }
        if at_end && hole > 0 {
            pieces.push(Piece::Hole { grains: hole as u16 });
            consumed += hole;
        }
        consumed
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn cutter(profile: Profile) -> Cutter {
        Cutter::new(profile, &Key::from_bytes([7; 32]))
    }

    /// Grains of a few values, 0 among them, so that equal content and holes occur.
    pub(crate) fn segment(values: &[u8]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| std::iter::repeat_n(*v, GRAIN as usize))
            .collect()
    }

    fn values() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>(), any::<u8>()], 0..200)
    }

    proptest! {
        #[test]
        fn pieces_tile_the_segment_and_keep_the_bounds(values in values(), which in 0..3_usize) {
            let profile = Profile::ALL[which];
            let data = segment(&values);
            let mut pieces = Vec::new();
            prop_assert_eq!(cutter(profile).cut(&data, true, &mut pieces) as usize, values.len());
            let mut at = 0;
            for (i, piece) in pieces.iter().enumerate() {
                let range = &values[at..at + piece.grains() as usize];
                at += piece.grains() as usize;
                match piece {
                    Piece::Hole { .. } => {
                        prop_assert!(range.iter().all(|v| *v == 0));
                        let next_is_hole = matches!(pieces.get(i + 1), Some(Piece::Hole { .. }));
                        prop_assert!(!next_is_hole);
                    }
                    Piece::Chunk { grains } => {
                        prop_assert!(range.iter().all(|v| *v != 0));
                        prop_assert!(u32::from(*grains) <= profile.lengths().max);
                    }
                }
            }
            prop_assert_eq!(at, values.len());
        }

        #[test]
        fn cutting_may_begin_at_any_cut_and_stop_before_the_end(values in values(), stop in 0..200_usize) {
            let data = segment(&values);
            let cutter = cutter(Profile::Grain32k);
            let mut whole = Vec::new();
            cutter.cut(&data, true, &mut whole);
            let stop = stop.min(values.len()) * GRAIN as usize;
            let mut parts = Vec::new();
            let first = cutter.cut(&data[..stop], false, &mut parts) as usize * GRAIN as usize;
            cutter.cut(&data[first..], true, &mut parts);
            prop_assert_eq!(parts, whole);
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let data = segment(&(0..200).map(|v| v as u8 | 1).collect::<Vec<_>>());
        let cut = |key| {
            let mut pieces = Vec::new();
            Cutter::new(Profile::Grain32k, &Key::from_bytes([key; 32])).cut(&data, true, &mut pieces);
            pieces
        };
        assert_ne!(cut(1), cut(2));
    }
}
