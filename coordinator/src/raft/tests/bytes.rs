//! What other members might send, and must not hurt.

use protobuf::Message as _;
use raft::eraftpb::{Entry, EntryType, Message, MessageType as Type};

use super::harness::{Few, config, id, stamp};
use crate::raft::simulation::Register;
use crate::raft::{Core, Refused, limits};
use crate::seeded::{Random, for_seeds};
use crate::store::memory::Memory;
use crate::store::{ENTRY_BYTES_MAX, Store};

fn follower() -> Few<Register, Memory> {
    let mut few = Few::founded([(); 3].map(|()| Memory::new()));
    few.elect(1);
    few
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index,
        term,
        data: vec![1, 2, 3, 4, 5, 6, 7, 8, 9].into(),
        ..Default::default()
    }
}

/// A message with two entries that member 2 takes.
fn append(few: &mut Few<Register, Memory>) -> Message {
    let status = few.core(2).status();
    let last = status.last_index;
    Message {
        msg_type: Type::MsgAppend,
        from: 1,
        to: 2,
        term: status.standing.term,
        log_term: status.standing.term,
        index: last,
        commit: last,
        entries: vec![
            entry(last + 1, status.standing.term),
            entry(last + 2, status.standing.term),
        ]
        .into(),
        ..Default::default()
    }
}

#[test]
fn what_no_member_sends_is_refused_before_raft_sees_it() {
    let mut few = follower();
    let good = append(&mut few);
    let last = good.index;
    type Break = fn(&mut Message);
    let breaks: [(&str, Break); 31] = [
        ("no sender", |m| m.from = 0),
        ("another sender", |m| m.from = 3),
        ("for somebody else", |m| m.to = 3),
        ("no term", |m| m.term = 0),
        ("a huge term", |m| m.term = u64::MAX),
        ("a huge index", |m| m.index = u64::MAX),
        ("a huge commit", |m| m.commit = limits::NUMBER_MAX),
        ("a huge hint", |m| m.reject_hint = u64::MAX),
        ("a priority", |m| m.priority = 1),
        ("an old priority", |m| m.deprecated_priority = 1),
        ("a request for a snapshot", |m| m.request_snapshot = 1),
        ("a long context", |m| m.context = vec![0; 65].into()),
        ("a snapshot", |m| {
            m.mut_snapshot();
        }),
        ("a hole", |m| m.entries[1].index += 1),
        ("not after its index", |m| m.index -= 1),
        ("terms that go back", |m| m.entries[1].term = 1),
        ("terms beyond its own", |m| m.entries[1].term += 1),
        ("after an entry without a term", |m| m.log_term = 0),
        ("a log beyond its term", |m| m.log_term += 1),
        ("an entry with a context", |m| m.entries[0].context = vec![1].into()),
        ("an entry of the old kind", |m| {
            m.entries[0].entry_type = EntryType::EntryConfChange;
        }),
        ("a large entry", |m| {
            m.entries[0].data = vec![0; ENTRY_BYTES_MAX + 1].into();
        }),
        ("an entry of a later version", |m| {
            m.entries[0].mut_unknown_fields().add_varint(99, 1);
        }),
        ("of a later version", |m| m.mut_unknown_fields().add_varint(99, 1)),
        ("a heartbeat with entries", |m| m.msg_type = Type::MsgHeartbeat),
        ("a read of nothing", |m| {
            m.msg_type = Type::MsgReadIndex;
            m.term = 0;
            m.entries.clear();
        }),
        ("a read of two", |m| {
            m.msg_type = Type::MsgReadIndex;
            m.term = 0;
        }),
        ("a read with a term", |m| {
            m.msg_type = Type::MsgReadIndex;
            m.entries.truncate(1);
        }),
        ("a call to be elected from a stranger", |m| {
            m.msg_type = Type::MsgTimeoutNow;
            m.entries.clear();
            m.term += 1;
        }),
        ("a proposal", |m| {
            m.msg_type = Type::MsgPropose;
            m.term = 0;
        }),
        ("a snapshot outside of its stream", |m| {
            m.msg_type = Type::MsgSnapshot;
            m.entries.clear();
        }),
    ];
    for (what, breaks) in breaks {
        let mut message = good.clone();
        breaks(&mut message);
        let bytes = message.write_to_bytes().unwrap();
        let refused = few.core(2).receive(id(1), &bytes);
        assert!(refused.is_err(), "{what}");
        assert!(
            !matches!(refused, Err(Refused::LogLost { .. } | Refused::Stopped { .. })),
            "{what}: {refused:?}"
        );
    }
    for local in [
        Type::MsgHup,
        Type::MsgBeat,
        Type::MsgUnreachable,
        Type::MsgSnapStatus,
        Type::MsgCheckQuorum,
        Type::MsgTransferLeader,
    ] {
        let mut message = good.clone();
        message.msg_type = local;
        message.entries.clear();
        let refused = few.core(2).receive(id(1), &message.write_to_bytes().unwrap());
        assert!(matches!(refused, Err(Refused::Malformed { .. })), "{local:?}");
    }
    let large = vec![0; limits::MESSAGE_BYTES_MAX + 1];
    assert!(matches!(
        few.core(2).receive(id(1), &large),
        Err(Refused::TooLarge { .. })
    ));
    assert!(matches!(
        few.core(2).receive(id(1), b"\xff\xff\xff"),
        Err(Refused::Malformed { .. })
    ));
    assert_eq!(few.core(2).status().last_index, last);
    few.core(2).receive(id(1), &good.write_to_bytes().unwrap()).unwrap();
    few.process(2);
    assert_eq!(few.core(2).status().last_index, last + 2);
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_is_refused() {
    let mut few = follower();
    let status = few.core(1).status();
    let acknowledge = |index| Message {
        msg_type: Type::MsgAppendResponse,
        from: 2,
        to: 1,
        term: status.standing.term,
        index,
        ..Default::default()
    };
    let past = acknowledge(status.last_index + 1).write_to_bytes().unwrap();
    assert!(matches!(
        few.core(1).receive(id(2), &past),
        Err(Refused::Malformed { .. })
    ));
    let known = acknowledge(status.last_index).write_to_bytes().unwrap();
    few.core(1).receive(id(2), &known).unwrap();
}

/// Messages that look right to whoever knows the numbers of the moment, and are lies.
fn invented(random: &mut Random, core: &Core<Register, Memory>) -> (u64, Message) {
    const KINDS: [Type; 11] = [
        Type::MsgAppend,
        Type::MsgAppendResponse,
        Type::MsgRequestVote,
        Type::MsgRequestVoteResponse,
        Type::MsgHeartbeat,
        Type::MsgHeartbeatResponse,
        Type::MsgTimeoutNow,
        Type::MsgReadIndex,
        Type::MsgReadIndexResp,
        Type::MsgRequestPreVote,
        Type::MsgRequestPreVoteResponse,
    ];
    let status = core.status();
    let near = |random: &mut Random, number: u64| (number + random.below(4)).saturating_sub(random.below(4));
    let from = [1, 3, 3, 9][random.place(4)];
    let kind = KINDS[random.place(KINDS.len())];
    let term = near(random, status.standing.term);
    let places = [status.last_index, status.commit];
    let [index, commit] = [(); 2].map(|()| {
        let place = places[random.place(2)];
        near(random, place)
    });
    let log_term = near(random, term).min(term);
    let mut entries = Vec::new();
    if matches!(kind, Type::MsgAppend | Type::MsgReadIndex | Type::MsgReadIndexResp) {
        for next in 1..=random.below(4) {
            let mut entry = entry(index + next, near(random, log_term));
            if random.one_in(6) {
                entry.entry_type = EntryType::EntryConfChangeV2;
                entry.data = vec![].into();
            }
            entries.push(entry);
        }
    }
    let message = Message {
        msg_type: kind,
        from,
        to: 2,
        term: if kind == Type::MsgReadIndex { 0 } else { term },
        log_term,
        index,
        entries: entries.into(),
        commit,
        commit_term: near(random, term),
        reject: random.one_in(3),
        reject_hint: near(random, status.last_index),
        context: match random.below(8) {
            0 => b"CampaignTransfer".to_vec().into(),
            1 => vec![0; 24].into(),
            _ => vec![].into(),
        },
        ..Default::default()
    };
    (from, message)
}

#[test]
fn lies_do_not_make_a_member_panic() {
    let mut taken = 0;
    for_seeds(0..300, |seed| {
        let mut random = Random::seeded(seed);
        let disk = Memory::new();
        let mut few = Few::<Register, _>::founded([Memory::new(), disk.clone(), Memory::new()]);
        few.elect(1);
        if random.one_in(2) {
            // Or what leads, or wants to.
            few.cut.insert(id(1));
            few.elect(2);
        }
        let mut core = few.members.remove(&id(2)).unwrap().core;
        for _ in 0..200 {
            let (from, message) = invented(&mut random, &core);
            let mut bytes = message.write_to_bytes().unwrap();
            if random.one_in(10) {
                let bit = random.place(bytes.len() * 8);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            taken += u64::from(core.receive(id(from), &bytes).is_ok());
            if random.one_in(4) {
                core.tick();
            }
            if random.one_in(8) {
                let _ = core.propose(vec![7; 9]);
                let _ = core.read_index(5);
            }
            if random.one_in(3) && core.process().is_err() {
                // Lies can break a member, as long as it says so.
                drop(core);
                let Ok(store) = Store::open(disk.clone(), stamp(2)) else {
                    return;
                };
                core = Core::open(config(), store).unwrap();
            }
        }
    });
    assert!(taken > 1000, "only {taken} messages were taken");
}
