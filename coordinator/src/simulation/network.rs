//! Things on their way, in virtual time: delayed, doubled, lost, and cut off by partitions.

use std::collections::{BTreeMap, BTreeSet};

use tresor_proto::ids::MemberId;

use super::client::ClientEvent;
use super::member::MemberEvent;
use super::worker::WorkerEvent;
use crate::seeded::Random;

/// Who is at an end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Member(MemberId),
    Worker(usize),
    Client,
}

/// Something that happens at a moment.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a test moves few of them")]
pub(super) enum Event {
    Member(MemberId, MemberEvent),
    Worker(usize, WorkerEvent),
    Client(ClientEvent),
    Fault,
}

/// The queue of what happens next, and the state of the links.
#[derive(Debug, Default)]
pub(super) struct Network {
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    cut: BTreeSet<(Place, Place)>,
    /// One message in so many is lost; 0: none.
    pub(super) loss: u64,
}

/// Longest ordinary delay, milliseconds.
const DELAY_MS: u64 = 20;

impl Network {
    /// Lets something happen at a moment.
    pub(super) fn at(&mut self, ms: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((ms, self.sequence), event);
    }

    /// Sends something: it comes later, twice or not at all.
    pub(super) fn send(&mut self, random: &mut Random, now: u64, from: Place, to: Place, event: &Event) {
        let link = (from.min(to), from.max(to));
        if self.cut.contains(&link) || (self.loss > 0 && random.one_in(self.loss)) {
            return;
        }
        // Mostly soon, now and then after an election.
        let delay = |random: &mut Random| match random.one_in(100) {
            true => random.below(3000),
            false => 1 + random.below(DELAY_MS),
        };
        let first = delay(random);
        self.at(now + first, event.clone());
        if random.one_in(50) {
            let second = delay(random);
            self.at(now + second, event.clone());
        }
    }

    /// What happens next, and when.
    pub(super) fn next(&mut self) -> Option<(u64, Event)> {
        self.queue.pop_first().map(|((ms, _), event)| (ms, event))
    }

    /// Cuts a place off from the others, or a link.
    pub(super) fn cut(&mut self, one: Place, other: Place) {
        self.cut.insert((one.min(other), one.max(other)));
    }

    /// Mends all links; nothing is lost any more.
    pub(super) fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0;
    }
}
