//! Writers by number: a row names its writer in 4 bytes instead of 24.
//!
//! Numbers are given in the batch that first uses them and never change; 0 is the first. A vault may have a million writers,
//! so only those in use are kept in memory.

use std::collections::HashMap;
use std::sync::{RwLock, RwLockReadGuard};

use rocksdb::{DB, Direction, IteratorMode, WriteBatch};

use super::open::{family, trouble};
use super::options::WRITERS;
use crate::ids::{ClusterId, PartId, SessionId, Writer};
use crate::index::IndexError;

/// Writers in memory, each way; then it starts anew. About 6 MB.
const CACHED_MAX: usize = 1 << 16;

const BY_NUMBER: u8 = b'n';
const BY_WRITER: u8 = b'w';

/// The cached part of the table.
#[derive(Debug, Default)]
pub(super) struct Writers {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_number: HashMap<u32, Writer>,
    by_writer: HashMap<Writer, u32>,
}

/// Numbers given within a batch that is not written yet. Only the holder of the write lock has one.
pub(super) struct Numbering<'a> {
    writers: &'a Writers,
    next: u32,
    given: HashMap<Writer, u32>,
}

impl Writers {
    /// The first number that is free.
    pub(super) fn next_number(db: &DB) -> Result<u32, IndexError> {
        let end = number_key(u32::MAX);
        let last = db
            .iterator_cf(family(db, WRITERS), IteratorMode::From(&end, Direction::Reverse))
            .next();
        let Some(last) = last else { return Ok(0) };
        let (key, _) = last.map_err(|e| trouble("read writers", e))?;
        let Some((&BY_NUMBER, number)) = key.split_first() else {
            return Ok(0);
        };
        let number = number
            .try_into()
            .map(u32::from_be_bytes)
            .map_err(|_| IndexError::Malformed)?;
        number.checked_add(1).ok_or(IndexError::Malformed)
    }

    /// The writer of each number that a batch of rows names, in order.
    pub(super) fn resolve(&self, db: &DB, numbers: &[u32]) -> Result<Vec<Writer>, IndexError> {
        {
            let known = self.read();
            let all: Option<Vec<Writer>> = numbers
                .iter()
                .map(|number| known.by_number.get(number).copied())
                .collect();
            if let Some(all) = all {
                return Ok(all);
            }
        }
        let find = |number: &u32| {
            let cached = self.read().by_number.get(number).copied();
            cached.map_or_else(|| self.load(db, *number), Ok)
        };
        numbers.iter().map(find).collect()
    }

    fn load(&self, db: &DB, number: u32) -> Result<Writer, IndexError> {
        let row = db
            .get_pinned_cf(family(db, WRITERS), number_key(number))
            .map_err(|e| trouble("read writers", e))?;
        let writer = row.and_then(|row| decode(&row)).ok_or(IndexError::Malformed)?;
        self.remember([(writer, number)]);
        Ok(writer)
    }

    fn remember(&self, writers: impl IntoIterator<Item = (Writer, u32)>) {
        let mut known = self.known.write().expect("no holder of this lock panics");
        for (writer, number) in writers {
            if known.by_number.len() >= CACHED_MAX {
                *known = Known::default();
            }
            known.by_number.insert(number, writer);
            known.by_writer.insert(writer, number);
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().expect("no holder of this lock panics")
    }
}

impl<'a> Numbering<'a> {
    /// Starts at the first free number.
    pub(super) fn new(writers: &'a Writers, next: u32) -> Self {
        Self {
            writers,
            next,
            given: HashMap::new(),
        }
    }

    /// The writer's number; a new one goes into the batch.
    pub(super) fn number(&mut self, db: &DB, batch: &mut WriteBatch, writer: Writer) -> Result<u32, IndexError> {
        if let Some(number) = self.given.get(&writer) {
            return Ok(*number);
        }
        if let Some(number) = self.writers.read().by_writer.get(&writer) {
            return Ok(*number);
        }
        let table = family(db, WRITERS);
        let key = writer_key(writer);
        if let Some(row) = db.get_pinned_cf(table, key).map_err(|e| trouble("read writers", e))? {
            let number = row
                .as_ref()
                .try_into()
                .map(u32::from_le_bytes)
                .map_err(|_| IndexError::Malformed)?;
            self.writers.remember([(writer, number)]);
            return Ok(number);
        }
        let number = self.next;
        // Four billion sessions; a rebuild numbers afresh those that still have packs.
        self.next = number.checked_add(1).ok_or(IndexError::Malformed)?;
        batch.put_cf(table, key, number.to_le_bytes());
        batch.put_cf(table, number_key(number), &key[1..]);
        self.given.insert(writer, number);
        Ok(number)
    }

    /// Keeps the numbers given, after the batch was written. Returns the first free one.
    pub(super) fn written(self) -> u32 {
        self.writers.remember(self.given);
        self.next
    }
}

fn number_key(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [BY_NUMBER, a, b, c, d]
}

fn writer_key(writer: Writer) -> [u8; 25] {
    let mut key = [BY_WRITER; 25];
    key[1..].copy_from_slice(&encode(writer));
    key
}

/// A writer's bytes, in the order of its text form.
pub(super) fn encode(writer: Writer) -> [u8; 24] {
    let mut bytes = [0; 24];
    let numbers = [writer.cluster.0, writer.session.0, writer.part.0];
    for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

/// Reads [`encode`]'s bytes.
pub(super) fn decode(bytes: &[u8]) -> Option<Writer> {
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let [cluster, session, part] = numbers else { return None };
    Some(Writer {
        cluster: ClusterId(u64::from_be_bytes(*cluster)),
        session: SessionId(u64::from_be_bytes(*session)),
        part: PartId(u64::from_be_bytes(*part)),
    })
}
