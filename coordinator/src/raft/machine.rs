//! The port to the state machine.

use crate::store::{Row, RowChange};

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied<R> {
    /// The answer for who proposed it.
    pub reply: R,
    /// The rows that are different now: together with all rows before, exactly what [`Machine::load`] needs to make the same machine.
    pub rows: Vec<RowChange>,
}

/// A state machine: a value that entries change, the same way on every member.
///
/// It has no clock, no randomness and no order that differs between two runs.
pub trait Machine: Sized + Send + 'static {
    /// What an entry is answered with.
    type Reply: Send;
    /// Why an entry or rows cannot be understood.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Applies a committed entry. What the machine does not allow is a reply, not an error.
    ///
    /// # Errors
    /// When the entry cannot be decoded, as after an upgrade of other members: this member stops, since the others go on with a state that
    /// it would not have.
    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Applied<Self::Reply>, Self::Error>;

    /// Makes the machine that all changed rows together describe. They come in order of table and key.
    ///
    /// # Errors
    /// When a row cannot be decoded.
    fn load(rows: &mut dyn Iterator<Item = Row>) -> Result<Self, Self::Error>;
}
