//! Reading what the index has of one group of slots, as of one moment: for checkpoints.

use rocksdb::{IteratorMode, ReadOptions};
use tokio::sync::mpsc::Sender;

use super::open::{family, trouble};
use super::options::{CHUNKS, PACKS};
use super::packs::{Joint, Rows, read_options};
use super::{RocksIndex, Shared};
use crate::ids::{ChunkId, PackId};
use crate::index::IndexError;
use crate::index::entry::{Flags, Found, Row};
use crate::index::slot::{SlotSet, group_of, groups_in, keys_of, slot_of, slots_of};

/// Packs told at once: 3 MB.
const PACKS_AT_ONCE: usize = 1 << 16;

/// What is told of a group, in this order: its slots once, packs, entries.
pub(crate) enum GroupPart {
    /// The slots that are complete, the group's lowest slot the lowest bit.
    Slots(u64),
    /// Packs that are in whole for all of these slots, ascending.
    Packs(Vec<PackId>),
    /// Entries of these slots, ascending.
    Entries(Vec<Found>),
}

impl RocksIndex {
    /// Tells what it has of the complete ones of these slots of one group; `entries_max` at once. Ends early when nobody listens any more.
    ///
    /// What is told of packs is no newer than the entries: both are of one moment, and a pack is noted after its entries.
    pub(crate) async fn read_group(
        &self,
        group: u8,
        slots: SlotSet,
        entries_max: usize,
        to: Sender<GroupPart>,
    ) -> Result<(), IndexError> {
        self.run(move |shared| shared.read_group(group, &slots, entries_max, &to))
            .await
    }
}

impl Shared {
    fn read_group(
        &self,
        group: u8,
        slots: &SlotSet,
        entries_max: usize,
        to: &Sender<GroupPart>,
    ) -> Result<(), IndexError> {
        let db = &self.opened.db;
        // The table of slots and the moment go together: no slot is begun, dropped or joined between them.
        let (snapshot, slots, generations) = {
            let _writing = self.lock();
            let complete: SlotSet = {
                let table = self.table();
                let complete = slots_of(group).filter(|slot| {
                    slots.contains(*slot) && table.slots.get(slot).is_some_and(|held| held.row.complete)
                });
                complete.collect()
            };
            let generations = self.generations_of(&complete);
            (db.snapshot(), complete, generations)
        };
        let told = |part| to.blocking_send(part).is_ok();
        if !told(GroupPart::Slots(slots.group(group))) || slots.is_empty() {
            return Ok(());
        }
        let rows = generations.iter().map(|(generation, groups)| {
            let rows = snapshot.iterator_cf_opt(family(db, PACKS), read_options(*generation), IteratorMode::Start);
            (*groups, Rows::of(rows))
        });
        let mut packs = Vec::new();
        for row in Joint::new(rows)? {
            let (pack, groups) = row?;
            if groups_in(groups).any(|whole| whole == group) {
                packs.push(pack);
            }
            if packs.len() == PACKS_AT_ONCE && !told(GroupPart::Packs(std::mem::take(&mut packs))) {
                return Ok(());
            }
        }
        if !told(GroupPart::Packs(packs)) {
            return Ok(());
        }
        let mut entries = Vec::new();
        for range in slots.ranges() {
            debug_assert!(group_of(range.start) == group, "only slots of the group were collected");
            let (from, end) = keys_of(range);
            let mut read = ReadOptions::default();
            read.fill_cache(false);
            read.set_readahead_size(1 << 20);
            read.set_iterate_lower_bound(from);
            read.set_iterate_upper_bound(end);
            for row in snapshot.iterator_cf_opt(family(db, CHUNKS), read, IteratorMode::Start) {
                let (key, row) = row.map_err(|e| trouble("read entries", e))?;
                let id = ChunkId::from_slice(&key).map_err(|_| IndexError::Malformed)?;
                debug_assert!(slots.contains(slot_of(&id)));
                let row = Row::decode(&row).ok_or(IndexError::Malformed)?;
                for writer in self.writers.resolve(db, &[row.writer])? {
                    let entry = row.entry(writer);
                    entries.push(Found {
                        id,
                        location: entry.location,
                        is_lost: entry.flags.contains(Flags::LOST),
                    });
                }
                if entries.len() == entries_max && !told(GroupPart::Entries(std::mem::take(&mut entries))) {
                    return Ok(());
                }
            }
        }
        if !entries.is_empty() {
            told(GroupPart::Entries(entries));
        }
        Ok(())
    }
}
