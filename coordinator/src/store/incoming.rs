//! Receiving a snapshot: it is loaded beside the rows that count, checked, and then made to count by one batch.
//!
//! ```text
//! begin_load    the other side is emptied
//! load          its rows, piece by piece; numbers and keys only ever grow
//! finish_load   count and digest of what came are those of what was sent
//! load_back     … and those of what the disk gives back; the state machine is made of it
//! adopt         one synced batch: the other side counts, applied, members, vote, the log is empty
//! ```
//! A crash before `adopt` leaves the old state and garbage on the other side, which the next `begin_load` removes; a crash after it leaves
//! the new state.

use super::encode::{self, ROW_BYTES_MAX, ROW_KEY_BYTES_MAX, ROW_TABLES, keys};
use super::log::Directory;
use super::outgoing::{Digest, PIECE_BYTES, Piece, ROW_HEADER, SnapshotEnd};
use super::rows::read_family;
use super::tables::{Batch, Durability, Family, Tables};
use super::{HardState, Membership, Position, Row, Store, StoreError, order};

/// Largest piece: one large row with its key. With what a message adds it stays below the 4 MiB that gRPC takes.
pub const PIECE_BYTES_MAX: usize = 3 << 20;
const _: () = assert!(ROW_BYTES_MAX + ROW_KEY_BYTES_MAX + 1 + ROW_HEADER <= PIECE_BYTES_MAX);

/// A snapshot being loaded.
#[derive(Debug)]
pub(super) struct Incoming {
    position: Position,
    pieces: u64,
    last_key: Vec<u8>,
    digest: Digest,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Loading,
    Received(SnapshotEnd),
    Checked,
}

fn broken<T>(why: &'static str) -> Result<T, StoreError> {
    Err(StoreError::Snapshot { why })
}

impl<T: Tables> Store<T> {
    /// Begins to load a snapshot of the state after `position`, from its first piece, whatever was being loaded before.
    ///
    /// # Errors
    /// [`StoreError::Order`] when it is not newer than what is applied; others by cause.
    pub fn begin_load(&mut self, position: Position) -> Result<(), StoreError> {
        if position.index <= self.applied.index {
            return order("a snapshot would take the rows back");
        }
        self.incoming = None;
        self.clear_other_side()?;
        self.incoming = Some(Incoming {
            position,
            pieces: 0,
            last_key: Vec::new(),
            digest: Digest::default(),
            stage: Stage::Loading,
        });
        Ok(())
    }

    /// Where the snapshot that is being loaded will lead.
    pub fn loading(&self) -> Option<Position> {
        self.incoming.as_ref().map(|incoming| incoming.position)
    }

    /// Loads the next piece. One that was loaded before does nothing.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`] for a piece that is not the next, or not made of rows in order: begin again; others by cause.
    pub fn load(&mut self, piece: &Piece) -> Result<(), StoreError> {
        let family = self.side.other().family();
        let Some(incoming) = &mut self.incoming else {
            return broken("none is being loaded");
        };
        if piece.number < incoming.pieces {
            return Ok(());
        }
        if piece.number > incoming.pieces || incoming.stage != Stage::Loading {
            return broken("a piece is missing");
        }
        // Nothing of a piece is taken before all of it was looked at.
        let mut last = &incoming.last_key[..];
        let mut digest = incoming.digest.clone();
        let mut batch = Batch::default();
        for pair in split(&piece.bytes)? {
            let (key, value) = pair;
            if key <= last {
                return broken("its rows are not in order");
            }
            last = key;
            digest.see(key, value);
            batch.put(family, key, value);
        }
        incoming.last_key = last.to_vec();
        incoming.digest = digest;
        incoming.pieces += 1;
        // It need not survive: a crash begins again.
        self.write(batch, Durability::Later)
    }

    /// Checks that all pieces came as they were sent.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`]: begin again.
    pub fn finish_load(&mut self, end: &SnapshotEnd) -> Result<(), StoreError> {
        let Some(incoming) = &mut self.incoming else {
            return broken("none is being loaded");
        };
        if incoming.pieces != end.pieces {
            return broken("a piece is missing");
        }
        if let Err(why) = incoming.digest.check(end) {
            return broken(why);
        }
        incoming.stage = Stage::Received(*end);
        Ok(())
    }

    /// Gives the loaded rows to `read` as the disk has them, and checks that they are those that came.
    ///
    /// # Errors
    /// [`StoreError::Snapshot`] when they are not: what `read` made of them is dropped; others by cause.
    pub fn load_back<R>(&mut self, read: impl FnOnce(&mut dyn Iterator<Item = Row>) -> R) -> Result<R, StoreError> {
        let family = self.side.other().family();
        let Some(incoming) = &mut self.incoming else {
            return broken("none is being loaded");
        };
        let Stage::Received(end) = incoming.stage else {
            return broken("it was not received whole");
        };
        let mut digest = Digest::default();
        let made = read_family(&self.tables, family, |key, value| digest.see(key, value), read)?;
        if let Err(why) = digest.check(&end) {
            return broken(why);
        }
        incoming.stage = Stage::Checked;
        Ok(made)
    }

    /// Makes the loaded snapshot count, with its members, and empties the log. One synced batch.
    ///
    /// # Errors
    /// [`StoreError::Order`] when no snapshot of this position was checked, or it would take something back; others by cause.
    pub fn adopt(&mut self, position: Position, membership: Membership, hard: HardState) -> Result<(), StoreError> {
        let checked = self
            .incoming
            .as_ref()
            .is_some_and(|incoming| incoming.position == position && incoming.stage == Stage::Checked);
        if !checked {
            return order("a snapshot would count that was not checked");
        }
        if position.index <= self.applied.index || hard.commit != position.index {
            return order("a snapshot would take something back");
        }
        if membership.check().is_err() || !membership.is_known() {
            return order("a snapshot would leave a cluster that cannot be");
        }
        self.check_vote(&hard, position.index)?;
        let side = self.side.other();
        let mut batch = Batch::default();
        let mut put = |key: &[u8], value| batch.put(Family::Meta, key, value);
        put(keys::SIDE, encode::fact(keys::SIDE, &side));
        put(keys::APPLIED, encode::fact(keys::APPLIED, &position));
        put(keys::COMPACTED, encode::fact(keys::COMPACTED, &position));
        put(keys::MEMBERSHIP, encode::fact(keys::MEMBERSHIP, &membership));
        put(keys::HARD, encode::fact(keys::HARD, &hard));
        // raft-rs takes a snapshot only when the log has no such entry: what there is, before and after it, is of no use.
        batch.delete_range(Family::Log, [], [u8::MAX; 9]);
        self.write(batch, Durability::Synced)?;
        self.incoming = None;
        self.side = side;
        self.applied = position;
        self.compacted = position;
        self.membership = membership;
        self.hard = hard;
        self.log = Directory::after(position);
        // For its space alone; the next `begin_load` does it again.
        self.clear_other_side()
    }

    /// Forgets the snapshot that is being loaded, if there is one.
    ///
    /// # Errors
    /// When the tables cannot be written.
    pub fn abandon_load(&mut self) -> Result<(), StoreError> {
        match self.incoming.take() {
            Some(_) => self.clear_other_side(),
            None => Ok(()),
        }
    }

    fn clear_other_side(&mut self) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        batch.delete_range(self.side.other().family(), [], [ROW_TABLES]);
        self.write(batch, Durability::Later)
    }
}

type PairRef<'a> = (&'a [u8], &'a [u8]);

/// The rows of a piece.
fn split(mut bytes: &[u8]) -> Result<Vec<PairRef<'_>>, StoreError> {
    if bytes.len() > PIECE_BYTES_MAX {
        return broken("a piece is too large");
    }
    if bytes.is_empty() {
        return broken("a piece is empty");
    }
    let mut rows = Vec::with_capacity(bytes.len().min(PIECE_BYTES) / 128);
    while !bytes.is_empty() {
        let take = |bytes: &mut &[u8]| -> Option<usize> {
            let (length, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            usize::try_from(u32::from_le_bytes(*length)).ok()
        };
        let (Some(key), Some(value)) = (take(&mut bytes), take(&mut bytes)) else {
            return broken("a row is cut short");
        };
        if key == 0 || key > 1 + ROW_KEY_BYTES_MAX || value > ROW_BYTES_MAX {
            return broken("a row has a length that none has");
        }
        let Some((row, rest)) = bytes.split_at_checked(key + value) else {
            return broken("a row is cut short");
        };
        let (key, value) = row.split_at(key);
        if key[0] == ROW_TABLES {
            return broken("a row is of a table that there is not");
        }
        rows.push((key, value));
        bytes = rest;
    }
    Ok(rows)
}
