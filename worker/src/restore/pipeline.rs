//! One disk from its recipe to its target.

use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::{Semaphore, mpsc};
use tracing::Instrument as _;
use tresor_storage::buffers::Pool;
use tresor_storage::chunk::is_zero;
use tresor_storage::ids::Location;
use tresor_storage::limits::{FRAME_PLAIN_TARGET, GRAIN, READ_REQUEST_MAX, SEGMENT};
use tresor_storage::pack::Pieces;
use tresor_storage::recipe::{Child, Entry, NodeSource, Tree};
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::{VaultReader, check_chunk, names, open_pieces_in};
use tresor_storage::{Doing, Error, FormatError, Kind};

use super::plan::{FrameRead, PackRead, Want, plan_reads};
use super::{Damage, RestoreOutcome, RestorePreview, RestoreRequest};
use crate::cores::Cores;
use crate::error::WorkerError;
use crate::extent::Extent;
use crate::progress::Stage;
use crate::sink::SinkError;

/// Chunks planned at once: about 6 MB, three times over, and enough of a disk that a pack is seldom fetched twice.
const WINDOW_WANTS: usize = 1 << 16;
/// Leaves read at once.
const LEAVES_IN_FLIGHT: usize = 16;
/// Requests being fetched or written at once.
const READS_IN_FLIGHT: usize = 8;
/// Bytes fetched and not yet written.
const FLIGHT_BYTES: u64 = 32 << 20;
/// Frames opened and written as one: each handing over between threads costs as much as hashing a chunk.
const FRAMES_AT_ONCE: usize = 3;
/// Room for a frame's table of lengths.
const FRAME_TABLE: usize = 4096;
/// Ranges of damage kept; beyond, they are only counted into the last.
const DAMAGE_MAX: usize = 10_000;
const _: () = assert!(FLIGHT_BYTES >= 2 * READ_REQUEST_MAX);

/// Restores a disk.
///
/// # Errors
/// By cause. Damage that another copy does not heal is in the outcome; without `allow_damage` the sink is then not finished, so that a new target
/// never looks complete.
pub async fn run(reader: &Arc<VaultReader>, request: RestoreRequest) -> Result<RestoreOutcome, WorkerError> {
    tokio::select! {
        outcome = restore(reader, &request) => outcome,
        () = request.cancel.cancelled() => Err(WorkerError::Interrupted),
    }
}

struct Job {
    reader: Arc<VaultReader>,
    request: RestoreRequest,
    outcome: Mutex<RestoreOutcome>,
    cores: Cores,
    /// Opened frames: so many for each request in flight, as each opens the next when the last are written.
    plain_buffers: Arc<Pool<Vec<u8>>>,
    flight: Semaphore,
}

async fn restore(reader: &Arc<VaultReader>, request: &RestoreRequest) -> Result<RestoreOutcome, WorkerError> {
    request.progress.set_total(request.root.size);
    let job = Arc::new(Job {
        reader: Arc::clone(reader),
        request: request.clone(),
        outcome: Mutex::default(),
        cores: Cores::new(request.cores)?,
        plain_buffers: Pool::new(FRAME_PLAIN_TARGET + FRAME_TABLE, READS_IN_FLIGHT * FRAMES_AT_ONCE),
        flight: Semaphore::new((FLIGHT_BYTES >> 10) as usize),
    });
    let (planned_in, mut planned) = mpsc::channel::<Vec<PackRead>>(1);
    let planner = {
        let job = Arc::clone(&job);
        tokio_util::task::AbortOnDropHandle::new(tokio::spawn(
            async move { job.plan(planned_in).await }.in_current_span(),
        ))
    };
    // One stream over all windows: while the last reads of one are written, the first of the next are fetched.
    let reads = stream::poll_fn(move |context| planned.poll_recv(context)).flat_map(stream::iter);
    reads
        .map(|read| {
            let job = Arc::clone(&job);
            let task = tokio::spawn(async move { job.fetch_and_write(read).await }.in_current_span());
            let task = tokio_util::task::AbortOnDropHandle::new(task);
            async move { joined(task.await) }
        })
        .buffer_unordered(READS_IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    joined(planner.await)?;
    let outcome = {
        let mut outcome = std::mem::take(&mut *job.outcome.lock().expect("no panic while held"));
        outcome.damage.sort_by_key(|d| d.offset);
        outcome
    };
    if outcome.damage.is_empty() || request.allow_damage {
        request.sink.finish().await.map_err(|source| job.sink_error(source))?;
    }
    Ok(outcome)
}

fn joined<T>(result: Result<Result<T, WorkerError>, tokio::task::JoinError>) -> Result<T, WorkerError> {
    match result {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(WorkerError::Interrupted),
        },
    }
}

/// What a restore of a whole disk to a new target would fetch.
///
/// # Errors
/// When the recipe cannot be read.
pub async fn preview(
    reader: &Arc<VaultReader>,
    root: tresor_storage::recipe::Root,
    merge_gap: u64,
) -> Result<RestorePreview, WorkerError> {
    let source: Arc<dyn NodeSource> = Arc::clone(reader) as _;
    let tree = Tree::new(root, reader.vault().ids.clone(), source);
    let mut preview = RestorePreview::default();
    let mut packs = std::collections::BTreeSet::new();
    let mut wants = Vec::new();
    let mut count = |wants: &mut Vec<Want>| {
        for read in plan_reads(wants, merge_gap) {
            preview.requests += 1;
            preview.bytes_fetched += read.range.end - read.range.start;
            packs.insert(read.pack);
        }
        preview.bytes_data += wants
            .iter()
            .map(|w| u64::from(w.grains) * u64::from(GRAIN))
            .sum::<u64>();
        wants.clear();
    };
    let mut segment = 0;
    while segment < root.segments() {
        let end = (segment + 256).min(root.segments());
        let present = tree.present(segment..end).await?;
        let mut leaves = stream::iter(present)
            .map(|(segment, child)| {
                let tree = &tree;
                async move { (segment, tree.read_leaf(segment, child).await) }
            })
            .buffered(LEAVES_IN_FLIGHT);
        while let Some((segment, leaf)) = leaves.next().await {
            wants.extend(wants_of(segment, &leaf?.entries));
            if wants.len() >= WINDOW_WANTS {
                count(&mut wants);
            }
        }
        segment = end;
    }
    count(&mut wants);
    preview.packs = packs.len() as u64;
    Ok(preview)
}

fn wants_of(segment: u64, entries: &[Entry]) -> impl Iterator<Item = Want> + '_ {
    let mut at = segment * SEGMENT;
    entries.iter().filter_map(move |entry| {
        let offset = at;
        at += u64::from(entry.grains()) * u64::from(GRAIN);
        match entry {
            Entry::Hole { .. } => None,
            Entry::Chunk { grains, id, hint } => Some(Want {
                offset,
                grains: *grains,
                id: *id,
                hint: *hint,
            }),
        }
    })
}

impl Job {
    fn sink_error(&self, source: SinkError) -> WorkerError {
        WorkerError::Sink {
            disk: self.request.disk.clone(),
            source,
        }
    }

    fn count(&self, with: impl FnOnce(&mut RestoreOutcome)) {
        with(&mut self.outcome.lock().expect("no panic while held"));
    }

    fn add_damage(&self, offset: u64, length: u64, why: &str) {
        self.count(|outcome| {
            let is_full = outcome.damage.len() >= DAMAGE_MAX;
            match outcome.damage.last_mut() {
                Some(last) if last.offset + last.length == offset && last.why == why => last.length += length,
                Some(last) if is_full => {
                    let end = (last.offset + last.length).max(offset + length);
                    last.offset = last.offset.min(offset);
                    last.length = end - last.offset;
                }
                _ => outcome.damage.push(Damage {
                    offset,
                    length,
                    why: why.to_owned(),
                }),
            }
        });
    }

    /// Walks the recipe and sends windows of reads.
    async fn plan(&self, planned: mpsc::Sender<Vec<PackRead>>) -> Result<(), WorkerError> {
        let root = self.request.root;
        let source: Arc<dyn NodeSource> = Arc::clone(&self.reader) as _;
        let tree = Tree::new(root, self.reader.vault().ids.clone(), source);
        let mut wants: Vec<Want> = Vec::new();
        let mut segment = 0;
        while segment < root.segments() {
            let end = (segment + 256).min(root.segments());
            let present = self.present(&tree, segment..end).await?;
            let mut leaves = stream::iter(present)
                .map(|(segment, child)| {
                    let tree = &tree;
                    async move { (segment, self.segment_wants(tree, segment, child).await) }
                })
                .buffered(LEAVES_IN_FLIGHT);
            while let Some((segment, found)) = leaves.next().await {
                let found = found?;
                let chunks: u64 = found.iter().map(|w| u64::from(w.grains) * u64::from(GRAIN)).sum();
                // What is not to be fetched is done now; the rest as it is written.
                let length = (root.size - segment * SEGMENT).min(SEGMENT);
                self.request.progress.add_done(length.saturating_sub(chunks));
                wants.extend(found);
                if wants.len() >= WINDOW_WANTS
                    && planned
                        .send(plan_reads(&std::mem::take(&mut wants), self.request.merge_gap))
                        .await
                        .is_err()
                {
                    return Ok(());
                }
            }
            segment = end;
        }
        if !wants.is_empty() {
            // The receiver is gone only when the restore has failed, and it says why.
            let _ = planned.send(plan_reads(&wants, self.request.merge_gap)).await;
        }
        Ok(())
    }

    /// The segments to look at, with their leaves; damage above them is noted for all that is below. Holes of a target that may hold something are
    /// looked at too.
    async fn present(&self, tree: &Tree, segments: Range<u64>) -> Result<Vec<(u64, Option<Child>)>, WorkerError> {
        let size = self.request.root.size;
        let every = self.request.in_place || !self.request.sink.is_zeroed();
        if !every && let Ok(present) = tree.present(segments.clone()).await {
            let skipped: u64 = segments
                .clone()
                .filter(|s| present.binary_search_by_key(s, |(p, _)| *p).is_err())
                .map(|s| (size - s * SEGMENT).min(SEGMENT))
                .sum();
            self.request.progress.add_done(skipped);
            return Ok(present
                .into_iter()
                .map(|(segment, child)| (segment, Some(child)))
                .collect());
        }
        let mut found = Vec::new();
        for segment in segments {
            match tree.child(0, segment).await {
                Ok(None) if !every => {}
                Ok(child) => found.push((segment, child)),
                Err(error) => self.note(error, segment * SEGMENT, (size - segment * SEGMENT).min(SEGMENT))?,
            }
        }
        Ok(found)
    }

    /// Damage is noted; anything else is an error.
    fn note(&self, error: Error, offset: u64, length: u64) -> Result<(), WorkerError> {
        if matches!(error.kind(), Kind::Missing | Kind::Corrupt) {
            self.add_damage(offset, length, &error.chain());
            return Ok(());
        }
        Err(error.into())
    }

    /// What of a segment is to be fetched; makes its holes, and leaves out what the target has already.
    async fn segment_wants(&self, tree: &Tree, segment: u64, child: Option<Child>) -> Result<Vec<Want>, WorkerError> {
        let length = (self.request.root.size - segment * SEGMENT).min(SEGMENT);
        let leaf = match child {
            Some(child) => match tree.read_leaf(segment, child).await {
                Ok(leaf) => leaf,
                Err(error) => {
                    self.note(error, segment * SEGMENT, length)?;
                    return Ok(Vec::new());
                }
            },
            None => tresor_storage::recipe::Leaf {
                entries: vec![Entry::Hole {
                    grains: tree.root().grains(segment) as u16,
                }],
            },
        };
        let mut wants: Vec<Want> = wants_of(segment, &leaf.entries).collect();
        if self.request.in_place {
            self.compare(segment, length, &leaf.entries, &mut wants).await?;
        } else if !self.request.sink.is_zeroed() {
            for hole in holes_of(segment, length, &leaf.entries) {
                self.request.sink.zero(hole).await.map_err(|e| self.sink_error(e))?;
            }
        }
        Ok(wants)
    }

    /// Compares a segment with what the target holds.
    async fn compare(
        &self,
        segment: u64,
        length: u64,
        entries: &[Entry],
        wants: &mut Vec<Want>,
    ) -> Result<(), WorkerError> {
        let buffer = crate::source::buffer(length as usize);
        let mut there = self
            .request
            .sink
            .read(segment * SEGMENT, buffer)
            .await
            .map_err(|e| self.sink_error(e))?;
        there.resize((length as usize).next_multiple_of(GRAIN as usize), 0);
        let there = there.freeze();
        for hole in holes_of(segment, length, entries) {
            let start = (hole.offset - segment * SEGMENT) as usize;
            if !is_zero(&there[start..start + hole.length as usize]) {
                self.request.sink.zero(hole).await.map_err(|e| self.sink_error(e))?;
            }
        }
        let (reader, wanted) = (Arc::clone(&self.reader), std::mem::take(wants));
        let compared = self.cores.run(move || {
            wanted.into_iter().partition(|want: &Want| {
                let start = (want.offset - segment * SEGMENT) as usize;
                let end = start + usize::from(want.grains) * GRAIN as usize;
                reader.vault().ids.chunk(&there[start..end]) == want.id
            })
        });
        let (equal, differs): (Vec<Want>, Vec<Want>) = compared.await;
        self.count(|outcome| {
            outcome.bytes_equal += equal
                .iter()
                .map(|w| u64::from(w.grains) * u64::from(GRAIN))
                .sum::<u64>();
        });
        *wants = differs;
        Ok(())
    }

    async fn fetch_and_write(&self, read: PackRead) -> Result<(), WorkerError> {
        let length = read.range.end - read.range.start;
        let permits = (length.div_ceil(1 << 10)) as u32;
        let _flight = self.flight.acquire_many(permits).await.expect("never closed");
        let vault = self.reader.vault();
        let name = names::pack(read.pack);
        let fetched = futures::future::try_join(self.reader.pack_keys(read.pack), async {
            vault
                .backend
                .read_range(&name, read.range.clone())
                .await
                .doing(|| format!("read pack {}", read.pack))
        });
        let fetching = self.request.progress.time(Stage::Fetch);
        let fetched = fetched.await;
        drop(fetching);
        let (keys, bytes) = match fetched {
            Ok(fetched) => fetched,
            Err(error) if matches!(error.kind(), Kind::Missing | Kind::Corrupt) => {
                // Perhaps one frame of the many is there: each is tried for itself.
                for frame in read.frames {
                    self.write_frame_alone(&frame).await?;
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.count(|outcome| {
            outcome.bytes_fetched += length;
            outcome.requests += 1;
        });
        self.request.progress.add_stored(length);
        let mut frames = read.frames.into_iter();
        loop {
            let group: Vec<FrameRead> = frames.by_ref().take(FRAMES_AT_ONCE).collect();
            if group.is_empty() {
                return Ok(());
            }
            let (keys, reader) = (Arc::clone(&keys), Arc::clone(&self.reader));
            let (buffers, bytes, first) = (Arc::clone(&self.plain_buffers), bytes.clone(), read.range.start);
            let opened = self.cores.run(move || {
                let mut writes = Vec::new();
                let mut harmed = Vec::new();
                for frame in group {
                    let start = (u64::from(frame.at.frame_offset) - first) as usize;
                    let sealed = &bytes[start..start + frame.at.frame_length as usize];
                    let checked = open_pieces_in(&keys, FrameKind::Data, sealed, &buffers)
                        .and_then(|pieces| check_wants(&reader, &pieces, &frame));
                    match checked {
                        Ok(checked) => writes.extend(checked),
                        Err(_) => harmed.push(frame),
                    }
                }
                (writes, harmed)
            });
            let (writes, harmed) = opened.await;
            self.write(writes).await?;
            for frame in harmed {
                self.write_frame_alone(&frame).await?;
            }
        }
    }

    /// The slow way: each chunk of a frame for itself, wherever it is, and what cannot be had is damage.
    async fn write_frame_alone(&self, frame: &FrameRead) -> Result<(), WorkerError> {
        for want in &frame.wants {
            match self.reader.chunk(want.id, want.hint).await {
                Ok(data) if data.len() == usize::from(want.grains) * GRAIN as usize => {
                    self.write(vec![(want.offset, data)]).await?;
                }
                Ok(_) => {
                    let why = Error::from(FormatError::Malformed {
                        what: "chunk",
                        why: "has another length than its recipe says",
                    });
                    self.note(why, want.offset, self.length_of(want))?;
                }
                Err(error) => self.note(error, want.offset, self.length_of(want))?,
            }
        }
        Ok(())
    }

    /// A want's bytes on the disk: fewer at its end.
    fn length_of(&self, want: &Want) -> u64 {
        (u64::from(want.grains) * u64::from(GRAIN)).min(self.request.root.size - want.offset)
    }

    /// Writes checked chunks, neighbours together.
    async fn write(&self, mut writes: Vec<(u64, Bytes)>) -> Result<(), WorkerError> {
        writes.sort_by_key(|(offset, _)| *offset);
        let size = self.request.root.size;
        let mut runs: Vec<(u64, Vec<Bytes>)> = Vec::new();
        let mut end = 0;
        let mut total = 0;
        let chunks = writes.len() as u64;
        for (offset, mut data) in writes {
            data.truncate((size - offset).min(data.len() as u64) as usize);
            let length = data.len() as u64;
            match runs.last_mut() {
                Some((_, run)) if offset == end => run.push(data),
                _ => runs.push((offset, vec![data])),
            }
            end = offset + length;
            total += length;
        }
        let writing = self.request.progress.time(Stage::Write);
        let written = self.request.sink.write_runs(runs).await;
        drop(writing);
        written.map_err(|e| self.sink_error(e))?;
        self.count(|outcome| {
            outcome.bytes_written += total;
            outcome.chunks += chunks;
        });
        self.request.progress.add_read(total);
        self.request.progress.add_done(total);
        Ok(())
    }
}

/// Holes of a segment, cut at the disk's end.
fn holes_of(segment: u64, length: u64, entries: &[Entry]) -> Vec<Extent> {
    let mut at = 0;
    let mut holes = Vec::new();
    for entry in entries {
        let end = at + u64::from(entry.grains()) * u64::from(GRAIN);
        if let Entry::Hole { .. } = entry {
            holes.push(Extent {
                offset: segment * SEGMENT + at,
                length: end.min(length) - at,
            });
        }
        at = end;
    }
    holes
}

/// Every want of a frame, checked against its name; one that fails fails the frame, whose chunks are then tried one by one.
fn check_wants(reader: &VaultReader, pieces: &Pieces, frame: &FrameRead) -> Result<Vec<(u64, Bytes)>, Error> {
    let mut writes = Vec::with_capacity(frame.wants.len());
    let mut checked: Option<(Location, Bytes)> = None;
    for want in &frame.wants {
        let data = match &checked {
            Some((at, data)) if *at == want.hint => data.clone(),
            _ => {
                let data = pieces.at(want.hint.place)?;
                check_chunk(reader.vault(), want.id, &data)?;
                checked = Some((want.hint, data.clone()));
                data
            }
        };
        if data.len() != usize::from(want.grains) * GRAIN as usize {
            return Err(FormatError::Malformed {
                what: "chunk",
                why: "has another length than its recipe says",
            }
            .into());
        }
        writes.push((want.offset, data));
    }
    Ok(writes)
}
