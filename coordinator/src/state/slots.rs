//! Slots of the index: who answers for which share of the chunk ids, and under which epoch.
//!
//! - ◆ Every grant is a new epoch, also to the same worker: an epoch belongs to one life of one process, and what was touched before it is not known but
//!   for the floor, which is the sweep epoch of the grant.
//! - ◆ A commit that names a slot which was granted since its map is refused; the session stays open and may ask again ([`Refusal::Moved`]).
//! - The lineage of a slot (`since`) goes on only where a worker gets its own slot again, and the database that its process found was used last by the very
//!   life that the slot was granted to. Whatever came between breaks it: another owner, a life that used the database without this slot, a database that
//!   is in doubt, and a second grant to one life, by which a slot is begun afresh.
//! - A worker that is removed, or serves no more, has no slots from that entry on: they are nobody's until they are granted.

use tresor_proto::ids::{SessionId, WorkerId};

use super::State;
use super::reply::{Refusal, Reply};
use super::rows::Slot;
use super::texts::check_batch;
#[cfg(test)]
use crate::mutation::{Mutation, mutated};

/// Shares of the index, by the first twelve bits of an id.
pub const SLOTS: u16 = 4096;

impl State {
    pub(super) fn grant_slots(&mut self, index: u64, seen: u64, grants: &[(u16, WorkerId)]) -> Result<Reply, Refusal> {
        check_batch("grants", grants)?;
        if seen != self.clock.slot_map {
            return Err(Refusal::fenced("slots were granted since this was planned"));
        }
        for (slot, worker) in grants {
            if *slot >= SLOTS {
                return Err(Refusal::invalid("slot", format!("slots are 0 to {}", SLOTS - 1)));
            }
            let row = self.workers.get(worker).filter(|row| !row.removed);
            let row = row.filter(|row| row.life.is_some());
            let row = row.ok_or_else(|| Refusal::missing("worker", worker))?;
            if row.facts.serves.is_empty() {
                return Err(Refusal::held(format!("worker {} answers for no slots", row.name)));
            }
        }
        for (slot, worker) in grants {
            let row = self.workers.get(worker).expect("looked at above");
            let life = row.life.unwrap_or_default();
            let before = self.slots.get(slot);
            let is_kept =
                |before: &&Slot| before.worker == *worker && row.kept_life == Some(before.life) && !before.lacks;
            #[cfg(test)]
            let is_kept = |before: &&Slot| is_kept(before) || before.worker == *worker && mutated(Mutation::Lineage);
            let since = before.filter(is_kept).map_or(index, |before| before.since);
            // ◆ What was touched under an earlier epoch is not known but for the floor.
            let row = Slot {
                worker: *worker,
                life,
                owner_epoch: index,
                floor_epoch: self.clock.sweep_epoch,
                since,
                lacks: false,
            };
            self.slots.insert(*slot, row);
        }
        if !grants.is_empty() {
            self.clock.slot_map = index;
        }
        Ok(Reply::Made(index))
    }

    /// Takes all slots from a worker. The map is another one by that, also if nobody gets them.
    pub(super) fn free_slots(&mut self, index: u64, worker: WorkerId) {
        let of_it = |(slot, row): (&u16, &Slot)| (row.worker == worker).then_some(*slot);
        let slots: Vec<u16> = self.slots.iter().filter_map(of_it).collect();
        for slot in &slots {
            self.slots.remove(slot);
        }
        if !slots.is_empty() {
            self.clock.slot_map = index;
        }
    }

    /// ◆ Refuses a commit that rests on answers of an owner whose slot was granted anew since.
    pub(super) fn check_slots(&self, session: SessionId, used: &[u8], slot_map: u64) -> Result<(), Refusal> {
        if used.len() > usize::from(SLOTS) / 8 {
            return Err(Refusal::invalid(
                "slots",
                format!("has a bit for each of {SLOTS} slots"),
            ));
        }
        #[cfg(test)]
        if mutated(Mutation::MovedSlots) {
            return Ok(());
        }
        for (byte, bits) in used.iter().enumerate() {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                let slot = u16::try_from(byte * 8 + bit).expect("at most 4096");
                match self.slots.get(&slot) {
                    Some(row) if row.owner_epoch <= slot_map => {}
                    _ => return Err(Refusal::Moved { slot, session }),
                }
            }
        }
        Ok(())
    }

    /// ◆ Notes that slots lack entries of a session which ended. They report nothing to a sweep before they were rebuilt: they are granted again, which breaks
    /// their lineage.
    pub(super) fn note_lacking(&mut self, missing: &[u8]) {
        let lacking = |slot: &u16| {
            missing
                .get(usize::from(slot / 8))
                .is_some_and(|bits| bits >> (slot % 8) & 1 == 1)
        };
        for slot in (0..SLOTS).filter(lacking) {
            if let Some(row) = self.slots.get_mut(&slot) {
                row.lacks = true;
            }
        }
    }

    pub(super) fn check_slot_rows(&self) -> Result<(), String> {
        let newest = self.clock.slot_map;
        for (number, slot) in self.slots.iter() {
            let owner = self.workers.get(&slot.worker);
            if owner.is_none_or(|owner| owner.removed || owner.facts.serves.is_empty()) {
                return Err(format!(
                    "slot {number} is of worker {}, which answers for none",
                    slot.worker
                ));
            }
            if slot.since > slot.owner_epoch || slot.owner_epoch > newest || slot.floor_epoch > self.clock.sweep_epoch {
                return Err(format!("slot {number} has epochs that no entry gave: {slot:?}"));
            }
        }
        Ok(())
    }
}
