//! How fast the chunk index answers, and what an entry costs in memory and on disk.
//!
//! `TRESOR_BENCH_INDEX=100000000` sets the number of entries (1 million by default); the index is made in the system's temporary folder,
//! or the one that `TRESOR_BENCH_DIR` names. Ids are asked in batches of 512 at random, half of the question: as a backup asks.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, VaultId, Writer};
use tresor_storage::index::{ChunkIndex, IndexSession, RocksIndex, Stamp};
use tresor_storage::limits::INDEX_BATCH;

const STAMP: Stamp = Stamp {
    vault: VaultId([1; 16]),
    cluster: ClusterId(1),
    claim: 1,
};
const SESSION: IndexSession = IndexSession {
    cluster: ClusterId(1),
    session: SessionId(1),
    start_epoch: 0,
};
/// Chunks of a pack of 32 MiB, about.
const PACK_CHUNKS: u64 = 2000;
const LOAD_BATCH: u64 = 64 * PACK_CHUNKS;

fn id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn location(n: u64) -> Location {
    let pack = n / PACK_CHUNKS;
    let writer = Writer {
        cluster: ClusterId(1),
        session: SessionId(pack / 100),
        part: PartId(pack / 100),
    };
    let frame = n % PACK_CHUNKS / 16;
    Location {
        pack: PackId {
            writer,
            seq: (pack % 100) as u32,
        },
        frame_offset: 96 + frame as u32 * 230_000,
        frame_length: 200_000 + u32::from(id(n).0[0]) * 100,
        place: (n % 16 * 7) as u32,
    }
}

fn resident() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

fn folder_bytes(path: &Path) -> u64 {
    let files = fs::read_dir(path).expect("the folder was made").flatten();
    files
        .filter_map(|file| file.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn load(runtime: &Runtime, path: &Path, entries: u64) {
    let start = Instant::now();
    let index = runtime.block_on(async {
        let load = RocksIndex::load(path, STAMP)
            .await
            .expect("an empty folder takes an index");
        for first in (0..entries).step_by(LOAD_BATCH as usize) {
            let batch = (first..entries.min(first + LOAD_BATCH))
                .map(|n| (id(n), location(n)))
                .collect();
            load.add(batch).await.expect("the disk has space");
        }
        load.finish(None).await.expect("the disk has space")
    });
    let seconds = start.elapsed().as_secs_f64();
    drop(index);
    let bytes = folder_bytes(path);
    eprintln!(
        "loaded {entries} entries in {seconds:.1} s ({:.0} a second), {:.1} B an entry on disk",
        entries as f64 / seconds,
        bytes as f64 / entries as f64
    );
}

fn main() {
    let mut criterion = Criterion::default()
        .configure_from_args()
        .measurement_time(Duration::from_secs(5))
        .sample_size(20);
    let entries = std::env::var("TRESOR_BENCH_INDEX")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000_000u64);
    let folder = std::env::var_os("TRESOR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::TempDir::new_in(folder).expect("the folder can be written");
    let path = folder.path().join("index");
    let runtime = Runtime::new().expect("threads can be started");
    load(&runtime, &path, entries);

    let before = resident();
    let start = Instant::now();
    let index = runtime
        .block_on(RocksIndex::open(&path, STAMP))
        .expect("it was just made");
    eprintln!(
        "opened in {:.1} ms, {} KiB resident",
        start.elapsed().as_secs_f64() * 1e3,
        (resident() - before.min(resident())) >> 10
    );

    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(INDEX_BATCH as u64));
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for (name, first) in [("known", 0), ("unknown", entries)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    (0..INDEX_BATCH)
                        .map(|_| id(first + draw() % entries))
                        .collect::<Vec<_>>()
                },
                |ids| {
                    black_box(
                        runtime
                            .block_on(index.lookup(SESSION, &ids))
                            .expect("the index answers"),
                    )
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    // Entries as one pack brings them, and its sync.
    let mut next = entries * 2;
    group.throughput(Throughput::Elements(PACK_CHUNKS));
    group.bench_function("insert a pack", |bencher| {
        bencher.iter_batched(
            || {
                next += PACK_CHUNKS;
                (next..next + PACK_CHUNKS)
                    .map(|n| (id(n), location(n)))
                    .collect::<Vec<_>>()
            },
            |pack| {
                runtime
                    .block_on(index.insert(SESSION, &pack))
                    .expect("the disk has space");
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
    let memory = index.memory();
    eprintln!(
        "memory after all: {memory:?}, {:.2} B an entry in the cache, {} KiB resident",
        memory.cache as f64 / entries as f64,
        (resident() - before.min(resident())) >> 10
    );
    criterion.final_summary();
}
