//! Writing checkpoints: what this worker has of a vault's slots, put into its store now and then, so that another can take them over quickly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tresor_storage::Result;
use tresor_storage::ids::{ClusterId, PartId, SessionId, Writer};
use tresor_storage::index::checkpoint::{self, GROWTH_MIN};
use tresor_storage::index::slot::{SlotSet, groups_in};
use tresor_storage::vault::Vault;

use super::owner::OwnedVault;

/// How often to look whether there is enough that is new.
pub(super) const EVERY: Duration = Duration::from_secs(600);
/// A checkpoint is written again when the group grew by this share of what it had: each entry is written some ten times in all, however large it becomes.
const GROWTH_SHARE: u64 = 8;

/// The checkpoints of one vault that this process wrote, or found.
#[derive(Debug)]
pub(super) struct Checkpoints {
    cluster: ClusterId,
    part: PartId,
    number: u32,
    /// Packs that the newest checkpoint of a group has, as far as this process knows.
    packs: BTreeMap<u8, u64>,
}

/// Whether a group has grown enough since its last checkpoint.
fn is_due(last: u64, now: u64) -> bool {
    now.saturating_sub(last) >= GROWTH_MIN.max(last / GROWTH_SHARE)
}

impl Checkpoints {
    pub(super) fn new(cluster: ClusterId) -> Self {
        Self {
            cluster,
            part: PartId::random(),
            number: 0,
            packs: BTreeMap::new(),
        }
    }

    /// Writes what is due of `slots`, by the grants of `epoch` at the latest. Returns how many.
    pub(super) async fn write_due(
        &mut self,
        vault: &Arc<Vault>,
        owned: &OwnedVault,
        slots: &SlotSet,
        epoch: u64,
    ) -> Result<u64> {
        let rocks = owned.index().rocks();
        let complete = rocks.complete().intersection(slots);
        let mut written = 0;
        for group in groups_in(complete.groups()) {
            let ours = SlotSet::of_group(group, complete.group(group));
            let now = rocks.pack_count(&ours).await?;
            if now < GROWTH_MIN {
                continue;
            }
            let last = match self.packs.get(&group) {
                Some(last) => *last,
                None => {
                    // What another process wrote last is taken to be of this moment: it is superseded when there is more.
                    let newest = checkpoint::newest(vault, group, self.cluster).await?;
                    let covered = newest.iter().fold(0, |slots, id| slots | id.slots);
                    let last = if ours.group(group) & !covered == 0 { now } else { 0 };
                    *self.packs.entry(group).or_insert(last)
                }
            };
            if !is_due(last, now) {
                continue;
            }
            let writer = Writer {
                cluster: self.cluster,
                session: SessionId(epoch),
                part: self.part,
            };
            let number = self.number;
            self.number += 1;
            if checkpoint::write(vault, rocks, group, &ours, writer, number)
                .await?
                .is_some()
            {
                written += 1;
                self.packs.insert(group, now);
                checkpoint::prune(vault, group, self.cluster).await?;
            }
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_that_grew_little_is_not_written_again() {
        assert!(!is_due(0, GROWTH_MIN - 1));
        assert!(is_due(0, GROWTH_MIN));
        assert!(!is_due(1 << 20, (1 << 20) + GROWTH_MIN));
        assert!(is_due(1 << 20, (1 << 20) + (1 << 17)));
        assert!(!is_due(10, 5), "a group that shrank");
    }
}
