//! Slots: the shares into which ids fall, so that many workers can answer for one index. Pure.
//!
//! An id's slot is its first twelve bits. Ids are keyed hashes, so slots are alike in size, and in a database whose keys are ids a slot is one
//! range. Slots stand in groups of 64 neighbours where something is kept for many of them at once.

use std::fmt;
use std::ops::Range;

use crate::ids::ChunkId;

/// Number of slots: 244,000 entries each at a thousand million, and a thousand workers have four each.
pub const SLOTS: u16 = 4096;
/// Slots of a group.
pub const GROUP: u16 = 64;
/// Number of groups.
pub const GROUPS: u8 = 64;

const _: () = {
    // A word of a set is a group, and a word has a bit for each group.
    assert!(GROUP == 64 && GROUPS == 64);
    assert!(GROUP * GROUPS as u16 == SLOTS);
};

/// The slot of an id.
pub fn slot_of(id: &ChunkId) -> u16 {
    u16::from(id.0[0]) << 4 | u16::from(id.0[1] >> 4)
}

/// The group of a slot.
pub fn group_of(slot: u16) -> u8 {
    (slot / GROUP) as u8
}

/// The slots of a group.
pub fn slots_of(group: u8) -> Range<u16> {
    let first = u16::from(group) * GROUP;
    first..first + GROUP
}

/// Keys between which all ids of neighbouring slots stand: from the first on, up to and without the second.
pub fn keys_of(slots: Range<u16>) -> (Vec<u8>, Vec<u8>) {
    let first = |slot: u16| {
        if slot >= SLOTS {
            // Behind every id.
            return vec![u8::MAX; size_of::<ChunkId>() + 1];
        }
        vec![(slot >> 4) as u8, (slot << 4) as u8]
    };
    (first(slots.start), first(slots.end))
}

/// A set of slots.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SlotSet {
    /// One word a group, its lowest slot the lowest bit.
    groups: [u64; GROUPS as usize],
}

impl SlotSet {
    /// Bytes of a set.
    pub const LENGTH: usize = SLOTS as usize / 8;

    /// None.
    pub const fn new() -> Self {
        Self {
            groups: [0; GROUPS as usize],
        }
    }

    /// All of them.
    pub const fn all() -> Self {
        Self {
            groups: [u64::MAX; GROUPS as usize],
        }
    }

    /// Those of one group, its lowest slot the lowest bit.
    pub fn of_group(group: u8, slots: u64) -> Self {
        let mut set = Self::new();
        set.groups[usize::from(group)] = slots;
        set
    }

    /// Adds a slot; says whether it was not in yet.
    ///
    /// # Panics
    /// When there is no such slot.
    pub fn insert(&mut self, slot: u16) -> bool {
        let is_new = !self.contains(slot);
        self.groups[usize::from(group_of(slot))] |= 1 << (slot % GROUP);
        is_new
    }

    /// Takes a slot out; says whether it was in.
    pub fn remove(&mut self, slot: u16) -> bool {
        let was_in = self.contains(slot);
        if was_in {
            self.groups[usize::from(group_of(slot))] &= !(1 << (slot % GROUP));
        }
        was_in
    }

    /// Whether a slot is in it.
    pub fn contains(&self, slot: u16) -> bool {
        slot < SLOTS && self.groups[usize::from(group_of(slot))] >> (slot % GROUP) & 1 == 1
    }

    /// Number of slots.
    pub fn len(&self) -> usize {
        self.groups.iter().map(|group| group.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups == [0; GROUPS as usize]
    }

    /// Those in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.with(other, |a, b| a | b)
    }

    /// Those in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.with(other, |a, b| a & b)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.with(other, |a, b| a & !b)
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let mut joined = self.clone();
        for (word, other) in joined.groups.iter_mut().zip(other.groups) {
            *word = join(*word, other);
        }
        joined
    }

    /// Whether all are in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// The slots of one group, its lowest the lowest bit.
    pub fn group(&self, group: u8) -> u64 {
        self.groups[usize::from(group)]
    }

    /// Groups with a slot in it, the lowest group the lowest bit.
    pub fn groups(&self) -> u64 {
        let bits = self.groups.iter().enumerate().filter(|(_, slots)| **slots != 0);
        bits.fold(0, |groups, (group, _)| groups | 1 << group)
    }

    /// The slots, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        (0..SLOTS).filter(|slot| self.contains(*slot))
    }

    /// The slots as ranges, ascending, as few as there can be.
    pub fn ranges(&self) -> impl Iterator<Item = Range<u16>> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = (from..SLOTS).find(|slot| self.contains(*slot))?;
            let end = (start..SLOTS).find(|slot| !self.contains(*slot)).unwrap_or(SLOTS);
            from = end;
            Some(start..end)
        })
    }

    /// Its bytes: slot n is bit n % 8 of byte n / 8.
    pub fn to_bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        for (to, group) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.groups) {
            *to = group.to_le_bytes();
        }
        bytes
    }

    /// Reads its bytes; those that are left out are 0. `None` for more than there can be.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut whole = [0; Self::LENGTH];
        whole.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let mut set = Self::new();
        for (group, from) in set.groups.iter_mut().zip(whole.as_chunks::<8>().0) {
            *group = u64::from_le_bytes(*from);
        }
        Some(set)
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.ranges()).finish()
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<I: IntoIterator<Item = u16>>(slots: I) -> Self {
        let mut set = Self::new();
        set.extend(slots);
        set
    }
}

impl Extend<u16> for SlotSet {
    fn extend<I: IntoIterator<Item = u16>>(&mut self, slots: I) {
        for slot in slots {
            self.insert(slot);
        }
    }
}

/// The groups whose bits are set, ascending.
pub fn groups_in(groups: u64) -> impl Iterator<Item = u8> {
    (0..GROUPS).filter(move |group| groups >> group & 1 == 1)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slot_is_the_first_twelve_bits() {
        let mut id = [0; 32];
        id[..3].copy_from_slice(&[0xab, 0xcd, 0xff]);
        assert_eq!(slot_of(&ChunkId(id)), 0xabc);
        assert_eq!(slot_of(&ChunkId([0xff; 32])), SLOTS - 1);
        assert_eq!(group_of(0xabc), 0x2a);
        assert!(slots_of(0x2a).contains(&0xabc));
    }

    #[test]
    fn bits_lie_as_commits_name_them() {
        let set: SlotSet = [0, 9, 4095].into_iter().collect();
        let bytes = set.to_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[511]), (1, 2, 0x80));
        assert_eq!(SlotSet::from_bytes(&bytes[..2]), Some([0, 9].into_iter().collect()));
        assert_eq!(SlotSet::from_bytes(&[0; 513]), None);
        assert_eq!(set.groups(), 1 | 1 << 63);
    }

    fn slots() -> impl Strategy<Value = BTreeSet<u16>> {
        prop_oneof![
            proptest::collection::btree_set(0..SLOTS, 0..80),
            // Long runs, too.
            proptest::collection::btree_set(0..300u16, 0..300),
        ]
    }

    proptest! {
        #[test]
        fn a_set_agrees_with_the_standard_one(a in slots(), b in slots()) {
            let set = |slots: &BTreeSet<u16>| slots.iter().copied().collect::<SlotSet>();
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.iter().collect::<BTreeSet<_>>(), a.clone());
            prop_assert_eq!(x.len(), a.len());
            prop_assert_eq!(x.is_empty(), a.is_empty());
            prop_assert_eq!(x.union(&y), set(&(&a | &b)));
            prop_assert_eq!(x.intersection(&y), set(&(&a & &b)));
            prop_assert_eq!(x.difference(&y), set(&(&a - &b)));
            prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
            prop_assert_eq!(SlotSet::from_bytes(&x.to_bytes()), Some(x.clone()));
            let ranges: Vec<_> = x.ranges().collect();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start), "{ranges:?}");
            prop_assert_eq!(ranges.into_iter().flatten().collect::<BTreeSet<_>>(), a.clone());
            let groups: BTreeSet<u8> = a.iter().map(|slot| group_of(*slot)).collect();
            prop_assert_eq!(groups_in(x.groups()).collect::<BTreeSet<_>>(), groups);
            let mut emptied = x.clone();
            for slot in &b {
                prop_assert_eq!(emptied.remove(*slot), a.contains(slot));
            }
            prop_assert_eq!(emptied, x.difference(&y));
        }

        #[test]
        fn an_id_stands_between_the_keys_of_its_slot_alone(id: [u8; 32], other in 0..SLOTS) {
            let slot = slot_of(&ChunkId(id));
            for asked in [slot, other] {
                let (from, to) = keys_of(asked..asked + 1);
                let is_between = from.as_slice() <= id.as_slice() && id.as_slice() < to.as_slice();
                prop_assert_eq!(is_between, asked == slot);
            }
        }
    }

    #[test]
    fn the_last_keys_are_behind_every_id() {
        let (from, to) = keys_of(0..SLOTS);
        assert!(from.as_slice() <= [0; 32].as_slice() && [0xff; 32].as_slice() < to.as_slice());
        assert_eq!(SlotSet::all().ranges().collect::<Vec<_>>(), [0..SLOTS]);
        assert_eq!(SlotSet::from_bytes(&[0xff; 512]).unwrap(), SlotSet::all());
    }
}
