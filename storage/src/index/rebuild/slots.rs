//! Rebuilding slots for a new owner: the newest checkpoints that have them, then what the packs say that those checkpoints lack.
//!
//! What it relies on, and why it is right:
//! 1. *The list of packs is of after the grant.* A pack that was put before the list was made is in it, so it is in the checkpoint's set or read by its
//!    footer. A pack that was put after it is still to be inserted: its session needs an acknowledgement of a grant that is current
//!    when it commits, and that is ours or a later one's. So no pack is missed.
//! 2. *Inserts go on meanwhile.* Both sides change an entry under the index's lock, and what is found here never replaces what a
//!    session did ([`super::super::entry::decide_fill`]). An id that a session stored again, because it was asked before the rebuild came to
//!    it, keeps its first good location; the other one is a duplicate that a sweep finds.
//! 3. *An entry is taken only if its pack is listed and not dead.* So the entries of dead packs never come back, also from a checkpoint that was
//!    written before their death, and a checkpoint of a store that was since rolled back knows no more than the store. A checkpoint may be newer
//!    than the list; what it knows of packs put since is of a session that asks again (1).
//! 4. *A footer gives entries only to the slots whose checkpoint lacks the pack.* To others it would bring back what a sweep removed: true, but
//!    for nothing. To slots that are not being rebuilt it gives nothing at all: there an entry could come into a pack that is just found
//!    to have none.
//! 5. *A checkpoint that cannot be read whole counts for nothing*, and the next older one is tried, then none. What was taken of it by then
//!    was authenticated, and stays under (3).
//! 6. *Of another cluster's checkpoints none is read*: what it removed and flagged was decided by other sessions and epochs.
//!
//! Memory: the list, 8 B a pack and 64 checkpoints for what each lacks, [`FILE_ENTRIES`] entries.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};

use super::packs::PackList;
use super::{
    FOOTERS_AHEAD, Listed, Loss, Packs, Report, SEGMENTS_AHEAD, Target, add, check_inside, read_segment, stops,
    take_frames, take_segment,
};
use crate::error::{Doing, Result};
use crate::ids::{CheckpointId, ChunkId, Location, PackId, Writer};
use crate::index::checkpoint::{self, CheckpointReader, PackSet};
use crate::index::rocks::{FILE_ENTRIES, Filling};
use crate::index::slot::{SlotSet, groups_in, slot_of};
use crate::index::{ChunkIndex, Found, IndexError, RocksIndex};
use crate::pack::read_footer;
use crate::vault::{Vault, names};

/// A writer's segments are read when this many of its packs, or fewer, are in them for each one that is wanted: a footer costs requests of its own,
/// a segment the bytes of all its packs.
const SEGMENT_WORTH: usize = 8;
/// Up to so many writers' segments are listed writer by writer; for more the whole folder is.
const LISTED_ALONE_MAX: usize = 64;
/// Packs whose fate is told to the index at once.
const PACKS_AT_ONCE: usize = 1 << 14;

/// What a rebuild of slots did.
#[derive(Debug, Default)]
pub struct SlotReport {
    /// The slots that were filled: those asked for that were begun and not complete.
    pub slots: SlotSet,
    /// Slots for which no checkpoint could be read.
    pub slots_bare: u64,
    /// Checkpoints read whole.
    pub checkpoints_read: u64,
    /// Objects of checkpoints read.
    pub checkpoint_pieces_read: u64,
    /// Entries taken from checkpoints.
    pub checkpoint_entries: u64,
    /// Entries of checkpoints that were left out, because their pack is dead or not in the list.
    pub entries_left_out: u64,
    /// Packs of the list that are dead.
    pub packs_dead: u64,
    /// Packs of the list that no checkpoint lacks.
    pub packs_in_checkpoints: u64,
    /// Packs that are in these slots whole now.
    pub packs_whole: u64,
    /// What was read beside checkpoints, and findings. `packs_listed` is the list's.
    pub read: Report,
}

/// Fills slots that were begun from what the store has. They are to be completed by [`RocksIndex::complete_slots`] when it was successful, and are
/// rebuilt again, with another list, when it was not: what was filled by then does no harm.
///
/// `dead` tells of a pack whether it is dead as of the grant or later. `progress` is called after each checkpoint, segment and pack. Segments, footers and checkpoints need
/// `K_meta`; scanning a pack whose footer cannot be read also needs `K_data`, and without it such a pack is a finding and is left out.
///
/// # Errors
/// Those of the store but for missing and cut objects, those of the index, and [`crate::error::Kind::Unsupported`].
pub async fn rebuild_slots(
    vault: &Arc<Vault>,
    index: &RocksIndex,
    slots: &SlotSet,
    packs: &PackList,
    dead: &(dyn Fn(PackId) -> bool + Send + Sync),
    progress: &mut (dyn FnMut(&SlotReport) + Send),
) -> Result<SlotReport> {
    let filling = index.filling(slots);
    let mut rebuild = Rebuild {
        vault,
        index,
        filling: &filling,
        list: packs,
        dead,
        bases: Bases::new(packs),
        report: SlotReport {
            slots: filling.slots(),
            ..SlotReport::default()
        },
    };
    rebuild.report.read.packs_listed = packs.len() as u64;
    for group in groups_in(filling.slots().groups()) {
        rebuild.take_checkpoints(group, progress).await?;
    }
    rebuild.take_packs(progress).await?;
    Ok(rebuild.report)
}

struct Rebuild<'a> {
    vault: &'a Arc<Vault>,
    index: &'a RocksIndex,
    filling: &'a Filling,
    list: &'a PackList,
    dead: &'a (dyn Fn(PackId) -> bool + Send + Sync),
    bases: Bases,
    report: SlotReport,
}

/// What slots are rebuilt from: groups of slots that begin with one checkpoint, or with none, and which packs that one lacks.
struct Bases {
    slots: Vec<SlotSet>,
    /// Where the packs of a writer begin in `lacking`.
    starts: BTreeMap<Writer, usize>,
    /// For each pack of the list, the bases that lack it, one bit each; `words` words.
    lacking: Vec<u64>,
    words: usize,
    packs: usize,
}

impl Bases {
    fn new(list: &PackList) -> Self {
        let mut starts = BTreeMap::new();
        let mut at = 0;
        for (writer, packs) in list.writers() {
            starts.insert(writer, at);
            at += packs.len();
        }
        Self {
            slots: Vec::new(),
            starts,
            lacking: Vec::new(),
            words: 0,
            packs: at,
        }
    }

    /// Adds one that lacks all packs.
    fn add(&mut self, slots: SlotSet) -> usize {
        let base = self.slots.len();
        self.slots.push(slots);
        if base / 64 >= self.words {
            let mut wider = vec![0; self.packs * (self.words + 1)];
            for pack in 0..self.packs {
                let (to, from) = (pack * (self.words + 1), pack * self.words);
                wider[to..to + self.words].copy_from_slice(&self.lacking[from..from + self.words]);
            }
            self.lacking = wider;
            self.words += 1;
        }
        for pack in 0..self.packs {
            self.lacking[pack * self.words + base / 64] |= 1 << (base % 64);
        }
        base
    }

    /// Takes the last one back.
    fn remove_last(&mut self) {
        self.slots.pop();
        let base = self.slots.len();
        for pack in 0..self.packs {
            self.lacking[pack * self.words + base / 64] &= !(1 << (base % 64));
        }
    }

    /// Says that a base has all packs of a set.
    fn has(&mut self, base: usize, set: &PackSet, list: &PackList) {
        for (writer, first, last) in set.ranges() {
            let (Some(start), Some(packs)) = (self.starts.get(&writer), list.of(writer)) else {
                continue;
            };
            let from = packs.partition_point(|(seq, _)| *seq < first);
            let to = packs.partition_point(|(seq, _)| *seq <= last);
            for pack in start + from..start + to {
                self.lacking[pack * self.words + base / 64] &= !(1 << (base % 64));
            }
        }
    }

    /// The slots that lack the `at`-th pack.
    fn lacking(&self, at: usize) -> SlotSet {
        let words = &self.lacking[at * self.words..(at + 1) * self.words];
        let mut slots = SlotSet::new();
        for (base, of_base) in self.slots.iter().enumerate() {
            if words[base / 64] >> (base % 64) & 1 == 1 {
                slots = slots.union(of_base);
            }
        }
        slots
    }

    fn is_lacking(&self, at: usize) -> bool {
        self.lacking[at * self.words..(at + 1) * self.words]
            .iter()
            .any(|word| *word != 0)
    }

    /// The place of a pack in the list.
    fn place(&self, pack: PackId, list: &PackList) -> Option<usize> {
        let packs = list.of(pack.writer)?;
        let at = packs.binary_search_by_key(&pack.seq, |(seq, _)| *seq).ok()?;
        Some(self.starts.get(&pack.writer)? + at)
    }
}

impl Rebuild<'_> {
    /// Finds a base for each slot of a group.
    async fn take_checkpoints(&mut self, group: u8, progress: &mut (dyn FnMut(&SlotReport) + Send)) -> Result<()> {
        let mut left = self.filling.slots().group(group);
        let listed = checkpoint::list(self.vault, group).await?;
        for name in listed.strange {
            self.report
                .read
                .find(name, super::no_name("checkpoint of slots"), Loss::Nothing);
        }
        let cluster = self.index.stamp().cluster;
        let mut usable = listed.whole;
        usable.retain(|id| id.writer.cluster == cluster);
        while left != 0 {
            let Some((id, slots)) = checkpoint::plan_reads(&usable, left).into_iter().next() else {
                break;
            };
            usable.retain(|other| *other != id);
            let slots = SlotSet::of_group(group, slots);
            let base = self.bases.add(slots.clone());
            match self.take_checkpoint(id, &slots, base).await {
                Ok(()) => {
                    self.report.checkpoints_read += 1;
                    left &= !slots.group(group);
                }
                Err(error) if stops(&error) => return Err(error),
                Err(error) => {
                    self.report.read.find(names::checkpoint(id, 0), error, Loss::Nothing);
                    // What it said it has is not believed; the slots will have another base.
                    self.bases.remove_last();
                }
            }
            progress(&self.report);
        }
        if left != 0 {
            self.report.slots_bare += u64::from(left.count_ones());
            self.bases.add(SlotSet::of_group(group, left));
        }
        Ok(())
    }

    async fn take_checkpoint(&mut self, id: CheckpointId, slots: &SlotSet, base: usize) -> Result<()> {
        let vault = Arc::clone(self.vault);
        let mut reader = CheckpointReader::open(&vault, id).await?;
        let mut sets = Vec::new();
        while let Some(set) = reader.next_packs().await? {
            sets.push(set);
        }
        let mut ready = Vec::new();
        while let Some(entries) = reader.next_entries(slots).await? {
            for found in entries.into_iter().filter(|found| slots.contains(slot_of(&found.id))) {
                let pack = found.location.pack;
                if self.list.length(pack).is_none() || (self.dead)(pack) {
                    self.report.entries_left_out += 1;
                } else {
                    ready.push(found);
                }
                if ready.len() == FILE_ENTRIES {
                    self.add_sorted(std::mem::take(&mut ready)).await?;
                }
            }
        }
        self.add_sorted(ready).await?;
        self.report.checkpoint_pieces_read += reader.pieces_read();
        for set in &sets {
            self.bases.has(base, set, self.list);
        }
        Ok(())
    }

    async fn add_sorted(&mut self, entries: Vec<Found>) -> Result<()> {
        self.report.checkpoint_entries += entries.len() as u64;
        Ok(self.filling.add_sorted(entries).await?)
    }

    /// Reads what packs say that are lacking somewhere, and tells the index which are in whole.
    async fn take_packs(&mut self, progress: &mut (dyn FnMut(&SlotReport) + Send)) -> Result<()> {
        let mut whole = Vec::new();
        let mut lacking = Packs::default();
        for (at, (pack, length)) in self.list.iter().enumerate() {
            if (self.dead)(pack) {
                self.report.packs_dead += 1;
            } else if self.bases.is_lacking(at) {
                let listed = Listed { length, done: false };
                lacking.0.entry(pack.writer).or_default().insert(pack.seq, listed);
            } else {
                self.report.packs_in_checkpoints += 1;
                whole.push(pack);
            }
            if whole.len() == PACKS_AT_ONCE {
                self.are_whole(std::mem::take(&mut whole)).await?;
            }
        }
        self.take_segments(&mut lacking, &mut whole, progress).await?;
        self.take_footers(lacking, &mut whole, progress).await?;
        self.are_whole(whole).await
    }

    /// Behind everything that was added of them, so that a crash never leaves this without that.
    async fn are_whole(&mut self, packs: Vec<PackId>) -> Result<()> {
        self.report.packs_whole += packs.len() as u64;
        Ok(self.filling.add_packs(packs).await?)
    }

    /// Reads segments that stand for the footers of many packs that are lacking.
    ///
    /// A writer's segments list its packs about in their order, and what is lacking are its last ones, put after a checkpoint. So they are read from
    /// the newest back, until one has none of them.
    async fn take_segments(
        &mut self,
        lacking: &mut Packs,
        whole: &mut Vec<PackId>,
        progress: &mut (dyn FnMut(&SlotReport) + Send),
    ) -> Result<()> {
        let is_worth = |(writer, packs): (&Writer, &BTreeMap<u32, Listed>)| {
            let in_segments = self
                .list
                .of(*writer)
                .map_or(0, <[_]>::len)
                .min(crate::limits::SEGMENT_PACKS_MAX);
            (packs.len() * SEGMENT_WORTH >= in_segments).then_some(*writer)
        };
        let writers: BTreeSet<Writer> = lacking.0.iter().filter_map(is_worth).collect();
        if writers.is_empty() {
            return Ok(());
        }
        let mut segments: BTreeMap<Writer, Vec<PackId>> = BTreeMap::new();
        for id in self.list_segments(&writers).await? {
            segments.entry(id.writer).or_default().push(id);
        }
        let reads = segments.into_iter().map(|(writer, mut ids)| {
            let vault = Arc::clone(self.vault);
            // The newest is read ahead, the others when they are needed.
            ids.sort_unstable();
            let newest = ids.pop();
            async move {
                match newest {
                    Some(id) => (writer, ids, Some((id, read_segment(&vault, id).await))),
                    None => (writer, ids, None),
                }
            }
        });
        let mut reads = stream::iter(reads.collect::<Vec<_>>()).buffered(SEGMENTS_AHEAD);
        while let Some((writer, mut older, mut read)) = reads.next().await {
            while let Some((id, entries)) = read.take() {
                let taken = match entries {
                    Ok(entries) => {
                        self.report.read.segments_read += 1;
                        let before = self.report.read.packs_in_segments;
                        let listed: Vec<PackId> = entries.iter().map(|entry| entry.pack).collect();
                        // Those that are not lacking are not asked for; and what is not in the list was deleted since it was dead, or is told
                        // by whoever rebuilds a whole index.
                        let wanted = entries
                            .into_iter()
                            .filter(|entry| lacking.get(entry.pack).is_some())
                            .collect();
                        let target = Lacking {
                            filling: self.filling,
                            bases: &self.bases,
                            list: self.list,
                            index: self.index,
                        };
                        take_segment(&target, lacking, &mut self.report.read, id, wanted).await?;
                        whole.extend(listed.into_iter().filter(|pack| lacking.take_done(*pack)));
                        self.report.read.packs_in_segments > before
                    }
                    Err(error) if stops(&error) => return Err(error),
                    Err(error) => {
                        self.report.read.find(names::segment(id), error, Loss::Nothing);
                        true
                    }
                };
                progress(&self.report);
                let is_left = lacking.0.get(&writer).is_some_and(|packs| !packs.is_empty());
                if let Some(next) = older.pop().filter(|_| taken && is_left) {
                    read = Some((next, read_segment(self.vault, next).await));
                }
            }
        }
        Ok(())
    }

    async fn list_segments(&mut self, writers: &BTreeSet<Writer>) -> Result<Vec<PackId>> {
        if writers.len() > LISTED_ALONE_MAX {
            let mut all = super::list_segments(self.vault, &mut self.report.read).await?;
            all.retain(|id| writers.contains(&id.writer));
            return Ok(all);
        }
        let mut segments = Vec::new();
        for writer in writers {
            let folder = format!("{}{writer}/", names::INDEX);
            let mut list = self.vault.backend.list(&folder);
            while let Some(listed) = list.try_next().await.doing(|| "list index segments".into())? {
                segments.extend(names::parse_segment(&listed.name));
            }
        }
        self.report.read.segments_listed += segments.len() as u64;
        Ok(segments)
    }

    /// Reads footers of packs that no segment told of, and frames where there is no footer.
    async fn take_footers(
        &mut self,
        lacking: Packs,
        whole: &mut Vec<PackId>,
        progress: &mut (dyn FnMut(&SlotReport) + Send),
    ) -> Result<()> {
        let rest: Vec<(PackId, u64)> = lacking.into_rest().collect();
        let reads = rest.into_iter().map(|(id, length)| {
            let vault = Arc::clone(self.vault);
            async move {
                let footer = read_footer(vault.backend.as_ref(), &vault.keyring, vault.id, id, Some(length)).await;
                (id, length, footer)
            }
        });
        let mut reads = stream::iter(reads).buffered(FOOTERS_AHEAD);
        while let Some((id, length, read)) = reads.next().await {
            let read = read.and_then(|(_, footer, _)| Ok((check_inside(&footer, length)?, footer)));
            let target = Lacking {
                filling: self.filling,
                bases: &self.bases,
                list: self.list,
                index: self.index,
            };
            match read {
                Ok(((), footer)) => {
                    self.report.read.footers_read += 1;
                    add(&target, &mut self.report.read, footer.entries(id).collect()).await?;
                    whole.push(id);
                }
                Err(error) if stops(&error) => return Err(error),
                // A pack of which something cannot be read is never whole: it is tried again by the next owner.
                Err(error) => {
                    let loss = take_frames(self.vault, &target, &mut self.report.read, id, error).await?;
                    if loss == Loss::Nothing {
                        whole.push(id);
                    }
                }
            }
            if whole.len() >= PACKS_AT_ONCE {
                self.are_whole(std::mem::take(whole)).await?;
            }
            progress(&self.report);
        }
        Ok(())
    }
}

/// Takes the pieces of packs for the slots that lack the pack.
struct Lacking<'a> {
    filling: &'a Filling,
    bases: &'a Bases,
    list: &'a PackList,
    index: &'a RocksIndex,
}

#[async_trait]
impl Target for Lacking<'_> {
    async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError> {
        let mut of: Option<(PackId, SlotSet)> = None;
        let mut found = Vec::new();
        for (id, location) in entries {
            if of.as_ref().is_none_or(|(pack, _)| *pack != location.pack) {
                let at = self.bases.place(location.pack, self.list);
                of = Some((location.pack, at.map_or_else(SlotSet::new, |at| self.bases.lacking(at))));
            }
            if of.as_ref().is_some_and(|(_, slots)| slots.contains(slot_of(&id))) {
                found.push(Found {
                    id,
                    location,
                    is_lost: false,
                });
            }
        }
        self.filling.add(found).await
    }

    async fn add_damage(&self, pack: PackId) -> Result<(), IndexError> {
        self.index.add_damage(pack, None).await
    }
}

#[cfg(test)]
mod tests;
