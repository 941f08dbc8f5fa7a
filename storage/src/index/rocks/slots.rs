//! Which slots this database answers for: since which grant, whether their rebuild is complete, and in which generation they were begun.
//!
//! Slots that are begun together are a *generation*, numbered by this database. What is remembered of packs (`packs`) is remembered of a
//! generation's slots, so that a slot which moves in later makes nothing untrue that was written before it came: it has another generation, and
//! of that one nothing is known yet. A slot that goes makes what is known of the others no less true.
//!
//! The table is in memory whole (4096 rows at most) and changed by the holder of the write lock alone, after its batch is synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{RwLockReadGuard, RwLockWriteGuard};

use rocksdb::{DB, IteratorMode, WriteBatch, WriteOptions};

use super::open::{family, trouble};
use super::options::{CHUNKS, META, PACKS, SLOTS};
use super::{RocksIndex, Shared, WriteState};
use crate::index::IndexError;
use crate::index::slot::{SlotSet, keys_of};

const LIFE_KEY: &[u8] = b"life";

/// A slot as this database has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRow {
    /// The first grant since which its entries are whole and ours, without a break.
    pub since: u64,
    /// Whether all that was there before that grant is in it by now.
    pub complete: bool,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) row: SlotRow,
    pub(super) generation: u32,
}

/// All slots that are held.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) slots: BTreeMap<u16, Held>,
    /// The generation that others are being joined into, and their groups. Inserts write it like those in use.
    pub(super) joining: Option<(u32, u64)>,
    /// No generation from here on was ever used, so none has rows of packs.
    pub(super) next_generation: u32,
}

impl Table {
    /// Reads it, and clears what an interrupted joining left.
    pub(super) fn load(db: &DB) -> Result<Self, IndexError> {
        let mut table = Self::default();
        for row in db.iterator_cf(family(db, SLOTS), IteratorMode::Start) {
            let (key, row) = row.map_err(|e| trouble("read slots", e))?;
            let key: [u8; 2] = key.as_ref().try_into().map_err(|_| IndexError::Malformed)?;
            let held = decode(&row).ok_or(IndexError::Malformed)?;
            table.slots.insert(u16::from_be_bytes(key), held);
        }
        let used: BTreeSet<u32> = table.slots.values().map(|held| held.generation).collect();
        table.next_generation = used.last().map_or(Ok(0), |last| after(*last))?;
        // Rows of generations that no slot has: they would come to mean something when their number is used again.
        let mut from = 0;
        for generation in used.into_iter().map(Some).chain([None]) {
            let (start, end) = (generation_key(from), generations_end(generation));
            let mut stale = db.iterator_cf(
                family(db, PACKS),
                IteratorMode::From(&start, rocksdb::Direction::Forward),
            );
            let first = stale.next().transpose().map_err(|e| trouble("read packs", e))?;
            if first.is_some_and(|(key, _)| key.as_ref() < end.as_slice()) {
                db.delete_range_cf(family(db, PACKS), start.as_slice(), end.as_slice())
                    .map_err(|e| trouble("clear packs", e))?;
            }
            from = generation.map_or(Ok(0), after)?;
        }
        Ok(table)
    }

    /// Generations in use, and their slots.
    pub(super) fn generations(&self) -> BTreeMap<u32, SlotSet> {
        let mut generations: BTreeMap<u32, SlotSet> = BTreeMap::new();
        for (slot, held) in &self.slots {
            generations.entry(held.generation).or_default().insert(*slot);
        }
        generations
    }

    /// What an insert of whole packs must be noted in: generations and the groups in which they have slots.
    pub(super) fn noted_in(&self) -> BTreeMap<u32, u64> {
        let of = |(generation, slots): (u32, SlotSet)| (generation, slots.groups());
        let mut noted: BTreeMap<u32, u64> = self.generations().into_iter().map(of).collect();
        noted.extend(self.joining);
        noted
    }

    /// A generation that never was.
    pub(super) fn take_generation(&mut self) -> Result<u32, IndexError> {
        let generation = self.next_generation;
        self.next_generation = after(generation)?;
        Ok(generation)
    }
}

fn after(generation: u32) -> Result<u32, IndexError> {
    // Four thousand million grants; a rebuild begins at 0 again.
    generation.checked_add(1).ok_or(IndexError::Malformed)
}

/// Where rows of packs of a generation begin.
pub(super) fn generation_key(generation: u32) -> Vec<u8> {
    generation.to_be_bytes().to_vec()
}

/// Where rows of packs of generations before this one end; without one, all.
pub(super) fn generations_end(next: Option<u32>) -> Vec<u8> {
    next.map_or(vec![u8::MAX; 5], |next| next.to_be_bytes().to_vec())
}

pub(super) fn encode(held: &Held) -> [u8; 13] {
    let mut bytes = [0; 13];
    bytes[..8].copy_from_slice(&held.row.since.to_le_bytes());
    bytes[8..12].copy_from_slice(&held.generation.to_le_bytes());
    bytes[12] = u8::from(held.row.complete);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Held> {
    let (since, rest) = bytes.split_first_chunk::<8>()?;
    let (generation, complete) = rest.split_first_chunk::<4>()?;
    let complete = match complete {
        [0] => false,
        [1] => true,
        _ => return None,
    };
    Some(Held {
        row: SlotRow {
            since: u64::from_le_bytes(*since),
            complete,
        },
        generation: u32::from_le_bytes(*generation),
    })
}

impl RocksIndex {
    /// The slots that it has, ascending.
    pub fn slots(&self) -> Vec<(u16, SlotRow)> {
        let table = self.shared.table();
        table.slots.iter().map(|(slot, held)| (*slot, held.row)).collect()
    }

    /// Those of them whose rebuild is complete.
    pub fn complete(&self) -> SlotSet {
        let table = self.shared.table();
        let complete = table.slots.iter().filter(|(_, held)| held.row.complete);
        complete.map(|(slot, _)| *slot).collect()
    }

    /// Starts slots afresh under the grant `since`: forgets all of their entries, and what packs they had. They are incomplete until
    /// [`Self::complete_slots`]. Durable when this returns.
    ///
    /// A rebuild of these slots that is still under way under an earlier beginning changes nothing of them any more.
    ///
    /// # Errors
    /// When the database cannot take it; nothing is changed.
    pub async fn begin_slots(&self, slots: &SlotSet, since: u64) -> Result<(), IndexError> {
        let slots = slots.clone();
        self.run(move |shared| shared.begin_slots(&slots, Some(since))).await
    }

    /// Says that all of a rebuild is in these slots; makes it durable with that. Only those that were begun with `since` and not
    /// anew meanwhile are marked, and answered.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn complete_slots(&self, slots: &SlotSet, since: u64) -> Result<SlotSet, IndexError> {
        let slots = slots.clone();
        self.run(move |shared| {
            let completed = shared.complete_slots(&slots, since)?;
            shared.join_generations()?;
            shared.fit_cache();
            Ok(completed)
        })
        .await
    }

    /// Forgets slots that are another's now: their entries and rows. Durable when this returns.
    ///
    /// # Errors
    /// When the database cannot take it; nothing is changed.
    pub async fn drop_slots(&self, slots: &SlotSet) -> Result<(), IndexError> {
        let slots = slots.clone();
        self.run(move |shared| shared.begin_slots(&slots, None)).await
    }

    /// Records the life of the process that uses the database from now on. Durable when this returns.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn set_life(&self, life: [u8; 16]) -> Result<(), IndexError> {
        self.run(move |shared| shared.put_meta(LIFE_KEY, &life)).await
    }

    /// The life given to [`Self::set_life`] last: that of the process which used the database. Since it opened, it is whole.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn life(&self) -> Result<Option<[u8; 16]>, IndexError> {
        let row = self.run(|shared| {
            let db = &shared.opened.db;
            db.get_cf(family(db, META), LIFE_KEY)
                .map_err(|e| trouble("read its life", e))
        });
        row.await?
            .map(|row| row.try_into().map_err(|_| IndexError::Malformed))
            .transpose()
    }
}

impl Shared {
    pub(super) fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().expect("no holder of this lock panics")
    }

    pub(super) fn table_mut(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().expect("no holder of this lock panics")
    }

    /// Writes a batch and everything before it to the disk.
    pub(super) fn write_synced(&self, state: &mut WriteState, batch: WriteBatch) -> Result<(), IndexError> {
        let mut options = WriteOptions::default();
        options.disable_wal(!state.logged);
        // Also after an error: the batch may be in the log.
        state.unsynced = true;
        self.opened
            .db
            .write_opt(batch, &options)
            .map_err(|e| trouble("write slots", e))?;
        self.sync(state)
    }

    /// Clears slots, and begins them under a grant or drops them.
    fn begin_slots(&self, slots: &SlotSet, since: Option<u64>) -> Result<(), IndexError> {
        if slots.is_empty() {
            return Ok(());
        }
        let db = &self.opened.db;
        let mut state = self.lock();
        let (batch, generation) = {
            let mut table = self.table_mut();
            let generation = table.take_generation()?;
            let mut batch = WriteBatch::default();
            for range in slots.ranges() {
                let (from, to) = keys_of(range);
                batch.delete_range_cf(family(db, CHUNKS), from, to);
            }
            for slot in slots.iter() {
                let key = slot.to_be_bytes();
                match since {
                    Some(since) => {
                        let row = SlotRow { since, complete: false };
                        batch.put_cf(family(db, SLOTS), key, encode(&Held { row, generation }));
                    }
                    None => batch.delete_cf(family(db, SLOTS), key),
                }
            }
            for (emptied, held) in table.generations() {
                if held.is_subset(slots) {
                    let (from, to) = (generation_key(emptied), generations_end(emptied.checked_add(1)));
                    batch.delete_range_cf(family(db, PACKS), from, to);
                }
            }
            (batch, generation)
        };
        self.write_synced(&mut state, batch)?;
        let mut table = self.table_mut();
        for slot in slots.iter() {
            match since {
                Some(since) => {
                    let row = SlotRow { since, complete: false };
                    table.slots.insert(slot, Held { row, generation });
                }
                None => drop(table.slots.remove(&slot)),
            }
        }
        Ok(())
    }

    fn complete_slots(&self, slots: &SlotSet, since: u64) -> Result<SlotSet, IndexError> {
        let db = &self.opened.db;
        let mut state = self.lock();
        let ours = |held: &Held| held.row.since == since;
        let completed: BTreeMap<u16, Held> = {
            let table = self.table();
            let held = table
                .slots
                .iter()
                .filter(|(slot, held)| slots.contains(**slot) && ours(held));
            held.map(|(slot, held)| {
                let row = SlotRow { since, complete: true };
                (*slot, Held { row, ..*held })
            })
            .collect()
        };
        let mut batch = WriteBatch::default();
        for (slot, held) in &completed {
            batch.put_cf(family(db, SLOTS), slot.to_be_bytes(), encode(held));
        }
        // The log is one for all tables: what the rebuild wrote before this is durable with it, and what it ingested was at once.
        self.write_synced(&mut state, batch)?;
        self.table_mut().slots.extend(&completed);
        Ok(completed.into_keys().collect())
    }
}

/// Groups in which all of a generation's slots are among `slots`.
pub(super) fn groups_within(generation: &SlotSet, slots: &SlotSet) -> u64 {
    generation.groups() & !generation.difference(slots).groups()
}
