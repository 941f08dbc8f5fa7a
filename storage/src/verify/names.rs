//! What the names of a vault's objects tell: which are there, which must be, and which belong to nobody. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Fault, FindingKind, Spot};
use crate::backend::Listed;
use crate::error::FormatError;
use crate::ids::{ItemId, PackId, PointId, Writer};
use crate::limits::PACKS_IN_FLIGHT;
use crate::pack::{Footer, FooterFrame, TRAILER};
use crate::seal::OBJECT_HEADER;
use crate::vault::names;

/// Missing packs of one writer that are named one by one: a garbage name can claim any number.
const GAPS_NAMED: usize = 1024;
/// Strange names that are told one by one.
const NOTES_MAX: usize = 100;

/// Everything that was listed.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Lengths of packs.
    packs: BTreeMap<Writer, BTreeMap<u32, u64>>,
    /// Lengths of index segments.
    segments: BTreeMap<Writer, BTreeMap<u32, u64>>,
    /// Lengths of manifests.
    points: BTreeMap<ItemId, BTreeMap<PointId, u64>>,
    /// Names and lengths of key revisions, claims, catalogues and the header.
    small: BTreeMap<String, u64>,
    strange: Vec<String>,
    strange_more: u64,
}

impl Names {
    /// Takes one object of a listing.
    pub(super) fn add(&mut self, listed: Listed) {
        let Listed { name, length } = listed;
        if let Some(pack) = names::parse_pack(&name) {
            self.packs.entry(pack.writer).or_default().insert(pack.seq, length);
        } else if let Some(segment) = names::parse_segment(&name) {
            self.segments
                .entry(segment.writer)
                .or_default()
                .insert(segment.seq, length);
        } else if let Some((item, point)) = names::parse_point(&name) {
            self.points.entry(item).or_default().insert(point, length);
        } else if name == names::HEADER
            || names::parse_key_revision(&name).is_some()
            || names::parse_claim(&name).is_some()
            || names::parse_catalog(&name).is_some()
            || names::parse_catalog_part(&name).is_some()
        {
            self.small.insert(name, length);
        } else if self.strange.len() < NOTES_MAX {
            self.strange.push(name);
        } else {
            self.strange_more += 1;
        }
    }

    /// Length of a pack that is there.
    pub(super) fn pack_length(&self, pack: PackId) -> Option<u64> {
        self.packs.get(&pack.writer)?.get(&pack.seq).copied()
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = (PackId, u64)> {
        self.packs.iter().flat_map(|(writer, packs)| {
            packs.iter().map(|(seq, length)| {
                (
                    PackId {
                        writer: *writer,
                        seq: *seq,
                    },
                    *length,
                )
            })
        })
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = (PackId, u64)> {
        self.segments.iter().flat_map(|(writer, segments)| {
            segments.iter().map(|(seq, length)| {
                (
                    PackId {
                        writer: *writer,
                        seq: *seq,
                    },
                    *length,
                )
            })
        })
    }

    pub(super) fn points(&self) -> &BTreeMap<ItemId, BTreeMap<PointId, u64>> {
        &self.points
    }

    pub(super) fn small(&self) -> &BTreeMap<String, u64> {
        &self.small
    }

    /// Objects that are nobody's: said, but no damage.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self
            .strange
            .iter()
            .map(|name| format!("{name} is no object of a vault"))
            .collect();
        if self.strange_more > 0 {
            notes.push(format!("{} more names are no objects of a vault", self.strange_more));
        }
        notes
    }

    /// Packs that index segments name: all must be there.
    pub(super) fn compare(&self, listed: &SegmentsSay) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (pack, length) in &listed.packs {
            let what = match self.pack_length(*pack) {
                Some(found) if found == *length => continue,
                // What a pack that was cut still has is told by its frames ([`cut_pack`]).
                Some(found) if found < *length => continue,
                Some(found) => (
                    FindingKind::Corrupt,
                    format!("has {found} bytes, the index segment says {length}"),
                ),
                None => (FindingKind::Missing, String::from("an index segment lists it")),
            };
            faults.push(Fault {
                spot: Spot::Pack(*pack),
                kind: what.0,
                what: what.1,
            });
        }
        faults
    }

    /// Writers of which more must be known before their gaps can be judged: did they finish?
    pub(super) fn suspects(&self, listed: Option<&SegmentsSay>) -> BTreeSet<Writer> {
        let mut suspects = BTreeSet::new();
        for (writer, packs) in &self.packs {
            if !gaps(packs.keys().copied()).is_empty() || !self.unlisted(*writer, packs, listed).is_empty() {
                suspects.insert(*writer);
            }
        }
        for (writer, segments) in &self.segments {
            if !gaps(segments.keys().copied()).is_empty() || !self.packs.contains_key(writer) {
                suspects.insert(*writer);
            }
        }
        suspects
    }

    /// Packs of a writer that no index segment lists.
    fn unlisted(&self, writer: Writer, packs: &BTreeMap<u32, u64>, listed: Option<&SegmentsSay>) -> Vec<u32> {
        match listed {
            Some(listed) if listed.unread.contains(&writer) => Vec::new(),
            Some(listed) => packs
                .keys()
                .copied()
                .filter(|seq| !listed.packs.contains_key(&PackId { writer, seq: *seq }))
                .collect(),
            None if self.segments.contains_key(&writer) => Vec::new(),
            None => packs.keys().copied().collect(),
        }
    }

    /// Judges what must be dense. `finished` are the suspects that made a recovery point: they waited for all their packs and segments.
    pub(super) fn judge(
        &self,
        suspects: &BTreeSet<Writer>,
        finished: &BTreeSet<Writer>,
        listed: Option<&SegmentsSay>,
    ) -> (Vec<Fault>, Vec<String>) {
        let (mut faults, mut notes) = (Vec::new(), Vec::new());
        let none = BTreeMap::new();
        for writer in suspects {
            let packs = self.packs.get(writer).unwrap_or(&none);
            let segments = self.segments.get(writer).unwrap_or(&none);
            let is_finished = finished.contains(writer);
            let missing = gaps(packs.keys().copied());
            // Puts run side by side, so an interrupted writer may leave all but one of those in flight out.
            if is_finished || missing.len() >= PACKS_IN_FLIGHT {
                for seq in &missing {
                    let what = String::from("later packs of its session are there");
                    faults.push(Fault {
                        spot: Spot::Pack(PackId {
                            writer: *writer,
                            seq: *seq,
                        }),
                        kind: FindingKind::Missing,
                        what,
                    });
                }
            } else if !missing.is_empty() {
                notes.push(format!(
                    "session {writer} was interrupted: pack {:08x} was never stored, and no recovery point was made",
                    missing[0]
                ));
            }
            if packs.is_empty() && !segments.is_empty() {
                let what = String::from("an index segment of its session is there, and no segment is empty");
                faults.push(Fault {
                    spot: Spot::Pack(PackId {
                        writer: *writer,
                        seq: 0,
                    }),
                    kind: FindingKind::Missing,
                    what,
                });
            }
            // Segments are put one after another.
            let mut gone = gaps(segments.keys().copied());
            let unlisted = self.unlisted(*writer, packs, listed);
            if is_finished && !unlisted.is_empty() && gone.is_empty() {
                gone.push(segments.keys().next_back().map_or(0, |last| last.saturating_add(1)));
            }
            for seq in gone {
                let name = names::segment(PackId { writer: *writer, seq });
                let what = match unlisted.len() {
                    0 => String::from("later segments of its session are there"),
                    n => format!("{n} packs of its session are in no index segment"),
                };
                faults.push(Fault {
                    spot: Spot::Object(name),
                    kind: FindingKind::Missing,
                    what,
                });
            }
        }
        (faults, notes)
    }
}

/// What index segments list; needs keys.
#[derive(Debug, Default)]
pub(super) struct SegmentsSay {
    /// Packs with their lengths.
    pub(super) packs: BTreeMap<PackId, u64>,
    /// Writers with a segment that could not be read.
    pub(super) unread: BTreeSet<Writer>,
}

/// What is lost of a pack of which only the first `length` bytes are there.
pub(super) fn cut_pack(pack: PackId, length: u64, footer: &Footer) -> Vec<Fault> {
    let error = |need| FormatError::Truncated {
        what: "pack",
        need,
        have: length,
    };
    if length < OBJECT_HEADER as u64 {
        return vec![Fault::format(Spot::Pack(pack), &error(OBJECT_HEADER as u64))];
    }
    let end = |frame: &FooterFrame| u64::from(frame.offset) + u64::from(frame.length);
    let lost = footer.frames.iter().filter(|frame| end(frame) > length);
    let mut faults: Vec<Fault> = lost
        .map(|frame| Fault::format(Spot::Frame(pack, frame.offset), &error(end(frame))))
        .collect();
    let all = footer.frames.last().map_or(OBJECT_HEADER as u64, end);
    faults.push(Fault::format(Spot::Footer(pack), &error(all + TRAILER as u64)));
    faults
}

/// Numbers below the highest that are not there; at most [`GAPS_NAMED`].
fn gaps(present: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut missing = Vec::new();
    let mut next = 0;
    for seq in present {
        missing.extend((next..seq).take(GAPS_NAMED - missing.len()));
        next = seq.saturating_add(1);
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId};

    fn writer(part: u64) -> Writer {
        Writer {
            cluster: ClusterId(1),
            session: SessionId(2),
            part: PartId(part),
        }
    }

    fn pack(part: u64, seq: u32) -> PackId {
        PackId {
            writer: writer(part),
            seq,
        }
    }

    fn vault(packs: &[PackId], segments: &[PackId]) -> Names {
        let mut vault = Names::default();
        for id in packs {
            vault.add(Listed {
                name: names::pack(*id),
                length: 1000,
            });
        }
        for id in segments {
            vault.add(Listed {
                name: names::segment(*id),
                length: 100,
            });
        }
        vault
    }

    fn judged(vault: &Names, finished: &[Writer]) -> (Vec<Spot>, usize) {
        let suspects = vault.suspects(None);
        let (faults, notes) = vault.judge(&suspects, &finished.iter().copied().collect(), None);
        (faults.into_iter().map(|fault| fault.spot).collect(), notes.len())
    }

    #[test]
    fn numbers_that_are_left_out_are_found_and_absurd_ones_take_no_memory() {
        assert!(gaps([0, 1, 2].into_iter()).is_empty());
        assert_eq!(gaps([1, 2, 5].into_iter()), [0, 3, 4]);
        assert_eq!(gaps([7, u32::MAX].into_iter()).len(), GAPS_NAMED);
        assert!(gaps([].into_iter()).is_empty());
    }

    #[test]
    fn a_dense_writer_with_its_segment_is_no_suspect() {
        assert!(
            vault(&[pack(1, 0), pack(1, 1)], &[pack(1, 0)])
                .suspects(None)
                .is_empty()
        );
    }

    #[test]
    fn a_gap_of_a_finished_session_is_damage_and_of_an_interrupted_one_a_note() {
        let vault = vault(&[pack(1, 0), pack(1, 2)], &[pack(1, 0)]);
        assert_eq!(judged(&vault, &[writer(1)]), (vec![Spot::Pack(pack(1, 1))], 0));
        assert_eq!(judged(&vault, &[]), (vec![], 1));
    }

    #[test]
    fn a_segment_without_any_pack_misses_the_first() {
        let vault = vault(&[], &[pack(1, 0)]);
        assert_eq!(judged(&vault, &[]), (vec![Spot::Pack(pack(1, 0))], 0));
    }

    #[test]
    fn of_a_cut_pack_the_frames_before_the_cut_are_not_lost() {
        let frame = |offset| FooterFrame {
            kind: crate::seal::FrameKind::Data,
            offset,
            length: 100,
            plain_length: 90,
            pieces: vec![],
        };
        let footer = Footer {
            frames: vec![frame(96), frame(196), frame(296)],
        };
        let spots: Vec<_> = cut_pack(pack(1, 0), 250, &footer)
            .into_iter()
            .map(|fault| fault.spot)
            .collect();
        assert_eq!(
            spots,
            [
                Spot::Frame(pack(1, 0), 196),
                Spot::Frame(pack(1, 0), 296),
                Spot::Footer(pack(1, 0))
            ]
        );
        assert_eq!(cut_pack(pack(1, 0), 95, &footer)[0].spot, Spot::Pack(pack(1, 0)));
    }

    #[test]
    fn more_gaps_than_puts_in_flight_are_damage_whoever_wrote_them() {
        let vault = vault(&[pack(1, 1), pack(1, 3)], &[pack(1, 0)]);
        assert_eq!(judged(&vault, &[]).0.len(), 2);
    }

    #[test]
    fn a_finished_session_without_its_segment_misses_it() {
        let vault = vault(&[pack(1, 0)], &[]);
        assert_eq!(
            judged(&vault, &[writer(1)]),
            (vec![Spot::Object(names::segment(pack(1, 0)))], 0)
        );
        assert_eq!(judged(&vault, &[]), (vec![], 0), "an interrupted session has none yet");
    }

    #[test]
    fn packs_that_segments_list_must_be_there_and_not_have_grown() {
        let vault = vault(&[pack(1, 0), pack(1, 1), pack(1, 2)], &[pack(1, 0)]);
        let packs = BTreeMap::from([
            (pack(1, 0), 1000),
            (pack(1, 1), 999),
            (pack(1, 2), 1001),
            (pack(1, 3), 5),
        ]);
        let faults = vault.compare(&SegmentsSay {
            packs,
            unread: BTreeSet::new(),
        });
        let found: Vec<_> = faults.into_iter().map(|fault| (fault.spot, fault.kind)).collect();
        assert_eq!(
            found,
            [
                (Spot::Pack(pack(1, 1)), FindingKind::Corrupt),
                (Spot::Pack(pack(1, 3)), FindingKind::Missing)
            ]
        );
    }

    #[test]
    fn names_of_others_are_notes() {
        let mut vault = Names::default();
        for n in 0..NOTES_MAX + 5 {
            vault.add(Listed {
                name: format!("packs/zz/file-{n}"),
                length: 1,
            });
        }
        let notes = vault.notes();
        assert_eq!(notes.len(), NOTES_MAX + 1);
        assert_eq!(notes[NOTES_MAX], "5 more names are no objects of a vault");
    }
}
