//! What the index is told of damage, so that the next backup heals it. Pure, but for telling.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, FindingKind, Spot};
use crate::ids::{ChunkId, Location, PackId};
use crate::index::{ChunkIndex, IndexError};
use crate::limits::INDEX_BATCH;
use crate::pack::Footer;

/// Lost pieces that are told one by one, about 80 B each. Who lost more rebuilds the index.
pub const LOST_MAX: usize = 1 << 20;

/// What the index must know: the next backup stores again what is lost, and inherits nothing from damaged frames.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Pieces that cannot be read where the index or a recipe says they are.
    pub lost: Vec<(ChunkId, Location)>,
    /// Damaged frames; without an offset, whole packs.
    pub damage: Vec<(PackId, Option<u32>)>,
    /// More is lost than is listed: the index must be rebuilt.
    pub is_cut: bool,
}

impl Marks {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.damage.is_empty()
    }

    /// Tells the index.
    ///
    /// # Errors
    /// Those of the index; telling again is harmless.
    pub async fn apply(&self, index: &dyn ChunkIndex) -> Result<(), IndexError> {
        // Damage first: a backup that begins in between inherits nothing from it.
        // An owner of a share that does not answer keeps nobody from telling the others.
        let mut told = Ok(());
        for (pack, frame_offset) in &self.damage {
            told = told.and(index.add_damage(*pack, *frame_offset).await);
        }
        for batch in self.lost.chunks(INDEX_BATCH) {
            told = told.and(index.mark_lost(batch).await);
        }
        told
    }
}

/// Plans what to tell the index. `footers` are those of damaged packs, as far as any was readable (a pack's own, or an index segment's);
/// `references` are what recipes expect in damaged places.
///
/// What the store did not give for other reasons than damage, and what a newer version wrote, is not marked.
pub fn plan_marks(
    findings: &[Finding],
    footers: &BTreeMap<PackId, Footer>,
    references: &BTreeSet<(ChunkId, Location)>,
) -> Marks {
    let mut damage = BTreeSet::new();
    let mut places = BTreeSet::new();
    for finding in findings {
        // The rest of such a frame is good, but nothing new is to be inherited from leaves that expect what is not there.
        places.extend(finding.spots.iter().filter_map(|spot| match spot {
            Spot::Place(pack, offset, place) => Some((*pack, *offset, *place)),
            _ => None,
        }));
        if matches!(finding.kind, FindingKind::Unsupported | FindingKind::Unreadable) {
            continue;
        }
        for spot in &finding.spots {
            match spot {
                Spot::Pack(pack) => damage.insert((*pack, None)),
                Spot::Frame(pack, offset) => damage.insert((*pack, Some(*offset))),
                // Nobody knows what the index believes to be there.
                Spot::Range(pack, ..) => damage.insert((*pack, None)),
                Spot::Footer(pack) if !footers.contains_key(pack) => damage.insert((*pack, None)),
                // Pieces are read without footers.
                Spot::Footer(_) | Spot::Object(_) | Spot::Place(..) => false,
            };
        }
    }
    let is_in = |at: &Location| damage.contains(&(at.pack, None)) || damage.contains(&(at.pack, Some(at.frame_offset)));
    let is_at = |at: &Location| places.contains(&(at.pack, at.frame_offset, at.place));
    let packs: BTreeSet<PackId> = damage.iter().map(|(pack, _)| *pack).collect();
    let listed = packs
        .iter()
        .filter_map(|pack| footers.get(pack).map(|footer| footer.entries(*pack)))
        .flatten();
    let mut lost = BTreeSet::new();
    let mut is_cut = false;
    let referred = references.iter().copied().filter(|(_, at)| is_in(at) || is_at(at));
    for (id, at) in listed.filter(|(_, at)| is_in(at)).chain(referred) {
        if lost.len() >= LOST_MAX {
            is_cut = true;
            break;
        }
        lost.insert((id, at));
    }
    damage.extend(places.into_iter().map(|(pack, offset, _)| (pack, Some(offset))));
    Marks {
        lost: lost.into_iter().collect(),
        damage: damage.into_iter().collect(),
        is_cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId, Writer};
    use crate::pack::FooterFrame;
    use crate::seal::FrameKind;

    fn pack(seq: u32) -> PackId {
        PackId {
            writer: Writer {
                cluster: ClusterId(1),
                session: SessionId(2),
                part: PartId(3),
            },
            seq,
        }
    }

    fn finding(kind: FindingKind, spot: Spot) -> Finding {
        Finding {
            kind,
            object: spot.object(),
            what: String::new(),
            spots: vec![spot],
            harms: Vec::new(),
        }
    }

    fn footer() -> Footer {
        let frame = |offset, id| FooterFrame {
            kind: FrameKind::Data,
            offset,
            length: 100,
            plain_length: 8192,
            pieces: vec![(1, ChunkId([id; 32])), (1, ChunkId([id + 1; 32]))],
        };
        Footer {
            frames: vec![frame(96, 10), frame(196, 20)],
        }
    }

    fn lost(marks: &Marks) -> Vec<(u8, u32)> {
        marks.lost.iter().map(|(id, at)| (id.0[0], at.place)).collect()
    }

    #[test]
    fn of_a_damaged_frame_its_own_pieces_are_lost_and_of_a_pack_all() {
        let footers = BTreeMap::from([(pack(0), footer()), (pack(1), footer())]);
        let marks = plan_marks(
            &[finding(FindingKind::Corrupt, Spot::Frame(pack(0), 196))],
            &footers,
            &BTreeSet::new(),
        );
        assert_eq!(lost(&marks), [(20, 0), (21, 1)]);
        assert_eq!(marks.damage, [(pack(0), Some(196))]);
        let marks = plan_marks(
            &[finding(FindingKind::Missing, Spot::Pack(pack(1)))],
            &footers,
            &BTreeSet::new(),
        );
        assert_eq!(marks.lost.len(), 4);
        assert_eq!(marks.damage, [(pack(1), None)]);
    }

    #[test]
    fn what_recipes_expect_in_a_damaged_place_is_lost_also_without_a_footer() {
        let at = |seq| Location {
            pack: pack(seq),
            frame_offset: 96,
            frame_length: 100,
            place: 3,
        };
        let references = BTreeSet::from([(ChunkId([7; 32]), at(0)), (ChunkId([8; 32]), at(1))]);
        let marks = plan_marks(
            &[finding(FindingKind::Missing, Spot::Pack(pack(0)))],
            &BTreeMap::new(),
            &references,
        );
        assert_eq!(marks.lost, [(ChunkId([7; 32]), at(0))]);
    }

    #[test]
    fn of_a_place_where_something_else_lies_only_what_was_expected_is_lost() {
        let at = |place| Location {
            pack: pack(0),
            frame_offset: 96,
            frame_length: 100,
            place,
        };
        let references = BTreeSet::from([(ChunkId([7; 32]), at(0)), (ChunkId([8; 32]), at(1))]);
        let footers = BTreeMap::from([(pack(0), footer())]);
        let marks = plan_marks(
            &[finding(FindingKind::Dangling, Spot::Place(pack(0), 96, 1))],
            &footers,
            &references,
        );
        assert_eq!(marks.lost, [(ChunkId([8; 32]), at(1))]);
        assert_eq!(
            marks.damage,
            [(pack(0), Some(96))],
            "no leaf that expects it is inherited"
        );
    }

    #[test]
    fn a_footer_or_an_unreachable_pack_or_a_newer_version_loses_nothing() {
        let footers = BTreeMap::from([(pack(0), footer())]);
        let blind = plan_marks(
            &[finding(FindingKind::Corrupt, Spot::Footer(pack(1)))],
            &footers,
            &BTreeSet::new(),
        );
        assert_eq!(
            blind.damage,
            [(pack(1), None)],
            "without any footer nothing new is to rely on the pack"
        );
        let findings = [
            finding(FindingKind::Corrupt, Spot::Footer(pack(0))),
            finding(FindingKind::Unreadable, Spot::Pack(pack(0))),
            finding(FindingKind::Unsupported, Spot::Pack(pack(0))),
        ];
        assert!(plan_marks(&findings, &footers, &BTreeSet::new()).is_empty());
    }
}
