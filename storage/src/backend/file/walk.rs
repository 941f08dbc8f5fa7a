//! Listing a folder.

use rustix::fs::{AtFlags, Dir, FileType, Mode};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{FOLDER, Root};
use crate::backend::{BackendError, Listed};

/// Folders below each other that a listing follows: the format has four, and a link to a folder above would have no end.
const DEPTH_MAX: usize = 16;
/// Objects handed over at once, and how many such batches wait for the caller.
pub(super) const LIST_BATCH: usize = 512;
pub(super) const LIST_BATCHES: usize = 2;

impl Root {
    /// Sends everything below `prefix`; stops when nobody listens any more.
    pub(super) fn walk(&self, prefix: &str, out: &mpsc::Sender<Result<Vec<Listed>, BackendError>>) {
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
