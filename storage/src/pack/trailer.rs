//! The last 64 bytes of a pack, in clear.
//!
//! ```text
//! 0 magic "TEND" · 4 version u32 · 8 footer offset u64 · 16 footer length u32 · 20 zero u32 · 24 BLAKE3 of everything before the trailer 32 B · 56 zero 8
//! ```

use crate::error::FormatError;
use crate::limits::PACK_MAX;
use crate::seal::OBJECT_HEADER;

/// Length of a trailer, bytes.
pub const TRAILER: usize = 64;
const MAGIC: [u8; 4] = *b"TEND";
const VERSION: u32 = 1;

/// A trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// Where the footer's frame starts.
    pub footer_offset: u64,
    /// Its length, with its clear header.
    pub footer_length: u32,
    /// BLAKE3 of everything before the trailer.
    pub hash: [u8; 32],
}

impl Trailer {
    /// Its bytes.
    pub fn encode(&self) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&VERSION.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.footer_offset.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.footer_length.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.hash);
        bytes
    }

    /// Reads the trailer of a pack of `pack_length` bytes.
    ///
    /// # Errors
    /// Truncated, foreign, unsupported, or not of a pack of that length.
    pub fn parse(bytes: &[u8], pack_length: u64) -> Result<Self, FormatError> {
        let what = "pack trailer";
        let Ok(bytes) = <&[u8; TRAILER]>::try_from(bytes) else {
            return Err(FormatError::Truncated {
                what,
                need: TRAILER as u64,
                have: bytes.len() as u64,
            });
        };
        if bytes[0..4] != MAGIC {
            return Err(FormatError::Magic { what });
        }
        let version = u32::from_le_bytes(bytes[4..8].try_into().expect("four bytes"));
        if version != VERSION {
            return Err(FormatError::Unsupported {
                what: "pack version",
                value: u64::from(version),
            });
        }
        let trailer = Self {
            footer_offset: u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")),
            footer_length: u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes")),
            hash: bytes[24..56].try_into().expect("32 bytes"),
        };
        if bytes[20..24] != [0; 4] || bytes[56..] != [0; 8] {
            return Err(FormatError::Malformed {
                what,
                why: "reserved bytes are not zero",
            });
        }
        if pack_length > PACK_MAX as u64 {
            return Err(FormatError::TooLarge {
                what: "pack",
                value: pack_length,
                max: PACK_MAX as u64,
            });
        }
        let end = trailer
            .footer_offset
            .checked_add(u64::from(trailer.footer_length) + TRAILER as u64);
        if trailer.footer_offset < OBJECT_HEADER as u64 || end != Some(pack_length) {
            return Err(FormatError::Malformed {
                what,
                why: "the footer does not end where the trailer starts",
            });
        }
        Ok(trailer)
    }
}
