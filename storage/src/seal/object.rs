//! One-part objects: a header and one frame (manifests, index segments, catalogues, pieces of checkpoints).

use bytes::Bytes;

use super::compress::compress;
use super::frame::{FRAME_HEADER, FrameHeader, FrameKind, ObjectSeal};
use super::header::{OBJECT_HEADER, ObjectHeader, ObjectKind};
use crate::error::{FormatError, Result};
use crate::ids::{VaultId, Writer};
use crate::keys::Keyring;

fn frame_kind(kind: ObjectKind) -> FrameKind {
    match kind {
        ObjectKind::Manifest => FrameKind::Manifest,
        ObjectKind::Segment => FrameKind::Segment,
        ObjectKind::Catalog => FrameKind::Catalog,
        ObjectKind::Checkpoint => FrameKind::Checkpoint,
        ObjectKind::Pack => unreachable!("packs have many frames and a builder of their own"),
    }
}

/// Seals a one-part object.
///
/// # Errors
/// When the key ring lacks its newest generation's keys.
///
/// # Panics
/// When `kind` is a pack, or the plaintext over its bound.
pub fn seal_object(
    keyring: &Keyring,
    kind: ObjectKind,
    vault: VaultId,
    writer: Writer,
    seq: u32,
    name: &str,
    plain: &[u8],
) -> Result<Bytes> {
    let generation = keyring.newest();
    let header = ObjectHeader::new(
        kind,
        vault,
        writer,
        seq,
        generation,
        &keyring.generation(generation)?.meta,
    );
    let seal = ObjectSeal::new(keyring, &header, name)?;
    let frame = seal.seal(frame_kind(kind), 0, &compress(plain, 3))?;
    Ok([header.encode().as_slice(), &frame].concat().into())
}

/// Opens a one-part object and checks that it is the one asked for; also returns its header.
///
/// # Errors
/// By cause; bytes after the frame are refused too.
///
/// # Panics
/// When `kind` is a pack.
pub fn open_object(
    keyring: &Keyring,
    kind: ObjectKind,
    vault: VaultId,
    name: &str,
    bytes: &[u8],
) -> Result<(ObjectHeader, Vec<u8>)> {
    let header = ObjectHeader::parse(bytes)?;
    header.expect(kind, vault, None)?;
    let seal = ObjectSeal::new(keyring, &header, name)?;
    let frame = &bytes[OBJECT_HEADER..];
    let clear = FrameHeader::parse(frame)?;
    if clear.kind != frame_kind(kind) || clear.number != 0 {
        return Err(FormatError::Malformed {
            what: "object",
            why: "holds another kind of frame",
        }
        .into());
    }
    if frame.len() > FRAME_HEADER && frame.len() != clear.length() {
        return Err(FormatError::Truncated {
            what: "object",
            need: clear.length() as u64,
            have: frame.len() as u64,
        }
        .into());
    }
    let (_, plain) = seal.open(frame)?;
    Ok((header, plain))
}
