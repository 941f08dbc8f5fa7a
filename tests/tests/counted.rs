//! What a job costs in calls, counted: puts, reads, lists, lookups. Timing belongs to benches.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use tresor_storage::backend::faulty::{Fault, Faulty, On, Rule};
use tresor_storage::backend::{Counters, Memory, Metered, Traffic};
use tresor_storage::limits::{PACK_TARGET, SEGMENT};
use tresor_storage::vault::names;
use tresor_tests::disk::Disk;
use tresor_tests::random::Random;
use tresor_tests::vault::Stage;
use tresor_worker::backup::Changes;
use tresor_worker::extent::Extent;

async fn counted() -> (Stage, Arc<Counters>) {
    let counters = Arc::new(Counters::default());
    let metered = Arc::clone(&counters);
    (
        Stage::wrapped(|memory| Arc::new(Metered::new(memory, metered))).await,
        counters,
    )
}

fn since(counters: &Counters, before: &Traffic) -> Traffic {
    let now = counters.snapshot();
    Traffic {
        puts: now.puts - before.puts,
        gets: now.gets - before.gets,
        heads: now.heads - before.heads,
        lists: now.lists - before.lists,
        deletes: now.deletes - before.deletes,
        bytes_put: now.bytes_put - before.bytes_put,
        bytes_got: now.bytes_got - before.bytes_got,
        ..Traffic::default()
    }
}

/// A disk of bytes that do not compress, with a hole in its middle.
fn noise(random: &mut Random, size: usize) -> Disk {
    let mut disk = Disk::empty(size);
    disk.bytes = random.bytes(size);
    disk.bytes[size / 2..size / 2 + 300_000].fill(0);
    disk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_disk_costs_no_lookup_and_one_object() {
    let (stage, counters) = counted().await;
    let disk = noise(&mut Random::seeded(1), 5 * SEGMENT as usize + 12_345);
    let first = stage.back_up(&[("vda", &disk)], None).await.unwrap();
    assert!(first.counts.lookups > 0);

    let before = counters.snapshot();
    let second = stage.back_up(&[("vda", &disk)], Some(&first.manifest)).await.unwrap();
    let cost = since(&counters, &before);
    assert_eq!(second.counts.lookups, 0, "every segment is the parent's");
    assert_eq!(
        (second.counts.chunks_new, second.counts.chunks_known),
        (0, 0),
        "known by their fingerprints, no chunk is named"
    );
    assert_eq!(second.counts.segments_inherited, 6);
    assert_eq!(cost.puts, 1, "the manifest");
    assert_eq!(cost.lists, 0);
    assert_eq!(
        second.manifest.disks, first.manifest.disks,
        "equal disks have equal roots"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_changes_are_all_that_is_read_and_unchanged_segments_cost_nothing() {
    let (stage, counters) = counted().await;
    let mut disk = noise(&mut Random::seeded(2), 5 * SEGMENT as usize);
    let first = stage.back_up(&[("vda", &disk)], None).await.unwrap();
    disk.bytes[SEGMENT as usize + 70_000..SEGMENT as usize + 70_100].fill(0x55);

    let before = counters.snapshot();
    let changes = Changes::Only(vec![Extent::new(SEGMENT + 70_000, 100)]);
    let second = stage
        .back_up_changes(vec![("vda", &disk, changes)], Some(&first.manifest))
        .await
        .unwrap();
    let cost = since(&counters, &before);
    assert!(
        second.counts.bytes_read <= 512 << 10,
        "{} bytes read for 100 changed",
        second.counts.bytes_read
    );
    assert!(second.counts.lookups <= 8, "{} lookups", second.counts.lookups);
    assert_eq!(cost.puts, 3, "one pack, one index segment, one manifest");
    assert_eq!(cost.lists, 0);
    stage
        .expect_restores(&second.manifest, &[("vda", &disk.bytes)], "after known changes")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_the_vault_has_is_not_put_again() {
    let (stage, counters) = counted().await;
    let disk = noise(&mut Random::seeded(3), 9 << 20);
    stage.back_up(&[("vda", &disk)], None).await.unwrap();

    let before = counters.snapshot();
    let clone = stage.back_up(&[("clone", &disk)], None).await.unwrap();
    let cost = since(&counters, &before);
    assert_eq!((clone.counts.chunks_new, clone.counts.bytes_new), (0, 0));
    assert!(
        cost.puts <= 3,
        "{} puts: the recipe's nodes at most, in one pack",
        cost.puts
    );
    assert!(
        cost.bytes_put < 64 << 10,
        "{} bytes put for a disk that is known",
        cost.bytes_put
    );
    stage
        .expect_restores(&clone.manifest, &[("clone", &disk.bytes)], "a clone")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_follow_from_the_bytes_stored_and_nothing_is_listed() {
    let (stage, counters) = counted().await;
    let disk = noise(&mut Random::seeded(4), 80 << 20);
    let before = counters.snapshot();
    let point = stage.back_up(&[("vda", &disk)], None).await.unwrap();
    let cost = since(&counters, &before);
    assert!(cost.bytes_put > 79 << 20, "noise does not compress");
    assert!(
        cost.puts <= cost.bytes_put / (24 << 20) + 3,
        "{} puts for {} bytes",
        cost.puts,
        cost.bytes_put
    );
    assert!(
        cost.gets <= cost.puts,
        "{} reads: only trailers are read back",
        cost.gets
    );
    assert_eq!((cost.lists, cost.deletes), (0, 0));

    let before = counters.snapshot();
    let (sink, outcome) = stage
        .restore(&stage.reader_without_index(), &point.manifest, "vda")
        .await
        .unwrap();
    let cost = since(&counters, &before);
    assert!(sink.bytes() == disk.bytes);
    assert_eq!((cost.lists, cost.heads, cost.puts, cost.deletes), (0, 0, 0, 0));
    // Neighbouring frames are fetched together, 8 MiB a request; headers of packs and the recipe come on top.
    assert!(cost.gets <= (80 << 20) / (4 << 20) + 16, "{} reads", cost.gets);
    assert!(
        cost.bytes_got < (81 << 20) + (1 << 20),
        "{} bytes read to restore 80 MiB",
        cost.bytes_got
    );
    assert!(outcome.requests <= cost.gets);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_backup_is_uploaded_again_by_less_than_one_pack() {
    let disk = noise(&mut Random::seeded(5), 100 << 20);
    let whole = {
        let (stage, counters) = counted().await;
        stage.back_up(&[("vda", &disk)], None).await.unwrap();
        counters.snapshot().bytes_put
    };
    for k in 0..3 {
        let stage = Stage::new().await;
        let faulty =
            Faulty::new(stage.memory.clone(), 1).rule(Rule::call(k, Fault::Crash).on(On::Put).below(names::PACKS));
        let failed = stage.rewrapped(Arc::new(faulty)).back_up(&[("vda", &disk)], None).await;
        assert!(failed.is_err(), "the world stopped at put {k}");
        assert!(stage.names(names::POINTS).is_empty(), "garbage only");

        stage.back_up(&[("vda", &disk)], None).await.unwrap();
        let stored: u64 = stage.memory.objects().values().map(|bytes| bytes.len() as u64).sum();
        let again = stored.saturating_sub(whole);
        assert!(
            again < PACK_TARGET as u64,
            "{again} bytes were uploaded again after a crash at pack {k}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opening_a_vault_and_its_reader_reads_nothing_of_packs_or_index() {
    let (stage, counters) = counted().await;
    let disk = noise(&mut Random::seeded(6), 2 << 20);
    let point = stage.back_up(&[("vda", &disk)], None).await.unwrap();
    let before = counters.snapshot();
    let _reader = stage.reader();
    let _tree = stage.tree(&point.manifest, "vda");
    assert_eq!(since(&counters, &before), Traffic::default());
    let memory: &Memory = &stage.memory;
    assert!(
        memory.objects().len() >= 6,
        "header, keys, claim, pack, segment, manifest"
    );
}
