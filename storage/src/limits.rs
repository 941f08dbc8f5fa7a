//! Every bound of the crate, with its reason.
//!
//! Sums between limits are asserted at the end of the file, at compile time.

/// The smallest unit by which file systems move files.
pub const GRAIN: u32 = 4096;
/// Grains of a segment.
pub const SEGMENT_GRAINS: u32 = 1024;
/// The aligned range of a disk that is cut alone: 4 MiB.
pub const SEGMENT: u64 = GRAIN as u64 * SEGMENT_GRAINS as u64;
/// Children of a recipe node: 1 GiB of disk in a first-level node.
pub const NODE_CHILDREN: usize = 256;
/// Levels of nodes above the leaves: 256³ segments are 64 TiB.
pub const DEPTH_MAX: u32 = 3;
/// The largest disk.
pub const DISK_SIZE_MAX: u64 = SEGMENT << 24;

/// Longest chunk of any profile, grains.
pub const CHUNK_GRAINS_MAX: u32 = 32;
/// Plaintext of chunks in one data frame: half as much would store 1 % more, and every small read opens a whole frame.
pub const FRAME_PLAIN_TARGET: usize = 768 << 10;
/// Largest plaintext of any frame or one-part object (an index segment is the largest).
pub const FRAME_PLAIN_MAX: usize = 20 << 20;
/// Largest plaintext of a data or recipe frame.
pub const FRAME_CHUNKS_PLAIN_MAX: usize = 1 << 20;
/// A pack is closed when it reaches this.
pub const PACK_TARGET: usize = 32 << 20;
/// No pack is longer.
pub const PACK_MAX: usize = 64 << 20;
/// Chunks and nodes of one pack: bounds its footer.
pub const PACK_CHUNKS_MAX: usize = 1 << 16;
/// Frames of one pack.
pub const PACK_FRAMES_MAX: usize = 1 << 14;
/// Largest footer in plaintext.
pub const FOOTER_PLAIN_MAX: usize = 6 << 20;
/// Packs whose footers stand in one index segment.
pub const SEGMENT_PACKS_MAX: usize = 256;
/// Largest index segment.
pub const INDEX_SEGMENT_MAX: usize = 16 << 20;
/// Entries of one piece of a checkpoint of slots: with a writer each, 15.2 MB.
pub const CHECKPOINT_ENTRIES_MAX: usize = 3 << 16;
/// Pieces of a checkpoint, with its head: 12 thousand million entries in one group.
pub const CHECKPOINT_PIECES_MAX: usize = 1 << 16;
/// Largest piece of a checkpoint in plaintext.
pub const CHECKPOINT_PIECE_MAX: usize = 16 << 20;
/// Largest manifest, catalogue or key revision read.
pub const SMALL_OBJECT_MAX: usize = 16 << 20;
/// Largest recipe leaf or node, bytes.
pub const RECIPE_NODE_MAX: usize = 256 << 10;

/// Slots of a key revision: people, kits and machines that open one vault.
pub const KEY_SLOTS_MAX: usize = 32;
/// Generations of keys in a revision: one a quarter for 32 years.
pub const KEY_GENERATIONS_MAX: usize = 128;
/// Revisions that one revision says it contains, and objects of `keys/` that are looked at.
pub const KEY_REVISIONS_MAX: usize = 256;
/// Largest key revision: all slots with all generations, at most 80 bytes a wrapped key.
pub const KEY_REVISION_MAX: usize = 1 << 20;
/// Largest vault header.
pub const HEADER_MAX: usize = 64 << 10;
/// Stores of a vault.
pub const STORES_MAX: usize = 64;
/// Largest claim.
pub const CLAIM_MAX: usize = 4 << 10;
/// Claims of a vault: one for each time that it changed hands.
pub const CLAIMS_MAX: usize = 4096;
/// Longest text of a small field (a time, a version, a region), bytes.
pub const SHORT_TEXT_MAX: usize = 64;
/// Longest name of a host, an item or a disk, bytes.
pub const NAME_MAX: usize = 255;
/// Longest URL, bytes.
pub const URL_MAX: usize = 2048;

/// Largest request to a store that reads.
pub const READ_REQUEST_MAX: u64 = 8 << 20;
/// Bytes of reads in flight to a store.
pub const READ_FLIGHT_BYTES: usize = 96 << 20;
/// Requests in flight to a store.
pub const REQUESTS_IN_FLIGHT: usize = 32;
/// Packs being put at once.
pub const PACKS_IN_FLIGHT: usize = 2;
/// Disks of one item read at once: more would only make a hypervisor seek, and one that is slow is made up for by three others.
pub const DISKS_AT_ONCE: usize = 4;
/// Ids of one index question.
pub const INDEX_BATCH: usize = 512;

const _: () = {
    // A data frame holds its table and its chunks.
    assert!(FRAME_PLAIN_TARGET + (GRAIN * CHUNK_GRAINS_MAX) as usize <= FRAME_CHUNKS_PLAIN_MAX);
    // A pack that is one frame under its target still takes a frame, its footer and its trailer.
    assert!(PACK_TARGET + FRAME_CHUNKS_PLAIN_MAX + FOOTER_PLAIN_MAX + 4096 <= PACK_MAX);
    assert!(INDEX_SEGMENT_MAX <= FRAME_PLAIN_MAX);
    // A piece whose entries are each of another writer.
    assert!(16 + CHECKPOINT_ENTRIES_MAX * (53 + 24) <= CHECKPOINT_PIECE_MAX);
    assert!(CHECKPOINT_PIECE_MAX <= FRAME_PLAIN_MAX);
    assert!(CHECKPOINT_PIECE_MAX <= SMALL_OBJECT_MAX);
    // Offsets in a pack fit 32 bits.
    assert!(PACK_MAX < u32::MAX as usize);
    // A key revision holds every slot with every generation (K_meta and K_data), its text and what it contains.
    assert!(
        KEY_SLOTS_MAX * (KEY_GENERATIONS_MAX * 2 + 2) * 80 + KEY_SLOTS_MAX * 512 + KEY_REVISIONS_MAX * 34 + 4096
            <= KEY_REVISION_MAX
    );
    assert!(PACK_CHUNKS_MAX * 40 + PACK_FRAMES_MAX * 32 <= FOOTER_PLAIN_MAX);
};
