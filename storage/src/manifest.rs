//! Manifests: one recovery point each, sealed.

use crate::chunk::{IdKeys, Profile};
use crate::error::{FormatError, Result};
use crate::ids::{ItemId, PointId, VaultId, Writer};
use crate::keys::Keyring;
use crate::recipe::{Root, writer_from_stored, writer_to_stored};
use crate::seal::{ObjectKind, open_object, seal_object};
use crate::stored;
use crate::vault::names;
use bytes::Bytes;
use prost::Message;

const VERSION: u32 = 1;
/// Disks of one point.
const DISKS_MAX: usize = 1024;

/// How consistent the disks of a point are with each other and in themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// File systems were quiet.
    Filesystem,
    /// Applications were quiet.
    Application,
}

impl Consistency {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Filesystem => "filesystem",
            Self::Application => "application",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Crash, Self::Filesystem, Self::Application]
            .into_iter()
            .find(|c| c.name() == name)
    }
}

/// One disk of a point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDisk {
    /// Its name in the item.
    pub name: String,
    /// What it consists of, with its size.
    pub root: Root,
    /// "file", "block device", "nbd".
    pub source_kind: String,
    /// "raw", "qcow2", …
    pub source_format: String,
}

/// One recovery point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its vault.
    pub vault: VaultId,
    /// Its item.
    pub item: ItemId,
    /// The item's name then.
    pub item_name: String,
    /// The point.
    pub point: PointId,
    /// Who wrote it.
    pub writer: Writer,
    /// The point that it was read against.
    pub parent: Option<PointId>,
    /// When reading began, RFC 3339 in UTC.
    pub time: String,
    /// Until when it is to be kept whatever the policy says, RFC 3339.
    pub keep_until: Option<String>,
    /// What was reached.
    pub consistency: Consistency,
    /// Why not more.
    pub consistency_reason: String,
    /// The images were in use or changed while they were read, as allowed.
    pub live: bool,
    /// Its disks.
    pub disks: Vec<ManifestDisk>,
    /// Bytes read, holes left out.
    pub bytes_read: u64,
    /// Plaintext of new chunks.
    pub bytes_new: u64,
    /// Bytes put, as far as known when the manifest was written (packs and segments).
    pub bytes_stored: u64,
}

impl Manifest {
    /// The object's name.
    pub fn object_name(&self) -> String {
        names::point(self.item, self.point)
    }

    /// Seals it for the store.
    ///
    /// # Errors
    /// When the key ring may not.
    pub fn seal(&self, keyring: &Keyring) -> Result<Bytes> {
        let disks = self.disks.iter().map(|disk| stored::Disk {
            name: disk.name.clone(),
            size: disk.root.size,
            root: Some(disk.root.to_stored()),
            source_kind: disk.source_kind.clone(),
            source_format: disk.source_format.clone(),
            ..Default::default()
        });
        let message = stored::Manifest {
            format_version: VERSION,
            vault_id: self.vault.0.to_vec().into(),
            item_id: self.item.0.to_vec().into(),
            item_name: self.item_name.clone(),
            point_id: self.point.0.to_vec().into(),
            writer: Some(writer_to_stored(self.writer)),
            parent_point_id: self.parent.map(|p| p.0.to_vec().into()).unwrap_or_default(),
            time: self.time.clone(),
            keep_until: self.keep_until.clone().unwrap_or_default(),
            consistency: self.consistency.name().to_owned(),
            consistency_reason: self.consistency_reason.clone(),
            disks: disks.collect(),
            attachments: Vec::new(),
            bytes_read: self.bytes_read,
            bytes_new: self.bytes_new,
            bytes_stored: self.bytes_stored,
            live: self.live,
        };
        seal_object(
            keyring,
            ObjectKind::Manifest,
            self.vault,
            self.writer,
            0,
            &self.object_name(),
            &message.encode_to_vec(),
        )
    }

    /// Opens the object `name`.
    ///
    /// # Errors
    /// When it is not a manifest of this vault under that name, or damaged, or of a newer version.
    pub fn open(
        keyring: &Keyring,
        keys: &IdKeys,
        profile: Profile,
        vault: VaultId,
        name: &str,
        bytes: &[u8],
    ) -> Result<Self> {
        let what = "manifest";
        let malformed = |why| FormatError::Malformed { what, why };
        let (header, plain) = open_object(keyring, ObjectKind::Manifest, vault, name, bytes)?;
        let message =
            stored::Manifest::decode(plain.as_slice()).map_err(|_| malformed("is not the message it must be"))?;
        if message.format_version != VERSION {
            return Err(FormatError::Unsupported {
                what: "manifest version",
                value: u64::from(message.format_version),
            }
            .into());
        }
        let id = |_| malformed("an id is not 16 bytes long");
        let (item, point) = names::parse_point(name).ok_or_else(|| malformed("has no manifest's name"))?;
        let writer = message.writer.as_ref().map(writer_from_stored);
        if message.item_id != item.0.as_slice()
            || message.point_id != point.0.as_slice()
            || message.vault_id != vault.0.as_slice()
            || writer != Some(header.writer)
        {
            return Err(malformed("belongs to another point than its name says").into());
        }
        if message.disks.len() > DISKS_MAX {
            return Err(FormatError::TooLarge {
                what: "disks of a point",
                value: message.disks.len() as u64,
                max: DISKS_MAX as u64,
            }
            .into());
        }
        let disks = message
            .disks
            .into_iter()
            .map(|disk| {
                let root = disk.root.as_ref().ok_or_else(|| malformed("a disk has no root"))?;
                Ok(ManifestDisk {
                    root: Root::from_stored(root, keys, profile, disk.size)?,
                    name: disk.name,
                    source_kind: disk.source_kind,
                    source_format: disk.source_format,
                })
            })
            .collect::<Result<_, FormatError>>()?;
        Ok(Self {
            vault,
            item,
            item_name: message.item_name,
            point,
            writer: header.writer,
            parent: match message.parent_point_id {
                empty if empty.is_empty() => None,
                bytes => Some(PointId::from_slice(&bytes).map_err(id)?),
            },
            time: message.time,
            keep_until: Some(message.keep_until).filter(|k| !k.is_empty()),
            consistency: Consistency::parse(&message.consistency)
                .ok_or_else(|| malformed("has an unknown consistency"))?,
            consistency_reason: message.consistency_reason,
            live: message.live,
            disks,
            bytes_read: message.bytes_read,
            bytes_new: message.bytes_new,
            bytes_stored: message.bytes_stored,
        })
    }
}

/// The hash by which a manifest object is named where decisions are kept.
pub fn hash(object: &[u8]) -> [u8; 32] {
    *blake3::hash(object).as_bytes()
}
