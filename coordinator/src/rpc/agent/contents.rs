//! What workers read of the log: the points of a vault, and what its catalogue seals.

use std::pin::Pin;

use futures::StreamExt as _;
use tokio_stream::Stream;
use tonic::Status;
use tresor_proto::ids::{ItemId, PointId, VaultId, WorkerId};
use tresor_proto::v1;

use super::super::catalogue::{Catalogue, Encoder};
use super::super::refused::Refused;
use super::{AgentService, denied, fenced, own_attempt, words};
use crate::node::Handle;
use crate::state::State;
use crate::state::command::Work;

/// Points in a message of a stream: at 80 bytes each a tenth of a megabyte.
const POINTS_A_MESSAGE: usize = 1000;
/// Items and points that one look of a stream goes through: a few milliseconds, in which nothing can be applied.
const LOOK: usize = 10_000;
/// Bytes of a catalogue's state in a message.
const PIECE_BYTES: usize = 256 << 10;
/// Hidden points in a message: at 70 bytes each a quarter of a megabyte.
const HIDDEN_A_MESSAGE: usize = 4000;

/// A stream of messages.
pub(super) type Pieces<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl AgentService {
    /// What the catalogue of a lease holds.
    pub(super) async fn catalogue_of(
        &self,
        worker: WorkerId,
        request: v1::CatalogueRequest,
    ) -> Result<Pieces<v1::CataloguePiece>, Refused> {
        let (job, epoch) = words::lease_id(request.id.as_ref())?;
        let handle = &self.services.handle;
        handle.barrier().await?;
        let (vault, index) = handle.read(|state| {
            let (row, attempt) = own_attempt(state, worker, job, epoch)?;
            match row.spec.work {
                Work::Catalogue => Ok((row.spec.vault, attempt.session.0)),
                _ => Err(Refused::invalid("id", "is not the lease of a catalogue")),
            }
        })?;
        let mut encoder = Encoder::new(vault);
        while !handle.read(|state| encoder.step(state)) {
            // Others want the state, too.
            tokio::task::yield_now().await;
        }
        let catalogue = handle.read(|state| encoder.finish(state, index));
        let catalogue = catalogue.ok_or_else(|| Refused::missing("vault", vault))?;
        self.note_catalogue(vault, catalogue.is_whole);
        if !catalogue.is_whole {
            tracing::warn!(%vault, "a vault has more than fits into its catalogue: the rest is in its manifests");
        }
        Ok(Box::pin(tokio_stream::iter(catalogue_messages(catalogue).map(Ok))))
    }

    /// Points of the vault of a lease: all, or one.
    pub(super) async fn points_of(
        &self,
        worker: WorkerId,
        request: v1::AgentPointsRequest,
    ) -> Result<Pieces<v1::AgentPoints>, Refused> {
        let handle = self.services.handle.clone();
        handle.barrier().await?;
        let vault = self.vault_of(worker, request.id.as_ref())?;
        if request.point.is_empty() {
            return Ok(Box::pin(all_points(handle, vault)));
        }
        let id = PointId::from_slice(&request.point).map_err(|_| Refused::invalid("point", "must have 16 bytes"))?;
        let found = handle.read(|state| {
            let item = state.points().get(&id).map(|point| point.item);
            let of = item
                .and_then(|item| state.items().get(&item))
                .map(|item| item.spec.vault);
            point_message(state, id).filter(|_| of == Some(vault))
        });
        let message = v1::AgentPoints {
            points: found.into_iter().collect(),
        };
        Ok(Box::pin(tokio_stream::once(Ok(message))))
    }

    /// The vault of a lease, also after its end, of the worker that has or had it.
    fn vault_of(&self, worker: WorkerId, id: Option<&v1::LeaseId>) -> Result<VaultId, Refused> {
        let (job, epoch) = words::lease_id(id)?;
        self.services.handle.read(|state| {
            let row = state.jobs().get(&job).ok_or_else(|| Refused::missing("job", job))?;
            let attempt = row.attempts.iter().find(|attempt| attempt.epoch == epoch);
            match attempt {
                Some(attempt) if attempt.worker == worker => Ok(row.spec.vault),
                Some(_) => Err(denied(format!("worker {worker} does not have this lease"))),
                None => Err(fenced(format!("job {job} has no such lease"))),
            }
        })
    }
}

/// A point as a worker is told of it.
fn point_message(state: &State, id: PointId) -> Option<v1::AgentPoint> {
    let point = state.points().get(&id)?;
    Some(v1::AgentPoint {
        point: id.0.to_vec().into(),
        item: point.item.0.to_vec().into(),
        manifest: point.manifest.to_vec().into(),
        hidden_at: point.hidden.map(|at| at.to_string()).unwrap_or_default(),
    })
}

/// Points of a vault, of items after one, as far as one look goes; and after which item the next look goes on.
fn some_points(state: &State, vault: VaultId, after: Option<ItemId>) -> (Vec<v1::AgentPoint>, Option<ItemId>) {
    let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
    let mut points = Vec::new();
    for (looked_at, (id, item)) in state.items().range((from, std::ops::Bound::Unbounded)).enumerate() {
        if item.spec.vault == vault {
            points.extend(state.points_of(*id).filter_map(|point| point_message(state, point)));
        }
        if looked_at + points.len() >= LOOK {
            return (points, Some(*id));
        }
    }
    (points, None)
}

/// All points of a vault, looked up as they are read. Points that come or go meanwhile may be among them or not.
fn all_points(handle: Handle, vault: VaultId) -> impl Stream<Item = Result<v1::AgentPoints, Status>> + Send {
    /// What is still to be looked at.
    enum Rest {
        After(Option<ItemId>),
        Nothing,
    }
    futures::stream::unfold((handle, Rest::After(None)), move |(handle, rest)| async move {
        let Rest::After(after) = rest else {
            return None;
        };
        let (points, next) = handle.read(|state| some_points(state, vault, after));
        let rest = match next {
            Some(_) => Rest::After(next),
            None => Rest::Nothing,
        };
        Some((points, (handle, rest)))
    })
    .flat_map(|points| {
        let messages: Vec<_> = points
            .chunks(POINTS_A_MESSAGE)
            .map(|some| Ok(v1::AgentPoints { points: some.to_vec() }))
            .collect();
        futures::stream::iter(messages)
    })
}

/// The messages of a catalogue: hidden and held points first, then the state, which is not copied as a whole.
fn catalogue_messages(catalogue: Catalogue) -> impl Iterator<Item = v1::CataloguePiece> + Send {
    let mut pieces = vec![v1::CataloguePiece {
        written_at: catalogue.time.to_string(),
        ..v1::CataloguePiece::default()
    }];
    for some in catalogue.hidden.chunks(HIDDEN_A_MESSAGE) {
        let hidden = some.iter().map(|hidden| v1::CatalogueHidden {
            point: hidden.point.0.to_vec().into(),
            item: hidden.item.0.to_vec().into(),
            hidden_at: hidden.hidden.to_string(),
        });
        pieces.push(v1::CataloguePiece {
            hidden: hidden.collect(),
            ..v1::CataloguePiece::default()
        });
    }
    for some in catalogue.held.chunks(HIDDEN_A_MESSAGE) {
        let held = some.iter().map(|held| v1::CatalogueHeld {
            point: held.point.0.to_vec().into(),
            reason: held.reason.to_string(),
        });
        pieces.push(v1::CataloguePiece {
            held: held.collect(),
            ..v1::CataloguePiece::default()
        });
    }
    let mut state = bytes::Bytes::from(catalogue.state);
    let rows = std::iter::from_fn(move || {
        let some = state.split_to(state.len().min(PIECE_BYTES));
        (!some.is_empty()).then(|| v1::CataloguePiece {
            state: some,
            ..v1::CataloguePiece::default()
        })
    });
    pieces.into_iter().chain(rows)
}
