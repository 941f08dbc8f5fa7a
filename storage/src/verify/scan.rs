//! Reading a vault's objects and collecting what is found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use super::examine::{Depth, Verdict, examine};
use super::finding::{Drafts, Fault, FindingKind, Spot};
use super::names::{Names, SegmentsSay, cut_pack};
use super::progress::{Phase, Progress};
use super::{Checked, Level, Target, small};
use crate::backend::{Backend, BackendError, Listed};
use crate::error::{Error, FormatError, Result};
use crate::ids::{ItemId, PackId, PointId, Writer};
use crate::limits::{PACK_MAX, READ_REQUEST_MAX};
use crate::manifest::Manifest;
use crate::pack::Footer;
use crate::seal::{OBJECT_HEADER, ObjectHeader};
use crate::vault::{Vault, names};

/// Packs read at once: with the largest packs this is most of verifying's memory.
const PACKS_AT_ONCE: usize = 2;
/// Requests of one pack in flight, 8 MiB each.
const REQUESTS_OF_PACK: usize = 3;
/// Small objects read at once, and what counts as small.
const SMALL_AT_ONCE: usize = 16;
const SMALL: u64 = 1 << 20;
/// Objects one after another that a store may fail to give before it, and not they, is to blame.
const PATIENCE: u32 = 8;

/// Tells a store that gives nothing from single objects that it does not give.
#[derive(Debug, Default)]
pub(super) struct Patience {
    run: u32,
}

impl Patience {
    /// An object was read, or is not as it must be.
    ///
    /// # Errors
    /// The last of too many that the store did not give.
    pub(super) fn met(&mut self, fault: &Fault) -> Result<()> {
        if fault.kind != FindingKind::Unreadable {
            self.run = 0;
            return Ok(());
        }
        self.run += 1;
        if self.run < PATIENCE {
            return Ok(());
        }
        let source = format!("{PATIENCE} objects one after another, the last: {}", fault.what).into();
        Err(BackendError::Unavailable {
            operation: "read",
            name: fault.spot.object(),
            source,
        }
        .into())
    }

    fn read(&mut self) {
        self.run = 0;
    }
}

/// One run over a vault.
pub(super) struct Scan<'a> {
    pub(super) target: &'a Target,
    /// The BLAKE3 that manifests must have.
    manifests: &'a BTreeMap<PointId, [u8; 32]>,
    pub(super) progress: &'a Progress,
    pub(super) names: Names,
    /// What index segments list, once they were read.
    pub(super) segments: Option<SegmentsSay>,
    pub(super) drafts: Drafts,
    pub(super) notes: Vec<String>,
    pub(super) checked: Checked,
    patience: Patience,
}

impl<'a> Scan<'a> {
    pub(super) fn new(target: &'a Target, manifests: &'a BTreeMap<PointId, [u8; 32]>, progress: &'a Progress) -> Self {
        Self {
            target,
            manifests,
            progress,
            names: Names::default(),
            segments: None,
            drafts: Drafts::default(),
            notes: Vec::new(),
            checked: Checked::default(),
            patience: Patience::default(),
        }
    }

    fn backend(&self) -> &'a dyn Backend {
        self.target.backend.as_ref()
    }

    pub(super) fn add(&mut self, fault: Fault) {
        if !self.drafts.has(&fault.spot) {
            self.progress.add_finding();
        }
        self.drafts.add(fault);
    }

    /// Takes an error met at a spot as a finding, unless it says nothing of the object.
    fn blame(&mut self, spot: Spot, error: Error) -> Result<()> {
        let Some(kind) = FindingKind::of(&error) else {
            return Err(error);
        };
        let fault = Fault {
            spot,
            kind,
            what: error.chain(),
        };
        self.patience.met(&fault)?;
        // A manifest harms the point that it is.
        let point = match &fault.spot {
            Spot::Object(name) => names::parse_point(name),
            _ => None,
        };
        let spot = fault.spot.clone();
        self.add(fault);
        if let Some((_, point)) = point {
            self.drafts.harm(&spot, point);
        }
        Ok(())
    }

    pub(super) fn missing(&mut self, spot: Spot, what: &str) {
        self.add(Fault {
            spot,
            kind: FindingKind::Missing,
            what: what.to_owned(),
        });
    }

    /// Lists folders of the vault.
    pub(super) async fn list(&mut self, folders: &[&str]) -> Result<()> {
        for folder in folders {
            let mut listing = self.backend().list(folder);
            while let Some(listed) = listing.next().await {
                self.names.add(listed?);
                self.progress.add_done(1, 0);
                if self.progress.is_stopped() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Asks for one object by name and takes it as listed.
    pub(super) async fn find(&mut self, spot: Spot, what: &str) -> Result<()> {
        let name = spot.object();
        match self.backend().length(&name).await {
            Ok(length) => self.names.add(Listed { name, length }),
            Err(BackendError::NotFound { .. }) => self.missing(spot, what),
            Err(error) => self.blame(spot, error.into())?,
        }
        Ok(())
    }

    /// Reads all index segments, if there are keys for it.
    pub(super) async fn read_segments(&mut self) -> Result<()> {
        let Some(vault) = &self.target.vault else { return Ok(()) };
        let mut say = SegmentsSay::default();
        let wanted: Vec<PackId> = self.names.segments().map(|(id, _)| id).collect();
        let backend = self.backend();
        let read = |id: PackId| async move { (id, backend.read(&names::segment(id), small::LENGTH_MAX).await) };
        let mut reads = futures::stream::iter(wanted).map(read).buffer_unordered(2);
        while let Some((id, bytes)) = reads.next().await {
            let name = names::segment(id);
            let entries = bytes
                .map_err(Error::from)
                .and_then(|bytes| small::open_segment(vault, &name, &bytes));
            match entries {
                Ok(entries) => {
                    self.patience.read();
                    for entry in entries {
                        if let Some(found) = self.names.pack_length(entry.pack)
                            && found < entry.length
                        {
                            let footer = Footer::decode(&entry.footer).unwrap_or_default();
                            cut_pack(entry.pack, found, &footer)
                                .into_iter()
                                .for_each(|fault| self.add(fault));
                        }
                        say.packs.insert(entry.pack, entry.length);
                    }
                }
                Err(error) => {
                    say.unread.insert(id.writer);
                    self.blame(Spot::Object(name), error)?;
                }
            }
            if self.progress.is_stopped() {
                return Ok(());
            }
        }
        self.segments = Some(say);
        Ok(())
    }

    /// Judges the names of the whole vault.
    pub(super) async fn judge_names(&mut self) -> Result<()> {
        let suspects = self.names.suspects(self.segments.as_ref());
        let finished = if suspects.is_empty() {
            BTreeSet::new()
        } else {
            self.finished(&suspects).await
        };
        let (faults, notes) = self.names.judge(&suspects, &finished, self.segments.as_ref());
        self.notes.extend(notes);
        let compared = self
            .segments
            .as_ref()
            .map(|say| self.names.compare(say))
            .unwrap_or_default();
        faults.into_iter().chain(compared).for_each(|fault| self.add(fault));
        self.notes.extend(self.names.notes());
        if !self
            .names
            .small()
            .keys()
            .any(|name| names::parse_key_revision(name).is_some())
        {
            self.missing(
                Spot::Object(names::KEYS.to_owned()),
                "no key revision is there: nobody can open the vault",
            );
        }
        Ok(())
    }

    /// Which of the suspects made a recovery point: the clear headers of manifests say so.
    async fn finished(&self, suspects: &BTreeSet<Writer>) -> BTreeSet<Writer> {
        let backend = self.backend();
        let points: Vec<String> = point_names(&self.names);
        let read = |name: String| async move {
            let bytes = backend.read_range(&name, 0..OBJECT_HEADER as u64).await.ok()?;
            ObjectHeader::parse(&bytes).ok()
        };
        futures::stream::iter(points)
            .map(read)
            .buffer_unordered(SMALL_AT_ONCE)
            .filter_map(async |header| {
                header
                    .map(|header| header.writer)
                    .filter(|writer| suspects.contains(writer))
            })
            .collect()
            .await
    }

    /// Checks all objects but packs: those given, each of that length.
    pub(super) async fn check_small(&mut self, objects: Vec<(String, u64)>, level: Level) -> Result<()> {
        self.progress.begin(
            Phase::Objects,
            objects.len() as u64,
            objects.iter().map(|(_, length)| length).sum(),
        );
        let (light, heavy): (Vec<_>, Vec<_>) = objects.into_iter().partition(|(_, length)| *length <= SMALL);
        let backend = self.backend();
        for (objects, at_once) in [(light, SMALL_AT_ONCE), (heavy, 2)] {
            let read = |(name, length): (String, u64)| async move {
                let bytes = backend.read(&name, small::LENGTH_MAX).await;
                (name, length, bytes)
            };
            let mut reads = futures::stream::iter(objects).map(read).buffer_unordered(at_once);
            while let Some((name, length, bytes)) = reads.next().await {
                let checked = match bytes {
                    Ok(bytes) => match &self.target.vault {
                        Some(vault) if level.opens() => small::open(vault, &name, &bytes),
                        _ => small::check(self.target.id, &name, &bytes).map_err(Error::from),
                    }
                    .and_then(|()| Ok(small::check_manifest(self.manifests, &name, &bytes)?)),
                    // Revisions, catalogues, checkpoints and points are deleted while others work; segments are not.
                    Err(BackendError::NotFound { .. })
                        if names::parse_segment(&name).is_none() && name != names::HEADER =>
                    {
                        self.notes.push(format!("{name} was deleted meanwhile"));
                        Ok(())
                    }
                    Err(error) => Err(error.into()),
                };
                match checked {
                    Ok(()) => {
                        self.patience.read();
                        self.checked.small += 1;
                    }
                    Err(error) => self.blame(Spot::Object(name), error)?,
                }
                self.checked.bytes += length;
                self.progress.add_done(1, length);
                if self.progress.is_stopped() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads packs whole and examines them. With keys, packs come in groups of an index segment, whose footers stand in for unreadable ones.
    pub(super) async fn check_packs(&mut self, mut packs: BTreeMap<PackId, u64>, level: Level) -> Result<()> {
        self.progress.add_total(packs.len() as u64, packs.values().sum());
        let depth = if level.opens() { Depth::Contents } else { Depth::Checks };
        if let Some(vault) = self.target.vault.clone() {
            let writers: BTreeSet<Writer> = packs.keys().map(|pack| pack.writer).collect();
            let segments: Vec<PackId> = self
                .names
                .segments()
                .map(|(id, _)| id)
                .filter(|id| writers.contains(&id.writer))
                .collect();
            for id in segments {
                let name = names::segment(id);
                // One that cannot be read is a finding elsewhere; its packs come with the rest.
                let Ok(bytes) = self.backend().read(&name, small::LENGTH_MAX).await else {
                    continue;
                };
                let Ok(entries) = small::open_segment(&vault, &name, &bytes) else {
                    continue;
                };
                let group = entries.into_iter().filter_map(|entry| {
                    packs
                        .remove(&entry.pack)
                        .map(|length| (entry.pack, length, Some(entry.footer)))
                });
                self.check_group(group.collect(), depth, Some(&name)).await?;
                if self.progress.is_stopped() {
                    return Ok(());
                }
            }
        }
        self.check_group(
            packs.into_iter().map(|(pack, length)| (pack, length, None)).collect(),
            depth,
            None,
        )
        .await
    }

    async fn check_group(
        &mut self,
        packs: Vec<(PackId, u64, Option<Bytes>)>,
        depth: Depth,
        segment: Option<&str>,
    ) -> Result<()> {
        let target = self.target;
        let check = |(pack, length, listed)| async move {
            (pack, length, check_pack(target, pack, length, depth, listed).await)
        };
        let mut checks = futures::stream::iter(packs).map(check).buffer_unordered(PACKS_AT_ONCE);
        while let Some((pack, length, verdict)) = checks.next().await {
            match verdict {
                Ok(verdict) => {
                    self.patience.read();
                    self.checked.packs += 1;
                    self.checked.frames += verdict.frames;
                    self.checked.pieces += verdict.pieces;
                    if verdict.segment_differs
                        && let Some(segment) = segment
                    {
                        let what = format!("lists another footer for pack {pack} than the pack has");
                        self.add(Fault {
                            spot: Spot::Object(segment.to_owned()),
                            kind: FindingKind::Corrupt,
                            what,
                        });
                    }
                    verdict.faults.into_iter().for_each(|fault| self.add(fault));
                }
                Err(error) => self.blame(Spot::Pack(pack), error)?,
            }
            self.checked.bytes += length;
            self.progress.add_done(1, length);
            if self.progress.is_stopped() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Opens the manifests of an item, oldest first; those that do not open are findings.
    pub(super) async fn manifests(&mut self, vault: &Vault, item: ItemId, points: &[PointId]) -> Result<Vec<Manifest>> {
        let backend = self.backend();
        let read = |point: PointId| async move {
            let name = names::point(item, point);
            let bytes = backend.read(&name, small::LENGTH_MAX).await;
            (name, bytes)
        };
        let mut reads = futures::stream::iter(points.iter().copied())
            .map(read)
            .buffer_unordered(SMALL_AT_ONCE);
        let mut manifests = Vec::new();
        while let Some((name, bytes)) = reads.next().await {
            let opened = match bytes {
                Err(BackendError::NotFound { .. }) => continue,
                Err(error) => Err(error.into()),
                Ok(bytes) => small::check_manifest(self.manifests, &name, &bytes)
                    .map_err(Error::from)
                    .and_then(|()| Manifest::open(&vault.keyring, &vault.ids, vault.profile, vault.id, &name, &bytes)),
            };
            match opened {
                Ok(manifest) => manifests.push(manifest),
                Err(error) => self.blame(Spot::Object(name), error)?,
            }
        }
        manifests.sort_by(|a, b| (&a.time, a.point).cmp(&(&b.time, b.point)));
        Ok(manifests)
    }

    /// The footers of packs, their own or an index segment's, as far as any can be read.
    pub(super) async fn footers(&self, vault: &Vault, packs: &BTreeSet<PackId>) -> BTreeMap<PackId, Footer> {
        let mut footers = BTreeMap::new();
        for pack in packs {
            let length = self.names.pack_length(*pack);
            if let Ok((_, footer, _)) =
                crate::pack::read_footer(self.backend(), &vault.keyring, vault.id, *pack, length).await
            {
                footers.insert(*pack, footer);
            }
        }
        let writers: BTreeSet<Writer> = packs
            .iter()
            .filter(|pack| !footers.contains_key(*pack))
            .map(|pack| pack.writer)
            .collect();
        for (id, _) in self.names.segments().filter(|(id, _)| writers.contains(&id.writer)) {
            let name = names::segment(id);
            let Ok(bytes) = self.backend().read(&name, small::LENGTH_MAX).await else {
                continue;
            };
            let Ok(entries) = small::open_segment(vault, &name, &bytes) else {
                continue;
            };
            for entry in entries.into_iter().filter(|entry| packs.contains(&entry.pack)) {
                if !footers.contains_key(&entry.pack)
                    && let Ok(footer) = Footer::decode(&entry.footer)
                {
                    footers.insert(entry.pack, footer);
                }
            }
        }
        footers
    }
}

/// Names of all manifests.
fn point_names(names: &Names) -> Vec<String> {
    let points = names.points().iter();
    points
        .flat_map(|(item, points)| points.keys().map(|point| names::point(*item, *point)))
        .collect()
}

async fn check_pack(
    target: &Target,
    pack: PackId,
    length: u64,
    depth: Depth,
    listed: Option<Bytes>,
) -> Result<Verdict> {
    let bytes = read_pack(target.backend.as_ref(), pack, length).await?;
    let (id, vault): (_, Option<Arc<Vault>>) = (target.id, target.vault.clone());
    // Hashing and opening a pack takes tens of milliseconds.
    let done =
        tokio::task::spawn_blocking(move || examine(id, pack, &bytes, depth, vault.as_deref(), listed.as_deref()))
            .await;
    match done {
        Ok(verdict) => verdict,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Ok(Verdict::default()),
        },
    }
}

async fn read_pack(backend: &dyn Backend, pack: PackId, length: u64) -> Result<BytesMut> {
    if length > PACK_MAX as u64 {
        return Err(FormatError::TooLarge {
            what: "pack",
            value: length,
            max: PACK_MAX as u64,
        }
        .into());
    }
    let name = &names::pack(pack);
    let ranges = (0..length)
        .step_by(READ_REQUEST_MAX as usize)
        .map(|start| start..(start + READ_REQUEST_MAX).min(length));
    let mut reads = futures::stream::iter(ranges)
        .map(|range| backend.read_range(name, range))
        .buffered(REQUESTS_OF_PACK);
    let mut bytes = BytesMut::with_capacity(length as usize);
    while let Some(read) = reads.next().await {
        bytes.extend_from_slice(&read?);
    }
    Ok(bytes)
}
