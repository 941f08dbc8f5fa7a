//! Raw files and block devices.
//!
//! A backup must not push the working set of the host's guests out of the page cache. Each read therefore takes first what is cached already, and leaves it
//! cached; the rest is read from the disk and dropped from the cache again. The kernel's own readahead is off, since it would bring in what nobody here
//! knows of and so nobody drops.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::BytesMut;
use rustix::fs::{Advice, FileType, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};
use tresor_storage::limits::DISK_SIZE_MAX;

use super::steady::Watched;
use super::{DiskFormat, DiskSource, Extent, SourceDescription, SourceError, SourceKind, SourceSpec, Steadiness};
use crate::blocking::blocking;

/// What is asked of the page cache at once. Asking may start reading what is missing of it, so a larger piece would make the next one look cached; smaller
/// ones cost more calls.
const PIECE: usize = 256 << 10;

/// A raw file or block device.
#[derive(Debug)]
pub struct RawSource {
    inner: Arc<Inner>,
    description: SourceDescription,
}

#[derive(Debug)]
struct Inner {
    watched: Watched,
    /// The file system can say what is cached.
    tells_cached: AtomicBool,
    /// The file system knows holes.
    tells_holes: AtomicBool,
}

impl RawSource {
    /// Opens it.
    ///
    /// # Errors
    /// `Missing`, `Denied`, `NotADisk`, `Empty`, `TooLarge`; `InUse` unless live sources are allowed.
    pub fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let watched = Watched::open(&spec.path, spec.allow_live)?;
        check_size(&spec.path, watched.size)?;
        // Advice is advice: without it reads are only less polite.
        let _ = rustix::fs::fadvise(&watched.file, 0, None, Advice::Random);
        let is_device = watched.kind == FileType::BlockDevice;
        let description = SourceDescription {
            kind: if is_device {
                SourceKind::BlockDevice
            } else {
                SourceKind::File
            },
            format: DiskFormat::Raw,
            path: spec.path.clone(),
        };
        let inner = Inner {
            watched,
            tells_cached: AtomicBool::new(true),
            tells_holes: AtomicBool::new(!is_device),
        };
        Ok(Self {
            inner: Arc::new(inner),
            description,
        })
    }
}

/// Refuses disks without bytes and those that no recipe can name.
pub(super) fn check_size(path: &Path, size: u64) -> Result<(), SourceError> {
    if size == 0 {
        return Err(SourceError::Empty { path: path.to_owned() });
    }
    if size > DISK_SIZE_MAX {
        return Err(SourceError::TooLarge {
            path: path.to_owned(),
            size,
            max: DISK_SIZE_MAX,
        });
    }
    Ok(())
}

#[async_trait]
impl DiskSource for RawSource {
    fn size(&self) -> u64 {
        self.inner.watched.size
    }

    fn description(&self) -> &SourceDescription {
        &self.description
    }

    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.allocated(within)).await
    }

    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, SourceError> {
        let (length, size) = (buffer.len() as u64, self.size());
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(SourceError::Range { offset, length, size });
        }
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.read(offset, &mut buffer).map(|()| buffer)).await
    }

    async fn finish(&self) -> Result<Steadiness, SourceError> {
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.watched.steadiness()).await
    }
}

impl Inner {
    fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        let within = within.clip(Extent::new(0, self.watched.size));
        if within.is_empty() {
            return Ok(Vec::new());
        }
        if self.tells_holes.load(Ordering::Relaxed) {
            match data_extents(&self.watched.file, within) {
                Ok(set) => return Ok(set),
                Err(Errno::INVAL | Errno::OPNOTSUPP) => self.tells_holes.store(false, Ordering::Relaxed),
                Err(error) => return Err(SourceError::from_io("find holes of", &self.watched.path, error.into())),
            }
        }
        Ok(vec![within])
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let file = &self.watched.file;
        let result = if self.tells_cached.load(Ordering::Relaxed) {
            match read_politely(file, offset, buffer) {
                Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
                    self.tells_cached.store(false, Ordering::Relaxed);
                    read_and_drop(file, offset, buffer)
                }
                other => other,
            }
        } else {
            read_and_drop(file, offset, buffer)
        };
        result.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::Shrunk {
                path: self.watched.path.clone(),
                at: file.metadata().map_or(offset, |m| m.len()),
                size: self.watched.size,
            },
            _ => SourceError::from_io("read", &self.watched.path, error),
        })
    }
}

/// Data by the file system's word. The file's position is moved, which nobody else uses.
fn data_extents(file: &File, within: Extent) -> Result<Vec<Extent>, Errno> {
    let mut set: Vec<Extent> = Vec::new();
    let mut at = within.offset;
    while at < within.end() {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.max(at),
            // No data behind this point (or the file ends before it, which the next read or `finish` tells).
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        if start >= within.end() {
            break;
        }
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(within.end()),
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        if end <= start {
            // A hole was made here in between. Take the grain as data rather than look twice.
            at = (start + 4096).min(within.end());
        } else {
            at = end;
        }
        match set.last_mut() {
            Some(last) if last.end() >= start => last.length = at - last.offset,
            _ => set.push(Extent::between(start, at)),
        }
    }
    Ok(set)
}

/// Takes what is cached, then reads the rest and drops it from the cache.
fn read_politely(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let mut missing: Vec<(usize, usize)> = Vec::new();
    let mut at = 0;
    while at < buffer.len() {
        // Pieces are aligned on the disk, so that two reads side by side do not share one.
        let inside = (offset + at as u64) % PIECE as u64;
        let end = buffer.len().min(at + PIECE - inside as usize);
        match rustix::io::preadv2(
            file,
            &mut [IoSliceMut::new(&mut buffer[at..end])],
            offset + at as u64,
            ReadWriteFlags::NOWAIT,
        ) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) if at + count == end => at = end,
            Ok(count) => {
                join(&mut missing, at + count, end);
                at = end;
            }
            Err(Errno::AGAIN) => {
                join(&mut missing, at, end);
                at = end;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if missing.len() > 1 {
        // All of them at once, so that the disk has something to sort.
        for &(start, end) in &missing {
            let _ = rustix::fs::fadvise(file, offset + start as u64, length(start, end), Advice::WillNeed);
        }
    }
    for &(start, end) in &missing {
        read_and_drop(file, offset + start as u64, &mut buffer[start..end])?;
    }
    Ok(())
}

fn join(ranges: &mut Vec<(usize, usize)>, start: usize, end: usize) {
    match ranges.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => ranges.push((start, end)),
    }
}

fn read_and_drop(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
    let length = length(0, buffer.len());
    if buffer.len() > PIECE {
        // Without readahead a long read would wait for one request of the kernel after the other.
        let _ = rustix::fs::fadvise(file, offset, length, Advice::WillNeed);
    }
    file.read_exact_at(buffer, offset)?;
    let _ = rustix::fs::fadvise(file, offset, length, Advice::DontNeed);
    Ok(())
}

fn length(start: usize, end: usize) -> Option<std::num::NonZeroU64> {
    std::num::NonZeroU64::new((end - start) as u64)
}
