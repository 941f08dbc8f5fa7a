//! Another worker's slots, over gRPC.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tresor_proto::trace;
use tresor_proto::v1::slots_client::SlotsClient;
use tresor_proto::v1::{self, ErrorInfo};
use tresor_storage::Kind;
use tresor_storage::ids::{ClusterId, Location, PackId, VaultId};
use tresor_storage::index::{Answer, IndexSession};

use super::peer::{PeerError, SlotPeer};
use super::wire::{self, Asked, Changed, Malformed};
use crate::agent::client;

/// How long an answer about 512 ids may take: a thousand times what it takes on a good day. Who waits stores the chunks meanwhile as new.
const LOOKUP: Duration = Duration::from_secs(3);
/// How long a change may take: it waits for the disk.
const CHANGE: Duration = Duration::from_secs(10);
/// How long a piece of a list may take, after the list was made.
const PIECE: Duration = Duration::from_secs(30);
/// How long a list of packs may take to be made.
const LIST: Duration = Duration::from_secs(330);
/// Largest list of packs taken: ten million packs of a million sessions.
const LIST_MAX: usize = 256 << 20;

/// The slots of another worker.
pub(super) struct Remote {
    client: SlotsClient<Channel>,
}

impl Remote {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            client: SlotsClient::new(channel)
                .max_decoding_message_size(wire::MESSAGE_MAX)
                .max_encoding_message_size(wire::MESSAGE_MAX),
        }
    }
}

fn request<M>(message: M, deadline: Duration) -> Request<M> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    trace::carry_in(&mut request);
    request
}

async fn answered<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(error_of(&status)),
        Err(_) => Err(PeerError::Unreachable {
            why: format!("nothing within {} s", deadline.as_secs()),
        }),
    }
}

fn error_of(status: &Status) -> PeerError {
    use crate::agent::port::CallError;
    let is_ours = ErrorInfo::of(status).is_some();
    match client::error_of(status) {
        CallError::Refused {
            kind: Kind::Fenced,
            why,
            ..
        } => PeerError::Fenced { why },
        CallError::Refused {
            kind: Kind::Invalid,
            why,
            ..
        } => PeerError::Refused { why },
        CallError::Refused { why, .. } => PeerError::Failed { why },
        CallError::Unanswered { why } if is_ours => PeerError::Failed { why },
        CallError::Unanswered { why } => PeerError::Unreachable { why },
        CallError::Unreadable { why } | CallError::Moved { why } => PeerError::Failed { why },
    }
}

fn malformed(error: &Malformed) -> PeerError {
    PeerError::Failed {
        why: format!("its answer makes no sense: {error}"),
    }
}

fn split<T: Copy>(entries: &[(Asked, T)]) -> (v1::SlotAsk, Vec<T>) {
    let asked: Vec<Asked> = entries.iter().map(|(asked, _)| *asked).collect();
    (wire::ask(&asked), entries.iter().map(|(_, at)| *at).collect())
}

#[async_trait]
impl SlotPeer for Remote {
    async fn lookup(
        &self,
        vault: VaultId,
        session: IndexSession,
        asked: Vec<Asked>,
        claimant: u64,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        let message = v1::SlotLookupRequest {
            session: Some(wire::session(vault, session)),
            ask: Some(wire::ask(&asked)),
            claimant,
        };
        let mut client = self.client.clone();
        let answer = answered(LOOKUP, client.lookup(request(message, LOOKUP))).await?;
        wire::answers_of(answer, asked.len()).map_err(|error| malformed(&error))
    }

    async fn insert(
        &self,
        vault: VaultId,
        session: IndexSession,
        entries: Vec<(Asked, Location)>,
        whole_at: u64,
    ) -> Result<Vec<Changed>, PeerError> {
        let (ask, locations) = split(&entries);
        let message = v1::SlotInsertRequest {
            session: Some(wire::session(vault, session)),
            ask: Some(ask),
            locations: Some(wire::locations(&locations)),
            whole_at,
        };
        let mut client = self.client.clone();
        let answer = answered(CHANGE, client.insert(request(message, CHANGE))).await?;
        wire::changed_of(&answer.kinds, entries.len()).map_err(|error| malformed(&error))
    }

    async fn locate(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        asked: Vec<Asked>,
    ) -> Result<Vec<Option<Answer>>, PeerError> {
        let message = v1::SlotLocateRequest {
            vault: vault.0.to_vec().into(),
            cluster: cluster.0,
            ask: Some(wire::ask(&asked)),
        };
        let mut client = self.client.clone();
        let answer = answered(LOOKUP, client.locate(request(message, LOOKUP))).await?;
        wire::answers_of(answer, asked.len()).map_err(|error| malformed(&error))
    }

    async fn replace(
        &self,
        vault: VaultId,
        session: IndexSession,
        moves: Vec<(Asked, Location, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        let asked: Vec<Asked> = moves.iter().map(|(asked, _, _)| *asked).collect();
        let message = v1::SlotReplaceRequest {
            session: Some(wire::session(vault, session)),
            ask: Some(wire::ask(&asked)),
            from: Some(wire::locations(moves.iter().map(|(_, from, _)| from))),
            to: Some(wire::locations(moves.iter().map(|(_, _, to)| to))),
        };
        let mut client = self.client.clone();
        let answer = answered(CHANGE, client.replace(request(message, CHANGE))).await?;
        wire::changed_of(&answer.kinds, moves.len()).map_err(|error| malformed(&error))
    }

    async fn mark_lost(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        entries: Vec<(Asked, Location)>,
    ) -> Result<Vec<Changed>, PeerError> {
        let (ask, locations) = split(&entries);
        let message = v1::SlotMarkLostRequest {
            vault: vault.0.to_vec().into(),
            cluster: cluster.0,
            ask: Some(ask),
            locations: Some(wire::locations(&locations)),
        };
        let mut client = self.client.clone();
        let answer = answered(CHANGE, client.mark_lost(request(message, CHANGE))).await?;
        wire::changed_of(&answer.kinds, entries.len()).map_err(|error| malformed(&error))
    }

    async fn add_damage(
        &self,
        vault: VaultId,
        cluster: ClusterId,
        damage: Vec<(PackId, Option<u32>)>,
    ) -> Result<(), PeerError> {
        let message = v1::SlotAddDamageRequest {
            vault: vault.0.to_vec().into(),
            cluster: cluster.0,
            damage: wire::damage(&damage),
        };
        let mut client = self.client.clone();
        answered(CHANGE, client.add_damage(request(message, CHANGE))).await?;
        Ok(())
    }

    async fn damage(&self, vault: VaultId, cluster: ClusterId) -> Result<Vec<(PackId, Option<u32>)>, PeerError> {
        let message = v1::SlotDamageRequest {
            vault: vault.0.to_vec().into(),
            cluster: cluster.0,
        };
        let mut client = self.client.clone();
        let answer = answered(LOOKUP, client.damage(request(message, LOOKUP))).await?;
        wire::damage_of(answer.damage).map_err(|error| malformed(&error))
    }

    async fn count(&self, vault: VaultId, cluster: ClusterId) -> Result<u64, PeerError> {
        let message = v1::SlotCountRequest {
            vault: vault.0.to_vec().into(),
            cluster: cluster.0,
        };
        let mut client = self.client.clone();
        Ok(answered(LOOKUP, client.count(request(message, LOOKUP))).await?.entries)
    }

    async fn packs(&self, vault: VaultId, wave: u64) -> Result<Bytes, PeerError> {
        let message = v1::SlotPacksRequest {
            vault: vault.0.to_vec().into(),
            wave,
            ..Default::default()
        };
        let mut client = self.client.clone();
        // The answer begins when the list is made.
        let mut stream = answered(LIST, client.packs(message)).await?;
        let mut list = BytesMut::new();
        loop {
            match tokio::time::timeout(PIECE, stream.message()).await {
                Ok(Ok(Some(piece))) if list.len() + piece.bytes.len() <= LIST_MAX => {
                    list.extend_from_slice(&piece.bytes);
                }
                Ok(Ok(Some(_))) => return Err(malformed(&Malformed("a list of packs without an end"))),
                Ok(Ok(None)) => return Ok(list.freeze()),
                Ok(Err(status)) => return Err(error_of(&status)),
                Err(_) => {
                    return Err(PeerError::Unreachable {
                        why: String::from("a list of packs stopped half way"),
                    });
                }
            }
        }
    }
}
