//! Reading a checkpoint piece by piece, and refusing what contradicts itself.

use super::piece::{Entries, Head, PackSet, Piece, malformed};
use crate::error::{Doing, Error, FormatError, Result};
use crate::ids::{CheckpointId, PackId};
use crate::index::Found;
use crate::index::slot::{SlotSet, slot_of, slots_of};
use crate::limits::CHECKPOINT_PIECE_MAX;
use crate::seal::{FRAME_OVERHEAD, OBJECT_HEADER, ObjectKind, open_object};
use crate::vault::{Vault, names};

/// Reads one checkpoint: first all packs, then the entries.
#[derive(Debug)]
pub struct CheckpointReader<'a> {
    vault: &'a Vault,
    id: CheckpointId,
    head: Head,
    /// The piece to be read next.
    next: u32,
    /// Pieces read, the head among them.
    read: u64,
    last_pack: Option<PackId>,
    packs: u64,
    last_entry: Option<Found>,
    entries: u64,
    passed_over: bool,
}

impl<'a> CheckpointReader<'a> {
    /// Reads the head.
    ///
    /// # Errors
    /// Those of the store, or what is wrong with it.
    pub async fn open(vault: &'a Vault, id: CheckpointId) -> Result<Self> {
        let Piece::Head(head) = read_piece(vault, id, 0).await? else {
            return Err(malformed("its first piece is no head")).doing(|| doing(id, 0));
        };
        if head.slots != id.slots {
            return Err(malformed("its head and its name tell of other slots")).doing(|| doing(id, 0));
        }
        Ok(Self {
            vault,
            id,
            head,
            next: 1,
            read: 1,
            last_pack: None,
            packs: 0,
            last_entry: None,
            entries: 0,
            passed_over: false,
        })
    }

    /// What its head says.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Pieces read so far.
    pub fn pieces_read(&self) -> u64 {
        self.read
    }

    /// The next part of the set of packs; `None` when there is no more.
    ///
    /// # Errors
    /// Those of the store, or what is wrong with it.
    pub async fn next_packs(&mut self) -> Result<Option<PackSet>> {
        if self.next > self.head.pack_pieces {
            return Ok(None);
        }
        let piece = read_piece(self.vault, self.id, self.next).await?;
        let taken = self.take_packs(piece);
        let set = taken.doing(|| doing(self.id, self.next))?;
        self.next += 1;
        self.read += 1;
        Ok(Some(set))
    }

    fn take_packs(&mut self, piece: Piece) -> Result<PackSet, FormatError> {
        let Piece::Packs(set) = piece else {
            return Err(malformed("a piece of another kind"));
        };
        let (first, last) = set.0.ends().ok_or(malformed("a piece without packs"))?;
        if self.last_pack.is_some_and(|before| before >= first) {
            return Err(malformed("packs are out of order"));
        }
        self.last_pack = Some(last);
        self.packs = self.packs.saturating_add(set.packs());
        if self.packs > self.head.packs || (self.next == self.head.pack_pieces && self.packs != self.head.packs) {
            return Err(malformed("has another number of packs than its head says"));
        }
        Ok(set)
    }

    /// The entries of the next piece that has some of these slots, which the checkpoint has; those of other slots among them. `None` when there
    /// is no more.
    ///
    /// # Errors
    /// Those of the store, or what is wrong with it.
    pub async fn next_entries(&mut self, slots: &SlotSet) -> Result<Option<Vec<Found>>> {
        self.next = self.next.max(self.head.pack_pieces + 1);
        let wanted = slots.group(self.id.group) & self.head.slots;
        loop {
            let at = (self.next - self.head.pack_pieces - 1) as usize;
            let Some((first, last)) = self.head.spans.get(at).copied() else {
                return Ok(None);
            };
            if !(first..=last).any(|slot| wanted >> slot & 1 == 1) {
                self.next += 1;
                self.passed_over = true;
                continue;
            }
            let piece = read_piece(self.vault, self.id, self.next).await?;
            let taken = self.take_entries(piece, (first, last), at + 1 == self.head.spans.len());
            let entries = taken.doing(|| doing(self.id, self.next))?;
            self.next += 1;
            self.read += 1;
            return Ok(Some(entries));
        }
    }

    fn take_entries(&mut self, piece: Piece, span: (u8, u8), is_last: bool) -> Result<Vec<Found>, FormatError> {
        let Piece::Entries(entries) = piece else {
            return Err(malformed("a piece of another kind"));
        };
        if entries.span() != Some(span) {
            return Err(malformed("a piece has other slots than its head says"));
        }
        let Entries(entries) = entries;
        let has = SlotSet::of_group(self.id.group, self.head.slots);
        let of_group = slots_of(self.id.group);
        if !entries
            .iter()
            .map(|found| slot_of(&found.id))
            .all(|slot| of_group.contains(&slot) && has.contains(slot))
        {
            return Err(malformed("an entry of a slot that it does not have"));
        }
        if self
            .last_entry
            .zip(entries.first().copied())
            .is_some_and(|(before, first)| before.id >= first.id)
        {
            return Err(malformed("pieces are out of order"));
        }
        self.last_entry = entries.last().copied();
        self.entries += entries.len() as u64;
        let wrong =
            self.entries > self.head.entries || (is_last && !self.passed_over && self.entries != self.head.entries);
        if wrong {
            return Err(malformed("has another number of entries than its head says"));
        }
        Ok(entries)
    }
}

fn doing(id: CheckpointId, piece: u32) -> String {
    format!("read checkpoint {}", names::checkpoint(id, piece))
}

async fn read_piece(vault: &Vault, id: CheckpointId, piece: u32) -> Result<Piece> {
    const LENGTH_MAX: usize = CHECKPOINT_PIECE_MAX + OBJECT_HEADER + FRAME_OVERHEAD;
    let name = names::checkpoint(id, piece);
    let read = async {
        let bytes = vault.backend.read(&name, LENGTH_MAX).await?;
        let (header, plain) = open_object(&vault.keyring, ObjectKind::Checkpoint, vault.id, &name, &bytes)?;
        header.expect(ObjectKind::Checkpoint, vault.id, Some((id.writer, piece)))?;
        Ok::<_, Error>(Piece::decode(&plain)?)
    };
    read.await.doing(|| doing(id, piece))
}
