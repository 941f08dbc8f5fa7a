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
pub(super) fn examine(vault: VaultId, id: PackId, pack: &[u8], depth: Depth, keys: Option<&Vault>, listed: Option<&[u8]>) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let header = ObjectHeader::parse(pack).and_then(|header| header.expect(ObjectKind::Pack, vault, Some((id.writer, id.seq))));
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
            let error = FormatError::Malformed { what: "footer", why: "lists other frames than the pack has" };
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
        Some(kind) => Ok(Fault { spot, kind, what: error.chain() }),
        None => Err(error),
    }
}

/// What the checksums alone say of a pack that is not as it must be.
fn without_keys(id: PackId, pack: &[u8], error: &FormatError, verdict: &mut Verdict) {
    let scan = Scan::of(pack);
    verdict.frames = scan.good.iter().filter(|(_, frame)| frame.kind != FrameKind::Footer).count() as u64;
    verdict.faults.extend(scan.faults(id));
    if !verdict.faults.is_empty() {
        return;
    }
    let has_footer = scan.good.last().is_some_and(|(_, frame)| frame.kind == FrameKind::Footer);
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
        .ok_or(FormatError::Truncated { what: "pack", need: (OBJECT_HEADER + TRAILER) as u64, have: pack.len() as u64 })
        .and_then(|end| Trailer::parse(&pack[end..], pack.len() as u64).map(|trailer| trailer.footer_offset as usize));
    let offset = match (by_trailer, scan.good.iter().find(|(_, frame)| frame.kind == FrameKind::Footer)) {
        (Ok(offset), _) => offset,
        (Err(_), Some((offset, _))) => *offset as usize,
        (Err(error), None) => return Err(error.into()),
    };
    let (header, plain) = keys.seal.open(pack.get(offset..).unwrap_or_default())?;
    if header.kind != FrameKind::Footer {
        return Err(FormatError::Malformed { what: "footer", why: "is another kind of frame" }.into());
    }
    Ok((Footer::decode(&plain)?, plain))
}

/// Checks a frame against its row in the footer; returns the pieces that were named again.
fn check_frame(vault: &Vault, keys: &PackKeys, pack: &[u8], number: usize, row: &FooterFrame, depth: Depth) -> Result<u64> {
    let differs = |why| Error::from(FormatError::Malformed { what: "frame", why });
    let end = row.offset as usize + row.length as usize;
    let need = end as u64;
    let Some(frame) = pack.get(row.offset as usize..end) else {
        return Err(FormatError::Truncated { what: "pack", need, have: pack.len() as u64 }.into());
    };
    let header = FrameHeader::parse(frame)?;
    if header.number as usize != number || header.kind != row.kind || header.length() != frame.len() || header.plain_length != row.plain_length {
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
    let u16_at = |at: usize| piece.get(at..at + 2).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])));
    match piece.first() {
        Some(b'L') => {
            // The leaf of any segment will do: it must tile as many grains as it says.
            let Some(lengths) = u16_at(1).and_then(|count| piece.get(3..3 + count * 2)) else { return false };
            let grains = lengths.as_chunks::<2>().0.iter().map(|b| u32::from(u16::from_le_bytes(*b) & 0x7fff)).sum();
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
    error: FormatError,
}

impl Scan {
    fn of(pack: &[u8]) -> Self {
        let mut scan = Self::default();
        let mut at = OBJECT_HEADER;
        let mut next = 0;
        let mut tries = RESYNC_TRIES;
        let mut has_footer = false;
        while at + TRAILER < pack.len() && at < PACK_MAX && !has_footer {
            match frame_at(pack, at) {
                Ok(frame) if frame.number == next => {
                    has_footer = frame.kind == FrameKind::Footer;
                    scan.good.push((at as u32, frame));
                    at += frame.length();
                    next += 1;
                }
                found => {
                    let strange = FormatError::Malformed { what: "frame", why: "has another number than its place" };
                    let error = found.err().unwrap_or(strange);
                    let behind = next_frame(pack, at + 1, next, &mut tries);
                    let end = behind.map_or(PACK_MAX, |(start, _)| start);
                    let is_one = FrameHeader::parse(&pack[at..]).is_ok_and(|frame| at + frame.length() == end);
                    scan.bad.push(Gap { start: at as u32, end: end as u32, is_one, error });
                    let Some((start, frame)) = behind else { return scan };
                    (at, next) = (start, frame.number);
                }
            }
        }
        if !has_footer {
            // Cut between two frames, or in one that is shorter than a trailer: what came behind is not known.
            let error = FormatError::Truncated { what: "pack", need: (at + TRAILER + 1) as u64, have: pack.len() as u64 };
            scan.bad.push(Gap { start: at as u32, end: PACK_MAX as u32, is_one: false, error });
        }
        scan
    }

    fn faults(&self, id: PackId) -> impl Iterator<Item = Fault> + '_ {
        self.bad.iter().map(move |gap| {
            let spot = if gap.is_one { Spot::Frame(id, gap.start) } else { Spot::Range(id, gap.start, gap.end) };
            Fault::format(spot, &gap.error)
        })
    }
}

/// The first frame behind a damaged one.
fn next_frame(pack: &[u8], from: usize, after: u32, tries: &mut usize) -> Option<(usize, FrameHeader)> {
    (from..pack.len().min(PACK_MAX)).find_map(|start| {
        let frame = FrameHeader::parse(&pack[start..]).ok().filter(|frame| frame.number > after && *tries > 0)?;
        *tries -= 1;
        frame.check(&pack[start..]).ok().map(|()| (start, frame))
    })
}

fn frame_at(pack: &[u8], at: usize) -> Result<FrameHeader, FormatError> {
    let frame = FrameHeader::parse(&pack[at..])?;
    frame.check(&pack[at..])?;
    Ok(frame)
}
