//! Hints: locations, written small by tables of packs and frames.
//!
//! ```text
//! packs u16 · packs × { cluster u64 · session u64 · part u64 · seq u32 } · frames u16 · frames × { pack u16 · offset u32 · length u32 }
//! then per piece { frame u16 · place u32 or u16 }
//! ```

use std::collections::BTreeMap;

use crate::error::FormatError;
use crate::ids::{ClusterId, Location, PackId, PartId, SessionId, Writer};
use crate::limits::PACK_MAX;

/// Reads fixed-width numbers from a slice.
pub(super) struct Cursor<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], FormatError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(FormatError::Truncated {
            what: self.what,
            need: n as u64,
            have: self.rest.len() as u64,
        })?;
        self.rest = tail;
        Ok(head)
    }

    pub(super) fn u8(&mut self) -> Result<u8, FormatError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, FormatError> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("two bytes")))
    }

    pub(super) fn u32(&mut self) -> Result<u32, FormatError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes")))
    }

    fn u64(&mut self) -> Result<u64, FormatError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes")))
    }

    pub(super) fn malformed(&self, why: &'static str) -> FormatError {
        FormatError::Malformed { what: self.what, why }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn finish(self) -> Result<(), FormatError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.malformed("bytes are left over"))
        }
    }
}

/// Appends the hints of pieces.
pub(super) fn encode(locations: &[Location], out: &mut Vec<u8>) {
    let mut packs: BTreeMap<PackId, u16> = BTreeMap::new();
    let mut pack_list = Vec::new();
    let mut frames: BTreeMap<(PackId, u32), u16> = BTreeMap::new();
    let mut frame_list = Vec::new();
    let mut rows = Vec::with_capacity(locations.len());
    for location in locations {
        let pack = *packs.entry(location.pack).or_insert_with(|| {
            pack_list.push(location.pack);
            (pack_list.len() - 1) as u16
        });
        let frame = *frames.entry((location.pack, location.frame_offset)).or_insert_with(|| {
            frame_list.push((pack, location.frame_offset, location.frame_length));
            (frame_list.len() - 1) as u16
        });
        rows.push((frame, location.place));
    }
    out.extend_from_slice(&(pack_list.len() as u16).to_le_bytes());
    for pack in pack_list {
        for number in [pack.writer.cluster.0, pack.writer.session.0, pack.writer.part.0] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&pack.seq.to_le_bytes());
    }
    out.extend_from_slice(&(frame_list.len() as u16).to_le_bytes());
    for (pack, offset, length) in frame_list {
        out.extend_from_slice(&pack.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
    }
    // Columns: frames repeat and places ascend, so each compresses better alone.
    for (frame, _) in &rows {
        out.extend_from_slice(&frame.to_le_bytes());
    }
    for (_, place) in &rows {
        out.extend_from_slice(&place.to_le_bytes()[..3]);
    }
}

/// Reads the hints of `count` pieces.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Location>, FormatError> {
    let packs = usize::from(cursor.u16()?);
    if packs > count {
        return Err(cursor.malformed("names more packs than pieces"));
    }
    let mut pack_list = Vec::with_capacity(packs);
    for _ in 0..packs {
        let writer = Writer {
            cluster: ClusterId(cursor.u64()?),
            session: SessionId(cursor.u64()?),
            part: PartId(cursor.u64()?),
        };
        pack_list.push(PackId {
            writer,
            seq: cursor.u32()?,
        });
    }
    let frames = usize::from(cursor.u16()?);
    if frames > count {
        return Err(cursor.malformed("names more frames than pieces"));
    }
    let mut frame_list = Vec::with_capacity(frames);
    for _ in 0..frames {
        let pack = usize::from(cursor.u16()?);
        let (offset, length) = (cursor.u32()?, cursor.u32()?);
        let pack = *pack_list
            .get(pack)
            .ok_or_else(|| cursor.malformed("a frame is in no pack"))?;
        if u64::from(offset) + u64::from(length) > PACK_MAX as u64 {
            return Err(cursor.malformed("a frame is outside of any pack"));
        }
        frame_list.push((pack, offset, length));
    }
    let indexes = cursor.take(count * 2)?;
    let places = cursor.take(count * 3)?;
    indexes
        .as_chunks::<2>()
        .0
        .iter()
        .zip(places.as_chunks::<3>().0)
        .map(|(index, place)| {
            let index = usize::from(u16::from_le_bytes(*index));
            let (pack, frame_offset, frame_length) = *frame_list
                .get(index)
                .ok_or_else(|| cursor.malformed("a piece is in no frame"))?;
            let place = u32::from_le_bytes([place[0], place[1], place[2], 0]);
            Ok(Location {
                pack,
                frame_offset,
                frame_length,
                place,
            })
        })
        .collect()
}
