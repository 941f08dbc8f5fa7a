//! The plaintexts of a checkpoint's pieces.
//!
//! ```text
//! all      version u32 (1) · kind u32 (0 head, 1 packs, 2 entries)
//! head     slots u64 · entries u64 · packs u64 · pieces of packs u32 · pieces of entries u32 · pieces of entries × { first slot u8 · last slot u8 }
//! packs    a set of packs: writers u32 · writers × { cluster u64 · session u64 · part u64 · runs u32 } · runs of all × { first u32 · packs u32 }
//! entries  entries u32 · writers u32 · writers × { cluster u64 · session u64 · part u64 } · ids, 32 each
//!          · writer of each u32 · seq of each u32 · frame offset of each u32 · frame length of each u32 · place of each u32 · lost of each u8
//! ```
//! Columns stand together because they compress so and ids do not. Locations are not bounded here: an index takes what sessions say, and one odd location
//! must cost a failed read, not the checkpoint.

use crate::error::FormatError;
use crate::ids::{ChunkId, Location, PackId, Writer};
use crate::index::Found;
use crate::index::runs::{Runs, encode_writer, take, take_u32, take_u64, take_writer};
use crate::index::slot::{GROUP, slot_of};
use crate::limits::{CHECKPOINT_ENTRIES_MAX, CHECKPOINT_PIECE_MAX, CHECKPOINT_PIECES_MAX};

/// The version that is written, and the only one that is read.
const CHECKPOINT_VERSION: u32 = 1;

const WHAT: &str = "checkpoint of slots";
const HEAD: u32 = 0;
const PACKS: u32 = 1;
const ENTRIES: u32 = 2;
/// Bytes of an entry beside its writer.
const ENTRY: usize = 53;
const WRITER: usize = 24;
/// A set of packs is closed at half a piece: it grows by a writer and a run at once.
const SET_TARGET: usize = CHECKPOINT_PIECE_MAX / 2;

/// What the head says of the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The slots, as in the name.
    pub slots: u64,
    /// Entries of all pieces.
    pub entries: u64,
    /// Packs of all pieces.
    pub packs: u64,
    /// Pieces of packs; they are numbered from 1.
    pub pack_pieces: u32,
    /// Of each piece of entries, the slots of its first and its last entry within the group; numbered after those of packs.
    pub spans: Vec<(u8, u8)>,
}

/// A part of the set of packs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PackSet(pub(in crate::index) Runs);

impl PackSet {
    /// Adds a pack that stands behind all that are in; says whether it does.
    pub fn push(&mut self, pack: PackId) -> bool {
        self.0.ends().is_none_or(|(_, last)| last < pack) && self.0.push(pack)
    }

    /// Number of packs.
    pub fn packs(&self) -> u64 {
        self.0.packs()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the rest should go into another piece.
    pub fn is_full(&self) -> bool {
        self.0.encoded_length() >= SET_TARGET
    }

    /// Ranges of packs, ascending: of a writer, the first number and the last.
    pub fn ranges(&self) -> impl Iterator<Item = (Writer, u32, u32)> {
        let ranges = |(writer, runs): (Writer, &[(u32, u32)])| {
            runs.iter()
                .map(move |(first, last)| (writer, *first, *last))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(ranges)
    }
}

/// Entries, their ids ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entries(pub Vec<Found>);

/// A piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Piece 0.
    Head(Head),
    /// Packs.
    Packs(PackSet),
    /// Entries.
    Entries(Entries),
}

impl Piece {
    /// Its plaintext.
    ///
    /// # Panics
    /// When there are more entries than a piece takes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let kind = match self {
            Self::Head(_) => HEAD,
            Self::Packs(_) => PACKS,
            Self::Entries(_) => ENTRIES,
        };
        bytes.extend_from_slice(&CHECKPOINT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&kind.to_le_bytes());
        match self {
            Self::Head(head) => {
                for number in [head.slots, head.entries, head.packs] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                for number in [head.pack_pieces, head.spans.len() as u32] {
                    bytes.extend_from_slice(&number.to_le_bytes());
                }
                bytes.extend(head.spans.iter().flat_map(|(first, last)| [*first, *last]));
            }
            Self::Packs(set) => set.0.encode(&mut bytes),
            Self::Entries(Entries(entries)) => encode_entries(entries, &mut bytes),
        }
        bytes
    }

    /// Reads a plaintext. Memory is bounded by its length.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for another version; else what is wrong with it.
    pub fn decode(plain: &[u8]) -> Result<Self, FormatError> {
        if plain.len() > CHECKPOINT_PIECE_MAX {
            return Err(FormatError::TooLarge {
                what: "piece of a checkpoint",
                value: plain.len() as u64,
                max: CHECKPOINT_PIECE_MAX as u64,
            });
        }
        let mut rest = plain;
        let version = take_u32(&mut rest, WHAT)?;
        if version != CHECKPOINT_VERSION {
            return Err(FormatError::Unsupported {
                what: "checkpoint version",
                value: u64::from(version),
            });
        }
        let piece = match take_u32(&mut rest, WHAT)? {
            HEAD => Self::Head(decode_head(&mut rest)?),
            PACKS => Self::Packs(PackSet(Runs::decode(&mut rest, WHAT)?)),
            ENTRIES => Self::Entries(Entries(decode_entries(&mut rest)?)),
            _ => return Err(malformed("a piece of no kind")),
        };
        if !rest.is_empty() {
            return Err(malformed("bytes behind its end"));
        }
        Ok(piece)
    }
}

pub(super) fn malformed(why: &'static str) -> FormatError {
    FormatError::Malformed { what: WHAT, why }
}

fn decode_head(rest: &mut &[u8]) -> Result<Head, FormatError> {
    let [slots, entries, packs] = [take_u64(rest, WHAT)?, take_u64(rest, WHAT)?, take_u64(rest, WHAT)?];
    let [pack_pieces, entry_pieces] = [take_u32(rest, WHAT)?, take_u32(rest, WHAT)?];
    let pieces = u64::from(pack_pieces) + u64::from(entry_pieces) + 1;
    if pieces > CHECKPOINT_PIECES_MAX as u64 {
        return Err(FormatError::TooLarge {
            what: "number of pieces of a checkpoint",
            value: pieces,
            max: CHECKPOINT_PIECES_MAX as u64,
        });
    }
    let mut spans = Vec::with_capacity(entry_pieces as usize);
    let mut before = 0;
    for span in take(rest, u64::from(entry_pieces) * 2, WHAT)?.as_chunks::<2>().0 {
        let [first, last] = *span;
        if first < before || last < first || u16::from(last) >= GROUP {
            return Err(malformed("pieces are out of order"));
        }
        before = last;
        spans.push((first, last));
    }
    if slots == 0 {
        return Err(malformed("has no slots"));
    }
    if (entries == 0) != spans.is_empty() || (packs == 0) != (pack_pieces == 0) {
        return Err(malformed("its counts contradict its pieces"));
    }
    Ok(Head {
        slots,
        entries,
        packs,
        pack_pieces,
        spans,
    })
}

fn encode_entries(entries: &[Found], bytes: &mut Vec<u8>) {
    assert!(entries.len() <= CHECKPOINT_ENTRIES_MAX, "a piece has its bound");
    let mut writers: Vec<Writer> = entries.iter().map(|found| found.location.pack.writer).collect();
    writers.sort_unstable();
    writers.dedup();
    bytes.reserve_exact(8 + writers.len() * WRITER + entries.len() * ENTRY);
    bytes.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(writers.len() as u32).to_le_bytes());
    for writer in &writers {
        encode_writer(*writer, bytes);
    }
    for found in entries {
        bytes.extend_from_slice(&found.id.0);
    }
    for found in entries {
        let number = writers.binary_search(&found.location.pack.writer);
        let number = number.expect("all writers were collected") as u32;
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let columns: [fn(&Location) -> u32; 4] = [
        |location| location.pack.seq,
        |location| location.frame_offset,
        |location| location.frame_length,
        |location| location.place,
    ];
    for column in columns {
        for found in entries {
            bytes.extend_from_slice(&column(&found.location).to_le_bytes());
        }
    }
    bytes.extend(entries.iter().map(|found| u8::from(found.is_lost)));
}

fn decode_entries(rest: &mut &[u8]) -> Result<Vec<Found>, FormatError> {
    let count = take_u32(rest, WHAT)? as usize;
    if count > CHECKPOINT_ENTRIES_MAX {
        return Err(FormatError::TooLarge {
            what: "entries of a piece of a checkpoint",
            value: count as u64,
            max: CHECKPOINT_ENTRIES_MAX as u64,
        });
    }
    if count == 0 {
        return Err(malformed("a piece without entries"));
    }
    let writers = u64::from(take_u32(rest, WHAT)?);
    let mut rows = take(rest, writers * WRITER as u64, WHAT)?;
    let mut writers: Vec<Writer> = Vec::with_capacity(rows.len() / WRITER);
    while !rows.is_empty() {
        let writer = take_writer(&mut rows, WHAT)?;
        if writers.last().is_some_and(|before| *before >= writer) {
            return Err(malformed("writers are out of order"));
        }
        writers.push(writer);
    }
    let ids = take(rest, count as u64 * 32, WHAT)?.as_chunks::<32>().0;
    let mut columns: [&[[u8; 4]]; 5] = [&[]; 5];
    for column in &mut columns {
        *column = take(rest, count as u64 * 4, WHAT)?.as_chunks::<4>().0;
    }
    let lost = take(rest, count as u64, WHAT)?;
    let mut entries: Vec<Found> = Vec::with_capacity(count);
    for at in 0..count {
        let [number, seq, frame_offset, frame_length, place] = columns.map(|column| u32::from_le_bytes(column[at]));
        let id = ChunkId(ids[at]);
        if entries.last().is_some_and(|before| before.id >= id) {
            return Err(malformed("ids are out of order"));
        }
        let writer = *writers.get(number as usize).ok_or(malformed("an entry of no writer"))?;
        let is_lost = match lost[at] {
            0 => false,
            1 => true,
            _ => return Err(malformed("a flag that none has")),
        };
        let location = Location {
            pack: PackId { writer, seq },
            frame_offset,
            frame_length,
            place,
        };
        entries.push(Found { id, location, is_lost });
    }
    Ok(entries)
}

impl Entries {
    /// The slots of the first entry and the last, within their group.
    pub fn span(&self) -> Option<(u8, u8)> {
        let slot = |found: &Found| (slot_of(&found.id) % GROUP) as u8;
        Some((slot(self.0.first()?), slot(self.0.last()?)))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::Kind;
    use crate::ids::{ClusterId, PartId, SessionId};

    fn pack(part: u64, seq: u32) -> PackId {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(9),
            part: PartId(part),
        };
        PackId { writer, seq }
    }

    fn entries() -> impl Strategy<Value = Vec<Found>> {
        let numbers = any::<(u32, u32, u32, u32)>();
        proptest::collection::btree_map(any::<[u8; 32]>(), (0..4u64, numbers, any::<bool>()), 1..30).prop_map(|found| {
            let found =
                found.into_iter().map(
                    |(id, (part, (seq, frame_offset, frame_length, place), is_lost))| Found {
                        id: ChunkId(id),
                        location: Location {
                            pack: pack(part, seq),
                            frame_offset,
                            frame_length,
                            place,
                        },
                        is_lost,
                    },
                );
            found.collect()
        })
    }

    fn head() -> impl Strategy<Value = Head> {
        let spans = proptest::collection::btree_set(0..64u8, 0..8);
        (1..=u64::MAX, 1..99u64, 0..9u32, spans).prop_map(|(slots, some, pack_pieces, spans)| {
            let spans: Vec<_> = spans.into_iter().map(|slot| (slot, slot)).collect();
            Head {
                slots,
                entries: if spans.is_empty() { 0 } else { some },
                packs: if pack_pieces == 0 { 0 } else { some },
                pack_pieces,
                spans,
            }
        })
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let packs = proptest::collection::btree_set((0..4u64, 0..20u32), 0..40).prop_map(|packs| {
            let mut set = PackSet::default();
            for (part, seq) in packs {
                assert!(set.push(pack(part, seq)));
            }
            set
        });
        prop_oneof![
            head().prop_map(Piece::Head),
            packs.prop_map(Piece::Packs),
            entries().prop_map(|entries| Piece::Entries(Entries(entries))),
        ]
    }

    proptest! {
        #[test]
        fn any_piece_survives_its_bytes_and_no_cut_or_longer_ones_pass(piece in piece()) {
            let bytes = piece.encode();
            prop_assert_eq!(Piece::decode(&bytes), Ok(piece));
            for cut in 0..bytes.len() {
                prop_assert!(Piece::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
            prop_assert!(Piece::decode(&[&bytes[..], &[0]].concat()).is_err());
        }

        #[test]
        fn any_bytes_are_read_exactly_or_refused(kind in 0..4u8, bytes in proptest::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..200)) {
            let bytes = [&[1, 0, 0, 0, kind, 0, 0, 0], &bytes[..]].concat();
            if let Ok(piece) = Piece::decode(&bytes) {
                prop_assert_eq!(piece.encode().len(), bytes.len());
            }
        }
    }

    fn refused(bytes: &[u8], why: &str) {
        let error = Piece::decode(bytes).unwrap_err();
        assert!(error.to_string().contains(why), "{error}, not {why}");
    }

    #[test]
    fn contradictions_are_refused() {
        let found = |n: u8| Found {
            id: ChunkId([n; 32]),
            location: Location {
                pack: pack(1, 2),
                frame_offset: 3,
                frame_length: 4,
                place: 5,
            },
            is_lost: false,
        };
        let bytes = Piece::Entries(Entries(vec![found(1), found(2)])).encode();
        let mut twice = bytes.clone();
        twice[40 + 32..40 + 64].copy_from_slice(&[1; 32]);
        refused(&twice, "ids are out of order");
        let mut homeless = bytes.clone();
        homeless[40 + 64] = 1;
        refused(&homeless, "an entry of no writer");
        let mut odd = bytes.clone();
        *odd.last_mut().unwrap() = 2;
        refused(&odd, "a flag that none has");
        let mut many = bytes.clone();
        many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        refused(&many, "at most");
        let mut later = bytes;
        later[0] = 2;
        assert_eq!(Piece::decode(&later).unwrap_err().kind(), Kind::Unsupported);

        let head = Head {
            slots: 3,
            entries: 5,
            packs: 0,
            pack_pieces: 0,
            spans: vec![(0, 1), (1, 1)],
        };
        let with = |change: fn(&mut Head)| {
            let mut head = head.clone();
            change(&mut head);
            Piece::Head(head).encode()
        };
        assert!(Piece::decode(&with(|_| ())).is_ok());
        refused(&with(|head| head.spans[1] = (0, 1)), "out of order");
        refused(&with(|head| head.spans[1] = (1, 64)), "out of order");
        refused(&with(|head| head.entries = 0), "contradict");
        refused(&with(|head| head.packs = 1), "contradict");
        refused(&with(|head| head.slots = 0), "no slots");
        refused(&with(|head| head.pack_pieces = u32::MAX), "at most");
    }

    #[test]
    fn sets_of_packs_take_only_what_stands_behind() {
        let mut set = PackSet::default();
        assert!(set.push(pack(2, 5)));
        assert!(!set.push(pack(2, 5)));
        assert!(!set.push(pack(1, 6)));
        assert!(set.push(pack(2, 6)));
        assert_eq!(set.ranges().collect::<Vec<_>>(), [(pack(2, 0).writer, 5, 6)]);
    }
}
