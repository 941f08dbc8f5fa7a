//! Asking again: a share of the index got another owner while the backup ran, and what the former one answered does not count.
//!
//! ◆ Every id of the moved slots that the point needs is asked for at the new owner, by walking the new recipes. What is known there is touched by
//! that. What is not is stored by this session (again, if somebody else's pack is where the recipe's hint leads) and inserted. Only then does the commit
//! name the new owner's grant.
//!
//! What the parent has under the same name is skipped: the parent is pinned, so all below it stays. With known damage nothing is skipped, because
//! what is harmed there was stored anew.

use std::sync::Arc;

use tresor_storage::Result;
use tresor_storage::ids::{ChunkId, Location, Writer};
use tresor_storage::index::slot::{SlotSet, slot_of};
use tresor_storage::index::{Answer, ChunkIndex, IndexSession};
use tresor_storage::limits::{FRAME_PLAIN_TARGET, INDEX_BATCH};
use tresor_storage::pack::PiecesBuilder;
use tresor_storage::recipe::{Child, Entry, NodeSink as _, NodeSource, Root, Tree};
use tresor_storage::seal::{FrameKind, compress};
use tresor_storage::vault::{PackWriter, Vault, VaultReader, Written};

use super::Shares;
use super::segment::KnownDamage;

/// A disk of the new point, and the one that it followed.
pub(super) struct NewDisk {
    pub(super) root: Root,
    pub(super) parent: Option<Arc<Tree>>,
}

/// What is needed to ask again.
pub(super) struct Reask<'a> {
    pub(super) vault: &'a Arc<Vault>,
    pub(super) reader: &'a Arc<VaultReader>,
    pub(super) index: &'a Arc<dyn ChunkIndex>,
    pub(super) shares: &'a Arc<dyn Shares>,
    /// Hints into it are none, whoever answers them.
    pub(super) damage: &'a KnownDamage,
    pub(super) session: IndexSession,
    /// A part of its own: the numbers of the first one's packs are used up.
    pub(super) writer: Writer,
    pub(super) compression_level: i32,
    pub(super) moved: SlotSet,
}

/// One piece that the point needs.
#[derive(Debug, Clone, Copy)]
struct Needed {
    is_chunk: bool,
    id: ChunkId,
    at: Location,
}

/// A walk, with what it found and has not asked for yet.
struct Walk<'a> {
    with: &'a Reask<'a>,
    packs: PackWriter,
    needed: Vec<Needed>,
    frame: PiecesBuilder,
    frame_ids: Vec<ChunkId>,
    frame_plain: Vec<u8>,
}

/// Asks for everything of the moved slots. When this returns, all of it is known to their present owners, or was inserted there.
pub(super) async fn run(with: &Reask<'_>, disks: &[NewDisk]) -> Result<Written> {
    let packs = PackWriter::new(
        Arc::clone(with.vault),
        Arc::clone(with.index),
        with.session,
        with.writer,
    );
    let mut walk = Walk {
        with,
        packs,
        needed: Vec::new(),
        frame: PiecesBuilder::new(FrameKind::Data),
        frame_ids: Vec::new(),
        frame_plain: Vec::new(),
    };
    for disk in disks {
        walk.disk(disk).await?;
    }
    walk.ask().await?;
    walk.flush().await?;
    walk.packs.finish().await
}

impl Walk<'_> {
    async fn disk(&mut self, disk: &NewDisk) -> Result<()> {
        let source = Arc::clone(self.with.reader) as Arc<dyn NodeSource>;
        let tree = Tree::new(disk.root, self.with.vault.ids.clone(), source);
        // Nodes to look at, the next one last.
        let mut todo = vec![(disk.root.depth, 0)];
        while let Some((level, index)) = todo.pop() {
            let Some(child) = tree.child(level, index).await? else {
                continue;
            };
            if let Some(parent) = &disk.parent
                // A parent that cannot be read only costs asking for what it has.
                && let Ok(Some(theirs)) = parent.child(level, index).await
                && theirs.id == child.id
            {
                continue;
            }
            self.need(false, child.id, child.hint).await?;
            if level > 0 {
                let below = tree.children(level, index);
                todo.extend(below.rev().map(|index| (level - 1, index)));
            } else {
                self.leaf(&tree, index, child).await?;
            }
        }
        Ok(())
    }

    async fn leaf(&mut self, tree: &Tree, segment: u64, child: Child) -> Result<()> {
        for entry in tree.read_leaf(segment, child).await?.entries {
            if let Entry::Chunk { id, hint, .. } = entry {
                self.need(true, id, hint).await?;
            }
        }
        Ok(())
    }

    async fn need(&mut self, is_chunk: bool, id: ChunkId, at: Location) -> Result<()> {
        if !self.with.moved.contains(slot_of(&id)) {
            return Ok(());
        }
        self.needed.push(Needed { is_chunk, id, at });
        if self.needed.len() >= INDEX_BATCH {
            self.ask().await?;
        }
        Ok(())
    }

    async fn ask(&mut self) -> Result<()> {
        let needed = std::mem::take(&mut self.needed);
        let ids: Vec<ChunkId> = needed.iter().map(|piece| piece.id).collect();
        let answers = match self.with.index.lookup(self.with.session, &ids).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(%error, "index does not answer, chunks are stored as new");
                vec![Answer::New; ids.len()]
            }
        };
        let mut own = Vec::new();
        for (piece, answer) in needed.into_iter().zip(answers) {
            let writer = piece.at.pack.writer;
            match answer {
                Answer::Known(at) if !self.with.damage.harms(at) => {}
                // It is in a pack of this session, which is durable: only the entry is to be made again.
                _ if writer.cluster == self.with.writer.cluster && writer.session == self.with.writer.session => {
                    own.push((piece.id, piece.at));
                }
                Answer::Known(_) | Answer::New | Answer::Claimed => self.store(piece).await?,
            }
        }
        if !own.is_empty() {
            self.with.shares.insert_some(self.with.session, &own).await;
        }
        Ok(())
    }

    /// Stores a piece that others stored: its pack may be one that nobody knows any more, and that goes.
    async fn store(&mut self, piece: Needed) -> Result<()> {
        let Needed { is_chunk, id, at } = piece;
        match is_chunk {
            false => {
                let bytes = self.with.reader.node(id, at).await?;
                self.packs.place_nodes(&[(id, bytes.to_vec())]).await?;
            }
            true => {
                let data = self.with.reader.chunk(id, at).await?;
                if self.frame.bytes() + data.len() > FRAME_PLAIN_TARGET {
                    self.flush().await?;
                }
                self.frame.add(data.len());
                self.frame_ids.push(id);
                self.frame_plain.extend_from_slice(&data);
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        if self.frame_ids.is_empty() {
            return Ok(());
        }
        let table = std::mem::replace(&mut self.frame, PiecesBuilder::new(FrameKind::Data));
        let mut plain = table.table();
        plain.append(&mut self.frame_plain);
        let ids = std::mem::take(&mut self.frame_ids);
        let coded = compress(&plain, self.with.compression_level);
        self.packs.place(FrameKind::Data, &table, &ids, &coded).await?;
        Ok(())
    }
}
