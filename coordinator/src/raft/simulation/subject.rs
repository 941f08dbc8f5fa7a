//! What a machine must have to be run here.

use std::cell::RefCell;

use crate::raft::{Applied, Machine};
use crate::seeded::Random;
use crate::store::Row;

/// A machine with commands and a digest.
pub(crate) trait Subject: Machine {
    /// A command that differs from all others: `number` is used once.
    fn command(random: &mut Random, number: u64) -> Vec<u8>;

    /// Differs for states that differ.
    fn digest(&self) -> u64;
}

thread_local! {
    /// What machines of this thread applied since the last look. Not only what their replies say: a member whose disk fails after it stored what
    /// it did never tells.
    static APPLIED: RefCell<Vec<(u64, Seen)>> = const { RefCell::new(Vec::new()) };
}

/// What machines applied since the last time.
pub(super) fn take_applied() -> Vec<(u64, Seen)> {
    APPLIED.take()
}

/// Wraps a machine so that it says what was applied and what came of it.
pub(super) struct Watched<M>(pub(super) M);

/// What an entry did, for comparing members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) command: u64,
    pub(super) state: u64,
}

pub(super) fn hash(bytes: &[u8]) -> u64 {
    let hash = blake3::hash(bytes);
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    u64::from_le_bytes(*first)
}

impl<M: Subject> Machine for Watched<M> {
    type Reply = Seen;
    type Error = M::Error;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Applied<Seen>, M::Error> {
        let applied = self.0.apply(index, entry)?;
        let reply = Seen {
            command: hash(entry),
            state: self.0.digest(),
        };
        APPLIED.with_borrow_mut(|seen| seen.push((index, reply)));
        Ok(Applied {
            reply,
            rows: applied.rows,
        })
    }

    fn load(rows: &mut dyn Iterator<Item = Row>) -> Result<Self, M::Error> {
        M::load(rows).map(Self)
    }
}
