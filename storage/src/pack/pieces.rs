//! What a data or recipe frame holds in plaintext: a table of lengths, then the pieces.
//!
//! ```text
//! count u16 · lengths (data: grains u8 each; recipe: bytes u32 each) · pieces
//! ```
//! A piece's place is its distance from the first piece: in grains for chunks, in bytes for recipe nodes.

use std::ops::Range;

use bytes::Bytes;

use crate::error::FormatError;
use crate::limits::{FRAME_CHUNKS_PLAIN_MAX, GRAIN, RECIPE_NODE_MAX};
use crate::seal::FrameKind;

/// Collects the plaintext of a frame.
#[derive(Debug)]
pub struct PiecesBuilder {
    kind: FrameKind,
    lengths: Vec<u32>,
    bytes: usize,
}

impl PiecesBuilder {
    /// Begins a frame of chunks or of recipe nodes.
    ///
    /// # Panics
    /// For other kinds.
    pub fn new(kind: FrameKind) -> Self {
        assert!(
            matches!(kind, FrameKind::Data | FrameKind::Recipe),
            "only these hold pieces"
        );
        Self {
            kind,
            lengths: Vec::new(),
            bytes: 0,
        }
    }

    /// Notes a piece and returns its place.
    ///
    /// # Panics
    /// When a chunk is not whole grains or longer than a chunk may be.
    pub fn add(&mut self, length: usize) -> u32 {
        let place = self.bytes as u32;
        self.bytes += length;
        if self.kind == FrameKind::Data {
            let grains = length / GRAIN as usize;
            assert!(
                grains * GRAIN as usize == length && (1..=255).contains(&grains),
                "chunks are whole grains"
            );
            self.lengths.push(grains as u32);
            place / GRAIN
        } else {
            assert!(length <= RECIPE_NODE_MAX, "nodes are bounded");
            self.lengths.push(length as u32);
            place
        }
    }

    /// Bytes of pieces so far.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pieces so far.
    pub fn count(&self) -> usize {
        self.lengths.len()
    }

    /// The lengths, as the footer lists them.
    pub fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The table; the pieces follow it in order.
    pub fn table(&self) -> Vec<u8> {
        let mut plain = Vec::with_capacity(2 + self.lengths.len() * 4);
        plain.extend_from_slice(&(self.lengths.len() as u16).to_le_bytes());
        for length in &self.lengths {
            match self.kind {
                FrameKind::Data => plain.push(*length as u8),
                _ => plain.extend_from_slice(&length.to_le_bytes()),
            }
        }
        plain
    }
}

/// An opened frame of chunks or recipe nodes.
#[derive(Debug, Clone)]
pub struct Pieces {
    plain: Bytes,
    /// Where each piece starts in `plain`; one more for the end of the last.
    starts: Vec<u32>,
    unit: u32,
}

impl Pieces {
    /// Reads the table; the pieces must fill the rest exactly.
    ///
    /// # Errors
    /// Truncated or contradicting itself.
    pub fn parse(kind: FrameKind, plain: Bytes) -> Result<Self, FormatError> {
        let what = "frame table";
        let truncated = |need: usize| FormatError::Truncated {
            what,
            need: need as u64,
            have: plain.len() as u64,
        };
        if plain.len() > FRAME_CHUNKS_PLAIN_MAX {
            return Err(FormatError::TooLarge {
                what,
                value: plain.len() as u64,
                max: FRAME_CHUNKS_PLAIN_MAX as u64,
            });
        }
        let count = plain
            .first_chunk::<2>()
            .map(|b| usize::from(u16::from_le_bytes(*b)))
            .ok_or_else(|| truncated(2))?;
        let (unit, width) = match kind {
            FrameKind::Data => (GRAIN, 1),
            FrameKind::Recipe => (1, 4),
            _ => {
                return Err(FormatError::Malformed {
                    what,
                    why: "this kind of frame has none",
                });
            }
        };
        let table = plain
            .get(2..2 + count * width)
            .ok_or_else(|| truncated(2 + count * width))?;
        let mut at = (2 + count * width) as u64;
        let mut starts = Vec::with_capacity(count + 1);
        starts.push(at as u32);
        for length in table.chunks_exact(width) {
            let length = match length {
                [grains] => u64::from(*grains) * u64::from(GRAIN),
                four => u64::from(u32::from_le_bytes(four.try_into().expect("the width is four"))),
            };
            if length == 0 {
                return Err(FormatError::Malformed {
                    what,
                    why: "has an empty piece",
                });
            }
            at += length;
            if at > plain.len() as u64 {
                return Err(truncated(at as usize));
            }
            starts.push(at as u32);
        }
        if at != plain.len() as u64 {
            return Err(FormatError::Malformed {
                what,
                why: "bytes are left over after the last piece",
            });
        }
        Ok(Self { plain, starts, unit })
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn range(&self, index: usize) -> Range<usize> {
        self.starts[index] as usize..self.starts[index + 1] as usize
    }

    /// The pieces in order, each with its place.
    pub fn iter(&self) -> impl Iterator<Item = (u32, Bytes)> + '_ {
        (0..self.len()).map(|i| {
            (
                (self.starts[i] - self.starts[0]) / self.unit,
                self.plain.slice(self.range(i)),
            )
        })
    }

    /// The piece that starts at a place.
    ///
    /// # Errors
    /// [`FormatError::Malformed`] when none does.
    pub fn at(&self, place: u32) -> Result<Bytes, FormatError> {
        let start = u64::from(place) * u64::from(self.unit) + u64::from(self.starts[0]);
        let index = u32::try_from(start)
            .ok()
            .and_then(|start| self.starts.binary_search(&start).ok());
        match index {
            Some(index) if index < self.len() => Ok(self.plain.slice(self.range(index))),
            _ => Err(FormatError::Malformed {
                what: "frame",
                why: "has no piece at that place",
            }),
        }
    }

    /// Bytes of plaintext.
    pub fn bytes(&self) -> usize {
        self.plain.len()
    }
}
