//! Index segments: the footers of up to 256 packs in one object, so that an index is rebuilt with few requests.
//!
//! This is the codec of the plaintext; sealing is the envelope's, and what a footer says is the pack's.

use bytes::{Buf, Bytes};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};

use crate::error::FormatError;
use crate::ids::{ClusterId, PackId, PartId, SessionId, Writer};
use crate::limits;
use crate::stored;

/// The version that is written, and the only one that is read.
pub const SEGMENT_VERSION: u32 = 1;

/// Bytes left of [`limits::INDEX_SEGMENT_MAX`] for the envelope and the version field.
const ROOM: usize = 4096;
/// Most bytes of one pack's fields around its footer: tags, lengths, five numbers.
const PACK_ROOM: usize = 64;

const _: () = {
    // After any segment that is not full, the largest footer still fits; so a builder never refuses a legal footer.
    assert!(ROOM + limits::FOOTER_PLAIN_MAX + PACK_ROOM < limits::INDEX_SEGMENT_MAX);
};

const WHAT: &str = "index segment";

/// One pack of an index segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEntry {
    /// The pack.
    pub pack: PackId,
    /// Length of the pack object, bytes.
    pub length: u64,
    /// Plaintext of its footer.
    pub footer: Bytes,
}

/// Collects footers into one segment.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    packs: Vec<stored::SegmentPack>,
    bytes: usize,
}

impl SegmentBuilder {
    /// Starts an empty segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of packs so far.
    pub fn len(&self) -> usize {
        self.packs.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// Whether a footer of this many bytes can still be added.
    pub fn fits(&self, footer_length: usize) -> bool {
        self.packs.len() < limits::SEGMENT_PACKS_MAX
            && footer_length <= limits::FOOTER_PLAIN_MAX
            && ROOM + self.bytes + PACK_ROOM + footer_length <= limits::INDEX_SEGMENT_MAX
    }

    /// Adds a pack: its object's length and the plaintext of its footer. Returns whether the segment is full: the next footer
    /// may not fit any more, so finish. (Ask [`Self::fits`] to go on until one really does not.)
    ///
    /// # Errors
    /// [`FormatError::TooLarge`] for a pack or footer over the format's bounds, or one that does not fit a full segment.
    pub fn add(&mut self, pack: PackId, length: u64, footer: Bytes) -> Result<bool, FormatError> {
        check_lengths(length, footer.len())?;
        if !self.fits(footer.len()) {
            return Err(FormatError::TooLarge {
                what: "a segment's packs or bytes",
                value: (self.bytes + footer.len()) as u64,
                max: limits::INDEX_SEGMENT_MAX as u64,
            });
        }
        self.bytes += PACK_ROOM + footer.len();
        let Writer { cluster, session, part } = pack.writer;
        let writer = stored::WriterId {
            cluster: cluster.0,
            session: session.0,
            part: part.0,
        };
        self.packs.push(stored::SegmentPack {
            writer: Some(writer),
            seq: pack.seq,
            length,
            footer,
        });
        Ok(!self.fits(limits::FOOTER_PLAIN_MAX))
    }

    /// The segment's plaintext, at most [`limits::INDEX_SEGMENT_MAX`] less an envelope.
    pub fn finish(self) -> Vec<u8> {
        stored::IndexSegment {
            format_version: SEGMENT_VERSION,
            packs: self.packs,
        }
        .encode_to_vec()
    }
}

/// Reads a segment's plaintext. Footers share its memory.
///
/// # Errors
/// [`FormatError::Unsupported`] for another version; else what is wrong with the bytes. Memory beyond `plain` is bounded by
/// [`limits::SEGMENT_PACKS_MAX`], whatever the bytes say.
pub fn decode(plain: &Bytes) -> Result<Vec<SegmentEntry>, FormatError> {
    if plain.len() > limits::INDEX_SEGMENT_MAX {
        return Err(too_large(WHAT, plain.len() as u64, limits::INDEX_SEGMENT_MAX as u64));
    }
    // The generated decoder would build a message for each of millions of empty packs before anyone could count them.
    let packs = count_packs(plain.clone()).map_err(|_| malformed("not a protocol buffer"))?;
    if packs > limits::SEGMENT_PACKS_MAX {
        return Err(too_large(
            "number of packs in an index segment",
            packs as u64,
            limits::SEGMENT_PACKS_MAX as u64,
        ));
    }
    let segment = stored::IndexSegment::decode(plain.clone()).map_err(|_| malformed("not a protocol buffer"))?;
    if segment.format_version != SEGMENT_VERSION {
        return Err(FormatError::Unsupported {
            what: "index segment version",
            value: u64::from(segment.format_version),
        });
    }
    let mut entries: Vec<SegmentEntry> = Vec::with_capacity(segment.packs.len());
    for pack in segment.packs {
        check_lengths(pack.length, pack.footer.len())?;
        let writer = pack.writer.ok_or(malformed("a pack without writer"))?;
        let writer = Writer {
            cluster: ClusterId(writer.cluster),
            session: SessionId(writer.session),
            part: PartId(writer.part),
        };
        let id = PackId { writer, seq: pack.seq };
        if entries.iter().any(|entry| entry.pack == id) {
            return Err(malformed("a pack is listed twice"));
        }
        entries.push(SegmentEntry {
            pack: id,
            length: pack.length,
            footer: pack.footer,
        });
    }
    Ok(entries)
}

fn check_lengths(pack: u64, footer: usize) -> Result<(), FormatError> {
    if footer > limits::FOOTER_PLAIN_MAX {
        return Err(too_large(
            "length of a footer",
            footer as u64,
            limits::FOOTER_PLAIN_MAX as u64,
        ));
    }
    if pack > limits::PACK_MAX as u64 {
        return Err(too_large("length of a pack", pack, limits::PACK_MAX as u64));
    }
    Ok(())
}

fn count_packs(mut plain: Bytes) -> Result<usize, prost::DecodeError> {
    let mut packs = 0;
    while plain.has_remaining() {
        let (tag, wire) = decode_key(&mut plain)?;
        if (tag, wire) == (2, WireType::LengthDelimited) {
            packs += 1;
            let length = decode_varint(&mut plain)?;
            let inside = usize::try_from(length)
                .ok()
                .filter(|length| *length <= plain.remaining());
            // Longer than the rest: the decoder proper says so.
            plain.advance(inside.unwrap_or(plain.remaining()));
        } else {
            skip_field(wire, tag, &mut plain, prost::encoding::DecodeContext::default())?;
        }
    }
    Ok(packs)
}

fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed { what: WHAT, why }
}

fn too_large(what: &'static str, value: u64, max: u64) -> FormatError {
    FormatError::TooLarge { what, value, max }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;

    fn pack(seq: u32) -> PackId {
        PackId {
            writer: Writer {
                cluster: ClusterId(u64::MAX),
                session: SessionId(7),
                part: PartId(9),
            },
            seq,
        }
    }

    fn raw(version: u32, packs: Vec<stored::SegmentPack>) -> Bytes {
        stored::IndexSegment {
            format_version: version,
            packs,
        }
        .encode_to_vec()
        .into()
    }

    fn stored_pack(seq: u32) -> stored::SegmentPack {
        let writer = Some(stored::WriterId {
            cluster: 1,
            session: 2,
            part: 3,
        });
        stored::SegmentPack {
            writer,
            seq,
            length: 100,
            footer: Bytes::from_static(b"footer"),
        }
    }

    #[test]
    fn packs_come_back_in_order_with_their_footers() {
        let mut builder = SegmentBuilder::new();
        assert!(!builder.add(pack(0), 1000, Bytes::from_static(b"first")).unwrap());
        assert!(!builder.add(pack(1), limits::PACK_MAX as u64, Bytes::new()).unwrap());
        let entries = decode(&builder.finish().into()).unwrap();
        assert_eq!(
            entries,
            [
                SegmentEntry {
                    pack: pack(0),
                    length: 1000,
                    footer: Bytes::from_static(b"first")
                },
                SegmentEntry {
                    pack: pack(1),
                    length: limits::PACK_MAX as u64,
                    footer: Bytes::new()
                },
            ]
        );
    }

    #[test]
    fn a_segment_is_full_at_its_number_of_packs() {
        let mut builder = SegmentBuilder::new();
        for seq in 0..limits::SEGMENT_PACKS_MAX as u32 {
            let full = builder.add(pack(seq), 10, Bytes::from_static(b"x")).unwrap();
            assert_eq!(full, seq + 1 == limits::SEGMENT_PACKS_MAX as u32, "after pack {seq}");
        }
        assert!(builder.add(pack(256), 10, Bytes::new()).is_err());
        assert_eq!(
            decode(&builder.finish().into()).unwrap().len(),
            limits::SEGMENT_PACKS_MAX
        );
    }

    #[test]
    fn a_segment_that_is_not_full_takes_the_largest_footer_and_stays_under_its_bound() {
        let mut builder = SegmentBuilder::new();
        let mut seq = 0;
        while !builder.add(pack(seq), 10, vec![7; 1 << 20].into()).unwrap() {
            seq += 1;
        }
        assert!(seq > 5, "full after {seq} footers of 1 MiB");
        while builder.fits(1 << 20) {
            seq += 1;
            builder.add(pack(seq), 10, vec![7; 1 << 20].into()).unwrap();
        }
        let bytes = builder.finish();
        assert!(bytes.len() + 1024 <= limits::INDEX_SEGMENT_MAX);
        assert!(
            bytes.len() + (2 << 20) > limits::INDEX_SEGMENT_MAX,
            "{} bytes",
            bytes.len()
        );
    }

    #[test]
    fn lengths_over_the_formats_bounds_are_refused_on_both_ways() {
        let mut builder = SegmentBuilder::new();
        assert!(builder.add(pack(0), limits::PACK_MAX as u64 + 1, Bytes::new()).is_err());
        assert!(
            builder
                .add(pack(0), 1, vec![0; limits::FOOTER_PLAIN_MAX + 1].into())
                .is_err()
        );
        let long = stored::SegmentPack {
            length: limits::PACK_MAX as u64 + 1,
            ..stored_pack(0)
        };
        assert!(matches!(decode(&raw(1, vec![long])), Err(FormatError::TooLarge { .. })));
        let fat = stored::SegmentPack {
            footer: vec![0; limits::FOOTER_PLAIN_MAX + 1].into(),
            ..stored_pack(0)
        };
        assert!(matches!(decode(&raw(1, vec![fat])), Err(FormatError::TooLarge { .. })));
        assert!(matches!(
            decode(&vec![0; limits::INDEX_SEGMENT_MAX + 1].into()),
            Err(FormatError::TooLarge { .. })
        ));
    }

    #[test]
    fn another_version_is_unsupported_not_damaged() {
        let error = decode(&raw(2, vec![stored_pack(0)])).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn contradictions_are_refused() {
        let homeless = stored::SegmentPack {
            writer: None,
            ..stored_pack(0)
        };
        assert!(matches!(
            decode(&raw(1, vec![homeless])),
            Err(FormatError::Malformed { .. })
        ));
        let twice = vec![stored_pack(4), stored_pack(5), stored_pack(4)];
        assert!(matches!(decode(&raw(1, twice)), Err(FormatError::Malformed { .. })));
    }

    #[test]
    fn millions_of_empty_packs_are_refused_by_counting() {
        let bytes: Vec<u8> = [8, 1].into_iter().chain([18, 0].repeat(8 << 20 >> 1)).collect();
        let error = decode(&bytes.into()).unwrap_err();
        assert!(
            matches!(error, FormatError::TooLarge { value, .. } if value == 8 << 20 >> 1),
            "{error}"
        );
    }

    #[test]
    fn every_truncation_is_refused_or_lists_fewer_packs() {
        let whole = raw(1, (0..3).map(stored_pack).collect());
        for end in 0..whole.len() {
            if let Ok(entries) = decode(&whole.slice(..end)) {
                assert!(entries.len() < 3, "cut at {end}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes.into());
        }

        #[test]
        fn any_packs_survive_their_bytes(
            packs in proptest::collection::btree_map(any::<(u64, u32)>(), (0..1000u64, proptest::collection::vec(any::<u8>(), 0..50)), 0..20)
        ) {
            let mut builder = SegmentBuilder::new();
            let mut expected = Vec::new();
            for ((part, seq), (length, footer)) in packs {
                let writer = Writer { part: PartId(part), ..pack(0).writer };
                let entry = SegmentEntry { pack: PackId { writer, seq }, length, footer: footer.into() };
                builder.add(entry.pack, entry.length, entry.footer.clone()).unwrap();
                expected.push(entry);
            }
            prop_assert_eq!(decode(&builder.finish().into()).unwrap(), expected);
        }
    }
}
