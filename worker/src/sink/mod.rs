//! Disks that are written: raw files, block devices, and images of other formats through QEMU.
//!
//! Read [`DiskSink`], then `raw` and `image`.

mod error;
mod image;
mod new_file;
mod raw;
mod writeback;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::blocking::blocking;
pub use crate::extent::Extent;
use crate::source::DiskFormat;
pub use error::SinkError;
pub use image::ImageSink;
pub use raw::RawSink;

/// Which disk to write, and how.
#[derive(Debug, Clone)]
pub struct SinkSpec {
    /// The file or device.
    pub path: PathBuf,
    /// Its format; by extension if none.
    pub format: Option<DiskFormat>,
    /// Bytes of the disk.
    pub size: u64,
    /// Replaces what is at the path (a new file only; a block device is always overwritten and needs it too).
    pub overwrite: bool,
    /// Finishes only when everything is on the disk, and lets few dirty pages gather on the way. Without it the system writes when it likes.
    pub durable: bool,
}

impl SinkSpec {
    /// A new, durable disk by its extension that replaces nothing.
    pub fn new(path: impl Into<PathBuf>, size: u64) -> Self {
        Self {
            path: path.into(),
            format: None,
            size,
            overwrite: false,
            durable: true,
        }
    }

    /// The format in which it is written.
    pub fn format(&self) -> DiskFormat {
        self.format.unwrap_or_else(|| DiskFormat::of_path(&self.path))
    }
}

/// A disk to be written, of a size fixed when it was opened.
///
/// Calls may run side by side on ranges that do not overlap. A dropped future may leave its write running in the background. A sink
/// that is dropped without [`finish`](Self::finish) leaves no new file behind; a disk written in place stays as far as it got.
#[async_trait]
pub trait DiskSink: Send + Sync + 'static {
    /// Bytes of the disk.
    fn size(&self) -> u64;

    /// Whether everything not written yet is known to read as zeros, so that zeros need no call.
    fn is_zeroed(&self) -> bool;

    /// Writes the pieces one behind the other from `offset`, a multiple of 512. Together at most 32 MiB; the end is a multiple of 512 or the disk's.
    ///
    /// # Errors
    /// [`SinkError::Range`] if it reaches beyond the size; those of the disk, by kind.
    async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), SinkError>;

    /// Writes several runs, each as [`write`](Self::write) would; handing over many at once saves what handing over costs.
    ///
    /// # Errors
    /// As for `write`; runs before the failed one may have been written.
    async fn write_runs(&self, runs: Vec<(u64, Vec<Bytes>)>) -> Result<(), SinkError> {
        for (offset, data) in runs {
            self.write(offset, data).await?;
        }
        Ok(())
    }

    /// Makes an extent read as zeros, as a hole where possible.
    ///
    /// # Errors
    /// As for `write`.
    async fn zero(&self, extent: Extent) -> Result<(), SinkError>;

    /// Fills the whole buffer with the bytes at `offset`: a restore in place compares first.
    ///
    /// # Errors
    /// As for `write`.
    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SinkError>;

    /// Makes everything durable and, if it is a new file, visible under its name. Nothing can be written afterwards.
    ///
    /// # Errors
    /// As for `write`; [`SinkError::Exists`] if somebody made the target meanwhile.
    async fn finish(&self) -> Result<(), SinkError>;

    /// Gives up. When this returns nothing of this sink reaches the disk any more, also no write whose future was dropped; a new file is gone, a disk written
    /// in place stays as far as it got. Waits for what the system is writing, as long as that takes. Nothing can be written afterwards.
    async fn abandon(&self);
}

/// Makes a new disk, or takes a block device that may be overwritten.
///
/// # Errors
/// Those of [`RawSink::create`] and [`ImageSink::create`].
pub async fn create(spec: &SinkSpec) -> Result<Arc<dyn DiskSink>, SinkError> {
    match spec.format() {
        DiskFormat::Raw => {
            let spec = spec.clone();
            Ok(Arc::new(blocking(move || RawSink::create(&spec)).await?))
        }
        _ => Ok(Arc::new(ImageSink::create(spec).await?)),
    }
}

/// Opens a disk that is there, of the same size, to be written where it differs.
///
/// # Errors
/// Those of [`RawSink::open_in_place`] and [`ImageSink::open_in_place`].
pub async fn open_in_place(spec: &SinkSpec) -> Result<Arc<dyn DiskSink>, SinkError> {
    match spec.format() {
        DiskFormat::Raw => {
            let spec = spec.clone();
            Ok(Arc::new(blocking(move || RawSink::open_in_place(&spec)).await?))
        }
        _ => Ok(Arc::new(ImageSink::open_in_place(spec).await?)),
    }
}

fn check_range(offset: u64, length: u64, size: u64) -> Result<(), SinkError> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(SinkError::Range { offset, length, size }),
    }
}
