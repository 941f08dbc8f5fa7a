//! Memory of a worker as a sum of permits: every job that runs holds one, and no job holds more than [`JOB_MEMORY`].

use tresor_storage::limits::{
    FRAME_CHUNKS_PLAIN_MAX, INDEX_SEGMENT_MAX, PACK_MAX, PACKS_IN_FLIGHT, READ_FLIGHT_BYTES, SEGMENT,
};

/// Cores up to which the reckoning holds: a job has two segments more in work than cores.
const CORES: u64 = 64;
/// Frames that wait for their pack.
const FRAMES: u64 = 12;
/// What is not counted piece by piece: recipes, lists of chunks, contexts of zstd, tasks.
const REST: u64 = 64 << 20;

/// The most that one job holds, bytes, on a machine with 64 cores or fewer; the chunk index and the process itself come on top, once.
pub const JOB_MEMORY: u64 = (CORES + 2) * SEGMENT
    + FRAMES * FRAME_CHUNKS_PLAIN_MAX as u64
    + (PACKS_IN_FLIGHT as u64 + 1) * PACK_MAX as u64
    + READ_FLIGHT_BYTES as u64
    + INDEX_SEGMENT_MAX as u64
    + REST;

/// Jobs at a time for which so much memory is enough; one at the least.
pub fn permits_within(memory: u64, permits: u32) -> u32 {
    let fit = u32::try_from(memory / JOB_MEMORY).unwrap_or(u32::MAX);
    permits.min(fit).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_as_many_as_memory_is_for() {
        assert_eq!(permits_within(4 * JOB_MEMORY, 8), 4);
        assert_eq!(permits_within(4 * JOB_MEMORY - 1, 8), 3);
        assert_eq!(permits_within(u64::MAX, 8), 8);
        assert_eq!(permits_within(0, 8), 1);
        // What documents say: some hundred megabytes.
        assert!((500 << 20..700 << 20).contains(&JOB_MEMORY), "{JOB_MEMORY}");
    }
}
