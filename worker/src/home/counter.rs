//! The session counter of a vault in a home: a number is durably used up before it is used.
//!
//! What rests on it, and what does not. Names of objects are unique by the random part id that each process draws, so two sessions with one
//! number (a home rolled back to a snapshot, a lost counter, a home run twice) never write one name. The number only orders: sessions for
//! people, and the catalogues of one cluster, whose highest index counts. So it must be above what the vault shows of our cluster, and that
//! is what [`SessionCounter::raise`] is told at every opening for writing. A missing or damaged counter therefore starts from there and
//! fails nothing.

use std::path::{Path, PathBuf};

use tresor_storage::ids::{SessionId, hex};

use super::files;
use crate::control::ControlError;

/// Numbers above this are nobody's: a forged name in a store must not use up all that there are.
const SEEN_MAX: u64 = 1 << 62;

/// The counter, to be used under the vault's lock only.
#[derive(Debug)]
pub struct SessionCounter {
    path: PathBuf,
    last: u64,
    /// Whether the file was there and whole.
    pub was_kept: bool,
}

impl SessionCounter {
    /// Reads the counter; a missing or damaged one counts from 0.
    ///
    /// # Errors
    /// When the file is there and cannot be read for another reason.
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let text = match files::read(path) {
            Ok(text) => text,
            Err(ControlError::Damaged { .. }) => Some(String::new()),
            Err(e) => return Err(e),
        };
        let last = text.as_deref().and_then(parse);
        if last.is_none() && text.is_some() {
            tracing::warn!(path = %path.display(), "session counter is damaged and starts from what the vault shows");
        }
        Ok(Self {
            path: path.to_owned(),
            last: last.unwrap_or(0),
            was_kept: last.is_some(),
        })
    }

    /// The last number used up, 0 for none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Says that this number was used. Returns whether the counter did not know.
    pub fn raise(&mut self, seen: u64) -> bool {
        if seen > SEEN_MAX {
            return false;
        }
        let older = seen > self.last;
        self.last = self.last.max(seen);
        older
    }

    /// Uses up the next number: when this returns, no later opening of this home gives it again.
    ///
    /// # Errors
    /// When the file cannot be written; the number is then not given.
    pub fn use_up(&mut self) -> Result<SessionId, ControlError> {
        let next = self
            .last
            .checked_add(1)
            .ok_or_else(|| files::damaged(&self.path, "session numbers are used up"))?;
        files::replace(&self.path, render(next).as_bytes())?;
        self.last = next;
        Ok(SessionId(next))
    }
}

fn render(number: u64) -> String {
    format!("{number} {}\n", check(number))
}

fn parse(text: &str) -> Option<u64> {
    let (number, sum) = text.trim_end().split_once(' ')?;
    let number = number.parse().ok()?;
    (sum == check(number)).then_some(number)
}

/// A digit lost or flipped must not look like a number; this guards against accidents only.
fn check(number: u64) -> String {
    let mixed = number
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hex(&mixed.to_be_bytes()[..4])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_used_up_before_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        let mut counter = SessionCounter::open(&path).unwrap();
        assert!(!counter.was_kept);
        assert_eq!(counter.use_up().unwrap(), SessionId(1));
        let mut again = SessionCounter::open(&path).unwrap();
        assert!(again.was_kept);
        assert_eq!(again.last(), 1);
        assert_eq!(again.use_up().unwrap(), SessionId(2));
    }

    #[test]
    fn a_number_that_cannot_be_stored_is_not_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gone/session");
        let mut counter = SessionCounter::open(&path).unwrap();
        assert!(counter.use_up().is_err());
        assert_eq!(counter.last(), 0);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert_eq!(counter.use_up().unwrap(), SessionId(1));
    }

    #[test]
    fn a_damaged_counter_starts_from_what_the_vault_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("session");
        for text in ["", "17", "17 00000000\n", "x", "-1 0", "\u{fffd}"] {
            std::fs::write(&path, text).unwrap();
            let mut counter = SessionCounter::open(&path).unwrap();
            assert_eq!((counter.last(), counter.was_kept), (0, false), "{text:?}");
            assert!(counter.raise(41));
            assert_eq!(counter.use_up().unwrap(), SessionId(42));
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(SessionCounter::open(&path).unwrap().last(), 0);
    }

    #[test]
    fn a_counter_that_knows_more_than_the_vault_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut counter = SessionCounter::open(&dir.path().join("session")).unwrap();
        counter.use_up().unwrap();
        counter.use_up().unwrap();
        assert!(!counter.raise(1));
        assert!(!counter.raise(u64::MAX), "no honest counter gets there");
        assert_eq!(counter.last(), 2);
    }
}
