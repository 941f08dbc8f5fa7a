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
//! All of it runs on threads for blocking calls; a caller that goes away leaves the call running, which ends as if it had been waited for.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use rustix::fs::{AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{Backend, BackendError, Listed, check_name, check_prefix, range_length};
use crate::ids::hex;

/// Folders below each other that a listing follows: the format has four, and a link to a folder above would have no end.
const DEPTH_MAX: usize = 16;
/// Objects handed over at once by a listing, and how many such batches wait for the caller.
const LIST_BATCH: usize = 512;
const LIST_BATCHES: usize = 2;
/// Tries of a put whose folder is removed under it again and again.
const FOLDER_TRIES: usize = 16;
/// Folder of staged objects; `#` is in no object's name.
const STAGING: &str = "#staging";

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct FileBackend {
    root: Arc<Root>,
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
        Ok(Self { root: Arc::new(root) })
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

    fn put(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        for _ in 0..FOLDER_TRIES {
            match self.try_put(name, pieces) {
                // Somebody deleted the folder's last object, and the folder, between two of our steps; or cleared our staged file.
                Err(Errno::NOENT) if !self.is_removed() => {
                    self.synced.lock().unwrap_or_else(PoisonError::into_inner).clear();
                }
                result => return result.map_err(|errno| self.put_error(name, errno)),
            }
        }
        Err(BackendError::Unavailable {
            operation: "put",
            name: name.into(),
            source: "its folder vanished again and again".into(),
        })
    }

    fn put_error(&self, name: &str, errno: Errno) -> BackendError {
        match errno {
            Errno::EXIST => BackendError::Exists { name: name.into() },
            // Only linking and renaming answer these for a file that could be written.
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::MLINK => BackendError::Refused {
                operation: "put",
                name: name.into(),
                source: "the file system can neither link a file nor rename it without replacing another".into(),
            },
            errno => self.error("put", name, errno),
        }
    }

    fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn try_put(&self, name: &str, pieces: &[Bytes]) -> Result<(), Errno> {
        let (folder, leaf) = split(name);
        let folder = self.make_folder(folder)?;
        let folder = folder.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        // The link decides; this spares writing a whole object to hear that it is there.
        if rustix::fs::statat(folder, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Errno::EXIST);
        }
        if self.unnamed.load(Relaxed) {
            match self.link_unnamed(folder, leaf, pieces) {
                // No such files here, or no way to give them a name (no /proc, no links): from now on staged.
                Err(
                    Errno::OPNOTSUPP
                    | Errno::ISDIR
                    | Errno::INVAL
                    | Errno::NOSYS
                    | Errno::PERM
                    | Errno::XDEV
                    | Errno::MLINK,
                ) => {
                    self.unnamed.store(false, Relaxed);
                }
                Err(Errno::NOENT) if !Path::new("/proc/self/fd").is_dir() => self.unnamed.store(false, Relaxed),
                result => return result,
            }
        }
        self.stage(folder, leaf, pieces)
    }

    fn link_unnamed(&self, folder: BorrowedFd<'_>, leaf: &str, pieces: &[Bytes]) -> Result<(), Errno> {
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(folder, ".", flags, FILE_MODE)?);
        write(&mut file, pieces)?;
        let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
        rustix::fs::linkat(CWD, unnamed, folder, leaf, AtFlags::SYMLINK_FOLLOW)?;
        // The link changed the file's own record as well. Most file systems commit both with the folder, and then this costs nothing.
        rustix::fs::fsync(&file)?;
        sync_folder(folder)
    }

    /// Writes to a file of a random name in the staging folder, locked as long as we live, and moves it to its name without replacing another.
    ///
    /// A staged file that nobody holds locked belongs to a process that was killed; the next one to open the store removes it.
    fn stage(&self, folder: BorrowedFd<'_>, leaf: &str, pieces: &[Bytes]) -> Result<(), Errno> {
        match rustix::fs::mkdirat(&self.fd, STAGING, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let staging = rustix::fs::openat(&self.fd, STAGING, FOLDER, Mode::empty())?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Errno::AGAIN)?;
        let staged = hex(&id);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&staging, &staged, flags, FILE_MODE)?);
        // Where there are no locks, nobody can tell that the file is ours, and nobody removes it either.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        let result = write(&mut file, pieces).and_then(|()| {
            match rustix::fs::renameat_with(&staging, &staged, folder, leaf, RenameFlags::NOREPLACE) {
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    rustix::fs::linkat(&staging, &staged, folder, leaf, AtFlags::empty())?;
                    // Two names of one whole object: the staged one is garbage, and is cleared with the rest if this fails.
                    let _ = rustix::fs::unlinkat(&staging, &staged, AtFlags::empty());
                }
                result => result?,
            }
            rustix::fs::fsync(&file)?;
            sync_folder(folder)
        });
        if result.is_err() {
            let _ = rustix::fs::unlinkat(&staging, &staged, AtFlags::empty());
        }
        result
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

    fn read_at(name: &str, fd: &OwnedFd, range: &Range<u64>) -> Result<Bytes, BackendError> {
        let length = range_length(name, range)?;
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        while bytes.len() < length {
            let offset = range.start + bytes.len() as u64;
            // The system fills memory that was not cleared before.
            match rustix::io::pread(fd, rustix::buffer::spare_capacity(&mut bytes), offset) {
                // Cut by somebody while we read: what its length promised is not there.
                Ok(0) => {
                    return Err(BackendError::Range {
                        name: name.into(),
                        end: range.end,
                    });
                }
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(map_errno("read", name, errno)),
            }
        }
        // A vector may have more room than it was asked for.
        bytes.truncate(length);
        Ok(bytes.into())
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

    /// Sends everything below `prefix`; stops when nobody listens any more.
    fn walk(&self, prefix: &str, out: &mpsc::Sender<Result<Vec<Listed>, BackendError>>) {
        let mut batch = Vec::with_capacity(LIST_BATCH);
        let mut folders = vec![prefix.to_owned()];
        while let Some(folder) = folders.pop() {
            match self.walk_folder(&folder, &mut folders, &mut batch, out) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    let _ = out.blocking_send(Ok(batch));
                    let _ = out.blocking_send(Err(error));
                    return;
                }
            }
        }
        let _ = out.blocking_send(Ok(batch));
    }

    /// `false` when nobody listens any more.
    fn walk_folder(
        &self,
        folder: &str,
        folders: &mut Vec<String>,
        batch: &mut Vec<Listed>,
        out: &mpsc::Sender<Result<Vec<Listed>, BackendError>>,
    ) -> Result<bool, BackendError> {
        let fail = |errno| self.error("list", folder, errno);
        let path = if folder.is_empty() { "." } else { folder };
        let fd = match rustix::fs::openat(&self.fd, path, FOLDER, Mode::empty()) {
            Ok(fd) => fd,
            // Never there, or gone since its parent was read.
            Err(Errno::NOENT) if !self.is_removed() => return Ok(true),
            Err(errno) => return Err(fail(errno)),
        };
        for entry in Dir::read_from(&fd).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            // Names that are not UTF-8 and staged files are no objects.
            let Some(name) = entry.file_name().to_str().ok().filter(|name| !name.starts_with('#')) else {
                continue;
            };
            if name == "." || name == ".." {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, name, AtFlags::empty()) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail(errno)),
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    if folder.matches('/').count() >= DEPTH_MAX {
                        let source = "folders are nested too deeply (a link to a folder above?)".into();
                        return Err(BackendError::Refused {
                            operation: "list",
                            name: folder.into(),
                            source,
                        });
                    }
                    folders.push(format!("{folder}{name}/"));
                }
                FileType::RegularFile => {
                    let length = u64::try_from(stat.st_size).unwrap_or_default();
                    batch.push(Listed {
                        name: format!("{folder}{name}"),
                        length,
                    });
                    if batch.len() == LIST_BATCH {
                        let full = std::mem::replace(batch, Vec::with_capacity(LIST_BATCH));
                        if out.blocking_send(Ok(full)).is_err() {
                            return Ok(false);
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(true)
    }
}

fn write(file: &mut File, pieces: &[Bytes]) -> Result<(), Errno> {
    let mut all = || -> std::io::Result<()> {
        for piece in pieces {
            file.write_all(piece)?;
        }
        // Before it has a name: what can be found under a name is whole, also after a power cut.
        file.sync_all()
    };
    all().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
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

/// What an error of the system means for an object.
fn map_errno(operation: &'static str, name: &str, errno: Errno) -> BackendError {
    let name = name.to_owned();
    let source = Box::new(std::io::Error::from(errno));
    match errno {
        Errno::NOENT | Errno::NOTDIR => BackendError::NotFound { name },
        Errno::EXIST => BackendError::Exists { name },
        Errno::ACCESS | Errno::PERM | Errno::ROFS => BackendError::Denied {
            operation,
            name,
            source,
        },
        Errno::NOSPC | Errno::DQUOT => BackendError::Full {
            operation,
            name,
            source,
        },
        // Network file systems that lost their server, and a machine short of something that comes back.
        Errno::TIMEDOUT
        | Errno::AGAIN
        | Errno::INTR
        | Errno::BUSY
        | Errno::NFILE
        | Errno::MFILE
        | Errno::NOMEM
        | Errno::NOBUFS
        | Errno::STALE
        | Errno::CONNREFUSED
        | Errno::CONNRESET
        | Errno::CONNABORTED
        | Errno::NOTCONN
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NETDOWN
        | Errno::NETUNREACH => BackendError::Unavailable {
            operation,
            name,
            source,
        },
        // EIO too: a disk that cannot read a sector will not learn it by being asked again.
        _ => BackendError::Refused {
            operation,
            name,
            source,
        },
    }
}

#[async_trait]
impl Backend for FileBackend {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        let pieces = pieces.to_vec();
        self.run("put", name, move |root, name| root.put(name, &pieces)).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        self.run("read", name, move |root, name| {
            let (fd, length) = root.open_file(name)?;
            if length > max as u64 {
                return Err(BackendError::TooLarge {
                    name: name.into(),
                    length,
                    max: max as u64,
                });
            }
            Root::read_at(name, &fd, &(0..length))
        })
        .await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        range_length(name, &range)?;
        self.run("read", name, move |root, name| {
            let (fd, length) = root.open_file(name)?;
            if range.end > length {
                return Err(BackendError::Range {
                    name: name.into(),
                    end: range.end,
                });
            }
            Root::read_at(name, &fd, &range)
        })
        .await
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
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    fn open(folder: &tempfile::TempDir) -> FileBackend {
        FileBackend::open(folder.path(), false).unwrap()
    }

    fn staged(folder: &tempfile::TempDir) -> FileBackend {
        let backend = open(folder);
        backend.root.unnamed.store(false, Relaxed);
        backend
    }

    async fn names(backend: &FileBackend, prefix: &str) -> Vec<String> {
        let mut listed: Vec<_> = backend
            .list(prefix)
            .map_ok(|item| item.name)
            .try_collect()
            .await
            .unwrap();
        listed.sort();
        listed
    }

    #[tokio::test]
    async fn a_file_system_without_unnamed_files_passes_the_suite_too() {
        let folder = tempfile::tempdir().unwrap();
        crate::backend::conformance::run(Arc::new(staged(&folder))).await;
        let staging = folder.path().join(STAGING);
        assert_eq!(std::fs::read_dir(staging).unwrap().count(), 0, "staged files are left");
    }

    #[tokio::test]
    async fn what_a_killed_process_staged_is_cleared_and_what_a_living_one_stages_is_not() {
        let folder = tempfile::tempdir().unwrap();
        staged(&folder).create("a", &[]).await.unwrap();
        let staging = folder.path().join(STAGING);
        std::fs::write(staging.join("dead"), "half an obj").unwrap();
        let living = File::create(staging.join("living")).unwrap();
        rustix::fs::flock(&living, FlockOperation::LockExclusive).unwrap();
        let backend = open(&folder);
        assert!(!staging.join("dead").exists());
        assert!(staging.join("living").exists());
        assert_eq!(names(&backend, "").await, ["a"], "staged files are no objects");
    }

    #[tokio::test]
    async fn a_root_that_is_missing_is_made_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("a/b/c");
        assert_eq!(
            FileBackend::open(&root, false).unwrap_err().kind(),
            std::io::ErrorKind::NotFound
        );
        FileBackend::open(&root, true).unwrap().create("x", &[]).await.unwrap();
        assert!(root.join("x").is_file());
    }

    #[tokio::test]
    async fn a_root_that_was_removed_is_not_an_empty_store() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let backend = FileBackend::open(&root, true).unwrap();
        std::fs::remove_dir(&root).unwrap();
        std::fs::create_dir(&root).unwrap();
        let refused = |result: Result<(), BackendError>| matches!(result, Err(BackendError::Refused { .. }));
        assert!(refused(backend.length("a").await.map(drop)));
        assert!(refused(backend.read("a/b", 1).await.map(drop)));
        assert!(refused(backend.create("a", &[]).await));
        assert!(refused(backend.create("a/b", &[]).await));
        assert!(refused(backend.delete("a").await));
        assert!(refused(backend.list("a/").try_collect::<Vec<_>>().await.map(drop)));
    }

    #[tokio::test]
    async fn an_empty_folder_goes_with_its_last_object_and_comes_back_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let backend = open(&folder);
        backend.create("packs/00/w/1", &[]).await.unwrap();
        backend.create("packs/00/w/2", &[]).await.unwrap();
        backend.delete("packs/00/w/1").await.unwrap();
        assert!(folder.path().join("packs/00/w").is_dir());
        backend.delete("packs/00/w/2").await.unwrap();
        assert!(!folder.path().join("packs/00/w").exists());
        backend.create("packs/00/w/3", &[]).await.unwrap();
        assert_eq!(names(&backend, "packs/").await, ["packs/00/w/3"]);
    }

    #[tokio::test]
    async fn puts_and_deletes_in_one_folder_do_not_trip_over_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let backend = open(&folder);
        let tasks = (0..8).map(|task| {
            let backend = backend.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    let name = format!("a/b/{task}-{i}");
                    backend.create(&name, &[]).await.unwrap();
                    backend.delete(&name).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(names(&backend, "").await.is_empty());
    }

    #[tokio::test]
    async fn things_that_are_no_files_are_no_objects() {
        let folder = tempfile::tempdir().unwrap();
        let backend = open(&folder);
        rustix::fs::mknodat(
            CWD,
            folder.path().join("pipe"),
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(matches!(
            backend.read("pipe", 9).await,
            Err(BackendError::Refused { .. })
        ));
        assert!(matches!(
            backend.read("folder", 9).await,
            Err(BackendError::NotFound { .. })
        ));
        assert!(matches!(
            backend.length("folder").await,
            Err(BackendError::NotFound { .. })
        ));
        assert!(backend.delete("folder").await.is_err());
        assert!(names(&backend, "").await.is_empty());
    }

    #[tokio::test]
    async fn a_link_to_a_folder_above_ends_a_listing_with_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("..", folder.path().join("loop")).unwrap();
        let backend = FileBackend::open(
            &folder.path().join("loop/").join(folder.path().file_name().unwrap()),
            false,
        )
        .unwrap();
        std::fs::remove_file(folder.path().join("loop")).unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::os::unix::fs::symlink(".", folder.path().join("a/again")).unwrap();
        let listed: Result<Vec<_>, _> = backend.list("a/").try_collect().await;
        assert!(matches!(listed, Err(BackendError::Refused { .. })), "{listed:?}");
    }

    #[tokio::test]
    async fn a_listing_of_many_objects_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        for i in 0..3 * LIST_BATCH + 1 {
            std::fs::create_dir_all(folder.path().join(format!("p/{}", i % 7))).unwrap();
            std::fs::write(folder.path().join(format!("p/{}/{i}", i % 7)), "x").unwrap();
        }
        assert_eq!(names(&open(&folder), "p/").await.len(), 3 * LIST_BATCH + 1);
        assert_eq!(
            names(&open(&folder), "p/3/").await.len(),
            (3 * LIST_BATCH + 1).div_ceil(7)
        );
        drop(open(&folder).list("p/"));
        let backend = open(&folder);
        let mut begun = backend.list("p/");
        begun.next().await.unwrap().unwrap();
    }

    #[test]
    fn errors_of_the_system_mean_what_helps() {
        use crate::error::Kind;
        for (errno, kind) in [
            (Errno::NOENT, Kind::Missing),
            (Errno::ACCESS, Kind::Denied),
            (Errno::PERM, Kind::Denied),
            (Errno::ROFS, Kind::Denied),
            (Errno::NOSPC, Kind::Full),
            (Errno::DQUOT, Kind::Full),
            (Errno::TIMEDOUT, Kind::Retry),
            (Errno::IO, Kind::Invalid),
        ] {
            assert_eq!(map_errno("put", "a", errno).kind(), kind, "{errno}");
        }
    }
}
