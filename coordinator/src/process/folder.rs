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

    /// Removes what a making that was cut short left: the identity is written last, so that nobody was told of what is here without one.
    ///
    /// # Errors
    /// By cause; [`FolderError::Taken`] where a coordinator is made.
    pub fn clear_half_made(&self) -> Result<(), FolderError> {
        if self.is_made()? {
            return Err(FolderError::Taken {
                path: self.root.clone(),
            });
        }
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io {
                what: "remove",
                path,
                source,
            }
        };
        if self.raft_path().exists() {
            fs::remove_dir_all(self.raft_path()).map_err(failed(&self.raft_path()))?;
        }
        if self.key_path().exists() {
            fs::remove_file(self.key_path()).map_err(failed(&self.key_path()))?;
        }
        Ok(())
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
