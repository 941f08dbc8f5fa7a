//! Reads that wait until they may see the state.
//!
//! A read may see the state when this member has applied everything that was committed when the read was asked for, and a majority has
//! confirmed since that the leader that said so still leads. raft-rs drops questions silently (no leader, or one that has committed nothing in
//! its term yet), so each is repeated, under the same name, until it is answered or nobody waits for it any more. That is safe: any answer to
//! it was made after the read was asked for.

use std::collections::BTreeMap;

use tresor_proto::ids::MemberId;

use super::limits::READS_MAX;
use super::{ReadLost, Ticket};

#[derive(Debug)]
struct Question {
    /// Who waits, and until when.
    tickets: Vec<(Ticket, u64)>,
    asked_at: u64,
    /// The answer: the entry that must be applied.
    index: Option<u64>,
}

/// Reads by the number of their question.
#[derive(Debug)]
pub(super) struct Reads {
    me: MemberId,
    life: u64,
    /// Not asked yet: all of them are one question.
    fresh: Vec<(Ticket, u64)>,
    questions: BTreeMap<u64, Question>,
    last: u64,
    waiting: usize,
}

/// How a read ended.
pub(super) type Outcome = (Ticket, Result<u64, ReadLost>);

impl Reads {
    pub(super) fn new(me: MemberId, life: u64) -> Self {
        Self {
            me,
            life,
            fresh: Vec::new(),
            questions: BTreeMap::new(),
            last: 0,
            waiting: 0,
        }
    }

    /// Whether one more has a place.
    pub(super) fn has_room(&self) -> bool {
        self.waiting < READS_MAX
    }

    /// Notes a read that gives up at the tick `until`.
    pub(super) fn add(&mut self, ticket: Ticket, until: u64) {
        self.waiting += 1;
        self.fresh.push((ticket, until));
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// The question for all reads that came since the last, if any did.
    pub(super) fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        if self.fresh.is_empty() {
            return None;
        }
        self.last += 1;
        let question = Question {
            tickets: std::mem::take(&mut self.fresh),
            asked_at: now,
            index: None,
        };
        self.questions.insert(self.last, question);
        Some(self.name(self.last))
    }

    /// Questions that were asked `ticks` ago and not answered, to be asked again.
    pub(super) fn ask_again(&mut self, now: u64, ticks: u64) -> Vec<Vec<u8>> {
        let mut again = Vec::new();
        for (number, question) in &mut self.questions {
            if question.index.is_none() && question.asked_at + ticks <= now {
                question.asked_at = now;
                again.push(*number);
            }
        }
        again.into_iter().map(|number| self.name(number)).collect()
    }

    /// Notes an answer. One to a question that nobody has, of another life or answered before, does nothing.
    pub(super) fn answer(&mut self, name: &[u8], index: u64) {
        let Some((mine, number)) = name.split_last_chunk() else {
            return;
        };
        let number = u64::from_be_bytes(*number);
        if *mine != self.name(number)[..16] {
            return;
        }
        if let Some(question) = self.questions.get_mut(&number) {
            question.index.get_or_insert(index);
        }
    }

    /// Reads that may see the state now that `applied` is applied.
    pub(super) fn take_ready(&mut self, applied: u64) -> Vec<Outcome> {
        let is_ready = |question: &mut Question| question.index.is_some_and(|index| index <= applied);
        let ready = self.questions.extract_if(.., |_, question| is_ready(question));
        let ready: Vec<Outcome> = ready
            .flat_map(|(_, question)| question.tickets)
            .map(|(ticket, _)| (ticket, Ok(applied)))
            .collect();
        self.waiting -= ready.len();
        ready
    }

    /// Reads that have waited too long.
    pub(super) fn take_late(&mut self, now: u64) -> Vec<Outcome> {
        let mut late = Vec::new();
        let mut keep_waiting = |tickets: &mut Vec<(Ticket, u64)>| {
            tickets.retain(|(ticket, until)| {
                let is_late = *until <= now;
                if is_late {
                    late.push((*ticket, Err(ReadLost::Late)));
                }
                !is_late
            });
            !tickets.is_empty()
        };
        keep_waiting(&mut self.fresh);
        self.questions.retain(|_, question| keep_waiting(&mut question.tickets));
        self.waiting -= late.len();
        late
    }

    /// Member, life and number, big-endian.
    fn name(&self, number: u64) -> Vec<u8> {
        [self.me.0, self.life, number].map(u64::to_be_bytes).concat()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn reads_of_one_moment_are_one_question_that_is_repeated() {
        let mut reads = Reads::new(MemberId(1), 9);
        assert_eq!(reads.ask(0), None);
        reads.add(Ticket(1), 10);
        reads.add(Ticket(2), 5);
        let name = reads.ask(0).unwrap();
        assert_eq!(reads.ask(0), None);
        assert_eq!(reads.ask_again(1, 2), Vec::<Vec<u8>>::new());
        assert_eq!(reads.ask_again(2, 2), std::slice::from_ref(&name));
        assert_eq!(reads.ask_again(3, 2), Vec::<Vec<u8>>::new());
        assert_eq!(reads.take_late(5), [(Ticket(2), Err(ReadLost::Late))]);
        // Answers of an earlier life, of another member, and to other questions.
        for (me, life) in [(1, 8), (2, 9)] {
            let mut other = Reads::new(MemberId(me), life);
            other.add(Ticket(1), 10);
            reads.answer(&other.ask(0).unwrap(), 7);
        }
        reads.answer(&[&name[..23], &[9]].concat(), 7);
        reads.answer(b"short", 7);
        assert_eq!(reads.take_ready(7), []);
        // The first answer counts.
        reads.answer(&name, 7);
        reads.answer(&name, 9);
        assert_eq!(reads.take_ready(6), []);
        assert_eq!(reads.ask_again(100, 2), Vec::<Vec<u8>>::new());
        assert_eq!(reads.take_ready(8), [(Ticket(1), Ok(8))]);
        assert_eq!(reads.len(), 0);
    }

    #[test]
    fn a_question_that_nobody_waits_for_is_not_asked_again() {
        let mut reads = Reads::new(MemberId(1), 9);
        reads.add(Ticket(1), 3);
        reads.ask(0);
        reads.add(Ticket(2), 3);
        assert_eq!(reads.take_late(2), []);
        assert_eq!(reads.take_late(3).len(), 2);
        assert_eq!(reads.ask_again(100, 2), Vec::<Vec<u8>>::new());
        assert_eq!(reads.ask(100), None);
        assert_eq!(reads.len(), 0);
    }
}
