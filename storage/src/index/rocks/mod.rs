//! The index in RocksDB: 70 B a chunk on disk, memory bounded whatever the number of chunks.
//!
//! What it guards:
//! 1. An acknowledged insert, mark or note of damage is synced; touches are not, they cost a duplicate at worst.
//! 2. Reading an entry and writing what the rules make of it is one step: all writers hold one lock. A lookup that raises no
//!    touch epoch takes no lock.
//! 3. A database without a stamp is unfinished (a load that was cut off) and is refused like one of another vault.
//! 4. Nothing is deleted but by [`RocksIndex::destroy`] and, of slots, by [`RocksIndex::begin_slots`] and [`RocksIndex::drop_slots`].
//!
//! A home's index is one whole. A worker that answers for slots keeps theirs in it and nothing else: `slots` says which those are, `packs` what is in them
//! whole, `fill` rebuilds them and `group` reads them out.
//!
//! Calls run on the blocking threads of tokio, one such call a question; a future that is dropped leaves its call to finish.

mod fill;
mod group;
mod load;
mod open;
mod options;
mod packs;
mod slots;
mod stamp;
mod writers;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use async_trait::async_trait;
use rocksdb::{IteratorMode, Options, ReadOptions, WriteBatch, WriteOptions};

use self::open::{Opened, family, trouble};
use self::options::{CHUNKS, DAMAGE, META};
use self::slots::Table;
use self::writers::{Numbering, Writers};
use super::entry::{self, Entry, Row};
use super::{Answer, ChunkIndex, IndexError, IndexSession};
use crate::error::Kind;
use crate::ids::{ChunkId, Location, PackId};
use crate::limits;

pub use fill::{FILE_ENTRIES, Filling};
pub(crate) use group::GroupPart;
pub use load::Load;
pub use slots::SlotRow;
pub use stamp::{INDEX_VERSION, Stamp};

/// The cache is fitted to the number of entries after so many rows.
const FIT_EVERY: u64 = 1 << 20;
/// Ids that one thread reads: with eight threads for a question a disk that needs 0.1 ms a block answers 512 ids in a few, and what is in memory is
/// answered at the price of a few wake-ups.
const READ_BATCH: usize = 64;
/// Rows read, decided and written as one batch: 300 KB.
const WRITE_BATCH: usize = 4096;
const STAMP_KEY: &[u8] = b"stamp";
const WITNESS_KEY: &[u8] = b"witness";

/// A [`ChunkIndex`] in a folder. Clones share it.
#[derive(Clone)]
pub struct RocksIndex {
    shared: Arc<Shared>,
}

/// What an index did since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Ids asked for, by writers and readers.
    pub ids_read: u64,
    /// Entries written, touches among them.
    pub rows_written: u64,
    /// Batches written.
    pub batches_written: u64,
    /// Times it waited for the disk.
    pub syncs: u64,
}

/// Memory held, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// Blocks, filters and index blocks; bounded.
    pub cache: u64,
    /// Rows not yet in files; bounded.
    pub memtables: u64,
    /// What open files hold outside the cache.
    pub tables: u64,
}

struct Shared {
    opened: Opened,
    stamp: Stamp,
    writers: Writers,
    /// Held while entries are read to be changed.
    write: Mutex<WriteState>,
    /// Changed by the holder of `write` alone.
    table: RwLock<Table>,
    ids_read: AtomicU64,
    rows_written: AtomicU64,
    batches_written: AtomicU64,
    syncs: AtomicU64,
}

struct WriteState {
    next_number: u32,
    /// An insert's or mark's batch was written and not synced: whoever acknowledges next must sync, also when it has nothing to write.
    unsynced: bool,
    /// Whether batches go through the log; a load needs none.
    logged: bool,
}

impl RocksIndex {
    /// Opens the index of this vault and claim. Reads no entries: a few rows, and the indexes of at most 16 files.
    ///
    /// # Errors
    /// [`IndexError::Stale`] when there is none, or it is another's, unfinished, of another version or damaged: destroy and rebuild it.
    /// [`IndexError::Locked`] when it is open already.
    pub async fn open(path: &Path, stamp: Stamp) -> Result<Self, IndexError> {
        Self::open_with(path, stamp, options::database()).await
    }

    async fn open_with(path: &Path, stamp: Stamp, options: Options) -> Result<Self, IndexError> {
        let path = path.to_owned();
        blocking(move || {
            let opened = open::open(&path, options)?;
            let row = opened
                .db
                .get_cf(family(&opened.db, META), STAMP_KEY)
                .map_err(|e| trouble("read its stamp", e))?;
            let row = row.ok_or_else(|| IndexError::Stale {
                why: "it was never finished".into(),
            })?;
            stamp.check(&row).map_err(|why| IndexError::Stale { why })?;
            Self::start(opened, stamp, true)
        })
        .await
    }

    /// Makes an empty index, of a vault that holds nothing yet.
    ///
    /// # Errors
    /// [`IndexError::Stale`] when there is one already.
    pub async fn create(path: &Path, stamp: Stamp) -> Result<Self, IndexError> {
        let path = path.to_owned();
        blocking(move || {
            let opened = open::create(&path, options::database())?;
            let index = Self::start(opened, stamp, true)?;
            index.shared.put_meta(STAMP_KEY, &stamp.encode())?;
            Ok(index)
        })
        .await
    }

    /// Starts to make an index from what the stores hold. It opens only after [`Load::finish`].
    ///
    /// # Errors
    /// [`IndexError::Stale`] when there is one already.
    pub async fn load(path: &Path, stamp: Stamp) -> Result<Load, IndexError> {
        let path = path.to_owned();
        blocking(move || {
            let opened = open::create(&path, options::database())?;
            Self::start(opened, stamp, false).map(Load::new)
        })
        .await
    }

    /// Removes an index and all it remembers.
    ///
    /// # Errors
    /// [`IndexError::Locked`] when somebody has it open.
    pub async fn destroy(path: &Path) -> Result<(), IndexError> {
        let path = path.to_owned();
        blocking(move || open::destroy(&path)).await
    }

    fn start(opened: Opened, stamp: Stamp, logged: bool) -> Result<Self, IndexError> {
        let next_number = Writers::next_number(&opened.db)?;
        let table = RwLock::new(Table::load(&opened.db)?);
        let shared = Shared {
            opened,
            stamp,
            writers: Writers::default(),
            // What an earlier process wrote and did not sync was written to a file by opening.
            write: Mutex::new(WriteState {
                next_number,
                unsynced: false,
                logged,
            }),
            table,
            ids_read: AtomicU64::new(0),
            rows_written: AtomicU64::new(0),
            batches_written: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
        };
        shared.fit_cache();
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The stamp that it was opened with.
    pub fn stamp(&self) -> Stamp {
        self.shared.stamp
    }

    /// Remembers the name of an object that the vault must have as long as this index is of its present state: the newest
    /// index segment recorded.
    ///
    /// # Errors
    /// When the database cannot take it.
    pub async fn set_witness(&self, name: &str) -> Result<(), IndexError> {
        let name = name.to_owned();
        self.run(move |shared| shared.put_meta(WITNESS_KEY, name.as_bytes()))
            .await
    }

    /// The name given to [`Self::set_witness`] last. When the vault has no such object, the vault is an older copy: rebuild.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn witness(&self) -> Result<Option<String>, IndexError> {
        let row = self.run(|shared| {
            let db = &shared.opened.db;
            db.get_cf(family(db, META), WITNESS_KEY)
                .map_err(|e| trouble("read its witness", e))
        });
        row.await?
            .map(String::from_utf8)
            .transpose()
            .map_err(|_| IndexError::Malformed)
    }

    /// Calls `each` with every entry, by id, until it breaks. Takes time in proportion; leaves the cache alone.
    ///
    /// # Errors
    /// When the database cannot be read, or a row cannot.
    pub async fn for_each<F>(&self, mut each: F) -> Result<(), IndexError>
    where
        F: FnMut(ChunkId, Entry) -> ControlFlow<()> + Send + 'static,
    {
        self.run(move |shared| shared.for_each(&mut each)).await
    }

    /// Moves entries from the first location to the second, where they still are good at the first; durable when this returns. Keeps
    /// their touch. `true` where an entry is at the second now, also when it was before: the request is repeated until it is answered.
    ///
    /// # Errors
    /// When the index cannot take them.
    pub async fn replace(
        &self,
        session: IndexSession,
        moves: &[(ChunkId, Location, Location)],
    ) -> Result<Vec<bool>, IndexError> {
        self.shared.admit(session)?;
        let moves = moves.to_vec();
        self.run(move |shared| shared.replace(&moves)).await
    }

    /// What it did so far.
    pub fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared {
            ids_read,
            rows_written,
            batches_written,
            syncs,
            ..
        } = &*self.shared;
        Counters {
            ids_read: read(ids_read),
            rows_written: read(rows_written),
            batches_written: read(batches_written),
            syncs: read(syncs),
        }
    }

    /// Memory it holds now.
    pub fn memory(&self) -> Memory {
        let Opened { db, cache, .. } = &self.shared.opened;
        let sum = |property: &str| {
            let of = |name: &&str| db.property_int_value_cf(family(db, name), property).ok().flatten();
            options::FAMILIES.iter().filter_map(of).sum()
        };
        Memory {
            cache: cache.get_usage() as u64,
            memtables: sum("rocksdb.size-all-mem-tables"),
            tables: sum("rocksdb.estimate-table-readers-mem"),
        }
    }

    /// Bytes of its files of rows. Those that lie in its log and in memory are not among them.
    pub fn disk_bytes(&self) -> u64 {
        let db = &self.shared.opened.db;
        let of = |name: &&str| {
            let bytes = db.property_int_value_cf(family(db, name), "rocksdb.total-sst-files-size");
            bytes.ok().flatten()
        };
        options::FAMILIES.iter().filter_map(of).sum()
    }

    /// Entries of chunks, estimated without reading any.
    pub fn entries_estimate(&self) -> u64 {
        let db = &self.shared.opened.db;
        let keys = db.property_int_value_cf(family(db, CHUNKS), "rocksdb.estimate-num-keys");
        keys.ok().flatten().unwrap_or(0)
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Shared) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, IndexError> {
        let shared = self.shared.clone();
        blocking(move || call(&shared)).await
    }

    /// The entry of each id, in order, read by several threads: an id that is known is a block from somewhere, and where the database is larger than
    /// memory a disk reads many of them at once in the time of one.
    async fn entries(&self, ids: &[ChunkId]) -> Result<Vec<Option<Entry>>, IndexError> {
        // Sorted over all, so that ids of one block come in one batch.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|at| ids[*at]);
        let batches = order.chunks(READ_BATCH).map(|batch| {
            let ids: Vec<ChunkId> = batch.iter().map(|at| ids[*at]).collect();
            self.run(move |shared| shared.entries(&ids))
        });
        let read = futures::future::try_join_all(batches).await?;
        let mut found = vec![None; ids.len()];
        for (at, entry) in order.into_iter().zip(read.into_iter().flatten()) {
            found[at] = entry;
        }
        Ok(found)
    }
}

/// Runs a call that may wait for the disk.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
) -> Result<T, IndexError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking calls are cancelled only when the runtime goes.
            Err(error) => Err(IndexError::Database {
                what: "run",
                kind: Kind::Retry,
                source: error.into(),
            }),
        },
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, WriteState> {
        self.write.lock().expect("no holder of this lock panics")
    }

    fn admit(&self, session: IndexSession) -> Result<(), IndexError> {
        if session.cluster != self.stamp.cluster {
            return Err(IndexError::Foreign {
                index: self.stamp.cluster,
                session: session.cluster,
            });
        }
        Ok(())
    }

    /// The entry of each id, in order.
    fn entries(&self, ids: &[ChunkId]) -> Result<Vec<Option<Entry>>, IndexError> {
        self.ids_read.fetch_add(ids.len() as u64, Ordering::Relaxed);
        let db = &self.opened.db;
        let read = ReadOptions::default();
        let mut found = vec![None; ids.len()];
        // Sorted over all, so that ids of one block come in one batch.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_unstable_by_key(|at| ids[*at]);
        let mut keys = Vec::with_capacity(limits::INDEX_BATCH.min(ids.len()));
        for batch in order.chunks(limits::INDEX_BATCH) {
            keys.clear();
            keys.extend(batch.iter().map(|at| ids[*at].0));
            keys.dedup();
            let values = db.batched_multi_get_cf_opt(family(db, CHUNKS), keys.iter(), true, &read);
            let mut rows = Vec::with_capacity(keys.len());
            for value in values {
                let value = value.map_err(|e| trouble("look ids up", e))?;
                rows.push(
                    value
                        .map(|row| Row::decode(&row).ok_or(IndexError::Malformed))
                        .transpose()?,
                );
            }
            let numbers: Vec<u32> = rows.iter().flatten().map(|row| row.writer).collect();
            let mut writers = self.writers.resolve(db, &numbers)?.into_iter();
            let mut entries = keys.iter().zip(rows.into_iter().map(|row| {
                let row = row?;
                Some(row.entry(writers.next().expect("one writer was resolved for each row")))
            }));
            let mut at_key = entries.next();
            for at in batch {
                while at_key.is_some_and(|(key, _)| *key != ids[*at].0) {
                    at_key = entries.next();
                }
                found[*at] = at_key.and_then(|(_, entry)| entry);
            }
        }
        Ok(found)
    }

    /// Reads the entries of `ids`, lets `decide` say of each (by its place in `ids`) what to write instead, and writes that as one batch.
    fn change(
        &self,
        state: &mut WriteState,
        ids: &[ChunkId],
        mut decide: impl FnMut(usize, Option<Entry>) -> Option<Entry>,
    ) -> Result<(), IndexError> {
        let mut changed: HashMap<ChunkId, Entry> = HashMap::new();
        for (at, existing) in self.entries(ids)?.into_iter().enumerate() {
            let before = changed.get(&ids[at]).copied().or(existing);
            if let Some(after) = decide(at, before) {
                changed.insert(ids[at], after);
            }
        }
        if changed.is_empty() {
            return Ok(());
        }
        let db = &self.opened.db;
        let table = family(db, CHUNKS);
        let mut batch = WriteBatch::with_capacity_bytes(changed.len() * 72);
        let mut numbering = Numbering::new(&self.writers, state.next_number);
        for (id, entry) in &changed {
            let number = numbering.number(db, &mut batch, entry.location.pack.writer)?;
            batch.put_cf(table, id.0, Row::new(entry, number).encode());
        }
        let mut options = WriteOptions::default();
        options.disable_wal(!state.logged);
        db.write_opt(batch, &options).map_err(|e| trouble("write entries", e))?;
        state.next_number = numbering.written();
        let rows = changed.len() as u64;
        let before = self.rows_written.fetch_add(rows, Ordering::Relaxed);
        self.batches_written.fetch_add(1, Ordering::Relaxed);
        if before / FIT_EVERY != (before + rows) / FIT_EVERY {
            self.fit_cache();
        }
        Ok(())
    }

    /// Gives the cache the memory that so many entries are worth.
    fn fit_cache(&self) {
        let db = &self.opened.db;
        let keys = db.property_int_value_cf(family(db, CHUNKS), "rocksdb.estimate-num-keys");
        // Without an estimate it stays as it is.
        if let Ok(Some(entries)) = keys {
            self.opened.cache.clone().set_capacity(options::cache_bytes(entries));
        }
    }

    /// Makes everything written under this lock, and before, durable.
    fn sync(&self, state: &mut WriteState) -> Result<(), IndexError> {
        if state.unsynced && state.logged {
            self.opened.db.flush_wal(true).map_err(|e| trouble("sync its log", e))?;
            self.syncs.fetch_add(1, Ordering::Relaxed);
            state.unsynced = false;
        }
        Ok(())
    }

    fn put_meta(&self, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        self.put_synced(META, key, value)
    }

    fn put_synced(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), IndexError> {
        let db = &self.opened.db;
        let mut state = self.lock();
        let mut options = WriteOptions::default();
        options.disable_wal(!state.logged);
        db.put_cf_opt(family(db, table), key, value, &options)
            .map_err(|e| trouble("write", e))?;
        state.unsynced = true;
        self.sync(&mut state)
    }

    /// Writes that those `raised` were touched, and answers for them.
    fn touch(
        &self,
        ids: &[ChunkId],
        mut answers: Vec<Answer>,
        raised: &[usize],
        touch: u64,
    ) -> Result<Vec<Answer>, IndexError> {
        // Decided again under the lock: an entry may have changed since, and the answer must be the one that was touched.
        let mut state = self.lock();
        for raised in raised.chunks(WRITE_BATCH) {
            let touched: Vec<ChunkId> = raised.iter().map(|at| ids[*at]).collect();
            self.change(&mut state, &touched, |at, existing| {
                let (answer, write) = entry::answer(existing, touch);
                answers[raised[at]] = answer;
                write
            })?;
        }
        Ok(answers)
    }

    fn insert(&self, entries: &[(ChunkId, Location)], touch: u64) -> Result<(), IndexError> {
        // One lock over all batches and their sync: nobody may find an entry good, have nothing to write, and acknowledge it unsynced.
        let mut state = self.lock();
        self.insert_locked(&mut state, entries, touch)?;
        self.sync(&mut state)
    }

    fn insert_locked(
        &self,
        state: &mut WriteState,
        entries: &[(ChunkId, Location)],
        touch: u64,
    ) -> Result<(), IndexError> {
        let ids: Vec<ChunkId> = entries.iter().map(|(id, _)| *id).collect();
        self.change_all(state, &ids, |at, existing| {
            let after = Some(entry::decide_insert(existing, entries[at].1, touch));
            after.filter(|_| after != existing)
        })
    }

    fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let mut state = self.lock();
        let ids: Vec<ChunkId> = entries.iter().map(|(id, _)| *id).collect();
        self.change_all(&mut state, &ids, |at, existing| {
            entry::decide_lost(existing, entries[at].1)
        })?;
        self.sync(&mut state)
    }

    fn replace(&self, moves: &[(ChunkId, Location, Location)]) -> Result<Vec<bool>, IndexError> {
        let mut state = self.lock();
        let ids: Vec<ChunkId> = moves.iter().map(|(id, ..)| *id).collect();
        let mut moved = vec![false; moves.len()];
        self.change_all(&mut state, &ids, |at, existing| {
            let (_, from, to) = moves[at];
            let after = entry::decide_replace(existing, from, to);
            moved[at] = after.is_some() || existing.is_some_and(|entry| entry.is_good() && entry.location == to);
            after
        })?;
        self.sync(&mut state)?;
        Ok(moved)
    }

    /// Changes any number of entries, each by its place in `ids`; the caller syncs before it lets go of the lock.
    fn change_all(
        &self,
        state: &mut WriteState,
        ids: &[ChunkId],
        mut decide: impl FnMut(usize, Option<Entry>) -> Option<Entry>,
    ) -> Result<(), IndexError> {
        for (number, batch) in ids.chunks(WRITE_BATCH).enumerate() {
            let written = self.batches_written.load(Ordering::Relaxed);
            let changed = self.change(state, batch, |at, existing| decide(number * WRITE_BATCH + at, existing));
            // Also after an error: the batch may be in the log.
            state.unsynced |= changed.is_err() || self.batches_written.load(Ordering::Relaxed) != written;
            changed?;
        }
        Ok(())
    }

    fn for_each(&self, each: &mut dyn FnMut(ChunkId, Entry) -> ControlFlow<()>) -> Result<(), IndexError> {
        let db = &self.opened.db;
        let mut read = ReadOptions::default();
        read.fill_cache(false);
        read.set_readahead_size(1 << 20);
        for row in db.iterator_cf_opt(family(db, CHUNKS), read, IteratorMode::Start) {
            let (key, row) = row.map_err(|e| trouble("read entries", e))?;
            let id = ChunkId::from_slice(&key).map_err(|_| IndexError::Malformed)?;
            let row = Row::decode(&row).ok_or(IndexError::Malformed)?;
            for writer in self.writers.resolve(db, &[row.writer])? {
                if each(id, row.entry(writer)).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        self.put_synced(DAMAGE, &damage_key(pack, frame_offset), &[])
    }

    fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError> {
        let db = &self.opened.db;
        let rows = db.iterator_cf(family(db, DAMAGE), IteratorMode::Start);
        let read = |row: Result<_, rocksdb::Error>| {
            let (key, _): (Box<[u8]>, Box<[u8]>) = row.map_err(|e| trouble("read damage", e))?;
            parse_damage_key(&key).ok_or(IndexError::Malformed)
        };
        rows.map(read).collect()
    }
}

/// The writer, the pack's number, and for a frame its offset.
fn damage_key(pack: PackId, frame_offset: Option<u32>) -> Vec<u8> {
    let mut key = [&writers::encode(pack.writer)[..], &pack.seq.to_be_bytes()].concat();
    key.extend(frame_offset.map(u32::to_be_bytes).iter().flatten());
    key
}

fn parse_damage_key(key: &[u8]) -> Option<(PackId, Option<u32>)> {
    let (writer, rest) = key.split_first_chunk::<24>()?;
    let (seq, rest) = rest.split_first_chunk::<4>()?;
    let pack = PackId {
        writer: writers::decode(writer)?,
        seq: u32::from_be_bytes(*seq),
    };
    if rest.is_empty() {
        return Some((pack, None));
    }
    Some((pack, Some(u32::from_be_bytes(rest.try_into().ok()?))))
}

#[async_trait]
impl ChunkIndex for RocksIndex {
    async fn lookup(&self, session: IndexSession, ids: &[ChunkId]) -> Result<Vec<Answer>, IndexError> {
        self.shared.admit(session)?;
        let found = self.entries(ids).await?;
        let (mut answers, mut raised) = (Vec::with_capacity(ids.len()), Vec::new());
        for (at, existing) in found.into_iter().enumerate() {
            let (answer, write) = entry::answer(existing, session.start_epoch);
            answers.push(answer);
            if write.is_some() {
                raised.push(at);
            }
        }
        if raised.is_empty() {
            return Ok(answers);
        }
        let ids = ids.to_vec();
        self.run(move |shared| shared.touch(&ids, answers, &raised, session.start_epoch))
            .await
    }

    async fn insert(&self, session: IndexSession, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        self.shared.admit(session)?;
        let entries = entries.to_vec();
        self.run(move |shared| shared.insert(&entries, session.start_epoch))
            .await
    }

    async fn mark_lost(&self, entries: &[(ChunkId, Location)]) -> Result<(), IndexError> {
        let entries = entries.to_vec();
        self.run(move |shared| shared.mark_lost(&entries)).await
    }

    async fn locate(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>, IndexError> {
        let found = self.entries(ids).await?;
        Ok(found.into_iter().map(entry::locate).collect())
    }

    async fn add_damage(&self, pack: PackId, frame_offset: Option<u32>) -> Result<(), IndexError> {
        self.run(move |shared| shared.add_damage(pack, frame_offset)).await
    }

    async fn damage(&self) -> Result<Vec<(PackId, Option<u32>)>, IndexError> {
        self.run(Shared::damage).await
    }

    async fn count(&self) -> Result<u64, IndexError> {
        self.run(|shared| {
            let db = &shared.opened.db;
            let keys = db.property_int_value_cf(family(db, CHUNKS), "rocksdb.estimate-num-keys");
            Ok(keys.map_err(|e| trouble("count entries", e))?.unwrap_or(0))
        })
        .await
    }
}

#[cfg(test)]
mod tests;
