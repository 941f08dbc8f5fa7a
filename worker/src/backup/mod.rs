//! Backup: from disk sources to a committed recovery point.
//!
//! ```text
//! segments (read ▸ cut ▸ name ▸ compare with the parent ▸ ask the index; many at once, results in disk order; several disks at once)
//!   ▸ frames (what is new, in disk order) ▸ compress (all cores) ▸ packer (seal, pack, put, index, grow the recipe) ▸ commit
//! ```
//! Every arrow is a bounded queue. Read `plan`, `segment`, `read`, `frames`, `packer`, then `pipeline`; `deferred` is what other sessions are storing at the same
//! time, `reask` what is asked again because a share of the index got another owner meanwhile.

mod deferred;
mod flight;
mod frames;
mod line;
mod packer;
mod part;
mod pipeline;
mod plan;
mod ranges;
mod read;
mod reask;
mod segment;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tresor_storage::ids::{ChunkId, ItemId, Location};
use tresor_storage::index::slot::SlotSet;
use tresor_storage::index::{ChunkIndex, IndexSession};
use tresor_storage::manifest::{Consistency, Manifest};
use tresor_storage::vault::{Vault, VaultReader};

use crate::control::Control;
use crate::extent::Extent;
use crate::progress::Progress;
use crate::source::DiskSource;

pub use part::{Helper, HelperError, PartEngine, PartMade, PartOrder, PartRequest, run_part};
pub use pipeline::run;

/// Why a point of files and devices is not more than crash-consistent.
pub const UNAIDED: &str = "disks were read as they lay, without the guest's help";

/// What every job on a vault works with.
#[derive(Clone)]
pub struct Engine {
    /// The vault.
    pub vault: Arc<Vault>,
    /// Reads parents' recipes.
    pub reader: Arc<VaultReader>,
    /// Its index.
    pub index: Arc<dyn ChunkIndex>,
    /// Who decides.
    pub control: Arc<dyn Control>,
    /// The index, where it is in shares that other workers answer for: they may change hands while a backup runs.
    pub shares: Option<Arc<dyn Shares>>,
    /// Other workers that can read the disks, too: they take ranges of large ones.
    pub helpers: Vec<Arc<dyn Helper>>,
}

/// An index in shares that change hands. What a share's former owner answered does not count for a commit.
#[async_trait]
pub trait Shares: Send + Sync + 'static {
    /// Shares that changed hands since they answered something that this session stands on.
    fn moved(&self) -> SlotSet;

    /// Waits, a bounded time, until it is known what moved: the log may know of it before this worker does.
    async fn news(&self);

    /// Begins to ask again: what these answered so far does not count any more.
    fn ask_again(&self, slots: &SlotSet);

    /// Inserts some of the entries of packs, and not all of them.
    async fn insert_some(&self, session: IndexSession, entries: &[(ChunkId, Location)]);

    /// Waits, a bounded time, until what was inserted is acknowledged or given up.
    async fn settle(&self);
}

/// Which of a disk's ranges may differ from the parent point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    /// Not known: everything allocated is read, and what is equal is stored once anyway.
    Unknown,
    /// Nothing outside of these differs. Only for a disk that the parent point has, in its size then.
    Only(Vec<Extent>),
}

/// A disk to back up.
#[derive(Clone)]
pub struct BackupDisk {
    /// Its name in the item.
    pub name: String,
    /// Where it is read.
    pub source: Arc<dyn DiskSource>,
    /// What may have changed.
    pub changes: Changes,
}

/// A backup to make.
#[derive(Clone)]
pub struct BackupRequest {
    /// The item.
    pub item: ItemId,
    /// Its name.
    pub item_name: String,
    /// Its disks, each name once.
    pub disks: Vec<BackupDisk>,
    /// The point to compare with: the item's newest.
    pub parent: Option<Manifest>,
    /// When reading begins, RFC 3339 in UTC.
    pub time: String,
    /// Until when the point is to be kept, RFC 3339.
    pub keep_until: Option<String>,
    /// What the caller reached before it called.
    pub consistency: Consistency,
    /// Why not more.
    pub consistency_reason: String,
    /// Disks may change while they are read; the point is marked.
    pub allow_live: bool,
    /// How much of the machine to use.
    pub effort: Effort,
}

/// How much of the machine a job uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Cores that cut and compress.
    pub cores: usize,
    /// zstd level of data frames.
    pub compression_level: i32,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(2, usize::from),
            compression_level: 1,
        }
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupOutcome {
    /// The point, committed.
    pub manifest: Manifest,
    /// What it took.
    pub counts: BackupCounts,
}

/// What a backup took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupCounts {
    /// Bytes read from the disks, holes left out.
    pub bytes_read: u64,
    /// Plaintext of new chunks.
    pub bytes_new: u64,
    /// Bytes put, the manifest included.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Chunks that the parent or the index had.
    pub chunks_known: u64,
    /// Ids that the index was asked for.
    pub lookups: u64,
    /// Segments whose leaf was taken over from the parent.
    pub segments_inherited: u64,
    /// Packs put.
    pub packs: u64,
}

impl BackupCounts {
    /// Adds what somebody else took for the same point.
    pub(crate) fn add(&mut self, other: &Self) {
        let Self {
            bytes_read,
            bytes_new,
            bytes_stored,
            chunks_new,
            chunks_known,
            lookups,
            segments_inherited,
            packs,
        } = other;
        self.bytes_read += bytes_read;
        self.bytes_new += bytes_new;
        self.bytes_stored += bytes_stored;
        self.chunks_new += chunks_new;
        self.chunks_known += chunks_known;
        self.lookups += lookups;
        self.segments_inherited += segments_inherited;
        self.packs += packs;
    }
}

/// What steers a running backup from outside.
#[derive(Clone, Default)]
pub struct Steering {
    /// Numbers for people.
    pub progress: Arc<Progress>,
    /// Stops it; what was stored stays as garbage that the next attempt reuses.
    pub cancel: CancellationToken,
}
