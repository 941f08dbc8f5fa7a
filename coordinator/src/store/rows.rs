//! The rows of the state machine: changing them with the entry that did, and reading them back.

use super::encode::{self, ROW_BYTES_MAX, keys};
use super::tables::{Batch, Durability, Family, Pair, Tables};
use super::{HardState, Membership, Position, Row, RowChange, Store, StoreError, order};

/// What one read of a table brings.
const READ_BYTES: usize = 1 << 20;

impl<T: Tables> Store<T> {
    /// Changes rows as the entries up to `position` say, and members if they changed, as one batch that also says so, and that they are
    /// committed.
    ///
    /// # Errors
    /// [`StoreError::Order`] when the entries are not in the log, not committed by `hard`, or applied already; [`StoreError::TooLarge`];
    /// others by cause.
    pub fn apply(
        &mut self,
        rows: Vec<RowChange>,
        position: Position,
        membership: Option<Membership>,
        hard: HardState,
    ) -> Result<(), StoreError> {
        if position.index <= self.applied.index {
            return order("an entry would be applied twice");
        }
        if self.term(position.index) != Some(position.term) {
            return order("an entry would be applied that the log has not");
        }
        if hard.commit < position.index {
            return order("an entry would be applied that is not committed");
        }
        self.check_vote(&hard, self.last_index())?;
        let mut batch = Batch::default();
        let family = self.side.family();
        for row in rows {
            let key = encode::row_key(row.table, &row.key)?;
            match row.value {
                Some(value) if value.len() > ROW_BYTES_MAX => {
                    return Err(StoreError::TooLarge {
                        what: "a row",
                        bytes: value.len(),
                        max: ROW_BYTES_MAX,
                    });
                }
                Some(value) => batch.put(family, key, value),
                None => batch.delete(family, key),
            }
        }
        batch.put(Family::Meta, keys::HARD, encode::fact(keys::HARD, &hard));
        batch.put(Family::Meta, keys::APPLIED, encode::fact(keys::APPLIED, &position));
        if let Some(membership) = &membership {
            let value = encode::fact(keys::MEMBERSHIP, membership);
            batch.put(Family::Meta, keys::MEMBERSHIP, value);
        }
        // What is lost of it by a crash is applied again: the entries are on the disk, and say the same again. Every later write that is synced takes it
        // along, so nothing that stands on it can survive without it.
        self.write(batch, Durability::Later)?;
        self.hard = hard;
        self.applied = position;
        self.log.trim(position.index);
        if let Some(membership) = membership {
            self.membership = membership;
        }
        Ok(())
    }

    /// Reads one row.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] for a key that no row has; others by cause.
    pub fn row(&self, table: u8, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.tables.get(self.side.family(), &encode::row_key(table, key)?)
    }

    /// Gives all rows, in order, to `read`.
    ///
    /// # Errors
    /// When they cannot be read to their end: what `read` made of them is dropped.
    pub fn read_rows<R>(&self, read: impl FnOnce(&mut dyn Iterator<Item = Row>) -> R) -> Result<R, StoreError> {
        read_family(&self.tables, self.side.family(), |_, _| {}, read)
    }
}

/// Gives all rows of a family, in order, to `read`, and their bytes to `see`, also of those that `read` leaves.
pub(super) fn read_family<T: Tables, R>(
    tables: &T,
    family: Family,
    mut see: impl FnMut(&[u8], &[u8]),
    read: impl FnOnce(&mut dyn Iterator<Item = Row>) -> R,
) -> Result<R, StoreError> {
    let mut pairs = Pairs::of(tables, family);
    let mut broken = None;
    let mut rows = std::iter::from_fn(|| {
        let (key, value) = pairs.next()?;
        see(&key, &value);
        encode::read_row(key, value).map_err(|e| broken = Some(e)).ok()
    });
    let made = read(&mut rows);
    rows.for_each(drop);
    match broken.or(pairs.error) {
        None => Ok(made),
        Some(error) => Err(error),
    }
}

/// All pairs of a table, read piece by piece. An error ends it, and is kept.
struct Pairs<'a, T> {
    tables: &'a T,
    family: Family,
    from: Vec<u8>,
    piece: std::vec::IntoIter<Pair>,
    at_end: bool,
    error: Option<StoreError>,
}

impl<'a, T: Tables> Pairs<'a, T> {
    fn of(tables: &'a T, family: Family) -> Self {
        Self {
            tables,
            family,
            from: Vec::new(),
            piece: Vec::new().into_iter(),
            at_end: false,
            error: None,
        }
    }
}

impl<T: Tables> Iterator for Pairs<'_, T> {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        if let Some(pair) = self.piece.next() {
            return Some(pair);
        }
        if self.at_end {
            return None;
        }
        match self.tables.scan(self.family, &self.from, READ_BYTES) {
            Ok(piece) => {
                if let Some((last, _)) = piece.last() {
                    self.from = [&last[..], &[0]].concat();
                }
                self.at_end = piece.is_empty();
                self.piece = piece.into_iter();
            }
            Err(error) => {
                self.at_end = true;
                self.error = Some(error);
            }
        }
        self.piece.next()
    }
}
