//! The disks: what is there, reading them into the page cache, comparing them.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::error::{BenchError, io};

/// How much is read at once.
const READ_BYTES: usize = 4 << 20;

/// Three machines on two days.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) day1: Day,
    pub(crate) day2: Day,
}

/// All disks on one day.
#[derive(Debug)]
pub(crate) struct Day {
    pub(crate) disks: Vec<Disk>,
}

/// One disk image.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The file's stem.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Length in bytes, holes included.
    pub(crate) size: u64,
    /// Bytes that the file system has allocated.
    pub(crate) allocated: u64,
}

impl Workload {
    /// Finds the disks in `folder/day1` and `folder/day2`.
    pub(crate) fn open(folder: &Path) -> Result<Self, BenchError> {
        Ok(Self {
            day1: Day::open(&folder.join("day1"))?,
            day2: Day::open(&folder.join("day2"))?,
        })
    }
}

impl Day {
    fn open(folder: &Path) -> Result<Self, BenchError> {
        let mut disks = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|_| BenchError::NoDisks(folder.to_owned()))? {
            let path = entry.map_err(io("list", folder))?.path();
            let (Some(stem), Some("raw")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) else {
                continue;
            };
            let name = stem.to_string_lossy().into_owned();
            let metadata = path.metadata().map_err(io("look at", &path))?;
            disks.push(Disk {
                name,
                size: metadata.len(),
                allocated: metadata.blocks() * 512,
                path,
            });
        }
        if disks.is_empty() {
            return Err(BenchError::NoDisks(folder.to_owned()));
        }
        disks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { disks })
    }

    /// Length of all disks in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.disks.iter().map(|disk| disk.size).sum()
    }

    /// Allocated bytes of all disks.
    pub(crate) fn allocated(&self) -> u64 {
        self.disks.iter().map(|disk| disk.allocated).sum()
    }

    /// Reads the data of all disks into the page cache. Holes are left out: the cache would fill with zeros.
    pub(crate) fn warm(&self) -> Result<(), BenchError> {
        let mut buffer = vec![0; READ_BYTES];
        for disk in &self.disks {
            let file = File::open(&disk.path).map_err(io("open", &disk.path))?;
            for (start, end) in data_ranges(&file, disk.size).map_err(io("map", &disk.path))? {
                let mut at = start;
                while at < end {
                    let wanted = READ_BYTES.min(usize::try_from(end - at).unwrap_or(READ_BYTES));
                    let got = file
                        .read_at(&mut buffer[..wanted], at)
                        .map_err(io("read", &disk.path))?;
                    if got == 0 {
                        break;
                    }
                    at += got as u64;
                }
            }
        }
        Ok(())
    }
}

/// The allocated ranges of a file, in order, as (start, end).
pub(crate) fn data_ranges(file: &File, size: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // only holes from here
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break; // the file was cut while we looked
        }
        ranges.push((start, end));
        at = end;
    }
    Ok(ranges)
}

/// The offset of the first byte in which two files differ, their length included; `None` when they are equal.
///
/// Only ranges that are allocated in either file are read.
pub(crate) fn first_difference(one: &Path, other: &Path) -> Result<Option<u64>, BenchError> {
    let a = File::open(one).map_err(io("open", one))?;
    let b = File::open(other).map_err(io("open", other))?;
    let size_a = a.metadata().map_err(io("look at", one))?.len();
    let size_b = b.metadata().map_err(io("look at", other))?.len();
    if size_a != size_b {
        return Ok(Some(size_a.min(size_b)));
    }
    let mut ranges = data_ranges(&a, size_a).map_err(io("map", one))?;
    ranges.extend(data_ranges(&b, size_b).map_err(io("map", other))?);
    ranges.sort_unstable();
    let (mut buffer_a, mut buffer_b) = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    let mut done = 0; // everything below is compared
    for (start, end) in ranges {
        let mut at = start.max(done);
        while at < end {
            let length = READ_BYTES.min(usize::try_from(end - at).unwrap_or(READ_BYTES));
            a.read_exact_at(&mut buffer_a[..length], at).map_err(io("read", one))?;
            b.read_exact_at(&mut buffer_b[..length], at)
                .map_err(io("read", other))?;
            if buffer_a[..length] != buffer_b[..length] {
                let first = buffer_a.iter().zip(&buffer_b).position(|(x, y)| x != y).unwrap_or(0);
                return Ok(Some(at + first as u64));
            }
            at += length as u64;
        }
        done = done.max(end);
    }
    Ok(None)
}

/// Total length and number of the files below a folder.
pub(crate) fn count_files(folder: &Path) -> Result<(u64, u64), BenchError> {
    let (mut bytes, mut files) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(io("list", &folder))? {
            let entry = entry.map_err(io("list", &folder))?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(io("look at", &entry.path())(error)),
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                bytes += metadata.len();
                files += 1;
            }
        }
    }
    Ok((bytes, files))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn sparse(folder: &Path, name: &str, size: u64, writes: &[(u64, &[u8])]) -> PathBuf {
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (at, bytes) in writes {
            file.write_all_at(bytes, *at).unwrap();
        }
        path
    }

    #[test]
    fn equal_contents_with_different_holes_are_equal() {
        let folder = tempfile::tempdir().unwrap();
        let a = sparse(folder.path(), "a", 64 << 20, &[(9 << 20, b"data")]);
        let b = sparse(
            folder.path(),
            "b",
            64 << 20,
            &[(0, &[0; 8192]), (9 << 20, b"data"), (40 << 20, &[0; 4096])],
        );
        assert_eq!(first_difference(&a, &b).unwrap(), None);
    }

    #[test]
    fn the_first_differing_byte_is_found_also_in_a_hole_of_the_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let a = sparse(folder.path(), "a", 64 << 20, &[(9 << 20, b"data")]);
        let b = sparse(
            folder.path(),
            "b",
            64 << 20,
            &[(9 << 20, b"data"), ((40 << 20) + 7, b"x")],
        );
        assert_eq!(first_difference(&a, &b).unwrap(), Some((40 << 20) + 7));
        assert_eq!(first_difference(&b, &a).unwrap(), Some((40 << 20) + 7));
        let c = sparse(folder.path(), "c", 64 << 20, &[(9 << 20, b"dapa")]);
        assert_eq!(first_difference(&a, &c).unwrap(), Some((9 << 20) + 2));
    }

    #[test]
    fn a_shorter_file_differs_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let a = sparse(folder.path(), "a", 4096, &[]);
        let b = sparse(folder.path(), "b", 4097, &[]);
        assert_eq!(first_difference(&a, &b).unwrap(), Some(4096));
    }

    #[test]
    fn files_are_counted_in_all_folders() {
        let folder = tempfile::tempdir().unwrap();
        sparse(folder.path(), "a", 10, &[]);
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        sparse(&folder.path().join("sub"), "b", 5, &[]);
        assert_eq!(count_files(folder.path()).unwrap(), (15, 2));
    }
}
