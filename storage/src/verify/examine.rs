//! Examining one pack in memory: everything that can be said of its bytes, with and without keys. Pure.

use super::finding::{Fault, FindingKind, Spot};
use crate::chunk::IdKeys;
use crate::error::{Error, FormatError, Result};
use crate::ids::{ChunkId, PackId, VaultId};
use crate::limits::{GRAIN, PACK_MAX};
use crate::pack::{Footer, FooterFrame, PackKeys, PackShape, TRAILER, Trailer};
use crate::recipe::{Leaf, Node};
use crate::seal::{FrameHeader, FrameKind, OBJECT_HEADER, ObjectHeader, ObjectKind};
use crate::vault::{Vault, open_pieces};

/// Places that only look like the start of a frame, tried before the search for the next frame is given up. Each costs a checksum over at most a few MiB,
/// so that a pack made to look like frames everywhere takes bounded time.
const RESYNC_TRIES: usize = 64;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Checksums. Keys, when there are any, only help to say which frames are damaged.
    Checks,
    /// Every frame is opened and every piece is named again.
    Contents,
}

/// What was seen of a pack.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) faults: Vec<Fault>,
    /// Frames and pieces that are as they must be.
    pub(super) frames: u64,
    pub(super) pieces: u64,
    /// The index segment lists another footer than the pack has.
    pub(super) segment_differs: bool,
}

/// Examines the bytes under the name of pack `id`. `listed` is the footer as an index segment has it: it stands in for an unreadable one.
///
/// # Errors
/// When the key ring may not open what it is asked to; damage is in the verdict.
pub(super) fn examine(
    vault: VaultId,
    id: PackId,
    pack: &[u8],
    depth: Depth,
    keys: Option<&Vault>,
    listed: Option<&[u8]>,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let header =
        ObjectHeader::parse(pack).and_then(|header| header.expect(ObjectKind::Pack, vault, Some((id.writer, id.seq))));
    if let Err(error) = header {
        verdict.faults.push(Fault::format(Spot::Pack(id), &error));
        return Ok(verdict);
    }
    let shape = PackShape::check(vault, id, pack);
    let Some(context) = keys.filter(|_| depth == Depth::Contents || shape.is_err()) else {
        match &shape {
            Ok(shape) => verdict.frames = shape.frames.len() as u64 - 1,
            Err(error) => without_keys(id, pack, error, &mut verdict),
        }
        return Ok(verdict);
    };
    let keys = match PackKeys::from_header(&context.keyring, vault, id, pack) {
        Ok(keys) => keys,
        Err(error) => {
            verdict.faults.push(fault_of(Spot::Pack(id), error)?);
            return Ok(verdict);
        }
    };
    let scan = Scan::of(pack);
    let own = read_own_footer(&keys, pack, &scan);
    let footer = match own {
        Ok((footer, plain)) => {
            verdict.segment_differs = listed.is_some_and(|listed| listed != plain);
            Some(footer)
        }
        Err(error) => {
            verdict.faults.push(fault_of(Spot::Footer(id), error)?);
            listed.and_then(|plain| Footer::decode(plain).ok())
        }
    };
    let Some(footer) = footer else {
        verdict.frames = scan.good.len() as u64;
        verdict.faults.extend(scan.faults(id));
        return Ok(verdict);
    };
    for (number, row) in footer.frames.iter().enumerate() {
        match check_frame(context, &keys, pack, number, row, depth) {
            Ok(pieces) => {
                verdict.frames += 1;
                verdict.pieces += pieces;
            }
            Err(error) => verdict.faults.push(fault_of(Spot::Frame(id, row.offset), error)?),
        }
    }
    match shape {
        Ok(shape) if shape.frames.len() != footer.frames.len() + 1 => {
            let error = FormatError::Malformed {
                what: "footer",
                why: "lists other frames than the pack has",
            };
            verdict.faults.push(Fault::format(Spot::Footer(id), &error));
        }
        // The frames are whole, so is the header: only the trailer, or bytes that nobody needs, can differ.
        Err(error) if verdict.faults.is_empty() => verdict.faults.push(Fault::format(Spot::Footer(id), &error)),
        _ => {}
    }
    Ok(verdict)
}

fn fault_of(spot: Spot, error: Error) -> Result<Fault> {
    match FindingKind::of(&error) {
        Some(kind) => Ok(Fault {
            spot,
            kind,
            what: error.chain(),
        }),
        None => Err(error),
    }
}

/// What the checksums alone say of a pack that is not as it must be.
fn without_keys(id: PackId, pack: &[u8], error: &FormatError, verdict: &mut Verdict) {
    let scan = Scan::of(pack);
    verdict.frames = scan
        .good
        .iter()
        .filter(|(_, frame)| frame.kind != FrameKind::Footer)
        .count() as u64;
    verdict.faults.extend(scan.faults(id));
    if !verdict.faults.is_empty() {
        return;
    }
    let has_footer = scan
        .good
        .last()
        .is_some_and(|(_, frame)| frame.kind == FrameKind::Footer);
    // A hash that differs over frames that are right: the header's salt or the trailer itself. Only a key can tell.
    let spot = match error {
        FormatError::Checksum { .. } => Spot::Pack(id),
        _ if has_footer => Spot::Footer(id),
        _ if scan.good.is_empty() => Spot::Pack(id),
        _ => Spot::Footer(id),
    };
    verdict.faults.push(Fault::format(spot, error));
}

fn read_own_footer(keys: &PackKeys, pack: &[u8], scan: &Scan) -> Result<(Footer, Vec<u8>)> {
    let by_trailer = pack
        .len()
        .checked_sub(TRAILER)
        .ok_or(FormatError::Truncated {
            what: "pack",
            need: (OBJECT_HEADER + TRAILER) as u64,
            have: pack.len() as u64,
        })
        .and_then(|end| Trailer::parse(&pack[end..], pack.len() as u64).map(|trailer| trailer.footer_offset as usize));
    let offset = match (
        by_trailer,
        scan.good.iter().find(|(_, frame)| frame.kind == FrameKind::Footer),
    ) {
        (Ok(offset), _) => offset,
        (Err(_), Some((offset, _))) => *offset as usize,
        (Err(error), None) => return Err(error.into()),
    };
    let (header, plain) = keys.seal.open(pack.get(offset..).unwrap_or_default())?;
    if header.kind != FrameKind::Footer {
        return Err(FormatError::Malformed {
            what: "footer",
            why: "is another kind of frame",
        }
        .into());
    }
    Ok((Footer::decode(&plain)?, plain))
}

/// Checks a frame against its row in the footer; returns the pieces that were named again.
fn check_frame(
    vault: &Vault,
    keys: &PackKeys,
    pack: &[u8],
    number: usize,
    row: &FooterFrame,
    depth: Depth,
) -> Result<u64> {
    let differs = |why| Error::from(FormatError::Malformed { what: "frame", why });
    let end = row.offset as usize + row.length as usize;
    let need = end as u64;
    let Some(frame) = pack.get(row.offset as usize..end) else {
        return Err(FormatError::Truncated {
            what: "pack",
            need,
            have: pack.len() as u64,
        }
        .into());
    };
    let header = FrameHeader::parse(frame)?;
    if header.number as usize != number
        || header.kind != row.kind
        || header.length() != frame.len()
        || header.plain_length != row.plain_length
    {
        return Err(differs("is another one than the footer lists there"));
    }
    header.check(frame)?;
    if depth == Depth::Checks {
        return Ok(0);
    }
    let pieces = open_pieces(keys, row.kind, frame)?;
    if pieces.len() != row.pieces.len() {
        return Err(differs("has another number of pieces than the footer lists"));
    }
    let unit = if row.kind == FrameKind::Data { GRAIN as usize } else { 1 };
    for ((place, piece), (length, id)) in pieces.iter().zip(&row.pieces) {
        if piece.len() != *length as usize * unit {
            return Err(differs("has a piece of another length than the footer lists"));
        }
        if !is_named(&vault.ids, row.kind, *id, &piece) {
            return Err(Error::While {
                doing: format!("check piece {id} at {place}"),
                source: Box::new(differs("the piece is not what its name says")),
            });
        }
    }
    Ok(pieces.len() as u64)
}

/// Whether a piece is the chunk, leaf or node of that name.
pub(super) fn is_named(ids: &IdKeys, kind: FrameKind, id: ChunkId, piece: &[u8]) -> bool {
    if kind == FrameKind::Data {
        return ids.chunk(piece) == id;
    }
    let u16_at = |at: usize| {
        piece
            .get(at..at + 2)
            .map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))
    };
    match piece.first() {
        Some(b'L') => {
            // The leaf of any segment will do: it must tile as many grains as it says.
            let Some(lengths) = u16_at(1).and_then(|count| piece.get(3..3 + count * 2)) else {
                return false;
            };
            let grains = lengths
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| u32::from(u16::from_le_bytes(*b) & 0x7fff))
                .sum();
            Leaf::decode(piece, ids, id, grains).is_ok()
        }
        Some(b'N') => match (piece.get(1), u16_at(2)) {
            (Some(level), Some(children)) => Node::decode(piece, ids, id, *level, children).is_ok(),
            _ => false,
        },
        _ => false,
    }
}

/// The frames of a pack by their clear headers and checksums alone, going on behind damaged ones.
#[derive(Debug, Default)]
struct Scan {
    good: Vec<(u32, FrameHeader)>,
    bad: Vec<Gap>,
}

/// Where frames must be and are damaged, or are not there.
#[derive(Debug)]
struct Gap {
    start: u32,
    /// Where the next good frame starts; the bound of packs when there is none.
    end: u32,
    /// Whether it is one frame, by the length that its header says.
    is_one: bool,
    /// Whether it is the footer's frame, by what the trailer says.
    is_footer: bool,
    error: FormatError,
}

impl Scan {
    fn of(pack: &[u8]) -> Self {
        let mut scan = Self::default();
        let mut at = OBJECT_HEADER;
        let mut next = 0;
        let mut tries = RESYNC_TRIES;
        let mut has_footer = false;
        let end = pack.len().saturating_sub(TRAILER);
        let trailer = Trailer::parse(&pack[end..], pack.len() as u64).ok();
        let is_footer = |at: usize| trailer.is_some_and(|trailer| trailer.footer_offset == at as u64);
        while at + TRAILER < pack.len() && at < PACK_MAX && !has_footer {
            match frame_at(pack, at) {
                Ok(frame) if frame.number == next => {
                    has_footer = frame.kind == FrameKind::Footer;
                    scan.good.push((at as u32, frame));
                    at += frame.length();
                    next += 1;
                }
                found => {
                    let strange = FormatError::Malformed {
                        what: "frame",
                        why: "has another number than its place",
                    };
                    let error = found.err().unwrap_or(strange);
                    let behind = next_frame(pack, at + 1, next, &mut tries);
                    let end = behind.map_or(PACK_MAX, |(start, _)| start);
                    let is_one = FrameHeader::parse(&pack[at..]).is_ok_and(|frame| at + frame.length() == end);
                    scan.bad.push(Gap {
                        start: at as u32,
                        end: end as u32,
                        is_one,
                        is_footer: is_footer(at),
                        error,
                    });
                    let Some((start, frame)) = behind else { return scan };
                    (at, next) = (start, frame.number);
                }
            }
        }
        if !has_footer {
            // Cut between two frames, or in one that is shorter than a trailer: what came behind is not known.
            let error = FormatError::Truncated {
                what: "pack",
                need: (at + TRAILER + 1) as u64,
                have: pack.len() as u64,
            };
            scan.bad.push(Gap {
                start: at as u32,
                end: PACK_MAX as u32,
                is_one: false,
                is_footer: is_footer(at),
                error,
            });
        }
        scan
    }

    fn faults(&self, id: PackId) -> impl Iterator<Item = Fault> + '_ {
        self.bad.iter().map(move |gap| {
            let spot = match gap {
                Gap { is_footer: true, .. } => Spot::Footer(id),
                Gap {
                    is_one: true, start, ..
                } => Spot::Frame(id, *start),
                Gap { start, end, .. } => Spot::Range(id, *start, *end),
            };
            Fault::format(spot, &gap.error)
        })
    }
}

/// The first frame behind a damaged one.
fn next_frame(pack: &[u8], from: usize, after: u32, tries: &mut usize) -> Option<(usize, FrameHeader)> {
    (from..pack.len().min(PACK_MAX)).find_map(|start| {
        let frame = FrameHeader::parse(&pack[start..])
            .ok()
            .filter(|frame| frame.number > after && *tries > 0)?;
        *tries -= 1;
        frame.check(&pack[start..]).ok().map(|()| (start, frame))
    })
}

fn frame_at(pack: &[u8], at: usize) -> Result<FrameHeader, FormatError> {
    let frame = FrameHeader::parse(&pack[at..])?;
    frame.check(&pack[at..])?;
    Ok(frame)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::Memory;
    use crate::chunk::Profile;
    use crate::ids::{ClusterId, PartId, SessionId, Writer};
    use crate::keys::Keyring;
    use crate::pack::{PackBuilder, PiecesBuilder};
    use crate::seal::compress;

    const ID: PackId = PackId {
        writer: Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(3),
        },
        seq: 4,
    };

    struct Sample {
        vault: Vault,
        pack: Vec<u8>,
        footer: Vec<u8>,
        /// Where each data frame starts; the footer's last.
        starts: Vec<usize>,
    }

    /// A pack of five frames of one chunk each.
    fn sample() -> Sample {
        let vault = Vault::new(
            VaultId([7; 16]),
            Profile::default(),
            Arc::new(Memory::new()),
            Keyring::generate(),
        );
        let mut builder = PackBuilder::new(&vault.keyring, vault.id, ID).unwrap();
        let mut starts = Vec::new();
        for n in 1..=5_u8 {
            let chunk = [n; GRAIN as usize];
            let mut table = PiecesBuilder::new(FrameKind::Data);
            table.add(chunk.len());
            let plain = [table.table(), chunk.to_vec()].concat();
            let placed = builder
                .place(
                    FrameKind::Data,
                    &table,
                    &[vault.ids.chunk(&chunk)],
                    &compress(&plain, 1),
                )
                .unwrap();
            starts.push(placed.offset as usize);
        }
        let finished = builder.finish().unwrap();
        let pack = finished.object.to_vec();
        let shape = PackShape::check(vault.id, ID, &pack).unwrap();
        starts.push(shape.trailer.footer_offset as usize);
        Sample {
            vault,
            footer: finished.footer_plain.to_vec(),
            pack,
            starts,
        }
    }

    impl Sample {
        fn look(&self, pack: &[u8], depth: Depth, keyed: bool, listed: bool) -> Verdict {
            let (keys, listed) = (keyed.then_some(&self.vault), listed.then_some(self.footer.as_slice()));
            examine(self.vault.id, ID, pack, depth, keys, listed).unwrap()
        }

        fn spots(&self, pack: &[u8], keyed: bool, listed: bool) -> Vec<Spot> {
            self.look(pack, Depth::Checks, keyed, listed)
                .faults
                .into_iter()
                .map(|fault| fault.spot)
                .collect()
        }
    }

    #[test]
    fn a_whole_pack_has_no_faults() {
        let sample = sample();
        for (depth, keyed, pieces) in [
            (Depth::Checks, false, 0),
            (Depth::Checks, true, 0),
            (Depth::Contents, true, 5),
        ] {
            let verdict = sample.look(&sample.pack, depth, keyed, true);
            assert_eq!(
                (verdict.faults, verdict.frames, verdict.pieces, verdict.segment_differs),
                (vec![], 5, pieces, false)
            );
        }
        let other = examine(
            sample.vault.id,
            ID,
            &sample.pack,
            Depth::Contents,
            Some(&sample.vault),
            Some(b"another"),
        )
        .unwrap();
        assert!(other.segment_differs);
    }

    #[test]
    fn a_damaged_frame_is_told_from_its_neighbours_with_and_without_keys() {
        let sample = sample();
        let second = Spot::Frame(ID, sample.starts[1] as u32);
        let mut pack = sample.pack.clone();
        pack[sample.starts[1] + 40] ^= 1;
        for (keyed, listed) in [(false, false), (true, false), (true, true)] {
            assert_eq!(sample.spots(&pack, keyed, listed), std::slice::from_ref(&second));
        }
        // The header of the frame: without a key only the range is known.
        let mut pack = sample.pack.clone();
        pack[sample.starts[1]] ^= 1;
        assert_eq!(sample.spots(&pack, true, false), [second]);
        let range = Spot::Range(ID, sample.starts[1] as u32, sample.starts[2] as u32);
        assert_eq!(sample.spots(&pack, false, false), [range]);
    }

    #[test]
    fn a_damaged_footer_or_trailer_harms_no_frame() {
        let sample = sample();
        for at in [sample.starts[5] + 35, sample.pack.len() - 20] {
            let mut pack = sample.pack.clone();
            pack[at] ^= 1;
            for listed in [true, false] {
                let spots = sample.spots(&pack, true, listed);
                assert!(spots.contains(&Spot::Footer(ID)), "byte {at}: {spots:?}");
                let harmed: Vec<_> = spots.iter().filter(|spot| !matches!(spot, Spot::Footer(_))).collect();
                assert!(harmed.is_empty(), "byte {at}: {spots:?}");
            }
            assert!(!sample.spots(&pack, false, false).is_empty());
        }
    }

    #[test]
    fn wherever_a_pack_is_cut_what_is_before_is_not_lost_and_what_is_behind_is() {
        let sample = sample();
        for length in 0..sample.pack.len() {
            let cut = &sample.pack[..length];
            assert!(!sample.spots(cut, false, false).is_empty(), "{length}");
            for listed in [true, false] {
                let spots = sample.spots(cut, true, listed);
                assert!(!spots.is_empty(), "{length}");
                for (i, start) in sample.starts[..5].iter().enumerate() {
                    let is_whole = length >= sample.starts[i + 1];
                    let lost = spots.iter().any(|spot| match spot {
                        Spot::Pack(_) => true,
                        Spot::Frame(_, at) => *at as usize == *start,
                        Spot::Range(_, from, to) => (*from as usize..*to as usize).contains(start),
                        _ => false,
                    });
                    // Without a footer the last bytes before the cut are taken for a trailer's.
                    let is_sure = listed || length > sample.starts[i + 1] + TRAILER;
                    assert!(
                        !(is_whole && is_sure && lost),
                        "{length}: frame {i} is said to be lost: {spots:?}"
                    );
                    assert!(
                        is_whole || lost,
                        "{length}: frame {i} is not said to be lost: {spots:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn another_packs_bytes_are_foreign_and_a_newer_version_unsupported() {
        let sample = sample();
        let other = examine(
            sample.vault.id,
            PackId { seq: 5, ..ID },
            &sample.pack,
            Depth::Checks,
            None,
            None,
        )
        .unwrap();
        assert_eq!(other.faults[0].kind, FindingKind::Foreign);
        let mut newer = sample.pack.clone();
        newer[4] = 9;
        assert_eq!(
            sample.look(&newer, Depth::Contents, true, true).faults[0].kind,
            FindingKind::Unsupported
        );
    }

    #[test]
    fn bytes_that_look_like_frames_everywhere_take_bounded_time() {
        let sample = sample();
        let mut pack = sample.pack[..sample.starts[1]].to_vec();
        // A frame header that claims a MiB, again and again.
        let mut header = sample.pack[sample.starts[1]..sample.starts[1] + 28].to_vec();
        header[12..16].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        header[16..20].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        header[4..8].copy_from_slice(&99_u32.to_le_bytes());
        pack.extend(header.repeat((8 << 20) / 28));
        let begun = std::time::Instant::now();
        assert!(!sample.spots(&pack, true, false).is_empty());
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
}
