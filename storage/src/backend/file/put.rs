//! An object on its way to its name: a file without one, or a staged file, that is written, synced and linked.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::{BackendError, FILE_MODE, FOLDER, FOLDER_MODE, Root, STAGING, split, sync_folder};
use crate::ids::hex;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Writing {
    /// The object's folder; none: the root.
    folder: Option<OwnedFd>,
    file: File,
    staged: Option<Staged>,
}

/// A file in the staging folder, locked as long as we have it open; removed when it is given up.
///
/// A staged file that nobody holds locked belongs to a process that was killed; the next one to open the store removes it.
#[derive(Debug)]
struct Staged {
    folder: OwnedFd,
    name: String,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Not there any more when it got its name.
        let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

impl Writing {
    /// Writes the next bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.file
            .write_all(bytes)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn folder<'a>(&'a self, root: &'a Root) -> BorrowedFd<'a> {
        self.folder.as_ref().map_or(root.fd.as_fd(), AsFd::as_fd)
    }
}

/// What became of a put that was not done.
pub(super) enum Failed {
    /// From the start again: the folder vanished, or the file system has no files without a name.
    Again,
    Error(BackendError),
}

impl Root {
    /// Makes room for an object of this name.
    pub(super) fn begin(&self, name: &str) -> Result<Writing, Failed> {
        self.try_begin(name).map_err(|errno| self.failed(name, errno))
    }

    fn try_begin(&self, name: &str) -> Result<Writing, Errno> {
        let (folder, leaf) = split(name);
        let folder = self.make_folder(folder)?;
        let at = folder.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        // The link decides; this spares writing a whole object to hear that it is there.
        if rustix::fs::statat(at, leaf, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Err(Errno::EXIST);
        }
        if self.unnamed.load(Relaxed) {
            let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
            match rustix::fs::openat(at, ".", flags, FILE_MODE) {
                Ok(fd) => {
                    return Ok(Writing {
                        folder,
                        file: File::from(fd),
                        staged: None,
                    });
                }
                // No such files here: from now on staged.
                Err(errno) if is_unable(errno) => self.unnamed.store(false, Relaxed),
                Err(errno) => return Err(errno),
            }
        }
        let (file, staged) = self.stage()?;
        Ok(Writing {
            folder,
            file,
            staged: Some(staged),
        })
    }

    /// A file of a random name in the staging folder.
    fn stage(&self) -> Result<(File, Staged), Errno> {
        match rustix::fs::mkdirat(&self.fd, STAGING, FOLDER_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        let folder = rustix::fs::openat(&self.fd, STAGING, FOLDER, Mode::empty())?;
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| Errno::AGAIN)?;
        let name = hex(&id);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&folder, &name, flags, FILE_MODE)?);
        // Where there are no locks, nobody can tell that the file is ours, and nobody removes it either.
        let _ = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok((file, Staged { folder, name }))
    }

    /// Writes a whole object's bytes to the disk and gives it its name, durably.
    pub(super) fn end(&self, name: &str, writing: &Writing) -> Result<(), Failed> {
        let (_, leaf) = split(name);
        match &writing.staged {
            Some(staged) => self.move_staged(writing, staged, leaf),
            None => match self.link_unnamed(writing, leaf) {
                // No way to give it a name (no /proc, no links): from now on staged.
                Err(errno) if is_unable(errno) || (errno == Errno::NOENT && !Path::new("/proc/self/fd").is_dir()) => {
                    self.unnamed.store(false, Relaxed);
                    return Err(Failed::Again);
                }
                result => result,
            },
        }
        .map_err(|errno| self.failed(name, errno))
    }

    fn link_unnamed(&self, writing: &Writing, leaf: &str) -> Result<(), Errno> {
        sync(&writing.file)?;
        let folder = writing.folder(self);
        let unnamed = format!("/proc/self/fd/{}", writing.file.as_raw_fd());
        rustix::fs::linkat(CWD, unnamed, folder, leaf, AtFlags::SYMLINK_FOLLOW)?;
        // The link changed the file's own record as well. Most file systems commit both with the folder, and then this costs nothing.
        rustix::fs::fsync(&writing.file)?;
        sync_folder(folder)
    }

    /// Moves a staged file to its name without replacing another.
    fn move_staged(&self, writing: &Writing, staged: &Staged, leaf: &str) -> Result<(), Errno> {
        sync(&writing.file)?;
        let folder = writing.folder(self);
        match rustix::fs::renameat_with(&staged.folder, &staged.name, folder, leaf, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                // Two names of one whole object: the staged one goes with its guard, or is cleared with the rest if that fails.
                rustix::fs::linkat(&staged.folder, &staged.name, folder, leaf, AtFlags::empty())?;
            }
            result => result?,
        }
        rustix::fs::fsync(&writing.file)?;
        sync_folder(folder)
    }

    /// What an error of a put means: somebody may have deleted the folder's last object, and the folder, between two of our steps, or cleared our
    /// staged file.
    pub(super) fn failed(&self, name: &str, errno: Errno) -> Failed {
        if errno == Errno::NOENT && !self.is_removed() {
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).clear();
            return Failed::Again;
        }
        Failed::Error(match errno {
            Errno::EXIST => BackendError::Exists { name: name.into() },
            // Only linking and renaming answer these for a file that could be written.
            Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::MLINK => BackendError::Refused {
                operation: "put",
                name: name.into(),
                source: "the file system can neither link a file nor rename it without replacing another".into(),
            },
            errno => self.error("put", name, errno),
        })
    }
}

/// Whether a file system says that it has no files without a name, or no links.
fn is_unable(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::XDEV | Errno::MLINK
    )
}

/// Before it has a name: what can be found under a name is whole, also after a power cut.
fn sync(file: &File) -> Result<(), Errno> {
    file.sync_all()
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// How far the pieces of an object are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct At {
    pub(super) piece: usize,
    pub(super) byte: usize,
}

impl At {
    /// The next bytes of the pieces, `max` at most; none at the end.
    pub(super) fn next(self, pieces: &[Bytes], max: usize) -> Option<(&[u8], Self)> {
        let mut at = self;
        loop {
            let piece = pieces.get(at.piece)?;
            if at.byte < piece.len() {
                let end = piece.len().min(at.byte + max);
                let next = Self {
                    piece: at.piece,
                    byte: end,
                };
                return Some((&piece[at.byte..end], next));
            }
            at = Self {
                piece: at.piece + 1,
                byte: 0,
            };
        }
    }
}
