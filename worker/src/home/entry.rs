//! `vaults/<name>.toml`: which vault a name means, and where it is. No secrets.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tresor_storage::ids::VaultId;
use tresor_storage::vault::naming::check_vault_name;
use url::Url;

use super::files;
use crate::control::ControlError;

const VERSION: u32 = 1;

/// A vault as a home knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultEntry {
    /// Its name in this home.
    pub name: String,
    /// Its id.
    pub id: VaultId,
    /// Its store's URL. Of a folder in the home it is written relative to the home, so that the home can be moved.
    pub url: String,
    /// When it was entered here, RFC 3339.
    pub added_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u32,
    id: String,
    /// An URL, or a folder relative to the home.
    store: String,
    added_at: String,
}

/// The URL of a folder.
///
/// # Errors
/// [`ControlError::Damaged`] for a folder that has none, which no absolute path is.
pub fn folder_url(folder: &Path) -> Result<String, ControlError> {
    let url = Url::from_directory_path(folder).map_err(|()| files::damaged(folder, "not an absolute path"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(super) fn path(home: &Path, name: &str) -> PathBuf {
    home.join("vaults").join(format!("{name}.toml"))
}

/// All entries, by name. Files of other names than a vault may have are not ours.
pub(super) fn list(home: &Path) -> Result<Vec<VaultEntry>, ControlError> {
    let folder = home.join("vaults");
    let files = std::fs::read_dir(&folder).map_err(|e| files::trouble("could not list", &folder, e))?;
    let mut entries = Vec::new();
    for file in files {
        let file = file.map_err(|e| files::trouble("could not list", &folder, e))?;
        let name = file.file_name();
        let Some(name) = name
            .to_str()
            .and_then(|n| n.strip_suffix(".toml"))
            .filter(|n| check_vault_name(n).is_ok())
        else {
            continue;
        };
        // It may have been removed since it was listed.
        entries.extend(load(home, name)?);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// One entry; `None` when there is none of that name.
pub(super) fn load(home: &Path, name: &str) -> Result<Option<VaultEntry>, ControlError> {
    let path = path(home, name);
    let Some(text) = files::read(&path)? else {
        return Ok(None);
    };
    let stored: Stored = toml::from_str(&text)
        .map_err(|e| files::damaged(&path, format!("not an entry of a vault: {}", e.message())))?;
    if stored.version != VERSION {
        return Err(files::damaged(
            &path,
            format!("version {} is not known to this version", stored.version),
        ));
    }
    let url = if stored.store.contains("://") {
        stored.store
    } else {
        folder_url(&home.join(&stored.store))?
    };
    let id = stored.id.parse().map_err(|e| files::damaged(&path, format!("{e}")))?;
    Ok(Some(VaultEntry {
        name: name.to_owned(),
        id,
        url,
        added_at: stored.added_at,
    }))
}

/// Writes an entry durably, over another of that name.
pub(super) fn store(home: &Path, entry: &VaultEntry) -> Result<(), ControlError> {
    let below = format!("{}/", folder_url(home)?);
    let path = path(home, &entry.name);
    // Only plain names: an escaped one would not be the folder's.
    let relative = entry
        .url
        .strip_prefix(&below)
        .filter(|rest| !rest.contains('%') && !rest.contains(".."));
    let stored = Stored {
        version: VERSION,
        id: entry.id.to_string(),
        store: relative.unwrap_or(&entry.url).to_owned(),
        added_at: entry.added_at.clone(),
    };
    let text =
        toml::to_string(&stored).map_err(|e| files::trouble("could not write", &path, std::io::Error::other(e)))?;
    files::replace(&path, text.as_bytes())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn home() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files::make_folder(&dir.path().join("vaults")).unwrap();
        dir
    }

    fn entry(name: &str, url: &str) -> VaultEntry {
        VaultEntry {
            name: name.into(),
            id: VaultId([7; 16]),
            url: url.into(),
            added_at: "2026-11-22T03:00:00Z".into(),
        }
    }

    #[test]
    fn entries_come_back_by_name() {
        let home = home();
        let entries = [entry("main", "s3://bucket/a"), entry("site-2", "file:///srv/vault")];
        for entry in entries.iter().rev() {
            store(home.path(), entry).unwrap();
        }
        std::fs::write(home.path().join("vaults/notes.txt"), "x").unwrap();
        assert_eq!(list(home.path()).unwrap(), entries);
        assert_eq!(load(home.path(), "other").unwrap(), None);
    }

    #[test]
    fn a_store_in_the_home_moves_with_it() {
        let parent = tempfile::tempdir().unwrap();
        let (old, new) = (parent.path().join("old home"), parent.path().join("new home"));
        files::make_folder(&old.join("vaults")).unwrap();
        store(&old, &entry("main", &folder_url(&old.join("stores/main")).unwrap())).unwrap();
        std::fs::rename(&old, &new).unwrap();
        let found = load(&new, "main").unwrap().unwrap();
        assert_eq!(found.url, folder_url(&new.join("stores/main")).unwrap());
        assert!(found.url.contains("new%20home"), "{}", found.url);
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let home = home();
        store(home.path(), &entry("main", "s3://bucket")).unwrap();
        let path = path(home.path(), "main");
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            "",
            "version = 1",
            &text.replace("version = 1", "version = 2"),
            &text.replace("07", "x"),
            &format!("{text}more = 1\n"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            let error = load(home.path(), "main").unwrap_err();
            assert!(error.to_string().contains("main.toml"), "{error}");
        }
    }
}
