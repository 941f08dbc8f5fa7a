//! Why a disk could not be written.

use std::io;
use std::path::{Path, PathBuf};

use tresor_storage::Kind;

use crate::qemu::QemuError;
use crate::source::{SourceError, io_kind};

/// Why a disk could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// There is something at the target already.
    #[error("{} exists", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target, or the folder of a new one, is not there.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The target or folder.
        path: PathBuf,
    },
    /// No permission.
    #[error("could not {operation} {}: permission denied", path.display())]
    Denied {
        /// `create`, `write`, …
        operation: &'static str,
        /// The target.
        path: PathBuf,
    },
    /// No space.
    #[error("could not {operation} {}: no space left", path.display())]
    Full {
        /// `write`, …
        operation: &'static str,
        /// The target.
        path: PathBuf,
    },
    /// A folder, socket or pipe.
    #[error("{} is neither a file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else uses it.
    #[error("{} is in use: {why}", path.display())]
    InUse {
        /// The target.
        path: PathBuf,
        /// How that is known.
        why: &'static str,
    },
    /// The target is not of the disk's size.
    #[error("{} has {have} bytes, the disk {need}", path.display())]
    Size {
        /// The target.
        path: PathBuf,
        /// Its bytes.
        have: u64,
        /// Bytes of the disk.
        need: u64,
    },
    /// The format cannot hold this disk, or the target cannot have this format.
    #[error("{} cannot be {format}: {why}", path.display())]
    Unsupported {
        /// The target.
        path: PathBuf,
        /// The format.
        format: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A range outside the disk was to be written.
    #[error("bytes {offset}+{length} are not inside a disk of {size} bytes")]
    Range {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Size of the disk.
        size: u64,
    },
    /// It was finished before.
    #[error("{} is finished", path.display())]
    Finished {
        /// The target.
        path: PathBuf,
    },
    /// The image that is there cannot be written to.
    #[error("could not open the target")]
    Image {
        /// What is wrong with it.
        #[source]
        source: Box<SourceError>,
    },
    /// The operating system.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// `write`, …
        operation: &'static str,
        /// The target.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The program that writes the image.
    #[error("could not write image {}", path.display())]
    Qemu {
        /// The target.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: QemuError,
    },
}

impl SinkError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Exists { .. } | Self::NotADisk { .. } | Self::Size { .. } | Self::Unsupported { .. } => Kind::Invalid,
            Self::Missing { .. } => Kind::Missing,
            Self::Denied { .. } => Kind::Denied,
            Self::Full { .. } => Kind::Full,
            Self::InUse { .. } => Kind::Fenced,
            Self::Range { .. } | Self::Finished { .. } => Kind::Bug,
            Self::Io { source, .. } => io_kind(source),
            Self::Qemu { source, .. } => source.kind(),
            Self::Image { source } => source.kind(),
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exists { .. } => Some("pass --overwrite to replace it, or --in-place to write only what differs"),
            Self::Denied { .. } => Some("run as a user who may write there"),
            Self::Full { .. } => Some("free space at the target, or restore elsewhere"),
            Self::InUse { .. } => Some("stop the VM or unmount the device first"),
            Self::Size { .. } => Some("restore to a target of the disk's size, or to a new file"),
            Self::Qemu { source, .. } => source.hint(),
            Self::Image { source } => source.hint(),
            _ => None,
        }
    }

    /// Sorts what the operating system said.
    pub(crate) fn from_io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Denied { operation, path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { operation, path },
            io::ErrorKind::ResourceBusy => Self::InUse {
                path,
                why: "the system says that it is busy",
            },
            _ => Self::Io {
                operation,
                path,
                source,
            },
        }
    }
}
