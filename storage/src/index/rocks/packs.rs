//! Which packs are in this index whole, as far as its slots go.
//!
//! A row is (generation, pack) → groups: *all pieces of the pack that fall to slots which this generation has in these groups are in*. It stays
//! true whatever happens: entries leave an index only with their slots or by a sweep, and what a sweep removed nobody needs.
//! An insert writes a row for every generation in use, because it brings the pieces of all slots that are held. The rebuild of a generation
//! writes that generation's rows alone.
//!
//! Every batch of grants makes a generation, so from time to time those that are complete are joined into one: a pack is in the joint
//! set where it was in every one that has slots in the group.

use std::collections::BTreeMap;

use rocksdb::{DB, DBIterator, IteratorMode, ReadOptions, WriteBatch, WriteOptions};

use super::open::{family, trouble};
use super::options::{PACKS, SLOTS};
use super::slots::{Held, encode, generation_key, generations_end};
use super::{RocksIndex, Shared, WriteState, writers};
use crate::ids::{ChunkId, Location, PackId};
use crate::index::slot::SlotSet;
use crate::index::{IndexError, IndexSession};

/// Generations beside each other, and so rows that an insert writes for a pack. Joining reads all rows.
const GENERATIONS_MAX: usize = 8;
/// Packs joined under one hold of the lock: some milliseconds.
const JOIN_BATCH: usize = 4096;

/// The row's key: generation, writer, number; big-endian, so that a generation's packs stand in their order.
pub(super) fn pack_key(generation: u32, pack: PackId) -> Vec<u8> {
    let mut key = generation_key(generation);
    key.extend_from_slice(&writers::encode(pack.writer));
    key.extend_from_slice(&pack.seq.to_be_bytes());
    key
}

fn parse(key: &[u8], row: &[u8]) -> Result<(PackId, u64), IndexError> {
    let parse = || {
        let (_, key) = key.split_first_chunk::<4>()?;
        let (writer, seq) = key.split_first_chunk::<24>()?;
        let seq = u32::from_be_bytes(seq.try_into().ok()?);
        let writer = writers::decode(writer)?;
        Some((PackId { writer, seq }, u64::from_le_bytes(row.try_into().ok()?)))
    };
    parse().ok_or(IndexError::Malformed)
}

/// Rows of one generation, by pack.
pub(super) struct Rows<'a>(DBIterator<'a>);

impl<'a> Rows<'a> {
    pub(super) fn new(db: &'a DB, generation: u32) -> Self {
        Self(db.iterator_cf_opt(family(db, PACKS), read_options(generation), IteratorMode::Start))
    }

    pub(super) fn of(rows: DBIterator<'a>) -> Self {
        Self(rows)
    }
}

/// To read one generation's rows.
pub(super) fn read_options(generation: u32) -> ReadOptions {
    let mut read = ReadOptions::default();
    read.fill_cache(false);
    read.set_iterate_lower_bound(generation_key(generation));
    read.set_iterate_upper_bound(generations_end(generation.checked_add(1)));
    read
}

impl Iterator for Rows<'_> {
    type Item = Result<(PackId, u64), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.0.next()?;
        let row = row.map_err(|e| trouble("read packs", e));
        Some(row.and_then(|(key, row)| parse(&key, &row)))
    }
}

/// A pack and the groups in which it is whole.
type WholeIn = (PackId, u64);

/// Generations and the groups in which they have slots.
type Generations = BTreeMap<u32, u64>;

/// Packs that are in every generation which has slots in a group: of each, in which groups. Ascending.
pub(super) struct Joint<R> {
    rows: Vec<(u64, R, Option<WholeIn>)>,
    groups: u64,
}

impl<R: Iterator<Item = Result<(PackId, u64), IndexError>>> Joint<R> {
    /// Takes generations' rows with the groups in which they have slots.
    pub(super) fn new(generations: impl IntoIterator<Item = (u64, R)>) -> Result<Self, IndexError> {
        let begin = |(groups, mut rows): (u64, R)| Ok((groups, rows.next().transpose()?, rows));
        let rows: Result<Vec<_>, IndexError> = generations.into_iter().map(begin).collect();
        let rows: Vec<_> = rows?
            .into_iter()
            .map(|(groups, next, rows)| (groups, rows, next))
            .collect();
        let groups = rows.iter().fold(0, |all, (groups, ..)| all | groups);
        Ok(Self { rows, groups })
    }
}

impl<R: Iterator<Item = Result<(PackId, u64), IndexError>>> Iterator for Joint<R> {
    type Item = Result<(PackId, u64), IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        let pack = self
            .rows
            .iter()
            .filter_map(|(.., next)| next.map(|(pack, _)| pack))
            .min()?;
        let mut joint = self.groups;
        for (groups, rows, next) in &mut self.rows {
            match *next {
                Some((at, bits)) if at == pack => {
                    joint &= bits | !*groups;
                    *next = match rows.next().transpose() {
                        Ok(next) => next,
                        Err(error) => return Some(Err(error)),
                    };
                }
                _ => joint &= !*groups,
            }
        }
        Some(Ok((pack, joint)))
    }
}

impl RocksIndex {
    /// Inserts as [`crate::index::ChunkIndex::insert`] does, and notes of each pack in which groups of slots it is in now: *all* of its pieces
    /// that fall to slots which this index has in the group were in `entries`, or in what this session inserted before.
    ///
    /// Of groups without slots nothing is noted. A sender that knew less slots to be here than there are must not name their groups: it
    /// sent the pieces elsewhere.
    ///
    /// # Errors
    /// As `insert`.
    pub async fn insert_packs(
        &self,
        session: IndexSession,
        entries: &[(ChunkId, Location)],
        packs: &[(PackId, u64)],
    ) -> Result<(), IndexError> {
        self.shared.admit(session)?;
        let (entries, packs) = (entries.to_vec(), packs.to_vec());
        self.run(move |shared| {
            let mut state = shared.lock();
            shared.insert_locked(&mut state, &entries, session.start_epoch)?;
            // Behind the entries in one log, and a log is cut only at its end: a row of a pack is never there without them. (One batch
            // for both would hold a pack of 65,536 pieces.)
            shared.note_packs(&mut state, &packs)?;
            shared.sync(&mut state)
        })
        .await
    }

    /// Number of packs that are in whole, for all of these slots that are complete. Reads a row a pack.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn pack_count(&self, slots: &SlotSet) -> Result<u64, IndexError> {
        let slots = slots.intersection(&self.complete());
        self.run(move |shared| {
            let db = &shared.opened.db;
            let generations = shared.generations_of(&slots);
            let rows = generations
                .iter()
                .map(|(generation, groups)| (*groups, Rows::new(db, *generation)));
            let mut count = 0;
            for row in Joint::new(rows)? {
                count += u64::from(row?.1 == slots.groups());
            }
            Ok(count)
        })
        .await
    }
}

impl Shared {
    /// Generations of these slots, and the groups in which they have some of them.
    pub(super) fn generations_of(&self, slots: &SlotSet) -> BTreeMap<u32, u64> {
        let of = |(generation, held): (u32, SlotSet)| (generation, held.intersection(slots).groups());
        let generations = self.table().generations().into_iter().map(of);
        generations.filter(|(_, groups)| *groups != 0).collect()
    }

    /// Notes packs in all generations in use.
    fn note_packs(&self, state: &mut WriteState, packs: &[(PackId, u64)]) -> Result<(), IndexError> {
        let noted_in = self.table().noted_in();
        let rows = packs.iter().flat_map(|(pack, groups)| {
            let of = |(generation, within): (&u32, &u64)| (*generation, *pack, groups & within);
            noted_in.iter().map(of).collect::<Vec<_>>()
        });
        self.add_packs(state, rows)
    }

    /// Adds groups to rows of packs; not synced.
    pub(super) fn add_packs(
        &self,
        state: &mut WriteState,
        rows: impl IntoIterator<Item = (u32, PackId, u64)>,
    ) -> Result<(), IndexError> {
        let db = &self.opened.db;
        let table = family(db, PACKS);
        // A pack may come twice in one call.
        let mut added: BTreeMap<(u32, PackId), u64> = BTreeMap::new();
        for (generation, pack, groups) in rows.into_iter().filter(|(.., groups)| *groups != 0) {
            *added.entry((generation, pack)).or_default() |= groups;
        }
        let mut batch = WriteBatch::default();
        for ((generation, pack), groups) in added {
            let key = pack_key(generation, pack);
            let row = db.get_pinned_cf(table, &key).map_err(|e| trouble("read packs", e))?;
            let before = row.map_or(Ok(0), |row| parse(&key, &row).map(|(_, groups)| groups))?;
            if before | groups != before {
                batch.put_cf(table, key, (before | groups).to_le_bytes());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut options = WriteOptions::default();
        options.disable_wal(!state.logged);
        state.unsynced = true;
        db.write_opt(batch, &options).map_err(|e| trouble("note packs", e))
    }

    /// Joins the generations whose slots are all complete, when there are many. Inserts go on meanwhile.
    pub(super) fn join_generations(&self) -> Result<(), IndexError> {
        self.join_generations_over(GENERATIONS_MAX)
    }

    fn join_generations_over(&self, most: usize) -> Result<(), IndexError> {
        let Some((into, from)) = self.begin_joining(most)? else {
            return Ok(());
        };
        let joined = self.join(into, &from);
        // After an error too: nobody must go on writing a generation that no slot will have. Its number is not used again before the
        // next opening clears its rows.
        self.table_mut().joining = None;
        joined
    }

    fn begin_joining(&self, most: usize) -> Result<Option<(u32, Generations)>, IndexError> {
        let _writing = self.lock();
        let mut table = self.table_mut();
        let is_complete = |slots: &SlotSet| slots.iter().all(|slot| table.slots[&slot].row.complete);
        let generations = table.generations().into_iter();
        let from: BTreeMap<u32, u64> = generations
            .filter(|(_, slots)| is_complete(slots))
            .map(|(generation, slots)| (generation, slots.groups()))
            .collect();
        if from.len() <= most || table.joining.is_some() {
            return Ok(None);
        }
        let into = table.take_generation()?;
        // From here on every insert notes its packs in the new generation as well, so what the reading below does not see is there already.
        table.joining = Some((into, from.values().fold(0, |all, groups| all | groups)));
        Ok(Some((into, from)))
    }

    fn join(&self, into: u32, from: &BTreeMap<u32, u64>) -> Result<(), IndexError> {
        let db = &self.opened.db;
        let rows = from
            .iter()
            .map(|(generation, groups)| (*groups, Rows::new(db, *generation)));
        let mut joint = Joint::new(rows)?;
        loop {
            let batch: Result<Vec<_>, IndexError> = joint.by_ref().take(JOIN_BATCH).collect();
            let batch = batch?;
            if batch.is_empty() {
                break;
            }
            let rows = batch.into_iter().map(|(pack, groups)| (into, pack, groups));
            self.add_packs(&mut self.lock(), rows)?;
        }
        let mut state = self.lock();
        // Of the slots begun or dropped meanwhile nothing is said: they are of no generation that was joined.
        let moved: BTreeMap<u16, Held> = {
            let table = self.table();
            let held = table
                .slots
                .iter()
                .filter(|(_, held)| from.contains_key(&held.generation));
            held.map(|(slot, held)| {
                (
                    *slot,
                    Held {
                        generation: into,
                        ..*held
                    },
                )
            })
            .collect()
        };
        let mut batch = WriteBatch::default();
        for (slot, held) in &moved {
            batch.put_cf(family(db, SLOTS), slot.to_be_bytes(), encode(held));
        }
        for generation in from.keys() {
            let (first, end) = (generation_key(*generation), generations_end(generation.checked_add(1)));
            batch.delete_range_cf(family(db, PACKS), first, end);
        }
        self.write_synced(&mut state, batch)?;
        let mut table = self.table_mut();
        table.slots.extend(&moved);
        // Under the same hold, so that no insert falls between the two.
        table.joining = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
