//! Sets of packs as runs: a writer numbers its packs densely, so a set of a million packs is some kilobytes a thousand writers.
//!
//! ```text
//! writers u32 · writers × { cluster u64 · session u64 · part u64 · runs u32 } · runs of all, × { first u32 · packs u32 }
//! ```
//! Writers ascend; a writer's runs ascend and do not touch. So a set has one form.

use std::collections::BTreeMap;

use crate::error::FormatError;
use crate::ids::{ClusterId, PackId, PartId, SessionId, Writer};

/// Numbers of packs, one after another: the first and the last.
pub(super) type Run = (u32, u32);

const WRITER: usize = 28;
const RUN: usize = 8;

/// A set of packs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Runs(BTreeMap<Writer, Vec<Run>>);

impl Runs {
    /// Adds a pack, which stands behind all others of its writer. Anything else is not added, and `false` is the answer.
    pub(super) fn push(&mut self, pack: PackId) -> bool {
        let runs = self.0.entry(pack.writer).or_default();
        match runs.last_mut() {
            Some((_, last)) if *last >= pack.seq => return false,
            Some((_, last)) if *last + 1 == pack.seq => *last = pack.seq,
            _ => runs.push((pack.seq, pack.seq)),
        }
        true
    }

    /// Bytes that it takes.
    pub(super) fn encoded_length(&self) -> usize {
        4 + self.0.values().map(|runs| WRITER + runs.len() * RUN).sum::<usize>()
    }

    /// Number of packs.
    pub(super) fn packs(&self) -> u64 {
        let run = |(first, last): &Run| u64::from(last - first) + 1;
        self.0.values().flatten().map(run).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writers and their runs, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Writer, &[Run])> {
        self.0.iter().map(|(writer, runs)| (*writer, runs.as_slice()))
    }

    /// The first pack and the last.
    pub(super) fn ends(&self) -> Option<(PackId, PackId)> {
        let pack = |writer: &Writer, seq| PackId { writer: *writer, seq };
        let (first, runs) = self.0.first_key_value()?;
        let (last, last_runs) = self.0.last_key_value()?;
        Some((pack(first, runs.first()?.0), pack(last, last_runs.last()?.1)))
    }

    /// Writes it behind `bytes`.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        for (writer, runs) in &self.0 {
            encode_writer(*writer, bytes);
            bytes.extend_from_slice(&(runs.len() as u32).to_le_bytes());
        }
        for (first, last) in self.0.values().flatten() {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&(last - first).wrapping_add(1).to_le_bytes());
        }
    }

    /// Takes one from the front of `bytes`. Memory is bounded by their length.
    ///
    /// # Errors
    /// Cut short, or not the one form of a set.
    pub(super) fn decode(bytes: &mut &[u8], what: &'static str) -> Result<Self, FormatError> {
        let malformed = |why| FormatError::Malformed { what, why };
        let writers = u64::from(take_u32(bytes, what)?);
        let rows = take(bytes, writers * WRITER as u64, what)?;
        let mut runs_all: u64 = 0;
        let mut counts = Vec::with_capacity(rows.len() / WRITER);
        for row in rows.chunks_exact(WRITER) {
            let mut row = row;
            let writer = take_writer(&mut row, what)?;
            let runs = take_u32(&mut row, what)?;
            if runs == 0 {
                return Err(malformed("a writer without packs"));
            }
            if counts.last().is_some_and(|(before, _)| *before >= writer) {
                return Err(malformed("writers are out of order"));
            }
            runs_all += u64::from(runs);
            counts.push((writer, runs));
        }
        let mut rows = take(bytes, runs_all * RUN as u64, what)?;
        let mut set = BTreeMap::new();
        for (writer, count) in counts {
            let mut runs: Vec<Run> = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let first = take_u32(&mut rows, what)?;
                let packs = take_u32(&mut rows, what)?;
                // A run of all 2³² numbers would be written as 0; nobody has one.
                let last = packs.checked_sub(1).and_then(|more| first.checked_add(more));
                let last = last.ok_or(malformed("a run without end"))?;
                if runs
                    .last()
                    .is_some_and(|(_, before)| before.checked_add(1).is_none_or(|next| next >= first))
                {
                    return Err(malformed("runs are out of order or touch"));
                }
                runs.push((first, last));
            }
            set.insert(writer, runs);
        }
        Ok(Self(set))
    }
}

/// Writes a writer's 24 bytes.
pub(super) fn encode_writer(writer: Writer, bytes: &mut Vec<u8>) {
    for number in [writer.cluster.0, writer.session.0, writer.part.0] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

/// Takes a writer's 24 bytes.
pub(super) fn take_writer(bytes: &mut &[u8], what: &'static str) -> Result<Writer, FormatError> {
    Ok(Writer {
        cluster: ClusterId(take_u64(bytes, what)?),
        session: SessionId(take_u64(bytes, what)?),
        part: PartId(take_u64(bytes, what)?),
    })
}

/// Takes so many bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: u64, what: &'static str) -> Result<&'a [u8], FormatError> {
    let have = bytes.len() as u64;
    let split = usize::try_from(length)
        .ok()
        .and_then(|length| bytes.split_at_checked(length));
    let Some((taken, rest)) = split else {
        return Err(FormatError::Truncated {
            what,
            need: length,
            have,
        });
    };
    *bytes = rest;
    Ok(taken)
}

/// Takes a number of four bytes.
pub(super) fn take_u32(bytes: &mut &[u8], what: &'static str) -> Result<u32, FormatError> {
    let taken = take(bytes, 4, what)?;
    Ok(u32::from_le_bytes(taken.try_into().expect("four bytes were taken")))
}

/// Takes a number of eight bytes.
pub(super) fn take_u64(bytes: &mut &[u8], what: &'static str) -> Result<u64, FormatError> {
    let taken = take(bytes, 8, what)?;
    Ok(u64::from_le_bytes(taken.try_into().expect("eight bytes were taken")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn pack((part, seq): (u64, u32)) -> PackId {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(part),
        };
        PackId { writer, seq }
    }

    fn set(packs: &BTreeSet<(u64, u32)>) -> Runs {
        let mut runs = Runs::default();
        for name in packs {
            assert!(runs.push(pack(*name)));
        }
        runs
    }

    proptest! {
        #[test]
        fn any_set_survives_its_bytes(packs in proptest::collection::btree_set((0..5u64, prop_oneof![0..30u32, any::<u32>()]), 0..60)) {
            let runs = set(&packs);
            prop_assert_eq!(runs.packs(), packs.len() as u64);
            let mut bytes = vec![7];
            runs.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), 1 + runs.encoded_length());
            let mut rest = &bytes[1..];
            prop_assert_eq!(Runs::decode(&mut rest, "set"), Ok(runs.clone()));
            prop_assert!(rest.is_empty());
            let ends = packs.first().zip(packs.last()).map(|(first, last)| (pack(*first), pack(*last)));
            prop_assert_eq!(runs.ends(), ends);
            for cut in 0..bytes.len() - 1 {
                prop_assert!(Runs::decode(&mut &bytes[1..1 + cut], "set").is_err(), "cut at {cut}");
            }
        }

        #[test]
        fn any_bytes_are_read_exactly_or_refused(bytes in proptest::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..150)) {
            let mut rest = bytes.as_slice();
            if let Ok(runs) = Runs::decode(&mut rest, "set") {
                let mut again = Vec::new();
                runs.encode(&mut again);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - rest.len()]);
            }
        }
    }

    #[test]
    fn packs_out_of_order_are_not_taken() {
        let mut runs = set(&[(1, 4)].into());
        assert!(!runs.push(pack((1, 4))));
        assert!(!runs.push(pack((1, 3))));
        assert!(runs.push(pack((0, 3))));
        assert_eq!(runs.packs(), 2);
    }

    #[test]
    fn touching_runs_are_refused() {
        let mut bytes = Vec::new();
        set(&[(1, 4), (1, 6)].into()).encode(&mut bytes);
        let at = bytes.len() - 8;
        bytes[at] = 5;
        let error = Runs::decode(&mut bytes.as_slice(), "set").unwrap_err();
        assert!(matches!(error, FormatError::Malformed { .. }), "{error}");
    }
}
