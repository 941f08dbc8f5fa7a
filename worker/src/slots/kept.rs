//! Which life of this worker used the databases of its slots last: what it says when it registers, so that it keeps what it has.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::agent::port::Life;
use crate::control::ControlError;
use crate::home::files;

/// A file of a worker's folder: the life, written after every database of the folder has it.
#[derive(Debug)]
pub(crate) struct Kept {
    path: PathBuf,
    life: Mutex<Option<Life>>,
}

impl Kept {
    /// Reads it. What cannot be read is none: everything is then made anew.
    pub(crate) fn open(folder: &Path) -> Self {
        let path = folder.join("life");
        let life = match files::read(&path) {
            Ok(text) => text.and_then(|text| tresor_storage::ids::unhex(text.trim())).map(Life),
            Err(error) => {
                tracing::warn!(%error, "who used the index of slots last cannot be read: it is made anew");
                None
            }
        };
        Self {
            path,
            life: Mutex::new(life),
        }
    }

    pub(crate) fn life(&self) -> Option<Life> {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it is this one. Durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn set(&self, life: Life) -> Result<(), ControlError> {
        files::replace(&self.path, life.to_string().as_bytes())?;
        *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_remembered_and_nonsense_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept::open(folder.path());
        assert_eq!(kept.life(), None);
        let life = Life::random();
        kept.set(life).unwrap();
        assert_eq!(kept.life(), Some(life));
        assert_eq!(Kept::open(folder.path()).life(), Some(life));
        std::fs::write(folder.path().join("life"), "nonsense").unwrap();
        assert_eq!(Kept::open(folder.path()).life(), None);
    }
}
