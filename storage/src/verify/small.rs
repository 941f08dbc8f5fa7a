//! Checking everything but packs: objects of one part, and those in clear. Pure.

use prost::Message;

use crate::error::{FormatError, Result};
use crate::ids::{PackId, VaultId};
use crate::index::segment::{self, SegmentEntry};
use crate::limits::{INDEX_SEGMENT_MAX, SMALL_OBJECT_MAX};
use crate::manifest::Manifest;
use crate::pack::Footer;
use crate::seal::{FRAME_OVERHEAD, FrameHeader, FrameKind, OBJECT_HEADER, ObjectHeader, ObjectKind, open_object};
use crate::stored;
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
    } else if names::parse_catalog(name).is_some() {
        check_one_part(vault, ObjectKind::Catalog, FrameKind::Catalog, None, bytes)
    } else {
        check_clear(vault, name, bytes)
    }
}

fn check_one_part(vault: VaultId, kind: ObjectKind, frame_kind: FrameKind, id: Option<PackId>, bytes: &[u8]) -> Result<(), FormatError> {
    let header = ObjectHeader::parse(bytes)?;
    header.expect(kind, vault, id.map(|id| (id.writer, id.seq)))?;
    let frame = &bytes[OBJECT_HEADER..];
    let clear = FrameHeader::parse(frame)?;
    if clear.kind != frame_kind || clear.number != 0 {
        return Err(FormatError::Malformed { what: "object", why: "holds another kind of frame" });
    }
    clear.check(frame)?;
    if frame.len() != clear.length() {
        return Err(FormatError::Malformed { what: "object", why: "bytes are left over after its frame" });
    }
    Ok(())
}

fn check_clear(vault: VaultId, name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    let (what, version, found) = if name == names::HEADER {
        let header = decode::<stored::VaultHeader>("vault header", bytes)?;
        ("vault header", header.format_version, Some(header.vault_id))
    } else if names::parse_key_revision(name).is_some() {
        let revision = decode::<stored::KeyRevision>("key revision", bytes)?;
        let body = decode::<stored::KeyRevisionBody>("key revision", &revision.body)?;
        if revision.mac.len() != 32 {
            return Err(FormatError::Malformed { what: "key revision", why: "its MAC is not 32 bytes long" });
        }
        ("key revision", body.format_version, Some(body.vault_id))
    } else {
        let claim = decode::<stored::Claim>("claim", bytes)?;
        ("claim", claim.format_version, Some(claim.vault_id))
    };
    if version != 1 {
        return Err(FormatError::Unsupported { what, value: u64::from(version) });
    }
    match found {
        Some(id) if id != vault.0.as_slice() => {
            let found = crate::ids::hex(&id.slice(..id.len().min(32)));
            Err(FormatError::Mismatch { what: "vault id", expected: vault.to_string(), found })
        }
        _ => Ok(()),
    }
}

fn decode<M: Message + Default>(what: &'static str, bytes: &[u8]) -> Result<M, FormatError> {
    if bytes.is_empty() {
        return Err(FormatError::Truncated { what, need: 1, have: 0 });
    }
    M::decode(bytes).map_err(|_| FormatError::Malformed { what, why: "is not the message it must be" })
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
    } else if names::parse_catalog(name).is_some() {
        let (_, plain) = open_object(&vault.keyring, ObjectKind::Catalog, vault.id, name, bytes)?;
        let catalog = decode::<stored::Catalog>("catalogue", &plain)?;
        if catalog.format_version != 1 {
            return Err(FormatError::Unsupported { what: "catalogue version", value: u64::from(catalog.format_version) }.into());
        }
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
        return Err(FormatError::Malformed { what: "index segment", why: "lists a pack of another writer" }.into());
    }
    Ok(entries)
}
