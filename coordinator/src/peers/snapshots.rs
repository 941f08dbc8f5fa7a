//! Sending a state, in pieces, on a stream of its own.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tresor_proto::v1;
use tresor_proto::v1::peer_client::PeerClient;

use crate::store::tables::View;
use crate::store::{Outgoing, SnapshotEnd, StoreError};

/// Pieces read ahead of the connection: with [`crate::store::PIECE_BYTES`] a few MiB.
const AHEAD: usize = 4;

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The rows could not be read here.
    #[error("read the rows to send")]
    Read(#[from] StoreError),
    /// The other side is gone.
    #[error("send a snapshot: {message}")]
    Send {
        /// What the connection said.
        message: String,
    },
    /// The other side did not take it.
    #[error("the snapshot was not taken: {why}")]
    NotTaken {
        /// Why.
        why: String,
    },
}

/// Sends a snapshot whose announcement is Raft's `message`; returns when the other side has it checked on its disk, or does not want it.
///
/// # Errors
/// [`SnapshotError`]; Raft is told, and makes another one later.
pub async fn send<V: View>(channel: Channel, message: Vec<u8>, mut outgoing: Outgoing<V>) -> Result<(), SnapshotError> {
    let (pieces, stream) = mpsc::channel(AHEAD);
    // Reading waits for the disk, so it has a thread of its own; it ends when the stream does.
    let reading = tokio::task::spawn_blocking(move || -> Result<(), StoreError> {
        let mut message = message;
        let mut number = 0;
        loop {
            let piece = outgoing.next_piece()?;
            let (rows, end) = match piece {
                Some(piece) => {
                    number = piece.number;
                    (piece.bytes, None)
                }
                None => (Vec::new(), outgoing.end().map(end_message)),
            };
            let last = end.is_some();
            let piece = v1::SnapshotPiece {
                message: std::mem::take(&mut message).into(),
                number,
                rows: rows.into(),
                end,
            };
            if pieces.blocking_send(piece).is_err() || last {
                return Ok(());
            }
        }
    });
    let answer = PeerClient::new(channel).snapshot(ReceiverStream::new(stream)).await;
    match reading.await {
        Ok(read) => read?,
        Err(_) => {
            return Err(SnapshotError::Send {
                message: String::from("the reading thread ended"),
            });
        }
    }
    let answer = answer.map_err(|status| SnapshotError::Send {
        message: status.message().to_owned(),
    })?;
    let v1::SnapshotResult { taken, why } = answer.into_inner();
    if taken {
        Ok(())
    } else {
        Err(SnapshotError::NotTaken { why })
    }
}

fn end_message(end: SnapshotEnd) -> v1::SnapshotEnd {
    v1::SnapshotEnd {
        pieces: end.pieces,
        rows: end.rows,
        digest: end.digest.to_vec().into(),
    }
}
