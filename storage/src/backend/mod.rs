//! Stores of objects, as the rest of the crate sees them.
//!
//! The port has no overwrite and no rename: an object is created once, whole, and what cannot be said here
//! nobody can do. Read [`Backend`], then `open` (what an URL becomes), `file` and `object` (the real stores), then the wrappers: `metered`,
//! `limit`, `retry`. What jobs are limited to ([`crate::throttle`]) is kept inside the requests, by each store in its own way: `file`, `transport`, `paced`. [`faulty`], [`forgetful`] and [`conformance`] are for tests, also those of other crates.

pub mod conformance;
pub mod faulty;
pub mod forgetful;

mod answer;
mod file;
mod limit;
mod memory;
mod metered;
mod object;
mod open;
mod paced;
mod probe;
mod random;
mod retry;
mod transport;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::error::Kind;

pub use file::FileBackend;
pub use limit::{Limited, Limits};
pub use memory::Memory;
pub use metered::{Counters, Metered, Times, Traffic};
pub use object::ObjectBackend;
pub use open::{OpenStore, Secret, StoreConfig, open};
pub use paced::Paced;
pub use probe::{Abilities, probe};
pub use retry::{RetryPolicy, Retrying, plan_retry};

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, from the vault's root.
    pub name: String,
    /// Its length, bytes.
    pub length: u64,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// There is no such object.
    #[error("object {name} not found")]
    NotFound {
        /// The object.
        name: String,
    },
    /// A create-only put met an object of that name.
    #[error("object {name} exists")]
    Exists {
        /// The object.
        name: String,
    },
    /// The range is not inside the object.
    #[error("object {name} is shorter than byte {end}")]
    Range {
        /// The object.
        name: String,
        /// Where the range ends.
        end: u64,
    },
    /// The object is larger than the caller takes.
    #[error("object {name} has {length} bytes, at most {max} are taken")]
    TooLarge {
        /// The object.
        name: String,
        /// Its length.
        length: u64,
        /// The caller's bound.
        max: u64,
    },
    /// No permission (401, 403, EACCES, EPERM, EROFS).
    #[error("the store denied to {operation} {name}")]
    Denied {
        /// `put`, `read`, …
        operation: &'static str,
        /// The object or prefix.
        name: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No space (ENOSPC, EDQUOT, 507).
    #[error("the store is full: could not {operation} {name}")]
    Full {
        /// `put`, …
        operation: &'static str,
        /// The object.
        name: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Time-out, throttling, 5xx, a broken connection: may work later.
    #[error("the store did not {operation} {name}")]
    Unavailable {
        /// `put`, `read`, …
        operation: &'static str,
        /// The object or prefix.
        name: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Anything that will not work as asked (a missing bucket, a bad endpoint, a malformed answer).
    #[error("the store refused to {operation} {name}")]
    Refused {
        /// `put`, `read`, …
        operation: &'static str,
        /// The object or prefix.
        name: String,
        /// What the store said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The URL or the configuration of a store is wrong.
    #[error("store {url}: {why}")]
    Configuration {
        /// The store.
        url: String,
        /// What is wrong.
        why: String,
    },
}

impl BackendError {
    /// What helps.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } => Kind::Missing,
            // Names are never used twice: whoever meets this has a bug or a repeated put, and decides itself.
            Self::Exists { .. } => Kind::Invalid,
            Self::Range { .. } | Self::TooLarge { .. } => Kind::Corrupt,
            Self::Denied { .. } => Kind::Denied,
            Self::Full { .. } => Kind::Full,
            Self::Unavailable { .. } => Kind::Retry,
            Self::Refused { .. } | Self::Configuration { .. } => Kind::Invalid,
        }
    }
}

/// A store of write-once objects.
///
/// Names are relative to the vault's root, of letters, digits, `-`, `.` and `/`. All methods may be called from many tasks at once and are
/// cancel safe: a dropped put may or may not have happened, nothing else is left behind that a reader could see.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Creates the object, durable when this returns.
    ///
    /// The pieces are put as one object; they are not copied.
    ///
    /// # Errors
    /// [`BackendError::Exists`] when the name is taken (where the store can tell); others by cause.
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError>;

    /// Reads a whole object of at most `max` bytes.
    ///
    /// # Errors
    /// [`BackendError::TooLarge`] without having read the object; others by cause.
    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError>;

    /// Reads exactly `range`.
    ///
    /// # Errors
    /// [`BackendError::Range`] when the object is shorter.
    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError>;

    /// The object's length.
    ///
    /// # Errors
    /// By cause.
    async fn length(&self, name: &str) -> Result<u64, BackendError>;

    /// Lists what lies below `prefix` (which ends with `/`), recursively, in no order. An empty or absent folder lists nothing.
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>>;

    /// Deletes an object; one that is not there is deleted already.
    ///
    /// # Errors
    /// By cause.
    async fn delete(&self, name: &str) -> Result<(), BackendError>;
}

#[async_trait]
impl<B: Backend + ?Sized> Backend for Arc<B> {
    async fn create(&self, name: &str, pieces: &[Bytes]) -> Result<(), BackendError> {
        (**self).create(name, pieces).await
    }

    async fn read(&self, name: &str, max: usize) -> Result<Bytes, BackendError> {
        (**self).read(name, max).await
    }

    async fn read_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, BackendError> {
        (**self).read_range(name, range).await
    }

    async fn length(&self, name: &str) -> Result<u64, BackendError> {
        (**self).length(name).await
    }

    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, BackendError>> {
        (**self).list(prefix)
    }

    async fn delete(&self, name: &str) -> Result<(), BackendError> {
        (**self).delete(name).await
    }
}

/// Longest name of an object: with a prefix of as much again it stays below the 1024 bytes that S3 and Azure take.
const NAME_MAX: usize = 512;
/// Longest part of a name between slashes: what file systems take.
const PART_MAX: usize = 255;

/// Refuses names that a store could read differently from what was meant: an empty part, `..`, other characters.
///
/// The first thing every store does with a name: nothing else stands between a name and a path.
fn check_name(operation: &'static str, name: &str) -> Result<(), BackendError> {
    let fits = |part: &str| {
        !part.is_empty()
            && part.len() <= PART_MAX
            && part != "."
            && part != ".."
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
    };
    if name.len() <= NAME_MAX && name.split('/').all(fits) {
        return Ok(());
    }
    Err(BackendError::Refused {
        operation,
        name: name.into(),
        source: "not a name of an object".into(),
    })
}

/// As [`check_name`] for a prefix: empty for all, else a name and a slash.
fn check_prefix(prefix: &str) -> Result<(), BackendError> {
    match prefix.strip_suffix('/') {
        Some(folder) => check_name("list", folder),
        None if prefix.is_empty() => Ok(()),
        None => Err(BackendError::Refused {
            operation: "list",
            name: prefix.into(),
            source: "a prefix ends with a slash".into(),
        }),
    }
}

/// The length of a range, in memory.
fn range_length(name: &str, range: &Range<u64>) -> Result<usize, BackendError> {
    range
        .end
        .checked_sub(range.start)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or_else(|| BackendError::Refused {
            operation: "read",
            name: name.into(),
            source: format!("{}..{} is no range", range.start, range.end).into(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_leave_the_vault_are_refused() {
        for bad in [
            "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/./b", "a b", "a#1", "a\0", "ä", "a%2e",
        ] {
            assert!(check_name("put", bad).is_err(), "{bad:?} was taken");
        }
        assert!(check_name("put", &"a/".repeat(300)).is_err());
        assert!(check_name("put", &"a".repeat(256)).is_err());
        for good in ["a", "vault.pb", "packs/0f/12-34-ab/00000001", "...", "a-b.c/-"] {
            assert!(check_name("put", good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_prefix_ends_with_a_slash() {
        assert!(check_prefix("").is_ok());
        assert!(check_prefix("packs/").is_ok());
        for bad in ["packs", "/", "../", "packs//"] {
            assert!(check_prefix(bad).is_err(), "{bad:?} was taken");
        }
    }
}
