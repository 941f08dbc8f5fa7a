//! The end of the line: frames into packs, and segments, in order, into recipes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tresor_storage::buffers::Pool;
use tresor_storage::chunk::Fingerprint;
use tresor_storage::ids::ChunkId;
use tresor_storage::pack::Placed;
use tresor_storage::recipe::{Child, Entry, Leaf, LeafRun, RangeLeaf, Root, Tree, TreeBuilder};
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::{PackWriter, Vault, Written};

use super::frames::{DiskStep, Draft, Resolved, ToPacker};
use crate::error::WorkerError;
use crate::progress::{Progress, Stage};

/// What the packer makes of the segments of a disk.
pub(super) enum Product {
    /// The recipe of all of it.
    Recipe(TreeBuilder, Option<Arc<Tree>>),
    /// The leaves of a range, for a recipe that another worker makes.
    Leaves(LeafRun),
}

/// What became of a disk.
pub(super) enum Produced {
    Root(Root),
    Leaves(Vec<RangeLeaf>),
}

impl Product {
    /// A recipe, which follows a parent's.
    pub(super) fn recipe(vault: &Vault, size: u64, parent: Option<Arc<Tree>>) -> Self {
        Self::Recipe(TreeBuilder::new(vault.ids.clone(), vault.profile, size), parent)
    }

    async fn hole(&mut self, writer: &mut PackWriter) -> tresor_storage::Result<()> {
        match self {
            Self::Recipe(builder, parent) => builder.push_hole(writer, parent.as_deref()).await,
            Self::Leaves(run) => {
                run.push_hole();
                Ok(())
            }
        }
    }

    async fn stored(&mut self, leaf: Child, writer: &mut PackWriter) -> tresor_storage::Result<()> {
        match self {
            Self::Recipe(builder, parent) => builder.push_stored(leaf, writer, parent.as_deref()).await,
            Self::Leaves(run) => {
                run.push_stored(leaf);
                Ok(())
            }
        }
    }

    async fn fresh(
        &mut self,
        id: ChunkId,
        print: Option<Fingerprint>,
        leaf: &Leaf,
        writer: &mut PackWriter,
    ) -> tresor_storage::Result<()> {
        match self {
            Self::Recipe(builder, parent) => {
                builder
                    .push_new(id, print, leaf.encode(), writer, parent.as_deref())
                    .await
            }
            Self::Leaves(run) => run.push_new(id, print, leaf.encode(), writer).await,
        }
    }

    async fn made(&mut self, leaves: Vec<RangeLeaf>, writer: &mut PackWriter) -> tresor_storage::Result<()> {
        let Self::Recipe(builder, parent) = self else {
            unreachable!("who reads a range has no others read parts of it");
        };
        for leaf in leaves {
            builder.push_made(leaf, writer, parent.as_deref()).await?;
        }
        Ok(())
    }

    async fn flush(&mut self, writer: &mut PackWriter) -> tresor_storage::Result<()> {
        match self {
            Self::Recipe(builder, _) => builder.flush(writer).await,
            Self::Leaves(run) => run.flush(writer).await,
        }
    }

    async fn finish(self, writer: &mut PackWriter) -> tresor_storage::Result<Produced> {
        Ok(match self {
            Self::Recipe(builder, parent) => Produced::Root(builder.finish(writer, parent.as_deref()).await?),
            Self::Leaves(run) => Produced::Leaves(run.finish(writer).await?),
        })
    }
}

/// A disk on its way.
struct Growing {
    /// Taken when the disk is complete.
    product: Option<Product>,
    /// What waits for frames of its segments to be placed, each with its place in the line of all disks.
    waiting: VecDeque<(u64, DiskStep)>,
    produced: Option<Produced>,
}

/// A disk ends once, and nothing comes after its end.
const OPEN: &str = "nothing comes after a disk's end";

pub(super) struct Packer {
    writer: PackWriter,
    disks: Vec<Growing>,
    progress: Arc<Progress>,
    /// Ids that the index took, as far as they are counted.
    inserted: u64,
    settled: mpsc::UnboundedSender<Vec<ChunkId>>,
    coded_buffers: Arc<Pool<Vec<u8>>>,
    /// Frames that drafts may still name.
    placed: HashMap<u64, Placed>,
    /// Tickets are placed in order: all below this one are.
    next_ticket: u64,
    /// How many steps and tickets to forget came so far.
    line: u64,
    /// Tickets to forget once every disk is past that place in the line.
    forget: VecDeque<(u64, BTreeSet<u64>)>,
    /// What became of deferred runs, by the key of their leaf.
    resolved: HashMap<u64, Resolved>,
}

impl Packer {
    pub(super) fn new(
        writer: PackWriter,
        disks: Vec<Product>,
        progress: Arc<Progress>,
        settled: mpsc::UnboundedSender<Vec<ChunkId>>,
        coded_buffers: Arc<Pool<Vec<u8>>>,
    ) -> Self {
        Self {
            disks: disks
                .into_iter()
                .map(|product| Growing {
                    product: Some(product),
                    waiting: VecDeque::new(),
                    produced: None,
                })
                .collect(),
            writer,
            progress,
            inserted: 0,
            settled,
            coded_buffers,
            placed: HashMap::new(),
            next_ticket: 0,
            line: 0,
            forget: VecDeque::new(),
            resolved: HashMap::new(),
        }
    }

    /// Works until the sender is gone; then makes everything durable. Returns what became of the disks, in order.
    pub(super) async fn run(
        mut self,
        mut from_frames: mpsc::Receiver<ToPacker>,
    ) -> Result<(Vec<Produced>, Written), WorkerError> {
        while let Some(message) = from_frames.recv().await {
            match message {
                ToPacker::Frame {
                    ticket,
                    table,
                    ids,
                    coded,
                } => {
                    let waiting = self.progress.time(Stage::Compress);
                    let coded = coded.await;
                    drop(waiting);
                    self.progress.frame_ends();
                    debug_assert_eq!(ticket, self.next_ticket);
                    let packing = self.progress.time(Stage::Pack);
                    let placed = self.writer.place(FrameKind::Data, &table, &ids, &coded).await?;
                    drop(packing);
                    self.coded_buffers.give(coded.bytes);
                    self.progress.add_new(table.bytes() as u64);
                    self.progress.add_stored(u64::from(placed.length));
                    self.placed.insert(ticket, placed);
                    self.next_ticket = ticket + 1;
                    self.drain_all().await?;
                    let settled = self.writer.take_settled().await?;
                    if !settled.is_empty() {
                        self.note_inserted(self.writer.written().ids_indexed);
                        // The receiver is gone only when the backup is failing anyway.
                        let _ = self.settled.send(settled);
                    }
                }
                ToPacker::Disk(disk, step) => {
                    self.line += 1;
                    self.disks[disk].waiting.push_back((self.line, step));
                    self.drain(disk).await?;
                    self.forget();
                }
                ToPacker::Resolved { key, resolved } => {
                    self.resolved.insert(key, resolved);
                    self.drain_all().await?;
                }
                ToPacker::PutPack => {
                    for product in self.disks.iter_mut().filter_map(|disk| disk.product.as_mut()) {
                        product.flush(&mut self.writer).await?;
                    }
                    self.writer.put_pack().await?;
                }
                ToPacker::Forget(tickets) => {
                    self.line += 1;
                    self.forget.push_back((self.line, tickets));
                    self.forget();
                }
            }
        }
        let produced: Option<Vec<Produced>> = self.disks.into_iter().map(|disk| disk.produced).collect();
        // Without all of them the line was cut before its end: nothing may be made of what came.
        let produced = produced.ok_or(WorkerError::Interrupted)?;
        let (before, progress) = (self.inserted, Arc::clone(&self.progress));
        let written = self.writer.finish().await?;
        progress.add_inserted(written.ids_indexed - before);
        Ok((produced, written))
    }

    fn note_inserted(&mut self, so_far: u64) {
        self.progress.add_inserted(so_far - self.inserted);
        self.inserted = so_far;
    }

    fn is_ready(&self, step: &DiskStep) -> bool {
        let is_placed = |draft: &Draft| match draft {
            Draft::Ticketed { ticket, .. } => *ticket < self.next_ticket,
            _ => true,
        };
        match step {
            DiskStep::Leaf { drafts, deferred, .. } => {
                let is_resolved = deferred.is_none_or(|key| match self.resolved.get(&key) {
                    None => false,
                    Some(Resolved::Stored(_)) => true,
                    Some(Resolved::Runs(runs)) => runs.iter().all(is_placed),
                });
                is_resolved && drafts.iter().all(is_placed)
            }
            DiskStep::Hole | DiskStep::Stored(_) | DiskStep::Made(_) | DiskStep::End => true,
        }
    }

    async fn drain_all(&mut self) -> Result<(), WorkerError> {
        for disk in 0..self.disks.len() {
            self.drain(disk).await?;
        }
        self.forget();
        Ok(())
    }

    /// Lets go of frames that no step of any disk names any more: those that may have come before the word to forget them.
    fn forget(&mut self) {
        let waits = self.disks.iter().filter_map(|disk| disk.waiting.front());
        let first = waits.map(|(line, _)| *line).min().unwrap_or(u64::MAX);
        while let Some((line, tickets)) = self.forget.front()
            && *line < first
        {
            for ticket in tickets {
                self.placed.remove(ticket);
            }
            self.forget.pop_front();
        }
    }

    async fn drain(&mut self, number: usize) -> Result<(), WorkerError> {
        while let Some((_, step)) = self.disks[number].waiting.front()
            && self.is_ready(step)
        {
            let (_, step) = self.disks[number].waiting.pop_front().expect("there is a first");
            let step = match step {
                DiskStep::Leaf {
                    id,
                    print,
                    drafts,
                    deferred,
                } => match deferred.and_then(|key| self.resolved.remove(&key)) {
                    Some(Resolved::Stored(child)) => DiskStep::Stored(child),
                    resolved => {
                        let runs = match resolved {
                            Some(Resolved::Runs(runs)) => runs,
                            _ => Vec::new(),
                        };
                        let leaf = self.leaf(drafts, runs);
                        let product = self.disks[number].product.as_mut().expect(OPEN);
                        product.fresh(id, print, &leaf, &mut self.writer).await?;
                        continue;
                    }
                },
                step => step,
            };
            let (disk, writer) = (&mut self.disks[number], &mut self.writer);
            let product = disk.product.as_mut().expect(OPEN);
            match step {
                DiskStep::Hole => product.hole(writer).await?,
                DiskStep::Stored(child) => product.stored(child, writer).await?,
                DiskStep::Made(leaves) => product.made(leaves, writer).await?,
                DiskStep::End => {
                    let product = disk.product.take().expect(OPEN);
                    disk.produced = Some(product.finish(writer).await?);
                }
                DiskStep::Leaf { .. } => unreachable!("a leaf became something else above"),
            }
        }
        Ok(())
    }

    /// The leaf of `drafts`, with `runs` in place of those that were deferred.
    fn leaf(&self, drafts: Vec<Draft>, runs: Vec<Draft>) -> Leaf {
        let mut runs = runs.into_iter();
        let entries = drafts
            .into_iter()
            .map(|draft| match draft {
                Draft::Deferred => runs.next().expect("each deferred run was resolved"),
                draft => draft,
            })
            .map(|draft| match draft {
                Draft::Deferred => unreachable!("what is resolved is not deferred"),
                Draft::Hole { grains } => Entry::Hole { grains },
                Draft::Located { grains, id, at } => Entry::Chunk { grains, id, hint: at },
                Draft::Ticketed {
                    grains,
                    id,
                    ticket,
                    place,
                } => {
                    let placed = self
                        .placed
                        .get(&ticket)
                        .expect("tickets are forgotten only after the last draft that names them");
                    Entry::Chunk {
                        grains,
                        id,
                        hint: placed.at(place),
                    }
                }
            })
            .collect();
        Leaf { entries }
    }
}
