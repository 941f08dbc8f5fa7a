//! The disks of an item, read side by side: each in its own order, and none waits for another.

use std::ops::Range;
use std::sync::Arc;

use futures::future::ready;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;
use tresor_storage::limits::{DISKS_AT_ONCE, SEGMENT};
use tresor_storage::recipe::RangeLeaf;

use super::BackupCounts;
use super::deferred::{DeferralError, Deferrals};
use super::flight::Flight;
use super::frames::{Frames, PackerGone};
use super::plan::{Todo, plan_changed, plan_read};
use super::ranges::{Next, Ranges};
use super::segment::{DiskContext, SegmentDone, SegmentOutcome};
use crate::error::WorkerError;
use crate::extent::Extent;
use crate::source::{DiskSource, SourceError};

/// Segments planned at once: one question for allocated extents per GiB.
const WINDOW: u64 = 256;

/// Why the disks could not be read to their ends.
pub(super) enum ReadError {
    Worker(Box<WorkerError>),
    PackerGone,
}

impl From<PackerGone> for ReadError {
    fn from(_: PackerGone) -> Self {
        Self::PackerGone
    }
}

impl From<WorkerError> for ReadError {
    fn from(error: WorkerError) -> Self {
        Self::Worker(Box::new(error))
    }
}

impl From<DeferralError> for ReadError {
    fn from(error: DeferralError) -> Self {
        match error {
            DeferralError::Worker(error) => error.into(),
            DeferralError::PackerGone => Self::PackerGone,
        }
    }
}

/// What comes of a disk, in its order.
enum Step {
    Segment {
        segment: u64,
        /// Its number in the flight.
        number: u64,
        outcome: SegmentOutcome,
    },
    /// A range that another worker has read.
    Made(Vec<RangeLeaf>),
    End,
}

/// A disk that is read.
pub(super) struct Lane {
    pub(super) context: Arc<DiskContext>,
    /// What may have changed since the parent, if that is known.
    pub(super) changes: Option<Arc<[Extent]>>,
    pub(super) ranges: Arc<Ranges>,
}

/// How many segments of each disk are in work. Two more than cores in all, because while each core cuts one, one is read and one waits; and at least
/// two of each disk, so that a slow disk is asked for the next segment while one is cut.
fn ahead(cores: usize, disks: usize) -> usize {
    let lanes = disks.clamp(1, DISKS_AT_ONCE);
    (cores.max(1) + 2).div_ceil(lanes).max(2)
}

/// Reads all disks; their segments go to `frames`.
pub(super) async fn read_disks(
    lanes: &[Lane],
    cores: usize,
    frames: &mut Frames,
    counts: &mut BackupCounts,
) -> Result<(), ReadError> {
    let ahead = ahead(cores, lanes.len());
    let flight = frames.flight();
    let each: Vec<BoxStream<'static, Result<(usize, Step), ReadError>>> = lanes
        .iter()
        .enumerate()
        .map(|(disk, lane)| {
            let steps = steps(lane, ahead, &flight);
            steps.map_ok(move |step| (disk, step)).boxed()
        })
        .collect();
    let mut steps = stream::iter(each).flatten_unordered(DISKS_AT_ONCE);
    let mut deferrals: Vec<Deferrals> = lanes.iter().map(|_| Deferrals::default()).collect();
    while let Some(step) = steps.next().await {
        let (disk, step) = step?;
        let context = &lanes[disk].context;
        match step {
            Step::Segment {
                segment,
                number,
                outcome,
            } => {
                counts.bytes_read += outcome.bytes_read;
                counts.lookups += outcome.lookups;
                if matches!(outcome.done, SegmentDone::Inherited(_)) {
                    counts.segments_inherited += 1;
                    // Inherited within the segment or with it: either way the parent had them.
                    counts.chunks_known += outcome.chunks_kept;
                }
                if let Some(leaf) = frames.push(disk, number, outcome.done).await? {
                    deferrals[disk].add(segment, leaf);
                }
                deferrals[disk].settle_far(context, frames, segment + 1).await?;
            }
            Step::Made(leaves) => frames.push_made(disk, leaves).await?,
            // What is deferred is waited for when there is nothing left to read.
            Step::End if deferrals[disk].is_empty() => frames.end_disk(disk).await?,
            Step::End => {}
        }
    }
    drop(steps);
    for (disk, (deferrals, lane)) in deferrals.iter_mut().zip(lanes).enumerate() {
        if !deferrals.is_empty() {
            deferrals.settle_all(&lane.context, frames).await?;
            frames.end_disk(disk).await?;
        }
        counts.lookups += deferrals.lookups;
        counts.bytes_read += deferrals.bytes_read;
    }
    Ok(frames.finish().await?)
}

/// What comes of one disk, in order: what others read, and what is read here.
fn steps(lane: &Lane, ahead: usize, flight: &Arc<Flight>) -> BoxStream<'static, Result<Step, ReadError>> {
    let (context, changes) = (Arc::clone(&lane.context), lane.changes.clone());
    let flight = Arc::clone(flight);
    stream::unfold(Arc::clone(&lane.ranges), |ranges| async move {
        let next = ranges.next().await;
        (!matches!(next, Next::End)).then_some((next, ranges))
    })
    .flat_map(move |next| match next {
        Next::Read(range) => segments(Arc::clone(&context), range, changes.clone(), ahead, Arc::clone(&flight)),
        Next::Made(leaves) => stream::once(ready(Ok(Step::Made(leaves)))).boxed(),
        Next::End => stream::empty().boxed(),
    })
    .chain(stream::once(ready(Ok(Step::End))))
    .boxed()
}

/// The segments of a range, in order, some of them in work at once.
fn segments(
    context: Arc<DiskContext>,
    range: Range<u64>,
    changes: Option<Arc<[Extent]>>,
    ahead: usize,
    flight: Arc<Flight>,
) -> BoxStream<'static, Result<Step, ReadError>> {
    let planning = Arc::clone(&context);
    let windows = range.clone().step_by(WINDOW as usize);
    let todos = stream::iter(windows).then(move |first| {
        let (context, changes) = (Arc::clone(&planning), changes.clone());
        let window = first..(first + WINDOW).min(range.end);
        async move {
            let planned = plan_window(&context, window, changes.as_deref()).await;
            let todos = planned.map_err(|source| context.source_error(source))?;
            Ok::<_, WorkerError>(stream::iter(todos.into_iter().map(Ok::<_, WorkerError>)))
        }
    });
    let todos = todos.try_flatten();
    todos
        .map(move |todo| {
            let (segment, todo): (u64, Todo) = match todo {
                Ok(todo) => todo,
                Err(error) => return ready(Err(ReadError::from(error))).left_future(),
            };
            let number = flight.start();
            let work = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&context).run(segment, todo).in_current_span()));
            async move {
                match work.await {
                    Ok(outcome) => Ok(Step::Segment {
                        segment,
                        number,
                        outcome: outcome?,
                    }),
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => Err(WorkerError::Interrupted.into()),
                    },
                }
            }
            .right_future()
        })
        .buffered(ahead)
        .boxed()
}

async fn plan_window(
    context: &DiskContext,
    window: Range<u64>,
    changes: Option<&[Extent]>,
) -> Result<Vec<(u64, Todo)>, SourceError> {
    let source: &dyn DiskSource = context.source.as_ref();
    let size = source.size();
    let parent_size = context.parent.as_ref().map_or(0, |tree| tree.root().size);
    let within = Extent {
        offset: window.start * SEGMENT,
        length: (window.end * SEGMENT).min(size) - window.start * SEGMENT,
    };
    let length = |segment: u64| (size - segment * SEGMENT).min(SEGMENT);
    let mut todos = Vec::with_capacity((window.end - window.start) as usize);
    let mut allocated = None;
    for segment in window {
        let planned = changes.and_then(|changed| plan_changed(changed, segment, length(segment), parent_size));
        let todo = match planned {
            Some(todo) => todo,
            None => {
                if allocated.is_none() {
                    allocated = Some(source.allocated(within).await?);
                }
                plan_read(allocated.as_deref().expect("just asked"), segment, length(segment))
            }
        };
        todos.push((segment, todo));
    }
    Ok(todos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_alone_has_two_segments_more_than_cores_in_work_and_many_disks_two_each() {
        assert_eq!(ahead(2, 1), 4);
        assert_eq!(ahead(16, 1), 18);
        assert_eq!(ahead(16, 3), 6);
        assert_eq!(ahead(2, 100), 2);
        assert_eq!(ahead(0, 0), 3);
    }
}
