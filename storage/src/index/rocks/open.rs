//! Opening, making and destroying the database, and what its errors mean.
//!
//! Nothing is ever deleted or made anew here without being asked: a database that cannot be used is [`IndexError::Stale`], and
//! the caller destroys and rebuilds it.

use std::fs;
use std::io;
use std::path::Path;

use rocksdb::{Cache, ColumnFamily, DB, ErrorKind, Options};

use super::{fill, options};
use crate::error::Kind;
use crate::index::IndexError;

/// An open database.
pub(super) struct Opened {
    pub(super) db: DB,
    /// For its statistics.
    #[cfg(test)]
    pub(super) options: Options,
    pub(super) cache: Cache,
}

/// Opens what is there.
pub(super) fn open(path: &Path, mut options: Options) -> Result<Opened, IndexError> {
    if !path.join("CURRENT").exists() {
        // RocksDB would take that for an empty place, and remove what files there are.
        return Err(IndexError::Stale {
            why: format!("there is none at {}", path.display()),
        });
    }
    // There is one at any time, also after a crash. RocksDB notices the absence of older logs, not of the last.
    if !names(path)?.iter().any(|name| name.ends_with(".log")) {
        return Err(IndexError::Stale {
            why: "its log is gone".into(),
        });
    }
    fill::clear(path)?;
    let found = DB::list_cf(&options, path).map_err(refused)?;
    if let Some(name) = found.iter().find(|name| !options::FAMILIES.contains(&name.as_str())) {
        return Err(IndexError::Stale {
            why: format!("it has a table {name:?} of another version"),
        });
    }
    options.create_if_missing(false);
    open_families(path, &options)
}

/// Makes an empty one where there is none.
pub(super) fn create(path: &Path, mut options: Options) -> Result<Opened, IndexError> {
    fs::create_dir_all(path).map_err(|e| io_trouble("make the folder", e))?;
    for name in names(path)? {
        if name == "CURRENT" || name.starts_with("MANIFEST-") || name.ends_with(".sst") || name.ends_with(".log") {
            return Err(IndexError::Stale {
                why: format!("there is one already at {}", path.display()),
            });
        }
    }
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_error_if_exists(true);
    open_families(path, &options)
}

fn open_families(path: &Path, options: &Options) -> Result<Opened, IndexError> {
    let cache = Cache::new_hyper_clock_cache(options::CACHE_BYTES, 0);
    let db = DB::open_cf_descriptors(options, path, options::families(&cache)).map_err(refused)?;
    Ok(Opened {
        db,
        #[cfg(test)]
        options: options.clone(),
        cache,
    })
}

/// Removes the database's files and, if nothing else is in it, the folder.
pub(super) fn destroy(path: &Path) -> Result<(), IndexError> {
    if !path.exists() {
        return Ok(());
    }
    fill::clear(path)?;
    DB::destroy(&options::database(), path).map_err(|e| {
        let error = refused(e);
        // What cannot be removed is not made better by another rebuild.
        if let IndexError::Stale { why } = error {
            return IndexError::Database {
                what: "remove its files",
                kind: Kind::Invalid,
                source: why.into(),
            };
        }
        error
    })?;
    match fs::remove_dir(path) {
        Err(e) if !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
            Err(io_trouble("remove the folder", e))
        }
        _ => Ok(()),
    }
}

fn names(path: &Path) -> Result<Vec<String>, IndexError> {
    let files = fs::read_dir(path).map_err(|e| io_trouble("list the folder", e))?;
    let name = |file: io::Result<fs::DirEntry>| file.map(|file| file.file_name().to_string_lossy().into_owned());
    files
        .map(name)
        .collect::<io::Result<_>>()
        .map_err(|e| io_trouble("list the folder", e))
}

/// A table's handle.
pub(super) fn family<'a>(db: &'a DB, name: &str) -> &'a ColumnFamily {
    db.cf_handle(name).expect("all tables were opened")
}

/// What an error of an open database means.
pub(super) fn trouble(what: &'static str, error: rocksdb::Error) -> IndexError {
    let text: &str = error.as_ref();
    if error.kind() == ErrorKind::Corruption {
        return IndexError::Stale {
            why: format!("it is damaged: {text}"),
        };
    }
    // RocksDB gives the operating system's reason as text alone.
    let kind = if text.contains("No space left") || text.contains("quota exceeded") {
        Kind::Full
    } else if text.contains("Permission denied") || text.contains("Read-only file system") {
        Kind::Denied
    } else {
        Kind::Retry
    };
    IndexError::Database {
        what,
        kind,
        source: error.into(),
    }
}

/// What an error of opening means.
fn refused(error: rocksdb::Error) -> IndexError {
    let text: &str = error.as_ref();
    if error.kind() == ErrorKind::IOError && text.contains("/LOCK: ") {
        let held = ["No locks available", "Resource temporarily unavailable", "lock hold by"];
        if held.iter().any(|words| text.contains(words)) {
            return IndexError::Locked;
        }
    }
    let unusable = match error.kind() {
        ErrorKind::InvalidArgument | ErrorKind::NotFound | ErrorKind::NotSupported => true,
        // A file that should be there.
        ErrorKind::IOError => text.contains("No such file or directory"),
        _ => false,
    };
    if unusable {
        return IndexError::Stale {
            why: format!("it cannot be opened: {text}"),
        };
    }
    trouble("open it", error)
}

pub(super) fn io_trouble(what: &'static str, error: io::Error) -> IndexError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Full,
        _ => Kind::Retry,
    };
    IndexError::Database {
        what,
        kind,
        source: error.into(),
    }
}
