//! The map of the index's slots as workers are told of it.

use std::collections::BTreeMap;

use tresor_proto::ids::WorkerId;
use tresor_proto::v1;

use crate::state::State;
use crate::state::rows::Slot;

/// The map, and the sessions that are open: both of one moment of the log. Neighbours that were granted together are one run.
pub(super) fn message(state: &State) -> v1::SlotMap {
    let mut owners: Vec<v1::SlotOwner> = Vec::new();
    let mut numbers: BTreeMap<(WorkerId, [u8; 16]), u32> = BTreeMap::new();
    let mut runs: Vec<v1::SlotRun> = Vec::new();
    let mut before: Option<(u16, Slot)> = None;
    for (number, slot) in state.slots().iter() {
        let goes_on = before.is_some_and(|(last, of)| last + 1 == *number && of == *slot);
        before = Some((*number, *slot));
        if let (true, Some(run)) = (goes_on, runs.last_mut()) {
            run.count += 1;
            continue;
        }
        let owner = *numbers.entry((slot.worker, slot.life)).or_insert_with(|| {
            let row = state.workers().get(&slot.worker);
            owners.push(v1::SlotOwner {
                worker: slot.worker.0,
                name: row.map(|row| row.name.clone()).unwrap_or_default(),
                serves: row.map(|row| row.facts.serves.clone()).unwrap_or_default(),
                life: slot.life.to_vec().into(),
            });
            u32::try_from(owners.len() - 1).expect("no more owners than slots")
        });
        runs.push(v1::SlotRun {
            first: u32::from(*number),
            count: 1,
            owner,
            owner_epoch: slot.owner_epoch,
            floor_epoch: slot.floor_epoch,
            since: slot.since,
        });
    }
    let marks = state.marks();
    v1::SlotMap {
        version: marks.slot_map,
        applied: marks.applied,
        open_sessions: state.sessions().iter().map(|(id, _)| id.0).collect(),
        sweep_epoch: marks.sweep_epoch,
        owners,
        runs,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::state::command::Command;
    use crate::testing::{Acts as _, MAIN, Story, serves};

    #[test]
    fn neighbours_that_were_granted_together_are_one_run() {
        let mut story = Story::new();
        let (a, b) = (serves(&mut story, "a"), serves(&mut story, "b"));
        let mut grant = |grants: Vec<(u16, WorkerId)>| {
            let seen = story.state.marks().slot_map;
            story.makes(Command::GrantSlots { seen, grants })
        };
        let first = grant(
            (0..100)
                .map(|slot| (slot, a))
                .chain((100..4096).map(|slot| (slot, b)))
                .collect(),
        );
        let second = grant(vec![(5, a), (4095, a)]);
        let item = story.protect("web", None);
        let job = story.queues(item, MAIN);
        let (_, session) = story.leases(job, story.worker);
        let map = message(&story.state);
        let runs: Vec<_> = map
            .runs
            .iter()
            .map(|run| (run.first, run.count, run.owner, run.owner_epoch))
            .collect();
        let expected = [
            (0, 5, 0, first),
            (5, 1, 0, second),
            (6, 94, 0, first),
            (100, 3995, 1, first),
            (4095, 1, 0, second),
        ];
        assert_eq!(runs, expected);
        assert_eq!((map.version, map.applied), (second, story.state.marks().applied));
        assert_eq!(map.open_sessions, [session.0]);
        let names: Vec<_> = map
            .owners
            .iter()
            .map(|owner| (owner.name.as_str(), owner.serves.as_str()))
            .collect();
        assert_eq!(names, [("a", "a:7430"), ("b", "b:7430")]);
    }

    #[test]
    fn two_lives_of_a_worker_are_two_owners() {
        let mut story = Story::new();
        let a = serves(&mut story, "a");
        story.makes(Command::GrantSlots {
            seen: 0,
            grants: vec![(1, a), (2, a)],
        });
        let seen = story.state.marks().slot_map;
        let facts = story.state.workers().get(&a).unwrap().facts.clone();
        story.does(Command::Register {
            worker: a,
            life: [8; 16],
            facts,
            kept_life: Some(crate::testing::LIFE),
        });
        story.makes(Command::GrantSlots {
            seen,
            grants: vec![(2, a)],
        });
        let map = message(&story.state);
        assert_eq!(map.owners.len(), 2);
        assert_eq!((map.owners[1].life.as_ref(), map.runs[1].owner), (&[8; 16][..], 1));
        assert_eq!(
            (map.runs[1].owner_epoch, map.runs[1].since),
            (map.version, seen),
            "it has kept what it had"
        );
    }
}
