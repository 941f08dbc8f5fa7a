//! Reading packs: their keys, their footers, and their frames one after another where a footer cannot be read.

use bytes::Bytes;

use super::footer::Footer;
use super::trailer::{TRAILER, Trailer};
use crate::backend::Backend;
use crate::error::{Doing, FormatError, Result};
use crate::ids::{PackId, VaultId};
use crate::keys::Keyring;
use crate::limits::{FOOTER_PLAIN_MAX, PACK_MAX};
use crate::seal::{FRAME_OVERHEAD, FrameHeader, FrameKind, OBJECT_HEADER, ObjectHeader, ObjectKind, ObjectSeal};
use crate::vault::names;

/// The keys of one pack, from its header.
#[derive(Debug)]
pub struct PackKeys {
    /// Opens its frames.
    pub seal: ObjectSeal,
}

impl PackKeys {
    /// Derives them from the pack's first bytes.
    ///
    /// # Errors
    /// When the header is not this pack's.
    pub fn from_header(keyring: &Keyring, vault: VaultId, id: PackId, bytes: &[u8]) -> Result<Self> {
        let header = ObjectHeader::parse(bytes)?;
        header.expect(ObjectKind::Pack, vault, Some((id.writer, id.seq)))?;
        Ok(Self {
            seal: ObjectSeal::new(keyring, &header, &names::pack(id))?,
        })
    }

    /// Reads the header of a pack in a store.
    ///
    /// # Errors
    /// Those of the store, and as [`PackKeys::from_header`].
    pub async fn read(backend: &dyn Backend, keyring: &Keyring, vault: VaultId, id: PackId) -> Result<Self> {
        let bytes = backend.read_range(&names::pack(id), 0..OBJECT_HEADER as u64).await?;
        Self::from_header(keyring, vault, id, &bytes)
    }
}

/// What a whole pack in memory looks like without keys.
#[derive(Debug)]
pub struct PackShape {
    /// Its header.
    pub header: ObjectHeader,
    /// Its trailer.
    pub trailer: Trailer,
    /// Offset and clear header of every frame, the footer last.
    pub frames: Vec<(u32, FrameHeader)>,
}

impl PackShape {
    /// Checks all that needs no key: the header, the trailer, its hash, and every frame's checksum.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(vault: VaultId, id: PackId, pack: &[u8]) -> Result<Self, FormatError> {
        let header = ObjectHeader::parse(pack)?;
        header.expect(ObjectKind::Pack, vault, Some((id.writer, id.seq)))?;
        let Some(end) = pack.len().checked_sub(TRAILER) else {
            return Err(FormatError::Truncated {
                what: "pack",
                need: (OBJECT_HEADER + TRAILER) as u64,
                have: pack.len() as u64,
            });
        };
        let trailer = Trailer::parse(&pack[end..], pack.len() as u64)?;
        if blake3::hash(&pack[..end]).as_bytes() != &trailer.hash {
            return Err(FormatError::Checksum { what: "pack" });
        }
        let frames = scan_frames(&pack[..end]);
        match frames.last() {
            Some((offset, frame))
                if u64::from(*offset) == trailer.footer_offset
                    && frame.kind == FrameKind::Footer
                    && *offset as usize + frame.length() == end =>
            {
                Ok(Self {
                    header,
                    trailer,
                    frames,
                })
            }
            _ => Err(FormatError::Malformed {
                what: "pack",
                why: "frames do not lead to the footer",
            }),
        }
    }
}

/// The frames of a pack from its start, as far as they follow each other with right checksums; for packs whose footer or trailer is gone.
pub fn scan_frames(pack: &[u8]) -> Vec<(u32, FrameHeader)> {
    let mut frames = Vec::new();
    let mut at = OBJECT_HEADER;
    while let Some(rest) = pack.get(at..) {
        let Ok(frame) = FrameHeader::parse(rest) else { break };
        if frame.number as usize != frames.len() || frame.check(rest).is_err() || at > PACK_MAX {
            break;
        }
        frames.push((at as u32, frame));
        at += frame.length();
    }
    frames
}

/// Reads a pack's footer from a store: three small reads (trailer, header, footer). Returns the pack's length, the footer and its plaintext.
///
/// # Errors
/// Those of the store; named errors for bytes that are not a pack's.
pub async fn read_footer(
    backend: &dyn Backend,
    keyring: &Keyring,
    vault: VaultId,
    id: PackId,
    length: Option<u64>,
) -> Result<(u64, Footer, Bytes)> {
    let name = names::pack(id);
    let read = async {
        let length = match length {
            Some(length) => length,
            None => backend.length(&name).await?,
        };
        let Some(end) = length.checked_sub(TRAILER as u64) else {
            return Err(FormatError::Truncated {
                what: "pack",
                need: TRAILER as u64,
                have: length,
            }
            .into());
        };
        let trailer = Trailer::parse(&backend.read_range(&name, end..length).await?, length)?;
        if trailer.footer_length as usize > FOOTER_PLAIN_MAX + FRAME_OVERHEAD {
            let (value, max) = (u64::from(trailer.footer_length), FOOTER_PLAIN_MAX as u64);
            return Err(FormatError::TooLarge {
                what: "footer",
                value,
                max,
            }
            .into());
        }
        let keys = PackKeys::read(backend, keyring, vault, id).await?;
        let frame = backend.read_range(&name, trailer.footer_offset..end).await?;
        let (header, plain) = keys.seal.open(&frame)?;
        if header.kind != FrameKind::Footer || header.length() != frame.len() {
            return Err(FormatError::Malformed {
                what: "footer",
                why: "is another kind of frame",
            }
            .into());
        }
        let footer = Footer::decode(&plain)?;
        Ok::<_, crate::Error>((length, footer, Bytes::from(plain)))
    };
    read.await.doing(|| format!("read footer of pack {id}"))
}
