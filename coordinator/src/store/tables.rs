//! The port to a disk: four ordered tables, written in batches that happen whole or not at all.
//!
//! What an implementation promises, and the suite in `conformance` checks:
//! 1. A batch is atomic, in memory and on disk.
//! 2. When a write with [`Durability::Synced`] returned, it and every write before it survive a crash.
//! 3. After a crash the tables hold what a prefix of the writes made: a later write never survives an earlier one.
//! 4. Reads see all writes that returned, synced or not. A [`View`] sees those that returned before it was made, and no other.
//! 5. After a write failed nobody knows whether it happened; the caller stops using the tables and opens them again.

use super::StoreError;

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Entries of the log, by index.
    Log,
    /// Single facts by name: the stamp, the vote, what is applied.
    Meta,
    /// Rows of the state machine, one side.
    RowsA,
    /// Rows of the state machine, the other side: one is current, into the other a snapshot is loaded.
    RowsB,
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Log, Self::Meta, Self::RowsA, Self::RowsB];
}

/// One change of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key's value.
    Put {
        /// The table.
        family: Family,
        /// The key.
        key: Vec<u8>,
        /// Its value from now on.
        value: Vec<u8>,
    },
    /// Removes a key, if it is there.
    Delete {
        /// The table.
        family: Family,
        /// The key.
        key: Vec<u8>,
    },
    /// Removes all keys from `from` (included) to `to` (excluded).
    DeleteRange {
        /// The table.
        family: Family,
        /// The first key that goes.
        from: Vec<u8>,
        /// The first key that stays.
        to: Vec<u8>,
    },
}

/// Changes that happen together, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    ops: Vec<Op>,
}

impl Batch {
    /// Adds a put.
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.ops.push(Op::Put {
            family,
            key: key.into(),
            value: value.into(),
        });
    }

    /// Adds a removal.
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        self.ops.push(Op::Delete {
            family,
            key: key.into(),
        });
    }

    /// Adds the removal of a range; `to` stays.
    pub fn delete_range(&mut self, family: Family, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        self.ops.push(Op::DeleteRange {
            family,
            from: from.into(),
            to: to.into(),
        });
    }

    /// The changes, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The changes, in order.
    pub fn into_ops(self) -> Vec<Op> {
        self.ops
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// When a write must survive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// When it returns.
    Synced,
    /// When a later write is synced.
    Later,
}

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Four tables in one place. One process and one owner writes.
pub trait Tables: Send + 'static {
    /// A table as it was at one moment.
    type View: View;

    /// Writes a batch.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::Disk`]: whether the batch happened is unknown.
    fn write(&mut self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Reads a key's value.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Corrupt`].
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads pairs in order of their keys, from the first that is not before `from`, until the next would make keys and values
    /// exceed `bytes_max`; at least one if there is one. None means that there is none.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Corrupt`].
    fn scan(&self, family: Family, from: &[u8], bytes_max: usize) -> Result<Vec<Pair>, StoreError>;

    /// Fixes a table as it is now, for reading it in order while it changes. Takes time that does not depend on the table's size.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn view(&self, family: Family) -> Result<Self::View, StoreError>;
}

/// A table as it was at one moment, read once from its first key to its last. Owned: it may go to another thread.
pub trait View: Send + 'static {
    /// The next pairs, as [`Tables::scan`] bounds them. None means that all were read.
    ///
    /// # Errors
    /// [`StoreError::Disk`], [`StoreError::Corrupt`].
    fn next(&mut self, bytes_max: usize) -> Result<Vec<Pair>, StoreError>;
}
