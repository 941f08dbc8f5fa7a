//! Ranges of a disk that other workers read, for the session of the one that has the lease.
//!
//! Who reads a range stores what is new under the session's id, in packs of its own, and asks and tells the index as the session. It answers with the
//! leaves of the range; recipe, manifest and commit are made by the one who ordered it. So a helper that dies, is cut off or is slow costs its range
//! being read once more: what it stored by then is found by the index.
//!
//! ◆ What a helper was answered by owners of slots is a part of what the commit stands on: it goes back with the leaves, and only then do they
//! count ([`Helper::read`]).

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::Instrument as _;
use tresor_storage::ids::{PartId, Writer};
use tresor_storage::index::ChunkIndex;
use tresor_storage::limits::SEGMENT;
use tresor_storage::recipe::{NodeSource, RangeLeaf, Root, Tree};
use tresor_storage::vault::{Uploads, Vault, VaultReader};

use super::line::Line;
use super::packer::{Produced, Product};
use super::ranges::Ranges;
use super::read::Lane;
use super::{BackupCounts, BackupDisk, Effort, Shares, Steering};
use crate::control::Session;
use crate::error::WorkerError;
use crate::progress::Progress;

/// How long a helper that had no room is left alone.
const BUSY_PAUSE: Duration = Duration::from_secs(10);

/// A range to read.
#[derive(Debug, Clone)]
pub struct PartOrder {
    /// Which disk of the item.
    pub disk: String,
    /// Its size, bytes: a disk of another size is another disk.
    pub size: u64,
    /// What it was at the parent point.
    pub parent: Option<Root>,
    /// Segments.
    pub segments: Range<u64>,
}

/// A range that was read. All that it names is durable and known to the index.
#[derive(Debug, Clone)]
pub struct PartMade {
    /// For each segment.
    pub leaves: Vec<RangeLeaf>,
    /// What it took.
    pub counts: BackupCounts,
    /// The disk changed while it was read, which was allowed.
    pub live: bool,
}

/// Why a helper did not read a range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelperError {
    /// It has no room now.
    #[error("it is busy")]
    Busy,
    /// It cannot, or did not.
    #[error("{why}")]
    Failed {
        /// Why.
        why: String,
    },
}

/// Another worker that can read the disks of the item.
#[async_trait]
pub trait Helper: Send + Sync + 'static {
    /// For people.
    fn name(&self) -> &str;

    /// Has a range read. When this returns well, what the helper's answers stand on is remembered for the commit.
    ///
    /// # Errors
    /// [`HelperError`]; the range is read here then.
    async fn read(&self, order: PartOrder, progress: Arc<Progress>) -> Result<PartMade, HelperError>;
}

/// What a range is read with.
pub struct PartEngine {
    /// The vault.
    pub vault: Arc<Vault>,
    /// Reads the parent's recipe.
    pub reader: Arc<VaultReader>,
    /// The index, as the session is answered.
    pub index: Arc<dyn ChunkIndex>,
    /// Waits for what was inserted.
    pub shares: Arc<dyn Shares>,
}

/// A range to read for another worker's session.
pub struct PartRequest {
    /// The disk.
    pub disk: BackupDisk,
    /// What it was at the parent point.
    pub parent: Option<Root>,
    /// Segments.
    pub segments: Range<u64>,
    /// Whose session it is.
    pub session: Session,
    /// The disk may change while it is read.
    pub allow_live: bool,
    /// How much of the machine to use.
    pub effort: Effort,
}

/// Reads a range and makes everything in it durable.
///
/// # Errors
/// By cause; [`WorkerError::Interrupted`] when told to stop. There is garbage at most, which later attempts reuse.
pub async fn run_part(engine: &PartEngine, request: PartRequest, steering: Steering) -> Result<PartMade, WorkerError> {
    let uploads = Arc::new(Uploads::default());
    let made = tokio::select! {
        made = make_part(engine, request, &steering, &uploads) => made,
        () = steering.cancel.cancelled() => Err(WorkerError::Interrupted),
    };
    uploads.settle(super::pipeline::LAST_PACKS).await;
    made
}

async fn make_part(
    engine: &PartEngine,
    request: PartRequest,
    steering: &Steering,
    uploads: &Arc<Uploads>,
) -> Result<PartMade, WorkerError> {
    let PartRequest {
        disk,
        parent,
        segments,
        session,
        allow_live,
        effort,
    } = request;
    let writer = Writer {
        cluster: session.cluster,
        session: session.session,
        // The packs of each reader are numbered apart.
        part: PartId::random(),
    };
    let line = Line::new(
        (&engine.vault, &engine.index),
        steering,
        session.for_index(),
        writer,
        effort,
        allow_live,
    )
    .await?;
    let reader: Arc<dyn NodeSource> = Arc::clone(&engine.reader) as _;
    let parent = parent.map(|root| Arc::new(Tree::new(root, engine.vault.ids.clone(), reader)));
    let count = segments.end - segments.start;
    steering.progress.set_total(count * SEGMENT);
    let context = line.context(&disk, parent)?;
    let lane = Lane {
        context: Arc::clone(&context),
        changes: None,
        ranges: Arc::new(Ranges::only(segments)),
    };
    let mut counts = BackupCounts::default();
    let products = vec![Product::Leaves(tresor_storage::recipe::LeafRun::new())];
    let (produced, written) = line.run(&[lane], products, uploads, &mut counts).await?;
    counts.bytes_stored = written.bytes;
    counts.packs = written.packs;
    let live = line.check_steady(&context).await?;
    // What is not acknowledged after this is named by the commit.
    engine.shares.settle().await;
    match produced.into_iter().next() {
        Some(Produced::Leaves(leaves)) if leaves.len() as u64 == count => Ok(PartMade { leaves, counts, live }),
        _ => Err(WorkerError::Interrupted),
    }
}

/// What helpers did for a backup.
#[derive(Debug, Default)]
struct Helped {
    counts: BackupCounts,
    live: bool,
}

/// Helpers at work; they stop when this is dropped.
pub(super) struct Helping {
    tasks: JoinSet<()>,
    helped: Arc<Mutex<Helped>>,
}

/// A disk as helpers are told of it.
pub(super) struct HelpedDisk {
    pub(super) order: PartOrder,
    pub(super) ranges: Arc<Ranges>,
}

impl Helping {
    /// Has each helper take ranges of the disks, from their ends.
    pub(super) fn begin(helpers: &[Arc<dyn Helper>], disks: Vec<HelpedDisk>, progress: &Arc<Progress>) -> Self {
        let mut tasks = JoinSet::new();
        let helped = Arc::new(Mutex::new(Helped::default()));
        let disks = Arc::new(disks);
        for helper in helpers {
            let (helper, disks) = (Arc::clone(helper), Arc::clone(&disks));
            let (helped, progress) = (Arc::clone(&helped), Arc::clone(progress));
            tasks.spawn(async move { help(helper.as_ref(), &disks, &helped, &progress).await }.in_current_span());
        }
        Self { tasks, helped }
    }

    /// When all ranges have come into their recipes: what they took, and whether a disk was live.
    pub(super) fn finish(mut self) -> (BackupCounts, bool) {
        self.tasks.abort_all();
        let helped = self.helped.lock().unwrap_or_else(PoisonError::into_inner);
        (helped.counts, helped.live)
    }
}

/// Gives a range back unless it was made: also when its task is dropped.
struct Away<'a> {
    ranges: &'a Ranges,
    at: usize,
    is_made: bool,
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        if !self.is_made {
            self.ranges.give_back(self.at);
        }
    }
}

async fn help(helper: &dyn Helper, disks: &[HelpedDisk], helped: &Mutex<Helped>, progress: &Arc<Progress>) {
    loop {
        // The disk of which most is left.
        let Some(disk) = disks.iter().max_by_key(|disk| disk.ranges.spare()) else {
            return;
        };
        let Some((at, segments)) = disk.ranges.take_last() else {
            return;
        };
        let mut away = Away {
            ranges: &disk.ranges,
            at,
            is_made: false,
        };
        let order = PartOrder {
            segments: segments.clone(),
            ..disk.order.clone()
        };
        match helper.read(order, Arc::clone(progress)).await {
            Ok(made) if made.leaves.len() as u64 == segments.end - segments.start => {
                tracing::info!(
                    helper = helper.name(),
                    disk = disk.order.disk,
                    first = segments.start,
                    segments = segments.end - segments.start,
                    bytes_stored = made.counts.bytes_stored,
                    "range was read by another worker"
                );
                let mut helped = helped.lock().unwrap_or_else(PoisonError::into_inner);
                helped.counts.add(&made.counts);
                helped.live |= made.live;
                drop(helped);
                away.is_made = true;
                disk.ranges.made(at, made.leaves);
            }
            Ok(_) => {
                tracing::warn!(
                    helper = helper.name(),
                    "another worker answered another range than was asked for"
                );
                return;
            }
            Err(HelperError::Busy) => {
                drop(away);
                sleep(BUSY_PAUSE).await;
            }
            Err(HelperError::Failed { why }) => {
                tracing::warn!(
                    helper = helper.name(),
                    disk = disk.order.disk,
                    why,
                    "range was not read by another worker"
                );
                return;
            }
        }
    }
}
