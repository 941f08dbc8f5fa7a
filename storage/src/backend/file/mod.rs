//! Objects as files below one folder: `file://`.
//!
//! A local disk is the store that needs no other machine, and the one that forgets at a power cut what nobody told it to keep. So:
//!
//! 1. An object appears whole or not at all: it is written to a file without a name (`O_TMPFILE`), synced, and only then linked to its name.
//!    A process that is killed leaves nothing behind. Where the file system has no such files, a staging folder stands in (see [`Root::stage`]).
//! 2. Linking refuses a name that is taken: create-only by the kernel, also between processes and over NFS.
//! 3. `create` returns after the file, the entry in its folder, and the entries of all folders above were synced. The two folders next to
//!    the object are synced every time, those above once per process: a folder that another process made and did not live to sync would
//!    otherwise take the object with it. (A store that syncs only the folders it made itself has that hole.)
//! 4. A deletion is synced too: a revoked key slot must not come back.
//! 5. The root is held open. A disk that is unmounted, or a folder that is replaced, cannot slip an empty vault under a running process.
//!
//! All of it runs on threads for blocking calls; a caller that goes away leaves the call running, which ends as if it had been waited for. A put or a
//! read that is limited leaves its thread while it waits; a caller that goes away then leaves nothing. See `transfer`.

mod errors;
mod put;
mod transfer;
mod walk;

use std::collections::HashSet;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use self::errors::map_errno;
use self::walk::LIST_BATCHES;
use super::{Backend, BackendError, Listed, check_name, check_prefix, range_length};
use crate::throttle::Pace;

/// Folder of staged objects; `#` is in no object's name.
const STAGING: &str = "#staging";

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct FileBackend {
    root: Arc<Root>,
    pace: Pace,
}

#[derive(Debug)]
struct Root {
    fd: OwnedFd,
    /// Folders whose entries were synced by this process.
    synced: Mutex<HashSet<String>>,
    /// The file system has files without a name that can be linked.
    unnamed: AtomicBool,
}

impl FileBackend {
    /// Opens the folder; `create` makes it, and what is missing above it.
    ///
    /// # Errors
    /// The system's error; a folder that is not there is `NotFound`.
    pub fn open(path: &Path, create: bool) -> std::io::Result<Self> {
        if create {
            make_root(path)?;
        }
        let fd = rustix::fs::openat(CWD, path, FOLDER, Mode::empty())?;
        let root = Root {
            fd,
            synced: Mutex::default(),
            unnamed: AtomicBool::new(true),
        };
        root.clear_staging();
        Ok(Self {
            root: Arc::new(root),
            pace: Pace::default(),
        })
    }

    /// The same store for a job with these throttles.
    pub(super) fn paced(&self, pace: Pace) -> Self {
        Self {
            root: Arc::clone(&self.root),
            pace,
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        name: &str,
        call: impl FnOnce(&Root, &str) -> Result<T, BackendError> + Send + 'static,
    ) -> Result<T, BackendError> {
        check_name(operation, name)?;
        let root = self.root.clone();
        let owned = name.to_owned();
        tokio::task::spawn_blocking(move || call(&root, &owned))
            .await
            .unwrap_or_else(|error| {
                Err(BackendError::Refused {
                    operation,
                    name: name.into(),
                    source: error.into(),
                })
            })
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
// Not blocking: a pipe among the files would wait for its other end.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
// The user's umask decides, as for any file; what is inside is sealed.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);

/// Makes the root durably: every folder that gets a new entry is synced.
fn make_root(path: &Path) -> std::io::Result<()> {
    let path = std::path::absolute(path)?;
    let existing = path
        .ancestors()
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"));
    std::fs::create_dir_all(&path)?;
    for folder in path.ancestors().skip(1) {
        if !folder.starts_with(existing) {
            break;
        }
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// The folder and the last part of a name.
fn split(name: &str) -> (Option<&str>, &str) {
    name.rsplit_once('/')
        .map_or((None, name), |(folder, leaf)| (Some(folder), leaf))
}

impl Root {
    fn error(&self, operation: &'static str, name: &str, errno: Errno) -> BackendError {
        // Nothing is "not found" in a folder that is gone itself.
        if errno == Errno::NOENT && rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0) {
            return BackendError::Refused {
                operation,
                name: name.into(),
                source: "the store's folder was removed".into(),
            };
        }
        map_errno(operation, name, errno)
    }

    fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    /// Removes what killed processes staged. Whatever goes wrong here costs space, nothing else.
    fn clear_staging(&self) {
        let Ok(staging) = rustix::fs::openat(&self.fd, STAGING, FOLDER, Mode::empty()) else {
            return;
        };
        let Ok(entries) = Dir::read_from(&staging) else { return };
        for entry in entries
            .flatten()
            .filter(|entry| entry.file_type() != FileType::Directory)
        {
            let Ok(file) = rustix::fs::openat(&staging, entry.file_name(), FILE, Mode::empty()) else {
                continue;
            };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                let _ = rustix::fs::unlinkat(&staging, entry.file_name(), AtFlags::empty());
            }
        }
    }

    /// Opens the folder of an object, made and durable; `None` is the root.
    fn make_folder(&self, folder: Option<&str>) -> Result<Option<OwnedFd>, Errno> {
        let Some(folder) = folder else { return Ok(None) };
        let mut above: Option<OwnedFd> = None;
        let ends = folder.match_indices('/').map(|(at, _)| at).chain([folder.len()]);
        let mut start = 0;
        for end in ends {
            let (path, part) = (&folder[..end], &folder[start..end]);
            start = end + 1;
            let parent = above.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            let next = match rustix::fs::openat(parent, part, FOLDER, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(parent, part, FOLDER_MODE) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno),
                    }
                    rustix::fs::openat(parent, part, FOLDER, Mode::empty())?
                }
                result => result?,
            };
            // The object's own folder may have been removed and made again by others, so its entry is never taken as known.
            if path.len() == folder.len() {
                sync_folder(parent)?;
            } else if !self
                .synced
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(path)
            {
                sync_folder(parent)?;
                self.synced
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(path.into());
            }
            above = Some(next);
        }
        Ok(above)
    }

    fn open_file(&self, name: &str) -> Result<(OwnedFd, u64), BackendError> {
        let fd =
            rustix::fs::openat(&self.fd, name, FILE, Mode::empty()).map_err(|errno| self.error("read", name, errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.error("read", name, errno))?;
        Ok((fd, file_length("read", name, &stat)?))
    }

    fn delete(&self, name: &str) -> Result<(), Errno> {
        let (folder, leaf) = split(name);
        let opened = match folder {
            Some(folder) => Some(rustix::fs::openat(&self.fd, folder, FOLDER, Mode::empty())?),
            None => None,
        };
        let parent = opened.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        rustix::fs::unlinkat(parent, leaf, AtFlags::empty())?;
        sync_folder(parent)?;
        // An empty folder is litter: each writer has its own. Not the first level, whose entries are known as synced.
        if let Some(folder) = folder.filter(|folder| folder.contains('/')) {
            let _ = rustix::fs::unlinkat(&self.fd, folder, AtFlags::REMOVEDIR);
        }
        Ok(())
    }
}

/// Syncs a folder's entries; nothing to do on file systems (of networks, mostly) that keep them without being told and refuse the call.
fn sync_folder(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    match rustix::fs::fsync(folder) {
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        result => result,
    }
}

fn file_length(operation: &'static str, name: &str, stat: &Stat) -> Result<u64, BackendError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(u64::try_from(stat.st_size).unwrap_or_default()),
        // A folder is not an object, as in a store without folders.
        FileType::Directory => Err(BackendError::NotFound { name: name.into() }),
        _ => Err(BackendError::Refused {
            operation,
            name: name.into(),
            source: "not a regular file".into(),
        }),
    }
}

#[async_trait]
impl Backend for FileBackend {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        self.put(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        let open = move |root: &Root, name: &str| {
            let (fd, length) = root.open_file(name)?;
            if length > max as u64 {
                return Err(BackendError::TooLarge {
                    name: name.into(),
                    length,
                    max: max as u64,
                });
            }
            Ok((fd, 0..length))
        };
        self.fetch(name, open).await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        range_length(name, &range)?;
        let open = move |root: &Root, name: &str| {
            let (fd, length) = root.open_file(name)?;
            if range.end > length {
                return Err(BackendError::Range {
                    name: name.into(),
                    end: range.end,
                });
            }
            Ok((fd, range))
        };
        self.fetch(name, open).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        self.run("read", name, |root, name| {
            let stat = rustix::fs::statat(&root.fd, name, AtFlags::empty())
                .map_err(|errno| root.error("read", name, errno))?;
            file_length("read", name, &stat)
        })
        .await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        if let Err(error) = check_prefix(prefix) {
            return futures::stream::iter([Err(error)]).boxed();
        }
        let prefix = prefix.to_owned();
        futures::stream::once(async move {
            let (out, batches) = mpsc::channel(LIST_BATCHES);
            let root = self.root.clone();
            let walk = tokio::task::spawn_blocking(move || root.walk(&prefix, &out));
            futures::stream::unfold((batches, Some(walk)), |(mut batches, walk)| async move {
                if let Some(batch) = batches.recv().await {
                    let items = match batch {
                        Ok(batch) => batch.into_iter().map(Ok).collect(),
                        Err(error) => vec![Err(error)],
                    };
                    return Some((futures::stream::iter(items), (batches, walk)));
                }
                // A walk that panicked must not pass for a short listing.
                let error = walk?.await.err()?;
                let error = BackendError::Refused {
                    operation: "list",
                    name: String::new(),
                    source: error.into(),
                };
                Some((futures::stream::iter(vec![Err(error)]), (batches, None)))
            })
            .flatten()
        })
        .flatten()
        .boxed()
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        self.run("delete", name, |root, name| match root.delete(name) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) if !root.is_removed() => Ok(()),
            Err(errno) => Err(root.error("delete", name, errno)),
        })
        .await
    }
}

#[cfg(test)]
mod tests;
