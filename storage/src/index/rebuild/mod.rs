//! Making an index anew from what the store holds: first what index segments say, then the footers of packs that no segment
//! lists, and where a footer cannot be read, the pack's frames.
//!
//! A list of `packs/` says which packs there are; segments only stand in for the footers of those. Damage never stops a rebuild: it is
//! a finding, and the packs behind it are read another way. What stops it is what another try, another key or a newer program
//! mends: a store that does not answer, or an object of a version that this program does not know.
//!
//! Memory: some 20 B a pack for the list, two segments, eight footers or one pack at a time.
//!
//! This makes a whole index; `slots` makes shares of one, from checkpoints too.

mod packs;
mod scan;
#[cfg(feature = "rocks")]
pub mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

pub use self::packs::PackList;
use self::scan::Scan;
use super::segment::{self, SegmentEntry};
use super::{ChunkIndex, IndexError, MemoryIndex};
use crate::backend::BackendError;
use crate::error::{Doing, Error, FormatError, Kind, Result};
use crate::ids::{ChunkId, Location, PackId, Writer};
use crate::limits::{INDEX_SEGMENT_MAX, PACK_MAX};
use crate::pack::{Footer, TRAILER, read_footer};
use crate::seal::{ObjectKind, open_object};
use crate::vault::{Vault, names};

/// Findings kept in a report; more are counted only.
pub const FINDINGS_MAX: usize = 1000;
const SEGMENTS_AHEAD: usize = 2;
const FOOTERS_AHEAD: usize = 8;

/// Where a rebuild puts what it finds.
#[async_trait]
pub trait Target: Send + Sync {
    /// Adds entries; of several locations of one id the first added stays.
    ///
    /// # Errors
    /// When the index cannot take them.
    async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError>;

    /// Notes that something of a pack is lost.
    ///
    /// # Errors
    /// When the index cannot take it.
    async fn add_damage(&self, pack: PackId) -> Result<(), IndexError>;
}

#[async_trait]
impl Target for MemoryIndex {
    async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError> {
        self.load(&entries);
        Ok(())
    }

    async fn add_damage(&self, pack: PackId) -> Result<(), IndexError> {
        ChunkIndex::add_damage(self, pack, None).await
    }
}

#[cfg(feature = "rocks")]
#[async_trait]
impl Target for super::rocks::Load {
    async fn add(&self, entries: Vec<(ChunkId, Location)>) -> Result<(), IndexError> {
        Self::add(self, entries).await
    }

    async fn add_damage(&self, pack: PackId) -> Result<(), IndexError> {
        Self::add_damage(self, pack, None).await
    }
}

/// What a finding costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: what the object says was learned another way, or is not needed.
    Nothing,
    /// Some frames of a pack.
    Part,
    /// A whole pack.
    Whole,
}

/// Something wrong with one object.
#[derive(Debug)]
pub struct Finding {
    /// The object's name.
    pub object: String,
    /// What is wrong.
    pub error: Error,
    /// What it costs.
    pub loss: Loss,
}

/// What a rebuild did.
#[derive(Debug, Default)]
pub struct Report {
    /// Index segments in the store.
    pub segments_listed: u64,
    /// Packs in the store.
    pub packs_listed: u64,
    /// Segments read.
    pub segments_read: u64,
    /// Packs whose footers stood in a segment.
    pub packs_in_segments: u64,
    /// Footers read one by one.
    pub footers_read: u64,
    /// Packs scanned, because their footers could not be read.
    pub packs_scanned: u64,
    /// Entries found, before the same id is found again.
    pub entries: u64,
    /// What is wrong, the first [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Number of all findings.
    pub findings_total: u64,
    /// The newest segment that was read: the index's witness.
    pub witness: Option<String>,
}

impl Report {
    fn find(&mut self, object: String, error: Error, loss: Loss) {
        tracing::warn!(
            object,
            error = error.chain(),
            ?loss,
            "finding while the index is rebuilt"
        );
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(Finding { object, error, loss });
        }
    }
}

/// Fills a new index from the vault's store. `progress` is called after each segment and pack.
///
/// Segments, footers and recipe frames need `K_meta`; scanning a pack also needs `K_data`.
///
/// # Errors
/// Those of the store but for missing and cut objects, those of the target, and [`Kind::Unsupported`]. The target is then unfinished.
pub async fn rebuild(
    vault: &Arc<Vault>,
    target: &dyn Target,
    progress: &mut (dyn FnMut(&Report) + Send),
) -> Result<Report> {
    let mut report = Report::default();
    // In this order: whatever a listed segment lists was put before packs are listed, so what is not there then is gone.
    let segments = list_segments(vault, &mut report).await?;
    let mut packs = list_packs(vault, &mut report).await?;
    progress(&report);

    let reads = segments.into_iter().map(|id| {
        let vault = vault.clone();
        async move { (id, read_segment(&vault, id).await) }
    });
    let mut reads = stream::iter(reads).buffered(SEGMENTS_AHEAD);
    while let Some((id, read)) = reads.next().await {
        match read {
            Ok(entries) => {
                report.segments_read += 1;
                // Sorted, so the last of the highest session. Of several clusters' segments any one will do.
                let newest = |name: &String| names::parse_segment(name).is_some_and(|old| age(old) > age(id));
                report.witness = report
                    .witness
                    .take()
                    .filter(newest)
                    .or_else(|| Some(names::segment(id)));
                take_segment(target, &mut packs, &mut report, id, entries).await?;
            }
            Err(error) if stops(&error) => return Err(error),
            Err(error) => report.find(names::segment(id), error, Loss::Nothing),
        }
        progress(&report);
    }

    let reads = packs.into_rest().map(|(id, length)| {
        let vault = vault.clone();
        async move {
            let footer = read_footer(vault.backend.as_ref(), &vault.keyring, vault.id, id, Some(length)).await;
            (id, length, footer)
        }
    });
    let mut reads = stream::iter(reads).buffered(FOOTERS_AHEAD);
    while let Some((id, length, read)) = reads.next().await {
        let read = read.and_then(|(_, footer, _)| Ok((check_inside(&footer, length)?, footer)));
        match read {
            Ok(((), footer)) => {
                report.footers_read += 1;
                add(target, &mut report, footer.entries(id).collect()).await?;
            }
            Err(error) if stops(&error) => return Err(error),
            Err(error) => {
                take_frames(vault, target, &mut report, id, error).await?;
            }
        }
        progress(&report);
    }
    Ok(report)
}

/// Whether an error is no finding: another try, another key or a newer program mends it, and what was not read meanwhile would be missed.
fn stops(error: &Error) -> bool {
    match error {
        Error::While { source, .. } => stops(source),
        Error::Format(error) => error.kind() == Kind::Unsupported,
        Error::Backend(error) => !matches!(error.kind(), Kind::Missing | Kind::Corrupt),
        // A generation of keys that nobody has: as likely a damaged header as a newer revision.
        Error::Key(_) => false,
        Error::Index(_) | Error::Vault(_) => true,
    }
}

fn age(segment: PackId) -> (u64, u64, u32) {
    let Writer { session, part, .. } = segment.writer;
    (session.0, part.0, segment.seq)
}

async fn add(target: &dyn Target, report: &mut Report, entries: Vec<(ChunkId, Location)>) -> Result<()> {
    let count = entries.len() as u64;
    target.add(entries).await?;
    report.entries += count;
    Ok(())
}

/// The packs of a store: writers share their 24 bytes among their packs.
#[derive(Default)]
struct Packs(BTreeMap<Writer, BTreeMap<u32, Listed>>);

struct Listed {
    length: u32,
    done: bool,
}

impl Packs {
    fn get(&mut self, id: PackId) -> Option<&mut Listed> {
        self.0.get_mut(&id.writer)?.get_mut(&id.seq)
    }

    /// Takes out a pack if it is done.
    #[cfg(feature = "rocks")]
    fn take_done(&mut self, id: PackId) -> bool {
        let Some(packs) = self.0.get_mut(&id.writer) else {
            return false;
        };
        packs.get(&id.seq).is_some_and(|listed| listed.done) && packs.remove(&id.seq).is_some()
    }

    /// Those that are not done.
    fn into_rest(self) -> impl Iterator<Item = (PackId, u64)> + Send {
        let of_writer = |(writer, packs): (Writer, BTreeMap<u32, Listed>)| {
            let rest = packs.into_iter().filter(|(_, listed)| !listed.done);
            rest.map(move |(seq, listed)| (PackId { writer, seq }, u64::from(listed.length)))
        };
        self.0.into_iter().flat_map(of_writer)
    }
}

async fn list_segments(vault: &Vault, report: &mut Report) -> Result<Vec<PackId>> {
    let mut segments = Vec::new();
    let mut list = vault.backend.list(names::INDEX);
    while let Some(listed) = list.try_next().await.doing(|| "list index segments".into())? {
        match names::parse_segment(&listed.name) {
            Some(id) => segments.push(id),
            None => report.find(listed.name, no_name("index segment"), Loss::Nothing),
        }
    }
    segments.sort_unstable();
    report.segments_listed = segments.len() as u64;
    Ok(segments)
}

async fn list_packs(vault: &Vault, report: &mut Report) -> Result<Packs> {
    let mut packs = Packs::default();
    let mut list = vault.backend.list(names::PACKS);
    while let Some(listed) = list.try_next().await.doing(|| "list packs".into())? {
        let Some(id) = names::parse_pack(&listed.name) else {
            report.find(listed.name, no_name("pack"), Loss::Nothing);
            continue;
        };
        report.packs_listed += 1;
        // One that is too long to be a pack is read no further than by its trailer, which refuses it.
        let length = u32::try_from(listed.length).unwrap_or(u32::MAX);
        packs
            .0
            .entry(id.writer)
            .or_default()
            .insert(id.seq, Listed { length, done: false });
    }
    Ok(packs)
}

fn no_name(what: &'static str) -> Error {
    FormatError::Malformed {
        what,
        why: "has a name that none has",
    }
    .into()
}

async fn read_segment(vault: &Vault, id: PackId) -> Result<Vec<SegmentEntry>> {
    let name = names::segment(id);
    let read = async {
        let bytes = vault.backend.read(&name, INDEX_SEGMENT_MAX).await?;
        let (header, plain) = open_object(&vault.keyring, ObjectKind::Segment, vault.id, &name, &bytes)?;
        header.expect(ObjectKind::Segment, vault.id, Some((id.writer, id.seq)))?;
        Ok::<_, Error>(segment::decode(&plain.into())?)
    };
    read.await.doing(|| format!("read index segment {name}"))
}

/// Takes the footers in a segment for those packs that are there as the segment says.
async fn take_segment(
    target: &dyn Target,
    packs: &mut Packs,
    report: &mut Report,
    segment: PackId,
    entries: Vec<SegmentEntry>,
) -> Result<()> {
    for SegmentEntry { pack, length, footer } in entries {
        let Some(listed) = packs.get(pack) else {
            let name = names::pack(pack);
            let error = BackendError::NotFound { name: name.clone() };
            report.find(name, error.into(), Loss::Whole);
            target.add_damage(pack).await?;
            continue;
        };
        // Another length is damage, which its footer or a scan will tell.
        if listed.done || u64::from(listed.length) != length {
            continue;
        }
        let read = Footer::decode(&footer).and_then(|footer| Ok((check_inside(&footer, length)?, footer)));
        match read {
            Ok(((), footer)) => {
                listed.done = true;
                report.packs_in_segments += 1;
                add(target, report, footer.entries(pack).collect()).await?;
            }
            Err(error) if error.kind() == Kind::Unsupported => {
                return Err(error).doing(|| format!("read index segment {}", names::segment(segment)));
            }
            Err(error) => report.find(names::segment(segment), error.into(), Loss::Nothing),
        }
    }
    Ok(())
}

/// Refuses a footer that lists frames beyond the pack's end.
fn check_inside(footer: &Footer, length: u64) -> Result<(), FormatError> {
    let end = footer
        .frames
        .last()
        .map_or(0, |frame| u64::from(frame.offset) + u64::from(frame.length));
    if end + TRAILER as u64 > length {
        return Err(FormatError::Truncated {
            what: "pack",
            need: end + TRAILER as u64,
            have: length,
        });
    }
    Ok(())
}

/// Learns what it can of a pack whose footer cannot be read for `why`. Answers what is lost.
async fn take_frames(
    vault: &Arc<Vault>,
    target: &dyn Target,
    report: &mut Report,
    id: PackId,
    why: Error,
) -> Result<Loss> {
    let name = names::pack(id);
    let scanned = match vault.backend.read(&name, PACK_MAX).await {
        Ok(pack) => scan(vault, id, pack).await,
        Err(error) => Err(error.into()),
    };
    match scanned.doing(|| format!("scan pack {id}")) {
        Ok(Scan {
            entries,
            frames,
            damaged,
            first_damage,
        }) => {
            report.packs_scanned += 1;
            add(target, report, entries).await?;
            let loss = match (damaged.is_empty(), frames) {
                (true, _) => Loss::Nothing,
                (false, 0) => Loss::Whole,
                (false, _) => Loss::Part,
            };
            if loss != Loss::Nothing {
                target.add_damage(id).await?;
            }
            report.find(name, first_damage.unwrap_or(why), loss);
            Ok(loss)
        }
        Err(error) if stops(&error) => Err(error),
        Err(error) => {
            target.add_damage(id).await?;
            report.find(name, error, Loss::Whole);
            Ok(Loss::Whole)
        }
    }
}

/// Scans on a blocking thread: it opens and names tens of megabytes.
async fn scan(vault: &Arc<Vault>, id: PackId, pack: Bytes) -> Result<Scan> {
    let vault = vault.clone();
    match tokio::task::spawn_blocking(move || scan::scan(&vault, id, &pack)).await {
        Ok(scan) => scan,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                let error = IndexError::Database {
                    what: "scan",
                    kind: Kind::Retry,
                    source: error.into(),
                };
                Err(error.into())
            }
        },
    }
}

#[cfg(test)]
mod tests;
