//! Walking recipes: does every chunk of every disk lie where it is looked for, and which points are harmed by damage?
//!
//! An item's points are walked oldest first, and what a disk has in common with the point before (same name, same hint) was checked there. Memory is
//! bounded by a window of leaves and a cache of footers, whatever the vault holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;

use super::finding::{Damaged, FINDINGS_MAX, Fault, FindingKind, Spot};
use super::marks::LOST_MAX;
use super::names::Names;
use super::progress::Progress;
use super::scan::Patience;
use crate::error::{Error, Result};
use crate::ids::{ChunkId, Location, PackId, PointId};
use crate::index::ChunkIndex;
use crate::limits::{INDEX_BATCH, NODE_CHILDREN};
use crate::manifest::Manifest;
use crate::pack::read_footer;
use crate::recipe::{Child, Entry, Leaf, NodeSource, Root, Tree};
use crate::seal::FrameKind;
use crate::vault::{Cache, Vault, VaultReader, check_chunk};

/// Leaves whose chunks are resolved together: 1 GiB of disk, at most 65,536 chunks of about 100 B.
const WINDOW_LEAVES: usize = 256;
/// Leaves or footers read at once.
const READS_AT_ONCE: usize = 16;
/// Rows of footers kept, about 56 B each: footers of a thousand packs of ordinary chunks.
const ROWS_KEPT: usize = 1 << 20;

/// What a walk found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) faults: Vec<Fault>,
    pub(super) harms: BTreeMap<Spot, BTreeSet<PointId>>,
    /// Pieces that recipes expect in damaged places; at most [`LOST_MAX`].
    pub(super) references: BTreeSet<(ChunkId, Location)>,
    /// Packs that the recipes need, when asked for.
    pub(super) reached: Option<BTreeSet<PackId>>,
    pub(super) disks: u64,
    pub(super) chunks: u64,
    /// Pieces that are not where the recipe says, but where the index says.
    pub(super) moved: u64,
}

struct Row {
    frame_offset: u32,
    place: u32,
    frame_length: u32,
    length: u32,
    kind: FrameKind,
    id: ChunkId,
}

/// What is known of a pack's pieces.
enum Footing {
    /// Its footer, sorted by place.
    Rows(Vec<Row>),
    /// The footer cannot be read: frames must be opened.
    Frames(Fault),
    /// Nothing in it can be read.
    Gone(Fault),
}

#[derive(Debug, Clone, Copy)]
struct Reference {
    segment: u64,
    id: ChunkId,
    at: Location,
    grains: u32,
}

/// A disk that was walked: what the same disk of the next point is compared with.
struct Walked {
    tree: Arc<Tree>,
    /// Damage by the first segment that it harms.
    harmed: BTreeMap<u64, BTreeSet<Spot>>,
}

/// A walk over recipes.
pub(super) struct Walk<'a> {
    vault: Arc<Vault>,
    reader: Arc<VaultReader>,
    index: Option<Arc<dyn ChunkIndex>>,
    names: &'a Names,
    progress: &'a Progress,
    footings: Cache<PackId, Arc<Footing>>,
    /// Checks every chunk against footers; else only looks for damage that is known.
    resolves: bool,
    only: Option<PackId>,
    damaged: Damaged,
    /// Packs whose footers cannot be read.
    footless: BTreeSet<PackId>,
    patience: Patience,
    found: Found,
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        vault: Arc<Vault>,
        index: Option<Arc<dyn ChunkIndex>>,
        names: &'a Names,
        progress: &'a Progress,
        damaged: Damaged,
    ) -> Self {
        let reader = Arc::new(VaultReader::new(Arc::clone(&vault), index.clone()));
        Self {
            vault,
            reader,
            index,
            names,
            progress,
            footings: Cache::new(ROWS_KEPT),
            resolves: false,
            only: None,
            damaged,
            footless: BTreeSet::new(),
            patience: Patience::default(),
            found: Found::default(),
        }
    }

    /// Checks every chunk, in one pack only if given.
    pub(super) fn resolving(mut self, only: Option<PackId>) -> Self {
        self.resolves = true;
        self.only = only;
        self
    }

    /// Collects the packs that are needed.
    pub(super) fn collecting(mut self) -> Self {
        self.found.reached = Some(BTreeSet::new());
        self
    }

    pub(super) fn finish(self) -> Found {
        self.found
    }

    /// Walks the points of one item, oldest first.
    ///
    /// # Errors
    /// What is no damage: no permission, a store that answers nothing at all.
    pub(super) async fn item(&mut self, points: &[Manifest]) -> Result<()> {
        let mut before: BTreeMap<&str, Walked> = BTreeMap::new();
        for manifest in points {
            let mut now = BTreeMap::new();
            for disk in &manifest.disks {
                if self.progress.is_stopped() {
                    return Ok(());
                }
                let walked = Box::pin(self.disk(manifest.point, disk.root, before.get(disk.name.as_str()))).await?;
                now.insert(disk.name.as_str(), walked);
                self.found.disks += 1;
                self.progress.add_done(1, disk.root.size);
            }
            before = now;
        }
        Ok(())
    }

    async fn disk(&mut self, point: PointId, root: Root, before: Option<&Walked>) -> Result<Walked> {
        let source = Arc::clone(&self.reader) as Arc<dyn NodeSource>;
        let tree = Arc::new(Tree::new(root, self.vault.ids.clone(), source));
        let mut walked = Walked {
            tree: Arc::clone(&tree),
            harmed: BTreeMap::new(),
        };
        let before = before.filter(|before| before.tree.root().depth == root.depth);
        let mut window: Vec<(u64, Child)> = Vec::new();
        let mut stack = vec![(root.depth, 0_u64, root.child)];
        while let Some((level, index, child)) = stack.pop() {
            let Some(child) = child else { continue };
            if self.progress.is_stopped() {
                break;
            }
            let width = (NODE_CHILDREN as u64).pow(u32::from(level));
            if let Some(before) = before
                && before.tree.child(level, index).await.ok().flatten() == Some(child)
            {
                let segments = index * width..(index + 1) * width;
                for (segment, spots) in before.harmed.range(segments) {
                    self.harm(&mut walked, point, *segment, spots);
                }
                continue;
            }
            if level == 0 {
                window.push((index, child));
                if window.len() == WINDOW_LEAVES {
                    self.window(point, &mut walked, std::mem::take(&mut window)).await?;
                }
                continue;
            }
            self.reach(child.hint.pack);
            if let Some(spot) = self.known_damage(child.id, child.hint).await {
                self.harm(&mut walked, point, index * width, &BTreeSet::from([spot]));
            }
            // The first of these reads the node; the tree keeps it for the others.
            let first = index * NODE_CHILDREN as u64;
            let mut below = Vec::with_capacity(NODE_CHILDREN);
            for at in first..first + NODE_CHILDREN as u64 {
                match tree.child(level - 1, at).await {
                    Ok(found) => below.push((level - 1, at, found)),
                    Err(error) => {
                        let spot = self.blame(child.id, child.hint, error).await?;
                        self.harm(&mut walked, point, index * width, &BTreeSet::from([spot]));
                        below.clear();
                        break;
                    }
                }
            }
            stack.extend(below.into_iter().rev());
        }
        self.window(point, &mut walked, window).await?;
        Ok(walked)
    }

    /// Reads leaves and resolves their chunks.
    async fn window(&mut self, point: PointId, walked: &mut Walked, leaves: Vec<(u64, Child)>) -> Result<()> {
        let mut references = Vec::new();
        for (segment, child) in &leaves {
            self.reach(child.hint.pack);
            if let Some(spot) = self.known_damage(child.id, child.hint).await {
                self.harm(walked, point, *segment, &BTreeSet::from([spot]));
            }
        }
        let tree = Arc::clone(&walked.tree);
        let read = |(segment, child): (u64, Child)| {
            let tree = Arc::clone(&tree);
            async move { (segment, child, tree.read_leaf(segment, child).await) }
        };
        let mut reads = futures::stream::iter(leaves).map(read).buffered(READS_AT_ONCE);
        let mut unread = Vec::new();
        while let Some((segment, child, leaf)) = reads.next().await {
            match leaf {
                Ok(leaf) => references.extend(references_of(segment, &leaf)),
                Err(error) => unread.push((segment, child, error)),
            }
        }
        drop(reads);
        for (segment, child, error) in unread {
            let spot = self.blame(child.id, child.hint, error).await?;
            self.harm(walked, point, segment, &BTreeSet::from([spot]));
        }
        self.found.chunks += references.len() as u64;
        for (reference, spot) in self.judge(references).await? {
            self.harm(walked, point, reference.segment, &BTreeSet::from([spot]));
        }
        Ok(())
    }

    /// The references that lead nowhere, each with the damage that it met.
    async fn judge(&mut self, references: Vec<Reference>) -> Result<Vec<(Reference, Spot)>> {
        let mut doubtful: Vec<(Reference, Fault)> = Vec::new();
        let mut packs: BTreeMap<PackId, Vec<Reference>> = BTreeMap::new();
        for reference in references {
            self.reach(reference.at.pack);
            if let Some(spot) = self.damaged.at(reference.at) {
                doubtful.push((
                    reference,
                    Fault {
                        spot,
                        kind: FindingKind::Dangling,
                        what: String::new(),
                    },
                ));
            } else if self.resolves && self.only.is_none_or(|only| only == reference.at.pack) {
                packs.entry(reference.at.pack).or_default().push(reference);
            }
        }
        let wanted: Vec<PackId> = packs.keys().copied().collect();
        let this = &*self;
        let fetch = |pack| async move { (pack, this.footing(pack).await) };
        let footings: Vec<_> = futures::stream::iter(wanted)
            .map(fetch)
            .buffered(READS_AT_ONCE)
            .collect()
            .await;
        for (pack, footing) in footings {
            let footing = footing?;
            for reference in packs.remove(&pack).unwrap_or_default() {
                if let Some(fault) = self.check(&footing, reference).await? {
                    doubtful.push((reference, fault));
                }
            }
            if let Footing::Frames(fault) = footing.as_ref()
                && self.footless.insert(pack)
            {
                self.found.faults.push(fault.clone());
            }
        }
        let mut harmed = Vec::new();
        let elsewhere = self.elsewhere(&doubtful).await?;
        for ((reference, fault), moved) in doubtful.into_iter().zip(elsewhere) {
            if moved {
                self.found.moved += 1;
                continue;
            }
            self.refer(reference.id, reference.at);
            let spot = fault.spot.clone();
            if !fault.what.is_empty() {
                self.note(fault)?;
            }
            harmed.push((reference, spot));
        }
        Ok(harmed)
    }

    /// Whether a reference leads to its chunk; the fault if not.
    async fn check(&self, footing: &Footing, reference: Reference) -> Result<Option<Fault>> {
        let Reference { id, at, grains, .. } = reference;
        let rows = match footing {
            Footing::Rows(rows) => rows,
            Footing::Gone(fault) => return Ok(Some(fault.clone())),
            Footing::Frames(_) => {
                let read = async {
                    let chunk = self.reader.frame(FrameKind::Data, at).await?.at(at.place)?;
                    Ok::<_, Error>(check_chunk(&self.vault, id, &chunk)?)
                };
                return match read.await {
                    Ok(()) => Ok(None),
                    Err(error) => self.fault_at(at, error).await.map(Some),
                };
            }
        };
        let found = rows
            .binary_search_by_key(&(at.frame_offset, at.place), |row| (row.frame_offset, row.place))
            .ok()
            .map(|i| &rows[i]);
        let what = match found {
            Some(row) if row.id == id && row.kind == FrameKind::Data && row.frame_length == at.frame_length => {
                if row.length == grains {
                    return Ok(None);
                }
                format!("chunk {id} has {} grains there, the recipe says {grains}", row.length)
            }
            _ => format!("chunk {id} does not lie at {} where the recipe says", at.place),
        };
        Ok(Some(Fault {
            spot: Spot::Place(at.pack, at.frame_offset, at.place),
            kind: FindingKind::Dangling,
            what,
        }))
    }

    /// Whether the index has each of these elsewhere, and it lies there.
    async fn elsewhere(&self, doubtful: &[(Reference, Fault)]) -> Result<Vec<bool>> {
        let mut moved = vec![false; doubtful.len()];
        let Some(index) = &self.index else { return Ok(moved) };
        for (start, batch) in (0..).step_by(INDEX_BATCH).zip(doubtful.chunks(INDEX_BATCH)) {
            let ids: Vec<ChunkId> = batch.iter().map(|(reference, _)| reference.id).collect();
            for (i, location) in index.locate(&ids).await?.into_iter().enumerate() {
                let (reference, _) = &batch[i];
                let Some(at) = location.filter(|at| *at != reference.at && self.damaged.at(*at).is_none()) else {
                    continue;
                };
                let footing = self.footing(at.pack).await?;
                moved[start + i] = self.check(&footing, Reference { at, ..*reference }).await?.is_none();
            }
        }
        Ok(moved)
    }

    /// What is known of a pack's pieces, from the cache if it was asked before.
    async fn footing(&self, pack: PackId) -> Result<Arc<Footing>> {
        let weigh = |footing: &Arc<Footing>| match footing.as_ref() {
            Footing::Rows(rows) => rows.len() + 16,
            _ => 16,
        };
        self.footings
            .get(pack, weigh, async || self.read_footing(pack).await.map(Arc::new))
            .await
    }

    async fn read_footing(&self, pack: PackId) -> Result<Footing> {
        let vault = &self.vault;
        let error = match read_footer(
            vault.backend.as_ref(),
            &vault.keyring,
            vault.id,
            pack,
            self.names.pack_length(pack),
        )
        .await
        {
            Ok((_, footer, _)) => {
                let mut rows = Vec::new();
                for frame in &footer.frames {
                    let mut place = 0_u32;
                    for (length, id) in &frame.pieces {
                        let (frame_offset, frame_length) = (frame.offset, frame.length);
                        rows.push(Row {
                            frame_offset,
                            place,
                            frame_length,
                            length: *length,
                            kind: frame.kind,
                            id: *id,
                        });
                        place += length;
                    }
                }
                return Ok(Footing::Rows(rows));
            }
            Err(error) => error,
        };
        let Some(kind) = FindingKind::of(&error) else {
            return Err(error);
        };
        match self.reader.pack_keys(pack).await {
            Ok(_) => Ok(Footing::Frames(Fault {
                spot: Spot::Footer(pack),
                kind,
                what: error.chain(),
            })),
            Err(error) => {
                let Some(kind) = FindingKind::of(&error) else {
                    return Err(error);
                };
                Ok(Footing::Gone(Fault {
                    spot: Spot::Pack(pack),
                    kind,
                    what: error.chain(),
                }))
            }
        }
    }

    /// Says what an error met at a location means: of the whole pack, or of the frame.
    async fn fault_at(&self, at: Location, error: Error) -> Result<Fault> {
        let Some(kind) = FindingKind::of(&error) else {
            return Err(error);
        };
        match self.reader.pack_keys(at.pack).await {
            Ok(_) => Ok(Fault {
                spot: Spot::Frame(at.pack, at.frame_offset),
                kind,
                what: error.chain(),
            }),
            Err(error) => {
                let Some(kind) = FindingKind::of(&error) else {
                    return Err(error);
                };
                Ok(Fault {
                    spot: Spot::Pack(at.pack),
                    kind,
                    what: error.chain(),
                })
            }
        }
    }

    /// Notes that a recipe node cannot be read.
    async fn blame(&mut self, id: ChunkId, at: Location, error: Error) -> Result<Spot> {
        self.refer(id, at);
        if let Some(spot) = self.damaged.at(at) {
            return Ok(spot);
        }
        let fault = self.fault_at(at, error).await?;
        let spot = fault.spot.clone();
        self.note(fault)?;
        Ok(spot)
    }

    fn note(&mut self, fault: Fault) -> Result<()> {
        if self.found.harms.contains_key(&fault.spot) || self.found.faults.len() > FINDINGS_MAX {
            return Ok(());
        }
        self.patience.met(&fault)?;
        if fault.kind.is_damage() {
            self.damaged.add(&fault.spot);
        }
        self.found.faults.push(fault);
        Ok(())
    }

    /// The damage in which a recipe node lies, unless the index has it elsewhere.
    async fn known_damage(&mut self, id: ChunkId, at: Location) -> Option<Spot> {
        let spot = self.damaged.at(at)?;
        if let Some(index) = &self.index
            && let Ok(found) = index.locate(&[id]).await
            && found
                .first()
                .copied()
                .flatten()
                .is_some_and(|other| other != at && self.damaged.at(other).is_none())
        {
            self.found.moved += 1;
            return None;
        }
        self.refer(id, at);
        Some(spot)
    }

    fn reach(&mut self, pack: PackId) {
        if let Some(reached) = &mut self.found.reached {
            reached.insert(pack);
        }
    }

    fn refer(&mut self, id: ChunkId, at: Location) {
        if self.found.references.len() <= LOST_MAX {
            self.found.references.insert((id, at));
        }
    }

    fn harm(&mut self, walked: &mut Walked, point: PointId, segment: u64, spots: &BTreeSet<Spot>) {
        walked.harmed.entry(segment).or_default().extend(spots.iter().cloned());
        for spot in spots {
            self.found.harms.entry(spot.clone()).or_default().insert(point);
        }
    }
}

fn references_of(segment: u64, leaf: &Leaf) -> impl Iterator<Item = Reference> + '_ {
    leaf.entries.iter().filter_map(move |entry| match entry {
        Entry::Hole { .. } => None,
        Entry::Chunk { grains, id, hint } => Some(Reference {
            segment,
            id: *id,
            at: *hint,
            grains: u32::from(*grains),
        }),
    })
}
