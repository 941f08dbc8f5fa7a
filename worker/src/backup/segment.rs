//! One segment: read, cut, named, compared with the parent, and looked up. Many run side by side; nothing here depends on their order.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use tresor_storage::chunk::recut::{Need, Recut, Recutted};
use tresor_storage::chunk::{Cutter, Fingerprint, Fingerprinter, Piece};
use tresor_storage::ids::{ChunkId, Location, PackId};
use tresor_storage::index::{Answer, ChunkIndex, IndexSession};
use tresor_storage::limits::{GRAIN, SEGMENT};
use tresor_storage::recipe::{Child, Entry, Leaf, Tree, leaf_id};
use tresor_storage::vault::Vault;

use super::plan::Todo;
use crate::cores::Cores;
use crate::error::WorkerError;
use crate::progress::{Lookups, Progress, Stage};
use crate::source::DiskSource;

/// A run of grains of a segment on its way into a leaf.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Hole {
        grains: u16,
    },
    /// Stored already.
    Located {
        grains: u8,
        id: ChunkId,
        at: Location,
    },
    /// Not found when asked.
    Missing {
        grains: u8,
        id: ChunkId,
        data: Bytes,
    },
    /// Another session is storing it. It is asked for again later, and read again if that session has not stored it by then.
    Claimed {
        grains: u8,
        id: ChunkId,
    },
}

impl Part {
    pub(super) fn grains(&self) -> u32 {
        match self {
            Self::Hole { grains } => u32::from(*grains),
            Self::Located { grains, .. } | Self::Missing { grains, .. } | Self::Claimed { grains, .. } => {
                u32::from(*grains)
            }
        }
    }
}

/// What became of a segment.
#[derive(Debug)]
pub(super) enum SegmentDone {
    Hole,
    /// The parent's leaf, as it is.
    Inherited(Child),
    /// New parts; `leaf` is stored already if all of its chunks are.
    Parts {
        leaf_id: ChunkId,
        print: Option<Fingerprint>,
        stored_leaf: Option<Location>,
        parts: Vec<Part>,
    },
}

/// A segment's outcome with what it took.
#[derive(Debug)]
pub(super) struct SegmentOutcome {
    pub(super) done: SegmentDone,
    pub(super) bytes_read: u64,
    pub(super) lookups: u64,
    pub(super) chunks_kept: u64,
}

/// Buffers of one segment, used again: fresh ones would cost page faults for every byte.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    free: Mutex<Vec<BytesMut>>,
}

impl BufferPool {
    fn take(self: &Arc<Self>, length: usize) -> Pooled {
        let buffer = self.free.lock().expect("no panic while held").pop();
        let mut buffer = buffer.unwrap_or_else(|| crate::source::buffer(SEGMENT as usize));
        buffer.resize(SEGMENT as usize, 0);
        Pooled {
            buffer,
            length,
            pool: Arc::clone(self),
        }
    }
}

/// A buffer that goes back when the last slice of it is dropped.
struct Pooled {
    buffer: BytesMut,
    length: usize,
    pool: Arc<BufferPool>,
}

impl AsRef<[u8]> for Pooled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        // A read that failed took the buffer with it.
        if buffer.capacity() >= SEGMENT as usize {
            self.pool.free.lock().expect("no panic while held").push(buffer);
        }
    }
}

/// Damage that was found in the vault: hints into it are never inherited.
#[derive(Debug, Default)]
pub(super) struct KnownDamage(HashSet<(PackId, Option<u32>)>);

impl KnownDamage {
    pub(super) fn new(found: Vec<(PackId, Option<u32>)>) -> Self {
        Self(found.into_iter().collect())
    }

    pub(super) fn harms(&self, at: Location) -> bool {
        !self.0.is_empty() && (self.0.contains(&(at.pack, None)) || self.0.contains(&(at.pack, Some(at.frame_offset))))
    }
}

/// What all segments of a disk share.
pub(super) struct DiskContext {
    pub(super) vault: Arc<Vault>,
    pub(super) index: Arc<dyn ChunkIndex>,
    pub(super) session: IndexSession,
    pub(super) cutter: Cutter,
    pub(super) prints: Fingerprinter,
    pub(super) source: Arc<dyn DiskSource>,
    pub(super) disk: String,
    pub(super) parent: Option<Arc<Tree>>,
    pub(super) damage: Arc<KnownDamage>,
    /// Whether what others are storing is waited for: not of a disk that may be another one when it is read again.
    pub(super) defers: bool,
    pub(super) cores: Arc<Cores>,
    pub(super) buffers: Arc<BufferPool>,
    pub(super) progress: Arc<Progress>,
}

impl DiskContext {
    fn length(&self, segment: u64) -> u64 {
        (self.source.size() - segment * SEGMENT).min(SEGMENT)
    }

    fn grains(&self, segment: u64) -> u32 {
        self.length(segment).div_ceil(u64::from(GRAIN)) as u32
    }

    /// The parent's leaf of a segment as its tree has it; one that cannot be read is as good as none.
    async fn parents_child(&self, segment: u64) -> Option<Child> {
        let tree = self.parent.as_ref()?;
        match tree.child(0, segment).await {
            Ok(child) => child,
            Err(error) => {
                tracing::warn!(disk = %self.disk, segment, error = error.chain(), "parent's recipe is not readable, segment is read as new");
                None
            }
        }
    }

    async fn parents_leaf(&self, segment: u64, child: Option<Child>) -> Option<Leaf> {
        let (tree, child) = (self.parent.as_ref()?, child?);
        if self.damage.harms(child.hint) {
            return None;
        }
        match tree.read_leaf(segment, child).await {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                tracing::warn!(disk = %self.disk, segment, error = error.chain(), "parent's leaf is not readable, segment is read as new");
                None
            }
        }
    }

    /// Does what the plan says.
    pub(super) async fn run(self: Arc<Self>, segment: u64, todo: Todo) -> Result<SegmentOutcome, WorkerError> {
        let mut outcome = SegmentOutcome {
            done: SegmentDone::Hole,
            bytes_read: 0,
            lookups: 0,
            chunks_kept: 0,
        };
        let mut todo = todo;
        if let Todo::Inherit | Todo::Recut(_) = todo
            && let Some(done) = self.follow_parent(segment, &todo, &mut outcome).await?
        {
            outcome.done = done;
        } else {
            if let Todo::Inherit | Todo::Recut(_) = todo {
                // The parent cannot be followed here: read what is allocated, as if nothing was known.
                let within = crate::extent::Extent {
                    offset: segment * SEGMENT,
                    length: self.length(segment),
                };
                let allocated = self
                    .source
                    .allocated(within)
                    .await
                    .map_err(|source| self.source_error(source))?;
                todo = super::plan::plan_read(&allocated, segment, within.length);
            }
            outcome.done = match todo {
                Todo::Read(reads) => self.read_whole(segment, &reads, &mut outcome).await?,
                _ => SegmentDone::Hole,
            };
        }
        let length = self.length(segment);
        self.progress.add_done(length);
        let (holes, known) = spared(&outcome.done, length);
        self.progress.add_spared(holes, known);
        Ok(outcome)
    }

    pub(super) fn source_error(&self, source: crate::source::SourceError) -> WorkerError {
        WorkerError::Source {
            disk: self.disk.clone(),
            source,
        }
    }

    async fn read_whole(
        &self,
        segment: u64,
        reads: &[Range<u64>],
        outcome: &mut SegmentOutcome,
    ) -> Result<SegmentDone, WorkerError> {
        let length = self.grains(segment) as usize * GRAIN as usize;
        let mut pooled = self.buffers.take(length);
        let mut rest = std::mem::take(&mut pooled.buffer);
        // The buffer is split where reads begin and end, each part is read into, and the parts are joined again without copying.
        let mut whole = rest.split_to(0);
        let mut at = 0;
        let reading = self.progress.time(Stage::Read);
        for read in reads {
            rest[..(read.start - at) as usize].fill(0);
            whole.unsplit(rest.split_to((read.start - at) as usize));
            let part = rest.split_to((read.end - read.start) as usize);
            let part = self
                .source
                .read(segment * SEGMENT + read.start, part)
                .await
                .map_err(|e| self.source_error(e))?;
            whole.unsplit(part);
            outcome.bytes_read += read.end - read.start;
            at = read.end;
        }
        drop(reading);
        rest[..length - at as usize].fill(0);
        whole.unsplit(rest);
        pooled.buffer = whole;
        self.progress.add_read(outcome.bytes_read);

        let child = self.parents_child(segment).await;
        let data = Bytes::from_owner(pooled);
        // With known damage a segment must be named, to find which of its chunks are harmed.
        let before = child.and_then(|child| child.print).filter(|_| self.damage.0.is_empty());
        let (vault, cutter, prints) = (Arc::clone(&self.vault), self.cutter.clone(), self.prints.clone());
        let named = self
            .cores
            .run(move || name_segment(&vault, &cutter, &prints, before, &data));
        let cutting = self.progress.time(Stage::Cut);
        let named = named.await;
        drop(cutting);
        match named {
            Named::Hole => Ok(SegmentDone::Hole),
            Named::Unchanged => Ok(SegmentDone::Inherited(child.expect("its fingerprint was compared"))),
            Named::New(fresh) => self.place(segment, child, fresh, None, outcome).await,
        }
    }

    /// Follows the parent by known changes; `None` when it cannot be followed here.
    async fn follow_parent(
        &self,
        segment: u64,
        todo: &Todo,
        outcome: &mut SegmentOutcome,
    ) -> Result<Option<SegmentDone>, WorkerError> {
        let Some(tree) = &self.parent else { return Ok(None) };
        let Ok(child) = tree.child(0, segment).await else {
            return Ok(None);
        };
        let leaf = match child {
            None if matches!(todo, Todo::Inherit) => return Ok(Some(SegmentDone::Hole)),
            None => Leaf {
                entries: vec![Entry::Hole {
                    grains: self.grains(segment) as u16,
                }],
            },
            Some(child) if matches!(todo, Todo::Inherit) && self.damage.0.is_empty() => {
                return Ok(Some(SegmentDone::Inherited(child)));
            }
            Some(_) => match self.parents_leaf(segment, child).await {
                Some(leaf) => leaf,
                None => return Ok(None),
            },
        };
        if leaf
            .entries
            .iter()
            .any(|e| matches!(e, Entry::Chunk { hint, .. } if self.damage.harms(*hint)))
        {
            return Ok(None);
        }
        let changed = match (todo, child) {
            (Todo::Recut(changed), _) => changed.as_slice(),
            (_, Some(child)) => return Ok(Some(SegmentDone::Inherited(child))),
            (_, None) => return Ok(Some(SegmentDone::Hole)),
        };
        let parent: Vec<Piece> = leaf
            .entries
            .iter()
            .map(|entry| match entry {
                Entry::Hole { grains } => Piece::Hole { grains: *grains },
                Entry::Chunk { grains, .. } => Piece::Chunk { grains: *grains },
            })
            .collect();
        let mut recut = Recut::new(&self.cutter, &parent, changed);
        while let Need::Read(range) = recut.step() {
            let grain = u64::from(GRAIN);
            let offset = segment * SEGMENT + u64::from(range.start) * grain;
            let want = range.len() * GRAIN as usize;
            let there = want.min((self.source.size() - offset) as usize);
            let mut buffer = self
                .source
                .read(offset, crate::source::buffer(there))
                .await
                .map_err(|e| self.source_error(e))?;
            outcome.bytes_read += there as u64;
            self.progress.add_read(there as u64);
            buffer.resize(want, 0);
            recut.supply(&buffer);
        }
        let parts: Vec<Part> = recut
            .finish()
            .into_iter()
            .map(|piece| match piece {
                Recutted::Hole { grains } => Part::Hole { grains: grains as u16 },
                Recutted::Kept { index, .. } => match leaf.entries[index] {
                    Entry::Chunk { grains, id, hint } => Part::Located { grains, id, at: hint },
                    Entry::Hole { grains } => Part::Hole { grains },
                },
                Recutted::Fresh { data } => {
                    let grains = (data.len() / GRAIN as usize) as u8;
                    Part::Missing {
                        grains,
                        id: self.vault.ids.chunk(&data),
                        data,
                    }
                }
            })
            .collect();
        let Some(leaf_id) = name_parts(&self.vault, &parts) else {
            return Ok(Some(SegmentDone::Hole));
        };
        let fresh = Fresh {
            leaf_id,
            print: None,
            parts,
        };
        self.place(segment, child, fresh, Some(leaf), outcome).await.map(Some)
    }

    /// Finds where the parts lie: in the parent at the same place, else by the index.
    async fn place(
        &self,
        segment: u64,
        child: Option<Child>,
        fresh: Fresh,
        parents_leaf: Option<Leaf>,
        outcome: &mut SegmentOutcome,
    ) -> Result<SegmentDone, WorkerError> {
        let Fresh {
            leaf_id,
            print,
            mut parts,
        } = fresh;
        let same = child.filter(|child| child.id == leaf_id).map(|child| Child {
            print: print.or(child.print),
            ..child
        });
        let chunks = parts.iter().filter(|part| !matches!(part, Part::Hole { .. })).count() as u64;
        let parents_leaf = match (same, parents_leaf) {
            // Equal names: equal segments. Without known damage not even the parent's leaf is read.
            (Some(child), _) if self.damage.0.is_empty() => {
                outcome.chunks_kept = chunks;
                return Ok(SegmentDone::Inherited(child));
            }
            (_, Some(leaf)) => Some(leaf),
            (_, None) => self.parents_leaf(segment, child).await,
        };
        if let Some(leaf) = &parents_leaf {
            self.inherit(leaf, &mut parts);
            if let Some(child) = same
                && parts.iter().all(|part| !matches!(part, Part::Missing { .. }))
            {
                outcome.chunks_kept = chunks;
                return Ok(SegmentDone::Inherited(child));
            }
        }
        // The leaf is asked for with its chunks: a clone of another disk has them all.
        let mut ids = vec![leaf_id];
        ids.extend(parts.iter().filter_map(|part| match part {
            Part::Missing { id, .. } => Some(*id),
            _ => None,
        }));
        outcome.lookups += ids.len() as u64;
        let asking = self.progress.time(Stage::Lookup);
        let answered = self.index.lookup(self.session, &ids).await;
        drop(asking);
        self.progress
            .add_lookups(counted(answered.as_deref().unwrap_or_default(), ids.len()));
        let mut answers = match answered {
            Ok(answers) => answers.into_iter(),
            Err(error) => {
                // An index that does not answer costs duplicates, never a backup.
                tracing::warn!(disk = %self.disk, segment, %error, "index does not answer, chunks are stored as new");
                Vec::new().into_iter()
            }
        };
        let mut next = || answers.next().map_or(Answer::New, |answer| self.believed(answer));
        let stored_leaf = match next() {
            Answer::Known(at) => Some(at),
            Answer::New | Answer::Claimed => None,
        };
        let mut all_known = true;
        for part in &mut parts {
            if let Part::Missing { grains, id, .. } = part {
                let (grains, id) = (*grains, *id);
                match next() {
                    Answer::Known(at) => *part = Part::Located { grains, id, at },
                    Answer::Claimed => {
                        all_known = false;
                        *part = Part::Claimed { grains, id };
                    }
                    Answer::New => all_known = false,
                }
            }
        }
        // A stored leaf has hints of its own; it serves only if nothing had to be found anew because of damage.
        let stored_leaf = stored_leaf.filter(|_| all_known && self.damage.0.is_empty());
        Ok(SegmentDone::Parts {
            leaf_id,
            print,
            stored_leaf,
            parts,
        })
    }

    /// Whether no damage is known: then a leaf that is stored leads to nothing that is harmed.
    pub(super) fn is_undamaged(&self) -> bool {
        self.damage.0.is_empty()
    }

    /// What an answer is worth: hints into known damage are none.
    pub(super) fn believed(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Known(at) if self.damage.harms(at) => Answer::New,
            Answer::Claimed if !self.defers => Answer::New,
            answer => answer,
        }
    }

    /// Takes over the locations of chunks that the parent has at the same place.
    fn inherit(&self, leaf: &Leaf, parts: &mut [Part]) {
        let mut at = 0;
        let mut parents = leaf.entries.iter();
        let mut parents_at = 0;
        for part in parts {
            let start = at;
            at += part.grains();
            let Part::Missing { grains, id, .. } = part else {
                continue;
            };
            while parents_at < start {
                match parents.next() {
                    Some(entry) => parents_at += entry.grains(),
                    None => return,
                }
            }
            if parents_at > start {
                continue;
            }
            if let Some(Entry::Chunk {
                id: theirs,
                hint,
                grains: length,
            }) = parents.clone().next()
                && theirs == id
                && length == grains
                && !self.damage.harms(*hint)
            {
                *part = Part::Located {
                    grains: *grains,
                    id: *id,
                    at: *hint,
                };
            }
        }
    }
}

/// How many bytes of a segment are holes, and how many were stored before.
fn spared(done: &SegmentDone, length: u64) -> (u64, u64) {
    let bytes = |grains: u64| grains * u64::from(GRAIN);
    match done {
        SegmentDone::Hole => (length, 0),
        SegmentDone::Inherited(_) => (0, length),
        SegmentDone::Parts { parts, .. } => parts.iter().fold((0, 0), |(holes, known), part| match part {
            Part::Hole { grains } => (holes + bytes(u64::from(*grains)), known),
            Part::Located { grains, .. } => (holes, known + bytes(u64::from(*grains))),
            Part::Missing { .. } | Part::Claimed { .. } => (holes, known),
        }),
    }
}

/// What an index said of so many ids.
fn counted(answers: &[Answer], asked: usize) -> Lookups {
    let mut said = Lookups {
        unanswered: (asked - answers.len().min(asked)) as u64,
        ..Lookups::default()
    };
    for answer in answers {
        match answer {
            Answer::Known(_) => said.known += 1,
            Answer::New => said.new += 1,
            Answer::Claimed => said.claimed += 1,
        }
    }
    said
}

/// What a segment that was read turned out to be.
enum Named {
    Hole,
    /// As the parent has it.
    Unchanged,
    New(Fresh),
}

/// A segment's parts, named.
struct Fresh {
    leaf_id: ChunkId,
    /// If it was read whole.
    print: Option<Fingerprint>,
    parts: Vec<Part>,
}

fn name_segment(
    vault: &Vault,
    cutter: &Cutter,
    prints: &Fingerprinter,
    before: Option<Fingerprint>,
    data: &Bytes,
) -> Named {
    let known = before.map(|before| (before, prints.of(data)));
    if let Some((before, now)) = known
        && before == now
    {
        return Named::Unchanged;
    }
    match cut_and_name(vault, cutter, data) {
        (None, _) => Named::Hole,
        (Some(leaf_id), parts) => Named::New(Fresh {
            leaf_id,
            print: Some(known.map_or_else(|| prints.of(data), |(_, now)| now)),
            parts,
        }),
    }
}

fn cut_and_name(vault: &Vault, cutter: &Cutter, data: &Bytes) -> (Option<ChunkId>, Vec<Part>) {
    let mut pieces = Vec::with_capacity(256);
    cutter.cut(data, true, &mut pieces);
    let mut at = 0;
    let parts: Vec<Part> = pieces
        .into_iter()
        .map(|piece| {
            let end = at + piece.grains() as usize * GRAIN as usize;
            let part = match piece {
                Piece::Hole { grains } => Part::Hole { grains },
                Piece::Chunk { grains } => {
                    let data = data.slice(at..end);
                    Part::Missing {
                        grains,
                        id: vault.ids.chunk(&data),
                        data,
                    }
                }
            };
            at = end;
            part
        })
        .collect();
    (name_parts(vault, &parts), parts)
}

/// The leaf's name; `None` when there is no chunk.
fn name_parts(vault: &Vault, parts: &[Part]) -> Option<ChunkId> {
    if parts.iter().all(|part| matches!(part, Part::Hole { .. })) {
        return None;
    }
    let pieces = parts.iter().map(|part| match part {
        Part::Hole { grains } => (*grains, None),
        Part::Located { grains, id, .. } | Part::Missing { grains, id, .. } | Part::Claimed { grains, id } => {
            (u16::from(*grains), Some(*id))
        }
    });
    Some(leaf_id(&vault.ids, pieces))
}
