//! Single stories, moved by hand.

use std::collections::BTreeMap;

use super::harness::{Few, config, founding, id, stamp};
use crate::raft::simulation::Register;
use crate::raft::{
    Applied, Change, Core, CoreError, Machine, NotAllowed, NotChanged, NotProposed, NotTransferred, Outgoing, ReadLost,
    Refused, Role, SnapshotError,
};
use crate::store::faulty::{Faults, Faulty};
use crate::store::memory::{Loss, Memory};
use crate::store::rocks::Rocks;
use crate::store::{ENTRY_BYTES_MAX, Membership, PIECE_BYTES, Row, RowChange, Store, StoreError};

fn three() -> Few<Register, Memory> {
    Few::founded([(); 3].map(|()| Memory::new()))
}

fn command(number: u64) -> Vec<u8> {
    [&[number as u8][..], &number.to_le_bytes()].concat()
}

fn set(numbers: &[u64]) -> std::collections::BTreeSet<tresor_proto::ids::MemberId> {
    numbers.iter().copied().map(id).collect()
}

#[test]
fn a_core_may_go_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Core<Register, Rocks>>();
    is_send::<crate::raft::Output<u64, crate::store::rocks::RocksView>>();
}

#[test]
fn one_that_is_alone_leads_at_once_and_finds_its_state_again() {
    let disk = Memory::new();
    let mut few = Few::<Register, _>::founded([disk.clone()]);
    few.settle();
    assert!(few.core(1).standing().in_charge);
    let ticket = few.core(1).propose(command(1)).unwrap();
    let read = few.core(1).read_index(1).unwrap();
    few.settle();
    let place = &few.members[&id(1)];
    assert_eq!(place.applied[0].ticket, Some(ticket));
    assert_eq!(place.said.reads, [(read, Ok(place.applied[0].index))]);
    let term = place.core.standing().term;
    few.members.clear();
    disk.crash(Loss::Everything);
    few.start(Store::open(disk.clone(), stamp(1)).unwrap());
    let mut other = Register::default();
    other.apply(3, &command(1)).unwrap();
    // What it had applied was not synced; the entry was, and is applied again once it leads.
    few.settle();
    assert_eq!(few.core(1).machine(), &other);
    assert_eq!(few.core(1).standing().term, term + 1);
}

#[test]
fn a_proposal_is_answered_with_what_it_did_and_by_the_leader_alone() {
    let mut few = three();
    few.settle();
    assert_eq!(
        few.core(1).propose(command(1)),
        Err(NotProposed::NotLeader { leader: None })
    );
    few.elect(1);
    let tickets = [1, 2].map(|number| few.core(1).propose(command(number)).unwrap());
    few.settle();
    let applied = &few.members[&id(1)].applied;
    assert_eq!(
        applied.iter().map(|entry| entry.ticket).collect::<Vec<_>>(),
        tickets.map(Some)
    );
    assert_ne!(applied[0].reply, applied[1].reply);
    for number in [2, 3] {
        let same = &few.members[&id(number)].applied;
        assert!(same.iter().all(|entry| entry.ticket.is_none()));
        assert!(
            same.iter()
                .map(|e| (e.index, e.reply))
                .eq(applied.iter().map(|e| (e.index, e.reply)))
        );
    }
    let leader = Some(id(1));
    assert_eq!(few.core(2).propose(command(3)), Err(NotProposed::NotLeader { leader }));
    for bytes in [0, ENTRY_BYTES_MAX + 1] {
        assert_eq!(few.core(1).propose(vec![0; bytes]), Err(NotProposed::Size { bytes }));
    }
    while few.core(1).propose(command(4)).is_ok() {}
    assert_eq!(few.core(1).propose(command(4)), Err(NotProposed::Full));
    assert_eq!(few.core(1).status().proposals, 1024);
    few.settle();
    few.core(1).propose(command(5)).unwrap();
}

#[test]
fn a_leader_that_is_cut_off_serves_no_read_and_calls_its_proposals_unclear() {
    let mut few = three();
    few.elect(1);
    few.cut.insert(id(1));
    let lost = few.core(1).propose(command(1)).unwrap();
    few.settle();
    few.elect(2);
    assert_eq!(few.core(1).standing().role, Role::Leader);
    few.core(2).propose(command(2)).unwrap();
    few.settle();
    // It takes itself for the leader and has not noticed yet.
    let read = few.core(1).read_index(9).unwrap();
    few.tick(1, 8);
    assert_eq!(few.core(1).standing().role, Role::Leader);
    assert_eq!(few.said(1).reads, []);
    few.tick(1, 1);
    assert_eq!(few.said(1).reads, [(read, Err(ReadLost::Late))]);
    // Then it notices.
    few.tick(1, 11);
    assert_ne!(few.core(1).standing().role, Role::Leader);
    assert_eq!(few.said(1).unclear.len(), 1);
    assert_eq!(few.said(1).unclear[0].0, lost);
    // Back again it learns what happened, and forgets what it proposed.
    few.cut.clear();
    few.pass(4);
    let state = |few: &Few<Register, Memory>, number| format!("{:?}", few.members[&id(number)].core.machine());
    assert_eq!(state(&few, 1), state(&few, 2));
    assert_eq!(few.members[&id(1)].applied.len(), 1);
    let again = few.core(1).read_index(30).unwrap();
    few.pass(3);
    assert!(matches!(few.said(1).reads[..], [_, (ticket, Ok(_))] if ticket == again));
}

#[test]
fn a_read_on_any_member_sees_what_was_acknowledged_before() {
    let mut few = three();
    few.elect(1);
    few.core(1).propose(command(1)).unwrap();
    few.process(1);
    few.settle();
    let acknowledged = few.members[&id(1)].applied[0].index;
    for number in 1..=3 {
        let read = few.core(number).read_index(5).unwrap();
        few.settle();
        let reads = std::mem::take(&mut few.said(number).reads);
        assert!(matches!(reads[..], [(ticket, Ok(index))] if ticket == read && index >= acknowledged));
    }
    // With a majority gone nobody may read.
    few.cut.extend([id(2), id(3)]);
    for number in 1..=3 {
        few.core(number).read_index(3).unwrap();
    }
    few.pass(2);
    assert!((1..=3).all(|number| few.said(number).reads.is_empty()));
    few.pass(1);
    assert!((1..=3).all(|number| few.said(number).reads[0].1 == Err(ReadLost::Late)));
}

#[test]
fn a_question_that_raft_dropped_is_asked_again() {
    let mut few = three();
    few.settle();
    // Nobody leads yet.
    let read = few.core(3).read_index(100).unwrap();
    few.settle();
    few.elect(1);
    assert_eq!(few.said(3).reads, []);
    few.pass(4);
    assert!(matches!(few.said(3).reads[..], [(ticket, Ok(_))] if ticket == read));
}

#[test]
fn leadership_is_handed_over_and_nothing_proposed_meanwhile() {
    let mut few = three();
    few.elect(1);
    assert_eq!(few.core(2).hand_over(), Err(NotTransferred::NotLeader));
    assert_eq!(
        few.core(1).transfer_leader(id(7)),
        Err(NotTransferred::NoVoter { id: id(7) })
    );
    let to = few.core(1).hand_over().unwrap();
    assert_eq!(few.core(1).propose(command(1)), Err(NotProposed::HandingOver { to }));
    few.settle();
    assert_eq!(few.leader(), Some(to.0));
    assert!(few.core(to.0).standing().in_charge);
    let alone = &mut Few::<Register, _>::founded([Memory::new()]);
    alone.settle();
    assert_eq!(alone.core(1).hand_over(), Err(NotTransferred::Nobody));
}

#[test]
fn a_leader_does_not_remove_itself_but_hands_over() {
    let mut few = three();
    few.elect(1);
    let remove = Change::Remove { id: id(1) };
    let Err(NotChanged::HandsOver { to }) = few.core(1).propose_membership(&remove) else {
        panic!("the leader removes itself");
    };
    few.settle();
    few.change(to.0, &remove);
    let membership = few.core(to.0).membership().clone();
    assert_eq!(membership.voters, set(&[2, 3]));
    assert!(membership.was_removed(id(1)));
    // It heard so itself, and what it says is not listened to.
    assert!(few.core(1).membership().was_removed(id(1)));
    few.tick(1, 40);
    assert_eq!(few.leader(), Some(to.0));
    let refused = few.core(to.0).receive(id(1), &heartbeat_response(1, to.0, 1));
    assert_eq!(refused, Err(Refused::Removed { from: id(1) }));
}

fn heartbeat_response(from: u64, to: u64, term: u64) -> Vec<u8> {
    use protobuf::Message as _;
    let message = raft::eraftpb::Message {
        msg_type: raft::eraftpb::MessageType::MsgHeartbeatResponse,
        from,
        to,
        term,
        ..Default::default()
    };
    message.write_to_bytes().unwrap()
}

#[test]
fn who_finds_itself_removed_while_it_leads_steps_down_and_has_an_heir() {
    let mut few = three();
    few.elect(1);
    few.core(1).propose_membership(&Change::Remove { id: id(2) }).unwrap();
    few.process(1);
    for (from, message) in std::mem::take(&mut few.wire) {
        few.deliver(from, &message);
    }
    // All have the entry, and nobody knows that it is committed.
    few.process(2);
    few.process(3);
    few.wire.clear();
    few.core(3).tick();
    (0..10).for_each(|_| few.core(3).tick());
    few.tick(2, 16);
    // It led, learned by its own first entry that it is removed, and called the next one.
    assert!(few.core(2).membership().was_removed(id(2)));
    assert_eq!(few.core(2).standing().role, Role::Follower);
    let heir = few.leader().unwrap();
    assert_eq!(few.core(heir).standing().term, 4);
    assert_eq!(few.core(heir).membership().voters, set(&[1, 3]));
    few.core(heir).propose(command(1)).unwrap();
    few.settle();
    assert!([1, 3].iter().all(|number| few.members[&id(*number)].applied.len() == 1));
}

/// Adds a member that waits for a snapshot.
fn join(few: &mut Few<Register, Memory>, leader: u64, change: &Change) {
    let (Change::Add { id: new, .. } | Change::AddLearner { id: new, .. }) = *change else {
        panic!("{change:?}");
    };
    let joining = Membership::joining([(id(leader), vec![])]);
    few.start(Store::create(Memory::new(), stamp(new.0), joining).unwrap());
    few.change(leader, change);
}

fn add(number: u64) -> Change {
    Change::Add {
        id: id(number),
        address: vec![9],
    }
}

#[test]
fn a_new_member_listens_first_and_votes_when_it_has_caught_up() {
    let mut few = three();
    few.elect(1);
    few.core(1).propose(command(1)).unwrap();
    join(&mut few, 1, &add(4));
    assert_eq!(few.snapshots, 1);
    assert_eq!(few.core(1).membership().learners, set(&[4]));
    few.pass(1);
    let membership = few.core(4).membership().clone();
    assert_eq!((membership.voters, membership.learners), (set(&[1, 2, 3, 4]), set(&[])));
    assert_eq!(membership.members[&id(4)].address, [9]);
    assert_eq!(
        format!("{:?}", few.core(4).machine()),
        format!("{:?}", few.core(1).machine())
    );
    let compacted = few.core(4).store().compacted().index;
    assert_eq!(few.said(4).restored, Some(compacted));
    // One that shall only listen does so for ever.
    let change = Change::AddLearner {
        id: id(5),
        address: vec![],
    };
    join(&mut few, 1, &change);
    few.pass(20);
    assert_eq!(few.core(5).membership().learners, set(&[5]));
    few.change(1, &Change::Promote { id: id(5) });
    assert_eq!(few.core(5).membership().voters, set(&[1, 2, 3, 4, 5]));
    few.change(
        1,
        &Change::Move {
            id: id(5),
            address: b"elsewhere".to_vec(),
        },
    );
    assert_eq!(few.core(2).membership().members[&id(5)].address, b"elsewhere");
    let core = few.core(2);
    assert_eq!(core.store().membership(), core.membership());
}

#[test]
fn joint_consensus_is_left_also_when_its_leader_is_gone() {
    let mut few = three();
    few.elect(1);
    let change = Change::AddLearner {
        id: id(4),
        address: vec![],
    };
    join(&mut few, 1, &change);
    few.pass(1);
    let replace = Change::Replace {
        leaving: id(3),
        joining: id(4),
    };
    few.core(1).propose_membership(&replace).unwrap();
    while !few.core(2).membership().is_joint() {
        few.process(1);
        for (from, message) in std::mem::take(&mut few.wire) {
            few.deliver(from, &message);
        }
        for number in [2, 3, 4] {
            few.process(number);
        }
    }
    // What 1 says from here on, also that the change is done, is lost.
    few.cut.insert(id(1));
    few.wire.clear();
    few.elect(2);
    few.pass(2);
    let membership = few.core(2).membership().clone();
    assert_eq!(membership.voters, set(&[1, 2, 4]));
    assert!(!membership.is_joint() && membership.was_removed(id(3)));
    let votes = NotAllowed::Votes { id: id(4) };
    assert_eq!(few.core(2).propose_membership(&replace), Err(votes.into()));
}

#[test]
fn changes_that_would_stop_everything_are_refused() {
    let mut few = three();
    few.elect(1);
    let ticket = few.core(1).propose_membership(&add(4)).unwrap();
    let busy = NotChanged::NotAllowed(NotAllowed::Busy);
    assert_eq!(few.core(1).propose_membership(&add(5)), Err(busy));
    few.settle();
    let changes = std::mem::take(&mut few.said(1).changes);
    assert!(matches!(changes[..], [(changed, Ok(_))] if changed == ticket));
    // Nobody is there to receive its snapshot.
    few.pass(40);
    let behind = NotChanged::Behind { id: id(4) };
    assert_eq!(
        few.core(1).propose_membership(&Change::Promote { id: id(4) }),
        Err(behind)
    );
    few.cut.insert(id(3));
    few.pass(11);
    let remove = |number| Change::Remove { id: id(number) };
    assert_eq!(few.core(1).propose_membership(&remove(2)), Err(NotChanged::NoMajority));
    few.change(1, &remove(3));
    few.change(1, &remove(2));
    assert_eq!(
        few.core(1).propose_membership(&remove(1)),
        Err(NotAllowed::LastVoter { id: id(1) }.into())
    );
    let used = NotAllowed::NumberUsed { id: id(3), next: id(5) };
    assert_eq!(few.core(1).propose_membership(&add(3)), Err(used.into()));
    let accepted = few.core(1).propose_membership(&add(5)).unwrap();
    few.core(1).propose(command(1)).unwrap();
    few.settle();
    let applied = few.core(1).store().applied().index;
    assert_eq!(few.said(1).changes, [(accepted, Ok(applied - 1))]);
}

#[test]
fn an_entry_that_cannot_be_decoded_stops_every_member() {
    let mut few = three();
    few.elect(1);
    few.core(1).propose(b"what?".to_vec()).unwrap();
    few.process(1);
    for number in [2, 3] {
        for (from, message) in std::mem::take(&mut few.wire) {
            few.deliver(from, &message);
        }
        few.process(number);
    }
    let answers = std::mem::take(&mut few.wire);
    answers.iter().for_each(|(from, message)| few.deliver(*from, message));
    let applied = few.core(1).store().applied();
    let Err(CoreError::Entry { index, .. }) = few.core(1).process().map(drop) else {
        panic!("it goes on");
    };
    assert_eq!(index, applied.index + 1);
    // It is not skipped, also not after a restart.
    assert_eq!(few.core(1).store().applied(), applied);
    assert!(
        matches!(few.core(1).process().map(drop), Err(CoreError::Stopped { why }) if why.contains("could not decode"))
    );
    assert!(matches!(
        few.core(1).propose(command(1)),
        Err(NotProposed::Stopped { .. })
    ));
    assert!(few.core(1).read_index(1).is_err());
    let message = Outgoing {
        to: id(1),
        bytes: heartbeat_response(2, 1, 1),
    };
    assert!(matches!(
        few.core(1).receive(id(2), &message.bytes),
        Err(Refused::Stopped { .. })
    ));
}

#[test]
fn a_full_disk_stops_a_member_and_what_it_said_last_stays_true() {
    let disk = Memory::new();
    let faults = Faults::default();
    let mut few = Few::<Register, _>::founded([Faulty::new(disk.clone(), faults.clone())]);
    few.settle();
    few.core(1).propose(command(1)).unwrap();
    few.settle();
    faults.set_full(true);
    few.core(1).propose(command(2)).unwrap();
    let error = few.core(1).process().map(drop).unwrap_err();
    assert!(matches!(error, CoreError::Store(StoreError::Full { .. })), "{error:?}");
    let applied = few.members[&id(1)].applied[0].index;
    few.members.clear();
    disk.crash(Loss::Everything);
    faults.set_full(false);
    few.start(Store::open(Faulty::new(disk, Faults::default()), stamp(1)).unwrap());
    few.settle();
    assert!(few.core(1).store().applied().index >= applied);
    let mut other = Register::default();
    other.apply(applied, &command(1)).unwrap();
    assert_eq!(few.core(1).machine(), &other, "what was said is so, and nothing else");
}

#[test]
fn a_member_that_lost_what_it_acknowledged_stops() {
    let disks = [(); 3].map(|()| Memory::new());
    let mut few = Few::<Register, _>::founded(disks.clone());
    few.elect(1);
    let old = disks[1].fork();
    few.core(1).propose(command(1)).unwrap();
    few.settle();
    few.members.remove(&id(2));
    few.start(Store::open(old, stamp(2)).unwrap());
    few.core(1).tick();
    few.core(1).tick();
    few.process(1);
    let beats = std::mem::take(&mut few.wire);
    let beat = beats.iter().find(|(_, message)| message.to == id(2)).unwrap();
    let refused = few.core(2).receive(id(1), &beat.1.bytes);
    assert!(matches!(refused, Err(Refused::LogLost { .. })), "{refused:?}");
    assert!(matches!(few.core(2).process().map(drop), Err(CoreError::Stopped { why }) if why.contains("lost data")));
}

/// Rows as large as one likes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heap(BTreeMap<Vec<u8>, Vec<u8>>);

impl Machine for Heap {
    type Reply = ();
    type Error = std::convert::Infallible;

    fn apply(&mut self, _: u64, entry: &[u8]) -> Result<Applied<()>, Self::Error> {
        let (key, value) = entry.split_at(1);
        self.0.insert(key.to_vec(), value.to_vec());
        let row = RowChange {
            table: 7,
            key: key.to_vec(),
            value: Some(value.to_vec()),
        };
        Ok(Applied {
            reply: (),
            rows: vec![row],
        })
    }

    fn load(rows: &mut dyn Iterator<Item = Row>) -> Result<Self, Self::Error> {
        Ok(Self(rows.map(|row| (row.key, row.value)).collect()))
    }
}

#[test]
fn members_on_disks_join_by_snapshot_and_are_found_again() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut few = Few::<Heap, _>::founded([Rocks::create(folders[0].path()).unwrap()]);
    few.settle();
    for key in 0..40 {
        few.core(1).propose([&[key][..], &[key; 100 << 10]].concat()).unwrap();
        few.settle();
    }
    const { assert!(40 * (100 << 10) > 3 * PIECE_BYTES) };
    let joining = Membership::joining([(id(1), vec![1])]);
    few.start(Store::create(Rocks::create(folders[1].path()).unwrap(), stamp(2), joining).unwrap());
    few.change(1, &add(2));
    few.pass(1);
    assert_eq!(few.core(2).membership().voters, set(&[1, 2]));
    few.core(1).propose(b"xyz".to_vec()).unwrap();
    few.settle();
    few.pass(3);
    let expected = std::mem::take(&mut few.members).into_values().map(|place| {
        let store = place.core.store();
        (place.core.id(), store.applied(), place.core.machine().0.len())
    });
    let expected: Vec<_> = expected.collect();
    for (number, folder) in (1..).zip(&folders) {
        few.start(Store::open(Rocks::open(folder.path()).unwrap(), stamp(number)).unwrap());
    }
    for (member, applied, rows) in expected {
        let core = few.core(member.0);
        assert_eq!((core.store().applied(), core.machine().0.len()), (applied, rows));
        assert_eq!(rows, 41);
        assert_eq!(core.membership(), &founding_of_two());
    }
    few.elect(1);
}

fn founding_of_two() -> Membership {
    let mut membership = founding(2);
    membership.members.get_mut(&id(2)).unwrap().address = vec![9];
    membership
}

#[test]
fn a_snapshot_that_is_not_understood_is_not_taken() {
    // A leader whose rows a receiver's machine does not know.
    let mut leader = Few::<Heap, _>::founded([Memory::new()]);
    leader.settle();
    leader.core(1).propose(b"row".to_vec()).unwrap();
    leader.core(1).propose_membership(&add(2)).unwrap();
    leader.settle();
    let joining = Membership::joining([(id(1), vec![1])]);
    let store = Store::create(Memory::new(), stamp(2), joining).unwrap();
    let mut receiver = Core::<Register, _>::open(config(), store).unwrap();
    let leader = leader.core(1);
    let mut to_leader: Vec<Outgoing> = Vec::new();
    let sent = loop {
        leader.tick();
        for message in to_leader.drain(..) {
            leader.receive(id(2), &message.bytes).unwrap();
        }
        let mut output = leader.process().unwrap();
        if let Some(sent) = output.snapshots.pop() {
            break sent;
        }
        for message in output.messages {
            receiver.receive(id(1), &message.bytes).unwrap();
        }
        to_leader = receiver.process().unwrap().messages;
    };
    // Not among the messages, and not from somebody else.
    let refused = receiver.receive(id(1), &sent.header);
    assert!(matches!(refused, Err(Refused::Malformed { .. })), "{refused:?}");
    assert!(matches!(
        receiver.begin_snapshot(id(3), &sent.header),
        Err(SnapshotError::Refused(Refused::OtherSender { .. }))
    ));
    let name = receiver.begin_snapshot(id(1), &sent.header).unwrap();
    let mut snapshot = sent.snapshot;
    while let Some(piece) = snapshot.next_piece().unwrap() {
        receiver.snapshot_piece(name, &piece).unwrap();
    }
    let end = snapshot.end().unwrap();
    assert!(matches!(
        receiver.finish_snapshot(name, &end),
        Err(SnapshotError::Rows(_))
    ));
    assert!(matches!(
        receiver.finish_snapshot(name, &end),
        Err(SnapshotError::Unknown { .. })
    ));
    assert_eq!(receiver.process().unwrap().restored, None);
    assert_eq!(receiver.store().applied().index, 0);
    leader.report_snapshot(id(2), false);
    leader.process().unwrap();
}
