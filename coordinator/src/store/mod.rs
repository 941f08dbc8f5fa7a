//! What a member keeps: the log, its vote, the rows of the state machine, and who the members are. Durable, and checked when it is opened.
//!
//! ```text
//! Store      the rules: what may follow what, what stands in one batch, what must be synced
//!   Tables   the port: four ordered tables, atomic batches, a sync that is asked for   (tables)
//!     Rocks    on a disk                                                               (rocks)
//!     Memory   in memory, losing what was not synced when it is told to crash          (memory)
//!     Faulty   around another, failing on purpose                                      (faulty)
//! ```
//! All rules stand above the port, so that simulations on [`memory::Memory`] exercise the code that runs on disks.
//!
//! Invariants, in memory and on the disk, at any moment and after any crash:
//! 1. `compacted ≤ applied ≤ commit ≤ last`, and the log has every entry after `compacted` up to `last`.
//! 2. Rows are exactly what the entries up to `applied` made of them: rows, `applied`, members and `commit` change in one batch. It is not synced: the
//!    entries are, and batches are lost from the newest on, so that nothing that stands on it outlives it.
//! 3. Entries and the vote that go with them are one batch.
//! 4. The rows that count are never overwritten by a snapshot: it is loaded beside them, checked, and then one batch makes it count and
//!    empties the log.
//! 5. After a write that failed nothing more is written: what is on the disk is unknown until it is opened again.
//!
//! Read `types` and `tables`, then `open`, `log`, `rows`, and `incoming` and `outgoing` for snapshots.

#[cfg(test)]
pub(crate) mod conformance;
mod encode;
mod error;
pub mod faulty;
mod incoming;
mod log;
pub mod memory;
mod open;
mod outgoing;
pub mod rocks;
mod rows;
pub mod tables;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests;
mod types;

use self::incoming::Incoming;
use self::log::Directory;
use self::tables::{Batch, Durability, Family, Tables};

pub(crate) use encode::plain;
pub use encode::{ENTRY_BYTES_MAX, FORMAT_VERSION, ROW_BYTES_MAX, ROW_KEY_BYTES_MAX, ROW_TABLES};
pub use error::StoreError;
pub use incoming::PIECE_BYTES_MAX;
pub use log::RECENT_BYTES_MAX;
pub use outgoing::{Outgoing, PIECE_BYTES, Piece, SnapshotEnd};
pub use types::{
    ADDRESS_BYTES_MAX, Entry, EntryKind, HardState, MEMBERS_MAX, Member, Membership, Position, Row, RowChange, Stamp,
};

/// A member's store.
pub struct Store<T: Tables> {
    tables: T,
    stamp: Stamp,
    hard: HardState,
    applied: Position,
    compacted: Position,
    membership: Membership,
    side: Side,
    log: Directory,
    incoming: Option<Incoming>,
    /// A write failed.
    failed: bool,
}

/// Which family's rows count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
enum Side {
    A,
    B,
}

impl Side {
    fn family(self) -> Family {
        match self {
            Self::A => Family::RowsA,
            Self::B => Family::RowsB,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl<T: Tables> Store<T> {
    /// Whose it is.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The vote, and how far the log is known to be committed.
    pub fn hard(&self) -> HardState {
        self.hard
    }

    /// The last entry whose rows are there.
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The entry before the log's first.
    pub fn compacted(&self) -> Position {
        self.compacted
    }

    /// The members as of the last entry applied.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The index of the log's first entry, or of the one that would be.
    pub fn first_index(&self) -> u64 {
        self.compacted.index + 1
    }

    /// The index of the log's last entry, or of the one before the first if there is none.
    pub fn last_index(&self) -> u64 {
        self.log.last()
    }

    /// Bytes of all entries of the log.
    pub fn log_bytes(&self) -> u64 {
        self.log.bytes()
    }

    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        self.tables.write(batch, durability).inspect_err(|_| self.failed = true)
    }
}

fn order<T>(what: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Order { what })
}
