//! A table of the state: rows in key order, and which of them changed since they were last collected.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::LoadError;

/// The form of rows written now. A row of another form is refused, never guessed.
pub(super) const ROW_FORM: u8 = 1;

/// A key whose bytes sort as it does.
pub trait RowKey: Ord + Clone {
    /// Its bytes.
    fn to_bytes(&self) -> Vec<u8>;
    /// The key of these bytes, if they are one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

impl RowKey for u64 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

impl RowKey for u16 {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self::from_be_bytes)
    }
}

/// The one row of a table that has one.
impl RowKey for () {
    fn to_bytes(&self) -> Vec<u8> {
        Vec::new()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.is_empty().then_some(())
    }
}

macro_rules! row_keys {
    ($($id:ident = $inner:ty),*) => {$(
        impl RowKey for tresor_proto::ids::$id {
            fn to_bytes(&self) -> Vec<u8> {
                self.0.to_bytes()
            }
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                <$inner>::from_bytes(bytes).map(Self)
            }
        }
    )*};
}

impl RowKey for [u8; 16] {
    fn to_bytes(&self) -> Vec<u8> {
        self.to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }
}

row_keys!(
    VaultId = [u8; 16],
    PolicyId = [u8; 16],
    ItemId = [u8; 16],
    PointId = [u8; 16],
    TokenId = [u8; 16],
    MemberId = u64,
    WorkerId = u64,
    JobId = u64,
    SessionId = u64
);

/// One changed row, as it is stored: the table's number, the key's bytes, and the row or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The table.
    pub table: u8,
    /// The key.
    pub key: Vec<u8>,
    /// The row, or nothing where it was removed.
    pub value: Option<Vec<u8>>,
}

/// Rows of one kind by key.
#[derive(Debug, Clone)]
pub struct Table<K, V> {
    rows: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K: RowKey, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            changed: BTreeSet::new(),
        }
    }
}

/// What was not collected yet is no part of a table's value.
impl<K: PartialEq, V: PartialEq> PartialEq for Table<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.rows == other.rows
    }
}

impl<K: RowKey, V: Serialize + DeserializeOwned> Table<K, V> {
    /// The row of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        #[cfg(test)]
        looks::count();
        self.rows.get(key)
    }

    /// Whether there is one.
    pub fn contains(&self, key: &K) -> bool {
        self.rows.contains_key(key)
    }

    /// The row of a key, to be changed: it counts as changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let row = self.rows.get_mut(key)?;
        self.changed.insert(key.clone());
        Some(row)
    }

    /// Sets a row; returns the one before.
    pub fn insert(&mut self, key: K, row: V) -> Option<V> {
        self.changed.insert(key.clone());
        self.rows.insert(key, row)
    }

    /// Removes a row.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let row = self.rows.remove(key)?;
        self.changed.insert(key.clone());
        Some(row)
    }

    /// All rows in key order.
    pub fn iter(&self) -> btree_map::Iter<'_, K, V> {
        self.rows.iter()
    }

    /// All rows in key order.
    pub fn values(&self) -> btree_map::Values<'_, K, V> {
        self.rows.values()
    }

    /// Rows from a key on.
    pub fn range<R: std::ops::RangeBounds<K>>(&self, range: R) -> btree_map::Range<'_, K, V> {
        self.rows.range(range)
    }

    /// The first row.
    pub fn first(&self) -> Option<(&K, &V)> {
        self.rows.first_key_value()
    }

    /// The last row.
    pub fn last(&self) -> Option<(&K, &V)> {
        self.rows.last_key_value()
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Appends what changed since the last call, in key order.
    pub(super) fn collect_changes(&mut self, table: u8, changes: &mut Vec<RowChange>) {
        for key in std::mem::take(&mut self.changed) {
            changes.push(RowChange {
                table,
                value: self.rows.get(&key).map(encode_row),
                key: key.to_bytes(),
            });
        }
    }

    /// Every row as it is stored.
    pub(super) fn all(&self, table: u8) -> impl Iterator<Item = RowChange> + '_ {
        self.rows.iter().map(move |(key, row)| RowChange {
            table,
            key: key.to_bytes(),
            value: Some(encode_row(row)),
        })
    }

    /// Rows after a key as they are stored, until so many bytes are reached; at least one if there is one.
    pub(super) fn after(&self, table: u8, key: Option<&[u8]>, bytes_max: usize) -> Vec<RowChange> {
        let from = match key.and_then(K::from_bytes) {
            Some(key) => Bound::Excluded(key),
            None => Bound::Unbounded,
        };
        let mut bytes = 0;
        let mut rows = Vec::new();
        for (key, row) in self.rows.range((from, Bound::Unbounded)) {
            let (key, value) = (key.to_bytes(), encode_row(row));
            bytes += key.len() + value.len();
            rows.push(RowChange {
                table,
                key,
                value: Some(value),
            });
            if bytes >= bytes_max {
                break;
            }
        }
        rows
    }

    /// The row of a key as it is stored.
    pub(super) fn stored(&self, table: u8, key: &K) -> Option<RowChange> {
        self.rows.get(key).map(|row| RowChange {
            table,
            key: key.to_bytes(),
            value: Some(encode_row(row)),
        })
    }

    /// Takes a stored row.
    pub(super) fn load(&mut self, table: u8, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let bad = |why: String| LoadError::Row { table, why };
        let key = K::from_bytes(key).ok_or_else(|| bad(String::from("its key is none of this table")))?;
        let (form, row) = value.split_first().ok_or_else(|| bad(String::from("it is empty")))?;
        if *form != ROW_FORM {
            return Err(LoadError::Form { table, form: *form });
        }
        let (row, left) = postcard::take_from_bytes(row).map_err(|e| bad(e.to_string()))?;
        if !left.is_empty() {
            return Err(bad(String::from("bytes follow it")));
        }
        self.rows.insert(key, row);
        Ok(())
    }
}

pub(super) fn encode_row<V: Serialize>(row: &V) -> Vec<u8> {
    postcard::to_extend(row, vec![ROW_FORM]).expect("rows are plain data and memory can be had")
}

/// How many rows were looked up by their keys, so that tests count instead of timing.
#[cfg(test)]
pub(crate) mod looks {
    use std::cell::Cell;

    thread_local! {
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        LOOKS.set(LOOKS.get() + 1);
    }

    /// What `run` returns, and how many rows it looked up.
    pub(crate) fn during<T>(run: impl FnOnce() -> T) -> (T, u64) {
        let before = LOOKS.get();
        let made = run();
        (made, LOOKS.get() - before)
    }
}
