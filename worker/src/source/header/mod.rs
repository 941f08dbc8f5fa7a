//! What an image says of itself, as far as it decides what else is read: parents, other files, features that would be read wrongly. Pure.
//!
//! QEMU reads the images. These parsers look first, because QEMU follows references without asking and takes some differencing images for whole ones.
//! Everything is bounded and foreign.

mod qcow2;
mod vhd;
mod vhdx;
mod vmdk;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{DiskFormat, Extent};

/// Another file that an image stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Backing {
    /// Its name as the image has it.
    pub(super) name: String,
    /// What the image says that it is; QEMU's word.
    pub(super) format: Option<String>,
}

/// What matters of a header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The image below.
    pub(super) backing: Option<Backing>,
    /// Files that hold parts of the image.
    pub(super) extents: Vec<String>,
}

/// Why a header is not accepted.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// Not what it should be.
    Malformed(&'static str),
    /// Sound, but not read by this program.
    Unsupported(&'static str),
    /// The system.
    Io(io::Error),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Looks at the header of an image of `size` bytes.
pub(super) fn examine(file: &File, size: u64, format: DiskFormat) -> Result<Facts, HeaderError> {
    match format {
        DiskFormat::Raw => Ok(Facts::default()),
        DiskFormat::Qcow2 => qcow2::parse(&read_up_to(file, 0, qcow2::HEAD_MAX)?),
        DiskFormat::Vhd => {
            let head = read_up_to(file, 0, vhd::FOOTER)?;
            let foot = read_up_to(file, size.saturating_sub(vhd::FOOTER as u64), vhd::FOOTER)?;
            vhd::parse(&head, &foot)
        }
        DiskFormat::Vhdx => vhdx::parse(|offset, length| Ok(read_up_to(file, offset, length)?)),
        DiskFormat::Vmdk => {
            let head = read_up_to(file, 0, vmdk::DESCRIPTOR_MAX)?;
            match vmdk::descriptor_place(&head)? {
                Some((offset, length)) => vmdk::parse(&read_up_to(file, offset, length)?, true),
                None if size > vmdk::DESCRIPTOR_MAX as u64 => {
                    Err(HeaderError::Malformed("its description is too long"))
                }
                None => vmdk::parse(&head, false),
            }
        }
    }
}

/// Gives bytes to the parsers of all formats, as an image could hold them.
pub(super) fn parse_foreign(bytes: &[u8]) {
    let read = |offset: u64, length: usize| -> Result<Vec<u8>, HeaderError> {
        let rest = bytes
            .get(usize::try_from(offset).unwrap_or(usize::MAX)..)
            .unwrap_or_default();
        Ok(rest[..length.min(rest.len())].to_vec())
    };
    let _ = qcow2::parse(&bytes[..bytes.len().min(qcow2::HEAD_MAX)]);
    let _ = vhd::parse(
        &bytes[..bytes.len().min(vhd::FOOTER)],
        &bytes[bytes.len().saturating_sub(vhd::FOOTER)..],
    );
    let _ = vhdx::parse(read);
    let _ = vhdx::allocated(bytes.len() as u64 * 4096, read);
    match vmdk::descriptor_place(bytes) {
        Ok(Some((offset, length))) => {
            let _ = read(offset, length).and_then(|descriptor| vmdk::parse(&descriptor, true));
        }
        _ => {
            let _ = vmdk::parse(bytes, false);
        }
    }
}

/// What QEMU does not tell: the extents of a VHDX image whose disk has `size` bytes. None for other formats and odd tables.
pub(super) fn allocated(file: &File, size: u64, format: DiskFormat) -> Result<Option<Vec<Extent>>, HeaderError> {
    match format {
        DiskFormat::Vhdx => vhdx::allocated(size, |offset, length| Ok(read_up_to(file, offset, length)?)),
        _ => Ok(None),
    }
}

/// Reads up to `length` bytes at `offset`, fewer at the end.
fn read_up_to(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut have = 0;
    while have < length {
        match file.read_at(&mut bytes[have..], offset.saturating_add(have as u64)) {
            Ok(0) => break,
            Ok(count) => have += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

/// The `N` bytes at `at`, if they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], HeaderError> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<N>())
        .copied()
        .ok_or(HeaderError::Malformed("it is cut short"))
}

fn be32(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    array(bytes, at).map(u64::from_be_bytes)
}

fn le16(bytes: &[u8], at: usize) -> Result<u16, HeaderError> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn le32(bytes: &[u8], at: usize) -> Result<u32, HeaderError> {
    array(bytes, at).map(u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> Result<u64, HeaderError> {
    array(bytes, at).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..700), magic in 0..6usize) {
            let magics: [&[u8]; 6] = [b"QFI\xfb\0\0\0\x03", b"conectix", b"vhdxfile", b"KDMV", b"# Disk DescriptorFile\n", b""];
            let start = magics[magic];
            if bytes.len() >= start.len() {
                bytes[..start.len()].copy_from_slice(start);
            }
            let _ = qcow2::parse(&bytes);
            let _ = vhd::parse(&bytes, &bytes);
            let _ = vmdk::descriptor_place(&bytes);
            let _ = vmdk::parse(&bytes, true);
            let _ = vmdk::parse(&bytes, false);
            let read = |offset: u64, length: usize| {
                let start = ((offset % 640) as usize).min(bytes.len());
                Ok(bytes[start..bytes.len().min(start + length)].to_vec())
            };
            let _ = vhdx::parse(read);
    let _ = vhdx::allocated(bytes.len() as u64 * 4096, read);
            let _ = vhdx::allocated(1 << 40, read);
        }
    }
}
