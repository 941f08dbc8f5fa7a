//! Filling slots that were begun with what a rebuild finds, while sessions insert into them.
//!
//! All of it follows one rule, [`decide_fill`], under the write lock, so an insert that comes while a slot is filled is neither lost nor
//! overwritten: the fill finds it there, or it finds the fill. Nothing is synced before [`RocksIndex::complete_slots`], since until
//! then the slots are begun anew after a crash or filled again, which changes nothing that is right.
//!
//! A checkpoint's entries come sorted and mostly into emptiness, so they are written as a sorted file which RocksDB takes in whole: no log, no
//! memtable, no compaction. Such a file would lie *over* what is there. So the ids that are there are left out of it (and go the ordinary way),
//! and whether there are more by now is looked up again under the lock.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rocksdb::{IngestExternalFileOptions, IteratorMode, ReadOptions, SstFileWriter, WriteBatch, WriteOptions};

use super::open::{family, io_trouble, trouble};
use super::options::{self, CHUNKS};
use super::slots::groups_within;
use super::writers::Numbering;
use super::{RocksIndex, Shared, WRITE_BATCH, WriteState};
use crate::ids::{ChunkId, PackId, Writer};
use crate::index::IndexError;
use crate::index::entry::{Found, Row, decide_fill};
use crate::index::slot::{SlotSet, slot_of};

/// Entries of one sorted file: 34 MB, and 42 MB in memory while they come together. Smaller files would be too many to be all open.
pub const FILE_ENTRIES: usize = 1 << 19;
/// Fewer than these go the ordinary way: a file costs some syncs. (Tests take it with a few.)
const FILE_ENTRIES_MIN: usize = if cfg!(test) { 8 } else { 4096 };
/// A file of which more than one entry in so many is there already is not worth making.
const THERE_MAX: usize = 4;
/// What files being made are called, in the database's folder.
const FILE_PREFIX: &str = "filling-";

/// The right to fill slots: those that were begun and not completed when it was given out. What it says of a slot that was begun anew since then
/// is not taken.
#[derive(Clone)]
pub struct Filling {
    index: RocksIndex,
    generations: Arc<BTreeMap<u16, u32>>,
}

impl std::fmt::Debug for Filling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filling")
            .field("slots", &self.slots())
            .finish_non_exhaustive()
    }
}

impl RocksIndex {
    /// Starts to fill those of `slots` that are begun and not complete.
    pub fn filling(&self, slots: &SlotSet) -> Filling {
        let table = self.shared.table();
        let asked = table
            .slots
            .iter()
            .filter(|(slot, held)| slots.contains(**slot) && !held.row.complete);
        let generations = asked.map(|(slot, held)| (*slot, held.generation)).collect();
        Filling {
            index: self.clone(),
            generations: Arc::new(generations),
        }
    }
}

impl Filling {
    /// The slots that it fills.
    pub fn slots(&self) -> SlotSet {
        self.generations.keys().copied().collect()
    }

    /// Adds entries in any order; those of other slots are passed over.
    ///
    /// # Errors
    /// When the database cannot take them.
    pub async fn add(&self, entries: Vec<Found>) -> Result<(), IndexError> {
        let generations = Arc::clone(&self.generations);
        self.index
            .run(move |shared| {
                let mut state = shared.lock();
                shared.fill(&mut state, &generations, &entries)
            })
            .await
    }

    /// Adds entries whose ids ascend, fast where there are few yet; those of other slots are passed over. Best given some
    /// [`FILE_ENTRIES`] at once.
    ///
    /// # Errors
    /// When the database cannot take them.
    ///
    /// # Panics
    /// When they do not ascend.
    pub async fn add_sorted(&self, entries: Vec<Found>) -> Result<(), IndexError> {
        let generations = Arc::clone(&self.generations);
        self.index
            .run(move |shared| shared.fill_sorted(&generations, entries))
            .await
    }

    /// Says that all pieces of these packs that fall to the slots being filled were added.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn add_packs(&self, packs: Vec<PackId>) -> Result<(), IndexError> {
        let generations = Arc::clone(&self.generations);
        self.index
            .run(move |shared| {
                for packs in packs.chunks(WRITE_BATCH) {
                    let mut state = shared.lock();
                    let filled = shared.still(&generations);
                    let generations = shared.table().generations();
                    for (generation, slots) in generations {
                        let groups = groups_within(&slots, &filled);
                        let rows = packs.iter().map(|pack| (generation, *pack, groups));
                        shared.add_packs(&mut state, rows)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

impl Shared {
    /// Of these slots, those that were not begun anew. Only the holder of the write lock can rely on it.
    fn still(&self, generations: &BTreeMap<u16, u32>) -> SlotSet {
        let table = self.table();
        let is_same = |(slot, generation): (&u16, &u32)| {
            let held = table.slots.get(slot).filter(|held| held.generation == *generation);
            held.map(|_| *slot)
        };
        generations.iter().filter_map(is_same).collect()
    }

    fn fill(
        &self,
        state: &mut WriteState,
        generations: &BTreeMap<u16, u32>,
        entries: &[Found],
    ) -> Result<(), IndexError> {
        let slots = self.still(generations);
        let ours: Vec<Found> = entries
            .iter()
            .filter(|found| slots.contains(slot_of(&found.id)))
            .copied()
            .collect();
        for batch in ours.chunks(WRITE_BATCH) {
            let ids: Vec<ChunkId> = batch.iter().map(|found| found.id).collect();
            // Another's acknowledgement may rest on an entry that is written here: it finds it good and has nothing to write.
            state.unsynced = true;
            self.change(state, &ids, |at, existing| {
                let after = Some(decide_fill(existing, &batch[at]));
                after.filter(|_| after != existing)
            })?;
        }
        Ok(())
    }

    fn fill_sorted(&self, generations: &BTreeMap<u16, u32>, mut entries: Vec<Found>) -> Result<(), IndexError> {
        assert!(
            entries.is_sorted_by(|a, b| a.id < b.id),
            "a file takes its entries in their order"
        );
        entries.retain(|found| generations.contains_key(&slot_of(&found.id)));
        // One file may span slots that are not here, where there is nothing, but none that is here and not filled: that one is full of
        // entries, which would all have to be looked at.
        let others: SlotSet = {
            let table = self.table();
            let other = |slot: &&u16| !generations.contains_key(*slot);
            table.slots.keys().filter(other).copied().collect()
        };
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            let first = slot_of(&first.id);
            let end = (first..).find(|slot| others.contains(*slot) || *slot >= crate::index::slot::SLOTS);
            let length = rest.partition_point(|found| Some(slot_of(&found.id)) < end);
            let (run, after) = rest.split_at(length);
            rest = after;
            for run in run.chunks(FILE_ENTRIES) {
                self.fill_run(generations, run)?;
            }
        }
        Ok(())
    }

    fn fill_run(&self, generations: &BTreeMap<u16, u32>, run: &[Found]) -> Result<(), IndexError> {
        let there = self.there(run)?;
        if run.len() < FILE_ENTRIES_MIN || there.len() > run.len() / THERE_MAX {
            return self.fill(&mut self.lock(), generations, run);
        }
        let numbers = self.number_all(run)?;
        let file = self.make_file(run, &there, &numbers)?;
        let mut state = self.lock();
        let filled = self.still(generations);
        if !run.iter().all(|found| filled.contains(slot_of(&found.id))) {
            // Begun anew or dropped meanwhile: what is left goes the ordinary way.
            return self.fill(&mut state, generations, run);
        }
        let now_there = self.there(run)?;
        if now_there.len() > run.len() / THERE_MAX {
            return self.fill(&mut state, generations, run);
        }
        let file = if now_there == there {
            file
        } else {
            // Sessions inserted meanwhile. They wait while the file is made again without those.
            drop(file);
            self.make_file(run, &now_there, &numbers)?
        };
        self.take_file(&file, run.len() - now_there.len())?;
        let mut aside = now_there.iter().peekable();
        let aside: Vec<Found> = run
            .iter()
            .filter(|found| {
                while aside.next_if(|id| **id < found.id).is_some() {}
                aside.peek().is_some_and(|id| **id == found.id)
            })
            .copied()
            .collect();
        self.fill(&mut state, generations, &aside)
    }

    /// Ids that the run has and the database too.
    fn there(&self, run: &[Found]) -> Result<Vec<ChunkId>, IndexError> {
        let (Some(first), Some(last)) = (run.first(), run.last()) else {
            return Ok(Vec::new());
        };
        let db = &self.opened.db;
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_iterate_lower_bound(first.id.0);
        let mut behind = last.id.0.to_vec();
        behind.push(0);
        read.set_iterate_upper_bound(behind);
        let mut there = Vec::new();
        let mut rest = run;
        for row in db.iterator_cf_opt(family(db, CHUNKS), read, IteratorMode::Start) {
            let (key, _) = row.map_err(|e| trouble("read entries", e))?;
            let id = ChunkId::from_slice(&key).map_err(|_| IndexError::Malformed)?;
            rest = &rest[rest.partition_point(|found| found.id < id)..];
            if rest.first().is_some_and(|found| found.id == id) {
                there.push(id);
            }
        }
        Ok(there)
    }

    /// The numbers of all writers of a run, durable: a file's rows must not name any that a crash takes back.
    fn number_all(&self, run: &[Found]) -> Result<HashMap<Writer, u32>, IndexError> {
        let db = &self.opened.db;
        let mut state = self.lock();
        let mut batch = WriteBatch::default();
        let mut numbering = Numbering::new(&self.writers, state.next_number);
        let mut numbers = HashMap::new();
        for found in run {
            let writer = found.location.pack.writer;
            if let Entry::Vacant(number) = numbers.entry(writer) {
                number.insert(numbering.number(db, &mut batch, writer)?);
            }
        }
        if !batch.is_empty() {
            let mut options = WriteOptions::default();
            options.disable_wal(!state.logged);
            state.unsynced = true;
            db.write_opt(batch, &options).map_err(|e| trouble("write writers", e))?;
        }
        state.next_number = numbering.written();
        // Also when none is new: one may have come with a batch that is not synced yet.
        self.sync(&mut state)?;
        Ok(numbers)
    }

    fn make_file(
        &self,
        run: &[Found],
        without: &[ChunkId],
        numbers: &HashMap<Writer, u32>,
    ) -> Result<FileMade, IndexError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = FileMade(self.opened.db.path().join(format!("{FILE_PREFIX}{number}")));
        let options = options::chunks(&self.opened.cache);
        let mut writer = SstFileWriter::create(&options);
        writer.open(&file.0).map_err(|e| trouble("begin a file", e))?;
        let mut without = without.iter().peekable();
        for found in run {
            if without.next_if(|id| **id == found.id).is_some() {
                continue;
            }
            let entry = decide_fill(None, found);
            let row = Row::new(&entry, numbers[&found.location.pack.writer]);
            writer
                .put(found.id.0, row.encode())
                .map_err(|e| trouble("write a file", e))?;
        }
        writer.finish().map_err(|e| trouble("finish a file", e))?;
        Ok(file)
    }

    /// Lets the database take a file in, durable at once.
    fn take_file(&self, file: &FileMade, entries: usize) -> Result<(), IndexError> {
        let db = &self.opened.db;
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        db.ingest_external_file_cf_opts(family(db, CHUNKS), &options, vec![&file.0])
            .map_err(|e| trouble("take a file in", e))?;
        self.rows_written.fetch_add(entries as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// A file of our own in the database's folder, removed unless the database took it.
struct FileMade(PathBuf);

impl Drop for FileMade {
    fn drop(&mut self) {
        // The next opening tries again.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what a crash left of files being made.
pub(super) fn clear(path: &Path) -> Result<(), IndexError> {
    let clear = || -> io::Result<()> {
        for file in fs::read_dir(path)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(FILE_PREFIX) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    };
    clear().map_err(|e| io_trouble("clear the folder", e))
}

#[cfg(test)]
mod tests;
