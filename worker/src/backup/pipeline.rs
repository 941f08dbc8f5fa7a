//! One backup from its session to its commit.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::mpsc;
use tresor_storage::Doing;
use tresor_storage::backend::BackendError;
use tresor_storage::ids::{PartId, PointId, Writer};
use tresor_storage::limits::SEGMENT;
use tresor_storage::manifest::{Manifest, ManifestDisk};
use tresor_storage::recipe::{NodeSource, Tree};
use tresor_storage::vault::{PackWriter, Uploads, VaultError};

use super::deferred::{DeferralError, Deferrals};
use super::frames::{Frames, PackerGone, QUEUE};
use super::packer::{Packer, PackerDisk};
use super::plan::{Todo, plan_changed, plan_read, usable_changes};
use super::reask::{self, NewDisk, Reask};
use super::segment::{BufferPool, DiskContext, KnownDamage};
use super::{BackupCounts, BackupDisk, BackupOutcome, BackupRequest, Engine, Steering};
use crate::control::{Commit, CommitDisk, ControlError, Counts, OpenSession, Requests, Session};
use crate::cores::Cores;
use crate::error::WorkerError;
use crate::extent::Extent;
use crate::source::{DiskSource, SourceKind, Steadiness};

/// Segments planned at once: one question for allocated extents per GiB.
const WINDOW: u64 = 256;

/// How long a backup that ends without a point waits for packs on their way, so that the next one finds them.
const LAST_PACKS: Duration = Duration::from_secs(5);

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
    let damage = match engine.index.damage().await {
        Ok(damage) => damage,
        Err(error) => {
            tracing::warn!(%error, "index does not tell known damage");
            Vec::new()
        }
    };
    let damage = Arc::new(KnownDamage::new(damage));
    let cores = Arc::new(Cores::new(request.effort.cores)?);
    let buffers = Arc::new(BufferPool::default());
    let cutter = vault.cutter()?;
    let prints = vault.fingerprinter()?;
    let reader: Arc<dyn NodeSource> = Arc::clone(&engine.reader) as _;
    let contexts: Vec<Arc<DiskContext>> = request
        .disks
        .iter()
        .map(|disk| {
            let parent = parents_disk(&request, disk)
                .map(|d| Arc::new(Tree::new(d.root, vault.ids.clone(), Arc::clone(&reader))));
            Arc::new(DiskContext {
                vault: Arc::clone(vault),
                index: Arc::clone(&engine.index),
                session: session.for_index(),
                cutter: cutter.clone(),
                prints: prints.clone(),
                source: Arc::clone(&disk.source),
                disk: disk.name.clone(),
                parent,
                damage: Arc::clone(&damage),
                defers: !request.allow_live,
                cores: Arc::clone(&cores),
                buffers: Arc::clone(&buffers),
                progress: Arc::clone(&steering.progress),
            })
        })
        .collect();
    steering
        .progress
        .set_total(request.disks.iter().map(|d| d.source.size()).sum());

    let (to_packer, from_frames) = mpsc::channel(QUEUE);
    #[expect(
        clippy::disallowed_methods,
        reason = "one list a pack, packs come of frames only, and who sends frames takes the lists before it sends more"
    )]
    let (settled_in, settled_out) = mpsc::unbounded_channel();
    let mut frames = Frames::new(
        to_packer,
        settled_out,
        Arc::clone(&cores),
        request.effort,
        Arc::clone(&steering.progress),
    );
    let packer_disks = contexts
        .iter()
        .map(|c| PackerDisk {
            size: c.source.size(),
            parent: c.parent.clone(),
        })
        .collect();
    let pack_writer = PackWriter::new(
        Arc::clone(vault),
        Arc::clone(&engine.index),
        session.for_index(),
        writer,
    )
    .with_uploads(Arc::clone(uploads));
    let packer = Packer::new(
        Arc::clone(vault),
        pack_writer,
        packer_disks,
        Arc::clone(&steering.progress),
        settled_in,
        frames.coded_buffers(),
    );
    // Dropped with this future, so that after an error or a stop nothing goes on but the packs that are being put.
    let mut packer = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(packer.run(from_frames)));

    let mut counts = BackupCounts::default();
    let mut read = Ok(());
    let mut started = 0;
    for (number, (context, disk)) in contexts.iter().zip(&request.disks).enumerate() {
        read = read_disk(
            number,
            context,
            disk,
            request.effort.cores,
            &mut frames,
            &mut started,
            &mut counts,
        )
        .await;
        if read.is_err() {
            break;
        }
    }
    counts.chunks_new = frames.chunks_new;
    counts.chunks_known += frames.chunks_known;
    counts.bytes_new = frames.bytes_new;
    drop(frames);
    match read {
        Err(ReadError::Worker(error)) => return Err(*error),
        // The packer's own error, below, says why.
        Ok(()) | Err(ReadError::PackerGone) => {}
    }
    let (roots, written) = match (&mut packer).await {
        Ok(done) => done?,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => return Err(WorkerError::Interrupted),
        },
    };
    counts.bytes_stored = written.bytes;
    counts.packs = written.packs;

    // Only now, after the last read, can one say whether what was read was one state of each disk.
    let mut live = false;
    for context in &contexts {
        let steadiness = context.source.finish().await.map_err(|source| WorkerError::Source {
            disk: context.disk.clone(),
            source,
        })?;
        match steadiness {
            Steadiness::Steady => {}
            Steadiness::Changed { .. } if request.allow_live => live = true,
            Steadiness::Changed { why } => {
                return Err(WorkerError::Changed {
                    disk: context.disk.clone(),
                    why,
                });
            }
        }
    }

    let new_disks: Vec<NewDisk> = contexts
        .iter()
        .zip(&roots)
        .map(|(context, root)| NewDisk {
            root: *root,
            parent: context.parent.clone().filter(|_| context.is_undamaged()),
        })
        .collect();
    let moves = Moves {
        engine,
        session,
        disks: &new_disks,
        damage: &damage,
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

enum ReadError {
    Worker(Box<WorkerError>),
    PackerGone,
}

impl From<PackerGone> for ReadError {
    fn from(_: PackerGone) -> Self {
        Self::PackerGone
    }
}

impl From<DeferralError> for ReadError {
    fn from(error: DeferralError) -> Self {
        match error {
            DeferralError::Worker(error) => Self::Worker(Box::new(error)),
            DeferralError::PackerGone => Self::PackerGone,
        }
    }
}

async fn read_disk(
    number: usize,
    context: &Arc<DiskContext>,
    disk: &BackupDisk,
    cores: usize,
    frames: &mut Frames,
    started: &mut u64,
    counts: &mut BackupCounts,
) -> Result<(), ReadError> {
    let worker = |error| ReadError::Worker(Box::new(error));
    let size = context.source.size();
    let segments = size.div_ceil(SEGMENT);
    let parent_size = context.parent.as_ref().map_or(0, |tree| tree.root().size);
    let changes = usable_changes(&disk.changes, context.parent.is_some());
    frames.begin_disk(number).await?;
    let mut deferrals = Deferrals::default();
    let mut first = 0;
    while first < segments {
        let window = first..(first + WINDOW).min(segments);
        let within = Extent {
            offset: first * SEGMENT,
            length: (window.end * SEGMENT).min(size) - first * SEGMENT,
        };
        let todos = plan_window(
            context.source.as_ref(),
            within,
            changes.as_deref(),
            window.clone(),
            size,
            parent_size,
        );
        let todos = todos.await.map_err(|source| {
            worker(WorkerError::Source {
                disk: context.disk.clone(),
                source,
            })
        })?;
        // Two more than cores: while each core cuts one, one is read and one waits.
        let starting = std::sync::atomic::AtomicU64::new(*started);
        let mut segment = first;
        let mut outcomes = stream::iter(todos)
            .map(|(segment, todo)| {
                starting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio_util::task::AbortOnDropHandle::new(tokio::spawn(Arc::clone(context).run(segment, todo)))
            })
            .buffered(cores.max(1) + 2);
        while let Some(outcome) = outcomes.next().await {
            let outcome = match outcome {
                Ok(outcome) => outcome.map_err(worker)?,
                Err(error) => match error.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => return Err(worker(WorkerError::Interrupted)),
                },
            };
            counts.bytes_read += outcome.bytes_read;
            counts.lookups += outcome.lookups;
            if matches!(outcome.done, super::segment::SegmentDone::Inherited(_)) {
                counts.segments_inherited += 1;
                // Inherited within the segment or with it: either way the parent had them.
                counts.chunks_known += outcome.chunks_kept;
            }
            let deferred = frames
                .push(outcome.done, starting.load(std::sync::atomic::Ordering::Relaxed))
                .await?;
            if let Some(leaf) = deferred {
                deferrals.add(segment, leaf);
            }
            segment += 1;
            deferrals.settle_far(context, frames, segment).await?;
        }
        drop(outcomes);
        *started = starting.into_inner();
        first = window.end;
    }
    deferrals.settle_all(context, frames).await?;
    counts.lookups += deferrals.lookups;
    counts.bytes_read += deferrals.bytes_read;
    Ok(frames.end_disk().await?)
}

async fn plan_window(
    source: &dyn DiskSource,
    within: Extent,
    changes: Option<&[Extent]>,
    window: std::ops::Range<u64>,
    size: u64,
    parent_size: u64,
) -> Result<Vec<(u64, Todo)>, crate::source::SourceError> {
    let length = |segment: u64| (size - segment * SEGMENT).min(SEGMENT);
    let mut todos = Vec::with_capacity((window.end - window.start) as usize);
    let mut allocated = None;
    for segment in window {
        let planned = changes.and_then(|changed| plan_changed(changed, segment, length(segment), parent_size));
        let todo = match planned {
            Some(todo) => todo,
            None => {
                if allocated.is_none() {
                    allocated = Some(source.allocated(within).await?);
                }
                plan_read(allocated.as_deref().expect("just asked"), segment, length(segment))
            }
        };
        todos.push((segment, todo));
    }
    Ok(todos)
}
