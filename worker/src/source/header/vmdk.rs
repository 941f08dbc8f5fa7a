//! Descriptions of VMDK images, after VMware's *Virtual Disk Format 5.0*: "The Descriptor File", "Hosted Sparse Extents".

use super::{Backing, Facts, HeaderError, le64};

/// Longest description taken, in a file of its own or embedded.
pub(super) const DESCRIPTOR_MAX: usize = 1 << 20;
/// Files of one image: 2 GiB each make 64 TiB.
const EXTENTS_MAX: usize = 32 << 10;

/// Kinds of extents that QEMU reads as what they are.
const KINDS: [&str; 5] = ["FLAT", "SPARSE", "VMFS", "VMFSSPARSE", "SESPARSE"];

/// Where the description is inside a sparse extent; none if the file is a description itself.
pub(super) fn descriptor_place(head: &[u8]) -> Result<Option<(u64, usize)>, HeaderError> {
    if !head.starts_with(b"KDMV") {
        return Ok(None);
    }
    let (offset, length) = (le64(head, 28)?, le64(head, 36)?);
    if offset == 0 || length == 0 {
        return Err(HeaderError::Unsupported(
            "it is a part of an image: name its description instead",
        ));
    }
    let length = length.checked_mul(512).filter(|l| *l <= DESCRIPTOR_MAX as u64);
    match (offset.checked_mul(512), length) {
        (Some(offset), Some(length)) => Ok(Some((offset, length as usize))),
        _ => Err(HeaderError::Malformed("the place of its description makes no sense")),
    }
}

/// Reads a description. One that is `embedded` lies in the only file of its image, whose name in it may be out of date.
pub(super) fn parse(descriptor: &[u8], embedded: bool) -> Result<Facts, HeaderError> {
    let end = descriptor.iter().position(|b| *b == 0).unwrap_or(descriptor.len());
    let text =
        std::str::from_utf8(&descriptor[..end]).map_err(|_| HeaderError::Malformed("its description is no text"))?;
    if !text.starts_with("# Disk DescriptorFile") {
        return Err(HeaderError::Malformed("it has no description"));
    }
    let mut facts = Facts::default();
    let mut kind = None;
    for line in text.lines().map(str::trim) {
        if let Some(value) = setting(line, "createType") {
            kind = Some(value.to_owned());
        } else if let Some(name) = setting(line, "parentFileNameHint") {
            facts.backing = Some(Backing {
                name: name.to_owned(),
                format: Some("vmdk".to_owned()),
            });
        } else if let Some(name) = extent(line)? {
            if facts.extents.len() == EXTENTS_MAX {
                return Err(HeaderError::Malformed("it has too many parts"));
            }
            facts.extents.push(name.to_owned());
        }
    }
    let kind = kind.ok_or(HeaderError::Malformed("its description tells no type"))?;
    let is_single = matches!(kind.as_str(), "monolithicSparse" | "streamOptimized");
    if embedded {
        if !is_single {
            return Err(HeaderError::Unsupported(
                "it is in several files though its description is in one",
            ));
        }
        facts.extents.clear();
    } else if is_single {
        return Err(HeaderError::Unsupported(
            "its description is not in the file that it describes",
        ));
    } else if facts.extents.is_empty() {
        return Err(HeaderError::Malformed("its description names no parts"));
    }
    Ok(facts)
}

/// The value of `name = "value"`.
fn setting<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (key, value) = line.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case(name) {
        return None;
    }
    Some(value.trim().trim_matches('"'))
}

/// The file named by a line such as `RW 4192256 SPARSE "web-s001.vmdk"`, if it is one.
fn extent(line: &str) -> Result<Option<&str>, HeaderError> {
    let mut words = line.split_ascii_whitespace();
    let Some(access @ ("RW" | "RDONLY" | "NOACCESS")) = words.next() else {
        return Ok(None);
    };
    let kind = words.nth(1).unwrap_or_default();
    // QEMU passes over such parts, and everything behind them would move.
    if access != "RW" || !KINDS.contains(&kind) {
        return Err(HeaderError::Unsupported("it has parts of a kind that is not read"));
    }
    match line.split('"').nth(1) {
        Some(name) if !name.is_empty() => Ok(Some(name)),
        _ => Err(HeaderError::Malformed("a part of it has no name")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    const SPLIT: &str = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n\
        # Extent description\nRW 131072 SPARSE \"b-s001.vmdk\"\nRW 5 FLAT \"b c.vmdk\" 0\nddb.adapterType = \"ide\"\n";

    #[test]
    fn the_parts_and_the_parent_are_found() {
        let facts = parse(SPLIT.as_bytes(), false).unwrap();
        assert_eq!(facts.extents, ["b-s001.vmdk", "b c.vmdk"]);
        assert_eq!(facts.backing, None);
        let child = SPLIT.replace("CID=1\n", "CID=1\nparentFileNameHint=\"base.vmdk\"\n");
        let backing = parse(child.as_bytes(), false).unwrap().backing.unwrap();
        assert_eq!(
            backing,
            Backing {
                name: "base.vmdk".into(),
                format: Some("vmdk".into())
            }
        );
    }

    #[test]
    fn an_embedded_description_names_no_other_file() {
        let single = SPLIT.replace("twoGbMaxExtentSparse", "monolithicSparse");
        assert_eq!(parse(single.as_bytes(), true).unwrap(), Facts::default());
        assert!(matches!(
            parse(SPLIT.as_bytes(), true),
            Err(HeaderError::Unsupported(_))
        ));
        assert!(matches!(
            parse(single.as_bytes(), false),
            Err(HeaderError::Unsupported(_))
        ));
    }

    #[test]
    fn parts_that_qemu_would_pass_over_are_not_read() {
        for (from, to) in [("RW 131072 SPARSE", "RDONLY 131072 SPARSE"), ("FLAT", "ZERO")] {
            let text = SPLIT.replace(from, to);
            assert!(
                matches!(parse(text.as_bytes(), false), Err(HeaderError::Unsupported(_))),
                "{to}"
            );
        }
    }

    #[test]
    fn a_description_placed_far_away_or_too_long_is_refused() {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"KDMV");
        assert!(matches!(descriptor_place(&head), Err(HeaderError::Unsupported(_))));
        head[28] = 1;
        head[36] = 20;
        assert_eq!(descriptor_place(&head).unwrap(), Some((512, 10240)));
        head[43] = 1;
        assert!(matches!(descriptor_place(&head), Err(HeaderError::Malformed(_))));
        assert_eq!(descriptor_place(b"# Disk DescriptorFile").unwrap(), None);
    }
}
