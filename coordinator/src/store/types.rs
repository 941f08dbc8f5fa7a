//! What is stored: entries, votes, positions, and who is a member.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tresor_proto::ids::MemberId;

/// Members of a cluster at one time, learners included. Five voters are plenty; the rest is room for replacing them.
pub const MEMBERS_MAX: usize = 16;
/// Longest address of a member: a host name has at most 253 bytes.
pub const ADDRESS_BYTES_MAX: usize = 512;

/// Whose a store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The member.
    pub node: MemberId,
    /// The cluster's identity, drawn when it was made.
    pub cluster: [u8; 16],
}

/// A place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Position {
    /// The entry's index; the first entry ever has 1, and 0 means none.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A command for the state machine, or empty: a new leader's first entry.
    Command,
    /// A change of the membership.
    Change,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its index.
    pub index: u64,
    /// The term of the leader that made it.
    pub term: u64,
    /// What it is about.
    pub kind: EntryKind,
    /// Its content.
    pub data: Bytes,
}

impl Entry {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position {
            index: self.index,
            term: self.term,
        }
    }
}

/// What a member must not forget: its term, its vote in it, and how far the log is known to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term seen.
    pub term: u64,
    /// Who got the vote in it; 0 for nobody.
    pub vote: u64,
    /// The last entry known to be committed.
    pub commit: u64,
}

/// A row of the state machine, changed or removed by an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The machine's own numbering of its tables, below 255.
    pub table: u8,
    /// The row's key.
    pub key: Vec<u8>,
    /// The row's content from now on; nothing removes it.
    pub value: Option<Vec<u8>>,
}

/// A row of the state machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The machine's own numbering of its tables.
    pub table: u8,
    /// The row's key.
    pub key: Vec<u8>,
    /// The row's content.
    pub value: Vec<u8>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where the others reach it, as it said when it joined.
    pub address: Vec<u8>,
    /// Whether it is to vote as soon as it has caught up.
    pub to_vote: bool,
}

/// Who decides, who listens, and where they are: a value that only the log changes.
///
/// While the set of voters is being changed by more than one, majorities of both `voters` and `outgoing` decide (joint consensus).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Membership {
    /// Who votes (from the change on, if one is under way).
    pub voters: BTreeSet<MemberId>,
    /// Who voted before the change that is under way; else empty.
    pub outgoing: BTreeSet<MemberId>,
    /// Who receives the log and does not vote.
    pub learners: BTreeSet<MemberId>,
    /// Voters of `outgoing` that are learners when the change is done.
    pub learners_next: BTreeSet<MemberId>,
    /// Whether the leader ends the change that is under way by itself.
    pub auto_leave: bool,
    /// All of the above, with their addresses. A store that waits for its first snapshot has addresses alone.
    pub members: BTreeMap<MemberId, Member>,
    /// The greatest number ever given: whoever has a smaller one and is not in `members` was removed for good.
    pub last_id: MemberId,
}

impl Membership {
    /// The first members of a cluster, all of them voting.
    pub fn founding(addresses: impl IntoIterator<Item = (MemberId, Vec<u8>)>) -> Self {
        let mut membership = Self::default();
        for (id, address) in addresses {
            membership.voters.insert(id);
            membership.last_id = membership.last_id.max(id);
            membership.members.insert(id, Member { address, to_vote: true });
        }
        membership
    }

    /// Where a new member finds the others until it knows better.
    pub fn joining(addresses: impl IntoIterator<Item = (MemberId, Vec<u8>)>) -> Self {
        let members = addresses.into_iter().map(|(id, address)| {
            let member = Member {
                address,
                to_vote: false,
            };
            (id, member)
        });
        Self {
            members: members.collect(),
            ..Self::default()
        }
    }

    /// Whether it says who decides.
    pub fn is_known(&self) -> bool {
        !self.voters.is_empty()
    }

    /// Whether a change of more than one voter is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Everybody that takes part.
    pub fn ids(&self) -> BTreeSet<MemberId> {
        let groups = [&self.voters, &self.outgoing, &self.learners, &self.learners_next];
        groups.into_iter().flatten().copied().collect()
    }

    /// Whether this one votes, before or after a change that is under way.
    pub fn is_voter(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id)
    }

    /// Whether this one takes part.
    pub fn contains(&self, id: MemberId) -> bool {
        self.is_voter(id) || self.learners.contains(&id)
    }

    /// Whether this one was a member and is not any more.
    pub fn was_removed(&self, id: MemberId) -> bool {
        self.is_known() && id <= self.last_id && !self.contains(id)
    }

    /// Checks what must hold of every membership, also of one that came from elsewhere.
    ///
    /// # Errors
    /// Which rule is broken.
    pub fn check(&self) -> Result<(), &'static str> {
        let ids = self.ids();
        if self.members.len() > MEMBERS_MAX || ids.len() > MEMBERS_MAX {
            return Err("there are too many members");
        }
        if self
            .members
            .values()
            .any(|member| member.address.len() > ADDRESS_BYTES_MAX)
        {
            return Err("an address is too long");
        }
        if ids.contains(&MemberId(0)) || self.members.contains_key(&MemberId(0)) {
            return Err("a member has the number 0");
        }
        if !self.is_known() {
            return if ids.is_empty() && !self.auto_leave {
                Ok(())
            } else {
                Err("nobody votes")
            };
        }
        if !ids.iter().eq(self.members.keys()) {
            return Err("members and addresses differ");
        }
        if ids.last().is_some_and(|last| *last > self.last_id) {
            return Err("a number was never given");
        }
        if self.learners.iter().any(|id| self.is_voter(*id)) {
            return Err("a learner votes");
        }
        let next = &self.learners_next;
        if !next.is_subset(&self.outgoing) || !next.is_disjoint(&self.voters) {
            return Err("a learner to be is no leaving voter");
        }
        if !self.is_joint() && self.auto_leave {
            return Err("a change is to be left that is not under way");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<MemberId> {
        ids.iter().copied().map(MemberId).collect()
    }

    fn joint() -> Membership {
        let mut membership = Membership::founding((1..=4).map(|id| (MemberId(id), vec![])));
        membership.voters = set(&[1, 2]);
        membership.outgoing = set(&[1, 3]);
        membership.learners_next = set(&[3]);
        membership.learners = set(&[4]);
        membership.auto_leave = true;
        membership
    }

    #[test]
    fn memberships_that_raft_would_choke_on_are_refused() {
        assert_eq!(joint().check(), Ok(()));
        assert_eq!(Membership::joining([(MemberId(3), vec![])]).check(), Ok(()));
        let broken: [fn(&mut Membership); 10] = [
            |m| m.voters.clear(),
            |m| m.learners = set(&[2, 4]),
            |m| m.learners = set(&[3, 4]),
            |m| m.learners_next = set(&[2]),
            |m| m.learners_next = set(&[4]),
            |m| m.last_id = MemberId(3),
            |m| {
                m.voters.insert(MemberId(0));
            },
            |m| {
                m.members.remove(&MemberId(4));
            },
            |m| {
                m.outgoing.clear();
                m.learners_next.clear();
                m.members.remove(&MemberId(3));
            },
            |m| {
                for id in 5..=20 {
                    m.learners.insert(MemberId(id));
                    m.members.insert(
                        MemberId(id),
                        Member {
                            address: vec![],
                            to_vote: false,
                        },
                    );
                    m.last_id = MemberId(id);
                }
            },
        ];
        for (number, breaks) in broken.iter().enumerate() {
            let mut membership = joint();
            breaks(&mut membership);
            assert!(membership.check().is_err(), "rule {number}");
        }
    }

    #[test]
    fn a_removed_member_is_told_from_one_that_is_not_known_yet() {
        let mut membership = Membership::founding((1..=3).map(|id| (MemberId(id), vec![])));
        membership.voters.remove(&MemberId(2));
        membership.members.remove(&MemberId(2));
        assert!(membership.was_removed(MemberId(2)));
        assert!(!membership.was_removed(MemberId(3)));
        assert!(!membership.was_removed(MemberId(4)));
        assert!(!Membership::default().was_removed(MemberId(0)));
    }
}
