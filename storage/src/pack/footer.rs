//! The footer of a pack: every frame, and every piece with its id.
//!
//! ```text
//! frames u32 · frames × { kind u8 · offset u32 · length u32 · plain length u32 · pieces u16 }
//! lengths of all pieces, frame after frame (data: grains u8; recipe: bytes u32) · ids of all pieces, 32 B each
//! ```
//! Lengths stand together and ids stand together, because the first compress and the second do not.

use crate::error::FormatError;
use crate::ids::{ChunkId, Location, PackId};
use crate::limits::{FOOTER_PLAIN_MAX, FRAME_CHUNKS_PLAIN_MAX, PACK_CHUNKS_MAX, PACK_FRAMES_MAX, PACK_MAX};
use crate::seal::{FRAME_OVERHEAD, FrameKind, OBJECT_HEADER};

const FRAME_ROW: usize = 15;

/// One frame as the footer lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FooterFrame {
    /// [`FrameKind::Data`] or [`FrameKind::Recipe`].
    pub kind: FrameKind,
    /// Where it starts in the pack.
    pub offset: u32,
    /// Its length in the pack, with its clear header.
    pub length: u32,
    /// Length of its plaintext.
    pub plain_length: u32,
    /// Its pieces: length (grains or bytes) and id.
    pub pieces: Vec<(u32, ChunkId)>,
}

/// A footer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// All frames but the footer itself, in the order of their offsets.
    pub frames: Vec<FooterFrame>,
}

impl Footer {
    /// Its plaintext.
    pub fn encode(&self) -> Vec<u8> {
        let pieces: usize = self.frames.iter().map(|f| f.pieces.len()).sum();
        let mut bytes = Vec::with_capacity(4 + self.frames.len() * FRAME_ROW + pieces * 36);
        bytes.extend_from_slice(&(self.frames.len() as u32).to_le_bytes());
        for frame in &self.frames {
            bytes.push(frame.kind.code());
            bytes.extend_from_slice(&frame.offset.to_le_bytes());
            bytes.extend_from_slice(&frame.length.to_le_bytes());
            bytes.extend_from_slice(&frame.plain_length.to_le_bytes());
            bytes.extend_from_slice(&(frame.pieces.len() as u16).to_le_bytes());
        }
        for frame in &self.frames {
            for (length, _) in &frame.pieces {
                match frame.kind {
                    FrameKind::Data => bytes.push(*length as u8),
                    _ => bytes.extend_from_slice(&length.to_le_bytes()),
                }
            }
        }
        for frame in &self.frames {
            for (_, id) in &frame.pieces {
                bytes.extend_from_slice(&id.0);
            }
        }
        bytes
    }

    /// Reads one; everything in it is bounded and inside a pack.
    ///
    /// # Errors
    /// Truncated, unsupported, over a bound or contradicting itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "footer";
        let malformed = |why| FormatError::Malformed { what, why };
        if bytes.len() > FOOTER_PLAIN_MAX {
            return Err(FormatError::TooLarge {
                what,
                value: bytes.len() as u64,
                max: FOOTER_PLAIN_MAX as u64,
            });
        }
        let mut rest = bytes;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at_checked(n).ok_or(FormatError::Truncated {
                what,
                need: n as u64,
                have: rest.len() as u64,
            })?;
            rest = tail;
            Ok::<_, FormatError>(head)
        };
        let u32_of = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes were taken"));
        let count = u32_of(take(4)?) as usize;
        if count > PACK_FRAMES_MAX {
            return Err(FormatError::TooLarge {
                what: "frames of a footer",
                value: count as u64,
                max: PACK_FRAMES_MAX as u64,
            });
        }
        let mut counts = Vec::with_capacity(count);
        let mut frames = Vec::with_capacity(count);
        let mut end = OBJECT_HEADER as u64;
        for _ in 0..count {
            let row = take(FRAME_ROW)?;
            let kind = FrameKind::parse(row[0])?;
            let frame = FooterFrame {
                kind,
                offset: u32_of(&row[1..5]),
                length: u32_of(&row[5..9]),
                plain_length: u32_of(&row[9..13]),
                pieces: Vec::new(),
            };
            if !matches!(kind, FrameKind::Data | FrameKind::Recipe) {
                return Err(malformed("lists a frame that holds no pieces"));
            }
            if u64::from(frame.offset) < end || (frame.length as usize) < FRAME_OVERHEAD {
                return Err(malformed("frames overlap"));
            }
            end = u64::from(frame.offset) + u64::from(frame.length);
            if end > PACK_MAX as u64 || frame.plain_length as usize > FRAME_CHUNKS_PLAIN_MAX {
                return Err(malformed("a frame is outside of any pack"));
            }
            counts.push(usize::from(u16::from_le_bytes([row[13], row[14]])));
            frames.push(frame);
        }
        if counts.iter().sum::<usize>() > PACK_CHUNKS_MAX {
            return Err(malformed("lists more pieces than a pack may have"));
        }
        for (frame, count) in frames.iter_mut().zip(&counts) {
            let width = if frame.kind == FrameKind::Data { 1 } else { 4 };
            frame.pieces = take(count * width)?
                .chunks_exact(width)
                .map(|b| (if width == 1 { u32::from(b[0]) } else { u32_of(b) }, ChunkId([0; 32])))
                .collect();
            if frame.pieces.iter().map(|(length, _)| u64::from(*length)).sum::<u64>() > FRAME_CHUNKS_PLAIN_MAX as u64 {
                return Err(malformed("a frame's pieces are longer than a frame"));
            }
        }
        for frame in &mut frames {
            for (_, id) in &mut frame.pieces {
                id.0.copy_from_slice(take(32)?);
            }
        }
        if !rest.is_empty() {
            return Err(malformed("bytes are left over"));
        }
        Ok(Self { frames })
    }

    /// Every piece with its location in the pack.
    pub fn entries(&self, pack: PackId) -> impl Iterator<Item = (ChunkId, Location)> + '_ {
        self.frames.iter().flat_map(move |frame| {
            frame.pieces.iter().scan(0_u32, move |place, (length, id)| {
                let location = Location {
                    pack,
                    frame_offset: frame.offset,
                    frame_length: frame.length,
                    place: *place,
                };
                *place += length;
                Some((*id, location))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn footers() -> impl Strategy<Value = Footer> {
        prop::collection::vec(
            (
                any::<bool>(),
                prop::collection::vec((1..33_u32, any::<[u8; 32]>()), 0..20),
            ),
            0..20,
        )
        .prop_map(|frames| {
            let mut offset = OBJECT_HEADER as u32;
            let frames = frames
                .into_iter()
                .map(|(data, pieces)| {
                    let frame = FooterFrame {
                        kind: if data { FrameKind::Data } else { FrameKind::Recipe },
                        offset,
                        length: 5000,
                        plain_length: 9000,
                        pieces: pieces.into_iter().map(|(length, id)| (length, ChunkId(id))).collect(),
                    };
                    offset += 5000;
                    frame
                })
                .collect();
            Footer { frames }
        })
    }

    proptest! {
        #[test]
        fn footers_read_back_and_cut_ones_are_refused(footer in footers(), cut in any::<prop::sample::Index>()) {
            let bytes = footer.encode();
            prop_assert_eq!(Footer::decode(&bytes), Ok(footer));
            prop_assert!(Footer::decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Footer::decode(&bytes);
        }
    }

    #[test]
    fn an_absurd_count_takes_no_memory() {
        assert!(Footer::decode(&u32::MAX.to_le_bytes()).is_err());
    }
}
