//! One backup from its session to its commit.

use std::sync::Arc;
use std::time::Duration;

use tresor_storage::Doing;
use tresor_storage::backend::BackendError;
use tresor_storage::ids::{PartId, PointId, Writer};
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::{Manifest, ManifestDisk};
use tresor_storage::recipe::{NodeSource, Root, Tree};
use tresor_storage::vault::{Uploads, VaultError};

use super::line::Line;
use super::packer::{Produced, Product};
use super::part::{HelpedDisk, Helping, PartOrder};
use super::plan::usable_changes;
use super::ranges::Ranges;
use super::read::Lane;
use super::reask::{self, NewDisk, Reask};
use super::segment::KnownDamage;
use super::{BackupCounts, BackupDisk, BackupOutcome, BackupRequest, Engine, Steering};
use crate::control::{Commit, CommitDisk, ControlError, Counts, OpenSession, Requests, Session};
use crate::error::WorkerError;
use crate::source::SourceKind;

/// How long a backup that ends without a point waits for packs on their way, so that the next one finds them.
pub(super) const LAST_PACKS: Duration = Duration::from_secs(5);

/// How often a backup follows shares of the index to other owners before it gives up for this time: who grants them waits for a session that was refused
/// twice.
const MOVES_MAX: u32 = 8;

/// Makes a backup. When this returns a point, the point is durable and counts; on any error there is garbage at most, which the next attempt
/// reuses as far as its packs were put.
///
/// # Errors
/// By cause; [`WorkerError::Interrupted`] when told to stop.
pub async fn run(engine: &Engine, request: BackupRequest, steering: Steering) -> Result<BackupOutcome, WorkerError> {
    let pins = request.parent.iter().map(|parent| parent.point).collect();
    let session = engine.control.open_session(OpenSession { pins, writes: true }).await?;
    let number = session.session;
    let uploads = Arc::new(Uploads::default());
    let made = tokio::select! {
        made = make(engine, request, &steering, session, &uploads) => made,
        () = steering.cancel.cancelled() => Err(WorkerError::Interrupted),
    };
    uploads.settle(LAST_PACKS).await;
    engine.control.close_session(number).await;
    made
}

/// The disk of the parent point that this one follows: of the same name, or the only one of both.
fn parents_disk<'a>(request: &'a BackupRequest, disk: &BackupDisk) -> Option<&'a ManifestDisk> {
    let parent = request.parent.as_ref()?;
    match (parent.disks.as_slice(), request.disks.len()) {
        ([only], 1) => Some(only),
        (disks, _) => disks.iter().find(|d| d.name == disk.name),
    }
}

async fn make(
    engine: &Engine,
    request: BackupRequest,
    steering: &Steering,
    session: Session,
    uploads: &Arc<Uploads>,
) -> Result<BackupOutcome, WorkerError> {
    let vault = &engine.vault;
    let writer = Writer {
        cluster: session.cluster,
        session: session.session,
        part: PartId::random(),
    };
    let line = Line::new(
        (vault, &engine.index),
        steering,
        session.for_index(),
        writer,
        request.effort,
        request.allow_live,
    )
    .await?;
    let reader: Arc<dyn NodeSource> = Arc::clone(&engine.reader) as _;
    let mut lanes = Vec::with_capacity(request.disks.len());
    let (mut products, mut helped) = (Vec::new(), Vec::new());
    for disk in &request.disks {
        let root = parents_disk(&request, disk).map(|disk| disk.root);
        let parent = root.map(|root| Arc::new(Tree::new(root, vault.ids.clone(), Arc::clone(&reader))));
        let changes = usable_changes(&disk.changes, parent.is_some()).map(Arc::from);
        let size = disk.source.size();
        products.push(Product::recipe(vault, size, parent.clone()));
        // Where the changes are known there is little to read.
        let helpers = if changes.is_some() { 0 } else { engine.helpers.len() };
        let ranges = Arc::new(Ranges::of_disk(size.div_ceil(SEGMENT), helpers));
        helped.push(HelpedDisk {
            order: PartOrder {
                disk: disk.name.clone(),
                size,
                parent: root,
                segments: 0..0,
            },
            ranges: Arc::clone(&ranges),
        });
        lanes.push(Lane {
            context: line.context(disk, parent)?,
            changes,
            ranges,
        });
    }
    steering
        .progress
        .set_total(request.disks.iter().map(|d| d.source.size()).sum());
    let helping = Helping::begin(&engine.helpers, helped, &steering.progress);
    let mut counts = BackupCounts::default();
    let (produced, written) = line.run(&lanes, products, uploads, &mut counts).await?;
    counts.bytes_stored = written.bytes;
    counts.packs = written.packs;
    let (by_others, mut live) = helping.finish();
    counts.add(&by_others);
    for lane in &lanes {
        live |= line.check_steady(&lane.context).await?;
    }
    let roots: Vec<Root> = produced
        .into_iter()
        .map(|produced| match produced {
            Produced::Root(root) => root,
            Produced::Leaves(_) => unreachable!("recipes were asked for"),
        })
        .collect();

    let new_disks: Vec<NewDisk> = lanes
        .iter()
        .zip(&roots)
        .map(|(lane, root)| NewDisk {
            root: *root,
            parent: lane.context.parent.clone().filter(|_| lane.context.is_undamaged()),
        })
        .collect();
    let moves = Moves {
        engine,
        session,
        disks: &new_disks,
        damage: &line.damage,
        compression_level: request.effort.compression_level,
    };
    moves.settle(&mut counts).await?;
    let disks = request.disks.iter().zip(roots).map(|(disk, root)| ManifestDisk {
        name: disk.name.clone(),
        root,
        source_kind: kind_name(disk.source.description().kind).to_owned(),
        source_format: disk.source.description().format.to_string(),
    });
    let manifest = Manifest {
        vault: vault.id,
        item: request.item,
        item_name: request.item_name.clone(),
        point: PointId::random(),
        writer,
        parent: request.parent.as_ref().map(|parent| parent.point),
        time: request.time.clone(),
        keep_until: request.keep_until.clone(),
        consistency: request.consistency,
        consistency_reason: request.consistency_reason.clone(),
        live,
        disks: disks.collect(),
        bytes_read: counts.bytes_read,
        bytes_new: counts.bytes_new,
        bytes_stored: counts.bytes_stored,
    };
    commit(&moves, &manifest, &mut counts).await?;
    Ok(BackupOutcome { manifest, counts })
}

/// What it takes to follow shares of the index to other owners.
struct Moves<'a> {
    engine: &'a Engine,
    session: Session,
    disks: &'a [NewDisk],
    damage: &'a KnownDamage,
    compression_level: i32,
}

impl Moves<'_> {
    /// Waits for what was inserted, and asks again what moved, until nothing did.
    async fn settle(&self, counts: &mut BackupCounts) -> Result<(), WorkerError> {
        let Some(shares) = &self.engine.shares else {
            return Ok(());
        };
        for _ in 0..MOVES_MAX {
            shares.settle().await;
            let moved = shares.moved();
            if moved.is_empty() {
                break;
            }
            tracing::info!(
                slots = moved.len(),
                "shares of the index got other owners: what they answered is asked again"
            );
            shares.ask_again(&moved);
            let with = Reask {
                vault: &self.engine.vault,
                reader: &self.engine.reader,
                index: &self.engine.index,
                shares,
                damage: self.damage,
                session: self.session.for_index(),
                writer: Writer {
                    cluster: self.session.cluster,
                    session: self.session.session,
                    part: PartId::random(),
                },
                compression_level: self.compression_level,
                moved,
            };
            counts.bytes_stored += reask::run(&with, self.disks).await?.bytes;
        }
        Ok(())
    }
}

/// Puts the manifest, then asks whether the point counts. Everything that the manifest names is durable by now: the packer's end waited for it.
async fn commit(moves: &Moves<'_>, manifest: &Manifest, counts: &mut BackupCounts) -> Result<(), WorkerError> {
    let Moves { engine, session, .. } = moves;
    let backend = &engine.vault.backend;
    let name = manifest.object_name();
    let sealed = manifest.seal(&engine.vault.keyring)?;
    match backend.create(&name, std::slice::from_ref(&sealed)).await {
        Ok(()) => {}
        Err(BackendError::Exists { name }) => {
            return Err(tresor_storage::Error::from(VaultError::Collision { name }).into());
        }
        Err(error) => {
            return Err(error)
                .doing(|| format!("put manifest of point {}", manifest.point))
                .map_err(WorkerError::from);
        }
    }
    counts.bytes_stored += sealed.len() as u64;
    let commit = Commit {
        session: session.session,
        item: manifest.item,
        point: manifest.point,
        manifest_hash: tresor_storage::manifest::hash(&sealed),
        time: manifest.time.clone(),
        consistency: manifest.consistency,
        disks: manifest.disks.iter().map(commit_disk).collect(),
        live: manifest.live,
        counts: Counts {
            bytes_read: counts.bytes_read,
            bytes_new: counts.bytes_new,
            bytes_stored: counts.bytes_stored,
            bytes_logical: manifest.disks.iter().map(|disk| disk.root.size).sum(),
            chunks_new: counts.chunks_new,
            chunks_known: counts.chunks_known,
            segments_inherited: counts.segments_inherited,
            lookups: counts.lookups,
            packs: counts.packs,
            requests: Requests::default(),
        },
    };
    let mut rounds = 0;
    let committed = loop {
        match engine.control.commit(commit.clone()).await {
            Err(error @ ControlError::Moved { .. }) if rounds < MOVES_MAX => {
                rounds += 1;
                if let Some(shares) = &engine.shares {
                    shares.news().await;
                }
                if let Err(failed) = moves.settle(counts).await {
                    // The log has not taken the point, and is not asked any more.
                    tracing::warn!(error = %failed, "what moved could not be asked again");
                    break Err(error);
                }
            }
            committed => break committed,
        }
    };
    match committed {
        Ok(()) => Ok(()),
        Err(error) if error.is_refusal() => {
            // Refused for ever: the manifest must not stay where a reader without a log would believe it.
            if let Err(failed) = backend.delete(&name).await {
                tracing::warn!(object = name, error = %failed, "could not delete the manifest of a refused point");
            }
            Err(error.into())
        }
        // Unclear: the point may count. The manifest stays; it is complete.
        Err(error) => Err(error.into()),
    }
}

fn commit_disk(disk: &ManifestDisk) -> CommitDisk {
    CommitDisk {
        name: disk.name.clone(),
        root: disk.root,
    }
}

fn kind_name(kind: SourceKind) -> &'static str {
    match kind {
        SourceKind::File => "file",
        SourceKind::BlockDevice => "block device",
        SourceKind::Nbd => "nbd",
    }
}
