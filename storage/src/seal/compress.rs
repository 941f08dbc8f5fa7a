//! Compression of frames: zstd, or raw when that does not pay.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::FormatError;

/// How a frame's plaintext is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame (RFC 8878).
    Zstd,
}

impl Codec {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    pub(crate) fn parse(code: u8) -> Result<Self, FormatError> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            other => Err(FormatError::Unsupported {
                what: "codec",
                value: u64::from(other),
            }),
        }
    }
}

/// A frame's plaintext, coded, before it is sealed.
#[derive(Debug)]
pub struct Compressed {
    /// How.
    pub codec: Codec,
    /// Length of the plaintext, bytes.
    pub plain_length: u32,
    /// The coded bytes.
    pub bytes: Vec<u8>,
}

thread_local! {
    // A context is some hundred KiB that would be allocated and cleared for each frame.
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>, Vec<u8>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses a frame's plaintext at a zstd level; stores it raw when that saves less than 3 %.
///
/// # Panics
/// When zstd fails on valid input, or the plaintext is over 4 GiB.
pub fn compress(plain: &[u8], level: i32) -> Compressed {
    let plain_length = u32::try_from(plain.len()).expect("frames are bounded");
    COMPRESSOR.with_borrow_mut(|slot| {
        if !matches!(slot, Some((at, ..)) if *at == level) {
            *slot = Some((level, Compressor::new(level).expect("zstd makes a context"), Vec::new()));
        }
        let (_, compressor, scratch) = slot.as_mut().expect("just set");
        let bound = zstd::zstd_safe::compress_bound(plain.len());
        if scratch.len() < bound {
            scratch.resize(bound, 0);
        }
        let length = compressor
            .compress_to_buffer(plain, scratch.as_mut_slice())
            .expect("the buffer has zstd's bound");
        if length + plain.len() * 3 / 100 < plain.len() {
            Compressed {
                codec: Codec::Zstd,
                plain_length,
                bytes: scratch[..length].to_vec(),
            }
        } else {
            Compressed {
                codec: Codec::Raw,
                plain_length,
                bytes: plain.to_vec(),
            }
        }
    })
}

/// Undoes [`compress`]; the result is exactly `plain_length` bytes, and never more memory than that is taken.
pub(crate) fn decompress(codec: Codec, coded: Vec<u8>, plain_length: u32) -> Result<Vec<u8>, FormatError> {
    let plain = match codec {
        Codec::Raw => coded,
        Codec::Zstd => DECOMPRESSOR.with_borrow_mut(|slot| {
            let decompressor = slot.get_or_insert_with(|| Decompressor::new().expect("zstd makes a context"));
            decompressor
                .decompress(&coded, plain_length as usize)
                .map_err(|_| FormatError::Malformed {
                    what: "frame",
                    why: "does not decompress",
                })
        })?,
    };
    if plain.len() == plain_length as usize {
        Ok(plain)
    } else {
        Err(FormatError::Malformed {
            what: "frame",
            why: "decompresses to another length",
        })
    }
}
