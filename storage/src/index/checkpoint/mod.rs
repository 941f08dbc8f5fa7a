//! Checkpoints of slots in the store, so that a new owner of a slot need not read the footers of all packs.
//!
//! A checkpoint is of one *group* of slots: objects in bounded pieces, sealed alone, put once. The last to be put is piece 0, the head; without it there is
//! no checkpoint. It has the entries of the slots that its name tells, as of one moment, and the set of packs of which all entries for these slots
//! are among them. It may be old, and older than another that is there: whoever rebuilds from it reads what packs it lacks, and takes no
//! entry of a pack that is not there or is dead. So no checkpoint is ever wrong, only more or less useful.
//!
//! What it does not carry: touches (the floor of a new grant covers them) and the sign that a sweep is about to remove an entry. A move starts
//! afresh, and that sign would outlive what may have contradicted it since: a lookup at the old owner after the checkpoint was written, which the new
//! owner's sweep could not know of. That an entry is *lost* it does carry: this only ever makes an index answer "new", or a pack stay, and an owner
//! who forgot it would send backups to damage that is known.
//!
//! [`CheckpointId`] and names are in `ids` and `vault::names`; `piece` is the codec, `read` and `write` are what use it.

mod piece;
mod read;
#[cfg(feature = "rocks")]
mod write;

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;

use super::slot::GROUP;
use crate::error::{Doing, Result};
use crate::ids::{CheckpointId, ClusterId};
use crate::vault::{Vault, names};

pub use piece::{Entries, Head, PackSet, Piece};
pub use read::CheckpointReader;
#[cfg(feature = "rocks")]
pub use write::{CheckpointWritten, write};

/// Newest checkpoints that are kept for every slot: one may be damaged, or be read by an owner that began before the newest was put.
pub const KEPT: usize = 2;
/// Packs by which a group must have grown since its last checkpoint before another one is worth writing: as many footers stand in one index
/// segment.
pub const GROWTH_MIN: u64 = crate::limits::SEGMENT_PACKS_MAX as u64;

/// What lies in the folder of a group.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Checkpoints that have a head, the newest first.
    pub whole: Vec<CheckpointId>,
    /// Pieces that lie there, by checkpoint, also of those without a head: interrupted, or being written or deleted.
    pub pieces: BTreeMap<CheckpointId, BTreeSet<u32>>,
    /// Names that no piece has.
    pub strange: Vec<String>,
}

impl Listed {
    fn of(listed: impl IntoIterator<Item = String>, group: u8) -> Self {
        let mut found = Self::default();
        for name in listed {
            match names::parse_checkpoint(&name) {
                Some((id, piece)) if id.group == group => {
                    found.pieces.entry(id).or_default().insert(piece);
                }
                _ => found.strange.push(name),
            }
        }
        let has_head = |(id, pieces): (&CheckpointId, &BTreeSet<u32>)| pieces.contains(&0).then_some(*id);
        found.whole = found.pieces.iter().filter_map(has_head).collect();
        found.whole.sort_unstable_by_key(|id| std::cmp::Reverse(age(id)));
        found
    }
}

fn age(id: &CheckpointId) -> (u64, u32, CheckpointId) {
    (id.writer.session.0, id.number, *id)
}

/// Lists the checkpoints of a group: one listing.
///
/// # Errors
/// Those of the store.
pub async fn list(vault: &Vault, group: u8) -> Result<Listed> {
    let listed = vault
        .backend
        .list(&names::checkpoints(group))
        .map_ok(|listed| listed.name);
    let listed: Vec<String> = listed
        .try_collect()
        .await
        .doing(|| format!("list checkpoints of slot group {group}"))?;
    Ok(Listed::of(listed, group))
}

/// The newest checkpoints of a group that a cluster wrote, the newest first.
///
/// # Errors
/// Those of the store.
pub async fn newest(vault: &Vault, group: u8, cluster: ClusterId) -> Result<Vec<CheckpointId>> {
    let listed = list(vault, group).await?;
    Ok(of_cluster(listed.whole, cluster).collect())
}

fn of_cluster(ids: Vec<CheckpointId>, cluster: ClusterId) -> impl Iterator<Item = CheckpointId> {
    ids.into_iter().filter(move |id| id.writer.cluster == cluster)
}

/// Which checkpoint to read for which slots of a group: for each slot the newest that has it. Slots that none has are left out.
///
/// `newest_first` as [`newest`] lists them.
pub fn plan_reads(newest_first: &[CheckpointId], slots: u64) -> Vec<(CheckpointId, u64)> {
    let mut left = slots;
    let mut plan = Vec::new();
    for id in newest_first {
        let here = id.slots & left;
        if here != 0 {
            plan.push((*id, here));
            left &= !here;
        }
    }
    plan
}

/// Checkpoints that may go: for each of their slots there are [`KEPT`] newer ones of the same cluster.
///
/// Of two owners of one group neither's are counted for the other's slots; so the last checkpoint that has a slot never goes.
pub fn plan_deletes(listed: &Listed) -> Vec<CheckpointId> {
    let is_superseded = |id: &CheckpointId| {
        (0..GROUP).filter(|slot| id.slots >> slot & 1 == 1).all(|slot| {
            let newer = listed.whole.iter().filter(|other| {
                other.writer.cluster == id.writer.cluster && other.slots >> slot & 1 == 1 && age(other) > age(id)
            });
            newer.take(KEPT).count() == KEPT
        })
    };
    listed.pieces.keys().filter(|id| is_superseded(id)).copied().collect()
}

/// Deletes the checkpoints of a group that are superseded, also what is left of interrupted ones. Answers how many.
///
/// # Errors
/// Those of the store; what was deleted by then is gone.
pub async fn prune(vault: &Vault, group: u8, cluster: ClusterId) -> Result<u64> {
    let listed = list(vault, group).await?;
    let mut deleted = 0;
    for id in of_cluster(plan_deletes(&listed), cluster) {
        // The head first: without it nobody begins to read the rest.
        for piece in listed.pieces.get(&id).into_iter().flatten() {
            let name = names::checkpoint(id, *piece);
            vault
                .backend
                .delete(&name)
                .await
                .doing(|| format!("delete checkpoint {name}"))?;
        }
        deleted += 1;
    }
    Ok(deleted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{PartId, SessionId, Writer};

    fn checkpoint() -> impl Strategy<Value = (CheckpointId, bool)> {
        let one = (1..3u64, 0..4u64, 0..2u64, 0..4u32, 1..16u64, any::<bool>());
        one.prop_map(|(cluster, session, part, number, slots, has_head)| {
            let writer = Writer {
                cluster: ClusterId(cluster),
                session: SessionId(session),
                part: PartId(part),
            };
            let id = CheckpointId {
                group: 5,
                writer,
                number,
                slots,
            };
            (id, has_head)
        })
    }

    fn listed(checkpoints: &BTreeMap<CheckpointId, bool>) -> Listed {
        let names = checkpoints.iter().flat_map(|(id, has_head)| {
            let head = has_head.then(|| names::checkpoint(*id, 0));
            head.into_iter().chain([names::checkpoint(*id, 1)])
        });
        Listed::of(names, 5)
    }

    proptest! {
        #[test]
        fn every_slot_is_read_from_the_newest_that_has_it(
            checkpoints in proptest::collection::btree_map(checkpoint(), Just(()), 0..20), slots in 0..16u64,
        ) {
            let checkpoints: BTreeMap<_, _> = checkpoints.into_keys().collect();
            let whole = listed(&checkpoints).whole;
            let plan = plan_reads(&whole, slots);
            for slot in (0..4).filter(|slot| slots >> slot & 1 == 1) {
                let of_slot = whole.iter().filter(|id| id.slots >> slot & 1 == 1);
                let newest = of_slot.max_by_key(|id| (id.writer.session, id.number)).map(|id| (id.writer.session, id.number));
                let planned: Vec<_> = plan.iter().filter(|(_, slots)| slots >> slot & 1 == 1).collect();
                prop_assert!(planned.len() <= 1);
                let planned = planned.first().map(|(id, _)| (id.writer.session, id.number));
                prop_assert_eq!(planned, newest, "slot {}", slot);
            }
            prop_assert!(plan.iter().all(|(id, some)| *some != 0 && some & !(id.slots & slots) == 0));
        }

        #[test]
        fn the_newest_two_of_every_slot_and_cluster_stay(
            checkpoints in proptest::collection::btree_map(checkpoint(), Just(()), 0..30),
        ) {
            let checkpoints: BTreeMap<_, _> = checkpoints.into_keys().collect();
            let listed = listed(&checkpoints);
            let deleted: BTreeSet<_> = plan_deletes(&listed).into_iter().collect();
            for cluster in 1..3 {
                for slot in 0..4 {
                    let has = |id: &&CheckpointId| id.writer.cluster == ClusterId(cluster) && id.slots >> slot & 1 == 1;
                    for kept in listed.whole.iter().filter(has).take(KEPT) {
                        prop_assert!(!deleted.contains(kept), "{kept} of slot {slot}");
                    }
                }
            }
            for id in &deleted {
                for slot in (0..4).filter(|slot| id.slots >> slot & 1 == 1) {
                    let newer = listed.whole.iter().filter(|other| {
                        other.writer.cluster == id.writer.cluster && other.slots >> slot & 1 == 1 && age(other) > age(id)
                    });
                    prop_assert!(newer.count() >= KEPT);
                }
            }
        }
    }

    #[test]
    fn names_of_other_groups_are_strange_here() {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(1),
            part: PartId(1),
        };
        let id = CheckpointId {
            group: 6,
            writer,
            number: 0,
            slots: 1,
        };
        let found = Listed::of([names::checkpoint(id, 0), "slots/05/x".into()], 5);
        assert_eq!((found.whole.len(), found.strange.len()), (0, 2));
    }
}
