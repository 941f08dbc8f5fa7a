//! Sending a snapshot: the rows as they were at one entry, in pieces, while the store goes on.
//!
//! A piece is rows one after the other: length of the key u32, length of the row u32, little-endian, the key with its table, the row. Pieces
//! follow from the rows alone, so two snapshots of the same entry are cut alike.

use super::tables::{Pair, Tables, View};
use super::{Membership, Position, Store, StoreError};

/// Bytes of one piece, unless a single row is larger: what is read, sent and written at once.
pub const PIECE_BYTES: usize = 1 << 20;
/// The two lengths before each row.
pub(super) const ROW_HEADER: usize = 8;

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Its number, from 0.
    pub number: u64,
    /// Its rows.
    pub bytes: Vec<u8>,
}

/// What all pieces together must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEnd {
    /// Pieces.
    pub pieces: u64,
    /// Rows.
    pub rows: u64,
    /// BLAKE3 over all rows in order: the length of the key u32, the key with its table, the length of the row u32, the row.
    pub digest: [u8; 32],
}

/// Counts and digests rows in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Digest {
    rows: u64,
    hasher: blake3::Hasher,
}

impl Digest {
    pub(super) fn see(&mut self, key: &[u8], value: &[u8]) {
        self.rows += 1;
        for part in [key, value] {
            self.hasher.update(&length(part));
            self.hasher.update(part);
        }
    }

    /// Whether the rows seen are those of a whole snapshot.
    pub(super) fn check(&self, end: &SnapshotEnd) -> Result<(), &'static str> {
        if self.rows != end.rows {
            return Err("it has another number of rows");
        }
        if *self.hasher.finalize().as_bytes() != end.digest {
            return Err("its digest differs");
        }
        Ok(())
    }
}

fn length(part: &[u8]) -> [u8; 4] {
    u32::try_from(part.len()).expect("rows are bounded").to_le_bytes()
}

/// A snapshot being sent. Owned: it is read on any thread while the store is used.
pub struct Outgoing<V> {
    position: Position,
    membership: Membership,
    view: V,
    /// Read, and not in a piece yet.
    left: std::vec::IntoIter<Pair>,
    pieces: u64,
    digest: Digest,
    at_end: bool,
}

impl<T: Tables> Store<T> {
    /// Fixes the rows as they are now, for sending them.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn snapshot(&self) -> Result<Outgoing<T::View>, StoreError> {
        Ok(Outgoing {
            position: self.applied,
            membership: self.membership.clone(),
            view: self.tables.view(self.side.family())?,
            left: Vec::new().into_iter(),
            pieces: 0,
            digest: Digest::default(),
            at_end: false,
        })
    }
}

impl<V: View> Outgoing<V> {
    /// The last entry that its rows come from.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The members as of that entry.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Reads the next piece; none is left after the last. Waits for the disk.
    ///
    /// # Errors
    /// When the rows cannot be read: the snapshot is to be given up.
    pub fn next_piece(&mut self) -> Result<Option<Piece>, StoreError> {
        if self.left.as_slice().is_empty() {
            self.left = self.view.next(PIECE_BYTES)?.into_iter();
        }
        let mut bytes = Vec::with_capacity(PIECE_BYTES);
        while let Some((key, value)) = self.left.as_slice().first() {
            if !bytes.is_empty() && bytes.len() + ROW_HEADER + key.len() + value.len() > PIECE_BYTES {
                break;
            }
            self.digest.see(key, value);
            bytes.extend_from_slice(&length(key));
            bytes.extend_from_slice(&length(value));
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(value);
            self.left.next();
        }
        if bytes.is_empty() {
            self.at_end = true;
            return Ok(None);
        }
        let number = self.pieces;
        self.pieces += 1;
        Ok(Some(Piece { number, bytes }))
    }

    /// What the receiver must have got; known when there is no next piece.
    pub fn end(&self) -> Option<SnapshotEnd> {
        self.at_end.then(|| SnapshotEnd {
            pieces: self.pieces,
            rows: self.digest.rows,
            digest: *self.digest.hasher.finalize().as_bytes(),
        })
    }
}
