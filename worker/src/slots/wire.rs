//! Between our words and the messages of `slots.proto`. What arrives is checked here, once.

use std::collections::HashMap;

use bytes::Bytes;
use tresor_proto::v1;
use tresor_storage::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, VaultId, Writer};
use tresor_storage::index::{Answer, IndexSession};
use tresor_storage::limits::PACK_CHUNKS_MAX;

/// Ids of one request: those of a pack.
pub(crate) const IDS_MAX: usize = PACK_CHUNKS_MAX;
/// Largest message: the ids and locations of a pack.
pub(crate) const MESSAGE_MAX: usize = IDS_MAX * (32 + 1 + 20 + 20) + (64 << 10);
/// Notes of damage of one message.
pub(crate) const DAMAGE_MAX: usize = 1 << 16;

const ID: usize = 32;
const WRITER: usize = 24;
const ROW: usize = 20;

/// A message that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// One id with the grant under which its owner is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The id.
    pub(crate) id: ChunkId,
    /// The owner epoch.
    pub(crate) epoch: u64,
}

/// How a change of one id went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// Taken, and synced.
    Taken,
    /// It is not as it was said to be.
    Otherwise,
    /// Not held under that epoch.
    NotHeld,
}

pub(crate) fn ask(asked: &[Asked]) -> v1::SlotAsk {
    let mut ids = Vec::with_capacity(asked.len() * ID);
    let mut epochs: Vec<u64> = Vec::new();
    let mut epoch_of = Vec::with_capacity(asked.len());
    for Asked { id, epoch } in asked {
        ids.extend_from_slice(&id.0);
        let at = epochs.iter().position(|known| known == epoch).unwrap_or_else(|| {
            epochs.push(*epoch);
            epochs.len() - 1
        });
        epoch_of.push(u8::try_from(at).expect("who asks names at most 256 grants"));
    }
    v1::SlotAsk {
        ids: ids.into(),
        epochs,
        epoch_of: epoch_of.into(),
    }
}

/// Grants that one message can name.
pub(crate) const EPOCHS_MAX: usize = 256;

pub(crate) fn asked(message: Option<v1::SlotAsk>) -> Result<Vec<Asked>, Malformed> {
    let message = message.ok_or(Malformed("it asks nothing"))?;
    let (ids, []) = message.ids.as_chunks::<ID>() else {
        return Err(Malformed("ids have 32 bytes each"));
    };
    if ids.len() > IDS_MAX {
        return Err(Malformed("too many ids"));
    }
    if message.epoch_of.len() != ids.len() {
        return Err(Malformed("an epoch for each id"));
    }
    ids.iter()
        .zip(&message.epoch_of)
        .map(|(id, at)| {
            let epoch = message
                .epochs
                .get(usize::from(*at))
                .ok_or(Malformed("an epoch that is not named"))?;
            Ok(Asked {
                id: ChunkId(*id),
                epoch: *epoch,
            })
        })
        .collect()
}

pub(crate) fn session(vault: VaultId, session: IndexSession) -> v1::SlotSession {
    v1::SlotSession {
        vault: vault.0.to_vec().into(),
        cluster: session.cluster.0,
        session: session.session.0,
        start_epoch: session.start_epoch,
    }
}

pub(crate) fn vault_of(bytes: &[u8]) -> Result<VaultId, Malformed> {
    VaultId::from_slice(bytes).map_err(|_| Malformed("a vault's id has 16 bytes"))
}

pub(crate) fn session_of(message: Option<v1::SlotSession>) -> Result<(VaultId, IndexSession), Malformed> {
    let message = message.ok_or(Malformed("it names no session"))?;
    let session = IndexSession {
        cluster: ClusterId(message.cluster),
        session: SessionId(message.session),
        start_epoch: message.start_epoch,
    };
    Ok((vault_of(&message.vault)?, session))
}

/// A writer's 24 bytes.
pub(crate) fn writer(writer: Writer) -> [u8; WRITER] {
    let mut bytes = [0; WRITER];
    let numbers = [writer.cluster.0, writer.session.0, writer.part.0];
    for (to, number) in bytes.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_be_bytes());
    }
    bytes
}

pub(crate) fn writer_of(bytes: &[u8]) -> Result<Writer, Malformed> {
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return Err(Malformed("a writer has 24 bytes"));
    };
    let [cluster, session, part] = numbers else {
        return Err(Malformed("a writer has 24 bytes"));
    };
    Ok(Writer {
        cluster: ClusterId(u64::from_be_bytes(*cluster)),
        session: SessionId(u64::from_be_bytes(*session)),
        part: PartId(u64::from_be_bytes(*part)),
    })
}

pub(crate) fn locations<'a>(of: impl IntoIterator<Item = &'a Location>) -> v1::Locations {
    let mut writers = Vec::new();
    let mut numbers: HashMap<Writer, u32> = HashMap::new();
    let mut rows = Vec::new();
    for at in of {
        let next = u32::try_from(numbers.len()).expect("fewer than ids of a message");
        let number = *numbers.entry(at.pack.writer).or_insert_with(|| {
            writers.extend_from_slice(&writer(at.pack.writer));
            next
        });
        for field in [number, at.pack.seq, at.frame_offset, at.frame_length, at.place] {
            rows.extend_from_slice(&field.to_le_bytes());
        }
    }
    v1::Locations {
        writers: writers.into(),
        rows: rows.into(),
    }
}

pub(crate) fn locations_of(message: Option<v1::Locations>) -> Result<Vec<Location>, Malformed> {
    let Some(message) = message else { return Ok(Vec::new()) };
    let (writers, []) = message.writers.as_chunks::<WRITER>() else {
        return Err(Malformed("a writer has 24 bytes"));
    };
    let (rows, []) = message.rows.as_chunks::<ROW>() else {
        return Err(Malformed("a location has 20 bytes"));
    };
    if rows.len() > IDS_MAX || writers.len() > rows.len() {
        return Err(Malformed("too many locations"));
    }
    let writers: Vec<Writer> = writers.iter().map(|bytes| writer_of(bytes)).collect::<Result<_, _>>()?;
    rows.iter()
        .map(|row| {
            let field = |at: usize| u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
            let writer = writers
                .get(field(0) as usize)
                .ok_or(Malformed("a writer that is not named"))?;
            Ok(Location {
                pack: PackId {
                    writer: *writer,
                    seq: field(4),
                },
                frame_offset: field(8),
                frame_length: field(12),
                place: field(16),
            })
        })
        .collect()
}

/// Pairs ids with locations; as many of both.
pub(crate) fn located(asked: Vec<Asked>, locations: Vec<Location>) -> Result<Vec<(Asked, Location)>, Malformed> {
    if asked.len() != locations.len() {
        return Err(Malformed("a location for each id"));
    }
    Ok(asked.into_iter().zip(locations).collect())
}

/// An answer, or none where the slot is not held.
pub(crate) fn answers(answers: &[Option<Answer>]) -> v1::SlotLookupResponse {
    let kind = |answer: &Option<Answer>| match answer {
        Some(Answer::New) => 0,
        Some(Answer::Claimed) => 1,
        Some(Answer::Known(_)) => 2,
        None => 3,
    };
    let known = answers.iter().filter_map(|answer| match answer {
        Some(Answer::Known(at)) => Some(at),
        _ => None,
    });
    v1::SlotLookupResponse {
        kinds: answers.iter().map(kind).collect::<Vec<u8>>().into(),
        locations: Some(locations(known)),
    }
}

pub(crate) fn answers_of(message: v1::SlotLookupResponse, asked: usize) -> Result<Vec<Option<Answer>>, Malformed> {
    if message.kinds.len() != asked {
        return Err(Malformed("an answer for each id"));
    }
    let mut locations = locations_of(message.locations)?.into_iter();
    let answers: Vec<Option<Answer>> = message
        .kinds
        .iter()
        .map(|kind| match kind {
            0 => Ok(Some(Answer::New)),
            1 => Ok(Some(Answer::Claimed)),
            2 => {
                let at = locations.next().ok_or(Malformed("a location for each known id"))?;
                Ok(Some(Answer::Known(at)))
            }
            3 => Ok(None),
            _ => Err(Malformed("an answer of no meaning")),
        })
        .collect::<Result<_, _>>()?;
    match locations.next() {
        None => Ok(answers),
        Some(_) => Err(Malformed("a location of no id")),
    }
}

pub(crate) fn changed(changed: &[Changed]) -> v1::SlotChanged {
    let kind = |changed: &Changed| match changed {
        Changed::Taken => 0,
        Changed::Otherwise => 1,
        Changed::NotHeld => 3,
    };
    v1::SlotChanged {
        kinds: changed.iter().map(kind).collect::<Vec<u8>>().into(),
    }
}

pub(crate) fn changed_of(kinds: &Bytes, asked: usize) -> Result<Vec<Changed>, Malformed> {
    if kinds.len() != asked {
        return Err(Malformed("an answer for each id"));
    }
    kinds
        .iter()
        .map(|kind| match kind {
            0 => Ok(Changed::Taken),
            1 => Ok(Changed::Otherwise),
            3 => Ok(Changed::NotHeld),
            _ => Err(Malformed("an answer of no meaning")),
        })
        .collect()
}

pub(crate) fn damage(damage: &[(PackId, Option<u32>)]) -> Vec<v1::SlotDamage> {
    let one = |(pack, frame_offset): &(PackId, Option<u32>)| v1::SlotDamage {
        writer: writer(pack.writer).to_vec().into(),
        seq: pack.seq,
        frame_offset: *frame_offset,
    };
    damage.iter().map(one).collect()
}

pub(crate) fn damage_of(messages: Vec<v1::SlotDamage>) -> Result<Vec<(PackId, Option<u32>)>, Malformed> {
    if messages.len() > DAMAGE_MAX {
        return Err(Malformed("too much damage"));
    }
    let one = |message: v1::SlotDamage| {
        let pack = PackId {
            writer: writer_of(&message.writer)?,
            seq: message.seq,
        };
        Ok((pack, message.frame_offset))
    };
    messages.into_iter().map(one).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn location() -> impl Strategy<Value = Location> {
        (0..3u64, any::<[u32; 4]>()).prop_map(|(session, [seq, frame_offset, frame_length, place])| Location {
            pack: PackId {
                writer: Writer {
                    cluster: ClusterId(7),
                    session: SessionId(session),
                    part: PartId(u64::MAX),
                },
                seq,
            },
            frame_offset,
            frame_length,
            place,
        })
    }

    fn one_asked() -> impl Strategy<Value = Asked> {
        (any::<[u8; 32]>(), 0..9u64).prop_map(|(id, epoch)| Asked { id: ChunkId(id), epoch })
    }

    proptest! {
        #[test]
        fn questions_survive_the_wire(all in proptest::collection::vec(one_asked(), 0..40)) {
            prop_assert_eq!(asked(Some(ask(&all))).unwrap(), all);
        }

        #[test]
        fn locations_survive_the_wire(all in proptest::collection::vec(location(), 0..40)) {
            prop_assert_eq!(locations_of(Some(locations(&all))).unwrap(), all);
        }

        #[test]
        fn answers_survive_the_wire(all in proptest::collection::vec(proptest::option::of(prop_oneof![
            Just(Answer::New), Just(Answer::Claimed), location().prop_map(Answer::Known),
        ]), 0..40)) {
            prop_assert_eq!(answers_of(answers(&all), all.len()).unwrap(), all);
        }

        #[test]
        fn any_bytes_are_read_or_refused(writers: Vec<u8>, rows: Vec<u8>, ids: Vec<u8>, epochs: Vec<u64>, epoch_of: Vec<u8>) {
            let _ = locations_of(Some(v1::Locations { writers: writers.into(), rows: rows.into() }));
            let _ = asked(Some(v1::SlotAsk { ids: ids.into(), epochs, epoch_of: epoch_of.into() }));
        }
    }

    #[test]
    fn answers_that_do_not_fit_the_question_are_refused() {
        let at = Location {
            pack: PackId {
                writer: Writer {
                    cluster: ClusterId(1),
                    session: SessionId(2),
                    part: PartId(3),
                },
                seq: 4,
            },
            frame_offset: 5,
            frame_length: 6,
            place: 7,
        };
        let good = answers(&[Some(Answer::Known(at)), None]);
        assert!(answers_of(good.clone(), 2).is_ok());
        assert!(answers_of(good.clone(), 1).is_err());
        let without = v1::SlotLookupResponse {
            locations: None,
            ..good.clone()
        };
        assert!(answers_of(without, 2).is_err());
        let none_known = v1::SlotLookupResponse {
            kinds: vec![0, 3].into(),
            ..good
        };
        assert!(answers_of(none_known, 2).is_err(), "a location too many");
        assert!(changed_of(&vec![2].into(), 1).is_err());
    }
}
