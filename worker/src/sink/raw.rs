//! Raw files and block devices.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;

use super::new_file::NewFile;
use super::writeback::Writeback;
use super::{DiskSink, Extent, SinkError, SinkSpec, check_range};
use crate::blocking::blocking;
use crate::source::in_use;

/// Pieces of one call; the system takes 1024.
const PIECES_MAX: usize = 512;
/// Zeros of one call where no hole can be made.
const ZEROS: usize = 1 << 20;
/// Devices zero in whole blocks only; none has larger ones.
const DEVICE_BLOCK: u64 = 4096;

/// A raw file or block device.
#[derive(Debug)]
pub struct RawSink {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    size: u64,
    durable: bool,
    is_zeroed: bool,
    is_device: bool,
    writeback: Writeback,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// None once finished. Writers share it, `finish` has it alone: it cannot overtake a write whose future was dropped.
    target: RwLock<Option<Target>>,
}

#[derive(Debug)]
enum Target {
    New(NewFile),
    There(File),
}

impl Target {
    fn file(&self) -> &File {
        match self {
            Self::New(new) => &new.file,
            Self::There(file) => file,
        }
    }
}

impl RawSink {
    /// Makes a new file, or takes a block device that may be overwritten.
    ///
    /// # Errors
    /// `Exists`, `Missing`, `Denied`, `Full`, `NotADisk`, `InUse`; `Size` if a device is too small.
    pub fn create(spec: &SinkSpec) -> Result<Self, SinkError> {
        if is_device(&spec.path) {
            if !spec.overwrite {
                return Err(SinkError::Exists {
                    path: spec.path.clone(),
                });
            }
            return Self::open_in_place(spec);
        }
        let new = NewFile::create(&spec.path, spec.overwrite)?;
        new.file
            .set_len(spec.size)
            .map_err(|source| SinkError::from_io("make", &spec.path, source))?;
        Ok(Self::new(spec, Target::New(new), true, false))
    }

    /// Opens a file or block device that is there, to be written in parts.
    ///
    /// # Errors
    /// `Missing`, `Denied`, `NotADisk`, `InUse`; `Size` if a file has another size or a device is too small.
    pub fn open_in_place(spec: &SinkSpec) -> Result<Self, SinkError> {
        let path = &spec.path;
        let failed = |source| SinkError::from_io("open", path, source);
        let stat = rustix::fs::stat(path).map_err(|e| failed(e.into()))?;
        let (is_device, flags) = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => (false, OFlags::empty()),
            // Exclusively: the system then lets nobody mount it meanwhile, and refuses if somebody has.
            FileType::BlockDevice => (true, OFlags::EXCL),
            _ => return Err(SinkError::NotADisk { path: path.clone() }),
        };
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(failed)?;
        if let Some(why) = in_use::writer(&file).map_err(failed)? {
            return Err(SinkError::InUse {
                path: path.clone(),
                why,
            });
        }
        let have = rustix::fs::seek(&file, SeekFrom::End(0)).map_err(|e| failed(e.into()))?;
        if have < spec.size || (!is_device && have != spec.size) {
            return Err(SinkError::Size {
                path: path.clone(),
                have,
                need: spec.size,
            });
        }
        Ok(Self::new(spec, Target::There(file), false, is_device))
    }

    fn new(spec: &SinkSpec, target: Target, is_zeroed: bool, is_device: bool) -> Self {
        let inner = Inner {
            path: spec.path.clone(),
            size: spec.size,
            durable: spec.durable,
            is_zeroed,
            is_device,
            writeback: Writeback::default(),
            turn: Arc::default(),
            target: RwLock::new(Some(target)),
        };
        Self { inner: Arc::new(inner) }
    }
}

/// Whether there is a block device at the path.
pub(super) fn is_device(path: &Path) -> bool {
    rustix::fs::stat(path).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice)
}

#[async_trait]
impl DiskSink for RawSink {
    fn size(&self) -> u64 {
        self.inner.size
    }

    fn is_zeroed(&self) -> bool {
        self.inner.is_zeroed
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), SinkError> {
        self.write_runs(vec![(offset, data)]).await
    }

    async fn write_runs(&self, runs: Vec<(u64, Vec<Bytes>)>) -> Result<(), SinkError> {
        let mut total = 0;
        for (offset, data) in &runs {
            let length = data.iter().map(|piece| piece.len() as u64).sum();
            check_range(*offset, length, self.size())?;
            total += length;
        }
        // A file system lets one write a file at a time, and others spin at its lock; a device takes many.
        let turn = match self.inner.is_device {
            true => None,
            false => Some(Arc::clone(&self.inner.turn).lock_owned().await),
        };
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.with_file("write", |file| {
                for (offset, data) in &runs {
                    write_pieces(file, *offset, data)?;
                }
                drop(turn);
                if inner.durable {
                    inner.writeback.wrote(file, total);
                }
                Ok(())
            })
        })
        .await
    }

    async fn zero(&self, extent: Extent) -> Result<(), SinkError> {
        check_range(extent.offset, extent.length, self.size())?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner.with_file("zero", |file| {
                if inner.is_device {
                    zero_device(file, extent)
                } else {
                    zero_file(file, extent)
                }
            })
        })
        .await
    }

    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, SinkError> {
        check_range(offset, buffer.len() as u64, self.size())?;
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            inner
                .with_file("read", |file| file.read_exact_at(&mut buffer, offset))
                .map(|()| buffer)
        })
        .await
    }

    async fn finish(&self) -> Result<(), SinkError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            // Waits for writes that still run in the background.
            let target = inner
                .target
                .write()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            match target {
                Some(Target::New(new)) => new.publish(inner.durable),
                Some(Target::There(file)) if inner.durable => file
                    .sync_all()
                    .map_err(|source| SinkError::from_io("sync", &inner.path, source)),
                Some(Target::There(_)) => Ok(()),
                None => Err(SinkError::Finished {
                    path: inner.path.clone(),
                }),
            }
        })
        .await
    }

    async fn abandon(&self) {
        let inner = Arc::clone(&self.inner);
        // Waits for writes that are being made; those that have not begun find no target.
        let abandon = move || {
            let mut target = inner.target.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            drop(target.take());
        };
        blocking(abandon).await;
    }
}

impl Inner {
    fn with_file(&self, operation: &'static str, act: impl FnOnce(&File) -> io::Result<()>) -> Result<(), SinkError> {
        let target = self.target.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let target = target.as_ref().ok_or_else(|| SinkError::Finished {
            path: self.path.clone(),
        })?;
        act(target.file()).map_err(|source| SinkError::from_io(operation, &self.path, source))
    }
}

fn write_pieces(file: &File, mut offset: u64, data: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = data.iter().filter(|p| !p.is_empty()).map(|p| IoSlice::new(p)).collect();
    let mut rest = slices.as_mut_slice();
    while !rest.is_empty() {
        let some = rest.len().min(PIECES_MAX);
        match rustix::io::pwritev(file, &rest[..some], offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset += count as u64;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn zero_file(file: &File, extent: Extent) -> io::Result<()> {
    if extent.is_empty() {
        return Ok(());
    }
    match allocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, extent)? {
        true => Ok(()),
        false => write_zeros(file, extent),
    }
}

fn zero_device(file: &File, extent: Extent) -> io::Result<()> {
    let start = extent.offset.next_multiple_of(DEVICE_BLOCK).min(extent.end());
    let end = (extent.end() / DEVICE_BLOCK * DEVICE_BLOCK).max(start);
    write_zeros(file, Extent::between(extent.offset, start))?;
    write_zeros(file, Extent::between(end, extent.end()))?;
    let middle = Extent::between(start, end);
    if middle.is_empty()
        || allocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, middle)?
        || allocate(file, FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, middle)?
    {
        return Ok(());
    }
    write_zeros(file, middle)
}

/// Whether the system did it; false if it does not know how.
fn allocate(file: &File, flags: FallocateFlags, extent: Extent) -> io::Result<bool> {
    loop {
        match rustix::fs::fallocate(file, flags, extent.offset, extent.length) {
            Ok(()) => return Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV | Errno::INVAL) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_zeros(file: &File, extent: Extent) -> io::Result<()> {
    if extent.is_empty() {
        return Ok(());
    }
    let zeros = vec![0; ZEROS.min(extent.length as usize)];
    let mut at = extent.offset;
    while at < extent.end() {
        let length = (extent.end() - at).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..length], at)?;
        at += length as u64;
    }
    Ok(())
}
