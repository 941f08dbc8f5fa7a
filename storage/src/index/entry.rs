//! What the index keeps of one id, and the rules by which that changes.
//!
//! The rules are pure; every implementation of the port is these rules and a map. What holds of any sequence of them:
//! 1. A touch epoch never falls.
//! 2. A good location is never replaced.
//! 3. A lost location answers [`Answer::New`] until another location is inserted; inserting the same one again (a repeated
//!    message) does not bring it back.
//! 4. Nothing is written when nothing changes, so a lookup without a newer epoch costs no write.
//! 5. A replacement moves only what is good and still where it was said to be, and keeps its touch: it says where the bytes are, not that
//!    anybody wants them.
//! 6. What a rebuild finds never takes anything away from what sessions did meanwhile.

use crate::ids::{ChunkId, Location, PackId, Writer};

use super::Answer;

/// Why an entry must not be relied on; none: it is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u8);

impl Flags {
    /// A good entry.
    pub const NONE: Self = Self(0);
    /// A sweep is about to remove it.
    pub const CONDEMNED: Self = Self(1);
    /// What it points at is damaged or gone.
    pub const LOST: Self = Self(2);

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Only those also in `other`.
    #[must_use]
    pub fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The stored byte.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// Reads the stored byte; `None` for bits of no meaning.
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits & !3 == 0).then_some(Self(bits))
    }
}

/// What the index keeps of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it lies.
    pub location: Location,
    /// The newest sweep epoch on whose behalf it was answered or inserted.
    pub touch: u64,
    /// Why it must not be relied on.
    pub flags: Flags,
}

impl Entry {
    /// Whether it may be answered to writers.
    pub fn is_good(&self) -> bool {
        self.flags == Flags::NONE
    }

    fn touched(self, touch: u64) -> Self {
        Self {
            touch: self.touch.max(touch),
            ..self
        }
    }
}

/// What a lookup answers, and the entry to write in place of `existing` when the touch raised its epoch.
pub fn answer(existing: Option<Entry>, touch: u64) -> (Answer, Option<Entry>) {
    match existing {
        Some(entry) if entry.is_good() => {
            let touched = entry.touched(touch);
            (Answer::Known(entry.location), (touched != entry).then_some(touched))
        }
        // Not touched: nobody relies on it, so nothing is to be kept from a sweep.
        Some(_) | None => (Answer::New, None),
    }
}

/// The entry after an insert of `new`. Compare with `existing` to know whether to write.
pub fn decide_insert(existing: Option<Entry>, new: Location, touch: u64) -> Entry {
    match existing {
        None => Entry {
            location: new,
            touch,
            flags: Flags::NONE,
        },
        Some(entry) if entry.is_good() => entry.touched(touch),
        // A repeated message of the session that put the damaged pack says nothing new about the damage. That a pack is
        // condemned, it does disprove: its own session is alive.
        Some(entry) if entry.location == new => Entry {
            flags: entry.flags.only(Flags::LOST),
            ..entry.touched(touch)
        },
        Some(entry) => Entry {
            location: new,
            flags: Flags::NONE,
            ..entry.touched(touch)
        },
    }
}

/// The entry after its location was found lost; `None` when it lies elsewhere by now or is flagged already.
pub fn decide_lost(existing: Option<Entry>, location: Location) -> Option<Entry> {
    let entry = existing.filter(|entry| entry.location == location)?;
    let lost = Entry {
        flags: entry.flags.with(Flags::LOST),
        ..entry
    };
    (lost != entry).then_some(lost)
}

/// The entry after its bytes were written again elsewhere; `None` when it is not good or not at `from`.
pub fn decide_replace(existing: Option<Entry>, from: Location, to: Location) -> Option<Entry> {
    let entry = existing.filter(|entry| entry.is_good() && entry.location == from)?;
    (from != to).then_some(Entry { location: to, ..entry })
}

/// One entry as a rebuild finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Found {
    /// The id.
    pub id: ChunkId,
    /// Where it lies.
    pub location: Location,
    /// Whether a checkpoint says that what it points at is damaged or gone.
    pub is_lost: bool,
}

/// The entry after a rebuild found one, whatever sessions did before or meanwhile. Compare with `existing` to know whether to write.
///
/// A good one is an insert that touches nothing. A lost one flags the entry at its own location, as a repeated insert of a
/// damaged piece may have come first; it says nothing of other locations.
pub fn decide_fill(existing: Option<Entry>, found: &Found) -> Entry {
    match existing {
        None => Entry {
            location: found.location,
            touch: 0,
            flags: if found.is_lost { Flags::LOST } else { Flags::NONE },
        },
        Some(entry) if found.is_lost => decide_lost(existing, found.location).unwrap_or(entry),
        Some(_) => decide_insert(existing, found.location, 0),
    }
}

/// Where a reader finds it: condemned entries still lie where they lay.
pub fn locate(existing: Option<Entry>) -> Option<Location> {
    existing
        .filter(|entry| !entry.flags.contains(Flags::LOST))
        .map(|entry| entry.location)
}

/// An [`Entry`] as a database row: the writer by its number in a table, integers little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Number of the pack's writer.
    pub writer: u32,
    /// The pack's number within its writer.
    pub seq: u32,
    /// [`Location::frame_offset`]
    pub frame_offset: u32,
    /// [`Location::frame_length`]
    pub frame_length: u32,
    /// [`Location::place`]
    pub place: u32,
    /// [`Entry::touch`]
    pub touch: u64,
    /// [`Entry::flags`]
    pub flags: Flags,
}

impl Row {
    /// Bytes of a row.
    pub const LENGTH: usize = 29;

    /// Takes an entry whose writer has this number.
    pub fn new(entry: &Entry, writer: u32) -> Self {
        let Location {
            pack,
            frame_offset,
            frame_length,
            place,
        } = entry.location;
        Self {
            writer,
            seq: pack.seq,
            frame_offset,
            frame_length,
            place,
            touch: entry.touch,
            flags: entry.flags,
        }
    }

    /// The entry, given the writer of that number.
    pub fn entry(&self, writer: Writer) -> Entry {
        let pack = PackId { writer, seq: self.seq };
        let Self {
            frame_offset,
            frame_length,
            place,
            touch,
            flags,
            ..
        } = *self;
        Entry {
            location: Location {
                pack,
                frame_offset,
                frame_length,
                place,
            },
            touch,
            flags,
        }
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        let numbers = [self.writer, self.seq, self.frame_offset, self.frame_length, self.place];
        for (to, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        bytes[20..28].copy_from_slice(&self.touch.to_le_bytes());
        bytes[28] = self.flags.bits();
        bytes
    }

    /// Reads it; `None` for another length or unknown flags.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LENGTH] = bytes.try_into().ok()?;
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (touch, flags) = bytes[20..].split_first_chunk::<8>()?;
        Some(Self {
            writer: number(0),
            seq: number(4),
            frame_offset: number(8),
            frame_length: number(12),
            place: number(16),
            touch: u64::from_le_bytes(*touch),
            flags: Flags::from_bits(flags[0])?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId};

    fn at(seq: u32) -> Location {
        let writer = Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(3),
        };
        Location {
            pack: PackId { writer, seq },
            frame_offset: 96,
            frame_length: 4096,
            place: seq,
        }
    }

    fn entry(seq: u32, touch: u64, flags: Flags) -> Entry {
        Entry {
            location: at(seq),
            touch,
            flags,
        }
    }

    const BOTH: Flags = Flags(3);

    #[test]
    fn lookups_answer_good_entries_alone_and_write_only_newer_epochs() {
        let good = entry(1, 5, Flags::NONE);
        let cases = [
            (None, 9, Answer::New, None),
            (Some(good), 0, Answer::Known(at(1)), None),
            (Some(good), 5, Answer::Known(at(1)), None),
            (Some(good), 6, Answer::Known(at(1)), Some(entry(1, 6, Flags::NONE))),
            (Some(entry(1, 5, Flags::LOST)), 9, Answer::New, None),
            (Some(entry(1, 5, Flags::CONDEMNED)), 9, Answer::New, None),
            (Some(entry(1, 5, BOTH)), 9, Answer::New, None),
        ];
        for (existing, touch, expected, write) in cases {
            assert_eq!(
                answer(existing, touch),
                (expected, write),
                "{existing:?} touched by {touch}"
            );
        }
    }

    #[test]
    fn the_first_good_location_wins_and_replaces_a_bad_one() {
        let cases = [
            // existing, new location, epoch, after
            (None, 1, 7, entry(1, 7, Flags::NONE)),
            (Some(entry(1, 5, Flags::NONE)), 2, 0, entry(1, 5, Flags::NONE)),
            (Some(entry(1, 5, Flags::NONE)), 2, 7, entry(1, 7, Flags::NONE)),
            (Some(entry(1, 5, Flags::LOST)), 2, 0, entry(2, 5, Flags::NONE)),
            (Some(entry(1, 5, Flags::CONDEMNED)), 2, 7, entry(2, 7, Flags::NONE)),
            (Some(entry(1, 5, BOTH)), 2, 7, entry(2, 7, Flags::NONE)),
            (Some(entry(1, 5, Flags::LOST)), 1, 7, entry(1, 7, Flags::LOST)),
            (Some(entry(1, 5, Flags::CONDEMNED)), 1, 7, entry(1, 7, Flags::NONE)),
            (Some(entry(1, 5, BOTH)), 1, 7, entry(1, 7, Flags::LOST)),
        ];
        for (existing, new, touch, after) in cases {
            assert_eq!(
                decide_insert(existing, at(new), touch),
                after,
                "{existing:?} + {new} touched by {touch}"
            );
        }
    }

    #[test]
    fn only_what_still_lies_there_is_flagged_lost() {
        assert_eq!(decide_lost(None, at(1)), None);
        assert_eq!(decide_lost(Some(entry(2, 5, Flags::NONE)), at(1)), None);
        assert_eq!(
            decide_lost(Some(entry(1, 5, Flags::NONE)), at(1)),
            Some(entry(1, 5, Flags::LOST))
        );
        assert_eq!(
            decide_lost(Some(entry(1, 5, Flags::CONDEMNED)), at(1)),
            Some(entry(1, 5, BOTH))
        );
        assert_eq!(decide_lost(Some(entry(1, 5, Flags::LOST)), at(1)), None);
    }

    #[test]
    fn readers_find_what_is_condemned_but_not_what_is_lost() {
        assert_eq!(locate(None), None);
        assert_eq!(locate(Some(entry(1, 0, Flags::NONE))), Some(at(1)));
        assert_eq!(locate(Some(entry(1, 0, Flags::CONDEMNED))), Some(at(1)));
        assert_eq!(locate(Some(entry(1, 0, Flags::LOST))), None);
    }

    #[test]
    fn a_row_of_another_length_or_with_unknown_flags_is_refused() {
        let row = Row::new(&entry(7, 8, Flags::LOST), 9);
        let bytes = row.encode();
        assert_eq!(bytes[..8], [9, 0, 0, 0, 7, 0, 0, 0]);
        assert_eq!(Row::decode(&bytes), Some(row));
        assert_eq!(Row::decode(&bytes[..28]), None);
        assert_eq!(Row::decode(&[&bytes[..], &[0]].concat()), None);
        let mut unknown = bytes;
        unknown[28] = 4;
        assert_eq!(Row::decode(&unknown), None);
    }

    proptest! {
        #[test]
        fn rows_survive_their_bytes(
            (writer, seq, frame_offset, frame_length, place) in any::<(u32, u32, u32, u32, u32)>(),
            touch: u64,
            flags in 0..4u8,
        ) {
            let flags = Flags::from_bits(flags).expect("two flags");
            let row = Row { writer, seq, frame_offset, frame_length, place, touch, flags };
            prop_assert_eq!(Row::decode(&row.encode()), Some(row));
        }

        #[test]
        fn rows_of_any_bytes_are_read_exactly_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(row) = Row::decode(&bytes) {
                prop_assert_eq!(&row.encode()[..], &bytes[..]);
            }
        }
    }

    /// One id as a person would tell its story: which places are known to be bad, which one counts.
    #[derive(Default)]
    struct Story {
        counts: Option<u32>,
        lost: bool,
        condemned: bool,
        touch: u64,
    }

    #[derive(Debug, Clone)]
    enum Step {
        Lookup(u64),
        Insert(u32, u64),
        Lose(u32),
        Condemn,
        Replace(u32, u32),
        Fill(u32, bool),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u64).prop_map(Step::Lookup),
            (0..3u32, 0..6u64).prop_map(|(seq, touch)| Step::Insert(seq, touch)),
            (0..3u32).prop_map(Step::Lose),
            Just(Step::Condemn),
            (0..3u32, 0..3u32).prop_map(|(from, to)| Step::Replace(from, to)),
            (0..3u32, any::<bool>()).prop_map(|(seq, is_lost)| Step::Fill(seq, is_lost)),
        ]
    }

    proptest! {
        #[test]
        fn any_history_agrees_with_the_story(steps in proptest::collection::vec(step(), 0..40)) {
            let mut story = Story::default();
            let mut kept: Option<Entry> = None;
            for step in steps {
                let before = kept;
                let is_replace = matches!(step, Step::Replace(..));
                match step {
                    Step::Lookup(touch) => {
                        let (found, write) = answer(kept, touch);
                        let good = story.counts.filter(|_| !story.lost && !story.condemned);
                        prop_assert_eq!(found, good.map_or(Answer::New, |seq| Answer::Known(at(seq))));
                        let raises = good.is_some() && touch > story.touch;
                        prop_assert_eq!(write.is_some(), raises, "a write without a newer epoch, or none with one");
                        if raises {
                            story.touch = touch;
                            kept = write;
                        }
                    }
                    Step::Insert(seq, touch) => {
                        kept = Some(decide_insert(kept, at(seq), touch));
                        let same = story.counts == Some(seq);
                        if story.counts.is_none() || ((story.lost || story.condemned) && !same) {
                            story = Story { counts: Some(seq), touch: story.touch, ..Story::default() };
                        } else if same {
                            story.condemned = false;
                        }
                        story.touch = story.touch.max(touch);
                    }
                    Step::Lose(seq) => {
                        if let Some(lost) = decide_lost(kept, at(seq)) {
                            kept = Some(lost);
                        }
                        story.lost |= story.counts == Some(seq);
                    }
                    Step::Condemn => {
                        kept = kept.map(|entry| Entry { flags: entry.flags.with(Flags::CONDEMNED), ..entry });
                        story.condemned |= story.counts.is_some();
                    }
                    Step::Replace(from, to) => {
                        let moved = decide_replace(kept, at(from), at(to));
                        let is_there = story.counts == Some(from) && !story.lost && !story.condemned;
                        prop_assert_eq!(moved.is_some(), is_there && from != to);
                        if let Some(moved) = moved {
                            kept = Some(moved);
                            story.counts = Some(to);
                        }
                    }
                    Step::Fill(seq, is_lost) => {
                        let found = Found { id: ChunkId([0; 32]), location: at(seq), is_lost };
                        kept = Some(decide_fill(kept, &found));
                        let same = story.counts == Some(seq);
                        match story.counts {
                            None => story = Story { counts: Some(seq), lost: is_lost, ..Story::default() },
                            Some(_) if is_lost => story.lost |= same,
                            Some(_) if same => story.condemned = false,
                            Some(_) if story.lost || story.condemned => {
                                story = Story { counts: Some(seq), touch: story.touch, ..Story::default() };
                            }
                            Some(_) => {}
                        }
                    }
                }
                prop_assert_eq!(kept.map(|entry| entry.location), story.counts.map(at));
                prop_assert_eq!(kept.is_some_and(|entry| entry.flags.contains(Flags::LOST)), story.lost);
                prop_assert_eq!(kept.is_some_and(|entry| entry.flags.contains(Flags::CONDEMNED)), story.condemned);
                prop_assert_eq!(locate(kept), story.counts.filter(|_| !story.lost).map(at));
                if let (Some(before), Some(after)) = (before, kept) {
                    prop_assert!(after.touch >= before.touch, "a touch epoch fell");
                    prop_assert!(
                        is_replace || !before.is_good() || after.location == before.location,
                        "a good location was replaced"
                    );
                }
            }
        }
    }
}
