//! Key files: the secret of one slot, for the machine that backs up.
//!
//! ```text
//! # comments
//! tresor-key 1
//! vault 32 hexadecimal digits
//! key 64 hexadecimal digits
//! check 16 hexadecimal digits: the first 8 bytes of the BLAKE3 of the three lines above, each with its line feed
//! ```

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::{Key, KeyError, Unlock};
use crate::ids::{VaultId, hex, unhex};

/// Largest key file read.
const LENGTH_MAX: u64 = 4 << 10;
const FIRST_LINE: &str = "tresor-key 1";
const COMMENT: &str = "# Key of a Tresor vault. Whoever has this file can read the vault's backups. Keep a copy apart from the backups.\n";

/// A key file, read.
#[derive(Debug, Clone)]
pub struct KeyFile {
    /// The vault that it was made for.
    pub vault: VaultId,
    /// The secret.
    pub key: Key,
    /// Whether others than the owner may read or write the file: worth a warning.
    pub open_to_others: bool,
}

impl KeyFile {
    /// What opens the vault's slot.
    pub fn unlock(&self) -> Unlock {
        Unlock::File(self.key.clone())
    }

    /// Writes a key file with mode 0600, durable when this returns, with the folder (0700) if need be.
    ///
    /// # Errors
    /// [`KeyError::Exists`]: no key file is ever overwritten. [`KeyError::Io`] by cause; no part of a file is left then.
    pub fn create(path: &Path, vault: VaultId, key: &Key) -> Result<(), KeyError> {
        create_secret(path, &encode(vault, key))
    }

    /// Reads a key file; of `vault`, if one is named.
    ///
    /// # Errors
    /// [`KeyError::None`] when there is no file, [`KeyError::Wrong`] when it belongs to another vault, [`KeyError::File`] for a file that is
    /// none or was damaged, [`KeyError::Io`] otherwise.
    pub fn load(path: &Path, vault: Option<VaultId>) -> Result<Self, KeyError> {
        let shown = || path.display().to_string();
        let file = File::open(path).map_err(|e| match (e.kind(), vault) {
            (io::ErrorKind::NotFound, Some(vault)) => KeyError::None {
                vault: vault.to_string(),
                why: format!("there is no key file {}", shown()),
            },
            _ => io_error("read", path, e),
        })?;
        Self::read(&file, path, vault)
    }

    /// As [`load`](Self::load), and makes sure that the file survives a loss of power.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_durable(path: &Path, vault: Option<VaultId>) -> Result<Self, KeyError> {
        let read = Self::load(path, vault)?;
        File::open(path)
            .and_then(|f| f.sync_all())
            .map_err(|e| io_error("sync", path, e))?;
        sync_folder_of(path).map_err(|e| io_error("sync the folder of", path, e))?;
        Ok(read)
    }

    /// Puts the key file at `new` in the place of the one at `path`, durable when this returns: the last step of replacing a slot's secret, when
    /// the revision that needs the new one was stored and proven. At any moment one of both is whole.
    ///
    /// # Errors
    /// [`KeyError::Io`]; `new` is then where it was, or both are one.
    pub fn replace(new: &Path, path: &Path) -> Result<(), KeyError> {
        std::fs::rename(new, path).map_err(|e| io_error("replace", path, e))?;
        sync_folder_of(path).map_err(|e| io_error("sync the folder of", path, e))
    }

    fn read(file: &File, path: &Path, vault: Option<VaultId>) -> Result<Self, KeyError> {
        let metadata = file.metadata().map_err(|e| io_error("read", path, e))?;
        let refuse = |why: &str| KeyError::File {
            path: path.display().to_string(),
            why: why.to_owned(),
        };
        if !metadata.is_file() {
            return Err(refuse("not a regular file"));
        }
        let mut text = Zeroizing::new(String::with_capacity(1024));
        file.take(LENGTH_MAX + 1)
            .read_to_string(&mut text)
            .map_err(|e| match e.kind() {
                io::ErrorKind::InvalidData => refuse("not a key file"),
                _ => io_error("read", path, e),
            })?;
        if text.len() as u64 > LENGTH_MAX {
            return Err(refuse("too long for a key file"));
        }
        let (of, key) = decode(&text).map_err(refuse)?;
        if let Some(vault) = vault.filter(|vault| *vault != of) {
            return Err(KeyError::Wrong {
                what: format!("key file {} (of vault {of})", path.display()),
                vault: vault.to_string(),
            });
        }
        Ok(Self {
            vault: of,
            key,
            open_to_others: metadata.mode() & 0o077 != 0,
        })
    }
}

fn checked_lines(vault: VaultId, key: &Key) -> Zeroizing<String> {
    let key = Zeroizing::new(hex(key.expose()));
    Zeroizing::new(format!("{FIRST_LINE}\nvault {vault}\nkey {}\n", key.as_str()))
}

fn check_of(lines: &str) -> String {
    hex(&blake3::hash(lines.as_bytes()).as_bytes()[..8])
}

fn encode(vault: VaultId, key: &Key) -> Zeroizing<String> {
    let lines = checked_lines(vault, key);
    let check = check_of(&lines);
    Zeroizing::new(format!("{COMMENT}{}check {check}\n", lines.as_str()))
}

fn decode(text: &str) -> Result<(VaultId, Key), &'static str> {
    let mut lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    match lines.next() {
        Some(FIRST_LINE) => {}
        Some(line) if line.starts_with("tresor-key ") => return Err("a key file of a version that is not known"),
        _ => return Err("not a key file"),
    }
    let mut field = |name: &str, missing: &'static str| {
        let line = lines.next().ok_or(missing)?;
        line.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix(' '))
            .ok_or(missing)
    };
    let vault = field(
        "vault",
        "the line \"vault\" is missing: the key file is cut short or damaged",
    )?;
    let key = field(
        "key",
        "the line \"key\" is missing: the key file is cut short or damaged",
    )?;
    let check = field(
        "check",
        "the line \"check\" is missing: the key file is cut short or damaged",
    )?;
    let vault: VaultId = vault.parse().map_err(|_| "the vault id is damaged")?;
    let key = Zeroizing::new(unhex::<32>(key).ok_or("the key is damaged: not 64 hexadecimal digits")?);
    let key = Key::from_bytes(*key);
    if check_of(&checked_lines(vault, &key)) != check {
        return Err("the checksum differs: the key file is damaged");
    }
    if lines.next().is_some() {
        return Err("there is more in it than a key file has");
    }
    Ok((vault, key))
}

/// Writes a new file of secret text with mode 0600, durable when this returns, with its folder (0700) if need be.
///
/// # Errors
/// [`KeyError::Exists`], [`KeyError::Io`] by cause; no part of a file is left then.
pub fn create_secret(path: &Path, text: &str) -> Result<(), KeyError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_folder(folder).map_err(|e| io_error("create the folder of", path, e))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                KeyError::Exists {
                    path: path.display().to_string(),
                }
            } else {
                io_error("create", path, e)
            }
        })?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder_of(path));
    written.map_err(|e| {
        // Ours: created above, and of no use to anybody.
        let _ = std::fs::remove_file(path);
        io_error("write", path, e)
    })
}

/// Creates a folder and those above it, each durable in the one above.
fn create_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Ok(()) => sync_folder_of(folder),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).ok_or(e)?;
            create_folder(above)?;
            create_folder(folder)
        }
        Err(e) => Err(e),
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::Io {
        doing,
        path: path.display().to_string(),
        source,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const VAULT: VaultId = VaultId([0xab; 16]);

    #[test]
    fn a_key_file_comes_back_private_and_is_never_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a/keys/one");
        let key = Key::random();
        KeyFile::create(&path, VAULT, &key).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        let read = KeyFile::load_durable(&path, Some(VAULT)).unwrap();
        assert!(read.key == key && read.vault == VAULT && !read.open_to_others);

        let error = KeyFile::create(&path, VAULT, &Key::random()).unwrap_err();
        assert!(matches!(error, KeyError::Exists { .. }), "{error}");
        assert!(KeyFile::load(&path, Some(VAULT)).unwrap().key == key);

        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(KeyFile::load(&path, None).unwrap().open_to_others);
    }

    #[test]
    fn the_key_file_of_another_vault_is_refused_by_name() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("one");
        KeyFile::create(&path, VAULT, &Key::random()).unwrap();
        let error = KeyFile::load(&path, Some(VaultId([1; 16]))).unwrap_err();
        assert!(
            matches!(&error, KeyError::Wrong { what, .. } if what.contains("abababab")),
            "{error}"
        );
        assert!(matches!(
            KeyFile::load(&home.path().join("two"), Some(VAULT)),
            Err(KeyError::None { .. })
        ));
        assert!(matches!(
            KeyFile::load(home.path(), Some(VAULT)),
            Err(KeyError::File { .. })
        ));
    }

    #[test]
    fn no_damaged_character_goes_unnoticed() {
        let key = Key::from_bytes([7; 32]);
        let text = encode(VAULT, &key);
        assert!(decode(&text).unwrap().1 == key);
        let start = text.find(FIRST_LINE).unwrap();
        for at in start..text.len() - 1 {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let damaged = String::from_utf8(bytes).unwrap();
            assert!(decode(&damaged).is_err(), "at {at}: {damaged}");
        }
        for length in 0..text.len() - 1 {
            assert!(decode(&text[..length]).is_err(), "cut at {length}");
        }
        assert!(decode(&text.replace('\n', "\r\n")).is_ok(), "copied by a mail program");
        assert_eq!(
            decode("tresor-key 2\n"),
            Err("a key file of a version that is not known")
        );
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("disk.img");
        std::fs::write(&path, vec![0xff; 100]).unwrap();
        assert!(matches!(KeyFile::load(&path, None), Err(KeyError::File { .. })));
        std::fs::write(&path, vec![b'a'; 1 << 20]).unwrap();
        assert!(matches!(KeyFile::load(&path, None), Err(KeyError::File { .. })));
    }
}
