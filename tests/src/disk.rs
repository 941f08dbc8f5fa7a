//! Disks in memory, to be read and to be written.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tresor_worker::extent::{Extent, normalise};
use tresor_worker::sink::{DiskSink, SinkError};
use tresor_worker::source::{DiskFormat, DiskSource, SourceDescription, SourceError, SourceKind, Steadiness};

use crate::random::Random;

/// What allocation is told in: coarser than a grain, so that allocated zeros occur.
const CLUSTER: usize = 64 << 10;
const GRAIN: usize = 4096;

/// A disk of the model: plain bytes, that can be changed and remember what was changed.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Ranges written since [`Disk::clean`].
    changed: Vec<Extent>,
}

impl Disk {
    /// A disk that is one hole.
    pub fn empty(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            changed: Vec::new(),
        }
    }

    /// A disk with files, text, repetition and holes.
    pub fn random(random: &mut Random, size: usize) -> Self {
        let mut disk = Self::empty(size);
        let mut at = 0;
        while at < size {
            let length = (1 + random.below(40) as usize) * GRAIN;
            let end = (at + length).min(size);
            disk.fill(random, at, end);
            at = end;
        }
        disk.changed.clear();
        disk
    }

    fn fill(&mut self, random: &mut Random, start: usize, end: usize) {
        match random.below(6) {
            0 | 1 => self.bytes[start..end].fill(0),
            2 => {
                let value = 1 + random.below(3) as u8;
                self.bytes[start..end].fill(value);
            }
            3 => {
                let text = b"a line of a log file, as there are many of them\n";
                for (i, byte) in self.bytes[start..end].iter_mut().enumerate() {
                    *byte = text[i % text.len()];
                }
            }
            _ => {
                let bytes = random.bytes(end - start);
                self.bytes[start..end].copy_from_slice(&bytes);
            }
        }
        self.changed.push(Extent::between(start as u64, end as u64));
    }

    /// Writes somewhere, sometimes what is elsewhere on the disk.
    pub fn scribble(&mut self, random: &mut Random) {
        let size = self.bytes.len();
        if size == 0 {
            return;
        }
        let length = match random.below(4) {
            0 => 1 + random.below(600) as usize,
            1 => GRAIN,
            2 => (1 + random.below(64) as usize) * GRAIN,
            _ => (1 + random.below(512) as usize) * GRAIN,
        };
        let mut start = random.below(size as u64) as usize;
        if random.below(3) > 0 {
            start = start / GRAIN * GRAIN;
        }
        let end = (start + length).min(size);
        if random.one_in(4) {
            let from = random.below((size - (end - start) + 1) as u64) as usize / GRAIN * GRAIN;
            self.bytes.copy_within(from..from + (end - start), start);
            self.changed.push(Extent::between(start as u64, end as u64));
        } else {
            self.fill(random, start, end);
        }
    }

    /// Grows or shrinks.
    pub fn resize(&mut self, size: usize) {
        self.bytes.resize(size, 0);
        // A change beyond the end, or one that a resize makes, is nobody's: who resizes reads from the old end on anyway.
        let all = Extent::between(0, size as u64);
        self.changed = std::mem::take(&mut self.changed)
            .into_iter()
            .map(|extent| extent.clip(all))
            .collect();
    }

    /// What was written since the disk was last clean.
    pub fn changed(&self) -> Vec<Extent> {
        normalise(self.changed.clone())
    }

    /// Forgets what was written.
    pub fn clean(&mut self) {
        self.changed.clear();
    }

    /// As a source, of its bytes now.
    pub fn source(&self) -> Arc<MemorySource> {
        MemorySource::new(self.bytes.clone())
    }
}

/// A source of bytes in memory.
#[derive(Debug)]
pub struct MemorySource {
    bytes: Vec<u8>,
    description: SourceDescription,
    /// Bytes that were read.
    pub read: AtomicU64,
    /// Says at the end that somebody wrote meanwhile.
    pub changes: AtomicBool,
}

impl MemorySource {
    /// Makes one.
    pub fn new(bytes: Vec<u8>) -> Arc<Self> {
        let description = SourceDescription {
            kind: SourceKind::File,
            format: DiskFormat::Raw,
            path: PathBuf::from("memory.raw"),
        };
        Arc::new(Self {
            bytes,
            description,
            read: AtomicU64::new(0),
            changes: AtomicBool::new(false),
        })
    }
}

#[async_trait]
impl DiskSource for MemorySource {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn description(&self) -> &SourceDescription {
        &self.description
    }

    async fn allocated(&self, within: Extent) -> Result<Vec<Extent>, SourceError> {
        let within = within.clip(Extent::between(0, self.size()));
        let clusters = self
            .bytes
            .chunks(CLUSTER)
            .enumerate()
            .filter(|(_, cluster)| cluster.iter().any(|byte| *byte != 0));
        let extents = clusters.map(|(i, cluster)| Extent::new((i * CLUSTER) as u64, cluster.len() as u64).clip(within));
        Ok(normalise(extents.collect()))
    }

    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, SourceError> {
        let start = offset as usize;
        let end = start + buffer.len();
        assert!(
            end <= self.bytes.len(),
            "read of {start}..{end} beyond the disk's end {}",
            self.bytes.len()
        );
        buffer.copy_from_slice(&self.bytes[start..end]);
        self.read.fetch_add((end - start) as u64, Ordering::Relaxed);
        tokio::task::yield_now().await;
        Ok(buffer)
    }

    async fn finish(&self) -> Result<Steadiness, SourceError> {
        match self.changes.load(Ordering::Relaxed) {
            true => Ok(Steadiness::Changed {
                why: String::from("the test says so"),
            }),
            false => Ok(Steadiness::Steady),
        }
    }
}

/// A target in memory.
#[derive(Debug)]
pub struct MemorySink {
    bytes: Mutex<Vec<u8>>,
    zeroed: bool,
    finished: AtomicBool,
}

impl MemorySink {
    /// A new target, known to be zeros.
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; size as usize]),
            zeroed: true,
            finished: AtomicBool::new(false),
        })
    }

    /// A target that holds something.
    pub fn holding(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(bytes),
            zeroed: false,
            finished: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap()
    }

    /// What is on it.
    pub fn bytes(&self) -> Vec<u8> {
        self.lock().clone()
    }

    /// Whether it was made durable.
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl DiskSink for MemorySink {
    fn size(&self) -> u64 {
        self.lock().len() as u64
    }

    fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    async fn write(&self, offset: u64, data: Vec<Bytes>) -> Result<(), SinkError> {
        assert!(!self.is_finished(), "nothing is written after the end");
        let mut bytes = self.lock();
        let mut at = offset as usize;
        for piece in data {
            bytes[at..at + piece.len()].copy_from_slice(&piece);
            at += piece.len();
        }
        Ok(())
    }

    async fn zero(&self, extent: Extent) -> Result<(), SinkError> {
        assert!(!self.is_finished(), "nothing is written after the end");
        self.lock()[extent.offset as usize..extent.end() as usize].fill(0);
        Ok(())
    }

    async fn read(&self, offset: u64, mut buffer: BytesMut) -> Result<BytesMut, SinkError> {
        let length = buffer.len();
        buffer.copy_from_slice(&self.lock()[offset as usize..offset as usize + length]);
        Ok(buffer)
    }

    async fn finish(&self) -> Result<(), SinkError> {
        self.finished.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn abandon(&self) {}
}
