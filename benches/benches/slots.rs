//! Slots of the index: how fast an owner answers other workers, and how long the slots of one that died are not whole.
//!
//! Of a vault with `TRESOR_BENCH_INDEX` entries (10 million by default; 100 million need 8 GB of disk in `TRESOR_BENCH_DIR` and 4 GB of memory) four
//! workers answer for a quarter each.
//!
//! - *Remote lookups*: one of them is asked over mutual TLS on the loopback interface, in batches of 512 ids of which half are known, first as fast as it
//!   answers, then at half of that: the times of single batches then.
//! - *A dead owner*: its slots are granted to the three others, which make them from its checkpoints, from the segments of the packs that those lack
//!   (one in sixteen), and from one list of packs that one of them makes. All three do so at once on this machine, from a store in memory; the time
//!   until the last one is whole has no detection in it. Then one of them alone, as on a machine of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::runtime::{Handle, Runtime};
use tresor_coordinator::security::Authority;
use tresor_proto::tls::{PeerName, Role, SharedIdentity};
use tresor_storage::backend::{Backend, Memory};
use tresor_storage::chunk::Profile;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, VaultId, Writer};
use tresor_storage::index::checkpoint;
use tresor_storage::index::rebuild::PackList;
use tresor_storage::index::rebuild::slots::rebuild_slots;
use tresor_storage::index::rocks::FILE_ENTRIES;
use tresor_storage::index::segment::SegmentBuilder;
use tresor_storage::index::slot::{SLOTS, SlotSet, groups_in, slot_of};
use tresor_storage::index::{Found, RocksIndex, Stamp};
use tresor_storage::keys::Keyring;
use tresor_storage::limits::{INDEX_BATCH, SEGMENT_PACKS_MAX};
use tresor_storage::pack::{FinishedPack, PackBuilder, PiecesBuilder};
use tresor_storage::seal::{FrameKind, ObjectKind, compress, seal_object};
use tresor_storage::vault::{Vault, names};
use tresor_worker::slots::measured::Measured;

const CLUSTER: ClusterId = ClusterId(1);
const STAMP: Stamp = Stamp {
    vault: VaultId([1; 16]),
    cluster: CLUSTER,
    claim: 1,
};
/// Chunks of a pack of 32 MiB, about.
const PACK_CHUNKS: u64 = 2000;
/// One pack in so many is in no checkpoint: half of what collects between two of them.
const LACKING: u64 = 16;
/// Owners of slots, one of which dies.
const OWNERS: u16 = 4;
/// Batches on their way to one owner.
const AHEAD: usize = 4;

fn id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

fn pack_of(n: u64) -> PackId {
    let pack = n / PACK_CHUNKS;
    PackId {
        writer: Writer {
            cluster: CLUSTER,
            session: SessionId(pack / 256),
            part: PartId(pack / 256),
        },
        seq: (pack % 256) as u32,
    }
}

fn found(n: u64) -> Found {
    Found {
        id: id(n),
        location: Location {
            pack: pack_of(n),
            frame_offset: 96 + (n % PACK_CHUNKS / 16) as u32 * 230_000,
            frame_length: 225_000,
            place: (n % 16 * 7) as u32,
        },
        is_lost: false,
    }
}

/// Slots of one owner.
fn slots_of(owner: u16) -> SlotSet {
    (0..SLOTS).filter(|slot| slot % OWNERS == owner).collect()
}

/// Fills slots of a new database with the first `entries` entries that are theirs, in the order of ids.
async fn fill(index: &RocksIndex, slots: &SlotSet, entries: u64) {
    index.begin_slots(slots, 1).await.expect("the disk has space");
    let filling = index.filling(slots);
    let mut numbers: Vec<(u16, u64)> = (0..entries)
        .map(|n| (slot_of(&id(n)), n))
        .filter(|(slot, _)| slots.contains(*slot))
        .collect();
    numbers.sort_unstable();
    let mut rest = numbers.as_slice();
    while !rest.is_empty() {
        let last = rest[rest.len().min(FILE_ENTRIES) - 1].0;
        // Whole slots, so that their ids ascend from one batch to the next.
        let end = match rest.partition_point(|(slot, _)| *slot < last) {
            before if before > 0 && rest.len() > FILE_ENTRIES => before,
            _ => rest.partition_point(|(slot, _)| *slot <= last),
        };
        let (batch, after) = rest.split_at(end);
        rest = after;
        let mut batch: Vec<Found> = batch.iter().map(|(_, n)| found(*n)).collect();
        batch.sort_unstable_by_key(|found| found.id);
        filling.add_sorted(batch).await.expect("the disk has space");
    }
    let packs = (0..entries).step_by(PACK_CHUNKS as usize).map(pack_of).collect();
    filling.add_packs(packs).await.expect("the disk has space");
    index.complete_slots(slots, 1).await.expect("the disk has space");
}

/// A pack whose chunks are zeros under the names of `first..`: its footer is what counts.
fn real_pack(vault: &Vault, first: u64) -> FinishedPack {
    let mut builder = PackBuilder::new(&vault.keyring, vault.id, pack_of(first)).expect("keys are there");
    let numbers: Vec<u64> = (first..first + PACK_CHUNKS).collect();
    for frame in numbers.chunks(16) {
        let mut table = PiecesBuilder::new(FrameKind::Data);
        for _ in frame {
            table.add(4096);
        }
        let mut plain = table.table();
        plain.resize(plain.len() + frame.len() * 4096, 0);
        let ids: Vec<ChunkId> = frame.iter().map(|n| id(*n)).collect();
        builder
            .place(FrameKind::Data, &table, &ids, &compress(&plain, 1))
            .expect("it has room");
    }
    builder.finish().expect("keys are there")
}

/// Puts what the store has: names of packs, and segments of those that checkpoints lack.
async fn put_packs(vault: &Vault, entries: u64, covered: u64) {
    let put = |name: String, bytes: Bytes| async move {
        vault.backend.create(&name, &[bytes]).await.expect("memory has space");
    };
    for first in (0..covered).step_by(PACK_CHUNKS as usize) {
        put(names::pack(pack_of(first)), Bytes::from_static(b"!")).await;
    }
    let lacking: Vec<u64> = (covered..entries).step_by(PACK_CHUNKS as usize).collect();
    let of_writer = |first: &u64| pack_of(*first).writer;
    for of_one in lacking.chunk_by(|a, b| of_writer(a) == of_writer(b)) {
        for (number, packs) in of_one.chunks(SEGMENT_PACKS_MAX * 7 / 8).enumerate() {
            let mut segment = SegmentBuilder::new();
            for first in packs {
                let pack = real_pack(vault, *first);
                let object = Bytes::copy_from_slice(&pack.object);
                segment
                    .add(pack_of(*first), object.len() as u64, pack.footer_plain.clone())
                    .expect("it has room");
                put(pack.name, object).await;
            }
            let (writer, seq) = (of_writer(&packs[0]), number as u32);
            let name = names::segment(PackId { writer, seq });
            let plain = segment.finish();
            let sealed = seal_object(
                &vault.keyring,
                ObjectKind::Segment,
                vault.id,
                writer,
                seq,
                &name,
                &plain,
            );
            put(name, sealed.expect("keys are there")).await;
        }
    }
}

async fn write_checkpoints(vault: &Arc<Vault>, dead: &RocksIndex, slots: &SlotSet) -> u64 {
    let writer = Writer {
        cluster: CLUSTER,
        session: SessionId(1),
        part: PartId(1),
    };
    let mut bytes = 0;
    for (number, group) in groups_in(slots.groups()).enumerate() {
        let ours = SlotSet::of_group(group, slots.group(group));
        let written = checkpoint::write(vault, dead, group, &ours, writer, number as u32)
            .await
            .expect("memory has space");
        bytes += written.map_or(0, |written| written.bytes);
    }
    bytes
}

/// One survivor makes its share; answers how long it took, and what was read.
async fn survive(vault: Arc<Vault>, path: std::path::PathBuf, share: SlotSet, list: Vec<u8>) -> (Duration, u64, u64) {
    let index = RocksIndex::create(&path, STAMP).await.expect("the disk has space");
    let start = Instant::now();
    let list = PackList::decode(&list).expect("it was just encoded");
    index.begin_slots(&share, 2).await.expect("the disk has space");
    let report = rebuild_slots(&vault, &index, &share, &list, &|_| false, &mut |_| {})
        .await
        .expect("the store is whole");
    index.complete_slots(&share, 2).await.expect("the disk has space");
    assert!(report.read.findings.is_empty(), "{:?}", report.read.findings);
    assert_eq!(report.slots_bare, 0);
    (
        start.elapsed(),
        report.checkpoint_entries + report.read.entries,
        report.read.segments_read,
    )
}

fn identities() -> (SharedIdentity, SharedIdentity) {
    let now = jiff::Timestamp::now().as_second();
    let cluster = [9; 16];
    let authority = Authority::create(cluster, now).expect("there is randomness");
    let of = |id| {
        let name = PeerName {
            cluster,
            role: Role::Worker,
            id,
        };
        SharedIdentity::new(authority.identity(name, now).expect("the name is good"))
    };
    (of(1), of(2))
}

fn percentile(sorted: &[Duration], share: f64) -> f64 {
    let at = ((sorted.len() - 1) as f64 * share).round() as usize;
    sorted[at].as_secs_f64() * 1e3
}

/// Batches of so many ids of the owner's slots, every second one known.
fn questions(slots: &SlotSet, entries: u64, count: usize, size: usize) -> Vec<Vec<ChunkId>> {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = |known: bool| loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let id = id(random % entries + if known { 0 } else { entries });
        if slots.contains(slot_of(&id)) {
            return id;
        }
    };
    (0..count)
        .map(|_| (0..size).map(|at| draw(at % 2 == 0)).collect())
        .collect()
}

/// How many batches of a size are answered, and how fast at a half and a quarter of that.
async fn at_loads(measured: &Arc<Measured>, slots: &SlotSet, entries: u64, size: usize) {
    const IDS: usize = 1 << 20;
    const BATCHES: usize = 8192;
    let batches = (IDS / size).min(BATCHES);
    let asked = Arc::new(questions(slots, entries, batches, size));
    let start = Instant::now();
    let askers: Vec<_> = (0..AHEAD)
        .map(|asker| {
            let (measured, asked) = (Arc::clone(measured), Arc::clone(&asked));
            tokio::spawn(async move {
                for ids in asked.iter().skip(asker).step_by(AHEAD) {
                    let known = measured.known(ids).await.expect("it answers");
                    assert_eq!(known, ids.len() / 2);
                }
            })
        })
        .collect();
    for asker in askers {
        asker.await.expect("no asker panics");
    }
    let full = batches as f64 / start.elapsed().as_secs_f64();
    eprintln!(
        "remote lookups of {size} ids: {:.0} batches a second, {:.0} ids a second, {AHEAD} at once",
        full,
        full * size as f64
    );
    for load in [0.5, 0.25] {
        let mut times = paced(measured, &asked, Duration::from_secs_f64(1.0 / (full * load))).await;
        times.sort_unstable();
        eprintln!(
            "remote lookups of {size} ids at {:.0} % of that: {:.2} ms median, {:.2} ms p99, {:.2} ms worst",
            load * 100.0,
            percentile(&times, 0.5),
            percentile(&times, 0.99),
            percentile(&times, 1.0)
        );
    }
}

/// Asks one batch at each beat, however many are on their way. Times are from the beat on, so that one that waits for another
/// counts its waiting. A thread of its own keeps the beat: the runtime's timers are of whole milliseconds.
async fn paced(measured: &Arc<Measured>, asked: &Arc<Vec<Vec<ChunkId>>>, pause: Duration) -> Vec<Duration> {
    let (runtime, measured, asked) = (Handle::current(), Arc::clone(measured), Arc::clone(asked));
    let beat = std::thread::spawn(move || {
        let start = Instant::now();
        let ask = |at: usize| {
            let due = start + pause * u32::try_from(at).expect("some thousands");
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let (measured, asked) = (Arc::clone(&measured), Arc::clone(&asked));
            runtime.spawn(async move {
                measured.known(&asked[at]).await.expect("it answers");
                due.elapsed()
            })
        };
        (0..asked.len()).map(ask).collect::<Vec<_>>()
    });
    let waiting = tokio::task::spawn_blocking(|| beat.join().expect("the beat does not panic")).await;
    let mut times = Vec::new();
    for one in waiting.expect("it does not panic") {
        times.push(one.await.expect("no asker panics"));
    }
    times
}

async fn lookups(index: RocksIndex, folder: &Path, slots: &SlotSet, entries: u64) {
    let (answers, asks) = identities();
    let measured = Measured::start(index, folder, slots, &answers, &asks)
        .await
        .expect("a port is free");
    let measured = Arc::new(measured);
    // What the asking takes, of a connection that is there.
    for ids in questions(slots, entries, 50, INDEX_BATCH) {
        measured.known(&ids).await.expect("it answers");
    }
    // Whole batches, as of a backup that reads faster than the index answers; and what a pipeline has at hand otherwise.
    for size in [INDEX_BATCH, INDEX_BATCH / 4, INDEX_BATCH / 32] {
        at_loads(&measured, slots, entries, size).await;
    }
    Arc::into_inner(measured).expect("all askers are done").stop().await;
}

fn main() {
    let entries: u64 = std::env::var("TRESOR_BENCH_INDEX")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000_000);
    let folder = std::env::var_os("TRESOR_BENCH_DIR").map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::TempDir::new_in(folder).expect("the folder can be written");
    let runtime = Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let backend: Arc<dyn Backend> = Arc::new(Memory::new());
        let vault = Arc::new(Vault::new(
            STAMP.vault,
            Profile::default(),
            backend,
            Keyring::generate(),
        ));
        let covered = entries / LACKING * (LACKING - 1) / (PACK_CHUNKS * 256) * (PACK_CHUNKS * 256);
        let slots = slots_of(0);
        let path = folder.path().join("dead");
        let dead = RocksIndex::create(&path, STAMP).await.expect("the disk has space");
        fill(&dead, &slots, covered).await;
        put_packs(&vault, entries, covered).await;
        let start = Instant::now();
        let bytes = write_checkpoints(&vault, &dead, &slots).await;
        eprintln!(
            "a quarter of {entries} entries; checkpoints of it: {} MiB in {:.1} s",
            bytes >> 20,
            start.elapsed().as_secs_f64()
        );

        let start = Instant::now();
        let list = PackList::list(&vault).await.expect("the store is whole").encode();
        eprintln!(
            "list of {} packs made in {:.0} ms, {} KiB to hand on",
            entries / PACK_CHUNKS,
            start.elapsed().as_secs_f64() * 1e3,
            list.len() >> 10
        );
        let shares: Vec<SlotSet> = (0..usize::from(OWNERS - 1))
            .map(|survivor| {
                let of_it = slots.iter().enumerate().filter(|(at, _)| at % 3 == survivor);
                of_it.map(|(_, slot)| slot).collect()
            })
            .collect();
        let start = Instant::now();
        let survivors: Vec<_> = shares
            .iter()
            .enumerate()
            .map(|(number, share)| {
                let path = folder.path().join(format!("survivor-{number}"));
                tokio::spawn(survive(Arc::clone(&vault), path, share.clone(), list.clone()))
            })
            .collect();
        let mut made = 0;
        for survivor in survivors {
            let (took, entries, segments) = survivor.await.expect("no survivor panics");
            made += entries;
            eprintln!(
                "survivor: {entries} entries in {:.1} s, {segments} segments read",
                took.as_secs_f64()
            );
        }
        eprintln!(
            "three survivors on this machine: {made} entries whole after {:.1} s",
            start.elapsed().as_secs_f64()
        );
        let path = folder.path().join("alone");
        let (took, alone, _) = survive(Arc::clone(&vault), path, shares[0].clone(), list).await;
        eprintln!("one survivor alone: {alone} entries in {:.1} s", took.as_secs_f64());

        drop(vault);
        lookups(dead, folder.path(), &slots, covered).await;
    });
}
