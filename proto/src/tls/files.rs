//! Files of an identity: small, read with a bound, and replaced together.
//!
//! Three files cannot be replaced by one rename. So all new ones are written beside the old ones and made durable first; then they are renamed.
//! A cut before the first rename leaves a whole old set. A cut after it leaves some new files under their names and the rest beside them, and
//! "the new one if it is there, else the one in place" is the whole new set: whoever loads it finishes the renames.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Longest file that is read, bytes. Ours have about one thousand.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// One thing done to a folder, in an order that any cut survives.
#[derive(Clone)]
pub(crate) enum Step<'a> {
    /// Writes a new file beside the one of that name.
    Write { name: &'static str, bytes: &'a [u8] },
    /// Puts it in place.
    Rename { name: &'static str },
    /// Makes the names of the folder durable.
    Sync,
}

/// How a file is called before it is in place.
pub(crate) fn beside(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.new"))
}

/// What replaces files together.
pub(crate) fn replacing<'a>(files: &[(&'static str, &'a [u8])]) -> Vec<Step<'a>> {
    let write = files.iter().map(|&(name, bytes)| Step::Write { name, bytes });
    let rename = files.iter().map(|&(name, _)| Step::Rename { name });
    write.chain([Step::Sync]).chain(rename).chain([Step::Sync]).collect()
}

/// Does one step. The error comes with the path.
pub(crate) fn run(step: &Step<'_>, folder: &Path) -> Result<(), (PathBuf, io::Error)> {
    match step {
        Step::Write { name, bytes } => {
            let path = beside(folder, name);
            write(&path, bytes).map_err(|e| (path, e))
        }
        Step::Rename { name } => {
            let path = folder.join(name);
            match std::fs::rename(beside(folder, name), &path) {
                Err(e) => Err((path, e)),
                Ok(()) => Ok(()),
            }
        }
        Step::Sync => File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| (folder.to_owned(), e)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // The mode above is for new files only; one that a cut left behind may have another.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a folder that only its owner may enter, durably, with what is missing above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folder(parent)?;
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(e) => return Err((path.to_owned(), e)),
    }
    run(&Step::Sync, parent)
}

/// A file as it was read.
pub(crate) struct Found {
    /// What is in it; `None` when it is no text or too long.
    pub(crate) text: Option<Zeroizing<String>>,
    /// Its permission bits.
    pub(crate) mode: u32,
}

/// Reads a small file whole; `None` when there is none.
pub(crate) fn read(path: &Path) -> io::Result<Option<Found>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let metadata = file.metadata()?;
    let mode = metadata.permissions().mode() & 0o777;
    // Reserved at once: a buffer that grows leaves copies behind that nobody wipes.
    let room = metadata.len().min(FILE_BYTES_MAX) + 1;
    let mut bytes = Zeroizing::new(vec![0; usize::try_from(room).expect("64 KiB fit")]);
    let mut length = 0;
    let mut limited = file.take(room);
    loop {
        match limited.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    let whole = u64::try_from(length).is_ok_and(|length| length < room);
    let text = match std::str::from_utf8(&bytes[..length]) {
        Ok(text) if whole => Some(Zeroizing::new(text.to_owned())),
        _ => None,
    };
    Ok(Some(Found { text, mode }))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn files_and_folders_are_their_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        // Left behind by a cut, readable by all.
        std::fs::write(beside(&folder, "file"), b"old").unwrap();
        std::fs::set_permissions(beside(&folder, "file"), std::fs::Permissions::from_mode(0o644)).unwrap();
        for step in replacing(&[("file", b"new")]) {
            run(&step, &folder).unwrap();
        }
        let found = read(&folder.join("file")).unwrap().unwrap();
        assert_eq!(found.text.unwrap().as_str(), "new");
        assert_eq!(found.mode, 0o600);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&dir.path().join("a")), 0o700);
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn what_is_too_long_or_no_text_is_found_but_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        assert!(read(&path).unwrap().is_none());
        for (bytes, readable) in [
            (Vec::new(), true),
            (vec![b'x'; FILE_BYTES_MAX as usize], true),
            (vec![b'x'; FILE_BYTES_MAX as usize + 1], false),
            (vec![0xff], false),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(
                read(&path).unwrap().unwrap().text.is_some(),
                readable,
                "{}",
                bytes.len()
            );
        }
    }
}
