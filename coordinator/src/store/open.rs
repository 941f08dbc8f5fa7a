//! Making a store, and opening one with every check that its invariants allow.

use super::encode::{self, ROW_BYTES_MAX, keys};
use super::log::Directory;
use super::tables::{Batch, Durability, Family, Tables};
use super::{HardState, Membership, Position, Row, Side, Stamp, Store, StoreError, order};

/// Where a cluster begins, as if a first entry had made its members: a member that joins later finds the log compacted up to here, so
/// that it begins with a snapshot, which tells it who the members are.
const FOUNDING: Position = Position { index: 1, term: 1 };
/// What one read of the log's table brings.
const READ_BYTES: usize = 4 << 20;

impl<T: Tables> Store<T> {
    /// Whose store these tables are, if they are one.
    ///
    /// # Errors
    /// [`StoreError::Version`], [`StoreError::Corrupt`]; others by cause.
    pub fn stamp_of(tables: &T) -> Result<Option<Stamp>, StoreError> {
        let value = tables.get(Family::Meta, keys::STAMP)?;
        value.map(|value| encode::read_stamp(&value)).transpose()
    }

    /// Makes the store of a new member. With a [`Membership::founding`] it is one of a new cluster's first members, all of which begin with
    /// the same; with a [`Membership::joining`] it waits for a snapshot.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Order`] for members that cannot be; others by cause.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a store is made of it; what is kept is read back from the disk"
    )]
    pub fn create(mut tables: T, stamp: Stamp, membership: Membership) -> Result<Self, StoreError> {
        if let Some(found) = Self::stamp_of(&tables)? {
            return Err(StoreError::Exists { node: found.node });
        }
        if stamp.node.0 == 0 || membership.check().is_err() {
            return order("nobody can be a member of that");
        }
        if membership.is_known() && !membership.contains(stamp.node) {
            return order("who makes a cluster is a member of it");
        }
        let (begin, hard) = if membership.is_known() {
            let hard = HardState {
                term: FOUNDING.term,
                vote: 0,
                commit: FOUNDING.index,
            };
            (FOUNDING, hard)
        } else {
            (Position::default(), HardState::default())
        };
        let mut batch = Batch::default();
        let mut put = |key: &[u8], value| batch.put(Family::Meta, key, value);
        put(keys::STAMP, encode::stamp(&stamp));
        put(keys::HARD, encode::fact(keys::HARD, &hard));
        put(keys::APPLIED, encode::fact(keys::APPLIED, &begin));
        put(keys::COMPACTED, encode::fact(keys::COMPACTED, &begin));
        put(keys::MEMBERSHIP, encode::fact(keys::MEMBERSHIP, &membership));
        put(keys::SIDE, encode::fact(keys::SIDE, &Side::A));
        tables.write(batch, Durability::Synced)?;
        Self::open(tables, stamp)
    }

    /// Makes the store of the only member of a cluster that begins with rows: those after the entry `index`, which is in no log. The stamp is written
    /// last, so what was cut off before is no store.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Order`] for members that cannot be, or an index that no log has; [`StoreError::TooLarge`]; others by cause.
    pub fn create_with(
        mut tables: T,
        stamp: Stamp,
        membership: &Membership,
        index: u64,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<Self, StoreError> {
        if let Some(found) = Self::stamp_of(&tables)? {
            return Err(StoreError::Exists { node: found.node });
        }
        if stamp.node.0 == 0 || membership.check().is_err() || !membership.contains(stamp.node) {
            return order("nobody can be a member of that");
        }
        if index < FOUNDING.index {
            return order("a cluster would begin before its first entry");
        }
        let mut batch = Batch::default();
        let mut bytes = 0;
        for row in rows {
            if row.value.len() > ROW_BYTES_MAX {
                return Err(StoreError::TooLarge {
                    what: "a row",
                    bytes: row.value.len(),
                    max: ROW_BYTES_MAX,
                });
            }
            let key = encode::row_key(row.table, &row.key)?;
            bytes += key.len() + row.value.len();
            batch.put(Side::A.family(), key, row.value);
            if bytes >= READ_BYTES {
                tables.write(std::mem::take(&mut batch), Durability::Later)?;
                bytes = 0;
            }
        }
        let begin = Position {
            index,
            term: FOUNDING.term,
        };
        let hard = HardState {
            term: begin.term,
            vote: 0,
            commit: index,
        };
        let mut put = |key: &[u8], value| batch.put(Family::Meta, key, value);
        put(keys::STAMP, encode::stamp(&stamp));
        put(keys::HARD, encode::fact(keys::HARD, &hard));
        put(keys::APPLIED, encode::fact(keys::APPLIED, &begin));
        put(keys::COMPACTED, encode::fact(keys::COMPACTED, &begin));
        put(keys::MEMBERSHIP, encode::fact(keys::MEMBERSHIP, membership));
        put(keys::SIDE, encode::fact(keys::SIDE, &Side::A));
        tables.write(batch, Durability::Synced)?;
        Self::open(tables, stamp)
    }

    /// Opens a member's store. Reads the whole log.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none; [`StoreError::ForeignMember`], [`StoreError::ForeignCluster`], [`StoreError::Version`];
    /// [`StoreError::Corrupt`], [`StoreError::Gap`], [`StoreError::AppliedPastCommit`] and [`StoreError::CommitPastLog`] for a store that lost
    /// something: the member must be removed and join anew; others by cause.
    pub fn open(tables: T, stamp: Stamp) -> Result<Self, StoreError> {
        let found = Self::stamp_of(&tables)?.ok_or(StoreError::Missing)?;
        if found.cluster != stamp.cluster {
            return Err(StoreError::ForeignCluster {
                found: found.cluster,
                expected: stamp.cluster,
            });
        }
        if found.node != stamp.node {
            return Err(StoreError::ForeignMember {
                found: found.node,
                expected: stamp.node,
            });
        }
        let compacted = fact(&tables, keys::COMPACTED)?;
        let mut store = Self {
            stamp,
            hard: fact(&tables, keys::HARD)?,
            applied: fact(&tables, keys::APPLIED)?,
            compacted,
            membership: fact(&tables, keys::MEMBERSHIP)?,
            side: fact(&tables, keys::SIDE)?,
            log: Directory::after(compacted),
            incoming: None,
            failed: false,
            tables,
        };
        store.read_log()?;
        store.check()?;
        Ok(store)
    }

    fn read_log(&mut self) -> Result<(), StoreError> {
        let mut before = self.compacted;
        let mut from = Vec::new();
        loop {
            let piece = self.tables.scan(Family::Log, &from, READ_BYTES)?;
            let Some((last, _)) = piece.last() else {
                return Ok(());
            };
            from = [&last[..], &[0]].concat();
            for (key, value) in piece {
                let entry = encode::read_entry(&key, value)?;
                let corrupt = |why| StoreError::corrupt(format!("entry {} of the log", entry.index), why);
                if entry.index <= before.index {
                    return Err(corrupt("it was forgotten before"));
                }
                if entry.index != before.index + 1 {
                    return Err(StoreError::Gap {
                        missing: before.index + 1,
                        next: entry.index,
                    });
                }
                if entry.term < before.term {
                    return Err(corrupt("its term is older than that of the one before"));
                }
                before = entry.position();
                self.log.push(entry);
                self.log.trim(self.applied.index);
            }
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        let last = self.log.last();
        let HardState { term, commit, .. } = self.hard;
        if self.applied.index > commit {
            return Err(StoreError::AppliedPastCommit {
                applied: self.applied.index,
                commit,
            });
        }
        if commit > last {
            return Err(StoreError::CommitPastLog { commit, last });
        }
        if self.applied.index < self.compacted.index {
            return Err(StoreError::Gap {
                missing: self.applied.index + 1,
                next: self.first_index(),
            });
        }
        if self.term(self.applied.index) != Some(self.applied.term) {
            return Err(StoreError::corrupt(
                "the fact \"applied\"",
                "its term is not that of the log",
            ));
        }
        if self.term(last).is_none_or(|newest| newest > term) {
            return Err(StoreError::corrupt(
                "the fact \"hard\"",
                "its term is older than the log",
            ));
        }
        self.membership
            .check()
            .map_err(|why| StoreError::corrupt("the fact \"membership\"", why))
    }
}

fn fact<V: serde::de::DeserializeOwned>(tables: &impl Tables, key: &[u8]) -> Result<V, StoreError> {
    let value = tables.get(Family::Meta, key)?;
    let value = value
        .ok_or_else(|| StoreError::corrupt(format!("the fact {:?}", String::from_utf8_lossy(key)), "it is missing"))?;
    encode::read_fact(key, &value)
}
