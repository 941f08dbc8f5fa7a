//! The clear header of every sealed object, 96 bytes: what it is, whose it is, and which keys open it.
//!
//! ```text
//!  0 magic "TRES" · 4 version u16 · 6 kind u16 · 8 vault id 16 · 24 cluster u64 · 32 session u64 · 40 part u64
//! 48 seq u32 · 52 key generation u32 · 56 salt 16 · 72 key check 16 · 88 zero 8
//! ```
//! All of it goes into the derivation of the object's keys and into the associated data of its frames, so not a bit of it can be changed.

use crate::error::FormatError;
use crate::ids::{ClusterId, PartId, SessionId, VaultId, Writer, random_bytes};
use crate::keys::{Generation, Key};

/// Length of the header, bytes.
pub const OBJECT_HEADER: usize = 96;
const MAGIC: [u8; 4] = *b"TRES";
const VERSION: u16 = 1;
/// What the key check covers.
const CHECKED: usize = 72;

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// Frames of chunks and recipes.
    Pack,
    /// A recovery point.
    Manifest,
    /// Footers of packs.
    Segment,
    /// What manifests do not say.
    Catalog,
    /// A piece of a checkpoint of index slots.
    Checkpoint,
}

impl ObjectKind {
    fn code(self) -> u16 {
        match self {
            Self::Pack => 1,
            Self::Manifest => 2,
            Self::Segment => 3,
            Self::Catalog => 4,
            Self::Checkpoint => 5,
        }
    }

    fn parse(code: u16) -> Result<Self, FormatError> {
        Ok(match code {
            1 => Self::Pack,
            2 => Self::Manifest,
            3 => Self::Segment,
            4 => Self::Catalog,
            5 => Self::Checkpoint,
            other => {
                return Err(FormatError::Unsupported {
                    what: "object kind",
                    value: u64::from(other),
                });
            }
        })
    }
}

/// The header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectHeader {
    /// What the object is.
    pub kind: ObjectKind,
    /// Its vault.
    pub vault: VaultId,
    /// Who wrote it.
    pub writer: Writer,
    /// The pack's, segment's or piece's number; 0 for others.
    pub seq: u32,
    /// The generation of keys that it is sealed under.
    pub generation: Generation,
    /// Drawn for each object, so that its keys are its own.
    pub salt: [u8; 16],
    /// Tells the wrong key from damage.
    pub check: [u8; 16],
}

impl ObjectHeader {
    /// Makes the header of a new object, with a fresh salt.
    pub fn new(kind: ObjectKind, vault: VaultId, writer: Writer, seq: u32, generation: Generation, meta: &Key) -> Self {
        let mut header = Self {
            kind,
            vault,
            writer,
            seq,
            generation,
            salt: random_bytes(),
            check: [0; 16],
        };
        header.check = header.check_under(meta);
        header
    }

    fn check_under(&self, meta: &Key) -> [u8; 16] {
        let derived = meta.derive("tresor v1 object key check", &self.encode()[..CHECKED]);
        let mut check = [0; 16];
        check.copy_from_slice(&derived.expose()[..16]);
        check
    }

    /// Whether `meta` is the key that the object was sealed under.
    pub fn is_of_key(&self, meta: &Key) -> bool {
        self.check == self.check_under(meta)
    }

    /// Its 96 bytes.
    pub fn encode(&self) -> [u8; OBJECT_HEADER] {
        let mut bytes = [0; OBJECT_HEADER];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.code().to_le_bytes());
        bytes[8..24].copy_from_slice(&self.vault.0);
        bytes[24..32].copy_from_slice(&self.writer.cluster.0.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.writer.session.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.writer.part.0.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.seq.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.generation.0.to_le_bytes());
        bytes[56..72].copy_from_slice(&self.salt);
        bytes[72..88].copy_from_slice(&self.check);
        bytes
    }

    /// Reads one from the start of an object.
    ///
    /// # Errors
    /// Truncated, foreign, of a newer version, or contradicting itself.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let what = "object header";
        let Some(bytes) = bytes.first_chunk::<OBJECT_HEADER>() else {
            return Err(FormatError::Truncated {
                what,
                need: OBJECT_HEADER as u64,
                have: bytes.len() as u64,
            });
        };
        if bytes[0..4] != MAGIC {
            return Err(FormatError::Magic { what });
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION {
            return Err(FormatError::Unsupported {
                what: "object version",
                value: u64::from(version),
            });
        }
        if bytes[88..] != [0; 8] {
            return Err(FormatError::Malformed {
                what,
                why: "reserved bytes are not zero",
            });
        }
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        Ok(Self {
            kind: ObjectKind::parse(u16::from_le_bytes([bytes[6], bytes[7]]))?,
            vault: VaultId(bytes[8..24].try_into().expect("sixteen bytes")),
            writer: Writer {
                cluster: ClusterId(u64_at(24)),
                session: SessionId(u64_at(32)),
                part: PartId(u64_at(40)),
            },
            seq: u32_at(48),
            generation: Generation(u32_at(52)),
            salt: bytes[56..72].try_into().expect("sixteen bytes"),
            check: bytes[72..88].try_into().expect("sixteen bytes"),
        })
    }

    /// Refuses the header of another object than the one asked for.
    ///
    /// # Errors
    /// [`FormatError::Mismatch`].
    pub fn expect(&self, kind: ObjectKind, vault: VaultId, writer: Option<(Writer, u32)>) -> Result<(), FormatError> {
        let differs = |what, expected: String, found: String| Err(FormatError::Mismatch { what, expected, found });
        if self.vault != vault {
            return differs("vault id in object header", vault.to_string(), self.vault.to_string());
        }
        if self.kind != kind {
            return differs("object kind", format!("{kind:?}"), format!("{:?}", self.kind));
        }
        match writer {
            Some((writer, seq)) if (writer, seq) != (self.writer, self.seq) => differs(
                "writer in object header",
                format!("{writer}/{seq:08x}"),
                format!("{}/{:08x}", self.writer, self.seq),
            ),
            _ => Ok(()),
        }
    }
}
