//! A few members and a wire that loses nothing but what it is told to, moved by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tresor_proto::ids::MemberId;

use crate::raft::{AppliedEntry, Change, Config, Core, Machine, Outgoing, Output, Role, SendSnapshot, Ticket};
use crate::store::tables::Tables;
use crate::store::{Membership, Stamp, Store};

pub(super) const CLUSTER: [u8; 16] = [3; 16];

pub(super) fn id(number: u64) -> MemberId {
    MemberId(number)
}

pub(super) fn stamp(number: u64) -> Stamp {
    Stamp {
        node: id(number),
        cluster: CLUSTER,
    }
}

pub(super) fn founding(members: u64) -> Membership {
    Membership::founding((1..=members).map(|number| (id(number), vec![number as u8])))
}

/// Feels a lost leader after 15 ticks; votes for another after 10.
pub(super) fn config() -> Config {
    Config {
        election_ticks_min: 15,
        election_ticks_max: 16,
        ..Config::new(1)
    }
}

/// A member and what it said.
pub(super) struct Place<M: Machine, T: Tables> {
    pub(super) core: Core<M, T>,
    pub(super) applied: Vec<AppliedEntry<M::Reply>>,
    pub(super) said: Output<M::Reply, T::View>,
}

pub(super) struct Few<M: Machine, T: Tables> {
    pub(super) members: BTreeMap<MemberId, Place<M, T>>,
    pub(super) wire: VecDeque<(MemberId, Outgoing)>,
    /// Who neither sends nor gets anything.
    pub(super) cut: BTreeSet<MemberId>,
    pub(super) snapshots: u64,
}

impl<M: Machine, T: Tables> Few<M, T> {
    /// Members of a new cluster.
    pub(super) fn founded(tables: impl IntoIterator<Item = T>) -> Self {
        let tables: Vec<T> = tables.into_iter().collect();
        let membership = founding(tables.len() as u64);
        let mut few = Self {
            members: BTreeMap::new(),
            wire: VecDeque::new(),
            cut: BTreeSet::new(),
            snapshots: 0,
        };
        for (number, tables) in (1..).zip(tables) {
            few.start(Store::create(tables, stamp(number), membership.clone()).unwrap());
        }
        few
    }

    /// Starts a member with what its store has.
    pub(super) fn start(&mut self, store: Store<T>) {
        let core = Core::open(config(), store).unwrap();
        let place = Place {
            core,
            applied: Vec::new(),
            said: Output::default(),
        };
        self.members.insert(place.core.id(), place);
    }

    pub(super) fn core(&mut self, number: u64) -> &mut Core<M, T> {
        &mut self.members.get_mut(&id(number)).unwrap().core
    }

    pub(super) fn said(&mut self, number: u64) -> &mut Output<M::Reply, T::View> {
        &mut self.members.get_mut(&id(number)).unwrap().said
    }

    /// Lets one member do what follows, and notes what it says.
    pub(super) fn process(&mut self, number: u64) {
        let place = self.members.get_mut(&id(number)).unwrap();
        let output = place.core.process().unwrap();
        place.applied.extend(output.applied);
        place.said.unclear.extend(output.unclear);
        place.said.changes.extend(output.changes);
        place.said.reads.extend(output.reads);
        place.said.membership = output.membership.or(place.said.membership.take());
        place.said.restored = output.restored.or(place.said.restored);
        place.said.standing = output.standing.or(place.said.standing);
        self.wire
            .extend(output.messages.into_iter().map(|message| (id(number), message)));
        for SendSnapshot { to, header, snapshot } in output.snapshots {
            self.send_snapshot(id(number), to, &header, snapshot);
        }
    }

    fn send_snapshot(
        &mut self,
        from: MemberId,
        to: MemberId,
        header: &[u8],
        mut snapshot: crate::store::Outgoing<T::View>,
    ) {
        self.snapshots += 1;
        let is_cut = self.cut.contains(&from) || self.cut.contains(&to);
        let is_whole = match self.members.get_mut(&to).filter(|_| !is_cut) {
            None => false,
            Some(place) => {
                let receiver = &mut place.core;
                let name = receiver.begin_snapshot(from, header).unwrap();
                while let Some(piece) = snapshot.next_piece().unwrap() {
                    receiver.snapshot_piece(name, &piece).unwrap();
                }
                receiver.finish_snapshot(name, &snapshot.end().unwrap()).unwrap()
            }
        };
        self.core(from.0).report_snapshot(to, is_whole);
    }

    pub(super) fn deliver(&mut self, from: MemberId, message: &Outgoing) {
        if self.cut.contains(&from) || self.cut.contains(&message.to) {
            return;
        }
        if let Some(place) = self.members.get_mut(&message.to) {
            // A removed member's are refused.
            let _ = place.core.receive(from, &message.bytes);
        }
    }

    /// Lets everybody do what follows, until nothing does.
    pub(super) fn settle(&mut self) {
        loop {
            let numbers: Vec<u64> = self.members.keys().map(|id| id.0).collect();
            for number in numbers {
                self.process(number);
            }
            if self.wire.is_empty() {
                return;
            }
            for (from, message) in std::mem::take(&mut self.wire) {
                self.deliver(from, &message);
            }
        }
    }

    pub(super) fn tick(&mut self, number: u64, ticks: usize) {
        for _ in 0..ticks {
            self.core(number).tick();
            self.settle();
        }
    }

    /// Ticks of everybody.
    pub(super) fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            for place in self.members.values_mut() {
                place.core.tick();
            }
            self.settle();
        }
    }

    /// Makes one the leader by letting it alone feel the time; the others have forgotten their leader before, if they had one.
    pub(super) fn elect(&mut self, number: u64) {
        for place in self.members.values_mut() {
            if place.core.id() != id(number) && place.core.standing().role == Role::Follower {
                (0..10).for_each(|_| place.core.tick());
            }
        }
        self.tick(number, 16);
        let standing = self.core(number).standing();
        assert!(standing.in_charge, "{standing:?}");
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |place: &&Place<M, T>| place.core.standing().role == Role::Leader;
        self.members.values().find(leads).map(|place| place.core.id().0)
    }

    /// Changes the members and waits until that is done.
    pub(super) fn change(&mut self, leader: u64, change: &Change) -> Ticket {
        let ticket = self.core(leader).propose_membership(change).unwrap();
        self.settle();
        let changes = std::mem::take(&mut self.said(leader).changes);
        assert!(
            matches!(changes[..], [(answered, Ok(_))] if answered == ticket),
            "{changes:?}"
        );
        ticket
    }
}
