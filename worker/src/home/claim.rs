//! The claim under which this home writes to a vault, and the machine on which it was made.
//!
//! A home that was copied would write under the claim of its original. Nothing in the vault would break by that (names hold random part ids,
//! and numbers seen in the vault are skipped), but each of both would go on without seeing what the other hides or removes. So the
//! machine's identity is compared, and on another one a person decides by `vault take-over`, which draws a new cluster id and fences the other.
//! A copy that looks the same (a cloned virtual machine) is found by what it did: numbers of our cluster in the vault that we never used.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tresor_storage::ids::{ClusterId, VaultId};
use tresor_storage::vault::claim::ListedClaim;

use super::files;
use crate::control::ControlError;

/// Where a home is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `/etc/machine-id`, empty where there is none: in a container the path alone must do, because host names change with every start there.
    pub machine: String,
    /// The home's folder, symbolic links resolved.
    pub folder: PathBuf,
}

impl Identity {
    /// That of a home here.
    ///
    /// # Errors
    /// When the folder is not there.
    pub fn here(home: &Path) -> Result<Self, ControlError> {
        let folder = home
            .canonicalize()
            .map_err(|e| files::trouble("could not find", home, e))?;
        let machine = std::fs::read_to_string("/etc/machine-id")
            .unwrap_or_default()
            .trim()
            .chars()
            .take(64)
            .collect();
        Ok(Self { machine, folder })
    }
}

/// The claim of this home on one vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeClaim {
    /// The vault.
    pub vault: VaultId,
    /// Number and cluster.
    pub listed: ListedClaim,
    /// Where it was made.
    pub identity: Identity,
    /// When, RFC 3339.
    pub since: String,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    vault: String,
    cluster: String,
    number: u64,
    machine: String,
    folder: PathBuf,
    since: String,
}

const VERSION: u32 = 1;

impl HomeClaim {
    /// Reads the claim; `None` when this home never claimed the vault.
    ///
    /// # Errors
    /// [`ControlError::Damaged`] when the file is none of a claim on this vault; others by cause.
    pub fn load(path: &Path, vault: VaultId) -> Result<Option<Self>, ControlError> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        let wrong = |why: String| files::damaged(path, why);
        let stored: Stored =
            serde_json::from_str(&text).map_err(|e| wrong(format!("not the file of a claim ({e})")))?;
        if stored.version != VERSION {
            return Err(wrong(format!(
                "claim file version {} is not known to this version",
                stored.version
            )));
        }
        if stored.vault != vault.to_string() {
            return Err(wrong(format!("is of vault {}", stored.vault)));
        }
        let cluster: ClusterId = stored.cluster.parse().map_err(|e| wrong(format!("{e}")))?;
        Ok(Some(Self {
            vault,
            listed: ListedClaim {
                number: stored.number,
                cluster,
            },
            identity: Identity {
                machine: stored.machine,
                folder: stored.folder,
            },
            since: stored.since,
        }))
    }

    /// Stores it durably.
    ///
    /// # Errors
    /// By cause.
    pub fn store(&self, path: &Path) -> Result<(), ControlError> {
        let stored = Stored {
            version: VERSION,
            vault: self.vault.to_string(),
            cluster: self.listed.cluster.to_string(),
            number: self.listed.number,
            machine: self.identity.machine.clone(),
            folder: self.identity.folder.clone(),
            since: self.since.clone(),
        };
        let text = serde_json::to_string_pretty(&stored)
            .map_err(|e| files::trouble("could not write", path, std::io::Error::other(e)))?;
        files::replace(path, text.as_bytes())
    }

    /// Refuses a home that is not where its claim was made.
    ///
    /// # Errors
    /// [`ControlError::Copied`].
    pub fn check_place(&self, here: &Identity) -> Result<(), ControlError> {
        if self.identity == *here {
            return Ok(());
        }
        let was = if self.identity.machine == here.machine {
            self.identity.folder.display().to_string()
        } else {
            format!("{} on another machine", self.identity.folder.display())
        };
        Err(ControlError::Copied {
            home: here.folder.display().to_string(),
            was,
        })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const VAULT: VaultId = VaultId([1; 16]);

    fn claim(folder: &Path) -> HomeClaim {
        HomeClaim {
            vault: VAULT,
            listed: ListedClaim {
                number: 3,
                cluster: ClusterId(u64::MAX),
            },
            identity: Identity {
                machine: "0123".into(),
                folder: folder.into(),
            },
            since: "2026-11-22T03:00:00Z".into(),
        }
    }

    #[test]
    fn a_claim_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claim");
        assert_eq!(HomeClaim::load(&path, VAULT).unwrap(), None);
        claim(dir.path()).store(&path).unwrap();
        assert_eq!(HomeClaim::load(&path, VAULT).unwrap(), Some(claim(dir.path())));
        assert!(HomeClaim::load(&path, VaultId([2; 16])).is_err());
    }

    #[test]
    fn a_damaged_claim_is_an_error_not_a_missing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("claim");
        claim(dir.path()).store(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        for damaged in [
            "",
            "{}",
            &text[..text.len() / 2],
            &text.replace("\"version\": 1", "\"version\": 9"),
        ] {
            std::fs::write(&path, damaged).unwrap();
            assert!(
                matches!(HomeClaim::load(&path, VAULT), Err(ControlError::Damaged { .. })),
                "{damaged}"
            );
        }
    }

    #[test]
    fn a_home_elsewhere_is_refused_and_told_where_it_was() {
        let claim = claim(Path::new("/a"));
        assert!(
            claim
                .check_place(&Identity {
                    machine: "0123".into(),
                    folder: "/a".into()
                })
                .is_ok()
        );
        let moved = claim
            .check_place(&Identity {
                machine: "0123".into(),
                folder: "/b".into(),
            })
            .unwrap_err();
        assert!(moved.to_string().contains("/a"), "{moved}");
        let copied = claim
            .check_place(&Identity {
                machine: "4567".into(),
                folder: "/a".into(),
            })
            .unwrap_err();
        assert!(copied.to_string().contains("another machine"), "{copied}");
    }
}
