//! The end of the line: frames into packs, and segments, in order, into recipes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tresor_storage::buffers::Pool;
use tresor_storage::chunk::Fingerprint;
use tresor_storage::ids::ChunkId;
use tresor_storage::pack::Placed;
use tresor_storage::recipe::{Child, Entry, Leaf, Root, Tree, TreeBuilder};
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::{PackWriter, Vault, Written};

use super::frames::{Draft, Resolved, ToPacker};
use crate::error::WorkerError;
use crate::progress::{Progress, Stage};

/// A disk as the packer needs it.
pub(super) struct PackerDisk {
    pub(super) size: u64,
    pub(super) parent: Option<Arc<Tree>>,
}

/// What waits for frames of its segments to be placed.
enum Waiting {
    Disk(usize),
    Hole,
    Stored(Child),
    Leaf {
        id: ChunkId,
        print: Option<Fingerprint>,
        drafts: Vec<Draft>,
        deferred: Option<u64>,
    },
    Forget(std::collections::BTreeSet<u64>),
    DiskEnd,
}

pub(super) struct Packer {
    vault: Arc<Vault>,
    writer: PackWriter,
    disks: Vec<PackerDisk>,
    progress: Arc<Progress>,
    /// Ids that the index took, as far as they are counted.
    inserted: u64,
    settled: mpsc::UnboundedSender<Vec<ChunkId>>,
    coded_buffers: Arc<Pool<Vec<u8>>>,
    /// Frames that drafts may still name.
    placed: HashMap<u64, Placed>,
    /// Tickets are placed in order: all below this one are.
    next_ticket: u64,
    waiting: VecDeque<Waiting>,
    /// What became of deferred runs, by the key of their leaf.
    resolved: HashMap<u64, Resolved>,
    current: Option<(TreeBuilder, Option<Arc<Tree>>)>,
    roots: Vec<Root>,
}

impl Packer {
    pub(super) fn new(
        vault: Arc<Vault>,
        writer: PackWriter,
        disks: Vec<PackerDisk>,
        progress: Arc<Progress>,
        settled: mpsc::UnboundedSender<Vec<ChunkId>>,
        coded_buffers: Arc<Pool<Vec<u8>>>,
    ) -> Self {
        Self {
            vault,
            writer,
            disks,
            progress,
            inserted: 0,
            settled,
            coded_buffers,
            placed: HashMap::new(),
            next_ticket: 0,
            waiting: VecDeque::new(),
            resolved: HashMap::new(),
            current: None,
            roots: Vec::new(),
        }
    }

    /// Works until the sender is gone; then makes everything durable. Returns the roots of the disks in order.
    pub(super) async fn run(
        mut self,
        mut from_frames: mpsc::Receiver<ToPacker>,
    ) -> Result<(Vec<Root>, Written), WorkerError> {
        while let Some(message) = from_frames.recv().await {
            let waiting = match message {
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
                    self.drain().await?;
                    let settled = self.writer.take_settled().await?;
                    if !settled.is_empty() {
                        self.note_inserted(self.writer.written().ids_indexed);
                        // The receiver is gone only when the backup is failing anyway.
                        let _ = self.settled.send(settled);
                    }
                    continue;
                }
                ToPacker::Disk(disk) => Waiting::Disk(disk),
                ToPacker::Hole => Waiting::Hole,
                ToPacker::Stored(child) => Waiting::Stored(child),
                ToPacker::Leaf {
                    id,
                    print,
                    drafts,
                    deferred,
                } => Waiting::Leaf {
                    id,
                    print,
                    drafts,
                    deferred,
                },
                ToPacker::Resolved { key, resolved } => {
                    self.resolved.insert(key, resolved);
                    self.drain().await?;
                    continue;
                }
                ToPacker::PutPack => {
                    if let Some((builder, _)) = &mut self.current {
                        builder.flush(&mut self.writer).await?;
                    }
                    self.writer.put_pack().await?;
                    continue;
                }
                ToPacker::Forget(tickets) => Waiting::Forget(tickets),
                ToPacker::DiskEnd => Waiting::DiskEnd,
            };
            self.waiting.push_back(waiting);
            self.drain().await?;
        }
        if self.roots.len() != self.disks.len() || !self.waiting.is_empty() {
            // The line was cut before its end: nothing may be made of what came.
            return Err(WorkerError::Interrupted);
        }
        let (before, progress) = (self.inserted, Arc::clone(&self.progress));
        let written = self.writer.finish().await?;
        progress.add_inserted(written.ids_indexed - before);
        Ok((self.roots, written))
    }

    fn note_inserted(&mut self, so_far: u64) {
        self.progress.add_inserted(so_far - self.inserted);
        self.inserted = so_far;
    }

    fn is_ready(&self, waiting: &Waiting) -> bool {
        let is_placed = |draft: &Draft| match draft {
            Draft::Ticketed { ticket, .. } => *ticket < self.next_ticket,
            _ => true,
        };
        match waiting {
            Waiting::Leaf { drafts, deferred, .. } => {
                let is_resolved = deferred.is_none_or(|key| match self.resolved.get(&key) {
                    None => false,
                    Some(Resolved::Stored(_)) => true,
                    Some(Resolved::Runs(runs)) => runs.iter().all(is_placed),
                });
                is_resolved && drafts.iter().all(is_placed)
            }
            _ => true,
        }
    }

    async fn drain(&mut self) -> Result<(), WorkerError> {
        while self.waiting.front().is_some_and(|waiting| self.is_ready(waiting)) {
            let waiting = self.waiting.pop_front().expect("there is a first");
            match waiting {
                Waiting::Disk(disk) => {
                    let PackerDisk { size, parent } = &self.disks[disk];
                    let builder = TreeBuilder::new(self.vault.ids.clone(), self.vault.profile, *size);
                    self.current = Some((builder, parent.clone()));
                }
                Waiting::Hole => {
                    let (builder, parent) = self.current.as_mut().expect("a disk has begun");
                    builder.push_hole(&mut self.writer, parent.as_deref()).await?;
                }
                Waiting::Stored(child) => {
                    let (builder, parent) = self.current.as_mut().expect("a disk has begun");
                    builder.push_stored(child, &mut self.writer, parent.as_deref()).await?;
                }
                Waiting::Leaf {
                    id,
                    print,
                    drafts,
                    deferred,
                } => {
                    let runs = match deferred.and_then(|key| self.resolved.remove(&key)) {
                        Some(Resolved::Stored(child)) => {
                            let (builder, parent) = self.current.as_mut().expect("a disk has begun");
                            builder.push_stored(child, &mut self.writer, parent.as_deref()).await?;
                            continue;
                        }
                        Some(Resolved::Runs(runs)) => runs,
                        None => Vec::new(),
                    };
                    let leaf = self.leaf(drafts, runs);
                    let (builder, parent) = self.current.as_mut().expect("a disk has begun");
                    builder
                        .push_new(id, print, leaf.encode(), &mut self.writer, parent.as_deref())
                        .await?;
                }
                Waiting::Forget(tickets) => {
                    for ticket in tickets {
                        self.placed.remove(&ticket);
                    }
                }
                Waiting::DiskEnd => {
                    let (builder, parent) = self.current.take().expect("a disk has begun");
                    self.roots
                        .push(builder.finish(&mut self.writer, parent.as_deref()).await?);
                }
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
