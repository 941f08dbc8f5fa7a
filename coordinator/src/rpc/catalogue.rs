//! What a catalogue of a vault holds: all that coordinators know of it and its manifests do not say.
//!
//! A worker seals two things: the hidden points, which whoever reads the vault has to know, and the rows of the vault as they are stored, which mean
//! something to a coordinator only: one that has lost its log.
//!
//! ```text
//! 1        form
//! …        the header, in postcard
//! rows     each in postcard: table · key · row
//! ```
//! The rows of a large vault are sealed in parts ([`CATALOGUE_BYTES_MAX`] in all, which is more than all points that a cluster may have take). With even
//! more than that the vault goes without what can be found elsewhere: visible points have manifests in the vault. The rows are gathered a few thousand at a time, so that the log goes on meanwhile: what changes behind the gathering makes the vault's
//! catalogue fall behind again, and the next one has it.

use std::collections::BTreeSet;
use std::ops::Bound;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{ItemId, PointId, PolicyId, VaultId};

use crate::state::entry::Time;
use crate::state::error::LoadError;
use crate::state::rows::Point;
use crate::state::table::RowChange;
use crate::state::{RowOf, State};

/// The form written now.
const FORM: u8 = 1;
/// What the rows of a catalogue may take: the sealing side takes 960 MiB in parts. A point's row has some 110 bytes, so the most points that a cluster may have
/// take a third of a gigabyte, and its items with many disks as much again.
pub const CATALOGUE_BYTES_MAX: usize = 900 << 20;
/// Hidden points of one catalogue: two thirds of what the format takes. The newest are kept: the oldest are about to be given up.
pub const HIDDEN_MAX: usize = 100_000;
/// Held points beside the rows, for a cluster that takes the vault over without its rows: as many as the format takes.
pub const HELD_MAX: usize = 20_000;
/// Both take, with the rows that stay beside them and the hashes of parts, less than a small object of the store.
const _: () = assert!(HIDDEN_MAX * 72 + HELD_MAX * 280 + (1 << 20) < (15 << 20));
/// What the points of a cluster and ten thousand of its largest items take, at the most.
const _: () = assert!(crate::state::POINTS_MAX as usize * 160 + 10_000 * (16 << 10) < CATALOGUE_BYTES_MAX);
/// Room for the header, whose texts have bounds of their own.
const HEADER_BYTES_MAX: usize = 4096;
/// Longest key and row that are read.
const KEY_BYTES_MAX: usize = 64;
const ROW_BYTES_MAX: usize = 4 << 20;

/// What the rows are of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The cluster.
    pub cluster: [u8; 16],
    /// Its name.
    pub cluster_name: String,
    /// The vault.
    pub vault: VaultId,
    /// The number of the catalogue: the log index of the lease under which it is put.
    pub index: u64,
    /// The cluster's clock.
    pub time: Time,
    /// Whether all rows of the vault follow: else some did not fit.
    pub is_whole: bool,
}

/// A hidden point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HiddenPoint {
    /// The point.
    pub point: PointId,
    /// Its item.
    pub item: ItemId,
    /// Since when.
    pub hidden: Time,
}

/// A held point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldPoint {
    /// The point.
    pub point: PointId,
    /// Why.
    pub reason: Box<str>,
}

/// What is to be sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    /// The vault's hidden points.
    pub hidden: Vec<HiddenPoint>,
    /// The vault's held points.
    pub held: Vec<HeldPoint>,
    /// The rows, encoded.
    pub state: Vec<u8>,
    /// When that was so.
    pub time: Time,
    /// Whether all of it fitted.
    pub is_whole: bool,
}

/// A row as [`State::load`] takes it: table, key, row.
pub type StoredRow = (u8, Vec<u8>, Vec<u8>);

/// The rows of a catalogue, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// What they are of.
    pub header: Header,
    /// The rows.
    pub rows: Vec<StoredRow>,
}

/// Why the rows of a catalogue cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// Written by a later program.
    #[error(
        "the catalogue's state has form {form}, and this program knows up to {FORM}: update tresor on this coordinator"
    )]
    Form {
        /// The form.
        form: u8,
    },
    /// Not what was written.
    #[error("the catalogue's state is damaged: {why}")]
    Damaged {
        /// What is wrong.
        why: &'static str,
    },
}

/// Items and points that one step looks at: a few milliseconds, in which nothing can be applied.
const STEP: usize = 10_000;

/// How far an [`Encoder`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Looks for points that say more than their manifests, after that item.
    Look(Option<ItemId>),
    /// Writes items and their policies, after that item.
    Items(Option<ItemId>),
    /// Writes what [`Phase::Look`] found, from there on.
    Special(usize),
    /// Writes points that are given up, after that one.
    GivenUp(Option<PointId>),
    /// Writes all other points, after that item.
    Others(Option<ItemId>),
    /// All is written, or nothing more fits.
    Done,
}

/// Gathers what a catalogue holds, the rows first that stand nowhere else: the marks (with the head of the audit trail), the vault, its items and their
/// policies, points that are held, hidden or harmed, points that are given up, and then other points, the newest of each item first.
#[derive(Debug, Clone)]
pub struct Encoder {
    vault: VaultId,
    phase: Phase,
    hidden: Vec<HiddenPoint>,
    held: Vec<HeldPoint>,
    special: Vec<PointId>,
    policies: BTreeSet<PolicyId>,
    rows: Vec<u8>,
    /// What the rows may take.
    room: usize,
    is_whole: bool,
}

impl Encoder {
    /// Of a vault.
    pub fn new(vault: VaultId) -> Self {
        Self {
            vault,
            phase: Phase::Look(None),
            hidden: Vec::new(),
            held: Vec::new(),
            special: Vec::new(),
            policies: BTreeSet::new(),
            rows: Vec::new(),
            room: CATALOGUE_BYTES_MAX - HEADER_BYTES_MAX,
            is_whole: true,
        }
    }

    /// Looks at some more; whether that was all.
    ///
    /// Cost: a look at `STEP` items and points, and the points of one item.
    pub fn step(&mut self, state: &State) -> bool {
        match self.phase {
            Phase::Look(after) => self.look(state, after),
            Phase::Items(after) => self.write_items(state, after),
            Phase::Special(from) => self.write_special(state, from),
            Phase::GivenUp(after) => self.write_given_up(state, after),
            Phase::Others(after) => self.write_others(state, after),
            Phase::Done => {}
        }
        self.phase == Phase::Done
    }

    /// Items of the vault after one, with a bound; and where the next step goes on, if there are more.
    fn items(
        &self,
        state: &State,
        after: Option<ItemId>,
        weigh: impl Fn(ItemId) -> usize,
    ) -> (Vec<ItemId>, Option<ItemId>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut found = Vec::new();
        let mut looked_at = 0;
        for (id, item) in state.items().range((from, Bound::Unbounded)) {
            looked_at += 1;
            if item.spec.vault == self.vault {
                found.push(*id);
                looked_at += weigh(*id);
            }
            if looked_at >= STEP {
                return (found, Some(*id));
            }
        }
        (found, None)
    }

    fn look(&mut self, state: &State, after: Option<ItemId>) {
        let (items, next) = self.items(state, after, |item| state.points_of(item).count());
        for item in items {
            for id in state.points_of(item) {
                let Some(point) = state.points().get(&id) else {
                    continue;
                };
                if let Some(hidden) = point.hidden {
                    self.hidden.push(HiddenPoint {
                        point: id,
                        item,
                        hidden,
                    });
                }
                if let Some(reason) = &point.held {
                    self.held.push(HeldPoint {
                        point: id,
                        reason: reason.clone(),
                    });
                }
                if is_special(point) {
                    self.special.push(id);
                }
            }
        }
        if next.is_some() {
            self.phase = Phase::Look(next);
            return;
        }
        if self.hidden.len() > HIDDEN_MAX {
            self.is_whole = false;
            self.hidden
                .sort_unstable_by_key(|point| (std::cmp::Reverse(point.hidden), point.point));
            self.hidden.truncate(HIDDEN_MAX);
        }
        self.hidden.sort_unstable_by_key(|point| point.point);
        // What is left out here is in the rows still.
        self.held.truncate(HELD_MAX);
        self.write(state, RowOf::Marks);
        self.write(state, RowOf::Vault(self.vault));
        for limit in state.stored_limits(self.vault) {
            self.write_row(limit);
        }
        self.phase = Phase::Items(None);
    }

    fn write_items(&mut self, state: &State, after: Option<ItemId>) {
        let (items, next) = self.items(state, after, |_| 0);
        for item in items {
            let policy = state.items().get(&item).and_then(|item| item.spec.policy);
            if let Some(policy) = policy.filter(|policy| !self.policies.contains(policy)) {
                self.policies.insert(policy);
                if !self.write(state, RowOf::Policy(policy)) {
                    return;
                }
            }
            if !self.write(state, RowOf::Item(item)) {
                return;
            }
        }
        self.phase = match next {
            Some(_) => Phase::Items(next),
            None => Phase::Special(0),
        };
    }

    fn write_special(&mut self, state: &State, from: usize) {
        let to = self.special.len().min(from + STEP);
        for at in from..to {
            if !self.write(state, RowOf::Point(self.special[at])) {
                return;
            }
        }
        self.phase = if to < self.special.len() {
            Phase::Special(to)
        } else {
            Phase::GivenUp(None)
        };
    }

    fn write_given_up(&mut self, state: &State, after: Option<PointId>) {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (looked_at, (id, row)) in state.given_up().range((from, Bound::Unbounded)).enumerate() {
            if looked_at >= STEP {
                self.phase = Phase::GivenUp(last);
                return;
            }
            last = Some(*id);
            if row.vault == self.vault && !self.write(state, RowOf::GivenUp(*id)) {
                return;
            }
        }
        self.phase = Phase::Others(None);
    }

    fn write_others(&mut self, state: &State, after: Option<ItemId>) {
        let (items, next) = self.items(state, after, |item| state.points_of(item).count());
        for item in items {
            for id in state.points_of(item) {
                let is_other = state.points().get(&id).is_some_and(|point| !is_special(point));
                if is_other && !self.write(state, RowOf::Point(id)) {
                    return;
                }
            }
        }
        self.phase = match next {
            Some(_) => Phase::Others(next),
            None => Phase::Done,
        };
    }

    /// Writes a row; whether it did. When one does not fit, the writing ends. A row that is gone by now is written as well as can be.
    fn write(&mut self, state: &State, row: RowOf) -> bool {
        state.stored(row).is_none_or(|row| self.write_row(row))
    }

    fn write_row(&mut self, row: RowChange) -> bool {
        let before = self.rows.len();
        let row = (row.table, row.key, row.value.unwrap_or_default());
        self.rows =
            postcard::to_extend(&row, std::mem::take(&mut self.rows)).expect("rows are bytes and memory can be had");
        let fits = self.rows.len() <= self.room;
        if !fits {
            self.rows.truncate(before);
            self.is_whole = false;
            self.phase = Phase::Done;
        }
        fits
    }

    /// What was gathered, as the catalogue with that number. None if there is no cluster or no such vault (any more).
    pub fn finish(self, state: &State, index: u64) -> Option<Catalogue> {
        let cluster = state.cluster()?;
        state.vaults().get(&self.vault)?;
        let header = Header {
            cluster: cluster.id,
            cluster_name: cluster.name.chars().take(255).collect(),
            vault: self.vault,
            index,
            time: state.now(),
            is_whole: self.is_whole,
        };
        let mut bytes = postcard::to_extend(&header, vec![FORM]).expect("a header is plain data and memory can be had");
        debug_assert!(bytes.len() <= HEADER_BYTES_MAX, "its one text is bounded");
        bytes.extend_from_slice(&self.rows);
        Some(Catalogue {
            hidden: self.hidden,
            held: self.held,
            state: bytes,
            time: state.now(),
            is_whole: self.is_whole,
        })
    }
}

/// Whether a row says something of a point that its manifest does not.
fn is_special(point: &Point) -> bool {
    point.held.is_some() || point.hidden.is_some() || point.harmed
}

/// Reads the rows that an [`Encoder`] wrote.
///
/// # Errors
/// [`CatalogueError`].
pub fn decode(bytes: &[u8]) -> Result<Decoded, CatalogueError> {
    let damaged = |why| CatalogueError::Damaged { why };
    if bytes.len() > CATALOGUE_BYTES_MAX {
        return Err(damaged("it is longer than any"));
    }
    let (form, rest) = bytes.split_first().ok_or_else(|| damaged("it is empty"))?;
    if *form != FORM {
        return Err(CatalogueError::Form { form: *form });
    }
    let (header, mut rest): (Header, _) =
        postcard::take_from_bytes(rest).map_err(|_| damaged("its header cannot be read"))?;
    let mut rows = Vec::new();
    while !rest.is_empty() {
        let (row, left): (StoredRow, _) =
            postcard::take_from_bytes(rest).map_err(|_| damaged("a row cannot be read"))?;
        if row.1.len() > KEY_BYTES_MAX || row.2.len() > ROW_BYTES_MAX {
            return Err(damaged("a row is longer than any"));
        }
        rows.push(row);
        rest = left;
    }
    Ok(Decoded { header, rows })
}

impl Decoded {
    /// The rows as a state that knows nothing but this vault.
    ///
    /// # Errors
    /// [`LoadError`] for a row that this program cannot read.
    pub fn state(self) -> Result<State, LoadError> {
        State::load(self.rows)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::state::command::Command;
    use crate::testing::{Acts as _, MAIN, Story};

    fn gather(state: &State, vault: VaultId) -> Catalogue {
        let mut encoder = Encoder::new(vault);
        let mut steps = 0;
        while !encoder.step(state) {
            steps += 1;
            assert!(steps < 10_000, "it ends");
        }
        encoder.finish(state, 7).unwrap()
    }

    /// A vault with a held, a hidden, a harmed and a plain point, beside another vault.
    fn story() -> (Story, [PointId; 4]) {
        let mut story = Story::new();
        let (web, db) = (story.protect("web", None), story.protect("db", None));
        let points = [
            story.backs_up(web),
            story.backs_up(web),
            story.backs_up(db),
            story.backs_up(db),
        ];
        story.does(Command::Hold {
            point: points[0],
            reason: String::from("for the auditors"),
        });
        story.does(Command::HidePoints {
            points: vec![points[1]],
            by_retention: false,
        });
        story.does(Command::ReportFindings {
            vault: MAIN,
            harmed: vec![points[2]],
        });
        let other = VaultId([0x22; 16]);
        let worker = story.worker;
        story.makes_vault(other, "other", worker);
        let item = story.protects("else", other, None);
        story.makes_point(item, other, worker);
        (story, points)
    }

    #[test]
    fn what_is_known_of_a_vault_comes_back_and_nothing_of_others() {
        let (story, points) = story();
        let catalogue = gather(&story.state, MAIN);
        assert!(catalogue.is_whole);
        let decoded = decode(&catalogue.state).unwrap();
        assert_eq!((decoded.header.vault, decoded.header.index), (MAIN, 7));
        assert_eq!(decoded.header.cluster, story.state.cluster().unwrap().id);
        let read = decoded.state().unwrap();
        assert_eq!(read.vaults().len(), 1);
        assert_eq!(read.items().len(), 2);
        for point in points {
            assert_eq!(read.points().get(&point), story.state.points().get(&point), "{point}");
        }
        assert_eq!(read.points().len(), 4);
        assert_eq!(read.marks().audit_head, story.state.marks().audit_head);
        // Secrets that are not this vault's stay where they are.
        assert!(read.cluster().is_none() && read.tokens().is_empty() && read.workers().is_empty());
        let held: Vec<_> = catalogue.held.iter().map(|held| (held.point, &*held.reason)).collect();
        assert_eq!(held, [(points[0], "for the auditors")]);
        let hidden: Vec<PointId> = catalogue.hidden.iter().map(|point| point.point).collect();
        assert_eq!(hidden, [points[1]]);
    }

    #[test]
    fn what_stands_nowhere_else_comes_first() {
        let (story, points) = story();
        let decoded = decode(&gather(&story.state, MAIN).state).unwrap();
        let tables: Vec<u8> = decoded.rows.iter().map(|(table, ..)| *table).collect();
        assert_eq!(tables, [1, 3, 5, 5, 6, 6, 6, 6]);
        assert_eq!(
            decoded.rows.last().unwrap().1,
            points[3].0,
            "the plain point is the last"
        );
    }

    #[test]
    fn points_that_are_given_up_are_told_so_that_nobody_takes_them_back() {
        let (mut story, points) = story();
        story.advance(crate::state::UNDO_MS + 1);
        story.does(Command::GiveUpPoints {
            points: vec![points[1]],
        });
        let catalogue = gather(&story.state, MAIN);
        assert!(catalogue.hidden.is_empty());
        let read = decode(&catalogue.state).unwrap().state().unwrap();
        assert!(read.given_up().contains(&points[1]));
    }

    #[test]
    fn a_vault_that_is_not_known_has_no_catalogue() {
        let (story, _) = story();
        let mut encoder = Encoder::new(VaultId([9; 16]));
        while !encoder.step(&story.state) {}
        assert!(encoder.finish(&story.state, 7).is_none());
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let (story, points) = story();
        let mut whole = Encoder::new(MAIN);
        while !whole.step(&story.state) {}
        let mut encoder = Encoder::new(MAIN);
        // All but the last row fits.
        encoder.room = whole.rows.len() - 1;
        while !encoder.step(&story.state) {}
        assert!(!encoder.is_whole);
        let catalogue = encoder.finish(&story.state, 7).unwrap();
        let decoded = decode(&catalogue.state).unwrap();
        assert!(!decoded.header.is_whole);
        let read = decoded.state().unwrap();
        assert_eq!(read.vaults().len(), 1, "the vault itself is never left out");
        assert!(!read.points().contains(&points[3]));
        assert!(points[..3].iter().all(|point| read.points().contains(point)));
        assert_eq!(catalogue.hidden.len(), 1, "hidden points have room of their own");
    }

    #[test]
    fn whatever_is_cut_or_changed_is_an_error_or_another_catalogue_and_never_a_panic() {
        let (story, _) = story();
        let bytes = gather(&story.state, MAIN).state;
        assert_eq!(decode(&[]), Err(CatalogueError::Damaged { why: "it is empty" }));
        assert_eq!(decode(&[2]), Err(CatalogueError::Form { form: 2 }));
        for cut in 0..bytes.len() {
            if let Ok(decoded) = decode(&bytes[..cut]) {
                let _ = decoded.state();
            }
        }
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 0xff;
            if let Ok(decoded) = decode(&wrong) {
                let _ = decoded.state();
            }
        }
    }
}
