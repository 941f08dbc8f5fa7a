//! Writing a checkpoint from an index, a piece at a time.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::piece::{Entries, Head, PackSet, Piece};
use crate::error::{Doing, Error, FormatError, Kind, Result};
use crate::ids::{CheckpointId, Writer};
use crate::index::rocks::GroupPart;
use crate::index::slot::SlotSet;
use crate::index::{IndexError, RocksIndex};
use crate::limits::{CHECKPOINT_ENTRIES_MAX, CHECKPOINT_PIECES_MAX};
use crate::seal::{ObjectKind, seal_object};
use crate::vault::{Vault, names};
use tracing::Instrument as _;

/// A checkpoint that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointWritten {
    /// Its name.
    pub id: CheckpointId,
    /// What its head says.
    pub head: Head,
    /// Objects put, the head among them.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Writes a checkpoint of those of `slots` in a group that are complete; `None` when none is.
///
/// The writer's session stands for the newest grant among these slots, its part is the process's; `number` is the next that this process did not use
/// for the group. Memory: two pieces. A writing that was given up leaves pieces without a head, which [`super::prune`] removes when newer ones
/// are there.
///
/// # Errors
/// Those of the store and of the index. [`crate::backend::BackendError::Exists`] when the number was used.
pub async fn write(
    vault: &Arc<Vault>,
    index: &RocksIndex,
    group: u8,
    slots: &SlotSet,
    writer: Writer,
    number: u32,
) -> Result<Option<CheckpointWritten>> {
    let (to, mut parts) = mpsc::channel(1);
    let reading = {
        let (index, slots) = (index.clone(), slots.clone());
        tokio::spawn(async move { index.read_group(group, slots, CHECKPOINT_ENTRIES_MAX, to).await }.in_current_span())
    };
    let Some(GroupPart::Slots(complete)) = parts.recv().await else {
        return Err(ended(reading.await).err().unwrap_or_else(|| given_up().into()));
    };
    if complete == 0 {
        return Ok(None);
    }
    let id = CheckpointId {
        group,
        writer,
        number,
        slots: complete,
    };
    let mut writing = Writing {
        vault,
        id,
        next: 1,
        bytes: 0,
    };
    let mut head = Head {
        slots: complete,
        ..Head::default()
    };
    let mut set = PackSet::default();
    let mut is_of_packs = true;
    while let Some(part) = parts.recv().await {
        match part {
            GroupPart::Packs(packs) => {
                for pack in packs {
                    if set.is_full() {
                        writing.put_packs(&mut head, std::mem::take(&mut set)).await?;
                    }
                    assert!(set.push(pack), "an index tells packs in their order");
                }
            }
            GroupPart::Entries(entries) => {
                if std::mem::take(&mut is_of_packs) {
                    writing.put_packs(&mut head, std::mem::take(&mut set)).await?;
                }
                let entries = Entries(entries);
                head.entries += entries.0.len() as u64;
                head.spans.extend(entries.span());
                writing.put(Piece::Entries(entries)).await?;
            }
            GroupPart::Slots(_) => unreachable!("an index tells slots once, at first"),
        }
    }
    // Before the head: what was told may not have been all.
    ended(reading.await)?;
    if is_of_packs {
        writing.put_packs(&mut head, set).await?;
    }
    writing.next = 0;
    let objects = 1 + u64::from(head.pack_pieces) + head.spans.len() as u64;
    writing.put(Piece::Head(head.clone())).await?;
    Ok(Some(CheckpointWritten {
        id,
        head,
        objects,
        bytes: writing.bytes,
    }))
}

struct Writing<'a> {
    vault: &'a Arc<Vault>,
    id: CheckpointId,
    next: u32,
    bytes: u64,
}

impl Writing<'_> {
    async fn put_packs(&mut self, head: &mut Head, set: PackSet) -> Result<()> {
        if set.is_empty() {
            return Ok(());
        }
        head.packs += set.packs();
        head.pack_pieces += 1;
        self.put(Piece::Packs(set)).await
    }

    async fn put(&mut self, piece: Piece) -> Result<()> {
        let Self { id, next, .. } = *self;
        let name = names::checkpoint(id, next);
        if next as usize >= CHECKPOINT_PIECES_MAX {
            return Err(FormatError::TooLarge {
                what: "number of pieces of a checkpoint",
                value: u64::from(next) + 1,
                max: CHECKPOINT_PIECES_MAX as u64,
            })
            .doing(|| format!("write checkpoint {name}"));
        }
        let sealed = {
            let (vault, name) = (Arc::clone(self.vault), name.clone());
            let seal = move || {
                let (keyring, plain) = (&vault.keyring, piece.encode());
                seal_object(
                    keyring,
                    ObjectKind::Checkpoint,
                    vault.id,
                    id.writer,
                    next,
                    &name,
                    &plain,
                )
            };
            match tokio::task::spawn_blocking(seal).await {
                Ok(sealed) => sealed?,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(given_up().into()),
                },
            }
        };
        self.bytes += sealed.len() as u64;
        let put = self.vault.backend.create(&name, &[sealed]).await;
        put.doing(|| format!("put checkpoint {name}"))?;
        self.next += 1;
        Ok(())
    }
}

fn ended(reading: std::result::Result<Result<(), IndexError>, tokio::task::JoinError>) -> Result<()> {
    match reading {
        Ok(read) => Ok(read?),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::from(given_up())),
        },
    }
}

/// The runtime is going.
fn given_up() -> IndexError {
    IndexError::Database {
        what: "read a group",
        kind: Kind::Retry,
        source: "it was given up".into(),
    }
}
