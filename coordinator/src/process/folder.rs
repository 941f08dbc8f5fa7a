//! The folder of a coordinator.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tresor_proto::tls::{Identity, IdentityError};

use crate::security::{ClusterKey, WrapError};

/// Why a coordinator's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system.
    #[error("{what} {}", path.display())]
    Io {
        /// `make`, …
        what: &'static str,
        /// What.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is a coordinator in it.
    #[error("there is a coordinator in {} already", path.display())]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// Making a coordinator in it was cut short.
    #[error("{} has a part of a coordinator, whose making was cut short", path.display())]
    HalfMade {
        /// The folder.
        path: PathBuf,
    },
    /// There is none.
    #[error("there is no coordinator in {}", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Its identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its cluster key.
    #[error(transparent)]
    Key(#[from] WrapError),
}

/// The folder of a coordinator.
#[derive(Debug, Clone)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// At this path, whether it is there or not.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.root
    }

    pub(super) fn identity_path(&self) -> PathBuf {
        self.root.join("identity")
    }

    pub(super) fn key_path(&self) -> PathBuf {
        self.root.join("cluster.key")
    }

    pub(super) fn raft_path(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// Whether a coordinator is in it.
    ///
    /// # Errors
    /// [`FolderError::Identity`] for an identity that cannot be read.
    pub fn is_made(&self) -> Result<bool, FolderError> {
        Ok(Identity::load(&self.identity_path())?.is_some())
    }

    /// Prepares an empty folder.
    pub(super) fn prepare(&self) -> Result<(), FolderError> {
        if self.is_made()? {
            return Err(FolderError::Taken {
                path: self.root.clone(),
            });
        }
        if self.key_path().exists() || self.raft_path().exists() {
            return Err(FolderError::HalfMade {
                path: self.root.clone(),
            });
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        made.map_err(|source| FolderError::Io {
            what: "make",
            path: self.root.clone(),
            source,
        })
    }

    /// Makes room for a coordinator where there are parts of one without an identity, as a making that was cut short leaves them: it writes the identity
    /// last. Who lost the identity in another way has their only copy of the state here, so nothing is removed: it is moved into a folder beside, which is
    /// returned.
    ///
    /// # Errors
    /// By cause; [`FolderError::Taken`] where a coordinator is made.
    pub fn set_half_made_aside(&self) -> Result<Option<PathBuf>, FolderError> {
        if self.is_made()? {
            return Err(FolderError::Taken {
                path: self.root.clone(),
            });
        }
        let parts: Vec<PathBuf> = [self.raft_path(), self.key_path()]
            .into_iter()
            .filter(|path| path.exists())
            .collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { what, path, source }
        };
        let mut number = 1_u64;
        let aside = loop {
            let aside = self.root.join(format!("half-made-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&aside) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
                made => {
                    made.map_err(failed("make", &aside))?;
                    break aside;
                }
            }
        };
        for part in parts {
            let name = part.file_name().expect("both have names");
            fs::rename(&part, aside.join(name)).map_err(failed("move", &part))?;
        }
        Ok(Some(aside))
    }

    /// Who the coordinator in it is.
    ///
    /// # Errors
    /// [`FolderError::Empty`]; others by cause.
    pub fn identity(&self) -> Result<Identity, FolderError> {
        Identity::load(&self.identity_path())?.ok_or_else(|| FolderError::Empty {
            path: self.root.clone(),
        })
    }

    pub(super) fn key(&self) -> Result<ClusterKey, FolderError> {
        Ok(ClusterKey::load(&self.key_path())?)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_has_lost_its_identity_is_moved_aside_and_never_removed() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::new(root.path());
        assert_eq!(folder.set_half_made_aside().unwrap(), None);
        for round in 1..=2 {
            fs::create_dir(folder.raft_path()).unwrap();
            fs::write(folder.raft_path().join("log"), format!("state {round}")).unwrap();
            fs::write(folder.key_path(), format!("key {round}")).unwrap();
            let aside = folder.set_half_made_aside().unwrap().unwrap();
            assert!(!folder.raft_path().exists() && !folder.key_path().exists());
            let read = |name: &str| fs::read_to_string(aside.join(name)).unwrap();
            assert_eq!(
                (read("raft/log"), read("cluster.key")),
                (format!("state {round}"), format!("key {round}"))
            );
            folder.prepare().unwrap();
        }
        assert!(fs::exists(root.path().join("half-made-1/raft/log")).unwrap());
    }
}
