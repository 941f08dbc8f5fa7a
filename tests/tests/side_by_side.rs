//! Disks of one item are read side by side, and a chunk that two of them have is stored once all the same.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use tokio::sync::Semaphore;
use tresor_storage::limits::{DISKS_AT_ONCE, SEGMENT};
use tresor_tests::disk::{Disk, MemorySource};
use tresor_tests::random::Random;
use tresor_tests::vault::Stage;
use tresor_worker::backup::{BackupDisk, BackupOutcome, Changes};
use tresor_worker::error::WorkerError;
use tresor_worker::extent::Extent;
use tresor_worker::source::{DiskSource, SourceDescription, SourceError, Steadiness};

const PATIENCE: Duration = Duration::from_secs(60);

/// A disk whose reads wait for what others have read.
struct Gated {
    disk: Arc<MemorySource>,
    /// One permit a read; none: it never waits.
    gate: Option<Arc<Semaphore>>,
    /// Opened by each read.
    opens: Option<Arc<Semaphore>>,
    reading: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

#[async_trait]
impl DiskSource for Gated {
    fn size(&self) -> u64 {
        self.disk.size()
    }

    fn description(&self) -> &SourceDescription {
        self.disk.description()
    }

    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        self.disk.allocated(within).await
    }

    async fn read(&self, offset: u64, buffer: BytesMut) -> Result<BytesMut, SourceError> {
        let reading = self.reading.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(reading, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let read = self.disk.read(offset, buffer).await;
        if let Some(opens) = &self.opens {
            opens.add_permits(1);
        }
        self.reading.fetch_sub(1, Ordering::SeqCst);
        read
    }

    async fn finish(&self) -> Result<Steadiness, SourceError> {
        self.disk.finish().await
    }
}

/// A disk of bytes that do not compress, without holes: each segment is one read.
fn noise(random: &mut Random, segments: u64) -> Disk {
    let size = (segments * SEGMENT) as usize;
    let mut disk = Disk::empty(size);
    disk.bytes = random.bytes(size);
    disk
}

async fn back_up(stage: &Stage, disks: Vec<BackupDisk>) -> Result<BackupOutcome, WorkerError> {
    tokio::time::timeout(PATIENCE, stage.back_up_sources(disks, None))
        .await
        .expect("disks wait for each other")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_keeps_no_other_disk_of_the_item_waiting() {
    let stage = Stage::new().await;
    let random = &mut Random::seeded(1);
    let (slow, fast) = (noise(random, 6), noise(random, 9));
    // The first disk gives its first byte only when the second was read to its end.
    let gate = Arc::new(Semaphore::new(0));
    let released = Arc::clone(&gate);
    let read = Arc::new(Semaphore::new(0));
    let was_read = Arc::clone(&read);
    tokio::spawn(async move {
        was_read.acquire_many(9).await.unwrap().forget();
        released.add_permits(6);
    });
    let disks = [(&slow, Some(gate), None), (&fast, None, Some(read))];
    let disks = disks
        .into_iter()
        .enumerate()
        .map(|(number, (disk, gate, opens))| BackupDisk {
            name: format!("vd{number}"),
            source: Arc::new(Gated {
                disk: disk.source(),
                gate,
                opens,
                reading: Arc::default(),
                most: Arc::default(),
            }),
            changes: Changes::Unknown,
        });
    let point = back_up(&stage, disks.collect()).await.unwrap().manifest;
    stage
        .expect_restores(&point, &[("vd0", &slow.bytes), ("vd1", &fast.bytes)], "side by side")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_read_side_by_side_are_stored_once() {
    let stage = Stage::new().await;
    let disk = noise(&mut Random::seeded(2), 24);
    let names: Vec<String> = (0..2 * DISKS_AT_ONCE).map(|number| format!("vd{number}")).collect();
    let (reading, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let disks = names.iter().map(|name| BackupDisk {
        name: name.clone(),
        source: Arc::new(Gated {
            disk: disk.source(),
            gate: None,
            opens: None,
            reading: Arc::clone(&reading),
            most: Arc::clone(&most),
        }),
        changes: Changes::Unknown,
    });
    let made = back_up(&stage, disks.collect()).await.unwrap();
    assert_eq!(
        made.counts.bytes_new,
        24 * SEGMENT,
        "each chunk once, whichever disk came to it first"
    );
    // Two segments of each disk that is being read.
    let most = most.load(Ordering::SeqCst);
    assert!(most <= 2 * DISKS_AT_ONCE, "{most} reads at once");
    let roots: Vec<_> = made.manifest.disks.iter().map(|disk| disk.root.id).collect();
    assert!(
        roots.windows(2).all(|two| two[0] == two[1]),
        "equal disks have equal roots"
    );
    let expected: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), disk.bytes.as_slice()))
        .collect();
    stage.expect_restores(&made.manifest, &expected, "clones").await;
}
