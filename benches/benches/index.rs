//! How fast the chunk index answers, and what an entry costs in memory and on disk.
//!
//! `TRESOR_BENCH_INDEX=100000000` sets the number of entries (1 million by default); the index is made in the system's temporary folder,
//! or the one that `TRESOR_BENCH_DIR` names. Ids are asked in batches of 512 at random: known ones, unknown ones, and half and half as a backup asks; without
//! and with a touch that must be written, by one thread and by two; and by sixteen at once, with the files in memory and as they lie.
//!
//! `TRESOR_BENCH_LOAD=rows` makes the index as the first opening of a home does; otherwise it is made as the new owner of slots makes it of checkpoints,
//! as sorted files.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use tokio::runtime::Runtime;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, VaultId, Writer};
use tresor_storage::index::rocks::FILE_ENTRIES;
use tresor_storage::index::slot::{SlotSet, slot_of};
use tresor_storage::index::{ChunkIndex, Found, IndexSession, RocksIndex, Stamp};
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

/// Makes it from sorted entries, a group of slots at a time. Only the index's own work is timed.
fn load_sorted(runtime: &Runtime, path: &Path, entries: u64) -> f64 {
    let mut numbers: Vec<(u16, u64)> = (0..entries).map(|n| (slot_of(&id(n)), n)).collect();
    numbers.sort_unstable();
    let mut seconds = 0.0;
    runtime.block_on(async {
        let index = RocksIndex::create(path, STAMP)
            .await
            .expect("an empty folder takes an index");
        index.begin_slots(&SlotSet::all(), 1).await.expect("the disk has space");
        let filling = index.filling(&SlotSet::all());
        let mut rest = numbers.as_slice();
        while !rest.is_empty() {
            // Whole slots, so that their ids ascend from one batch to the next.
            let last = rest[rest.len().min(FILE_ENTRIES) - 1].0;
            let end = match rest.partition_point(|(slot, _)| *slot < last) {
                0 => rest.partition_point(|(slot, _)| *slot <= last),
                before if rest.len() > FILE_ENTRIES => before,
                _ => rest.len(),
            };
            let (batch, after) = rest.split_at(end);
            rest = after;
            let found = |(_, n): &(u16, u64)| Found {
                id: id(*n),
                location: location(*n),
                is_lost: false,
            };
            let mut batch: Vec<Found> = batch.iter().map(found).collect();
            batch.sort_unstable_by_key(|found| found.id);
            let start = Instant::now();
            filling.add_sorted(batch).await.expect("the disk has space");
            seconds += start.elapsed().as_secs_f64();
        }
        let start = Instant::now();
        index
            .complete_slots(&SlotSet::all(), 1)
            .await
            .expect("the disk has space");
        seconds += start.elapsed().as_secs_f64();
    });
    seconds
}

/// Makes it as a home does, in the order of packs.
fn load_rows(runtime: &Runtime, path: &Path, entries: u64) -> f64 {
    let start = Instant::now();
    runtime.block_on(async {
        let load = RocksIndex::load(path, STAMP)
            .await
            .expect("an empty folder takes an index");
        for first in (0..entries).step_by(LOAD_BATCH as usize) {
            let batch = (first..entries.min(first + LOAD_BATCH))
                .map(|n| (id(n), location(n)))
                .collect();
            load.add(batch).await.expect("the disk has space");
        }
        load.finish(None).await.expect("the disk has space");
    });
    start.elapsed().as_secs_f64()
}

fn load(runtime: &Runtime, path: &Path, entries: u64) {
    let by_rows = std::env::var_os("TRESOR_BENCH_LOAD").is_some_and(|how| how == "rows");
    let seconds = if by_rows {
        load_rows(runtime, path, entries)
    } else {
        load_sorted(runtime, path, entries)
    };
    let bytes = folder_bytes(path);
    eprintln!(
        "loaded {entries} entries in {seconds:.1} s ({:.0} a second), {:.1} B an entry on disk",
        entries as f64 / seconds,
        bytes as f64 / entries as f64
    );
}

/// Seconds of all cores that this process has used.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may have spaces; the 14th and 15th field of all, in hundredths.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

/// Reads all files, so that the system has them in memory.
fn warm(path: &Path) {
    for file in fs::read_dir(path).expect("the folder was made").flatten() {
        let mut file = fs::File::open(file.path()).expect("the file is there");
        std::io::copy(&mut file, &mut std::io::sink()).expect("the file can be read");
    }
}

/// Many ask at once, as segments of running backups do: what a core gives, and what all give together.
fn sustained(runtime: &Runtime, index: &RocksIndex, what: &str, mut question: impl FnMut() -> Vec<ChunkId>) {
    const ASKERS: usize = 16;
    const ROUNDS: usize = 40;
    let questions: Vec<Vec<Vec<ChunkId>>> = (0..ASKERS).map(|_| (0..ROUNDS).map(|_| question()).collect()).collect();
    let (start, cpu) = (Instant::now(), cpu_seconds());
    runtime.block_on(async {
        let askers: Vec<_> = questions
            .into_iter()
            .map(|questions| {
                let index = index.clone();
                runtime.spawn(async move {
                    for ids in questions {
                        black_box(index.lookup(SESSION, &ids).await.expect("the index answers"));
                    }
                })
            })
            .collect();
        for asker in askers {
            asker.await.expect("no lookup panics");
        }
    });
    let (wall, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let lookups = (ASKERS * ROUNDS * INDEX_BATCH) as f64;
    eprintln!(
        "{what}, {ASKERS} at once: {:.0} lookups a second, {:.0} a core's second",
        lookups / wall,
        lookups / cpu
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
    let mut question = move |known: u64| -> Vec<ChunkId> {
        let ask = |n: u64| id(if n % 2 < known { 0 } else { entries } + draw() % entries);
        (0..INDEX_BATCH as u64).map(ask).collect()
    };
    for (name, known) in [("known", 2), ("unknown", 0), ("half known", 1)] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || question(known),
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
    drop(group);
    sustained(&runtime, &index, "half known", || question(1));
    warm(&path);
    sustained(&runtime, &index, "half known, files in memory", || question(1));
    sustained(&runtime, &index, "known, files in memory", || question(2));
    sustained(&runtime, &index, "unknown, files in memory", || question(0));
    let mut group = criterion.benchmark_group("index");
    group.throughput(Throughput::Elements(INDEX_BATCH as u64));
    // Every answer raises its entry's epoch, which is written.
    let mut epoch = 0;
    group.bench_function("half known, touched", |bencher| {
        bencher.iter_batched(
            || {
                epoch += 1;
                let session = IndexSession {
                    start_epoch: epoch,
                    ..SESSION
                };
                (session, question(1))
            },
            |(session, ids)| {
                black_box(
                    runtime
                        .block_on(index.lookup(session, &ids))
                        .expect("the index answers"),
                )
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::Elements(2 * INDEX_BATCH as u64));
    group.bench_function("half known, by two", |bencher| {
        bencher.iter_batched(
            || [question(1), question(1)],
            |questions| {
                let asked = questions.map(|ids| {
                    let index = index.clone();
                    runtime.spawn(async move { index.lookup(SESSION, &ids).await.expect("the index answers") })
                });
                runtime.block_on(async {
                    for answers in asked {
                        black_box(answers.await.expect("no lookup panics"));
                    }
                });
            },
            criterion::BatchSize::SmallInput,
        );
    });
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
        "memory after all: {memory:?}, {:.2} B an entry in all, {} KiB resident",
        (memory.cache + memory.memtables + memory.tables) as f64 / entries as f64,
        (resident() - before.min(resident())) >> 10
    );
    criterion.final_summary();
}
