//! The list of a vault's packs: made once for a wave of grants, and handed from one worker to the others.

use std::collections::BTreeMap;

use futures::TryStreamExt;

use crate::error::{Doing, FormatError, Result};
use crate::ids::{PackId, Writer};
use crate::index::runs::{Runs, take, take_u32};
use crate::vault::{Vault, names};

/// The version of its bytes.
const VERSION: u32 = 1;
const WHAT: &str = "list of packs";
/// Names that no pack has, told one by one.
const STRANGE_MAX: usize = 100;

/// Packs that a listing showed, with their lengths: 8 B each in memory, and some 4 B encoded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackList {
    packs: BTreeMap<Writer, Vec<(u32, u32)>>,
    count: usize,
    strange: Vec<String>,
}

impl PackList {
    /// Lists `packs/`. Names that no pack has are kept apart.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn list(vault: &Vault) -> Result<Self> {
        let mut found: BTreeMap<Writer, BTreeMap<u32, u32>> = BTreeMap::new();
        let mut strange = Vec::new();
        let mut list = vault.backend.list(names::PACKS);
        while let Some(listed) = list.try_next().await.doing(|| "list packs".into())? {
            match names::parse_pack(&listed.name) {
                // One that is too long to be a pack is read no further than by its trailer, which refuses it.
                Some(id) => {
                    let length = u32::try_from(listed.length).unwrap_or(u32::MAX);
                    found.entry(id.writer).or_default().insert(id.seq, length);
                }
                None if strange.len() < STRANGE_MAX => strange.push(listed.name),
                None => {}
            }
        }
        let packs = found
            .into_iter()
            .map(|(writer, packs)| (writer, packs.into_iter().collect()));
        let mut list = Self::made_of(packs.collect());
        list.strange = strange;
        Ok(list)
    }

    fn made_of(packs: BTreeMap<Writer, Vec<(u32, u32)>>) -> Self {
        Self {
            count: packs.values().map(Vec::len).sum(),
            packs,
            strange: Vec::new(),
        }
    }

    /// Number of packs.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names in `packs/` that no pack has, the first of them. They are not handed on.
    pub fn strange(&self) -> &[String] {
        &self.strange
    }

    /// Length of a pack that is in it; that of one which is too long to be a pack is the largest number.
    pub fn length(&self, pack: PackId) -> Option<u32> {
        let packs = self.packs.get(&pack.writer)?;
        let at = packs.binary_search_by_key(&pack.seq, |(seq, _)| *seq).ok()?;
        Some(packs[at].1)
    }

    /// All packs and their lengths, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (PackId, u32)> {
        self.packs.iter().flat_map(|(writer, packs)| {
            let pack = |(seq, length): &(u32, u32)| {
                let pack = PackId {
                    writer: *writer,
                    seq: *seq,
                };
                (pack, *length)
            };
            packs.iter().map(pack)
        })
    }

    /// Writers and the numbers and lengths of their packs, ascending.
    #[cfg(feature = "rocks")]
    pub(super) fn writers(&self) -> impl Iterator<Item = (Writer, &[(u32, u32)])> {
        self.packs.iter().map(|(writer, packs)| (*writer, packs.as_slice()))
    }

    /// The numbers and lengths of a writer's packs, ascending.
    #[cfg(feature = "rocks")]
    pub(super) fn of(&self, writer: Writer) -> Option<&[(u32, u32)]> {
        self.packs.get(&writer).map(Vec::as_slice)
    }

    /// Its bytes: version u32 (1), a set of packs as in checkpoints, then the length of each, u32.
    pub fn encode(&self) -> Vec<u8> {
        let mut runs = Runs::default();
        for (pack, _) in self.iter() {
            assert!(runs.push(pack), "packs are told in their order");
        }
        let mut bytes = Vec::with_capacity(4 + runs.encoded_length() + self.count * 4);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        runs.encode(&mut bytes);
        for (_, length) in self.iter() {
            bytes.extend_from_slice(&length.to_le_bytes());
        }
        bytes
    }

    /// Reads its bytes. Memory is bounded by their number.
    ///
    /// # Errors
    /// [`FormatError::Unsupported`] for another version; else what is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut rest = bytes;
        let version = take_u32(&mut rest, WHAT)?;
        if version != VERSION {
            return Err(FormatError::Unsupported {
                what: "version of a list of packs",
                value: u64::from(version),
            });
        }
        let runs = Runs::decode(&mut rest, WHAT)?;
        // Counted before anything is made of them: a few bytes can claim thousands of millions of packs.
        let packs = runs.packs();
        let mut lengths = take(&mut rest, packs.saturating_mul(4), WHAT)?;
        if !rest.is_empty() {
            return Err(FormatError::Malformed {
                what: WHAT,
                why: "bytes behind its end",
            });
        }
        let mut list = BTreeMap::new();
        for (writer, runs) in runs.iter() {
            let mut packs = Vec::new();
            for (first, last) in runs {
                for seq in *first..=*last {
                    packs.push((seq, take_u32(&mut lengths, WHAT)?));
                }
            }
            list.insert(writer, packs);
        }
        Ok(Self::made_of(list))
    }
}

impl FromIterator<(PackId, u32)> for PackList {
    fn from_iter<I: IntoIterator<Item = (PackId, u32)>>(packs: I) -> Self {
        let mut found: BTreeMap<Writer, BTreeMap<u32, u32>> = BTreeMap::new();
        for (pack, length) in packs {
            found.entry(pack.writer).or_default().insert(pack.seq, length);
        }
        let packs = found
            .into_iter()
            .map(|(writer, packs)| (writer, packs.into_iter().collect()));
        Self::made_of(packs.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId};

    fn pack((part, seq): (u64, u32)) -> PackId {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(part),
        };
        PackId { writer, seq }
    }

    proptest! {
        #[test]
        fn any_list_survives_its_bytes(
            packs in proptest::collection::btree_map((0..4u64, prop_oneof![0..20u32, any::<u32>()]), any::<u32>(), 0..50),
            absent in (0..4u64, 0..20u32),
        ) {
            let packs: BTreeMap<PackId, u32> = packs.into_iter().map(|(name, length)| (pack(name), length)).collect();
            let list: PackList = packs.clone().into_iter().collect();
            prop_assert_eq!(list.len(), packs.len());
            prop_assert_eq!(list.length(pack(absent)), packs.get(&pack(absent)).copied());
            let bytes = list.encode();
            let back = PackList::decode(&bytes);
            prop_assert_eq!(back.as_ref(), Ok(&list));
            prop_assert_eq!(list.iter().collect::<BTreeMap<_, _>>(), packs);
            for cut in 0..bytes.len() {
                prop_assert!(PackList::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }

        #[test]
        fn any_bytes_are_read_exactly_or_refused(bytes in proptest::collection::vec(prop_oneof![0..3u8, any::<u8>()], 0..200)) {
            let bytes = [&[1, 0, 0, 0], &bytes[..]].concat();
            if let Ok(list) = PackList::decode(&bytes) {
                prop_assert_eq!(list.encode(), bytes);
            }
        }
    }

    #[test]
    fn a_run_of_millions_without_lengths_is_refused_by_counting() {
        let mut runs = Runs::default();
        assert!(runs.push(pack((1, 0))));
        let mut bytes = 1u32.to_le_bytes().to_vec();
        runs.encode(&mut bytes);
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(PackList::decode(&bytes), Err(FormatError::Truncated { .. })));
    }
}
