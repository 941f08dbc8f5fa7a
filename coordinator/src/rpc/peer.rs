//! The peer service: what other coordinators send.
//!
//! Who calls was checked before: only coordinators of this cluster get here, and `from` is the number in the certificate, whatever a message says.

use std::sync::atomic::{AtomicU64, Ordering};

use tonic::{Request, Response, Status, Streaming};
use tresor_proto::ids::MemberId;
use tresor_proto::v1;
use tresor_proto::v1::peer_server::Peer;

use super::caller::Caller;
use crate::node::Handle;
use crate::node::driver::Sender;
use crate::node::forms::FORM_UNSAID;
use crate::node::inbox::{Inbox, SnapshotStep};
use crate::state::State;
use crate::state::entry::Actor;
use crate::store::{Piece, SnapshotEnd};

/// Serves other coordinators.
#[derive(Debug)]
pub struct PeerService {
    inbox: Inbox,
    handle: Handle,
    calls: AtomicU64,
}

impl PeerService {
    /// Hands what comes to `inbox`; `handle` knows who was removed.
    pub fn new(inbox: Inbox, handle: Handle) -> Self {
        Self {
            inbox,
            handle,
            calls: AtomicU64::new(1),
        }
    }

    async fn receive(&self, from: MemberId, mut pieces: Streaming<v1::SnapshotPiece>) -> Result<(), String> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut begun = false;
        loop {
            let piece = match pieces.message().await {
                Ok(Some(piece)) => piece,
                Ok(None) => return Err(String::from("the stream ended before the snapshot did")),
                Err(status) => return Err(format!("the stream broke: {}", status.message())),
            };
            if !begun {
                begun = true;
                let message = piece.message;
                self.inbox.step(call, SnapshotStep::Begin { from, message }).await?;
            }
            match piece.end {
                None => {
                    let piece = Piece {
                        number: piece.number,
                        bytes: piece.rows.to_vec(),
                    };
                    self.inbox.step(call, SnapshotStep::Piece(piece)).await?;
                }
                Some(end) => {
                    let digest =
                        <[u8; 32]>::try_from(end.digest.as_ref()).map_err(|_| String::from("a digest has 32 bytes"))?;
                    let end = SnapshotEnd {
                        pieces: end.pieces,
                        rows: end.rows,
                        digest,
                    };
                    return self.inbox.step(call, SnapshotStep::End(end)).await;
                }
            }
        }
    }
}

/// The member that calls.
fn member<T>(request: &Request<T>) -> Result<MemberId, Status> {
    match request.extensions().get::<Caller>().map(|caller| &caller.actor) {
        Some(Actor::Member(id)) => Ok(*id),
        _ => Err(Status::permission_denied("only coordinators call each other here")),
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn messages(
        &self,
        request: Request<Streaming<v1::RaftMessage>>,
    ) -> Result<Response<v1::MessagesEnd>, Status> {
        let from = member(&request)?;
        let mut messages = request.into_inner();
        while let Some(message) = messages.message().await? {
            // A stream lasts as long as its connection, and its certificate was looked at when it began.
            let is_removed = |state: &State| state.members().get(&from).is_some_and(|row| row.removed);
            if self.handle.read(is_removed) {
                return Err(Status::permission_denied("this coordinator was removed"));
            }
            let clock_ms = message.wall_ms.saturating_sub(jiff::Timestamp::now().as_millisecond());
            let form = u16::try_from(message.form).unwrap_or(u16::MAX).max(FORM_UNSAID);
            self.inbox.message(from, message.message, Sender { clock_ms, form });
        }
        Ok(Response::new(v1::MessagesEnd {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotPiece>>,
    ) -> Result<Response<v1::SnapshotResult>, Status> {
        let from = member(&request)?;
        let result = self.receive(from, request.into_inner()).await;
        if let Err(why) = &result {
            tracing::warn!(%from, why, "a snapshot was not taken");
        }
        Ok(Response::new(v1::SnapshotResult {
            taken: result.is_ok(),
            why: result.err().unwrap_or_default(),
        }))
    }
}
