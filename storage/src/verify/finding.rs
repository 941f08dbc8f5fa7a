//! What verifying finds: kinds of damage, where it is, and what is harmed by it.

use std::collections::{BTreeMap, BTreeSet};

use crate::backend::BackendError;
use crate::error::{Error, FormatError};
use crate::ids::{Location, PackId, PointId};
use crate::keys::KeyError;
use crate::vault::names;

/// Findings kept; more are counted. A vault that has lost that much needs another copy, not a longer list.
pub const FINDINGS_MAX: usize = 10_000;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingKind {
    /// It must be there and is not.
    Missing,
    /// It is shorter than it was written.
    Truncated,
    /// Its bytes are not those that were written.
    Corrupt,
    /// Something else lies under its name.
    Foreign,
    /// A recipe points to a place where that chunk does not lie.
    Dangling,
    /// The store does not give it, whatever it holds; or no key at hand opens it.
    Unreadable,
    /// Written by a newer version. Not damage.
    Unsupported,
}

impl FindingKind {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::Foreign => "foreign",
            Self::Dangling => "dangling",
            Self::Unreadable => "unreadable",
            Self::Unsupported => "unsupported",
        }
    }

    /// Whether data or a way to data is lost. Only what was written by a newer version is not damage.
    pub fn is_damage(self) -> bool {
        self != Self::Unsupported
    }

    /// The kind of a format error.
    pub(super) fn of_format(error: &FormatError) -> Self {
        match error {
            FormatError::Truncated { .. } => Self::Truncated,
            FormatError::Magic { .. } | FormatError::Mismatch { .. } => Self::Foreign,
            FormatError::Unsupported { .. } => Self::Unsupported,
            _ => Self::Corrupt,
        }
    }

    /// The kind of an error met while one object was read; `None` when it says nothing of that object (no permission, the wrong key ring).
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::While { source, .. } => Self::of(source),
            Error::Format(error) => Some(Self::of_format(error)),
            Error::Backend(BackendError::NotFound { .. }) => Some(Self::Missing),
            Error::Backend(BackendError::Range { .. }) => Some(Self::Truncated),
            Error::Backend(BackendError::TooLarge { .. }) => Some(Self::Corrupt),
            Error::Backend(BackendError::Unavailable { .. } | BackendError::Refused { .. }) => Some(Self::Unreadable),
            // The generation that an object names is in no revision: a damaged header, or a lost revision.
            Error::Key(KeyError::None { .. }) => Some(Self::Unreadable),
            _ => None,
        }
    }
}

/// Where damage is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Spot {
    /// An object that is no pack.
    Object(String),
    /// A pack: nothing in it can be read.
    Pack(PackId),
    /// The frame of a pack that starts at that offset.
    Frame(PackId, u32),
    /// Frames of a pack that start in that range (from, to before), when no footer says where they are.
    Range(PackId, u32, u32),
    /// A place in the frame that starts at that offset, where not what a recipe expects lies. The rest of the frame is as it must be.
    Place(PackId, u32, u32),
    /// Footer or trailer of a pack: what the frames hold can be read, but is listed only by an index segment.
    Footer(PackId),
}

impl Spot {
    /// The pack, if it is in one.
    pub fn pack(&self) -> Option<PackId> {
        match self {
            Self::Object(_) => None,
            Self::Pack(pack)
            | Self::Frame(pack, _)
            | Self::Range(pack, ..)
            | Self::Place(pack, ..)
            | Self::Footer(pack) => Some(*pack),
        }
    }

    /// The object's name.
    pub fn object(&self) -> String {
        match self {
            Self::Object(name) => name.clone(),
            Self::Pack(pack)
            | Self::Frame(pack, _)
            | Self::Range(pack, ..)
            | Self::Place(pack, ..)
            | Self::Footer(pack) => names::pack(*pack),
        }
    }
}

/// One thing that is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// The object's name.
    pub object: String,
    /// How that shows, for people.
    pub what: String,
    /// Where in the object; never empty.
    pub spots: Vec<Spot>,
    /// Recovery points that cannot be restored whole because of it, as far as that is known ([`super::Report::harms_known`]).
    pub harms: Vec<PointId>,
}

/// Damage seen in one object while it was examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) spot: Spot,
    pub(super) kind: FindingKind,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn format(spot: Spot, error: &FormatError) -> Self {
        Self {
            spot,
            kind: FindingKind::of_format(error),
            what: error.to_string(),
        }
    }
}

#[derive(Debug)]
struct Draft {
    kind: FindingKind,
    what: String,
    harms: BTreeSet<PointId>,
}

/// Findings being collected: one for each spot, the first to be found there.
#[derive(Debug, Default)]
pub(super) struct Drafts {
    spots: BTreeMap<Spot, Draft>,
    dropped: u64,
}

impl Drafts {
    pub(super) fn add(&mut self, fault: Fault) {
        if self.spots.contains_key(&fault.spot) {
            return;
        }
        if self.spots.len() >= FINDINGS_MAX {
            self.dropped += 1;
            return;
        }
        self.spots.insert(
            fault.spot,
            Draft {
                kind: fault.kind,
                what: fault.what,
                harms: BTreeSet::new(),
            },
        );
    }

    pub(super) fn harm(&mut self, spot: &Spot, point: PointId) {
        if let Some(draft) = self.spots.get_mut(spot) {
            draft.harms.insert(point);
        }
    }

    pub(super) fn has(&self, spot: &Spot) -> bool {
        self.spots.contains_key(spot)
    }

    /// Findings that were not kept.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Where pieces cannot be read.
    pub(super) fn damaged(&self) -> Damaged {
        let mut damaged = Damaged::default();
        for (spot, draft) in &self.spots {
            if draft.kind.is_damage() {
                damaged.add(spot);
            }
        }
        damaged
    }

    /// Packs with any damage, be it to their footers.
    pub(super) fn damaged_packs(&self) -> BTreeSet<PackId> {
        self.spots
            .iter()
            .filter(|(_, draft)| draft.kind.is_damage())
            .filter_map(|(spot, _)| spot.pack())
            .collect()
    }

    /// One finding for each object and kind, with all its spots.
    pub(super) fn finish(self) -> Vec<Finding> {
        let mut findings: BTreeMap<(String, FindingKind), (Finding, BTreeSet<PointId>)> = BTreeMap::new();
        for (spot, draft) in self.spots {
            let object = spot.object();
            let what = match &spot {
                Spot::Frame(_, offset) => format!("frame at {offset}: {}", draft.what),
                Spot::Range(_, start, _) => format!("frames from {start} on: {}", draft.what),
                Spot::Place(_, offset, _) => format!("frame at {offset}: {}", draft.what),
                Spot::Footer(_) => format!("footer: {}", draft.what),
                _ => draft.what,
            };
            let (finding, harms) = findings.entry((object.clone(), draft.kind)).or_insert_with(|| {
                (
                    Finding {
                        kind: draft.kind,
                        object,
                        what,
                        spots: Vec::new(),
                        harms: Vec::new(),
                    },
                    BTreeSet::new(),
                )
            });
            finding.spots.push(spot);
            harms.extend(draft.harms);
        }
        findings
            .into_values()
            .map(|(mut finding, harms)| {
                let more = finding.spots.len() - 1;
                if more > 0 {
                    finding.what = format!("{} (and {more} more places)", finding.what);
                }
                finding.harms = harms.into_iter().collect();
                finding
            })
            .collect()
    }
}

/// A set of places in packs that cannot be read.
#[derive(Debug, Default, Clone)]
pub(super) struct Damaged {
    packs: BTreeMap<PackId, DamagedPack>,
}

#[derive(Debug, Default, Clone)]
struct DamagedPack {
    whole: bool,
    frames: BTreeSet<u32>,
    ranges: BTreeSet<(u32, u32)>,
}

impl Damaged {
    pub(super) fn add(&mut self, spot: &Spot) {
        match spot {
            Spot::Object(_) | Spot::Footer(_) | Spot::Place(..) => {}
            Spot::Pack(pack) => self.packs.entry(*pack).or_default().whole = true,
            Spot::Frame(pack, offset) => {
                self.packs.entry(*pack).or_default().frames.insert(*offset);
            }
            Spot::Range(pack, start, end) => {
                self.packs.entry(*pack).or_default().ranges.insert((*start, *end));
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.packs.is_empty()
    }

    /// The damage that a location lies in.
    pub(super) fn at(&self, location: Location) -> Option<Spot> {
        let pack = self.packs.get(&location.pack)?;
        if pack.whole {
            return Some(Spot::Pack(location.pack));
        }
        let at = location.frame_offset;
        if pack.frames.contains(&at) {
            return Some(Spot::Frame(location.pack, at));
        }
        let range = pack.ranges.iter().find(|(start, end)| (*start..*end).contains(&at))?;
        Some(Spot::Range(location.pack, range.0, range.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ClusterId, PartId, SessionId, Writer};

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

    fn fault(spot: Spot, kind: FindingKind) -> Fault {
        Fault {
            spot,
            kind,
            what: String::from("checksum of frame differs"),
        }
    }

    #[test]
    fn frames_of_one_pack_become_one_finding_that_names_the_points_of_all() {
        let mut drafts = Drafts::default();
        let (one, two) = (PointId([1; 16]), PointId([2; 16]));
        for offset in [96, 5000, 96] {
            drafts.add(fault(Spot::Frame(pack(0), offset), FindingKind::Corrupt));
        }
        drafts.harm(&Spot::Frame(pack(0), 96), two);
        drafts.harm(&Spot::Frame(pack(0), 5000), one);
        drafts.harm(&Spot::Frame(pack(9), 5000), one);
        let findings = drafts.finish();
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].harms, [one, two]);
        assert_eq!(findings[0].object, names::pack(pack(0)));
        assert_eq!(
            findings[0].what,
            "frame at 96: checksum of frame differs (and 1 more places)"
        );
    }

    #[test]
    fn damage_is_where_it_was_found_and_nowhere_else() {
        let mut drafts = Drafts::default();
        drafts.add(fault(Spot::Pack(pack(0)), FindingKind::Missing));
        drafts.add(fault(Spot::Frame(pack(1), 96), FindingKind::Corrupt));
        drafts.add(fault(Spot::Footer(pack(2)), FindingKind::Corrupt));
        drafts.add(fault(Spot::Pack(pack(3)), FindingKind::Unsupported));
        let damaged = drafts.damaged();
        let at = |seq, frame_offset| {
            damaged.at(Location {
                pack: pack(seq),
                frame_offset,
                frame_length: 100,
                place: 0,
            })
        };
        assert_eq!(at(0, 700), Some(Spot::Pack(pack(0))));
        assert_eq!(at(1, 96), Some(Spot::Frame(pack(1), 96)));
        assert_eq!(at(1, 97), None);
        assert_eq!(at(2, 96), None, "frames are read without the footer");
        assert_eq!(at(3, 96), None, "a newer version is not damage");
    }

    #[test]
    fn endless_findings_are_counted_but_not_kept() {
        let mut drafts = Drafts::default();
        for seq in 0..FINDINGS_MAX as u32 + 7 {
            drafts.add(fault(Spot::Pack(pack(seq)), FindingKind::Missing));
        }
        assert_eq!(drafts.dropped(), 7);
        assert_eq!(drafts.finish().len(), FINDINGS_MAX);
    }
}
