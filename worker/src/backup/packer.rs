//! The end of the line: frames into packs, and segments, in order, into recipes.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tresor_storage::buffers::Pool;
use tresor_storage::chunk::Fingerprint;
use tresor_storage::ids::ChunkId;
use tresor_storage::pack::Placed;
use tresor_storage::recipe::{Child, Entry, Leaf, Root, Tree, TreeBuilder};
use tresor_storage::seal::FrameKind;
use tresor_storage::vault::{PackWriter, Vault, Written};

use super::frames::{DiskStep, Draft, Resolved, ToPacker};
use crate::error::WorkerError;
use crate::progress::Progress;

/// A disk as the packer needs it.
pub(super) struct PackerDisk {
    pub(super) size: u64,
    pub(super) parent: Option<Arc<Tree>>,
}

/// What a recipe grows by.
enum Grown {
    Hole,
    Stored(Child),
    New(ChunkId, Option<Fingerprint>, Leaf),
    /// Nothing more comes.
    Whole,
}

/// A disk on its way to its root.
struct Growing {
    /// Taken when the disk is complete.
    builder: Option<TreeBuilder>,
    parent: Option<Arc<Tree>>,
    /// What waits for frames of its segments to be placed, each with its place in the line of all disks.
    waiting: VecDeque<(u64, DiskStep)>,
    root: Option<Root>,
}

pub(super) struct Packer {
    writer: PackWriter,
    disks: Vec<Growing>,
    progress: Arc<Progress>,
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
        vault: &Vault,
        writer: PackWriter,
        disks: Vec<PackerDisk>,
        progress: Arc<Progress>,
        settled: mpsc::UnboundedSender<Vec<ChunkId>>,
        coded_buffers: Arc<Pool<Vec<u8>>>,
    ) -> Self {
        Self {
            disks: disks
                .into_iter()
                .map(|PackerDisk { size, parent }| Growing {
                    builder: Some(TreeBuilder::new(vault.ids.clone(), vault.profile, size)),
                    parent,
                    waiting: VecDeque::new(),
                    root: None,
                })
                .collect(),
            writer,
            progress,
            settled,
            coded_buffers,
            placed: HashMap::new(),
            next_ticket: 0,
            line: 0,
            forget: VecDeque::new(),
            resolved: HashMap::new(),
        }
    }

    /// Works until the sender is gone; then makes everything durable. Returns the roots of the disks in order.
    pub(super) async fn run(
        mut self,
        mut from_frames: mpsc::Receiver<ToPacker>,
    ) -> Result<(Vec<Root>, Written), WorkerError> {
        while let Some(message) = from_frames.recv().await {
            match message {
                ToPacker::Frame {
                    ticket,
                    table,
                    ids,
                    coded,
                } => {
                    let coded = coded.await;
                    debug_assert_eq!(ticket, self.next_ticket);
                    let placed = self.writer.place(FrameKind::Data, &table, &ids, &coded).await?;
                    self.coded_buffers.give(coded.bytes);
                    self.progress.add_new(table.bytes() as u64);
                    self.progress.add_stored(u64::from(placed.length));
                    self.placed.insert(ticket, placed);
                    self.next_ticket = ticket + 1;
                    self.drain_all().await?;
                    let settled = self.writer.take_settled().await?;
                    if !settled.is_empty() {
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
                    for builder in self.disks.iter_mut().filter_map(|disk| disk.builder.as_mut()) {
                        builder.flush(&mut self.writer).await?;
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
        let roots: Option<Vec<Root>> = self.disks.iter().map(|disk| disk.root).collect();
        // Without all roots the line was cut before its end: nothing may be made of what came.
        let roots = roots.ok_or(WorkerError::Interrupted)?;
        let written = self.writer.finish().await?;
        Ok((roots, written))
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
            DiskStep::Hole | DiskStep::Stored(_) | DiskStep::End => true,
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
            let leaf = match step {
                DiskStep::Leaf {
                    id,
                    print,
                    drafts,
                    deferred,
                } => match deferred.and_then(|key| self.resolved.remove(&key)) {
                    Some(Resolved::Stored(child)) => Grown::Stored(child),
                    Some(Resolved::Runs(runs)) => Grown::New(id, print, self.leaf(drafts, runs)),
                    None => Grown::New(id, print, self.leaf(drafts, Vec::new())),
                },
                DiskStep::Hole => Grown::Hole,
                DiskStep::Stored(child) => Grown::Stored(child),
                DiskStep::End => Grown::Whole,
            };
            let Growing {
                builder, parent, root, ..
            } = &mut self.disks[number];
            let (writer, parent) = (&mut self.writer, parent.as_deref());
            if let Grown::Whole = leaf {
                let builder = builder.take().expect("a disk ends once");
                *root = Some(builder.finish(writer, parent).await?);
                continue;
            }
            let builder = builder.as_mut().expect("nothing comes after a disk's end");
            match leaf {
                Grown::Hole => builder.push_hole(writer, parent).await?,
                Grown::Stored(child) => builder.push_stored(child, writer, parent).await?,
                Grown::New(id, print, leaf) => builder.push_new(id, print, leaf.encode(), writer, parent).await?,
                Grown::Whole => {}
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
