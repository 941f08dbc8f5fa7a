//! Slots of the index: who answers for which share of the chunk ids, and under which epoch.

use tresor_proto::ids::WorkerId;

use super::State;
use super::reply::{Refusal, Reply};
use super::rows::Slot;
use super::texts::check_batch;

/// Shares of the index, by the first twelve bits of an id.
pub const SLOTS: u16 = 4096;

impl State {
    pub(super) fn grant_slots(&mut self, index: u64, grants: &[(u16, WorkerId)]) -> Result<Reply, Refusal> {
        check_batch("grants", grants)?;
        for (slot, worker) in grants {
            if *slot >= SLOTS {
                return Err(Refusal::invalid("slot", format!("slots are 0 to {}", SLOTS - 1)));
            }
            let row = self.workers.get(worker).filter(|row| !row.removed);
            if row.and_then(|row| row.life).is_none() {
                return Err(Refusal::missing("worker", worker));
            }
        }
        for (slot, worker) in grants {
            let life = self.workers.get(worker).and_then(|row| row.life).unwrap_or_default();
            // ◆ Every grant is a new epoch, also to the same worker: an epoch belongs to one life of one process, and what was touched before it
            // is not known but for the floor.
            let row = Slot {
                worker: *worker,
                life,
                owner_epoch: index,
                floor_epoch: self.clock.sweep_epoch,
            };
            self.slots.insert(*slot, row);
        }
        if !grants.is_empty() {
            self.clock.slot_map = index;
        }
        Ok(Reply::Made(index))
    }

    /// ◆ Refuses a commit that rests on answers of an owner whose slot was granted anew since.
    pub(super) fn check_slots(&self, used: &[u8], slot_map: u64) -> Result<(), Refusal> {
        if used.len() > usize::from(SLOTS) / 8 {
            return Err(Refusal::invalid(
                "slots",
                format!("has a bit for each of {SLOTS} slots"),
            ));
        }
        for (byte, bits) in used.iter().enumerate() {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                let number = u16::try_from(byte * 8 + bit).expect("at most 4096");
                match self.slots.get(&number) {
                    Some(slot) if slot.owner_epoch <= slot_map => {}
                    _ => {
                        return Err(Refusal::fenced(format!(
                            "slot {number} of the index was moved: its ids are to be asked again"
                        )));
                    }
                }
            }
        }
        Ok(())
    }
}
