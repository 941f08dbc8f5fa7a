//! What was proposed here and waits for its outcome. Every ticket gets exactly one.

use std::collections::BTreeMap;

use super::Ticket;
use super::limits::{PROPOSAL_BYTES_MAX, PROPOSALS_MAX};
use crate::store::Position;

/// What a ticket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A command.
    Command,
    /// A change of the membership.
    Change,
}

#[derive(Debug)]
struct Waiting {
    term: u64,
    ticket: Ticket,
    asked: Asked,
    bytes: usize,
}

/// Tickets by the index that the leader gave their entries.
#[derive(Debug, Default)]
pub(super) struct Proposals {
    waiting: BTreeMap<u64, Waiting>,
    bytes: usize,
}

impl Proposals {
    /// Whether one more has a place.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.waiting.len() < PROPOSALS_MAX && self.bytes + bytes <= PROPOSAL_BYTES_MAX
    }

    /// Notes a ticket. One that waited for the same index was of an earlier term: another leader's entry took its place here, and this one that
    /// one's. Elsewhere it may still stand, and win in the end.
    pub(super) fn add(&mut self, at: Position, ticket: Ticket, asked: Asked, bytes: usize) -> Option<(Ticket, Asked)> {
        let waiting = Waiting {
            term: at.term,
            ticket,
            asked,
            bytes,
        };
        self.bytes += bytes;
        let before = self.waiting.insert(at.index, waiting)?;
        self.bytes -= before.bytes;
        Some((before.ticket, before.asked))
    }

    /// The ticket that waited for the entry that is applied now: index and term name an entry, an index alone does not.
    pub(super) fn take(&mut self, applied: Position) -> Option<Ticket> {
        let is_ours = |waiting: &Waiting| waiting.term == applied.term;
        self.waiting.get(&applied.index).filter(|waiting| is_ours(waiting))?;
        let waiting = self.waiting.remove(&applied.index)?;
        self.bytes -= waiting.bytes;
        Some(waiting.ticket)
    }

    /// All tickets of other terms than `leading`, the term that this member leads, if it does.
    pub(super) fn take_lost(&mut self, leading: Option<u64>) -> Vec<(Ticket, Asked)> {
        if self.waiting.values().all(|waiting| Some(waiting.term) == leading) {
            return Vec::new();
        }
        let (kept, lost) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, waiting)| Some(waiting.term) == leading);
        self.waiting = kept;
        self.bytes = self.waiting.values().map(|waiting| waiting.bytes).sum();
        let lost: BTreeMap<u64, Waiting> = lost;
        lost.into_values()
            .map(|waiting| (waiting.ticket, waiting.asked))
            .collect()
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position { index, term }
    }

    #[test]
    fn a_ticket_has_one_outcome() {
        let mut proposals = Proposals::default();
        for n in 1..=4 {
            assert_eq!(proposals.add(at(n, 7), Ticket(n), Asked::Command, 10), None);
        }
        assert_eq!(proposals.take(at(1, 7)), Some(Ticket(1)));
        assert_eq!(proposals.take(at(1, 7)), None);
        assert_eq!(proposals.take(at(2, 8)), None);
        assert_eq!(proposals.take_lost(Some(7)), []);
        // Elected again, at the same index.
        let before = proposals.add(at(3, 9), Ticket(5), Asked::Change, 10);
        assert_eq!(before, Some((Ticket(3), Asked::Command)));
        let lost = [2, 4].map(|n| (Ticket(n), Asked::Command));
        assert_eq!(proposals.take_lost(Some(9)), lost);
        assert_eq!(proposals.take_lost(None), [(Ticket(5), Asked::Change)]);
        assert_eq!((proposals.len(), proposals.bytes), (0, 0));
    }

    #[test]
    fn there_is_room_up_to_a_bound() {
        let mut proposals = Proposals::default();
        assert!(proposals.has_room(PROPOSAL_BYTES_MAX) && !proposals.has_room(PROPOSAL_BYTES_MAX + 1));
        proposals.add(at(1, 1), Ticket(1), Asked::Command, PROPOSAL_BYTES_MAX - 1);
        assert!(proposals.has_room(1) && !proposals.has_room(2));
        proposals.take(at(1, 1));
        for n in 0..PROPOSALS_MAX as u64 {
            proposals.add(at(n, 1), Ticket(n), Asked::Command, 0);
        }
        assert!(!proposals.has_room(0));
    }
}
