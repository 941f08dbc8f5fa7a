//! Whether a file or block device stayed as it was.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};

use super::{SourceError, Steadiness, in_use};

/// What a file or device looked like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Look {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Sectors ever written to a block device.
    sectors_written: Option<u64>,
}

/// A file or device that is open, and what it looked like then.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) kind: FileType,
    /// Bytes of the file or device.
    pub(crate) size: u64,
    first: Look,
    /// How it was known at the start that somebody writes to it.
    live: Option<&'static str>,
}

impl Watched {
    /// Opens a file or block device for reading.
    ///
    /// # Errors
    /// `InUse` if somebody writes to it and `allow_live` is not set; `NotADisk` for everything else than files and block devices; `Missing`, `Denied`.
    pub(crate) fn open(path: &Path, allow_live: bool) -> Result<Self, SourceError> {
        let failed = |operation| move |source| SourceError::from_io(operation, path, source);
        // Opening a pipe would wait for its other end: ask first.
        let found = rustix::fs::stat(path).map_err(|e| failed("open")(e.into()))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        if !matches!(kind, FileType::RegularFile | FileType::BlockDevice) {
            return Err(SourceError::NotADisk { path: path.to_owned() });
        }
        let file = File::open(path).map_err(failed("open"))?;
        let stat = rustix::fs::fstat(&file).map_err(|e| failed("open")(e.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(SourceError::NotADisk { path: path.to_owned() });
        }
        let mut live = in_use::writer(&file).map_err(failed("look for locks of"))?;
        if live.is_none() {
            live = in_use::device_holder(path, kind).map_err(failed("open"))?;
        }
        if let Some(why) = live
            && !allow_live
        {
            return Err(SourceError::InUse {
                path: path.to_owned(),
                why,
            });
        }
        if kind == FileType::BlockDevice {
            // What was written before must not look like a write during the backup. Devices that cannot be synced have nothing to sync.
            let _ = rustix::fs::fsync(&file);
        }
        let size = size_of(&file, &stat).map_err(failed("find the size of"))?;
        let first = look(&stat, size);
        Ok(Self {
            path: path.to_owned(),
            file,
            kind,
            size,
            first,
            live,
        })
    }

    /// What no other file has.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.first.device, self.first.inode)
    }

    /// Compares with how it looked when it was opened.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn steadiness(&self) -> Result<Steadiness, SourceError> {
        let failed = |source| SourceError::from_io("look at", &self.path, source);
        let changed = |why: &str| {
            Ok(Steadiness::Changed {
                why: format!("{}: {why}", self.path.display()),
            })
        };
        if let Some(why) = self.live {
            return changed(why);
        }
        if let Some(why) = in_use::writer(&self.file).map_err(failed)? {
            return changed(why);
        }
        let stat = rustix::fs::fstat(&self.file).map_err(|e| failed(e.into()))?;
        let now = look(&stat, size_of(&self.file, &stat).map_err(failed)?);
        if now.size != self.first.size {
            return changed(&format!(
                "its size changed from {} to {} bytes",
                self.first.size, now.size
            ));
        }
        if now.sectors_written != self.first.sectors_written {
            return changed("the device was written to");
        }
        if self.kind == FileType::BlockDevice {
            // Times of a device node tell nothing about the device.
            return Ok(Steadiness::Steady);
        }
        // The file of that name may be another one by now, which the open file does not show.
        match rustix::fs::stat(&self.path) {
            Ok(named) if (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino) => {}
            _ => return changed("another file took its place"),
        }
        if now.modified != self.first.modified {
            return changed("it was written to");
        }
        if now.changed != self.first.changed {
            return changed("its status changed");
        }
        Ok(Steadiness::Steady)
    }
}

fn size_of(file: &File, stat: &Stat) -> io::Result<u64> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => Ok(rustix::fs::seek(file, rustix::fs::SeekFrom::End(0))?),
        _ => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
    }
}

fn look(stat: &Stat, size: u64) -> Look {
    Look {
        device: stat.st_dev,
        inode: stat.st_ino,
        size,
        modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
        sectors_written: match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => sectors_written(stat.st_rdev),
            _ => None,
        },
    }
}

/// The seventh number of a device's statistics (`Documentation/block/stat.rst` of Linux).
fn sectors_written(device: u64) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    text.split_ascii_whitespace().nth(6)?.parse().ok()
}
