//! The calls of `parts.proto`, as other workers make them.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use tresor_proto::ids::WorkerId;
use tresor_proto::v1::parts_server::Parts;
use tresor_proto::v1::{self, ErrorInfo};
use tresor_storage::index::{ChunkIndex, IndexSession};

use super::desk::{Desk, Seat};
use super::wire::{self, LEAVES};
use crate::agent::failure::chain;
use crate::agent::port::Coordinator;
use crate::agent::vaults::Vaults;
use crate::agent::work::source_spec;
use crate::backup::{self, BackupDisk, Changes, Effort, PartEngine, PartMade, PartRequest, Shares, Steering};
use crate::control::Session;
use crate::limits::paced_source;
use crate::progress::{Progress, ProgressSnapshot};
use crate::slots::callers::Callers;
use crate::slots::peers::Peers;
use crate::slots::view::Views;
use crate::slots::{Routed, StandsOn, wire as slots};
use crate::source;

/// How often who asked is told how far the range is.
const TELL: Duration = Duration::from_secs(2);
/// Pieces that wait for the wire.
const PIECES: usize = 4;

/// What ranges are read with.
#[derive(Clone)]
pub(crate) struct ServiceParts {
    pub(crate) desk: Desk,
    pub(crate) effort: Effort,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) vaults: Arc<Vaults>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) views: Views,
}

/// Reads ranges for other workers.
#[derive(Clone)]
pub(crate) struct PartService {
    parts: ServiceParts,
    callers: Callers,
}

impl PartService {
    pub(crate) fn new(parts: ServiceParts, callers: Callers) -> Self {
        Self { parts, callers }
    }
}

fn refused(kind: &str, why: impl Into<String>) -> Status {
    ErrorInfo {
        kind: kind.to_owned(),
        ..Default::default()
    }
    .into_status(why)
}

#[tonic::async_trait]
impl Parts for PartService {
    type ReadStream = BoxStream<'static, Result<v1::PartPiece, Status>>;

    async fn read(&self, request: Request<v1::PartReadRequest>) -> Result<Response<Self::ReadStream>, Status> {
        let (caller, message) = self.callers.check_who(request)?;
        let Some(seat) = self.parts.desk.take() else {
            return Err(refused("busy", "as many work here as may"));
        };
        let (to, pieces) = mpsc::channel(PIECES);
        let parts = self.parts.clone();
        let span = tracing::info_span!("range", first = message.first, segments = message.count);
        tokio::spawn(
            async move {
                // When nobody listens any more, nothing is read any more.
                let gone = to.clone();
                let done = tokio::select! {
                    done = Box::pin(serve(&parts, caller, message, &seat, &to)) => done,
                    () = gone.closed() => return,
                };
                if let Err(status) = done {
                    tracing::warn!(why = status.message(), "range was not read");
                    let _ = to.send(Err(status)).await;
                }
            }
            .instrument(span),
        );
        Ok(Response::new(ReceiverStream::new(pieces).boxed()))
    }
}

type Pieces = mpsc::Sender<Result<v1::PartPiece, Status>>;

async fn serve(
    parts: &ServiceParts,
    caller: WorkerId,
    message: v1::PartReadRequest,
    seat: &Seat,
    to: &Pieces,
) -> Result<(), Status> {
    let progress = Arc::new(Progress::default());
    let telling = tell(Arc::clone(&progress), to);
    let (made, stands) = tokio::select! {
        made = Box::pin(read(parts, caller, message, seat, Arc::clone(&progress))) => made?,
        never = telling => match never {},
    };
    let mut pieces: Vec<v1::part_piece::Piece> = made
        .leaves
        .chunks(LEAVES)
        .map(|some| v1::part_piece::Piece::Leaves(wire::leaves(some)))
        .collect();
    pieces.push(v1::part_piece::Piece::End(wire::end(&made.counts, made.live, &stands)));
    let mut pieces = stream::iter(pieces);
    while let Some(piece) = pieces.next().await {
        // Who asked may be gone: then nobody is told.
        let _ = to.send(Ok(v1::PartPiece { piece: Some(piece) })).await;
    }
    Ok(())
}

/// Says how far it is, now and then, for ever.
async fn tell(progress: Arc<Progress>, to: &Pieces) -> std::convert::Infallible {
    let mut before = ProgressSnapshot::default();
    loop {
        tokio::time::sleep(TELL).await;
        let now = progress.snapshot();
        let piece = v1::part_piece::Piece::Progress(v1::PartProgress {
            bytes_done: now.bytes_done - before.bytes_done,
            bytes_read: now.bytes_read - before.bytes_read,
            bytes_new: now.bytes_new - before.bytes_new,
            bytes_stored: now.bytes_stored - before.bytes_stored,
        });
        before = now;
        let _ = to.send(Ok(v1::PartPiece { piece: Some(piece) })).await;
    }
}

async fn read(
    parts: &ServiceParts,
    caller: WorkerId,
    message: v1::PartReadRequest,
    seat: &Seat,
    progress: Arc<Progress>,
) -> Result<(PartMade, StandsOn), Status> {
    let malformed = |error: slots::Malformed| refused("invalid", error.to_string());
    let failed = |error: &dyn std::error::Error| refused("retry", chain(error));
    let segments = wire::segments_of(&message).map_err(malformed)?;
    let id = wire::lease_of(message.lease).map_err(malformed)?;
    let view = parts.views.clone().latest();
    let Some(life) = view.life else {
        return Err(refused("retry", "this worker is not registered"));
    };
    // ◆ What is read, and into which vault, the coordinators say: the caller has that lease, and the disk is in it.
    let told = parts.coordinator.lease_of(life, id, caller).await;
    let told = told.map_err(|error| failed(&error))?;
    let session = IndexSession {
        cluster: told.claim.cluster,
        session: told.session,
        start_epoch: told.start_epoch,
    };
    let listed = parts
        .coordinator
        .index_vaults(life)
        .await
        .map_err(|error| failed(&error))?;
    let lease = listed
        .into_iter()
        .find(|vault| vault.id == told.vault && vault.claim == Some(told.claim));
    let Some(lease) = lease else {
        return Err(refused("retry", "the vault is not known here under that claim"));
    };
    let work = told.work;
    let disk = work.disks.iter().find(|disk| disk.name == message.disk);
    let disk = disk.ok_or_else(|| refused("invalid", format!("the item has no disk {:?}", message.disk)))?;
    let spec = source_spec(&disk.path, &disk.format, work.allow_live, work.allow_backing)
        .map_err(|error| refused("invalid", chain(&error)))?;
    let source = source::open(&spec).await.map_err(|error| failed(&error))?;
    if source.size() != message.size {
        let why = format!("{} has {} bytes here, not {}", disk.path, source.size(), message.size);
        return Err(refused("invalid", why));
    }
    let source = paced_source(source, parts.vaults.limits().disks());
    let opened = Box::pin(parts.vaults.open_for(id.job, &lease))
        .await
        .map_err(|error| failed(&error))?;
    let vault = &opened.vault;
    let parent = message
        .parent
        .map(|parent| wire::parent_of(parent, &vault.ids, vault.profile))
        .transpose()
        .map_err(malformed)?;
    let routed = Routed::new(vault.id, session.cluster, Arc::clone(&parts.peers), parts.views.clone());
    let index: Arc<dyn ChunkIndex> = Arc::new(routed.clone());
    let engine = PartEngine {
        vault: Arc::clone(vault),
        reader: opened.reader(Some(Arc::clone(&index))),
        index,
        shares: Arc::new(routed.clone()) as Arc<dyn Shares>,
    };
    let request = PartRequest {
        disk: BackupDisk {
            name: disk.name.clone(),
            source,
            changes: Changes::Unknown,
        },
        parent,
        segments,
        session: Session {
            cluster: session.cluster,
            session: session.session,
            start_epoch: session.start_epoch,
        },
        allow_live: work.allow_live,
        effort: parts.effort,
    };
    let steering = Steering {
        progress,
        cancel: seat.cancel.clone(),
    };
    let made = Box::pin(backup::run_part(&engine, request, steering))
        .await
        .map_err(|error| failed(&error))?;
    Ok((made, routed.stands_on()))
}
