//! The log: appending, reading, forgetting its beginning.
//!
//! Where the entries are on disk, their terms and sizes are all in memory (16 bytes each), and the newest entries themselves: raft-rs asks for
//! terms all the time, and for entries mostly to send the newest to followers. What is not applied yet is always in memory, so that raft-rs
//! never has to read a disk, and fail, while it prepares what to apply.

use std::collections::VecDeque;

use super::encode::{self, ENTRY_BYTES_MAX, keys};
use super::tables::{Batch, Durability, Family, Tables};
use super::{Entry, HardState, Position, Store, StoreError, order};

/// Newest entries kept in memory: some ten thousand job events, so that a follower that was away for a minute is served from memory.
pub const RECENT_BYTES_MAX: usize = 8 << 20;
/// What an entry costs beside its content, in messages and in memory.
const ENTRY_OVERHEAD: usize = 32;
/// What one read of the log's table brings.
const READ_BYTES: usize = 1 << 20;

/// What an entry counts against a bound in bytes.
pub(super) fn size(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    term: u64,
    bytes: u32,
}

/// Terms and sizes of all entries, and the newest entries themselves.
#[derive(Debug)]
pub(super) struct Directory {
    /// The index of `slots[0]`.
    first: u64,
    slots: VecDeque<Slot>,
    bytes: u64,
    /// The newest entries, without a gap, up to the last.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
}

impl Directory {
    pub(super) fn after(compacted: Position) -> Self {
        Self {
            first: compacted.index + 1,
            slots: VecDeque::new(),
            bytes: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
        }
    }

    pub(super) fn last(&self) -> u64 {
        self.first + self.slots.len() as u64 - 1
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn slot(&self, index: u64) -> Option<Slot> {
        let at = index.checked_sub(self.first)?;
        self.slots.get(usize::try_from(at).ok()?).copied()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let bytes = size(&entry);
        self.slots.push_back(Slot {
            term: entry.term,
            // Entries are far smaller than 4 GiB.
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        });
        self.bytes += bytes as u64;
        self.recent_bytes += bytes;
        self.recent.push_back(entry);
    }

    /// Forgets the entry `from` and all after it.
    fn cut(&mut self, from: u64) {
        while self.last() >= from {
            let Some(slot) = self.slots.pop_back() else { break };
            self.bytes -= u64::from(slot.bytes);
            if let Some(entry) = self.recent.pop_back() {
                self.recent_bytes -= size(&entry);
            }
        }
    }

    /// Forgets entries up to `to`.
    fn compact(&mut self, to: u64) {
        while self.first <= to {
            let Some(slot) = self.slots.pop_front() else { break };
            self.first += 1;
            self.bytes -= u64::from(slot.bytes);
        }
        while self.recent.front().is_some_and(|entry| entry.index <= to) {
            self.forget_oldest();
        }
    }

    /// Lets go of entries that are applied and too many.
    pub(super) fn trim(&mut self, applied: u64) {
        while self.recent_bytes > RECENT_BYTES_MAX && self.recent.front().is_some_and(|entry| entry.index <= applied) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(entry) = self.recent.pop_front() {
            self.recent_bytes -= size(&entry);
        }
    }

    fn recent_from(&self) -> u64 {
        self.recent.front().map_or(self.last() + 1, |entry| entry.index)
    }
}

impl<T: Tables> Store<T> {
    /// The term of an entry, also of the one before the first. None: there is no such entry any more, or yet.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.compacted.index {
            return Some(self.compacted.term);
        }
        self.log.slot(index).map(|slot| slot.term)
    }

    /// What the entries after `index` count in bytes.
    pub fn log_bytes_after(&self, index: u64) -> u64 {
        let skip = index.saturating_sub(self.compacted.index);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        self.log.slots.iter().skip(skip).map(|slot| u64::from(slot.bytes)).sum()
    }

    /// Adds entries behind the log, or in the place of those from the first's index on, and changes the vote, as one batch.
    ///
    /// # Errors
    /// [`StoreError::Order`] when an entry would leave a gap or replace a committed one, or the vote would go back; others by cause.
    pub fn append(
        &mut self,
        entries: Vec<Entry>,
        hard: Option<HardState>,
        durability: Durability,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        let mut last = self.log.last();
        if let Some(first) = entries.first() {
            if first.index <= self.hard.commit {
                return order("a committed entry would be replaced");
            }
            if first.index > last + 1 {
                return order("an entry would leave a gap");
            }
            if first.index <= last {
                batch.delete_range(Family::Log, encode::entry_key(first.index), encode::entry_key(last + 1));
            }
            let mut before = Position {
                index: first.index - 1,
                term: self.term(first.index - 1).unwrap_or_default(),
            };
            for entry in &entries {
                if entry.index != before.index + 1 || entry.term < before.term {
                    return order("entries do not follow each other");
                }
                if entry.data.len() > ENTRY_BYTES_MAX {
                    return Err(StoreError::TooLarge {
                        what: "an entry",
                        bytes: entry.data.len(),
                        max: ENTRY_BYTES_MAX,
                    });
                }
                before = entry.position();
                batch.put(Family::Log, encode::entry_key(entry.index), encode::entry(entry));
            }
            last = before.index;
        }
        if let Some(hard) = hard {
            self.check_vote(&hard, last)?;
            batch.put(Family::Meta, keys::HARD, encode::fact(keys::HARD, &hard));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.write(batch, durability)?;
        if let Some(first) = entries.first() {
            self.log.cut(first.index);
        }
        for entry in entries {
            self.log.push(entry);
        }
        self.log.trim(self.applied.index);
        self.hard = hard.unwrap_or(self.hard);
        Ok(())
    }

    pub(super) fn check_vote(&self, hard: &HardState, last: u64) -> Result<(), StoreError> {
        if hard.term < self.hard.term || hard.commit < self.hard.commit {
            return order("the term or the commit would go back");
        }
        if hard.term == self.hard.term && self.hard.vote != 0 && hard.vote != self.hard.vote {
            return order("a second vote would be given in one term");
        }
        if hard.commit > last {
            return order("the commit would be past the log");
        }
        Ok(())
    }

    /// Reads the entries from `low` (included) to `high` (excluded), until the next would exceed `bytes_max`; at least one.
    ///
    /// # Errors
    /// [`StoreError::Order`] when the log has not all of them; others by cause.
    pub fn entries(&self, low: u64, high: u64, bytes_max: usize) -> Result<Vec<Entry>, StoreError> {
        if low > high || low < self.first_index() || high > self.last_index() + 1 {
            return order("entries were asked for that the log has not");
        }
        let mut found: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut fits = |entry: &Entry| {
            bytes += size(entry);
            bytes <= bytes_max
        };
        let mut at = low;
        // The older ones, from the table.
        let old = self.log.recent_from().min(high);
        while at < old {
            for (key, value) in self.tables.scan(Family::Log, &encode::entry_key(at), READ_BYTES)? {
                let entry = encode::read_entry(&key, value)?;
                if entry.index != at {
                    return Err(StoreError::Gap {
                        missing: at,
                        next: entry.index,
                    });
                }
                if !fits(&entry) && !found.is_empty() {
                    return Ok(found);
                }
                found.push(entry);
                at += 1;
                if at >= old {
                    break;
                }
            }
        }
        // The newer ones, from memory.
        let skip = usize::try_from(at.saturating_sub(self.log.recent_from())).unwrap_or(usize::MAX);
        for entry in self.log.recent.iter().skip(skip) {
            if entry.index >= high || (!fits(entry) && !found.is_empty()) {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    /// Forgets the entries up to `to`, which is applied. A crash may bring them back, and that is harmless.
    ///
    /// # Errors
    /// [`StoreError::Order`] when `to` is not applied; others by cause.
    pub fn compact(&mut self, to: u64) -> Result<(), StoreError> {
        if to <= self.compacted.index {
            return Ok(());
        }
        let Some(term) = self.term(to).filter(|_| to <= self.applied.index) else {
            return order("an entry would be forgotten that is not applied");
        };
        let compacted = Position { index: to, term };
        let mut batch = Batch::default();
        batch.put(Family::Meta, keys::COMPACTED, encode::fact(keys::COMPACTED, &compacted));
        batch.delete_range(
            Family::Log,
            encode::entry_key(self.first_index()),
            encode::entry_key(to + 1),
        );
        self.write(batch, Durability::Later)?;
        self.compacted = compacted;
        self.log.compact(to);
        Ok(())
    }
}
