//! What is new, in the order of each disk, becomes frames; one chunk is stored once a session, however often it occurs.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tresor_storage::buffers::{Aligned, Pool};
use tresor_storage::chunk::Fingerprint;
use tresor_storage::ids::{ChunkId, Location};
use tresor_storage::limits::FRAME_PLAIN_TARGET;
use tresor_storage::pack::PiecesBuilder;
use tresor_storage::recipe::{Child, RangeLeaf};
use tresor_storage::seal::{Compressed, FrameKind, compress_into, compressed_room};

use super::Effort;
use super::flight::Flight;
use super::segment::{Part, SegmentDone};
use crate::cores::Cores;
use crate::progress::Progress;

/// Frames and segments on their way to the packer: enough to keep all cores compressing, few enough to stay small.
pub(super) const QUEUE: usize = 12;

/// Room for the table before a frame's chunks: a whole page, so that they begin with one.
const HEAD: usize = 4096;

/// The chunks of a frame being filled. Copied: a slice would keep its whole segment in memory until the frame is full, and on a disk with few new
/// chunks a frame has one from each of many segments.
struct Body {
    /// [`HEAD`], then the chunks.
    buffer: Aligned,
    /// One of the frames that may be filled or compressed at once.
    slot: OwnedSemaphorePermit,
}

impl Body {
    fn new(mut buffer: Aligned, slot: OwnedSemaphorePermit) -> Self {
        buffer.resize(HEAD);
        Self { buffer, slot }
    }

    /// The frame's plaintext: the table, put right before the chunks, and them.
    fn plain(&mut self, table: &[u8]) -> &[u8] {
        self.buffer[HEAD - table.len()..HEAD].copy_from_slice(table);
        &self.buffer[HEAD - table.len()..]
    }
}

/// A run of grains whose chunk is stored, or will be in a frame of that ticket.
#[derive(Debug)]
pub(super) enum Draft {
    Hole {
        grains: u16,
    },
    Located {
        grains: u8,
        id: ChunkId,
        at: Location,
    },
    Ticketed {
        grains: u8,
        id: ChunkId,
        ticket: u64,
        place: u32,
    },
    /// Another session is storing it: what becomes of it is told later.
    Deferred,
}

/// What became of a segment with deferred runs.
#[derive(Debug)]
pub(super) enum Resolved {
    /// All of it was stored by others.
    Stored(Child),
    /// The runs that were deferred, in order.
    Runs(Vec<Draft>),
}

/// What comes next of a disk.
#[derive(Debug)]
pub(super) enum DiskStep {
    /// The next segment.
    Hole,
    Stored(Child),
    /// With a key when some of its runs are deferred.
    Leaf {
        id: ChunkId,
        print: Option<Fingerprint>,
        drafts: Vec<Draft>,
        deferred: Option<u64>,
    },
    /// The next segments, which another worker has stored.
    Made(Vec<RangeLeaf>),
    /// The disk is complete.
    End,
}

/// What the packer is told, in order; of several disks in turn.
pub(super) enum ToPacker {
    /// Of the disk of that number.
    Disk(usize, DiskStep),
    /// What became of the deferred runs of a segment.
    Resolved { key: u64, resolved: Resolved },
    /// The pack that is being filled is put as it is: others wait for what is in it.
    PutPack,
    /// A frame being compressed.
    Frame {
        ticket: u64,
        table: PiecesBuilder,
        ids: Vec<ChunkId>,
        coded: BoxFuture<'static, Compressed>,
    },
    /// Nobody names these tickets any more.
    Forget(BTreeSet<u64>),
}

/// A segment some of whose chunks other sessions are storing.
#[derive(Debug)]
pub(super) struct DeferredLeaf {
    pub(super) key: u64,
    /// Its leaf's name.
    pub(super) id: ChunkId,
    pub(super) print: Option<Fingerprint>,
    pub(super) runs: Vec<DeferredRun>,
}

/// One of these chunks.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeferredRun {
    /// Its first grain in the segment.
    pub(super) first: u32,
    pub(super) grains: u8,
    pub(super) id: ChunkId,
}

/// What became of them.
pub(super) enum ResolvedRuns {
    /// Others stored all of the segment.
    Stored(Child),
    /// Located, or read again: in order.
    Runs(Vec<Part>),
}

/// The packer is gone; its own error tells why.
#[derive(Debug)]
pub(super) struct PackerGone;

/// Ids of a pack that is durable and indexed, to be forgotten once every segment that was looked up before has passed.
struct Settled {
    when_passed: u64,
    ids: Vec<ChunkId>,
}

/// Collects new chunks into frames.
pub(super) struct Frames {
    to_packer: mpsc::Sender<ToPacker>,
    settled: mpsc::UnboundedReceiver<Vec<ChunkId>>,
    cores: Arc<Cores>,
    slots: Arc<Semaphore>,
    plain_buffers: Arc<Pool<Aligned>>,
    coded_buffers: Arc<Pool<Vec<u8>>>,
    level: i32,
    progress: Arc<Progress>,
    ticket: u64,
    table: PiecesBuilder,
    ids: Vec<ChunkId>,
    body: Option<Body>,
    /// Chunks of this session that the index did not know when their segment was looked up.
    storing: HashMap<ChunkId, (u64, u32)>,
    retiring: VecDeque<Settled>,
    flight: Arc<Flight>,
    deferrals: u64,
    pub(super) chunks_new: u64,
    pub(super) chunks_known: u64,
    pub(super) bytes_new: u64,
}

impl Frames {
    pub(super) fn new(
        to_packer: mpsc::Sender<ToPacker>,
        settled: mpsc::UnboundedReceiver<Vec<ChunkId>>,
        cores: Arc<Cores>,
        effort: Effort,
        progress: Arc<Progress>,
    ) -> Self {
        // One each core compresses, one each that waits for it, and the one that is filled.
        let slots = 2 * effort.cores.max(1) + 1;
        Self {
            to_packer,
            settled,
            cores,
            slots: Arc::new(Semaphore::new(slots)),
            plain_buffers: Pool::new(HEAD + FRAME_PLAIN_TARGET, slots),
            coded_buffers: Pool::new(compressed_room(HEAD + FRAME_PLAIN_TARGET), QUEUE + slots),
            level: effort.compression_level,
            progress,
            ticket: 0,
            table: PiecesBuilder::new(FrameKind::Data),
            ids: Vec::new(),
            body: None,
            storing: HashMap::new(),
            retiring: VecDeque::new(),
            flight: Arc::default(),
            deferrals: 0,
            chunks_new: 0,
            chunks_known: 0,
            bytes_new: 0,
        }
    }

    /// Where the packer gives back the buffers of frames that it has placed.
    pub(super) fn coded_buffers(&self) -> Arc<Pool<Vec<u8>>> {
        Arc::clone(&self.coded_buffers)
    }

    async fn send(&self, message: ToPacker) -> Result<(), PackerGone> {
        self.to_packer.send(message).await.map_err(|_| PackerGone)
    }

    /// Where segments are given their numbers when they are started.
    pub(super) fn flight(&self) -> Arc<Flight> {
        Arc::clone(&self.flight)
    }

    /// Takes the next segments of a disk as another worker has stored them.
    pub(super) async fn push_made(&self, disk: usize, leaves: Vec<RangeLeaf>) -> Result<(), PackerGone> {
        self.send(ToPacker::Disk(disk, DiskStep::Made(leaves))).await
    }

    pub(super) async fn end_disk(&mut self, disk: usize) -> Result<(), PackerGone> {
        self.send(ToPacker::Disk(disk, DiskStep::End)).await
    }

    /// No disk has anything more.
    pub(super) async fn finish(&mut self) -> Result<(), PackerGone> {
        self.flush().await
    }

    /// Takes the next segment of a disk, which has that number in the flight. Returns what of it is deferred: the packer waits with this segment, and with
    /// all after it on that disk, until [`Self::resolve`].
    pub(super) async fn push(
        &mut self,
        disk: usize,
        number: u64,
        done: SegmentDone,
    ) -> Result<Option<DeferredLeaf>, PackerGone> {
        let mut left = None;
        let step = match done {
            SegmentDone::Hole => DiskStep::Hole,
            SegmentDone::Inherited(child) => DiskStep::Stored(child),
            SegmentDone::Parts {
                leaf_id,
                print,
                stored_leaf,
                parts,
            } => {
                let mut drafts = Vec::with_capacity(parts.len());
                let mut runs = Vec::new();
                let mut at = 0;
                for part in parts {
                    let first = at;
                    at += part.grains();
                    if let Part::Claimed { grains, id } = part
                        && !self.storing.contains_key(&id)
                    {
                        runs.push(DeferredRun { first, grains, id });
                        drafts.push(Draft::Deferred);
                        continue;
                    }
                    drafts.push(self.draft(part).await?);
                }
                let id = leaf_id;
                let deferred = (!runs.is_empty()).then(|| {
                    self.deferrals += 1;
                    self.deferrals
                });
                left = deferred.map(|key| DeferredLeaf { key, id, print, runs });
                match stored_leaf {
                    Some(hint) => DiskStep::Stored(Child { id, hint, print }),
                    None => DiskStep::Leaf {
                        id,
                        print,
                        drafts,
                        deferred,
                    },
                }
            }
        };
        self.send(ToPacker::Disk(disk, step)).await?;
        self.flight.pass(number);
        self.retire().await?;
        Ok(left)
    }

    /// Says what became of a deferred segment: its runs in order, or the leaf that others stored.
    pub(super) async fn resolve(&mut self, key: u64, runs: ResolvedRuns) -> Result<(), PackerGone> {
        let resolved = match runs {
            ResolvedRuns::Stored(child) => Resolved::Stored(child),
            ResolvedRuns::Runs(parts) => {
                let mut drafts = Vec::with_capacity(parts.len());
                for part in parts {
                    drafts.push(self.draft(part).await?);
                }
                Resolved::Runs(drafts)
            }
        };
        self.send(ToPacker::Resolved { key, resolved }).await
    }

    /// Lets everything that came so far be put, so that other sessions find it.
    pub(super) async fn put_pack(&mut self) -> Result<(), PackerGone> {
        self.flush().await?;
        self.send(ToPacker::PutPack).await
    }

    async fn draft(&mut self, part: Part) -> Result<Draft, PackerGone> {
        let (grains, id, data) = match part {
            Part::Hole { grains } => return Ok(Draft::Hole { grains }),
            Part::Located { grains, id, at } => {
                self.chunks_known += 1;
                return Ok(Draft::Located { grains, id, at });
            }
            Part::Missing { grains, id, data } => (grains, id, Some(data)),
            // Of this session after all: it became a frame since this was asked.
            Part::Claimed { grains, id } => (grains, id, None),
        };
        if let Some((ticket, place)) = self.storing.get(&id) {
            self.chunks_known += 1;
            return Ok(Draft::Ticketed {
                grains,
                id,
                ticket: *ticket,
                place: *place,
            });
        }
        let data = data.expect("what is claimed comes here only when it is being stored");
        if self.table.bytes() + data.len() > FRAME_PLAIN_TARGET {
            self.flush().await?;
        }
        let body = match &mut self.body {
            Some(body) => body,
            none => {
                let slot = Arc::clone(&self.slots).acquire_owned().await.expect("never closed");
                none.insert(Body::new(self.plain_buffers.take(), slot))
            }
        };
        body.buffer.extend_from_slice(&data);
        self.chunks_new += 1;
        self.bytes_new += data.len() as u64;
        let place = self.table.add(data.len());
        self.ids.push(id);
        self.storing.insert(id, (self.ticket, place));
        Ok(Draft::Ticketed {
            grains,
            id,
            ticket: self.ticket,
            place,
        })
    }

    async fn flush(&mut self) -> Result<(), PackerGone> {
        let Some(mut body) = self.body.take() else {
            return Ok(());
        };
        let table = std::mem::replace(&mut self.table, PiecesBuilder::new(FrameKind::Data));
        let ids = std::mem::take(&mut self.ids);
        let ticket = self.ticket;
        self.ticket += 1;
        let (head, level) = (table.table(), self.level);
        let (plain_buffers, room) = (Arc::clone(&self.plain_buffers), self.coded_buffers.take());
        let coded = self
            .cores
            .run(move || {
                let compressed = compress_into(body.plain(&head), level, room);
                plain_buffers.give(body.buffer);
                drop(body.slot);
                compressed
            })
            .boxed();
        self.progress.frame_begins();
        self.send(ToPacker::Frame {
            ticket,
            table,
            ids,
            coded,
        })
        .await
    }

    /// Forgets chunks that the index answers for by now.
    ///
    /// A segment may have been looked up before a pack was indexed and come here after: so a pack's ids stay until every segment has passed
    /// that was started before the pack was settled. Then the answer `New` of any later segment is younger than the insert, and cannot be.
    async fn retire(&mut self) -> Result<(), PackerGone> {
        while let Ok(ids) = self.settled.try_recv() {
            self.retiring.push_back(Settled {
                when_passed: self.flight.started(),
                ids,
            });
        }
        let passed = self.flight.passed();
        while self
            .retiring
            .front()
            .is_some_and(|settled| settled.when_passed <= passed)
        {
            let settled = self.retiring.pop_front().expect("there is a first");
            let tickets: BTreeSet<u64> = settled
                .ids
                .iter()
                .filter_map(|id| self.storing.remove(id))
                .map(|(ticket, _)| ticket)
                .collect();
            self.send(ToPacker::Forget(tickets)).await?;
        }
        Ok(())
    }
}
