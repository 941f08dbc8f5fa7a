//! Metadata of VHDX images, after Microsoft's `[MS-VHDX]`: region tables (2.2.3), metadata table (2.6.1), file parameters (2.6.2.1).

use super::{Facts, HeaderError, le16, le32, le64};

/// `8B7CA206-4790-4B9A-B8FE-575F050F886E` as it lies on disk.
const METADATA_REGION: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
/// `CAA16737-FA36-4D43-B3B6-33F0AA44E76B` as it lies on disk.
const FILE_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
/// The two copies of the region table.
const REGION_TABLES: [u64; 2] = [192 << 10, 256 << 10];
const TABLE: usize = 64 << 10;
const ENTRIES_MAX: u32 = 2047;
const HAS_PARENT: u32 = 1 << 1;

/// Looks for a parent. `read` gives up to so many bytes at an offset.
pub(super) fn parse(read: impl Fn(u64, usize) -> Result<Vec<u8>, HeaderError>) -> Result<Facts, HeaderError> {
    if read(0, 8)? != *b"vhdxfile" {
        return Err(HeaderError::Malformed("it does not start as one"));
    }
    let mut found = false;
    for table in REGION_TABLES {
        let Some(metadata) = metadata_region(&read(table, TABLE)?)? else {
            continue;
        };
        let table = read(metadata, TABLE)?;
        let Some(item) = parameters_item(&table)? else { continue };
        let place = metadata
            .checked_add(u64::from(item))
            .ok_or(HeaderError::Malformed("its metadata are outside it"))?;
        found = true;
        if le32(&read(place, 8)?, 4)? & HAS_PARENT != 0 {
            return Err(HeaderError::Unsupported("it is a differencing disk, which is not read"));
        }
    }
    if found {
        Ok(Facts::default())
    } else {
        Err(HeaderError::Malformed("it has no file parameters"))
    }
}

/// Where the metadata region is, if this is a region table.
fn metadata_region(table: &[u8]) -> Result<Option<u64>, HeaderError> {
    if !table.starts_with(b"regi") {
        return Ok(None);
    }
    let entries = le32(table, 8)?;
    if entries > ENTRIES_MAX {
        return Err(HeaderError::Malformed("its region table is too long"));
    }
    for at in (0..entries as usize).map(|i| 16 + i * 32) {
        if table.get(at..at + 16) == Some(&METADATA_REGION) {
            return le64(table, at + 16).map(Some);
        }
    }
    Ok(None)
}

/// Where in the metadata region the file parameters are.
fn parameters_item(table: &[u8]) -> Result<Option<u32>, HeaderError> {
    if !table.starts_with(b"metadata") {
        return Ok(None);
    }
    let entries = le16(table, 10)?;
    if u32::from(entries) > ENTRIES_MAX {
        return Err(HeaderError::Malformed("its metadata table is too long"));
    }
    for at in (0..usize::from(entries)).map(|i| 32 + i * 32) {
        if table.get(at..at + 16) == Some(&FILE_PARAMETERS) {
            return le32(table, at + 16).map(Some);
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
