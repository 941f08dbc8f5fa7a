//! Why a disk could not be read.

use std::io;
use std::path::{Path, PathBuf};

use tresor_storage::Kind;

use crate::qemu::QemuError;

/// Why a disk could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// No permission.
    #[error("could not {operation} {}: permission denied", path.display())]
    Denied {
        /// `open`, `read`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A folder, socket or pipe.
    #[error("{} is neither a file nor a block device", path.display())]
    NotADisk {
        /// The path.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("{} is empty", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
    },
    /// Larger than a recipe can name.
    #[error("{} has {size} bytes, at most {max} are backed up", path.display())]
    TooLarge {
        /// The path.
        path: PathBuf,
        /// Bytes of it.
        size: u64,
        /// The bound.
        max: u64,
    },
    /// Somebody writes to it.
    #[error("{} is in use: {why}", path.display())]
    InUse {
        /// The file or device.
        path: PathBuf,
        /// How that is known.
        why: &'static str,
    },
    /// The file became shorter than it was when it was opened.
    #[error("{} ends at byte {at}, though it had {size} bytes when it was opened", path.display())]
    Shrunk {
        /// The file.
        path: PathBuf,
        /// Where a read found its end.
        at: u64,
        /// Its size when it was opened.
        size: u64,
    },
    /// Not an image of its format, or a damaged one.
    #[error("{} is no sound {format} image: {why}", path.display())]
    Malformed {
        /// The image.
        path: PathBuf,
        /// As which it was read.
        format: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A form of image that is not read.
    #[error("{} cannot be backed up: {why}", path.display())]
    Unsupported {
        /// The image.
        path: PathBuf,
        /// What it needs.
        why: String,
    },
    /// The image names another file that it may not name.
    #[error("{} refers to {refers_to:?}: {why}", path.display())]
    Reference {
        /// The image.
        path: PathBuf,
        /// The other file as the image has it.
        refers_to: String,
        /// Why it is not followed.
        why: &'static str,
        /// Whether the caller may permit it (`allow_backing`).
        permissible: bool,
    },
    /// A range outside the disk was asked for.
    #[error("bytes {offset}+{length} are not inside a disk of {size} bytes")]
    Range {
        /// Where it starts.
        offset: u64,
        /// How long it is.
        length: u64,
        /// Size of the disk.
        size: u64,
    },
    /// The operating system.
    #[error("could not {operation} {}", path.display())]
    Io {
        /// `read`, …
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The program that reads the image.
    #[error("could not read image {}", path.display())]
    Qemu {
        /// The image.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: QemuError,
    },
}

impl SourceError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing { .. } => Kind::Missing,
            Self::Denied { .. } => Kind::Denied,
            Self::NotADisk { .. } | Self::Empty { .. } | Self::TooLarge { .. } | Self::Reference { .. } => {
                Kind::Invalid
            }
            Self::InUse { .. } => Kind::Fenced,
            Self::Shrunk { .. } | Self::Malformed { .. } => Kind::Corrupt,
            Self::Unsupported { .. } => Kind::Unsupported,
            Self::Range { .. } => Kind::Bug,
            Self::Io { source, .. } => io_kind(source),
            Self::Qemu { source, .. } => source.kind(),
        }
    }

    /// What a person can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::InUse { .. } => {
                Some("stop the VM, back up a live source, or pass --allow-live for a point marked as such")
            }
            Self::Shrunk { .. } => Some("something cut the file during the backup: stop it and back up again"),
            Self::Denied { .. } => Some("run as a user who may read the disk"),
            Self::Reference { permissible: true, .. } => Some("pass --allow-backing if the image is trusted"),
            Self::Malformed { .. } => {
                Some("check the image with qemu-img check, or name its format with --source-format")
            }
            Self::Qemu { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Sorts what the operating system said.
    pub(crate) fn from_io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Denied { operation, path },
            _ => Self::Io {
                operation,
                path,
                source,
            },
        }
    }
}

/// What helps against an error of the operating system.
pub(crate) fn io_kind(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::NotFound => Kind::Missing,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => Kind::Full,
        io::ErrorKind::AlreadyExists | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => Kind::Invalid,
        io::ErrorKind::ResourceBusy => Kind::Fenced,
        _ => Kind::Retry,
    }
}
