//! The floor: how long zstd level 1 takes for the unique bytes alone, on all cores, without reading, cutting, hashing,
//! encrypting or writing anything. What a backup takes above it is the backup's own cost.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{BenchError, io};
use crate::workload::{Day, data_ranges};

/// Blocks in which duplicates are found here: near to Tresor's chunks, without being them.
const BLOCK_BYTES: usize = 16 << 10;
/// What is compressed at once: Tresor's frame.
const FRAME_BYTES: usize = 512 << 10;
/// What a thread takes from the disks at once.
const TASK_BYTES: u64 = 4 << 20;

/// Bare compression of the unique bytes.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bare {
    /// Unique bytes that are not zero, in blocks of 16 KiB.
    pub(crate) unique_bytes: u64,
    /// What they compress to.
    pub(crate) compressed_bytes: u64,
    /// Time inside the compressor, divided by the number of threads.
    pub(crate) seconds: f64,
    pub(crate) threads: usize,
}

impl Bare {
    /// The bare time for another number of unique bytes of the same kind.
    pub(crate) fn seconds_for(&self, unique_bytes: u64) -> f64 {
        self.seconds * unique_bytes as f64 / self.unique_bytes.max(1) as f64
    }
}

/// Compresses the unique blocks of a day's disks, with a thread a core.
pub(crate) fn measure(day: &Day) -> Result<Bare, BenchError> {
    let mut tasks = Vec::new();
    for disk in &day.disks {
        let file = File::open(&disk.path).map_err(io("open", &disk.path))?;
        let mut from = 0;
        for (start, end) in data_ranges(&file, disk.size).map_err(io("map", &disk.path))? {
            // Aligned down, so that blocks of all ranges are of one grid.
            let mut at = from.max(start - start % BLOCK_BYTES as u64);
            while at < end {
                tasks.push((disk, at, TASK_BYTES.min(disk.size - at)));
                at += TASK_BYTES;
            }
            from = at;
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (seen, next) = (Mutex::new(HashSet::<[u8; 16]>::new()), AtomicUsize::new(0));
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<_, BenchError> {
                    let mut worker = Worker::new()?;
                    let mut buffer = vec![0; usize::try_from(TASK_BYTES).expect("4 MiB fit")];
                    while let Some(&(disk, at, length)) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let buffer = &mut buffer[..usize::try_from(length).expect("at most 4 MiB")];
                        let file = File::open(&disk.path).map_err(io("open", &disk.path))?;
                        file.read_exact_at(buffer, at).map_err(io("read", &disk.path))?;
                        for block in buffer
                            .chunks(BLOCK_BYTES)
                            .filter(|block| block.iter().any(|byte| *byte != 0))
                        {
                            let id = *blake3::hash(block).as_bytes().first_chunk().expect("32 bytes");
                            if seen.lock().expect("no thread panics with the lock").insert(id) {
                                worker.add(block)?;
                            }
                        }
                    }
                    worker.finish()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let time: Duration = totals.iter().map(|total| total.2).sum();
    Ok(Bare {
        unique_bytes: totals.iter().map(|total| total.0).sum(),
        compressed_bytes: totals.iter().map(|total| total.1).sum(),
        seconds: time.as_secs_f64() / threads as f64,
        threads,
    })
}

struct Worker {
    compressor: zstd::bulk::Compressor<'static>,
    frame: Vec<u8>,
    output: Vec<u8>,
    totals: (u64, u64, Duration),
}

impl Worker {
    fn new() -> Result<Self, BenchError> {
        let compressor = zstd::bulk::Compressor::new(1).map_err(BenchError::Compress)?;
        // A block that ends a disk may be short, and the frame then a block too long.
        let output = Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME_BYTES + BLOCK_BYTES));
        Ok(Self {
            compressor,
            frame: Vec::with_capacity(FRAME_BYTES),
            output,
            totals: Default::default(),
        })
    }

    fn add(&mut self, block: &[u8]) -> Result<(), BenchError> {
        self.frame.extend_from_slice(block);
        if self.frame.len() >= FRAME_BYTES {
            self.compress()
        } else {
            Ok(())
        }
    }

    fn compress(&mut self) -> Result<(), BenchError> {
        self.output.clear();
        let start = Instant::now();
        self.compressor
            .compress_to_buffer(&self.frame, &mut self.output)
            .map_err(BenchError::Compress)?;
        self.totals.2 += start.elapsed();
        self.totals.0 += self.frame.len() as u64;
        self.totals.1 += self.output.len() as u64;
        self.frame.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, u64, Duration), BenchError> {
        self.compress()?;
        Ok(self.totals)
    }
}
