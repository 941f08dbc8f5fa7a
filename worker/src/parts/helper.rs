//! Another worker that reads ranges, over gRPC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tonic::Status;
use tonic::transport::Channel;
use tresor_proto::trace;
use tresor_proto::v1::part_piece::Piece;
use tresor_proto::v1::parts_client::PartsClient;
use tresor_proto::v1::{self, ErrorInfo};

use super::wire;
use crate::agent::port::LeaseId;
use crate::backup::{Helper, HelperError, PartMade, PartOrder};
use crate::progress::Progress;
use crate::slots::{Routed, wire as slots};

/// How long nothing may be heard of a helper: it says how far it is every two seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// How long its first answer may take: it comes at once, but a connection may have to be made.
const FIRST: Duration = Duration::from_secs(15);

/// What is the same for all ranges of a backup.
pub(crate) struct Ask {
    pub(crate) lease: LeaseId,
    /// What the commit stands on.
    pub(crate) routed: Routed,
}

/// A worker that answers for slots, asked to read.
pub(crate) struct RemoteHelper {
    name: String,
    client: PartsClient<Channel>,
    ask: Arc<Ask>,
}

impl RemoteHelper {
    pub(crate) fn new(name: String, channel: Channel, ask: Arc<Ask>) -> Self {
        let client = PartsClient::new(channel).max_decoding_message_size(slots::MESSAGE_MAX);
        Self { name, client, ask }
    }
}

fn error_of(status: &Status) -> HelperError {
    match ErrorInfo::of(status) {
        Some(info) if info.kind == "busy" => HelperError::Busy,
        _ => HelperError::Failed {
            why: status.message().to_owned(),
        },
    }
}

fn failed(why: impl Into<String>) -> HelperError {
    HelperError::Failed { why: why.into() }
}

#[async_trait]
impl Helper for RemoteHelper {
    fn name(&self) -> &str {
        &self.name
    }

    async fn read(&self, order: PartOrder, progress: Arc<Progress>) -> Result<PartMade, HelperError> {
        let ask = &self.ask;
        let message = v1::PartReadRequest {
            lease: Some(v1::LeaseId {
                job: ask.lease.job.0,
                epoch: ask.lease.epoch.0,
            }),
            disk: order.disk,
            size: order.size,
            parent: order.parent.map(wire::parent),
            first: order.segments.start,
            count: order.segments.end - order.segments.start,
        };
        let mut client = self.client.clone();
        let mut request = tonic::Request::new(message);
        trace::carry_in(&mut request);
        let mut pieces = match tokio::time::timeout(FIRST, client.read(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(error_of(&status)),
            Err(_) => return Err(failed("no answer")),
        };
        let mut leaves = Vec::new();
        let mut told = 0;
        loop {
            let piece = match tokio::time::timeout(SILENCE, pieces.message()).await {
                Ok(Ok(Some(piece))) => piece.piece,
                Ok(Ok(None)) => return Err(failed("its answer stopped half way")),
                Ok(Err(status)) => return Err(error_of(&status)),
                Err(_) => return Err(failed(format!("nothing was heard of it for {} s", SILENCE.as_secs()))),
            };
            match piece {
                Some(Piece::Progress(more)) => {
                    told += more.bytes_done;
                    progress.add_done(more.bytes_done);
                    progress.add_read(more.bytes_read);
                    progress.add_new(more.bytes_new);
                    progress.add_stored(more.bytes_stored);
                }
                Some(Piece::Leaves(more)) => {
                    leaves.extend(wire::leaves_of(more).map_err(|error| failed(error.to_string()))?);
                    if leaves.len() as u64 > order.segments.end - order.segments.start {
                        return Err(failed("more segments than were asked for"));
                    }
                }
                Some(Piece::End(end)) => {
                    let (counts, live, stands) = wire::end_of(&end).map_err(|error| failed(error.to_string()))?;
                    ask.routed.take_over(&stands).await;
                    let length = order.size.min(order.segments.end * tresor_storage::limits::SEGMENT)
                        - order.segments.start * tresor_storage::limits::SEGMENT;
                    progress.add_done(length.saturating_sub(told));
                    return Ok(PartMade { leaves, counts, live });
                }
                None => return Err(failed("its answer makes no sense")),
            }
        }
    }
}
