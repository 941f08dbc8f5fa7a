//! Metadata of VHDX images, after Microsoft's `[MS-VHDX]`: region tables (2.2.3), block allocation table (2.5), metadata table (2.6.1), file parameters
//! (2.6.2.1), logical sector size (2.6.2.4).
//!
//! QEMU tells nothing of the holes of such images, so the block allocation table is read here.

use super::{Facts, HeaderError, le16, le32, le64};
use crate::extent::{self, Extent};

/// `8B7CA206-4790-4B9A-B8FE-575F050F886E` as it lies on disk.
const METADATA_REGION: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
/// `CAA16737-FA36-4D43-B3B6-33F0AA44E76B` as it lies on disk.
const FILE_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
/// `8141BF1D-A96F-4709-BA47-F233A8FAAB5F` as it lies on disk.
const SECTOR_SIZE: [u8; 16] = [
    0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f,
];
/// `2DC27766-F623-4200-9D64-115E9BFD4A08` as it lies on disk.
const BLOCK_TABLE: [u8; 16] = [
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
];
/// The two copies of the region table.
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE: usize = 64 << 10;
const ENTRIES_MAX: u32 = 2047;
const HAS_PARENT: u32 = 1 << 1;

/// Blocks of 1 MiB at least make 64 TiB at most.
const BLOCKS_MAX: u64 = 64 << 20;
/// The table is read in such pieces.
const TABLE_PIECE: u64 = 1 << 20;
/// States of a block that read as zeros whatever was there before: never there, and zeroed. All others may hold something.
const BLOCK_NOT_PRESENT: u64 = 0;
const BLOCK_ZERO: u64 = 2;

/// Looks for a parent. `read` gives up to so many bytes at an offset.
pub(super) fn parse(read: impl Fn(u64, usize) -> Result<Vec<u8>, HeaderError>) -> Result<Facts, HeaderError> {
    if read(0, 8)? != *b"vhdxfile" {
        return Err(HeaderError::Malformed("it does not start as one"));
    }
    let mut found = false;
    for table in REGION_TABLES {
        let Some(metadata) = region(&read(table, TABLE)?, &METADATA_REGION)? else {
            continue;
        };
        let Some(parameters) = item(&read, metadata, &FILE_PARAMETERS)? else {
            continue;
        };
        found = true;
        if le32(&parameters, 4)? & HAS_PARENT != 0 {
            return Err(HeaderError::Unsupported("it is a differencing disk, which is not read"));
        }
    }
    if found {
        Ok(Facts::default())
    } else {
        Err(HeaderError::Malformed("it has no file parameters"))
    }
}

/// Reads which blocks of a disk of `size` bytes may hold something else than zeros. None if the table is not as it should be.
///
/// The image must have been accepted by [`parse`], and by QEMU, which refuses images whose log has changes that the table has not.
pub(super) fn allocated(
    size: u64,
    read: impl Fn(u64, usize) -> Result<Vec<u8>, HeaderError>,
) -> Result<Option<Vec<Extent>>, HeaderError> {
    // QEMU reads the first copy of the region table only.
    let regions = read(REGION_TABLES[0], TABLE)?;
    let (Some(metadata), Some(table)) = (region(&regions, &METADATA_REGION)?, region(&regions, &BLOCK_TABLE)?) else {
        return Ok(None);
    };
    let (Some(parameters), Some(sector)) = (
        item(&read, metadata, &FILE_PARAMETERS)?,
        item(&read, metadata, &SECTOR_SIZE)?,
    ) else {
        return Ok(None);
    };
    let (block, sector) = (u64::from(le32(&parameters, 0)?), u64::from(le32(&sector, 0)?));
    let blocks = size.div_ceil(block.max(1));
    if !block.is_power_of_two() || block < 1 << 20 || !matches!(sector, 512 | 4096) || blocks > BLOCKS_MAX {
        return Ok(None);
    }
    // Behind so many blocks an entry tells of a bitmap, which only differencing disks use.
    let chunk = ((sector << 23) / block).max(1);
    let mut set: Vec<Extent> = Vec::new();
    let (mut piece, mut start) = (Vec::new(), u64::MAX);
    for number in 0..blocks {
        let at = (number + number / chunk) * 8;
        if start != at / TABLE_PIECE * TABLE_PIECE {
            start = at / TABLE_PIECE * TABLE_PIECE;
            piece = read(table.saturating_add(start), TABLE_PIECE as usize)?;
        }
        let entry = le64(&piece, (at - start) as usize)?;
        if !matches!(entry & 7, BLOCK_NOT_PRESENT | BLOCK_ZERO) {
            let extent = Extent::new(number * block, block).clip(Extent::new(0, size));
            match set.last_mut() {
                Some(last) if last.end() == extent.offset => last.length += extent.length,
                _ => set.push(extent),
            }
        }
    }
    debug_assert!(extent::is_normal(&set));
    Ok(Some(set))
}

/// Where a region is, if this is a region table that has it.
fn region(table: &[u8], kind: &[u8; 16]) -> Result<Option<u64>, HeaderError> {
    if !table.starts_with(b"regi") {
        return Ok(None);
    }
    let entries = le32(table, 8)?;
    if entries > ENTRIES_MAX {
        return Err(HeaderError::Malformed("its region table is too long"));
    }
    for at in (0..entries as usize).map(|i| 16 + i * 32) {
        if table.get(at..at + 16) == Some(kind) {
            return le64(table, at + 16).map(Some);
        }
    }
    Ok(None)
}

/// The first 8 bytes of a piece of metadata, if there is one of that kind.
fn item(
    read: &impl Fn(u64, usize) -> Result<Vec<u8>, HeaderError>,
    metadata: u64,
    kind: &[u8; 16],
) -> Result<Option<Vec<u8>>, HeaderError> {
    let table = read(metadata, TABLE)?;
    if !table.starts_with(b"metadata") {
        return Ok(None);
    }
    let entries = le16(&table, 10)?;
    if u32::from(entries) > ENTRIES_MAX {
        return Err(HeaderError::Malformed("its metadata table is too long"));
    }
    for at in (0..usize::from(entries)).map(|i| 32 + i * 32) {
        if table.get(at..at + 16) == Some(kind) {
            let place = metadata.checked_add(u64::from(le32(&table, at + 16)?));
            return read(place.ok_or(HeaderError::Malformed("its metadata are outside it"))?, 8).map(Some);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn image(flags: u32) -> Vec<u8> {
        let mut image = vec![0; 2 << 20];
        image[..8].copy_from_slice(b"vhdxfile");
        for table in REGION_TABLES {
            let table = table as usize;
            image[table..table + 4].copy_from_slice(b"regi");
            image[table + 8] = 2;
            image[table + 48..table + 64].copy_from_slice(&METADATA_REGION);
            image[table + 64..table + 72].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        }
        let metadata = 1 << 20;
        image[metadata..metadata + 8].copy_from_slice(b"metadata");
        image[metadata + 10] = 1;
        image[metadata + 32..metadata + 48].copy_from_slice(&FILE_PARAMETERS);
        image[metadata + 48..metadata + 52].copy_from_slice(&(64_u32 << 10).to_le_bytes());
        let item = metadata + (64 << 10);
        image[item + 4..item + 8].copy_from_slice(&flags.to_le_bytes());
        image
    }

    fn look(image: &[u8]) -> Result<Facts, HeaderError> {
        parse(|offset, length| {
            let start = (offset.min(image.len() as u64)) as usize;
            Ok(image[start..image.len().min(start.saturating_add(length))].to_vec())
        })
    }

    #[test]
    fn a_disk_with_a_parent_is_not_read() {
        assert_eq!(look(&image(1)).unwrap(), Facts::default());
        assert!(matches!(look(&image(HAS_PARENT)), Err(HeaderError::Unsupported(_))));
    }

    #[test]
    fn a_parent_that_only_the_second_table_tells_is_seen() {
        let mut image = image(HAS_PARENT);
        image[192 << 10] = 0;
        assert!(matches!(look(&image), Err(HeaderError::Unsupported(_))));
    }

    #[test]
    fn offsets_outside_the_file_are_refused() {
        let mut wild = image(0);
        for table in REGION_TABLES {
            let table = table as usize;
            wild[table + 64..table + 72].copy_from_slice(&u64::MAX.to_le_bytes());
        }
        assert!(matches!(look(&wild), Err(HeaderError::Malformed(_))));
        let mut wild = image(0);
        wild[(1 << 20) + 48..(1 << 20) + 52].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(look(&wild), Err(HeaderError::Malformed(_))));
        assert!(look(&image(0)[..1 << 20]).is_err());
    }
}
