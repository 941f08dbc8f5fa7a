//! Small files of a home: written so that a cut leaves the old one or the new one, read with a bound.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::control::ControlError;

/// Largest file read.
const LENGTH_MAX: u64 = 64 << 10;

/// Names the file and what was tried with it.
pub(crate) fn trouble(what: &'static str, path: &Path, source: io::Error) -> ControlError {
    ControlError::Home {
        what,
        path: path.display().to_string(),
        source,
    }
}

/// A file that is not what was written there.
pub(crate) fn damaged(path: &Path, why: impl Into<String>) -> ControlError {
    ControlError::Damaged {
        path: path.display().to_string(),
        why: why.into(),
    }
}

/// Makes a folder that only its owner may enter, durably, with what is missing above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), ControlError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err(trouble("could not make the folder", path, e)),
    }
    sync_folder_of(path)
}

/// Writes a file durably in place of whatever has its name: another file, synced, then renamed, then the folder synced.
///
/// Callers hold a lock under which nobody else writes this name.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ControlError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.new"));
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|e| trouble("could not write", path, e))?;
    sync_folder_of(path)
}

/// Reads a small file whole; `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ControlError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(trouble("could not read", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| trouble("could not read", path, e))?;
    if bytes.len() as u64 > LENGTH_MAX {
        return Err(damaged(path, "too long for what it should be"));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| damaged(path, "not a text"))
}

/// Removes a file durably; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), ControlError> {
    match std::fs::remove_file(path) {
        Ok(()) => sync_folder_of(path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(trouble("could not remove", path, e)),
    }
}

/// Makes a name in a folder durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<(), ControlError> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(|e| trouble("could not sync the folder of", path, e))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn files_and_folders_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/file");
        make_folder(path.parent().unwrap()).unwrap();
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().as_deref(), Some("two"));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        assert_eq!(
            std::fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path).unwrap(), None);
    }

    #[test]
    fn a_file_that_is_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, vec![b'x'; LENGTH_MAX as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(ControlError::Damaged { .. })));
    }
}
