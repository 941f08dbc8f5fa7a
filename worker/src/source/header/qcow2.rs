//! Headers of qcow2 images, after `docs/interop/qcow2.rst` of QEMU.

use super::{Backing, Facts, HeaderError, be32, be64};

/// The header, its extensions and the name of the backing file lie in the first cluster, of at most 2 MiB.
pub(super) const HEAD_MAX: usize = 2 << 20;

const MAGIC: u32 = u32::from_be_bytes(*b"QFI\xfb");
/// The format's own bound on the backing file's name.
const NAME_MAX: u32 = 1023;
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const INCOMPATIBLE_DATA_FILE: u64 = 1 << 2;

/// Reads the first cluster, or as much of it as is given.
pub(super) fn parse(head: &[u8]) -> Result<Facts, HeaderError> {
    if be32(head, 0)? != MAGIC {
        return Err(HeaderError::Malformed("it does not start as one"));
    }
    let version = be32(head, 4)?;
    let backing_offset = be64(head, 8)?;
    let backing_length = be32(head, 16)?;
    let cluster_bits = be32(head, 20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(HeaderError::Malformed("its cluster size makes no sense"));
    }
    let cluster = 1_usize << cluster_bits;
    let head = &head[..head.len().min(cluster)];
    if be32(head, 32)? != 0 {
        return Err(HeaderError::Unsupported("it is encrypted by QEMU"));
    }
    let header_length = match version {
        2 => 72,
        3 => {
            if be64(head, 72)? & INCOMPATIBLE_DATA_FILE != 0 {
                return Err(HeaderError::Unsupported("its data are in another file"));
            }
            be32(head, 100)? as usize
        }
        _ => return Err(HeaderError::Unsupported("it is of an unknown version")),
    };
    if header_length < 72 || header_length > cluster {
        return Err(HeaderError::Malformed("the length of its header makes no sense"));
    }

    if backing_offset == 0 {
        extensions(head, header_length, cluster)?;
        return Ok(Facts::default());
    }
    if backing_length == 0 || backing_length > NAME_MAX || backing_offset < header_length as u64 {
        return Err(HeaderError::Malformed("the name of its backing file makes no sense"));
    }
    let start =
        usize::try_from(backing_offset).map_err(|_| HeaderError::Malformed("its backing file is named elsewhere"))?;
    let name = start
        .checked_add(backing_length as usize)
        .and_then(|end| head.get(start..end));
    let name = name.ok_or(HeaderError::Malformed("the name of its backing file is cut short"))?;
    let format = extensions(head, header_length, start)?;
    Ok(Facts {
        backing: Some(Backing {
            name: text(name)?,
            format,
        }),
        extents: Vec::new(),
    })
}

/// Walks the extensions; gives the backing file's format.
fn extensions(head: &[u8], start: usize, end: usize) -> Result<Option<String>, HeaderError> {
    let mut at = start;
    let mut format = None;
    // Each extension has 8 bytes at least, so this ends.
    while at + 8 <= end.min(head.len()) {
        let (kind, length) = (be32(head, at)?, be32(head, at + 4)? as usize);
        at += 8;
        let data = at
            .checked_add(length)
            .filter(|stop| *stop <= end)
            .and_then(|stop| head.get(at..stop));
        let data = data.ok_or(HeaderError::Malformed("one of its header extensions is too long"))?;
        match kind {
            EXTENSION_END => break,
            EXTENSION_BACKING_FORMAT => format = Some(text(data)?),
            EXTENSION_DATA_FILE => return Err(HeaderError::Unsupported("its data are in another file")),
            _ => {}
        }
        at += length.next_multiple_of(8);
    }
    Ok(format)
}

fn text(bytes: &[u8]) -> Result<String, HeaderError> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.contains('\0') => Ok(text.to_owned()),
        _ => Err(HeaderError::Malformed("a name in it is no text")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn header(incompatible: u64, backing: Option<(&str, Option<&str>)>) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[0..4].copy_from_slice(b"QFI\xfb");
        head[7] = 3;
        head[20..24].copy_from_slice(&16_u32.to_be_bytes());
        head[72..80].copy_from_slice(&incompatible.to_be_bytes());
        head[100..104].copy_from_slice(&104_u32.to_be_bytes());
        if let Some((name, format)) = backing {
            if let Some(format) = format {
                head[104..108].copy_from_slice(&EXTENSION_BACKING_FORMAT.to_be_bytes());
                head[108..112].copy_from_slice(&(format.len() as u32).to_be_bytes());
                head[112..112 + format.len()].copy_from_slice(format.as_bytes());
            }
            head[8..16].copy_from_slice(&256_u64.to_be_bytes());
            head[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
            head[256..256 + name.len()].copy_from_slice(name.as_bytes());
        }
        head
    }

    #[test]
    fn the_backing_file_and_its_format_are_found() {
        let facts = parse(&header(0, Some(("base.img", Some("raw"))))).unwrap();
        assert_eq!(
            facts.backing.unwrap(),
            Backing {
                name: "base.img".into(),
                format: Some("raw".into())
            }
        );
        let facts = parse(&header(0, Some(("base.img", None)))).unwrap();
        assert_eq!(facts.backing.unwrap().format, None);
        assert_eq!(parse(&header(0, None)).unwrap(), Facts::default());
    }

    #[test]
    fn external_data_encryption_and_unknown_versions_are_not_read() {
        assert!(matches!(
            parse(&header(INCOMPATIBLE_DATA_FILE, None)),
            Err(HeaderError::Unsupported(_))
        ));
        for (at, value) in [(35, 2), (7, 4)] {
            let mut head = header(0, None);
            head[at] = value;
            assert!(matches!(parse(&head), Err(HeaderError::Unsupported(_))), "byte {at}");
        }
    }

    #[test]
    fn headers_with_lengths_that_reach_out_are_refused() {
        for (at, bytes) in [
            (16_usize, 1024_u32.to_be_bytes()),
            (16, 0_u32.to_be_bytes()),
            (20, 22_u32.to_be_bytes()),
            (20, 8_u32.to_be_bytes()),
            (100, 71_u32.to_be_bytes()),
            (100, (1_u32 << 17).to_be_bytes()),
            (108, u32::MAX.to_be_bytes()),
            (8, u32::MAX.to_be_bytes()),
        ] {
            let mut head = header(0, Some(("base.img", Some("raw"))));
            head[at..at + 4].copy_from_slice(&bytes);
            assert!(
                matches!(parse(&head), Err(HeaderError::Malformed(_))),
                "{bytes:?} at {at}"
            );
        }
        let whole = header(0, Some(("base.img", Some("raw"))));
        for length in 0..264 {
            assert!(parse(&whole[..length]).is_err(), "{length} bytes");
        }
    }
}
