//! Disks that are read: raw files, block devices, and images of other formats through QEMU.
//!
//! Read [`DiskSource`], then `format` (what decides how an image is read), `raw`, `image` and `nbd`.

mod error;
mod format;
mod header;
mod image;
pub(crate) mod in_use;
mod raw;
mod steady;

use std::path::PathBuf;
use std::sync::Arc;

use crate::blocking::blocking;
use async_trait::async_trait;
use bytes::{Buf, BytesMut};

pub use crate::extent::Extent;
pub use error::SourceError;
pub(crate) use error::io_kind;
pub use format::{DiskFormat, UnknownFormat};
pub use image::ImageSource;
pub(crate) use image::examine;
pub use raw::RawSource;

/// Gives bytes to the parsers of all image formats. For fuzzing; no part of the interface.
#[doc(hidden)]
pub fn parse_foreign(bytes: &[u8]) {
    header::parse_foreign(bytes);
}

/// What a disk is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// A file.
    File,
    /// A block device.
    BlockDevice,
    /// An export of an NBD server that was running before.
    Nbd,
}

/// What a source is, for manifests and messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceDescription {
    /// What it is read from.
    pub kind: SourceKind,
    /// How its bytes lie.
    pub format: DiskFormat,
    /// Where it is.
    pub path: PathBuf,
}

/// Which disk to read, and what is permitted.
#[derive(Debug, Clone)]
pub struct SourceSpec {
    /// The file or device.
    pub path: PathBuf,
    /// Its format; by extension if none.
    pub format: Option<DiskFormat>,
    /// Reads it although somebody else may write to it.
    pub allow_live: bool,
    /// Follows references of the image to files outside its folder.
    pub allow_backing: bool,
}

impl SourceSpec {
    /// A disk by its extension, with nothing permitted.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            format: None,
            allow_live: false,
            allow_backing: false,
        }
    }

    /// The format in which it is read.
    pub fn format(&self) -> DiskFormat {
        self.format.unwrap_or_else(|| DiskFormat::of_path(&self.path))
    }
}

/// Whether what was read was one state of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steadiness {
    /// Nobody wrote meanwhile, as far as one can tell.
    Steady,
    /// Somebody wrote, or could have: what was read may mix states.
    Changed {
        /// How that is known: a phrase such as `its modification time changed`.
        why: String,
    },
}

/// A disk to be read, of a size fixed when it was opened.
///
/// Calls may run side by side; each is one task's. A dropped future may leave its read running in the background for a
/// moment, which nobody notices but the disk.
#[async_trait]
pub trait DiskSource: Send + Sync + 'static {
    /// Bytes of the disk, any number above zero.
    fn size(&self) -> u64;

    /// What it is.
    fn description(&self) -> &SourceDescription;

    /// Extents inside `within` that may hold something else than zeros: ascending, disjoint, none adjacent. Everything else reads as zeros.
    ///
    /// `within` is cut at the disk's end. Costs a few calls per extent: ask for large ranges (a GiB) at once.
    ///
    /// # Errors
    /// Those of the disk, by kind.
    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError>;

    /// Fills the whole buffer (its `len`, up to 32 MiB) with the bytes at `offset` and gives it back; an error drops it.
    ///
    /// # Errors
    /// [`SourceError::Range`] if it reaches beyond the size; those of the disk, by kind.
    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SourceError>;

    /// Tells, after the last read, whether all that was read was one state of the disk.
    ///
    /// # Errors
    /// Those of the disk, by kind.
    async fn finish(&self) -> Result<Steadiness, SourceError>;
}

/// Makes a buffer of `length` zeros for [`DiskSource::read`], at the start of a page.
///
/// Allocators put large buffers some bytes behind it, and to such places the kernel of an AMD Zen machine copies five times slower (1.5 instead of 8 GB/s).
/// Keep buffers and use them again: fresh memory costs as much as the copy.
pub fn buffer(length: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(length + PAGE);
    buffer.advance(buffer.as_ptr().align_offset(PAGE).min(PAGE));
    buffer.truncate(length);
    buffer
}

/// Of every platform that matters here; where pages are larger it is still far enough from the start of one.
const PAGE: usize = 4096;

/// Opens a disk.
///
/// # Errors
/// Those of [`RawSource::open`] and [`ImageSource::open`].
pub async fn open(spec: &SourceSpec) -> Result<Arc<dyn DiskSource>, SourceError> {
    match spec.format() {
        DiskFormat::Raw => {
            let spec = spec.clone();
            Ok(Arc::new(blocking(move || RawSource::open(&spec)).await?))
        }
        _ => Ok(Arc::new(ImageSource::open(spec).await?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_start_with_a_page_and_keep_to_it_when_they_are_used_again() {
        for length in [0, 1, 4096, 4 << 20, (4 << 20) + 1] {
            let mut buffer = buffer(length);
            assert_eq!(buffer.len(), length);
            assert_eq!(buffer.as_ptr() as usize % PAGE, 0, "{length}");
            assert!(buffer.iter().all(|b| *b == 0));
            buffer.clear();
            buffer.resize(length, 1);
            assert_eq!(buffer.as_ptr() as usize % PAGE, 0, "{length} again");
        }
    }
}
