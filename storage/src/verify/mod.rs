//! Verifying a vault: is everything there, unharmed, and does every recovery point resolve?
//!
//! | level | reads | needs | finds |
//! |---|---|---|---|
//! | `names` | lists; with keys, index segments | nothing | objects that are missing; with keys, packs of another length than listed |
//! | `checks` | every byte | nothing | the above; cut, flipped and exchanged bytes, by lengths and checksums |
//! | `contents` | every byte | `K_data` | the above; anything else that is not what its name or place says: every frame is opened, every chunk named again |
//! | `recipes` | lists, manifests, recipes, footers | `K_meta` | what `names` finds; chunks that recipes need and that lie nowhere. Chunks are not read |
//! | `all` | every byte | `K_data` | everything that the others find |
//!
//! What nobody but the deciding side can know is given by the caller: [`Options::expected`] names the points that must be there.
//!
//! Damage is a [`Finding`], never an error; with keys, each names the recovery points that it harms: recipes are walked for that, once, when anything was
//! found in a pack. Versions that this program does not know are findings of their own kind and never damage. What is odd and harms nobody is a note.
//! [`Report::marks`] is to be given to the index, so that the next backup stores again what is lost.
//!
//! A gap in the numbers of a writer's packs is damage when the writer made a recovery point (it had waited for all), or when more are missing than were
//! in flight; else the writer was interrupted, which a note says. The last packs of a writer are missed by an index segment or a recipe only.
//!
//! Read `finding`, `names`, `examine` (pure), then `scan`, `recipes`, `marks`.

mod examine;
mod finding;
mod marks;
mod names;
mod progress;
mod recipes;
mod scan;
mod small;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::backend::Backend;
use crate::error::Result;
use crate::ids::{ItemId, PackId, PointId, VaultId};
use crate::index::ChunkIndex;
use crate::keys::KeyError;
use crate::vault::{Vault, names as object_names};

pub use finding::{FINDINGS_MAX, Finding, FindingKind, Spot};
pub use marks::{LOST_MAX, Marks, plan_marks};
pub use progress::{Phase, Progress, ProgressSnapshot};

use recipes::{Found, Walk};
use scan::Scan;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// All objects are there.
    Names,
    /// And have their lengths and checksums.
    Checks,
    /// And open, and hold the chunks that they say.
    Contents,
    /// Every chunk of every recipe resolves; chunks are not read.
    Recipes,
    /// All of it.
    All,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Names, Self::Checks, Self::Contents, Self::Recipes, Self::All];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Checks => "checks",
            Self::Contents => "contents",
            Self::Recipes => "recipes",
            Self::All => "all",
        }
    }

    /// Whether it can do nothing without keys.
    pub fn needs_keys(self) -> bool {
        self.opens() || self.resolves()
    }

    fn reads_objects(self) -> bool {
        matches!(self, Self::Checks | Self::Contents | Self::All)
    }

    fn opens(self) -> bool {
        matches!(self, Self::Contents | Self::All)
    }

    fn resolves(self) -> bool {
        matches!(self, Self::Recipes | Self::All)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no level.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no verify level {0:?}: names, checks, contents, recipes or all")]
pub struct UnknownLevel(pub String);

impl FromStr for Level {
    type Err = UnknownLevel;
    fn from_str(name: &str) -> Result<Self, UnknownLevel> {
        Self::ALL
            .into_iter()
            .find(|level| level.name() == name)
            .ok_or_else(|| UnknownLevel(name.chars().take(40).collect()))
    }
}

/// Which part of a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// All of it.
    #[default]
    Vault,
    /// One pack; recipes are resolved as far as they lead into it.
    Pack(PackId),
    /// The points of an item and the packs that they need. Needs keys.
    Item(ItemId),
    /// One point and the packs that it needs. Needs keys.
    Point(PointId),
}

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which part.
    pub scope: Scope,
    /// Points that must be there, as the deciding side knows them.
    pub expected: Vec<(ItemId, PointId)>,
    /// The BLAKE3 of manifests, where the deciding side keeps them: another manifest under the same name is a finding, where manifests are read.
    pub manifests: BTreeMap<PointId, [u8; 32]>,
}

/// What is verified, with what there is to open it.
#[derive(Clone)]
pub struct Target {
    backend: Arc<dyn Backend>,
    id: VaultId,
    vault: Option<Arc<Vault>>,
    index: Option<Arc<dyn ChunkIndex>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("id", &self.id)
            .field("has_keys", &self.vault.is_some())
            .finish_non_exhaustive()
    }
}

impl Target {
    /// A vault without its keys.
    pub fn keyless(backend: Arc<dyn Backend>, id: VaultId) -> Self {
        Self {
            backend,
            id,
            vault: None,
            index: None,
        }
    }

    /// An opened vault. The index, if given, is asked for pieces that are no longer where recipes say: what was stored again heals older points too.
    pub fn opened(vault: Arc<Vault>, index: Option<Arc<dyn ChunkIndex>>) -> Self {
        Self {
            backend: Arc::clone(&vault.backend),
            id: vault.id,
            vault: Some(vault),
            index,
        }
    }
}

/// What was looked at and is as it must be, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checked {
    /// Packs read.
    pub packs: u64,
    /// Frames with right checksums.
    pub frames: u64,
    /// Chunks and recipe nodes named again.
    pub pieces: u64,
    /// Manifests, index segments, key revisions and other small objects.
    pub small: u64,
    /// Disks whose recipes were walked.
    pub disks: u64,
    /// Chunks that recipes name, each as often as it was looked up.
    pub chunks: u64,
    /// Bytes of objects read whole.
    pub bytes: u64,
}

/// What verifying found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The level.
    pub level: Level,
    /// What is wrong: one for each object and kind, ordered by object.
    pub findings: Vec<Finding>,
    /// Findings beyond [`FINDINGS_MAX`] places.
    pub findings_more: u64,
    /// What is odd and harms nobody.
    pub notes: Vec<String>,
    /// What was looked at.
    pub checked: Checked,
    /// Whether every finding names all points that it harms: there were keys, and nobody stopped it.
    pub harms_known: bool,
    /// Whether it came to its end.
    pub is_complete: bool,
    /// For the index.
    pub marks: Marks,
}

impl Report {
    /// Whether anything is damaged.
    pub fn has_damage(&self) -> bool {
        self.findings_more > 0 || self.findings.iter().any(|finding| finding.kind.is_damage())
    }

    /// Whether something was written by a newer version.
    pub fn has_unsupported(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| finding.kind == FindingKind::Unsupported)
    }

    /// All points that are harmed.
    pub fn harmed(&self) -> BTreeSet<PointId> {
        self.findings
            .iter()
            .filter(|finding| finding.kind.is_damage())
            .flat_map(|finding| finding.harms.iter().copied())
            .collect()
    }
}

/// Verifies a vault. Reads only; holds at most a few packs in memory. Cancel safe; [`Progress::stop`] keeps what was found.
///
/// # Errors
/// [`crate::Kind::Denied`] when the level needs keys that are not there; else what is no damage: no permission, a store that gives nothing.
pub async fn run(target: &Target, level: Level, options: &Options, progress: &Progress) -> Result<Report> {
    let is_narrow = matches!(options.scope, Scope::Item(_) | Scope::Point(_));
    if target.vault.is_none() && (level.needs_keys() || is_narrow) {
        let why = if is_narrow {
            "only recipes tell which packs a point needs".to_owned()
        } else {
            format!("level {level} opens objects")
        };
        return Err(KeyError::None {
            vault: target.id.to_string(),
            why,
        }
        .into());
    }
    let mut scan = Scan::new(target, &options.manifests, progress);
    progress.begin(Phase::Names, 0, 0);
    list(&mut scan, options).await?;
    let points = chosen_points(&scan, options.scope);
    for (item, point) in &options.expected {
        let is_chosen = match options.scope {
            Scope::Item(only) => only == *item,
            Scope::Point(only) => only == *point,
            _ => true,
        };
        if is_chosen && !points.get(item).is_some_and(|points| points.contains(point)) {
            let spot = Spot::Object(object_names::point(*item, *point));
            scan.missing(spot.clone(), "the point was made and not removed");
            scan.drafts.harm(&spot, *point);
        }
    }
    let mut references = BTreeSet::new();
    let mut is_walked = false;
    let mut packs: BTreeMap<PackId, u64> = scan.names.packs().collect();
    if is_narrow {
        let found = walk(&mut scan, &points, level.resolves(), None, true).await?;
        let reached = found.reached.clone().unwrap_or_default();
        take(&mut scan, found, &mut references);
        for pack in reached {
            scan.find(Spot::Pack(pack), "a recipe needs it").await?;
        }
        packs = scan.names.packs().collect();
    }
    if level.reads_objects() && !progress.is_stopped() {
        let small = match options.scope {
            Scope::Vault => all_small(&scan),
            Scope::Pack(_) => Vec::new(),
            Scope::Item(_) | Scope::Point(_) => {
                let lengths = scan.names.points();
                let chosen = points
                    .iter()
                    .flat_map(|(item, points)| points.iter().map(move |point| (*item, *point)));
                chosen
                    .map(|(item, point)| (object_names::point(item, point), lengths[&item][&point]))
                    .collect()
            }
        };
        scan.check_small(small, level).await?;
        scan.check_packs(packs, level).await?;
    }
    let resolves_now = level.resolves() && !is_narrow;
    if target.vault.is_some() && !progress.is_stopped() && (resolves_now || !scan.drafts.damaged().is_empty()) {
        let only = match options.scope {
            Scope::Pack(pack) => Some(pack),
            _ => None,
        };
        let found = walk(&mut scan, &points, resolves_now, only, false).await?;
        take(&mut scan, found, &mut references);
        is_walked = true;
    }
    finish(scan, level, &references, is_walked).await
}

async fn list(scan: &mut Scan<'_>, options: &Options) -> Result<()> {
    match options.scope {
        Scope::Vault => {
            use object_names::{CATALOG, CLUSTER, HEADER, INDEX, KEYS, PACKS, POINTS};
            // Segments and points before packs: what a backup writes meanwhile has its packs listed before it is missed.
            scan.list(&[POINTS, INDEX, PACKS, KEYS, CLUSTER, CATALOG]).await?;
            scan.find(
                Spot::Object(HEADER.to_owned()),
                "without it nobody knows how the vault's disks are cut",
            )
            .await?;
            if !scan.progress.is_stopped() {
                scan.read_segments().await?;
                scan.judge_names().await?;
            }
        }
        Scope::Pack(pack) => {
            let folder = format!("{}{}/", object_names::INDEX, pack.writer);
            scan.list(&[&folder]).await?;
            if scan.target.vault.is_some() {
                scan.list(&[object_names::POINTS]).await?;
            }
            scan.find(Spot::Pack(pack), "it was asked for").await?;
        }
        Scope::Item(item) => {
            scan.list(&[&format!("{}{item}/", object_names::POINTS), object_names::INDEX])
                .await?;
        }
        Scope::Point(_) => scan.list(&[object_names::POINTS, object_names::INDEX]).await?,
    }
    Ok(())
}

fn chosen_points(scan: &Scan<'_>, scope: Scope) -> BTreeMap<ItemId, Vec<PointId>> {
    let is_chosen = |item: ItemId, point: PointId| match scope {
        Scope::Vault | Scope::Pack(_) => true,
        Scope::Item(only) => only == item,
        Scope::Point(only) => only == point,
    };
    let chosen = scan.names.points().iter().map(|(item, points)| {
        let points: Vec<PointId> = points
            .keys()
            .copied()
            .filter(|point| is_chosen(*item, *point))
            .collect();
        (*item, points)
    });
    chosen.filter(|(_, points)| !points.is_empty()).collect()
}

fn all_small(scan: &Scan<'_>) -> Vec<(String, u64)> {
    let names = &scan.names;
    let points = names.points().iter();
    let points = points.flat_map(|(item, points)| {
        points
            .iter()
            .map(|(point, length)| (object_names::point(*item, *point), *length))
    });
    let segments = names.segments().map(|(id, length)| (object_names::segment(id), length));
    names
        .small()
        .iter()
        .map(|(name, length)| (name.clone(), *length))
        .chain(points)
        .chain(segments)
        .collect()
}

async fn walk(
    scan: &mut Scan<'_>,
    points: &BTreeMap<ItemId, Vec<PointId>>,
    resolves: bool,
    only: Option<PackId>,
    collects: bool,
) -> Result<Found> {
    let (target, progress) = (scan.target, scan.progress);
    let Some(vault) = &target.vault else {
        return Ok(Found::default());
    };
    progress.begin(if resolves { Phase::Recipes } else { Phase::Harm }, 0, 0);
    // The walk reads lengths of packs while manifests that do not open are noted.
    let names = std::mem::take(&mut scan.names);
    let mut walk = Walk::new(
        Arc::clone(vault),
        target.index.clone(),
        &names,
        progress,
        scan.drafts.damaged(),
    );
    if resolves {
        walk = walk.resolving(only);
    }
    if collects {
        walk = walk.collecting();
    }
    for (item, points) in points {
        if progress.is_stopped() {
            break;
        }
        let manifests = scan.manifests(vault, *item, points).await?;
        let disks = manifests.iter().flat_map(|manifest| &manifest.disks);
        progress.add_total(disks.clone().count() as u64, disks.map(|disk| disk.root.size).sum());
        walk.item(&manifests).await?;
    }
    let found = walk.finish();
    scan.names = names;
    Ok(found)
}

fn take(scan: &mut Scan<'_>, found: Found, references: &mut BTreeSet<(crate::ids::ChunkId, crate::ids::Location)>) {
    for fault in found.faults {
        scan.add(fault);
    }
    for (spot, points) in &found.harms {
        for point in points {
            scan.drafts.harm(spot, *point);
        }
    }
    scan.checked.disks += found.disks;
    scan.checked.chunks += found.chunks;
    if found.moved > 0 {
        scan.notes.push(format!(
            "{} chunks lie elsewhere than recipes say, where the index knows them",
            found.moved
        ));
    }
    references.extend(found.references);
}

async fn finish(
    scan: Scan<'_>,
    level: Level,
    references: &BTreeSet<(crate::ids::ChunkId, crate::ids::Location)>,
    is_walked: bool,
) -> Result<Report> {
    let is_complete = !scan.progress.is_stopped();
    let damaged: BTreeSet<PackId> = scan.drafts.damaged_packs();
    let footers = match &scan.target.vault {
        Some(vault) => scan.footers(vault, &damaged).await,
        None => BTreeMap::new(),
    };
    let has_keys = scan.target.vault.is_some();
    let loses_pieces = !scan.drafts.damaged().is_empty();
    let findings_more = scan.drafts.dropped();
    let findings = scan.drafts.finish();
    let mut marks = if has_keys {
        plan_marks(&findings, &footers, references)
    } else {
        Marks::default()
    };
    marks.is_cut |= findings_more > 0 || references.len() > LOST_MAX;
    Ok(Report {
        level,
        findings_more,
        notes: scan.notes,
        checked: scan.checked,
        harms_known: has_keys && is_complete && (is_walked || !loses_pieces),
        is_complete,
        marks,
        findings,
    })
}
