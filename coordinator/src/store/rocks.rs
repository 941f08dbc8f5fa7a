//! Tables in RocksDB.
//!
//! A database of some hundred megabytes that is read whole at the start and written in small synced batches: what counts is that nothing
//! synced is lost, that damage is noticed, and that memory and open files are bounded.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator,
    DBRecoveryMode, Direction, ErrorKind, IteratorMode, LogLevel, Options, WriteBatch, WriteOptions,
};

use super::StoreError;
use super::tables::{Batch, Durability, Family, Op, Pair, Tables, View};

/// Blocks, filters and index blocks in memory: rows are read once, at the start, so little is gained by more.
const CACHE_BYTES: usize = 16 << 20;
/// Entries and rows collect here before they are written as a sorted file; two of them a family.
const MEMTABLE_BYTES: usize = 16 << 20;
/// The same for single facts.
const SMALL_MEMTABLE_BYTES: usize = 1 << 20;
/// What is replayed on open at most.
const WAL_BYTES: u64 = 64 << 20;
/// Logs that are replayed on open before they are written as sorted files. A command that is a node for a moment opens and closes the database each time:
/// writing three small files at each opening took ten syncs, and replaying sixteen logs of some kilobytes takes nothing.
const LOGS_KEPT: usize = 16;
/// 2 GB of rows and log, both sides loaded, are some 32 files of 64 MiB.
const OPEN_FILES: i32 = 128;
const FILE_BYTES: u64 = 64 << 20;

/// RocksDB insists on this one; it stays empty.
const DEFAULT: &str = "default";

fn name(family: Family) -> &'static str {
    match family {
        Family::Log => "log",
        Family::Meta => "meta",
        Family::RowsA => "rows-a",
        Family::RowsB => "rows-b",
    }
}

/// Tables in a folder. The folder is locked while they are open.
pub struct Rocks {
    db: Arc<DB>,
}

impl Rocks {
    /// Makes empty tables. The folder must not have any; it is made if need be.
    ///
    /// # Errors
    /// [`StoreError::Disk`], also when there are some already; [`StoreError::Locked`].
    pub fn create(path: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(path).map_err(|e| disk("make its folder", e))?;
        // Without its list of files RocksDB would take what is left of a database for an empty place, and remove it.
        if let Some(left) = names(path)?.into_iter().find(|name| is_data(name)) {
            return Err(StoreError::Damaged {
                source: format!("there is a {left} where a new database is to be made").into(),
            });
        }
        let mut options = database();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_error_if_exists(true);
        open(path, &options)
    }

    /// Opens tables. A crash's torn tail, which was never acknowledged, is dropped; damage before it is not.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Locked`], [`StoreError::Damaged`], [`StoreError::Disk`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // RocksDB would make folders and a log of its own before it says that there is nothing.
        match fs::metadata(path.join("CURRENT")) {
            // There is a log at any time, also after a crash. RocksDB notices the absence of older ones, not of the last.
            Ok(_) => match names(path)?.iter().filter(|name| name.ends_with(".log")).count() {
                0 => Err(StoreError::Damaged {
                    source: "its log is gone".into(),
                }),
                logs if logs < LOGS_KEPT => {
                    // What is replayed and stays in its log must be as durable as what is written after it: a process that was killed leaves a tail which is
                    // in the system's memory alone, and RocksDB syncs only the log that it writes to. With a torn older log and a whole newer one, rows
                    // would be missing that `applied` says are there.
                    sync_logs(path).map_err(|e| disk("sync its log", e))?;
                    open(path, &lazily(&mut database())?)
                }
                _ => open(path, &database()),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(StoreError::Missing),
            Err(e) => Err(disk("look at its folder", e)),
        }
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        handle(&self.db, family)
    }
}

/// Makes all logs durable as far as they were written.
fn sync_logs(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let file = fs::File::open(&path)?;
            file.sync_all()?;
            #[cfg(test)]
            tests::note_synced(&path, file.metadata()?.len());
        }
    }
    Ok(())
}

fn handle(db: &DB, family: Family) -> &ColumnFamily {
    db.cf_handle(name(family)).expect("all families were opened")
}

fn open(path: &Path, options: &Options) -> Result<Rocks, StoreError> {
    let cache = Cache::new_lru_cache(CACHE_BYTES);
    let families = Family::ALL
        .into_iter()
        .map(|which| ColumnFamilyDescriptor::new(name(which), family(&cache, which)))
        .chain([ColumnFamilyDescriptor::new(DEFAULT, family(&cache, Family::Meta))]);
    let db = DB::open_cf_descriptors(options, path, families).map_err(refused)?;
    Ok(Rocks { db: Arc::new(db) })
}

fn database() -> Options {
    let mut options = Options::default();
    options.set_max_open_files(OPEN_FILES);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_bytes_per_sync(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(16 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    // A record that a crash cut off was never acknowledged. Damage before the tail, or a log file that is missing, was, and must not pass in
    // silence: the default mode would stop replaying there and open, and a member that forgot its vote breaks the cluster.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// The same, but what is replayed stays in the logs.
fn lazily(options: &mut Options) -> Result<Options, StoreError> {
    let lazy = options.get_options_from_string("avoid_flush_during_recovery=true");
    lazy.map_err(|e| trouble("set the options of the database", e))
}

fn family(cache: &Cache, which: Family) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(match which {
        Family::Meta => SMALL_MEMTABLE_BYTES,
        Family::Log | Family::RowsA | Family::RowsB => MEMTABLE_BYTES,
    });
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(4 * MEMTABLE_BYTES as u64);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

impl Tables for Rocks {
    type View = RocksView;

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        let mut writes = WriteBatch::default();
        for op in batch.into_ops() {
            match op {
                Op::Put { family, key, value } => writes.put_cf(self.family(family), key, value),
                Op::Delete { family, key } => writes.delete_cf(self.family(family), key),
                // RocksDB refuses a range whose end is before its start.
                Op::DeleteRange { family, from, to } if from < to => {
                    writes.delete_range_cf(self.family(family), from, to);
                }
                Op::DeleteRange { .. } => {}
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(durability == Durability::Synced);
        self.db.write_opt(writes, &options).map_err(|e| trouble("write", e))
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.db.get_cf(self.family(family), key).map_err(|e| trouble("read", e))
    }

    fn scan(&self, family: Family, from: &[u8], bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        let mut bytes = 0;
        let mode = IteratorMode::From(from, Direction::Forward);
        for pair in self.db.iterator_cf(self.family(family), mode) {
            let (key, value) = pair.map_err(|e| trouble("read", e))?;
            bytes += key.len() + value.len();
            if bytes > bytes_max && !pairs.is_empty() {
                break;
            }
            pairs.push((key.into_vec(), value.into_vec()));
        }
        Ok(pairs)
    }

    fn view(&self, family: Family) -> Result<RocksView, StoreError> {
        let db = Arc::clone(&self.db);
        // One question and one answer at a time. The first answer, of nothing, says that the view is taken.
        let (ask, asked) = sync_channel(1);
        let (answer, answers) = sync_channel(1);
        let reader = std::thread::Builder::new()
            .name("store-view".into())
            .spawn(move || read_for(&db, family, &asked, &answer))
            .map_err(|e| disk("start to read", e))?;
        let view = RocksView {
            ask: Some(ask),
            answers,
            reader: Some(reader),
        };
        match view.answers.recv() {
            Ok(Ok(_)) => Ok(view),
            Ok(Err(e)) => Err(e),
            Err(_) => Err(gone()),
        }
    }
}

/// A table of a RocksDB as it was.
///
/// An iterator of RocksDB is such a view, but it borrows the database; so it lives on the stack of a thread of its own, which is asked for
/// one piece after the other. Dropping the view ends the thread, and only then is the database free to be closed.
pub struct RocksView {
    ask: Option<SyncSender<usize>>,
    answers: Receiver<Result<Vec<Pair>, StoreError>>,
    reader: Option<JoinHandle<()>>,
}

impl View for RocksView {
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
        let ask = self.ask.as_ref().expect("taken only by drop");
        ask.send(bytes_max).map_err(|_| gone())?;
        self.answers.recv().map_err(|_| gone())?
    }
}

impl Drop for RocksView {
    fn drop(&mut self) {
        self.ask = None;
        if let Some(reader) = self.reader.take() {
            // A panic of the reader was seen as a missing answer.
            let _ = reader.join();
        }
    }
}

fn gone() -> StoreError {
    StoreError::Disk {
        what: "read",
        source: "the reading thread is gone".into(),
    }
}

fn read_for(db: &DB, family: Family, asked: &Receiver<usize>, answer: &SyncSender<Result<Vec<Pair>, StoreError>>) {
    let mut pairs = db.raw_iterator_cf(handle(db, family));
    pairs.seek_to_first();
    let taken = pairs.status().map_err(|e| trouble("read", e));
    let failed = taken.is_err();
    if answer.send(taken.map(|()| Vec::new())).is_err() || failed {
        return;
    }
    while let Ok(bytes_max) = asked.recv() {
        if answer.send(piece(&mut pairs, bytes_max)).is_err() {
            return;
        }
    }
}

fn piece(pairs: &mut DBRawIterator<'_>, bytes_max: usize) -> Result<Vec<Pair>, StoreError> {
    let mut piece = Vec::new();
    let mut bytes = 0;
    while let Some((key, value)) = pairs.item() {
        bytes += key.len() + value.len();
        if bytes > bytes_max && !piece.is_empty() {
            break;
        }
        piece.push((key.to_vec(), value.to_vec()));
        pairs.next();
    }
    // An iterator that failed looks like one at its end.
    pairs.status().map_err(|e| trouble("read", e))?;
    Ok(piece)
}

fn names(path: &Path) -> Result<Vec<String>, StoreError> {
    let name = |file: io::Result<fs::DirEntry>| file.map(|file| file.file_name().to_string_lossy().into_owned());
    let names = fs::read_dir(path).and_then(|files| files.map(name).collect());
    names.map_err(|e| disk("list its folder", e))
}

fn is_data(name: &str) -> bool {
    name == "CURRENT" || name.ends_with(".sst") || name.ends_with(".log")
}

fn disk(what: &'static str, error: io::Error) -> StoreError {
    let source = error.into();
    StoreError::Disk { what, source }
}

/// What an error of an open database means.
fn trouble(what: &'static str, error: rocksdb::Error) -> StoreError {
    let text: &str = error.as_ref();
    // RocksDB gives the operating system's reason as text alone.
    if text.contains("No space left") || text.contains("quota exceeded") {
        let source = error.into();
        return StoreError::Full { what, source };
    }
    let damaged = error.kind() == ErrorKind::Corruption;
    let source = error.into();
    if damaged {
        StoreError::Damaged { source }
    } else {
        StoreError::Disk { what, source }
    }
}

/// What an error of opening means.
fn refused(error: rocksdb::Error) -> StoreError {
    let text: &str = error.as_ref();
    if error.kind() == ErrorKind::IOError && text.contains("/LOCK: ") {
        let held = ["No locks available", "Resource temporarily unavailable", "lock hold by"];
        if held.iter().any(|words| text.contains(words)) {
            return StoreError::Locked;
        }
    }
    trouble("open the database", error)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    thread_local! {
        /// How much of each log an opening made durable.
        static SYNCED: RefCell<BTreeMap<PathBuf, u64>> = RefCell::default();
    }

    pub(super) fn note_synced(log: &Path, bytes: u64) {
        SYNCED.with_borrow_mut(|synced| synced.insert(log.to_owned(), bytes));
    }

    fn logs(folder: &Path) -> Vec<PathBuf> {
        let mut logs: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        logs.sort();
        logs
    }

    fn written(key: u8, value: &[u8]) -> Batch {
        let mut batch = Batch::default();
        batch.put(Family::Meta, vec![key], value.to_vec());
        batch
    }

    #[test]
    fn a_power_cut_after_a_lazy_reopening_takes_nothing_that_came_before_what_it_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let mut tables = Rocks::create(folder.path()).unwrap();
        tables.write(written(1, b"acknowledged"), Durability::Synced).unwrap();
        let durable: BTreeMap<PathBuf, u64> = logs(folder.path())
            .into_iter()
            .map(|log| (log.clone(), fs::metadata(&log).unwrap().len()))
            .collect();
        // As rows and what is applied: not synced, and the process ends.
        tables.write(written(2, b"later"), Durability::Later).unwrap();
        drop(tables);
        SYNCED.take();
        let mut tables = Rocks::open(folder.path()).unwrap();
        tables
            .write(written(3, b"acknowledged too"), Durability::Synced)
            .unwrap();
        drop(tables);

        // The power goes: of every log but the newest, which was synced, there is what was made durable.
        let mut durable = durable;
        durable.extend(SYNCED.take());
        let mut logs = logs(folder.path());
        let newest = logs.pop().unwrap();
        assert!(!logs.is_empty(), "the older log is still there, or this shows nothing");
        for log in logs {
            let length = durable.get(&log).copied().unwrap_or(0);
            fs::OpenOptions::new()
                .write(true)
                .open(&log)
                .unwrap()
                .set_len(length)
                .unwrap();
        }
        assert!(fs::metadata(newest).unwrap().len() > 0);
        let tables = Rocks::open(folder.path()).unwrap();
        let read = |key: u8| tables.get(Family::Meta, &[key]).unwrap();
        assert_eq!(read(1).as_deref(), Some(&b"acknowledged"[..]));
        assert_eq!(read(3).as_deref(), Some(&b"acknowledged too"[..]));
        assert_eq!(
            read(2).as_deref(),
            Some(&b"later"[..]),
            "what is older than what is there is there"
        );
    }

    crate::store::conformance::tables_suite!(|| {
        let folder = tempfile::tempdir().unwrap();
        let tables = Rocks::create(folder.path()).unwrap();
        (folder, tables)
    });
}
