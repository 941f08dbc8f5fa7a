//! Images of formats other than raw, written through a `qemu-nbd` of our own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::RwLock;

use super::new_file::NewFile;
use super::raw::is_device;
use super::writeback::Writeback;
use super::{DiskSink, Extent, SinkError, SinkSpec, check_range};
use crate::blocking::blocking;
use crate::nbd::NbdError;
use crate::qemu::{self, Access, Node, QemuError, QemuExport};
use crate::source::{DiskFormat, SourceError, examine};

/// The largest VHD (2040 GiB): sectors are numbered by 32 bits.
const VHD_MAX: u64 = 2040 << 30;
/// The largest sparse VMDK that QEMU makes is bounded by its tables; VMware's own bound is 62 TiB.
const VMDK_MAX: u64 = 62 << 40;
const SECTOR: u64 = 512;

/// An image behind a server of our own.
#[derive(Debug)]
pub struct ImageSink {
    path: PathBuf,
    size: u64,
    durable: bool,
    is_zeroed: bool,
    export: QemuExport,
    writeback: Arc<Writeback>,
    /// The file itself, for the page cache's and the disk's sake.
    file: Arc<File>,
    /// What is left to do for a new file. Writers share the lock, `finish` has it alone.
    new: RwLock<Option<NewFile>>,
    finished: AtomicBool,
}

impl ImageSink {
    /// Makes a new image.
    ///
    /// # Errors
    /// `Exists`, `Missing`, `Denied`, `Full`, `NotADisk`, `InUse`, `Qemu`; `Unsupported` if the format cannot hold the disk.
    pub async fn create(spec: &SinkSpec) -> Result<Self, SinkError> {
        let format = spec.format();
        let unsupported = |why| SinkError::Unsupported {
            path: spec.path.clone(),
            format: format.name(),
            why,
        };
        if is_device(&spec.path) {
            return Err(unsupported("a block device takes raw disks only"));
        }
        if format == DiskFormat::Vhd && spec.size > VHD_MAX {
            return Err(unsupported("it holds 2040 GiB at most"));
        }
        if format == DiskFormat::Vmdk && spec.size > VMDK_MAX {
            return Err(unsupported("it holds 62 TiB at most"));
        }
        let (path, overwrite) = (spec.path.clone(), spec.overwrite);
        let new = blocking(move || NewFile::create(&path, overwrite)).await?;
        let failed = |source| failed(&spec.path, source);
        qemu::create(&new.temporary, format, spec.size.next_multiple_of(SECTOR))
            .await
            .map_err(failed)?;
        let export = QemuExport::open(&Node::file(&new.temporary, format), Access::Fill)
            .await
            .map_err(failed)?;
        let file = new
            .file
            .try_clone()
            .map_err(|source| SinkError::from_io("open", &spec.path, source))?;
        Self::new(spec, export, file, Some(new))
    }

    /// Opens an image that is there, to be written in parts.
    ///
    /// # Errors
    /// `Missing`, `Denied`, `NotADisk`, `InUse`, `Size`, `Image`, `Qemu`.
    pub async fn open_in_place(spec: &SinkSpec) -> Result<Self, SinkError> {
        let asked = spec.clone();
        let chain = blocking(move || examine(&asked.path, asked.format(), false, false)).await;
        let chain = chain.map_err(|error| match error {
            SourceError::Missing { path } => SinkError::Missing { path },
            SourceError::InUse { path, why } => SinkError::InUse { path, why },
            SourceError::NotADisk { path } => SinkError::NotADisk { path },
            other => SinkError::Image {
                source: Box::new(other),
            },
        })?;
        let file = File::options().read(true).write(true).open(&spec.path);
        let file = file.map_err(|source| SinkError::from_io("open", &spec.path, source))?;
        let export = QemuExport::open(&chain.node, Access::Write)
            .await
            .map_err(|source| failed(&spec.path, source))?;
        Self::new(spec, export, file, None)
    }

    fn new(spec: &SinkSpec, export: QemuExport, file: File, new: Option<NewFile>) -> Result<Self, SinkError> {
        let have = export.client.size();
        if have != spec.size && have != spec.size.next_multiple_of(SECTOR) {
            return Err(SinkError::Size {
                path: spec.path.clone(),
                have,
                need: spec.size,
            });
        }
        Ok(Self {
            path: spec.path.clone(),
            size: spec.size,
            durable: spec.durable,
            is_zeroed: new.is_some(),
            export,
            writeback: Arc::default(),
            file: Arc::new(file),
            new: RwLock::new(new),
            finished: AtomicBool::new(false),
        })
    }

    async fn failed(&self, error: NbdError) -> SinkError {
        failed(&self.path, self.export.explain(error).await)
    }

    fn check_open(&self) -> Result<(), SinkError> {
        if self.finished.load(Ordering::Acquire) {
            return Err(SinkError::Finished {
                path: self.path.clone(),
            });
        }
        Ok(())
    }
}

/// Causes that a person knows by their own names get them.
fn failed(path: &Path, source: QemuError) -> SinkError {
    match source.kind() {
        tresor_storage::Kind::Full => SinkError::Full {
            operation: "write",
            path: path.to_owned(),
        },
        _ => SinkError::Qemu {
            path: path.to_owned(),
            source,
        },
    }
}

#[async_trait]
impl DiskSink for ImageSink {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_zeroed(&self) -> bool {
        self.is_zeroed
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), SinkError> {
        let length = data.iter().map(|piece| piece.len() as u64).sum();
        check_range(offset, length, self.size)?;
        let _open = self.new.read().await;
        self.check_open()?;
        if let Err(error) = self.export.client.write(offset, data).await {
            return Err(self.failed(error).await);
        }
        if self.durable {
            let (writeback, file) = (Arc::clone(&self.writeback), Arc::clone(&self.file));
            blocking(move || writeback.wrote(&file, length)).await;
        }
        Ok(())
    }

    async fn zero(&self, extent: Extent) -> Result<(), SinkError> {
        check_range(extent.offset, extent.length, self.size)?;
        let _open = self.new.read().await;
        self.check_open()?;
        match self.export.client.zero(extent).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SinkError> {
        check_range(offset, buffer.len() as u64, self.size)?;
        let _open = self.new.read().await;
        self.check_open()?;
        match self.export.client.read(offset, buffer).await {
            Ok(buffer) => Ok(buffer),
            Err(error) => Err(self.failed(error).await),
        }
    }

    async fn finish(&self) -> Result<(), SinkError> {
        let mut new = self.new.write().await;
        if self.finished.swap(true, Ordering::AcqRel) {
            return Err(SinkError::Finished {
                path: self.path.clone(),
            });
        }
        if let Err(error) = self.export.client.flush().await {
            return Err(self.failed(error).await);
        }
        // Formats have tables that are written at the very end.
        self.export.close().await.map_err(|source| failed(&self.path, source))?;
        let (new, durable) = (new.take(), self.durable);
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        blocking(move || match new {
            Some(new) => new.publish(durable),
            None if durable => file
                .sync_all()
                .map_err(|source| SinkError::from_io("sync", &path, source)),
            None => Ok(()),
        })
        .await
    }

    async fn abandon(&self) {
        self.finished.store(true, Ordering::Release);
        // Whoever writes now has its answer when the server has gone, which it has when the system has let go of all that it wrote.
        self.export.kill().await;
        let new = self.new.write().await.take();
        blocking(move || drop(new)).await;
    }
}
