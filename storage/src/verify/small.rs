//! Checking everything but packs: objects of one part, and those in clear. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use crate::catalog::{Catalog, CatalogId, open_part};
use crate::error::{FormatError, Result};
use crate::ids::{PackId, PointId, VaultId};
use crate::index::segment::{self, SegmentEntry};
use crate::limits::{INDEX_SEGMENT_MAX, SMALL_OBJECT_MAX};
use crate::manifest::{self, Manifest};
use crate::pack::Footer;
use crate::seal::{FRAME_OVERHEAD, FrameHeader, FrameKind, OBJECT_HEADER, ObjectHeader, ObjectKind, open_object};
use crate::stored;
use crate::vault::claim::{Claim, ListedClaim};
use crate::vault::header::Header;
use crate::vault::{Vault, names};

/// Longest of the objects that are checked here.
pub(super) const LENGTH_MAX: usize = {
    assert!(INDEX_SEGMENT_MAX <= SMALL_OBJECT_MAX);
    SMALL_OBJECT_MAX + OBJECT_HEADER + FRAME_OVERHEAD
};

/// Checks what needs no key: shape, lengths and checksums.
///
/// # Errors
/// What is wrong.
pub(super) fn check(vault: VaultId, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    if let Some(id) = names::parse_segment(name) {
        check_one_part(vault, ObjectKind::Segment, FrameKind::Segment, Some(id), bytes)
    } else if names::parse_point(name).is_some() {
        check_one_part(vault, ObjectKind::Manifest, FrameKind::Manifest, None, bytes)
    } else if names::parse_catalog(name).is_some() || names::parse_catalog_part(name).is_some() {
        check_one_part(vault, ObjectKind::Catalog, FrameKind::Catalog, None, bytes)
    } else {
        check_clear(vault, name, bytes)
    }
}

fn check_one_part(
    vault: VaultId,
    kind: ObjectKind,
    frame_kind: FrameKind,
    id: Option<PackId>,
    bytes: &[u8],
) -> Result<(), FormatError> {
    let header = ObjectHeader::parse(bytes)?;
    header.expect(kind, vault, id.map(|id| (id.writer, id.seq)))?;
    let frame = &bytes[OBJECT_HEADER..];
    let clear = FrameHeader::parse(frame)?;
    if clear.kind != frame_kind || clear.number != 0 {
        return Err(FormatError::Malformed {
            what: "object",
            why: "holds another kind of frame",
        });
    }
    clear.check(frame)?;
    if frame.len() != clear.length() {
        return Err(FormatError::Malformed {
            what: "object",
            why: "bytes are left over after its frame",
        });
    }
    Ok(())
}

fn check_clear(vault: VaultId, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let bytes = Bytes::copy_from_slice(bytes);
    let found = if name == names::HEADER {
        Header::decode(&bytes)?.vault
    } else if let Some((number, cluster)) = names::parse_claim(name) {
        Claim::decode(ListedClaim { number, cluster }, &bytes)?.vault
    } else {
        return check_revision(vault, &bytes);
    };
    if found == vault {
        return Ok(());
    }
    Err(FormatError::Mismatch {
        what: "vault id",
        expected: vault.to_string(),
        found: found.to_string(),
    })
}

/// As far as can be seen without a key: the MAC needs one.
fn check_revision(vault: VaultId, bytes: &[u8]) -> Result<(), FormatError> {
    let what = "key revision";
    if bytes.is_empty() {
        return Err(FormatError::Truncated { what, need: 1, have: 0 });
    }
    let malformed = |_| FormatError::Malformed {
        what,
        why: "is not the message it must be",
    };
    let revision = stored::KeyRevision::decode(bytes).map_err(malformed)?;
    let body = stored::KeyRevisionBody::decode(revision.body).map_err(malformed)?;
    if revision.mac.len() != 32 {
        return Err(FormatError::Malformed {
            what,
            why: "its MAC is not 32 bytes long",
        });
    }
    if body.format_version != 1 {
        return Err(FormatError::Unsupported {
            what: "key revision version",
            value: u64::from(body.format_version),
        });
    }
    if body.vault_id != vault.0.as_slice() {
        let found = crate::ids::hex(&body.vault_id.slice(..body.vault_id.len().min(32)));
        return Err(FormatError::Mismatch {
            what: "vault id",
            expected: vault.to_string(),
            found,
        });
    }
    Ok(())
}

/// Checks that a manifest is the one that is known of its point. Any other object, and a point of which nothing is known, passes.
///
/// # Errors
/// [`FormatError::Mismatch`].
pub(super) fn check_manifest(known: &BTreeMap<PointId, [u8; 32]>, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let Some((expected, found)) = names::parse_point(name)
        .and_then(|(_, point)| known.get(&point))
        .map(|expected| (expected, manifest::hash(bytes)))
        .filter(|(expected, found)| *expected != found)
    else {
        return Ok(());
    };
    Err(FormatError::Mismatch {
        what: "BLAKE3 of the manifest",
        expected: crate::ids::hex(expected),
        found: crate::ids::hex(&found),
    })
}

/// Opens what is sealed; the rest is checked as without keys.
///
/// # Errors
/// What is wrong, or that the key ring may not.
pub(super) fn open(vault: &Vault, name: &str, bytes: &[u8]) -> Result<()> {
    if names::parse_segment(name).is_some() {
        for entry in open_segment(vault, name, bytes)? {
            Footer::decode(&entry.footer)?;
        }
    } else if names::parse_point(name).is_some() {
        Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, name, bytes)?;
    } else if let Some((cluster, index)) = names::parse_catalog(name) {
        Catalog::open(&vault.keyring, vault.id, CatalogId { cluster, index }, bytes)?;
    } else if let Some((cluster, index, number)) = names::parse_catalog_part(name) {
        open_part(&vault.keyring, vault.id, CatalogId { cluster, index }, number, bytes)?;
    } else {
        check_clear(vault.id, name, bytes)?;
    }
    Ok(())
}

/// Opens an index segment.
///
/// # Errors
/// What is wrong, also packs of other writers.
pub(super) fn open_segment(vault: &Vault, name: &str, bytes: &[u8]) -> Result<Vec<SegmentEntry>> {
    let (header, plain) = open_object(&vault.keyring, ObjectKind::Segment, vault.id, name, bytes)?;
    let entries = segment::decode(&plain.into())?;
    if entries.iter().any(|entry| entry.pack.writer != header.writer) {
        return Err(FormatError::Malformed {
            what: "index segment",
            why: "lists a pack of another writer",
        }
        .into());
    }
    Ok(entries)
}
