//! How RocksDB is set up: bounded memory, nothing read on open but what names the files.
//!
//! Keys are hashes, so every lookup lands anywhere: what counts is one filter probe for an unknown id and one small block for
//! a known one. Memory is the block cache, which also holds filters and index blocks, and two memtables.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode, LogLevel,
    Options,
};

/// Entries by id.
pub(super) const CHUNKS: &str = "chunks";
/// Writers by number, and back.
pub(super) const WRITERS: &str = "writers";
/// Noted damage.
pub(super) const DAMAGE: &str = "damage";
/// The slots that are here.
pub(super) const SLOTS: &str = "slots";
/// Packs that are in whole, by generation of slots.
pub(super) const PACKS: &str = "packs";
/// Stamp, witness and life.
pub(super) const META: &str = "meta";
/// RocksDB insists on this one; it stays empty.
const DEFAULT: &str = "default";
/// All of them.
pub(super) const FAMILIES: [&str; 7] = [DEFAULT, CHUNKS, WRITERS, DAMAGE, SLOTS, PACKS, META];

/// Blocks, filters and index blocks in memory, of a small index.
pub(super) const CACHE_BYTES: usize = 32 << 20;
/// And of the largest: a thousand million entries.
const CACHE_BYTES_MAX: usize = 1700 << 20;
/// Eighths of a byte of cache an entry: with the memtables, 2 B at 100 million. Filters (7 bits) and index blocks (3 bits) are 1.3 B, and as long as
/// they stay in memory a lookup of an unknown id reads nothing and one of a known id a single block.
const CACHE_EIGHTHS: u64 = 13;
/// Entries collect here before they are written as a sorted file; two of them.
const MEMTABLE_BYTES: usize = 16 << 20;
/// The small tables' memtables.
const SMALL_MEMTABLE_BYTES: usize = 1 << 20;
/// What is replayed on open at most.
const WAL_BYTES: u64 = 64 << 20;
/// 100 million entries are some 200 files of 34 MB as they are filled, and 110 of 64 MiB when they were merged.
const OPEN_FILES: i32 = 512;
const FILE_BYTES: u64 = 64 << 20;
/// One lookup reads one block, so small ones: about 60 entries.
const BLOCK_BYTES: usize = 4 << 10;
/// As good as a Bloom filter of so many bits a key (1 % false positives), at 7 bits a key.
const FILTER_BITS: f64 = 10.0;

/// Memory for the cache of an index of so many entries.
pub(super) fn cache_bytes(entries: u64) -> usize {
    let bytes = usize::try_from(entries.saturating_mul(CACHE_EIGHTHS) / 8).unwrap_or(usize::MAX);
    bytes.clamp(CACHE_BYTES, CACHE_BYTES_MAX)
}

/// Options of the database as a whole.
pub(super) fn database() -> Options {
    let mut options = Options::default();
    options.set_max_open_files(OPEN_FILES);
    options.set_max_file_opening_threads(2);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(WAL_BYTES);
    options.set_bytes_per_sync(1 << 20);
    options.set_compaction_readahead_size(512 << 10);
    // Left on: the properties of at most 20 files are read on open, so that entries can be counted.
    options.set_skip_stats_update_on_db_open(false);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(16 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    // The tail that a crash cut off was never acknowledged. Damage before it, or a log that is missing, was, and must not pass in
    // silence (the default mode would stop there and open): it makes the index stale.
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options
}

/// The tables, sharing one block cache.
pub(super) fn families(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    let family = |name| ColumnFamilyDescriptor::new(name, if name == CHUNKS { chunks(cache) } else { small(cache) });
    FAMILIES.into_iter().map(family).collect()
}

/// Options of the table of entries, and of files made for it.
pub(super) fn chunks(cache: &Cache) -> Options {
    let mut table = blocks(cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_metadata_block_size(BLOCK_BYTES);
    // Filters and indexes in small partitions: what is not asked is not in memory.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_pin_top_level_index_and_filter(true);
    table.set_whole_key_filtering(true);
    table.set_optimize_filters_for_memory(true);
    // Bloom for files that live for minutes, ribbon (smaller, slower to make) below.
    table.set_hybrid_ribbon_filter(FILTER_BITS, 1);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // Half of a row is a hash, and every lookup would unpack a block. Not yet measured against LZ4 (benches/index).
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(MEMTABLE_BYTES);
    // A first backup asks mostly for what is not there: a filter answers for entries that are not in a file yet, too.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.05);
    options.set_max_write_buffer_number(2);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_bytes_for_level_base(4 * MEMTABLE_BYTES as u64);
    options.set_level_compaction_dynamic_level_bytes(true);
    options
}

fn small(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&blocks(cache));
    options.set_compression_type(DBCompressionType::None);
    options.set_write_buffer_size(SMALL_MEMTABLE_BYTES);
    options.set_max_write_buffer_number(2);
    options
}

fn blocks(cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_format_version(6);
    table
}
