//! Chunks that another session said it is storing: asked for again when it has had time, and read and stored here if it did not.
//!
//! A segment with such chunks holds up the recipe (leaves are made in disk order), never the reading: what comes after it waits in the packer as
//! names. So it is settled after so many segments at the latest, and after a short wait when there is nothing left to read.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tresor_storage::ids::ChunkId;
use tresor_storage::index::Answer;
use tresor_storage::limits::{GRAIN, SEGMENT};
use tresor_storage::recipe::Child;

use super::frames::{DeferredLeaf, DeferredRun, Frames, PackerGone, ResolvedRuns};
use super::segment::{DiskContext, Part};
use crate::error::WorkerError;

/// How many segments behind a deferred one may wait for it: 8 GiB of disk, whose names are some 15 MB.
const BEHIND_MAX: u64 = 2048;
/// How long a disk that is read waits for chunks of others: a pack that is being put is there in a second or two.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long it waits for a leaf all of whose chunks are there. Whoever stores it may wait for another in turn, and a leaf is a thousandth of its segment.
const LEAF_PATIENCE: Duration = Duration::from_millis(600);
/// Between two questions then.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a deferral could not be settled.
pub(super) enum DeferralError {
    Worker(WorkerError),
    PackerGone,
}

impl From<PackerGone> for DeferralError {
    fn from(_: PackerGone) -> Self {
        Self::PackerGone
    }
}

/// The segments of a disk that wait for other sessions, in disk order.
#[derive(Debug, Default)]
pub(super) struct Deferrals {
    waiting: VecDeque<(u64, DeferredLeaf)>,
    /// Questions asked.
    pub(super) lookups: u64,
    /// Bytes read again.
    pub(super) bytes_read: u64,
}

impl Deferrals {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn add(&mut self, segment: u64, leaf: DeferredLeaf) {
        self.waiting.push_back((segment, leaf));
    }

    /// Settles what is too far behind `segment`.
    pub(super) async fn settle_far(
        &mut self,
        context: &Arc<DiskContext>,
        frames: &mut Frames,
        segment: u64,
    ) -> Result<(), DeferralError> {
        while let Some((first, _)) = self.waiting.front()
            && first + BEHIND_MAX <= segment
        {
            let (segment, leaf) = self.waiting.pop_front().expect("there is a first");
            let answers = self.ask(context, &leaf).await;
            self.settle(context, frames, segment, &leaf, &answers).await?;
        }
        Ok(())
    }

    /// Settles the rest, when all disks are read.
    pub(super) async fn settle_all(
        &mut self,
        context: &Arc<DiskContext>,
        frames: &mut Frames,
    ) -> Result<(), DeferralError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        // Those for whom we wait may wait for what we have not put yet.
        frames.put_pack().await?;
        let began = Instant::now();
        loop {
            let waited = began.elapsed();
            let mut left = VecDeque::new();
            let mut settled = false;
            for (segment, leaf) in std::mem::take(&mut self.waiting) {
                let answers = self.ask(context, &leaf).await;
                let patience = match answers.split_first() {
                    Some((_, runs)) if runs.contains(&Answer::Claimed) => PATIENCE,
                    Some((Answer::Claimed, _)) => LEAF_PATIENCE,
                    _ => Duration::ZERO,
                };
                if waited < patience {
                    left.push_back((segment, leaf));
                    continue;
                }
                settled |= answers.contains(&Answer::New);
                self.settle(context, frames, segment, &leaf, &answers).await?;
            }
            self.waiting = left;
            if self.waiting.is_empty() {
                return Ok(());
            }
            if settled {
                // What others may wait for in their turn.
                frames.put_pack().await?;
            }
            sleep(PAUSE).await;
        }
    }

    /// Asks for the leaf, then for its deferred chunks.
    async fn ask(&mut self, context: &DiskContext, leaf: &DeferredLeaf) -> Vec<Answer> {
        let ids: Vec<ChunkId> = [leaf.id]
            .into_iter()
            .chain(leaf.runs.iter().map(|run| run.id))
            .collect();
        self.lookups += ids.len() as u64;
        match context.index.lookup(context.session, &ids).await {
            Ok(answers) => answers.into_iter().map(|answer| context.believed(answer)).collect(),
            Err(error) => {
                tracing::warn!(disk = %context.disk, %error, "index does not answer, chunks are stored as new");
                vec![Answer::New; ids.len()]
            }
        }
    }

    async fn settle(
        &mut self,
        context: &Arc<DiskContext>,
        frames: &mut Frames,
        segment: u64,
        leaf: &DeferredLeaf,
        answers: &[Answer],
    ) -> Result<(), DeferralError> {
        let (of_leaf, of_runs) = answers.split_first().expect("the leaf was asked for");
        let all_known = of_runs.iter().all(|answer| matches!(answer, Answer::Known(_)));
        if let (true, Answer::Known(hint)) = (all_known && context.is_undamaged(), of_leaf) {
            let child = Child {
                id: leaf.id,
                hint: *hint,
                print: leaf.print,
            };
            return Ok(frames.resolve(leaf.key, ResolvedRuns::Stored(child)).await?);
        }
        let mut parts = Vec::with_capacity(leaf.runs.len());
        for (run, answer) in leaf.runs.iter().zip(of_runs) {
            let DeferredRun { grains, id, .. } = *run;
            parts.push(match answer {
                Answer::Known(at) => Part::Located { grains, id, at: *at },
                Answer::New | Answer::Claimed => self.read_again(context, segment, *run).await?,
            });
        }
        Ok(frames.resolve(leaf.key, ResolvedRuns::Runs(parts)).await?)
    }

    /// Reads a chunk once more, which must be what it was: its leaf is named already.
    async fn read_again(
        &mut self,
        context: &Arc<DiskContext>,
        segment: u64,
        run: DeferredRun,
    ) -> Result<Part, DeferralError> {
        let DeferredRun { first, grains, id } = run;
        let offset = segment * SEGMENT + u64::from(first) * u64::from(GRAIN);
        let length = usize::from(grains) * GRAIN as usize;
        let there = length.min((context.source.size() - offset) as usize);
        let read = context.source.read(offset, crate::source::buffer(there)).await;
        let mut data = read.map_err(|source| DeferralError::Worker(context.source_error(source)))?;
        self.bytes_read += there as u64;
        context.progress.add_read(there as u64);
        data.resize(length, 0);
        let data = data.freeze();
        let (vault, named) = (Arc::clone(&context.vault), data.clone());
        if context.cores.run(move || vault.ids.chunk(&named)).await != id {
            return Err(DeferralError::Worker(WorkerError::Changed {
                disk: context.disk.clone(),
                why: format!("what lies at {offset} was another thing when it was read first"),
            }));
        }
        Ok(Part::Missing { grains, id, data })
    }
}
