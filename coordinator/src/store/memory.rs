//! Tables in memory that lose what was not synced: for simulations, which crash them by the thousand.
//!
//! Clones share the tables, so that whoever simulates keeps a clone beside the store that owns the other, and cuts the power with
//! [`Memory::crash`]. After that, what the store still believes is wrong; drop it and open another.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::tables::{Batch, Durability, Family, Op, Pair, Tables, View};

type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// Tables in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    /// What reads see. Shared with views, and copied by the first write after one was taken.
    current: [Arc<Table>; 4],
    /// What survives a crash for sure.
    durable: [Table; 4],
    /// Written since the last sync, oldest first.
    unsynced: VecDeque<Batch>,
    counters: Counters,
}

/// What was asked of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Batches written.
    pub writes: u64,
    /// Batches written that had to survive.
    pub syncs: u64,
    /// Crashes.
    pub crashes: u64,
}

/// What a crash leaves of the writes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing.
    Everything,
    /// The oldest of them, this many: the cache was partly written out.
    AllBut(usize),
    /// As [`Self::AllBut`], and of the next batch its first operations, this many. A database with a log does not do this; opening must
    /// notice it all the same, because disks do.
    Torn {
        /// Whole batches that survive.
        batches: usize,
        /// Operations of the next one that do.
        ops: usize,
    },
}

impl Memory {
    /// Empty tables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power.
    pub fn crash(&self, loss: Loss) {
        let mut disk = self.lock();
        let (batches, ops) = match loss {
            Loss::Everything => (0, 0),
            Loss::AllBut(batches) => (batches, 0),
            Loss::Torn { batches, ops } => (batches, ops),
        };
        let mut lost = std::mem::take(&mut disk.unsynced).into_iter();
        for batch in lost.by_ref().take(batches) {
            for op in batch.into_ops() {
                perform(&mut disk.durable, op);
            }
        }
        for op in lost.next().into_iter().flat_map(Batch::into_ops).take(ops) {
            perform(&mut disk.durable, op);
        }
        disk.current = disk.durable.clone().map(Arc::new);
        disk.counters.crashes += 1;
    }

    /// Copies of the tables as they would be after a crash that takes nothing; not shared with these.
    pub fn fork(&self) -> Self {
        let current = self.lock().current.clone();
        let durable = current.clone().map(|table| (*table).clone());
        let disk = Disk {
            current,
            durable,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// Batches that a crash may take.
    pub fn unsynced(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// What was asked of them so far.
    pub fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// Changes a value behind the owner's back, as a failing disk does.
    pub fn damage(&self, family: Family, key: &[u8], change: impl Fn(&mut Vec<u8>)) {
        let mut disk = self.lock();
        let Disk { current, durable, .. } = &mut *disk;
        for table in [
            Arc::make_mut(&mut current[family as usize]),
            &mut durable[family as usize],
        ] {
            if let Some(value) = table.get_mut(key) {
                change(value);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        // Nothing below leaves the tables half changed.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn perform<T: AsTable>(tables: &mut [T; 4], op: Op) {
    match op {
        Op::Put { family, key, value } => {
            tables[family as usize].table().insert(key, value);
        }
        Op::Delete { family, key } => {
            tables[family as usize].table().remove(&key);
        }
        Op::DeleteRange { family, from, to } => {
            let table = tables[family as usize].table();
            if from < to {
                let gone: Vec<Vec<u8>> = table.range(from..to).map(|(key, _)| key.clone()).collect();
                for key in gone {
                    table.remove(&key);
                }
            }
        }
    }
}

trait AsTable {
    fn table(&mut self) -> &mut Table;
}

impl AsTable for Table {
    fn table(&mut self) -> &mut Table {
        self
    }
}

impl AsTable for Arc<Table> {
    fn table(&mut self) -> &mut Table {
        Arc::make_mut(self)
    }
}

impl Tables for Memory {
    type View = MemoryView;

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut disk = self.lock();
        disk.counters.writes += 1;
        for op in batch.ops() {
            perform(&mut disk.current, op.clone());
        }
        disk.unsynced.push_back(batch);
        if durability == Durability::Synced {
            disk.counters.syncs += 1;
            for batch in std::mem::take(&mut disk.unsynced) {
                for op in batch.into_ops() {
                    perform(&mut disk.durable, op);
                }
            }
        }
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().current[family as usize].get(key).cloned())
    }

    fn scan(&self, family: Family, from: &[u8], bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        Ok(read(
            &self.lock().current[family as usize],
            Bound::Included(from),
            bytes_max,
        ))
    }

    fn view(&self, family: Family) -> Result<MemoryView, StoreError> {
        Ok(MemoryView {
            table: Arc::clone(&self.lock().current[family as usize]),
            last: None,
        })
    }
}

fn read(table: &Table, from: Bound<&[u8]>, bytes_max: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    let mut bytes = 0;
    for (key, value) in table.range::<[u8], _>((from, Bound::Unbounded)) {
        bytes += key.len() + value.len();
        if bytes > bytes_max && !pairs.is_empty() {
            break;
        }
        pairs.push((key.clone(), value.clone()));
    }
    pairs
}

/// A table in memory as it was.
#[derive(Debug)]
pub struct MemoryView {
    table: Arc<Table>,
    last: Option<Vec<u8>>,
}

impl View for MemoryView {
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let from = self.last.as_deref().map_or(Bound::Included(&[][..]), Bound::Excluded);
        let pairs = read(&self.table, from, bytes_max);
        if let Some((key, _)) = pairs.last() {
            self.last = Some(key.clone());
        }
        Ok(pairs)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    crate::store::conformance::tables_suite!(|| ((), Memory::new()));

    fn one(key: u8) -> Batch {
        let mut batch = Batch::default();
        batch.put(Family::Log, [key], [key]);
        batch.put(Family::Meta, [key], [key]);
        batch
    }

    fn keys(memory: &Memory, family: Family) -> Vec<u8> {
        let pairs = memory.scan(family, &[], usize::MAX).unwrap();
        pairs.into_iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn a_crash_takes_what_was_not_synced_and_nothing_else() {
        let mut memory = Memory::new();
        memory.write(one(1), Durability::Later).unwrap();
        memory.write(one(2), Durability::Synced).unwrap();
        memory.write(one(3), Durability::Later).unwrap();
        memory.write(one(4), Durability::Later).unwrap();
        assert_eq!(keys(&memory, Family::Log), [1, 2, 3, 4]);
        let other = memory.clone();
        other.crash(Loss::AllBut(1));
        assert_eq!(keys(&memory, Family::Log), [1, 2, 3]);
        // What survived one crash survives the next.
        memory.write(one(5), Durability::Later).unwrap();
        other.crash(Loss::Everything);
        assert_eq!(keys(&memory, Family::Log), [1, 2, 3]);
        memory.write(one(6), Durability::Later).unwrap();
        other.crash(Loss::Torn { batches: 0, ops: 1 });
        assert_eq!(keys(&memory, Family::Log), [1, 2, 3, 6]);
        assert_eq!(keys(&memory, Family::Meta), [1, 2, 3]);
        assert_eq!(memory.counters().crashes, 3);
    }
}
