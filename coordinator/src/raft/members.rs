//! Changes of the membership: which are allowed, how they stand in the log, and what they make of it. Pure.

use std::collections::BTreeSet;

use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use serde::{Deserialize, Serialize};
use tresor_proto::ids::MemberId;

use super::limits::NUMBER_MAX;
use crate::store::{ADDRESS_BYTES_MAX, MEMBERS_MAX, Member, Membership, plain};

/// A change of the membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a member, with a number greater than any given before. It listens first, and votes as soon as it has caught up.
    Add {
        /// Its number.
        id: MemberId,
        /// Where the others reach it.
        address: Vec<u8>,
    },
    /// Adds a member that only listens.
    AddLearner {
        /// Its number.
        id: MemberId,
        /// Where the others reach it.
        address: Vec<u8>,
    },
    /// Lets a member vote that listened so far.
    Promote {
        /// Which.
        id: MemberId,
    },
    /// Removes a member for good.
    Remove {
        /// Which.
        id: MemberId,
    },
    /// Lets one vote that listened so far, and removes another, at once (joint consensus): at no time are there fewer voters.
    Replace {
        /// Who goes.
        leaving: MemberId,
        /// Who votes from now on.
        joining: MemberId,
    },
    /// Notes that a member is reached elsewhere.
    Move {
        /// Which.
        id: MemberId,
        /// Where the others reach it from now on.
        address: Vec<u8>,
    },
}

/// Why the members do not allow a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// Another one is under way.
    #[error("another change of the membership is under way")]
    Busy,
    /// The number was given before, and numbers are never given twice.
    #[error("the number {id} was given to a member before; the next one is {next}")]
    NumberUsed {
        /// The number.
        id: MemberId,
        /// The smallest that is free.
        next: MemberId,
    },
    /// No number.
    #[error("{id} is no number of a member")]
    NoNumber {
        /// What was asked for.
        id: MemberId,
    },
    /// There is no such member.
    #[error("there is no member {id}")]
    NoMember {
        /// What was asked for.
        id: MemberId,
    },
    /// It votes already.
    #[error("member {id} votes already")]
    Votes {
        /// Which.
        id: MemberId,
    },
    /// Nobody would be left to decide.
    #[error("member {id} is the last one that votes")]
    LastVoter {
        /// Which.
        id: MemberId,
    },
    /// There are as many as there may be.
    #[error("there are {MEMBERS_MAX} members, and no more are allowed")]
    TooMany,
    /// The address is too long.
    #[error("the address has {bytes} bytes, {ADDRESS_BYTES_MAX} are allowed")]
    Address {
        /// Its length.
        bytes: usize,
    },
}

/// What the log says beside the change itself.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Context {
    members: Vec<(MemberId, Member)>,
}

fn single(kind: ConfChangeType, id: MemberId) -> ConfChangeSingle {
    raft::eraftpb::ConfChangeSingle {
        change_type: kind,
        node_id: id.0,
        ..Default::default()
    }
}

/// What the log is to say for a change. Ids are checked against the members as they are now; the log refuses again what has changed until then.
pub(super) fn plan(change: &Change, now: &Membership) -> Result<ConfChangeV2, NotAllowed> {
    if now.is_joint() {
        return Err(NotAllowed::Busy);
    }
    let (changes, members) = match change {
        Change::Add { id, address } | Change::AddLearner { id, address } => {
            check_new(*id, now)?;
            let member = Member {
                address: checked(address)?,
                to_vote: matches!(change, Change::Add { .. }),
            };
            (vec![single(ConfChangeType::AddLearnerNode, *id)], vec![(*id, member)])
        }
        Change::Promote { id } => {
            let member = check_learner(*id, now)?;
            (vec![single(ConfChangeType::AddNode, *id)], vec![(*id, member)])
        }
        Change::Remove { id } => {
            existing(*id, now)?;
            if now.voters.iter().eq([id]) {
                return Err(NotAllowed::LastVoter { id: *id });
            }
            (vec![single(ConfChangeType::RemoveNode, *id)], vec![])
        }
        Change::Replace { leaving, joining } => {
            let member = check_learner(*joining, now)?;
            existing(*leaving, now)?;
            if leaving == joining {
                return Err(NotAllowed::NoMember { id: *joining });
            }
            let changes = vec![
                single(ConfChangeType::AddNode, *joining),
                single(ConfChangeType::RemoveNode, *leaving),
            ];
            (changes, vec![(*joining, member)])
        }
        Change::Move { id, address } => {
            let member = Member {
                address: checked(address)?,
                ..existing(*id, now)?.clone()
            };
            // Becoming what it is changes nothing but its address.
            let kind = if now.voters.contains(id) {
                ConfChangeType::AddNode
            } else {
                ConfChangeType::AddLearnerNode
            };
            (vec![single(kind, *id)], vec![(*id, member)])
        }
    };
    let context = postcard::to_stdvec(&Context { members }).expect("plain values in memory can be encoded");
    Ok(ConfChangeV2 {
        // One change is made at once, more than one by joint consensus, which the leader leaves by itself.
        transition: ConfChangeTransition::Auto,
        changes: changes.into(),
        context: context.into(),
        ..Default::default()
    })
}

/// What the log says to leave joint consensus.
pub(super) fn leave() -> ConfChangeV2 {
    ConfChangeV2::default()
}

fn check_new(id: MemberId, now: &Membership) -> Result<(), NotAllowed> {
    if id.0 == 0 || id.0 >= NUMBER_MAX {
        return Err(NotAllowed::NoNumber { id });
    }
    if id <= now.last_id {
        let next = MemberId(now.last_id.0 + 1);
        return Err(NotAllowed::NumberUsed { id, next });
    }
    if now.members.len() >= MEMBERS_MAX {
        return Err(NotAllowed::TooMany);
    }
    Ok(())
}

fn checked(address: &[u8]) -> Result<Vec<u8>, NotAllowed> {
    let bytes = address.len();
    if bytes > ADDRESS_BYTES_MAX {
        return Err(NotAllowed::Address { bytes });
    }
    Ok(address.to_vec())
}

fn existing(id: MemberId, now: &Membership) -> Result<&Member, NotAllowed> {
    let member = now.members.get(&id).filter(|_| now.contains(id));
    member.ok_or(NotAllowed::NoMember { id })
}

fn check_learner(id: MemberId, now: &Membership) -> Result<Member, NotAllowed> {
    let member = existing(id, now)?;
    if now.voters.contains(&id) {
        return Err(NotAllowed::Votes { id });
    }
    Ok(Member {
        to_vote: true,
        ..member.clone()
    })
}

/// Whether the voters of a change are others than now, and which.
pub(super) fn voters_after(change: &Change, now: &Membership) -> Option<BTreeSet<MemberId>> {
    let mut voters = now.voters.clone();
    match change {
        Change::Promote { id } => {
            voters.insert(*id);
        }
        Change::Remove { id } => {
            voters.remove(id);
        }
        Change::Replace { leaving, joining } => {
            voters.remove(leaving);
            voters.insert(*joining);
        }
        Change::Add { .. } | Change::AddLearner { .. } | Change::Move { .. } => {}
    }
    (voters != now.voters).then_some(voters)
}

/// A change as the log says it.
pub(super) struct Logged {
    /// For raft-rs.
    pub(super) change: ConfChangeV2,
    context: Context,
}

/// Reads a change from the log.
///
/// # Errors
/// What cannot be understood.
pub(super) fn read(data: &[u8]) -> Result<Logged, &'static str> {
    let change = ConfChangeV2::parse_from_bytes(data).map_err(|_| "it is no change of the membership")?;
    let context = match change.context.is_empty() {
        // The leader leaves joint consensus without a word.
        true => Context::default(),
        false => plain(&change.context)?,
    };
    Ok(Logged { change, context })
}

impl Logged {
    /// Whether the members allow it when its turn comes. Every member comes to the same answer.
    pub(super) fn is_allowed(&self, now: &Membership) -> bool {
        let adds = |change: &&ConfChangeSingle| change.get_change_type() != ConfChangeType::RemoveNode;
        let added: BTreeSet<MemberId> = self
            .change
            .changes
            .iter()
            .filter(adds)
            .map(|c| MemberId(c.node_id))
            .collect();
        let new: Vec<MemberId> = added.iter().copied().filter(|id| !now.contains(*id)).collect();
        // Two leaders may have planned to add the same number, or one that was removed in between.
        let are_free = new.iter().all(|id| *id > now.last_id && id.0 < NUMBER_MAX);
        let are_known = new
            .iter()
            .all(|id| self.context.members.iter().any(|(member, _)| member == id));
        let fit = new.len() + now.members.len() <= MEMBERS_MAX
            && self
                .context
                .members
                .iter()
                .all(|(_, member)| member.address.len() <= ADDRESS_BYTES_MAX);
        are_free && are_known && fit
    }

    /// The membership after it, when raft-rs has made `conf` of it.
    pub(super) fn apply(self, before: &Membership, conf: &ConfState) -> Membership {
        let mut after = with_conf(before.clone(), conf);
        for (id, member) in self.context.members {
            after.members.insert(id, member);
        }
        let ids = after.ids();
        after.members.retain(|id, _| ids.contains(id));
        after.last_id = ids.last().map_or(after.last_id, |last| after.last_id.max(*last));
        after
    }
}

fn ids(numbers: &[u64]) -> BTreeSet<MemberId> {
    numbers.iter().copied().map(MemberId).collect()
}

fn numbers(ids: &BTreeSet<MemberId>) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

fn with_conf(membership: Membership, conf: &ConfState) -> Membership {
    Membership {
        voters: ids(&conf.voters),
        outgoing: ids(&conf.voters_outgoing),
        learners: ids(&conf.learners),
        learners_next: ids(&conf.learners_next),
        auto_leave: conf.auto_leave,
        ..membership
    }
}

/// As raft-rs wants it.
pub(super) fn conf_state(membership: &Membership) -> ConfState {
    ConfState {
        voters: numbers(&membership.voters),
        voters_outgoing: numbers(&membership.outgoing),
        learners: numbers(&membership.learners),
        learners_next: numbers(&membership.learners_next),
        auto_leave: membership.auto_leave,
        ..Default::default()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn now() -> Membership {
        let mut membership = Membership::founding((1..=3).map(|id| (MemberId(id), vec![])));
        membership.voters.remove(&MemberId(3));
        membership.learners.insert(MemberId(3));
        membership.last_id = MemberId(5);
        membership
    }

    fn id(id: u64) -> MemberId {
        MemberId(id)
    }

    #[test]
    fn numbers_are_never_given_twice() {
        let add = |number| {
            let change = Change::Add {
                id: id(number),
                address: vec![],
            };
            plan(&change, &now()).map(drop)
        };
        for used in [1, 3, 4, 5] {
            let error = NotAllowed::NumberUsed {
                id: id(used),
                next: id(6),
            };
            assert_eq!(add(used), Err(error));
        }
        assert_eq!(add(6), Ok(()));
        assert_eq!(add(9), Ok(()));
        assert_eq!(add(0), Err(NotAllowed::NoNumber { id: id(0) }));
        assert_eq!(add(NUMBER_MAX), Err(NotAllowed::NoNumber { id: id(NUMBER_MAX) }));
    }

    #[test]
    fn only_what_makes_sense_is_planned() {
        let refused = |change: Change| plan(&change, &now()).map(drop).unwrap_err();
        assert_eq!(refused(Change::Promote { id: id(1) }), NotAllowed::Votes { id: id(1) });
        assert_eq!(
            refused(Change::Promote { id: id(4) }),
            NotAllowed::NoMember { id: id(4) }
        );
        assert_eq!(
            refused(Change::Remove { id: id(9) }),
            NotAllowed::NoMember { id: id(9) }
        );
        let replace = |leaving, joining| Change::Replace {
            leaving: id(leaving),
            joining: id(joining),
        };
        assert_eq!(refused(replace(1, 2)), NotAllowed::Votes { id: id(2) });
        assert_eq!(refused(replace(3, 3)), NotAllowed::NoMember { id: id(3) });
        assert_eq!(plan(&replace(1, 3), &now()).unwrap().enter_joint(), Some(true));
        let alone = Membership::founding([(id(1), vec![])]);
        let last = plan(&Change::Remove { id: id(1) }, &alone);
        assert_eq!(last.map(drop), Err(NotAllowed::LastVoter { id: id(1) }));
        let long = Change::Move {
            id: id(1),
            address: vec![0; ADDRESS_BYTES_MAX + 1],
        };
        assert!(matches!(refused(long), NotAllowed::Address { .. }));
        let mut joint = now();
        joint.outgoing = joint.voters.clone();
        assert_eq!(
            plan(&Change::Remove { id: id(2) }, &joint).map(drop),
            Err(NotAllowed::Busy)
        );
    }

    #[test]
    fn addresses_follow_the_members() {
        let before = now();
        let add = Change::Add {
            id: id(7),
            address: b"seven".to_vec(),
        };
        let logged = read(&plan(&add, &before).unwrap().write_to_bytes().unwrap()).unwrap();
        assert!(logged.is_allowed(&before));
        let mut conf = conf_state(&before);
        conf.learners.push(7);
        let after = logged.apply(&before, &conf);
        assert_eq!(after.members[&id(7)].address, b"seven");
        assert!(after.members[&id(7)].to_vote);
        assert_eq!((after.last_id, after.check()), (id(7), Ok(())));
        // The same again, by another leader that did not know.
        let logged = read(&plan(&add, &before).unwrap().write_to_bytes().unwrap()).unwrap();
        let mut removed = after.clone();
        removed.learners.remove(&id(7));
        removed.members.remove(&id(7));
        assert!(!logged.is_allowed(&removed));
        // Gone with its address.
        let remove = plan(&Change::Remove { id: id(7) }, &after).unwrap();
        let logged = read(&remove.write_to_bytes().unwrap()).unwrap();
        let last = logged.apply(&after, &conf_state(&removed));
        assert_eq!(last, removed);
        assert!(last.was_removed(id(7)));
        assert!(read(b"\xff\xff").is_err());
    }
}
