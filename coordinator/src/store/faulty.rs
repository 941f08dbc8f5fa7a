//! Tables that fail on purpose: for tests, of this crate and of those above it.
//!
//! Run a procedure once to learn how many writes it makes ([`Faults::writes`]), then once for each of them with [`Faults::fail_write`], so
//! that every step is the last one once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::encode::keys;
use super::tables::{Batch, Durability, Family, Op, Pair, Tables};

/// Tables whose faults are switched from outside.
#[derive(Debug)]
pub struct Faulty<T> {
    inner: T,
    faults: Faults,
}

/// The switches. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    switches: Arc<Mutex<Switches>>,
}

#[derive(Debug, Default)]
struct Switches {
    writes: u64,
    fail: Option<(u64, Failure)>,
    full: bool,
    unreadable: bool,
    lie: Option<Lie>,
    /// A sync that [`Lie::SyncsLate`] owes.
    owes_sync: bool,
}

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It did not happen.
    NotDone,
    /// It happened, and the caller is told that it failed.
    Done,
}

/// How a disk, or a program above it, breaks a promise without saying so. Simulations must notice each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Synced writes are not synced.
    ForgetsSyncs,
    /// A synced write is synced when the next one comes: as if messages were sent before what they promise is stored.
    SyncsLate,
    /// A vote that comes without entries is not stored.
    LosesVotes,
    /// Rows are stored without the commit index that they rely on.
    LosesCommits,
    /// Rows are stored without saying which entry they are from.
    LosesApplied,
}

impl Lie {
    /// What remains of a batch.
    fn tell(self, batch: Batch) -> Batch {
        let is_fact = |op: &Op, name: &[u8]| matches!(op, Op::Put { family: Family::Meta, key, .. } if key == name);
        let is_entry = |op: &Op| {
            matches!(
                op,
                Op::Put {
                    family: Family::Log,
                    ..
                }
            )
        };
        let is_apply = batch.ops().iter().any(|op| is_fact(op, keys::APPLIED));
        let has_entries = batch.ops().iter().any(is_entry);
        let lost = match self {
            Self::ForgetsSyncs | Self::SyncsLate => return batch,
            Self::LosesVotes if !is_apply && !has_entries => keys::HARD,
            Self::LosesCommits if is_apply => keys::HARD,
            Self::LosesApplied if is_apply => keys::APPLIED,
            Self::LosesVotes | Self::LosesCommits | Self::LosesApplied => return batch,
        };
        let mut left = Batch::default();
        for op in batch.into_ops().into_iter().filter(|op| !is_fact(op, lost)) {
            match op {
                Op::Put { family, key, value } => left.put(family, key, value),
                Op::Delete { family, key } => left.delete(family, key),
                Op::DeleteRange { family, from, to } => left.delete_range(family, from, to),
            }
        }
        left
    }
}

impl Faults {
    /// Writes asked for so far.
    pub fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Fails the `nth` write from now, 0 being the next one.
    pub fn fail_write(&self, nth: u64, failure: Failure) {
        let mut switches = self.lock();
        switches.fail = Some((switches.writes + nth, failure));
    }

    /// Whether a write failed because it was asked to.
    pub fn has_failed(&self) -> bool {
        let switches = self.lock();
        switches.full || switches.fail.is_some_and(|(at, _)| at < switches.writes)
    }

    /// Says of every write that the disk is full, or stops to.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Fails every read, or stops to.
    pub fn set_unreadable(&self, unreadable: bool) {
        self.lock().unreadable = unreadable;
    }

    /// Breaks a promise from now on, or none.
    pub fn set_lie(&self, lie: Option<Lie>) {
        self.lock().lie = lie;
    }

    fn lock(&self) -> MutexGuard<'_, Switches> {
        self.switches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Faulty<T> {
    /// Wraps tables.
    pub fn new(inner: T, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

fn disk(what: &'static str) -> StoreError {
    StoreError::Disk {
        what,
        source: "a fault was asked for".into(),
    }
}

impl<T: Tables> Tables for Faulty<T> {
    type View = T::View;

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let (full, failure, lie, owed) = {
            let mut switches = self.faults.lock();
            let number = switches.writes;
            switches.writes += 1;
            let failure = switches
                .fail
                .filter(|(at, _)| *at == number)
                .map(|(_, failure)| failure);
            let owed = std::mem::take(&mut switches.owes_sync);
            switches.owes_sync = switches.lie == Some(Lie::SyncsLate) && durability == Durability::Synced;
            (switches.full, failure, switches.lie, owed)
        };
        if full {
            return Err(StoreError::Full {
                what: "write",
                source: "a fault was asked for".into(),
            });
        }
        if failure == Some(Failure::NotDone) {
            return Err(disk("write"));
        }
        if owed {
            self.inner.write(Batch::default(), Durability::Synced)?;
        }
        let batch = match lie {
            Some(lie) => lie.tell(batch),
            None => batch,
        };
        let durability = match lie {
            Some(Lie::ForgetsSyncs | Lie::SyncsLate) => Durability::Later,
            _ => durability,
        };
        self.inner.write(batch, durability)?;
        match failure {
            Some(_) => Err(disk("write")),
            None => Ok(()),
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if self.faults.lock().unreadable {
            return Err(disk("read"));
        }
        self.inner.get(family, key)
    }

    fn scan(&self, family: Family, from: &[u8], bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        if self.faults.lock().unreadable {
            return Err(disk("read"));
        }
        self.inner.scan(family, from, bytes_max)
    }

    fn view(&self, family: Family) -> Result<T::View, StoreError> {
        if self.faults.lock().unreadable {
            return Err(disk("read"));
        }
        self.inner.view(family)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::store::memory::{Loss, Memory};

    crate::store::conformance::tables_suite!(|| ((), Faulty::new(Memory::new(), Faults::default())));

    fn one(key: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(Family::Meta, [key], [key]);
        batch
    }

    #[test]
    fn faults_come_when_asked_for() {
        let memory = Memory::new();
        let faults = Faults::default();
        let mut tables = Faulty::new(memory.clone(), faults.clone());
        let has = |tables: &Faulty<Memory>, key: u8| tables.get(Family::Meta, &[key]).unwrap().is_some();
        faults.fail_write(1, Failure::NotDone);
        tables.write(one(1), Durability::Synced).unwrap();
        assert!(tables.write(one(2), Durability::Synced).is_err() && !has(&tables, 2));
        faults.fail_write(0, Failure::Done);
        assert!(tables.write(one(3), Durability::Synced).is_err() && has(&tables, 3));
        faults.set_full(true);
        let error = tables.write(one(4), Durability::Synced).unwrap_err();
        assert!(matches!(error, StoreError::Full { .. }) && !has(&tables, 4));
        faults.set_full(false);
        faults.set_lie(Some(Lie::ForgetsSyncs));
        tables.write(one(5), Durability::Synced).unwrap();
        memory.crash(Loss::Everything);
        assert!(has(&tables, 3) && !has(&tables, 5));
        faults.set_lie(Some(Lie::SyncsLate));
        tables.write(one(6), Durability::Synced).unwrap();
        tables.write(one(7), Durability::Synced).unwrap();
        memory.crash(Loss::Everything);
        assert!(has(&tables, 6) && !has(&tables, 7));
        faults.set_unreadable(true);
        assert!(tables.get(Family::Meta, &[1]).is_err() && tables.scan(Family::Meta, &[], 1).is_err());
        assert_eq!(faults.writes(), 7);
    }
}
