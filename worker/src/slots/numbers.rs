//! What a worker answered as an owner of slots, and what it has of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tresor_storage::index::Answer;

use super::peer::PeerError;
use super::wire::Changed;
use crate::metrics::IndexNumbers;

/// Counted by the call, with all ids that it is about.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    held: AtomicU64,
    known: AtomicU64,
    new: AtomicU64,
    claimed: AtomicU64,
    not_held: AtomicU64,
    taken: AtomicU64,
    not_taken: AtomicU64,
    refused: AtomicU64,
}

/// Numbers of one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) held: u64,
    /// Shares of vaults' indexes that are incomplete.
    pub(crate) filling: u64,
    pub(crate) answers: [(&'static str, u64); 4],
    pub(crate) inserts: [(&'static str, u64); 2],
    pub(crate) refused: u64,
    pub(crate) index: IndexNumbers,
}

impl Counts {
    pub(super) fn set_held(&self, slots: usize) {
        self.held.store(slots as u64, Relaxed);
    }

    /// Counts how a question was answered.
    pub(super) fn note_answers(&self, answers: &Result<Vec<Option<Answer>>, PeerError>) {
        let Ok(answers) = answers else {
            return self.note_error(answers);
        };
        let of = |wanted: fn(&Option<Answer>) -> bool| answers.iter().filter(|answer| wanted(answer)).count() as u64;
        self.known
            .fetch_add(of(|answer| matches!(answer, Some(Answer::Known(_)))), Relaxed);
        self.new
            .fetch_add(of(|answer| matches!(answer, Some(Answer::New))), Relaxed);
        self.claimed
            .fetch_add(of(|answer| matches!(answer, Some(Answer::Claimed))), Relaxed);
        self.not_held.fetch_add(of(Option::is_none), Relaxed);
    }

    /// Counts what became of an insert.
    pub(super) fn note_inserts(&self, changed: &Result<Vec<Changed>, PeerError>) {
        let Ok(all) = changed else {
            return self.note_error(changed);
        };
        let taken = all.iter().filter(|changed| **changed == Changed::Taken).count();
        self.taken.fetch_add(taken as u64, Relaxed);
        self.not_taken.fetch_add((all.len() - taken) as u64, Relaxed);
    }

    fn note_error<T>(&self, result: &Result<T, PeerError>) {
        if matches!(result, Err(PeerError::Fenced { .. } | PeerError::Refused { .. })) {
            self.refused.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn numbers(&self, filling: u64, index: IndexNumbers) -> Numbers {
        let get = |count: &AtomicU64| count.load(Relaxed);
        Numbers {
            held: get(&self.held),
            filling,
            answers: [
                ("known", get(&self.known)),
                ("new", get(&self.new)),
                ("claimed", get(&self.claimed)),
                ("not_held", get(&self.not_held)),
            ],
            inserts: [("taken", get(&self.taken)), ("not_held", get(&self.not_taken))],
            refused: get(&self.refused),
            index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_counted_by_their_answers_and_refused_calls_as_calls() {
        let counts = Counts::default();
        counts.note_answers(&Ok(vec![
            Some(Answer::New),
            Some(Answer::Claimed),
            None,
            Some(Answer::New),
        ]));
        let over = PeerError::Fenced {
            why: String::from("session 3 is over"),
        };
        counts.note_answers(&Err(over));
        counts.note_answers(&Err(PeerError::Unreachable { why: String::new() }));
        counts.note_inserts(&Ok(vec![Changed::Taken, Changed::NotHeld, Changed::Taken]));
        counts.set_held(7);
        let numbers = counts.numbers(1, IndexNumbers::default());
        assert_eq!(
            numbers.answers,
            [("known", 0), ("new", 2), ("claimed", 1), ("not_held", 1)]
        );
        assert_eq!(numbers.inserts, [("taken", 2), ("not_held", 1)]);
        assert_eq!((numbers.held, numbers.refused), (7, 1));
    }
}
