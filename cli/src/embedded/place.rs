//! Where the node of a home is, and whose it is at the moment.

use std::fs::DirBuilder;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tresor_coordinator::process::Folder;
use tresor_worker::control::ControlError;
use tresor_worker::home::claim::Identity;
use tresor_worker::home::lock::{Holder, Lock};

use crate::error::CliError;

/// What a process that serves a node runs.
pub(super) const START: &str = "node start";
/// What goes with a node that is removed, for hints.
pub(crate) const GOES_WITH_IT: &str =
    "policies, items, jobs and the audit trail go with it, points, holds and keys do not";

/// Whether who holds the lock, by the words of the lock, serves the node until it is stopped, and not for one command.
pub(super) fn serves_on(holder: &str) -> bool {
    holder.contains(&format!("`tresor {START}`"))
}

/// Where the node of a home is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: PathBuf,
}

impl Place {
    /// In this home.
    pub(crate) fn of(home: &Path) -> Self {
        Self {
            root: home.join("node"),
        }
    }

    pub(crate) fn coordinator(&self) -> Folder {
        Folder::new(self.root.join("coordinator"))
    }

    pub(super) fn worker(&self) -> PathBuf {
        self.root.join("worker")
    }

    /// The chunk indexes of its worker, a folder for each vault.
    pub(crate) fn indexes(&self) -> PathBuf {
        self.worker().join("index")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("socket")
    }

    /// Makes the node's folder, which nobody else may enter.
    pub(super) fn prepare(&self) -> Result<(), CliError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.root);
        made.map_err(|source| CliError::File {
            doing: "make",
            path: self.root.clone(),
            source,
        })
    }

    /// Writes down where the node was made.
    pub(super) fn settle_in(&self) -> Result<(), CliError> {
        let path = self.root.join("place");
        let beside = self.root.join(".place.new");
        let write = || {
            // Durable before anything else of the node is: without it the node would be taken for a copy's.
            let mut file = std::fs::File::create(&beside)?;
            file.write_all(self.here().map_err(std::io::Error::other)?.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, &path)?;
            std::fs::File::open(&self.root)?.sync_all()
        };
        write().map_err(|source: std::io::Error| CliError::File {
            doing: "write",
            path: path.clone(),
            source,
        })
    }

    /// Refuses a home that was copied with its node: both would write under one claim, with one set of numbers.
    pub(crate) fn check(&self) -> Result<(), CliError> {
        let path = self.root.join("place");
        let was = match std::fs::read_to_string(&path) {
            Ok(was) => was,
            // A copy has it. A node that was being made when the power went has not.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(CliError::File {
                    doing: "read",
                    path,
                    source,
                });
            }
        };
        if was.is_empty() {
            return self.settle_in();
        }
        if was == self.here()? {
            return Ok(());
        }
        Err(CliError::usage_hint(
            "this home is a copy, or was moved: its node was made elsewhere",
            format!(
                "if the other is gone for good, remove {} ({GOES_WITH_IT}), and the next tresor node start takes the vaults over anew",
                self.root.display()
            ),
        ))
    }

    fn here(&self) -> Result<String, CliError> {
        let identity = Identity::here(&self.root)?;
        Ok(format!("{}\n{}\n", identity.machine, identity.folder.display()))
    }

    /// Takes the node's lock for a verb, without waiting.
    ///
    /// # Errors
    /// [`ControlError::Busy`] with the holder; others by cause.
    pub(crate) fn take(&self, verb: &str) -> Result<Lock, ControlError> {
        Lock::take(&self.root.join("lock"), &Holder::this(verb), Duration::ZERO)
    }
}
