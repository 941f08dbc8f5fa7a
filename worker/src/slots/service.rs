//! The calls of `slots.proto`, as other workers make them. Who they are the listener knows; here is checked what they say.

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use tonic::{Request, Response, Status};
use tresor_proto::v1::slots_server::Slots;
use tresor_proto::v1::{self, ErrorInfo};

use super::callers::Callers;
use super::owner::Owner;
use super::peer::{PeerError, SlotPeer as _};

use super::wire::{self, Malformed};

/// Bytes of a list in one message.
const PIECE: usize = 1 << 20;

/// Answers other workers.
#[derive(Clone)]
pub(super) struct SlotService {
    owner: Owner,
    callers: Callers,
}

impl SlotService {
    pub(super) fn new(owner: Owner, callers: Callers) -> Self {
        Self { owner, callers }
    }
}

fn refused(kind: &str, why: impl Into<String>) -> Status {
    ErrorInfo {
        kind: kind.to_owned(),
        ..Default::default()
    }
    .into_status(why)
}

fn malformed(error: &Malformed) -> Status {
    refused("invalid", error.to_string())
}

fn status(error: &PeerError) -> Status {
    let kind = match error {
        PeerError::Fenced { .. } => "fenced",
        PeerError::Refused { .. } => "invalid",
        PeerError::Failed { .. } | PeerError::Unreachable { .. } => "retry",
    };
    refused(kind, error.to_string())
}

#[tonic::async_trait]
impl Slots for SlotService {
    async fn lookup(
        &self,
        request: Request<v1::SlotLookupRequest>,
    ) -> Result<Response<v1::SlotLookupResponse>, Status> {
        let message = self.callers.check(request)?;
        let (vault, session) = wire::session_of(message.session).map_err(|error| malformed(&error))?;
        let asked = wire::asked(message.ask).map_err(|error| malformed(&error))?;
        let answers = self
            .owner
            .lookup(vault, session, asked, message.claimant)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(wire::answers(&answers)))
    }

    async fn insert(&self, request: Request<v1::SlotInsertRequest>) -> Result<Response<v1::SlotChanged>, Status> {
        let message = self.callers.check(request)?;
        let (vault, session) = wire::session_of(message.session).map_err(|error| malformed(&error))?;
        let asked = wire::asked(message.ask).map_err(|error| malformed(&error))?;
        let locations = wire::locations_of(message.locations).map_err(|error| malformed(&error))?;
        let entries = wire::located(asked, locations).map_err(|error| malformed(&error))?;
        let changed = self.owner.insert(vault, session, entries, message.whole_at).await;
        Ok(Response::new(wire::changed(&changed.map_err(|error| status(&error))?)))
    }

    async fn locate(
        &self,
        request: Request<v1::SlotLocateRequest>,
    ) -> Result<Response<v1::SlotLookupResponse>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let asked = wire::asked(message.ask).map_err(|error| malformed(&error))?;
        let cluster = tresor_storage::ids::ClusterId(message.cluster);
        let answers = self
            .owner
            .locate(vault, cluster, asked)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(wire::answers(&answers)))
    }

    async fn replace(&self, request: Request<v1::SlotReplaceRequest>) -> Result<Response<v1::SlotChanged>, Status> {
        let message = self.callers.check(request)?;
        let (vault, session) = wire::session_of(message.session).map_err(|error| malformed(&error))?;
        let asked = wire::asked(message.ask).map_err(|error| malformed(&error))?;
        let from = wire::locations_of(message.from).map_err(|error| malformed(&error))?;
        let to = wire::locations_of(message.to).map_err(|error| malformed(&error))?;
        if to.len() != asked.len() {
            return Err(malformed(&Malformed("a location for each id")));
        }
        let moves = wire::located(asked, from)
            .map_err(|error| malformed(&error))?
            .into_iter()
            .zip(to);
        let moves = moves.map(|((asked, from), to)| (asked, from, to)).collect();
        let changed = self
            .owner
            .replace(vault, session, moves)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(wire::changed(&changed)))
    }

    async fn mark_lost(&self, request: Request<v1::SlotMarkLostRequest>) -> Result<Response<v1::SlotChanged>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let asked = wire::asked(message.ask).map_err(|error| malformed(&error))?;
        let locations = wire::locations_of(message.locations).map_err(|error| malformed(&error))?;
        let entries = wire::located(asked, locations).map_err(|error| malformed(&error))?;
        let cluster = tresor_storage::ids::ClusterId(message.cluster);
        let changed = self
            .owner
            .mark_lost(vault, cluster, entries)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(wire::changed(&changed)))
    }

    async fn add_damage(
        &self,
        request: Request<v1::SlotAddDamageRequest>,
    ) -> Result<Response<v1::SlotAddDamageResponse>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let damage = wire::damage_of(message.damage).map_err(|error| malformed(&error))?;
        let cluster = tresor_storage::ids::ClusterId(message.cluster);
        self.owner
            .add_damage(vault, cluster, damage)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(v1::SlotAddDamageResponse {}))
    }

    async fn damage(
        &self,
        request: Request<v1::SlotDamageRequest>,
    ) -> Result<Response<v1::SlotDamageResponse>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let cluster = tresor_storage::ids::ClusterId(message.cluster);
        let damage = self
            .owner
            .damage(vault, cluster)
            .await
            .map_err(|error| status(&error))?;
        Ok(Response::new(v1::SlotDamageResponse {
            damage: wire::damage(&damage),
        }))
    }

    async fn count(&self, request: Request<v1::SlotCountRequest>) -> Result<Response<v1::SlotCountResponse>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let cluster = tresor_storage::ids::ClusterId(message.cluster);
        let entries = self.owner.count(vault, cluster).await.map_err(|error| status(&error))?;
        Ok(Response::new(v1::SlotCountResponse { entries }))
    }

    type PacksStream = BoxStream<'static, Result<v1::SlotPacksPiece, Status>>;

    async fn packs(&self, request: Request<v1::SlotPacksRequest>) -> Result<Response<Self::PacksStream>, Status> {
        let message = self.callers.check(request)?;
        let vault = wire::vault_of(&message.vault).map_err(|error| malformed(&error))?;
        let list = self
            .owner
            .packs(vault, message.wave)
            .boxed()
            .await
            .map_err(|error| status(&error))?;
        let pieces = (0..list.len().div_ceil(PIECE)).map(move |piece| {
            let end = list.len().min((piece + 1) * PIECE);
            Ok(v1::SlotPacksPiece {
                bytes: list.slice(piece * PIECE..end),
            })
        });
        Ok(Response::new(stream::iter(pieces).boxed()))
    }
}
