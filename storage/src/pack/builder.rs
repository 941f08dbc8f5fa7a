//! One pack being filled, in memory.

use bytes::Bytes;

use super::footer::{Footer, FooterFrame};
use super::pieces::PiecesBuilder;
use super::trailer::{TRAILER, Trailer};
use crate::buffers::Aligned;
use crate::error::Result;
use crate::ids::{ChunkId, Location, PackId, VaultId};
use crate::keys::Keyring;
use crate::limits::{FRAME_CHUNKS_PLAIN_MAX, PACK_CHUNKS_MAX, PACK_FRAMES_MAX, PACK_TARGET};
use crate::seal::{Compressed, FRAME_OVERHEAD, FrameKind, ObjectHeader, ObjectKind, ObjectSeal, compress};
use crate::vault::names;

/// Room for a pack in memory: it is closed by the first frame that reaches its target, and then gets its footer.
pub const PACK_ROOM: usize = PACK_TARGET + FRAME_CHUNKS_PLAIN_MAX + (1 << 20);

/// Where a frame went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The pack.
    pub pack: PackId,
    /// Offset in it.
    pub offset: u32,
    /// Length in it.
    pub length: u32,
}

impl Placed {
    /// The location of a piece of the frame.
    pub fn at(self, place: u32) -> Location {
        Location {
            pack: self.pack,
            frame_offset: self.offset,
            frame_length: self.length,
            place,
        }
    }
}

/// A complete pack, ready to be put.
#[derive(Debug)]
pub struct FinishedPack {
    /// Which.
    pub id: PackId,
    /// Its object's name.
    pub name: String,
    /// The object.
    pub object: Aligned,
    /// The trailer, to compare with what the store gives back.
    pub trailer: [u8; TRAILER],
    /// What it holds.
    pub footer: Footer,
    /// The footer's plaintext, for the index segment.
    pub footer_plain: Bytes,
}

/// One pack being filled. Frames are sealed as they come, so that what waits in memory is what will be put.
#[derive(Debug)]
pub struct PackBuilder {
    id: PackId,
    name: String,
    seal: ObjectSeal,
    object: Aligned,
    chunks: usize,
    footer: Footer,
    hash: blake3::Hasher,
}

impl PackBuilder {
    /// Begins a pack.
    ///
    /// # Errors
    /// When the key ring lacks its newest generation.
    pub fn new(keyring: &Keyring, vault: VaultId, id: PackId) -> Result<Self> {
        Self::in_buffer(keyring, vault, id, Aligned::default())
    }

    /// As [`new`](Self::new), into an empty buffer; one with [`PACK_ROOM`] never grows in practice.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn in_buffer(keyring: &Keyring, vault: VaultId, id: PackId, mut object: Aligned) -> Result<Self> {
        assert!(object.is_empty(), "the object begins where the buffer does");
        let generation = keyring.newest();
        let meta = &keyring.generation(generation)?.meta;
        let header = ObjectHeader::new(ObjectKind::Pack, vault, id.writer, id.seq, generation, meta);
        let name = names::pack(id);
        let seal = ObjectSeal::new(keyring, &header, &name)?;
        let encoded = header.encode();
        object.extend_from_slice(&encoded);
        let mut hash = blake3::Hasher::new();
        hash.update(&encoded);
        Ok(Self {
            id,
            name,
            seal,
            object,
            chunks: 0,
            footer: Footer::default(),
            hash,
        })
    }

    /// Whether a frame of that many pieces must go to the next pack.
    pub fn is_full_for(&self, pieces: usize) -> bool {
        self.object.len() >= PACK_TARGET
            || self.chunks + pieces > PACK_CHUNKS_MAX
            || self.footer.frames.len() >= PACK_FRAMES_MAX
    }

    /// Whether nothing was placed.
    pub fn is_empty(&self) -> bool {
        self.footer.frames.is_empty()
    }

    /// Seals a frame into the pack.
    ///
    /// # Errors
    /// When the key ring may not seal this kind.
    ///
    /// # Panics
    /// When the pack is full, or ids and table differ in number.
    pub fn place(
        &mut self,
        kind: FrameKind,
        table: &PiecesBuilder,
        ids: &[ChunkId],
        coded: &Compressed,
    ) -> Result<Placed> {
        assert!(!self.is_full_for(ids.len()), "the caller asks first");
        assert_eq!(table.count(), ids.len(), "one id for each piece");
        assert!(
            coded.bytes.len() + FRAME_OVERHEAD <= FRAME_CHUNKS_PLAIN_MAX + FRAME_OVERHEAD,
            "frames are bounded"
        );
        let (offset, length) = self.seal(kind, coded)?;
        let placed = Placed {
            pack: self.id,
            offset,
            length,
        };
        self.footer.frames.push(FooterFrame {
            kind,
            offset: placed.offset,
            length: placed.length,
            plain_length: coded.plain_length,
            pieces: table.lengths().iter().copied().zip(ids.iter().copied()).collect(),
        });
        self.chunks += ids.len();
        Ok(placed)
    }

    /// Appends a frame; where it went, and its length.
    fn seal(&mut self, kind: FrameKind, coded: &Compressed) -> Result<(u32, u32)> {
        let offset = self.object.len();
        let number = self.footer.frames.len() as u32;
        self.seal.seal_onto(kind, number, coded, &mut self.object)?;
        self.hash.update(&self.object[offset..]);
        Ok((offset as u32, (self.object.len() - offset) as u32))
    }

    /// Adds footer and trailer.
    ///
    /// # Errors
    /// When the key ring may not seal footers.
    pub fn finish(mut self) -> Result<FinishedPack> {
        let footer_plain = Bytes::from(self.footer.encode());
        let (footer_offset, footer_length) = self.seal(FrameKind::Footer, &compress(&footer_plain, 3))?;
        let trailer = Trailer {
            footer_offset: u64::from(footer_offset),
            footer_length,
            hash: *self.hash.finalize().as_bytes(),
        }
        .encode();
        self.object.extend_from_slice(&trailer);
        Ok(FinishedPack {
            id: self.id,
            name: self.name,
            object: self.object,
            trailer,
            footer: self.footer,
            footer_plain,
        })
    }
}
