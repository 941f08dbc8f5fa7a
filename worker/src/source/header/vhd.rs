//! Footers of VHD images, after Microsoft's *Virtual Hard Disk Image Format Specification*, "Hard Disk Footer Format".

use super::{Facts, HeaderError, be32};

/// Bytes of a footer.
pub(super) const FOOTER: usize = 512;

const COOKIE: &[u8] = b"conectix";
const FIXED: u32 = 2;
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

/// Reads the start of the file (where dynamic images have a copy) and its end.
pub(super) fn parse(head: &[u8], foot: &[u8]) -> Result<Facts, HeaderError> {
    let mut found = false;
    for footer in [head, foot] {
        // Very old images have a footer of 511 bytes.
        let start = usize::from(!footer.starts_with(COOKIE) && footer.get(1..).is_some_and(|f| f.starts_with(COOKIE)));
        let footer = &footer[start.min(footer.len())..];
        if !footer.starts_with(COOKIE) {
            continue;
        }
        found = true;
        match be32(footer, 60)? {
            FIXED | DYNAMIC => {}
            // QEMU takes it for a dynamic one, where everything that is only in the parent reads as zeros.
            DIFFERENCING => return Err(HeaderError::Unsupported("it is a differencing disk, which is not read")),
            _ => return Err(HeaderError::Unsupported("it is of an unknown type")),
        }
    }
    if found {
        Ok(Facts::default())
    } else {
        Err(HeaderError::Malformed("it has no footer"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn footer(kind: u32) -> Vec<u8> {
        let mut footer = vec![0; FOOTER];
        footer[..8].copy_from_slice(COOKIE);
        footer[60..64].copy_from_slice(&kind.to_be_bytes());
        footer
    }

    #[test]
    fn fixed_and_dynamic_disks_are_read_and_differencing_ones_are_not() {
        let nothing = vec![0; FOOTER];
        assert_eq!(parse(&nothing, &footer(FIXED)).unwrap(), Facts::default());
        assert_eq!(parse(&footer(DYNAMIC), &footer(DYNAMIC)).unwrap(), Facts::default());
        for (head, foot) in [
            (footer(DIFFERENCING), nothing.clone()),
            (footer(DYNAMIC), footer(DIFFERENCING)),
        ] {
            assert!(matches!(parse(&head, &foot), Err(HeaderError::Unsupported(_))));
        }
        assert!(matches!(parse(&nothing, &nothing), Err(HeaderError::Malformed(_))));
    }
}
