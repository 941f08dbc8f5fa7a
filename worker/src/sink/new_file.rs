//! A file that appears under its name only when it is complete.
//!
//! It grows as `.<name>.tresor-<random>` in the same folder, locked (`flock`) while somebody works on it. One that is not locked was left by a process that was
//! killed, and goes when the next one writes to the same target.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;

use super::SinkError;
use crate::source::in_use;

/// Bytes of the target's name that its temporary name repeats: names have 255 at most.
const NAME_KEPT: usize = 200;
/// A disk holds secrets; who else may read it is for its owner to say.
const MODE: u32 = 0o600;

/// A new file on its way. Dropped before it is published, it is removed.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    /// Where it grows; absolute.
    pub(super) temporary: PathBuf,
    path: PathBuf,
    overwrite: bool,
    published: bool,
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

impl NewFile {
    /// Starts a file that will be `path`.
    ///
    /// # Errors
    /// `Exists` unless it may be overwritten; `InUse` if a VM writes to what is there; `NotADisk`, `Missing`, `Denied`, `Full`.
    pub(super) fn create(path: &Path, overwrite: bool) -> Result<Self, SinkError> {
        let failed = |operation| move |source| SinkError::from_io(operation, path, source);
        let name = path
            .file_name()
            .ok_or_else(|| SinkError::NotADisk { path: path.to_owned() })?;
        let absolute = std::path::absolute(path).map_err(failed("create"))?;
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            return Err(SinkError::Missing {
                path: folder.to_owned(),
            });
        }
        let mode = match std::fs::symlink_metadata(path) {
            Ok(_) if !overwrite => return Err(SinkError::Exists { path: path.to_owned() }),
            Ok(found) if found.is_file() => {
                if let Ok(file) = File::open(path)
                    && let Some(why) = in_use::writer(&file).map_err(failed("look for locks of"))?
                {
                    return Err(SinkError::InUse {
                        path: path.to_owned(),
                        why,
                    });
                }
                found.permissions().mode() & 0o777
            }
            Ok(_) => return Err(SinkError::NotADisk { path: path.to_owned() }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => MODE,
            Err(error) => return Err(SinkError::from_io("create", path, error)),
        };
        let prefix = prefix(name);
        remove_abandoned(folder, &prefix);
        loop {
            let temporary = folder.join(temporary_name(&prefix).map_err(failed("create"))?);
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(MODE)
                .open(&temporary)
                .map_err(failed("create"))?;
            // Somebody who tidies up at this moment has the lock, or had it and removed the file: then make another one.
            let is_ours = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            if is_ours == Err(Errno::AGAIN) || rustix::fs::fstat(&file).is_ok_and(|stat| stat.st_nlink == 0) {
                continue;
            }
            let new = Self {
                file,
                temporary,
                path: path.to_owned(),
                overwrite,
                published: false,
            };
            if mode != MODE {
                new.file
                    .set_permissions(Permissions::from_mode(mode))
                    .map_err(failed("create"))?;
            }
            return Ok(new);
        }
    }

    /// Gives it its name, after everything in it is durable if that is wanted.
    ///
    /// # Errors
    /// `Exists` if somebody made the target meanwhile and it may not be overwritten; `Full`, `Io`.
    pub(super) fn publish(mut self, durable: bool) -> Result<(), SinkError> {
        let path = self.path.clone();
        let failed = |operation, source| SinkError::from_io(operation, &path, source);
        if durable {
            self.file.sync_all().map_err(|e| failed("sync", e))?;
        }
        let renamed = if self.overwrite {
            rustix::fs::rename(&self.temporary, &path)
        } else {
            match rustix::fs::renameat_with(CWD, &self.temporary, CWD, &path, RenameFlags::NOREPLACE) {
                // A file system that cannot: a hard link does not replace either.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::link(&self.temporary, &path).and_then(|()| rustix::fs::unlink(&self.temporary))
                }
                other => other,
            }
        };
        renamed.map_err(|e| failed("rename", e.into()))?;
        self.published = true;
        if durable {
            let folder = self.temporary.parent().unwrap_or(Path::new("/"));
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|e| failed("sync the folder of", e))?;
        }
        Ok(())
    }
}

fn prefix(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    [b".", &name[..name.len().min(NAME_KEPT)], b".tresor-"].concat()
}

fn temporary_name(prefix: &[u8]) -> std::io::Result<OsString> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let mut name = prefix.to_vec();
    name.extend(format!("{:016x}", u64::from_ne_bytes(random)).into_bytes());
    Ok(OsString::from_vec(name))
}

/// Removes what killed processes left of this target. What cannot be removed stays.
fn remove_abandoned(folder: &Path, prefix: &[u8]) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(random) = name.as_bytes().strip_prefix(prefix) else {
            continue;
        };
        if random.len() != 16 || !random.iter().all(u8::is_ascii_hexdigit) {
            continue;
        }
        if let Ok(file) = File::open(entry.path())
            && rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
