//! The store as raft-rs wants to see it.
//!
//! raft-rs panics when its storage fails in the wrong moment. So it is asked nothing of a disk but old entries for a follower; an error there is
//! kept for the core, which stops, and raft-rs is told that the entries are not to be had now.

use std::cell::RefCell;
use std::collections::BTreeMap;

use raft::eraftpb;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use tresor_proto::ids::MemberId;

use super::limits::SNAPSHOTS_SENT_MAX;
use super::members;
use crate::store::tables::Tables;
use crate::store::{Entry, EntryKind, HardState, Outgoing, Store, StoreError};

/// A store, and what raft-rs asked of it.
pub(super) struct Shelf<T: Tables> {
    pub(super) store: Store<T>,
    /// Views that raft-rs was told about, whose message is not sent yet.
    prepared: RefCell<BTreeMap<MemberId, Outgoing<T::View>>>,
    /// Snapshots that are being sent, and the entry after which each is.
    pub(super) sending: BTreeMap<MemberId, u64>,
    trouble: RefCell<Option<StoreError>>,
}

impl<T: Tables> Shelf<T> {
    pub(super) fn new(store: Store<T>) -> Self {
        Self {
            store,
            prepared: RefCell::default(),
            sending: BTreeMap::new(),
            trouble: RefCell::default(),
        }
    }

    /// An error that raft-rs was not told about.
    pub(super) fn trouble(&self) -> Result<(), StoreError> {
        self.trouble.take().map_or(Ok(()), Err)
    }

    /// The view for the message that goes to this member now.
    pub(super) fn take_snapshot(&mut self, to: MemberId) -> Option<Outgoing<T::View>> {
        let snapshot = self.prepared.get_mut().remove(&to)?;
        self.sending.insert(to, snapshot.position().index);
        Some(snapshot)
    }
}

fn unavailable<V>(error: StorageError) -> raft::Result<V> {
    Err(raft::Error::Store(error))
}

impl<T: Tables> Storage for Shelf<T> {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let hard = self.store.hard();
        Ok(RaftState {
            hard_state: to_hard_state(hard),
            conf_state: members::conf_state(self.store.membership()),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.store.first_index() {
            return unavailable(StorageError::Compacted);
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let bytes_max = usize::try_from(max_size).unwrap_or(usize::MAX);
        match self.store.entries(low, high, bytes_max) {
            Ok(entries) => Ok(entries.into_iter().map(to_raft).collect()),
            Err(error) => {
                self.trouble.replace(Some(error));
                unavailable(match context.can_async() {
                    true => StorageError::LogTemporarilyUnavailable,
                    // Only entries that are not applied are asked for so, and those are in memory.
                    false => StorageError::Unavailable,
                })
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        match self.store.term(index) {
            Some(term) => Ok(term),
            None if index < self.store.first_index() => unavailable(StorageError::Compacted),
            None => unavailable(StorageError::Unavailable),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.store.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.store.last_index())
    }

    /// The state after the last entry applied. Its message carries where it is and who the members are; the rows follow on a stream of their own.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let to = MemberId(to);
        let mut prepared = self.prepared.borrow_mut();
        prepared.remove(&to);
        let is_known = self.store.membership().contains(to);
        let is_busy = self.sending.contains_key(&to) || self.sending.len() + prepared.len() >= SNAPSHOTS_SENT_MAX;
        // The entry that adds a member is applied a moment before it is stored so; raft-rs asks again with the next heartbeat.
        if !is_known || is_busy || self.store.applied().index < request_index {
            return unavailable(StorageError::SnapshotTemporarilyUnavailable);
        }
        let snapshot = match self.store.snapshot() {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.trouble.replace(Some(error));
                return unavailable(StorageError::SnapshotTemporarilyUnavailable);
            }
        };
        let position = snapshot.position();
        let metadata = eraftpb::SnapshotMetadata {
            conf_state: Some(members::conf_state(snapshot.membership())).into(),
            index: position.index,
            term: position.term,
            ..Default::default()
        };
        let data = postcard::to_stdvec(snapshot.membership()).expect("plain values in memory can be encoded");
        prepared.insert(to, snapshot);
        Ok(eraftpb::Snapshot {
            data: data.into(),
            metadata: Some(metadata).into(),
            ..Default::default()
        })
    }
}

fn to_hard_state(hard: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: hard.term,
        vote: hard.vote,
        commit: hard.commit,
        ..Default::default()
    }
}

pub(super) fn from_hard_state(hard: &eraftpb::HardState) -> HardState {
    HardState {
        term: hard.term,
        vote: hard.vote,
        commit: hard.commit,
    }
}

fn to_raft(entry: Entry) -> eraftpb::Entry {
    eraftpb::Entry {
        entry_type: match entry.kind {
            EntryKind::Command => eraftpb::EntryType::EntryNormal,
            EntryKind::Change => eraftpb::EntryType::EntryConfChangeV2,
        },
        term: entry.term,
        index: entry.index,
        data: entry.data,
        ..Default::default()
    }
}

/// Entries of the older kind of change, and with a context, are not made and not let in.
pub(super) fn from_raft(entry: eraftpb::Entry) -> Entry {
    Entry {
        index: entry.index,
        term: entry.term,
        kind: match entry.entry_type {
            eraftpb::EntryType::EntryNormal => EntryKind::Command,
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => EntryKind::Change,
        },
        data: entry.data,
    }
}
