//! Frames: a clear header of 28 bytes, then ciphertext and tag.
//!
//! ```text
//! 0 magic "TFRM" · 4 number u32 · 8 kind u8 · 9 codec u8 · 10 zero u16 · 12 plain length u32 · 16 sealed length u32 (ciphertext and tag)
//! 20 zero u32 · 24 crc32c u32 of bytes 0..24 and of the ciphertext and tag
//! ```
//! AES-256-GCM. The key is derived for one kind of frames of one object from the object's whole header with its random salt; the nonce is the
//! frame's number, which one writer gives once per object. So no nonce is stored, and none meets the same key twice, also when an attempt is
//! repeated with other bytes: that object has another salt. The associated data is the object's header, the object's name and the frame's
//! header without its checksum: no frame can be moved to another place or object unnoticed. The checksum needs no key (scrubbing).

use std::cell::RefCell;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::compress::{Codec, Compressed, decompress};
use super::header::ObjectHeader;
use crate::buffers::Aligned;
use crate::error::{FormatError, Result};
use crate::keys::{Key, KeyError, Keyring};
use crate::limits::{FOOTER_PLAIN_MAX, FRAME_CHUNKS_PLAIN_MAX, FRAME_PLAIN_MAX};

/// Length of a frame's clear header, bytes.
pub const FRAME_HEADER: usize = 28;
const TAG: usize = 16;
/// What a frame adds to its coded bytes.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER + TAG;
const MAGIC: [u8; 4] = *b"TFRM";
/// Bytes of the header before the checksum.
const BEFORE_CRC: usize = 24;

/// Kinds of frames, numbered from 1.
const KINDS: usize = 7;

/// What a frame holds; each kind has a key of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Chunks of disks.
    Data,
    /// Leaves and nodes of recipes.
    Recipe,
    /// The list of what a pack holds.
    Footer,
    /// A manifest.
    Manifest,
    /// An index segment.
    Segment,
    /// A catalogue.
    Catalog,
    /// A piece of a checkpoint of index slots.
    Checkpoint,
}

impl FrameKind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Recipe => 2,
            Self::Footer => 3,
            Self::Manifest => 4,
            Self::Segment => 5,
            Self::Catalog => 6,
            Self::Checkpoint => 7,
        }
    }

    pub(crate) fn parse(code: u8) -> Result<Self, FormatError> {
        Ok(match code {
            1 => Self::Data,
            2 => Self::Recipe,
            3 => Self::Footer,
            4 => Self::Manifest,
            5 => Self::Segment,
            6 => Self::Catalog,
            7 => Self::Checkpoint,
            other => {
                return Err(FormatError::Unsupported {
                    what: "frame kind",
                    value: u64::from(other),
                });
            }
        })
    }

    fn context(self) -> &'static str {
        match self {
            Self::Data => "tresor v1 data frames",
            Self::Recipe => "tresor v1 recipe frames",
            Self::Footer => "tresor v1 footer",
            Self::Manifest => "tresor v1 manifest",
            Self::Segment => "tresor v1 index segment",
            Self::Catalog => "tresor v1 catalogue",
            Self::Checkpoint => "tresor v1 slot checkpoint",
        }
    }

    /// The largest plaintext of this kind.
    pub fn plain_max(self) -> usize {
        match self {
            Self::Data | Self::Recipe => FRAME_CHUNKS_PLAIN_MAX,
            Self::Footer => FOOTER_PLAIN_MAX,
            Self::Manifest | Self::Segment | Self::Catalog | Self::Checkpoint => FRAME_PLAIN_MAX,
        }
    }
}

/// A frame's clear header, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Its number in the object.
    pub number: u32,
    /// What it holds.
    pub kind: FrameKind,
    /// How it is coded.
    pub codec: Codec,
    /// Length of its plaintext, bytes.
    pub plain_length: u32,
    /// Length of ciphertext and tag, bytes.
    pub sealed_length: u32,
    crc: u32,
}

impl FrameHeader {
    fn before_crc(&self) -> [u8; BEFORE_CRC] {
        let mut bytes = [0; BEFORE_CRC];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8] = self.kind.code();
        bytes[9] = self.codec.code();
        bytes[12..16].copy_from_slice(&self.plain_length.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.sealed_length.to_le_bytes());
        bytes
    }

    /// Reads and bounds one.
    ///
    /// # Errors
    /// Truncated, foreign, unsupported or over the bounds of its kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "frame header";
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER>() else {
            return Err(FormatError::Truncated {
                what,
                need: FRAME_HEADER as u64,
                have: bytes.len() as u64,
            });
        };
        if bytes[0..4] != MAGIC {
            return Err(FormatError::Magic { what });
        }
        if bytes[10..12] != [0; 2] || bytes[20..24] != [0; 4] {
            return Err(FormatError::Malformed {
                what,
                why: "reserved bytes are not zero",
            });
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let header = Self {
            number: u32_at(4),
            kind: FrameKind::parse(bytes[8])?,
            codec: Codec::parse(bytes[9])?,
            plain_length: u32_at(12),
            sealed_length: u32_at(16),
            crc: u32_at(24),
        };
        let max = header.kind.plain_max() as u64;
        if u64::from(header.plain_length) > max {
            return Err(FormatError::TooLarge {
                what: "plain length",
                value: u64::from(header.plain_length),
                max,
            });
        }
        // Coded bytes are never longer than the plaintext: else they would have been stored raw.
        let sealed_max = u64::from(header.plain_length) + TAG as u64;
        if u64::from(header.sealed_length) > sealed_max || (header.sealed_length as usize) < TAG {
            return Err(FormatError::Malformed {
                what,
                why: "sealed length does not fit the plain length",
            });
        }
        Ok(header)
    }

    /// The frame's length in the object, with this header.
    pub fn length(&self) -> usize {
        FRAME_HEADER + self.sealed_length as usize
    }

    /// Checks the checksum over a whole frame; needs no key.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] or [`FormatError::Checksum`].
    pub fn check(&self, frame: &[u8]) -> Result<(), FormatError> {
        let Some(sealed) = frame.get(FRAME_HEADER..self.length()) else {
            return Err(FormatError::Truncated {
                what: "frame",
                need: self.length() as u64,
                have: frame.len() as u64,
            });
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&self.before_crc()), sealed);
        if crc == self.crc {
            Ok(())
        } else {
            Err(FormatError::Checksum { what: "frame" })
        }
    }
}

/// The keys of one object.
pub struct ObjectSeal {
    keys: [Option<LessSafeKey>; KINDS],
    /// The object's header and name.
    prefix: Vec<u8>,
}

impl std::fmt::Debug for ObjectSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectSeal(…)")
    }
}

impl ObjectSeal {
    /// Derives the keys of the object `name` that starts with `header`.
    ///
    /// # Errors
    /// When the key ring lacks the generation, or the header was not made under this vault's keys.
    pub fn new(keyring: &Keyring, header: &ObjectHeader, name: &str) -> Result<Self> {
        let generation = keyring.generation(header.generation)?;
        if !header.is_of_key(&generation.meta) {
            return Err(FormatError::Authentication { what: "object header" }.into());
        }
        let encoded = header.encode();
        let key = |kind: FrameKind, base: &Key| {
            let derived = base.derive(kind.context(), &encoded);
            Some(LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, derived.expose()).expect("32 bytes are an AES-256 key"),
            ))
        };
        use super::header::ObjectKind;
        let mut keys = [const { None }; KINDS];
        let mut add = |kind: FrameKind, base: &Key| keys[usize::from(kind.code()) - 1] = key(kind, base);
        match header.kind {
            ObjectKind::Pack => {
                if let Some(data) = &generation.data {
                    add(FrameKind::Data, data);
                }
                add(FrameKind::Recipe, &generation.meta);
                add(FrameKind::Footer, &generation.meta);
            }
            ObjectKind::Manifest => add(FrameKind::Manifest, &generation.meta),
            ObjectKind::Segment => add(FrameKind::Segment, &generation.meta),
            ObjectKind::Catalog => add(FrameKind::Catalog, &generation.meta),
            ObjectKind::Checkpoint => add(FrameKind::Checkpoint, &generation.meta),
        }
        let prefix = [&encoded, name.as_bytes()].concat();
        Ok(Self { keys, prefix })
    }

    fn key(&self, kind: FrameKind) -> Result<&LessSafeKey, KeyError> {
        self.keys[usize::from(kind.code()) - 1]
            .as_ref()
            .ok_or(KeyError::NotAllowed {
                what: "open this kind of frame",
            })
    }

    fn aad(&self, header: &FrameHeader) -> Aad<Vec<u8>> {
        Aad::from([self.prefix.as_slice(), &header.before_crc()].concat())
    }

    fn nonce(header: &FrameHeader) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&header.number.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// Seals coded bytes as the frame `number`; each number once per object.
    ///
    /// # Errors
    /// When the key ring has no key for this kind.
    ///
    /// # Panics
    /// When the plaintext is over the bound of its kind.
    pub fn seal(&self, kind: FrameKind, number: u32, coded: &Compressed) -> Result<Vec<u8>> {
        let mut frame = Aligned::default();
        self.seal_onto(kind, number, coded, &mut frame)?;
        Ok(frame.to_vec())
    }

    /// As [`seal`](Self::seal), behind what `object` holds already. On an error `object` is as it was.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    ///
    /// # Panics
    /// As [`seal`](Self::seal).
    pub fn seal_onto(&self, kind: FrameKind, number: u32, coded: &Compressed, object: &mut Aligned) -> Result<()> {
        assert!(
            coded.plain_length as usize <= kind.plain_max(),
            "frames are bounded before they are sealed"
        );
        let key = self.key(kind)?;
        let mut header = FrameHeader {
            number,
            kind,
            codec: coded.codec,
            plain_length: coded.plain_length,
            sealed_length: (coded.bytes.len() + TAG) as u32,
            crc: 0,
        };
        let start = object.len();
        object.extend_from_slice(&[0; FRAME_HEADER]);
        object.extend_from_slice(&coded.bytes);
        let tag = key
            .seal_in_place_separate_tag(
                Self::nonce(&header),
                self.aad(&header),
                &mut object[start + FRAME_HEADER..],
            )
            .expect("frames are shorter than what AES-GCM takes");
        object.extend_from_slice(tag.as_ref());
        let frame = &mut object[start..];
        let clear = header.before_crc();
        header.crc = crc32c::crc32c_append(crc32c::crc32c(&clear), &frame[FRAME_HEADER..]);
        frame[..BEFORE_CRC].copy_from_slice(&clear);
        frame[BEFORE_CRC..FRAME_HEADER].copy_from_slice(&header.crc.to_le_bytes());
        Ok(())
    }

    /// Opens a frame: checksum, tag, then decompression to exactly the length that the tag covers.
    ///
    /// # Errors
    /// By cause; a checksum that is right with a tag that is wrong is [`FormatError::Authentication`].
    pub fn open(&self, frame: &[u8]) -> Result<(FrameHeader, Vec<u8>)> {
        self.open_into(frame, Vec::new())
    }

    /// As [`open`](Self::open), with the plaintext in a buffer of the caller, which is lost on an error.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_into(&self, frame: &[u8], plain: Vec<u8>) -> Result<(FrameHeader, Vec<u8>)> {
        let header = FrameHeader::parse(frame)?;
        header.check(frame)?;
        let key = self.key(header.kind)?;
        SCRATCH.with_borrow_mut(|coded| {
            coded.clear();
            coded.extend_from_slice(&frame[FRAME_HEADER..header.length()]);
            let opened = key
                .open_in_place(Self::nonce(&header), self.aad(&header), coded)
                .map_err(|_| FormatError::Authentication { what: "frame" })?;
            let plain = decompress(header.codec, opened, header.plain_length, plain)?;
            // A large object passes seldom, and must not leave its size with every thread.
            coded.shrink_to(SCRATCH_MAX);
            Ok((header, plain))
        })
    }
}

thread_local! {
    // What is decrypted before it is decompressed.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a thread keeps of it.
const SCRATCH_MAX: usize = FRAME_CHUNKS_PLAIN_MAX;

#[cfg(test)]
mod tests {
    use super::super::compress;
    use super::super::header::{ObjectHeader, ObjectKind};
    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId, VaultId, Writer};

    fn seal(name: &str) -> (ObjectSeal, ObjectHeader) {
        let keyring = Keyring::generate();
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(3),
        };
        let generation = keyring.newest();
        let meta = &keyring.generation(generation).expect("it is the newest").meta;
        let header = ObjectHeader::new(ObjectKind::Pack, VaultId([9; 16]), writer, 0, generation, meta);
        (
            ObjectSeal::new(&keyring, &header, name).expect("made under this key"),
            header,
        )
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let (seal, _) = seal("packs/x");
        let frame = seal.seal(FrameKind::Data, 3, &compress(&[5; 300], 1)).expect("seals");
        assert_eq!(seal.open(&frame).expect("opens").1, [5; 300]);
        for bit in 0..frame.len() * 8 {
            let mut damaged = frame.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.open(&damaged).is_err(), "bit {bit}");
        }
        for length in 0..frame.len() {
            assert!(seal.open(&frame[..length]).is_err(), "length {length}");
        }
    }

    #[test]
    fn a_frame_moved_to_another_object_or_kind_fails_authentication() {
        let keyring = Keyring::generate();
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(3),
        };
        let meta = &keyring.generation(keyring.newest()).expect("newest").meta;
        let header = ObjectHeader::new(ObjectKind::Pack, VaultId([9; 16]), writer, 0, keyring.newest(), meta);
        let here = ObjectSeal::new(&keyring, &header, "packs/a").expect("keys");
        let there = ObjectSeal::new(&keyring, &header, "packs/b").expect("keys");
        let frame = here.seal(FrameKind::Data, 0, &compress(b"chunk", 1)).expect("seals");
        assert!(matches!(
            there.open(&frame),
            Err(crate::Error::Format(FormatError::Authentication { .. }))
        ));
    }

    #[test]
    fn a_header_made_under_another_key_is_refused_before_any_frame() {
        let (_, header) = seal("packs/a");
        let refused = ObjectSeal::new(&Keyring::generate(), &header, "packs/a");
        assert!(matches!(
            refused,
            Err(crate::Error::Format(FormatError::Authentication { .. }))
        ));
    }

    #[test]
    fn a_plain_length_beyond_the_bound_takes_no_memory() {
        let (seal, _) = seal("packs/x");
        let mut frame = seal.seal(FrameKind::Data, 0, &compress(b"chunk", 1)).expect("seals");
        frame[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(FrameHeader::parse(&frame), Err(FormatError::TooLarge { .. })));
    }
}
