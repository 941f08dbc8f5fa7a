//! How far a job is, and where its time goes: numbers that its tasks raise, by the segment and the frame and never by the chunk, and anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where the time of a pipeline goes. Many segments are in a stage at once, and the time of each is counted: seconds of a stage in a second are how many
/// were in it on average.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A segment of a disk is read.
    Read,
    /// A segment is compared by its fingerprint, or cut and named; waiting for a core included.
    Cut,
    /// The index is asked for the chunks of a segment.
    Lookup,
    /// The packer waits for the next frame to be compressed.
    Compress,
    /// A frame is sealed into a pack; waiting for a pack that is being put included.
    Pack,
    /// Frames are fetched from the store (restore).
    Fetch,
    /// Ranges of a disk are written (restore).
    Write,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Read,
        Self::Cut,
        Self::Lookup,
        Self::Compress,
        Self::Pack,
        Self::Fetch,
        Self::Write,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Cut => "cut",
            Self::Lookup => "lookup",
            Self::Compress => "compress",
            Self::Pack => "pack",
            Self::Fetch => "fetch",
            Self::Write => "write",
        }
    }
}

/// What the index said of ids that it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lookups {
    /// Stored already.
    pub known: u64,
    /// Stored by nobody.
    pub new: u64,
    /// Another session is storing it.
    pub claimed: u64,
    /// Asked for, and not answered: counted as new.
    pub unanswered: u64,
}

/// Counters of one job.
#[derive(Debug, Default)]
pub struct Progress {
    bytes_total: AtomicU64,
    bytes_done: AtomicU64,
    bytes_read: AtomicU64,
    bytes_new: AtomicU64,
    bytes_stored: AtomicU64,
    bytes_hole: AtomicU64,
    bytes_known: AtomicU64,
    ids_known: AtomicU64,
    ids_new: AtomicU64,
    ids_claimed: AtomicU64,
    ids_unanswered: AtomicU64,
    ids_inserted: AtomicU64,
    frames_waiting: AtomicU64,
    stages: [AtomicU64; Stage::ALL.len()],
}

/// What [`Progress`] says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProgressSnapshot {
    /// Bytes of all disks, holes counted; 0 while not known.
    pub bytes_total: u64,
    /// Bytes dealt with, holes counted.
    pub bytes_done: u64,
    /// Bytes read (backup) or written (restore).
    pub bytes_read: u64,
    /// Plaintext of new chunks.
    pub bytes_new: u64,
    /// Bytes put to the store (backup) or fetched from it (restore).
    pub bytes_stored: u64,
    /// Bytes of holes, those among them that were read and found zero (backup).
    pub bytes_hole: u64,
    /// Bytes that the parent or the index had (backup).
    pub bytes_known: u64,
    /// What the index said.
    pub lookups: Lookups,
    /// Ids that the index took.
    pub ids_inserted: u64,
    /// Frames that are compressed, or wait for the packer.
    pub frames_waiting: u64,
    /// Microseconds of each stage, in the order of [`Stage::ALL`].
    pub stage_micros: [u64; Stage::ALL.len()],
}

impl ProgressSnapshot {
    /// Adds the numbers of another job.
    pub fn add(&mut self, more: &Self) {
        self.bytes_total += more.bytes_total;
        self.bytes_done += more.bytes_done;
        self.bytes_read += more.bytes_read;
        self.bytes_new += more.bytes_new;
        self.bytes_stored += more.bytes_stored;
        self.bytes_hole += more.bytes_hole;
        self.bytes_known += more.bytes_known;
        self.lookups.known += more.lookups.known;
        self.lookups.new += more.lookups.new;
        self.lookups.claimed += more.lookups.claimed;
        self.lookups.unanswered += more.lookups.unanswered;
        self.ids_inserted += more.ids_inserted;
        self.frames_waiting += more.frames_waiting;
        for (sum, micros) in self.stage_micros.iter_mut().zip(more.stage_micros) {
            *sum += micros;
        }
    }
}

/// Time that is spent in a stage until this is dropped.
#[derive(Debug)]
pub struct InStage<'p> {
    progress: &'p Progress,
    stage: Stage,
    began: Instant,
}

impl Drop for InStage<'_> {
    fn drop(&mut self) {
        self.progress.add_time(self.stage, self.began.elapsed());
    }
}

impl Progress {
    /// Sets the sum.
    pub fn set_total(&self, bytes: u64) {
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// More is dealt with.
    pub fn add_done(&self, bytes: u64) {
        self.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was read or written.
    pub fn add_read(&self, bytes: u64) {
        self.bytes_read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was new.
    pub fn add_new(&self, bytes: u64) {
        self.bytes_new.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More was put or fetched.
    pub fn add_stored(&self, bytes: u64) {
        self.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
    }

    /// More were holes, and more was known.
    pub fn add_spared(&self, holes: u64, known: u64) {
        self.bytes_hole.fetch_add(holes, Ordering::Relaxed);
        self.bytes_known.fetch_add(known, Ordering::Relaxed);
    }

    /// The index was asked for the ids of a segment.
    pub fn add_lookups(&self, said: Lookups) {
        self.ids_known.fetch_add(said.known, Ordering::Relaxed);
        self.ids_new.fetch_add(said.new, Ordering::Relaxed);
        self.ids_claimed.fetch_add(said.claimed, Ordering::Relaxed);
        self.ids_unanswered.fetch_add(said.unanswered, Ordering::Relaxed);
    }

    /// The index took the ids of a pack.
    pub fn add_inserted(&self, ids: u64) {
        self.ids_inserted.fetch_add(ids, Ordering::Relaxed);
    }

    /// One more frame is on its way to the packer.
    pub fn frame_begins(&self) {
        self.frames_waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// The packer has taken one.
    pub fn frame_ends(&self) {
        self.frames_waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts time in a stage until the answer is dropped.
    pub fn time(&self, stage: Stage) -> InStage<'_> {
        InStage {
            progress: self,
            stage,
            began: Instant::now(),
        }
    }

    fn add_time(&self, stage: Stage, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.stages[stage as usize].fetch_add(micros, Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn snapshot(&self) -> ProgressSnapshot {
        let get = |a: &AtomicU64| a.load(Ordering::Relaxed);
        ProgressSnapshot {
            bytes_total: get(&self.bytes_total),
            bytes_done: get(&self.bytes_done),
            bytes_read: get(&self.bytes_read),
            bytes_new: get(&self.bytes_new),
            bytes_stored: get(&self.bytes_stored),
            bytes_hole: get(&self.bytes_hole),
            bytes_known: get(&self.bytes_known),
            lookups: Lookups {
                known: get(&self.ids_known),
                new: get(&self.ids_new),
                claimed: get(&self.ids_claimed),
                unanswered: get(&self.ids_unanswered),
            },
            ids_inserted: get(&self.ids_inserted),
            frames_waiting: get(&self.frames_waiting),
            stage_micros: Stage::ALL.map(|stage| get(&self.stages[stage as usize])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_in_the_stage_that_it_is_spent_in() {
        let progress = Progress::default();
        progress.add_time(Stage::Write, Duration::from_millis(3));
        progress.add_time(Stage::Write, Duration::from_millis(4));
        for (stage, micros) in Stage::ALL.into_iter().zip(progress.snapshot().stage_micros) {
            assert_eq!(micros, if stage == Stage::Write { 7000 } else { 0 }, "{stage:?}");
        }
    }
}
