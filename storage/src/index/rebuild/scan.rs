//! Learning what a pack holds from its frames, where its footer cannot be read.
//!
//! Every frame is opened and every piece named, so what is found is known to be good. After damage, the next frame whose checksum
//! is right is looked for; the work is bounded by the pack's length, whatever its bytes.

use bytes::Bytes;

use crate::error::{Error, FormatError, Kind, Result};
use crate::ids::{ChunkId, Location, PackId};
use crate::keys::KeyError;
use crate::limits::FRAME_PLAIN_MAX;
use crate::pack::{PackKeys, Pieces, TRAILER};
use crate::recipe;
use crate::seal::{FRAME_HEADER, FRAME_OVERHEAD, FrameHeader, FrameKind, OBJECT_HEADER};
use crate::vault::Vault;

const FRAME_MAGIC: &[u8] = b"TFRM";
const TRAILER_MAGIC: &[u8] = b"TEND";
/// Bytes checksummed in search of frames, as a multiple of the pack's length. Ciphertext that looks like a frame is rare, unless made so.
const SEARCH: usize = 4;

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every piece of every good frame.
    pub(super) entries: Vec<(ChunkId, Location)>,
    /// Good frames.
    pub(super) frames: u32,
    /// Offsets where there should be a frame and is no good one, and why the first of them is not.
    pub(super) damaged: Vec<u32>,
    pub(super) first_damage: Option<Error>,
}

impl Scan {
    fn damage(&mut self, at: usize, error: Error) {
        self.damaged.push(at as u32);
        self.first_damage.get_or_insert(error);
    }
}

/// Scans a whole pack.
///
/// # Errors
/// When its header is not its own, its keys are not here, or it has a frame of a kind or codec that this version does not know.
pub(super) fn scan(vault: &Vault, id: PackId, pack: &Bytes) -> Result<Scan> {
    let keys = PackKeys::from_header(&vault.keyring, vault.id, id, pack)?;
    let mut found = Scan::default();
    let mut at = OBJECT_HEADER;
    let mut number = 0;
    let mut budget = pack.len() * SEARCH;
    while at < pack.len() && !is_trailer(&pack[at..]) {
        let header = match frame_at(&pack[at..], number) {
            Ok(header) => header,
            Err(error) => {
                if error.kind() == Kind::Unsupported {
                    return Err(error.into());
                }
                found.damage(at, error.into());
                match next_frame(pack, at + 1, number, &mut budget) {
                    Some((next, header)) => {
                        at = next;
                        header
                    }
                    None => break,
                }
            }
        };
        let frame = &pack[at..at + header.length()];
        match pieces(vault, &keys, header, frame) {
            Ok(pieces) => {
                let location = |place| Location {
                    pack: id,
                    frame_offset: at as u32,
                    frame_length: frame.len() as u32,
                    place,
                };
                found
                    .entries
                    .extend(pieces.into_iter().map(|(id, place)| (id, location(place))));
                found.frames += 1;
            }
            // Without K_data no other frame of data opens either, and an index of recipes alone would pass for a whole one.
            Err(error @ Error::Key(KeyError::NotAllowed { .. })) => return Err(error),
            Err(error) if error.kind() == Kind::Unsupported => return Err(error),
            Err(error) => found.damage(at, error),
        }
        number = header.number.saturating_add(1);
        at += header.length();
    }
    Ok(found)
}

/// The ids and places of a frame's pieces; of a footer, none.
fn pieces(vault: &Vault, keys: &PackKeys, header: FrameHeader, frame: &[u8]) -> Result<Vec<(ChunkId, u32)>> {
    let (_, plain) = keys.seal.open(frame)?;
    if !matches!(header.kind, FrameKind::Data | FrameKind::Recipe) {
        return Ok(Vec::new());
    }
    let pieces = Pieces::parse(header.kind, plain.into())?;
    let name = |(place, piece): (u32, Bytes)| {
        let id = if header.kind == FrameKind::Data {
            vault.ids.chunk(&piece)
        } else {
            recipe::name_of(&piece, &vault.ids)?
        };
        Ok((id, place))
    };
    pieces.iter().map(name).collect()
}

fn is_trailer(rest: &[u8]) -> bool {
    rest.len() == TRAILER && rest.starts_with(TRAILER_MAGIC)
}

/// The checked header of the frame that starts here and is number `number` or later.
fn frame_at(rest: &[u8], number: u32) -> Result<FrameHeader, FormatError> {
    let header = FrameHeader::parse(rest).map_err(|error| {
        if error.kind() == Kind::Unsupported && !is_sound(rest) {
            // A flipped bit makes no new version.
            return FormatError::Checksum { what: "frame" };
        }
        error
    })?;
    header.check(rest)?;
    if header.number < number {
        return Err(FormatError::Malformed {
            what: "frame",
            why: "is out of order",
        });
    }
    Ok(header)
}

/// Whether a frame's checksum is right, whatever its kind and codec: the checksum stands at the same place in all versions.
fn is_sound(rest: &[u8]) -> bool {
    let number = |at: usize| {
        rest.get(at..at + 4)
            .and_then(|b| b.first_chunk())
            .map_or(0, |b| u32::from_le_bytes(*b))
    };
    let length = (number(16) as usize).min(FRAME_PLAIN_MAX + FRAME_OVERHEAD);
    let Some(sealed) = rest.get(FRAME_HEADER..FRAME_HEADER + length) else {
        return false;
    };
    crc32c::crc32c_append(crc32c::crc32c(&rest[..24]), sealed) == number(24)
}

fn next_frame(pack: &[u8], from: usize, number: u32, budget: &mut usize) -> Option<(usize, FrameHeader)> {
    let starts = pack.windows(FRAME_MAGIC.len()).enumerate().skip(from);
    for (at, _) in starts.filter(|(_, window)| *window == FRAME_MAGIC) {
        let rest = &pack[at..];
        let Ok(header) = FrameHeader::parse(rest) else { continue };
        *budget = budget.checked_sub(header.length().min(rest.len()))?;
        if let Ok(header) = frame_at(rest, number) {
            return Some((at, header));
        }
    }
    None
}
