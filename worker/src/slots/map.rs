//! Who answers for which share of the chunk ids, as the log says: a value.

use std::collections::BTreeSet;

use tresor_proto::ids::WorkerId;
use tresor_proto::v1;
use tresor_storage::ids::{ChunkId, SessionId};
use tresor_storage::index::slot::{SLOTS, slot_of};

use crate::agent::port::Life;

/// Owners of a map: more workers than this are in no cluster.
const OWNERS_MAX: usize = 1 << 16;
/// Open sessions that a map may name: several for each permit of each worker.
const SESSIONS_MAX: usize = 1 << 20;

/// Why a map cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("slot map is malformed: {why}")]
pub struct MapError {
    why: String,
}

fn malformed(why: impl Into<String>) -> MapError {
    MapError { why: why.into() }
}

/// A worker that has slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotOwner {
    /// Which.
    pub worker: WorkerId,
    /// For people.
    pub name: String,
    /// `host:port` at which it answers.
    pub serves: String,
    /// The life that they were granted to.
    pub life: Life,
}

/// The right to answer for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whose, as an index of [`SlotMap::owners`].
    pub owner: usize,
    /// The log index of the grant. Requests name it.
    pub epoch: u64,
    /// What was touched below it is not known.
    pub floor: u64,
    /// Since which grant the owner has had it without a break.
    pub since: u64,
}

/// The map at one index of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    /// The newest grant.
    pub version: u64,
    /// Where it was read: sessions with a lower number are over unless they are in `open`.
    pub applied: u64,
    /// All open sessions.
    pub open: BTreeSet<SessionId>,
    /// The sweep in which sessions start now.
    pub sweep_epoch: u64,
    /// All owners.
    pub owners: Vec<SlotOwner>,
    grants: Vec<Option<Grant>>,
}

impl SlotMap {
    /// Of a cluster in which nobody answers for slots.
    pub fn empty() -> Self {
        Self {
            version: 0,
            applied: 0,
            open: BTreeSet::new(),
            sweep_epoch: 0,
            owners: Vec::new(),
            grants: vec![None; usize::from(SLOTS)],
        }
    }

    /// Reads what a coordinator sent.
    ///
    /// # Errors
    /// [`MapError`].
    pub fn read(message: v1::SlotMap) -> Result<Self, MapError> {
        if message.owners.len() > OWNERS_MAX || message.open_sessions.len() > SESSIONS_MAX {
            return Err(malformed("it has too many owners or sessions"));
        }
        let owner = |owner: v1::SlotOwner| {
            let life = owner.life.as_ref().try_into().map_err(|_| malformed("a life"))?;
            Ok(SlotOwner {
                worker: WorkerId(owner.worker),
                name: owner.name,
                serves: owner.serves,
                life: Life(life),
            })
        };
        let owners: Vec<SlotOwner> = message.owners.into_iter().map(owner).collect::<Result<_, _>>()?;
        let mut grants = vec![None; usize::from(SLOTS)];
        let mut next = 0;
        for run in message.runs {
            let (first, count, owner) = (run.first as usize, run.count as usize, run.owner as usize);
            if first < next || count == 0 || first + count > grants.len() || owner >= owners.len() {
                return Err(malformed(format!("a run of {count} slots at {first} of owner {owner}")));
            }
            if run.owner_epoch == 0 || run.since == 0 || run.since > run.owner_epoch {
                return Err(malformed(format!("a grant at {} since {}", run.owner_epoch, run.since)));
            }
            grants[first..first + count].fill(Some(Grant {
                owner,
                epoch: run.owner_epoch,
                floor: run.floor_epoch,
                since: run.since,
            }));
            next = first + count;
        }
        Ok(Self {
            version: message.version,
            applied: message.applied,
            open: message.open_sessions.into_iter().map(SessionId).collect(),
            sweep_epoch: message.sweep_epoch,
            owners,
            grants,
        })
    }

    /// Whether nobody has a slot: then every worker keeps an index of its own.
    pub fn is_empty(&self) -> bool {
        self.grants.iter().all(Option::is_none)
    }

    /// The grant of a slot, if it is anybody's.
    /// Whether a session is open, or was opened after this map was read.
    pub fn admits(&self, session: SessionId) -> bool {
        session.0 > self.applied || self.open.contains(&session)
    }

    /// Who has a slot.
    pub fn grant(&self, slot: u16) -> Option<Grant> {
        self.grants.get(usize::from(slot)).copied().flatten()
    }

    /// The grant under which `id` is answered for.
    pub fn grant_of(&self, id: &ChunkId) -> Option<Grant> {
        self.grant(slot_of(id))
    }

    /// What a worker has in this life.
    pub fn of(&self, worker: WorkerId, life: Life) -> impl Iterator<Item = (u16, Grant)> {
        let owner = self
            .owners
            .iter()
            .position(|owner| owner.worker == worker && owner.life == life);
        (0..SLOTS).filter_map(move |slot| {
            let grant = self.grant(slot)?;
            (Some(grant.owner) == owner).then_some((slot, grant))
        })
    }

    /// Who lists what a vault has, for all owners that were granted something with `wave`: the first of them.
    pub fn lister(&self, wave: u64) -> Option<&SlotOwner> {
        let of_wave = self.grants.iter().flatten().filter(|grant| grant.since == wave);
        of_wave
            .map(|grant| &self.owners[grant.owner])
            .min_by_key(|owner| owner.worker)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn owner(worker: u64, serves: &str) -> v1::SlotOwner {
        v1::SlotOwner {
            worker,
            name: format!("w{worker}"),
            serves: serves.to_owned(),
            life: vec![u8::try_from(worker).unwrap(); 16].into(),
        }
    }

    pub(crate) fn run(first: u32, count: u32, owner: u32, owner_epoch: u64) -> v1::SlotRun {
        v1::SlotRun {
            first,
            count,
            owner,
            owner_epoch,
            floor_epoch: 0,
            since: owner_epoch,
        }
    }

    pub(crate) fn message(owners: Vec<v1::SlotOwner>, runs: Vec<v1::SlotRun>) -> v1::SlotMap {
        let version = runs.iter().map(|run| run.owner_epoch).max().unwrap_or(0);
        v1::SlotMap {
            version,
            applied: version,
            open_sessions: Vec::new(),
            sweep_epoch: 0,
            owners,
            runs,
        }
    }

    #[test]
    fn every_slot_has_the_owner_of_its_run() {
        let map = SlotMap::read(message(
            vec![owner(1, "a:1"), owner(2, "b:1")],
            vec![run(0, 10, 0, 5), run(20, 4076, 1, 6)],
        ))
        .unwrap();
        assert_eq!(map.grant(0).unwrap().owner, 0);
        assert_eq!(map.grant(9).unwrap().epoch, 5);
        assert_eq!(map.grant(10), None);
        assert_eq!(map.grant(4095).unwrap().owner, 1);
        let mine: Vec<u16> = map.of(WorkerId(1), Life([1; 16])).map(|(slot, _)| slot).collect();
        assert_eq!(mine, (0..10).collect::<Vec<_>>());
        assert_eq!(map.of(WorkerId(1), Life([2; 16])).count(), 0, "of another life");
    }

    #[test]
    fn the_first_of_those_that_begin_afresh_lists() {
        let kept = v1::SlotRun {
            since: 5,
            ..run(0, 1, 0, 9)
        };
        let map = SlotMap::read(message(
            vec![owner(1, "a:1"), owner(3, "c:1"), owner(2, "b:1")],
            vec![kept, run(1, 1, 1, 9), run(2, 1, 2, 9)],
        ))
        .unwrap();
        assert_eq!(map.lister(9).unwrap().worker, WorkerId(2), "worker 1 keeps what it has");
        assert_eq!(map.lister(5).unwrap().worker, WorkerId(1));
        assert_eq!(map.lister(7), None);
    }

    #[test]
    fn a_malformed_map_is_refused() {
        let good = || vec![owner(1, "a:1")];
        for runs in [
            vec![run(0, 0, 0, 5)],
            vec![run(0, 4097, 0, 5)],
            vec![run(5, 2, 0, 5), run(6, 1, 0, 5)],
            vec![run(0, 1, 1, 5)],
            vec![run(0, 1, 0, 0)],
            vec![v1::SlotRun {
                since: 9,
                ..run(0, 1, 0, 5)
            }],
        ] {
            assert!(SlotMap::read(message(good(), runs.clone())).is_err(), "{runs:?}");
        }
        let short = v1::SlotOwner {
            life: vec![1].into(),
            ..owner(1, "a:1")
        };
        assert!(SlotMap::read(message(vec![short], Vec::new())).is_err());
    }
}
