//! Restore: from a recovery point's recipe to a disk.
//!
//! The recipe is read window by window; in each window what is needed is grouped by pack, neighbouring frames are fetched in one request, and every
//! chunk is written where it belongs as it arrives, after its tag and its name were checked. Nothing unchecked reaches a disk. Read `place` (which disks of
//! a point go where), `plan`, then `pipeline`.

mod pipeline;
mod place;
mod plan;
mod targets;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tresor_storage::recipe::Root;

use crate::progress::Progress;
use crate::sink::DiskSink;

pub use pipeline::{preview, run};
pub use place::{
    Existing, Placed, choose_disks, make_folder, merge_gap, open_target, place_disks, refuse_wrong_targets,
};
pub use targets::{Target, There, plan_targets};

/// A disk to restore.
#[derive(Clone)]
pub struct RestoreRequest {
    /// Its name, for messages.
    pub disk: String,
    /// What it consists of.
    pub root: Root,
    /// Where it goes: at least as large as the disk.
    pub sink: Arc<dyn DiskSink>,
    /// The target holds something already: compare, and write only what differs.
    pub in_place: bool,
    /// Leave damaged ranges as zeros (a new target) or as they are (in place) and finish; else damage fails the restore.
    pub allow_damage: bool,
    /// Gap between two frames of a pack below which one request fetches both, bytes: the store's break-even.
    pub merge_gap: u64,
    /// Cores that open frames.
    pub cores: usize,
    /// Numbers for people.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: CancellationToken,
}

/// Gap that is worth fetching on a local store, bytes.
pub const MERGE_GAP_LOCAL: u64 = 128 << 10;
/// Gap that is worth fetching over a network, bytes.
pub const MERGE_GAP_REMOTE: u64 = 2 << 20;

/// A range that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Offset on the disk, bytes.
    pub offset: u64,
    /// Length, bytes.
    pub length: u64,
    /// The chain of what happened.
    pub why: String,
}

/// What a restore did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOutcome {
    /// Bytes written to the target (zeros not counted).
    pub bytes_written: u64,
    /// Bytes that were there already (in place).
    pub bytes_equal: u64,
    /// Bytes fetched from the store.
    pub bytes_fetched: u64,
    /// Requests that read.
    pub requests: u64,
    /// Chunks written.
    pub chunks: u64,
    /// What could not be restored.
    pub damage: Vec<Damage>,
}

/// What a restore would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestorePreview {
    /// Bytes of the disk that are not holes.
    pub bytes_data: u64,
    /// Bytes that would be fetched.
    pub bytes_fetched: u64,
    /// Requests that would fetch them.
    pub requests: u64,
    /// Packs touched.
    pub packs: u64,
}
